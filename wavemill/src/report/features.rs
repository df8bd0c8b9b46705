//! Lists the features, with the statistics of their values by band from the manifest.

use wavemill_pages::{Cell, Chart, Line, Lines, Part, Plot, Section, Spread, Table, bytes};
use wavemill_schemas::manifest::{FeatureEntry, Manifest, Stats};

pub(super) fn section(manifest: &Manifest) -> Section {
    // Presets apply only to features of audio, not of pictures.
    let has_preset = !manifest.recipe.catalog.dataset.is_of_pictures();
    let head: &[&str] = if has_preset {
        &["feature", "shape", "preset", "rows", "size"]
    } else {
        &["feature", "shape", "rows", "size"]
    };
    let mut table = Table::new("", head);
    let mut charts = Vec::new();
    let single = "Features of one value per frame, over the training side";
    let mut single = Table::new(single, &["feature", "mean", "standard deviation"]);
    for feature in &manifest.features {
        let files = manifest.files_of(&feature.name);
        let rows: u64 = files.map(|file| file.rows).sum();
        let stored_bytes: u64 = manifest
            .files_of(&feature.name)
            .map(|file| file.bytes)
            .sum();
        let shape = format!(
            "{} ({})",
            feature.tensor_type(),
            feature.dim_names.join(", ")
        );
        let mut row: Vec<Cell> = vec![feature.name.as_str().into(), shape.into()];
        if has_preset {
            row.push(feature.preset.as_str().into());
        }
        row.push(rows.into());
        row.push(Cell::Measure(bytes(stored_bytes)));
        table.rows.push(row);

        // The samples of clips are a single band.
        let stats = manifest.stats.get(&feature.name);
        let Some(stats) = stats.filter(|_| !feature.is_pcm()) else {
            continue;
        };
        match (&stats.mean[..], &stats.std[..]) {
            (&[mean], &[std]) => {
                let name: Cell = feature.name.as_str().into();
                single
                    .rows
                    .push(vec![name, Cell::Number(mean), Cell::Number(std)]);
            }
            _ => charts.push(by_band(feature, stats)),
        }
    }

    let mut section = Section::new("Features");
    section.parts.push(Part::Table(table));
    if !single.rows.is_empty() {
        section.parts.push(Part::Table(single));
    }
    if !charts.is_empty() {
        section.parts.push(Part::Charts(charts));
    }
    section
}

fn by_band(feature: &FeatureEntry, stats: &Stats) -> Chart {
    let mut points = Vec::new();
    let mut spread = Vec::new();
    for (band, (mean, std)) in stats.mean.iter().zip(&stats.std).enumerate() {
        points.push((band as f64, *mean));
        spread.push(Spread {
            low: mean - std,
            high: mean + std,
        });
    }

    Chart {
        title: format!("Values of {} by band", feature.name),
        note: "Mean and standard deviation of the stored values over the training side.".to_owned(),
        plot: Plot::Lines(Lines {
            along: band_name(feature),
            measured: "stored value".to_owned(),
            lines: vec![Line {
                name: feature.name.clone(),
                points,
                spread,
            }],
        }),
    }
}

/// Returns the name of the band axis of a feature.
pub(super) fn band_name(feature: &FeatureEntry) -> String {
    if feature.is_picture() {
        return "channel".to_owned();
    }
    if feature.is_vector() {
        let names = feature.dim_names.first().map_or("", String::as_str);
        return if names == "statistic" {
            "statistic"
        } else {
            "value"
        }
        .to_owned();
    }
    let bands = feature.dim_names.iter().find(|name| *name != "frame");
    match bands.map_or("", String::as_str) {
        "mel" => "mel band".to_owned(),
        "chroma" => "pitch class".to_owned(),
        "centroid" => "coordinate".to_owned(),
        axis => axis.to_owned(),
    }
}
