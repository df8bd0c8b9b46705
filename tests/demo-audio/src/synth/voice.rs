//! Instruments and drums: damped sines and filtered noise, with the parameters of a voice in `data/voices.toml`.

use std::collections::BTreeMap;
use std::f32::consts::TAU;
use std::sync::LazyLock;

use serde::Deserialize;

use super::{Filter, Note};
use crate::rng::Rng;

/// The contents of `data/voices.toml`: voices, by the name under which genres play them.
pub(crate) static VOICES: LazyLock<BTreeMap<String, Voice>> = LazyLock::new(|| {
    toml::from_str(include_str!("../../data/voices.toml")).expect("the tests read this file")
});

/// Timbre of an instrument.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Voice {
    /// Sines that sound together: the ratio of each to the pitch, its level, and its decay per second.
    #[serde(default)]
    partials: Vec<[f32; 3]>,
    /// Noise: its level, and its decay per second.
    #[serde(default)]
    noise: [f32; 2],
    /// Band of the noise, which is white without it: the centre in Hz (0: the pitch of the note), and the damping, 2.0 for
    /// a wide band.
    band: Option<[f32; 2]>,
    /// Tremolo: its depth from 0 to 1, and its frequency in Hz.
    #[serde(default)]
    tremolo: [f32; 2],
    /// Time from the start of a note to its full level.
    attack_s: f32,
    /// Time from the end of a note to silence.
    release_s: f32,
}

impl Voice {
    /// Renders one note to mono samples, which are longer than the note because of its release.
    pub(crate) fn render(&self, note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
        let mut sines = Vec::with_capacity(self.partials.len());
        for [ratio, level, decay] in &self.partials {
            // A frequency above half the sample rate would alias to another pitch.
            if note.hz * ratio < 0.45 * rate_hz {
                // Partials are slightly out of tune, which makes them beat.
                let hz = note.hz * ratio * rng.range(0.998, 1.002);
                sines.push(Sine::new(hz / rate_hz, *level, decay / rate_hz));
            }
        }

        let [depth, tremolo_hz] = self.tremolo;
        let mut tremolo = Sine::new(tremolo_hz / rate_hz, 0.5 * depth, 0.0);
        let [noise_level, noise_decay] = self.noise;
        let mut filter = Filter::default();

        let n_samples = ((note.seconds + self.release_s) * rate_hz) as usize;
        let mut samples = Vec::with_capacity(n_samples);
        for i in 0..n_samples {
            let t = i as f32 / rate_hz;
            let mut sum: f32 = sines.iter_mut().map(Sine::next).sum();
            if noise_level > 0.0 {
                let mut noise = rng.noise();
                if let Some([hz, damping]) = self.band {
                    let hz = if hz > 0.0 { hz } else { note.hz };
                    filter.next(noise, hz, damping, rate_hz);
                    noise = filter.band;
                }
                sum += noise_level * (-noise_decay * t).exp() * noise;
            }

            let rise = (t / self.attack_s).min(1.0);
            let fall = (1.0 - (t - note.seconds) / self.release_s).clamp(0.0, 1.0);
            let swell = 1.0 - 0.5 * depth - tremolo.next();
            samples.push(note.level * rise * fall * swell * sum);
        }
        samples
    }
}

/// A sine that decays exponentially: a vector that is turned and shortened by each sample.
struct Sine {
    sin: f32,
    cos: f32,
    // Sine and cosine of the angle per sample, shortened by its decay.
    turn_sin: f32,
    turn_cos: f32,
}

impl Sine {
    /// Creates an oscillator from turns and decay per sample.
    fn new(turns: f32, level: f32, decay: f32) -> Self {
        let (turn_sin, turn_cos) = f32::sin_cos(turns * TAU);
        let kept = (-decay).exp();
        Self {
            sin: 0.0,
            cos: level,
            turn_sin: kept * turn_sin,
            turn_cos: kept * turn_cos,
        }
    }

    /// Returns the next sample.
    fn next(&mut self) -> f32 {
        let Self { sin, cos, .. } = *self;
        // Angle addition formulas of sine and cosine.
        self.sin = sin * self.turn_cos + cos * self.turn_sin;
        self.cos = cos * self.turn_cos - sin * self.turn_sin;
        sin
    }
}

#[cfg(test)]
mod tests {
    use super::Sine;

    #[test]
    fn a_turned_vector_is_a_damped_sine() {
        for decay in [0.0, 3.0] {
            let mut sine = Sine::new(440.0 / 44_100.0, 1.0, decay / 44_100.0);
            for i in 0..44_100 {
                let t = f64::from(i) / 44_100.0;
                let damped = (-f64::from(decay) * t).exp();
                let want = damped * (std::f64::consts::TAU * 440.0 * t).sin();
                assert!((f64::from(sine.next()) - want).abs() < 2e-3, "sample {i}");
            }
        }
    }
}
