//! Exit codes that both programs give for what the system refuses, whatever they were doing.

use std::error::Error;
use std::io;

/// The exit code of [`is_no_space`].
pub const NO_SPACE: u8 = 5;

/// No room for what is written, or nowhere that takes it. `cause`: one of an error's chain.
pub fn is_no_space(cause: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let Some(error) = cause.downcast_ref::<io::Error>() else {
        return false;
    };
    match error.kind() {
        StorageFull | ReadOnlyFilesystem | QuotaExceeded => true,
        // Of the system alone: the same kind tells of a recipe that is over our own limit (`settings.rs`).
        FileTooLarge => error.raw_os_error().is_some(),
        _ => false,
    }
}

/// The reader of our output has gone (`| head`): a quiet end. `cause`: one of an error's chain.
pub fn is_broken_pipe(cause: &(dyn Error + 'static)) -> bool {
    cause
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `EFBIG` of Linux: a file over `ulimit -f`, or over what the file system can hold.
    const FILE_TOO_LARGE: i32 = 27;

    #[test]
    fn what_has_no_room_is_known_by_its_kind() {
        use io::ErrorKind::{
            FileTooLarge, NotFound, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
        };
        for kind in [StorageFull, ReadOnlyFilesystem, QuotaExceeded] {
            assert!(is_no_space(&io::Error::from(kind)), "{kind}");
        }
        assert!(is_no_space(&io::Error::from_raw_os_error(FILE_TOO_LARGE)));
        assert!(!is_no_space(&io::Error::new(FileTooLarge, "over 1 MiB")));
        assert!(!is_no_space(&io::Error::from(NotFound)));
        assert!(!is_no_space(&std::fmt::Error));
        assert!(is_broken_pipe(&io::Error::from(io::ErrorKind::BrokenPipe)));
    }
}
