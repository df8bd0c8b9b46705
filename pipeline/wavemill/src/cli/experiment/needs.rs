//! Checks that the data contains everything that the training runs need, before any store is extracted: otherwise, a
//! missing table would end the command after hours of work.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;
use wavemill_catalog as catalog;
use wavemill_extract::run::{Preview, SplitLabels, require_space};
use wavemill_schemas::config;
use wavemill_schemas::recipe::Dataset;
use wavemill_schemas::split::Split;
use wavemill_terminal::exit::UsageError;

use super::data::FoundData;
use super::outcome::unique;
use super::run::RunArgs;
use super::trainer;
use super::work::{Cell, StoreWork, Work};

/// Table whose columns are listed under `data.metadata` in a training configuration.
const TABLE: &str = "fma_features";

/// The inputs of an architecture, as `wavemill train models --json` lists them.
#[derive(Debug, Deserialize)]
pub(super) struct ModelInputs {
    name: String,
    #[serde(default)]
    inputs: Vec<ModelInput>,
}

#[derive(Debug, Deserialize)]
struct ModelInput {
    /// Kind of the input: `spectrogram`, `metadata` or `ids`.
    name: String,
}

/// The name of a training run, and a problem that prevents it.
type Problem<'a> = (&'a str, String);

/// The data from which a store will be extracted, and a preview of the extraction.
struct StoreData<'a> {
    work: &'a StoreWork,
    found: &'a FoundData,
    preview: &'a Preview,
    /// Columns of [`TABLE`]; `None` if the store will have no such table.
    columns: Option<Vec<String>>,
}

impl ModelInputs {
    /// Reads the inputs of all model architectures from `wavemill train models`.
    ///
    /// # Errors
    /// The trainer fails, or its output is not the expected JSON.
    pub(super) fn all() -> Result<Vec<Self>> {
        let mut command = trainer::command("models");
        command.arg("--json");
        let text = trainer::run(command)?;
        serde_json::from_str(&text).context("unexpected output of `wavemill train models --json`")
    }

    fn reads(&self, input: &str) -> bool {
        self.inputs.iter().any(|one| one.name == input)
    }
}

/// Rejects stores and training runs for which the data is not sufficient: extractions that `extract` would refuse,
/// missing columns, empty splits, and too little disk space for all stores together. Without `models`, the
/// inputs of models are not checked.
///
/// # Errors
/// [`UsageError`] if the data lacks something that a training run needs; the refusal of a preview, or that of
/// [`require_space`].
pub(super) fn check(
    args: &RunArgs,
    work: &Work,
    data: &[FoundData],
    mut previews: Vec<Preview>,
    models: Option<&[ModelInputs]>,
) -> Result<()> {
    for (store, preview) in work.stores.iter().zip(&mut previews) {
        if let Some(refusal) = preview.refusal.take() {
            return Err(refusal)
                .with_context(|| format!("store {} (other data need another --out)", store.name));
        }
    }

    let mut stores = Vec::new();
    for ((work, found), preview) in work.stores.iter().zip(data).zip(&previews) {
        stores.push(StoreData {
            work,
            found,
            preview,
            columns: table_columns(work, found)?,
        });
    }

    let mut problems = Vec::new();
    for cell in &work.cells {
        let run = &work.runs[cell.run];
        if let Some(message) = stores[run.store].problem(&run.config.config, models) {
            problems.push((cell.train.as_str(), message));
        }
    }
    if !problems.is_empty() {
        return Err(UsageError(describe_problems(&problems, &work.cells)).into());
    }

    require_space(&args.out.join("stores"), needed_bytes(&previews))
        .context("--out: not enough space for all stores")
}

/// Returns the columns of the table `fma_features` that a store will have, read from the metadata's `features.csv`.
fn table_columns(store: &StoreWork, data: &FoundData) -> Result<Option<Vec<String>>> {
    let (Some(metadata), Dataset::Fma) = (&data.metadata, store.recipe.recipe.catalog.dataset)
    else {
        return Ok(None);
    };
    let tables = catalog::extra_tables(metadata)?;
    let table = tables.iter().find(|table| table.name() == TABLE);
    Ok(table.map(|table| {
        let schema = table.schema();
        let names = schema.fields().iter().map(|field| field.name().clone());
        names.collect()
    }))
}

impl StoreData<'_> {
    /// Returns the first problem that prevents a training run with `config` on this store.
    fn problem(&self, config: &config::Config, models: Option<&[ModelInputs]>) -> Option<String> {
        if let Some(models) = models {
            let name = &config.model.name;
            let Some(model) = models.iter().find(|model| model.name == *name) else {
                return Some(format!(
                    "model.name = {name}: no such model; `wavemill train models` lists all models"
                ));
            };
            if let Some(message) = self.columns_problem(&config.data, model) {
                return Some(message);
            }
        }
        self.splits_problem(&config.data)
    }

    fn columns_problem(&self, data: &config::Data, model: &ModelInputs) -> Option<String> {
        if !model.reads("metadata") || (!model.reads("spectrogram") && self.is_vector(data)) {
            return None;
        }

        let place = match &self.found.metadata {
            Some(metadata) => metadata.display().to_string(),
            None => "the data".to_owned(),
        };
        let Some(columns) = &self.columns else {
            return Some(format!(
                "the model reads the table {TABLE}, but {place} has no readable features.csv: add the file next to \
                 tracks.csv"
            ));
        };
        if data.metadata.is_empty() {
            return Some(format!(
                "the model reads columns of {TABLE}, but data.metadata names none: select columns, for example with \
                 --train-set 'data.metadata=[\"mfcc\"]'"
            ));
        }
        let mut prefixes = data.metadata.iter();
        let missing = prefixes.find(|prefix| !has_prefix(columns, prefix))?;
        Some(format!(
            "the model reads the columns {missing} of {TABLE}, but features.csv of {place} has none of them: change \
             data.metadata with --train-set"
        ))
    }

    /// Reports whether the feature that the configuration selects consists of vectors, which can replace metadata for a
    /// model that reads nothing else.
    fn is_vector(&self, data: &config::Data) -> bool {
        let mut features = self.preview.features.iter();
        let feature = match &data.feature {
            Some(name) => features.find(|feature| feature.name == *name),
            None => features.next(),
        };
        feature.is_some_and(|feature| feature.is_vector())
    }

    /// Returns a problem if a split has no clip, or its clips lack the labels that the trainer requires.
    fn splits_problem(&self, data: &config::Data) -> Option<String> {
        let labels = &self.preview.labels;
        let rule = match &data.split {
            Some(rule) => rule.as_str(),
            None => self.work.recipe.recipe.split.rule.name(),
        };
        let Some(splits) = labels.get(rule) else {
            let rules: Vec<&str> = labels.keys().map(String::as_str).collect();
            return Some(format!(
                "data.split = {rule}: not a rule of the store {}, which will have {}",
                self.work.name,
                rules.join(", ")
            ));
        };

        let mut empty = Split::ALL.map(Split::name).to_vec();
        empty.retain(|split| !splits.contains_key(*split));
        let problem = if empty.is_empty() {
            self.labels_problem(data, splits)?
        } else {
            format!(
                "none of the {} clips planned for the store {} is in the split {}",
                self.preview.clips_planned,
                self.work.name,
                empty.join(", ")
            )
        };
        Some(format!(
            "{problem} under the rule {rule}: choose more clips (--limit, --set catalog.subset) or another rule (--set \
             split.rule, --train-set data.split)"
        ))
    }

    /// Returns a problem if a split has too few classes. Training needs two classes of each target, and the
    /// other splits need one, to compute a score.
    fn labels_problem(
        &self,
        data: &config::Data,
        splits: &BTreeMap<String, SplitLabels>,
    ) -> Option<String> {
        for (index, target) in self.work.recipe.recipe.targets.iter().enumerate() {
            // The trainer reads the first target if the configuration names none.
            let is_read = match data.targets.as_slice() {
                [] => index == 0,
                names => names.contains(&target.name),
            };
            if !is_read {
                continue;
            }

            for (split, needed) in Split::ALL.map(Split::name).into_iter().zip([2, 1, 1]) {
                let Some(found) = splits.get(split) else {
                    continue;
                };
                let classes = found.classes.get(index).map_or(0, BTreeMap::len);
                if classes < needed {
                    return Some(format!(
                        "the {} clips planned for the store {} in the split {split} have {classes} instead of at least {needed} \
                         classes of the target {}",
                        found.clips, self.work.name, target.name
                    ));
                }
            }
        }
        None
    }
}

fn has_prefix(columns: &[String], prefix: &str) -> bool {
    columns
        .iter()
        .any(|name| name != "track_id" && name.starts_with(prefix))
}

/// Formats all problems on one line, with the flags that select only the training runs without a problem.
fn describe_problems(problems: &[Problem<'_>], cells: &[Cell]) -> String {
    let mut lines = Vec::new();
    for why in unique(problems.iter().map(|(_, why)| why)) {
        let same = problems.iter().filter(|(_, other)| other == why);
        let trainings = unique(same.map(|(train, _)| *train)).join(", ");
        lines.push(format!("train {trainings}: {why}"));
    }

    let all = unique(cells.iter().map(|cell| cell.train.as_str()));
    let others = all
        .into_iter()
        .filter(|name| problems.iter().all(|(train, _)| train != name));
    let others: Vec<String> = others.map(|name| format!("--train {name}")).collect();
    if !others.is_empty() {
        lines.push(format!("or train only the others: {}", others.join(" ")));
    }
    lines.join("; ")
}

/// Returns the minimum number of bytes that all stores together will take on disk.
fn needed_bytes(previews: &[Preview]) -> u64 {
    let works = previews.iter().filter_map(|preview| preview.work);
    works.map(|work| work.least_bytes).sum()
}
