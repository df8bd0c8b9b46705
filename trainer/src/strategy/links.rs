//! Connections of a rank in the ring: it sends to the next rank while it receives from the previous one.
//!
//! A separate thread sends, so that ranks which all send first cannot deadlock. Its buffers are reused: no memory is
//! allocated after the first few chunks. This module does not depend on the order of the steps.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::buffer::MutableBuffer;
use arrow::datatypes::{ArrowNativeType, ToByteSlice};
use crossbeam_channel::{Receiver, Sender, bounded};

/// Bytes per write: large enough to amortize the system call, small enough for sending and receiving to overlap.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;
/// Maximum number of chunks that wait to be sent.
const CHUNKS: usize = 4;
/// Maximum size of a chunk that is sent without the sending thread, to avoid a context switch. A chunk of this size
/// always fits into the socket's send buffer if everything before it has been sent.
const DIRECT_BYTES_MAX: usize = 4096;

// Values are sent in their memory representation, so all ranks need the same byte order.
const _: () = assert!(cfg!(target_endian = "little"));

/// Error of a connection.
#[derive(Debug)]
pub(super) struct LinkError {
    /// Rank on the other side of the connection.
    pub(super) neighbour: usize,
    /// Error of the operating system.
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
    /// Queue of chunks for the sending thread.
    full: Sender<Vec<u8>>,
    /// Chunks that have been sent and can be filled again.
    spare: Receiver<Vec<u8>>,
    /// Error that stopped the sending thread.
    error: Arc<Mutex<Option<io::Error>>>,
    incoming: TcpStream,
    outgoing: TcpStream,
    /// Receive buffer, aligned for all number types.
    received: MutableBuffer,
}

impl Links {
    /// Creates the links from a connection to the next rank and one from the previous rank.
    ///
    /// # Errors
    /// I/O errors if a thread cannot be spawned or a connection cannot be cloned.
    pub(super) fn new(next: Peer, previous: Peer) -> io::Result<Self> {
        let (full, to_send) = bounded::<Vec<u8>>(CHUNKS);
        let (sent, spare) = bounded(CHUNKS);
        // All buffers start as spare, so that `push` waits for a buffer only if all of them are in use.
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
                // The loop ends when `Links` is dropped, which closes the queue.
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

    /// Returns the rank from which this rank receives.
    pub(super) fn previous(&self) -> usize {
        self.previous
    }

    /// Sends `values`, at most [`CHUNK_BYTES`]. Blocks only if [`CHUNKS`] chunks are waiting to be sent.
    pub(super) fn push<T: ArrowNativeType>(&mut self, values: &[T]) -> Result<(), LinkError> {
        let bytes = values.to_byte_slice();
        // All chunks are spare, so these bytes cannot overtake a chunk in the queue.
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

    /// Blocks until the next `count` values (at most [`CHUNK_BYTES`]) have arrived from the previous rank.
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

    /// Clones the handles of both connections, so that the watchdog can shut them down.
    ///
    /// # Errors
    /// I/O errors if a handle cannot be cloned.
    pub(super) fn handles(&self) -> io::Result<[TcpStream; 2]> {
        Ok([self.incoming.try_clone()?, self.outgoing.try_clone()?])
    }

    /// Shuts down both connections. Threads that wait for them get an error.
    pub(super) fn cut(&self) {
        for stream in [&self.incoming, &self.outgoing] {
            // Fails if the connection is already shut down.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Returns the error that ended the sending thread.
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
