//! Versions of a store, and what differs between them.

use std::path::PathBuf;

use pyo3::prelude::*;
use wavemill::cli::store::{diff_json, versions_json};
use wavemill_loader::Store;
use wavemill_schemas::exit::Kind;
use wavemill_schemas::version_name::VersionName;

use crate::{dataset, errors};

/// Returns the number of the version with this number or tag, or of `latest`.
#[pyfunction]
pub(crate) fn resolve_version(py: Python<'_>, root: PathBuf, version: &str) -> PyResult<u64> {
    let name = parsed(py, "version", version)?;
    let opened = py.detach(|| Store::open(&root, Some(&name)));
    match opened {
        Ok(store) => Ok(store.version()),
        Err(error) => Err(dataset::exception(py, &error)),
    }
}

/// Returns the number of bytes that the process has read from object stores, and the seconds that it waited for them.
#[pyfunction]
pub(crate) fn traffic() -> (u64, f64) {
    let traffic = wavemill_loader::traffic();
    (traffic.bytes, traffic.waited.as_secs_f64())
}

/// Returns the manifest of a version as JSON.
#[pyfunction]
pub(crate) fn manifest(py: Python<'_>, root: PathBuf, version: u64) -> PyResult<String> {
    let opened = py.detach(|| Store::open(&root, Some(&VersionName::Number(version))));
    let store = opened.map_err(|error| dataset::exception(py, &error))?;
    let json = store.manifest().to_json();
    json.map_err(|error| errors::exception(py, Kind::Failed.exit_code(), &error))
}

/// Returns the versions of a store as JSON.
#[pyfunction]
pub(crate) fn versions(py: Python<'_>, root: PathBuf) -> PyResult<String> {
    let listed = py.detach(|| versions_json(&root));
    listed.map_err(|error| errors::of_command(py, &error))
}

/// Returns the differences between two versions as JSON, with all tracks if `rows` is set.
#[pyfunction]
pub(crate) fn diff(
    py: Python<'_>,
    root: PathBuf,
    first: &str,
    second: &str,
    rows: bool,
) -> PyResult<String> {
    let from = parsed(py, "first", first)?;
    let to = parsed(py, "second", second)?;
    let compared = py.detach(|| diff_json(&root, from, to, rows));
    compared.map_err(|error| errors::of_command(py, &error))
}

/// Returns the number or tag of a version that an argument gives.
pub(crate) fn parsed(py: Python<'_>, argument: &str, name: &str) -> PyResult<VersionName> {
    name.parse()
        .map_err(|error| errors::usage(py, &format!("{argument}: {error}")))
}
