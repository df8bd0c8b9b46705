//! Creates, completes and removes files of a store so that each change survives a power failure.

use std::fs;
use std::io;
use std::path::Path;

use wavemill_reader::leads_nowhere;
use wavemill_schemas::durable::{self, TemporaryPath, folder_of, random_token};

use super::StoreError;

/// Returns a new temporary path for a file that will be renamed to `path`. Processes that write the same file at the
/// same time, on one machine or on several, use different names, so that neither renames the other's unfinished file.
/// If the process is killed, a later run removes the temporary file ([`is_temporary`]).
pub(crate) fn temporary_beside(path: &Path) -> TemporaryPath {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let token = random_token();
    // Readers skip names that start with a dot.
    TemporaryPath::new(path.with_file_name(format!(".{name}.{token:016x}.tmp")))
}

/// Reports whether a path has a name made by [`temporary_beside`].
pub(crate) fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') && name.ends_with(".tmp")
}

/// Writes a small file under a temporary name and renames it: after a crash the file is complete or does not exist.
pub(crate) fn write_renamed(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    rename(&write_beside(path, bytes)?, path)
}

/// Gives a file that is complete and synced its final name.
pub(crate) fn rename(temporary: &TemporaryPath, path: &Path) -> Result<(), StoreError> {
    fs::rename(&**temporary, path).map_err(StoreError::io_at(path, "rename"))?;
    sync_folder(folder_of(path))
}

/// Like [`write_renamed`], but keeps a file that exists already. Returns true if the file is the new one.
pub(crate) fn put_absent(path: &Path, bytes: &[u8]) -> Result<bool, StoreError> {
    link_absent(write_beside(path, bytes)?, path)
}

/// Gives the file `temporary` the name `path`, unless there is such a file. Returns true if `path` is the new file.
pub(crate) fn link_absent(temporary: TemporaryPath, path: &Path) -> Result<bool, StoreError> {
    // A rename would replace the file of another process. A link fails if the name is taken.
    let linked = fs::hard_link(&*temporary, path);
    // If the link was created, the temporary name is only a second name of the file.
    drop(temporary);
    match linked {
        Ok(()) => sync_folder(folder_of(path)).map(|()| true),
        // The process that linked the other file may have been killed before it synced the folder.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            sync_folder(folder_of(path)).map(|()| false)
        }
        Err(e) => Err(StoreError::io_at(path, "commit")(e)),
    }
}

/// Writes a small file durably under a temporary name beside `path`.
pub(crate) fn write_beside(path: &Path, bytes: &[u8]) -> Result<TemporaryPath, StoreError> {
    make_folder(folder_of(path))?;
    let temporary = temporary_beside(path);
    let written = temporary.write(bytes);
    written.map_err(StoreError::io_at(&temporary, "write"))?;
    Ok(temporary)
}

/// Creates a folder and its parent folders durably.
///
/// # Errors
/// [`StoreError::Io`] if a folder cannot be created.
pub fn make_folder(folder: &Path) -> Result<(), StoreError> {
    durable::make_folder(folder).map_err(StoreError::io_at(folder, "create the folder"))
}

/// Makes renames and links in `folder` durable.
///
/// # Errors
/// [`StoreError::Io`] if the folder cannot be synced.
pub fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    durable::sync_folder(folder).map_err(StoreError::io_at(folder, "sync the folder"))
}

/// Makes durable what a killed process did in `folder`, if it exists.
pub(crate) fn settle(folder: &Path) -> Result<(), StoreError> {
    if_there(folder, "sync the folder", durable::settle_folder(folder)).map(drop)
}

/// Makes the removal of `path` durable if its parent folder exists.
pub(crate) fn sync_around(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(path);
    if_there(folder, "sync the folder", durable::sync_folder(folder)).map(drop)
}

/// Removes a file. Returns `None` if it does not exist.
pub(crate) fn remove_file(path: &Path) -> Result<Option<()>, StoreError> {
    if_there(path, "remove", fs::remove_file(path))
}

/// Removes a folder with its contents, if it exists.
pub(crate) fn remove_folder(folder: &Path) -> Result<(), StoreError> {
    let removed = durable::if_there(fs::remove_dir_all(folder));
    let removed = removed.map_err(StoreError::io_at(folder, "remove the folder"));
    removed.map(drop)
}

/// Returns the result of an operation on `path`, or `None` if the path leads nowhere.
pub(crate) fn if_there<T>(
    path: &Path,
    action: &'static str,
    result: io::Result<T>,
) -> Result<Option<T>, StoreError> {
    match result {
        Err(error) if leads_nowhere(&error) => Ok(None),
        result => result.map(Some).map_err(StoreError::io_at(path, action)),
    }
}
