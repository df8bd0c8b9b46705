//! Host memory for the rows of batches: plain memory, or memory provided by another library.

use std::fmt::Debug;
use std::io;

use crate::DatasetError;

/// Host memory for the rows of one batch.
pub trait HostMemory: Debug + Send + Sized + 'static {
    /// Allocates `bytes` zero bytes, page-locked if `pinned`, so that a GPU can copy from them without the CPU.
    ///
    /// # Errors
    /// [`DatasetError::Other`] if the memory cannot be allocated.
    fn zeroed(bytes: usize, pinned: bool) -> Result<Self, DatasetError>;

    /// Returns all bytes of the memory for writing.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Returns the size of the memory in bytes.
    fn size(&self) -> usize;

    /// Reports whether the memory may be reused as soon as its batch is dropped: false if a GPU may still be copying
    /// from it.
    fn is_reusable(&self) -> bool;
}

impl HostMemory for Vec<u8> {
    fn zeroed(bytes: usize, pinned: bool) -> Result<Self, DatasetError> {
        if pinned {
            return Err(DatasetError::Other {
                message: "page-locked memory".to_owned(),
                source: Some(io::Error::from(io::ErrorKind::Unsupported).into()),
            });
        }
        Ok(vec![0; bytes])
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }

    fn size(&self) -> usize {
        self.len()
    }

    fn is_reusable(&self) -> bool {
        true
    }
}
