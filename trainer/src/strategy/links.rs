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
pub(super) struct LinkError {
    /// The rank on its other side.
    pub(super) neighbour: usize,
    /// The system's words.
    pub(super) source: io::Error,
}

/// A connection and the rank on its other side.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) rank: usize,
    pub(super) stream: TcpStream,
}

/// Both connections of a rank.
#[derive(Debug)]
pub(super) struct Links {
    next: usize,
    previous: usize,
    /// Chunks for the sending thread.
    full: Sender<Vec<u8>>,
    /// Chunks that it has sent, to be filled again.
    spare: Receiver<Vec<u8>>,
    /// What made it stop.
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
    pub(super) fn new(next: Peer, previous: Peer) -> io::Result<Self> {
        let (full, to_send) = bounded::<Vec<u8>>(CHUNKS);
        let (sent, spare) = bounded(CHUNKS);
        // All buffers begin as spare, so that `push` waits for one only if all are under way.
        for _ in 0..CHUNKS {
            sent.send(Vec::with_capacity(CHUNK_BYTES))
                .map_err(io::Error::other)?;
        }

        let error = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&error);
        let mut stream = next.stream.try_clone()?;
        std::thread::Builder::new()
            .name("ring-send".to_owned())
            .spawn(move || {
                // Ends when `Links` is dropped, which closes the queue.
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
            next: next.rank,
            previous: previous.rank,
            full,
            spare,
            error,
            incoming: previous.stream,
            outgoing: next.stream,
            received: MutableBuffer::from_len_zeroed(CHUNK_BYTES),
        })
    }

    /// The rank that this one hears.
    pub(super) fn previous(&self) -> usize {
        self.previous
    }

    /// Sends at most [`CHUNK_BYTES`] of `values`. Waits only if [`CHUNKS`] chunks are on their way.
    pub(super) fn push<T: ArrowNativeType>(&mut self, values: &[T]) -> Result<(), LinkError> {
        let bytes = values.to_byte_slice();
        // All chunks are spare: nothing is on its way that these bytes could overtake.
        if bytes.len() <= DIRECT_BYTES_MAX && self.spare.len() == CHUNKS {
            return self.outgoing.write_all(bytes).map_err(|source| LinkError {
                neighbour: self.next,
                source,
            });
        }

        let Ok(mut chunk) = self.spare.recv() else {
            return Err(self.sending_error());
        };
        chunk.clear();
        chunk.extend_from_slice(bytes);
        self.full.send(chunk).map_err(|_| self.sending_error())
    }

    /// Waits for the next `count` values (at most [`CHUNK_BYTES`]) of the previous rank.
    pub(super) fn pull<T: ArrowNativeType>(&mut self, count: usize) -> Result<&[T], LinkError> {
        let bytes = &mut self.received.as_slice_mut()[..count * size_of::<T>()];
        match self.incoming.read_exact(bytes) {
            Ok(()) => Ok(&self.received.typed_data::<T>()[..count]),
            Err(source) => Err(LinkError {
                neighbour: self.previous,
                source,
            }),
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

    /// Why the sending thread has ended.
    fn sending_error(&self) -> LinkError {
        let error = self
            .error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        LinkError {
            neighbour: self.next,
            source: error.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()),
        }
    }
}
