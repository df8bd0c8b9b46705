//! CSV → batches of text columns that remember the line of every record.
//!
//! A record that cannot be read (not UTF-8, too many or too few fields) becomes a [`Reject`] with line and column, and
//! reading goes on behind it. Nothing is typed here; an empty field is null.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Builder, RecordBatch, StringViewBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use csv::{ErrorKind, StringRecord};
use wavemill_schemas::reject::{Reason, Reject, Stage};

use super::CatalogError;

/// The column that holds the physical line a record starts on, from 1.
pub const LINE: &str = "csv_line";

/// Cells a batch: bounds memory for 518 columns as for 5.
const BATCH_CELLS: usize = 1 << 18;

/// FMA's files have up to four header lines; the last of them starts with `track_id`.
const HEADER_LINES_MAX: usize = 5;

/// How column names are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// One line.
    Line,
    /// FMA's levels (group, field, …), closed by a line that starts with `track_id`: joined with `_`.
    Levels,
}

impl Header {
    /// The form of a file's header, by its first lines: [`Header::Levels`] where one of them starts with `track_id`. A
    /// single line that does so has the same column names in both forms.
    ///
    /// # Errors
    /// `Csv` when reading fails.
    pub fn of<R: Read>(file: &str, input: R) -> Result<Self, CatalogError> {
        let reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(input);
        for record in reader.into_byte_records().take(HEADER_LINES_MAX) {
            let record = record.map_err(|source| CatalogError::Csv { file: file.to_owned(), source })?;
            if record.get(0) == Some(b"track_id") {
                return Ok(Self::Levels);
            }
        }
        Ok(Self::Line)
    }
}

/// Reads one CSV file.
pub struct TextReader<R> {
    file: String,
    reader: csv::Reader<R>,
    record: StringRecord,
    schema: SchemaRef,
    /// Records so far, rejected ones among them.
    pub rows_read: u64,
    /// Records that were counted out so far.
    pub rejects: Vec<Reject>,
}

impl<R: Read> TextReader<R> {
    /// Reads the header of `file` (a name for messages).
    ///
    /// # Errors
    /// `Csv` when reading fails, `Header` and `DuplicateColumn` when the header is not of the named form.
    pub fn open(file: &str, input: R, header: Header) -> Result<Self, CatalogError> {
        let mut reader =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).buffer_capacity(1 << 17).from_reader(input);
        let names = column_names(file, &mut reader, header)?;
        let mut fields = vec![Field::new(LINE, DataType::Int64, false)];
        let mut seen = BTreeSet::from([LINE]);
        for name in &names {
            if !seen.insert(name) {
                return Err(CatalogError::DuplicateColumn { file: file.to_owned(), column: name.clone() });
            }
            fields.push(Field::new(name, DataType::Utf8View, true));
        }
        let schema = Arc::new(Schema::new(fields));
        Ok(Self {
            file: file.to_owned(),
            reader,
            record: StringRecord::new(),
            schema,
            rows_read: 0,
            rejects: Vec::new(),
        })
    }

    /// [`LINE`], then one text column a column of the file.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next rows, some thousands of them; `None` at the end of the file.
    ///
    /// # Errors
    /// `Csv` when reading fails.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>, CatalogError> {
        let n_columns = self.schema.fields().len() - 1;
        let rows_max = (BATCH_CELLS / n_columns.max(1)).clamp(256, 8192);
        let mut lines = Int64Builder::with_capacity(rows_max);
        let mut columns: Vec<_> = (0..n_columns).map(|_| StringViewBuilder::with_capacity(rows_max)).collect();
        let mut rows = 0;
        while rows < rows_max && self.next_record()? {
            let line = self.record.position().map_or(0, csv::Position::line);
            lines.append_value(line.cast_signed());
            for (builder, value) in columns.iter_mut().zip(&self.record) {
                if value.is_empty() { builder.append_null() } else { builder.append_value(value) }
            }
            rows += 1;
        }
        if rows == 0 {
            return Ok(None);
        }
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(lines.finish())];
        arrays.extend(columns.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef));
        Ok(Some(RecordBatch::try_new(self.schema.clone(), arrays)?))
    }

    /// Reads the next whole record into `self.record`, counting out the broken ones before it; false at the end.
    fn next_record(&mut self) -> Result<bool, CatalogError> {
        loop {
            let line = self.reader.position().line();
            match self.reader.read_record(&mut self.record) {
                Ok(false) => return Ok(false),
                Ok(true) if self.record.len() == self.schema.fields().len() - 1 => {
                    self.rows_read += 1;
                    return Ok(true);
                }
                Ok(true) => self.reject_field_count(),
                Err(error) => match error.kind() {
                    ErrorKind::Utf8 { pos, err } => {
                        let line = pos.as_ref().map_or(line, csv::Position::line);
                        self.reject_encoding(line, err.field(), err.valid_up_to());
                    }
                    _ => return Err(CatalogError::Csv { file: self.file.clone(), source: error }),
                },
            }
            self.rows_read += 1;
        }
    }

    fn reject_field_count(&mut self) {
        let (found, wanted) = (self.record.len(), self.schema.fields().len() - 1);
        let detail = format!("{}: {found} fields where the header has {wanted}", self.file);
        let mut reject = Reject::new(Stage::Catalog, Reason::BadRow, detail);
        reject.track_id = self.track_id();
        reject.line = self.record.position().map(csv::Position::line);
        // The first column without a field; with too many fields the last column is where they start.
        reject.column = self.schema.fields().get((found + 1).min(wanted)).map(|field| field.name().clone());
        self.rejects.push(reject);
    }

    fn reject_encoding(&mut self, line: u64, field: usize, valid_bytes: usize) {
        let detail = format!("{}: not UTF-8 after {valid_bytes} bytes of the field", self.file);
        let mut reject = Reject::new(Stage::Catalog, Reason::BadEncoding, detail);
        reject.line = Some(line);
        reject.column = self.schema.fields().get(field + 1).map(|field| field.name().clone());
        self.rejects.push(reject);
    }

    fn track_id(&self) -> Option<i64> {
        let (index, _) = self.schema.column_with_name("track_id")?;
        self.record.get(index - 1)?.parse().ok()
    }
}

fn column_names<R: Read>(file: &str, reader: &mut csv::Reader<R>, header: Header) -> Result<Vec<String>, CatalogError> {
    let mut record = StringRecord::new();
    let mut levels: Vec<StringRecord> = Vec::new();
    let lines_max = if header == Header::Line { 1 } else { HEADER_LINES_MAX };
    while levels.len() < lines_max {
        let more =
            reader.read_record(&mut record).map_err(|source| CatalogError::Csv { file: file.to_owned(), source })?;
        if !more {
            break;
        }
        levels.push(record.clone());
        if header == Header::Levels && record.get(0) == Some("track_id") {
            return Ok(joined_names(&levels));
        }
    }
    match levels.pop() {
        Some(only) if header == Header::Line => {
            Ok(only.iter().enumerate().map(|(i, name)| plain_name(i, name)).collect())
        }
        _ => Err(CatalogError::Header { file: file.to_owned(), lines: HEADER_LINES_MAX }),
    }
}

/// `album` over `title` → `album_title`; the first column's name stands in the last line.
fn joined_names(levels: &[StringRecord]) -> Vec<String> {
    let n_columns = levels.iter().map(StringRecord::len).max().unwrap_or(0);
    let name = |column: usize| {
        let parts = levels.iter().filter_map(|level| level.get(column)).filter(|part| !part.is_empty());
        plain_name(column, &parts.collect::<Vec<_>>().join("_"))
    };
    std::iter::once("track_id".to_owned()).chain((1..n_columns).map(name)).collect()
}

/// `#tracks` → `tracks`; a column without a name gets its number.
fn plain_name(index: usize, name: &str) -> String {
    let name = name.trim().trim_start_matches('#');
    if name.is_empty() { format!("column_{}", index + 1) } else { name.to_owned() }
}
