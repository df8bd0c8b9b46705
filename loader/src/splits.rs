//! Determines the side of each row: by its folder under the recipe's rule, by a column of `tracks` under another.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use wavemill_schemas::recipe::SplitRule;

use crate::rows::Rows;
use crate::{DatasetError, Store};

/// A side of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Side {
    /// Rows to learn from.
    #[default]
    Training,
    /// Rows that decide when to stop.
    Validation,
    /// Rows that are evaluated once.
    Test,
}

impl Side {
    /// All three sides in order.
    pub const ALL: [Self; 3] = [Self::Training, Self::Validation, Self::Test];

    /// Returns the name used in manifests: `training`, `validation`, `test`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|side| side.name() == name)
    }
}

/// Prefix of the columns of `tracks` that contain a rule's sides.
const COLUMN_PREFIX: &str = "split_";

/// Returns the side of every row; `None` for rows that are on no side and never read.
///
/// `folders`: the manifest's split of each file by the index that [`Rows`] gives it; `rule`: the recipe's if `None`.
/// Copies at another tempo are used only for training, except under the rule `segment_stretched`, whose purpose is that
/// leak.
///
/// # Errors
/// [`DatasetError::Unfit`] with the store's rules; those of [`Store::table`].
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
        // The recipe's own rule determined the folders. Under the rule `segment`, a track is on several sides, which a
        // column by track cannot represent.
        None => {
            for &group in &rows.group_of {
                let file = rows.groups[group as usize].file;
                sides.push(folders[file as usize].as_deref().and_then(Side::named));
            }
        }
        Some(rule) => {
            let of_track = by_track(store, rule, own)?;
            for track in &rows.track_ids {
                sides.push(of_track.get(track).copied());
            }
        }
    }

    if tests_copies {
        return Ok(sides);
    }
    for (side, variant) in sides.iter_mut().zip(&rows.variants) {
        // Copies are for training only. In a score they would count their clip twice.
        if *variant != 1.0 && *side != Some(Side::Training) {
            *side = None;
        }
    }
    Ok(sides)
}

/// The rule that determined the sides in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleInUse {
    /// The name used in `data.split`: the name of a rule, or of a column of `tracks` without its prefix.
    pub name: String,
    /// The kind of rule, which determines the use of the sides.
    pub kind: SplitRule,
    /// Whether the rule is the recipe's, so that a side's rows are in that side's folder.
    pub is_recipes: bool,
}

impl RuleInUse {
    /// Returns the requested rule, or the recipe's rule if `asked` is `None`. The caller must call [`sides`] first,
    /// which rejects a name without a column in `tracks`.
    pub(crate) fn new(store: &Store, asked: Option<&str>) -> Self {
        let own = store.manifest().recipe.split.rule;
        let Some(name) = asked.filter(|name| *name != own.name()) else {
            return Self {
                name: own.name().to_owned(),
                kind: own,
                is_recipes: true,
            };
        };

        // wavemill writes a column for each of three rules. Any other column is the user's own, whatever its name: its
        // sides apply to tracks, even if it is called `segment`.
        let written = [
            SplitRule::Official,
            SplitRule::Stratified,
            SplitRule::Artist,
        ];
        Self {
            name: name.to_owned(),
            kind: written
                .into_iter()
                .find(|rule| rule.name() == name)
                .unwrap_or(SplitRule::Column),
            is_recipes: false,
        }
    }
}

/// Returns the side of each track according to `rule`'s column of `tracks`; `own` is the rule that needs no column.
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
        // A track without a valid side is on no side: `Dataset::warnings` counts its rows.
        if let Some(side) = Side::named(&side) {
            by_track.insert(track, side);
        }
    }
    Ok(by_track)
}

/// Lists the rules with a column in `tracks`, and the store's own rule.
fn rules_of(tracks: Option<&RecordBatch>, own: &str) -> String {
    let schema = tracks.map(RecordBatch::schema);
    let mut rules: Vec<&str> = schema
        .iter()
        .flat_map(|schema| schema.fields())
        .filter_map(|field| field.name().strip_prefix(COLUMN_PREFIX))
        .collect();
    // The rules `column` and `segment` have no such column, but can still be requested.
    if !rules.contains(&own) {
        rules.push(own);
    }
    rules.join(", ")
}
