//! Start and restart of training runs: requirements on the rows, waiting threads, and requeued jobs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use wavemill_tests::Failed;

use crate::support::{
    Inputs, RECIPE, argv, checkpoints, contains, files_below, fit, has_trainer, inputs, kill,
    lacks, last_step, recipe_for_folders, run, run_in, same, scratch, start, trainer, wait_until,
    whole, with_recipe, within,
};

/// Creates a store in which all rows of the split `side` have the same class.
fn store_of_one_class(side: &str) -> Result<PathBuf, Failed> {
    let folder = scratch("one-class");
    let store = folder.join("store");
    let labelled = "track_genre_top IS NOT NULL";
    let one = format!("{labelled} AND (set_split <> '{side}' OR track_genre_top = 'Rock')");

    run(&mut with_recipe(&folder, &RECIPE.replace(labelled, &one)).extract(&store)).exits(0)?;
    Ok(store)
}

/// Without this check, a run on rows of a single class would report "accuracy 1.0000 [1.0000, 1.0000]".
#[apply(trial)]
#[needs(has_trainer)]
fn single_class_is_rejected_before_the_first_step() -> Result<(), Failed> {
    let store = store_of_one_class("training")?;
    let runs = scratch("refused").join("runs");
    let ran = run(&mut fit(&store, &runs)).exits(2)?;
    ran.says(&[
        "target genre: all ",
        "training rows with a label are Rock",
        "--target",
        "--split",
    ])?;
    same("a run", runs.exists(), false)
}

/// Early stopping counts from the epoch in which the last layers thaw.
#[apply(trial)]
#[needs(has_trainer)]
fn frozen_layers_thaw_before_a_run_ends() -> Result<(), Failed> {
    let runs = scratch("thaw");
    let fit_with = |group: &str| -> Result<Value, Failed> {
        let mut command = fit(whole(), &runs);
        command.args(argv(
            "--set model.name=lstm --set data.frames=8 --set train.early_stop=1 --epochs 6 --json",
        ));
        command
            .arg("--set")
            .arg(format!("optimizer.groups=[{{names=\"*\", {group}}}]"));
        Ok(serde_json::from_str(&run(&mut command).exits(0)?.out)?)
    };

    let thawed = fit_with("frozen_epochs=4")?;
    within("epochs", thawed["epochs"].as_u64().unwrap_or(0), 5..7)?;
    same(
        "warnings",
        thawed["warnings"].as_array().map(Vec::len),
        Some(0),
    )?;

    let idle = fit_with("frozen_epochs=6")?;
    same("epochs", idle["epochs"].as_u64(), Some(2))?;
    contains(
        &idle["warnings"].to_string(),
        "optimizer.groups trains nothing",
    )
}

/// Without metadata other than one folder per genre, the artists are unknown, and the output must not claim that
/// splits share no artist.
#[apply(trial)]
#[needs(has_trainer)]
fn missing_artists_make_no_leak_promise() -> Result<(), Failed> {
    const CLIPS: usize = 32;
    let folder = scratch("no-artists");
    let (audio, recipe, store) = (
        folder.join("audio"),
        folder.join("folders.toml"),
        folder.join("store"),
    );

    let found = files_below(&inputs().audio)
        .into_iter()
        .map(|name| inputs().audio.join(name));
    let clips = found
        .filter(|path| fs::metadata(path).is_ok_and(|file| file.len() > 10_000))
        .take(CLIPS);
    for (number, clip) in clips.enumerate() {
        let genre = audio.join(["blues", "jazz"][number % 2]);
        fs::create_dir_all(&genre)?;
        fs::copy(clip, genre.join(format!("{number}.mp3")))?;
    }

    fs::write(
        &recipe,
        recipe_for_folders().replace("\"stratified\"", "\"artist\""),
    )?;

    run(&mut Inputs::without_metadata(audio, recipe).extract(&store)).exits(0)?;

    let ran = run(fit(&store, &folder.join("runs"))
        .args(argv(SMALL))
        .args(["--set", "train.steps=2"]))
    .exits(0)?;

    let said = ran.out + &ran.err;
    lacks(&said, "no artist is in two splits")?;
    contains(&said, "no artist is known: clips were split one by one")
}

#[apply(trial)]
#[needs(has_trainer)]
fn single_class_test_split_is_warned_about() -> Result<(), Failed> {
    fn is_told(text: &str, start: &str) -> bool {
        text.lines()
            .any(|line| line.starts_with(start) && line.contains(WORDS))
    }

    const WORDS: &str =
        "test rows of genre with a label are Rock: no score there tells a model from a constant";

    let store = store_of_one_class("test")?;
    let runs = scratch("told");
    let ran = run(fit(&store, &runs)
        .args(argv(SMALL))
        .args(["--set", "train.steps=2"]))
    .exits(0)?;

    same(
        "warned at the start",
        is_told(&ran.err, "warning: all "),
        true,
    )?;
    same(
        "noted beside the figures",
        is_told(&ran.out, "note: all "),
        true,
    )?;

    let result = fs::read_to_string(run_in(&runs)?.join("result.json"))?;
    contains(&result, WORDS)?;
    let log = fs::read_to_string(run_in(&runs)?.join("log.jsonl"))?;
    same("in the log", is_told(&log, "{\"kind\":\"warning\""), true)?;

    let headings = ran
        .out
        .lines()
        .filter(|line| line.contains("genre on test") || line.contains("test, genre"));
    same(
        "headings",
        headings.collect::<Vec<_>>(),
        vec!["genre on test"],
    )?;

    let ran =
        run(trainer(["eval", "--device", "cpu", "--threads", "1"]).arg(run_in(&runs)?)).exits(0)?;
    same("warned by eval", is_told(&ran.err, "warning: all "), true)
}

/// The OpenMP library prints how long its threads spin before they sleep.
#[apply(trial)]
#[needs(has_trainer)]
fn waiting_threads_spin_briefly() -> Result<(), Failed> {
    fn spins(set: &[(&str, &str)]) -> Result<String, Failed> {
        let mut command = trainer(["models", "lstm"]);
        ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"]
            .iter()
            .for_each(|name| {
                command.env_remove(name);
            });

        let ran = run(command
            .env("OMP_DISPLAY_ENV", "verbose")
            .envs(set.iter().copied()))
        .exits(0)?;

        let line = ran
            .err
            .lines()
            .find(|line| line.contains("GOMP_SPINCOUNT"))
            .ok_or("another OpenMP library")?;
        Ok(line.split('\'').nth(1).unwrap_or_default().to_owned())
    }

    same("by default", spins(&[])?, "3000".to_owned())?;
    same(
        "a user's own number",
        spins(&[("GOMP_SPINCOUNT", "77")])?,
        "77".to_owned(),
    )?;
    same(
        "a user's own policy",
        spins(&[("OMP_WAIT_POLICY", "passive")])?,
        "0".to_owned(),
    )
}

/// A model that trains in seconds: 11 steps per epoch, with dropout, augmentation and mix-up.
const SMALL: &str = "--set model.name=genregenie-cnn --set data.batch_size=4 --set data.frames=24 \
     --set loss.mixup=0.4 --set augment.enabled=true --set train.early_stop=0 \
     --set train.checkpoint_steps=5 --epochs 6";
/// Number of optimizer steps in a complete training run.
const STEPS: u64 = 66;

/// Returns the optimizer steps in a run's log as read by a program that does not know about resumed runs.
fn logged_steps(run: &Path) -> Vec<u64> {
    let text = fs::read_to_string(run.join("log.jsonl")).unwrap_or_default();
    // The last line may be incomplete.
    let entries = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    entries
        .filter(|entry| entry["kind"] == "step")
        .filter_map(|entry| entry["step"].as_u64())
        .collect()
}

/// Returns the bytes of a run's last checkpoint and of its scores.
fn end_of(run: &Path) -> Result<[Vec<u8>; 3], Failed> {
    let last = checkpoints(run).pop().ok_or("no checkpoint")?;
    let files = [
        last.join("tensors.safetensors"),
        last.join("state.json"),
        run.join("result.json"),
    ];
    Ok([
        fs::read(&files[0])?,
        fs::read(&files[1])?,
        fs::read(&files[2])?,
    ])
}

#[apply(trial)]
#[needs(has_trainer)]
fn requeued_it_does_the_whole_job() -> Result<(), Failed> {
    does_the_whole_job_when_requeued(1)
}

#[apply(trial)]
#[needs(has_trainer)]
fn requeued_ranks_do_the_whole_job() -> Result<(), Failed> {
    does_the_whole_job_when_requeued(2)
}

fn does_the_whole_job_when_requeued(nproc: usize) -> Result<(), Failed> {
    fn again(job: &Path, nproc: &[String], arguments: &[&str]) -> Command {
        let mut command = trainer(argv("fit --device cpu --threads 1 --resume-or-start"));
        command
            .arg(job)
            .arg("--store")
            .arg(whole())
            .args(argv(SMALL))
            .args(nproc)
            .args(arguments);
        command
    }

    let [runs, undisturbed] = ["requeued", "undisturbed"].map(scratch);
    let nproc = ["--nproc".to_owned(), nproc.to_string()];
    run(fit(whole(), &undisturbed).args(argv(SMALL)).args(&nproc)).exits(0)?;

    // The parent folders of the run's folder are created as well.
    let job = runs.join("jobs/night");
    // Kills the run before its first checkpoint.
    let mut child = start(&mut again(&job, &nproc, &[]));
    wait_until(&mut child, "a step", || !logged_steps(&job).is_empty())?;
    kill(child)?;
    wait_for_ranks(&job)?;
    fs::remove_dir_all(job.join("checkpoints"))?;
    same("a checkpoint", checkpoints(&job).len(), 0)?;

    for time in 1..=2 {
        let mut child = start(&mut again(&job, &nproc, &[]));
        wait_until(&mut child, "its steps", || {
            last_step(&runs.join("jobs")) >= 20 * time
        })?;
        kill(child)?;
        wait_for_ranks(&job)?;
    }

    let ran = run(&mut again(&job, &nproc, &["--set", "optimizer.lr=0.5"])).exits(2)?;
    contains(
        &ran.err,
        "the run was started with optimizer.lr = 0.001, not 0.5",
    )?;

    run(&mut again(&job, &nproc, &[])).exits(0)?;
    same(
        "as if never killed",
        end_of(&job)? == end_of(&run_in(&undisturbed)?)?,
        true,
    )?;
    same(
        "steps of the log",
        logged_steps(&job),
        (1..=STEPS).collect(),
    )?;

    let before = contents(&job);
    let ran = run(&mut again(&job, &nproc, &[])).exits(0)?;
    contains(&ran.err, "nothing to do")?;
    same("the folder is as it was", contents(&job) == before, true)
}

/// Returns every file below a folder with its bytes.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    fn read(folder: &Path, name: String) -> (String, Vec<u8>) {
        (
            name.clone(),
            fs::read(folder.join(name)).unwrap_or_default(),
        )
    }

    let names = files_below(folder).into_iter();
    names.map(|name| read(folder, name)).collect()
}

/// Waits until all ranks have ended, which happens shortly after the launcher was killed. Until then, rank 0 holds
/// a lock on its log.
fn wait_for_ranks(run: &Path) -> Result<(), Failed> {
    let log = fs::File::open(run.join("log.jsonl"))?;
    log.lock()?;
    Ok(())
}

#[apply(trial)]
#[needs(has_trainer)]
fn requeued_run_keeps_its_name() -> Result<(), Failed> {
    fn again(runs: &Path) -> Command {
        let mut command = fit(whole(), runs);
        command
            .args(argv(SMALL))
            .args(["--set", "train.steps=3", "--resume-or-start"]);
        command
    }

    let runs = scratch("unnamed");
    run(&mut again(&runs)).exits(0)?;
    let ended = run(&mut again(&runs)).exits(0)?;

    same(
        "one folder",
        run_in(&runs)?.to_string_lossy().ends_with("-1"),
        true,
    )?;
    contains(&ended.err, "nothing to do")?;

    let arguments = ["--resume-or-start", "runs/a", "--resume", "runs/a"];
    run(trainer(["fit"]).args(arguments)).exits(2).map(drop)
}
