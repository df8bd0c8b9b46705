//! Runs SQL queries on a version and returns their results as columns.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float64Type, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use std::sync::Arc;
use wavemill_sql as sql;
use wavemill_sql::{Limits, Session, Sink, SqlError};

use super::{ReportError, Subject};
use crate::quote::identifier;

/// An SQL session on a version of a store.
pub(super) struct Answers<'a> {
    /// The version of the store that is queried.
    pub subject: Subject<'a>,
    session: Session,
}

impl<'a> Answers<'a> {
    pub(super) fn open(subject: Subject<'a>, limits: Limits) -> Result<Self, ReportError> {
        let session = sql::open(subject.store, subject.manifest, limits)?;
        Ok(Self { subject, session })
    }

    /// Runs a query and returns all rows of its result, which must be few.
    ///
    /// # Errors
    /// [`ReportError::Sql`] if the query fails; [`ReportError::Answer`] if the columns of its result are inconsistent.
    pub(super) fn ask(&self, query: &str) -> Result<Answer, ReportError> {
        let mut rows = Rows::default();
        self.session.run(query, &mut rows)?;
        let batch = concat_batches(&rows.schema, &rows.batches)?;
        Ok(Answer { batch })
    }

    /// Returns the columns of a table, or an empty schema if the version does not have the table.
    ///
    /// # Errors
    /// [`ReportError::Sql`] if the table is damaged.
    pub(super) fn columns(&self, table: &str) -> Result<SchemaRef, ReportError> {
        let has_table = self.session.tables().iter().any(|name| name == table);
        if !has_table {
            return Ok(Arc::new(Schema::empty()));
        }
        Ok(self.session.columns(table)?)
    }

    /// Returns the quoted name of a feature table. All feature tables have the same columns about clips.
    pub(super) fn rows_table(&self) -> Option<String> {
        let feature = self.subject.manifest.features.first()?;
        // A version without clips has no file for the feature.
        self.subject.manifest.files_of(&feature.name).next()?;
        Some(identifier(&format!("features_{}", feature.name)))
    }
}

/// The result of a query: all rows in one batch.
pub(super) struct Answer {
    batch: RecordBatch,
}

impl Answer {
    pub(super) fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Returns a column of the result as texts.
    ///
    /// # Errors
    /// [`ReportError::Answer`] if the column does not exist.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<Option<String>>, ReportError> {
        let column = cast(self.column(name)?, &DataType::Utf8)?;
        let texts = column.as_string::<i32>();
        Ok(texts.iter().map(|text| text.map(str::to_owned)).collect())
    }

    /// Returns a column of the result as counts, with 0 for null.
    ///
    /// # Errors
    /// The same errors as [`Answer::texts`].
    pub(super) fn counts(&self, name: &str) -> Result<Vec<u64>, ReportError> {
        let column = cast(self.column(name)?, &DataType::Int64)?;
        let counts = column.as_primitive::<Int64Type>();
        Ok(counts
            .iter()
            .map(|n| u64::try_from(n.unwrap_or(0)).unwrap_or(0))
            .collect())
    }

    /// Returns a column of the result as floating-point numbers.
    ///
    /// # Errors
    /// The same errors as [`Answer::texts`].
    pub(super) fn numbers(&self, name: &str) -> Result<Vec<Option<f64>>, ReportError> {
        let column = cast(self.column(name)?, &DataType::Float64)?;
        Ok(column.as_primitive::<Float64Type>().iter().collect())
    }

    fn column(&self, name: &str) -> Result<&Arc<dyn Array>, ArrowError> {
        let column = self.batch.column_by_name(name);
        column.ok_or_else(|| ArrowError::SchemaError(format!("no column {name}")))
    }
}

/// Receiver of query results that keeps all batches in memory.
#[derive(Debug)]
struct Rows {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl Default for Rows {
    fn default() -> Self {
        Self {
            schema: Arc::new(Schema::empty()),
            batches: Vec::new(),
        }
    }
}

impl Sink for Rows {
    fn begin(&mut self, schema: &SchemaRef) -> Result<(), SqlError> {
        self.schema = Arc::clone(schema);
        self.batches.clear();
        Ok(())
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), SqlError> {
        self.batches.push(batch.clone());
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SqlError> {
        Ok(())
    }
}
