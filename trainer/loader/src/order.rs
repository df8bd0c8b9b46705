//! Assigns rows to batches with pure functions of rows, seed and epoch. Each rank and thread uses a part of the result.
//!
//! Row groups with rows of the split are permuted instead of following the manifest order; they are then divided into
//! windows, and the rows of each window are permuted. Global batch k consists of the next `batch_size` rows, and rank r
//! of w gets its r-th slice.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use wavemill_schemas::rng::{self, Rng};

/// Returns the rows of an epoch in training order.
///
/// `groups` are the split's rows in each row group, in manifest order. Groups without rows do not count towards a
/// window.
pub(crate) fn shuffled(groups: &[Vec<u32>], seed: u64, epoch: u64, window: usize) -> Vec<u32> {
    let mut groups: Vec<&Vec<u32>> = groups.iter().filter(|rows| !rows.is_empty()).collect();
    // Each permutation uses its own random numbers, so a window's order does not depend on earlier windows.
    Rng::new(rng::mix("row-groups", &[seed, epoch])).shuffle(&mut groups);
    let mut order = Vec::with_capacity(groups.iter().map(|rows| rows.len()).sum());
    for (number, window) in (0..).zip(groups.chunks(window.max(1))) {
        let start = order.len();
        window.iter().for_each(|rows| order.extend_from_slice(rows));
        Rng::new(rng::mix("window", &[seed, epoch, number])).shuffle(&mut order[start..]);
    }
    order
}

/// Repeats or leaves out rows of each row group so that all classes have the same number of rows, up to one, and the
/// number of all rows stays the same. The rows of a class differ in their number by at most one; a hash of (seed,
/// epoch, row key) chooses those with one more. Rows without a class are left out.
///
/// `class_of` and `key_of` return the class and the key of a row.
pub(crate) fn balanced(
    groups: &[Vec<u32>],
    class_of: impl Fn(u32) -> Option<i64>,
    key_of: impl Fn(u32) -> u64,
    seed: u64,
    epoch: u64,
) -> Vec<Vec<u32>> {
    let mut classes: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for &row in groups.iter().flatten() {
        if let Some(class) = class_of(row) {
            classes.entry(class).or_default().push(row);
        }
    }
    // The classes with one more row change from epoch to epoch.
    let mut classes: Vec<(i64, Vec<u32>)> = classes.into_iter().collect();
    classes
        .sort_by_cached_key(|(class, _)| rng::mix("sampler-class", &[seed, epoch, *class as u64]));

    let n_rows: usize = groups.iter().map(Vec::len).sum();
    let n_classes = classes.len();
    let mut counts: HashMap<u32, usize> = HashMap::new();
    for (place, (_, mut rows)) in classes.into_iter().enumerate() {
        let quota = slice(n_rows, place, n_classes).len();
        rows.sort_by_cached_key(|&row| (rng::mix("sampler", &[seed, epoch, key_of(row)]), row));
        for (place, &row) in rows.iter().enumerate() {
            counts.insert(row, slice(quota, place, rows.len()).len());
        }
    }

    let repeated = |rows: &Vec<u32>| {
        let rows = rows.iter();
        rows.flat_map(|&row| std::iter::repeat_n(row, counts.get(&row).copied().unwrap_or(0)))
            .collect()
    };
    groups.iter().map(repeated).collect()
}

/// Orders the rows of an epoch so that the rows of a batch have similar lengths. `frames` has the length of every row
/// of the feature.
///
/// The rows are divided by length into `n_buckets` buckets of about the same size. They are taken in the order of the
/// epoch, and whenever `batch_size` rows of a bucket have been taken, these are the next batch. The rows that remain
/// form batches in the order of their buckets. The last rows of the order that fill no batch keep their place, so
/// leaving out the last batch favours no length.
pub(crate) fn bucketed(
    order: &[u32],
    frames: &[u32],
    n_buckets: usize,
    batch_size: usize,
) -> Vec<u32> {
    let (whole, rest) = order.split_at(order.len() - order.len() % batch_size);
    let bounds = bucket_bounds(whole, frames, n_buckets);

    let mut bucketed = Vec::with_capacity(order.len());
    let mut buckets: Vec<Vec<u32>> = vec![Vec::new(); bounds.len() + 1];
    for &row in whole {
        let bucket = bounds.partition_point(|&bound| bound <= frames[row as usize]);
        buckets[bucket].push(row);
        if buckets[bucket].len() == batch_size {
            bucketed.append(&mut buckets[bucket]);
        }
    }

    for bucket in &buckets {
        bucketed.extend_from_slice(bucket);
    }
    bucketed.extend_from_slice(rest);
    bucketed
}

/// Returns the smallest length of each bucket but the first, in ascending order without repetitions.
fn bucket_bounds(rows: &[u32], frames: &[u32], n_buckets: usize) -> Vec<u32> {
    let mut lengths: Vec<u32> = rows.iter().map(|&row| frames[row as usize]).collect();
    lengths.sort_unstable();

    // More buckets than rows would be empty.
    let n_buckets = n_buckets.clamp(1, lengths.len().max(1));
    let mut bounds: Vec<u32> = (1..n_buckets)
        .map(|bucket| lengths[lengths.len() * bucket / n_buckets])
        .collect();
    // Rows of one length are in one bucket.
    bounds.dedup();
    bounds
}

/// Returns the number of batches in an epoch of `n_rows` rows.
pub const fn n_batches(n_rows: usize, batch_size: usize, drop_last: bool) -> u64 {
    let batches = if drop_last {
        n_rows / batch_size
    } else {
        n_rows.div_ceil(batch_size)
    };
    batches as u64
}

/// Returns the rows of global batch `index` in an epoch; empty if `index` is past the end.
pub(crate) fn batch(order: &[u32], index: u64, batch_size: usize) -> &[u32] {
    let start = usize::try_from(index)
        .unwrap_or(usize::MAX)
        // An index far past the end must give an empty batch and must not overflow to a valid index.
        .saturating_mul(batch_size)
        .min(order.len());
    &order[start..start.saturating_add(batch_size).min(order.len())]
}

/// Returns the part of rank `rank` in a global batch of `n` rows. Sizes of parts differ by at most one and may be 0.
pub(crate) const fn slice(n: usize, rank: usize, world_size: usize) -> Range<usize> {
    n * rank / world_size..n * (rank + 1) / world_size
}

/// Returns the mix-up partner of each row of a global batch, as an index into the batch: the next row in the order of a
/// hash of (seed, epoch, row key). Each row is the partner of exactly one row, and no row is its own partner if there
/// are at least two. All copies of a row, which the balanced sampler makes, have one partner: the first copy of another
/// row.
pub(crate) fn partners(keys: &[u64], seed: u64, epoch: u64) -> Vec<usize> {
    let mut ring: Vec<usize> = (0..keys.len()).collect();
    // Rows with equal hashes are sorted by key, so the result does not depend on the order of rows in the batch.
    ring.sort_by_cached_key(|&i| (rng::mix("mixup-partner", &[seed, epoch, keys[i]]), keys[i]));
    let mut partners = vec![0; keys.len()];
    let rows: Vec<&[usize]> = ring.chunk_by(|&a, &b| keys[a] == keys[b]).collect();
    for (place, copies) in rows.iter().enumerate() {
        let partner = rows[(place + 1) % rows.len()][0];
        for &copy in *copies {
            partners[copy] = partner;
        }
    }
    partners
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn balanced_classes_have_equal_numbers_of_rows_in_every_epoch() {
        // 90 rows of class 0, 8 of class 1, and 2 without a class, in ten row groups.
        let class_of = |row: u32| match row {
            0..90 => Some(0),
            90..98 => Some(1),
            _ => None,
        };
        let groups: Vec<Vec<u32>> = (0..10)
            .map(|group| (0..100).skip(group).step_by(10).collect())
            .collect();
        let of_epoch = |epoch| balanced(&groups, class_of, u64::from, 7, epoch);

        let mut seen: BTreeSet<u32> = BTreeSet::new();
        for epoch in 0..4 {
            let order = of_epoch(epoch).concat();
            assert_eq!(order.len(), 100);
            assert_eq!(order.iter().filter(|&&row| row < 90).count(), 50);
            for row in 90..98 {
                let n = order.iter().filter(|&&other| other == row).count();
                assert!(n == 6 || n == 7, "{row}: {n}");
            }
            seen.extend(order);
        }
        assert!(seen.len() > 95 - 8 && !seen.contains(&98), "{seen:?}");

        assert_eq!(of_epoch(1), of_epoch(1));
        assert_ne!(of_epoch(0), of_epoch(1));
        let none = balanced(&groups, |_| None, u64::from, 7, 0);
        assert!(none.concat().is_empty());
    }

    /// Returns 23 row groups of 0 to 12 rows. Rows are numbered consecutively.
    fn groups() -> Vec<Vec<u32>> {
        let mut next = 0..;
        (0..23_usize)
            .map(|g| next.by_ref().take(g * 7 % 13).collect())
            .collect()
    }

    #[test]
    fn each_epoch_is_a_different_permutation_of_all_rows() {
        let groups = groups();
        let orders: Vec<Vec<u32>> = (0..3).map(|epoch| shuffled(&groups, 7, epoch, 4)).collect();

        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, groups.concat());
        }

        assert_ne!(orders[0], orders[1]);
        assert_ne!(shuffled(&groups, 8, 0, 4), orders[0]);
        assert_eq!(shuffled(&groups, 7, 0, 4), orders[0]);
    }

    /// Returns the index of the row group that contains a row.
    fn group_of(groups: &[Vec<u32>], row: u32) -> Option<usize> {
        groups.iter().position(|group| group.contains(&row))
    }

    #[test]
    fn a_window_holds_the_rows_of_its_groups_alone() {
        let groups = groups();
        let order = shuffled(&groups, 1, 1, 4);

        let mut start = 0;
        let mut seen = BTreeSet::new();
        while start < order.len() {
            // The row groups of a window are those of its first rows, until there are four groups.
            let mut window = BTreeSet::new();
            let mut end = start;
            while end < order.len()
                && (window.len() < 4 || window.contains(&group_of(&groups, order[end])))
            {
                window.insert(group_of(&groups, order[end]));
                end += 1;
            }

            let rows: usize = window.iter().map(|g| groups[g.expect("known")].len()).sum();
            assert_eq!(
                end - start,
                rows,
                "rows of other groups between those of a window"
            );
            assert!(window.iter().all(|g| seen.insert(*g)));

            start = end;
        }
    }

    #[test]
    fn empty_groups_change_no_order() {
        let full: Vec<Vec<u32>> = groups().into_iter().filter(|g| !g.is_empty()).collect();
        assert_eq!(shuffled(&groups(), 3, 5, 4), shuffled(&full, 3, 5, 4));
    }

    #[test]
    fn slices_of_all_ranks_are_the_batch_and_differ_by_at_most_one() {
        for n in [0, 1, 5, 64] {
            for world_size in [1, 2, 3, 4, 8] {
                let slices: Vec<_> = (0..world_size)
                    .map(|rank| slice(n, rank, world_size))
                    .collect();
                assert!(slices.iter().cloned().flatten().eq(0..n));

                let sizes: BTreeSet<usize> = slices.iter().map(ExactSizeIterator::len).collect();
                assert!(
                    sizes
                        .last()
                        .zip(sizes.first())
                        .is_some_and(|(most, least)| most - least <= 1)
                );
            }
        }
    }

    #[test]
    fn a_partner_is_another_row_whatever_the_order_of_the_batch() {
        let keys: Vec<u64> = (0..33).map(|i| rng::mix("test", &[i])).collect();
        let found = partners(&keys, 1, 2);

        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 33);
        assert!(
            found
                .iter()
                .enumerate()
                .all(|(row, &partner)| row != partner)
        );

        let turned: Vec<u64> = keys.iter().rev().copied().collect();
        let turned_found = partners(&turned, 1, 2);
        assert!((0..33).all(|i| turned[turned_found[32 - i]] == keys[found[i]]));

        assert_ne!(partners(&keys, 1, 3), found);
        assert_eq!(partners(&keys[..1], 1, 2), [0]);
    }

    #[test]
    fn copies_of_a_row_have_one_partner_that_is_another_row() {
        let keys = [7, 9, 7, 7, 8];
        let found = partners(&keys, 1, 2);
        assert!([2, 3].iter().all(|&copy| found[copy] == found[0]));
        assert!((0..5).all(|row| keys[found[row]] != keys[row]), "{found:?}");
        assert_eq!(partners(&[7, 7], 1, 2).len(), 2);
    }

    #[test]
    fn batches_of_buckets_have_similar_lengths_and_all_rows() {
        let groups = groups();
        let order = shuffled(&groups, 7, 1, 4);
        let frames: Vec<u32> = (0..order.len() as u64)
            .map(|row| rng::mix("test", &[row]) as u32 % 1000)
            .collect();
        let grouped = bucketed(&order, &frames, 4, 5);

        let mut sorted = grouped.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, groups.concat());
        assert_eq!(bucketed(&order, &frames, 4, 5), grouped);
        assert_ne!(
            bucketed(&shuffled(&groups, 7, 2, 4), &frames, 4, 5),
            grouped
        );

        let padding = |order: &[u32]| -> u32 {
            let lengths = order.chunks(5).map(|batch| {
                let lengths = batch.iter().map(|&row| frames[row as usize]);
                let longest = lengths.clone().max().unwrap_or(0);
                lengths.map(|length| longest - length).sum::<u32>()
            });
            lengths.sum()
        };
        let (with, without) = (padding(&grouped), padding(&order));
        assert!(with < without / 2, "{with} and {without} padded frames");
    }

    #[test]
    fn rows_without_a_whole_batch_stay_at_the_end() {
        let order = [0, 9, 1, 8, 2, 7, 3, 6, 4, 5, 10];
        let frames: Vec<u32> = (0..11).collect();
        assert_eq!(
            bucketed(&order, &frames, 2, 4),
            [0, 1, 2, 3, 9, 8, 7, 6, 4, 5, 10]
        );
    }

    #[test]
    fn buckets_of_equal_lengths_change_no_order() {
        let order = [3, 1, 2, 0];
        assert_eq!(bucketed(&order, &[7; 4], 8, 2), order);
        assert_eq!(bucketed(&order, &[7; 4], 8, 9), order);
        assert_eq!(bucketed(&[], &[], 8, 2), [0; 0]);
    }

    #[test]
    fn the_last_batch_is_smaller_or_dropped() {
        let order: Vec<u32> = (0..10).collect();
        assert_eq!((n_batches(10, 4, false), n_batches(10, 4, true)), (3, 2));
        assert_eq!(batch(&order, 2, 4), [8, 9]);
        assert!(batch(&order, 3, 4).is_empty() && batch(&order, u64::MAX, 4).is_empty());
    }
}
