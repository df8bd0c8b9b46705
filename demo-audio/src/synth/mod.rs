//! Sound from arithmetic: a stereo canvas, the notes that are put on it, and what every voice needs.
//!
//! Not here: which voice plays what in which genre (`styles`).

pub(crate) mod drums;
pub(crate) mod effects;
pub(crate) mod voices;

use std::f32::consts::{FRAC_PI_4, TAU};

use crate::rng::Rng;

/// What a voice is asked to play.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note {
    /// Pitch; percussion takes it as the tuning of its skin.
    pub hz: f32,
    /// Length until release.
    pub seconds: f32,
    /// Peak, 1.0 = full scale.
    pub level: f32,
}

/// An instrument: one note in, its mono samples out (a release may make them longer than the note).
pub(crate) type Voice = fn(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32>;

/// A stereo recording in the making.
pub(crate) struct Canvas {
    /// Samples a second.
    pub rate_hz: f32,
    /// Left channel.
    pub left: Vec<f32>,
    /// Right channel, as long as the left.
    pub right: Vec<f32>,
}

impl Canvas {
    /// Silence of the given length.
    pub(crate) fn new(rate_hz: u32, seconds: f32) -> Self {
        let samples = (seconds * rate_hz as f32) as usize;
        Self {
            rate_hz: rate_hz as f32,
            left: vec![0.0; samples],
            right: vec![0.0; samples],
        }
    }

    /// Length in seconds.
    pub(crate) fn seconds(&self) -> f32 {
        self.left.len() as f32 / self.rate_hz
    }

    /// Adds a mono sound from `at_s` on; `pan` from -1 (left) to 1 (right) at constant power. What lies outside is cut.
    pub(crate) fn add(&mut self, at_s: f32, pan: f32, sound: &[f32]) {
        let start = ((at_s.max(0.0) * self.rate_hz) as usize).min(self.left.len());

        // Sine and cosine of one angle: the squares of the two gains add up to 1 wherever the sound stands.
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

/// A sine by rotation, four multiplications a sample.
pub(crate) struct Sine {
    sin: f32,
    cos: f32,
    // The angle of one sample.
    turn_sin: f32,
    turn_cos: f32,
}

impl Sine {
    /// Starts at `phase` (0 to 1).
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

    /// The next sample.
    pub(crate) fn next(&mut self) -> f32 {
        let sin = self.sin;
        let cos = self.cos;

        // The sum formulas of sine and cosine.
        self.sin = sin * self.turn_cos + cos * self.turn_sin;
        self.cos = cos * self.turn_cos - sin * self.turn_sin;
        sin
    }
}

/// One sample from each output of a [`Filter`].
pub(crate) struct FilterOutput {
    /// What lies below the cut-off.
    pub low: f32,
    /// What lies around it.
    pub band: f32,
}

/// A state-variable filter (Chamberlin); stable for cut-offs below a sixth of the sample rate.
#[derive(Default)]
pub(crate) struct Filter {
    low: f32,
    band: f32,
}

impl Filter {
    /// Filters one sample with the cut-off at `hz`; `damping` 2.0 is smooth, 0.1 rings.
    pub(crate) fn next(&mut self, input: f32, hz: f32, damping: f32, rate_hz: f32) -> FilterOutput {
        // Above a sixth of the rate the filter would grow without bound, so the cut-off stays below.
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

/// Samples of a note and of its release.
fn length(note: &Note, release_s: f32, rate_hz: f32) -> usize {
    ((note.seconds + release_s) * rate_hz) as usize
}

/// Linear attack, full level, linear release after the note's end: the gain at sample `i`.
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
    fn what_lies_beyond_the_end_is_cut() {
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
