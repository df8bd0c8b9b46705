//! Everything that decides a run's numbers, in one TOML or JSON document; flags only set keys of it.
//!
//! Defaults are those of document 000 ("fma-large") where it gives one. Paths, devices, ranks and the number of threads
//! are not here: they are the machine's.

mod layers;
mod rules;
mod shipped;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use layers::LayeredConfig;
pub use shipped::{SHIPPED, ShippedConfig};

use crate::canonical;
use crate::exact;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML, or a key that is not there, or a value of another type.
    #[error("{place}: {message}")]
    Parse {
        /// File, or the `--set` that was given.
        place: String,
        /// The parser's words, with the allowed keys.
        message: String,
    },
    /// A value that cannot be.
    #[error("{key} = {found}: {allowed}")]
    Value {
        /// Such as `data.batch_size`.
        key: &'static str,
        /// What was given.
        found: String,
        /// What would do.
        allowed: &'static str,
    },
}

/// A training run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Order, initial weights, dropout, augmentation: all come from here.
    pub seed: u64,
    /// What is read, and how it is cut into batches.
    pub data: Data,
    /// The architecture.
    pub model: Model,
    /// The optimiser.
    pub optimizer: Optimizer,
    /// Learning rates, one stage after another.
    pub schedule: Schedule,
    /// What is minimised.
    pub loss: Loss,
    /// Changes of training rows on the device.
    pub augment: Augment,
    /// How long, how exact, how often saved.
    pub train: Train,
}

/// What is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// Feature of the store; the first of the recipe if absent.
    pub feature: Option<String>,
    /// Targets of the store, or `genres_all` (several labels a track); the recipe's first if empty.
    pub targets: Vec<String>,
    /// Split rule (`official`, `stratified`, `artist`); the recipe's if absent.
    pub split: Option<String>,
    /// Rows of a global batch, over all ranks and micro-batches.
    pub batch_size: usize,
    /// Row groups in a window within which rows are shuffled.
    pub shuffle_window: usize,
    /// Whether the last, smaller batch of an epoch is left out.
    pub drop_last: bool,
    /// Whether bands are brought to mean 0 and deviation 1 by the manifest's statistics.
    pub normalize: bool,
    /// Frames that every row is cut or zero-padded to; needed where lengths differ.
    pub frames: Option<usize>,
    /// Columns of `fma_features` as metadata, by prefix (such as `mfcc`); for `fusion`, and for `mlp-*` unless the feature
    /// is of statistics.
    pub metadata: Vec<String>,
    /// Whether a damaged row group is counted and passed over instead of ending the run.
    pub skip_damaged: bool,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            feature: None,
            targets: Vec::new(),
            split: None,
            batch_size: 16,
            shuffle_window: 16,
            drop_last: false,
            normalize: false,
            frames: None,
            metadata: vec!["mfcc".to_owned()],
            skip_damaged: false,
        }
    }
}

/// The architecture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// A name of `wavemill-train models`.
    pub name: String,
    /// Share of values dropped, where the architecture drops; its own if absent.
    pub dropout: Option<f64>,
    /// Weights to start from (safetensors, keys of torchvision or timm); the head is new.
    pub init: Option<PathBuf>,
    /// Whether all but the head stays as `init` has it.
    pub freeze: bool,
    /// Times that the one-channel input is repeated (`genregenie-cnn`: 1 or 3); a picture has its own three.
    pub channels: i64,
    /// Batch norm over all ranks' rows instead of each rank's own.
    pub sync_batch_norm: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            name: "cnn2d".to_owned(),
            dropout: None,
            init: None,
            freeze: false,
            channels: 1,
            sync_batch_norm: false,
        }
    }
}

/// Optimisers by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Kingma and Ba 2015; weight decay is added to the gradient.
    Adam,
    /// Loshchilov and Hutter 2019; weight decay apart from the gradient.
    Adamw,
    /// With momentum, as torch.
    Sgd,
}

/// The optimiser. Defaults: document 000.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Optimizer {
    /// Which.
    pub name: OptimizerKind,
    /// Learning rate.
    pub lr: f64,
    /// As the optimiser's authors mean it.
    pub weight_decay: f64,
    /// Adam's decay rates.
    #[serde(deserialize_with = "exact::array")]
    pub betas: [f64; 2],
    /// Adam's ε.
    pub eps: f64,
    /// SGD's.
    pub momentum: f64,
    /// SGD's.
    pub nesterov: bool,
    /// Largest L2 norm of all gradients together; absent: not clipped.
    pub clip_norm: Option<f64>,
}

impl Default for Optimizer {
    fn default() -> Self {
        Self {
            name: OptimizerKind::Adam,
            lr: 1e-3,
            weight_decay: 1e-4,
            betas: [0.9, 0.999],
            eps: 1e-8,
            momentum: 0.9,
            nesterov: false,
            clip_norm: None,
        }
    }
}

/// Learning rates: factors of the schedules that are there are multiplied. Without a section it is document 000's step and
/// plateau; a section holds just what it names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// `StepLR`: every `every_epochs` the rate is multiplied by `gamma`.
    pub step: Option<StepLr>,
    /// `ReduceLROnPlateau`.
    pub plateau: Option<Plateau>,
    /// Cosine to zero over the run, after a linear warm-up.
    pub cosine: Option<Cosine>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            step: Some(StepLr::default()),
            plateau: Some(Plateau::default()),
            cosine: None,
        }
    }
}

/// `torch.optim.lr_scheduler.StepLR`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StepLr {
    /// Epochs between two cuts.
    pub every_epochs: u64,
    /// Factor of a cut.
    pub gamma: f64,
}

impl Default for StepLr {
    fn default() -> Self {
        Self {
            every_epochs: 10,
            gamma: 0.7,
        }
    }
}

/// `torch.optim.lr_scheduler.ReduceLROnPlateau`, on validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plateau {
    /// What must get better.
    pub metric: Metric,
    /// Epochs without a better value before a cut. Our choice: torch's 10 never fires before the early stop.
    pub patience: u64,
    /// Factor of a cut. Our choice.
    pub factor: f64,
    /// Relative change that counts as better.
    pub threshold: f64,
}

impl Default for Plateau {
    fn default() -> Self {
        Self {
            metric: Metric::Loss,
            patience: 3,
            factor: 0.5,
            threshold: 1e-4,
        }
    }
}

/// Cosine with warm-up, by optimiser steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cosine {
    /// Steps of the linear warm-up from 0.
    pub warmup_steps: u64,
}

/// A figure of the validation split that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The lower the better; the mean of all targets.
    Loss,
    /// Of the first target.
    Accuracy,
    /// Of the first target.
    MacroF1,
}

impl Metric {
    /// Whether `a` is better than `b`.
    pub fn is_better(self, a: f64, b: f64) -> bool {
        // False with NaN on either side.
        if self == Self::Loss { a < b } else { a > b }
    }

    /// The best of `values`; NaN is none.
    pub fn best(self, values: &[f64]) -> Option<f64> {
        // Left out first: as the first value, NaN would stay, since nothing is better than it.
        let numbers = values.iter().copied().filter(|value| !value.is_nan());
        numbers.reduce(|a, b| if self.is_better(b, a) { b } else { a })
    }
}

/// Class weights by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeights {
    /// All classes count as their rows.
    None,
    /// n / (classes · n of the class), over training rows, as scikit-learn.
    Balanced,
}

/// What is minimised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Loss {
    /// Weights of classes in the mean.
    pub class_weights: ClassWeights,
    /// Share of the label given to all classes alike.
    pub label_smoothing: f64,
    /// α of Beta(α, α) for mix-up (Zhang 2018); 0: none.
    pub mixup: f64,
}

impl Default for Loss {
    fn default() -> Self {
        Self {
            class_weights: ClassWeights::Balanced,
            label_smoothing: 0.0,
            mixup: 0.0,
        }
    }
}

/// Changes of training rows. Off by default; `enabled` with document 000's values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Whether any is made.
    pub enabled: bool,
    /// Frequency masks a row.
    pub frequency_masks: u64,
    /// Most bands of a mask.
    pub frequency_mask_bands: u64,
    /// Time masks a row.
    pub time_masks: u64,
    /// Most frames of a mask.
    pub time_mask_frames: u64,
    /// Range of the factor on all values.
    #[serde(deserialize_with = "exact::array")]
    pub amplitude: [f64; 2],
    /// Most of the row's length by which it is rotated in time, either way.
    pub time_shift: f64,
    /// Deviation of Gaussian noise that is added.
    pub noise_std: f64,
    /// Most bands by which it is moved up or down.
    pub frequency_shift_bands: u64,
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            enabled: false,
            frequency_masks: 2,
            frequency_mask_bands: 10,
            time_masks: 2,
            time_mask_frames: 20,
            amplitude: [0.8, 1.2],
            time_shift: 0.15,
            noise_std: 0.003,
            frequency_shift_bands: 2,
        }
    }
}

/// Arithmetic by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// For proofs, on a CPU.
    F64,
    /// Default.
    F32,
    /// Autocast: matrix products and convolutions in bf16, weights in f32.
    Bf16,
}

/// How long, how exact, how often saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Passes over the training split.
    pub epochs: u64,
    /// Optimiser steps at most; absent: all epochs.
    pub steps: Option<u64>,
    /// Epochs without a better value of `select` before the run ends; 0: never.
    pub early_stop: u64,
    /// What "better" means, for the early stop and the best checkpoint.
    pub select: Metric,
    /// Parts of a rank's slice of a batch, one after another, before a step.
    pub micro_batches: usize,
    /// Arithmetic.
    pub precision: Precision,
    /// TF32 in f32's matrix products on CUDA.
    pub tf32: bool,
    /// Only algorithms that give the same bits each time.
    pub deterministic: bool,
    /// Steps between checkpoints within an epoch; 0: at its end alone.
    pub checkpoint_steps: u64,
    /// Checkpoints kept, besides the best.
    pub keep: usize,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            epochs: 40,
            steps: None,
            early_stop: 6,
            select: Metric::Loss,
            micro_batches: 1,
            precision: Precision::F32,
            tf32: false,
            deterministic: true,
            checkpoint_steps: 500,
            keep: 2,
        }
    }
}

impl Config {
    /// A document with `sets` (`key.path=value`) applied over it, checked.
    ///
    /// # Errors
    /// [`ConfigError`] naming file or `--set`, key and what is allowed.
    pub fn parse(text: &str, place: &str, sets: &[String]) -> Result<Self, ConfigError> {
        Ok(Self::layered(None, text, place, sets)?.config)
    }

    /// blake3 of its canonical form: equal for runs that compute the same.
    pub fn hash(&self) -> String {
        canonical::id(self).expect("a configuration has text keys only")
    }
}

/// Sets one key of a document, such as `optimizer.lr=0.01`; sections that lack are made.
fn apply_set(document: &mut toml::Table, set: &str) -> Result<(), String> {
    let (path, value) = set
        .split_once('=')
        .ok_or("KEY=VALUE is wanted, such as optimizer.lr=0.01")?;
    // A bare word is text.
    let value = format!("v = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));

    // The last key gets the value; those before it are sections.
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().unwrap_or_default();
    let mut table = document;
    for key in keys {
        let entry = table
            .entry(key)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        table = entry
            .as_table_mut()
            .ok_or_else(|| format!("{key} is not a section"))?;
    }

    table.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests;
