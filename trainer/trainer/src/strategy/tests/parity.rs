//! Tests that training on several ranks, which divide the same global batches, gives the same result as on one rank.

use tch::{Device, Kind, Tensor};
use wavemill_schemas::rng::Rng;

use super::*;

const STEPS: usize = 50;
const BATCH: i64 = 12;

/// Creates a model of two layers, and one variable that no batch uses.
fn model(kind: Kind) -> Vec<(String, Tensor)> {
    let mut rng = Rng::new(7);
    let shapes: [(&str, &[i64]); 5] = [
        ("1.bias", &[16]),
        ("1.weight", &[16, 6]),
        ("2.bias", &[3]),
        ("2.weight", &[3, 16]),
        ("unused", &[2]),
    ];

    let mut variables = Vec::new();
    for (name, shape) in shapes {
        let values: Vec<f64> = (0..shape.iter().product())
            .map(|_| 0.3 * rng.normal())
            .collect();
        let tensor = Tensor::from_slice(&values).view(shape).to_kind(kind);
        variables.push((name.to_owned(), tensor.set_requires_grad(true)));
    }
    variables
}

/// Returns the rows, classes and weights of the global batch of a step.
fn batch(step: usize, kind: Kind) -> (Tensor, Tensor, Tensor) {
    let mut rng = Rng::new(1000 + step as u64);
    let rows: Vec<f64> = (0..BATCH * 6).map(|_| rng.normal()).collect();

    // The class of a row is the index of the largest of its first three values.
    let mut classes = Vec::new();
    for row in rows.chunks(6) {
        let largest = (0..3).fold(0, |best, at| if row[at] > row[best] { at } else { best });
        classes.push(largest as i64);
    }
    let weights: Vec<f64> = (0..BATCH).map(|_| 0.5 + rng.uniform()).collect();

    let [rows, weights] = [rows, weights].map(|values| Tensor::from_slice(&values).to_kind(kind));
    (rows.view([BATCH, 6]), Tensor::from_slice(&classes), weights)
}

/// Runs 50 steps of SGD on Σ weight · loss / Σ weight. Returns the loss of every step, followed by all variables.
fn train(group: &dyn Collective, kind: Kind) -> Vec<f64> {
    let mut variables = model(kind);
    let mut buckets = Buckets::new(&variables);
    let mut numbers = Vec::new();

    for step in 0..STEPS {
        let (rows, classes, weights) = batch(step, kind);
        let (rank, world) = (group.rank() as i64, group.world_size() as i64);

        // At step 3, rank 1 has no rows, so its gradients stay undefined.
        let whole_to_first = step == 3;
        let (start, end) = match (whole_to_first, rank) {
            (true, 0) => (0, BATCH),
            (true, _) => (0, 0),
            (false, _) => (BATCH * rank / world, BATCH * (rank + 1) / world),
        };

        let [rows, classes, weights] =
            [rows, classes, weights].map(|tensor| tensor.narrow(0, start, end - start));

        let mut extras = [0.0, 0.0];
        if end > start {
            let hidden = rows.linear(&variables[1].1, Some(&variables[0].1)).tanh();
            let logits = hidden.linear(&variables[3].1, Some(&variables[2].1));
            let each = logits
                .log_softmax(-1, kind)
                .gather(1, &classes.unsqueeze(1), false)
                .squeeze()
                .neg();

            let loss = (each * &weights).sum(kind);
            loss.backward();
            extras = [loss.double_value(&[]), weights.sum(kind).double_value(&[])];
        }

        let mut sums = Tensor::from_slice(&extras);
        buckets.reduce(group, &mut sums).expect("all take part");
        sums.copy_data(&mut extras, 2);
        tch::no_grad(|| {
            for (_, variable) in &mut variables {
                let mut grad = variable.grad();
                if grad.defined() {
                    *variable -= &grad * (0.3 / extras[1]);
                    let _ = grad.zero_();
                }
            }
        });
        numbers.push(extras[0] / extras[1]);
    }

    assert!(
        !variables[4].1.grad().defined(),
        "no rank has a gradient for it"
    );
    for (_, variable) in &variables {
        numbers
            .extend(Vec::<f64>::try_from(variable.to_kind(Kind::Double).view(-1)).expect("flat"));
    }
    numbers
}

#[test]
fn two_and_four_ranks_match_one_rank() {
    fn norm(values: &[f64]) -> f64 {
        values.iter().map(|value| value * value).sum::<f64>().sqrt()
    }

    // In f64, the results must be equal up to rounding. In f32, rounding errors of 50 steps add up.
    for (kind, most) in [(Kind::Double, 1e-12), (Kind::Float, 1e-5)] {
        let alone = train(&Solo, kind);
        assert!(
            alone[STEPS - 1] < 0.8 * alone[0],
            "it learns: {} {}",
            alone[0],
            alone[STEPS - 1]
        );

        for world_size in [2, 4] {
            for ranks in each_rank(world_size, |group| train(group, kind)) {
                for part in [0..STEPS, STEPS..alone.len()] {
                    let off: Vec<f64> = ranks[part.clone()]
                        .iter()
                        .zip(&alone[part.clone()])
                        .map(|(a, b)| a - b)
                        .collect();
                    let relative = norm(&off) / norm(&alone[part]);
                    assert!(
                        relative <= most,
                        "{kind:?}, {world_size} ranks: {relative:e}"
                    );
                }
            }
        }
    }
}

/// Returns the summed gradient on each of three ranks. `own` returns the gradient of a rank before the sum, or `None`.
fn reduced(own: impl Fn(usize) -> Option<f64> + Sync) -> Vec<Option<f64>> {
    each_rank(3, |group| {
        let variable = Tensor::ones([2, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        if let Some(value) = own(group.rank()) {
            (variable.sum(Kind::Float) * value).backward();
        }

        let mut buckets = Buckets::new(&[("v".to_owned(), variable.shallow_clone())]);
        let mut extras = Tensor::from_slice(&[1e16]);
        buckets.reduce(group, &mut extras).expect("all take part");
        assert_eq!(extras.double_value(&[0]), 3e16, "f64");

        let grad = variable.grad();
        grad.defined().then(|| grad.double_value(&[1, 1]))
    })
}

#[test]
fn a_gradient_that_one_rank_lacks_counts_as_zeros_and_one_that_all_lack_stays_undefined() {
    assert_eq!(
        reduced(|rank| (rank != 1).then_some(rank as f64 + 1.0)),
        [Some(4.0); 3]
    );
    assert_eq!(reduced(|_| None), [None; 3]);
}

/// After the first step, every rank has all gradients and stops counting them. If some ranks still counted, they would sum
/// different lengths, which is an error. A gradient that is zero because its rank has no rows is still summed.
#[test]
fn gradients_are_summed_as_before_once_every_rank_has_them() {
    let sums = each_rank(3, |group| {
        let variable = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let mut buckets = Buckets::new(&[("v".to_owned(), variable.shallow_clone())]);

        let mut sums = Vec::new();
        for step in 0..3 {
            // In each step, another rank has no rows. Its gradient is undefined at first and zero later.
            if group.rank() != step {
                (variable.sum(Kind::Float) * (group.rank() as f64 + 1.0)).backward();
            }
            let mut extras = Tensor::from_slice(&[step as f64]);
            buckets.reduce(group, &mut extras).expect("all take part");
            assert!(buckets.is_complete(), "step {step}");

            let mut grad = variable.grad();
            sums.push([grad.double_value(&[1]), extras.double_value(&[0])]);
            let _ = grad.zero_();
        }
        sums
    });

    assert_eq!(
        sums,
        vec![vec![[5.0, 0.0], [4.0, 3.0], [3.0, 6.0]]; 3],
        "the ranks add 1, 2 and 3"
    );
}

#[test]
fn buckets_hold_one_kind_and_at_most_their_size() {
    let tensor =
        |values, kind| Tensor::zeros([values], (kind, Device::Cpu)).set_requires_grad(true);

    let four_mib = 1 << 20;
    let shapes = [four_mib; 7].map(|values| tensor(values, Kind::Float));
    let kinds = [
        tensor(3, Kind::Double),
        tensor(3, Kind::Float),
        tensor(20 * four_mib, Kind::Float),
    ];

    let variables: Vec<_> = shapes
        .into_iter()
        .chain(kinds)
        .map(|tensor| (String::new(), tensor))
        .collect();

    let buckets = Buckets::new(&variables);
    assert_eq!(
        buckets.lengths(),
        [6 * four_mib, four_mib, 3, 3, 20 * four_mib]
    );
}
