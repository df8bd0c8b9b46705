//! What a stream was given to do, noted for measurements: how long each piece took, and how to do it once more.
//!
//! The kernels of a batch are launched anew without the host's part of it: nothing is staged, and nothing is copied to or
//! from the device. So the time of a batch whose samples lie on the device can be taken by the wall clock, as other
//! programs' is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::CudaEvent;

use crate::error::KernelError;

/// Work on a stream, in order.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<StreamWork>>);

/// What a stream did since it was last asked.
#[derive(Default)]
struct StreamWork {
    pieces: Vec<Piece>,
    again: Vec<Again>,
}

/// Queues a piece of work once more, on the same stream and the same buffers.
pub(crate) type Again = Box<dyn Fn() -> Result<(), KernelError> + Send>;

/// A piece of work between two events.
pub(crate) struct Piece {
    /// A kernel's name, or what else was done.
    pub(crate) what: &'static str,
    /// Bytes of a copy.
    pub(crate) bytes: usize,
    pub(super) start: CudaEvent,
    pub(super) end: CudaEvent,
}

impl Piece {
    /// How long it took, once the stream was waited for. Errors: the driver's.
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
    /// A piece was queued.
    pub(super) fn push(&self, piece: Piece) {
        self.lock().pieces.push(piece);
    }

    /// It can be queued once more, by this.
    pub(super) fn push_again(&self, again: Again) {
        self.lock().again.push(again);
    }

    /// Pieces since the last call.
    pub(crate) fn take(&self) -> Vec<Piece> {
        let mut work = self.lock();
        // The other list is not wanted now, and would grow from batch to batch.
        work.again.clear();
        std::mem::take(&mut work.pieces)
    }

    /// How the work since the last call is done once more.
    pub(crate) fn take_again(&self) -> Vec<Again> {
        let mut work = self.lock();
        // The other list is not wanted now, and would grow from batch to batch.
        work.pieces.clear();
        std::mem::take(&mut work.again)
    }

    fn lock(&self) -> MutexGuard<'_, StreamWork> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
