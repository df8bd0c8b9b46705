//! Options that replace the values of a preset.

use crate::args::{DimOrder, Normalize, Op};
use crate::db::DbArgs;
use crate::mel::Norm;
use crate::pack::Dtype;
use crate::stft::{PadMode, Window};

/// Values that replace those of a preset; absent ones keep the preset's value. Names, units and meanings are those of
/// [`FeatureArgs`](crate::FeatureArgs).
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // documented in `FeatureArgs`
pub struct Overrides {
    pub n_fft: Option<usize>,
    pub hop_length: Option<usize>,
    pub win_length: Option<usize>,
    pub window: Option<Window>,
    pub center: Option<bool>,
    pub pad_mode: Option<PadMode>,
    pub power: Option<f64>,
    pub n_mels: Option<usize>,
    pub fmin: Option<f64>,
    pub fmax: Option<f64>,
    pub htk: Option<bool>,
    pub norm: Option<Norm>,
    pub n_mfcc: Option<usize>,
    pub dct_type: Option<u8>,
    pub lifter: Option<f64>,
    pub delta: Option<u8>,
    pub db: Option<DbArgs>,
    pub normalize: Normalize,
    pub dtype: Option<Dtype>,
    pub dim_order: DimOrder,
    pub frames: Option<usize>,
}

/// An option with its name and the operations that support it.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) ops: &'static [Op],
    pub(crate) is_given: bool,
}

impl Key {
    const fn new(name: &'static str, ops: &'static [Op], is_given: bool) -> Self {
        Self {
            name,
            ops,
            is_given,
        }
    }
}

const ALL: &[Op] = &[Op::Stft, Op::Mel, Op::Mfcc];
const WITH_BANDS: &[Op] = &[Op::Mel, Op::Mfcc];
const WITH_CEPSTRA: &[Op] = &[Op::Mfcc];

impl Overrides {
    /// Returns all options that may have impossible values or that some operations do not support.
    pub(crate) fn keys(&self) -> [Key; 16] {
        [
            Key::new("n_fft", ALL, self.n_fft.is_some()),
            Key::new("hop_length", ALL, self.hop_length.is_some()),
            Key::new("win_length", ALL, self.win_length.is_some()),
            Key::new("power", ALL, self.power.is_some()),
            Key::new("n_mels", WITH_BANDS, self.n_mels.is_some()),
            Key::new("fmin", WITH_BANDS, self.fmin.is_some()),
            Key::new("fmax", WITH_BANDS, self.fmax.is_some()),
            Key::new("htk", WITH_BANDS, self.htk.is_some()),
            Key::new("norm", WITH_BANDS, self.norm.is_some()),
            Key::new("n_mfcc", WITH_CEPSTRA, self.n_mfcc.is_some()),
            Key::new("dct_type", WITH_CEPSTRA, self.dct_type.is_some()),
            Key::new("lifter", WITH_CEPSTRA, self.lifter.is_some()),
            Key::new("delta", ALL, self.delta.is_some()),
            Key::new("db", ALL, self.db.is_some()),
            Key::new("dtype", ALL, self.dtype.is_some()),
            Key::new("frames", ALL, self.frames.is_some()),
        ]
    }
}
