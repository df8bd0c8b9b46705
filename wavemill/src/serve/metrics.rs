//! Counters and histograms in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Upper bounds of the histogram buckets in seconds: from the time for a short clip to the timeout of a response.
const BOUNDS_S: [f64; 11] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0,
];

/// Phase of the processing of a song.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Decode,
    Features,
    Model,
    /// From the end of the upload to the response.
    Whole,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Features => "features",
            Self::Model => "model",
            Self::Whole => "whole",
        }
    }
}

/// Histogram of the times of one phase.
#[derive(Clone, Debug, Default)]
struct Times {
    /// Number of values in each bucket, not cumulative. The last bucket contains values above all bounds.
    counts: [u64; BOUNDS_S.len() + 1],
    sum_s: f64,
}

/// Metrics of the server.
#[derive(Debug, Default)]
pub(crate) struct Metrics(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Number of requests by path and status.
    requests: BTreeMap<(String, u16), u64>,
    upload_bytes: u64,
    times: BTreeMap<Part, Times>,
}

/// Values that are not counted in [`Metrics`].
pub(crate) struct Gauges<'a> {
    pub in_flight: usize,
    /// Name, number of starts and readiness of each model.
    pub models: Vec<(&'a str, u64, bool)>,
}

impl Metrics {
    pub(crate) fn request(&self, path: &str, status: u16) {
        let mut counts = self.counts();
        *counts
            .requests
            .entry((path.to_owned(), status))
            .or_default() += 1;
    }

    pub(crate) fn uploaded(&self, bytes: usize) {
        self.counts().upload_bytes += bytes as u64;
    }

    pub(crate) fn took(&self, part: Part, seconds: f64) {
        let mut counts = self.counts();
        let times = counts.times.entry(part).or_default();
        let bucket = BOUNDS_S.iter().position(|bound| seconds <= *bound);
        times.counts[bucket.unwrap_or(BOUNDS_S.len())] += 1;
        times.sum_s += seconds;
    }

    /// Formats all metrics as text.
    pub(crate) fn text(&self, gauges: &Gauges<'_>) -> String {
        let counts = self.counts();
        let mut text = String::new();

        head(
            &mut text,
            "requests_total",
            "counter",
            "Number of responses by path and status.",
        );
        for ((path, status), n) in &counts.requests {
            line(
                &mut text,
                &format!("requests_total{{path=\"{path}\",status=\"{status}\"}}"),
                *n as f64,
            );
        }
        head(
            &mut text,
            "upload_bytes_total",
            "counter",
            "Bytes of completely received uploads.",
        );
        line(&mut text, "upload_bytes_total", counts.upload_bytes as f64);
        head(
            &mut text,
            "in_flight",
            "gauge",
            "Number of uploads that are being received, waiting or being processed.",
        );
        line(&mut text, "in_flight", gauges.in_flight as f64);

        head(
            &mut text,
            "seconds",
            "histogram",
            "Seconds spent on each part of a response.",
        );
        for (part, times) in &counts.times {
            times.write(&mut text, part.name());
        }

        head(
            &mut text,
            "model_starts_total",
            "counter",
            "Number of starts of a model's process.",
        );
        for (run, starts, _) in &gauges.models {
            line(
                &mut text,
                &format!("model_starts_total{{run=\"{}\"}}", escaped(run)),
                *starts as f64,
            );
        }
        head(
            &mut text,
            "model_ready",
            "gauge",
            "1 if the model is ready, otherwise 0.",
        );
        for (run, _, is_ready) in &gauges.models {
            let value = if *is_ready { 1.0 } else { 0.0 };
            line(
                &mut text,
                &format!("model_ready{{run=\"{}\"}}", escaped(run)),
                value,
            );
        }
        text
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Times {
    fn write(&self, text: &mut String, part: &str) {
        // The buckets of a Prometheus histogram are cumulative.
        let mut below = 0;
        for (n, bound) in self.counts.iter().zip(BOUNDS_S) {
            below += n;
            line(
                text,
                &format!("seconds_bucket{{part=\"{part}\",le=\"{bound}\"}}"),
                below as f64,
            );
        }

        let all: u64 = self.counts.iter().sum();
        line(
            text,
            &format!("seconds_bucket{{part=\"{part}\",le=\"+Inf\"}}"),
            all as f64,
        );
        line(text, &format!("seconds_sum{{part=\"{part}\"}}"), self.sum_s);
        line(
            text,
            &format!("seconds_count{{part=\"{part}\"}}"),
            all as f64,
        );
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(
        text,
        "# HELP wavemill_{name} {help}\n# TYPE wavemill_{name} {kind}"
    );
}

fn line(text: &mut String, name: &str, value: f64) {
    let _ = writeln!(text, "wavemill_{name} {value}");
}

/// Escapes the value of a label.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_summed_up() {
        let metrics = Metrics::default();
        metrics.request("/", 200);
        metrics.request("/", 200);
        metrics.uploaded(7);
        for seconds in [0.02, 0.2, 500.0] {
            metrics.took(Part::Decode, seconds);
        }

        let text = metrics.text(&Gauges {
            in_flight: 3,
            models: vec![("a\"b", 2, true)],
        });

        for line in [
            "wavemill_requests_total{path=\"/\",status=\"200\"} 2",
            "wavemill_upload_bytes_total 7",
            "wavemill_in_flight 3",
            "wavemill_seconds_bucket{part=\"decode\",le=\"0.01\"} 0",
            "wavemill_seconds_bucket{part=\"decode\",le=\"0.025\"} 1",
            "wavemill_seconds_bucket{part=\"decode\",le=\"120\"} 2",
            "wavemill_seconds_bucket{part=\"decode\",le=\"+Inf\"} 3",
            "wavemill_seconds_count{part=\"decode\"} 3",
            "wavemill_model_starts_total{run=\"a\\\"b\"} 2",
            "wavemill_model_ready{run=\"a\\\"b\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }

        let is_well_formed = |line: &str| line.starts_with("# ") || line.split(' ').count() == 2;
        assert!(text.lines().all(is_well_formed), "{text}");
    }
}
