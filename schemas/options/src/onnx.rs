//! Options of features that a model in ONNX format computes: `op = "onnx"`.

use serde::{Deserialize, Serialize};

use crate::args::FeatureArgs;
use crate::fault::Faults;
use crate::pack::Dtype;
use crate::words::Named;

/// Longest window in seconds: models take seconds to minutes of audio at a time.
const WINDOW_S_MAX: f64 = 3600.0;
/// Added to the variance by [`OnnxArgs::standardize`], as in Hugging Face's `Wav2Vec2FeatureExtractor`.
pub const STANDARDIZE_EPS: f64 = 1e-7;

/// All arguments of a feature that a model computes. The serialized form identifies the stored values, together with
/// the options for decoding.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename = "onnx")]
pub struct OnnxArgs {
    /// Path of the model's file, as in the recipe.
    #[serde(skip)]
    pub model: String,
    /// BLAKE3 hash of the model's file in hexadecimal, which identifies the model. Empty until the file has been read.
    pub model_blake3: String,
    /// The feature whose tensor is the model's input, in f32; `None` for samples.
    pub source: Option<Box<FeatureArgs>>,
    /// Name of the model's output; `None` for its only one.
    pub output: Option<String>,
    /// Index on the axis of layers; `None` for all layers, or for an output without layers.
    pub layer: Option<usize>,
    /// Number of samples or frames that the model gets at a time; `None` for those of a whole row.
    pub window: Option<usize>,
    /// True if the mean of each window is subtracted from its values, which are then divided by their deviation.
    pub standardize: bool,
    /// Conversion of the output to a tensor.
    pub pooling: Pooling,
    /// Type in which values are stored: f32 or f16.
    pub dtype: Dtype,
    /// Sizes that depend on the model; all are 0 until it has been loaded.
    #[serde(skip)]
    pub sizes: ModelSizes,
}

/// Sizes of a model's input and output.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelSizes {
    /// Number of samples or frames of a window.
    pub window: usize,
    /// Number of frames of the output for a window; 1 if it has none.
    pub frames: usize,
    /// Dimensions of a pooled output: `[values]` or `[layers, values]`.
    pub pooled: Vec<usize>,
}

impl ModelSizes {
    /// Returns the number of windows of `n` samples or frames. The last window ends with the last of them, so it may
    /// overlap the one before.
    pub fn n_windows(&self, n: usize) -> usize {
        n.div_ceil(self.window.max(1)).max(1)
    }
}

/// `pooling`: conversion of the outputs for a row's windows to one tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean of all frames of all windows.
    #[default]
    Mean,
    /// The mean of all frames of all windows, followed by their standard deviation (of the population).
    MeanStd,
    /// The mean of each window's frames: `[windows, …]`, whose axis is called `frame` too.
    Window,
    /// All frames of all windows: `[frames, …]`.
    None,
}

impl Named for Pooling {
    const KEY: &'static str = "pooling";
    const NAMES: &'static [(&'static str, Self)] = &[
        ("mean", Self::Mean),
        ("mean_std", Self::MeanStd),
        ("window", Self::Window),
        ("none", Self::None),
    ];
}

impl OnnxArgs {
    pub(crate) fn check_window_s(window_s: Option<f64>, faults: &mut Faults) {
        faults.positive(window_s, "window_s");
        let longest = window_s.map(|seconds| seconds.min(WINDOW_S_MAX));
        faults.unless(
            longest == window_s,
            "window_s",
            format!("allowed: at most {WINDOW_S_MAX} seconds"),
        );
    }

    /// Returns the dimensions of a row's tensor: those of a pooled output, behind the number of windows or frames if the
    /// rows differ in it.
    pub(crate) fn stored_shape(&self) -> Vec<Option<usize>> {
        let pooled = self.sizes.pooled.iter().copied().map(Some);
        match self.pooling {
            Pooling::Mean | Pooling::MeanStd => pooled.collect(),
            Pooling::Window | Pooling::None => std::iter::once(None).chain(pooled).collect(),
        }
    }

    /// Returns the shape of a tensor of which `row_bytes` are stored.
    pub(crate) fn shape(&self, row_bytes: usize) -> Vec<usize> {
        let n_pooled = row_bytes / self.pooled_bytes().max(1);
        let stored = self.stored_shape();
        stored
            .into_iter()
            .map(|dim| dim.unwrap_or(n_pooled))
            .collect()
    }

    /// Returns the size in bytes of the tensor for a row of `n_samples` samples, if the clip does not end earlier.
    pub(crate) fn row_bytes(&self, n_samples: usize) -> usize {
        let n = match &self.source {
            Some(source) => source.n_frames(n_samples),
            None => n_samples,
        };
        let n_pooled = match self.pooling {
            Pooling::Mean | Pooling::MeanStd => 1,
            Pooling::Window => self.sizes.n_windows(n),
            Pooling::None => self.sizes.n_windows(n) * self.sizes.frames,
        };
        n_pooled * self.pooled_bytes()
    }

    fn pooled_bytes(&self) -> usize {
        self.sizes.pooled.iter().product::<usize>() * self.dtype.bytes()
    }

    /// Returns the names of the axes in the tensor's order.
    pub(crate) fn dim_names(&self) -> Vec<&'static str> {
        let first = match self.pooling {
            Pooling::Mean | Pooling::MeanStd => None,
            // Models of sequences read windows like frames.
            Pooling::Window | Pooling::None => Some("frame"),
        };
        let layers = (self.sizes.pooled.len() > 1).then_some("layer");
        first.into_iter().chain(layers).chain(["value"]).collect()
    }
}

#[cfg(test)]
mod tests {
    use wavemill_tests::options;

    use super::*;
    use crate::{FeatureSpec, Op, Word};

    fn args(pooling: &str, window_s: f64, source: Option<&str>) -> OnnxArgs {
        let mel = options!(name: "mel".to_owned(), hop_length: 100);
        let spec = options!(
            op: Op::Onnx, model: "a.onnx".to_owned(), source: source.map(str::to_owned),
            window_s, pooling: Word::from(pooling)
        );
        let mut args = spec.onnx(&[mel], 8_000).unwrap();
        args.sizes = ModelSizes {
            window: args.window.unwrap(),
            frames: 3,
            pooled: vec![2, 5],
        };
        args
    }

    #[test]
    fn windows_are_counted_in_samples_or_in_frames_of_the_source() {
        assert_eq!(args("mean", 0.5, None).window, Some(4_000));
        let of_mel = args("mean", 0.5, Some("mel"));
        assert_eq!(of_mel.window, Some(40));
        assert_eq!(of_mel.source.unwrap().dtype, Dtype::F32);

        let sizes = args("mean", 0.5, None).sizes;
        let counts = [0, 1, 4_000, 4_001, 8_000].map(|n| sizes.n_windows(n));
        assert_eq!(counts, [1, 1, 1, 2, 2]);
    }

    #[test]
    fn shapes_follow_from_pooling() {
        let value_bytes = 2 * 5 * 4;
        for (pooling, names, rows) in [
            ("mean", vec!["layer", "value"], 1),
            ("window", vec!["frame", "layer", "value"], 2),
            ("none", vec!["frame", "layer", "value"], 6),
        ] {
            let args = args(pooling, 0.5, None);
            assert_eq!(args.dim_names(), names, "{pooling}");
            // 4,001 samples are two windows of 4,000.
            assert_eq!(args.row_bytes(4_001), rows * value_bytes, "{pooling}");
            let shape = args.shape(rows * value_bytes);
            assert_eq!(shape.iter().product::<usize>(), rows * 10, "{pooling}");
            assert_eq!(args.stored_shape().len(), names.len(), "{pooling}");
        }
    }

    #[test]
    fn options_of_models_are_checked() {
        let fault = |spec: FeatureSpec| spec.onnx(&[], 8_000).unwrap_err().to_string();
        let none = options!(op: Op::Onnx);
        assert_eq!(
            fault(none.clone()),
            "model: is missing: the path of a file in ONNX format"
        );

        let with_model = options!(model: "a.onnx".to_owned(); none);
        for window_s in [0.0, -1.0, f64::NAN, 3601.0] {
            let spec = options!(window_s; with_model.clone());
            assert!(fault(spec).starts_with("window_s: "), "{window_s}");
        }
        let spec = options!(dtype: Dtype::S16; with_model);
        assert_eq!(fault(spec), "dtype: allowed for onnx: f32, f16");
    }
}
