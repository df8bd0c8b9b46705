//! Tags: names that users give to versions. Each tag is a small file.
//!
//! A tag is not part of a version and can be moved to another one. Only `gc` needs all tags. A damaged tag therefore
//! fails only the commands that use it, and `gc`, which cannot know which version the tag should keep.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use wavemill_schemas::version_name::{
    TAG_FILE_BYTES_MAX, TAGS_FOLDER, TagName, TagProblem, VersionName, tag_text, tagged_version,
    tags_there,
};

use super::commit::write_renamed;
use super::receipts::list;
use super::{Store, StoreError};

/// All tags of a store.
#[derive(Debug, Default)]
pub struct Tags {
    /// Version of each valid tag.
    versions: BTreeMap<TagName, u64>,
    /// Errors of the damaged tags.
    pub damaged: Vec<StoreError>,
}

impl Tags {
    /// Returns the tags of a version in order.
    pub fn of_version(&self, version: u64) -> Vec<String> {
        let names = self
            .versions
            .iter()
            .filter(|(_, tagged)| **tagged == version);
        names.map(|(tag, _)| tag.to_string()).collect()
    }

    /// Returns all tags in order.
    fn names(&self) -> Vec<String> {
        self.versions.keys().map(TagName::to_string).collect()
    }
}

/// The result of tagging a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TagReport {
    /// The tag.
    pub tag: String,
    /// The version that it names now.
    pub version: u64,
    /// The version that it named before. `None` if the tag is new or was damaged.
    pub was: Option<u64>,
    /// Whether a damaged tag was replaced.
    pub was_damaged: bool,
}

impl Store {
    pub(super) fn tags_folder(&self) -> PathBuf {
        self.root.join(TAGS_FOLDER)
    }

    fn tag_path(&self, tag: &TagName) -> PathBuf {
        self.tags_folder().join(tag.as_str())
    }

    /// Resolves a version name to a version number. `None` means the latest version and is returned unchanged. Does not
    /// check that a version with a given number exists; the caller that reads the version does.
    ///
    /// # Errors
    /// [`StoreError::NoTag`], [`StoreError::Tag`], [`StoreError::Io`].
    pub fn resolve(&self, name: Option<&VersionName>) -> Result<Option<u64>, StoreError> {
        match name {
            None => Ok(None),
            Some(VersionName::Number(number)) => Ok(Some(*number)),
            Some(VersionName::Tag(tag)) => self.resolve_tag(tag).map(Some),
        }
    }

    fn resolve_tag(&self, tag: &TagName) -> Result<u64, StoreError> {
        if let Some(version) = self.tagged(tag, &self.versions()?)? {
            return Ok(version);
        }
        Err(StoreError::NoTag {
            path: self.root.clone(),
            tag: tag.to_string(),
            there: tags_there(&self.tags()?.names()),
        })
    }

    /// Returns the version that a tag names, which must be one of `versions`. Returns `None` if there is no such tag.
    fn tagged(&self, tag: &TagName, versions: &[u64]) -> Result<Option<u64>, StoreError> {
        let path = self.tag_path(tag);
        let content = match read_tag(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // A folder is not a valid tag. Report a damaged tag instead of an I/O error.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => Vec::new(),
            other => other.map_err(StoreError::io_at(&path, "read"))?,
        };

        match self.check_tag(&content, versions) {
            Ok(version) => Ok(Some(version)),
            Err(problem) => Err(StoreError::Tag { path, problem }),
        }
    }

    /// Returns the version that the content of a tag's file names. It must be one of `versions`.
    fn check_tag(&self, content: &[u8], versions: &[u64]) -> Result<u64, TagProblem> {
        let version = tagged_version(content).ok_or(TagProblem::Content)?;
        if !versions.contains(&version) {
            return Err(TagProblem::NoVersion { version });
        }

        // A damaged manifest or folder is not the tag's fault and is reported by the caller that reads it.
        if let Ok((_, manifest)) = self.manifest(Some(version))
            && let Ok(true) = self.was_collected(version, &manifest, versions)
        {
            return Err(TagProblem::Collected { version });
        }
        Ok(version)
    }

    /// Returns all tags, with the damaged ones separate.
    ///
    /// # Errors
    /// As for [`Store::versions`]. A damaged tag is not an error.
    pub fn tags(&self) -> Result<Tags, StoreError> {
        let versions = self.versions()?;
        let mut tags = Tags::default();
        let paths = match list(&self.tags_folder()) {
            Ok(paths) => paths,
            // A folder that cannot be listed may contain any tag.
            Err(error) => {
                tags.damaged.push(error);
                return Ok(tags);
            }
        };

        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // A tag that is being written, or was being written when a process was killed.
            if name.starts_with('.') {
                continue;
            }
            let Ok(tag) = name.parse::<TagName>() else {
                let problem = TagProblem::Name;
                tags.damaged.push(StoreError::Tag { path, problem });
                continue;
            };

            match self.tagged(&tag, &versions) {
                Ok(Some(version)) => _ = tags.versions.insert(tag, version),
                // The tag was removed after the folder was listed.
                Ok(None) => {}
                Err(error) => tags.damaged.push(error),
            }
        }
        Ok(tags)
    }

    /// Adds a tag to a version, or moves the tag to it, under the store's lock. Waits for the lock for up to `wait`.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::NoVersion`], [`StoreError::Collected`], and the other errors of
    /// [`Store::readable`].
    pub fn tag(
        &self,
        version: &VersionName,
        tag: &TagName,
        wait: Duration,
    ) -> Result<TagReport, StoreError> {
        // Check the version under the lock: `gc` must not remove its data between the check and the tag.
        let _lock = self.lock(wait, || false)?;
        let (version, _) = self.readable(self.resolve(Some(version))?)?;
        self.require_inside(&self.tags_folder(), TAGS_FOLDER)?;

        // An old tag is replaced even if it is damaged.
        let was = self.tagged(tag, &self.versions()?);
        let report = TagReport {
            tag: tag.to_string(),
            version,
            was: was.as_ref().ok().copied().flatten(),
            was_damaged: was.is_err(),
        };
        if report.was != Some(version) {
            write_renamed(&self.tag_path(tag), tag_text(version).as_bytes())?;
        }
        Ok(report)
    }
}

/// Reads a tag's file, up to the maximum length of a tag.
fn read_tag(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?
        .take(TAG_FILE_BYTES_MAX)
        .read_to_end(&mut content)?;
    Ok(content)
}
