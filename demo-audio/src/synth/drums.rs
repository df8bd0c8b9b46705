//! Percussion. The pitch of a note is the tuning of the drum; its length is ignored.

use std::f32::consts::TAU;

use super::{Filter, Note, Sine};
use crate::rng::Rng;

/// Kick drum: a sine that falls by two octaves within a tenth of a second.
pub(crate) fn kick(note: &Note, rate_hz: f32, _: &mut Rng) -> Vec<f32> {
    let mut samples = vec![0.0; (0.35 * rate_hz) as usize];
    let mut phase = 0.0;
    for (i, sample) in samples.iter_mut().enumerate() {
        let t = i as f32 / rate_hz;
        phase += note.hz * (1.0 + 3.0 * (-45.0 * t).exp()) / rate_hz;
        *sample = note.level * (TAU * phase).sin() * (-11.0 * t).exp();
    }
    samples
}

/// Snare drum: a short tone with a burst of noise.
pub(crate) fn snare(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    let mut samples = vec![0.0; (0.3 * rate_hz) as usize];
    let mut skin = Sine::new(note.hz * 3.2, rate_hz, 0.0);
    let mut filter = Filter::default();
    for (i, sample) in samples.iter_mut().enumerate() {
        let t = i as f32 / rate_hz;
        let rattle = filter.next(rng.noise(), 3500.0, 1.2, rate_hz).band;

        // The noise decays more slowly than the tone.
        let tone = 0.5 * skin.next() * (-22.0 * t).exp();
        *sample = note.level * (tone + 0.9 * rattle * (-17.0 * t).exp());
    }
    samples
}

/// Closed hi-hat: 40 ms of bright noise.
pub(crate) fn hat(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    hiss(note, 0.08, 75.0, rate_hz, rng)
}

/// Ride cymbal: bright noise with a long decay.
pub(crate) fn ride(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    hiss(note, 0.5, 9.0, rate_hz, rng)
}

fn hiss(note: &Note, seconds: f32, decay: f32, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    let mut samples = vec![0.0; (seconds * rate_hz) as usize];
    let mut last = 0.0;
    for (i, sample) in samples.iter_mut().enumerate() {
        // The difference of adjacent samples is a high-pass filter, which makes white noise bright.
        let white = rng.noise();
        let bright = 0.5 * (white - last);
        last = white;
        *sample = note.level * bright * (-decay * i as f32 / rate_hz).exp();
    }
    samples
}

/// Hand drum: a damped tone with a slight pitch bend.
pub(crate) fn conga(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    let mut samples = vec![0.0; (0.35 * rate_hz) as usize];
    let mut phase = 0.0;
    for (i, sample) in samples.iter_mut().enumerate() {
        let t = i as f32 / rate_hz;
        phase += 3.5 * note.hz * (1.0 + 0.25 * (-30.0 * t).exp()) / rate_hz;

        // The slap of the hand on the drum decays within a few milliseconds.
        let slap = 0.3 * rng.noise() * (-160.0 * t).exp();
        *sample = note.level * ((TAU * phase).sin() * (-13.0 * t).exp() + slap);
    }
    samples
}
