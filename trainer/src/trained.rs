//! Loads a run's model for inference from its checkpoint, without a store, an optimizer or gradients.

use std::path::Path;

use tch::nn::VarStore;
use tch::{Device, Tensor};

use crate::checkpoint::{self, State};
use crate::dataset::GENRES_ALL;
use crate::forward::ForwardPass;
use crate::learner::{LearnError, sorted};
use crate::models::{Inputs, Net};

/// A model for inference.
#[derive(Debug)]
pub(crate) struct TrainedModel {
    state: State,
    variables: VarStore,
    net: Net,
    forward: ForwardPass,
}

impl TrainedModel {
    /// Loads the checkpoint in the folder `path`.
    ///
    /// # Errors
    /// [`LearnError::Checkpoint`], [`LearnError::Torch`].
    pub(crate) fn load(path: &Path, device: Device) -> Result<Self, LearnError> {
        let state = checkpoint::read_state(path)?;
        let forward = ForwardPass::new(&state.config.train, device)?;
        let mut variables = VarStore::new(device);
        variables.set_kind(forward.kind);

        // The group is `None`, because sums over ranks are needed only in training.
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

    /// Returns the checkpoint's state, which has everything except the tensors.
    pub(crate) const fn state(&self) -> &State {
        &self.state
    }

    /// Returns the forward pass, which determines device and precision.
    pub(crate) const fn forward(&self) -> ForwardPass {
        self.forward
    }

    /// Returns all weights and buffers with their names, sorted by name.
    pub(crate) fn variables(&self) -> Vec<(String, Tensor)> {
        sorted(self.variables.variables())
    }

    pub(crate) const fn net(&self) -> &Net {
        &self.net
    }

    /// Computes probabilities `[n, classes]` as f32 on the CPU, for each target in order.
    pub(crate) fn probabilities(&self, inputs: &Inputs) -> Result<Vec<Tensor>, LearnError> {
        tch::no_grad(|| {
            let logits = self.forward.logits(&self.net, inputs, false)?;
            let mut probabilities = Vec::with_capacity(logits.len());
            for (logits, (target, _)) in logits.iter().zip(&self.state.classes) {
                probabilities.push(self.forward.probabilities(logits, is_multi(target))?);
            }
            Ok(probabilities)
        })
    }
}

/// Reports whether a target is multi-label. Only the target `genres_all` is, and no other target has that name.
pub(crate) fn is_multi(target: &str) -> bool {
    target == GENRES_ALL
}
