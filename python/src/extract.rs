//! A recipe's feature of a list of files as Arrow tables, without a store.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Result, anyhow};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use pyo3::prelude::*;
use pyo3_arrow::PyTable;
use wavemill::cli::features::{ClipOutcome, feature_number, rows_of};
use wavemill_decode::OUTPUT_S_MAX;
use wavemill_extract::features::FeaturePlan;
use wavemill_extract::single::{self, RowExtractor};
use wavemill_runtime::panics::caught;
use wavemill_schemas::recipe::Recipe;
use wavemill_sql::TensorStream;
use wavemill_store::shards::Format;

use crate::errors;
use crate::interrupt::interruptible;

/// The rows or the problem of each file.
type Outcomes = Vec<Option<Result<RecordBatch, String>>>;

/// Computes a feature of files, by default the recipe's first one, on several threads. Returns a table of rows, with the
/// columns of a shard and tensors as in queries, and a table of the files without rows, with the columns `clip_key` and
/// `problem`, both in the order of `paths`.
#[pyfunction]
pub(crate) fn extract(
    py: Python<'_>,
    paths: Vec<PathBuf>,
    recipe: &str,
    sets: Vec<String>,
    feature: Option<&str>,
    threads: usize,
) -> PyResult<(PyTable, PyTable)> {
    let extracted = interruptible(py, |stop| {
        let recipe = Recipe::load(recipe, &sets)?;
        let number = match feature {
            Some(_) => feature_number(&recipe, feature)?,
            None => 0,
        };
        let job = Job::new(paths, recipe, number)?;
        job.run(threads, stop)?;
        job.tables()
    })?;

    let (rows, rejects) = extracted.map_err(|error| errors::of_command(py, &error))?;
    Ok((table(rows)?, table(rejects)?))
}

/// The files of a call, and their results so far.
struct Job {
    paths: Vec<PathBuf>,
    recipe: Recipe,
    plan: Arc<FeaturePlan>,
    format: Format,
    /// Converts stored tensors to Arrow's, as queries do.
    tensors: TensorStream,
    /// The index of the next file.
    next: AtomicUsize,
    outcomes: Mutex<Outcomes>,
}

impl Job {
    fn new(paths: Vec<PathBuf>, recipe: Recipe, number: usize) -> Result<Self> {
        let plan = single::plan(&recipe, number)?;
        let format = single::stream_format(&plan, &recipe)?;
        Ok(Self {
            outcomes: Mutex::new(vec![None; paths.len()]),
            paths,
            recipe,
            plan: Arc::new(plan),
            tensors: TensorStream::new(&format.schema),
            format,
            next: AtomicUsize::new(0),
        })
    }

    /// Computes all files on `threads` threads, until `stop` is set.
    fn run(&self, threads: usize, stop: &AtomicBool) -> Result<()> {
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.min(self.paths.len()))
                .map(|_| scope.spawn(|| caught(|| self.work(stop))))
                .collect();

            for worker in workers {
                // A panic was caught on the thread.
                let worked = worker.join().map_err(|_| anyhow!("a thread ended early"))?;
                worked??;
            }
            Ok(())
        })
    }

    /// Computes one file after another on this thread.
    fn work(&self, stop: &AtomicBool) -> Result<()> {
        let mut extractor = RowExtractor::new(&self.plan, OUTPUT_S_MAX)?;
        while !stop.load(Ordering::Relaxed) {
            let place = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = self.paths.get(place) else {
                break;
            };
            let outcome = self.outcome(&mut extractor, path)?;
            let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
            outcomes[place] = Some(outcome);
        }
        Ok(())
    }

    fn outcome(
        &self,
        extractor: &mut RowExtractor,
        path: &Path,
    ) -> Result<Result<RecordBatch, String>> {
        // The rows of a file refer to the only clip of its batch.
        let clip = single::clip_row(clip_key(path), self.recipe.targets.len());
        Ok(match rows_of(extractor, 0, path)? {
            ClipOutcome::Rows(rows) => {
                let batch = self.format.batch(0, rows, &[clip])?;
                Ok(self.tensors.convert(&batch)?)
            }
            ClipOutcome::Rejected(problem) => Err(problem),
        })
    }

    /// Returns the rows and the rejects, each as batches with their schema.
    fn tables(self) -> Result<(Batches, Batches)> {
        let outcomes = self
            .outcomes
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);

        let mut rows = Vec::new();
        let mut keys = Vec::new();
        let mut problems = Vec::new();
        for (path, outcome) in self.paths.iter().zip(outcomes) {
            match outcome {
                Some(Ok(batch)) => rows.push(batch),
                Some(Err(problem)) => {
                    keys.push(clip_key(path));
                    problems.push(problem);
                }
                // The call was interrupted, so its result is not used.
                None => {}
            }
        }

        let columns: [(&str, ArrayRef); 2] = [
            ("clip_key", Arc::new(StringArray::from(keys))),
            ("problem", Arc::new(StringArray::from(problems))),
        ];
        let rejects = RecordBatch::try_from_iter(columns)?;
        let schema = rejects.schema();
        Ok((
            (rows, Arc::clone(self.tensors.schema())),
            (vec![rejects], schema),
        ))
    }
}

/// Record batches with their schema.
type Batches = (Vec<RecordBatch>, SchemaRef);

fn table((batches, schema): Batches) -> PyResult<PyTable> {
    PyTable::try_new(batches, schema)
}

fn clip_key(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
