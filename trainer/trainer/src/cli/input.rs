//! Records a run's input in the run's folder: store, feature, and the recipe to extract features from other audio.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use wavemill_schemas::canonical;
use wavemill_schemas::run::RunDir;

use crate::dataset::Dataset;

const INPUT: &str = "input.json";
const RECIPE: &str = "recipe.toml";

/// Returns the path of the recipe in a run's folder, a copy of the recipe of the store.
pub(crate) fn recipe_of(run: &RunDir) -> PathBuf {
    run.path().join(RECIPE)
}

/// Contents of `input.json`, kept apart from the result because it contains a path of this machine.
#[derive(Debug, Serialize, Deserialize)]
struct Input {
    store: PathBuf,
    version: u64,
    feature: String,
    feature_id: String,
}

/// Writes `input.json` and the store's recipe to a new run's folder.
///
/// # Errors
/// The run's folder is not writable.
pub(crate) fn write(run: &RunDir, store: &Path, data: &Dataset) -> Result<()> {
    let input = Input {
        // A run may be resumed from another working directory.
        store: absolute(store),
        version: data.store().version(),
        feature: data.feature().name.clone(),
        feature_id: data.feature().feature_id.clone(),
    };
    run.write_text(INPUT, &canonical::checked(&input)?)?;
    run.write_text(RECIPE, &toml::to_string(&data.store().manifest().recipe)?)?;
    Ok(())
}

/// Returns the absolute path of a store without links. An address is returned unchanged.
pub(crate) fn absolute(store: &Path) -> PathBuf {
    store.canonicalize().unwrap_or_else(|_| store.to_owned())
}

/// Returns the path and version of the store that a run was started on, if recorded in the run's folder.
pub(crate) fn recorded_store(run: &RunDir) -> Option<(PathBuf, u64)> {
    // An unreadable or changed `input.json` is treated like a missing one: the user is asked for `--store`.
    let text = std::fs::read(run.path().join(INPUT)).ok()?;
    if canonical::is_unchanged(&text) == Some(false) {
        return None;
    }
    let input: Input = serde_json::from_slice(&text).ok()?;
    Some((input.store, input.version))
}
