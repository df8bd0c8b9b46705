//! Mix-up: a row becomes λ of itself plus 1 − λ of a partner from the same global batch, in both features and labels.
//!
//! λ and the partner (`trainer/loader/src/order.rs`) are functions of (seed, epoch, row key) and therefore the same on every
//! rank. Source: Zhang et al., "mixup: Beyond empirical risk minimization" (2018); here, λ is drawn for each row
//! instead of each batch.

use tch::Tensor;
use wavemill_schemas::rng::Rng;

use crate::ffi;

/// Returns λ, the weight of the row with key `key`, drawn from Beta(α, α). `alpha` must be above 0.
pub fn lambda(seed: u64, epoch: u64, key: u64, alpha: f64) -> f64 {
    let mut rng = Rng::for_row(seed, epoch, key, "mixup.lambda");
    // Beta is X / (X + Y) of two Gamma draws, computed from logarithms: with a small α, both draws may be below the
    // smallest f64.
    let difference = log_gamma_draw(&mut rng, alpha) - log_gamma_draw(&mut rng, alpha);
    1.0 / (1.0 + (-difference).exp())
}

/// Mixes features `[n, …]` with those of the partners, which have the same shape: λ · own + (1 − λ) · partner, with λ
/// `[n]`.
pub fn blend(own: &Tensor, partners: &Tensor, lambda: &Tensor) -> Tensor {
    let mut shape = vec![1; own.dim()];
    shape[0] = -1;
    let lambda = ffi::on(lambda, own.device())
        .to_kind(own.kind())
        .view(shape.as_slice());
    // Do not use lerp: the rounding of its fused multiply-add depends on an element's position in a vector.
    own * &lambda + partners * (1.0 - lambda)
}

/// Returns the logarithm of a draw from Gamma(`shape`, 1). Source: Marsaglia and Tsang, "A simple method for generating
/// gamma variables" (2000), including the case of a shape below 1, which is reduced to `shape` + 1.
fn log_gamma_draw(rng: &mut Rng, shape: f64) -> f64 {
    if shape < 1.0 {
        let larger = log_gamma_draw(rng, shape + 1.0);
        // `uniform` can return 0 but never 1, so 1 − u has a logarithm.
        return larger + (1.0 - rng.uniform()).ln() / shape;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = rng.normal();
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - rng.uniform()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return (d * v).ln();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number of draws. The standard error of their mean is the standard deviation / 200.
    const DRAWS: u64 = 40_000;

    fn moments(draws: impl Iterator<Item = f64>) -> (f64, f64) {
        let draws: Vec<f64> = draws.collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        (
            mean,
            draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64,
        )
    }

    #[test]
    fn gamma_draws_have_mean_and_variance_of_their_shape() {
        for shape in [0.2, 1.0, 4.5] {
            let mut rng = Rng::new(3);
            let (mean, variance) =
                moments((0..DRAWS).map(|_| log_gamma_draw(&mut rng, shape).exp()));
            assert!(
                (mean / shape - 1.0).abs() < 0.05 && (variance / shape - 1.0).abs() < 0.1,
                "{mean} {variance}"
            );
        }
    }

    #[test]
    fn lambdas_have_the_moments_of_beta() {
        for alpha in [0.001, 0.2, 1.0, 8.0] {
            let (mean, variance) = moments((0..DRAWS).map(|key| lambda(1, 2, key, alpha)));
            // Expected moments of Beta(α, α): mean ½, variance 1 / (4 (2α + 1)).
            let want = 0.25 / (2.0 * alpha + 1.0);
            assert!(
                (mean - 0.5).abs() < 0.013 && (variance / want - 1.0).abs() < 0.03,
                "{alpha}: {mean} {variance}"
            );
        }
    }

    #[test]
    fn a_blend_is_the_weighted_sum_of_rows() {
        let (own, partners) = (
            Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0]),
            Tensor::from_slice(&[5.0_f32, 6.0, 7.0, 8.0]),
        );

        let mixed = blend(
            &own.view([2, 1, 2]),
            &partners.view([2, 1, 2]),
            &Tensor::from_slice(&[0.25_f64, 1.0]),
        );

        assert_eq!(mixed.size(), [2, 1, 2]);
        assert_eq!(
            Vec::<f32>::try_from(mixed.view(-1)).expect("f32"),
            [4.0, 5.0, 3.0, 4.0]
        );
    }
}
