//! Reads the splits that the parent assigned under the two rules that keep splits.

use wavemill_catalog::split::{GroupSplits, KeptRule, KeptSplits};
use wavemill_schemas::recipe::{Recipe, SplitSpec};
use wavemill_schemas::split::Split;
use wavemill_store::{Parent, Store, StoreError};

use super::table::{general, read_table, text};

/// Returns the parent's splits that a new version with `recipe` keeps; `None` if the recipe draws splits differently.
///
/// The rule of the new recipe may be different, because the splits by each rule are stored separately.
///
/// # Errors
/// [`StoreError::Needed`] if the parent's table is lost or damaged.
pub(crate) fn kept_splits(
    store: &Store,
    parent: &Parent,
    recipe: &Recipe,
) -> Result<Option<KeptSplits>, StoreError> {
    let manifest = &parent.manifest;
    if !draw_alike(&manifest.recipe.split, &recipe.split) {
        return Ok(None);
    }

    Ok(Some(stored_splits(store, parent)?))
}

/// Reports whether everything that determines drawn splits, except the rows, is equal in two recipes.
fn draw_alike(was: &SplitSpec, now: &SplitSpec) -> bool {
    was.seed == now.seed
        && was.fractions.map(f64::to_bits) == now.fractions.map(f64::to_bits)
        && was.group_duplicates == now.group_duplicates
}

fn stored_splits(store: &Store, parent: &Parent) -> Result<KeptSplits, StoreError> {
    let columns = ["rule", "group", "side"];
    read_table(store, &parent.manifest, "sides", &columns, |rows| {
        let rules = text(rows, "rule")?;
        let groups = text(rows, "group")?;
        let splits = text(rows, "side")?;
        let invalid = |name: &str, what| general(&format!("{name} is not a {what}"));

        let mut by_rule = [Vec::new(), Vec::new()];
        for row in 0..rows.num_rows() {
            let name = splits.value(row);
            let split = Split::named(name).ok_or_else(|| invalid(name, "split"))?;
            let name = rules.value(row);
            let rule = KeptRule::ALL.iter().position(|rule| rule.name() == name);
            let rule = rule.ok_or_else(|| invalid(name, "rule"))?;
            by_rule[rule].push((groups.value(row).into(), split));
        }
        Ok(KeptSplits(by_rule.map(GroupSplits::new)))
    })
}
