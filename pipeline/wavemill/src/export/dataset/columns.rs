//! Columns of a dataset, with their types in the three notations of `datasets`: Arrow, JSON and YAML.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use serde_json::{Value, json};
use wavemill_schemas::manifest::TargetEntry;
use wavemill_schemas::recipe::Dtype;

use super::super::content::Content;
use super::super::keys::KEY_COLUMNS;

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
    /// A single value, with its type's name in `datasets`.
    Value(&'static str),
    /// A list of values, with their type's name in `datasets`.
    List(&'static str),
    /// Ids of a target's classes; null if unlabelled.
    Classes(&'a TargetEntry),
    /// A tensor, as nested lists of one value type.
    Tensor {
        /// Name of the tensor's value type in `datasets`.
        dtype: &'static str,
        /// Shape of the tensors of all rows; `None` if rows differ in shape.
        shape: Option<Vec<usize>>,
        /// Number of dimensions of the tensors.
        rank: usize,
    },
}

/// Further columns of the dataset, with their types: all but keys, targets and the tensor.
const FACTS: [(&str, Kind<'static>); 7] = [
    ("genres_all", Kind::List("int32")),
    ("artist_id", Kind::Value("int64")),
    ("album_id", Kind::Value("int64")),
    ("duration_s", Kind::Value("float32")),
    ("lost_s", Kind::Value("float32")),
    ("silent", Kind::Value("bool")),
    ("audio_blake3", Kind::Value("string")),
];

/// Names of the types of [`KEY_COLUMNS`] in `datasets`.
const KEY_TYPES: [&str; 5] = ["string", "int64", "int32", "float32", "float32"];

/// Returns all columns of the dataset, in the order of the store.
pub(super) fn all_columns<'a>(content: &'a Content<'_>) -> Vec<Column<'a>> {
    let mut columns = Vec::new();
    for (name, dtype) in KEY_COLUMNS.into_iter().zip(KEY_TYPES) {
        let kind = Kind::Value(dtype);
        columns.push(Column { name, kind });
    }

    for target in content.targets {
        columns.push(Column {
            name: &target.name,
            kind: Kind::Classes(target),
        });
    }

    for (name, kind) in FACTS {
        columns.push(Column { name, kind });
    }

    columns.push(Column {
        name: &content.feature.name,
        kind: Kind::Tensor {
            dtype: dtype_name(content.tensor.dtype),
            shape: content.tensor.shape.iter().copied().collect(),
            rank: content.tensor.shape.len(),
        },
    });
    columns
}

const fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "float16",
        Dtype::F32 => "float32",
        Dtype::U8 => "uint8",
        Dtype::S16 => "int16",
    }
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
    /// Returns the Arrow type of the column.
    pub(super) fn data_type(&self) -> DataType {
        match &self.kind {
            Kind::Value(dtype) => arrow_type(dtype),
            Kind::List(dtype) => list(arrow_type(dtype)),
            Kind::Classes(_) => DataType::Int64,
            Kind::Tensor { dtype, rank, .. } => {
                (0..*rank).fold(arrow_type(dtype), |inner, _| list(inner))
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
            Kind::Value(dtype) => text += &format!("    dtype: {dtype}\n"),
            Kind::List(dtype) => text += &format!("    list: {dtype}\n"),
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
                    text += &format!("        dtype: {dtype}\n");
                }
                _ => {
                    for depth in 1..*rank {
                        text += &format!("{}list:\n", "  ".repeat(depth + 1));
                    }
                    text += &format!("{}list: {dtype}\n", "  ".repeat(rank + 1));
                }
            },
        }
        text
    }
}

fn value(dtype: &str) -> Value {
    json!({ "dtype": dtype, "_type": "Value" })
}

/// Returns the list type with the item name that pyarrow uses.
pub(super) fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

fn arrow_type(dtype: &str) -> DataType {
    match dtype {
        "string" => DataType::Utf8,
        "bool" => DataType::Boolean,
        "int32" => DataType::Int32,
        "int64" => DataType::Int64,
        "uint8" => DataType::UInt8,
        "int16" => DataType::Int16,
        "float16" => DataType::Float16,
        _ => DataType::Float32,
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
                dtype: "float32",
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
        let inner = json!({ "feature": value("float32"), "_type": "List" });
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
