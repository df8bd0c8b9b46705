//! Percussion. A note's pitch is the tuning of the skin, its length is ignored.

use super::{Filter, Note, Sine};
use crate::rng::Rng;

/// Kick: a sine that falls an octave and a half within a few milliseconds.
pub fn kick(note: &Note, rate_hz: f32, _: &mut Rng) -> Vec<f32> {
    let mut phase = 0.0;
    let hit = |i: usize| {
        let t = i as f32 / rate_hz;
        phase += note.hz * (1.0 + 3.0 * (-45.0 * t).exp()) / rate_hz;
        note.level * (std::f32::consts::TAU * phase).sin() * (-11.0 * t).exp()
    };
    (0..(0.35 * rate_hz) as usize).map(hit).collect()
}

/// Snare: a short skin tone under a burst of noise.
pub fn snare(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    let mut skin = Sine::new(note.hz * 3.2, rate_hz, 0.0);
    let mut filter = Filter::default();
    let hit = |i: usize| {
        let t = i as f32 / rate_hz;
        let rattle = filter.next(rng.noise(), 3500.0, 1.2, rate_hz).1;
        note.level * (0.5 * skin.next() * (-22.0 * t).exp() + 0.9 * rattle * (-17.0 * t).exp())
    };
    (0..(0.3 * rate_hz) as usize).map(hit).collect()
}

/// Closed hi-hat: 40 ms of bright noise.
pub fn hat(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    hiss(note, 0.08, 75.0, rate_hz, rng)
}

/// Ride cymbal: bright noise that rings.
pub fn ride(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    hiss(note, 0.5, 9.0, rate_hz, rng)
}

fn hiss(note: &Note, seconds: f32, decay: f32, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    let mut last = 0.0;
    let hit = |i: usize| {
        let white = rng.noise();
        let bright = 0.5 * (white - last);
        last = white;
        note.level * bright * (-decay * i as f32 / rate_hz).exp()
    };
    (0..(seconds * rate_hz) as usize).map(hit).collect()
}

/// Hand drum: a damped tone, its pitch bending a little.
pub fn conga(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    let mut phase = 0.0;
    let hit = |i: usize| {
        let t = i as f32 / rate_hz;
        phase += 3.5 * note.hz * (1.0 + 0.25 * (-30.0 * t).exp()) / rate_hz;
        let slap = 0.3 * rng.noise() * (-160.0 * t).exp();
        note.level * ((std::f32::consts::TAU * phase).sin() * (-13.0 * t).exp() + slap)
    };
    (0..(0.35 * rate_hz) as usize).map(hit).collect()
}
