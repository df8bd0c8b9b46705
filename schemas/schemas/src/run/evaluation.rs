//! The scores of a target on a split, as stored in `result.json`. Computes no scores.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Leaks, Noun};
use crate::config::Metric;

/// The scores of one target on one split in `result.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The name of the target.
    pub target: String,
    /// Names of the target's classes, in id order.
    pub classes: Vec<String>,
    /// Eight hex digits that identify the classes. Scores over different classes are never shown in one column.
    pub class_set: String,
    /// Mean loss weighted as in training; `None` if it was not computed.
    pub loss: Option<f64>,
    /// Scores of individual rows.
    pub segments: Level,
    /// Scores of tracks, from the mean of the probabilities of a track's rows; `None` if each track has one row.
    pub tracks_mean: Option<Level>,
    /// Scores of tracks, from a vote of a track's rows; `None` if each track has one row.
    pub tracks_majority: Option<Level>,
    /// The split's rule and its leakage, or the overlap of the split with the training tracks of a run on another
    /// version.
    pub leaks: Leaks,
}

impl Evaluation {
    /// Returns the scores of tracks by the mean of their rows' probabilities. If each track has one row, returns the
    /// scores of the rows.
    pub fn tracks(&self) -> &Level {
        self.tracks_mean.as_ref().unwrap_or(&self.segments)
    }
}

/// Scores of individual rows, or of rows aggregated by track.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// The scores of the rows.
    pub report: Report,
    /// Log loss: mean −ln of the true class's probability, unweighted. `None` with several labels per row, and for
    /// majorities, whose values are votes.
    pub log_loss: Option<f64>,
    /// Bootstrap intervals; `None` if there is only a single artist or track.
    pub bootstrap: Option<Bootstrap>,
}

impl Level {
    /// Returns log loss and scores by metric, without those that are undefined.
    pub fn scores(&self) -> BTreeMap<Metric, f64> {
        let mut scores = self.report.scores();
        scores.extend(self.log_loss.map(|loss| (Metric::LogLoss, loss)));
        scores
    }
}

/// Scores of a target, with one or with several labels per row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "labels", rename_all = "lowercase")]
pub enum Report {
    /// Scores of a target with one class per row.
    Single(ClassReport),
    /// Scores of a target with any number of labels per row.
    Multi(SetReport),
}

impl Report {
    /// Returns all defined scores by metric, without losses.
    pub fn scores(&self) -> BTreeMap<Metric, f64> {
        let metrics = Metric::ALL.into_iter();
        metrics
            .filter_map(|metric| Some((metric, self.value(metric)?)))
            .collect()
    }

    /// Returns the value of `metric`; `None` if it is undefined here, or is a loss.
    fn value(&self, metric: Metric) -> Option<f64> {
        match self {
            Self::Single(report) => match metric {
                Metric::Accuracy => Some(report.accuracy),
                Metric::BalancedAccuracy => Some(report.balanced_accuracy),
                Metric::Top3 => report.top_3,
                Metric::MacroF1 => Some(report.macro_mean.f1),
                Metric::MacroPrecision => Some(report.macro_mean.precision),
                Metric::MacroRecall => Some(report.macro_mean.recall),
                Metric::MacroF1Supported => report.macro_f1_supported,
                Metric::WeightedF1 => Some(report.weighted_mean.f1),
                _ => None,
            },

            Self::Multi(report) => match metric {
                Metric::Accuracy => Some(report.exact_match),
                Metric::MacroF1 => Some(report.f1_macro),
                Metric::MicroF1 => Some(report.f1_micro),
                Metric::RocAucMacro => report.roc_auc_macro,
                Metric::RocAucMicro => report.roc_auc_micro,
                Metric::AveragePrecisionMacro => report.average_precision_macro,
                Metric::AveragePrecisionMicro => report.average_precision_micro,
                _ => None,
            },
        }
    }
}

/// Minimum number of tracks of a class for its F1 to be included in [`ClassReport::macro_f1_supported`].
pub const SUPPORTED_TRACKS_MIN: u64 = 10;

/// Means of precision, recall and F1 over classes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Means {
    /// Mean precision: the share of rows predicted as a class that belong to it.
    pub precision: f64,
    /// Mean recall: the share of rows of a class that are predicted as the class.
    pub recall: f64,
    /// Mean F1: the harmonic mean of precision and recall, computed per class and then averaged.
    pub f1: f64,
}

/// Scores of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// The name of the class.
    pub name: String,
    /// Number of labelled rows of the class.
    pub support: u64,
    /// Number of labelled tracks of the class.
    pub tracks: u64,
    /// Number of rows predicted as the class.
    pub predicted: u64,
    /// True if no row was predicted as the class. Precision and F1 are then 0 by convention, not by measurement.
    pub never_predicted: bool,
    /// Precision; 0 if the class was never predicted.
    pub precision: f64,
    /// Recall; 0 if the class has no rows.
    pub recall: f64,
    /// F1; 0 if no prediction of the class is correct.
    pub f1: f64,
}

/// All scores of a target with one class per row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassReport {
    /// Number of labelled rows.
    pub rows: u64,
    /// Number of unlabelled rows, which are not scored.
    pub unlabelled: u64,
    /// Number of tracks that have labelled rows.
    pub tracks: u64,
    /// Share of rows whose likeliest class is true; of equal probabilities, the lowest id is the likeliest.
    pub accuracy: f64,
    /// Mean recall over the classes that have rows.
    pub balanced_accuracy: f64,
    /// Share of rows whose class is among the three likeliest. If probabilities are equal, the higher id ranks first,
    /// as in `top_k_accuracy_score`. `None` for three classes or fewer, where the score is meaningless.
    pub top_3: Option<f64>,
    /// Unweighted means over classes that occur in labels or predictions.
    pub macro_mean: Means,
    /// Means over classes, weighted by their number of rows.
    pub weighted_mean: Means,
    /// Macro F1 over classes with at least [`SUPPORTED_TRACKS_MIN`] tracks; `None` if there is no such class.
    pub macro_f1_supported: Option<f64>,
    /// Number of classes with at least [`SUPPORTED_TRACKS_MIN`] tracks.
    pub supported_classes: u64,
    /// Scores of each class, in id order.
    pub classes: Vec<ClassScore>,
    /// Number of rows by true class, then by predicted class.
    pub confusion: Vec<Vec<u64>>,
}

impl ClassReport {
    /// Returns the wrong class that was predicted most often for rows of the class at `place`, with the number of these
    /// rows. If several classes have the same number, it is the first of them.
    pub fn most_confused_with(&self, place: usize) -> Option<(&ClassScore, u64)> {
        let guesses = self.classes.iter().zip(&self.confusion[place]).enumerate();
        let wrong = guesses.filter(|(guess, (_, n))| *guess != place && **n > 0);
        let most = wrong.rev().max_by_key(|(_, (_, n))| **n);
        most.map(|(_, (class, n))| (class, *n))
    }
}

/// Scores of one class of a multi-label target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetScore {
    /// The name of the class.
    pub name: String,
    /// Number of rows that have the class.
    pub support: u64,
    /// Number of tracks that have the class.
    pub tracks: u64,
    /// Number of rows for which the class is predicted.
    pub predicted: u64,
    /// True if the class is never predicted. Precision and F1 are then 0 by convention, not by measurement.
    pub never_predicted: bool,
    /// ROC-AUC: probability that a row with the class is ranked above a row without it (ties count one half). `None` if
    /// all or no rows have the class.
    pub roc_auc: Option<f64>,
    /// Average precision: Σ (recall gained) · precision over falling thresholds. `None` if all or no rows have the
    /// class.
    pub average_precision: Option<f64>,
    /// Precision; 0 if the class is never predicted.
    pub precision: f64,
    /// Recall; 0 if the class has no rows.
    pub recall: f64,
    /// F1; 0 if no prediction of the class is correct.
    pub f1: f64,
}

/// All scores of a multi-label target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetReport {
    /// Number of labelled rows.
    pub rows: u64,
    /// Number of unlabelled rows, which are not scored.
    pub unlabelled: u64,
    /// Number of tracks that have labelled rows.
    pub tracks: u64,
    /// Mean ROC-AUC over the classes that have a ROC-AUC.
    pub roc_auc_macro: Option<f64>,
    /// ROC-AUC of all decisions (pairs of row and class) in one ranking.
    pub roc_auc_micro: Option<f64>,
    /// Number of classes that have ranking scores.
    pub ranked_classes: u64,
    /// Mean average precision over the classes that have one.
    pub average_precision_macro: Option<f64>,
    /// Average precision of all decisions (pairs of row and class) in one ranking.
    pub average_precision_micro: Option<f64>,
    /// Share of rows whose labels are all correct.
    pub exact_match: f64,
    /// Mean F1 over all classes.
    pub f1_macro: f64,
    /// F1 over all decisions (pairs of row and class) together.
    pub f1_micro: f64,
    /// Scores of each class, in id order.
    pub classes: Vec<SetScore>,
}

/// Minimum of [`Draws::units_per_class`] for intervals of means over classes. The test
/// `intervals_of_macro_f1_contain_the_true_value` of wavemill-scores simulates how often an interval contains the true
/// macro F1: nearly as often as stated from three artists per class on. With one, it would in half of the cases (2
/// classes) to four fifths (8 classes).
pub const UNITS_PER_CLASS_MIN: u64 = 3;

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
    /// Number of resamples.
    pub resamples: u64,
    /// The seed from which resamples are drawn.
    pub seed: u64,
}

impl Draws {
    /// Reports whether at least half of the classes have so few units that means over classes have no intervals.
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
            "no intervals for means over classes, because at least half of the classes have fewer than {UNITS_PER_CLASS_MIN} {units}"
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
