//! Sweeps by the built program: invalid sweep files, trials that fail, sweeps that are stopped, and trials that are
//! finished already.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Instant;

use serde_json::Value;
use wavemill_tests::Failed;

use crate::support::{
    LOOK, argv, checkpoints, contains, finish, has_trainer, kill, lacks, run, same, scratch, start,
    trainer, wait_until, whole, within,
};

/// Maximum number of seconds in which the processes of trials end with the sweep.
const END_S_MAX: u64 = 30;

/// Writes the file `sweep.toml` to `folder`, and returns a command that runs this sweep of a small model.
fn sweep(folder: &Path, file: &str) -> Command {
    fs::write(folder.join("sweep.toml"), file).unwrap();

    let mut command = trainer(argv("sweep --device cpu --threads 1 --json --store"));
    command
        .arg(whole())
        .arg("--runs")
        .arg(folder.join("runs"))
        .arg(folder.join("sweep.toml"));

    command.args(argv(
        "--set model.name=lstm --set data.frames=8 --set data.batch_size=8 \
         --set train.epochs=1 --set train.checkpoint_steps=1",
    ));
    command
}

fn lines(out: &str) -> Result<Vec<Value>, Failed> {
    Ok(out
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?)
}

fn runs_in(folder: &Path) -> usize {
    fs::read_dir(folder.join("runs")).map_or(0, Iterator::count)
}

#[apply(trial)]
#[needs(has_trainer)]
fn errors_are_reported_before_the_first_trial() -> Result<(), Failed> {
    let folder = scratch("wrong-sweep");
    let cases = [
        (
            "[parameters]\n\"model.name\" = [\"lstm\", \"vgg\"]",
            &["trial 1", "vgg"][..],
        ),
        (
            "[parameters]\n\"data.split\" = [\"official\", \"artist\"]",
            &["trial 0", "another data.split", "--folds"],
        ),
        (
            "[parameters]\n\"data.targets\" = [[\"genre\"], [\"genres_all\"]]",
            &["trial 1", "is scored on genres_all", "train.select_target"],
        ),
        (
            "method = \"random\"\ntrials = 0\n[parameters]\nseed = [1]",
            &["trials = 0", "at least 1"],
        ),
        (
            "method = \"random\"\n[parameters]\n\"optimizer.lr\" = { min = 0.0, max = 1.0, log = true }",
            &["optimizer.lr", "above 0"],
        ),
        (
            "[parameters]\n\"train.select\" = [\"loss\", \"accuracy\"]",
            &["trial 1", "train.select"],
        ),
        (
            "[parameters]\n\"loss.focal_gamma\" = [0.0, 1.0]",
            &["trial 1", "another loss", "train.select=log_loss"],
        ),
    ];

    for (file, said) in cases {
        run(&mut sweep(&folder, file)).exits(2)?.says(said)?;
    }

    let mut command = sweep(&folder, "");
    fs::remove_file(folder.join("sweep.toml"))?;
    run(&mut command)
        .exits(2)?
        .says(&["sweep.toml", "No such file"])?;
    same("runs", runs_in(&folder), 0)
}

#[apply(trial)]
#[needs(has_trainer)]
fn failed_trial_does_not_affect_others() -> Result<(), Failed> {
    let folder = scratch("failing-sweep");
    let file = "[parameters]\n\"optimizer.lr\" = [1e300, 1e-3, 1e-4]";
    let ran = run(&mut sweep(&folder, file)).exits(1)?;

    let first = lines(&ran.out)?;
    same("trials", first.len(), 3)?;
    let message = first[0]["error"].as_str().ok_or("no error")?;
    contains(message, "the loss is")?;
    same(
        "the others",
        first[1..]
            .iter()
            .all(|t| t["error"].is_null() && t["best"].is_f64()),
        true,
    )?;

    contains(&ran.err, "1 of 3 trials failed")?;
    contains(&ran.err, "best: trial ")?;
    same("runs", runs_in(&folder), 3)?;

    // In a second run, finished trials are reused and failed ones are repeated.
    let ran = run(&mut sweep(&folder, file)).exits(1)?;
    same("taken", ran.err.matches("already completed: ").count(), 2)?;
    same("as they were", lines(&ran.out)?[1..] == first[1..], true)?;
    same("runs", runs_in(&folder), 4)?;

    // Without the failing trial, all trials of the sweep are already completed.
    let ran = run(&mut sweep(
        &folder,
        "[parameters]\n\"optimizer.lr\" = [1e-3, 1e-4]",
    ))
    .exits(0)?;
    same(
        "all are taken",
        ran.err.matches("already completed: ").count(),
        2,
    )?;
    same("runs", runs_in(&folder), 4)
}

#[apply(trial)]
#[needs(has_trainer)]
fn stopped_sweep_resumes_with_the_same_command() -> Result<(), Failed> {
    fn steps(folder: &Path) -> usize {
        let runs = fs::read_dir(folder.join("runs"))
            .into_iter()
            .flatten()
            .flatten();
        let unfinished = runs
            .map(|run| run.path())
            .filter(|run| !run.join("result.json").exists());
        unfinished.map(|run| checkpoints(&run).len()).sum::<usize>()
    }

    let folder = scratch("stopped-sweep");
    let file = "[parameters]\n\"train.epochs\" = [1, 100000]\n\"train.early_stop\" = [0]";
    let mut child = start(&mut sweep(&folder, file));
    wait_until(&mut child, "its second trial", || {
        runs_in(&folder) == 2 && steps(&folder) > 0
    })?;
    run(Command::new("kill").arg("-INT").arg(child.id().to_string())).exits(0)?;

    let ran = finish(child).exits(130)?;
    ran.says(&["stopped in trial 1", "the same command", "runs"])?;
    lacks(&ran.err, "--resume")?;

    let ran = run(&mut sweep(
        &folder,
        "[parameters]\n\"train.epochs\" = [1, 2]\n\"train.early_stop\" = [0]",
    ))
    .exits(0)?;
    same("taken", ran.err.matches("already completed: ").count(), 1)?;
    same("trials", lines(&ran.out)?.len(), 2)
}

/// Returns the line of output about a trial, without the path of its folder, and the weights of its last checkpoint.
fn without_folder(line: &Value, folder: &Path) -> Result<(String, Vec<u8>), Failed> {
    let run = line["run"].as_str().ok_or("no run")?;
    let text = line.to_string().replace(folder.to_str().unwrap(), "");
    let last = checkpoints(Path::new(run)).pop();
    let weights = last
        .map(|path| fs::read(path.join("tensors.safetensors")))
        .transpose()?;
    Ok((text, weights.unwrap_or_default()))
}

/// The trials include one that fails and two with equal parameters.
#[apply(trial)]
#[needs(has_trainer)]
fn number_of_jobs_does_not_change_results() -> Result<(), Failed> {
    let file = "[parameters]\n\"optimizer.lr\" = [1e-3, 1e300, 1e-3, 1e-4, 3e-4]";
    let mut results = Vec::new();
    for jobs in ["1", "3"] {
        let folder = scratch("jobs");
        let ran = run(sweep(&folder, file).args(["--jobs", jobs])).exits(1)?;

        let mut trials = Vec::new();
        for line in lines(&ran.out)? {
            trials.push(without_folder(&line, &folder)?);
        }

        contains(&ran.err, "best: trial ")?;
        contains(&ran.err, "1 of 5 trials failed")?;
        same(
            "one run of two trials that are the same",
            runs_in(&folder),
            4,
        )?;

        results.push(trials);
    }

    same(
        "weights",
        results[0].iter().all(|(_, weights)| !weights.is_empty()),
        true,
    )?;
    same(
        "lines",
        results[1]
            .iter()
            .map(|(line, _)| line)
            .eq(results[0].iter().map(|(line, _)| line)),
        true,
    )?;
    same("lines and weights", results[1] == results[0], true)?;
    Ok(())
}

/// Median stopping compares a trial with earlier ones, even if they are still running. One of the trials fails.
#[apply(trial)]
#[needs(has_trainer)]
fn parallel_jobs_apply_the_same_median_stop() -> Result<(), Failed> {
    let file = "median_stopping_after = 1\n[parameters]\n\"optimizer.lr\" = [1e-2, 3e-3, 1e-7, 1e300, 1e-8]";
    let mut results = Vec::new();
    for jobs in ["1", "3"] {
        let folder = scratch("jobs-median");
        let mut command = sweep(&folder, file);
        let ran = run(command.args(["--jobs", jobs, "--set", "train.epochs=3"])).exits(1)?;

        let mut trials = Vec::new();
        for line in lines(&ran.out)? {
            trials.push((
                line["ended_early"].as_bool(),
                without_folder(&line, &folder)?,
            ));
        }
        results.push(trials);

        // Without the rule, a trial that it ended is trained to its end.
        let file = file.replace("median_stopping_after = 1\n", "");
        let mut command = sweep(&folder, &file);
        let ran = run(command.args(["--jobs", jobs, "--set", "train.epochs=3"])).exits(1)?;
        let whole = lines(&ran.out)?.into_iter().filter(|line| {
            line["values"]
                .as_array()
                .is_some_and(|values| values.len() == 3)
        });
        same("whole trials", whole.count(), 4)?;
    }

    within(
        "ended early",
        results[0]
            .iter()
            .filter(|(early, _)| *early == Some(true))
            .count(),
        1..,
    )?;
    same("lines and weights", results[1] == results[0], true)
}

#[apply(trial)]
#[needs(has_trainer)]
fn stopped_jobs_resume() -> Result<(), Failed> {
    fn begun(folder: &Path) -> [usize; 2] {
        let runs = fs::read_dir(folder.join("runs"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|run| run.path());
        let (finished, unfinished): (Vec<_>, Vec<_>) =
            runs.partition(|run| run.join("result.json").exists());
        [
            finished.len(),
            unfinished
                .iter()
                .filter(|run| !checkpoints(run).is_empty())
                .count(),
        ]
    }

    let folder = scratch("stopped-jobs");
    let file = "[parameters]\n\"train.epochs\" = [1, 100000, 200000]\n\"train.early_stop\" = [0]";
    let mut child = start(sweep(&folder, file).args(["--jobs", "2"]));
    wait_until(&mut child, "its second and third trial", || {
        begun(&folder) == [1, 2]
    })?;
    run(Command::new("kill")
        .arg("-TERM")
        .arg(child.id().to_string()))
    .exits(0)?;
    let ran = finish(child).exits(130)?;
    ran.says(&["stopped in trial 1; run the same command to continue"])?;

    let file = file.replace("100000, 200000", "2, 3");
    let ran = run(sweep(&folder, &file).args(["--jobs", "2"])).exits(0)?;
    same("taken", ran.err.matches("already completed: ").count(), 1)?;
    same("trials", lines(&ran.out)?.len(), 3)
}

/// Trials read the sweep's file as it was at the beginning of the sweep.
#[apply(trial)]
#[needs(has_trainer)]
fn jobs_do_not_read_a_changed_file() -> Result<(), Failed> {
    let folder = scratch("jobs-file");
    let file = "[parameters]\n\"train.epochs\" = [1, 2, 3, 4]";
    let mut child = start(sweep(&folder, file).args(["--jobs", "2"]));
    wait_until(&mut child, "its first trial", || runs_in(&folder) > 0)?;
    fs::write(folder.join("sweep.toml"), "[parameters]\nseed = [1]")?;

    let ran = finish(child).exits(0)?;
    same("trials", lines(&ran.out)?.len(), 4)
}

/// Returns the processes that write to the runs in `folder`.
fn writers(folder: &Path) -> Result<usize, Failed> {
    let runs = folder.join("runs").display().to_string();
    let mut writers = 0;
    for process in fs::read_dir("/proc")? {
        // Other processes may end meanwhile.
        let command = fs::read(process?.path().join("cmdline")).unwrap_or_default();
        writers += usize::from(String::from_utf8_lossy(&command).contains(&runs));
    }
    Ok(writers)
}

/// The processes of trials end with the sweep, also those that have not opened the store yet.
#[apply(trial)]
#[needs(has_trainer)]
fn jobs_end_with_a_killed_sweep() -> Result<(), Failed> {
    let folder = scratch("jobs-killed");
    let file = "[parameters]\n\"train.epochs\" = [100000, 200000]";
    let mut child = start(sweep(&folder, file).args(["--jobs", "2"]));
    wait_until(&mut child, "its trials", || {
        writers(&folder).is_ok_and(|writers| writers > 1)
    })?;
    kill(child)?;

    let start = Instant::now();
    while writers(&folder)? > 0 {
        within("seconds", start.elapsed().as_secs(), ..END_S_MAX)?;
        sleep(LOOK);
    }
    Ok(())
}
