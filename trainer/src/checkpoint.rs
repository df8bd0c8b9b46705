//! A run's state on disk, between two optimiser steps: complete, or not there.
//!
//! `checkpoints/step-00000123/` holds `tensors.safetensors` (weights, buffers, optimiser) and `state.json` (the rest). A
//! folder is written under another name, synced and renamed, so that a kill leaves the last one whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::config::Config;
use crate::dataset::{Dataset, InputSpec};
use crate::models::Dims;
use crate::models::init::Origin;
use crate::schedule::{EarlyStop, ScheduleState};

/// Raised when a checkpoint's form changes.
pub const FORMAT_VERSION: u32 = 1;

/// Why a checkpoint cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk's word.
    #[error("checkpoint {path}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// `state.json` is not what it should be.
    #[error("checkpoint {path}: not a state of wavemill-train")]
    State {
        /// Which file.
        path: PathBuf,
        /// The parser's words.
        source: serde_json::Error,
    },
    /// The tensors cannot be read or written.
    #[error("checkpoint {path}: {source}")]
    Tensors {
        /// Which file.
        path: PathBuf,
        /// libtorch's words.
        source: tch::TchError,
    },
    /// A tensor that the model has is not there, or has another shape.
    #[error("checkpoint {path}: {name} is missing or of another shape; it is of another model or configuration")]
    Mismatch {
        /// Which checkpoint.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// Written by a later wavemill.
    #[error(
        "checkpoint {path}: format version {found}; this wavemill-train reads up to {FORMAT_VERSION}: use a newer one"
    )]
    Version {
        /// Which.
        path: PathBuf,
        /// What it says.
        found: u32,
    },
    /// Nothing to go on from.
    #[error("no checkpoint in {path}: was the run stopped before its first? start it again without --resume")]
    None {
        /// The folder that was searched.
        path: PathBuf,
    },
}

/// Sums of the part of an epoch that is done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochSums {
    /// Σ over batches of loss · rows.
    pub loss: f64,
    /// Rows seen, by all ranks.
    pub rows: u64,
    /// Rows whose first target was right.
    pub correct: f64,
}

/// The best value of the selecting metric so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its value on validation.
    pub value: f64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// The optimiser steps done then.
    pub step: u64,
}

/// Everything of a run that is not a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// [`FORMAT_VERSION`] of its writer.
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
    /// Epoch in progress, from 0.
    pub epoch: u64,
    /// Its next global batch.
    pub batch: u64,
    /// Optimiser steps done.
    pub step: u64,
    /// Of the epoch in progress.
    pub sums: EpochSums,
    /// Learning rates.
    pub schedules: ScheduleState,
    /// Epochs without a better value.
    pub early_stop: EarlyStop,
    /// The best epoch.
    pub best: Option<Best>,
    /// Whether the run came to its end.
    pub finished: bool,
}

impl State {
    /// Before the first step.
    #[must_use]
    pub fn first(config: &Config, data: &Dataset, schedules: ScheduleState, world_size: usize) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            config: config.clone(),
            manifest_hash: data.store().manifest_hash().to_owned(),
            feature_id: data.feature().feature_id.clone(),
            classes: data.targets().iter().map(|t| (t.name().to_owned(), t.classes().to_vec())).collect(),
            dims: data.dims(),
            input: data.input_spec().clone(),
            origin: Origin::Scratch,
            world_size,
            epoch: 0,
            batch: 0,
            step: 0,
            sums: EpochSums::default(),
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

const BEST: &str = "best.json";
const STATE: &str = "state.json";
const TENSORS: &str = "tensors.safetensors";

impl Checkpoints {
    /// Those in `folder`, of which the last `keep` and the best stay. Creates the folder.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn open(folder: PathBuf, keep: usize) -> Result<Self, CheckpointError> {
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        Ok(Self { folder, keep: keep.max(1) })
    }

    /// Writes one, then removes those that are neither the best nor among the last `keep`.
    ///
    /// # Errors
    /// [`CheckpointError`]; what was there before is whole.
    pub fn save(&self, state: &State, tensors: &[(String, Tensor)]) -> Result<PathBuf, CheckpointError> {
        let path = self.path_of(state.step);
        let part = self.folder.join(format!(".part-{:08}", state.step));
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&part).map_err(at(&part))?;
        write_tensors(&part.join(TENSORS), tensors)?;
        let json = serde_json::to_vec_pretty(state)
            .map_err(|source| CheckpointError::State { path: part.join(STATE), source })?;
        write_synced(&part.join(STATE), &json)?;
        sync(&part)?;
        // A run that went back to an earlier step comes to this one again.
        let old = self.folder.join(format!(".old-{:08}", state.step));
        if path.exists() {
            let _ = fs::remove_dir_all(&old);
            fs::rename(&path, &old).map_err(at(&path))?;
        }
        fs::rename(&part, &path).map_err(at(&path))?;
        let _ = fs::remove_dir_all(&old);
        if state.best.as_ref().is_some_and(|best| best.step == state.step) {
            let part = self.folder.join(".part-best");
            write_synced(&part, format!("{{\"step\":{}}}\n", state.step).as_bytes())?;
            fs::rename(&part, self.folder.join(BEST)).map_err(at(&part))?;
        }
        sync(&self.folder)?;
        self.prune()?;
        Ok(path)
    }

    /// The last one.
    ///
    /// # Errors
    /// [`CheckpointError::None`] if there is none.
    pub fn last(&self) -> Result<PathBuf, CheckpointError> {
        let last = self.steps()?.last().copied();
        last.map(|step| self.path_of(step)).ok_or_else(|| CheckpointError::None { path: self.folder.clone() })
    }

    /// The best on validation; the last one where no epoch has ended.
    ///
    /// # Errors
    /// As [`Self::last`].
    pub fn best(&self) -> Result<PathBuf, CheckpointError> {
        match self.best_step() {
            Some(step) if self.path_of(step).is_dir() => Ok(self.path_of(step)),
            _ => self.last(),
        }
    }

    fn path_of(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step-{step:08}"))
    }

    fn best_step(&self) -> Option<u64> {
        let text = fs::read(self.folder.join(BEST)).ok()?;
        serde_json::from_slice::<serde_json::Value>(&text).ok()?.get("step")?.as_u64()
    }

    fn steps(&self) -> Result<Vec<u64>, CheckpointError> {
        let names = fs::read_dir(&self.folder).map_err(at(&self.folder))?.filter_map(Result::ok);
        let mut steps: Vec<u64> =
            names.filter_map(|e| e.file_name().to_str()?.strip_prefix("step-")?.parse().ok()).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    fn prune(&self) -> Result<(), CheckpointError> {
        let steps = self.steps()?;
        let best = self.best_step();
        for step in &steps[..steps.len().saturating_sub(self.keep)] {
            if Some(*step) != best {
                let path = self.path_of(*step);
                fs::remove_dir_all(&path).map_err(at(&path))?;
            }
        }
        Ok(())
    }
}

/// Reads a checkpoint's `state.json`.
///
/// # Errors
/// [`CheckpointError`].
pub fn read_state(path: &Path) -> Result<State, CheckpointError> {
    #[derive(Deserialize)]
    struct Head {
        format_version: u32,
    }
    let file = path.join(STATE);
    let text = fs::read(&file).map_err(at(&file))?;
    let bad = |source| CheckpointError::State { path: file.clone(), source };
    let found = serde_json::from_slice::<Head>(&text).map_err(bad)?.format_version;
    if found > FORMAT_VERSION {
        return Err(CheckpointError::Version { path: file, found });
    }
    serde_json::from_slice(&text).map_err(bad)
}

/// Reads a checkpoint's tensors, by name, on the CPU.
///
/// # Errors
/// [`CheckpointError::Tensors`].
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, CheckpointError> {
    let file = path.join(TENSORS);
    let tensors = Tensor::read_safetensors(&file).map_err(|source| CheckpointError::Tensors { path: file, source })?;
    Ok(tensors.into_iter().collect())
}

/// Copies `tensors["<prefix><name>"]` into each of `variables`.
///
/// # Errors
/// [`CheckpointError::Mismatch`] naming the first that is missing or of another shape.
pub fn copy_into(
    variables: &[(String, Tensor)],
    tensors: &BTreeMap<String, Tensor>,
    prefix: &str,
    path: &Path,
) -> Result<(), CheckpointError> {
    tch::no_grad(|| {
        for (name, variable) in variables {
            let found = tensors.get(&format!("{prefix}{name}")).filter(|t| t.size() == variable.size());
            let Some(found) = found else {
                return Err(CheckpointError::Mismatch { path: path.to_owned(), name: name.clone() });
            };
            variable.shallow_clone().copy_(found);
        }
        Ok(())
    })
}

fn write_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), CheckpointError> {
    let on_cpu: Vec<(&str, Tensor)> =
        tensors.iter().map(|(name, t)| (name.as_str(), t.detach().to_device(Device::Cpu).contiguous())).collect();
    Tensor::write_safetensors(&on_cpu, path)
        .map_err(|source| CheckpointError::Tensors { path: path.to_owned(), source })?;
    File::open(path).and_then(|file| file.sync_all()).map_err(at(path))
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    fs::write(path, bytes).and_then(|()| File::open(path)?.sync_all()).map_err(at(path))
}

fn sync(folder: &Path) -> Result<(), CheckpointError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(at(folder))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io { path, source }
}
