//! The error type for reading and writing a feature store.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use crate::remote::RemoteError;
use wavemill_schemas::FORMAT_VERSION;
use wavemill_schemas::exit::{Classified, Kind, PlainError};
use wavemill_schemas::manifest::{ManifestError, remedy_of_format};

/// The error type for reading and writing a feature store.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the fields
pub enum StoreError {
    /// A file system operation failed.
    #[error("{path}: cannot {action}")]
    Io {
        path: PathBuf,
        action: &'static str,
        source: io::Error,
    },
    /// The store, the version or the tag does not exist, or the version's data was removed on purpose.
    #[error("{path}: {problem}")]
    Absent { path: PathBuf, problem: String },
    /// The format of the manifest is not the one that this program reads. The manifest is not damaged.
    #[error(
        "{path}: this store {}: its format version is {found}, and this wavemill reads {FORMAT_VERSION}",
        remedy_of_format(*found)
    )]
    OtherFormat { path: PathBuf, found: u64 },
    /// The tag does not name a version that can be read. `is_content` states whether the bytes of its file are wrong.
    #[error("{path}: {problem}")]
    Tag {
        path: PathBuf,
        problem: String,
        is_content: bool,
    },
    /// A file is missing, differs from the committed file, or is outside of the store.
    #[error("{path}: {problem}")]
    Damaged {
        path: PathBuf,
        problem: String,
        source: Option<ManifestError>,
    },
    /// A table of the latest version, which the next version needs, cannot be read.
    #[error(
        "{path}: lost or damaged, but needed by the new version: restore it from a copy of the store, or assign all \
         splits again with --resplit"
    )]
    Needed {
        path: PathBuf,
        source: Box<dyn Error + Send + Sync>,
    },
    /// Another process holds the store's lock.
    #[error(
        "{path}: another wavemill is writing to this store: wait for it with --wait SECONDS, or stop it"
    )]
    Locked { path: PathBuf },
    /// An object store cannot be read.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// Another plan is in the store, or rows cannot be encoded, written, or read for copying.
    #[error(transparent)]
    Other(#[from] PlainError),
}

impl Classified for StoreError {
    fn kind(&self) -> Kind {
        match self {
            Self::Absent { .. } | Self::OtherFormat { .. } => Kind::Usage,
            // A component of the path is a file instead of a folder.
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotADirectory => Kind::Usage,
            Self::Tag { .. } | Self::Damaged { .. } | Self::Needed { .. } => Kind::Damaged,
            Self::Remote(error) => error.kind(),
            Self::Locked { .. } => Kind::Busy,
            Self::Io { .. } => Kind::Failed,
            Self::Other(error) => error.kind(),
        }
    }
}

impl StoreError {
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
        move |source| PlainError::failed(problem).caused_by(source).into()
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

    /// Creates the error for a version or an unfinished plan in the store that differs from the plan of this run.
    pub fn other_plan(path: &Path, problem: String) -> Self {
        let message = format!("{}: {problem}", path.display());
        PlainError::new(Kind::OtherPlan, message).into()
    }

    /// Creates [`StoreError::Tag`] with the usual remedy.
    pub(crate) fn tag(path: PathBuf, problem: &str, is_content: bool) -> Self {
        Self::Tag {
            path,
            problem: format!(
                "damaged tag: {problem}: set the tag again with `wavemill tag VERSION NAME`, or remove the file"
            ),
            is_content,
        }
    }
}

impl From<serde_json::Error> for StoreError {
    /// JSON files of the store can always be encoded.
    fn from(error: serde_json::Error) -> Self {
        PlainError::failed("store metadata").caused_by(error).into()
    }
}
