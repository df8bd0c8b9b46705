//! Writes fifty training steps of small networks as JSON, which scripts/peers/training.py reproduces with PyTorch.
//!
//! Optimizers, clipping, schedules and losses are those of the trainer; networks and data are fixed and artificial.

use std::io::Write;
use std::path::PathBuf;

use clap::Parser;
use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor};
use wavemill_schemas::config::{ClassWeights, Config, Metric, PosWeight};
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

const SGD: &str = "optimizer.name=sgd";
const NESTEROV: &str = "optimizer.name=sgd optimizer.nesterov=true";
const CLIPPED: &str = "optimizer.name=adamw optimizer.clip_norm=0.4";
const GROUPED: &str = "optimizer.layer_decay=0.6 optimizer.groups=\
    [{names=\"hidden.*\",lr_factor=0.5,weight_decay=0.0},{names=\"*.bias\",lr_factor=2.0,frozen_epochs=3}]";
const BY_LOSS: &str =
    "schedule.step={every_epochs=3,gamma=0.7} schedule.plateau={metric=\"loss\",patience=1}";
const BY_F1: &str = "schedule.plateau={metric=\"macro_f1\",patience=1}";
const WARM: &str = "schedule.cosine={warmup_steps=8}";
const WARM_STEP: &str = "schedule.step={every_epochs=3,gamma=0.7} schedule.warmup_steps=8";
const SMOOTH: &str = "loss.label_smoothing=0.1";
const BARE: &str = "loss.class_weights=none";

/// Name, precision and settings of each training run.
const CASES: [(&str, Kind, [&str; 3]); 11] = [
    (
        "adam, step and plateau, smoothing and class weights",
        Kind::Double,
        ["", BY_LOSS, SMOOTH],
    ),
    ("adam in f32", Kind::Float, ["", BY_LOSS, SMOOTH]),
    (
        "adamw, cosine with warm-up, clipped",
        Kind::Double,
        [CLIPPED, WARM, SMOOTH],
    ),
    ("adamw in f32", Kind::Float, [CLIPPED, WARM, SMOOTH]),
    (
        "sgd with momentum, plateau of macro F1",
        Kind::Double,
        [SGD, BY_F1, BARE],
    ),
    (
        "sgd after Nesterov",
        Kind::Double,
        [NESTEROV, BY_LOSS, SMOOTH],
    ),
    ("sgd in f32", Kind::Float, [NESTEROV, BY_LOSS, SMOOTH]),
    (
        "sgd alone",
        Kind::Double,
        [
            "optimizer.name=sgd optimizer.momentum=0.0 optimizer.weight_decay=0.0",
            "",
            BARE,
        ],
    ),
    (
        "adam with mix-up",
        Kind::Double,
        ["", "", "loss.label_smoothing=0.1 loss.mixup=0.4"],
    ),
    (
        "groups, layer decay, focal loss",
        Kind::Double,
        [GROUPED, "", "loss.class_weights=none loss.focal_gamma=2.0"],
    ),
    (
        "positive weights, warm-up before steps",
        Kind::Double,
        [
            SGD,
            WARM_STEP,
            "loss.class_weights=none loss.pos_weight=balanced",
        ],
    ),
];

fn config(name: &str, settings: [&str; 3]) -> anyhow::Result<Config> {
    let shared = "optimizer.name=adam optimizer.lr=0.01 optimizer.weight_decay=0.01";
    let words = [&[shared], &settings[..]].concat().join(" ");
    let sets: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    // With its section, only the schedules of the settings apply.
    Ok(Config::parse("[schedule]", name, &sets)?)
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
fn loss(config: &Config, criterion: &Criterion, data: &Data, logits: &[Tensor]) -> Tensor {
    let labels = [data.classes.shallow_clone(), data.several.shallow_clone()];
    let mixed = (config.loss.mixup > 0.0).then(|| MixedLabels {
        labels: vec![data.partner_classes.shallow_clone(), data.several.flip([0])],
        lambda: data.lambda.shallow_clone(),
    });
    let sums = criterion.weighted_sum(logits, &labels, mixed.as_ref());
    let weights = criterion.weight_sum(&labels, mixed.as_ref());
    (&sums[0] / weights[0] + &sums[1] / weights[1]) / 2.0
}

fn train(name: &str, kind: Kind, config: &Config, data: &Data) -> Value {
    let variables = variables(kind);
    let initial = values(&variables);

    let shared: Vec<_> = variables
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
        .collect();
    let mut average = WeightAverage::new(EMA_DECAY, &shared);

    let layers = ["hidden", "genre", "several"].map(str::to_owned);
    let mut optimizer = Optimizer::new(&config.optimizer, shared).with_layers(&layers);
    let mut schedules = Schedules::new(&config.schedule, config.optimizer.lr);

    let class_weights = (config.loss.class_weights == ClassWeights::Balanced)
        .then(|| data.class_weights.shallow_clone());
    let pos_weights =
        (config.loss.pos_weight == PosWeight::Balanced).then(|| data.pos_weights.shallow_clone());
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
    let criterion = Criterion::new(&config.loss, targets);

    let inputs = data.inputs.to_kind(kind);
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
        let loss = loss(config, &criterion, data, &logits(&variables, &inputs));
        loss.backward();
        let norm = config
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
        "name": name,
        "dtype": if kind == Kind::Double { "float64" } else { "float32" },
        "optimizer": config.optimizer,
        "schedule": config.schedule,
        "loss": config.loss,
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
    let mut trajectories = Vec::new();
    for (name, kind, settings) in CASES {
        trajectories.push(train(name, kind, &config(name, settings)?, &data));
    }

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
