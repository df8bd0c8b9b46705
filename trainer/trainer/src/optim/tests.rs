//! Compares the optimisers with those of libtorch, which tch can run but whose state it cannot save.

use tch::nn::{self, Module, OptimizerConfig};

use super::*;

/// Maximum difference of a weight from libtorch's after 50 steps. f64: rounding errors of about 10 operations per step
/// (1e-16 each); f32: the same with 6e-8 each, and Adam divides by √v, which is near 0 for some weights.
const F64_MAX: f64 = 1e-12;
const F32_MAX: f64 = 1e-6;

/// A network of two layers. Its weights, inputs and classes are always the same.
struct Net {
    store: nn::VarStore,
    layers: nn::Sequential,
    inputs: Tensor,
    classes: Tensor,
}

fn net(kind: Kind) -> Net {
    fn wave(shape: &[i64], phase: f64) -> Tensor {
        let n: i64 = shape.iter().product();
        (Tensor::arange(n, (Kind::Double, Device::Cpu)) * 1.7 + phase)
            .sin()
            .reshape(shape)
    }

    let mut store = nn::VarStore::new(Device::Cpu);
    let root = store.root();
    let layers = nn::seq()
        .add(nn::linear(&root / "a", 6, 10, nn::LinearConfig::default()))
        .add_fn(Tensor::tanh)
        .add(nn::linear(&root / "b", 10, 4, nn::LinearConfig::default()));
    store.double();

    no_grad(|| {
        for (index, (_, mut tensor)) in sorted(&store).into_iter().enumerate() {
            tensor.copy_(&(wave(&tensor.size(), index as f64) * 0.5));
        }
    });
    store.set_kind(kind);

    let classes = Tensor::arange(16, (Kind::Int64, Device::Cpu)).remainder(4);
    Net {
        store,
        layers,
        inputs: wave(&[16, 6], 0.3).to_kind(kind),
        classes,
    }
}

impl Net {
    fn loss(&self) -> Tensor {
        self.layers
            .forward(&self.inputs)
            .cross_entropy_for_logits(&self.classes)
    }

    fn optimizer(&self, settings: &config::Optimizer) -> Optimizer {
        Optimizer::new(settings, sorted(&self.store))
    }

    fn train(&self, optimizer: &mut Optimizer, steps: std::ops::Range<i32>) {
        for step in steps {
            optimizer.zero_grad();
            self.loss().backward();
            optimizer.step(rate(step));
        }
    }
}

fn sorted(store: &nn::VarStore) -> Vec<(String, Tensor)> {
    let mut all: Vec<_> = store.variables().into_iter().collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn rate(step: i32) -> f64 {
    0.01 / f64::from(1 + step / 20)
}

fn distance(a: &Net, b: &Net) -> f64 {
    let pairs = sorted(&a.store).into_iter().zip(sorted(&b.store));
    pairs
        .map(|((_, a), (_, b))| (a - b).abs().max().double_value(&[]))
        .fold(0.0, f64::max)
}

fn every_optimizer() -> Vec<config::Optimizer> {
    let settings = [
        (OptimizerKind::Adam, 0.0, 0.0, false),
        (OptimizerKind::Adam, 1e-2, 0.0, false),
        (OptimizerKind::Adamw, 1e-2, 0.0, false),
        (OptimizerKind::Sgd, 0.0, 0.0, false),
        (OptimizerKind::Sgd, 1e-2, 0.9, false),
        (OptimizerKind::Sgd, 1e-2, 0.9, true),
    ];

    let mut all = Vec::new();
    for (name, weight_decay, momentum, nesterov) in settings {
        all.push(config::Optimizer {
            name,
            weight_decay,
            momentum,
            nesterov,
            ..config::Optimizer::default()
        });
    }
    all
}

fn libtorch(settings: &config::Optimizer, net: &Net) -> nn::Optimizer {
    let [beta1, beta2] = settings.betas;
    let (wd, eps) = (settings.weight_decay, settings.eps);

    match settings.name {
        OptimizerKind::Adam => nn::Adam {
            beta1,
            beta2,
            wd,
            eps,
            amsgrad: false,
        }
        .build(&net.store, 0.01),
        OptimizerKind::Adamw => nn::AdamW {
            beta1,
            beta2,
            wd,
            eps,
            amsgrad: false,
        }
        .build(&net.store, 0.01),
        OptimizerKind::Sgd => nn::Sgd {
            momentum: settings.momentum,
            dampening: 0.0,
            wd,
            nesterov: settings.nesterov,
        }
        .build(&net.store, 0.01),
    }
    .expect("libtorch's optimiser")
}

#[test]
fn fifty_steps_match_libtorch() {
    for (kind, most) in [(Kind::Double, F64_MAX), (Kind::Float, F32_MAX)] {
        for settings in every_optimizer() {
            let (ours, theirs, start) = (net(kind), net(kind), net(kind));

            ours.train(&mut ours.optimizer(&settings), 0..50);
            let mut other = libtorch(&settings, &theirs);
            for step in 0..50 {
                other.set_lr(rate(step));
                other.backward_step(&theirs.loss());
            }

            let apart = distance(&ours, &theirs);
            assert!(apart < most, "{settings:?} {kind:?}: {apart:e}");
            assert!(distance(&ours, &start) > 1e-2, "{settings:?}: hardly moved");
        }
    }
}

#[test]
fn resumed_state_continues_bit_for_bit() {
    for settings in every_optimizer() {
        let (whole, resumed) = (net(Kind::Float), net(Kind::Float));
        whole.train(&mut whole.optimizer(&settings), 0..30);

        let mut first = resumed.optimizer(&settings);
        resumed.train(&mut first, 0..13);
        let saved = first
            .state()
            .into_iter()
            .map(|(name, tensor)| (name, tensor.copy()))
            .collect();

        drop(first);
        let mut second = resumed.optimizer(&settings);
        second.load(&saved).expect("own state");
        resumed.train(&mut second, 13..30);

        assert_eq!(distance(&whole, &resumed), 0.0, "{settings:?}");
    }
}

#[test]
fn mismatched_state_is_rejected_without_changes() {
    let adam = config::Optimizer::default();
    let net = net(Kind::Float);
    let mut trained = net.optimizer(&adam);
    net.train(&mut trained, 0..2);
    let state: BTreeMap<_, _> = trained.state().into_iter().collect();

    let name = "optimizer.exp_avg_sq.b.weight";
    let other_shape = Tensor::zeros([4, 9], (Kind::Float, Device::Cpu));
    let unknown = "in the saved state, but not in that of this run's optimiser";
    let shape = "Float [4, 9] in the saved state, Float [4, 10] in this run";
    let changes = [
        (name, None, "not in the saved state of the optimiser"),
        (name, Some(other_shape), shape),
        ("optimizer.exp_avg.c", Some(Tensor::from(1.0)), unknown),
    ];
    for (name, tensor, want) in changes {
        let mut changed: BTreeMap<_, _> = state
            .iter()
            .map(|(k, v)| (k.clone(), v.shallow_clone()))
            .collect();
        changed.remove(name);
        changed.extend(tensor.map(|tensor| (name.to_owned(), tensor)));

        let mut fresh = net.optimizer(&adam);
        let error = fresh.load(&changed).expect_err("refused").to_string();
        assert_eq!(error, format!("{name}: {want}"));
        let sum: f64 = fresh
            .slots()
            .map(|(_, t)| t.abs().sum(Kind::Double).double_value(&[]))
            .sum();
        assert_eq!((sum, fresh.variables[0].steps), (0.0, 0));
    }

    let sgd = config::Optimizer {
        name: OptimizerKind::Sgd,
        momentum: 0.0,
        ..adam.clone()
    };
    let error = net.optimizer(&sgd).load(&state).expect_err("refused");
    assert!(error.to_string().ends_with(unknown), "{error}");
}

#[test]
fn a_variable_without_gradient_is_left_alone() {
    for settings in every_optimizer() {
        let [used, idle] = [1.0, 2.0].map(|x| Tensor::from_slice(&[x, -x]).set_requires_grad(true));
        let variables = vec![
            ("used".to_owned(), used.shallow_clone()),
            ("idle".to_owned(), idle.shallow_clone()),
        ];

        let mut optimizer = Optimizer::new(&settings, variables);
        used.square().sum(Kind::Double).backward();
        optimizer.step(0.1);

        assert_eq!(
            Vec::<f64>::try_from(idle.detach()).expect("f64"),
            [2.0, -2.0]
        );
        assert!(used.double_value(&[0]) < 1.0);

        let (name, steps) = &optimizer.state()[0];
        assert_eq!(name, STEPS);
        assert_eq!(Vec::<i64>::try_from(steps).expect("i64"), [0, 1]);
    }
}

#[test]
fn zeroed_gradients_keep_their_storage() {
    let net = net(Kind::Float);
    let mut optimizer = net.optimizer(&config::Optimizer::default());
    net.loss().backward();
    let weight = sorted(&net.store).remove(1).1;
    let before = weight.grad().data_ptr();
    optimizer.zero_grad();
    assert_eq!(weight.grad().data_ptr(), before);
    assert_eq!(weight.grad().abs().max().double_value(&[]), 0.0);
}

#[test]
fn clipping_scales_all_gradients_to_the_norm_and_never_up() {
    let [a, b] = [3.0, 4.0].map(|x| Tensor::from_slice(&[x]).set_requires_grad(true));
    let variables = vec![
        ("a".to_owned(), a.shallow_clone()),
        ("b".to_owned(), b.shallow_clone()),
    ];
    let mut optimizer = Optimizer::new(&config::Optimizer::default(), variables);

    assert_eq!(optimizer.clip_norm(1.0).double_value(&[]), 0.0);

    (a.square() / 2.0 + b.square() / 2.0).backward();
    assert_eq!(optimizer.clip_norm(10.0).double_value(&[]), 5.0);
    assert_eq!(
        (a.grad().double_value(&[0]), b.grad().double_value(&[0])),
        (3.0, 4.0)
    );

    assert_eq!(optimizer.clip_norm(1.0).double_value(&[]), 5.0);
    // torch scales gradients by 1 / (5 + 1e-6).
    assert!((a.grad().double_value(&[0]) - 3.0 / 5.000_001).abs() < 1e-15);
    assert!((b.grad().double_value(&[0]) - 4.0 / 5.000_001).abs() < 1e-15);
}

/// Returns the change of each variable after one step of plain SGD with rate 1 in `epoch`, where all gradients are 1.
fn changes(settings: &config::Optimizer, layers: &[&str], epoch: u64) -> BTreeMap<String, f64> {
    let names = ["conv.weight", "dense.weight", "dense.bias", "fc.weight"];
    let variables = names.map(|name| {
        let variable = Tensor::ones([1], (Kind::Double, Device::Cpu)).set_requires_grad(true);
        variable.sum(Kind::Double).backward();
        (name.to_owned(), variable)
    });
    let shared = variables
        .iter()
        .map(|(name, variable)| (name.clone(), variable.shallow_clone()));
    let layers: Vec<String> = layers.iter().map(|&layer| layer.to_owned()).collect();
    let mut optimizer = Optimizer::new(settings, shared.collect()).with_layers(&layers);
    optimizer.set_epoch(epoch);
    optimizer.step(1.0);

    let changed = variables.into_iter();
    changed
        .map(|(name, variable)| (name, 1.0 - variable.double_value(&[0])))
        .collect()
}

#[test]
fn groups_and_layers_have_rates_of_their_own() {
    let group = |names: &str, lr_factor, weight_decay, frozen_epochs| config::ParameterGroup {
        names: names.to_owned(),
        lr_factor,
        weight_decay,
        frozen_epochs,
    };
    let plain = config::Optimizer {
        name: OptimizerKind::Sgd,
        momentum: 0.0,
        weight_decay: 0.25,
        ..config::Optimizer::default()
    };
    let expected = |values: [f64; 4]| {
        let names = ["conv.weight", "dense.bias", "dense.weight", "fc.weight"].map(str::to_owned);
        BTreeMap::from_iter(names.into_iter().zip(values))
    };
    assert_eq!(changes(&plain, &[], 0), expected([1.25; 4]));

    // The last group that matches applies: `dense.bias` has no weight decay, but the full rate.
    let grouped = config::Optimizer {
        groups: vec![
            group("dense.*", 0.5, None, 0),
            group("*.bias", 1.0, Some(0.0), 0),
            group("conv.*", 1.0, None, 2),
        ],
        ..plain.clone()
    };
    assert_eq!(changes(&grouped, &[], 1), expected([0.0, 1.0, 0.625, 1.25]));
    assert_eq!(
        changes(&grouped, &[], 2),
        expected([1.25, 1.0, 0.625, 1.25])
    );

    let by_layer = config::Optimizer {
        layer_decay: Some(0.5),
        ..plain
    };
    let layers = ["conv", "dense", "fc"];
    assert_eq!(
        changes(&by_layer, &layers, 0),
        expected([0.3125, 0.625, 0.625, 1.25])
    );
}
