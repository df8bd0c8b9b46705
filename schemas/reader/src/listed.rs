//! Complete lists of versions. Removing data by a list that lacks versions would lose them, and a list may be wrong: a
//! proxy answers with an older one, or a folder was emptied.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use crate::{StoreError, StoreFolder};

/// Pause before a list is requested again that lacks a version: another machine may have committed it meanwhile.
const PAUSE: Duration = Duration::from_millis(500);

impl StoreFolder {
    /// Does what [`StoreFolder::refresh`] does, and checks that the list of versions in an object store lacks no latest one.
    ///
    /// # Errors
    /// [`StoreError::Remote`] if it does; [`StoreError::Damaged`] if there are tags without versions; errors of listing.
    pub fn refresh_all(&self) -> Result<(), StoreError> {
        self.refresh()?;
        if self.versions()?.is_empty()
            && let [tag, ..] = &self.tag_names()[..]
        {
            let problem =
                format!("no manifests, but the tag {tag}: restore them from a copy of the store");
            return Err(StoreError::damaged(self.versions_folder(), problem));
        }
        if self.require_latest().is_ok() {
            return Ok(());
        }
        thread::sleep(PAUSE);
        self.refresh()?;
        self.require_latest()
    }

    fn require_latest(&self) -> Result<(), StoreError> {
        let Some(remote) = self.remote() else {
            return Ok(());
        };
        let next = self.versions()?.last().map_or(1, |latest| latest + 1);
        let path = self.manifest_path(next);
        let name = path.strip_prefix(self.root()).unwrap_or(&path);
        Ok(remote.require_absent(&name.to_string_lossy())?)
    }

    /// Returns the hashes of all manifests by the numbers of their versions.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a manifest between others is missing; the errors of [`StoreFolder::committed`].
    pub fn manifest_hashes(&self) -> Result<BTreeMap<u64, String>, StoreError> {
        let mut hashes = BTreeMap::new();
        for (version, number) in self.versions()?.into_iter().zip(1..) {
            // Manifests are never removed, so the numbers have no gaps.
            if version != number {
                let problem =
                    "missing, but a later version exists: restore it from a copy of the store";
                return Err(StoreError::damaged(self.manifest_path(number), problem));
            }
            hashes.insert(version, self.read(version)?.hash);
        }
        Ok(hashes)
    }
}
