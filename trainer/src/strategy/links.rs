//! A rank's two connections in the ring: bytes go to the next rank while others come from the one before.
//!
//! A thread does the sending, so that ranks that all send first cannot wait for each other. Its buffers go round:
//! nothing is allocated after the first few. Knows no order of steps.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::buffer::MutableBuffer;
use arrow::datatypes::{ArrowNativeType, ToByteSlice};
use crossbeam_channel::{Receiver, Sender, bounded};

/// Bytes that travel at once: large enough that a system call is cheap, small enough to overlap.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that may wait to be sent.
const CHUNKS: usize = 4;
/// What is sent without the thread, which costs a change of threads: so little that the system always has room for it,
/// when all before it is sent.
const DIRECT_BYTES_MAX: usize = 4096;

// Numbers travel as they lie in memory.
const _: () = assert!(cfg!(target_endian = "little"));

/// A connection that failed.
#[derive(Debug)]
pub(super) struct Broken {
    /// The rank on its other side.
    pub(super) neighbour: usize,
    /// The system's words.
    pub(super) source: io::Error,
}

/// Both connections of a rank.
#[derive(Debug)]
pub(super) struct Links {
    next: usize,
    previous: usize,
    full: Sender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
    error: Arc<Mutex<Option<io::Error>>>,
    incoming: TcpStream,
    outgoing: TcpStream,
    /// Aligned for any number.
    received: MutableBuffer,
}

impl Links {
    /// Over connections to the next and from the previous rank.
    ///
    /// # Errors
    /// No thread, or no second handle of a connection.
    pub(super) fn new(next: (usize, TcpStream), previous: (usize, TcpStream)) -> io::Result<Self> {
        let (full, to_send) = bounded::<Vec<u8>>(CHUNKS);
        let (sent, spare) = bounded(CHUNKS);
        for _ in 0..CHUNKS {
            sent.send(Vec::with_capacity(CHUNK_BYTES)).map_err(io::Error::other)?;
        }
        let error = Arc::new(Mutex::new(None));
        let mut stream = next.1.try_clone()?;
        let slot = Arc::clone(&error);
        std::thread::Builder::new().name("ring-send".to_owned()).spawn(move || {
            for chunk in to_send {
                if let Err(failure) = stream.write_all(&chunk) {
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
                    return;
                }
                if sent.send(chunk).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self {
            next: next.0,
            previous: previous.0,
            full,
            spare,
            error,
            incoming: previous.1,
            outgoing: next.1,
            received: MutableBuffer::from_len_zeroed(CHUNK_BYTES),
        })
    }

    /// The rank that this one hears.
    pub(super) fn previous(&self) -> usize {
        self.previous
    }

    /// Sends at most [`CHUNK_BYTES`] of `values`. Waits only if [`CHUNKS`] chunks are on their way.
    pub(super) fn push<T: ArrowNativeType>(&mut self, values: &[T]) -> Result<(), Broken> {
        let bytes = values.to_byte_slice();
        if bytes.len() <= DIRECT_BYTES_MAX && self.spare.len() == CHUNKS {
            return self.outgoing.write_all(bytes).map_err(|source| Broken { neighbour: self.next, source });
        }
        let Ok(mut chunk) = self.spare.recv() else { return Err(self.broken()) };
        chunk.clear();
        chunk.extend_from_slice(bytes);
        self.full.send(chunk).map_err(|_| self.broken())
    }

    /// Waits for the next `count` values (at most [`CHUNK_BYTES`]) of the previous rank.
    pub(super) fn pull<T: ArrowNativeType>(&mut self, count: usize) -> Result<&[T], Broken> {
        match self.incoming.read_exact(&mut self.received.as_slice_mut()[..count * size_of::<T>()]) {
            Ok(()) => Ok(&self.received.typed_data::<T>()[..count]),
            Err(source) => Err(Broken { neighbour: self.previous, source }),
        }
    }

    /// Further handles of both connections, for one that may have to end them.
    ///
    /// # Errors
    /// No handle is left.
    pub(super) fn handles(&self) -> io::Result<[TcpStream; 2]> {
        Ok([self.incoming.try_clone()?, self.outgoing.try_clone()?])
    }

    /// Ends both connections; what waits for them ends with an error.
    pub(super) fn cut(&self) {
        for stream in [&self.incoming, &self.outgoing] {
            // Fails where it is cut already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// What the sending thread met.
    fn broken(&self) -> Broken {
        let met = self.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        let source = met.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
        Broken { neighbour: self.next, source }
    }
}
