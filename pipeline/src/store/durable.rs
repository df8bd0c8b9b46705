//! Folders and renames that survive a power cut.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Reports whether an error means that a path does not exist. Every other error, such as EIO or EACCES, means that
/// nobody knows: to take it for absence would lose data silently.
pub(crate) fn leads_nowhere(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Makes a folder and those above it, each entry durable in its parent.
///
/// # Errors
/// The file system's.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    make_folder(parent)?;
    match fs::create_dir(folder) {
        // Another process may have made it just now. Its entry is made durable all the same.
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    sync_folder(parent)
}

/// Makes what was renamed or linked in `folder` durable.
///
/// # Errors
/// The file system's.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    // Syncing a file does not make its name durable: the name belongs to the folder (fsync(2)).
    File::open(folder)?.sync_all()
}
