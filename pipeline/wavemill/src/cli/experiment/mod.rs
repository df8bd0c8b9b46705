//! `wavemill experiment`: reproduces the results of a document, and compares the scores with the document's claims.
//!
//! An experiment's file defines the extraction, the training runs and the claims (`wavemill_schemas::experiment`). This
//! module finds the data (`data`), determines the requested stores and training runs (`work`), checks that the data
//! meets their needs (`needs`), creates them with the commands that a user would type (`run`, `trainer`, `rows`,
//! `sweep`), compares the scores with the claims (`outcome`), and shows both as text (`tables`) and as pages (`pages`).

mod data;
mod needs;
mod outcome;
mod pages;
mod rows;
mod run;
mod sweep;
mod tables;
mod trainer;
mod work;

use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use clap::{Args, Subcommand};
use wavemill_schemas::experiment::{BASE, Claim, Counted, Experiment, ExperimentSource, SHIPPED};
use wavemill_schemas::split::Split;
use wavemill_schemas::text::{counted, shown, shown_lines};
use wavemill_terminal::output::stdout;

pub use run::RunArgs;

const EXAMPLES: &str = "\
Examples:
  wavemill experiment list
  wavemill experiment show fma-large --toml > mine.toml
  wavemill experiment run fma-large --data fma/ --out out/
  wavemill experiment check mine.toml

The message about an invalid experiment names the line.";

/// Width of the name column in lists, in characters.
const NAME_COLUMNS: usize = 20;

/// Repeat a published experiment, and compare scores with its claims
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExperimentCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the shipped experiments, one per line
    List,
    /// Show an experiment, its variants, and the claims of its document
    Show {
        /// A shipped experiment's name, or a TOML file
        #[arg(value_name = "NAME|FILE")]
        experiment: String,
        /// Print the experiment's text, including comments
        #[arg(long)]
        toml: bool,
    },
    /// Check the data, make the stores, train, and compare the scores with the claims
    Run(Box<RunArgs>),
    /// Check an experiment and every variant of it for errors
    Check {
        /// A shipped experiment's name, or a TOML file
        #[arg(value_name = "NAME|FILE")]
        experiment: String,
    },
}

impl ExperimentCommand {
    /// Runs the subcommand and writes its output to stdout.
    ///
    /// # Errors
    /// An error of the experiment (exit code 2), or an error of `extract` or `wavemill train fit`.
    pub fn run(&self) -> Result<u8> {
        let out = &mut stdout();
        let ran = match &self.action {
            Action::List => list(out),
            Action::Show { experiment, toml } => show(experiment, *toml, out),
            Action::Run(args) => run::run(args, out),
            Action::Check { experiment } => check(experiment, out),
        };
        ran.map(|()| 0)
    }
}

/// Prints the description of an experiment, or its TOML text.
fn show(experiment: &str, is_toml: bool, out: &mut impl Write) -> Result<()> {
    let source = ExperimentSource::find(experiment)?;
    let text = if is_toml {
        source.text
    } else {
        description(&source.experiment)
    };

    // A file receives the experiment's text unchanged; on a terminal, control characters must have no effect.
    let text = if io::stdout().is_terminal() {
        shown_lines(&text)
    } else {
        text.into()
    };
    Ok(write!(out, "{text}")?)
}

/// Checks every recipe and training configuration of an experiment, and its sweep, for errors.
fn check(experiment: &str, out: &mut impl Write) -> Result<()> {
    let source = ExperimentSource::find(experiment)?;
    source.check()?;
    sweep::check(&source.experiment)?;

    let checked = &source.experiment;
    Ok(writeln!(
        out,
        "{}: ok, {}, {}, {}",
        checked.name,
        counted(checked.variants.len(), "variant"),
        counted(checked.train.len(), "training"),
        counted(checked.claims.len(), "claim")
    )?)
}

fn list(out: &mut impl Write) -> Result<()> {
    for (name, _) in SHIPPED {
        let Experiment { description, .. } = ExperimentSource::find(name)?.experiment;
        writeln!(out, "{name:<NAME_COLUMNS$}{description}")?;
    }
    Ok(())
}

/// Describes an experiment as text for people.
fn description(experiment: &Experiment) -> String {
    let mut text = format!("{}: {}\n", experiment.name, shown(&experiment.description));
    if let Some(document) = &experiment.document {
        text += &format!("document  {}\n", shown(document));
    }
    text += &format!("recipe    {}\n", shown(&experiment.recipe));

    let data = &experiment.data;
    let metadata = data.metadata.first().map(|name| format!("{name}, "));
    let metadata = metadata.unwrap_or_default();
    let audio = data.audio.first().map_or("audio", String::as_str);
    text += &format!("data      {metadata}{}\n", shown(audio));

    text += "\ntrainings (--train NAME)\n";
    for train in &experiment.train {
        let base = train.like.as_ref().map(|like| format!("like {like} "));
        let base = base.unwrap_or_default();
        text += &entry(&train.name, &format!("{base}{}", train.set.join(" ")));
    }

    text += "\nvariants (--variant NAME)\n";
    text += &entry("base", "the unchanged recipe");
    for variant in &experiment.variants {
        text += &entry(&variant.name, &shown(&variant.about));
        let recipe = variant
            .recipe
            .iter()
            .map(|recipe| ("based on the recipe", recipe));
        let sets = variant.set.iter().map(|set| ("recipe:", set));
        let train = variant.train.iter().map(|set| ("training:", set));
        for (what, change) in recipe.chain(sets).chain(train) {
            text += &entry("", &format!("  {what} {}", shown(change)));
        }
    }

    if let Some(sweep) = &experiment.sweep {
        let parameters = sweep.search.get("parameters");
        let parameters = parameters.and_then(toml::Value::as_table).into_iter();
        let keys: Vec<&str> = parameters
            .flat_map(|table| table.keys())
            .map(String::as_str)
            .collect();
        let keys = keys.join(", ");
        text += &format!("\nsweep parameters (--sweep)\n  {}\n", shown(&keys));
    }

    if !experiment.claims.is_empty() {
        text += "\nclaims of the document\n";
    }
    for claim in &experiment.claims {
        text += &format!("  {}\n      {}\n", format_claim(claim), shown(&claim.says));
    }
    text
}

/// Formats a line of a list: a name and its description.
fn entry(name: &str, words: &str) -> String {
    format!("  {name:<NAME_COLUMNS$}{words}\n")
}

/// Formats a claim as `accuracy 0.714 of cnn2d-gru, 12 classes, split: tracks at random`.
fn format_claim(claim: &Claim) -> String {
    let mut words = format!(
        "{} {} of {}",
        claim.metric.display_name(),
        claim.value,
        claim.train
    );

    if claim.variant != BASE {
        words += &format!(", variant {}", claim.variant);
    }
    if claim.counted == Counted::Segments {
        words += ", per segment";
    }
    if claim.side == Split::Validation {
        words += ", on validation";
    }

    if let Some(target) = &claim.target {
        words += &format!(", target {target}");
    }
    if let Some(classes) = claim.classes {
        words += &format!(", {classes} classes");
    }

    words + &format!(", split: {}", shown(&claim.split))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        command: ExperimentCommand,
    }

    #[test]
    fn every_shipped_experiment_is_described_and_sound() {
        let mut out = Vec::new();
        list(&mut out).expect("memory");
        let list = String::from_utf8(out).expect("text");
        assert_eq!(list.lines().count(), SHIPPED.len());

        for (name, _) in SHIPPED {
            let source = ExperimentSource::find(name).expect(name);
            source.check().expect(name);
            sweep::check(&source.experiment).expect(name);
            let text = description(&source.experiment);
            assert!(text.starts_with(&format!("{name}: ")), "{text}");
            for claim in &source.experiment.claims {
                assert!(text.contains(&claim.says), "{text}");
            }
        }
    }

    #[test]
    fn the_commands_can_be_typed() {
        for words in [
            "x list",
            "x show fma-large --toml",
            "x check mine.toml",
            "x run fma-large --data fma --out out --variant mfcc --limit 2000 --epochs 3",
        ] {
            let parsed = <Cli as clap::Parser>::try_parse_from(words.split(' '));
            assert!(
                parsed.is_ok(),
                "{words}: {}",
                parsed.err().expect("an error")
            );
        }
    }
}
