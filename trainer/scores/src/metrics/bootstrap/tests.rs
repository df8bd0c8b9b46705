//! Tests of the intervals against known distributions, and of their independence of threads and row order.

use wavemill_schemas::rng::{Rng, mix};

use super::super::classification::class_report;
use super::super::multilabel::{set_report, tests::sets};
use super::super::predictions::tests::single;
use super::resamples::quantile;
use super::*;

fn bootstrap(predictions: &Predictions, seed: u64) -> Result<Option<Bootstrap>, PlainError> {
    super::bootstrap(predictions, seed, &NEVER)
}

const YES: &[f32] = &[0.9, 0.1];
const NO: &[f32] = &[0.1, 0.9];

#[test]
fn resampling_ends_when_it_is_stopped() {
    let predictions = single(&[(1, None, 0, YES), (2, None, 0, NO)]);
    let stopped = super::bootstrap(&predictions, 1, &AtomicBool::new(true));
    assert_eq!(stopped.unwrap_err().to_string(), "stopped");
}

#[test]
fn quantiles_lie_between_neighbours() {
    assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
    assert_eq!(
        (
            quantile(&[1.0, 2.0], 0.0),
            quantile(&[1.0, 2.0], 1.0),
            quantile(&[5.0], 0.3)
        ),
        (1.0, 2.0, 5.0)
    );
}

/// Returns predictions for 400 tracks, 300 of them correct, in groups of four successive tracks. `per_artist` is
/// the number of tracks per artist.
fn coins(per_artist: i64) -> Predictions {
    let rows = (0..400).map(|track| {
        let artist = (per_artist > 1).then_some(track / per_artist);
        (track, artist, 0, if track / 4 % 4 == 3 { NO } else { YES })
    });
    single(&rows.collect::<Vec<_>>())
}

#[test]
fn interval_width_matches_the_binomial_distribution() {
    let result = bootstrap(&coins(1), 1).unwrap().unwrap();
    assert_eq!(
        (
            result.draws.unit,
            result.draws.units,
            result.draws.tracks_without_artist
        ),
        (Unit::Track, 400, 400)
    );

    let accuracy = result.intervals["accuracy"];
    let half = 1.96 * (0.75_f64 * 0.25 / 400.0).sqrt();
    assert_eq!(accuracy.value, 0.75);
    assert!(
        (accuracy.low - (0.75 - half)).abs() < 0.006
            && (accuracy.high - (0.75 + half)).abs() < 0.006,
        "{accuracy:?}"
    );
}

#[test]
fn intervals_of_classes_hold_the_figures_of_the_report() {
    let rows: Vec<(i64, Option<i64>, i32, &[f32])> = (0..90)
        .map(|i| {
            let guess: &[f32] = if i % 4 == 0 {
                &[0.1, 0.8, 0.1]
            } else {
                &[0.8, 0.1, 0.1]
            };
            (i, Some(i / 3), i32::from(i % 3 == 0), guess)
        })
        .collect();

    let predictions = single(&rows);
    let report = class_report(&predictions).unwrap();
    let intervals = class_intervals(&predictions, 1).unwrap().unwrap();
    assert_eq!(intervals.draws.units, 30);

    for (class, of_class) in report.classes.iter().zip(&intervals.classes) {
        let figures = [
            (of_class.precision, class.precision, class.predicted),
            (of_class.recall, class.recall, class.support),
            (of_class.f1, class.f1, class.support + class.predicted),
        ];

        for (interval, value, whole) in figures {
            // The third class has no rows and was never predicted, so its scores are undefined.
            assert_eq!(interval.is_some(), whole > 0, "{}", class.name);
            if let Some(found) = interval {
                assert_eq!(found.value, value);
                assert!(found.low <= value && value <= found.high, "{found:?}");
            }
        }
    }

    assert_eq!(
        intervals,
        class_intervals(&predictions, 1).unwrap().unwrap()
    );

    let several = sets(&[(Some(&[true, false]), &[0.9, 0.1])]);
    assert!(class_intervals(&several, 1).is_err());
}

#[test]
fn artists_whose_tracks_go_together_give_wider_intervals() {
    fn width(predictions: &Predictions) -> (u64, f64) {
        let result = bootstrap(predictions, 1).unwrap().unwrap();
        (
            result.draws.units,
            result.intervals["accuracy"].high - result.intervals["accuracy"].low,
        )
    }

    let ((tracks, narrow), (artists, wide)) = (width(&coins(1)), width(&coins(4)));
    assert_eq!((tracks, artists), (400, 100));
    assert!(
        (wide / narrow - 2.0).abs() < 0.15,
        "fours count as one: √4 wider, not {}",
        wide / narrow
    );
}

#[test]
fn segments_of_a_track_are_drawn_together() {
    let tracks = coins(1);
    let mut segments = tracks.like();
    for copy in 0..10 {
        for row in tracks.rows() {
            segments
                .push(&super::super::predictions::Row {
                    segment: copy,
                    ..row
                })
                .unwrap();
        }
    }

    let (a, b) = (
        bootstrap(&tracks, 3).unwrap().unwrap(),
        bootstrap(&segments, 3).unwrap().unwrap(),
    );
    assert_eq!(a, b, "ten equal segments a track know no more than one");
}

#[test]
fn value_matches_the_report_and_draws_follow_the_seed() {
    let rows: Vec<_> = (0..60)
        .map(|i| {
            (
                i,
                Some(i / 3),
                (i % 2) as i32,
                if i % 5 < 2 { NO } else { YES },
            )
        })
        .collect();

    let predictions = single(&rows);
    let report = class_report(&predictions).unwrap();
    let result = bootstrap(&predictions, 7).unwrap().unwrap();

    let got =
        ["accuracy", "balanced_accuracy", "macro_f1"].map(|name| result.intervals[name].value);
    assert_eq!(
        got,
        [
            report.accuracy,
            report.balanced_accuracy,
            report.macro_mean.f1
        ]
    );

    assert_eq!(bootstrap(&predictions, 7).unwrap().unwrap(), result);
    assert_ne!(
        bootstrap(&predictions, 8).unwrap().unwrap().intervals,
        result.intervals
    );
}

#[test]
fn labels_in_sets_have_intervals_of_their_own_figures() {
    let rows: Vec<(bool, f32)> = (0..50)
        .map(|i| {
            (
                i % 3 == 0,
                if i % 7 < 3 {
                    0.8
                } else {
                    0.1 + i as f32 / 500.0
                },
            )
        })
        .collect();

    let cells: Vec<([bool; 2], [f32; 2])> = rows
        .iter()
        .map(|&(set, p)| ([set, false], [p, 0.2]))
        .collect();
    let predictions = sets(
        &cells
            .iter()
            .map(|(set, p)| (Some(&set[..]), &p[..]))
            .collect::<Vec<_>>(),
    );

    let (report, result) = (
        set_report(&predictions).unwrap(),
        bootstrap(&predictions, 1).unwrap().unwrap(),
    );

    for (name, want) in [
        ("roc_auc_macro", report.roc_auc_macro.unwrap()),
        ("exact_match", report.exact_match),
        ("f1_macro", report.f1_macro),
        ("f1_micro", report.f1_micro),
    ] {
        assert_eq!(result.intervals[name].value, want, "{name}");
    }
    assert!(
        result
            .intervals
            .values()
            .all(|i| i.low <= i.value && i.value <= i.high && i.low < i.high),
        "{result:?}"
    );
}

/// Simulates predictions for `artists` artists of each of `n_classes` classes, with ten tracks each. An artist's
/// share of correct predictions has the distribution Beta(4, 1), whose mean is 0.8, and errors are spread over the
/// other classes.
fn simulated(n_classes: u64, artists: u64, rng: &mut Rng) -> Predictions {
    let mut rows = Vec::new();
    let mut guesses = Vec::new();
    for artist in 0..n_classes * artists {
        // The largest of four uniform numbers.
        let share = (0..4).map(|_| rng.uniform()).fold(0.0, f64::max);
        let class = artist % n_classes;
        for _ in 0..10 {
            let is_right = rng.uniform() < share;
            let other = (class + 1 + rng.below(n_classes - 1)) % n_classes;
            let guess = if is_right { class } else { other };
            guesses.push((artist, class, guess));
        }
    }

    let probabilities: Vec<Vec<f32>> = (0..n_classes)
        .map(|guess| {
            (0..n_classes)
                .map(|class| f32::from(u8::from(class == guess)))
                .collect()
        })
        .collect();
    for (track, &(artist, class, guess)) in guesses.iter().enumerate() {
        let row: &[f32] = &probabilities[guess as usize];
        rows.push((track as i64, Some(artist as i64), class as i32, row));
    }
    single(&rows)
}

/// The share of 95 % intervals that contain the true macro F1, which is 0.8. Prints the figures of docs/trainer.md.
#[test]
fn intervals_of_macro_f1_contain_the_true_value() {
    const REPEATS: usize = 60;
    for (n_classes, artists, least) in [(2, 5, 0.85), (8, 3, 0.85), (8, 10, 0.9)] {
        let mut rng = Rng::new(mix("coverage", &[n_classes, artists]));
        let mut n_hits = 0;
        for repeat in 0..REPEATS {
            let result = bootstrap(&simulated(n_classes, artists, &mut rng), repeat as u64);
            let interval = result.unwrap().unwrap().intervals["macro_f1"];
            n_hits += usize::from(interval.low <= 0.8 && 0.8 <= interval.high);
        }
        let share = n_hits as f64 / REPEATS as f64;
        println!("{n_classes} classes, {artists} artists each: {share:.2} of {REPEATS}");
        assert!(
            share >= least,
            "{n_classes} classes, {artists} artists: {share}"
        );
    }
}

#[test]
fn means_over_classes_of_few_artists_have_no_interval() {
    let mut rng = Rng::new(1);
    let result = bootstrap(&simulated(8, 2, &mut rng), 1).unwrap().unwrap();
    assert_eq!(result.draws.units_per_class, Some(2));
    assert_eq!(result.intervals.keys().collect::<Vec<_>>(), ["accuracy"]);
}

#[test]
fn a_resample_without_a_class_leaves_it_out() {
    // The second class has one artist. Two of its four tracks are predicted as the first class, and no others are
    // wrong.
    let rows: Vec<(i64, Option<i64>, i32, &[f32])> = (0..40)
        .map(|track| match track {
            0..36 => (track, Some(track / 4), 0, YES),
            36 | 37 => (track, Some(9), 1, NO),
            _ => (track, Some(track / 4), 1, YES),
        })
        .collect();
    let predictions = single(&rows);
    let (groups, draws) = groups(&predictions, 1).unwrap();
    let statistic = Statistic::from_predictions(&predictions, &groups, draws.units as usize);

    let mut weights = vec![1; 10];
    weights[9] = 0;
    assert_eq!(statistic.values(&weights)[2], 1.0);
    // With it, two of its four rows are right: F1 is 72/74 for the first class and 4/6 for the second.
    let whole = statistic.values(&[1; 10])[2];
    assert!(
        (whole - (72.0 / 74.0 + 4.0 / 6.0) / 2.0).abs() < 1e-12,
        "{whole}"
    );
}

#[test]
fn one_artist_gives_no_interval() {
    let rows: Vec<_> = (0..9).map(|track| (track, Some(1), 0, YES)).collect();
    assert_eq!(bootstrap(&single(&rows), 0).unwrap(), None);
}

#[test]
fn a_difference_of_equals_is_zero_whatever_the_order_of_rows() {
    let a = coins(4);
    let mut b = a.like();
    (0..a.len()).rev().for_each(|i| b.push(&a.row(i)).unwrap());

    let equal = paired(&a, &b, 5).unwrap().unwrap();
    assert_eq!(
        equal.differences["accuracy"].difference,
        Interval {
            value: 0.0,
            low: 0.0,
            high: 0.0
        }
    );
}

#[test]
fn paired_interval_is_narrower_than_two_intervals() {
    let a = coins(1);

    // `b` has the same errors as `a` and twelve more.
    let wrong = |row: &super::super::predictions::Row| row.track_id < 12 || row.probabilities == NO;
    let b: Vec<_> = a
        .rows()
        .map(|row| (row.track_id, None, 0, if wrong(&row) { NO } else { YES }))
        .collect();

    let pair = paired(&a, &single(&b), 5).unwrap().unwrap();
    let accuracy = pair.differences["accuracy"];
    assert!(
        (accuracy.difference.value - 0.03).abs() < 1e-12
            && (accuracy.a - accuracy.b - 0.03).abs() < 1e-12
    );
    assert!(
        accuracy.difference.low > 0.01 && accuracy.difference.high < 0.05,
        "{accuracy:?}"
    );
}

#[test]
fn mismatched_tracks_labels_or_segments_are_named() {
    let a = single(&[(1, None, 0, YES), (2, None, 0, YES)]);

    for (b, want) in [
        (
            single(&[(1, None, 0, YES), (9, None, 0, YES)]),
            "first has 1 (track 2); only the second has 1 (track 9)",
        ),
        (
            single(&[(1, None, 0, YES), (2, None, 1, YES)]),
            "track 2 has another label",
        ),
        (
            single(&[(1, None, 0, YES), (1, None, 0, YES)]),
            "several rows of track 1",
        ),
        (single(&[(1, None, 0, &[0.2, 0.3, 0.5])]), "class"),
    ] {
        let error = paired(&a, &b, 0).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}
