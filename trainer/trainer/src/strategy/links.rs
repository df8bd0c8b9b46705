//! Connections of a rank in the ring: it sends to the next rank while it receives from the previous one.
//!
//! Data is sent by a separate thread, so that ranks which all send before they receive cannot deadlock. The send
//! buffers are allocated once and reused.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};

use arrow::buffer::MutableBuffer;
use arrow::datatypes::{ArrowNativeType, ToByteSlice};
use crossbeam_channel::{Receiver, Sender, bounded};
use wavemill_terminal::interrupt::lock;

/// Bytes per write to a TCP connection: large enough to amortize the system call, small enough for sending and
/// receiving to overlap.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;
/// Maximum number of chunks that wait to be sent.
const CHUNKS: usize = 4;
/// Maximum size in bytes of a chunk that is sent without the sending thread, which avoids a context switch. A chunk of
/// this size always fits into the socket's send buffer if all earlier chunks have been sent.
const DIRECT_BYTES_MAX: usize = 4096;

// Numbers are sent as their bytes in memory, so all ranks need the same byte order.
const _: () = assert!(cfg!(target_endian = "little"));

/// Error of an operation over the ring. The watchdog may know the cause.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection to the rank `neighbour` broke, with an error of the operating system.
    Link { neighbour: usize, source: io::Error },
    /// The previous rank called another operation.
    OutOfStep { here: String, there: String },
}

/// A connection to another rank, and the number of that rank.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) rank: usize,
    pub(super) stream: TcpStream,
}

/// Connections of a rank to the next and the previous rank in the ring.
#[derive(Debug)]
pub(super) struct Links {
    next: usize,
    previous: usize,
    /// Queue of chunks for the sending thread.
    full: Sender<Vec<u8>>,
    /// Buffers of chunks that have been sent; they can be filled again.
    spare: Receiver<Vec<u8>>,
    /// Error that stopped the sending thread.
    error: Arc<Mutex<Option<io::Error>>>,
    incoming: TcpStream,
    outgoing: TcpStream,
    /// Receive buffer, aligned for every number type.
    received: MutableBuffer,
}

impl Links {
    /// Creates the links from a connection to the next rank and one from the previous rank.
    ///
    /// # Errors
    /// I/O errors if the sending thread cannot be started or a connection cannot be cloned.
    pub(super) fn new(next: Peer, previous: Peer) -> io::Result<Self> {
        let (full, to_send) = bounded::<Vec<u8>>(CHUNKS);
        let (sent, spare) = bounded(CHUNKS);
        // All buffers are spare at the start, so that `push` waits only if all of them are in use.
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
                        *lock(&slot) = Some(failure);
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

    /// Sends `values`, at most [`CHUNK_BYTES`], to the next rank. Blocks only if [`CHUNKS`] chunks are waiting to be
    /// sent.
    pub(super) fn push<T: ArrowNativeType>(&mut self, values: &[T]) -> Result<(), Fault> {
        let bytes = values.to_byte_slice();
        // No chunk is waiting in the queue, so bytes that are written directly cannot overtake another chunk.
        if bytes.len() <= DIRECT_BYTES_MAX && self.spare.len() == CHUNKS {
            return self
                .outgoing
                .write_all(bytes)
                .map_err(|source| Fault::Link {
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
    pub(super) fn pull<T: ArrowNativeType>(&mut self, count: usize) -> Result<&[T], Fault> {
        let bytes = &mut self.received.as_slice_mut()[..count * size_of::<T>()];
        match self.incoming.read_exact(bytes) {
            Ok(()) => Ok(&self.received.typed_data::<T>()[..count]),
            Err(source) => Err(Fault::Link {
                neighbour: self.previous,
                source,
            }),
        }
    }

    /// Clones the handles of both connections, so that the watchdog can close them.
    ///
    /// # Errors
    /// I/O errors if a handle of a connection cannot be cloned.
    pub(super) fn handles(&self) -> io::Result<[TcpStream; 2]> {
        Ok([self.incoming.try_clone()?, self.outgoing.try_clone()?])
    }

    /// Closes both connections. Threads that wait for data from them get an error.
    pub(super) fn cut(&self) {
        for stream in [&self.incoming, &self.outgoing] {
            // Fails if the connection is already closed.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Returns the error that ended the sending thread.
    fn sending_error(&self) -> Fault {
        let error = lock(&self.error).take();
        Fault::Link {
            neighbour: self.next,
            source: error.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()),
        }
    }
}
