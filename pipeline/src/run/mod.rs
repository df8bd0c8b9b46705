//! The flow, from metadata and audio to a committed version. Read this first.

mod account;
mod begin;
mod draft;
mod error;
mod input;
mod moves;
mod plan;
mod preview;
mod record;
mod report;
mod reuse;
mod space;
mod tables;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fail::fail_point;
use wavemill_schemas::manifest::{FileEntry, Receipt};
use wavemill_schemas::recipe::Recipe;
use wavemill_schemas::reject::Reject;

pub use self::error::RunError;
pub use self::moves::{MoveCount, SideChanges};
pub use self::preview::{Preview, preview};
pub use self::report::Report;
pub use self::space::free_bytes;

use self::account::ManifestParts;
use self::begin::{NewVersion, Start};
use self::draft::DraftInputs;
use self::input::Input;
use self::plan::Plan;
use self::record::RunRecord;
use crate::budget::ByteBudget;
use crate::catalog::Catalog;
use crate::course::{Course, Phase};
use crate::extract::{self, Counters, ExtractError, Limits, Work};
use crate::settings::Settings;
use crate::shards::ShardTask;
use crate::source::Source;
use crate::store::Store;

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
pub struct RunMonitor {
    /// Where the run is; its `stop` ends it, after the clips in flight where it is so far.
    pub course: Arc<Course>,
    /// Clips that this run has to do; 0 until that is known.
    pub clips_total: AtomicU64,
    /// What is done of them.
    pub counters: Counters,
    /// Is told how sides change as soon as that is known, long before the commit.
    pub on_sides: Option<fn(&SideChanges)>,
}

impl RunMonitor {
    /// From here on clips are counted, those of `todo`.
    fn enter_clips(&self, todo: &[ShardTask<'_>]) {
        let clips = todo.iter().map(|t| t.shard.members.len() as u64).sum();
        self.clips_total.store(clips, Ordering::Relaxed);
        self.course.enter(Phase::Clips, 0);
    }
}

/// Extracts: the whole of `wavemill extract` but its command line.
///
/// # Errors
/// [`RunError`]; whatever was finished is kept, and the same call goes on from there.
pub fn run(job: &Job, settings: &Settings, monitor: &RunMonitor) -> Result<Report, RunError> {
    let input = Input::open(job, settings, &monitor.course)?;
    input.require_rows()?;

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
    let mut draft = inputs.draft(store.latest()?)?;
    let limits = draft.plan.limits(settings)?;

    let version = match begin::begin(&inputs, &mut draft)? {
        Start::Version(version) => version,
        Start::NothingToDo(version, manifest) => {
            let warnings = draft.catalog.warnings;
            return Ok(Report::nothing_to_do(version, *manifest, warnings));
        }
    };

    let sides = SideChanges::or_warning(&store, &mut draft);
    if let (Some(tell), Some(sides)) = (monitor.on_sides, &sides) {
        tell(sides);
    }

    let number = draft.version();
    // Nothing is split again. The catalog's tables are given back as soon as they are written.
    let source = input.into_source();
    let mut catalog = draft.catalog;

    // From here on the run has a record, and whatever becomes of the run, `end` writes the record's last line.
    let record = RunRecord::begin(&store, &version.plan_id, limits.threads)?;
    let run = Run {
        job,
        monitor,
        store: &store,
        plan: &draft.plan,
        source: &*source,
        limits: &limits,
        version: &version,
        number,
    };
    let committed = run
        .extract(&mut catalog)
        .and_then(|output| run.commit(&catalog, output));
    run.end(catalog, sides, record, committed)
}

/// A run for which there is work.
struct Run<'a> {
    job: &'a Job,
    monitor: &'a RunMonitor,
    store: &'a Store,
    plan: &'a Plan<'a>,
    source: &'a dyn Source,
    limits: &'a Limits,
    version: &'a NewVersion,
    /// The version's.
    number: u64,
}

/// What a run wrote below the store's folders, before a version names it.
struct Output {
    /// Of all shards, in plan order.
    receipts: Vec<Receipt>,
    /// Shards that were there already.
    shards_reused: usize,
    /// Metadata tables, but that of the rejects.
    tables: Vec<FileEntry>,
    /// Rejects that belong neither to the main metadata file nor to a planned clip.
    other_rejects: Vec<Reject>,
}

impl Run<'_> {
    /// Writes the metadata tables, and every shard that is not there yet.
    fn extract(&self, catalog: &mut Catalog) -> Result<Output, RunError> {
        let plan = self.plan;
        let plan_id = &self.version.plan_id;
        let course = &self.monitor.course;

        // What is there already takes no more room, so it is found before free space is asked for.
        let audio = self.source.index();
        let keys = reuse::shard_keys(plan, &catalog.clips, audio)?;
        let mut receipts =
            reuse::finished_shards(self.store, plan_id, &plan.shard_plan, &keys, course)?;
        let shards_reused = receipts.iter().flatten().count();
        let todo = reuse::left_to_do(&plan.shard_plan, keys, &receipts);

        let compression = plan.recipe.shards.compression;
        let needed_bytes =
            space::least_bytes(&todo, &catalog.clips, audio, &plan.features, compression);
        space::check(&self.job.store, needed_bytes)?;

        // Tables come before clips, which need the memory that the catalog's tables give back.
        course.enter(Phase::Tables, 0);
        let (tables, other_rejects) = self.write_tables(catalog, &receipts)?;

        self.monitor.enter_clips(&todo);
        self.write_shards(catalog, &todo, &mut receipts)?;

        Ok(Output {
            receipts: receipts.into_iter().flatten().collect(),
            shards_reused,
            tables,
            other_rejects,
        })
    }

    /// The tables of the catalog, which are dropped once they are written, and the data set's further ones.
    fn write_tables(
        &self,
        catalog: &mut Catalog,
        receipts: &[Option<Receipt>],
    ) -> Result<(Vec<FileEntry>, Vec<Reject>), RunError> {
        let (tables, mut rejects) = tables::write(
            self.store,
            &self.version.plan_id,
            std::mem::take(&mut catalog.tables),
            &self.plan.shard_plan,
            tables::further(self.job)?,
            &|| self.require_not_stopped(receipts),
        )?;

        rejects.extend_from_slice(&catalog.further_rejects);
        rejects.extend_from_slice(self.source.rejects());
        Ok((tables, rejects))
    }

    /// # Errors
    /// [`ExtractError::Interrupted`] where the run was asked to stop.
    fn require_not_stopped(&self, receipts: &[Option<Receipt>]) -> Result<(), RunError> {
        if !self.monitor.course.is_stopped() {
            return Ok(());
        }
        Err(ExtractError::Interrupted {
            done: receipts.iter().flatten().count(),
            total: receipts.len(),
        }
        .into())
    }

    fn write_shards(
        &self,
        catalog: &Catalog,
        todo: &[ShardTask<'_>],
        receipts: &mut [Option<Receipt>],
    ) -> Result<(), RunError> {
        let features = &self.plan.features;
        let targets = &self.plan.targets;
        let class_sizes: Vec<usize> = targets.iter().map(|t| t.classes.len()).collect();

        let work = Work {
            clips: &catalog.clips,
            todo,
            source: self.source,
            features,
            class_sizes: &class_sizes,
            formats: &features.formats(targets, &self.plan.recipe.shards)?,
            stop: &self.monitor.course.stop,
            counters: &self.monitor.counters,
            limits: self.limits,
            budget: ByteBudget::new(self.limits.in_flight_bytes),
            encoding: ByteBudget::new(self.limits.encode_bytes),
        };
        extract::write_shards(self.store, &self.version.plan_id, &work, receipts)?;
        Ok(())
    }

    /// Accounts for every input, and makes the version exist.
    fn commit(&self, catalog: &Catalog, output: Output) -> Result<Report, RunError> {
        self.monitor.course.enter(Phase::Commit, 0);
        fail_point!("run-before-commit");

        let Output {
            receipts,
            shards_reused,
            mut tables,
            other_rejects,
        } = output;
        // Always in this order, which decides the bytes of the table.
        let rejects = catalog
            .rejects
            .iter()
            .chain(&other_rejects)
            .chain(account::clip_rejects(&receipts));
        tables.push(tables::write_rejects(
            self.store,
            &self.version.plan_id,
            rejects,
        )?);

        let manifest = account::manifest(ManifestParts {
            version: self.version,
            plan: self.plan,
            catalog,
            receipts: &receipts,
            tables,
            other_rejects: &other_rejects,
        })?;
        // Once more over all shards: while clips are extracted, only a new reject is compared with the limit.
        account::check_rejects(&receipts, self.limits)?;

        self.store.commit(self.number, &manifest)?;
        let counters = &self.monitor.counters;
        Ok(Report::committed(
            self.number,
            manifest,
            counters,
            shards_reused,
        ))
    }

    /// Ends the run's record, and tells what a person should know.
    fn end(
        &self,
        catalog: Catalog,
        sides: Option<SideChanges>,
        record: RunRecord,
        committed: Result<Report, RunError>,
    ) -> Result<Report, RunError> {
        // In the order in which they are told.
        let mut warnings = self.job.recipe.warnings();
        warnings.extend(sides.as_ref().and_then(SideChanges::warning));
        warnings.extend_from_slice(&catalog.warnings);
        let mut report = match committed {
            Ok(report) => report,
            Err(error) => return Err(record.failed(error, &warnings)),
        };

        // The recipe's own warnings were shown before the run began, and that of the sides by `on_sides`.
        let lane_warnings = self.monitor.counters.lanes.warnings();
        warnings.extend_from_slice(&lane_warnings);
        report.warnings = catalog.warnings;
        report.warnings.extend(lane_warnings);
        report.duplicates = catalog.duplicates;
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
