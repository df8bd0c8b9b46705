//! Which version of a store a query reads.

use std::path::Path;

use wavemill_schemas::manifest::Manifest;

use super::SqlError;

/// The manifest of version `wanted` of the store at `store`, or of its latest.
///
/// # Errors
/// [`SqlError::NoStore`], [`SqlError::NoVersion`], [`SqlError::UnknownVersion`], [`SqlError::Manifest`].
pub fn manifest(store: &Path, wanted: Option<u32>) -> Result<Manifest, SqlError> {
    let folder = store.join("_wavemill/versions");
    let names = std::fs::read_dir(&folder).map_err(|_| SqlError::NoStore { path: store.to_owned() })?;
    let mut exist: Vec<u32> =
        names.flatten().filter_map(|name| name.file_name().to_str()?.strip_suffix(".json")?.parse().ok()).collect();
    exist.sort_unstable();
    let Some(&latest) = exist.last() else { return Err(SqlError::NoVersion { path: store.to_owned() }) };
    let version = wanted.unwrap_or(latest);
    if !exist.contains(&version) {
        return Err(SqlError::UnknownVersion { wanted: version, exist });
    }
    let path = folder.join(format!("{version:08}.json"));
    let text = std::fs::read_to_string(&path)
        .map_err(|error| SqlError::Manifest { path: path.clone(), detail: error.to_string() })?;
    Manifest::from_json(&text).map_err(|error| SqlError::Manifest { path, detail: error.to_string() })
}
