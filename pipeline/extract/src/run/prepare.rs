//! Prepares a version: reads the inputs, plans, and takes the store's lock. Finds the files that exist already.

use wavemill_catalog::{CatalogSettings, FileAccount};
use wavemill_runtime::progress::Phase;
use wavemill_schemas::manifest::{FileEntry, Identity};
use wavemill_schemas::reject::Reject;
use wavemill_source::Source;
use wavemill_store::shards::FinishedShards;
use wavemill_store::{Lock, Purpose, Store};

use super::begin::{self, NewVersion, Start};
use super::planned::{PlannedCommit, PlannedVersion, PlannedWork};
use super::shards::ShardRun;
use super::{FileReuse, Report, RunMonitor, account, tables};
use crate::error::ExtractError;
use crate::incremental::draft::{Draft, DraftInputs};
use crate::incremental::input::Input;
use crate::incremental::known::KnownInputs;
use crate::incremental::moves::SplitChanges;
use crate::incremental::reuse::EarlierRuns;
use crate::job::Job;
use crate::settings::Settings;
use crate::threads::Limits;

/// Result of preparing a version.
pub(super) enum Preparation<'a> {
    /// The latest version was made from exactly these inputs.
    NothingToDo(Box<Report>),
    /// There is work to do, and the store's lock is held.
    Version(Box<Prepared<'a>>),
}

/// A version that can be written.
pub(super) struct Prepared<'a> {
    pub job: &'a Job,
    pub settings: &'a Settings,
    pub monitor: &'a RunMonitor,
    pub store: Store,
    pub draft: Draft<'a>,
    /// Contents of inputs that are known before they are read.
    pub known: KnownInputs,
    /// Account of the files of the source: which ones are used, and why the others are not.
    pub files: FileAccount,
    pub source: Box<dyn Source>,
    /// Changes of the tracks' splits since the parent, if there is one.
    pub sides: Option<SplitChanges>,
    pub limits: Limits,
    /// Hashes that identify the plan, including the parent's hash.
    identity: Identity,
    pub plan_id: String,
    /// Exclusive lock of the store.
    _lock: Lock,
}

/// Reads the inputs and plans a version.
///
/// # Errors
/// [`ExtractError`] if the inputs cannot be used, or the store refuses the plan.
pub(super) fn prepare<'a>(
    job: &'a Job,
    settings: &'a Settings,
    monitor: &'a RunMonitor,
) -> Result<Preparation<'a>, ExtractError> {
    let mut input = Input::open(job, settings, &monitor.progress)?;
    input.require_rows()?;
    let files = std::mem::take(&mut input.files);

    let store = Store::find(&job.store, Purpose::Writing)?;
    store.pull_receipts()?;
    let mut known = input.find_copies(job, &store, settings, &monitor.progress)?;
    let inputs = DraftInputs {
        job,
        settings,
        input: &input,
        store: &store,
        progress: &monitor.progress,
    };
    // The store is read without its lock. A memory limit that is too small for the recipe is reported before anything
    // is written.
    let mut draft = inputs.draft(store.latest()?, &mut known)?;
    let limits = draft.plan.limits(settings)?;

    let version = match begin::begin(&inputs, &mut draft, &mut known)? {
        Start::Version(version) => version,
        Start::NothingToDo(version, manifest) => {
            monitor.announce_plan(&job.recipe, None);
            let warnings = draft.catalog.warnings;
            let report = Report::nothing_to_do(version, *manifest, warnings);
            return Ok(Preparation::NothingToDo(Box::new(Report {
                files_found: files,
                ..report
            })));
        }
    };

    let sides = SplitChanges::or_warning(&store, &mut draft);
    monitor.announce_plan(&job.recipe, sides.as_ref());

    let NewVersion {
        identity,
        plan_id,
        lock,
    } = version;
    Ok(Preparation::Version(Box::new(Prepared {
        job,
        settings,
        monitor,
        draft,
        known,
        files,
        // The rows are not split again, so only the source is kept.
        source: input.source,
        sides,
        limits,
        identity,
        plan_id,
        _lock: lock,
        store,
    })))
}

impl Prepared<'_> {
    /// Finds the files that exist already. Inputs that differ from the state in which earlier runs read them are read
    /// again.
    pub(super) fn finished_shards(&mut self) -> Result<FinishedShards, ExtractError> {
        let Self {
            draft,
            known,
            source,
            settings,
            monitor,
            ..
        } = self;
        let (plan, clips, progress) = (&draft.plan, &draft.catalog.clips, &monitor.progress);

        // The lock is held since the receipts were copied.
        self.store.equalize_receipts()?;
        let parent = draft.parent.as_ref();
        let earlier = EarlierRuns::new(&self.store, &self.plan_id, parent, settings)?;
        earlier.look_at_inputs(known, plan, clips, &**source, settings, progress)?;
        let (finished, warnings) = earlier.finished(plan, clips, known, progress)?;
        draft.catalog.warnings.extend(warnings);
        Ok(finished)
    }

    /// Returns the writer of the plan's shards.
    pub(super) fn shards(&self) -> ShardRun<'_> {
        ShardRun {
            settings: self.settings,
            monitor: self.monitor,
            store: &self.store,
            plan_id: &self.plan_id,
            plan: &self.draft.plan,
            clips: &self.draft.catalog.clips,
            parent: self.draft.parent.as_ref(),
            renames: &self.draft.renames,
            source: &*self.source,
            limits: &self.limits,
        }
    }

    /// Writes the metadata tables, which the catalog then no longer has, and returns all that is needed to commit the
    /// version when its shards are finished. `finished` contains those that exist already.
    pub(super) fn planned(
        &mut self,
        finished: &FinishedShards,
    ) -> Result<PlannedVersion, ExtractError> {
        self.monitor.progress.enter(Phase::Tables, 0);
        let (tables, other_rejects) = self.write_tables(finished)?;
        let Self {
            job,
            draft,
            limits,
            files,
            ..
        } = self;
        let version = draft.version();
        let Draft {
            parent,
            catalog,
            plan,
            ..
        } = draft;

        Ok(PlannedVersion {
            plan_id: self.plan_id.clone(),
            work: PlannedWork {
                version,
                identity: self.identity.clone(),
                engine: plan.engine.clone(),
                recipe: job.recipe.clone(),
                targets: plan.targets.clone(),
                audio: job.audio.clone(),
                audio_root: self.source.root().to_owned(),
                recompute: self.settings.recompute,
                clips_planned: limits.planned,
                reject_fraction: limits.reject_fraction,
                shards: plan.shard_plan.shards.len(),
                blocks: Vec::new(),
            },
            commit: PlannedCommit {
                features: plan.features.entries().to_vec(),
                shards: plan.shard_plan.counts.clone(),
                tables,
                account: account::of_inputs(catalog, other_rejects, &plan.shard_plan),
                files: files.clone(),
                duplicates: catalog.duplicates,
                sides: self.sides.clone(),
                reuse: FileReuse::classify(finished, plan, parent.as_ref()),
            },
        })
    }

    /// Writes the catalog's tables, which are then dropped, and the additional tables of the data set.
    fn write_tables(
        &mut self,
        finished: &FinishedShards,
    ) -> Result<(Vec<FileEntry>, Vec<Reject>), ExtractError> {
        let catalog = &mut self.draft.catalog;
        let catalog_tables = std::mem::take(&mut catalog.tables);
        let (tables, mut rejects) = tables::write(
            &self.store,
            &self.plan_id,
            catalog_tables,
            &self.draft.plan.shard_plan,
            tables::further(self.job)?,
            CatalogSettings::from(self.settings).reject_fraction,
            &|| self.require_not_stopped(finished),
        )?;

        rejects.extend_from_slice(&self.draft.catalog.further_rejects);
        rejects.extend_from_slice(self.source.rejects());
        rejects.extend_from_slice(&self.files.rejects);
        Ok((tables, rejects))
    }

    /// # Errors
    /// An error of the kind `Interrupted` if the run was asked to stop.
    fn require_not_stopped(&self, finished: &FinishedShards) -> Result<(), ExtractError> {
        if !self.monitor.progress.is_stopped() {
            return Ok(());
        }
        Err(ExtractError::stopped_after(finished))
    }
}
