//! Decoding, resampling and spectrograms of arrays.

use std::cell::RefCell;

use numpy::ndarray::{Array2, ArrayD};
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayDyn, PyReadonlyArray2};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use wavemill_decode::{Channels, Decode, DecodeArgs, FileDecoder, Pcm};
use wavemill_kernels::resample::ResampleArgs;
use wavemill_kernels::{CpuPlan, FeatureArgs, FeatureSpec, KernelError, Level, SampleBuffer};
use wavemill_runtime::panics::caught;
use wavemill_schemas::reject::{Reason, Reject, Stage};

use crate::errors;

thread_local! {
    /// The decoder of the last file on this thread, and whether it decodes by band: its tables and resampler plans take
    /// longer than a short file.
    static DECODER: RefCell<Option<(DecodeArgs, bool, FileDecoder)>> = const { RefCell::new(None) };
    /// The plan of the last spectrogram on this thread.
    static PLAN: RefCell<Option<(FeatureArgs, CpuPlan)>> = const { RefCell::new(None) };
}

/// Decodes a file to mono samples at `rate_hz`, or at its own rate, at least up to `end_s` seconds. `by_band` selects
/// the band path for files that have one. Returns the samples, their rate, and the seconds lost to damage.
#[pyfunction]
pub(crate) fn decode_mono<'py>(
    py: Python<'py>,
    data: PyBackedBytes,
    file: &str,
    rate_hz: Option<u32>,
    end_s: Option<f64>,
    by_band: bool,
) -> PyResult<(Bound<'py, PyArray1<f32>>, u32, f32)> {
    let args = DecodeArgs {
        // If the file's rate is kept, any rate would do.
        sample_rate_hz: rate_hz.unwrap_or(44_100),
        duration_s: end_s,
        min_duration_s: 0.0,
        keep_rate: rate_hz.is_none(),
    };
    let kept = DECODER.take();
    let decoder = match kept.filter(|(last, band, _)| *last == args && *band == by_band) {
        Some((.., decoder)) => Ok(decoder),
        None => FileDecoder::new(args.clone(), Level::detect()).map(|exact| match by_band {
            true => exact.by_band(),
            false => exact,
        }),
    };
    let mut decoder = decoder.map_err(|error| errors::usage(py, &format!("sr: {error}")))?;

    // The decoder is not kept after a reject or a panic, which leaves it in an unknown state.
    let (decoder, pcm) = decoded(py, file, || {
        let mut pcm = Pcm::default();
        decoder.decode("", &data, &mut pcm)?;
        Ok((decoder, pcm))
    })?;
    DECODER.set(Some((args, by_band, decoder)));
    let samples = PyArray1::from_slice(py, &pcm.samples);
    Ok((samples, pcm.rate_hz, pcm.lost_s))
}

/// Decodes the channels of a file at its sample rate, at least up to `end_s` seconds. Returns the samples, of shape
/// `(channels, n)`, the sample rate, and the seconds lost to damage.
#[pyfunction]
pub(crate) fn decode_channels<'py>(
    py: Python<'py>,
    data: PyBackedBytes,
    file: &str,
    end_s: Option<f64>,
) -> PyResult<(Bound<'py, PyArray2<f32>>, u32, f32)> {
    let (planes, rate_hz, lost_s) = decoded(py, file, || {
        let channels = Channels::decode(&data, end_s)?;
        let n_samples = channels.planes.first().map_or(0, Vec::len);
        let planes = Array2::from_shape_fn((channels.planes.len(), n_samples), |(channel, at)| {
            channels.planes[channel][at]
        });
        Ok((planes, channels.rate_hz, channels.lost_s))
    })?;
    Ok((planes.into_pyarray(py), rate_hz, lost_s))
}

/// Decodes a file without keeping its samples. Returns duration in seconds, sample rate, number of channels and seconds
/// lost to damage.
#[pyfunction]
pub(crate) fn inspect(
    py: Python<'_>,
    data: PyBackedBytes,
    file: &str,
) -> PyResult<(f64, u32, usize, f32)> {
    let facts = decoded(py, file, || Channels::inspect(&data))?;
    Ok((
        facts.duration_s,
        facts.rate_hz,
        facts.n_channels,
        facts.lost_s,
    ))
}

/// Calls a decoder without the GIL. As in a run, a panic of the decoder counts as a fault of the file.
fn decoded<T: Send>(
    py: Python<'_>,
    file: &str,
    decode: impl FnOnce() -> Result<T, Reject> + Send,
) -> PyResult<T> {
    let ended = py.detach(|| caught(decode)).unwrap_or_else(|panic| {
        let detail = panic.to_string();
        Err(Reject::new(Stage::Decode, Reason::WorkerPanic, detail))
    });
    ended.map_err(|reject| errors::reject(py, file, &reject))
}

/// Converts the sample rate of each row of `y`.
#[pyfunction]
pub(crate) fn resample<'py>(
    py: Python<'py>,
    y: PyReadonlyArray2<'py, f32>,
    from_hz: u32,
    to_hz: u32,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let y = y.as_array();
    let rates = ResampleArgs { from_hz, to_hz };
    let mut resampler = rates
        .plan(Level::detect())
        .map_err(|error| errors::usage(py, &error.to_string()))?;

    let resampled = py.detach(|| {
        let n_out = rates.output_len(y.ncols() as u64) as usize;
        let mut out = Array2::zeros((y.nrows(), n_out));
        let mut row_out = SampleBuffer::default();
        for (row, mut out) in y.outer_iter().zip(out.outer_iter_mut()) {
            row_out.clear();
            resampler.push(&row.as_standard_layout().to_vec(), &mut row_out);
            resampler.finish(&mut row_out);
            resampler.reset();
            // The resampler outputs whole blocks, which may reach past the end.
            for (out, sample) in out.iter_mut().zip(row_out.iter()) {
                *out = *sample;
            }
        }
        out
    });
    Ok(resampled.into_pyarray(py))
}

/// Computes the last feature of `options`, a list of [`FeatureSpec`] as JSON with its sources, for each row of `y` at
/// `rate_hz`. Returns an array of the rows' tensors: `(rows, bands, frames)`, or `(rows, 1)` for a tempo.
#[pyfunction]
pub(crate) fn spectrogram<'py>(
    py: Python<'py>,
    y: PyReadonlyArray2<'py, f32>,
    rate_hz: u32,
    options: &str,
) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let args = feature(py, options, rate_hz)?;
    let kept = PLAN.take().filter(|(last, _)| *last == args);
    let plan = match kept {
        Some((_, plan)) => Ok(plan),
        None => CpuPlan::new(std::slice::from_ref(&args), Level::detect()),
    };
    let mut plan = plan.map_err(|error| errors::usage(py, &error.to_string()))?;

    let y = y.as_array();
    let computed = py.detach(|| -> Result<_, KernelError> {
        let mut values = Vec::new();
        for row in y.outer_iter() {
            let mut out = [Vec::new()];
            match row.as_slice() {
                Some(samples) => plan.run(samples, &mut out)?,
                None => plan.run(&row.to_vec(), &mut out)?,
            }
            let [row_values] = out;
            if values.is_empty() {
                values = row_values;
            } else {
                values.extend_from_slice(&row_values);
            }
        }
        Ok(values)
    });
    PLAN.set(Some((args.clone(), plan)));

    let values = computed.map_err(|error| errors::usage(py, &format!("y: {error}")))?;
    let mut shape = args.shape(y.ncols());
    shape.insert(0, y.nrows());
    let tensor = ArrayD::from_shape_vec(shape, values)
        .map_err(|error| errors::usage(py, &format!("y: {error}")))?;
    Ok(tensor.into_pyarray(py))
}

/// Returns the weights of the mel bands of the last feature of `options`, a list of [`FeatureSpec`] as JSON:
/// `(n_mels, n_fft/2 + 1)`.
#[pyfunction]
pub(crate) fn mel_weights<'py>(
    py: Python<'py>,
    rate_hz: u32,
    options: &str,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let args = feature(py, options, rate_hz)?;
    let mel = args
        .mel
        .ok_or_else(|| errors::usage(py, "op: has no mel bands"))?;

    let mut weights = Array2::zeros((mel.n_mels, args.stft.n_bins()));
    for (mut row, band) in weights
        .outer_iter_mut()
        .zip(mel.bands(rate_hz, args.stft.n_fft))
    {
        for (bin, weight) in (band.first_bin..).zip(band.weights) {
            row[bin] = weight;
        }
    }
    Ok(weights.into_pyarray(py))
}

/// Returns the values of the window that `options`, a [`FeatureSpec`] as JSON, describes.
#[pyfunction]
pub(crate) fn window<'py>(py: Python<'py>, options: &str) -> PyResult<Bound<'py, PyArray1<f64>>> {
    // The sample rate does not affect the window.
    let args = feature(py, options, 22_050)?;
    let values = wavemill_kernels::window_values(args.stft.window, args.stft.win_length);
    Ok(values.into_pyarray(py))
}

/// Returns the arguments of the last feature of `options`, a list of [`FeatureSpec`] as JSON with its sources.
fn feature(py: Python<'_>, options: &str, rate_hz: u32) -> PyResult<FeatureArgs> {
    // The package has checked the types of all options.
    let features: Vec<FeatureSpec> =
        serde_json::from_str(options).map_err(|error| errors::usage(py, &error.to_string()))?;
    let wanted = features
        .last()
        .ok_or_else(|| errors::usage(py, "there is no feature"))?;
    wanted
        .resolve(&features, rate_hz)
        .map_err(|fault| errors::usage(py, &fault.to_string()))
}
