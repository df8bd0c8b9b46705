//! Arrow schemas of the tables that wavemill itself defines. They are documented in docs/store-format.md.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use serde::Serialize;

pub use crate::columns::shape_column;

use crate::columns::{KEY_COLUMNS, MORE_COLUMNS, RowColumn};
use crate::manifest::{FeatureEntry, TargetEntry};
use crate::recipe::{Dtype, Layout};

/// Metadata key that describes the bytes of a tensor column. Present on the field and on the file.
pub const TENSOR_KEY: &str = "wavemill.tensor";

/// Returns the value of [`TENSOR_KEY`] as canonical JSON.
pub fn tensor_metadata(
    feature: &FeatureEntry,
    targets: &[TargetEntry],
) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Tensor<'a> {
        dtype: &'a str,
        shape: &'a [Option<usize>],
        dim_names: &'a [String],
        scale: Option<crate::manifest::Scale>,
        feature_id: &'a str,
        sample_rate_hz: Option<u32>,
        hop_length: Option<usize>,
        preset: &'a str,
        classes: BTreeMap<&'a str, &'a [String]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        columns: Option<&'a [String]>,
    }

    let classes = targets
        .iter()
        .map(|target| (target.name.as_str(), target.classes.as_slice()))
        .collect();
    // The JSON is canonical, because it is part of every file and equal plans must give equal bytes.
    crate::canonical::to_json(&Tensor {
        dtype: &feature.dtype,
        shape: &feature.shape,
        dim_names: &feature.dim_names,
        scale: feature.scale,
        feature_id: &feature.feature_id,
        sample_rate_hz: feature.sample_rate_hz,
        hop_length: feature.hop_length,
        preset: &feature.preset,
        classes,
        columns: feature.columns.as_deref(),
    })
}

/// Returns the schema of a feature's rows: row columns, targets, tensor, and the shape if it varies.
pub fn feature_schema(
    feature: &FeatureEntry,
    targets: &[TargetEntry],
    layout: Layout,
    dtype: Dtype,
) -> Result<SchemaRef, serde_json::Error> {
    let metadata = HashMap::from([(TENSOR_KEY.to_owned(), tensor_metadata(feature, targets)?)]);

    let field = |column: &RowColumn| column.field(feature.is_of_audio());
    // A null in a target's column means that the row is unlabelled.
    let target = |target: &TargetEntry| Field::new(&target.name, DataType::Int32, true);
    let mut fields: Vec<Field> = KEY_COLUMNS.iter().map(field).collect();
    fields.extend(targets.iter().map(target));
    fields.extend(MORE_COLUMNS.iter().map(field));
    let tensor = tensor_type(feature, layout, dtype);
    fields.push(Field::new(&feature.name, tensor, false).with_metadata(metadata.clone()));

    // If shapes vary between rows, the bytes of a tensor do not determine its shape.
    if feature.shape.contains(&None) {
        fields.push(Field::new(
            shape_column(&feature.name),
            list_of(DataType::Int32),
            false,
        ));
    }

    // The metadata is also stored on the file, because some readers show only the metadata of files.
    Ok(Arc::new(Schema::new_with_metadata(fields, metadata)))
}

fn tensor_type(feature: &FeatureEntry, layout: Layout, dtype: Dtype) -> DataType {
    let values = feature
        .shape
        .iter()
        .try_fold(1, |product, dim| dim.map(|n| product * n));

    match (layout, values) {
        // Lists store their lengths, so the type does not contain the number of values.
        (Layout::List, _) => list_of(item_type(dtype)),
        // Arrow stores the size of fixed-size values as i32; recipes with rows of 2 GiB are rejected earlier.
        (Layout::Binary, Some(values)) => {
            DataType::FixedSizeBinary((values * dtype.bytes()) as i32)
        }
        (Layout::Binary, None) => DataType::Binary,
    }
}

/// Returns the type of a tensor's values in a list.
pub const fn item_type(dtype: Dtype) -> DataType {
    match dtype {
        Dtype::F16 => DataType::Float16,
        Dtype::F32 => DataType::Float32,
        Dtype::U8 => DataType::UInt8,
        Dtype::S16 => DataType::Int16,
    }
}

/// Returns a list type with the item name that Parquet readers expect.
pub fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, false)))
}

/// Schema of the `sides` table: the split of every group that was ever assigned, by rule (`artist`, `stratified`).
///
/// Groups are named `track:<clip_key>`, `artist:<id>` or `recording:<audio_blake3>`. Rows are sorted by rule and group.
pub fn sides_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("rule", DataType::Utf8, false),
        Field::new("group", DataType::Utf8, false),
        Field::new("side", DataType::Utf8, false),
    ]))
}

/// Schema of the `inputs` table: the file of every planned clip, sorted by `clip_key`.
///
/// `bytes` is null if there is no file, `content_blake3` (of the whole file) if it could not be read, and `decode_key`
/// (of the bytes used for decoding) if it contains no audio.
pub fn inputs_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("clip_key", DataType::Utf8, false),
        Field::new("bytes", DataType::Int64, true),
        Field::new("content_blake3", DataType::Utf8, true),
        Field::new("decode_key", DataType::Utf8, true),
    ]))
}

/// Schema of the `classes` table: the classes of every target, in the order of their ids.
pub fn classes_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("target", DataType::Utf8, false),
        Field::new("class_id", DataType::Int32, false),
        Field::new("class", DataType::Utf8, false),
    ]))
}

/// Schema of the `audio_files` table: numbers of files below the audio root by outcome (`fate`) and extension. Every
/// file is counted once.
///
/// `bytes` is the total size, and `examples` contains the first paths. If metadata rows have names similar to those of
/// the examples, `near_rows` contains the names in the rows.
pub fn audio_files_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("fate", DataType::Utf8, false),
        Field::new("extension", DataType::Utf8, false),
        Field::new("files", DataType::Int64, false),
        Field::new("bytes", DataType::Int64, false),
        Field::new("examples", list_of(DataType::Utf8), false),
        Field::new("near_rows", list_of(DataType::Utf8), true),
    ]))
}

/// Schema of the `fingerprints` table: the Chromaprint items of every clip with enough audio, sorted by `clip_key`.
pub fn fingerprints_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("clip_key", DataType::Utf8, false),
        Field::new("decode_key", DataType::Utf8, false),
        // Offsets of 64 bits: two million clips of two minutes have more than 2³¹ items.
        Field::new(
            "fingerprint",
            DataType::LargeList(Arc::new(Field::new("item", DataType::UInt32, false))),
            false,
        ),
    ]))
}

/// Schema of the `near_copies` table: both directions of every pair of near copies, sorted by `clip_key` and `other`.
///
/// The recording begins `offset_s` later in `other`. `similarity` is the share of bits of the fingerprints that do not
/// differ lastingly where they overlap. `group_key` is the first clip that pairs lead to.
pub fn near_copies_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("clip_key", DataType::Utf8, false),
        Field::new("other", DataType::Utf8, false),
        Field::new("offset_s", DataType::Float32, false),
        Field::new("similarity", DataType::Float32, false),
        Field::new("group_key", DataType::Utf8, false),
    ]))
}

/// Schema of the `rejects` table.
pub fn rejects_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("clip_key", DataType::Utf8, true),
        Field::new("track_id", DataType::Int64, true),
        Field::new("stage", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("detail", DataType::Utf8, false),
        Field::new("byte_offset", DataType::Int64, true),
        Field::new("line", DataType::Int64, true),
        Field::new("column", DataType::Utf8, true),
        Field::new("decoded_s", DataType::Float32, true),
    ]))
}
