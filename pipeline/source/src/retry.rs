//! Retries file operations that fail because of the machine. Failures caused by a clip itself are not retried.

use std::io;
use std::thread::sleep;
use std::time::Duration;

use super::bytes_at::is_of_network;

/// Delays before each retry, in total slightly more than a second. This is enough for other programs to close files and
/// for a network share to reconnect, and short enough that a failing disk soon stops the run.
const WAITS: [Duration; 3] = [
    Duration::from_millis(20),
    Duration::from_millis(200),
    Duration::from_secs(1),
];

/// Reports whether retrying a failed file operation can help. It cannot if the cause is the file's content or name.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{
        FileTooLarge, InvalidData, IsADirectory, NotADirectory, NotFound, PermissionDenied,
        UnexpectedEof, Unsupported,
    };
    let lasting = [
        FileTooLarge,
        InvalidData,
        IsADirectory,
        NotADirectory,
        NotFound,
        PermissionDenied,
        UnexpectedEof,
        Unsupported,
    ];
    !lasting.contains(&error.kind()) && !is_of_network(error)
}

/// Runs `attempt` until it succeeds, fails permanently, or has failed once more than there are [`WAITS`].
pub(super) fn with_retries(mut attempt: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    for wait in WAITS {
        match attempt() {
            Err(error) if is_passing(&error) => sleep(wait),
            done => return done,
        }
    }
    // Return the result of the last attempt even if that result is an error.
    attempt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EIO: i32 = 5;
    const ENOENT: i32 = 2;

    fn tries_until(good: u32, code: i32) -> (u32, io::Result<()>) {
        let mut tries = 0;
        let result = with_retries(|| {
            tries += 1;
            if tries < good {
                Err(io::Error::from_raw_os_error(code))
            } else {
                Ok(())
            }
        });
        (tries, result)
    }

    #[test]
    fn transient_errors_are_retried_a_limited_number_of_times() {
        assert!(matches!(tries_until(3, EIO), (3, Ok(()))));
        assert!(matches!(tries_until(99, EIO), (4, Err(_))));
        assert!(matches!(tries_until(3, ENOENT), (1, Err(_))));
    }
}
