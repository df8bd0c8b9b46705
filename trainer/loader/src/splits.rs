//! Assigns each row to the training, validation or test split: by its folder under the recipe's rule, by its fold, or
//! by a column of `tracks` under another rule.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use wavemill_schemas::recipe::SplitRule;
use wavemill_schemas::split::Split;

use crate::folds::FoldRule;
use crate::rows::Rows;
use crate::{DatasetError, Store};

/// Prefix of the columns of `tracks` that contain the splits of a rule.
const COLUMN_PREFIX: &str = "split_";

/// Returns the split of every row; `None` for rows that are in no split and are never read.
///
/// `folders` has the manifest's split of each file, by the index that [`Rows`] gives it. `rule` is the requested rule,
/// or `None` for the recipe's rule. Copies at another tempo are used only for training, except under the rule
/// `segment_stretched`, which intends this leak.
///
/// # Errors
/// [`DatasetError::Unfit`], which names the store's rules, if the rule does not exist, and the errors of
/// [`Store::table`].
pub(crate) fn splits(
    store: &Store,
    rows: &Rows,
    folders: &[Option<Split>],
    rule: Option<&str>,
) -> Result<Vec<Option<Split>>, DatasetError> {
    let own = store.rule();
    let asked = rule.filter(|rule| *rule != own);
    let tests_copies =
        asked.is_none() && store.manifest().recipe.split.rule == SplitRule::SegmentStretched;
    let mut splits: Vec<Option<Split>> = match (asked, asked.and_then(FoldRule::parse)) {
        // The recipe's own rule determined the folders. Under the rule `segment`, a track is in several splits, which a
        // column of `tracks` cannot represent.
        (None, _) => {
            let groups = rows.group_of.iter();
            let files = groups.map(|&group| rows.groups[group as usize].file);
            files.map(|file| folders[file as usize]).collect()
        }
        (Some(_), Some(fold)) => fold.splits(rows),
        (Some(rule), None) => {
            let of_track = by_track(store, rule, own)?;
            let tracks = rows.track_ids.iter();
            tracks.map(|track| of_track.get(track).copied()).collect()
        }
    };

    if tests_copies {
        return Ok(splits);
    }
    for (split, variant) in splits.iter_mut().zip(&rows.variants) {
        // Copies at another tempo are for training only. In validation and test, they would count their clip twice.
        if *variant != 1.0 && *split != Some(Split::Training) {
            *split = None;
        }
    }
    Ok(splits)
}

/// The split rule that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleInUse {
    /// The name used in `data.split`: the name of a rule, or of a column of `tracks` without its prefix.
    pub name: String,
    /// The kind of the split rule.
    pub kind: SplitRule,
    /// True if the rule is that of the recipe, so that the rows of a split are in the folder of that split.
    pub is_recipes: bool,
}

impl RuleInUse {
    /// Returns the requested split rule, or the recipe's rule if `asked` is `None`. The caller must call [`splits`]
    /// first, which rejects a rule without a column in `tracks`.
    pub(crate) fn new(store: &Store, asked: Option<&str>) -> Self {
        let own = store.manifest().recipe.split.rule;
        let Some(name) = asked.filter(|name| *name != own.name()) else {
            return Self {
                name: own.name().to_owned(),
                kind: own,
                is_recipes: true,
            };
        };

        // wavemill writes columns for three rules. Any other column is user-defined, whatever its name, and assigns
        // tracks to splits, even if it is called `segment`.
        let written = [
            SplitRule::Official,
            SplitRule::Stratified,
            SplitRule::Artist,
        ];
        // Folds keep artists apart, as the rule `artist` does.
        let kind_of_fold = FoldRule::parse(name).map(|_| SplitRule::Artist);
        Self {
            name: name.to_owned(),
            kind: kind_of_fold.unwrap_or_else(|| {
                written
                    .into_iter()
                    .find(|rule| rule.name() == name)
                    .unwrap_or(SplitRule::Column)
            }),
            is_recipes: false,
        }
    }
}

/// Returns the split of each track according to the column of `tracks` for `rule`. `own` is the recipe's rule, which
/// needs no column.
fn by_track(store: &Store, rule: &str, own: &str) -> Result<HashMap<i64, Split>, DatasetError> {
    let column = format!("{COLUMN_PREFIX}{rule}");
    let table = store.table("tracks", |name| {
        name == "track_id" || name.starts_with(COLUMN_PREFIX)
    })?;
    let Some(pairs) = store.pairs(table.as_ref(), "track_id", &column)? else {
        let there = rules_of(table.as_ref(), own);
        return Err(DatasetError::not_there("split", rule, &there));
    };

    // A track without a valid value is in no split: `Dataset::warnings` counts its rows.
    let pairs = pairs.into_iter();
    let splits = pairs.filter_map(|(track, name)| Some((track, Split::named(&name)?)));
    Ok(splits.collect())
}

/// Lists the split rules that have a column in `tracks`, and the recipe's rule.
fn rules_of(tracks: Option<&RecordBatch>, own: &str) -> String {
    let schema = tracks.map(RecordBatch::schema);
    let mut rules: Vec<&str> = schema
        .iter()
        .flat_map(|schema| schema.fields())
        .filter_map(|field| field.name().strip_prefix(COLUMN_PREFIX))
        .collect();
    // The rules `column` and `segment` have no column in `tracks`, but can still be requested.
    if !rules.contains(&own) {
        rules.push(own);
    }
    rules.push("or a fold, such as fold-1-of-5");
    rules.join(", ")
}
