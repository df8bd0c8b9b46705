//! Writes `features.csv` in FMA's format: 518 columns with four header lines.
//!
//! FMA computed its values from whole songs with an old version of librosa. The values here are random instead of
//! computed from the clips: a level of the genre plus offsets of the artist and the track, so that a model can learn
//! from them.

use crate::csv;
use crate::rng::Rng;
use crate::tracks::{Catalog, Options};

/// Names of the features and their numbers of dimensions, in FMA's order.
const FEATURES: [(&str, usize); 11] = [
    ("chroma_cens", 12),
    ("chroma_cqt", 12),
    ("chroma_stft", 12),
    ("mfcc", 20),
    ("rmse", 1),
    ("spectral_bandwidth", 1),
    ("spectral_centroid", 1),
    ("spectral_contrast", 7),
    ("spectral_rolloff", 1),
    ("tonnetz", 6),
    ("zcr", 1),
];

/// Statistics over the frames of a song, in FMA's order.
const STATISTICS: [&str; 7] = ["kurtosis", "max", "mean", "median", "min", "skew", "std"];

/// Returns the maximum contributions of genre, artist and track to a value.
fn spreads(difficulty: f32) -> [f32; 3] {
    [1.0 - 0.8 * difficulty, 0.7, 0.5]
}

/// Returns `features.csv` with one row per track. Values are finite and have no unit.
pub(crate) fn features_csv(options: &Options, catalog: &Catalog) -> String {
    let mut table = header();
    for track in &catalog.tracks {
        let artist = &catalog.artists[track.artist];
        // Tracks of the same genre or artist draw the same numbers from these generators.
        let owners = [(6, artist.genre.id), (7, artist.id), (8, track.id)];
        let mut rngs = owners.map(|(kind, id)| Rng::keyed(options.seed, &[kind, u64::from(id)]));

        let mut fields = vec![track.id.to_string()];
        for _ in 0..columns().count() {
            let parts = rngs.iter_mut().zip(spreads(options.difficulty));
            let value: f32 = parts.map(|(rng, spread)| spread * rng.noise()).sum();
            fields.push(format!("{value:.6}"));
        }
        table += &csv::record(fields);
    }
    table
}

/// Returns the four header lines in pandas' format: the names of three header levels, then the name of the index.
fn header() -> String {
    let mut lines =
        ["feature", "statistics", "number", "track_id"].map(|name| vec![name.to_owned()]);
    for (feature, statistic, number) in columns() {
        let cells = [
            feature.to_owned(),
            statistic.to_owned(),
            format!("{number:02}"),
            String::new(),
        ];
        for (line, cell) in lines.iter_mut().zip(cells) {
            line.push(cell);
        }
    }
    lines.map(csv::record).concat()
}

/// Iterates over feature, statistic and number of each column, in FMA's order.
fn columns() -> impl Iterator<Item = (&'static str, &'static str, usize)> {
    FEATURES.into_iter().flat_map(|(feature, dimensions)| {
        STATISTICS.into_iter().flat_map(move |statistic| {
            (1..=dimensions).map(move |number| (feature, statistic, number))
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{columns, features_csv};
    use crate::tracks::{Catalog, Options};

    #[test]
    fn columns_match_fma() {
        let columns: Vec<_> = columns().collect();
        assert_eq!(columns.len(), 518);
        assert_eq!(columns[0], ("chroma_cens", "kurtosis", 1));
        assert_eq!(columns[7 * 36 + 39], ("mfcc", "max", 20));
        assert_eq!(columns[517], ("zcr", "std", 1));
    }

    #[test]
    fn tables_are_deterministic_with_one_row_per_track() {
        let options = Options {
            seed: 3,
            tracks: 20,
            seconds: 10.0,
            difficulty: 0.0,
        };
        let catalog = Catalog::draw(&options);
        let table = features_csv(&options, &catalog);
        assert_eq!(table, features_csv(&options, &catalog));

        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4 + catalog.tracks.len());
        assert!(lines[1].starts_with("statistics,kurtosis,"), "{}", lines[1]);

        for (line, track) in lines[4..].iter().zip(&catalog.tracks) {
            let (id, values) = line.split_once(',').expect("an id before the values");
            assert_eq!(id, track.id.to_string());
            assert_eq!(values.split(',').count(), 518, "track {id}");
        }

        let values = lines[4..]
            .iter()
            .map(|line| line.split_once(',').map(|(_, values)| values));
        let distinct: BTreeSet<_> = values.collect();
        assert_eq!(distinct.len(), catalog.tracks.len());
    }
}
