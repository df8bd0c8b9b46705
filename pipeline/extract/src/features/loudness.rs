//! Measures loudness as EBU R128 and ITU-R BS.1770-4 define it.

use ebur128::{EbuR128, Mode};

/// Numbers of a row that is silent, or too short or too quiet to be measured: the absolute gate of the loudness, no range,
/// and the peak of one step of 24 bits.
const SILENCE_LUFS: f64 = -70.0;
const SILENCE_PEAK_DB: f64 = -144.5;

/// Measures rows of mono samples of one rate.
pub(super) struct LoudnessMeter {
    sample_rate_hz: u32,
    /// Filters and buffers, which the first row creates.
    meter: Option<EbuR128>,
}

impl LoudnessMeter {
    /// Upper bound on the bytes of a meter: three seconds of samples in f64 at the highest rate, and two numbers for each
    /// tenth of a second of the longest clip.
    pub(super) const BYTES: u64 = 4 << 20;

    pub(super) const fn new(sample_rate_hz: u32) -> Self {
        Self {
            sample_rate_hz,
            meter: None,
        }
    }

    /// Returns the integrated loudness in LUFS, the loudness range in LU and the true peak in dBTP, as f32 bytes.
    pub(super) fn measure(&mut self, samples: &[f32]) -> Vec<u8> {
        let numbers = self
            .numbers(samples)
            .unwrap_or([SILENCE_LUFS, 0.0, SILENCE_PEAK_DB]);
        numbers
            .iter()
            .flat_map(|x| (*x as f32).to_le_bytes())
            .collect()
    }

    /// Returns `None` if the crate refuses the rate, which recipes limit to rates that it accepts.
    fn numbers(&mut self, samples: &[f32]) -> Option<[f64; 3]> {
        let meter = match &mut self.meter {
            Some(meter) => meter,
            none => {
                let mode = Mode::I | Mode::LRA | Mode::TRUE_PEAK;
                none.insert(EbuR128::new(1, self.sample_rate_hz, mode).ok()?)
            }
        };
        meter.reset();
        meter.add_frames_f32(samples).ok()?;

        let loudness_lufs = meter.loudness_global().ok()?;
        let peak_db = 20.0 * meter.true_peak(0).ok()?.log10();
        Some([
            loudness_lufs.max(SILENCE_LUFS),
            meter.loudness_range().ok()?,
            peak_db.max(SILENCE_PEAK_DB),
        ])
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    const RATE_HZ: u32 = 48_000;

    /// Returns a tone of 1 kHz whose level in dB relative to full scale changes: pairs of seconds and level. The EBU's
    /// signals have two equal channels, whose sum is 3.01 dB louder than one.
    fn tone(parts: &[(f64, f64)]) -> Vec<f32> {
        let mut samples = Vec::new();
        for (seconds, level_db) in parts {
            let amplitude = 10f64.powf((level_db + 3.0103) / 20.0);
            for _ in 0..(seconds * f64::from(RATE_HZ)) as usize {
                let phase = TAU * 1000.0 * samples.len() as f64 / f64::from(RATE_HZ);
                samples.push((amplitude * phase.sin()) as f32);
            }
        }
        samples
    }

    fn measured(samples: &[f32], rate_hz: u32) -> [f32; 3] {
        let bytes = LoudnessMeter::new(rate_hz).measure(samples);
        let (numbers, _) = bytes.as_chunks();
        [0, 1, 2].map(|n| f32::from_le_bytes(numbers[n]))
    }

    /// Cases 1 to 5 of EBU Tech 3341, and 1 to 4 of Tech 3342.
    #[test]
    fn test_signals_of_the_ebu_have_their_loudness() {
        for (parts, lufs) in [
            (&[(20.0, -23.0)][..], -23.0),
            (&[(20.0, -33.0)], -33.0),
            (&[(10.0, -36.0), (60.0, -23.0), (10.0, -36.0)], -23.0),
            (
                &[
                    (10.0, -72.0),
                    (10.0, -36.0),
                    (60.0, -23.0),
                    (10.0, -36.0),
                    (10.0, -72.0),
                ],
                -23.0,
            ),
            (&[(20.0, -26.0), (20.1, -20.0), (20.0, -26.0)], -23.0),
        ] {
            let [loudness, ..] = measured(&tone(parts), RATE_HZ);
            assert!((loudness - lufs).abs() <= 0.1, "{parts:?}: {loudness}");
        }

        for (parts, range) in [
            (&[(20.0, -20.0), (20.0, -30.0)][..], 10.0),
            (&[(20.0, -20.0), (20.0, -15.0)], 5.0),
            (&[(20.0, -40.0), (20.0, -20.0)], 20.0),
            (
                &[
                    (20.0, -50.0),
                    (20.0, -35.0),
                    (20.0, -20.0),
                    (20.0, -35.0),
                    (20.0, -50.0),
                ],
                15.0,
            ),
        ] {
            let [_, measured, _] = measured(&tone(parts), RATE_HZ);
            assert!((measured - range).abs() <= 1.0, "{parts:?}: {measured}");
        }
    }

    /// A tone of a quarter of the rate, sampled at 45 degrees, has its peaks between the samples.
    #[test]
    fn true_peaks_lie_between_samples() {
        let samples: Vec<f32> = (0..RATE_HZ)
            .map(|i| if i % 4 < 2 { 0.5 } else { -0.5 } * std::f32::consts::FRAC_1_SQRT_2)
            .collect();
        let [_, _, peak] = measured(&samples, RATE_HZ);
        assert!((peak - -6.02).abs() < 0.4, "{peak}");
    }

    #[test]
    fn every_row_has_finite_numbers() {
        let silence = [-70.0, 0.0, -144.5];
        for rate_hz in [8_000, 22_050, 48_000] {
            assert_eq!(measured(&[], rate_hz), silence);
            assert_eq!(measured(&[0.0; 9_000], rate_hz), silence);
            let loudest = measured(&[1_048_576.0; 48_000], rate_hz);
            assert!(loudest.iter().all(|x| x.is_finite()), "{loudest:?}");
        }

        // A meter forgets the row before.
        let mut meter = LoudnessMeter::new(RATE_HZ);
        let first = meter.measure(&tone(&[(5.0, -23.0)]));
        meter.measure(&tone(&[(5.0, -3.0)]));
        assert_eq!(meter.measure(&tone(&[(5.0, -23.0)])), first);
    }
}
