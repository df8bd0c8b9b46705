//! Computes the shape of eight spectra at once, in units of bins until the end.

use wavemill_options::{FeatureArgs, Op, ShapeArgs};
use wavemill_signal::{LANES, Lane, Lanes};

/// Number of bins whose magnitudes are summed before the sums are searched for the roll-off, and whose mantissas are
/// multiplied before the exponent of the product is removed: the product of 32 numbers below 2 stays finite.
const GROUP: usize = 32;

/// One operation on the shape of a spectrum.
pub(crate) struct ShapePlan {
    lanes: Lanes,
    shape: Shape,
    /// Distance between two bins in Hz.
    bin_hz: f32,
    /// Buffer of the roll-off.
    of_groups: Vec<Lane>,
}

#[derive(Clone, Copy)]
enum Shape {
    Centroid,
    Bandwidth { p: f64 },
    Flatness { amin: f32 },
    Rolloff { part: f32 },
}

impl ShapePlan {
    /// Creates a plan; `None` if the feature's operation is not one of [`Shape`].
    pub(crate) fn new(args: &FeatureArgs, lanes: Lanes) -> Option<Self> {
        let shape = match (args.op, &args.shape) {
            (Op::SpectralCentroid, _) => Shape::Centroid,
            (_, Some(ShapeArgs::Bandwidth { p })) => Shape::Bandwidth { p: *p },
            (_, Some(ShapeArgs::Flatness { amin })) => Shape::Flatness { amin: *amin as f32 },
            (_, Some(ShapeArgs::Rolloff { roll_percent })) => Shape::Rolloff {
                part: *roll_percent as f32,
            },
            _ => return None,
        };
        Some(Self {
            lanes,
            shape,
            bin_hz: (f64::from(args.sample_rate_hz) / args.stft.n_fft as f64) as f32,
            of_groups: Vec::new(),
        })
    }

    /// Computes one number for each of eight spectra, which are magnitudes; for the flatness, powers.
    pub(crate) fn run(&mut self, spectra: &[Lane], out: &mut [Lane]) {
        let bins = self.lanes.run(
            #[inline(always)]
            || match self.shape {
                Shape::Centroid => centroids(spectra).mean,
                Shape::Bandwidth { p } => bandwidths(spectra, p),
                Shape::Flatness { amin } => flatnesses(spectra, amin),
                Shape::Rolloff { part } => rolloffs(spectra, part, &mut self.of_groups),
            },
        );
        out[0] = match self.shape {
            Shape::Flatness { .. } => bins,
            Shape::Centroid | Shape::Bandwidth { .. } | Shape::Rolloff { .. } => {
                bins.map(|bin| bin * self.bin_hz)
            }
        };
    }
}

/// The sum of each spectrum's magnitudes, and the mean bin that they weight.
struct Centroids {
    total: Lane,
    mean: Lane,
}

#[inline(always)]
fn centroids(magnitudes: &[Lane]) -> Centroids {
    let [total, weighted] = sums(magnitudes, |x, bin, _| [x, x * bin]);
    Centroids {
        total,
        mean: std::array::from_fn(|lane| ratio(weighted[lane], total[lane])),
    }
}

#[inline(always)]
fn bandwidths(magnitudes: &[Lane], p: f64) -> Lane {
    let Centroids { total, mean } = centroids(magnitudes);
    if p == 2.0 {
        let [squares] = sums(magnitudes, |x, bin, lane| {
            let distance = bin - mean[lane];
            [x * (distance * distance)]
        });
        return std::array::from_fn(|lane| ratio(squares[lane], total[lane]).sqrt());
    }

    // Other exponents are rare, and their powers may exceed f32.
    std::array::from_fn(|lane| {
        let mut sum = 0.0;
        for (bin, magnitude) in magnitudes.iter().enumerate() {
            let distance = (bin as f64 - f64::from(mean[lane])).abs();
            sum += f64::from(magnitude[lane]) * libm::pow(distance, p);
        }
        if total[lane] < f32::MIN_POSITIVE {
            return 0.0;
        }
        libm::pow(sum / f64::from(total[lane]), 1.0 / p) as f32
    })
}

/// Returns `N` sums over the bins of each lane, of the terms that `of_bin` returns for a magnitude, its bin and its
/// lane. Each sum has four parts, because a single one would wait for its own last addition.
#[inline(always)]
fn sums<const N: usize>(
    magnitudes: &[Lane],
    of_bin: impl Fn(f32, f32, usize) -> [f32; N],
) -> [Lane; N] {
    let add_bin = |parts: &mut [Lane; N], magnitude: &Lane, bin: f32| {
        let terms: [[f32; N]; LANES] =
            std::array::from_fn(|lane| of_bin(magnitude[lane], bin, lane));
        for (n, part) in parts.iter_mut().enumerate() {
            add(part, &std::array::from_fn(|lane| terms[lane][n]));
        }
    };

    let mut parts = [[[0.0f32; LANES]; N]; 4];
    let (fours, rest) = magnitudes.as_chunks::<4>();
    let mut bin = 0.0;
    for four in fours {
        for (parts, magnitude) in parts.iter_mut().zip(four) {
            add_bin(parts, magnitude, bin);
            bin += 1.0;
        }
    }
    for magnitude in rest {
        add_bin(&mut parts[0], magnitude, bin);
        bin += 1.0;
    }

    // The order of these additions affects the bits of the result, so it is explicit.
    std::array::from_fn(|n| {
        std::array::from_fn(|lane| {
            (parts[0][n][lane] + parts[1][n][lane]) + (parts[2][n][lane] + parts[3][n][lane])
        })
    })
}

/// Computes exp(mean ln x) / mean x, from the product of the mantissas and the sum of the exponents: a logarithm of each
/// bin would take longer than the transform.
#[inline(always)]
fn flatnesses(powers: &[Lane], amin: f32) -> Lane {
    let mut sum = [0.0f32; LANES];
    let mut exponents = [0i32; LANES];
    let mut mantissas = [1.0f32; LANES];
    for group in powers.chunks(GROUP) {
        let mut group_sum = [0.0f32; LANES];
        for power in group {
            let raised = power.map(|x| if x > amin { x } else { amin });
            add(&mut group_sum, &raised);
            split_off(&raised, &mut exponents, &mut mantissas);
        }
        add(&mut sum, &group_sum);
        let product = std::mem::replace(&mut mantissas, [1.0; LANES]);
        split_off(&product, &mut exponents, &mut mantissas);
    }

    let n = powers.len() as f64;
    std::array::from_fn(|lane| {
        let log2 = f64::from(exponents[lane]) + libm::log2(f64::from(mantissas[lane]));
        (libm::exp2(log2 / n) / (f64::from(sum[lane]) / n)) as f32
    })
}

/// Adds the exponents of normal positive numbers to `exponents`, and multiplies `mantissas` by their mantissas, which
/// are in [1, 2).
#[inline(always)]
fn split_off(numbers: &Lane, exponents: &mut [i32; LANES], mantissas: &mut Lane) {
    let bits = numbers.map(f32::to_bits);
    for (exponent, bits) in exponents.iter_mut().zip(bits) {
        // A check for overflow, which cannot happen, would keep the loop from being vectorized.
        *exponent = exponent.wrapping_add((bits >> 23) as i32).wrapping_sub(127);
    }
    for (mantissa, bits) in mantissas.iter_mut().zip(bits) {
        *mantissa *= f32::from_bits((bits & 0x007f_ffff) | 0x3f80_0000);
    }
}

/// Returns the first bin up to which the sum of the magnitudes is the given part of the whole. `of_groups` is a buffer
/// for the sums of groups of bins: only the bins of the group that reaches the threshold are added one by one.
#[inline(always)]
fn rolloffs(magnitudes: &[Lane], part: f32, of_groups: &mut Vec<Lane>) -> Lane {
    of_groups.clear();
    let mut total = [0.0f32; LANES];
    for group in magnitudes.chunks(GROUP) {
        let [sum] = sums(group, |x, _, _| [x]);
        add(&mut total, &sum);
        of_groups.push(total);
    }

    std::array::from_fn(|lane| {
        let threshold = total[lane] * part;
        let reached = of_groups.partition_point(|sum| sum[lane] < threshold);
        let mut sum = match reached {
            0 => 0.0,
            _ => of_groups[reached - 1][lane],
        };
        let first = reached * GROUP;
        let last = magnitudes.len().min(first + GROUP) - 1;
        for (bin, magnitude) in (first..last).zip(&magnitudes[first..last]) {
            sum += magnitude[lane];
            if sum >= threshold {
                return bin as f32;
            }
        }
        // The sum of the whole group reaches the threshold, possibly in another order of its additions.
        last as f32
    })
}

#[inline(always)]
fn add(sum: &mut Lane, terms: &Lane) {
    for (sum, term) in sum.iter_mut().zip(terms) {
        *sum += term;
    }
}

/// Returns `x / total`, or 0 for a spectrum of zeros.
#[inline(always)]
fn ratio(x: f32, total: f32) -> f32 {
    if total >= f32::MIN_POSITIVE {
        x / total
    } else {
        0.0
    }
}
