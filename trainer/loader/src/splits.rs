//! Assigns each row to the training, validation or test split: by its folder under the recipe's rule, by its fold, or
//! by a column of `tracks` under another rule.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use wavemill_schemas::recipe::SplitRule;

use crate::folds::FoldRule;
use crate::rows::Rows;
use crate::{DatasetError, Store};

/// One of the three splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Side {
    /// Rows from which a model learns.
    #[default]
    Training,
    /// Rows that determine when training stops.
    Validation,
    /// Rows on which a model is evaluated once.
    Test,
}

impl Side {
    /// The three splits in order.
    pub const ALL: [Self; 3] = [Self::Training, Self::Validation, Self::Test];

    /// Returns the name of the split in manifests: `training`, `validation`, `test`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }

    /// Returns the split with a name that [`Self::name`] returns.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|side| side.name() == name)
    }
}

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
pub(crate) fn sides(
    store: &Store,
    rows: &Rows,
    folders: &[Option<String>],
    rule: Option<&str>,
) -> Result<Vec<Option<Side>>, DatasetError> {
    let own = store.rule();
    let mut sides: Vec<Option<Side>> = Vec::with_capacity(rows.len());
    let asked = rule.filter(|rule| *rule != own);
    let tests_copies =
        asked.is_none() && store.manifest().recipe.split.rule == SplitRule::SegmentStretched;
    match asked {
        // The recipe's own rule determined the folders. Under the rule `segment`, a track is in several splits, which a
        // column of `tracks` cannot represent.
        None => {
            for &group in &rows.group_of {
                let file = rows.groups[group as usize].file;
                sides.push(folders[file as usize].as_deref().and_then(Side::named));
            }
        }
        Some(rule) => match FoldRule::parse(rule) {
            Some(fold) => {
                let distances = fold.distances(rows).into_iter();
                sides.extend(distances.map(|distance| {
                    Some(match distance {
                        0 => Side::Test,
                        1 => Side::Validation,
                        _ => Side::Training,
                    })
                }));
            }
            None => {
                let of_track = by_track(store, rule, own)?;
                for track in &rows.track_ids {
                    sides.push(of_track.get(track).copied());
                }
            }
        },
    }

    if tests_copies {
        return Ok(sides);
    }
    for (side, variant) in sides.iter_mut().zip(&rows.variants) {
        // Copies at another tempo are for training only. In validation and test, they would count their clip twice.
        if *variant != 1.0 && *side != Some(Side::Training) {
            *side = None;
        }
    }
    Ok(sides)
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
    /// Returns the requested split rule, or the recipe's rule if `asked` is `None`. The caller must call [`sides`]
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
fn by_track(store: &Store, rule: &str, own: &str) -> Result<HashMap<i64, Side>, DatasetError> {
    let column = format!("{COLUMN_PREFIX}{rule}");
    let table = store.table("tracks", |name| {
        name == "track_id" || name.starts_with(COLUMN_PREFIX)
    })?;
    let Some(pairs) = store.pairs(table.as_ref(), "track_id", &column)? else {
        let there = rules_of(table.as_ref(), own);
        return Err(DatasetError::not_there("split", rule, &there));
    };

    let mut by_track = HashMap::new();
    for (track, side) in pairs {
        // A track without a valid value is in no split: `Dataset::warnings` counts its rows.
        if let Some(side) = Side::named(&side) {
            by_track.insert(track, side);
        }
    }
    Ok(by_track)
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
    rules.push("fold-I-of-K (K from 3)");
    rules.join(", ")
}
