//! Converts errors to a message of one line and an exit code.

use std::error::Error as StdError;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Error, Result};
use wavemill_schemas::exit;
use wavemill_schemas::text::error_line;

use crate::program;

/// An error in the user's command line or input.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Error for an output that another process is writing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BusyError(pub String);

/// Prints the reason why the process ends. If two threads end the process at once, only the first reason is printed.
pub fn last_line(message: &str) {
    static LAST_LINE_PRINTED: AtomicBool = AtomicBool::new(false);
    if !LAST_LINE_PRINTED.swap(true, Ordering::Relaxed) {
        crate::say!("{}: {message}", program());
    }
}

/// Returns the exit code of a command that has ended, after printing its error. If the reader of the output has closed
/// its pipe (`| head`), the command ends without an error. An error with a code of its own is reported even if a closed
/// pipe caused it, because that pipe may be the connection to another rank.
pub fn finish(ended: Result<u8>, code: impl Fn(&Error) -> u8) -> u8 {
    match ended {
        Ok(code) => code,
        Err(error) => {
            let code = code(&error);
            if code == exit::FAILED && error.chain().any(exit::is_broken_pipe) {
                return 0;
            }
            last_line(&error_line(error.as_ref()));
            code
        }
    }
}

/// Returns the documented exit code of an error. `known` returns the exit code of a single cause if its type has one.
pub fn code(error: &Error, known: impl Fn(&(dyn StdError + 'static)) -> Option<u8>) -> u8 {
    if let Some(code) = exit::of_machine(error.as_ref()) {
        return code;
    }

    // The outermost cause with an exit code determines the result. Causes added by `context` have no exit code.
    for cause in error.chain() {
        let own = code_of(cause, |_: &UsageError| exit::USAGE)
            .or_else(|| code_of(cause, |_: &BusyError| exit::BUSY));
        if let Some(code) = own.or_else(|| known(cause)) {
            return code;
        }
    }
    exit::FAILED
}

/// Returns the exit code that `code` computes for a cause of type `E`, or `None` for a cause of another type.
pub fn code_of<E: StdError + 'static>(
    cause: &(dyn StdError + 'static),
    code: impl Fn(&E) -> u8,
) -> Option<u8> {
    cause.downcast_ref().map(code)
}
