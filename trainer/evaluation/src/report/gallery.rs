//! Pictures of misclassified tracks: spectrograms of their rows, or pictures as the store contains them.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::AsArray;
use arrow::buffer::Buffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type};
use wavemill_loader::{Dataset, Form, Loader, LoaderPlan, RowKind, Store};
use wavemill_pages::{Chart, Grid, HeatMap, Photo, Plot, Section};
use wavemill_schemas::config::Data;
use wavemill_schemas::manifest::{FeatureEntry, Scale};
use wavemill_schemas::tensor_arrays;

use super::mistakes::Mistake;

/// Maximum number of pictures on a page. With their maximum size, they take less than 5 MB.
const SHOWN_MAX: usize = 12;
/// Maximum width of a picture in pixels, about that of a chart on a phone.
const PHOTO_WIDTH_MAX: usize = 320;

/// Adds pictures of the first `mistakes` to `section`, from the feature named `feature` if it can be shown. `caption`
/// returns the title and the note of a picture. If the rows cannot be read, the section states the reason.
pub(super) fn add(
    section: &mut Section,
    store: Result<Store, &'static str>,
    feature: Option<&str>,
    mistakes: &[Mistake<'_>],
    caption: impl Fn(&Mistake<'_>) -> [String; 2],
) {
    let mistakes = &mistakes[..mistakes.len().min(SHOWN_MAX)];
    let plots = store
        .map_err(Into::into)
        .and_then(|store| plots(store, feature, mistakes));
    match plots {
        Ok((_, plots)) if plots.is_empty() => {}
        Ok((feature, plots)) => {
            let n_plots = plots.len();
            section.add_text(format!(
                "The {n_plots} with the highest confidence: {feature} of the first row of each."
            ));
            let charts = mistakes.iter().zip(plots);
            section.add_charts(charts.map(|(mistake, plot)| {
                let [title, note] = caption(mistake);
                Chart::new(title, note, plot)
            }));
        }
        Err(reason) => section.add_text(format!("Pictures are not available: {reason}.")),
    }
}

/// Draws the first row of each track at its recorded tempo. Returns the name of the feature that is shown, and no
/// plots if the store has no such feature, such as a store of embeddings.
fn plots(
    store: Store,
    feature: Option<&str>,
    mistakes: &[Mistake<'_>],
) -> Result<(String, Vec<Plot>), Box<dyn Error>> {
    let is_shown = |entry: &&FeatureEntry| entry.has_frames() || entry.is_picture();
    let features = store.manifest().features.iter().filter(is_shown);
    let Some(entry) = features.min_by_key(|entry| Some(&*entry.name) != feature) else {
        return Ok((String::new(), Vec::new()));
    };
    let wanted = Data {
        feature: Some(entry.name.clone()),
        ..Data::default()
    };

    // Comparing whole shards for some rows would take long, and a flipped bit changes at most a few pixels.
    let store = store.without_shard_checks();
    let data: Arc<Dataset> = Dataset::open_stored(store, &wanted, &AtomicBool::new(false))?;
    let all = data.rows();
    let mut rows = Vec::new();
    for mistake in mistakes {
        let clip_key = mistake.row.clip_key;
        let is_first = |&at: &usize| all.segments[at] == 0 && all.variants[at] == 1.0;
        let mut first = (0..all.len()).filter(is_first);
        let row = first.find(|&at| &*all.clip_keys[at] == clip_key);
        rows.push(row.ok_or_else(|| format!("the store has no row of {clip_key}"))? as u32);
    }
    let batch = Loader::read(&data, &LoaderPlan::default(), &rows)?;

    let form = data.form();
    let memory = batch.memory().ok_or("the rows have no tensors")?;
    let values = values(form, &memory[..rows.len() * form.row_bytes()])?;
    let rows = values.chunks_exact((form.bands * form.host_frames).max(1));
    let plots = rows.enumerate().map(|(place, values)| match form.kind {
        RowKind::Picture { height, width } => Plot::Photo(photo([height, width], values)),
        _ => {
            let filled = batch.filled.get(place);
            let grid = Grid {
                shown: filled.map_or(form.host_frames, |&frames| frames as usize),
                is_frame_first: form.frames_first,
                ..Grid::new(form.bands, form.host_frames)
            };
            Plot::HeatMap(HeatMap::spectrogram(
                data.feature().frame_axis(grid.shown),
                (data.feature().band_name(), form.bands),
                grid.smaller(values, Grid::SHOWN),
            ))
        }
    });
    Ok((data.feature().name.clone(), plots.collect()))
}

/// Converts stored numbers to values.
fn values(form: &Form, stored: &[u8]) -> Result<Vec<f32>, Box<dyn Error>> {
    let numbers = tensor_arrays::numbers(Buffer::from(stored), form.stored);
    let numbers = cast(&numbers, &DataType::Float32)?;
    let mut values = numbers.as_primitive::<Float32Type>().values().to_vec();
    if let Some(Scale { factor, offset }) = form.scale {
        for value in &mut values {
            *value = (f64::from(*value) * factor + offset) as f32;
        }
    }
    Ok(values)
}

/// Makes a photo of the channels of a picture, whose values are from 0 to 1.
fn photo([height, width]: [usize; 2], values: &[f32]) -> Photo {
    let shown_width = width.min(PHOTO_WIDTH_MAX);
    let shown_height = (height * shown_width).div_ceil(width.max(1));
    let grid = Grid::new(height, width);
    let channels = values.chunks((height * width).max(1));
    let channels = channels.map(|of| grid.smaller(of, [shown_height, shown_width]).1);
    let channels: Vec<Vec<f32>> = channels.collect();

    let pixels = (0..shown_height * shown_width).map(|place| {
        [0, 1, 2].map(|colour: usize| {
            // A picture of one channel is grey.
            let channel = &channels[colour.min(channels.len() - 1)];
            (channel[place].clamp(0.0, 1.0) * 255.0).round() as u8
        })
    });
    Photo {
        width: shown_width,
        pixels: pixels.collect(),
    }
}
