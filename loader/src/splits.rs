//! Which side each row is on: by its folder under the recipe's rule, by a column of `tracks` under another.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use wavemill_schemas::recipe::SplitRule;

use crate::rows::Rows;
use crate::{DatasetError, Store};

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
/// Copies at another tempo train and never test, but for the rule `segment_stretched`, which is made of that leak.
///
/// # Errors
/// [`DatasetError::NotThere`] with the store's rules; those of [`Store::table`].
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
        // The recipe's own rule made the folders. Under the rule `segment` a track lies on several sides, which no
        // column by track could say.
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
        // Copies are there to learn from. In a score they would count their clip once more.
        if *variant != 1.0 && *side != Some(Side::Training) {
            *side = None;
        }
    }
    Ok(sides)
}

/// The rule that made the sides in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleInUse {
    /// As `data.split` asks for it: the name of a rule, or of a column of `tracks` without its prefix.
    pub name: String,
    /// What the sides are good for.
    pub kind: SplitRule,
    /// It is the recipe's, so a side's rows are in that side's folder.
    pub is_recipes: bool,
}

impl RuleInUse {
    /// The one asked for, else the recipe's. [`sides`] is asked first, and refuses a name that no column of `tracks` has.
    pub(crate) fn new(store: &Store, asked: Option<&str>) -> Self {
        let own = store.manifest().recipe.split.rule;
        let Some(name) = asked.filter(|name| *name != own.name()) else {
            return Self {
                name: own.name().to_owned(),
                kind: own,
                is_recipes: true,
            };
        };

        // wavemill writes a column for each of three rules. Any other is the user's own, whatever its name: its sides are
        // those of tracks, even if it is called `segment`.
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

/// The side of each track by `rule`'s column of `tracks`; `own` is the rule that needs none.
fn by_track(store: &Store, rule: &str, own: &str) -> Result<HashMap<i64, Side>, DatasetError> {
    let column = format!("{COLUMN_PREFIX}{rule}");
    let table = store.table("tracks", |name| {
        name == "track_id" || name.starts_with(COLUMN_PREFIX)
    })?;
    let columns = table.as_ref().and_then(|table| {
        Some((
            table.column_by_name("track_id")?,
            table.column_by_name(&column)?,
        ))
    });
    let Some((tracks, sides)) = columns else {
        return Err(DatasetError::NotThere {
            key: "split",
            found: rule.to_owned(),
            there: rules_of(table.as_ref(), own),
        });
    };

    let unreadable =
        |e: arrow::error::ArrowError| DatasetError::column(store.root(), &column, e.to_string());
    let tracks = cast(tracks, &DataType::Int64).map_err(unreadable)?;
    let tracks = tracks.as_primitive::<Int64Type>();
    let sides = cast(sides, &DataType::Utf8).map_err(unreadable)?;
    let sides = sides.as_string::<i32>();

    let mut by_track = HashMap::new();
    for row in 0..tracks.len() {
        // A track without a side, or on one that is none of the three, is on no side: `Dataset::warnings` counts its
        // rows.
        if !sides.is_valid(row) {
            continue;
        }
        if let Some(side) = Side::named(sides.value(row)) {
            by_track.insert(tracks.value(row), side);
        }
    }
    Ok(by_track)
}

/// The rules that have a column of `tracks`, and the store's own.
fn rules_of(tracks: Option<&RecordBatch>, own: &str) -> String {
    let schema = tracks.map(RecordBatch::schema);
    let mut rules: Vec<&str> = schema
        .iter()
        .flat_map(|schema| schema.fields())
        .filter_map(|field| field.name().strip_prefix(COLUMN_PREFIX))
        .collect();
    // The rules `column` and `segment` have no column of this kind, and can be asked for all the same.
    if !rules.contains(&own) {
        rules.push(own);
    }
    rules.join(", ")
}
