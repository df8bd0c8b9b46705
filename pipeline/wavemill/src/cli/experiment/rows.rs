//! Creates two files next to each run's result: the predictions for all test rows, and the positions of these rows on a
//! map. Pages and queries read the files; no score depends on them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use wavemill_schemas::durable::if_there;
use wavemill_terminal::output::report;

use super::trainer;
use crate::cli::train::flags;

/// Name of the file with the predictions, in a run's folder.
const PREDICTIONS: &str = "predictions.parquet";
/// Name of the file with the positions of test rows on a map, in a run's folder.
const MAP: &str = "map.parquet";

/// Prefix and suffix of the name of a prediction or map file while it is incomplete.
const PART: [&str; 2] = [".rows-", ".part"];

/// Removes the prediction and map files of the run in `folder`, which is about to be trained again.
///
/// # Errors
/// An I/O error if a file cannot be removed.
pub(super) fn forget(folder: &Path) -> Result<()> {
    for name in [PREDICTIONS, MAP] {
        remove(&folder.join(name))?;
    }
    Ok(())
}

/// Creates the prediction and map files of the finished run in `folder`, trained on `store`, unless they exist.
///
/// # Errors
/// An error of `wavemill train eval`, which computes the files.
pub(super) fn make(folder: &Path, store: &Path, threads: u16, device: &str) -> Result<()> {
    let predictions = folder.join(PREDICTIONS);
    let map = folder.join(MAP);
    // Existing files are complete, because a file gets its final name only when it is complete.
    if predictions.try_exists()? && map.try_exists()? {
        return Ok(());
    }

    remove_parts(folder)?;
    report("  predictions and map\n");
    let mut command = trainer::command("eval");
    command.arg(folder);
    command.args(flags("--store", [store]));
    command.args(flags("--predictions", [&predictions]));
    command.args(flags("--map", [&map]));
    // Training and prediction use the same number of threads, so that the predictions match the scores to the last bit.
    command.args(["--threads", &threads.to_string(), "--device", device]);
    // The output contains the scores, which are already in the run's result.
    let _ = trainer::run(command)?;
    Ok(())
}

/// Removes incomplete prediction and map files that a killed command left.
fn remove_parts(folder: &Path) -> Result<()> {
    let [prefix, suffix] = PART;
    let cannot_read = || format!("cannot read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(cannot_read)? {
        let entry = entry.with_context(cannot_read)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(prefix) && name.ends_with(suffix) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let removed = if_there(fs::remove_file(path));
    removed.with_context(|| format!("cannot remove {}", path.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_in(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = names.map(|x| x.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn cleanup_removes_only_leftovers_of_killed_runs() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in [PREDICTIONS, MAP, "result.json", ".rows-a1.part", ".rows-b2"] {
            fs::write(folder.path().join(name), "").expect("disk space");
        }

        remove_parts(folder.path()).expect("removed");
        assert_eq!(
            names_in(folder.path()),
            [".rows-b2", MAP, PREDICTIONS, "result.json"],
            "a part alone"
        );
        forget(folder.path()).expect("removed");
        forget(folder.path()).expect("nothing there");
        assert_eq!(names_in(folder.path()), [".rows-b2", "result.json"]);
    }
}
