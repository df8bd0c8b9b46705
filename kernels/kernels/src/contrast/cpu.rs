//! Finds the largest and the smallest bins of a band in eight frames at once.
//!
//! The order of powers is that of magnitudes, so only the roots of the bins that were found are computed.

use wavemill_options::{ContrastArgs, ContrastBand};
use wavemill_signal::{LANES, Lane, Lanes};

/// Largest number of extremes that are kept ordered in registers. Bands that need more are sorted.
const ORDERED_MAX: usize = 16;

/// The bands of the spectral contrast.
pub(crate) struct ContrastPlan {
    lanes: Lanes,
    bands: Vec<ContrastBand>,
}

impl ContrastPlan {
    pub(crate) fn new(
        args: &ContrastArgs,
        sample_rate_hz: u32,
        n_fft: usize,
        lanes: Lanes,
    ) -> Self {
        Self {
            lanes,
            bands: args.bands(sample_rate_hz, n_fft),
        }
    }

    /// Computes the peaks of all bands, followed by their valleys, from the powers of eight frames.
    pub(crate) fn run(&self, powers: &[Lane], out: &mut [Lane]) {
        let (peaks, valleys) = out.split_at_mut(self.bands.len());
        let each = self.bands.iter().zip(peaks).zip(valleys);
        for ((band, peak), valley) in each {
            let bins = &powers[band.first_bin..][..band.n_bins];
            (*peak, *valley) = self.lanes.run(
                #[inline(always)]
                || means(bins, band.n_extremes),
            );
        }
    }
}

/// Replaces the peaks, which are the first half of `values`, by peaks minus valleys.
pub(crate) fn difference(values: &[f32], out: &mut [f32]) {
    let (peaks, valleys) = values.split_at(values.len() / 2);
    for (out, (peak, valley)) in out.iter_mut().zip(peaks.iter().zip(valleys)) {
        *out = peak - valley;
    }
}

/// Returns the mean magnitudes of the `n` largest and the `n` smallest powers in each lane.
#[inline(always)]
fn means(bins: &[Lane], n: usize) -> (Lane, Lane) {
    // The number is a constant of each function, so that the ordered values stay in registers.
    match n {
        1 => ordered::<1>(bins),
        2 => ordered::<2>(bins),
        3 => ordered::<3>(bins),
        4 => ordered::<4>(bins),
        5 => ordered::<5>(bins),
        6 => ordered::<6>(bins),
        7 => ordered::<7>(bins),
        8 => ordered::<8>(bins),
        9 => ordered::<9>(bins),
        10 => ordered::<10>(bins),
        11 => ordered::<11>(bins),
        12 => ordered::<12>(bins),
        13 => ordered::<13>(bins),
        14 => ordered::<14>(bins),
        15 => ordered::<15>(bins),
        ORDERED_MAX => ordered::<ORDERED_MAX>(bins),
        _ => sorted(bins, n),
    }
}

/// Inserts each bin into the `N` largest and the `N` smallest so far.
#[inline(always)]
fn ordered<const N: usize>(bins: &[Lane]) -> (Lane, Lane) {
    let mut largest = [[f32::NEG_INFINITY; LANES]; N];
    for bin in bins {
        let mut moved = *bin;
        for kept in &mut largest {
            let larger = larger(kept, &moved);
            moved = smaller(kept, &moved);
            *kept = larger;
        }
    }

    let mut smallest = [[f32::INFINITY; LANES]; N];
    for bin in bins {
        let mut moved = *bin;
        for kept in &mut smallest {
            let smaller = smaller(kept, &moved);
            moved = larger(kept, &moved);
            *kept = smaller;
        }
    }
    (mean_magnitude(&largest), mean_magnitude(&smallest))
}

// No power is NaN. `f32::max` would check for it, which takes twice as long as the comparison.
#[inline(always)]
fn larger(a: &Lane, b: &Lane) -> Lane {
    std::array::from_fn(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
}

#[inline(always)]
fn smaller(a: &Lane, b: &Lane) -> Lane {
    std::array::from_fn(|lane| if a[lane] < b[lane] { a[lane] } else { b[lane] })
}

#[inline(always)]
fn mean_magnitude(powers: &[Lane]) -> Lane {
    std::array::from_fn(|lane| {
        let magnitudes = powers.iter().map(|power| power[lane].sqrt());
        magnitudes.sum::<f32>() / powers.len() as f32
    })
}

fn sorted(bins: &[Lane], n: usize) -> (Lane, Lane) {
    let mut peaks = [0.0; LANES];
    let mut valleys = [0.0; LANES];
    let mut powers = Vec::with_capacity(bins.len());
    for lane in 0..LANES {
        powers.clear();
        powers.extend(bins.iter().map(|bin| bin[lane]));
        powers.sort_unstable_by(f32::total_cmp);

        let mean = |powers: &[f32]| powers.iter().map(|x| x.sqrt()).sum::<f32>() / n as f32;
        peaks[lane] = mean(&powers[powers.len() - n..]);
        valleys[lane] = mean(&powers[..n]);
    }
    (peaks, valleys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordered_values_are_those_of_sorting() {
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Few different values, so that many are equal.
            f32::from((state >> 28) as u8)
        };
        for n_bins in [1, 2, 5, 16, 40] {
            let bins: Vec<Lane> = (0..n_bins)
                .map(|_| std::array::from_fn(|_| next()))
                .collect();
            for n in 1..=ORDERED_MAX.min(n_bins) {
                let (peaks, valleys) = means(&bins, n);
                let (want_peaks, want_valleys) = sorted(&bins, n);
                for lane in 0..LANES {
                    assert!(
                        (peaks[lane] - want_peaks[lane]).abs() < 1e-5,
                        "{n} of {n_bins}"
                    );
                    assert!(
                        (valleys[lane] - want_valleys[lane]).abs() < 1e-5,
                        "{n} of {n_bins}"
                    );
                }
            }
        }
    }
}
