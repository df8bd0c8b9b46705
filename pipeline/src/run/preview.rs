//! What a run would do, without doing it: `extract --dry-run`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use wavemill_schemas::manifest::FeatureEntry;

use super::draft::{Draft, DraftInputs};
use super::input::Input;
use super::moves::SideChanges;
use super::{Job, RunError};
use crate::catalog::{Duplicates, StepCount};
use crate::course::Course;
use crate::settings::Settings;
use crate::store::{Decision, PlanRecord, Store, StoreError};

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
    /// How sides differ from those of the latest version, where there is one.
    pub sides: Option<SideChanges>,
    /// What a person should know, one sentence each.
    pub warnings: Vec<String>,
    /// Wall seconds that the parts of the preview took: `read`, `clean`, `labels`, `split`, `plan`.
    pub wall_s: BTreeMap<&'static str, f64>,
}

/// Cleans and plans a job, and writes nothing. `course` is told where it is, and can end it.
///
/// # Errors
/// As [`crate::run::run`] up to the plan.
pub fn preview(job: &Job, settings: &Settings, course: &Arc<Course>) -> Result<Preview, RunError> {
    let input = Input::open(job, settings, course)?;
    let store = Store::at(&job.store);
    let inputs = DraftInputs {
        job,
        settings,
        input: &input,
        store: &store,
        course,
    };

    let mut draft = inputs.draft(store.latest()?)?;
    let outcome = outcome(&inputs, &draft)?;
    let sides = SideChanges::or_warning(&store, &mut draft);

    let Draft { catalog, plan, .. } = draft;
    let shard_plan = &plan.shard_plan;
    let mut splits = BTreeMap::new();
    for shard in &shard_plan.shards {
        *splits.entry(shard.split.clone()).or_default() += shard.members.len() as u64;
    }
    let clips_planned = shard_plan.planned.len() as u64;
    let audio_bytes = shard_plan
        .planned
        .iter()
        .filter_map(|&row| input.audio_bytes(&catalog.clips[row].clip_key))
        .sum();
    let feature_bytes = plan
        .features
        .estimate(clips_planned, audio_bytes, TYPICAL_BYTES_PER_S);

    Ok(Preview {
        rows_read: catalog.rows_read,
        rows_rejected: catalog.rejects.len() as u64,
        clips_planned,
        splits,
        outcome,
        shards: shard_plan.shards.len(),
        features: plan.features.entries().to_vec(),
        feature_bytes,
        audio_bytes,
        seconds: clips_planned as f64 * CLIP_CPU_S / settings.threads as f64,
        threads: settings.threads,
        steps: catalog.steps,
        duplicates: catalog.duplicates,
        sides,
        warnings: catalog.warnings,
        wall_s: catalog.wall_s,
    })
}

/// What [`run`](crate::run::run) would decide, in words; whether files changed that kept their size, it alone looks.
fn outcome(inputs: &DraftInputs<'_, '_>, draft: &Draft<'_>) -> Result<String, RunError> {
    match decide(inputs, draft) {
        Ok(Decision::NothingToDo(version, _)) => {
            Ok(format!("nothing to do: version {version} holds just this"))
        }
        Ok(Decision::Go { .. }) => Ok(format!("version {} is to be made", draft.version())),
        // That a run would be refused is an answer here, and no failure.
        Err(refusal @ (StoreError::OtherPlan { .. } | StoreError::OtherEngine { .. })) => {
            Ok(format!("refused: {refusal}"))
        }
        Err(error) => Err(error.into()),
    }
}

fn decide(inputs: &DraftInputs<'_, '_>, draft: &Draft<'_>) -> Result<Decision, StoreError> {
    let DraftInputs {
        store, settings, ..
    } = *inputs;
    let plan = &draft.plan;
    let decision = store.decide(
        draft.parent.as_ref(),
        &plan.identity,
        plan.version_inputs(settings),
        settings.new_version,
        |_| Ok::<_, StoreError>(Vec::new()),
    )?;
    // With `--restart` a run drops the other plan. A preview drops nothing, so it does not ask.
    if let Decision::Go { identity, .. } = &decision
        && !settings.restart
    {
        let plan_record = PlanRecord {
            identity: identity.clone(),
            engine: plan.engine.clone(),
        };
        store.refuse_other_engine(&plan_record, false)?;
    }
    Ok(decision)
}
