//! Host memory that is lent to a device for the copies of one batch.
#![allow(unsafe_code)] // a copy that goes on after its call has returned

use std::cell::Cell;
use std::marker::PhantomData;

use super::Device;
use crate::error::KernelError;

/// Queues copies from memory that is borrowed for `'env`: see [`lending`].
pub(crate) struct Loans<'a, 'env, D: Device> {
    device: &'a D,
    /// Neither longer nor shorter: a shorter `'env` would let in memory that is gone before the device was waited for.
    env: PhantomData<Cell<&'env ()>>,
}

/// Lets `queue` give borrowed memory to `device`, and waits for the device before it returns, however `queue` ends. So the
/// copies are over when the loan is. (`std::thread::scope` works alike.)
///
/// Errors: those of `queue`; the device's, of what was queued too.
pub(crate) fn lending<'env, D: Device, T>(
    device: &D,
    queue: impl FnOnce(&Loans<'_, 'env, D>) -> Result<T, KernelError>,
) -> Result<T, KernelError> {
    let wait = Wait(device);
    let queued = queue(&Loans {
        device,
        env: PhantomData,
    });

    let waited = wait.end();
    let value = queued?;
    waited.map(|()| value)
}

impl<'env, D: Device> Loans<'_, 'env, D> {
    /// Queues the copy of `from` to byte `at` of `to`.
    pub(crate) fn upload(
        &self,
        from: &'env [u8],
        to: &mut D::Buffer,
        at: usize,
    ) -> Result<(), KernelError> {
        // SAFETY: `from` is borrowed for `'env`, which outlives the call of `lending`, and that waits for the device.
        unsafe { self.device.upload_lent(from, to, at) }
    }
}

/// Waits for a device when it is dropped, in a panic say.
struct Wait<'a, D: Device>(&'a D);

impl<D: Device> Wait<'_, D> {
    fn end(self) -> Result<(), KernelError> {
        let first = self.0.synchronize();
        if first.is_ok() {
            std::mem::forget(self);
        }
        // Otherwise it is dropped here and waits again: a driver may have answered with an older error, without waiting.
        first
    }
}

impl<D: Device> Drop for Wait<'_, D> {
    fn drop(&mut self) {
        // A second error is of a device that failed for good and copies no more.
        if self.0.synchronize().is_err() {
            let _ = self.0.synchronize();
        }
    }
}
