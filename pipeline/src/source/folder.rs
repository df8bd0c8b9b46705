//! Clips in a folder.
//!
//! The walk looks at every name once and opens nothing. Files that are no clips are counted. Whatever carries a clip's name is listed, also what cannot be
//! read as one (a folder, a pipe, a broken link): it is counted out when its turn comes, not lost silently.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry, File, FileType, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use wavemill_schemas::reject::{Reason, Reject, Stage};

use super::keys::{Media, root_len};
use super::others::{NoClip, OtherFiles};
use super::retry::with_retries;
use super::{
    AudioIndex, CLIP_BYTES_MAX, InputId, ReadFailure, Source, SourceError, Stamp, absent,
    make_room, too_large,
};

/// A folder of clips.
pub(super) struct FolderSource {
    media: Media,
    root: PathBuf,
    index: AudioIndex,
    /// Why a listed clip cannot be read, by key.
    unreadable: BTreeMap<String, Fault>,
    rejects: Vec<Reject>,
    others: OtherFiles,
    bytes_max: u64,
}

impl FolderSource {
    pub(super) fn open(
        path: &Path,
        media: Media,
        allow_outside: bool,
    ) -> Result<Self, SourceError> {
        let top = path.canonicalize().map_err(SourceError::open_at(path))?;
        let mut walk = FolderWalk {
            media,
            top: top.clone(),
            allow_outside,
            found: BTreeMap::new(),
            rejects: Vec::new(),
            others: OtherFiles::default(),
        };
        walk.folder(&top, false)?;

        let root_len = root_len(walk.found.keys().map(String::as_str));
        // All paths begin with the same bytes up to the root, so the first one shows them.
        let first = walk.found.keys().next();
        let prefix = first.map_or("", |first| &first[..root_len]);
        let root = top.join(prefix);
        let others = walk.others.below(prefix);

        let mut index = AudioIndex::new();
        let mut unreadable = BTreeMap::new();
        for (path, file) in walk.found {
            let key = path[root_len..].to_owned();
            if let Some(fault) = file.fault {
                unreadable.insert(key.clone(), fault);
            }
            index.insert(key, file.id);
        }

        // A folder tells its names in any order.
        walk.rejects.sort_by(|a, b| a.detail.cmp(&b.detail));
        Ok(Self {
            media,
            root,
            index,
            unreadable,
            rejects: walk.rejects,
            others,
            bytes_max: CLIP_BYTES_MAX,
        })
    }
}

impl Source for FolderSource {
    fn media(&self) -> Media {
        self.media
    }

    fn index(&self) -> &AudioIndex {
        &self.index
    }

    fn set_bytes_max(&mut self, bytes: u64) {
        self.bytes_max = bytes;
    }

    fn rejects(&self) -> &[Reject] {
        &self.rejects
    }

    fn others(&self) -> &OtherFiles {
        &self.others
    }

    fn read_bytes(&self, clip_key: &str) -> u64 {
        let bytes = self.index.get(clip_key).map_or(0, |id| id.bytes);
        if bytes > self.bytes_max { 0 } else { bytes }
    }

    fn read(&self, clip_key: &str, buffer: &mut Vec<u8>) -> Result<(), ReadFailure> {
        buffer.clear();
        if let Some(fault) = self.unreadable.get(clip_key) {
            let reject = Reject::new(Stage::Read, fault.reason, fault.detail);
            return Err(ReadFailure::Reject(reject));
        }
        if !self.index.contains_key(clip_key) {
            let detail = "no such file below the audio root";
            return Err(absent(clip_key, &self.others, detail));
        }

        let path = self.root.join(clip_key);
        // What kind of file there is, and whether there is one, is the clip's fault; everything else is the machine's.
        with_retries(|| read_file(&path, self.bytes_max, buffer)).map_err(|error| {
            match error.kind() {
                io::ErrorKind::FileTooLarge => too_large(self.bytes_max),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                    missing("the file vanished after it was listed")
                }
                io::ErrorKind::InvalidData => ReadFailure::Reject(Reject::new(
                    Stage::Read,
                    Reason::NotAudio,
                    "no longer a regular file",
                )),
                kind => ReadFailure::Io(io::Error::new(
                    kind,
                    format!("cannot read {}: {error}", path.display()),
                )),
            }
        })
    }
}

fn missing(detail: &str) -> ReadFailure {
    ReadFailure::Reject(Reject::new(Stage::Read, Reason::MissingFile, detail))
}

/// By how much a buffer grows while a file grows under its reader.
const GROWTH_BYTES: usize = 1 << 20;

/// What is there now, though it may have grown or shrunk. Never opens a pipe, which would wait for a writer.
fn read_file(path: &Path, bytes_max: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::InvalidData.into());
    }

    if metadata.len() <= bytes_max {
        // Into memory that is not zeroed first, in one call; a second one sees the end, for which there is a byte more.
        make_room(buffer, metadata.len() as usize + 1);
        let file = File::open(path)?;
        // A file that keeps growing ends here.
        while buffer.len() as u64 <= bytes_max {
            if buffer.len() == buffer.capacity() {
                buffer.reserve_exact(GROWTH_BYTES);
            }
            match rustix::io::read(&file, spare_capacity(buffer)) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    let bytes = metadata.len().max(buffer.len() as u64);
    if bytes > bytes_max {
        Err(io::ErrorKind::FileTooLarge.into())
    } else {
        Ok(())
    }
}

/// A file that carries a clip's name.
struct ListedFile {
    id: InputId,
    /// Why it cannot be read, if so.
    fault: Option<Fault>,
}

/// What makes a listed file a reject without a look at its bytes.
#[derive(Clone, Copy)]
struct Fault {
    reason: Reason,
    detail: &'static str,
}

impl Fault {
    const fn new(reason: Reason, detail: &'static str) -> Self {
        Self { reason, detail }
    }
}

struct FolderWalk {
    media: Media,
    top: PathBuf,
    allow_outside: bool,
    /// By path below `top`.
    found: BTreeMap<String, ListedFile>,
    rejects: Vec<Reject>,
    /// By path below `top`.
    others: OtherFiles,
}

impl FolderWalk {
    /// `linked`: a link led here. Links to folders are followed once and not from there again, so the walk ends.
    fn folder(&mut self, folder: &Path, linked: bool) -> Result<(), SourceError> {
        for entry in folder.read_dir().map_err(SourceError::open_at(folder))? {
            let entry = entry.map_err(SourceError::open_at(folder))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(SourceError::open_at(folder))?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                self.count_hidden(&entry, kind)?;
                continue;
            }

            // Only for a link the disk is asked once more. One that leads nowhere is listed without a target.
            let target = if kind.is_symlink() {
                fs::metadata(&path).ok()
            } else {
                None
            };
            let is_folder = target.as_ref().map_or(kind.is_dir(), Metadata::is_dir);
            if self.media.is_clip_name(&entry.file_name()) {
                let file = self
                    .clip(&path, kind, target)
                    .map_err(SourceError::open_at(folder))?;
                self.list(&path, file);
            } else if !is_folder {
                let name = self.below_top(&path).to_string_lossy().into_owned();
                let why = self.media.no_clip(&name);
                self.count(why, &entry, &name)?;
                if why == NoClip::Unsupported && self.below_top(&path).to_str().is_some() {
                    self.others.unsupported.insert(name);
                }
            }

            // Also a folder that has a clip's name: that is a reject, and the clips in it are found.
            if is_folder && !kind.is_symlink() {
                self.folder(&path, linked)?;
            } else if is_folder && !linked && self.may_follow_folder(&path)? {
                self.folder(&path, true)?;
            }
        }
        Ok(())
    }

    /// Counts a hidden file, or all files of a hidden folder; links are not followed there.
    fn count_hidden(&mut self, entry: &DirEntry, kind: FileType) -> Result<(), SourceError> {
        let path = entry.path();
        let name = self.below_top(&path).to_string_lossy().into_owned();
        if !kind.is_dir() {
            return self.count(NoClip::Hidden, entry, &name);
        }

        // Nothing of a hidden folder is read, so one that may not be listed is no reason to end a run. It counts as one
        // file.
        let Ok(entries) = path
            .read_dir()
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        else {
            self.others.add(NoClip::Hidden, &name, 0);
            return Ok(());
        };
        for entry in entries {
            let kind = entry.file_type().map_err(SourceError::open_at(&path))?;
            self.count_hidden(&entry, kind)?;
        }
        Ok(())
    }

    /// Counts a file that is no clip; `name` is its path below `top`.
    fn count(&mut self, why: NoClip, entry: &DirEntry, name: &str) -> Result<(), SourceError> {
        match entry.metadata() {
            Ok(metadata) => self.others.add(why, name, metadata.len()),
            // Programs may remove such a file, a lock for one, after it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) if why == NoClip::Hidden => self.others.add(why, name, 0),
            Err(error) => return Err(SourceError::open_at(&entry.path())(error)),
        }
        Ok(())
    }

    /// A link that leads to a folder above itself would list the same clips again and again: it is passed over.
    fn may_follow_folder(&mut self, link: &Path) -> Result<bool, SourceError> {
        let target = link.canonicalize().map_err(SourceError::open_at(link))?;
        let leads_back = link
            .parent()
            .is_some_and(|parent| parent.starts_with(&target));
        if leads_back {
            return Ok(false);
        }
        if self.is_inside(&target) {
            return Ok(true);
        }

        let detail = format!(
            "the folder link {} leads out of the audio folder",
            self.below_top(link).display()
        );
        self.rejects
            .push(Reject::new(Stage::Read, Reason::OutsideRoot, detail));
        Ok(false)
    }

    fn is_inside(&self, target: &Path) -> bool {
        self.allow_outside || target.starts_with(&self.top)
    }

    fn clip(
        &self,
        path: &Path,
        kind: FileType,
        target: Option<Metadata>,
    ) -> io::Result<ListedFile> {
        let fault = self.fault(path, kind, target.as_ref())?;
        // A link that is a reject is known by its own time: what it leads to may be absent, or outside.
        let metadata = match target {
            Some(target) if fault.is_none() => target,
            _ => fs::symlink_metadata(path)?,
        };
        let bytes = if fault.is_none() { metadata.len() } else { 0 };

        let id = InputId {
            bytes,
            stamp: Stamp::MtimeNs(mtime_ns(&metadata)?),
        };
        Ok(ListedFile { id, fault })
    }

    /// Why a file with a clip's name cannot be read; `target` is what a link leads to.
    fn fault(
        &self,
        path: &Path,
        kind: FileType,
        target: Option<&Metadata>,
    ) -> io::Result<Option<Fault>> {
        if !kind.is_symlink() {
            let is_other = !kind.is_file();
            return Ok(is_other.then_some(Fault::new(
                Reason::NotAudio,
                "a folder, pipe or device, not a file",
            )));
        }

        let Some(target) = target else {
            return Ok(Some(Fault::new(
                Reason::MissingFile,
                "a link that leads nowhere",
            )));
        };
        if !self.is_inside(&path.canonicalize()?) {
            return Ok(Some(Fault::new(
                Reason::OutsideRoot,
                "a link out of the audio folder; --allow-outside follows it",
            )));
        }
        let is_other = !target.is_file();
        Ok(is_other.then_some(Fault::new(
            Reason::NotAudio,
            "a link to a folder, pipe or device, not to a file",
        )))
    }

    fn list(&mut self, path: &Path, file: ListedFile) {
        let below = self.below_top(path);
        match below.to_str() {
            Some(name) => {
                self.found.insert(name.to_owned(), file);
            }
            None => {
                let bytes = file.id.bytes;
                let name = below.to_string_lossy().into_owned();
                let detail = format!("the path {} is not UTF-8", below.display());
                self.others.add(NoClip::BadName, &name, bytes);
                self.rejects
                    .push(Reject::new(Stage::Read, Reason::BadEncoding, detail));
            }
        }
    }

    fn below_top<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.top).unwrap_or(path)
    }
}

/// Modification time in ns since the epoch, negative before it.
fn mtime_ns(metadata: &Metadata) -> io::Result<i64> {
    let modified = metadata.modified()?;
    let ns = match modified.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()),
        Err(before) => i64::try_from(before.duration().as_nanos()).map(|ns| -ns),
    };
    // Only times centuries away from 1970 do not fit.
    Ok(ns.unwrap_or(i64::MAX))
}
