//! Errors → one line and an exit code.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Error;
use parquet::errors::ParquetError;
use wavemill_schemas::exit::{self, NO_SPACE};
use wavemill_schemas::experiment::ExperimentError;
use wavemill_schemas::recipe::RecipeError;
use wavemill_schemas::text::shown;

use crate::catalog::CatalogError;
use crate::export::ExportError;
use crate::extract::ExtractError;
use crate::features::FeatureError;
use crate::report::ReportError;
use crate::run::RunError;
use crate::sql::SqlError;
use crate::store::StoreError;

/// The exit code if another process holds the store's lock. 6 is the trainer's.
const BUSY: u8 = 7;

/// The exit code of a preview of a run that has nothing to do.
pub const NOTHING_TO_DO: u8 = 8;

/// A problem with what the user typed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// A failure that another program has told on stderr.
#[derive(Debug, thiserror::Error)]
#[error("the reasons are above")]
pub struct ChildFailure {
    /// Its exit code.
    pub code: u8,
}

/// A signal asked for the end, and the command came to it in order.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Interrupted(pub String);

/// A store whose bytes are not what its manifest says.
#[derive(Debug, thiserror::Error)]
#[error("{files} damaged {word}: restore them from a copy, {}", self.remedy(), word = if *files == 1 { "file" } else { "files" })]
pub struct DamagedStore {
    /// How many files.
    pub files: usize,
    /// Versions after the damaged one.
    pub later: usize,
    /// The damaged one's, which keep it from being collected.
    pub tags: Vec<String>,
}

impl DamagedStore {
    fn kept_by(&self) -> String {
        if self.tags.is_empty() {
            return String::new();
        }
        format!(" (its tags must go first: {})", self.tags.join(", "))
    }

    /// What else helps. A new version is made for a damaged latest one alone.
    fn remedy(&self) -> String {
        match self.later {
            0 => "or extract again with --new-version".to_owned(),
            n => format!(
                "or use the latest version, if `wavemill verify` finds that intact, and drop this one with `wavemill gc --keep {n}`{}",
                self.kept_by()
            ),
        }
    }
}

/// The whole chain on one line, fit for a terminal; a cause that its error already says is left out.
pub fn words(error: &Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        let words: Vec<&str> = text.split_whitespace().collect();
        let words = words.join(" ");
        if line.is_empty() {
            line = words;
        } else if !line.ends_with(&words) {
            line = format!("{line}: {words}");
        }
    }
    shown(&line).into_owned()
}

/// Says why the process ends. Of two threads that end it at once, the first has the word.
pub fn last_line(words: &str) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        eprintln!("wavemill: {words}");
    }
}

/// The documented exit code.
pub fn code(error: &Error) -> u8 {
    // A full disk shows in errors of every kind, so it is looked for before their kinds.
    if error.chain().any(exit::is_no_space) || store_is_closed(error) {
        return NO_SPACE;
    }
    // The outermost cause of a known kind decides. What `context` added has no kind, and is passed over.
    error.chain().find_map(known).unwrap_or(1)
}

fn known(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if cause.is::<UsageError>() || cause.is::<RecipeError>() || cause.is::<ExperimentError>() {
        return Some(2);
    }
    if let Some(ChildFailure { code }) = cause.downcast_ref() {
        return Some(*code);
    }
    if cause.is::<DamagedStore>() {
        return Some(3);
    }
    if cause.is::<Interrupted>() {
        return Some(130);
    }
    if let Some(error) = cause.downcast_ref::<SqlError>() {
        return Some(error.exit_code());
    }
    if let Some(error) = cause.downcast_ref::<ExportError>() {
        return Some(export(error));
    }
    if let Some(error) = cause.downcast_ref::<ReportError>() {
        return Some(report(error));
    }
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return Some(store(error));
    }
    if let Some(error) = cause.downcast_ref::<FeatureError>() {
        return Some(feature(error));
    }
    if let Some(error) = cause.downcast_ref::<CatalogError>() {
        return Some(catalog(error));
    }

    match cause.downcast_ref::<RunError>()? {
        RunError::Store(error) => Some(store(error)),
        RunError::Feature(error) => Some(feature(error)),
        RunError::Catalog(error) => Some(catalog(error)),
        RunError::Extract(error) => extract(error),
        RunError::Source(_) | RunError::Sides(_) | RunError::NoRows { .. } => Some(2),
        RunError::Shrunk { .. } => Some(4),
        RunError::Space(_) => Some(NO_SPACE),
        RunError::Stopped { .. } => Some(130),
        _ => None,
    }
}

fn extract(error: &ExtractError) -> Option<u8> {
    match error {
        ExtractError::Store(error) => Some(store(error)),
        ExtractError::Feature(error) => Some(feature(error)),
        ExtractError::Memory { .. } => Some(2),
        ExtractError::Interrupted { .. } => Some(130),
        _ => None,
    }
}

fn catalog(error: &CatalogError) -> u8 {
    use CatalogError::{DuplicateColumn, Header, HeaderEncoding, NoHeader};
    // A file whose first lines are of another kind is the wrong path.
    let is_other_file = matches!(
        error,
        Header { .. } | HeaderEncoding { .. } | NoHeader { .. } | DuplicateColumn { .. }
    );
    match error {
        CatalogError::Stopped => 130,
        error if error.is_usage() || is_other_file => 2,
        _ => 1,
    }
}

fn store(error: &StoreError) -> u8 {
    match error {
        StoreError::Missing { .. }
        | StoreError::NotAFolder { .. }
        | StoreError::NoVersion { .. }
        | StoreError::NoTag { .. }
        | StoreError::Collected { .. }
        | StoreError::OtherFormat { .. } => 2,
        // A path through a file.
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotADirectory => 2,
        StoreError::Manifest { .. }
        | StoreError::Tag { .. }
        | StoreError::Receipt { .. }
        | StoreError::Outside { .. }
        | StoreError::Needed { .. }
        | StoreError::Lost { .. } => 3,
        StoreError::OtherPlan { .. }
        | StoreError::OtherEngine { .. }
        | StoreError::Raced { .. } => 4,
        StoreError::Locked { .. } => BUSY,
        StoreError::Io { .. } | StoreError::Json(_) => 1,
    }
}

fn export(error: &ExportError) -> u8 {
    match error {
        ExportError::Store(error) => store(error),
        ExportError::Name { .. } | ExportError::Unfit { .. } => 2,
        ExportError::Read { source, .. } if is_failing_disk(source) => 1,
        ExportError::Damaged { .. } | ExportError::Read { .. } | ExportError::Rows { .. } => 3,
        ExportError::Space { .. } => NO_SPACE,
        ExportError::Stopped { .. } => 130,
        ExportError::Io { .. } | ExportError::Write { .. } => 1,
    }
}

fn report(error: &ReportError) -> u8 {
    match error {
        ReportError::Store(error) => store(error),
        ReportError::Sql(error) => error.exit_code(),
        ReportError::Read { source, .. } if is_failing_disk(source) => 1,
        ReportError::Read { .. } => 3,
        ReportError::Answer(_) => 1,
    }
}

/// Whether the store's disk failed, and not its content: that is no damaged store.
fn is_failing_disk(error: &ParquetError) -> bool {
    match error {
        ParquetError::External(cause) => cause.is::<io::Error>(),
        _ => false,
    }
}

const fn feature(error: &FeatureError) -> u8 {
    match error {
        FeatureError::Args { .. }
        | FeatureError::RowBytes { .. }
        | FeatureError::UnboundedSegments { .. }
        | FeatureError::StretchOnDevice => 2,
        _ => 1,
    }
}

/// Writing is what the user may not do: a store without permission is a read-only one.
fn store_is_closed(error: &Error) -> bool {
    let cause = match error.downcast_ref::<StoreError>() {
        Some(error) => error.io(),
        None => match error.downcast_ref::<RunError>() {
            Some(RunError::Store(error) | RunError::Extract(ExtractError::Store(error))) => {
                error.io()
            }
            Some(RunError::Shard(error) | RunError::Extract(ExtractError::Shard(error))) => {
                error.io()
            }
            _ => None,
        },
    };
    cause.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// The reader of our output has gone (`| head`): a quiet end.
pub fn is_broken_pipe(error: &Error) -> bool {
    error.chain().any(exit::is_broken_pipe)
}
