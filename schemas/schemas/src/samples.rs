//! Conversion of seconds to samples, with one rounding rule for segments, decoding, shapes, memory and recipe checks.
//!
//! If modules rounded differently, a clip could be decoded to one sample less than its segments need.

/// Returns the number of samples in `seconds` of audio at `rate_hz`, rounded to the nearest integer, half up.
///
/// Durations of a whole number of samples give exactly that number. Rounding down or up would not: at 48,000 Hz the
/// product for 0.009 s is slightly less than 432, and the product for 0.017 s slightly more than 816. Negative
/// durations and NaN give 0; infinity gives `usize::MAX`.
pub fn samples_in(seconds: f64, rate_hz: u32) -> usize {
    (seconds * f64::from(rate_hz)).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Maximum duration in a recipe, in milliseconds.
    const LONGEST_MS: u64 = 10_800_000;
    const USUAL_RATES_HZ: [u32; 9] = [
        8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000,
    ];

    /// Compares the result with integer arithmetic. Durations with a half sample may be rounded either way, depending
    /// on the representation of the decimal numbers as f64.
    fn assert_is_nearest(length_ms: u64, rate_hz: u32) {
        let n_samples = samples_in(length_ms as f64 / 1000.0, rate_hz) as u64;

        let exact_thousandths = length_ms * u64::from(rate_hz);
        let error_thousandths = exact_thousandths.abs_diff(n_samples * 1000);

        assert!(
            error_thousandths <= 500,
            "{length_ms} ms at {rate_hz} Hz gave {n_samples} samples"
        );
    }

    #[test]
    fn every_length_that_a_recipe_may_have_gives_the_nearest_sample() {
        // The step of 7 ms has no factor in common with any usual rate, so all remainders occur.
        for rate_hz in USUAL_RATES_HZ {
            for length_ms in (1..=LONGEST_MS).step_by(7) {
                assert_is_nearest(length_ms, rate_hz);
            }
        }

        for rate_hz in 8_000..=48_000 {
            for length_ms in [1, 250, 1_001, 2_950, 3_000, 9_999, 30_000, LONGEST_MS] {
                assert_is_nearest(length_ms, rate_hz);
            }
        }
    }

    #[test]
    fn rounding_down_or_up_would_miss_a_whole_number_of_samples() {
        let (mut too_few, mut too_many) = (0, 0);
        for length_ms in 1..=LONGEST_MS / 100 {
            let product = length_ms as f64 / 1000.0 * 48_000.0;
            too_few += usize::from(product.floor() as u64 != length_ms * 48);
            too_many += usize::from(product.ceil() as u64 != length_ms * 48);
        }
        assert!(too_few > 0 && too_many > 0, "{too_few}, {too_many}");
    }

    #[test]
    fn invalid_lengths_do_not_wrap() {
        assert_eq!(samples_in(-1.0, 44_100), 0);
        assert_eq!(samples_in(f64::NAN, 44_100), 0);
        assert_eq!(samples_in(f64::INFINITY, 44_100), usize::MAX);
    }
}
