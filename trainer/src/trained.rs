//! A run's model from its checkpoint alone: no store, no optimiser, no gradients.

use std::path::Path;

use tch::nn::VarStore;
use tch::{Device, Tensor};

use crate::checkpoint::{self, State};
use crate::dataset::GENRES_ALL;
use crate::forward::ForwardPass;
use crate::learner::{LearnError, sorted};
use crate::models::{Inputs, Net};

/// A model that answers and learns no more.
#[derive(Debug)]
pub(crate) struct TrainedModel {
    state: State,
    variables: VarStore,
    net: Net,
    forward: ForwardPass,
}

impl TrainedModel {
    /// The checkpoint in the folder `path`.
    ///
    /// # Errors
    /// [`LearnError::Checkpoint`], [`LearnError::Torch`].
    pub(crate) fn load(path: &Path, device: Device) -> Result<Self, LearnError> {
        let state = checkpoint::read_state(path)?;
        let forward = ForwardPass::new(&state.config.train, device)?;
        let mut variables = VarStore::new(device);
        variables.set_kind(forward.kind);

        // No group: sums over ranks belong to training.
        let net = Net::build(&state.config.model, &state.dims, &variables.root(), None)?;
        checkpoint::copy_into(
            &sorted(variables.variables()),
            &checkpoint::read_tensors(path)?,
            "model.",
            path,
        )?;

        // What is answered needs no gradients.
        variables.freeze();
        Ok(Self {
            state,
            variables,
            net,
            forward,
        })
    }

    /// What the checkpoint says besides weights.
    pub(crate) const fn state(&self) -> &State {
        &self.state
    }

    /// Where and in which precision it computes.
    pub(crate) const fn forward(&self) -> ForwardPass {
        self.forward
    }

    /// Every weight and buffer, by name, in order.
    pub(crate) fn variables(&self) -> Vec<(String, Tensor)> {
        sorted(self.variables.variables())
    }

    pub(crate) const fn net(&self) -> &Net {
        &self.net
    }

    /// Probabilities `[n, classes]` f32 on the CPU, for each target in order.
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

/// Whether a target has several labels a row; its name is nobody else's.
pub(crate) fn is_multi(target: &str) -> bool {
    target == GENRES_ALL
}
