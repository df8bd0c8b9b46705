//! Host memory that is lent to a device for the copies of one batch.
#![allow(unsafe_code)] // a copy that continues after its call has returned

use std::cell::Cell;
use std::marker::PhantomData;

use super::Device;
use crate::error::KernelError;

/// Queues copies from memory that is borrowed for `'env`: see [`lending`].
pub(crate) struct Loans<'a, 'env, D: Device> {
    device: &'a D,
    /// Makes `'env` invariant: a shorter `'env` would permit memory that is freed before the device has been
    /// synchronized.
    env: PhantomData<Cell<&'env ()>>,
}

/// Calls `queue`, which may lend borrowed memory to `device`, and always waits for the device before it returns, even
/// if `queue` fails or panics. So all copies end before the borrow. (`std::thread::scope` works similarly.)
///
/// Errors: those of `queue`; the device's, including those of queued work.
pub(crate) fn lending<'env, D: Device, T>(
    device: &D,
    queue: impl FnOnce(&Loans<'_, 'env, D>) -> Result<T, KernelError>,
) -> Result<T, KernelError> {
    let waits = Wait(device);
    let queued = queue(&Loans {
        device,
        env: PhantomData,
    });

    let waited = device.synchronize();
    // The device has been synchronized already, so do not wait again.
    std::mem::forget(waits);
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
        // SAFETY: `from` is borrowed for `'env`, which outlives the call of `lending`, and `lending` waits for the
        // device.
        unsafe { self.device.upload_lent(from, to, at) }
    }
}

/// Waits for a device when it is dropped, in case `queue` panics.
struct Wait<'a, D: Device>(&'a D);

impl<D: Device> Drop for Wait<'_, D> {
    fn drop(&mut self) {
        // The panic of `queue` is already being reported, so ignore an error: a failed device no longer copies.
        let _ = self.0.synchronize();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::device::{EmulatedDevice, Order};

    /// Queues a copy from lent memory and then calls `end`, which may fail or panic; returns the number of copies that
    /// may be unfinished after `lending` has returned.
    fn unfinished_after(end: fn() -> Result<(), KernelError>) -> usize {
        let device = EmulatedDevice::new(Order::Ascending).expect("the machine has a C++ compiler");
        let mut there = device.alloc(4).expect("4 bytes");
        let lent = [1, 2, 3, 4];

        let ended = catch_unwind(AssertUnwindSafe(|| {
            lending(&device, |loans| {
                loans.upload(&lent, &mut there, 0)?;
                end()
            })
        }));
        drop(ended);
        let uploads = device.take_uploads();
        assert_eq!(uploads.lent, [(lent.as_ptr().addr(), 4)]);
        uploads.unfinished
    }

    fn good() -> Result<(), KernelError> {
        Ok(())
    }

    fn failed() -> Result<(), KernelError> {
        Err(KernelError::device("test", "queue", "after the loan"))
    }

    fn panicked() -> Result<(), KernelError> {
        panic!("after the loan")
    }

    #[test]
    fn device_is_synchronized_even_if_queueing_fails() {
        for end in [good, failed, panicked] {
            assert_eq!(unfinished_after(end), 0);
        }
    }
}
