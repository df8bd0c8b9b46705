//! Long work that Ctrl-C ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use wavemill_schemas::text::panic_message;

/// The time between two checks for signals while a call waits.
pub(crate) const SIGNALS_EVERY: Duration = Duration::from_millis(100);

/// Runs `work` on another thread without the GIL and returns its result.
///
/// If a signal handler raises an exception meanwhile, as that of Ctrl-C does, the flag that `work` receives is set. The
/// exception is returned as soon as `work` has ended.
pub(crate) fn interruptible<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&AtomicBool) -> T + Send,
) -> PyResult<T> {
    let stop = AtomicBool::new(false);
    watched(py, &stop, |_| Ok(()), || work(&stop))
}

/// Runs `work` like [`interruptible`], with a flag of the caller. Calls `look` several times a second, whose exceptions
/// have the same effect as those of signal handlers.
pub(crate) fn watched<T: Send>(
    py: Python<'_>,
    stop: &AtomicBool,
    mut look: impl FnMut(Python<'_>) -> PyResult<()> + Send,
    work: impl FnOnce() -> T + Send,
) -> PyResult<T> {
    let wait = || {
        thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            let worker = scope.spawn(|| {
                // The receiver exists until this thread has ended.
                let _ = sender.send(work());
                drop(sender);
            });

            let mut raised = None;
            loop {
                match receiver.recv_timeout(SIGNALS_EVERY) {
                    Ok(result) => return raised.map_or(Ok(result), Err),
                    Err(RecvTimeoutError::Timeout) if raised.is_none() => {
                        let looked =
                            Python::attach(|py| py.check_signals().and_then(|()| look(py)));
                        raised = looked.err();
                        stop.store(raised.is_some(), Ordering::Relaxed);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => {
                        let payload = worker.join().err();
                        let message = payload.as_deref().and_then(panic_message);
                        let message = message.unwrap_or("no message").to_owned();
                        return Err(PyRuntimeError::new_err(message));
                    }
                }
            }
        })
    };
    py.detach(wait)
}
