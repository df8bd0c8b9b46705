//! Links files that came out with the same bytes as in the previous version, such as a table that did not change, so that
//! they take no space of their own.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use wavemill_schemas::manifest::{FileEntry, Manifest};

use super::resume::{hard_link, replace_by, temporary_beside};
use super::{Store, StoreError};

impl Store {
    /// Replaces files of `written` by links to files of `earlier` that have the same bytes and are sound. Returns how many
    /// were replaced. On a file system without links the files stay as they are.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Outside`].
    pub(crate) fn link_equal(
        &self,
        earlier: &Manifest,
        written: &Manifest,
    ) -> Result<usize, StoreError> {
        let mut by_hash: HashMap<&str, Vec<&FileEntry>> = HashMap::new();
        for file in &earlier.files {
            by_hash.entry(&file.blake3).or_default().push(file);
        }

        let mut n_linked = 0;
        for file in &written.files {
            let equal = by_hash.get(file.blake3.as_str());
            if self.link_to_one_of(equal.map_or(&[][..], Vec::as_slice), file)? {
                n_linked += 1;
            }
        }
        Ok(n_linked)
    }

    /// Replaces `written` by a link to the first sound one of the `equal` files. Returns false if there is none, or if `written`
    /// is such a link already.
    fn link_to_one_of(
        &self,
        equal: &[&FileEntry],
        written: &FileEntry,
    ) -> Result<bool, StoreError> {
        let path = self.locate(&written.path)?;
        for earlier in equal {
            let earlier = self.locate(&earlier.path)?;
            if is_same_file(&earlier, &path).map_err(StoreError::io_at(&path, "look at"))? {
                return Ok(false);
            }
        }
        for earlier in equal {
            if let Some(earlier) = self.sound_file(earlier)? {
                return link_over(&earlier, &path).map_err(StoreError::io_at(&path, "link"));
            }
        }
        Ok(false)
    }
}

/// Reports whether two paths are names of one file; not if the first does not exist.
fn is_same_file(earlier: &Path, written: &Path) -> io::Result<bool> {
    let earlier = match fs::metadata(earlier) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let written = fs::metadata(written)?;
    Ok((earlier.dev(), earlier.ino()) == (written.dev(), written.ino()))
}

/// Replaces `to` by a link to `from`. Returns false if the file system refuses the link.
fn link_over(from: &Path, to: &Path) -> io::Result<bool> {
    let temporary = temporary_beside(to);
    // Left by a killed run. A link cannot be created while the name is taken.
    let _ = fs::remove_file(&temporary);
    // Fails on another file system, on one without links, and if a file has too many of them.
    if hard_link(from, &temporary).is_err() {
        return Ok(false);
    }
    replace_by(&temporary, to)?;
    Ok(true)
}
