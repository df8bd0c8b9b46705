//! Pitched instruments, each with a timbre that is visible in a spectrogram: string, organ, bell, mallet, square, saw,
//! wobble, voice, drone.

use std::f32::consts::TAU;

use super::{Filter, Note, Sine, envelope, length};
use crate::rng::Rng;

/// Plucked string (Karplus, Strong 1983): a burst of noise in a delay line that loses its treble.
pub(crate) fn string(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    let period = (rate_hz / note.hz).max(2.0);
    let mut line: Vec<f32> = (0..period as usize).map(|_| rng.noise()).collect();
    // One round through the line is a period. Higher notes have more rounds per second, so each round must lose less.
    let loss = 0.5 * (-4.0 / (note.hz * (0.4 + note.seconds))).exp();
    let n = line.len();

    let mut samples = vec![0.0; length(note, 0.15, rate_hz)];
    for (i, sample) in samples.iter_mut().enumerate() {
        let here = i % n;
        let next = (i + 1) % n;
        *sample = line[here] * envelope(note, 0.001, 0.15, i, rate_hz);

        // The mean of two adjacent samples is a low-pass filter, so the treble decays first, as in a string.
        line[here] = loss * (line[here] + line[next]);
    }
    samples
}

/// Organ: a sum of slowly beating drawbars.
pub(crate) fn organ(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    const DRAWBARS: [(f32, f32); 6] = [
        (1.0, 1.0),
        (2.0, 0.7),
        (3.0, 0.5),
        (4.0, 0.4),
        (6.0, 0.25),
        (8.0, 0.2),
    ];

    let mut samples = vec![0.0; length(note, 0.25, rate_hz)];
    for (ratio, level) in DRAWBARS {
        // Pipes are slightly out of tune, which makes them beat.
        let hz = note.hz * ratio * rng.range(0.998, 1.002);

        // A frequency above half the sample rate would alias to another pitch.
        if hz < 0.45 * rate_hz {
            let mut sine = Sine::new(hz, rate_hz, rng.unit());
            for sample in &mut samples {
                *sample += 0.33 * level * sine.next();
            }
        }
    }

    for (i, sample) in samples.iter_mut().enumerate() {
        *sample *= envelope(note, 0.08, 0.25, i, rate_hz);
    }
    samples
}

/// Bell (Chowning 1973): frequency modulation at an inharmonic ratio, with an index that decays with the note.
pub(crate) fn bell(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    modulated(note, rate_hz, 3.53 * rng.range(0.99, 1.01), 4.5)
}

/// Electric piano: frequency modulation at a harmonic ratio with a low index.
pub(crate) fn electric_piano(note: &Note, rate_hz: f32, _: &mut Rng) -> Vec<f32> {
    modulated(note, rate_hz, 1.0, 1.6)
}

/// Renders a sine whose phase is modulated by another sine; the index is the depth of the modulation.
fn modulated(note: &Note, rate_hz: f32, ratio: f32, index: f32) -> Vec<f32> {
    let mut modulator = Sine::new(note.hz * ratio, rate_hz, 0.0);
    let step = TAU * note.hz / rate_hz;

    let mut samples = vec![0.0; length(note, 0.4, rate_hz)];
    for (i, sample) in samples.iter_mut().enumerate() {
        // When the index decays, the partials disappear and only the fundamental remains.
        let dying = (-2.5 * i as f32 / rate_hz / (note.seconds + 0.2)).exp();
        let phase = step * i as f32 % TAU;
        let tone = (phase + index * dying * modulator.next()).sin();
        *sample = tone * dying * envelope(note, 0.003, 0.4, i, rate_hz);
    }
    samples
}

/// Mallet on a wooden bar: the first three modes of the bar (1 : 3.93 : 9.24), which decay within a third of a second.
pub(crate) fn mallet(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    const MODES: [(f32, f32, f32); 3] = [(1.0, 1.0, 9.0), (3.93, 0.5, 22.0), (9.24, 0.25, 45.0)];

    let mut samples = vec![0.0; (0.4 * rate_hz) as usize];
    for (ratio, level, decay) in MODES {
        let mut sine = Sine::new((note.hz * ratio).min(0.45 * rate_hz), rate_hz, 0.0);
        let decay = decay * rng.range(0.9, 1.1);
        for (i, sample) in samples.iter_mut().enumerate() {
            *sample += note.level * level * (-decay * i as f32 / rate_hz).exp() * sine.next();
        }
    }
    samples
}

/// Square wave with rounded corners (polyBLEP) to avoid aliasing, as in old video games.
pub(crate) fn square(note: &Note, rate_hz: f32, _: &mut Rng) -> Vec<f32> {
    let mut samples = vec![0.0; length(note, 0.03, rate_hz)];
    let step = note.hz / rate_hz;
    let mut phase = 0.0;
    for (i, sample) in samples.iter_mut().enumerate() {
        phase = (phase + step) % 1.0;
        let naive = if phase < 0.5 { 1.0 } else { -1.0 };
        let rounded = naive + corner(phase, step) - corner((phase + 0.5) % 1.0, step);
        *sample = 0.5 * rounded * envelope(note, 0.002, 0.03, i, rate_hz);
    }
    samples
}

/// Power chord: distorted saws with a fifth.
pub(crate) fn power_chord(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    let steps = [1.0, 1.498, 2.003].map(|ratio| note.hz * ratio / rate_hz);
    let mut phases = [rng.unit(), rng.unit(), rng.unit()];
    let mut cabinet = Filter::default();

    let mut samples = vec![0.0; length(note, 0.06, rate_hz)];
    for (i, sample) in samples.iter_mut().enumerate() {
        let mut sum = 0.0;
        for (phase, step) in phases.iter_mut().zip(steps) {
            *phase = (*phase + step) % 1.0;
            sum += 2.0 * *phase - 1.0 - corner(*phase, step);
        }

        // Distort the sum of the strings, as in an amplifier. A loudspeaker has little output above 3 kHz.
        let driven = (3.0 * sum).tanh();
        let heard = cabinet.next(driven, 3200.0, 1.0, rate_hz).low;
        *sample = heard * envelope(note, 0.004, 0.06, i, rate_hz);
    }
    samples
}

/// Bass with a filter that opens and closes a few times per note.
pub(crate) fn wobble(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    let step = note.hz / rate_hz;
    let mut phase = 0.0;

    // At a phase of three quarters the sweep is at its minimum, so every note starts with a closed filter.
    let mut sweep = Sine::new(rng.range(3.0, 6.0), rate_hz, 0.75);
    let mut filter = Filter::default();

    let mut samples = vec![0.0; length(note, 0.05, rate_hz)];
    for (i, sample) in samples.iter_mut().enumerate() {
        phase = (phase + step) % 1.0;
        let saw = 2.0 * phase - 1.0 - corner(phase, step);
        let hz = 140.0 + 500.0 * (1.0 + sweep.next());
        let heard = filter.next(saw, hz, 0.35, rate_hz).low;
        *sample = heard * envelope(note, 0.01, 0.05, i, rate_hz);
    }
    samples
}

/// Vowel: a buzzing source through three formants that glide from one vowel to another.
pub(crate) fn vowel(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    // Formants of a man's a, i, u, ɛ and ɔ in Hz (Peterson, Barney 1952).
    const VOWELS: [[f32; 3]; 5] = [
        [730.0, 1090.0, 2440.0],
        [270.0, 2290.0, 3010.0],
        [300.0, 870.0, 2240.0],
        [530.0, 1840.0, 2480.0],
        [570.0, 840.0, 2410.0],
    ];
    let from = *rng.pick(&VOWELS);
    let to = *rng.pick(&VOWELS);
    let mut phase = 0.0;
    let mut formants: [Filter; 3] = Default::default();

    let mut samples = vec![0.0; length(note, 0.05, rate_hz)];
    for (i, sample) in samples.iter_mut().enumerate() {
        // The pitch falls by a tenth over the syllable, as in speech.
        let glide = (i as f32 / rate_hz / note.seconds).min(1.0);
        phase = (phase + note.hz * (1.05 - 0.1 * glide) / rate_hz) % 1.0;
        let source = (1.0 - 2.0 * phase).powi(3) + 0.04 * rng.noise();

        let mut sum = 0.0;
        for (k, formant) in formants.iter_mut().enumerate() {
            let hz = from[k] + (to[k] - from[k]) * glide;
            sum += formant.next(source, hz, 0.12, rate_hz).band / (1.0 + k as f32);
        }
        *sample = 0.25 * sum * envelope(note, 0.03, 0.05, i, rate_hz);
    }
    samples
}

/// Noise through a slowly moving filter.
pub(crate) fn drone(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    let mut sweep = Sine::new(rng.range(0.05, 0.25), rate_hz, rng.unit());
    let mut filter = Filter::default();
    let damping = rng.range(0.05, 0.2);

    let mut samples = vec![0.0; length(note, 1.0, rate_hz)];
    for (i, sample) in samples.iter_mut().enumerate() {
        let hz = note.hz * (1.0 + 0.5 * sweep.next());
        let coloured = filter.next(rng.noise(), hz, damping, rate_hz).band;
        *sample = 0.4 * coloured * envelope(note, 0.8, 1.0, i, rate_hz);
    }
    samples
}

/// PolyBLEP residue (Välimäki, Huovilainen 2007) near the jump at phase 0; `step` is the phase increment per sample.
fn corner(phase: f32, step: f32) -> f32 {
    if phase < step {
        let x = phase / step;
        2.0 * x - x * x - 1.0
    } else if phase > 1.0 - step {
        let x = (phase - 1.0) / step;
        x * x + 2.0 * x + 1.0
    } else {
        0.0
    }
}
