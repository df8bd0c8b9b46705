//! Splits without a previous version.

use std::collections::BTreeMap;

use wavemill_schemas::canonical;
use wavemill_schemas::split::Split;

use super::linked::LinkedRows;
use super::{GroupSplits, KeptRule, SplitRow, SplitSettings};

/// Minimum number of rows for a class to be split. A smaller class cannot be in all three splits, and is used for
/// training only.
pub(super) const CLASS_ROWS_MIN: usize = 3;

/// Splits each class at the cumulative fractions, with its recordings in hash order. One artist may be in several
/// splits. All rows of a recording count towards the class of its first key.
///
/// Returns the split of every row, in the order of `rows`.
pub fn stratified(rows: &[SplitRow<'_>], settings: SplitSettings) -> Vec<Split> {
    let mut linked = LinkedRows::new(rows);
    linked.link_copies();

    let mut classes: BTreeMap<Option<i32>, Vec<Vec<usize>>> = BTreeMap::new();
    for group in linked.groups() {
        classes.entry(rows[group[0]].class).or_default().push(group);
    }

    let mut splits = vec![Split::Training; rows.len()];
    let hash = canonical::hashes("split", settings.seed);
    for mut groups in classes.into_values() {
        groups.sort_by_cached_key(|group| {
            let key = rows[group[0]].key;
            (hash(key), key)
        });
        let [training, validation, _] =
            sizes(groups.iter().map(Vec::len).sum(), settings.fractions);

        let mut position = 0;
        for group in groups {
            // A group's split follows from the position of its first row, so that a recording is never split.
            let split = if position < training {
                Split::Training
            } else if position < training + validation {
                Split::Validation
            } else {
                Split::Test
            };
            position += group.len();
            for index in group {
                splits[index] = split;
            }
        }
    }
    splits
}

/// Splits the rows so that no artist is in two splits. Artists are placed in hash order, each as a whole in the split
/// with the greatest need for its classes. Artists who share a recording count as one.
///
/// Returns the split of every row, in the order of `rows`.
pub fn by_artist(rows: &[SplitRow<'_>], settings: SplitSettings) -> Vec<Split> {
    // Without splits of a previous version, every group is a new group.
    let placed = KeptRule::Artist.place_beside(rows, settings, &GroupSplits::default());
    placed.splits
}

/// Returns the number of rows per split: the integer parts of the shares, plus one for the largest remainders until all
/// rows are assigned. If remainders are equal, the earlier split gets the row.
pub(super) fn sizes(n: usize, fractions: [f64; 3]) -> [usize; 3] {
    if n < CLASS_ROWS_MIN {
        return [n, 0, 0];
    }
    let shares = fractions.map(|fraction| fraction * n as f64);
    let mut sizes = shares.map(|share| share as usize);

    // The sort is stable: if remainders are equal, the earlier split comes first.
    let mut by_remainder = [0, 1, 2];
    by_remainder.sort_by(|&a, &b| shares[b].fract().total_cmp(&shares[a].fract()));
    let left = n.saturating_sub(sizes.iter().sum());
    for &split in by_remainder.iter().cycle().take(left) {
        sizes[split] += 1;
    }
    sizes
}
