//! Files of an export, whose errors name them.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::error::ExportError;

/// Bytes that go to the system at once.
const BUFFER_BYTES: usize = 1 << 20;

/// A file that is written from its start to its end.
pub(super) struct OutFile {
    path: PathBuf,
    inner: BufWriter<File>,
}

impl OutFile {
    /// A new file.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub(super) fn create(path: &Path) -> Result<Self, ExportError> {
        // Two rows never share a name; if they did, one of them would be lost without a word.
        let file = File::create_new(path).map_err(ExportError::io_at(path, "create"))?;
        Ok(Self {
            path: path.to_owned(),
            inner: BufWriter::with_capacity(BUFFER_BYTES, file),
        })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.inner
            .write_all(bytes)
            .map_err(ExportError::io_at(&self.path, "write"))
    }

    /// Ends the file: only now it is known that the disk took it all.
    ///
    /// # Errors
    /// [`ExportError::Io`].
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

impl Seek for OutFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
