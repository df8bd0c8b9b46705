//! Files that get their name only after they are complete. An incomplete file has a temporary name in the same folder,
//! which never appears in errors because the user did not choose it.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use wavemill_schemas::durable::{TemporaryPath, random_token};

/// A file that is being written under a temporary name. If it is dropped before it is complete, it is removed.
#[derive(Debug)]
pub(crate) struct PartFile {
    file: File,
    place: TemporaryPath,
}

impl PartFile {
    /// Creates a temporary file in the folder of `path`, to be renamed to `path`. The temporary name begins with
    /// `prefix`.
    ///
    /// # Errors
    /// Errors of the file system, without a path, if the file cannot be created.
    pub(crate) fn beside(path: &Path, prefix: &str) -> io::Result<Self> {
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }

        // The file is in the folder of `path`, because a rename cannot cross file systems.
        let place = path.with_file_name(format!("{prefix}{:016x}.part", random_token()));
        Ok(Self {
            file: File::create_new(&place)?,
            place: TemporaryPath::new(place),
        })
    }

    /// Renames the temporary file to `path`. The content of the file survives a power failure.
    ///
    /// # Errors
    /// Errors of the file system, without a path, if the file cannot be synced or renamed.
    pub(crate) fn finish(self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        self.place.persist(path)
    }
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_atomically() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rows.parquet");
        let mut part = PartFile::beside(&path, ".rows-").expect("room");
        part.write_all(b"half").expect("room");
        drop(part);
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("a folder").count(),
            0
        );

        let mut part = PartFile::beside(&path, ".rows-").expect("room");
        part.write_all(b"whole").expect("room");
        part.finish(&path).expect("room");
        assert_eq!(std::fs::read(&path).expect("a file"), b"whole");
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("a folder").count(),
            1
        );
    }

    #[test]
    fn errors_do_not_contain_the_temporary_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let nowhere = folder.path().join("none/rows.parquet");
        let error = PartFile::beside(&nowhere, ".rows-").expect_err("no folder");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!error.to_string().contains(".rows-"), "{error}");

        let error = PartFile::beside(folder.path(), ".rows-").expect_err("a folder");
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    }
}
