//! Resolves tags: a file next to the versions contains the version number of each tag.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use wavemill_schemas::version_name::{
    TAG_FILE_BYTES_MAX, TAGS_FOLDER, TagName, TagProblem, tagged_version, tags_there,
};

use crate::DatasetError;

/// Returns the version, one of `versions`, that a tag of the store at `root` names.
///
/// # Errors
/// [`DatasetError::NoTag`], [`DatasetError::Tag`], [`DatasetError::Io`].
pub(crate) fn version_of(
    root: &Path,
    tag: &TagName,
    versions: &[u64],
) -> Result<u64, DatasetError> {
    let path = path_of(root, tag);
    let content = match read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(DatasetError::NoTag {
                path: root.to_owned(),
                tag: tag.to_string(),
                there: tags_there(&names(root)),
            });
        }
        // A folder is not a valid tag, but it is not a disk error either.
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => Vec::new(),
        other => other.map_err(DatasetError::io_at(&path, "read"))?,
    };

    let version =
        tagged_version(&content).ok_or_else(|| damaged(root, tag, TagProblem::Content))?;
    if !versions.contains(&version) {
        return Err(damaged(root, tag, TagProblem::NoVersion { version }));
    }
    Ok(version)
}

/// Returns the error for an existing but unusable tag.
pub(crate) fn damaged(root: &Path, tag: &TagName, problem: TagProblem) -> DatasetError {
    DatasetError::Tag {
        path: path_of(root, tag),
        problem,
    }
}

fn path_of(root: &Path, tag: &TagName) -> PathBuf {
    root.join(TAGS_FOLDER).join(tag.as_str())
}

/// Reads the content of a tag's file, up to the maximum length of a tag.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?
        .take(TAG_FILE_BYTES_MAX)
        .read_to_end(&mut content)?;
    Ok(content)
}

/// Returns the names of all tags, in order. They only serve as a hint in an error: if they cannot be listed, the list
/// is empty.
fn names(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root.join(TAGS_FOLDER));
    let mut names: Vec<String> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.parse::<TagName>().is_ok())
        .collect();
    names.sort_unstable();
    names
}
