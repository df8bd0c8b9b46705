//! The genres of `data/genres.toml`: the ten that the demo plays, and the part of FMA's genre tree that contains them.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::styles::Rhythm;

/// The contents of `data/genres.toml`.
pub(crate) static GENRES: LazyLock<Genres> = LazyLock::new(|| {
    toml::from_str(include_str!("../data/genres.toml")).expect("the tests read this file")
});

/// FMA's genre tree and the genres of the demo.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Genres {
    /// Genres of the tree, as rows of `genres.csv` sorted by id.
    pub tree: Vec<Node>,
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
    use crate::synth::VOICES;

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
                assert!(VOICES.contains_key(&part.voice), "{}", part.voice);
            }
        }
    }
}
