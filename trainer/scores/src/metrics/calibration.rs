//! Calibration of a model's probabilities: are 80 % of the rows predicted with a confidence of 80 % correct?
//!
//! Rows are divided into bins by the probability of their likeliest class. In each bin, the share of correct rows is
//! compared with the mean of this probability. Source: Guo et al., "On Calibration of Modern Neural Networks" (2017),
//! section 2: the reliability diagram, the expected calibration error (equation 3) and the maximum calibration error
//! (equation 5), also with 15 bins.

use serde::Serialize;
use wavemill_schemas::exit::PlainError;

use super::predictions::{Label, Predictions, likeliest};

/// Number of bins of equal width for probabilities from 0 to 1.
pub const CALIBRATION_BINS: usize = 15;

/// Bin of the rows whose likeliest class has a probability above `m / 15` and up to `(m + 1) / 15`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CalibrationBin {
    /// Number of rows in the bin.
    pub rows: u64,
    /// Mean probability of the likeliest class over the rows of the bin; 0 without rows.
    pub confidence: f64,
    /// Share of the bin's rows whose likeliest class is true; 0 without rows.
    pub accuracy: f64,
}

/// The calibration of probabilities over a set of rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// Number of labelled rows.
    pub rows: u64,
    /// Expected calibration error: mean distance between confidence and accuracy over the bins, weighted by their rows.
    pub expected_error: f64,
    /// Maximum calibration error: the largest distance between confidence and accuracy in a bin that has rows.
    pub largest_error: f64,
    /// Mean confidence minus accuracy over all rows; positive if the model is overconfident.
    pub overconfidence: f64,
    /// [`CALIBRATION_BINS`] bins, from low to high confidence.
    pub bins: Vec<CalibrationBin>,
}

impl Calibration {
    /// Computes the calibration of `predictions`.
    ///
    /// # Errors
    /// [`PlainError`] if rows have several labels, or if no row has a label.
    pub fn from_predictions(predictions: &Predictions) -> Result<Self, PlainError> {
        predictions.check_kind(false)?;

        // Of each bin: number of rows, number of correct rows, and sum of the probabilities of the likeliest classes.
        let mut sums = [(0_u64, 0_u64, 0.0_f64); CALIBRATION_BINS];
        for row in predictions.labelled() {
            let Label::Class(truth) = row.label else {
                continue;
            };
            let guess = likeliest(row.probabilities);
            let confidence = f64::from(row.probabilities[guess]);
            let (rows, right, sum) = &mut sums[bin_of(confidence)];
            *rows += 1;
            *right += u64::from(truth == guess);
            *sum += confidence;
        }
        let rows: u64 = sums.iter().map(|(rows, ..)| rows).sum();
        if rows == 0 {
            return Err(predictions.no_labels());
        }

        let mut calibration = Self {
            rows,
            expected_error: 0.0,
            largest_error: 0.0,
            overconfidence: 0.0,
            bins: Vec::with_capacity(CALIBRATION_BINS),
        };
        for (in_bin, right, sum) in sums {
            calibration.add(in_bin, right, sum);
        }
        Ok(calibration)
    }

    /// Appends the next bin from its number of rows, number of correct rows and sum of probabilities.
    fn add(&mut self, rows: u64, right: u64, sum: f64) {
        if rows == 0 {
            self.bins.push(CalibrationBin::default());
            return;
        }
        let bin = CalibrationBin {
            rows,
            confidence: sum / rows as f64,
            accuracy: right as f64 / rows as f64,
        };
        let distance = bin.confidence - bin.accuracy;
        let share = rows as f64 / self.rows as f64;
        self.expected_error += share * distance.abs();
        self.largest_error = self.largest_error.max(distance.abs());
        self.overconfidence += share * distance;
        self.bins.push(bin);
    }
}

/// Returns the index of the bin of a probability.
fn bin_of(confidence: f64) -> usize {
    // Rounding may give a probability above 1, which belongs to the last bin.
    let above = (confidence * CALIBRATION_BINS as f64).ceil() as usize;
    above.saturating_sub(1).min(CALIBRATION_BINS - 1)
}

#[cfg(test)]
mod tests {
    use super::super::multilabel::tests::sets;
    use super::super::predictions::tests::single;
    use super::*;

    #[test]
    fn calibration_matches_manual_computation() {
        let predictions = single(&[
            (1, None, 0, &[0.75, 0.25]),
            (2, None, 1, &[0.75, 0.25]),
            (3, None, 1, &[0.0, 1.0]),
            (4, None, 0, &[0.0, 1.0]),
            (5, None, 1, &[0.0, 1.0]),
            (6, None, 1, &[0.0, 1.0]),
            (7, None, -1, &[1.0, 0.0]),
        ]);

        let calibration = Calibration::from_predictions(&predictions).unwrap();
        assert_eq!((calibration.rows, calibration.bins.len()), (6, 15));

        // A probability of 0.75 is in the twelfth bin: 0.75 · 15 = 11.25.
        for (at, rows, confidence, accuracy) in [(11, 2, 0.75, 0.5), (14, 4, 1.0, 0.75)] {
            let want = CalibrationBin {
                rows,
                confidence,
                accuracy,
            };
            assert_eq!(calibration.bins[at], want);
        }
        assert_eq!(calibration.bins[0], CalibrationBin::default());

        for value in [
            calibration.expected_error,
            calibration.largest_error,
            calibration.overconfidence,
        ] {
            assert!((value - 0.25).abs() < 1e-12, "{calibration:?}");
        }
    }

    #[test]
    fn ends_of_bins_belong_to_the_lower_one() {
        assert_eq!(bin_of(0.0), 0);
        assert_eq!(bin_of(1.0 / 15.0), 0);
        assert_eq!(bin_of(0.2), 2);
        assert_eq!(bin_of(0.200_001), 3);
        assert_eq!(bin_of(1.0), 14);
        assert_eq!(bin_of(1.000_000_2), 14);
    }

    #[test]
    fn calibration_requires_single_labels() {
        let unknown = single(&[(1, None, -1, &[0.5, 0.5])]);
        assert_eq!(
            Calibration::from_predictions(&unknown)
                .unwrap_err()
                .to_string(),
            "target genre: no row has a label"
        );

        let several = sets(&[(Some(&[true, false]), &[0.9, 0.1])]);
        assert_eq!(
            Calibration::from_predictions(&several)
                .unwrap_err()
                .to_string(),
            "target genres_all has several labels per row"
        );
    }
}
