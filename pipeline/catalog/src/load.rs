//! Reads metadata files into typed rows, with one function per kind of data set. Rows of folders are made in
//! `folders.rs`.
//!
//! In every kind of data set, [`LINE`] is the first column. Unreadable records are added to the rejects and are never
//! errors.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    Array, ArrayData, AsArray, BooleanArray, Int64Array, RecordBatch, new_empty_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{concat, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Fields, Int64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::infer_json_schema;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::reader::ChunkReader;
use wavemill_runtime::panics;
use wavemill_runtime::parallel::{in_parts, on_threads};
use wavemill_runtime::parquet_footer::{self, FooterError};
use wavemill_runtime::progress::Progress;
use wavemill_schemas::recipe::CsvSpec;
use wavemill_schemas::reject::{Reason, Reject, Stage};
use wavemill_source::metadata::CONTENT_BYTES_MAX;
use wavemill_source::{SourceError, is_of_machine};

use super::csv_blocks::Block;
use super::csv_text::{
    Header, LINE, RecordCounts, TextForm, TextReader, refuse_columns, refuse_own,
};
use super::engine::{Engine, text_views};
use super::steps::{repeated_column, with_first_column};
use super::types::{self, ColumnKind, Typer};
use super::{CatalogError, CatalogSettings, fma};

/// The parsed content of the metadata files.
pub(super) struct ParsedMetadata {
    /// One row per track, with typed columns, ordered by [`LINE`].
    pub rows: RecordBatch,
    /// Number of metadata records read, including rejected ones.
    pub rows_read: u64,
    /// Rejected rows of the main metadata file, with the reason `bad_row` or `bad_encoding`.
    pub rejects: Vec<Reject>,
    /// Rejected rows of the other metadata files, with the reason `bad_row` or `bad_encoding`.
    pub further_rejects: Vec<Reject>,
    /// Further metadata tables, by name.
    pub tables: BTreeMap<String, RecordBatch>,
    /// Keys in a clip list that have no file.
    pub absent: Vec<String>,
    /// Clips whose files are missing from the clip list.
    pub unlisted: Vec<String>,
    /// Warnings for the user, one sentence each.
    pub warnings: Vec<String>,
}

/// A CSV file that is read as a whole.
pub(super) struct CsvFile<'a, R> {
    /// Name of the CSV file for messages.
    pub file: &'a str,
    /// Reader of the CSV file's bytes.
    pub input: R,
    /// Form of the CSV file's header.
    pub header: Header,
    /// Name of a column in which every row must have a value.
    pub required: Option<&'a str>,
    /// True if `catalog.csv` of the recipe describes the CSV file.
    pub is_described: bool,
}

/// Reads and types a CSV file block by block on several threads. A bad row becomes a reject.
///
/// # Errors
/// `Read` if reading the file fails; `Header` if the header is not valid, or too many rows are rejected.
pub(super) fn csv_file<R: Read + Send>(
    engine: &Engine,
    csv: CsvFile<'_, R>,
    kind_of: impl Fn(&str) -> ColumnKind,
    settings: CatalogSettings,
) -> Result<ParsedMetadata, CatalogError> {
    let threads = settings.threads;
    let reader = TextReader::open(csv.file, csv.input, csv.header)?;
    let typer = Typer::new(
        &engine.context,
        csv.file,
        reader.form().schema(),
        kind_of,
        csv.required,
    )?;

    let form = reader.form().clone();
    let reader = Mutex::new(reader);
    let by_thread = on_threads(threads, || {
        typed_blocks(&reader, &form, &typer, engine.progress())
    })?;
    // Blocks are typed by the threads in random order, so restore the file's order.
    let mut blocks: Vec<TypedBlock> = by_thread.into_iter().flatten().collect();
    blocks.sort_unstable_by_key(|block| block.number);

    let schema = typer.schema();
    let columns = in_parts(threads, schema.fields().len(), |column| {
        let parts = blocks
            .iter()
            .map(|block| block.rows.column(column).as_ref());
        let parts: Vec<&dyn Array> = parts.collect();
        if parts.is_empty() {
            Ok(new_empty_array(schema.field(column).data_type()))
        } else {
            concat(&parts)
        }
    })?;
    let rows = RecordBatch::try_new(Arc::clone(schema), columns)?;

    let rows_read: u64 = blocks.iter().map(|block| block.counts.rows_read).sum();
    let counts = blocks.iter().map(|block| &block.counts);
    let longest = counts.filter_map(|counts| counts.longest.as_ref());
    let warning = longest.max().map(|(_, problem)| {
        let file = csv.file;
        format!("metadata file {file}: {problem}: close the quote, or double it")
    });
    let rejects = blocks.into_iter().flat_map(|block| block.counts.rejects);
    let mut rejects: Vec<Reject> = rejects.collect();
    // Within a block, rejects of the parser precede rejects of the typer, so restore the file's order.
    rejects.sort_by_key(|reject| reject.line);
    let fraction = settings.reject_fraction;
    refuse_rejects(csv.file, &rejects, rows_read, fraction, csv.is_described)?;
    Ok(ParsedMetadata {
        rows_read,
        rejects,
        warnings: warning.into_iter().collect(),
        ..ParsedMetadata::from_rows(rows)
    })
}

/// Checks that at most `fraction` of a file's rows are rejected. `is_described` as in [`CsvFile`].
///
/// # Errors
/// `Header` for more rejects.
pub(super) fn refuse_rejects(
    file: &str,
    rejects: &[Reject],
    rows_read: u64,
    fraction: f64,
    is_described: bool,
) -> Result<(), CatalogError> {
    let n = rejects.len();
    let Some(Reject { line, detail, .. }) = rejects.first() else {
        return Ok(());
    };
    if n as f64 / rows_read as f64 <= fraction {
        return Ok(());
    }

    let of_encoding = rejects
        .iter()
        .filter(|reject| reject.reason == Reason::BadEncoding);
    let remedy = if of_encoding.count() * 2 > n {
        "convert the file to UTF-8, for example by `iconv -f CP1252 -t UTF-8`"
    } else if is_described {
        "describe the form of the file in catalog.csv of the recipe"
    } else {
        "correct these rows of the file"
    };
    let line = line.unwrap_or_default();
    let problem = format!(
        "{n} of {rows_read} rows are rejected, the first on line {line} ({detail}): {remedy}, or allow the rejects by \
         --max-reject-fraction 1"
    );
    Err(CatalogError::header(file, problem))
}

/// A parsed and typed block of a file.
struct TypedBlock {
    /// Index of the block in the file, from 0.
    number: usize,
    rows: RecordBatch,
    counts: RecordCounts,
}

/// Parses and types blocks on one thread until no block is left.
fn typed_blocks<R: Read>(
    reader: &Mutex<TextReader<R>>,
    form: &TextForm,
    typer: &Typer,
    progress: &Progress,
) -> Result<Vec<TypedBlock>, CatalogError> {
    let mut block = Block::default();
    let mut typed = Vec::new();
    let mut rows_likely = 0;

    // The lock is held only while a block is read from the file, not while the block is parsed.
    while reader
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .next_block(&mut block)?
    {
        stop_here(progress)?;
        let mut text = form.rows(rows_likely);
        let mut counts = RecordCounts::default();
        form.read(&mut block, usize::MAX, &mut text, &mut counts);
        let rows = typer.typed(&text.finish(form)?, &mut counts.rejects)?;

        // The next block probably has about as many rows. An eighth more capacity avoids growing its builders.
        rows_likely = rows.num_rows() + rows.num_rows() / 8;
        typed.push(TypedBlock {
            number: block.number,
            rows,
            counts,
        });
    }
    Ok(typed)
}

/// Reads FMA's `tracks.csv` and, if given, `genres.csv`.
///
/// # Errors
/// The errors of [`csv_file`]; `Header` if there is no column `track_id`.
pub(super) fn fma(
    engine: &Engine,
    tracks: CsvFile<'_, impl Read + Send>,
    genres: Option<CsvFile<'_, impl Read + Send>>,
    settings: CatalogSettings,
) -> Result<ParsedMetadata, CatalogError> {
    let file = tracks.file;
    let mut loaded = csv_file(engine, tracks, fma::kind, settings)?;
    loaded.reject_repeated_ids(file)?;
    loaded.rows = fma::keyed(&loaded.rows)?;

    if let Some(genres) = genres {
        let genres = csv_file(engine, genres, fma::kind, settings)?;
        loaded.warnings.extend(genres.warnings);
        loaded.further_rejects = genres.rejects;
        loaded
            .tables
            .insert("genres".to_owned(), without_line(&genres.rows)?);
    }
    Ok(loaded)
}

/// Reads a CSV file of unknown columns, with one header line. A column is numeric if all of its values are numbers. `form`
/// is that of the recipe, if it describes this file.
pub(super) fn csv_table(
    engine: &Engine,
    file: &str,
    input: impl Read + Send,
    form: Option<CsvSpec>,
    settings: CatalogSettings,
) -> Result<ParsedMetadata, CatalogError> {
    let csv = CsvFile {
        file,
        input,
        header: Header::Line(form.unwrap_or_default()),
        required: None,
        is_described: form.is_some(),
    };
    let mut loaded = csv_file(engine, csv, |_| ColumnKind::Text, settings)?;

    // The type of a column is known only after all rows are read as text, so the rows are typed in a second pass.
    let kinds = types::inferred(&loaded.rows);
    let typer = Typer::new(
        &engine.context,
        file,
        &loaded.rows.schema(),
        |column| kinds.get(column).copied().unwrap_or(ColumnKind::Text),
        None,
    )?;
    loaded.rows = typer.typed(&loaded.rows, &mut loaded.rejects)?;
    Ok(loaded)
}

/// Reads a Parquet file. Row numbers take the place of line numbers.
///
/// # Errors
/// `Damaged`, or `Read` if the operating system fails to read the file; `Header` and `Unusable` for its columns; `Header`
/// if its rows take too much memory.
pub(super) fn parquet_table(
    file: &str,
    input: impl ChunkReader + 'static,
) -> Result<ParsedMetadata, CatalogError> {
    // The footer is checked before the Parquet reader allocates memory for what it announces.
    match parquet_footer::check(input.len(), |start, n| input.get_bytes(start, n).ok()) {
        Err(FooterError::Columns(columns)) => refuse_columns(file, Some(columns))?,
        Err(error) => return Err(damaged(file, &error.to_string())),
        Ok(()) => {}
    }
    // Pages have no checksums, and some kinds of damage make the page decoder panic.
    let rows = panics::caught(|| parquet_rows(file, input))
        .unwrap_or_else(|panic| Err(damaged(file, &panic.message)))?;
    numbered(file, &rows)
}

/// Reads a file with a JSON object per line. Row numbers take the place of line numbers.
///
/// # Errors
/// `Damaged` if a line is not an object or has another type in a column than the others, `Read` if the operating system
/// fails to read the file; `Header` and `Unusable` for its columns; `Header` if the file is too large.
pub(super) fn json_table(file: &str, input: impl Read) -> Result<ParsedMetadata, CatalogError> {
    let bytes = inflated(file, input, CONTENT_BYTES_MAX)?;
    let undecodable = |error: ArrowError| damaged(file, &error.to_string());
    let (schema, _) = infer_json_schema(&*bytes, None).map_err(undecodable)?;
    refuse_columns(file, Some(n_leaves(schema.fields())))?;
    if schema.fields().is_empty() {
        let problem = "no line has an object with columns".to_owned();
        return Err(CatalogError::header(file, problem));
    }

    let schema = Arc::new(schema);
    // A column with numbers and texts has texts.
    let reader = ReaderBuilder::new(Arc::clone(&schema)).with_coerce_primitive(true);
    let reader = reader.build(&*bytes).map_err(undecodable)?;
    let batches = reader.map(|batch| batch.map_err(undecodable));
    numbered(file, &all_rows(file, &schema, batches, CONTENT_BYTES_MAX)?)
}

/// Counts columns with those inside of objects, which take memory as well.
fn n_leaves(fields: &Fields) -> usize {
    let counts = fields.iter().map(|field| match field.data_type() {
        DataType::Struct(inner) => n_leaves(inner).max(1),
        DataType::List(item) => n_leaves(&Fields::from(vec![Arc::clone(item)])),
        _ => 1,
    });
    counts.sum()
}

/// Adds the numbers of the rows as the first column.
fn numbered(file: &str, rows: &RecordBatch) -> Result<ParsedMetadata, CatalogError> {
    for field in rows.schema().fields() {
        refuse_own(file, field.name())?;
    }
    if let Some(name) = repeated_column(&rows.schema()) {
        return Err(CatalogError::header(file, format!("two columns `{name}`")));
    }
    let numbers: Int64Array = (1..).take(rows.num_rows()).map(Some).collect();
    let rows = with_first_column(LINE, Arc::new(numbers), rows)?;
    Ok(ParsedMetadata::from_rows(rows))
}

/// Format of a table, by the extension of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableFormat {
    /// Text with a header and delimiters: every extension that is not one of the others.
    Csv,
    Parquet,
    /// One JSON object per line.
    Json,
}

impl TableFormat {
    pub(super) fn of(file: &str) -> Self {
        let has = |extensions: &[&str]| extensions.iter().any(|end| file.ends_with(end));
        if has(&[".parquet"]) {
            Self::Parquet
        } else if has(&[".json", ".jsonl", ".ndjson"]) {
            Self::Json
        } else {
            Self::Csv
        }
    }
}

/// Reads all rows of a Parquet file.
fn parquet_rows(
    file: &str,
    input: impl ChunkReader + 'static,
) -> Result<RecordBatch, CatalogError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(input)
        .map_err(|source| unreadable(file, source))?;
    // The number in the footer includes lists and structs; this check only counts leaf columns.
    refuse_columns(file, Some(builder.parquet_schema().num_columns()))?;

    let schema = builder.schema().clone();
    let reader = builder.build().map_err(|source| unreadable(file, source))?;
    let batches = reader.map(|batch| batch.map_err(|source| unreadable(file, source.into())));
    all_rows(file, &schema, batches, CONTENT_BYTES_MAX)
}

/// Returns all rows of a file, with texts as views. Its batches may be many times as large as the file: a value may be
/// stored once for all rows.
///
/// # Errors
/// `Header` if the batches take more than `bytes_max` bytes of memory; the errors of the batches.
pub(super) fn all_rows(
    file: &str,
    schema: &SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch, CatalogError>>,
    bytes_max: u64,
) -> Result<RecordBatch, CatalogError> {
    let mut rows = Vec::new();
    let mut counted = HashSet::new();
    let mut bytes = 0;
    for batch in batches {
        let batch = batch?;
        // Each row gets a number, also if the file has no columns.
        bytes += (size_of::<RecordBatch>() + size_of::<i64>() * batch.num_rows()) as u64;
        for column in batch.columns() {
            bytes += uncounted_bytes(&column.to_data(), &mut counted);
        }
        if bytes > bytes_max {
            return Err(too_large(file, "its rows in memory have", bytes_max));
        }
        // Before they are joined: the joined texts may have more bytes than the offsets of other texts can count.
        rows.push(text_views(&batch)?);
    }
    let schema = text_views(&RecordBatch::new_empty(Arc::clone(schema)))?.schema();
    Ok(concat_batches(&schema, &rows)?)
}

/// Returns the size of an array in bytes, and adds its buffers to `counted`. Buffers that are there already are not part of
/// the size: batches share those of dictionaries.
fn uncounted_bytes(array: &ArrayData, counted: &mut HashSet<NonNull<u8>>) -> u64 {
    let nulls = array.nulls().map(NullBuffer::buffer);
    let mut bytes = size_of::<ArrayData>() as u64;
    for buffer in array.buffers().iter().chain(nulls) {
        if counted.insert(buffer.data_ptr()) {
            bytes += buffer.capacity() as u64;
        }
    }
    let children = array.child_data().iter();
    bytes
        + children
            .map(|child| uncounted_bytes(child, counted))
            .sum::<u64>()
}

/// Opens a Parquet file that is not in a zip, so that only the needed parts are read.
///
/// # Errors
/// `Source` if the file cannot be opened.
pub(super) fn opened(path: &Path) -> Result<File, CatalogError> {
    File::open(path).map_err(|source| {
        SourceError::Open {
            path: path.to_owned(),
            source,
        }
        .into()
    })
}

/// Reads a file as a whole: JSON lines, or a Parquet file from a zip, because the footer is at the end of the file.
///
/// # Errors
/// `Damaged`, or `Read` if the operating system fails to read the file; `Header` for more than `bytes_max` bytes.
pub(super) fn inflated(
    file: &str,
    input: impl Read,
    bytes_max: u64,
) -> Result<Bytes, CatalogError> {
    let mut bytes = Vec::new();
    input
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| unreadable(file, source.into()))?;
    if bytes.len() as u64 > bytes_max {
        return Err(too_large(file, "it has", bytes_max));
    }
    Ok(Bytes::from(bytes))
}

fn too_large(file: &str, what: &str, bytes_max: u64) -> CatalogError {
    let problem = format!(
        "{what} more than {bytes_max} bytes: leave out columns and rows that no cleaning step needs, or convert it to CSV"
    );
    CatalogError::header(file, problem)
}

fn unreadable(file: &str, source: ParquetError) -> CatalogError {
    if !is_of_system(&source) {
        return damaged(file, &source.to_string());
    }
    CatalogError::Read {
        file: file.to_owned(),
        source: source.into(),
    }
}

fn damaged(file: &str, problem: &str) -> CatalogError {
    CatalogError::Damaged {
        file: file.to_owned(),
        problem: problem.to_owned(),
    }
}

/// Reports whether the operating system failed to read a file; otherwise the file's bytes are damaged.
fn is_of_system(error: &ParquetError) -> bool {
    match error {
        ParquetError::External(cause) => match cause.downcast_ref::<ArrowError>() {
            // While reading rows, arrow keeps only the text of the cause. The text of an `io::Error` ends with this
            // suffix.
            Some(error) => error.to_string().contains("(os error "),
            None => cause.downcast_ref::<io::Error>().is_some_and(is_of_machine),
        },
        _ => false,
    }
}

impl ParsedMetadata {
    /// Creates the result for rows that were read without rejects, further tables or warnings.
    pub(super) fn from_rows(rows: RecordBatch) -> Self {
        Self {
            rows_read: rows.num_rows() as u64,
            rows,
            rejects: Vec::new(),
            further_rejects: Vec::new(),
            tables: BTreeMap::new(),
            absent: Vec::new(),
            unlisted: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Keeps the first row of each `track_id` and rejects later rows with the same id.
    fn reject_repeated_ids(&mut self, file: &str) -> Result<(), CatalogError> {
        let ids = self
            .rows
            .column_by_name("track_id")
            .map(|ids| ids.as_primitive::<Int64Type>().clone());
        let ids = ids.ok_or_else(|| CatalogError::no_track_id(file, 1))?;

        // Strictly ascending ids, as in FMA's own file, cannot repeat.
        if ids.values().is_sorted_by(|id, next| id < next) {
            return Ok(());
        }

        let lines = self.rows[LINE].as_primitive::<Int64Type>().clone();
        let mut first_lines = HashMap::with_capacity(ids.len());
        let mut keep = vec![true; ids.len()];
        for (row, (&id, &line)) in ids.values().iter().zip(lines.values()).enumerate() {
            // No two records start on the same line, so an equal line means that this row is the first one with its id.
            let first = *first_lines.entry(id).or_insert(line);
            if first == line {
                continue;
            }
            keep[row] = false;
            let detail = format!("{file}: track_id {id} is already on line {first}");
            let mut reject = Reject::new(Stage::Catalog, Reason::BadRow, detail);
            reject.track_id = Some(id);
            reject.line = Some(line.cast_unsigned());
            reject.column = Some("track_id".to_owned());
            self.rejects.push(reject);
        }

        self.rows = filter_record_batch(&self.rows, &BooleanArray::from(keep))?;
        self.rejects.sort_by_key(|reject| reject.line);
        Ok(())
    }
}

/// Returns an error if the job was asked to stop.
///
/// # Errors
/// `Stopped` if the job was asked to stop.
pub(super) fn stop_here(progress: &Progress) -> Result<(), CatalogError> {
    if progress.is_stopped() {
        Err(CatalogError::Stopped)
    } else {
        Ok(())
    }
}

/// Returns `rows` without the column [`LINE`].
pub(super) fn without_line(rows: &RecordBatch) -> Result<RecordBatch, CatalogError> {
    let mut rows = rows.clone();
    if let Ok(index) = rows.schema().index_of(LINE) {
        rows.remove_column(index);
    }
    Ok(rows)
}
