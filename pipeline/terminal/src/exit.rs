//! Converts errors to a message of one line, and to a kind, from which the exit code follows.

use std::error::Error as StdError;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Error, Result};
use wavemill_schemas::exit::{self, Classified, Kind, PlainError};
use wavemill_schemas::text::error_line;

use crate::program;

/// An error in the user's command line or input.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

impl Classified for UsageError {
    fn kind(&self) -> Kind {
        Kind::Usage
    }
}

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
            if code == Kind::Failed.exit_code() && error.chain().any(exit::is_broken_pipe) {
                return 0;
            }
            last_line(&error_line(error.as_ref()));
            code
        }
    }
}

/// A function that returns the kind of a cause if it has the error type for which the function is made: [`kind_as`].
pub type KindOf = fn(&(dyn StdError + 'static)) -> Option<Kind>;

/// Returns the kind of `cause` if it is an `E`.
pub fn kind_as<E: Classified + 'static>(cause: &(dyn StdError + 'static)) -> Option<Kind> {
    cause.downcast_ref().map(E::kind)
}

/// Returns the kind of an error: that of its outermost cause with one of the error `types` of a program, or with a type
/// that all programs use.
pub fn kind(error: &Error, types: &[KindOf]) -> Kind {
    const SHARED: [KindOf; 2] = [kind_as::<UsageError>, kind_as::<PlainError>];

    let stated = |cause: &(dyn StdError + 'static)| {
        let mut types = types.iter().chain(&SHARED);
        types.find_map(|kind_of| kind_of(cause))
    };
    // Causes added by `context` have no kind.
    exit::of_machine(error.as_ref())
        .or_else(|| error.chain().find_map(stated))
        .unwrap_or(Kind::Failed)
}
