//! Text files that people write: recipes, and configurations of training.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// The longest that is read. A recipe has a hundred lines; a file of 50 MB took 18 s to be refused, and more of them, such
/// as an archive given by mistake, all memory.
pub const SETTINGS_BYTES_MAX: u64 = 1 << 20;

/// As [`read`], of a file alone: a pipe would be waited for until somebody writes to it, and a device may have no end.
///
/// # Errors
/// `InvalidInput` for a pipe or a device; those of [`read`].
pub fn read_file(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    // Of a folder the system has words of its own.
    if !metadata.is_file() && !metadata.is_dir() {
        let words = "it is a pipe or a device: give a file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
    }
    read(path)
}

/// Reads such a file whole.
///
/// # Errors
/// `FileTooLarge` over [`SETTINGS_BYTES_MAX`], whatever follows there; `InvalidData` for what is not UTF-8; else what the
/// system says.
pub fn read(path: &Path) -> io::Result<String> {
    // One byte more tells a file of just this length from a longer one. A length would not do: a pipe has none.
    let mut bytes = Vec::new();
    File::open(path)?
        .take(SETTINGS_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;

    if bytes.len() as u64 > SETTINGS_BYTES_MAX {
        let words = format!(
            "over {} MiB, more than any recipe or configuration: is it another file?",
            SETTINGS_BYTES_MAX >> 20
        );
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, words));
    }

    String::from_utf8(bytes).map_err(|error| {
        let words = format!(
            "not UTF-8 from byte {} on",
            error.utf8_error().valid_up_to()
        );
        io::Error::new(io::ErrorKind::InvalidData, words)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_refused_and_not_read() {
        let error = read_file(Path::new("/dev/zero")).expect_err("a device");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), "it is a pipe or a device: give a file");

        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.toml");
        fs::write(&file, "name = \"a\"").expect("room");
        assert_eq!(read_file(&file).expect("a file"), "name = \"a\"");
        let none = read_file(&folder.path().join("none")).expect_err("none");
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
    }
}
