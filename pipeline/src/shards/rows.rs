//! A row of a shard while it is in memory.

use std::sync::Arc;

use crate::budget::Permit;
use crate::tensors::Tensor;

/// What decoding told of a clip; shared by its segments.
#[derive(Debug)]
pub(crate) struct AudioFacts {
    /// Seconds decoded, before padding.
    pub duration_s: f32,
    /// Seconds lost to damage.
    pub lost_s: f32,
    /// Over all audio frames, lower-case hex.
    pub audio_blake3: String,
    /// Gives the clip's bytes back to the budget when its last row is on disk.
    pub permit: Option<Permit>,
}

/// One segment of one variant of one clip, with every feature of the recipe.
#[derive(Debug)]
pub(crate) struct FeatureRow {
    /// Index into the cleaned rows.
    pub clip: usize,
    /// 1.0: the tempo as recorded; else the factor by which the clip was stretched.
    pub variant: f32,
    /// From 0 within the variant.
    pub segment: i32,
    /// Samples that it was made of.
    pub n_samples: usize,
    /// Where the segment starts.
    pub offset_s: f32,
    /// Every sample of it is zero.
    pub silent: bool,
    /// Of its clip.
    pub audio: Arc<AudioFacts>,
    /// In the recipe's order.
    pub tensors: Vec<Tensor>,
}
