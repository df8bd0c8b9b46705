//! `wavemill extract`: turns metadata and audio into a committed version.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use indicatif::{DecimalBytes, HumanDuration};
use wavemill_catalog::{Duplicates, MetadataFiles};
use wavemill_extract::run::{self, Job, Preview, Report, RunMonitor, SplitChanges};
use wavemill_extract::settings::{MAX_SHRINK, MEMORY_LIMIT_BYTES_MIN, Settings, THREADS_MAX};
use wavemill_kernels::Level;
use wavemill_schemas::number::number;
use wavemill_schemas::recipe::Recipe;
use wavemill_schemas::reject::Reason;
use wavemill_schemas::size::parse_at_least;
use wavemill_schemas::text::{counted, shown, shown_lines};
use wavemill_store::StorePlace;
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::output::{self, OutputArgs, stdout};

use super::WaitArgs;
use super::backend::BackendArgs;
use super::progress::accompanied;
use super::sql::parse_table;

const EXAMPLES: &str = "\
Examples:
  wavemill extract --recipe fma-large --metadata fma_metadata.zip \\
      --audio fma_large.zip --store store
  wavemill extract --recipe fma-large --metadata fma_metadata \\
      --audio fma_large --store store --dry-run
  wavemill extract --recipe fma-small --metadata fma_metadata.zip \\
      --audio fma_small.zip --store store --limit 100
  wavemill extract --recipe mine.toml --set features.log_mel.n_mels=96 \\
      --metadata m --audio a --store s --new-version

To continue a killed or interrupted run, repeat the same command. On a complete store, it has nothing to do.

Exit code 4 also if too many files are not found.";

/// Maximum number of moved tracks that a summary line names; the JSON report contains all of them.
const MERGES_SHOWN: usize = 3;

/// Create a version of a store from metadata and audio
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExtractCommand {
    /// A shipped recipe's name (see `wavemill recipe list`), or a TOML file
    #[arg(long, value_name = "NAME|FILE")]
    pub recipe: String,
    /// Folder, zip or file of the metadata, or the address of a zip or file; optional for `folders` data sets
    #[arg(long, value_name = "PATH")]
    pub metadata: Option<StorePlace>,
    /// A further table for the SQL of cleaning steps, in a CSV, TSV, Parquet or JSON lines file; may be repeated
    #[arg(long = "table", value_name = "NAME=FILE", value_parser = parse_table, hide_short_help = true)]
    pub tables: Vec<(String, PathBuf)>,
    /// Folder or zip of the audio, or its address such as s3://bucket/music or https://host/music.zip
    #[arg(long, value_name = "PATH")]
    pub audio: StorePlace,
    /// Folder of the store, or its address such as s3://bucket/store; created if it does not exist
    #[arg(long, value_name = "DIR")]
    pub store: StorePlace,
    /// Change a value of the recipe, such as features.log_mel.n_mels=96
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Extract only N clips, chosen by hash; classes and splits are those of all clips
    #[arg(long, value_name = "N", value_parser = number::<u64>(1..))]
    pub limit: Option<u64>,
    /// Largest fraction of rejected clips; above it nothing is committed. If it is more than 0.5, it also allows as
    /// many rejected rows of a metadata file [default: 0.05, or 1 with fewer than 20 clips]
    #[arg(long, value_name = "F", value_parser = number::<f64>(0.0..=1.0))]
    pub max_reject_fraction: Option<f64>,
    /// Largest fraction of the last version's clips whose files are not found, as when a folder is not mounted; above
    /// it nothing is written
    #[arg(long, value_name = "F", default_value_t = MAX_SHRINK, value_parser = number::<f64>(0.0..=1.0), hide_short_help = true)]
    pub max_shrink: f64,
    /// Threads, memory and instructions.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Commit another version if the store's last one was made differently
    #[arg(long)]
    pub new_version: bool,
    /// Redraw the splits of all tracks, including the tracks in the store's last version
    #[arg(long)]
    pub resplit: bool,
    /// Take the splits from a CSV or Parquet file instead of the store's last version; it needs the columns of a
    /// store's table `sides`
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "resplit",
        hide_short_help = true
    )]
    pub sides: Option<PathBuf>,
    /// Renumber all classes in the order of their names, including those with ids in the store's last version
    #[arg(long, hide_short_help = true)]
    pub renumber: bool,
    /// Compute all rows and reuse none of the store's last version; the files are the same either way
    #[arg(long, hide_short_help = true)]
    pub recompute: bool,
    /// Discard an unfinished run that used another engine
    #[arg(long, hide_short_help = true)]
    pub restart: bool,
    /// Follow links that leave the audio folder
    #[arg(long, hide_short_help = true)]
    pub allow_outside: bool,
    /// Show the rows left after every step, an estimate, and the outcome of the run; write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the report as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of the resources and of the engine of an extraction, and the time to wait for the store.
#[derive(Debug, Args)]
pub struct MachineArgs {
    /// Number of decoding threads [default: the number of processors]
    #[arg(long, value_name = "N", env = "WAVEMILL_THREADS", value_parser = number::<usize>(1..=THREADS_MAX))]
    pub threads: Option<usize>,
    /// Memory limit of the process, such as 4GiB
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = |text: &str| parse_at_least(text, MEMORY_LIMIT_BYTES_MIN as usize), env = "WAVEMILL_MEMORY_LIMIT")]
    pub memory_limit: usize,
    /// Instruction set: files are equal byte for byte only with the same one [default: the best of this machine]
    #[arg(long, value_name = "LEVEL", value_parser = ["x86-64-v3", "scalar"], hide_short_help = true)]
    pub isa: Option<String>,
    /// Backend that computes features.
    #[command(flatten)]
    pub backend: BackendArgs,
    /// Time to wait for a store that another command is writing.
    #[command(flatten)]
    pub wait: WaitArgs,
}

impl MachineArgs {
    /// Returns settings for the features of `recipe`, with the defaults for all other options.
    ///
    /// # Errors
    /// [`UsageError`] for values out of range; the errors of [`BackendArgs::open`].
    pub fn settings(&self, recipe: &Recipe) -> Result<Settings> {
        let default = Settings::default();
        let level = match self.isa.as_deref() {
            Some("scalar") => Level::Scalar,
            Some(_) if Level::X86_64V3.is_available() => Level::X86_64V3,
            Some(level) => {
                return Err(
                    UsageError(format!("--isa {level}: this machine does not support it")).into(),
                );
            }
            None => default.level,
        };
        Ok(Settings {
            threads: self.threads.unwrap_or(default.threads),
            memory_limit_bytes: self.memory_limit as u64,
            level,
            backend: self.backend.open(level, recipe)?,
            lock_wait: self.wait.duration(),
            ..default
        })
    }
}

impl ExtractCommand {
    /// Runs the extraction and returns the exit code.
    ///
    /// # Errors
    /// [`wavemill_extract::error::ExtractError`], an error of the recipe, or wrong usage; with `--dry-run` also the
    /// error that would stop the run.
    pub fn run(&self) -> Result<u8> {
        // Without this call, the heaps of the threads would retain the memory that clips have freed.
        wavemill_kernels::return_large_blocks();
        let (job, settings) = self.plan()?;
        let warnings = job.recipe.warnings();

        let monitor = RunMonitor {
            on_plan: Some(print_plan),
            ..RunMonitor::default()
        };
        if self.dry_run {
            let preview = accompanied(&monitor, || {
                run::preview(&job, &settings, &monitor.progress)
            });
            if preview.is_err() {
                print_warnings(&warnings);
            }
            return self.preview(preview?, &job.recipe, warnings);
        }

        let start = Instant::now();
        let report = accompanied(&monitor, || run::run(&job, &settings, &monitor));
        if !monitor.is_planned.load(Ordering::Relaxed) {
            print_warnings(&warnings);
        }
        let report = report?;
        print_warnings(&report.warnings);

        print_extract_report(report, warnings, start.elapsed(), self.json)
    }

    /// Returns inputs and settings of the run, as [`run::run`] takes them.
    ///
    /// # Errors
    /// An error of the recipe, or wrong usage.
    pub fn plan(&self) -> Result<(Job, Settings)> {
        let job = self.job()?;
        let settings = self.settings(&job.recipe)?;
        Ok((job, settings))
    }

    /// Returns a preview of the extraction ([`ExtractCommand::run`]) without writing anything.
    ///
    /// # Errors
    /// The errors of [`ExtractCommand::run`] that can occur until the extraction is planned.
    pub(super) fn forecast(&self) -> Result<Preview> {
        let (job, settings) = self.plan()?;
        let monitor = RunMonitor::default();
        accompanied(&monitor, || {
            run::preview(&job, &settings, &monitor.progress)
        })
    }

    fn job(&self) -> Result<Job> {
        Ok(Job {
            recipe: Recipe::load(&self.recipe, &self.sets)?,
            metadata: MetadataFiles {
                main: self.metadata.as_deref().map(Path::to_path_buf),
                tables: self.tables.clone(),
            },
            audio: self.audio.to_path_buf(),
            store: self.store.to_path_buf(),
            sides: self.sides.clone(),
        })
    }

    fn settings(&self, recipe: &Recipe) -> Result<Settings> {
        Ok(Settings {
            max_reject_fraction: self.max_reject_fraction,
            max_shrink: self.max_shrink,
            limit: self.limit,
            new_version: self.new_version,
            resplit: self.resplit,
            renumber: self.renumber,
            recompute: self.recompute,
            restart: self.restart,
            allow_outside: self.allow_outside,
            ..self.machine.settings(recipe)?
        })
    }

    /// Prints `preview` and returns the exit code.
    fn preview(&self, mut preview: Preview, recipe: &Recipe, warnings: Vec<String>) -> Result<u8> {
        let of_splits = preview.sides.as_ref().and_then(SplitChanges::warning);
        let warnings: Vec<String> = of_splits.into_iter().chain(warnings).collect();
        print_warnings(&warnings);
        if self.json {
            preview.warnings.splice(0..0, warnings);
            writeln!(stdout(), "{}", serde_json::to_string(&preview)?)?;
        } else {
            write!(
                stdout(),
                "{}",
                shown_lines(&describe_preview(&preview, recipe))
            )?;
        }

        match preview.refusal {
            Some(refusal) => Err(refusal.into()),
            None => Ok(0),
        }
    }
}

/// Returns a report as JSON. The warnings about changes of the split and `warnings`, which are those about the recipe,
/// come first, in the order printed.
///
/// # Errors
/// An error of `serde_json`.
pub fn report_json(mut report: Report, warnings: Vec<String>) -> Result<String> {
    let of_splits = report.sides.as_ref().and_then(SplitChanges::warning);
    let warnings = of_splits.into_iter().chain(warnings);
    report.warnings.splice(0..0, warnings);
    Ok(serde_json::to_string(&report)?)
}

/// Prints the report of a run that committed a version or had nothing to do. `warnings` are those about the recipe,
/// which have been printed.
pub(super) fn print_extract_report(
    report: Report,
    warnings: Vec<String>,
    elapsed: Duration,
    json: bool,
) -> Result<u8> {
    if json {
        writeln!(stdout(), "{}", report_json(report, warnings)?)?;
    } else {
        let summary = summary(&report, elapsed, OutputArgs::get().verbose);
        output::report(&shown_lines(&summary));
    }
    Ok(0)
}

pub(super) fn print_warnings(warnings: &[String]) {
    for warning in warnings {
        output::warn(warning);
    }
}

/// Prints warnings, and the number of tracks in another split, before anything is committed, while the run
/// can still be stopped. The warning about changes that invalidate the scores of earlier models comes first.
pub(super) fn print_plan(recipe: &Recipe, splits: Option<&SplitChanges>) {
    output::clear_bar();
    let of_splits = splits.and_then(SplitChanges::warning);
    let warnings: Vec<String> = of_splits.into_iter().chain(recipe.warnings()).collect();
    print_warnings(&warnings);
    if let Some(splits) = splits {
        output::report(&shown_lines(&describe_splits(splits)));
    }
}

/// Formats `splits: 3 new tracks, 1 removed, 2 in another split (2 test -> training)`, and the tracks that moved
/// because their groups were merged.
fn describe_splits(splits: &SplitChanges) -> String {
    let mut text = format!(
        "splits: {}, {} removed, {} in another split",
        counted(splits.new, "new track"),
        splits.gone,
        splits.n_moved()
    );
    if !splits.moved.is_empty() {
        let counts = splits.moved.iter();
        let counts: Vec<String> = counts
            .map(|count| format!("{} {} -> {}", count.tracks, count.from, count.to))
            .collect();
        text += &format!(" ({})", counts.join(", "));
    }
    text += "\n";

    let merged = &splits.merged;
    if !merged.is_empty() {
        let shown = merged.iter().take(MERGES_SHOWN);
        let shown: Vec<String> = shown
            .map(|one| format!("{} {} -> {}", one.clip_key, one.from, one.to))
            .collect();
        let more = match merged.len().saturating_sub(MERGES_SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more (--json lists them)"),
        };
        let shown = shown.join(", ");
        text += &format!("splits: merged groups moved {shown}{more}\n");
    }
    text
}

fn summary(report: &Report, elapsed: Duration, verbose: bool) -> String {
    let counts = &report.counts;
    if report.nothing_to_do {
        return format!(
            "nothing to do: version {} is up to date ({})\n",
            report.version,
            counted(counts.clips_written, "clip")
        );
    }

    let mut text = format!(
        "version {} committed in {}\n",
        report.version,
        HumanDuration(elapsed)
    );

    let dropped: u64 = counts.rows_dropped.iter().map(|d| d.rows).sum();
    // The numbers in each line add up: every row that was read, and every clip that was planned, is counted once.
    text += &format!(
        "  rows read {} = kept {} + dropped {dropped} + rejected {}\n",
        counts.rows_read, counts.rows_kept, counts.rows_rejected
    );
    if dropped > 0 {
        text += &format!("  {dropped} dropped: {}\n", report.dropped.join(", "));
    }
    text += &format!(
        "  clips planned {} = written {} + rejected {}; {}\n",
        counts.clips_planned,
        counts.clips_written,
        counts.clips_rejected,
        counted(counts.feature_rows, "feature row")
    );
    if !counts.rejects.is_empty() {
        let reasons: Vec<String> = counts
            .rejects
            .iter()
            .map(|(reason, n)| format!("{n} {reason}"))
            .collect();
        text += &format!("  rejects: {}\n", reasons.join(", "));
    }
    text += &format!("  {}\n", report.files_found.format_sums());
    if let Some(duplicates) = report.duplicates {
        text += &format!("  {}\n", describe_duplicates(duplicates));
    }

    if counts.clips_written == 0 {
        text += "  warning: no clip has rows; the table rejects lists the reasons (see `wavemill sql`)\n";
    }
    let reuse = report.reuse;
    if reuse.shards_reused > 0 {
        let files = counted(reuse.shards_reused, "feature file");
        text += &format!("  {files} already existed\n");
    }
    if report.rows_taken_over > 0 {
        text += &format!(
            "  files: {} rewritten, {} new; clips decoded {}, rows taken over {}\n",
            reuse.files_rewritten, reuse.files_new, report.clips_decoded, report.rows_taken_over
        );
    }
    if report.files_equal > 0 {
        let files = counted(report.files_equal, "file");
        text += &format!("  {files} linked to equal files and tables of the previous version\n");
    }
    if let Some(device) = &report.device {
        // Small batches and idle lanes (GPU threads) indicate that decoding, not the device, limits the run.
        let clips_each = device.clips as f64 / device.batches.max(1) as f64;
        let busy = device.busy * 100.0;
        text += &format!(
            "  {}: {} of {clips_each:.1} clips, lanes busy {busy:.0} %\n",
            report.backend,
            counted(device.batches, "batch")
        );
    }

    // The commit of a plan reads no clips: its workers did.
    if report.cpu_s.values().any(|s| *s > 0.0) {
        text += &describe_cpu(report);
    }
    if verbose {
        text += &details(report);
    }
    text
}

fn seconds_by_part(parts: &BTreeMap<&str, f64>) -> String {
    let parts = parts.iter().map(|(part, s)| format!("{part} {s:.1}"));
    parts.collect::<Vec<_>>().join(", ")
}

fn describe_cpu(report: &Report) -> String {
    // Idle workers indicate that reading, memory or a device limits the run's speed, or that there are few clips.
    let busy = match report.workers_busy {
        Some(busy) => format!("; workers busy {:.0} %", busy * 100.0),
        None => String::new(),
    };
    format!(
        "  CPU seconds: {}{busy}; read {}\n",
        seconds_by_part(&report.cpu_s),
        DecimalBytes(report.bytes_read)
    )
}

/// Formats the wall-clock seconds of each phase, and the files of the version.
fn details(report: &Report) -> String {
    let mut text = format!("  wall seconds: {}\n", seconds_by_part(&report.wall_s));
    for file in &report.files {
        text += &format!(
            "  {}: {}, {}\n",
            file.path,
            counted(file.rows, "row"),
            DecimalBytes(file.bytes)
        );
    }
    text
}

fn describe_duplicates(found: Duplicates) -> String {
    let near = found.clips_near.map_or(String::new(), |clips| {
        format!("; {clips} clips have near copies")
    });
    let copies = match found.clips {
        0 => "no copies".to_owned(),
        clips => format!(
            "copies: {} in {clips} clips",
            counted(found.recordings, "recording")
        ),
    };
    format!("{} clips hashed; {copies}{near}", found.clips_hashed)
}

/// Formats the differences from the store's latest version and the work that they require; empty for a new store.
fn describe_growth(preview: &Preview) -> String {
    let Some(changes) = &preview.changes else {
        return String::new();
    };
    let mut text = String::new();
    for words in changes.sentences() {
        text += &format!("changed: {}\n", shown(&words));
    }

    if let Some(work) = &preview.work {
        let reuse = work.reuse;
        text += &format!(
            "work: {} to decode, {} to take over\n",
            counted(work.clips_to_decode, "clip"),
            counted(work.rows_to_take_over, "row")
        );
        text += &format!(
            "files: {} already exist, {} to rewrite, {} new; {} before compression\n",
            reuse.shards_reused,
            reuse.files_rewritten,
            reuse.files_new,
            DecimalBytes(work.bytes_to_write)
        );
        text += &format!(
            "tables: {} to write, {} in the previous version; identical ones become links\n",
            work.tables_to_write,
            DecimalBytes(work.table_bytes_before)
        );
    }
    text
}

fn describe_preview(preview: &Preview, recipe: &Recipe) -> String {
    let mut text = format!("{:>9}  rows read\n", preview.rows_read);
    if preview.rows_rejected > 0 {
        let reasons = Reason::ALL.into_iter().filter(|reason| reason.is_of_row());
        let names: Vec<&str> = reasons.map(Reason::name).collect();
        text += &format!(
            "{:>9}  rejected ({})\n",
            preview.rows_rejected,
            names.join(", ")
        );
    }

    for step in &preview.steps {
        text += &format!(
            "{:>9}  after dropping {} {}\n",
            step.kept,
            step.dropped,
            shown(&recipe.reason_of_drop(&step.step))
        );
    }
    text += &format!("{:>9}  {}\n", "", preview.files_found.format_sums());
    if let Some(duplicates) = preview.duplicates {
        text += &format!("{:>9}  {}\n", "", describe_duplicates(duplicates));
    }

    text += &format!(
        "{:>9}  clips planned, in {}\n",
        preview.clips_planned,
        counted(preview.shards, "shard")
    );
    for (split, clips) in &preview.splits {
        text += &format!("{clips:>9}    {split}\n");
    }
    for feature in &preview.features {
        text += &format!("{:>9}  {}\n", feature.name, feature.tensor_type());
    }

    if !preview.nothing_to_do {
        text += &format!(
            "about {} before compression, {} of audio; about {} on {}\n",
            DecimalBytes(preview.feature_bytes),
            DecimalBytes(preview.audio_bytes),
            HumanDuration(Duration::from_secs_f64(preview.seconds)),
            counted(preview.threads, "thread")
        );
    }

    if let Some(splits) = &preview.sides {
        text += &describe_splits(splits);
    }
    text += &describe_growth(preview);
    text += &format!("{}\n", preview.outcome);
    for warning in &preview.warnings {
        text += &format!("warning: {}\n", shown(warning));
    }
    text
}
