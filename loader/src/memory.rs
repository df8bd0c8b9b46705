//! Where readers put rows: plain memory, or memory that another library lends.

use std::fmt::Debug;
use std::io;

use crate::DatasetError;

/// Memory of the host that one batch's rows are read into.
pub trait HostMemory: Debug + Send + Sized + 'static {
    /// `bytes` zeros, page-locked if `pinned`: then a GPU copies from them without the CPU.
    ///
    /// # Errors
    /// [`DatasetError::Library`]: no such memory is to be had.
    fn zeroed(bytes: usize, pinned: bool) -> Result<Self, DatasetError>;

    /// All of it, to be filled.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Bytes.
    fn size(&self) -> usize;

    /// Whether it may be filled anew as soon as its batch is gone. Not if a device may still be copying from it.
    fn is_reusable(&self) -> bool;
}

impl HostMemory for Vec<u8> {
    fn zeroed(bytes: usize, pinned: bool) -> Result<Self, DatasetError> {
        if pinned {
            return Err(DatasetError::Library {
                name: "page-locked memory",
                source: Box::new(io::Error::from(io::ErrorKind::Unsupported)),
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
