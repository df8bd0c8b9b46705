//! Runs SQL queries on a version and returns their results as columns or as a table of the page.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float64Type, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use wavemill_pages::{Cell, Table};
use wavemill_sql as sql;
use wavemill_sql::{Limits, Session, Sink, SqlError};

use super::Subject;
use crate::quote::identifier;

/// An SQL session on a version of a store.
pub(super) struct Answers<'a> {
    /// The version of the store that is queried.
    pub subject: Subject<'a>,
    session: Session,
}

impl<'a> Answers<'a> {
    pub(super) fn open(subject: Subject<'a>, limits: Limits) -> Result<Self, SqlError> {
        let session = sql::open(subject.store, subject.manifest, limits)?;
        Ok(Self { subject, session })
    }

    /// Runs a query and returns all rows of its result, which must be few.
    ///
    /// # Errors
    /// [`SqlError`] if the query fails, or the columns of its result are inconsistent.
    pub(super) fn ask(&self, query: &str) -> Result<Answer, SqlError> {
        let mut batches = Vec::new();
        let schema = self.each(query, |answer| {
            batches.push(answer.batch);
            Ok(())
        })?;
        let batch = concat_batches(&schema, &batches)?;
        Ok(Answer { batch })
    }

    /// Runs a query, passes its rows to `take` in parts, and returns their columns.
    ///
    /// # Errors
    /// [`SqlError`] if the query fails, or the error of `take`.
    pub(super) fn each(
        &self,
        query: &str,
        take: impl FnMut(Answer) -> Result<(), SqlError>,
    ) -> Result<SchemaRef, SqlError> {
        let mut parts = Parts {
            schema: Arc::new(Schema::empty()),
            take,
        };
        self.session.run(query, &mut parts)?;
        Ok(parts.schema)
    }

    /// Runs a query and returns its rows as a table whose columns have the names of the result's columns.
    pub(super) fn table(&self, query: &str) -> Result<Table, SqlError> {
        let answer = self.ask(query)?;
        let fields = answer.batch.schema();
        let names: Vec<&str> = fields
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();

        let mut table = Table::new("", &names);
        table.rows = vec![Vec::new(); answer.batch.num_rows()];
        for name in names {
            for (row, cell) in table.rows.iter_mut().zip(answer.cells(name)?) {
                row.push(cell);
            }
        }
        Ok(table)
    }

    /// Returns the columns of a table, or an empty schema if the version does not have the table.
    ///
    /// # Errors
    /// [`SqlError`] if the table is damaged.
    pub(super) fn columns(&self, table: &str) -> Result<SchemaRef, SqlError> {
        let has_table = self.session.tables().iter().any(|name| name == table);
        if !has_table {
            return Ok(Arc::new(Schema::empty()));
        }
        self.session.columns(table)
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
    /// Returns a column of the result as texts.
    ///
    /// # Errors
    /// [`SqlError`] if the column does not exist.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<Option<String>>, SqlError> {
        let column = cast(self.column(name)?, &DataType::Utf8)?;
        let texts = column.as_string::<i32>();
        Ok(texts.iter().map(|text| text.map(str::to_owned)).collect())
    }

    /// Returns a column of the result as counts, with 0 for null.
    pub(super) fn counts(&self, name: &str) -> Result<Vec<u64>, SqlError> {
        let column = cast(self.column(name)?, &DataType::Int64)?;
        let counts = column.as_primitive::<Int64Type>();
        Ok(counts
            .iter()
            .map(|n| u64::try_from(n.unwrap_or(0)).unwrap_or(0))
            .collect())
    }

    /// Returns a column of the result as floating-point numbers.
    pub(super) fn numbers(&self, name: &str) -> Result<Vec<Option<f64>>, SqlError> {
        let column = cast(self.column(name)?, &DataType::Float64)?;
        Ok(column.as_primitive::<Float64Type>().iter().collect())
    }

    /// Returns the count in a result of one row.
    pub(super) fn count(&self, name: &str) -> Result<u64, SqlError> {
        Ok(self.counts(name)?.first().copied().unwrap_or(0))
    }

    /// Returns the number in a result of one row, if it is not null.
    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, SqlError> {
        Ok(self.numbers(name)?.first().copied().flatten())
    }

    /// Returns a column as cells of a table.
    fn cells(&self, name: &str) -> Result<Vec<Cell>, SqlError> {
        let column = self.column(name)?;
        let kind = column.data_type();
        let mut cells: Vec<Cell> = if kind.is_integer() {
            self.counts(name)?.into_iter().map(Cell::from).collect()
        } else if kind.is_floating() {
            self.numbers(name)?.into_iter().map(Cell::from).collect()
        } else {
            self.texts(name)?.into_iter().map(Cell::from).collect()
        };

        for (row, cell) in cells.iter_mut().enumerate() {
            if column.is_null(row) {
                *cell = Cell::None;
            }
        }
        Ok(cells)
    }

    /// Returns a column with the type of the query's result.
    ///
    /// # Errors
    /// [`ArrowError`] if the column does not exist.
    pub(super) fn column(&self, name: &str) -> Result<&Arc<dyn Array>, ArrowError> {
        let column = self.batch.column_by_name(name);
        column.ok_or_else(|| ArrowError::SchemaError(format!("no column {name}")))
    }
}

/// Receiver of query results that passes them on.
struct Parts<F> {
    schema: SchemaRef,
    take: F,
}

impl<F: FnMut(Answer) -> Result<(), SqlError>> Sink for Parts<F> {
    fn begin(&mut self, schema: &SchemaRef) -> Result<(), SqlError> {
        self.schema = Arc::clone(schema);
        Ok(())
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), SqlError> {
        let batch = batch.clone();
        (self.take)(Answer { batch })
    }

    fn finish(&mut self) -> Result<(), SqlError> {
        Ok(())
    }
}
