//! Links files that have the same bytes as in the previous version, such as an unchanged table, so that they take no
//! additional space.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use wavemill_schemas::manifest::{FileEntry, Manifest};

use super::durable;
use super::resume::{hard_link, is_disk_fault, is_lost};
use super::{Store, StoreError};

impl Store {
    /// Replaces files of `written` by links to intact files of `earlier` with the same bytes. Returns the number of
    /// replaced files. On a file system without links the files stay unchanged.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a link cannot be replaced; [`StoreError::Damaged`] if a path leads out of the store.
    pub fn link_equal(&self, earlier: &Manifest, written: &Manifest) -> Result<usize, StoreError> {
        // Object stores have no links.
        if self.remote().is_some() {
            return Ok(0);
        }
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

    /// Replaces the file `written` by a link to the first intact file in `equal`. Returns false if there is none, or if
    /// `written` already is such a link.
    fn link_to_one_of(
        &self,
        equal: &[&FileEntry],
        written: &FileEntry,
    ) -> Result<bool, StoreError> {
        let path = self.locate(&written.path)?;
        for earlier in equal {
            let earlier = self.locate(&earlier.path)?;
            if is_same_file(&earlier, &path).map_err(StoreError::io_at(&path, "access"))? {
                return Ok(false);
            }
        }
        for earlier in equal {
            match self.sound_file(earlier) {
                Ok(Some(earlier)) => {
                    return link_over(&earlier, &path).map_err(StoreError::io_at(&path, "link"));
                }
                Ok(None) => {}
                // The file that was written has the same bytes.
                Err(error) if is_lost(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

/// Reports whether two paths are names of the same file. Returns false if the first file does not exist or is lost.
fn is_same_file(earlier: &Path, written: &Path) -> io::Result<bool> {
    let earlier = match fs::metadata(earlier) {
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_disk_fault(&error) => {
            return Ok(false);
        }
        other => other?,
    };
    let written = fs::metadata(written)?;
    Ok((earlier.dev(), earlier.ino()) == (written.dev(), written.ino()))
}

/// Replaces `to` by a link to `from`. Returns false if the file system refuses the link.
fn link_over(from: &Path, to: &Path) -> io::Result<bool> {
    let temporary = durable::temporary_beside(to);
    // Creating a link fails on another file system, on one without links, and if the file has too many links.
    if hard_link(from, &temporary).is_err() {
        return Ok(false);
    }
    temporary.persist(to)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> FileEntry {
        FileEntry {
            table: Some("tracks".to_owned()),
            feature: None,
            split: None,
            path: path.to_owned(),
            rows: 0,
            bytes: 0,
            blake3: String::new(),
            row_groups: Vec::new(),
            footer: None,
        }
    }

    /// Reading the memory of a process at address 0 fails with `EIO`.
    #[test]
    fn a_file_that_the_disk_does_not_return_is_not_linked() {
        let store = Store::at(Path::new("/proc/self"));
        let lost = entry("mem");
        let error = store.sound_file(&lost).expect_err("no memory there");
        assert!(is_lost(&error), "{error}");

        let linked = store.link_to_one_of(&[&lost], &entry("status"));
        assert!(!linked.expect("no error"));
    }
}
