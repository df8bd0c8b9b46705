//! Clips in a zip, read in place.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path};

use wavemill_schemas::reject::{Reason, Reject, Stage};

use super::archive::{Archive, Entry};
use super::keys::{is_clip_name, root_len};
use super::retry::with_retries;
use super::{AudioIndex, CLIP_BYTES_MAX, InputId, ReadFailure, Source, SourceError, Stamp, absent, too_large};

/// A zip of clips.
pub(super) struct ZipSource {
    archive: Archive,
    index: AudioIndex,
    /// Entry number by key.
    positions: BTreeMap<String, usize>,
    rejects: Vec<Reject>,
}

impl ZipSource {
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let archive = Archive::open(path)?;
        let (mut names, mut rejects) = (BTreeMap::new(), Vec::new());
        for (position, entry) in archive.entries.iter().enumerate() {
            match clip_name(&entry.name) {
                Some(Ok(name)) => {
                    names.insert(name, position);
                }
                Some(Err(reject)) => rejects.push(reject),
                None => {}
            }
        }
        rejects.sort_by(|a, b| a.detail.cmp(&b.detail));
        let own_folder = own_folder_len(&archive.path, &names);
        let strip = own_folder + root_len(names.keys().map(|name| &name[own_folder..]));
        let positions: BTreeMap<_, _> = names.into_iter().map(|(name, at)| (name[strip..].to_owned(), at)).collect();
        let id = |entry: &Entry| InputId { bytes: entry.bytes, stamp: Stamp::Crc32(entry.crc32) };
        let index = positions.iter().map(|(key, &at)| (key.clone(), id(&archive.entries[at]))).collect();
        Ok(Self { archive, index, positions, rejects })
    }
}

impl Source for ZipSource {
    fn index(&self) -> &AudioIndex {
        &self.index
    }

    fn rejects(&self) -> &[Reject] {
        &self.rejects
    }

    fn read(&self, clip_key: &str, buffer: &mut Vec<u8>) -> Result<(), ReadFailure> {
        buffer.clear();
        let reject = |reason, detail: &str| ReadFailure::Reject(Reject::new(Stage::Read, reason, detail));
        let Some(&position) = self.positions.get(clip_key) else {
            return Err(absent(clip_key, "no such entry in the zip"));
        };
        let entry = &self.archive.entries[position];
        if entry.encrypted {
            return Err(reject(Reason::Encrypted, "the zip entry is encrypted"));
        }
        if entry.bytes > CLIP_BYTES_MAX {
            return Err(too_large());
        }
        with_retries(|| self.archive.read(entry, buffer)).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                reject(Reason::Damaged, &format!("zip entry: {error}"))
            }
            kind => {
                let archive = self.archive.path.display();
                ReadFailure::Io(io::Error::new(kind, format!("cannot read {clip_key} in {archive}: {error}")))
            }
        })
    }
}

/// The normalised name of an entry that is a clip; a reject where the name cannot be a key; nothing for other files.
fn clip_name(raw: &[u8]) -> Option<Result<String, Reject>> {
    let shown = String::from_utf8_lossy(raw);
    let file_name = shown.rsplit('/').next().unwrap_or_default();
    if !is_clip_name(OsStr::new(file_name)) || shown.split('/').any(|part| part == "__MACOSX") {
        return None;
    }
    let reject = |reason, what: &str| {
        Some(Err(Reject::new(Stage::Read, reason, format!("the zip entry {} {what}", raw.escape_ascii()))))
    };
    let Ok(name) = std::str::from_utf8(raw) else {
        return reject(Reason::BadEncoding, "is not UTF-8");
    };
    let mut parts = Vec::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            _ => return reject(Reason::OutsideRoot, "leads out of the audio root"),
        }
    }
    Some(Ok(parts.join("/")))
}

/// Length of the leading folder, with its slash, if it is named like the zip and holds everything; else 0.
fn own_folder_len(zip: &Path, names: &BTreeMap<String, usize>) -> usize {
    let stem = zip.file_stem().unwrap_or_default().to_string_lossy();
    let inside = |name: &String| name.strip_prefix(stem.as_ref()).is_some_and(|rest| rest.starts_with('/'));
    if names.keys().all(inside) && !names.is_empty() { stem.len() + 1 } else { 0 }
}
