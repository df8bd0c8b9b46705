//! Maps vectors to points in the plane so that neighbouring vectors become neighbouring points (t-SNE).
//!
//! Distances between separate groups on the map are not meaningful, and neither are the axes.
//!
//! The crate `bhtsne` moves the points. This module does two things so that equal vectors and an equal seed give equal
//! bytes on one machine: it finds the nearest neighbours exactly (the search in `bhtsne` begins at random points), and
//! it runs `bhtsne` on one thread (its parallel sums depend on the timing of threads). Sources: van der Maaten and
//! Hinton, "Visualizing data using t-SNE" (2008); van der Maaten, "Accelerating t-SNE using tree-based algorithms"
//! (2014).

use std::cmp::Ordering;

use bhtsne::{Neighbor, tSNE};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::rng::{Rng, mix};

/// Maximum number of rows on a map. More points would overlap, and take hours to compute.
pub const ROWS_MAX: usize = 10_000;
/// Number of iterations of t-SNE, each of which moves all points.
pub const STEPS: usize = 1000;
/// Minimum number of rows for t-SNE; fewer rows get random positions.
pub const ROWS_MIN: usize = 4;

/// Accuracy parameter of the Barnes-Hut approximation, which treats a distant group of points as one point: the default
/// of van der Maaten (2014) and of scikit-learn.
const THETA: f64 = 0.5;
/// Standard deviation of the initial positions. It is far smaller than the final distances between points.
const START_DEVIATION: f64 = 1e-4;
/// Number of nearest neighbours that are found for each point, as a multiple of the perplexity (van der Maaten 2014).
const NEIGHBORS_PER_PERPLEXITY: f64 = 3.0;
/// Number of partial sums in the computation of a distance, for SIMD instructions.
const LANES: usize = 16;

/// Settings for computing a map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MapSettings {
    /// Requested perplexity: the approximate number of neighbours of a point. It is reduced if there are too few rows.
    pub perplexity: f64,
    /// The seed of the initial positions.
    pub seed: u64,
    /// Number of threads that search for nearest neighbours. It does not affect the result.
    pub threads: usize,
}

/// Selects the rows that are shown on a map, in ascending order: all `n` rows, or [`ROWS_MAX`] of them at random. The
/// result depends only on `n` and `seed`.
pub fn rows_on_map(n: usize, seed: u64) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..n).collect();
    if n > ROWS_MAX {
        Rng::new(mix("wavemill rows on map", &[seed])).shuffle(&mut rows);
        rows.truncate(ROWS_MAX);
        rows.sort_unstable();
    }
    rows
}

/// Returns the perplexity for `n` rows: the requested one, but at most a third of the number of other rows; 0 below
/// [`ROWS_MIN`] rows.
pub fn perplexity_for(n: usize, asked: f64) -> f64 {
    if n < ROWS_MIN {
        return 0.0;
    }
    asked.min((n - 1) as f64 / NEIGHBORS_PER_PERPLEXITY)
}

/// Computes the position of each of `rows`, finite vectors of one length, on their map, which is centred around 0.
/// Fewer than [`ROWS_MIN`] rows get random positions. Calls `progress` with the number of completed [`STEPS`].
///
/// Computing time grows with n² · width for the neighbours, and with n · log n for the steps.
///
/// # Errors
/// A thread cannot be started.
pub fn map(
    rows: &[&[f32]],
    settings: &MapSettings,
    progress: &mut (dyn FnMut(usize) + Send),
) -> Result<Vec<[f32; 2]>, PlainError> {
    let perplexity = perplexity_for(rows.len(), settings.perplexity);
    let start = first_places(rows.len(), settings.seed);
    if perplexity == 0.0 {
        let places = start.as_chunks::<2>().0.iter();
        return Ok(places
            .map(|place| place.map(|x| (x / START_DEVIATION) as f32))
            .collect());
    }

    progress(0);
    let neighbors = pool(settings.threads)?.install(|| neighbors(rows, perplexity));
    // Run `bhtsne` on one thread: see the module documentation.
    let places = pool(1)?.install(|| {
        let mut tsne: tSNE<'_, f64, &[f32]> = tSNE::new(rows);
        tsne.perplexity(perplexity)
            .epochs(STEPS)
            .initial_embedding(start)
            .epoch_callback(|step, _| progress(step + 1));
        tsne.barnes_hut_with_neighbors(THETA, &neighbors);
        tsne.embedding()
    });

    let places = places.as_chunks::<2>().0.iter();
    Ok(places.map(|place| place.map(|x| x as f32)).collect())
}

fn pool(threads: usize) -> Result<ThreadPool, PlainError> {
    ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .thread_name(|_| "map".to_owned())
        .build()
        .map_err(|error| PlainError::failed("cannot start a thread for the map").caused_by(error))
}

/// Returns the initial positions of the points: alternating x and y.
fn first_places(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = Rng::new(mix("wavemill map", &[seed]));
    (0..2 * n).map(|_| START_DEVIATION * rng.normal()).collect()
}

/// Returns the nearest neighbours of each row, the nearest first. Neighbours at the same distance are sorted by row.
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

    // No two neighbours compare as equal, so the result does not depend on the selection algorithm.
    if wanted < others.len() {
        let _ = others.select_nth_unstable_by(wanted - 1, nearest_first);
        others.truncate(wanted);
    }
    others.sort_unstable_by(nearest_first);
    others
}

/// Orders neighbours by distance, then by index.
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

    /// Returns vectors in `groups` groups, each of which is around its own centre.
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
            perplexity: 30.0,
            seed,
            threads,
        }
    }

    fn map_of(vectors: &[f32], width: usize, settings: &MapSettings) -> Vec<[f32; 2]> {
        let rows: Vec<&[f32]> = vectors.chunks_exact(width).collect();
        map(&rows, settings, &mut |_| {}).expect("a map")
    }

    #[test]
    fn equal_vectors_and_seeds_give_equal_bits_on_any_number_of_threads() {
        let vectors = groups(3, 240, 20);
        let one = map_of(&vectors, 20, &settings(1, 1));
        assert_eq!(one, map_of(&vectors, 20, &settings(1, 3)));
        assert_ne!(one, map_of(&vectors, 20, &settings(2, 1)));
    }

    #[test]
    fn groups_stay_together() {
        let vectors = groups(4, 400, 17);
        let mut steps = 0;
        let rows: Vec<&[f32]> = vectors.chunks_exact(17).collect();
        let found = map(&rows, &settings(7, 2), &mut |done| steps = done).expect("a map");
        assert_eq!(steps, STEPS);

        // The nearest point on the map belongs to the same group, for every point.
        let mut own = 0;
        for (index, place) in found.iter().enumerate() {
            let others = found.iter().enumerate();
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
            let found = map_of(&groups(2, rows, 5), 5, &settings(1, 1));
            assert_eq!(found.len(), rows);
            let finite = found.iter().flatten().all(|x| x.is_finite());
            assert!(finite, "{rows} rows: {found:?}");
        }
    }

    #[test]
    fn equal_vectors_get_finite_places() {
        let found = map_of(&[0.5; 60 * 3], 3, &settings(1, 1));
        assert!(found.iter().flatten().all(|x| x.is_finite()));
    }

    #[test]
    fn rows_over_the_limit_are_sampled_deterministically() {
        assert_eq!(rows_on_map(5, 1), [0, 1, 2, 3, 4]);
        let some = rows_on_map(ROWS_MAX + 500, 1);
        assert_eq!(some.len(), ROWS_MAX);
        assert!(some.is_sorted_by(|a, b| a < b) && some[ROWS_MAX - 1] > ROWS_MAX);
        assert_eq!(some, rows_on_map(ROWS_MAX + 500, 1));
        assert_ne!(some, rows_on_map(ROWS_MAX + 500, 2));
    }
}
