//! What MLflow takes in one request, and which names. Source: mlflow/utils/validation.py, mlflow 3.17.

use serde_json::{Value, json};

use super::Figures;

/// Figures in one request.
pub(super) const METRICS_MAX: usize = 1000;
/// Parameters, or tags, in one request.
pub(super) const PARAMETERS_MAX: usize = 100;
/// Characters of a parameter's value.
const PARAMETER_CHARS_MAX: usize = 6000;
/// Characters of a name.
const NAME_CHARS_MAX: usize = 250;
/// Bytes of parameters in one request. MLflow refuses a request of more than 1 MB; JSON may write a byte as six.
const PARAMETER_BYTES_MAX: usize = 150_000;

/// A name that MLflow takes: letters, digits, and `_ - . : /` and space; others become `_`.
pub(super) fn name(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars().take(NAME_CHARS_MAX) {
        let is_taken = c.is_alphanumeric() || "_-.: /".contains(c);
        name.push(if is_taken { c } else { '_' });
    }

    // As a path it must be the one that it is written as: `/a`, `a/`, `a//b` and `../a` are none.
    let is_path = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if is_path {
        name
    } else {
        name.replace(['/', '.'], "_")
    }
}

/// Parameters in requests that MLflow takes.
pub(super) fn parameter_batches(parameters: &[(String, String)]) -> Vec<Vec<Value>> {
    let mut batches: Vec<Vec<Value>> = Vec::new();
    let mut bytes = 0;
    for (key, value) in parameters {
        let value: String = value.chars().take(PARAMETER_CHARS_MAX).collect();
        bytes += key.len() + value.len();

        let is_full = batches
            .last()
            .is_none_or(|batch| batch.len() == PARAMETERS_MAX);
        if is_full || bytes > PARAMETER_BYTES_MAX {
            batches.push(Vec::new());
            bytes = key.len() + value.len();
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(json!({"key": name(key), "value": value}));
        }
    }
    batches
}

/// Figures as MLflow takes them. What is not finite is a word, as in the JSON form of protocol buffers.
pub(super) fn metrics(figures: &Figures) -> Vec<Value> {
    let mut metrics = Vec::new();
    for (key, value) in &figures.values {
        let value = if value.is_finite() {
            json!(value)
        } else if value.is_nan() {
            json!("NaN")
        } else if *value > 0.0 {
            json!("Infinity")
        } else {
            json!("-Infinity")
        };
        metrics.push(json!({
            "key": name(key),
            "value": value,
            "timestamp": figures.unix_ms,
            "step": figures.step,
        }));
    }
    // More than a request takes is no figure of an epoch.
    metrics.truncate(METRICS_MAX);
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_mlflow_takes() {
        for (text, want) in [
            ("validation/macro_f1", "validation/macro_f1"),
            ("optimizer.lr", "optimizer.lr"),
            ("größe 1:2", "größe 1:2"),
            ("a\"b\n=c", "a_b__c"),
            ("/a", "_a"),
            ("../a", "___a"),
            ("a//b", "a__b"),
        ] {
            assert_eq!(name(text), want);
        }

        assert_eq!(name(&"ä".repeat(300)).chars().count(), NAME_CHARS_MAX);
    }

    #[test]
    fn parameters_are_cut_and_counted() {
        let mut parameters = Vec::new();
        for number in 0..250 {
            parameters.push((format!("key.{number}"), "value".to_owned()));
        }
        let lengths: Vec<usize> = parameter_batches(&parameters)
            .iter()
            .map(Vec::len)
            .collect();
        assert_eq!(lengths, [100, 100, 50]);

        for (_, value) in &mut parameters {
            *value = "ä".repeat(7000);
        }
        let batches = parameter_batches(&parameters);
        assert!(batches.len() > 3);
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 250);
        for batch in batches {
            assert!(Value::from(batch.clone()).to_string().len() < 1_000_000);
            let value = batch[0]["value"].as_str().expect("text");
            assert_eq!(value.chars().count(), PARAMETER_CHARS_MAX);
        }
    }

    #[test]
    fn what_is_not_finite_is_a_word() {
        let figures = Figures {
            step: 3,
            unix_ms: 4,
            values: vec![
                ("a".to_owned(), 0.5),
                ("b".to_owned(), f64::NAN),
                ("c".to_owned(), f64::NEG_INFINITY),
            ],
        };

        assert_eq!(
            Value::from(metrics(&figures)),
            json!([
                {"key": "a", "value": 0.5, "timestamp": 4, "step": 3},
                {"key": "b", "value": "NaN", "timestamp": 4, "step": 3},
                {"key": "c", "value": "-Infinity", "timestamp": 4, "step": 3},
            ])
        );
    }
}
