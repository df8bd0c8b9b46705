//! Scores the predictions in a JSON file, for comparison with other programs (scripts/peers/metrics.py).
//!
//! usage: metrics IN.json [--table]
//!
//! IN.json has these keys: `classes`, `track_ids`, `artist_ids` (null for none), `probabilities` `[n][classes]`, and
//! `labels` (−1 for none) or `sets` (a list of booleans per row, or null). Prints the scores as JSON, or as a table
//! with `--table`.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use wavemill_schemas::recipe::SplitRule;
use wavemill_schemas::split::Split;
use wavemill_scores::metrics::{
    Label, Predictions, Row, count_leaks, evaluation_table, score_split,
};

#[derive(Deserialize)]
struct Input {
    classes: Vec<String>,
    track_ids: Vec<i64>,
    artist_ids: Vec<Option<i64>>,
    probabilities: Vec<Vec<f32>>,
    #[serde(default)]
    labels: Vec<i64>,
    #[serde(default)]
    sets: Vec<Option<Vec<bool>>>,
}

fn read(path: &str) -> Result<Predictions> {
    let text = std::fs::read_to_string(path).with_context(|| path.to_owned())?;
    let input: Input = serde_json::from_str(&text).with_context(|| path.to_owned())?;

    let multi = input.labels.is_empty();
    let mut out = Predictions::new("target", &input.classes, multi);

    let n = input.probabilities.len();
    ensure!(
        n == input.track_ids.len() && n == input.artist_ids.len(),
        "{path}: lists differ in length"
    );
    ensure!(
        n == input.labels.len().max(input.sets.len()),
        "{path}: not one label a row"
    );

    for (i, probabilities) in input.probabilities.iter().enumerate() {
        let label = match (multi, input.sets.get(i)) {
            (true, Some(Some(set))) => Label::Set(set),
            (false, _) if input.labels[i] >= 0 => Label::Class(usize::try_from(input.labels[i])?),
            _ => Label::Unknown,
        };

        let (track_id, artist_id) = (input.track_ids[i], input.artist_ids[i]);
        let clip_key = track_id.to_string();
        out.push(&Row {
            index: i as u64,
            clip_key: &clip_key,
            segment: 0,
            track_id,
            artist_id,
            label,
            probabilities,
        })?;
    }

    Ok(out)
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let predictions = read(args.first().context("usage: metrics IN.json [--table]")?)?;

    let start = Instant::now();
    let evaluation = score_split(
        &predictions,
        0,
        count_leaks(SplitRule::Artist, Split::Test, [], []),
    )?;

    if args.get(1).is_some_and(|arg| arg == "--table") {
        println!(
            "{}\n{:.2} s, intervals included",
            evaluation_table(&evaluation),
            start.elapsed().as_secs_f64()
        );
    } else {
        println!("{}", serde_json::to_string(&evaluation)?);
    }

    Ok(())
}
