//! Columns of the row files: the key of each row and several columns per target, with types that all Parquet readers
//! support.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float32Array, Int32Array, Int32Builder, Int64Array, ListArray, ListBuilder,
    RecordBatch, StringArray, StringBuilder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::Serialize;
use wavemill_evaluation::report::ROWS_FORMAT;
use wavemill_schemas::tables::list_of;
use wavemill_scores::metrics::{Leaks, THRESHOLD, likeliest};

use super::RowsFileError;
use super::rank_rows::RankRows;
use crate::dataset::{Dataset, Side, Target};

/// Metadata of a row file, stored in the file as JSON. Contains no times and no paths.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RowFileMetadata {
    format: u32,
    /// Name of the run's folder.
    pub run: String,
    /// Training step of the checkpoint.
    pub step: u64,
    pub model: String,
    side: &'static str,
    /// Rule by which rows are assigned to splits.
    split_rule: &'static str,
    feature: String,
    feature_id: String,
    /// Hash of the store's manifest.
    manifest: String,
    targets: Vec<TargetMetadata>,
    /// Number of tracks, artists and recordings that the split shares with the run's training tracks, if the run was
    /// trained on another version.
    #[serde(skip_serializing_if = "Option::is_none")]
    leaks: Option<Leaks>,
    /// Settings of the map of the vectors; only in map files.
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<MapMetadata>,
}

/// Settings with which a map of vectors was computed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MapMetadata {
    pub method: &'static str,
    /// Effective perplexity of the map; 0 if there were too few rows, so that positions were drawn at random.
    pub perplexity: f64,
    pub seed: u64,
    pub steps: usize,
    /// Number of rows of the split, from which the rows of the map were drawn.
    pub rows_of_side: usize,
}

#[derive(Clone, Debug, Serialize)]
struct TargetMetadata {
    name: String,
    /// Class names in id order. Probabilities and logits are in the same order.
    classes: Vec<String>,
    /// `single` for one class per row, `multi` for any number.
    labels: &'static str,
}

impl RowFileMetadata {
    /// Creates the metadata for the outputs of model `model` on the split `side` of `data`, from the run's checkpoint
    /// at `step`. `leaks` is given if the run was trained on another version.
    pub(crate) fn new(
        run: String,
        step: u64,
        model: &str,
        side: Side,
        data: &Dataset,
        leaks: Option<&Leaks>,
    ) -> Self {
        let mut targets = Vec::new();
        for target in data.targets() {
            targets.push(TargetMetadata {
                name: target.name().to_owned(),
                classes: target.classes().to_vec(),
                labels: if target.is_multi() { "multi" } else { "single" },
            });
        }

        Self {
            format: ROWS_FORMAT,
            run,
            step,
            model: model.to_owned(),
            side: side.name(),
            split_rule: data.split_rule().name(),
            feature: data.feature().name.clone(),
            feature_id: data.feature().feature_id.clone(),
            manifest: data.store().manifest_hash().to_owned(),
            targets,
            leaks: leaks.cloned(),
            map: None,
        }
    }

    /// Returns a copy of the metadata with the settings of a map.
    pub(crate) fn with_map(&self, map: MapMetadata) -> Self {
        Self {
            map: Some(map),
            ..self.clone()
        }
    }

    /// Returns the metadata as JSON.
    pub(crate) fn json(&self) -> String {
        // Serializing strings and numbers cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The columns of a row file.
#[derive(Debug)]
pub(crate) struct Layout {
    schema: SchemaRef,
    side: &'static str,
    content: Content,
}

/// Content of a row file: the columns that follow the row's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Predictions,
    Embeddings,
    Map,
}

impl Layout {
    /// Columns of predictions: row key, then for each target its true classes, predicted classes, probabilities and
    /// logits.
    pub(crate) fn predictions(data: &Dataset, about: &RowFileMetadata) -> Self {
        let mut fields = key_fields();
        for target in data.targets() {
            fields.extend(class_fields(target));
            fields.push(per_class_field(target, "probabilities"));
            fields.push(per_class_field(target, "logits"));
        }
        Self::new(fields, about, Content::Predictions)
    }

    /// Columns of embeddings: row key, then the true class of each target, then the vector.
    pub(crate) fn embeddings(data: &Dataset, about: &RowFileMetadata) -> Self {
        let mut fields = key_fields();
        fields.extend(
            data.targets()
                .iter()
                .map(|target| truth_fields(target)[1].clone()),
        );
        fields.push(Field::new("embedding", list_of(DataType::Float32), false));
        Self::new(fields, about, Content::Embeddings)
    }

    /// Columns of a map: row key, then true and predicted classes of each target, then the position on the map.
    pub(crate) fn map(data: &Dataset, about: &RowFileMetadata) -> Self {
        let mut fields = key_fields();
        for target in data.targets() {
            fields.extend(class_fields(target));
        }
        fields.push(Field::new("x", DataType::Float32, true));
        fields.push(Field::new("y", DataType::Float32, true));
        Self::new(fields, about, Content::Map)
    }

    fn new(fields: Vec<Field>, about: &RowFileMetadata, content: Content) -> Self {
        Self {
            schema: Arc::new(Schema::new(fields)),
            side: about.side,
            content,
        }
    }

    /// Returns the Arrow schema of the file.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Converts the rows of `part` to an Arrow record batch. `part` must have at least one row.
    pub(crate) fn batch(
        &self,
        data: &Dataset,
        part: &RankRows,
    ) -> Result<RecordBatch, RowsFileError> {
        let mut columns = self.keys(data, part);
        for (target, [probabilities, logits]) in data.targets().iter().zip(&part.targets) {
            let truth = truths(data, target, &part.rows);
            if self.content == Content::Embeddings {
                let [_, names] = truth;
                columns.push(names);
                continue;
            }
            // Columns are in the order of `class_fields`, which created the schema.
            columns.extend(truth);
            columns.extend(predicted(target, probabilities));
            if self.content == Content::Predictions {
                columns.push(lists_of(probabilities, target.classes().len()));
                columns.push(lists_of(logits, target.classes().len()));
            }
        }

        match self.content {
            Content::Predictions => {}
            Content::Embeddings => columns.push(lists_of(&part.vectors, part.width())),
            Content::Map => {
                for axis in [0, 1] {
                    let places = part.places.iter();
                    let values = places.map(|place| place.map(|place| place[axis]));
                    columns.push(Arc::new(values.collect::<Float32Array>()));
                }
            }
        }
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }

    fn keys(&self, data: &Dataset, part: &RankRows) -> Vec<ArrayRef> {
        let all = data.rows();
        let rows: Vec<usize> = part.rows.iter().map(|&row| row as usize).collect();
        let clip_keys = rows.iter().map(|&row| &all.clip_keys[row]);
        let segments = rows.iter().map(|&row| all.segments[row]);
        let variants = rows.iter().map(|&row| all.variants[row]);
        let offsets_s = rows.iter().map(|&row| all.offsets_s[row]);
        let track_ids = rows.iter().map(|&row| all.track_ids[row]);
        let artist_ids = rows.iter().map(|&row| all.artist_ids[row]);
        let sides = rows.iter().map(|_| self.side);

        // Columns are in the order of `key_fields`, which created the schema.
        vec![
            Arc::new(StringArray::from_iter_values(clip_keys)),
            Arc::new(Int32Array::from_iter_values(segments)),
            Arc::new(Float32Array::from_iter_values(variants)),
            Arc::new(Float32Array::from_iter_values(offsets_s)),
            Arc::new(Int64Array::from_iter_values(track_ids)),
            Arc::new(artist_ids.collect::<Int64Array>()),
            Arc::new(StringArray::from_iter_values(sides)),
        ]
    }
}

fn key_fields() -> Vec<Field> {
    vec![
        Field::new("clip_key", DataType::Utf8, false),
        Field::new("segment", DataType::Int32, false),
        Field::new("variant", DataType::Float32, false),
        Field::new("offset_s", DataType::Float32, false),
        Field::new("track_id", DataType::Int64, false),
        Field::new("artist_id", DataType::Int64, true),
        Field::new("split", DataType::Utf8, false),
    ]
}

/// Returns the fields for the true classes of a target: id and name, or lists of both. They are null for unlabelled
/// rows.
fn truth_fields(target: &Target) -> [Field; 2] {
    let name = target.name();
    if target.is_multi() {
        return [
            Field::new(format!("{name}_true_ids"), list_of(DataType::Int32), true),
            Field::new(format!("{name}_true"), list_of(DataType::Utf8), true),
        ];
    }
    [
        Field::new(format!("{name}_true_id"), DataType::Int32, true),
        Field::new(format!("{name}_true"), DataType::Utf8, true),
    ]
}

/// Returns the fields for the true and predicted classes of a target.
fn class_fields(target: &Target) -> Vec<Field> {
    let name = target.name();
    let mut predicted_id = Field::new(format!("{name}_predicted_id"), DataType::Int32, false);
    let mut predicted = Field::new(format!("{name}_predicted"), DataType::Utf8, false);
    if target.is_multi() {
        predicted_id = Field::new(
            format!("{name}_predicted_ids"),
            list_of(DataType::Int32),
            false,
        );
        predicted = predicted.with_data_type(list_of(DataType::Utf8));
    }

    let mut fields = truth_fields(target).to_vec();
    fields.push(predicted_id);
    fields.push(predicted);
    fields
}

/// Returns a field whose values are lists with one number per class. The field's metadata has the class names in the
/// same order.
fn per_class_field(target: &Target, suffix: &str) -> Field {
    let classes = serde_json::to_string(target.classes()).unwrap_or_default();
    let name = format!("{}_{suffix}", target.name());
    Field::new(name, list_of(DataType::Float32), false)
        .with_metadata(HashMap::from([("classes".to_owned(), classes)]))
}

/// Returns the true classes of `rows`, as columns with the fields of [`truth_fields`].
fn truths(data: &Dataset, target: &Target, rows: &[u32]) -> [ArrayRef; 2] {
    let mut labels: Vec<Vec<i32>> = Vec::with_capacity(rows.len());
    for &row in rows {
        let classes = target.labels(data.rows(), row);
        labels.push(classes.map(|class| class as i32).collect());
    }

    if target.is_multi() {
        let mut lists = Vec::with_capacity(rows.len());
        for mut classes in labels {
            // Class ids in ascending order, as in the columns of predicted classes, and without repetitions.
            classes.sort_unstable();
            classes.dedup();
            lists.push((!classes.is_empty()).then_some(classes));
        }
        return class_lists(target, lists);
    }

    let ids: Int32Array = labels
        .iter()
        .map(|classes| classes.first().copied())
        .collect();
    let names: StringArray = ids.iter().map(|id| Some(name_of(target, id?))).collect();
    [Arc::new(ids), Arc::new(names)]
}

/// Returns the most likely class of each row or, for a multi-label target, all classes with a probability of at least
/// [`THRESHOLD`].
fn predicted(target: &Target, probabilities: &[f32]) -> [ArrayRef; 2] {
    // `max` avoids chunks of length 0, which would panic.
    let rows = probabilities.chunks_exact(target.classes().len().max(1));
    if target.is_multi() {
        let mut lists = Vec::new();
        for row in rows {
            let above = (0..).zip(row).filter(|(_, p)| **p >= THRESHOLD);
            lists.push(Some(above.map(|(class, _)| class).collect()));
        }
        return class_lists(target, lists);
    }

    let ids = Int32Array::from_iter_values(rows.map(|row| likeliest(row) as i32));
    let names = StringArray::from_iter_values(ids.values().iter().map(|&id| name_of(target, id)));
    [Arc::new(ids), Arc::new(names)]
}

fn name_of(target: &Target, class: i32) -> &str {
    usize::try_from(class)
        .ok()
        .and_then(|class| target.classes().get(class))
        .map_or("", String::as_str)
}

/// Returns a column with lists of class ids and a column with lists of their names.
fn class_lists(target: &Target, rows: Vec<Option<Vec<i32>>>) -> [ArrayRef; 2] {
    let mut ids = ListBuilder::new(Int32Builder::new()).with_field(Field::new(
        "item",
        DataType::Int32,
        false,
    ));
    let mut names = ListBuilder::new(StringBuilder::new()).with_field(Field::new(
        "item",
        DataType::Utf8,
        false,
    ));

    for classes in rows {
        for &class in classes.iter().flatten() {
            ids.values().append_value(class);
            names.values().append_value(name_of(target, class));
        }
        ids.append(classes.is_some());
        names.append(classes.is_some());
    }

    [Arc::new(ids.finish()), Arc::new(names.finish())]
}

/// Returns a column of lists, each with `length` values.
fn lists_of(values: &[f32], length: usize) -> ArrayRef {
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let rows = values.len() / length.max(1);
    let offsets = OffsetBuffer::from_repeated_length(length, rows);
    Arc::new(ListArray::new(
        item,
        offsets,
        Arc::new(Float32Array::from(values.to_vec())),
        None,
    ))
}
