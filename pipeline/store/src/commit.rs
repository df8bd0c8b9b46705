//! Commits a version with put-if-absent: write, fsync, hard link to the version's name, fsync the folder.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use fail::fail_point;
use wavemill_schemas::manifest::Manifest;

use super::durable::{self, folder_of};
use super::{Store, StoreError};

impl Store {
    /// Commits `manifest` as version `version`.
    ///
    /// # Errors
    /// [`StoreError::OtherPlan`] if another run committed that version with another plan.
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
                link_absent(&temporary, &path)?
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

/// Writes a small file under a temporary name and renames it: after a crash the file is complete or does not exist.
pub(super) fn write_renamed(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = write_beside(path, bytes)?;
    fs::rename(&temporary, path).map_err(|e| {
        let _ = fs::remove_file(&temporary);
        StoreError::io_at(path, "rename")(e)
    })?;
    sync(folder_of(path))
}

/// Like [`write_renamed`], but keeps a file that exists already. Returns true if the file is the new one.
pub(super) fn put_absent(path: &Path, bytes: &[u8]) -> Result<bool, StoreError> {
    let temporary = write_beside(path, bytes)?;
    link_absent(&temporary, path)
}

/// Gives the file `temporary` the name `path`, unless there is such a file. Returns true if `path` is the new file.
fn link_absent(temporary: &Path, path: &Path) -> Result<bool, StoreError> {
    // A rename would replace the file of another process. A link fails if the name is taken.
    let linked = fs::hard_link(temporary, path);
    // If the link was created, the temporary name is only a second name of the file.
    let _ = fs::remove_file(temporary);
    match linked {
        Ok(()) => sync(folder_of(path)).map(|()| true),
        // The process that linked the other file may have been killed before it synced the folder.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => sync(folder_of(path)).map(|()| false),
        Err(e) => Err(StoreError::io_at(path, "commit")(e)),
    }
}

/// Writes a small file durably under a temporary name beside `path`, and returns that name. Readers ignore the name. If
/// the process is killed, a later run removes the file.
fn write_beside(path: &Path, bytes: &[u8]) -> Result<PathBuf, StoreError> {
    let folder = folder_of(path);
    durable::make_folder(folder).map_err(StoreError::io_at(folder, "create the folder"))?;
    let temporary = durable::temporary_beside(path);
    write_durably(&temporary, bytes)?;
    Ok(temporary)
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|e| {
        let _ = fs::remove_file(path);
        StoreError::io_at(path, "write")(e)
    })
}

pub(super) fn sync(folder: &Path) -> Result<(), StoreError> {
    durable::sync_folder(folder).map_err(StoreError::io_at(folder, "sync the folder"))
}
