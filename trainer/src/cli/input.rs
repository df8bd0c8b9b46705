//! What a run's folder says of its input: which store and feature, and the recipe that makes more of it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use wavemill_scores::records::RunDir;

use crate::dataset::Dataset;

const INPUT: &str = "input.json";
const RECIPE: &str = "recipe.toml";

/// Where a run keeps the recipe of its store.
pub(crate) fn recipe_of(run: &RunDir) -> PathBuf {
    run.path().join(RECIPE)
}

/// `input.json`; holds a path of this machine, so nothing of a result is in it.
#[derive(Debug, Serialize, Deserialize)]
struct Input {
    store: PathBuf,
    version: u64,
    feature: String,
    feature_id: String,
}

/// Writes `input.json` and the store's recipe beside a new run's configuration.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn write(run: &RunDir, store: &Path, data: &Dataset) -> Result<()> {
    let input = Input {
        // Absolute, since a run may go on from another folder.
        store: store.canonicalize().unwrap_or_else(|_| store.to_owned()),
        version: data.store().version(),
        feature: data.feature().name.clone(),
        feature_id: data.feature().feature_id.clone(),
    };
    put(run, INPUT, serde_json::to_string_pretty(&input)? + "\n")?;
    put(
        run,
        RECIPE,
        toml::to_string(&data.store().manifest().recipe)?,
    )
}

fn put(run: &RunDir, name: &str, text: String) -> Result<()> {
    let path = run.path().join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The store and version that a run was started on, if its folder says so.
pub(crate) fn of(run: &RunDir) -> Option<(PathBuf, u64)> {
    // What cannot be read is as good as not there: the user is asked for `--store`.
    let text = std::fs::read(run.path().join(INPUT)).ok()?;
    let input: Input = serde_json::from_slice(&text).ok()?;
    Some((input.store, input.version))
}
