//! Errors of reading a store for training. Each is a single line with the location of the problem and a remedy.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use wavemill_reader::{RemoteError, StoreError};
use wavemill_schemas::exit::{Classified, Kind, PlainError};

/// The error type of this crate.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the fields
pub enum DatasetError {
    /// The version of the store cannot be found or read, or the operating system failed to read a file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The configuration names something that the store does not contain, or does not fit the store. `setting` is the
    /// key below `data`, with its value if the value is the problem.
    #[error("data.{setting}: {problem}")]
    Unfit { setting: String, problem: String },
    /// The bytes of a file differ from the committed bytes, or cannot be decoded.
    #[error("{path}: {problem}")]
    Damaged {
        path: PathBuf,
        problem: String,
        source: Option<ParquetError>,
    },
    /// Any other failure, for example of a library that provides host memory.
    #[error(transparent)]
    Other(#[from] PlainError),
}

impl Classified for DatasetError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(StoreError::Io { .. }) => Kind::Failed,
            Self::Store(error) => error.kind(),
            Self::Unfit { .. } => Kind::Usage,
            Self::Damaged { .. } => Kind::Damaged,
            Self::Other(error) => error.kind(),
        }
    }
}

impl DatasetError {
    /// Reports whether a single file is damaged, which `data.skip_damaged` skips.
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }

    /// Returns a function that adds the path of a file to an error of reading it.
    pub(crate) fn io_at(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let at = StoreError::io_at(path, action);
        move |source| match source.downcast() {
            Ok(error) => Self::of_remote(error),
            Err(source) => at(source).into(),
        }
    }

    /// Creates the error of reading an object store, which names the object.
    pub(crate) fn of_remote(error: RemoteError) -> Self {
        match error {
            RemoteError::Damaged { address, problem } => {
                Self::changed(Path::new(&address), problem)
            }
            error => StoreError::Remote(error).into(),
        }
    }

    /// Returns a function that adds the path of a file to an error of the Parquet reader.
    pub(crate) fn parquet_at<E: Into<ParquetError>>(path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Damaged {
            path,
            problem: "not a readable Parquet file: `wavemill verify` names every such file"
                .to_owned(),
            source: Some(source.into()),
        }
    }

    /// Creates the error for a file that differs from its entry in the manifest.
    pub(crate) fn changed(path: &Path, problem: impl Display) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            problem: format!(
                "{problem}: `wavemill verify` names every such file, `wavemill extract --new-version` makes them anew"
            ),
            source: None,
        }
    }

    /// Creates the error for a row group that cannot be read. Row groups are numbered from 0.
    pub(crate) fn row_group(path: &Path, row_group: usize, problem: impl Display) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            problem: format!(
                "row group {row_group} is damaged ({problem}): `wavemill verify` names every such file; --skip-damaged \
                 goes on without its rows"
            ),
            source: None,
        }
    }

    /// Creates the error for a column of a file that is missing or has another type.
    pub(crate) fn column(path: &Path, column: &str, problem: impl Display) -> Self {
        PlainError::failed(format!("{}: column {column}: {problem}", path.display())).into()
    }

    /// Creates the error for a configuration key below `data` that does not fit the store.
    pub(crate) fn unfit(key: &str, problem: impl Into<String>) -> Self {
        Self::Unfit {
            setting: key.to_owned(),
            problem: problem.into(),
        }
    }

    /// Creates the error for a value of a configuration key below `data` that the store does not contain. `there` are
    /// the valid values.
    pub(crate) fn not_there(key: &str, found: &str, there: &str) -> Self {
        // Other features and targets need another store, while splits and columns come from the same metadata.
        let other = match key {
            "feature" | "targets" => format!(", or extract a store whose recipe has {found}"),
            _ => String::new(),
        };
        let problem = format!("the store has {there}: choose one of these{other}");
        Self::unfit(&format!("{key} = {found}"), problem)
    }
}
