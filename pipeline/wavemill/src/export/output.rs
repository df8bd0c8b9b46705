//! Output files of an export, whose errors contain their path.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::error::ExportError;

/// Size of the write buffer in bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes `bytes` to a new file.
///
/// # Errors
/// [`ExportError::Io`] if the file exists or cannot be written.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let mut file = OutFile::create(path)?;
    file.put(bytes)?;
    file.finish()
}

/// An output file that is written sequentially.
pub(super) struct OutFile {
    path: PathBuf,
    inner: BufWriter<File>,
}

impl OutFile {
    /// Creates an output file, which must not exist yet.
    ///
    /// # Errors
    /// [`ExportError::Io`] if the file exists or cannot be created.
    pub(super) fn create(path: &Path) -> Result<Self, ExportError> {
        // Files of rows have distinct names; if two were equal, an existing file must not be overwritten silently.
        let file = File::create_new(path).map_err(ExportError::io_at(path, "create"))?;
        Ok(Self {
            path: path.to_owned(),
            inner: BufWriter::with_capacity(BUFFER_BYTES, file),
        })
    }

    /// Appends bytes to the file.
    ///
    /// # Errors
    /// [`ExportError::Io`] if the bytes cannot be written.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.inner
            .write_all(bytes)
            .map_err(ExportError::io_at(&self.path, "write"))
    }

    /// Flushes the file. Only then is it known that all bytes could be written.
    ///
    /// # Errors
    /// [`ExportError::Io`] if the buffered bytes cannot be written.
    pub(super) fn finish(mut self) -> Result<(), ExportError> {
        self.inner
            .flush()
            .map_err(ExportError::io_at(&self.path, "write"))
    }
}

impl Write for OutFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.inner.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
