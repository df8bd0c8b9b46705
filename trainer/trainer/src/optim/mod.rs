//! Adam, AdamW and SGD over named variables, and the moving average of their values. Their state can be saved, unlike
//! that of libtorch's optimisers in tch.
//!
//! The learning rate is passed to each step (see [`wavemill_scores::schedule`]). Gradients are not summed over ranks
//! here: sum them before [`Optimizer::clip_norm`] and [`Optimizer::step`], whose results are then equal on all ranks.
//!
//! Variables may have settings of their own (`optimizer.groups`, `optimizer.layer_decay`), as in torch's parameter
//! groups: the rate of a variable is that of the step, times the factor of its group, times the decay of its layer.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor, no_grad};
use wavemill_schemas::config::{self, OptimizerKind};
use wavemill_schemas::exit::PlainError;

mod average;
#[cfg(test)]
mod tests;

pub use average::WeightAverage;

/// Name of the tensor with the number of updates of each variable: `[variables]` i64, in the order of the variables'
/// names.
const STEPS: &str = "optimizer.steps";

/// A trainable variable and its optimiser state.
#[derive(Debug)]
struct Variable {
    name: String,
    tensor: Tensor,
    /// Number of updates of the variable so far. Steps without a gradient do not count.
    steps: i64,
    /// State tensors named by [`slots`], each with the shape of the variable.
    slots: Vec<Tensor>,
    /// Factor of the learning rate.
    lr_factor: f64,
    weight_decay: f64,
    /// Number of epochs in which the variable does not change.
    frozen_epochs: u64,
}

/// An optimiser and its state. It shares the variables with the model.
#[derive(Debug)]
pub struct Optimizer {
    settings: config::Optimizer,
    variables: Vec<Variable>,
    epoch: u64,
}

/// Returns the names of the state tensors that an optimiser keeps for each variable, as in torch.
fn slots(settings: &config::Optimizer) -> &'static [&'static str] {
    match settings.name {
        OptimizerKind::Adam | OptimizerKind::Adamw => &["exp_avg", "exp_avg_sq"],
        OptimizerKind::Sgd if settings.momentum != 0.0 => &["momentum_buffer"],
        OptimizerKind::Sgd => &[],
    }
}

impl Optimizer {
    /// Creates an optimiser without saved state for `variables` (name and tensor; f32 or f64), which it sorts by name.
    pub fn new(settings: &config::Optimizer, variables: Vec<(String, Tensor)>) -> Self {
        let mut variables: Vec<Variable> = variables
            .into_iter()
            .map(|(name, tensor)| {
                let group = settings.groups.iter().rfind(|group| group.contains(&name));
                let own_decay = group.and_then(|group| group.weight_decay);
                Variable {
                    slots: zero_slots(settings, &tensor),
                    steps: 0,
                    lr_factor: group.map_or(1.0, |group| group.lr_factor),
                    weight_decay: own_decay.unwrap_or(settings.weight_decay),
                    frozen_epochs: group.map_or(0, |group| group.frozen_epochs),
                    name,
                    tensor,
                }
            })
            .collect();
        // The tensor `optimizer.steps` has no names, so the variables must be in the same order in every run.
        variables.sort_by(|a, b| a.name.cmp(&b.name));

        Self {
            settings: settings.clone(),
            variables,
            epoch: 0,
        }
    }

    /// Applies `optimizer.layer_decay`. `layers` are the first components of the variables' names, from the input to
    /// the heads, which keep the full rate.
    #[must_use]
    pub fn with_layers(mut self, layers: &[String]) -> Self {
        let Some(decay) = self.settings.layer_decay else {
            return self;
        };
        for variable in &mut self.variables {
            let own = variable.name.split('.').next().unwrap_or_default();
            let above = layers.iter().rev().position(|layer| layer == own);
            variable.lr_factor *= decay.powi(above.unwrap_or(0) as i32);
        }
        self
    }

    /// True if no variable changes in any of `epochs` epochs.
    pub fn is_idle(&self, epochs: u64) -> bool {
        let mut variables = self.variables.iter();
        variables.all(|variable| variable.frozen_epochs >= epochs || variable.lr_factor == 0.0)
    }

    /// Sets the epoch of the next steps, which determines the variables that are frozen.
    pub fn set_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// Updates every variable that has a gradient and is not frozen, in place. The gradients are not changed.
    pub fn step(&mut self, lr: f64) {
        let settings = &self.settings;
        no_grad(|| {
            for (variable, grad) in with_gradients(&mut self.variables, self.epoch) {
                variable.steps += 1;
                let rates = Rates {
                    lr: lr * variable.lr_factor,
                    decay: variable.weight_decay,
                };

                let tensor = &mut variable.tensor;
                let steps = variable.steps;
                // The number of state tensors is that of `slots`: two for Adam, one for SGD with momentum.
                match variable.slots.as_mut_slice() {
                    [mean, square] => adam(settings, rates, tensor, &grad, [mean, square], steps),
                    [buffer] => sgd(settings, rates, tensor, &grad, Some(buffer)),
                    _ => sgd(settings, rates, tensor, &grad, None),
                }
            }
        });
    }

    /// Sets the gradients of all variables to zero, in place.
    pub fn zero_grad(&mut self) {
        self.variables.iter_mut().for_each(|v| v.tensor.zero_grad());
    }

    /// Scales all gradients by one factor so that their joint L2 norm is at most `max`, as torch's `clip_grad_norm_`.
    /// Returns the norm before scaling, a scalar tensor on the variables' device: reading the value waits for the
    /// device.
    pub fn clip_norm(&mut self, max: f64) -> Tensor {
        no_grad(|| {
            let changed = with_gradients(&mut self.variables, self.epoch);
            let mut grads: Vec<Tensor> = changed.map(|(_, grad)| grad).collect();
            if grads.is_empty() {
                return Tensor::from(0.0_f64);
            }

            // The norm of the gradients' norms equals the norm of all values.
            let norms: Vec<Tensor> = grads.iter().map(Tensor::norm).collect();
            let norm = Tensor::stack(&norms, 0).norm();
            // torch adds 1e-6 to the norm to avoid a division by zero.
            let factor = (max / (&norm + 1e-6)).clamp_max(1.0);
            // The factor remains a tensor, since reading its value would wait for the device.
            for grad in &mut grads {
                let _ = grad.g_mul_(&factor);
            }
            norm
        })
    }

    /// Returns the optimiser's state as the tensors `optimizer.<slot>.<variable>` and `optimizer.steps`. The next step
    /// changes these tensors in place: copy them to keep their values.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let steps: Vec<i64> = self.variables.iter().map(|v| v.steps).collect();
        let mut state = vec![(STEPS.to_owned(), Tensor::from_slice(&steps))];
        state.extend(
            self.slots()
                .map(|(name, tensor)| (name, tensor.shallow_clone())),
        );
        state
    }

    /// Restores a state returned by [`Self::state`]. Ignores tensors whose names do not begin with `optimizer.`.
    ///
    /// # Errors
    /// An error with the name of a tensor that is missing or has another shape or kind. The optimiser is then
    /// unchanged.
    pub fn load(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), PlainError> {
        let count = self.variables.len() as i64;
        let steps_like = Tensor::zeros([count], (Kind::Int64, Device::Cpu));
        let steps = find(state, STEPS, &steps_like)?;

        // Check that every tensor exists and fits before changing the optimiser.
        let mut known = vec![STEPS.to_owned()];
        let mut saved = Vec::with_capacity(self.variables.len());
        for (name, tensor) in self.slots() {
            saved.push(find(state, &name, tensor)?);
            known.push(name);
        }
        if let Some(name) = state
            .keys()
            .find(|k| k.starts_with("optimizer.") && !known.contains(*k))
        {
            return Err(PlainError::failed(format!(
                "{name}: in the saved state, but not in that of this run's optimiser"
            )));
        }

        no_grad(|| {
            let slots = self.variables.iter_mut().flat_map(|v| &mut v.slots);
            slots.zip(saved).for_each(|(slot, saved)| slot.copy_(saved));
        });
        for (index, variable) in self.variables.iter_mut().enumerate() {
            variable.steps = steps.int64_value(&[index as i64]);
        }
        Ok(())
    }

    /// Iterates over all state tensors with their names in a saved state.
    fn slots(&self) -> impl Iterator<Item = (String, &Tensor)> {
        let names = slots(&self.settings);
        self.variables.iter().flat_map(move |v| {
            names
                .iter()
                .zip(&v.slots)
                .map(|(slot, tensor)| (format!("optimizer.{slot}.{}", v.name), tensor))
        })
    }
}

/// Returns the variables that a step in `epoch` changes, with their gradients. As in torch, a variable without a
/// gradient keeps its moments and its count of updates.
fn with_gradients(
    variables: &mut [Variable],
    epoch: u64,
) -> impl Iterator<Item = (&mut Variable, Tensor)> {
    let changed = variables
        .iter_mut()
        .filter(move |variable| epoch >= variable.frozen_epochs);
    changed
        .map(|variable| {
            let grad = variable.tensor.grad();
            (variable, grad)
        })
        .filter(|(_, grad)| grad.defined())
}

fn zero_slots(settings: &config::Optimizer, variable: &Tensor) -> Vec<Tensor> {
    no_grad(|| {
        slots(settings)
            .iter()
            .map(|_| variable.detach().zeros_like())
            .collect()
    })
}

/// Returns the saved tensor with this name, which must have the same kind and shape as `like`.
fn find<'a>(
    state: &'a BTreeMap<String, Tensor>,
    name: &str,
    like: &Tensor,
) -> Result<&'a Tensor, PlainError> {
    let problem = match state.get(name) {
        None => format!("{name}: not in the saved state of the optimiser"),
        Some(found) if layout(found) == layout(like) => return Ok(found),
        Some(found) => format!(
            "{name}: {} in the saved state, {} in this run",
            layout(found),
            layout(like)
        ),
    };
    Err(PlainError::failed(problem))
}

fn layout(tensor: &Tensor) -> String {
    format!("{:?} {:?}", tensor.kind(), tensor.size())
}

/// Learning rate and weight decay of one variable in a step.
#[derive(Clone, Copy)]
struct Rates {
    lr: f64,
    decay: f64,
}

/// Updates a variable with Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019). `steps` is the number of
/// the current update, counted from 1. Allocates one temporary tensor of the variable's shape.
fn adam(
    settings: &config::Optimizer,
    Rates { lr, decay }: Rates,
    variable: &mut Tensor,
    grad: &Tensor,
    [mean, square]: [&mut Tensor; 2],
    steps: i64,
) {
    let [beta1, beta2] = settings.betas;
    let decoupled = settings.name == OptimizerKind::Adamw;

    // AdamW applies weight decay to the variable; Adam adds it to the gradient.
    if decoupled && decay != 0.0 {
        let _ = variable.g_mul_scalar_(1.0 - lr * decay);
    }
    let mut scratch = if decoupled || decay == 0.0 {
        let _ = mean.lerp_(grad, 1.0 - beta1);
        grad.square()
    } else {
        let mut decayed = variable.g_mul_scalar(decay);
        let _ = decayed.g_add_(grad);
        let _ = mean.lerp_(&decayed, 1.0 - beta1);
        decayed.square_()
    };
    let _ = square.lerp_(&scratch, 1.0 - beta2);

    // The moments start at 0 and are therefore too small at first. Both are divided by the sum of the weights of all
    // gradients so far.
    let unbiased_mean = 1.0 - beta1.powf(steps as f64);
    let unbiased_square = 1.0 - beta2.powf(steps as f64);
    // As in torch, ε is added after the square root of the unbiased moment.
    let _ = square.sqrt_out(&scratch);
    let _ = scratch.g_div_scalar_(unbiased_square.sqrt());
    let _ = scratch.g_add_scalar_(settings.eps);
    let _ = mean.div_out(&scratch, &scratch);
    let _ = scratch.g_mul_scalar_(-lr / unbiased_mean);
    let _ = variable.g_add_(&scratch);
}

/// Updates a variable with SGD. Momentum is as in torch: the buffer does not include the learning rate, and there is no
/// dampening. Allocates one temporary tensor, or two with Nesterov momentum.
fn sgd(
    settings: &config::Optimizer,
    Rates { lr, decay }: Rates,
    variable: &mut Tensor,
    grad: &Tensor,
    buffer: Option<&mut Tensor>,
) {
    let mut update = variable.g_mul_scalar(decay);
    let _ = update.g_add_(grad);

    if let Some(buffer) = buffer {
        // The momentum buffer starts at 0, so after the first update it equals the gradient, as in torch.
        let _ = buffer.g_mul_scalar_(settings.momentum);
        let _ = buffer.g_add_(&update);
        if settings.nesterov {
            let _ = update.g_add_(&buffer.g_mul_scalar(settings.momentum));
        } else {
            update.copy_(buffer);
        }
    }

    let _ = update.g_mul_scalar_(-lr);
    let _ = variable.g_add_(&update);
}
