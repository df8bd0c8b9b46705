//! The machine's faults get a few more chances; a clip's own faults get none.

use std::io;
use std::thread::sleep;
use std::time::Duration;

/// Waits before each further try. Together a good second: enough for other programs to close files, for a network
/// share to come back, and short enough that a dying disk stops the run.
const WAITS: [Duration; 3] = [
    Duration::from_millis(20),
    Duration::from_millis(200),
    Duration::from_secs(1),
];

/// Whether trying again can help: not where the answer lies in the bytes or the name.
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
    !lasting.contains(&error.kind())
}

/// Runs `attempt` until it succeeds, fails for good, or has failed once more than there are [`WAITS`].
pub(super) fn with_retries(mut attempt: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    for wait in WAITS {
        match attempt() {
            Err(error) if is_passing(&error) => sleep(wait),
            done => return done,
        }
    }
    // The last try, whose answer counts whatever it is.
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
    fn passing_faults_are_tried_again_and_not_for_ever() {
        assert!(matches!(tries_until(3, EIO), (3, Ok(()))));
        assert!(matches!(tries_until(99, EIO), (4, Err(_))));
        assert!(matches!(tries_until(3, ENOENT), (1, Err(_))));
    }
}
