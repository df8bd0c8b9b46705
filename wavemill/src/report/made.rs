//! Shows how a version was made: run times, engine and recipe.

use std::collections::BTreeMap;

use serde_json::Value;
use wavemill_pages::{Bars, Chart, Part, Plot, Section, Series, Table, seconds};
use wavemill_schemas::recipe::Recipe;

use super::Subject;

pub(super) fn section(subject: Subject<'_>) -> Section {
    let manifest = subject.manifest;
    let mut section = Section::new("Provenance");
    match subject.store.run_times(&manifest.plan_id, subject.version) {
        None => section.parts.push(Part::Text(
            "The record of the run that made this version is not in the store.".to_owned(),
        )),
        Some(times) => {
            section.parts.push(Part::Text(format!(
                "The run took {} with {} threads, by wavemill {}. It may have reused finished shards of earlier runs.",
                seconds(times.seconds),
                times.threads,
                times.wavemill
            )));
            section.parts.push(Part::Charts(vec![
                by_stage("Wall-clock time by phase", &times.wall_s),
                by_stage("CPU time of all threads by stage", &times.cpu_s),
            ]));
        }
    }

    let engine = serde_json::to_value(&manifest.engine).unwrap_or_default();
    section
        .parts
        .push(Part::Details("Engine".to_owned(), keys_of("key", &engine)));
    section.parts.push(Part::Details(
        "Recipe, including --set values".to_owned(),
        keys_of("key", &shown_recipe(&manifest.recipe)),
    ));
    section
}

/// Converts a recipe to JSON. Omits the defaults for audio from a recipe for pictures, since they are not used.
fn shown_recipe(recipe: &Recipe) -> Value {
    let mut shown = serde_json::to_value(recipe).unwrap_or_default();
    if !recipe.catalog.dataset.is_of_pictures() {
        return shown;
    }

    if let Some(sections) = shown.as_object_mut() {
        sections.remove("audio");
    }
    let features = shown["features"].as_array_mut().into_iter().flatten();
    for feature in features.filter_map(Value::as_object_mut) {
        feature.remove("preset");
        feature.remove("normalize");
    }
    shown
}

fn by_stage(title: &str, stages: &BTreeMap<String, f64>) -> Chart {
    let mut order: Vec<(&String, &f64)> = stages.iter().collect();
    order.sort_by(|a, b| b.1.total_cmp(a.1));
    Chart {
        title: title.to_owned(),
        note: String::new(),
        plot: Plot::Bars(Bars {
            named: "stage".to_owned(),
            names: order.iter().map(|(name, _)| (*name).clone()).collect(),
            series: vec![Series {
                name: "time".to_owned(),
                values: order.iter().map(|(_, span_s)| **span_s).collect(),
            }],
            unit: "s".to_owned(),
        }),
    }
}

/// Builds a table of all values in a JSON object by dotted key.
fn keys_of(heading: &str, value: &Value) -> Table {
    let mut table = Table::new("", &[heading, "value"]);
    add_keys(String::new(), value, &mut table);
    table
}

/// Appends a name to the dotted key of its section. The outermost section has an empty key.
fn below(key: &str, name: &str) -> String {
    if key.is_empty() {
        name.to_owned()
    } else {
        format!("{key}.{name}")
    }
}

fn add_keys(key: String, value: &Value, table: &mut Table) {
    match value {
        Value::Object(values) => {
            for (name, value) in values {
                add_keys(below(&key, name), value, table);
            }
        }
        // Items of a list of sections are addressed by name, as in `--set`. A list of values is a single value.
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (place, item) in items.iter().enumerate() {
                let name = item.get("name").or_else(|| item.get("step"));
                let name = name.and_then(Value::as_str).map(str::to_owned);

                // An item without a name is addressed by its index.
                let name = name.unwrap_or(place.to_string());
                add_keys(below(&key, &name), item, table);
            }
        }
        Value::String(text) => table.rows.push(vec![key.into(), text.as_str().into()]),
        other => table.rows.push(vec![key.into(), other.to_string().into()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_recipe_for_pictures_shows_nothing_of_audio() {
        let of_pictures = Recipe::load("gtzan-published-images", &[]).expect("a shipped recipe");
        let shown = shown_recipe(&of_pictures);
        assert!(shown["audio"].is_null(), "{shown}");
        assert_eq!(shown["features"][0]["op"], "image");
        assert!(shown["features"][0]["preset"].is_null(), "{shown}");

        let of_audio = Recipe::load("demo", &[]).expect("a shipped recipe");
        let shown = shown_recipe(&of_audio);
        assert!(shown["audio"]["sample_rate_hz"].is_number(), "{shown}");
        assert!(shown["features"][0]["preset"].is_string(), "{shown}");
    }

    #[test]
    fn keys_are_those_of_set() {
        let table = keys_of(
            "key",
            &json!({"audio": {"duration_s": 3.0}, "features": [{"name": "log_mel", "n_mels": 40}],
                    "fractions": [0.8, 0.2]}),
        );

        let keys: Vec<String> = table
            .rows
            .iter()
            .map(|row| format!("{:?}", row[0]))
            .collect();

        let wanted = [
            "Text(\"audio.duration_s\")",
            "Text(\"features.log_mel.n_mels\")",
            "Text(\"features.log_mel.name\")",
            "Text(\"fractions\")",
        ];
        assert_eq!(keys, wanted);
    }
}
