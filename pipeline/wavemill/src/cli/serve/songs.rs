//! Converts uploads to the inputs of models, with the same code as `wavemill features`.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use arrow::ipc::writer::StreamWriter;
use wavemill_extract::features::{FeaturePlan, NoRows};
use wavemill_extract::single::{self, RowExtractor};
use wavemill_schemas::manifest::FeatureEntry;
use wavemill_schemas::recipe::{Dataset, Recipe};
use wavemill_schemas::text::error_line;
use wavemill_store::shards::{FeatureRow, Format};
use wavemill_store::tensors::stats;
use wavemill_terminal::exit::UsageError;

use crate::cli::train::feature_of;
use crate::serve::{Reader, Song, Spectrogram, Unreadable, Upload};

/// Number of time spans of a waveform: as many as a chart can show.
const WAVEFORM_SPANS: usize = 240;
/// Maximum number of frames of a spectrogram: as many as a chart can show.
const SPECTROGRAM_COLUMNS: usize = 320;

/// The input of one or more models: one feature of a run's recipe.
pub(super) struct Input {
    n_targets: usize,
    plan: Arc<FeaturePlan>,
    format: Format,
}

impl Input {
    /// Reads the input of the run in the folder `run`.
    ///
    /// # Errors
    /// [`UsageError`] if the folder is not a run, or its model does not read audio.
    pub(super) fn from_run(run: &Path) -> Result<Self> {
        let feature = feature_of(run)?;
        let file = run.join("recipe.toml");
        let recipe = Recipe::load(&file.to_string_lossy(), &[])?;
        let place = recipe.stored_features().position(|f| f.name == feature);
        let (Some(number), true) = (place, recipe.catalog.dataset != Dataset::Images) else {
            let message = format!(
                "--run {}: its recipe does not compute {feature} from audio",
                run.display()
            );
            return Err(UsageError(message).into());
        };

        let plan = Arc::new(single::plan(&recipe, number)?);
        Ok(Self {
            n_targets: recipe.targets.len(),
            format: single::stream_format(&plan, &recipe)?,
            plan,
        })
    }

    pub(super) fn feature_id(&self) -> &str {
        &self.entry().feature_id
    }

    /// Encodes the feature rows of a clip as a complete Arrow stream.
    pub(super) fn stream(&self, clip_key: &str, rows: Vec<FeatureRow>) -> Result<Vec<u8>> {
        let clips = [single::clip_row(clip_key.to_owned(), self.n_targets)];
        let mut writer = StreamWriter::try_new(Vec::new(), &self.format.schema)?;
        for row in rows {
            writer.write(&self.format.batch(0, vec![row], &clips)?)?;
        }
        writer.finish()?;
        Ok(writer.into_inner()?)
    }

    fn entry(&self) -> &FeatureEntry {
        // The feature plan of an input has exactly one feature.
        &self.plan.entries()[0]
    }
}

/// A reader that computes the rows of a song for all inputs.
pub(super) struct SongReader {
    inputs: Arc<Vec<Input>>,
    /// One extractor of feature rows for each input.
    extractors: Vec<RowExtractor>,
}

impl SongReader {
    /// Creates a reader with kernels and buffers of its own. Songs longer than `most_s` seconds are rejected.
    ///
    /// # Errors
    /// [`Unreadable::Fault`] if the kernels for an input cannot be created.
    pub(super) fn new(inputs: &Arc<Vec<Input>>, most_s: f64) -> Result<Self, Unreadable> {
        let mut extractors = Vec::new();
        for input in inputs.iter() {
            let extractor = RowExtractor::new(&input.plan, most_s);
            extractors.push(extractor.map_err(|error| fault(error.into()))?);
        }
        Ok(Self {
            inputs: Arc::clone(inputs),
            extractors,
        })
    }
}

impl Reader for SongReader {
    fn read(&mut self, upload: Upload) -> Result<Song, Unreadable> {
        let extension = Path::new(&upload.name).extension();
        let extension = extension.and_then(|e| e.to_str()).unwrap_or_default();

        let mut song = Song::default();
        for (input, extractor) in self.inputs.iter().zip(&mut self.extractors) {
            let begin = Instant::now();
            extractor
                .decode(extension, &upload.bytes)
                .map_err(unreadable)?;
            song.decode_s += begin.elapsed().as_secs_f64();

            if song.waveform.is_empty() {
                let pcm = extractor.pcm();
                song.duration_s = pcm.duration_s;
                song.lost_s = pcm.lost_s;
                song.waveform = waveform(&pcm.samples[..pcm.n_samples]);
            }

            let begin = Instant::now();
            let rows = extractor.rows(0, &upload.name).map_err(unreadable)?;
            if song.spectrogram.is_none() {
                song.spectrogram = rows.first().and_then(|row| spectrogram(row, input.entry()));
            }
            let stream = input.stream(&upload.name, rows).map_err(fault)?;
            song.streams.push(stream.into());
            song.features_s += begin.elapsed().as_secs_f64();
        }
        Ok(song)
    }
}

fn unreadable(reason: NoRows) -> Unreadable {
    match reason {
        NoRows::Reject(reject) => Unreadable::Clip(single::describe_reject(&reject)),
        NoRows::Error(error) => fault(error.into()),
    }
}

fn fault(error: anyhow::Error) -> Unreadable {
    Unreadable::Fault(error_line(error.as_ref()))
}

/// Splits samples into spans of equal length and returns the lowest and the highest sample of each span.
fn waveform(samples: &[f32]) -> Vec<(f32, f32)> {
    let span = samples.len().div_ceil(WAVEFORM_SPANS).max(1);
    let mut waveform = Vec::with_capacity(WAVEFORM_SPANS);
    for span in samples.chunks(span) {
        let low = span.iter().copied().fold(f32::INFINITY, f32::min);
        let high = span.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        waveform.push((low, high));
    }
    waveform
}

/// Converts a row to a picture if its shape is bands by frames. If there are too many frames, only every second, third,
/// … is shown.
fn spectrogram(row: &FeatureRow, entry: &FeatureEntry) -> Option<Spectrogram> {
    let tensor = row.tensors.first()?;
    let [first, second] = &tensor.shape[..] else {
        return None;
    };
    let [first_name, second_name] = &entry.dim_names[..] else {
        return None;
    };
    let (frames, bands, is_frame_first) = match (first_name.as_str(), second_name.as_str()) {
        ("frame", _) => (*first, *second, true),
        (_, "frame") => (*second, *first, false),
        _ => return None,
    };

    let values = stats::values(tensor, entry);
    let step = frames.div_ceil(SPECTROGRAM_COLUMNS).max(1);
    let shown: Vec<usize> = (0..frames).step_by(step).collect();

    let mut picture = Vec::with_capacity(bands * shown.len());
    for band in 0..bands {
        for &frame in &shown {
            let at = if is_frame_first {
                frame * bands + band
            } else {
                band * frames + frame
            };
            picture.push(values.get(at).copied()?);
        }
    }

    let rate_hz = entry.sample_rate_hz.map_or(1.0, f64::from);
    let from_s = f64::from(row.facts.offset_s);
    Some(Spectrogram {
        name: entry.name.clone(),
        columns: shown.len(),
        values: picture,
        from_s,
        to_s: from_s + row.n_samples as f64 / rate_hz,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waveform_has_the_extremes_of_its_spans() {
        assert!(waveform(&[]).is_empty());
        assert_eq!(waveform(&[0.5]), [(0.5, 0.5)]);
        let samples: Vec<f32> = (0..1000).map(|i| (i % 10) as f32).collect();
        let found = waveform(&samples);
        assert!(found.len() <= WAVEFORM_SPANS);
        assert_eq!(found[3], (5.0, 9.0), "spans of 5");
    }
}
