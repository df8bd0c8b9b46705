//! SIGINT and SIGTERM end the program quickly in every phase, with exit code 130 and one line.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use wavemill_tests::Failed;

use crate::support::{
    files_below, finish, has_trainer, inputs, own_store, run, same, scratch, start, trainer,
    versions, wait_until, wavemill, whole, within,
};

/// The documentation states one second. The margin allows for a busy machine.
const END_S_MAX: f64 = 5.0;

/// A predicate on a few rows whose evaluation takes hours.
const ENDLESS: &str = "(SELECT sum((a.csv_line + b.csv_line + c.csv_line) % 7) FROM input a, input b, input c, input d, input e) > 0";

fn signal(child: &Child, name: &str) -> Result<(), Failed> {
    run(Command::new("kill")
        .arg(format!("-{name}"))
        .arg(child.id().to_string()))
    .exits(0)?;
    Ok(())
}

/// Sends the signal. The program must end within [`END_S_MAX`], with exit code 130 and one line that contains
/// `message`.
pub(crate) fn ends_soon(child: Child, name: &str, message: &str) -> Result<(), Failed> {
    fn is_progress(line: &&str) -> bool {
        line.is_empty() || line.ends_with('}')
    }

    let start = Instant::now();
    signal(&child, name)?;
    let mut ran = finish(child).exits(130)?;
    let took = start.elapsed().as_secs_f64();
    same("ends soon", (took < END_S_MAX, took), (true, took))?;

    // Removes progress lines. The first of them may have been read in part.
    ran.err = ran
        .err
        .lines()
        .filter(|line| !is_progress(line))
        .map(|line| format!("{line}\n"))
        .collect();
    ran.says(&[message])
}

/// Creates a named pipe without a writer: a program that opens it blocks forever.
pub(crate) fn pipe(path: PathBuf) -> Result<PathBuf, Failed> {
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

/// Sleeps to give a started program time to begin its work.
fn let_it_begin() {
    std::thread::sleep(Duration::from_millis(700));
}

#[apply(trial)]
fn signal_while_waiting_for_metadata() -> Result<(), Failed> {
    for (name, arguments) in [("INT", &[][..]), ("TERM", &["--dry-run"])] {
        let folder = scratch("metadata-signal");
        let mut stuck = inputs().clone();
        stuck.metadata = Some(pipe(folder.join("tracks.csv"))?);

        let mut child = start(stuck.extract(&folder.join("store")).args(arguments));
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

#[apply(trial)]
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

#[apply(trial)]
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

#[apply(trial)]
fn signal_during_store_commands() -> Result<(), Failed> {
    let store = own_store("store-signal");
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

    for (arguments, said) in commands {
        let mut command = wavemill(arguments);
        command.env("FAILPOINTS", "manifest-read=sleep(600000)");
        let child = start(command.arg("--store").arg(&store));
        let_it_begin();
        ends_soon(child, "INT", said)?;
    }
    Ok(())
}

#[apply(trial)]
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

#[apply(trial)]
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
    within("at once", start.elapsed().as_secs_f64(), ..END_S_MAX)?;

    let lines: Vec<&str> = ran.err.lines().collect();
    let wanted = [
        "stopping after the clips in flight; a second signal stops at once",
        "wavemill: stopped at once by a second signal; run the same command again to continue",
    ];
    same("lines", lines, wanted.to_vec())?;
    same("versions", versions(&store), Vec::new())
}

#[apply(trial)]
#[needs(has_trainer)]
fn signal_before_training_starts() -> Result<(), Failed> {
    let stuck = pipe(scratch("trainer-signal").join("stuck.toml"))?;
    for (arguments, name) in [
        (["fit", "--config"], "TERM"),
        (["sweep", "--config"], "INT"),
    ] {
        let mut command = trainer(arguments);
        command.arg(&stuck).arg("--store").arg(whole());
        if arguments[0] == "sweep" {
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
