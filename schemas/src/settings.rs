//! Text files that people write: recipes, and configurations of training.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The longest that is read. A recipe has a hundred lines; a file of 50 MB took 18 s to be refused, and more of them, such
/// as an archive given by mistake, all memory.
pub const SETTINGS_BYTES_MAX: u64 = 1 << 20;

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
