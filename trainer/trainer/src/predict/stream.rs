//! Reads feature rows from an Arrow IPC stream, one by one.
//!
//! A stream ends with an end marker. A stream without the marker was cut off, even if it ends after a complete message.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::{self, ErrorKind, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Int32Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{read_dictionary, read_record_batch};
use arrow::ipc::{self, root_as_message};
use serde::Deserialize;
use wavemill_schemas::exit::{Kind, PlainError};
use wavemill_schemas::manifest::FeatureEntry;
use wavemill_schemas::tables::TENSOR_KEY;
use wavemill_schemas::tensor_arrays::tensor_bytes;
use wavemill_schemas::text::panic_message;

#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Key of the row's clip.
    pub clip_key: String,
    /// Index of the row's segment in the clip, from 0.
    pub segment: i32,
    /// Start of the row's segment in the clip, in seconds.
    pub offset_s: f32,
    /// Bytes of the row's feature tensor, in the format of a store.
    pub bytes: Buffer,
}

/// The feature that a stream of rows must contain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpectedFeature<'a> {
    /// The feature that the model was trained on.
    pub feature: &'a FeatureEntry,
    /// Path of the recipe that creates the feature, named in the error for a stream with another feature.
    pub recipe: &'a Path,
}

/// First bytes of each message of an Arrow IPC stream.
const CONTINUATION: [u8; 4] = [0xFF; 4];
/// End marker of an Arrow IPC stream: a message of length 0.
const END: [u8; 8] = [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
/// First bytes of files in other formats, which users may pass by mistake.
const OTHERS: [(&[u8], &str); 7] = [
    (b"ARROW1", "an Arrow file (random access format)"),
    (b"PAR1", "a Parquet file"),
    (b"{", "JSON"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"ID3", "an MP3 file"),
    (b"RIFF", "a WAV file"),
    (b"fLaC", "a FLAC file"),
];

pub(crate) struct Rows<R: Read> {
    input: R,
    schema: SchemaRef,
    dictionaries: HashMap<i64, ArrayRef>,
    /// Index of the column that contains the feature.
    column: usize,
    batch: Option<Columns>,
    next: usize,
    rows: u64,
    ended: bool,
}

struct Columns {
    clip_key: ArrayRef,
    segment: ArrayRef,
    offset_s: ArrayRef,
    tensor: ArrayRef,
}

impl<R: Read> Rows<R> {
    /// Opens a stream of feature rows and reads its schema.
    ///
    /// # Errors
    /// The input has another format, contains rows of another feature, or is cut off or damaged.
    pub(crate) fn open(input: R, wanted: ExpectedFeature<'_>) -> Result<Self, PlainError> {
        Self::open_next(input, wanted)?.ok_or_else(|| no_stream("empty"))
    }

    /// Opens the next of several consecutive streams, or returns `None` at the end of the input. No bytes are read
    /// after a stream's end marker, so the next stream can then be opened on the same input.
    ///
    /// # Errors
    /// The errors of [`Rows::open`], except that an empty input is not an error.
    pub(crate) fn open_next(
        mut input: R,
        wanted: ExpectedFeature<'_>,
    ) -> Result<Option<Self>, PlainError> {
        // The first bytes identify another format before the Arrow parser reports a less helpful error.
        let mut head = Vec::new();
        input
            .by_ref()
            .take(END.len() as u64)
            .read_to_end(&mut head)
            .map_err(|error| PlainError::failed("cannot read the stream").caused_by(error))?;

        if head.is_empty() {
            return Ok(None);
        }
        if !head.starts_with(&CONTINUATION) {
            let known = OTHERS
                .iter()
                .find(|(start, _)| head.starts_with(start))
                .map(|(_, name)| *name);
            return Err(no_stream(known.unwrap_or("in an unknown format")));
        }

        let schema = Message::read(&mut head.as_slice().chain(&mut input)).and_then(|message| {
            let message = message.ok_or_else(|| invalid("no schema"))?;
            let schema = message.header()?.header_as_schema();
            let schema = schema.ok_or_else(|| invalid("no schema at its start"))?;
            caught(|| Ok(fb_to_schema(schema)))
        });
        let schema = schema.map_err(|source| cut(source, 0))?;
        let column = feature_column(schema.fields(), wanted)?;
        Ok(Some(Self {
            input,
            schema: Arc::new(schema),
            dictionaries: HashMap::new(),
            column,
            batch: None,
            next: 0,
            rows: 0,
            ended: false,
        }))
    }

    fn row(&mut self) -> Result<Option<Row>, PlainError> {
        loop {
            if let Some(columns) = &self.batch
                && self.next < columns.tensor.len()
            {
                let row = columns.row(self.next)?;
                self.next += 1;
                self.rows += 1;
                return Ok(Some(row));
            }

            // A message may have no rows, so the loop tests each new batch for rows again.
            let Some(batch) = self.batch().map_err(|source| cut(source, self.rows))? else {
                return Ok(None);
            };
            self.batch = Some(Columns::from_batch(&batch, self.column)?);
            self.next = 0;
        }
    }

    /// Returns the rows of the next message with rows, or `None` at the end marker.
    fn batch(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        while let Some(message) = Message::read(&mut self.input)? {
            let header = message.header()?;
            let (body, version) = (&message.body, header.version());
            if let Some(rows) = header.header_as_record_batch() {
                let (schema, known) = (Arc::clone(&self.schema), &self.dictionaries);
                let batch = caught(|| read_record_batch(body, rows, schema, known, None, &version));
                return batch.map(Some);
            }

            let dictionary = header.header_as_dictionary_batch();
            let dictionary = dictionary.ok_or_else(|| invalid("an unknown kind of message"))?;
            let known = &mut self.dictionaries;
            caught(|| read_dictionary(body, dictionary, &self.schema, known, &version))?;
        }
        Ok(None)
    }
}

/// A message of a stream.
struct Message {
    /// A flatbuffer that describes the message.
    metadata: Vec<u8>,
    /// Values of its arrays.
    body: Buffer,
}

impl Message {
    /// Reads the next message, or returns `None` at the end marker.
    ///
    /// Arrow's own reader allocates as much memory as the lengths in the stream state.
    fn read(input: &mut impl Read) -> Result<Option<Self>, ArrowError> {
        let mut head = [0; 8];
        input.read_exact(&mut head)?;
        if head == END {
            return Ok(None);
        }
        let [marker @ .., a, b, c, d] = head;
        if marker != CONTINUATION {
            return Err(invalid("no message where one should begin"));
        }

        let metadata = read_bytes(input, u32::from_le_bytes([a, b, c, d]).into())?;
        let mut message = Self {
            metadata,
            body: Buffer::default(),
        };
        let length = message.header()?.bodyLength();
        let length = u64::try_from(length).map_err(|_| invalid("a message of negative length"))?;
        message.body = read_bytes(input, length)?.into();
        Ok(Some(message))
    }

    fn header(&self) -> Result<ipc::Message<'_>, ArrowError> {
        root_as_message(&self.metadata).map_err(|error| invalid(&error.to_string()))
    }
}

/// Reads exactly `length` bytes. Allocates no more memory than about twice the bytes that exist.
fn read_bytes(input: &mut impl Read, length: u64) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::new();
    input.take(length).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < length {
        return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
    }
    Ok(bytes)
}

impl<R: Read> Iterator for Rows<R> {
    type Item = Result<Row, PlainError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = self.row();
        // After the end of the stream or an error, no more bytes are read from the input.
        self.ended = !matches!(row, Ok(Some(_)));
        row.transpose()
    }
}

impl Columns {
    fn from_batch(batch: &RecordBatch, feature: usize) -> Result<Self, PlainError> {
        Ok(Self {
            clip_key: cast_column(batch, "clip_key", &DataType::Utf8)?,
            segment: cast_column(batch, "segment", &DataType::Int32)?,
            offset_s: cast_column(batch, "offset_s", &DataType::Float32)?,
            tensor: Arc::clone(batch.column(feature)),
        })
    }

    fn row(&self, at: usize) -> Result<Row, PlainError> {
        let value = Some(&self.tensor).filter(|column| column.is_valid(at));
        let bytes = value.and_then(|column| tensor_bytes(column, at));
        let bytes = bytes.ok_or_else(|| {
            let found = self.tensor.data_type();
            let problem =
                format!("row {at} of a batch contains no tensor in wavemill's format, but {found}");
            column_error("of the feature", problem)
        })?;
        Ok(Row {
            clip_key: self.clip_key.as_string::<i32>().value(at).to_owned(),
            segment: self.segment.as_primitive::<Int32Type>().value(at),
            offset_s: self.offset_s.as_primitive::<Float32Type>().value(at),
            bytes,
        })
    }
}

/// Returns the column `name` converted to type `to`, or an error if the column contains nulls.
fn cast_column(batch: &RecordBatch, name: &str, to: &DataType) -> Result<ArrayRef, PlainError> {
    let Some(column) = batch.column_by_name(name) else {
        return Err(column_error(name, "missing"));
    };
    let column = cast(column, to).map_err(|error| column_error(name, error))?;
    if column.null_count() > 0 {
        return Err(column_error(name, "a row without a value"));
    }
    Ok(column)
}

fn invalid(problem: &str) -> ArrowError {
    ArrowError::IpcError(problem.to_owned())
}

/// Runs a step of Arrow's reader, which panics on some damaged messages.
fn caught<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let text = panic_message(panic.as_ref()).unwrap_or("a message that cannot be read");
        Err(invalid(text))
    })
}

fn no_stream(found: &str) -> PlainError {
    PlainError::usage(format!(
        "the input is {found}, not an Arrow IPC stream: use the output of `wavemill features … --format arrow --out -`"
    ))
}

fn column_error(name: &str, problem: impl Display) -> PlainError {
    PlainError::failed(format!("column {name} of the stream: {problem}"))
}

/// Finds the column of the expected feature by `feature_id` instead of by name.
fn feature_column(fields: &[Arc<Field>], wanted: ExpectedFeature<'_>) -> Result<usize, PlainError> {
    #[derive(Deserialize)]
    struct Tensor {
        feature_id: String,
    }

    let mut found = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let Some(text) = field.metadata().get(TENSOR_KEY) else {
            continue;
        };
        let tensor: Tensor = serde_json::from_str(text).map_err(|error| {
            column_error(field.name(), format_args!("metadata {TENSOR_KEY}: {error}"))
        })?;
        if tensor.feature_id == wanted.feature.feature_id {
            // Columns with equal `feature_id` contain the same feature, even if their names differ.
            return Ok(index);
        }
        found.push(identity(field.name(), &tensor.feature_id));
    }

    if found.is_empty() {
        return Err(PlainError::usage(
            "no column of the stream contains a tensor (metadata wavemill.tensor): was it written by `wavemill \
             features`?",
        ));
    }
    let message = format!(
        "the stream contains {}, but the model was trained on {}: use the recipe that it was trained with, `wavemill \
         features … --recipe {} --feature {} --format arrow --out -`",
        found.join(" and "),
        identity(&wanted.feature.name, &wanted.feature.feature_id),
        wanted.recipe.display(),
        wanted.feature.name
    );
    Err(PlainError::new(Kind::OtherPlan, message))
}

/// Formats a feature's name with the first 12 characters of its id.
fn identity(name: &str, feature_id: &str) -> String {
    format!("{name} {}", feature_id.chars().take(12).collect::<String>())
}

/// Creates the error for a stream that is incomplete or damaged after `rows` complete rows.
fn cut(error: ArrowError, rows: u64) -> PlainError {
    let is_short =
        matches!(&error, ArrowError::IoError(_, error) if error.kind() == ErrorKind::UnexpectedEof);
    let problem = if is_short { "cut off" } else { "damaged" };
    PlainError::failed(format!(
        "the stream is {problem} after {rows} rows: did the program that wrote it end early?"
    ))
    .caused_by(error)
}
