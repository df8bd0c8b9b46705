//! Tests with other programs: readers find the rows that wavemill reports, and feature libraries compute the same
//! values.
//!
//! These tests run only with `WAVEMILL_PEERS=1` and use the Python interpreter of `WAVEMILL_PYTHON`.
//! scripts/test.sh sets both.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use wavemill_schemas::manifest::{FileEntry, Manifest};
use wavemill_tests::Failed;

use crate::rows::trained;
use crate::sounds::SOUNDS;
use crate::support::{
    Inputs, Ran, argv, asks_for_peers, contains, damage, files_below, has_trainer, inputs,
    manifest, own_store, program, run, same, scratch, sql, sql_number, starts_with, trainer,
    wavemill, whole, with_features,
};

/// Tolerance for sums of thousands of f64 values in different orders.
const SUM_REL_MAX: f64 = 1e-9;

/// pyarrow, DuckDB, Polars and pandas read the rows that `eval` writes, and compute the accuracy that it prints.
#[apply(trial)]
#[needs(has_trainer, asks_for_peers)]
fn eval_rows_are_readable_by_all_peers() -> Result<(), Failed> {
    let folder = scratch("eval-rows");
    let [rows, vectors] = ["rows.parquet", "vectors.parquet"].map(|name| folder.join(name));
    let mut command = trainer(argv("eval --device cpu --threads 1 --side training --json"));
    command
        .arg(trained())
        .arg("--predictions")
        .arg(&rows)
        .arg("--embeddings")
        .arg(&vectors);

    let scores: Value = serde_json::from_str(&run(&mut command).exits(0)?.out)?;
    let found: Value = serde_json::from_str(
        &python(&script("read_rows.py"), &[&rows, &vectors])?
            .exits(0)?
            .out,
    )?;

    same(
        "accuracy",
        &found["share"],
        &scores[0]["segments"]["report"]["accuracy"],
    )?;
    same("width", found["width"].as_u64(), Some(64))
}

fn python(script: &Path, words: &[impl AsRef<OsStr>]) -> Result<Ran, Failed> {
    let python = std::env::var_os("WAVEMILL_PYTHON")
        .ok_or("WAVEMILL_PYTHON is not set: run scripts/peers/setup.sh")?;
    // Programs that compile librosa's functions into one cache at the same time may crash.
    let cache = scratch("numba");
    let mut command = Command::new(python);
    command.env("NUMBA_CACHE_DIR", cache);
    Ok(run(command.arg(script).args(words)))
}

/// Returns the path of a script in `scripts/peers`.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../scripts/peers")
        .join(name)
}

/// Compares sums by pyarrow, DuckDB, Polars and pandas with each other and with `wavemill sql`.
#[apply(trial)]
#[needs(asks_for_peers)]
fn readers_agree() -> Result<(), Failed> {
    let sums: Value =
        serde_json::from_str(&python(&script("read_store.py"), &[whole()])?.exits(0)?.out)?;

    for feature in manifest(whole(), 1)?.features {
        let name = &feature.name;
        let values: usize = feature.shape.iter().flatten().product();
        let query = format!("SELECT sum(tensor_mean({name})) AS x FROM features_{name}");
        let ours = sql(whole(), &query)?[0]["x"].as_f64().ok_or("no number")? * values as f64;
        let theirs = sums[name].as_f64().ok_or("no sum")?;

        same(
            &format!("{name}: {ours} and {theirs}"),
            (ours - theirs).abs() <= SUM_REL_MAX * theirs.abs(),
            true,
        )?;
    }
    Ok(())
}

/// NumPy, Pillow, `webdataset` and two versions of `datasets` read the store's rows from exports.
#[apply(trial)]
#[needs(asks_for_peers)]
fn exports_are_read() -> Result<(), Failed> {
    let kinds: [(&str, &[&str]); 3] = [
        ("f16", &["audio.segment_s=1.0"]),
        ("u8", &["features.log_mel.dtype=u8", "shards.layout=list"]),
        ("ragged", &["audio.duration_s=none"]),
    ];

    for (name, sets) in kinds {
        let folder = scratch(&format!("read-{name}"));
        let store = folder.join("store");
        let mut extract = inputs().extract(&store);
        for set in sets {
            extract.args(["--set", set]);
        }
        run(&mut extract).exits(0)?;

        for feature in ["log_mel", "mfcc"] {
            let folder = folder.join(feature);
            fs::create_dir(&folder)?;
            read_exports(&store, feature, &folder)?;
        }
    }
    Ok(())
}

fn read_exports(store: &Path, feature: &str, folder: &Path) -> Result<(), Failed> {
    for format in ["npy", "png", "huggingface", "webdataset"] {
        let words = [
            "export",
            "--feature",
            feature,
            "--format",
            format,
            "--store",
        ];
        let out = folder.join(format);
        run(wavemill(words).arg(store).arg("--out").arg(out)).exits(0)?;
    }

    let rows = sql_number(
        store,
        &format!("SELECT count(*) FROM features_{feature} WHERE split <> 'none'"),
    )?;
    let words = [
        "arrays".into(),
        store.to_owned(),
        feature.into(),
        folder.join("npy"),
        folder.join("png"),
    ];

    let ran = python(&script("read_export.py"), &words)?.exits(0)?;
    let found: Value = serde_json::from_str(&ran.out)?;
    same("rows of arrays", found["rows"].as_u64(), Some(rows))?;
    same("pictures", found["pictures"].as_u64(), Some(rows))?;

    let words = [
        "webdataset".into(),
        store.to_owned(),
        feature.into(),
        folder.join("webdataset"),
    ];
    let ran = python(&script("read_export.py"), &words)?.exits(0)?;
    let found: Value = serde_json::from_str(&ran.out)?;
    same("rows of samples", found["rows"].as_u64(), Some(rows))?;

    for version in ["4", "5"] {
        let words = [
            "datasets".into(),
            store.to_owned(),
            feature.into(),
            folder.join("huggingface"),
        ];
        let ran = run(python_with_datasets(version)?
            .arg(script("read_export.py"))
            .args(words))
        .exits(0)?;

        let found: Value = serde_json::from_str(ran.out.trim())?;
        println!("{feature}: {found}");
        same("rows of a dataset", found["rows"].as_u64(), Some(rows))?;
        let used = found["datasets"].as_str().unwrap_or_default();
        starts_with(used, &format!("{version}."))?;
    }
    Ok(())
}

/// soundfile reads the exported sounds. Their log-mel is at least as close to the stored one as that of sounds by
/// librosa.
#[apply(trial)]
#[needs(asks_for_peers)]
fn sounds_match_librosa() -> Result<(), Failed> {
    let folder = scratch("read-sounds");
    let store = folder.join("store");
    let plain = ["--set", "features.log_mel.normalize=none", "--limit", "12"];
    run(inputs().extract(&store).args(plain)).exits(0)?;

    let out = folder.join("wav");
    let words = argv("export --feature log_mel --format wav --store");
    run(wavemill(words).arg(&store).arg("--out").arg(&out)).exits(0)?;

    let rows = "SELECT count(*) FROM features_log_mel WHERE split <> 'none'";
    let rows = sql_number(&store, rows)?;
    let words = ["sounds".into(), store, "log_mel".into(), out];
    let ran = python(&script("read_export.py"), &words)?.exits(0)?;
    print!("{}", ran.out);
    let found: Value = serde_json::from_str(&ran.out)?;
    same("sounds", found["sounds"].as_u64(), Some(rows))
}

/// Returns a command of `WAVEMILL_PYTHON` with a major version of `datasets`. Version 5 is installed in the
/// environment, and version 4 in a folder next to its packages.
fn python_with_datasets(version: &str) -> Result<Command, Failed> {
    match version {
        "4" => packages("datasets4"),
        _ => Ok(Command::new(interpreter()?)),
    }
}

/// Returns a command of `WAVEMILL_PYTHON` with the packages of a folder in its environment.
pub(crate) fn packages(folder: &str) -> Result<Command, Failed> {
    let python = interpreter()?;
    let venv = Path::new(&python).parent().and_then(Path::parent);
    let folder = venv.ok_or("no venv")?.join(folder);
    same("the packages are installed", folder.is_dir(), true)?;
    let mut command = Command::new(&python);
    command.env("PYTHONPATH", folder);
    Ok(command)
}

/// Returns a command of `WAVEMILL_PYTHON` with the package of this build.
pub(crate) fn python_package(name: &str) -> Result<Command, Failed> {
    let folder = scratch(name);
    let package = folder.join("wavemill");
    fs::create_dir(&package)?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/wavemill");
    for file in files_below(&source) {
        if file.ends_with(".py") {
            fs::copy(source.join(&file), package.join(&file))?;
        }
    }
    let program = PathBuf::from(wavemill([""; 0]).get_program());
    let module = program.with_file_name("lib_wavemill.so");
    fs::copy(module, package.join("_wavemill.abi3.so"))?;

    let mut command = Command::new(interpreter()?);
    command.env("PYTHONPATH", folder);
    Ok(command)
}

fn interpreter() -> Result<OsString, Failed> {
    Ok(std::env::var_os("WAVEMILL_PYTHON")
        .ok_or("WAVEMILL_PYTHON is not set: run scripts/peers/setup.sh")?)
}

/// Runs the store checker of this repository, which shares no code with wavemill.
fn check_store(store: &Path) -> Result<Ran, Failed> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/check_store.py");
    python(&script, &[store])
}

/// Runs two checkers on stores of every kind: this repository's, and an independent one if it is among the real
/// inputs.
#[apply(trial)]
#[needs(asks_for_peers)]
fn stores_keep_the_contract() -> Result<(), Failed> {
    let further = scratch("further").join("store");
    run(inputs().extract(&further).args(["--limit", "20"])).exits(0)?;
    let sets = argv("--set audio.duration_s=none --set features.log_mel.dtype=u8");
    run(inputs().extract(&further).arg("--new-version").args(sets)).exits(0)?;

    let windows = scratch("windows").join("store");
    let sets = argv(
        "--set audio.segment_s=1.0 --set shards.compression=none \
         --set split.rule=artist",
    );
    run(inputs()
        .extract(&windows)
        .args(["--set", "audio.duration_s=none"])
        .args(sets))
    .exits(0)?;

    let lists = scratch("lists").join("store");
    let sets = argv("--set audio.segment_s=1.0 --set shards.layout=list --set split.rule=segment");
    run(inputs().extract(&lists).args(sets)).exits(0)?;

    let stretched = scratch("stretched").join("store");
    let copies = [
        "--set",
        "audio.segment_s=1.0",
        "--set",
        "audio.stretch=[0.85, 1.15]",
    ];
    run(inputs().extract(&stretched).args(copies)).exits(0)?;
    let leaky = ["--set", "split.rule=segment_stretched", "--new-version"];
    run(inputs().extract(&stretched).args(copies).args(leaky)).exits(0)?;

    let folder = scratch("sounds-checked");
    let sounds = folder.join("store");
    let inputs_with_sounds = with_features(&folder, SOUNDS);
    run(&mut inputs_with_sounds.extract(&sounds)).exits(0)?;
    let lists_of_samples = folder.join("lists");
    let sets = argv("--set audio.duration_s=none --set shards.layout=list");
    run(inputs_with_sounds.extract(&lists_of_samples).args(sets)).exits(0)?;

    let demo = scratch("demo");
    run(wavemill(["demo", "--tracks", "40"]).arg(&demo)).exits(0)?;

    // Tags are not part of the checked version.
    run(wavemill(["tag", "1", "paper", "--store"]).arg(&further)).exits(0)?;

    for store in [
        whole(),
        &further,
        &windows,
        &lists,
        &stretched,
        &sounds,
        &lists_of_samples,
        &demo.join("store"),
    ] {
        let ran = check_store(store)?.exits(0)?;
        starts_with(&ran.out, "0 faults; ")?;
    }
    Ok(())
}

/// For each fault, the checker prints one line with the file's name and the problem.
#[apply(trial)]
#[needs(asks_for_peers)]
fn checker_names_what_is_damaged() -> Result<(), Failed> {
    let path = shard_of(whole(), "log_mel")?.path;

    let store = own_store("changed-byte");
    damage(&store.join(&path))?;
    finds(&store, &[&path, "blake3 differs from the manifest"])?;

    let store = own_store("lost-shard");
    fs::remove_file(store.join(&path))?;
    finds(&store, &[&path, "missing file"])?;

    let store = own_store("unnamed-shard");
    let unnamed = path.replace("00000.parquet", "00099.parquet");
    fs::copy(store.join(&path), store.join(&unnamed))?;
    finds(&store, &[&unnamed, "not in the manifest"])?;

    // The checker counts the rows, so it finds a wrong row count even if the manifest's checksum was recomputed.
    let store = own_store("wrong-rows");
    let rows = shard_of(&store, "log_mel")?.rows;
    let wrong = format!("rows: {rows}, but the manifest says {}", rows + 1);
    rewrite(&store, |manifest| {
        let shard = manifest.files.iter_mut().find(|file| file.path == path);
        shard.unwrap().rows += 1;
    })?;
    finds(&store, &[&path, &wrong])?;

    let store = own_store("wrong-count");
    rewrite(&store, |manifest| manifest.counts.clips_written += 1)?;
    finds(&store, &["features: clips: ", "but the manifest says"])?;

    let store = own_store("wrong-mean");
    rewrite(&store, |manifest| {
        manifest.stats.get_mut("mfcc").unwrap().mean[3] += 0.5;
    })?;
    finds(&store, &["00000001.json", "stats.mfcc.mean"])?;

    // Edits the manifest without recomputing its checksum.
    let store = own_store("wrong-checksum");
    let manifest_path = store.join("_wavemill/versions/00000001.json");
    let text = fs::read_to_string(&manifest_path)?;
    fs::write(&manifest_path, text.replace("Rock", "Rook"))?;
    finds(&store, &["00000001.json", "manifest_blake3 is not"])?;

    let store = own_store("other-format");
    rewrite(&store, |manifest| manifest.format_version = 2)?;
    let other = check_store(&store)?.exits(2)?;
    contains(&other.err, "format version 2")?;

    let nowhere = check_store(&scratch("nowhere"))?.exits(2)?;
    contains(&nowhere.err, "no version")
}

/// Fails unless the checker reports a fault in a line that contains all of these words.
fn finds(store: &Path, words: &[&str]) -> Result<(), Failed> {
    let ran = check_store(store)?.exits(1)?;
    for line in ran.out.lines() {
        if line.starts_with("fault: ") && words.iter().all(|word| line.contains(word)) {
            return Ok(());
        }
    }
    Err(format!("no fault says {words:?}:\n{}", ran.out).into())
}

/// Returns the first file of a feature.
fn shard_of(store: &Path, feature: &str) -> Result<FileEntry, Failed> {
    let manifest = manifest(store, 1)?;
    let first = manifest.files_of(feature).next();
    Ok(first.ok_or("no shard")?.clone())
}

/// Changes the manifest of version 1 and recomputes its checksum.
fn rewrite(store: &Path, change: impl FnOnce(&mut Manifest)) -> Result<(), Failed> {
    let mut changed = manifest(store, 1)?;
    change(&mut changed);
    fs::write(
        store.join("_wavemill/versions/00000001.json"),
        changed.to_json()?,
    )?;
    Ok(())
}

/// A folder that is a symbolic link out of the audio root gives a reject without a clip. It is in neither of the
/// manifest's sums of rows and of clips.
#[apply(trial)]
#[needs(asks_for_peers)]
fn rejects_without_a_clip_are_valid() -> Result<(), Failed> {
    let folder = scratch("outside");
    let inputs = inputs().copied(&folder);
    let elsewhere = folder.join("elsewhere");
    fs::create_dir(&elsewhere)?;
    symlink(&elsewhere, inputs.audio.join("linked"))?;

    let store = folder.join("store");
    run(&mut inputs.extract(&store)).exits(0)?;
    let query = "SELECT count(*) FROM rejects WHERE reason = 'outside_root' AND clip_key IS NULL";
    same("rejects without a clip", sql_number(&store, query)?, 1)?;

    let ran = check_store(&store)?.exits(0)?;
    starts_with(&ran.out, "0 faults; ")
}

/// Runs a script that compares features and exits with 1 if a difference exceeds its tolerance. Prints and returns
/// its output.
fn compare(name: &str, words: impl IntoIterator<Item = PathBuf>) -> Result<Vec<String>, Failed> {
    let ours = ["--wavemill".into(), program("wavemill")];
    let ran = python(
        &script(name),
        &ours.into_iter().chain(words).collect::<Vec<_>>(),
    )?
    .exits(0)?;
    print!("{}", ran.out);
    Ok(ran.out.lines().map(str::to_owned).collect())
}

/// Runs `presets.py` and checks its number of cases.
fn presets(words: Vec<PathBuf>, whisper_cases: usize) -> Result<(), Failed> {
    fn within(lines: &[String], peer: &str) -> usize {
        lines
            .iter()
            .filter(|line| line.starts_with("ok ") && line.contains(peer))
            .count()
    }

    let lines = compare("presets.py", words)?;
    same("cases of Kaldi", within(&lines, " kaldi "), 3)?;
    same(
        "cases of Whisper",
        within(&lines, " whisper "),
        whisper_cases,
    )
}

/// The clip has a sample rate of 16 kHz, like the input of Whisper.
#[apply(trial)]
#[needs(asks_for_peers)]
fn presets_are_kaldis_and_whispers() -> Result<(), Failed> {
    presets(Vec::new(), 2)
}

#[apply(trial)]
#[needs(asks_for_peers)]
fn presets_are_kaldis_on_real_clips(data: &Path) -> Result<(), Failed> {
    for clip in ["fma000002", "hungarian", "like299998"] {
        presets(
            vec![
                data.join("librosa_ref")
                    .join(clip)
                    .join("input_22k_mono.wav"),
            ],
            0,
        )?;
    }
    Ok(())
}

/// Compares decoding, downmix, resampling and log-mel of MP3s at 16, 44.1 and 48 kHz.
#[apply(trial)]
#[needs(asks_for_peers)]
fn chain_is_librosas_on_real_clips(data: &Path) -> Result<(), Failed> {
    let folder = data.join("audio");
    let clips = files_below(&folder)
        .into_iter()
        .filter(|name| name.ends_with(".mp3"));
    let clips: Vec<PathBuf> = clips.map(|name| folder.join(name)).collect();
    same("clips", clips.len(), 15)?;

    let lines = compare("chain.py", clips)?;
    same(
        "clips compared",
        lines
            .iter()
            .filter(|line| line.contains(" dB at most, "))
            .count(),
        15,
    )
}

/// Compares the steps from PCM to log-mel at two tempos. `kernels/kernels/tests/stretch.rs` compares the vocoder on
/// librosa's spectrogram.
#[apply(trial)]
#[needs(asks_for_peers)]
fn stretch_is_librosas_on_real_clips(data: &Path) -> Result<(), Failed> {
    let folder = data.join("librosa_ref");
    let clips = files_below(&folder)
        .into_iter()
        .filter(|name| name.ends_with("input_22k_mono.wav"));
    let clips: Vec<PathBuf> = clips.map(|name| folder.join(name)).collect();
    same("clips", clips.len(), 6)?;
    let lines = compare("stretch.py", clips)?;
    let compared = lines.iter().filter(|line| line.starts_with("ok "));
    same("clips and factors compared", compared.count(), 12)
}

/// Compares levels and the shape of spectra at the defaults and with drawn options.
#[apply(trial)]
#[needs(asks_for_peers)]
fn shapes_are_librosas_on_real_clips(data: &Path) -> Result<(), Failed> {
    let clips = ["fma000256", "hungarian", "like299998"];
    let clips = clips.map(|clip| {
        data.join("librosa_ref")
            .join(clip)
            .join("input_22k_mono.wav")
    });
    let lines = compare("shapes.py", clips.to_vec())?;
    let compared = lines.iter().filter(|line| line.starts_with("ok "));
    same("clips and operations compared", compared.count(), 3 * 17)
}

/// Compares the 518 statistics of real clips with those of FMA's own script. It prints one line per feature.
#[apply(trial)]
#[needs(asks_for_peers)]
fn statistics_are_those_of_fmas_script(data: &Path) -> Result<(), Failed> {
    let folder = scratch("fma-features");
    let [store, out, arrays] = ["store", "out", "arrays"].map(|name| folder.join(name));
    let audio = data.join("fma_like");
    let recipe = folder.join("recipe.toml");
    let shipped = run(&mut wavemill(["recipe", "show", "fma-features"]))
        .exits(0)?
        .out;
    let samples = "[[features]]\nname = \"samples\"\nop = \"pcm\"\ndtype = \"f32\"\n";
    fs::write(&recipe, format!("{shipped}\n{samples}"))?;
    let inputs = Inputs::new(audio.clone(), audio, recipe);
    run(&mut inputs.extract(&store)).exits(0)?;

    for (format, out) in [("fma-features", &out), ("npy --feature samples", &arrays)] {
        let words = format!("export --format {format} --store");
        run(wavemill(argv(&words)).arg(&store).arg("--out").arg(out)).exits(0)?;
    }
    let words = [out.join("features.csv"), arrays];
    let ran = python(&script("fma_features.py"), &words)?.exits(0)?;
    print!("{}", ran.out);
    let compared = ran.out.lines().filter(|line| line.starts_with("ok "));
    same("features compared", compared.count(), 11)
}

/// Compares statistics of MFCC and log-mel and pictures of log-mel. The script prints one line each per clip.
#[apply(trial)]
#[needs(asks_for_peers)]
fn derived_features_are_scipys_on_real_clips(data: &Path) -> Result<(), Failed> {
    let folder = data.join("librosa_ref");
    let clips = [
        "fma000002",
        "fma000256",
        "hungarian",
        "like201003",
        "like211500",
        "like299998",
    ];

    let paths = clips.map(|clip| folder.join(clip).join("input_22k_mono.wav"));
    let lines = compare("derived.py", paths)?;
    same(
        "features compared",
        lines.iter().filter(|line| line.starts_with("ok ")).count(),
        3 * clips.len(),
    )
}
