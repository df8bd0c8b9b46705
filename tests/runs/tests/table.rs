//! A small data set of CSV rows and short WAVs, for tests that change it row by row.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use wavemill_tests::Failed;

use crate::support::{Inputs, files_below, run, scratch};

/// Recipe for clips of a quarter of a second, with few clips per shard.
const RECIPE: &str = r#"
name = "table"
[catalog]
dataset = "table"
[[targets]]
name = "genre"
column = "genre"
[split]
rule = "artist"
[audio]
sample_rate_hz = 8000
duration_s = 0.25
min_duration_s = 0.1
[[features]]
name = "log_mel"
op = "mel"
n_fft = 256
hop_length = 128
n_mels = 16
[shards]
clips = 8
row_group_rows = 4
"#;

/// TOML of a second feature, for [`Table::set_recipe`].
pub(crate) const MFCC: &str = r#"
[[features]]
name = "mfcc"
op = "mfcc"
n_fft = 256
hop_length = 128
n_mels = 16
n_mfcc = 8
"#;

const RATE_HZ: u32 = 8000;
/// Samples in a quarter of a second.
const SAMPLES: u32 = RATE_HZ / 4;

/// Metadata of a track and content of its audio file.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub artist: Option<u32>,
    pub genre: &'static str,
    /// Split used by the rule `column`.
    pub side: &'static str,
    /// Seed of the track's noise. Tracks with the same voice contain the same recording.
    pub voice: u32,
    /// Text of an additional chunk in the file. The chunk is omitted if the text is empty.
    pub tag: &'static str,
    /// Number of samples in the file, at 8 kHz.
    pub samples: u32,
}

/// Tracks by their `clip_key`, with the folder to which their files are written.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    folder: PathBuf,
    pub rows: BTreeMap<String, Row>,
}

impl Table {
    /// Creates `n` tracks with three tracks per artist, in three genres.
    pub(crate) fn new(name: &str, n: u32) -> Self {
        let folder = scratch(name);
        fs::write(folder.join("table.toml"), RECIPE).unwrap();
        let mut table = Self {
            folder,
            rows: BTreeMap::new(),
        };

        for track in 0..n {
            table.add(track);
        }
        table
    }

    /// Adds a track and returns it, so that its fields can be changed.
    pub(crate) fn add(&mut self, track: u32) -> &mut Row {
        let artist = track / 3;
        let row = Row {
            artist: Some(artist),
            genre: ["Folk", "Jazz", "Rock"][artist as usize % 3],
            side: "training",
            voice: track,
            tag: "",
            samples: SAMPLES,
        };

        self.rows.insert(key(track), row);
        self.rows.get_mut(&key(track)).unwrap()
    }

    pub(crate) fn remove(&mut self, track: u32) {
        self.rows.remove(&key(track));
    }

    pub(crate) fn row(&mut self, track: u32) -> &mut Row {
        self.rows.get_mut(&key(track)).unwrap()
    }

    /// Inserts sections before the last section of the recipe, and replaces parts of it.
    pub(crate) fn set_recipe(&self, sections: &str, changes: &[(&str, &str)]) {
        let mut recipe = RECIPE.replace("[shards]", &format!("{sections}\n[shards]"));
        for (from, to) in changes {
            assert!(recipe.contains(from), "{from}");
            recipe = recipe.replace(from, to);
        }
        fs::write(self.folder.join("table.toml"), recipe).unwrap();
    }

    /// Writes the recipe with an additional cleaning step `filter` to a separate file.
    pub(crate) fn with_filter(&self, predicate: &str) -> Result<PathBuf, Failed> {
        let step =
            format!("[[catalog.clean]]\nstep = \"filter\"\nwhere = \"{predicate}\"\n[[targets]]");
        let path = self.folder.join("filter.toml");
        fs::write(&path, RECIPE.replace("[[targets]]", &step))?;
        Ok(path)
    }

    /// Writes the metadata and the audio files of the current rows.
    pub(crate) fn written(&self) -> Result<Inputs, Failed> {
        let metadata = self.folder.join("metadata");
        let audio = self.folder.join("audio");
        fs::create_dir_all(&metadata)?;
        fs::create_dir_all(audio.join("a"))?;

        let mut csv = "clip_key,genre,artist_id,side\n".to_owned();
        for (clip_key, row) in &self.rows {
            let artist = row.artist.map_or(String::new(), |id| id.to_string());
            writeln!(csv, "{clip_key},{},{artist},{}", row.genre, row.side)?;

            // An unchanged file is not written again and keeps its modification time.
            let path = audio.join(clip_key);
            let bytes = wav(row);
            if fs::read(&path).ok().as_ref() != Some(&bytes) {
                fs::write(path, bytes)?;
            }
        }
        // Removes files of tracks that no longer exist.
        for name in files_below(&audio) {
            if !self.rows.contains_key(&name) {
                fs::remove_file(audio.join(name))?;
            }
        }
        fs::write(metadata.join("table.csv"), csv)?;

        Ok(Inputs::new(metadata, audio, self.folder.join("table.toml")))
    }

    /// Returns an `extract` command for the current rows.
    pub(crate) fn extract(&self, arguments: &[&str]) -> Result<Command, Failed> {
        let mut command = self.written()?.extract(&self.store());
        command.args(arguments);
        Ok(command)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// Creates a separate store with these rows as its first version.
    pub(crate) fn first(&self, name: &str, arguments: &[&str]) -> Result<PathBuf, Failed> {
        let store = self.folder.join(name);
        run(self.written()?.extract(&store).args(arguments)).exits(0)?;
        Ok(store)
    }
}

/// Returns a track's key.
pub(crate) fn key(track: u32) -> String {
    format!("a/{track:03}.wav")
}

/// Returns a WAV file of a quarter of a second, without a tag.
pub(crate) fn noise(voice: u32) -> Vec<u8> {
    noise_of(voice, SAMPLES)
}

/// Returns a WAV file with the given number of samples at 8 kHz, without a tag.
pub(crate) fn noise_of(voice: u32, samples: u32) -> Vec<u8> {
    wav(&Row {
        artist: None,
        genre: "",
        side: "",
        voice,
        tag: "",
        samples,
    })
}

/// Returns a 16-bit mono WAV file with noise that depends on the row's voice. A tag is written as a chunk before
/// the samples.
fn wav(row: &Row) -> Vec<u8> {
    let data_bytes = row.samples * 2;
    let tag = chunk_of_text(row.tag);

    let mut bytes = Vec::new();
    bytes.extend_from_slice(b"RIFF");
    bytes.extend_from_slice(&(36 + data_bytes + tag.len() as u32).to_le_bytes());
    bytes.extend_from_slice(b"WAVEfmt ");
    bytes.extend_from_slice(&16_u32.to_le_bytes());
    bytes.extend_from_slice(&1_u16.to_le_bytes());
    bytes.extend_from_slice(&1_u16.to_le_bytes());
    bytes.extend_from_slice(&RATE_HZ.to_le_bytes());
    bytes.extend_from_slice(&(RATE_HZ * 2).to_le_bytes());
    bytes.extend_from_slice(&2_u16.to_le_bytes());
    bytes.extend_from_slice(&16_u16.to_le_bytes());
    bytes.extend_from_slice(&tag);
    bytes.extend_from_slice(b"data");
    bytes.extend_from_slice(&data_bytes.to_le_bytes());

    // A linear congruential generator with the constants of Numerical Recipes.
    let mut state = row.voice.wrapping_mul(2_654_435_761).wrapping_add(1);
    for _ in 0..row.samples {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.extend_from_slice(&((state >> 16) as u16).to_le_bytes());
    }
    bytes
}

/// Returns a `LIST` chunk of type `INFO` with an artist's name, as audio editors write it.
fn chunk_of_text(text: &str) -> Vec<u8> {
    if text.is_empty() {
        return Vec::new();
    }

    // Pads the text to an even length, so that the chunk needs no padding byte.
    let text = format!("{text:>width$}", width = text.len().next_multiple_of(2));
    let mut bytes = Vec::new();
    bytes.extend_from_slice(b"LIST");
    bytes.extend_from_slice(&(12 + text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(b"INFOIART");
    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}
