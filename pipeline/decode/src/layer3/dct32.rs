//! The cosine transform of the synthesis filter: `c[n] = Σ s[k] cos(π / 64 · n (2k + 1))`, a DCT of type II with 32
//! points.
//!
//! Lee's algorithm (IEEE Transactions on Acoustics, Speech and Signal Processing 32, 1984): a transform of half the
//! size computes the even outputs from the sums of opposite points. A second one transforms the differences, each
//! divided by twice its cosine; two consecutive outputs of it add up to an odd output.

use std::f64::consts::PI;
use std::sync::LazyLock;

/// The factors `1 / (2 cos(π (2k + 1) / 2n))` of transforms of `n` points.
#[derive(Debug)]
pub(super) struct Secants {
    of_32: [f32; 16],
    of_16: [f32; 8],
    of_8: [f32; 4],
    of_4: [f32; 2],
    of_2: [f32; 1],
}

impl Secants {
    /// Returns the secant tables, which are created together with the first decoder.
    pub(super) fn get() -> &'static Self {
        static SECANTS: LazyLock<Secants> = LazyLock::new(|| Secants {
            of_32: secants(),
            of_16: secants(),
            of_8: secants(),
            of_4: secants(),
            of_2: secants(),
        });
        &SECANTS
    }
}

fn secants<const HALF: usize>() -> [f32; HALF] {
    std::array::from_fn(|k| {
        let angle = PI * (2 * k + 1) as f64 / (4 * HALF) as f64;
        (0.5 / libm::cos(angle)) as f32
    })
}

/// Defines a cosine transform of `$n` points that uses two transforms of `$half` points.
macro_rules! transform {
    ($name:ident, $n:literal, $half:literal, $secants:ident, $next:ident) => {
        #[inline(always)]
        pub(super) fn $name(s: &[f32; $n], secants: &Secants) -> [f32; $n] {
            let mut sums = [0.0; $half];
            let mut differences = [0.0; $half];
            for k in 0..$half {
                let opposite = s[$n - 1 - k];
                sums[k] = s[k] + opposite;
                differences[k] = (s[k] - opposite) * secants.$secants[k];
            }
            let even = $next(&sums, secants);
            let odd = neighbour_sums($next(&differences, secants));

            let mut c = [0.0; $n];
            for k in 0..$half {
                c[2 * k] = even[k];
                c[2 * k + 1] = odd[k];
            }
            c
        }
    };
}

transform!(dct32, 32, 16, of_32, dct16);
transform!(dct16, 16, 8, of_16, dct8);
transform!(dct8, 8, 4, of_8, dct4);
transform!(dct4, 4, 2, of_4, dct2);
transform!(dct2, 2, 1, of_2, dct1);

#[inline(always)]
fn dct1(s: &[f32; 1], _: &Secants) -> [f32; 1] {
    *s
}

/// Computes the odd outputs of [`dct32`] for samples whose upper half is zero. Its differences of opposite points are
/// then the samples of the lower half. (The even outputs are [`dct16`] of the lower half, because so are the sums.)
#[inline(always)]
pub(super) fn odd_of_dct32(s: &[f32; 16], secants: &Secants) -> [f32; 16] {
    let mut scaled = *s;
    for (value, secant) in scaled.iter_mut().zip(&secants.of_32) {
        *value *= secant;
    }
    neighbour_sums(dct16(&scaled, secants))
}

/// Returns the sums of each value and the next one. The last sum has only one term, because the next term is zero.
#[inline(always)]
fn neighbour_sums<const N: usize>(values: [f32; N]) -> [f32; N] {
    let mut sums = values;
    for k in 1..N {
        sums[k - 1] += values[k];
    }
    sums
}
