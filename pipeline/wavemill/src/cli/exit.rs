//! Errors of commands, and the exit code of each error.

use anyhow::Error;
use wavemill_catalog::CatalogError;
use wavemill_extract::error::ExtractError;
use wavemill_schemas::run::RunFilesError;
use wavemill_sql::SqlError;
use wavemill_store::StoreError;
use wavemill_terminal::exit::{self, KindOf, kind_as};

use crate::export::ExportError;

/// Error for a failure that was already reported on stderr, such as by another program.
#[derive(Debug, thiserror::Error)]
#[error("see the messages above")]
pub struct ChildFailure {
    /// Exit code of what failed.
    pub code: u8,
}

/// Error types of the crates that this program uses.
const ERROR_TYPES: &[KindOf] = &[
    kind_as::<CatalogError>,
    kind_as::<ExportError>,
    kind_as::<ExtractError>,
    kind_as::<RunFilesError>,
    kind_as::<SqlError>,
    kind_as::<StoreError>,
];

/// Returns the documented exit code of a command's error.
pub fn code(error: &Error) -> u8 {
    match error.downcast_ref::<ChildFailure>() {
        Some(failure) => failure.code,
        None => exit::kind(error, ERROR_TYPES).exit_code(),
    }
}
