//! The columns that every row of a feature has besides its labels and its tensor.
//!
//! Schemas, encoding, rows that are copied from an earlier version, exports, and the names that recipes may not use
//! follow from [`KEY_COLUMNS`] and [`MORE_COLUMNS`]. A new column is an entry there, a field of [`RowFacts`] or
//! [`ClipRow`], the code that computes the field, and a row in docs/store-format.md and in `scripts/check_store.py`.

use std::sync::Arc;

use self::Nulls::{Never, Unknown, WithoutAudio};
use self::Values::{Boolean, ClipId, ClipIds, ClipText, Float32, Int32, Text};
use crate::clip::ClipRow;

/// Facts about a row that follow from its clip's file. A later version copies them together with the row's tensor.
#[derive(Clone, Debug, Default)]
pub struct RowFacts {
    /// Number of the segment within the variant, from 0.
    pub segment: i32,
    /// Start of the segment in seconds.
    pub offset_s: f32,
    /// 1.0 for the original tempo, or the factor by which the clip was stretched.
    pub variant: f32,
    /// Decoded duration of the clip in seconds, before padding.
    pub duration_s: f32,
    /// Seconds of the clip that were lost to damage.
    pub lost_s: f32,
    /// True if every sample of the segment is zero.
    pub silent: bool,
    /// Hash over all audio frames of the clip, lower-case hex. Rows of a clip share it.
    pub audio_blake3: Arc<str>,
}

/// A column of every row of a feature.
#[derive(Clone, Copy, Debug)]
pub struct RowColumn {
    /// Name of the column.
    pub name: &'static str,
    /// The rows in which the column is null.
    pub nulls: Nulls,
    /// The type of the column and its place in a row.
    pub values: Values,
}

/// The rows in which a column is null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nulls {
    /// No rows.
    Never,
    /// Rows of clips whose metadata do not state the value.
    Unknown,
    /// Rows of pictures.
    WithoutAudio,
}

/// The type of a column, with the function that returns a row's value and, for facts, the one that sets it.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// Text of the current metadata.
    ClipText(fn(&ClipRow) -> &str),
    /// An id of the current metadata, int64.
    ClipId(fn(&ClipRow) -> Option<i64>),
    /// Ids of the current metadata, a list of int32.
    ClipIds(fn(&ClipRow) -> &[i32]),
    /// A text that is a fact.
    Text(fn(&RowFacts) -> Arc<str>, fn(&mut RowFacts, Arc<str>)),
    /// An int32 that is a fact.
    Int32(fn(&RowFacts) -> i32, fn(&mut RowFacts, i32)),
    /// A float32 that is a fact.
    Float32(fn(&RowFacts) -> f32, fn(&mut RowFacts, f32)),
    /// A truth value that is a fact.
    Boolean(fn(&RowFacts) -> bool, fn(&mut RowFacts, bool)),
}

/// Creates the column with the name of a field of [`RowFacts`].
macro_rules! fact {
    ($field:ident, $nulls:ident, $kind:ident) => {
        RowColumn {
            name: stringify!($field),
            nulls: $nulls,
            values: $kind(
                |row| Clone::clone(&row.$field),
                |row, value| row.$field = value,
            ),
        }
    };
}

const fn of_clip(name: &'static str, nulls: Nulls, values: Values) -> RowColumn {
    RowColumn {
        name,
        nulls,
        values,
    }
}

/// The columns before the targets, which identify a row and its position. Every format of `export` contains them.
pub const KEY_COLUMNS: [RowColumn; 5] = [
    of_clip("clip_key", Never, ClipText(|clip| &clip.clip_key)),
    of_clip("track_id", Never, ClipId(|clip| Some(clip.track_id))),
    fact!(segment, Never, Int32),
    fact!(offset_s, WithoutAudio, Float32),
    fact!(variant, Never, Float32),
];

/// The columns between the targets and the tensor. The format `huggingface` of `export` contains all of them.
pub const MORE_COLUMNS: [RowColumn; 7] = [
    of_clip("genres_all", Never, ClipIds(|clip| &clip.genres_all)),
    of_clip("artist_id", Unknown, ClipId(|clip| clip.artist_id)),
    of_clip("album_id", Unknown, ClipId(|clip| clip.album_id)),
    fact!(duration_s, WithoutAudio, Float32),
    fact!(lost_s, WithoutAudio, Float32),
    fact!(silent, WithoutAudio, Boolean),
    fact!(audio_blake3, WithoutAudio, Text),
];

/// Returns all columns of feature rows, without the targets and the tensor. Features and targets may not have their
/// names.
pub fn row_columns() -> impl Iterator<Item = &'static RowColumn> {
    KEY_COLUMNS.iter().chain(&MORE_COLUMNS)
}

impl RowColumn {
    /// Reports whether the column is one of [`RowFacts`], and not of the current metadata.
    pub const fn is_fact(&self) -> bool {
        match self.values {
            ClipText(_) | ClipId(_) | ClipIds(_) => false,
            Text(..) | Int32(..) | Float32(..) | Boolean(..) => true,
        }
    }
}

/// Returns the name of the column with the shapes of a ragged feature.
pub fn shape_column(feature: &str) -> String {
    format!("{feature}_shape")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../docs/store-format.md");

    #[test]
    fn docs_list_the_columns_in_order() {
        let section = PAGE.split("\n## Feature rows\n").nth(1).expect("a section");
        let section = section.split("\n## ").next().expect("its text");
        let cells = section.lines().filter(|line| line.starts_with("| `"));
        let cells = cells.filter_map(|line| line.split('|').nth(1));
        let listed: Vec<&str> = cells
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .filter(|name| !name.starts_with('<'))
            .collect();

        let names: Vec<&str> = row_columns().map(|column| column.name).collect();
        assert_eq!(listed, names);
    }

    /// The key of a file contains a clip as JSON: a column that was missing there would not change the key.
    #[test]
    fn serialized_clips_contain_the_columns_of_the_metadata() {
        let clip = serde_json::to_value(ClipRow::default()).expect("JSON");
        let mut names: Vec<&str> = row_columns()
            .filter(|column| !column.is_fact())
            .map(|column| column.name)
            .chain(["targets"])
            .collect();
        names.sort_unstable();
        let keys: Vec<&String> = clip.as_object().expect("an object").keys().collect();
        assert_eq!(keys, names);
    }
}
