//! 95 % bootstrap intervals of scores, and of the difference between two models on the same tracks. Whole artists (or
//! tracks) are resampled, never segments.
//!
//! Segments of a track, and usually tracks of an artist, are not independent: resampling single segments or tracks
//! gives intervals that are too narrow. A resample depends only on the seed and its number, and not on the number of
//! threads. Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), percentile intervals.
//!
//! A resample may lose all rows of a class. Means over classes then leave out that class, about which the resample says
//! nothing; F1 of 0 would make the interval too low. With few artists per class, an interval of such a mean would
//! nevertheless contain the true value too rarely, and none is given (see [`UNITS_PER_CLASS_MIN`]).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde::{Deserialize, Serialize};
use wavemill_schemas::rng::{Rng, mix};

use super::MetricsError;
use super::classification::{Margins, mean};
use super::leaks::Noun;
use super::multilabel::{Ranking, decide, rankings};
use super::predictions::{Label, Predictions, likeliest};

/// Number of scores per class: precision, recall, F1.
const CLASS_FIGURES: usize = 3;

/// Number of resamples for a bootstrap interval.
pub const RESAMPLES: usize = 2000;

/// Number of resamples that a thread computes at a time.
const PART: usize = 50;

/// Minimum of [`Draws::units_per_class`] for intervals of means over classes. The test
/// `intervals_of_macro_f1_contain_the_true_value` simulates how often an interval contains the true macro F1: nearly as
/// often as stated from three artists per class on. With one, it would in half of the cases (2 classes) to four fifths
/// (8 classes).
pub const UNITS_PER_CLASS_MIN: u64 = 3;

/// The flag of computations that nothing stops.
static NEVER: AtomicBool = AtomicBool::new(false);

/// The unit that the bootstrap resamples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Units are artists with all of their tracks; a track without an artist is a unit of its own.
    Artist,
    /// Units are single tracks, because no track has an artist.
    Track,
}

/// The kind and the number of the units that the bootstrap resamples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draws {
    /// The kind of the units.
    pub unit: Unit,
    /// Number of units.
    pub units: u64,
    /// Number of units with rows of a class, as the median over the classes that have rows. Below
    /// [`UNITS_PER_CLASS_MIN`], means over classes have no intervals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units_per_class: Option<u64>,
    /// Number of labelled tracks in all units.
    pub tracks: u64,
    /// Number of labelled tracks without an artist.
    pub tracks_without_artist: u64,
    /// Number of resamples, always [`RESAMPLES`].
    pub resamples: u64,
    /// The seed from which resamples are drawn.
    pub seed: u64,
}

impl Draws {
    /// True if half of the classes have so few units that means over classes have no intervals.
    pub fn has_small_classes(&self) -> bool {
        self.units_per_class
            .is_some_and(|units| units < UNITS_PER_CLASS_MIN)
    }

    /// Explains why means over classes have no intervals, for a message. `noun` is the word for a clip.
    pub fn small_classes(&self, noun: Noun) -> String {
        let units = match self.unit {
            Unit::Artist => "artists",
            Unit::Track => noun.many(),
        };
        format!(
            "no intervals for means over classes, because half of the classes have fewer than {UNITS_PER_CLASS_MIN} {units}"
        )
    }
}

/// A score with the 2.5 and 97.5 percentiles of its resamples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The score over the original rows.
    pub value: f64,
    /// 2.5 % of the resamples have a lower score.
    pub low: f64,
    /// 2.5 % of the resamples have a higher score.
    pub high: f64,
}

/// Bootstrap intervals by the name of the score.
///
/// Scores with one class per row: `accuracy`, `balanced_accuracy`, `macro_f1`. Scores with several labels per row:
/// `exact_match`, `f1_macro`, `f1_micro`, `roc_auc_macro`. An undefined score (no class has rows with and without it)
/// is absent, as are means over classes if [`Draws::has_small_classes`]; resamples in which a score is undefined are
/// left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// The number and kind of the resampled units.
    pub draws: Draws,
    /// Intervals by the name of the score.
    pub intervals: BTreeMap<String, Interval>,
}

/// Bootstrap intervals of the scores of one class. A score is `None` if its denominator is 0, such as the precision of
/// a class that was never predicted. Resamples in which the denominator is 0 are left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassInterval {
    /// Precision: the share of rows predicted as the class that belong to it.
    pub precision: Option<Interval>,
    /// Recall: the share of rows of the class that are predicted as the class.
    pub recall: Option<Interval>,
    /// F1: the harmonic mean of precision and recall.
    pub f1: Option<Interval>,
}

/// Bootstrap intervals for each class.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassIntervals {
    /// The number and kind of the resampled units.
    pub draws: Draws,
    /// Intervals of each class, in id order.
    pub classes: Vec<ClassInterval>,
}

/// A score of two models, and the difference between them with its bootstrap interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The score of the first model.
    pub a: f64,
    /// The score of the second model.
    pub b: f64,
    /// Score of the first model minus that of the second, with percentiles over resamples that both models share.
    pub difference: Interval,
}

/// The differences between the scores of two models on the same tracks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// The number and kind of the units, which are resampled for both models at once.
    pub draws: Draws,
    /// Differences by the name of the score, with the names of [`Bootstrap::intervals`].
    pub differences: BTreeMap<String, Difference>,
}

/// Computes the bootstrap intervals of `predictions`; returns `None` if there is only a single artist or track, which
/// cannot be resampled.
///
/// # Errors
/// [`MetricsError::NoLabels`] if no row has a label; [`MetricsError::Stopped`] if `stop` becomes true.
pub(super) fn bootstrap(
    predictions: &Predictions,
    seed: u64,
    stop: &AtomicBool,
) -> Result<Option<Bootstrap>, MetricsError> {
    let (groups, mut draws) = groups(predictions, seed)?;
    let units = draws.units as usize;
    if units < 2 {
        return Ok(None);
    }

    let statistic = Statistic::from_predictions(predictions, &groups, units);
    draws.units_per_class = statistic.units_per_class();
    // Weight 1 for each unit gives the scores over the original rows, computed in the same way as those of a resample.
    let whole = statistic.values(&vec![1; units]);
    let resamples = resample(&draws, whole.len(), stop, |weights| {
        statistic.values(weights)
    })?;

    let mut intervals = BTreeMap::new();
    for (figure, name) in statistic.names(&draws) {
        if let Some(interval) = interval(whole[figure], column(&resamples, figure)) {
            intervals.insert(name.to_owned(), interval);
        }
    }
    Ok(Some(Bootstrap { draws, intervals }))
}

/// Computes the intervals of each class's scores from the same resamples as [`Bootstrap`]; returns `None` if there is
/// only a single artist or track.
///
/// # Errors
/// [`MetricsError::Kind`] if rows have several labels; [`MetricsError::NoLabels`] if no row has a label.
pub fn class_intervals(
    predictions: &Predictions,
    seed: u64,
) -> Result<Option<ClassIntervals>, MetricsError> {
    predictions.check_kind(false)?;
    let (groups, draws) = groups(predictions, seed)?;
    let units = draws.units as usize;
    if units < 2 {
        return Ok(None);
    }

    let n_classes = predictions.classes().len();
    let statistic = Statistic::from_predictions(predictions, &groups, units);
    let whole = statistic.class_values(&vec![1; units]);
    let resamples = resample(&draws, whole.len(), &NEVER, |weights| {
        statistic.class_values(weights)
    })?;

    let mut classes = Vec::with_capacity(n_classes);
    for class in 0..n_classes {
        let precision = class * CLASS_FIGURES;
        let recall = precision + 1;
        let f1 = precision + 2;
        classes.push(ClassInterval {
            precision: interval(whole[precision], column(&resamples, precision)),
            recall: interval(whole[recall], column(&resamples, recall)),
            f1: interval(whole[f1], column(&resamples, f1)),
        });
    }
    Ok(Some(ClassIntervals { draws, classes }))
}

/// Computes the difference between two models with the same resamples for both. The difference varies less than the
/// score of either model.
///
/// Both predictions need one row per track (see [`Predictions::per_track_mean`]). Artists are those of `a`. Returns
/// `None` if there is only a single artist or track.
///
/// # Errors
/// [`MetricsError::ClassSets`] if the classes differ; [`MetricsError::Rows`] with the tracks that only one of them has;
/// [`MetricsError::NoLabels`] if no row has a label.
pub fn paired(a: &Predictions, b: &Predictions, seed: u64) -> Result<Option<Paired>, MetricsError> {
    a.check_same_classes(b)?;
    let b = aligned(a, b)?;
    let (groups, mut draws) = groups(a, seed)?;
    let units = draws.units as usize;
    if units < 2 {
        return Ok(None);
    }

    // `aligned` put the rows of `b` in the order of `a`, so the rows of both are in the same units.
    let of_a = Statistic::from_predictions(a, &groups, units);
    let of_b = Statistic::from_predictions(&b, &groups, units);
    draws.units_per_class = of_a.units_per_class();
    let whole_a = of_a.values(&vec![1; units]);
    let whole_b = of_b.values(&vec![1; units]);
    let resamples = resample(&draws, whole_a.len(), &NEVER, |weights| {
        let a = of_a.values(weights);
        let b = of_b.values(weights);
        a.iter().zip(&b).map(|(a, b)| a - b).collect()
    })?;

    let mut differences = BTreeMap::new();
    for (figure, name) in of_a.names(&draws) {
        let a = whole_a[figure];
        let b = whole_b[figure];
        if let Some(difference) = interval(a - b, column(&resamples, figure)) {
            differences.insert(name.to_owned(), Difference { a, b, difference });
        }
    }
    Ok(Some(Paired { draws, differences }))
}

/// Returns one score of every resample.
fn column(resamples: &[Vec<f64>], figure: usize) -> impl Iterator<Item = f64> {
    resamples.iter().map(move |figures| figures[figure])
}

/// Returns the index of each labelled row's unit (artist or track), and a description of the units.
fn groups(predictions: &Predictions, seed: u64) -> Result<(Vec<u32>, Draws), MetricsError> {
    // Units are numbered in the order of their first row, so the order of the hash map has no effect.
    let mut group_of: HashMap<(bool, i64), u32> = HashMap::new();
    let mut tracks = HashMap::new();
    let mut groups = Vec::new();
    for row in predictions.labelled() {
        // An artist and a track with the same id are different units.
        let key = row
            .artist_id
            .map_or((false, row.track_id), |artist| (true, artist));
        let next = group_of.len() as u32;
        groups.push(*group_of.entry(key).or_insert(next));
        tracks.insert(row.track_id, row.artist_id.is_some());
    }

    if groups.is_empty() {
        return Err(predictions.no_labels());
    }

    let without = tracks.values().filter(|has_artist| !**has_artist).count();
    let draws = Draws {
        unit: if without == tracks.len() {
            Unit::Track
        } else {
            Unit::Artist
        },
        units: group_of.len() as u64,
        units_per_class: None,
        tracks: tracks.len() as u64,
        tracks_without_artist: without as u64,
        resamples: RESAMPLES as u64,
        seed,
    };
    Ok((groups, draws))
}

/// Returns the labelled rows of `b` in the order of those of `a`.
fn aligned(a: &Predictions, b: &Predictions) -> Result<Predictions, MetricsError> {
    // If a track had several rows, the last row would silently replace the others.
    let mut place = HashMap::new();
    for row in b.labelled() {
        if place.insert(row.track_id, row).is_some() {
            return Err(other_tracks(format!(
                "the second has several rows of track {}: compare tracks, not segments",
                row.track_id
            )));
        }
    }

    let mut out = b.like();
    let mut missing = Vec::new();
    let mut seen = HashSet::new();
    for row in a.labelled() {
        if !seen.insert(row.track_id) {
            return Err(other_tracks(format!(
                "the first has several rows of track {}: compare tracks, not segments",
                row.track_id
            )));
        }
        match place.get(&row.track_id) {
            // Labels must be equal in `a` and `b`: otherwise the difference would be due to the labels and not to the
            // models.
            Some(other) if other.label == row.label => out.push(other)?,
            Some(_) => {
                return Err(other_tracks(format!(
                    "track {} has another label in the second",
                    row.track_id
                )));
            }
            None => missing.push(row.track_id),
        }
    }

    let mut extra: Vec<i64> = place
        .into_keys()
        .filter(|track_id| !seen.contains(track_id))
        .collect();
    // Sort the tracks: the order of a hash map must not appear in an error message.
    extra.sort_unstable();
    if missing.is_empty() && extra.is_empty() {
        return Ok(out);
    }
    Err(other_tracks(format!(
        "only the first has {}; only the second has {}",
        listed(&missing),
        listed(&extra)
    )))
}

/// Creates [`MetricsError::Rows`] for two predictions with different tracks.
fn other_tracks(reason: String) -> MetricsError {
    MetricsError::Rows(format!("not the same tracks: {reason}"))
}

/// Formats a list such as `3 tracks (5, 7, 8)`.
fn listed(tracks: &[i64]) -> String {
    let some: Vec<String> = tracks.iter().take(5).map(i64::to_string).collect();
    match tracks.len() {
        0 => "none".to_owned(),
        n => format!(
            "{n} (track {}{})",
            some.join(", "),
            if n > 5 { ", …" } else { "" }
        ),
    }
}

/// Counts of rows by unit (artist or track), so that the time for a resample is proportional to the number of units.
struct Statistic {
    /// The cells of unit g are at `starts[g]..starts[g + 1]`.
    starts: Vec<usize>,
    /// True for each class that has rows.
    has_rows: Vec<bool>,
    counts: Counts,
}

/// The counts of all units.
enum Counts {
    /// `(class, predicted class, rows)` of each cell.
    Classes(Vec<(u32, u32, u32)>),
    /// `cells` has `(class × 4 + truth × 2 + guess, rows)`. `rows` has for each unit the number of rows and the number
    /// of rows whose labels are all correct.
    Sets {
        cells: Vec<(u32, u32)>,
        rows: Vec<[u32; 2]>,
        rankings: Vec<Ranking>,
    },
}

impl Statistic {
    /// Counts the labelled rows of `predictions`, whose units are `groups`.
    fn from_predictions(predictions: &Predictions, groups: &[u32], units: usize) -> Self {
        let mut cells: Vec<BTreeMap<(u32, u32), u32>> = vec![BTreeMap::new(); units];
        let mut rows = vec![[0; 2]; units];
        let mut has_rows = vec![false; predictions.classes().len()];
        // `groups` has the unit of each labelled row, in the order of the rows.
        for (row, &group) in predictions.labelled().zip(groups) {
            let cells = &mut cells[group as usize];
            match row.label {
                Label::Unknown => {}
                Label::Class(truth) => {
                    let guess = likeliest(row.probabilities);
                    has_rows[truth] = true;
                    *cells.entry((truth as u32, guess as u32)).or_default() += 1;
                }
                Label::Set(set) => {
                    let exact = decide(row.probabilities, set, |class, truth, guess| {
                        // A label that is neither true nor predicted affects no score.
                        if truth || guess {
                            let kind = u32::from(truth) << 1 | u32::from(guess);
                            has_rows[class] |= truth;
                            *cells.entry((class as u32, kind)).or_default() += 1;
                        }
                    });
                    rows[group as usize][0] += 1;
                    rows[group as usize][1] += u32::from(exact);
                }
            }
        }

        // Store the counts of all units in one flat list: each of the 2,000 resamples iterates over all of it.
        let mut starts = vec![0];
        let mut n_cells = 0;
        for cells in &cells {
            n_cells += cells.len();
            starts.push(n_cells);
        }

        let cells = cells.into_iter().flatten().map(|((a, b), n)| (a, b, n));
        let counts = if predictions.is_multi() {
            Counts::Sets {
                // One number for class, truth and guess limits a cell to eight bytes.
                cells: cells
                    .map(|(class, kind, n)| (class << 2 | kind, n))
                    .collect(),
                rows,
                rankings: rankings(predictions, |i| groups[i]),
            }
        } else {
            Counts::Classes(cells.collect())
        };
        Self {
            starts,
            has_rows,
            counts,
        }
    }

    /// Returns the place in [`Self::values`] and the name of each score that has an interval.
    fn names(&self, draws: &Draws) -> impl Iterator<Item = (usize, &'static str)> {
        // The second value is true for a mean over classes.
        let all: &'static [(&str, bool)] = match self.counts {
            Counts::Classes(_) => &[
                ("accuracy", false),
                ("balanced_accuracy", true),
                ("macro_f1", true),
            ],
            Counts::Sets { .. } => &[
                ("exact_match", false),
                ("f1_macro", true),
                ("f1_micro", false),
                ("roc_auc_macro", true),
            ],
        };
        let has_means = !draws.has_small_classes();
        let names = all.iter().enumerate();
        names
            .filter(move |(_, (_, is_mean))| has_means || !is_mean)
            .map(|(figure, (name, _))| (figure, *name))
    }

    /// Returns [`Draws::units_per_class`].
    fn units_per_class(&self) -> Option<u64> {
        let mut counts = vec![0_u64; self.has_rows.len()];
        for unit in self.starts.windows(2) {
            let mut classes = self.classes_in(unit[0]..unit[1]);
            classes.sort_unstable();
            classes.dedup();
            classes.into_iter().for_each(|class| counts[class] += 1);
        }
        counts.retain(|&count| count > 0);
        counts.sort_unstable();
        counts.get(counts.len().saturating_sub(1) / 2).copied()
    }

    /// Returns the classes of the rows in a range of cells, some of them more than once.
    fn classes_in(&self, range: Range<usize>) -> Vec<usize> {
        match &self.counts {
            Counts::Classes(cells) => cells[range].iter().map(|cell| cell.0 as usize).collect(),
            Counts::Sets { cells, .. } => {
                let labels = cells[range].iter().filter(|(cell, _)| cell & 2 != 0);
                labels.map(|(cell, _)| (cell >> 2) as usize).collect()
            }
        }
    }

    /// Returns the [`CLASS_FIGURES`] scores of each class, with unit g weighted by `weights[g]`; NaN if a denominator
    /// is 0. Not available with several labels per row.
    fn class_values(&self, weights: &[u32]) -> Vec<f64> {
        let Counts::Classes(cells) = &self.counts else {
            return Vec::new();
        };

        let n_classes = self.has_rows.len();
        let margins = self.class_margins(cells, weights);
        let mut values = Vec::with_capacity(n_classes * CLASS_FIGURES);

        for class in 0..n_classes {
            let support = margins.support[class];
            let predicted = margins.predicted[class];
            values.push(if_any(predicted, margins.precision(class)));
            values.push(if_any(support, margins.recall(class)));
            values.push(if_any(support + predicted, margins.f1(class)));
        }
        values
    }

    /// Returns the scores with unit g weighted by `weights[g]`; NaN for undefined scores.
    fn values(&self, weights: &[u32]) -> Vec<f64> {
        match &self.counts {
            Counts::Classes(cells) => {
                let margins = self.class_margins(cells, weights);
                vec![
                    margins.accuracy(),
                    margins.balanced_accuracy(),
                    margins.f1_of_kept(&self.has_rows, margins.occurring()),
                ]
            }
            Counts::Sets {
                cells,
                rows,
                rankings,
            } => {
                let mut margins = Margins::new(rankings.len());
                let mut n_rows = 0;
                let mut n_exact = 0;
                for (group, weight) in drawn(weights) {
                    let [group_rows, group_exact] = rows[group];
                    n_rows += u64::from(group_rows) * weight;
                    n_exact += u64::from(group_exact) * weight;
                    for &(cell, n) in &cells[self.cells_of(group)] {
                        let n = u64::from(n) * weight;
                        margins.add_decision((cell >> 2) as usize, cell & 2 != 0, cell & 1 != 0, n);
                    }
                }

                // A class that all or no rows of this resample have has no AUC, and is left out of the mean.
                let auc = mean(
                    rankings
                        .iter()
                        .filter_map(|ranking| ranking.roc_auc(weights)),
                );
                // Every unit has a labelled row and at least one unit was drawn, so `n_rows` is above 0.
                vec![
                    n_exact as f64 / n_rows as f64,
                    margins.f1_of_kept(&self.has_rows, 0..rankings.len()),
                    margins.f1_micro(),
                    auc.unwrap_or(f64::NAN),
                ]
            }
        }
    }

    /// Counts the rows of each class with unit g weighted by `weights[g]`.
    fn class_margins(&self, cells: &[(u32, u32, u32)], weights: &[u32]) -> Margins {
        let mut margins = Margins::new(self.has_rows.len());
        for (group, weight) in drawn(weights) {
            for &(truth, guess, n) in &cells[self.cells_of(group)] {
                margins.add(truth as usize, guess as usize, u64::from(n) * weight);
            }
        }
        margins
    }

    fn cells_of(&self, group: usize) -> Range<usize> {
        self.starts[group]..self.starts[group + 1]
    }
}

impl Margins {
    /// Returns the mean F1 over `classes`, without those that have rows originally (`has_rows`), but not in this
    /// resample.
    fn f1_of_kept(&self, has_rows: &[bool], classes: impl Iterator<Item = usize>) -> f64 {
        let kept = classes.filter(|&class| self.support[class] > 0 || !has_rows[class]);
        mean(kept.map(|class| self.f1(class))).unwrap_or(f64::NAN)
    }
}

/// Returns `value`, or NaN if its denominator `whole` is 0.
fn if_any(whole: u64, value: f64) -> f64 {
    if whole == 0 { f64::NAN } else { value }
}

/// Returns the drawn units with their weights.
fn drawn(weights: &[u32]) -> impl Iterator<Item = (usize, u64)> {
    weights
        .iter()
        .enumerate()
        .filter(|(_, weight)| **weight > 0)
        .map(|(group, &weight)| (group, u64::from(weight)))
}

/// Computes the scores of every resample, in the order of the resamples, on as many threads as there are cores.
///
/// # Errors
/// [`MetricsError::Stopped`] if `stop` becomes true.
fn resample(
    draws: &Draws,
    figures: usize,
    stop: &AtomicBool,
    values: impl Fn(&[u32]) -> Vec<f64> + Sync,
) -> Result<Vec<Vec<f64>>, MetricsError> {
    let units = draws.units as usize;
    let mut out = vec![vec![f64::NAN; figures]; RESAMPLES];
    // Each part goes to the first free thread. All parts have the same length, so `part * PART + i` is the number of a
    // resample.
    let parts = Mutex::new(out.chunks_mut(PART).enumerate());
    let work = || {
        let mut weights = vec![0_u32; units];
        loop {
            let next = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((part, chunk)) = next else {
                return;
            };
            for (i, slot) in chunk.iter_mut().enumerate() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let number = (part * PART + i) as u64;
                // Each resample has its own random numbers, which do not depend on the thread or on earlier resamples.
                let mut rng = Rng::new(mix("bootstrap", &[draws.seed, number]));

                weights.fill(0);
                for _ in 0..units {
                    weights[rng.below(units as u64) as usize] += 1;
                }
                *slot = values(&weights);
            }
        }
    };

    let n_threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 1..n_threads {
            // If no further thread can be started, those that are running do all the work.
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    if stop.load(Ordering::Relaxed) {
        return Err(MetricsError::Stopped);
    }
    Ok(out)
}

/// Returns the score `value` with the percentiles of `resamples`, which may contain NaN; `None` if the score is
/// undefined.
fn interval(value: f64, resamples: impl Iterator<Item = f64>) -> Option<Interval> {
    let mut sorted: Vec<f64> = resamples.filter(|x| !x.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    if value.is_nan() || sorted.is_empty() {
        return None;
    }
    Some(Interval {
        value,
        low: quantile(&sorted, 0.025),
        high: quantile(&sorted, 0.975),
    })
}

/// Returns a quantile by linear interpolation between the two nearest values, the default of `numpy.quantile`.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    // `sorted` has indices 0 to n − 1, so both nearest values exist for every q from 0 to 1.
    let at = q * (sorted.len() - 1) as f64;
    let below = sorted[at.floor() as usize];
    let above = sorted[at.ceil() as usize];
    below + (above - below) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::super::classification::ClassReport;
    use super::super::multilabel::{SetReport, tests::sets};
    use super::super::predictions::tests::single;
    use super::*;

    fn bootstrap(predictions: &Predictions, seed: u64) -> Result<Option<Bootstrap>, MetricsError> {
        super::bootstrap(predictions, seed, &NEVER)
    }

    const YES: &[f32] = &[0.9, 0.1];
    const NO: &[f32] = &[0.1, 0.9];

    #[test]
    fn resampling_ends_when_it_is_stopped() {
        let predictions = single(&[(1, None, 0, YES), (2, None, 0, NO)]);
        let stopped = super::bootstrap(&predictions, 1, &AtomicBool::new(true));
        assert!(matches!(stopped, Err(MetricsError::Stopped)), "{stopped:?}");
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(
            (
                quantile(&[1.0, 2.0], 0.0),
                quantile(&[1.0, 2.0], 1.0),
                quantile(&[5.0], 0.3)
            ),
            (1.0, 2.0, 5.0)
        );
    }

    /// Returns predictions for 400 tracks, 300 of them correct, in groups of four successive tracks. `per_artist` is
    /// the number of tracks per artist.
    fn coins(per_artist: i64) -> Predictions {
        let rows = (0..400).map(|track| {
            let artist = (per_artist > 1).then_some(track / per_artist);
            (track, artist, 0, if track / 4 % 4 == 3 { NO } else { YES })
        });
        single(&rows.collect::<Vec<_>>())
    }

    #[test]
    fn interval_width_matches_the_binomial_distribution() {
        let result = bootstrap(&coins(1), 1).unwrap().unwrap();
        assert_eq!(
            (
                result.draws.unit,
                result.draws.units,
                result.draws.tracks_without_artist
            ),
            (Unit::Track, 400, 400)
        );

        let accuracy = result.intervals["accuracy"];
        let half = 1.96 * (0.75_f64 * 0.25 / 400.0).sqrt();
        assert_eq!(accuracy.value, 0.75);
        assert!(
            (accuracy.low - (0.75 - half)).abs() < 0.006
                && (accuracy.high - (0.75 + half)).abs() < 0.006,
            "{accuracy:?}"
        );
    }

    #[test]
    fn intervals_of_classes_hold_the_figures_of_the_report() {
        let rows: Vec<(i64, Option<i64>, i32, &[f32])> = (0..90)
            .map(|i| {
                let guess: &[f32] = if i % 4 == 0 {
                    &[0.1, 0.8, 0.1]
                } else {
                    &[0.8, 0.1, 0.1]
                };
                (i, Some(i / 3), i32::from(i % 3 == 0), guess)
            })
            .collect();

        let predictions = single(&rows);
        let report = ClassReport::from_predictions(&predictions).unwrap();
        let intervals = class_intervals(&predictions, 1).unwrap().unwrap();
        assert_eq!(intervals.draws.units, 30);

        for (class, of_class) in report.classes.iter().zip(&intervals.classes) {
            let figures = [
                (of_class.precision, class.precision, class.predicted),
                (of_class.recall, class.recall, class.support),
                (of_class.f1, class.f1, class.support + class.predicted),
            ];

            for (interval, value, whole) in figures {
                // The third class has no rows and was never predicted, so its scores are undefined.
                assert_eq!(interval.is_some(), whole > 0, "{}", class.name);
                if let Some(found) = interval {
                    assert_eq!(found.value, value);
                    assert!(found.low <= value && value <= found.high, "{found:?}");
                }
            }
        }

        assert_eq!(
            intervals,
            class_intervals(&predictions, 1).unwrap().unwrap()
        );

        let several = sets(&[(Some(&[true, false]), &[0.9, 0.1])]);
        assert!(class_intervals(&several, 1).is_err());
    }

    #[test]
    fn artists_whose_tracks_go_together_give_wider_intervals() {
        fn width(predictions: &Predictions) -> (u64, f64) {
            let result = bootstrap(predictions, 1).unwrap().unwrap();
            (
                result.draws.units,
                result.intervals["accuracy"].high - result.intervals["accuracy"].low,
            )
        }

        let ((tracks, narrow), (artists, wide)) = (width(&coins(1)), width(&coins(4)));
        assert_eq!((tracks, artists), (400, 100));
        assert!(
            (wide / narrow - 2.0).abs() < 0.15,
            "fours count as one: √4 wider, not {}",
            wide / narrow
        );
    }

    #[test]
    fn segments_of_a_track_are_drawn_together() {
        let tracks = coins(1);
        let mut segments = tracks.like();
        for copy in 0..10 {
            for row in tracks.rows() {
                segments
                    .push(&super::super::predictions::Row {
                        segment: copy,
                        ..row
                    })
                    .unwrap();
            }
        }

        let (a, b) = (
            bootstrap(&tracks, 3).unwrap().unwrap(),
            bootstrap(&segments, 3).unwrap().unwrap(),
        );
        assert_eq!(a, b, "ten equal segments a track know no more than one");
    }

    #[test]
    fn value_matches_the_report_and_draws_follow_the_seed() {
        let rows: Vec<_> = (0..60)
            .map(|i| {
                (
                    i,
                    Some(i / 3),
                    (i % 2) as i32,
                    if i % 5 < 2 { NO } else { YES },
                )
            })
            .collect();

        let predictions = single(&rows);
        let report = ClassReport::from_predictions(&predictions).unwrap();
        let result = bootstrap(&predictions, 7).unwrap().unwrap();

        let got =
            ["accuracy", "balanced_accuracy", "macro_f1"].map(|name| result.intervals[name].value);
        assert_eq!(
            got,
            [
                report.accuracy,
                report.balanced_accuracy,
                report.macro_mean.f1
            ]
        );

        assert_eq!(bootstrap(&predictions, 7).unwrap().unwrap(), result);
        assert_ne!(
            bootstrap(&predictions, 8).unwrap().unwrap().intervals,
            result.intervals
        );
    }

    #[test]
    fn labels_in_sets_have_intervals_of_their_own_figures() {
        let rows: Vec<(bool, f32)> = (0..50)
            .map(|i| {
                (
                    i % 3 == 0,
                    if i % 7 < 3 {
                        0.8
                    } else {
                        0.1 + i as f32 / 500.0
                    },
                )
            })
            .collect();

        let cells: Vec<([bool; 2], [f32; 2])> = rows
            .iter()
            .map(|&(set, p)| ([set, false], [p, 0.2]))
            .collect();
        let predictions = sets(
            &cells
                .iter()
                .map(|(set, p)| (Some(&set[..]), &p[..]))
                .collect::<Vec<_>>(),
        );

        let (report, result) = (
            SetReport::from_predictions(&predictions).unwrap(),
            bootstrap(&predictions, 1).unwrap().unwrap(),
        );

        for (name, want) in [
            ("roc_auc_macro", report.roc_auc_macro.unwrap()),
            ("exact_match", report.exact_match),
            ("f1_macro", report.f1_macro),
            ("f1_micro", report.f1_micro),
        ] {
            assert_eq!(result.intervals[name].value, want, "{name}");
        }
        assert!(
            result
                .intervals
                .values()
                .all(|i| i.low <= i.value && i.value <= i.high && i.low < i.high),
            "{result:?}"
        );
    }

    /// Simulates predictions for `artists` artists of each of `n_classes` classes, with ten tracks each. An artist's
    /// share of correct predictions has the distribution Beta(4, 1), whose mean is 0.8, and errors are spread over the
    /// other classes.
    fn simulated(n_classes: u64, artists: u64, rng: &mut Rng) -> Predictions {
        let mut rows = Vec::new();
        let mut guesses = Vec::new();
        for artist in 0..n_classes * artists {
            // The largest of four uniform numbers.
            let share = (0..4).map(|_| rng.uniform()).fold(0.0, f64::max);
            let class = artist % n_classes;
            for _ in 0..10 {
                let is_right = rng.uniform() < share;
                let other = (class + 1 + rng.below(n_classes - 1)) % n_classes;
                let guess = if is_right { class } else { other };
                guesses.push((artist, class, guess));
            }
        }

        let probabilities: Vec<Vec<f32>> = (0..n_classes)
            .map(|guess| {
                (0..n_classes)
                    .map(|class| f32::from(u8::from(class == guess)))
                    .collect()
            })
            .collect();
        for (track, &(artist, class, guess)) in guesses.iter().enumerate() {
            let row: &[f32] = &probabilities[guess as usize];
            rows.push((track as i64, Some(artist as i64), class as i32, row));
        }
        single(&rows)
    }

    /// The share of 95 % intervals that contain the true macro F1, which is 0.8. Prints the figures of docs/trainer.md.
    #[test]
    fn intervals_of_macro_f1_contain_the_true_value() {
        const REPEATS: usize = 60;
        for (n_classes, artists, least) in [(2, 5, 0.85), (8, 3, 0.85), (8, 10, 0.9)] {
            let mut rng = Rng::new(mix("coverage", &[n_classes, artists]));
            let mut n_hits = 0;
            for repeat in 0..REPEATS {
                let result = bootstrap(&simulated(n_classes, artists, &mut rng), repeat as u64);
                let interval = result.unwrap().unwrap().intervals["macro_f1"];
                n_hits += usize::from(interval.low <= 0.8 && 0.8 <= interval.high);
            }
            let share = n_hits as f64 / REPEATS as f64;
            println!("{n_classes} classes, {artists} artists each: {share:.2} of {REPEATS}");
            assert!(
                share >= least,
                "{n_classes} classes, {artists} artists: {share}"
            );
        }
    }

    #[test]
    fn means_over_classes_of_few_artists_have_no_interval() {
        let mut rng = Rng::new(1);
        let result = bootstrap(&simulated(8, 2, &mut rng), 1).unwrap().unwrap();
        assert_eq!(result.draws.units_per_class, Some(2));
        assert_eq!(result.intervals.keys().collect::<Vec<_>>(), ["accuracy"]);
    }

    #[test]
    fn a_resample_without_a_class_leaves_it_out() {
        // The second class has one artist. Two of its four tracks are predicted as the first class, and no others are
        // wrong.
        let rows: Vec<(i64, Option<i64>, i32, &[f32])> = (0..40)
            .map(|track| match track {
                0..36 => (track, Some(track / 4), 0, YES),
                36 | 37 => (track, Some(9), 1, NO),
                _ => (track, Some(track / 4), 1, YES),
            })
            .collect();
        let predictions = single(&rows);
        let (groups, draws) = groups(&predictions, 1).unwrap();
        let statistic = Statistic::from_predictions(&predictions, &groups, draws.units as usize);

        let mut weights = vec![1; 10];
        weights[9] = 0;
        assert_eq!(statistic.values(&weights)[2], 1.0);
        // With it, two of its four rows are right: F1 is 72/74 for the first class and 4/6 for the second.
        let whole = statistic.values(&[1; 10])[2];
        assert!(
            (whole - (72.0 / 74.0 + 4.0 / 6.0) / 2.0).abs() < 1e-12,
            "{whole}"
        );
    }

    #[test]
    fn one_artist_gives_no_interval() {
        let rows: Vec<_> = (0..9).map(|track| (track, Some(1), 0, YES)).collect();
        assert_eq!(bootstrap(&single(&rows), 0).unwrap(), None);
    }

    #[test]
    fn a_difference_of_equals_is_zero_whatever_the_order_of_rows() {
        let a = coins(4);
        let mut b = a.like();
        (0..a.len()).rev().for_each(|i| b.push(&a.row(i)).unwrap());

        let equal = paired(&a, &b, 5).unwrap().unwrap();
        assert_eq!(
            equal.differences["accuracy"].difference,
            Interval {
                value: 0.0,
                low: 0.0,
                high: 0.0
            }
        );
    }

    #[test]
    fn paired_interval_is_narrower_than_two_intervals() {
        let a = coins(1);

        // `b` has the same errors as `a` and twelve more.
        let wrong =
            |row: &super::super::predictions::Row| row.track_id < 12 || row.probabilities == NO;
        let b: Vec<_> = a
            .rows()
            .map(|row| (row.track_id, None, 0, if wrong(&row) { NO } else { YES }))
            .collect();

        let pair = paired(&a, &single(&b), 5).unwrap().unwrap();
        let accuracy = pair.differences["accuracy"];
        assert!(
            (accuracy.difference.value - 0.03).abs() < 1e-12
                && (accuracy.a - accuracy.b - 0.03).abs() < 1e-12
        );
        assert!(
            accuracy.difference.low > 0.01 && accuracy.difference.high < 0.05,
            "{accuracy:?}"
        );
    }

    #[test]
    fn mismatched_tracks_labels_or_segments_are_named() {
        let a = single(&[(1, None, 0, YES), (2, None, 0, YES)]);

        for (b, want) in [
            (
                single(&[(1, None, 0, YES), (9, None, 0, YES)]),
                "first has 1 (track 2); only the second has 1 (track 9)",
            ),
            (
                single(&[(1, None, 0, YES), (2, None, 1, YES)]),
                "track 2 has another label",
            ),
            (
                single(&[(1, None, 0, YES), (1, None, 0, YES)]),
                "several rows of track 1",
            ),
            (single(&[(1, None, 0, &[0.2, 0.3, 0.5])]), "class"),
        ] {
            let error = paired(&a, &b, 0).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
