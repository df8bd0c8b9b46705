//! Musical styles: plays the voices and rhythms that `data/genres.toml` gives for each genre.
//!
//! A genre consists of timbres and rhythmic patterns. Key, tempo, mix, room, tone and noise depend on the artist, so
//! that a model that recognises artists does not learn the genre.

use serde::Deserialize;

use crate::rng::Rng;
use crate::synth::{Canvas, Note, VOICES, effects};

/// Musical style of a genre: parts that repeat their patterns over the whole piece. A bar has four beats.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rhythm {
    /// Usual tempo in beats per minute.
    bpm: f32,
    /// True if all bars have the chord of the tonic; otherwise each bar has a chord of its own.
    #[serde(default)]
    stays_on_tonic: bool,
    /// Parts, which are played together.
    pub parts: Vec<Part>,
    /// True if the recording is a worn shellac record.
    #[serde(default)]
    shellac: bool,
}

/// A part of a rhythm, played by one voice.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    /// Name of the voice.
    pub voice: String,
    steps_per_beat: f32,
    /// For each step, a scale degree above the root of the chord, a loud (x) or soft (o) stroke on the root, or a rest.
    patterns: Vec<String>,
    /// Degrees of which one is added to that of the pattern, drawn each time.
    #[serde(default = "only_zero")]
    any: Vec<i32>,
    /// Degrees that are played together, above that of the pattern.
    #[serde(default = "only_zero")]
    chord: Vec<i32>,
    /// Octaves above the artist's root.
    #[serde(default)]
    octave: i32,
    /// Probability of playing a step.
    #[serde(default = "always")]
    chance: f32,
    /// Offsets from the start of the step, in steps. With several offsets, a step is played several times.
    #[serde(default = "only_zero")]
    at_steps: Vec<f32>,
    /// Times from the start of a note until its release, in steps, of which one is drawn for each note.
    #[serde(default = "only_one")]
    steps: Vec<f32>,
    /// Peak level of a note.
    level: f32,
}

fn only_zero<T: From<i8>>() -> Vec<T> {
    vec![T::from(0)]
}

fn only_one() -> Vec<f32> {
    vec![1.0]
}

fn always() -> f32 {
    1.0
}

/// Style of an artist, independent of the piece.
#[derive(Clone, Debug)]
pub(crate) struct PlayingStyle {
    /// Frequency of the lowest tonic in Hz.
    pub root_hz: f32,
    /// Factor by which the genre's usual tempo is multiplied.
    pub pace: f32,
    /// True if the scale is minor instead of major.
    pub minor: bool,
    /// Level of the drums; 1.0 is the usual level.
    pub drum_level: f32,
    /// Level of the guest's part; 0 omits it.
    pub guest_level: f32,
    /// Amount of reverb, from 0 to 1.
    pub reverb: f32,
    /// Spectral tilt, from -0.6 (dark) to 0.6 (bright).
    pub tilt: f32,
    /// Loudness in dB of full scale.
    pub rms_db: f32,
    /// Noise floor in dB of full scale.
    pub noise_db: f32,
    /// Stereo width, from 0 to 1.
    pub width: f32,
}

impl PlayingStyle {
    /// Draws the style of an artist.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        Self {
            root_hz: 55.0 * 2f32.powf(rng.range(0.0, 1.0)),
            pace: rng.range(0.86, 1.16),
            minor: rng.chance(0.5),
            drum_level: rng.range(0.6, 1.3),
            guest_level: rng.range(0.0, 0.35),
            reverb: rng.range(0.0, 0.8),
            tilt: rng.range(-0.5, 0.5),
            rms_db: rng.range(-26.0, -14.0),
            noise_db: rng.range(-75.0, -42.0),
            width: rng.range(0.1, 0.9),
        }
    }

    /// Makes the genre of one piece harder to recognise: raises the guest towards [`GUEST_LEVEL`] and the noise towards
    /// [`NOISE_BELOW_MUSIC_DB`], each by a random part of the way of at most `difficulty`. At 0, nothing changes.
    pub(crate) fn obscure(&mut self, difficulty: f32, rng: &mut Rng) {
        let headroom_db = (self.rms_db - NOISE_BELOW_MUSIC_DB - self.noise_db).max(0.0);
        self.noise_db += difficulty * rng.unit() * headroom_db;

        let quieter = (GUEST_LEVEL - self.guest_level).max(0.0);
        self.guest_level += difficulty * rng.unit() * quieter;
    }
}

/// Level of the guest's part in the hardest pieces, relative to the artist's own genre.
const GUEST_LEVEL: f32 = 0.8;

/// Distance between the music's level and the peaks of the noise in the hardest pieces, in dB. The noise is uniform, so
/// its root mean square is 5 dB below its peaks.
const NOISE_BELOW_MUSIC_DB: f32 = 5.0;

/// Renders one piece of music: the genre's part, a quiet part of the guest genre, the room effect and the mastering.
pub(crate) fn render(
    genre: &Rhythm,
    guest: &Rhythm,
    style: &PlayingStyle,
    rate_hz: u32,
    seconds: f32,
    rng: &mut Rng,
) -> Canvas {
    let mut canvas = part(genre, style, rate_hz, seconds, rng);

    // Voices differ in loudness, so the level of the guest is relative to that of the main part.
    if style.guest_level > 0.05 {
        let other = part(guest, style, rate_hz, seconds, rng);
        let gain = style.guest_level * level(&canvas) / level(&other).max(1e-6);
        canvas.mix(&other, gain);
    }

    effects::reverb(&mut canvas, style.reverb);
    effects::tilt(&mut canvas, style.tilt);
    effects::master(&mut canvas, style.rms_db, style.noise_db, rng);
    canvas
}

/// Computes the root mean square of a recording's left channel.
fn level(canvas: &Canvas) -> f32 {
    let energy: f64 = canvas.left.iter().map(|x| f64::from(x * x)).sum();
    (energy / canvas.left.len().max(1) as f64).sqrt() as f32
}

/// Renders the part of one genre, without room effect and mastering.
fn part(genre: &Rhythm, style: &PlayingStyle, rate_hz: u32, seconds: f32, rng: &mut Rng) -> Canvas {
    let roots = if genre.stays_on_tonic {
        [0; 4]
    } else {
        *rng.pick(&CHORDS)
    };
    let mut stage = Stage {
        canvas: Canvas::new(rate_hz, seconds),
        style,
        beat_s: 60.0 / (genre.bpm * style.pace * rng.range(0.97, 1.03)),
        // Pieces of one artist have different keys, so that the pitch does not identify the artist.
        key: *rng.pick(&[0, 2, 3, 5, 7, 9]),
        roots,
        rng,
    };
    for part in &genre.parts {
        stage.perform(part);
    }
    if genre.shellac {
        effects::shellac(&mut stage.canvas, stage.rng);
    }
    stage.canvas
}

/// Roots of the chords of four bars, as scale degrees.
const CHORDS: [[i32; 4]; 5] = [
    [0, 3, 4, 0],
    [0, 5, 3, 4],
    [0, 4, 5, 3],
    [0, 3, 0, 4],
    [0, 2, 3, 4],
];

/// State while rendering the part of one genre.
struct Stage<'a> {
    canvas: Canvas,
    style: &'a PlayingStyle,
    beat_s: f32,
    /// Semitones above the artist's root.
    key: i32,
    /// Roots of the chords of four bars.
    roots: [i32; 4],
    rng: &'a mut Rng,
}

impl Stage<'_> {
    /// Returns the frequency of a scale degree (0 = tonic, 7 = an octave above), `octave` octaves above the artist's
    /// root.
    fn pitch(&self, degree: i32, octave: i32) -> f32 {
        const MAJOR: [i32; 7] = [0, 2, 4, 5, 7, 9, 11];
        const MINOR: [i32; 7] = [0, 2, 3, 5, 7, 8, 10];

        // Degrees below 0 and above 6 are in the octaves below and above.
        let scale = if self.style.minor { MINOR } else { MAJOR };
        let semitones =
            scale[degree.rem_euclid(7) as usize] + 12 * (degree.div_euclid(7) + octave) + self.key;
        self.style.root_hz * 2f32.powf(semitones as f32 / 12.0)
    }

    /// Plays a part over the whole piece.
    fn perform(&mut self, part: &Part) {
        let step_s = self.beat_s / part.steps_per_beat;
        let steps_per_bar = 4.0 * part.steps_per_beat;
        let pattern = self.rng.pick(&part.patterns).as_bytes();

        let n_steps = (self.canvas.seconds() / step_s).ceil() as usize;
        for i in 0..n_steps {
            let bar = (i as f32 / steps_per_bar) as usize;
            for at_steps in &part.at_steps {
                if self.rng.chance(part.chance) {
                    let at_s = (i as f32 + at_steps) * step_s;
                    let symbol = pattern[i % pattern.len()];
                    self.step(part, symbol, self.roots[bar % 4], at_s, step_s);
                }
            }
        }
    }

    /// Plays the notes of one symbol of a pattern.
    fn step(&mut self, part: &Part, symbol: u8, root: i32, at_s: f32, step_s: f32) {
        // Tune the drums to the artist's key, but only by half of the interval, so that a kick still sounds like a
        // kick.
        let drum_hz = 52.0 * (self.style.root_hz / 78.0).sqrt();
        let root = root + self.rng.pick(&part.any);
        let seconds = self.rng.pick(&part.steps) * step_s;

        for above in &part.chord {
            let (hz, strength) = match symbol {
                b'0'..=b'9' => {
                    let degree = root + above + i32::from(symbol - b'0');
                    (self.pitch(degree, part.octave), 1.0)
                }
                b'x' => (drum_hz, self.style.drum_level),
                b'o' => (drum_hz, 0.45 * self.style.drum_level),
                _ => continue,
            };
            // Timing, loudness and stereo position vary, as with a human player.
            let note = Note {
                hz,
                seconds,
                level: part.level * strength * self.rng.range(0.8, 1.0),
            };
            let late_s = self.rng.range(0.0, 0.008);
            let pan = self.style.width * self.rng.noise();
            let sound = VOICES[&part.voice].render(&note, self.canvas.rate_hz, self.rng);
            self.canvas.add(at_s + late_s, pan, &sound);
        }
    }
}
