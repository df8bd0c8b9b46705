//! The bytes of a feature's file, on this machine or in an object store.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use wavemill_reader::StreamedFile;

use crate::DatasetError;

/// Number of bytes that a Parquet reader reads at a time, unless it needs more.
const BLOCK_BYTES: u64 = 8 << 10;
/// Number of unneeded bytes between two ranges that are read from an object store with one request.
const GAP_BYTES: u64 = 64 << 10;

/// A file of a feature.
#[derive(Debug)]
pub(crate) struct FeatureFile {
    /// Path of the file, or its address.
    pub path: PathBuf,
    /// Size in bytes.
    pub bytes: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Open(File),
    /// Opened for each read.
    Closed,
    Streamed(StreamedFile),
}

impl FeatureFile {
    /// Opens a file on this machine.
    ///
    /// # Errors
    /// An I/O error if the file cannot be opened.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path)?;
        Ok(Self {
            bytes: file.metadata()?.len(),
            path,
            content: Content::Open(file),
        })
    }

    /// Creates a file that is read by ranges from an object store, where it has the address `path`.
    pub(crate) fn streamed(path: PathBuf, file: StreamedFile) -> Self {
        Self {
            bytes: file.bytes(),
            path,
            content: Content::Streamed(file),
        }
    }

    /// Returns the same file, not kept open.
    pub(crate) fn closed(&self) -> Option<Self> {
        matches!(self.content, Content::Open(_)).then(|| Self {
            path: self.path.clone(),
            bytes: self.bytes,
            content: Content::Closed,
        })
    }

    /// Returns the file in an object store, if it is in one.
    pub(crate) const fn in_object_store(&self) -> Option<&StreamedFile> {
        match &self.content {
            Content::Streamed(file) => Some(file),
            Content::Open(_) | Content::Closed => None,
        }
    }

    /// Fills `into` with the bytes at `offset`.
    ///
    /// # Errors
    /// An I/O error, of kind [`io::ErrorKind::UnexpectedEof`] if the file is shorter.
    pub(crate) fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        // Positional reads let several readers share an open file.
        match &self.content {
            Content::Open(file) => file.read_exact_at(into, offset),
            Content::Closed => File::open(&self.path)?.read_exact_at(into, offset),
            Content::Streamed(file) => {
                let end = offset + into.len() as u64;
                into.copy_from_slice(&file.read(offset..end).map_err(io::Error::other)?);
                Ok(())
            }
        }
    }

    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        if let Content::Streamed(file) = &self.content {
            return file.read(range).map_err(io::Error::other);
        }
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.read_at(&mut bytes, range.start)?;
        Ok(bytes.into())
    }
}

/// A file as Parquet's readers read it: in blocks, of which the last one is kept, and those that were read ahead.
#[derive(Clone, Debug)]
pub(crate) struct Chunks {
    file: Arc<FeatureFile>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    last: Block,
    ahead: Vec<Block>,
    failure: Option<io::Error>,
}

/// Bytes at an offset in a file.
#[derive(Debug)]
struct Block {
    offset: u64,
    bytes: Bytes,
}

impl Block {
    fn part(&self, start: u64, length: usize) -> Option<Bytes> {
        let from = usize::try_from(start.checked_sub(self.offset)?).ok()?;
        let end = from.checked_add(length)?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(from..end))
    }
}

impl Chunks {
    /// Creates a reader of a file, of which `bytes` at `offset` are known.
    pub(crate) fn new(file: &Arc<FeatureFile>, offset: u64, bytes: Bytes) -> Self {
        let state = State {
            last: Block { offset, bytes },
            ahead: Vec::new(),
            failure: None,
        };
        Self {
            file: Arc::clone(file),
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the error of a Parquet reader, or the failed read that caused it.
    pub(crate) fn explain(&self, error: impl Into<ParquetError>) -> DatasetError {
        let path = &self.file.path;
        match self.state().failure.take() {
            Some(failure) => DatasetError::io_at(path, "read")(failure),
            None => DatasetError::parquet_at(path)(error),
        }
    }

    /// Reads ranges that will be needed, at the same time. Does nothing for a file on this machine.
    ///
    /// # Errors
    /// [`DatasetError::Damaged`] if the object is missing or has another size, [`DatasetError::Store`] if it cannot be
    /// read.
    pub(crate) fn read_ahead(
        &self,
        wanted: impl IntoIterator<Item = Range<u64>>,
    ) -> Result<(), DatasetError> {
        let Some(file) = self.file.in_object_store() else {
            return Ok(());
        };
        let mut wanted: Vec<Range<u64>> = wanted.into_iter().collect();
        wanted.sort_by_key(|range| range.start);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for range in wanted {
            // A damaged footer can name any range.
            let end = range.end.min(file.bytes());
            match ranges.last_mut() {
                Some(last) if range.start <= last.end + GAP_BYTES => last.end = last.end.max(end),
                _ if range.start < end => ranges.push(range.start..end),
                _ => {}
            }
        }

        let parts = ranges.iter().map(|range| (file, range.clone()));
        let read = StreamedFile::read_all(parts, &AtomicBool::new(false));
        let read = read.map_err(DatasetError::of_remote)?.unwrap_or_default();
        let blocks = ranges.iter().zip(read).map(|(range, bytes)| Block {
            offset: range.start,
            bytes,
        });
        self.state().ahead.extend(blocks);
        Ok(())
    }

    /// Reads `length` bytes at `start`.
    fn read(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let file = &self.file;
        let end = start.saturating_add(length as u64);
        if end > file.bytes {
            let problem = format!("{length} bytes at {start} are outside of the file");
            return Err(ParquetError::EOF(problem));
        }

        let mut state = self.state();
        let mut blocks = std::iter::once(&state.last).chain(&state.ahead);
        if let Some(part) = blocks.find_map(|block| block.part(start, length)) {
            return Ok(part);
        }

        let block_end = end.max(start + BLOCK_BYTES).min(file.bytes);
        match file.read(start..block_end) {
            Ok(bytes) => {
                let part = bytes.slice(..length);
                state.last = Block {
                    offset: start,
                    bytes,
                };
                Ok(part)
            }
            Err(failure) => {
                let problem = failure.to_string();
                // A file that is shorter than before is damaged.
                if failure.kind() != io::ErrorKind::UnexpectedEof {
                    state.failure = Some(failure);
                }
                Err(ParquetError::General(problem))
            }
        }
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.file.bytes
    }
}

impl ChunkReader for Chunks {
    type T = Reading;

    fn get_read(&self, start: u64) -> Result<Reading, ParquetError> {
        Ok(Reading {
            chunks: self.clone(),
            next: start,
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.read(start, length)
    }
}

/// The bytes of a file from an offset on.
#[derive(Debug)]
pub(crate) struct Reading {
    chunks: Chunks,
    next: u64,
}

impl Read for Reading {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.chunks.len().saturating_sub(self.next);
        let length = left.min(into.len() as u64) as usize;
        let read = self.chunks.read(self.next, length);
        into[..length].copy_from_slice(&read.map_err(io::Error::other)?);
        self.next += length as u64;
        Ok(length)
    }
}
