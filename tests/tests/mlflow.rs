//! Logging of runs to an MLflow server: to a real one, and without one.
//!
//! As with other peer programs (`peers.rs`), the real server is tested only with `WAVEMILL_PEERS=1`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;
use wavemill_tests::{Failed, Trial};

use crate::peers::script;
use crate::support::{
    Ran, finish, fit, last_step, run, run_in, same, scratch, start, trainer, trainer_trial,
    wait_until, whole,
};

/// Name of the MLflow experiment, with characters that a URI has to escape.
const EXPERIMENT: &str = "night & day/ü";

pub(crate) fn trials() -> Vec<Trial> {
    let asked = std::env::var("WAVEMILL_PEERS").is_ok_and(|value| value == "1");
    let real = trainer_trial(
        "mlflow::a_real_server_has_the_runs",
        a_real_server_has_the_runs,
    );
    let has_trainer = !real.has_ignored_flag();

    vec![
        real.with_ignored_flag(!asked || !has_trainer),
        trainer_trial(
            "mlflow::a_server_that_is_away_is_told_before_a_run_is_made",
            a_server_that_is_away_is_told_before_a_run_is_made,
        ),
    ]
}

/// An MLflow server on this machine, which is stopped when dropped.
struct RealServer {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    address: String,
}

impl RealServer {
    fn start(folder: &Path) -> Result<Self, Failed> {
        let python = std::env::var_os("WAVEMILL_PYTHON")
            .ok_or("WAVEMILL_PYTHON is not set: run scripts/peers/setup.sh")?;
        let mut child = Command::new(python)
            .arg(script("mlflow_server.py"))
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;

        let questions = child.stdin.take();
        let mut answers = BufReader::new(child.stdout.take().ok_or("no output")?);

        let mut address = String::new();
        answers.read_line(&mut address)?;
        if address.is_empty() {
            return Err("no MLflow server: what it said stands above".into());
        }

        Ok(Self {
            child,
            questions,
            answers,
            address: address.trim().to_owned(),
        })
    }

    /// Returns the runs on the server, oldest first.
    fn runs(&mut self) -> Result<Vec<Value>, Failed> {
        let questions = self.questions.as_mut().ok_or("no input")?;
        writeln!(questions, "{EXPERIMENT}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        // The server ends at the end of its input.
        self.questions = None;
        let _ = self.child.wait();
    }
}

/// Returns a `fit` command that trains a small model for `epochs`.
fn small_fit(runs: &Path, address: &str, epochs: u64) -> Command {
    let mut command = fit(whole(), runs);
    for set in ["model.name=lstm", "data.frames=16", "data.batch_size=4"] {
        command.args(["--set", set]);
    }
    command.args(["--epochs", &epochs.to_string()]);
    command.args(["--mlflow", address, "--mlflow-experiment", EXPERIMENT]);
    command
}

/// One run completes, and another is stopped by a signal and completed with `--resume`. The server must contain the
/// same data as their folders.
fn a_real_server_has_the_runs() -> Result<(), Failed> {
    let mut server = RealServer::start(&scratch("mlflow-server"))?;

    let folder = scratch("mlflow-whole");
    let ran = run(&mut small_fit(&folder, &server.address, 2)).exits(0)?;

    let whole_run = run_in(&folder)?;
    let found = server.runs()?;
    same("runs", found.len(), 1)?;
    is_of_folder(&found[0], &whole_run, "FINISHED")?;

    let run_id = found[0]["info"]["run_id"].as_str().ok_or("no id")?;
    same(
        "its page",
        ran.err.contains(&format!("/runs/{run_id}")),
        true,
    )?;
    same("warnings", ran.err.contains("warning: MLflow"), false)?;

    let folder = scratch("mlflow-stopped");
    let mut child = start(&mut small_fit(&folder, &server.address, 100_000));
    wait_until(&mut child, "a checkpoint", || last_step(&folder) > 0)?;
    run(Command::new("kill").arg(child.id().to_string())).exits(0)?;
    finish(child).exits(130)?;

    let stopped_run = run_in(&folder)?;
    let found = server.runs()?;
    same("runs", found.len(), 2)?;
    is_of_folder(&found[1], &stopped_run, "KILLED")?;
    let run_id = found[1]["info"]["run_id"].clone();

    // The address of the server is stored in the run's folder.
    let epochs = epochs_of(&stopped_run)?.len() + 1;
    let mut command = trainer(["fit", "--device", "cpu", "--threads", "1", "--resume"]);
    command.arg(&stopped_run);
    command.args(["--epochs", &epochs.to_string()]);
    run(&mut command).exits(0)?;

    let found = server.runs()?;
    same("runs", found.len(), 2)?;
    same("the run", &found[1]["info"]["run_id"], &run_id)?;
    is_of_folder(&found[1], &stopped_run, "FINISHED")
}

/// Fails unless MLflow's data of a run equals that of its folder.
fn is_of_folder(found: &Value, folder: &Path, status: &str) -> Result<(), Failed> {
    same("status", found["info"]["status"].as_str(), Some(status))?;

    let name = folder.file_name().and_then(|name| name.to_str());
    same("name", found["info"]["run_name"].as_str(), name)?;
    for (key, value) in [("model.name", "lstm"), ("data.frames", "16"), ("seed", "0")] {
        same(key, found["params"][key].as_str(), Some(value))?;
    }

    let epochs = epochs_of(folder)?;
    for name in ["training/loss", "validation/loss", "validation/macro_f1"] {
        let mut there = BTreeMap::new();
        let history = found["metrics"][name].as_array().ok_or("no history")?;
        for one in history {
            there.insert(one[0].as_u64(), one[1].as_f64());
        }

        let mut here = BTreeMap::new();
        for epoch in &epochs {
            here.insert(epoch["step"].as_u64(), epoch["values"][name].as_f64());
        }

        same(name, &there, &here)?;
        same("no epoch is there twice", history.len(), epochs.len())?;
    }

    let files = found["files"].as_object().ok_or("no files")?;
    let config = std::fs::read_to_string(folder.join("config.toml"))?;
    same(
        "configuration",
        files["config.toml"].as_str(),
        Some(&*config),
    )?;

    let pictures = files.keys().filter(|path| path.ends_with(".png")).count();
    same("a picture", pictures > 0, true)?;

    if status == "FINISHED" {
        let result = std::fs::read_to_string(folder.join("result.json"))?;
        same("result", files["result.json"].as_str(), Some(&*result))?;
        let scores = found["metrics"].as_object().ok_or("no metrics")?;
        let tests = scores.keys().filter(|name| name.starts_with("test/"));
        same("scores", tests.count() >= 2, true)?;
    }
    Ok(())
}

/// Returns the log entries at the ends of a run's epochs.
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

fn a_server_that_is_away_is_told_before_a_run_is_made() -> Result<(), Failed> {
    // The port was in use and is closed now.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let folder = scratch("mlflow-away");
    let address = format!("http://ann:secret@127.0.0.1:{port}");
    let ran = run(&mut small_fit(&folder, &address, 1)).exits(1)?;
    says(&ran, &["does not answer", "`mlflow server`", "--mlflow"])?;
    same("no password", ran.err.contains("secret"), false)?;
    same("no run", std::fs::read_dir(&folder)?.count(), 0)?;

    let ran = run(&mut small_fit(&folder, "https://ann:secret@host", 1)).exits(2)?;
    says(&ran, &["--mlflow: https is not built in", "ssh -L"])?;
    same("no password", ran.err.contains("secret"), false)
}

/// Fails unless the last line is the only error and contains all of these words. A note may precede it.
fn says(ran: &Ran, words: &[&str]) -> Result<(), Failed> {
    let mut lines = ran.err.lines();
    let line = lines.rfind(|line| line.starts_with("wavemill-train: "));
    let line = line.ok_or_else(|| format!("no error: {}", ran.err))?;
    same("the last line", ran.err.lines().last(), Some(line))?;
    match words.iter().find(|word| !line.contains(*word)) {
        Some(word) => Err(format!("`{word}` is not in: {line}").into()),
        None => Ok(()),
    }
}
