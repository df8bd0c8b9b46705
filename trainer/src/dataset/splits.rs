//! Which side each row is on: by its folder under the recipe's rule, by a column of `tracks` under another.

use std::collections::HashMap;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};

use wavemill_schemas::recipe::SplitRule;

use super::rows::Rows;
use super::{DatasetError, Store};

/// A side of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Side {
    /// Learned from.
    #[default]
    Training,
    /// Decides when to stop.
    Validation,
    /// Asked once.
    Test,
}

impl Side {
    /// All three, in order.
    pub const ALL: [Self; 3] = [Self::Training, Self::Validation, Self::Test];

    /// As in a manifest: `training`, `validation`, `test`.
    #[must_use]
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

/// Prefix of the columns of `tracks` that hold a rule's sides.
const COLUMN_PREFIX: &str = "split_";

/// The side of every row; `None`: on none, and never read.
///
/// `folders`: the manifest's split of each file by the index that [`Rows`] gives it; `rule`: the recipe's if `None`.
/// Copies at another tempo train and never test.
///
/// # Errors
/// [`DatasetError::NotThere`] with the store's rules; those of [`Store::table`].
pub fn sides(
    store: &Store,
    rows: &Rows,
    folders: &[Option<String>],
    rule: Option<&str>,
) -> Result<Vec<Option<Side>>, DatasetError> {
    let own = store.rule();
    let mut sides: Vec<Option<Side>> = match rule.filter(|rule| *rule != own) {
        None => {
            let folder = |group: &u32| folders[rows.groups[*group as usize].file as usize].as_deref();
            rows.group_of.iter().map(|group| folder(group).and_then(Side::named)).collect()
        }
        Some(rule) => {
            let of_track = by_track(store, rule, own)?;
            rows.track_ids.iter().map(|track| of_track.get(track).copied()).collect()
        }
    };
    for (side, variant) in sides.iter_mut().zip(&rows.variants) {
        if *variant != 1.0 && *side != Some(Side::Training) {
            *side = None;
        }
    }
    Ok(sides)
}

/// The rule in use: the one asked for, else the recipe's.
#[must_use]
pub fn rule(store: &Store, asked: Option<&str>) -> SplitRule {
    let all = [SplitRule::Official, SplitRule::Stratified, SplitRule::Artist, SplitRule::Column, SplitRule::Segment];
    all.into_iter().find(|rule| Some(rule.name()) == asked).unwrap_or(store.manifest().recipe.split.rule)
}

fn by_track(store: &Store, rule: &str, own: &str) -> Result<HashMap<i64, Side>, DatasetError> {
    let column = format!("{COLUMN_PREFIX}{rule}");
    let table = store.table("tracks", |name| name == "track_id" || name.starts_with(COLUMN_PREFIX))?;
    let not_there = || {
        let fields = table.as_ref().map(|t| t.schema().fields().clone()).unwrap_or_default();
        let mut rules: Vec<&str> = fields.iter().filter_map(|f| f.name().strip_prefix(COLUMN_PREFIX)).collect();
        if !rules.contains(&own) {
            rules.push(own);
        }
        DatasetError::NotThere { key: "split", found: rule.to_owned(), there: rules.join(", ") }
    };
    let columns = table.as_ref().and_then(|t| Some((t.column_by_name("track_id")?, t.column_by_name(&column)?)));
    let (tracks, sides) = columns.ok_or_else(not_there)?;
    let unreadable = |e: arrow::error::ArrowError| DatasetError::column(store.root(), &column, e.to_string());
    let tracks = cast(tracks, &DataType::Int64).map_err(unreadable)?;
    let sides = cast(sides, &DataType::Utf8).map_err(unreadable)?;
    let sides = sides.as_string::<i32>();
    let tracks = tracks.as_primitive::<Int64Type>();
    let pair = |row: usize| Some((tracks.value(row), sides.is_valid(row).then(|| Side::named(sides.value(row)))??));
    Ok((0..tracks.len()).filter_map(pair).collect())
}
