//! What can be wrong with a store that is to be trained on, in one line that says where and what to do.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use wavemill_schemas::FORMAT_VERSION;
use wavemill_schemas::manifest::ManifestError;
use wavemill_schemas::version_name::TagProblem;

/// Why rows cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file system refused.
    #[error("{path}: cannot {action}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// No store there.
    #[error(
        "{path}: no store with a committed version here: check --store, or run `wavemill extract`"
    )]
    NoStore {
        /// As given.
        path: PathBuf,
    },
    /// A version that does not exist.
    #[error("{path}: no version {version}; the latest is {latest}")]
    NoVersion {
        /// The store.
        path: PathBuf,
        /// Asked for.
        version: u64,
        /// What exists.
        latest: u64,
    },
    /// A tag that does not exist.
    #[error(
        "{path}: no tag {tag}; {there}: `wavemill info --versions` lists all versions, and `wavemill tag VERSION {tag}` \
         gives one of them this name"
    )]
    NoTag {
        /// The store.
        path: PathBuf,
        /// Asked for.
        tag: String,
        /// What exists, in words.
        there: String,
    },
    /// A tag that names no version that can be read.
    #[error("{path}: damaged tag: {problem}: {}", problem.remedy())]
    Tag {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        problem: TagProblem,
    },
    /// A manifest that cannot be read.
    #[error("{path}: damaged manifest: restore it from a copy of the store")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ManifestError,
    },
    /// A manifest of a later format: no damage.
    #[error(
        "{path}: this store needs a newer wavemill: its format version is {found}, and this one reads up to {FORMAT_VERSION}"
    )]
    Newer {
        /// The manifest.
        path: PathBuf,
        /// What it says.
        found: u64,
    },
    /// A link that leads out of the store.
    #[error(
        "{path}: damaged store: {name} leads out of it by a link: put the files themselves in its place"
    )]
    Outside {
        /// The store.
        path: PathBuf,
        /// Below it.
        name: String,
    },
    /// The configuration names what the store does not have.
    #[error("data.{key} = {found}: the store has {there}")]
    NotThere {
        /// Key below `data`.
        key: &'static str,
        /// As configured.
        found: String,
        /// What would do.
        there: String,
    },
    /// The configuration and the store do not fit.
    #[error("data.{key}: {problem}")]
    Unfit {
        /// Key below `data`.
        key: &'static str,
        /// What is wrong, and what would do.
        problem: String,
    },
    /// A file that is not what its manifest says.
    #[error(
        "{path}: {problem}: `wavemill verify` names every such file, `wavemill extract --new-version` makes them anew"
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// Such as its length.
        problem: String,
    },
    /// A row group whose pages cannot be read.
    #[error(
        "{path}: row group {row_group} is damaged ({problem}): `wavemill verify` names every such file; \
         --skip-damaged goes on without its rows"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// From 0.
        row_group: usize,
        /// What was found.
        problem: String,
    },
    /// A file whose footer, index or small columns cannot be read.
    #[error("{path}: not a readable Parquet file: `wavemill verify` names every such file")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ParquetError,
    },
    /// A column that is missing or of another type.
    #[error("{path}: column {column}: {problem}")]
    Column {
        /// The file.
        path: PathBuf,
        /// Which.
        column: String,
        /// What is wrong.
        problem: String,
    },
    /// A value that is no row of its feature; it came with no file.
    #[error("column {column}, row {row}: {problem}")]
    Row {
        /// The feature's.
        column: String,
        /// From 0 among those given.
        row: usize,
        /// What is wrong.
        problem: String,
    },
    /// A library that lends the memory of rows, or makes tensors of them, refused.
    #[error("{name}")]
    Library {
        /// Such as `libtorch`.
        name: &'static str,
        /// Its words.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A reader thread cannot be had.
    #[error("cannot start a reader thread")]
    Thread {
        /// The system's answer.
        source: io::Error,
    },
    /// A reader thread panicked.
    #[error("a reader thread panicked: {message}")]
    Panic {
        /// Its words.
        message: String,
    },
}

impl DatasetError {
    /// Whether it is about bytes of one file, which `data.skip_damaged` passes over.
    pub const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. } | Self::Changed { .. } | Self::Parquet { .. }
        )
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
