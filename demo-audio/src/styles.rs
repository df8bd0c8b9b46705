//! Musical styles: plays the voices and rhythms that `data/genres.toml` gives for each genre.
//!
//! A genre consists of timbres and rhythmic patterns. Key, tempo, mix, room, tone and noise depend on the artist, so
//! that a model that recognises artists does not learn the genre.

use std::slice;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::rng::Rng;
use crate::synth::{Canvas, Note, Voice, drums, effects, voices};

/// Musical style of a genre.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Style {
    /// Style of parts and drums on a beat.
    Rhythm(Rhythm),
    /// Slowly changing coloured noise with occasional bells.
    Experimental,
    /// Syllables of uneven length in phrases with pauses between them.
    Spoken,
}

/// Parts and drums that repeat their patterns over the whole piece. A bar has four beats.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rhythm {
    /// Usual tempo in beats per minute.
    bpm: f32,
    /// Steps of the parts per beat.
    steps_per_beat: f32,
    /// True if all bars have the chord of the tonic; otherwise each bar has a chord of its own.
    #[serde(default)]
    stays_on_tonic: bool,
    /// Parts, which are played together, step by step.
    parts: Vec<Part>,
    /// Drums, which are added to the recording after the parts.
    #[serde(default)]
    drums: Vec<Drum>,
    /// True if the recording is a worn shellac record.
    #[serde(default)]
    shellac: bool,
}

/// A part of a pitched voice.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    #[serde(deserialize_with = "voice")]
    voice: Voice,
    /// For each step, a scale degree above the root of the chord, or a rest.
    patterns: Vec<String>,
    #[serde(default)]
    degrees: Degrees,
    /// Octaves above the artist's root.
    octave: i32,
    /// Probability of playing a step; by default, each one is played.
    chance: Option<f32>,
    /// Offset from the start of the step, in steps. With several offsets, a step is played several times.
    #[serde(default = "on_the_step")]
    at_steps: Vec<f32>,
    #[serde(default)]
    length: Length,
    /// Peak level of a note.
    level: f32,
}

fn on_the_step() -> Vec<f32> {
    vec![0.0]
}

/// Scale degrees that are played for a degree of a pattern, relative to it.
#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum Degrees {
    /// Play only the degree itself.
    #[default]
    Same,
    /// Play a chord of these degrees.
    All(Vec<i32>),
    /// Play one of these degrees, drawn each time.
    Any(Vec<i32>),
}

/// Time from the start of a note until its release.
#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum Length {
    /// The length of one step.
    #[default]
    Step,
    /// The length of this number of steps.
    Steps(f32),
    /// A duration of one step of the rhythm divided by this number.
    StepDividedBy(f32),
    /// A fixed time in seconds.
    Seconds(f32),
    /// The first number of steps for 70 % of the notes, the second number for the others.
    ShortOrLong(f32, f32),
}

/// A drum.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Drum {
    #[serde(deserialize_with = "voice")]
    voice: Voice,
    steps_per_beat: f32,
    /// For each step, a loud stroke, a soft one, or a rest.
    patterns: Vec<String>,
    /// Peak level of a loud stroke.
    level: f32,
}

/// Reads the name of an instrument and returns the function that renders its notes.
fn voice<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Voice, D::Error> {
    Ok(match String::deserialize(deserializer)?.as_str() {
        "string" => voices::string,
        "organ" => voices::organ,
        "bell" => voices::bell,
        "electric_piano" => voices::electric_piano,
        "mallet" => voices::mallet,
        "square" => voices::square,
        "power_chord" => voices::power_chord,
        "wobble" => voices::wobble,
        "kick" => drums::kick,
        "snare" => drums::snare,
        "hat" => drums::hat,
        "ride" => drums::ride,
        "conga" => drums::conga,
        name => return Err(D::Error::custom(format!("no voice is named {name}"))),
    })
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
    genre: &Style,
    guest: &Style,
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
fn part(genre: &Style, style: &PlayingStyle, rate_hz: u32, seconds: f32, rng: &mut Rng) -> Canvas {
    // Pieces of one artist have different keys, so that the pitch does not identify the artist.
    let key = *rng.pick(&[0, 2, 3, 5, 7, 9]);
    let mut stage = Stage {
        canvas: Canvas::new(rate_hz, seconds),
        style,
        key,
        rng,
    };

    match genre {
        Style::Rhythm(rhythm) => stage.perform(rhythm),
        Style::Experimental => experimental(&mut stage),
        Style::Spoken => spoken(&mut stage),
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

/// State while rendering one part.
struct Stage<'a> {
    canvas: Canvas,
    style: &'a PlayingStyle,
    /// Semitones above the artist's root.
    key: i32,
    rng: &'a mut Rng,
}

impl Stage<'_> {
    /// Draws the duration of a beat in seconds, close to the usual tempo of the genre.
    fn beat_s(&mut self, bpm: f32) -> f32 {
        60.0 / (bpm * self.style.pace * self.rng.range(0.97, 1.03))
    }

    /// Iterates over (number, start time) of steps of `step_s` seconds over the whole piece.
    fn grid(&self, step_s: f32) -> impl Iterator<Item = (usize, f32)> + use<> {
        let steps = (self.canvas.seconds() / step_s).ceil() as usize;
        (0..steps).map(move |i| (i, i as f32 * step_s))
    }

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

    /// Plays a note with random variations of timing, loudness and stereo position, as by a human player.
    fn play(&mut self, voice: Voice, at_s: f32, note: Note) {
        let note = Note {
            level: note.level * self.rng.range(0.8, 1.0),
            ..note
        };
        let at_s = at_s + self.rng.range(0.0, 0.008);
        let pan = self.style.width * self.rng.noise();
        let sound = voice(&note, self.canvas.rate_hz, self.rng);
        self.canvas.add(at_s, pan, &sound);
    }

    /// Plays all parts and drums of a rhythm.
    fn perform(&mut self, rhythm: &Rhythm) {
        let beat_s = self.beat_s(rhythm.bpm);
        let step_s = beat_s / rhythm.steps_per_beat;
        let steps_per_bar = (4.0 * rhythm.steps_per_beat) as usize;

        let chords = if rhythm.stays_on_tonic {
            [0; 4]
        } else {
            *self.rng.pick(&CHORDS)
        };
        let mut patterns = Vec::new();
        for part in &rhythm.parts {
            patterns.push(self.variant(&part.patterns));
        }

        for (i, at_s) in self.grid(step_s) {
            let root = chords[i / steps_per_bar % 4];
            for (part, pattern) in rhythm.parts.iter().zip(&patterns) {
                let symbol = pattern[i % pattern.len()];
                if symbol.is_ascii_digit() {
                    self.step(part, root + i32::from(symbol - b'0'), at_s, step_s);
                }
            }
        }

        for drum in &rhythm.drums {
            self.drum(drum, beat_s / drum.steps_per_beat);
        }
        if rhythm.shellac {
            effects::shellac(&mut self.canvas, self.rng);
        }
    }

    /// Draws one of the patterns.
    fn variant<'p>(&mut self, patterns: &'p [String]) -> &'p [u8] {
        match patterns {
            [only] => only.as_bytes(),
            _ => self.rng.pick(patterns).as_bytes(),
        }
    }

    /// Plays one step of a part, which starts at `at_s`.
    fn step(&mut self, part: &Part, degree: i32, at_s: f32, step_s: f32) {
        for at_steps in &part.at_steps {
            if part.chance.is_some_and(|chance| !self.rng.chance(chance)) {
                continue;
            }

            let degrees = match &part.degrees {
                Degrees::Same => &[0],
                Degrees::All(degrees) => degrees.as_slice(),
                Degrees::Any(degrees) => slice::from_ref(self.rng.pick(degrees)),
            };
            for above in degrees {
                let note = Note {
                    hz: self.pitch(degree + above, part.octave),
                    seconds: self.length_s(&part.length, step_s),
                    level: part.level,
                };
                self.play(part.voice, at_s + at_steps * step_s, note);
            }
        }
    }

    /// Returns the length of a note in seconds.
    fn length_s(&mut self, length: &Length, step_s: f32) -> f32 {
        match *length {
            Length::Step => step_s,
            Length::Steps(steps) => steps * step_s,
            Length::StepDividedBy(parts) => step_s / parts,
            Length::Seconds(seconds) => seconds,
            Length::ShortOrLong(short, _) if self.rng.chance(0.7) => short * step_s,
            Length::ShortOrLong(_, long) => long * step_s,
        }
    }

    /// Repeats the pattern of a drum over the whole piece.
    fn drum(&mut self, drum: &Drum, step_s: f32) {
        let pattern = self.variant(&drum.patterns);
        // Tune the drums to the artist's key, but only by half of the interval, so that a kick still sounds like a
        // kick.
        let hz = 52.0 * (self.style.root_hz / 78.0).sqrt();

        for (i, at_s) in self.grid(step_s) {
            let strength = match pattern[i % pattern.len()] {
                b'x' => 1.0,
                b'o' => 0.45,
                _ => continue,
            };

            let note = Note {
                hz,
                seconds: step_s,
                level: drum.level * strength * self.style.drum_level,
            };
            self.play(drum.voice, at_s, note);
        }
    }
}

/// Plays a piece in the style [`Style::Experimental`].
fn experimental(stage: &mut Stage) {
    let long_s = stage.canvas.seconds();

    // Three layers over the whole piece.
    for octave in [1, 3, 4] {
        let degree = stage.rng.below(7) as i32;
        let layer = Note {
            hz: stage.pitch(degree, octave),
            seconds: long_s,
            level: 0.6,
        };
        stage.play(voices::drone, 0.0, layer);
    }

    // Bells without a regular beat.
    for (_, at_s) in stage.grid(1.7) {
        if stage.rng.chance(0.4) {
            let at_s = at_s + stage.rng.range(0.0, 1.5);
            let degree = stage.rng.below(14) as i32;
            let note = Note {
                hz: stage.pitch(degree, 2),
                seconds: 1.5,
                level: 0.2,
            };
            stage.play(voices::bell, at_s, note);
        }
    }
}

/// Plays a piece in the style [`Style::Spoken`].
fn spoken(stage: &mut Stage) {
    let base_hz = stage.rng.range(90.0, 220.0);
    let mut at_s = stage.rng.range(0.0, 0.4);

    while at_s < stage.canvas.seconds() {
        let seconds = stage.rng.range(0.09, 0.24) / stage.style.pace;
        let note = Note {
            hz: base_hz * stage.rng.range(0.85, 1.2),
            seconds,
            level: 0.7,
        };
        stage.play(voices::vowel, at_s, note);

        // Some syllables end with a consonant.
        if stage.rng.chance(0.3) {
            let hiss = Note {
                hz: 60.0,
                seconds: 0.1,
                level: 0.12,
            };
            stage.play(drums::hat, at_s + seconds, hiss);
        }

        // The longer gap between syllables is a breath.
        at_s += seconds + if stage.rng.chance(0.15) { 0.45 } else { 0.05 };
    }
}
