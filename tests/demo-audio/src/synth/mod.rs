//! Sound synthesis: a stereo canvas, voices whose notes are added to it, and effects.
//!
//! The choice of voices and notes for each genre is in `styles`.

pub(crate) mod effects;
mod voice;

use std::f32::consts::FRAC_PI_4;

pub(crate) use voice::VOICES;

/// A note to be played by a voice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note {
    /// Pitch; for drums, their tuning.
    pub hz: f32,
    /// Time until the release in seconds.
    pub seconds: f32,
    /// Peak level; 1.0 is full scale.
    pub level: f32,
}

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

/// State-variable filter (Chamberlin); stable for cut-offs below a sixth of the sample rate.
#[derive(Default)]
struct Filter {
    low: f32,
    band: f32,
}

impl Filter {
    /// Filters one sample with the cut-off at `hz` and returns the low-pass output; `band` is the band-pass output. A
    /// `damping` of 2.0 has no resonance, 0.1 rings.
    fn next(&mut self, input: f32, hz: f32, damping: f32, rate_hz: f32) -> f32 {
        // Limit the cut-off: above a sixth of the sample rate, the output would grow without bound.
        let f = 2.0 * (std::f32::consts::PI * (hz / rate_hz).min(0.16)).sin();
        self.low += f * self.band;
        let high = input - self.low - damping * self.band;
        self.band += f * high;
        self.low
    }
}

#[cfg(test)]
mod tests {
    use super::Canvas;

    #[test]
    fn samples_past_the_end_are_dropped() {
        let mut canvas = Canvas::new(100, 1.0);
        canvas.add(0.98, 0.0, &[1.0; 10]);
        canvas.add(5.0, 0.0, &[1.0; 10]);
        assert_eq!(canvas.left.len(), 100);
        assert_eq!(canvas.left.iter().filter(|x| **x > 0.0).count(), 2);
    }
}
