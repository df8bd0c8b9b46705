//! Tests of every architecture: training, saving and loading, and reproducible output.

use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};
use wavemill_schemas::config::{Config, SHIPPED};

use super::registry::{TABLE, find};
use super::*;
use crate::testing::alone;

const ROWS: i64 = 4;

fn dims() -> Dims {
    let heads = vec![("genre".to_owned(), 3), ("sub".to_owned(), 5)];
    Dims {
        bands: 32,
        frames: 40,
        channels: None,
        metadata: 12,
        vocabulary: [4, 6],
        heads,
    }
}

/// Returns small dimensions that the architecture `name` accepts, with a few steps for recurrent layers.
fn dims_for(name: &str) -> Dims {
    let [bands, frames] = find(name).unwrap().least();
    Dims {
        bands: bands.max(20),
        frames: frames + 48,
        ..dims()
    }
}

fn build(model: &config::Model, dims: &Dims) -> Result<(VarStore, Net), ModelError> {
    let store = VarStore::new(Device::Cpu);
    let net = Net::build(model, dims, &store.root(), None)?;
    Ok((store, net))
}

/// Returns the model `name` with its variables.
fn built(name: &str, dims: &Dims) -> (VarStore, Net) {
    build(&config::Model::named(name), dims).unwrap()
}

/// Returns the error of a model that cannot be built.
fn refusal(model: &config::Model, dims: &Dims) -> String {
    build(model, dims).expect_err("refused").to_string()
}

/// Returns the answers of a model outside of training.
fn answers(net: &Net, inputs: &Inputs) -> Vec<Tensor> {
    net.forward(inputs, false).unwrap()
}

fn largest(tensor: &Tensor) -> f64 {
    tensor.abs().max().double_value(&[])
}

fn inputs(dims: &Dims) -> Inputs {
    let place = (Kind::Float, Device::Cpu);
    Inputs {
        spectrogram: Tensor::rand([vec![ROWS], dims.row_shape()].concat(), place),
        metadata: Some(Tensor::randn([ROWS, dims.metadata], place)),
        ids: Some(Tensor::from_slice(&[1_i64, 1, 2, 2, 3, 4, 1, 5]).view([ROWS, 2])),
    }
}

fn loss(net: &Net, inputs: &Inputs) -> Tensor {
    let logits = net.forward(inputs, true).unwrap();
    let labels = [
        Tensor::from_slice(&[0_i64, 1, 2, 1]),
        Tensor::from_slice(&[4_i64, 0, 2, 3]),
    ];

    logits
        .iter()
        .zip(&labels)
        .map(|(x, y)| x.cross_entropy_for_logits(y))
        .sum()
}

/// Executes one step of gradient descent. Returns the variables whose gradient is missing, zero or not finite.
fn step(store: &VarStore, loss: &Tensor) -> Vec<String> {
    loss.backward();

    let mut without = Vec::new();
    for (name, mut variable) in store.variables() {
        if !variable.requires_grad() {
            continue;
        }

        let mut gradient = variable.grad();
        let is_sound = gradient.defined() && {
            let largest = largest(&gradient);
            largest > 0.0 && largest.is_finite()
        };
        if !is_sound {
            without.push(name);
            continue;
        }

        let _ = tch::no_grad(|| variable.g_sub_(&(&gradient * 0.02)));
        let _ = gradient.zero_();
    }

    without
}

fn same(a: &[Tensor], b: &[Tensor]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equal(b))
}

/// Checks that ten training steps give all variables gradients and decrease the loss, then loads the saved model.
fn trains_and_comes_back(model: config::Model) {
    let _alone = alone();
    tch::manual_seed(1);

    let name = &*model.name;
    let model = config::Model {
        dropout: Some(0.0),
        ..model.clone()
    };
    let dims = dims_for(name);
    let inputs = inputs(&dims);
    let (store, net) = build(&model, &dims).unwrap();

    let mut losses = Vec::new();
    for _ in 0..10 {
        let loss = loss(&net, &inputs);
        losses.push(loss.double_value(&[]));
        assert_eq!(step(&store, &loss), [""; 0], "{name}: without gradient");
    }
    assert!(losses[9] < losses[0], "{name}: {losses:?}");

    let first = answers(&net, &inputs);
    let again = answers(&net, &inputs);
    assert!(same(&first, &again), "{name}: two answers");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    store.save(&file).unwrap();
    let (mut other, loaded) = build(&model, &dims).unwrap();
    let fresh = answers(&loaded, &inputs);
    assert!(!same(&first, &fresh), "{name}: fresh, yet equal");

    other.load(&file).unwrap();
    let back = answers(&loaded, &inputs);
    assert!(same(&first, &back), "{name}: another model came back");

    let embedded = net.embed(&inputs).unwrap();
    assert_eq!(embedded.size(), [ROWS, net.width()], "{name}");
}

macro_rules! each {
    ($($test:ident = $name:literal),* $(,)?) => {
        $(#[test] fn $test() { trains_and_comes_back(config::Model::named($name)); })*
        const TESTED: &[&str] = &[$($name),*];
    };
}

each! {
    cnn2d = "cnn2d",
    cnn1d_gru = "cnn1d-gru",
    cnn1d_lstm = "cnn1d-lstm",
    cnn2d_gru = "cnn2d-gru",
    cnn2d_lstm = "cnn2d-lstm",
    genregenie_cnn = "genregenie-cnn",
    crnn = "crnn",
    crnn_simple = "crnn-simple",
    lstm = "lstm",
    cnn1d = "cnn1d",
    mlp_4 = "mlp-4",
    mlp_1 = "mlp-1",
    linear_probe = "linear-probe",
    mlp_probe = "mlp-probe",
    fusion = "fusion",
    crnn_lstm64 = "crnn-lstm64",
    parallel_cnn_bigru = "parallel-cnn-bigru",
    resnet50 = "resnet50",
    xception = "xception",
}

#[test]
fn all_architectures_are_tested() {
    let names: Vec<&str> = TABLE.iter().map(|architecture| architecture.name).collect();
    assert_eq!(names, TESTED);
}

#[test]
fn parameters_are_those_of_torchvision_and_timm() {
    for (name, classes, want) in [
        ("resnet50", 1000, 25_557_032),
        ("resnet50", 10, 23_528_522),
        ("xception", 1000, 22_855_952),
        ("xception", 10, 20_827_442),
    ] {
        let described =
            describe::describe(&config::Model::named(name), Some([32, 32]), Some(classes)).unwrap();
        assert_eq!(described.parameters, want, "{name} at {classes} classes");
    }
}

#[test]
fn variables_have_the_names_and_number_of_torchvision_and_timm() {
    fn keys(name: &str) -> Vec<String> {
        let dims = Dims {
            heads: vec![("genre".to_owned(), 10)],
            ..dims()
        };
        let (store, _) = built(name, &dims);
        let mut keys: Vec<String> = store.variables().into_keys().collect();
        keys.sort();
        keys
    }

    // Variables without `num_batches_tracked`. ResNet-50: 53 convolutions and batch norms, a head. Xception: 74 and 40.
    let resnet = keys("resnet50");
    assert_eq!(resnet.len(), 53 * 5 + 2);
    for key in [
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.downsample.1.bias",
        "layer4.2.conv3.weight",
        "fc.bias",
    ] {
        assert!(resnet.iter().any(|have| have == key), "{key}");
    }

    let xception = keys("xception");
    assert_eq!(xception.len(), 74 + 40 * 4 + 2);
    for key in [
        "block1.rep.0.conv1.weight",
        "block1.rep.4.running_mean",
        "block1.skipbn.weight",
        "block2.rep.1.pointwise.weight",
        "block12.rep.5.weight",
        "block11.rep.7.conv1.weight",
        "conv4.pointwise.weight",
        "bn4.bias",
    ] {
        assert!(xception.iter().any(|have| have == key), "{key}");
    }
}

#[test]
fn short_rows_error_states_the_minimum() {
    for architecture in TABLE
        .iter()
        .filter(|architecture| architecture.needs.spectrogram())
    {
        let name = architecture.name;
        let [bands, frames] = architecture.least();
        let with = |bands, frames| Dims {
            bands,
            frames,
            ..dims()
        };

        let least = with(bands, frames);
        let (_store, net) = built(name, &least);
        let sizes = answers(&net, &inputs(&least))[1].size();
        assert_eq!(sizes, [ROWS, 5], "{name}");

        for (axis, least, short) in [
            ("bands", bands, with(bands - 1, frames)),
            ("frames", frames, with(bands, frames - 1)),
        ] {
            let rows = format!("rows have {}", least - 1);
            assert_eq!(
                refusal(&config::Model::named(name), &short),
                format!("{name} needs at least {least} {axis}, {rows}")
            );
        }
    }
}

#[test]
fn f64_and_autocast_give_answers_near_f32() {
    let _alone = alone();
    for architecture in TABLE {
        let dims = dims_for(architecture.name);
        let (mut store, net) = built(architecture.name, &dims);
        let inputs = inputs(&dims);
        let usual = answers(&net, &inputs);

        crate::ffi::set_autocast_bf16(Device::Cpu, true).unwrap();
        let rough = answers(&net, &inputs);
        crate::ffi::set_autocast_bf16(Device::Cpu, false).unwrap();

        store.double();
        let doubled = Inputs {
            spectrogram: inputs.spectrogram.to_kind(Kind::Double),
            metadata: inputs.metadata.map(|x| x.to_kind(Kind::Double)),
            ids: inputs.ids,
        };
        let exact = answers(&net, &doubled);

        let size = largest(&exact[0]);
        for (kind, answer, most) in [("f32", &usual[0], 1e-4), ("bf16", &rough[0], 0.1)] {
            let off = largest(&(answer.to_kind(Kind::Double) - &exact[0]));
            assert!(
                off < most * size.max(1.0),
                "{}: {kind} off by {off}",
                architecture.name
            );
        }
    }
}

#[test]
fn autocast_trains() {
    let _alone = alone();
    for name in ["cnn2d-gru", "crnn", "fusion"] {
        let dims = dims_for(name);
        let (store, net) = built(name, &dims);
        crate::ffi::set_autocast_bf16(Device::Cpu, true).unwrap();
        let loss = loss(&net, &inputs(&dims));
        crate::ffi::set_autocast_bf16(Device::Cpu, false).unwrap();
        assert_eq!(step(&store, &loss), [""; 0], "{name}");
    }
}

#[test]
fn unsupported_options_are_errors() {
    let channels = config::Model {
        channels: 3,
        ..config::Model::named("cnn2d")
    };
    let text = refusal(&channels, &dims());
    assert_eq!(
        text,
        "model.channels = 3: must be a whole number; cnn2d takes 1"
    );

    let freeze = config::Model {
        freeze: true,
        ..config::Model::named("resnet50")
    };
    let text = refusal(&freeze, &dims());
    assert!(text.starts_with("model.freeze = true: only with model.init"));

    let dropout = config::Model {
        dropout: Some(1.0),
        ..config::Model::named("lstm")
    };
    let text = refusal(&dropout, &dims());
    assert!(text.starts_with("model.dropout = 1: must be from 0"));

    let columns = Dims {
        metadata: 0,
        ..dims()
    };
    assert_eq!(
        refusal(&config::Model::named("mlp-4"), &columns),
        "mlp-4 needs columns: set data.metadata to columns of fma_features, or data.feature to a feature of statistics"
    );

    let no_heads = Dims {
        heads: Vec::new(),
        ..dims()
    };
    assert!(refusal(&config::Model::named("lstm"), &no_heads).starts_with("data.targets = []"));
}

/// Returns the model `name` with these numbers of filters and hidden sizes.
fn sized(name: &str, filters: &[i64], hidden: &[i64]) -> config::Model {
    config::Model {
        filters: filters.to_vec(),
        hidden: hidden.to_vec(),
        ..config::Model::named(name)
    }
}

#[test]
fn models_of_other_widths_train() {
    for (name, filters, hidden) in [
        ("cnn2d", &[8, 9, 10][..], &[11, 12][..]),
        ("cnn1d-gru", &[8, 9, 10], &[11, 12, 13]),
        ("cnn2d-lstm", &[8, 9, 10], &[11, 12, 13]),
        ("genregenie-cnn", &[8, 9, 10], &[]),
        ("crnn", &[8, 9, 10], &[11, 12, 13]),
        ("crnn-simple", &[], &[11]),
        ("lstm", &[], &[11, 12, 13]),
        ("cnn1d", &[8, 9, 10], &[11]),
        ("mlp-4", &[], &[11, 12, 13, 14]),
        ("mlp-1", &[], &[11]),
        ("fusion", &[8, 9], &[11, 12]),
        ("crnn-lstm64", &[8, 9, 10], &[11, 12]),
        ("parallel-cnn-bigru", &[8, 9, 10, 11, 12], &[13]),
    ] {
        trains_and_comes_back(sized(name, filters, hidden));
    }
}

#[test]
fn widths_are_those_of_the_configuration() {
    let cnn = sized("cnn1d", &[4, 5, 6], &[7]);
    let described = describe::describe(&cnn, Some([20, 200]), Some(3)).unwrap();
    let convolutions = 20 * 4 * 5 + 4 * 5 * 5 + 5 * 6 * 5;
    let norms = 2 * (4 + 5 + 6);
    // The mean and the maximum of each channel are the inputs of the dense layer.
    let dense = 12 * 7 + 7 + 7 * 3 + 3;
    assert_eq!(described.parameters, convolutions + norms + dense);
    assert_eq!(
        (&described.filters[..], &described.hidden[..]),
        (&[4, 5, 6][..], &[7][..])
    );

    // Variables of recurrent layers of different widths: four gates with weights of inputs and states, and two biases.
    let lstm = sized("lstm", &[], &[5, 6, 7]);
    let described = describe::describe(&lstm, Some([20, 30]), Some(3)).unwrap();
    let first = 4 * (20 * 5 + 5 * 5 + 2 * 5);
    let second = 4 * (5 * 6 + 6 * 6 + 2 * 6);
    assert_eq!(described.parameters, first + second + 6 * 7 + 7 + 7 * 3 + 3);

    let own = describe::describe(&config::Model::named("crnn"), None, None).unwrap();
    assert_eq!(
        (&own.filters[..], &own.hidden[..]),
        (&[64, 128, 128][..], &[64, 64, 64][..])
    );
}

#[test]
fn widths_that_do_not_fit_are_errors() {
    for (model, told) in [
        (
            sized("cnn1d", &[32, 64], &[]),
            "model.filters = [32, 64]: cnn1d takes one number per convolution, 3 in all; the default is [128, 128, 256]",
        ),
        (
            sized("crnn", &[], &[64]),
            "model.hidden = [64]: crnn takes one number per hidden layer, 3 in all; the default is [64, 64, 64]",
        ),
        (
            sized("lstm", &[32], &[]),
            "model.filters = [32]: lstm has no convolution whose size can be set; leave model.filters out",
        ),
        (
            sized("resnet50", &[32], &[]),
            "model.filters = [32]: resnet50 has no convolution whose size can be set; leave model.filters out",
        ),
        (
            sized("linear-probe", &[], &[32]),
            "model.hidden = [32]: linear-probe has no hidden layer whose size can be set; leave model.hidden out",
        ),
    ] {
        assert_eq!(refusal(&model, &dims()), told);
    }
}

#[test]
fn he_normal_has_its_variance_and_its_cut() {
    let store = VarStore::new(Device::Cpu);
    let scope = VarScope::new(&store.root(), &config::Model::default(), None);
    let weight = scope
        .variable("weight", &[256, 64, 3, 3], layers::Initializer::HeNormal)
        .unwrap();

    let want = (2.0 / (64.0 * 9.0_f64)).sqrt();
    let deviation = weight.std(true).double_value(&[]);
    // With 147,456 draws, the standard error of the measured deviation is 0.2 %.
    assert!(
        (deviation / want - 1.0).abs() < 0.01,
        "{deviation} instead of {want}"
    );

    let cut = 2.0 * want / 0.879_625_661_034_239_8;
    let largest = largest(&weight);
    assert!(
        largest <= cut * 1.0001 && largest > cut * 0.98,
        "{largest}, cut at {cut}"
    );
}

#[test]
fn an_unknown_artist_has_the_vector_zero_and_keeps_it() {
    let _alone = alone();
    let dims = dims_for("fusion");
    let (store, net) = built("fusion", &dims);

    let mut inputs = inputs(&dims);
    inputs.ids = Some(Tensor::from_slice(&[0_i64, 0, 0, 2, 3, 0, 1, 5]).view([ROWS, 2]));

    let _ = step(&store, &loss(&net, &inputs));
    let artists = &store.variables()["artist.weight"];
    assert_eq!(largest(&artists.get(0)), 0.0);
    assert!(largest(&artists.get(1)) > 0.0);

    inputs.ids = None;
    assert_eq!(
        net.forward(&inputs, false).expect_err("no ids").to_string(),
        "fusion needs ids of artist and album"
    );
}

#[test]
fn a_description_is_read_off_the_model() {
    fn last(d: &describe::Description, name: &str) -> Option<Vec<i64>> {
        let stage = d.stages.iter().find(|stage| stage.name == name);
        stage.map(|stage| stage.shape.clone())
    }

    let cnn = describe::describe(&config::Model::named("cnn2d"), None, None).unwrap();
    assert_eq!(last(&cnn, "pool"), Some(vec![64, 4, 40]));
    assert_eq!(
        (cnn.width, &cnn.dropout[..]),
        (256, &[0.2, 0.1, 0.1, 0.5, 0.4][..])
    );

    let parallel =
        describe::describe(&config::Model::named("parallel-cnn-bigru"), None, None).unwrap();
    assert_eq!(last(&parallel, "conv5"), Some(vec![64, 4, 5]));
    assert_eq!(parallel.width, 1280 + 64);

    let fusion = describe::describe(&config::Model::named("fusion"), None, Some(8)).unwrap();
    assert_eq!(last(&fusion, "side by side"), Some(vec![64 + 140 + 32]));

    assert_eq!(
        describe::describe(&config::Model::named("mlp-1"), None, Some(8))
            .unwrap()
            .parameters,
        140 * 128 + 128 + 128 * 8 + 8
    );
}

#[test]
fn parameters_of_all_stages_are_those_of_the_model() {
    for architecture in TABLE {
        let model = describe::describe(&config::Model::named(architecture.name), None, None)
            .expect("a model");
        let stages: i64 = model.stages.iter().map(|stage| stage.parameters).sum();
        let heads = model.heads.iter();
        let heads: i64 = heads
            .map(|(_, classes)| model.head_parameters(*classes))
            .sum();
        assert_eq!(stages + heads, model.parameters, "{}", model.name);
    }
}

#[test]
fn stages_have_their_branches() {
    let fusion = describe::describe(&config::Model::named("fusion"), None, None).expect("a model");
    let names: Vec<&str> = fusion.branches.iter().map(|branch| branch.name).collect();
    assert_eq!(names, ["spectrogram", "metadata", "artist", "album"]);

    let parallel = describe::describe(&config::Model::named("parallel-cnn-bigru"), None, None)
        .expect("a model");
    let branches: [(Option<&str>, &[&str]); 3] = [
        (
            Some("convolutions"),
            &["conv1", "conv2", "conv3", "conv4", "conv5"],
        ),
        (Some("recurrent"), &["steps", "recurrent"]),
        (None, &["side by side"]),
    ];
    for (branch, want) in branches {
        let stages = parallel.stages.iter().filter(|x| x.branch == branch);
        let names: Vec<&str> = stages.map(|x| x.name.as_str()).collect();
        assert_eq!(names, want);
    }
}

#[test]
fn equal_operations_are_counted() {
    let resnet =
        describe::describe(&config::Model::named("resnet50"), None, None).expect("a model");
    let operations = resnet.stages[2].operations.iter();
    let settings: Vec<&str> = operations.map(|one| one.settings.as_str()).collect();
    assert_eq!(
        settings,
        [
            "1 × 1, 3 × 3, 1 × 1, 128 to 512 channels, stride 2, 1 × 1 in the shortcut",
            "1 × 1, 3 × 3, 1 × 1, 128 to 512 channels, 3 times"
        ]
    );
}

/// Returns the names of biases that convolutions and dense layers could have but lack.
fn without_bias(store: &VarStore) -> Vec<String> {
    let variables = store.variables();
    let is_layer =
        |(name, tensor): &(&String, &Tensor)| name.ends_with(".weight") && tensor.dim() >= 2;

    let biases = variables
        .iter()
        .filter(is_layer)
        .map(|(name, _)| name.replace(".weight", ".bias"));
    biases
        .filter(|bias| !variables.contains_key(bias))
        .collect()
}

#[test]
fn architecture_texts_match_the_models() {
    for architecture in TABLE {
        let name = architecture.name;
        let (store, net) = built(name, &dims_for(name));
        let told = format!(
            "{}; {}; {}",
            architecture.text, architecture.repository, architecture.our_choice
        );
        let says = |message: &str| told.contains(message);

        let is_complete = !says("; ;") && architecture.our_choice != "nothing";
        assert!(is_complete, "{name}: {told}");
        let lacks_bias = !without_bias(&store).is_empty();
        assert_eq!(lacks_bias, says("without bias"), "{name}: {told}");
        assert!(
            net.dropout().is_empty() || says("dropout"),
            "{name}: {told}"
        );

        let variables = store.variables();
        let normalised = variables.keys().any(|name| name.ends_with("running_mean"));
        assert_eq!(normalised, says("batch norm"), "{name}: {told}");
    }
}

#[test]
fn shipped_configurations_name_existing_architectures() {
    for shipped in &SHIPPED {
        let config = Config::parse(shipped.text, shipped.name, &[]).expect(shipped.name);
        find(&config.model.name).expect(shipped.name);
    }
}
