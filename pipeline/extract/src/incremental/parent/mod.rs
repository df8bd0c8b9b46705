//! Reads the data that a new version keeps from the previous one, so that unchanged clips are neither moved nor
//! reassigned.
//!
//! This module only reads and makes no decisions: a plan is a pure function of the results of these functions and the
//! current rows.

mod inputs;
mod rejects;
mod rows;
mod sides;
mod sides_file;
mod table;

use std::collections::HashMap;

use wavemill_catalog::{ClassLists, split_column};
use wavemill_schemas::manifest::Manifest;
use wavemill_schemas::recipe::Recipe;
use wavemill_store::{Parent, Store, StoreError};

pub use self::inputs::{ParentInput, inputs};
pub(crate) use self::inputs::{input_keys, inputs_of_shards, seen_of_shards};
pub use self::rejects::rejects;
pub(crate) use self::rows::{ClipRows, RowIndex, row_index};
pub(crate) use self::sides::kept_splits;
pub(crate) use self::sides_file::{GivenSplits, read_sides, wrong_file};
pub use self::table::text;
pub(crate) use self::table::{column_types, read_table};

/// Returns the split of each clip of a version under the version's own rule, by `clip_key`; `None` if segments instead
/// of clips are assigned to splits.
///
/// # Errors
/// [`StoreError::Needed`] if the version's table is lost or damaged.
pub(crate) fn splits_of_clips(
    store: &Store,
    manifest: &Manifest,
) -> Result<Option<HashMap<String, String>>, StoreError> {
    let Some(column) = split_column(manifest.recipe.split.rule) else {
        return Ok(None);
    };
    read_table(store, manifest, "tracks", &["clip_key", column], |rows| {
        let keys = text(rows, "clip_key")?;
        let splits = text(rows, column)?;
        let mut by_clip = HashMap::with_capacity(rows.num_rows());
        for (key, split) in keys.iter().flatten().zip(splits.iter().flatten()) {
            by_clip.insert(key.to_owned(), split.to_owned());
        }
        Ok(Some(by_clip))
    })
}

/// Returns the parent's class lists whose ids a new version with `recipe` keeps, by target: those that are derived from
/// the labels of the same column.
pub fn kept_classes(parent: &Parent, recipe: &Recipe) -> ClassLists {
    let manifest = &parent.manifest;
    let mut kept = ClassLists::new();
    for target in recipe.targets.iter().filter(|t| t.classes.is_none()) {
        let mut were = manifest.recipe.targets.iter();
        let was = were.find(|was| was.name == target.name);
        let entry = manifest.targets.iter().find(|e| e.name == target.name);
        if let (Some(was), Some(entry)) = (was, entry)
            && was.column == target.column
        {
            kept.insert(target.name.clone(), entry.classes.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests;
