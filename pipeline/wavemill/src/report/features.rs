//! Lists the features, with the statistics of their values by band from the manifest.

use wavemill_pages::{Cell, Chart, Line, Lines, Plot, Section, Span, Table, bytes};
use wavemill_schemas::manifest::{FeatureEntry, Manifest, Stats};

pub(super) fn section(manifest: &Manifest) -> Section {
    let mut table = Table::of(
        "",
        &manifest.features,
        &[
            ("feature", &|of| of.name.as_str().into()),
            ("shape", &|of| {
                format!("{} ({})", of.tensor_type(), of.dim_names.join(", ")).into()
            }),
            ("preset", &|of| of.preset.as_str().into()),
            ("rows", &|of| {
                manifest
                    .files_of(&of.name)
                    .map(|file| file.rows)
                    .sum::<u64>()
                    .into()
            }),
            ("size", &|of| {
                Cell::Measure(bytes(
                    manifest.files_of(&of.name).map(|file| file.bytes).sum(),
                ))
            }),
        ],
    );
    // Presets apply only to features of audio, not of pictures.
    if manifest.recipe.catalog.dataset.is_of_pictures() {
        table.remove("preset");
    }

    let mut charts = Vec::new();
    let mut single = Vec::new();
    for feature in &manifest.features {
        // The samples of clips are a single band.
        let stats = manifest.stats.get(&feature.name);
        let Some(stats) = stats.filter(|_| !feature.is_pcm()) else {
            continue;
        };
        match (&stats.mean[..], &stats.std[..]) {
            (&[mean], &[std]) => single.push((feature.name.as_str(), mean, std)),
            _ => charts.push(by_band(feature, stats)),
        }
    }

    let mut section = Section::new("Features");
    section.add_table(table);
    section.add_table(Table::of(
        "Features of one value per frame, over the training split",
        single,
        &[
            ("feature", &|(name, _, _)| (*name).into()),
            ("mean", &|(_, mean, _)| (*mean).into()),
            ("standard deviation", &|(_, _, std)| (*std).into()),
        ],
    ));
    section.add_charts(charts);
    section
}

fn by_band(feature: &FeatureEntry, stats: &Stats) -> Chart {
    let mut line = Line::new(&feature.name, Vec::new());
    for (band, (mean, std)) in stats.mean.iter().zip(&stats.std).enumerate() {
        line.points.push((band as f64, *mean));
        line.spread.push(Span {
            low: mean - std,
            high: mean + std,
        });
    }
    Chart::new(
        format!("Values of {} by band", feature.name),
        "Mean and standard deviation of the stored values over the training split.",
        Plot::Lines(Lines::new(feature.band_name(), "stored value", vec![line])),
    )
}
