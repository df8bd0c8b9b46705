//! Saves the state of a run to disk between two optimizer steps. A checkpoint is either complete or absent.
//!
//! `checkpoints/step-00000123/` holds `tensors.safetensors` (weights, buffers, optimizer) and `state.json` (the rest).
//! A folder is written under a temporary name, synced and renamed, and renamed again before it is removed, so that a
//! folder with a checkpoint's name is complete even if the run is killed. The state contains a hash of the tensors, to
//! detect later damage. Only the last checkpoint states which checkpoint is the best.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::Tensor;
use wavemill_schemas::canonical;
use wavemill_schemas::config::Config;
use wavemill_schemas::durable::{make_folder, settle_folder, sync_folder};
use wavemill_schemas::exit::{Kind, PlainError};
use wavemill_scores::schedule::{EarlyStop, ScheduleState};

use crate::dataset::{self, Dataset, InputSpec};
use crate::models::Dims;
use crate::models::init::Origin;
use crate::safetensors;

/// Version of the checkpoint format. Increase it when the format changes.
///
/// Since version 2, `state.json` has `tensors_blake3`, and since version 3 a checksum of its own. Checkpoints of
/// earlier versions are read without comparing what they lack.
pub const FORMAT_VERSION: u32 = 3;
/// First format version in which the state contains the hash of the tensors.
const FIRST_WITH_HASH: u32 = 2;
/// First format version in which the state has a checksum.
const FIRST_CHECKED: u32 = 3;

/// Sums over the completed batches of the epoch in progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochSums {
    /// Sum over all batches of the batch's mean loss times its number of rows.
    pub loss: f64,
    /// Number of rows processed by all ranks.
    pub rows: u64,
    /// Number of rows with a label for the first target. `None` if the epoch was begun by a version without this count.
    #[serde(default)]
    pub labelled: Option<u64>,
    /// Number of rows whose first target was predicted correctly.
    pub correct: f64,
    /// Number of rows that were skipped because they are damaged.
    #[serde(default)]
    pub damaged: u64,
}

impl Default for EpochSums {
    fn default() -> Self {
        Self {
            loss: 0.0,
            rows: 0,
            labelled: Some(0),
            correct: 0.0,
            damaged: 0,
        }
    }
}

/// The epoch with the best value of the metric `train.select` so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BestEpoch {
    /// Value of the metric on the validation split.
    pub value: f64,
    /// Number of the best epoch, from 0.
    pub epoch: u64,
    /// Number of optimizer steps at the end of the best epoch.
    pub step: u64,
}

/// A finite training loss that is so high that the model cannot be learning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Number of the epoch with this loss, from 0.
    pub epoch: u64,
    /// Mean training loss over the epoch's rows.
    pub mean: f64,
    /// Training loss of the run's first step.
    pub first: f64,
}

impl Divergence {
    /// Largest accepted ratio of an epoch's mean loss to the first step's loss, that of the untrained model.
    const TIMES: f64 = 10.0;

    /// Returns a divergence if the mean loss of the epoch that `state` has just completed is too high.
    pub fn detect(state: &State) -> Option<Self> {
        // The first loss is 0 if the first batch had no labelled row; no ratio is computed then.
        let first = state.first_loss.filter(|first| *first > 0.0)?;
        let mean = state.sums.loss / state.sums.rows.max(1) as f64;
        (mean > Self::TIMES * first).then_some(Self {
            epoch: state.epoch,
            mean,
            first,
        })
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, mean, first } = self;
        let epoch = epoch + 1;
        write!(
            f,
            "the training loss was {mean:.4} in epoch {epoch} and {first:.4} at the first step: it diverges; lower \
             optimizer.lr, or set optimizer.clip_norm=1.0"
        )
    }
}

/// The state of a run, except for its tensors; the contents of `state.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// [`FORMAT_VERSION`] of this program; in a state that was read from disk, that of the program that wrote it.
    pub format_version: u32,
    /// The run's configuration, with all command-line flags applied.
    pub config: Config,
    /// blake3 hash of the manifest of the store.
    pub manifest_hash: String,
    /// Id of the feature that the model reads.
    pub feature_id: String,
    /// Name and class names of each target, in the order of the model's heads.
    pub classes: Vec<(String, Vec<String>)>,
    /// Dimensions of inputs and outputs that the model was built for.
    pub dims: Dims,
    /// Inputs of the model: feature, frames, normalisation, metadata columns, artists and albums.
    pub input: InputSpec,
    /// Origin of the weights with which training began.
    pub origin: Origin,
    /// Number of ranks. Each rank has its own buffers in the checkpoint.
    pub world_size: usize,
    /// Number of libtorch threads per rank, which determines how sums on a CPU are split. Missing in older checkpoints.
    #[serde(default)]
    pub threads: Option<u32>,
    /// Manifest paths of the store's files that the run skips. The order of training rows is drawn over the remaining
    /// files. Missing in older checkpoints.
    #[serde(default)]
    pub lost: Option<Vec<String>>,
    /// Epoch in progress, from 0.
    pub epoch: u64,
    /// Index of the next global batch (batch over all ranks) in the epoch.
    pub batch: u64,
    /// Number of optimizer steps done since the run began.
    pub step: u64,
    /// Sums over the completed batches of the epoch in progress.
    pub sums: EpochSums,
    /// Highest number of damaged training rows in any epoch so far. Files can be damaged during a run, so it may grow.
    #[serde(default)]
    pub damaged_rows: u64,
    /// Training loss of the run's first step. Unknown for runs that began with format version 1.
    #[serde(default)]
    pub first_loss: Option<f64>,
    /// First epoch, if any, whose mean loss was far above the first step's loss.
    #[serde(default)]
    pub diverged: Option<Divergence>,
    /// Temperature of each target after the last validation, by which logits are divided in evaluation and
    /// prediction; empty without temperature scaling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub temperatures: Vec<f64>,
    /// State of the learning rate schedules.
    pub schedules: ScheduleState,
    /// State of early stopping, such as the number of epochs without a better value.
    pub early_stop: EarlyStop,
    /// The best epoch so far; `None` before the first validation.
    pub best: Option<BestEpoch>,
    /// Warnings about the run that provided the initial weights, which may be gone when this run is resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_warnings: Option<Vec<String>>,
    /// True if batch norm used only the rows of each rank, in this process or an earlier one.
    #[serde(default)]
    pub batch_norm_per_rank: bool,
    /// True if a sweep ended the run before its last epoch, because earlier trials were better.
    #[serde(default)]
    pub ended_by_sweep: bool,
    /// True if the run has ended and needs no more training.
    pub finished: bool,
}

impl State {
    /// Returns the temperature of the target at index `target`.
    pub fn temperature(&self, target: usize) -> f64 {
        self.temperatures.get(target).copied().unwrap_or(1.0)
    }

    /// Returns the state of a run before its first step.
    pub fn first(
        config: &Config,
        data: &Dataset,
        schedules: ScheduleState,
        world_size: usize,
    ) -> Self {
        Self {
            // Values fixed at the start of the run, for programs that resume or score it.
            format_version: FORMAT_VERSION,
            config: config.clone(),
            manifest_hash: data.store().manifest_hash().to_owned(),
            feature_id: data.feature().feature_id.clone(),
            classes: data.class_names(),
            dims: dataset::dims(data),
            input: data.input_spec().clone(),
            // Loading the weights of `model.init` replaces it.
            origin: Origin::Scratch,
            world_size,
            threads: u32::try_from(tch::get_num_threads()).ok(),
            lost: Some(data.lost_paths()),

            // Progress of training: position, sums and what was observed.
            epoch: 0,
            batch: 0,
            step: 0,
            sums: EpochSums::default(),
            damaged_rows: 0,
            first_loss: None,
            diverged: None,
            start_warnings: None,
            batch_norm_per_rank: false,

            // Values that change with the results of validation.
            temperatures: Vec::new(),
            schedules,
            early_stop: EarlyStop::new(&config.train),
            best: None,
            ended_by_sweep: false,
            finished: false,
        }
    }
}

/// The folder that contains the checkpoints of a run.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

/// Prefix of the folder name of a complete checkpoint.
const WHOLE: &str = "step-";
/// Prefix of the folder name of a complete checkpoint that a new one of the same step is about to replace.
const BEFORE: &str = ".old-";
/// Prefix of the folder name of a checkpoint that is being written or removed.
const PART: &str = ".part-";
const STATE: &str = "state.json";
const TENSORS: &str = "tensors.safetensors";

impl Checkpoints {
    /// Creates `folder` if necessary. Each save removes all checkpoints except the last `keep` and the best.
    ///
    /// # Errors
    /// The folder cannot be created or synced.
    pub fn open(folder: PathBuf, keep: usize) -> Result<Self, PlainError> {
        // A process that was killed may have renamed the last checkpoint without making its name durable.
        make_folder(&folder)
            .and_then(|()| settle_folder(&folder))
            .map_err(at(&folder))?;
        // The last checkpoint is kept even if `keep` is 0: it names the best checkpoint, and a run resumes from it.
        Ok(Self {
            folder,
            keep: keep.max(1),
        })
    }

    /// Writes a checkpoint, then removes all checkpoints except the best and the last `keep`.
    ///
    /// # Errors
    /// A file cannot be written or renamed; the previous checkpoints are still complete.
    pub fn save(&self, state: &State, tensors: &[(String, Tensor)]) -> Result<PathBuf, PlainError> {
        let path = self.named(WHOLE, state.step);
        let before = self.named(BEFORE, state.step);
        let part = self.named(PART, state.step);

        // A killed run may have left a partly written folder of this step.
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&part).map_err(at(&part))?;
        let written = write(&part, state, tensors);
        if let Err(error) = written {
            // The disk may be full, so remove the partly written checkpoint.
            let _ = fs::remove_dir_all(&part);
            return Err(error);
        }

        // A checkpoint of the same step exists if one was saved after the epoch's last batch, before validation.
        if path.exists() {
            let _ = fs::remove_dir_all(&before);
            fs::rename(&path, &before).map_err(at(&path))?;
        }
        fs::rename(&part, &path).map_err(at(&path))?;

        // The new folder's name must be on disk before an older checkpoint is removed.
        sync(&self.folder)?;
        self.prune(state)?;
        Ok(path)
    }

    /// Returns the path of the checkpoint with the highest step.
    ///
    /// # Errors
    /// An error of usage if the folder contains no checkpoint.
    pub fn last(&self) -> Result<PathBuf, PlainError> {
        let last = self.steps()?.last().copied();
        last.map(|step| self.path_of(step)).ok_or_else(|| {
            PlainError::usage(format!(
                "no checkpoint in {}: was the run stopped before its first one? restart it there with \
                 --resume-or-start and its original flags",
                self.folder.display()
            ))
        })
    }

    /// Reports whether the folder contains no checkpoint.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn is_empty(&self) -> Result<bool, PlainError> {
        Ok(self.steps()?.is_empty())
    }

    /// Returns the path of the checkpoint that is best on validation, or of the last one if no epoch has ended.
    ///
    /// # Errors
    /// The errors of [`Self::last`], and those of reading the last checkpoint's state.
    pub fn best(&self) -> Result<PathBuf, PlainError> {
        // Only the last state names the current best checkpoint: one named by an older state may have been surpassed.
        let last = self.last()?;
        Ok(read_state(&last)?
            .best
            .map_or(last, |best| self.path_of(best.step)))
    }

    /// Reports whether the folder contains a complete checkpoint of `step`.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn has(&self, step: u64) -> Result<bool, PlainError> {
        let path = self.path_of(step);
        path.try_exists().map_err(at(&path))
    }

    fn named(&self, kind: &str, step: u64) -> PathBuf {
        self.folder.join(format!("{kind}{step:08}"))
    }

    /// Returns the path of a checkpoint, which has the prefix `.old-` if the run was killed between two renames.
    fn path_of(&self, step: u64) -> PathBuf {
        let path = self.named(WHOLE, step);
        let before = self.named(BEFORE, step);
        if !path.is_dir() && before.is_dir() {
            before
        } else {
            path
        }
    }

    fn steps(&self) -> Result<Vec<u64>, PlainError> {
        let mut steps: Vec<u64> = self
            .names()?
            .iter()
            .filter_map(|name| step_of(name))
            .collect();
        steps.sort_unstable();
        // A step may have a checkpoint under both prefixes.
        steps.dedup();
        Ok(steps)
    }

    fn names(&self) -> Result<Vec<String>, PlainError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(at(&self.folder))? {
            let entry = entry.map_err(at(&self.folder))?;
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }

    /// Removes outdated checkpoints after a checkpoint of `state` has been written.
    fn prune(&self, state: &State) -> Result<(), PlainError> {
        // Remove replaced checkpoints first: once a step's newer checkpoint is gone, its older one would count again.
        for name in self.names()? {
            let step = name.strip_prefix(BEFORE).and_then(|step| step.parse().ok());
            if let Some(step) = step
                && self.named(WHOLE, step).is_dir()
            {
                let path = self.folder.join(&name);
                let part = self.named(PART, step);
                let _ = fs::remove_dir_all(&part);
                fs::rename(&path, &part).map_err(at(&path))?;
            }
        }

        let steps = self.steps()?;
        let best = state.best.as_ref().map(|best| best.step);
        let old = &steps[..steps.len().saturating_sub(self.keep)];
        // Rename each folder before removing it: a partly removed folder must not look like a complete checkpoint.
        for step in old.iter().filter(|step| Some(**step) != best) {
            let path = self.path_of(*step);
            let part = self.named(PART, *step);
            let _ = fs::remove_dir_all(&part);
            fs::rename(&path, &part).map_err(at(&path))?;
        }

        // Remove all renamed folders, including those left by a run that was killed or could not remove them.
        for name in self.names()? {
            if name.starts_with(PART) {
                let path = self.folder.join(name);
                fs::remove_dir_all(&path).map_err(at(&path))?;
            }
        }
        Ok(())
    }
}

/// Parses the step from the name of a complete checkpoint's folder, with the prefix `step-` or `.old-`.
fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix(WHOLE)
        .or_else(|| name.strip_prefix(BEFORE))?
        .parse()
        .ok()
}

/// Writes and syncs both files of a checkpoint: the tensors, then the state, which contains the tensors' hash.
fn write(folder: &Path, state: &State, tensors: &[(String, Tensor)]) -> Result<(), PlainError> {
    #[derive(Serialize)]
    struct Whole<'a> {
        tensors_blake3: String,
        #[serde(flatten)]
        state: &'a State,
    }

    let file = folder.join(TENSORS);
    let tensors_blake3 = safetensors::write(&file, tensors, &[]).map_err(at(&file))?;

    let file = folder.join(STATE);
    let json = canonical::checked(&Whole {
        tensors_blake3,
        state,
    });
    let json = json.map_err(no_state(&file))?;

    fs::write(&file, json)
        .and_then(|()| File::open(&file)?.sync_all())
        .map_err(at(&file))?;
    // Sync the folder as well, so that the names of both files are on disk.
    sync(folder)
}

/// The fields of `state.json` that are read before all others.
#[derive(Deserialize)]
struct StateHeader {
    format_version: u32,
    tensors_blake3: Option<String>,
}

/// Reads a checkpoint's `state.json`. Returns the file's bytes, and the fields that are parsed before all others.
fn read_head(path: &Path) -> Result<(Vec<u8>, StateHeader), PlainError> {
    let file = path.join(STATE);
    let text = fs::read(&file).map_err(lost(&file))?;
    let head = serde_json::from_slice::<StateHeader>(&text);
    let head = head.map_err(no_state(&file))?;

    // A newer format may differ in every other field, and have no checksum that is known here.
    let is_checked = canonical::is_unchanged(&text);
    if head.format_version > FORMAT_VERSION && is_checked != Some(false) {
        return Err(PlainError::failed(format!(
            "checkpoint {}: format version {}; this `wavemill train` reads up to {FORMAT_VERSION}: use a newer one",
            file.display(),
            head.format_version
        )));
    }
    if is_checked == Some(false) || (is_checked.is_none() && head.format_version >= FIRST_CHECKED) {
        return Err(damaged(&file, "its blake3 is not that of its content"));
    }
    if head.format_version >= FIRST_WITH_HASH && head.tensors_blake3.is_none() {
        return Err(damaged(&file, "tensors_blake3 is missing"));
    }
    Ok((text, head))
}

/// Reads a run's state from a checkpoint's `state.json`.
///
/// # Errors
/// The file is missing, damaged or of a newer version.
pub fn read_state(path: &Path) -> Result<State, PlainError> {
    let (text, _) = read_head(path)?;
    serde_json::from_slice(&text).map_err(no_state(&path.join(STATE)))
}

/// Reads a checkpoint's tensors to the CPU, by name. Verifies the hash of the tensors' file.
///
/// # Errors
/// The file is damaged, and the errors of reading `state.json`.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, PlainError> {
    let (_, head) = read_head(path)?;
    let file = path.join(TENSORS);

    // Compare the file's hash before parsing, because a parser may accept damaged bytes.
    let mut hasher = blake3::Hasher::new();
    let read = File::open(&file).and_then(|opened| hasher.update_reader(opened).map(drop));
    read.map_err(lost(&file))?;
    // A checkpoint of format version 1 contains no hash to compare.
    if head
        .tensors_blake3
        .is_some_and(|wanted| wanted != hasher.finalize().to_hex().as_str())
    {
        return Err(damaged(&file, "its blake3 is not the one in state.json"));
    }

    match Tensor::read_safetensors(&file) {
        Ok(tensors) => Ok(tensors.into_iter().collect()),
        Err(error) => Err(damaged(&file, error)),
    }
}

/// Copies the tensor named `<prefix><name>` into each variable `name`.
///
/// # Errors
/// An error that names the first tensor that is missing or has another shape.
pub(crate) fn copy_into(
    variables: &[(String, Tensor)],
    tensors: &BTreeMap<String, Tensor>,
    prefix: &str,
    path: &Path,
) -> Result<(), PlainError> {
    tch::no_grad(|| {
        for (name, variable) in variables {
            let found = tensors
                .get(&format!("{prefix}{name}"))
                .filter(|t| t.size() == variable.size());
            let Some(found) = found else {
                let message = format!(
                    "checkpoint {}: {name} is missing or has another shape: the checkpoint belongs to another model or \
                     configuration",
                    path.display()
                );
                return Err(PlainError::new(Kind::OtherPlan, message));
            };

            // `copy_` converts the tensor, which has the same shape, to the variable's kind and device.
            variable.shallow_clone().copy_(found);
        }
        Ok(())
    })
}

fn sync(folder: &Path) -> Result<(), PlainError> {
    sync_folder(folder).map_err(at(folder))
}

/// Creates the error for a file of a checkpoint that is missing or has other contents than were written.
fn damaged(path: &Path, problem: impl Display) -> PlainError {
    let message = format!(
        "checkpoint {}: damaged ({problem}): restore it from a copy, or remove its folder: fit --resume and \
         --checkpoint last then use the previous one",
        path.display()
    );
    PlainError::new(Kind::Damaged, message)
}

/// Returns a function for `map_err` that adds the path of a file or folder to an error of the operating system.
fn at(path: &Path) -> impl FnOnce(io::Error) -> PlainError {
    let message = format!("checkpoint {}", path.display());
    move |error| PlainError::failed(message).caused_by(error)
}

/// Returns a function for `map_err` that converts a JSON error of the file `path` to that of a damaged file.
fn no_state(path: &Path) -> impl FnOnce(serde_json::Error) -> PlainError {
    move |error| damaged(path, format_args!("not a state of a training: {error}"))
}

/// Returns a function for `map_err` that converts errors like [`at`], but reports a missing file as damage.
fn lost(path: &Path) -> impl FnOnce(io::Error) -> PlainError {
    move |error| match error.kind() {
        ErrorKind::NotFound => damaged(path, "it is missing"),
        _ => at(path)(error),
    }
}

#[cfg(test)]
mod tests;
