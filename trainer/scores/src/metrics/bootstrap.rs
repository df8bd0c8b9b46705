//! 95 % bootstrap intervals of scores, and of the difference between two models on the same tracks. Whole artists (or
//! tracks) are resampled, never segments.
//!
//! Segments of a track, and usually tracks of an artist, are not independent: resampling single segments or tracks
//! gives intervals that are too narrow. A resample depends only on the seed and its number, and not on the number of
//! threads. Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), percentile intervals.
//!
//! A resample may lose all rows of a class. Means over classes then leave out that class, about which the resample says
//! nothing; F1 of 0 would make the interval too low. With few artists per class, an interval of such a mean would
//! nevertheless contain the true value too rarely, and none is given (see [`Draws::has_small_classes`]).

mod paired;
mod resamples;
mod statistic;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;

use wavemill_schemas::exit::PlainError;
use wavemill_schemas::run::{Bootstrap, Draws, Interval, Unit};

use super::predictions::Predictions;
pub use paired::{Difference, Paired, paired};
use resamples::{column, interval, resample};
use statistic::{CLASS_FIGURES, Statistic};

/// Number of resamples for a bootstrap interval.
const RESAMPLES: usize = 2000;

/// The flag of computations that nothing stops.
static NEVER: AtomicBool = AtomicBool::new(false);

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

/// Computes the bootstrap intervals of `predictions`; returns `None` if there is only a single artist or track, which
/// cannot be resampled.
///
/// # Errors
/// [`PlainError`] if no row has a label, or if `stop` becomes true.
pub(super) fn bootstrap(
    predictions: &Predictions,
    seed: u64,
    stop: &AtomicBool,
) -> Result<Option<Bootstrap>, PlainError> {
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
/// [`PlainError`] if rows have several labels, or if no row has a label.
pub fn class_intervals(
    predictions: &Predictions,
    seed: u64,
) -> Result<Option<ClassIntervals>, PlainError> {
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

/// Returns the index of each labelled row's unit (artist or track), and a description of the units.
fn groups(predictions: &Predictions, seed: u64) -> Result<(Vec<u32>, Draws), PlainError> {
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
