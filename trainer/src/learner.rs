//! A model with all that its training needs, and one optimiser step of it.
//!
//! Knows batches and ranks; not epochs, files or people: that is [`crate::run`].

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Kind, Tensor, nn};

use crate::augment;
use crate::checkpoint::{self, CheckpointError};
use crate::config::{Config, Precision};
use crate::dataset::{Batch, Dataset, DatasetError};
use crate::ffi::{self, TorchError};
use crate::loss::{Criterion, Labels};
use crate::models::{Inputs, ModelError, Net};
use crate::optim::{OptimError, Optimizer};
use crate::rng::mix;
use crate::strategy::{Buckets, Collective, RankError};

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
    /// Rows whose first target was right.
    pub correct: f64,
    /// Ranks that were asked to stop.
    pub stops: u64,
}

/// A model, its optimiser and its gradients.
#[derive(Debug)]
pub struct Learner<'a> {
    config: &'a Config,
    data: &'a Dataset,
    ranks: &'static dyn Collective,
    device: Device,
    kind: Kind,
    /// Owns every weight and buffer.
    store: nn::VarStore,
    net: Net,
    optimizer: Optimizer,
    buckets: Buckets,
    criterion: Criterion,
}

impl<'a> Learner<'a> {
    /// A model with its first weights, the same on every rank.
    ///
    /// # Errors
    /// [`LearnError`]: an architecture that does not fit the rows, a file of weights that does not fit it.
    pub fn new(
        config: &'a Config,
        data: &'a Dataset,
        ranks: &'static dyn Collective,
        device: Device,
    ) -> Result<Self, LearnError> {
        ffi::set_deterministic(config.train.deterministic)?;
        ffi::set_tf32(config.train.tf32)?;
        let kind = if config.train.precision == Precision::F64 { Kind::Double } else { Kind::Float };
        let (store, net) = build(config, data, ranks, device)?;
        let trainable = sorted(store.variables()).into_iter().filter(|(_, v)| v.requires_grad()).collect::<Vec<_>>();
        let weights = data.class_weights(config.loss.class_weights);
        Ok(Self {
            config,
            data,
            ranks,
            device,
            kind,
            net,
            optimizer: Optimizer::new(&config.optimizer, trainable.clone()),
            buckets: Buckets::new(&trainable),
            criterion: Criterion::new(&config.loss, &weights, device, kind),
            store,
        })
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

    /// One optimiser step on this rank's part of a global batch.
    ///
    /// # Errors
    /// [`LearnError`].
    pub fn step(&mut self, batch: &Batch, clock: Clock, stop: bool) -> Result<Stepped, LearnError> {
        let labels = self.labels(batch, clock);
        let mut totals = self.criterion.weight_sums(&labels);
        self.sum_f64(&mut totals)?;
        let mut extras = [0.0, batch.len() as f64, 0.0, f64::from(u8::from(stop))];
        let inputs = self.training_inputs(batch, clock);
        for (index, part) in parts(batch.len(), self.config.train.micro_batches).enumerate() {
            let seed = mix("dropout", &[self.config.seed, clock.step, self.ranks.rank() as u64, index as u64]);
            tch::manual_seed(seed as i64);
            let labels: Vec<Labels> = labels.iter().map(|l| l.narrow(part)).collect();
            let (loss, correct) = self.backward(&inputs.narrow(part), &labels, &totals)?;
            extras[0] += loss;
            extras[2] += correct;
        }
        self.buckets.reduce(self.ranks, &mut extras)?;
        let [loss, rows, correct, stops] = extras;
        if !loss.is_finite() {
            return Err(LearnError::Diverged { loss, step: clock.step, lr: clock.lr });
        }
        self.optimizer.clip();
        self.optimizer.step(clock.lr);
        self.optimizer.zero_grad();
        Ok(Stepped { loss, rows: rows as u64, correct, stops: stops as u64 })
    }

    /// Logits of each target for this rank's rows, as in evaluation: no dropout, running statistics.
    ///
    /// # Errors
    /// [`LearnError`].
    pub fn logits(&self, batch: &Batch) -> Result<Vec<Tensor>, LearnError> {
        let inputs = self.inputs(batch);
        let logits = tch::no_grad(|| self.autocast(|| self.net.forward(&inputs, false)))?;
        Ok(logits.into_iter().map(|l| l.to_kind(self.kind)).collect())
    }

    /// What is minimised.
    #[must_use]
    pub fn criterion(&self) -> &Criterion {
        &self.criterion
    }

    /// The labels of a batch as the criterion wants them, without mix-up.
    #[must_use]
    pub fn plain_labels(&self, batch: &Batch) -> Vec<Labels> {
        self.data.targets().iter().map(|t| Labels::plain(batch.labels(t, self.device, self.kind))).collect()
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
        if self.ranks.world_size() == 1 {
            return Ok(tensors);
        }
        let buffers = self.buffers();
        let flat = Tensor::cat(&buffers.iter().map(|(_, b)| b.view(-1).to_kind(Kind::Double)).collect::<Vec<_>>(), 0);
        let bytes: Vec<u8> = Vec::<f64>::try_from(flat.to_device(Device::Cpu))?.iter().flat_map(|x| x.to_le_bytes()).collect();
        for (rank, bytes) in self.ranks.gather(&bytes)?.iter().enumerate().skip(1) {
            let values: Vec<f64> = bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
            tensors.push((format!("rank{rank}.buffers"), Tensor::from_slice(&values)));
        }
        Ok(tensors)
    }

    /// Brings back what [`Self::tensors`] gave. Buffers of other ranks count only where the world size is the same.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`] and others.
    pub fn load(&mut self, tensors: &BTreeMap<String, Tensor>, path: &Path, world_size: usize) -> Result<(), LearnError> {
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

    fn labels(&self, batch: &Batch, clock: Clock) -> Vec<Labels> {
        let partners = (self.config.loss.mixup > 0.0).then(|| {
            augment::mixup_weights(batch.keys(), self.config.seed, clock.epoch, self.config.loss.mixup)
        });
        let of = |target| match &partners {
            Some(lambda) => Labels::mixed(
                batch.labels(target, self.device, self.kind),
                batch.partner_labels(target, self.device, self.kind),
                Tensor::from_slice(lambda).to_device(self.device).to_kind(self.kind),
            ),
            None => Labels::plain(batch.labels(target, self.device, self.kind)),
        };
        self.data.targets().iter().map(of).collect()
    }

    fn inputs(&self, batch: &Batch) -> Inputs {
        self.data.inputs(batch, self.device, self.kind)
    }

    /// Augmented and mixed.
    fn training_inputs(&self, batch: &Batch, clock: Clock) -> Inputs {
        let mut inputs = self.inputs(batch);
        inputs
    }

    /// This part's share of the batch's loss, its gradients added up; and the rows whose first target was right.
    fn backward(&self, inputs: &Inputs, labels: &[Labels], totals: &[f64]) -> Result<(f64, f64), LearnError> {
        let logits = self.autocast(|| self.net.forward(inputs, true))?;
        let logits: Vec<Tensor> = logits.into_iter().map(|l| l.to_kind(self.kind)).collect();
        let loss = self.criterion.loss(&logits, labels, totals);
        loss.f_backward()?;
        Ok((loss.f_double_value(&[])?, self.criterion.correct(&logits[0], &labels[0])))
    }

    fn autocast<T>(&self, body: impl FnOnce() -> T) -> Result<T, TorchError> {
        if self.config.train.precision != Precision::Bf16 {
            return Ok(body());
        }
        ffi::set_autocast_bf16(self.device, true)?;
        let value = body();
        ffi::set_autocast_bf16(self.device, false)?;
        Ok(value)
    }
}

/// A model with its first weights, a function of the seed alone.
///
/// # Errors
/// [`LearnError`].
pub fn build(
    config: &Config,
    data: &Dataset,
    ranks: &'static dyn Collective,
    device: Device,
) -> Result<(nn::VarStore, Net), LearnError> {
    tch::manual_seed(mix("weights", &[config.seed]) as i64);
    let mut store = nn::VarStore::new(device);
    let net = Net::build(&config.model, &data.dims(), &store.root(), sync)?;
    if config.train.precision == Precision::F64 {
        store.double();
    }
    Ok((store, net))
}

fn sorted(variables: impl IntoIterator<Item = (String, Tensor)>) -> Vec<(String, Tensor)> {
    let mut variables: Vec<(String, Tensor)> = variables.into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    variables
}

/// First row and number of rows of each micro-batch; sizes differ by at most one, and none is empty.
fn parts(rows: usize, micro_batches: usize) -> impl Iterator<Item = Part> {
    let count = micro_batches.min(rows);
    (0..count).map(move |i| {
        let (first, end) = (rows * i / count, rows * (i + 1) / count);
        Part { first: first as i64, rows: (end - first) as i64 }
    })
}
