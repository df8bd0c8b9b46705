//! A program with all commands of `wavemill-train` and a model of its own:
//!
//!     cargo run -p wavemill-trainer --example own_model -- fit --store store --model small --epochs 3

use std::process::ExitCode;

use tch::Tensor;
use tch::nn::{self, ModuleT, Path};
use wavemill_trainer::{Dims, OwnModel};

/// Two convolutions over time, each with batch norm, and the mean over time.
#[derive(Debug)]
struct Small {
    layers: Vec<(nn::Conv1D, nn::BatchNorm)>,
}

impl ModuleT for Small {
    fn forward_t(&self, rows: &Tensor, train: bool) -> Tensor {
        let mut x = rows.shallow_clone();
        for (conv, norm) in &self.layers {
            x = x
                .apply(conv)
                .apply_t(norm, train)
                .relu()
                .max_pool1d(4, 4, 0, 1, false);
        }
        x.mean_dim(2, false, None)
    }
}

fn small(path: &Path<'_>, dims: &Dims) -> Box<dyn ModuleT> {
    let mut layers = Vec::new();
    for (from, to) in [(dims.bands, 64), (64, 64)] {
        let at = path / format!("layer{}", layers.len() + 1);
        let window = nn::ConvConfig {
            padding: 1,
            ..nn::ConvConfig::default()
        };
        let conv = nn::conv1d(&at / "conv", from, to, 3, window);
        layers.push((conv, nn::batch_norm1d(&at / "norm", to, Default::default())));
    }
    Box::new(Small { layers })
}

fn main() -> ExitCode {
    ExitCode::from(wavemill_trainer::cli::main_with(&[OwnModel {
        name: "small",
        about: "two 1-D convolutions, mean over time",
        build: small,
    }]))
}
