//! Random access to a zip archive. The zip's directory is read once; entries are then read by position, from any
//! thread, without a lock.
//!
//! Zip entries may be stored or compressed with deflate or bzip2. The archives of the FMA dataset use bzip2.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bzip2::bufread::BzDecoder;
use flate2::{Crc, Decompress, FlushDecompress, Status};
use wavemill_reader::remote::Object;

use super::bytes_at::{Ahead, BytesAt, Section, is_of_machine};
use super::directory::{crc32, u16_at};
use super::split::{SizedFile, ZipFiles};
use super::{SourceError, directory, make_room, split};

/// Size of a local header in bytes, without the name and the extra field. The data follows both, whose lengths are in
/// the header.
pub(super) const LOCAL_HEADER_BYTES: u64 = 30;
pub(super) const LOCAL_HEADER_MAGIC: &[u8] = b"PK\x03\x04";

/// Compression methods by their number in the zip format.
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const BZIP2: u16 = 12;

/// Length of the extra field in an entry's own header that is read along with the data. Longer ones need another
/// request.
const EXTRA_BYTES: u64 = 512;

/// Number of bytes of an entry's data that are read at once by [`Archive::stream`].
const BLOCK_BYTES: usize = 32 << 10;
/// The same for a zip on another machine.
const REMOTE_BLOCK_BYTES: usize = 8 << 20;

/// Number of bytes by which compression may enlarge incompressible content, in addition to an eighth of its size. Real
/// compressors add far less.
const COMPRESSED_EXTRA_BYTES: u64 = 64 << 10;

/// An entry of a zip's directory.
#[derive(Debug)]
pub(super) struct Entry {
    /// Decoded name: `/`-separated, and UTF-8 unless it is wrongly marked as UTF-8.
    pub name: Box<[u8]>,
    /// Name in the entry's local header, if it differs: it may be in another encoding or have other separators.
    pub(super) header_name: Option<Box<[u8]>>,
    pub bytes: u64,
    pub crc32: u32,
    pub encrypted: bool,
    pub(super) method: u16,
    pub(super) header_start: u64,
    pub(super) compressed_bytes: u64,
}

impl Entry {
    /// Returns the name in the entry's own header, if the header is not damaged.
    pub(super) fn stored_name(&self) -> &[u8] {
        self.header_name.as_ref().unwrap_or(&self.name)
    }
}

/// A zip, which may consist of several files, and its directory, which may contain several entries with the same name.
#[derive(Debug)]
pub(super) struct Archive {
    pub path: PathBuf,
    pub entries: Vec<Entry>,
    file: Arc<dyn BytesAt>,
    file_bytes: u64,
}

/// Each thread keeps its buffer of compressed bytes up to this size. Music archives usually store their entries
/// uncompressed.
const COMPRESSED_BYTES_KEPT: usize = 1 << 20;
/// Maximum compression ratios. Deflate reaches 1,032 to 1: RFC 1951 has matches of 258 bytes at 2 bits. A bzip2 block
/// has 900,000 bytes, of which every 5 can encode a run of 259, and takes at least 32 bytes.
const DEFLATE_RATIO_MAX: u64 = 1_032;
const BZIP2_RATIO_MAX: u64 = 900_000 / 5 * 259 / 32;

thread_local! {
    /// Inflate state and compressed bytes of a zip entry. Both are reused for later clips; a large buffer is shrunk.
    static INFLATE: RefCell<(Decompress, Vec<u8>)> = RefCell::new((Decompress::new(false), Vec::new()));
}

impl Archive {
    /// Opens a zip and reads its directory, but not the content of its entries.
    pub(super) fn open(path: &Path) -> Result<Self, SourceError> {
        Self::of(path, open_file(path)?, |path| {
            path.is_file().then(|| open_file(path)).transpose()
        })
    }

    /// Opens a zip in an object store, whose address is `path`.
    pub(super) fn open_object(path: &Path, object: Object) -> Result<Self, SourceError> {
        let sized = |object: Object| -> SizedFile {
            let bytes = object.bytes();
            (Arc::new(object), bytes)
        };
        Self::of(path, sized(object), |path| {
            let found = Object::find(&path.to_string_lossy())?;
            Ok(found.map(sized))
        })
    }

    /// Opens the zip of which `file` is at `path`. `open` opens its other files, if it has any.
    fn of(
        path: &Path,
        file: SizedFile,
        open: impl Fn(&Path) -> Result<Option<SizedFile>, SourceError>,
    ) -> Result<Self, SourceError> {
        let files = Arc::new(ZipFiles::find(path, file, open)?);
        let entries = directory::read(&files).map_err(|source| {
            let is_split = files.boundaries().len() > 0 || split::is_piece(path);
            let path = path.to_owned();
            // All errors that are not the machine's are caused by invalid bytes in the zip.
            if is_of_machine(&source) {
                SourceError::Open { path, source }
            } else if is_split {
                let problem = source.to_string();
                SourceError::SplitZip { path, problem }
            } else {
                SourceError::BrokenZip { path, source }
            }
        })?;
        Ok(Self {
            path: path.to_owned(),
            entries,
            file_bytes: files.bytes(),
            file: files,
        })
    }

    /// Reads a whole entry into `buffer` and checks its CRC-32. The caller must have checked `bytes` and `encrypted`.
    ///
    /// # Errors
    /// `InvalidData` or `UnexpectedEof` if the archive's bytes are wrong, `Unsupported` if the compression method is
    /// unknown to wavemill, and otherwise the operating system's error.
    pub(super) fn read(&self, entry: &Entry, buffer: &mut Vec<u8>) -> io::Result<()> {
        // Check the sizes before memory is allocated by them.
        self.check_sizes(entry)?;
        let ahead = self.file.ahead(span(entry))?;
        let ahead = ahead.map(|bytes| Ahead {
            start: entry.header_start,
            bytes,
            rest: &*self.file,
        });
        let file = match &ahead {
            Some(ahead) => ahead as &dyn BytesAt,
            None => &*self.file,
        };

        let start = self.data_start(file, entry)?;
        make_room(buffer, entry.bytes as usize);
        buffer.resize(entry.bytes as usize, 0);

        match entry.method {
            STORED => file.fill_at(buffer, start)?,
            DEFLATED | BZIP2 => INFLATE.with_borrow_mut(|(state, compressed)| {
                decompress(file, entry, start, state, compressed, buffer)
            })?,
            _ => return Err(self.unsupported(entry)),
        }

        if crc32(buffer) == entry.crc32 {
            Ok(())
        } else {
            Err(damaged("CRC-32 differs from the directory's"))
        }
    }

    /// Returns the number of bytes of memory that [`Archive::read`] needs for an entry, or 0 if the sizes in the
    /// directory are impossible.
    pub(super) fn read_bytes(&self, entry: &Entry) -> u64 {
        if self.check_sizes(entry).is_err() {
            return 0;
        }
        let ahead = match self.file.is_remote() {
            true => span(entry).end - entry.header_start,
            false => 0,
        };
        match entry.method {
            STORED => entry.bytes + ahead,
            DEFLATED | BZIP2 => entry.bytes + entry.compressed_bytes + ahead,
            _ => 0,
        }
    }

    /// Returns the CRC-32 of an entry, or that of the checksums of several entries, to detect changes.
    pub(super) fn crc32(&self, positions: &[usize]) -> u32 {
        if let &[position] = positions {
            return self.entries[position].crc32;
        }
        let mut crc = Crc::new();
        for &position in positions {
            crc.update(&self.entries[position].crc32.to_le_bytes());
        }
        crc.sum()
    }

    /// Reports whether the zip is on another machine.
    pub(super) fn is_remote(&self) -> bool {
        self.file.is_remote()
    }

    /// Returns a reader of a zip entry's content. The reader checks the CRC-32 at the end.
    ///
    /// # Errors
    /// Same as [`Archive::read`]. They can occur here or while reading from the returned reader.
    pub(super) fn stream(&self, entry: &Entry) -> io::Result<EntryReader> {
        self.check_sizes(entry)?;
        let position = self.data_start(&*self.file, entry)?;
        let raw = Section {
            bytes: Arc::clone(&self.file),
            position,
            end: position + entry.compressed_bytes,
        };
        let block_bytes = if self.is_remote() {
            REMOTE_BLOCK_BYTES
        } else {
            BLOCK_BYTES
        };
        let raw = BufReader::with_capacity(block_bytes, raw);

        let content: Box<dyn Read + Send> = match entry.method {
            STORED => Box::new(raw),
            DEFLATED => Box::new(flate2::bufread::DeflateDecoder::new(raw)),
            BZIP2 => Box::new(BzDecoder::new(raw)),
            _ => return Err(self.unsupported(entry)),
        };

        Ok(EntryReader {
            // Allow reading one byte more than announced, to detect content that is too long.
            content: content.take(entry.bytes + 1),
            crc: Crc::new(),
            bytes: entry.bytes,
            crc32: entry.crc32,
        })
    }

    /// Returns the position of an entry's data. First checks that the name and compression method in the entry's own
    /// header match the directory, and that all `compressed_bytes` are before the end of the file. A corrupt size in
    /// the directory therefore cannot make a reader allocate more memory than the archive is long.
    fn data_start(&self, file: &dyn BytesAt, entry: &Entry) -> io::Result<u64> {
        let mut header = [0; LOCAL_HEADER_BYTES as usize];
        file.fill_at(&mut header, entry.header_start)?;
        if &header[..4] != LOCAL_HEADER_MAGIC {
            return Err(damaged("the directory points to no entry"));
        }

        let method = u16_at(&header, 8);
        if method != entry.method {
            let message = format!(
                "compression method {} in the directory, {method} in its own header",
                entry.method
            );
            return Err(damaged(&message));
        }

        // Use the two lengths in the entry's own header: its extra field may differ from that in the directory.
        let name_bytes = u16_at(&header, 26);
        let extra_bytes = u16_at(&header, 28);
        let mut name = vec![0; usize::from(name_bytes)];
        let name_start = entry.header_start + LOCAL_HEADER_BYTES;
        file.fill_at(&mut name, name_start)?;
        // Compare the names: a corrupt directory could otherwise return another entry's audio under this key.
        if name != entry.stored_name() {
            return Err(damaged(
                "another name in its own header than in the directory",
            ));
        }

        let start = name_start + u64::from(name_bytes) + u64::from(extra_bytes);
        if start.saturating_add(entry.compressed_bytes) > self.file_bytes {
            return Err(damaged("the entry lies past the end of the archive"));
        }
        Ok(start)
    }

    /// Checks that an entry's sizes in the zip's directory are possible, because buffers are allocated by them.
    fn check_sizes(&self, entry: &Entry) -> io::Result<()> {
        let most = entry
            .bytes
            .saturating_add(entry.bytes / 8)
            .saturating_add(COMPRESSED_EXTRA_BYTES);
        let differs_stored = entry.method == STORED && entry.compressed_bytes != entry.bytes;
        if entry.compressed_bytes > most || differs_stored {
            return Err(damaged("its two sizes do not fit together"));
        }

        let ratio_max = if entry.method == BZIP2 {
            BZIP2_RATIO_MAX
        } else {
            DEFLATE_RATIO_MAX
        };
        // Divide instead of multiplying by the ratio, because the product may not fit in 64 bits.
        if entry.method != STORED && entry.bytes / ratio_max > entry.compressed_bytes {
            return Err(damaged("no compression makes so much of so little"));
        }

        let least_end = entry
            .header_start
            .saturating_add(LOCAL_HEADER_BYTES)
            .saturating_add(entry.compressed_bytes);
        if least_end > self.file_bytes {
            return Err(damaged("the entry lies past the end of the archive"));
        }
        Ok(())
    }

    fn unsupported(&self, entry: &Entry) -> io::Error {
        let method = entry.method;
        let zip = self.path.file_name().unwrap_or_default().display();
        let remedy =
            format!("compression method {method}: unpack it (7z x {zip}) and give the folder");
        io::Error::new(io::ErrorKind::Unsupported, remedy)
    }
}

pub(super) fn open_file(path: &Path) -> Result<SizedFile, SourceError> {
    let file = File::open(path).map_err(SourceError::open_at(path))?;
    let metadata = file.metadata().map_err(SourceError::open_at(path))?;
    Ok((Arc::new(file), metadata.len()))
}

/// Returns the range of an entry: its header, and its data unless the header's extra field is unusually long.
fn span(entry: &Entry) -> Range<u64> {
    let head_bytes = LOCAL_HEADER_BYTES + entry.stored_name().len() as u64 + EXTRA_BYTES;
    let bytes = head_bytes.saturating_add(entry.compressed_bytes);
    entry.header_start..entry.header_start.saturating_add(bytes)
}

/// Reads the compressed bytes of an entry into `compressed` and decompresses them into `buffer`.
fn decompress(
    file: &dyn BytesAt,
    entry: &Entry,
    start: u64,
    state: &mut Decompress,
    compressed: &mut Vec<u8>,
    buffer: &mut [u8],
) -> io::Result<()> {
    make_room(compressed, entry.compressed_bytes as usize);
    compressed.resize(entry.compressed_bytes as usize, 0);
    file.fill_at(compressed, start)?;

    let result = if entry.method == BZIP2 {
        bunzip(compressed, buffer)
    } else {
        inflate(state, compressed, buffer)
    };
    // Shrink the buffer of compressed bytes even if the entry is damaged.
    compressed.clear();
    compressed.shrink_to(COMPRESSED_BYTES_KEPT);
    result
}

pub(super) fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Inflates to exactly the length of `buffer`. Fails on a zip bomb, which contains more bytes than it announces.
fn inflate(state: &mut Decompress, compressed: &[u8], buffer: &mut [u8]) -> io::Result<()> {
    // Use raw deflate, without zlib's header. The state may be left over from an entry that failed half way.
    state.reset(false);
    let status = state
        .decompress(compressed, buffer, FlushDecompress::Finish)
        .map_err(|_| damaged("corrupt deflate data"))?;
    if status == Status::StreamEnd && state.total_out() == buffer.len() as u64 {
        return Ok(());
    }
    Err(damaged("the content is not as long as announced"))
}

/// Decompresses bzip2 like [`inflate`]. The decoder cannot be reused between entries.
fn bunzip(compressed: &[u8], buffer: &mut [u8]) -> io::Result<()> {
    let mut decoder = BzDecoder::new(compressed);
    // The compressed data must not contain more bytes than announced.
    let beyond = decoder
        .read_exact(buffer)
        .and_then(|()| decoder.read(&mut [0]));
    match beyond {
        Ok(0) => Ok(()),
        Ok(_) => Err(damaged("the content is longer than announced")),
        Err(_) => Err(damaged("corrupt bzip2 data, or not as long as announced")),
    }
}

/// A reader of a zip entry's content. Fails at the end if the content is not what the zip's directory announced.
pub(super) struct EntryReader {
    content: io::Take<Box<dyn Read + Send>>,
    crc: Crc,
    bytes: u64,
    crc32: u32,
}

impl Read for EntryReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.content.read(buffer).map_err(|error| {
            // An error of the operating system may be temporary and does not mean that the zip is damaged.
            if is_of_machine(&error) {
                return error;
            }
            damaged(&error.to_string())
        })?;
        self.crc.update(&buffer[..got]);

        // The limit is one byte more than the announced size. If that byte is read, the content is too long.
        let left = self.content.limit();
        let is_at_end = got == 0 && !buffer.is_empty();
        let is_whole = left == 1 && self.crc.sum() == self.crc32;
        if left == 0 || is_at_end && !is_whole {
            return Err(damaged(&format!(
                "not the {} bytes with CRC-32 {:08x} that were announced",
                self.bytes, self.crc32
            )));
        }
        Ok(got)
    }
}
