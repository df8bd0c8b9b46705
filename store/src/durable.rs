//! Creates folders and renames files so that they survive a power failure.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

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

/// Returns a new temporary name for a file that will be renamed to `path`. Processes that write the same file at the same
/// time, on one machine or on several, use different names, so that neither renames the other's unfinished file. If the
/// process is killed, a later run removes the temporary file ([`is_temporary`]).
pub(crate) fn temporary_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Each `RandomState` of a process has other keys, which come from the operating system's random numbers.
    let token = RandomState::new().hash_one(());
    // Readers skip names that start with a dot.
    path.with_file_name(format!(".{name}.{token:016x}.tmp"))
}

/// Reports whether a path has a name made by [`temporary_beside`].
pub(crate) fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') && name.ends_with(".tmp")
}
