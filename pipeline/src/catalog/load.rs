//! From metadata files to typed rows, one function a kind of data set; rows of folders are in `folders.rs`.
//!
//! Every kind gives rows with [`LINE`] first; what could not be read is among the rejects, never an error.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch, new_empty_array};
use arrow::compute::{concat, concat_batches, filter_record_batch};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::reader::ChunkReader;
use wavemill_schemas::reject::{Reason, Reject, Stage};

use super::csv_blocks::Block;
use super::csv_text::{
    COLUMNS_MAX, Header, LINE, RecordCounts, TextForm, TextReader, refuse_columns, refuse_own,
};
use super::engine::{Engine, text_views};
use super::parallel::{by_column, on_threads};
use super::steps::with_first_column;
use super::types::{self, ColumnKind, Typer};
use super::{CatalogError, fma};
use crate::course::Course;
use crate::panics;
use crate::source::SourceError;

/// What the files held.
pub(super) struct ParsedMetadata {
    /// One row a track, typed, ordered by [`LINE`].
    pub rows: RecordBatch,
    /// Records read, rejected ones among them.
    pub rows_read: u64,
    /// `bad_row` and `bad_encoding` of the main file.
    pub rejects: Vec<Reject>,
    /// The same of the others.
    pub further_rejects: Vec<Reject>,
    /// Further tables, by name.
    pub tables: BTreeMap<String, RecordBatch>,
    /// Keys of a list for which there is no file.
    pub absent: Vec<String>,
    /// Files that a list does not name.
    pub unlisted: Vec<String>,
    /// What a person should know, one sentence each.
    pub warnings: Vec<String>,
}

/// One CSV file, read whole.
pub(super) struct CsvFile<'a, R> {
    /// Name, for messages.
    pub file: &'a str,
    /// Its bytes.
    pub input: R,
    /// Form of its header.
    pub header: Header,
    /// A column in which every row needs a value.
    pub required: Option<&'a str>,
}

/// Reads and types one CSV file, block by block on `threads` threads.
///
/// # Errors
/// `Csv`, `Header`, `HeaderEncoding`, `DuplicateColumn`; a bad row is a reject.
pub(super) fn csv_file<R: Read + Send>(
    engine: &Engine,
    csv: CsvFile<'_, R>,
    kind_of: impl Fn(&str) -> ColumnKind,
    threads: usize,
) -> Result<ParsedMetadata, CatalogError> {
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
        typed_blocks(&reader, &form, &typer, engine.course())
    })?;
    // Which thread typed which block is chance; the file's order is not.
    let mut blocks: Vec<TypedBlock> = by_thread.into_iter().flatten().collect();
    blocks.sort_unstable_by_key(|block| block.number);

    let rows = by_column(threads, typer.schema().clone(), |column| {
        let parts = blocks
            .iter()
            .map(|block| block.rows.column(column).as_ref());
        let parts: Vec<&dyn Array> = parts.collect();
        if parts.is_empty() {
            Ok(new_empty_array(typer.schema().field(column).data_type()))
        } else {
            concat(&parts)
        }
    })?;

    let rows_read = blocks.iter().map(|block| block.counts.rows_read).sum();
    let rejects = blocks.into_iter().flat_map(|block| block.counts.rejects);
    let mut rejects: Vec<Reject> = rejects.collect();
    // A block's rejects of parsing come before its rejects of typing.
    rejects.sort_by_key(|reject| reject.line);
    Ok(ParsedMetadata {
        rows_read,
        rejects,
        ..ParsedMetadata::of(rows)
    })
}

/// A block of a file, parsed and typed.
struct TypedBlock {
    /// From 0, in the file's order.
    number: usize,
    rows: RecordBatch,
    counts: RecordCounts,
}

/// Every block that one thread gets hold of.
fn typed_blocks<R: Read>(
    reader: &Mutex<TextReader<R>>,
    form: &TextForm,
    typer: &Typer,
    course: &Course,
) -> Result<Vec<TypedBlock>, CatalogError> {
    let mut block = Block::default();
    let mut typed = Vec::new();
    let mut rows_likely = 0;

    // The lock is held while a block is cut out of the file, and not while it is parsed.
    while reader
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .next_block(&mut block)?
    {
        stop_here(course)?;
        let mut text = form.rows(rows_likely);
        let mut counts = RecordCounts::default();
        form.read(&mut block, usize::MAX, &mut text, &mut counts);
        let rows = typer.typed(&text.finish(form)?, &mut counts.rejects)?;

        // The next block has about as many rows; an eighth more saves that its builders grow.
        rows_likely = rows.num_rows() + rows.num_rows() / 8;
        typed.push(TypedBlock {
            number: block.number,
            rows,
            counts,
        });
    }
    Ok(typed)
}

/// A metadata file on its way to be read.
pub(super) struct NamedInput<'a, R> {
    /// Its name, for messages.
    pub name: &'a str,
    /// Its bytes.
    pub input: R,
}

/// FMA's `tracks.csv` and, where given, `genres.csv`.
///
/// # Errors
/// As [`csv_file`]; `Column` when there is no `track_id`.
pub(super) fn fma(
    engine: &Engine,
    tracks: NamedInput<'_, impl Read + Send>,
    genres: Option<NamedInput<'_, impl Read + Send>>,
    threads: usize,
) -> Result<ParsedMetadata, CatalogError> {
    let csv = CsvFile {
        file: tracks.name,
        input: tracks.input,
        header: Header::Levels,
        required: Some("track_id"),
    };
    let mut loaded = csv_file(engine, csv, fma::kind, threads)?;
    loaded.reject_repeated_ids(tracks.name)?;
    loaded.rows = fma::keyed(&loaded.rows)?;

    if let Some(genres) = genres {
        let csv = CsvFile {
            file: genres.name,
            input: genres.input,
            header: Header::Line,
            required: None,
        };
        let genres = csv_file(engine, csv, fma::kind, threads)?;
        loaded.further_rejects = genres.rejects;
        loaded
            .tables
            .insert("genres".to_owned(), without_line(&genres.rows)?);
    }
    Ok(loaded)
}

/// A CSV file that nobody has described: one header line, numbers where every value of a column is one.
///
/// # Errors
/// As [`csv_file`].
pub(super) fn csv_table(
    engine: &Engine,
    file: &str,
    input: impl Read + Send,
    threads: usize,
) -> Result<ParsedMetadata, CatalogError> {
    let csv = CsvFile {
        file,
        input,
        header: Header::Line,
        required: None,
    };
    let mut loaded = csv_file(engine, csv, |_| ColumnKind::Text, threads)?;

    // What a column is shows only when all of it was read, so the rows are typed once more.
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

/// A Parquet file; a row's number stands for its line.
///
/// # Errors
/// `Damaged`, or `Parquet` when the system fails to read it; `TooManyColumns`, `OwnColumn`.
pub(super) fn parquet_table(
    file: &str,
    input: impl ChunkReader + 'static,
) -> Result<ParsedMetadata, CatalogError> {
    // Before the reader takes memory for them.
    let announced = announced_columns(&input);
    refuse_columns(
        file,
        announced.filter(|columns| *columns > ANNOUNCED_COLUMNS_MAX),
    )?;
    // Pages have no checksums, and some damage makes their decoder panic.
    let rows = panics::caught(|| parquet_rows(file, input))
        .unwrap_or_else(|panic| Err(damaged(file, &panic.message)))?;
    for field in rows.schema().fields() {
        refuse_own(file, field.name())?;
    }

    let numbers: Int64Array = (1..).take(rows.num_rows()).map(Some).collect();
    let rows = with_first_column(LINE, Arc::new(numbers), &rows)?;
    Ok(ParsedMetadata::of(rows))
}

/// Reads all rows of a Parquet file.
fn parquet_rows(
    file: &str,
    input: impl ChunkReader + 'static,
) -> Result<RecordBatch, CatalogError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(input)
        .map_err(|source| unreadable(file, source))?;
    // Announced were lists and structs, too; these are the columns alone.
    refuse_columns(file, Some(builder.parquet_schema().num_columns()))?;

    let schema = builder.schema().clone();
    let batches = builder
        .build()
        .map_err(|source| unreadable(file, source))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| unreadable(file, source.into()))?;
    Ok(text_views(&concat_batches(&schema, &batches)?)?)
}

/// A Parquet file that lies by itself: only what is wanted of it is read.
///
/// # Errors
/// `Source` when it cannot be opened.
pub(super) fn opened(path: &Path) -> Result<File, CatalogError> {
    File::open(path).map_err(|source| {
        SourceError::Open {
            path: path.to_owned(),
            source,
        }
        .into()
    })
}

/// A Parquet file out of a zip, whole: its directory lies at its end.
///
/// # Errors
/// `Damaged`, or `Parquet` when the system fails to read it.
pub(super) fn inflated(file: &str, mut input: impl Read) -> Result<Bytes, CatalogError> {
    let mut bytes = Vec::new();
    input
        .read_to_end(&mut bytes)
        .map_err(|source| unreadable(file, source.into()))?;
    Ok(Bytes::from(bytes))
}

fn unreadable(file: &str, source: ParquetError) -> CatalogError {
    if !is_of_system(&source) {
        return damaged(file, &source.to_string());
    }
    CatalogError::Parquet {
        file: file.to_owned(),
        source,
    }
}

fn damaged(file: &str, problem: &str) -> CatalogError {
    CatalogError::Damaged {
        file: file.to_owned(),
        problem: problem.to_owned(),
    }
}

/// Reports whether the system failed to read a file, as opposed to damage of its bytes.
fn is_of_system(error: &ParquetError) -> bool {
    match error {
        ParquetError::External(cause) => match cause.downcast_ref::<ArrowError>() {
            // While rows are read, arrow keeps only the text of a cause. `io::Error` ends its own with this.
            Some(error) => error.to_string().contains("(os error "),
            None => cause
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.raw_os_error().is_some()),
        },
        _ => false,
    }
}

/// More parts of a schema than this are too many columns, however deep these are: then the directory, of some hundred
/// bytes a column, is not read.
const ANNOUNCED_COLUMNS_MAX: usize = 16 * COLUMNS_MAX;

/// The number of parts (columns, lists, structs) that the directory of a Parquet file announces for its schema, less the
/// schema itself; `None` where the bytes are not of the form that every writer gives them, which the reader then tells.
///
/// Source: `FileMetaData` of parquet.thrift, compact protocol: field 1 is the version, field 2 the list of the parts.
fn announced_columns(input: &impl ChunkReader) -> Option<usize> {
    // The footer is the directory's length and the magic. A field begins with a byte that says how far its number is
    // from the last one's, and its type. A list of 15 parts and more has its size behind its first byte.
    const FOOTER_BYTES: u64 = 8;
    const I32: u8 = 0x15;
    const LIST: u8 = 0x19;
    const LONG_LIST: u8 = 0xf0;

    let end = input.len().checked_sub(FOOTER_BYTES)?;
    let footer = input.get_bytes(end, FOOTER_BYTES as usize).ok()?;
    let directory_bytes = u32::from_le_bytes(footer.get(..4)?.try_into().ok()?);
    let start = end.checked_sub(u64::from(directory_bytes))?;

    // A version of any length, and the number.
    let head = input
        .get_bytes(start, 16.min(directory_bytes as usize))
        .ok()?;
    let mut bytes = head.iter().copied();
    if bytes.next()? != I32 {
        return None;
    }
    varint(&mut bytes)?;

    if bytes.next()? != LIST {
        return None;
    }

    let parts = match bytes.next()? & LONG_LIST {
        LONG_LIST => varint(&mut bytes)?,
        short => usize::from(short >> 4),
    };
    parts.checked_sub(1)
}

/// Seven bits a byte, the low ones first.
fn varint(bytes: &mut impl Iterator<Item = u8>) -> Option<usize> {
    let mut value = 0;
    // Five bytes hold 32 bits.
    for shift in (0..35).step_by(7) {
        let byte = bytes.next()?;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

impl ParsedMetadata {
    /// Rows that were all read, and nothing else.
    pub(super) fn of(rows: RecordBatch) -> Self {
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

    /// The first row with an id stays, later ones are counted out.
    fn reject_repeated_ids(&mut self, file: &str) -> Result<(), CatalogError> {
        let ids = self
            .rows
            .column_by_name("track_id")
            .map(|ids| ids.as_primitive::<Int64Type>().clone());
        let ids = ids.ok_or_else(|| CatalogError::Header {
            file: file.to_owned(),
            lines: 1,
        })?;

        // As in FMA's own file; then nothing can repeat.
        if ids.values().is_sorted_by(|id, next| id < next) {
            return Ok(());
        }

        let lines = self.rows[LINE].as_primitive::<Int64Type>().clone();
        let mut first_lines = HashMap::with_capacity(ids.len());
        let mut keep = vec![true; ids.len()];
        for (row, (&id, &line)) in ids.values().iter().zip(lines.values()).enumerate() {
            // No two records begin on one line, so the line tells whether this row is the first one itself.
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

/// # Errors
/// `Stopped` where the job was asked to stop.
pub(super) fn stop_here(course: &Course) -> Result<(), CatalogError> {
    if course.is_stopped() {
        Err(CatalogError::Stopped)
    } else {
        Ok(())
    }
}

/// The columns without [`LINE`].
pub(super) fn without_line(rows: &RecordBatch) -> Result<RecordBatch, CatalogError> {
    let mut rows = rows.clone();
    if let Ok(index) = rows.schema().index_of(LINE) {
        rows.remove_column(index);
    }
    Ok(rows)
}
