//! Arrow arrays of the columns that every row of a feature has, and rows read back from them.

use std::sync::Arc;

use arrow_array::builder::{Int32Builder, ListBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int32Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float32Array, Int32Array, Int64Array, StringArray,
    new_null_array,
};
use arrow_schema::{DataType, Field};

use crate::clip::ClipRow;
use crate::columns::Values::{Boolean, ClipId, ClipIds, ClipText, Float32, Int32, Text};
use crate::columns::{KEY_COLUMNS, MORE_COLUMNS, Nulls, RowColumn, RowFacts};
use crate::tables::list_of;

/// A row of a feature without its tensor.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Metadata of the row's clip, with its classes.
    pub clip: &'a ClipRow,
    /// Facts about the row.
    pub facts: &'a RowFacts,
}

/// Returns the columns before the tensor, in the order of [`feature_schema`](crate::tables::feature_schema).
pub fn arrays(rows: &[Row<'_>], is_of_audio: bool) -> Vec<ArrayRef> {
    let n_targets = rows.first().map_or(0, |row| row.clip.targets.len());
    let classes = (0..n_targets).map(|target| -> ArrayRef {
        let classes = rows.iter().map(|row| row.clip.targets[target]);
        Arc::new(Int32Array::from_iter(classes))
    });

    let array = |column: &RowColumn| column.array(rows, is_of_audio);
    let keys = KEY_COLUMNS.iter().map(array);
    keys.chain(classes)
        .chain(MORE_COLUMNS.iter().map(array))
        .collect()
}

impl RowColumn {
    /// Returns the description of the column in a schema.
    pub fn field(&self, is_of_audio: bool) -> Field {
        let is_nullable = match self.nulls {
            Nulls::Never => false,
            Nulls::Unknown => true,
            Nulls::WithoutAudio => !is_of_audio,
        };
        Field::new(self.name, self.data_type(), is_nullable)
    }

    /// Returns the type of the column.
    pub fn data_type(&self) -> DataType {
        match self.values {
            ClipText(_) | Text(..) => DataType::Utf8,
            ClipId(_) => DataType::Int64,
            ClipIds(_) => list_of(DataType::Int32),
            Int32(..) => DataType::Int32,
            Float32(..) => DataType::Float32,
            Boolean(..) => DataType::Boolean,
        }
    }

    fn array(&self, rows: &[Row<'_>], is_of_audio: bool) -> ArrayRef {
        if self.nulls == Nulls::WithoutAudio && !is_of_audio {
            return new_null_array(&self.data_type(), rows.len());
        }
        let clips = rows.iter().map(|row| row.clip);
        let facts = rows.iter().map(|row| row.facts);
        match self.values {
            ClipText(of) => Arc::new(StringArray::from_iter_values(clips.map(of))),
            ClipId(of) => Arc::new(Int64Array::from_iter(clips.map(of))),
            ClipIds(of) => int_lists(clips.map(|clip| of(clip).iter().copied())),
            Text(of, _) => Arc::new(StringArray::from_iter_values(facts.map(of))),
            Int32(of, _) => Arc::new(Int32Array::from_iter_values(facts.map(of))),
            Float32(of, _) => Arc::new(Float32Array::from_iter_values(facts.map(of))),
            Boolean(of, _) => Arc::new(BooleanArray::from(facts.map(of).collect::<Vec<_>>())),
        }
    }

    /// Copies facts from an array of the column to rows, one after another. Returns `None` if the array has another
    /// type. Columns of the metadata are not copied.
    pub fn copy_facts<'a>(
        &self,
        array: &dyn Array,
        rows: impl Iterator<Item = &'a mut RowFacts>,
    ) -> Option<()> {
        match self.values {
            ClipText(_) | ClipId(_) | ClipIds(_) => {}
            Text(_, set) => {
                let texts = array.as_string_opt::<i32>()?.iter();
                set_each(texts.map(|text| text.map(Arc::from)), rows, set);
            }
            Int32(_, set) => set_each(array.as_primitive_opt::<Int32Type>()?.iter(), rows, set),
            Float32(_, set) => set_each(array.as_primitive_opt::<Float32Type>()?.iter(), rows, set),
            Boolean(_, set) => set_each(array.as_boolean_opt()?.iter(), rows, set),
        }
        Some(())
    }
}

/// Sets a fact of each row. A null becomes the value that rows without the fact have.
fn set_each<'a, T: Default>(
    values: impl Iterator<Item = Option<T>>,
    rows: impl Iterator<Item = &'a mut RowFacts>,
    set: fn(&mut RowFacts, T),
) {
    for (value, row) in values.zip(rows) {
        set(row, value.unwrap_or_default());
    }
}

/// Creates an array of lists of numbers, without nulls.
pub fn int_lists<L: IntoIterator<Item = i32>>(lists: impl IntoIterator<Item = L>) -> ArrayRef {
    let item = Field::new("item", DataType::Int32, false);
    let mut array = ListBuilder::new(Int32Builder::new()).with_field(item);
    for list in lists {
        array.append_value(list.into_iter().map(Some));
    }
    Arc::new(array.finish())
}
