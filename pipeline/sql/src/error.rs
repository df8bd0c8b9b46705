//! The error type of queries. Each error contains a remedy, and a kind, from which the exit code follows.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::{env, iter};

use arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use datafusion::common::utils::datafusion_strsim::levenshtein;
use datafusion::object_store;
use parquet::errors::ParquetError;
use wavemill_catalog::CatalogError;
use wavemill_runtime::panics::Panic;
use wavemill_schemas::exit::{self, Classified, Kind};
use wavemill_store::StoreError;

use super::mistakes::UnknownColumn;

/// The error type of a query. Its message is one line: the problem, the place, and the remedy.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the fields
pub enum SqlError {
    /// A statement, a command or an argument is wrong, beyond a limit, or not permitted.
    #[error("{0}")]
    Usage(String),
    /// A text is compared with numbers, and is not one itself.
    #[error("{problem}: compare numbers with numbers, or convert texts with TRY_CAST(x AS INT)")]
    NotANumber { text: String, problem: String },
    /// A file differs from the manifest.
    #[error("the store is damaged: {}: {detail}; `wavemill verify` lists every damaged file", path.display())]
    Damaged { path: PathBuf, detail: String },
    /// The content of a file cannot be read, and the reader does not name the file.
    #[error("a file of the store is damaged ({0}); `wavemill verify` reports which")]
    Unreadable(String),
    /// Another version that a query names (`tracks@3`) cannot be read.
    #[error(transparent)]
    OtherVersion(#[from] StoreError),
    /// A bug in wavemill, or in a library while it read intact bytes.
    #[error(transparent)]
    Panicked(#[from] Panic),
    /// The query exceeds `--memory-limit`.
    #[error(
        "the query exceeds --memory-limit ({0}): raise it, or exclude the tensors from sorts and joins"
    )]
    Memory(String),
    /// The query was interrupted by the user.
    #[error("interrupted")]
    Interrupted,
    /// The results of a query, the files of a COPY, or the temporary files of a query cannot be written.
    #[error("cannot write the result: {0}")]
    Output(#[from] std::io::Error),
    /// The terminal of the interactive prompt failed.
    #[error("the prompt failed: {0}")]
    Prompt(String),
    /// Any other failure of a running query.
    #[error("the query failed: {0}")]
    Failed(String),
}

impl Classified for SqlError {
    fn kind(&self) -> Kind {
        match self {
            Self::Usage(_) | Self::NotANumber { .. } => Kind::Usage,
            Self::Damaged { .. } | Self::Unreadable(_) => Kind::Damaged,
            Self::OtherVersion(error) => error.kind(),
            Self::Interrupted => Kind::Interrupted,

            Self::Output(error) if exit::is_no_space(error) => Kind::NoSpace,

            Self::Memory(_)
            | Self::Output(_)
            | Self::Prompt(_)
            | Self::Failed(_)
            | Self::Panicked(_) => Kind::Failed,
        }
    }
}

impl SqlError {
    /// Returns the error for a name that is not that of a `kind` such as `table`.
    pub(super) fn unknown(kind: &str, name: &str, remedy: Option<String>) -> Self {
        let usual = "at the prompt, \\d lists tables and \\d TABLE columns";
        let remedy = remedy.unwrap_or_else(|| usual.to_owned());
        Self::Usage(format!("no {kind} '{name}'; {remedy}"))
    }

    /// Returns the remedy for a wrong name if there are names `near` it.
    pub(super) fn did_you_mean(near: &[String]) -> Option<String> {
        (!near.is_empty()).then(|| format!("did you mean {}?", near.join(" or ")))
    }

    /// Returns the error for a file of the store that the machine fails to read.
    pub(super) fn unread(path: &Path, error: &io::Error) -> Self {
        Self::Failed(format!("cannot read {}: {error}", path.display()))
    }

    /// Reports whether the program that reads the output has closed the pipe (`| head`), which is not a failure.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == ErrorKind::BrokenPipe)
    }
}

impl From<CatalogError> for SqlError {
    /// Converts the error for a statement that is refused: no other errors of the catalog occur in queries.
    fn from(error: CatalogError) -> Self {
        Self::Usage(one_line(&error.to_string()))
    }
}

impl From<SqlError> for DataFusionError {
    fn from(error: SqlError) -> Self {
        Self::External(Box::new(error))
    }
}

impl From<DataFusionError> for SqlError {
    fn from(error: DataFusionError) -> Self {
        if let Some(full) = no_space(&error) {
            return Self::Output(full);
        }
        if let Some(unknown) = UnknownColumn::of(&error) {
            return unknown.error(unknown.near());
        }
        match root(error) {
            // An error of this crate that passed through DataFusion.
            DataFusionError::External(error) => match error.downcast::<Self>() {
                Ok(own) => *own,
                Err(other) => Self::Failed(one_line(&other.to_string())),
            },

            // Errors of the statement.
            DataFusionError::SchemaError(error, _) => Self::Usage(one_line(&error.to_string())),
            DataFusionError::SQL(error, _) => Self::Usage(one_line(&error.to_string())),
            error @ (DataFusionError::Plan(_)
            | DataFusionError::NotImplemented(_)
            | DataFusionError::Configuration(_)) => {
                let message = one_line(&error.message());
                // DataFusion adds this context once per column of the table.
                let message = message.replace("While expanding wildcard, ", "");
                Self::Usage(tensor_hint(&message).unwrap_or(message))
            }

            // Errors of the data and of the machine.
            DataFusionError::ParquetError(error) => Self::Unreadable(one_line(&error.to_string())),
            DataFusionError::ObjectStore(error) => from_object_store(*error),
            DataFusionError::ArrowError(error, _) => match *error {
                // Not an error of the output, which DataFusion does not write.
                ArrowError::IoError(detail, _) => Self::Failed(one_line(&detail)),
                error => Self::from(error),
            },
            DataFusionError::ResourcesExhausted(detail) => Self::Memory(one_line(&detail)),
            DataFusionError::IoError(error) => Self::Failed(error.to_string()),
            other => Self::Failed(one_line(&other.message())),
        }
    }
}

impl From<ArrowError> for SqlError {
    fn from(error: ArrowError) -> Self {
        match error {
            ArrowError::ParquetError(detail) => Self::Unreadable(one_line(&detail)),
            ArrowError::IoError(_, error) => Self::Output(error),
            ArrowError::ExternalError(error) => match error.downcast::<DataFusionError>() {
                Ok(inner) => Self::from(*inner),
                Err(other) => Self::Failed(one_line(&other.to_string())),
            },
            ArrowError::CastError(detail) => match cast_text(&detail) {
                Some(text) => Self::NotANumber {
                    text: text.to_owned(),
                    problem: one_line(&detail),
                },
                None => Self::Failed(one_line(&detail)),
            },
            other => Self::Failed(one_line(&other.to_string())),
        }
    }
}

/// Returns the error of a query or a COPY that cannot write, because a disk is full or read-only. It has a text of its
/// own, by which it differs from an error of the output.
fn no_space(error: &DataFusionError) -> Option<io::Error> {
    let first: &(dyn Error + 'static) = error;
    let causes: Vec<_> = iter::successors(Some(first), |&cause| cause.source()).collect();
    if causes.iter().any(|cause| cause.is::<SqlError>()) {
        return None;
    }

    let root = error.find_root();
    let text = one_line(&root.message());
    // DataFusion keeps only the texts of some errors of COPY.
    let is_full = causes.into_iter().any(exit::is_no_space)
        || os_error(&text).is_some_and(|error| exit::is_no_space(&error));
    if !is_full {
        return None;
    }

    let io_error = match root {
        DataFusionError::IoError(error) => Some(error),
        DataFusionError::ArrowError(error, _) => match error.as_ref() {
            ArrowError::IoError(_, error) => Some(error),
            _ => None,
        },
        _ => None,
    };
    // COPY and INSERT write to an object store, and nothing else does.
    let is_stored = |error: &io::Error| {
        let inner = error.get_ref();
        inner.is_some_and(|inner| inner.is::<object_store::Error>())
    };
    let detail = match io_error {
        Some(error) if !is_stored(error) => format!(
            "rows beyond --memory-limit go to the temporary folder {}: {text}",
            env::temp_dir().display()
        ),
        _ => format!("the files of COPY or INSERT: {text}"),
    };
    Some(io::Error::new(ErrorKind::StorageFull, detail))
}

/// Returns the error of the operating system with which a text ends, such as `… (os error 28)`.
fn os_error(text: &str) -> Option<io::Error> {
    let (_, code) = text.strip_suffix(')')?.rsplit_once("(os error ")?;
    code.parse().ok().map(io::Error::from_raw_os_error)
}

/// Explains why a function does not accept tensors, which are binary values to DataFusion. Returns `None` for other
/// messages.
fn tensor_hint(message: &str) -> Option<String> {
    // DataFusion has two wordings of the error that a function does not accept its arguments.
    let (_, rest) = message
        .split_once("argument types '")
        .or_else(|| message.split_once("to satisfy a call to '"))?;
    let function = rest.split(['(', '\'']).next()?;
    // The functions of wavemill take tensors, and say themselves how many.
    if function.starts_with("tensor") || function == "cosine_similarity" {
        return None;
    }
    let is_binary =
        message.contains("FixedSizeBinary(") || message.contains(&format!("'{function}(Binary)"));

    is_binary.then(|| {
        format!(
            "{function} does not take tensors: {function}(tensor_mean(x)) is over one number a row, tensor_avg(x) the mean \
             of each value over rows, tensor_mean(x, axis) of each band"
        )
    })
}

/// Returns the text that is not a whole number, from the detail of an error of casts.
fn cast_text(detail: &str) -> Option<&str> {
    let (text, _) = detail
        .strip_prefix("Cannot cast string '")?
        .split_once("' to value of Int")?;
    Some(text)
}

/// Removes the layers of an error that only add context.
fn root(error: DataFusionError) -> DataFusionError {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => root(*inner),
        // Only the first of several errors is reported.
        DataFusionError::Collection(mut errors) if !errors.is_empty() => {
            root(errors.swap_remove(0))
        }
        DataFusionError::Shared(inner) => match std::sync::Arc::try_unwrap(inner) {
            Ok(inner) => root(inner),
            Err(shared) => same_kind(shared.find_root()),
        },
        other => other,
    }
}

/// Copies an error that has other owners. Keeps its kind, which determines the exit code.
fn same_kind(error: &DataFusionError) -> DataFusionError {
    match error {
        DataFusionError::ResourcesExhausted(detail) => {
            DataFusionError::ResourcesExhausted(detail.clone())
        }
        DataFusionError::ParquetError(_) | DataFusionError::ObjectStore(_) => {
            DataFusionError::ParquetError(Box::new(ParquetError::General(error.to_string())))
        }
        DataFusionError::External(inner)
            if let Some(SqlError::Usage(refused)) = inner.downcast_ref() =>
        {
            SqlError::Usage(refused.clone()).into()
        }
        other => DataFusionError::Execution(other.to_string()),
    }
}

fn from_object_store(error: object_store::Error) -> SqlError {
    match error {
        object_store::Error::NotFound { path, .. } => SqlError::Damaged {
            path: PathBuf::from(path),
            detail: "the file is missing".to_owned(),
        },
        other => SqlError::Unreadable(one_line(&other.to_string())),
    }
}

/// Returns up to three of `names` that `wanted` may have meant, nearest first: names within a few edits, or names that
/// contain it.
pub(super) fn nearest(wanted: &str, names: &[&str]) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    // Allow more edits in a longer word. A short word with as many edits would match any other word.
    let edits_max = 1 + wanted.chars().count() / 4;

    let mut near: Vec<(usize, &str)> = Vec::new();
    for &name in names {
        let lower = name.to_lowercase();
        let mut edits = levenshtein(&wanted, &lower);
        // `title` matches `track_title`, regardless of the number of missing letters.
        if wanted.len() > 2 && lower.contains(&wanted) {
            edits = edits.min(edits_max);
        }
        if edits <= edits_max {
            near.push((edits, name));
        }
    }
    near.sort_unstable();
    near.dedup();

    let nearest = near.into_iter().take(3);
    nearest.map(|(_, name)| name.to_owned()).collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_sorted_by_distance_and_bounded() {
        let names = ["artist_id", "artist_name", "album_id", "track_title"];
        assert_eq!(nearest("artis_name", &names), ["artist_name"]);
        assert_eq!(nearest("ARTIST_ID", &names), ["artist_id"]);
        assert_eq!(nearest("title", &names), ["track_title"]);
        assert_eq!(nearest("hip hop", &["Hip-Hop", "Rock"]), ["Hip-Hop"]);
        assert!(nearest("bpm", &names).is_empty());
    }

    #[test]
    fn kinds_distinguish_usage_and_damage() {
        let page = ParquetError::General("bad page".to_owned());
        let damaged = SqlError::from(DataFusionError::ParquetError(Box::new(page)));
        assert_eq!(damaged.kind(), Kind::Damaged);

        assert_eq!(
            SqlError::from(DataFusionError::Plan("x".into())).kind(),
            Kind::Usage
        );

        let own =
            DataFusionError::External(Box::new(SqlError::Interrupted)).context("while reading");
        assert_eq!(SqlError::from(own).kind(), Kind::Interrupted);
    }

    #[test]
    fn full_disks_have_their_kind_and_name_the_temporary_folder() {
        let full = || io::Error::from(ErrorKind::StorageFull);
        let spilled = || DataFusionError::IoError(full());
        let stored = || object_store::Error::Generic {
            store: "LocalFileSystem",
            source: Box::new(full()),
        };
        let arrow = ArrowError::IoError("full".to_owned(), io::Error::other(spilled()));
        let text = "Error writing to object store: No space left on device (os error 28)";
        let parquet = ParquetError::External(Box::new(full()));

        for (error, is_temporary) in [
            (spilled(), true),
            (DataFusionError::ArrowError(Box::new(arrow), None), true),
            (
                DataFusionError::Shared(std::sync::Arc::new(spilled())),
                true,
            ),
            (DataFusionError::IoError(io::Error::other(stored())), false),
            (DataFusionError::ObjectStore(Box::new(stored())), false),
            (DataFusionError::ParquetError(Box::new(parquet)), false),
            (DataFusionError::Execution(text.to_owned()), false),
        ] {
            let error = SqlError::from(error);
            let names_folder = error.to_string().contains("to the temporary folder /");
            assert_eq!(
                (error.kind(), names_folder),
                (Kind::NoSpace, is_temporary),
                "{error}"
            );
        }

        let other = ArrowError::IoError("cut".to_owned(), ErrorKind::UnexpectedEof.into());
        let other = SqlError::from(DataFusionError::ArrowError(Box::new(other), None));
        assert!(matches!(other, SqlError::Failed(_)), "{other}");
    }

    #[test]
    fn shared_errors_keep_their_kind() {
        let held = std::sync::Arc::new(DataFusionError::ResourcesExhausted("full".to_owned()));
        let error = SqlError::from(DataFusionError::Shared(std::sync::Arc::clone(&held)));
        assert!(matches!(error, SqlError::Memory(_)), "{error}");
    }
}
