//! Errors of commands, and the exit code of each error.

use anyhow::Error;
use wavemill_catalog::CatalogError;
use wavemill_extract::features::FeatureError;
use wavemill_extract::run::RunError;
use wavemill_schemas::exit;
use wavemill_schemas::experiment::ExperimentError;
use wavemill_schemas::recipe::RecipeError;
use wavemill_scores::records::RecordError;
use wavemill_sql::SqlError;
use wavemill_store::StoreError;
use wavemill_terminal::exit::{self as terminal, code_of};

use crate::export::ExportError;
use crate::report::ReportError;

/// Error for a failure that another program has already reported on stderr.
#[derive(Debug, thiserror::Error)]
#[error("see the messages above")]
pub struct ChildFailure {
    /// Exit code of the program that failed.
    pub code: u8,
}

/// Error of a command that ended in order after a signal; contains the message.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Interrupted(pub String);

/// Error for a store whose files differ from its manifest.
#[derive(Debug, thiserror::Error)]
#[error("{files} damaged {word}: restore them from a copy, {}", self.remedy(), word = if *files == 1 { "file" } else { "files" })]
pub struct DamagedStore {
    /// Number of damaged files in the version.
    pub files: usize,
    /// Number of versions after the damaged version.
    pub later: usize,
    /// Tags of the damaged version, which protect it from `gc`.
    pub tags: Vec<String>,
}

impl DamagedStore {
    fn kept_by(&self) -> String {
        if self.tags.is_empty() {
            return String::new();
        }
        format!(" (remove its tags first: {})", self.tags.join(", "))
    }

    /// Returns a remedy besides restoring files from a copy. Only the latest version can be replaced by a new one.
    fn remedy(&self) -> String {
        match self.later {
            0 => "or extract again with --new-version".to_owned(),
            n => format!(
                "or use the latest version if `wavemill verify` finds it intact, and remove this one with `wavemill gc --keep {n}`{}",
                self.kept_by()
            ),
        }
    }
}

/// Returns the documented exit code of a command's error.
pub fn code(error: &Error) -> u8 {
    terminal::code(error, known)
}

/// Returns the exit code of a single cause of an error, or `None` if the type of the cause has none.
fn known(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if cause.is::<RecipeError>() || cause.is::<ExperimentError>() {
        return Some(exit::USAGE);
    }
    if cause.is::<DamagedStore>() {
        return Some(exit::DAMAGED);
    }
    if cause.is::<Interrupted>() {
        return Some(exit::INTERRUPTED);
    }
    code_of(cause, |error: &ChildFailure| error.code)
        .or_else(|| code_of(cause, SqlError::exit_code))
        .or_else(|| code_of(cause, ExportError::exit_code))
        .or_else(|| code_of(cause, ReportError::exit_code))
        .or_else(|| code_of(cause, StoreError::exit_code))
        .or_else(|| code_of(cause, FeatureError::exit_code))
        .or_else(|| code_of(cause, CatalogError::exit_code))
        .or_else(|| code_of(cause, RunError::exit_code))
        .or_else(|| code_of(cause, RecordError::exit_code))
}
