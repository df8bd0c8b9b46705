//! Reports the work that a run would do, without doing it: `extract --dry-run`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::AsArray;
use serde::Serialize;
use wavemill_catalog::{Catalog, Duplicates, FileAccount, StepCount};
use wavemill_runtime::progress::Progress;
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::exit::{Classified, Kind};
use wavemill_schemas::manifest::FeatureEntry;
use wavemill_schemas::split::NO_SPLIT;
use wavemill_store::{Decision, PlanRecord, Purpose, Store};

use super::begin;
use super::forecast::{Forecast, forecast};
use crate::error::ExtractError;
use crate::features::ClipTotals;
use crate::incremental::changes::{DataChanges, EXAMPLES, State};
use crate::incremental::draft::{Draft, DraftInputs};
use crate::incremental::input::Input;
use crate::incremental::known::KnownInputs;
use crate::incremental::moves::SplitChanges;
use crate::incremental::plan::Plan;
use crate::incremental::shrink::{self, VanishedClips};
use crate::job::Job;
use crate::settings::Settings;

/// CPU seconds per 30-s clip of 44.1 kHz stereo on one core (docs/benchmarks/). Used to estimate the duration of a run.
const CLIP_CPU_S: f64 = 0.025;

/// CPU seconds per stretched copy of such a clip (docs/features.md), including its rows.
const STRETCH_CPU_S: f64 = 0.1;

/// Assumed size of a second of audio if the recipe does not limit the length of clips: 192 kbit/s.
pub(super) const TYPICAL_BYTES_PER_S: f64 = 24_000.0;

/// The work that a run would do.
#[derive(Debug, Serialize)]
pub struct Preview {
    /// Number of records in the metadata.
    pub rows_read: u64,
    /// Number of metadata records that cannot be parsed.
    pub rows_rejected: u64,
    /// Row counts of every cleaning step.
    pub steps: Vec<StepCount>,
    /// Number of clips within `--limit`.
    pub clips_planned: u64,
    /// Number of planned clips with rows in each split. A clip has rows in one split only, except under the rule
    /// `segment`.
    pub splits: BTreeMap<String, u64>,
    /// Labels of the planned clips by rule and split: under the recipe's rule, and under each column `split_RULE`.
    #[serde(skip)]
    pub labels: BTreeMap<String, BTreeMap<String, SplitLabels>>,
    /// The result that a run would have with the current state of the store, as a sentence.
    pub outcome: String,
    /// True if the latest version already has exactly the content of this preview.
    pub nothing_to_do: bool,
    /// The error that a run would end with, if it would be refused.
    #[serde(skip)]
    pub refusal: Option<ExtractError>,
    /// Number of files of each feature.
    pub shards: usize,
    /// The features that would be stored.
    pub features: Vec<FeatureEntry>,
    /// Estimated size in bytes of the rows to be stored, before compression.
    pub feature_bytes: u64,
    /// Bytes of compressed audio to read.
    pub audio_bytes: u64,
    /// Estimated duration in seconds on `threads` threads.
    pub seconds: f64,
    /// Number of worker threads.
    pub threads: usize,
    /// Account of the files below the audio root: which ones are used, and why the others are not.
    pub files_found: FileAccount,
    /// The duplicates that were found, if `split.group_duplicates` is set.
    pub duplicates: Option<Duplicates>,
    /// Changes of the tracks' splits since the latest version, if there is one.
    pub sides: Option<SplitChanges>,
    /// Clips of the latest version whose files are not found, if there is such a version.
    pub vanished: Option<VanishedClips>,
    /// Changes of tracks since the latest version, if there is one: number and first examples of each kind.
    pub changes: Option<DataChanges>,
    /// The work that a run would have to do; `None` if it would have nothing to do or would be refused.
    pub work: Option<Forecast>,
    /// Warnings for the user, one sentence each.
    pub warnings: Vec<String>,
    /// Wall-clock seconds of the parts of the preview: `read`, `clean`, `labels`, `split`, `plan`.
    pub wall_s: BTreeMap<&'static str, f64>,
}

/// Labels of the planned clips in one split.
#[derive(Clone, Debug, Default)]
pub struct SplitLabels {
    /// Number of planned clips with rows in this split.
    pub clips: u64,
    /// Number of clips of each class id, per target in the recipe's order; clips without a label are not counted.
    pub classes: Vec<BTreeMap<i32, u64>>,
}

impl SplitLabels {
    fn add(&mut self, clip: &ClipRow) {
        self.clips += 1;
        self.classes.resize(clip.targets.len(), BTreeMap::new());
        for (counts, class) in self.classes.iter_mut().zip(&clip.targets) {
            if let Some(class) = class {
                *counts.entry(*class).or_default() += 1;
            }
        }
    }
}

/// Cleans and plans a job without writing anything. `progress` counts what is done and can stop the preview.
///
/// # Errors
/// The errors of [`crate::run::run`] up to the plan.
pub fn preview(
    job: &Job,
    settings: &Settings,
    progress: &Arc<Progress>,
) -> Result<Preview, ExtractError> {
    let mut input = Input::open(job, settings, progress)?;
    let store = Store::find(&job.store, Purpose::Reading)?;
    store.pull_receipts()?;
    let mut known = input.find_copies(job, &store, settings, progress)?;
    let inputs = DraftInputs {
        job,
        settings,
        input: &input,
        store: &store,
        progress,
    };

    let mut draft = inputs.draft(store.latest()?, &mut known)?;
    let vanished = shrink::vanished(&inputs, &draft, &known)?;
    let outcome = Outcome::new(&inputs, &draft, vanished.as_ref(), &mut known)?;
    let sides = SplitChanges::or_warning(&store, &mut draft);
    let work = match &outcome {
        Outcome::Version { plan_id, .. } => Some(forecast(&inputs, &draft, plan_id, &mut known)?),
        Outcome::NothingToDo { .. } | Outcome::Refused(_) => None,
    };
    let changes = changes(&inputs, &draft, &known);

    let Draft { catalog, plan, .. } = draft;
    let shard_plan = &plan.shard_plan;
    let labels = labels(&catalog, &plan);
    let own_splits = labels.get(plan.recipe.split.rule.name());
    let splits = own_splits.into_iter().flatten();
    let splits = splits.map(|(split, labels)| (split.clone(), labels.clips));
    let clips_planned = shard_plan.planned.len() as u64;
    let audio_bytes = shard_plan
        .planned
        .iter()
        .filter_map(|&row| input.audio_bytes(&catalog.clips[row].clip_key))
        .sum();
    let clips_to_decode = work.map_or(clips_planned, |work| work.clips_to_decode);
    let clips = ClipTotals {
        all: clips_planned,
        stretched: stretched_clips(&plan),
        file_bytes: audio_bytes,
    };
    let feature_bytes = plan.features.estimate(clips, TYPICAL_BYTES_PER_S);

    Ok(Preview {
        rows_read: catalog.rows_read,
        rows_rejected: catalog.rejects.len() as u64,
        clips_planned,
        splits: splits.collect(),
        labels,
        outcome: outcome.to_string(),
        nothing_to_do: matches!(outcome, Outcome::NothingToDo { .. }),
        refusal: outcome.refusal(),
        shards: shard_plan.shards.len(),
        features: plan.features.entries().to_vec(),
        feature_bytes,
        audio_bytes,
        seconds: clips_to_decode as f64 * clip_cpu_s(&plan, clips) / settings.threads as f64,
        threads: settings.threads,
        steps: catalog.steps,
        files_found: std::mem::take(&mut input.files),
        duplicates: catalog.duplicates,
        sides,
        vanished,
        changes,
        work,
        warnings: catalog.warnings,
        wall_s: catalog.wall_s,
    })
}

/// Counts the labels of planned clips by rule and split.
fn labels(catalog: &Catalog, plan: &Plan<'_>) -> BTreeMap<String, BTreeMap<String, SplitLabels>> {
    let mut by_rule: BTreeMap<String, BTreeMap<String, SplitLabels>> = BTreeMap::new();

    // Under a rule by segment, the column contains no splits, so they are read from the shards.
    let own_rule = plan.recipe.split.rule.name();
    let own_splits = by_rule.entry(own_rule.to_owned()).or_default();
    for shard in &plan.shard_plan.shards {
        let split = own_splits.entry(shard.split.clone()).or_default();
        for &row in &shard.members {
            split.add(&catalog.clips[row]);
        }
    }

    let Some(tracks) = catalog.tables.get("tracks") else {
        return by_rule;
    };
    for (field, column) in tracks.schema().fields().iter().zip(tracks.columns()) {
        let rule = field.name().strip_prefix("split_");
        let (Some(rule), Some(splits)) = (rule, column.as_string_view_opt()) else {
            continue;
        };
        if rule == own_rule {
            continue;
        }
        let of_rule = by_rule.entry(rule.to_owned()).or_default();
        let splits: Vec<&str> = splits.iter().map(|name| name.unwrap_or(NO_SPLIT)).collect();
        for &row in &plan.shard_plan.planned {
            let split = of_rule.entry(splits[row].to_owned()).or_default();
            split.add(&catalog.clips[row]);
        }
    }
    by_rule
}

/// Counts the planned clips that also have stretched copies.
fn stretched_clips(plan: &Plan<'_>) -> u64 {
    let shards = plan.shard_plan.shards.iter();
    let shards = shards.filter(|shard| plan.features.is_stretched(&shard.split));
    // A set, because a clip can be a member of several shards.
    let members: BTreeSet<usize> = shards.flat_map(|shard| &shard.members).copied().collect();
    members.len() as u64
}

/// Returns the mean CPU seconds per clip over all clips, with and without stretched copies.
fn clip_cpu_s(plan: &Plan<'_>, clips: ClipTotals) -> f64 {
    let share = clips.stretched as f64 / clips.all.max(1) as f64;
    CLIP_CPU_S + share * STRETCH_CPU_S * plan.recipe.audio.stretch.len() as f64
}

/// Compares the draft's tracks with the parent's; `None` if there is no parent or its tables cannot be read.
fn changes(
    inputs: &DraftInputs<'_, '_>,
    draft: &Draft<'_>,
    known: &KnownInputs,
) -> Option<DataChanges> {
    let manifest = &draft.parent.as_ref()?.manifest;
    let before = State::of_version(inputs.store, manifest).ok()?;
    let now = draft.state(known, inputs.input.source.index()).ok()?;
    let mut changes = DataChanges::between(&before, &now);
    changes.shorten(EXAMPLES);
    Some(changes)
}

/// The result that a run would have.
enum Outcome {
    /// Nothing to do: the latest version was made from exactly the inputs of this run.
    NothingToDo { version: u64 },
    /// The run would create a version with this number.
    Version { version: u64, plan_id: String },
    /// The run would fail with this error before it writes anything.
    Refused(ExtractError),
}

impl Outcome {
    /// Determines the outcome that [`run`](crate::run::run) would have. Adds inputs that had to be read to `known`.
    ///
    /// # Errors
    /// The errors of [`begin::decide`], except refusals.
    fn new(
        inputs: &DraftInputs<'_, '_>,
        draft: &Draft<'_>,
        vanished: Option<&VanishedClips>,
        known: &mut KnownInputs,
    ) -> Result<Self, ExtractError> {
        if let Err(refusal) = inputs.input.require_rows() {
            return Ok(Self::Refused(refusal));
        }

        match decide(inputs, draft, vanished, known) {
            Ok(Decision::NothingToDo(version, _)) => Ok(Self::NothingToDo { version }),
            Ok(Decision::Go { identity }) => Ok(Self::Version {
                version: draft.version(),
                plan_id: identity.plan_id()?,
            }),
            Err(refusal) if refusal.kind() == Kind::OtherPlan => Ok(Self::Refused(refusal)),
            Err(error) => Err(error),
        }
    }

    fn refusal(self) -> Option<ExtractError> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::NothingToDo { .. } | Self::Version { .. } => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingToDo { version } => {
                write!(f, "nothing to do: version {version} is up to date")
            }
            Self::Version { version, .. } => write!(f, "version {version} will be created"),
            Self::Refused(refusal) => write!(f, "refused: {refusal}"),
        }
    }
}

/// Decides without the lock whether a run would have work. Nothing is written or dropped.
fn decide(
    inputs: &DraftInputs<'_, '_>,
    draft: &Draft<'_>,
    vanished: Option<&VanishedClips>,
    known: &mut KnownInputs,
) -> Result<Decision, ExtractError> {
    let DraftInputs {
        store, settings, ..
    } = *inputs;
    let decision = begin::decide(inputs, draft, known)?;
    if let Decision::Go { identity } = &decision {
        if let Some(vanished) = vanished {
            vanished.require_at_most(settings.max_shrink)?;
        }
        // A run with `--restart` drops the plan of another engine. A preview drops nothing and does not check for one.
        if !settings.restart {
            let plan_record = PlanRecord {
                identity: identity.clone(),
                engine: draft.plan.engine.clone(),
            };
            store.refuse_other_engine(&plan_record, false)?;
        }
    }
    Ok(decision)
}
