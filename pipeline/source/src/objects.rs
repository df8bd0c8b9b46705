//! Audio clips or pictures that are objects below an address.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use wavemill_reader::remote::{Found, Remote};
use wavemill_schemas::input::{InputId, Stamp};

use super::keys::{Media, root_len};
use super::others::{NoClip, OtherFiles};
use super::{
    LISTED_BEFORE, ListedClip, Listing, ReadFailure, Source, SourceError, absent, too_large,
};

/// A folder of clips in an object store.
pub(super) struct ObjectSource {
    /// The audio root is below `folder`, with a slash at its end unless it is empty.
    listing: Listing,
    path: PathBuf,
    folder: Remote,
    /// True if another process listed the clips.
    is_reopened: bool,
}

impl ObjectSource {
    fn at(path: &Path, media: Media, prefix: &str) -> Result<Self, SourceError> {
        let folder = Remote::input(&path.to_string_lossy());
        Ok(Self {
            listing: Listing::new(media, prefix),
            path: path.to_owned(),
            folder: folder?,
            is_reopened: false,
        })
    }

    /// Lists the objects below the address `path`.
    pub(super) fn open(path: &Path, media: Media) -> Result<Self, SourceError> {
        let mut source = Self::at(path, media, "")?;
        let found = source.folder.list("")?;

        let mut others = OtherFiles::default();
        let mut clips = Vec::new();
        for object in found {
            let name = &object.name;
            let is_hidden = name.split('/').any(|part| part.starts_with('.'));
            let file_name = name.rsplit('/').next().unwrap_or(name);
            if is_hidden {
                others.add(NoClip::Hidden, name, object.bytes);
            } else if media.is_clip_name(OsStr::new(file_name)) {
                clips.push(object);
            } else {
                let why = media.no_clip(name);
                others.add(why, name, object.bytes);
                if why == NoClip::Unsupported {
                    others.unsupported.insert(name.clone());
                }
            }
        }

        let root_len = root_len(clips.iter().map(|clip| clip.name.as_str()));
        let first = clips.first().map(|clip| &clip.name[..root_len]);
        source.listing.root = first.unwrap_or_default().to_owned();
        source.listing.others = others.below(source.root());
        let keyed = clips.iter().map(|clip| {
            let key = clip.name[root_len..].to_owned();
            (key, identity(clip))
        });
        source.listing.index = keyed.collect();
        Ok(source)
    }

    /// Opens clips that [`ObjectSource::open`] found earlier. Nothing is listed: each clip is compared when it is read.
    pub(super) fn reopen(
        path: &Path,
        media: Media,
        prefix: &str,
        clips: impl IntoIterator<Item = ListedClip>,
    ) -> Result<Self, SourceError> {
        let mut source = Self::at(path, media, prefix)?;
        source.is_reopened = true;
        for clip in clips {
            if let Some(fault) = clip.fault {
                if fault != UNSUPPORTED {
                    return Err(SourceError::unknown_fault(&fault));
                }
                let others = &mut source.listing.others;
                others.unsupported.insert(clip.clip_key.clone());
            }
            if let Some(id) = clip.id {
                source.listing.index.insert(clip.clip_key, id);
            }
        }
        Ok(source)
    }

    fn failed(&self, clip_key: &str, problem: String) -> ReadFailure {
        let place = self.path.join(self.root()).join(clip_key);
        let message = format!("cannot read {}: {problem}", place.display());
        ReadFailure::Io(io::Error::other(message))
    }
}

/// [`Source::fault`] of a key without a clip, whose file has a format that is not decoded. As of a local folder.
const UNSUPPORTED: &str = super::folder::UNSUPPORTED;

fn identity(object: &Found) -> InputId {
    let time = object.modified.duration_since(UNIX_EPOCH);
    let ns = time.map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
    InputId {
        bytes: object.bytes,
        stamp: Stamp::MtimeNs(ns),
    }
}

impl Source for ObjectSource {
    fn listing(&self) -> &Listing {
        &self.listing
    }

    fn listing_mut(&mut self) -> &mut Listing {
        &mut self.listing
    }

    fn fault(&self, clip_key: &str) -> Option<&'static str> {
        let is_unsupported = self.others().unsupported.contains(clip_key);
        is_unsupported.then_some(UNSUPPORTED)
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn read_bytes(&self, clip_key: &str) -> u64 {
        // The answer to the request is in memory along with the buffer.
        2 * self.listing.readable_bytes(clip_key)
    }

    fn read(&self, clip_key: &str, buffer: &mut Vec<u8>) -> Result<(), ReadFailure> {
        buffer.clear();
        let Some(id) = self.index().get(clip_key) else {
            let detail = "no such object below the audio root";
            return Err(absent(clip_key, self.others(), detail));
        };
        if id.bytes > self.listing.bytes_max {
            return Err(too_large(self.listing.bytes_max));
        }

        let name = format!("{}{clip_key}", self.root());
        match self.folder.get(&name) {
            Ok(Some(bytes)) if bytes.len() as u64 == id.bytes => {
                buffer.extend_from_slice(&bytes);
                Ok(())
            }
            Ok(Some(bytes)) => {
                let problem = format!("{} bytes, and {} when it was listed", bytes.len(), id.bytes);
                Err(self.failed(clip_key, problem))
            }
            Ok(None) if self.is_reopened => {
                Err(self.failed(clip_key, format!("not there: {LISTED_BEFORE}")))
            }
            Ok(None) => Err(self.failed(clip_key, "it vanished after it was listed".to_owned())),
            Err(error) => Err(self.failed(clip_key, error.to_string())),
        }
    }
}
