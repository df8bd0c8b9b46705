use std::collections::HashMap;
use std::hash::Hash;

use proptest::prelude::*;

use super::drawn::{CLASS_ROWS_MIN, sizes};
use super::*;
use Split::{Test, Training, Validation};

const SETTINGS: SplitSettings = SplitSettings {
    seed: 42,
    fractions: [0.8, 0.1, 0.1],
};

fn rows(keys: &[String], seed: u64) -> Vec<SplitRow<'_>> {
    let mut rows = Vec::new();
    for key in keys {
        let class = (canonical::hash("class", seed, key) % 5) as i32;
        let artist = (canonical::hash("artist", seed, key) % 60) as i64;
        rows.push(SplitRow {
            key,
            class: (class > 0).then_some(class),
            artist: (artist > 0).then_some(artist),
            recording: None,
            near_group: None,
        });
    }
    rows
}

/// Returns [`rows`], a third of which have a recording that other rows may share.
fn rows_with_copies(keys: &[String], seed: u64) -> Vec<SplitRow<'_>> {
    let mut rows = rows(keys, seed);
    for row in &mut rows {
        let recording = canonical::hash("recording", seed, row.key) % 300;
        row.recording = (recording < 100).then(|| blake3::hash(&recording.to_le_bytes()));
    }
    rows
}

/// Returns [`rows_with_copies`], a fifth of which are near copies of other rows.
fn rows_with_near_copies(keys: &[String], seed: u64) -> Vec<SplitRow<'_>> {
    let mut rows = rows_with_copies(keys, seed);
    for row in &mut rows {
        let near_group = (canonical::hash("near", seed, row.key) % 300) as usize;
        row.near_group = (near_group < 60).then_some(near_group);
    }
    rows
}

fn by_key<'a>(rows: &[SplitRow<'a>], splits: &[Split]) -> BTreeMap<&'a str, Split> {
    rows.iter()
        .map(|row| row.key)
        .zip(splits.iter().copied())
        .collect()
}

/// Reports whether all rows with equal ids are in the same split.
fn is_whole<T: Eq + Hash>(ids: &[Option<T>], splits: &[Split]) -> bool {
    let mut split_of = HashMap::new();
    let pairs = ids
        .iter()
        .zip(splits)
        .filter_map(|(id, split)| Some((id.as_ref()?, split)));
    pairs
        .into_iter()
        .all(|(id, split)| *split_of.entry(id).or_insert(split) == split)
}

proptest! {
    #[test]
    fn neither_copies_nor_artist_are_in_two_splits(n in 1_usize..400, seed: u64) {
        let keys: Vec<_> = (0..n).map(|i| format!("{i}")).collect();
        let rows = rows_with_near_copies(&keys, seed);
        let artists: Vec<_> = rows.iter().map(|row| row.artist).collect();
        let recordings: Vec<_> = rows.iter().map(|row| row.recording).collect();
        prop_assert!(is_whole(&artists, &by_artist(&rows, SETTINGS)));
        prop_assert!(is_whole(&recordings, &by_artist(&rows, SETTINGS)));
        prop_assert!(is_whole(&recordings, &stratified(&rows, SETTINGS)));
        let groups: Vec<_> = rows.iter().map(|row| row.near_group).collect();
        prop_assert!(is_whole(&groups, &by_artist(&rows, SETTINGS)));
        prop_assert!(is_whole(&groups, &stratified(&rows, SETTINGS)));
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
    fn splits_do_not_depend_on_the_order_of_rows(n in 1_usize..300, seed: u64) {
        let keys: Vec<_> = (0..n).map(|i| format!("{i}")).collect();
        let forward = rows_with_near_copies(&keys, seed);
        let mut shuffled = forward.clone();
        shuffled.sort_by_key(|row| canonical::hash("shuffle", seed, row.key));
        for rule in [stratified, by_artist] {
            let (forward_splits, shuffled_splits) = (rule(&forward, SETTINGS), rule(&shuffled, SETTINGS));
            prop_assert_eq!(by_key(&forward, &forward_splits), by_key(&shuffled, &shuffled_splits));
        }
    }

    #[test]
    fn every_class_is_cut_within_a_row_of_the_fractions(n in 20_usize..400, seed: u64) {
        let keys: Vec<_> = (0..n).map(|i| format!("{i}")).collect();
        let rows = rows(&keys, seed);

        let mut counts: BTreeMap<_, [usize; 3]> = BTreeMap::new();
        for (row, split) in rows.iter().zip(stratified(&rows, SETTINGS)) {
            counts.entry(row.class).or_default()[split as usize] += 1;
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

/// The expected hashes come from the first implementation of the split. A different result would move tracks
/// between the splits of every existing store.
#[test]
fn split_without_a_parent_is_unchanged() {
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

/// Returns the first 16 hex digits of the hash of the rows' splits.
fn hash_of(splits: &[Split]) -> String {
    let bytes: Vec<u8> = splits.iter().map(|&split| split as u8).collect();
    let mut hash = blake3::hash(&bytes).to_hex().to_string();
    hash.truncate(16);
    hash
}

const RULES: [KeptRule; 2] = [KeptRule::Artist, KeptRule::Stratified];

/// Returns the splits of groups as the first version of a store contains them.
fn first_splits(rule: KeptRule, rows: &[SplitRow<'_>]) -> GroupSplits {
    let first = rule.place(rows, SETTINGS, None);
    rule.group_splits(rows, &first.splits)
}

/// Returns the key of each merged row and the split that the row left.
fn splits_left<'a>(rows: &[SplitRow<'a>], merges: &[Merge]) -> Vec<(&'a str, Split)> {
    let merges = merges.iter();
    merges
        .map(|merge| (rows[merge.row].key, merge.was))
        .collect()
}

/// Returns the split that is stored for the track with this key.
fn split_of_track(splits: &GroupSplits, key: &str) -> Split {
    splits.split(&track_group(key)).expect("a split")
}

proptest! {
    #[test]
    fn a_kept_split_is_never_left(n in 2_usize..300, seed: u64) {
        let keys: Vec<_> = (0..n + n / 5 + 1).map(|i| format!("{i}")).collect();
        let grown = rows_with_near_copies(&keys, seed);

        for rule in RULES {
            let kept = first_splits(rule, &grown[..n]);
            let placed = rule.place(&grown, SETTINGS, Some(&kept));

            for (index, row) in grown[..n].iter().enumerate() {
                let was = split_of_track(&kept, row.key);
                let left = placed.merges.iter().any(|merge| merge.row == index && merge.was == was);
                prop_assert!(placed.splits[index] == was || left, "row {index} by {rule:?}");
            }

            // A row of a merged group only moves to a split of higher precedence.
            for merge in &placed.merges {
                prop_assert!(placed.splits[merge.row] < merge.was);
            }
        }
    }

    #[test]
    fn keeping_twice_changes_nothing(n in 1_usize..300, seed: u64) {
        let keys: Vec<_> = (0..n + n / 5 + 1).map(|i| format!("{i}")).collect();
        let grown = rows_with_near_copies(&keys, seed);

        for rule in RULES {
            let kept = first_splits(rule, &grown[..n]);
            let once = rule.place(&grown, SETTINGS, Some(&kept));
            let splits = rule.group_splits(&grown, &once.splits).with_earlier(&kept);
            let twice = rule.place(&grown, SETTINGS, Some(&splits));

            prop_assert_eq!(&twice.splits, &once.splits);
            prop_assert!(twice.merges.is_empty());
            prop_assert_eq!(rule.group_splits(&grown, &twice.splits).with_earlier(&splits), splits);
        }
    }

    #[test]
    fn kept_splits_do_not_depend_on_the_order_of_rows(n in 1_usize..300, seed: u64) {
        let keys: Vec<_> = (0..n + n / 5 + 1).map(|i| format!("{i}")).collect();
        let forward = rows_with_copies(&keys, seed);
        let mut shuffled = forward.clone();
        shuffled.sort_by_key(|row| canonical::hash("shuffle", seed, row.key));

        for rule in RULES {
            let kept = first_splits(rule, &forward[..n]);
            let ours = rule.place(&forward, SETTINGS, Some(&kept));
            let theirs = rule.place(&shuffled, SETTINGS, Some(&kept));
            prop_assert_eq!(by_key(&forward, &ours.splits), by_key(&shuffled, &theirs.splits));

            prop_assert_eq!(splits_left(&forward, &ours.merges), splits_left(&shuffled, &theirs.merges));
        }
    }

    #[test]
    fn new_groups_fill_the_largest_need(n in 20_usize..400, seed: u64) {
        let keys: Vec<_> = (0..n + n / 10 + 1).map(|i| format!("{i}")).collect();
        let grown = rows(&keys, seed);
        let kept = first_splits(KeptRule::Stratified, &grown[..n]);
        let placed = KeptRule::Stratified.place(&grown, SETTINGS, Some(&kept));

        let mut counts: BTreeMap<_, [usize; 3]> = BTreeMap::new();
        for (row, split) in grown.iter().zip(&placed.splits) {
            counts.entry(row.class).or_default()[*split as usize] += 1;
        }

        // A class that was too small for three splits only approaches the fractions as rows are added.
        for counts in counts.into_values().filter(|counts| counts.iter().sum::<usize>() >= 10) {
            let n = counts.iter().sum::<usize>() as f64;
            for (count, fraction) in counts.into_iter().zip(SETTINGS.fractions) {
                // Validation and test may each have one row too many, hence the tolerance of 2.
                prop_assert!((count as f64 - fraction * n).abs() <= 2.0, "{counts:?}");
            }
        }
    }
}

/// Creates the row `key` of class 0 with the given artist.
fn by(key: &str, artist: Option<i64>) -> SplitRow<'_> {
    SplitRow {
        key,
        class: Some(0),
        artist,
        recording: None,
        near_group: None,
    }
}

fn groups(splits: &[(&str, Split)]) -> GroupSplits {
    let groups = splits.iter().map(|(name, split)| ((*name).into(), *split));
    GroupSplits::new(groups.collect())
}

#[test]
fn merged_groups_go_to_training_else_to_validation() {
    // Track b belonged to artist 2 and now belongs to artist 1.
    let rows = [by("a", Some(1)), by("b", Some(1)), by("c", Some(3))];
    for (split_of_1, split_of_b, wanted) in [
        (Test, Training, Training),
        (Training, Test, Training),
        (Test, Validation, Validation),
        (Validation, Test, Validation),
        (Training, Validation, Training),
        (Test, Test, Test),
    ] {
        let kept = groups(&[
            ("artist:1", split_of_1),
            ("track:a", split_of_1),
            ("artist:2", split_of_b),
            ("track:b", split_of_b),
            ("artist:3", Test),
            ("track:c", Test),
        ]);
        let placed = KeptRule::Artist.place(&rows, SETTINGS, Some(&kept));
        assert_eq!(placed.splits, [wanted, wanted, Test]);

        let was = [split_of_1, split_of_b];
        let left: Vec<Merge> = (0..2)
            .filter(|&row| was[row] != wanted)
            .map(|row| Merge { row, was: was[row] })
            .collect();
        assert_eq!(placed.merges, left, "{was:?}");

        // Artist 2 keeps its split, although it no longer has a track.
        let after = KeptRule::Artist.group_splits(&rows, &placed.splits);
        let after = after.with_earlier(&kept);
        assert_eq!(after.split("artist:2"), Some(split_of_b));
        assert_eq!(after.split("artist:1"), Some(wanted));
        assert_eq!(after.split("artist:4"), None);
    }
}

#[test]
fn both_parts_of_a_divided_group_keep_its_split() {
    let kept = groups(&[("artist:1", Test), ("track:a", Test), ("track:b", Test)]);
    // Track b now has another artist, or none; track c is a new track of artist 1.
    for artist in [Some(5), None] {
        let rows = [by("a", Some(1)), by("b", artist), by("c", Some(1))];
        let placed = KeptRule::Artist.place(&rows, SETTINGS, Some(&kept));
        assert_eq!(placed.splits, [Test, Test, Test]);
        assert!(placed.merges.is_empty());
    }
}

#[test]
fn artists_fill_every_class_close_to_the_fractions() {
    let keys: Vec<_> = (0..4000).map(|i| format!("{i}")).collect();
    let mut rows = rows(&keys, 7);
    rows.iter_mut()
        .for_each(|row| row.artist = Some((canonical::hash("a", 1, row.key) % 800) as i64));

    let mut counts: BTreeMap<_, [f64; 3]> = BTreeMap::new();
    for (row, split) in rows.iter().zip(by_artist(&rows, SETTINGS)) {
        counts.entry(row.class).or_default()[split as usize] += 1.0;
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

    // Row i shares a recording with row i + 1 of the next artist, so that all rows form one chain.
    for (i, row) in rows.iter_mut().enumerate() {
        (row.artist, row.recording) = (
            Some(i as i64 / 2),
            Some(blake3::hash(&[(i as u8).div_ceil(2)])),
        );
    }

    assert!(
        by_artist(&rows, SETTINGS)
            .iter()
            .all(|split| *split == Training)
    );
}

#[test]
fn remainders_and_small_classes_are_distributed() {
    assert_eq!(sizes(2, SETTINGS.fractions), [2, 0, 0]);
    assert_eq!(sizes(3, SETTINGS.fractions), [3, 0, 0]); // 2.4, 0.3, 0.3
    assert_eq!(sizes(10, SETTINGS.fractions), [8, 1, 1]);
    assert_eq!(sizes(15, SETTINGS.fractions), [12, 2, 1]); // 12, 1.5, 1.5
    assert_eq!(sizes(100, [0.29, 0.71, 0.0]), [29, 71, 0]);
}
