//! Assigns clips to shards, from the cleaned rows and the recipe. This is a pure function without I/O or a clock, with
//! the same result on every machine.
//!
//! The shard of a clip and the clip's position in it depend on hashes of the clip's key. Adding or dropping clips
//! therefore does not move any other clip, as long as the number of shards stays the same.

pub mod engine;
pub mod segments;

use std::collections::{BTreeMap, BTreeSet};

use wavemill_schemas::canonical::{hash, hashes};
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::manifest::{FileEntry, Manifest};
use wavemill_schemas::recipe::{Recipe, SplitSpec};
use wavemill_schemas::split::Split;

use self::segments::{PLAIN, segments_at_most, variants_on};

/// A shard: a part of a split's clips in order, stored as one file per feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Split of the shard's clips; determines the name of the folder.
    pub split: String,
    /// Number of the shard within its split, from 0.
    pub number: usize,
    /// Indices of the shard's clips in the cleaned rows, in file order.
    pub members: Vec<usize>,
}

impl Shard {
    /// Returns the name of the receipt, such as `training-00017`.
    pub fn label(&self) -> String {
        label(&self.split, self.number)
    }

    /// Returns the path of a feature's file below the store's root, such as
    /// `data/PLAN/features/log_mel/split=training/00017.parquet`.
    pub fn file(&self, plan_id: &str, feature: &str) -> String {
        format!(
            "{}{:05}.parquet",
            split_folder(plan_id, feature, &self.split),
            self.number
        )
    }
}

fn label(split: &str, number: usize) -> String {
    format!("{}-{:05}", folder_name(split), number)
}

/// Returns the folder of a feature's files of one split below the store's root, such as
/// `data/PLAN/features/log_mel/split=training/`.
pub(crate) fn split_folder(plan_id: &str, feature: &str, split: &str) -> String {
    format!(
        "data/{plan_id}/features/{feature}/split={}/",
        folder_name(split)
    )
}

/// The shard and position of every planned clip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardPlan {
    /// Shards in loader order: training, validation, test, then other splits by name; by number within a split.
    pub shards: Vec<Shard>,
    /// Number of shards among which the clips of each split are distributed, including shards without a clip.
    pub counts: BTreeMap<String, u64>,
    /// Indices of the planned rows (all, or the first by `--limit`), ascending.
    pub planned: Vec<usize>,
}

/// Assigns every clip to a shard. Classes and splits have already been determined over all rows, so `limit` does not
/// change them.
///
/// `kept` is the number of shards of each split in the previous version; it is empty if there is none.
pub fn shards(
    rows: &[ClipRow],
    recipe: &Recipe,
    limit: Option<u64>,
    kept: &BTreeMap<String, u64>,
) -> ShardPlan {
    let seed = recipe.split.seed;
    let planned = limited(rows, seed, limit);

    // Sort by rank first, so that the splits are in the loader's order and other splits follow by name.
    let mut by_split: BTreeMap<(usize, String), Vec<usize>> = BTreeMap::new();
    for &row in &planned {
        let ClipRow {
            clip_key, split, ..
        } = &rows[row];
        for split in splits_of(clip_key, split, recipe) {
            let rank = Split::named(&split).map_or(Split::ALL.len(), |split| split as usize);
            by_split.entry((rank, split)).or_default().push(row);
        }
    }

    let mut shards = Vec::new();
    let mut counts = BTreeMap::new();
    for ((_rank, split), members) in by_split {
        let was = kept.get(&split).copied();
        let n_shards = shard_count_kept(members.len(), recipe.shards.clips, was);
        counts.insert(split.clone(), n_shards as u64);

        let of_split = split_shards(rows, split, members, n_shards, seed);
        shards.extend(of_split);
    }
    ShardPlan {
        shards,
        counts,
        planned,
    }
}

/// Returns the indices of the rows within the limit. They are selected by a hash of their keys, so a larger limit keeps
/// all of them.
fn limited(rows: &[ClipRow], seed: u64, limit: Option<u64>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let limit = limit.and_then(|n| usize::try_from(n).ok());
    let Some(keep) = limit.filter(|keep| *keep < rows.len()) else {
        return order;
    };

    let hash = hashes("limit", seed);
    order.sort_by_cached_key(|&i| (hash(&rows[i].clip_key), rows[i].clip_key.as_str()));
    order.truncate(keep);
    // Restore the order of the rows: the hash only selects which of them to keep.
    order.sort_unstable();
    order
}

/// Returns the splits in which a clip has rows: one split, except under the rules by segment.
fn splits_of(clip_key: &str, split: &str, recipe: &Recipe) -> BTreeSet<String> {
    if !recipe.split.rule.is_by_segment() {
        return BTreeSet::from([split.to_owned()]);
    }

    // Assume the length of the longest clip, because the length of this clip is unknown until it is decoded. A shard
    // may therefore have a member without rows.
    let mut splits = BTreeSet::new();
    for variant in variants_on(&recipe.audio, recipe.split.rule, split) {
        for segment in 0..segments_at_most(&recipe.audio, variant) {
            let split = segment_split(&recipe.split, clip_key, variant, segment);
            splits.insert(split.name().to_owned());
        }
    }
    splits
}

/// Returns the split of one segment under the rules by segment, by comparing the segment's hash with the cumulative
/// fractions. Both rules put a plain row into the same split.
pub fn segment_split(spec: &SplitSpec, clip_key: &str, variant: f64, segment: usize) -> Split {
    let row = if variant == PLAIN {
        format!("{clip_key}#{segment}")
    } else {
        format!("{clip_key}#{segment}@{variant}")
    };

    let draw = hash("segment", spec.seed, &row) as f64 / 2f64.powi(64);

    // The last split takes the rest, so that rounding leaves no gap: `draw` can be exactly 1.0.
    let [training, validation, _] = spec.fractions;
    if draw < training {
        Split::Training
    } else if draw < training + validation {
        Split::Validation
    } else {
        Split::Test
    }
}

fn split_shards(
    rows: &[ClipRow],
    split: String,
    members: Vec<usize>,
    n_shards: usize,
    seed: u64,
) -> Vec<Shard> {
    let mut shards: Vec<Shard> = (0..n_shards)
        .map(|number| Shard {
            split: split.clone(),
            number,
            members: Vec::new(),
        })
        .collect();

    let number_of = shard_numbers(seed, n_shards as u64);
    for row in members {
        // The number of a clip's shard is always known here, because there is at least one shard.
        if let Some(number) = number_of(&rows[row].clip_key) {
            shards[number].members.push(row);
        }
    }

    // Clips are ordered by hash; the key determines the order if two hashes are equal.
    let order_hash = hashes("order", seed);
    for shard in &mut shards {
        shard
            .members
            .sort_by_cached_key(|&i| (order_hash(&rows[i].clip_key), rows[i].clip_key.as_str()));
    }
    // A file without rows would be useless. The other shards keep their numbers, which depend on the hashes of their
    // clips.
    shards.retain(|shard| !shard.members.is_empty());
    shards
}

/// Returns the function that maps a clip to the number of its shard, one of `n_shards`; it returns `None` if there is
/// no shard.
pub(crate) fn shard_numbers(seed: u64, n_shards: u64) -> impl Fn(&str) -> Option<usize> {
    // The number of shards is a power of two, so the low bits of the hash are used. If the number doubles, one more bit
    // is used: a clip stays in its shard, or moves to the new shard that takes about half of it.
    let hash = hashes("shard", seed);
    move |clip_key| {
        let number = hash(clip_key).checked_rem(n_shards)?;
        usize::try_from(number).ok()
    }
}

/// The shards of a version to which some clips belong: at most one of each split. These are the only shards with rows of
/// the clips.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClipShards {
    numbers: BTreeMap<String, BTreeSet<usize>>,
}

impl ClipShards {
    /// Returns the shards of the version `manifest` for the clips `clip_keys`.
    pub fn new<'c>(
        manifest: &Manifest,
        clip_keys: impl IntoIterator<Item = &'c str, IntoIter: Clone>,
    ) -> Self {
        let clip_keys = clip_keys.into_iter();
        let seed = manifest.recipe.split.seed;
        let of_split = |(split, &n_shards): (&String, &u64)| {
            let numbers = clip_keys.clone().filter_map(shard_numbers(seed, n_shards));
            (split.clone(), numbers.collect())
        };
        Self {
            numbers: manifest.shards.iter().map(of_split).collect(),
        }
    }

    /// Returns the name of the receipt of a file of the version; `None` if the file is of another shard.
    pub fn label_of(&self, file: &FileEntry) -> Option<String> {
        let split = file.split.as_deref()?;
        let number = shard_number_of(&file.path)?;
        let is_ours = self.numbers.get(split)?.contains(&number);
        is_ours.then(|| label(split, number))
    }

    /// Returns the names of the shards' receipts.
    pub fn labels(&self) -> impl Iterator<Item = String> {
        let splits = self.numbers.iter();
        splits.flat_map(|(split, numbers)| numbers.iter().map(|&number| label(split, number)))
    }
}

/// Returns the shard number in a path made by [`Shard::file`].
pub(crate) fn shard_number_of(path: &str) -> Option<usize> {
    let name = path.rsplit('/').next()?;
    name.strip_suffix(".parquet")?.parse().ok()
}

/// Returns the smallest power of two for which the mean shard has at most `clips` clips.
fn shard_count(members: usize, clips: usize) -> usize {
    members.div_ceil(clips.max(1)).max(1).next_power_of_two()
}

/// Returns the number of shards of a split that had `was` shards in the previous version: the same number, unless the
/// mean exceeds `clips` (then it doubles) or falls below a quarter of that (then it halves). The two thresholds are far
/// apart, so that a clip that is repeatedly added and removed near one of them does not redistribute all others each
/// time.
fn shard_count_kept(members: usize, clips: usize, was: Option<u64>) -> usize {
    let was = was.and_then(|was| usize::try_from(was).ok());
    // Only powers of two are kept: no plan produces another number.
    let Some(mut n_shards) = was.filter(|was| was.is_power_of_two()) else {
        return shard_count(members, clips);
    };

    let clips = clips.max(1);
    while members > n_shards.saturating_mul(clips) {
        n_shards *= 2;
    }
    while n_shards > 1 && members.saturating_mul(4) < n_shards.saturating_mul(clips) {
        n_shards /= 2;
    }
    n_shards
}

/// Returns the name of a split's folder: any character that is not plain becomes `%XX`, as hive readers expect.
fn folder_name(split: &str) -> String {
    let mut name = String::with_capacity(split.len());
    for byte in split.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') {
            name.push(char::from(byte));
        } else {
            name += &format!("%{byte:02X}");
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(n: usize) -> Vec<ClipRow> {
        (0..n)
            .map(|i| ClipRow {
                clip_key: format!("{:03}/{i:06}.mp3", i / 1000),
                track_id: i as i64,
                targets: vec![Some(0)],
                genres_all: vec![],
                artist_id: None,
                album_id: None,
                split: Split::ALL[usize::from(i % 10 == 0)].name().to_owned(),
            })
            .collect()
    }

    fn recipe(extra: &str) -> Recipe {
        let text = format!(
            "name='t'\n[catalog]\ndataset='fma'\n{extra}\n[[features]]\nname='m'\nop='mel'\n"
        );
        Recipe::parse(&text, "test.toml", &[]).expect("a valid recipe")
    }

    /// Returns the shard number of each row.
    fn numbers(plan: &ShardPlan) -> BTreeMap<usize, usize> {
        let mut numbers = BTreeMap::new();
        for shard in &plan.shards {
            numbers.extend(shard.members.iter().map(|&row| (row, shard.number)));
        }
        numbers
    }

    #[test]
    fn every_planned_clip_lies_in_exactly_one_shard_of_its_split() {
        let (rows, recipe) = (rows(5000), recipe("[shards]\nclips=100"));
        let plan = shards(&rows, &recipe, None, &BTreeMap::new());

        let mut seen: Vec<usize> = plan.shards.iter().flat_map(|s| s.members.clone()).collect();
        assert!(
            plan.shards
                .iter()
                .all(|s| s.members.iter().all(|&i| rows[i].split == s.split))
        );
        seen.sort_unstable();
        assert_eq!(seen, plan.planned);

        assert_eq!(
            plan.shards.iter().filter(|s| s.split == "training").count(),
            64
        );
        assert_eq!(
            plan.shards
                .iter()
                .filter(|s| s.split == "validation")
                .count(),
            8
        );
    }

    /// Returns the keys of each shard's clips.
    fn keys(plan: &ShardPlan, rows: &[ClipRow]) -> Vec<Vec<String>> {
        let mut keys = Vec::new();
        for shard in &plan.shards {
            let members = shard.members.iter();
            keys.push(members.map(|&i| rows[i].clip_key.clone()).collect());
        }
        keys
    }

    #[test]
    fn a_limit_keeps_a_subset_and_shards_do_not_depend_on_row_order() {
        let (mut rows, recipe) = (rows(300), recipe(""));
        let none = BTreeMap::new();
        let whole = shards(&rows, &recipe, None, &none);
        let few = shards(&rows, &recipe, Some(50), &none);
        assert_eq!(few.planned.len(), 50);

        let before = keys(&whole, &rows);
        rows.reverse();
        assert_eq!(keys(&shards(&rows, &recipe, None, &none), &rows), before);
        assert!(shards(&rows, &recipe, Some(0), &none).shards.is_empty());
    }

    #[test]
    fn the_number_of_shards_is_the_smallest_power_of_two() {
        for (members, clips, want) in [
            (0, 512, 1),
            (512, 512, 1),
            (513, 512, 2),
            (1024, 512, 2),
            (1025, 512, 4),
        ] {
            assert_eq!(
                shard_count(members, clips),
                want,
                "{members} clips, {clips} a shard"
            );
        }
    }

    #[test]
    fn shard_counts_are_kept_between_a_quarter_and_the_whole() {
        for (members, clips, was, want) in [
            (512, 512, None, 1),
            (513, 512, None, 2),
            // One clip too many doubles the number of shards, and one clip less does not halve it.
            (512, 512, Some(1), 1),
            (513, 512, Some(1), 2),
            (512, 512, Some(2), 2),
            // A mean of exactly a quarter of the maximum keeps the number of shards; a smaller mean halves it.
            (256, 512, Some(2), 2),
            (255, 512, Some(2), 1),
            (1, 512, Some(1), 1),
            (1, 512, Some(1024), 1),
            (5000, 512, Some(1), 16),
            (5000, 512, Some(16), 16),
            (5000, 512, Some(32), 32),
            (5000, 512, Some(64), 32),
            // The new recipe specifies another number of clips per shard.
            (5000, 10, Some(16), 512),
            (5000, 5000, Some(16), 4),
            // Numbers of shards that no plan produces are not kept.
            (513, 512, Some(0), 2),
            (513, 512, Some(3), 2),
            (513, 512, Some(u64::MAX), 2),
            (513, 512, Some(1 << 63), 4),
        ] {
            assert_eq!(
                shard_count_kept(members, clips, was),
                want,
                "{members} clips, {clips} a shard, {was:?} before"
            );
        }
    }

    proptest! {
        #[test]
        fn a_count_that_is_kept_twice_is_kept(members in 0_usize..100_000, clips in 1_usize..2_000, bits in 0_u32..20) {
            let once = shard_count_kept(members, clips, Some(1 << bits));
            prop_assert!(members <= once * clips);
            prop_assert!(once == 1 || members * 4 >= once * clips);
            prop_assert_eq!(shard_count_kept(members, clips, Some(once as u64)), once);
        }
    }

    #[test]
    fn one_clip_at_a_threshold_does_not_change_the_shard_count() {
        let recipe = recipe("[shards]\nclips=512");
        let mut rows = rows(513);
        for row in &mut rows {
            row.split = "training".to_owned();
        }
        // Without a previous version, the threshold between 512 and 513 clips redistributes half of the clips.
        let grown = shards(&rows, &recipe, None, &BTreeMap::new());
        assert_eq!(grown.counts["training"], 2);
        let shrunk = shards(&rows[..512], &recipe, None, &BTreeMap::new());
        assert_eq!(shrunk.counts["training"], 1);

        let shrunk = shards(&rows[..512], &recipe, None, &grown.counts);
        assert_eq!(shrunk.counts, grown.counts);
        let again = shards(&rows, &recipe, None, &shrunk.counts);
        assert_eq!(again, grown);
        let places = numbers(&grown);
        assert!(
            numbers(&shrunk)
                .iter()
                .all(|(row, number)| places[row] == *number)
        );
    }

    #[test]
    fn segments_fall_into_every_split_in_the_given_parts() {
        let split = SplitSpec {
            fractions: [0.6, 0.2, 0.2],
            ..SplitSpec::default()
        };
        let training = (0..10_000)
            .filter(|&s| segment_split(&split, "a.wav", PLAIN, s) == Split::Training)
            .count();
        assert!((5_800..6_200).contains(&training), "{training} of 10000");

        // A stretched copy is assigned to a split independently of the original segment.
        let together = (0..10_000).filter(|&s| {
            segment_split(&split, "a.wav", PLAIN, s) == segment_split(&split, "a.wav", 0.85, s)
        });
        // The expected fraction is 0.6² + 0.2² + 0.2².
        let together = together.count();
        assert!((4_200..4_600).contains(&together), "{together} of 10000");
    }

    #[test]
    fn folder_names_escape_what_would_break_a_path() {
        assert_eq!(
            folder_name("Old-Time / Historic"),
            "Old-Time%20%2F%20Historic"
        );
    }
}
