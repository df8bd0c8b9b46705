//! Where files that a manifest or a receipt names lie: inside the store, wherever links lead.
//!
//! Names are checked when they are read (`schemas/src/manifest.rs`); what a link does is seen only on the disk.

use std::path::{Path, PathBuf};

use wavemill_schemas::manifest::Manifest;

use super::{Store, StoreError};

impl Store {
    /// The path of a file that a manifest or a receipt names, which need not exist.
    ///
    /// # Errors
    /// [`StoreError::Outside`]: a link in its path leads out of the store. The store's own folder may be a link.
    pub(crate) fn locate(&self, name: &str) -> Result<PathBuf, StoreError> {
        let path = self.root.join(name);
        self.require_inside(&path, name)?;
        Ok(path)
    }

    /// Looks where every file of a manifest lies.
    ///
    /// # Errors
    /// As [`Store::locate`], for the first such file.
    pub(crate) fn locate_all(&self, manifest: &Manifest) -> Result<(), StoreError> {
        for file in &manifest.files {
            self.locate(&file.path)?;
        }
        Ok(())
    }

    /// Refuses a folder that a run would write to and no reader would read from.
    ///
    /// # Errors
    /// As [`Store::locate`].
    pub(crate) fn require_own_folders(&self, plan_id: &str) -> Result<(), StoreError> {
        for folder in [
            self.data(plan_id),
            self.versions_folder(),
            self.root.join("_wavemill/receipts").join(plan_id),
        ] {
            let name = folder
                .strip_prefix(&self.root)
                .unwrap_or(&folder)
                .to_string_lossy();
            self.require_inside(&folder, &name)?;
        }
        Ok(())
    }

    pub(super) fn require_inside(&self, path: &Path, name: &str) -> Result<(), StoreError> {
        // Links are followed on both sides, because the store's own folder may be one.
        let is_inside = match (path.canonicalize(), self.root.canonicalize()) {
            (Ok(path), Ok(root)) => path.starts_with(root),
            // One of them does not exist yet, or a link leads nowhere.
            _ => self.encloses(path),
        };
        if is_inside {
            return Ok(());
        }
        Err(StoreError::Outside {
            path: self.root.clone(),
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A store that is itself behind a link, beside another one.
    fn linked_store(folder: &Path) -> Store {
        for name in ["real/data/p/t", "other/data/p/t"] {
            fs::create_dir_all(folder.join(name)).expect("folders");
            fs::write(folder.join(name).join("t.parquet"), name).expect("room");
        }
        symlink("real", folder.join("store")).expect("a link");
        Store::at(&folder.join("store"))
    }

    #[test]
    fn links_may_lead_to_a_store_and_not_out_of_it() {
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
        assert!(store.require_own_folders("p").is_ok());
        assert!(store.require_own_folders("p/folder").is_err());
    }
}
