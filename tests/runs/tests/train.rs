//! End-to-end training runs that are killed, stopped, resumed, or given damaged files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use wavemill_schemas::manifest::Manifest;
use wavemill_tests::Failed;

use crate::faults::Mount;
use crate::ranks::Tensors;
use crate::support::{
    Inputs, RECIPE, Ran, argv, checkpoints, contains, copy_folder, files_below, finish, fit,
    has_trainer, inputs, kill, lacks, last_step, manifest, own_store, program, run, run_in, same,
    scratch, sql, start, starts_with, trainer, wait_until, wavemill, whole, within,
};
use crate::table::Table;

/// Settings for training with dropout, batch norm, augmentation and mix-up, with 11 steps per epoch and a checkpoint
/// after each step.
const SETS: &str = "--set model.name=genregenie-cnn --set data.batch_size=4 --set data.frames=24 \
     --set loss.mixup=0.4 --set augment.enabled=true --set train.epochs=8 --set train.early_stop=0 \
     --set train.checkpoint_steps=1";
/// Number of optimizer steps in a complete training run.
const STEPS: u64 = 88;
/// Flags for a run of more epochs than any test waits for.
const ENDLESS: [&str; 2] = ["--epochs", "100000"];

/// Returns a `fit` command with the settings [`SETS`].
fn small(runs: &Path) -> Command {
    let mut command = fit(whole(), runs);
    command.args(argv(SETS));
    command
}

fn resume(run: &Path) -> Command {
    let mut command = trainer(["fit", "--device", "cpu", "--threads", "1", "--resume"]);
    command.arg(run);
    command
}

/// Returns the bytes of a run's last checkpoint and of its scores.
fn left_by(run: &Path) -> Result<[Vec<u8>; 3], Failed> {
    fn read(path: PathBuf) -> Result<Vec<u8>, Failed> {
        fs::read(&path).map_err(|e| Failed::from(format!("{}: {e}", path.display())))
    }

    let last = checkpoints(run).pop().ok_or("no checkpoint")?;
    Ok([
        read(last.join("tensors.safetensors"))?,
        read(last.join("state.json"))?,
        read(run.join("result.json"))?,
    ])
}

/// Fails unless two runs ended with the same bits.
fn same_end(what: &str, run: &Path, wanted: &Path) -> Result<(), Failed> {
    let [got, wanted] = [left_by(run)?, left_by(wanted)?];
    same(
        what,
        std::array::from_fn::<bool, 3, _>(|i| got[i] == wanted[i]),
        [true; 3],
    )
}

/// Fails unless every folder with the name of a checkpoint contains a complete one.
fn all_are_whole(run: &Path) -> Result<(), Failed> {
    for path in checkpoints(run) {
        Tensors::read(&path)?;
        serde_json::from_slice::<Value>(&fs::read(path.join("state.json"))?)?;
    }
    Ok(())
}

#[apply(trial)]
#[needs(has_trainer)]
fn killed_five_times_equals_whole() -> Result<(), Failed> {
    let [runs, undisturbed] = ["killed", "undisturbed"].map(scratch);
    run(&mut small(&undisturbed)).exits(0)?;
    let wanted = run_in(&undisturbed)?;
    same("steps", last_step(&undisturbed), STEPS)?;

    let mut next = small(&runs);
    for time in 1..=5 {
        let mut child = start(&mut next);
        wait_until(&mut child, "its steps", || {
            last_step(&runs) >= time * STEPS / 7
        })?;

        match time {
            // Kills the run while it writes or removes a checkpoint.
            2 | 4 => wait_until(&mut child, "a part", || {
                run_in(&runs).is_ok_and(|run| !parts_of(&run).is_empty())
            })?,
            _ => std::thread::sleep(Duration::from_millis(3 * time)),
        }

        kill(child)?;
        all_are_whole(&run_in(&runs)?)?;
        same(
            "a result",
            run_in(&runs)?.join("result.json").exists(),
            false,
        )?;

        next = resume(&run_in(&runs)?);
    }

    run(&mut next).exits(0)?;
    same_end("killed five times", &run_in(&runs)?, &wanted)?;
    same("parts", parts_of(&run_in(&runs)?), Vec::new())?;

    // Resuming a completed run changes nothing.
    run(&mut resume(&run_in(&runs)?)).exits(0)?;
    same_end("resumed at its end", &run_in(&runs)?, &wanted)
}

/// The example `own_model` has all commands, and an architecture that `wavemill-train` does not know.
#[apply(trial)]
#[needs(has_trainer)]
fn own_architectures_train_resume_and_evaluate() -> Result<(), Failed> {
    fn own(arguments: &[&str]) -> Command {
        let mut command = Command::new(program("examples/own_model"));
        command.args(arguments);
        command
    }
    fn fit_own(runs: &Path) -> Command {
        let mut command = own(&argv(
            "fit --device cpu --threads 1 --model small --set data.frames=64 --set data.batch_size=8 --epochs 3 \
             --set train.early_stop=0 --set train.checkpoint_steps=1 --profile 4",
        ));
        command.arg("--store").arg(whole()).arg("--runs").arg(runs);
        command
    }

    let [runs, undisturbed] = ["own-killed", "own"].map(scratch);
    let ran = run(&mut fit_own(&undisturbed)).exits(0)?;
    for part in [
        "waiting for data",
        "forward",
        "backward",
        "sum of 4 steps",
        "checkpoint: ",
    ] {
        contains(&ran.err, part)?;
    }
    let wanted = run_in(&undisturbed)?;
    contains(
        &fs::read_to_string(wanted.join("log.jsonl"))?,
        "\"kind\":\"profile\"",
    )?;

    let mut child = start(&mut fit_own(&runs));
    wait_until(&mut child, "its steps", || last_step(&runs) >= 5)?;
    kill(child)?;
    let killed = run_in(&runs)?;
    let path = killed.to_string_lossy();
    run(&mut own(&[
        "fit",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--resume",
        &path,
    ]))
    .exits(0)?;
    same_end("killed once", &killed, &wanted)?;

    run(&mut own(&["eval", "--device", "cpu", &path])).exits(0)?;
    let ran = run(&mut trainer(["eval", "--device", "cpu", &path])).exits(2)?;
    contains(
        &ran.err,
        "model.name = small: unknown; available models: cnn2d, cnn1d-gru",
    )
}

/// Lists the files of checkpoints that are being written or removed.
fn parts_of(run: &Path) -> Vec<String> {
    let names = files_below(&run.join("checkpoints"));
    names
        .into_iter()
        .filter(|name| name.starts_with('.'))
        .collect()
}

#[apply(trial)]
#[needs(has_trainer)]
fn sigterm_ends_in_order() -> Result<(), Failed> {
    signal_ends_in_order("TERM", 1)
}

#[apply(trial)]
#[needs(has_trainer)]
fn sigint_to_three_ranks_ends_in_order() -> Result<(), Failed> {
    signal_ends_in_order("INT", 3)
}

fn signal_ends_in_order(name: &str, nproc: usize) -> Result<(), Failed> {
    let [runs, undisturbed] = ["stopped", "undisturbed"].map(scratch);
    let nproc = ["--nproc".to_owned(), nproc.to_string()];
    run(small(&undisturbed).args(&nproc)).exits(0)?;

    let mut child = start(small(&runs).args(&nproc));
    wait_until(&mut child, "some steps", || last_step(&runs) >= 20)?;
    signal(&child, name)?;
    let ran = finish(child).exits(130)?;

    let stopped = run_in(&runs)?;
    let said = format!(
        "stopped at step {}; resume with: wavemill train fit --resume",
        last_step(&runs)
    );
    ran.says(&[&said, stopped.to_str().unwrap()])?;

    run(resume(&stopped).args(&nproc)).exits(0)?;
    same_end("stopped and resumed", &stopped, &run_in(&undisturbed)?)
}

fn signal(child: &Child, name: &str) -> Result<(), Failed> {
    run(Command::new("kill")
        .arg(format!("-{name}"))
        .arg(child.id().to_string()))
    .exits(0)
    .map(drop)
}

/// oneDNN's recurrent kernels fail if a signal handler runs on their stack. One signal hit them in two of three
/// runs.
#[apply(trial)]
#[needs(has_trainer)]
fn sigterm_to_a_recurrent_model_ends_in_order() -> Result<(), Failed> {
    const TIMES: u64 = 5;

    let [runs, undisturbed] = ["recurrent", "undisturbed"].map(scratch);
    let lstm = ["--set", "model.name=lstm"];
    run(small(&undisturbed).args(lstm)).exits(0)?;

    let mut next = small(&runs);
    next.args(lstm);
    for time in 1..=TIMES {
        let mut child = start(&mut next);
        wait_until(&mut child, "some steps", || {
            last_step(&runs) >= time * STEPS / (2 * TIMES)
        })?;

        signal(&child, "TERM")?;
        finish(child)
            .exits(130)?
            .says(&["stopped at step", "fit --resume"])?;
        all_are_whole(&run_in(&runs)?)?;
        next = resume(&run_in(&runs)?);
    }

    run(&mut next).exits(0)?;
    same_end(
        "stopped five times",
        &run_in(&runs)?,
        &run_in(&undisturbed)?,
    )
}

/// The program is paused, so that both signals arrive within one step.
#[apply(trial)]
#[needs(has_trainer)]
fn second_signal_is_acknowledged() -> Result<(), Failed> {
    let runs = scratch("twice");
    let mut child = start(small(&runs).args(ENDLESS));
    wait_until(&mut child, "some steps", || last_step(&runs) >= 2)?;
    ["STOP", "TERM", "INT", "CONT"]
        .into_iter()
        .try_for_each(|name| signal(&child, name))?;
    finish(child)
        .exits(130)?
        .says(&["stopped at once by a second signal"])?;
    all_are_whole(&run_in(&runs)?)
}

/// A service manager sends its signal to all processes, and the program that started this one passes its own on.
#[apply(trial)]
#[needs(has_trainer)]
fn signal_that_arrives_twice_is_one() -> Result<(), Failed> {
    let runs = scratch("twice-one");
    let mut command = small(&runs);
    command.env("WAVEMILL_PARENT", std::process::id().to_string());
    let mut child = start(command.args(ENDLESS));
    wait_until(&mut child, "some steps", || last_step(&runs) >= 2)?;
    ["STOP", "TERM", "INT", "CONT"]
        .into_iter()
        .try_for_each(|name| signal(&child, name))?;
    finish(child).exits(130)?.says(&["stopped at step"])?;
    all_are_whole(&run_in(&runs)?)
}

#[apply(trial)]
#[needs(has_trainer)]
fn extended_run_counts_test_evaluations() -> Result<(), Failed> {
    fn epochs(of: &Path) -> Result<bool, Failed> {
        Ok(fs::read_to_string(of.join("config.toml"))?.contains("epochs = 3\n"))
    }

    let runs = scratch("longer");
    run(small(&runs).args(["--set", "train.epochs=2"])).exits(0)?;
    let of = run_in(&runs)?;
    same(
        "asked",
        (result(&runs)?["test_asked"].as_u64(), epochs(&of)?),
        (Some(1), false),
    )?;

    let ran = run(resume(&of).args(["--epochs", "3", "--print-config"])).exits(0)?;
    contains(&ran.out, "epochs = 3\n")?;
    contains(&ran.out, &format!("name = {}\n", result(&runs)?["model"]))?;

    let ran = run(resume(&of).args(["--epochs", "3"])).exits(0)?;
    contains(&ran.out, "note: the test split was asked 2 times")?;
    same(
        "asked again",
        (result(&runs)?["test_asked"].as_u64(), epochs(&of)?),
        (Some(2), true),
    )?;

    // Resuming the completed run does not evaluate the test split again.
    let before = left_by(&of)?;
    for other in [&[][..], &["--skip-damaged"]] {
        run(resume(&of).args(other)).exits(0)?;
        same("as it was", left_by(&of)? == before, true)?;
    }
    run(resume(&of).args(["--epochs", "1"]))
        .exits(2)?
        .says(&["--epochs 1", "already"])?;

    let log = fs::read_to_string(of.join("log.jsonl"))?;
    let waits = log.lines().filter_map(|line| {
        serde_json::from_str::<Value>(line).ok()?["values"]["data_wait_s"].as_f64()
    });
    same(
        "epochs with a wait of their own",
        waits.filter(|wait| *wait < 60.0).count(),
        3,
    )
}

/// A user may remove a damaged checkpoint, as the error advises, also that of the best epoch.
#[apply(trial)]
#[needs(has_trainer)]
fn run_without_its_best_checkpoint_ends() -> Result<(), Failed> {
    let runs = scratch("best-is-gone");
    // Weights that do not change have equal scores, of which the first is the best. The model has no batch norm, whose
    // running statistics would change.
    let still = argv(
        "--set model.name=lstm --set optimizer.lr=1e-30 --set train.epochs=3 --set train.select=macro_f1",
    );
    run(small(&runs).args(still)).exits(0)?;
    let of = run_in(&runs)?;
    same("best", result(&runs)?["best_epoch"].as_u64(), Some(0))?;

    let first = checkpoints(&of).swap_remove(0);
    fs::remove_dir_all(first)?;
    fs::remove_file(of.join("result.json"))?;
    let ran = run(&mut resume(&of)).exits(0)?;
    contains(&ran.out, "the checkpoint of the best epoch, 1, is gone")?;
    lacks(&ran.out, "undefined after every epoch")?;
    run(trainer(argv("eval --device cpu --threads 1")).arg(&of)).exits(0)?;

    // The next epoch becomes the best one.
    run(resume(&of).args(["--epochs", "4"])).exits(0)?;
    same("best", result(&runs)?["best_epoch"].as_u64(), Some(3))
}

#[apply(trial)]
#[needs(has_trainer)]
fn predict_skips_unreadable_clips() -> Result<(), Failed> {
    fn predict(of: &Path, clips: &[&Path]) -> Ran {
        run(wavemill(["predict", "--run"]).arg(of).args(clips))
    }

    let runs = scratch("predict");
    run(small(&runs).args(["--set", "train.steps=2"])).exits(0)?;
    let of = run_in(&runs)?;

    let rows = sql(
        whole(),
        "SELECT clip_key FROM features_log_mel ORDER BY 1 LIMIT 2",
    )?;
    let clips: Vec<PathBuf> = rows
        .iter()
        .map(|row| inputs().clip(row["clip_key"].as_str().unwrap()))
        .collect();

    let missing = Path::new("nosuch.mp3");
    let ran = predict(&of, &[&clips[0], missing, &clips[1]]).exits(1)?;
    same("answers", ran.out.lines().count(), 2)?;

    let lines: Vec<&str> = ran.err.lines().collect();
    same("lines", lines.len(), 2)?;
    starts_with(lines[0], "nosuch.mp3: cannot read it")?;
    same("the count", lines[1], "wavemill: no rows for 1 of 3 clips")?;
    same(
        "all are there",
        predict(&of, &[&clips[0]]).exits(0)?.err,
        String::new(),
    )?;

    // No clip is there, so the message is that of `features` alone.
    let message =
        "nosuch.mp3: there is no such file; give audio files, or folders that contain some\n";
    same(
        "a missing clip",
        predict(&of, &[missing]).exits(2)?.err,
        format!("wavemill: {message}"),
    )?;

    // An error of the trainer is printed once, and its exit code is returned.
    let last = checkpoints(&of)
        .pop()
        .ok_or("no checkpoint")?
        .join("state.json");
    fs::remove_file(last)?;
    predict(&of, &[&clips[0]])
        .exits(3)?
        .says(&["state.json", "missing"])?;

    let arguments = ["predict", "--run", "nosuch", "-"];
    [wavemill(arguments), trainer(arguments)]
        .iter_mut()
        .try_for_each(|c| run(c).exits(2)?.says(&["nosuch", "not a run"]))
}

/// Returns `command` with a limit on the size of files. Exceeding the limit is an error, as on a full disk.
fn within_blocks(blocks: u32, command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.args([
        "-c",
        &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\""),
    ]);
    limited.arg(command.get_program()).args(command.get_args());
    limited
}

/// Returns a run that was killed after some steps.
fn begun(name: &str, steps: u64) -> Result<PathBuf, Failed> {
    let runs = scratch(name);
    let mut child = start(small(&runs).args(ENDLESS));
    wait_until(&mut child, "some steps", || last_step(&runs) >= steps)?;
    kill(child)?;
    run_in(&runs)
}

/// Resumes a run until the end of its current epoch.
fn goes_on(run_folder: &Path) -> Result<(), Failed> {
    let last = checkpoints(run_folder).pop().ok_or("no checkpoint")?;
    let state: Value = serde_json::from_slice(&fs::read(last.join("state.json"))?)?;
    let epochs = (state["epoch"].as_u64().ok_or("no epoch")? + 1).to_string();
    run(resume(run_folder).args(["--epochs", &epochs])).exits(0)?;
    same("a result", run_folder.join("result.json").exists(), true)
}

#[apply(trial)]
#[needs(has_trainer)]
fn full_disk_during_a_checkpoint() -> Result<(), Failed> {
    let begun = begun("no-room", 3)?;
    let before = checkpoints(&begun);
    let parts = parts_of(&begun);

    // A block has 512 bytes or, in some shells, 1024. A checkpoint is larger than 200 KB.
    run(&mut within_blocks(150, &resume(&begun)))
        .exits(5)?
        .says(&[begun.to_str().unwrap(), "File too large"])?;

    same("checkpoints", checkpoints(&begun), before)?;
    all_are_whole(&begun)?;
    same(
        "new parts",
        parts_of(&begun)
            .into_iter()
            .find(|name| !parts.contains(name)),
        None,
    )?;
    goes_on(&begun)
}

/// Another process fills the disk while a model trains.
#[apply(trial)]
#[needs(has_trainer, Mount::is_possible)]
fn disk_fills_up() -> Result<(), Failed> {
    let mount = Mount::new("size=64m")?;
    let runs = mount.0.join("runs");
    let mut child = start(small(&runs).args(ENDLESS));
    wait_until(&mut child, "some steps", || last_step(&runs) >= 3)?;

    let filler = mount.fill();
    finish(child)
        .exits(5)?
        .says(&[runs.to_str().unwrap(), "No space left"])?;

    fs::remove_file(filler)?;
    all_are_whole(&run_in(&runs)?)?;
    goes_on(&run_in(&runs)?)
}

/// Returns the path and the number of rows of the first training shard.
fn training_shard(store: &Path, manifest: &Manifest) -> Result<(PathBuf, u64), Failed> {
    let mut files = manifest
        .files_of("log_mel")
        .filter(|file| file.split.as_deref() == Some("training"));
    let file = files.next().ok_or("no shard")?;
    Ok((store.join(&file.path), file.rows))
}

fn result(runs: &Path) -> Result<Value, Failed> {
    Ok(serde_json::from_slice(&fs::read(
        run_in(runs)?.join("result.json"),
    )?)?)
}

#[apply(trial)]
#[needs(has_trainer)]
fn damaged_shards_are_named_or_skipped() -> Result<(), Failed> {
    let store = own_store("damaged");
    let (path, rows) = training_shard(&store, &manifest(&store, 1)?)?;
    let bytes = fs::read(&path)?;

    let mut flipped = bytes.clone();
    let middle = bytes.len() / 2;
    // The damaged range is longer than a row, so it includes a page header.
    flipped[bytes.len() / 4..middle]
        .iter_mut()
        .for_each(|byte| *byte ^= 0x55);

    let name = path.to_str().unwrap();
    for (damaged, whole_file) in [(&flipped[..], false), (&bytes[..middle], true)] {
        fs::write(&path, damaged)?;
        let runs = scratch("runs");
        let arguments = ["--epochs", "2"];
        let ran = run(fit(&store, &runs)
            .args(argv(SETS_OF_DAMAGE))
            .args(arguments))
        .exits(3)?;
        ran.says(&[name])?;

        let ran = run(fit(&store, &runs)
            .args(argv(SETS_OF_DAMAGE))
            .args(arguments)
            .arg("--verify"))
        .exits(3)?;
        contains(&ran.err, name)?;

        let runs = scratch("passed-over");
        run(fit(&store, &runs)
            .args(argv(SETS_OF_DAMAGE))
            .args(arguments)
            .arg("--skip-damaged"))
        .exits(0)?;

        let counted = result(&runs)?["damaged_rows"].as_u64().ok_or("no count")?;
        // Rows that were found damaged in both epochs are counted once.
        same(
            "rows",
            if whole_file {
                counted == rows
            } else {
                (1..=rows).contains(&counted)
            },
            true,
        )?;
    }
    Ok(())
}

const SETS_OF_DAMAGE: &str = "--model lstm --set data.frames=8 --batch-size 8";

#[apply(trial)]
#[needs(has_trainer)]
fn damaged_checkpoints_are_named() -> Result<(), Failed> {
    fn flipped(whole: &[u8], at: usize) -> Vec<u8> {
        whole
            .iter()
            .enumerate()
            .map(|(i, byte)| byte ^ u8::from(i == at))
            .collect::<Vec<u8>>()
    }

    let begun = begun("damaged-checkpoint", 3)?;
    let last = checkpoints(&begun).pop().ok_or("no checkpoint")?;
    let [tensors, state] = ["tensors.safetensors", "state.json"].map(|name| last.join(name));
    let whole = fs::read(&tensors)?;

    // Damages the name of a tensor in the header, and a weight.
    let tensors_are = [
        flipped(&whole, 20),
        flipped(&whole, whole.len() / 2),
        b"\x09\0\0\0\0\0\0\0{\"a\": 1}".to_vec(),
    ];
    let damaged = tensors_are
        .into_iter()
        .map(|bytes| (&tensors, bytes))
        .chain([(&state, b"{\"form".to_vec())]);

    for (path, bytes) in damaged {
        let before = fs::read(path)?;
        fs::write(path, bytes)?;
        run(&mut resume(&begun)).exits(3)?.says(&[
            path.to_str().unwrap(),
            "damaged",
            "remove its folder",
        ])?;
        fs::write(path, before)?;
    }

    let away = begun.join("away.json");
    fs::rename(&state, &away)?;
    run(&mut resume(&begun))
        .exits(3)?
        .says(&[state.to_str().unwrap(), "missing"])?;
    run(trainer(["eval", "--device", "cpu"]).arg(&begun))
        .exits(3)?
        .says(&[state.to_str().unwrap()])?;
    fs::rename(&away, &state)?;

    // Follows the advice of the error message to remove the folder of the damaged checkpoint.
    fs::write(&tensors, flipped(&whole, 20))?;
    fs::remove_dir_all(&last)?;
    goes_on(&begun)
}

#[apply(trial)]
#[needs(has_trainer)]
fn another_store_is_rejected() -> Result<(), Failed> {
    let begun = begun("another-store", 1)?;
    let other = scratch("other").join("store");
    run(inputs().extract(&other).args(["--limit", "40"])).exits(0)?;

    let ran = run(resume(&begun).arg("--store").arg(&other)).exits(4)?;
    ran.says(&[
        begun.to_str().unwrap(),
        "another manifest",
        "the store that it was trained on",
    ])?;
    goes_on(&begun)
}

/// A store of four versions, and a run on the first. Tests must not change them.
struct Grown {
    store: PathBuf,
    run: PathBuf,
}

/// Creates the store and the run. The second version adds a class that sorts before the others and has training
/// tracks only. The test split of the third version adds a track that was a training track, a copy of a training
/// track's recording, a track by an artist of a training track, and a track of the new class. The fourth version
/// has another feature.
fn grown() -> &'static Grown {
    static GROWN: OnceLock<Grown> = OnceLock::new();
    GROWN.get_or_init(|| {
        let mut table = Table::new("grown-store", 24);
        for track in 12..24 {
            table.row(track).side = if track < 18 { "validation" } else { "test" };
        }
        // One training and one test track have no artist, which does not count as an artist in common.
        for track in [2, 23] {
            table.row(track).artist = None;
        }
        extract_by_column(&table, &[]);

        for track in 30..33 {
            table.add(track).genre = "Blues";
        }
        // The classes that the trained model knows get other ids.
        extract_by_column(&table, &["--new-version", "--renumber"]);

        table.row(0).side = "test";
        for (track, artist, voice) in [(24, None, 3), (25, Some(1), 25)] {
            let row = table.add(track);
            row.artist = artist;
            row.voice = voice;
            row.side = "test";
        }

        let row = table.add(33);
        row.genre = "Blues";
        row.side = "test";
        extract_by_column(&table, &["--new-version"]);
        let mels = ["--new-version", "--set", "features.log_mel.n_mels=20"];
        extract_by_column(&table, &mels);

        let runs = scratch("grown-runs");
        let ran = run(&mut fit_on(&table.store(), "1", &runs));
        assert_eq!(ran.code, Some(0), "fit: {}", ran.err);
        Grown {
            store: table.store(),
            run: run_in(&runs).unwrap(),
        }
    })
}

/// Extracts with the splits that the metadata contain.
fn extract_by_column(table: &Table, arguments: &[&str]) {
    let by_column = ["--set", "split.rule=column", "--set", "split.column=side"];
    let mut command = table.extract(&by_column).unwrap();
    let ran = run(command.args(arguments));
    assert_eq!(ran.code, Some(0), "extract: {}", ran.err);
}

/// Returns a command that trains a small model on one version.
fn fit_on(store: &Path, version: &str, runs: &Path) -> Command {
    let mut command = fit(store, runs);
    command.args(["--version", version, "--model", "lstm", "--epochs", "2"]);
    command.args(["--batch-size", "4", "--set", "loss.class_weights=none"]);
    command
}

/// Copies the run of [`grown`] to a folder in which a test may change it.
fn own_run(name: &str) -> PathBuf {
    let copy = scratch(name).join("run-1");
    copy_folder(&grown().run, &copy);
    copy
}

fn eval_on(run_folder: &Path, version: &str, arguments: &[&str]) -> Result<Ran, Failed> {
    let mut command = trainer(["eval", "--device", "cpu", "--threads", "1", "--json"]);
    command.arg(run_folder).args(["--version", version]);
    run(command.args(arguments)).exits(0)
}

/// Returns the scores of the only target.
fn scores_of(ran: &Ran) -> Result<Value, Failed> {
    let mut all: Vec<Value> = serde_json::from_str(&ran.out)?;
    Ok(all.pop().ok_or("no target")?)
}

fn first_line(ran: &Ran) -> &str {
    ran.err.lines().next().unwrap_or_default()
}

/// Part of the warning about clips in the third version's test split that the model already knows.
const KNOWN: &str = "of 10 test clips, 1 are clips, 2 are recordings and 2 are by artists that";

#[apply(trial)]
#[needs(has_trainer)]
fn eval_on_a_later_version_warns_of_known_tracks() -> Result<(), Failed> {
    fn list(run: &Path) -> std::io::Result<Vec<u8>> {
        fs::read(run.join("training.parquet"))
    }

    let Grown { store, run: of } = grown();
    let rows = scratch("known").join("rows.parquet");
    let files = ["--predictions", rows.to_str().unwrap()];
    let ran = eval_on(of, "3", &files)?;
    same(
        "first line",
        first_line(&ran),
        format!("warning: {KNOWN} this run trained on").as_str(),
    )?;
    let second = "warning: 1 of 10 test rows have a genre that the model does not know (Blues): \
                  they count as unlabelled";
    same("second line", ran.err.lines().nth(1), Some(second))?;

    let scores = scores_of(&ran)?;
    let leaks = &scores["leaks"];
    same(
        "compared with",
        &leaks["compared_with"],
        &Value::from("run"),
    )?;

    let counts =
        ["track", "recording", "artist"].map(|kind| leaks["shared"][kind]["tracks"].as_u64());
    same("counts", counts, [Some(1), Some(2), Some(2)])?;
    same(
        "tracks",
        [&leaks["tracks"], &leaks["training_tracks"]].map(Value::as_u64),
        [Some(10), Some(12)],
    )?;

    let report = &scores["segments"]["report"];
    same("unlabelled", report["unlabelled"].as_u64(), Some(1))?;
    let written = String::from_utf8_lossy(&fs::read(&rows)?).into_owned();
    contains(&written, r#""compared_with":"run""#)?;

    // An evaluation on the run's own version prints and writes nothing additional.
    let own = eval_on(of, "1", &files)?;
    let silent = !own.err.contains("trained on") && !own.out.contains("compared_with");
    same(&own.err, silent, true)?;
    let written = String::from_utf8_lossy(&fs::read(&rows)?).into_owned();
    lacks(&written, "compared_with")?;

    // Ranks write a single list and print the warning once.
    let runs = scratch("grown-ranks");
    run(fit_on(store, "1", &runs).args(["--nproc", "2"])).exits(0)?;
    let of_ranks = run_in(&runs)?;
    same("the list of two ranks", list(&of_ranks)? == list(of)?, true)?;
    let ran = eval_on(&of_ranks, "3", &["--nproc", "2"])?;
    same(&ran.err, ran.err.matches(KNOWN).count(), 1)?;

    // A model cannot be evaluated on a version with another feature.
    let mut command = trainer(["eval", "--device", "cpu", "--version", "4"]);
    run(command.arg(of)).exits(4)?.says(&[
        "was trained on feature log_mel with feature_id",
        "version 4 of the store has",
    ])
}

#[apply(trial)]
#[needs(has_trainer)]
fn classes_are_matched_by_name() -> Result<(), Failed> {
    fn classes(store: &Path, version: u64) -> Result<Vec<String>, Failed> {
        Ok(manifest(store, version)?.targets[0].classes.clone())
    }

    let Grown { store, run: of } = grown();
    same(
        "before",
        classes(store, 1)?,
        ["Folk", "Jazz", "Rock"].map(str::to_owned).to_vec(),
    )?;
    same("in front", classes(store, 2)?[0].as_str(), "Blues")?;

    let then = eval_on(of, "1", &[])?;
    let now = eval_on(of, "2", &[])?;
    let [mut then, mut now] = [scores_of(&then)?, scores_of(&now)?];
    same(
        "compared with",
        now["leaks"]["compared_with"].as_str(),
        Some("run"),
    )?;

    // All other scores are equal: the test rows and their classes are the same.
    for scores in [&mut then, &mut now] {
        scores["leaks"].take();
    }
    same("scores", now, then)?;

    let said = eval_on(of, "2", &["--side", "training"])?.err;
    contains(
        &said,
        "3 of 15 training rows have a genre that the model does not know (Blues)",
    )
}

#[apply(trial)]
#[needs(has_trainer)]
fn run_without_training_list_cannot_be_compared() -> Result<(), Failed> {
    fn unknown(of: &Path, words: &[&str]) -> Result<(), Failed> {
        let ran = eval_on(of, "3", &[])?;
        let line = first_line(&ran);
        let told = words.iter().all(|word| line.contains(word));
        same(line, told && line.contains("cannot be compared"), true)?;
        same(&ran.err, ran.err.matches("compared").count(), 1)?;

        let scores = scores_of(&ran)?;
        same(
            "compared with",
            scores["leaks"]["compared_with"].as_str(),
            Some("nothing"),
        )?;

        let own = eval_on(of, "1", &[])?;
        lacks(&own.err, "compared")
    }

    let of = own_run("without-a-list");
    let list = of.join("training.parquet");
    let whole = fs::read(&list)?;
    fs::remove_file(&list)?;
    unknown(&of, &["warning: this run keeps no list of the tracks"])?;
    let path = list.to_str().unwrap();
    for end in [0, 10, whole.len() / 2, whole.len() - 1] {
        fs::write(&list, &whole[..end])?;
        unknown(&of, &[path, "damaged", "restore it from a copy"])?;
    }

    let mut flipped = whole;
    flipped[60] ^= 1;
    fs::write(&list, flipped)?;
    unknown(&of, &[path, "damaged", "restore it from a copy"])
}

#[apply(trial)]
#[needs(has_trainer)]
fn init_from_another_run_is_compared() -> Result<(), Failed> {
    fn begun(weights: &Path, version: &str) -> Result<(PathBuf, String), Failed> {
        let runs = scratch("init-runs");
        let mut command = fit_on(&grown().store, version, &runs);
        let ran = run(command.arg("--init").arg(weights)).exits(0)?;
        Ok((run_in(&runs)?, ran.err))
    }

    let of = own_run("init");
    let weights = of.join("lstm.safetensors");
    let arguments = [
        "--format",
        "safetensors",
        "--out",
        weights.to_str().unwrap(),
    ];
    run(trainer(["export"]).arg(&of).args(arguments)).exits(0)?;

    let (started, said) = begun(&weights, "3")?;
    let warning = format!("{KNOWN} run run-1 (model.init) trained on");
    same(
        &said,
        said.matches(&format!("warning: {warning}\n")).count(),
        1,
    )?;

    let result: Value = serde_json::from_slice(&fs::read(started.join("result.json"))?)?;
    let warnings = result["warnings"].as_array().ok_or("no warnings")?;
    same(
        &warning,
        warnings.contains(&Value::from(warning.as_str())),
        true,
    )?;

    let log = fs::read_to_string(started.join("log.jsonl"))?;
    contains(&log, &warning)?;

    // The initial weights come from a run on twelve tracks, which a warning counts even if this run trains on fewer.
    let ran = eval_on(&started, "1", &["--side", "training"])?;
    starts_with(
        first_line(&ran),
        "warning: of 12 training clips, 12 are clips, ",
    )?;

    let (_, said) = begun(&weights, "1")?;
    lacks(&said, "model.init")?;

    // The run still warns after the other one has gone.
    fs::remove_dir_all(&of)?;
    let ran = run(resume(&started).args(["--epochs", "3"])).exits(0)?;
    contains(&ran.out, &warning)
}

/// Fails unless the run was refused before its folder was created.
fn refused(ran: Ran, runs: &Path, said: &[&str]) -> Result<(), Failed> {
    ran.exits(2)?.says(said)?;
    same("a run", runs.exists(), false)
}

#[apply(trial)]
#[needs(has_trainer)]
fn startup_errors_leave_no_run() -> Result<(), Failed> {
    fn of(runs: &Path, arguments: &[&str]) -> Ran {
        run(fit(whole(), runs).args(arguments))
    }

    let folder = scratch("wrong");
    let (runs, store, recipe) = (
        folder.join("runs"),
        folder.join("store"),
        folder.join("two.toml"),
    );

    let labelled = "track_genre_top IS NOT NULL";
    let two_sides = RECIPE.replace(
        labelled,
        &format!("{labelled} AND set_split <> 'validation'"),
    );
    fs::write(&recipe, two_sides)?;
    run(&mut inputs().with_recipe(recipe).extract(&store)).exits(0)?;

    refused(
        run(&mut fit(&store, &runs)),
        &runs,
        &["no rows in split validation", "rule official"],
    )?;

    refused(
        of(&runs, &["--model", "vgg"]),
        &runs,
        &["vgg", "cnn2d, cnn1d-gru"],
    )?;
    refused(
        of(&runs, &["--set", "data.frames=8", "--model", "cnn2d"]),
        &runs,
        &["cnn2d needs at least", "frames"],
    )?;

    let sync = argv("--set model.sync_batch_norm=true --nproc 4 --batch-size 41 --model cnn1d");
    // 44 rows leave three for four ranks. Each rank reports the error.
    contains(&of(&runs, &sync).exits(2)?.err, "needs a row on every rank")?;

    same("a run", runs.exists(), false)
}

/// Trains on real clips with the genres of their tracks, cut into segments. The model must be able to overfit them.
#[apply(trial)]
#[needs(has_trainer)]
fn a_model_overfits_real_audio(data: &Path) -> Result<(), Failed> {
    const RECIPE: &str = r#"
name = "overfit"
[catalog]
dataset = "fma"
[[catalog.clean]]
step = "labelled"
where = "track_genre_top IS NOT NULL"
[[targets]]
name = "genre"
column = "track_genre_top"
[split]
rule = "segment"
[audio]
sample_rate_hz = 22050
segment_s = 2.0
segments_max = 10
[[features]]
name = "log_mel"
op = "mel"
n_mels = 40
db = { ref = "max", top_db = 80.0 }
normalize = "minmax"
"#;

    let folder = scratch("overfit");
    let (audio, store, runs) = (
        folder.join("audio"),
        folder.join("store"),
        folder.join("runs"),
    );
    fs::create_dir_all(&audio)?;
    fs::write(folder.join("recipe.toml"), RECIPE)?;

    let mut tracks = Vec::new();
    for part in ["fma_like", "audio/fma_real"] {
        for entry in fs::read_dir(data.join(part))? {
            let path = entry?.path();
            if path.is_dir() {
                copy_folder(&path, &audio.join(path.file_name().unwrap()));
            }
        }

        let text = fs::read(data.join(part).join("tracks.csv"))?;
        // Keeps the three header lines of the first file only.
        let lines = text
            .split_inclusive(|byte| *byte == b'\n')
            .skip(if tracks.is_empty() { 0 } else { 3 });
        lines.for_each(|line| tracks.extend_from_slice(line));
    }

    fs::write(folder.join("tracks.csv"), tracks)?;
    let inputs = Inputs::new(folder.join("tracks.csv"), audio, folder.join("recipe.toml"));
    run(&mut inputs.extract(&store)).exits(0)?;
    within("rows", manifest(&store, 1)?.counts.feature_rows, 101..)?;

    let sets = argv("--model cnn1d --set model.dropout=0 --epochs 30 --set train.early_stop=0");
    run(fit(&store, &runs).args(sets)).exits(0)?;

    let log = fs::read_to_string(run_in(&runs)?.join("log.jsonl"))?;
    let entries = log
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<Vec<Value>, _>>()?;
    let last = entries
        .iter()
        .rfind(|entry| entry["kind"] == "epoch")
        .ok_or("no epoch")?;
    let accuracy = last["values"]["training/accuracy"]
        .as_f64()
        .ok_or("no accuracy")?;

    if accuracy >= 0.95 {
        Ok(())
    } else {
        Err(format!("training accuracy {accuracy}").into())
    }
}
