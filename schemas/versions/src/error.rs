//! The error type for reading and writing a feature store.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use wavemill_remote::RemoteError;
use wavemill_schemas::manifest::{ManifestError, remedy_of_format};
use wavemill_schemas::version_name::TagProblem;
use wavemill_schemas::{FORMAT_VERSION, exit};

/// The error type for reading and writing a feature store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file system operation failed.
    #[error("{path}: cannot {action}")]
    Io {
        /// The file or folder that was accessed.
        path: PathBuf,
        /// The failed operation, such as `read`.
        action: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The store, the version or the tag does not exist, or the version's data was removed on purpose.
    #[error("{path}: {problem}")]
    Absent {
        /// The root folder of the store.
        path: PathBuf,
        /// Description of the problem and its remedy.
        problem: String,
    },
    /// The format of the manifest is not the one that this program reads. The manifest is not damaged.
    #[error(
        "{path}: this store {}: its format version is {found}, and this wavemill reads {FORMAT_VERSION}",
        remedy_of_format(*found)
    )]
    OtherFormat {
        /// The path of the manifest.
        path: PathBuf,
        /// The format version of the manifest.
        found: u64,
    },
    /// The tag does not name a version that can be read.
    #[error("{path}: damaged tag: {problem}: {}", problem.remedy())]
    Tag {
        /// The path of the tag's file.
        path: PathBuf,
        /// Description of the problem with the tag.
        problem: TagProblem,
    },
    /// A file is missing, differs from the committed file, or is outside of the store.
    #[error("{path}: {problem}")]
    Damaged {
        /// The path of the file or of the store.
        path: PathBuf,
        /// Description of the problem and its remedy.
        problem: String,
        /// The underlying error, if `problem` does not describe it.
        source: Option<ManifestError>,
    },
    /// A table of the latest version, which the next version needs, cannot be read.
    #[error(
        "{path}: lost or damaged, but needed by the new version: restore it from a copy of the store, or assign all \
         sides again with --resplit"
    )]
    Needed {
        /// The path of the table's file.
        path: PathBuf,
        /// The reason why the table cannot be read.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Rows cannot be encoded, written, or read for copying.
    #[error("{problem}")]
    Rows {
        /// Description of the problem and its location.
        problem: String,
        /// The underlying error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Another process holds the store's lock.
    #[error(
        "{path}: another wavemill is writing to this store: wait for it with --wait SECONDS, or stop it"
    )]
    Locked {
        /// Root folder of the store.
        path: PathBuf,
    },
    /// A version or an unfinished plan in the store differs from the plan of this run.
    #[error("{path}: {problem}")]
    OtherPlan {
        /// Root folder of the store.
        path: PathBuf,
        /// Description of the differences and the remedy.
        problem: String,
    },
    /// An object store cannot be read.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A JSON file of the store cannot be encoded, which does not happen.
    #[error("store metadata")]
    Json(#[from] serde_json::Error),
}

impl StoreError {
    /// Returns the exit code of the command for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Absent { .. } | Self::OtherFormat { .. } => exit::USAGE,
            // A component of the path is a file instead of a folder.
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotADirectory => exit::USAGE,
            Self::Tag { .. } | Self::Damaged { .. } | Self::Needed { .. } => exit::DAMAGED,
            Self::Remote(RemoteError::Address { .. } | RemoteError::CacheLimit { .. }) => {
                exit::USAGE
            }
            Self::Remote(RemoteError::Damaged { .. }) => exit::DAMAGED,
            Self::Remote(RemoteError::Request { .. } | RemoteError::Copy { .. }) => exit::FAILED,
            Self::OtherPlan { .. } => exit::OTHER_PLAN,
            Self::Locked { .. } => exit::BUSY,
            Self::Io { .. } | Self::Rows { .. } | Self::Json(_) => exit::FAILED,
        }
    }

    /// Returns a function that adds the path and the failed operation to an I/O error.
    pub fn io_at(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }

    /// Returns a function that adds a description of the problem to an error of Arrow or Parquet.
    pub fn rows<E: Into<Box<dyn Error + Send + Sync>>>(
        problem: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        let problem = problem.into();
        move |source| Self::Rows {
            problem,
            source: source.into(),
        }
    }

    /// Returns a function that converts an error of parsing the manifest at `path` to [`StoreError::OtherFormat`] or
    /// [`StoreError::Damaged`].
    pub fn manifest_at(path: PathBuf) -> impl FnOnce(ManifestError) -> Self {
        move |source| match source {
            ManifestError::OtherFormat { found } => Self::OtherFormat { path, found },
            source => Self::Damaged {
                path,
                problem: "damaged manifest: restore it from a copy of the store".to_owned(),
                source: Some(source),
            },
        }
    }

    /// Creates [`StoreError::Absent`].
    pub(crate) fn absent(path: &Path, problem: impl Into<String>) -> Self {
        Self::Absent {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }

    /// Creates [`StoreError::Damaged`] without an underlying error.
    pub fn damaged(path: PathBuf, problem: impl Into<String>) -> Self {
        Self::Damaged {
            path,
            problem: problem.into(),
            source: None,
        }
    }

    /// Creates [`StoreError::OtherPlan`].
    pub fn other_plan(path: &Path, problem: String) -> Self {
        Self::OtherPlan {
            path: path.to_owned(),
            problem,
        }
    }
}
