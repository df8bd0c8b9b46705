//! `--memory-limit` holds for all clips: the kernel's high-water mark of a run stays below the limit, and a clip
//! that does not fit ends the run with an error that contains its name.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use wavemill_tests::Failed;

use crate::support::{
    Ran, argv, files_below, finish, inputs, manifest, receipts, run, same, same_versions, scratch,
    sql, sql_counts, sql_number, start, wavemill,
};

const MIB: u64 = 1 << 20;
/// Memory of the program itself before it holds a clip: its code, its threads and the catalog's allocations. An
/// extraction of one short clip peaks at 75 to 91 MiB in a debug build, with 1 thread as with 16. Of these, 8 MiB
/// are the program's own allocations, and the rest are mapped pages of the executable, whose number varies between
/// machines; hence the margin. scripts/break/run.py contains the same figure.
pub(crate) const PROGRAM_BYTES: u64 = 112 * MIB;
/// Factor by which a run may exceed its limit, in addition to the memory of the program itself.
const OVER: f64 = 1.05;
/// Sampling interval of a program's memory. The high-water mark only rises, so sampling misses only the rise of the
/// last interval.
const LOOK: Duration = Duration::from_millis(2);
/// Duration of programs that may end before the first sample.
const SHORT: Duration = Duration::from_secs(1);
/// Recipe for whole clips of any length.
const RECIPE: &str = r#"
name = "memory"
[catalog]
dataset = "folders"
[split]
rule = "stratified"
[[targets]]
name = "genre"
column = "genre"
[audio]
min_duration_s = 0.1
[[features]]
name = "log_mel"
op = "mel"
db = { ref = 1.0, top_db = 80.0 }
dtype = "f32"
[[features]]
name = "mfcc"
op = "mfcc"
n_mfcc = 13
"#;

/// Writes a 16-bit mono WAV. A silent file is sparse and takes no space on disk.
fn wav(path: &Path, rate_hz: u32, seconds: f64, is_silent: bool) -> Result<(), Failed> {
    let n_bytes = 2 * (f64::from(rate_hz) * seconds) as u32;
    let mut header = b"RIFF".to_vec();
    header.extend((36 + n_bytes).to_le_bytes());
    header.extend(b"WAVEfmt ");
    header.extend(16_u32.to_le_bytes());
    header.extend([1, 0, 1, 0]);
    header.extend(rate_hz.to_le_bytes());
    header.extend((2 * rate_hz).to_le_bytes());
    header.extend([2, 0, 16, 0]);
    header.extend(b"data");
    header.extend(n_bytes.to_le_bytes());

    fs::create_dir_all(path.parent().ok_or("a folder")?)?;
    let mut file = File::create(path)?;
    file.write_all(&header)?;
    if !is_silent {
        let samples = (0..n_bytes / 2).map(|i| (i * 97 % 3_000) as i16 - 1_500);
        file.write_all(&samples.flat_map(i16::to_le_bytes).collect::<Vec<_>>())?;
    }
    Ok(file.set_len(44 + u64::from(n_bytes))?)
}

/// Returns the path of a clip of three seconds. The clips that are broken on purpose are shorter.
fn sound_clip() -> PathBuf {
    let clips = files_below(&inputs().audio)
        .into_iter()
        .map(|name| inputs().audio.join(name));
    clips
        .max_by_key(|path| fs::metadata(path).map_or(0, |metadata| metadata.len()))
        .unwrap()
}

/// Writes an MP3 of several hours by repeating the frames of a short one.
fn long_mp3(path: &Path, seconds: f64) -> Result<(), Failed> {
    let short = fs::read(sound_clip())?;
    fs::create_dir_all(path.parent().ok_or("a folder")?)?;
    let mut file = File::create(path)?;
    for _ in 0..(seconds / 3.0) as usize {
        file.write_all(&short)?;
    }
    Ok(())
}

/// An extraction of a folder or zip, with its peak memory.
struct Run {
    ran: Ran,
    peak_bytes: u64,
    wall: Duration,
    /// CPU time in hundredths of a second, which other programs do not affect.
    cpu_ticks: u64,
}

fn extract(
    audio: &Path,
    store: &Path,
    limit_mib: u64,
    threads: u32,
    sets: &[&str],
) -> Result<Run, Failed> {
    let recipe = store.with_extension("toml");
    fs::write(&recipe, RECIPE)?;

    let mut command = wavemill(["extract", "--max-reject-fraction", "1", "--recipe"]);
    command
        .arg(recipe)
        .arg("--audio")
        .arg(audio)
        .arg("--store")
        .arg(store)
        .env("WAVEMILL_BACKEND", "cpu");
    command
        .arg("--memory-limit")
        .arg(format!("{limit_mib}MiB"))
        .arg("--threads")
        .arg(threads.to_string());

    for set in sets {
        command.args(["--set", set]);
    }
    watched(&mut command)
}

fn watched(command: &mut Command) -> Result<Run, Failed> {
    let begun = Instant::now();
    let mut child = start(command);

    let path = format!("/proc/{}/status", child.id());
    let stat_path = format!("/proc/{}/stat", child.id());

    let mut peak = 0;
    let mut cpu_ticks = 0;
    while child.try_wait()?.is_none() {
        let status = fs::read_to_string(&path).unwrap_or_default();
        let mark = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        // The line is absent if the process has ended and was not yet waited for.
        peak = mark.map_or(Ok(0), str::parse::<u64>)?.max(peak);
        cpu_ticks =
            cpu_ticks_in(&fs::read_to_string(&stat_path).unwrap_or_default()).max(cpu_ticks);
        std::thread::sleep(LOOK);
    }

    let wall = begun.elapsed();
    Ok(Run {
        ran: finish(child),
        peak_bytes: peak << 10,
        wall,
        cpu_ticks,
    })
}

/// Returns the user and system time of a process: fields 14 and 15 of /proc/PID/stat according to proc(5). Parses
/// the fields after the name, which is in parentheses and may contain spaces.
fn cpu_ticks_in(stat: &str) -> u64 {
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let fields = behind_name.split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum()
}

impl Run {
    /// Fails if the peak memory of the run exceeded the limit.
    fn stays_under(self, what: &str, limit_mib: u64) -> Result<Self, Failed> {
        let most = (limit_mib * MIB) as f64 * OVER + PROGRAM_BYTES as f64;
        let peak = self.peak_bytes;

        println!(
            "{what}: {} MiB at most under {limit_mib} MiB, {:.1} s",
            peak / MIB,
            self.wall.as_secs_f64()
        );

        // On a busy machine, a short program may end before the first look at its memory.
        let was_seen = peak > 0 || self.wall < SHORT;
        if was_seen && peak as f64 <= most {
            return Ok(self);
        }

        Err(format!(
            "{what}: {} MiB under a limit of {limit_mib} MiB: {}",
            peak / MIB,
            self.ran.err
        )
        .into())
    }
}

/// Folders and archives of files that once took gigabytes of memory or made a codec panic.
const HOSTILE: [&str; 9] = [
    "ogg_codebook_memory/v10",
    "ogg_codebook_memory/v100",
    "ogg_codebook_memory/vmax",
    "panic_ogg_codebook",
    "panic_ogg_fuzz",
    "panic_wav",
    "flac_total",
    "zip_method/flip.zip",
    "zip_method/lzma.zip",
];

#[apply(trial)]
fn hostile_files_stay_under_the_limit(data: &Path) -> Result<(), Failed> {
    let folder = scratch("hostile-memory");
    for (number, name) in HOSTILE.iter().enumerate() {
        let store = folder.join(number.to_string());
        let mut audio = data.join("hostile").join(name);
        if *name == "flac_total" {
            // The recipe expects one folder per genre.
            let files = files_below(&audio);
            audio = folder.join("flac");
            fs::create_dir_all(audio.join("g"))?;
            for file in files {
                fs::copy(
                    data.join("hostile").join(name).join(&file),
                    audio.join("g").join(&file),
                )?;
            }
        }

        let run = extract(&audio, &store, 256, 8, &[])?.stays_under(name, 256)?;
        run.ran.exits(0)?;
        let panics = sql_number(
            &store,
            "SELECT count(*) AS n FROM rejects WHERE reason = 'worker_panic'",
        )?;
        same(name, panics, 0)?;
    }
    Ok(())
}

#[apply(trial)]
fn program_alone_uses_little_memory() -> Result<(), Failed> {
    let folder = scratch("memory-alone");
    wav(&folder.join("audio/a/1.wav"), 22_050, 2.0, false)?;

    let run = extract(&folder.join("audio"), &folder.join("store"), 256, 2, &[])?;
    println!("the program alone: {} MiB", run.peak_bytes / MIB);
    run.ran.exits(0)?;

    let is_small = (1..PROGRAM_BYTES).contains(&run.peak_bytes);
    if is_small {
        Ok(())
    } else {
        Err(format!("{} MiB", run.peak_bytes / MIB).into())
    }
}

#[apply(trial)]
fn long_clips_on_many_threads_stay_under_the_limit() -> Result<(), Failed> {
    let folder = scratch("memory-long");
    for number in 0..8 {
        wav(
            &folder.join(format!("audio/a/{number}.wav")),
            22_050,
            600.0,
            true,
        )?;
    }

    for (limit_mib, sets) in [(512, &[][..]), (256, &["shards.row_group_rows=1"][..])] {
        let store = folder.join(format!("store-{limit_mib}"));
        let run = extract(&folder.join("audio"), &store, limit_mib, 8, sets)?;
        run.stays_under("eight clips of ten minutes", limit_mib)?
            .ran
            .exits(0)?;
        same("clips", manifest(&store, 1)?.counts.clips_written, 8)?;
    }
    Ok(())
}

/// Tests a 3-hour WAV, a 3-hour MP3, and a zip entry of 500 MB.
#[apply(trial)]
fn clips_that_do_not_fit_are_named() -> Result<(), Failed> {
    let folder = scratch("memory-refused");
    wav(&folder.join("wav/a/hours.wav"), 8_000, 10_790.0, true)?;
    long_mp3(&folder.join("mp3/a/hours.mp3"), 10_000.0)?;
    let zip = folder.join("large.zip");
    stored_zip(&zip, "a/large.wav", 500_000_000)?;

    for (name, audio) in [
        ("a/hours.wav", "wav"),
        ("a/hours.mp3", "mp3"),
        ("a/large.wav", "large.zip"),
    ] {
        let store = folder.join(format!("store-{audio}"));
        let run = extract(&folder.join(audio), &store, 256, 8, &[])?.stays_under(name, 256)?;
        let words = [
            name,
            "--memory-limit",
            "audio.max_duration_s",
            "audio.duration_s",
            "audio.max_file_bytes",
        ];
        run.ran.exits(1)?.says(&words)?;
    }

    // A clip whose file fits becomes a row if the recipe cuts it.
    wav(&folder.join("cut/a/hour.wav"), 8_000, 5_000.0, true)?;
    let (cut, store) = (folder.join("cut"), folder.join("store-cut"));
    extract(&cut, &store, 256, 8, &[])?
        .stays_under("an hour", 256)?
        .ran
        .exits(1)?
        .says(&["a/hour.wav"])?;

    let store = folder.join("store-cut-30");
    let cut = extract(&cut, &store, 256, 8, &["audio.duration_s=30.0"])?;
    cut.stays_under("30 s of an hour", 256)?.ran.exits(0)?;
    Ok(())
}

/// Writes a zip with one stored entry of zeros. Its checksum is wrong, but it is checked only after reading.
fn stored_zip(path: &Path, name: &str, bytes: u32) -> Result<(), Failed> {
    let sizes = [[0; 4], bytes.to_le_bytes(), bytes.to_le_bytes()].concat();
    let name_len = (name.len() as u16).to_le_bytes();

    let mut file = File::create(path)?;
    file.write_all(
        &[
            b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0",
            &sizes[..],
            &name_len,
            &[0, 0],
            name.as_bytes(),
        ]
        .concat(),
    )?;
    let directory_at = 30 + name.len() as u64 + u64::from(bytes);
    file.set_len(directory_at)?;

    let entry = [
        b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0",
        &sizes[..],
        &name_len,
        &[0; 16],
        name.as_bytes(),
    ]
    .concat();
    let end = [
        b"PK\x05\x06\0\0\0\0\x01\0\x01\0",
        &(entry.len() as u32).to_le_bytes()[..],
        &(directory_at as u32).to_le_bytes(),
        &[0, 0],
    ]
    .concat();

    let mut file = File::options().append(true).open(path)?;
    file.write_all(&entry)?;
    Ok(file.write_all(&end)?)
}

/// A zip bomb of a few kilobytes becomes one reject if the recipe limits the size of files.
#[apply(trial)]
fn a_limit_of_bytes_makes_a_reject_of_a_zip_bomb() -> Result<(), Failed> {
    const ZIP: &str = "
import sys, zipfile
archive, clip = sys.argv[1:]
with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as out:
    out.write(clip, 'a/good.wav')
    out.writestr('a/zeros.wav', bytes(400_000_000))
";

    let folder = scratch("memory-bomb");
    let (clip, zip) = (folder.join("good.wav"), folder.join("bomb.zip"));
    wav(&clip, 8_000, 2.0, true)?;
    let mut python = Command::new("python3");
    run(python.args(["-c", ZIP]).arg(&zip).arg(&clip)).exits(0)?;

    let stopped = extract(&zip, &folder.join("stopped"), 256, 2, &[])?;
    let ran = stopped.stays_under("without a limit", 256)?.ran.exits(1)?;
    ran.says(&[
        "a/zeros.wav",
        "audio.max_file_bytes in the recipe, which rejects such files",
    ])?;

    let store = folder.join("store");
    let limited = extract(&zip, &store, 256, 2, &["audio.max_file_bytes=10000000"])?;
    limited.stays_under("with a limit", 256)?.ran.exits(0)?;

    let counts = manifest(&store, 1)?.counts;
    same("written", counts.clips_written, 1)?;
    same(
        "rejects",
        counts.rejects,
        [("too_large".to_owned(), 1)].into(),
    )?;
    let detail = "SELECT detail FROM rejects";
    same(
        "detail",
        &sql(&store, detail)?[0]["detail"],
        &"over 10000000 bytes, which is the recipe's max_file_bytes".into(),
    )?;

    // The limit `max_file_bytes` is part of the version's identity: another limit needs a new version.
    let again = extract(&zip, &store, 256, 2, &["audio.max_file_bytes=20000000"])?;
    again.ran.exits(4)?.says(&["audio.max_file_bytes"])
}

/// Some shards are finished when a clip does not fit. They are kept, and a run with a larger limit continues from
/// there.
#[apply(trial)]
fn run_resumes_after_a_clip_did_not_fit() -> Result<(), Failed> {
    let folder = scratch("memory-goes-on");
    for number in 0..12 {
        wav(
            &folder.join(format!("audio/a/{number}.wav")),
            22_050,
            2.0,
            false,
        )?;
    }
    wav(&folder.join("audio/a/long.wav"), 8_000, 1_800.0, true)?;

    let sets = ["shards.clips=1"];
    let (store, whole) = (folder.join("store"), folder.join("whole"));
    let stopped =
        extract(&folder.join("audio"), &store, 256, 2, &sets)?.stays_under("half an hour", 256)?;
    stopped
        .ran
        .exits(1)?
        .says(&["a/long.wav", "--memory-limit 256 MiB", "again to continue"])?;
    let finished = receipts(&store);

    extract(&folder.join("audio"), &store, 1024, 2, &sets)?
        .stays_under("half an hour", 1024)?
        .ran
        .exits(0)?;
    extract(&folder.join("audio"), &whole, 1024, 2, &sets)?
        .ran
        .exits(0)?;
    same_versions(&store, &whole)?;

    if finished == 0 {
        Err("no shard was finished before the clip that does not fit".into())
    } else {
        Ok(())
    }
}

/// Creates long and short clips of several rates and formats, for a recipe that sets no length.
fn mixed_clips(folder: &Path) -> Result<PathBuf, Failed> {
    let audio = folder.join("audio");
    for (number, seconds) in [300.0, 2.0, 0.3, 200.0, 5.0, 1.0, 400.0, 3.0, 0.05]
        .into_iter()
        .enumerate()
    {
        let rate_hz = [22_050, 44_100, 8_009, 16_000][number % 4];
        wav(
            &audio.join(format!("a/{number}.wav")),
            rate_hz,
            seconds,
            seconds > 100.0,
        )?;
    }

    long_mp3(&audio.join("b/long.mp3"), 240.0)?;
    long_mp3(&audio.join("b/short.mp3"), 3.0)?;
    fs::write(
        audio.join("b/cut.mp3"),
        &fs::read(audio.join("b/long.mp3"))?[..1_000_001],
    )?;
    fs::write(audio.join("b/text.mp3"), "no audio")?;
    Ok(audio)
}

#[apply(trial)]
fn memory_limit_does_not_change_the_store() -> Result<(), Failed> {
    let folder = scratch("memory-equal");
    let audio = mixed_clips(&folder)?;
    let sets = ["shards.clips=8", "shards.row_group_rows=2"];
    let wide = folder.join("wide");
    extract(&audio, &wide, 2048, 1, &sets)?.ran.exits(0)?;

    for threads in [1, 8] {
        let narrow = folder.join(format!("narrow-{threads}"));
        extract(&audio, &narrow, 256, threads, &sets)?
            .stays_under("long and short clips", 256)?
            .ran
            .exits(0)?;
        same_versions(&wide, &narrow)?;
    }
    Ok(())
}

/// `audio.max_duration_s` rejects long clips under every memory limit, including a clip that would not fit.
#[apply(trial)]
fn too_long_is_a_reject_at_every_limit() -> Result<(), Failed> {
    let folder = scratch("memory-too-long");
    let audio = mixed_clips(&folder)?;
    wav(&audio.join("a/hour.wav"), 8_000, 5_000.0, true)?;
    wav(&audio.join("a/exact.wav"), 22_050, 4.0, false)?;

    let sets = ["audio.max_duration_s=4.0"];
    for (name, limit_mib) in [("narrow", 256), ("wide", 2048)] {
        extract(&audio, &folder.join(name), limit_mib, 4, &sets)?
            .stays_under("too long", limit_mib)?
            .ran
            .exits(0)?;
    }
    same_versions(&folder.join("narrow"), &folder.join("wide"))?;

    let query = "SELECT reason AS name, count(*) AS n FROM rejects GROUP BY reason";
    let counted = sql_counts(&folder.join("narrow"), query)?;
    let wanted = [("not_audio", 1), ("too_large", 7), ("too_short", 1)]
        .map(|(name, n)| (name.to_owned(), n));
    same("rejects", counted, wanted.into())
}

/// Returns every command that takes a recipe.
fn commands(sets: &str, limit_mib: u64) -> [Command; 3] {
    let clip = sound_clip();
    let mut commands = [
        wavemill(["recipe", "check", "demo"]),
        wavemill(["extract", "--dry-run", "--recipe", "demo", "--store"]),
        wavemill(argv(
            "features --recipe demo --feature log_mel --format arrow --out /dev/null",
        )),
    ];

    commands[1]
        .arg(scratch("memory-dry").join("store"))
        .arg("--audio")
        .arg(&inputs().audio);
    commands[1]
        .arg("--memory-limit")
        .arg(format!("{limit_mib}MiB"));
    if let Some(metadata) = &inputs().metadata {
        commands[1].arg("--metadata").arg(metadata);
    }

    commands[2].arg(clip);

    for command in &mut commands {
        for set in argv(sets) {
            command.args(["--set", set]);
        }
    }
    commands
}

#[apply(trial)]
fn impossible_values_are_rejected_immediately() -> Result<(), Failed> {
    for set in [
        "audio.segment_s=1e-7",
        "audio.segment_s=3e-5",
        "audio.duration_s=1e300",
        "audio.duration_s=1e-300",
        "audio.duration_s=nan",
        "audio.max_duration_s=1e9",
        "audio.sample_rate_hz=4000000000",
        "features.log_mel.n_fft=1048576",
        "features.log_mel.n_mels=60000",
        "features.mfcc.n_mfcc=60000",
        "features.log_mel.frames=9000000000",
        "features.log_mel.hop_length=0",
        "shards.row_group_rows=9000000000000000000",
        "shards.clips=9000000000000000000",
    ] {
        let key = set.split('=').next().unwrap();
        for mut command in commands(set, 256) {
            let run = watched(&mut command)?;
            let is_small = run.peak_bytes < PROGRAM_BYTES;

            run.ran.exits(2)?.says(&[key, set])?;
            same(&format!("{set}: small"), is_small, true)?;
        }
    }
    Ok(())
}

#[apply(trial)]
fn the_largest_numbers_of_a_recipe_are_within_a_machine() -> Result<(), Failed> {
    /// Memory limit for one clip of ten seconds without `--memory-limit`, with the largest values that a recipe
    /// allows.
    const FEATURES_LIMIT_MIB: u64 = 1024;
    const WALL_TIME_MAX: Duration = Duration::from_secs(60);

    for sets in [
        "features.log_mel.hop_length=1",
        "features.log_mel.n_fft=65536 features.log_mel.n_mels=2048",
        "audio.segment_s=0.001",
        "audio.duration_s=none audio.segment_s=0.11",
        "shards.row_group_rows=1048576 shards.clips=1048576",
        "audio.sample_rate_hz=48000 features.log_mel.frames=1048576",
        "audio.sample_rate_hz=8000 audio.duration_s=10800.0",
    ] {
        for mut command in commands(sets, 256) {
            let run = watched(&mut command)?.stays_under(sets, FEATURES_LIMIT_MIB)?;
            if run.wall > WALL_TIME_MAX {
                return Err(format!("{sets}: {:.0} s", run.wall.as_secs_f64()).into());
            }
            run.ran.exits(0)?;
        }
    }
    Ok(())
}

/// Compares 300 sample rates, most of which have no short period with the recipe's rate, with a single such rate in
/// the middle of them. The cost per sample is the same, so the only difference is one resampling plan per clip.
#[apply(trial)]
fn many_sample_rates_use_little_memory() -> Result<(), Failed> {
    fn run(folder: &Path, name: &str) -> Result<Run, Failed> {
        let run = extract(
            &folder.join(name),
            &folder.join(format!("store-{name}")),
            256,
            2,
            &[],
        )?;
        run.stays_under(name, 256)
    }

    const CLIPS: u32 = 300;
    const ONE_RATE_HZ: u32 = 51_001;
    /// Planning for a clip costs less than processing a clip of one second.
    const MORE_CPU_MAX: f64 = 2.0;
    /// Memory that a few plans per worker may add.
    const MORE_BYTES_MAX: u64 = 48 * MIB;

    let folder = scratch("memory-rates");
    for number in 0..CLIPS {
        let clip = format!("a/{number:03}.wav");
        wav(
            &folder.join("many").join(&clip),
            8_009 + 290 * number,
            1.0,
            false,
        )?;
        wav(&folder.join("one").join(&clip), ONE_RATE_HZ, 1.0, false)?;
    }

    let (one, many) = (run(&folder, "one")?, run(&folder, "many")?);
    many.ran.exits(0)?;
    one.ran.exits(0)?;
    if many.peak_bytes > one.peak_bytes + MORE_BYTES_MAX {
        return Err(format!(
            "{} MiB for one rate, {} for many",
            one.peak_bytes / MIB,
            many.peak_bytes / MIB
        )
        .into());
    }

    let more = many.cpu_ticks as f64 / one.cpu_ticks.max(1) as f64;
    println!("300 rates: {more:.1} times the CPU time of one");
    if more > MORE_CPU_MAX {
        Err(format!("{more:.1} times the CPU time of one rate").into())
    } else {
        Ok(())
    }
}
