//! Musical styles: the voices and rhythms of each genre.
//!
//! A genre consists of timbres and rhythmic patterns. Key, tempo, mix, room, tone and noise depend on the artist, so
//! that a model that recognises artists does not learn the genre.

use crate::genres::Genre;
use crate::rng::Rng;
use crate::synth::{Canvas, Note, Voice, drums, effects, voices};

/// Style of an artist, independent of the piece.
#[derive(Clone, Debug)]
pub(crate) struct PlayingStyle {
    /// Frequency of the lowest tonic in Hz.
    pub root_hz: f32,
    /// Factor by which the genre's usual tempo is multiplied.
    pub pace: f32,
    /// Whether the scale is minor instead of major.
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
}

/// Renders one piece: the part of the genre, a quiet part of the guest genre, the room effect and the mastering.
pub(crate) fn render(
    genre: Genre,
    guest: Genre,
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

/// Computes the root mean square of the left channel.
fn level(canvas: &Canvas) -> f32 {
    let energy: f64 = canvas.left.iter().map(|x| f64::from(x * x)).sum();
    (energy / canvas.left.len().max(1) as f64).sqrt() as f32
}

/// Renders the part of one genre, without room effect and mastering.
fn part(genre: Genre, style: &PlayingStyle, rate_hz: u32, seconds: f32, rng: &mut Rng) -> Canvas {
    // Pieces of one artist have different keys, so that the pitch does not identify the artist.
    let key = *rng.pick(&[0, 2, 3, 5, 7, 9]);
    let mut stage = Stage {
        canvas: Canvas::new(rate_hz, seconds),
        style,
        key,
        rng,
    };

    match genre {
        Genre::Folk => folk(&mut stage),
        Genre::Classical => classical(&mut stage),
        Genre::Jazz => jazz(&mut stage),
        Genre::Electronic => electronic(&mut stage),
        Genre::HipHop => hip_hop(&mut stage),
        Genre::Rock => rock(&mut stage),
        Genre::Experimental => experimental(&mut stage),
        Genre::Spoken => spoken(&mut stage),
        Genre::International => international(&mut stage),
        Genre::OldTime => old_time(&mut stage),
    }

    stage.canvas
}

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

    /// Draws a pitch from `n` degrees, starting at `from`.
    fn any_pitch(&mut self, from: i32, n: usize, octave: i32) -> f32 {
        let degree = from + self.rng.below(n) as i32;
        self.pitch(degree, octave)
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

    /// Repeats a drum pattern over the whole piece: `x` is loud, `o` is soft, and other characters are rests.
    fn drum(&mut self, voice: Voice, steps: &str, step_s: f32, level: f32) {
        let steps = steps.as_bytes();
        // Tune the drums to the artist's key, but only by half of the interval, so that a kick still sounds like a
        // kick.
        let hz = 52.0 * (self.style.root_hz / 78.0).sqrt();

        for (i, at_s) in self.grid(step_s) {
            let strength = match steps[i % steps.len()] {
                b'x' => 1.0,
                b'o' => 0.45,
                _ => continue,
            };

            let note = Note {
                hz,
                seconds: step_s,
                level: level * strength * self.style.drum_level,
            };
            self.play(voice, at_s, note);
        }
    }

    /// Draws the roots of four chords as scale degrees, one per bar.
    fn changes(&mut self) -> [i32; 4] {
        *self.rng.pick(&[
            [0, 3, 4, 0],
            [0, 5, 3, 4],
            [0, 4, 5, 3],
            [0, 3, 0, 4],
            [0, 2, 3, 4],
        ])
    }
}

/// Finger-picked strings in eighths.
fn folk(stage: &mut Stage) {
    let step_s = stage.beat_s(104.0) / 2.0;
    let changes = stage.changes();
    let picking = *stage.rng.pick(&[
        [0, 4, 2, 7, 4, 2, 7, 4],
        [0, 2, 4, 7, 9, 7, 4, 2],
        [0, 7, 4, 9, 2, 7, 4, 2],
    ]);

    for (i, at_s) in stage.grid(step_s) {
        let degree = changes[i / 8 % 4] + picking[i % 8];
        let note = Note {
            hz: stage.pitch(degree, 1),
            seconds: 3.0 * step_s,
            level: 0.6,
        };
        stage.play(voices::string, at_s, note);

        // The thumb plays a bass note twice per bar.
        if i % 4 == 0 {
            let bass = Note {
                hz: stage.pitch(changes[i / 8 % 4], 0),
                seconds: 4.0 * step_s,
                level: 0.6,
            };
            stage.play(voices::string, at_s, bass);
        }
    }
}

/// Slow organ chords with a slow melody.
fn classical(stage: &mut Stage) {
    let bar_s = 4.0 * stage.beat_s(72.0);
    let changes = stage.changes();

    for (i, at_s) in stage.grid(bar_s) {
        // A triad over the whole bar.
        for degree in [0, 2, 4] {
            let note = Note {
                hz: stage.pitch(changes[i % 4] + degree, 1),
                seconds: bar_s,
                level: 0.25,
            };
            stage.play(voices::organ, at_s, note);
        }

        // The melody, an octave above the chord.
        for beat in [0.0, 1.0, 2.0, 3.0] {
            let note = Note {
                hz: stage.any_pitch(changes[i % 4] + 7, 5, 1),
                seconds: bar_s / 4.5,
                level: 0.25,
            };
            stage.play(voices::organ, at_s + beat * bar_s / 4.0, note);
        }
    }
}

/// Walking bass, off-beat electric piano, swung ride cymbal.
fn jazz(stage: &mut Stage) {
    let beat_s = stage.beat_s(150.0);
    let changes = stage.changes();

    for (i, at_s) in stage.grid(beat_s) {
        // The bass walks up a chord and sometimes plays the degree above.
        let root = changes[i / 4 % 4];
        let walk = [0, 2, 4, 5][i % 4] + stage.rng.below(2) as i32;
        let bass = Note {
            hz: stage.pitch(root + walk, 0),
            seconds: 0.8 * beat_s,
            level: 0.7,
        };
        stage.play(voices::string, at_s, bass);

        // Third, seventh and ninth, on the last third of the beat. The root is played by the bass.
        if stage.rng.chance(0.55) {
            for degree in [2, 6, 8] {
                let note = Note {
                    hz: stage.pitch(root + degree, 1),
                    seconds: 0.5 * beat_s,
                    level: 0.22,
                };
                stage.play(voices::electric_piano, at_s + 0.66 * beat_s, note);
            }
        }
    }

    // Three steps per beat produce the swing.
    stage.drum(drums::ride, "x..x.ox..x.o", beat_s / 3.0, 0.35);
    stage.drum(drums::hat, "...x..", beat_s / 3.0, 0.3);
}

/// Square-wave arpeggio in sixteenths over a four-on-the-floor beat.
fn electronic(stage: &mut Stage) {
    let step_s = stage.beat_s(128.0) / 4.0;
    let changes = stage.changes();
    let shape = *stage
        .rng
        .pick(&[[0, 2, 4, 7], [7, 4, 2, 0], [0, 4, 7, 9], [0, 7, 4, 7]]);

    for (i, at_s) in stage.grid(step_s) {
        let note = Note {
            hz: stage.pitch(changes[i / 16 % 4] + shape[i % 4], 2),
            seconds: 0.7 * step_s,
            level: 0.4,
        };
        stage.play(voices::square, at_s, note);
    }

    stage.drum(drums::kick, "x...", step_s, 0.9);
    stage.drum(drums::hat, "..x.", step_s, 0.5);
}

/// A breakbeat, a wobble bass and occasional bells.
fn hip_hop(stage: &mut Stage) {
    let step_s = stage.beat_s(88.0) / 4.0;
    let changes = stage.changes();

    for (i, at_s) in stage.grid(4.0 * step_s) {
        let root = changes[i / 4 % 4];

        // Only the drums play on the last beat of a bar.
        if i % 4 != 3 {
            let bass = Note {
                hz: stage.pitch(root, 0),
                seconds: 3.4 * step_s,
                level: 0.5,
            };
            stage.play(voices::wobble, at_s, bass);
        }

        if stage.rng.chance(0.3) {
            let note = Note {
                hz: stage.pitch(root + 4, 2),
                seconds: 3.0 * step_s,
                level: 0.15,
            };
            stage.play(voices::bell, at_s, note);
        }
    }

    // A bar has sixteen steps. Only the kick pattern differs between pieces.
    let kick = *stage
        .rng
        .pick(&["x..x..x...x.....", "x.....x.x.x.....", "x..x......xo...."]);
    stage.drum(drums::kick, kick, step_s, 1.0);
    stage.drum(drums::snare, "....x.......x..o", step_s, 0.8);
    stage.drum(drums::hat, "x.xox.x.x.xxx.o.", step_s, 0.3);
}

/// Power chords in eighths on a back beat.
fn rock(stage: &mut Stage) {
    let step_s = stage.beat_s(136.0) / 2.0;
    let changes = stage.changes();

    for (i, at_s) in stage.grid(step_s) {
        // Most chords are palm-muted, the others ring.
        let length = if stage.rng.chance(0.7) { 0.55 } else { 0.95 };
        let note = Note {
            hz: stage.pitch(changes[i / 8 % 4], 0),
            seconds: length * step_s,
            level: 0.4,
        };
        stage.play(voices::power_chord, at_s, note);
    }

    stage.drum(drums::kick, "x..ox...", step_s, 0.9);
    stage.drum(drums::snare, "..x...x.", step_s, 0.8);
    stage.drum(drums::ride, "x.x.", step_s, 0.4);
}

/// Slowly changing coloured noise with occasional bells.
fn experimental(stage: &mut Stage) {
    let long_s = stage.canvas.seconds();

    // Three layers over the whole piece.
    for octave in [1, 3, 4] {
        let layer = Note {
            hz: stage.any_pitch(0, 7, octave),
            seconds: long_s,
            level: 0.6,
        };
        stage.play(voices::drone, 0.0, layer);
    }

    // Bells without a regular beat.
    for (_, at_s) in stage.grid(1.7) {
        if stage.rng.chance(0.4) {
            let at_s = at_s + stage.rng.range(0.0, 1.5);
            let note = Note {
                hz: stage.any_pitch(0, 14, 2),
                seconds: 1.5,
                level: 0.2,
            };
            stage.play(voices::bell, at_s, note);
        }
    }
}

/// Syllables of uneven length in phrases with pauses between them.
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

        // The longer gap is a breath.
        at_s += seconds + if stage.rng.chance(0.15) { 0.45 } else { 0.05 };
    }
}

/// Two interlocking mallet parts over hand drums in 3 + 3 + 2.
fn international(stage: &mut Stage) {
    let step_s = stage.beat_s(116.0) / 4.0;
    // Five of the seven tones of the scale.
    let scale = [0, 1, 2, 4, 5];

    for (i, at_s) in stage.grid(step_s) {
        // Two players alternate. The second one plays an octave higher and less often.
        let is_first = i % 2 == 0;
        let plays = stage.rng.chance(if is_first { 0.75 } else { 0.6 });
        if plays {
            let degree = *stage.rng.pick(&scale) + if is_first { 0 } else { 7 };
            let note = Note {
                hz: stage.pitch(degree, 2),
                seconds: step_s,
                level: 0.5,
            };
            stage.play(voices::mallet, at_s, note);
        }
    }

    stage.drum(drums::conga, "x..x..x.", step_s, 0.6);
    stage.drum(drums::kick, "x.......", step_s, 0.4);
}

/// Stride style on strings, alternating bass notes and chords, on a worn shellac record.
fn old_time(stage: &mut Stage) {
    let beat_s = stage.beat_s(168.0);
    let changes = stage.changes();

    for (i, at_s) in stage.grid(beat_s) {
        // The left hand: a bass note on one beat, a chord on the next.
        let root = changes[i / 4 % 4];
        let chord: &[i32] = if i % 2 == 0 { &[0] } else { &[7, 9, 11] };
        for degree in chord {
            let note = Note {
                hz: stage.pitch(root + degree, 1),
                seconds: 0.5 * beat_s,
                level: 0.4,
            };
            stage.play(voices::string, at_s, note);
        }

        // The right hand: a melody in eighths, with gaps.
        for half in [0.0, 0.5] {
            if stage.rng.chance(0.6) {
                let note = Note {
                    hz: stage.any_pitch(root + 14, 6, 1),
                    seconds: 0.2,
                    level: 0.35,
                };
                stage.play(voices::string, at_s + half * beat_s, note);
            }
        }
    }

    // The worn record is a property of the genre. Reverb and mastering depend on the artist and are applied later.
    effects::shellac(&mut stage.canvas, stage.rng);
}
