//! `wavemill info`, `verify`, `gc` and `diff`: a store's own commands.

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use indicatif::DecimalBytes;
use serde::Serialize;
use wavemill_schemas::manifest::Manifest;
use wavemill_schemas::text::shown;

use super::exit::{DamagedStore, UsageError};
use super::output::report;
use super::{READER_EXIT_CODES, devices};
use crate::changes::{ClassCount, DataChanges, EXAMPLES, State};
use crate::store::{Diff, Store, VersionContent, VersionLine};

const INFO_EXAMPLES: &str = "\
Examples:
  wavemill info --store store
  wavemill info --store store --versions
  wavemill info --store store --version 1 --json
  wavemill info --devices
  files=$(wavemill info --store store --files --feature log_mel --sql)
  duckdb -c \"SELECT split, count(*) FROM read_parquet([$files]) GROUP BY 1\"

";

const VERIFY_EXAMPLE: &str = "\
Example:
  wavemill verify --store store

Exit codes: 0 all is well, 1 failed, 2 wrong usage, or no such store or version, 3 damaged (each file is named).";

const GC_EXAMPLES: &str = "\
Examples:
  wavemill gc --store store --keep 2 --dry-run
  wavemill gc --store store --keep 1

Manifests stay as history; the data of collected versions is gone.

Exit codes: 0 ok, 1 failed, or another wavemill is writing the store, 2 wrong usage, or no store there, \
3 store damaged, 5 read-only.";

/// Show what a version holds, which versions there are, or this machine's GPUs
#[derive(Debug, Args)]
#[command(after_help = format!("{INFO_EXAMPLES}{READER_EXIT_CODES}"))]
pub struct InfoCommand {
    /// The store's folder
    #[arg(long, value_name = "DIR", required_unless_present = "devices")]
    store: Option<PathBuf>,
    /// Which version [default: the latest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Only the versions that there are: number, when committed (UTC), rows, whether `gc` removed the data
    #[arg(long, conflicts_with_all = ["version", "files"])]
    versions: bool,
    /// Only the paths of its files, one a line
    #[arg(long)]
    files: bool,
    /// With --files: those of one table or feature
    #[arg(long, value_name = "NAME", requires = "files")]
    feature: Option<String>,
    /// With --files: quoted and separated by commas, as read_parquet([...]) takes them
    #[arg(long, requires = "files")]
    sql: bool,
    /// No store: the GPUs of this machine, NVIDIA's libraries with version and path, what is missing and where it was
    /// looked for
    #[arg(long, conflicts_with_all = ["store", "version", "versions", "files"])]
    devices: bool,
    /// As JSON: the manifest, or with --versions, --files or --devices just that
    #[arg(long, conflicts_with = "sql")]
    json: bool,
}

impl InfoCommand {
    /// Writes the answer to stdout.
    ///
    /// # Errors
    /// `StoreError`, or an unknown feature.
    pub fn run(&self) -> Result<()> {
        let Some(folder) = &self.store else {
            return devices::print(self.json);
        };

        let store = Store::open(folder)?;
        if self.files {
            // Paths of files that `gc` has removed are of no use; all else about such a version can be shown.
            return self.print_files(folder, &store.readable(self.version)?.1);
        }
        if self.versions {
            return self.print_versions(&store.history()?);
        }

        let (version, manifest) = store.manifest(self.version)?;
        if self.json {
            write!(stdout(), "{}", manifest.to_json()?)?;
        } else {
            write!(stdout(), "{}", describe(version, &manifest))?;
            if !store.data(&manifest.plan_id).exists() {
                writeln!(stdout(), "  its data was removed by `wavemill gc`")?;
            }
            write!(
                stdout(),
                "  versions:\n{}",
                version_lines(&store.history()?, "    ")
            )?;
        }
        Ok(())
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
            // Side by side, since a manifest lists the files of a feature one after the other.
            names.dedup();
            return Err(UsageError(format!(
                "--feature {name}: this version has {}",
                names.join(", ")
            ))
            .into());
        }

        if self.json {
            writeln!(stdout(), "{}", serde_json::to_string(&paths)?)?;
        } else if self.sql {
            let quoted: Vec<String> = paths
                .iter()
                // A path may hold a quote, which SQL writes twice.
                .map(|p| format!("'{}'", p.replace('\'', "''")))
                .collect();
            writeln!(stdout(), "{}", quoted.join(","))?;
        } else {
            writeln!(stdout(), "{}", paths.join("\n"))?;
        }
        Ok(())
    }
}

/// A line each, after `indent`.
fn version_lines(history: &[VersionLine], indent: &str) -> String {
    let mut lines = String::new();
    for line in history {
        let committed = line.committed.as_deref().unwrap_or("(date unknown)");
        let held = match &line.held {
            None => line.problem.clone().unwrap_or_default(),
            Some(held) => held_words(held),
        };
        lines += &format!("{indent}{}  {committed:<20}  {held}\n", line.version);
    }
    lines
}

fn held_words(held: &VersionContent) -> String {
    let gone = if held.data {
        ""
    } else {
        "; its data was removed by `wavemill gc`"
    };
    format!(
        "{} rows of {} clips, recipe {}{gone}",
        held.rows,
        held.clips,
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
        "  {} clips, {} rejected, {} files, {}\n",
        counts.clips_written,
        counts.clips_rejected,
        manifest.files.len(),
        DecimalBytes(bytes)
    );

    for feature in &manifest.features {
        let names = feature.dim_names.join(",");
        let rows: u64 = manifest.files_of(&feature.name).map(|f| f.rows).sum();
        text += &format!(
            "  feature {}: {rows} rows of {} ({})\n",
            shown(&feature.name),
            feature.tensor_type(),
            shown(&names)
        );
    }

    for target in &manifest.targets {
        text += &format!(
            "  target {}: {} classes\n",
            shown(&target.name),
            target.classes.len()
        );
        for (split, counts) in &target.counts {
            text += &format!(
                "    {}: {} clips\n",
                shown(split),
                counts.iter().sum::<u64>()
            );
        }
    }
    for file in &manifest.files {
        if let Some(table) = &file.table {
            text += &format!("  table {}: {} rows\n", shown(table), file.rows);
        }
    }

    let e = &manifest.engine;
    let engine = format!(
        "{} {}, {}, {}, {}",
        e.backend, e.level, e.decoder, e.target, e.libc
    );
    text + &format!("  engine: {}\n", shown(&engine))
}

/// Compare every byte of a version with its manifest, and that with what its shards say
#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLE)]
pub struct VerifyCommand {
    /// The store's folder
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Which version [default: the latest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// As JSON on stdout
    #[arg(long)]
    json: bool,
}

impl VerifyCommand {
    /// Reads everything.
    ///
    /// # Errors
    /// [`DamagedStore`], `StoreError`.
    pub fn run(&self) -> Result<()> {
        let store = Store::open(&self.store)?;
        let (version, manifest) = store.readable(self.version)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let verified = store.verify(version, &manifest, threads)?;

        if self.json {
            writeln!(stdout(), "{}", serde_json::to_string(&verified)?)?;
        } else {
            for damage in &verified.damage {
                let path = shown(&damage.path);
                writeln!(stdout(), "{path}: {}", shown(&damage.problem))?;
            }
        }

        if !verified.damage.is_empty() {
            // What helps depends on it: only the latest version is made again by `--new-version`.
            let later = store
                .versions()?
                .into_iter()
                .filter(|other| *other > version)
                .count();
            return Err(DamagedStore {
                files: verified.damage.len(),
                later,
            }
            .into());
        }

        let words = format!(
            "{} files, {}, all as committed",
            verified.files,
            DecimalBytes(verified.bytes)
        );
        report(&format!("version {version}: {words}\n"));
        Ok(())
    }
}

/// Give back the space of old versions and of runs that were never committed
#[derive(Debug, Args)]
#[command(after_help = GC_EXAMPLES)]
pub struct GcCommand {
    /// The store's folder
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// How many of the latest versions keep their data
    #[arg(long, value_name = "N")]
    keep: usize,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// As JSON on stdout
    #[arg(long)]
    json: bool,
}

impl GcCommand {
    /// Whether nothing is removed.
    #[must_use]
    pub const fn dry_run(&self) -> bool {
        self.dry_run
    }

    /// Collects.
    ///
    /// # Errors
    /// `StoreError`.
    pub fn run(&self) -> Result<()> {
        if self.keep == 0 {
            return Err(UsageError(
                "--keep 0: at least 1; to drop everything, remove the folder".to_owned(),
            )
            .into());
        }

        // A store whose first run was stopped has no version, and yet something to give back.
        let store = Store::at(&self.store);
        let store = if store.begun_any()? {
            store
        } else {
            Store::open(&self.store)?
        };

        // The lock's file is made where it is missing, and a dry run writes nothing.
        let _lock = if self.dry_run {
            None
        } else {
            Some(store.lock()?)
        };

        let collected = store.collect(self.keep, self.dry_run)?;
        if self.json {
            writeln!(stdout(), "{}", serde_json::to_string(&collected)?)?;
            return Ok(());
        }

        let verb = if self.dry_run {
            "would remove"
        } else {
            "removed"
        };
        // Each collected version has its plan among these; the others were never committed.
        let unfinished = collected.plans.len() - collected.versions.len();
        let numbers: Vec<String> = collected.versions.iter().map(ToString::to_string).collect();
        let versions = if numbers.is_empty() {
            "no version".to_owned()
        } else {
            format!("version {}", numbers.join(", "))
        };
        report(&format!(
            "{verb} the data of {versions} and of {unfinished} unfinished runs: {}\n",
            DecimalBytes(collected.bytes)
        ));
        Ok(())
    }
}

/// Show what differs between two versions
#[derive(Debug, Args)]
#[command(after_help = format!("Example:\n  wavemill diff --store store 1 2\n\n{READER_EXIT_CODES}"))]
pub struct DiffCommand {
    /// The store's folder
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// The first version
    from: u64,
    /// The second
    to: u64,
    /// List every track that differs, and not only the first of each kind
    #[arg(long)]
    rows: bool,
    /// As JSON on stdout
    #[arg(long)]
    json: bool,
}

impl DiffCommand {
    /// Writes the answer to stdout.
    ///
    /// # Errors
    /// `StoreError`.
    pub fn run(&self) -> Result<()> {
        let store = Store::open(&self.store)?;
        let (_, from) = store.manifest(Some(self.from))?;
        let (_, to) = store.manifest(Some(self.to))?;
        let diff = Diff::new(&from, &to);
        let data = self.data_changes(&store, &from, &to);
        if self.json {
            let whole = WholeDiff { diff, data };
            writeln!(stdout(), "{}", serde_json::to_string(&whole)?)?;
            return Ok(());
        }

        if let Some(data) = &data {
            print_data(data, self.rows)?;
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
        Ok(())
    }

    /// What differs between the tracks; `None`, with a warning, where one of the versions cannot be read.
    fn data_changes(&self, store: &Store, from: &Manifest, to: &Manifest) -> Option<DataChanges> {
        let states = State::of_version(store, from)
            .and_then(|from| Ok((from, State::of_version(store, to)?)));
        match states {
            Ok((from, to)) => {
                let mut data = DataChanges::between(&from, &to);
                if !self.rows {
                    data.shorten(EXAMPLES);
                }
                Some(data)
            }
            Err(_) => {
                eprintln!(
                    "warning: tracks are not compared: the data of one of the versions is lost, damaged or removed by \
                     `wavemill gc`"
                );
                None
            }
        }
    }
}

/// The answer of `diff --json`.
#[derive(Serialize)]
struct WholeDiff {
    #[serde(flatten)]
    diff: Diff,
    /// Null where the tracks of a version cannot be read.
    data: Option<DataChanges>,
}

fn print_data(data: &DataChanges, with_rows: bool) -> Result<()> {
    for words in data.words() {
        writeln!(stdout(), "{}", shown(&words))?;
    }
    for (target, classes) in &data.classes {
        for (class, count) in classes {
            let ClassCount { before, after } = count;
            let words = format!("class {target} {class}: {before} -> {after} clips");
            writeln!(stdout(), "{}", shown(&words))?;
        }
    }
    if with_rows {
        for line in data.row_lines() {
            writeln!(stdout(), "  {}", shown(&line))?;
        }
    }
    Ok(())
}
