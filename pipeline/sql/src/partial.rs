//! Removes the unfinished output of a COPY or an INSERT that failed or was stopped.
//!
//! DataFusion writes to a temporary name next to the target (`out.csv#1`) and renames it. For a folder it writes
//! several files, also into folders of partitions (`genre=1`), under names that it makes up. If a COPY fails or is
//! stopped, all files with such names that did not exist before are removed. The folder of an INSERT is a table to
//! which other processes may add files meanwhile, so only files that have not been renamed yet are removed.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsString;
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
    /// Paths in the folder before the statement began. `None` if the folder did not exist.
    before: Option<BTreeSet<PathBuf>>,
}

/// The files in the folder that the statement may have written.
enum TargetFiles {
    /// COPY to a file: the file with this name, or its temporary file.
    One(OsString),
    /// COPY to a folder: all files in it, and in its partitions, with names of DataFusion.
    Generated,
    /// INSERT: all files in the folder, and in its partitions, that do not have their final name yet.
    Unfinished,
}

impl PartialOutput {
    /// Registers the start of a COPY to `url`, which is a folder if it is partitioned.
    pub(super) fn begin_copy(&self, url: &str, is_partitioned: bool) {
        *self.slot() = Target::from_copy(url, is_partitioned);
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
    fn new(folder: PathBuf, files: TargetFiles) -> Self {
        Self {
            before: paths(&folder, &files),
            folder,
            files,
        }
    }

    fn from_copy(url: &str, is_partitioned: bool) -> Option<Self> {
        let url = ListingTableUrl::parse(url).ok()?;
        let path = local_path(&url)?;
        // DataFusion uses the same rule to choose between one file and a folder of files.
        if is_partitioned || url.is_collection() || url.file_extension().is_none() {
            return Some(Self::new(path, TargetFiles::Generated));
        }

        let folder = path.parent()?.to_owned();
        let name = path.file_name()?.to_owned();
        Some(Self::new(folder, TargetFiles::One(name)))
    }

    fn from_insert(url: &ListingTableUrl) -> Option<Self> {
        Some(Self::new(local_path(url)?, TargetFiles::Unfinished))
    }

    fn remove(&self) {
        let found = paths(&self.folder, &self.files).unwrap_or_default();
        // A folder precedes what it contains, and can only be removed when it is empty.
        for path in found.iter().rev() {
            // A target that existed before the COPY is still the old file, because the new file is renamed to it only
            // when it is complete.
            if self.was_there(path) {
                continue;
            }
            // Ignore these errors: the error of the statement itself is the one to report.
            let full = self.folder.join(path);
            if self.may_write(path) {
                let _ = fs::remove_file(full);
            } else if self.files.has_partitions() && is_partition(path) {
                let _ = fs::remove_dir(full);
            }
        }

        if self.before.is_none() {
            // The folder stays if it contains other files.
            let _ = fs::remove_dir(&self.folder);
        }
    }

    /// Reports whether the statement may have written a file of this name: the target, or its temporary file.
    fn may_write(&self, found: &Path) -> bool {
        let found = name_of(found);
        match &self.files {
            TargetFiles::One(name) => {
                let rest = found.strip_prefix(&*name.to_string_lossy());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
            }
            TargetFiles::Generated => is_generated(&found),
            TargetFiles::Unfinished => unfinished(&found).is_some(),
        }
    }

    fn was_there(&self, found: &Path) -> bool {
        self.before
            .as_ref()
            .is_some_and(|before| before.contains(found))
    }
}

impl TargetFiles {
    /// Reports whether some of the files may be in folders of partitions.
    const fn has_partitions(&self) -> bool {
        !matches!(self, Self::One(_))
    }
}

/// Returns the path of a local file URL.
fn local_path(url: &ListingTableUrl) -> Option<PathBuf> {
    (url.scheme() == "file").then(|| Path::new("/").join(url.prefix().as_ref()))
}

fn name_of(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// Returns the final name of a file with a temporary name, such as `EOBz7jnVQ3Wq0aPl_0.csv#1`.
fn unfinished(name: &str) -> Option<&str> {
    let (name, number) = name.rsplit_once('#')?;
    is_number(number).then_some(name)
}

/// Reports whether DataFusion makes up names like this one for the files of a folder: `EOBz7jnVQ3Wq0aPl_0.csv`, without
/// a number in a partition, and temporary ones.
fn is_generated(name: &str) -> bool {
    let name = unfinished(name).unwrap_or(name);
    let Some((stem, _)) = name.split_once('.') else {
        return false;
    };
    let (id, number) = stem.split_once('_').unwrap_or((stem, "0"));
    id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) && is_number(number)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Reports whether a folder has the name of a partition, such as `genre=1`.
fn is_partition(path: &Path) -> bool {
    name_of(path).contains('=')
}

/// Returns the paths in a folder at which there may be files, relative to it, or `None` if it does not exist.
fn paths(folder: &Path, files: &TargetFiles) -> Option<BTreeSet<PathBuf>> {
    if !folder.is_dir() {
        return None;
    }
    let mut paths = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        // A folder that cannot be read counts as empty.
        for entry in fs::read_dir(inner).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && files.has_partitions() && is_partition(&path) {
                folders.push(path.clone());
            }
            if let Ok(path) = path.strip_prefix(folder) {
                paths.insert(path.to_owned());
            }
        }
    }
    Some(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, name: &str) {
        fs::write(folder.join(name), "x").expect("a file");
    }

    /// Returns the paths in a folder and in its partitions.
    fn left(folder: &Path) -> Vec<String> {
        let paths = paths(folder, &TargetFiles::Generated).expect("a folder");
        let paths = paths.iter().map(|path| path.to_string_lossy().into_owned());
        paths.collect()
    }

    #[test]
    fn cleanup_removes_only_files_of_the_copy() {
        let folder = tempfile::tempdir().expect("a folder");

        put(folder.path(), "out.csv#1");
        put(folder.path(), "old.csv");

        let partial = PartialOutput::default();
        partial.begin_copy(&folder.path().join("out.csv").to_string_lossy(), false);
        put(folder.path(), "out.csv#2");
        put(folder.path(), "out.csv.bak");

        partial.remove();
        assert_eq!(left(folder.path()), ["old.csv", "out.csv#1", "out.csv.bak"]);

        partial.begin_copy(&folder.path().join("old.csv").to_string_lossy(), false);
        put(folder.path(), "old.csv#1");
        partial.remove();
        assert!(left(folder.path()).contains(&"old.csv".into()) && left(folder.path()).len() == 3);

        partial.begin_copy(&format!("{}/new/", folder.path().display()), false);
        fs::create_dir(folder.path().join("new")).expect("a folder");
        put(folder.path(), "new/EOBz7jnVQ3Wq0aPl_0.parquet#1");
        partial.remove();
        assert!(!folder.path().join("new").exists());
        partial.remove();
        assert_eq!(left(folder.path()).len(), 3);
    }

    #[test]
    fn cleanup_of_a_folder_keeps_files_of_other_programs() {
        let folder = tempfile::tempdir().expect("a folder");

        let partial = PartialOutput::default();
        partial.begin_copy(&folder.path().to_string_lossy(), false);
        for name in [
            "EOBz7jnVQ3Wq0aPl_0.csv",
            "EOBz7jnVQ3Wq0aPl_10.csv.gz#1",
            "abcdefghijklmnop",
            "letter.csv",
            "results_of_today_1.csv",
            "EOBz7jnVQ3Wq0aPl_x.csv",
        ] {
            put(folder.path(), name);
        }
        partial.remove();

        let kept = [
            "EOBz7jnVQ3Wq0aPl_x.csv",
            "abcdefghijklmnop",
            "letter.csv",
            "results_of_today_1.csv",
        ];
        assert_eq!(left(folder.path()), kept);
    }

    #[test]
    fn cleanup_removes_files_of_partitions() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let [genre_0, genre_1, year] =
            ["genre=0", "genre=1", "genre=1/year=2000"].map(|name| folder.join(name));
        fs::create_dir(&genre_0).expect("a folder");
        put(&genre_0, "0000000000000000.csv");

        let partial = PartialOutput::default();
        partial.begin_copy(&folder.to_string_lossy(), true);
        put(&genre_0, "EOBz7jnVQ3Wq0aPl.csv");
        put(&genre_0, "mine.csv");
        fs::create_dir_all(&year).expect("a folder");
        put(&year, "EOBz7jnVQ3Wq0aPl.csv#1");
        partial.remove();

        let kept = [
            "genre=0",
            "genre=0/0000000000000000.csv",
            "genre=0/mine.csv",
        ];
        assert_eq!(left(folder), kept);

        // Partitions are in a folder even if its name looks like a file's.
        partial.begin_copy(&folder.join("out.csv").to_string_lossy(), true);
        let part = folder.join("out.csv/genre=1");
        fs::create_dir_all(&part).expect("a folder");
        put(&part, "EOBz7jnVQ3Wq0aPl.csv");
        partial.remove();
        assert!(!genre_1.exists());
        assert_eq!(left(folder), kept);
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

        let kept = ["of_another_0.csv#1", "take #one", "whole_0.csv"];
        assert_eq!(left(folder.path()), kept);
    }
}
