//! The bands of each operation: values computed from a spectrum before the logarithm.

use wavemill_options::{FeatureArgs, Op};

use crate::lane::Lane;
use crate::level::Lanes;
use crate::mel;

/// Computes the bands of a block of spectra with precomputed tables, `[n_bins]` → `[n_bands]`, with eight frames each.
pub(super) type BandsPlan = Box<dyn Fn(&[Lane], &mut [Lane]) + Send>;

/// Creates the plan that computes a feature's bands, or returns `None` if the bands are the bins of the spectrum.
pub(super) fn plan(args: &FeatureArgs, lanes: Lanes) -> Option<BandsPlan> {
    match args.op {
        Op::Mel | Op::Mfcc => {
            let mel = args.mel.as_ref()?;
            let plan = mel::MelPlan::new(mel, args.sample_rate_hz, args.stft.n_fft, lanes);
            Some(Box::new(move |spectra, bands| plan.run(spectra, bands)))
        }
        Op::Stft | Op::Statistics | Op::Picture | Op::Image | Op::Pcm | Op::Original => None,
    }
}

/// Computes the bands from their definition, `[n_bins][n_frames]` → `[n_bands][n_frames]`.
#[cfg(test)]
pub(crate) fn reference(args: &FeatureArgs, spectrum: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    match (args.op, &args.mel) {
        (Op::Mel | Op::Mfcc, Some(mel)) => {
            mel::reference::bands(mel, args.sample_rate_hz, args.stft.n_fft, &spectrum)
        }
        (Op::Mel | Op::Mfcc, None) => panic!("without mel bands: {args:?}"),
        (Op::Stft, _) => spectrum,
        (Op::Statistics | Op::Picture | Op::Image | Op::Pcm | Op::Original, _) => {
            panic!("no operation on spectra: {args:?}")
        }
    }
}
