//! A model with all that its training needs, and one optimiser step of it.
//!
//! Knows batches and ranks; not epochs, files or people: that is [`crate::run`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tch::{Device, Kind, Tensor, nn};

use crate::augment::{self, Augmenter};
use crate::checkpoint::{self, CheckpointError};
use crate::config::{ClassWeights, Config};
use crate::dataset::{Batch, Dataset, DatasetError};
use crate::ffi::TorchError;
use crate::loss::{Criterion, Mixed, TargetLoss, balanced_weights};
use crate::mixup;
use crate::models::init::{self, Origin};
use crate::models::{Inputs, ModelError, Net, registry};
use crate::numbers::Numbers;
use crate::optim::{OptimError, Optimizer};
use crate::rng::mix;
use crate::strategy::{self, Buckets, Collective, RankError};

mod answers;

pub use answers::{Answer, Answers};

/// Why a step, or what it needs, cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The architecture cannot be built for this store.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Optimiser state.
    #[error(transparent)]
    Optim(#[from] OptimError),
    /// Another rank.
    #[error(transparent)]
    Rank(#[from] RankError),
    /// Rows.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A checkpoint's tensors.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A switch of libtorch.
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Tch(#[from] tch::TchError),
    /// The loss is no number any more.
    #[error("the loss is {loss} at step {step}: lower optimizer.lr (now {lr:e}), or set optimizer.clip_norm=1.0")]
    Diverged {
        /// NaN or infinity.
        loss: f64,
        /// Optimiser steps done.
        step: u64,
        /// Rate of the step.
        lr: f64,
    },
    /// Batch norm over all ranks needs rows on each of them.
    #[error(
        "model.sync_batch_norm needs a row on every rank: the last batch has {rows} for {parts} parts; \
         set data.drop_last=true or another data.batch_size"
    )]
    TooFewRows {
        /// Of the smallest batch.
        rows: usize,
        /// Ranks · micro-batches.
        parts: usize,
    },
    /// Batch norm over all ranks, and rows that may be missing on one of them.
    #[error(
        "model.sync_batch_norm over several ranks cannot pass over damaged rows: train on one rank, or without \
         data.skip_damaged, or without model.sync_batch_norm"
    )]
    SkipsRows,
}

/// When in a run a step happens; random numbers of the step are a function of it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// From 0.
    pub epoch: u64,
    /// Optimiser steps done.
    pub step: u64,
    /// Learning rate of the step.
    pub lr: f64,
}

/// What a step did, over all ranks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stepped {
    /// Mean of the targets' losses, each Σ weight·loss / Σ weight.
    pub loss: f64,
    /// Rows of the global batch.
    pub rows: u64,
    /// Rows with a label of the first target.
    pub labelled: u64,
    /// Rows whose first target was right; 0 where it has several labels a row.
    pub correct: f64,
    /// Ranks that were asked to stop.
    pub stops: u64,
    /// Rows that the batch lacks because they are damaged.
    pub damaged: u64,
}

/// A model, its optimiser and its gradients.
#[derive(Debug)]
pub struct Learner {
    config: Config,
    data: Arc<Dataset>,
    ranks: &'static dyn Collective,
    numbers: Numbers,
    /// Owns every weight and buffer.
    store: nn::VarStore,
    net: Net,
    optimizer: Optimizer,
    buckets: Buckets,
    criterion: Criterion,
    augmenter: Option<Augmenter>,
}

/// A rank's rows as tensors on the device, own ones only.
struct Ready {
    inputs: Inputs,
    labels: Vec<Tensor>,
    mixed: Option<Mixed>,
}

impl Learner {
    /// Whether architecture, rows and ranks suit each other; makes nothing.
    ///
    /// # Errors
    /// [`LearnError::Model`], [`LearnError::TooFewRows`].
    pub fn check(config: &Config, data: &Dataset, world_size: usize) -> Result<(), LearnError> {
        registry::find(&config.model.name)?.check(&config.model, &data.dims())?;
        check_parts(config, data, world_size)
    }

    /// A model with its first weights, the same on every rank: a function of the seed alone.
    ///
    /// # Errors
    /// [`LearnError`]: an architecture that does not fit the rows, a file of weights that does not fit it.
    pub fn new(
        config: &Config,
        data: &Arc<Dataset>,
        ranks: &'static dyn Collective,
        device: Device,
    ) -> Result<Self, LearnError> {
        let numbers = Numbers::new(&config.train, device)?;
        check_parts(config, data, ranks.world_size())?;
        tch::manual_seed(mix("weights", &[config.seed]) as i64);
        let mut store = nn::VarStore::new(device);
        store.set_kind(numbers.kind);
        let over = (config.model.sync_batch_norm && ranks.world_size() > 1).then(|| strategy::sum_group(ranks));
        let net = Net::build(&config.model, &data.dims(), &store.root(), over)?;
        let trainable: Vec<_> = sorted(store.variables()).into_iter().filter(|(_, v)| v.requires_grad()).collect();
        let (augment, buckets) = (&config.augment, Buckets::new(&trainable, EXTRAS));
        Ok(Self {
            config: config.clone(),
            data: Arc::clone(data),
            ranks,
            numbers,
            optimizer: Optimizer::new(&config.optimizer, trainable),
            buckets,
            criterion: criterion(config, data, device),
            augmenter: (augment.enabled && data.needs().spectrogram())
                .then(|| Augmenter::new(augment, config.seed, numbers.kind, device)),
            net,
            store,
        })
    }

    /// Takes the weights of `file` for all but the heads; every rank reads it.
    ///
    /// # Errors
    /// [`ModelError::InitRead`], [`ModelError::InitKeys`].
    pub fn start_from(&self, file: &Path) -> Result<Origin, LearnError> {
        Ok(init::load(file, &self.store)?)
    }

    /// Where it computes.
    #[must_use]
    pub fn device(&self) -> Device {
        self.numbers.device
    }

    /// The model.
    #[must_use]
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// Every weight and buffer, by name, in order.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, Tensor)> {
        sorted(self.store.variables())
    }

    /// One optimiser step on this rank's part of a global batch; `stop` is told to all ranks.
    ///
    /// # Errors
    /// [`LearnError`].
    pub fn step(&mut self, batch: &Batch, clock: Clock, stop: bool) -> Result<Stepped, LearnError> {
        let ready = self.training_rows(batch, clock)?;
        let mut weights = self.criterion.weight_sum(&ready.labels, ready.mixed.as_ref());
        self.sum_f64(&mut weights)?;
        let damaged = batch.damaged().len() as f64;
        let labelled = self.labelled(batch) as f64;
        let mut extras = [0.0, batch.n_own() as f64, labelled, 0.0, f64::from(u8::from(stop)), damaged];
        for (index, part) in parts(batch.n_own(), self.config.train.micro_batches).enumerate() {
            let seed = mix("dropout", &[self.config.seed, clock.step, self.ranks.rank() as u64, index as u64]);
            tch::manual_seed(seed as i64);
            let (loss, correct) = self.backward(&ready.narrow(part), &weights)?;
            extras[0] += loss;
            extras[3] += correct;
        }
        self.buckets.reduce(self.ranks, &mut extras)?;
        let [loss, rows, labelled, correct, stops, damaged] = extras;
        if !loss.is_finite() {
            return Err(LearnError::Diverged { loss, step: clock.step, lr: clock.lr });
        }
        if let Some(max) = self.config.optimizer.clip_norm {
            let _norm = self.optimizer.clip_norm(max);
        }
        self.optimizer.step(clock.lr);
        self.optimizer.zero_grad();
        let [rows, labelled, stops, damaged] = [rows, labelled, stops, damaged].map(|count| count as u64);
        Ok(Stepped { loss, rows, labelled, correct, stops, damaged })
    }

    /// Means of batch norm's running statistics over ranks, so that all evaluate one model.
    ///
    /// # Errors
    /// [`LearnError::Rank`].
    pub fn average_buffers(&self) -> Result<(), LearnError> {
        if self.ranks.world_size() == 1 {
            return Ok(());
        }
        for (_, buffer) in self.buffers() {
            let mut mean = buffer.to_device(Device::Cpu).to_kind(Kind::Double).contiguous();
            self.ranks.sum(&mut mean)?;
            tch::no_grad(|| buffer.shallow_clone().copy_(&(mean / self.ranks.world_size() as f64)));
        }
        Ok(())
    }

    /// What a checkpoint holds of the model: weights, every rank's buffers, the optimiser. All ranks call it.
    ///
    /// # Errors
    /// [`LearnError`].
    pub fn tensors(&self) -> Result<Vec<(String, Tensor)>, LearnError> {
        let mut tensors: Vec<(String, Tensor)> =
            self.variables().into_iter().map(|(name, tensor)| (format!("model.{name}"), tensor)).collect();
        tensors.extend(self.optimizer.state());
        let buffers = self.buffers();
        if self.ranks.world_size() == 1 || buffers.is_empty() {
            return Ok(tensors);
        }
        let flat = Tensor::cat(&buffers.iter().map(|(_, b)| b.view(-1).to_kind(Kind::Double)).collect::<Vec<_>>(), 0);
        let values = Vec::<f64>::try_from(flat.to_device(Device::Cpu))?;
        let bytes: Vec<u8> = values.into_iter().flat_map(f64::to_le_bytes).collect();
        for (rank, bytes) in self.ranks.gather(&bytes)?.iter().enumerate() {
            let values: Vec<f64> = bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
            tensors.push((format!("rank{rank}.buffers"), Tensor::from_slice(&values)));
        }
        Ok(tensors)
    }

    /// Brings back what [`Self::tensors`] gave; `world_size` is that of the run that wrote it. A rank's own buffers come
    /// back where it is the same.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`] and others.
    pub fn load(
        &mut self,
        tensors: &BTreeMap<String, Tensor>,
        path: &Path,
        world_size: usize,
    ) -> Result<(), LearnError> {
        checkpoint::copy_into(&self.variables(), tensors, "model.", path)?;
        self.optimizer.load(tensors)?;
        let own = tensors.get(&format!("rank{}.buffers", self.ranks.rank()));
        if let Some(flat) = own.filter(|_| world_size == self.ranks.world_size()) {
            let mut offset = 0;
            for (_, buffer) in self.buffers() {
                let values = flat.narrow(0, offset, buffer.numel() as i64).view(buffer.size().as_slice());
                tch::no_grad(|| buffer.shallow_clone().copy_(&values));
                offset += buffer.numel() as i64;
            }
        }
        Ok(())
    }

    /// Weights and buffers alone, for evaluation.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`] and others.
    pub fn load_model(&self, tensors: &BTreeMap<String, Tensor>, path: &Path) -> Result<(), LearnError> {
        Ok(checkpoint::copy_into(&self.variables(), tensors, "model.", path)?)
    }

    /// Whether training goes by batches' own statistics: a frozen backbone keeps its running ones.
    #[must_use]
    pub fn trains_batch_norm(&self) -> bool {
        !self.config.model.freeze && !self.buffers().is_empty()
    }

    fn buffers(&self) -> Vec<(String, Tensor)> {
        let is_buffer = |name: &str| name.ends_with("running_mean") || name.ends_with("running_var");
        self.variables().into_iter().filter(|(name, _)| is_buffer(name)).collect()
    }

    fn sum_f64(&self, values: &mut [f64]) -> Result<(), LearnError> {
        if self.ranks.world_size() > 1 {
            let mut sum = Tensor::from_slice(values);
            self.ranks.sum(&mut sum)?;
            sum.copy_data(values, values.len());
        }
        Ok(())
    }

    /// Own rows, augmented and mixed.
    fn training_rows(&self, batch: &Batch, clock: Clock) -> Result<Ready, LearnError> {
        let mut inputs = self.inputs(batch)?;
        if let Some(augmenter) = &self.augmenter {
            let rows = augment::Rows { epoch: clock.epoch, keys: batch.keys() };
            inputs.spectrogram = augmenter.apply(&inputs.spectrogram, rows);
        }
        let all = self.labels(batch)?;
        let own = Part { first: 0, rows: batch.n_own() as i64 };
        let labels = all.iter().map(|l| own.of(l)).collect();
        let Some(partners) = batch.partners() else {
            return Ok(Ready { inputs, labels, mixed: None });
        };
        let at = Tensor::from_slice(partners).to_device(self.numbers.device);
        let draw = |&key: &u64| mixup::lambda(self.config.seed, clock.epoch, key, self.config.loss.mixup);
        let lambda: Vec<f64> = batch.keys()[..batch.n_own()].iter().map(draw).collect();
        let lambda = Tensor::from_slice(&lambda).to_device(self.numbers.device).to_kind(self.numbers.kind);
        let blend = |all: &Tensor| mixup::blend(&own.of(all), &all.index_select(0, &at), &lambda);
        let inputs = Inputs {
            spectrogram: blend(&inputs.spectrogram),
            metadata: inputs.metadata.as_ref().map(blend),
            ids: inputs.ids.as_ref().map(|ids| own.of(ids)),
        };
        let labels_of = all.iter().map(|l| l.index_select(0, &at)).collect();
        Ok(Ready { inputs, labels, mixed: Some(Mixed { labels: labels_of, lambda }) })
    }

    fn inputs(&self, batch: &Batch) -> Result<Inputs, LearnError> {
        Ok(self.data.inputs(batch, self.numbers.device, self.numbers.kind)?)
    }

    fn labels(&self, batch: &Batch) -> Result<Vec<Tensor>, LearnError> {
        let of = |(index, target): (usize, &crate::dataset::Target)| match target.is_multi() {
            true => batch.multi_hot(index, self.numbers.device),
            false => batch.labels(index, self.numbers.device),
        };
        Ok(self.data.targets().iter().enumerate().map(of).collect::<Result<_, _>>()?)
    }

    /// Own rows with a label of the first target.
    fn labelled(&self, batch: &Batch) -> usize {
        let has_label = |&&row: &&u32| self.data.targets()[0].labels(self.data.rows(), row).next().is_some();
        batch.rows()[..batch.n_own()].iter().filter(has_label).count()
    }

    /// This part's share of the batch's loss, its gradients added up; and the rows whose first target was right.
    fn backward(&self, rows: &Ready, weights: &[f64]) -> Result<(f64, f64), LearnError> {
        let logits = self.numbers.logits(&self.net, &rows.inputs, true)?;
        let sums = self.criterion.weighted_sum(&logits, &rows.labels, rows.mixed.as_ref());
        let targets = sums.len() as f64;
        // Without a labelled row on any rank there is no mean, nor with a weight that is 0 in f32; gradients are then 0.
        let has_mean = |weight: f64| weight >= f64::from(f32::MIN_POSITIVE);
        let mean = |(sum, &weight): (Tensor, &f64)| if has_mean(weight) { sum / (weight * targets) } else { sum * 0.0 };
        let means = sums.into_iter().zip(weights).map(mean);
        let Some(loss) = means.reduce(|a, b| a + b) else { return Ok((0.0, 0.0)) };
        loss.f_backward()?;
        let correct = match self.data.targets()[0].is_multi() {
            true => 0.0,
            false => tch::no_grad(|| logits[0].argmax(1, false).eq_tensor(&rows.labels[0]).sum(Kind::Int64))
                .f_double_value(&[])?,
        };
        Ok((loss.f_double_value(&[])?, correct))
    }
}

/// Loss, rows, labelled rows, correct rows, ranks that stop, damaged rows: summed with the gradients.
const EXTRAS: usize = 6;

impl Ready {
    fn narrow(&self, part: Part) -> Self {
        Self {
            inputs: Inputs {
                spectrogram: part.of(&self.inputs.spectrogram),
                metadata: self.inputs.metadata.as_ref().map(|m| part.of(m)),
                ids: self.inputs.ids.as_ref().map(|i| part.of(i)),
            },
            labels: self.labels.iter().map(|l| part.of(l)).collect(),
            mixed: self
                .mixed
                .as_ref()
                .map(|m| Mixed { labels: m.labels.iter().map(|l| part.of(l)).collect(), lambda: part.of(&m.lambda) }),
        }
    }
}

/// Rows of a micro-batch.
#[derive(Clone, Copy)]
struct Part {
    first: i64,
    rows: i64,
}

impl Part {
    fn of(self, tensor: &Tensor) -> Tensor {
        tensor.narrow(0, self.first, self.rows)
    }
}

/// Micro-batches of `rows` rows; sizes differ by at most one, and none is empty.
fn parts(rows: usize, micro_batches: usize) -> impl Iterator<Item = Part> {
    let count = micro_batches.min(rows);
    (0..count).map(move |i| {
        let (first, end) = (rows * i / count, rows * (i + 1) / count);
        Part { first: first as i64, rows: (end - first) as i64 }
    })
}

fn criterion(config: &Config, data: &Dataset, device: Device) -> Criterion {
    let weights = |target: usize| match config.loss.class_weights {
        ClassWeights::Balanced => Some(balanced_weights(&data.class_counts(target), device)),
        ClassWeights::None => None,
    };
    let of = |(index, target): (usize, &crate::dataset::Target)| TargetLoss {
        class_weights: if target.is_multi() { None } else { weights(index) },
        multi_label: target.is_multi(),
    };
    Criterion::new(&config.loss, data.targets().iter().enumerate().map(of).collect())
}

/// With batch norm over ranks every rank must come to every forward.
fn check_parts(config: &Config, data: &Dataset, world_size: usize) -> Result<(), LearnError> {
    let parts = world_size * config.train.micro_batches;
    let rows = data.rows_of(crate::dataset::Side::Training).len();
    let last = rows % config.data.batch_size;
    let smallest = if last == 0 || config.data.drop_last { config.data.batch_size } else { last };
    if !config.model.sync_batch_norm || config.model.freeze || world_size == 1 {
        return Ok(());
    }
    if smallest < parts {
        return Err(LearnError::TooFewRows { rows: smallest, parts });
    }
    // A rank that lacks a row would come to fewer forwards than the others.
    if config.data.skip_damaged { Err(LearnError::SkipsRows) } else { Ok(()) }
}

/// Variables by name.
pub fn sorted(variables: impl IntoIterator<Item = (String, Tensor)>) -> Vec<(String, Tensor)> {
    let mut variables: Vec<(String, Tensor)> = variables.into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    variables
}

#[cfg(test)]
mod tests;
