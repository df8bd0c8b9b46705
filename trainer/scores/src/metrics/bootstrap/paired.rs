//! Difference between the scores of two models on the same tracks.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use wavemill_schemas::exit::PlainError;

use super::resamples::{column, interval, resample};
use super::{Draws, Interval, NEVER, Statistic, groups};
use crate::metrics::predictions::Predictions;

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
    /// Differences by the name of the score, with the names of [`Bootstrap::intervals`](super::Bootstrap::intervals).
    pub differences: BTreeMap<String, Difference>,
}

/// Computes the difference between two models with the same resamples for both. The difference varies less than the
/// score of either model.
///
/// Both predictions need one row per track (see [`Predictions::per_track_mean`]). Artists are those of `a`. Returns
/// `None` if there is only a single artist or track.
///
/// # Errors
/// [`PlainError`] if the classes differ, if only one of them has some tracks, or if no row has a label.
pub fn paired(a: &Predictions, b: &Predictions, seed: u64) -> Result<Option<Paired>, PlainError> {
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

/// Returns the labelled rows of `b` in the order of those of `a`.
fn aligned(a: &Predictions, b: &Predictions) -> Result<Predictions, PlainError> {
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

/// Creates the error for two predictions with different tracks.
fn other_tracks(reason: String) -> PlainError {
    PlainError::failed(format!("not the same tracks: {reason}"))
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
