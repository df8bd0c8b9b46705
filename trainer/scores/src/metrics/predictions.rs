//! A model's predictions for the rows of a split, with the true labels: the only input of every score.
//!
//! Rows are validated when they are added, so scores are never computed from a non-finite probability or an invalid
//! label.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use wavemill_schemas::exit::PlainError;

use super::THRESHOLD;

/// The label of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label<'a> {
    /// The label is unknown: the row has a prediction but is not scored.
    Unknown,
    /// The id of the only class of the row.
    Class(usize),
    /// Several labels per row: for each class, in class order, whether it is true.
    Set(&'a [bool]),
}

/// A row of a split with its prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row<'a> {
    /// Index of the row in the split's order, starting at 0; unique over all ranks.
    pub index: u64,
    /// The key of the row's clip.
    pub clip_key: &'a str,
    /// The index of the segment within the clip.
    pub segment: i32,
    /// The id of the row's track.
    pub track_id: i64,
    /// The id of the row's artist, if known.
    pub artist_id: Option<i64>,
    /// The true label.
    pub label: Label<'a>,
    /// Probabilities of the classes, in class order.
    pub probabilities: &'a [f32],
}

/// The predictions for one target over the rows of a split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    pub(super) target: String,
    pub(super) classes: Vec<String>,
    pub(super) multi: bool,
    pub(super) indices: Vec<u64>,
    pub(super) clip_keys: Vec<String>,
    pub(super) segments: Vec<i32>,
    pub(super) track_ids: Vec<i64>,
    pub(super) artist_ids: Vec<Option<i64>>,
    /// Class id of each row, −1 for unknown; 0 if the row has a set of labels.
    pub(super) labels: Vec<i32>,
    /// True for each class that a row has, `[n, classes]`; empty if rows have one class.
    pub(super) sets: Vec<bool>,
    /// Probabilities, `[n, classes]`, row-major.
    pub(super) probabilities: Vec<f32>,
    /// Σ weight · loss and Σ weight over the rows.
    #[serde(skip)]
    pub(super) loss: [f64; 2],
}

impl Predictions {
    /// Creates an empty collection for a target whose rows have one class each.
    pub fn single(target: &str, classes: &[String]) -> Self {
        Self::new(target, classes, false)
    }

    /// Creates an empty collection for a target whose rows have any number of labels.
    pub fn multi(target: &str, classes: &[String]) -> Self {
        Self::new(target, classes, true)
    }

    /// Creates an empty collection for a target whose rows have any number of labels if `multi` is true, otherwise one
    /// class.
    pub fn new(target: &str, classes: &[String], multi: bool) -> Self {
        Self {
            target: target.to_owned(),
            classes: classes.to_vec(),
            multi,
            ..Self::default()
        }
    }

    /// Creates an empty collection for the same target and classes.
    pub(super) fn like(&self) -> Self {
        Self::new(&self.target, &self.classes, self.multi)
    }

    /// Adds the prediction of a row.
    ///
    /// # Errors
    /// [`PlainError`] if a probability is missing or not finite, or if the label is invalid.
    pub fn push(&mut self, row: &Row) -> Result<(), PlainError> {
        let n_classes = self.classes.len();
        if row.probabilities.len() != n_classes {
            let n = row.probabilities.len();
            return Err(self.refused(row, format!("{n} probabilities for {n_classes} classes")));
        }
        if let Some(at) = row.probabilities.iter().position(|p| !p.is_finite()) {
            let name = &self.classes[at];
            let p = row.probabilities[at];
            return Err(self.refused(row, format!("probability of class {name} is {p}")));
        }
        // `multi` determines how labels are stored, so a label of the other kind is rejected.
        let (label, set) = match row.label {
            Label::Unknown => (-1, &[][..]),
            Label::Class(class) if !self.multi && class < n_classes => (class as i32, &[][..]),
            Label::Set(set) if self.multi && set.len() == n_classes => (0, set),
            other => {
                let reason = format!("label {other:?} is not one of its {n_classes} classes");
                return Err(self.refused(row, reason));
            }
        };

        if self.multi {
            // In a multi-label target, a row with an unknown label gets an empty set.
            self.sets.extend_from_slice(set);
            self.sets.resize((self.labels.len() + 1) * n_classes, false);
        }
        self.labels.push(label);
        self.indices.push(row.index);
        self.clip_keys.push(row.clip_key.to_owned());
        self.segments.push(row.segment);
        self.track_ids.push(row.track_id);
        self.artist_ids.push(row.artist_id);
        self.probabilities.extend_from_slice(row.probabilities);
        Ok(())
    }

    fn refused(&self, row: &Row, reason: String) -> PlainError {
        PlainError::failed(format!(
            "{}, segment {}, target {}: {reason}",
            row.clip_key, row.segment, self.target
        ))
    }

    /// Adds Σ weight · loss and Σ weight of a batch.
    pub fn add_loss(&mut self, weighted: f64, weight: f64) {
        self.loss[0] += weighted;
        self.loss[1] += weight;
    }

    /// Returns Σ weight · loss and Σ weight over all batches.
    pub fn loss_sums(&self) -> [f64; 2] {
        self.loss
    }

    /// Returns the mean loss weighted as in training; `None` if the total weight is 0 or the sum is not finite.
    pub fn loss(&self) -> Option<f64> {
        let [weighted, weight] = self.loss;
        (weight > 0.0 && weighted.is_finite()).then(|| weighted / weight)
    }

    /// Returns the name of the target.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Returns the names of the classes, in id order.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Reports whether a row may have several labels.
    pub fn is_multi(&self) -> bool {
        self.multi
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Reports whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Returns the row at index `i`.
    ///
    /// # Panics
    /// If `i` is out of bounds.
    pub fn row(&self, i: usize) -> Row<'_> {
        let cells = i * self.classes.len()..(i + 1) * self.classes.len();
        // In a multi-label target, 0 means that the row's set of labels is known; it may be empty.
        let label = match self.labels[i] {
            -1 => Label::Unknown,
            _ if self.multi => Label::Set(&self.sets[cells.clone()]),
            class => Label::Class(class as usize),
        };
        Row {
            index: self.indices[i],
            clip_key: &self.clip_keys[i],
            segment: self.segments[i],
            track_id: self.track_ids[i],
            artist_id: self.artist_ids[i],
            label,
            probabilities: &self.probabilities[cells],
        }
    }

    /// Returns all rows in the order in which they were added.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.len()).map(|i| self.row(i))
    }

    /// Returns the rows with a known label, in the order in which they were added.
    pub fn labelled(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows().filter(|row| row.label != Label::Unknown)
    }

    /// Reports whether any track has more than one row, so that tracks and segments are scored separately.
    pub(super) fn has_segments(&self) -> bool {
        self.tracks().iter().any(|rows| rows.len() > 1)
    }

    /// Returns the indices of the rows of each track. Tracks are in the order of their first row.
    fn tracks(&self) -> Vec<Vec<usize>> {
        // The hash map is only used to look up a track's index, so the order of tracks does not depend on hashing.
        let mut place = HashMap::new();
        let mut tracks: Vec<Vec<usize>> = Vec::new();
        for (i, track_id) in self.track_ids.iter().enumerate() {
            let at = *place.entry(track_id).or_insert(tracks.len());
            if at == tracks.len() {
                tracks.push(Vec::new());
            }
            tracks[at].push(i);
        }
        tracks
    }

    /// Returns the mean of the probabilities of several models for the same rows, summed in f64. A mean has no loss.
    ///
    /// # Errors
    /// [`PlainError`] if classes or rows of `others` differ.
    pub fn ensemble(&self, others: &[Self]) -> Result<Self, PlainError> {
        for other in others {
            self.check_same_classes(other)?;
            if self.clip_keys != other.clip_keys || self.segments != other.segments {
                let message = format!(
                    "target {}: the runs predict different rows, so they have no mean: they need features with the same \
                     clips and segments",
                    self.target
                );
                return Err(PlainError::failed(message));
            }
        }

        let mut mean = self.clone();
        mean.loss = [0.0; 2];
        let n = (others.len() + 1) as f64;
        for (i, value) in mean.probabilities.iter_mut().enumerate() {
            let others = others.iter().map(|other| f64::from(other.probabilities[i]));
            *value = ((f64::from(*value) + others.sum::<f64>()) / n) as f32;
        }
        Ok(mean)
    }

    /// Returns one prediction per track: the mean of the probabilities of the track's rows, summed in f64.
    ///
    /// # Errors
    /// [`PlainError`] if the rows of a track have different labels.
    pub fn per_track_mean(&self) -> Result<Self, PlainError> {
        self.per_track(|sum, _, n| sum / n)
    }

    /// Returns one prediction per track by a vote of the track's rows: each votes for its likeliest class (or, with
    /// several labels per row, for every class from 0.5). Ties go to the class with the higher mean
    /// probability, then to the lower class id.
    ///
    /// The value of a class is (votes + mean probability) / (rows + 1), so that values are ordered by votes, then by
    /// mean probabilities. The values of a track sum to 1 if the probabilities of each row do.
    ///
    /// # Errors
    /// [`PlainError`] if the rows of a track have different labels.
    pub fn per_track_majority(&self) -> Result<Self, PlainError> {
        self.per_track(|sum, votes, n| (votes + sum / n) / (n + 1.0))
    }

    /// Returns one prediction per track. `value` computes that of a class from the sum of its probabilities, its votes
    /// and the number of rows.
    fn per_track(&self, value: fn(f64, f64, f64) -> f64) -> Result<Self, PlainError> {
        let mut out = self.like();
        for rows in self.tracks() {
            let first = self.row(rows[0]);
            // A track gets a single prediction, so its rows must have the same label.
            if rows.iter().any(|&i| self.row(i).label != first.label) {
                let message = format!(
                    "target {}: rows of track {} are labelled in different ways",
                    self.target, first.track_id
                );
                return Err(PlainError::failed(message));
            }

            // Sum in f64 to avoid rounding errors over the many segments of a track.
            let mut sums = vec![0.0_f64; self.classes.len()];
            let mut votes = sums.clone();
            for &i in &rows {
                let probabilities = self.row(i).probabilities;
                for (sum, &p) in sums.iter_mut().zip(probabilities) {
                    *sum += f64::from(p);
                }
                self.vote(probabilities, &mut votes);
            }

            let n = rows.len() as f64;
            let values = sums.iter().zip(&votes);
            let probabilities: Vec<f32> = values
                .map(|(&sum, &votes)| value(sum, votes, n) as f32)
                .collect();
            out.push(&Row {
                probabilities: &probabilities,
                ..first
            })?;
        }
        Ok(out)
    }

    /// Adds the vote of a row for each class.
    fn vote(&self, probabilities: &[f32], votes: &mut [f64]) {
        if self.multi {
            for (vote, &p) in votes.iter_mut().zip(probabilities) {
                if p >= THRESHOLD {
                    *vote += 1.0;
                }
            }
        } else if !votes.is_empty() {
            votes[likeliest(probabilities)] += 1.0;
        }
    }
}

/// Returns the class with the highest probability. Of equal probabilities, the lowest id is returned; 0 if there are no
/// classes.
pub fn likeliest(probabilities: &[f32]) -> usize {
    let mut best = 0;
    for (class, p) in probabilities.iter().enumerate() {
        // `>` keeps the first of equal values, like numpy's `argmax`.
        if *p > probabilities[best] {
            best = class;
        }
    }
    best
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns `n` class names.
    pub(in crate::metrics) fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("class {i}")).collect()
    }

    /// Returns predictions for rows given as `(track, artist, label, probabilities)`; label −1 means unknown.
    pub(in crate::metrics) fn single(rows: &[(i64, Option<i64>, i32, &[f32])]) -> Predictions {
        let mut out = Predictions::single("genre", &names(rows[0].3.len()));
        for (i, &(track_id, artist_id, label, probabilities)) in rows.iter().enumerate() {
            let label = if label < 0 {
                Label::Unknown
            } else {
                Label::Class(label as usize)
            };

            let clip_key = format!("{track_id}.mp3");
            let row = Row {
                index: i as u64,
                clip_key: &clip_key,
                segment: 0,
                track_id,
                artist_id,
                label,
                probabilities,
            };
            out.push(&row).unwrap();
        }

        out
    }

    #[test]
    fn the_mean_and_the_majority_of_a_track_can_differ() {
        let rows: &[(i64, Option<i64>, i32, &[f32])] = &[
            (1, None, 0, &[0.9, 0.1, 0.0]),
            (1, None, 0, &[0.4, 0.6, 0.0]),
            (2, None, 1, &[0.2, 0.2, 0.6]),
            (1, None, 0, &[0.4, 0.6, 0.0]),
        ];

        let predictions = single(rows);
        let mean = predictions.per_track_mean().unwrap();
        assert_eq!(
            (mean.len(), mean.row(0).track_id, mean.row(1).track_id),
            (2, 1, 2)
        );
        assert_eq!(likeliest(mean.row(0).probabilities), 0);
        assert!((mean.row(0).probabilities[0] - 1.7 / 3.0).abs() < 1e-6);

        let majority = predictions.per_track_majority().unwrap();
        assert_eq!(likeliest(majority.row(0).probabilities), 1);
        assert!((majority.row(0).probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-6);

        assert!(predictions.has_segments() && !mean.has_segments());
    }

    #[test]
    fn equal_votes_go_to_the_higher_mean_then_to_the_lower_class() {
        for votes in [
            [[0.5, 0.3, 0.2], [0.0, 0.9, 0.1]],
            [[0.0, 0.25, 0.75], [0.0, 0.75, 0.25]],
        ] {
            let rows = [(1, None, 0, &votes[0][..]), (1, None, 0, &votes[1])];
            let majority = single(&rows).per_track_majority().unwrap();
            assert_eq!(likeliest(majority.row(0).probabilities), 1, "{votes:?}");
        }
    }

    #[test]
    fn multilabel_votes_need_half_of_the_rows_and_the_mean() {
        let mut predictions = Predictions::multi("genres_all", &names(2));
        for (index, probabilities) in [[0.9, 0.45], [0.2, 0.5]].iter().enumerate() {
            let label = Label::Set(&[true, false]);
            let row = Row {
                index: index as u64,
                clip_key: "a",
                segment: index as i32,
                track_id: 1,
                artist_id: None,
                label,
                probabilities,
            };
            predictions.push(&row).unwrap();
        }

        let majority = predictions.per_track_majority().unwrap();
        let kept: Vec<bool> = majority
            .row(0)
            .probabilities
            .iter()
            .map(|&p| p >= 0.5)
            .collect();
        assert_eq!(
            kept,
            [true, false],
            "one vote each; the means are 0.55 and 0.475"
        );
    }

    #[test]
    fn invalid_row_error_names_the_clip() {
        fn text(row: Row<'_>) -> String {
            let mut predictions = Predictions::single("genre", &names(2));
            predictions.push(&row).unwrap_err().to_string()
        }

        let mut predictions = Predictions::single("genre", &names(2));
        let row = Row {
            index: 0,
            clip_key: "000/7.mp3",
            segment: 3,
            track_id: 7,
            artist_id: None,
            label: Label::Unknown,
            probabilities: &[0.5, 0.5],
        };

        let with_label = |label| Row { label, ..row };
        let with = |probabilities| Row {
            probabilities,
            ..row
        };
        for (row, said) in [
            (with(&[0.5, f32::NAN][..]), "000/7.mp3, segment 3"),
            (with(&[0.5]), "1 probabilities for 2 classes"),
            (with_label(Label::Class(2)), "Class(2)"),
            (with_label(Label::Set(&[true, true])), "Set"),
        ] {
            let text = text(row);
            assert!(text.contains(said), "{text}");
        }

        predictions.push(&row).unwrap();
        assert_eq!((predictions.len(), predictions.labelled().count()), (1, 0));
    }

    #[test]
    fn track_with_two_labels_is_an_error() {
        let predictions = single(&[(5, None, 0, &[1.0, 0.0]), (5, None, 1, &[1.0, 0.0])]);
        let error = predictions.per_track_mean().unwrap_err().to_string();
        assert!(error.contains("track 5"), "{error}");
    }

    #[test]
    fn the_loss_is_the_weighted_mean_or_none() {
        let mut predictions = Predictions::single("genre", &names(2));
        assert_eq!(predictions.loss(), None);
        predictions.add_loss(3.0, 2.0);
        predictions.add_loss(1.0, 2.0);
        assert_eq!(predictions.loss(), Some(1.0));
    }

    #[test]
    fn an_ensemble_is_the_mean_of_equal_rows() {
        let [a, b] = [[0.9, 0.1], [0.5, 0.5]].map(|probabilities| {
            let mut all = single(&[(1, Some(1), 0, &probabilities)]);
            all.add_loss(1.0, 1.0);
            all
        });
        let mean = a.ensemble(&[b.clone(), b.clone()]).unwrap();
        for (got, want) in mean.row(0).probabilities.iter().zip([1.9 / 3.0, 1.1 / 3.0]) {
            assert!((got - want).abs() < 1e-7, "{got}");
        }
        assert_eq!((mean.loss(), mean.row(0).label), (None, Label::Class(0)));

        let mut more = b;
        more.push(&Row {
            clip_key: "other.mp3",
            ..mean.row(0)
        })
        .unwrap();
        let error = a.ensemble(&[more]).unwrap_err().to_string();
        assert!(error.contains("different rows"), "{error}");
    }
}
