//! Host memory that copies to and from a GPU run from at full speed.
#![allow(unsafe_code)] // calls of the driver; memory that copies fill behind the compiler's back

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::sys::{CU_MEMHOSTALLOC_PORTABLE, CUevent_flags, CUresult};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, PinnedHostSlice};

use super::{Plain, wait};

/// Page-locked memory for a fixed number of values, zeros at first; cached for the host's reads as for its writes, and
/// locked for all GPUs of the process.
pub(crate) struct PageLocked<T> {
    /// Frees it.
    _memory: PinnedHostSlice<u8>,
    start: NonNull<T>,
    len: usize,
    owned: PhantomData<T>,
}

// SAFETY: owns what `start` points to, as `_memory` does, which is Send.
unsafe impl<T: Plain> Send for PageLocked<T> {}
// SAFETY: a shared reference only reads numbers.
unsafe impl<T: Plain> Sync for PageLocked<T> {}

impl<T: Plain> PageLocked<T> {
    /// Errors: the driver's; the system may lock no more pages.
    pub(crate) fn new(context: &Arc<CudaContext>, len: usize) -> Result<Self, DriverError> {
        let too_large = DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        let bytes = len.checked_mul(size_of::<T>()).ok_or(too_large)?;
        if bytes > isize::MAX as usize - 1 {
            return Err(too_large);
        }

        // SAFETY: the bytes are written below, before anything reads them. The flags leave out write-combined memory,
        // cudarc's default, which is slow to read. The driver refuses 0 bytes.
        let mut memory = unsafe {
            context.alloc_pinned_with_flags::<u8>(bytes.max(1), CU_MEMHOSTALLOC_PORTABLE)
        }?;
        let start = NonNull::new(memory.as_mut_ptr()?.cast::<T>()).ok_or(too_large)?;
        // The driver's memory begins on a page.
        assert!(start.is_aligned(), "pages are aligned for any number");
        // SAFETY: just allocated, `len` of them; zeros are a `Plain`.
        unsafe { start.write_bytes(0, len) };
        Ok(Self {
            _memory: memory,
            start,
            len,
            owned: PhantomData,
        })
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        // SAFETY: `len` values, written when they were allocated; whoever lends them to a copy sees to it that nothing
        // reads what is being written (`PinnedMemory`, `lending`).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed uniquely.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// Such memory that waits for its copies: its bytes are handed out, and freed, once the copy that was queued for it last
/// is over. (cudarc's type has an event for that, and leaves it unrecorded where events between streams are switched off.)
pub(crate) struct PinnedMemory {
    /// Dropped after `PinnedMemory::drop` has waited.
    memory: PageLocked<u8>,
    /// Behind the last copy.
    copied: CudaEvent,
}

impl PinnedMemory {
    pub(super) fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, DriverError> {
        // A thread that waits leaves its core to decoding.
        let copied = context.new_event(Some(CUevent_flags::CU_EVENT_BLOCKING_SYNC))?;
        let memory = PageLocked::new(context, bytes)?;
        Ok(Self { memory, copied })
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.memory.len
    }

    /// # Safety
    /// At most `self.len()`; nothing is read while a copy to them is under way.
    pub(super) unsafe fn bytes(&self, bytes: usize) -> &[u8] {
        &self.memory.as_slice()[..bytes]
    }

    /// # Safety
    /// As `bytes`; nothing is read or written while any copy is under way.
    pub(super) unsafe fn bytes_mut(&mut self, bytes: usize) -> &mut [u8] {
        &mut self.memory.as_mut_slice()[..bytes]
    }

    /// Remembers a copy that was queued on `stream` just now; where that cannot be, waits for it.
    pub(super) fn queued(&self, stream: &CudaStream) -> Result<(), DriverError> {
        let recorded = self.copied.record(stream);
        // Without the event nobody could wait for this copy later.
        if recorded.is_err() {
            let _ = wait::for_stream(stream);
        }
        recorded
    }

    /// Waits for the last copy. A device that fails meanwhile copies no more, and its next call tells.
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
        self.memory.as_slice()
    }
}

impl AsMut<[u8]> for PinnedMemory {
    fn as_mut(&mut self) -> &mut [u8] {
        self.wait();
        self.memory.as_mut_slice()
    }
}
