//! Column types of the known data sets, and the SQL that converts text to them.
//!
//! If a value cannot be converted to its column's type, the row becomes a `bad_row` reject with line and column.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::SessionContext;
use wavemill_schemas::reject::{Reason, Reject, Stage};

use super::CatalogError;
use super::csv_text::LINE;

/// Target type of a text column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ColumnKind {
    /// Text, unchanged, including HTML.
    Text,
    /// 64-bit integer.
    Int,
    /// 64-bit integer, where −1 means null.
    Id,
    /// 64-bit floating-point number.
    Float,
    /// 32-bit floating-point number.
    Float32,
    /// Time in microseconds since 1970, without a time zone.
    Timestamp,
    /// Python list of 64-bit integers.
    Ints,
    /// Python list of texts.
    Texts,
}

impl ColumnKind {
    /// Returns SQL that converts the column `text`, with null for invalid values. `None` if no conversion is needed.
    const fn sql(self) -> Option<&'static str> {
        Some(match self {
            Self::Text => return None,
            Self::Int => "TRY_CAST(text AS BIGINT)",
            Self::Id => "NULLIF(TRY_CAST(text AS BIGINT), -1)",
            Self::Float => "TRY_CAST(text AS DOUBLE)",
            Self::Float32 => "TRY_CAST(text AS REAL)",
            Self::Timestamp => "TRY_CAST(text AS TIMESTAMP(6))",
            Self::Ints => "python_ints(text)",
            Self::Texts => "python_texts(text)",
        })
    }

    /// Reports whether a text means null in a column of this kind.
    fn is_null_text(self, text: &str) -> bool {
        self == Self::Id && text == "-1"
    }
}

/// Infers the kind of each text column of a file without known types: integers or floats if every value is one.
///
/// Values such as `007` remain text, because a number would lose the zeros. Integers beyond 64 bits remain text,
/// because a float would lose digits.
pub(super) fn inferred(text: &RecordBatch) -> BTreeMap<String, ColumnKind> {
    let mut kinds = BTreeMap::new();
    for (field, column) in text.schema().fields().iter().zip(text.columns()) {
        kinds.insert(field.name().clone(), inferred_kind(column));
    }
    kinds
}

fn inferred_kind(column: &ArrayRef) -> ColumnKind {
    let Some(values) = column.as_string_view_opt() else {
        return ColumnKind::Text;
    };
    // A column without values gives no hint about its type.
    if values.null_count() == values.len() {
        return ColumnKind::Text;
    }

    if values.iter().flatten().all(is_int) {
        ColumnKind::Int
    } else if values.iter().flatten().all(is_float) {
        ColumnKind::Float
    } else {
        ColumnKind::Text
    }
}

/// Reports whether a value is an integer in canonical form, so that the conversion loses nothing of the text.
fn is_int(value: &str) -> bool {
    let number = value.parse::<i64>();
    number.is_ok_and(|number| number.to_string() == value)
}

fn is_float(value: &str) -> bool {
    let digits = value.trim_start_matches('-');
    let padded = digits.starts_with('0') && digits.len() > 1 && !digits.starts_with("0.");
    let is_beyond = digits.bytes().all(|b| b.is_ascii_digit()) && value.parse::<i64>().is_err();
    // `inf` and `nan` parse as floats but do not start with a digit. They count as words here.
    !padded
        && !is_beyond
        && digits.starts_with(|c: char| c.is_ascii_digit())
        && value.parse::<f64>().is_ok()
}

/// Converts text batches of one file to typed batches.
pub(super) struct Typer {
    file: String,
    schema: SchemaRef,
    columns: Vec<(ColumnKind, Option<Arc<Conversion>>)>,
    required: Option<usize>,
}

/// The compiled SQL of one [`ColumnKind`], for a table of one column. All columns of a kind share it. Compiling it for
/// each column over the whole table would take quadratic time in the number of columns.
struct Conversion {
    text: SchemaRef,
    expression: Arc<dyn PhysicalExpr>,
    data_type: DataType,
}

impl Conversion {
    /// Compiles the SQL of a kind, or returns `None` for a kind that remains text.
    fn compile(context: &SessionContext, kind: ColumnKind) -> Result<Option<Self>, CatalogError> {
        let Some(sql) = kind.sql() else {
            return Ok(None);
        };
        let text = Arc::new(Schema::new(vec![Field::new(
            "text",
            DataType::Utf8View,
            true,
        )]));
        // A table with the one column `text` to which the SQL refers.
        let known = DFSchema::try_from(text.as_ref().clone())?;

        let parsed = context.parse_sql_expr(sql, &known)?;
        let expression = context.create_physical_expr(parsed, &known)?;
        let data_type = expression.data_type(&text)?;
        Ok(Some(Self {
            text,
            expression,
            data_type,
        }))
    }

    /// Converts the values of one text column to the type of this kind.
    fn run(&self, column: &ArrayRef) -> Result<ArrayRef, CatalogError> {
        let rows = column.len();
        let table = RecordBatch::try_new(Arc::clone(&self.text), vec![Arc::clone(column)])?;
        Ok(self.expression.evaluate(&table)?.into_array(rows)?)
    }
}

impl Typer {
    /// Compiles the SQL for the kinds of all columns of `text`, whose first column is the line. The column `required`
    /// must have a value in every row.
    ///
    /// # Errors
    /// `Engine` if DataFusion refuses an expression.
    pub(super) fn new(
        context: &SessionContext,
        file: &str,
        text: &SchemaRef,
        kind_of: impl Fn(&str) -> ColumnKind,
        required: Option<&str>,
    ) -> Result<Self, CatalogError> {
        let mut conversions: BTreeMap<ColumnKind, Option<Arc<Conversion>>> = BTreeMap::new();
        let mut columns = Vec::with_capacity(text.fields().len());
        let mut fields = Vec::with_capacity(text.fields().len());
        for field in text.fields() {
            let kind = if field.name() == LINE {
                ColumnKind::Text
            } else {
                kind_of(field.name())
            };
            // The SQL of a kind is compiled for the kind's first column, then shared with the others.
            let conversion = match conversions.entry(kind) {
                Entry::Occupied(known) => known.get().clone(),
                Entry::Vacant(place) => place
                    .insert(Conversion::compile(context, kind)?.map(Arc::new))
                    .clone(),
            };

            let data_type = conversion
                .as_ref()
                .map_or(field.data_type(), |conversion| &conversion.data_type);
            fields.push(Field::new(
                field.name(),
                data_type.clone(),
                field.is_nullable(),
            ));
            columns.push((kind, conversion));
        }

        let required = required.and_then(|name| text.index_of(name).ok());
        Ok(Self {
            file: file.to_owned(),
            schema: Arc::new(Schema::new(fields)),
            columns,
            required,
        })
    }

    /// Returns the schema of typed batches.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Converts one batch of text columns. Rows with an invalid value are added to `rejects`.
    ///
    /// # Errors
    /// `Engine` if an expression fails as a whole.
    pub(super) fn typed(
        &self,
        text: &RecordBatch,
        rejects: &mut Vec<Reject>,
    ) -> Result<RecordBatch, CatalogError> {
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        let mut bad = Vec::new();
        for (index, (kind, conversion)) in self.columns.iter().enumerate() {
            let from = text.column(index);
            let Some(conversion) = conversion else {
                arrays.push(from.clone());
                continue;
            };
            let to = conversion.run(from)?;
            // Equal null counts before and after the conversion mean that every value is valid.
            let is_required = self.required == Some(index);
            if to.null_count() > from.null_count() || is_required && to.null_count() > 0 {
                bad.extend(self.misfits(index, *kind, from, &to));
            }
            arrays.push(to);
        }

        let typed = RecordBatch::try_new(self.schema.clone(), arrays)?;
        if bad.is_empty() {
            return Ok(typed);
        }

        // Each row gets one reject, for its first invalid column.
        bad.sort_unstable();
        bad.dedup_by_key(|(row, _)| *row);
        let mut keep = vec![true; text.num_rows()];
        for (row, column) in bad {
            keep[row] = false;
            rejects.push(self.reject(text, row, column));
        }
        Ok(filter_record_batch(&typed, &BooleanArray::from(keep))?)
    }

    /// Returns (row, column) of every value that could not be converted, or that is missing in a required column.
    fn misfits(
        &self,
        column: usize,
        kind: ColumnKind,
        from: &ArrayRef,
        to: &ArrayRef,
    ) -> Vec<(usize, usize)> {
        let text = from.as_string_view();
        let is_required = self.required == Some(column);

        let mut misfits = Vec::new();
        for row in (0..to.len()).filter(|row| to.is_null(*row)) {
            let is_misfit = if text.is_null(row) {
                is_required
            } else {
                !kind.is_null_text(text.value(row))
            };
            if is_misfit {
                misfits.push((row, column));
            }
        }
        misfits
    }

    fn reject(&self, text: &RecordBatch, row: usize, column: usize) -> Reject {
        let values = text.column(column).as_string_view();
        let field = self.schema.field(column);
        let kind = self.columns[column].0;
        // The value is truncated in the message, because a cell may contain a page of text.
        let shown: String = if values.is_null(row) {
            String::new()
        } else {
            values.value(row).chars().take(40).collect()
        };
        let detail = format!(
            "{}: `{shown}` is no {kind:?} for column {}",
            self.file,
            field.name()
        );

        let mut reject = Reject::new(Stage::Catalog, Reason::BadRow, detail);
        let lines = text.column(0).as_primitive::<Int64Type>();
        reject.line = Some(lines.value(row).cast_unsigned());
        reject.column = Some(field.name().clone());
        reject.track_id = text
            .column_by_name("track_id")
            .and_then(|ids| ids.as_string_view().value(row).parse().ok());
        reject
    }
}
