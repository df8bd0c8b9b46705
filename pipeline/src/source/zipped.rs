//! Clips in a zip, read in place.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path};

use wavemill_schemas::reject::{Reason, Reject, Stage};

use super::archive::Archive;
use super::keys::{Media, root_len};
use super::retry::with_retries;
use super::{
    AudioIndex, CLIP_BYTES_MAX, InputId, ReadFailure, Source, SourceError, Stamp, absent, too_large,
};

/// A zip of clips.
pub(super) struct ZipSource {
    media: Media,
    archive: Archive,
    index: AudioIndex,
    /// Entry numbers by key: one, or several of which none is used.
    positions: BTreeMap<String, Vec<usize>>,
    rejects: Vec<Reject>,
}

impl ZipSource {
    pub(super) fn open(path: &Path, media: Media) -> Result<Self, SourceError> {
        let archive = Archive::open(path)?;

        let mut names: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut rejects = Vec::new();
        for (position, entry) in archive.entries.iter().enumerate() {
            match clip_name(&entry.name, media) {
                // Entries of one name stay together: nothing tells which of them is meant.
                Some(Ok(name)) => names.entry(name).or_default().push(position),
                Some(Err(reject)) => rejects.push(reject),
                None => {}
            }
        }
        rejects.sort_by(|a, b| a.detail.cmp(&b.detail));

        let own_folder = own_folder_len(&archive.path, &names);
        let strip = own_folder + root_len(names.keys().map(|name| &name[own_folder..]));
        let mut index = AudioIndex::new();
        let mut positions = BTreeMap::new();
        for (name, at) in names {
            let key = name[strip..].to_owned();
            index.insert(key.clone(), identity(&archive, &at));
            positions.insert(key, at);
        }
        Ok(Self {
            media,
            archive,
            index,
            positions,
            rejects,
        })
    }
}

impl Source for ZipSource {
    fn media(&self) -> Media {
        self.media
    }

    fn index(&self) -> &AudioIndex {
        &self.index
    }

    fn rejects(&self) -> &[Reject] {
        &self.rejects
    }

    fn read_bytes(&self, clip_key: &str) -> u64 {
        // Of several entries of one name none is read.
        let Some(&[position]) = self.positions.get(clip_key).map(Vec::as_slice) else {
            return 0;
        };
        let entry = &self.archive.entries[position];
        let is_read = !entry.encrypted && entry.bytes <= CLIP_BYTES_MAX;
        if is_read {
            self.archive.read_bytes(entry)
        } else {
            0
        }
    }

    fn read(&self, clip_key: &str, buffer: &mut Vec<u8>) -> Result<(), ReadFailure> {
        buffer.clear();
        let entry = match self.positions.get(clip_key).map(Vec::as_slice) {
            Some(&[position]) => &self.archive.entries[position],
            Some(several) => {
                let words = format!(
                    "{} entries of the zip have this name: none is used",
                    several.len()
                );
                return Err(reject(Reason::DuplicateEntry, &words));
            }
            None => return Err(absent(clip_key, "no such entry in the zip")),
        };

        if entry.encrypted {
            return Err(reject(Reason::Encrypted, "the zip entry is encrypted"));
        }
        if entry.bytes > CLIP_BYTES_MAX {
            return Err(too_large());
        }

        // What the bytes of the zip determine is the clip's fault, and everything else the machine's.
        with_retries(|| self.archive.read(entry, buffer)).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                reject(Reason::Damaged, "zip entry: the archive ends within it")
            }
            io::ErrorKind::InvalidData => reject(Reason::Damaged, &format!("zip entry: {error}")),
            io::ErrorKind::Unsupported if error.raw_os_error().is_none() => {
                reject(Reason::UnsupportedCodec, &format!("zip entry: {error}"))
            }
            kind => {
                let archive = self.archive.path.display();
                ReadFailure::Io(io::Error::new(
                    kind,
                    format!("cannot read {clip_key} in {archive}: {error}"),
                ))
            }
        })
    }
}

fn reject(reason: Reason, detail: &str) -> ReadFailure {
    ReadFailure::Reject(Reject::new(Stage::Read, reason, detail))
}

/// What tells one state of a clip from another. Several entries of one name are no clip: their checksums together tell
/// whether they are the same again.
fn identity(archive: &Archive, positions: &[usize]) -> InputId {
    if let &[position] = positions {
        let entry = &archive.entries[position];
        return InputId {
            bytes: entry.bytes,
            stamp: Stamp::Crc32(entry.crc32),
        };
    }

    let mut crc = flate2::Crc::new();
    for &position in positions {
        crc.update(&archive.entries[position].crc32.to_le_bytes());
    }
    InputId {
        bytes: 0,
        stamp: Stamp::Crc32(crc.sum()),
    }
}

/// The normalised name of an entry that is a clip; a reject where the name cannot be a key; nothing for other files.
fn clip_name(raw: &[u8], media: Media) -> Option<Result<String, Reject>> {
    let shown = String::from_utf8_lossy(raw);
    let file_name = shown.rsplit('/').next().unwrap_or_default();
    if !media.is_clip_name(OsStr::new(file_name)) || shown.split('/').any(|part| part == "__MACOSX")
    {
        return None;
    }

    // Asked of clips only: other files may have names in any encoding.
    let Ok(name) = std::str::from_utf8(raw) else {
        let detail = format!("the zip entry {} is not UTF-8", raw.escape_ascii());
        return Some(Err(Reject::new(Stage::Read, Reason::BadEncoding, detail)));
    };
    let mut parts = Vec::new();
    // `a//b` and `./a/b` are `a/b`, as they are when the zip is unpacked.
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            _ => {
                let detail = format!(
                    "the zip entry {} leads out of the audio root",
                    raw.escape_ascii()
                );
                return Some(Err(Reject::new(Stage::Read, Reason::OutsideRoot, detail)));
            }
        }
    }
    Some(Ok(parts.join("/")))
}

/// Length of the leading folder, with its slash, if it is named like the zip and holds everything; else 0.
fn own_folder_len(zip: &Path, names: &BTreeMap<String, Vec<usize>>) -> usize {
    let stem = zip.file_stem().unwrap_or_default().to_string_lossy();
    let holds_everything = names.keys().all(|name| {
        name.strip_prefix(stem.as_ref())
            .is_some_and(|rest| rest.starts_with('/'))
    });
    if holds_everything && !names.is_empty() {
        stem.len() + 1
    } else {
        0
    }
}
