//! State that all threads of a run share.

use std::sync::atomic::AtomicBool;

use wavemill_runtime::budget::ByteBudget;
use wavemill_schemas::clip::ClipRow;
use wavemill_source::Source;
use wavemill_store::shards::{Format, KeyInputs, ShardTask, TakenRows};

use super::{Counters, Limits};
use crate::features::FeaturePlan;

/// State shared by readers, workers and lanes (threads of a device).
pub struct Work<'a> {
    /// Cleaned rows of the catalog.
    pub clips: &'a [ClipRow],
    /// Inputs from which the keys of feature files are computed, restricted to the computed features.
    pub keys: &'a KeyInputs<'a>,
    /// Indices of the computed features in the recipe.
    pub feature_numbers: &'a [usize],
    /// Id of the set of all features of the plan.
    pub features_id: &'a str,
    /// Shards to write.
    pub todo: &'a [ShardTask<'a>],
    /// Clips that are not read, because their rows are copied from an earlier version.
    pub taken: &'a TakenRows,
    /// Source of the clips' files.
    pub source: &'a dyn Source,
    /// Plan of the features to compute.
    pub features: &'a FeaturePlan,
    /// Format of each feature's files.
    pub formats: &'a [Format],
    /// Set to stop the run: no further clips are read then.
    pub stop: &'a AtomicBool,
    /// Counters for progress and the report.
    pub counters: &'a Counters,
    /// Limits of the run, checked against the recipe.
    pub limits: &'a Limits,
    /// Memory budget for clips.
    pub budget: ByteBudget,
    /// Memory budget for encoding row groups, in addition to the memory of their rows.
    pub encoding: ByteBudget,
}
