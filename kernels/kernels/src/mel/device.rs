//! A bank of mel bands on a device.

use wavemill_options::FeatureArgs;

use crate::device::{Device, Table, plain};
use crate::error::KernelError;

/// Each row of weights is padded to a multiple of this number of floats, a line of memory.
const LINE_FLOATS: usize = 32;

plain! {
    /// `MelBand` in mel.cu: the range of bins in a mel band.
    struct MelBand {
        first_bin: i32,
        n_bins: i32,
    }
}

/// The bins of each band and their weights, on a device.
pub(crate) struct BandTables<D: Device> {
    /// Number of mel bands.
    pub n_mels: usize,
    /// Table of one `MelBand` per band.
    pub bands: Table<D>,
    /// Table of weights, `[i][band]`, f32: weights of the bands' first bins, then of their second bins, and so on; 0
    /// after a band's last bin.
    pub weights: Table<D>,
    /// Floats in a row of weights: the bands, and zeros up to whole lines.
    pub weight_step: usize,
}

impl<D: Device> BandTables<D> {
    /// Creates the tables. Returns `None` for features without mel bands.
    pub(crate) fn new(device: &D, args: &FeatureArgs) -> Result<Option<Self>, KernelError> {
        let Some(mel) = &args.mel else {
            return Ok(None);
        };
        let bands = mel.bands(args.sample_rate_hz, args.stft.n_fft);
        let weight_step = mel.n_mels.next_multiple_of(LINE_FLOATS);
        let n_bins_max = bands
            .iter()
            .map(|band| band.weights.len())
            .max()
            .unwrap_or(0);

        let mut entries = Vec::with_capacity(bands.len());
        let mut weights = vec![0.0_f32; n_bins_max * weight_step];
        for (place, band) in bands.iter().enumerate() {
            entries.push(MelBand {
                first_bin: band.first_bin as i32,
                n_bins: band.weights.len() as i32,
            });
            for (i, weight) in band.weights.iter().enumerate() {
                // Weights of one index are adjacent, because neighbouring threads compute neighbouring bands.
                weights[i * weight_step + place] = *weight as f32;
            }
        }

        let bands = Table::new(device, &entries)?;
        let weights = Table::new(device, &weights)?;
        Ok(Some(Self {
            n_mels: mel.n_mels,
            bands,
            weights,
            weight_step,
        }))
    }
}
