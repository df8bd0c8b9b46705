//! A run's state on disk, between two optimiser steps: complete, or not there.
//!
//! `checkpoints/step-00000123/` holds `tensors.safetensors` (weights, buffers, optimiser) and `state.json` (the rest). A
//! folder is written under another name, synced and renamed, and renamed again before it is removed, so that what bears
//! the name of a checkpoint is whole whenever a run is killed. Which one is the best is written in the last one alone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::config::Config;
use crate::dataset::{Dataset, InputSpec};
use crate::models::Dims;
use crate::models::init::Origin;
use crate::safetensors;
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
    /// The tensors cannot be read.
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
    /// Rows that were passed over because they are damaged.
    #[serde(default)]
    pub damaged: u64,
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
    /// Damaged training rows of an epoch, the most so far: a row may be damaged while a run goes on.
    #[serde(default)]
    pub damaged_rows: u64,
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
            damaged_rows: 0,
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
        Ok(Self { folder, keep: keep.max(1) })
    }

    /// Writes one, then removes those that are neither the best nor among the last `keep`.
    ///
    /// # Errors
    /// [`CheckpointError`]; what was there before is whole.
    pub fn save(&self, state: &State, tensors: &[(String, Tensor)]) -> Result<PathBuf, CheckpointError> {
        let [path, before, part] = [WHOLE, BEFORE, PART].map(|kind| self.named(kind, state.step));
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
        last.map(|step| self.path_of(step)).ok_or_else(|| CheckpointError::None { path: self.folder.clone() })
    }

    /// The best on validation, as the last one says; the last one where no epoch has ended.
    ///
    /// # Errors
    /// As [`Self::last`]; its state cannot be read.
    pub fn best(&self) -> Result<PathBuf, CheckpointError> {
        let last = self.last()?;
        Ok(read_state(&last)?.best.map_or(last, |best| self.path_of(best.step)))
    }

    fn named(&self, kind: &str, step: u64) -> PathBuf {
        self.folder.join(format!("{kind}{step:08}"))
    }

    /// A kill between two renamings leaves the checkpoint under its other name.
    fn path_of(&self, step: u64) -> PathBuf {
        let [path, before] = [WHOLE, BEFORE].map(|kind| self.named(kind, step));
        if !path.is_dir() && before.is_dir() { before } else { path }
    }

    fn steps(&self) -> Result<Vec<u64>, CheckpointError> {
        let step = |name: &str| name.strip_prefix(WHOLE).or_else(|| name.strip_prefix(BEFORE))?.parse().ok();
        let mut steps: Vec<u64> = self.names()?.iter().filter_map(|name| step(name)).collect();
        steps.sort_unstable();
        steps.dedup();
        Ok(steps)
    }

    fn names(&self) -> Result<Vec<String>, CheckpointError> {
        let entries = fs::read_dir(&self.folder).map_err(at(&self.folder))?.filter_map(Result::ok);
        Ok(entries.filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    /// After a checkpoint of `state` was written.
    fn prune(&self, state: &State) -> Result<(), CheckpointError> {
        let steps = self.steps()?;
        let best = state.best.as_ref().map(|best| best.step);
        let old = &steps[..steps.len().saturating_sub(self.keep)];
        for step in old.iter().filter(|step| Some(**step) != best) {
            let (path, part) = (self.path_of(*step), self.named(PART, *step));
            let _ = fs::remove_dir_all(&part);
            fs::rename(&path, &part).map_err(at(&path))?;
        }
        let has_other_name = |name: &&String| {
            let step = name.strip_prefix(BEFORE).and_then(|step| step.parse().ok());
            name.starts_with(PART) || step.is_some_and(|step| self.named(WHOLE, step).is_dir())
        };
        for name in self.names()?.iter().filter(has_other_name) {
            let path = self.folder.join(name);
            fs::remove_dir_all(&path).map_err(at(&path))?;
        }
        Ok(())
    }
}

/// A checkpoint's two files, synced.
fn write(folder: &Path, state: &State, tensors: &[(String, Tensor)]) -> Result<(), CheckpointError> {
    let file = folder.join(TENSORS);
    safetensors::write(&file, tensors, &[]).map_err(at(&file))?;
    let file = folder.join(STATE);
    let json = serde_json::to_vec_pretty(state);
    let json = json.map_err(|source| CheckpointError::State { path: file.clone(), source })?;
    write_synced(&file, &json)?;
    sync(folder)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Schedule;
    use crate::dataset::fixture::Fixture;
    use crate::dataset::{Needs, Store};
    use crate::schedule::Schedules;

    fn state(folder: &Path) -> State {
        Fixture::default().write(folder);
        let config = Config::default();
        let store = Store::open(folder, None).expect("a store");
        let data = Dataset::open(store, &config.data, Needs::default()).expect("a dataset");
        State::first(&config, &data, Schedules::new(&Schedule::default(), 0.1).state().clone(), 1)
    }

    fn tensors(value: f64) -> Vec<(String, Tensor)> {
        let odd = Tensor::from_slice(&[value as f32, 2.0, 3.0]);
        let wide = Tensor::from_slice(&[value, -0.0, f64::MIN_POSITIVE, f64::INFINITY]).view([2, 2]);
        let steps = Tensor::from_slice(&[7_i64, i64::MAX]);
        [("b.odd", odd), ("a.wide", wide), ("steps", steps), ("c.scalar", Tensor::from(value as f32))]
            .map(|(name, tensor)| (name.to_owned(), tensor))
            .into()
    }

    fn save(checkpoints: &Checkpoints, state: &mut State, step: u64) -> PathBuf {
        state.step = step;
        checkpoints.save(state, &tensors(step as f64)).expect("room")
    }

    fn names(checkpoints: &Checkpoints) -> Vec<String> {
        let mut names = checkpoints.names().expect("a folder");
        names.sort();
        names
    }

    #[test]
    fn tensors_come_back_bit_for_bit_with_their_shapes() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut state = state(&folder.path().join("store"));
        let checkpoints = Checkpoints::open(folder.path().join("checkpoints"), 2).expect("a folder");
        let path = save(&checkpoints, &mut state, 3);
        let back = read_tensors(&path).expect("safetensors");
        assert_eq!(back.len(), 4);
        for (name, tensor) in tensors(3.0) {
            assert_eq!((back[&name].size(), back[&name].kind()), (tensor.size(), tensor.kind()), "{name}");
            assert!(back[&name].equal(&tensor), "{name}");
        }
        assert_eq!(read_state(&path).expect("JSON"), state);
    }

    #[test]
    fn the_last_and_the_best_stay_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut state = state(&folder.path().join("store"));
        let checkpoints = Checkpoints::open(folder.path().join("checkpoints"), 2).expect("a folder");
        assert!(matches!(checkpoints.last(), Err(CheckpointError::None { .. })));
        save(&checkpoints, &mut state, 1);
        assert_eq!(checkpoints.best().expect("the last"), checkpoints.last().expect("one"));
        state.best = Some(Best { value: 0.5, epoch: 0, step: 2 });
        for step in 2..=5 {
            save(&checkpoints, &mut state, step);
        }
        assert_eq!(names(&checkpoints), ["step-00000002", "step-00000004", "step-00000005"]);
        assert!(checkpoints.best().expect("step 2").ends_with("step-00000002"));
        // A later run that keeps fewer.
        let checkpoints = Checkpoints::open(folder.path().join("checkpoints"), 1).expect("a folder");
        state.best = Some(Best { value: 0.4, epoch: 1, step: 6 });
        save(&checkpoints, &mut state, 6);
        assert_eq!(names(&checkpoints), ["step-00000006"]);
    }

    #[test]
    fn a_kill_between_two_renamings_or_while_writing_loses_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut state = state(&folder.path().join("store"));
        let checkpoints = Checkpoints::open(folder.path().join("checkpoints"), 1).expect("a folder");
        let path = save(&checkpoints, &mut state, 9);
        let within = |name: &str| folder.path().join("checkpoints").join(name);
        fs::rename(&path, within(".old-00000009")).expect("a folder");
        fs::create_dir(within(".part-00000009")).expect("a folder");
        fs::write(within(".part-00000009/tensors.safetensors"), "half").expect("room");
        let last = checkpoints.last().expect("under its other name");
        assert_eq!(read_state(&last).expect("whole").step, 9);
        // Written again, and gone on from.
        for step in [9, 10] {
            save(&checkpoints, &mut state, step);
            assert_eq!(names(&checkpoints), [format!("step-{step:08}")]);
        }
    }
}
