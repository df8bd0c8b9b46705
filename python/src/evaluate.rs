//! Scores of predictions for the rows of a store, and the page about them.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeListArray, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3_arrow::PyTable;
use wavemill_evaluation::report::evaluation_page;
use wavemill_evaluation::{Answers, Evaluated, EvaluationError, EvaluationSettings, Values};
use wavemill_loader::Store;
use wavemill_pages::Page;
use wavemill_schemas::exit::Classified;
use wavemill_schemas::version_name::VersionName;
use wavemill_terminal::exit;
use wavemill_terminal::files::{require_replaceable, write_text};

use crate::interrupt::interruptible;
use crate::{dataset, errors, versions};

/// The arguments of `wavemill.Store.evaluate`, apart from the predictions.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Settings {
    name: String,
    target: String,
    split: String,
    split_rule: Option<String>,
    feature: Option<String>,
    classes: Option<Vec<String>>,
    trained_on: Option<String>,
    logits: bool,
    seed: u64,
}

/// Predictions in one of the forms that the package accepts.
#[derive(FromPyObject)]
pub(crate) enum Given<'py> {
    /// Rows in the order of the split, `(rows, classes)`.
    Matrix(PyReadonlyArray2<'py, f64>),
    /// The path of a Parquet file.
    File(PathBuf),
    /// Columns of equal length, by name.
    Columns(Vec<(String, Column<'py>)>),
    /// Any object with a stream of Arrow data.
    Table(PyTable),
}

/// A column of a table.
#[derive(FromPyObject)]
pub(crate) enum Column<'py> {
    /// Whole numbers.
    Integers(PyReadonlyArray1<'py, i64>),
    /// Numbers.
    Numbers(PyReadonlyArray1<'py, f64>),
    /// A list of numbers for each row.
    Lists(PyReadonlyArray2<'py, f64>),
    /// Texts.
    Texts(Vec<String>),
}

/// Predictions with their scores.
#[pyclass(frozen, module = "wavemill._wavemill", name = "Evaluated")]
pub(crate) struct PyEvaluated(Evaluated);

#[pymethods]
impl PyEvaluated {
    /// The scores as JSON, in the form of `wavemill train eval --json`.
    fn json(&self) -> String {
        // Numbers and texts can always be written as JSON.
        serde_json::to_string(&self.0.evaluation).unwrap_or_default()
    }

    /// The calibration as JSON: `null` for a target with several labels per row.
    fn calibration(&self) -> String {
        serde_json::to_string(&self.0.calibration()).unwrap_or_default()
    }

    /// The scores as a table for a terminal.
    fn table(&self) -> String {
        self.0.table()
    }

    /// Warnings about the rows that affect the interpretation of the scores.
    fn warnings(&self) -> Vec<String> {
        self.0.warnings.clone()
    }
}

/// Computes the scores of predictions for a split of a version of the store in the folder `root`.
#[pyfunction]
pub(crate) fn evaluate(
    py: Python<'_>,
    root: PathBuf,
    version: u64,
    given: Given<'_>,
    settings: Settings,
) -> PyResult<PyEvaluated> {
    let settings = settings_of(py, settings)?;
    let answers = answers_of(py, given)?;
    let evaluated = interruptible(py, |stop| {
        let store = Store::open(&root, Some(&VersionName::Number(version)))?;
        wavemill_evaluation::evaluate(store, &answers, &settings, stop)
    })?;
    evaluated
        .map(PyEvaluated)
        .map_err(|error| exception(py, &error))
}

/// Writes the page about `evaluations`, at least one, to `path`.
#[pyfunction]
pub(crate) fn write_report(
    py: Python<'_>,
    evaluations: Vec<PyRef<'_, PyEvaluated>>,
    path: PathBuf,
) -> PyResult<()> {
    let evaluations: Vec<&Evaluated> = evaluations.iter().map(|of| &of.0).collect();
    let written = py.detach(|| {
        require_replaceable("path", &path, "page", Page::is_ours)?;
        write_text("path", &path, &evaluation_page(&evaluations).to_html())
    });
    written.map_err(|error| {
        let code = exit::kind(&error, &[]).exit_code();
        errors::exception(py, code, error.as_ref())
    })
}

fn settings_of(py: Python<'_>, settings: Settings) -> PyResult<EvaluationSettings> {
    let trained_on = settings
        .trained_on
        .map(|name| versions::parsed(py, "trained_on", &name))
        .transpose()?;

    Ok(EvaluationSettings {
        name: settings.name,
        target: settings.target,
        split: dataset::split_named(py, &settings.split)?,
        split_rule: settings.split_rule,
        feature: settings.feature,
        classes: settings.classes,
        trained_on,
        values: match settings.logits {
            true => Values::Logits,
            false => Values::Probabilities,
        },
        seed: settings.seed,
    })
}

fn answers_of(py: Python<'_>, given: Given<'_>) -> PyResult<Answers> {
    match given {
        Given::Matrix(matrix) => Ok(Answers::Matrix {
            values: matrix.as_array().iter().copied().collect(),
            shape: [matrix.shape()[0], matrix.shape()[1]],
        }),
        Given::Columns(columns) => {
            let batch = columns
                .into_iter()
                .map(|(name, column)| Ok((name, array_of(&column)?)))
                .collect::<Result<Vec<_>, ArrowError>>()
                .and_then(RecordBatch::try_from_iter);

            match batch {
                Ok(batch) => Ok(Answers::Table(vec![batch])),
                Err(error) => Err(errors::usage(py, &format!("predictions: {error}"))),
            }
        }
        Given::Table(table) => Ok(Answers::Table(table.into_inner().0)),
        Given::File(path) => {
            let answers = py.detach(|| Answers::read(&path));
            answers.map_err(|error| exception(py, &error))
        }
    }
}

fn array_of(column: &Column<'_>) -> Result<ArrayRef, ArrowError> {
    Ok(match column {
        Column::Integers(values) => {
            let values = values.as_array();
            Arc::new(Int64Array::from_iter_values(values.iter().copied()))
        }
        Column::Numbers(values) => {
            let values = values.as_array();
            Arc::new(Float64Array::from_iter_values(values.iter().copied()))
        }
        Column::Texts(texts) => Arc::new(StringArray::from_iter_values(texts)),
        Column::Lists(lists) => {
            let width = i32::try_from(lists.shape()[1])
                .map_err(|error| ArrowError::InvalidArgumentError(error.to_string()))?;

            let values = Float64Array::from_iter_values(lists.as_array().iter().copied());
            let item = Arc::new(Field::new("item", DataType::Float64, true));
            Arc::new(FixedSizeListArray::try_new(
                item,
                width,
                Arc::new(values),
                None,
            )?)
        }
    })
}

fn exception(py: Python<'_>, error: &EvaluationError) -> PyErr {
    match error {
        EvaluationError::Dataset(error) => dataset::exception(py, error),
        error => errors::exception(py, error.kind().exit_code(), error),
    }
}
