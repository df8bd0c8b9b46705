//! A bank of bands on a device.

use crate::args::FeatureArgs;
use crate::device::{Device, Table, plain};
use crate::error::KernelError;

plain! {
    /// `MelBand` in mel.cu.
    struct MelBand {
        first_bin: i32,
        first_weight: i32,
        n_bins: i32,
        reserved: i32,
    }
}

/// Where the bands' bins and weights lie, and the weights.
pub(crate) struct BandTables<D: Device> {
    /// Bands.
    pub n_mels: usize,
    /// `MelBand` of each.
    pub bands: Table<D>,
    /// Weights of all, f32.
    pub weights: Table<D>,
}

impl<D: Device> BandTables<D> {
    /// `None` for features without bands.
    pub(crate) fn new(device: &D, args: &FeatureArgs) -> Result<Option<Self>, KernelError> {
        let Some(mel) = &args.mel else { return Ok(None) };
        let (mut bands, mut weights) = (Vec::new(), Vec::new());
        for (first_bin, under) in mel.bands(args.sample_rate_hz, args.stft.n_fft) {
            let band = MelBand {
                first_bin: first_bin as i32,
                first_weight: weights.len() as i32,
                n_bins: under.len() as i32,
                reserved: 0,
            };
            bands.push(band);
            weights.extend(under.iter().map(|w| *w as f32));
        }
        let (bands, weights) = (Table::new(device, &bands)?, Table::new(device, &weights)?);
        Ok(Some(Self { n_mels: mel.n_mels, bands, weights }))
    }
}
