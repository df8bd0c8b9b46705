//! Who trains, who tests: pure functions of keys, classes and artists, whatever the order of the rows.
//!
//! Order comes from `canonical::hash("split", seed, key)`, so that a split is the same on every machine.

use std::collections::BTreeMap;

use wavemill_schemas::canonical;

/// Names of the three sides, in the order of a recipe's fractions.
pub const SIDES: [&str; 3] = ["training", "validation", "test"];

/// The folder of rows that the rule gives no side.
pub const NO_SIDE: &str = "none";

/// A class with fewer rows than sides cannot be on all of them: it is learned from, not tested on.
const CLASS_ROWS_MIN: usize = 3;

/// What a rule needs of one row.
#[derive(Clone, Debug)]
pub struct SplitRow<'a> {
    /// Unique: the clip's key.
    pub key: &'a str,
    /// Its class; rows without one are a class of their own.
    pub class: Option<i32>,
    /// Rows of one artist; `None`: a group of one.
    pub artist: Option<i64>,
}

/// The seed and the three fractions of a recipe.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Of the hash order.
    pub seed: u64,
    /// Training, validation, test; they add up to 1.
    pub fractions: [f64; 3],
}

/// Per class, rows in hash order are cut at the cumulative fractions. One artist may be on several sides.
///
/// Returns an index into [`SIDES`] for every row, in the order of `rows`.
#[must_use]
pub fn stratified(rows: &[SplitRow<'_>], cut: Cut) -> Vec<usize> {
    let mut classes: BTreeMap<Option<i32>, Vec<usize>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        classes.entry(row.class).or_default().push(index);
    }
    let mut sides = vec![0; rows.len()];
    for mut members in classes.into_values() {
        members.sort_by_cached_key(|&index| (canonical::hash("split", cut.seed, rows[index].key), rows[index].key));
        let [training, validation, _] = sizes(members.len(), cut.fractions);
        for (position, index) in members.into_iter().enumerate() {
            sides[index] = usize::from(position >= training) + usize::from(position >= training + validation);
        }
    }
    sides
}

/// No artist on two sides: artists in hash order, each whole to the side that still needs most of its classes.
///
/// Returns an index into [`SIDES`] for every row, in the order of `rows`.
#[must_use]
pub fn by_artist(rows: &[SplitRow<'_>], cut: Cut) -> Vec<usize> {
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut need: BTreeMap<Option<i32>, [f64; 3]> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        // A path is no number, so that a lone clip never falls in with an artist.
        let group = row.artist.map_or_else(|| format!("clip {}", row.key), |artist| artist.to_string());
        groups.entry(group).or_default().push(index);
        let need = need.entry(row.class).or_default();
        (0..3).for_each(|side| need[side] += cut.fractions[side]);
    }
    let mut order: Vec<_> = groups.into_iter().collect();
    order.sort_by_cached_key(|(group, _)| (canonical::hash("split", cut.seed, group), group.clone()));
    let mut sides = vec![0; rows.len()];
    for (_, mut members) in order {
        // Sums of floats depend on their order, which may not depend on that of the rows.
        members.sort_by_key(|&index| rows[index].key);
        let mut wanted = [0.0; 3];
        for &index in &members {
            (0..3).for_each(|side| wanted[side] += need[&rows[index].class][side]);
        }
        let side = (1..3).fold(0, |best, side| if wanted[side] > wanted[best] { side } else { best });
        for index in members {
            sides[index] = side;
            if let Some(need) = need.get_mut(&rows[index].class) {
                need[side] -= 1.0;
            }
        }
    }
    sides
}

/// Rows a side: the whole parts of the shares, what is left over to the largest remainders, ties to the earlier side.
fn sizes(n: usize, fractions: [f64; 3]) -> [usize; 3] {
    if n < CLASS_ROWS_MIN {
        return [n, 0, 0];
    }
    let shares = fractions.map(|fraction| fraction * n as f64);
    let mut sizes = shares.map(|share| share as usize);
    let mut by_remainder = [0, 1, 2];
    by_remainder.sort_by(|&a, &b| shares[b].fract().total_cmp(&shares[a].fract()));
    let left = n.saturating_sub(sizes.iter().sum());
    for &side in by_remainder.iter().cycle().take(left) {
        sizes[side] += 1;
    }
    sizes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CUT: Cut = Cut { seed: 42, fractions: [0.8, 0.1, 0.1] };

    fn rows(keys: &[String], seed: u64) -> Vec<SplitRow<'_>> {
        let pick = |domain: &str, key: &str, n: u64| canonical::hash(domain, seed, key) % n;
        let class = |key| Some(pick("class", key, 5) as i32).filter(|&class| class > 0);
        let artist = |key| Some(pick("artist", key, 60) as i64).filter(|&artist| artist > 0);
        keys.iter().map(|key| SplitRow { key, class: class(key), artist: artist(key) }).collect()
    }

    fn by_key<'a>(rows: &[SplitRow<'a>], sides: &[usize]) -> BTreeMap<&'a str, usize> {
        rows.iter().map(|row| row.key).zip(sides.iter().copied()).collect()
    }

    proptest! {
        #[test]
        fn no_artist_is_on_two_sides(n in 1_usize..400, seed: u64) {
            let keys: Vec<_> = (0..n).map(|i| format!("{i}")).collect();
            let rows = rows(&keys, seed);
            let mut side_of = BTreeMap::new();
            for (row, side) in rows.iter().zip(by_artist(&rows, CUT)) {
                if let Some(artist) = row.artist {
                    prop_assert_eq!(*side_of.entry(artist).or_insert(side), side);
                }
            }
        }

        #[test]
        fn sides_do_not_depend_on_the_order_of_rows(n in 1_usize..300, seed: u64) {
            let keys: Vec<_> = (0..n).map(|i| format!("{i}")).collect();
            let forward = rows(&keys, seed);
            let mut shuffled = forward.clone();
            shuffled.sort_by_key(|row| canonical::hash("shuffle", seed, row.key));
            for rule in [stratified, by_artist] {
                let (forward_sides, shuffled_sides) = (rule(&forward, CUT), rule(&shuffled, CUT));
                prop_assert_eq!(by_key(&forward, &forward_sides), by_key(&shuffled, &shuffled_sides));
            }
        }

        #[test]
        fn every_class_is_cut_within_a_row_of_the_fractions(n in 20_usize..400, seed: u64) {
            let keys: Vec<_> = (0..n).map(|i| format!("{i}")).collect();
            let rows = rows(&keys, seed);
            let mut counts: BTreeMap<_, [usize; 3]> = BTreeMap::new();
            for (row, side) in rows.iter().zip(stratified(&rows, CUT)) {
                counts.entry(row.class).or_default()[side] += 1;
            }
            for counts in counts.into_values().filter(|counts| counts.iter().sum::<usize>() >= CLASS_ROWS_MIN) {
                let n = counts.iter().sum::<usize>() as f64;
                for (count, fraction) in counts.into_iter().zip(CUT.fractions) {
                    prop_assert!((count as f64 - fraction * n).abs() <= 1.0, "{counts:?}");
                }
            }
        }

        #[test]
        fn sizes_add_up(n in 0_usize..10_000, first in 0.0_f64..1.0, second in 0.0_f64..1.0) {
            let fractions = [first, (1.0 - first) * second, (1.0 - first) * (1.0 - second)];
            prop_assert_eq!(sizes(n, fractions).iter().sum::<usize>(), n);
        }
    }

    #[test]
    fn artists_fill_every_class_close_to_the_fractions() {
        let keys: Vec<_> = (0..4000).map(|i| format!("{i}")).collect();
        let mut rows = rows(&keys, 7);
        rows.iter_mut().for_each(|row| row.artist = Some((canonical::hash("a", 1, row.key) % 800) as i64));
        let mut counts: BTreeMap<_, [f64; 3]> = BTreeMap::new();
        for (row, side) in rows.iter().zip(by_artist(&rows, CUT)) {
            counts.entry(row.class).or_default()[side] += 1.0;
        }
        for (class, counts) in counts {
            let n: f64 = counts.iter().sum();
            for (count, fraction) in counts.into_iter().zip(CUT.fractions) {
                assert!((count / n - fraction).abs() < 0.03, "class {class:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn remainders_and_small_classes() {
        assert_eq!(sizes(2, CUT.fractions), [2, 0, 0]);
        assert_eq!(sizes(3, CUT.fractions), [3, 0, 0]); // 2.4, 0.3, 0.3
        assert_eq!(sizes(10, CUT.fractions), [8, 1, 1]);
        assert_eq!(sizes(15, CUT.fractions), [12, 2, 1]); // 12, 1.5, 1.5
        assert_eq!(sizes(100, [0.29, 0.71, 0.0]), [29, 71, 0]);
    }
}
