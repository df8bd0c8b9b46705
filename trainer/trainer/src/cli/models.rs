//! `wavemill train models`: describes the model architectures.

use std::io::Write as _;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use wavemill_schemas::config::{Config, Model};
use wavemill_schemas::number::number;
use wavemill_terminal::output::stdout;

use crate::ffi;
use crate::models::ModelError;
use crate::models::describe::{Description, describe, thousands};
use crate::models::own;
use crate::models::walk::{Operation, Stage};

const EXAMPLES: &str = "\
Examples:
  wavemill train models
  wavemill train models crnn
  wavemill train models cnn2d --shape 96,1292 --json
  wavemill train models cnn1d \\
      --set model.filters='[32,64,64]' --set model.hidden='[64]'

Without --shape and --classes, a model has the shape and classes of its document. Train it with `fit --model NAME`. Each \
description shows what the document's text states, what its authors' repository states, and what is our choice. See \
`fit --like list` for how a document trained it.";

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
    #[arg(long, value_name = "N", value_parser = number::<i64>(1..=1_000_000))]
    classes: Option<i64>,
    /// Set a value of the configuration of this architecture, such as model.filters
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "name")]
    sets: Vec<String>,
    /// Print JSON on stdout
    #[arg(long)]
    json: bool,
}

fn shape(text: &str) -> Result<[i64; 2], String> {
    let (bands, frames) = text
        .split_once(',')
        .ok_or("must be two numbers, such as 128,1292")?;
    let length = number::<i64>(1..=1_000_000);
    Ok([length(bands.trim())?, length(frames.trim())?])
}

impl ModelsCommand {
    /// Prints a table of the architectures, or the stages of one.
    ///
    /// # Errors
    /// The model is unknown, or the architecture does not accept the size of the rows.
    pub(crate) fn run(&self) -> Result<u8> {
        ffi::keep_signals_away();
        if let Some(name) = &self.name {
            let mut config = Config::parse("", "", &self.sets)?;
            config.model.name.clone_from(name);
            let model = describe(&config.model, self.shape, self.classes)?;
            if self.json {
                writeln!(stdout(), "{}", serde_json::to_value(&model)?)?;
            } else {
                write!(stdout(), "{}", stages(&model))?;
            }
            return Ok(0);
        }

        if self.json {
            writeln!(stdout(), "{}", self.all_as_json()?)?;
        } else {
            self.print_table()?;
        }
        Ok(0)
    }

    /// Describes all models as JSON. A model that does not accept the size of the rows is listed with its error.
    fn all_as_json(&self) -> Result<Value> {
        let mut models = Vec::new();
        for architecture in own::all() {
            let name = architecture.name;
            models.push(
                match describe(&Model::named(name), self.shape, self.classes) {
                    Ok(model) => serde_json::to_value(&model)?,
                    Err(error) => json!({"name": name, "error": error.to_string()}),
                },
            );
        }
        Ok(Value::Array(models))
    }

    fn print_table(&self) -> Result<()> {
        writeln!(
            stdout(),
            "{:<20}{:<44}{:>8}{:>14}",
            "model",
            "inputs of a row",
            "classes",
            "parameters"
        )?;

        for architecture in own::all() {
            let name = architecture.name;
            match describe(&Model::named(name), self.shape, self.classes) {
                Ok(model) => write!(stdout(), "{}", block(&model))?,
                // Other architectures may accept a size that is too small for this one, so continue with the table.
                Err(error @ ModelError::TooSmall { .. }) => {
                    writeln!(stdout(), "{name:<20}{error}\n")?
                }
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

/// Returns one line for each source of an architecture: document, text, repository and our choice.
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
    out += &listed("filters", &model.filters);
    out += &listed("hidden", &model.hidden);
    out += &listed("dropout", &model.dropout);

    let branches = model.branches.iter();
    let branches = branches.map(|branch| format!("{} (of {})", branch.name, branch.input));
    out += &listed("parallel branches", &branches.collect::<Vec<_>>());

    out += &format!(
        "\n{:<26}{:<18}{:>11}  operations\n",
        "stage", "shape of a row", "parameters"
    );
    for input in &model.inputs {
        out += &format!("{:<26}{}\n", input.name, axes(&input.shape));
    }
    for stage in &model.stages {
        let line = format!(
            "{:<26}{:<18}{:>11}  {}",
            stage_name(stage),
            axes(&stage.shape),
            thousands(stage.parameters),
            operations(&stage.operations)
        );
        out += line.trim_end();
        out.push('\n');
    }
    for (target, classes) in &model.heads {
        out += &format!(
            "{:<26}{classes:<18}{:>11}  dense\n",
            format!("head of {target}"),
            thousands(model.head_parameters(*classes))
        );
    }
    out
}

/// Returns a line with the values of the layers, or no line without values.
fn listed(name: &str, values: &[impl ToString]) -> String {
    if values.is_empty() {
        return String::new();
    }
    format!("{name}: {}\n", joined(values, ", "))
}

/// The name of a stage, preceded by the name of its branch.
fn stage_name(stage: &Stage) -> String {
    match stage.branch {
        Some(branch) => format!("{branch}: {}", stage.name),
        None => stage.name.clone(),
    }
}

/// The operations of a stage in order, with their settings.
fn operations(operations: &[Operation]) -> String {
    let mut shown = Vec::new();
    for operation in operations {
        let message = format!("{} {}", operation.name, operation.settings);
        shown.push(message.trim_end().to_owned());
    }
    shown.join("; ")
}

fn axes(shape: &[i64]) -> String {
    joined(shape, " x ")
}

fn joined(values: &[impl ToString], separator: &str) -> String {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    values.join(separator)
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
    fn a_stage_is_shown_with_branch_shape_parameters_and_operations() {
        let cnn = stages(&describe(&Model::named("cnn2d"), None, None).expect("a model"));
        let first = cnn.lines().find(|line| line.starts_with("conv1"));
        assert_eq!(
            first,
            Some(
                "conv1                     32 x 64 x 646             352  2-D convolution 3 × 3, padding 1, \
                 32 channels; batch norm; ReLU; max pool 3 × 3, stride 2, padding 1; dropout 0.2"
            )
        );

        assert!(
            cnn.contains("\nfilters: 32, 64, 64\nhidden: 1024, 256\ndropout: 0.2, "),
            "{cnn}"
        );

        let parallel =
            stages(&describe(&Model::named("parallel-cnn-bigru"), None, None).expect("a model"));
        assert!(
            parallel.contains(
                "
convolutions: conv5 "
            ),
            "{parallel}"
        );
        assert!(
            parallel.contains(
                "
recurrent: steps "
            ),
            "{parallel}"
        );
    }

    #[test]
    fn model_description_contains_our_choices() {
        let model = describe(&Model::named("crnn"), None, Some(5)).expect("a model");
        let text = block(&model) + &stages(&model);

        for told in [
            "spectrogram 128 x 640",
            "origin: GenreClassifier of Music Genre Recognition (UAB, 2023)",
            "our choice: one dimension",
            "text: 1-D",
            "repository: of the second",
            "head of genre             5                         325  dense",
        ] {
            assert!(text.contains(told), "{told} in {text}");
        }

        assert_eq!(
            [0, 999, 1000, 1_234_567].map(thousands),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
