//! Reference for tests: the shape of spectra by definition, in f64.

use wavemill_options::{FeatureArgs, Op, ShapeArgs};

/// Returns the number of each frame, `[1][n_frames]`, for spectra raised to the feature's `power`,
/// `[n_bins][n_frames]`.
pub(crate) fn shape(args: &FeatureArgs, spectra: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let bin_hz = f64::from(args.sample_rate_hz) / args.stft.n_fft as f64;
    let n_frames = spectra[0].len();
    let of_frame = |frame: usize| {
        let spectrum: Vec<f64> = spectra.iter().map(|bin| bin[frame]).collect();
        match (&args.shape, args.op) {
            (None, Op::SpectralCentroid) => centroid(&spectrum) * bin_hz,
            (Some(ShapeArgs::Bandwidth { p }), _) => bandwidth(&spectrum, *p) * bin_hz,
            (Some(ShapeArgs::Flatness { amin }), _) => flatness(&spectrum, *amin),
            (Some(ShapeArgs::Rolloff { roll_percent }), _) => {
                rolloff(&spectrum, *roll_percent) * bin_hz
            }
            _ => panic!("not a shape: {args:?}"),
        }
    };
    vec![(0..n_frames).map(of_frame).collect()]
}

/// Returns the mean bin, weighted by magnitudes.
fn centroid(magnitudes: &[f64]) -> f64 {
    let total: f64 = magnitudes.iter().sum();
    let weighted = magnitudes
        .iter()
        .zip(0..)
        .map(|(x, bin)| x * f64::from(bin));
    if total > 0.0 {
        weighted.sum::<f64>() / total
    } else {
        0.0
    }
}

fn bandwidth(magnitudes: &[f64], p: f64) -> f64 {
    let total: f64 = magnitudes.iter().sum();
    if total == 0.0 {
        return 0.0;
    }
    let centroid = centroid(magnitudes);
    let distances = magnitudes.iter().zip(0..);
    let distances = distances.map(|(x, bin)| x / total * (f64::from(bin) - centroid).abs().powf(p));
    distances.sum::<f64>().powf(1.0 / p)
}

fn flatness(powers: &[f64], amin: f64) -> f64 {
    let n = powers.len() as f64;
    let raised = powers.iter().map(|x| x.max(amin));
    let logarithm = raised.clone().map(f64::ln).sum::<f64>() / n;
    logarithm.exp() / (raised.sum::<f64>() / n)
}

/// Returns the first bin up to which the sum of the magnitudes is the given part of the whole.
fn rolloff(magnitudes: &[f64], roll_percent: f64) -> f64 {
    let threshold = roll_percent * magnitudes.iter().sum::<f64>();
    let mut sum = 0.0;
    let reaches = |x: &f64| {
        sum += x;
        sum >= threshold
    };
    magnitudes.iter().position(reaches).unwrap_or(0) as f64
}
