//! Steps on small stores.

use super::*;
use crate::dataset::fixture::Fixture;
use crate::dataset::{Loader, LoaderPlan};
use crate::strategy::Solo;
use crate::testing;

fn config(sets: &[&str]) -> Config {
    let sets: Vec<String> = ["model.name=lstm"].iter().chain(sets).map(|&set| set.to_owned()).collect();
    Config::parse("", "the test", &sets).expect("a configuration")
}

#[test]
fn a_batch_without_a_labelled_row_adds_nothing_and_labelled_rows_are_counted() {
    let _alone = testing::alone();
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = Fixture { clips: 24, unlabelled: 2, ..Fixture::default() };
    for target in ["genre", "genres_all"] {
        let config = config(&[&format!("data.targets=[\"{target}\"]")]);
        let data = testing::opened(&fixture, &config, &folder);
        let mut learner = Learner::new(&config, &data, &Solo, Device::Cpu).expect("a model");
        let plan = LoaderPlan { batch_size: 1, ..LoaderPlan::default() };
        for batch in Loader::start(&data, plan).expect("threads") {
            let batch = batch.expect("rows");
            let has_label = data.targets()[0].labels(data.rows(), batch.rows()[0]).next().is_some();
            let stepped = learner.step(&batch, Clock { epoch: 0, step: 0, lr: 1e-3 }, false).expect("a number");
            assert_eq!((stepped.rows, stepped.labelled), (1, u64::from(has_label)));
            assert_eq!(stepped.loss > 0.0, has_label, "{}", stepped.loss);
        }
    }
}
