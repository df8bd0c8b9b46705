//! The main flow of an extraction, from metadata and audio to a committed version. Start reading here.

mod account;
mod begin;
mod forecast;
mod preview;
mod record;
mod report;
mod space;
mod tables;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fail::fail_point;
use wavemill_catalog::{Catalog, FileAccount};
use wavemill_runtime::budget::ByteBudget;
use wavemill_runtime::course::{Course, Phase};
use wavemill_runtime::settings::Settings;
use wavemill_schemas::manifest::{FeatureEntry, FileEntry};
use wavemill_schemas::recipe::Recipe;
use wavemill_schemas::reject::Reject;
use wavemill_source::Source;
use wavemill_store::shards::{FinishedShards, TakenRows};
use wavemill_store::{Parent, Store};

pub use self::preview::{Preview, SideLabels, preview};
pub use self::report::{FileReuse, Report};
pub use self::space::free_bytes;
pub use crate::error::{RunError, SpaceError};
pub use crate::incremental::moves::{MoveCount, SideChanges};
pub use crate::incremental::shrink::VanishedClips;
pub use crate::job::Job;

use self::account::ManifestParts;
use self::begin::{NewVersion, Start};
use self::record::RunRecord;
use crate::incremental::draft::DraftInputs;
use crate::incremental::input::Input;
use crate::incremental::known::KnownInputs;
use crate::incremental::plan::Plan;
use crate::incremental::renames::Renames;
use crate::incremental::reuse::{EarlierRuns, Pass};
use crate::incremental::take::ParentRows;
use crate::incremental::{reuse, take};
use crate::threads as extract;
use crate::threads::{Counters, ExtractError, Limits, Work};

/// Lets a caller watch and stop a run.
#[derive(Debug, Default)]
pub struct RunMonitor {
    /// Progress of the run. Setting its `stop` ends the run; during extraction, clips in flight are finished first.
    pub course: Arc<Course>,
    /// Number of clips that this run has to process; 0 until the number is known.
    pub clips_total: AtomicU64,
    /// Counters of the work that the run has done so far.
    pub counters: Counters,
    /// Called with the recipe and, if there is a previous version, with the changes of splits, as soon as these are
    /// known. This is long before the commit.
    pub on_plan: Option<fn(&Recipe, Option<&SideChanges>)>,
    /// True once `on_plan` was called. A run that fails earlier has no plan.
    pub is_planned: AtomicBool,
}

impl RunMonitor {
    fn announce_plan(&self, recipe: &Recipe, sides: Option<&SideChanges>) {
        self.is_planned.store(true, Ordering::Relaxed);
        if let Some(tell) = self.on_plan {
            tell(recipe, sides);
        }
    }
}

/// Runs an extraction. This is all of `wavemill extract` except its command line.
///
/// # Errors
/// [`RunError`] if no version is committed. Finished work is kept, and the same call resumes from there.
pub fn run(job: &Job, settings: &Settings, monitor: &RunMonitor) -> Result<Report, RunError> {
    let mut input = Input::open(job, settings, &monitor.course)?;
    input.require_rows()?;
    let mut known = std::mem::take(&mut input.known);
    let files = std::mem::take(&mut input.files);

    let store = Store::at(&job.store);
    let inputs = DraftInputs {
        job,
        settings,
        input: &input,
        store: &store,
        course: &monitor.course,
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
            return Ok(Report {
                files_found: files,
                ..report
            });
        }
    };

    let sides = SideChanges::or_warning(&store, &mut draft);
    monitor.announce_plan(&job.recipe, sides.as_ref());

    let number = draft.version();
    // The rows are not split again, so only the source is kept. The catalog's tables are freed as soon as they are
    // written.
    let source = input.into_source();
    let mut catalog = draft.catalog;

    // From here on the run has a record in the store. `end` writes the record's last line even if the run fails.
    let record = RunRecord::begin(&store, &version.plan_id, limits.threads)?;
    let run = Run {
        job,
        settings,
        monitor,
        store: &store,
        plan: &draft.plan,
        parent: draft.parent.as_ref(),
        renames: &draft.renames,
        source: &*source,
        files: &files,
        limits: &limits,
        version: &version,
        number,
    };
    let committed = run
        .extract(&mut catalog, known)
        .and_then(|output| run.commit(&catalog, output));
    run.end(catalog, sides, record, committed)
}

/// A run that has work to do.
struct Run<'a> {
    job: &'a Job,
    settings: &'a Settings,
    monitor: &'a RunMonitor,
    store: &'a Store,
    plan: &'a Plan<'a>,
    /// The latest version; `None` in a new store.
    parent: Option<&'a Parent>,
    renames: &'a Renames,
    source: &'a dyn Source,
    /// Account of the files of the source: which ones are used, and why the others are not.
    files: &'a FileAccount,
    limits: &'a Limits,
    version: &'a NewVersion,
    /// Number of the version that the run creates.
    number: u64,
}

/// The files that a run wrote to the store before a version refers to them.
struct Output {
    /// The files of all features.
    finished: FinishedShards,
    /// Numbers of feature files that existed already, were rewritten or are new.
    reuse: FileReuse,
    /// Metadata tables, except the table of rejects.
    tables: Vec<FileEntry>,
    /// Rejects that belong neither to the main metadata file nor to a planned clip.
    other_rejects: Vec<Reject>,
    /// Warnings about files of the parent, for the user.
    warnings: Vec<String>,
}

impl Run<'_> {
    /// Writes the metadata tables and all shards that do not exist yet.
    fn extract(&self, catalog: &mut Catalog, mut known: KnownInputs) -> Result<Output, RunError> {
        let plan = self.plan;
        let course = &self.monitor.course;

        // Files that exist already need no more space, so these files are found before free space is checked.
        let mut finished = self.finished_shards(catalog, &mut known)?;
        let file_reuse = FileReuse::classify(&finished, plan, self.parent);
        let kept = self.kept_features();
        let is_kept: Vec<bool> = kept.iter().map(Option::is_some).collect();
        let passes = reuse::passes(&plan.shard_plan, &finished, &is_kept);

        let audio = self.source.index();
        let needed_bytes = passes
            .iter()
            .map(|pass| space::least_bytes(pass, &catalog.clips, audio, plan))
            .sum();
        space::check(&self.job.store, needed_bytes)?;

        // Tables are written before clips, because clips need the memory that is freed with the catalog's tables.
        course.enter(Phase::Tables, 0);
        let (tables, other_rejects) = self.write_tables(catalog, &finished)?;

        let (taken, warnings) = self.taken_rows(&passes, &kept, catalog, &known)?;
        drop(known);

        course.enter(Phase::Clips, 0);
        self.expect_clips(&passes);
        for (pass, taken) in passes.iter().zip(&taken) {
            self.write_pass(catalog, pass, taken, &mut finished)?;
        }

        // A clip has rows in all features or in none. If a new feature rejects a clip that has rows in other features,
        // the shard is written again with all of its features at once.
        for place in finished.in_dispute() {
            finished.forget(place);
        }
        let together = vec![false; is_kept.len()];
        let passes = reuse::passes(&plan.shard_plan, &finished, &together);
        self.expect_clips(&passes);
        for pass in &passes {
            self.write_pass(catalog, pass, &TakenRows::default(), &mut finished)?;
        }

        Ok(Output {
            finished,
            reuse: file_reuse,
            warnings,
            tables,
            other_rejects,
        })
    }

    /// Finds the files that exist already. Inputs that differ from the state in which earlier runs read them are read
    /// again.
    fn finished_shards(
        &self,
        catalog: &Catalog,
        known: &mut KnownInputs,
    ) -> Result<FinishedShards, RunError> {
        let Self {
            plan,
            store,
            settings,
            source,
            ..
        } = *self;
        let plan_id = &self.version.plan_id;
        let course = &self.monitor.course;

        let earlier = EarlierRuns::new(store, plan_id, self.parent, settings)?;
        earlier.look_at_inputs(known, plan, &catalog.clips, source, settings, course)?;
        earlier.finished(plan, &catalog.clips, known, course)
    }

    /// Returns, for each feature of the plan, the parent's entry if its stored values can be copied.
    fn kept_features(&self) -> Vec<Option<&FeatureEntry>> {
        take::kept_features(self.parent, self.plan, self.settings)
    }

    /// Collects the rows that each pass copies from the parent, and warnings about damaged files of the parent.
    fn taken_rows(
        &self,
        passes: &[Pass<'_>],
        kept: &[Option<&FeatureEntry>],
        catalog: &Catalog,
        known: &KnownInputs,
    ) -> Result<(Vec<TakenRows>, Vec<String>), RunError> {
        let mut taken = Vec::with_capacity(passes.len());
        let mut warnings = Vec::new();
        let mut parent_rows = None;
        for pass in passes {
            // Rows of either all features of a pass or of none are copied: see `passes`.
            let columns: Option<Vec<&FeatureEntry>> =
                pass.features.iter().map(|&n| kept[n]).collect();
            let (Some(columns), Some(parent)) = (columns, self.parent) else {
                taken.push(TakenRows::default());
                continue;
            };

            let rows = match &mut parent_rows {
                Some(rows) => rows,
                none => none.insert(ParentRows::new(self.store, parent, self.renames)?),
            };
            let threads = self.limits.threads;
            let features = &self.plan.features;
            let (of_pass, damaged) =
                rows.taken(pass, features, &columns, &catalog.clips, known, threads)?;
            taken.push(of_pass);
            warnings.extend(damaged);
        }
        Ok((taken, warnings))
    }

    /// Adds the clips of `passes` to the number of clips that this run has to process.
    fn expect_clips(&self, passes: &[Pass<'_>]) {
        let shards = passes.iter().flat_map(|pass| &pass.todo);
        let clips = shards.map(|task| task.shard.members.len() as u64).sum();
        self.monitor.clips_total.fetch_add(clips, Ordering::Relaxed);
    }

    /// Writes the catalog's tables, which are then dropped, and the additional tables of the data set.
    fn write_tables(
        &self,
        catalog: &mut Catalog,
        finished: &FinishedShards,
    ) -> Result<(Vec<FileEntry>, Vec<Reject>), RunError> {
        let (tables, mut rejects) = tables::write(
            self.store,
            &self.version.plan_id,
            std::mem::take(&mut catalog.tables),
            &self.plan.shard_plan,
            tables::further(self.job)?,
            &|| self.require_not_stopped(finished),
        )?;

        rejects.extend_from_slice(&catalog.further_rejects);
        rejects.extend_from_slice(self.source.rejects());
        rejects.extend_from_slice(&self.files.rejects);
        Ok((tables, rejects))
    }

    /// # Errors
    /// [`ExtractError::Interrupted`] if the run was asked to stop.
    fn require_not_stopped(&self, finished: &FinishedShards) -> Result<(), RunError> {
        if !self.monitor.course.is_stopped() {
            return Ok(());
        }
        Err(ExtractError::Interrupted {
            done: finished.n_done(),
            total: finished.n_total(),
        }
        .into())
    }

    fn write_pass(
        &self,
        catalog: &Catalog,
        pass: &Pass<'_>,
        taken: &TakenRows,
        finished: &mut FinishedShards,
    ) -> Result<(), RunError> {
        let features = self.plan.features.only(&pass.features);
        let targets = &self.plan.targets;
        let class_sizes: Vec<usize> = targets.iter().map(|t| t.classes.len()).collect();

        let work = Work {
            clips: &catalog.clips,
            keys: &self.plan.key_inputs(&catalog.clips, &features),
            feature_numbers: &pass.features,
            features_id: &self.plan.features_id()?,
            todo: &pass.todo,
            taken,
            source: self.source,
            features: &features,
            class_sizes: &class_sizes,
            formats: &features.formats(targets, &self.plan.recipe.shards)?,
            stop: &self.monitor.course.stop,
            counters: &self.monitor.counters,
            limits: self.limits,
            budget: ByteBudget::new(self.limits.in_flight_bytes),
            encoding: ByteBudget::new(self.limits.encode_bytes),
        };
        extract::write_shards(self.store, &self.version.plan_id, &work, finished)?;
        Ok(())
    }

    /// Accounts for every input and commits the version.
    fn commit(&self, catalog: &Catalog, output: Output) -> Result<Report, RunError> {
        self.monitor.course.enter(Phase::Commit, 0);
        fail_point!("run-before-commit");

        let Output {
            finished,
            reuse: file_reuse,
            mut tables,
            other_rejects,
            warnings,
        } = output;
        // The order of the rejects is fixed, because it determines the bytes of their table.
        let rejects = catalog
            .rejects
            .iter()
            .chain(&other_rejects)
            .chain(account::clip_rejects(&finished));
        let plan_id = &self.version.plan_id;
        tables.push(tables::write_rejects(self.store, plan_id, rejects)?);
        tables.push(tables::write_inputs(self.store, plan_id, &finished.inputs)?);
        tables.push(tables::write_audio_files(
            self.store,
            plan_id,
            &self.files.found,
        )?);

        let manifest = account::manifest(ManifestParts {
            version: self.version,
            plan: self.plan,
            catalog,
            finished: &finished,
            tables,
            other_rejects: &other_rejects,
        })?;
        // Checks the rejects of all shards again: during extraction, the limit is only checked when a reject is added.
        account::check_rejects(&finished, self.limits)?;

        let files_equal = match self.parent {
            Some(parent) => self.store.link_equal(&parent.manifest, &manifest)?,
            None => 0,
        };
        self.store.commit(self.number, &manifest)?;
        let counters = &self.monitor.counters;
        let mut report = Report::committed(self.number, manifest, counters, file_reuse);
        report.warnings = warnings;
        report.files_equal = files_equal;
        Ok(report)
    }

    /// Completes the run's record, and adds warnings for the user to the report.
    fn end(
        &self,
        catalog: Catalog,
        sides: Option<SideChanges>,
        record: RunRecord,
        committed: Result<Report, RunError>,
    ) -> Result<Report, RunError> {
        // The order in which warnings are shown. The first one is about scores of earlier models that are no longer
        // valid.
        let mut warnings = Vec::new();
        warnings.extend(sides.as_ref().and_then(SideChanges::warning));
        warnings.extend(self.job.recipe.warnings());
        warnings.extend_from_slice(&catalog.warnings);
        let mut report = match committed {
            Ok(report) => report,
            Err(error) => return Err(record.failed(error, &warnings)),
        };

        // `on_plan` has already shown the recipe's own warnings and the warning about moved tracks.
        let lane_warnings = self.monitor.counters.lanes.warnings();
        warnings.extend_from_slice(&lane_warnings);
        warnings.extend_from_slice(&report.warnings);
        let of_parent = std::mem::replace(&mut report.warnings, catalog.warnings);
        report.warnings.extend(lane_warnings);
        report.warnings.extend(of_parent);
        report.duplicates = catalog.duplicates;
        report.files_found.clone_from(self.files);
        report.sides = sides;
        report.wall_s = self.monitor.course.seconds();

        // The version is committed even if the last line of its record cannot be written.
        if let Err(error) = record.end(&report, &warnings) {
            let words = format!("cannot complete the run record: {error}");
            report.warnings.push(words);
        }
        Ok(report)
    }
}
