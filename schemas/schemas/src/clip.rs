//! The rows of the metadata after cleaning: a clip with its labels and its split.

use serde::Serialize;

/// One clip of the cleaned rows, with the values that the plan and the feature rows need. Serialized, it contains the
/// values that are columns of feature rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClipRow {
    /// Primary key of the clip: its path relative to the audio root.
    pub clip_key: String,
    /// Id of the track in the data set, or a hash of the clip's key.
    pub track_id: i64,
    /// Class id of the clip for each target, in the recipe's order; `None` if the clip is unlabelled.
    pub targets: Vec<Option<i32>>,
    /// Ids of all genres of the clip.
    pub genres_all: Vec<i32>,
    /// Artist id of the clip, or `None` if unknown.
    pub artist_id: Option<i64>,
    /// Album id of the clip, or `None` if unknown.
    pub album_id: Option<i64>,
    /// Split of the clip by the recipe's rule: `training`, `validation`, `test`, `none`, or the value of the split
    /// column. Always `none` under rule `segment`, where the plan assigns segments instead of clips to splits.
    #[serde(skip)]
    pub split: String,
}
