//! Reads the splits that the parent assigned under the two rules that keep splits.

use arrow::array::StringViewArray;
use wavemill_catalog::split::{GroupSides, KeptRule, KeptSides};
use wavemill_schemas::recipe::{Recipe, SplitSpec};
use wavemill_schemas::sides::SIDES;
use wavemill_store::{Parent, Store, StoreError};

use super::table::{ParentTable, general, text_column};

/// Returns the parent's splits that a new version with `recipe` keeps; `None` if the recipe draws splits differently.
///
/// The rule of the new recipe may be different, because the splits by each rule are stored separately.
///
/// # Errors
/// [`StoreError::Needed`] if the parent's table is lost or damaged.
pub(crate) fn kept_sides(
    store: &Store,
    parent: &Parent,
    recipe: &Recipe,
) -> Result<Option<KeptSides>, StoreError> {
    let manifest = &parent.manifest;
    if !draw_alike(&manifest.recipe.split, &recipe.split) {
        return Ok(None);
    }

    Ok(Some(stored_sides(store, parent)?))
}

/// Reports whether everything that determines drawn splits, except the rows, is equal in two recipes.
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

/// Returns the side in a row of the table, as an index into [`SIDES`].
fn side_at(table: &ParentTable, sides: &StringViewArray, row: usize) -> Result<usize, StoreError> {
    let name = sides.value(row);
    let side = SIDES.iter().position(|side| *side == name);
    side.ok_or_else(|| table.needed(general(&format!("{name} is not a side"))))
}
