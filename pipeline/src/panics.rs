//! Panics, as errors with one line.
//!
//! Parquet's and DataFusion's readers panic on some damaged files, on whatever thread reads them, and wavemill has faults
//! of its own. Rust would print the place and a trace. Here nothing is printed: who catches a panic has its words, and
//! decides what they mean to a user.

use std::any::Any;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, PoisonError};

use wavemill_schemas::text::panic_words;

/// Threads whose panics become rejects; the panic hook stays silent in them.
pub(crate) const WORKER_NAME: &str = "wavemill-worker";

/// Prints Rust's own report as well, for whoever looks for a fault.
const REPORT_VARIABLE: &str = "WAVEMILL_BACKTRACE";

/// Where the first panic happened since one was caught: what is thrown on after it says only that a thread panicked.
static FIRST: Mutex<Option<Panic>> = Mutex::new(None);

/// A panic that was caught.
#[derive(Clone, Debug, thiserror::Error)]
#[error("internal error: {message} ({place}); please report it, with the command")]
pub(crate) struct Panic {
    /// What it said.
    pub message: String,
    /// File and line of the source.
    pub place: String,
}

impl Panic {
    /// Of what a panicked thread or task left.
    pub(crate) fn of(payload: &(dyn Any + Send)) -> Self {
        // What the hook has kept knows the place, which a payload does not. It is taken, so that a later panic is not
        // told with it.
        let first = FIRST.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.unwrap_or_else(|| Self {
            message: message(payload),
            place: "place unknown".to_owned(),
        })
    }
}

/// Lets panics say nothing by themselves, for the whole process.
pub(crate) fn silence() {
    let report = take_hook();
    let is_asked_for = std::env::var_os(REPORT_VARIABLE).is_some();
    set_hook(Box::new(move |info| {
        // A worker's panic is a reject of its clip, with these words.
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

/// What `run` gives, or the panic that ended it.
///
/// # Errors
/// The panic.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, Panic> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| Panic::of(payload.as_ref()))
}

fn keep_first(info: &PanicHookInfo<'_>) {
    let place = info.location().map_or_else(
        || "place unknown".to_owned(),
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
    let words = panic_words(payload);
    words.unwrap_or("a panic without words").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_words() {
        let panic = caught(|| -> u8 { panic!("index {} of {}", 3, 2) }).expect_err("a panic");
        assert!(panic.to_string().starts_with("internal error: "), "{panic}");
        assert_eq!(caught(|| 7).ok(), Some(7));
    }

    #[test]
    fn words_are_those_of_the_panic() {
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
        assert_eq!(message(&7), "a panic without words");
    }
}
