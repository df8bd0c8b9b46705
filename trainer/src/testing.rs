//! A small store and a model on it, as tests of what comes after training need them.

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

/// Seeds are the process's: one model at a time, with the algorithms that a run uses by default. Threads of libtorch
/// beside those of the tests would only wait for each other.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static SEEDED: Mutex<()> = Mutex::new(());
    let guard = SEEDED.lock().unwrap_or_else(PoisonError::into_inner);
    tch::set_num_threads(1);
    crate::ffi::set_deterministic(true).expect("a switch");
    guard
}

/// The default configuration of `lstm`, with `sets` over it.
pub(crate) fn config(sets: &[&str]) -> Config {
    let sets: Vec<String> = ["model.name=lstm"]
        .iter()
        .chain(sets)
        .map(|&set| set.to_owned())
        .collect();
    Config::parse("", "the test", &sets).expect("a configuration")
}

/// Two ranks with equal values, of which this process is one.
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

/// A model after a few steps, and its checkpoint.
pub(crate) struct TrainedFixture {
    /// Removed with this.
    pub folder: TempDir,
    pub data: Arc<Dataset>,
    pub learner: Learner,
    pub checkpoint: PathBuf,
}

/// The rows of `fixture`, as `config`'s model sees them.
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

/// Trains for `steps` steps and writes a checkpoint; `alone` tells that nobody else seeds.
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
