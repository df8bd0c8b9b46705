//! Counters and histograms in the text format of Prometheus.

use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Upper bounds of the histogram buckets in seconds: from the time for a short clip to the timeout of a response.
const BOUNDS_S: [f64; 11] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0,
];

/// Prometheus metrics of the server.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    /// Bytes of completely received uploads.
    pub upload_bytes: IntCounter,
    in_flight: IntGauge,
    seconds: HistogramVec,
    /// Number of starts of the process of each model.
    pub model_starts: IntCounterVec,
    model_ready: IntGaugeVec,
}

impl Metrics {
    /// Creates and registers all metrics.
    ///
    /// # Errors
    /// An error if a name is invalid or registered twice.
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some("wavemill".to_owned()), None)?;

        let requests = Opts::new("requests_total", "Number of responses by path and status.");
        let seconds = HistogramOpts::new("seconds", "Seconds spent on each part of a response.");
        let starts = Opts::new(
            "model_starts_total",
            "Number of starts of a model's process.",
        );
        let ready = Opts::new("model_ready", "1 if the model is ready, otherwise 0.");

        Ok(Self {
            requests: registered(&registry, IntCounterVec::new(requests, &["path", "status"]))?,
            upload_bytes: registered(
                &registry,
                IntCounter::new(
                    "upload_bytes_total",
                    "Bytes of completely received uploads.",
                ),
            )?,
            in_flight: registered(
                &registry,
                IntGauge::new(
                    "in_flight",
                    "Number of uploads that are being received, waiting or being processed.",
                ),
            )?,
            seconds: registered(
                &registry,
                HistogramVec::new(seconds.buckets(BOUNDS_S.to_vec()), &["part"]),
            )?,
            model_starts: registered(&registry, IntCounterVec::new(starts, &["run"]))?,
            model_ready: registered(&registry, IntGaugeVec::new(ready, &["run"]))?,
            registry,
        })
    }

    pub(crate) fn request(&self, path: &str, status: u16) {
        let labels = [path, &status.to_string()];
        self.requests.with_label_values(&labels).inc();
    }

    /// Records the time of a phase: `decode`, `features`, `model`, or `whole` from the end of the upload to the response.
    pub(crate) fn took(&self, part: &str, seconds: f64) {
        self.seconds.with_label_values(&[part]).observe(seconds);
    }

    /// Formats all metrics as text. `models` has the name of each model and whether it is ready.
    pub(crate) fn text<'a>(
        &self,
        in_flight: usize,
        models: impl Iterator<Item = (&'a str, bool)>,
    ) -> String {
        self.in_flight.set(in_flight as i64);
        for (run, is_ready) in models {
            let ready = self.model_ready.with_label_values(&[run]);
            ready.set(i64::from(is_ready));
        }

        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("a registry returns only named metrics with values")
    }
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<C>,
) -> prometheus::Result<C> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_summed_up() {
        let metrics = Metrics::new().expect("valid names");
        metrics.request("/", 200);
        metrics.request("/", 200);
        metrics.upload_bytes.inc_by(7);
        for seconds in [0.02, 0.2, 500.0] {
            metrics.took("decode", seconds);
        }

        metrics.model_starts.with_label_values(&["a\"b"]).inc_by(2);

        let text = metrics.text(3, [("a\"b", true)].into_iter());

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

        for line in text.lines() {
            let is_well_formed = line.starts_with("# ") || line.split(' ').count() == 2;
            assert!(is_well_formed, "{line}: {text}");
        }
    }
}
