//! Output of a model in evaluation and prediction.

use tch::Tensor;

use super::Learner;
use crate::TrainError;
use crate::dataset::Batch;

/// Output of a model for n rows.
#[derive(Debug)]
pub(crate) struct ModelOutput {
    /// Vectors that are the input of the heads: `[n, width]`.
    pub vectors: Tensor,
    /// Output for each target, in the order of the targets.
    pub targets: Vec<TargetOutput>,
}

/// Output of a model for n rows and one target.
#[derive(Debug)]
pub(crate) struct TargetOutput {
    /// Logits: `[n, classes]`.
    pub logits: Tensor,
    /// Probabilities: `[n, classes]`, f32 on the CPU.
    pub probabilities: Tensor,
    /// Σ weight · loss and Σ weight over the n rows.
    pub loss: [f64; 2],
}

impl Learner {
    /// Computes the model's output for a batch in evaluation mode: with running statistics, and without dropout or
    /// mix-up.
    pub(crate) fn answers(&self, batch: &Batch) -> Result<ModelOutput, TrainError> {
        let inputs = self.inputs(batch)?;
        let labels = self.labels(batch)?;
        tch::no_grad(|| {
            let (vectors, logits) = self.forward.answer(&self.net, &inputs, false)?;
            let losses = self
                .criterion
                .weighted_sum(&logits, &self.sent(&labels)?, None);
            let weights = self.criterion.weight_sum(&labels, None);

            let mut targets = Vec::new();
            for (index, logits) in logits.into_iter().enumerate() {
                let is_multi = self.data.targets()[index].is_multi();
                let temperature = self.temperatures.get(index).copied().unwrap_or(1.0);
                let probabilities = self.forward.probabilities(&logits, is_multi, temperature)?;
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
