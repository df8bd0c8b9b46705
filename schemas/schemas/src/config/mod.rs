//! Training configuration: everything that determines the numeric results of a run, in one TOML or JSON document.
//! Command-line flags only set keys of it.
//!
//! Defaults follow the document of `fma-large` where it states a value. Paths, devices, ranks and the number of threads
//! depend on the machine and are not part of the configuration.

mod layers;
mod rules;
mod shipped;

use std::fmt::Display;
use std::path::PathBuf;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use wavemill_options::exact;

pub use layers::{LayeredConfig, dotted};
pub use shipped::{SHIPPED, ShippedConfig};

use crate::canonical;
use crate::exit::PlainError;
use crate::named_enum;

/// Creates the error for a configuration that is not valid. `place` is the name of its file, or the `--set` option as
/// given.
pub fn error_at(place: &str, message: impl Display) -> PlainError {
    PlainError::usage(format!("{place}: {message}"))
}

/// Configuration of a training run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Seed of row order, initial weights, dropout and augmentation.
    pub seed: u64,
    /// Input data and batches.
    pub data: Data,
    /// Model architecture.
    pub model: Model,
    /// Optimiser.
    pub optimizer: Optimizer,
    /// Learning rate schedules.
    pub schedule: Schedule,
    /// Loss function.
    pub loss: Loss,
    /// Augmentation of training rows, computed on the device.
    pub augment: Augment,
    /// Duration, arithmetic precision and checkpoints of the training run.
    pub train: Train,
}

/// Input data and batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// Feature that the model reads. Default: the recipe's first.
    pub feature: Option<String>,
    /// Targets; `genres_all` has several labels per track. Default: the recipe's first.
    pub targets: Vec<String>,
    /// `official`, `stratified`, `artist`, `fold-I-of-K`, or `NAME` for a column `split_NAME` of `tracks`. Default: the
    /// recipe's rule.
    pub split: Option<String>,
    /// Rows per optimiser step, over all ranks and micro-batches.
    pub batch_size: usize,
    /// Row groups per shuffled window.
    pub shuffle_window: usize,
    /// True to leave out a last, smaller batch.
    pub drop_last: bool,
    /// True to normalize bands by the manifest's statistics.
    pub normalize: bool,
    /// Frames to which rows are cut or zero-padded; required if lengths differ.
    pub frames: Option<usize>,
    /// Prefixes of columns of `fma_features`, for `fusion` and `mlp-*`.
    pub metadata: Vec<String>,
    /// True to skip and count damaged row groups and files.
    pub skip_damaged: bool,
    /// Rows of an epoch: `all`, or `balanced` over the classes of the first target. Default: `"all"`.
    #[serde(skip_serializing_if = "is_default")]
    pub sampler: Sampler,
}

/// Selection of the training rows of an epoch, which are then shuffled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampler {
    /// Each row once.
    #[default]
    All,
    /// As many rows as there are, the same number of each class of the first target: rows of small classes several
    /// times, those of large classes in turn.
    Balanced,
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
            sampler: Sampler::All,
        }
    }
}

/// Model architecture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// Architecture, as listed by `wavemill train models`.
    pub name: String,
    /// Dropout rate. Default: the architecture's.
    pub dropout: Option<f64>,
    /// Filters of each convolution, in order. Default: the architecture's.
    #[serde(deserialize_with = "filters", skip_serializing_if = "is_default")]
    pub filters: Vec<i64>,
    /// Sizes of recurrent and dense layers, in order. Default: the architecture's.
    #[serde(deserialize_with = "hidden", skip_serializing_if = "is_default")]
    pub hidden: Vec<i64>,
    /// Initial weights: safetensors, named as by torchvision or timm. The head is random.
    pub init: Option<PathBuf>,
    /// True to train only the head.
    pub freeze: bool,
    /// Times that the channel of a spectrogram is repeated; `genregenie-cnn`: 1 or 3.
    pub channels: i64,
    /// True for batch norm over the rows of all ranks; excludes `data.skip_damaged`.
    pub sync_batch_norm: bool,
}

impl Model {
    /// Creates the default configuration of the architecture `name`.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }
}

impl Default for Model {
    fn default() -> Self {
        Self {
            name: "cnn2d".to_owned(),
            dropout: None,
            filters: Vec::new(),
            hidden: Vec::new(),
            init: None,
            freeze: false,
            channels: 1,
            sync_batch_norm: false,
        }
    }
}

/// Maximum number of filters of a convolution and maximum size of a hidden layer.
const WIDTH_MAX: i64 = 4096;

fn filters<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<i64>, D::Error> {
    widths(from, "model.filters")
}

fn hidden<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<i64>, D::Error> {
    widths(from, "model.hidden")
}

/// Deserializes the widths of layers. The error names `key`.
fn widths<'de, D: Deserializer<'de>>(from: D, key: &str) -> Result<Vec<i64>, D::Error> {
    let widths = toml::Value::deserialize(from)?.try_into::<Vec<i64>>();
    let is_width = |width: &i64| (1..=WIDTH_MAX).contains(width);
    let sound = widths.ok().filter(|widths| widths.iter().all(is_width));
    sound.ok_or_else(|| {
        let allowed = format!("whole numbers from 1 to {WIDTH_MAX}, such as [32, 64]");
        D::Error::custom(format!("{key} must be a list of {allowed}"))
    })
}

/// Optimisers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam (Kingma and Ba 2015); weight decay is added to the gradient.
    Adam,
    /// AdamW (Loshchilov and Hutter 2019); weight decay is decoupled from the gradient.
    Adamw,
    /// SGD with momentum, as in torch.
    Sgd,
}

/// Optimiser. The defaults are those of `fma-large`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Optimizer {
    /// Optimiser, as in torch.
    pub name: OptimizerKind,
    /// Learning rate; above 0.
    pub lr: f64,
    /// Weight decay; 0 or more.
    pub weight_decay: f64,
    /// Decay rates of Adam's moments; each from 0 to below 1.
    #[serde(deserialize_with = "exact::array")]
    pub betas: [f64; 2],
    /// Adam's ε; 0 or more.
    pub eps: f64,
    /// Momentum of SGD; 0 or more.
    pub momentum: f64,
    /// True for Nesterov momentum, which needs a `momentum`.
    pub nesterov: bool,
    /// Maximum L2 norm of all gradients together; above 0. Default: `inf`.
    pub clip_norm: Option<f64>,
    /// Variables with own settings. If several groups match one, the last applies.
    #[serde(skip_serializing_if = "is_default")]
    pub groups: Vec<ParameterGroup>,
    /// Factor of the learning rate per layer above; above 0, at most 1.
    #[serde(skip_serializing_if = "is_default")]
    pub layer_decay: Option<f64>,
}

/// Variables with settings of their own, like `torch.optim`'s parameter groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterGroup {
    /// Pattern of names, such as `fc.*`.
    pub names: String,
    /// Factor of the rate; 0 or more. Default: 1.
    #[serde(default = "ParameterGroup::default_lr_factor")]
    pub lr_factor: f64,
    /// Weight decay. Default: the optimiser's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weight_decay: Option<f64>,
    /// Epochs without changes. Default: 0.
    #[serde(default, skip_serializing_if = "is_default")]
    pub frozen_epochs: u64,
}

impl Optimizer {
    /// Returns the first epoch in which every variable is trained that is trained in any of `epochs` epochs.
    pub fn last_thaw(&self, epochs: u64) -> u64 {
        let frozen = self.groups.iter().map(|group| group.frozen_epochs);
        frozen.filter(|&frozen| frozen < epochs).max().unwrap_or(0)
    }
}

impl ParameterGroup {
    const fn default_lr_factor() -> f64 {
        1.0
    }

    /// Reports whether the group contains the variable `name`.
    pub fn contains(&self, name: &str) -> bool {
        let mut parts = self.names.split('*');
        // The first part is at the start of the name, and the last one at its end.
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
            groups: Vec::new(),
            layer_decay: None,
        }
    }
}

/// Learning rate schedules. The factors of all present schedules are multiplied. Without this section, the step and
/// plateau schedules of `fma-large` apply; with it, only the schedules that it names. `--set` changes single
/// schedules; `false` switches a schedule off, and `true` on with its defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// `StepLR`.
    #[serde(default, deserialize_with = "switched")]
    pub step: Option<StepLr>,
    /// `ReduceLROnPlateau`.
    #[serde(default, deserialize_with = "switched")]
    pub plateau: Option<Plateau>,
    /// Cosine decay to 0, after the warm-up.
    #[serde(default, deserialize_with = "switched")]
    pub cosine: Option<Cosine>,
    /// Steps in which the rate rises linearly from 0. Default: `0`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub warmup_steps: u64,
}

impl Schedule {
    /// Returns the number of steps of the warm-up, from either setting.
    pub fn warmup(&self) -> u64 {
        let cosine = self.cosine.as_ref();
        let of_cosine = cosine.map_or(0, |cosine| cosine.warmup_steps);
        self.warmup_steps.max(of_cosine)
    }
}

/// Deserializes a schedule that can be switched on or off by a boolean.
fn switched<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(
    from: D,
) -> Result<Option<T>, D::Error> {
    match Option::<toml::Value>::deserialize(from)? {
        None | Some(toml::Value::Boolean(false)) => Ok(None),
        Some(toml::Value::Boolean(true)) => Ok(Some(T::default())),
        Some(value) => T::deserialize(value).map(Some).map_err(D::Error::custom),
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            step: Some(StepLr::default()),
            plateau: Some(Plateau::default()),
            cosine: None,
            warmup_steps: 0,
        }
    }
}

/// `torch.optim.lr_scheduler.StepLR`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StepLr {
    /// Epochs between two reductions.
    pub every_epochs: u64,
    /// Factor of each reduction; 0 or more.
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

/// `torch.optim.lr_scheduler.ReduceLROnPlateau` on a metric of the validation split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plateau {
    /// Score that has to improve.
    pub metric: Metric,
    /// Epochs without improvement before a reduction.
    pub patience: u64,
    /// Factor of each reduction; from 0 to below 1.
    pub factor: f64,
    /// Smallest relative improvement.
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

/// `CosineAnnealingLR` to 0 at the end of the run, updated at each optimiser step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cosine {
    /// Older name of `schedule.warmup_steps`. Default: 0.
    pub warmup_steps: u64,
}

named_enum! {
    /// Metric of the validation split that is used for decisions.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Metric {
        /// Mean loss of all targets, or the loss of one target, weighted as in training.
        Loss = "loss",
        /// Mean −ln of the true class's probability.
        LogLoss = "log_loss",
        /// Share of rows whose likeliest class is true; with several labels per row, of rows whose labels are all
        /// correct.
        Accuracy = "accuracy",
        /// Mean recall over the classes that have rows.
        BalancedAccuracy = "balanced_accuracy",
        /// Share of rows whose class is among the three likeliest.
        #[serde(rename = "top_3")]
        Top3 = "top_3",
        /// F1, averaged over classes.
        MacroF1 = "macro_f1",
        /// Precision, averaged over classes.
        MacroPrecision = "macro_precision",
        /// Recall, averaged over classes.
        MacroRecall = "macro_recall",
        /// Macro F1 over classes of at least ten tracks.
        MacroF1Supported = "macro_f1_supported",
        /// F1, averaged over classes in proportion to their rows.
        WeightedF1 = "weighted_f1",
        /// F1 over all decisions (pairs of row and class) together.
        MicroF1 = "micro_f1",
        /// ROC-AUC, averaged over classes.
        RocAucMacro = "roc_auc_macro",
        /// ROC-AUC of all decisions in one ranking.
        RocAucMicro = "roc_auc_micro",
        /// Average precision, averaged over classes.
        AveragePrecisionMacro = "average_precision_macro",
        /// Average precision of all decisions in one ranking.
        AveragePrecisionMicro = "average_precision_micro",
    }
}

impl Metric {
    /// Reports whether lower values are better.
    pub const fn is_loss(self) -> bool {
        matches!(self, Self::Loss | Self::LogLoss)
    }

    /// Reports whether `a` is better than `b`.
    pub fn is_better(self, a: f64, b: f64) -> bool {
        // Both comparisons are false if `a` or `b` is NaN.
        if self.is_loss() { a < b } else { a > b }
    }

    /// Reports whether the metric is defined for targets with one class per row, or, if `multi`, with several labels
    /// per row.
    pub const fn is_for(self, multi: bool) -> bool {
        match self {
            Self::Loss | Self::Accuracy | Self::MacroF1 => true,
            Self::MicroF1
            | Self::RocAucMacro
            | Self::RocAucMicro
            | Self::AveragePrecisionMacro
            | Self::AveragePrecisionMicro => multi,
            Self::LogLoss
            | Self::BalancedAccuracy
            | Self::Top3
            | Self::MacroPrecision
            | Self::MacroRecall
            | Self::MacroF1Supported
            | Self::WeightedF1 => !multi,
        }
    }

    /// Returns the best of `values`, ignoring NaN.
    pub fn best(self, values: &[f64]) -> Option<f64> {
        // Remove NaN first: as the first value it would be kept, since no number compares as better.
        let numbers = values.iter().copied().filter(|value| !value.is_nan());
        numbers.reduce(|a, b| if self.is_better(b, a) { b } else { a })
    }
}

/// Weights of the classes in the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeights {
    /// All classes have the weight 1, so all rows count equally.
    None,
    /// n / (classes · n of the class), over training rows, as in scikit-learn.
    Balanced,
}

/// Loss function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Loss {
    /// `balanced`: n / (classes · n of the class), over training rows; or `none`.
    pub class_weights: ClassWeights,
    /// Share of each label that is spread over all classes; from 0 to below 1.
    pub label_smoothing: f64,
    /// α of mix-up; 0 for none.
    pub mixup: f64,
    /// Weights of positive labels of `genres_all`: `none`, or `balanced`: (n − n of the class) / n of the class.
    /// Default: `"none"`.
    #[serde(skip_serializing_if = "is_default")]
    pub pos_weight: PosWeight,
    /// γ of the focal loss; 0 for none. Default: `0.0`.
    #[serde(skip_serializing_if = "is_default")]
    pub focal_gamma: f64,
}

/// Weights of the positive labels of each class, for a target with several labels per row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PosWeight {
    /// Positive and negative labels count equally.
    #[default]
    None,
    /// Rows without the class per row with it, over labelled training rows; 1 for a class without rows.
    Balanced,
}

impl Default for Loss {
    fn default() -> Self {
        Self {
            class_weights: ClassWeights::Balanced,
            label_smoothing: 0.0,
            mixup: 0.0,
            pos_weight: PosWeight::None,
            focal_gamma: 0.0,
        }
    }
}

/// Augmentation of training rows. Disabled by default; the values are those of `fma-large`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// True to augment training rows.
    pub enabled: bool,
    /// Frequency masks per row; at most 1000.
    pub frequency_masks: u64,
    /// Maximum height, in bands.
    pub frequency_mask_bands: u64,
    /// Time masks per row; at most 1000.
    pub time_masks: u64,
    /// Maximum width, in frames.
    pub time_mask_frames: u64,
    /// Range of the factor of all values.
    #[serde(deserialize_with = "exact::array")]
    pub amplitude: [f64; 2],
    /// Maximum rotation, as a share of the length.
    pub time_shift: f64,
    /// Standard deviation of Gaussian noise.
    pub noise_std: f64,
    /// Maximum shift along the frequency axis.
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

/// Arithmetic precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Double precision, for verification on a CPU.
    F64,
    /// Single precision, the default.
    F32,
    /// Autocast: matrix products and convolutions in bf16, weights in f32.
    Bf16,
}

/// Duration, precision and checkpoints of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Number of epochs.
    pub epochs: u64,
    /// Maximum number of steps.
    pub steps: Option<u64>,
    /// Epochs without a better `select` that end the run; 0 for never.
    pub early_stop: u64,
    /// Validation score that selects the best epoch.
    pub select: Metric,
    /// Target of `select`. Default: the first; of `loss`, all.
    #[serde(skip_serializing_if = "is_default")]
    pub select_target: Option<String>,
    /// Parts of a rank's batch, computed in turn (gradient accumulation).
    pub micro_batches: usize,
    /// `f32`, `bf16` (autocast) or `f64`.
    pub precision: Precision,
    /// True to use TF32 on a GPU.
    pub tf32: bool,
    /// True to use only deterministic operations.
    pub deterministic: bool,
    /// Steps between checkpoints within an epoch; 0 for none.
    pub checkpoint_steps: u64,
    /// Checkpoints to keep, in addition to the best.
    pub keep: usize,
    /// Decay of a moving average of the weights; from 0 to below 1.
    #[serde(skip_serializing_if = "is_default")]
    pub ema_decay: Option<f64>,
    /// True to fit a temperature per target on validation. Default: `false`.
    #[serde(skip_serializing_if = "is_default")]
    pub temperature_scaling: bool,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            epochs: 40,
            steps: None,
            early_stop: 6,
            select: Metric::Loss,
            select_target: None,
            micro_batches: 1,
            precision: Precision::F32,
            tf32: false,
            deterministic: true,
            checkpoint_steps: 500,
            keep: 2,
            ema_decay: None,
            temperature_scaling: false,
        }
    }
}

impl Train {
    /// Returns the name of the score that selects the best epoch, as in a run's log: `loss`, or `genre/macro_f1` if
    /// its target is given.
    pub fn selected(&self) -> String {
        let metric = self.select.name();
        match &self.select_target {
            Some(target) => format!("{target}/{metric}"),
            None => metric.to_owned(),
        }
    }
}

impl Config {
    /// Parses a document, applies `sets` (`key.path=value`) and checks the result.
    ///
    /// # Errors
    /// An error that names the file or the `--set`, the key and the allowed values.
    pub fn parse(text: &str, place: &str, sets: &[String]) -> Result<Self, PlainError> {
        Ok(Self::layered(None, text, place, sets)?.config)
    }

    /// Returns the BLAKE3 hash of the configuration's canonical form. Runs with equal hashes compute the same results.
    pub fn hash(&self) -> String {
        canonical::id(self).expect("all keys of a configuration are strings")
    }
}

/// Sets one key of a document, such as `optimizer.lr=0.01`, and creates missing sections.
fn apply_set(document: &mut toml::Table, set: &str) -> Result<(), String> {
    let (path, value) = set
        .split_once('=')
        .ok_or("expected KEY=VALUE, such as optimizer.lr=0.01")?;
    // A value that is not valid TOML is used as text.
    let value = format!("v = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));

    let mut keys: Vec<&str> = path.trim().split('.').collect();
    // Only a section of a file replaces the default schedules. A set changes them.
    if keys[0] == "schedule" && keys.len() > 1 && !document.contains_key("schedule") {
        let defaults = toml::Table::try_from(Schedule::default()).map_err(|e| e.to_string())?;
        document.insert("schedule".to_owned(), defaults.into());
    }
    let last = keys.pop().unwrap_or_default();
    let mut table = document;
    for key in keys {
        let entry = table
            .entry(key)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        table = entry.as_table_mut().ok_or_else(|| {
            format!("{key} has a value, so it has no keys: leave out one of the two")
        })?;
    }

    table.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests;
