//! Audio clips or pictures in a zip, read without unpacking.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::Path;

use wavemill_schemas::input::{InputId, Stamp};
use wavemill_schemas::reject::{Reason, Reject, Stage};

use super::archive::Archive;
use super::keys::{Media, root_len};
use super::others::{NoClip, OtherFiles};
use super::retry::with_retries;
use super::{Listing, ReadFailure, Source, absent, split, too_large};

/// A zip that contains clips.
pub(super) struct ZipSource {
    listing: Listing,
    archive: Archive,
    /// Numbers of the zip entries of each clip key. If a key has several entries, none of them is used.
    positions: BTreeMap<String, Vec<usize>>,
}

impl ZipSource {
    /// Lists the clips of a zip.
    pub(super) fn new(archive: Archive, media: Media) -> Self {
        let mut names: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut rejects = Vec::new();
        let mut others = OtherFiles::default();
        let mut counted = HashSet::new();
        for (position, entry) in archive.entries.iter().enumerate() {
            match named(&entry.name, media) {
                // Collect all entries with the same name under one key, because it is unknown which one is meant.
                Named::Clip(name) => names.entry(name).or_default().push(position),
                Named::Reject(reject, shown) => {
                    rejects.push(reject);
                    others.add(NoClip::BadName, &shown, entry.bytes);
                }
                // Zip entries with the same name count as one file, as after unpacking the zip.
                Named::NoClip(_, shown) if !counted.insert(shown.clone()) => {}
                Named::NoClip(why, shown) => {
                    others.add(why, &shown, entry.bytes);
                    if why == NoClip::Unsupported {
                        others.unsupported.insert(shown);
                    }
                }
            }
        }
        rejects.sort_by(|a, b| a.detail.cmp(&b.detail));

        let own_folder = own_folder_len(&archive.path, &names);
        let strip = own_folder + root_len(names.keys().map(|name| &name[own_folder..]));
        let root = names.keys().next().map_or("", |name| &name[..strip]);
        let mut listing = Listing::new(media, "");
        listing.rejects = rejects;
        listing.others = others.below(root);
        let mut positions = BTreeMap::new();
        for (name, at) in names {
            let key = name[strip..].to_owned();
            listing.index.insert(key.clone(), identity(&archive, &at));
            positions.insert(key, at);
        }
        Self {
            listing,
            archive,
            positions,
        }
    }
}

impl Source for ZipSource {
    fn listing(&self) -> &Listing {
        &self.listing
    }

    fn listing_mut(&mut self) -> &mut Listing {
        &mut self.listing
    }

    fn is_remote(&self) -> bool {
        self.archive.is_remote()
    }

    fn read_bytes(&self, clip_key: &str) -> u64 {
        // If several zip entries have the same name, none of them is read.
        let Some(&[position]) = self.positions.get(clip_key).map(Vec::as_slice) else {
            return 0;
        };
        let entry = &self.archive.entries[position];
        let is_read = !entry.encrypted && entry.bytes <= self.listing.bytes_max;
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
                let message = format!(
                    "{} entries of the zip have this name: none is used",
                    several.len()
                );
                return Err(reject(Reason::DuplicateEntry, &message));
            }
            None => return Err(absent(clip_key, self.others(), "no such entry in the zip")),
        };

        if entry.encrypted {
            return Err(reject(Reason::Encrypted, "the zip entry is encrypted"));
        }
        if entry.bytes > self.listing.bytes_max {
            return Err(too_large(self.listing.bytes_max));
        }

        // Errors caused by the bytes of the zip are the clip's fault. All other errors are the machine's fault.
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

/// Returns the size and stamp of a clip. Several entries with the same name are not a clip, and have no size.
fn identity(archive: &Archive, positions: &[usize]) -> InputId {
    let bytes = match *positions {
        [position] => archive.entries[position].bytes,
        _ => 0,
    };
    InputId {
        bytes,
        stamp: Stamp::Crc32(archive.crc32(positions)),
    }
}

/// Classification of a zip entry by its name.
enum Named {
    /// A clip and its normalized name.
    Clip(String),
    /// A file with a clip's name that cannot be a clip key, and the name for messages.
    Reject(Reject, String),
    /// A file that is not a clip, and its normalized name.
    NoClip(NoClip, String),
}

fn named(raw: &[u8], media: Media) -> Named {
    let lossy = String::from_utf8_lossy(raw);
    // Normalize `a//b` and `./a/b` to `a/b`, the path that results from unpacking the zip.
    let parts = lossy.split('/').filter(|part| !matches!(*part, "" | "."));
    let parts: Vec<&str> = parts.collect();
    let name = parts.join("/");

    let mut folders_and_name = parts.iter();
    // Skip the names that are also skipped in a folder, so that a zip and its folder have equal keys.
    let is_hidden =
        folders_and_name.any(|part| *part == "__MACOSX" || part.starts_with('.') && *part != "..");
    if is_hidden {
        return Named::NoClip(NoClip::Hidden, name);
    }
    let file_name = parts.last().copied().unwrap_or_default();
    if !media.is_clip_name(OsStr::new(file_name)) {
        return Named::NoClip(media.no_clip(&name), name);
    }

    // Only clip names must be UTF-8. Other files may have names in any encoding.
    let Ok(utf8) = std::str::from_utf8(raw) else {
        let name_bytes = raw.escape_ascii();
        let detail = format!(
            "the zip entry {name_bytes} is not UTF-8, as it is marked: unpack and rename it"
        );
        return Named::Reject(Reject::new(Stage::Read, Reason::BadEncoding, detail), name);
    };
    // A drive of Windows, such as `C:`, is outside as well.
    let is_drive =
        |part: &&str| matches!(part.as_bytes(), [letter, b':'] if letter.is_ascii_alphabetic());
    if utf8.starts_with('/') || parts.contains(&"..") || parts.first().is_some_and(is_drive) {
        let detail = format!(
            "the zip entry {} leads out of the audio root",
            raw.escape_ascii()
        );
        return Named::Reject(Reject::new(Stage::Read, Reason::OutsideRoot, detail), name);
    }
    Named::Clip(name)
}

/// Returns the length of the leading folder, with its slash, if it has the zip's name and contains all clips; otherwise
/// 0.
fn own_folder_len(zip: &Path, names: &BTreeMap<String, Vec<usize>>) -> usize {
    let whole = match split::is_piece(zip) {
        true => &zip.with_extension(""),
        false => zip,
    };
    let stem = whole.file_stem().unwrap_or_default().to_string_lossy();
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
