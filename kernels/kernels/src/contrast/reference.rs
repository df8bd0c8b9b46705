//! Reference for tests: the spectral contrast by its definition, in f64.

use wavemill_options::ContrastArgs;

/// Returns peaks and valleys, `[2 · (n_bands + 1)][n_frames]`, of powers, `[n_bins][n_frames]`.
pub(crate) fn peaks_and_valleys(
    args: &ContrastArgs,
    sample_rate_hz: u32,
    n_fft: usize,
    powers: &[Vec<f64>],
) -> Vec<Vec<f64>> {
    let n_frames = powers[0].len();
    let bands = args.bands(sample_rate_hz, n_fft);
    let mut peaks = Vec::new();
    let mut valleys = Vec::new();

    for band in bands {
        let mean_of = |is_peak: bool, frame: usize| {
            let bins = &powers[band.first_bin..][..band.n_bins];
            let mut magnitudes: Vec<f64> = bins.iter().map(|bin| bin[frame].sqrt()).collect();
            magnitudes.sort_unstable_by(f64::total_cmp);
            if is_peak {
                magnitudes.reverse();
            }

            magnitudes[..band.n_extremes].iter().sum::<f64>() / band.n_extremes as f64
        };

        peaks.push((0..n_frames).map(|frame| mean_of(true, frame)).collect());
        valleys.push((0..n_frames).map(|frame| mean_of(false, frame)).collect());
    }

    peaks.extend(valleys);
    peaks
}

/// Returns peaks minus valleys.
pub(crate) fn difference(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let (peaks, valleys) = rows.split_at(rows.len() / 2);
    let each = peaks.iter().zip(valleys);
    each.map(|(peaks, valleys)| peaks.iter().zip(valleys).map(|(p, v)| p - v).collect())
        .collect()
}
