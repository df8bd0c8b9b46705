//! `wavemill-train models`: the architectures, as they are built.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::models::ModelError;
use crate::models::describe::{Description, Stage, describe};
use crate::models::registry::TABLE;

const EXAMPLES: &str = "\
Examples:
  wavemill-train models
  wavemill-train models --shape 128,640 --classes 8
  wavemill-train models crnn
  wavemill-train models cnn2d --shape 96,1292 --json

Without --shape and --classes a model is that of its document. Its name goes into `fit --model NAME`.
Of each it is told what its document's text says, what its authors' repository says, and what is
our choice. How a document trained it: `fit --like list`.";

/// Show the architectures: inputs, stages, parameters, where they come from
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ModelsCommand {
    /// One of them, stage by stage
    name: Option<String>,
    /// Rows that it is to be built for
    #[arg(long, value_name = "BANDS,FRAMES", value_parser = shape)]
    shape: Option<[i64; 2]>,
    /// Classes that it is to be built for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    classes: Option<i64>,
    /// JSON on stdout
    #[arg(long)]
    json: bool,
}

fn shape(text: &str) -> Result<[i64; 2], String> {
    let axis = |text: &str| text.trim().parse().ok().filter(|n| (1..=1_000_000).contains(n));
    let (bands, frames) = text.split_once(',').ok_or("two numbers, such as 128,1292")?;
    Ok([bands, frames].map(axis)).and_then(|axes| match axes {
        [Some(bands), Some(frames)] => Ok([bands, frames]),
        _ => Err("bands and frames are whole numbers from 1 to 1000000".to_owned()),
    })
}

impl ModelsCommand {
    /// Prints.
    ///
    /// # Errors
    /// No such model, or rows that do not suit the one that was named.
    pub fn run(&self) -> Result<u8> {
        if let Some(name) = &self.name {
            let model = describe(name, self.shape, self.classes)?;
            print!("{}", if self.json { line(&serde_json::to_value(&model)?) } else { stages(&model) });
            return Ok(0);
        }
        let models = TABLE.iter().map(|entry| (entry.name, describe(entry.name, self.shape, self.classes)));
        if self.json {
            let of = |(name, model): (&str, Result<Description, ModelError>)| match model {
                Ok(model) => serde_json::to_value(&model),
                Err(error) => Ok(json!({"name": name, "error": error.to_string()})),
            };
            print!("{}", line(&Value::Array(models.map(of).collect::<Result<_, _>>()?)));
            return Ok(0);
        }
        println!("{:<20}{:<44}{:>8}{:>14}", "model", "inputs of a row", "classes", "parameters");
        for (name, model) in models {
            match model {
                Ok(model) => print!("{}", block(&model)),
                Err(error @ ModelError::TooSmall { .. }) => println!("{name:<20}{error}\n"),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(0)
    }
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

fn block(model: &Description) -> String {
    let inputs: Vec<String> = model.inputs.iter().map(|i| format!("{} {}", i.name, axes(i))).collect();
    let classes: i64 = model.heads.iter().map(|(_, classes)| classes).sum();
    let Description { name, about, parameters, .. } = model;
    let mut out = format!("{name:<20}{:<44}{classes:>8}{:>14}\n", inputs.join(", "), thousands(*parameters));
    out += &format!("    {about}\n");
    for line in sources(model) {
        out += &format!("    {line}\n");
    }
    out + "\n"
}

/// Where an architecture comes from, a line for each source.
fn sources(model: &Description) -> [String; 4] {
    let Description { origin, text, repository, our_choice, .. } = model;
    [
        format!("origin: {origin}"),
        format!("text: {text}"),
        format!("repository: {repository}"),
        format!("our choice: {our_choice}"),
    ]
}

fn stages(model: &Description) -> String {
    let Description { name, about, least, parameters, dropout, .. } = model;
    let mut out = format!("{name}: {about}\n");
    for line in sources(model) {
        out += &format!("{line}\n");
    }
    if least.iter().all(|&axis| axis > 0) {
        out += &format!("needs at least: {} bands, {} frames\n", least[0], least[1]);
    }
    out += &format!("parameters: {}\n", thousands(*parameters));
    if !dropout.is_empty() {
        let shares: Vec<String> = dropout.iter().map(ToString::to_string).collect();
        out += &format!("dropout: {}\n", shares.join(", "));
    }
    out += &format!("\n{:<24}shape of a row\n", "stage");
    for stage in model.inputs.iter().chain(&model.stages) {
        out += &format!("{:<24}{}\n", stage.name, axes(stage));
    }
    for (target, classes) in &model.heads {
        out += &format!("{:<24}{classes}\n", format!("head of {target}"));
    }
    out
}

fn axes(stage: &Stage) -> String {
    stage.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ")
}

/// Digits in threes.
fn thousands(number: i64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
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
    fn a_model_is_shown_with_what_is_ours() {
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
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
