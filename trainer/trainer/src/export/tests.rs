//! Tests that an exported file can be read back and gives the same output as the model.

use std::collections::BTreeMap;

use wavemill_schemas::config::{Config, Data, Model, Precision, Train};
use wavemill_schemas::recipe::Recipe;
use wavemill_schemas::run::RunDir;

use super::*;
use crate::checkpoint::{self, Checkpoints};
use crate::dataset::fixture::Fixture;
use crate::dataset::{self, GENRES_ALL, Loader, LoaderPlan, Split};
use crate::models::is_head;
use crate::models::registry::TABLE;
use crate::run::{self, Job, RunMonitor};
use crate::strategy::Solo;
use crate::testing::{TrainedFixture, alone, made};

/// Maximum difference of a logit. A trace executes the same operations, but a fused pair of operations rounds once
/// less, which changes logits around 1 by about 1e-7.
const LOGIT_ABS_MAX: f64 = 1e-6;

fn config(model: &str) -> Config {
    Config {
        model: Model {
            name: model.to_owned(),
            ..Model::default()
        },
        data: Data {
            batch_size: 8,
            normalize: true,
            ..Data::default()
        },
        ..Config::default()
    }
}

/// Returns input rows that the architecture `model` accepts, with a few steps for recurrent layers.
fn fixture(model: &str) -> Fixture {
    let [bands, frames] = registry::find(model).expect("a model").least();
    Fixture {
        clips: 24,
        shape: [bands.max(16) as usize, frames as usize + 20],
        ..Fixture::default()
    }
}

fn about(made: &TrainedFixture, trained: &TrainedModel) -> ModelCard {
    let recipe = made.folder.path().join("recipe.toml");
    fs::write(
        &recipe,
        toml::to_string(&made.data.store().manifest().recipe).expect("TOML"),
    )
    .expect("room");
    ModelCard::new(trained, &recipe).expect("a description")
}

#[test]
fn torchscript_matches_the_model_for_any_batch_size() {
    let alone = alone();
    for entry in TABLE {
        let several = entry.name == "crnn";
        let mut config = config(entry.name);
        if several {
            config.data.targets = vec!["genre".to_owned(), GENRES_ALL.to_owned()];
        }
        if entry.name == "lstm" {
            config.model.hidden = vec![10, 20, 30];
        }
        let is_quick = ["cnn2d", "crnn", "lstm", "mlp-1", "mlp-4"].contains(&entry.name);
        let made = made(
            &fixture(entry.name),
            &config,
            if is_quick { 2 } else { 0 },
            &alone,
        );

        let trained = TrainedModel::load(&made.checkpoint, Device::Cpu).expect("a model");
        let about = about(&made, &trained);

        let out = made.folder.path().join("model.pt");
        let beside = write_torchscript(&trained, &about, &out).expect("room");
        let told: ModelCard =
            serde_json::from_slice(&fs::read(beside).expect("the JSON")).expect("a description");
        assert_eq!(told, about, "{}", entry.name);

        let module = CModule::load(&out).expect("a module");
        for batch_size in [1, 3] {
            let plan = LoaderPlan {
                split: Split::Validation,
                batch_size,
                ..LoaderPlan::default()
            };

            let batch = Loader::start(&made.data, plan)
                .expect("threads")
                .next()
                .expect("rows")
                .expect("no damage");
            let inputs = dataset::inputs(&batch, Device::Cpu, Kind::Float).expect("tensors");
            let want = tch::no_grad(|| trained.net.forward(&inputs, false)).expect("logits");

            let Inputs {
                spectrogram,
                metadata,
                ids,
            } = inputs;
            let known = [
                ("spectrogram", Some(spectrogram)),
                ("metadata", metadata),
                ("ids", ids),
            ];
            let mut known: BTreeMap<&str, Option<Tensor>> = known.into_iter().collect();
            let mut given = Vec::new();
            for argument in &about.arguments {
                let tensor = known.remove(argument.name.as_str()).flatten();
                given.push(tensor.expect("what the model sees"));
            }
            let got = module.forward_ts(&given).expect("logits");

            assert_eq!(about.outputs.len(), want.len());
            for (output, want) in about.outputs.iter().zip(&want) {
                let got = got.narrow(1, output.column as i64, output.classes.len() as i64);
                assert_eq!(got.size(), want.size(), "{}", entry.name);
                let off = (&got - want).abs().max().double_value(&[]);
                assert!(
                    off <= LOGIT_ABS_MAX,
                    "{}, {batch_size} rows: {off}",
                    entry.name
                );
            }
        }
    }
}

#[test]
fn safetensors_hold_the_weights_and_what_they_are_of() {
    let alone = alone();
    let made = made(&fixture("crnn"), &config("crnn"), 2, &alone);
    let trained = TrainedModel::load(&made.checkpoint, Device::Cpu).expect("a model");
    let about = about(&made, &trained);
    let out = made.folder.path().join("model.safetensors");
    write_safetensors(&trained, &about, &out).expect("room");

    let read: BTreeMap<String, Tensor> = Tensor::read_safetensors(&out)
        .expect("the form")
        .into_iter()
        .collect();
    let learned = made.learner.variables();
    assert_eq!(read.len(), learned.len());
    for (name, tensor) in learned {
        assert!(read[&name].equal(&tensor), "{name}");
    }

    let bytes = fs::read(&out).expect("the file");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    assert!(header.is_multiple_of(8));

    let header: Value = serde_json::from_slice(&bytes[8..8 + header]).expect("JSON");
    let text = header["__metadata__"][METADATA_KEY]
        .as_str()
        .expect("a string");
    let told: ModelCard = serde_json::from_str(text).expect("a description");

    assert_eq!(told, about);
    assert_eq!(told.outputs[0].classes, ["class 0", "class 1", "class 2"]);
    assert_eq!(
        (&told.feature_id, &told.dims),
        (&made.data.feature().feature_id, &dataset::dims(&made.data))
    );

    let recipe: Recipe = serde_json::from_value(told.recipe).expect("a recipe");
    assert_eq!(&recipe, &made.data.store().manifest().recipe);
}

#[test]
fn a_run_starts_from_exported_weights_and_remembers_it() {
    let alone = alone();
    let made = made(&fixture("crnn"), &config("crnn"), 1, &alone);
    let trained = TrainedModel::load(&made.checkpoint, Device::Cpu).expect("a model");
    let weights = made.folder.path().join("weights.safetensors");
    write_safetensors(&trained, &about(&made, &trained), &weights).expect("room");

    let model = Model {
        init: Some(weights.clone()),
        freeze: true,
        ..config("crnn").model
    };
    let config = Config {
        model,
        train: Train {
            epochs: 1,
            ..Train::default()
        },
        ..config("crnn")
    };

    let run = RunDir::create_next(made.folder.path(), "run").expect("a folder");
    run.write_config(&toml::to_string(&config).expect("TOML"))
        .expect("room");
    let mut job = Job {
        config,
        folder: run.path().to_owned(),
        resume: false,
        device: Device::Cpu,
        readers: 1,
        prefetch_batches: 1,
        test: false,
        profile_steps: 0,
        keep_going: None,
    };

    let first = run::fit(&job, &made.data, &Solo, &RunMonitor::default())
        .expect("a run")
        .result;

    let mut backbone = made.learner.variables();
    backbone.retain(|(name, _)| !is_head(name));
    let tensors = backbone.len();
    assert_eq!(
        first.start,
        format!("from weights.safetensors ({tensors} tensors)")
    );

    // A resumed run does not need the file with the initial weights.
    fs::remove_file(&weights).expect("the file");
    (job.resume, job.config.train.epochs) = (true, 2);
    let second = run::fit(&job, &made.data, &Solo, &RunMonitor::default())
        .expect("a run")
        .result;
    assert_eq!((second.start, second.epochs), (first.start, 2));

    let last = Checkpoints::open(run.checkpoints(), 1)
        .and_then(|c| c.last())
        .expect("a checkpoint");
    let read = checkpoint::read_tensors(&last).expect("tensors");
    for (name, tensor) in &backbone {
        assert!(
            read[&format!("model.{name}")].equal(tensor),
            "{name} is frozen"
        );
    }

    assert_eq!(
        checkpoint::read_state(&last).expect("a state").origin,
        Origin::Pretrained {
            file: weights,
            tensors
        }
    );
}

#[test]
fn a_model_in_f64_says_so() {
    let alone = alone();
    let config = Config {
        train: Train {
            precision: Precision::F64,
            ..Train::default()
        },
        ..config("crnn")
    };

    let made = made(&fixture("crnn"), &config, 0, &alone);
    let trained = TrainedModel::load(&made.checkpoint, Device::Cpu).expect("a model");
    let about = about(&made, &trained);
    assert_eq!(about.arguments[0].dtype, "f64");

    let out = made.folder.path().join("model.pt");
    write_torchscript(&trained, &about, &out).expect("room");
    let zeros = Tensor::zeros(
        [2, about.dims.bands, about.dims.frames],
        (Kind::Double, Device::Cpu),
    );

    let got = CModule::load(&out)
        .expect("a module")
        .forward_ts(&[zeros])
        .expect("logits");
    assert_eq!(got.kind(), Kind::Double);
}

#[test]
fn failed_export_leaves_no_files() {
    let alone = alone();
    let made = made(&fixture("crnn"), &config("crnn"), 0, &alone);
    let trained = TrainedModel::load(&made.checkpoint, Device::Cpu).expect("a model");
    let about = about(&made, &trained);

    let error = write_safetensors(&trained, &about, &made.folder.path().join("no such/model"))
        .expect_err("no folder");
    assert!(error.to_string().ends_with("no such/model"), "{error}");

    // A file cannot replace a non-empty folder, so the export to this path fails.
    let taken = made.folder.path().join("taken");
    fs::create_dir(&taken).expect("room");
    fs::write(taken.join("file"), "kept").expect("room");
    assert!(write_safetensors(&trained, &about, &taken).is_err() && taken.join("file").is_file());
    // Nor is a description of a model left without it, which may describe another model of this name.
    assert!(write_torchscript(&trained, &about, &taken).is_err() && taken.join("file").is_file());
    assert!(!made.folder.path().join("taken.json").exists());

    for entry in fs::read_dir(made.folder.path()).expect("a folder") {
        let name = entry.expect("an entry").file_name();
        assert!(!name.to_string_lossy().starts_with(".export"), "{name:?}");
    }

    let recipe = made.folder.path().join("bad.toml");
    fs::write(&recipe, "name = ").expect("room");
    let error = ModelCard::new(&trained, &recipe).expect_err("no recipe");
    assert!(
        error.to_string().contains("is not a valid recipe"),
        "{error}"
    );
}
