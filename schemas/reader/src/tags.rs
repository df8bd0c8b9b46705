//! Resolves version names, such as numbers and tags. Each tag is a small file that contains a version number.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use wavemill_schemas::durable::if_there;
use wavemill_schemas::version_name::{
    TAG_FILE_BYTES_MAX, TAGS_FOLDER, TagName, VersionName, tagged_version, tags_there,
};

use crate::{StoreError, StoreFolder, list};

impl StoreFolder {
    /// Returns the folder that contains the files of tags.
    pub fn tags_folder(&self) -> PathBuf {
        self.root.join(TAGS_FOLDER)
    }

    /// Returns the path of a tag's file, which need not exist.
    pub fn tag_path(&self, tag: &TagName) -> PathBuf {
        self.tags_folder().join(tag.as_str())
    }

    /// Resolves a version name to a version number, or to `None` for the latest version, which is also the version
    /// without a name. If the name is a number, this function does not check that the version exists.
    ///
    /// # Errors
    /// [`StoreError::Absent`] if there is no such tag, [`StoreError::Tag`] if its file is damaged, [`StoreError::Io`].
    pub fn resolve(&self, name: Option<&VersionName>) -> Result<Option<u64>, StoreError> {
        match name {
            None | Some(VersionName::Latest) => Ok(None),
            Some(VersionName::Number(number)) => Ok(Some(*number)),
            Some(VersionName::Tag(tag)) => self.resolve_tag(tag).map(Some),
        }
    }

    fn resolve_tag(&self, tag: &TagName) -> Result<u64, StoreError> {
        if let Some(version) = self.tagged(tag, &self.versions()?)? {
            return Ok(version);
        }
        let there = tags_there(&self.tag_names());
        let problem = format!(
            "no tag {tag}; {there}: `wavemill info --versions` lists all versions, and `wavemill tag VERSION {tag}` \
             creates the tag"
        );
        Err(StoreError::absent(self.place(), problem))
    }

    /// Returns the names of all tags in order, including damaged tags. They are only shown as a hint in an error: if
    /// they cannot be listed, the list is empty.
    pub(crate) fn tag_names(&self) -> Vec<String> {
        let paths = list(&self.tags_folder()).unwrap_or_default();
        let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
        names
            .filter(|name| name.parse::<TagName>().is_ok())
            .map(str::to_owned)
            .collect()
    }

    /// Returns the version number that a tag names, which must be one of `versions`. Returns `None` if there is no such
    /// tag.
    ///
    /// # Errors
    /// [`StoreError::Tag`] if the tag's file is damaged or names no version, [`StoreError::Io`] if it cannot be read.
    pub fn tagged(&self, tag: &TagName, versions: &[u64]) -> Result<Option<u64>, StoreError> {
        let path = self.tag_path(tag);
        let content = if_there(read_tag(&path)).map_err(StoreError::io_at(&path, "read"))?;
        let Some(content) = content else {
            return Ok(None);
        };

        let Some(version) = tagged_version(&content) else {
            let problem = "it does not contain a version number and its checksum";
            return Err(StoreError::tag(path, problem, true));
        };
        if !versions.contains(&version) {
            let problem = format!("it refers to version {version}, which does not exist");
            return Err(StoreError::tag(path, &problem, false));
        }

        // A damaged manifest or folder does not make the tag invalid; the caller reports it when reading the version.
        if let Ok(committed) = self.read(version)
            && let Ok(true) = self.was_collected(&committed, versions)
        {
            // A tag normally prevents this, so it did not exist at that time.
            let problem =
                format!("it names version {version}, whose data was removed by `wavemill gc`");
            return Err(StoreError::tag(path, &problem, false));
        }
        Ok(Some(version))
    }
}

/// Reads a tag's file, up to the maximum length of a tag. A path to anything but a file counts as an empty file.
fn read_tag(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    if fs::symlink_metadata(path)?.is_file() {
        let file = File::open(path)?;
        file.take(TAG_FILE_BYTES_MAX).read_to_end(&mut content)?;
    }
    Ok(content)
}
