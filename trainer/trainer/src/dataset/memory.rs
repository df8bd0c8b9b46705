//! Memory of libtorch, into which the loader's reader threads read rows.

use wavemill_loader::HostMemory;

use super::{DatasetError, refused};
use crate::ffi::HostBuffer;

impl HostMemory for HostBuffer {
    fn zeroed(bytes: usize, pinned: bool) -> Result<Self, DatasetError> {
        Self::new(bytes, pinned).map_err(refused)
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes_mut()
    }

    fn size(&self) -> usize {
        self.len()
    }

    fn is_reusable(&self) -> bool {
        // A copy from page-locked memory may still be running; only libtorch's memory pool knows when the copy is done.
        !self.is_pinned()
    }
}
