//! Errors of an export.

use std::error::Error;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use wavemill_schemas::exit::{Classified, Kind, PlainError};
use wavemill_sql::SqlError;
use wavemill_store::StoreError;

/// The error type of an export.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    /// The store returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table of the store cannot be opened.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// A file or folder cannot be accessed.
    #[error("{path}: cannot {action}")]
    Io {
        path: PathBuf,
        action: &'static str,
        source: Box<dyn Error + Send + Sync>,
    },
    /// The version or its rows do not fit the export, a file is damaged, the disk is too small, or the user stopped the
    /// export.
    #[error(transparent)]
    Other(#[from] PlainError),
}

impl Classified for ExportError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Sql(error) => error.kind(),
            Self::Io { .. } => Kind::Failed,
            Self::Other(error) => error.kind(),
        }
    }
}

impl ExportError {
    /// Returns a function that adds the path and the failed action, such as `create`, to an error of the system or of the
    /// writer of a format.
    pub(super) fn io_at<E: Into<Box<dyn Error + Send + Sync>>>(
        path: &Path,
        action: &'static str,
    ) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            path,
            action,
            source: source.into(),
        }
    }

    /// Replaces `part`, the temporary folder, by `out` in the error's path, because the user only knows `out`.
    pub(crate) fn about(mut self, part: &Path, out: &Path) -> Self {
        if let Self::Io { path, .. } = &mut self
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

    /// Creates the error for an option, as typed, whose name is missing or does not exist in the version.
    pub(super) fn name(option: &str, there: &str) -> Self {
        PlainError::usage(format!("{option}: this version has {there}")).into()
    }

    /// Creates the error for a format that cannot represent the feature, with a remedy.
    pub(super) fn unfit(format: &str, problem: impl Display) -> Self {
        PlainError::usage(format!("--format {format}: {problem}")).into()
    }

    /// Creates the error for a file whose content differs from the committed content.
    pub(crate) fn damaged(path: &Path) -> Self {
        let message = format!(
            "{}: damaged: its content differs from the committed one; `wavemill verify` names every such file and the remedy",
            path.display()
        );
        PlainError::new(Kind::Damaged, message).into()
    }

    /// Returns a function that creates the error for a file that has the right hash, but cannot be read as a Parquet file
    /// of rows.
    pub(super) fn read_at(path: &Path) -> impl Fn(ParquetError) -> Self {
        let message = format!("{}: cannot read its rows", path.display());
        move |source| {
            let error = PlainError::new(Kind::Damaged, &*message);
            error.caused_by(source).into()
        }
    }

    /// Creates the error for rows whose layout differs from docs/store-format.md.
    pub(super) fn rows(problem: impl Display) -> Self {
        PlainError::new(Kind::Damaged, format!("damaged store: {problem}")).into()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

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
            let error = error(io::Error::from(io::ErrorKind::PermissionDenied));
            assert_eq!(error.about(part, Path::new("/d/out")).to_string(), told);
        }
    }
}
