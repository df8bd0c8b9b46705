//! Loads the models of `op = "onnx"`.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use wavemill_schemas::recipe::{AudioSpec, Fault, OnnxArgs};
use wavemill_schemas::samples::samples_in;

use crate::onnx::{Model, TensorError};

/// Largest model file: more does not fit into a message of protocol buffers, and needs a second file.
const FILE_BYTES_MAX: u64 = (2 << 30) - 1;

/// Models of this process, with the arguments that they were loaded with. A run plans its features more than once.
static LOADED: Mutex<Vec<(OnnxArgs, usize, Weak<Model>)>> = Mutex::new(Vec::new());

/// Reads a model's file, loads the model, and completes `args` with its hash and sizes.
///
/// # Errors
/// [`TensorError::Options`] if the file cannot be read or does not fit the options; other errors of the model.
pub(super) fn load(
    args: &mut OnnxArgs,
    audio: &AudioSpec,
    threads: usize,
) -> Result<Arc<Model>, TensorError> {
    let file = read(&args.model)?;
    args.model_blake3 = blake3::hash(&file).to_hex().to_string();
    // Each row has as many samples as a segment, or as the clip is padded to.
    let row = audio.segment_s.or(audio.duration_s);
    let row = row.map(|seconds| samples_in(seconds, audio.sample_rate_hz));
    let row = match &args.source {
        Some(source) => row
            .map(|n_samples| source.n_frames(n_samples))
            .or(source.frames),
        None => row,
    };

    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    loaded.retain(|(.., model)| model.strong_count() > 0);
    let same = loaded
        .iter()
        .find(|(of, row_of, _)| of == args && *row_of == row.unwrap_or(0));
    let model = match same.and_then(|(.., model)| model.upgrade()) {
        Some(model) => model,
        None => {
            let model = Arc::new(Model::load(&file, args, row, threads)?);
            loaded.push((args.clone(), row.unwrap_or(0), Arc::downgrade(&model)));
            model
        }
    };
    args.sizes = model.sizes().clone();
    Ok(model)
}

fn read(path: &str) -> Result<Vec<u8>, Fault> {
    let fault = |problem: String| Fault::new("model", format!("{path}: {problem}"));
    let found = fs::metadata(Path::new(path)).map_err(|error| fault(error.to_string()))?;
    if !found.is_file() {
        return Err(fault("is not a file".to_owned()));
    }
    let bytes = found.len();
    if bytes > FILE_BYTES_MAX {
        return Err(fault(format!(
            "has {:.1} GB, more than the limit of 2.1 GB",
            bytes as f64 / 1e9
        )));
    }
    fs::read(path).map_err(|error| fault(error.to_string()))
}
