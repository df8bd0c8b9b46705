//! What a model says outside of training.

use tch::Tensor;

use super::{LearnError, Learner};
use crate::dataset::Batch;

/// What a model says of n rows.
#[derive(Debug)]
pub(crate) struct ModelOutput {
    /// `[n, width]`: what the heads see.
    pub vectors: Tensor,
    /// Of each target, in order.
    pub targets: Vec<TargetOutput>,
}

/// What a model says of n rows about one target.
#[derive(Debug)]
pub(crate) struct TargetOutput {
    /// `[n, classes]`.
    pub logits: Tensor,
    /// `[n, classes]` f32 on the CPU.
    pub probabilities: Tensor,
    /// Σ weight · loss and Σ weight.
    pub loss: [f64; 2],
}

impl Learner {
    /// What the model says of a batch's rows, as in evaluation: with running statistics and without dropout or mix-up.
    pub(crate) fn answers(&self, batch: &Batch) -> Result<ModelOutput, LearnError> {
        let inputs = self.inputs(batch)?;
        let labels = self.labels(batch)?;
        tch::no_grad(|| {
            let (vectors, logits) = self.forward.answer(&self.net, &inputs, false)?;
            let losses = self.criterion.weighted_sum(&logits, &labels, None);
            let weights = self.criterion.weight_sum(&labels, None);

            let mut targets = Vec::new();
            for (index, logits) in logits.into_iter().enumerate() {
                let probabilities = self
                    .forward
                    .probabilities(&logits, self.data.targets()[index].is_multi())?;
                let loss = [losses[index].f_double_value(&[])?, weights[index]];
                targets.push(TargetOutput {
                    logits,
                    probabilities,
                    loss,
                });
            }
            Ok(ModelOutput { vectors, targets })
        })
    }
}
