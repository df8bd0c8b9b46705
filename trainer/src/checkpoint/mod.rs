//! A run's state on disk, between two optimiser steps: complete, or not there.
//!
//! `checkpoints/step-00000123/` holds `tensors.safetensors` (weights, buffers, optimiser) and `state.json` (the rest). A
//! folder is written under another name, synced and renamed, and renamed again before it is removed, so that what bears
//! the name of a checkpoint is whole whenever a run is killed. The state holds the tensors' hash, so that what a disk
//! changed afterwards is found. Which one is the best is written in the last one alone.

mod error;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::Tensor;
use wavemill_schemas::config::Config;
use wavemill_scores::schedule::{EarlyStop, ScheduleState};

use crate::dataset::{Dataset, DatasetTensors, InputSpec};
use crate::models::Dims;
use crate::models::init::Origin;
use crate::safetensors;

pub use error::CheckpointError;

/// Raised when a checkpoint's form changes.
///
/// 2: `state.json` has `tensors_blake3`. Checkpoints of 1 lack it; they are read as before, unchecked.
pub const FORMAT_VERSION: u32 = 2;
/// The first whose state has the hash of its tensors.
const FIRST_WITH_HASH: u32 = 2;

/// Sums of the part of an epoch that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochSums {
    /// Σ over batches of loss · rows.
    pub loss: f64,
    /// Rows seen, by all ranks.
    pub rows: u64,
    /// Those with a label of the first target; `None` in an epoch that began before they were counted.
    #[serde(default)]
    pub labelled: Option<u64>,
    /// Rows whose first target was right.
    pub correct: f64,
    /// Rows that were passed over because they are damaged.
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

/// The best value of the selecting metric so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BestEpoch {
    /// Its value on validation.
    pub value: f64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// The optimiser steps done then.
    pub step: u64,
}

/// A loss that is a number and yet says that nothing is learnt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// The epoch, from 0.
    pub epoch: u64,
    /// Mean training loss of its rows.
    pub mean: f64,
    /// Training loss of the run's first step.
    pub first: f64,
}

impl Divergence {
    /// How many times the loss of the first step, which is that of a model that knows nothing, an epoch's mean may be.
    const TIMES: f64 = 10.0;

    /// Whether the epoch that `state` has just done is such a one.
    pub fn of(state: &State) -> Option<Self> {
        // 0: the first batch had no labelled row.
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

/// Everything of a run that is not a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// [`FORMAT_VERSION`]; that of the writer where it was read.
    pub format_version: u32,
    /// The configuration, with every flag applied.
    pub config: Config,
    /// blake3 of the store's manifest.
    pub manifest_hash: String,
    /// The feature's identity.
    pub feature_id: String,
    /// Class names by target, in head order.
    pub classes: Vec<(String, Vec<String>)>,
    /// What the model was built for.
    pub dims: Dims,
    /// What it sees of a row.
    pub input: InputSpec,
    /// Where its first weights came from.
    pub origin: Origin,
    /// Ranks of the run; each has buffers of its own.
    pub world_size: usize,
    /// Threads of libtorch's operations on each: sums on a CPU are cut by their number. Checkpoints once lacked it.
    #[serde(default)]
    pub threads: Option<u32>,
    /// Files of the store that are passed over, as the manifest calls them: the order of rows is that of the others.
    /// Checkpoints once lacked it.
    #[serde(default)]
    pub lost: Option<Vec<String>>,
    /// Epoch in progress, from 0.
    pub epoch: u64,
    /// Its next global batch.
    pub batch: u64,
    /// Optimiser steps done.
    pub step: u64,
    /// Of the epoch in progress.
    pub sums: EpochSums,
    /// Damaged training rows of an epoch, the most so far: a row may be damaged while a run goes on.
    #[serde(default)]
    pub damaged_rows: u64,
    /// Training loss of the first step; not known of a run that began with format 1.
    #[serde(default)]
    pub first_loss: Option<f64>,
    /// The first epoch, if any, of a loss out of all proportion to it.
    #[serde(default)]
    pub diverged: Option<Divergence>,
    /// Learning rates.
    pub schedules: ScheduleState,
    /// Epochs without a better value.
    pub early_stop: EarlyStop,
    /// The best epoch.
    pub best: Option<BestEpoch>,
    /// Whether the run came to its end.
    pub finished: bool,
}

impl State {
    /// Before the first step.
    pub fn first(
        config: &Config,
        data: &Dataset,
        schedules: ScheduleState,
        world_size: usize,
    ) -> Self {
        Self {
            // What the run is made from, for those that go on with it or score it.
            format_version: FORMAT_VERSION,
            config: config.clone(),
            manifest_hash: data.store().manifest_hash().to_owned(),
            feature_id: data.feature().feature_id.clone(),
            classes: data
                .targets()
                .iter()
                .map(|t| (t.name().to_owned(), t.classes().to_vec()))
                .collect(),
            dims: data.dims(),
            input: data.input_spec().clone(),
            origin: Origin::Scratch,
            world_size,
            threads: u32::try_from(tch::get_num_threads()).ok(),
            lost: Some(data.lost_paths()),

            // Where it is.
            epoch: 0,
            batch: 0,
            step: 0,
            sums: EpochSums::default(),
            damaged_rows: 0,
            first_loss: None,
            diverged: None,

            // What its validations have decided.
            schedules,
            early_stop: EarlyStop::new(config.train.select, config.train.early_stop),
            best: None,
            finished: false,
        }
    }
}

/// The folder of a run's checkpoints.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

/// A whole checkpoint.
const WHOLE: &str = "step-";
/// The one before it at the same step, whole, until the new one has its name.
const BEFORE: &str = ".old-";
/// One that is being written or removed.
const PART: &str = ".part-";
const STATE: &str = "state.json";
const TENSORS: &str = "tensors.safetensors";

impl Checkpoints {
    /// Those in `folder`, of which the last `keep` and the best stay. Creates the folder.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn open(folder: PathBuf, keep: usize) -> Result<Self, CheckpointError> {
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        // The last one always stays, whatever `keep` says: it names the best, and a run goes on from it.
        Ok(Self {
            folder,
            keep: keep.max(1),
        })
    }

    /// Writes one, then removes those that are neither the best nor among the last `keep`.
    ///
    /// # Errors
    /// [`CheckpointError`]; what was there before is whole.
    pub fn save(
        &self,
        state: &State,
        tensors: &[(String, Tensor)],
    ) -> Result<PathBuf, CheckpointError> {
        let path = self.named(WHOLE, state.step);
        let before = self.named(BEFORE, state.step);
        let part = self.named(PART, state.step);

        // A run that was killed here before may have left its part.
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&part).map_err(at(&part))?;
        let written = write(&part, state, tensors);
        if let Err(error) = written {
            // A full disk needs the room.
            let _ = fs::remove_dir_all(&part);
            return Err(error);
        }

        // The end of an epoch comes at the step of a checkpoint within it.
        if path.exists() {
            let _ = fs::remove_dir_all(&before);
            fs::rename(&path, &before).map_err(at(&path))?;
        }
        fs::rename(&part, &path).map_err(at(&path))?;

        // The new name is on the disk before an older checkpoint is taken away.
        sync(&self.folder)?;
        self.prune(state)?;
        Ok(path)
    }

    /// The last one.
    ///
    /// # Errors
    /// [`CheckpointError::None`] if there is none.
    pub fn last(&self) -> Result<PathBuf, CheckpointError> {
        let last = self.steps()?.last().copied();
        last.map(|step| self.path_of(step))
            .ok_or_else(|| CheckpointError::None {
                path: self.folder.clone(),
            })
    }

    /// The best on validation, as the last one says; the last one where no epoch has ended.
    ///
    /// # Errors
    /// As [`Self::last`]; its state cannot be read.
    pub fn best(&self) -> Result<PathBuf, CheckpointError> {
        // Only the last state knows the best: an older one may name a checkpoint that a later epoch has beaten.
        let last = self.last()?;
        Ok(read_state(&last)?
            .best
            .map_or(last, |best| self.path_of(best.step)))
    }

    /// Whether that of `step` is there.
    pub fn has(&self, step: u64) -> bool {
        self.path_of(step).is_dir()
    }

    fn named(&self, kind: &str, step: u64) -> PathBuf {
        self.folder.join(format!("{kind}{step:08}"))
    }

    /// A kill between two renamings leaves the checkpoint under its other name.
    fn path_of(&self, step: u64) -> PathBuf {
        let path = self.named(WHOLE, step);
        let before = self.named(BEFORE, step);
        if !path.is_dir() && before.is_dir() {
            before
        } else {
            path
        }
    }

    fn steps(&self) -> Result<Vec<u64>, CheckpointError> {
        let mut steps: Vec<u64> = self
            .names()?
            .iter()
            .filter_map(|name| step_of(name))
            .collect();
        steps.sort_unstable();
        // One step may be there under both names.
        steps.dedup();
        Ok(steps)
    }

    fn names(&self) -> Result<Vec<String>, CheckpointError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(at(&self.folder))? {
            let entry = entry.map_err(at(&self.folder))?;
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }

    /// After a checkpoint of `state` was written.
    fn prune(&self, state: &State) -> Result<(), CheckpointError> {
        // Checkpoints that a new one has replaced go first: once the new one is gone, they would count as checkpoints.
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
        // Renamed before it is removed: half a removed folder must not have a checkpoint's name.
        for step in old.iter().filter(|step| Some(**step) != best) {
            let path = self.path_of(*step);
            let part = self.named(PART, *step);
            let _ = fs::remove_dir_all(&part);
            fs::rename(&path, &part).map_err(at(&path))?;
        }

        // Folders that were renamed just now, or by a run that was killed or could not remove them.
        for name in self.names()? {
            if name.starts_with(PART) {
                let path = self.folder.join(name);
                fs::remove_dir_all(&path).map_err(at(&path))?;
            }
        }
        Ok(())
    }
}

/// The step of a checkpoint's folder, under either name.
fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix(WHOLE)
        .or_else(|| name.strip_prefix(BEFORE))?
        .parse()
        .ok()
}

/// A checkpoint's two files, synced; the tensors first, since the state has their hash.
fn write(
    folder: &Path,
    state: &State,
    tensors: &[(String, Tensor)],
) -> Result<(), CheckpointError> {
    #[derive(Serialize)]
    struct Whole<'a> {
        tensors_blake3: String,
        #[serde(flatten)]
        state: &'a State,
    }

    let file = folder.join(TENSORS);
    let tensors_blake3 = safetensors::write(&file, tensors, &[]).map_err(at(&file))?;

    let file = folder.join(STATE);
    let json = serde_json::to_vec_pretty(&Whole {
        tensors_blake3,
        state,
    });
    let json = json.map_err(|source| CheckpointError::State {
        path: file.clone(),
        source,
    })?;

    write_synced(&file, &json)?;
    // The folder too: the names of both files are in it.
    sync(folder)
}

/// What is read of a state before all else.
#[derive(Deserialize)]
struct StateHeader {
    format_version: u32,
    tensors_blake3: Option<String>,
}

/// The text of a checkpoint's `state.json`, and its head.
fn read_head(path: &Path) -> Result<(Vec<u8>, StateHeader), CheckpointError> {
    let file = path.join(STATE);
    let text = fs::read(&file).map_err(lost(&file))?;
    let head = serde_json::from_slice::<StateHeader>(&text);
    let head = head.map_err(|source| CheckpointError::State {
        path: file.clone(),
        source,
    })?;

    // The version comes first: all else may have another form.
    if head.format_version > FORMAT_VERSION {
        return Err(CheckpointError::Version {
            path: file,
            found: head.format_version,
        });
    }
    if head.format_version >= FIRST_WITH_HASH && head.tensors_blake3.is_none() {
        return Err(CheckpointError::Damaged {
            path: file,
            problem: "tensors_blake3 is missing",
        });
    }
    Ok((text, head))
}

/// Reads a checkpoint's `state.json`.
///
/// # Errors
/// [`CheckpointError`].
pub fn read_state(path: &Path) -> Result<State, CheckpointError> {
    let (text, _) = read_head(path)?;
    serde_json::from_slice(&text).map_err(|source| CheckpointError::State {
        path: path.join(STATE),
        source,
    })
}

/// Reads a checkpoint's tensors, by name, on the CPU. Their file must be the one that was written.
///
/// # Errors
/// [`CheckpointError::Damaged`], [`CheckpointError::Tensors`]; those of its state.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, CheckpointError> {
    let (_, head) = read_head(path)?;
    let file = path.join(TENSORS);

    // Damage is told by the hash, not by what a parser makes of it.
    let mut hasher = blake3::Hasher::new();
    let read = File::open(&file).and_then(|opened| hasher.update_reader(opened).map(drop));
    read.map_err(lost(&file))?;
    // Format 1 has no hash, and is not compared.
    if head
        .tensors_blake3
        .is_some_and(|wanted| wanted != hasher.finalize().to_hex().as_str())
    {
        return Err(CheckpointError::Damaged {
            path: file,
            problem: "its blake3 is not the one in state.json",
        });
    }

    let tensors = Tensor::read_safetensors(&file)
        .map_err(|source| CheckpointError::Tensors { path: file, source })?;
    Ok(tensors.into_iter().collect())
}

/// Copies `tensors["<prefix><name>"]` into each of `variables`.
///
/// # Errors
/// [`CheckpointError::Mismatch`] naming the first that is missing or of another shape.
pub(crate) fn copy_into(
    variables: &[(String, Tensor)],
    tensors: &BTreeMap<String, Tensor>,
    prefix: &str,
    path: &Path,
) -> Result<(), CheckpointError> {
    tch::no_grad(|| {
        for (name, variable) in variables {
            let found = tensors
                .get(&format!("{prefix}{name}"))
                .filter(|t| t.size() == variable.size());
            let Some(found) = found else {
                return Err(CheckpointError::Mismatch {
                    path: path.to_owned(),
                    name: name.clone(),
                });
            };

            // Shapes are equal; a value takes its variable's kind and device.
            variable.shallow_clone().copy_(found);
        }
        Ok(())
    })
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    fs::write(path, bytes)
        .and_then(|()| File::open(path)?.sync_all())
        .map_err(at(path))
}

fn sync(folder: &Path) -> Result<(), CheckpointError> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(at(folder))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io { path, source }
}

/// As [`at`]; a file that is not there is damage.
fn lost(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| match source.kind() {
        ErrorKind::NotFound => CheckpointError::Damaged {
            path,
            problem: "it is missing",
        },
        _ => CheckpointError::Io { path, source },
    }
}

#[cfg(test)]
mod tests;
