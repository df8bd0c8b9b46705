//! Entry points for the fuzz tests in `tests/fuzz/`, which only their builds contain.

use std::hint::black_box;
use std::path::Path;

use tch::nn::{self, VarStore};
use tch::{Device, Tensor};
use wavemill_schemas::manifest::FeatureEntry;

use crate::models::init;
use crate::predict::{ExpectedFeature, Rows};
use crate::safetensors;

/// Reads consecutive streams of rows, as `wavemill train predict` does, until their end or an error.
pub fn read_stream(mut input: &[u8], feature: &FeatureEntry) {
    let wanted = ExpectedFeature {
        feature,
        recipe: Path::new("recipe.toml"),
    };
    while let Ok(Some(rows)) = Rows::open_next(&mut input, wanted) {
        for row in rows {
            let Ok(row) = row else { return };
            black_box(&row.bytes);
        }
    }
}

/// Writes the weights of a small model.
pub fn write_weights(path: &Path) {
    let tensors: Vec<(String, Tensor)> = model().variables().into_iter().collect();
    safetensors::write(path, &tensors, &[("card", "{}".to_owned())]).expect("room");
}

/// Reads a file as the weights of that model. An error is a valid result, but changes no weights.
pub fn read_weights(path: &Path) {
    let _ = safetensors::metadata(path, "card");
    let store = model();
    let variables = store.variables();
    let before = variables.values().map(Tensor::copy).collect::<Vec<_>>();
    if init::load(path, &store).is_err() {
        // The tensors of `variables` are those of the store.
        let mut pairs = variables.values().zip(&before);
        assert!(pairs.all(|(now, before)| now.equal(before)));
    }
}

fn model() -> VarStore {
    let store = VarStore::new(Device::Cpu);
    nn::linear(&store.root() / "body", 3, 2, nn::LinearConfig::default());
    store
}
