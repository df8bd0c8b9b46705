//! Where compressed clips come from: a folder, or a zip read in place.

mod archive;
mod directory;
mod folder;
mod keys;
pub mod metadata;
pub mod others;
mod retry;
#[cfg(test)]
mod tests;
mod zipped;

pub use keys::Media;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use wavemill_schemas::recipe::FILE_BYTES_MAX;
use wavemill_schemas::reject::{Reason, Reject, Stage};

use self::others::OtherFiles;

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

/// An input as it was when it was read: kept in receipts, so that a later run can tell whether it changed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InputSeen {
    /// Size and stamp.
    #[serde(flatten)]
    pub id: Option<InputId>,
    /// blake3 of the whole file, lower-case hex. Empty: it could not be read.
    pub content: String,
    /// See [`crate::decode::InputHasher`], lower-case hex. Empty: there is no audio in it. `None` before format 3.
    #[serde(default)]
    pub decode_key: Option<String>,
}

impl InputSeen {
    /// A file that could not be read; one without `id` is not there.
    pub(crate) const fn unreadable(id: Option<InputId>) -> Self {
        Self {
            id,
            content: String::new(),
            decode_key: Some(String::new()),
        }
    }

    /// A file that was read.
    pub(crate) fn read(
        id: Option<InputId>,
        content: blake3::Hash,
        decode_key: Option<blake3::Hash>,
    ) -> Self {
        let decode_key = decode_key.map(|key| key.to_hex().to_string());
        Self {
            id,
            content: content.to_hex().to_string(),
            decode_key: Some(decode_key.unwrap_or_default()),
        }
    }
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
    /// What clips are here.
    fn media(&self) -> Media;

    /// What there is.
    fn index(&self) -> &AudioIndex;

    /// Makes rejects of clips of more bytes. Before it is called, [`CLIP_BYTES_MAX`] is the limit.
    fn set_bytes_max(&mut self, bytes: u64);

    /// What was found and can have no key: paths that are not UTF-8, names and folder links that lead outside.
    fn rejects(&self) -> &[Reject];

    /// The files that are no clips.
    fn others(&self) -> &OtherFiles;

    /// Bytes that [`Source::read`] holds at most, compressed ones included, unless the file grows meanwhile; 0 for a
    /// clip that it refuses without reading.
    fn read_bytes(&self, clip_key: &str) -> u64;

    /// Reads one clip whole into `buffer` (cleared first).
    ///
    /// # Errors
    /// [`ReadFailure::Reject`] for what the clip's bytes determine, [`ReadFailure::Io`] for the rest.
    fn read(&self, clip_key: &str, buffer: &mut Vec<u8>) -> Result<(), ReadFailure>;
}

/// Most bytes of a clip, unless a recipe sets a smaller limit.
pub const CLIP_BYTES_MAX: u64 = FILE_BYTES_MAX;

/// Opens a folder, or a zip by its content, and lists its clips.
///
/// Clips are known by extension ([`Media::extensions`]); names with a leading dot are passed over, and so are folders of
/// such a name. [`Source::others`] counts what is no clip. The audio root is the
/// deepest folder that holds all clips, but none directly unless it is `path` itself: `fma_large/`, its parent
/// and `fma_large.zip` give equal keys. Links out of `path` are followed with `allow_outside` only.
///
/// # Errors
/// [`SourceError`] where `path` cannot be listed, or holds no clip.
pub fn open(
    path: &Path,
    media: Media,
    allow_outside: bool,
) -> Result<Box<dyn Source>, SourceError> {
    let found = std::fs::metadata(path).map_err(SourceError::open_at(path))?;
    let source: Box<dyn Source> = if found.is_dir() {
        Box::new(folder::FolderSource::open(path, media, allow_outside)?)
    } else if found.is_file() && is_zip(path)? {
        Box::new(zipped::ZipSource::open(path, media)?)
    } else {
        // It is not opened: a pipe would be waited for.
        return Err(SourceError::NotAPlace {
            path: path.to_owned(),
        });
    };

    if source.index().is_empty() && source.rejects().is_empty() {
        return Err(SourceError::NoClips {
            path: path.to_owned(),
            media,
            unsupported: source.others().unsupported_words(),
        });
    }
    Ok(source)
}

/// Empties `buffer` and gives it just the room that it needs.
fn make_room(buffer: &mut Vec<u8>, bytes: usize) {
    buffer.clear();
    if buffer.capacity() < bytes {
        // The old memory goes first: a vector that grows would hold both for a moment.
        *buffer = Vec::new();
        buffer.reserve_exact(bytes);
    }
}

/// The reject of a file whose extension is that of a format which wavemill does not decode. Its clip fields are empty.
pub(crate) fn unsupported(clip_key: &str, stage: Stage) -> Reject {
    let detail = format!(
        "wavemill does not decode {}: convert the file",
        others::extension_of(clip_key)
    );
    Reject::new(stage, Reason::UnsupportedCodec, detail)
}

fn too_large(bytes_max: u64) -> ReadFailure {
    let detail = if bytes_max == CLIP_BYTES_MAX {
        format!("over {} MiB", CLIP_BYTES_MAX >> 20)
    } else {
        format!("over {bytes_max} bytes, which is the recipe's max_file_bytes")
    };
    ReadFailure::Reject(Reject::new(Stage::Read, Reason::TooLarge, detail))
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
        /// What is wrong with it.
        source: io::Error,
    },
    /// Something else than a folder or a zip.
    #[error(
        "{path} is neither a folder nor a zip; give the folder that holds the clips, or a zip of it"
    )]
    NotAPlace {
        /// The path.
        path: PathBuf,
    },
    /// A place without clips.
    #[error("no clip ({}) below {path}: {}", media.extensions().join(", "), no_clips_remedy(unsupported))]
    NoClips {
        /// The path.
        path: PathBuf,
        /// What was looked for.
        media: Media,
        /// Files of other formats in it, in words; empty without any.
        unsupported: String,
    },
    /// A metadata file that is not there.
    #[error("{path} holds no file {name}")]
    NoSuchFile {
        /// The folder or archive.
        path: PathBuf,
        /// The name asked for.
        name: String,
    },
    /// A metadata file of which an archive holds several.
    #[error(
        "{path}: {n} entries are called {name}: make a zip with one of them, or give the folder"
    )]
    Duplicates {
        /// The archive.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// How many.
        n: usize,
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

fn no_clips_remedy(unsupported: &str) -> String {
    if unsupported.is_empty() {
        return "is it the audio folder?".to_owned();
    }
    format!("it holds {unsupported}, which wavemill does not decode: convert them first")
}

impl SourceError {
    fn open_at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Open { path, source }
    }
}

/// Whether a file is a zip by its first bytes: a local header, or the directory end of an empty archive.
fn is_zip(path: &Path) -> Result<bool, SourceError> {
    let mut magic = Vec::with_capacity(4);
    let read = File::open(path).and_then(|file| file.take(4).read_to_end(&mut magic));
    read.map_err(SourceError::open_at(path))?;
    Ok(magic == *b"PK\x03\x04" || magic == *b"PK\x05\x06")
}

/// A clip that is not in the index: one that the metadata looks for elsewhere, one of a format that is not decoded, or
/// one that is not there.
fn absent(clip_key: &str, others: &OtherFiles, detail: &str) -> ReadFailure {
    if others.unsupported.contains(clip_key) {
        return ReadFailure::Reject(unsupported(clip_key, Stage::Read));
    }

    // Keys come from metadata too, where any path may stand.
    let leaves = clip_key.starts_with('/') || clip_key.split('/').any(|part| part == "..");
    let (reason, detail) = if leaves {
        (Reason::OutsideRoot, "the path leaves the audio root")
    } else {
        (Reason::MissingFile, detail)
    };
    ReadFailure::Reject(Reject::new(Stage::Read, reason, detail))
}
