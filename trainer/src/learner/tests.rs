//! Tests of single training steps on small stores.

use super::*;
use crate::dataset::fixture::Fixture;
use crate::dataset::{Loader, LoaderPlan};
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
                .labels(data.rows(), batch.rows()[0])
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
