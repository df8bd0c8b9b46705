//! The emulated device as a backend, for tests without a GPU.

use wavemill_options::FeatureArgs;

use super::device::DevicePlan;
use super::{Backend, Plan};
use crate::device::{EmulatedDevice, Order, compiler_version};
use crate::error::KernelError;

/// Clips per batch: few, so that the small inputs of tests still fill several batches.
const BATCH_CLIPS: usize = 8;

/// One or more identical emulated devices.
#[derive(Clone, Copy, Debug)]
pub struct Emulation {
    devices: usize,
    order: Order,
}

impl Emulation {
    /// Creates a backend with this number of emulated devices.
    pub fn new(devices: usize) -> Self {
        Self {
            devices,
            order: Order::Ascending,
        }
    }

    /// Creates a backend with one device, whose threads run in `order`.
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
        // Each device has two lanes, like a GPU, so that tests run lanes in parallel.
        2 * self.devices
    }

    fn plan(&self, _lane: usize, features: &[FeatureArgs]) -> Result<Box<dyn Plan>, KernelError> {
        Ok(Box::new(DevicePlan::new(
            EmulatedDevice::new(self.order)?,
            features,
        )?))
    }
}
