//! Training of one model by several ranks: their weights equal those of a single rank, all ranks end together, and
//! torchrun can start them.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;
use wavemill_tests::{Failed, Trial};

use crate::support::{
    argv, checkpoints, contains, copy_folder, finish, fit, has_trainer, last_step, run, run_in,
    same, scratch, start, trainer, wait_until, whole, within,
};
use crate::trial::{Trials, with_needs};

/// Timeout for the remaining ranks to end after one was killed.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Tensors of a checkpoint by name, converted to f64.
pub(crate) struct Tensors(BTreeMap<String, Vec<f64>>);

impl Tensors {
    /// Reads `tensors.safetensors`, which contains the length of the header, the header as JSON, and the values.
    pub(crate) fn read(checkpoint: &Path) -> Result<Self, Failed> {
        let bytes = fs::read(checkpoint.join("tensors.safetensors"))?;
        let (length, rest) = bytes
            .split_first_chunk::<8>()
            .ok_or("tensors.safetensors is too short")?;
        let header = rest
            .get(..usize::try_from(u64::from_le_bytes(*length))?)
            .ok_or("tensors.safetensors is too short")?;
        let values = &rest[header.len()..];
        let entries: BTreeMap<String, Value> = serde_json::from_slice(header)?;

        let mut tensors = BTreeMap::new();
        for (name, entry) in entries {
            let offsets: [usize; 2] = serde_json::from_value(entry["data_offsets"].clone())?;
            let bytes = values
                .get(offsets[0]..offsets[1])
                .ok_or("tensors.safetensors is too short")?;
            let numbers = match entry["dtype"].as_str() {
                Some("F32") => bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|b| f64::from(f32::from_le_bytes(*b)))
                    .collect(),
                Some("F64") => bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|b| f64::from_le_bytes(*b))
                    .collect(),
                Some("I64") => bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|b| i64::from_le_bytes(*b) as f64)
                    .collect(),
                other => return Err(format!("{name}: {other:?}").into()),
            };
            tensors.insert(name, numbers);
        }

        Ok(Self(tensors))
    }

    /// Returns the largest L2 difference of a weight or buffer of the model, relative to its norm, and the tensor's
    /// name.
    fn off(&self, other: &Self) -> Result<(f64, &str), Failed> {
        let norm =
            |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();

        let mut worst = (0.0, "");
        for (name, values) in self.0.iter().filter(|(name, _)| name.starts_with("model.")) {
            let others = other
                .0
                .get(name)
                .filter(|others| others.len() == values.len())
                .ok_or("another model")?;
            let difference = norm(&mut values.iter().zip(others).map(|(a, b)| a - b));
            let relative = difference / norm(&mut values.iter().copied());
            if difference > 0.0 && relative > worst.0 {
                worst = (relative, name);
            }
        }

        Ok(worst)
    }
}

/// Returns the last checkpoint of the only run in a folder.
fn last(runs: &Path) -> Result<PathBuf, Failed> {
    Ok(checkpoints(&run_in(runs)?).pop().ok_or("no checkpoint")?)
}

/// Returns the loss of each step.
fn losses(runs: &Path) -> Result<Vec<f64>, Failed> {
    let log = fs::read_to_string(run_in(runs)?.join("log.jsonl"))?;
    let entries = log
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<Vec<Value>, _>>()?;
    let steps = entries.iter().filter(|entry| entry["kind"] == "step");
    Ok(steps
        .filter_map(|entry| entry["values"]["loss"].as_f64())
        .collect())
}

/// A configuration of 50 steps for which several ranks must give the same result as one rank.
struct Parity {
    name: &'static str,
    sets: &'static str,
    /// Largest relative difference of a weight or buffer. `None` if only the losses of the steps are compared.
    weights_max: Option<f64>,
    losses_max: f64,
}

const PARITIES: [Parity; 5] = [
    Parity {
        name: "sgd_in_f32",
        sets: "--set model.name=lstm --set data.frames=16 --set optimizer.name=sgd \
             --set optimizer.lr=0.1",
        weights_max: Some(1e-5),
        losses_max: 1e-5,
    },
    Parity {
        name: "sgd_in_f64",
        sets: "--set model.name=lstm --set data.frames=8 --set optimizer.name=sgd \
             --set optimizer.lr=0.1 --set train.precision=f64",
        weights_max: Some(1e-12),
        losses_max: 1e-12,
    },
    // Statistics are sums over the rows of all ranks, whereas a single rank uses libtorch's own batch norm.
    Parity {
        name: "sync_batch_norm",
        sets: "--set model.name=cnn1d --set data.frames=64 --set optimizer.name=sgd \
             --set optimizer.lr=0.05 --set train.precision=f64 \
             --set model.sync_batch_norm=true",
        weights_max: Some(1e-9),
        losses_max: 1e-9,
    },
    Parity {
        name: "every_method",
        sets: "--set model.name=lstm --set data.frames=8 --set optimizer.name=sgd --set optimizer.lr=0.1 \
             --set train.precision=f64 --set train.ema_decay=0.9 --set data.sampler=balanced \
             --set loss.focal_gamma=2 --set schedule.warmup_steps=5 --set optimizer.layer_decay=0.8 \
             --set optimizer.groups=[{names='fc.*',lr_factor=2,frozen_epochs=1}]",
        weights_max: Some(1e-12),
        losses_max: 1e-12,
    },
    // Adam's first steps divide by values close to zero, so weights may differ, but the loss curves may not.
    Parity {
        name: "adam",
        sets: "--set model.name=lstm --set data.frames=16",
        weights_max: None,
        losses_max: 1e-3,
    },
];

inventory::submit!(Trials(|| {
    let mut trials = Vec::new();
    for parity in &PARITIES {
        let name = format!("ranks::several_are_one_by_{}", parity.name);
        let trial = Trial::test(name, || several_are_one(parity));
        trials.push(with_needs(trial, &[has_trainer]));
    }
    trials
}));

fn several_are_one(parity: &Parity) -> Result<(), Failed> {
    fn trained(parity: &Parity, nproc: usize) -> Result<PathBuf, Failed> {
        let runs = scratch(&format!("{}-{nproc}", parity.name));
        let mut command = fit(whole(), &runs);
        // With 44 rows, the last batch of an epoch has fewer rows per rank.
        command.args(argv(
            "--set model.dropout=0 --set data.batch_size=8 --set train.steps=50 \
             --set train.early_stop=0",
        ));
        command.args(argv(parity.sets));
        run(command.arg("--nproc").arg(nproc.to_string())).exits(0)?;
        Ok(runs)
    }

    let one = trained(parity, 1)?;
    let (weights, curve) = (Tensors::read(&last(&one)?)?, losses(&one)?);
    same("steps", curve.len(), 50)?;

    for nproc in [2, 3, 4] {
        let several = trained(parity, nproc)?;
        let (off, name) = weights.off(&Tensors::read(&last(&several)?)?)?;
        let curves = curve.iter().zip(losses(&several)?);
        let off_curve = curves
            .map(|(a, b)| (a - b).abs() / a.abs())
            .fold(0.0, f64::max);

        if off_curve > parity.losses_max || parity.weights_max.is_some_and(|most| off > most) {
            return Err(
                format!("{nproc} ranks: losses {off_curve:e}, weights {off:e} ({name})").into(),
            );
        }
    }
    Ok(())
}

#[apply(trial)]
#[needs(has_trainer)]
fn per_rank_batch_norm_is_reported() -> Result<(), Failed> {
    let arguments = argv("--model cnn1d --set data.frames=64 --set train.steps=2");

    for (nproc, sync, said) in [
        ("2", "false", true),
        ("2", "true", false),
        ("1", "false", false),
    ] {
        let runs = scratch("per-rank");
        let sync = format!("model.sync_batch_norm={sync}");
        let ran = run(fit(whole(), &runs)
            .args(&arguments)
            .args(["--nproc", nproc, "--set", &sync]))
        .exits(0)?;

        same(
            "said",
            ran.out.contains("batch norm saw each rank's own rows"),
            said,
        )?;

        let result: Value = serde_json::from_slice(&fs::read(run_in(&runs)?.join("result.json"))?)?;
        same(
            "in the result",
            result["batch_norm_per_rank"].as_bool(),
            Some(said),
        )?;
    }
    Ok(())
}

/// Returns the process ids of a launcher's ranks, by rank.
fn ranks_of(launcher: u32) -> BTreeMap<usize, String> {
    fn read(entry: &fs::DirEntry, name: &str) -> String {
        fs::read_to_string(entry.path().join(name)).unwrap_or_default()
    }

    let mut ranks = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        // The files of a process that has ended meanwhile cannot be read.
        // Fields: pid (name) state parent
        let parent = read(&entry, "stat")
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());

        let environment = read(&entry, "environ");
        let rank = environment
            .split('\0')
            .find_map(|set| set.strip_prefix("RANK=")?.parse().ok());

        if let (true, Some(rank)) = (parent == Some(launcher), rank) {
            ranks.insert(rank, entry.file_name().to_string_lossy().into_owned());
        }
    }

    ranks
}

/// Starts ranks that train without end, and waits for some steps.
fn met_after_steps(runs: &Path, nproc: &str) -> Result<Child, Failed> {
    let arguments = argv(
        "--model lstm --batch-size 8 --epochs 100000 --set data.frames=8 \
         --set train.early_stop=0 --set train.checkpoint_steps=1 --nproc",
    );
    let mut child = start(fit(whole(), runs).args(arguments).arg(nproc));
    wait_until(&mut child, "some steps", || last_step(runs) >= 5)?;
    Ok(child)
}

#[apply(trial)]
#[needs(has_trainer)]
fn a_killed_rank_ends_the_others() -> Result<(), Failed> {
    killed_rank_ends_the_others(1)
}

#[apply(trial)]
#[needs(has_trainer)]
fn a_killed_rank_0_ends_the_others() -> Result<(), Failed> {
    killed_rank_ends_the_others(0)
}

fn killed_rank_ends_the_others(victim: usize) -> Result<(), Failed> {
    fn alive(pid: &&String) -> bool {
        Path::new("/proc").join(pid).join("exe").exists()
    }

    let runs = scratch("killed-rank");
    let launcher = met_after_steps(&runs, "3")?;
    let ranks = ranks_of(launcher.id());
    same("ranks", ranks.len(), 3)?;

    run(Command::new("kill").args(["-KILL", &ranks[&victim]])).exits(0)?;
    let since = Instant::now();
    let ran = finish(launcher);
    within("ended in time", since.elapsed(), ..END_TIMEOUT)?;
    same("exit code", ran.code, Some(137))?;

    let said = format!("rank {victim} ended: its connection closed; the last checkpoint is intact");
    contains(&ran.err, &said)?;
    same("alive", ranks.values().filter(alive).count(), 0)?;

    // The run can be resumed with another number of ranks, here with one rank.
    let run_folder = run_in(&runs)?;
    let state: Value = serde_json::from_slice(&fs::read(last(&runs)?.join("state.json"))?)?;
    let epochs = (state["epoch"].as_u64().ok_or("no epoch")? + 1).to_string();

    let mut resume = trainer(argv(&format!(
        "fit --device cpu --threads 1 --epochs {epochs} --resume"
    )));
    run(resume.arg(&run_folder)).exits(0)?;
    same("a result", run_folder.join("result.json").exists(), true)
}

#[apply(trial)]
#[needs(has_trainer)]
fn ranks_with_other_settings_are_rejected() -> Result<(), Failed> {
    let folder = scratch("mind");
    let runs = folder.join("runs");
    let of_fit = |rank: usize| -> Result<Command, Failed> {
        let mut command = fit(whole(), &runs);
        command.args(["--model", "lstm", "--seed", &rank.to_string()]);
        Ok(command)
    };
    // Each rank reads a file of its own, as on machines without a shared disk.
    let of_sweep = |rank: usize| -> Result<Command, Failed> {
        let file = folder.join(format!("{rank}.toml"));
        let seeds = format!("[parameters]\nseed = [1, {}]\n", rank + 2);
        fs::write(&file, seeds)?;
        let mut command = trainer(argv("sweep --device cpu --threads 1 --set model.name=lstm"));
        command.arg("--store").arg(whole()).arg("--runs");
        command.arg(&runs).arg(file);
        Ok(command)
    };

    // Rank 1 does not see the last checkpoint of the run.
    let trained = folder.join("trained");
    let arguments = argv(
        "--model lstm --set data.frames=8 --set train.steps=2 --set train.checkpoint_steps=1 --set train.keep=2",
    );
    run(fit(whole(), &trained).args(arguments)).exits(0)?;
    let seen = [run_in(&trained)?, folder.join("seen")];
    copy_folder(&seen[0], &seen[1]);
    fs::remove_dir_all(checkpoints(&seen[1]).pop().ok_or("no checkpoint")?)?;
    let of_eval = |rank: usize| -> Result<Command, Failed> {
        let mut command = trainer(argv("eval --device cpu --threads 1 --checkpoint last"));
        command.arg(&seen[rank]);
        Ok(command)
    };

    let commands: [(&dyn Fn(usize) -> _, _); 3] = [
        (&of_fit, "config"),
        (&of_sweep, "config"),
        (&of_eval, "weights of"),
    ];
    for (command, differs) in commands {
        let port = TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port()
            .to_string();
        let mut children = Vec::new();
        for rank in 0..2 {
            let mut command = command(rank)?;
            command
                .env("RANK", rank.to_string())
                .env("LOCAL_RANK", rank.to_string())
                .env("WORLD_SIZE", "2")
                .env("MASTER_ADDR", "127.0.0.1")
                .env("MASTER_PORT", "1")
                .env("WAVEMILL_PORT", &port);
            children.push(start(&mut command));
        }
        for child in children {
            let ran = finish(child).exits(1)?;
            ran.says(&[
                &format!("rank 1 has {differs} "),
                "rank 0 has",
                "it must be the same on all ranks",
            ])?;
        }
    }
    same("a run", runs.exists(), false)
}

/// Returns the path of torchrun: `WAVEMILL_TORCHRUN`, by default the one on PATH.
fn torchrun() -> Option<PathBuf> {
    fn on_path() -> Option<PathBuf> {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|folder| folder.join("torchrun"))
            .find(|program| program.is_file())
    }

    std::env::var_os("WAVEMILL_TORCHRUN")
        .map(PathBuf::from)
        .or_else(on_path)
}

fn has_torchrun() -> bool {
    torchrun().is_some()
}

/// Ranks started by torchrun give the same bits as the same number of ranks started by `--nproc`.
#[apply(trial)]
#[needs(has_trainer, has_torchrun)]
fn torchrun_starts_two() -> Result<(), Failed> {
    let [theirs, ours] = ["torchrun", "nproc"].map(scratch);
    let arguments = argv("--model lstm --set data.frames=8 --set train.steps=10 --batch-size 8");
    run(fit(whole(), &ours).args(&arguments).args(["--nproc", "2"])).exits(0)?;

    let port = TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port()
        .to_string();
    let mut command = Command::new(torchrun().ok_or("no torchrun")?);
    command.args(argv(&format!(
        "--nproc-per-node 2 --master-port {port} --no-python"
    )));

    let of_rank = fit(whole(), &theirs);
    run(command
        .arg(of_rank.get_program())
        .args(of_rank.get_args())
        .args(&arguments))
    .exits(0)?;

    let [theirs, ours] = [last(&theirs)?, last(&ours)?]
        .map(|path| fs::read(path.join("tensors.safetensors")).unwrap());
    same("the same bits", theirs == ours, true)
}
