//! Metadata files that cannot be read as they are: pipes, which can be read once, and compressed files. Their content
//! is copied to temporary files without a name, which the system removes when the process ends.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, Cursor, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;

/// Extensions of compressed files.
const EXTENSIONS: [&str; 3] = [".gz", ".zst", ".bz2"];

/// Maximum size of the decompressed content of a metadata file in bytes: some kilobytes can be decompressed to any
/// number of bytes. Metadata of millions of tracks have less; the largest file of FMA has 950 MB.
pub const CONTENT_BYTES_MAX: u64 = 4 << 30;

/// Number of bytes that tell how a file is compressed.
const MAGIC_BYTES: usize = 10;

/// Marks after the first four bytes of a bzip2 file: the header of the first block, or the end of an empty file.
const BZIP2_BLOCKS: [&[u8]; 2] = [
    &[0x31, 0x41, 0x59, 0x26, 0x53, 0x59],
    &[0x17, 0x72, 0x45, 0x38, 0x50, 0x90],
];

/// Copies of this process, by the file that was copied.
static COPIES: Mutex<BTreeMap<Origin, File>> = Mutex::new(BTreeMap::new());

/// Identity of a file that was copied.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Origin {
    device: u64,
    inode: u64,
    /// Size in bytes and nanoseconds of the last modification; `None` for a pipe, which changes while it is read.
    state: Option<(u64, i64, i64)>,
}

impl Origin {
    fn new(found: &Metadata) -> Self {
        let state = (found.len(), found.mtime(), found.mtime_nsec());
        Self {
            device: found.dev(),
            inode: found.ino(),
            state: found.is_file().then_some(state),
        }
    }
}

/// Returns a path at which the content of the file `path` can be read as often as needed: `path` itself, or that of a
/// copy if the file is a pipe or compressed.
///
/// # Errors
/// An I/O error if the file cannot be read or decompressed, or the copy cannot be written.
pub(crate) fn readable(path: &Path) -> io::Result<PathBuf> {
    let found = fs::metadata(path)?;
    // Folders are listed, and their files are asked for one by one.
    let is_plain = found.is_dir() || found.is_file() && !is_compressed(path)?;
    if is_plain {
        return Ok(path.to_owned());
    }

    let origin = Origin::new(&found);
    // Another thread must not read the same pipe.
    let mut copies = COPIES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(copy) = copies.get(&origin) {
        return Ok(path_of(copy));
    }
    let copy = copy_of(File::open(path)?)?;
    let path = path_of(&copy);
    copies.insert(origin, copy);
    Ok(path)
}

/// Copies the content of a file, decompressed if it is compressed, to a temporary file without a name.
///
/// # Errors
/// As [`readable`]; `FileTooLarge` if more than [`CONTENT_BYTES_MAX`] are decompressed.
pub(crate) fn copy_of(content: impl Read + 'static) -> io::Result<File> {
    copy_within(content, CONTENT_BYTES_MAX)
}

/// Does the same as [`copy_of`] with another limit.
fn copy_within(content: impl Read + 'static, bytes_max: u64) -> io::Result<File> {
    let (content, is_compressed) = decompressed(content)?;
    let bytes_max = if is_compressed { bytes_max } else { u64::MAX };
    let mut copy = tempfile::tempfile()?;
    let bytes = io::copy(&mut content.take(bytes_max.saturating_add(1)), &mut copy)?;
    if bytes > bytes_max {
        return Err(too_large(bytes_max));
    }
    Ok(copy)
}

/// Creates the error of a file whose decompressed content is too large.
pub(crate) fn too_large(bytes_max: u64) -> io::Error {
    let problem = format!(
        "its content has more than {bytes_max} bytes: unpack it and give the unpacked file, if it is what you expect"
    );
    io::Error::new(io::ErrorKind::FileTooLarge, problem)
}

/// Returns a path under which this process can open a file without a name.
pub(crate) fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Returns the name of a file without the extension of its compression.
pub(crate) fn name_without_compression(name: &str) -> &str {
    let mut extensions = EXTENSIONS.iter();
    extensions
        .find_map(|extension| name.strip_suffix(extension))
        .unwrap_or(name)
}

fn is_compressed(path: &Path) -> io::Result<bool> {
    let (_, is_compressed) = decompressed(File::open(path)?)?;
    Ok(is_compressed)
}

/// Returns the content of a file, which is decompressed if its first bytes are those of a compressed file, and whether
/// they are.
fn decompressed(mut file: impl Read + 'static) -> io::Result<(Box<dyn Read>, bool)> {
    let mut magic = Vec::with_capacity(MAGIC_BYTES);
    file.by_ref()
        .take(MAGIC_BYTES as u64)
        .read_to_end(&mut magic)?;
    let start = Cursor::new(magic.clone());
    let whole = BufReader::new(start.chain(file));

    Ok(match magic[..] {
        [0x1F, 0x8B, ..] => (Box::new(MultiGzDecoder::new(whole)), true),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => (Box::new(zstd::Decoder::with_buffer(whole)?), true),
        [b'B', b'Z', b'h', b'1'..=b'9', ref block @ ..] if BZIP2_BLOCKS.contains(&block) => {
            (Box::new(MultiBzDecoder::new(whole)), true)
        }
        _ => (Box::new(whole), false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_decompressed_content_has_a_limit() {
        let zeros = vec![0_u8; 1000];
        let compressed = zstd::encode_all(&zeros[..], 1).unwrap();
        let copied = |content: &[u8], bytes_max| {
            let copy = copy_within(Cursor::new(content.to_vec()), bytes_max)?;
            copy.metadata().map(|found| found.len())
        };
        assert_eq!(copied(&compressed, 1000).unwrap(), 1000);
        assert_eq!(copied(&zeros, 999).unwrap(), 1000);

        let error = copied(&compressed, 999).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(error.to_string().contains("999 bytes"), "{error}");
    }
}
