//! Run records state how each run ended and which warnings it gave. Invalid settings are refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use wavemill_tests::Failed;

use crate::support::{
    Inputs, contains, files_below, finish, fit, has_trainer, inputs, kill, receipts, run, same,
    scratch, start, wait_until, wavemill, whole,
};

/// Returns the last line of each run record of a store, oldest run first.
fn last_lines(store: &Path) -> Result<Vec<Value>, Failed> {
    let folder = store.join("_wavemill/runs");
    let mut lines = Vec::new();
    for name in files_below(&folder) {
        let text = fs::read_to_string(folder.join(name))?;
        lines.push(serde_json::from_str(
            text.lines().last().ok_or("an empty record")?,
        )?);
    }
    Ok(lines)
}

/// Copies the inputs and removes three quarters of the clips.
fn with_few_clips(folder: &Path) -> Result<Inputs, Failed> {
    let few = inputs().copied(folder);
    for (number, name) in files_below(&few.audio).into_iter().enumerate() {
        if number % 4 > 0 {
            fs::remove_file(few.audio.join(name))?;
        }
    }
    Ok(few)
}

#[apply(trial)]
fn committed_run_records_its_warnings() -> Result<(), Failed> {
    let folder = scratch("warned");
    let few = with_few_clips(&folder)?;
    let store = folder.join("store");
    let absent = "rows have no file below the audio root";
    let leaky = "split.rule: leaky";

    let sets = ["--set", "split.rule=stratified"];
    let first = run(few.extract(&store).args(sets)).exits(0)?;
    contains(&first.err, absent)?;
    contains(&first.err, leaky)?;

    let ends = last_lines(&store)?;
    same("runs", ends.len(), 1)?;
    same("outcome", ends[0]["outcome"].as_str(), Some("committed"))?;
    let warnings = ends[0]["report"]["warnings"].to_string();
    contains(&warnings, absent)?;
    contains(&warnings, leaky)?;

    let again = run(few.extract(&store).args(sets)).exits(0)?;
    contains(&again.err, "nothing to do")?;
    contains(&again.err, absent)?;

    let again = run(few.extract(&store).args(sets).arg("--json")).exits(0)?;
    let report: Value = serde_json::from_str(&again.out)?;
    same(
        &again.out,
        report["warnings"].to_string().contains(absent),
        true,
    )
}

#[apply(trial)]
fn interrupted_run_records_its_end() -> Result<(), Failed> {
    for signal in ["INT", "TERM"] {
        let store = scratch("interrupted").join("store");
        let mut child = start(
            inputs()
                .extract(&store)
                .env("FAILPOINTS", "worker-panic=sleep(100)"),
        );
        wait_until(&mut child, "a shard", || receipts(&store) >= 1)?;
        run(Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(child.id().to_string()))
        .exits(0)?;
        finish(child).exits(130)?;

        let ends = last_lines(&store)?;
        same("event", ends[0]["event"].as_str(), Some("end"))?;
        same("outcome", ends[0]["outcome"].as_str(), Some("interrupted"))?;
        same(
            "seconds",
            ends[0]["seconds"]
                .as_f64()
                .is_some_and(|seconds| seconds > 0.0),
            true,
        )?;

        run(&mut inputs().extract(&store)).exits(0)?;
        let outcomes: Vec<Value> = last_lines(&store)?
            .into_iter()
            .map(|end| end["outcome"].clone())
            .collect();
        same(
            "outcomes",
            outcomes,
            vec!["interrupted".into(), "committed".into()],
        )?;

        // The date of a version is the date of the run that committed it.
        let listed = run(wavemill(["info", "--versions", "--json", "--store"]).arg(&store))
            .exits(0)?
            .out;
        let listed: Value = serde_json::from_str(&listed)?;
        same("dated", listed[0]["committed"].is_string(), true)?;
    }
    Ok(())
}

#[apply(trial)]
fn failed_run_records_its_end() -> Result<(), Failed> {
    let store = scratch("failed").join("store");
    run(inputs()
        .extract(&store)
        .env("FAILPOINTS", "shard-append=3*off->return"))
    .exits(5)?;
    run(&mut inputs().strict_extract(&store)).exits(1)?;

    let ends = last_lines(&store)?;
    let outcomes: Vec<&str> = ends
        .iter()
        .filter_map(|end| end["outcome"].as_str())
        .collect();
    same("outcomes", outcomes, vec!["failed", "failed"])?;

    let words: Vec<&str> = ends
        .iter()
        .filter_map(|end| end["error"].as_str())
        .collect();
    contains(words[0], "storage space")?;
    contains(words[1], "clips rejected")
}

#[apply(trial)]
fn killed_run_has_no_end_record() -> Result<(), Failed> {
    let store = scratch("killed-record").join("store");
    let mut child = start(
        inputs()
            .extract(&store)
            .env("FAILPOINTS", "run-before-commit=sleep(600000)"),
    );
    wait_until(&mut child, "all shards", || {
        receipts(&store) == receipts(whole())
    })?;
    kill(child)?;

    let ends = last_lines(&store)?;
    same("the only line", ends[0]["event"].as_str(), Some("start"))
}

/// Writes a configuration file of 50 MB that is valid TOML.
fn huge(folder: &Path) -> Result<PathBuf, Failed> {
    let path = folder.join("huge.toml");
    fs::write(
        &path,
        "# nothing but a comment, and another one\n".repeat(1_250_000),
    )?;
    Ok(path)
}

#[apply(trial)]
fn huge_recipe_is_rejected_immediately() -> Result<(), Failed> {
    let folder = scratch("huge");
    let store = folder.join("store");
    for (recipe, why) in [
        (huge(&folder)?, "over 1 MiB"),
        ("/dev/zero".into(), "it is a pipe or a device"),
    ] {
        let name = recipe.to_str().unwrap().to_owned();
        let own = inputs().with_recipe(recipe);

        run(&mut own.extract(&store))
            .exits(2)?
            .says(&[&name, why])?;
        run(&mut wavemill(["recipe", "check", &name]))
            .exits(2)?
            .says(&[&name, why])?;
    }
    same("the store exists", store.exists(), false)
}

#[apply(trial)]
#[needs(has_trainer)]
fn huge_configuration_is_rejected_immediately() -> Result<(), Failed> {
    let folder = scratch("huge-configuration");
    // Reading `/dev/zero` to its end would never finish.
    for config in [huge(&folder)?, "/dev/zero".into()] {
        let name = config.to_str().unwrap();
        run(fit(whole(), &folder.join("runs")).args(["--config", name]))
            .exits(2)?
            .says(&[name, "over 1 MiB"])?;

        let mut sweep = crate::support::trainer(["sweep", name, "--store"]);
        sweep.arg(whole()).arg("--runs").arg(folder.join("runs"));
        run(&mut sweep).exits(2)?.says(&[name, "over 1 MiB"])?;
    }
    Ok(())
}
