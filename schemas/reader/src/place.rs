//! Locates files named by a manifest or a receipt, and rejects symbolic links that lead out of the store.
//!
//! File names are validated when a manifest is read (`schemas/schemas/src/manifest.rs`), but links can only be checked
//! on the disk.

use std::fs;
use std::path::{Path, PathBuf};

use wavemill_schemas::manifest::{FileEntry, Manifest};

use crate::{StoreError, StoreFolder};

impl StoreFolder {
    /// Returns the path of a file that a manifest or a receipt names. The file need not exist.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a symbolic link in the path leads out of the store, or a pipe or device is in the
    /// file's place, which may never end. The store's root folder may be a link.
    pub fn locate(&self, name: &str) -> Result<PathBuf, StoreError> {
        let path = self.root.join(name);
        self.require_inside(&path, name)?;
        if fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            let problem = format!("damaged store: {name} is no file: remove it, and extract again");
            return Err(StoreError::damaged(self.place().to_owned(), problem));
        }
        Ok(path)
    }

    /// Returns the path of a file of a version, to be opened. A store in an object store copies it first. If the file
    /// does not exist, there is none at the path.
    pub fn file(&self, entry: &FileEntry) -> Result<PathBuf, StoreError> {
        let path = self.locate(&entry.path)?;
        self.fetch(&[entry])?;
        Ok(path)
    }

    /// Copies files of a version that will be opened, several at a time, if the store is in an object store.
    ///
    /// # Errors
    /// [`StoreError::Remote`] if a file cannot be copied or differs from its entry.
    pub fn fetch(&self, entries: &[&FileEntry]) -> Result<(), StoreError> {
        self.if_remote(|mirror| mirror.fetch(entries))
    }

    /// Copies files as [`StoreFolder::fetch`] does, as long as there is room to spare.
    pub fn fetch_spare(&self, entries: &[&FileEntry]) -> Result<(), StoreError> {
        self.if_remote(|mirror| mirror.fetch_spare(entries))
    }

    /// Checks that every file of a manifest is inside the store.
    ///
    /// # Errors
    /// The errors of [`StoreFolder::locate`], for the first file that is outside of the store.
    pub(crate) fn locate_all(&self, manifest: &Manifest) -> Result<(), StoreError> {
        for file in &manifest.files {
            self.locate(&file.path)?;
        }
        Ok(())
    }

    /// Checks that `path`, whose name in the store is `name`, does not lead out of the store.
    ///
    /// # Errors
    /// The same errors as for [`StoreFolder::locate`].
    pub fn require_inside(&self, path: &Path, name: &str) -> Result<(), StoreError> {
        // Resolve the symbolic links of both paths, because the store's root folder may be a link.
        let is_inside = match (path.canonicalize(), self.root.canonicalize()) {
            (Ok(path), Ok(root)) => path.starts_with(root),
            // One of the paths does not exist yet, or is a link to a missing file.
            _ => self.encloses(path),
        };
        if is_inside {
            return Ok(());
        }
        let problem = format!(
            "damaged store: {name} leads out of it through a symbolic link: replace the link with the files themselves"
        );
        Err(StoreError::damaged(self.place().to_owned(), problem))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Creates a store whose root folder is a symbolic link, and another folder next to the store.
    fn linked_store(folder: &Path) -> StoreFolder {
        for name in ["real/data/p/t", "other/data/p/t"] {
            fs::create_dir_all(folder.join(name)).expect("folders");
            fs::write(folder.join(name).join("t.parquet"), name).expect("room");
        }
        symlink("real", folder.join("store")).expect("a link");
        StoreFolder::at(&folder.join("store"))
    }

    #[test]
    fn links_to_a_store_are_followed_but_not_out_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = linked_store(folder.path());
        let root = folder.path().join("real/data/p");
        symlink("t", root.join("inside")).expect("a link");
        symlink("../../../other/data/p/t", root.join("folder")).expect("a link");
        symlink(
            "../../../../other/data/p/t/t.parquet",
            root.join("t/file.parquet"),
        )
        .expect("a link");

        for inside in [
            "data/p/t/t.parquet",
            "data/p/inside/t.parquet",
            "data/p/t/absent.parquet",
            "no/such",
        ] {
            assert_eq!(
                store.locate(inside).expect(inside),
                store.root().join(inside)
            );
        }
        for outside in ["data/p/folder/t.parquet", "data/p/t/file.parquet"] {
            let error = store.locate(outside).expect_err(outside).to_string();
            assert!(error.contains(outside), "{error}");
        }
    }
}
