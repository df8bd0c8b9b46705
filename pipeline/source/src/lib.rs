//! Sources of compressed clips: a folder, or a zip that is read in place.

mod archive;
mod bytes_at;
mod content;
mod directory;
mod folder;
mod keys;
pub mod metadata;
mod names;
mod objects;
pub mod others;
mod retry;
mod split;
#[cfg(test)]
mod tests;
mod zipped;

pub use bytes_at::is_of_machine;
pub use keys::Media;
use wavemill_reader::RemoteError;
use wavemill_reader::remote::{Object, Remote};
use wavemill_schemas::durable::if_there;
use wavemill_schemas::exit::{Classified, Kind, PlainError};
use wavemill_schemas::input::InputId;
use wavemill_schemas::local_path::scheme;
use wavemill_schemas::recipe::FILE_BYTES_MAX;
use wavemill_schemas::reject::{Reason, Reject, Stage};

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use self::archive::Archive;
use self::others::OtherFiles;

/// Size and stamp of every file below the audio root, by the file's `clip_key`.
pub type AudioIndex = BTreeMap<String, InputId>;

/// Reason why a clip's bytes could not be read.
#[derive(Debug)]
pub enum ReadFailure {
    /// The clip cannot be read because of its content or name. It is counted as a reject.
    Reject(Reject),
    /// The machine failed, for example its disk. The run stops and can be resumed.
    Io(std::io::Error),
}

/// A collection of clips, which all reader threads share.
pub trait Source: Send + Sync {
    /// Returns what was found.
    fn listing(&self) -> &Listing;

    /// Returns what was found, to change the limit of clips.
    fn listing_mut(&mut self) -> &mut Listing;

    /// Returns whether the clips are recordings or pictures.
    fn media(&self) -> Media {
        self.listing().media
    }

    /// Returns all clips with their sizes and stamps.
    fn index(&self) -> &AudioIndex {
        &self.listing().index
    }

    /// Sets the maximum size of a clip in bytes; larger clips are rejected. The default is [`CLIP_BYTES_MAX`].
    fn set_bytes_max(&mut self, bytes: u64) {
        self.listing_mut().bytes_max = bytes;
    }

    /// Returns the rejects without a key: paths that are not UTF-8 or that lead out of the audio folder.
    fn rejects(&self) -> &[Reject] {
        &self.listing().rejects
    }

    /// Returns the files that are not clips, counted by reason and extension.
    fn others(&self) -> &OtherFiles {
        &self.listing().others
    }

    /// Returns the path of the audio root relative to the folder that was opened, which [`reopen`] needs.
    fn root(&self) -> &str {
        &self.listing().root
    }

    /// Returns the reason, known from listing, why a clip cannot be read. [`reopen`] needs it.
    fn fault(&self, _clip_key: &str) -> Option<&'static str> {
        None
    }

    /// Reports whether reading a clip takes a request to another machine, so that many should be read at the same time.
    fn is_remote(&self) -> bool {
        false
    }

    /// Returns the maximum number of bytes of memory that [`Source::read`] needs for a clip, including compressed
    /// bytes. Returns 0 for a clip that is rejected without being read.
    fn read_bytes(&self, clip_key: &str) -> u64;

    /// Reads a whole clip into `buffer`, which is cleared first.
    ///
    /// # Errors
    /// [`ReadFailure::Reject`] if the clip's bytes are the cause, and [`ReadFailure::Io`] otherwise.
    fn read(&self, clip_key: &str, buffer: &mut Vec<u8>) -> Result<(), ReadFailure>;
}

/// The result of listing a source; see the methods of [`Source`] of the same names.
pub struct Listing {
    media: Media,
    index: AudioIndex,
    rejects: Vec<Reject>,
    others: OtherFiles,
    root: String,
    bytes_max: u64,
}

impl Listing {
    /// Creates the listing of a source without clips.
    fn new(media: Media, root: &str) -> Self {
        Self {
            media,
            index: AudioIndex::new(),
            rejects: Vec::new(),
            others: OtherFiles::default(),
            root: root.to_owned(),
            bytes_max: CLIP_BYTES_MAX,
        }
    }

    /// Returns the size of a clip, or 0 if it is too large to be read.
    fn readable_bytes(&self, clip_key: &str) -> u64 {
        let bytes = self.index.get(clip_key).map_or(0, |id| id.bytes);
        if bytes > self.bytes_max { 0 } else { bytes }
    }
}

/// Maximum size of a clip in bytes, unless a recipe sets a smaller limit.
pub const CLIP_BYTES_MAX: u64 = FILE_BYTES_MAX;

/// Opens a folder, or a zip that is recognized by its content, and lists its clips. `path` may be an address such as
/// `s3://bucket/music`.
///
/// Clips are recognized by extension ([`Media::extensions`]). Files and folders whose name has a leading dot are
/// skipped. [`Source::others`] counts the files that are not clips. The audio root is the deepest folder that contains
/// all clips but none directly, unless it is `path` itself: `fma_large/`, its parent and `fma_large.zip` result in
/// equal keys. Links out of `path` are followed only with `allow_outside`.
///
/// # Errors
/// [`SourceError`] if `path` cannot be listed or contains no clip.
pub fn open(
    path: &Path,
    media: Media,
    allow_outside: bool,
) -> Result<Box<dyn Source>, SourceError> {
    let source = if scheme(path.as_os_str()).is_some() {
        open_remote(path, media)?
    } else {
        open_local(path, media, allow_outside)?
    };
    if source.index().is_empty() && source.rejects().is_empty() {
        return Err(SourceError::NoClips {
            path: path.to_owned(),
            media,
            remedy: no_clips_remedy(source.others()),
        });
    }
    Ok(source)
}

fn open_remote(path: &Path, media: Media) -> Result<Box<dyn Source>, SourceError> {
    if is_folder_of_objects(path)? {
        return Ok(Box::new(objects::ObjectSource::open(path, media)?));
    }
    match Object::find(&path.to_string_lossy())? {
        Some(object) if is_zip_object(path, &object)? => {
            let archive = Archive::open_object(path, object)?;
            Ok(Box::new(zipped::ZipSource::new(archive, media)))
        }
        Some(_) => Err(SourceError::NotAPlace {
            path: path.to_owned(),
        }),
        None => Err(SourceError::open_at(path)(io::Error::new(
            io::ErrorKind::NotFound,
            "no such object, and none below this address",
        ))),
    }
}

fn open_local(
    path: &Path,
    media: Media,
    allow_outside: bool,
) -> Result<Box<dyn Source>, SourceError> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            let source = folder::FolderSource::open(path, media, allow_outside)?;
            Ok(Box::new(source))
        }
        Ok(found) if found.is_file() && is_zip(path)? => Ok(Box::new(zipped::ZipSource::new(
            Archive::open(path)?,
            media,
        ))),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(SourceError::open_at(path)(error))
        }
        // Do not open the file here: opening a pipe would block.
        _ => Err(SourceError::NotAPlace {
            path: path.to_owned(),
        }),
    }
}

/// A clip of a source that another process listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedClip {
    /// Primary key of the clip: its path below the audio root.
    pub clip_key: String,
    /// Size and stamp of the clip's file; `None` if there was no such file.
    pub id: Option<InputId>,
    /// [`Source::fault`] of the clip.
    pub fault: Option<String>,
}

/// Opens some of the clips that [`open`] found at the same place. A folder is not listed again, so that many processes
/// can each open a part of a large archive. `root` is the [`Source::root`] of the source that listed the clips.
///
/// # Errors
/// The errors of [`open`]; [`SourceError::Other`] if a listed clip is not there, has another size or an unknown fault.
pub fn reopen(
    path: &Path,
    media: Media,
    root: &str,
    clips: impl IntoIterator<Item = ListedClip>,
) -> Result<Box<dyn Source>, SourceError> {
    if scheme(path.as_os_str()).is_some() {
        if is_folder_of_objects(path)? {
            let source = objects::ObjectSource::reopen(path, media, root, clips)?;
            return Ok(Box::new(source));
        }
    } else if is_folder(path)? {
        let source = folder::FolderSource::reopen(path, media, root, clips)?;
        return Ok(Box::new(source));
    }

    // The directory of a zip is needed for the places of its entries. It is one part of one file.
    let source = open(path, media, false)?;
    for clip in clips {
        let place = path.join(&clip.clip_key);
        match (clip.id, source.index().get(&clip.clip_key)) {
            (Some(listed), Some(now)) => require_bytes(listed, now.bytes, &place)?,
            (Some(_), None) => return Err(SourceError::moved(&place)),
            (None, _) => {}
        }
    }
    Ok(source)
}

/// Checks the current size of a clip that another process listed as `listed`.
fn require_bytes(listed: InputId, now: u64, path: &Path) -> Result<(), SourceError> {
    if now == listed.bytes {
        return Ok(());
    }
    let message = format!(
        "{} has {now} bytes, and had {} when it was listed: list the audio again with `wavemill plan`",
        path.display(),
        listed.bytes
    );
    Err(PlainError::new(Kind::OtherPlan, message).into())
}

fn is_folder_of_objects(path: &Path) -> Result<bool, SourceError> {
    Ok(Remote::input(&path.to_string_lossy())?.has_objects()?)
}

fn is_folder(path: &Path) -> Result<bool, SourceError> {
    let found = if_there(std::fs::metadata(path)).map_err(SourceError::open_at(path))?;
    Ok(found.ok_or_else(|| SourceError::moved(path))?.is_dir())
}

/// Question about a clip that was listed and is not there, and its remedy.
const LISTED_BEFORE: &str = "is the audio that was listed at this path (--audio), and mounted? If the file was \
     removed, list the audio again with `wavemill plan`";

/// The file to give of a zip in several files.
const FILE_OF_SEVERAL: &str = "of a zip in several files the one that ends in .zip or .zip.001";

/// Empties `buffer` and reserves exactly the requested number of bytes.
fn make_room(buffer: &mut Vec<u8>, bytes: usize) {
    buffer.clear();
    if buffer.capacity() < bytes {
        // Free the old memory first: growing the buffer would hold both allocations for a moment.
        *buffer = Vec::new();
        buffer.reserve_exact(bytes);
    }
}

/// Creates the reject of a file whose extension is that of a format that wavemill does not decode. The clip fields are
/// empty.
pub fn unsupported(clip_key: &str, stage: Stage) -> Reject {
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

/// The error type of sources of clips or metadata.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the fields
pub enum SourceError {
    /// The given path is not a readable folder or file.
    #[error("cannot open {path}")]
    Open { path: PathBuf, source: io::Error },
    /// The given address cannot be read.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The directory of the zip cannot be read, for example after an incomplete download.
    #[error(
        "{path}: the zip's directory is damaged or truncated; compare its sha1 with the publisher's and download it again, \
         or give {FILE_OF_SEVERAL}"
    )]
    BrokenZip { path: PathBuf, source: io::Error },
    /// A file of a zip in several files is missing, or has another size than when it was written.
    #[error(
        "{path} is one of several files of a zip, but {problem}; put all of them beside it, whole, or join them in their folder: {}",
        split::join_command(path)
    )]
    SplitZip { path: PathBuf, problem: String },
    /// The given path is neither a folder nor a zip, or does not exist.
    #[error(
        "--audio {path}: there is no folder or zip; give the folder that contains the clips, a zip of it, or \
         {FILE_OF_SEVERAL}"
    )]
    NotAPlace { path: PathBuf },
    /// The folder or zip contains no clips.
    #[error("no clip ({}) below {path}: {remedy}", media.extensions().join(", "))]
    NoClips {
        path: PathBuf,
        media: Media,
        remedy: String,
    },
    /// The requested metadata file does not exist.
    #[error("{path} does not contain a file {name}")]
    NoSuchFile { path: PathBuf, name: String },
    /// The archive contains several metadata files with the same name.
    #[error(
        "{path}: {n} entries are named {name}: create a zip with only one of them, or give the folder"
    )]
    Duplicates {
        path: PathBuf,
        name: String,
        n: usize,
    },
    /// The metadata file is encrypted in its archive.
    #[error("{name} in {path} is encrypted: unpack it first")]
    EncryptedFile { path: PathBuf, name: String },
    /// Any other error, for example of a listed clip that is not there, or of metadata that do not exist.
    #[error(transparent)]
    Other(#[from] PlainError),
}

fn no_clips_remedy(others: &OtherFiles) -> String {
    match (&*others.format_unsupported(), &*others.format_archives()) {
        ("", "") => "is it the audio folder?".to_owned(),
        ("", archives) => format!(
            "it contains {archives}, and archives in it are not opened: unpack them into one folder, and give that"
        ),
        (unsupported, _) => {
            format!("it contains {unsupported}, which wavemill does not decode: convert them first")
        }
    }
}

impl Classified for SourceError {
    fn kind(&self) -> Kind {
        match self {
            Self::Remote(error) => error.kind(),
            Self::Other(error) => error.kind(),
            // A request may succeed later.
            Self::Open { source, .. } if bytes_at::is_of_network(source) => Kind::Failed,
            _ => Kind::Usage,
        }
    }
}

impl SourceError {
    /// Creates the error for a folder, a zip or a clip that was listed earlier and is not there.
    fn moved(path: &Path) -> Self {
        // Another machine may have it.
        PlainError::failed(format!("{} is not there: {LISTED_BEFORE}", path.display())).into()
    }

    /// Creates the error for a listed clip with a fault that this version of wavemill does not know.
    fn unknown_fault(fault: &str) -> Self {
        let message = format!("unknown fault {fault:?} of a listed clip: list the clips again");
        PlainError::usage(message).into()
    }

    fn open_at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Open { path, source }
    }
}

/// Reports whether the object at the address `path` is a zip.
fn is_zip_object(path: &Path, object: &Object) -> Result<bool, SourceError> {
    directory::is_zip(object, object.bytes()).map_err(SourceError::open_at(path))
}

/// Reports whether a file is a zip.
fn is_zip(path: &Path) -> Result<bool, SourceError> {
    let (file, bytes) = archive::open_file(path)?;
    directory::is_zip(&*file, bytes).map_err(SourceError::open_at(path))
}

/// Reports whether a file is in Parquet format by its first bytes.
fn is_parquet(path: &Path) -> Result<bool, SourceError> {
    let mut magic = Vec::with_capacity(4);
    let read = File::open(path).and_then(|file| file.take(4).read_to_end(&mut magic));
    read.map_err(SourceError::open_at(path))?;
    Ok(magic == *b"PAR1")
}

/// Creates the reject of a clip key that is not in the audio index: its path leaves the audio root, its format is not
/// decoded, or the clip does not exist.
fn absent(clip_key: &str, others: &OtherFiles, detail: &str) -> ReadFailure {
    if others.unsupported.contains(clip_key) {
        return ReadFailure::Reject(unsupported(clip_key, Stage::Read));
    }

    // A clip key may come from metadata and so contain any path.
    let leaves = clip_key.starts_with('/') || clip_key.split('/').any(|part| part == "..");
    let (reason, detail) = if leaves {
        (Reason::OutsideRoot, "the path leaves the audio root")
    } else {
        (Reason::MissingFile, detail)
    };
    ReadFailure::Reject(Reject::new(Stage::Read, reason, detail))
}
