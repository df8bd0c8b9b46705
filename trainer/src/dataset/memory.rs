//! libtorch's memory, lent to the loader's readers.

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
        // From page-locked memory a copy may be under way. libtorch's pool of it knows when that is done.
        !self.is_pinned()
    }
}
