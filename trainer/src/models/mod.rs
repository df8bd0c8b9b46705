//! Every architecture by name, from one registry.
//!
//! A model is a backbone (inputs to one vector a row) and a linear head for each target; the vector is also what t-SNE
//! and other tools look at.

use tch::Tensor;

/// What a model sees of a batch of n rows.
#[derive(Debug)]
pub struct Inputs {
    /// `[n, bands, frames]`, f32 or f64, whatever the stored order of dimensions.
    pub spectrogram: Tensor,
    /// `[n, columns]`, standardised; where the model asks for metadata.
    pub metadata: Option<Tensor>,
    /// `[n, 2]` i64: vocabulary ids of artist and album, 0 for one not seen in training.
    pub ids: Option<Tensor>,
}

/// What a model is built for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Bands (mel, MFCC) of a row.
    pub bands: i64,
    /// Frames of a row.
    pub frames: i64,
    /// Metadata columns; 0 for none.
    pub metadata: i64,
    /// Artists and albums in the vocabularies, the unknown one included; 0 for none.
    pub vocabulary: [i64; 2],
    /// Name and number of classes of each target, in order.
    pub heads: Vec<(String, i64)>,
}

/// Rows to one vector each.
pub trait Backbone: std::fmt::Debug {
    /// `[n, width]`. `train` turns dropout on and lets batch norm use the batch's own statistics.
    fn embed(&self, inputs: &Inputs, train: bool) -> Tensor;

    /// Length of a row's vector.
    fn width(&self) -> i64;
}
