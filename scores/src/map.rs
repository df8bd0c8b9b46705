//! A map of vectors: a place in the plane for each, such that vectors near each other are neighbours there too (t-SNE).
//!
//! Distances on the map between groups that lie apart say little, and the axes say nothing.
//!
//! The crate `bhtsne` moves the points. Two things are done here so that equal vectors and an equal seed give equal bytes
//! on one machine: the nearest neighbours are found exactly (its own search begins at random places), and points are moved
//! on one thread (its parallel sums depend on which thread was free). Sources: van der Maaten and Hinton, "Visualizing
//! data using t-SNE" (2008); van der Maaten, "Accelerating t-SNE using tree-based algorithms" (2014).

use std::cmp::Ordering;

use bhtsne::{Neighbor, tSNE};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use wavemill_schemas::rng::{Rng, mix};

/// Neighbours that a point has, about: the default of most programs.
pub const PERPLEXITY: f64 = 30.0;
/// The most rows of a map: more would lie over each other, and take hours.
pub const ROWS_MAX: usize = 10_000;
/// Moves of all points.
pub const STEPS: usize = 1000;
/// The fewest rows that have places by their vectors.
pub const ROWS_MIN: usize = 4;

/// How far off a group of points is taken as one: the default of van der Maaten (2014) and of scikit-learn.
const THETA: f64 = 0.5;
/// Deviation of the first places: far less than the distances that follow, so that they decide nothing but directions.
const START_DEVIATION: f64 = 1e-4;
/// Neighbours of a point that count, as a multiple of the perplexity (van der Maaten 2014).
const NEIGHBORS_PER_PERPLEXITY: f64 = 3.0;
/// Sums that run side by side in a distance, so that the processor's vectors are used.
const LANES: usize = 16;

/// How a map is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MapSettings {
    /// See [`PERPLEXITY`]; lowered where there are too few rows.
    pub perplexity: f64,
    /// Of the first places.
    pub seed: u64,
    /// Threads that look for neighbours. They change nothing.
    pub threads: usize,
}

/// The places of all vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// x and y of each vector, about 0.
    pub places: Vec<[f32; 2]>,
    /// In use. 0 where there were fewer than [`ROWS_MIN`] vectors, whose places are drawn.
    pub perplexity: f64,
}

/// Why there is no map.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// Vectors of another length, or of none.
    #[error("{values} values are no vectors of {width} values")]
    Width {
        /// All of them.
        values: usize,
        /// Of a vector.
        width: usize,
    },
    /// A model that answers with NaN has no map.
    #[error("vector {index} has a value that is no number")]
    NotFinite {
        /// Its place among the vectors.
        index: usize,
    },
    /// The system has no thread left.
    #[error("no thread for the map")]
    Thread(#[from] ThreadPoolBuildError),
}

/// The rows that are on a map of `n` rows: all, or [`ROWS_MAX`] of them by chance, ascending. A pure function.
pub fn rows_on_map(n: usize, seed: u64) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..n).collect();
    if n > ROWS_MAX {
        Rng::new(mix("wavemill rows on map", &[seed])).shuffle(&mut rows);
        rows.truncate(ROWS_MAX);
        rows.sort_unstable();
    }
    rows
}

/// The perplexity in use for `n` rows: each must have three times as many neighbours. 0 below [`ROWS_MIN`].
pub fn perplexity_for(n: usize, asked: f64) -> f64 {
    if n < ROWS_MIN {
        return 0.0;
    }
    asked.min((n - 1) as f64 / NEIGHBORS_PER_PERPLEXITY)
}

/// The map of `vectors`, `[n, width]` row by row. `progress` is told how many of [`STEPS`] are done.
///
/// Time grows with n² · width for the neighbours, and with n · log n for the steps.
///
/// # Errors
/// [`MapError`].
pub fn map(
    vectors: &[f32],
    width: usize,
    settings: &MapSettings,
    progress: &mut (dyn FnMut(usize) + Send),
) -> Result<Map, MapError> {
    if width == 0 || !vectors.len().is_multiple_of(width) {
        return Err(MapError::Width {
            values: vectors.len(),
            width,
        });
    }
    if let Some(at) = vectors.iter().position(|value| !value.is_finite()) {
        return Err(MapError::NotFinite { index: at / width });
    }

    let rows: Vec<&[f32]> = vectors.chunks_exact(width).collect();
    let perplexity = perplexity_for(rows.len(), settings.perplexity);
    let start = first_places(rows.len(), settings.seed);
    if perplexity == 0.0 {
        let places = start.as_chunks::<2>().0.iter();
        return Ok(Map {
            places: places
                .map(|place| place.map(|x| (x / START_DEVIATION) as f32))
                .collect(),
            perplexity,
        });
    }

    progress(0);
    let neighbors = pool(settings.threads)?.install(|| neighbors(&rows, perplexity));
    // One thread: see above.
    let places = pool(1)?.install(|| {
        let mut tsne: tSNE<'_, f64, &[f32]> = tSNE::new(&rows);
        tsne.perplexity(perplexity)
            .epochs(STEPS)
            .initial_embedding(start)
            .epoch_callback(|step, _| progress(step + 1));
        tsne.barnes_hut_with_neighbors(THETA, &neighbors);
        tsne.embedding()
    });

    let places = places.as_chunks::<2>().0.iter();
    Ok(Map {
        places: places.map(|place| place.map(|x| x as f32)).collect(),
        perplexity,
    })
}

fn pool(threads: usize) -> Result<ThreadPool, ThreadPoolBuildError> {
    ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .thread_name(|_| "map".to_owned())
        .build()
}

/// x and y in turn.
fn first_places(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = Rng::new(mix("wavemill map", &[seed]));
    (0..2 * n).map(|_| START_DEVIATION * rng.normal()).collect()
}

/// The nearest neighbours of each row, near ones first. Of equally near ones, the first rows.
fn neighbors(rows: &[&[f32]], perplexity: f64) -> Vec<Vec<Neighbor<f64>>> {
    let wanted = (NEIGHBORS_PER_PERPLEXITY * perplexity) as usize;
    let wanted = wanted.clamp(1, rows.len() - 1);
    rows.par_iter()
        .enumerate()
        .map(|(own, row)| nearest(rows, own, row, wanted))
        .collect()
}

fn nearest(rows: &[&[f32]], own: usize, row: &[f32], wanted: usize) -> Vec<Neighbor<f64>> {
    let mut others: Vec<Neighbor<f64>> = Vec::with_capacity(rows.len());
    for (index, other) in rows.iter().enumerate() {
        if index != own {
            let distance = f64::from(squared_distance(row, other)).sqrt();
            others.push(Neighbor { index, distance });
        }
    }

    // The order is total, so the choice does not depend on how it is made.
    if wanted < others.len() {
        let _ = others.select_nth_unstable_by(wanted - 1, nearest_first);
        others.truncate(wanted);
    }
    others.sort_unstable_by(nearest_first);
    others
}

/// Of equally near ones by place.
fn nearest_first(a: &Neighbor<f64>, b: &Neighbor<f64>) -> Ordering {
    (a.distance.total_cmp(&b.distance)).then(a.index.cmp(&b.index))
}

fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..LANES {
            let difference = a[lane] - b[lane];
            sums[lane] += difference * difference;
        }
    }

    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| (a - b) * (a - b));
    sums.iter().sum::<f32>() + rest.sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `groups` groups of vectors, each around a place of its own.
    fn groups(groups: usize, rows: usize, width: usize) -> Vec<f32> {
        let mut rng = Rng::new(mix("test", &[groups as u64]));
        let mut values = Vec::new();
        for row in 0..rows {
            for column in 0..width {
                let centre = if column == row % groups { 10.0 } else { 0.0 };
                values.push((centre + rng.normal()) as f32);
            }
        }
        values
    }

    fn settings(seed: u64, threads: usize) -> MapSettings {
        MapSettings {
            perplexity: PERPLEXITY,
            seed,
            threads,
        }
    }

    fn of(vectors: &[f32], width: usize, settings: &MapSettings) -> Map {
        map(vectors, width, settings, &mut |_| {}).expect("a map")
    }

    #[test]
    fn equal_vectors_and_seeds_give_equal_bits_on_any_number_of_threads() {
        let vectors = groups(3, 240, 20);
        let one = of(&vectors, 20, &settings(1, 1));
        assert_eq!(one, of(&vectors, 20, &settings(1, 3)));
        assert_ne!(one, of(&vectors, 20, &settings(2, 1)));
    }

    #[test]
    fn groups_stay_together() {
        let vectors = groups(4, 400, 17);
        let mut steps = 0;
        let found = map(&vectors, 17, &settings(7, 2), &mut |done| steps = done).expect("a map");
        assert_eq!((found.perplexity, steps), (30.0, STEPS));

        // The nearest point of each is of its own group.
        let mut own = 0;
        for (index, place) in found.places.iter().enumerate() {
            let others = found.places.iter().enumerate();
            let nearest = others.filter(|(other, _)| *other != index).min_by(|a, b| {
                squared_distance(a.1, place).total_cmp(&squared_distance(b.1, place))
            });
            own += usize::from(nearest.expect("others").0 % 4 == index % 4);
        }
        assert!(own > 390, "{own} of 400");
    }

    #[test]
    fn few_rows_have_a_lower_perplexity_and_hardly_any_have_none() {
        assert_eq!(perplexity_for(1000, 30.0), 30.0);
        assert_eq!(perplexity_for(31, 30.0), 10.0);
        assert_eq!(perplexity_for(3, 30.0), 0.0);
        for rows in 0..12 {
            let found = of(&groups(2, rows, 5), 5, &settings(1, 1));
            assert_eq!(found.places.len(), rows);
            let finite = found.places.iter().flatten().all(|x| x.is_finite());
            assert!(finite, "{rows} rows: {found:?}");
        }
    }

    #[test]
    fn equal_vectors_have_places_too() {
        let found = of(&[0.5; 60 * 3], 3, &settings(1, 1));
        assert!(found.places.iter().flatten().all(|x| x.is_finite()));
    }

    #[test]
    fn too_many_rows_are_drawn_from_once_and_for_all() {
        assert_eq!(rows_on_map(5, 1), [0, 1, 2, 3, 4]);
        let some = rows_on_map(ROWS_MAX + 500, 1);
        assert_eq!(some.len(), ROWS_MAX);
        assert!(some.is_sorted_by(|a, b| a < b) && some[ROWS_MAX - 1] > ROWS_MAX);
        assert_eq!(some, rows_on_map(ROWS_MAX + 500, 1));
        assert_ne!(some, rows_on_map(ROWS_MAX + 500, 2));
    }

    #[test]
    fn what_is_no_vector_is_told() {
        let told = |vectors: &[f32], width| {
            let found = map(vectors, width, &settings(1, 1), &mut |_| {});
            found.expect_err("no map").to_string()
        };
        assert_eq!(told(&[0.0; 7], 3), "7 values are no vectors of 3 values");
        assert_eq!(
            told(&[0.0, 1.0, 2.0, f32::NAN], 2),
            "vector 1 has a value that is no number"
        );
    }
}
