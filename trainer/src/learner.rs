//! A model with everything that its training needs, and a single optimiser step.
//!
//! Deals with batches and ranks. Epochs, files and messages to the user belong to [`crate::run`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tch::{Device, Kind, Tensor, nn};
use wavemill_schemas::config::{ClassWeights, Config};
use wavemill_schemas::exit;
use wavemill_schemas::rng::mix;

use crate::augment::{self, Augmenter};
use crate::checkpoint::{self, CheckpointError};
use crate::dataset::{Batch, BatchTensors, Dataset, DatasetError, DatasetTensors, RowKind};
use crate::ffi::{self, TorchError};
use crate::forward::ForwardPass;
use crate::loss::{Criterion, MixedLabels, TargetLoss, balanced_weights};
use crate::mixup;
use crate::models::init::{self, Origin};
use crate::models::{Inputs, ModelError, Net, registry};
use crate::optim::{OptimError, Optimizer};
use crate::strategy::{self, Buckets, Collective, RankError};

mod output;

pub(crate) use output::ModelOutput;

/// The error type of training steps and of their setup.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The architecture cannot be built for this store, or the model cannot compute its output.
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Optim(#[from] OptimError),
    #[error(transparent)]
    Rank(#[from] RankError),
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The tensors of a checkpoint cannot be read or do not fit.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A global setting of libtorch cannot be changed.
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// A libtorch operation failed.
    #[error("libtorch: {0}")]
    Tch(#[from] tch::TchError),
    /// The loss is NaN or infinite.
    #[error(
        "the loss is {loss} at step {step}: lower optimizer.lr (now {lr:e}), or set optimizer.clip_norm=1.0"
    )]
    Diverged {
        /// Value of the loss: NaN or infinite.
        loss: f64,
        /// Number of optimiser steps done before this one.
        step: u64,
        /// Learning rate of the step.
        lr: f64,
    },
    /// Batch norm over all ranks needs at least one row on each rank.
    #[error("model.sync_batch_norm {0}")]
    SyncBatchNorm(String),
}

impl LearnError {
    /// Returns the exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Model(error) => error.exit_code(),
            Self::Dataset(error) => error.exit_code(),
            Self::Checkpoint(error) => error.exit_code(),
            Self::Rank(error) => error.exit_code(),
            Self::SyncBatchNorm(_) => exit::USAGE,
            Self::Optim(_) | Self::Torch(_) | Self::Tch(_) | Self::Diverged { .. } => exit::FAILED,
        }
    }
}

/// Position of a step in a run. The random numbers of the step are a function of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepContext {
    /// Epoch, counted from 0.
    pub epoch: u64,
    /// Number of optimiser steps done before this one.
    pub step: u64,
    /// Learning rate of the step.
    pub lr: f64,
}

/// Results of one step, summed over all ranks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StepSummary {
    /// Mean of the targets' losses, each Σ weight·loss / Σ weight.
    pub loss: f64,
    /// Rows of the global batch.
    pub rows: u64,
    /// Rows that have a label for the first target.
    pub labelled: u64,
    /// Rows whose first target was predicted correctly; 0 if the target has several labels per row.
    pub correct: f64,
    /// Number of ranks that were asked to stop.
    pub stops: u64,
    /// Rows missing from the batch because they are damaged.
    pub damaged: u64,
}

/// A model with its optimiser and gradients.
#[derive(Debug)]
pub(crate) struct Learner {
    config: Config,
    data: Arc<Dataset>,
    ranks: &'static dyn Collective,
    forward: ForwardPass,
    /// Owns every weight and buffer.
    store: nn::VarStore,
    net: Net,
    optimizer: Optimizer,
    buckets: Buckets,
    criterion: Criterion,
    augmenter: Option<Augmenter>,
}

/// The rank's own rows as tensors on the device, without mixing partners.
struct TrainingRows {
    inputs: Inputs,
    labels: Vec<Tensor>,
    mixed: Option<MixedLabels>,
}

/// Contribution of a micro-batch to its batch.
#[derive(Default)]
struct LossShare {
    loss: f64,
    /// Rows whose first target was predicted correctly.
    correct: f64,
}

impl Learner {
    /// Checks that architecture, rows and number of ranks fit together. Creates no variables.
    ///
    /// # Errors
    /// [`LearnError::Model`], [`LearnError::SyncBatchNorm`].
    pub(crate) fn check(
        config: &Config,
        data: &Dataset,
        world_size: usize,
    ) -> Result<(), LearnError> {
        registry::find(&config.model.name)?.check(&config.model, &data.dims())?;
        check_parts(config, data, world_size)
    }

    /// Creates a model with its initial weights, which depend only on the seed and are the same on every rank.
    ///
    /// # Errors
    /// [`LearnError`] if architecture, rows and number of ranks do not fit together, or libtorch fails.
    pub(crate) fn new(
        config: &Config,
        data: &Arc<Dataset>,
        ranks: &'static dyn Collective,
        device: Device,
    ) -> Result<Self, LearnError> {
        let forward = ForwardPass::new(&config.train, device)?;
        check_parts(config, data, ranks.world_size())?;

        // Seeded just before the variables are drawn, so that they do not depend on earlier draws.
        tch::manual_seed(mix("weights", &[config.seed]) as i64);
        let mut store = nn::VarStore::new(device);
        store.set_kind(forward.kind);
        // A single rank holds all rows, so libtorch's own batch norm is sufficient.
        let over = (config.model.sync_batch_norm && ranks.world_size() > 1)
            .then(|| strategy::sum_group(ranks));
        let net = Net::build(&config.model, &data.dims(), &store.root(), over)?;

        // Sorted by name, which gives the same order on every rank: gradients are exchanged in this order.
        let trainable: Vec<_> = sorted(store.variables())
            .into_iter()
            .filter(|(_, v)| v.requires_grad())
            .collect();
        let buckets = Buckets::new(&trainable, EXTRAS);
        // Augmentation applies to spectrograms only, not to columns or pictures; the run prints a warning for those.
        let augment = &config.augment;
        let is_augmented = augment.enabled
            && data.needs().spectrogram()
            && data.form().kind() == RowKind::Spectrogram;

        Ok(Self {
            config: config.clone(),
            data: Arc::clone(data),
            ranks,
            forward,
            optimizer: Optimizer::new(&config.optimizer, trainable),
            buckets,
            criterion: criterion(config, data, device),
            augmenter: is_augmented
                .then(|| Augmenter::new(augment, config.seed, forward.kind, device)),
            net,
            store,
        })
    }

    /// Loads the weights in `file` for everything except the heads. Every rank reads the file.
    ///
    /// # Errors
    /// [`ModelError::InitRead`], [`ModelError::Unfit`].
    pub(crate) fn start_from(&self, file: &Path) -> Result<Origin, LearnError> {
        Ok(init::load(file, &self.store)?)
    }

    /// Returns the device on which the model computes.
    pub(crate) fn device(&self) -> Device {
        self.forward.device
    }

    #[cfg(test)]
    pub(crate) fn net(&self) -> &Net {
        &self.net
    }

    /// Returns every weight and buffer, sorted by name.
    pub(crate) fn variables(&self) -> Vec<(String, Tensor)> {
        sorted(self.store.variables())
    }

    /// Runs one optimiser step on this rank's part of a global batch. Every rank learns how many ranks set `stop`.
    pub(crate) fn step(
        &mut self,
        batch: &Batch,
        context: StepContext,
        stop: bool,
    ) -> Result<StepSummary, LearnError> {
        let training = self.training_rows(batch, context)?;
        // Summed over all ranks before the backward pass, so that each rank scales several targets correctly.
        let mut weights = self
            .criterion
            .weight_sum(&training.labels, training.mixed.as_ref());
        self.sum_f64(&mut weights)?;

        let mut own = LossShare::default();
        // A rank without a row in this batch runs no forward pass but still takes part in the sums below.
        for (index, part) in parts(batch.n_own(), self.config.train.micro_batches).enumerate() {
            // Reseeded for each forward pass, so that a resumed run drops the same values.
            let key = [
                self.config.seed,
                context.step,
                self.ranks.rank() as u64,
                index as u64,
            ];
            tch::manual_seed(mix("dropout", &key) as i64);

            let share = self.backward(&training.narrow(part), &weights)?;
            own.loss += share.loss;
            own.correct += share.correct;
        }

        let mut extras = [
            own.loss,
            batch.n_own() as f64,
            self.labelled(batch) as f64,
            own.correct,
            f64::from(u8::from(stop)),
            batch.damaged().len() as f64,
        ];
        self.buckets.reduce(self.ranks, &mut extras)?;
        let [loss, rows, labelled, correct, stops, damaged] = extras;
        // The sum is the same on every rank, so all ranks stop here, before any weight changes.
        if !loss.is_finite() {
            return Err(LearnError::Diverged {
                loss,
                step: context.step,
                lr: context.lr,
            });
        }

        // After the reduction, so that the norm is that of the global batch and the same on every rank.
        if let Some(max) = self.config.optimizer.clip_norm {
            let _norm = self.optimizer.clip_norm(max);
        }
        self.optimizer.step(context.lr);
        self.optimizer.zero_grad();

        Ok(StepSummary {
            loss,
            rows: rows as u64,
            labelled: labelled as u64,
            correct,
            stops: stops as u64,
            damaged: damaged as u64,
        })
    }

    /// Averages batch norm's running statistics over the ranks, so that all ranks evaluate the same model.
    pub(crate) fn average_buffers(&self) -> Result<(), LearnError> {
        if self.ranks.world_size() == 1 {
            return Ok(());
        }

        for (_, buffer) in self.buffers() {
            // On the CPU, where sums have the same bits in every run; on a GPU, the order of summation is up to NCCL.
            let mut mean = ffi::send(&buffer, Device::Cpu)?
                .to_kind(Kind::Double)
                .contiguous();
            self.ranks.sum(&mut mean)?;
            tch::no_grad(|| {
                buffer
                    .shallow_clone()
                    .copy_(&(mean / self.ranks.world_size() as f64))
            });
        }
        Ok(())
    }

    /// Returns the tensors that a checkpoint stores: weights, every rank's buffers and the optimiser state. All ranks
    /// must call it.
    pub(crate) fn tensors(&self) -> Result<Vec<(String, Tensor)>, LearnError> {
        let mut tensors: Vec<(String, Tensor)> = self
            .variables()
            .into_iter()
            .map(|(name, tensor)| (format!("model.{name}"), tensor))
            .collect();
        tensors.extend(self.optimizer.state());

        // Each rank has its own running statistics until they are averaged at the end of an epoch.
        let buffers = self.buffers();
        if self.ranks.world_size() == 1 || buffers.is_empty() {
            return Ok(tensors);
        }
        // All buffers travel in one message, in the order of their names, which is the same on every rank.
        let flat = Tensor::cat(
            &buffers
                .iter()
                .map(|(_, b)| b.view(-1).to_kind(Kind::Double))
                .collect::<Vec<_>>(),
            0,
        );

        // Gathered as bytes instead of summed, so that each rank resumes with exactly the bits that it had.
        let values = Vec::<f64>::try_from(ffi::send(&flat, Device::Cpu)?)?;
        let bytes: Vec<u8> = values.into_iter().flat_map(f64::to_le_bytes).collect();
        for (rank, bytes) in self.ranks.gather(&bytes)?.iter().enumerate() {
            let values: Vec<f64> = bytes
                .as_chunks::<8>()
                .0
                .iter()
                .map(|b| f64::from_le_bytes(*b))
                .collect();
            tensors.push((format!("rank{rank}.buffers"), Tensor::from_slice(&values)));
        }
        Ok(tensors)
    }

    /// Restores the tensors returned by [`Self::tensors`]. `world_size` is the number of ranks of the run that wrote
    /// them; a rank's own buffers are restored only if it equals the current number of ranks.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`] and others.
    pub(crate) fn load(
        &mut self,
        tensors: &BTreeMap<String, Tensor>,
        path: &Path,
        world_size: usize,
    ) -> Result<(), LearnError> {
        checkpoint::copy_into(&self.variables(), tensors, "model.", path)?;
        self.optimizer.load(tensors)?;

        let own = tensors.get(&format!("rank{}.buffers", self.ranks.rank()));
        if let Some(flat) = own.filter(|_| world_size == self.ranks.world_size()) {
            // In the order in which `tensors` concatenated them.
            let mut offset = 0;
            for (_, buffer) in self.buffers() {
                let values = flat
                    .narrow(0, offset, buffer.numel() as i64)
                    .view(buffer.size().as_slice());
                tch::no_grad(|| buffer.shallow_clone().copy_(&values));
                offset += buffer.numel() as i64;
            }
        }
        Ok(())
    }

    /// Loads weights and buffers only, for evaluation.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`] and others.
    pub(crate) fn load_model(
        &self,
        tensors: &BTreeMap<String, Tensor>,
        path: &Path,
    ) -> Result<(), LearnError> {
        Ok(checkpoint::copy_into(
            &self.variables(),
            tensors,
            "model.",
            path,
        )?)
    }

    /// Reports whether training normalises by the statistics of each batch. A frozen backbone uses its running
    /// statistics instead.
    pub(crate) fn trains_batch_norm(&self) -> bool {
        !self.config.model.freeze && !self.buffers().is_empty()
    }

    fn buffers(&self) -> Vec<(String, Tensor)> {
        self.variables()
            .into_iter()
            .filter(|(name, _)| name.ends_with("running_mean") || name.ends_with("running_var"))
            .collect()
    }

    fn sum_f64(&self, values: &mut [f64]) -> Result<(), LearnError> {
        // With one rank, the values are the sums already.
        if self.ranks.world_size() > 1 {
            let mut sum = Tensor::from_slice(values);
            self.ranks.sum(&mut sum)?;
            sum.copy_data(values, values.len());
        }
        Ok(())
    }

    /// Loads the rank's own rows, then augments and mixes them.
    fn training_rows(
        &self,
        batch: &Batch,
        context: StepContext,
    ) -> Result<TrainingRows, LearnError> {
        let mut inputs = self.inputs(batch)?;
        // Before mixing: a partner is augmented by its own key, so every rank that reads it computes the same values.
        if let Some(augmenter) = &self.augmenter {
            let rows = augment::Rows {
                epoch: context.epoch,
                keys: batch.keys(),
            };
            inputs.spectrogram = augmenter.apply(&inputs.spectrogram, rows);
        }

        // In a mixed batch, the partners follow the rank's own rows.
        let all_labels = self.labels(batch)?;
        let own = MicroBatch {
            first: 0,
            rows: batch.n_own() as i64,
        };
        let labels = all_labels.iter().map(|labels| own.slice(labels)).collect();
        let Some(partners) = batch.partners() else {
            return Ok(TrainingRows {
                inputs,
                labels,
                mixed: None,
            });
        };

        let device = self.forward.device;
        // Drawn by the row's key, like its partner, so neither depends on the number of ranks.
        let mut lambda = Vec::with_capacity(batch.n_own());
        for &key in &batch.keys()[..batch.n_own()] {
            let alpha = self.config.loss.mixup;
            lambda.push(mixup::lambda(self.config.seed, context.epoch, key, alpha));
        }
        let pairs = Pairs {
            own,
            partners: ffi::send(&Tensor::from_slice(partners), device)?,
            lambda: ffi::send(&Tensor::from_slice(&lambda), device)?.to_kind(self.forward.kind),
        };
        let inputs = Inputs {
            spectrogram: pairs.blend(&inputs.spectrogram),
            metadata: inputs.metadata.as_ref().map(|all| pairs.blend(all)),
            ids: inputs.ids.as_ref().map(|ids| own.slice(ids)),
        };
        let partner_labels = all_labels
            .iter()
            .map(|all| pairs.partners_of(all))
            .collect();
        Ok(TrainingRows {
            inputs,
            labels,
            mixed: Some(MixedLabels {
                labels: partner_labels,
                lambda: pairs.lambda,
            }),
        })
    }

    fn inputs(&self, batch: &Batch) -> Result<Inputs, LearnError> {
        Ok(self
            .data
            .inputs(batch, self.forward.device, self.forward.kind)?)
    }

    fn labels(&self, batch: &Batch) -> Result<Vec<Tensor>, LearnError> {
        let mut labels = Vec::new();
        for (index, target) in self.data.targets().iter().enumerate() {
            labels.push(if target.is_multi() {
                batch.multi_hot(index, self.forward.device)?
            } else {
                batch.labels(index, self.forward.device)?
            });
        }
        Ok(labels)
    }

    /// Counts the rank's own rows that have a label for the first target.
    fn labelled(&self, batch: &Batch) -> usize {
        // Partners, which follow the own rows, are counted by the rank that owns them.
        let target = &self.data.targets()[0];
        batch.rows()[..batch.n_own()]
            .iter()
            .filter(|&&row| target.labels(self.data.rows(), row).next().is_some())
            .count()
    }

    /// Computes a micro-batch's share of the batch's loss and accumulates its gradients.
    fn backward(&self, rows: &TrainingRows, weights: &[f64]) -> Result<LossShare, LearnError> {
        let logits = self.forward.logits(&self.net, &rows.inputs, true)?;
        let sums = self
            .criterion
            .weighted_sum(&logits, &rows.labels, rows.mixed.as_ref());

        let targets = sums.len() as f64;
        let mut means = Vec::with_capacity(sums.len());
        for (sum, &weight) in sums.into_iter().zip(weights) {
            // No mean exists if no rank has a labelled row, or if the weight is 0 in f32: the gradients are then 0.
            let has_mean = weight >= f64::from(f32::MIN_POSITIVE);
            // Divided by the weight of the whole batch, so gradients of micro-batches and ranks only need to be added.
            means.push(if has_mean {
                sum / (weight * targets)
            } else {
                sum * 0.0
            });
        }
        let Some(loss) = means.into_iter().reduce(|a, b| a + b) else {
            return Ok(LossShare::default());
        };
        loss.f_backward()?;

        let mut correct = 0.0;
        // With several labels per row, a row is not right or wrong as a whole.
        if !self.data.targets()[0].is_multi() {
            let hits = tch::no_grad(|| {
                logits[0]
                    .argmax(1, false)
                    .eq_tensor(&rows.labels[0])
                    .sum(Kind::Int64)
            });
            correct = hits.f_double_value(&[])?;
        }
        Ok(LossShare {
            loss: loss.f_double_value(&[])?,
            correct,
        })
    }
}

/// Number of values summed with the gradients: loss, rows, labelled rows, correct rows, stopping ranks, damaged rows.
const EXTRAS: usize = 6;

impl TrainingRows {
    fn narrow(&self, part: MicroBatch) -> Self {
        Self {
            inputs: Inputs {
                spectrogram: part.slice(&self.inputs.spectrogram),
                metadata: self.inputs.metadata.as_ref().map(|m| part.slice(m)),
                ids: self.inputs.ids.as_ref().map(|i| part.slice(i)),
            },
            labels: self.labels.iter().map(|l| part.slice(l)).collect(),
            mixed: self.mixed.as_ref().map(|m| MixedLabels {
                labels: m.labels.iter().map(|l| part.slice(l)).collect(),
                lambda: part.slice(&m.lambda),
            }),
        }
    }
}

/// The rank's own rows and the partner that each is mixed with.
struct Pairs {
    own: MicroBatch,
    /// `[n]` i64: index of each partner in the batch.
    partners: Tensor,
    /// `[n]`: weight of the own row.
    lambda: Tensor,
}

/// Range of rows that forms a micro-batch.
#[derive(Clone, Copy)]
struct MicroBatch {
    first: i64,
    rows: i64,
}

impl MicroBatch {
    fn slice(self, tensor: &Tensor) -> Tensor {
        tensor.narrow(0, self.first, self.rows)
    }
}

impl Pairs {
    fn blend(&self, all: &Tensor) -> Tensor {
        mixup::blend(&self.own.slice(all), &self.partners_of(all), &self.lambda)
    }

    fn partners_of(&self, all: &Tensor) -> Tensor {
        all.index_select(0, &self.partners)
    }
}

/// Splits `rows` rows into micro-batches. Their sizes differ by at most one, and none is empty.
fn parts(rows: usize, micro_batches: usize) -> impl Iterator<Item = MicroBatch> {
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

fn criterion(config: &Config, data: &Dataset, device: Device) -> Criterion {
    let mut losses = Vec::new();
    for (index, target) in data.targets().iter().enumerate() {
        let balanced = !target.is_multi() && config.loss.class_weights == ClassWeights::Balanced;
        losses.push(TargetLoss {
            class_weights: balanced.then(|| balanced_weights(&data.class_counts(index), device)),
            multi_label: target.is_multi(),
        });
    }
    Criterion::new(&config.loss, losses)
}

/// Checks that every rank takes part in every forward pass, which batch norm over ranks requires.
fn check_parts(config: &Config, data: &Dataset, world_size: usize) -> Result<(), LearnError> {
    if !config.model.sync_batch_norm || config.model.freeze || world_size == 1 {
        return Ok(());
    }

    let parts = world_size * config.train.micro_batches;
    let rows = data.rows_of(crate::dataset::Side::Training).len();
    // Limited by the smallest batch of an epoch, which is split into micro-batches on every rank.
    let last = rows % config.data.batch_size;
    let smallest = if last == 0 || config.data.drop_last {
        config.data.batch_size
    } else {
        last
    };
    if smallest < parts {
        return Err(LearnError::SyncBatchNorm(format!(
            "needs a row on every rank: the last batch has {smallest} rows for {parts} parts; set data.drop_last=true, \
             or change data.batch_size"
        )));
    }

    // A rank that lacks a row could run fewer forward passes than the others.
    if config.data.skip_damaged {
        Err(LearnError::SyncBatchNorm(
            "over several ranks cannot skip damaged rows: train on one rank, or without data.skip_damaged, or without \
             model.sync_batch_norm"
                .to_owned(),
        ))
    } else {
        Ok(())
    }
}

/// Returns the variables sorted by name.
pub(crate) fn sorted(
    variables: impl IntoIterator<Item = (String, Tensor)>,
) -> Vec<(String, Tensor)> {
    let mut variables: Vec<(String, Tensor)> = variables.into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    variables
}

#[cfg(test)]
mod tests;
