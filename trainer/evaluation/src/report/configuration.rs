//! The configurations of a report's runs, and the differences between them.

use std::collections::{BTreeMap, BTreeSet};

use wavemill_pages::{Cell, Section, Table};
use wavemill_schemas::config::dotted;

use super::RunRecord;

/// The values of a configuration by dotted key, such as `train.epochs`, in the syntax of `--set`.
pub(super) type Values = BTreeMap<String, String>;

pub(super) fn section(runs: &[RunRecord]) -> Section {
    let mut section = Section::new("Configuration");
    let mut all = Vec::new();
    for run in runs {
        all.push(values(&run.config));
    }
    let keys: BTreeSet<&String> = all.iter().flat_map(BTreeMap::keys).collect();
    if keys.is_empty() {
        return section;
    }

    if runs.len() > 1 {
        let differing = differing_keys(&all.iter().collect::<Vec<_>>());
        if differing.is_empty() {
            section.add_text("The configurations of the runs are identical.");
        } else {
            let caption = "Differences between the runs";
            section.add_table(table(caption, runs, &all, &differing));
        }
    }
    section.add_details("All keys with a value", table("", runs, &all, &keys));
    section
}

/// Returns the keys in which configurations differ.
pub(super) fn differing_keys<'a>(all: &[&'a Values]) -> BTreeSet<&'a String> {
    let mut keys: BTreeSet<&String> = all.iter().flat_map(|values| values.keys()).collect();
    keys.retain(|key| {
        all.iter()
            .any(|values| values.get(*key) != all[0].get(*key))
    });
    keys
}

/// Builds a table with one row per configuration key and one column per run.
fn table(caption: &str, runs: &[RunRecord], all: &[Values], keys: &BTreeSet<&String>) -> Table {
    let mut table = Table::new(caption, &["key"]);
    table.head.extend(runs.iter().map(|run| run.name.clone()));
    for key in keys {
        let mut cells = vec![Cell::from(key.as_str())];
        for values in all {
            cells.push(values.get(*key).cloned().into());
        }
        table.rows.push(cells);
    }
    table
}

/// Converts a configuration to a flat map from dotted keys to values.
pub(super) fn values(config: &toml::Table) -> Values {
    let mut values = Values::new();
    for (key, value) in dotted(config) {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        values.insert(key, text);
    }
    values
}
