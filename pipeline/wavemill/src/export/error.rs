//! Errors of an export.

use std::io;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use wavemill_runtime::progress::Phase;
use wavemill_schemas::exit;
use wavemill_sql::SqlError;
use wavemill_store::StoreError;

/// The error type of an export.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    /// A requested name does not exist in the version, or a required name is missing.
    #[error("{option}: this version has {there}")]
    Name {
        /// The command-line option as typed.
        option: String,
        /// The names that exist in the version.
        there: String,
    },
    /// The export format cannot represent the feature.
    #[error("--format {format}: {problem}")]
    Unfit {
        /// Name of the export format.
        format: &'static str,
        /// The reason why the format is unfit, and a remedy.
        problem: String,
    },
    /// The store returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table of the store cannot be opened.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// The content of a file differs from the committed content.
    #[error(
        "{path}: damaged: its content differs from the committed one; `wavemill verify` names every such file and the remedy"
    )]
    Damaged {
        /// Path of the damaged file.
        path: PathBuf,
    },
    /// A file has the right hash, but cannot be read as a Parquet file of rows.
    #[error("{path}: cannot read its rows")]
    Read {
        /// Path of the unreadable file.
        path: PathBuf,
        /// The error from the Parquet reader.
        source: ParquetError,
    },
    /// The layout of rows differs from docs/store.md.
    #[error("damaged store: {problem}")]
    Rows {
        /// Description of the layout problem.
        problem: String,
    },
    /// A file or folder cannot be accessed.
    #[error("{path}: cannot {action}")]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// The action that failed, such as `create`.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A Parquet file cannot be written.
    #[error("{path}: cannot write it")]
    Write {
        /// Path of the file that cannot be written.
        path: PathBuf,
        /// The error from the Parquet writer.
        source: ParquetError,
    },
    /// The disk has too little free space for the export.
    #[error(
        "--out: about {needed_bytes} bytes are needed and {free_bytes} are free: free some space, or write to another file system"
    )]
    Space {
        /// Size of the feature's values in bytes.
        needed_bytes: u64,
        /// Number of free bytes on the file system.
        free_bytes: u64,
    },
    /// The user stopped the export.
    #[error("interrupted while {phase}; nothing was written")]
    Stopped {
        /// The phase in which the export was stopped.
        phase: Phase,
    },
}

impl ExportError {
    /// Returns the exit code of a command that failed with this error.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Store(error) => error.exit_code(),
            Self::Sql(error) => error.exit_code(),
            Self::Name { .. } | Self::Unfit { .. } => exit::USAGE,
            Self::Damaged { .. } | Self::Read { .. } | Self::Rows { .. } => exit::DAMAGED,
            Self::Space { .. } => exit::NO_SPACE,
            Self::Stopped { .. } => exit::INTERRUPTED,
            Self::Io { .. } | Self::Write { .. } => exit::FAILED,
        }
    }
}

impl ExportError {
    pub(super) fn io_at(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }

    /// Replaces `part`, the temporary folder, by `out` in the error's path, because the user only knows `out`.
    pub(crate) fn about(mut self, part: &Path, out: &Path) -> Self {
        if let Self::Io { path, .. } | Self::Write { path, .. } = &mut self
            && let Ok(below) = path.strip_prefix(part)
        {
            // Joining an empty path would append a slash.
            *path = if below.as_os_str().is_empty() {
                out.to_owned()
            } else {
                out.join(below)
            };
        }
        self
    }

    pub(super) fn read_at(path: &Path) -> impl Fn(ParquetError) -> Self {
        let path = path.to_owned();
        move |source| Self::Read {
            path: path.clone(),
            source,
        }
    }

    pub(super) fn write_at(path: &Path) -> impl FnOnce(ParquetError) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }

    pub(super) fn rows(problem: impl Into<String>) -> Self {
        Self::Rows {
            problem: problem.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_folder_that_was_given() {
        let part = Path::new("/d/.out.part");
        for (path, told) in [
            ("/d/.out.part", "/d/out: cannot create"),
            ("/d/.out.part/test.npy", "/d/out/test.npy: cannot create"),
            ("/store/a.parquet", "/store/a.parquet: cannot create"),
        ] {
            let error = ExportError::io_at(Path::new(path), "create");
            let error = error(io::ErrorKind::PermissionDenied.into());
            assert_eq!(error.about(part, Path::new("/d/out")).to_string(), told);
        }
    }
}
