//! Finds and opens ONNX Runtime, which is not part of wavemill.

use std::path::PathBuf;
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::logging::LogLevel;
use wavemill_kernels::wheel_files;

use super::TensorError;

/// Name of the library, before its version.
const FILE: &str = "libonnxruntime.so";
/// Variable that names the library's file, also for other programs that use the crate `ort`.
const VARIABLE: &str = "ORT_DYLIB_PATH";

/// ONNX Runtime, as it was found on this machine.
#[derive(Clone, Debug)]
pub struct OnnxRuntime {
    /// Path of the library.
    pub path: PathBuf,
    /// Version of the library, such as `1.32`.
    pub version: String,
}

/// Finds the library that runs models, without creating anything in it.
///
/// The variable `ORT_DYLIB_PATH` names its file. Otherwise it is searched in wheels of PyPI (`pip install onnxruntime`):
/// those of the active virtual environment, next to the program, and of every `python3` on PATH. The system's loader
/// searches last.
///
/// # Errors
/// [`TensorError::Model`] if there is none, or if it is older than 1.17.
pub fn find_onnx_runtime() -> Result<OnnxRuntime, TensorError> {
    let candidates = match std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        Some(named) => vec![PathBuf::from(named)],
        None => {
            let mut files = wheel_files("onnxruntime/capi", FILE);
            files.push(FILE.into());
            files
        }
    };

    let mut problem = String::new();
    for path in candidates {
        match ort::util::probe(&path) {
            Some(minor) if minor >= ort::MINOR_VERSION => {
                let version = format!("1.{minor}");
                return Ok(OnnxRuntime { path, version });
            }
            Some(minor) => problem = format!("{} has version 1.{minor}", path.display()),
            None => problem = format!("{} cannot be loaded", path.display()),
        }
    }
    Err(TensorError::no_library(&problem))
}

/// Returns the name of the library for the engine of a store, with the instructions by which the library selects its code,
/// because the last bits of its results depend on them. `None` if there is no library.
pub(crate) fn engine() -> Option<String> {
    let found = find_onnx_runtime().ok()?;
    Some(format!("onnxruntime {}, {}", found.version, instructions()))
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> &'static str {
    if is_x86_feature_detected!("avx512f") {
        "avx512f"
    } else if is_x86_feature_detected!("avx2") {
        "avx2"
    } else {
        "sse2"
    }
}

#[cfg(not(target_arch = "x86_64"))]
const fn instructions() -> &'static str {
    std::env::consts::ARCH
}

/// Opens the library once per process.
pub(super) fn environment() -> Result<&'static Environment, TensorError> {
    static OPENED: OnceLock<Environment> = OnceLock::new();
    if let Some(opened) = OPENED.get() {
        return Ok(opened);
    }

    let found = find_onnx_runtime()?;
    let opened = ort::init_from(&found.path)
        .map_err(|error| TensorError::no_library(&error.to_string()))?
        .with_name("wavemill")
        .build()
        .map_err(|error| TensorError::no_library(&error.to_string()))?;
    // Calls return their errors, so the log would only repeat them.
    opened.set_log_level(LogLevel::Fatal);
    Ok(OPENED.get_or_init(|| opened))
}
