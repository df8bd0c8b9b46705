//! Bytes that are read by position: a file, or an object in an object store.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use wavemill_reader::RemoteError;
use wavemill_reader::remote::Object;

/// Bytes that any thread can read by position.
pub(super) trait BytesAt: Debug + Send + Sync {
    /// Reads some bytes at a position, and returns their number: 0 only at the end, or for an empty buffer.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Fills `buffer` with the bytes at a position.
    fn fill_at(&self, mut buffer: &mut [u8], mut position: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, position) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    buffer = &mut buffer[n..];
                    position += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads a range in one request if each request takes long. Returns `None` for a file.
    fn ahead(&self, _range: Range<u64>) -> io::Result<Option<Bytes>> {
        Ok(None)
    }

    /// Reports whether the bytes are on another machine.
    fn is_remote(&self) -> bool {
        false
    }
}

impl BytesAt for File {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, position)
    }
}

impl BytesAt for Object {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let end = self
            .bytes()
            .min(position.saturating_add(buffer.len() as u64));
        let read = self.read(position.min(end)..end)?;
        buffer[..read.len()].copy_from_slice(&read);
        Ok(read.len())
    }

    fn ahead(&self, range: Range<u64>) -> io::Result<Option<Bytes>> {
        let end = range.end.min(self.bytes());
        self.read(range.start.min(end)..end).map(Some)
    }

    fn is_remote(&self) -> bool {
        true
    }
}

/// Bytes of which a range was read ahead.
#[derive(Debug)]
pub(super) struct Ahead<'a> {
    pub(super) start: u64,
    pub(super) bytes: Bytes,
    /// Source of all other bytes.
    pub(super) rest: &'a dyn BytesAt,
}

impl BytesAt for Ahead<'_> {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let offset = position
            .checked_sub(self.start)
            .map(|offset| offset as usize);
        match offset.and_then(|offset| self.bytes.get(offset..)) {
            Some(known) if !known.is_empty() => {
                let n = known.len().min(buffer.len());
                buffer[..n].copy_from_slice(&known[..n]);
                Ok(n)
            }
            _ => self.rest.read_at(buffer, position),
        }
    }
}

/// A byte range, read from its beginning to its end.
pub(super) struct Section {
    pub bytes: Arc<dyn BytesAt>,
    pub position: u64,
    pub end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.end - self.position)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let got = self.bytes.read_at(&mut buffer[..wanted], self.position)?;
        self.position += got as u64;
        Ok(got)
    }
}

/// Reports whether an error comes from the machine or the network, and not from the bytes of a file.
pub fn is_of_machine(error: &io::Error) -> bool {
    error.raw_os_error().is_some() || is_of_network(error)
}

/// Reports whether an error comes from a request, which was repeated already.
pub(super) fn is_of_network(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|cause| cause.is::<RemoteError>())
}
