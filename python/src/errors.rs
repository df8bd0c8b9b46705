//! Errors of the crates as exceptions of `wavemill.errors`, with the texts and exit codes of the command.

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use wavemill_schemas::exit::{self, Kind};
use wavemill_schemas::reject::Reject;
use wavemill_schemas::text::error_line;

/// Returns the exception for an error whose command would end with `exit_code`. The message is that of the command.
pub(crate) fn exception(
    py: Python<'_>,
    exit_code: u8,
    error: &(dyn std::error::Error + 'static),
) -> PyErr {
    let message = error_line(error);
    // As the commands do it.
    let exit_code = exit::of_machine(error).map_or(exit_code, Kind::exit_code);
    if exit_code == Kind::Interrupted.exit_code() {
        return PyKeyboardInterrupt::new_err(message);
    }
    raised(py, "from_exit_code", (exit_code, message))
}

/// Returns the exception for the error of a command.
pub(crate) fn of_command(py: Python<'_>, error: &anyhow::Error) -> PyErr {
    exception(py, wavemill::cli::exit::code(error), error.as_ref())
}

/// Returns the exception for an invalid argument.
pub(crate) fn usage(py: Python<'_>, message: &str) -> PyErr {
    raised(py, "UsageError", (message,))
}

/// Returns the exception for a clip that cannot be decoded.
pub(crate) fn reject(py: Python<'_>, file: &str, reject: &Reject) -> PyErr {
    let message = format!("{file}: {}: {}", reject.reason.name(), reject.detail);
    raised(py, "AudioError", (message, reject.reason.name()))
}

/// Calls `wavemill.errors.NAME` with `args`, which returns the exception.
fn raised<'py, A>(py: Python<'py>, name: &str, args: A) -> PyErr
where
    A: pyo3::call::PyCallArgs<'py>,
{
    let created = py
        .import("wavemill.errors")
        .and_then(|module| module.getattr(name)?.call1(args));
    match created {
        Ok(exception) => PyErr::from_value(exception),
        // Importing fails only if the package is damaged; that error is then the more useful one.
        Err(error) => error,
    }
}
