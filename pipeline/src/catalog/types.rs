//! The type of every column that a data set knows, and the SQL that makes it from text.
//!
//! A value that its column's type cannot hold makes the row a `bad_row` reject, by line and column.

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

/// What a text column is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ColumnKind {
    /// Stays as it is, HTML too.
    Text,
    /// i64.
    Int,
    /// i64 where −1 says that there is none.
    Id,
    /// f64.
    Float,
    /// f32.
    Float32,
    /// Microseconds since 1970, without a zone.
    Timestamp,
    /// Python list of i64.
    Ints,
    /// Python list of text.
    Texts,
}

impl ColumnKind {
    /// SQL from the column `text`; null for what it cannot hold. `None`: nothing to do.
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

    /// A text that is null on purpose.
    fn is_null_text(self, text: &str) -> bool {
        self == Self::Id && text == "-1"
    }
}

/// The kind of each text column of a file that nobody has described: integers and floats where every value is one.
///
/// `007` stays text: as a number it would lose its zeros; so does an integer beyond 64 bits, which would lose digits.
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
    // A column without a value says nothing of itself.
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

/// As it would be written, so that no text is lost by being a number.
fn is_int(value: &str) -> bool {
    let number = value.parse::<i64>();
    number.is_ok_and(|number| number.to_string() == value)
}

fn is_float(value: &str) -> bool {
    let digits = value.trim_start_matches('-');
    let padded = digits.starts_with('0') && digits.len() > 1 && !digits.starts_with("0.");
    let is_beyond = digits.bytes().all(|b| b.is_ascii_digit()) && value.parse::<i64>().is_err();
    // `inf` and `nan` parse as floats; they do not begin with a digit, and are words here.
    !padded
        && !is_beyond
        && digits.starts_with(|c: char| c.is_ascii_digit())
        && value.parse::<f64>().is_ok()
}

/// Turns text batches of one file into typed ones.
pub(super) struct Typer {
    file: String,
    schema: SchemaRef,
    columns: Vec<(ColumnKind, Option<Arc<Conversion>>)>,
    required: Option<usize>,
}

/// The SQL of one [`ColumnKind`], compiled for a table of one column. A file's columns share it: compiled for each of
/// them, over the whole table, it would cost the square of their number.
struct Conversion {
    text: SchemaRef,
    expression: Arc<dyn PhysicalExpr>,
    data_type: DataType,
}

impl Conversion {
    /// `None` for a kind that stays text.
    fn compile(context: &SessionContext, kind: ColumnKind) -> Result<Option<Self>, CatalogError> {
        let Some(sql) = kind.sql() else {
            return Ok(None);
        };
        let text = Arc::new(Schema::new(vec![Field::new(
            "text",
            DataType::Utf8View,
            true,
        )]));
        // A table of the one column `text`, which is what the SQL names.
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

    /// The values of one text column.
    fn run(&self, column: &ArrayRef) -> Result<ArrayRef, CatalogError> {
        let rows = column.len();
        let table = RecordBatch::try_new(Arc::clone(&self.text), vec![Arc::clone(column)])?;
        Ok(self.expression.evaluate(&table)?.into_array(rows)?)
    }
}

impl Typer {
    /// Compiles the SQL of every kind that columns of `text` (line first) have; `required` may not be empty in any row.
    ///
    /// # Errors
    /// `Engine` when DataFusion refuses an expression.
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
            // Compiled for the first column of a kind, and shared by the others.
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

    /// The typed columns.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Types one batch; rows with a value that does not fit go to `rejects`.
    ///
    /// # Errors
    /// `Engine` when an expression fails as a whole.
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
            // Equal null counts: every value fits, and there is nothing to look for.
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

        // One reject a row, for its first column at fault.
        bad.sort_unstable();
        bad.dedup_by_key(|(row, _)| *row);
        let mut keep = vec![true; text.num_rows()];
        for (row, column) in bad {
            keep[row] = false;
            rejects.push(self.reject(text, row, column));
        }
        Ok(filter_record_batch(&typed, &BooleanArray::from(keep))?)
    }

    /// (row, column) of every value that became null though it says something, or that is missing where required.
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
        // A cell may be a page long.
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
