//! Encodes rows as Parquet column chunks on any thread. Equal rows are encoded to equal bytes on every thread.

use std::io::Sink;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, FixedSizeBinaryArray, ListArray, RecordBatch};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::compute::concat;
use arrow::datatypes::{Field, SchemaRef};
use parquet::arrow::arrow_writer::{ArrowWriter, compute_leaves};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use wavemill_reader::layout;
use wavemill_runtime::budget::{BusyGuard, Permit};
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::manifest::{FeatureEntry, Partial, TargetEntry};
use wavemill_schemas::recipe::{Dtype, Layout, ShardSpec};
use wavemill_schemas::row_arrays::{self, Row, int_lists};
use wavemill_schemas::tables;
use wavemill_schemas::tensor_arrays::numbers;

use super::checksums::{ChecksummedChunk, ChecksummedColumn};
use super::rows::FeatureRow;
use crate::StoreError;
use crate::tensors::Tensor;
use crate::tensors::stats::{self, Bands};

/// The format of one feature's files.
pub struct Format {
    /// The feature's entry in the manifest.
    pub feature: FeatureEntry,
    /// Arrow schema of the rows.
    pub schema: SchemaRef,
    /// Parquet properties of every file of the feature.
    pub properties: WriterProperties,
    layout: Layout,
    dtype: Dtype,
    /// A Parquet writer that writes no file; the column writers are created from it.
    model: SerializedFileWriter<Sink>,
}

impl Format {
    /// Creates the format of one feature's files.
    ///
    /// # Errors
    /// [`StoreError::rows`] if the schema cannot be written as Parquet.
    pub fn new(
        feature: FeatureEntry,
        dtype: Dtype,
        targets: &[TargetEntry],
        spec: &ShardSpec,
    ) -> Result<Self, StoreError> {
        let schema = tables::feature_schema(&feature, targets, spec.layout, dtype)?;
        let properties = layout::properties(&feature, dtype, spec, schema.metadata());

        let model = ArrowWriter::try_new(
            std::io::sink(),
            Arc::clone(&schema),
            Some(properties.clone()),
        );
        let (model, _) = model
            .and_then(ArrowWriter::into_serialized_writer)
            .map_err(StoreError::rows(format!(
                "feature {}: cannot encode its schema",
                feature.name
            )))?;
        Ok(Self {
            feature,
            schema,
            properties,
            layout: spec.layout,
            dtype,
            model,
        })
    }

    /// Converts rows to an Arrow batch with the files' schema. `index` is the feature's index among the rows' tensors.
    ///
    /// # Errors
    /// [`StoreError::rows`] if the rows do not fit the schema.
    pub fn batch(
        &self,
        index: usize,
        mut rows: Vec<FeatureRow>,
        clips: &[ClipRow],
    ) -> Result<RecordBatch, StoreError> {
        let tensors: Vec<Tensor> = rows
            .iter_mut()
            .map(|row| row.tensors[index].take())
            .collect();
        let is_ragged = self.feature.shape.contains(&None);
        let shapes = is_ragged.then(|| shape_list(&tensors));

        let mut columns = scalar_columns(&rows, clips, self.feature.is_of_audio());
        let arrays = tensors.into_iter();
        let arrays: Vec<ArrayRef> = arrays
            .map(|tensor| tensor_array(Buffer::from_vec(tensor.bytes), self))
            .collect();
        let parts: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        columns.push(concat(&parts).map_err(StoreError::rows("metadata table"))?);
        columns.extend(shapes);
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .map_err(StoreError::rows("metadata table"))
    }
}

/// Rows of one row group, to be encoded by a worker.
pub struct RowGroup {
    /// Index of the shard in the plan.
    pub shard: usize,
    /// Number of the row group within the shard, from 0.
    pub number: usize,
    /// Rows of the row group, in file order.
    pub rows: Vec<FeatureRow>,
    /// True for rows of the training split, which are the only rows in the statistics.
    pub training: bool,
    /// Reports to the memory budget that memory will be released when the row group is on disk.
    pub busy: BusyGuard,
}

/// An encoded row group, ready to be appended to the files of its shard.
pub struct EncodedGroup {
    /// Index of the shard in the plan.
    pub shard: usize,
    /// Number of the row group within the shard, from 0.
    pub number: usize,
    /// Number of rows in the row group.
    pub rows: u64,
    /// Encoded columns of each feature, in the recipe's order.
    pub features: Vec<EncodedFeature>,
    /// Memory permits of the group's clips, released when the row group is on disk.
    _permits: Vec<Arc<Permit>>,
    /// Reports to the memory budget that the permits will be released.
    _busy: BusyGuard,
}

/// Columns of a row group for one feature's file.
pub struct EncodedFeature {
    /// Column chunks, one per Parquet leaf column.
    pub chunks: Vec<ChecksummedChunk>,
    /// Sums over the feature's values; empty outside the training split.
    pub partial: Partial,
}

impl RowGroup {
    /// Encodes every feature of the group. `give_back` takes the buffer of each tensor as soon as its page is encoded.
    ///
    /// # Errors
    /// [`StoreError::rows`] if the rows cannot be encoded.
    pub fn encode(
        self,
        formats: &[Format],
        clips: &[ClipRow],
        label: &str,
        give_back: &dyn Fn(Vec<u8>),
    ) -> Result<EncodedGroup, StoreError> {
        let Self {
            shard,
            number,
            mut rows,
            training,
            busy,
        } = self;

        let mut features = Vec::with_capacity(formats.len());
        let mut scratch = Vec::new();
        for (index, format) in formats.iter().enumerate() {
            let tensors: Vec<Tensor> = rows
                .iter_mut()
                .map(|row| row.tensors[index].take())
                .collect();
            let mut partial = Partial::default();
            if training && let Some(bands) = Bands::of_feature(&format.feature) {
                for tensor in &tensors {
                    stats::add(&mut partial, tensor, bands, &mut scratch);
                }
            }

            let chunks = encode_feature(format, number, &rows, tensors, clips, give_back);
            let chunks = chunks.map_err(|source| {
                let name = &format.feature.name;
                StoreError::rows(format!(
                    "feature {name}: cannot encode row group {number} of shard {label}"
                ))(source)
            })?;
            features.push(EncodedFeature { chunks, partial });
        }

        let n_rows = rows.len() as u64;
        // Drops the rows, but holds the memory permits of their clips until the row group is on disk.
        let permits = rows.into_iter().filter_map(|row| row.permit).collect();
        Ok(EncodedGroup {
            shard,
            number,
            rows: n_rows,
            features,
            _permits: permits,
            _busy: busy,
        })
    }
}

impl Tensor {
    fn take(&mut self) -> Self {
        Self {
            bytes: std::mem::take(&mut self.bytes),
            shape: self.shape.clone(),
        }
    }
}

fn encode_feature(
    format: &Format,
    number: usize,
    rows: &[FeatureRow],
    tensors: Vec<Tensor>,
    clips: &[ClipRow],
    give_back: &dyn Fn(Vec<u8>),
) -> Result<Vec<ChecksummedChunk>, ParquetError> {
    let columns = ChecksummedColumn::from_row_group(&format.model, &format.schema, number)?;
    let mut columns = columns.into_iter();
    let mut chunks = Vec::new();
    let is_ragged = format.feature.shape.contains(&None);
    let shapes = is_ragged.then(|| shape_list(&tensors));

    // The columns are in the schema's order: scalars, the tensor, and its shapes where they differ.
    let fields = format.schema.fields();
    let n_scalars = fields.len() - 1 - usize::from(is_ragged);
    let is_of_audio = format.feature.is_of_audio();
    let scalars = fields.iter().zip(scalar_columns(rows, clips, is_of_audio));
    for (field, array) in scalars.take(n_scalars) {
        let mut column = next_column(&mut columns);
        write_array(&mut column, field, &array)?;
        chunks.push(column.close()?);
    }

    // The tensor is written row by row, because a page can end only after a write.
    let mut column = next_column(&mut columns);
    for tensor in tensors {
        let buffer = Buffer::from_vec(tensor.bytes);
        let array = tensor_array(buffer.clone(), format);
        write_array(&mut column, &fields[n_scalars], &array)?;
        // Without the array, nothing else refers to the buffer.
        drop(array);
        if let Ok(bytes) = buffer.into_vec() {
            give_back(bytes);
        }
    }
    chunks.push(column.close()?);

    if let Some(shapes) = shapes {
        let mut column = next_column(&mut columns);
        write_array(&mut column, &fields[n_scalars + 1], &shapes)?;
        chunks.push(column.close()?);
    }
    Ok(chunks)
}

/// Returns the next column of a row group. Every column type used here has one leaf column.
fn next_column(columns: &mut impl Iterator<Item = ChecksummedColumn>) -> ChecksummedColumn {
    columns
        .next()
        .expect("a row group has a column for each leaf")
}

fn write_array(
    column: &mut ChecksummedColumn,
    field: &Field,
    array: &ArrayRef,
) -> Result<(), ParquetError> {
    for leaf in compute_leaves(field, array)? {
        column.write(&leaf)?;
    }
    Ok(())
}

/// Creates the columns before the tensor.
fn scalar_columns(rows: &[FeatureRow], clips: &[ClipRow], is_of_audio: bool) -> Vec<ArrayRef> {
    let rows: Vec<Row<'_>> = rows
        .iter()
        .map(|row| Row {
            clip: &clips[row.clip],
            facts: &row.facts,
        })
        .collect();
    row_arrays::arrays(&rows, is_of_audio)
}

fn shape_list(tensors: &[Tensor]) -> ArrayRef {
    int_lists(
        tensors
            .iter()
            .map(|tensor| tensor.shape.iter().map(|&n| n as i32)),
    )
}

/// Wraps one row's tensor in an Arrow array of one value without copying its bytes.
fn tensor_array(buffer: Buffer, format: &Format) -> ArrayRef {
    let bytes = buffer.len();
    match (format.layout, format.feature.shape.contains(&None)) {
        (Layout::Binary, false) => Arc::new(FixedSizeBinaryArray::new(bytes as i32, buffer, None)),
        (Layout::Binary, true) => Arc::new(BinaryArray::new(
            OffsetBuffer::from_lengths([bytes]),
            buffer,
            None,
        )),
        (Layout::List, _) => list_array(buffer, format.dtype),
    }
}

fn list_array(buffer: Buffer, dtype: Dtype) -> ArrayRef {
    let values = numbers(buffer, dtype);
    let field = Arc::new(Field::new("item", values.data_type().clone(), false));
    Arc::new(ListArray::new(
        field,
        OffsetBuffer::from_lengths([values.len()]),
        values,
        None,
    ))
}
