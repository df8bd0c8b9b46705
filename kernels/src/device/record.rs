//! Records the work queued on a stream for measurements: its durations, and closures that queue it again.
//!
//! The kernels of a batch are launched again without the host's work: nothing is staged, and nothing is copied to or
//! from the device. So the time of a batch with samples on the device can be measured by wall clock, as for other
//! programs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::CudaEvent;

use crate::error::KernelError;

/// Record of all work queued on a stream, in order.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<StreamWork>>);

/// Recorded work of a stream since the last call of `take` or `take_again`.
#[derive(Default)]
struct StreamWork {
    pieces: Vec<Piece>,
    again: Vec<Again>,
}

/// A closure that queues an item of work again, on the same stream with the same buffers.
pub(crate) type Again = Box<dyn Fn() -> Result<(), KernelError> + Send>;

/// An item of work between two events.
pub(crate) struct Piece {
    /// Name of the kernel, or description of a copy, clearing or transform.
    pub(crate) what: &'static str,
    /// Number of bytes copied or cleared; 0 for kernels and transforms.
    pub(crate) bytes: usize,
    pub(super) start: CudaEvent,
    pub(super) end: CudaEvent,
}

impl Piece {
    /// Returns the work's duration in milliseconds. Call after the stream has been synchronized. Errors: the driver's.
    pub(crate) fn ms(&self) -> Result<f64, KernelError> {
        match self.start.elapsed_ms(&self.end) {
            Ok(ms) => Ok(f64::from(ms)),
            Err(error) => Err(KernelError::device(
                "cuda",
                "measure",
                super::cuda::describe(error),
            )),
        }
    }
}

impl Record {
    /// Records an item of queued work.
    pub(super) fn push(&self, piece: Piece) {
        self.lock().pieces.push(piece);
    }

    /// Records a closure that queues the last item of work again.
    pub(super) fn push_again(&self, again: Again) {
        self.lock().again.push(again);
    }

    /// Returns the items of work recorded since the last call.
    pub(crate) fn take(&self) -> Vec<Piece> {
        let mut work = self.lock();
        // Clear the unused list, which would otherwise grow with each batch.
        work.again.clear();
        std::mem::take(&mut work.pieces)
    }

    /// Returns closures that queue the work recorded since the last call again.
    pub(crate) fn take_again(&self) -> Vec<Again> {
        let mut work = self.lock();
        // Clear the unused list, which would otherwise grow with each batch.
        work.pieces.clear();
        std::mem::take(&mut work.again)
    }

    fn lock(&self) -> MutexGuard<'_, StreamWork> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
