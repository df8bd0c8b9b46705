//! Cross-validation and several seeds with `fit --folds` and `--seeds`, and ensembles of their runs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use wavemill_tests::Failed;

use crate::support::{
    argv, contains, fit, has_trainer, kill, run, same, scratch, start, trainer, wait_until,
    wavemill, whole, within,
};

const SMALL: &str = "--set model.name=lstm --set data.frames=8 --set data.batch_size=8 --set train.epochs=2 \
     --set train.temperature_scaling=true --set train.select=balanced_accuracy --json";

fn cross(runs: &Path, arguments: &str) -> Command {
    let mut command = fit(whole(), runs);
    command.args(argv(SMALL)).args(argv(arguments));
    command
}

/// Returns the number of runs in a folder that have a result.
fn completed(runs: &Path) -> usize {
    let entries = fs::read_dir(runs).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().join("result.json").exists())
        .count()
}

/// Returns the result of a command without the folders of its runs.
fn without_folders(out: &str, runs: &Path) -> Result<String, Failed> {
    let json: Value = serde_json::from_str(out)?;
    same("runs", json["runs"].as_array().map(Vec::len), Some(6))?;
    Ok(json.to_string().replace(&runs.display().to_string(), ""))
}

#[apply(trial)]
#[needs(has_trainer)]
fn killed_cross_validation_continues() -> Result<(), Failed> {
    let [killed, undisturbed] = ["folds-killed", "folds"].map(|name| scratch(name).join("runs"));
    let ran = run(&mut cross(&undisturbed, "--folds 3 --seeds 2")).exits(0)?;
    let wanted = without_folders(&ran.out, &undisturbed)?;

    let message = "--folds 3 --seeds 2 --jobs 2";
    let mut child = start(&mut cross(&killed, message));
    wait_until(&mut child, "two runs", || completed(&killed) >= 2)?;
    kill(child)?;
    // The processes of the runs end with their parent. Until then, they hold the locks of their logs.
    for entry in fs::read_dir(&killed)?.flatten() {
        if let Ok(log) = fs::File::open(entry.path().join("log.jsonl")) {
            log.lock()?;
        }
    }
    let done = completed(&killed);
    within("completed", done, 2..6)?;
    let ran = run(&mut cross(&killed, message)).exits(0)?;
    same("result", without_folders(&ran.out, &killed)?, wanted)?;

    // Every clip is in one fold, and each artist's clips are in the same.
    let mut query = wavemill(["sql", "--format", "json", "--store"]);
    query.arg(whole()).arg("--table").arg(format!(
        "folds={}",
        killed.join("folds-3.parquet").display()
    ));
    let artists = "SELECT count(*) AS rows, count(DISTINCT f.artist_id) AS artists, \
                   count(DISTINCT arrow_cast(f.artist_id, 'Utf8') || '-' || arrow_cast(fold, 'Utf8')) AS pairs, \
                   count(DISTINCT fold) AS folds FROM features_log_mel f JOIN folds USING (clip_key)";
    let rows: Value = serde_json::from_str(&run(query.arg(artists)).exits(0)?.out)?;
    same("an artist in two folds", &rows["artists"], &rows["pairs"])?;
    same("folds", rows["folds"].as_u64(), Some(3))?;
    let total = run(wavemill(["sql", "--format", "json", "--store"])
        .arg(whole())
        .arg("SELECT count(*) AS rows FROM features_log_mel"))
    .exits(0)?;
    let total: Value = serde_json::from_str(&total.out)?;
    same("rows", &rows["rows"], &total["rows"])?;

    let one = run(&mut cross(&killed, "--folds 3 --fold 2 --resume-or-start")).exits(0)?;
    contains(&one.err, "nothing to do")?;

    // The seeds of one fold have a result of their own.
    let file_of = |end: &str| -> Result<String, Failed> {
        let mut paths = fs::read_dir(&killed)?.flatten().map(|entry| entry.path());
        let path = paths.find(|path| path.to_string_lossy().ends_with(end));
        Ok(fs::read_to_string(path.ok_or(format!("no file {end}"))?)?)
    };
    let whole = file_of("-3-folds-2-seeds.json")?;
    let ran = run(&mut cross(&killed, "--folds 3 --fold 2 --seeds 2")).exits(0)?;
    let seeds: Value = serde_json::from_str(&ran.out)?;
    let accuracy = &seeds["scores"][0][1]["accuracy"];
    same("seeds", accuracy["n"].as_u64(), Some(2))?;
    same(
        "file",
        file_of("-fold-2-of-3-2-seeds.json")?,
        ran.out.trim().to_owned(),
    )?;
    same(
        "the result of all folds",
        file_of("-3-folds-2-seeds.json")?,
        whole,
    )
}

#[apply(trial)]
#[needs(has_trainer)]
fn wrong_folds_are_refused() -> Result<(), Failed> {
    let runs = scratch("folds-refused").join("runs");
    for (message, said) in [
        ("--folds 2", "must be a whole number from 3 to 1000"),
        ("--folds 5 --fold 6", "--fold 6: must be 1 to 5"),
        ("--folds 1000", "use fewer folds"),
        ("--folds 5 --split artist", "cannot be used with"),
        (
            "--folds 5 --set data.split=artist",
            "the folds are the split",
        ),
        (
            "--folds 5 --fold 1 --set data.split=artist",
            "the folds are the split",
        ),
        (
            "--folds 5 --skip-damaged",
            "would depend on the damaged files",
        ),
        ("--seeds 2 --seed 9223372036854775807", "the last seed"),
        ("--jobs 2", "needs --folds"),
        (
            "--set schedule.plateau.metric=micro_f1",
            "schedule.plateau.metric = \"micro_f1\" is not a score of target genre",
        ),
        ("--seeds 2 --nproc 2", "cannot be combined with ranks"),
        (
            "--set train.select=roc_auc_macro",
            "not a score of target genre: choose one of loss, log_loss",
        ),
        ("--set train.select_target=mood", "choose one of genre"),
        ("--set train.select=macro_f1_supported", "use macro_f1"),
        (
            "--set schedule.plateau.metric=macro_f1_supported",
            "schedule.plateau.metric = \"macro_f1_supported\" is undefined",
        ),
        ("--set loss.pos_weight=balanced", "use loss.class_weights"),
    ] {
        let ran = run(&mut cross(&runs, message)).exits(2)?;
        contains(&ran.err, said)?;
    }
    same("runs", completed(&runs), 0)
}

#[apply(trial)]
#[needs(has_trainer)]
fn an_ensemble_is_scored_and_temperatures_are_used() -> Result<(), Failed> {
    let runs = scratch("ensemble").join("runs");
    run(&mut cross(&runs, "--seeds 2")).exits(0)?;
    let folders: BTreeSet<_> = fs::read_dir(&runs)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    let folders: Vec<_> = folders.into_iter().collect();
    same("runs", folders.len(), 2)?;

    let eval = |arguments: &[&Path], flags: &str| {
        let mut command = trainer(argv("eval --device cpu --threads 1 --json"));
        command.args(arguments).args(argv(flags));
        run(&mut command)
    };
    let scores = |out: &str| -> Result<Value, Failed> { Ok(serde_json::from_str(out)?) };
    let [a, b] = [&*folders[0], &*folders[1]];

    // `eval` uses the run's temperature: otherwise its log loss would differ from that of the result.
    let result: Value = serde_json::from_slice(&fs::read(a.join("result.json"))?)?;
    let temperature = result["temperatures"][0].as_f64().ok_or("no temperature")?;
    within("temperature", temperature, 0.05..=20.0)?;
    let own = scores(&eval(&[a], "").exits(0)?.out)?;
    same(
        "scores",
        &own[0]["segments"],
        &result["test"][0]["segments"],
    )?;

    // The mean of equal probabilities is the same; that of different ones is not.
    let twice = scores(&eval(&[a, a], "--ensemble").exits(0)?.out)?;
    same(
        "mean of equal runs",
        &twice[0]["segments"],
        &own[0]["segments"],
    )?;
    same("loss", twice[0]["loss"].is_null(), true)?;
    let both = scores(&eval(&[a, b], "--ensemble").exits(0)?.out)?;
    same(
        "another run",
        both[0]["segments"] == own[0]["segments"],
        false,
    )?;

    run(&mut cross(&runs, "--folds 3 --fold 1")).exits(0)?;
    let mut found = fs::read_dir(&runs)?.flatten().map(|entry| entry.path());
    let fold = found
        .find(|path| path.is_dir() && !folders.contains(path))
        .ok_or("no run")?;
    let refused = eval(&[a, &fold], "--ensemble").exits(2)?;
    contains(&refused.err, "have different splits")?;
    contains(&eval(&[a, b], "").exits(2)?.err, "--ensemble")?;
    contains(&eval(&[a], "--ensemble").exits(2)?.err, "RUN")
}
