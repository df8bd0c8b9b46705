//! What a COPY or an INSERT that did not end leaves behind, and how it goes.
//!
//! DataFusion writes under a name of its own beside the target (`out.csv#1`) and renames; into a folder it writes several
//! files. When a COPY fails or is stopped, whatever was not there before it is removed. The folder of an INSERT is a
//! table that others may add files to meanwhile, so only files that were not renamed yet are removed there.

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
    /// What lay in the folder; `None` where it was not there.
    before: Option<BTreeSet<OsString>>,
}

/// Which files of its folder a statement writes.
enum TargetFiles {
    /// COPY to a file: the one of this name.
    One(OsString),
    /// COPY to a folder.
    All,
    /// INSERT: those that do not have their last name yet.
    Unfinished,
}

impl PartialOutput {
    /// A COPY to `url` begins.
    pub(super) fn begin_copy(&self, url: &str) {
        *self.slot() = Target::of_copy(url);
    }

    /// An INSERT begins, into a table that is the folder at `url`.
    pub(super) fn begin_insert(&self, url: &ListingTableUrl) {
        *self.slot() = Target::of_insert(url);
    }

    /// It is complete.
    pub(super) fn end(&self) {
        self.slot().take();
    }

    /// It is not, and what it wrote goes.
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
    fn of_copy(url: &str) -> Option<Self> {
        let path = local_path(&ListingTableUrl::parse(url).ok()?)?;
        // As DataFusion decides between one file and a folder of files.
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

    fn of_insert(url: &ListingTableUrl) -> Option<Self> {
        let folder = local_path(url)?;
        Some(Self {
            before: names(&folder),
            folder,
            files: TargetFiles::Unfinished,
        })
    }

    fn remove(&self) {
        for found in names(&self.folder).unwrap_or_default() {
            // A target that was there before is still the old file: the new one gets its name only when it is whole.
            if self.may_write(&found) && !self.was_there(&found) {
                // The error that made this necessary is the one to tell.
                let _ = fs::remove_file(self.folder.join(found));
            }
        }

        if self.before.is_none() {
            // Stays where something else lies in it.
            let _ = fs::remove_dir(&self.folder);
        }
    }

    /// Whether a file of this name may be the statement's: the target, or the target before it is renamed.
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

/// The path of a URL of this machine's files.
fn local_path(url: &ListingTableUrl) -> Option<PathBuf> {
    (url.scheme() == "file").then(|| Path::new("/").join(url.prefix().as_ref()))
}

/// Such as `EOBz7jnVQ3Wq0aPl_0.csv#1`.
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

    #[test]
    fn what_a_copy_left_goes_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let put = |name: &str| fs::write(folder.path().join(name), "x").expect("a file");
        let left = || {
            names(folder.path())
                .expect("a folder")
                .into_iter()
                .collect::<Vec<_>>()
        };
        put("out.csv#1");
        put("old.csv");
        let partial = PartialOutput::default();
        partial.begin_copy(&folder.path().join("out.csv").to_string_lossy());
        put("out.csv#2");
        put("out.csv.bak");
        partial.remove();
        assert_eq!(left(), ["old.csv", "out.csv#1", "out.csv.bak"]);

        partial.begin_copy(&folder.path().join("old.csv").to_string_lossy());
        put("old.csv#1");
        partial.remove();
        assert!(left().contains(&"old.csv".into()) && left().len() == 3);

        partial.begin_copy(&format!("{}/new/", folder.path().display()));
        fs::create_dir(folder.path().join("new")).expect("a folder");
        put("new/a_0.parquet#1");
        partial.remove();
        assert!(!folder.path().join("new").exists());
        partial.remove();
        assert_eq!(left().len(), 3);
    }

    #[test]
    fn of_an_insert_only_unfinished_files_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let put = |name: &str| fs::write(folder.path().join(name), "x").expect("a file");
        let url = ListingTableUrl::parse(folder.path().to_string_lossy()).expect("a folder");
        put("of_another_0.csv#1");

        let partial = PartialOutput::default();
        partial.begin_insert(&url);
        for name in ["whole_0.csv", "ours_0.csv#1", "ours_1.csv#1", "take #one"] {
            put(name);
        }
        partial.remove();

        let left: Vec<OsString> = names(folder.path()).into_iter().flatten().collect();
        assert_eq!(left, ["of_another_0.csv#1", "take #one", "whole_0.csv"]);
    }
}
