//! `wavemill info`, `verify`, `gc` and `diff`: commands about a store itself.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;
use indicatif::DecimalBytes;
use serde::Serialize;
use wavemill_extract::incremental::changes::{
    ClassCount, ColumnChange, DataChanges, EXAMPLES, State, column_changes,
};
use wavemill_schemas::exit::{Kind, PlainError};
use wavemill_schemas::manifest::Manifest;
use wavemill_schemas::number::number;
use wavemill_schemas::text::{counted, error_line, shown};
use wavemill_schemas::version_name::VersionName;
use wavemill_store::{
    Access, Diff, GcReport, Purpose, Store, StoreError, StorePlace, Tags, VersionContent,
    VersionLine,
};
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::interrupt::at_once;
use wavemill_terminal::output::{report, stdout, warn};

use super::{VersionArgs, WaitArgs, devices, views};
use crate::quote::literal;

const INFO_EXAMPLES: &str = "\
Examples:
  wavemill info --store store
  wavemill info --store store --versions
  wavemill info --devices
  files=$(wavemill info --store store --files --feature log_mel --sql)
  duckdb -c \"SELECT split, count(*) FROM read_parquet([$files]) GROUP BY 1\"
  wavemill info --store store --views duckdb | duckdb music.duckdb";

const VERIFY_EXAMPLES: &str = "\
Examples:
  wavemill verify --store store
  wavemill verify --store store --version paper

Every byte of the version is compared with its manifest, and the manifest with the version's shards.";

const GC_EXAMPLES: &str = "\
Examples:
  wavemill gc --store store --keep 2 --dry-run
  wavemill gc --store store --keep 1

Manifests are kept as history; the data of the removed versions is deleted. Tagged versions keep their data. The \
reported bytes are those of files that no kept version shares. In an object store, unfinished runs are kept for a day, \
because workers of other machines may still write them.";

const DIFF_EXAMPLES: &str = "\
Examples:
  wavemill diff --store store 1 2
  wavemill diff --store store paper 7";

/// Show a version, the list of versions, or this machine's GPUs
#[derive(Debug, Args)]
#[command(after_help = INFO_EXAMPLES)]
pub struct InfoCommand {
    /// The store's folder, or its address such as s3://bucket/store
    #[arg(long, value_name = "DIR", required_unless_present = "devices")]
    store: Option<StorePlace>,
    /// Version, by number or tag [default: the latest]
    #[arg(long, value_name = "VERSION")]
    version: Option<VersionName>,
    /// List only the versions: number, commit time (UTC), rows, tags, changes, and whether `gc` removed the data
    #[arg(long, conflicts_with_all = ["version", "files"])]
    versions: bool,
    /// Print only the paths of the version's files, one per line
    #[arg(long)]
    files: bool,
    /// With --files: only the files of one table or feature
    #[arg(long, value_name = "NAME", requires = "files")]
    feature: Option<String>,
    /// With --files: quote the paths and separate them by commas, as read_parquet([...]) expects
    #[arg(long, requires = "files")]
    sql: bool,
    /// Print SQL that creates a view for each table of the version; ENGINE is duckdb
    #[arg(long, value_enum, value_name = "ENGINE", hide_possible_values = true, conflicts_with_all = ["versions", "files", "json"])]
    views: Option<views::Engine>,
    /// Show this machine's GPUs, NVIDIA's libraries with version and path, and anything missing with the folders
    /// searched; takes no --store
    #[arg(long, conflicts_with_all = ["store", "version", "versions", "files", "views"])]
    devices: bool,
    /// Print JSON: the manifest, or only the output of --versions, --files or --devices
    #[arg(long, conflicts_with = "sql")]
    json: bool,
}

impl InfoCommand {
    /// Writes the requested information about a store or this machine to stdout.
    ///
    /// # Errors
    /// `StoreError` if the store cannot be read; [`UsageError`] for an unknown feature.
    pub fn run(&self) -> Result<u8> {
        let Some(folder) = &self.store else {
            return devices::print(self.json).map(|()| 0);
        };

        let store = Store::open(folder)?;
        let version = store.resolve(self.version.as_ref())?;
        if self.files {
            // Paths of files that `gc` has removed are of no use; all other facts about such a version can still be
            // shown.
            let (_, manifest) = store.readable(version)?;
            return self.print_files(folder, &manifest).map(|()| 0);
        }
        if let Some(views::Engine::Duckdb) = self.views {
            let (version, manifest) = store.readable(version)?;
            // The views are also used in other folders than this one.
            let place = match store.remote() {
                Some(_) => store.place().to_owned(),
                None => std::path::absolute(store.place())?,
            };
            write!(stdout(), "{}", views::duckdb(&place, version, &manifest)?)?;
            return Ok(0);
        }
        if self.versions {
            let history = store.history(&sound_tags(&store)?)?;
            return self.print_versions(&history).map(|()| 0);
        }

        let (version, manifest) = store.manifest(version)?;
        if self.json {
            write!(stdout(), "{}", manifest.to_json()?)?;
            return Ok(0);
        }

        let tags = sound_tags(&store)?;
        write!(stdout(), "{}", describe(version, &manifest))?;
        let names = tags.of_version(version);
        if !names.is_empty() {
            writeln!(stdout(), "  tags: {}", names.join(", "))?;
        }
        let data = store.data(&manifest.plan_id);
        if !data
            .try_exists()
            .with_context(|| format!("cannot read {}", data.display()))?
        {
            writeln!(stdout(), "  its data was removed by `wavemill gc`")?;
        }
        let versions = version_lines(&store.history(&tags)?, "    ");
        write!(stdout(), "  versions:\n{versions}")?;
        Ok(0)
    }

    fn print_versions(&self, history: &[VersionLine]) -> Result<()> {
        if self.json {
            writeln!(stdout(), "{}", serde_json::to_string(history)?)?;
        } else {
            write!(stdout(), "{}", version_lines(history, ""))?;
        }
        Ok(())
    }

    fn print_files(&self, folder: &Path, manifest: &Manifest) -> Result<()> {
        let wanted = manifest
            .files
            .iter()
            .filter(|f| self.feature.as_deref().is_none_or(|name| f.name() == name));
        let paths: Vec<String> = wanted
            .map(|f| folder.join(&f.path).to_string_lossy().into_owned())
            .collect();

        if let (true, Some(name)) = (paths.is_empty(), &self.feature) {
            let mut names: Vec<&str> = manifest.files.iter().map(|f| f.name()).collect();
            // Duplicate names are adjacent, since a manifest lists the files of a feature one after the other.
            names.dedup();
            return Err(UsageError(format!(
                "--feature {name}: not in this version, which has {}",
                names.join(", ")
            ))
            .into());
        }

        if self.json {
            writeln!(stdout(), "{}", serde_json::to_string(&paths)?)?;
        } else if self.sql {
            let quoted: Vec<String> = paths.iter().map(|path| literal(path)).collect();
            writeln!(stdout(), "{}", quoted.join(","))?;
        } else {
            writeln!(stdout(), "{}", paths.join("\n"))?;
        }
        Ok(())
    }
}

/// Returns the store's tags and warns about damaged ones, which stop only the commands that use them.
fn sound_tags(store: &Store) -> Result<Tags, StoreError> {
    let tags = store.tags()?;
    for damaged in &tags.damaged {
        warn(&damaged.to_string());
    }
    Ok(tags)
}

/// Formats one line for each version, with the prefix `indent`.
fn version_lines(history: &[VersionLine], indent: &str) -> String {
    let mut lines = String::new();
    for line in history {
        let committed = line.committed.as_deref().unwrap_or("(date unknown)");
        lines += &format!(
            "{indent}{}  {committed:<20}  {}\n",
            line.version,
            format_version_line(line)
        );
    }
    lines
}

fn format_version_line(line: &VersionLine) -> String {
    let mut message = match &line.held {
        None => line.problem.clone().unwrap_or_default(),
        Some(held) => format_content(held),
    };
    if !line.tags.is_empty() {
        message += &format!("; tagged {}", line.tags.join(", "));
    }
    if let Some(changed) = &line.changed {
        message += &format!("; changed: {}", shown(changed));
    }
    if line.held.as_ref().is_some_and(|held| !held.data) {
        message += "; its data was removed by `wavemill gc`";
    }
    message
}

fn format_content(held: &VersionContent) -> String {
    format!(
        "{} of {}, recipe {}",
        counted(held.rows, "row"),
        counted(held.clips, "clip"),
        shown(&held.recipe)
    )
}

fn describe(version: u64, manifest: &Manifest) -> String {
    let counts = &manifest.counts;
    let bytes: u64 = manifest.files.iter().map(|f| f.bytes).sum();
    let mut text = format!(
        "version {version}: recipe {}, plan {}\n",
        shown(&manifest.recipe.name),
        shown(&manifest.plan_id)
    );
    text += &format!(
        "  {}, {} rejected, {}, {}\n",
        counted(counts.clips_written, "clip"),
        counts.clips_rejected,
        counted(manifest.files.len(), "file"),
        DecimalBytes(bytes)
    );

    for feature in &manifest.features {
        let names = feature.dim_names.join(",");
        let rows: u64 = manifest.files_of(&feature.name).map(|f| f.rows).sum();
        text += &format!(
            "  feature {}: {} of {} ({})\n",
            shown(&feature.name),
            counted(rows, "row"),
            feature.tensor_type(),
            shown(&names)
        );
    }

    for target in &manifest.targets {
        text += &format!(
            "  target {}: {}\n",
            shown(&target.name),
            counted(target.classes.len(), "class")
        );
        for (split, counts) in &target.counts {
            text += &format!(
                "    {}: {}\n",
                shown(split),
                counted(counts.iter().sum::<u64>(), "clip")
            );
        }
    }
    for file in &manifest.files {
        if let Some(table) = &file.table {
            let rows = counted(file.rows, "row");
            text += &format!("  table {}: {rows}\n", shown(table));
        }
    }

    let e = &manifest.engine;
    let engine = format!(
        "{} {}, {}, {}, {}",
        e.backend, e.level, e.decoder, e.target, e.libc
    );
    text + &format!("  engine: {}\n", shown(&engine))
}

/// Check that the files of a version are complete and unchanged
#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub struct VerifyCommand {
    #[command(flatten)]
    read: VersionArgs,
    /// Print the result as JSON on stdout
    #[arg(long)]
    json: bool,
}

impl VerifyCommand {
    /// Reads all files of the version and compares them with its manifest.
    ///
    /// # Errors
    /// [`Kind::Damaged`] if a file is damaged; `StoreError` if the store or its manifest cannot be read.
    pub fn run(&self) -> Result<u8> {
        let (store, version, manifest) = self.read.open()?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let verified = store.verify(version, &manifest, threads)?;
        if !verified.damage.is_empty() {
            require_kept(&store, version)?;
        }

        let written = if self.json {
            writeln!(stdout(), "{}", serde_json::to_string(&verified)?)
        } else {
            let mut damage = verified.damage.iter();
            damage.try_for_each(|damage| {
                let path = shown(&damage.path);
                writeln!(stdout(), "{path}: {}", shown(&damage.problem))
            })
        };

        // Damage has its exit code, also if the reader has closed its pipe.
        if !verified.damage.is_empty() {
            // The remedy depends on the number of later versions: `--new-version` replaces only the latest.
            let later = store
                .versions()?
                .into_iter()
                .filter(|other| *other > version)
                .count();
            let tags = store.tags()?.of_version(version);
            return Err(damaged_store(verified.damage.len(), later, &tags).into());
        }

        written?;
        let message = format!(
            "{}, {}, all intact",
            counted(verified.files, "file"),
            DecimalBytes(verified.bytes)
        );
        report(&format!("version {version}: {message}\n"));
        Ok(0)
    }
}

/// Returns the error for a version with damaged `files`, after which there are `later` versions. Its `tags` protect it
/// from `gc`.
fn damaged_store(files: usize, later: usize, tags: &[String]) -> PlainError {
    // Only the latest version can be replaced by a new one.
    let remedy = match (later, tags) {
        (0, _) => "extract again with --new-version".to_owned(),
        (n, tags) => {
            let kept_by = match tags {
                [] => String::new(),
                tags => format!(" (remove its tags first: {})", tags.join(", ")),
            };
            format!(
                "use the latest version if `wavemill verify` finds it intact, and remove this one with `wavemill gc \
                 --keep {n}`{kept_by}"
            )
        }
    };
    let it = if files == 1 { "it" } else { "them" };
    let files = counted(files, "damaged file");
    let message = format!("{files}: restore {it} from a copy, or {remedy}");
    PlainError::new(Kind::Damaged, message)
}

/// Checks that `gc` has not removed a version since it was opened: its missing files are no damage then.
///
/// # Errors
/// [`StoreError::Absent`] if its data was removed; [`StoreError`] if its manifest cannot be read.
pub(super) fn require_kept(store: &Store, version: u64) -> Result<(), StoreError> {
    // If an object store does not answer, the damage is reported.
    if store.refresh().is_ok() {
        store.readable(Some(version))?;
    }
    Ok(())
}

/// Free the space of old versions and of unfinished runs
#[derive(Debug, Args)]
#[command(after_help = GC_EXAMPLES)]
pub struct GcCommand {
    /// The store's folder, or its address such as s3://bucket/store
    #[arg(long, value_name = "DIR")]
    store: StorePlace,
    /// Number of latest versions whose data is kept; tagged versions keep theirs, too
    #[arg(long, value_name = "N", value_parser = number::<usize>(0..))]
    keep: usize,
    #[command(flatten)]
    wait: WaitArgs,
    /// Report the data that would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the report as JSON on stdout
    #[arg(long)]
    json: bool,
}

impl GcCommand {
    /// Removes the data of old versions and of unfinished runs.
    ///
    /// # Errors
    /// [`UsageError`] for `--keep 0`; `StoreError` if the store cannot be read or changed.
    pub fn run(&self) -> Result<u8> {
        if self.dry_run {
            at_once("interrupted; nothing was removed")?;
        }
        if self.keep == 0 {
            return Err(UsageError(
                "--keep 0: must be at least 1; to remove everything, delete the folder".to_owned(),
            )
            .into());
        }

        // A store whose first run was stopped has no version, but it may have data to remove.
        let store = Store::find(&self.store, Purpose::Reading)?;
        store.equalize_plans()?;
        let store = if store.begun()?.is_empty() {
            Store::open(&self.store)?
        } else {
            store
        };

        // A dry run writes nothing, so it takes no lock: locking creates the lock's file if it is missing.
        let _lock = if self.dry_run {
            None
        } else {
            Some(store.lock(Access::Exclusive, self.wait.duration(), || false)?)
        };

        let collected = store.collect(self.keep, self.dry_run);
        let collected = match collected {
            Err(error @ StoreError::Tag { .. }) => {
                return Err(anyhow::Error::new(error).context(TAG_REFUSAL));
            }
            other => other?,
        };
        if self.json {
            writeln!(stdout(), "{}", serde_json::to_string(&collected)?)?;
        } else {
            report(&self.format_report(&collected));
        }
        Ok(0)
    }

    fn format_report(&self, collected: &GcReport) -> String {
        // Each removed version has one plan in this list; the other plans are those of runs that were never committed.
        let unfinished = collected.plans.len() - collected.versions.len();
        let versions = collected.versions.iter();
        let mut removed: Vec<String> = versions.map(|number| format!("version {number}")).collect();
        if unfinished > 0 {
            removed.push(counted(unfinished, "unfinished run"));
        }

        let removed = removed.join(", ");
        let bytes = DecimalBytes(collected.bytes);
        let mut message = if removed.is_empty() {
            "nothing to remove\n".to_owned()
        } else if self.dry_run {
            format!("would remove the data of {removed}, and free {bytes}\n")
        } else {
            format!("removed the data of {removed}: {bytes} freed\n")
        };
        for kept in &collected.kept {
            let verb = if self.dry_run { "would keep" } else { "kept" };
            message += &format!(
                "{verb} the data of version {}: tagged {}\n",
                kept.version,
                kept.tags.join(", ")
            );
        }
        if !collected.recent.is_empty() {
            message += &format!(
                "kept {}, which wrote an object within a day: a worker may still be running\n",
                counted(collected.recent.len(), "unfinished run")
            );
        }
        message
    }
}

/// Context of the error with which `gc` stops if it cannot read a tag.
const TAG_REFUSAL: &str = "nothing was removed, because a damaged tag may refer to any version";

/// Show the differences between two versions
#[derive(Debug, Args)]
#[command(after_help = DIFF_EXAMPLES)]
pub struct DiffCommand {
    /// The store's folder, or its address such as s3://bucket/store
    #[arg(long, value_name = "DIR")]
    store: StorePlace,
    /// The first version, by number or tag
    from: VersionName,
    /// The second version, by number or tag
    to: VersionName,
    /// List every track that differs, not only the first of each kind
    #[arg(long)]
    rows: bool,
    /// Print the differences as JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Returns the history of a store's versions as JSON, as `info --versions --json` prints it.
///
/// # Errors
/// `StoreError` if the store cannot be read.
pub fn versions_json(folder: &Path) -> Result<String> {
    let store = Store::open(folder)?;
    Ok(serde_json::to_string(
        &store.history(&sound_tags(&store)?)?,
    )?)
}

/// Returns the differences between two versions as JSON, as `diff --json` prints them.
///
/// # Errors
/// `StoreError` if one of the versions does not exist or cannot be read.
pub fn diff_json(folder: &Path, from: VersionName, to: VersionName, rows: bool) -> Result<String> {
    let command = DiffCommand {
        store: folder.as_os_str().to_owned().into(),
        from,
        to,
        rows,
        json: true,
    };
    let (diff, compared) = command.compare()?;
    Ok(serde_json::to_string(&WholeDiff::new(diff, compared))?)
}

impl DiffCommand {
    /// Writes the differences between the two versions to stdout.
    ///
    /// # Errors
    /// `StoreError` if one of the versions does not exist or cannot be read.
    pub fn run(&self) -> Result<u8> {
        let (diff, compared) = self.compare()?;
        if self.json {
            let whole = WholeDiff::new(diff, compared);
            writeln!(stdout(), "{}", serde_json::to_string(&whole)?)?;
            return Ok(0);
        }

        match &compared {
            Ok(tables) => {
                print_data(&tables.data, self.rows)?;
                for change in &tables.columns {
                    writeln!(stdout(), "{}", shown(&change.to_string()))?;
                }
            }
            Err(reason) => warn(reason),
        }
        for change in &diff.recipe {
            writeln!(stdout(), "recipe {}", shown(&change.to_string()))?;
        }
        for change in &diff.manifest {
            writeln!(stdout(), "{}", shown(&change.to_string()))?;
        }
        for (sign, paths) in [
            ('-', &diff.files_removed),
            ('+', &diff.files_added),
            ('~', &diff.files_changed),
        ] {
            for path in paths {
                writeln!(stdout(), "{sign} {}", shown(path))?;
            }
        }
        writeln!(stdout(), "= {} files are equal", diff.files_equal)?;
        Ok(0)
    }

    /// Compares the manifests and the tables of both versions.
    fn compare(&self) -> Result<(Diff, Result<TableChanges, String>)> {
        let store = Store::open(&self.store)?;
        let (_, from) = store.manifest(store.resolve(Some(&self.from))?)?;
        let (_, to) = store.manifest(store.resolve(Some(&self.to))?)?;
        let compared = self.compare_tables(&store, &from, &to);
        Ok((Diff::new(&from, &to), compared))
    }

    /// Compares the tables of both versions; an error is a sentence that names the facts that are not compared and the
    /// reason.
    fn compare_tables(
        &self,
        store: &Store,
        from: &Manifest,
        to: &Manifest,
    ) -> Result<TableChanges, String> {
        let compared = || {
            let before = State::of_version(store, from)?;
            let now = State::of_version(store, to)?;
            let mut data = DataChanges::between(&before, &now);
            if !self.rows {
                data.shorten(EXAMPLES);
            }
            let columns = column_changes(store, from, to)?;
            Ok::<_, StoreError>(TableChanges { data, columns })
        };

        compared().map_err(|error| {
            let mut versions = [(&self.from, from), (&self.to, to)].into_iter();
            let reason = match versions.find(|(_, manifest)| has_no_data(store, manifest)) {
                Some((name, _)) => {
                    format!("the data of version {name} was removed by `wavemill gc`")
                }
                None => format!("a table cannot be read: {}", error_line(&error)),
            };
            format!("tracks, labels, splits, audio files and columns are not compared: {reason}")
        })
    }
}

/// Reports whether the data folder of a version was removed.
fn has_no_data(store: &Store, manifest: &Manifest) -> bool {
    let is_there = store.data(&manifest.plan_id).try_exists();
    is_there.is_ok_and(|is_there| !is_there)
}

/// The differences between the tables of two versions.
struct TableChanges {
    data: DataChanges,
    columns: Vec<ColumnChange>,
}

/// The JSON object that `diff --json` prints.
#[derive(Serialize)]
struct WholeDiff {
    #[serde(flatten)]
    diff: Diff,
    /// Changes to the rows of tables; null if the tables of a version cannot be read.
    data: Option<DataChanges>,
    /// Changes to the columns of tables; null if the tables of a version cannot be read.
    columns: Option<Vec<ColumnChange>>,
    /// The facts that are not compared, and the reason; null if everything is compared.
    not_compared: Option<String>,
}

impl WholeDiff {
    fn new(diff: Diff, compared: Result<TableChanges, String>) -> Self {
        let (tables, not_compared) = match compared {
            Ok(tables) => (Some(tables), None),
            Err(reason) => (None, Some(reason)),
        };
        let (data, columns) = tables.map(|tables| (tables.data, tables.columns)).unzip();
        Self {
            diff,
            data,
            columns,
            not_compared,
        }
    }
}

fn print_data(data: &DataChanges, with_rows: bool) -> Result<()> {
    for sentence in data.sentences() {
        writeln!(stdout(), "{}", shown(&sentence))?;
    }
    for (target, classes) in &data.classes {
        for (class, count) in classes {
            let ClassCount { before, after } = count;
            let message = format!("class {target} {class}: {before} -> {after} clips");
            writeln!(stdout(), "{}", shown(&message))?;
        }
    }
    if with_rows {
        for line in data.row_lines() {
            writeln!(stdout(), "  {}", shown(&line))?;
        }
    }
    Ok(())
}
