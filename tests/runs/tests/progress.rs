//! Progress of the programs: bars on a terminal, lines in a log, JSON, and the verbosity options.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use wavemill_tests::Failed;

use crate::signals::pipe;
use crate::support::{
    argv, contains, fit, has_python, has_trainer, inputs, lacks, receipts, run, same, scratch,
    wavemill, whole, within,
};
use crate::terminal::{TERMINAL_TIMEOUT, Terminal};

/// Fail point that slows down every clip.
const SLOWLY: &str = "worker-panic=sleep(60)";

/// Returns a command that trains a small model for two epochs.
fn training(folder: &Path) -> Command {
    let mut command = fit(whole(), folder);
    command.args(argv(
        "--model lstm --epochs 2 --set data.frames=8 --set data.batch_size=4",
    ));
    command.env("WAVEMILL_PROGRESS_S", "0.02");
    command
}

#[apply(trial)]
#[needs(has_trainer)]
fn a_log_of_training_has_lines_and_epochs() -> Result<(), Failed> {
    fn has(log: &str, start: &str, part: &str) -> bool {
        log.lines()
            .any(|line| line.starts_with(start) && line.contains(part))
    }

    fn known(line: &&Value) -> bool {
        line["event"] == "progress" && line["steps"].as_u64() > line["step"].as_u64()
    }

    let ran = run(&mut training(&scratch("training-log"))).exits(0)?;
    same(
        "a line of progress",
        has(&ran.err, "wavemill train: epoch ", " steps, training loss "),
        true,
    )?;
    for epoch in [
        "wavemill train: epoch 1 of 2 ended: training loss ",
        "wavemill train: epoch 2 of 2 ended: ",
    ] {
        same(epoch, has(&ran.err, epoch, "; validation loss "), true)?;
    }

    let ran = run(training(&scratch("training-json")).args(["--progress", "json"])).exits(0)?;
    let lines = ran.err.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
    let epochs: Vec<u64> = lines
        .iter()
        .filter(|line| line["event"] == "epoch")
        .filter_map(|line| line["epoch"].as_u64())
        .collect();
    same("epochs", epochs, vec![1, 2])?;
    same("steps are left", lines.iter().find(known).is_some(), true)?;

    let ran = run(training(&scratch("training-quiet")).arg("--quiet")).exits(0)?;
    let said: Vec<&str> = ran
        .err
        .lines()
        .filter(|line| !line.starts_with("warning: "))
        .collect();
    same("a quiet run says", said, Vec::new())?;

    let ran = run(training(&scratch("training-verbose")).arg("-v")).exits(0)?;
    for part in ["wall seconds: training ", "result.json"] {
        contains(&ran.err, part)?;
    }
    Ok(())
}

/// Runs `extract` on a terminal with metadata from a pipe. While the pipe is empty, the total amount is unknown.
#[apply(trial)]
#[needs(has_python)]
fn progress_bar_starts_empty() -> Result<(), Failed> {
    const FULL: char = '\u{2588}';
    const PHASE: &str = "reading metadata";

    let folder = scratch("bar");
    let mut stuck = inputs().clone();
    stuck.metadata = Some(pipe(folder.join("tracks.csv"))?);
    let mut terminal = Terminal::start(&stuck.extract(&folder.join("store")))?;

    for _ in 0..3 {
        let shown = terminal.wait_for(PHASE, TERMINAL_TIMEOUT)?;
        same(
            &format!("a full bar: {shown:?}"),
            shown.contains(FULL),
            false,
        )?;
    }

    terminal.press("\u{3}")?;
    terminal.ends(130)
}

#[apply(trial)]
fn a_log_has_lines() -> Result<(), Failed> {
    let store = scratch("log").join("store");
    let ran = run(inputs()
        .extract(&store)
        .env("FAILPOINTS", SLOWLY)
        .env("WAVEMILL_PROGRESS_S", "0.2"))
    .exits(0)?;

    let line = ran
        .err
        .lines()
        .find(|line| line.starts_with("wavemill: extracting: "));
    let line = line.ok_or_else(|| format!("no line of progress: {}", ran.err))?;
    for part in [" of ", " clips (", "/s, ", " rejects"] {
        contains(line, part)?;
    }
    same("no bar", ran.err.contains('\u{1b}'), false)?;

    // By default, a run of seconds prints no progress line.
    let store = scratch("log").join("store");
    let ran = run(&mut inputs().extract(&store)).exits(0)?;
    lacks(&ran.err, "extracting")
}

#[apply(trial)]
fn json_progress_is_machine_readable() -> Result<(), Failed> {
    fn number(last: &Value, name: &str) -> Result<f64, Failed> {
        last[name]
            .as_f64()
            .ok_or_else(|| Failed::from(format!("no {name} in {last}")))
    }

    let store = scratch("json-log").join("store");
    let mut command = inputs().extract(&store);
    command
        .args(["--progress", "json", "--json"])
        .env("FAILPOINTS", SLOWLY)
        .env("WAVEMILL_PROGRESS_S", "0.1");
    let ran = run(&mut command).exits(0)?;

    let lines = ran.err.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
    let last = lines
        .iter()
        .rfind(|line| line["phase"] == "clips")
        .ok_or("no line of clips")?;
    same("event", last["event"].as_str(), Some("progress"))?;

    let (done, total) = (number(last, "done")?, number(last, "total")?);
    same("done is within total", done > 0.0 && done <= total, true)?;
    let left = (total - done) / number(last, "per_s")?;
    same(
        "time left",
        (number(last, "eta_s")? - left).abs() < 1e-6 * left.max(1.0),
        true,
    )?;
    within("receipts", receipts(&store), 1..)
}

#[apply(trial)]
fn quiet_and_verbose() -> Result<(), Failed> {
    let store = scratch("quiet").join("store");
    let ran = run(inputs().extract(&store).arg("--quiet")).exits(0)?;
    let said: Vec<&str> = ran
        .err
        .lines()
        .filter(|line| !line.starts_with("warning: "))
        .collect();
    same("a quiet run says", said, Vec::new())?;

    let ran = run(wavemill(["-q", "verify", "--store"]).arg(&store)).exits(0)?;
    same("a quiet check says", ran.err + &ran.out, String::new())?;

    let ran = run(inputs()
        .extract(&scratch("verbose").join("store"))
        .arg("-v"))
    .exits(0)?;
    for part in [
        "  wall seconds: cleaning ",
        "clips ",
        "/00000.parquet: ",
        "  CPU seconds: ",
    ] {
        contains(&ran.err, part)?;
    }

    run(wavemill(["-v", "-q", "recipe", "list"]).env("COLUMNS", "200")).exits(2)?;
    run(inputs().extract(&store).env("WAVEMILL_PROGRESS_S", "never"))
        .exits(2)?
        .says(&["WAVEMILL_PROGRESS_S=never"])
}
