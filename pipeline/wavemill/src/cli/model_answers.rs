//! Combines the predictions of several models for the same songs.

use std::collections::HashMap;

use anyhow::{Context, Result};
use serde_json::{Map, Value};
use wavemill_schemas::text::shown;

use crate::serve::text as text_of;

/// Number of spaces between two columns of a table.
const GAP: usize = 2;

/// Predictions of several runs, as JSON lines of `wavemill train predict`.
#[derive(Debug, Default)]
pub(super) struct ModelAnswers {
    runs: Vec<String>,
    /// JSON lines, each with the index of its run.
    lines: Vec<(usize, Map<String, Value>)>,
}

impl ModelAnswers {
    /// Adds all JSON lines that the trainer printed for a run.
    ///
    /// # Errors
    /// A line is not a JSON object, as from a trainer of another version.
    pub(super) fn add(&mut self, run: &str, text: &str) -> Result<()> {
        let index = self.runs.len();
        self.runs.push(run.to_owned());
        for line in text.lines() {
            let object = serde_json::from_str(line).with_context(|| {
                format!("unexpected output of wavemill train predict: `{line}`: check that its version is the same")
            })?;
            self.lines.push((index, object));
        }
        Ok(())
    }

    /// Reports whether there is no prediction.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Formats all predictions as JSON lines again, each with the name of its run.
    pub(super) fn lines(&self) -> String {
        let mut text = String::new();
        for (run, line) in &self.lines {
            let mut line = line.clone();
            line.insert("run".to_owned(), self.runs[*run].clone().into());
            text += &format!("{}\n", Value::Object(line));
        }
        text
    }

    /// Formats a table with a line for each song and target, and a column for each run.
    pub(super) fn table(&self) -> String {
        let mut songs: Vec<Song<'_>> = Vec::new();
        let mut places: HashMap<(&str, &str), usize> = HashMap::new();
        for (run, line) in &self.lines {
            let key = (text_of(line, "clip_key"), text_of(line, "target"));
            let place = *places.entry(key).or_insert_with(|| {
                songs.push(Song {
                    clip_key: key.0,
                    target: key.1,
                    answers: vec![None; self.runs.len()],
                });
                songs.len() - 1
            });
            // If a song has several segments, its last line contains the prediction for the whole song.
            songs[place].answers[*run] = Some(line);
        }

        let has_targets = songs.iter().any(|song| song.target != songs[0].target);
        let mut header = vec!["song".to_owned()];
        header.extend(self.runs.iter().cloned());
        let mut rows = vec![header];
        rows.extend(songs.iter().map(|song| song.row(has_targets)));
        aligned(&rows)
    }
}

/// A line of the table: the predictions for one song and target.
#[derive(Debug)]
struct Song<'a> {
    clip_key: &'a str,
    target: &'a str,
    /// The prediction of each run, or `None` if a run has no prediction.
    answers: Vec<Option<&'a Map<String, Value>>>,
}

impl Song<'_> {
    fn row(&self, has_targets: bool) -> Vec<String> {
        let mut row = vec![if has_targets {
            format!("{} ({})", self.clip_key, self.target)
        } else {
            self.clip_key.to_owned()
        }];
        // A song name that contains a line feed would take two lines of the table.
        row[0] = shown(&row[0]).into_owned();
        for answer in &self.answers {
            row.push(answer.map_or("-".to_owned(), format_prediction));
        }
        row
    }
}

/// Formats the probability of a prediction as ` 0.91`; empty if there is none.
fn probability(of: &Map<String, Value>) -> String {
    let value = of.get("probability").and_then(Value::as_f64);
    value.map_or(String::new(), |value| format!(" {value:.2}"))
}

/// Formats a prediction as `Metal 0.91`, as `Metal (mean: Rock 0.48)` if most segments have another class than their
/// mean, or as a list of labels.
fn format_prediction(line: &Map<String, Value>) -> String {
    if let Some(labels) = line.get("labels").and_then(Value::as_array) {
        let labels = labels.iter().filter_map(Value::as_object);
        let labels: Vec<String> = labels
            .map(|label| format!("{}{}", text_of(label, "class"), probability(label)))
            .collect();
        return if labels.is_empty() {
            "none".to_owned()
        } else {
            labels.join(", ")
        };
    }

    let class = text_of(line, "class");
    match line.get("majority").and_then(Value::as_str) {
        Some(majority) if majority != class => {
            format!("{majority} (mean: {class}{})", probability(line))
        }
        _ => format!("{class}{}", probability(line)),
    }
}

/// Formats rows with columns as wide as their widest cell.
fn aligned(rows: &[Vec<String>]) -> String {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let mut widths = vec![0; n_columns];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count() + GAP);
        }
    }

    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line += &format!("{cell:<width$}");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = r#"{"clip_key":"s.mp3","segment":0,"target":"genre","class":"Rock","probability":0.5}
{"clip_key":"s.mp3","segment":1,"target":"genre","class":"Metal","probability":0.9}
{"clip_key":"s.mp3","segments":2,"target":"genre","majority":"Metal","class":"Rock","probability":0.6}
{"clip_key":"t.mp3","segment":0,"target":"genre","class":"Pop","probability":1.0}
"#;
    const B: &str = r#"{"clip_key":"s.mp3","segment":0,"target":"genre","class":"Jazz","probability":0.25}
"#;

    #[test]
    fn songs_stand_down_and_runs_across() {
        let mut answers = ModelAnswers::default();
        answers.add("plain", A).expect("JSON");
        answers.add("stretched", B).expect("JSON");

        assert_eq!(
            answers.table(),
            "song   plain                    stretched\n\
             s.mp3  Metal (mean: Rock 0.60)  Jazz 0.25\n\
             t.mp3  Pop 1.00                 -\n"
        );

        let lines = answers.lines();
        assert_eq!(lines.lines().count(), 5);
        assert!(
            lines.ends_with("\"run\":\"stretched\",\"segment\":0,\"target\":\"genre\"}\n"),
            "{lines}"
        );

        assert!(answers.add("x", "no JSON").is_err());
    }

    #[test]
    fn several_targets_are_named_and_several_labels_are_listed() {
        let mut answers = ModelAnswers::default();
        let text = r#"{"clip_key":"s","target":"a","class":"x","probability":0.5}
{"clip_key":"s","target":"b","labels":[{"class":"y","probability":0.7}]}"#;
        answers.add("r", text).expect("JSON");
        assert_eq!(answers.table(), "song   r\ns (a)  x 0.50\ns (b)  y 0.70\n");
    }
}
