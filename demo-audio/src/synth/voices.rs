//! Pitched instruments, each with a timbre that a spectrogram shows: string, organ, bell, mallet, square, saw, wobble, voice,
//! drone.

use super::{Filter, Note, Sine, envelope, length};
use crate::rng::Rng;

/// Plucked string (Karplus, Strong 1983): a burst of noise runs round a delay line that loses its treble.
pub fn string(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    let period = (rate_hz / note.hz).max(2.0);
    let mut line: Vec<f32> = (0..period as usize).map(|_| rng.noise()).collect();
    let loss = 0.5 * (-4.0 / (note.hz * (0.4 + note.seconds))).exp();
    let n = line.len();
    let ring = |i: usize| {
        let (here, next) = (i % n, (i + 1) % n);
        let out = line[here];
        line[here] = loss * (line[here] + line[next]);
        out * envelope(note, 0.001, 0.15, i, rate_hz)
    };
    (0..length(note, 0.15, rate_hz)).map(ring).collect()
}

/// Organ: a sum of drawbars, slowly beating.
pub fn organ(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    const DRAWBARS: [(f32, f32); 6] = [(1.0, 1.0), (2.0, 0.7), (3.0, 0.5), (4.0, 0.4), (6.0, 0.25), (8.0, 0.2)];
    let mut out = vec![0.0; length(note, 0.25, rate_hz)];
    for (ratio, level) in DRAWBARS {
        let hz = note.hz * ratio * rng.range(0.998, 1.002);
        if hz < 0.45 * rate_hz {
            let mut sine = Sine::new(hz, rate_hz, rng.unit());
            out.iter_mut().for_each(|sample| *sample += 0.33 * level * sine.next());
        }
    }
    out.iter_mut().enumerate().for_each(|(i, sample)| *sample *= envelope(note, 0.08, 0.25, i, rate_hz));
    out
}

/// Bell (Chowning 1973): frequency modulation at an inharmonic ratio, its index dying with the note.
pub fn bell(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    modulated(note, rate_hz, 3.53 * rng.range(0.99, 1.01), 4.5)
}

/// Electric piano: frequency modulation at a harmonic ratio, low index.
pub fn electric_piano(note: &Note, rate_hz: f32, _: &mut Rng) -> Vec<f32> {
    modulated(note, rate_hz, 1.0, 1.6)
}

fn modulated(note: &Note, rate_hz: f32, ratio: f32, index: f32) -> Vec<f32> {
    let mut modulator = Sine::new(note.hz * ratio, rate_hz, 0.0);
    let step = std::f32::consts::TAU * note.hz / rate_hz;
    let ring = |i: usize| {
        let dying = (-2.5 * i as f32 / rate_hz / (note.seconds + 0.2)).exp();
        let phase = step * i as f32 % std::f32::consts::TAU;
        (phase + index * dying * modulator.next()).sin() * dying * envelope(note, 0.003, 0.4, i, rate_hz)
    };
    (0..length(note, 0.4, rate_hz)).map(ring).collect()
}

/// Mallet on a wooden bar: the bar's first three modes (1 : 3.93 : 9.24), dead within a third of a second.
pub fn mallet(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    const MODES: [(f32, f32, f32); 3] = [(1.0, 1.0, 9.0), (3.93, 0.5, 22.0), (9.24, 0.25, 45.0)];
    let mut out = vec![0.0; (0.4 * rate_hz) as usize];
    for (ratio, level, decay) in MODES {
        let mut sine = Sine::new((note.hz * ratio).min(0.45 * rate_hz), rate_hz, 0.0);
        let decay = decay * rng.range(0.9, 1.1);
        for (i, sample) in out.iter_mut().enumerate() {
            *sample += note.level * level * (-decay * i as f32 / rate_hz).exp() * sine.next();
        }
    }
    out
}

/// Square wave, corners rounded (polyBLEP) so that it does not alias; the chip of an old game.
pub fn square(note: &Note, rate_hz: f32, _: &mut Rng) -> Vec<f32> {
    let step = note.hz / rate_hz;
    let mut phase = 0.0;
    let tone = |i: usize| {
        phase = (phase + step) % 1.0;
        let naive = if phase < 0.5 { 1.0 } else { -1.0 };
        let rounded = naive + corner(phase, step) - corner((phase + 0.5) % 1.0, step);
        0.5 * rounded * envelope(note, 0.002, 0.03, i, rate_hz)
    };
    (0..length(note, 0.03, rate_hz)).map(tone).collect()
}

/// Distorted saw, a fifth on top: a power chord.
pub fn power_chord(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    let steps = [1.0, 1.498, 2.003].map(|ratio| note.hz * ratio / rate_hz);
    let mut phases = [rng.unit(), rng.unit(), rng.unit()];
    let mut cabinet = Filter::default();
    let tone = |i: usize| {
        let mut sum = 0.0;
        for (phase, step) in phases.iter_mut().zip(steps) {
            *phase = (*phase + step) % 1.0;
            sum += 2.0 * *phase - 1.0 - corner(*phase, step);
        }
        let driven = (3.0 * sum).tanh();
        cabinet.next(driven, 3200.0, 1.0, rate_hz).0 * envelope(note, 0.004, 0.06, i, rate_hz)
    };
    (0..length(note, 0.06, rate_hz)).map(tone).collect()
}

/// Bass whose filter opens and closes a few times a note.
pub fn wobble(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    let step = note.hz / rate_hz;
    let mut phase = 0.0;
    let mut sweep = Sine::new(rng.range(3.0, 6.0), rate_hz, 0.75);
    let mut filter = Filter::default();
    let tone = |i: usize| {
        phase = (phase + step) % 1.0;
        let saw = 2.0 * phase - 1.0 - corner(phase, step);
        let hz = 140.0 + 500.0 * (1.0 + sweep.next());
        filter.next(saw, hz, 0.35, rate_hz).0 * envelope(note, 0.01, 0.05, i, rate_hz)
    };
    (0..length(note, 0.05, rate_hz)).map(tone).collect()
}

/// A vowel: a buzzing source through three formants that glide from one vowel to another.
pub fn vowel(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    const VOWELS: [[f32; 3]; 5] = [
        [730.0, 1090.0, 2440.0],
        [270.0, 2290.0, 3010.0],
        [300.0, 870.0, 2240.0],
        [530.0, 1840.0, 2480.0],
        [570.0, 840.0, 2410.0],
    ];
    let (from, to) = (*rng.pick(&VOWELS), *rng.pick(&VOWELS));
    let mut phase = 0.0;
    let mut formants: [Filter; 3] = Default::default();
    let tone = |i: usize| {
        let glide = (i as f32 / rate_hz / note.seconds).min(1.0);
        phase = (phase + note.hz * (1.05 - 0.1 * glide) / rate_hz) % 1.0;
        let source = (1.0 - 2.0 * phase).powi(3) + 0.04 * rng.noise();
        let mut sum = 0.0;
        for (k, formant) in formants.iter_mut().enumerate() {
            let hz = from[k] + (to[k] - from[k]) * glide;
            sum += formant.next(source, hz, 0.12, rate_hz).1 / (1.0 + k as f32);
        }
        0.25 * sum * envelope(note, 0.03, 0.05, i, rate_hz)
    };
    (0..length(note, 0.05, rate_hz)).map(tone).collect()
}

/// A hiss that a slowly moving filter colours.
pub fn drone(note: &Note, rate_hz: f32, rng: &mut Rng) -> Vec<f32> {
    let mut sweep = Sine::new(rng.range(0.05, 0.25), rate_hz, rng.unit());
    let mut filter = Filter::default();
    let damping = rng.range(0.05, 0.2);
    let tone = |i: usize| {
        let hz = note.hz * (1.0 + 0.5 * sweep.next());
        0.4 * filter.next(rng.noise(), hz, damping, rate_hz).1 * envelope(note, 0.8, 1.0, i, rate_hz)
    };
    (0..length(note, 1.0, rate_hz)).map(tone).collect()
}

/// PolyBLEP residue (Välimäki, Huovilainen 2007) near the jump at phase 0; `step` is the phase of one sample.
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
