//! The version that a new one follows: what a plan is made upon.

use wavemill_schemas::manifest::Manifest;

use super::{Store, StoreError};

/// The version that a new one follows.
#[derive(Clone, Debug)]
pub(crate) struct Parent {
    /// Its number.
    pub version: u64,
    /// What it says of itself.
    pub manifest: Manifest,
    /// blake3 of the manifest's file, lower-case hex: part of the next plan's identity.
    pub hash: String,
}

impl Store {
    /// The latest version; `None` where nothing was committed yet. Without the store's lock another one may follow at
    /// any moment.
    ///
    /// # Errors
    /// As [`Store::manifest`], but for a store without versions.
    pub(crate) fn latest(&self) -> Result<Option<Parent>, StoreError> {
        let Some(&version) = self.versions()?.last() else {
            return Ok(None);
        };
        // One read for both, so that they are of the same bytes.
        let (manifest, hash) = self.manifest_with_hash(version)?;
        Ok(Some(Parent {
            version,
            manifest,
            hash,
        }))
    }
}
