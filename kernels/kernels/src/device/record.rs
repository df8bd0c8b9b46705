//! Records the work queued on a stream for measurements: its durations, and closures that queue it again.
//!
//! The kernels of a batch are launched again without the host's work: nothing is staged, and nothing is copied to or
//! from the device. So the time of a batch with samples on the device can be measured by wall clock, as for other
//! programs.
#![allow(unsafe_code)] // calls the driver

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::CudaEvent;
use cudarc::driver::sys::{CUevent, CUresult, culib};

use super::{cuda, wait};
use crate::error::KernelError;

type ElapsedTime = unsafe extern "C" fn(*mut f32, CUevent, CUevent) -> CUresult;

/// Record of all work queued on a stream, in order.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<StreamWork>>);

/// Recorded work of a stream; `pieces` and `again` since the last call of `take` or `take_again`.
#[derive(Default)]
struct StreamWork {
    pieces: Vec<Piece>,
    again: Vec<Again>,
    /// For each kernel, the number of blocks of its last launch that a multiprocessor holds at once.
    blocks: HashMap<&'static str, u32>,
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
        wait::for_event(&self.end).map_err(|error| unmeasured(cuda::describe(error)))?;

        let mut ms = 0.0;
        // cudarc calls `cuEventElapsedTime_v2`, which drivers before CUDA 12.8 lack. All have the earlier function.
        // SAFETY: this is the function's type; both events are alive, and it writes one number.
        let result = unsafe {
            let elapsed = culib()
                .get::<ElapsedTime>(b"cuEventElapsedTime")
                .map_err(unmeasured)?;
            elapsed(&raw mut ms, self.start.cu_event(), self.end.cu_event())
        };
        result
            .result()
            .map_err(|error| unmeasured(cuda::describe(error)))?;
        Ok(f64::from(ms))
    }
}

/// Creates the error for work whose duration is unknown.
fn unmeasured(why: impl ToString) -> KernelError {
    KernelError::device("cuda", "measure", why)
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

    /// Records how many blocks of a kernel a multiprocessor holds at once.
    pub(super) fn note_blocks(&self, kernel: &'static str, blocks: u32) {
        self.lock().blocks.insert(kernel, blocks);
    }

    /// Returns how many blocks of a kernel a multiprocessor holds at once; `None` for work that is no kernel.
    pub(crate) fn blocks(&self, what: &str) -> Option<u32> {
        self.lock().blocks.get(what).copied()
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
