//! Rows of a store for training: batches of reader threads, and single rows.

use std::ffi::c_int;
use std::mem;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use numpy::ndarray::Array2;
use numpy::{IntoPyArray, PyArray1};
use pyo3::exceptions::{PyIndexError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use wavemill_loader::{
    BatchMemory, Dataset, DatasetError, Loader, LoaderPlan, RowFrames, RowKind, Split, Store,
    n_batches,
};
use wavemill_schemas::config::Data;
use wavemill_schemas::exit::Classified;
use wavemill_schemas::version_name::VersionName;

use crate::errors;
use crate::interrupt::{SIGNALS_EVERY, interruptible};

type Batch = wavemill_loader::Batch<Vec<u8>>;

/// The rows of a split of a feature, and how they are opened.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Selection {
    feature: String,
    split: String,
    target: Option<String>,
    split_rule: Option<String>,
    shuffle_window: usize,
    skip_damaged: bool,
    verify: bool,
}

impl Selection {
    fn open(
        self,
        root: &Path,
        version: u64,
        stop: &AtomicBool,
    ) -> Result<Arc<Dataset>, DatasetError> {
        let data = Data {
            feature: Some(self.feature),
            targets: self.target.into_iter().collect(),
            split: self.split_rule,
            shuffle_window: self.shuffle_window,
            skip_damaged: self.skip_damaged,
            ..Data::default()
        };

        let mut store = Store::open(root, Some(&VersionName::Number(version)))?;
        if !self.verify {
            store = store.without_shard_checks();
        }
        Dataset::open_stored(store, &data, stop)
    }
}

/// Settings for reading an epoch that Python sets, by the names of [`LoaderPlan`]'s fields.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Plan {
    shuffle: bool,
    seed: u64,
    epoch: u64,
    batch_size: usize,
    drop_last: bool,
    crop_frames: Option<usize>,
    buckets: usize,
    rank: usize,
    world_size: usize,
    first_batch: u64,
    stride: u64,
    readers: usize,
    prefetch_batches: usize,
}

impl Plan {
    /// Returns the plan of an epoch over the rows of `split`.
    fn on(self, split: Split) -> LoaderPlan {
        LoaderPlan {
            split,
            shuffle: self.shuffle,
            seed: self.seed,
            epoch: self.epoch,
            batch_size: self.batch_size,
            drop_last: self.drop_last,
            frames: frames(self.crop_frames),
            buckets: self.buckets,
            // Python mixes batches itself, if it does.
            mixup: false,
            rank: self.rank,
            world_size: self.world_size,
            first_batch: self.first_batch,
            stride: self.stride,
            readers: self.readers,
            prefetch_batches: self.prefetch_batches,
            // Batches are numpy arrays, which are not page-locked.
            pinned: false,
        }
    }
}

/// The rows of a split of a feature, opened.
#[pyclass(frozen, module = "wavemill._wavemill", name = "OpenSplit")]
pub(crate) struct PyOpenSplit {
    dataset: Arc<Dataset>,
    split: Split,
    /// The rows of the split in manifest order.
    rows: Vec<u32>,
}

#[pymethods]
impl PyOpenSplit {
    /// Opens a split of a feature in version `version` of the store in the folder `root`.
    #[new]
    fn open(py: Python<'_>, root: PathBuf, version: u64, selection: Selection) -> PyResult<Self> {
        let split = split_named(py, &selection.split)?;
        let opened = interruptible(py, |stop| selection.open(&root, version, stop))?;
        let dataset = opened.map_err(|error| exception(py, &error))?;
        Ok(Self {
            rows: dataset.rows_of(split),
            dataset,
            split,
        })
    }

    /// The number of rows.
    fn __len__(&self) -> usize {
        self.rows.len()
    }

    /// The number of batches in an epoch.
    fn n_batches(&self, batch_size: usize, drop_last: bool) -> u64 {
        n_batches(self.rows.len(), batch_size.max(1), drop_last)
    }

    /// The names of the target's classes; `None` without a target.
    fn classes(&self) -> Option<Vec<String>> {
        let target = self.dataset.targets().first();
        target.map(|target| target.classes().to_vec())
    }

    /// The number of rows in each class; `None` without a target.
    fn class_counts(&self) -> Option<Vec<u64>> {
        let target = self.dataset.targets().first();
        target.map(|target| target.counts(self.dataset.rows(), &self.rows))
    }

    /// Reports whether a row may have several classes.
    fn is_multi(&self) -> bool {
        let target = self.dataset.targets().first();
        target.is_some_and(|target| target.is_multi())
    }

    /// The shape of a row; `None` for the axis on which rows differ in length.
    fn shape(&self) -> Vec<Option<usize>> {
        self.dataset.feature().shape.clone()
    }

    /// The type of a row's values, as numpy names it.
    fn dtype(&self) -> &'static str {
        self.dataset.form().stored.numpy_name()
    }

    /// The blake3 hash of the version's manifest.
    fn manifest_hash(&self) -> &str {
        self.dataset.store().manifest_hash()
    }

    /// Paths of the damaged files that are left out.
    fn lost_paths(&self) -> Vec<String> {
        self.dataset.lost_paths()
    }

    /// Warnings about the rows, such as missing labels.
    fn warnings(&self) -> Vec<String> {
        self.dataset.warnings()
    }

    /// Checks that the rows can be cropped and bucketed.
    fn check(&self, py: Python<'_>, crop_frames: Option<usize>, buckets: usize) -> PyResult<()> {
        let plan = LoaderPlan {
            frames: frames(crop_frames),
            buckets,
            ..LoaderPlan::default()
        };
        let checked = plan.check(&self.dataset);
        checked.map_err(|error| exception(py, &error))
    }

    /// Starts reading an epoch.
    fn start(&self, py: Python<'_>, plan: Plan) -> PyResult<PyBatches> {
        let plan = plan.on(self.split);
        let started = py.detach(|| Loader::start(&self.dataset, plan));
        let loader = started.map_err(|error| exception(py, &error))?;
        Ok(PyBatches {
            loader: Mutex::new(Some(loader)),
            process: process::id(),
        })
    }

    /// Reads the rows at these places of the split. Returns a value as [`PyBatches::next_batch`].
    fn read<'py>(
        &self,
        py: Python<'py>,
        places: Vec<usize>,
        crop_frames: Option<usize>,
        seed: u64,
        epoch: u64,
    ) -> PyResult<Damageable<'py>> {
        let rows: Option<Vec<u32>> = places
            .into_iter()
            .map(|place| self.rows.get(place).copied())
            .collect();
        let rows = rows.ok_or_else(|| PyIndexError::new_err("row index out of range"))?;

        // Comparing a large file with its hash takes seconds.
        if !self.dataset.are_files_checked(&rows) {
            let checked = interruptible(py, |stop| self.dataset.check_files(&rows, stop))?;
            checked.map_err(|error| exception(py, &error))?;
        }

        let plan = LoaderPlan {
            frames: frames(crop_frames),
            seed,
            epoch,
            ..LoaderPlan::default()
        };
        let batch = py.detach(|| Loader::read(&self.dataset, &plan, &rows));
        arrays(py, batch.map_err(|error| exception(py, &error))?)
    }
}

/// Returns the split that the argument `split` names.
pub(crate) fn split_named(py: Python<'_>, split: &str) -> PyResult<Split> {
    Split::named(split).ok_or_else(|| {
        let problem = format!("split: {split:?} is not training, validation or test");
        errors::usage(py, &problem)
    })
}

/// The arrays of a batch by name, and descriptions of the rows that are missing because they are damaged.
type Damageable<'py> = (Bound<'py, PyDict>, Vec<String>);

/// The batches of an epoch, read by threads.
#[pyclass(frozen, module = "wavemill._wavemill", name = "Batches")]
pub(crate) struct PyBatches {
    /// The loader; `None` after the end.
    loader: Mutex<Option<Loader>>,
    /// The process in which the threads run.
    process: u32,
}

/// The outcome of waiting for a batch.
enum Waited {
    Batch(Box<Result<Batch, DatasetError>>),
    End,
    NotYet,
}

#[pymethods]
impl PyBatches {
    /// Returns the arrays of the next batch by name, and descriptions of its damaged rows; `None` at the end.
    fn next_batch<'py>(&self, py: Python<'py>) -> PyResult<Option<Damageable<'py>>> {
        if self.process != process::id() {
            return Err(PyRuntimeError::new_err(
                "the iterator belongs to the parent process, whose reader threads do not exist here: iterate over the \
                 dataset again",
            ));
        }

        loop {
            match py.detach(|| self.wait()) {
                Waited::Batch(batch) => {
                    let batch = batch.map_err(|error| exception(py, &error))?;
                    return arrays(py, batch).map(Some);
                }
                Waited::End => return Ok(None),
                Waited::NotYet => py.check_signals()?,
            }
        }
    }

    /// Stops the threads.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.stop());
    }
}

impl PyBatches {
    /// Waits for the next batch until it is time to check for signals.
    fn wait(&self) -> Waited {
        let mut shared = self.loader.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(loader) = shared.as_mut() else {
            return Waited::End;
        };
        if !loader.wait(SIGNALS_EVERY) {
            return Waited::NotYet;
        }
        match loader.next() {
            Some(batch) => Waited::Batch(Box::new(batch)),
            None => {
                // The threads have ended, so their memory can be freed.
                *shared = None;
                Waited::End
            }
        }
    }

    fn stop(&self) {
        if self.process != process::id() {
            // The threads are those of the parent process: they cannot be joined here. The lock may be held by one of
            // them, so the loader stays where it is.
            return;
        }
        let loader = self
            .loader
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(loader);
    }
}

impl Drop for PyBatches {
    fn drop(&mut self) {
        let loader = self
            .loader
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(loader) = loader else {
            return;
        };
        if self.process != process::id() {
            // Joining threads of the parent process would wait forever.
            mem::forget(loader);
            return;
        }
        // The threads end after their current row; other threads of Python go on meanwhile. Without an interpreter, the
        // closure is dropped with the loader.
        Python::try_attach(|py| py.detach(|| drop(loader)));
    }
}

/// Memory of a batch as the base of a numpy array.
#[pyclass(frozen, module = "wavemill._wavemill", name = "BatchMemory")]
pub(crate) struct PyBatchMemory {
    /// The memory; `None` only while it is dropped. Only the array uses its bytes.
    memory: Option<BatchMemory>,
    /// The address of the first byte.
    address: usize,
    shape: Vec<usize>,
    dtype: &'static str,
    /// The process that read the batch.
    process: u32,
}

#[pymethods]
impl PyBatchMemory {
    /// Describes the memory to numpy. The array keeps a reference to this object.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let is_read_only = false;
        let interface = PyDict::new(py);
        interface.set_item("version", 3 as c_int)?;
        interface.set_item("data", (self.address, is_read_only))?;
        interface.set_item("shape", PyTuple::new(py, &self.shape)?)?;
        interface.set_item("typestr", self.dtype)?;
        Ok(interface)
    }
}

impl Drop for PyBatchMemory {
    fn drop(&mut self) {
        // The loader that would use the memory again is in the parent process.
        if self.process != process::id() {
            mem::forget(self.memory.take());
        }
    }
}

/// Returns the arrays of a batch by name.
fn arrays<'py>(py: Python<'py>, mut batch: Batch) -> PyResult<Damageable<'py>> {
    let arrays = PyDict::new(py);
    let damaged = batch.damaged.iter().map(ToString::to_string).collect();
    let memory = batch.take_memory();
    let dataset = batch.dataset();
    let rows = &batch.rows;

    if let Some(memory) = memory {
        let memory = memory_of(memory, &batch);
        let array = numpy::get_array_module(py)?.call_method1("asarray", (memory,))?;
        arrays.set_item(&dataset.feature().name, array)?;
    }
    if dataset.form().is_ragged() {
        arrays.set_item("frames", PyArray1::from_slice(py, &batch.filled))?;
    }

    if let Some(target) = dataset.targets().first() {
        if target.is_multi() {
            let shape = (rows.len(), target.classes().len());
            let sets = Array2::from_shape_vec(shape, batch.class_sets(0));
            let sets = sets.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
            arrays.set_item("labels", sets.into_pyarray(py))?;
        } else {
            arrays.set_item("label", batch.class_ids(0).into_pyarray(py))?;
        }
    }

    let columns = dataset.rows();
    let tracks = rows.iter().map(|&row| columns.track_ids[row as usize]);
    let segments = rows
        .iter()
        .map(|&row| i64::from(columns.segments[row as usize]));
    arrays.set_item("key", PyArray1::from_slice(py, &batch.keys))?;
    arrays.set_item("track_id", PyArray1::from_iter(py, tracks))?;
    arrays.set_item("segment", PyArray1::from_iter(py, segments))?;
    Ok((arrays, damaged))
}

/// Returns the memory of a batch with the shape of its rows.
fn memory_of(mut memory: BatchMemory, batch: &Batch) -> PyBatchMemory {
    let dataset = batch.dataset();
    let form = dataset.form();

    let mut shape = vec![batch.rows.len()];
    match form.kind {
        RowKind::Spectrogram if form.frames_first => {
            shape.extend([batch.host_frames, form.bands]);
        }
        RowKind::Spectrogram => shape.extend([form.bands, batch.host_frames]),
        RowKind::Samples => shape.push(batch.host_frames),
        // These rows all have the shape of the feature.
        RowKind::Columns | RowKind::Picture { .. } => {
            shape.extend(dataset.feature().shape.iter().copied().flatten());
        }
    }

    PyBatchMemory {
        address: memory.get_mut().as_mut_ptr() as usize,
        memory: Some(memory),
        shape,
        dtype: form.stored.numpy_name(),
        process: process::id(),
    }
}

const fn frames(crop_frames: Option<usize>) -> RowFrames {
    match crop_frames {
        Some(frames) => RowFrames::Crop(frames),
        None => RowFrames::Longest,
    }
}

/// Returns the exception for an error, in which settings have the names of the arguments in Python.
pub(crate) fn exception(py: Python<'_>, error: &DatasetError) -> PyErr {
    let DatasetError::Unfit { setting, problem } = error else {
        return errors::exception(py, error.kind().exit_code(), error);
    };
    // The setting may be followed by its value.
    let mut argument = setting.clone();
    for (key, name) in [("targets", "target"), ("split", "split_rule")] {
        if let Some(value) = setting.strip_prefix(key) {
            argument = format!("{name}{value}");
        }
    }
    errors::usage(py, &format!("{argument}: {problem}"))
}
