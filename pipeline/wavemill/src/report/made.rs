//! Shows how a version was made: run times, engine and recipe.

use std::collections::BTreeMap;

use serde_json::Value;
use wavemill_pages::{Bars, Chart, Plot, Section, Series, Table, seconds};
use wavemill_schemas::recipe::Recipe;
use wavemill_schemas::text::counted;
use wavemill_store::named_parts;

use super::Subject;

pub(super) fn section(subject: Subject<'_>) -> Section {
    let manifest = subject.manifest;
    let mut section = Section::new("Provenance");
    match subject.store.run_times(&manifest.plan_id, subject.version) {
        None => {
            section.add_text("The record of the run that made this version is not in the store.")
        }
        Some(times) => {
            section.add_text(format!(
                "The run took {} with {}, by wavemill {}. It may have reused finished shards of earlier runs.",
                seconds(times.seconds),
                counted(times.threads, "thread"),
                times.wavemill
            ));
            section.add_charts([
                by_stage("Wall-clock time by phase", &times.wall_s),
                by_stage("CPU time of all threads by stage", &times.cpu_s),
            ]);
        }
    }

    let engine = serde_json::to_value(&manifest.engine).unwrap_or_default();
    let recipe = shown_recipe(&manifest.recipe);
    section.add_details("Engine", keys_of(&engine));
    section.add_details("Recipe, including --set values", keys_of(&recipe));
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
    let bars = Bars {
        named: "stage".to_owned(),
        names: order.iter().map(|(name, _)| (*name).clone()).collect(),
        series: vec![Series {
            name: "time".to_owned(),
            values: order.iter().map(|(_, span_s)| **span_s).collect(),
        }],
        unit: "s".to_owned(),
    };
    Chart::new(title, "", Plot::Bars(bars))
}

/// Builds a table of all values in a JSON object by dotted key.
fn keys_of(value: &Value) -> Table {
    let mut table = Table::new("", &["key", "value"]);
    add_keys("", value, &mut table);
    table
}

fn add_keys(key: &str, value: &Value, table: &mut Table) {
    let parts = named_parts(value).unwrap_or_default();
    if parts.is_empty() {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        table.rows.push(vec![key.into(), text.into()]);
    }
    for (name, part) in parts {
        // The outermost section has an empty key.
        let below = format!("{key}.{name}");
        add_keys(below.trim_start_matches('.'), part, table);
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
