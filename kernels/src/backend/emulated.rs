//! The emulated device as a backend: what tests run where there is no GPU.

use wavemill_options::FeatureArgs;

use super::device::DevicePlan;
use super::{Backend, Plan};
use crate::device::{EmulatedDevice, Order, compiler_version};
use crate::error::KernelError;

/// Clips of a batch: few, so that the small inputs of tests still fill several.
const BATCH_CLIPS: usize = 8;

/// Some devices that do not exist, all alike.
#[derive(Clone, Copy, Debug)]
pub struct Emulation {
    devices: usize,
    order: Order,
}

impl Emulation {
    /// `devices` of them.
    pub fn new(devices: usize) -> Self {
        Self {
            devices,
            order: Order::Ascending,
        }
    }

    /// One whose threads run in `order`.
    #[cfg(test)]
    pub(crate) fn in_order(order: Order) -> Self {
        Self { devices: 1, order }
    }
}

impl Backend for Emulation {
    fn kind(&self) -> &'static str {
        "emulated"
    }

    fn level(&self) -> String {
        compiler_version().unwrap_or_else(|error| error.to_string())
    }

    fn batch_clips(&self) -> usize {
        BATCH_CLIPS
    }

    fn lanes(&self) -> usize {
        // Each device has two lanes, as a GPU has, so that tests run lanes side by side.
        2 * self.devices
    }

    fn plan(&self, _lane: usize, features: &[FeatureArgs]) -> Result<Box<dyn Plan>, KernelError> {
        Ok(Box::new(DevicePlan::new(
            EmulatedDevice::new(self.order)?,
            features,
        )?))
    }
}
