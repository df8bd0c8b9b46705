//! Spectrograms of the classes: the mean of a sample of rows of each class, and the row that is closest to the mean. If
//! the archive is given, the audio of that row is included.
//!
//! The rows of a class with the smallest hashes are a random sample. Only the tensors of these rows are read, and each
//! is downsampled immediately, so that memory does not grow with the size of the store.

use std::collections::BTreeMap;

use arrow::error::ArrowError;
use wavemill_pages::{Chart, Grid, HeatMap, Plot, Section, Table};
use wavemill_schemas::manifest::{FeatureEntry, TargetEntry};
use wavemill_schemas::rng::row_key;
use wavemill_schemas::split::Split;
use wavemill_schemas::text::counted;
use wavemill_source::Source;
use wavemill_sql::SqlError;
use wavemill_sql::tensor::{TensorColumn, TensorType};

use super::answers::Answers;
use super::excerpts::{Excerpts, RowOrigin};
use super::splits::in_splits;
use crate::quote::{identifier, literal};

/// Maximum number of rows that are read per class.
const ROWS_OF_CLASS: usize = 16;
/// Maximum number of classes shown. The largest ones are chosen.
const CLASSES_MAX: usize = 16;

pub(super) fn section(
    answers: &Answers<'_>,
    archive: Option<&dyn Source>,
) -> Result<Section, SqlError> {
    let manifest = answers.subject.manifest;
    let mut section = Section::new("Spectrograms per class");
    let Some((feature, frames)) = manifest.features.iter().find_map(shown_frames) else {
        return Ok(section);
    };

    let target = manifest.targets.first();
    let classes = largest_classes(target);
    let picked = pick(answers, target, &classes)?;
    let frames = with_audio(answers, feature, frames)?;
    let pictures = read(answers, feature, frames, picked)?;
    if pictures.is_empty() {
        return Ok(section);
    }

    let audio = &manifest.recipe.audio;
    let mut excerpts = archive.map(|archive| Excerpts::new(archive, audio, classes.len()));
    let mut means = Vec::new();
    let mut typical = Vec::new();
    for (class, name) in &classes {
        let of_class: Vec<&Picture> = pictures.iter().filter(|p| p.class == *class).collect();
        let Some(first) = of_class.first() else {
            continue;
        };
        let mean = mean_of(&of_class);
        let note = format!(
            "Mean of {} of the training split.",
            counted(of_class.len() as u64, "row")
        );
        let map = heat_map(feature, frames, (first.columns, mean.clone()));
        means.push(Chart::new(name, note, Plot::HeatMap(map)));

        if let Some(nearest) = nearest_to(&mean, &of_class) {
            let note = track_description(answers, &nearest.origin.clip_key)?;
            let shown = (nearest.columns, nearest.values.clone());
            let mut map = heat_map(feature, frames, shown);
            let excerpts = excerpts.as_mut();
            map.sound = excerpts.and_then(|excerpts| excerpts.of_row(&nearest.origin));
            typical.push(Chart::new(name, note, Plot::HeatMap(map)));
        }
    }

    section.add_text(format!(
        "Mean {} over up to {ROWS_OF_CLASS} rows of each class, followed by the row that is closest to that mean. \
         Rows are sampled by hash.",
        feature.name
    ));
    section.add_charts(means);
    let mut text = "The most typical row of each class.".to_owned();
    if excerpts.is_some() {
        text += " The beginning of its audio follows: mono, at the sample rate of the features.";
    }
    section.add_text(text);
    section.add_charts(typical);
    section.add_table(Table::of(
        "Rows without audio",
        excerpts.map_or(Vec::new(), |excerpts| excerpts.unheard),
        &[
            ("clip", &|(clip_key, _)| clip_key.as_str().into()),
            ("reason", &|(_, why)| why.as_str().into()),
        ],
    ));
    Ok(section)
}

/// Returns the feature and the layout of its rows if they are spectrograms with a fixed number of frames.
fn shown_frames(feature: &FeatureEntry) -> Option<(&FeatureEntry, Grid)> {
    let &[Some(rows), Some(columns)] = &feature.shape[..] else {
        return None;
    };
    // A feature of one value per frame has no bands to show.
    if !feature.has_frames() || rows < 2 || columns < 2 {
        return None;
    }

    let is_frame_first = feature.dim_names[0] == "frame";
    let (bands, frames) = match is_frame_first {
        true => (columns, rows),
        false => (rows, columns),
    };
    let grid = Grid {
        is_frame_first,
        ..Grid::new(bands, frames)
    };
    Some((feature, grid))
}

/// Returns the ids and names of the classes to show. Without a target, returns a single entry for all rows.
fn largest_classes(target: Option<&TargetEntry>) -> Vec<(Option<usize>, String)> {
    let Some(target) = target else {
        return vec![(None, "all rows".to_owned())];
    };

    let mut splits = target.counts.iter();
    let training = splits.find(|(split, _)| Split::meant(split) == Some(Split::Training));
    let mut order: Vec<usize> = (0..target.classes.len()).collect();
    order.sort_by_key(|&class| {
        let clips = training.and_then(|(_, counts)| counts.get(class));
        std::cmp::Reverse(clips.copied())
    });
    order.truncate(CLASSES_MAX);

    let classes = order.into_iter();
    classes
        .map(|class| (Some(class), target.classes[class].clone()))
        .collect()
}

/// Rows to read, by clip and segment, with their class and origin.
type PickedRows = BTreeMap<(String, u64), (Option<usize>, RowOrigin)>;

/// Picks the rows of each class in the training split that have the smallest hashes.
fn pick(
    answers: &Answers<'_>,
    target: Option<&TargetEntry>,
    classes: &[(Option<usize>, String)],
) -> Result<PickedRows, SqlError> {
    let files = answers.subject.manifest.files.iter();
    let mut training: Vec<&str> = files.filter_map(|file| file.split.as_deref()).collect();
    training.retain(|split| Split::meant(split) == Some(Split::Training));
    training.dedup();
    let Some(table) = answers.rows_table().filter(|_| !training.is_empty()) else {
        return Ok(PickedRows::new());
    };

    let mut by_class: BTreeMap<Option<usize>, BTreeMap<u64, (u64, RowOrigin)>> = BTreeMap::new();
    for (class, _) in classes {
        by_class.insert(*class, BTreeMap::new());
    }
    let class = target.map_or("NULL".to_owned(), |target| identifier(&target.name));
    // Time-stretched copies are not typical of a class.
    let query = format!(
        "SELECT clip_key, segment, offset_s, audio_blake3, {class} AS class FROM {table}
         WHERE variant = 1 AND {}",
        in_splits(&training)
    );
    answers.each(&query, |rows| {
        let segments = rows.counts("segment")?;
        let offsets_s = rows.numbers("offset_s")?;
        let recordings = rows.texts("audio_blake3")?;
        let classes = rows.numbers("class")?;
        for (row, clip_key) in rows.texts("clip_key")?.into_iter().enumerate() {
            let class = classes[row].map(|class| class as usize);
            let Some(picked) = by_class.get_mut(&class) else {
                continue;
            };
            let origin = RowOrigin {
                clip_key: clip_key.unwrap_or_default(),
                // The columns about audio are null in a version of pictures.
                offset_s: offsets_s[row].unwrap_or(0.0),
                audio_blake3: recordings[row].clone(),
            };
            let hash = row_key(&origin.clip_key, segments[row] as i32, 1.0);
            picked.insert(hash, (segments[row], origin));
            if picked.len() > ROWS_OF_CLASS {
                picked.pop_last();
            }
        }
        Ok(())
    })?;

    let mut all = PickedRows::new();
    for (class, picked) in by_class {
        for (segment, origin) in picked.into_values() {
            all.insert((origin.clip_key.clone(), segment), (class, origin));
        }
    }
    Ok(all)
}

/// A feature row, downsampled for display.
#[derive(Clone, Debug)]
struct Picture {
    class: Option<usize>,
    origin: RowOrigin,
    columns: usize,
    /// Values band by band, the lowest band first.
    values: Vec<f32>,
}

/// Returns the part of a row in which some clip has audio: the frames of shorter clips end with silence.
fn with_audio(
    answers: &Answers<'_>,
    feature: &FeatureEntry,
    frames: Grid,
) -> Result<Grid, SqlError> {
    let (Some(hop_length), Some(rate_hz), Some(rows)) = (
        feature.hop_length,
        feature.sample_rate_hz,
        answers.rows_table(),
    ) else {
        return Ok(frames);
    };
    let answer = answers.ask(&format!("SELECT max(duration_s) AS s FROM {rows}"))?;
    let Some(longest_s) = answer.number("s")? else {
        return Ok(frames);
    };
    let n_frames = (longest_s * f64::from(rate_hz) / hop_length as f64).ceil() as usize;
    Ok(Grid {
        shown: frames.frames.min(n_frames.max(1)),
        ..frames
    })
}

/// Reads the tensors of the picked rows, in the order of their clips.
fn read(
    answers: &Answers<'_>,
    feature: &FeatureEntry,
    frames: Grid,
    mut picked: PickedRows,
) -> Result<Vec<Picture>, SqlError> {
    if picked.is_empty() {
        return Ok(Vec::new());
    }

    let table = format!("features_{}", feature.name);
    let columns = answers.columns(&table)?;
    let tensor = TensorType::from_field(columns.field_with_name(&feature.name)?);
    let tensor = tensor.ok_or_else(|| damaged("the tensor type is missing"))?;

    let keys = picked.keys().map(|(clip_key, _)| literal(clip_key));
    let keys: Vec<String> = keys.collect();
    let query = format!(
        "SELECT clip_key, segment, {} FROM {} WHERE variant = 1 AND clip_key IN ({})",
        identifier(&feature.name),
        identifier(&table),
        keys.join(", ")
    );
    let mut pictures = BTreeMap::new();
    answers.each(&query, |rows| {
        let segments = rows.counts("segment")?;
        let column = TensorColumn::new(rows.column(&feature.name)?);
        let column = column.ok_or_else(|| damaged("a column has no tensors"))?;
        for (row, clip_key) in rows.texts("clip_key")?.into_iter().enumerate() {
            let key = (clip_key.unwrap_or_default(), segments[row]);
            let Some((class, origin)) = picked.remove(&key) else {
                continue;
            };
            let mut values = Vec::new();
            column.read(row, &tensor, &mut values);
            if values.len() != frames.bands * frames.frames {
                return Err(damaged("a tensor has an unexpected shape").into());
            }
            let (columns, values) = frames.smaller(&values, Grid::SHOWN);
            let picture = Picture {
                class,
                origin,
                columns,
                values,
            };
            pictures.insert(key, picture);
        }
        Ok(())
    })?;
    Ok(pictures.into_values().collect())
}

/// Returns the error of a column whose contents differ from the manifest.
fn damaged(problem: &str) -> ArrowError {
    ArrowError::SchemaError(problem.to_owned())
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

/// Creates the heat map of a row, from the number of columns and the values that are shown of it.
fn heat_map(feature: &FeatureEntry, frames: Grid, shown: (usize, Vec<f32>)) -> HeatMap {
    let across = feature.frame_axis(frames.shown);
    HeatMap::spectrogram(across, (feature.band_name(), frames.bands), shown)
}

/// Returns the title, artist and key of a clip, separated by dashes. Title and artist are omitted if they are not
/// known.
fn track_description(answers: &Answers<'_>, clip_key: &str) -> Result<String, SqlError> {
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
