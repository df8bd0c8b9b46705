//! Reads CSV into batches of text columns, with the line number of every record.
//!
//! A record that cannot be read (not UTF-8, too many or too few fields) becomes a [`Reject`] with line and column, and
//! reading continues with the next record. This module does not convert types. An empty field is null.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, Int64Builder, ListBuilder, RecordBatch, StringViewBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use wavemill_schemas::recipe::CsvSpec;
use wavemill_schemas::reject::{Reason, Reject, Stage};
use wavemill_source::is_of_machine;
use wavemill_source::metadata::Files;

use super::CatalogError;
use super::csv_blocks::{BLOCK_BYTES, Block, Blocks, n_lines};
use super::csv_record::Records;

/// Name of the column with the physical line on which a record starts, from 1.
pub(super) const LINE: &str = "csv_line";
/// Name of the column of `tracks_all` with the cleaning step that dropped a row.
pub(super) const DROPPED_BY: &str = "dropped_by";

/// Number of cells per batch; bounds memory for any number of columns (FMA's `features.csv` has 518).
const BATCH_CELLS: usize = 1 << 18;

/// Maximum number of columns of a metadata file. The time for reading, typing and cleaning is linear in it, but a
/// cleaning step that compares all columns (`SELECT DISTINCT *`) takes quadratic time, seconds at this limit. Each
/// column also adds some kilobytes to a Parquet file. FMA's widest file has 519 columns.
pub(super) const COLUMNS_MAX: usize = 10_000;

/// Maximum length of the header. It leaves 1,600 bytes for each of [`COLUMNS_MAX`] names. A file with a longer first
/// line may have no line break anywhere, so it is not read to its end.
const HEADER_BYTES_MAX: usize = 16 << 20;

/// Maximum number of header lines. FMA's files have up to four, the last of which starts with `track_id`.
const HEADER_LINES_MAX: usize = 5;

/// Form of the column names in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// The header is one line of a file of this form.
    Line(CsvSpec),
    /// FMA's levels (group, field, …), of which the last line starts with `track_id`. Names are joined with `_`.
    Levels,
}

/// Name and schema of a CSV file, shared by all blocks of the file.
#[derive(Clone, Debug)]
pub(super) struct TextForm {
    pub file: String,
    schema: SchemaRef,
    /// True if the last column contains lists.
    ragged: bool,
}

/// Number of records read from a CSV file, and the records that were rejected.
#[derive(Debug, Default)]
pub(super) struct RecordCounts {
    /// Number of records read from the file so far, including rejected ones.
    pub rows_read: u64,
    /// Rejects of the file's records so far.
    pub rejects: Vec<Reject>,
    /// Number of lines that quotes joined by mistake to one record, and a description, for the longest such record.
    pub longest: Option<(u64, String)>,
}

impl RecordCounts {
    /// Notes a quote that joined lines by mistake. Returns a description with its `outcome`.
    fn note_joined(&mut self, records: &Records<'_>, outcome: &str) -> String {
        // The first field with line breaks begins on the first line of its record.
        let (line, joined) = (records.line(), n_joined(records));
        let problem = format!("a quote on line {line} joins {joined} lines: {outcome}");
        let this = Some((joined, problem.clone()));
        self.longest = this.max(self.longest.take());
        problem
    }
}

/// Returns the number of lines of a record.
fn n_joined(records: &Records<'_>) -> u64 {
    n_lines(records.raw().1.trim_ascii_end()) + 1
}

/// Notes a record each of whose lines has as many separators as a row. Its text, such as `"Heroes`, probably begins with a
/// quote, and the text that ends with the next one, such as `7"`, is that of another row.
fn note_joined_rows(records: &Records<'_>, counted: &mut RecordCounts) {
    let n_separators = records.fields().len() - 1;
    if n_separators == 0 || !records.is_joined {
        return;
    }

    let raw = records.raw().1.trim_ascii_end();
    let mut lines = raw.split(|&byte| byte == b'\n' || byte == b'\r');
    let is_row = |line: &[u8]| {
        let (mut n_all, mut n_outside, mut is_quoted) = (0, 0, false);
        for &byte in line {
            is_quoted ^= byte == b'"';
            let is_separator = byte == records.delimiter();
            n_all += usize::from(is_separator);
            n_outside += usize::from(is_separator && !is_quoted);
        }
        n_all == n_separators || n_outside == n_separators
    };

    if lines.all(|line| line.is_empty() || is_row(line)) && n_joined(records) > 1 {
        counted.note_joined(records, "each of them could be a row");
    }
}

/// Builder of a batch of text columns.
pub(super) struct TextRows {
    lines: Int64Builder,
    columns: Vec<StringViewBuilder>,
    /// The last column, if it contains lists.
    lists: Option<ListBuilder<StringViewBuilder>>,
    /// Buffer for a field's value without quotes, kept to reuse its memory.
    unquoted: String,
}

impl TextForm {
    /// Returns the schema: [`LINE`], then one text column per column of the file.
    pub(super) const fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Creates an empty batch with capacity for `rows` rows.
    pub(super) fn rows(&self, rows: usize) -> TextRows {
        let n_texts = self.schema.fields().len() - 1 - usize::from(self.ragged);
        let columns = (0..n_texts).map(|_| StringViewBuilder::with_capacity(rows));
        TextRows {
            lines: Int64Builder::with_capacity(rows),
            columns: columns.collect(),
            lists: self.ragged.then(ListBuilder::default),
            unquoted: String::new(),
        }
    }

    /// Moves records from `block` to `rows` until there are `rows_max` rows or the block is empty.
    pub(super) fn read(
        &self,
        block: &mut Block,
        rows_max: usize,
        rows: &mut TextRows,
        counted: &mut RecordCounts,
    ) {
        let wanted = self.schema.fields().len() - 1;
        let mut records = Records::new(block);
        while rows.lines.len() < rows_max && records.advance() {
            counted.rows_read += 1;

            // Validates UTF-8 once per record instead of once per field.
            let (base, raw) = records.raw();
            let found = records.fields().len();
            // A list may have no item, or several.
            let fits = found == wanted || (self.ragged && found + 1 >= wanted);
            let is_sound = fits && !records.is_unbalanced;
            let rejected = match std::str::from_utf8(raw) {
                Ok(text) if is_sound => {
                    rows.push(&records, base, text);
                    note_joined_rows(&records, counted);
                    None
                }
                Ok(_) => Some(self.malformed(&records, counted)),
                // Rare case: a record may be invalid although each of its fields is valid UTF-8, if a quote separates
                // the bytes of a character.
                Err(_) => match self.wrong_encoding(&records) {
                    None if is_sound => {
                        rows.push(&records, base, "");
                        None
                    }
                    None => Some(self.malformed(&records, counted)),
                    reject => reject,
                },
            };
            counted.rejects.extend(rejected);
        }
        block.left = records.left();
    }

    /// Creates the reject for a record with a wrong number of fields or an unbalanced quote.
    fn malformed(&self, records: &Records<'_>, counted: &mut RecordCounts) -> Reject {
        let found = records.fields().len();
        let wanted = self.schema.fields().len() - 1;
        let mut problem = format!("{found} fields where the header has {wanted}");
        if records.is_unbalanced || n_joined(records) > 1 {
            problem = counted.note_joined(records, &format!("{problem}, a reject"));
        }
        let detail = format!("{}: {problem}", self.file);

        let mut reject = Reject::new(Stage::Catalog, Reason::BadRow, detail);
        reject.track_id = self.track_id(records);
        reject.line = Some(records.line());

        // The reject names the first column without a value or, if there are too many fields, the last column.
        reject.column = self.column((found + 1).min(wanted));
        reject
    }

    /// Returns a reject for the first field that is not UTF-8, or `None` if all fields are.
    fn wrong_encoding(&self, records: &Records<'_>) -> Option<Reject> {
        let mut fields = records.fields().iter().enumerate();
        let (field, valid_bytes) = fields.find_map(|(index, &field)| {
            let error = std::str::from_utf8(&records.value(field)).err()?;
            Some((index, error.valid_up_to()))
        })?;

        let detail = format!(
            "{}: not UTF-8 after {valid_bytes} bytes of the field",
            self.file
        );
        let mut reject = Reject::new(Stage::Catalog, Reason::BadEncoding, detail);
        reject.line = Some(records.line());
        reject.column = self.column(field + 1);
        Some(reject)
    }

    fn column(&self, index: usize) -> Option<String> {
        Some(self.schema.fields().get(index)?.name().clone())
    }

    fn track_id(&self, records: &Records<'_>) -> Option<i64> {
        let (index, _) = self.schema.column_with_name("track_id")?;
        // The schema starts with the line column, which the record does not have.
        let value = records.value(*records.fields().get(index - 1)?);
        std::str::from_utf8(&value).ok()?.parse().ok()
    }
}

impl TextRows {
    /// Appends a record that fits the columns. `text` is the record's text, which starts at offset
    /// `base` of its block. Fields outside of `text` are decoded separately.
    fn push(&mut self, records: &Records<'_>, base: usize, text: &str) {
        self.lines.append_value(records.line().cast_signed());
        for (builder, &field) in self.columns.iter_mut().zip(records.fields()) {
            match field.text(base, text, &mut self.unquoted) {
                Some("") => builder.append_null(),
                Some(value) => builder.append_value(value),
                None => match &*String::from_utf8_lossy(&records.value(field)) {
                    "" => builder.append_null(),
                    value => builder.append_value(value),
                },
            }
        }

        let Some(lists) = &mut self.lists else { return };
        let items = &records.fields()[self.columns.len()..];
        let items = items.iter().map(|&field| records.value(field));
        let mut items = items.filter(|item| !item.is_empty()).peekable();
        let has_items = items.peek().is_some();
        for item in items {
            lists.values().append_value(String::from_utf8_lossy(&item));
        }
        lists.append(has_items);
    }

    /// Builds a batch of the appended rows, with the schema of `form`.
    ///
    /// # Errors
    /// `Arrow` if the batch cannot be built.
    pub(super) fn finish(mut self, form: &TextForm) -> Result<RecordBatch, CatalogError> {
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(self.lines.finish())];
        arrays.extend(
            self.columns
                .iter_mut()
                .map(|builder| Arc::new(builder.finish()) as ArrayRef),
        );
        arrays.extend(self.lists.map(|mut lists| Arc::new(lists.finish()) as _));
        Ok(RecordBatch::try_new(form.schema.clone(), arrays)?)
    }
}

/// Reads a CSV file.
pub(super) struct TextReader<R> {
    form: TextForm,
    blocks: Blocks<R>,
    /// The block of the file whose records are being read.
    block: Block,
    /// Number of records, and rejects, of all batches returned by [`TextReader::next_batch`].
    pub counted: RecordCounts,
}

impl<R: Read> TextReader<R> {
    /// Opens a CSV file and reads its header. `file` is the name for messages.
    ///
    /// # Errors
    /// `Read` if reading fails; `Header` if the header is not valid.
    pub(super) fn open(file: &str, input: R, header: Header) -> Result<Self, CatalogError> {
        let csv = match header {
            Header::Line(csv) => csv,
            Header::Levels => CsvSpec::default(),
        };
        let mut blocks = Blocks::new(input, BLOCK_BYTES, csv);
        let mut block = Block::default();
        let is_whole = blocks
            .fill(&mut block, HEADER_BYTES_MAX)
            .map_err(unreadable(file))?;
        // Column names are parsed before the header's length is checked, so that too many columns are reported as such.
        let names = column_names(file, &mut block, header)?;
        if !is_whole {
            let problem = format!(
                "its first line does not end within {HEADER_BYTES_MAX} bytes: is it a CSV file?"
            );
            return Err(CatalogError::header(file, problem));
        }

        let mut fields = vec![Field::new(LINE, DataType::Int64, false)];
        let mut seen = BTreeSet::new();
        for name in &names {
            refuse_own(file, name)?;
            if !seen.insert(name) {
                let problem = format!("two columns are named `{name}`");
                return Err(CatalogError::header(file, problem));
            }
            fields.push(Field::new(name, DataType::Utf8View, true));
        }
        if let Some(last) = fields.last_mut().filter(|_| csv.ragged) {
            let item = Field::new_list_field(DataType::Utf8View, true);
            *last = last.clone().with_data_type(DataType::List(Arc::new(item)));
        }

        let form = TextForm {
            file: file.to_owned(),
            schema: Arc::new(Schema::new(fields)),
            ragged: csv.ragged,
        };
        Ok(Self {
            form,
            blocks,
            block,
            counted: RecordCounts::default(),
        })
    }

    /// Returns the name and schema of the CSV file.
    pub(super) const fn form(&self) -> &TextForm {
        &self.form
    }

    /// Fills `block` with the next block, for threads that parse blocks on their own. Returns false at the end of the
    /// file.
    ///
    /// # Errors
    /// `Read` if reading fails.
    pub(super) fn next_block(&mut self, block: &mut Block) -> Result<bool, CatalogError> {
        // The remainder of the file's first block, after the header, is returned first.
        if !self.block.is_empty() {
            std::mem::swap(block, &mut self.block);
            self.block = Block::default();
            return Ok(true);
        }
        self.blocks
            .next_into(block)
            .map_err(unreadable(&self.form.file))
    }

    /// Returns the next batch of some thousand rows, or `None` at the end of the file. The batches of a file always
    /// have the same sizes.
    ///
    /// # Errors
    /// `Read` if reading fails.
    pub(super) fn next_batch(&mut self) -> Result<Option<RecordBatch>, CatalogError> {
        let n_columns = self.form.schema.fields().len() - 1;
        let rows_max = (BATCH_CELLS / n_columns.max(1)).clamp(256, 8192);
        // Batches end at a number of rows, not at the end of a block, so that a file always gives the same batches.
        let mut rows = self.form.rows(rows_max);
        while rows.lines.len() < rows_max {
            if self.block.is_empty() {
                let is_there = self.blocks.next_into(&mut self.block);
                if !is_there.map_err(unreadable(&self.form.file))? {
                    break;
                }
            }
            self.form
                .read(&mut self.block, rows_max, &mut rows, &mut self.counted);
        }

        if rows.lines.is_empty() {
            Ok(None)
        } else {
            rows.finish(&self.form).map(Some)
        }
    }
}

fn unreadable(file: &str) -> impl Fn(io::Error) -> CatalogError {
    move |source| {
        let file = file.to_owned();
        // Any other error comes from the zip reader and means that the file's bytes are damaged.
        if !is_of_machine(&source) {
            let problem = source.to_string();
            return CatalogError::Damaged { file, problem };
        }
        let source = source.into();
        CatalogError::Read { file, source }
    }
}

/// Returns the column names, and moves the position of `block` to the first record after the header.
fn column_names(
    file: &str,
    block: &mut Block,
    header: Header,
) -> Result<Vec<String>, CatalogError> {
    let mut levels: Vec<Vec<String>> = Vec::new();
    let lines_max = match header {
        Header::Line(_) => 1,
        Header::Levels => HEADER_LINES_MAX,
    };

    let mut records = Records::new(block);
    let mut is_closed = false;
    while levels.len() < lines_max && !is_closed && records.advance() {
        refuse_columns(file, Some(records.fields().len()))?;
        let values = records
            .fields()
            .iter()
            .map(|&field| String::from_utf8(records.value(field).into_owned()));
        let level = values.collect::<Result<Vec<_>, _>>();
        levels.push(level.map_err(|_| CatalogError::header(file, "its header is not UTF-8"))?);
        // FMA's files differ in the number of header levels. The last level starts with `track_id`.
        is_closed = levels
            .last()
            .and_then(|level| level.first())
            .is_some_and(|first| first == "track_id");
    }
    block.left = records.left();

    match (header, levels.as_slice()) {
        (Header::Levels, _) if is_closed => Ok(joined_names(&levels)),
        (Header::Line(_), [only]) => Ok(only
            .iter()
            .enumerate()
            .map(|(i, name)| plain_name(i, name))
            .collect()),
        (Header::Line(_), _) => Err(CatalogError::Unusable(format!(
            "metadata file {file} is empty: its first line must name the columns"
        ))),
        _ => Err(CatalogError::no_track_id(file, HEADER_LINES_MAX)),
    }
}

/// Opens a metadata file, and checks that a text is in an encoding whose ASCII characters are single bytes.
///
/// # Errors
/// `Header` for UTF-16 and UTF-32; `Source` and `Read` if the file cannot be read.
pub(super) fn opened(files: &Files, file: &str) -> Result<Box<dyn Read + Send>, CatalogError> {
    let mut input = files.read(file)?;
    let mut start = Vec::new();
    let first = input.by_ref().take(4).read_to_end(&mut start);
    first.map_err(unreadable(file))?;

    let encoding = match start[..] {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => "UTF-32",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16",
        [0, 1..=0xff, ..] => "UTF-16BE",
        [1..=0xff, 0, ..] => "UTF-16LE",
        _ => return Ok(Box::new(io::Cursor::new(start).chain(input))),
    };
    // Only a file that is read from its own place can be named in a command.
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    let places = files.plain_path(file).map(|path| {
        let converted = path.with_file_name(format!("utf8-{file}"));
        format!(" {} > {}", quoted(path), quoted(&converted))
    });
    let places = places.unwrap_or_default();
    let problem = format!(
        "it is in {encoding}, not in UTF-8: convert it by `iconv -f {encoding} -t UTF-8{places}`"
    );
    Err(CatalogError::header(file, problem))
}

/// Checks that a file has at most [`COLUMNS_MAX`] columns, if their number is known.
///
/// # Errors
/// `Header` for more than [`COLUMNS_MAX`] columns.
pub(super) fn refuse_columns(file: &str, columns: Option<usize>) -> Result<(), CatalogError> {
    match columns {
        Some(columns) if columns > COLUMNS_MAX => {
            let problem = format!(
                "{columns} columns exceed the limit of {COLUMNS_MAX}: remove columns that no cleaning step needs, or move \
                 them to a separate file"
            );
            Err(CatalogError::header(file, problem))
        }
        _ => Ok(()),
    }
}

/// Checks that a column of a file does not have the name of a column that the catalog adds.
///
/// # Errors
/// `Unusable` if the file's column has such a name.
pub(super) fn refuse_own(file: &str, column: &str) -> Result<(), CatalogError> {
    if column == LINE || column == DROPPED_BY {
        return Err(CatalogError::Unusable(format!(
            "metadata file {file}: the column name `{column}` is reserved by wavemill: rename the column in the file"
        )));
    }
    Ok(())
}

/// Joins the levels of each column's name: `album` over `title` becomes `album_title`. The first column is `track_id`.
fn joined_names(levels: &[Vec<String>]) -> Vec<String> {
    let n_columns = levels.iter().map(Vec::len).max().unwrap_or(0);
    let mut names = vec!["track_id".to_owned()];
    for column in 1..n_columns {
        let levels = levels.iter().filter_map(|level| level.get(column));
        let parts: Vec<&str> = levels
            .map(String::as_str)
            .filter(|part| !part.is_empty())
            .collect();
        names.push(plain_name(column, &parts.join("_")));
    }
    names
}

/// Normalizes a column name: `#tracks` becomes `tracks`, and a column without a name is named by its number.
fn plain_name(index: usize, name: &str) -> String {
    let name = name.trim().trim_start_matches('#').trim_start();
    if name.is_empty() {
        format!("column_{}", index + 1)
    } else {
        name.to_owned()
    }
}
