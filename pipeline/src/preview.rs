//! What a run would do, without doing it: `extract --dry-run`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use wavemill_schemas::manifest::FeatureEntry;

use crate::catalog::{Catalog, Duplicates, StepCount};
use crate::course::Course;
use crate::engine;
use crate::features::FeaturePlan;
use crate::laps::Laps;
use crate::plan::{self, ShardPlan};
use crate::run::{self, Job, RunError};
use crate::settings::Settings;
use crate::source::{self, Source};
use crate::store::{Decision, Store, StoreError, Unfinished};

/// CPU seconds a 30-s clip of 44.1 kHz stereo costs on one core (docs/benchmarks/): an estimate is made of it.
const CLIP_CPU_S: f64 = 0.025;

/// Where a recipe leaves the length of clips open: 192 kbit/s.
const TYPICAL_BYTES_PER_S: f64 = 24_000.0;

/// What a run would do.
#[derive(Debug, Serialize)]
pub struct Preview {
    /// Records of the metadata.
    pub rows_read: u64,
    /// Of them not to be parsed.
    pub rows_rejected: u64,
    /// Rows after every cleaning step.
    pub steps: Vec<StepCount>,
    /// Clips within `--limit`.
    pub clips_planned: u64,
    /// Those with rows on each side: each on one, but for the rule `segment`.
    pub splits: BTreeMap<String, u64>,
    /// What a run would do with the store as it is.
    pub outcome: String,
    /// Files of each feature.
    pub shards: usize,
    /// What would be stored.
    pub features: Vec<FeatureEntry>,
    /// Bytes of rows before compression.
    pub feature_bytes: u64,
    /// Compressed audio to be read.
    pub audio_bytes: u64,
    /// Estimate.
    pub seconds: f64,
    /// On so many threads.
    pub threads: usize,
    /// With `split.group_duplicates`: what it found.
    pub duplicates: Option<Duplicates>,
    /// What a person should know, one sentence each.
    pub warnings: Vec<String>,
    /// Wall seconds that the parts of the preview took: `read`, `clean`, `labels`, `split`, `plan`.
    pub wall_s: BTreeMap<&'static str, f64>,
}

/// What [`run`](crate::run::run) would decide; whether files changed that kept their size, it alone looks.
fn outcome(
    job: &Job,
    settings: &Settings,
    catalog: &Catalog,
    plan: &ShardPlan,
    source: &dyn Source,
) -> Result<String, RunError> {
    let engine = engine::current(settings);
    let identity = run::identity(job, settings.limit, catalog, plan, (source, &engine))?;
    let (store, made_by) = (Store::at(&job.store), (&job.recipe, &engine, catalog.clips_absent()));
    let decision = store.decide(&identity, made_by, settings.new_version, |_| Ok(Vec::new()));
    let allowed = decision.and_then(|decision| {
        let Decision::Go { parent, identity } = decision else { return Ok(decision) };
        let plan = Unfinished { identity: identity.clone(), engine };
        if !settings.restart {
            store.refuse_other_engine(&plan, false)?;
        }
        Ok(Decision::Go { parent, identity })
    });
    match allowed {
        Ok(Decision::NothingToDo(version, _)) => Ok(format!("nothing to do: version {version} holds just this")),
        Ok(Decision::Go { parent, .. }) => Ok(format!("version {} is to be made", parent.map_or(1, |v| v + 1))),
        Err(refusal @ (StoreError::OtherPlan { .. } | StoreError::OtherEngine { .. })) => {
            Ok(format!("refused: {refusal}"))
        }
        Err(error) => Err(error.into()),
    }
}

/// Cleans and plans a job, and writes nothing. `course` is told where it is, and can end it.
///
/// # Errors
/// As [`crate::run::run`] up to the plan.
pub fn preview(job: &Job, settings: &Settings, course: &Arc<Course>) -> Result<Preview, RunError> {
    let source = source::open(&job.audio, settings.allow_outside)?;
    let mut catalog = run::catalog(job, settings, &*source, course)?;
    let mut laps = Laps::start();
    let plan = plan::shards(&catalog.clips, &job.recipe, settings.limit);
    let features = FeaturePlan::new(&job.recipe, settings)?;
    let planned = || plan.planned.iter().map(|&row| &catalog.clips[row]);
    let mut splits = BTreeMap::new();
    for shard in &plan.shards {
        *splits.entry(shard.split.clone()).or_default() += shard.members.len() as u64;
    }
    let outcome = outcome(job, settings, &catalog, &plan, &*source)?;
    let clips_planned = plan.planned.len() as u64;
    let audio_bytes = planned().filter_map(|clip| source.index().get(&clip.clip_key)).map(|id| id.bytes).sum();
    laps.end("plan");
    catalog.wall_s.append(&mut laps.wall_s);
    Ok(Preview {
        rows_read: catalog.rows_read,
        rows_rejected: catalog.rejects.len() as u64,
        clips_planned,
        splits,
        outcome,
        shards: plan.shards.len(),
        features: features.entries().to_vec(),
        feature_bytes: features.estimate(clips_planned, audio_bytes, TYPICAL_BYTES_PER_S),
        audio_bytes,
        seconds: clips_planned as f64 * CLIP_CPU_S / settings.threads as f64,
        threads: settings.threads,
        steps: catalog.steps,
        duplicates: catalog.duplicates,
        warnings: catalog.warnings,
        wall_s: catalog.wall_s,
    })
}
