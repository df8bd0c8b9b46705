//! Temperature scaling: one number per target by which logits are divided, so that probabilities match frequencies.
//!
//! Source: Guo et al., "On Calibration of Modern Neural Networks" (2017). The likeliest class of a row stays the same.

use super::predictions::{Label, Predictions};

/// Lowest and highest temperature: without a limit, predictions that are all correct would have the temperature 0.
pub const TEMPERATURES: [f64; 2] = [0.05, 20.0];

/// Number of bisections; each halves the interval of the logarithm.
const STEPS: u32 = 40;

impl Predictions {
    /// Returns the temperature T with the lowest log loss of the labelled rows, within [`TEMPERATURES`]; 1 if no row
    /// has a label. With several labels per row, each class counts as a decision with its own log loss.
    pub fn temperature(&self) -> f64 {
        let decisions: Vec<(Vec<f64>, Label)> = self
            .labelled()
            .map(|row| (log_odds(row.probabilities, self.is_multi()), row.label))
            .collect();
        if decisions.is_empty() {
            return 1.0;
        }

        // The log loss is convex in 1 / T, so its minimum is where its derivative changes sign.
        let [mut low, mut high] = TEMPERATURES.map(f64::ln);
        for _ in 0..STEPS {
            let middle = f64::midpoint(low, high);
            let scale = (-middle).exp();
            let slopes = decisions.iter();
            let slope: f64 = slopes
                .map(|(logits, label)| slope(logits, *label, scale))
                .sum();
            if slope > 0.0 {
                low = middle;
            } else {
                high = middle;
            }
        }
        f64::midpoint(low, high).exp()
    }
}

/// Returns logits that give these probabilities by softmax, or each by sigmoid if `multi`.
fn log_odds(probabilities: &[f32], multi: bool) -> Vec<f64> {
    let values = probabilities.iter().map(|&p| {
        let p = f64::from(p);
        if multi {
            // The distance of an f32 below 1 from 1 is at least half of its epsilon.
            let others = (1.0 - p).max(f64::from(f32::EPSILON) / 2.0);
            p.max(f64::from(f32::MIN_POSITIVE)).ln() - others.ln()
        } else {
            p.max(f64::from(f32::MIN_POSITIVE)).ln()
        }
    });
    values.collect()
}

/// Returns the derivative of a row's log loss by `scale`, the factor of its logits.
fn slope(logits: &[f64], label: Label, scale: f64) -> f64 {
    match label {
        Label::Class(class) => {
            let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);

            // The mean of the logits, weighted by the softmax of the scaled logits.
            let mut sum = 0.0;
            let mut weighted = 0.0;
            for &logit in logits {
                let weight = (scale * (logit - max)).exp();
                sum += weight;
                weighted += weight * logit;
            }
            weighted / sum - logits[class]
        }

        Label::Set(set) => {
            let terms = logits.iter().zip(set).map(|(&logit, &is_true)| {
                let probability = 1.0 / (1.0 + (-scale * logit).exp());
                logit * (probability - f64::from(u8::from(is_true)))
            });
            terms.sum()
        }
        Label::Unknown => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use wavemill_schemas::rng::{Rng, mix};

    use super::super::predictions::Row;
    use super::super::predictions::tests::names;
    use super::*;

    /// Draws rows whose labels follow the probabilities of their logits, and whose predictions are those of the logits
    /// times `sharpness`.
    fn drawn(multi: bool, sharpness: f64) -> Predictions {
        let mut rng = Rng::new(mix("temperature", &[u64::from(multi)]));
        let mut all = Predictions::new("genre", &names(4), multi);
        let softmax = |logits: &[f64; 4]| {
            let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
            logits.map(|logit| logit.exp() / sum)
        };
        let sigmoid = |logits: &[f64; 4]| logits.map(|logit| 1.0 / (1.0 + (-logit).exp()));

        for index in 0..4000 {
            let logits = [0; 4].map(|_| rng.uniform_in(-2.0, 2.0));
            let probabilities = |logits: &[f64; 4]| {
                if multi {
                    sigmoid(logits)
                } else {
                    softmax(logits)
                }
            };
            let truth = probabilities(&logits);
            let set = truth.map(|p| rng.uniform_in(0.0, 1.0) < p);
            let mut left = rng.uniform_in(0.0, 1.0);
            let class = truth.iter().position(|p| {
                left -= p;
                left < 0.0
            });
            all.push(&Row {
                index,
                clip_key: "a.mp3",
                segment: 0,
                track_id: index as i64,
                artist_id: None,
                label: if multi {
                    Label::Set(&set)
                } else {
                    Label::Class(class.unwrap_or(3))
                },
                probabilities: &probabilities(&logits.map(|logit| logit * sharpness))
                    .map(|p| p as f32),
            })
            .unwrap();
        }
        all
    }

    #[test]
    fn the_temperature_undoes_a_factor_of_the_logits() {
        for multi in [false, true] {
            for sharpness in [0.5, 1.0, 3.0] {
                let found = drawn(multi, sharpness).temperature();
                assert!(
                    (found / sharpness - 1.0).abs() < 0.08,
                    "{multi} {sharpness}: {found}"
                );
            }
        }
    }

    #[test]
    fn no_other_temperature_has_a_lower_log_loss() {
        let predictions = drawn(false, 2.0);
        let loss = |temperature: f64| -> f64 {
            let losses = predictions.labelled().map(|row| {
                let logits = log_odds(row.probabilities, false);
                let Label::Class(class) = row.label else {
                    panic!("one class a row")
                };
                let sum: f64 = logits.iter().map(|logit| (logit / temperature).exp()).sum();
                sum.ln() - logits[class] / temperature
            });
            losses.sum()
        };
        let best = predictions.temperature();
        for factor in [0.9, 0.999, 1.001, 1.1] {
            assert!(loss(best) < loss(best * factor), "{factor}");
        }
    }

    #[test]
    fn correct_predictions_have_the_lowest_temperature_and_no_rows_have_none() {
        let mut all = Predictions::single("genre", &names(2));
        assert_eq!(all.temperature(), 1.0);
        let row = Row {
            index: 0,
            clip_key: "a.mp3",
            segment: 0,
            track_id: 0,
            artist_id: None,
            label: Label::Class(0),
            probabilities: &[1.0, 0.0],
        };
        all.push(&row).unwrap();
        all.push(&Row {
            index: 1,
            probabilities: &[0.8, 0.2],
            ..row
        })
        .unwrap();
        assert!((all.temperature() - TEMPERATURES[0]).abs() < 1e-6);
    }
}
