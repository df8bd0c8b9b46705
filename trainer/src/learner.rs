//! A model with its optimizer, loss and gradients, and the computation of a single optimiser step.
//!
//! This module handles batches and the exchange between ranks. Epochs, files and messages to the user are in
//! [`crate::run`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tch::{Device, Kind, Tensor, nn};
use wavemill_schemas::config::{self, ClassWeights, Config, PosWeight};
use wavemill_schemas::exit;
use wavemill_schemas::rng::mix;
use wavemill_scores::metrics::MetricsError;

use crate::augment::{self, Augmenter};
use crate::checkpoint::{self, CheckpointError};
use crate::dataset::{Batch, BatchTensors, Dataset, DatasetError, DatasetTensors, RowKind, Side};
use crate::ffi::{self, TorchError};
use crate::forward::ForwardPass;
use crate::loss::{Criterion, MixedLabels, TargetLoss, balanced_weights, positive_weights};
use crate::mixup;
use crate::models::init::{self, Origin};
use crate::models::{HEAD, Inputs, ModelError, Net, is_head, registry};
use crate::optim::{OptimError, Optimizer, WeightAverage};
use crate::profile::{Part, Profile};
use crate::safetensors;
use crate::strategy::{self, Buckets, Collective, RankError};

mod damage;
mod output;
mod parts;

pub(crate) use output::ModelOutput;
use parts::MicroBatch;

/// Error of a training step or of setting up a model for training.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The architecture cannot be built for this store, or the model cannot compute its outputs.
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Optim(#[from] OptimError),
    #[error(transparent)]
    Rank(#[from] RankError),
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The tensors of a checkpoint cannot be read or do not fit the model.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A global setting of libtorch cannot be changed.
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// An operation of libtorch failed.
    #[error("libtorch: {0}")]
    Tch(#[from] tch::TchError),
    /// The training loss is NaN or infinite.
    #[error(
        "the loss is {loss} at step {step}: lower optimizer.lr (now {lr:e}), or set optimizer.clip_norm=1.0"
    )]
    Diverged {
        /// Value of the loss, which is NaN or infinite.
        loss: f64,
        /// Number of optimiser steps before this one.
        step: u64,
        /// Learning rate of this step.
        lr: f64,
    },
    /// An output is NaN or infinite. The losses of an epoch do not show that its last step diverged, because each is
    /// computed before its step.
    #[error(
        "{0}, although the stored values of this row are possible: training has diverged; lower optimizer.lr, or set \
         optimizer.clip_norm=1.0"
    )]
    DivergedOutput(MetricsError),
    /// The loss is not finite because of a row whose stored values cannot be right.
    #[error(
        "the loss is not a number at step {step}, because of damaged input: {problem}: run `wavemill verify`, and \
         `wavemill extract --new-version --recompute` if it finds nothing"
    )]
    DamagedInput {
        /// Number of optimiser steps before this one.
        step: u64,
        /// Description of the row and its values.
        problem: String,
    },
    /// A forward pass of training would have too few rows for the model's batch norm, or a rank might have none.
    #[error("{0}")]
    BatchNorm(String),
}

impl LearnError {
    /// Returns the exit code of the process for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Model(error) => error.exit_code(),
            Self::Dataset(error) => error.exit_code(),
            Self::Checkpoint(error) => error.exit_code(),
            Self::Rank(error) => error.exit_code(),
            Self::DamagedInput { .. } => exit::DAMAGED,
            Self::BatchNorm(_) => exit::USAGE,
            Self::Optim(_)
            | Self::Torch(_)
            | Self::Tch(_)
            | Self::Diverged { .. }
            | Self::DivergedOutput(_) => exit::FAILED,
        }
    }
}

/// Position of a step in a run, from which the step's random numbers are derived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepContext {
    /// Epoch, counted from 0.
    pub epoch: u64,
    /// Number of optimiser steps before this one.
    pub step: u64,
    /// Learning rate of this step.
    pub lr: f64,
}

/// Results of one optimiser step, summed over all ranks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StepSummary {
    /// Mean of the losses of all targets; each is Σ weight·loss / Σ weight.
    pub loss: f64,
    /// Number of rows in the global batch.
    pub rows: u64,
    /// Number of rows that have a label for the first target.
    pub labelled: u64,
    /// Number of rows whose first target was predicted correctly; 0 for a multi-label target.
    pub correct: f64,
    /// Number of ranks that were asked to stop training.
    pub stops: u64,
    /// Number of rows that are missing from the batch because they are damaged.
    pub damaged: u64,
}

/// A model with its optimiser and gradient buckets.
#[derive(Debug)]
pub(crate) struct Learner {
    config: Config,
    data: Arc<Dataset>,
    ranks: &'static dyn Collective,
    forward: ForwardPass,
    /// Contains every weight and buffer of the model.
    store: nn::VarStore,
    net: Net,
    optimizer: Optimizer,
    average: Option<WeightAverage>,
    /// Temperature of each target, by which logits are divided to get probabilities; 1 if empty.
    temperatures: Vec<f64>,
    buckets: Buckets,
    criterion: Criterion,
    augmenter: Option<Augmenter>,
    profile: Option<Arc<Profile>>,
}

/// The rows of this rank as tensors on the device, after augmentation and mix-up.
struct TrainingRows {
    inputs: Inputs,
    labels: Vec<Tensor>,
    mixed: Option<MixedLabels>,
}

/// Contribution of micro-batches to the results of their batch, as f64 scalars on the model's device. Reading them
/// would wait for the device.
struct LossShare {
    loss: Tensor,
    /// Number of rows whose first target was predicted correctly.
    correct: Tensor,
}

impl Learner {
    /// Checks that the architecture fits the stored rows and the number of ranks.
    ///
    /// # Errors
    /// [`LearnError::Model`] if the model cannot use the rows, [`LearnError::BatchNorm`] if a forward pass may have too
    /// few rows.
    pub(crate) fn check(
        config: &Config,
        data: &Dataset,
        world_size: usize,
    ) -> Result<(), LearnError> {
        registry::find(&config.model.name)?.check(&config.model, &data.dims())?;
        parts::check(config, data, world_size)
    }

    /// Creates a model with its initial weights, which depend only on the seed and are equal on all ranks.
    ///
    /// # Errors
    /// [`LearnError`] if the architecture does not fit the rows, or if libtorch fails.
    pub(crate) fn new(
        config: &Config,
        data: &Arc<Dataset>,
        ranks: &'static dyn Collective,
        device: Device,
    ) -> Result<Self, LearnError> {
        let forward = ForwardPass::new(&config.train, device)?;

        // Set the seed just before the weights are drawn, so that they do not depend on earlier random numbers.
        tch::manual_seed(mix("weights", &[config.seed]) as i64);
        let mut store = nn::VarStore::new(device);
        store.set_kind(forward.kind);
        // A single rank has all rows of a batch, so libtorch's own batch norm is sufficient.
        let over = (config.model.sync_batch_norm && ranks.world_size() > 1)
            .then(|| strategy::sum_group(ranks));
        let net = Net::build(&config.model, &data.dims(), &store.root(), over)?;

        // Sort variables by name: gradients are exchanged in this order, which must be the same on all ranks.
        let trainable: Vec<_> = sorted(store.variables())
            .into_iter()
            .filter(|(_, v)| v.requires_grad())
            .collect();
        let names = trainable.iter().map(|(name, _)| name.as_str());
        check_groups(&config.optimizer, names, net.layers())?;
        let average = config.train.ema_decay;
        let average = average.map(|decay| WeightAverage::new(decay, &trainable));
        let buckets = Buckets::new(&trainable);
        // Augmentation applies to spectrograms only. For metadata columns and pictures, the run prints a warning.
        let augment = &config.augment;
        let is_augmented = augment.enabled
            && data.needs().spectrogram()
            && data.form().kind == RowKind::Spectrogram;

        Ok(Self {
            config: config.clone(),
            data: Arc::clone(data),
            ranks,
            forward,
            optimizer: Optimizer::new(&config.optimizer, trainable).with_layers(net.layers()),
            average,
            temperatures: Vec::new(),
            buckets,
            criterion: criterion(config, data, device),
            augmenter: is_augmented
                .then(|| Augmenter::new(augment, config.seed, forward.kind, device)),
            net,
            store,
            profile: None,
        })
    }

    /// Measures the parts of the next steps.
    pub(crate) fn measure(&mut self, profile: Option<Arc<Profile>>) {
        self.profile = profile;
    }

    /// Loads the weights in `file` for the whole model except the heads. Every rank reads the file.
    ///
    /// # Errors
    /// [`ModelError::InitRead`] if the file cannot be read, [`ModelError::Unfit`] if its weights do not fit the model.
    pub(crate) fn start_from(&self, file: &Path) -> Result<Origin, LearnError> {
        let n_heads = self.data.dims().heads.len();
        check_heads(&self.config.model, &self.store, n_heads)?;
        let origin = init::load(file, &self.store)?;
        self.check_weights_of(file)?;
        self.average.iter().for_each(WeightAverage::reset);
        Ok(origin)
    }

    /// Returns the device on which the model computes.
    pub(crate) fn device(&self) -> Device {
        self.forward.device
    }

    pub(crate) const fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    #[cfg(test)]
    pub(crate) fn net(&self) -> &Net {
        &self.net
    }

    /// Returns all weights and buffers of the model, sorted by name.
    pub(crate) fn variables(&self) -> Vec<(String, Tensor)> {
        sorted(self.store.variables())
    }

    /// Runs one optimiser step on this rank's part of a global batch. The result has the number of ranks that set
    /// `stop`.
    pub(crate) fn step(
        &mut self,
        batch: &Batch,
        context: StepContext,
        stop: bool,
    ) -> Result<StepSummary, LearnError> {
        let copying = Profile::start(&self.profile, Part::Copying);
        let (training, mut weights) = self.training_rows(batch, context)?;
        drop(copying);
        // The weights of the rows are summed over all ranks before the backward pass, since each target's loss is
        // divided by its sum.
        let summing = Profile::start(&self.profile, Part::Sums);
        self.sum_f64(&mut weights)?;
        drop(summing);

        let mut own = LossShare::zero(self.forward.device);
        // A rank without rows in this batch runs no forward pass but still takes part in the sums over the ranks.
        for (index, part) in parts::parts(batch.n_own, self.config.train.micro_batches).enumerate()
        {
            // Set the seed before each forward pass, so that a resumed run draws the same dropout.
            let key = [
                self.config.seed,
                context.step,
                self.ranks.rank() as u64,
                index as u64,
            ];
            tch::manual_seed(mix("dropout", &key) as i64);

            let share = match self.backward(&training.narrow(part), &weights) {
                // Skipped rows may leave a single row, which batch norm cannot use. It adds nothing to the batch.
                Err(LearnError::Model(ModelError::OneValue)) if !batch.damaged.is_empty() => {
                    continue;
                }
                share => share?,
            };
            own.loss = own.loss.f_add(&share.loss)?;
            own.correct = own.correct.f_add(&share.correct)?;
        }

        let summing = Profile::start(&self.profile, Part::Sums);
        let mut extras = self.extras(batch, &own, stop)?;
        self.buckets.reduce(self.ranks, &mut extras)?;
        drop(summing);

        let optimizing = Profile::start(&self.profile, Part::Optimizer);
        self.optimizer.set_epoch(context.epoch);
        // Clip after the gradients are summed, so that the norm is that of the global batch and equal on all ranks.
        if let Some(max) = self.config.optimizer.clip_norm {
            let _norm = self.optimizer.clip_norm(max);
        }
        self.optimizer.step(context.lr);
        self.optimizer.zero_grad();
        if let Some(average) = &mut self.average {
            average.update(context.step);
        }
        drop(optimizing);
        self.profile.iter().for_each(|profile| profile.step_ended());

        // The only wait for the device in a step. All work has been queued before, so that the device is not idle.
        let values = Vec::<f64>::try_from(ffi::send(&extras, Device::Cpu)?)?;
        let [loss, rows, labelled, correct, stops, damaged] =
            std::array::from_fn(|index| values[index]);
        // The loss is the same on all ranks, so all of them return the error. The weights have changed already, but the
        // error ends the run before they are saved.
        if !loss.is_finite() {
            return Err(self.explain_loss(batch, loss, context));
        }

        Ok(StepSummary {
            loss,
            rows: rows as u64,
            labelled: labelled as u64,
            correct,
            stops: stops as u64,
            damaged: damaged as u64,
        })
    }

    /// Returns the numbers of a step that are summed with the gradients, as f64 on the model's device: those of
    /// [`StepSummary`] in the order of its fields, then zeros.
    fn extras(&self, batch: &Batch, own: &LossShare, stop: bool) -> Result<Tensor, LearnError> {
        let mut values = vec![
            0.0,
            batch.n_own as f64,
            self.labelled(batch) as f64,
            0.0,
            f64::from(u8::from(stop)),
            batch.damaged.len() as f64,
        ];
        // With at least one value per rank, the loss is in the ring's first segment. The order in which the ranks'
        // losses are added then does not depend on the number of values.
        values.resize(values.len().max(self.ranks.world_size()), 0.0);

        let extras = ffi::send(&Tensor::from_slice(&values), self.forward.device)?;
        extras.get(0).f_copy_(&own.loss)?;
        extras.get(3).f_copy_(&own.correct)?;
        Ok(extras)
    }

    /// Exchanges the trained weights and their moving average in the model, if the run has one: before and after an
    /// evaluation.
    pub(crate) fn swap_average(&mut self) {
        if let Some(average) = &mut self.average {
            average.swap();
        }
    }

    /// Averages the running statistics of batch norm over the ranks, so that all ranks evaluate the same model.
    pub(crate) fn average_buffers(&self) -> Result<(), LearnError> {
        if self.ranks.world_size() == 1 {
            return Ok(());
        }

        for (_, buffer) in self.buffers() {
            // Sum on the CPU, where sums have the same bits in every run. On a GPU, NCCL chooses the order of
            // summation.
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

    /// Returns the tensors of a checkpoint: weights, buffers of all ranks, and the optimiser's state. All ranks must
    /// call this.
    pub(crate) fn tensors(&self) -> Result<Vec<(String, Tensor)>, LearnError> {
        let mut tensors: Vec<(String, Tensor)> = self
            .variables()
            .into_iter()
            .map(|(name, tensor)| (format!("model.{name}"), tensor))
            .collect();
        if let Some(average) = &self.average {
            average.store(&mut tensors);
        }
        tensors.extend(self.optimizer.state());

        // Until the end of an epoch, each rank has its own running statistics.
        let buffers = self.buffers();
        if self.ranks.world_size() == 1 || buffers.is_empty() {
            return Ok(tensors);
        }
        // All buffers are sent in one message, sorted by name, so that the order is the same on every rank.
        let flat = Tensor::cat(
            &buffers
                .iter()
                .map(|(_, b)| b.view(-1).to_kind(Kind::Double))
                .collect::<Vec<_>>(),
            0,
        );

        // Buffers are gathered from all ranks and not averaged, so that each rank resumes with exactly the same bits.
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
    /// them; the buffers of each rank are restored only if the number of ranks has not changed.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`] if the tensors do not fit the model, other errors of reading a checkpoint, and
    /// [`RankError::Disagree`] if another rank read other weights.
    pub(crate) fn load(
        &mut self,
        tensors: &BTreeMap<String, Tensor>,
        path: &Path,
        world_size: usize,
    ) -> Result<(), LearnError> {
        checkpoint::copy_into(&self.variables(), tensors, "model.", path)?;
        self.check_weights_of(path)?;
        if let Some(average) = &self.average {
            average.load(tensors, path)?;
        }
        self.optimizer.load(tensors)?;

        let own = tensors.get(&format!("rank{}.buffers", self.ranks.rank()));
        if let Some(flat) = own.filter(|_| world_size == self.ranks.world_size()) {
            // Buffers are in the order in which `tensors` concatenated them.
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

    /// Loads only weights and buffers of a checkpoint, for evaluation.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`] if the tensors do not fit the model, other errors of reading a checkpoint, and
    /// [`RankError::Disagree`] if another rank read other weights.
    pub(crate) fn load_model(
        &self,
        tensors: &BTreeMap<String, Tensor>,
        path: &Path,
    ) -> Result<(), LearnError> {
        checkpoint::copy_into(&self.variables(), tensors, "model.", path)?;
        self.check_weights_of(path)?;
        self.average.iter().for_each(WeightAverage::reset);
        Ok(())
    }

    /// Checks that all ranks read the same weights from `path`. Each rank reads its own machine's file, and another
    /// process may write a better checkpoint between two reads. All ranks must call this.
    ///
    /// # Errors
    /// Those of [`Self::check_equal`].
    fn check_weights_of(&self, path: &Path) -> Result<(), LearnError> {
        self.check_equal(&format!("weights of {}", path.display()))
    }

    /// Checks that all ranks have the same weights, called `name` in the error. All ranks must call this. Random
    /// weights may differ between kinds of GPUs and CPUs.
    ///
    /// # Errors
    /// [`RankError::Disagree`] on every rank; the message names the first rank that differs from rank 0.
    pub(crate) fn check_equal(&self, name: &str) -> Result<(), LearnError> {
        if self.ranks.world_size() == 1 {
            return Ok(());
        }
        let mut hasher = blake3::Hasher::new();
        for (_, tensor) in self.variables() {
            let bytes = safetensors::bytes_of(&tensor).map_err(|source| {
                RankError::Other(format!("rank {}: {source}", self.ranks.rank()))
            })?;
            hasher.update(&bytes);
        }

        let own = hasher.finalize().to_hex();
        let all = self.ranks.gather(own.as_bytes())?;
        let Some(rank) = all.iter().position(|hash| *hash != all[0]) else {
            return Ok(());
        };
        // All ranks return the same error, so none may take the end of another for its loss.
        let _ = self.ranks.finish();
        let [found, wanted] = [rank, 0].map(|rank| String::from_utf8_lossy(&all[rank]));
        let field = format!("{name} with the blake3");
        Err(RankError::differs(rank, &field, &found, &wanted).into())
    }

    /// Divides logits by the temperature of each target from now on. Losses are still those of the logits.
    pub(crate) fn set_temperatures(&mut self, temperatures: Vec<f64>) {
        self.temperatures = temperatures;
    }

    /// Reports whether batch norm uses the statistics of each batch in training. A frozen backbone uses its running
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
        // With one rank, the values are already the sums over all ranks.
        if self.ranks.world_size() > 1 {
            let mut sum = Tensor::from_slice(values);
            self.ranks.sum(&mut sum)?;
            sum.copy_data(values, values.len());
        }
        Ok(())
    }

    /// Creates the tensors for this rank's rows, then augments and mixes them. Also returns the sum of the rows'
    /// weights for each target, which is computed in host memory and does not wait for the device.
    fn training_rows(
        &self,
        batch: &Batch,
        context: StepContext,
    ) -> Result<(TrainingRows, Vec<f64>), LearnError> {
        let mut inputs = self.inputs(batch)?;
        // Augment before mixing: a partner is augmented by its own key, so all ranks that read the partner compute the
        // same values.
        if let Some(augmenter) = &self.augmenter {
            let rows = augment::Rows {
                epoch: context.epoch,
                keys: &batch.keys,
            };
            inputs.spectrogram = augmenter.apply(&inputs.spectrogram, rows);
        }

        // In a batch with mix-up, partners that belong to other ranks follow the rows of this rank.
        let all_labels = self.labels(batch)?;
        let own = MicroBatch {
            first: 0,
            rows: batch.n_own as i64,
        };
        let labels: Vec<Tensor> = all_labels.iter().map(|labels| own.slice(labels)).collect();
        let Some(partners) = &batch.partners else {
            let weights = self.criterion.weight_sum(&labels, None);
            let rows = TrainingRows {
                inputs,
                labels: self.sent(&labels)?,
                mixed: None,
            };
            return Ok((rows, weights));
        };

        // λ is drawn by the row's key, like the mix-up partner, so neither depends on the number of ranks.
        let mut lambda = Vec::with_capacity(batch.n_own);
        for &key in &batch.keys[..batch.n_own] {
            let alpha = self.config.loss.mixup;
            lambda.push(mixup::lambda(self.config.seed, context.epoch, key, alpha));
        }
        let mut pairs = Pairs {
            own,
            partners: Tensor::from_slice(partners),
            lambda: Tensor::from_slice(&lambda).to_kind(self.forward.kind),
        };
        let mixed = MixedLabels {
            labels: all_labels
                .iter()
                .map(|all| pairs.partners_of(all))
                .collect(),
            lambda: pairs.lambda.shallow_clone(),
        };
        let weights = self.criterion.weight_sum(&labels, Some(&mixed));

        // From here on, everything is on the device.
        pairs.partners = ffi::send(&pairs.partners, self.forward.device)?;
        pairs.lambda = ffi::send(&pairs.lambda, self.forward.device)?;
        let inputs = Inputs {
            spectrogram: pairs.blend(&inputs.spectrogram),
            metadata: inputs.metadata.as_ref().map(|all| pairs.blend(all)),
            ids: inputs.ids.as_ref().map(|ids| own.slice(ids)),
        };
        let rows = TrainingRows {
            inputs,
            labels: self.sent(&labels)?,
            mixed: Some(MixedLabels {
                labels: self.sent(&mixed.labels)?,
                lambda: pairs.lambda,
            }),
        };
        Ok((rows, weights))
    }

    fn inputs(&self, batch: &Batch) -> Result<Inputs, LearnError> {
        Ok(self
            .data
            .inputs(batch, self.forward.device, self.forward.kind)?)
    }

    /// Returns the labels of each target in host memory.
    fn labels(&self, batch: &Batch) -> Result<Vec<Tensor>, LearnError> {
        let mut labels = Vec::new();
        for (index, target) in self.data.targets().iter().enumerate() {
            labels.push(if target.is_multi() {
                batch.multi_hot(index, Device::Cpu)?
            } else {
                batch.labels(index, Device::Cpu)?
            });
        }
        Ok(labels)
    }

    /// Copies tensors to the model's device.
    fn sent(&self, tensors: &[Tensor]) -> Result<Vec<Tensor>, LearnError> {
        let mut sent = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            sent.push(ffi::send(tensor, self.forward.device)?);
        }
        Ok(sent)
    }

    /// Counts the rows of this rank that have a label for the first target.
    fn labelled(&self, batch: &Batch) -> usize {
        // Mix-up partners that belong to other ranks are counted by those ranks.
        let target = &self.data.targets()[0];
        batch.rows[..batch.n_own]
            .iter()
            .filter(|&&row| target.labels(self.data.rows(), row).next().is_some())
            .count()
    }

    /// Computes the share of a micro-batch in the batch's loss, and adds its gradients to those of the batch.
    fn backward(&self, rows: &TrainingRows, weights: &[f64]) -> Result<LossShare, LearnError> {
        let forward = Profile::start(&self.profile, Part::Forward);
        let logits = self.forward.logits(&self.net, &rows.inputs, true)?;
        let sums = self
            .criterion
            .weighted_sum(&logits, &rows.labels, rows.mixed.as_ref());

        let targets = sums.len() as f64;
        let mut means = Vec::with_capacity(sums.len());
        for (sum, &weight) in sums.into_iter().zip(weights) {
            // The mean loss is undefined if no rank has a labelled row or the weight is 0 in f32. The gradients are
            // then 0.
            let has_mean = weight >= f64::from(f32::MIN_POSITIVE);
            // Divide by the weight of the whole batch, so that gradients of micro-batches and ranks only need to be
            // added.
            means.push(if has_mean {
                sum / (weight * targets)
            } else {
                sum * 0.0
            });
        }
        let mut share = LossShare::zero(self.forward.device);
        let Some(loss) = means.into_iter().reduce(|a, b| a + b) else {
            return Ok(share);
        };
        drop(forward);
        let backward = Profile::start(&self.profile, Part::Backward);
        loss.f_backward()?;
        drop(backward);
        share.loss = loss.f_detach()?.f_to_kind(Kind::Double)?;

        // With several labels per row, a row does not count as correct or wrong.
        if !self.data.targets()[0].is_multi() {
            let hits = tch::no_grad(|| {
                logits[0]
                    .argmax(1, false)
                    .eq_tensor(&rows.labels[0])
                    .sum(Kind::Int64)
            });
            share.correct = hits.f_to_kind(Kind::Double)?;
        }
        Ok(share)
    }
}

impl LossShare {
    fn zero(device: Device) -> Self {
        let zero = || Tensor::zeros([], (Kind::Double, device));
        Self {
            loss: zero(),
            correct: zero(),
        }
    }
}

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

/// The rows of this rank and the mix-up partner of each.
struct Pairs {
    own: MicroBatch,
    /// Index of each row's partner in the batch: `[n]` i64.
    partners: Tensor,
    /// λ, the weight of each row; its partner has 1 − λ: `[n]`.
    lambda: Tensor,
}

impl Pairs {
    fn blend(&self, all: &Tensor) -> Tensor {
        mixup::blend(&self.own.slice(all), &self.partners_of(all), &self.lambda)
    }

    fn partners_of(&self, all: &Tensor) -> Tensor {
        all.index_select(0, &self.partners)
    }
}

/// Returns an error if a layer of the backbone has the name of the heads: `model.init` would leave it out.
fn check_heads(
    model: &config::Model,
    store: &nn::VarStore,
    n_heads: usize,
) -> Result<(), ModelError> {
    let n_variables = sorted(store.variables())
        .iter()
        .filter(|(name, _)| is_head(name))
        .count();

    // Each head has a weight and a bias.
    if n_variables == 2 * n_heads {
        return Ok(());
    }
    Err(ModelError::Unfit(format!(
        "the model {} has a layer {HEAD}, which is the name of its heads: rename the layer",
        model.name
    )))
}

/// Checks that each group of `optimizer.groups` contains a trainable variable, and that the order of the layers is
/// known if their rates decay.
fn check_groups<'a>(
    optimizer: &config::Optimizer,
    names: impl Iterator<Item = &'a str> + Clone,
    layers: &[String],
) -> Result<(), ModelError> {
    let mut parts = names.clone().filter_map(|name| name.split('.').next());
    if optimizer.layer_decay.is_some()
        && parts.any(|part| !layers.iter().any(|layer| layer == part))
    {
        let words = "optimizer.layer_decay: the order of this model's layers is unknown";
        return Err(ModelError::Unfit(words.to_owned()));
    }

    for group in &optimizer.groups {
        if !names.clone().any(|name| group.contains(name)) {
            let names: Vec<&str> = names.collect();
            return Err(ModelError::Unfit(format!(
                "optimizer.groups: no trainable variable matches {:?}; there are {}",
                group.names,
                names.join(", ")
            )));
        }
    }
    Ok(())
}

fn criterion(config: &Config, data: &Dataset, device: Device) -> Criterion {
    let mut losses = Vec::new();
    for (index, target) in data.targets().iter().enumerate() {
        let is_multi = target.is_multi();
        let weighs_classes = !is_multi && config.loss.class_weights == ClassWeights::Balanced;
        let weighs_positives = is_multi && config.loss.pos_weight == PosWeight::Balanced;
        losses.push(TargetLoss {
            class_weights: weighs_classes
                .then(|| balanced_weights(&data.class_counts(index), device)),
            pos_weights: weighs_positives.then(|| {
                positive_weights(&data.class_counts(index), n_labelled(data, index), device)
            }),
            multi_label: is_multi,
        });
    }
    Criterion::new(&config.loss, losses)
}

/// Counts the training rows that have a label of a target.
fn n_labelled(data: &Dataset, target: usize) -> u64 {
    let target = &data.targets()[target];
    let rows = data.rows_of(Side::Training).into_iter();
    let labelled = rows.filter(|&row| target.labels(data.rows(), row).next().is_some());
    labelled.count() as u64
}

/// Returns the variables sorted by name, with their names.
pub(crate) fn sorted(
    variables: impl IntoIterator<Item = (String, Tensor)>,
) -> Vec<(String, Tensor)> {
    let mut variables: Vec<(String, Tensor)> = variables.into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    variables
}

#[cfg(test)]
mod tests;
