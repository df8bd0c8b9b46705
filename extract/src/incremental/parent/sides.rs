//! Sides assigned by the parent, for the two rules that keep sides.

use std::collections::HashMap;
use std::fs::File;

use arrow::array::{Array, Int64Array, StringViewArray};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use wavemill_catalog::artist_ids;
use wavemill_catalog::split::{
    GroupSides, KeptRule, KeptSides, SIDES, artist_group, recording_group, track_group,
};
use wavemill_schemas::recipe::{Recipe, SplitSpec};
use wavemill_store::{Parent, Store, StoreError};

use super::table::{ParentTable, general, guarded, text, text_column};

/// The first `format_version` whose stores have the table `sides`.
const SIDES_SINCE: u32 = 3;

/// Returns the parent's sides that a new version with `recipe` keeps; `None` if the recipe draws sides differently.
///
/// The rule itself may be different, because the sides of each rule are kept separately.
///
/// # Errors
/// [`StoreError::Needed`].
pub(crate) fn kept_sides(
    store: &Store,
    parent: &Parent,
    recipe: &Recipe,
) -> Result<Option<KeptSides>, StoreError> {
    let manifest = &parent.manifest;
    if !draw_alike(&manifest.recipe.split, &recipe.split) {
        return Ok(None);
    }

    let kept = if has_sides(parent) {
        stored_sides(store, parent)?
    } else {
        sides_of_tracks(store, parent)?
    };
    Ok(Some(kept))
}

/// Reports whether the parent has the table `sides`. In earlier formats a feature could have that name.
pub(crate) const fn has_sides(parent: &Parent) -> bool {
    parent.manifest.format_version >= SIDES_SINCE
}

/// Reports whether everything that determines drawn sides, except the rows, is equal.
fn draw_alike(was: &SplitSpec, now: &SplitSpec) -> bool {
    was.seed == now.seed
        && was.fractions.map(f64::to_bits) == now.fractions.map(f64::to_bits)
        && was.group_duplicates == now.group_duplicates
}

fn stored_sides(store: &Store, parent: &Parent) -> Result<KeptSides, StoreError> {
    let table = ParentTable::open(store, &parent.manifest, "sides")?;
    let rows = table.read(&["rule", "group", "side"])?;
    let rules = text_column(&table, &rows, "rule")?;
    let groups = text_column(&table, &rows, "group")?;
    let sides = text_column(&table, &rows, "side")?;

    let mut artist = Vec::new();
    let mut stratified = Vec::new();
    for row in 0..rows.num_rows() {
        let group = (groups.value(row).into(), side_at(&table, &sides, row)?);
        match rules.value(row) {
            rule if rule == KeptRule::Artist.name() => artist.push(group),
            rule if rule == KeptRule::Stratified.name() => stratified.push(group),
            other => return Err(table.needed(general(&format!("{other} is not a rule")))),
        }
    }
    Ok(KeptSides {
        artist: GroupSides::new(artist),
        stratified: GroupSides::new(stratified),
    })
}

/// Returns the sides in the table `tracks`. Formats 1 and 2 have no table of sides, so nothing else is known: with
/// `--limit`, only the sides of planned clips.
fn sides_of_tracks(store: &Store, parent: &Parent) -> Result<KeptSides, StoreError> {
    let table = ParentTable::open(store, &parent.manifest, "tracks")?;
    let rows = table.read(&[
        "clip_key",
        "split_artist",
        "split_stratified",
        "artist_id",
        "artist_name",
        "artist",
    ])?;
    let keys = text_column(&table, &rows, "clip_key")?;
    let by_artist = text_column(&table, &rows, "split_artist")?;
    let stratified = text_column(&table, &rows, "split_stratified")?;
    let artists =
        artist_ids(&rows).map_err(|error| table.needed(ParquetError::External(Box::new(error))))?;
    let recordings = if parent.manifest.recipe.split.group_duplicates {
        recordings(store, parent)?
    } else {
        HashMap::new()
    };

    let mut kept_by_artist = Vec::new();
    let mut kept_stratified = Vec::new();
    for row in 0..rows.num_rows() {
        let key = keys.value(row);
        let artist_side = side_at(&table, &by_artist, row)?;
        let stratified_side = side_at(&table, &stratified, row)?;

        kept_by_artist.push((track_group(key).into(), artist_side));
        kept_stratified.push((track_group(key).into(), stratified_side));
        if let Some(id) = id_at(artists.as_ref(), row) {
            kept_by_artist.push((artist_group(id).into(), artist_side));
        }
        if let Some(hash) = recordings.get(key) {
            kept_by_artist.push((recording_group(hash).into(), artist_side));
            kept_stratified.push((recording_group(hash).into(), stratified_side));
        }
    }
    Ok(KeptSides {
        artist: GroupSides::new(kept_by_artist),
        stratified: GroupSides::new(kept_stratified),
    })
}

fn id_at(ids: Option<&Int64Array>, row: usize) -> Option<i64> {
    let ids = ids?;
    ids.is_valid(row).then(|| ids.value(row))
}

/// Returns the index into [`SIDES`].
fn side_at(table: &ParentTable, sides: &StringViewArray, row: usize) -> Result<usize, StoreError> {
    let name = sides.value(row);
    let side = SIDES.iter().position(|side| *side == name);
    side.ok_or_else(|| table.needed(general(&format!("{name} is not a side"))))
}

/// Returns `audio_blake3` by `clip_key`, for the clips that have rows.
///
/// # Errors
/// [`StoreError::Needed`] if a file differs from what was committed.
fn recordings(store: &Store, parent: &Parent) -> Result<HashMap<String, String>, StoreError> {
    let manifest = &parent.manifest;
    let mut recordings = HashMap::new();
    let Some(feature) = manifest.features.first() else {
        return Ok(recordings);
    };
    for entry in manifest.files_of(&feature.name) {
        let read = match store.sound_file(entry)? {
            Some(path) => guarded(|| add_recordings(File::open(path)?, &mut recordings)),
            None => Err(general("its content differs from the committed one")),
        };
        if let Err(source) = read {
            let path = store.locate(&entry.path)?;
            return Err(StoreError::Needed { path, source });
        }
    }
    Ok(recordings)
}

fn add_recordings(
    file: File,
    recordings: &mut HashMap<String, String>,
) -> Result<(), ParquetError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let mask = ProjectionMask::columns(reader.parquet_schema(), ["clip_key", "audio_blake3"]);
    for rows in reader.with_projection(mask).build()? {
        let rows = rows?;
        let keys = text(&rows, "clip_key")?;
        let hashes = text(&rows, "audio_blake3")?;
        for (key, hash) in keys.iter().zip(&hashes) {
            if let (Some(key), Some(hash)) = (key, hash) {
                recordings.insert(key.to_owned(), hash.to_owned());
            }
        }
    }
    Ok(())
}
