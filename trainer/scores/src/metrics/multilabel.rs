//! Scores of a target with several labels per row, following scikit-learn's conventions, in f64.
//!
//! Ranking scores (ROC-AUC, average precision) need no threshold; other scores use [`THRESHOLD`]. If all or no rows
//! have a class, its ranking scores are undefined: they are absent and left out of macro means.

use wavemill_schemas::exit::PlainError;
use wavemill_schemas::run::{SetReport, SetScore};

use super::THRESHOLD;
use super::classification::{Margins, count_tracks, mean};
use super::predictions::{Label, Predictions};

/// Rows with and without one class in descending order of score. A bootstrap can weight the rows without sorting them
/// again.
#[derive(Clone, Debug)]
pub(super) struct Ranking {
    /// `group << 2 | k`, where k is 0 for a negative row, else twice the number of positive rows that the entry counts
    /// for. A positive row that ties with a negative row is stored before and after it with k = 1, so that the pair
    /// counts one half; any other positive row is stored once with k = 2.
    entries: Vec<u32>,
    average_precision: Option<f64>,
}

impl Ranking {
    /// Creates a ranking from `(score, positive, group)` of each row.
    pub(super) fn new(mut scores: Vec<(f32, bool, u32)>) -> Self {
        // `total_cmp` sorts 0 above −0, but they are adjacent, so `chunk_by` still treats them as equal scores.
        scores.sort_by(|a, b| b.0.total_cmp(&a.0));

        let mut entries = Vec::with_capacity(scores.len());
        let mut sum = 0.0;
        let mut hits = 0;
        let mut seen = 0;
        for tied in scores.chunk_by(|a, b| a.0 == b.0) {
            let gained = entries_of(tied, true).count();
            // The tied rows are all positive: there are no pairs to count one half.
            if gained == tied.len() {
                entries.extend(entries_of(tied, true).map(|entry| entry | 2));
            } else {
                // Half of each positive row is stored before the negative rows with the same score, and half after
                // them.
                entries.extend(entries_of(tied, true).map(|entry| entry | 1));
                entries.extend(entries_of(tied, false));
                entries.extend(entries_of(tied, true).map(|entry| entry | 1));
            }
            hits += gained;
            seen += tied.len();
            // As `average_precision_score`: precision at this threshold, times the number of positive rows at this
            // score. Equal scores share a threshold.
            sum += gained as f64 * hits as f64 / seen as f64;
        }

        let both = hits > 0 && hits < seen;
        Self {
            entries: if both { entries } else { Vec::new() },
            average_precision: both.then(|| sum / hits as f64),
        }
    }

    /// Computes the area under the ROC curve with the rows of group g weighted by `weights[g]`; returns `None` if all
    /// rows are positive or all are negative.
    ///
    /// The area is the share of correctly ordered pairs, with ties counting one half: Mann and Whitney's U with
    /// midranks. The loop has no branches, because a bootstrap spends most of its time in it.
    pub(super) fn roc_auc(&self, weights: &[u32]) -> Option<f64> {
        let mut doubled_pairs = 0_u64;
        let mut doubled_above = 0_u64;
        let mut negatives = 0_u64;
        for entry in &self.entries {
            let weight = u64::from(weights[(entry >> 2) as usize]);
            let k = u64::from(entry & 3);
            let negative = weight * u64::from(k == 0);
            doubled_above += weight * k;
            doubled_pairs += negative * doubled_above;
            negatives += negative;
        }

        let both = doubled_above > 0 && negatives > 0;
        both.then(|| doubled_pairs as f64 / (doubled_above as f64 * negatives as f64))
    }

    /// Returns the average precision with equal weights of all rows; `None` if all rows are positive or all are
    /// negative.
    pub(super) fn average_precision(&self) -> Option<f64> {
        self.average_precision
    }
}

/// Returns the positive or the negative rows as entries of a [`Ranking`] with k = 0.
fn entries_of(rows: &[(f32, bool, u32)], positive: bool) -> impl Iterator<Item = u32> {
    rows.iter()
        .filter(move |row| row.1 == positive)
        .map(|row| row.2 << 2)
}

/// Returns one ranking per class over the labelled rows, with labelled row i in group `group(i)`.
pub(super) fn rankings(predictions: &Predictions, group: impl Fn(usize) -> u32) -> Vec<Ranking> {
    let mut rankings = Vec::with_capacity(predictions.classes().len());
    for class in 0..predictions.classes().len() {
        let mut scores = Vec::new();
        for (i, row) in predictions.labelled().enumerate() {
            if let Label::Set(set) = row.label {
                scores.push((row.probabilities[class], set[class], group(i)));
            }
        }
        rankings.push(Ranking::new(scores));
    }
    rankings
}

/// Calls `count` for each class with the truth and the prediction of a row, and reports whether all predictions are
/// correct.
pub(super) fn decide(
    probabilities: &[f32],
    set: &[bool],
    mut count: impl FnMut(usize, bool, bool),
) -> bool {
    let mut exact = true;
    for (class, (&p, &truth)) in probabilities.iter().zip(set).enumerate() {
        // A probability equal to the threshold counts as predicted, also in the votes of tracks.
        let guess = p >= THRESHOLD;
        exact &= guess == truth;
        count(class, truth, guess);
    }
    exact
}

/// Computes all scores of `predictions`.
///
/// # Errors
/// [`PlainError`] if rows have one class, or if no row has a label.
pub fn set_report(predictions: &Predictions) -> Result<SetReport, PlainError> {
    predictions.check_kind(true)?;
    let n_classes = predictions.classes().len();
    let mut margins = Margins::new(n_classes);
    let mut rows = 0_u64;
    let mut exact = 0_u64;
    let mut all = Vec::new();
    for row in predictions.labelled() {
        let Label::Set(set) = row.label else { continue };
        rows += 1;
        exact += u64::from(decide(row.probabilities, set, |class, truth, guess| {
            margins.add_decision(class, truth, guess, 1)
        }));
        // For micro scores, each pair of row and class is an entry of one large ranking.
        for (&probability, &truth) in row.probabilities.iter().zip(set) {
            all.push((probability, truth, 0));
        }
    }
    if rows == 0 {
        return Err(predictions.no_labels());
    }

    let (tracks, tracks_of) = count_tracks(predictions);
    // All rows are in one group with weight 1, so that each row counts once.
    let rankings = rankings(predictions, |_| 0);
    let mut classes: Vec<SetScore> = Vec::with_capacity(n_classes);
    for (class, name) in predictions.classes().iter().enumerate() {
        classes.push(margins.set_score(class, name, tracks_of[class], &rankings[class]));
    }

    let all = Ranking::new(all);
    Ok(SetReport {
        rows,
        unlabelled: predictions.len() as u64 - rows,
        tracks,
        roc_auc_macro: mean(classes.iter().filter_map(|class| class.roc_auc)),
        roc_auc_micro: all.roc_auc(&[1]),
        ranked_classes: classes
            .iter()
            .filter(|class| class.roc_auc.is_some())
            .count() as u64,
        average_precision_macro: mean(classes.iter().filter_map(|class| class.average_precision)),
        average_precision_micro: all.average_precision(),
        exact_match: exact as f64 / rows as f64,
        f1_macro: margins.f1_over_all(),
        f1_micro: margins.f1_micro(),
        classes,
    })
}

impl Margins {
    /// Adds `n` rows in which `class` is true (`truth`) or not and is predicted (`guess`) or not.
    pub(super) fn add_decision(&mut self, class: usize, truth: bool, guess: bool, n: u64) {
        self.support[class] += if truth { n } else { 0 };
        self.predicted[class] += if guess { n } else { 0 };
        self.hits[class] += if truth && guess { n } else { 0 };
    }

    /// Returns the mean F1 over all classes, including classes that do not occur.
    pub(super) fn f1_over_all(&self) -> f64 {
        mean((0..self.support.len()).map(|class| self.f1(class))).unwrap_or(0.0)
    }

    fn set_score(&self, class: usize, name: &str, tracks: u64, ranking: &Ranking) -> SetScore {
        SetScore {
            name: name.to_owned(),
            support: self.support[class],
            tracks,
            predicted: self.predicted[class],
            never_predicted: self.predicted[class] == 0,
            roc_auc: ranking.roc_auc(&[1]),
            average_precision: ranking.average_precision(),
            precision: self.precision(class),
            recall: self.recall(class),
            f1: self.f1(class),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::predictions::Row;
    use super::super::predictions::tests::names;
    use super::*;

    /// Returns predictions in which each row has its own track and artist.
    pub(in crate::metrics) fn sets(rows: &[(Option<&[bool]>, &[f32])]) -> Predictions {
        let mut out = Predictions::multi("genres_all", &names(rows[0].1.len()));
        for (i, &(set, probabilities)) in rows.iter().enumerate() {
            let label = set.map_or(Label::Unknown, Label::Set);
            let clip_key = format!("{i}.mp3");
            let row = Row {
                index: i as u64,
                clip_key: &clip_key,
                segment: 0,
                track_id: i as i64,
                artist_id: None,
                label,
                probabilities,
            };
            out.push(&row).unwrap();
        }

        out
    }

    fn close(got: Option<f64>, want: f64) {
        assert!((got.unwrap() - want).abs() < 1e-12, "{got:?} is not {want}");
    }

    fn example() -> Predictions {
        sets(&[
            (Some(&[true, true, false]), &[0.9, 0.2, 0.3]),
            (Some(&[false, true, false]), &[0.6, 0.7, 0.2]),
            (Some(&[true, false, false]), &[0.6, 0.1, 0.1]),
            (Some(&[false, false, false]), &[0.1, 0.4, 0.4]),
            (None, &[1.0, 1.0, 1.0]),
        ])
    }

    #[test]
    fn auc_counts_pairs_in_order_and_ties_by_half() {
        let report = set_report(&example()).unwrap();
        assert_eq!((report.rows, report.unlabelled, report.tracks), (4, 1, 4));

        // Expected ROC-AUC of class 0: .9 beats .6 and .1; .6 ties with .6 and beats .1: (2 + 1.5) / 4.
        close(report.classes[0].roc_auc, 3.5 / 4.0);
        // Expected ROC-AUC of class 1: .7 beats both; .2 beats .1 only.
        close(report.classes[1].roc_auc, 3.0 / 4.0);

        assert_eq!(
            (report.classes[2].roc_auc, report.ranked_classes),
            (None, 2)
        );
        close(report.roc_auc_macro, (3.5 + 3.0) / 8.0);
    }

    #[test]
    fn average_precision_takes_equal_scores_together() {
        let report = set_report(&example()).unwrap();
        // Expected average precision of class 0: at .9 recall ½ with precision 1; at .6 recall 1 with precision 2/3.
        close(report.classes[0].average_precision, 0.5 + 0.5 * 2.0 / 3.0);
        // Expected average precision of class 1: at .7 precision 1; at .2 precision 2/3.
        close(report.classes[1].average_precision, 0.5 + 0.5 * 2.0 / 3.0);
        assert_eq!(report.classes[2].average_precision, None);
    }

    #[test]
    fn decisions_at_one_half_by_hand() {
        let report = set_report(&example()).unwrap();
        // Predicted classes: {0}, {0, 1}, {0}, {}; true classes: {0, 1}, {1}, {0}, {}.
        assert_eq!(report.exact_match, 0.5);
        close(Some(report.classes[0].f1), 4.0 / 5.0);
        close(Some(report.classes[1].f1), 2.0 / 3.0);
        close(Some(report.f1_macro), (4.0 / 5.0 + 2.0 / 3.0) / 3.0);
        close(Some(report.f1_micro), 6.0 / 8.0);
        assert!(report.classes[2].never_predicted && !report.classes[1].never_predicted);
    }

    #[test]
    fn weights_in_a_ranking_are_repeated_rows() {
        let scores = vec![
            (0.9, true, 0),
            (0.5, false, 1),
            (0.5, true, 1),
            (0.3, false, 2),
            (0.2, true, 0),
        ];

        let repeated = scores.iter().flat_map(|&(score, positive, group)| {
            vec![(score, positive, 0); [2, 3, 1][group as usize]]
        });

        let want = Ranking::new(repeated.collect()).roc_auc(&[1]);
        assert_eq!(Ranking::new(scores.clone()).roc_auc(&[2, 3, 1]), want);
        assert_eq!(
            Ranking::new(scores).roc_auc(&[1, 0, 0]),
            None,
            "no negative is left"
        );
    }
}
