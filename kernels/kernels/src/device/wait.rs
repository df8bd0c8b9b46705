//! Waiting for a GPU.
//!
//! cudarc stores an error that occurs while something is freed, on any thread, and its next call returns this error
//! instead of doing its work. Code that must wait until a copy has completed therefore calls the driver directly.
#![allow(unsafe_code)] // driver calls

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result};

/// Waits for all work queued on `stream`. Errors: those of a device that has failed permanently and no longer copies.
pub(super) fn for_stream(stream: &CudaStream) -> Result<(), DriverError> {
    enter(stream.context())?;
    // SAFETY: the reference keeps the stream alive during the call.
    unsafe { result::stream::synchronize(stream.cu_stream()) }
}

/// Waits for `event`; returns immediately if it was never recorded. Errors: as for [`for_stream`].
pub(super) fn for_event(event: &CudaEvent) -> Result<(), DriverError> {
    enter(event.context())?;
    // SAFETY: the reference keeps the event alive during the call.
    unsafe { result::event::synchronize(event.cu_event()) }
}

/// Makes the GPU current for the calling thread.
fn enter(context: &Arc<CudaContext>) -> Result<(), DriverError> {
    // SAFETY: `context` keeps the driver's context alive.
    unsafe { result::ctx::set_current(context.cu_ctx()) }
}
