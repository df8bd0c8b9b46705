//! Writes fifty training steps of small networks as JSON, which scripts/peers/training.py reproduces with PyTorch.
//!
//! Optimizers, clipping, schedules and losses are those of the trainer; networks and data are fixed and artificial.

use std::io::Write;
use std::path::PathBuf;

use clap::Parser;
use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor};
use wavemill_schemas::config::{
    self, ClassWeights, Cosine, Metric, OptimizerKind, ParameterGroup, Plateau, PosWeight,
    Schedule, StepLr,
};
use wavemill_schemas::rng::Rng;
use wavemill_scores::schedule::{RunPosition, Schedules, Validation};
use wavemill_trainer::loss::{
    Criterion, MixedLabels, TargetLoss, balanced_weights, positive_weights,
};
use wavemill_trainer::mixup;
use wavemill_trainer::optim::{Optimizer, WeightAverage};

const STEPS: u64 = 50;
const STEPS_PER_EPOCH: u64 = 5;
const ROWS: i64 = 32;
const INPUTS: i64 = 12;
const HIDDEN: i64 = 20;
const CLASSES: i64 = 5;
const EMA_DECAY: f64 = 0.9;
/// Validation losses that stop improving twice, so that the plateau schedule lowers the learning rate.
const VALIDATIONS: [f64; 10] = [1.0, 0.9, 0.91, 0.92, 0.899_95, 0.93, 0.5, 0.6, 0.7, 0.8];

/// Writes training steps of small networks as JSON.
#[derive(Parser)]
struct Args {
    /// JSON file to write.
    #[arg(long)]
    out: PathBuf,
}

/// Settings of one training run.
struct Case {
    name: &'static str,
    kind: Kind,
    optimizer: config::Optimizer,
    schedule: Schedule,
    loss: config::Loss,
}

/// Inputs and labels of all training runs.
struct Data {
    inputs: Tensor,
    classes: Tensor,
    partner_classes: Tensor,
    several: Tensor,
    class_weights: Tensor,
    pos_weights: Tensor,
    lambda: Tensor,
}

fn cases() -> Vec<Case> {
    let step = Some(StepLr {
        every_epochs: 3,
        gamma: 0.7,
    });

    let smooth = config::Loss {
        label_smoothing: 0.1,
        ..config::Loss::default()
    };
    let bare = config::Loss {
        class_weights: ClassWeights::None,
        ..config::Loss::default()
    };

    let [adam, adamw, sgd] = [
        OptimizerKind::Adam,
        OptimizerKind::Adamw,
        OptimizerKind::Sgd,
    ]
    .map(|name| config::Optimizer {
        name,
        lr: 0.01,
        weight_decay: 0.01,
        ..config::Optimizer::default()
    });
    let [of_loss, of_f1] = [Metric::Loss, Metric::MacroF1].map(|metric| Plateau {
        metric,
        patience: 1,
        ..Plateau::default()
    });

    let warm = Schedule {
        step: None,
        plateau: None,
        cosine: Some(Cosine { warmup_steps: 8 }),
        warmup_steps: 0,
    };
    let by_loss = Schedule {
        step,
        plateau: Some(of_loss),
        cosine: None,
        warmup_steps: 0,
    };
    let by_f1 = Schedule {
        step: None,
        plateau: Some(of_f1),
        cosine: None,
        warmup_steps: 0,
    };
    let none = Schedule {
        step: None,
        plateau: None,
        cosine: None,
        warmup_steps: 0,
    };

    let clipped = config::Optimizer {
        clip_norm: Some(0.4),
        ..adamw
    };
    let nesterov = config::Optimizer {
        nesterov: true,
        ..sgd.clone()
    };
    let plain = config::Optimizer {
        momentum: 0.0,
        weight_decay: 0.0,
        ..sgd.clone()
    };
    let mixed = config::Loss {
        mixup: 0.4,
        ..smooth.clone()
    };

    let focal = config::Loss {
        focal_gamma: 2.0,
        ..bare.clone()
    };
    let positive = config::Loss {
        pos_weight: PosWeight::Balanced,
        ..bare.clone()
    };
    let group = |names: &str, lr_factor, weight_decay, frozen_epochs| ParameterGroup {
        names: names.to_owned(),
        lr_factor,
        weight_decay,
        frozen_epochs,
    };
    let grouped = config::Optimizer {
        groups: vec![
            group("hidden.*", 0.5, Some(0.0), 0),
            group("*.bias", 2.0, None, 3),
        ],
        layer_decay: Some(0.6),
        ..adam.clone()
    };
    let warm_step = Schedule {
        warmup_steps: 8,
        plateau: None,
        ..by_loss.clone()
    };

    let cases = [
        (
            "adam, step and plateau, smoothing and class weights",
            Kind::Double,
            &adam,
            &by_loss,
            &smooth,
        ),
        ("adam in f32", Kind::Float, &adam, &by_loss, &smooth),
        (
            "adamw, cosine with warm-up, clipped",
            Kind::Double,
            &clipped,
            &warm,
            &smooth,
        ),
        ("adamw in f32", Kind::Float, &clipped, &warm, &smooth),
        (
            "sgd with momentum, plateau of macro F1",
            Kind::Double,
            &sgd,
            &by_f1,
            &bare,
        ),
        (
            "sgd after Nesterov",
            Kind::Double,
            &nesterov,
            &by_loss,
            &smooth,
        ),
        ("sgd in f32", Kind::Float, &nesterov, &by_loss, &smooth),
        ("sgd alone", Kind::Double, &plain, &none, &bare),
        ("adam with mix-up", Kind::Double, &adam, &none, &mixed),
        (
            "groups, layer decay, focal loss",
            Kind::Double,
            &grouped,
            &none,
            &focal,
        ),
        (
            "positive weights, warm-up before steps",
            Kind::Double,
            &sgd,
            &warm_step,
            &positive,
        ),
    ];
    let mut all = Vec::new();
    for (name, kind, optimizer, schedule, loss) in cases {
        all.push(Case {
            name,
            kind,
            optimizer: optimizer.clone(),
            schedule: schedule.clone(),
            loss: loss.clone(),
        });
    }
    all
}

/// Returns random values in −1 to 1 that are exact in f32.
fn random(stream: u64, shape: &[i64]) -> Tensor {
    let mut rng = Rng::new(stream);
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| rng.uniform_in(-1.0, 1.0) as f32)
        .collect();
    Tensor::from_slice(&values).view(shape)
}

fn data() -> Data {
    fn labels(stream: u64) -> Tensor {
        let mut rng = Rng::new(stream);
        // About one row in six has no label.
        let labels: Vec<i64> = (0..ROWS)
            .map(|_| rng.below(CLASSES as u64 + 1) as i64 - 1)
            .collect();
        Tensor::from_slice(&labels)
    }

    let lambda: Vec<f32> = (0..ROWS)
        .map(|row| mixup::lambda(1, 0, row as u64, 0.4) as f32)
        .collect();

    Data {
        inputs: random(1, &[ROWS, INPUTS]),
        classes: labels(2),
        partner_classes: labels(3),
        several: random(4, &[ROWS, CLASSES]).gt(0.6).to_kind(Kind::Int64),
        class_weights: balanced_weights(&[40, 10, 5, 30, 15], Device::Cpu),
        pos_weights: positive_weights(&[40, 10, 5, 30, 0], 60, Device::Cpu),
        lambda: Tensor::from_slice(&lambda),
    }
}

fn variables(kind: Kind) -> Vec<(String, Tensor)> {
    let shapes: [(&str, &[i64]); 6] = [
        ("hidden.weight", &[HIDDEN, INPUTS]),
        ("hidden.bias", &[HIDDEN]),
        ("genre.weight", &[CLASSES, HIDDEN]),
        ("genre.bias", &[CLASSES]),
        ("several.weight", &[CLASSES, HIDDEN]),
        ("several.bias", &[CLASSES]),
    ];

    let mut variables = Vec::new();
    for (index, (name, shape)) in shapes.into_iter().enumerate() {
        let values = random(10 + index as u64, shape) * 0.5;
        let values = values.to_kind(kind).set_requires_grad(true);
        variables.push((name.to_owned(), values));
    }
    variables
}

fn logits(variables: &[(String, Tensor)], inputs: &Tensor) -> [Tensor; 2] {
    let [hidden, genre, several] = [0, 2, 4].map(|first| {
        move |x: &Tensor| x.linear(&variables[first].1, Some(&variables[first + 1].1))
    });
    let hidden = hidden(inputs).tanh();
    [genre(&hidden), several(&hidden)]
}

/// Returns the mean of the losses of the two targets.
fn loss(case: &Case, criterion: &Criterion, data: &Data, logits: &[Tensor]) -> Tensor {
    let labels = [data.classes.shallow_clone(), data.several.shallow_clone()];
    let mixed = (case.loss.mixup > 0.0).then(|| MixedLabels {
        labels: vec![data.partner_classes.shallow_clone(), data.several.flip([0])],
        lambda: data.lambda.shallow_clone(),
    });
    let sums = criterion.weighted_sum(logits, &labels, mixed.as_ref());
    let weights = criterion.weight_sum(&labels, mixed.as_ref());
    (&sums[0] / weights[0] + &sums[1] / weights[1]) / 2.0
}

fn train(case: &Case, data: &Data) -> Value {
    let variables = variables(case.kind);
    let initial = values(&variables);

    let shared: Vec<_> = variables
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
        .collect();
    let mut average = WeightAverage::new(EMA_DECAY, &shared);

    let layers = ["hidden", "genre", "several"].map(str::to_owned);
    let mut optimizer = Optimizer::new(&case.optimizer, shared).with_layers(&layers);
    let mut schedules = Schedules::new(&case.schedule, case.optimizer.lr);

    let class_weights = (case.loss.class_weights == ClassWeights::Balanced)
        .then(|| data.class_weights.shallow_clone());
    let pos_weights =
        (case.loss.pos_weight == PosWeight::Balanced).then(|| data.pos_weights.shallow_clone());
    let targets = vec![
        TargetLoss {
            class_weights,
            pos_weights: None,
            multi_label: false,
        },
        TargetLoss {
            class_weights: None,
            pos_weights,
            multi_label: true,
        },
    ];
    let criterion = Criterion::new(&case.loss, targets);

    let inputs = data.inputs.to_kind(case.kind);
    let mut steps = Vec::new();
    for step in 0..STEPS {
        let epoch = step / STEPS_PER_EPOCH;
        let lr = schedules.lr(RunPosition {
            step,
            steps_total: STEPS,
            epoch,
        });

        optimizer.set_epoch(epoch);
        optimizer.zero_grad();
        let loss = loss(case, &criterion, data, &logits(&variables, &inputs));
        loss.backward();
        let norm = case
            .optimizer
            .clip_norm
            .map(|max| optimizer.clip_norm(max).double_value(&[]));
        optimizer.step(lr);
        average.update(step);
        steps.push(json!({ "lr": lr, "loss": loss.double_value(&[]), "norm": norm }));

        if (step + 1) % STEPS_PER_EPOCH == 0 {
            let loss = VALIDATIONS[epoch as usize];
            schedules.epoch_ended(
                epoch,
                &Validation {
                    loss,
                    targets: vec![(String::new(), [(Metric::MacroF1, 1.0 - loss)].into())],
                },
            );
        }
    }

    let last = values(&variables);
    average.swap();
    json!({
        "name": case.name,
        "dtype": if case.kind == Kind::Double { "float64" } else { "float32" },
        "optimizer": case.optimizer,
        "schedule": case.schedule,
        "loss": case.loss,
        "initial": initial,
        "steps": steps,
        "final": last,
        "average": values(&variables),
    })
}

/// Returns every variable as a JSON object `{"shape", "values"}`.
fn values(variables: &[(String, Tensor)]) -> Value {
    let all = variables
        .iter()
        .map(|(name, tensor)| (name.clone(), value(tensor)));
    Value::Object(all.collect::<Map<_, _>>())
}

fn value(tensor: &Tensor) -> Value {
    let flat = tensor.detach().to_kind(Kind::Double).view(-1);
    let values = Vec::<f64>::try_from(flat).expect("one dimension of f64");
    json!({ "shape": tensor.size(), "values": values })
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let data = data();
    let trajectories: Vec<Value> = cases().iter().map(|case| train(case, &data)).collect();

    let document = json!({
        "steps_per_epoch": STEPS_PER_EPOCH,
        "validations": VALIDATIONS,
        "ema_decay": EMA_DECAY,
        "inputs": value(&data.inputs),
        "classes": value(&data.classes),
        "partner_classes": value(&data.partner_classes),
        "several": value(&data.several),
        "class_weights": value(&data.class_weights),
        "pos_weights": value(&data.pos_weights),
        "lambda": value(&data.lambda),
        "trajectories": trajectories,
    });

    let mut file = std::fs::File::create(&args.out)?;
    file.write_all(document.to_string().as_bytes())?;
    Ok(())
}
