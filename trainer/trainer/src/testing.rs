//! Test helpers: a small store and a model trained on it, for tests of evaluation, prediction, export and reports.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tch::{Device, Tensor};
use tempfile::TempDir;
use wavemill_schemas::config::Config;
use wavemill_scores::schedule::Schedules;

use crate::checkpoint::{Checkpoints, State};
use crate::dataset::fixture::Fixture;
use crate::dataset::{Dataset, Loader, LoaderPlan, Store};
use crate::ffi::{Group, SumOverRanks};
use crate::learner::{Learner, StepContext};
use crate::models::registry;
use crate::strategy::Solo;

/// Locks libtorch's random numbers, which are global to the process, so that only one test at a time uses a model. Also
/// selects deterministic algorithms, which are the default, and one thread, since tests already run in parallel.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static SEEDED: Mutex<()> = Mutex::new(());
    let guard = SEEDED.lock().unwrap_or_else(PoisonError::into_inner);
    tch::set_num_threads(1);
    crate::ffi::set_deterministic(true).expect("a switch");
    guard
}

/// Returns the default configuration of the model `lstm`, overridden by `sets`.
pub(crate) fn config(sets: &[&str]) -> Config {
    let sets: Vec<String> = ["model.name=lstm"]
        .iter()
        .chain(sets)
        .map(|&set| set.to_owned())
        .collect();
    Config::parse("", "the test", &sets).expect("a configuration")
}

/// Returns a group that simulates two ranks with equal values; there is only this process.
pub(crate) fn two_equal_ranks() -> &'static Group {
    struct EqualRanks;

    impl SumOverRanks for EqualRanks {
        fn sum_in_place(&self, tensor: &mut Tensor) -> Result<(), String> {
            let _ = tensor.g_mul_scalar_(2.0);
            Ok(())
        }
    }

    Box::leak(Box::new(&EqualRanks as Group))
}

/// A model after a few training steps, and its saved checkpoint.
pub(crate) struct TrainedFixture {
    /// Temporary folder of the test, removed when this value is dropped.
    pub folder: TempDir,
    pub data: Arc<Dataset>,
    pub learner: Learner,
    pub checkpoint: PathBuf,
}

/// Writes the store `fixture` to `folder` and opens it as a dataset for the model of `config`.
pub(crate) fn opened(fixture: &Fixture, config: &Config, folder: &TempDir) -> Arc<Dataset> {
    fixture.write(folder.path());
    let needs = registry::find(&config.model.name).expect("a model").needs;
    Dataset::open(
        Store::open(folder.path(), None).expect("a store"),
        &config.data,
        needs,
    )
    .expect("a dataset")
}

/// Trains a model for `steps` steps and writes a checkpoint. The guard `alone` ensures that no other test uses random
/// numbers.
pub(crate) fn made(
    fixture: &Fixture,
    config: &Config,
    steps: usize,
    _alone: &MutexGuard<'static, ()>,
) -> TrainedFixture {
    let folder = tempfile::tempdir().expect("a folder");
    let data = opened(fixture, config, &folder);
    let mut learner = Learner::new(config, &data, &Solo, Device::Cpu).expect("a model");

    let plan = LoaderPlan {
        batch_size: config.data.batch_size,
        ..LoaderPlan::default()
    };
    for (step, batch) in Loader::start(&data, plan)
        .expect("threads")
        .take(steps)
        .enumerate()
    {
        let context = StepContext {
            epoch: 0,
            step: step as u64,
            lr: 1e-3,
        };
        learner
            .step(&batch.expect("rows"), context, false)
            .expect("a step");
    }

    let schedules = Schedules::new(&config.schedule, config.optimizer.lr);
    let state = State::first(config, &data, schedules.state().clone(), 1);
    let checkpoints = Checkpoints::open(folder.path().join("checkpoints"), 1).expect("a folder");
    let checkpoint = checkpoints
        .save(&state, &learner.tensors().expect("tensors"))
        .expect("room");

    TrainedFixture {
        folder,
        data,
        learner,
        checkpoint,
    }
}
