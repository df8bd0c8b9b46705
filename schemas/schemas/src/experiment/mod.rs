//! Experiments: a recipe, variants of it, the models trained on its stores, and the results claimed by a document.
//!
//! An experiment reproduces a named document. Its recipe uses a split without leakage. The variant [`AS_IN_DOCUMENT`]
//! uses the document's own split, so that both can be scored side by side.

mod check;
mod shipped;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wavemill_options::did_you_mean;

pub use check::check_pair;
pub use shipped::SHIPPED;

use crate::config::{Config, ShippedConfig, error_at};
use crate::exit::PlainError;
use crate::recipe::{Recipe, Source};
use crate::settings;
use crate::split::Split;

/// Name of the variant that uses the recipe without changes.
pub const BASE: &str = "base";

/// Name of the variant whose `set` and `train` reproduce the document's own split.
pub const AS_IN_DOCUMENT: &str = "as-in-document";

/// Separator between the names of variants that are applied on top of each other.
pub const JOIN: char = '+';

/// An experiment file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Name of the experiment, as shown by `experiment list`.
    pub name: String,
    /// Purpose of the experiment, in one line.
    pub description: String,
    /// Name of the document that the experiment reproduces, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// Name of a shipped recipe, or path of a recipe file relative to the experiment file.
    pub recipe: String,
    /// File names of the data set's archives.
    #[serde(default)]
    pub data: DataSpec,
    /// Variants, which change the recipe and the training configurations; selected by `--variant`.
    #[serde(default)]
    pub variants: Vec<Variant>,
    /// Models to train.
    pub train: Vec<TrainSpec>,
    /// Search space of `run --sweep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<SweepSpec>,
    /// Results that the document claims.
    #[serde(default)]
    pub claims: Vec<Claim>,
}

/// `[data]`: names to search for in the folder given by `--data`, in order of preference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataSpec {
    /// File names of the metadata; empty if the data set has none.
    pub metadata: Vec<String>,
    /// File names of the audio.
    pub audio: Vec<String>,
    /// Archives whose checksums are known.
    pub published: Vec<PublishedArchive>,
}

/// `[[data.published]]`: an archive with its published checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedArchive {
    /// File name.
    pub name: String,
    /// SHA-1 published by the archive's authors, 40 hex digits.
    pub sha1: String,
}

/// `[[variants]]`: changes of the recipe and of all trainings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Name, for `--variant`.
    pub name: String,
    /// Description of the variant, in one line.
    pub about: String,
    /// Recipe that replaces the experiment's: a shipped name, or a path relative to the experiment file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// File names of the audio for the variant's own `recipe`; they replace `data.audio`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<Vec<String>>,
    /// Changes of the recipe, as `key=value`.
    #[serde(default)]
    pub set: Vec<String>,
    /// Changes of the training configurations, as `key=value`.
    #[serde(default)]
    pub train: Vec<String>,
    /// Changes of the recipe, as `key=value`, that reproduce the document's split in this variant. They replace those
    /// of `as-in-document`. If several variants are joined, all their changes apply, starting with variants that only
    /// change the split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_as_in_document: Option<Vec<String>>,
}

/// `[[train]]`: a training configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSpec {
    /// Name of the training, used in `--train`, tables and folders.
    pub name: String,
    /// Shipped configuration to start from (`wavemill train fit --like list`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<String>,
    /// Configuration file that overrides `like`, relative to the experiment file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// Changes applied after `like` and `config`, as `key=value`.
    #[serde(default)]
    pub set: Vec<String>,
}

/// `[sweep]`: hyperparameter search on the store of the base variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepSpec {
    /// Shipped configuration shared by all trials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<String>,
    /// Changes of the shared configuration, as `key=value`.
    #[serde(default)]
    pub set: Vec<String>,
    /// Search space, in the format of a `wavemill train sweep` file.
    pub search: toml::Table,
}

/// The splits that claims can be about: models are not scored on the rows that they learn from.
#[derive(Deserialize)]
#[serde(remote = "Split", rename_all = "snake_case")]
enum ScoredSplit {
    Test,
    Validation,
}

/// Unit over which a score is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// Tracks; the probabilities of their segments are averaged.
    #[default]
    Tracks,
    /// Individual segments.
    Segments,
}

/// Metric of a claimed result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimMetric {
    /// Share of rows whose most probable class is correct.
    Accuracy,
    /// Recall, averaged over classes.
    BalancedAccuracy,
    /// F1 score, averaged over classes.
    MacroF1,
    /// Recall, averaged over classes, under the name that several documents use.
    Recall,
    /// Share of rows whose class is among the three most probable ones.
    #[serde(rename = "top_3")]
    Top3,
    /// Mean loss, weighted as in training.
    Loss,
}

impl ClaimMetric {
    /// Returns the name of the metric, as shown in tables.
    pub const fn display_name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::BalancedAccuracy => "balanced accuracy",
            Self::MacroF1 => "macro F1",
            Self::Recall => "macro recall",
            Self::Top3 => "top-3 accuracy",
            Self::Loss => "loss",
        }
    }
}

/// `[[claims]]`: a result claimed by the document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Metric of the result.
    pub metric: ClaimMetric,
    /// Value of the metric; shares are between 0 and 1.
    pub value: f64,
    /// Name of the training (`[[train]]`) to which the claim refers.
    pub train: String,
    /// Name of the variant to which the claim refers.
    #[serde(default = "base")]
    pub variant: String,
    /// Name of the target to which the claim refers; if absent, the recipe's first target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Split on which the document scored: validation or test.
    #[serde(default = "test_split", deserialize_with = "ScoredSplit::deserialize")]
    pub side: Split,
    /// Unit over which the document scored: tracks or segments.
    #[serde(default)]
    pub counted: Counted,
    /// Number of classes in the document; absent if the document does not state it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<u64>,
    /// Description of the split that the document used.
    pub split: String,
    /// Sentence or table of the document that states the value.
    pub says: String,
}

fn base() -> String {
    BASE.to_owned()
}

const fn test_split() -> Split {
    Split::Test
}

/// One of the two splits under which every model is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplitKind {
    /// The document's own split, which may leak.
    AsInDocument,
    /// The recipe's split. Shipped recipes use splits without leakage.
    Recipe,
}

/// A recipe with the changes of a variant.
#[derive(Clone, Debug, PartialEq)]
pub struct VariantRecipe {
    /// Name or file of the recipe, as accepted by `extract --recipe`.
    pub source: String,
    /// Changes of the recipe, as accepted by `extract --set`.
    pub sets: Vec<String>,
    /// The recipe with its changes applied.
    pub recipe: Recipe,
    /// Names of the data in the folder given by `--data`.
    pub data: DataSpec,
}

/// A training configuration with the changes of a variant.
#[derive(Clone, Debug, PartialEq)]
pub struct VariantConfig {
    /// Name of a shipped configuration, as accepted by `fit --like`.
    pub like: Option<String>,
    /// Configuration file, as accepted by `fit --config`.
    pub file: Option<PathBuf>,
    /// Changes of the configuration, as accepted by `fit --set`.
    pub sets: Vec<String>,
    /// The configuration with all changes applied.
    pub config: Config,
}

/// An experiment and the origin of its text.
#[derive(Clone, Debug, PartialEq)]
pub struct ExperimentSource {
    /// The parsed experiment.
    pub experiment: Experiment,
    /// Text of the experiment file, including comments.
    pub text: String,
    /// Folder of the experiment file; `None` for shipped experiments.
    folder: Option<PathBuf>,
}

impl ExperimentSource {
    /// Loads the shipped experiment of that name, or else the file at that path.
    ///
    /// Checks the names, values and references within the file. [`ExperimentSource::check`] checks the resulting
    /// recipes and configurations.
    ///
    /// # Errors
    /// The first error in the file.
    pub fn find(name_or_file: &str) -> Result<Self, PlainError> {
        let source = Source::find_among("experiment", &SHIPPED, name_or_file)?;
        let is_shipped = SHIPPED.iter().any(|(name, _)| *name == name_or_file);
        let folder = Path::new(name_or_file).parent().unwrap_or(Path::new(""));
        Self::parse(source, (!is_shipped).then(|| folder.to_owned()))
    }

    fn parse(source: Source, folder: Option<PathBuf>) -> Result<Self, PlainError> {
        let (document, experiment): (_, Experiment) = source.read()?;
        if let Some(fault) = check::first_fault(&experiment) {
            return Err(source.invalid(document.as_item(), fault));
        }

        Ok(Self {
            experiment,
            text: source.text,
            folder,
        })
    }

    /// Checks that the recipe and all configurations load, in every variant and under both splits.
    ///
    /// # Errors
    /// The first error, which names the variant and, for a configuration, the training.
    pub fn check(&self) -> Result<(), PlainError> {
        let variants = self.experiment.variants.iter();
        let names = variants.map(|variant| variant.name.as_str());
        for name in std::iter::once(BASE).chain(names) {
            for &split in self.experiment.splits_of(name) {
                let VariantRecipe { recipe, .. } = self.recipe(name, split, &[])?;
                for train in &self.experiment.train {
                    let VariantConfig { config, .. } = self.config(train, name, split, &[])?;
                    check_pair(train, name, &config, &recipe)?;
                }

                for claim in self
                    .experiment
                    .claims
                    .iter()
                    .filter(|claim| claim.variant == name)
                {
                    check::claimed_target(claim, &recipe)?;
                }
            }
        }
        Ok(())
    }

    /// Returns the recipe of a variant with `sets` applied on top. Variants joined by `+` are applied in order.
    ///
    /// # Errors
    /// An error if the variant is unknown or the changed recipe is not valid.
    pub fn recipe(
        &self,
        variant: &str,
        split: SplitKind,
        sets: &[String],
    ) -> Result<VariantRecipe, PlainError> {
        let experiment = &self.experiment;
        let variants = experiment.variants_of(variant)?;

        let mut all = Vec::new();
        for one in &variants {
            all.extend_from_slice(&one.set);
        }
        let is_there = variants.iter().any(|one| one.name == AS_IN_DOCUMENT);
        if split == SplitKind::AsInDocument && !is_there {
            all.extend(experiment.sets_of_the_documents_split(&variants));
        }
        all.extend_from_slice(sets);

        let source = self.recipe_source(&variants);
        let recipe = Recipe::load(&source, &all)
            .map_err(|error| PlainError::usage(format!("variant {variant}")).caused_by(error))?;

        let mut data = experiment.data.clone();
        if let Some(audio) = variants.iter().rev().find_map(|one| one.audio.clone()) {
            data.audio = audio;
        }
        Ok(VariantRecipe {
            source,
            sets: all,
            recipe,
            data,
        })
    }

    /// Returns a training configuration in a variant with `sets` applied on top.
    ///
    /// # Errors
    /// An error if the variant is unknown or the changed configuration is not valid.
    pub fn config(
        &self,
        train: &TrainSpec,
        variant: &str,
        split: SplitKind,
        sets: &[String],
    ) -> Result<VariantConfig, PlainError> {
        let mut all = train.set.clone();
        let variants = self.experiment.variants_of(variant)?;
        for one in &variants {
            all.extend_from_slice(&one.train);
        }
        let is_there = variants.iter().any(|one| one.name == AS_IN_DOCUMENT);
        if split == SplitKind::AsInDocument
            && !is_there
            && let Some(document) = self.experiment.as_in_document()
        {
            all.extend_from_slice(&document.train);
        }
        all.extend_from_slice(sets);

        let file = train.config.as_ref().map(|file| self.beside(file));
        let config = layered(train, file.as_deref(), &all).map_err(|error| {
            PlainError::usage(format!("train {}, variant {variant}", train.name)).caused_by(error)
        })?;
        Ok(VariantConfig {
            like: train.like.clone(),
            file,
            sets: all,
            config,
        })
    }

    /// Returns the name of a shipped recipe, or the path of a recipe file relative to the working directory. The last
    /// variant that names a recipe takes precedence.
    fn recipe_source(&self, variants: &[&Variant]) -> String {
        let own = variants.iter().rev().find_map(|one| one.recipe.as_ref());
        let recipe = own.unwrap_or(&self.experiment.recipe);
        let is_shipped = crate::recipe::SHIPPED
            .iter()
            .any(|(name, _)| name == recipe);
        if is_shipped {
            return recipe.clone();
        }
        self.beside(Path::new(recipe))
            .to_string_lossy()
            .into_owned()
    }

    /// Converts a path relative to the experiment file to one relative to the working directory.
    fn beside(&self, path: &Path) -> PathBuf {
        match &self.folder {
            Some(folder) => folder.join(path),
            None => path.to_owned(),
        }
    }
}

impl Variant {
    /// Reports whether the variant only changes the split: rows, features and models stay the same.
    fn changes_split_alone(&self) -> bool {
        self.recipe.is_none()
            && self.audio.is_none()
            && self.set.iter().all(|set| key_of(set).starts_with("split."))
            && self.train.iter().all(|set| key_of(set) == "data.split")
    }
}

/// Returns the key of a `key=value` change: `split.rule` for `split.rule=segment`.
fn key_of(set: &str) -> &str {
    set.split_once('=').map_or(set, |(key, _)| key).trim()
}

impl Claim {
    /// Reports whether `other` is a claim about the same metric, split, unit, training, variant and target.
    fn is_of_the_same(&self, other: &Self) -> bool {
        self.metric == other.metric
            && self.side == other.side
            && self.counted == other.counted
            && self.train == other.train
            && self.variant == other.variant
            && self.target == other.target
    }
}

impl Experiment {
    /// Returns the variants named by a `--variant` argument, in its order. [`BASE`] adds no variant.
    ///
    /// # Errors
    /// An error if a name is unknown.
    pub fn variants_of(&self, names: &str) -> Result<Vec<&Variant>, PlainError> {
        let mut found = Vec::new();
        for name in names.split(JOIN).filter(|name| *name != BASE) {
            let variant = self.variants.iter().find(|variant| variant.name == name);
            found.push(variant.ok_or_else(|| {
                let own = self.variants.iter().map(|variant| variant.name.as_str());
                self.unknown(["variant", "variant"], name, [BASE].into_iter().chain(own))
            })?);
        }
        Ok(found)
    }

    /// Returns the splits under which a variant has different recipes or configurations.
    fn splits_of(&self, variant: &str) -> &'static [SplitKind] {
        let variant = self.variants.iter().find(|one| one.name == variant);
        let has_own = variant.is_some_and(|one| one.set_as_in_document.is_some());
        if has_own || self.as_in_document().is_some() {
            &[SplitKind::Recipe, SplitKind::AsInDocument]
        } else {
            &[SplitKind::Recipe]
        }
    }

    /// Returns the error for an argument `--option name` that names nothing of the experiment.
    fn unknown<'a>(
        &'a self,
        [option, kind]: [&str; 2],
        name: &str,
        there: impl Iterator<Item = &'a str>,
    ) -> PlainError {
        let there: Vec<&str> = there.collect();
        PlainError::usage(format!(
            "--{option} {name}: {} has no such {kind}{}",
            self.name,
            did_you_mean(name, &there, "there are")
        ))
    }

    /// Returns the variant with the document's split, unless the recipe's split is the document's own.
    pub fn as_in_document(&self) -> Option<&Variant> {
        self.variants
            .iter()
            .find(|variant| variant.name == AS_IN_DOCUMENT)
    }

    /// Returns the recipe changes, as `key=value`, that reproduce the document's split in these variants.
    fn sets_of_the_documents_split(&self, variants: &[&Variant]) -> Vec<String> {
        let with_own = variants
            .iter()
            .filter(|one| one.set_as_in_document.is_some());
        let mut with_own: Vec<&Variant> = with_own.copied().collect();
        // The last change takes precedence, and it has to fit the rows: with stretched copies, the split must also
        // assign the copies. Therefore variants that only change the split go first. The sort is stable, so the others
        // keep their order.
        with_own.sort_by_key(|one| !one.changes_split_alone());

        if with_own.is_empty() {
            let document = self.as_in_document();
            return document.map(|one| one.set.clone()).unwrap_or_default();
        }
        let own = with_own
            .iter()
            .filter_map(|one| one.set_as_in_document.as_ref());
        own.flatten().cloned().collect()
    }

    /// Returns the claims of the document, each with those variants of `done` whose results can be compared with it.
    ///
    /// A claim is about a document's rows and models, independent of our split. It is repeated for its own variant and
    /// for each variant that adds only another split: claims of `stretched` also for `stretched+fault-filtered`. The
    /// `variant` of a returned claim is the one from `done`. A claim without a match is returned unchanged.
    pub fn claims_beside(&self, done: &[&str]) -> Vec<Claim> {
        let mut claims = Vec::new();
        for claim in &self.claims {
            let n_before = claims.len();
            for &variant in done {
                if variant == claim.variant || self.without_splits(variant) == claim.variant {
                    claims.push(Claim {
                        variant: variant.to_owned(),
                        ..claim.clone()
                    });
                }
            }
            if claims.len() == n_before {
                claims.push(claim.clone());
            }
        }
        claims
    }

    /// Removes the parts of a variant's name that only change the split.
    fn without_splits(&self, names: &str) -> String {
        let rest: Vec<&str> = names
            .split(JOIN)
            .filter(|name| *name != BASE && !self.is_split(name))
            .collect();
        if rest.is_empty() {
            return base();
        }
        rest.join(&JOIN.to_string())
    }

    fn is_split(&self, name: &str) -> bool {
        let variant = self.variants.iter().find(|variant| variant.name == name);
        variant.is_some_and(Variant::changes_split_alone)
    }

    /// Returns the trainings with the given names, in the file's order, or all trainings if `names` is empty.
    ///
    /// # Errors
    /// An error if a name is unknown.
    pub fn trainings(&self, names: &[String]) -> Result<Vec<&TrainSpec>, PlainError> {
        let all = || self.train.iter().map(|train| train.name.as_str());
        if let Some(name) = names.iter().find(|name| !all().any(|known| known == *name)) {
            return Err(self.unknown(["train", "training"], name, all()));
        }
        let trainings = self.train.iter();
        Ok(trainings
            .filter(|train| names.is_empty() || names.contains(&train.name))
            .collect())
    }
}

/// The configuration is built in the same way as by `fit`.
fn layered(train: &TrainSpec, file: Option<&Path>, sets: &[String]) -> Result<Config, PlainError> {
    let like = train.like.as_deref().map(ShippedConfig::find).transpose()?;
    let mut text = String::new();
    let mut place = "defaults".to_owned();
    if let Some(file) = file {
        place = file.display().to_string();
        text = settings::read_file(file)
            .map_err(|error| error_at(&place, format!("cannot read the file: {error}")))?;
    }
    Ok(Config::layered(like, &text, &place, sets)?.config)
}

#[cfg(test)]
mod tests;
