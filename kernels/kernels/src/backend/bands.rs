//! The bands of each operation: values computed from a spectrum before the logarithm.

use wavemill_options::{FeatureArgs, Op};
use wavemill_signal::{Lane, Lanes};

use crate::chroma::ClassesPlan;
use crate::contrast::ContrastPlan;
use crate::mel::MelPlan;
use crate::shape::ShapePlan;

/// Computes the bands of a block of spectra with precomputed tables, `[n_bins]` → `[n_bands]`, with eight frames each.
pub(super) type BandsPlan = Box<dyn FnMut(&[Lane], &mut [Lane]) + Send>;

/// Creates the plan that computes a feature's bands, or returns `None` if the bands are the bins of the spectrum.
pub(super) fn plan(args: &FeatureArgs, lanes: Lanes) -> Option<BandsPlan> {
    let (rate_hz, n_fft) = (args.sample_rate_hz, args.stft.n_fft);

    match args.op {
        Op::Mel | Op::Mfcc | Op::OnsetStrength | Op::Tempogram | Op::BeatTrack => {
            let plan = MelPlan::new(args.mel.as_ref()?, rate_hz, n_fft, lanes);
            Some(Box::new(move |spectra, bands| plan.run(spectra, bands)))
        }

        Op::SpectralContrast => {
            let plan = ContrastPlan::new(args.contrast()?, rate_hz, n_fft, lanes);
            Some(Box::new(move |spectra, bands| plan.run(spectra, bands)))
        }

        Op::SpectralCentroid
        | Op::SpectralBandwidth
        | Op::SpectralFlatness
        | Op::SpectralRolloff => {
            let mut plan = ShapePlan::new(args, lanes)?;
            Some(Box::new(move |spectra, bands| plan.run(spectra, bands)))
        }

        Op::ChromaCqt | Op::ChromaCens | Op::Tonnetz => {
            let mut plan = ClassesPlan::new(args, lanes)?;
            Some(Box::new(move |magnitudes, bands| {
                plan.run(magnitudes, bands);
            }))
        }

        Op::Stft | Op::Rms | Op::ZeroCrossingRate | Op::ChromaStft | Op::Cqt | Op::Vqt => None,
        Op::Statistics
        | Op::Tempo
        | Op::Picture
        | Op::Image
        | Op::Pcm
        | Op::Loudness
        | Op::Original
        | Op::Onnx => None,
    }
}

/// Computes the bands from their definition, `[n_bins][n_frames]` → `[n_bands][n_frames]`.
#[cfg(test)]
pub(crate) fn reference(args: &FeatureArgs, spectrum: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let (rate_hz, n_fft) = (args.sample_rate_hz, args.stft.n_fft);

    match args.op {
        Op::Mel | Op::Mfcc | Op::OnsetStrength | Op::Tempogram | Op::BeatTrack => {
            let mel = args.mel.as_ref().expect("an operation with mel bands");
            crate::mel::reference::bands(mel, rate_hz, n_fft, &spectrum)
        }

        Op::SpectralContrast => {
            let contrast = args.contrast().expect("its options");
            crate::contrast::reference::peaks_and_valleys(contrast, rate_hz, n_fft, &spectrum)
        }

        Op::SpectralCentroid
        | Op::SpectralBandwidth
        | Op::SpectralFlatness
        | Op::SpectralRolloff => crate::shape::reference::shape(args, &spectrum),
        Op::ChromaCqt | Op::ChromaCens | Op::Tonnetz => {
            crate::chroma::reference::of_constant_q(args, &spectrum)
        }
        Op::Stft | Op::Rms | Op::ZeroCrossingRate | Op::ChromaStft | Op::Cqt | Op::Vqt => spectrum,

        Op::Statistics
        | Op::Tempo
        | Op::Picture
        | Op::Image
        | Op::Pcm
        | Op::Loudness
        | Op::Original
        | Op::Onnx => {
            panic!("no operation on spectra: {args:?}")
        }
    }
}
