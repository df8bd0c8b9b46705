//! Effects on a complete recording: reverb, tone, master and worn record. Except for the record, they depend on the
//! artist, so they must not identify the genre.

use super::Canvas;
use crate::rng::Rng;

/// Adds reverb from four comb filters per channel (Schroeder 1962); `amount` is from 0 to 1.
pub(crate) fn reverb(canvas: &mut Canvas, amount: f32) {
    // Longer delays in the right channel widen the stereo image.
    for (samples, spread) in [(&mut canvas.left, 0.0), (&mut canvas.right, 0.0007)] {
        let dry = samples.clone();

        // No delay is a multiple of another, so that their echoes rarely coincide.
        for delay_s in [0.0297, 0.0371, 0.0411, 0.0437] {
            let delay = ((delay_s + spread) * canvas.rate_hz) as usize;
            let mut line = vec![0.0; delay];
            for (i, (out, input)) in samples.iter_mut().zip(&dry).enumerate() {
                let slot = &mut line[i % delay];
                *slot = input + 0.74 * *slot;
                *out += 0.22 * amount * *slot;
            }
        }
    }
}

/// Tilts the spectrum around 1 kHz: brighter for `tilt` > 0, darker for `tilt` < 0.
pub(crate) fn tilt(canvas: &mut Canvas, tilt: f32) {
    let pole = (-std::f32::consts::TAU * 1000.0 / canvas.rate_hz).exp();
    for samples in [&mut canvas.left, &mut canvas.right] {
        // A one-pole filter splits the signal at 1 kHz, and the two halves are weighted.
        let mut low = 0.0;
        for sample in samples.iter_mut() {
            low = pole * low + (1.0 - pole) * *sample;
            *sample = (1.0 - tilt) * low + (1.0 + tilt) * (*sample - low);
        }
    }
}

/// Simulates a shellac record: the band of an old horn, 300 Hz to 3.5 kHz, with clicks.
pub(crate) fn shellac(canvas: &mut Canvas, rng: &mut Rng) {
    let rate_hz = canvas.rate_hz;
    for samples in [&mut canvas.left, &mut canvas.right] {
        let mut horn = [super::Filter::default(), super::Filter::default()];
        for sample in samples.iter_mut() {
            let click = if rng.chance(12.0 / rate_hz) {
                rng.range(-0.6, 0.6)
            } else {
                0.0
            };

            // Subtracting the low-pass output of the second filter gives a high pass.
            let narrow = horn[0].next(*sample + click, 3500.0, 1.4, rate_hz);
            *sample = narrow - horn[1].next(narrow, 300.0, 1.4, rate_hz);
        }
    }
}

/// Scales to the given root mean square, adds a noise floor (both in dB of full scale), and limits peaks smoothly.
pub(crate) fn master(canvas: &mut Canvas, rms_db: f32, noise_db: f32, rng: &mut Rng) {
    let energy: f64 = canvas
        .left
        .iter()
        .chain(&canvas.right)
        .map(|x| f64::from(*x).powi(2))
        .sum();
    let rms = (energy / (2 * canvas.left.len()).max(1) as f64)
        .sqrt()
        .max(1e-9) as f32;

    let gain = amplitude(rms_db) / rms;
    let noise = amplitude(noise_db);
    for sample in canvas.left.iter_mut().chain(&mut canvas.right) {
        let x = gain * *sample + noise * rng.noise();

        // Samples up to 0.8 are not changed. Above, the curve flattens and stays below 1.
        *sample = if x.abs() < 0.8 {
            x
        } else {
            x.signum() * (0.8 + 0.2 * ((x.abs() - 0.8) / 0.2).tanh())
        };
    }
}

/// Converts dB of full scale to an amplitude.
pub(crate) fn amplitude(db: f32) -> f32 {
    10f32.powf(db / 20.0)
}

#[cfg(test)]
mod tests {
    use super::{amplitude, master};
    use crate::{rng::Rng, synth::Canvas};

    #[test]
    fn master_level_is_as_requested_without_clipping() {
        let mut canvas = Canvas::new(8000, 1.0);
        let mut rng = Rng::keyed(3, &[]);
        canvas.left.iter_mut().for_each(|x| *x = 30.0 * rng.noise());
        canvas.right = canvas.left.clone();
        master(&mut canvas, -20.0, -90.0, &mut rng);
        let mean_square = canvas.left.iter().map(|x| x * x).sum::<f32>() / 8000.0;
        assert!((mean_square.sqrt() / amplitude(-20.0) - 1.0).abs() < 0.01);
        master(&mut canvas, 6.0, -90.0, &mut rng);
        assert!(canvas.left.iter().all(|x| x.abs() <= 1.0));
    }
}
