//! The flow, from metadata and audio to a committed version. Read this first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fail::fail_point;
use wavemill_kernels::KernelError;
use wavemill_schemas::canonical;
use wavemill_schemas::manifest::{Engine, Identity, Manifest, Receipt, TargetEntry};
use wavemill_schemas::recipe::{Dataset, Recipe};
use wavemill_schemas::reject::Reject;

use crate::account::{self, Made, Report};
use crate::budget::ByteBudget;
use crate::catalog::{self, Catalog, CatalogError, ExtraTable};
use crate::course::{Course, Phase};
use crate::features::{FeatureError, FeaturePlan};
use crate::plan::{self, ShardPlan};
use crate::pool::{Counters, Work};
use crate::refusal::ClipMemory;
use crate::settings::{Limits, Settings};
use crate::shards::{self, ShardError, Todo};
use crate::source::{self, Source};
use crate::store::{Decision, Store, StoreError, Unfinished, linked_key};
use crate::{duplicates, engine, extract, space, tables};

/// What a run is given.
#[derive(Clone, Debug)]
pub struct Job {
    /// With every `--set` applied.
    pub recipe: Recipe,
    /// Folder, file or zip; `None` for data sets without.
    pub metadata: Option<PathBuf>,
    /// Folder or zip.
    pub audio: PathBuf,
    /// Made if it is not there.
    pub store: PathBuf,
}

/// How a caller watches a run, and stops it.
#[derive(Debug, Default)]
pub struct Watch {
    /// Where the run is; its `stop` ends it, after the clips in flight where it is so far.
    pub course: Arc<Course>,
    /// Clips that this run has to do; 0 until that is known.
    pub clips_total: AtomicU64,
    /// What is done of them.
    pub counters: Counters,
}

impl Watch {
    /// From here on clips are counted, those of `todo`.
    fn enter_clips(&self, todo: &[Todo<'_>]) {
        let clips = todo.iter().map(|t| t.shard.members.len() as u64).sum();
        self.clips_total.store(clips, Ordering::Relaxed);
        self.course.enter(Phase::Clips, 0);
    }
}

/// Why a run ended without a version.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The audio cannot be listed.
    #[error(transparent)]
    Source(#[from] source::SourceError),
    /// The metadata cannot be used.
    #[error(transparent)]
    Catalog(#[from] catalog::CatalogError),
    /// The recipe's features cannot be computed.
    #[error(transparent)]
    Feature(#[from] FeatureError),
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A shard cannot be written.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// Nothing to extract.
    #[error("no row is left after {step}: see the rows after every step with --dry-run")]
    NoRows {
        /// The step that dropped the last one, in words.
        step: String,
    },
    /// The machine failed to give a clip's bytes.
    #[error("{clip_key}: cannot read; the same command goes on from here")]
    Read {
        /// Which clip.
        clip_key: String,
        /// The answer, after retries.
        source: std::io::Error,
    },
    /// No thread can be started.
    #[error("cannot start a worker: use fewer --threads")]
    Threads {
        /// The system's answer.
        source: std::io::Error,
    },
    /// The limit holds less than one row group and one clip.
    #[error(
        "--memory-limit: {limit_bytes} bytes are too few; this recipe needs {needed_bytes} (or smaller shards.row_group_rows)"
    )]
    Memory {
        /// As given.
        limit_bytes: u64,
        /// The least that works.
        needed_bytes: u64,
    },
    /// A clip that is allowed and does not fit.
    #[error(transparent)]
    ClipMemory(#[from] ClipMemory),
    /// Another thread has failed, and told so.
    #[error("the run has failed elsewhere")]
    Elsewhere,
    /// The disk is too small.
    #[error(
        "{path}: about {needed_bytes} bytes are needed and {free_bytes} are free: make room, or use another --store"
    )]
    Space {
        /// The store.
        path: PathBuf,
        /// Estimate.
        needed_bytes: u64,
        /// On its file system.
        free_bytes: u64,
    },
    /// Over `--max-reject-fraction`.
    #[error(
        "{} of {planned} clips rejected, more than --max-reject-fraction {fraction} allows; nothing was committed. They \
         are {}{}. The last: {}",
        rejects.len(), reasons(rejects), listed(list.as_deref()), in_words(rejects.last())
    )]
    TooManyRejects {
        /// In the plan.
        planned: u64,
        /// The limit.
        fraction: f64,
        /// So far, in the order in which they came.
        rejects: Vec<Reject>,
        /// The file that lists them.
        list: Option<PathBuf>,
    },
    /// Rows + rejects ≠ inputs: a fault of wavemill.
    #[error("accounting fails: {what}; nothing was committed; please report this")]
    Accounting {
        /// Which sum.
        what: String,
    },
    /// Asked to stop.
    #[error("interrupted: {done} of {total} shards are complete; the same command goes on from there")]
    Interrupted {
        /// Complete shards.
        done: usize,
        /// Of the plan.
        total: usize,
    },
    /// Asked to stop before anything was written.
    #[error("interrupted while {phase}; nothing was written")]
    Stopped {
        /// What was being done.
        phase: Phase,
    },
    /// No device is left that works.
    #[error("no device is left that works; the same command goes on from here, and so does one with other --devices")]
    Device {
        /// Of the last one.
        source: KernelError,
    },
    /// Encoding, or a device's lane, panicked: a fault of wavemill.
    #[error("{what} panicked ({words}); nothing was committed; please report this")]
    Panic {
        /// What was being done.
        what: String,
        /// Of the panic.
        words: String,
    },
    /// JSON of our own; cannot happen.
    #[error("metadata")]
    Json(#[from] serde_json::Error),
}

impl RunError {
    /// Whether somebody asked it to stop.
    #[must_use]
    pub const fn is_interruption(&self) -> bool {
        matches!(self, Self::Interrupted { .. } | Self::Stopped { .. })
    }
}

/// `3 empty, 1 damaged`.
fn reasons(rejects: &[Reject]) -> String {
    let mut counts = BTreeMap::<_, u64>::new();
    rejects.iter().for_each(|reject| *counts.entry(reject.reason.name()).or_default() += 1);
    counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect::<Vec<_>>().join(", ")
}

fn listed(list: Option<&Path>) -> String {
    list.map_or_else(String::new, |path| format!(", listed in {}", path.display()))
}

fn in_words(reject: Option<&Reject>) -> String {
    let words = |reject: &Reject| {
        format!("{}: {}: {}", reject.clip_key.as_deref().unwrap_or_default(), reject.reason.name(), reject.detail)
    };
    reject.map(words).unwrap_or_default()
}

/// Extracts: the whole of `wavemill extract` but its command line.
///
/// # Errors
/// [`RunError`]; whatever was finished is kept, and the same call goes on from there.
pub fn run(job: &Job, settings: &Settings, watch: &Watch) -> Result<Report, RunError> {
    let source = source::open(&job.audio, settings.allow_outside)?;
    let mut catalog = catalog(job, settings, &*source, &watch.course)?;
    require_rows(&catalog)?;
    let plan = plan::shards(&catalog.clips, &job.recipe, settings.limit);
    let features = FeaturePlan::new(&job.recipe, settings)?;
    let limits = limits(job, settings, &plan, &features)?;
    let engine = engine::current(settings);
    let targets = account::targets(&job.recipe, &catalog);
    let store = Store::at(&job.store);

    let identity = identity(job, settings.limit, &catalog, &plan, (&*source, &engine))?;
    let stale = |manifest: &Manifest| account::stale_inputs(&store, manifest, &*source, &watch.course);
    let made_by = (&job.recipe, &engine, catalog.clips_absent());
    let decide = || store.decide(&identity, made_by, settings.new_version, stale);
    if let Decision::NothingToDo(version, manifest) = decide()? {
        return Ok(Report::nothing_to_do(version, *manifest, catalog.warnings));
    }
    let _lock = store.lock()?;
    // Once more: another run may have committed before the lock was ours.
    let (parent, identity) = match decide()? {
        Decision::NothingToDo(version, manifest) => {
            return Ok(Report::nothing_to_do(version, *manifest, catalog.warnings));
        }
        Decision::Go { parent, identity } => (parent, identity),
    };
    let plan_id = identity.plan_id()?;
    let begun = Unfinished { identity: identity.clone(), engine: engine.clone() };
    store.refuse_other_engine(&begun, settings.restart)?;
    store.require_own_folders(&plan_id)?;
    store.begin(&plan_id, &begun)?;
    store.clear_temporaries(&plan_id)?;

    let record = store.record(&plan_id, limits.threads)?;
    let mut told = job.recipe.warnings();
    told.extend_from_slice(&catalog.warnings);
    let begun =
        Begun { job, watch, store: &store, source: &*source, plan: &plan, features: &features, limits: &limits };
    let made_of = Made { plan_id, identity, engine, targets, files: Vec::new(), others: Vec::new() };
    let mut report = match begun.commit(&mut catalog, made_of, parent) {
        Ok(report) => report,
        Err(error) => return Err(record.failed(error, &told)),
    };

    let failures = watch.counters.lanes.failures();
    told.extend_from_slice(&failures);
    report.warnings = std::mem::take(&mut catalog.warnings);
    report.warnings.extend(failures);
    report.duplicates = catalog.duplicates;
    report.wall_s = watch.course.seconds();
    // The version is there whether or not its record can be ended.
    let unended = record.end(&report, &told).err();
    report.warnings.extend(unended.map(|error| format!("the run's record has no end: {error}")));
    Ok(report)
}

/// A run for which there is work.
struct Begun<'a> {
    job: &'a Job,
    watch: &'a Watch,
    store: &'a Store,
    source: &'a dyn Source,
    plan: &'a ShardPlan,
    features: &'a FeaturePlan,
    limits: &'a Limits,
}

impl Begun<'_> {
    /// Writes what is missing and commits it as the version after `parent`. `made`: the plan's, without files so far.
    fn commit(&self, catalog: &mut Catalog, made: Made, parent: Option<u64>) -> Result<Report, RunError> {
        let Self { job, watch, store, source, plan, features, limits } = *self;
        let plan_id = made.plan_id.clone();

        let keys = shard_keys(plan, catalog, source, &job.recipe, (features, &made.targets, &made.engine))?;
        let mut receipts = found_shards(store, &plan_id, plan, &keys, &watch.course)?;
        let todo = left_to_do(plan, keys, &receipts);
        let reused = receipts.iter().flatten().count();
        space::check(&job.store, &todo, (&catalog.clips, source.index()), features, job.recipe.shards.compression)?;

        let tables = std::mem::take(&mut catalog.tables);
        watch.course.enter(Phase::Tables, 0);
        let stop_here = || interrupted(&watch.course, &receipts);
        let (mut files, mut others) = tables::write(store, &plan_id, tables, plan, further_tables(job)?, &stop_here)?;
        others.extend(catalog.further_rejects.iter().chain(source.rejects()).cloned());

        let work = Work {
            clips: &catalog.clips,
            todo: &todo,
            source,
            plan: features,
            class_sizes: &made.targets.iter().map(|t| t.classes.len()).collect::<Vec<_>>(),
            formats: &features.formats(&made.targets, &job.recipe.shards)?,
            stop: &watch.course.stop,
            counters: &watch.counters,
            limits,
            budget: ByteBudget::new(limits.in_flight_bytes),
            encoding: ByteBudget::new(limits.encode_bytes),
        };
        watch.enter_clips(&todo);
        extract::write_shards(store, &plan_id, &work, &mut receipts)?;
        watch.course.enter(Phase::Commit, 0);
        fail_point!("run-before-commit");

        let receipts: Vec<Receipt> = receipts.into_iter().flatten().collect();
        let rejects = catalog.rejects.iter().chain(&others).chain(tables::clip_rejects(&receipts));
        files.push(tables::write_rejects(store, &plan_id, rejects)?);
        let made = Made { files, others, ..made };
        let manifest = account::manifest(made, job.recipe.clone(), catalog, plan, features.entries(), &receipts)?;
        account::check_rejects(&receipts, limits)?;
        let version = store.commit(parent, &manifest)?;
        Ok(Report::committed(version, manifest, &watch.counters, reused))
    }
}

/// The catalog of a job, with sides; nothing is written for it.
///
/// # Errors
/// [`RunError::Stopped`] among those of its parts.
pub(crate) fn catalog(
    job: &Job,
    settings: &Settings,
    source: &dyn Source,
    course: &Arc<Course>,
) -> Result<Catalog, RunError> {
    let cleaned = catalog::clean(&job.recipe, job.metadata.as_deref(), source.index(), settings.catalog(), course);
    let cleaned = cleaned.map_err(|error| match error {
        CatalogError::Stopped => RunError::Stopped { phase: course.phase() },
        error => error.into(),
    })?;
    let hashes = duplicates::audio_hashes(&job.recipe, &cleaned, source, settings, course)?;
    course.enter(Phase::Planning, 0);
    Ok(cleaned.split(&job.recipe, &hashes)?)
}

/// # Errors
/// [`RunError::Interrupted`] where the run was asked to stop.
fn interrupted(course: &Course, receipts: &[Option<Receipt>]) -> Result<(), RunError> {
    if !course.is_stopped() {
        return Ok(());
    }
    Err(RunError::Interrupted { done: receipts.iter().flatten().count(), total: receipts.len() })
}

fn limits(job: &Job, settings: &Settings, plan: &ShardPlan, features: &FeaturePlan) -> Result<Limits, RunError> {
    Limits::new(settings, plan.planned.len() as u64, job.recipe.shards.row_group_rows, features)
}

/// FMA's large tables: streamed to the store, never held.
fn further_tables(job: &Job) -> Result<Vec<ExtraTable>, RunError> {
    match (&job.metadata, job.recipe.catalog.dataset) {
        (Some(metadata), Dataset::Fma) => Ok(catalog::extra_tables(metadata)?),
        _ => Ok(Vec::new()),
    }
}

fn require_rows(catalog: &Catalog) -> Result<(), RunError> {
    if !catalog.clips.is_empty() {
        return Ok(());
    }
    let emptied = catalog.steps.iter().find(|step| step.kept == 0);
    let step = emptied.map_or_else(|| "reading the metadata".to_owned(), |s| format!("cleaning step `{}`", s.step));
    Err(RunError::NoRows { step })
}

pub(crate) fn identity(
    job: &Job,
    limit: Option<u64>,
    catalog: &Catalog,
    plan: &ShardPlan,
    (source, engine): (&dyn Source, &Engine),
) -> Result<Identity, RunError> {
    let metadata = catalog::fingerprints(job.recipe.catalog.dataset, job.metadata.as_deref())?;
    let size = |&row: &usize| {
        let key = &catalog.clips[row].clip_key;
        (key, source.index().get(key).map(|id| id.bytes))
    };
    let inputs: Vec<_> = plan.planned.iter().map(size).collect();
    Ok(Identity {
        recipe: canonical::id(&job.recipe)?,
        rows: canonical::id(&(catalog.rows_hash()?, metadata))?,
        inputs: canonical::id(&inputs)?,
        engine: canonical::id(engine)?,
        limit,
        parent: None,
    })
}

fn shard_keys(
    plan: &ShardPlan,
    catalog: &Catalog,
    source: &dyn Source,
    recipe: &Recipe,
    (features, targets, engine): (&FeaturePlan, &[TargetEntry], &Engine),
) -> Result<Vec<String>, RunError> {
    let made_of = (features.entries(), targets, engine);
    let key = |shard| shards::shard_key(shard, &catalog.clips, source.index(), recipe, made_of);
    Ok(plan.shards.iter().map(key).collect::<Result<_, _>>()?)
}

/// Receipts of shards that need no work: finished by a killed run of this plan, or linked from another plan.
fn found_shards(
    store: &Store,
    plan_id: &str,
    plan: &ShardPlan,
    keys: &[String],
    course: &Course,
) -> Result<Vec<Option<Receipt>>, RunError> {
    let mut own = store.receipts(plan_id)?;
    let others = linked_key(store, plan_id)?;
    let mut found = Vec::with_capacity(plan.shards.len());
    for (shard, key) in plan.shards.iter().zip(keys) {
        if course.is_stopped() {
            return Err(RunError::Interrupted { done: found.iter().flatten().count(), total: plan.shards.len() });
        }
        if let Some(receipt) = own.remove(&shard.label()).filter(|receipt| receipt.key == *key)
            && store.holds(&receipt)?
        {
            found.push(Some(receipt));
            continue;
        }

        let Some(theirs) = others.get(key) else {
            found.push(None);
            continue;
        };
        if !store.holds(theirs)? {
            found.push(None);
            continue;
        }
        let receipt = store.link(theirs, plan_id, shard)?;
        store.write_receipt(plan_id, &shard.label(), &receipt)?;
        found.push(Some(receipt));
    }
    Ok(found)
}

fn left_to_do<'a>(plan: &'a ShardPlan, keys: Vec<String>, receipts: &[Option<Receipt>]) -> Vec<Todo<'a>> {
    let places = plan.shards.iter().zip(keys).enumerate();
    let left = places.filter(|(place, _)| receipts[*place].is_none());
    left.map(|(place, (shard, key))| Todo { place, shard, key }).collect()
}
