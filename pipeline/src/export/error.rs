//! Why an export ended without its files.

use std::io;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;

use crate::course::Phase;
use crate::store::StoreError;

/// Why an export ended without its files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    /// A name that the version does not have, or that has to be given.
    #[error("{option}: this version has {there}")]
    Name {
        /// As typed.
        option: String,
        /// What there is.
        there: String,
    },
    /// A feature that the format cannot hold.
    #[error("--format {format}: {problem}")]
    Unfit {
        /// As typed.
        format: &'static str,
        /// Why, and what helps.
        problem: String,
    },
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file that is not what was committed.
    #[error(
        "{path}: damaged: it is not what was committed; `wavemill verify` names every such file and says what helps"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A file that has the right hash, and yet cannot be read as a shard.
    #[error("{path}: cannot read its rows")]
    Read {
        /// The file.
        path: PathBuf,
        /// Parquet's answer.
        source: ParquetError,
    },
    /// Rows that are not what docs/store.md says.
    #[error("damaged store: {problem}")]
    Rows {
        /// What is wrong with them.
        problem: String,
    },
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
    /// A Parquet file cannot be written.
    #[error("{path}: cannot write it")]
    Write {
        /// The file.
        path: PathBuf,
        /// Parquet's answer.
        source: ParquetError,
    },
    /// The disk is too small.
    #[error(
        "--out: about {needed_bytes} bytes are needed and {free_bytes} are free: make room, or write elsewhere"
    )]
    Space {
        /// Of the feature alone.
        needed_bytes: u64,
        /// On its file system.
        free_bytes: u64,
    },
    /// Asked to stop.
    #[error("interrupted while {phase}; nothing was written")]
    Stopped {
        /// What was being done.
        phase: Phase,
    },
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

    /// The same about `out`, where a folder was `part` while it was written: nobody has given that name.
    pub(crate) fn about(mut self, part: &Path, out: &Path) -> Self {
        if let Self::Io { path, .. } | Self::Write { path, .. } = &mut self
            && let Ok(below) = path.strip_prefix(part)
        {
            // Joined to nothing, a path would get a slash.
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
