//! The training loss: Σ weight · loss over the rows of all ranks, divided by Σ weight over the same rows.
//!
//! The two sums are returned separately, because a rank may have only a part of the batch's rows. On one rank, their
//! quotient is torch's `CrossEntropyLoss` with class weights and label smoothing. This module neither averages over
//! targets nor mixes features (see [`crate::mixup`]).

use tch::{Device, Kind, Reduction, Tensor};
use wavemill_schemas::config;

use crate::ffi;

/// Settings of the loss of one target.
#[derive(Debug)]
pub struct TargetLoss {
    /// Weights of the classes, `[classes]`, as returned by [`balanced_weights`]; all 1 if absent. Not used with several
    /// labels per row.
    pub class_weights: Option<Tensor>,
    /// Weights of the positive labels of each class, `[classes]`, as returned by [`positive_weights`]; all 1 if absent.
    /// Only used with several labels per row.
    pub pos_weights: Option<Tensor>,
    /// True if a row has several labels.
    pub multi_label: bool,
}

/// Labels of the mix-up partners of a batch's rows.
#[derive(Debug)]
pub struct MixedLabels {
    /// Labels of the partners for each target, in the same form as the labels of the rows.
    pub labels: Vec<Tensor>,
    /// λ, the weight of a row's own labels, `[n]`, from 0 to 1: in host memory for [`Criterion::weight_sum`], on the
    /// logits' device for [`Criterion::weighted_sum`].
    pub lambda: Tensor,
}

impl MixedLabels {
    /// Returns λ, the weight of a row's own labels, as f64 on `device`.
    fn share_on(&self, device: Device) -> Tensor {
        ffi::on(&self.lambda, device).to_kind(Kind::Double)
    }
}

/// The loss functions of all targets.
///
/// Labels of a target: `[n]` i64, with −1 for a row without label; or, with several labels per row, `[n, classes]` of 0
/// and 1 in any kind, with all 0 for a row without labels. Rows without labels have weight 0; others have the weight of
/// their class, or 1. With mix-up, a row counts as λ of itself and 1 − λ of its partner, in both loss and weight.
#[derive(Debug)]
pub struct Criterion {
    smoothing: f64,
    focal_gamma: f64,
    targets: Vec<Target>,
}

/// A target with its class weights in the memory of each device that needs them.
#[derive(Debug)]
struct Target {
    /// The target's settings, with weights in the memory of the model's device.
    settings: TargetLoss,
    /// Class weights as f64 in host memory, so that summing weights does not wait for a GPU.
    host_weights: Option<Tensor>,
}

impl Criterion {
    /// Creates the loss functions of `targets`, in order. Label smoothing applies to targets with one label per row.
    pub fn new(settings: &config::Loss, targets: Vec<TargetLoss>) -> Self {
        let mut all = Vec::with_capacity(targets.len());
        for target in targets {
            let host_weights = target
                .class_weights
                .as_ref()
                .map(|weights| ffi::on(weights, Device::Cpu).to_kind(Kind::Double));
            all.push(Target {
                settings: target,
                host_weights,
            });
        }
        Self {
            smoothing: settings.label_smoothing,
            focal_gamma: settings.focal_gamma,
            targets: all,
        }
    }

    /// Returns the sum of the rows' weights for each target. Waits for the device if the labels are not in host memory.
    pub fn weight_sum(&self, labels: &[Tensor], mixed: Option<&MixedLabels>) -> Vec<f64> {
        let mut sums = Vec::with_capacity(self.targets.len());
        for (index, target) in self.targets.iter().enumerate() {
            let labels = &labels[index];
            let weights = target.row_weights(labels);
            let Some(mixed) = mixed else {
                sums.push(weights.sum(Kind::Double).double_value(&[]));
                continue;
            };

            // With mix-up, a row has two labels, each with the weight of its class.
            let partner_labels = &mixed.labels[index];
            let partner_weights = target.row_weights(partner_labels);
            let share = mixed.share_on(labels.device());
            let partner_share = 1.0 - mixed.share_on(partner_labels.device());
            let first = weights.dot(&share).double_value(&[]);
            let second = partner_weights.dot(&partner_share).double_value(&[]);
            sums.push(first + second);
        }
        sums
    }

    /// Returns Σ weight · loss over the rows for each target, as f32 or f64 scalar tensors with gradients. `logits`
    /// contains one tensor `[n, classes]` per target on the labels' device; lower precisions are converted to f32.
    pub fn weighted_sum(
        &self,
        logits: &[Tensor],
        labels: &[Tensor],
        mixed: Option<&MixedLabels>,
    ) -> Vec<Tensor> {
        let mut sums = Vec::with_capacity(self.targets.len());
        for (index, target) in self.targets.iter().enumerate() {
            let logits = match logits[index].kind() {
                Kind::Double => logits[index].shallow_clone(),
                // A precision below f32 is not sufficient for a sum over rows.
                _ => logits[index].to_kind(Kind::Float),
            };

            let rows = |labels| target.rows(&logits, labels, self.smoothing, self.focal_gamma);
            let first = rows(&labels[index]);
            let rows = match mixed {
                None => first,
                Some(mixed) => {
                    let lambda = mixed.lambda.to_kind(logits.kind());
                    // Compute the loss of both labels separately, so that each is weighted by its class.
                    let second = rows(&mixed.labels[index]);
                    first * &lambda + second * (1.0 - lambda)
                }
            };
            sums.push(rows.sum(logits.kind()));
        }
        sums
    }
}

impl Target {
    /// Returns the weight of each row, `[n]` f64 on the labels' device.
    fn row_weights(&self, labels: &Tensor) -> Tensor {
        if self.settings.multi_label {
            return has_label(labels).to_kind(Kind::Double);
        }
        let labelled = labels.ge(0).to_kind(Kind::Double);
        match &self.host_weights {
            None => labelled,
            Some(weights) => {
                ffi::on(weights, labels.device())
                    // An unlabelled row has class −1, which is no valid index. Multiplying by `labelled` sets its
                    // weight to 0.
                    .index_select(0, &labels.clamp_min(0))
                    * labelled
            }
        }
    }

    /// Returns weight · loss of each row, `[n]`.
    ///
    /// With `focal_gamma` γ > 0, each loss is multiplied by (1 − p)^γ, where p is the probability of the row's label,
    /// or with several labels, that of each class's own label (Lin et al. 2017, without α; torchvision's
    /// `sigmoid_focal_loss`).
    fn rows(&self, logits: &Tensor, labels: &Tensor, smoothing: f64, focal_gamma: f64) -> Tensor {
        if self.settings.multi_label {
            let labels = labels.to_kind(logits.kind());
            let on_logits =
                |weights: &Tensor| ffi::on(weights, logits.device()).to_kind(logits.kind());
            // Compute the loss from logits: a probability that is rounded to 0 or 1 would have an infinite loss.
            let mut each = logits.binary_cross_entropy_with_logits(
                &labels,
                None::<Tensor>,
                self.settings.pos_weights.as_ref().map(on_logits),
                Reduction::None,
            );
            if focal_gamma > 0.0 {
                // The other label of a class has the probability of the negated logit.
                let signs: Tensor = 1.0 - 2.0 * &labels;
                let others = (logits * signs).sigmoid();
                each *= focal(&others, focal_gamma);
            }
            // Use the mean over classes, so that the weight of a row does not depend on the number of classes.
            return each.mean_dim(1, false, logits.kind())
                * has_label(&labels).to_kind(logits.kind());
        }

        let weights = self
            .settings
            .class_weights
            .as_ref()
            .map(|weights| ffi::on(weights, logits.device()).to_kind(logits.kind()));
        // Rows with class −1 are ignored.
        let each = logits.cross_entropy_loss(labels, weights, Reduction::None, -1, smoothing);
        if focal_gamma == 0.0 {
            return each;
        }
        let own = logits.softmax(1, logits.kind());
        let own = own
            .gather(1, &labels.clamp_min(0).unsqueeze(1), false)
            .squeeze_dim(1);
        each * focal(&(1.0 - own), focal_gamma)
    }
}

/// Returns `others`^γ, where `others` are the probabilities of all other labels.
fn focal(others: &Tensor, gamma: f64) -> Tensor {
    // The gradient at 0 would be infinite for γ below 1.
    others.clamp_min(1e-8).pow_tensor_scalar(gamma)
}

fn has_label(labels: &Tensor) -> Tensor {
    labels.gt(0).any_dim(1, false)
}

/// Returns the balanced weight n / (classes · rows of the class) of each class, from the rows per class `counts`, as
/// `[classes]` f64 on `device`.
///
/// A class without rows has weight 0 and is not included in the number of classes. Source: scikit-learn's
/// `compute_class_weight("balanced")`.
pub fn balanced_weights(counts: &[u64], device: Device) -> Tensor {
    let rows: u64 = counts.iter().sum();
    let present = counts.iter().filter(|&&n| n > 0).count() as f64;
    let weights: Vec<f64> = counts
        .iter()
        .map(|&n| match n {
            0 => 0.0,
            n => rows as f64 / (present * n as f64),
        })
        .collect();
    ffi::on(&Tensor::from_slice(&weights), device)
}

/// Returns the number of rows without each class per row with it, as `[classes]` f64 on `device`, from the rows per
/// class `counts` and the number of labelled rows; 1 for a class without rows. Source: the documentation of torch's
/// `BCEWithLogitsLoss`.
pub fn positive_weights(counts: &[u64], n_labelled: u64, device: Device) -> Tensor {
    let mut weights = Vec::with_capacity(counts.len());
    for &n in counts {
        weights.push(match n {
            0 => 1.0,
            n => (n_labelled - n) as f64 / n as f64,
        });
    }
    ffi::on(&Tensor::from_slice(&weights), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEIGHTS: [f64; 3] = [0.5, 2.0, 1.25];
    const LOGITS: [f64; 12] = [
        0.3, -1.0, 2.0, 0.0, 0.1, -0.2, 4.0, 1.0, -3.0, 0.7, 0.7, 0.6,
    ];

    fn criterion(
        label_smoothing: f64,
        class_weights: Option<Tensor>,
        multi_label: bool,
    ) -> Criterion {
        let settings = config::Loss {
            label_smoothing,
            ..config::Loss::default()
        };

        Criterion::new(
            &settings,
            vec![TargetLoss {
                class_weights,
                pos_weights: None,
                multi_label,
            }],
        )
    }

    fn logits() -> Tensor {
        Tensor::from_slice(&LOGITS).view([4, 3])
    }

    fn mean(criterion: &Criterion, labels: &Tensor, mixed: Option<&MixedLabels>) -> f64 {
        let labels = std::slice::from_ref(labels);
        let sum = criterion.weighted_sum(&[logits()], labels, mixed)[0].double_value(&[]);
        sum / criterion.weight_sum(labels, mixed)[0]
    }

    #[test]
    fn sums_divide_to_torchs_mean_with_weights_smoothing_and_rows_without_label() {
        for labels in [[2_i64, 0, 0, 1], [-1, 1, 2, -1]] {
            for smoothing in [0.0, 0.1] {
                for weights in [None, Some(Tensor::from_slice(&WEIGHTS))] {
                    let labels = Tensor::from_slice(&labels);
                    let want = logits()
                        .cross_entropy_loss(
                            &labels,
                            weights.as_ref(),
                            Reduction::Mean,
                            -1,
                            smoothing,
                        )
                        .double_value(&[]);

                    let got = mean(&criterion(smoothing, weights, false), &labels, None);
                    assert!((got - want).abs() < 1e-14, "{got} {want}");
                }
            }
        }
    }

    #[test]
    fn loss_matches_the_definition() {
        fn minus_log(r: usize, c: usize) -> f64 {
            let row = &LOGITS[3 * r..3 * r + 3];
            row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[c]
        }

        let labels = [2_usize, 0, 0, 1];
        let mut want = 0.0;
        for (r, &y) in labels.iter().enumerate() {
            let even: f64 = (0..3).map(|c| WEIGHTS[c] * minus_log(r, c)).sum();
            want += 0.9 * WEIGHTS[y] * minus_log(r, y) + 0.1 / 3.0 * even;
        }

        let criterion = criterion(0.1, Some(Tensor::from_slice(&WEIGHTS)), false);
        let labels = [Tensor::from_slice(&labels.map(|y| y as i64))];
        assert!(
            (criterion.weighted_sum(&[logits()], &labels, None)[0].double_value(&[]) - want).abs()
                < 1e-14
        );
        assert_eq!(
            criterion.weight_sum(&labels, None),
            [1.25 + 0.5 + 0.5 + 2.0]
        );
    }

    #[test]
    fn a_batch_without_any_label_gives_zero_and_a_zero_gradient() {
        let logits = logits().set_requires_grad(true);
        let labels = [Tensor::from_slice(&[-1_i64; 4])];
        let criterion = criterion(0.1, None, false);

        let sum = criterion
            .weighted_sum(&[logits.shallow_clone()], &labels, None)
            .remove(0);
        sum.backward();

        assert_eq!(
            (
                sum.double_value(&[]),
                criterion.weight_sum(&labels, None)[0]
            ),
            (0.0, 0.0)
        );
        assert_eq!(logits.grad().abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn a_mixed_row_is_lambda_of_both_and_extremes_are_the_plain_losses() {
        let criterion = criterion(0.1, Some(Tensor::from_slice(&WEIGHTS)), false);
        let [first, second] = [[2_i64, 0, -1, 1], [1, 1, 0, -1]].map(|l| Tensor::from_slice(&l));
        let [all_first, all_second, both] = [1.0, 0.0, 0.3].map(|lambda| MixedLabels {
            labels: vec![second.shallow_clone()],
            lambda: Tensor::from_slice(&[lambda; 4]),
        });

        assert_eq!(
            mean(&criterion, &first, Some(&all_first)),
            mean(&criterion, &first, None)
        );
        assert_eq!(
            mean(&criterion, &first, Some(&all_second)),
            mean(&criterion, &second, None)
        );

        let [a, b, both] =
            [(&first, None), (&second, None), (&first, Some(&both))].map(|(labels, mixed)| {
                let labels = std::slice::from_ref(labels);
                let sum = criterion.weighted_sum(&[logits()], labels, mixed)[0].double_value(&[]);
                (sum, criterion.weight_sum(labels, mixed)[0])
            });
        assert!(
            (both.0 - (0.3 * a.0 + 0.7 * b.0)).abs() < 1e-14
                && (both.1 - (0.3 * a.1 + 0.7 * b.1)).abs() < 1e-14
        );
    }

    #[test]
    fn several_labels_are_mean_binary_entropies_of_the_rows_that_have_any() {
        fn entropy(x: f64, y: i64) -> f64 {
            (1.0 + (-x).exp()).ln() + if y == 0 { x } else { 0.0 }
        }

        let labels = Tensor::from_slice(&[1_i64, 0, 1, 0, 0, 0, 0, 1, 0, 1, 1, 1]).view([4, 3]);
        let truth = Vec::<i64>::try_from(labels.view(-1)).expect("i64");
        let want: f64 = [0, 2, 3]
            .iter()
            .flat_map(|r| 3 * r..3 * r + 3)
            .map(|i| entropy(LOGITS[i], truth[i]) / 3.0)
            .sum();
        assert!((mean(&criterion(0.0, None, true), &labels, None) - want / 3.0).abs() < 1e-14);
    }

    #[test]
    fn focal_losses_and_positive_weights_match_the_definitions() {
        let focal = |weights: Option<Tensor>, multi_label, gamma| {
            let settings = config::Loss {
                focal_gamma: gamma,
                ..config::Loss::default()
            };
            let target = TargetLoss {
                class_weights: None,
                pos_weights: weights,
                multi_label,
            };
            Criterion::new(&settings, vec![target])
        };
        let probability = |r: usize, c: usize| {
            let row = &LOGITS[3 * r..3 * r + 3];
            row[c].exp() / row.iter().map(|x| x.exp()).sum::<f64>()
        };

        // One class per row: (1 − p)^γ · −log p.
        let classes = [2_usize, 0, 0, 1];
        let want: f64 = (0..4)
            .map(|r| probability(r, classes[r]))
            .map(|p| -(1.0 - p).powi(2) * p.ln())
            .sum();
        let labels = [Tensor::from_slice(&classes.map(|class| class as i64))];
        let got =
            focal(None, false, 2.0).weighted_sum(&[logits()], &labels, None)[0].double_value(&[]);
        assert!((got - want).abs() < 1e-12, "{got} {want}");

        // Several labels: torchvision's sigmoid_focal_loss with alpha = -1, and torch's pos_weight.
        let sets = [[1_i64, 0, 1], [0, 1, 0], [0, 0, 1], [1, 1, 1]];
        let labels = [Tensor::from_slice(&sets.concat()).view([4, 3])];
        for (gamma, weights) in [(2.0, None), (0.0, Some(WEIGHTS)), (1.5, Some(WEIGHTS))] {
            let mut want = 0.0;
            for (r, set) in sets.iter().enumerate() {
                for (c, &label) in set.iter().enumerate() {
                    let x = LOGITS[3 * r + c];
                    let p = 1.0 / (1.0 + (-x).exp());
                    let own = if label == 1 { p } else { 1.0 - p };
                    let weight = weights
                        .filter(|_| label == 1)
                        .map_or(1.0, |weights| weights[c]);
                    want += -weight * (1.0 - own).powf(gamma) * own.ln() / 3.0;
                }
            }
            let criterion = focal(
                weights.map(|weights| Tensor::from_slice(&weights)),
                true,
                gamma,
            );
            let got = criterion.weighted_sum(&[logits()], &labels, None)[0].double_value(&[]);
            assert!((got - want).abs() < 1e-12, "{gamma}: {got} {want}");
        }

        // 6 of 8 labelled rows do not have the first class; the second has no rows.
        let weights = positive_weights(&[2, 0, 8], 8, Device::Cpu);
        assert_eq!(Vec::<f64>::try_from(weights).expect("f64"), [3.0, 1.0, 0.0]);
    }

    #[test]
    fn low_precision_logits_are_computed_in_f32() {
        let labels = [Tensor::from_slice(&[2_i64, 0, 0, 1])];
        let sums = criterion(0.0, None, false).weighted_sum(
            &[logits().to_kind(Kind::BFloat16)],
            &labels,
            None,
        );
        assert_eq!(sums[0].kind(), Kind::Float);
    }

    #[test]
    fn balanced_weights_are_scikit_learns() {
        // Expected: compute_class_weight("balanced", classes=[0, 1, 3], y=[0]*6 + [1]*3 + [3]) = [10/18, 10/9, 10/3].
        let weights =
            Vec::<f64>::try_from(balanced_weights(&[6, 3, 0, 1], Device::Cpu)).expect("f64");
        assert_eq!(weights, [10.0 / 18.0, 10.0 / 9.0, 0.0, 10.0 / 3.0]);
    }
}
