//! Removes the unfinished output of a COPY or an INSERT that failed or was stopped.
//!
//! DataFusion writes to a temporary name next to the target (`out.csv#1`) and renames it. For a folder it writes
//! several files. If a COPY fails or is stopped, all files that did not exist before are removed. The folder of an
//! INSERT is a table to which other processes may add files meanwhile, so only files that have not been renamed yet are
//! removed.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::datasource::listing::ListingTableUrl;

/// The files that the running statement writes.
#[derive(Clone, Default)]
pub(super) struct PartialOutput(Arc<Mutex<Option<Target>>>);

struct Target {
    folder: PathBuf,
    files: TargetFiles,
    /// Files in the folder before the statement began. `None` if the folder did not exist.
    before: Option<BTreeSet<OsString>>,
}

/// The files in the folder that the statement may have written.
enum TargetFiles {
    /// COPY to a file: the file with this name, or its temporary file.
    One(OsString),
    /// COPY to a folder: all files in it.
    All,
    /// INSERT: all files in the folder that do not have their final name yet.
    Unfinished,
}

impl PartialOutput {
    /// Registers the start of a COPY to `url`.
    pub(super) fn begin_copy(&self, url: &str) {
        *self.slot() = Target::from_copy(url);
    }

    /// Registers the start of an INSERT into a table in the folder at `url`.
    pub(super) fn begin_insert(&self, url: &ListingTableUrl) {
        *self.slot() = Target::from_insert(url);
    }

    /// Registers the completion of the statement, whose files are then kept.
    pub(super) fn end(&self) {
        self.slot().take();
    }

    /// Removes the files that the incomplete statement has written.
    pub(super) fn remove(&self) {
        if let Some(target) = self.slot().take() {
            target.remove();
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Target>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target {
    fn from_copy(url: &str) -> Option<Self> {
        let path = local_path(&ListingTableUrl::parse(url).ok()?)?;
        // DataFusion uses the same rule to choose between one file and a folder of files.
        let is_folder = url.ends_with('/') || path.is_dir() || path.extension().is_none();
        if is_folder {
            return Some(Self {
                before: names(&path),
                folder: path,
                files: TargetFiles::All,
            });
        }

        let folder = path.parent()?.to_owned();
        Some(Self {
            before: names(&folder),
            folder,
            files: TargetFiles::One(path.file_name()?.to_owned()),
        })
    }

    fn from_insert(url: &ListingTableUrl) -> Option<Self> {
        let folder = local_path(url)?;
        Some(Self {
            before: names(&folder),
            folder,
            files: TargetFiles::Unfinished,
        })
    }

    fn remove(&self) {
        for found in names(&self.folder).unwrap_or_default() {
            // A target that existed before the COPY is still the old file, because the new file is renamed to it only
            // when it is complete.
            if self.may_write(&found) && !self.was_there(&found) {
                // Ignore this error: the error of the statement itself is the one to report.
                let _ = fs::remove_file(self.folder.join(found));
            }
        }

        if self.before.is_none() {
            // The folder stays if it contains other files.
            let _ = fs::remove_dir(&self.folder);
        }
    }

    /// Reports whether the statement may have written a file of this name: the target, or its temporary file.
    fn may_write(&self, found: &OsStr) -> bool {
        let found = found.to_string_lossy();
        match &self.files {
            TargetFiles::One(name) => {
                let rest = found.strip_prefix(&*name.to_string_lossy());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
            }
            TargetFiles::All => true,
            TargetFiles::Unfinished => is_unfinished(&found),
        }
    }

    fn was_there(&self, found: &OsStr) -> bool {
        self.before
            .as_ref()
            .is_some_and(|before| before.contains(found))
    }
}

/// Returns the path of a local file URL.
fn local_path(url: &ListingTableUrl) -> Option<PathBuf> {
    (url.scheme() == "file").then(|| Path::new("/").join(url.prefix().as_ref()))
}

/// Reports whether a file has a temporary name, such as `EOBz7jnVQ3Wq0aPl_0.csv#1`.
fn is_unfinished(name: &str) -> bool {
    name.rsplit_once('#')
        .is_some_and(|(_, number)| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

fn names(folder: &Path) -> Option<BTreeSet<OsString>> {
    Some(
        fs::read_dir(folder)
            .ok()?
            .flatten()
            .map(|entry| entry.file_name())
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, name: &str) {
        fs::write(folder.join(name), "x").expect("a file");
    }

    fn left(folder: &Path) -> Vec<OsString> {
        names(folder).expect("a folder").into_iter().collect()
    }

    #[test]
    fn cleanup_removes_only_files_of_the_copy() {
        let folder = tempfile::tempdir().expect("a folder");

        put(folder.path(), "out.csv#1");
        put(folder.path(), "old.csv");

        let partial = PartialOutput::default();
        partial.begin_copy(&folder.path().join("out.csv").to_string_lossy());
        put(folder.path(), "out.csv#2");
        put(folder.path(), "out.csv.bak");

        partial.remove();
        assert_eq!(left(folder.path()), ["old.csv", "out.csv#1", "out.csv.bak"]);

        partial.begin_copy(&folder.path().join("old.csv").to_string_lossy());
        put(folder.path(), "old.csv#1");
        partial.remove();
        assert!(left(folder.path()).contains(&"old.csv".into()) && left(folder.path()).len() == 3);

        partial.begin_copy(&format!("{}/new/", folder.path().display()));
        fs::create_dir(folder.path().join("new")).expect("a folder");
        put(folder.path(), "new/a_0.parquet#1");
        partial.remove();
        assert!(!folder.path().join("new").exists());
        partial.remove();
        assert_eq!(left(folder.path()).len(), 3);
    }

    #[test]
    fn cleanup_removes_only_unfinished_files_of_an_insert() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = ListingTableUrl::parse(folder.path().to_string_lossy()).expect("a folder");
        put(folder.path(), "of_another_0.csv#1");

        let partial = PartialOutput::default();
        partial.begin_insert(&url);
        for name in ["whole_0.csv", "ours_0.csv#1", "ours_1.csv#1", "take #one"] {
            put(folder.path(), name);
        }
        partial.remove();

        let left: Vec<OsString> = names(folder.path()).into_iter().flatten().collect();
        assert_eq!(left, ["of_another_0.csv#1", "take #one", "whole_0.csv"]);
    }
}
