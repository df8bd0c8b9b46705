//! Conversion of rows as stored to the input of a model: bands by frames in f32 or f64, for any storage format.
//!
//! Rows are copied to the device as stored and converted to f32 or f64 there, which halves the transfer for f16 and
//! quarters it for u8.

use tch::{Device, Kind, TchError, Tensor};
use wavemill_loader::{Form, RowKind};
use wavemill_schemas::manifest::{Scale, Stats};
use wavemill_schemas::recipe::Dtype;

use crate::ffi::{self, HostBuffer};
use crate::models::Inputs;

/// Creates model inputs from rows returned by [`spectrogram`]. A feature of statistics becomes metadata columns.
///
/// # Errors
/// Errors of libtorch, such as lack of memory.
pub(super) fn inputs(form: &Form, rows: Tensor) -> Result<Inputs, TchError> {
    if form.kind != RowKind::Columns {
        return Ok(Inputs {
            spectrogram: rows,
            metadata: None,
            ids: None,
        });
    }
    Ok(Inputs {
        spectrogram: Tensor::f_zeros([rows.size()[0], 0, 0], (rows.kind(), rows.device()))?,
        metadata: Some(rows.f_flatten(1, -1)?),
        ids: None,
    })
}

/// Returns the rows in `memory` as `[n_rows, bands, frames]` of `kind` on `device`, in newly allocated memory. Pictures
/// are `[n_rows, channels, height, width]`, and samples `[n_rows, samples]`.
///
/// If rows differ in length, `filled` contains the result of [`Form::fill`] for each row. Each band is normalised
/// before rows are cropped or zero-padded, so the padding equals the band's mean instead of some level of silence.
///
/// # Errors
/// Errors of libtorch: out of memory, or the device does not exist.
pub(super) fn spectrogram(
    form: &Form,
    memory: &HostBuffer,
    n_rows: usize,
    filled: &[i64],
    device: Device,
    kind: Kind,
) -> Result<Tensor, TchError> {
    let host = view(form, memory, n_rows);
    let work = if kind == Kind::Double {
        kind
    } else {
        Kind::Float
    };

    // The result is never a view of `host`, whose memory is reused later. Rows are sent before they are widened.
    let moved = if device == Device::Cpu {
        host
    } else {
        ffi::send(&host, device)?
    };
    let mut x = moved.f_to_dtype(work, false, device == Device::Cpu)?;
    if let Some(Scale { factor, offset }) = form.scale {
        x = x.f_mul_scalar_(factor)?.f_add_scalar_(offset)?;
    }

    if form.frames_first {
        x = x.f_transpose(1, 2)?;
    }
    if let Some(stats) = &form.stats {
        x = normalised(x, stats, work, device)?;
    }

    let host_frames = form.host_frames as i64;
    // Set padding to 0, the mean, after normalisation, because the zero bytes after a short row were scaled and shifted
    // like values.
    if filled.iter().any(|&frames| frames < host_frames) {
        let ends = ffi::send(&Tensor::f_from_slice(filled)?.f_view([-1, 1, 1])?, device)?;
        let frame = Tensor::f_arange(host_frames, (Kind::Int64, device))?;
        x = x.f_masked_fill_(&frame.f_ge_tensor(&ends)?, 0.0)?;
    }

    let frames = form.frames as i64;
    if frames < host_frames {
        x = x.f_narrow(2, 0, frames)?;
    } else if frames > host_frames {
        x = x.f_constant_pad_nd([0, frames - host_frames])?;
    }
    // A row stored as frames by bands is still a transposed view here, so make the tensor contiguous.
    x = x.f_to_kind(kind)?.f_contiguous()?;
    match form.kind {
        RowKind::Spectrogram | RowKind::Columns => Ok(x),
        RowKind::Samples => x.f_flatten(1, -1),
        RowKind::Picture { height, width } => {
            x.f_view([n_rows as i64, -1, height as i64, width as i64])
        }
    }
}

/// Returns a view of the first `n_rows` rows in `memory`, with their stored type and order of dimensions.
fn view(form: &Form, memory: &HostBuffer, n_rows: usize) -> Tensor {
    let stored = match form.stored {
        Dtype::F16 => Kind::Half,
        Dtype::F32 => Kind::Float,
        Dtype::U8 => Kind::Uint8,
        Dtype::S16 => Kind::Int16,
    };
    let [n_rows, bands, frames] = [n_rows, form.bands, form.host_frames].map(|n| n as i64);
    let shape = if form.frames_first {
        [n_rows, frames, bands]
    } else {
        [n_rows, bands, frames]
    };
    memory.view(stored, &shape)
}

/// Normalises each band of `x` by the mean and standard deviation in `stats`.
fn normalised(
    mut x: Tensor,
    stats: &Stats,
    work: Kind,
    device: Device,
) -> Result<Tensor, TchError> {
    // Replace a standard deviation of 0, so that a band that never varies becomes 0 instead of infinite or NaN.
    let std: Vec<f64> = stats
        .std
        .iter()
        .map(|&std| if std > 0.0 { std } else { 1.0 })
        .collect();

    x = x.f_sub_(&by_band(&stats.mean, work, device)?)?;
    x.f_div_(&by_band(&std, work, device)?)
}

/// Returns a tensor `[1, bands, 1]` with one value per band.
fn by_band(values: &[f64], work: Kind, device: Device) -> Result<Tensor, TchError> {
    let bands = Tensor::f_from_slice(values)?.f_view([1, -1, 1])?;
    ffi::send(&bands, device)?.f_to_kind(work)
}
