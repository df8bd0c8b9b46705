//! Page-locked host memory for copies to and from a GPU at full speed.
#![allow(unsafe_code)] // driver calls; memory that copies write without the compiler's knowledge

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::sys::{CU_MEMHOSTALLOC_PORTABLE, CUevent_flags, CUresult};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, PinnedHostSlice};
use wavemill_signal::AllocateLocked;

use super::{Plain, wait};

/// Page-locked memory for a fixed number of values, initially zero; cached for reads and writes of the host, and locked
/// for all GPUs of the process.
pub(crate) struct PageLocked<T> {
    /// Frees the memory on drop.
    _memory: PinnedHostSlice<u8>,
    start: NonNull<T>,
    len: usize,
    owned: PhantomData<T>,
}

// SAFETY: `PageLocked` owns the memory at `start`, like `_memory`, which is Send.
unsafe impl<T: Plain> Send for PageLocked<T> {}
// SAFETY: a shared reference only permits reading numbers.
unsafe impl<T: Plain> Sync for PageLocked<T> {}

impl<T: Plain> PageLocked<T> {
    /// Allocates page-locked memory for `len` values. Errors: the driver's, also if no more pages can be locked.
    pub(crate) fn new(context: &Arc<CudaContext>, len: usize) -> Result<Self, DriverError> {
        let too_large = DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        let bytes = len.checked_mul(size_of::<T>()).ok_or(too_large)?;
        if bytes > isize::MAX as usize - 1 {
            return Err(too_large);
        }

        // SAFETY: all bytes are written below before they are read. The flags exclude write-combined memory, cudarc's
        // default, which is slow to read. The driver refuses 0 bytes.
        let mut memory = unsafe {
            context.alloc_pinned_with_flags::<u8>(bytes.max(1), CU_MEMHOSTALLOC_PORTABLE)
        }?;
        let start = NonNull::new(memory.as_mut_ptr()?.cast::<T>()).ok_or(too_large)?;
        // The driver's memory begins at a page.
        assert!(start.is_aligned(), "pages are aligned for any number");
        // SAFETY: `len` values were just allocated, and zeros are a valid `Plain`.
        unsafe { start.write_bytes(0, len) };
        Ok(Self {
            _memory: memory,
            start,
            len,
            owned: PhantomData,
        })
    }
}

impl<T> AsRef<[T]> for PageLocked<T> {
    fn as_ref(&self) -> &[T] {
        // SAFETY: `len` values, initialised when they were allocated; code that passes them to a copy makes sure that
        // they are not read while the copy writes them (`PinnedMemory`, `lending`).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> AsMut<[T]> for PageLocked<T> {
    fn as_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, with a unique borrow.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// Returns a function that allocates page-locked memory for samples.
pub(crate) fn page_locks<T: Plain>(context: Arc<CudaContext>) -> AllocateLocked<T> {
    Arc::new(move |n| {
        // cudarc's first call may only return the error of an earlier call, so try twice.
        let memory = PageLocked::new(&context, n).or_else(|_| PageLocked::new(&context, n));
        Some(Box::new(memory.ok()?))
    })
}

/// Page-locked memory that waits for its copies: access and deallocation wait until the last copy queued for it has
/// completed. (cudarc's type has an event for this, but does not record it if events between streams are disabled.)
pub(crate) struct PinnedMemory {
    /// Freed only after `PinnedMemory::drop` has waited for the last copy.
    memory: PageLocked<u8>,
    /// Event recorded after the last copy.
    copied: CudaEvent,
}

impl PinnedMemory {
    pub(super) fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, DriverError> {
        // A waiting thread blocks instead of spinning, so that its core can decode.
        let copied = context.new_event(Some(CUevent_flags::CU_EVENT_BLOCKING_SYNC))?;
        let memory = PageLocked::new(context, bytes)?;
        Ok(Self { memory, copied })
    }

    /// Returns the size of the memory in bytes.
    pub(super) fn len(&self) -> usize {
        self.memory.len
    }

    /// Returns the first `bytes` bytes, to be used by a copy, without waiting for earlier copies.
    ///
    /// # Safety
    /// `bytes` is at most `self.len()`; the bytes must not be read while a copy writes to them.
    pub(super) unsafe fn bytes(&self, bytes: usize) -> &[u8] {
        &self.memory.as_ref()[..bytes]
    }

    /// Like [`Self::bytes`], for a copy that writes to the memory.
    ///
    /// # Safety
    /// As for [`Self::bytes`]; the bytes must be neither read nor written while any copy uses them.
    pub(super) unsafe fn bytes_mut(&mut self, bytes: usize) -> &mut [u8] {
        &mut self.memory.as_mut()[..bytes]
    }

    /// Records a copy that has just been queued on `stream`. If recording fails, waits for the copy.
    pub(super) fn queued(&self, stream: &CudaStream) -> Result<(), DriverError> {
        let recorded = self.copied.record(stream);
        // Without the event, later accesses could not wait for this copy.
        if recorded.is_err() {
            let _ = wait::for_stream(stream);
        }
        recorded
    }

    /// Waits for the last copy. If the device fails in the meantime, it no longer copies, and its next call returns the
    /// error.
    fn wait(&self) {
        let _ = wait::for_event(&self.copied);
    }
}

impl Drop for PinnedMemory {
    fn drop(&mut self) {
        self.wait();
    }
}

impl AsRef<[u8]> for PinnedMemory {
    fn as_ref(&self) -> &[u8] {
        self.wait();
        self.memory.as_ref()
    }
}

impl AsMut<[u8]> for PinnedMemory {
    fn as_mut(&mut self) -> &mut [u8] {
        self.wait();
        self.memory.as_mut()
    }
}
