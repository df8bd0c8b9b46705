//! The meaning of errors for a user ([`Kind`]), and errors of the operating system that have one meaning in all programs.

use std::error::Error;
use std::io;

/// The meaning of an error for the user, which decides the exit code of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A failure of no other kind.
    Failed,
    /// Wrong usage, a wrong recipe or configuration, or an input or store that does not exist.
    Usage,
    /// Files of a store or a run are damaged.
    Damaged,
    /// The store or the run belongs to another plan.
    OtherPlan,
    /// The disk is full, the file system is read-only, or the user lacks a permission. See [`is_no_space`] and
    /// [`is_denied`].
    NoSpace,
    /// Another rank of a training run has ended or cannot be reached.
    LostRank,
    /// Another process holds the lock of the store or of the output.
    Busy,
    /// The shards of a plan are not all finished: run the missing parts, then commit again.
    Unfinished,
    /// A signal has interrupted the program.
    Interrupted,
}

impl Kind {
    /// Returns the exit code of both programs for an error of this kind.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Damaged => 3,
            Self::OtherPlan => 4,
            Self::NoSpace => 5,
            Self::LostRank => 6,
            Self::Busy => 7,
            Self::Unfinished => 9,
            Self::Interrupted => 130,
        }
    }
}

/// An error that states its [`Kind`].
pub trait Classified: Error {
    /// Returns the kind of this error.
    fn kind(&self) -> Kind;
}

/// An error by which no code decides: its message says what is wrong, where, and what to do. Errors of a crate by which
/// code decides are variants of an enum of that crate.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct PlainError {
    kind: Kind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl PlainError {
    /// Creates an error of any kind, without a cause.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// Creates an error of the kind [`Kind::Failed`].
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// Creates an error of the kind [`Kind::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Returns this error with a cause, whose message follows in texts.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl Classified for PlainError {
    fn kind(&self) -> Kind {
        self.kind
    }
}

/// Reports whether `cause`, one error of a chain, means that a file cannot be written: the disk is full, a quota or the
/// maximum file size is exceeded, or the file system is read-only.
pub fn is_no_space(cause: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let Some(error) = cause.downcast_ref::<io::Error>() else {
        return false;
    };
    match error.kind() {
        StorageFull | ReadOnlyFilesystem | QuotaExceeded => true,
        // Only errors of the operating system count: `settings.rs` uses the same kind for recipes over our own limit.
        FileTooLarge => error.raw_os_error().is_some(),
        _ => false,
    }
}

/// `EPERM` and `EACCES` on Linux.
const DENIED_CODES: [i32; 2] = [1, 13];

/// Remedy of an error for which [`is_denied`] returns true.
pub const DENIED_REMEDY: &str =
    "let this user read and write it (chmod u+rw), or run the command as another user";

/// Reports whether `cause`, one error of a chain, means that the operating system denies this user an operation
/// (`EACCES`, `EPERM`).
pub fn is_denied(cause: &(dyn Error + 'static)) -> bool {
    let own: Option<&io::Error> = cause.downcast_ref();
    // Ranks that refuse each other use the same kind, with a message.
    own.is_some_and(|error| {
        error.kind() == io::ErrorKind::PermissionDenied && error.get_ref().is_none()
    }) || os_code(cause).is_some_and(|code| DENIED_CODES.contains(&code))
}

/// Returns the kind of an error that a fault of the machine or a missing permission has caused: whatever failed, its file
/// is neither damaged nor the wrong one.
pub fn of_machine(error: &(dyn Error + 'static)) -> Option<Kind> {
    let causes = || std::iter::successors(Some(error), |&cause| cause.source());
    // A full disk can cause errors of every kind, so this kind takes precedence.
    if causes().any(|cause| is_no_space(cause) || is_denied(cause)) {
        return Some(Kind::NoSpace);
    }
    causes().any(is_machine_fault).then_some(Kind::Failed)
}

/// Reports whether `cause`, one error of a chain, means that the machine failed to read or write, and not that a file
/// is wrong: the disk is failing or gone, memory or file descriptors are exhausted, or a permission is missing. The
/// command may succeed when it is repeated.
pub fn is_machine_fault(cause: &(dyn Error + 'static)) -> bool {
    machine_code(cause).is_some()
}

/// Returns a copy of the cause of `error` for which [`is_machine_fault`] returns true, if there is one.
pub fn machine_fault(error: &(dyn Error + 'static)) -> Option<io::Error> {
    let mut causes = std::iter::successors(Some(error), |&cause| cause.source());
    causes
        .find_map(machine_code)
        .map(io::Error::from_raw_os_error)
}

/// Returns the number of an error for which [`is_machine_fault`] returns true.
fn machine_code(cause: &(dyn Error + 'static)) -> Option<i32> {
    /// `EIO`, `ENXIO`, `ENOMEM`, `ENODEV`, `ENFILE`, `EMFILE`, `EBADMSG`, `ESTALE` and `EUCLEAN` on Linux.
    const CODES: [i32; 9] = [5, 6, 12, 19, 23, 24, 74, 116, 117];
    os_code(cause).filter(|code| CODES.contains(code) || DENIED_CODES.contains(code))
}

/// Returns the number of an error of the operating system.
fn os_code(cause: &(dyn Error + 'static)) -> Option<i32> {
    let own = cause.downcast_ref().and_then(io::Error::raw_os_error);
    // Arrow keeps only the text of an error of the Parquet reader.
    own.or_else(|| {
        let text = cause.to_string();
        let (_, code) = text.rsplit_once("(os error ")?;
        code.split_once(')')?.0.parse().ok()
    })
}

/// Reports whether `cause`, one error of a chain, means that the reader of our output has closed the pipe (`| head`).
/// Programs should then exit quietly.
pub fn is_broken_pipe(cause: &(dyn Error + 'static)) -> bool {
    cause
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `EFBIG` on Linux: the file exceeds `ulimit -f` or the maximum of the file system.
    const FILE_TOO_LARGE: i32 = 27;

    #[test]
    fn no_space_errors_are_recognized_by_kind() {
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

        let failing = io::Error::from_raw_os_error(5);
        assert!(is_machine_fault(&failing));
        assert!(is_machine_fault(&io::Error::other(format!(
            "External: {failing}"
        ))));
        assert!(!is_machine_fault(&io::Error::from(NotFound)));
        assert!(is_broken_pipe(&io::Error::from(io::ErrorKind::BrokenPipe)));
    }

    #[test]
    fn missing_permissions_have_one_kind() {
        let denied = || io::Error::from_raw_os_error(13);
        for error in [
            denied(),
            io::Error::from_raw_os_error(1),
            io::ErrorKind::PermissionDenied.into(),
            io::Error::other(format!("External: {}: check it", denied())),
        ] {
            assert!(is_denied(&error), "{error}");
            assert_eq!(of_machine(&error), Some(Kind::NoSpace), "{error}");
        }
        assert!(is_machine_fault(&denied()));

        let refused = io::Error::new(io::ErrorKind::PermissionDenied, "another token");
        assert_eq!(of_machine(&refused), None);
        assert_eq!(
            of_machine(&io::Error::from_raw_os_error(5)),
            Some(Kind::Failed)
        );
        assert_eq!(of_machine(&io::Error::from_raw_os_error(2)), None);
    }
}
