//! Turns panics into one-line errors.
//!
//! Parquet's and DataFusion's readers panic on some damaged files, on any thread that reads them, and wavemill has bugs
//! of its own. Rust would print the location and a backtrace. Here nothing is printed: the code that catches a panic
//! receives its message and decides how to report it to a user.

use std::any::Any;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, PoisonError};

use wavemill_schemas::text::panic_message;

/// Name of threads whose panics become rejects; the panic hook does not record their panics.
pub const WORKER_NAME: &str = "wavemill-worker";

/// Environment variable that also enables Rust's own report, for debugging.
const REPORT_VARIABLE: &str = "WAVEMILL_BACKTRACE";

/// The first panic since the last panic was caught. Panics that are raised again afterwards only state that a thread
/// panicked.
static FIRST: Mutex<Option<Panic>> = Mutex::new(None);

/// A panic that was caught.
#[derive(Clone, Debug, thiserror::Error)]
#[error("internal error: {message} ({place}); please report it with the command")]
pub struct Panic {
    /// The panic's message.
    pub message: String,
    /// File and line of the source.
    pub place: String,
}

impl Panic {
    /// Creates the error from the payload of a panicked thread or task.
    pub fn from_payload(payload: &(dyn Any + Send)) -> Self {
        // The panic stored by the hook has a location, and a payload has none. It is taken out, so that a later panic
        // is not reported with it.
        let first = FIRST.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.unwrap_or_else(|| Self {
            message: message(payload),
            place: "location unknown".to_owned(),
        })
    }
}

/// Silences the panic hook for the whole process.
pub fn silence() {
    let report = take_hook();
    let is_asked_for = std::env::var_os(REPORT_VARIABLE).is_some();
    set_hook(Box::new(move |info| {
        // A worker's panic becomes a reject of its clip with the same message.
        if !std::thread::current()
            .name()
            .unwrap_or_default()
            .starts_with(WORKER_NAME)
        {
            keep_first(info);
        }
        if is_asked_for {
            report(info);
        }
    }));
}

/// Runs `run` and returns its result.
///
/// # Errors
/// The caught panic, if `run` panicked.
pub fn caught<T>(run: impl FnOnce() -> T) -> Result<T, Panic> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| Panic::from_payload(payload.as_ref()))
}

fn keep_first(info: &PanicHookInfo<'_>) {
    let place = info.location().map_or_else(
        || "location unknown".to_owned(),
        |at| format!("{}:{}", at.file(), at.line()),
    );
    let panic = Panic {
        message: message(info.payload()),
        place,
    };
    FIRST
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert(panic);
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = panic_message(payload);
    text.unwrap_or("a panic without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_errors_with_their_message() {
        let panic = caught(|| -> u8 { panic!("index {} of {}", 3, 2) }).expect_err("a panic");
        assert!(panic.to_string().starts_with("internal error: "), "{panic}");
        assert_eq!(caught(|| 7).ok(), Some(7));
    }

    #[test]
    fn message_is_that_of_the_panic() {
        assert_eq!(
            Panic {
                message: "a".into(),
                place: "b:1".into()
            }
            .to_string()
            .matches("a (b:1)")
            .count(),
            1
        );

        assert_eq!(message(&"text"), "text");
        assert_eq!(message(&"text".to_owned()), "text");
        assert_eq!(message(&7), "a panic without a message");
    }
}
