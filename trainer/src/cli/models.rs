//! `wavemill-train models`: describes the model architectures.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use crate::models::ModelError;
use crate::models::describe::{Description, describe, thousands};
use crate::models::drawing;
use crate::models::registry::TABLE;
use crate::part_file;

const EXAMPLES: &str = "\
Examples:
  wavemill-train models
  wavemill-train models --shape 128,640 --classes 8
  wavemill-train models crnn
  wavemill-train models cnn2d --shape 96,1292 --json
  wavemill-train models fusion --svg fusion.svg                     # the stages as a drawing

Without --shape and --classes, a model has the shape and classes of its document. Train it with
`fit --model NAME`. Each description shows what the document's text states, what its authors'
repository states, and what is our choice. See `fit --like list` for how a document trained it.";

/// Show the architectures: inputs, stages, parameters, sources
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ModelsCommand {
    /// Show only this architecture, stage by stage
    name: Option<String>,
    /// Size of the rows to build the model for
    #[arg(long, value_name = "BANDS,FRAMES", value_parser = shape)]
    shape: Option<[i64; 2]>,
    /// Number of classes to build the model for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    classes: Option<i64>,
    /// Also write a drawing with a box per stage: operations, shape and parameters (SVG)
    #[arg(long, value_name = "FILE", requires = "name")]
    svg: Option<PathBuf>,
    /// Print JSON on stdout
    #[arg(long)]
    json: bool,
}

fn shape(text: &str) -> Result<[i64; 2], String> {
    let (bands, frames) = text
        .split_once(',')
        .ok_or("must be two numbers, such as 128,1292")?;
    match (axis(bands), axis(frames)) {
        (Some(bands), Some(frames)) => Ok([bands, frames]),
        _ => Err("bands and frames must be integers from 1 to 1000000".to_owned()),
    }
}

fn axis(text: &str) -> Option<i64> {
    text.trim()
        .parse()
        .ok()
        .filter(|length| (1..=1_000_000).contains(length))
}

impl ModelsCommand {
    /// Prints the architectures.
    ///
    /// # Errors
    /// The model is unknown, the rows do not suit it, or the drawing cannot be written.
    pub(crate) fn run(&self) -> Result<u8> {
        if let Some(name) = &self.name {
            let model = describe(name, self.shape, self.classes)?;
            if let Some(path) = &self.svg {
                part_file::write_whole(path, &drawing::svg(&model))
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            if self.json {
                println!("{}", serde_json::to_value(&model)?);
            } else {
                print!("{}", stages(&model));
            }
            return Ok(0);
        }

        if self.json {
            println!("{}", self.all_as_json()?);
        } else {
            self.print_table()?;
        }
        Ok(0)
    }

    /// Describes all models as JSON. A model that does not suit the rows is listed with its error.
    fn all_as_json(&self) -> Result<Value> {
        let mut models = Vec::new();
        for architecture in TABLE {
            let name = architecture.name;
            models.push(match describe(name, self.shape, self.classes) {
                Ok(model) => serde_json::to_value(&model)?,
                Err(error) => json!({"name": name, "error": error.to_string()}),
            });
        }
        Ok(Value::Array(models))
    }

    fn print_table(&self) -> Result<()> {
        println!(
            "{:<20}{:<44}{:>8}{:>14}",
            "model", "inputs of a row", "classes", "parameters"
        );
        for architecture in TABLE {
            let name = architecture.name;
            match describe(name, self.shape, self.classes) {
                Ok(model) => print!("{}", block(&model)),
                // A shape that is too small for one architecture may suit others, so continue with the table.
                Err(error @ ModelError::TooSmall { .. }) => println!("{name:<20}{error}\n"),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn block(model: &Description) -> String {
    let inputs: Vec<String> = model
        .inputs
        .iter()
        .map(|input| format!("{} {}", input.name, axes(&input.shape)))
        .collect();
    let classes: i64 = model.heads.iter().map(|(_, classes)| classes).sum();

    let mut out = format!(
        "{:<20}{:<44}{classes:>8}{:>14}\n",
        model.name,
        inputs.join(", "),
        thousands(model.parameters)
    );
    out += &format!("    {}\n", model.about);
    for line in sources(model) {
        out += &format!("    {line}\n");
    }
    out + "\n"
}

/// Returns the sources of an architecture, one line per source.
fn sources(model: &Description) -> [String; 4] {
    [
        format!("origin: {}", model.origin),
        format!("text: {}", model.text),
        format!("repository: {}", model.repository),
        format!("our choice: {}", model.our_choice),
    ]
}

fn stages(model: &Description) -> String {
    let mut out = format!("{}: {}\n", model.name, model.about);
    for line in sources(model) {
        out += &format!("{line}\n");
    }
    let [bands, frames] = model.least;
    if bands > 0 && frames > 0 {
        out += &format!("minimum shape: {bands} bands, {frames} frames\n");
    }
    out += &format!("parameters: {}\n", thousands(model.parameters));
    if !model.dropout.is_empty() {
        let shares: Vec<String> = model.dropout.iter().map(ToString::to_string).collect();
        out += &format!("dropout: {}\n", shares.join(", "));
    }

    if !model.branches.is_empty() {
        let branches: Vec<String> = model
            .branches
            .iter()
            .map(|branch| format!("{} (of {})", branch.name, branch.input))
            .collect();
        out += &format!("parallel branches: {}\n", branches.join(", "));
    }

    out += &format!("\n{:<24}shape of a row\n", "stage");
    for input in &model.inputs {
        out += &format!("{:<24}{}\n", input.name, axes(&input.shape));
    }
    for stage in &model.stages {
        out += &format!("{:<24}{}\n", stage.name, axes(&stage.shape));
    }
    for (target, classes) in &model.heads {
        out += &format!("{:<24}{classes}\n", format!("head of {target}"));
    }
    out
}

fn axes(shape: &[i64]) -> String {
    shape
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" x ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_two_positive_numbers() {
        assert_eq!(shape("128, 1292"), Ok([128, 1292]));
        for wrong in ["128", "0,10", "a,b", "1,2,3", "-1,4"] {
            assert!(shape(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn model_description_contains_our_choices() {
        let model = describe("crnn", None, Some(5)).expect("a model");
        let text = block(&model) + &stages(&model);

        for told in [
            "spectrogram 128 x 640",
            "origin: document 002",
            "our choice: one dimension",
            "text: 1-D",
            "repository: of the second",
            "head of genre           5",
        ] {
            assert!(text.contains(told), "{told} in {text}");
        }

        assert_eq!(
            [0, 999, 1000, 1_234_567].map(thousands),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
