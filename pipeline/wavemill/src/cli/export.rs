//! `wavemill export`: writes a feature of a store as files for other tools.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use indicatif::DecimalBytes;
use wavemill_extract::run::RunMonitor;
use wavemill_schemas::durable::{folder_of, settle_folder, sync_tree};
use wavemill_schemas::exit::{Classified, Kind};
use wavemill_schemas::text::counted;
use wavemill_store::Store;
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::files::{OPENINGS_MAX, cannot_write, lock_part, part_of, require_own};
use wavemill_terminal::interrupt::PartialFile;
use wavemill_terminal::output::OutputArgs;

use super::progress::accompanied;
use super::store::require_kept;
use super::{VersionArgs, print_report};
use crate::export::{self, ExportError, Format, Job, Report};

const EXAMPLES: &str = "\
Examples:
  wavemill export --store store --feature log_mel --format npy --out arrays
  wavemill export --store store --feature log_mel --format png \\
      --target genre --split training --split test --out pictures
  wavemill export --store store --feature log_mel --format wav --out sounds
  wavemill export --store store --feature log_mel --format huggingface \\
      --version paper --out dataset
  wavemill export --store store --feature log_mel --format webdataset \\
      --out shards
  wavemill export --store store --format fma-features --out published

npy: one array per split, and a CSV file with the keys and classes of its rows; one file per row if the rows differ in \
shape. png: one picture per row, in one folder per class. wav: one sound per row, in one folder per class; only for \
samples (pcm) and for mel bands without normalize, which are approximate, because the phase is estimated \
(Griffin-Lim). huggingface: a folder for \
datasets.load_dataset, versions 4 and 5. webdataset: tar files of samples, one per file of the store. fma-features: all statistics (recipe fma-features) in one \
file, laid out as FMA's features.csv.

The store's files are compared with their hashes first. Rows keep their order and stored values.";

/// Write a feature as arrays, pictures, sounds or a dataset
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExportCommand {
    #[command(flatten)]
    read: VersionArgs,
    /// Feature to export; required if the version has several (fma-features: all statistics)
    #[arg(long, value_name = "NAME")]
    feature: Option<String>,
    /// Export only this split; may be repeated [default: all but `none`, the rows without a split]
    #[arg(long = "split", value_name = "NAME")]
    splits: Vec<String>,
    /// The target whose classes become folders (png, wav) or the member cls (webdataset) [default: the first]
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Output format: npy, png, wav, huggingface, webdataset or fma-features
    #[arg(long, value_enum, hide_possible_values = true)]
    format: Format,
    /// Folder to write; it must be new or empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print the report as JSON on stdout
    #[arg(long)]
    json: bool,
}

impl ExportCommand {
    /// Exports the requested feature to the folder `out`.
    ///
    /// # Errors
    /// [`UsageError`] for an invalid `--out`; `StoreError` for an unreadable store; `ExportError` if the export fails.
    pub fn run(&self) -> Result<u8> {
        let (store, version, manifest) = self.read.open_outside(&self.out)?;

        let folder = NewFolder::at(&self.out)?;
        let _removed = PartialFile::at(&folder.part);
        let job = Job {
            store: &store,
            version,
            manifest: &manifest,
            feature: self.feature.as_deref(),
            target: self.target.as_deref(),
            splits: &self.splits,
            format: self.format,
        };
        let monitor = RunMonitor::default();
        let report = accompanied(&monitor, || {
            export::run(&job, &folder.part, &monitor.progress)
                .map_err(|error| explain(error.about(&folder.part, &self.out), &store, version))
        })?;
        folder.finish()?;

        print_report(&report, self.json, || {
            self.summary(&report, OutputArgs::get().verbose)
        })
    }

    fn summary(&self, report: &Report, verbose: bool) -> String {
        let mut text = format!(
            "{} ({}) of version {} exported to {} as {}\n",
            report.feature,
            report.tensor,
            report.version,
            self.out.display(),
            report.format
        );

        for split in &report.sides {
            text += &format!("  {}: {}", split.stored, counted(split.rows, "row"));
            if split.name != split.stored {
                text += &format!(", as {}", split.name);
            }
            text += "\n";
        }

        for (split, rows) in &report.left_out {
            text += &format!("  left out: {} of {split}\n", counted(*rows, "row"));
        }

        let files = counted(report.files, "file");
        text += &format!("  {files}, {}\n", DecimalBytes(report.bytes));
        for note in &report.notes {
            text += &format!("  {note}\n");
        }

        if verbose {
            text += &format!("  feature_id {}\n", report.feature_id);
        }
        text
    }
}

/// Returns the cause of a failed export: data that `gc` has removed meanwhile, or else `error` itself.
fn explain(error: ExportError, store: &Store, version: u64) -> ExportError {
    if error.kind() != Kind::Damaged {
        return error;
    }
    match require_kept(store, version) {
        Err(removed) => removed.into(),
        Ok(()) => error,
    }
}

/// An output folder that is written under a temporary name until it is complete. If the folder already exists, the
/// temporary folder is inside it.
#[derive(Debug)]
pub(super) struct NewFolder {
    /// Output path as typed, for error messages.
    out: PathBuf,
    /// Final path of the output folder.
    pub(super) target: PathBuf,
    /// Temporary path of the output folder while it is written.
    pub(super) part: PathBuf,
    /// True if the output folder already exists and is empty.
    is_there: bool,
    /// The temporary folder, which is locked until it is closed.
    lock: File,
}

/// Name of the temporary folder within an existing folder, and suffix of the temporary name next to a new one. It is
/// long enough not to collide with other files, because a leftover of a killed command under this name is removed.
const PART: &str = ".wavemill-export.part";

impl NewFolder {
    /// Creates and locks the temporary folder, so that an output that cannot be written is reported before the work and
    /// not after it. Rejects a path that is neither new nor an empty folder.
    pub(super) fn at(out: &Path) -> Result<Self> {
        let (target, _) = part_of(out);
        let is_there = has_empty_folder(out, &target)?;

        // An existing empty folder is not replaced: it may be a mount point or the current folder of a shell.
        let part = if is_there {
            target.join(PART)
        } else {
            let name = target.file_name().unwrap_or_default().to_string_lossy();
            target.with_file_name(format!(".{name}{PART}"))
        };
        let lock = Self::take(&part).map_err(|error| cannot_write("--out", out, error))?;
        let folder = Self {
            out: out.to_owned(),
            target,
            part,
            is_there,
            lock,
        };
        // Another command may have finished the output before the temporary folder was locked.
        has_empty_folder(out, &folder.target)?;
        Ok(folder)
    }

    /// Creates and locks the temporary folder. Removes the leftover of a killed command, which nobody has locked.
    fn take(part: &Path) -> io::Result<File> {
        if fs::symlink_metadata(part).is_ok_and(|left| !left.is_dir()) {
            fs::remove_file(part)?;
        }

        for _ in 0..OPENINGS_MAX {
            let is_own = match fs::create_dir(part) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) => return Err(error),
            };
            let opened = match File::open(part) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };

            if lock_part(&opened, part)? {
                if is_own {
                    return Ok(opened);
                }
                // Also an empty one, which may belong to another user.
                fs::remove_dir_all(part)?;
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Moves the complete temporary folder to its final path.
    pub(super) fn finish(&self) -> Result<()> {
        // Nothing may have its final name before its bytes are on disk.
        let finished = sync_tree(&self.part).and_then(|()| {
            require_own(&self.lock, &self.part)?;
            if self.is_there {
                // A file that appeared meanwhile is the user's.
                if !is_empty(&self.target)? {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                move_all(&self.part, &self.target)?;
                fs::remove_dir(&self.part)?;
                return settle_folder(&self.target);
            }
            fs::rename(&self.part, &self.target)?;
            settle_folder(folder_of(&self.target)).inspect_err(|_| {
                // The command fails, so nothing may remain that keeps it from being repeated.
                let _ = fs::rename(&self.target, &self.part);
            })
        });
        finished.with_context(|| format!("cannot write {}", self.out.display()))
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        // After `finish` the temporary folder no longer exists, or it is another command's. After a failure, the first
        // error is the one to report.
        if require_own(&self.lock, &self.part).is_ok() {
            let _ = fs::remove_dir_all(&self.part);
        }
    }
}

fn refused(out: &Path, why: &str) -> UsageError {
    UsageError(format!("--out {}: {why}", out.display()))
}

/// Reports whether the folder at `target` exists. Rejects a file, and a folder that is not empty.
fn has_empty_folder(out: &Path, target: &Path) -> Result<bool> {
    match fs::metadata(target) {
        Ok(found) if !found.is_dir() => return Err(refused(out, "is a file, not a folder").into()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(cannot_write("--out", out, error)),
    }
    if !is_empty(target).map_err(|error| cannot_write("--out", out, error))? {
        return Err(refused(out, "not empty: choose a new or empty folder").into());
    }
    Ok(true)
}

/// Reports whether a folder is empty, apart from the temporary folder.
fn is_empty(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        if entry?.file_name() != PART {
            return Ok(false);
        }
    }
    Ok(true)
}

fn move_all(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::rename(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use wavemill_sql::testing::TestStore;

    use super::*;
    use crate::cli::exit;

    fn refusal(out: &Path) -> String {
        NewFolder::at(out).expect_err("a refusal").to_string()
    }

    #[test]
    fn only_new_and_empty_folders_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join("file"), "").unwrap();
        fs::create_dir(root.join("full")).unwrap();
        fs::write(root.join("full/x"), "").unwrap();
        assert!(refusal(&root.join("file")).contains("a file, not a folder"));
        assert!(refusal(&root.join("full")).contains("not empty"));
        assert!(refusal(&root.join("no/such")).contains("cannot write it"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn folders_are_created_atomically() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("empty")).unwrap();
        std::os::unix::fs::symlink("empty", root.join("link")).unwrap();

        for name in ["new", "link"] {
            let out = root.join(name);
            // The leftover of a command that was killed.
            let part = NewFolder::at(&out).unwrap().part.clone();
            fs::create_dir(&part).unwrap();
            fs::write(part.join("y"), "half").unwrap();

            let failed = NewFolder::at(&out).unwrap();
            fs::write(failed.part.join("x"), "half").unwrap();
            drop(failed);
            assert!(!part.exists() && !out.join("x").exists());

            fs::create_dir(&part).unwrap();
            fs::write(part.join("y"), "half").unwrap();
            let whole = NewFolder::at(&out).unwrap();
            fs::write(whole.part.join("x"), "whole").unwrap();
            whole.finish().unwrap();

            assert_eq!(fs::read_to_string(out.join("x")).unwrap(), "whole");
            assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
        }

        assert!(
            fs::symlink_metadata(root.join("link"))
                .unwrap()
                .is_symlink()
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_folder_has_one_writer_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("empty")).unwrap();
        for name in ["new", "empty"] {
            let out = folder.path().join(name);
            let first = NewFolder::at(&out).unwrap();
            fs::write(first.part.join("x"), "first").unwrap();

            let busy = NewFolder::at(&out).expect_err("the first one is writing it");
            assert_eq!(exit::code(&busy), 7, "{busy}");
            assert!(busy.to_string().contains("try again"), "{busy}");

            first.finish().unwrap();
            assert_eq!(fs::read_to_string(out.join("x")).unwrap(), "first");
            assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
        }
    }

    #[test]
    fn the_folder_of_another_command_is_not_published() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let first = NewFolder::at(&out).unwrap();
        // As on a file system without locks.
        fs::rename(&first.part, folder.path().join("first")).unwrap();
        let second = NewFolder::at(&out).unwrap();
        fs::write(second.part.join("x"), "half").unwrap();

        first.finish().expect_err("the folder is another one");
        drop(first);
        assert!(second.part.join("x").exists() && !out.exists());
        second.finish().unwrap();
    }

    #[test]
    fn a_version_that_gc_removed_meanwhile_is_not_damaged() {
        for (latest, kind) in [(1, Kind::Damaged), (2, Kind::Usage)] {
            let store = TestStore::small();
            let root = store.folder.path();
            let versions = root.join("_wavemill/versions");
            fs::create_dir_all(&versions).unwrap();
            for version in 1..=latest {
                let json = store.manifest.to_json().unwrap();
                fs::write(versions.join(format!("{version:08}.json")), json).unwrap();
            }
            fs::remove_dir_all(root.join("data")).unwrap();

            let path = root.join("data");
            let error = explain(ExportError::damaged(&path), &Store::at(root), 1);
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}
