//! Where compressed clips come from: a folder, or a zip read in place.

mod archive;
pub mod metadata;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use wavemill_schemas::reject::Reject;

/// What tells one state of an input from another, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stamp {
    /// A file: modification time in ns since the epoch.
    MtimeNs(i64),
    /// A zip entry: CRC-32 of the content.
    Crc32(u32),
}

/// Identity of one input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InputId {
    /// Uncompressed size in bytes.
    pub bytes: u64,
    /// Its stamp.
    pub stamp: Stamp,
}

/// `clip_key` → identity, of everything below the audio root.
pub type AudioIndex = BTreeMap<String, InputId>;

/// Why a clip's bytes did not come.
#[derive(Debug)]
pub enum ReadFailure {
    /// The clip's own fault: it is counted out.
    Reject(Reject),
    /// The machine's fault: the run stops and can be resumed.
    Io(std::io::Error),
}

/// A place that holds clips. Shared by the reader threads.
pub trait Source: Send + Sync {
    /// What there is.
    fn index(&self) -> &AudioIndex;

    /// Reads one clip whole into `buffer` (cleared first).
    ///
    /// # Errors
    /// [`ReadFailure::Reject`] for what the clip's bytes determine, [`ReadFailure::Io`] for the rest.
    fn read(&self, clip_key: &str, buffer: &mut Vec<u8>) -> Result<(), ReadFailure>;
}

/// Why a place of clips or metadata could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Neither readable folder nor readable file.
    #[error("cannot open {path}")]
    Open {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A zip whose directory cannot be read, as after a broken download.
    #[error(
        "{path}: the zip's directory is damaged or cut off; compare its sha1 with the publisher's and download it again"
    )]
    BrokenZip {
        /// The archive.
        path: PathBuf,
        /// What the parser says.
        source: zip::result::ZipError,
    },
    /// A metadata file that is not there.
    #[error("{path} holds no file {name}")]
    NoSuchFile {
        /// The folder or archive.
        path: PathBuf,
        /// The name asked for.
        name: String,
    },
    /// A metadata file behind a password.
    #[error("{name} in {path} is encrypted: unpack it first")]
    EncryptedFile {
        /// The archive.
        path: PathBuf,
        /// The entry.
        name: String,
    },
}

/// Whether a file is a zip by its first bytes: a local header, or the directory end of an empty archive.
fn is_zip(path: &Path) -> Result<bool, SourceError> {
    let mut magic = Vec::with_capacity(4);
    let read = File::open(path).and_then(|file| file.take(4).read_to_end(&mut magic));
    read.map_err(|source| SourceError::Open { path: path.to_owned(), source })?;
    Ok(magic == *b"PK\x03\x04" || magic == *b"PK\x05\x06")
}
