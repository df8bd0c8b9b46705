//! Hashes every column of the cleaned rows, as part of the plan's identity.
//!
//! The hash covers, per column, its name, its type, and its values in row order. A value is one byte (0 for null, 1
//! otherwise) and its content. Integers and timestamps are 8 bytes, floats have their own size, both little-endian.
//! Text is its length (8 bytes) and its bytes; a list is its length and its values. Other types are hashed as formatted
//! by arrow. The division of rows into batches has no effect.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;

/// Number of bytes to buffer before they are hashed, because BLAKE3 is fast only on long inputs.
const CHUNK_BYTES: usize = 1 << 16;

/// Returns the BLAKE3 hash of `rows`, in lower-case hex.
///
/// # Errors
/// Fails if arrow cannot format a value of an unusual type.
pub(super) fn rows_hash(rows: &RecordBatch) -> Result<String, ArrowError> {
    let mut hasher = blake3::Hasher::new();
    let mut bytes = Vec::with_capacity(2 * CHUNK_BYTES);
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        // The column's name and type are hashed too, so that equal values in another column give another hash.
        put_text(&mut bytes, field.name());
        put_text(&mut bytes, &type_name(field.data_type()));
        put_values(&mut bytes, column.as_ref(), &mut |bytes| {
            if bytes.len() >= CHUNK_BYTES {
                hasher.update(bytes);
                bytes.clear();
            }
        })?;
    }
    hasher.update(&bytes);
    Ok(hasher.finalize().to_hex().to_string())
}

/// Returns a name for a column type. All of arrow's text types have the same name.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "utf8".to_owned(),
        DataType::List(item) => format!("list<{}>", type_name(item.data_type())),
        other => other.to_string(),
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

fn put_i64(bytes: &mut Vec<u8>, value: i64) {
    bytes.extend_from_slice(&value.to_le_bytes());
}

fn put_all<T>(
    bytes: &mut Vec<u8>,
    values: impl Iterator<Item = Option<T>>,
    flush: &mut dyn FnMut(&mut Vec<u8>),
    put: impl Fn(&mut Vec<u8>, T),
) {
    for value in values {
        bytes.push(u8::from(value.is_some()));
        if let Some(value) = value {
            put(bytes, value);
        }
        flush(bytes);
    }
}

fn put_values(
    bytes: &mut Vec<u8>,
    column: &dyn Array,
    flush: &mut dyn FnMut(&mut Vec<u8>),
) -> Result<(), ArrowError> {
    match column.data_type() {
        DataType::Utf8View => put_all(bytes, column.as_string_view().iter(), flush, put_text),
        DataType::Utf8 => put_all(bytes, column.as_string::<i32>().iter(), flush, put_text),
        DataType::LargeUtf8 => put_all(bytes, column.as_string::<i64>().iter(), flush, put_text),

        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>();
            put_all(bytes, values.iter(), flush, put_i64);
        }
        DataType::Int32 => {
            let values = column.as_primitive::<Int32Type>();
            let values = values.iter().map(|value| value.map(i64::from));
            put_all(bytes, values, flush, put_i64);
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let values = column.as_primitive::<TimestampMicrosecondType>();
            put_all(bytes, values.iter(), flush, put_i64);
        }

        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>();
            put_all(bytes, values.iter(), flush, |bytes, value| {
                bytes.extend_from_slice(&value.to_le_bytes());
            });
        }
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>();
            put_all(bytes, values.iter(), flush, |bytes, value| {
                bytes.extend_from_slice(&value.to_le_bytes());
            });
        }

        DataType::List(_) => {
            for list in column.as_list::<i32>().iter() {
                bytes.push(u8::from(list.is_some()));
                if let Some(list) = list {
                    bytes.extend_from_slice(&(list.len() as u64).to_le_bytes());
                    put_values(bytes, list.as_ref(), flush)?;
                }
            }
        }

        // Other types are rare, and are hashed as formatted by arrow.
        _ => {
            for row in 0..column.len() {
                bytes.push(u8::from(column.is_valid(row)));
                put_text(bytes, &array_value_to_string(column, row)?);
                flush(bytes);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray, StringViewArray};

    use super::*;

    fn hash(columns: Vec<(&str, ArrayRef)>) -> String {
        rows_hash(&RecordBatch::try_from_iter(columns).unwrap()).unwrap()
    }

    #[test]
    fn text_types_and_slices_hash_alike() {
        let view: ArrayRef = Arc::new(StringViewArray::from(vec![
            Some("a"),
            None,
            Some("longer than twelve bytes"),
        ]));
        let plain: ArrayRef = Arc::new(StringArray::from(vec![
            Some("a"),
            None,
            Some("longer than twelve bytes"),
        ]));
        let sliced = plain.slice(1, 2);

        assert_eq!(hash(vec![("x", view.clone())]), hash(vec![("x", plain)]));
        assert_eq!(
            hash(vec![("x", view.slice(1, 2))]),
            hash(vec![("x", sliced)])
        );
    }

    #[test]
    fn values_nulls_names_and_boundaries_change_the_hash() {
        fn text(values: Vec<Option<&str>>) -> ArrayRef {
            Arc::new(StringArray::from(values))
        }

        let base = hash(vec![("x", text(vec![Some("ab"), Some("c")]))]);

        assert_ne!(base, hash(vec![("x", text(vec![Some("a"), Some("bc")]))]));
        assert_ne!(base, hash(vec![("y", text(vec![Some("ab"), Some("c")]))]));
        assert_ne!(
            hash(vec![("x", text(vec![None]))]),
            hash(vec![("x", text(vec![Some("")]))])
        );

        let [upwards, downwards] = [vec![1, 2], vec![2, 1]]
            .map(|values| hash(vec![("x", Arc::new(Int64Array::from(values)) as ArrayRef)]));
        assert_ne!(upwards, downwards);
    }
}
