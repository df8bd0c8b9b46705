//! Metadata files → cleaned rows, class lists and splits, as DataFusion SQL.

use std::collections::BTreeMap;

use arrow::record_batch::RecordBatch;
use wavemill_schemas::reject::Reject;

/// One clip of the cleaned rows: what the plan and the feature rows need of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipRow {
    /// Primary key: path below the audio root.
    pub clip_key: String,
    /// The data set's id, or a hash of the key.
    pub track_id: i64,
    /// Class id per target, in the recipe's order; `None`: unlabelled.
    pub targets: Vec<Option<i32>>,
    /// All genre ids.
    pub genres_all: Vec<i32>,
    /// Artist, `None` where unknown.
    pub artist_id: Option<i64>,
    /// Album, `None` where unknown.
    pub album_id: Option<i64>,
    /// The side by the recipe's rule: `training`, `validation`, `test`, `none`, or the column's value.
    pub split: String,
}

/// A cleaning step's count.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StepCount {
    /// The step's name.
    pub step: String,
    /// Rows that it dropped.
    pub dropped: u64,
    /// Rows that are left.
    pub kept: u64,
}

/// Everything the metadata gives.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Cleaned rows, ordered by `clip_key`.
    pub clips: Vec<ClipRow>,
    /// Class names in id order, per target name.
    pub classes: BTreeMap<String, Vec<String>>,
    /// `tracks` (cleaned, with every split rule; same order as `clips`), `tracks_all` (with `dropped_by`), `albums`,
    /// `artists`, `genres`, `fma_features`, `raw_*`: what the data set has of them.
    pub tables: BTreeMap<String, Vec<RecordBatch>>,
    /// Records in the main metadata file, header lines not counted.
    pub rows_read: u64,
    /// One per cleaning step, in order.
    pub steps: Vec<StepCount>,
    /// `bad_row` and `bad_encoding`, `missing_file` when audio is not required.
    pub rejects: Vec<Reject>,
    /// What a person should know (over half of the rows have no audio, …), one sentence each.
    pub warnings: Vec<String>,
}
