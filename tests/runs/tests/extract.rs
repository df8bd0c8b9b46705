//! `extract` writes the same bytes under all conditions, computes nothing twice, and accounts for every input.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use wavemill_tests::Failed;

use crate::support::{
    Inputs, Ran, argv, contains, files_below, finish, inputs, lacks, manifest, own_store, run,
    same, same_versions, scratch, sql, sql_counts, sql_number, start, starts_with, versions,
    wavemill, whole, within,
};

use crate::table::{Table, key};

#[apply(trial)]
fn thread_count_does_not_change_the_store() -> Result<(), Failed> {
    for threads in ["1", "8"] {
        let store = scratch("threads").join("store");
        run(inputs().extract(&store).args(["--threads", threads])).exits(0)?;
        same_versions(&store, whole())?;
    }
    Ok(())
}

/// Seven of eight workers are idle if there is only one clip and its decoding is slow. The report states the idle
/// time.
#[apply(trial)]
fn idle_workers_are_reported() -> Result<(), Failed> {
    fn busy(threads: &str) -> Result<f64, Failed> {
        let store = scratch("idle").join("store");
        let ran = run(inputs()
            .extract(&store)
            .args(["--limit", "1", "--threads", threads, "--json"])
            .env("FAILPOINTS", "worker-panic=sleep(500)"))
        .exits(0)?;
        let report: Value = serde_json::from_str(&ran.out)?;
        let busy = report["workers_busy"].as_f64();
        busy.ok_or_else(|| "no workers_busy".into())
    }

    let (of_one, of_eight) = (busy("1")?, busy("8")?);
    same("one worker", of_one > 0.5 && of_one <= 1.0, true)?;
    same("eight workers", of_eight > 0.0 && of_eight < 0.25, true)
}

/// Extracting with the instruction set that a manifest states reproduces that version. With one instruction set, the
/// number of threads changes no byte.
#[apply(trial)]
fn named_level_gives_the_same_bytes() -> Result<(), Failed> {
    fn extracted(level: &str, threads: &str) -> Result<PathBuf, Failed> {
        let store = scratch("level").join("store");
        run(inputs()
            .extract(&store)
            .args(["--isa", level, "--threads", threads]))
        .exits(0)?;
        same("level", manifest(&store, 1)?.engine.level.as_str(), level)?;
        Ok(store)
    }

    let level = manifest(whole(), 1)?.engine.level;
    same_versions(&extracted(&level, "3")?, whole())?;
    same_versions(&extracted("scalar", "1")?, &extracted("scalar", "4")?)
}

/// Reads a zip with its entries in reverse order below a leading folder: keys, rows and therefore the plan equal
/// those of the folder. One name occurs twice unchanged, and one twice in different spellings: these two clips of
/// the metadata become two rejects.
#[apply(trial)]
fn entries_of_one_name_are_one_reject() -> Result<(), Failed> {
    const ZIP: &str = "
import sys, warnings, zipfile
archive, folder, *names = sys.argv[1:]
warnings.simplefilter('ignore')
with zipfile.ZipFile(archive, 'w') as out:
    for name in names:
        out.write(folder + '/' + name, 'fma_demo/' + name)
    out.writestr('fma_demo/' + names[3], b'another clip of that name')
    out.write(folder + '/' + names[5], 'fma_demo/./' + names[5])
";

    let folder = scratch("twice");
    let audio = &inputs().audio;
    // Uses only clips that have rows in the store, so that a duplicate name is the only reason for a reject.
    let written = sql(
        whole(),
        "SELECT DISTINCT clip_key FROM features_log_mel ORDER BY 1",
    )?;
    let names: Vec<&str> = written
        .iter()
        .filter_map(|row| row["clip_key"].as_str())
        .collect();

    let archive = folder.join("audio.zip");
    run(Command::new("python3")
        .args(["-c", ZIP])
        .arg(&archive)
        .arg(audio)
        .args(&names))
    .exits(0)?;

    let store = folder.join("store");
    let twice = inputs().with_audio(archive);
    run(&mut twice.extract(&store)).exits(0)?;

    let rejects = sql(
        &store,
        "SELECT clip_key, reason, detail FROM rejects WHERE stage <> 'catalog' ORDER BY 1",
    )?;
    let found: Vec<_> = rejects
        .iter()
        .filter_map(|row| Some((row["clip_key"].as_str()?, row["reason"].as_str()?)))
        .collect();

    same(
        "rejects",
        found,
        vec![(names[3], "duplicate_entry"), (names[5], "duplicate_entry")],
    )?;
    let detail = rejects[0]["detail"].as_str().unwrap_or_default();
    contains(detail, "2 entries of the zip")?;

    let counts = manifest(&store, 1)?.counts;
    same("written", counts.clips_written, names.len() as u64 - 2)?;
    same("counted", counts.rejects.get("duplicate_entry"), Some(&2))?;
    run(wavemill(["verify", "--store"]).arg(&store)).exits(0)?;

    let again = run(&mut twice.extract(&store)).exits(0)?;
    contains(&again.err, "nothing to do")
}

/// Writes the files below a folder into a zip, in another order, and returns its path.
pub(crate) fn zip(folder: &Path, kind: &str, name: &str, from: &Path) -> Result<PathBuf, Failed> {
    const ZIP: &str = "
import sys, zipfile
kind, archive, folder, *names = sys.argv[1:]
with zipfile.ZipFile(archive, 'w', zipfile.ZIP_STORED if kind == 'stored' else zipfile.ZIP_DEFLATED) as out:
    for name in reversed(names):
        out.write(folder + '/' + name, 'fma_demo/' + name)
";

    let archive = folder.join(name);
    let mut python = Command::new("python3");
    python
        .args(["-c", ZIP, kind])
        .arg(&archive)
        .arg(from)
        .args(files_below(from));
    run(&mut python).exits(0)?;
    Ok(archive)
}

#[apply(trial)]
fn zip_and_folder_give_the_same_version() -> Result<(), Failed> {
    for kind in ["stored", "deflated"] {
        let folder = scratch("zip");
        let inputs = Inputs {
            metadata: Some(zip(
                &folder,
                kind,
                "metadata.zip",
                inputs().metadata.as_ref().unwrap(),
            )?),
            audio: zip(&folder, kind, "audio.zip", &inputs().audio)?,
            recipe: inputs().recipe.clone(),
        };

        let store = folder.join("store");
        run(&mut inputs.extract(&store)).exits(0)?;
        same_versions(&store, whole())?;
        let again = run(&mut inputs.extract(&store)).exits(0)?;
        contains(&again.err, "nothing to do")?;
    }
    Ok(())
}

#[apply(trial)]
fn the_band_path_is_another_feature_of_the_same_rows() -> Result<(), Failed> {
    const ROWS: &str = "SELECT clip_key, segment, split, duration_s, lost_s, audio_blake3 \
        FROM features_log_mel ORDER BY 1, 2";
    let store = scratch("band").join("store");
    let mut extract = inputs().extract(&store);
    run(extract.args(["--set", "audio.decode.path=band"])).exits(0)?;

    same("rows", sql(&store, ROWS)?, sql(whole(), ROWS)?)?;
    let band = manifest(&store, 1)?.features;
    let exact = manifest(whole(), 1)?.features;
    for (band, exact) in band.iter().zip(&exact) {
        assert_ne!(band.feature_id, exact.feature_id, "{}", band.name);
    }
    Ok(())
}

/// Returns the peak resident memory of a process so far, in bytes.
fn peak_bytes(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

#[apply(trial)]
fn minimum_memory_does_not_change_the_store() -> Result<(), Failed> {
    let store = scratch("memory").join("store");
    let mut child = start(inputs().extract(&store).args(["--memory-limit", "256MiB"]));
    let mut peak = 0;
    while child.try_wait()?.is_none() {
        peak = peak_bytes(child.id()).unwrap_or(0).max(peak);
        std::thread::sleep(Duration::from_millis(2));
    }

    finish(child).exits(0)?;
    within(&format!("peak of {} MiB", peak >> 20), peak, 1..=256 << 20)?;
    same_versions(&store, whole())?;

    let refused = run(inputs().extract(&store).args(["--memory-limit", "255MiB"])).exits(2)?;
    contains(
        &refused.err,
        "'255MiB' for '--memory-limit <SIZE>': must be at least 256MiB",
    )
}

/// Returns the inode and modification time of every file below a folder. Rewriting a file changes them.
fn stamps(folder: &Path) -> Result<BTreeMap<String, (u64, i64, i64)>, Failed> {
    fn stamp(folder: &Path, name: String) -> std::io::Result<(String, (u64, i64, i64))> {
        let meta = fs::metadata(folder.join(&name))?;
        Ok((name, (meta.ino(), meta.mtime(), meta.mtime_nsec())))
    }

    let names = files_below(folder).into_iter();
    Ok(names
        .map(|name| stamp(folder, name))
        .collect::<std::io::Result<_>>()?)
}

fn nothing_to_do(inputs: &Inputs, store: &Path) -> Result<(), Failed> {
    let before = stamps(store)?;
    let ran = run(&mut inputs.extract(store)).exits(0)?;
    contains(&ran.err, "nothing to do")?;
    same("files with inode and time", stamps(store)?, before)
}

#[apply(trial)]
fn repeated_command_has_nothing_to_do() -> Result<(), Failed> {
    let store = own_store("again");
    nothing_to_do(inputs(), &store)?;
    let json = run(inputs().extract(&store).arg("--json")).exits(0)?;
    let report: Value = serde_json::from_str(&json.out)?;
    same(
        "nothing_to_do",
        report["nothing_to_do"].as_bool(),
        Some(true),
    )
}

/// Returns the key of a clip that has rows.
fn some_clip(store: &Path) -> Result<String, Failed> {
    let rows = sql(
        store,
        "SELECT clip_key FROM features_log_mel WHERE lost_s = 0 AND NOT silent ORDER BY 1 LIMIT 1",
    )?;
    Ok(rows[0]["clip_key"].as_str().unwrap().to_owned())
}

#[apply(trial)]
fn changed_inputs_are_found() -> Result<(), Failed> {
    let folder = scratch("changed");
    let (own, store) = (inputs().copied(&folder), folder.join("store"));
    run(&mut own.extract(&store)).exits(0)?;
    let clip_key = some_clip(&store)?;
    let path = own.clip(&clip_key);

    // A later modification time alone does not count as a change of a file.
    File::options()
        .write(true)
        .open(&path)?
        .set_modified(SystemTime::now() + Duration::from_secs(5))?;
    nothing_to_do(&own, &store)?;

    let mut bytes = fs::read(&path)?;
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64]
        .iter_mut()
        .for_each(|byte| *byte ^= 0x55);
    fs::write(&path, &bytes)?;
    run(&mut own.extract(&store))
        .exits(4)?
        .says(&[&clip_key, "--new-version"])?;

    bytes.truncate(middle);
    fs::write(&path, &bytes)?;
    run(&mut own.extract(&store))
        .exits(4)?
        .says(&["changed size", "--new-version"])?;

    let csv = own.metadata.as_ref().unwrap().join("tracks.csv");
    fs::write(&path, fs::read(inputs().clip(&clip_key))?)?;
    let text = fs::read(&csv)?;
    let last_line = text[..text.len() - 1]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .unwrap();
    fs::write(&csv, &text[..=last_line])?;
    run(&mut own.extract(&store))
        .exits(4)?
        .says(&["metadata changed"])?;
    same("versions", versions(&store).len(), 1)
}

/// A renamed genre changes the table of genres in the store, but neither the kept rows nor the file sizes.
#[apply(trial)]
fn changed_genres_are_found() -> Result<(), Failed> {
    let folder = scratch("genres");
    let (own, store) = (inputs().copied(&folder), folder.join("store"));
    run(&mut own.extract(&store)).exits(0)?;

    let csv = own.metadata.as_ref().unwrap().join("genres.csv");
    fs::write(&csv, fs::read_to_string(&csv)?.replace(",Rock,", ",Rick,"))?;
    run(&mut own.extract(&store))
        .exits(4)?
        .says(&["metadata changed", "--new-version"])?;

    run(own.extract(&store).arg("--new-version")).exits(0)?;
    same(
        "titles",
        sql_number(&store, "SELECT count(*) FROM genres WHERE title = 'Rick'")?,
        1,
    )?;

    let ran = run(&mut own.extract(&store)).exits(0)?;
    contains(&ran.err, "nothing to do")
}

/// Under the official split, adding a clip rewrites one shard. All other files keep their inodes.
#[apply(trial)]
fn new_version_links_unchanged_shards() -> Result<(), Failed> {
    let folder = scratch("grown");
    let (own, store) = (inputs().copied(&folder), folder.join("store"));
    let clip_key = some_clip(whole())?;
    fs::remove_file(own.clip(&clip_key))?;
    run(&mut own.extract(&store)).exits(0)?;

    fs::copy(inputs().clip(&clip_key), own.clip(&clip_key))?;
    run(own.extract(&store).arg("--new-version")).exits(0)?;

    let [old, new] = [manifest(&store, 1)?, manifest(&store, 2)?];
    same(
        "written",
        new.counts.clips_written,
        old.counts.clips_written + 1,
    )?;

    for feature in ["log_mel", "mfcc"] {
        let mut fresh = Vec::new();
        for (before, after) in old.files_of(feature).zip(new.files_of(feature)) {
            let [was, is] =
                [before, after].map(|file| fs::metadata(store.join(&file.path)).unwrap().ino());
            same(
                "equal bytes and equal inode",
                was == is,
                before.blake3 == after.blake3,
            )?;
            fresh.extend((was != is).then_some(&after.path));
        }
        same("files made anew", fresh.len(), 1)?;
    }

    for version in ["1", "2"] {
        run(wavemill(["verify", "--version", version, "--store"]).arg(&store)).exits(0)?;
    }

    let keys = format!("SELECT count(*) FROM features_log_mel WHERE clip_key = '{clip_key}'");
    same("rows of the new clip", sql_number(&store, &keys)?, 1)
}

/// Adding clips adds shards and can change the number of a shard whose clips are unchanged: its files are linked
/// under the new number, and no new shard overwrites them.
#[apply(trial)]
fn linked_shards_are_renumbered() -> Result<(), Failed> {
    fn name(path: &str) -> String {
        path.splitn(3, '/').last().unwrap().to_owned()
    }

    let store = scratch("renumbered").join("store");
    let small = ["--set", "shards.clips=1"];
    run(inputs().extract(&store).args(small).args(["--limit", "25"])).exits(0)?;
    run(inputs().extract(&store).args(small).arg("--new-version")).exits(0)?;

    let [old, new] = [manifest(&store, 1)?, manifest(&store, 2)?];
    let before: BTreeMap<_, _> = old
        .files_of("mfcc")
        .map(|file| (&file.blake3, name(&file.path)))
        .collect();
    let linked = new
        .files_of("mfcc")
        .filter_map(|file| Some((before.get(&file.blake3)?, name(&file.path))));
    within(
        "some shard was linked under another number",
        linked.filter(|(was, is)| *was != is).count(),
        1..,
    )?;

    for version in ["1", "2"] {
        run(wavemill(["verify", "--version", version, "--store"]).arg(&store)).exits(0)?;
    }

    let clips = "SELECT count(DISTINCT clip_key) FROM features_mfcc";
    same(
        "clips",
        sql_number(&store, clips)?,
        new.counts.clips_written,
    )
}

#[apply(trial)]
fn differences_are_listed() -> Result<(), Failed> {
    let store = own_store("differs");
    let before = stamps(&store)?;
    for (words, said) in [
        (
            "--set features.log_mel.n_mels=48",
            &["features.log_mel.n_mels 40 -> 48", "--new-version"][..],
        ),
        (
            "--set split.seed=7 --set audio.duration_s=2.5",
            &["split.seed", "audio.duration_s 3", "2.5"],
        ),
        ("--limit 10", &["--limit none -> 10"]),
    ] {
        run(inputs().extract(&store).args(argv(words)))
            .exits(4)?
            .says(said)?;
    }

    same("files with inode and time", stamps(&store)?, before)
}

#[apply(trial)]
fn limit_keeps_splits_and_classes() -> Result<(), Failed> {
    fn rows(store: &Path) -> Result<BTreeMap<String, Value>, Failed> {
        let rows = sql(
            store,
            "SELECT clip_key, split, genre, audio_blake3, tensor(mfcc) AS mfcc FROM features_mfcc",
        )?;
        Ok(rows
            .into_iter()
            .map(|row| (row["clip_key"].as_str().unwrap().to_owned(), row))
            .collect())
    }

    let store = scratch("limit").join("store");
    run(inputs().extract(&store).args(["--limit", "20"])).exits(0)?;

    let [limited, all] = [manifest(&store, 1)?, manifest(whole(), 1)?];
    same("planned", limited.counts.clips_planned, 20)?;
    same("kept", limited.counts.rows_kept, all.counts.rows_kept)?;
    same(
        "classes",
        &limited.targets[0].classes,
        &all.targets[0].classes,
    )?;
    same(
        "tracks",
        sql_number(&store, "SELECT count(*) FROM tracks")?,
        20,
    )?;

    let all = rows(whole())?;
    let limited = rows(&store)?;
    within("some rows", limited.len(), 11..)?;
    limited
        .into_iter()
        .try_for_each(|(key, row)| same(&key, Some(&row), all.get(&key)))
}

#[apply(trial)]
fn dry_run_shows_steps_and_writes_nothing() -> Result<(), Failed> {
    fn preview(words: &[&str], code: i32) -> Result<Value, Failed> {
        let json = run(inputs()
            .extract(whole())
            .args(["--dry-run", "--json"])
            .args(words))
        .exits(code)?
        .out;
        Ok(serde_json::from_str(&json)?)
    }

    fn outcome(words: &[&str], code: i32) -> Result<String, Failed> {
        Ok(preview(words, code)?["outcome"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }

    let store = scratch("dry").join("store");
    let counts = manifest(whole(), 1)?.counts;
    let words = run(inputs().extract(&store).arg("--dry-run")).exits(0)?.out;

    let mut kept = counts.rows_read - counts.rows_rejected;
    contains(&words, &format!("{:>9}  rows read\n", counts.rows_read))?;
    let recipe = manifest(whole(), 1)?.recipe;
    for step in &counts.rows_dropped {
        kept -= step.rows;
        let reason = recipe.reason_of_drop(&step.step);
        let line = format!("{kept:>9}  after dropping {} {reason}\n", step.rows);
        contains(&words, &line)?;
    }
    contains(
        &words,
        &format!("{:>9}  clips planned", counts.clips_planned),
    )?;

    let json = run(inputs().extract(&store).args(["--dry-run", "--json"]))
        .exits(0)?
        .out;
    let report: Value = serde_json::from_str(&json)?;
    same(
        "planned, as JSON",
        report["clips_planned"].as_u64(),
        Some(counts.clips_planned),
    )?;
    same(
        "outcome",
        report["outcome"].as_str(),
        Some("version 1 will be created"),
    )?;
    same("the store exists", store.exists(), false)?;

    starts_with(&outcome(&[], 0)?, "nothing to do: version 1")?;

    let other = ["--set", "features.log_mel.n_mels=48", "--new-version"];
    contains(&outcome(&other[..2], 4)?, "--new-version")?;
    same(
        "another, asked for",
        outcome(&other, 0)?,
        "version 2 will be created".to_owned(),
    )?;

    let leaky = preview(&["--set", "split.rule=stratified"], 4)?;
    contains(&leaky["warnings"].to_string(), "leaky")
}

/// Reads inputs from a folder and from a zip, whose entries are identified by their CRC-32.
#[apply(trial)]
fn a_preview_ends_as_the_run_would() -> Result<(), Failed> {
    fn zip(archive: &Path, audio: &Path) -> Result<Ran, Failed> {
        let mut python = Command::new("python3");
        run(python.args(["-c", ZIP]).arg(archive).arg(audio)).exits(0)
    }

    fn preview(inputs: &Inputs, store: &Path, words: &[&str]) -> Ran {
        run(inputs.extract(store).arg("--dry-run").args(words))
    }

    const ZIP: &str = "import shutil, sys; shutil.make_archive(sys.argv[1], 'zip', sys.argv[2])";
    let mut table = Table::new("preview", 24);
    let folder = table.written()?;
    let archive = scratch("preview-zip").join("audio");
    zip(&archive, &folder.audio)?;
    let zipped = folder.with_audio(archive.with_extension("zip"));

    let sources = [(&folder, table.store()), (&zipped, archive.join("store"))];
    for (inputs, store) in &sources {
        run(&mut inputs.extract(store)).exits(0)?;
    }

    // The modification time of a file changes, but not its content.
    File::options()
        .write(true)
        .open(folder.clip(&key(3)))?
        .set_modified(SystemTime::now() - Duration::from_secs(86_400))?;
    zip(&archive, &folder.audio)?;
    for (inputs, store) in &sources {
        let told = preview(inputs, store, &["--json"]).exits(0)?;
        let told: Value = serde_json::from_str(&told.out)?;
        same("nothing to do", told["nothing_to_do"].as_bool(), Some(true))?;
        let told = preview(inputs, store, &[]).exits(0)?;
        lacks(&told.out, "about ")?;
    }

    // The content of a file changes, but not its size.
    table.row(5).voice = 500;
    table.written()?;
    zip(&archive, &folder.audio)?;
    let filter = table.with_filter("genre = 'Polka'")?;

    for (inputs, store) in &sources {
        let refused = preview(inputs, store, &[]).exits(4)?;
        let words = format!("audio of {} changed", key(5));
        refused.says(&[&words, "--new-version"])?;
        same(
            "as the run",
            refused.error()?,
            run(&mut inputs.extract(store)).error()?,
        )?;

        let told = preview(inputs, store, &["--new-version", "--json"]).exits(0)?;
        let told: Value = serde_json::from_str(&told.out)?;
        same("decoded", told["work"]["clips_to_decode"].as_u64(), Some(1))?;

        let emptied = inputs.with_recipe(filter.clone());
        let refused = preview(&emptied, store, &["--new-version"]).exits(2)?;
        refused.says(&["no rows are left"])?;
        let line = "        0  after dropping 24 by step filter\n";
        contains(&refused.out, line)?;
        same("versions", versions(store).len(), 1)?;
    }
    Ok(())
}

/// The data set contains two copies of one recording. With this seed, the rule alone puts them into different
/// splits; with grouping, they share a split.
#[apply(trial)]
fn copies_of_a_recording_share_a_split() -> Result<(), Failed> {
    const PARTED: &str = "SELECT count(*) FROM (SELECT audio_blake3 FROM features_mfcc GROUP BY audio_blake3 \
                          HAVING count(DISTINCT split) > 1)";

    let folder = scratch("copies");
    let split = ["--set", "split.rule=stratified", "--set", "split.seed=2"];
    let alone = folder.join("alone");
    run(inputs().extract(&alone).args(split)).exits(0)?;
    same("parted", sql_number(&alone, PARTED)?, 1)?;

    let grouped = ["1", "8"].map(|threads| (threads, folder.join(threads)));
    for (threads, store) in &grouped {
        let mut extract = inputs().extract(store);
        extract.args(split).args(argv(&format!(
            "--set split.group_duplicates=true --json --threads {threads}"
        )));

        let report: Value = serde_json::from_str(&run(&mut extract).exits(0)?.out)?;
        same(
            "found",
            report["duplicates"]["recordings"].as_u64(),
            Some(1),
        )?;
        same("as clips", report["duplicates"]["clips"].as_u64(), Some(2))?;
        same("parted, grouped", sql_number(store, PARTED)?, 0)?;
    }
    same_versions(&grouped[0].1, &grouped[1].1)
}

/// Compares the sums in the manifest with counts over the Parquet files.
#[apply(trial)]
fn every_input_is_a_row_or_a_reject() -> Result<(), Failed> {
    fn number(store: &Path, query: &str) -> Result<u64, Failed> {
        sql_number(store, query)
    }

    let store = whole();
    let counts = manifest(store, 1)?.counts;
    let dropped: u64 = counts.rows_dropped.iter().map(|step| step.rows).sum();

    same(
        "rows",
        counts.rows_kept + dropped + counts.rows_rejected,
        counts.rows_read,
    )?;
    same(
        "clips",
        counts.clips_written + counts.clips_rejected,
        counts.clips_planned,
    )?;
    same(
        "every kind of loss occurs",
        [dropped, counts.rows_rejected, counts.clips_rejected].contains(&0),
        false,
    )?;

    same(
        "rejected rows",
        number(store, "SELECT count(*) FROM rejects WHERE clip_key IS NULL")?,
        counts.rows_rejected,
    )?;
    same(
        "rejected clips",
        number(
            store,
            "SELECT count(*) FROM rejects WHERE clip_key IS NOT NULL",
        )?,
        counts.clips_rejected,
    )?;
    same(
        "parsed rows",
        number(store, "SELECT count(*) FROM tracks_all")?,
        counts.rows_read - counts.rows_rejected,
    )?;
    same(
        "planned clips",
        number(store, "SELECT count(*) FROM tracks")?,
        counts.clips_planned,
    )?;

    let steps = "SELECT dropped_by AS name, count(*) AS n FROM tracks_all WHERE dropped_by IS NOT NULL GROUP BY 1";
    let by_step = counts
        .rows_dropped
        .into_iter()
        .map(|step| (step.step, step.rows))
        .collect();
    same("dropped by step", sql_counts(store, steps)?, by_step)?;

    let reasons = "SELECT reason AS name, count(*) AS n FROM rejects GROUP BY 1";
    same(
        "rejects by reason",
        sql_counts(store, reasons)?,
        counts.rejects,
    )?;

    for feature in ["features_log_mel", "features_mfcc"] {
        same(
            feature,
            number(
                store,
                &format!("SELECT count(DISTINCT clip_key) FROM {feature}"),
            )?,
            counts.clips_written,
        )?;

        let outcomes = format!(
            "SELECT count(*) FROM tracks t WHERE (SELECT count(*) FROM {feature} f WHERE f.clip_key = t.clip_key) \
             + (SELECT count(*) FROM rejects r WHERE r.clip_key = t.clip_key) <> 1"
        );
        same(
            "clips without exactly one outcome",
            number(store, &outcomes)?,
            0,
        )?;
    }
    Ok(())
}

/// A frame that cannot be decoded becomes silence, and a missing frame leaves a gap whose length follows from the
/// numbers of its neighbours.
#[apply(trial)]
fn damaged_flacs_keep_their_length() -> Result<(), Failed> {
    let folder = scratch("flac");
    let (audio, recipe, store) = (
        folder.join("audio"),
        folder.join("flac.toml"),
        folder.join("store"),
    );

    let whole = fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../pipeline/decode/tests/data/tone_32000_stereo.flac"),
    )?;

    // Finds the frames of a 16-bit stereo file at 32 kHz with a fixed block size: the start of each frame, and the
    // frame that contains the middle of the file.
    let starts: Vec<usize> = (0..whole.len() - 2)
        .filter(|&at| whole[at..at + 2] == [0xff, 0xf8])
        .collect();
    let [first, .., last] = starts[..] else {
        return Err(format!("no frames: {starts:?}").into());
    };
    let middle = starts
        .iter()
        .position(|&at| at > whole.len() / 2)
        .ok_or("no middle")?;
    same(
        "frames around the middle",
        first < starts[middle - 1] && starts[middle] < last,
        true,
    )?;

    let mut flipped = whole.clone();
    flipped[(starts[middle - 1] + starts[middle]) / 2] ^= 0x55;
    let gone = [&whole[..starts[middle - 1]], &whole[starts[middle]..]].concat();

    fs::create_dir_all(audio.join("g"))?;
    for (name, bytes) in [("flipped", &flipped), ("gone", &gone), ("whole", &whole)] {
        fs::write(audio.join(format!("g/{name}.flac")), bytes)?;
    }

    fs::write(
        &recipe,
        "name = \"flac\"\n[catalog]\ndataset = \"folders\"\n[split]\nrule = \"stratified\"\n\
         [[targets]]\nname = \"genre\"\ncolumn = \"genre\"\n[audio]\nmin_duration_s = 0.1\n\
         [[features]]\nname = \"log_mel\"\nop = \"mel\"\n",
    )?;

    run(&mut Inputs::without_metadata(audio, recipe).extract(&store)).exits(0)?;

    let rows = sql(
        &store,
        "SELECT clip_key, duration_s AS s, lost_s > 0.0 AS lost FROM features_log_mel ORDER BY 1",
    )?;
    let [flipped, gone, whole] = &rows[..] else {
        return Err(format!("not three rows: {rows:?}").into());
    };

    same(
        "what is lost",
        [flipped, gone, whole].map(|row| row["lost"].as_bool()),
        [Some(true), Some(true), Some(false)],
    )?;
    same("length of a damaged one", &flipped["s"], &whole["s"])?;
    same("length without a frame", &gone["s"], &whole["s"])
}
