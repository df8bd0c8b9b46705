//! Feature rows out of an Arrow IPC stream, one after another.
//!
//! The stream ends with a mark. One without it was cut, even where a message happens to end.

use std::io::{Chain, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Int32Type};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use serde::Deserialize;
use wavemill_schemas::manifest::FeatureEntry;
use wavemill_schemas::tables::TENSOR_KEY;

use super::PredictError;
use crate::dataset::value_bytes;

#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The clip's.
    pub clip_key: String,
    /// Part of the clip, from 0.
    pub segment: i32,
    /// Where it begins.
    pub offset_s: f32,
    bytes: Buffer,
}

impl Row {
    /// The tensor as it would be stored.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }
}

/// What a stream must hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpectedFeature<'a> {
    /// The model's feature.
    pub feature: &'a FeatureEntry,
    /// The recipe that makes it, for whoever gave another.
    pub recipe: &'a Path,
}

/// What each message begins with.
const CONTINUATION: [u8; 4] = [0xFF; 4];
/// How a stream ends: a message of no length.
const END: [u8; 8] = [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
/// First bytes of what people give by mistake.
const OTHERS: [(&[u8], &str); 7] = [
    (b"ARROW1", "an Arrow file (the form with random access)"),
    (b"PAR1", "a Parquet file"),
    (b"{", "JSON"),
    (b"\x93NUMPY", "an array of NumPy"),
    (b"ID3", "an MP3 file"),
    (b"RIFF", "a WAV file"),
    (b"fLaC", "a FLAC file"),
];

/// Remembers the last bytes that were read.
#[derive(Debug)]
struct TailReader<R> {
    inner: R,
    bytes: [u8; 8],
}

impl<R: Read> Read for TailReader<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(into)?;
        // Of a long read the last eight bytes are all that counts.
        let fresh = &into[n.saturating_sub(8)..n];
        self.bytes.rotate_left(fresh.len());
        self.bytes[8 - fresh.len()..].copy_from_slice(fresh);
        Ok(n)
    }
}

pub(crate) struct Rows<R: Read> {
    reader: StreamReader<TailReader<Chain<Cursor<Vec<u8>>, R>>>,
    /// Place of the feature's column.
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
    /// Reads the schema.
    ///
    /// # Errors
    /// [`PredictError::NoStream`], [`PredictError::NoTensor`], [`PredictError::OtherFeature`], [`PredictError::Cut`].
    pub(crate) fn open(input: R, wanted: ExpectedFeature<'_>) -> Result<Self, PredictError> {
        Self::open_next(input, wanted)?.ok_or(PredictError::NoStream { found: "empty" })
    }

    /// The same where streams follow one another; `None` at the end of the input. Nothing is read behind a stream's end
    /// mark, so the input then stands at the next one.
    ///
    /// # Errors
    /// As [`Rows::open`], but for an input that is empty.
    pub(crate) fn open_next(
        mut input: R,
        wanted: ExpectedFeature<'_>,
    ) -> Result<Option<Self>, PredictError> {
        // The first bytes tell what was given by mistake, before a parser stumbles over it.
        let mut head = Vec::new();
        input
            .by_ref()
            .take(END.len() as u64)
            .read_to_end(&mut head)
            .map_err(|source| PredictError::Read { source })?;

        if head.is_empty() {
            return Ok(None);
        }
        if !head.starts_with(&CONTINUATION) {
            let known = OTHERS
                .iter()
                .find(|(start, _)| head.starts_with(start))
                .map(|(_, name)| *name);
            return Err(PredictError::NoStream {
                found: known.unwrap_or("something else"),
            });
        }

        let input = TailReader {
            inner: Cursor::new(head).chain(input),
            bytes: [0; 8],
        };
        let reader = StreamReader::try_new(input, None).map_err(|source| cut(source, 0))?;
        let column = feature_column(reader.schema().fields(), wanted)?;
        Ok(Some(Self {
            reader,
            column,
            batch: None,
            next: 0,
            rows: 0,
            ended: false,
        }))
    }

    fn row(&mut self) -> Result<Option<Row>, PredictError> {
        loop {
            if let Some(columns) = &self.batch
                && self.next < columns.tensor.len()
            {
                let row = columns.row(self.next)?;
                self.next += 1;
                self.rows += 1;
                return Ok(Some(row));
            }

            // A batch may have no rows, so the loop looks again after each.
            let Some(batch) = self.reader.next() else {
                // The reader takes a stream that was cut between two messages for a whole one.
                if self.reader.get_ref().bytes == END {
                    return Ok(None);
                }
                let source = ArrowError::IpcError("no mark of its end".to_owned());
                return Err(cut(source, self.rows));
            };
            let batch = batch.map_err(|source| cut(source, self.rows))?;
            self.batch = Some(Columns::of(&batch, self.column)?);
            self.next = 0;
        }
    }
}

impl<R: Read> Iterator for Rows<R> {
    type Item = Result<Row, PredictError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = self.row();
        // After its end, or a fault, the stream is not asked again.
        self.ended = !matches!(row, Ok(Some(_)));
        row.transpose()
    }
}

impl Columns {
    fn of(batch: &RecordBatch, feature: usize) -> Result<Self, PredictError> {
        Ok(Self {
            clip_key: cast_column(batch, "clip_key", &DataType::Utf8)?,
            segment: cast_column(batch, "segment", &DataType::Int32)?,
            offset_s: cast_column(batch, "offset_s", &DataType::Float32)?,
            tensor: Arc::clone(batch.column(feature)),
        })
    }

    fn row(&self, at: usize) -> Result<Row, PredictError> {
        let value = Some(self.tensor.slice(at, 1)).filter(|value| value.is_valid(0));
        let bytes = value
            .as_ref()
            .and_then(value_bytes)
            .ok_or_else(|| PredictError::Column {
                column: "of the feature".to_owned(),
                problem: format!(
                    "no tensor as wavemill stores it in row {at} of a batch, but {}",
                    self.tensor.data_type()
                ),
            })?;
        Ok(Row {
            clip_key: self.clip_key.as_string::<i32>().value(at).to_owned(),
            segment: self.segment.as_primitive::<Int32Type>().value(at),
            offset_s: self.offset_s.as_primitive::<Float32Type>().value(at),
            bytes,
        })
    }
}

/// A column without nulls, as `to`.
fn cast_column(batch: &RecordBatch, name: &str, to: &DataType) -> Result<ArrayRef, PredictError> {
    let Some(column) = batch.column_by_name(name) else {
        return Err(column_error(name, "missing".to_owned()));
    };
    let column = cast(column, to).map_err(|error| column_error(name, error.to_string()))?;
    if column.null_count() > 0 {
        return Err(column_error(name, "a row without a value".to_owned()));
    }
    Ok(column)
}

fn column_error(name: &str, problem: String) -> PredictError {
    PredictError::Column {
        column: name.to_owned(),
        problem,
    }
}

/// The column of the wanted feature, by its identity and not by its name.
fn feature_column(
    fields: &[Arc<Field>],
    wanted: ExpectedFeature<'_>,
) -> Result<usize, PredictError> {
    #[derive(Deserialize)]
    struct Tensor {
        feature_id: String,
    }

    let mut found = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let Some(text) = field.metadata().get(TENSOR_KEY) else {
            continue;
        };
        let tensor: Tensor = serde_json::from_str(text).map_err(|error| PredictError::Column {
            column: field.name().clone(),
            problem: format!("metadata {TENSOR_KEY}: {error}"),
        })?;
        if tensor.feature_id == wanted.feature.feature_id {
            // The same identity means the same numbers, whatever the column is called.
            return Ok(index);
        }
        found.push(identity(field.name(), &tensor.feature_id));
    }

    if found.is_empty() {
        return Err(PredictError::NoTensor);
    }
    Err(PredictError::OtherFeature {
        found: found.join(" and "),
        wanted: identity(&wanted.feature.name, &wanted.feature.feature_id),
        recipe: wanted.recipe.to_owned(),
        feature: wanted.feature.name.clone(),
    })
}

/// Name and the beginning of the identity.
fn identity(name: &str, feature_id: &str) -> String {
    format!("{name} {}", feature_id.chars().take(12).collect::<String>())
}

fn cut(source: ArrowError, rows: u64) -> PredictError {
    let is_short = match &source {
        ArrowError::IoError(_, error) => error.kind() == std::io::ErrorKind::UnexpectedEof,
        ArrowError::IpcError(words) => words.contains("no mark"),
        _ => false,
    };
    PredictError::Cut {
        problem: if is_short { "cut off" } else { "damaged" },
        rows,
        source,
    }
}
