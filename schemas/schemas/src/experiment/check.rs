//! Rules for experiment files that the types of the fields cannot express.

use std::collections::BTreeSet;

use wavemill_options::{Fault, did_you_mean};

use super::{AS_IN_DOCUMENT, BASE, Claim, ClaimMetric, Experiment, JOIN, TrainSpec};
use crate::config::Config;
use crate::exit::PlainError;
use crate::recipe::Recipe;
use crate::text::shown;

/// Maximum number of training runs, over the base and all variants. `check` builds the recipe and configuration of each
/// run, which takes milliseconds.
const TRAININGS_MAX: usize = 1000;

/// Maximum length of a name in bytes. Names are parts of folder names, which file systems limit to 255 bytes.
const NAME_BYTES_MAX: usize = 64;

/// Returns the first fault of an experiment file. Elements in the fault's key are given by number (`train.1.name`).
pub(super) fn first_fault(experiment: &Experiment) -> Option<Fault> {
    named_once(experiment)
        .or_else(|| too_many(experiment))
        .or_else(|| data(experiment))
        .or_else(|| {
            let mut claims = experiment.claims.iter().enumerate();
            claims.find_map(|(index, claim)| claim_fault(experiment, index, claim))
        })
}

/// Checks the names in an experiment: they become folder names, and each must be unique.
fn named_once(experiment: &Experiment) -> Option<Fault> {
    if let Some(problem) = name_problem(&experiment.name) {
        return Some(Fault::new("name", problem));
    }
    if experiment.train.is_empty() {
        return Some(Fault::new("train", "at least one [[train]] is needed"));
    }

    let variants = experiment.variants.iter().map(|variant| &variant.name);
    let trainings = experiment.train.iter().map(|train| &train.name);
    repeated("variants", variants).or_else(|| repeated("train", trainings))
}

/// Returns a fault for the first invalid or repeated name of a list.
fn repeated<'a>(list: &str, names: impl Iterator<Item = &'a String>) -> Option<Fault> {
    let mut seen = BTreeSet::new();
    for (index, name) in names.enumerate() {
        let key = format!("{list}.{index}.name");
        if name == BASE && list == "variants" {
            let problem =
                format!("`{BASE}` is reserved for the unchanged recipe: choose another name");
            return Some(Fault::new(key, problem));
        }
        if let Some(problem) = name_problem(name) {
            return Some(Fault::new(key, problem));
        }
        if !seen.insert(name) {
            return Some(Fault::new(key, "another element has this name"));
        }
    }
    None
}

fn name_problem(name: &str) -> Option<String> {
    if name.len() > NAME_BYTES_MAX {
        let n_bytes = name.len();
        return Some(format!(
            "{n_bytes} bytes are too long: at most {NAME_BYTES_MAX} are allowed, since names become folder names"
        ));
    }

    if !name.is_empty() && name.chars().all(is_allowed_in_names) {
        return None;
    }
    Some(format!(
        "`{}`: use one or more of a to z, 0 to 9, - and _",
        shown(name)
    ))
}

const fn is_allowed_in_names(c: char) -> bool {
    matches!(c, 'a'..='z' | '0'..='9' | '-' | '_')
}

/// Limits the number of training runs. More runs are probably an error in the program that generated the file.
fn too_many(experiment: &Experiment) -> Option<Fault> {
    let n_variants = experiment.variants.len();
    let n_train = experiment.train.len();
    let n_trainings = n_train.saturating_mul(n_variants + 1);
    if n_trainings <= TRAININGS_MAX {
        return None;
    }

    let key = if n_train > TRAININGS_MAX {
        "train"
    } else {
        "variants"
    };
    let problem = format!(
        "{n_trainings} trainings ({n_train} in the base and in each of {n_variants} variants): at most {TRAININGS_MAX} \
         are allowed"
    );
    Some(Fault::new(key, problem))
}

fn data(experiment: &Experiment) -> Option<Fault> {
    for (index, archive) in experiment.data.published.iter().enumerate() {
        let is_hex = archive
            .sha1
            .bytes()
            .all(|b| b"0123456789abcdef".contains(&b));
        if archive.sha1.len() != 40 || !is_hex {
            let key = format!("data.published.{index}.sha1");
            return Some(Fault::new(key, "must be 40 lower-case hexadecimal digits"));
        }
    }
    None
}

fn claim_key(index: usize, name: &str) -> String {
    format!("claims.{index}.{name}")
}

fn claim_fault(experiment: &Experiment, index: usize, claim: &Claim) -> Option<Fault> {
    let is_share = claim.metric != ClaimMetric::Loss;
    if !claim.value.is_finite() || claim.value < 0.0 || (is_share && claim.value > 1.0) {
        let allowed = if is_share {
            "must be from 0 to 1"
        } else {
            "must be 0 or more"
        };
        return Some(Fault::new(claim_key(index, "value"), allowed));
    }

    if claim.classes == Some(0) {
        return Some(Fault::new(
            claim_key(index, "classes"),
            "must be 1 or more, or absent",
        ));
    }

    let trainings: Vec<&str> = experiment
        .train
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    let train = claim.train.as_str();
    if !trainings.contains(&train) {
        let problem = format!(
            "no training has this name{}",
            did_you_mean(train, &trainings, "there are")
        );
        return Some(Fault::new(claim_key(index, "train"), problem));
    }
    if claim.variant.split(JOIN).any(|name| name == AS_IN_DOCUMENT) {
        let problem = "claims always refer to the document's split: leave out as-in-document";
        return Some(Fault::new(claim_key(index, "variant"), problem));
    }
    if experiment.variants_of(&claim.variant).is_err() {
        return Some(Fault::new(
            claim_key(index, "variant"),
            "the experiment has no such variant",
        ));
    }

    let earlier = experiment.claims.iter().take(index);
    let is_repeated = earlier.into_iter().any(|other| other.is_of_the_same(claim));
    is_repeated.then(|| {
        Fault::new(
            claim_key(index, "metric"),
            "another claim is about the same result",
        )
    })
}

/// Checks that a store of `recipe` contains the feature and the targets that `config` trains on.
///
/// # Errors
/// An error if the recipe lacks the feature or a target.
pub fn check_pair(
    train: &TrainSpec,
    variant: &str,
    config: &Config,
    recipe: &Recipe,
) -> Result<(), PlainError> {
    let features = recipe.features.iter().map(|one| one.name.as_str());
    let features: Vec<&str> = features.collect();
    if let Some(feature) = config.data.feature.as_deref()
        && !features.contains(&feature)
    {
        let what = format!(
            "train {}, variant {variant}: data.feature = {feature}",
            train.name
        );
        return Err(missing(&what, "feature", &features));
    }

    for target in &config.data.targets {
        has_target(target, recipe, || {
            format!(
                "train {}, variant {variant}: data.targets = {target}",
                train.name
            )
        })?;
    }
    Ok(())
}

/// Checks that a recipe has the target that a claim names.
pub(super) fn claimed_target(claim: &Claim, recipe: &Recipe) -> Result<(), PlainError> {
    match &claim.target {
        Some(target) => has_target(target, recipe, || {
            format!(
                "claims: {} of {}, target {target}",
                claim.metric.display_name(),
                claim.train
            )
        }),
        None => Ok(()),
    }
}

fn has_target(
    target: &str,
    recipe: &Recipe,
    what: impl FnOnce() -> String,
) -> Result<(), PlainError> {
    // Every row of FMA has `genres_all` in addition to the recipe's targets.
    let targets: Vec<&str> = recipe.targets.iter().map(|one| one.name.as_str()).collect();
    if target == "genres_all" || targets.contains(&target) {
        return Ok(());
    }
    Err(missing(&what(), "target", &targets))
}

fn missing(what: &str, kind: &str, there: &[&str]) -> PlainError {
    let there = there.join(", ");
    PlainError::usage(format!(
        "{what}: the recipe has no {kind} of this name; it has: {there}"
    ))
}
