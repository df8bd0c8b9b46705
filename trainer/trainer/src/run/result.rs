//! Builds the contents of a run's `result.json` from the run's state and scores.

use wavemill_schemas::run::{Evaluation, RunResult};

use crate::checkpoint::State;
use crate::dataset::{Dataset, Split};
use crate::learner::Learner;

/// Returns the result of a run in `state`, with its scores on validation and test.
pub(super) fn result_of(
    learner: &Learner,
    data: &Dataset,
    state: &State,
    validation: Vec<Evaluation>,
    test: Vec<Evaluation>,
) -> RunResult {
    let config = &state.config;
    let parameters: usize = learner
        .variables()
        .iter()
        .filter(|(_, variable)| variable.requires_grad())
        .map(|(_, variable)| variable.numel())
        .sum();

    RunResult {
        model: config.model.name.clone(),
        parameters: parameters as u64,
        start: state.origin.to_string(),
        feature: data.feature().name.clone(),
        feature_id: state.feature_id.clone(),
        manifest_hash: state.manifest_hash.clone(),
        config_hash: config.hash(),
        world_size: state.world_size,
        batch_norm_per_rank: state.batch_norm_per_rank,
        ended_by_sweep: state.ended_by_sweep,
        epochs: state.epoch,
        steps: state.step,
        temperatures: state.temperatures.clone(),
        best_epoch: state.best.as_ref().map(|best| best.epoch),
        training_rows: data.rows_of(Split::Training).len() as u64,
        // `Run::finish` sets `damaged_rows` and `warnings` later, and `RunResult::count_test` sets `test_asked`.
        damaged_rows: 0,
        warnings: Vec::new(),
        validation,
        test,
        test_asked: 0,
    }
}
