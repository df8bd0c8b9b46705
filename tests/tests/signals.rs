//! SIGINT and SIGTERM end the program quickly in every phase, with exit code 130 and one line. Also tests the
//! progress lines in a log.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;
use wavemill_tests::{Failed, Trial};

use crate::support::{
    files_below, finish, fit, inputs, own_store, receipts, run, same, scratch, start, trainer,
    trainer_trial, versions, wait_until, wavemill, whole,
};
use crate::terminal::{TERMINAL_TIMEOUT, Terminal, terminal_trial};

/// The documentation states one second. The margin allows for a busy machine.
const END_S_MAX: f64 = 5.0;

/// A predicate on a few rows whose evaluation takes hours.
const ENDLESS: &str = "(SELECT sum((a.csv_line + b.csv_line + c.csv_line) % 7) FROM input a, input b, input c, input d, input e) > 0";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test(
            "signals::signal_while_waiting_for_metadata",
            signal_while_waiting_for_metadata,
        ),
        Trial::test(
            "signals::signal_during_long_cleaning",
            signal_during_long_cleaning,
        ),
        Trial::test(
            "signals::signal_while_waiting_for_input",
            signal_while_waiting_for_input,
        ),
        Trial::test(
            "signals::signal_during_store_commands",
            signal_during_store_commands,
        ),
        Trial::test(
            "signals::demo_ends_its_child_on_a_signal",
            demo_ends_its_child_on_a_signal,
        ),
        Trial::test(
            "signals::second_one_ends_an_extraction_at_once",
            second_one_ends_an_extraction_at_once,
        ),
        terminal_trial(
            "progress::a_bar_is_not_full_before_anything_is_read",
            progress_bar_starts_empty,
        ),
        Trial::test("progress::a_log_has_lines", a_log_has_lines),
        Trial::test(
            "progress::json_progress_is_machine_readable",
            json_progress_is_machine_readable,
        ),
        Trial::test("progress::quiet_and_verbose", quiet_and_verbose),
        trainer_trial(
            "signals::signal_before_training_starts",
            signal_before_training_starts,
        ),
        trainer_trial(
            "progress::a_log_of_training_has_lines_and_epochs",
            a_log_of_training_has_lines_and_epochs,
        ),
    ]
}

fn signal(child: &Child, name: &str) -> Result<(), Failed> {
    run(Command::new("kill")
        .arg(format!("-{name}"))
        .arg(child.id().to_string()))
    .exits(0)?;
    Ok(())
}

/// Sends the signal. The program must end within [`END_S_MAX`], with exit code 130 and one line that contains
/// `words`.
pub(crate) fn ends_soon(child: Child, name: &str, words: &str) -> Result<(), Failed> {
    let start = Instant::now();
    signal(&child, name)?;
    let mut ran = finish(child).exits(130)?;
    let took = start.elapsed().as_secs_f64();
    same("ends soon", (took < END_S_MAX, took), (true, took))?;

    // Removes progress lines. The first of them may have been read in part.
    let is_progress = |line: &&str| line.is_empty() || line.ends_with('}');
    ran.err = ran
        .err
        .lines()
        .filter(|line| !is_progress(line))
        .map(|line| format!("{line}\n"))
        .collect();
    ran.says(&[words])
}

/// Creates a named pipe without a writer: a program that opens it blocks forever.
fn pipe(path: PathBuf) -> Result<PathBuf, Failed> {
    let _ = fs::remove_file(&path);
    run(Command::new("mkfifo").arg(&path)).exits(0)?;
    Ok(path)
}

/// Waits until the program has opened the pipe. The caller must keep the returned file, because closing it unblocks
/// the program.
fn taken(child: &mut Child, pipe: &Path) -> Result<File, Failed> {
    const O_NONBLOCK: i32 = 0o4000;
    let mut end = None;
    wait_until(child, "the pipe", || {
        // Opening a pipe for writing without blocking fails while there is no reader.
        end = File::options()
            .write(true)
            .custom_flags(O_NONBLOCK)
            .open(pipe)
            .ok();
        end.is_some()
    })?;
    end.ok_or_else(|| "no pipe".into())
}

/// Sleeps, so that a program can start its work.
fn let_it_begin() {
    std::thread::sleep(Duration::from_millis(700));
}

fn signal_while_waiting_for_metadata() -> Result<(), Failed> {
    for (name, words) in [("INT", &[][..]), ("TERM", &["--dry-run"])] {
        let folder = scratch("metadata-signal");
        let mut stuck = inputs().clone();
        stuck.metadata = Some(pipe(folder.join("tracks.csv"))?);

        let mut child = start(stuck.extract(&folder.join("store")).args(words));
        let _kept = taken(&mut child, &folder.join("tracks.csv"))?;
        ends_soon(
            child,
            name,
            "interrupted while reading metadata; nothing was written",
        )?;
        same("store", folder.join("store").exists(), false)?;
    }
    Ok(())
}

/// Starts a program and waits until its JSON progress reports `phase`.
pub(crate) fn start_until(command: &mut Command, phase: &str) -> Result<Child, Failed> {
    let mut child = start(
        command
            .args(["--progress", "json"])
            .env("WAVEMILL_PROGRESS_S", "0.05"),
    );

    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(&format!("\"phase\":\"{phase}\"")) {
        line.clear();
        if lines.read_line(&mut line).unwrap_or(0) == 0 {
            return Err(format!("ended before {phase}: {:?}", child.wait()?).into());
        }
    }

    // The buffered data that is dropped here contains progress lines only.
    child.stderr = Some(lines.into_inner());
    Ok(child)
}

fn signal_during_long_cleaning() -> Result<(), Failed> {
    for name in ["INT", "TERM"] {
        let folder = scratch("cleaning-signal");
        let mut endless = inputs().clone();
        endless.recipe = folder.join("endless.toml");
        let text = fs::read_to_string(&inputs().recipe)?;
        fs::write(
            &endless.recipe,
            text.replace("track_genre_top IS NOT NULL", ENDLESS),
        )?;

        let child = start_until(&mut endless.extract(&folder.join("store")), "cleaning")?;
        let_it_begin();
        ends_soon(
            child,
            name,
            "interrupted while cleaning the metadata; nothing was written",
        )?;
        same("store", folder.join("store").exists(), false)?;
    }
    Ok(())
}

fn signal_while_waiting_for_input() -> Result<(), Failed> {
    let folder = scratch("features-signal");
    let clip = pipe(folder.join("song.wav"))?;
    let mut command = wavemill(["features", "--recipe", "demo", "--feature", "mfcc", "--out"]);
    let mut child = start(command.arg(folder.join("song.json")).arg(clip));
    wait_until(&mut child, "the output", || {
        folder.join(".song.json.part").exists()
    })?;

    ends_soon(
        child,
        "TERM",
        "interrupted while features were computed; the output is not complete",
    )?;
    same(
        "what it leaves",
        files_below(&folder),
        vec!["song.wav".to_owned()],
    )
}

fn signal_during_store_commands() -> Result<(), Failed> {
    let store = own_store("store-signal");
    let stuck = pipe(store.join("_wavemill/versions/00000001.json"))?;
    let commands: [(&[&str], &str); 4] = [
        (&["info"], "interrupted; nothing was changed"),
        (
            &["verify"],
            "interrupted while the version was checked; nothing was changed",
        ),
        (&["diff", "1", "1"], "interrupted; nothing was changed"),
        (
            &["gc", "--keep", "1"],
            "interrupted while removing data; run the same command again to continue",
        ),
    ];

    for (words, said) in commands {
        let mut child = start(wavemill(words).arg("--store").arg(&store));
        let _kept = taken(&mut child, &stuck)?;
        ends_soon(child, "INT", said)?;
    }
    Ok(())
}

fn demo_ends_its_child_on_a_signal() -> Result<(), Failed> {
    let folder = scratch("demo-signal");
    let clips = folder.join("demo/data/fma_demo");
    let mut child =
        start(wavemill(["demo", "--quiet", "--tracks", "2000"]).arg(folder.join("demo")));
    wait_until(&mut child, "clips", || !files_below(&clips).is_empty())?;
    ends_soon(
        child,
        "TERM",
        "interrupted; run the same command again to continue",
    )?;

    let left = files_below(&clips).len();
    std::thread::sleep(Duration::from_millis(500));
    same("clips that come later", files_below(&clips).len(), left)
}

fn second_one_ends_an_extraction_at_once() -> Result<(), Failed> {
    let store = scratch("second-signal").join("store");
    let mut child = start(
        inputs()
            .extract(&store)
            .env("FAILPOINTS", "worker-panic=4*off->sleep(600000)"),
    );
    wait_until(&mut child, "a shard's clips", || {
        store.join("data").exists()
    })?;

    let_it_begin();
    signal(&child, "INT")?;
    let_it_begin();
    let start = Instant::now();
    signal(&child, "INT")?;

    let ran = finish(child).exits(130)?;
    same("at once", start.elapsed().as_secs_f64() < END_S_MAX, true)?;

    let lines: Vec<&str> = ran.err.lines().collect();
    let wanted = [
        "stopping after the clips in flight; a second signal stops at once",
        "wavemill: stopped at once by a second signal; run the same command again to continue",
    ];
    same("lines", lines, wanted.to_vec())?;
    same("versions", versions(&store), Vec::new())
}

fn signal_before_training_starts() -> Result<(), Failed> {
    let stuck = pipe(scratch("trainer-signal").join("stuck.toml"))?;
    for (words, name) in [
        (["fit", "--config"], "TERM"),
        (["sweep", "--config"], "INT"),
    ] {
        let mut command = trainer(words);
        command.arg(&stuck).arg("--store").arg(whole());
        if words[0] == "sweep" {
            command.arg(&stuck);
        }

        let mut child = start(&mut command);
        let _kept = taken(&mut child, &stuck)?;
        ends_soon(
            child,
            name,
            "interrupted before the first step; no run was changed",
        )?;
    }
    Ok(())
}

/// Returns a command that trains a small model for two epochs.
fn training(folder: &Path) -> Command {
    let mut command = fit(whole(), folder);
    command.args([
        "--model",
        "lstm",
        "--epochs",
        "2",
        "--set",
        "data.frames=8",
        "--set",
        "data.batch_size=4",
    ]);
    command.env("WAVEMILL_PROGRESS_S", "0.02");
    command
}

fn a_log_of_training_has_lines_and_epochs() -> Result<(), Failed> {
    let ran = run(&mut training(&scratch("training-log"))).exits(0)?;
    let has = |start: &str, part: &str| {
        ran.err
            .lines()
            .any(|line| line.starts_with(start) && line.contains(part))
    };

    same(
        "a line of progress",
        has("wavemill-train: epoch ", " steps, training loss "),
        true,
    )?;
    for epoch in [
        "wavemill-train: epoch 1 of 2 ended: training loss ",
        "wavemill-train: epoch 2 of 2 ended: ",
    ] {
        same(epoch, has(epoch, "; validation loss "), true)?;
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
    let known = |line: &&Value| {
        line["event"] == "progress" && line["steps"].as_u64() > line["step"].as_u64()
    };
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
        same(part, ran.err.contains(part), true)?;
    }
    Ok(())
}

/// Runs on a terminal. While the pipe contains no data, the total amount is unknown.
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

/// Fail point that slows down every clip.
const SLOWLY: &str = "worker-panic=sleep(60)";

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
        same(part, line.contains(part), true)?;
    }
    same("no bar", ran.err.contains('\u{1b}'), false)?;

    // By default, a run of seconds prints no progress line.
    let store = scratch("log").join("store");
    let ran = run(&mut inputs().extract(&store)).exits(0)?;
    same("lines", ran.err.contains("extracting"), false)
}

fn json_progress_is_machine_readable() -> Result<(), Failed> {
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

    let number = |name: &str| {
        last[name]
            .as_f64()
            .ok_or_else(|| Failed::from(format!("no {name} in {last}")))
    };

    let (done, total) = (number("done")?, number("total")?);
    same("done is within total", done > 0.0 && done <= total, true)?;
    let left = (total - done) / number("per_s")?;
    same(
        "time left",
        (number("eta_s")? - left).abs() < 1e-6 * left.max(1.0),
        true,
    )?;
    same("receipts", receipts(&store) > 0, true)
}

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
        same(part, ran.err.contains(part), true)?;
    }

    run(wavemill(["-v", "-q", "recipe", "list"]).env("COLUMNS", "200")).exits(2)?;
    run(inputs().extract(&store).env("WAVEMILL_PROGRESS_S", "never"))
        .exits(2)?
        .says(&["WAVEMILL_PROGRESS_S=never"])
}
