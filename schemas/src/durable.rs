//! Creates folders and files so that they survive a power failure.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Folders whose entries this process has made durable.
static DURABLE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Creates a folder and its parent folders, and makes the entry of each folder durable.
///
/// A folder that exists may have been created by a process that was killed before it made the entry durable. Therefore
/// the entry of each folder is synced once by each process.
///
/// # Errors
/// The I/O error of the file system.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    let is_there = folder.is_dir();
    let is_durable = || lock().contains(folder);
    if is_there && is_durable() {
        return Ok(());
    }

    let parent = folder_of(folder);
    // The root of the file system and the current folder have no entry here.
    if parent == folder || folder.parent().is_none() {
        return Ok(());
    }
    make_folder(parent)?;
    if is_there {
        // A parent that belongs to somebody else may be unreadable, and then its entries are not ours to sync.
        let _ = sync_folder(parent);
    } else {
        match fs::create_dir(folder) {
            // Another process may have created the folder in the meantime. Its entry is made durable all the same.
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => sync_folder(parent)?,
        }
    }
    lock().insert(folder.to_owned());
    Ok(())
}

fn lock() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    DURABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the folder that contains a file.
pub fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Makes renames and links in `folder` durable.
///
/// # Errors
/// The I/O error of the file system.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    // Syncing a file does not make its name durable: the name belongs to the folder (fsync(2)).
    File::open(folder)?.sync_all()
}

/// Makes a file durable, or a folder with all that it contains, but not its own name.
///
/// # Errors
/// The I/O error of the file system.
pub fn sync_tree(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            sync_tree(&entry?.path())?;
        }
    }
    sync_folder(path)
}
