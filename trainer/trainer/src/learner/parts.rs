//! Division of batches into the rows of one forward pass: over the ranks, then into micro-batches.

use tch::nn::VarStore;
use tch::{Device, Tensor};
use wavemill_schemas::config::Config;
use wavemill_schemas::exit::PlainError;

use crate::TrainError;
use crate::dataset::{self, Dataset, Split};
use crate::models::{Dims, Inputs, ModelError, Net};

/// Range of the rows of a batch that form a micro-batch.
#[derive(Clone, Copy)]
pub(super) struct MicroBatch {
    pub(super) first: i64,
    pub(super) rows: i64,
}

impl MicroBatch {
    pub(super) fn slice(self, tensor: &Tensor) -> Tensor {
        tensor.narrow(0, self.first, self.rows)
    }
}

/// Splits `rows` rows into micro-batches whose sizes differ by at most one. No micro-batch is empty.
pub(super) fn parts(rows: usize, micro_batches: usize) -> impl Iterator<Item = MicroBatch> {
    let count = micro_batches.min(rows);
    (0..count).map(move |i| {
        let first = rows * i / count;
        let end = rows * (i + 1) / count;
        MicroBatch {
            first: first as i64,
            rows: (end - first) as i64,
        }
    })
}

/// Checks that batch norm has several values of each channel in every forward pass, and that every rank takes part in
/// it if batch norm sums over the ranks.
///
/// # Errors
/// [`TrainError::Other`], or [`TrainError::Model`] if libtorch fails.
pub(super) fn check(config: &Config, data: &Dataset, world_size: usize) -> Result<(), TrainError> {
    if config.model.freeze {
        return Ok(());
    }

    let n_rows = data.rows_of(Split::Training).len();
    let batch = smallest_batch(config, n_rows);
    let n_parts = world_size.saturating_mul(config.train.micro_batches);
    if config.model.sync_batch_norm && world_size > 1 {
        return Ok(check_sync(config, batch, n_parts)?);
    }

    // Ranks and micro-batches differ by at most one row, and none is run without rows.
    let n_rows = (batch / n_parts).max(1);
    if n_rows > 1 || is_trainable_by_one_row(config, &dataset::dims(data))? {
        return Ok(());
    }
    Err(PlainError::usage(format!(
        "batch norm needs several values per channel, but a forward pass of training would have one row: the smallest \
         batch has {batch} of data.batch_size = {} rows, in {n_parts} parts (ranks times train.micro_batches); set a \
         larger data.batch_size, fewer train.micro_batches or, if only the last batch is small, data.drop_last=true",
        config.data.batch_size
    ))
    .into())
}

/// Returns the number of rows in the smallest batch of an epoch over `n_rows` rows.
fn smallest_batch(config: &Config, n_rows: usize) -> usize {
    let last = n_rows % config.data.batch_size;
    if last == 0 || config.data.drop_last {
        config.data.batch_size
    } else {
        last
    }
}

/// Checks that no rank is without rows if batch norm sums over the ranks.
fn check_sync(config: &Config, batch: usize, n_parts: usize) -> Result<(), PlainError> {
    if batch < n_parts {
        return Err(PlainError::usage(format!(
            "model.sync_batch_norm needs a row on every rank: the last batch has {batch} rows for {n_parts} parts; set \
             data.drop_last=true, or change data.batch_size"
        )));
    }

    // A rank whose rows are damaged could run fewer forward passes than the other ranks.
    if config.data.skip_damaged {
        Err(PlainError::usage(
            "model.sync_batch_norm over several ranks cannot skip damaged rows: train on one rank, or without \
             data.skip_damaged, or without model.sync_batch_norm",
        ))
    } else {
        Ok(())
    }
}

/// Reports whether the model can be trained by a single row. Found by a forward pass of a model that is dropped
/// afterwards, so that architectures need not state the shapes of their batch norms.
fn is_trainable_by_one_row(config: &Config, dims: &Dims) -> Result<bool, ModelError> {
    let store = VarStore::new(Device::Cpu);
    let net = Net::build(&config.model, dims, &store.root(), None)?;
    match tch::no_grad(|| net.forward(&Inputs::zeros(dims)?, true)) {
        Ok(_) => Ok(true),
        Err(ModelError::OneValue) => Ok(false),
        Err(error) => Err(error),
    }
}
