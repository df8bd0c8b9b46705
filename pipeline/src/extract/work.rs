//! What all threads of a run share.

use std::sync::atomic::AtomicBool;

use super::{Counters, Limits};
use crate::budget::ByteBudget;
use crate::catalog::ClipRow;
use crate::features::FeaturePlan;
use crate::shards::{Format, KeyInputs, ShardTask, TakenRows};
use crate::source::Source;

/// What readers, workers and lanes share.
pub(crate) struct Work<'a> {
    /// Cleaned rows.
    pub clips: &'a [ClipRow],
    /// What the keys of files are made of: just the features that are computed.
    pub keys: &'a KeyInputs<'a>,
    /// Their numbers in the recipe.
    pub feature_numbers: &'a [usize],
    /// Names all features of the plan.
    pub features_id: &'a str,
    /// Shards to write.
    pub todo: &'a [ShardTask<'a>],
    /// Clips that are not read, because an earlier version has their rows.
    pub taken: &'a TakenRows,
    /// Where bytes come from.
    pub source: &'a dyn Source,
    /// What to compute.
    pub features: &'a FeaturePlan,
    /// Classes of each target.
    pub class_sizes: &'a [usize],
    /// How to encode each feature.
    pub formats: &'a [Format],
    /// Set: no further clip is read.
    pub stop: &'a AtomicBool,
    /// For progress.
    pub counters: &'a Counters,
    /// Bounds of the run.
    pub limits: &'a Limits,
    /// What clips may hold.
    pub budget: ByteBudget,
    /// What row groups may hold while they are encoded, beside their rows.
    pub encoding: ByteBudget,
}
