//! Tests of single training steps on small stores.

use wavemill_schemas::exit::{self, Classified};

use super::*;
use crate::dataset::fixture::{self, Fixture, RowId};
use crate::dataset::{Loader, LoaderPlan, Split};
use crate::strategy::Solo;
use crate::testing::{self, config};

#[test]
fn a_batch_without_a_labelled_row_adds_nothing_and_labelled_rows_are_counted() {
    let _alone = testing::alone();
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = Fixture {
        clips: 24,
        unlabelled: 2,
        ..Fixture::default()
    };

    for target in ["genre", "genres_all"] {
        let config = config(&[&format!("data.targets=[\"{target}\"]")]);
        let data = testing::opened(&fixture, &config, &folder);
        let mut learner = Learner::new(&config, &data, &Solo, Device::Cpu).expect("a model");
        let plan = LoaderPlan {
            batch_size: 1,
            ..LoaderPlan::default()
        };

        for batch in Loader::start(&data, plan).expect("threads") {
            let batch = batch.expect("rows");
            let has_label = data.targets()[0]
                .labels(data.rows(), batch.rows[0])
                .next()
                .is_some();

            let stepped = learner
                .step(
                    &batch,
                    StepContext {
                        epoch: 0,
                        step: 0,
                        lr: 1e-3,
                    },
                    false,
                )
                .expect("a number");

            assert_eq!((stepped.rows, stepped.labelled), (1, u64::from(has_label)));
            assert_eq!(stepped.loss > 0.0, has_label, "{}", stepped.loss);
        }
    }
}

#[test]
fn a_layer_with_the_name_of_the_heads_is_an_error() {
    let model = config(&[]).model;
    let store = nn::VarStore::new(Device::Cpu);
    let _head = nn::linear(store.root() / HEAD, 4, 2, nn::LinearConfig::default());
    assert!(check_heads(&model, &store, 1).is_ok());

    let layer = store.root() / HEAD / "0";
    let _layer = nn::linear(layer, 4, 4, nn::LinearConfig::default());
    let told = check_heads(&model, &store, 1).expect_err("two layers");
    assert!(told.to_string().contains("rename the layer"), "{told}");
}

/// Returns whether training normalises by batch statistics, and the result of checking the configuration for two ranks.
fn train_batch_norm(sets: &[&str]) -> (bool, Result<(), String>) {
    let _alone = testing::alone();
    let folder = tempfile::tempdir().expect("a folder");

    let sets = [
        &["model.name=genregenie-cnn", "model.sync_batch_norm=true"],
        sets,
    ]
    .concat();
    let config = config(&sets);
    let data = testing::opened(
        &Fixture {
            shape: [16, 24],
            ..Fixture::default()
        },
        &config,
        &folder,
    );

    let learner = Learner::new(&config, &data, &Solo, Device::Cpu).expect("a model");
    (
        learner.trains_batch_norm(),
        Learner::check(&config, &data, 2).map_err(|error| error.to_string()),
    )
}

#[test]
fn batch_norm_over_ranks_needs_rows_that_are_there_unless_it_is_frozen() {
    assert_eq!(train_batch_norm(&["train.micro_batches=2"]), (true, Ok(())));

    let (_, told) = train_batch_norm(&["data.skip_damaged=true"]);
    assert!(
        told.as_ref()
            .is_err_and(|told| told.contains("without data.skip_damaged")),
        "{told:?}"
    );

    let (_, told) = train_batch_norm(&["train.micro_batches=16"]);
    assert!(
        told.as_ref()
            .is_err_and(|told| told.contains("needs a row on every rank")),
        "{told:?}"
    );

    let frozen = [
        "model.freeze=true",
        "model.init=weights",
        "data.skip_damaged=true",
        "train.micro_batches=16",
    ];
    assert_eq!(train_batch_norm(&frozen), (false, Ok(())));
}

#[test]
fn a_forward_pass_with_one_value_per_channel_is_refused_before_training() {
    let _alone = testing::alone();
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = Fixture {
        shape: [16, 96],
        ..Fixture::default()
    };
    let checked = |model: &str, sets: &[&str], ranks: usize| {
        let model = format!("model.name={model}");
        let config = config(&[&[model.as_str()], sets].concat());
        let data = testing::opened(&fixture, &config, &folder);
        (
            data.rows_of(Split::Training).len(),
            Learner::check(&config, &data, ranks).map_err(|error| error.to_string()),
        )
    };
    let is_refused = |(_, told): (usize, Result<(), String>)| {
        told.is_err_and(|told| told.contains("needs several values per channel"))
    };

    // 80 training rows; the batch norm behind this model's recurrent layers sees one value per row.
    let name = "crnn";
    assert_eq!(checked(name, &["data.batch_size=2"], 1), (80, Ok(())));
    assert!(is_refused(checked(name, &["data.batch_size=1"], 1)));
    assert!(is_refused(checked(name, &["data.batch_size=2"], 2)));
    assert!(is_refused(checked(
        name,
        &["data.batch_size=8", "train.micro_batches=8"],
        1
    )));
    // The last batch has one row.
    assert!(is_refused(checked(name, &["data.batch_size=79"], 1)));
    let whole = ["data.batch_size=79", "data.drop_last=true"];
    assert_eq!(checked(name, &whole, 1).1, Ok(()));

    // These have no batch norm, or one that normalises over frames as well.
    for name in ["lstm", "genregenie-cnn"] {
        assert_eq!(checked(name, &["data.batch_size=1"], 1).1, Ok(()));
    }
}

/// Values that include the largest f16 in clip 30.
fn with_damage(fixture: &Fixture, row: RowId) -> Vec<f32> {
    let mut values = fixture::learnable(fixture, row);
    if row.clip == 30 {
        values[7] = 65_504.0;
    }
    values
}

#[test]
fn a_loss_that_is_not_a_number_names_the_damaged_row() {
    let _alone = testing::alone();
    let explained = |values| {
        let folder = tempfile::tempdir().expect("a folder");
        let fixture = Fixture {
            values,
            ..Fixture::default()
        };
        let config = config(&["data.normalize=true"]);
        let data = testing::opened(&fixture, &config, &folder);
        let learner = Learner::new(&config, &data, &Solo, Device::Cpu).expect("a model");
        let context = StepContext {
            epoch: 0,
            step: 3,
            lr: 1e-3,
        };
        let plan = LoaderPlan {
            batch_size: 1000,
            ..LoaderPlan::default()
        };
        let batch = Loader::start(&data, plan).expect("threads").next();
        let error =
            learner.explain_loss(&batch.expect("a batch").expect("rows"), f64::NAN, context);
        (error.kind(), error.to_string())
    };

    let clip = format!(".parquet: clip {}, segment 0", Fixture::clip_key(30));
    let (kind, told) = explained(with_damage);
    assert_eq!(kind, exit::Kind::Damaged, "{told}");
    assert!(
        told.contains(&clip) && told.contains("wavemill verify"),
        "{told}"
    );
    let (kind, told) = explained(fixture::learnable);
    assert_eq!(kind, exit::Kind::Failed);
    assert!(told.contains("lower optimizer.lr"), "{told}");
}
