//! Creates folders and renames files so that they survive a power failure.

use std::path::{Path, PathBuf};

use wavemill_schemas::durable::random_token;
pub use wavemill_schemas::durable::{folder_of, make_folder, settle_folder, sync_folder};
pub use wavemill_versions::leads_nowhere;

/// Returns a new temporary name for a file that will be renamed to `path`. Processes that write the same file at the same
/// time, on one machine or on several, use different names, so that neither renames the other's unfinished file. If the
/// process is killed, a later run removes the temporary file ([`is_temporary`]).
pub(crate) fn temporary_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let token = random_token();
    // Readers skip names that start with a dot.
    path.with_file_name(format!(".{name}.{token:016x}.tmp"))
}

/// Reports whether a path has a name made by [`temporary_beside`].
pub(crate) fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') && name.ends_with(".tmp")
}
