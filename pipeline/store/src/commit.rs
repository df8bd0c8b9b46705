//! Commits a version with put-if-absent: write, fsync, hard link to the version's name, fsync the folder.

use fail::fail_point;
use wavemill_schemas::manifest::Manifest;

use super::durable::{link_absent, write_beside};
use super::{Store, StoreError};

impl Store {
    /// Commits `manifest` as version `version`.
    ///
    /// # Errors
    /// [`StoreError::other_plan`] if another run committed that version with another plan.
    pub fn commit(&self, version: u64, manifest: &Manifest) -> Result<(), StoreError> {
        let path = self.manifest_path(version);
        let text = manifest
            .to_json()
            .map_err(StoreError::manifest_at(path.clone()))?;

        let is_ours = match self.send_manifest(version, manifest, &text)? {
            Some(is_ours) => is_ours,
            None => {
                let temporary = write_beside(&path, text.as_bytes())?;
                fail_point!("commit-before-link");
                link_absent(temporary, &path)?
            }
        };
        if !is_ours {
            // The same plan always results in the same manifest, so it does not matter which run commits it.
            let (_, theirs) = self.manifest(Some(version))?;
            if theirs.plan_id != manifest.plan_id {
                let problem = format!(
                    "another run committed version {version} in the meantime: run again with --new-version"
                );
                return Err(StoreError::other_plan(self.place(), problem));
            }
        }

        fail_point!("commit-after-link");
        Ok(())
    }
}
