//! Tags: names that users give to versions. Each tag is a small file.
//!
//! A tag is not part of a version and can be moved to another one. Only `gc` needs all tags. A damaged tag therefore
//! fails only the commands that use it, and `gc`, which cannot know which version the tag should keep.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use wavemill_reader::list;
use wavemill_schemas::version_name::{TagName, VersionName, tag_text};

use super::durable::{sync_folder, write_renamed};
use super::{Access, Store, StoreError};

/// All tags of a store.
#[derive(Debug, Default)]
pub struct Tags {
    /// Version number of each valid tag.
    versions: BTreeMap<TagName, u64>,
    /// Errors that describe the damaged tags.
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
}

/// The result of adding or moving a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TagReport {
    /// The tag.
    pub tag: String,
    /// Version that the tag names now.
    pub version: u64,
    /// Version that the tag named before. `None` if the tag is new or was damaged.
    pub was: Option<u64>,
    /// True if the tag was damaged and was replaced.
    pub was_damaged: bool,
}

impl Store {
    /// Returns all tags, with the damaged ones separate.
    ///
    /// # Errors
    /// The errors of [`StoreFolder::versions`](crate::StoreFolder::versions). A damaged tag is not an error.
    pub fn tags(&self) -> Result<Tags, StoreError> {
        let versions = self.versions()?;
        let mut tags = Tags::default();
        let paths = match list(&self.tags_folder()) {
            Ok(paths) => paths,
            // A tag folder that cannot be listed may contain any tag, so it counts as a damaged tag.
            Err(error) => {
                tags.damaged.push(error);
                return Ok(tags);
            }
        };

        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // The name of a tag that is being written, or was being written when a process was killed.
            if name.starts_with('.') {
                continue;
            }
            let Ok(tag) = name.parse::<TagName>() else {
                tags.damaged.push(StoreError::Tag {
                    path,
                    problem: "damaged tag: the file name is not a valid tag: remove the file"
                        .to_owned(),
                    is_content: false,
                });
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

    /// Adds a tag to a version, or moves the tag to it, under the store's shared lock. Waits for the lock for up to `wait`.
    ///
    /// # Errors
    /// [`StoreError::Locked`], and the errors of [`StoreFolder::readable`](crate::StoreFolder::readable).
    pub fn tag(
        &self,
        version: &VersionName,
        tag: &TagName,
        wait: Duration,
    ) -> Result<TagReport, StoreError> {
        // Check the version under the lock: `gc` must not remove its data between the check and the tag.
        let _lock = self.lock(Access::Shared, wait, || false)?;
        let (version, _) = self.readable(self.resolve(Some(version))?)?;

        // A tag of the same name is replaced even if it is damaged.
        let was = self.tagged(tag, &self.versions()?);
        let report = TagReport {
            tag: tag.to_string(),
            version,
            was: was.as_ref().ok().copied().flatten(),
            was_damaged: was.is_err(),
        };
        if report.was == Some(version) {
            // The process that wrote the tag may have been killed before it synced the folder.
            return sync_folder(&self.tags_folder()).map(|()| report);
        }
        let (path, text) = (self.tag_path(tag), tag_text(version));
        self.send_text(&path, &text)?;
        write_renamed(&path, text.as_bytes())?;
        Ok(report)
    }
}
