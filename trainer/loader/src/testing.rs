//! Helpers for tests that create small stores, open them as datasets and load batches.
//!
//! This file refers to this crate only through `super`, because the trainer's tests include it in another module, in
//! which the same names mean datasets with libtorch's memory.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use wavemill_schemas::config::Data;
use wavemill_schemas::manifest::{FeatureEntry, Scale, Stats};

use super::fixture::Fixture;
use super::{
    Batch, Dataset, DatasetError, InputSpec, Loader, LoaderPlan, MetadataColumn, Needs, Store,
};

/// Opens the latest version of a store as a dataset.
pub(super) fn open(root: &Path, data: &Data, needs: Needs) -> Result<Arc<Dataset>, DatasetError> {
    Dataset::open(Store::open(root, None)?, data, needs)
}

/// Writes a store with the properties `fixture` to a temporary folder and opens it with all inputs. Dropping the folder
/// removes the store.
pub(super) fn made(fixture: &Fixture, data: &Data) -> (TempDir, Arc<Dataset>) {
    let folder = tempfile::tempdir().expect("a folder");
    fixture.write(folder.path());
    let dataset = open(folder.path(), data, Needs::All).expect("a dataset");
    (folder, dataset)
}

/// Returns a plan that reads an epoch in shuffled batches of ten rows.
pub(super) fn training() -> LoaderPlan {
    LoaderPlan {
        shuffle: true,
        seed: 5,
        batch_size: 10,
        ..LoaderPlan::default()
    }
}

/// Loads all batches of `plan`.
pub(super) fn load(dataset: &Arc<Dataset>, plan: LoaderPlan) -> Vec<Batch> {
    Loader::start(dataset, plan)
        .expect("threads")
        .collect::<Result<_, _>>()
        .expect("no damage")
}

/// Returns a model's inputs: a u8 feature of two bands, standardised by band, two metadata columns, one of which is
/// constant, and artists.
pub(super) fn input_spec(
    shape: [Option<usize>; 2],
    dim_names: [&str; 2],
    frames: usize,
) -> InputSpec {
    let feature = FeatureEntry {
        name: "mel".to_owned(),
        feature_id: "id".to_owned(),
        dtype: "u8".to_owned(),
        scale: Some(Scale {
            factor: 0.5,
            offset: 1.0,
        }),
        shape: shape.to_vec(),
        dim_names: dim_names.map(str::to_owned).to_vec(),
        sample_rate_hz: Some(22_050),
        hop_length: Some(512),
        preset: "librosa".to_owned(),
        columns: None,
    };

    let normalize = Some(Stats {
        mean: vec![1.0, 2.0],
        std: vec![0.5, 0.0],
        values: 9,
    });
    let metadata = vec![column("a", 10.0, 4.0), column("b", 3.0, 0.0)];

    InputSpec {
        feature,
        frames,
        normalize,
        metadata,
        artists: vec![3, 7],
        albums: Vec::new(),
    }
}

fn column(name: &str, mean: f64, std: f64) -> MetadataColumn {
    MetadataColumn {
        name: name.to_owned(),
        mean,
        std,
    }
}
