//! `wavemill-train export`: a run's model for other programs.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use tch::Device;
use wavemill_scores::records::RunDir;

use super::eval::CheckpointArg;
use super::input;
use crate::export::{self, ModelCard};
use crate::trained::TrainedModel;

const EXAMPLES: &str = "\
Examples:
  wavemill-train export runs/cnn2d-1f2e3d4c-1 --format torchscript --out cnn2d.pt    # and cnn2d.pt.json
  wavemill-train export runs/resnet50-5a6b7c8d-1 --format safetensors --out resnet50.safetensors
  wavemill-train fit --store other --model resnet50 --init resnet50.safetensors --freeze

safetensors: weights by name; the JSON is in the header's __metadata__, key wavemill.
torchscript: the whole model, for torch.jit.load or libtorch; the JSON is in a file beside it.
The JSON has the classes by target, how stored rows become inputs, the recipe of the features and their feature_id.

ONNX is not offered: libtorch has no maintained way to it from C++.";

/// Write a run's model for other programs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExportCommand {
    /// The folder that `fit` wrote
    run: PathBuf,
    /// Of the file
    #[arg(long, value_enum)]
    format: Format,
    /// The file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The best on validation, or the last one
    #[arg(long, value_enum, default_value = "best")]
    checkpoint: CheckpointArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Safetensors,
    Torchscript,
}

impl ExportCommand {
    /// Writes.
    ///
    /// # Errors
    /// Not a run, or no room.
    pub(crate) fn run(&self) -> Result<u8> {
        // On the CPU, wherever it was trained: what is written belongs to no device.
        let trained = TrainedModel::load(&self.checkpoint.find(&self.run)?, Device::Cpu)?;
        let about = ModelCard::new(&trained, &input::recipe_of(&RunDir::open(&self.run)?))?;
        match self.format {
            Format::Safetensors => export::write_safetensors(&trained, &about, &self.out)?,
            Format::Torchscript => {
                let beside = export::write_torchscript(&trained, &about, &self.out)?;
                eprintln!("what it takes and answers is in {}", beside.display());
            }
        }
        Ok(0)
    }
}
