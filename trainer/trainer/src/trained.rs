//! Loads a trained model for inference from a run's checkpoint, without a store, an optimizer or gradients.

use std::path::Path;

use tch::nn::VarStore;
use tch::{Device, Tensor};

use crate::TrainError;
use crate::checkpoint::{self, State};
use crate::dataset::GENRES_ALL;
use crate::forward::ForwardPass;
use crate::learner::sorted;
use crate::models::{Inputs, Net};

/// A trained model for inference.
#[derive(Debug)]
pub(crate) struct TrainedModel {
    /// The state stored in the checkpoint: everything except the tensors.
    pub state: State,
    variables: VarStore,
    pub net: Net,
    /// The forward pass, which defines the model's device and precision.
    pub forward: ForwardPass,
}

impl TrainedModel {
    /// Loads a trained model from the checkpoint in the folder `path`.
    ///
    /// # Errors
    /// [`TrainError::Other`] if the checkpoint cannot be read or does not fit, and errors of libtorch.
    pub(crate) fn load(path: &Path, device: Device) -> Result<Self, TrainError> {
        let state = checkpoint::read_state(path)?;
        let forward = ForwardPass::new(&state.config.train, device)?;
        let mut variables = VarStore::new(device);
        variables.set_kind(forward.kind);

        // No group of ranks is needed, because sums over ranks are used only in training.
        let net = Net::build(&state.config.model, &state.dims, &variables.root(), None)?;
        checkpoint::copy_into(
            &sorted(variables.variables()),
            &checkpoint::read_tensors(path)?,
            "model.",
            path,
        )?;

        // Inference needs no gradients.
        variables.freeze();
        Ok(Self {
            state,
            variables,
            net,
            forward,
        })
    }

    /// Returns all weights and buffers of the model with their names, sorted by name.
    pub(crate) fn variables(&self) -> Vec<(String, Tensor)> {
        sorted(self.variables.variables())
    }

    /// Computes the probabilities of each target, in order: `[n, classes]` f32 on the CPU.
    pub(crate) fn probabilities(&self, inputs: &Inputs) -> Result<Vec<Tensor>, TrainError> {
        tch::no_grad(|| {
            let logits = self.forward.logits(&self.net, inputs, false)?;
            let mut probabilities = Vec::with_capacity(logits.len());
            for (index, (target, _)) in self.state.classes.iter().enumerate() {
                probabilities.push(self.forward.probabilities(
                    &logits[index],
                    is_multi(target),
                    self.state.temperature(index),
                )?);
            }
            Ok(probabilities)
        })
    }
}

/// Reports whether a target is multi-label. Only the target `genres_all` is, and no other target has that name.
pub(crate) fn is_multi(target: &str) -> bool {
    target == GENRES_ALL
}
