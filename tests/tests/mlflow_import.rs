//! `scripts/mlflow_import.py` imports the folder of a training run into MLflow, also of a stopped and resumed run.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use wavemill_tests::Failed;

use crate::peers::script;
use crate::support::{
    argv, asks_for_peers, finish, fit, has_python, has_trainer, last_step, run, run_in, same,
    scratch, start, trainer, wait_until, whole,
};

fn import_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/mlflow_import.py")
}

/// A Python script that uses an MLflow database in `folder`.
fn with_mlflow(script: PathBuf, folder: &Path) -> Result<Command, Failed> {
    let python = std::env::var_os("WAVEMILL_PYTHON")
        .ok_or("WAVEMILL_PYTHON is not set: run scripts/peers/setup.sh")?;
    let mut uri = OsString::from("sqlite:///");
    uri.push(folder.join("mlflow.db"));

    let mut command = Command::new(python);
    command
        .arg(script)
        // MLflow writes artifacts to a folder below the working folder.
        .current_dir(folder)
        .env("MLFLOW_TRACKING_URI", uri)
        .env("MLFLOW_DISABLE_TELEMETRY", "true");
    Ok(command)
}

#[apply(trial)]
#[needs(has_trainer, asks_for_peers)]
fn mlflow_has_what_the_folder_has() -> Result<(), Failed> {
    let store = scratch("mlflow");
    let runs = scratch("mlflow-runs");
    let mut command = fit(whole(), &runs);
    command.args(argv(
        "--set model.name=lstm --set data.frames=16 --set data.batch_size=4 \
         --set train.early_stop=0",
    ));
    let mut training = start(command.args(["--epochs", "100000"]));
    wait_until(&mut training, "a checkpoint", || last_step(&runs) > 0)?;
    let folder = run_in(&runs)?;

    // With `--follow`, the import ends when the training run ends.
    let mut command = with_mlflow(import_script(), &store)?;
    let mut following = start(command.arg(&folder).arg("--follow"));
    wait_until(&mut following, "a database", || {
        store.join("mlflow.db").exists()
    })?;
    run(Command::new("kill").arg(training.id().to_string())).exits(0)?;
    finish(training).exits(130)?;
    finish(following).exits(0)?;
    is_of_folder(&store, &folder, "KILLED")?;

    let epochs = epochs_of(&folder)?.len() + 1;
    let mut command = trainer(["fit", "--device", "cpu", "--threads", "1", "--resume"]);
    command.arg(&folder);
    run(command.args(["--epochs", &epochs.to_string()])).exits(0)?;
    for _ in 0..2 {
        run(with_mlflow(import_script(), &store)?.arg(&folder)).exits(0)?;
        is_of_folder(&store, &folder, "FINISHED")?;
    }
    Ok(())
}

/// Fails unless MLflow contains only this run, with the configuration, the metrics and the files of its folder.
fn is_of_folder(store: &Path, folder: &Path, status: &str) -> Result<(), Failed> {
    let read = run(&mut with_mlflow(script("read_mlflow.py"), store)?).exits(0)?;
    let found: Vec<Value> = serde_json::from_str(&read.out)?;
    same("runs", found.len(), 1)?;
    let found = &found[0];
    let name = folder.file_name().and_then(|name| name.to_str());
    same("name", found["name"].as_str(), name)?;
    same("status", found["status"].as_str(), Some(status))?;
    for (key, value) in [("model.name", "lstm"), ("data.frames", "16"), ("seed", "0")] {
        same(key, found["params"][key].as_str(), Some(value))?;
    }

    let mut logged: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for epoch in epochs_of(folder)? {
        for (name, value) in epoch["values"].as_object().ok_or("no values")? {
            let point = serde_json::json!([epoch["step"], value]);
            logged.entry(name.clone()).or_default().push(point);
        }
    }
    for (name, points) in logged {
        let there = found["metrics"][&name].as_array();
        same(&name, there, Some(&points))?;
    }

    let mut files = vec!["config.toml", "recipe.toml"];
    if status == "FINISHED" {
        files.push("result.json");
        let result = std::fs::read_to_string(folder.join("result.json"))?;
        let result: Value = serde_json::from_str(&result)?;
        let scores = &result["test"][0];
        let name = format!(
            "test/{}/accuracy",
            scores["target"].as_str().ok_or("no target")?
        );
        let point =
            serde_json::json!([[result["steps"], scores["segments"]["report"]["accuracy"]]]);
        same(&name, &found["metrics"][&name], &point)?;
    }
    same("files", &found["files"], &Value::from(files))
}

/// Returns the lines of a run's log that were written at the ends of epochs.
fn epochs_of(folder: &Path) -> Result<Vec<Value>, Failed> {
    let mut epochs = Vec::new();
    for line in std::fs::read_to_string(folder.join("log.jsonl"))?.lines() {
        let entry: Value = serde_json::from_str(line)?;
        if entry["kind"] == "epoch" {
            epochs.push(entry);
        }
    }
    Ok(epochs)
}

#[apply(trial)]
#[needs(has_python)]
fn without_mlflow_names_the_package() -> Result<(), Failed> {
    // Without site-packages no Python has MLflow.
    let mut command = Command::new("python3");
    command
        .arg("-S")
        .arg(import_script())
        .arg(scratch("no-mlflow"));
    let ran = run(&mut command).exits(2)?;
    let line = "mlflow_import.py: needs MLflow's client: pip install mlflow\n";
    same("the error", ran.err.as_str(), line)
}
