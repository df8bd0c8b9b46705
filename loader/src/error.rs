//! Errors of reading a store for training, each a single line with the place and the remedy.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use wavemill_schemas::FORMAT_VERSION;
use wavemill_schemas::exit;
use wavemill_schemas::manifest::{ManifestError, remedy_of_format};
use wavemill_schemas::version_name::TagProblem;

/// The error type of this crate.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file system operation failed.
    #[error("{path}: cannot {action}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operation that failed.
        action: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The folder contains no store.
    #[error(
        "{path}: no store with a committed version here: check --store, or run `wavemill extract`"
    )]
    NoStore {
        /// The path as given.
        path: PathBuf,
    },
    /// The version does not exist.
    #[error("{path}: no version {version}; the latest is {latest}")]
    NoVersion {
        /// The store.
        path: PathBuf,
        /// The requested version.
        version: u64,
        /// The latest version.
        latest: u64,
    },
    /// The tag does not exist.
    #[error(
        "{path}: no tag {tag}; {there}: `wavemill info --versions` lists all versions, and `wavemill tag VERSION {tag}` \
         gives one of them this name"
    )]
    NoTag {
        /// The store.
        path: PathBuf,
        /// The requested tag.
        tag: String,
        /// A description of the existing tags.
        there: String,
    },
    /// The tag does not name a readable version.
    #[error("{path}: damaged tag: {problem}: {}", problem.remedy())]
    Tag {
        /// The tag's file.
        path: PathBuf,
        /// The problem with the tag.
        problem: TagProblem,
    },
    /// The manifest cannot be read.
    #[error("{path}: damaged manifest: restore it from a copy of the store")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: ManifestError,
    },
    /// The manifest has another format version than this crate reads; it is not damaged.
    #[error(
        "{path}: this store {}: its format version is {found}, and this wavemill reads {FORMAT_VERSION}",
        remedy_of_format(*found)
    )]
    OtherFormat {
        /// The manifest.
        path: PathBuf,
        /// The format version in the manifest.
        found: u64,
    },
    /// A symbolic link leads out of the store.
    #[error(
        "{path}: damaged store: {name} leads out of it through a symbolic link: replace the link with the files \
         themselves"
    )]
    Outside {
        /// The store.
        path: PathBuf,
        /// The path below the store.
        name: String,
    },
    /// The configuration names something that the store does not contain.
    #[error("data.{key} = {found}: the store has {there}")]
    NotThere {
        /// The key below `data`.
        key: &'static str,
        /// The configured value.
        found: String,
        /// A description of the valid values.
        there: String,
    },
    /// The configuration and the store are incompatible.
    #[error("data.{key}: {problem}")]
    Unfit {
        /// The key below `data`.
        key: &'static str,
        /// The problem and its remedy.
        problem: String,
    },
    /// A file differs from its manifest entry.
    #[error(
        "{path}: {problem}: `wavemill verify` names every such file, `wavemill extract --new-version` makes them anew"
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// The difference, such as the length.
        problem: String,
    },
    /// The pages of a row group cannot be read.
    #[error(
        "{path}: row group {row_group} is damaged ({problem}): `wavemill verify` names every such file; \
         --skip-damaged goes on without its rows"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The index of the row group, starting at 0.
        row_group: usize,
        /// The problem with the row group.
        problem: String,
    },
    /// The footer, index or small columns of a file cannot be read.
    #[error("{path}: not a readable Parquet file: `wavemill verify` names every such file")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: ParquetError,
    },
    /// A column is missing or has another type.
    #[error("{path}: column {column}: {problem}")]
    Column {
        /// The file.
        path: PathBuf,
        /// The name of the column.
        column: String,
        /// The problem with the column.
        problem: String,
    },
    /// A value that came from no file is not a valid row of its feature.
    #[error("column {column}, row {row}: {problem}")]
    Row {
        /// The feature's column.
        column: String,
        /// The index among the rows given, starting at 0.
        row: usize,
        /// The problem with the value.
        problem: String,
    },
    /// A library that provides the memory of rows, or makes tensors of them, failed.
    #[error("{name}")]
    Library {
        /// The library, such as `libtorch`.
        name: &'static str,
        /// The library's error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A reader thread cannot be started.
    #[error("cannot start a reader thread")]
    Thread {
        /// The error of the operating system.
        source: io::Error,
    },
    /// A reader thread panicked.
    #[error("a reader thread panicked: {message}")]
    Panic {
        /// The panic message.
        message: String,
    },
}

impl DatasetError {
    /// Reports whether the error concerns the bytes of one file, which `data.skip_damaged` skips.
    pub const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. } | Self::Changed { .. } | Self::Parquet { .. }
        )
    }

    /// Returns the exit code of a command that ends with this error.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::NotThere { .. }
            | Self::Unfit { .. }
            | Self::NoStore { .. }
            | Self::NoVersion { .. }
            | Self::NoTag { .. }
            | Self::OtherFormat { .. } => exit::USAGE,
            Self::Manifest { .. }
            | Self::Tag { .. }
            | Self::Outside { .. }
            | Self::Damaged { .. }
            | Self::Changed { .. }
            | Self::Parquet { .. } => exit::DAMAGED,
            Self::Io { .. }
            | Self::Column { .. }
            | Self::Row { .. }
            | Self::Library { .. }
            | Self::Thread { .. }
            | Self::Panic { .. } => exit::FAILED,
        }
    }

    pub(crate) fn io_at(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }

    pub(crate) fn parquet_at(path: &Path) -> impl FnOnce(ParquetError) -> Self {
        let path = path.to_owned();
        move |source| Self::Parquet { path, source }
    }

    pub(crate) fn arrow_at(path: &Path) -> impl FnOnce(ArrowError) -> Self {
        let path = path.to_owned();
        move |source| Self::Parquet {
            path,
            source: source.into(),
        }
    }

    pub(crate) fn column(path: &Path, column: &str, problem: impl Into<String>) -> Self {
        Self::Column {
            path: path.to_owned(),
            column: column.to_owned(),
            problem: problem.into(),
        }
    }
}
