//! Host memory for the rows of batches: plain memory, or memory provided by another library.

use std::fmt::Debug;
use std::hint::black_box;
use std::io;

use crossbeam_channel::Sender;
use wavemill_schemas::exit::PlainError;

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
            let unsupported = io::Error::from(io::ErrorKind::Unsupported);
            let error = PlainError::failed("page-locked memory").caused_by(unsupported);
            return Err(error.into());
        }
        // A failed allocation of `vec!` would abort the process, so the memory is first requested in a way that returns
        // an error. `black_box` keeps the compiler from removing that request.
        let mut probe = Vec::<u8>::new();
        let reserved = probe.try_reserve_exact(bytes);
        reserved.map_err(|error| {
            PlainError::failed(format!("{bytes} bytes of memory for a batch")).caused_by(error)
        })?;
        drop(black_box(probe));

        // `vec!` takes zeroed pages from the system, which `resize` would write.
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

/// Memory of a batch. When it is dropped, the loader reuses it for another batch.
#[derive(Debug)]
pub struct BatchMemory<M: HostMemory = Vec<u8>> {
    /// The memory; `None` only while it is dropped.
    memory: Option<M>,
    /// The channel to the loader that uses the memory again.
    pool: Sender<M>,
}

impl<M: HostMemory> BatchMemory<M> {
    pub(crate) const fn new(memory: M, pool: Sender<M>) -> Self {
        Self {
            memory: Some(memory),
            pool,
        }
    }

    /// Returns the memory.
    pub fn get(&self) -> &M {
        self.memory.as_ref().expect(UNTIL_DROPPED)
    }

    /// Returns the memory for writing.
    pub fn get_mut(&mut self) -> &mut M {
        self.memory.as_mut().expect(UNTIL_DROPPED)
    }
}

/// Why [`BatchMemory`] always contains memory.
const UNTIL_DROPPED: &str = "only `drop` takes the memory out";

impl<M: HostMemory> Drop for BatchMemory<M> {
    fn drop(&mut self) {
        // A GPU may still be copying from memory that is not reusable. Only the library that provides the memory knows
        // when the copy is complete.
        let reusable = self.memory.take().filter(HostMemory::is_reusable);
        if let Some(memory) = reusable {
            // Sending fails if the loader has been dropped and no longer needs the memory, or has enough.
            let _ = self.pool.try_send(memory);
        }
    }
}
