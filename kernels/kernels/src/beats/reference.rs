//! Reference for tests: librosa's dynamic program, step by step in f64.

use wavemill_options::{BeatArgs, FeatureArgs, TempoArgs};

use crate::{median, tempo, tempogram};

/// Returns 1 for each value of an onset envelope with a beat, else 0.
pub(crate) fn beats(args: &BeatArgs, feature: &FeatureArgs, envelope: &[f64]) -> Vec<f64> {
    let n = envelope.len();
    let mut marked = vec![0.0; n];
    if envelope.iter().all(|x| *x == 0.0) {
        return marked;
    }

    let per_minute = 60.0 * f64::from(feature.sample_rate_hz) / feature.stft.hop_length as f64;
    let lags = tempogram::reference::tempogram(feature.n_lags().unwrap(), envelope);
    let tempo = TempoArgs {
        start_bpm: args.start_bpm,
        ..TempoArgs::LIBROSA
    };
    let interval = tempo::reference::lag(&tempo, per_minute, &lags) as i64;

    let mean = envelope.iter().sum::<f64>() / n as f64;
    let variance = envelope.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
    let local: Vec<f64> = (0..n as i64)
        .map(|frame| {
            let weighted = (0..n as i64).map(|at| {
                let x = (at - frame) as f64 * 32.0 / interval as f64;
                let weight = if (at - frame).abs() <= interval {
                    (-0.5 * x * x).exp()
                } else {
                    0.0
                };
                weight * envelope[at as usize]
            });
            weighted.sum::<f64>() / variance.sqrt()
        })
        .collect();

    let (scores, links) = paths(&local, interval, args.tightness);
    let mut beat = last_beat(&scores) as i64;
    let mut found = Vec::new();
    while beat >= 0 {
        found.insert(0, beat as usize);
        beat = links[beat as usize];
    }

    let least = if args.trim {
        threshold(&local, &found)
    } else {
        0.0
    };
    let first = local.iter().position(|x| *x > least).unwrap_or(0);
    let last = local.iter().rposition(|x| *x > least).unwrap_or(0);
    for beat in found {
        if (first..=last).contains(&beat) {
            marked[beat] = 1.0;
        }
    }
    marked
}

/// Returns the score of the best path to each frame, and the frame before, or -1.
fn paths(local: &[f64], interval: i64, tightness: f64) -> (Vec<f64>, Vec<i64>) {
    let half = (interval as f64 / 2.0).round_ties_even() as i64;
    let loudest = local.iter().copied().fold(f64::MIN, f64::max);
    let (mut scores, mut links) = (Vec::new(), Vec::new());
    let mut is_first = true;

    for (i, score_i) in local.iter().enumerate() {
        let (mut best, mut link) = (f64::NEG_INFINITY, -1);
        for at in (0..i as i64).rev() {
            let distance = i as i64 - at;
            if distance < half || distance > 2 * interval {
                continue;
            }
            let cost = tightness * (distance as f64 / interval as f64).ln().powi(2);
            if scores[at as usize] - cost > best {
                (best, link) = (scores[at as usize] - cost, at);
            }
        }

        scores.push(if link >= 0 { score_i + best } else { *score_i });
        is_first = is_first && *score_i < 0.01 * loudest;
        links.push(if is_first { -1 } else { link });
    }
    (scores, links)
}

fn last_beat(scores: &[f64]) -> usize {
    let padded: Vec<f64> = [&scores[..1], scores, &scores[scores.len() - 1..]].concat();
    let peaks: Vec<usize> = (0..scores.len())
        .filter(|i| padded[i + 1] > padded[*i] && padded[i + 1] >= padded[i + 2])
        .collect();
    let mut of_peaks: Vec<f64> = peaks.iter().map(|i| scores[*i]).collect();
    let least = 0.5 * median(&mut of_peaks);
    let last = peaks.iter().rev().find(|i| scores[**i] >= least);
    last.copied().unwrap_or(scores.len() - 1)
}

/// Returns half of the root mean square of the beats' scores, smoothed by a Hann window of five values.
fn threshold(local: &[f64], beats: &[usize]) -> f64 {
    let window = [0.0, 0.5, 1.0, 0.5, 0.0];
    let mut smooth = vec![0.0; beats.len() + 4];
    for (at, beat) in beats.iter().enumerate() {
        for (offset, weight) in window.iter().enumerate() {
            smooth[at + offset] += weight * local[*beat];
        }
    }
    let end = smooth.len().min(local.len() + 2);
    let squares: Vec<f64> = smooth[2..end].iter().map(|x| x * x).collect();
    0.5 * (squares.iter().sum::<f64>() / squares.len() as f64).sqrt()
}
