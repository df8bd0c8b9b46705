//! The genres of `data/genres.toml`: the ten that the demo plays, and the part of FMA's genre tree that contains them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::synth::Voice;

/// The contents of `data/genres.toml`.
pub(crate) static GENRES: LazyLock<Genres> = LazyLock::new(|| {
    toml::from_str(include_str!("../data/genres.toml")).expect("the tests read this file")
});

/// FMA's genre tree, and voices and genres of the demo.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Genres {
    /// Genres of the tree, as rows of `genres.csv` sorted by id.
    pub tree: Vec<Node>,
    /// Voices, by the name under which genres play them.
    pub voices: BTreeMap<String, Voice>,
    /// Genres of the demo, sorted by title.
    pub played: Vec<Genre>,
}

/// A top-level genre of the demo.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Genre {
    /// FMA's genre id.
    pub id: u32,
    /// FMA's title.
    pub title: String,
    /// Musical style in which the genre is played.
    pub style: Rhythm,
}

impl Genre {
    /// Returns the ids of the subgenres of this genre.
    pub(crate) fn children(&self) -> Vec<u32> {
        let children = GENRES.tree.iter().filter(|node| node.parent == self.id);
        children.map(|node| node.id).collect()
    }
}

/// Musical style of a genre: parts that repeat their patterns over the whole piece. A bar has four beats.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rhythm {
    /// Usual tempo in beats per minute.
    pub bpm: f32,
    /// True if all bars have the chord of the tonic; otherwise each bar has a chord of its own.
    #[serde(default)]
    pub stays_on_tonic: bool,
    /// Parts, which are played together.
    pub parts: Vec<Part>,
    /// True if the recording is a worn shellac record.
    #[serde(default)]
    pub shellac: bool,
}

/// A part of a rhythm, played by one voice.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    /// Name of the voice.
    pub voice: String,
    pub steps_per_beat: f32,
    /// For each step, a scale degree above the root of the chord, a loud (x) or soft (o) stroke on the root, or a rest.
    pub patterns: Vec<String>,
    /// Degrees of which one is added to that of the pattern, drawn each time.
    #[serde(default = "only_zero")]
    pub any: Vec<i32>,
    /// Degrees that are played together, above that of the pattern.
    #[serde(default = "only_zero")]
    pub chord: Vec<i32>,
    /// Octaves above the artist's root.
    #[serde(default)]
    pub octave: i32,
    /// Probability of playing a step.
    #[serde(default = "always")]
    pub chance: f32,
    /// Offsets from the start of the step, in steps. With several offsets, a step is played several times.
    #[serde(default = "only_zero")]
    pub at_steps: Vec<f32>,
    /// Times from the start of a note until its release, in steps, of which one is drawn for each note.
    #[serde(default = "only_one")]
    pub steps: Vec<f32>,
    /// Peak level of a note.
    pub level: f32,
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

/// One row of `genres.csv`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    /// Column `genre_id`.
    pub id: u32,
    /// Column `parent`; 0 for a root of the tree.
    pub parent: u32,
    /// Column `title`.
    pub title: String,
}

impl Node {
    /// Returns `top_level`, the root of this genre. The tree has only two levels here.
    pub(crate) fn top_level(&self) -> u32 {
        if self.parent == 0 {
            self.id
        } else {
            self.parent
        }
    }
}

#[cfg(test)]
mod tests {
    use super::GENRES;

    #[test]
    fn every_parent_is_a_root_of_the_tree() {
        for node in &GENRES.tree {
            assert!(
                GENRES
                    .tree
                    .iter()
                    .any(|root| root.id == node.top_level() && root.parent == 0),
                "{}",
                node.title
            );
        }
        assert!(GENRES.tree.windows(2).all(|pair| pair[0].id < pair[1].id));
    }

    #[test]
    fn generated_genres_are_named_roots() {
        assert_eq!(GENRES.played.len(), 10);
        for genre in &GENRES.played {
            let node = GENRES.tree.iter().find(|node| node.id == genre.id).unwrap();
            assert_eq!((node.parent, &node.title), (0, &genre.title));
            for part in &genre.style.parts {
                assert!(GENRES.voices.contains_key(&part.voice), "{}", part.voice);
            }
        }
    }
}
