//! Creates folders and files so that they survive a power failure: a file is written under a temporary name, synced and
//! renamed, and its folder is synced.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Folders whose entries this process has made durable, by their absolute paths.
static DURABLE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Creates a folder and its parent folders, and makes the entry of each folder durable.
///
/// A folder that exists may have been created by a process that was killed before it made the entry durable. Therefore
/// the entry of each folder is synced once by each process.
///
/// # Errors
/// The I/O error of the file system.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    make_absolute(&std::path::absolute(folder)?)
}

fn make_absolute(folder: &Path) -> io::Result<()> {
    let is_there = folder.is_dir();
    if is_there && lock().contains(folder) {
        return Ok(());
    }

    // The root of the file system has no entry.
    let Some(parent) = folder.parent() else {
        return Ok(());
    };
    make_absolute(parent)?;
    if is_there {
        settle_folder(parent)?;
    } else {
        match fs::create_dir(folder) {
            // Another process may have created the folder in the meantime. Its entry is made durable all the same.
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists || !folder.is_dir() => {
                return Err(e);
            }
            _ => sync_folder(parent)?,
        }
    }
    lock().insert(folder.to_owned());
    Ok(())
}

fn lock() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    DURABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The temporary path of a file that gets its final name when it is complete. Dropping the value removes the file at
/// this path, if there still is one.
#[derive(Debug)]
pub struct TemporaryPath(PathBuf);

impl TemporaryPath {
    /// Creates the guard of a file that is about to be created.
    pub const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Writes the whole file and syncs it.
    ///
    /// # Errors
    /// The I/O error of the file system.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(&self.0)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Renames the file, which must be synced, to `path`, and makes the rename durable.
    ///
    /// # Errors
    /// The I/O error of the file system.
    pub fn persist(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.0, path)?;
        // Renaming one link of a file onto another link of the same file does nothing and leaves both.
        drop(self);
        sync_folder(folder_of(path))
    }
}

impl Deref for TemporaryPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryPath {
    fn drop(&mut self) {
        // After a rename there is no such file. After an error, that error is the one to report.
        let _ = fs::remove_file(&self.0);
    }
}

/// Returns a random number for the name of a temporary file. Processes, also on several machines or with the same id in
/// containers, get different ones.
pub fn random_token() -> u64 {
    // Each `RandomState` has other keys, which come from the operating system's random numbers.
    RandomState::new().hash_one(())
}

/// Returns the result of an operation on a path, or `None` if the path does not exist.
///
/// # Errors
/// Every other error of the operation.
pub fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
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

/// Makes renames and links durable in a folder that may belong to somebody else, or that its file system cannot sync.
///
/// # Errors
/// The I/O error of the file system, unless it refuses to open or to sync the folder.
pub fn settle_folder(folder: &Path) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    match sync_folder(folder) {
        Err(error)
            if matches!(
                error.kind(),
                InvalidInput | PermissionDenied | ReadOnlyFilesystem | Unsupported
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// Makes a file durable, or a folder with all that it contains, but not its own name. Links are not followed.
///
/// # Errors
/// The I/O error of the file system.
pub fn sync_tree(path: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_symlink() {
        return Ok(());
    }
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            sync_tree(&entry?.path())?;
        }
    }
    sync_folder(path)
}
