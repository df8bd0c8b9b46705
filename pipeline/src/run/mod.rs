//! The flow, from metadata and audio to a committed version. Read this first.

mod account;
mod begin;
mod draft;
mod error;
mod forecast;
mod input;
mod known;
mod moves;
mod plan;
mod preview;
mod record;
mod renames;
mod report;
mod reuse;
mod shrink;
mod space;
mod tables;
mod take;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fail::fail_point;
use wavemill_schemas::manifest::{FeatureEntry, FileEntry};
use wavemill_schemas::recipe::Recipe;
use wavemill_schemas::reject::Reject;

pub use self::error::RunError;
pub use self::moves::{MoveCount, SideChanges};
pub use self::preview::{Preview, SideLabels, preview};
pub use self::report::{FileReuse, Report};
pub use self::shrink::VanishedClips;
pub use self::space::{SpaceError, free_bytes};

use self::account::ManifestParts;
use self::begin::{NewVersion, Start};
use self::draft::DraftInputs;
use self::input::Input;
use self::known::KnownInputs;
use self::plan::Plan;
use self::record::RunRecord;
use self::renames::Renames;
use self::reuse::{EarlierRuns, Pass};
use self::take::ParentRows;
use crate::budget::ByteBudget;
use crate::catalog::{Catalog, FileAccount};
use crate::course::{Course, Phase};
use crate::extract::{self, Counters, ExtractError, Limits, Work};
use crate::settings::Settings;
use crate::shards::{FinishedShards, TakenRows};
use crate::source::Source;
use crate::store::{Parent, Store};

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
    /// A file of sides, which are kept as if the version before had given them.
    pub sides: Option<PathBuf>,
}

/// How a caller watches a run, and stops it.
#[derive(Debug, Default)]
pub struct RunMonitor {
    /// Where the run is; its `stop` ends it, after the clips in flight where it is so far.
    pub course: Arc<Course>,
    /// Clips that this run has to do; 0 until that is known.
    pub clips_total: AtomicU64,
    /// What is done of them.
    pub counters: Counters,
    /// Is told of the recipe, and how sides change where there is a version before, as soon as that is known: long before
    /// the commit.
    pub on_plan: Option<fn(&Recipe, Option<&SideChanges>)>,
    /// Whether `on_plan` was called. A run that fails before has no plan.
    pub is_planned: AtomicBool,
}

impl RunMonitor {
    fn tell_plan(&self, recipe: &Recipe, sides: Option<&SideChanges>) {
        self.is_planned.store(true, Ordering::Relaxed);
        if let Some(tell) = self.on_plan {
            tell(recipe, sides);
        }
    }
}

/// Extracts: the whole of `wavemill extract` but its command line.
///
/// # Errors
/// [`RunError`]; whatever was finished is kept, and the same call goes on from there.
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
    // A look at the store as it is, without its lock. A limit that is too small for the recipe is told before anything
    // is written.
    let mut draft = inputs.draft(store.latest()?, &mut known)?;
    let limits = draft.plan.limits(settings)?;

    let version = match begin::begin(&inputs, &mut draft, &mut known)? {
        Start::Version(version) => version,
        Start::NothingToDo(version, manifest) => {
            monitor.tell_plan(&job.recipe, None);
            let warnings = draft.catalog.warnings;
            let report = Report::nothing_to_do(version, *manifest, warnings);
            return Ok(Report {
                files_found: files,
                ..report
            });
        }
    };

    let sides = SideChanges::or_warning(&store, &mut draft);
    monitor.tell_plan(&job.recipe, sides.as_ref());

    let number = draft.version();
    // Nothing is split again. The catalog's tables are given back as soon as they are written.
    let source = input.into_source();
    let mut catalog = draft.catalog;

    // From here on the run has a record, and whatever becomes of the run, `end` writes the record's last line.
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

/// A run for which there is work.
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
    /// The fate of every file of the source.
    files: &'a FileAccount,
    limits: &'a Limits,
    version: &'a NewVersion,
    /// The version's.
    number: u64,
}

/// What a run wrote below the store's folders, before a version names it.
struct Output {
    /// All files of features.
    finished: FinishedShards,
    /// How many of them were there already, and which others had to be written.
    reuse: FileReuse,
    /// Metadata tables, but that of the rejects.
    tables: Vec<FileEntry>,
    /// Rejects that belong neither to the main metadata file nor to a planned clip.
    other_rejects: Vec<Reject>,
    /// What a person should know of the parent's files.
    warnings: Vec<String>,
}

impl Run<'_> {
    /// Writes the metadata tables, and every shard that is not there yet.
    fn extract(&self, catalog: &mut Catalog, mut known: KnownInputs) -> Result<Output, RunError> {
        let plan = self.plan;
        let course = &self.monitor.course;

        // What is there already takes no more room, so it is found before free space is asked for.
        let mut finished = self.finished_shards(catalog, &mut known)?;
        let file_reuse = FileReuse::of(&finished, plan, self.parent);
        let kept = self.kept_features();
        let is_kept: Vec<bool> = kept.iter().map(Option::is_some).collect();
        let passes = reuse::passes(&plan.shard_plan, &finished, &is_kept);

        let audio = self.source.index();
        let needed_bytes = passes
            .iter()
            .map(|pass| space::least_bytes(pass, &catalog.clips, audio, plan))
            .sum();
        space::check(&self.job.store, needed_bytes)?;

        // Tables come before clips, which need the memory that the catalog's tables give back.
        course.enter(Phase::Tables, 0);
        let (tables, other_rejects) = self.write_tables(catalog, &finished)?;

        let (taken, warnings) = self.taken_rows(&passes, &kept, catalog, &known)?;
        drop(known);

        course.enter(Phase::Clips, 0);
        self.expect_clips(&passes);
        for (pass, taken) in passes.iter().zip(&taken) {
            self.write_pass(catalog, pass, taken, &mut finished)?;
        }

        // A clip has rows in all features or in none. Where a new feature rejects a clip that others hold rows of, the
        // shard is written once more, with all of its features at a time.
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

    /// What is there already. Files that earlier runs saw otherwise are read for it.
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

    /// For each feature: as the parent stores it, where its values would be the same ones.
    fn kept_features(&self) -> Vec<Option<&FeatureEntry>> {
        take::kept_features(self.parent, self.plan, self.settings)
    }

    /// What each pass takes over, and what is to be told of the parent's files.
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
            // All of them, or none: see `passes`.
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

    /// So many more clips are to be done: those of `passes`.
    fn expect_clips(&self, passes: &[Pass<'_>]) {
        let shards = passes.iter().flat_map(|pass| &pass.todo);
        let clips = shards.map(|task| task.shard.members.len() as u64).sum();
        self.monitor.clips_total.fetch_add(clips, Ordering::Relaxed);
    }

    /// The tables of the catalog, which are dropped once they are written, and the data set's further ones.
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
    /// [`ExtractError::Interrupted`] where the run was asked to stop.
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

    /// Accounts for every input, and makes the version exist.
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
        // Always in this order, which decides the bytes of the table.
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
        // Once more over all shards: while clips are extracted, only a new reject is compared with the limit.
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

    /// Ends the run's record, and tells what a person should know.
    fn end(
        &self,
        catalog: Catalog,
        sides: Option<SideChanges>,
        record: RunRecord,
        committed: Result<Report, RunError>,
    ) -> Result<Report, RunError> {
        // In the order in which they are told: first what makes scores of earlier models wrong.
        let mut warnings = Vec::new();
        warnings.extend(sides.as_ref().and_then(SideChanges::warning));
        warnings.extend(self.job.recipe.warnings());
        warnings.extend_from_slice(&catalog.warnings);
        let mut report = match committed {
            Ok(report) => report,
            Err(error) => return Err(record.failed(error, &warnings)),
        };

        // The recipe's own warnings, and that of the sides, were shown by `on_plan`.
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

        // The version is there whether or not its record can be ended.
        if let Err(error) = record.end(&report, &warnings) {
            let words = format!("the run's record has no end: {error}");
            report.warnings.push(words);
        }
        Ok(report)
    }
}
