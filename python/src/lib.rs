//! The native module of the Python package `wavemill`.
//!
//! It converts between Python's objects and the crates of this workspace, and contains no rules of its own. The public
//! interface, with its documentation and types, is in the Python files of `python/wavemill/`.

mod audio;
mod build;
mod dataset;
mod errors;
mod evaluate;
mod extract;
mod interrupt;
mod sql;
mod versions;

use std::ffi::OsString;

use pyo3::prelude::*;

#[pymodule]
mod _wavemill {
    /// Version of DataFusion whose tables [`PyOpenTable`](super::sql::PyOpenTable) makes.
    #[pymodule_export]
    const DATAFUSION_VERSION: &str = datafusion::DATAFUSION_VERSION;

    #[pymodule_export]
    use super::audio::{
        decode_channels, decode_mono, inspect, mel_weights, resample, spectrogram, window,
    };
    #[pymodule_export]
    use super::build::build;
    #[pymodule_export]
    use super::dataset::{PyBatchMemory, PyBatches, PyOpenSplit};
    #[pymodule_export]
    use super::evaluate::{PyEvaluated, evaluate, write_report};
    #[pymodule_export]
    use super::extract::extract;
    #[pymodule_export]
    use super::run_command;
    #[pymodule_export]
    use super::sql::{PyOpenTable, PyQueryFailure, query};
    #[pymodule_export]
    use super::versions::{diff, manifest, resolve_version, traffic, versions};

    /// Lets the process open as many files as the command does: each split keeps many of its shards open.
    #[pymodule_init]
    fn init() {
        wavemill_terminal::raise_file_limit();
    }
}

/// Runs the command `wavemill` with these arguments, of which the first is the program's name; returns its exit code.
/// `program` are the words with which the command starts itself again.
#[pyfunction]
fn run_command(py: Python<'_>, program: Vec<OsString>, args: Vec<OsString>) -> u8 {
    py.detach(|| {
        wavemill::cli::program::starts_with(program);
        wavemill::cli::main(args)
    })
}
