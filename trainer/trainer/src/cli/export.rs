//! `wavemill train export`: writes a run's model for other programs.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use tch::Device;
use wavemill_schemas::run::RunDir;
use wavemill_terminal::exit::UsageError;

use super::eval::CheckpointArg;
use super::input;
use crate::export::{self, ModelCard};
use crate::ffi;
use crate::trained::TrainedModel;

const EXAMPLES: &str = "\
Examples:
  wavemill train export runs/cnn2d-1f2e3d4c-1 --format torchscript \\
      --out cnn2d.pt
  wavemill train export runs/resnet50-5a6b7c8d-1 --format safetensors \\
      --out resnet50.safetensors

safetensors: weights by name; the JSON is in the header's __metadata__, key wavemill. torchscript: the whole model, for \
torch.jit.load or libtorch; the JSON is in a separate file next to it, such as cnn2d.pt.json. The JSON has the classes by \
target, how stored rows become inputs, the recipe of the features and their feature_id.

ONNX is not supported: libtorch has no maintained exporter for it in C++.";

/// Write a run's model for other programs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExportCommand {
    /// Folder written by `fit`
    run: PathBuf,
    /// Format of the file
    #[arg(long, value_enum)]
    format: Format,
    /// File to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The best checkpoint on validation (best), or the last one (last)
    #[arg(long, value_enum, default_value = "best", hide_possible_values = true)]
    checkpoint: CheckpointArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Safetensors,
    Torchscript,
}

impl ExportCommand {
    /// Writes the run's model to the output file.
    ///
    /// # Errors
    /// `--out` is a folder, the folder is not a run's, or the exported file cannot be written.
    pub(crate) fn run(&self) -> Result<u8> {
        if self.out.is_dir() {
            let out = self.out.display();
            let message =
                format!("--out {out}: is a folder: give a file in it, such as {out}/model");
            return Err(UsageError(message).into());
        }

        ffi::keep_signals_away();
        // Load the model on the CPU, since the exported tensors must not depend on a device.
        let trained = TrainedModel::load(&self.checkpoint.find(&self.run)?, Device::Cpu)?;
        let about = ModelCard::new(&trained, &input::recipe_of(&RunDir::open(&self.run)?))?;
        match self.format {
            Format::Safetensors => export::write_safetensors(&trained, &about, &self.out)?,
            Format::Torchscript => {
                let beside = export::write_torchscript(&trained, &about, &self.out)?;
                wavemill_terminal::say!(
                    "its inputs and outputs are described in {}",
                    beside.display()
                );
            }
        }
        Ok(0)
    }
}
