//! The forward pass of a model: on which device, and in which precision. There is one way for training, evaluation and
//! prediction, so that they agree bit for bit on equal batches.

use tch::{Device, Kind, TchError, Tensor};
use wavemill_schemas::config::{Precision, Train};

use crate::ffi::{self, TorchError};
use crate::models::{Inputs, ModelError, Net};

/// Why a model gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The model refuses the rows, or libtorch an operation of it.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A switch of libtorch.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

/// A device and a precision to compute in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForwardPass {
    /// CPU or a GPU.
    pub device: Device,
    /// Of weights and inputs.
    pub kind: Kind,
    /// Whether products are taken in bf16.
    bf16: bool,
}

impl ForwardPass {
    /// As the configuration has it; sets libtorch's switches for this process.
    pub(crate) fn new(train: &Train, device: Device) -> Result<Self, TorchError> {
        ffi::set_deterministic(train.deterministic)?;
        ffi::set_tf32(train.tf32)?;

        let kind = if train.precision == Precision::F64 {
            Kind::Double
        } else {
            Kind::Float
        };
        Ok(Self {
            device,
            kind,
            bf16: train.precision == Precision::Bf16,
        })
    }

    /// Logits `[n, classes]` of each target, in [`Self::kind`].
    pub(crate) fn logits(
        self,
        net: &Net,
        inputs: &Inputs,
        train: bool,
    ) -> Result<Vec<Tensor>, ForwardError> {
        Ok(self.answer(net, inputs, train)?.1)
    }

    /// The vectors `[n, width]` that the heads see, and the logits; both in [`Self::kind`].
    pub(crate) fn answer(
        self,
        net: &Net,
        inputs: &Inputs,
        train: bool,
    ) -> Result<(Tensor, Vec<Tensor>), ForwardError> {
        if !self.bf16 {
            return Ok(net.answer(inputs, train)?);
        }

        // Autocast is a switch of the thread: it is turned off again also where the model fails.
        ffi::set_autocast_bf16(self.device, true)?;
        let answered = net.answer(inputs, train);
        ffi::set_autocast_bf16(self.device, false)?;

        let (vectors, logits) = answered?;
        Ok((
            vectors.to_kind(self.kind),
            logits.into_iter().map(|l| l.to_kind(self.kind)).collect(),
        ))
    }

    /// Probabilities `[n, classes]` f32 on the CPU: each class by itself where a row has several labels, else summing up
    /// to 1.
    pub(crate) fn probabilities(self, logits: &Tensor, is_multi: bool) -> Result<Tensor, TchError> {
        let probabilities = if is_multi {
            logits.f_sigmoid()?
        } else {
            logits.f_softmax(1, self.kind)?
        };
        ffi::send(&probabilities, Device::Cpu)?.f_to_kind(Kind::Float)
    }
}
