//! A recipe's feature section → kernels' arguments. The preset's defaults live in kernels; here words become types.

use wavemill_kernels::{
    DbArgs, DbRef, DimOrder, Dtype, FeatureArgs, KernelError, Normalize, Op, Overrides, Preset,
};
use wavemill_schemas::recipe::{self, DbSpec, FeatureSpec};

/// Resolves one feature for PCM of `sample_rate_hz`.
///
/// # Errors
/// [`KernelError::Argument`] that names the key and what is allowed.
pub fn resolve(spec: &FeatureSpec, sample_rate_hz: u32) -> Result<FeatureArgs, KernelError> {
    let op = match spec.op {
        recipe::Op::Stft => Op::Stft,
        recipe::Op::Mel => Op::Mel,
        recipe::Op::Mfcc => Op::Mfcc,
    };
    let preset: Preset = spec.preset.name().parse()?;
    // What a recipe leaves out is the preset's.
    let overrides = Overrides {
        n_fft: spec.n_fft,
        hop_length: spec.hop_length,
        win_length: spec.win_length,
        window: spec.window.as_deref().map(str::parse).transpose()?,
        center: spec.center,
        pad_mode: spec.pad_mode.as_deref().map(str::parse).transpose()?,
        power: spec.power,
        n_mels: spec.n_mels,
        fmin: spec.fmin,
        fmax: spec.fmax,
        htk: spec.htk,
        norm: spec.norm.as_deref().map(str::parse).transpose()?,
        n_mfcc: spec.n_mfcc,
        dct_type: spec.dct_type,
        lifter: spec.lifter,
        delta: spec.delta,
        db: spec.db.as_ref().map(db),
        normalize: match spec.normalize {
            recipe::Normalize::None => Normalize::None,
            recipe::Normalize::Minmax => Normalize::MinMax,
            recipe::Normalize::Meanvar => Normalize::MeanVar,
        },
        dtype: spec.dtype.map(|dtype| match dtype {
            recipe::Dtype::F16 => Dtype::F16,
            recipe::Dtype::F32 => Dtype::F32,
            recipe::Dtype::U8 => Dtype::U8,
        }),
        dim_order: spec
            .dim_order
            .as_deref()
            .map(|text| DimOrder::parse(text, op))
            .transpose()?
            .unwrap_or_default(),
        frames: spec.frames,
    };
    FeatureArgs::resolve(op, preset, sample_rate_hz, &overrides)
}

fn db(spec: &DbSpec) -> DbArgs {
    let reference = match &spec.reference {
        recipe::DbRef::Value(power) => DbRef::Power(*power),
        // The parser lets no other name through.
        recipe::DbRef::Name(_) => DbRef::Max,
    };
    DbArgs {
        reference,
        amin: spec.amin,
        top_db: spec.top_db,
    }
}
