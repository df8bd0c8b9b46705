//! Rows of a shard in memory.

use std::sync::Arc;

use wavemill_runtime::budget::Permit;

use crate::tensors::Tensor;

/// Facts about a decoded clip, shared by the rows of its segments.
#[derive(Debug)]
pub struct AudioFacts {
    /// Seconds decoded, before padding.
    pub duration_s: f32,
    /// Seconds lost to damage.
    pub lost_s: f32,
    /// Hash over all audio frames, lower-case hex.
    pub audio_blake3: String,
    /// Returns the clip's bytes to the budget when its last row is on disk.
    pub permit: Option<Permit>,
}

/// A row: one segment of one variant of a clip, with a tensor for each feature of the recipe.
#[derive(Debug)]
pub struct FeatureRow {
    /// Index into the cleaned rows.
    pub clip: usize,
    /// 1.0 for the original tempo, or the factor by which the clip was stretched.
    pub variant: f32,
    /// From 0 within the variant.
    pub segment: i32,
    /// Number of samples in the segment.
    pub n_samples: usize,
    /// Start of the segment in seconds.
    pub offset_s: f32,
    /// True if every sample of the segment is zero.
    pub silent: bool,
    /// Facts about the clip.
    pub audio: Arc<AudioFacts>,
    /// One tensor per feature, in the recipe's order.
    pub tensors: Vec<Tensor>,
}
