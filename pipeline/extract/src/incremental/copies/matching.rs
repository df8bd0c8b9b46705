//! Finds clips that contain the same recording, by an index of the items of their fingerprints.
//!
//! Copies share at least one item, although most of their items differ in a bit or two. So a sorted list of all items
//! gives the candidates, and the bits of all items that overlap decide.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use wavemill_runtime::parallel::on_threads;
use wavemill_runtime::progress::Progress;

/// Minimum similarity of two copies. Unrelated recordings have 0.6 to 0.8. Among the clips of 30 s with which this was chosen
/// (docs/benchmarks/near-copies.md), copies have 0.973 or more, except some of noise, and pieces of the same notes with
/// other instruments at most 0.967.
const SIMILARITY_MIN: f64 = 0.97;
/// Minimum similarity if only [`ITEMS_MIN`] items are compared, which agree by chance more often; and the number of items
/// from which [`SIMILARITY_MIN`] is enough.
const SIMILARITY_OF_FEW_MIN: f64 = 0.985;
const ITEMS_ENOUGH: usize = 48;
/// Minimum share of the shorter fingerprint that overlaps with the longer one.
const OVERLAP_MIN: f64 = 0.8;
/// Minimum number of items that are compared: 2 s in addition to the 2.7 s that an item describes.
const ITEMS_MIN: usize = 16;
/// Number of items that are compared before all of them, and the minimum similarity of these.
const SAMPLE_ITEMS: usize = 32;
const SAMPLE_SIMILARITY_MIN: f64 = 0.85;
/// Maximum number of places at which one item of a clip is looked at. Items of loops are in many places.
const PLACES_PER_ITEM: usize = 4;
/// Maximum number of following clips that are looked at for one item of a clip. It bounds the work for sounds that many
/// clips contain; copies share other items too, and many copies are linked one after another.
const CLIPS_PER_ITEM: usize = 64;

/// Two clips that contain the same recording.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pair {
    /// Indices of the clips, in ascending order.
    pub clips: [usize; 2],
    /// Number of items by which the recording begins later in the second clip.
    pub shift: i64,
    /// Share of bits that do not differ lastingly in the overlap, 0 to 1.
    pub similarity: f64,
}

/// An item of a fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    item: u32,
    clip: u32,
    place: u32,
}

/// Returns all pairs of copies among the fingerprints, ordered by clips; fewer if `progress` was stopped.
pub(super) fn pairs(fingerprints: &[&[u32]], threads: usize, progress: &Progress) -> Vec<Pair> {
    let index = index_of(fingerprints);
    let next = AtomicUsize::new(0);
    let Ok(found) = on_threads(threads, || {
        let mut search = Search {
            fingerprints,
            index: &index,
            own: Vec::new(),
            hits: Vec::new(),
        };

        let mut found = Vec::new();
        while !progress.is_stopped() {
            let clip = next.fetch_add(1, Ordering::Relaxed);
            if clip >= fingerprints.len() {
                break;
            }
            search.copies_of(clip, &mut found);
            progress.add(1);
        }
        Ok::<_, Infallible>(found)
    });

    let mut pairs = found.concat();
    pairs.sort_unstable_by_key(|pair| pair.clips);
    pairs
}

/// Returns the items of all fingerprints in ascending order, without those that equal the item before them, and at most
/// [`PLACES_PER_ITEM`] of each item of a clip.
fn index_of(fingerprints: &[&[u32]]) -> Vec<Entry> {
    let n_items = fingerprints.iter().map(|items| items.len()).sum();
    let mut index = Vec::with_capacity(n_items);
    let mut of_clip = Vec::new();
    for (clip, items) in (0..).zip(fingerprints) {
        of_clip.clear();
        for (place, &item) in (0..).zip(*items) {
            if !repeats(items, place as usize) {
                of_clip.push(Entry { item, clip, place });
            }
        }
        of_clip.sort_unstable();
        for same in of_clip.chunk_by(|one, other| one.item == other.item) {
            index.extend_from_slice(&same[..same.len().min(PLACES_PER_ITEM)]);
        }
    }
    index.sort_unstable();
    index
}

/// Reports whether the item at `place` equals the one before it, as in silence or a long tone.
fn repeats(items: &[u32], place: usize) -> bool {
    place > 0 && items[place] == items[place - 1]
}

/// Search for the copies of one clip after another.
struct Search<'a> {
    fingerprints: &'a [&'a [u32]],
    index: &'a [Entry],
    /// Items of the clip with their places, in ascending order.
    own: Vec<(u32, usize)>,
    /// Equal items of later clips: the clip, and by how many items its item is later.
    hits: Vec<(u32, i64)>,
}

impl Search<'_> {
    /// Adds the copies of a clip among the later clips to `found`.
    fn copies_of(&mut self, clip: usize, found: &mut Vec<Pair>) {
        self.collect_hits(clip);
        self.hits.sort_unstable();
        self.hits.dedup();

        for hits in self.hits.chunk_by(|one, other| one.0 == other.0) {
            let other = hits[0].0 as usize;
            let both = [self.fingerprints[clip], self.fingerprints[other]];
            let similar = hits.iter().filter(|(_, shift)| {
                let sample = Overlap::new(both, *shift, SAMPLE_ITEMS);
                sample.is_some_and(|sample| sample.similarity >= SAMPLE_SIMILARITY_MIN)
            });
            // The best shift may lie between two items.
            let shifts = similar.flat_map(|(_, shift)| shift - 1..=shift + 1);
            let compared = shifts.filter_map(|shift| {
                let Overlap {
                    similarity,
                    n_items,
                } = Overlap::new(both, shift, usize::MAX)?;
                (similarity >= similarity_min(n_items)).then_some((similarity, shift))
            });
            let best = compared.max_by(|one, other| one.0.total_cmp(&other.0));
            if let Some((similarity, shift)) = best {
                found.push(Pair {
                    clips: [clip, other],
                    shift,
                    similarity,
                });
            }
        }
    }

    fn collect_hits(&mut self, clip: usize) {
        self.hits.clear();
        let items = self.fingerprints[clip].iter().enumerate();
        self.own.clear();
        self.own.extend(items.map(|(place, item)| (*item, place)));
        self.own.sort_unstable();

        for own in self.own.chunk_by(|one, other| one.0 == other.0) {
            let item = own[0].0;
            let later = (item, clip as u32 + 1);
            let first = self
                .index
                .partition_point(|entry| (entry.item, entry.clip) < later);
            let same = self.index[first..]
                .chunk_by(|one, other| (one.item, one.clip) == (other.item, other.clip))
                .take_while(|entries| entries[0].item == item)
                .take(CLIPS_PER_ITEM);

            for entry in same.flatten() {
                for (_, place) in &own[..own.len().min(PLACES_PER_ITEM)] {
                    let shift = i64::from(entry.place) - *place as i64;
                    self.hits.push((entry.clip, shift));
                }
            }
        }
    }
}

/// Returns the minimum similarity of copies of which `n_items` are compared.
fn similarity_min(n_items: usize) -> f64 {
    let missing = ITEMS_ENOUGH.saturating_sub(n_items) as f64;
    let few = (missing / (ITEMS_ENOUGH - ITEMS_MIN) as f64).min(1.0);
    SIMILARITY_MIN + few * (SIMILARITY_OF_FEW_MIN - SIMILARITY_MIN)
}

/// The items of two fingerprints that overlap.
struct Overlap {
    /// Share of bits that do not differ lastingly: in an item and also in the one before.
    similarity: f64,
    /// Number of items that were compared.
    n_items: usize,
}

impl Overlap {
    /// Compares two fingerprints if the second one begins `shift` items earlier: all items that overlap, or about
    /// `n_sampled` of them. Returns `None` if too few overlap.
    ///
    /// The items of a shifted copy lie between those of the original, so bits differ only where they are about to change.
    /// Between pieces of the same notes, the same bits differ for as long as a note lasts. Items that only repeat the ones
    /// before them do not count: they are silence or long tones.
    fn new([one, other]: [&[u32]; 2], shift: i64, n_sampled: usize) -> Option<Self> {
        let [from, other_from] = [-shift, shift].map(|start| start.max(0) as usize);
        let left = one.len().checked_sub(from)?;
        let n_overlapping = left.min(other.len().checked_sub(other_from)?);
        let shorter = one.len().min(other.len());
        if (n_overlapping as f64) < OVERLAP_MIN * shorter as f64 {
            return None;
        }

        let differing = |index: usize| one[from + index] ^ other[other_from + index];
        let step = n_overlapping.div_ceil(n_sampled).max(1);
        let mut n_items = 0;
        let mut n_changing = [0; 2];
        let mut n_different = 0;
        for index in (1..n_overlapping).step_by(step) {
            let changes = [
                !repeats(one, from + index),
                !repeats(other, other_from + index),
            ];
            if changes == [false; 2] {
                continue;
            }
            n_items += 1;
            for (n, changes) in n_changing.iter_mut().zip(changes) {
                *n += usize::from(changes);
            }
            n_different += (differing(index) & differing(index - 1)).count_ones();
        }

        let n_min = ITEMS_MIN.min(n_sampled / 4);
        n_changing.iter().all(|n| *n >= n_min).then(|| Self {
            similarity: 1.0 - f64::from(n_different) / (32 * n_items) as f64,
            n_items,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns numbers that look random.
    fn random(seed: u64) -> impl FnMut() -> u32 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u32
        }
    }

    /// Returns a fingerprint in which one bit in eight changes from item to item, as in music.
    fn music(seed: u64, n_items: usize) -> Vec<u32> {
        let mut next = random(seed);
        let mut item = next();
        let items = (0..n_items).map(|_| {
            item ^= next() & next() & next();
            item
        });
        items.collect()
    }

    /// Returns the fingerprint of another encoding: one bit in 16 differs, for one item.
    fn encoded(items: &[u32], seed: u64) -> Vec<u32> {
        let mut next = random(seed);
        let differing = items
            .iter()
            .enumerate()
            .map(|(place, item)| match place % 3 {
                0 => item ^ (next() & next() & next()),
                _ => *item,
            });
        differing.collect()
    }

    fn found(fingerprints: &[Vec<u32>], threads: usize) -> Vec<([usize; 2], i64)> {
        let fingerprints: Vec<&[u32]> = fingerprints.iter().map(Vec::as_slice).collect();
        let pairs = pairs(&fingerprints, threads, &Progress::default());
        pairs.iter().map(|pair| (pair.clips, pair.shift)).collect()
    }

    #[test]
    fn copies_are_found_at_their_shift() {
        let mut clips: Vec<Vec<u32>> = (0..200).map(|seed| music(seed, 220)).collect();
        clips.push(encoded(&clips[3], 1));
        clips.push(encoded(&clips[50][40..140], 2));
        clips.push(encoded(&[music(999, 15), clips[70].clone()].concat(), 3));
        clips.push(encoded(&clips[200], 4));

        let wanted = [
            ([3, 200], 0),
            ([3, 203], 0),
            ([50, 201], -40),
            ([70, 202], 15),
            ([200, 203], 0),
        ];
        for threads in [1, 4] {
            assert_eq!(found(&clips, threads), wanted);
        }
    }

    /// Neither silence nor a shared passage makes copies, and the sound of a held note says nothing.
    #[test]
    fn what_many_clips_contain_makes_no_copies() {
        let silence = vec![627_964_279; 220];
        let held: Vec<u32> = music(1, 12)
            .into_iter()
            .flat_map(|item| [item; 18])
            .collect();
        let passage = music(2, 60);
        let with_passage = |seed| [music(seed, 80), passage.clone(), music(seed + 50, 80)].concat();
        let short = music(3, ITEMS_MIN);
        let clips = [
            silence.clone(),
            silence,
            held.clone(),
            held,
            with_passage(10),
            with_passage(11),
            short.clone(),
            short,
            Vec::new(),
            Vec::new(),
        ];
        assert_eq!(found(&clips, 2), []);
    }

    /// Prints the time and the memory for fingerprints of as many clips as FMA has. They consist of the same passages in
    /// another order, so that every item is in many clips.
    #[test]
    #[ignore = "only prints a duration"]
    fn measure_a_hundred_thousand_clips() {
        let originals: Vec<Vec<u32>> = (0..2_000).map(|seed| music(seed, 220)).collect();
        let clips: Vec<Vec<u32>> = (0..100_000)
            .map(|number| {
                let mut next = random(number as u64);
                let mut passages: Vec<&[u32]> = originals[number % 2_000].chunks(20).collect();
                passages.sort_by_cached_key(|_| next());
                passages.concat()
            })
            .collect();
        let fingerprints: Vec<&[u32]> = clips.iter().map(Vec::as_slice).collect();

        let start = std::time::Instant::now();
        let n_pairs = pairs(&fingerprints, 2, &Progress::default()).len();
        let seconds = start.elapsed().as_secs_f64();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let peak = status.lines().find(|line| line.starts_with("VmHWM"));
        println!(
            "{seconds:.0} s on two threads, {n_pairs} pairs, {}",
            peak.unwrap_or_default()
        );
    }

    /// Items of a loop are in many places of many clips. Each pair of clips still takes bounded work.
    #[test]
    fn loops_take_bounded_work() {
        let bar = music(7, 4);
        let clips: Vec<Vec<u32>> = (0..40)
            .map(|seed| [music(100 + seed, 8), bar.repeat(200)].concat())
            .collect();
        let index = index_of(&clips.iter().map(Vec::as_slice).collect::<Vec<_>>());
        assert!(index.len() <= clips.len() * (8 + bar.len() * PLACES_PER_ITEM));
        assert_eq!(found(&clips, 2).len(), 40 * 39 / 2);
    }

    /// More copies than are compared with one clip are still linked to each other.
    #[test]
    fn many_copies_are_linked() {
        let original = music(5, 220);
        let n_clips = 3 * CLIPS_PER_ITEM;
        let clips: Vec<Vec<u32>> = (0..n_clips)
            .map(|seed| encoded(&original, seed as u64))
            .collect();
        let pairs = found(&clips, 2);
        for later in 1..n_clips {
            assert!(pairs.iter().any(|(clips, _)| clips[1] == later), "{later}");
        }
    }
}
