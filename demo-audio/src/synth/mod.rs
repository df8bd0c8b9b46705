//! Sound synthesis: a stereo canvas, the notes that are added to it, and the building blocks of all voices.
//!
//! The choice of voices and notes for each genre is in `styles`.

pub(crate) mod drums;
pub(crate) mod effects;
pub(crate) mod voices;

use std::f32::consts::{FRAC_PI_4, TAU};

use crate::rng::Rng;

/// A note to be played by a voice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note {
    /// Pitch; for percussion, the tuning of the drum.
    pub hz: f32,
    /// Time until the release in seconds.
    pub seconds: f32,
    /// Peak level; 1.0 is full scale.
    pub level: f32,
}

/// An instrument: renders one note to mono samples, which may be longer than the note because of its release.
pub(crate) type Voice = fn(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32>;

/// A stereo recording to which sounds are added.
pub(crate) struct Canvas {
    /// Samples per second.
    pub rate_hz: f32,
    /// Left channel.
    pub left: Vec<f32>,
    /// Right channel, of the same length as the left one.
    pub right: Vec<f32>,
}

impl Canvas {
    /// Creates a silent recording of the given length.
    pub(crate) fn new(rate_hz: u32, seconds: f32) -> Self {
        let samples = (seconds * rate_hz as f32) as usize;
        Self {
            rate_hz: rate_hz as f32,
            left: vec![0.0; samples],
            right: vec![0.0; samples],
        }
    }

    /// Returns the length in seconds.
    pub(crate) fn seconds(&self) -> f32 {
        self.left.len() as f32 / self.rate_hz
    }

    /// Adds a mono sound at `at_s`; `pan` is from -1 (left) to 1 (right) with constant power. Samples after the end of
    /// the recording are dropped.
    pub(crate) fn add(&mut self, at_s: f32, pan: f32, sound: &[f32]) {
        let start = ((at_s.max(0.0) * self.rate_hz) as usize).min(self.left.len());

        // Sine and cosine of the same angle: the squares of the two gains sum to 1 for every position.
        let (right_gain, left_gain) = f32::sin_cos((pan + 1.0) * FRAC_PI_4);
        let targets = self.left[start..].iter_mut().zip(&mut self.right[start..]);
        for ((left, right), sample) in targets.zip(sound) {
            *left += left_gain * sample;
            *right += right_gain * sample;
        }
    }

    /// Adds another canvas of the same rate and length.
    pub(crate) fn mix(&mut self, other: &Self, gain: f32) {
        for (sample, added) in self.left.iter_mut().zip(&other.left) {
            *sample += gain * added;
        }
        for (sample, added) in self.right.iter_mut().zip(&other.right) {
            *sample += gain * added;
        }
    }
}

/// Sine oscillator that rotates a vector, with four multiplications per sample.
pub(crate) struct Sine {
    sin: f32,
    cos: f32,
    // Sine and cosine of the angle per sample.
    turn_sin: f32,
    turn_cos: f32,
}

impl Sine {
    /// Creates an oscillator that starts at `phase` (0 to 1).
    pub(crate) fn new(hz: f32, rate_hz: f32, phase: f32) -> Self {
        let (sin, cos) = f32::sin_cos(phase * TAU);
        let (turn_sin, turn_cos) = f32::sin_cos(hz / rate_hz * TAU);
        Self {
            sin,
            cos,
            turn_sin,
            turn_cos,
        }
    }

    /// Returns the next sample.
    pub(crate) fn next(&mut self) -> f32 {
        let sin = self.sin;
        let cos = self.cos;

        // Angle addition formulas of sine and cosine.
        self.sin = sin * self.turn_cos + cos * self.turn_sin;
        self.cos = cos * self.turn_cos - sin * self.turn_sin;
        sin
    }
}

/// One sample from each output of a [`Filter`].
pub(crate) struct FilterOutput {
    /// Low-pass output.
    pub low: f32,
    /// Band-pass output.
    pub band: f32,
}

/// State-variable filter (Chamberlin); stable for cut-offs below a sixth of the sample rate.
#[derive(Default)]
pub(crate) struct Filter {
    low: f32,
    band: f32,
}

impl Filter {
    /// Filters one sample with the cut-off at `hz`. A `damping` of 2.0 has no resonance, 0.1 rings.
    pub(crate) fn next(&mut self, input: f32, hz: f32, damping: f32, rate_hz: f32) -> FilterOutput {
        // Limit the cut-off: above a sixth of the sample rate, the output would grow without bound.
        let f = 2.0 * (std::f32::consts::PI * (hz / rate_hz).min(0.16)).sin();
        self.low += f * self.band;
        let high = input - self.low - damping * self.band;
        self.band += f * high;
        FilterOutput {
            low: self.low,
            band: self.band,
        }
    }
}

/// Returns the number of samples of a note including its release.
fn length(note: &Note, release_s: f32, rate_hz: f32) -> usize {
    ((note.seconds + release_s) * rate_hz) as usize
}

/// Returns the gain at sample `i`: linear attack, constant level, and linear release after the end of the note.
fn envelope(note: &Note, attack_s: f32, release_s: f32, i: usize, rate_hz: f32) -> f32 {
    let t = i as f32 / rate_hz;
    let rise = (t / attack_s).min(1.0);
    let fall = (1.0 - (t - note.seconds) / release_s).clamp(0.0, 1.0);
    note.level * rise * fall
}

#[cfg(test)]
mod tests {
    use super::{Canvas, Sine};

    #[test]
    fn samples_past_the_end_are_dropped() {
        let mut canvas = Canvas::new(100, 1.0);
        canvas.add(0.98, 0.0, &[1.0; 10]);
        canvas.add(5.0, 0.0, &[1.0; 10]);
        assert_eq!(canvas.left.len(), 100);
        assert_eq!(canvas.left.iter().filter(|x| **x > 0.0).count(), 2);
    }

    #[test]
    fn a_rotated_sine_is_a_sine() {
        let mut sine = Sine::new(440.0, 44_100.0, 0.0);
        for i in 0..44_100 {
            let want = (std::f64::consts::TAU * 440.0 * f64::from(i) / 44_100.0).sin() as f32;
            assert!((sine.next() - want).abs() < 2e-3, "sample {i}");
        }
    }
}
