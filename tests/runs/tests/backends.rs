//! Backends other than the CPU: the rows that they store, and the behaviour if a device is missing or fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use wavemill_tests::Failed;

use crate::sounds::SOUNDS;
use crate::support::{
    Inputs, RECIPE, contains, inputs, kill, manifest, receipts, recipe_for_folders, run, same,
    same_versions, scratch, sql, start, versions, wait_until, wavemill, whole, with_features,
    with_recipe, within,
};

/// Name of the backend with emulated devices.
const EMULATED: &str = "emulated";
const CUDA: &str = "cuda";

fn has_no_gpu() -> bool {
    !["/dev/nvidia0", "/proc/driver/nvidia"]
        .iter()
        .any(|path| Path::new(path).exists())
}

/// Reports whether tests of CUDA run. If a GPU is required, they run and fail without a usable one.
fn runs_cuda() -> bool {
    static RUNS_CUDA: OnceLock<bool> = OnceLock::new();
    *RUNS_CUDA.get_or_init(|| {
        let is_required = std::env::var("WAVEMILL_REQUIRE_CUDA").is_ok_and(|value| value == "1");
        is_required || (!has_no_gpu() && is_cuda_usable())
    })
}

/// Reports whether `wavemill info` states that features can be computed on a GPU of this machine.
fn is_cuda_usable() -> bool {
    let asked = run(&mut wavemill(["info", "--devices", "--json"]));
    serde_json::from_str::<Value>(&asked.out).is_ok_and(|report| report["usable"] == true)
}

/// Copies a command and adds the backend and the devices to its arguments.
fn on(command: &mut Command, backend: &str, devices: &str) -> Command {
    let mut moved = Command::new(command.get_program());
    moved
        .args(command.get_args())
        .args(["--backend", backend, "--devices", devices]);

    for (name, value) in command.get_envs() {
        match value {
            Some(value) => moved.env(name, value),
            None => moved.env_remove(name),
        };
    }

    moved
}

/// Reports whether the programs have the emulated backend. Only programs that were built for tests, as by
/// scripts/test.sh, have it.
fn is_emulated() -> bool {
    static IS_EMULATED: OnceLock<bool> = OnceLock::new();
    *IS_EMULATED.get_or_init(|| {
        let absent = Inputs::without_metadata("nosuch", "demo");
        let mut command = absent.extract(Path::new("nosuch"));
        let ran = run(&mut on(&mut command, EMULATED, "0"));
        !ran.err.contains("must be auto")
    })
}

#[apply(trial)]
fn invalid_options_write_nothing() -> Result<(), Failed> {
    let store = scratch("words").join("store");
    for (words, said) in [
        (
            &["--backend", "gpu"][..],
            &["--backend", "gpu", "auto, cpu, cuda"][..],
        ),
        (
            &["--backend", "cpu", "--devices", "0"],
            &["--devices 0", "cpu"],
        ),
    ] {
        run(inputs().extract(&store).args(words))
            .exits(2)?
            .says(said)?;
        same(&words.join(" "), store.exists(), false)?;
    }
    Ok(())
}

#[apply(trial)]
#[needs(has_no_gpu)]
fn cuda_without_a_driver_is_an_error() -> Result<(), Failed> {
    let store = scratch("cuda").join("store");
    for words in [
        &["--backend", "cuda"][..],
        &["--backend", "auto", "--devices", "0"],
    ] {
        run(inputs().extract(&store).args(words))
            .exits(2)?
            .says(&["--backend", "driver"])?;
        same(&words.join(" "), store.exists(), false)?;
    }
    Ok(())
}

#[apply(trial)]
#[needs(has_no_gpu)]
fn auto_falls_back_to_the_cpu() -> Result<(), Failed> {
    let store = scratch("auto").join("store");
    let asked = run(inputs()
        .extract(&store)
        .args(["--backend", "auto", "--json"]))
    .exits(0)?;

    let notes: Vec<&str> = asked
        .err
        .lines()
        .filter(|line| line.starts_with("note: "))
        .collect();
    same(&format!("notes: {notes:?}"), notes.len(), 1)?;
    contains(notes[0], "on the CPU")?;

    same(
        "backend",
        serde_json::from_str::<Value>(&asked.out)?["backend"].as_str(),
        Some("cpu"),
    )?;
    same_versions(&store, whole())?;

    // No backend was requested, so no note about a missing one is printed.
    let silent = run(inputs().extract(&store).env_remove("WAVEMILL_BACKEND")).exits(0)?;
    same(
        "notes",
        silent.err.lines().find(|line| line.starts_with("note: ")),
        None,
    )
}

/// Returns a recipe with three f32 features (the powers of a transform of even and of odd length, and decibels) and
/// the decibels in f16. An odd length is computed by a library's transform.
fn recipe_with_power(recipe: &str) -> String {
    fn of_length(name: &str, n_fft: u32, more: &str) -> String {
        format!(
            "[[features]]\nname = \"{name}\"\nop = \"mel\"\nn_fft = {n_fft}\nhop_length = 512\nn_mels = 40\n{more}\n"
        )
    }

    fn feature_of(name: &str, more: &str) -> String {
        of_length(name, 1024, more)
    }

    let (head, rest) = recipe.split_once("[[features]]").unwrap();
    let (_, shards) = rest.split_once("[shards]").unwrap();

    let db = "db = { ref = \"max\", top_db = 80.0 }\n";
    let power = feature_of("power", "dtype = \"f32\"");
    let odd = of_length("odd", 1029, "dtype = \"f32\"");
    let decibels = feature_of("decibels", &format!("{db}dtype = \"f32\""));
    let short = feature_of("short", &format!("{db}dtype = \"f16\""));

    format!("{head}{power}{odd}{decibels}{short}[shards]{shards}")
}

/// Returns the values of a feature by clip key.
fn rows(store: &Path, feature: &str) -> Result<BTreeMap<String, Vec<f64>>, Failed> {
    fn row(row: &Value) -> Option<(String, Vec<f64>)> {
        Some((row["clip_key"].as_str()?.to_owned(), numbers(&row["x"])?))
    }

    let query = format!("SELECT clip_key, tensor({feature}) AS x FROM features_{feature}");
    sql(store, &query)?
        .iter()
        .map(|found| row(found).ok_or_else(|| format!("no numbers: {feature}").into()))
        .collect()
}

/// Flattens a nested array of numbers.
fn numbers(value: &Value) -> Option<Vec<f64>> {
    match value {
        Value::Array(values) => values
            .iter()
            .map(numbers)
            .collect::<Option<Vec<_>>>()
            .map(|found| found.concat()),
        number => number.as_f64().map(|x| vec![x]),
    }
}

/// Tolerances of powers: 1e-6 of the largest power, which is the rounding error of an f32 FFT, plus 1e-4 of each
/// value.
const POWER_REL_TO_MAX: f64 = 1e-6;
const POWER_REL: f64 = 1e-4;
/// Tolerance in dB for music within the top 80 dB, the stored range.
const DB_ABS: f64 = 1e-3;
/// Half an f32 step. An FFT rounds each bin by this fraction of the largest amplitude. Synthetic tones have
/// neighbouring bands without any other content, where this error is visible.
const ROUNDING: f64 = 6e-8;
/// Music masks most of the rounding: a tenth of it is 5e-4 dB at the bottom of the top 80 dB. On these clips, mel
/// bands of an FFT in f32 (scipy) differ there by up to 7e-4 dB from those in f64, so two f32 results may differ by
/// 1.4e-3 dB.
const MUSIC_ROUNDING: f64 = 0.1 * ROUNDING;
/// Change in dB per relative change of an amplitude: 20 / ln 10.
const DB_OF_AMPLITUDE: f64 = 8.686;

/// Returns the distance between neighbouring f16 values near `x`.
fn f16_step(x: f64) -> f64 {
    2.0_f64.powf(x.abs().max(6.2e-5).log2().floor() - 10.0)
}

/// Fails at the first value that exceeds its tolerance. The message contains both values.
fn agree(
    stores: [&Path; 2],
    feature: &str,
    tolerance: impl Fn(f64, f64) -> f64,
) -> Result<(), Failed> {
    let [cpu, device] = stores.map(|store| rows(store, feature));
    let (cpu, device) = (cpu?, device?);

    same(
        "clips",
        device.keys().collect::<Vec<_>>(),
        cpu.keys().collect(),
    )?;
    same("there are some", cpu.is_empty(), false)?;

    for (clip_key, wanted) in &cpu {
        let max = wanted.iter().copied().fold(0.0, f64::max);
        let got = &device[clip_key];
        same("values", got.len(), wanted.len())?;

        for (index, (got, wanted)) in got.iter().zip(wanted).enumerate() {
            let is_within = (got - wanted).abs() <= tolerance(*wanted, max);
            if !is_within {
                return Err(
                    format!("{feature} of {clip_key}, value {index}: {got}, not {wanted}").into(),
                );
            }
        }
    }
    Ok(())
}

/// Extracts the inputs on the CPU and on another backend and compares the rows. Amplitudes may differ by an
/// additional fraction `rounding` of the largest amplitude, 0 dB.
fn both_agree(
    inputs: &Inputs,
    folder: &Path,
    (backend, devices): (&str, &str),
    rounding: f64,
) -> Result<(), Failed> {
    fn db(rounding: f64, x: f64) -> f64 {
        DB_ABS + DB_OF_AMPLITUDE * rounding / 10.0_f64.powf(x / 20.0)
    }

    let [cpu, device] = ["cpu", backend].map(|name| folder.join(name));
    run(&mut inputs.extract(&cpu)).exits(0)?;
    run(&mut on(&mut inputs.extract(&device), backend, devices)).exits(0)?;

    let [ours, theirs] = [manifest(&device, 1)?, manifest(&cpu, 1)?];
    same("backend", ours.engine.backend.as_str(), backend)?;
    same("counts", ours.counts, theirs.counts)?;

    let facts =
        "SELECT clip_key, duration_s, lost_s, silent, audio_blake3 FROM features_power ORDER BY 1";
    same("facts", sql(&device, facts)?, sql(&cpu, facts)?)?;
    let rejects = "SELECT clip_key, reason, detail, decoded_s FROM rejects ORDER BY 1, 2, 3";
    same("rejects", sql(&device, rejects)?, sql(&cpu, rejects)?)?;

    agree([&cpu, &device], "power", |x, max| {
        POWER_REL_TO_MAX * max + POWER_REL * x
    })?;
    agree([&cpu, &device], "odd", |x, max| {
        POWER_REL_TO_MAX * max + POWER_REL * x
    })?;

    agree([&cpu, &device], "decibels", |x, _| db(rounding, x))?;
    agree([&cpu, &device], "short", |x, _| {
        db(rounding, x) + f16_step(x)
    })
}

#[apply(trial)]
#[needs(is_emulated)]
fn emulated_equals_cpu() -> Result<(), Failed> {
    equals_cpu(EMULATED, "0,1")
}

#[apply(trial)]
#[needs(is_emulated)]
fn emulated_stores_the_samples_of_the_cpu() -> Result<(), Failed> {
    stores_samples_of_cpu(EMULATED, "0,1")
}

#[apply(trial)]
#[needs(runs_cuda)]
fn cuda_stores_the_samples_of_the_cpu() -> Result<(), Failed> {
    stores_samples_of_cpu(CUDA, "0")
}

/// The host stores samples and files for every backend, so their bytes are the same.
fn stores_samples_of_cpu(backend: &str, devices: &str) -> Result<(), Failed> {
    let folder = scratch("sounds-on-devices");
    let inputs = with_features(&folder, SOUNDS);
    let [cpu, device] = ["cpu", backend].map(|name| folder.join(name));
    run(&mut inputs.extract(&cpu)).exits(0)?;
    run(&mut on(&mut inputs.extract(&device), backend, devices)).exits(0)?;

    let [ours, theirs] = [manifest(&device, 1)?, manifest(&cpu, 1)?];
    same("backend", ours.engine.backend.as_str(), backend)?;
    for feature in ["wave", "short", "original"] {
        let [ours, theirs] = [&ours, &theirs].map(|manifest| {
            let files = manifest.files_of(feature);
            files.map(|file| file.blake3.clone()).collect::<Vec<_>>()
        });
        same(feature, ours, theirs)?;
    }
    Ok(())
}

#[apply(trial)]
#[needs(runs_cuda)]
fn cuda_equals_cpu() -> Result<(), Failed> {
    equals_cpu(CUDA, "0")
}

fn equals_cpu(backend: &str, devices: &str) -> Result<(), Failed> {
    let folder = scratch(backend);
    both_agree(
        &with_recipe(&folder, &recipe_with_power(RECIPE)),
        &folder,
        (backend, devices),
        ROUNDING,
    )
}

/// Compares clips with sample rates from 8 to 48 kHz, damaged clips, and clips that are cut, padded or too short.
#[apply(trial)]
#[needs(is_emulated)]
fn emulated_equals_cpu_on_real_clips(data: &Path) -> Result<(), Failed> {
    for name in ["rate_variants", "mp3_odd", "audio/fma_real"] {
        let folder = scratch("real");
        let recipe = folder.join("power.toml");
        fs::write(&recipe, recipe_with_power(&recipe_for_folders()))?;

        both_agree(
            &Inputs::without_metadata(data.join(name), recipe),
            &folder,
            (EMULATED, "0,1"),
            MUSIC_ROUNDING,
        )?;
    }
    Ok(())
}

/// Extracts some clips on one device in a single run and returns the store.
fn undisturbed(backend: &str) -> Result<PathBuf, Failed> {
    let store = scratch("undisturbed").join("store");
    run(&mut few(&store, backend, "0")).exits(0)?;
    Ok(store)
}

fn few(store: &Path, backend: &str, devices: &str) -> Command {
    on(
        inputs().extract(store).args(["--limit", "30"]),
        backend,
        devices,
    )
}

#[apply(trial)]
#[needs(is_emulated)]
fn batches_change_no_byte() -> Result<(), Failed> {
    same_with_other_batches(EMULATED, &["0", "0,1"])
}

#[apply(trial)]
#[needs(runs_cuda)]
fn cuda_batches_change_no_byte() -> Result<(), Failed> {
    same_with_other_batches(CUDA, &["0"])
}

/// Compares runs with different batches and threads. One of the runs uses the last entry of `devices`, which may
/// name several devices.
fn same_with_other_batches(backend: &str, devices: &[&str]) -> Result<(), Failed> {
    let wanted = undisturbed(backend)?;
    let all = devices[devices.len() - 1];

    // With slow decoders, batches are submitted by timeout before they are full. With a second device, a row may be
    // computed on a different device.
    let slowly = "worker-panic=sleep(30)";
    // A device that is out of memory splits batches in halves.
    let full = "device-full=return(2)";

    for (threads, devices, points) in [
        ("1", "0", ""),
        ("2", "0", slowly),
        ("8", all, ""),
        ("8", "0", full),
    ] {
        let store = scratch("batches").join("store");
        let ran = run(few(&store, backend, devices)
            .args(["--threads", threads, "--json"])
            .env("FAILPOINTS", points))
        .exits(0)?;

        let device = &serde_json::from_str::<Value>(&ran.out)?["device"];
        within(
            &format!("clips in {device}"),
            device["clips"].as_u64(),
            device["batches"].as_u64()..,
        )?;
        same_versions(&store, &wanted)?;
    }
    Ok(())
}

/// Clips that are too large for a device have the values that the CPU computes.
#[apply(trial)]
#[needs(is_emulated)]
fn clips_too_large_for_a_device_are_computed_on_the_cpu() -> Result<(), Failed> {
    let folder = scratch("too-large");
    let [cpu, device] = ["cpu", "device"].map(|name| folder.join(name));
    run(inputs().extract(&cpu).args(["--limit", "30"])).exits(0)?;
    let ran = run(few(&device, EMULATED, "0")
        .arg("--json")
        .env("FAILPOINTS", "device-full=return(0)"))
    .exits(0)?;

    let report = &serde_json::from_str::<Value>(&ran.out)?;
    let n_clips = report["device"]["cpu_clips"].as_u64().ok_or("no count")?;
    same("some clips", n_clips > 0, true)?;
    same("batches", report["device"]["batches"].as_u64(), Some(0))?;
    contains(
        &ran.err,
        &format!("{n_clips} clips computed on the CPU, because the device has too little memory"),
    )?;

    let hashes = |store: &Path| -> Result<Vec<String>, Failed> {
        let files = manifest(store, 1)?.files;
        Ok(files.into_iter().map(|file| file.blake3).collect())
    };
    same("files", hashes(&device)?, hashes(&cpu)?)
}

/// The first of two devices fails after its first batches: all threads of this device end, and those of the other
/// device continue.
#[apply(trial)]
#[needs(is_emulated)]
fn device_failure_does_not_change_the_store() -> Result<(), Failed> {
    let store = scratch("failed").join("store");
    let ran =
        run(few(&store, EMULATED, "0,1").env("FAILPOINTS", "device-fails=1*off->return(0,1)"))
            .exits(0)?;

    contains(&ran.err, "warning: a device failed, others went on")?;
    same_versions(&store, &undisturbed(EMULATED)?)
}

#[apply(trial)]
#[needs(is_emulated)]
fn failure_of_the_last_device_ends_the_run() -> Result<(), Failed> {
    last_device_of_ends_the_run(EMULATED, "3*off->return")
}

#[apply(trial)]
#[needs(runs_cuda)]
fn cuda_that_fails_ends_the_run() -> Result<(), Failed> {
    // All clips may be in one batch.
    last_device_of_ends_the_run(CUDA, "return")
}

fn last_device_of_ends_the_run(backend: &str, fails: &str) -> Result<(), Failed> {
    let store = scratch("last").join("store");
    let failing = run(few(&store, backend, "0").env("FAILPOINTS", format!("device-fails={fails}")))
        .exits(1)?;
    // On a GPU, a note with its name precedes the error.
    for message in [
        "all devices have failed",
        "run the same command again to continue",
        "lane",
        "injected",
    ] {
        contains(&failing.err, message)?;
    }
    same("versions", versions(&store), Vec::new())?;

    run(&mut few(&store, backend, "0")).exits(0)?;
    same_versions(&store, &undisturbed(backend)?)
}

#[apply(trial)]
#[needs(is_emulated)]
fn panic_of_a_device_lane_ends_the_run() -> Result<(), Failed> {
    let store = scratch("lane").join("store");
    let failing =
        run(few(&store, EMULATED, "0").env("FAILPOINTS", "device-fails=1*off->panic(injected)"))
            .exits(1)?;
    failing.says(&[
        "computing features on lane",
        "injected",
        "please report this",
    ])?;
    same("versions", versions(&store), Vec::new())
}

/// Unfinished work of another backend is neither used nor ignored silently.
#[apply(trial)]
#[needs(is_emulated)]
fn resuming_with_another_backend_is_rejected() -> Result<(), Failed> {
    let store = scratch("mixed").join("store");
    let mut child =
        start(few(&store, EMULATED, "0").env("FAILPOINTS", "run-before-commit=sleep(600000)"));
    wait_until(&mut child, "a shard", || receipts(&store) >= 2)?;
    kill(child)?;
    let refused = run(inputs().extract(&store).args(["--limit", "30"])).exits(4)?;
    refused.says(&["emulated", "`--backend emulated`", "--restart"])
}
