//! Experiments: a recipe, what is changed in it, what is trained on its stores, and what somebody claims of the result.
//!
//! An experiment reproduces a document by name. Its own recipe has an honest split. What the document did instead is the
//! variant [`AS_IN_DOCUMENT`], so that both can be scored side by side.

mod check;
mod shipped;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml_edit::Document;
use wavemill_options::did_you_mean;

pub use shipped::SHIPPED;

use crate::config::{Config, ConfigError, ShippedConfig};
use crate::recipe::parse::deserialise;
use crate::recipe::place;
use crate::recipe::wording::one_line;
use crate::recipe::{Place, Recipe, RecipeError};
use crate::settings;

/// The variant that is the recipe as it stands.
pub const BASE: &str = "base";

/// The variant whose `set` and `train` bring the document's own split about.
pub const AS_IN_DOCUMENT: &str = "as-in-document";

/// Joins the names of variants that are put on top of each other.
pub const JOIN: char = '+';

/// Why there is no experiment. One line each.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// Neither a shipped name nor a file.
    #[error(
        "no experiment and no file is called `{name}`{}; shipped experiments: {}",
        did_you_mean(name, &shipped::names()),
        shipped::names().join(", ")
    )]
    Unknown {
        /// As given.
        name: String,
    },
    /// The file is there, but cannot be read.
    #[error("experiment {}: cannot read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not TOML.
    #[error("{place}: {problem}")]
    Syntax {
        /// Where.
        place: Place,
        /// What TOML wants there.
        problem: String,
    },
    /// An unknown key, a wrong type or an impossible value.
    #[error("{place}: {key}: {problem}")]
    Invalid {
        /// Where.
        place: Place,
        /// With dots, elements by name: `train.crnn.like`.
        key: String,
        /// What is wrong, and what is allowed.
        problem: String,
    },
    /// The experiment has no such variant.
    #[error(
        "--variant {name}: {experiment} has no such variant{}; there are: {}",
        did_you_mean(name, &there.iter().map(String::as_str).collect::<Vec<_>>()),
        there.join(", ")
    )]
    NoVariant {
        /// As given.
        name: String,
        /// Of the experiment.
        experiment: String,
        /// The variants that it has.
        there: Vec<String>,
    },
    /// The experiment trains nothing of that name.
    #[error(
        "--train {name}: {experiment} trains nothing of that name{}; it trains: {}",
        did_you_mean(name, &there.iter().map(String::as_str).collect::<Vec<_>>()),
        there.join(", ")
    )]
    NoTrain {
        /// As given.
        name: String,
        /// Of the experiment.
        experiment: String,
        /// What it trains.
        there: Vec<String>,
    },
    /// The recipe cannot be had, or not with a variant's changes.
    #[error("variant {variant}")]
    Recipe {
        /// Of the experiment.
        variant: String,
        /// What is wrong with it.
        source: RecipeError,
    },
    /// Something is asked for that the recipe does not make.
    #[error("{what}: the recipe has no {kind} of this name; it has: {there}")]
    Missing {
        /// Who asks, and for what.
        what: String,
        /// A feature or a target.
        kind: &'static str,
        /// What there is.
        there: String,
    },
    /// A configuration of training cannot be had, or not with a variant's changes.
    #[error("train {train}, variant {variant}")]
    Config {
        /// Name of the training.
        train: String,
        /// Of the experiment.
        variant: String,
        /// What is wrong with it.
        source: ConfigError,
    },
}

/// An experiment, as its file has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Name, as shown by `experiment list`.
    pub name: String,
    /// One line on what it is for.
    pub description: String,
    /// The document that it reproduces, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// A shipped recipe's name, or a file beside this one.
    pub recipe: String,
    /// What its archives are called.
    #[serde(default)]
    pub data: DataSpec,
    /// Changes that can be asked for.
    #[serde(default)]
    pub variants: Vec<Variant>,
    /// What is trained.
    pub train: Vec<TrainSpec>,
    /// What `run --sweep` tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<SweepSpec>,
    /// What is said of it elsewhere.
    #[serde(default)]
    pub claims: Vec<Claim>,
}

/// `[data]`: names below the folder that `--data` gives, in the order in which they are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    /// Of the metadata; none for a data set without.
    #[serde(default)]
    pub metadata: Vec<String>,
    /// Of the audio.
    #[serde(default)]
    pub audio: Vec<String>,
    /// Archives whose content is known.
    #[serde(default)]
    pub published: Vec<PublishedArchive>,
}

/// `[[data.published]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedArchive {
    /// Of the file.
    pub name: String,
    /// As its authors published it, 40 hex digits.
    pub sha1: String,
}

/// `[[variants]]`: changes of the recipe and of all trainings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Name, for `--variant`.
    pub name: String,
    /// What it is, in a line.
    pub about: String,
    /// A recipe in place of the experiment's: a shipped name, or a file beside this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// What that recipe's audio is called, in place of `data.audio`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<Vec<String>>,
    /// `key=value` for the recipe.
    #[serde(default)]
    pub set: Vec<String>,
    /// `key=value` for the configurations of training.
    #[serde(default)]
    pub train: Vec<String>,
    /// `key=value` for the recipe that bring the document's split about in this variant, in place of those of
    /// `as-in-document`. Of joined variants all apply, first of those that change nothing but the split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_as_in_document: Option<Vec<String>>,
}

/// `[[train]]`: a configuration of training.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSpec {
    /// Name, for `--train`, tables and folders.
    pub name: String,
    /// A shipped configuration to start from (`wavemill train fit --like list`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<String>,
    /// A file over it, beside the experiment's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// `key=value` over both.
    #[serde(default)]
    pub set: Vec<String>,
}

/// `[sweep]`: configurations that are tried on the base variant's store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepSpec {
    /// A shipped configuration that all trials share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<String>,
    /// `key=value` over it.
    #[serde(default)]
    pub set: Vec<String>,
    /// What is tried, as a file of `wavemill-train sweep` says it.
    pub search: toml::Table,
}

/// A side of the split, on which scores are of rows that no training has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Scored once, at the end.
    #[default]
    Test,
    /// Chooses epochs.
    Validation,
}

/// What a score counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// Tracks: the mean of the probabilities of their segments.
    #[default]
    Tracks,
    /// Each segment by itself.
    Segments,
}

/// A figure of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimMetric {
    /// Share of rows whose likeliest class is true.
    Accuracy,
    /// Mean of the classes' recall.
    BalancedAccuracy,
    /// Mean of the classes' F1.
    MacroF1,
    /// Mean of the classes' recall, as several documents call it.
    Recall,
    /// Share of rows whose class is among the three likeliest.
    #[serde(rename = "top_3")]
    Top3,
    /// Mean loss as training weighs it.
    Loss,
}

impl ClaimMetric {
    /// As tables show it.
    pub const fn words(self) -> &'static str {
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

/// `[[claims]]`: what a document says of a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The figure.
    pub metric: ClaimMetric,
    /// Its value; shares from 0 to 1.
    pub value: f64,
    /// The training that it is of.
    pub train: String,
    /// The variant that it is of.
    #[serde(default = "base")]
    pub variant: String,
    /// The target; absent: the recipe's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The side.
    #[serde(default)]
    pub side: Side,
    /// What it counts.
    #[serde(default)]
    pub counted: Counted,
    /// How many classes there were; absent: the document does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<u64>,
    /// The split that the document used, in words.
    pub split: String,
    /// The sentence or table that says so.
    pub says: String,
}

fn base() -> String {
    BASE.to_owned()
}

/// One of the two splits that every training is done under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplitKind {
    /// The document's own, which may leak.
    AsInDocument,
    /// The recipe's. That of a shipped recipe is honest.
    Recipe,
}

/// A recipe with a variant's changes.
#[derive(Clone, Debug, PartialEq)]
pub struct VariantRecipe {
    /// The recipe's name or file, as `extract --recipe` takes it.
    pub source: String,
    /// As `extract --set` takes them.
    pub sets: Vec<String>,
    /// What comes of both.
    pub recipe: Recipe,
    /// Names of the data below the folder that is given.
    pub data: DataSpec,
}

/// A configuration of training with a variant's changes.
#[derive(Clone, Debug, PartialEq)]
pub struct VariantConfig {
    /// As `fit --like` takes it.
    pub like: Option<String>,
    /// As `fit --config` takes it.
    pub file: Option<PathBuf>,
    /// As `fit --set` takes them.
    pub sets: Vec<String>,
    /// What comes of all.
    pub config: Config,
}

/// An experiment and where it is from.
#[derive(Clone, Debug, PartialEq)]
pub struct ExperimentSource {
    /// What the file says.
    pub experiment: Experiment,
    /// Its text, comments and all.
    pub text: String,
    /// The folder of the file; `None` for shipped ones.
    folder: Option<PathBuf>,
}

impl ExperimentSource {
    /// The shipped experiment of that name, else the file at that path.
    ///
    /// Checked by itself: names, values and references. What it makes of its recipe and configurations,
    /// [`ExperimentSource::check`] tells.
    ///
    /// # Errors
    /// [`ExperimentError`], the first fault of the file.
    pub fn find(name_or_file: &str) -> Result<Self, ExperimentError> {
        // A shipped name goes before a file of that name, which can be given as ./NAME.
        if let Some(text) = shipped::text(name_or_file) {
            return Self::parse(text, name_or_file, None);
        }

        let path = Path::new(name_or_file);
        match settings::read_file(path) {
            Ok(text) => {
                let folder = path.parent().unwrap_or(Path::new("")).to_owned();
                Self::parse(&text, name_or_file, Some(folder))
            }
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                Err(ExperimentError::Unknown {
                    name: name_or_file.to_owned(),
                })
            }
            Err(source) => Err(ExperimentError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn parse(text: &str, origin: &str, folder: Option<PathBuf>) -> Result<Self, ExperimentError> {
        let line = |offset| Place::Line {
            origin: origin.to_owned(),
            line: place::line_of(text, offset),
        };
        let document = Document::parse(text).map_err(|error| ExperimentError::Syntax {
            place: line(error.span().map_or(0, |span| span.start)),
            problem: one_line(error.message()),
        })?;
        let root = document.as_item();

        let experiment: Experiment =
            deserialise(text, root).map_err(|fault| ExperimentError::Invalid {
                place: line(fault.offset),
                key: place::shown(root, &fault.key),
                problem: fault.problem,
            })?;
        if let Some(fault) = check::first_fault(&experiment) {
            return Err(ExperimentError::Invalid {
                place: line(place::offset_of(root, &fault.key)),
                key: place::shown(root, &fault.key),
                problem: fault.problem,
            });
        }

        Ok(Self {
            experiment,
            text: text.to_owned(),
            folder,
        })
    }

    /// Whether recipe and configurations can be had, in every variant and under both splits.
    ///
    /// # Errors
    /// [`ExperimentError::Recipe`], [`ExperimentError::Config`]: the first.
    pub fn check(&self) -> Result<(), ExperimentError> {
        let variants = self.experiment.variants.iter();
        let names = variants.map(|variant| variant.name.as_str());
        for name in std::iter::once(BASE).chain(names) {
            for &split in self.experiment.splits_of(name) {
                let VariantRecipe { recipe, .. } = self.recipe(name, split, &[])?;
                for train in &self.experiment.train {
                    let VariantConfig { config, .. } = self.config(train, name, split, &[])?;
                    check::against_recipe(train, name, &config, &recipe)?;
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

    /// Whether a store of `recipe` has what `config` trains on.
    ///
    /// # Errors
    /// [`ExperimentError::Missing`].
    pub fn check_pair(
        train: &TrainSpec,
        variant: &str,
        config: &Config,
        recipe: &Recipe,
    ) -> Result<(), ExperimentError> {
        check::against_recipe(train, variant, config, recipe)
    }

    /// The recipe of a variant, with `sets` over it. Names joined by `+` are applied one after the other.
    ///
    /// # Errors
    /// [`ExperimentError::NoVariant`], [`ExperimentError::Recipe`].
    pub fn recipe(
        &self,
        variant: &str,
        split: SplitKind,
        sets: &[String],
    ) -> Result<VariantRecipe, ExperimentError> {
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
        let recipe = Recipe::load(&source, &all).map_err(|source| ExperimentError::Recipe {
            variant: variant.to_owned(),
            source,
        })?;

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

    /// A configuration of training in a variant, with `sets` over it.
    ///
    /// # Errors
    /// [`ExperimentError::NoVariant`], [`ExperimentError::Config`].
    pub fn config(
        &self,
        train: &TrainSpec,
        variant: &str,
        split: SplitKind,
        sets: &[String],
    ) -> Result<VariantConfig, ExperimentError> {
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
        let config =
            layered(train, file.as_deref(), &all).map_err(|source| ExperimentError::Config {
                train: train.name.clone(),
                variant: variant.to_owned(),
                source,
            })?;
        Ok(VariantConfig {
            like: train.like.clone(),
            file,
            sets: all,
            config,
        })
    }

    /// The recipe's name, or its file as seen from here. The last variant that has a recipe decides.
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

    /// A path that the file gives, as seen from here.
    fn beside(&self, path: &Path) -> PathBuf {
        match &self.folder {
            Some(folder) => folder.join(path),
            None => path.to_owned(),
        }
    }
}

impl Variant {
    /// Whether it leaves rows, features and models as they are, and deals them to other sides.
    fn changes_split_alone(&self) -> bool {
        self.recipe.is_none()
            && self.audio.is_none()
            && self.set.iter().all(|set| key_of(set).starts_with("split."))
            && self.train.iter().all(|set| key_of(set) == "data.split")
    }
}

/// `split.rule` of `split.rule=segment`.
fn key_of(set: &str) -> &str {
    set.split_once('=').map_or(set, |(key, _)| key).trim()
}

impl Claim {
    /// Whether `other` is about the same figure.
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
    /// The variants that a `--variant` names, in its order; none for [`BASE`].
    ///
    /// # Errors
    /// [`ExperimentError::NoVariant`].
    pub fn variants_of(&self, names: &str) -> Result<Vec<&Variant>, ExperimentError> {
        let mut found = Vec::new();
        for name in names.split(JOIN).filter(|name| *name != BASE) {
            let variant = self.variants.iter().find(|variant| variant.name == name);
            found.push(variant.ok_or_else(|| self.no_variant(name))?);
        }
        Ok(found)
    }

    /// The splits of a variant that come to different recipes and configurations.
    fn splits_of(&self, variant: &str) -> &'static [SplitKind] {
        let variant = self.variants.iter().find(|one| one.name == variant);
        let has_own = variant.is_some_and(|one| one.set_as_in_document.is_some());
        if has_own || self.as_in_document().is_some() {
            &[SplitKind::Recipe, SplitKind::AsInDocument]
        } else {
            &[SplitKind::Recipe]
        }
    }

    fn no_variant(&self, name: &str) -> ExperimentError {
        let own = self.variants.iter().map(|variant| variant.name.clone());
        ExperimentError::NoVariant {
            name: name.to_owned(),
            experiment: self.name.clone(),
            there: std::iter::once(base()).chain(own).collect(),
        }
    }

    /// The variant that has the document's split, if the document's is not the recipe's own.
    pub fn as_in_document(&self) -> Option<&Variant> {
        self.variants
            .iter()
            .find(|variant| variant.name == AS_IN_DOCUMENT)
    }

    /// `key=value` for the recipe that bring the document's split about in these variants.
    fn sets_of_the_documents_split(&self, variants: &[&Variant]) -> Vec<String> {
        let with_own = variants
            .iter()
            .filter(|one| one.set_as_in_document.is_some());
        let mut with_own: Vec<&Variant> = with_own.copied().collect();
        // The last set wins, and of the document's splits it has to be one that fits the rows: with stretched copies,
        // the one that deals copies out. So a variant that changes nothing but the split goes first. The sort is
        // stable: the others keep their order.
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

    /// The claims, and where they stand in the tables of the variants that were `done`.
    ///
    /// A claim is of a document's rows and models, whatever our split is. So it stands beside its own variant, and
    /// beside each variant that adds only another split to it: the claims of `stretched` also beside
    /// `stretched+fault-filtered`. `variant` of what is returned is the one that was done. A claim that stands beside
    /// none is returned as it is.
    pub fn claims_beside(&self, done: &[&str]) -> Vec<Claim> {
        let mut claims = Vec::new();
        for claim in &self.claims {
            let told = claims.len();
            for &variant in done {
                if variant == claim.variant || self.without_splits(variant) == claim.variant {
                    claims.push(Claim {
                        variant: variant.to_owned(),
                        ..claim.clone()
                    });
                }
            }
            if claims.len() == told {
                claims.push(claim.clone());
            }
        }
        claims
    }

    /// The name of a variant without the parts that change nothing but the split.
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

    /// The trainings of these names, in the file's order; all of them where none is named.
    ///
    /// # Errors
    /// [`ExperimentError::NoTrain`].
    pub fn trainings(&self, names: &[String]) -> Result<Vec<&TrainSpec>, ExperimentError> {
        for name in names {
            if !self.train.iter().any(|train| train.name == *name) {
                return Err(ExperimentError::NoTrain {
                    name: name.clone(),
                    experiment: self.name.clone(),
                    there: self.train.iter().map(|train| train.name.clone()).collect(),
                });
            }
        }
        // Without a name all are meant.
        let trainings = self.train.iter();
        Ok(trainings
            .filter(|train| names.is_empty() || names.contains(&train.name))
            .collect())
    }
}

/// As `fit` puts them together.
fn layered(train: &TrainSpec, file: Option<&Path>, sets: &[String]) -> Result<Config, ConfigError> {
    let like = train.like.as_deref().map(ShippedConfig::find).transpose()?;
    let mut text = String::new();
    let mut place = "defaults".to_owned();
    if let Some(file) = file {
        place = file.display().to_string();
        text = settings::read_file(file).map_err(|error| ConfigError::Parse {
            place: place.clone(),
            message: format!("cannot read it: {error}"),
        })?;
    }
    Ok(Config::layered(like, &text, &place, sets)?.config)
}

#[cfg(test)]
mod tests;
