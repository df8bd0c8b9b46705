//! The exponential moving average of the weights (`train.ema_decay`).
//!
//! A checkpoint has the average as its model, so that everything that reads a model uses it, and the trained weights in
//! addition, from which a run goes on. Source: `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn`: the
//! first step copies the weights, later ones add (1 − decay) of the difference. Buffers are those of the trained model.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Tensor, no_grad};
use wavemill_schemas::exit::PlainError;

use crate::checkpoint;

/// Prefix of the names of trained weights in a checkpoint.
const TRAINED: &str = "trained.";

/// The average of all trainable variables.
#[derive(Debug)]
pub struct WeightAverage {
    decay: f64,
    /// Name, trained variable and average, sorted by name.
    weights: Vec<(String, Tensor, Tensor)>,
}

impl WeightAverage {
    /// Starts with the values of `variables`, which are sorted by name.
    pub fn new(decay: f64, variables: &[(String, Tensor)]) -> Self {
        let weights = variables.iter().map(|(name, variable)| {
            let average = no_grad(|| variable.detach().copy());
            (name.clone(), variable.shallow_clone(), average)
        });
        Self {
            decay,
            weights: weights.collect(),
        }
    }

    /// Includes the weights after the optimiser step with this number, starting at 0.
    pub fn update(&mut self, step: u64) {
        let share = if step == 0 { 1.0 } else { 1.0 - self.decay };
        no_grad(|| {
            for (_, variable, average) in &mut self.weights {
                let _ = average.lerp_(variable, share);
            }
        });
    }

    /// Exchanges average and trained weights in the model.
    pub fn swap(&mut self) {
        no_grad(|| {
            for (_, variable, average) in &mut self.weights {
                let trained = variable.copy();
                variable.copy_(average);
                average.copy_(&trained);
            }
        });
    }

    /// Replaces the values of `model` by averages, and adds the trained weights.
    pub(crate) fn store(&self, tensors: &mut Vec<(String, Tensor)>) {
        for (name, variable, average) in &self.weights {
            let name_in_model = format!("model.{name}");
            if let Some((_, tensor)) = tensors.iter_mut().find(|(name, _)| *name == name_in_model) {
                *tensor = average.shallow_clone();
            }
            tensors.push((format!("{TRAINED}{name}"), variable.shallow_clone()));
        }
    }

    /// Sets the average to the weights of the model, which were just read.
    pub(crate) fn reset(&self) {
        no_grad(|| {
            for (_, variable, average) in &self.weights {
                average.shallow_clone().copy_(variable);
            }
        });
    }

    /// Restores what [`Self::store`] returned, after the model has been read.
    ///
    /// # Errors
    /// An error if the tensors do not fit the model.
    pub(crate) fn load(
        &self,
        tensors: &BTreeMap<String, Tensor>,
        path: &Path,
    ) -> Result<(), PlainError> {
        self.reset();
        let trained = self.weights.iter();
        let trained: Vec<(String, Tensor)> = trained
            .map(|(name, variable, _)| (name.clone(), variable.shallow_clone()))
            .collect();
        checkpoint::copy_into(&trained, tensors, TRAINED, path)
    }
}
