//! Predictions of the models for a song: as JSON for programs, and as an HTML fragment.

use serde_json::{Map, Value, json};
use wavemill_pages::{
    Axis, Bars, Cell, Chart, HeatMap, Line, Lines, Part, Plot, Series, Span, Table,
};

use super::readers::{Song, Spectrogram};

/// Maximum number of classes in a segment's bar. The remaining classes are combined.
const CLASSES_SHOWN: usize = 5;
/// Maximum number of classes in the chart of mean probabilities.
const MEANS_SHOWN: usize = 10;

/// Predictions of all models for a song.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub file: String,
    pub song: Song,
    /// Name of each model, and the time of its prediction in seconds.
    pub models: Vec<(String, f64)>,
    /// JSON lines in the format of `wavemill predict`, each with its `run`.
    pub lines: Vec<Map<String, Value>>,
}

/// Predictions of one model for one target.
struct Verdict<'a> {
    run: &'a str,
    target: &'a str,
    segments: Vec<&'a Map<String, Value>>,
    /// JSON line with the mean over all segments.
    whole: &'a Map<String, Value>,
}

impl Answer {
    /// Adds the JSON lines that a model printed for the song.
    ///
    /// # Errors
    /// An error if a line is not a JSON object.
    pub(crate) fn add(
        &mut self,
        run: &str,
        seconds: f64,
        lines: &[String],
    ) -> serde_json::Result<()> {
        for line in lines {
            let mut line: Map<String, Value> = serde_json::from_str(line)?;
            line.insert("run".to_owned(), run.into());
            self.lines.push(line);
        }
        self.models.push((run.to_owned(), seconds));
        Ok(())
    }

    /// Formats the predictions as JSON, with up to `top` classes per line.
    pub(crate) fn to_json(&self, top: usize) -> Value {
        let mut lines = self.lines.clone();
        for line in &mut lines {
            if let Some(Value::Array(classes)) = line.get_mut("top") {
                classes.truncate(top);
            }
        }

        let models: Map<String, Value> = self
            .models
            .iter()
            .map(|(run, seconds)| (run.clone(), json!(rounded(*seconds))))
            .collect();

        json!({
            "file": self.file,
            "duration_s": self.song.duration_s,
            "lost_s": self.song.lost_s,
            "seconds": {
                "decode": rounded(self.song.decode_s),
                "features": rounded(self.song.features_s),
                "models": models,
            },
            "answers": lines,
        })
    }

    /// Summarizes the predictions of all models in one sentence.
    pub(crate) fn summary(&self) -> String {
        let verdicts = self.verdicts();
        if let [only] = verdicts.as_slice() {
            return only.describe();
        }
        let lines: Vec<String> = verdicts
            .iter()
            .map(|verdict| format!("{}: {}", verdict.run, verdict.describe()))
            .collect();
        lines.join("; ")
    }

    /// Formats the predictions as HTML. All texts are escaped.
    pub(crate) fn to_html(&self) -> String {
        let verdicts = self.verdicts();
        let mut charts: Vec<Chart> = verdicts.iter().map(Verdict::means).collect();
        let several = verdicts.iter().filter(|one| one.segments.len() > 1);
        charts.extend(several.map(Verdict::by_segment));
        charts.extend(waveform(&self.song));
        charts.extend(self.song.spectrogram.as_ref().map(spectrogram));

        let mut html = Part::Table(votes(&verdicts)).to_html();
        html += &Part::Charts(charts).to_html();
        if self.song.lost_s > 0.0 {
            let lost = wavemill_pages::seconds(f64::from(self.song.lost_s));
            let message = format!("{lost} of this file were lost because of damage.");
            html += &Part::Warning(message).to_html();
        }
        html
    }

    fn verdicts(&self) -> Vec<Verdict<'_>> {
        let mut verdicts: Vec<Verdict<'_>> = Vec::new();
        for line in &self.lines {
            let run = text(line, "run");
            let target = text(line, "target");

            let place = verdicts
                .iter()
                .position(|known| (known.run, known.target) == (run, target));
            let place = place.unwrap_or_else(|| {
                verdicts.push(Verdict {
                    run,
                    target,
                    segments: Vec::new(),
                    whole: line,
                });
                verdicts.len() - 1
            });

            // For a clip of one segment, a single line describes both the segment and the whole clip.
            if line.contains_key("segment") {
                verdicts[place].segments.push(line);
            }
            verdicts[place].whole = line;
        }
        verdicts
    }
}

impl Verdict<'_> {
    /// Returns the class with the highest mean probability, or all predicted labels.
    fn said(&self) -> String {
        let Some(labels) = self.whole.get("labels").and_then(Value::as_array) else {
            return text(self.whole, "class").to_owned();
        };
        if labels.is_empty() {
            return "none".to_owned();
        }
        let labels = labels.iter().filter_map(Value::as_object);
        let labels: Vec<&str> = labels.map(|label| text(label, "class")).collect();
        labels.join(", ")
    }

    fn describe(&self) -> String {
        if self.whole.contains_key("labels") {
            return self.said();
        }
        format!("{} {:.2}", self.said(), number(self.whole, "probability"))
    }

    fn means(&self) -> Chart {
        let mut shown = ranked(self.whole);
        shown.truncate(MEANS_SHOWN);
        let names = shown.iter().map(|(class, _)| (*class).to_owned());
        let probabilities = Series {
            name: "probability".to_owned(),
            values: shown.iter().map(|(_, probability)| *probability).collect(),
        };

        let target = self.target;
        let note = match self.segments.len() {
            0 | 1 => format!("Probability of each {target}."),
            n => format!("Mean probability of each {target} over {n} segments."),
        };
        Chart {
            title: format!("{}: {}", self.run, self.describe()),
            note,
            plot: bars(target, names.collect(), vec![probabilities]),
        }
    }

    /// Draws one bar per segment, with the classes that are likeliest for the whole song.
    fn by_segment(&self) -> Chart {
        // The classes of the whole song are used, so that the bars of all segments have the same parts.
        let ranked = ranked(self.whole);
        let mut series: Vec<Series> = Vec::new();
        for (class, _) in ranked.iter().take(CLASSES_SHOWN) {
            let segments = self.segments.iter();
            series.push(Series {
                name: (*class).to_owned(),
                values: segments.map(|line| probability_of(line, class)).collect(),
            });
        }

        // With several labels, the probabilities are independent and do not sum to 1, so there is no remainder.
        if ranked.len() > series.len() && !self.whole.contains_key("labels") {
            let rest = |place: usize| {
                let shown: f64 = series.iter().map(|class| class.values[place]).sum();
                // Because of rounding, the sum of probabilities may be slightly above 1.
                (1.0 - shown).max(0.0)
            };
            let values = (0..self.segments.len()).map(rest).collect();
            series.push(Series {
                name: "all others".to_owned(),
                values,
            });
        }

        let starts = self.segments.iter().map(|line| number(line, "offset_s"));
        let names = starts.map(|start_s| format!("{} s", wavemill_pages::number(start_s)));
        Chart {
            title: format!("{}: probabilities by segment", self.run),
            note: "One bar per segment, labelled with its start.".to_owned(),
            plot: bars("start", names.collect(), series),
        }
    }
}

fn bars(named: &str, names: Vec<String>, series: Vec<Series>) -> Plot {
    Plot::Bars(Bars {
        named: named.to_owned(),
        names,
        series,
        unit: String::new(),
    })
}

fn votes(verdicts: &[Verdict<'_>]) -> Table {
    // With several labels per song, there is neither a single class nor a majority vote.
    let if_single = |of: &Verdict<'_>, cell: Cell| match of.whole.contains_key("class") {
        true => cell,
        false => Cell::None,
    };
    Table::of(
        "Predictions",
        verdicts,
        &[
            ("model", &|of| of.run.into()),
            ("target", &|of| of.target.into()),
            ("class of most segments", &|of| {
                let majority = of.whole.get("majority").and_then(Value::as_str);
                if_single(of, majority.unwrap_or(text(of.whole, "class")).into())
            }),
            ("class with the highest mean", &|of| of.said().into()),
            ("probability", &|of| {
                if_single(of, number(of.whole, "probability").into())
            }),
            ("segments", &|of| (of.segments.len() as u64).into()),
        ],
    )
}

fn waveform(song: &Song) -> Option<Chart> {
    let n = song.waveform.len();
    if n == 0 {
        return None;
    }

    let span_s = f64::from(song.duration_s) / n as f64;

    let mut points = Vec::with_capacity(n);
    let mut spread = Vec::with_capacity(n);
    for (place, (low, high)) in song.waveform.iter().enumerate() {
        let low = f64::from(*low);
        let high = f64::from(*high);
        points.push(((place as f64 + 0.5) * span_s, 0.5 * (low + high)));
        spread.push(Span { low, high });
    }

    let line = Line {
        spread,
        ..Line::new("samples", points)
    };
    Some(Chart::new(
        "Waveform",
        "Minimum and maximum of the decoded samples: mono, at the model's sample rate.",
        Plot::Lines(Lines::new("s", "amplitude", vec![line])),
    ))
}

fn spectrogram(of: &Spectrogram) -> Chart {
    let bands = of.values.len().checked_div(of.columns).unwrap_or(0);

    let map = HeatMap::spectrogram(
        ("s", of.to_s),
        ("band", bands),
        (of.columns, of.values.clone()),
    );
    Chart::new(
        format!("{}, first segment", of.name),
        "Input of the model.",
        Plot::HeatMap(HeatMap {
            across: Axis::new("s", of.from_s, of.to_s),
            ..map
        }),
    )
}

/// Returns the classes of a line with their probabilities, the likeliest first.
fn ranked(line: &Map<String, Value>) -> Vec<(&str, f64)> {
    let classes = line.get("top").and_then(Value::as_array);
    let classes = classes.into_iter().flatten().filter_map(Value::as_object);
    classes
        .map(|class| (text(class, "class"), number(class, "probability")))
        .collect()
}

fn probability_of(line: &Map<String, Value>, class: &str) -> f64 {
    let found = ranked(line).into_iter().find(|(name, _)| *name == class);
    found.map_or(0.0, |(_, probability)| probability)
}

/// Returns a text of a JSON line, or an empty one if there is none.
pub(crate) fn text<'a>(line: &'a Map<String, Value>, key: &str) -> &'a str {
    line.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn number(line: &Map<String, Value>, key: &str) -> f64 {
    line.get(key).and_then(Value::as_f64).unwrap_or_default()
}

/// Rounds a number of seconds to microseconds.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::super::testing::LINES;
    use super::*;

    fn answer() -> Answer {
        let mut answer = Answer {
            file: "s.mp3".to_owned(),
            song: Song {
                duration_s: 6.0,
                waveform: vec![(-0.5, 0.5), (-0.25, 0.75)],
                spectrogram: Some(Spectrogram {
                    name: "log_mel".to_owned(),
                    columns: 2,
                    values: vec![0.0, 1.0, 2.0, 3.0],
                    from_s: 0.0,
                    to_s: 3.0,
                }),
                ..Song::default()
            },
            ..Answer::default()
        };

        let lines: Vec<String> = LINES.lines().map(str::to_owned).collect();
        answer.add("one", 0.25, &lines).expect("JSON");
        answer.add("two", 0.5, &lines[..1]).expect("JSON");

        answer
    }

    #[test]
    fn json_contains_the_lines_of_predict() {
        let json = answer().to_json(1);
        assert_eq!(json["answers"].as_array().map(Vec::len), Some(4));
        assert_eq!(json["answers"][2]["majority"], "Rock");
        assert_eq!(json["answers"][2]["top"].as_array().map(Vec::len), Some(1));
        assert_eq!(json["answers"][3]["run"], "two");
        assert_eq!(json["seconds"]["models"]["two"], 0.5);
        assert!(answer().add("three", 0.0, &["no JSON".to_owned()]).is_err());
    }

    #[test]
    fn html_contains_charts_and_escaped_text() {
        let html = answer().to_html();
        assert!(!html.contains("<b>"), "{html}");
        // Two charts of means, one of segments, a waveform and a spectrogram.
        assert_eq!(html.matches("<figure").count(), 5);
        assert!(html.contains("&lt;b&gt;Metal"));
        assert_eq!(answer().summary(), "one: <b>Metal 0.65; two: Rock 0.50");
    }
}
