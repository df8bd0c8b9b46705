//! One optimiser step: rows, forward and backward passes, sums over ranks, update of the weights.

use tch::{Device, Kind, Tensor};
use wavemill_schemas::rng::mix;

use super::Learner;
use super::parts::{self, MicroBatch};
use crate::TrainError;
use crate::augment;
use crate::dataset::Batch;
use crate::ffi;
use crate::loss::MixedLabels;
use crate::mixup;
use crate::models::{Inputs, ModelError};
use crate::profile::{Part, Profile};

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

impl StepSummary {
    /// Reads the sums of [`Learner::extras`].
    fn from_sums(sums: &Tensor) -> Result<Self, TrainError> {
        let values = Vec::<f64>::try_from(ffi::send(sums, Device::Cpu)?)?;
        let [loss, rows, labelled, correct, stops, damaged] =
            std::array::from_fn(|index| values[index]);
        Ok(Self {
            loss,
            rows: rows as u64,
            labelled: labelled as u64,
            correct,
            stops: stops as u64,
            damaged: damaged as u64,
        })
    }
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
    /// Runs one optimiser step on this rank's part of a global batch. The result has the number of ranks that set
    /// `stop`.
    pub(crate) fn step(
        &mut self,
        batch: &Batch,
        context: StepContext,
        stop: bool,
    ) -> Result<StepSummary, TrainError> {
        let (rows, mut weights) = self.training_rows(batch, context)?;
        // The weights of the rows are summed over all ranks before the backward pass, since each target's loss is
        // divided by its sum.
        self.sum_f64(&mut weights)?;

        let own = self.add_gradients(batch, &rows, &weights, context)?;
        let sums = self.sum_over_ranks(batch, &own, stop)?;
        self.update_weights(context);
        self.profile.iter().for_each(|profile| profile.step_ended());

        // The only wait for the device in a step. All work has been queued before, so that the device is not idle.
        let summary = StepSummary::from_sums(&sums)?;
        // The loss is the same on all ranks, so all of them return the error. The weights have changed already, but the
        // error ends the run before they are saved.
        if !summary.loss.is_finite() {
            return Err(self.explain_loss(batch, summary.loss, context));
        }
        Ok(summary)
    }

    /// Computes the gradients of this rank's rows in micro-batches, and returns their share of the results. A rank
    /// without rows in this batch runs no forward pass but still takes part in the sums over the ranks.
    fn add_gradients(
        &self,
        batch: &Batch,
        rows: &TrainingRows,
        weights: &[f64],
        context: StepContext,
    ) -> Result<LossShare, TrainError> {
        let mut own = LossShare::zero(self.forward.device);
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

            let share = match self.backward(&rows.narrow(part), weights) {
                // Skipped rows may leave a single row, which batch norm cannot use. It adds nothing to the batch.
                Err(TrainError::Model(ModelError::OneValue)) if !batch.damaged.is_empty() => {
                    continue;
                }
                share => share?,
            };
            own.loss = own.loss.f_add(&share.loss)?;
            own.correct = own.correct.f_add(&share.correct)?;
        }
        Ok(own)
    }

    /// Sums gradients and results over all ranks. Returns the results, on the model's device.
    fn sum_over_ranks(
        &mut self,
        batch: &Batch,
        own: &LossShare,
        stop: bool,
    ) -> Result<Tensor, TrainError> {
        let _measured = Profile::start(&self.profile, Part::Sums);
        let mut extras = self.extras(batch, own, stop)?;
        self.buckets.reduce(self.ranks, &mut extras)?;
        Ok(extras)
    }

    fn update_weights(&mut self, context: StepContext) {
        let _measured = Profile::start(&self.profile, Part::Optimizer);
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
    }

    /// Returns the numbers of a step that are summed with the gradients, as f64 on the model's device: those of
    /// [`StepSummary`] in the order of its fields, then zeros.
    fn extras(&self, batch: &Batch, own: &LossShare, stop: bool) -> Result<Tensor, TrainError> {
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

    fn sum_f64(&self, values: &mut [f64]) -> Result<(), TrainError> {
        let _measured = Profile::start(&self.profile, Part::Sums);
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
    ) -> Result<(TrainingRows, Vec<f64>), TrainError> {
        let _measured = Profile::start(&self.profile, Part::Copying);
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
    fn backward(&self, rows: &TrainingRows, weights: &[f64]) -> Result<LossShare, TrainError> {
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
