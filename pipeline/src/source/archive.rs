//! Random access into a zip: the directory is read once, entries then by position, from any thread, without a lock.
//!
//! The zip crate parses the directory (zip64, archives with a prefix); content is read here, because its readers want
//! the archive to themselves. Only stored and deflated entries can be read, which is what zips of music hold.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::{Crc, Decompress, FlushDecompress, Status};
use zip::{CompressionMethod, ZipArchive};

use super::SourceError;

/// Bytes of a local header before its name: the data begins behind name and extra field, whose lengths stand in it.
const LOCAL_HEADER_BYTES: u64 = 30;
const LOCAL_HEADER_MAGIC: &[u8] = b"PK\x03\x04";

/// One entry of the directory.
#[derive(Debug)]
pub(super) struct Entry {
    /// As in the archive; `/`-separated, UTF-8 unless old or foreign.
    pub name: Box<[u8]>,
    pub bytes: u64,
    pub crc32: u32,
    pub encrypted: bool,
    pub method: CompressionMethod,
    header_start: u64,
    compressed_bytes: u64,
}

/// A zip file and its directory. Of several entries of one name, the last counts.
#[derive(Debug)]
pub(super) struct Archive {
    pub path: PathBuf,
    pub entries: Vec<Entry>,
    file: Arc<File>,
    file_bytes: u64,
}

thread_local! {
    /// Inflate state and the compressed bytes of one entry, kept from clip to clip.
    static INFLATE: RefCell<(Decompress, Vec<u8>)> = RefCell::new((Decompress::new(false), Vec::new()));
}

impl Archive {
    /// Reads the directory; content is not touched.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let open_error = |source| SourceError::Open { path: path.to_owned(), source };
        let zip_error = |source| SourceError::BrokenZip { path: path.to_owned(), source };
        let file = File::open(path).map_err(open_error)?;
        let file_bytes = file.metadata().map_err(open_error)?.len();
        let zip = ZipArchive::new(BufReader::new(&file)).map_err(zip_error)?;
        let mut entries = Vec::with_capacity(zip.len());
        for index in 0..zip.len() {
            let data = zip.by_index_data(index).map_err(zip_error)?;
            if data.is_dir() {
                continue;
            }
            entries.push(Entry {
                name: data.name_raw().into(),
                bytes: data.size(),
                crc32: data.crc32(),
                encrypted: data.encrypted(),
                method: data.compression(),
                header_start: data.header_start(),
                compressed_bytes: data.compressed_size(),
            });
        }
        drop(zip);
        Ok(Self { path: path.to_owned(), entries, file: Arc::new(file), file_bytes })
    }

    /// Reads a whole entry into `buffer` and checks it. The caller has looked at `bytes` and `encrypted`.
    ///
    /// # Errors
    /// `InvalidData` where the archive's own bytes are wrong, else what the system says.
    pub fn read(&self, entry: &Entry, buffer: &mut Vec<u8>) -> io::Result<()> {
        let start = self.data_start(entry)?;
        buffer.clear();
        buffer.resize(entry.bytes as usize, 0);
        match entry.method {
            CompressionMethod::Stored if entry.bytes == entry.compressed_bytes => {
                self.file.read_exact_at(buffer, start)?
            }
            CompressionMethod::Stored => return Err(damaged("a stored entry of two sizes")),
            CompressionMethod::Deflated => INFLATE.with_borrow_mut(|(state, compressed)| {
                compressed.resize(entry.compressed_bytes as usize, 0);
                self.file.read_exact_at(compressed, start)?;
                inflate(state, compressed, buffer)
            })?,
            other => return Err(unsupported(other)),
        }
        let mut crc = Crc::new();
        crc.update(buffer);
        if crc.sum() == entry.crc32 { Ok(()) } else { Err(damaged("CRC-32 differs from the directory's")) }
    }

    /// Reads an entry piece by piece; its CRC is checked at the end.
    ///
    /// # Errors
    /// As [`Archive::read`], here and from the reader.
    pub fn stream(&self, entry: &Entry) -> io::Result<EntryReader> {
        let position = self.data_start(entry)?;
        let raw = Section { file: Arc::clone(&self.file), position, end: position + entry.compressed_bytes };
        let content: Box<dyn Read + Send> = match entry.method {
            CompressionMethod::Stored => Box::new(raw),
            CompressionMethod::Deflated => Box::new(flate2::read::DeflateDecoder::new(raw)),
            other => return Err(unsupported(other)),
        };
        Ok(EntryReader {
            content: content.take(entry.bytes + 1),
            crc: Crc::new(),
            bytes: entry.bytes,
            crc32: entry.crc32,
        })
    }

    fn data_start(&self, entry: &Entry) -> io::Result<u64> {
        let mut header = [0; LOCAL_HEADER_BYTES as usize];
        if entry.header_start.saturating_add(LOCAL_HEADER_BYTES + entry.compressed_bytes) > self.file_bytes {
            return Err(damaged("the entry lies past the end of the archive"));
        }
        self.file.read_exact_at(&mut header, entry.header_start)?;
        if &header[..4] != LOCAL_HEADER_MAGIC {
            return Err(damaged("the directory points to no entry"));
        }
        let length_at = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
        Ok(entry.header_start + LOCAL_HEADER_BYTES + length_at(26) + length_at(28))
    }
}

fn unsupported(method: CompressionMethod) -> io::Error {
    damaged(&format!("compression method {method} is not supported"))
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Inflates to exactly `buffer`'s length: a bomb that holds more than it announces ends here.
fn inflate(state: &mut Decompress, compressed: &[u8], buffer: &mut [u8]) -> io::Result<()> {
    state.reset(false);
    let status =
        state.decompress(compressed, buffer, FlushDecompress::Finish).map_err(|_| damaged("corrupt deflate data"))?;
    if status == Status::StreamEnd && state.total_out() == buffer.len() as u64 {
        return Ok(());
    }
    Err(damaged("the content is not as long as announced"))
}

/// A part of a file, read by position.
struct Section {
    file: Arc<File>,
    position: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.end - self.position).unwrap_or(usize::MAX).min(buffer.len());
        let got = self.file.read_at(&mut buffer[..wanted], self.position)?;
        self.position += got as u64;
        Ok(got)
    }
}

/// An entry's content as a stream that fails at its end when it was not what the directory announced.
pub(super) struct EntryReader {
    content: io::Take<Box<dyn Read + Send>>,
    crc: Crc,
    bytes: u64,
    crc32: u32,
}

impl Read for EntryReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.content.read(buffer)?;
        self.crc.update(&buffer[..got]);
        let left = self.content.limit();
        // One byte more than announced was allowed: none of it may have come.
        if left == 0 || (got == 0 && !buffer.is_empty() && (left != 1 || self.crc.sum() != self.crc32)) {
            return Err(damaged(&format!(
                "not the {} bytes with CRC-32 {:08x} that were announced",
                self.bytes, self.crc32
            )));
        }
        Ok(got)
    }
}
