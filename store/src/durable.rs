//! Creates folders and renames files so that they survive a power failure.

use std::fs::{self, File};
use std::io;
use std::path::Path;

pub use wavemill_versions::leads_nowhere;

/// Creates a folder and its parent folders, and makes the entry of each folder durable.
///
/// # Errors
/// The I/O error of the file system.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    make_folder(parent)?;
    match fs::create_dir(folder) {
        // Another process may have created the folder in the meantime. Its entry is made durable all the same.
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    sync_folder(parent)
}

/// Makes renames and links in `folder` durable.
///
/// # Errors
/// The I/O error of the file system.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    // Syncing a file does not make its name durable: the name belongs to the folder (fsync(2)).
    File::open(folder)?.sync_all()
}
