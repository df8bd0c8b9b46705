//! Mel bands as sparse sums: each band reads only the bins under its triangle, for eight frames at once.

use wavemill_options::MelArgs;
use wavemill_signal::{LANES, Lane, Lanes};

/// Plan for computing mel bands: the weights of all bands.
pub(crate) struct MelPlan {
    lanes: Lanes,
    bands: Vec<Band>,
    weights: Vec<f32>,
}

/// The range of bins in a mel band, and the index of the band's first weight.
struct Band {
    first_bin: usize,
    first_weight: usize,
    len: usize,
}

impl MelPlan {
    pub(crate) fn new(args: &MelArgs, sample_rate_hz: u32, n_fft: usize, lanes: Lanes) -> Self {
        let mut bands = Vec::new();
        let mut weights = Vec::new();
        for band in args.bands(sample_rate_hz, n_fft) {
            bands.push(Band {
                first_bin: band.first_bin,
                first_weight: weights.len(),
                len: band.weights.len(),
            });
            weights.extend(band.weights.iter().map(|w| *w as f32));
        }
        Self {
            lanes,
            bands,
            weights,
        }
    }

    /// Computes the bands of a block of spectra, `[n_bins]` → `[n_mels]`, with eight frames each.
    pub(crate) fn run(&self, spectra: &[Lane], out: &mut [Lane]) {
        self.lanes.run(
            #[inline(always)]
            || {
                for (band, out) in self.bands.iter().zip(out) {
                    let bins = &spectra[band.first_bin..][..band.len];
                    *out = weighted_sum(bins, &self.weights[band.first_weight..][..band.len]);
                }
            },
        );
    }
}

/// Returns `Σ bins · weights` in each lane. Four sums are kept, because a single one would wait for its own last
/// addition.
#[inline(always)]
fn weighted_sum(bins: &[Lane], weights: &[f32]) -> Lane {
    let mut sums = [[0.0f32; LANES]; 4];
    let bin_fours = bins.chunks_exact(4);
    let weight_fours = weights.chunks_exact(4);
    let rest = bin_fours.remainder().iter().zip(weight_fours.remainder());

    for (bins, weights) in bin_fours.zip(weight_fours) {
        for ((sum, bin), weight) in sums.iter_mut().zip(bins).zip(weights) {
            for (sum, power) in sum.iter_mut().zip(bin) {
                *sum += power * weight;
            }
        }
    }

    // Up to three bins remain. Add them to the first sum.
    for (bin, weight) in rest {
        for (sum, power) in sums[0].iter_mut().zip(bin) {
            *sum += power * weight;
        }
    }

    // The order of these additions affects the bits of the result, so it is explicit.
    std::array::from_fn(|lane| (sums[0][lane] + sums[1][lane]) + (sums[2][lane] + sums[3][lane]))
}
