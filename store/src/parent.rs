//! The version that a new version follows and is based on.

use wavemill_schemas::manifest::Manifest;

use super::{Store, StoreError};

/// The version that a new version follows.
#[derive(Clone, Debug)]
pub struct Parent {
    /// Version number.
    pub version: u64,
    /// Its manifest.
    pub manifest: Manifest,
    /// blake3 of the manifest's file in lower-case hex. It is part of the next plan's identity.
    pub hash: String,
}

impl Store {
    /// Returns the latest version, or `None` if nothing has been committed yet. Unless the caller holds the store's
    /// lock, another version may be committed at any time.
    ///
    /// # Errors
    /// As for [`Store::manifest`], except that a store without versions is not an error.
    pub fn latest(&self) -> Result<Option<Parent>, StoreError> {
        let Some(&version) = self.versions()?.last() else {
            return Ok(None);
        };
        // Read the file once, so that the manifest and the hash belong to the same bytes.
        let (manifest, hash) = self.manifest_with_hash(version)?;
        Ok(Some(Parent {
            version,
            manifest,
            hash,
        }))
    }
}
