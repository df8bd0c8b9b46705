//! What an experiment's file may not say, beyond what its types refuse.

use std::collections::BTreeSet;

use wavemill_options::{Fault, did_you_mean};

use super::{BASE, Claim, ClaimMetric, Experiment};

/// The first fault, keys with elements by number (`train.1.name`).
pub(super) fn first_fault(experiment: &Experiment) -> Option<Fault> {
    named_once(experiment)
        .or_else(|| data(experiment))
        .or_else(|| {
            let mut claims = experiment.claims.iter().enumerate();
            claims.find_map(|(index, claim)| claim_fault(experiment, index, claim))
        })
}

/// Names become folders, and one name must mean one thing.
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

/// The first name of a list that cannot be one, or that another element has.
fn repeated<'a>(list: &str, names: impl Iterator<Item = &'a String>) -> Option<Fault> {
    let mut seen = BTreeSet::new();
    for (index, name) in names.enumerate() {
        let key = format!("{list}.{index}.name");
        if name == BASE && list == "variants" {
            let problem = format!("`{BASE}` is the recipe as it stands: choose another name");
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
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    if !name.is_empty() && name.chars().all(is_allowed) {
        return None;
    }
    Some(format!(
        "`{name}`: a to z, 0 to 9, - and _ only, and at least one"
    ))
}

fn data(experiment: &Experiment) -> Option<Fault> {
    for (index, archive) in experiment.data.published.iter().enumerate() {
        let is_hex = archive
            .sha1
            .bytes()
            .all(|b| b"0123456789abcdef".contains(&b));
        if archive.sha1.len() != 40 || !is_hex {
            let key = format!("data.published.{index}.sha1");
            return Some(Fault::new(key, "40 digits of lower-case hexadecimal"));
        }
    }
    None
}

fn claim_fault(experiment: &Experiment, index: usize, claim: &Claim) -> Option<Fault> {
    let key = |name: &str| format!("claims.{index}.{name}");

    let is_share = claim.metric != ClaimMetric::Loss;
    if !claim.value.is_finite() || claim.value < 0.0 || (is_share && claim.value > 1.0) {
        let allowed = if is_share { "from 0 to 1" } else { "0 or more" };
        return Some(Fault::new(key("value"), allowed));
    }

    let trainings: Vec<&str> = experiment
        .train
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    if let Some(train) = claim
        .train
        .as_deref()
        .filter(|name| !trainings.contains(name))
    {
        let problem = format!(
            "nothing of this name is trained{}; there are: {}",
            did_you_mean(train, &trainings),
            trainings.join(", ")
        );
        return Some(Fault::new(key("train"), problem));
    }
    match experiment.variants_of(&claim.variant) {
        Ok(_) => None,
        Err(_) => Some(Fault::new(
            key("variant"),
            "the experiment has no such variant",
        )),
    }
}
