//! Compares a manifest with the content of its files. A manifest that was edited, or that has a flipped bit, can name
//! the right files and still describe them wrongly.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy};
use parquet::file::page_index::offset_index::PageLocation;
use serde_json::Value;
use wavemill_schemas::manifest::{Counts, FeatureEntry, FileEntry, Manifest, Partial, TargetEntry};
use wavemill_schemas::split::Split;
use wavemill_schemas::tables::{self, TENSOR_KEY};

use crate::plan;
use crate::tensors;
use crate::tensors::stats::{self, Bands};

/// Number of rows that are decoded at a time for the sums. A tensor may have several megabytes.
const SUMMED_BATCH_ROWS: usize = 16;

/// Facts read from one file of a version, to be compared with the manifest's statements about the file.
#[derive(Debug, Default)]
pub(super) struct FileFacts {
    /// Set of the clips in a feature's file.
    clips: BTreeSet<String>,
    /// Number of clips per class for each target, from a feature's file.
    classes: Vec<Vec<u64>>,
    /// Number of rows in `tracks_all` by the step that dropped the rows. Kept rows are counted under the empty string.
    dropped: BTreeMap<String, u64>,
    /// Number of rows in `rejects` by reason.
    reasons: BTreeMap<String, u64>,
    /// Number of planned clips in the table `rejects`.
    clips_rejected: u64,
    /// Sums of each row group. Empty unless the file contains a feature of the training split.
    partials: Vec<Partial>,
}

/// Compares a file with its entry and with the manifest's description of its feature. The file's blake3 has already
/// been verified. The error describes the difference.
pub(super) fn file(
    path: &Path,
    entry: &FileEntry,
    manifest: &Manifest,
) -> Result<FileFacts, String> {
    let opened = File::open(path).map_err(unreadable)?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(opened).map_err(unreadable)?;

    let row_groups: Vec<u64> = reader
        .metadata()
        .row_groups()
        .iter()
        .map(|group| group.num_rows() as u64)
        .collect();
    if row_groups != entry.row_groups || row_groups.iter().sum::<u64>() != entry.rows {
        return Err("its row groups differ from those in the manifest".to_owned());
    }

    pages(path)?;
    // Other readers take the split from the folder (hive partitions), so a file in the wrong folder would change its
    // split.
    place(entry, manifest)?;
    if let Some(feature) = &entry.feature {
        let column = reader.schema().field_with_name(feature).ok();
        tensor(column.map(|column| column.metadata()), feature, manifest)?;
    }

    let mut facts = FileFacts {
        classes: no_clips(&manifest.targets),
        ..FileFacts::default()
    };
    if let Some(feature) = summed_feature(entry, manifest) {
        facts.partials = partials(path, feature, row_groups.len()).map_err(unreadable)?;
    }

    let wanted = counted_columns(entry, manifest);
    let mask = ProjectionMask::columns(reader.parquet_schema(), wanted.iter().map(String::as_str));
    // The current clip is kept across batches because the rows of one clip may be in two batches.
    let mut last_clip = None;
    let batches = reader.with_projection(mask).build().map_err(unreadable)?;
    for batch in batches {
        let batch = batch.map_err(unreadable)?;
        if entry.feature.is_some() {
            facts.add_clips(&batch, &manifest.targets, &mut last_clip)?;
        } else {
            facts.add_rows(&batch, entry.name())?;
        }
    }
    Ok(facts)
}

/// Compares the page locations in the file's offset index with the byte ranges of their column chunks. Parquet readers
/// rely on these locations without checking them.
///
/// # Errors
/// A sentence that describes the fault of the page locations.
pub(super) fn pages(path: &Path) -> Result<(), String> {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let file = File::open(path).map_err(unreadable)?;
    let metadata = ArrowReaderMetadata::load(&file, options).map_err(unreadable)?;
    let metadata = metadata.metadata();
    let Some(index) = metadata.offset_index() else {
        return Ok(());
    };

    for (number, (group, columns)) in metadata.row_groups().iter().zip(index).enumerate() {
        for (chunk, column) in group.columns().iter().zip(columns) {
            if !lie_in_order(chunk, column.page_locations(), group.num_rows()) {
                return Err(format!(
                    "the pages of column {} in row group {number} are not in order within their column chunk",
                    chunk.column_path()
                ));
            }
        }
    }
    Ok(())
}

fn lie_in_order(chunk: &ColumnChunkMetaData, pages: &[PageLocation], n_rows: i64) -> bool {
    let (start, bytes) = (chunk.byte_range().0 as i64, chunk.compressed_size());
    let mut end = start;
    let mut rows_before = -1;
    pages.iter().all(|page| {
        let is_behind = page.offset >= end && page.first_row_index > rows_before;
        rows_before = page.first_row_index;
        end = page
            .offset
            .saturating_add(i64::from(page.compressed_page_size));
        let is_inside = end <= start.saturating_add(bytes) && page.first_row_index < n_rows;
        is_behind && is_inside && page.compressed_page_size > 0
    })
}

/// Returns the feature of a file that contributes to the statistics, that is, of a file of the training split.
fn summed_feature<'m>(entry: &FileEntry, manifest: &'m Manifest) -> Option<&'m FeatureEntry> {
    let name = entry
        .feature
        .as_ref()
        .filter(|_| entry.split.as_deref() == Some(Split::Training.name()))?;
    manifest
        .features
        .iter()
        .find(|feature| feature.name == *name)
}

/// Recomputes the sums of a feature's values per row group, in the order in which the writer added them up.
fn partials(
    path: &Path,
    feature: &FeatureEntry,
    row_groups: usize,
) -> Result<Vec<Partial>, ParquetError> {
    let Some(bands) = Bands::of_feature(feature) else {
        return Ok(Vec::new());
    };
    let columns = tensors::columns(feature);
    let metadata = ArrowReaderMetadata::load(&File::open(path)?, ArrowReaderOptions::default())?;
    let columns = columns.iter().map(String::as_str);
    let mask = ProjectionMask::columns(metadata.parquet_schema(), columns);

    let mut values = Vec::new();
    let mut partials = Vec::with_capacity(row_groups);
    for group in 0..row_groups {
        let file = File::open(path)?;
        let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone())
            .with_projection(mask.clone())
            .with_row_groups(vec![group])
            .with_batch_size(SUMMED_BATCH_ROWS)
            .build()?;
        let mut partial = Partial::default();
        for batch in batches {
            for tensor in tensors::read(&batch?, feature)? {
                stats::add(&mut partial, &tensor, bands, &mut values);
            }
        }
        partials.push(partial);
    }
    Ok(partials)
}

fn unreadable(error: impl std::error::Error) -> String {
    format!("not a readable Parquet file: {error}")
}

/// Checks that a file is in the folder of its plan, feature and split.
fn place(entry: &FileEntry, manifest: &Manifest) -> Result<(), String> {
    let split = entry.split.as_deref().unwrap_or_default();
    let folder = match &entry.feature {
        Some(feature) => plan::split_folder(&manifest.plan_id, feature, split),
        None => format!("data/{}/{}/", manifest.plan_id, entry.name()),
    };
    if entry.path.starts_with(&folder) {
        Ok(())
    } else {
        Err(format!("not in its folder {folder}"))
    }
}

/// Checks that the metadata of a feature's column contains all values that a writer derives from the manifest.
fn tensor(
    metadata: Option<&std::collections::HashMap<String, String>>,
    feature: &str,
    manifest: &Manifest,
) -> Result<(), String> {
    let Some(wanted) = manifest.features.iter().find(|entry| entry.name == feature) else {
        return Err(format!("the manifest has no feature {feature}"));
    };

    let found = metadata
        .and_then(|metadata| metadata.get(TENSOR_KEY))
        .ok_or("its column has no wavemill.tensor")?;
    let wanted =
        tables::tensor_metadata(wanted, &manifest.targets).map_err(|error| error.to_string())?;
    // The parsed values are compared, because writers may format the same JSON in different ways.
    let [found, wanted] =
        [found, &wanted].map(|json| serde_json::from_str::<BTreeMap<String, Value>>(json));
    let (Ok(found), Ok(wanted)) = (found, wanted) else {
        return Err("its wavemill.tensor is not JSON".to_owned());
    };

    // Every value in the manifest must be in the file. The file may contain more.
    let differing: Vec<&str> = wanted
        .iter()
        .filter(|(key, value)| found.get(*key) != Some(value))
        .map(|(key, _)| key.as_str())
        .collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "feature {feature}: its {} not as stated in the manifest",
        format_keys(&differing)
    ))
}

/// Returns the keys followed by a verb: `shape is`, or `shape, dtype are`.
fn format_keys(keys: &[&str]) -> String {
    let verb = if keys.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", keys.join(", "))
}

/// Returns the columns of a file whose rows are counted in the manifest.
fn counted_columns(entry: &FileEntry, manifest: &Manifest) -> Vec<String> {
    if entry.feature.is_some() {
        let targets = manifest.targets.iter().map(|target| target.name.clone());
        return std::iter::once("clip_key".to_owned())
            .chain(targets)
            .collect();
    }

    let names: &[&str] = match entry.name() {
        "tracks_all" => &["dropped_by"],
        "rejects" => &["clip_key", "stage", "reason"],
        _ => &[],
    };
    names.iter().map(|&name| name.to_owned()).collect()
}

fn no_clips(targets: &[TargetEntry]) -> Vec<Vec<u64>> {
    targets
        .iter()
        .map(|target| vec![0; target.classes.len()])
        .collect()
}

impl FileFacts {
    /// Counts the clips of a feature's rows. Rows of one clip are adjacent, so a clip is counted at its first row.
    fn add_clips(
        &mut self,
        batch: &RecordBatch,
        targets: &[TargetEntry],
        last_clip: &mut Option<String>,
    ) -> Result<(), String> {
        let clips = text(batch, "clip_key")?;
        let mut columns = Vec::with_capacity(targets.len());
        for target in targets {
            let column = batch
                .column_by_name(&target.name)
                .and_then(|column| column.as_primitive_opt::<Int32Type>());
            let Some(column) = column else {
                return Err(format!("its column {} contains no class ids", target.name));
            };
            columns.push(column);
        }

        for row in 0..batch.num_rows() {
            let clip = clips.value(row);
            if last_clip.as_deref() == Some(clip) {
                continue;
            }
            *last_clip = Some(clip.to_owned());
            self.clips.insert(clip.to_owned());

            for ((column, counts), target) in columns.iter().zip(&mut self.classes).zip(targets) {
                if column.is_null(row) {
                    continue;
                }
                let id = column.value(row);
                let count = usize::try_from(id).ok().and_then(|id| counts.get_mut(id));
                let Some(count) = count else {
                    return Err(format!(
                        "{} {id} is not a class in the manifest",
                        target.name
                    ));
                };
                *count += 1;
            }
        }
        Ok(())
    }

    /// Counts the rows of a table by the values in its columns, for those tables whose rows the manifest counts.
    fn add_rows(&mut self, batch: &RecordBatch, table: &str) -> Result<(), String> {
        match table {
            "tracks_all" => {
                for step in &text(batch, "dropped_by")? {
                    let step = step.unwrap_or_default().to_owned();
                    *self.dropped.entry(step).or_default() += 1;
                }
            }
            "rejects" => {
                for reason in text(batch, "reason")?.iter().flatten() {
                    *self.reasons.entry(reason.to_owned()).or_default() += 1;
                }

                let stages = text(batch, "stage")?;
                let clips = text(batch, "clip_key")?;
                // Count planned clips only: broken metadata rows have the stage `catalog`, and paths without a key have
                // no clip.
                let planned = clips
                    .iter()
                    .zip(&stages)
                    .filter(|(clip, stage)| clip.is_some() && *stage != Some("catalog"));
                self.clips_rejected += planned.count() as u64;
            }
            _ => {}
        }
        Ok(())
    }
}

fn text(batch: &RecordBatch, column: &str) -> Result<StringArray, String> {
    let found = batch
        .column_by_name(column)
        .ok_or_else(|| format!("no column {column}"))?;
    // The column may be plain text or a string view. The callers only handle plain text.
    let text = cast(found, &DataType::Utf8).map_err(|error| format!("column {column}: {error}"))?;
    Ok(text.as_string::<i32>().clone())
}

/// Compares the counts in a manifest with the facts from all its files, where `facts` is in the manifest's order.
/// Returns one sentence per difference.
pub(super) fn whole(manifest: &Manifest, facts: &[FileFacts]) -> Vec<String> {
    let mut wrong = Differences::default();
    let counts = &manifest.counts;
    sums(counts, &mut wrong);

    // Every feature must have one row per segment.
    for feature in &manifest.features {
        let rows = manifest.files_of(&feature.name).map(|file| file.rows).sum();
        wrong.unless_equal(
            &format!("counts.feature_rows and the rows of {}", feature.name),
            counts.feature_rows,
            rows,
        );
    }
    if let Some(first) = manifest.features.first() {
        shards(manifest, facts, &first.name, &mut wrong);
    }
    for feature in &manifest.features {
        let partials =
            of_feature(manifest, facts, &feature.name).flat_map(|(_, facts)| &facts.partials);
        let (says, is) = (manifest.stats.get(&feature.name), stats::finish(partials));
        // Statistics must be equal to the bit, because writer and check add up values in the same order.
        wrong.unless_equal(
            &format!("stats of {} and its shards", feature.name),
            says,
            is.as_ref(),
        );
    }

    for (file, facts) in manifest.files.iter().zip(facts) {
        match file.table.as_deref() {
            Some("tracks") => wrong.unless_equal(
                "counts.clips_planned and tracks",
                counts.clips_planned,
                file.rows,
            ),
            Some("tracks_all") => dropped(counts, &facts.dropped, &mut wrong),
            Some("rejects") => {
                wrong.unless_equal(
                    "counts.rejects and rejects",
                    &counts.rejects,
                    &facts.reasons,
                );
                wrong.unless_equal(
                    "counts.clips_rejected and rejects",
                    counts.clips_rejected,
                    facts.clips_rejected,
                );
            }
            _ => {}
        }
    }
    wrong.sentences
}

/// Returns the files of one feature, each with the facts read from it.
fn of_feature<'a>(
    manifest: &'a Manifest,
    facts: &'a [FileFacts],
    feature: &'a str,
) -> impl Iterator<Item = (&'a FileEntry, &'a FileFacts)> {
    let files = manifest.files.iter().zip(facts);
    files.filter(move |(file, _)| file.feature.as_deref() == Some(feature))
}

/// Compares the clips and classes in the shards of one feature. The shards of all other features contain the same
/// clips.
fn shards(manifest: &Manifest, facts: &[FileFacts], feature: &str, wrong: &mut Differences) {
    let files: Vec<_> = of_feature(manifest, facts, feature).collect();
    // A set over all files, because under the rule `segment` a clip has rows in several files.
    let clips: BTreeSet<&String> = files.iter().flat_map(|(_, facts)| &facts.clips).collect();

    wrong.unless_equal(
        "counts.clips_written and the clips in the shards",
        manifest.counts.clips_written,
        clips.len() as u64,
    );
    class_counts(&manifest.targets, &files, wrong);
    shard_numbers(manifest, &files, wrong);
}

/// Checks that every clip is in the shard that follows from the manifest's number of shards, and that every split with
/// files has such a number.
fn shard_numbers(manifest: &Manifest, files: &[(&FileEntry, &FileFacts)], wrong: &mut Differences) {
    for (file, facts) in files {
        let split = file.split.as_deref().unwrap_or_default();
        let n_shards = manifest.shards.get(split).copied().unwrap_or(0);
        let number = plan::shard_number_of(&file.path);
        let place = plan::shard_numbers(manifest.recipe.split.seed, n_shards);
        if let Some(clip) = facts.clips.iter().find(|clip| place(clip) != number) {
            wrong.sentences.push(format!(
                "shards.{split} is {n_shards}, so {clip} does not belong in {}",
                file.path
            ));
        }
    }
}

/// Differences between manifest and files that were found so far.
#[derive(Default)]
struct Differences {
    sentences: Vec<String>,
}

impl Differences {
    /// Adds a sentence if the two values differ. `what` names both values of the comparison.
    fn unless_equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, says: T, is: T) {
        if says != is {
            self.sentences
                .push(format!("{what} differ: {says:?} and {is:?}"));
        }
    }
}

/// Checks that rows read = kept + dropped + rejected, and that clips planned = written + rejected.
fn sums(counts: &Counts, wrong: &mut Differences) {
    let dropped: u64 = counts.rows_dropped.iter().map(|step| step.rows).sum();
    let rows = counts.rows_kept + dropped + counts.rows_rejected;
    wrong.unless_equal(
        "counts.rows_read and rows kept, dropped and rejected",
        counts.rows_read,
        rows,
    );
    let clips = counts.clips_written + counts.clips_rejected;
    wrong.unless_equal(
        "counts.clips_planned and clips written and rejected",
        counts.clips_planned,
        clips,
    );
}

/// Compares the number of clips per class, by target and split, with the manifest.
fn class_counts(
    targets: &[TargetEntry],
    files: &[(&FileEntry, &FileFacts)],
    wrong: &mut Differences,
) {
    for (index, target) in targets.iter().enumerate() {
        let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (file, facts) in files {
            let split = file.split.clone().unwrap_or_default();
            // A split has counts even if none of its clips has a class: they are all 0, as in `account`.
            let counts = found
                .entry(split)
                .or_insert_with(|| vec![0; target.classes.len()]);
            for (count, n) in counts.iter_mut().zip(&facts.classes[index]) {
                *count += n;
            }
        }

        wrong.unless_equal(
            &format!(
                "clips by split and class of target {} and the shards",
                target.name
            ),
            &target.counts,
            &found,
        );
    }
}

fn dropped(counts: &Counts, found: &BTreeMap<String, u64>, wrong: &mut Differences) {
    let kept = found.get("").copied().unwrap_or(0);
    wrong.unless_equal("counts.rows_kept and tracks_all", counts.rows_kept, kept);
    for step in &counts.rows_dropped {
        let dropped = found.get(&step.step).copied().unwrap_or(0);
        wrong.unless_equal(
            &format!("rows dropped by {} and tracks_all", step.step),
            step.rows,
            dropped,
        );
    }

    // A step that is not in the manifest may have dropped rows in `tracks_all` as well.
    let steps = counts
        .rows_dropped
        .iter()
        .filter(|step| step.rows > 0)
        .count();
    let named = found.keys().filter(|step| !step.is_empty()).count();
    wrong.unless_equal(
        "the number of steps that dropped rows and tracks_all",
        steps,
        named,
    );
}
