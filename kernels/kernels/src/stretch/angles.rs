//! Sine, cosine and the angle of a complex number by power series, with the same bits on every machine.
//!
//! The results are correct to about the last bit of f64, so that rounding to f32 almost always yields the nearest
//! number, as the C library's functions almost always do. There are no branches and no tables, so that loops can be
//! vectorized.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2, FRAC_PI_4, PI};

/// Adding this to a number below 2^51 and subtracting it again rounds to the nearest whole number, halves to even.
const WHOLE: f64 = 6_755_399_441_055_744.0; // 1.5 · 2^52

/// Parts of π / 2. The first three have at most 20 bits each, so that their products with whole numbers below 2^32 are
/// exact.
const PART_1: f64 = first_bits(FRAC_PI_2);
const PART_2: f64 = first_bits(FRAC_PI_2 - PART_1);
const PART_3: f64 = FRAC_PI_2 - PART_1 - PART_2;
/// The rest of π / 2 that f64 cannot represent.
const PART_4: f64 = 6.123_233_995_736_766e-17;

/// Returns the first 20 bits of `x`.
const fn first_bits(x: f64) -> f64 {
    f64::from_bits(x.to_bits() & !((1 << 33) - 1))
}

/// tan(π / 8): the largest argument of the series of the arc tangent.
const TAN_PI_8: f64 = 0.414_213_562_373_095_1;

/// Terms of the series of the arc tangent: the next term is below 2^-56 of the first one at tan(π / 8).
const ATAN_TERMS: usize = 22;
/// Terms of the series of sine and cosine, for the same precision at π / 4.
const SIN_TERMS: usize = 9;

/// Coefficients of the arc tangent: (-1)^k / (2k + 1).
const ATAN: [f64; ATAN_TERMS] = {
    let mut terms = [0.0; ATAN_TERMS];
    let mut k = 0;
    while k < ATAN_TERMS {
        let sign = if k.is_multiple_of(2) { 1.0 } else { -1.0 };
        terms[k] = sign / (2 * k + 1) as f64;
        k += 1;
    }
    terms
};
/// Coefficients of the sine: (-1)^k / (2k + 1)!
const SIN: [f64; SIN_TERMS] = alternating(1);
/// Coefficients of the cosine: (-1)^k / (2k)!
const COS: [f64; SIN_TERMS] = alternating(0);

/// Returns the coefficients (-1)^k / (2k + first)!
const fn alternating(first: usize) -> [f64; SIN_TERMS] {
    let mut terms = [0.0; SIN_TERMS];
    let mut factorial = 1.0;
    let mut k = 0;
    while k < SIN_TERMS {
        terms[k] = 1.0 / factorial;
        let n = 2 * k + first;
        factorial *= -(((n + 1) * (n + 2)) as f64);
        k += 1;
    }
    terms
}

/// Returns the nearest whole number, halves to even, for numbers below 2^51.
#[inline(always)]
pub(super) fn nearest(x: f64) -> f64 {
    (x + WHOLE) - WHOLE
}

/// Returns sine and cosine of an angle below 2^32 · π / 2.
#[inline(always)]
pub(super) fn sin_cos(angle: f64) -> (f64, f64) {
    // Quarters of a turn, and the rest, which is at most an eighth of a turn.
    let shifted = angle * FRAC_2_PI + WHOLE;
    let quarters = shifted - WHOLE;
    let rest =
        angle - quarters * PART_1 - quarters * PART_2 - quarters * PART_3 - quarters * PART_4;

    let square = rest * rest;
    let sin = rest * series(&SIN, square);
    let cos = series(&COS, square);

    // The last two bits of `shifted` are those of the number of quarter turns.
    let quarter = shifted.to_bits() & 3;
    let (sin, cos) = if quarter & 1 == 1 {
        (cos, sin)
    } else {
        (sin, cos)
    };
    (
        if quarter & 2 == 2 { -sin } else { sin },
        if (quarter + 1) & 2 == 2 { -cos } else { cos },
    )
}

/// Returns the angle of `re + i im`, from -π to π; 0 for zero with any signs.
#[inline(always)]
pub(super) fn angle(re: f64, im: f64) -> f64 {
    let x = re.abs();
    let y = im.abs();
    let steep = y > x;
    let small = if steep { x } else { y };
    let large = if steep { y } else { x };
    let slope = small / if large == 0.0 { 1.0 } else { large };

    // tan(a - π/4) = (tan a - 1) / (tan a + 1).
    let upper = slope > TAN_PI_8;
    let tangent = if upper {
        (slope - 1.0) / (slope + 1.0)
    } else {
        slope
    };
    let atan = tangent * series(&ATAN, tangent * tangent);

    let within = if upper { atan + FRAC_PI_4 } else { atan };
    let quadrant = if steep { FRAC_PI_2 - within } else { within };
    let half = if re < 0.0 { PI - quadrant } else { quadrant };
    half.copysign(im)
}

/// Returns the power series Σ terms[k] · x^k.
#[inline(always)]
fn series<const N: usize>(terms: &[f64; N], x: f64) -> f64 {
    let mut sum = terms[N - 1];
    for k in (0..N - 1).rev() {
        sum = sum * x + terms[k];
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tolerance of angles: two roundings of numbers up to π.
    const ANGLE_MAX: f64 = 1e-15;
    /// Tolerance of sine and cosine: the rounding error of the rest of an angle, a number below 1, and of its parts.
    const SIN_MAX: f64 = 1e-15;

    #[test]
    fn angles_match_the_library() {
        let mut n = 0;
        for i in -300..=300 {
            for j in -300..=300 {
                let (re, im) = (f64::from(i) * 0.37, f64::from(j) * 1.93);
                if re == 0.0 && im == 0.0 {
                    continue;
                }

                let want = libm::atan2(im, re);
                assert!(
                    (angle(re, im) - want).abs() <= ANGLE_MAX,
                    "{re} {im}: {} against {want}",
                    angle(re, im)
                );
                n += 1;
            }
        }

        assert!(n > 300_000);
        assert_eq!(angle(0.0, 0.0), 0.0);
        assert_eq!(angle(-0.0, 0.0), 0.0);
        assert_eq!(angle(-1.0, 0.0), PI);
        assert_eq!(angle(1e-300, 1e-300), FRAC_PI_4);
    }

    #[test]
    fn sine_and_cosine_match_the_library() {
        for exponent in 0..32 {
            for i in 0..1_000 {
                // Angles of the vocoder are f32 numbers, so test such numbers.
                let at = (f64::from(i) * 0.001_234_5 + 1.0) as f32 * (exponent as f32).exp2();
                for angle in [f64::from(at), -f64::from(at), f64::from(at) * 1e-6] {
                    let (sin, cos) = sin_cos(angle);
                    assert!(
                        (sin - libm::sin(angle)).abs() <= SIN_MAX,
                        "sin {angle}: {sin}"
                    );
                    assert!(
                        (cos - libm::cos(angle)).abs() <= SIN_MAX,
                        "cos {angle}: {cos}"
                    );
                }
            }
        }

        assert_eq!(sin_cos(0.0), (0.0, 1.0));
    }

    #[test]
    fn quarter_turn_is_split_without_gaps() {
        assert_eq!(PART_1 + PART_2 + PART_3, FRAC_PI_2);
        // The product of 2^32 - 1 and a number of 20 bits has 52 bits, so f64 represents it exactly.
        let most = f64::from(u32::MAX);
        for part in [PART_1, PART_2] {
            assert_eq!((most * part) / part, most);
            assert!(part.to_bits().trailing_zeros() >= 33);
        }
        assert!(PART_3.to_bits().trailing_zeros() >= 32);
    }

    #[test]
    fn halves_round_to_even() {
        for (x, want) in [
            (0.5, 0.0),
            (1.5, 2.0),
            (-2.5, -2.0),
            (2.51, 3.0),
            (-0.49, 0.0),
        ] {
            assert_eq!(nearest(x), want, "{x}");
        }
    }
}
