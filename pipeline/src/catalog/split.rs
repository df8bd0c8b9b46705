//! Who trains, who tests: pure functions of keys, classes and artists, whatever the order of the rows.
//!
//! Order comes from `canonical::hash("split", seed, key)`, so that a split is the same on every machine.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

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
    /// Rows of one recording, which both rules keep on one side; `None`: a group of one.
    pub recording: Option<blake3::Hash>,
}

/// The seed and the three fractions of a recipe.
#[derive(Clone, Copy, Debug)]
pub struct SplitSettings {
    /// Of the hash order.
    pub seed: u64,
    /// Training, validation, test; they add up to 1.
    pub fractions: [f64; 3],
}

/// Per class, recordings in hash order are cut at the cumulative fractions; one artist may be on several sides. A
/// recording that is there several times counts as often in the class of its first key.
///
/// Returns an index into [`SIDES`] for every row, in the order of `rows`.
#[must_use]
pub fn stratified(rows: &[SplitRow<'_>], settings: SplitSettings) -> Vec<usize> {
    let mut linked = LinkedRows::new(rows);
    linked.link_by(|row| row.recording);

    let mut classes: BTreeMap<Option<i32>, Vec<Vec<usize>>> = BTreeMap::new();
    for group in linked.groups() {
        classes.entry(rows[group[0]].class).or_default().push(group);
    }

    let mut sides = vec![0; rows.len()];
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
            // By the place of the group's first row: a recording is not cut.
            let side =
                usize::from(position >= training) + usize::from(position >= training + validation);
            position += group.len();
            for index in group {
                sides[index] = side;
            }
        }
    }
    sides
}

/// No artist on two sides: artists in hash order, each whole to the side that still needs most of its classes. Artists
/// who share a recording count as one.
///
/// Returns an index into [`SIDES`] for every row, in the order of `rows`.
#[must_use]
pub fn by_artist(rows: &[SplitRow<'_>], settings: SplitSettings) -> Vec<usize> {
    // Rows that each side still needs, by class.
    let mut need: BTreeMap<Option<i32>, [f64; 3]> = BTreeMap::new();
    for row in rows {
        let need = need.entry(row.class).or_default();
        for (need, fraction) in need.iter_mut().zip(settings.fractions) {
            *need += fraction;
        }
    }

    let mut linked = LinkedRows::new(rows);
    linked.link_by(|row| row.artist);
    linked.link_by(|row| row.recording);
    let hash = canonical::hashes("split", settings.seed);
    let mut order = Vec::new();
    for group in linked.groups() {
        // Of artists who share a recording, the one whose name is least decides.
        let names = group.iter().map(|&index| artist_name(&rows[index]));
        if let Some(name) = names.min() {
            order.push((hash(&name), name, group));
        }
    }
    // By name where two hashes are equal, so that the order never depends on that of the rows.
    order.sort_unstable();

    let mut sides = vec![0; rows.len()];
    for (.., group) in order {
        // Sums of floats depend on their order: that of the keys, not that of the rows.
        let mut wanted = [0.0; 3];
        for &index in &group {
            for side in 0..3 {
                wanted[side] += need[&rows[index].class][side];
            }
        }

        // The earlier side where two need as much.
        let mut side = 0;
        for later in 1..3 {
            if wanted[later] > wanted[side] {
                side = later;
            }
        }
        for index in group {
            sides[index] = side;
            if let Some(need) = need.get_mut(&rows[index].class) {
                need[side] -= 1.0;
            }
        }
    }
    sides
}

/// What an artist is ordered by. A path is no number, so that a lone clip never falls in with an artist.
fn artist_name(row: &SplitRow<'_>) -> String {
    match row.artist {
        Some(id) => id.to_string(),
        None => format!("clip {}", row.key),
    }
}

/// Rows that must not be parted (union-find).
struct LinkedRows<'a, 'r> {
    rows: &'a [SplitRow<'r>],
    /// Another row of the same group, or the row itself.
    parent: Vec<usize>,
}

impl<'a, 'r> LinkedRows<'a, 'r> {
    /// Every row for itself.
    fn new(rows: &'a [SplitRow<'r>]) -> Self {
        Self {
            rows,
            parent: (0..rows.len()).collect(),
        }
    }

    /// Links the rows for which `id` is the same.
    fn link_by<T: Eq + Hash>(&mut self, id: impl Fn(&SplitRow<'r>) -> Option<T>) {
        let mut first = HashMap::new();
        for (index, row) in self.rows.iter().enumerate() {
            let Some(id) = id(row) else { continue };
            let first = *first.entry(id).or_insert(index);
            let first = self.root(first);
            let this = self.root(index);
            self.parent[this] = first;
        }
    }

    fn root(&mut self, mut index: usize) -> usize {
        while self.parent[index] != index {
            // Halves the path, so that long chains stay cheap.
            self.parent[index] = self.parent[self.parent[index]];
            index = self.parent[index];
        }
        index
    }

    /// The groups, in no order; within each, rows by key.
    fn groups(mut self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut place_of = vec![None; self.rows.len()]; // of a group, by its root
        for index in 0..self.rows.len() {
            let place = *place_of[self.root(index)].get_or_insert(groups.len());
            if place == groups.len() {
                groups.push(Vec::new());
            }
            groups[place].push(index);
        }

        for group in &mut groups {
            group.sort_by_key(|&index| self.rows[index].key);
        }
        groups
    }
}

/// Rows a side: the whole parts of the shares, what is left over to the largest remainders, ties to the earlier side.
fn sizes(n: usize, fractions: [f64; 3]) -> [usize; 3] {
    if n < CLASS_ROWS_MIN {
        return [n, 0, 0];
    }
    let shares = fractions.map(|fraction| fraction * n as f64);
    let mut sizes = shares.map(|share| share as usize);

    // This sort is stable: of equal remainders the earlier side comes first.
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

    const SETTINGS: SplitSettings = SplitSettings {
        seed: 42,
        fractions: [0.8, 0.1, 0.1],
    };

    fn rows(keys: &[String], seed: u64) -> Vec<SplitRow<'_>> {
        let pick = |domain: &str, key: &str, n: u64| canonical::hash(domain, seed, key) % n;
        let class = |key| Some(pick("class", key, 5) as i32).filter(|&class| class > 0);
        let artist = |key| Some(pick("artist", key, 60) as i64).filter(|&artist| artist > 0);
        let row = |key| SplitRow {
            key,
            class: class(key),
            artist: artist(key),
            recording: None,
        };
        keys.iter().map(|key| row(key)).collect()
    }

    /// The same, a third of them with a recording that some others may have too.
    fn rows_with_copies(keys: &[String], seed: u64) -> Vec<SplitRow<'_>> {
        let mut rows = rows(keys, seed);
        for row in &mut rows {
            let recording = canonical::hash("recording", seed, row.key) % 300;
            row.recording = (recording < 100).then(|| blake3::hash(&recording.to_le_bytes()));
        }
        rows
    }

    fn by_key<'a>(rows: &[SplitRow<'a>], sides: &[usize]) -> BTreeMap<&'a str, usize> {
        rows.iter()
            .map(|row| row.key)
            .zip(sides.iter().copied())
            .collect()
    }

    /// Rows of one id are on one side.
    fn is_whole<T: Eq + Hash>(ids: &[Option<T>], sides: &[usize]) -> bool {
        let mut side_of = HashMap::new();
        let pairs = ids
            .iter()
            .zip(sides)
            .filter_map(|(id, side)| Some((id.as_ref()?, side)));
        pairs
            .into_iter()
            .all(|(id, side)| *side_of.entry(id).or_insert(side) == side)
    }

    proptest! {
        #[test]
        fn neither_recording_nor_artist_is_on_two_sides(n in 1_usize..400, seed: u64) {
            let keys: Vec<_> = (0..n).map(|i| format!("{i}")).collect();
            let rows = rows_with_copies(&keys, seed);
            let artists: Vec<_> = rows.iter().map(|row| row.artist).collect();
            let recordings: Vec<_> = rows.iter().map(|row| row.recording).collect();
            prop_assert!(is_whole(&artists, &by_artist(&rows, SETTINGS)));
            prop_assert!(is_whole(&recordings, &by_artist(&rows, SETTINGS)));
            prop_assert!(is_whole(&recordings, &stratified(&rows, SETTINGS)));
        }

        #[test]
        fn recordings_that_are_there_once_change_nothing(n in 1_usize..300, seed: u64) {
            let keys: Vec<_> = (0..n).map(|i| format!("{i}")).collect();
            let plain = rows(&keys, seed);
            let mut hashed = plain.clone();
            hashed.iter_mut().for_each(|row| row.recording = Some(blake3::hash(row.key.as_bytes())));
            for rule in [stratified, by_artist] {
                prop_assert_eq!(rule(&plain, SETTINGS), rule(&hashed, SETTINGS));
            }
        }

        #[test]
        fn sides_do_not_depend_on_the_order_of_rows(n in 1_usize..300, seed: u64) {
            let keys: Vec<_> = (0..n).map(|i| format!("{i}")).collect();
            let forward = rows_with_copies(&keys, seed);
            let mut shuffled = forward.clone();
            shuffled.sort_by_key(|row| canonical::hash("shuffle", seed, row.key));
            for rule in [stratified, by_artist] {
                let (forward_sides, shuffled_sides) = (rule(&forward, SETTINGS), rule(&shuffled, SETTINGS));
                prop_assert_eq!(by_key(&forward, &forward_sides), by_key(&shuffled, &shuffled_sides));
            }
        }

        #[test]
        fn every_class_is_cut_within_a_row_of_the_fractions(n in 20_usize..400, seed: u64) {
            let keys: Vec<_> = (0..n).map(|i| format!("{i}")).collect();
            let rows = rows(&keys, seed);
            let mut counts: BTreeMap<_, [usize; 3]> = BTreeMap::new();
            for (row, side) in rows.iter().zip(stratified(&rows, SETTINGS)) {
                counts.entry(row.class).or_default()[side] += 1;
            }
            for counts in counts.into_values().filter(|counts| counts.iter().sum::<usize>() >= CLASS_ROWS_MIN) {
                let n = counts.iter().sum::<usize>() as f64;
                for (count, fraction) in counts.into_iter().zip(SETTINGS.fractions) {
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

    /// These hashes are of the first code that drew sides: another one would move the tracks of every store.
    #[test]
    fn without_a_version_before_all_is_as_ever() {
        let keys: Vec<_> = (0..1000).map(|i| format!("{i:06}.mp3")).collect();
        let plain = rows(&keys, 7);
        let copies = rows_with_copies(&keys, 7);
        assert_eq!(
            [
                hash_of(&by_artist(&plain, SETTINGS)),
                hash_of(&by_artist(&copies, SETTINGS)),
                hash_of(&stratified(&plain, SETTINGS)),
                hash_of(&stratified(&copies, SETTINGS)),
            ],
            [
                "30209bd0533dc3e0",
                "523e77c5834d6c5e",
                "fe4bd999c6928542",
                "541968fc95a510e6"
            ]
        );
    }

    /// The first digits of a hash over sides.
    fn hash_of(sides: &[usize]) -> String {
        let bytes: Vec<u8> = sides.iter().map(|&side| side as u8).collect();
        let mut hash = blake3::hash(&bytes).to_hex().to_string();
        hash.truncate(16);
        hash
    }

    #[test]
    fn artists_fill_every_class_close_to_the_fractions() {
        let keys: Vec<_> = (0..4000).map(|i| format!("{i}")).collect();
        let mut rows = rows(&keys, 7);
        rows.iter_mut()
            .for_each(|row| row.artist = Some((canonical::hash("a", 1, row.key) % 800) as i64));
        let mut counts: BTreeMap<_, [f64; 3]> = BTreeMap::new();
        for (row, side) in rows.iter().zip(by_artist(&rows, SETTINGS)) {
            counts.entry(row.class).or_default()[side] += 1.0;
        }
        for (class, counts) in counts {
            let n: f64 = counts.iter().sum();
            for (count, fraction) in counts.into_iter().zip(SETTINGS.fractions) {
                assert!(
                    (count / n - fraction).abs() < 0.03,
                    "class {class:?}: {counts:?}"
                );
            }
        }
    }

    #[test]
    fn artists_linked_by_shared_recordings_are_one_group() {
        let keys: Vec<_> = (0..200).map(|i| format!("{i:03}")).collect();
        let mut rows = rows(&keys, 7);
        // Row i shares a recording with row i + 1 of the next artist: one chain through all.
        for (i, row) in rows.iter_mut().enumerate() {
            (row.artist, row.recording) = (
                Some(i as i64 / 2),
                Some(blake3::hash(&[(i as u8).div_ceil(2)])),
            );
        }
        assert!(by_artist(&rows, SETTINGS).iter().all(|side| *side == 0));
    }

    #[test]
    fn remainders_and_small_classes() {
        assert_eq!(sizes(2, SETTINGS.fractions), [2, 0, 0]);
        assert_eq!(sizes(3, SETTINGS.fractions), [3, 0, 0]); // 2.4, 0.3, 0.3
        assert_eq!(sizes(10, SETTINGS.fractions), [8, 1, 1]);
        assert_eq!(sizes(15, SETTINGS.fractions), [12, 2, 1]); // 12, 1.5, 1.5
        assert_eq!(sizes(100, [0.29, 0.71, 0.0]), [29, 71, 0]);
    }
}
