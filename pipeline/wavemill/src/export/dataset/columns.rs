//! Columns of a dataset, with their types in the three notations of `datasets`: Arrow, JSON and YAML.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use serde_json::{Value, json};
use wavemill_schemas::columns::{KEY_COLUMNS, MORE_COLUMNS, RowColumn};
use wavemill_schemas::manifest::TargetEntry;
use wavemill_schemas::tables::item_type;

use super::super::content::Content;

/// Numbers of dimensions for which `datasets` has array types.
const ARRAY_RANKS: std::ops::RangeInclusive<usize> = 2..=5;

/// A column of the dataset.
#[derive(Debug)]
pub(super) struct Column<'a> {
    /// Name of the column, as in the store.
    pub name: &'a str,
    /// Type of the column in the dataset.
    pub kind: Kind<'a>,
}

/// Type of a column of the dataset.
#[derive(Debug)]
pub(super) enum Kind<'a> {
    /// A single value.
    Value(DataType),
    /// A list of values.
    List(DataType),
    /// Ids of a target's classes; null if unlabelled.
    Classes(&'a TargetEntry),
    /// A tensor, as nested lists of one value type.
    Tensor {
        /// Type of the tensor's values.
        dtype: DataType,
        /// Shape of the tensors of all rows; `None` if rows differ in shape.
        shape: Option<Vec<usize>>,
        /// Number of dimensions of the tensors.
        rank: usize,
    },
}

/// Returns all columns of the dataset, in the order of the store.
pub(super) fn all_columns<'a>(content: &'a Content<'_>) -> Vec<Column<'a>> {
    let mut columns: Vec<Column<'a>> = KEY_COLUMNS.iter().map(Column::of_rows).collect();
    for target in content.targets {
        columns.push(Column {
            name: &target.name,
            kind: Kind::Classes(target),
        });
    }
    columns.extend(MORE_COLUMNS.iter().map(Column::of_rows));

    columns.push(Column {
        name: &content.feature.name,
        kind: Kind::Tensor {
            dtype: item_type(content.tensor.dtype),
            shape: content.tensor.shape.iter().copied().collect(),
            rank: content.tensor.shape.len(),
        },
    });
    columns
}

/// Returns the JSON in which `datasets` stores the types of columns in a Parquet file.
pub(super) fn info(columns: &[Column<'_>]) -> String {
    let mut features = Vec::with_capacity(columns.len());
    for column in columns {
        // The JSON text is joined from parts, because an object of `serde_json` would sort the columns.
        features.push(format!("{}: {}", json!(column.name), column.json()));
    }
    format!(
        "{{\"info\": {{\"features\": {{{}}}}}}}",
        features.join(", ")
    )
}

impl Column<'_> {
    /// Creates a column that all rows of a store have.
    fn of_rows(column: &RowColumn) -> Self {
        let kind = match column.data_type() {
            DataType::List(item) => Kind::List(item.data_type().clone()),
            value => Kind::Value(value),
        };
        Self {
            name: column.name,
            kind,
        }
    }

    /// Returns the Arrow type of the column.
    pub(super) fn data_type(&self) -> DataType {
        match &self.kind {
            Kind::Value(dtype) => dtype.clone(),
            Kind::List(dtype) => list(dtype.clone()),
            Kind::Classes(_) => DataType::Int64,
            Kind::Tensor { dtype, rank, .. } => {
                (0..*rank).fold(dtype.clone(), |inner, _| list(inner))
            }
        }
    }

    /// Returns the Arrow field of the column. `datasets` treats every column as nullable.
    pub(super) fn field(&self) -> Field {
        Field::new(self.name, self.data_type(), true)
    }

    fn json(&self) -> Value {
        match &self.kind {
            Kind::Value(dtype) => value(dtype),
            Kind::List(dtype) => json!({ "feature": value(dtype), "_type": "List" }),
            Kind::Classes(target) => json!({ "names": target.classes, "_type": "ClassLabel" }),
            Kind::Tensor { dtype, shape, rank } => match shape {
                Some(shape) if ARRAY_RANKS.contains(rank) => {
                    let dtype = name(dtype);
                    json!({ "shape": shape, "dtype": dtype, "_type": format!("Array{rank}D") })
                }
                _ => (0..*rank).fold(
                    value(dtype),
                    |inner, _| json!({ "feature": inner, "_type": "List" }),
                ),
            },
        }
    }

    /// Returns the lines of `dataset_info.features` for this column, as `datasets` writes them to a README.
    pub(super) fn yaml(&self) -> String {
        let mut text = format!("  - name: {}\n", quoted(self.name));

        match &self.kind {
            Kind::Value(dtype) => text += &format!("    dtype: {}\n", name(dtype)),
            Kind::List(dtype) => text += &format!("    list: {}\n", name(dtype)),
            Kind::Classes(target) => {
                text += "    dtype:\n      class_label:\n        names:\n";
                for (id, class) in target.classes.iter().enumerate() {
                    text += &format!("          '{id}': {}\n", quoted(class));
                }
            }
            Kind::Tensor { dtype, shape, rank } => match shape {
                Some(shape) if ARRAY_RANKS.contains(rank) => {
                    text += &format!("    dtype:\n      array{rank}_d:\n        shape:\n");
                    for dim in shape {
                        text += &format!("        - {dim}\n");
                    }
                    text += &format!("        dtype: {}\n", name(dtype));
                }
                _ => {
                    for depth in 1..*rank {
                        text += &format!("{}list:\n", "  ".repeat(depth + 1));
                    }
                    text += &format!("{}list: {}\n", "  ".repeat(rank + 1), name(dtype));
                }
            },
        }
        text
    }
}

fn value(dtype: &DataType) -> Value {
    json!({ "dtype": name(dtype), "_type": "Value" })
}

/// Returns the list type with the item name that pyarrow uses.
pub(super) fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

/// Returns the name of a type in `datasets`.
fn name(dtype: &DataType) -> String {
    match dtype {
        DataType::Utf8 => "string".to_owned(),
        DataType::Boolean => "bool".to_owned(),
        // Names of numbers are those of Arrow in lower case, such as `float16`.
        number => number.to_string().to_lowercase(),
    }
}

/// Quotes any text as a YAML string on one line.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            c if c.is_alphanumeric() => quoted.push(c),
            // YAML parsers reject characters that are not printable.
            c => quoted += &format!("\\U{:08X}", u32::from(c)),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[Option<usize>]) -> Column<'static> {
        Column {
            name: "log_mel",
            kind: Kind::Tensor {
                dtype: DataType::Float32,
                shape: shape.iter().copied().collect(),
                rank: shape.len(),
            },
        }
    }

    #[test]
    fn types_are_those_of_datasets() {
        let fixed = tensor(&[Some(4), Some(3)]);
        let wanted = r#"{"info": {"features": {"log_mel": {"_type":"Array2D","dtype":"float32","shape":[4,3]}}}}"#;
        assert_eq!(info(&[fixed]), wanted);

        let ragged = tensor(&[Some(4), None]);
        let inner = json!({ "feature": value(&DataType::Float32), "_type": "List" });
        assert_eq!(ragged.json(), json!({ "feature": inner, "_type": "List" }));
        assert_eq!(
            ragged.yaml(),
            "  - name: \"log_mel\"\n    list:\n      list: float32\n"
        );
        assert_eq!(ragged.data_type(), list(list(DataType::Float32)));

        assert!(tensor(&[Some(3); 3]).yaml().contains("array3_d:"));
        assert_eq!(
            tensor(&[Some(3)]).yaml(),
            "  - name: \"log_mel\"\n    list: float32\n"
        );
    }

    #[test]
    fn every_name_is_yaml_in_one_line() {
        assert_eq!(quoted("Old-Time / Historic"), "\"Old-Time / Historic\"");
        assert_eq!(quoted("a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(quoted("é\n\u{7f}"), "\"é\\U0000000A\\U0000007F\"");
    }
}
