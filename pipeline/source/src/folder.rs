//! Audio clips or pictures in a folder.
//!
//! Listing the folder looks at every name once and opens no file. Files that are not clips are counted. Every path with
//! a clip's name is listed, even if it cannot be read as a clip (a folder, a pipe, a broken link): it is rejected later
//! instead of being lost silently.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::{self, DirEntry, File, FileType, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use wavemill_schemas::durable::if_there;
use wavemill_schemas::exit;
use wavemill_schemas::input::{InputId, Stamp};
use wavemill_schemas::reject::{Reason, Reject, Stage};

use super::keys::{Media, root_len};
use super::others::{NoClip, OtherFiles};
use super::retry::with_retries;
use super::{
    LISTED_BEFORE, ListedClip, Listing, ReadFailure, Source, SourceError, absent, make_room,
    require_bytes, too_large,
};

/// A folder of clips.
pub(super) struct FolderSource {
    listing: Listing,
    root: PathBuf,
    /// Reason why a listed clip cannot be read, by the clip's key. Contains only such clips.
    unreadable: BTreeMap<String, Fault>,
    /// True if another process listed the clips.
    is_reopened: bool,
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
        // All paths begin with the same audio root, so take the root from the first path.
        let first = walk.found.keys().next();
        let prefix = first.map_or("", |first| &first[..root_len]).to_owned();
        let mut listing = Listing::new(media, &prefix);
        listing.others = walk.others.below(&prefix);

        let mut unreadable = BTreeMap::new();
        for (path, file) in walk.found {
            let key = path[root_len..].to_owned();
            if let Some(fault) = file.fault {
                unreadable.insert(key.clone(), fault);
            }
            listing.index.insert(key, file.id);
        }

        // The operating system lists a folder in arbitrary order, so sort the rejects.
        walk.rejects.sort_by(|a, b| a.detail.cmp(&b.detail));
        listing.rejects = walk.rejects;
        Ok(Self {
            listing,
            root: top.join(&prefix),
            unreadable,
            is_reopened: false,
        })
    }

    /// Opens clips that [`FolderSource::open`] found earlier.
    pub(super) fn reopen(
        path: &Path,
        media: Media,
        prefix: &str,
        clips: impl IntoIterator<Item = ListedClip>,
    ) -> Result<Self, SourceError> {
        let top = path.canonicalize().map_err(SourceError::open_at(path))?;
        let mut source = Self {
            listing: Listing::new(media, prefix),
            root: top.join(prefix),
            unreadable: BTreeMap::new(),
            is_reopened: true,
        };

        for ListedClip {
            clip_key,
            id,
            fault,
        } in clips
        {
            match fault {
                None => {}
                Some(fault) if fault == UNSUPPORTED => {
                    source.listing.others.unsupported.insert(clip_key.clone());
                }
                Some(fault) => {
                    let known = FAULTS.into_iter().find(|known| known.detail == fault);
                    let known = known.ok_or_else(|| SourceError::unknown_fault(&fault))?;
                    source.unreadable.insert(clip_key.clone(), known);
                }
            }

            // Only a clip that can be read has a size and a stamp of its own on this machine.
            if let Some(id) = id {
                let id = match source.unreadable.contains_key(&clip_key) {
                    true => id,
                    false => now(&source.root.join(&clip_key), id)?,
                };
                source.listing.index.insert(clip_key, id);
            }
        }
        Ok(source)
    }
}

impl Source for FolderSource {
    fn listing(&self) -> &Listing {
        &self.listing
    }

    fn listing_mut(&mut self) -> &mut Listing {
        &mut self.listing
    }

    fn fault(&self, clip_key: &str) -> Option<&'static str> {
        let fault = self.unreadable.get(clip_key).map(|fault| fault.detail);
        let is_unsupported = self.others().unsupported.contains(clip_key);
        fault.or(is_unsupported.then_some(UNSUPPORTED))
    }

    fn read_bytes(&self, clip_key: &str) -> u64 {
        self.listing.readable_bytes(clip_key)
    }

    fn read(&self, clip_key: &str, buffer: &mut Vec<u8>) -> Result<(), ReadFailure> {
        buffer.clear();
        if let Some(fault) = self.unreadable.get(clip_key) {
            let reject = Reject::new(Stage::Read, fault.reason, fault.detail);
            return Err(ReadFailure::Reject(reject));
        }
        let Some(listed) = self.index().get(clip_key) else {
            let detail = "no such file below the audio root";
            return Err(absent(clip_key, self.others(), detail));
        };
        if listed.bytes > self.listing.bytes_max {
            return Err(too_large(self.listing.bytes_max));
        }

        // From here on, every failure is an error and no reject. A file that changed since it was listed, or a folder that is
        // no longer mounted, is a fault of the machine: the repeated command lists the files again.
        let path = self.root.join(clip_key);
        with_retries(|| read_file(&path, listed.bytes, buffer)).map_err(|error| {
            let kind = error.kind();
            let is_gone = matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
            let path = path.display();
            let problem = match is_gone {
                true if self.is_reopened => format!("{path} is not there: {LISTED_BEFORE}"),
                true => format!("{path} vanished after it was listed"),
                false => format!("cannot read {path}: {error}"),
            };
            ReadFailure::Io(io::Error::new(kind, problem))
        })
    }
}

/// Returns the current size and stamp of a file that was `listed`. The stamp may differ, as on a copy, but not the size.
fn now(path: &Path, listed: InputId) -> Result<InputId, SourceError> {
    let found = if_there(fs::metadata(path)).map_err(SourceError::open_at(path))?;
    let metadata = found.ok_or_else(|| SourceError::moved(path))?;
    require_bytes(listed, metadata.len(), path)?;
    let stamp = mtime_ns(&metadata).map_err(SourceError::open_at(path))?;
    Ok(InputId {
        bytes: listed.bytes,
        stamp: Stamp::MtimeNs(stamp),
    })
}

/// Reads a file that had `listed` bytes when it was listed. Never opens a pipe, which would block until there is a writer.
///
/// # Errors
/// An I/O error if the file has another number of bytes now, or cannot be read.
fn read_file(path: &Path, listed: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
    let changed = |now: &str| {
        Err(io::Error::other(format!(
            "{now}, and {listed} when it was listed"
        )))
    };
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("no longer a regular file"));
    }
    if metadata.len() != listed {
        return changed(&format!("{} bytes", metadata.len()));
    }

    // Read the file into uninitialized memory in one call. The additional byte lets the second call detect the end of
    // the file.
    make_room(buffer, listed as usize + 1);
    let file = File::open(path)?;
    while buffer.len() as u64 <= listed {
        match rustix::io::read(&file, spare_capacity(buffer)) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    match (buffer.len() as u64).cmp(&listed) {
        Ordering::Less => changed(&format!("{} bytes", buffer.len())),
        Ordering::Equal => Ok(()),
        Ordering::Greater => changed("more bytes"),
    }
}

/// A file with a clip's name.
struct ListedFile {
    id: InputId,
    /// Reason why the listed file cannot be read, if any.
    fault: Option<Fault>,
}

/// Reason for rejecting a listed file before its content is read.
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

const NO_FILE: Fault = Fault::new(Reason::NotAudio, "a folder, pipe or device, not a file");
const BROKEN_LINK: Fault = Fault::new(Reason::MissingFile, "a link that leads nowhere");
const LINK_OUT: Fault = Fault::new(
    Reason::OutsideRoot,
    "a link out of the audio folder; --allow-outside follows it",
);
const LINK_TO_NO_FILE: Fault = Fault::new(
    Reason::NotAudio,
    "a link to a folder, pipe or device, not to a file",
);
/// All faults of listed files.
const FAULTS: [Fault; 4] = [NO_FILE, BROKEN_LINK, LINK_OUT, LINK_TO_NO_FILE];

/// [`Source::fault`] of a key without a clip, whose file has a format that is not decoded.
pub(super) const UNSUPPORTED: &str = "a file of an unsupported format";

struct FolderWalk {
    media: Media,
    top: PathBuf,
    allow_outside: bool,
    /// Listed clips by their path below the folder `top`.
    found: BTreeMap<String, ListedFile>,
    rejects: Vec<Reject>,
    /// Counts of the files that are not clips, with their paths below the folder `top`.
    others: OtherFiles,
}

impl FolderWalk {
    /// Lists the files of a folder recursively. `linked` means that a link led to this folder. Links to folders below a
    /// linked folder are not followed, so the recursion ends.
    fn folder(&mut self, folder: &Path, linked: bool) -> Result<(), SourceError> {
        for entry in folder.read_dir().map_err(SourceError::open_at(folder))? {
            let entry = entry.map_err(SourceError::open_at(folder))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(SourceError::open_at(folder))?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                self.count_hidden(&entry, kind)?;
                continue;
            }

            // Call `stat` again only for links. A link without an existing target is listed without a target.
            let target = if kind.is_symlink() {
                target_of(&path).map_err(SourceError::open_at(&path))?
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

            // A folder with a clip's name is rejected as a clip, but the clips in the folder are listed.
            if is_folder && !kind.is_symlink() {
                self.folder(&path, linked)?;
            } else if is_folder && !linked && self.may_follow_folder(&path)? {
                self.folder(&path, true)?;
            }
        }
        Ok(())
    }

    /// Counts a hidden file, or all files of a hidden folder without following links.
    fn count_hidden(&mut self, entry: &DirEntry, kind: FileType) -> Result<(), SourceError> {
        let path = entry.path();
        let name = self.below_top(&path).to_string_lossy().into_owned();
        if !kind.is_dir() {
            return self.count(NoClip::Hidden, entry, &name);
        }

        // No file of a hidden folder is read, so a hidden folder that cannot be listed does not end the run. The folder
        // counts as one file.
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

    /// Counts a file that is not a clip. `name` is its path below `top`.
    fn count(&mut self, why: NoClip, entry: &DirEntry, name: &str) -> Result<(), SourceError> {
        match entry.metadata() {
            Ok(metadata) => self.others.add(why, name, metadata.len()),
            // Other programs may have removed the file, such as a lock file, after it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) if why == NoClip::Hidden => self.others.add(why, name, 0),
            Err(error) => return Err(SourceError::open_at(&entry.path())(error)),
        }
        Ok(())
    }

    /// Reports whether a link to a folder may be followed. A link to a folder above itself may not, because it would
    /// list the same clips again. Records a reject for a link that leads out of the audio folder.
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
        // For a rejected link, use the link's own modification time, because its target may be missing.
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

    /// Returns the reason why a file with a clip's name cannot be read. `target` is the metadata of a link's target.
    fn fault(
        &self,
        path: &Path,
        kind: FileType,
        target: Option<&Metadata>,
    ) -> io::Result<Option<Fault>> {
        if !kind.is_symlink() {
            return Ok((!kind.is_file()).then_some(NO_FILE));
        }

        let Some(target) = target else {
            return Ok(Some(BROKEN_LINK));
        };
        if !self.is_inside(&path.canonicalize()?) {
            return Ok(Some(LINK_OUT));
        }
        Ok((!target.is_file()).then_some(LINK_TO_NO_FILE))
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

/// Returns the metadata of a link's target, or `None` if the link leads nowhere.
fn target_of(link: &Path) -> io::Result<Option<Metadata>> {
    match fs::metadata(link) {
        Ok(target) => Ok(Some(target)),
        // The target may exist all the same.
        Err(error) if exit::is_machine_fault(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Returns a file's modification time in ns since the epoch. The time is negative before the epoch.
fn mtime_ns(metadata: &Metadata) -> io::Result<i64> {
    let modified = metadata.modified()?;
    let ns = match modified.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()),
        Err(before) => i64::try_from(before.duration().as_nanos()).map(|ns| -ns),
    };
    // Only times centuries away from 1970 do not fit into 64 bits.
    Ok(ns.unwrap_or(i64::MAX))
}
