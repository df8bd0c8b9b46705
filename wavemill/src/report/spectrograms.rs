//! Spectrograms of the classes: the mean of a sample of rows of each class, and the row that is closest to the mean. If
//! the archive is given, the audio of that row is included.
//!
//! Rows are stored in hash order, so the first rows of a class are a random sample. Only these rows are read, and each
//! is downsampled immediately, so that neither time nor memory grows with the size of the store.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Int32Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use wavemill_pages::{Axis, Chart, HeatMap, Part, Plot, Section, Sound, Table};
use wavemill_runtime::panics;
use wavemill_schemas::manifest::{FeatureEntry, FileEntry, TargetEntry};
use wavemill_schemas::sides::side_meant;
use wavemill_source::Source;
use wavemill_sql::tensor::{TensorColumn, TensorType};
use wavemill_store::has_footer;

use super::ReportError;
use super::answers::Answers;
use super::excerpts::{Excerpts, RowOrigin};
use super::features::band_name;
use crate::quote::{identifier, literal};

/// Maximum number of rows that are read per class.
const ROWS_OF_CLASS: usize = 16;
/// Maximum number of classes shown. The largest ones are chosen.
const CLASSES_MAX: usize = 16;
/// Maximum number of store files whose small columns are scanned.
const FILES_MAX: usize = 64;
/// Maximum number of columns and bands of a picture, about the resolution at which a screen shows it.
const COLUMNS_MAX: usize = 160;
const BANDS_MAX: usize = 128;
/// Number of rows per record batch while reading.
const BATCH_ROWS: usize = 8;

pub(super) fn section(
    answers: &Answers<'_>,
    archive: Option<&dyn Source>,
) -> Result<Section, ReportError> {
    let manifest = answers.subject.manifest;
    let mut section = Section::new("Spectrograms per class");
    let Some((feature, frames)) = manifest.features.iter().find_map(shown_frames) else {
        return Ok(section);
    };

    let target = manifest.targets.first();
    let classes = largest_classes(target);
    let picked = pick(answers, feature, target, &classes)?;
    let frames = with_audio(answers, feature, frames)?;
    let pictures = read(answers, feature, frames, &picked)?;
    if pictures.is_empty() {
        return Ok(section);
    }

    let audio = &manifest.recipe.audio;
    let mut sounds = archive.map(|archive| Sounds {
        excerpts: Excerpts::new(archive, audio, classes.len()),
        unheard: Table::new("Rows without audio", &["clip", "reason"]),
    });
    let mut means = Vec::new();
    let mut typical = Vec::new();
    for (class, name) in &classes {
        let of_class: Vec<&Picture> = pictures.iter().filter(|p| p.class == *class).collect();
        let Some(first) = of_class.first() else {
            continue;
        };
        let mean = mean_of(&of_class);
        let note = format!("Mean of {} rows of the training side.", of_class.len());
        let mean_map = heat_map(feature, first, mean.clone());
        means.push(chart(name, note, mean_map));

        if let Some(nearest) = nearest_to(&mean, &of_class) {
            let note = track_description(answers, &nearest.origin.clip_key)?;
            let mut map = heat_map(feature, nearest, nearest.values.clone());
            map.sound = sounds
                .as_mut()
                .and_then(|sounds| sounds.of_row(&nearest.origin));
            typical.push(chart(name, note, map));
        }
    }

    section.parts.push(Part::Text(format!(
        "Mean {} over up to {ROWS_OF_CLASS} rows of each class, followed by the row that is closest to that mean. \
         Rows are sampled by hash.",
        feature.name
    )));
    section.parts.push(Part::Charts(means));
    let mut words = "The most typical row of each class.".to_owned();
    if sounds.is_some() {
        words += " The beginning of its audio follows: mono, at the sample rate of the features.";
    }
    section.parts.push(Part::Text(words));
    section.parts.push(Part::Charts(typical));

    let unheard = sounds.map(|sounds| sounds.unheard);
    let unheard = unheard.filter(|table| !table.rows.is_empty());
    section.parts.extend(unheard.map(Part::Table));
    Ok(section)
}

/// Excerpts of the audio of typical rows.
struct Sounds<'a> {
    excerpts: Excerpts<'a>,
    /// Table of typical rows without audio, each with the reason.
    unheard: Table,
}

impl Sounds<'_> {
    fn of_row(&mut self, row: &RowOrigin) -> Option<Sound> {
        match self.excerpts.read(row) {
            Ok(sound) => Some(sound),
            Err(why) => {
                let clip_key = row.clip_key.as_str();
                self.unheard.rows.push(vec![clip_key.into(), why.into()]);
                None
            }
        }
    }
}

/// Memory layout of a feature row with bands and a fixed number of frames.
#[derive(Clone, Copy, Debug)]
struct Frames {
    bands: usize,
    frames: usize,
    /// Number of frames that are shown, from the first one.
    shown: usize,
    /// True if the values of one frame are contiguous, false if the values of one band are.
    is_frame_first: bool,
}

fn shown_frames(feature: &FeatureEntry) -> Option<(&FeatureEntry, Frames)> {
    let &[Some(rows), Some(columns)] = &feature.shape[..] else {
        return None;
    };
    let [first, second] = &feature.dim_names[..] else {
        return None;
    };
    // A feature of one value per frame has no bands to show.
    if rows < 2 || columns < 2 {
        return None;
    }

    let frames = match (first.as_str(), second.as_str()) {
        ("frame", _) => Frames {
            bands: columns,
            frames: rows,
            shown: rows,
            is_frame_first: true,
        },
        (_, "frame") => Frames {
            bands: rows,
            frames: columns,
            shown: columns,
            is_frame_first: false,
        },
        _ => return None,
    };

    Some((feature, frames))
}

/// Returns the ids and names of the classes to show. Without a target, returns a single entry for all rows.
fn largest_classes(target: Option<&TargetEntry>) -> Vec<(Option<usize>, String)> {
    let Some(target) = target else {
        return vec![(None, "all rows".to_owned())];
    };

    let mut sides = target.counts.iter();
    let training = sides.find(|(side, _)| side_meant(side) == Some("training"));
    let mut order: Vec<usize> = (0..target.classes.len()).collect();
    order.sort_by_key(|&class| {
        let clips = training.and_then(|(_, counts)| counts.get(class));
        std::cmp::Reverse(clips.copied())
    });
    order.truncate(CLASSES_MAX);

    let mut classes = Vec::new();
    for class in order {
        classes.push((Some(class), target.classes[class].clone()));
    }
    classes
}

/// Rows to read from one file, by row index, with their class and origin.
type PickedRows = BTreeMap<usize, (Option<usize>, RowOrigin)>;

/// Scans the small columns of files until every class has enough rows.
fn pick<'a>(
    answers: &Answers<'a>,
    feature: &'a FeatureEntry,
    target: Option<&TargetEntry>,
    classes: &[(Option<usize>, String)],
) -> Result<Vec<(&'a FileEntry, PickedRows)>, ReportError> {
    let mut wanted: BTreeMap<Option<usize>, usize> = BTreeMap::new();
    for (class, _) in classes {
        wanted.insert(*class, ROWS_OF_CLASS);
    }

    let mut picked = Vec::new();
    let files = answers.subject.manifest.files_of(&feature.name);
    let training =
        files.filter(|file| file.split.as_deref().and_then(side_meant) == Some("training"));
    for file in training.take(FILES_MAX) {
        let path = answers.subject.store.file(file)?;
        let rows = from_shard(&path, file, || pick_in(&path, target, &mut wanted))?;
        picked.push((file, rows));
        if wanted.values().all(|&left| left == 0) {
            break;
        }
    }
    Ok(picked)
}

fn pick_in(
    path: &Path,
    target: Option<&TargetEntry>,
    wanted: &mut BTreeMap<Option<usize>, usize>,
) -> Result<PickedRows, ParquetError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let mut names = vec!["clip_key", "variant", "offset_s", "audio_blake3"];
    names.extend(target.map(|target| target.name.as_str()));
    let mask = ProjectionMask::columns(reader.parquet_schema(), names);

    let mut picked = PickedRows::new();
    let mut begin = 0;
    for batch in reader.with_projection(mask).build()? {
        let batch = batch?;
        let keys = text_column(&batch, "clip_key")?;
        for (row, key) in keys.into_iter().enumerate() {
            // Skip time-stretched copies, which are not typical of a class.
            if !is_plain(&batch, row) {
                continue;
            }
            let class = target.and_then(|target| class_at(&batch, &target.name, row));
            if target.is_some() && class.is_none() {
                continue;
            }
            if let Some(left) = wanted.get_mut(&class).filter(|left| **left > 0) {
                *left -= 1;
                let origin = origin_at(&batch, row, key);
                picked.insert(begin + row, (class, origin));
            }
        }
        begin += batch.num_rows();
    }
    Ok(picked)
}

fn text_column(batch: &RecordBatch, name: &str) -> Result<Vec<String>, ParquetError> {
    let column = batch.column_by_name(name);
    let texts = column.and_then(|column| column.as_string_opt::<i32>());
    let Some(texts) = texts else {
        return Err(ParquetError::General(format!("column {name} is missing")));
    };
    Ok(texts
        .iter()
        .map(|text| text.unwrap_or_default().to_owned())
        .collect())
}

/// Returns the origin of a row. The columns about audio are null in a version of pictures.
fn origin_at(batch: &RecordBatch, row: usize, clip_key: String) -> RowOrigin {
    let offsets = batch.column_by_name("offset_s");
    let offsets = offsets.and_then(|column| column.as_primitive_opt::<Float32Type>());
    let offsets = offsets.filter(|column| column.is_valid(row));

    let recordings = batch.column_by_name("audio_blake3");
    let recordings = recordings.and_then(|column| column.as_string_opt::<i32>());
    let recordings = recordings.filter(|column| column.is_valid(row));

    RowOrigin {
        clip_key,
        offset_s: offsets.map_or(0.0, |column| f64::from(column.value(row))),
        audio_blake3: recordings.map(|column| column.value(row).to_owned()),
    }
}

fn is_plain(batch: &RecordBatch, row: usize) -> bool {
    let variants = batch.column_by_name("variant");
    let variants = variants.and_then(|column| column.as_primitive_opt::<Float32Type>());
    variants.is_none_or(|variants| variants.value(row) == 1.0)
}

fn class_at(batch: &RecordBatch, target: &str, row: usize) -> Option<usize> {
    let classes = batch
        .column_by_name(target)?
        .as_primitive_opt::<Int32Type>()?;
    if classes.is_null(row) {
        return None;
    }
    usize::try_from(classes.value(row)).ok()
}

/// A feature row, downsampled for display.
#[derive(Clone, Debug)]
struct Picture {
    class: Option<usize>,
    origin: RowOrigin,
    columns: usize,
    /// Values band by band, the lowest band first.
    values: Vec<f32>,
    /// Memory layout of the row before downsampling.
    frames: Frames,
}

/// Returns the part of a row in which some clip has audio: the frames of shorter clips end with silence.
fn with_audio(
    answers: &Answers<'_>,
    feature: &FeatureEntry,
    frames: Frames,
) -> Result<Frames, ReportError> {
    let (Some(hop_length), Some(rate_hz), Some(rows)) = (
        feature.hop_length,
        feature.sample_rate_hz,
        answers.rows_table(),
    ) else {
        return Ok(frames);
    };
    let answer = answers.ask(&format!("SELECT max(duration_s) AS s FROM {rows}"))?;
    let Some(longest_s) = answer.numbers("s")?.first().copied().flatten() else {
        return Ok(frames);
    };
    let n_frames = (longest_s * f64::from(rate_hz) / hop_length as f64).ceil() as usize;
    Ok(Frames {
        shown: frames.frames.min(n_frames.max(1)),
        ..frames
    })
}

fn read(
    answers: &Answers<'_>,
    feature: &FeatureEntry,
    frames: Frames,
    picked: &[(&FileEntry, PickedRows)],
) -> Result<Vec<Picture>, ReportError> {
    let mut pictures = Vec::new();
    for (file, rows) in picked {
        let path = answers.subject.store.file(file)?;
        from_shard(&path, file, || {
            read_file(&path, feature, frames, rows, &mut pictures)
        })?;
    }
    Ok(pictures)
}

fn read_file(
    path: &Path,
    feature: &FeatureEntry,
    frames: Frames,
    rows: &PickedRows,
    pictures: &mut Vec<Picture>,
) -> Result<(), ParquetError> {
    if rows.is_empty() {
        return Ok(());
    }
    // With the offset index, only the Parquet pages that contain the selected rows are read.
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(File::open(path)?, options)?;
    let n_rows = usize::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or(0);
    let place = reader.schema().index_of(&feature.name)?;
    let Some(tensor) = TensorType::from_field(reader.schema().field(place)) else {
        return Err(ParquetError::General("tensor type is missing".to_owned()));
    };

    let mask = ProjectionMask::roots(reader.parquet_schema(), [place]);
    let ranges = rows.keys().map(|&row| row..row + 1);
    let batches = reader
        .with_projection(mask)
        .with_row_selection(RowSelection::from_consecutive_ranges(ranges, n_rows))
        .with_batch_size(BATCH_ROWS)
        .build()?;

    let mut of_rows = rows.values();
    for batch in batches {
        let batch = batch?;
        let Some(column) = TensorColumn::new(batch.column(0)) else {
            return Err(ParquetError::General("column has no tensors".to_owned()));
        };
        for (row, (class, origin)) in (0..batch.num_rows()).zip(of_rows.by_ref()) {
            let mut values = Vec::new();
            column.read(row, &tensor, &mut values);
            if values.len() != frames.bands * frames.frames {
                return Err(ParquetError::General("unexpected row shape".to_owned()));
            }
            let (columns, values) = smaller(&values, frames);
            pictures.push(Picture {
                class: *class,
                origin: origin.clone(),
                columns,
                values,
                frames,
            });
        }
    }
    Ok(())
}

/// Downsamples the shown frames of a row to at most [`BANDS_MAX`] by [`COLUMNS_MAX`] values. Each is the mean of the values in its cell.
fn smaller(values: &[f32], frames: Frames) -> (usize, Vec<f32>) {
    let columns = frames.shown.min(COLUMNS_MAX);
    let bands = frames.bands.min(BANDS_MAX);

    let mut sums = vec![0.0_f32; bands * columns];
    let mut counts = vec![0_u32; bands * columns];

    for band in 0..frames.bands {
        let row = band * bands / frames.bands;
        for frame in 0..frames.shown {
            let at = if frames.is_frame_first {
                frame * frames.bands + band
            } else {
                band * frames.frames + frame
            };
            let place = row * columns + frame * columns / frames.shown;
            sums[place] += values[at];
            counts[place] += 1;
        }
    }

    // A cell's value is the mean of several values of the feature if the feature is larger than the picture.
    for (sum, n) in sums.iter_mut().zip(counts) {
        *sum /= n.max(1) as f32;
    }
    (columns, sums)
}

fn mean_of(pictures: &[&Picture]) -> Vec<f32> {
    let mut mean = vec![0.0_f32; pictures.first().map_or(0, |picture| picture.values.len())];
    for picture in pictures {
        for (sum, value) in mean.iter_mut().zip(&picture.values) {
            *sum += value / pictures.len() as f32;
        }
    }
    mean
}

/// Returns the picture with the smallest squared distance to `mean`.
fn nearest_to<'p>(mean: &[f32], pictures: &[&'p Picture]) -> Option<&'p Picture> {
    let nearest = pictures
        .iter()
        .min_by(|a, b| distance(a, mean).total_cmp(&distance(b, mean)));
    nearest.copied()
}

fn distance(picture: &Picture, mean: &[f32]) -> f32 {
    let pairs = picture.values.iter().zip(mean);
    pairs.map(|(value, mean)| (value - mean).powi(2)).sum()
}

fn chart(title: &str, note: String, map: HeatMap) -> Chart {
    Chart {
        title: title.to_owned(),
        note,
        plot: Plot::HeatMap(map),
    }
}

/// Creates a heat map of `values`, which have the layout of `picture`.
fn heat_map(feature: &FeatureEntry, picture: &Picture, values: Vec<f32>) -> HeatMap {
    let frames = picture.frames;

    let across = match (feature.hop_length, feature.sample_rate_hz) {
        (Some(hop_length), Some(sample_rate_hz)) if frames.shown > 0 && sample_rate_hz > 0 => {
            let span_s = (frames.shown * hop_length) as f64 / f64::from(sample_rate_hz);
            ("time (s)", span_s)
        }
        // Features of pictures have no time axis.
        _ => ("frame", frames.shown as f64),
    };

    HeatMap {
        across: Axis {
            name: across.0.to_owned(),
            from: 0.0,
            to: across.1,
        },
        up: Axis {
            name: band_name(feature),
            from: 0.0,
            to: frames.bands as f64,
        },
        measured: "stored value".to_owned(),
        columns: picture.columns,
        values,
        sound: None,
    }
}

/// Returns the title, artist and key of a clip, separated by dashes. Title and artist are omitted if they are not
/// known.
fn track_description(answers: &Answers<'_>, clip_key: &str) -> Result<String, ReportError> {
    let columns = answers.columns("tracks")?;
    let mut words = Vec::new();
    for name in ["track_title", "artist_name", "title", "artist"] {
        if columns.field_with_name(name).is_err() {
            continue;
        }
        let answer = answers.ask(&format!(
            "SELECT {} AS value FROM tracks WHERE clip_key = {}",
            identifier(name),
            literal(clip_key)
        ))?;
        words.extend(answer.texts("value")?.into_iter().flatten());
    }
    words.push(clip_key.to_owned());
    Ok(words.join(" – "))
}

/// Reads from the shard at `path` with `read`, if its footer is the committed one.
///
/// # Errors
/// [`ReportError::Read`] if the shard is damaged or cannot be read.
fn from_shard<T>(
    path: &Path,
    entry: &FileEntry,
    read: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T, ReportError> {
    let checked = || {
        if !has_footer(path, entry)? {
            let problem = "its footer differs from the committed one";
            return Err(ParquetError::General(problem.to_owned()));
        }
        read()
    };

    // The Parquet reader trusts some numbers in the headers of pages.
    let outcome = panics::caught(checked)
        .unwrap_or_else(|panic| Err(ParquetError::General(panic.to_string())));
    outcome.map_err(|source| ReportError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_picture_has_the_means_of_a_large_one() {
        let frames = Frames {
            bands: 256,
            frames: 320,
            shown: 320,
            is_frame_first: false,
        };
        let values: Vec<f32> = (0..256 * 320).map(|at| (at / 320) as f32).collect();
        let (columns, small) = smaller(&values, frames);
        assert_eq!((columns, small.len()), (160, 128 * 160));
        assert_eq!((small[0], small[159], small[160]), (0.5, 0.5, 2.5));

        let turned = Frames {
            is_frame_first: true,
            ..frames
        };
        let values: Vec<f32> = (0..256 * 320).map(|at| (at % 256) as f32).collect();
        assert_eq!(smaller(&values, turned).1, small);
        let begin = Frames {
            shown: 80,
            ..frames
        };
        let (columns, small) = smaller(&values, begin);
        assert_eq!((columns, small.len()), (80, 128 * 80));

        let tiny = Frames {
            bands: 2,
            frames: 3,
            shown: 3,
            is_frame_first: false,
        };
        let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(smaller(&values, tiny), (3, values.to_vec()));
    }
}
