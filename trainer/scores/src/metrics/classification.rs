//! Scores of a target with one class per row, following scikit-learn's conventions, in f64.
//!
//! A score with a denominator of 0 is 0 (`zero_division = 0`). Macro means include the classes that occur in labels or
//! predictions; balanced accuracy includes the classes that occur in labels. Both are scikit-learn's defaults. Rows
//! without a label are counted, but not scored.

use std::collections::HashSet;

use wavemill_schemas::exit::PlainError;
use wavemill_schemas::run::{ClassReport, ClassScore, Means, SUPPORTED_TRACKS_MIN};

use super::predictions::{Label, Predictions, likeliest};

/// Number of rows of each class, of rows predicted as the class, and of correctly predicted rows. All averages are
/// computed from these. The bootstrap uses the same code, so that an interval belongs to exactly the score that is
/// shown with it.
#[derive(Clone, Debug)]
pub(super) struct Margins {
    pub support: Vec<u64>,
    pub predicted: Vec<u64>,
    pub hits: Vec<u64>,
}

/// Returns `a / b`, or 0 if b = 0.
fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

/// Returns the mean of several values, or `None` if there are none.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    // Sum sequentially: the order of the additions determines the last bits of the sum.
    let (sum, n) = values.fold((0.0, 0_u64), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / n as f64)
}

impl Margins {
    pub(super) fn new(classes: usize) -> Self {
        Self {
            support: vec![0; classes],
            predicted: vec![0; classes],
            hits: vec![0; classes],
        }
    }

    /// Adds `n` rows of class `truth` that are predicted as class `guess` to the counts.
    pub(super) fn add(&mut self, truth: usize, guess: usize, n: u64) {
        self.support[truth] += n;
        self.predicted[guess] += n;
        self.hits[truth] += if truth == guess { n } else { 0 };
    }

    pub(super) fn precision(&self, class: usize) -> f64 {
        ratio(self.hits[class], self.predicted[class])
    }

    pub(super) fn recall(&self, class: usize) -> f64 {
        ratio(self.hits[class], self.support[class])
    }

    pub(super) fn f1(&self, class: usize) -> f64 {
        // F1 expressed in counts. Its denominator is 0 only if the class does not occur.
        ratio(
            2 * self.hits[class],
            self.support[class] + self.predicted[class],
        )
    }

    /// Returns F1 over the predictions of all classes together, which equals the accuracy for one class per row.
    pub(super) fn f1_micro(&self) -> f64 {
        let hits: u64 = self.hits.iter().sum();
        let support: u64 = self.support.iter().sum();
        let predicted: u64 = self.predicted.iter().sum();
        ratio(2 * hits, support + predicted)
    }

    pub(super) fn accuracy(&self) -> f64 {
        ratio(self.hits.iter().sum(), self.support.iter().sum())
    }

    pub(super) fn balanced_accuracy(&self) -> f64 {
        // Like scikit-learn's `balanced_accuracy_score`, leave out classes without rows.
        let with_support = self.ids().filter(|&class| self.support[class] > 0);
        mean(with_support.map(|class| self.recall(class))).unwrap_or(0.0)
    }

    pub(super) fn macro_f1(&self) -> f64 {
        mean(self.occurring().map(|class| self.f1(class))).unwrap_or(0.0)
    }

    fn ids(&self) -> std::ops::Range<usize> {
        0..self.support.len()
    }

    /// Returns the classes that occur in labels or predictions.
    pub(super) fn occurring(&self) -> impl Iterator<Item = usize> {
        self.ids()
            .filter(|&c| self.support[c] + self.predicted[c] > 0)
    }

    /// Returns precision, recall and F1, averaged with `weight` over the classes that occur.
    fn means(&self, weight: impl Fn(usize) -> f64) -> Means {
        Means {
            precision: self.average(&weight, |class| self.precision(class)),
            recall: self.average(&weight, |class| self.recall(class)),
            f1: self.average(&weight, |class| self.f1(class)),
        }
    }

    /// Returns one score averaged with `weight` over the classes that occur.
    fn average(&self, weight: &impl Fn(usize) -> f64, score: impl Fn(usize) -> f64) -> f64 {
        // The class of a labelled row occurs, so there is at least one class, and the weights of the classes that occur
        // are not all 0.
        let total: f64 = self.occurring().map(weight).sum();
        let weighted = self.occurring().map(|class| weight(class) * score(class));
        weighted.sum::<f64>() / total
    }
}

/// Computes all scores of `predictions`.
///
/// # Errors
/// [`PlainError`] if rows have several labels, or if no row has a label.
pub fn class_report(predictions: &Predictions) -> Result<ClassReport, PlainError> {
    predictions.check_kind(false)?;
    let n_classes = predictions.classes().len();
    let mut margins = Margins::new(n_classes);
    let mut confusion = vec![vec![0_u64; n_classes]; n_classes];
    let mut in_top_3 = 0;
    for row in predictions.labelled() {
        let Label::Class(truth) = row.label else {
            continue;
        };
        let guess = likeliest(row.probabilities);
        margins.add(truth, guess, 1);
        confusion[truth][guess] += 1;
        in_top_3 += u64::from(rank(row.probabilities, truth) < 3);
    }

    let rows: u64 = margins.support.iter().sum();
    if rows == 0 {
        return Err(predictions.no_labels());
    }

    let (tracks, tracks_of) = count_tracks(predictions);
    let supported: Vec<usize> = (0..n_classes)
        .filter(|&class| tracks_of[class] >= SUPPORTED_TRACKS_MIN)
        .collect();
    let classes = predictions.classes().iter().enumerate();
    Ok(ClassReport {
        rows,
        unlabelled: predictions.len() as u64 - rows,
        tracks,
        accuracy: margins.accuracy(),
        balanced_accuracy: margins.balanced_accuracy(),
        // With three classes or fewer, the true class is always among the three likeliest.
        top_3: (n_classes > 3).then(|| ratio(in_top_3, rows)),
        // Use the same function as the bootstrap, so that the score has the same bits as the value of its interval.
        macro_mean: Means {
            f1: margins.macro_f1(),
            ..margins.means(|_| 1.0)
        },
        weighted_mean: margins.means(|c| margins.support[c] as f64),
        macro_f1_supported: mean(supported.iter().map(|&class| margins.f1(class))),
        supported_classes: supported.len() as u64,
        classes: classes
            .map(|(class, name)| margins.score(class, name, tracks_of[class]))
            .collect(),
        confusion,
    })
}

impl Margins {
    fn score(&self, class: usize, name: &str, tracks: u64) -> ClassScore {
        ClassScore {
            name: name.to_owned(),
            support: self.support[class],
            tracks,
            predicted: self.predicted[class],
            never_predicted: self.predicted[class] == 0,
            precision: self.precision(class),
            recall: self.recall(class),
            f1: self.f1(class),
        }
    }
}

/// Returns the rank of class `truth` by probability, starting at 0. Of equal probabilities, the higher id ranks first.
fn rank(probabilities: &[f32], truth: usize) -> usize {
    let own = probabilities[truth];
    probabilities
        .iter()
        .enumerate()
        .filter(|&(class, p)| *p > own || (*p == own && class > truth))
        .count()
}

/// Counts the tracks that have labelled rows: in total, and for each class.
pub(super) fn count_tracks(predictions: &Predictions) -> (u64, Vec<u64>) {
    let mut all = HashSet::new();
    // Count distinct track ids, because a track has several rows (segments).
    let mut of_class: Vec<HashSet<i64>> = vec![HashSet::new(); predictions.classes().len()];
    for row in predictions.labelled() {
        all.insert(row.track_id);
        match row.label {
            Label::Unknown => {}
            Label::Class(class) => {
                of_class[class].insert(row.track_id);
            }
            Label::Set(set) => {
                for (tracks, &holds) in of_class.iter_mut().zip(set) {
                    if holds {
                        tracks.insert(row.track_id);
                    }
                }
            }
        }
    }

    let counts = of_class.iter().map(|tracks| tracks.len() as u64);
    (all.len() as u64, counts.collect())
}

/// Returns the log loss, the mean −ln of the true class's probability, without class weights, so that models trained
/// with different weights are comparable. Probabilities are clamped to ε from 0 and 1, as in scikit-learn's `log_loss`
/// on f64.
///
/// Returns `None` if rows have several labels, or if no row has a label.
pub(super) fn log_loss(predictions: &Predictions) -> Option<f64> {
    let losses = predictions.labelled().filter_map(|row| match row.label {
        Label::Class(class) => {
            let probability = f64::from(row.probabilities[class]);
            Some(-probability.clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln())
        }
        _ => None,
    });
    mean(losses)
}

#[cfg(test)]
mod tests {
    use super::super::predictions::tests::{names, single};
    use super::*;

    fn close(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-12, "{got} is not {want}");
    }

    /// Six labelled rows and one unlabelled row. Class 2 has rows but is never predicted; class 3 has no rows and is
    /// never predicted.
    fn example() -> Predictions {
        single(&[
            (1, None, 0, &[0.7, 0.1, 0.1, 0.1]),
            (2, None, 0, &[0.6, 0.2, 0.1, 0.1]),
            (3, None, 0, &[0.2, 0.6, 0.1, 0.1]),
            (4, None, 1, &[0.1, 0.8, 0.0, 0.1]),
            (5, None, 1, &[0.8, 0.1, 0.05, 0.05]),
            (6, None, 2, &[0.5, 0.3, 0.15, 0.05]),
            (7, None, -1, &[0.0, 0.0, 1.0, 0.0]),
        ])
    }

    #[test]
    fn every_figure_of_a_small_table_by_hand() {
        let report = class_report(&example()).unwrap();
        assert_eq!((report.rows, report.unlabelled, report.tracks), (6, 1, 6));
        assert_eq!(
            report.confusion,
            [[2, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0; 4]]
        );

        close(report.accuracy, 0.5);
        close(report.balanced_accuracy, (2.0 / 3.0 + 0.5 + 0.0) / 3.0);
        close(report.classes[0].precision, 0.5);
        close(report.classes[0].f1, 4.0 / 7.0);
        close(report.macro_mean.precision, (0.5 + 0.5 + 0.0) / 3.0);
        close(report.macro_mean.f1, (4.0 / 7.0 + 0.5 + 0.0) / 3.0);
        close(report.weighted_mean.recall, 0.5);
        close(report.weighted_mean.f1, (3.0 * 4.0 / 7.0 + 2.0 * 0.5) / 6.0);

        assert_eq!(report.macro_f1_supported, None);
    }

    #[test]
    fn a_class_that_is_never_predicted_is_zero_and_marked() {
        let report = class_report(&example()).unwrap();
        let marks: Vec<bool> = report
            .classes
            .iter()
            .map(|class| class.never_predicted)
            .collect();
        assert_eq!(
            marks,
            [false, false, true, true],
            "an unlabelled row is no prediction of class 2"
        );

        let class = &report.classes[2];
        assert_eq!(
            (class.support, class.precision, class.recall, class.f1),
            (1, 0.0, 0.0, 0.0)
        );
    }

    #[test]
    fn top_3_ranks_equal_probabilities_by_the_higher_id_and_is_absent_for_three_classes() {
        assert_eq!(class_report(&example()).unwrap().top_3, Some(1.0));
        let ties = single(&[(1, None, 0, &[0.25; 4]), (2, None, 1, &[0.25; 4])]);
        assert_eq!(class_report(&ties).unwrap().top_3, Some(0.5));
        assert_eq!(
            class_report(&single(&[(1, None, 0, &[0.4, 0.3, 0.3])]))
                .unwrap()
                .top_3,
            None
        );
    }

    #[test]
    fn classes_under_ten_tracks_are_left_out_of_the_supported_macro_f1() {
        let mut rows: Vec<(i64, Option<i64>, i32, &[f32])> = (0..10)
            .map(|track| (track, None, 0, &[0.9_f32, 0.1][..]))
            .collect();

        // Twenty rows of class 1 from nine tracks; half of them are correct.
        rows.extend((0..18).map(|i| {
            (
                20 + i % 9,
                None,
                1,
                if i < 9 {
                    &[0.1_f32, 0.9][..]
                } else {
                    &[0.9_f32, 0.1][..]
                },
            )
        }));

        let report = class_report(&single(&rows)).unwrap();
        assert_eq!(
            (
                report.supported_classes,
                report.classes[1].support,
                report.classes[1].tracks
            ),
            (1, 18, 9)
        );

        close(report.macro_f1_supported.unwrap(), report.classes[0].f1);
        close(report.classes[0].f1, 20.0 / 29.0);
    }

    #[test]
    fn nothing_to_score_is_an_error() {
        let unlabelled = single(&[(1, None, -1, &[0.5, 0.5])]);
        assert_eq!(
            class_report(&unlabelled).unwrap_err().to_string(),
            "target genre: no row has a label"
        );
        let several = Predictions::multi("a", &names(2));
        assert_eq!(
            class_report(&several).unwrap_err().to_string(),
            "target a has several labels per row"
        );
    }

    #[test]
    fn the_log_loss_is_of_the_true_class_and_finite_at_zero() {
        let predictions = single(&[
            (1, None, 0, &[0.5, 0.5]),
            (2, None, 1, &[1.0, 0.0]),
            (3, None, -1, &[0.5, 0.5]),
        ]);
        close(
            log_loss(&predictions).unwrap(),
            (2.0_f64.ln() - f64::EPSILON.ln()) / 2.0,
        );
    }
}
