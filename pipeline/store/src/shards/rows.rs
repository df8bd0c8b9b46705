//! Rows of a shard in memory.

use std::sync::Arc;

use wavemill_runtime::budget::Permit;

use crate::tensors::Tensor;

/// Facts about a decoded clip, shared by the rows of its segments.
#[derive(Debug)]
pub struct AudioFacts {
    /// Decoded duration of the clip in seconds, before padding.
    pub duration_s: f32,
    /// Seconds of the clip that were lost to damage.
    pub lost_s: f32,
    /// Hash over all audio frames of the clip, lower-case hex.
    pub audio_blake3: String,
    /// Memory permit, which returns the clip's bytes to the budget when its last row is on disk.
    pub permit: Option<Permit>,
}

/// A feature row: one segment of one variant of a clip, with a tensor for each feature of the recipe.
#[derive(Debug)]
pub struct FeatureRow {
    /// Index of the clip in the cleaned rows.
    pub clip: usize,
    /// 1.0 for the original tempo, or the factor by which the clip was stretched.
    pub variant: f32,
    /// Number of the segment within the variant, from 0.
    pub segment: i32,
    /// Number of samples in the segment.
    pub n_samples: usize,
    /// Start of the segment in seconds.
    pub offset_s: f32,
    /// True if every sample of the segment is zero.
    pub silent: bool,
    /// Facts about the decoded clip.
    pub audio: Arc<AudioFacts>,
    /// One tensor per feature, in the recipe's order.
    pub tensors: Vec<Tensor>,
}
