//! Fuzz test: from the bytes of a clip to the rows of features, as `wavemill features` computes them. Every value must be
//! finite.

use std::cell::RefCell;
use std::sync::Arc;

use wavemill_extract::features::FeaturePlan;
use wavemill_extract::single::{RowExtractor, plan};
use wavemill_schemas::recipe::Recipe;

/// Features of each kind. Their windows are short, because a few bytes can declare minutes of silence.
const RECIPE: &str = r#"
name = "fuzz"
[catalog]
dataset = "folders"
[audio]
sample_rate_hz = 8000
duration_s = 2.0
min_duration_s = 0.01
[[features]]
name = "log_mel"
op = "mel"
n_fft = 256
hop_length = 128
n_mels = 16
db = { ref = "max", top_db = 80.0 }
dtype = "f32"
[[features]]
name = "mfcc"
op = "mfcc"
n_fft = 256
hop_length = 128
n_mels = 16
n_mfcc = 8
dtype = "f32"
[[features]]
name = "chroma"
op = "chroma_stft"
n_fft = 256
hop_length = 128
dtype = "f32"
"#;

thread_local! {
    /// The extractors are reused for all inputs, as in a worker, so that state left by one file is noticed.
    static EXTRACTORS: RefCell<Vec<RowExtractor>> = RefCell::new(extractors());
}

fn extractors() -> Vec<RowExtractor> {
    let recipe = Recipe::parse(RECIPE, "fuzz", &[]).expect("a valid recipe");
    let extractor = |number| {
        let plan: FeaturePlan = plan(&recipe, number).expect("a feature of the recipe");
        RowExtractor::new(&Arc::new(plan), 60.0).expect("memory")
    };
    (0..recipe.features.len()).map(extractor).collect()
}

pub(crate) fn run(file: &[u8]) {
    EXTRACTORS.with_borrow_mut(|extractors| {
        for extractor in extractors {
            if extractor.decode("", file).is_err() {
                return;
            }
            let Ok(rows) = extractor.rows(0, "clip") else {
                continue;
            };
            for tensor in rows.iter().flat_map(|row| &row.tensors) {
                let values = tensor.bytes.as_chunks::<4>().0;
                assert!(values.iter().all(|value| f32::from_le_bytes(*value).is_finite()));
            }
        }
    });
}
