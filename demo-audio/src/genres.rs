//! The ten genres of the demo with FMA's names and ids, and the part of FMA's genre tree that contains them.

/// A top-level genre of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Genre {
    /// Slow organ.
    Classical,
    /// Square-wave arpeggio over a four-on-the-floor beat.
    Electronic,
    /// Drifting noise.
    Experimental,
    /// Picked strings.
    Folk,
    /// Breakbeat and wobble bass.
    HipHop,
    /// Mallets and hand drums.
    International,
    /// Walking bass, electric piano, swung ride cymbal.
    Jazz,
    /// Stride on a worn record.
    OldTime,
    /// Power chords on a back beat.
    Rock,
    /// Syllables.
    Spoken,
}

/// All genres of the demo.
pub(crate) const PLAYED: [Genre; 10] = [
    Genre::Classical,
    Genre::Electronic,
    Genre::Experimental,
    Genre::Folk,
    Genre::HipHop,
    Genre::International,
    Genre::Jazz,
    Genre::OldTime,
    Genre::Rock,
    Genre::Spoken,
];

impl Genre {
    /// Returns FMA's genre id.
    pub(crate) fn id(self) -> u32 {
        match self {
            Self::International => 2,
            Self::Jazz => 4,
            Self::Classical => 5,
            Self::OldTime => 8,
            Self::Rock => 12,
            Self::Electronic => 15,
            Self::Folk => 17,
            Self::Spoken => 20,
            Self::HipHop => 21,
            Self::Experimental => 38,
        }
    }

    /// Returns FMA's title.
    pub(crate) fn title(self) -> &'static str {
        TREE.iter()
            .find(|node| node.id == self.id())
            .map_or("", |node| node.title)
    }

    /// Returns the ids of the genres below this one.
    pub(crate) fn children(self) -> Vec<u32> {
        TREE.iter()
            .filter(|node| node.parent == self.id())
            .map(|node| node.id)
            .collect()
    }
}

/// One row of `genres.csv`.
pub(crate) struct Node {
    /// `genre_id`.
    pub id: u32,
    /// `parent`; 0 for a root.
    pub parent: u32,
    /// `title`.
    pub title: &'static str,
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

const fn node(id: u32, parent: u32, title: &'static str) -> Node {
    Node { id, parent, title }
}

/// FMA's sixteen root genres, and sub-genres of those in the demo (Defferrard et al. 2017, CC BY 4.0), sorted by id.
pub(crate) const TREE: [Node; 36] = [
    node(1, 38, "Avant-Garde"),
    node(2, 0, "International"),
    node(3, 0, "Blues"),
    node(4, 0, "Jazz"),
    node(5, 0, "Classical"),
    node(8, 0, "Old-Time / Historic"),
    node(9, 0, "Country"),
    node(10, 0, "Pop"),
    node(12, 0, "Rock"),
    node(13, 0, "Easy Listening"),
    node(14, 0, "Soul-RnB"),
    node(15, 0, "Electronic"),
    node(17, 0, "Folk"),
    node(20, 0, "Spoken"),
    node(21, 0, "Hip-Hop"),
    node(25, 12, "Punk"),
    node(32, 38, "Noise"),
    node(33, 17, "Psych-Folk"),
    node(38, 0, "Experimental"),
    node(46, 2, "Latin America"),
    node(65, 20, "Radio"),
    node(66, 12, "Indie-Rock"),
    node(74, 4, "Free-Jazz"),
    node(100, 21, "Alternative Hip-Hop"),
    node(103, 17, "Singer-Songwriter"),
    node(118, 2, "Balkan"),
    node(179, 4, "Big Band/Swing"),
    node(181, 15, "Techno"),
    node(187, 5, "20th Century Classical"),
    node(188, 20, "Poetry"),
    node(297, 15, "Chip Music"),
    node(322, 5, "Composed Music"),
    node(539, 21, "Rap"),
    node(659, 5, "Contemporary Classical"),
    node(811, 21, "Hip-Hop Beats"),
    node(1235, 0, "Instrumental"),
];

#[cfg(test)]
mod tests {
    use super::{PLAYED, TREE};

    #[test]
    fn every_parent_is_a_root_of_the_tree() {
        for node in &TREE {
            assert!(
                TREE.iter()
                    .any(|root| root.id == node.top_level() && root.parent == 0),
                "{}",
                node.title
            );
        }
        assert!(TREE.windows(2).all(|pair| pair[0].id < pair[1].id));
    }

    #[test]
    fn generated_genres_are_named_roots() {
        assert!(PLAYED.iter().all(|genre| !genre.title().is_empty()));
    }
}
