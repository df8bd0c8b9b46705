//! Packs the columns of wide tables for DataFusion, whose planning time is quadratic in the number of columns that a
//! `*` expands to: 4,000 columns took two seconds or more, even for 20 rows.
//!
//! A query passes columns that it does not name through unchanged. Runs of adjacent unnamed columns are packed into one
//! struct column each, and unpacked from the query's result. Nothing is packed if the query may use columns without
//! naming them (`UNION BY NAME`, `NATURAL JOIN` and the like). If a query on packed columns fails, it is run again on
//! the original rows, which only costs time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::compute::{is_null, nullif};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use arrow::error::ArrowError;

/// Maximum number of columns for which rows are not packed, because planning takes only milliseconds. FMA's tracks have
/// 53 columns.
const NARROW_COLUMNS_MAX: usize = 256;

/// Prefix of the names of packed columns.
const PACKED: &str = "wavemill.columns.";

/// Words of a query that may compare or match columns without naming them.
const WHOLE_ROW_SYNTAX: [&str; 9] = [
    "natural", "union", "all", "distinct", "describe", "show", "explain", "pivot", "unnest",
];

/// Packs the columns of `rows` that `sql` does not name. Returns `None` if this saves no time or could change the
/// result.
pub(super) fn packed(rows: &RecordBatch, sql: &str) -> Option<RecordBatch> {
    let schema = rows.schema();
    // A user's column whose name has the prefix of packed columns would be unpacked by mistake.
    if schema.fields().len() <= NARROW_COLUMNS_MAX
        || schema.fields().iter().any(|f| f.name().starts_with(PACKED))
    {
        return None;
    }

    let sql = sql.to_lowercase();
    let words = || sql.split(|c: char| !c.is_alphanumeric() && c != '_');
    if words().any(|word| WHOLE_ROW_SYNTAX.contains(&word)) || has_ordinal(words()) {
        return None;
    }

    // A quote within a quoted name is doubled.
    let unquoted = sql.replace("\"\"", "\"");
    let mut packing = Packing::default();
    for (field, column) in schema.fields().iter().zip(rows.columns()) {
        // The search also finds names that are part of another word. Leaving too many columns unpacked does no harm.
        let name = field.name().to_lowercase();
        if sql.contains(&name) || unquoted.contains(&name) {
            packing.close();
            packing.fields.push(Arc::clone(field));
            packing.columns.push(Arc::clone(column));
        } else {
            packing.open.push((Arc::clone(field), Arc::clone(column)));
        }
    }
    packing.close();

    RecordBatch::try_new(Arc::new(Schema::new(packing.fields)), packing.columns).ok()
}

/// Reports whether a query may order or group by the position of a column: `ORDER BY 2`. Numbers after `LIMIT` and
/// `OFFSET` are no positions.
fn has_ordinal<'a>(words: impl Iterator<Item = &'a str>) -> bool {
    let mut is_after_by = false;
    for word in words {
        match word {
            "by" => is_after_by = true,
            "limit" | "offset" => is_after_by = false,
            _ if is_after_by && word.starts_with(|c: char| c.is_ascii_digit()) => return true,
            _ => {}
        }
    }
    false
}

/// Builder of a packed table.
#[derive(Default)]
struct Packing {
    fields: Vec<FieldRef>,
    columns: Vec<ArrayRef>,
    /// Columns since the last named column; they form the next struct column.
    open: Vec<(FieldRef, ArrayRef)>,
}

impl Packing {
    /// Packs the collected unnamed columns into one struct column of the table.
    fn close(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let name = format!("{PACKED}{}", self.fields.len());
        let structs = StructArray::from(std::mem::take(&mut self.open));
        self.fields.push(Arc::new(Field::new(
            name,
            structs.data_type().clone(),
            false,
        )));
        self.columns.push(Arc::new(structs));
    }
}

/// Unpacks the packed columns of a query's result in their original positions.
///
/// # Errors
/// Fails if an arrow function fails.
pub(super) fn unpacked(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        match field.data_type() {
            DataType::Struct(inner) if field.name().starts_with(PACKED) => {
                unpack(inner, column.as_struct(), &mut fields, &mut columns)?;
            }
            _ => {
                fields.push(Arc::clone(field));
                columns.push(Arc::clone(column));
            }
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn unpack(
    inner: &Fields,
    structs: &StructArray,
    fields: &mut Vec<FieldRef>,
    columns: &mut Vec<ArrayRef>,
) -> Result<(), ArrowError> {
    // In the result of an outer join, the struct of an unmatched row is null as a whole.
    if structs.null_count() == 0 {
        fields.extend(inner.iter().cloned());
        columns.extend(structs.columns().iter().cloned());
        return Ok(());
    }

    let is_absent = is_null(structs)?;
    for (field, column) in inner.iter().zip(structs.columns()) {
        fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
        columns.push(nullif(column, &is_absent)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::statements::parse_query;
    use arrow::array::{Int64Array, StringViewArray};

    use super::super::engine::Engine;
    use super::*;

    /// Creates a table of `csv_line`, `genre`, the numbers `c0`, `c1`, …, and a last column of text with nulls.
    fn wide(n_columns: usize) -> RecordBatch {
        let mut columns: Vec<(String, ArrayRef)> = vec![
            (
                "csv_line".to_owned(),
                Arc::new(Int64Array::from(vec![2, 3, 4])),
            ),
            (
                "genre".to_owned(),
                Arc::new(StringViewArray::from(vec![Some("a"), None, Some("b")])),
            ),
        ];

        for i in 0..n_columns {
            columns.push((
                format!("c{i}"),
                Arc::new(Int64Array::from_iter_values(
                    (0..3).map(|row| row * 10 + i as i64),
                )),
            ));
        }

        let texts = StringViewArray::from(vec![None, Some("longer than twelve bytes"), Some("")]);
        columns.push(("Last \"words\"".to_owned(), Arc::new(texts)));

        RecordBatch::try_from_iter_with_nullable(
            columns
                .into_iter()
                .map(|(name, column)| (name, column, true)),
        )
        .unwrap()
    }

    /// Runs `sql` on packed rows and unpacks the result.
    fn answer(engine: &Engine, rows: &RecordBatch, sql: &str) -> RecordBatch {
        engine.set_table("input", rows).unwrap();
        let query = parse_query(sql).unwrap();
        unpacked(&engine.query(&query).unwrap()).unwrap()
    }

    #[test]
    fn packed_columns_survive_queries_unchanged() {
        let engine = Engine::new(64 << 20, Arc::default()).unwrap();
        let rows = wide(300);

        for sql in [
            "SELECT *, c17 + 1 AS more FROM input WHERE genre IS NOT NULL",
            "SELECT * EXCLUDE (c5, \"Last \"\"words\"\"\") FROM input ORDER BY c299 DESC",
            "SELECT i.*, 1 AS one FROM (SELECT * FROM input) AS i WHERE \"Last \"\"words\"\"\" <> ''",
            "SELECT csv_line, genre FROM input LIMIT 1",
            "SELECT o.csv_line AS other, i.* FROM input AS o LEFT JOIN input AS i ON i.csv_line = o.csv_line - 1 ORDER BY other LIMIT 9",
            "SELECT * FROM input WHERE false",
        ] {
            let packed = packed(&rows, sql).expect(sql);
            assert!(packed.num_columns() < 40, "{sql}: {}", packed.num_columns());
            assert_eq!(
                answer(&engine, &packed, sql),
                answer(&engine, &rows, sql),
                "{sql}"
            );
        }
    }

    #[test]
    fn narrow_rows_and_whole_row_queries_are_not_packed() {
        assert!(packed(&wide(100), "SELECT * FROM input").is_none());
        for sql in [
            "SELECT DISTINCT * FROM input",
            "SELECT * FROM input NATURAL JOIN genres",
            "select * from a union all by name select * from b",
            "SELECT * FROM input ORDER BY genre, 2 DESC LIMIT 5",
        ] {
            assert!(packed(&wide(300), sql).is_none(), "{sql}");
        }
    }
}
