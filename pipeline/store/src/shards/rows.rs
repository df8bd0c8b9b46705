//! Rows of a shard in memory.

use std::sync::Arc;

use wavemill_runtime::budget::Permit;
use wavemill_schemas::columns::RowFacts;

use crate::tensors::Tensor;

/// A feature row: one segment of one variant of a clip, with a tensor for each feature of the recipe.
#[derive(Debug)]
pub struct FeatureRow {
    /// Index of the clip in the cleaned rows.
    pub clip: usize,
    /// Facts about the row, which become columns.
    pub facts: RowFacts,
    /// Number of samples in the segment.
    pub n_samples: usize,
    /// Memory permit of the clip, which returns its bytes to the budget when the clip's last row is on disk.
    pub permit: Option<Arc<Permit>>,
    /// One tensor per feature, in the recipe's order.
    pub tensors: Vec<Tensor>,
}
