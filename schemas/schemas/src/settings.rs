//! Reads text files written by users: recipes and training configurations.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// Maximum size of a file in bytes. A recipe has about a hundred lines. Rejecting a file of 50 MB took 18 s, and larger
/// ones, such as an archive given by mistake, would use all memory.
pub const SETTINGS_BYTES_MAX: u64 = 1 << 20;

/// Reads a regular file, like [`read`]. A pipe would block until something is written to it, and a device may be
/// endless.
///
/// # Errors
/// `InvalidInput` for a pipe or a device; the errors of [`read`].
pub fn read_file(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    // For folders, the error message of the operating system is better.
    if !metadata.is_file() && !metadata.is_dir() {
        let message = "it is a pipe or a device: use a regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    read(path)
}

/// Reads a text file completely.
///
/// # Errors
/// `FileTooLarge` above [`SETTINGS_BYTES_MAX`], regardless of the content; `InvalidData` if the file is not UTF-8;
/// otherwise the error of the operating system.
pub fn read(path: &Path) -> io::Result<String> {
    // One byte more is read, to distinguish a file of the maximum size from a larger one. Pipes have no size to check.
    let mut bytes = Vec::new();
    File::open(path)?
        .take(SETTINGS_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;

    if bytes.len() as u64 > SETTINGS_BYTES_MAX {
        let message = format!(
            "over {} MiB, the limit for recipes and configurations: is this the right file?",
            SETTINGS_BYTES_MAX >> 20
        );
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }

    String::from_utf8(bytes).map_err(|error| {
        let message = format!(
            "not UTF-8 from byte {} on",
            error.utf8_error().valid_up_to()
        );
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_files_are_rejected_without_reading() {
        let error = read_file(Path::new("/dev/zero")).expect_err("a device");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(
            error.to_string(),
            "it is a pipe or a device: use a regular file"
        );

        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.toml");
        fs::write(&file, "name = \"a\"").expect("room");
        assert_eq!(read_file(&file).expect("a file"), "name = \"a\"");
        let none = read_file(&folder.path().join("none")).expect_err("none");
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
    }
}
