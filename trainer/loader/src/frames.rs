//! The frames of each row that a batch contains: as the model expects them, a random crop, or all of them.

use wavemill_schemas::rng::Rng;

/// The frames of each row that a batch contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowFrames {
    /// As many frames as [`Form::host_frames`](crate::Form::host_frames). Rows that differ in length are cut or
    /// zero-padded at their end.
    #[default]
    Fixed,
    /// A crop of this many frames, whose position is drawn from seed, epoch and row key. Shorter rows are zero-padded
    /// at their end.
    Crop(usize),
    /// All frames. Rows that differ in length are zero-padded at their end to the longest row of the global batch.
    Longest,
}

/// The position of a row's frames that are copied to host memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Excerpt {
    /// The first frames.
    Start,
    /// Consecutive frames, whose position is drawn with this key.
    Random(u64),
}

impl Excerpt {
    /// Returns the index of the first frame of `n_taken` frames of a row that has `n_stored`.
    pub(crate) fn first_frame(self, n_stored: usize, n_taken: usize) -> usize {
        match self {
            Self::Start => 0,
            Self::Random(key) => {
                let n_positions = n_stored.saturating_sub(n_taken) as u64 + 1;
                Rng::new(key).below(n_positions) as usize
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use wavemill_schemas::rng;

    use super::*;

    #[test]
    fn crops_reach_every_position_and_stay_within_the_row() {
        let positions: BTreeSet<usize> = (0..200)
            .map(|key| Excerpt::Random(rng::mix("test", &[key])).first_frame(10, 7))
            .collect();
        assert_eq!(positions, BTreeSet::from([0, 1, 2, 3]));

        assert_eq!(Excerpt::Random(1).first_frame(7, 7), 0);
        assert_eq!(Excerpt::Random(1).first_frame(3, 7), 0, "a shorter row");
        assert_eq!(Excerpt::Start.first_frame(10, 7), 0);
    }
}
