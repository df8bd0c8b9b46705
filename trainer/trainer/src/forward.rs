//! The forward pass of a model, on a device and in a precision. Training, evaluation and prediction share this code, so
//! that equal batches give the same bits.

use tch::{Device, Kind, TchError, Tensor};
use wavemill_schemas::config::{Precision, Train};

use crate::ffi::{self, FfiError};
use crate::models::{Inputs, ModelError, Net};

/// The device and precision of a forward pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForwardPass {
    /// The CPU or a GPU on which the model computes.
    pub device: Device,
    /// Kind of number of weights and inputs.
    pub kind: Kind,
    /// True if matrix products are computed in bf16.
    bf16: bool,
}

impl ForwardPass {
    /// Creates a forward pass as configured. Changes the settings of libtorch for the whole process.
    pub(crate) fn new(train: &Train, device: Device) -> Result<Self, FfiError> {
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

    /// Returns the logits `[n, classes]` of each target, in [`Self::kind`].
    pub(crate) fn logits(
        self,
        net: &Net,
        inputs: &Inputs,
        train: bool,
    ) -> Result<Vec<Tensor>, ModelError> {
        Ok(self.answer(net, inputs, train)?.1)
    }

    /// Returns the vectors `[n, width]` that are the input of the heads, and the logits of each target; both in
    /// [`Self::kind`].
    pub(crate) fn answer(
        self,
        net: &Net,
        inputs: &Inputs,
        train: bool,
    ) -> Result<(Tensor, Vec<Tensor>), ModelError> {
        if !self.bf16 {
            return net.answer(inputs, train);
        }

        // Autocast is a setting of the current thread, so it must be turned off even if the model fails.
        ffi::set_autocast_bf16(self.device, true)?;
        let answered = net.answer(inputs, train);
        ffi::set_autocast_bf16(self.device, false)?;

        let (vectors, logits) = answered?;
        Ok((
            vectors.to_kind(self.kind),
            logits.into_iter().map(|l| l.to_kind(self.kind)).collect(),
        ))
    }

    /// Converts logits to probabilities `[n, classes]`, f32 on the CPU. They sum to 1, except for several labels per
    /// row, where each class has an independent probability. Logits are divided by `temperature`.
    pub(crate) fn probabilities(
        self,
        logits: &Tensor,
        is_multi: bool,
        temperature: f64,
    ) -> Result<Tensor, TchError> {
        let scaled = (temperature != 1.0)
            .then(|| logits.f_div_scalar(temperature))
            .transpose()?;
        let logits = scaled.as_ref().unwrap_or(logits);
        let probabilities = if is_multi {
            logits.f_sigmoid()?
        } else {
            logits.f_softmax(1, self.kind)?
        };
        ffi::send(&probabilities, Device::Cpu)?.f_to_kind(Kind::Float)
    }
}
