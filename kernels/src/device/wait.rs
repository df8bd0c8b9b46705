//! Waiting for a GPU.
//!
//! cudarc keeps an error that happened while something was freed, on any thread, and the next of its calls answers with that
//! error instead of doing what it was asked to. Whoever must not go on before a copy is over asks the driver itself.
#![allow(unsafe_code)] // calls of the driver

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result};

/// Waits for all that was queued on `stream`. Errors: those of a device that has failed for good, and copies no more.
pub(super) fn for_stream(stream: &CudaStream) -> Result<(), DriverError> {
    enter(stream.context())?;
    // SAFETY: the stream lives as long as its borrow.
    unsafe { result::stream::synchronize(stream.cu_stream()) }
}

/// Waits until `event` was reached; not at all where it was never recorded. Errors: as [`for_stream`].
pub(super) fn for_event(event: &CudaEvent) -> Result<(), DriverError> {
    enter(event.context())?;
    // SAFETY: the event lives as long as its borrow.
    unsafe { result::event::synchronize(event.cu_event()) }
}

/// Makes the GPU the calling thread's.
fn enter(context: &Arc<CudaContext>) -> Result<(), DriverError> {
    // SAFETY: `context` keeps the driver's context alive.
    unsafe { result::ctx::set_current(context.cu_ctx()) }
}
