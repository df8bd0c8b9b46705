//! Tests that a run that is stopped after any step and then resumed ends with the same bits as an uninterrupted run.
//!
//! This is a separate test program, because other tests would advance libtorch's global random generator, which dropout
//! uses.

#[allow(dead_code)]
#[path = "../../loader/src/fixture.rs"]
mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tch::Device;
use tempfile::TempDir;
use wavemill_schemas::canonical;
use wavemill_schemas::config::{self, Config};
use wavemill_schemas::exit::{Classified, Kind};
use wavemill_schemas::rng::Rng;
use wavemill_schemas::run::RunDir;
use wavemill_scores::records::read_log;
use wavemill_trainer::TrainError;
use wavemill_trainer::checkpoint::{self, Checkpoints, State};
use wavemill_trainer::dataset::{Dataset, Loader, LoaderPlan, Needs, Split, Store};
use wavemill_trainer::run::{self, FitOutcome, Job, RunMonitor};
use wavemill_trainer::strategy::Solo;

use fixture::Fixture;

/// Configuration with everything that has state or randomness: dropout, batch norm, augmentation, mix-up, Adam, all
/// schedules.
const CONFIG: &str = "
    seed = 11
    [data]
    batch_size = 6
    shuffle_window = 4
    [model]
    name = 'genregenie-cnn'
    [optimizer]
    clip_norm = 1.0
    [schedule]
    step = { every_epochs = 1, gamma = 0.7 }
    plateau = { patience = 0 }
    cosine = { warmup_steps = 7 }
    [loss]
    mixup = 0.4
    label_smoothing = 0.1
    [augment]
    enabled = true
    frequency_mask_bands = 4
    time_mask_frames = 6
    [train]
    epochs = 2
    keep = 1000
";

/// Methods that are off by default and have state, randomness or an effect on some epochs only.
const METHODS: [&str; 9] = [
    "train.ema_decay=0.8",
    "data.sampler=balanced",
    "loss.focal_gamma=1.5",
    "optimizer.layer_decay=0.7",
    "optimizer.groups=[{names='fc.*', lr_factor=2, weight_decay=0}, {names='conv1.*', frozen_epochs=1}]",
    "schedule.warmup_steps=9",
    "train.temperature_scaling=true",
    "train.select=balanced_accuracy",
    "train.epochs=2",
];

/// Number of steps that are tested as the only stop of a run.
const STOPS: usize = 50;

/// Returns the smallest rows that the model accepts.
fn small() -> Fixture {
    Fixture {
        shape: [16, 24],
        ..Fixture::default()
    }
}

fn config_with(sets: &[&str]) -> Config {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    Config::parse(CONFIG, "the test", &sets).expect("a configuration")
}

struct Scene {
    folder: TempDir,
    data: Arc<Dataset>,
    config: Config,
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    fn new(fixture: &Fixture) -> Self {
        Self::with(fixture, &[])
    }

    fn with(fixture: &Fixture, sets: &[&str]) -> Self {
        static GENERATOR: Mutex<()> = Mutex::new(());
        let alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
        tch::set_num_threads(1);

        let folder = tempfile::tempdir().expect("a folder");
        let config = config_with(sets);
        fixture.write(&folder.path().join("store"));
        let store = Store::open(&folder.path().join("store"), None).expect("a store");
        let data = Dataset::open(store, &config.data, Needs::default()).expect("a dataset");

        Self {
            folder,
            data,
            config,
            _alone: alone,
        }
    }

    /// Creates the folder of a new run.
    fn run(&self, id: &str) -> RunDir {
        let run = RunDir::create(self.folder.path(), id).expect("a folder");
        run.write_config(CONFIG).expect("room");
        run
    }

    /// Trains a run to its end, or for one step if `stop` is true.
    fn fit(&self, run: &RunDir, resume: bool, stop: bool) -> Result<FitOutcome, TrainError> {
        self.fit_as(self.config.clone(), run, resume, stop)
    }

    fn fit_as(
        &self,
        config: Config,
        run: &RunDir,
        resume: bool,
        stop: bool,
    ) -> Result<FitOutcome, TrainError> {
        self.fit_over(&self.data, config, run, resume, stop)
    }

    fn fit_over(
        &self,
        data: &Arc<Dataset>,
        config: Config,
        run: &RunDir,
        resume: bool,
        stop: bool,
    ) -> Result<FitOutcome, TrainError> {
        let job = job(config, run, resume);
        let monitor = RunMonitor::default();
        monitor.stop.store(stop, Ordering::Relaxed);
        run::fit(&job, data, &Solo, &monitor)
    }

    /// Trains a run to its end.
    fn train(&self, config: &Config, run: &RunDir) -> FitOutcome {
        let fitted = self.fit_as(config.clone(), run, false, false);
        fitted.expect("to the end")
    }

    /// Resumes a run, and trains it to its end.
    fn resume(&self, config: &Config, run: &RunDir) -> FitOutcome {
        let fitted = self.fit_as(config.clone(), run, true, false);
        fitted.expect("to the end")
    }

    /// Returns the keys of the rows in a range of batches of the first epoch, over all ranks.
    fn keys(&self, world_size: usize, batches: Range<u64>) -> Vec<u64> {
        let (seed, batch_size) = (self.config.seed, self.config.data.batch_size);
        let mut keys = Vec::new();
        for rank in 0..world_size {
            let first_batch = batches.start;
            let plan = LoaderPlan {
                shuffle: true,
                seed,
                batch_size,
                rank,
                world_size,
                first_batch,
                ..LoaderPlan::default()
            };

            let loader = Loader::start(&self.data, plan)
                .expect("threads")
                .map(|batch| batch.expect("no damage"));
            let wanted = loader.filter(|batch| batches.contains(&batch.index));
            wanted.for_each(|batch| keys.extend(&batch.keys[..batch.n_own]));
        }

        keys
    }
}

fn job(config: Config, run: &RunDir, resume: bool) -> Job {
    Job {
        config,
        folder: run.path().to_owned(),
        resume,
        device: Device::Cpu,
        readers: 1,
        prefetch_batches: 2,
        test: true,
        profile_steps: 0,
        keep_going: None,
    }
}

fn last(run: &RunDir) -> PathBuf {
    Checkpoints::open(run.checkpoints(), 1)
        .expect("a folder")
        .last()
        .expect("a checkpoint")
}

fn state(run: &RunDir) -> State {
    checkpoint::read_state(&last(run)).expect("a state")
}

/// Returns the bytes of three files of a run: tensors (weights, buffers, optimizer), state, and result.
fn left_by(run: &RunDir) -> [Vec<u8>; 3] {
    let last = last(run);
    let files = [
        last.join("tensors.safetensors"),
        last.join("state.json"),
        run.result(),
    ];
    files.map(|path| fs::read(path).expect("a file"))
}

/// Returns the bits of all logged figures by kind and step, without the time spent waiting for data.
fn figures(run: &RunDir) -> BTreeMap<(String, u64), BTreeMap<String, u64>> {
    let mut figures = BTreeMap::new();
    for entry in read_log(&run.log()).expect("a log") {
        if ["step", "epoch"].contains(&&*entry.kind) {
            let values = entry.values.into_iter();
            let kept = values.filter(|(name, _)| name != "data_wait_s");
            let bits = kept.map(|(name, value)| (name, value.to_bits())).collect();
            figures.insert((entry.kind, entry.step), bits);
        }
    }
    figures
}

/// Creates a run's folder that contains only the checkpoint of `from` at `step` and the best checkpoint at that time.
fn stopped_at(scene: &Scene, from: &RunDir, step: u64) -> RunDir {
    fn named(run: &RunDir, step: u64) -> PathBuf {
        run.checkpoints().join(format!("step-{step:08}"))
    }

    let run = scene.run(&format!("from-{step}"));
    let best = checkpoint::read_state(&named(from, step))
        .expect("a state")
        .best;
    for step in BTreeSet::from([Some(step), best.map(|best| best.step)])
        .into_iter()
        .flatten()
    {
        copy(&named(from, step), &named(&run, step));
    }

    run
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for name in ["tensors.safetensors", "state.json"] {
        fs::copy(from.join(name), to.join(name)).expect("room");
    }
}

/// Trains a run of `steps` steps that is stopped and resumed after every step.
fn stopped_after_each(scene: &Scene, config: &Config, steps: u64) -> RunDir {
    let halting = scene.run("halting");
    for step in 1..=steps {
        let stopped = scene.fit_as(config.clone(), &halting, step > 1, true);
        let error = stopped.expect_err("stopped");
        assert_eq!(error.kind(), Kind::Interrupted, "{error}");
        assert!(
            error
                .to_string()
                .starts_with(&format!("stopped at step {step};")),
            "{error}"
        );
    }
    scene.resume(config, &halting);
    halting
}

#[test]
fn with_every_method_a_run_stopped_after_each_step_ends_with_the_same_bits() {
    let scene = Scene::with(&small(), &METHODS);
    let whole = scene.run("whole");
    scene.train(&scene.config, &whole);

    let halting = stopped_after_each(&scene, &scene.config, state(&whole).step);
    assert!(left_by(&halting) == left_by(&whole) && figures(&halting) == figures(&whole));
}

#[test]
fn the_model_of_a_checkpoint_is_the_moving_average_of_the_trained_weights() {
    let decay = 0.8;
    let sets = ["train.ema_decay=0.8", "train.checkpoint_steps=1"];
    let scene = Scene::with(&small(), &sets);
    let run = scene.run("whole");
    scene.train(&scene.config, &run);
    let tensors = |step: u64| {
        let path = run.checkpoints().join(format!("step-{step:08}"));
        checkpoint::read_tensors(&path).expect("tensors")
    };

    let mut wanted = tensors(1)["trained.fc.weight"].copy();
    assert_eq!(tensors(1)["model.fc.weight"], wanted);
    for step in 2..=8 {
        let now = tensors(step);
        wanted = decay * wanted + (1.0 - decay) * &now["trained.fc.weight"];
        let off = (&now["model.fc.weight"] - &wanted).abs().max();
        assert!(off.double_value(&[]) < 1e-6, "{step}: {off}");
    }
    let differs = (&tensors(8)["model.fc.weight"] - &tensors(8)["trained.fc.weight"])
        .abs()
        .max();
    assert!(differs.double_value(&[]) > 1e-4);
}

#[test]
fn stopped_after_any_step_a_run_ends_with_the_same_bits() {
    let scene = Scene::new(&Fixture {
        clips: 200,
        ..small()
    });
    let whole = scene.run("whole");
    scene.train(&scene.config, &whole);
    let (wanted, wanted_figures) = (left_by(&whole), figures(&whole));
    let steps = state(&whole).step;
    assert!(steps >= STOPS as u64, "{steps} steps");

    let halting = stopped_after_each(&scene, &scene.config, steps);
    assert!(left_by(&halting) == wanted, "stopped after each step");
    assert!(figures(&halting) == wanted_figures);

    // Runs that are stopped once, each after another step.
    let mut order: Vec<u64> = (1..=steps).collect();
    Rng::new(50).shuffle(&mut order);

    for &step in &order[..STOPS] {
        let run = stopped_at(&scene, &halting, step);
        scene.resume(&scene.config, &run);
        assert!(left_by(&run) == wanted, "stopped after step {step}");

        let [mut got, mut want] = [figures(&run), wanted_figures.clone()];
        for all in [&mut got, &mut want] {
            all.retain(|(_, at), _| *at > step);
        }
        assert!(got == want, "log after step {step}");
        fs::remove_dir_all(run.path()).expect("its own folder");
    }
}

#[test]
fn a_run_that_came_to_its_end_stays_there_unless_more_is_asked_for() {
    let scene = Scene::new(&small());
    let run = scene.run("ended");

    // With this learning rate, no weight changes, so the validation scores change only through the statistics of batch
    // norm.
    let config = config_with(&["optimizer.lr=1e-30", "train.early_stop=1", "train.epochs=9"]);

    scene.train(&config, &run);
    let (wanted, epochs) = (left_by(&run), state(&run).epoch);
    assert!(epochs < 9, "it ended early");

    scene.resume(&config, &run);
    assert!(left_by(&run) == wanted);

    let mut more = config;
    more.train.epochs = 10;
    scene.resume(&more, &run);
    assert!(state(&run).epoch > epochs);
}

#[test]
fn stopped_in_the_last_of_its_steps_a_run_still_ends_its_epoch() {
    let scene = Scene::new(&small());
    let config = config_with(&["train.steps=5"]);

    let whole = scene.run("five");
    scene.train(&config, &whole);

    let halting = stopped_after_each(&scene, &config, 5);
    assert!(left_by(&halting) == left_by(&whole) && figures(&halting) == figures(&whole));
    assert!(state(&halting).best.is_some());
}

#[test]
fn more_epochs_are_kept_by_a_run_that_is_killed_before_its_next_checkpoint() {
    let scene = Scene::new(&small());
    let run = scene.run("killed");
    scene.train(&scene.config, &run);

    let mut more = scene.config.clone();
    more.train.epochs = 3;
    let killed = Job {
        keep_going: Some(Box::new(|_| {
            panic!("killed before the checkpoint of the third epoch")
        })),
        ..job(more.clone(), &run, true)
    };

    let monitor = RunMonitor::default();
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        run::fit(&killed, &scene.data, &Solo, &monitor)
    }))
    .expect_err("killed");

    let last = state(&run);
    assert_eq!(
        (last.epoch, last.finished, last.config),
        (2, false, more.clone())
    );
    assert_eq!(
        run.read_config().expect("a file"),
        toml::to_string(&more).expect("TOML")
    );

    assert_eq!(scene.resume(&more, &run).result.epochs, 3);
}

#[test]
fn within_an_epoch_a_run_goes_on_only_over_the_files_that_it_had() {
    fn open(root: &Path, data: &config::Data) -> Arc<Dataset> {
        let store = Store::open(root, None).expect("a store");
        Dataset::open(store, data, Needs::default()).expect("what can be read")
    }

    let scene = Scene::new(&Fixture {
        shard_clips: 4,
        ..small()
    });

    let mut config = scene.config.clone();
    config.data.skip_damaged = true;
    let root = scene.folder.path().join("store");

    let run = scene.run("damaged");
    let fit = |config: &Config, resume, stop| {
        let data = open(&root, &config.data);
        scene.fit_over(&data, config.clone(), &run, resume, stop)
    };
    fit(&config, false, true).expect_err("stopped");
    assert_eq!((state(&run).batch, state(&run).lost), (1, Some(Vec::new())));

    let store = scene.data.store();
    let files: Vec<_> = store.manifest().files_of("log_mel").collect();
    let of_test = files.last().expect("a file of test");
    let halved = Halved::new(&store.path(of_test).expect("a path"));
    let stopped = fit(&config, true, true).expect_err("stopped").to_string();
    assert!(stopped.starts_with("stopped at step 2"), "{stopped}");
    assert_eq!(state(&run).lost, Some(vec![of_test.path.clone()]));
    drop(halved);

    let entry = files.first().expect("a file of training");
    let path = store.path(entry).expect("a path");
    let halved = Halved::new(&path);
    let refused = fit(&config, true, false).expect_err("another order");
    let refused = refused.to_string();
    assert!(
        refused.contains(&entry.path) && refused.contains("from the middle of epoch 1"),
        "{refused}"
    );
    drop(halved);

    let mut one = config.clone();
    one.train.epochs = 1;
    fit(&one, true, false).expect("the same files");
    let _halved = Halved::new(&path);
    fit(&config, true, false).expect("an epoch of its own");
    let lost = Some(vec![entry.path.clone()]);
    assert_eq!((state(&run).epoch, state(&run).lost), (2, lost));
}

/// A file that is cut in half until this value is dropped.
struct Halved {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Halved {
    fn new(path: &Path) -> Self {
        let bytes = fs::read(path).expect("a file");
        fs::write(path, &bytes[..bytes.len() / 2]).expect("room");
        Self {
            path: path.to_owned(),
            bytes,
        }
    }
}

impl Drop for Halved {
    fn drop(&mut self) {
        fs::write(&self.path, &self.bytes).expect("room");
    }
}

#[test]
fn a_longer_run_counts_its_test_scores_and_one_at_its_end_asks_no_more() {
    fn asked(fitted: FitOutcome) -> (u64, u64, usize) {
        let warnings = fitted.result.warnings.into_iter();
        let (notes, others): (Vec<String>, Vec<String>) = warnings.partition(|warning| {
            warning.starts_with("the test split was asked 2 times, before this after 2 ")
        });

        // This test has few rows, so two splits lack classes, and each run warns about that. No other warning is
        // allowed.
        assert!(
            others
                .iter()
                .all(|warning| warning.contains(": no score there ")),
            "{others:?}"
        );
        (fitted.result.test_asked, fitted.result.epochs, notes.len())
    }

    let scene = Scene::new(&small());
    let run = scene.run("longer");

    assert_eq!(asked(scene.train(&scene.config, &run)), (1, 2, 0));

    let mut more = scene.config.clone();
    more.train.epochs = 3;
    assert_eq!(asked(scene.resume(&more, &run)), (2, 3, 1));
    assert_eq!(
        run.read_config().expect("a file"),
        toml::to_string(&more).expect("TOML")
    );

    let wanted = left_by(&run);
    assert_eq!(asked(scene.resume(&more, &run)), (2, 3, 1));
    assert!(left_by(&run) == wanted);

    // If the result file is missing, the resumed run writes it again.
    fs::remove_file(run.result()).expect("a file");
    assert_eq!(asked(scene.resume(&more, &run)), (1, 3, 0));
}

#[test]
fn a_loss_out_of_all_proportion_is_noted_in_the_result() {
    let scene = Scene::new(&small());
    let run = scene.run("diverges");
    let config = config_with(&["optimizer.lr=100", "optimizer.clip_norm=1e9"]);

    let fitted = scene.train(&config, &run);

    let warnings = &fitted.result.warnings;
    let is_told = warnings.iter().any(|line| line.contains("diverges"));
    assert!(is_told, "{warnings:?}");
}

#[test]
fn an_update_that_overflows_is_divergence_also_in_the_last_step_of_an_epoch() {
    let scene = Scene::new(&small());
    let run = scene.run("infinite");
    let config = config_with(&["optimizer.lr=1e38", "data.batch_size=1000"]);

    let error = scene
        .fit_as(config, &run, false, false)
        .map(|fitted| fitted.values)
        .expect_err("no finite weights");
    let message = error.to_string();
    assert!(
        message.contains("training has diverged; lower optimizer.lr"),
        "{message}"
    );
}

#[test]
fn without_its_best_checkpoint_a_run_comes_to_its_end_and_says_so() {
    let scene = Scene::new(&small());
    let run = scene.run("lost");
    scene.train(&scene.config, &run);

    // Simulate that an earlier checkpoint was the best one and that a user has removed it.
    let path = last(&run).join("state.json");
    let mut json: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
    json["best"]["step"] = 1.into();
    json.as_object_mut().expect("fields").remove("blake3");
    fs::write(path, canonical::checked(&json).expect("JSON")).expect("room");

    let mut more = scene.config.clone();
    more.train.epochs = 3;
    let fitted = scene.resume(&more, &run);

    let warnings = &fitted.result.warnings;
    let is_told = warnings.iter().any(|line| line.contains("best epoch"));
    assert!(is_told, "{warnings:?}");
}

#[test]
fn on_any_number_of_ranks_the_rows_that_are_left_are_those_that_were_not_seen() {
    let scene = Scene::new(&small());
    let run = scene.run("stopped");

    for step in 0..5 {
        let stopped = scene.fit(&run, step > 0, true).expect_err("stopped");
        assert_eq!(stopped.kind(), Kind::Interrupted, "{stopped}");
    }

    let state = state(&run);
    assert_eq!((state.epoch, state.batch, state.threads), (0, 5, Some(1)));

    let all: BTreeSet<u64> = scene.keys(1, 0..u64::MAX).into_iter().collect();
    assert_eq!(all.len(), scene.data.rows_of(Split::Training).len());

    let sizes = [1, 2, 3, 4, 8];
    for before in sizes {
        let seen = scene.keys(before, 0..state.batch);
        assert_eq!(seen.len(), 5 * scene.config.data.batch_size);

        for after in sizes {
            let left = scene.keys(after, state.batch..u64::MAX);
            assert_eq!(
                seen.len() + left.len(),
                all.len(),
                "{before}, then {after} ranks"
            );
            assert!(
                seen.iter().chain(&left).copied().collect::<BTreeSet<u64>>() == all,
                "{before}, then {after} ranks"
            );
        }
    }
}
