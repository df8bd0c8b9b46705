//! Predictions of a trained model for feature rows that arrive as a stream: without a store or labels, and with only
//! sums kept in memory.
//!
//! Rows are processed in batches of a fixed size, so the same stream always gives the same output. Scores against
//! labels are computed by [`crate::evaluate`].

mod json_lines;
mod stream;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};
use std::path::PathBuf;

use arrow::error::ArrowError;
use wavemill_schemas::exit;

pub(crate) use json_lines::JsonLines;
pub(crate) use stream::{ExpectedFeature, Row, Rows};

use crate::dataset::{DatasetError, Needs, SpecTensors};
use crate::learner::LearnError;
use crate::models::registry;
use crate::trained::TrainedModel;

/// Error of predicting the classes of a stream's rows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PredictError {
    /// The input is not a stream of features, or the model needs inputs that such a stream does not contain.
    #[error("{0}")]
    Unfit(String),
    /// The stream of rows is incomplete or damaged.
    #[error("the stream is {problem} after {rows} rows: did the program that wrote it end early?")]
    Cut {
        /// Kind of the error: `cut off` or `damaged`.
        problem: &'static str,
        /// Number of complete rows in the stream before the error.
        rows: u64,
        source: ArrowError,
    },
    /// The stream's rows are of another feature than the model's.
    #[error(
        "the stream contains {found}, but the model was trained on {wanted}: use the recipe that it was trained with, \
         `wavemill features … --recipe {recipe} --feature {feature} --format arrow --out -`"
    )]
    OtherFeature {
        /// Names and shortened ids of the features in the stream.
        found: String,
        /// Name and shortened id of the model's feature.
        wanted: String,
        recipe: PathBuf,
        feature: String,
    },
    /// A column of the stream is missing or has an unexpected type.
    #[error("column {column} of the stream: {problem}")]
    Column { column: String, problem: String },
    /// Rows of the stream are not valid for their feature.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The model cannot give a probability: its weights are not finite, or a row is far from those of training.
    #[error(
        "clip {clip}, segment {segment}: the model's output is not a number: use another checkpoint or, if only this \
         clip is affected, leave it out"
    )]
    NotFinite { clip: String, segment: i32 },
    #[error(transparent)]
    Learn(#[from] LearnError),
    #[error("libtorch: {0}")]
    Tch(#[from] tch::TchError),
    /// The first bytes of the stream cannot be read.
    #[error("cannot read the stream")]
    Read { source: io::Error },
    #[error("cannot write the predictions")]
    Write { source: io::Error },
}

impl PredictError {
    /// Returns the exit code of a command that ends with this error.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::OtherFeature { .. } => exit::OTHER_PLAN,
            Self::Unfit(_) => exit::USAGE,
            Self::Learn(error) => error.exit_code(),
            Self::Cut { .. }
            | Self::Column { .. }
            | Self::Dataset(_)
            | Self::NotFinite { .. }
            | Self::Tch(_)
            | Self::Read { .. }
            | Self::Write { .. } => exit::FAILED,
        }
    }
}

/// Options for predicting a stream of rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnswerOptions {
    /// Number of most likely classes that each line lists.
    pub top: usize,
    /// Number of rows per batch; 0 is treated as 1.
    pub batch_rows: usize,
}

/// Checks that a stream of feature rows provides all inputs of a model.
///
/// # Errors
/// [`PredictError::Unfit`] if the model needs metadata or ids of artist and album.
pub(crate) fn check(trained: &TrainedModel) -> Result<(), PredictError> {
    let model = &trained.state.config.model.name;
    let architecture = registry::find(model).map_err(LearnError::from)?;
    let what = match architecture.reads(&trained.state.input.feature) {
        Needs::Spectrogram => return Ok(()),
        Needs::Metadata => "columns of fma_features",
        Needs::All => "columns of fma_features, artist and album",
    };
    Err(PredictError::Unfit(format!(
        "{model} needs {what}, which a stream of features does not contain: evaluate it on a store with \
         `wavemill-train eval`"
    )))
}

/// Writes a JSON line per row and target after each batch, and at the end a line per target for each clip with several
/// rows. Returns the number of rows. If a row is an error, the rows before it are still processed.
pub(crate) fn answer(
    trained: &TrainedModel,
    rows: impl Iterator<Item = Result<Row, PredictError>>,
    options: AnswerOptions,
    out: &mut impl Write,
) -> Result<u64, PredictError> {
    check(trained)?;
    let mut answers = JsonLines::new(&trained.state.classes, options.top);
    // The loop calls `next` again after the end of the rows, to get an empty batch.
    let mut rows = rows.fuse();
    let mut answered = 0;

    loop {
        let mut batch = Vec::new();
        let mut failure = None;
        for row in rows.by_ref().take(options.batch_rows.max(1)) {
            match row {
                Ok(row) => batch.push(row),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }

        // Predict the rows before an error, and only then return the error.
        if !batch.is_empty() {
            let lines = answers.rows(&batch, &probabilities(trained, &batch)?);
            write(out, &lines)?;
            answered += batch.len() as u64;
        }
        match failure {
            Some(error) => return Err(error),
            None if batch.is_empty() => break,
            None => {}
        }
    }

    write(out, &answers.clips())?;
    Ok(answered)
}

/// Processes consecutive streams independently, and writes an empty line after the output for each stream. Another
/// program can thus start this one once and request predictions song by song. It can send a stream without rows to
/// check whether the model is ready.
pub(crate) fn answer_each(
    trained: &TrainedModel,
    mut input: impl Read,
    wanted: ExpectedFeature<'_>,
    options: AnswerOptions,
    out: &mut impl Write,
) -> Result<(), PredictError> {
    while let Some(rows) = Rows::open_next(&mut input, wanted)? {
        answer(trained, rows, options, out)?;
        write(out, "\n")?;
    }
    Ok(())
}

/// Writes the lines and flushes `out`, so that a program that reads the lines receives them immediately.
fn write(out: &mut impl Write, lines: &str) -> Result<(), PredictError> {
    out.write_all(lines.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|source| PredictError::Write { source })
}

/// Returns the probabilities as one row-major array `[row][class]` per target.
fn probabilities(trained: &TrainedModel, rows: &[Row]) -> Result<Vec<Vec<f32>>, PredictError> {
    let spec = &trained.state.input;
    let forward = trained.forward;
    let bytes: Vec<&[u8]> = rows.iter().map(|row| &*row.bytes).collect();
    let inputs = spec.inputs(&bytes, forward.device, forward.kind)?;

    let targets = trained.probabilities(&inputs)?;
    let mut values = Vec::with_capacity(targets.len());
    for target in targets {
        let target: Vec<f32> = Vec::try_from(target.f_contiguous()?.f_view(-1)?)?;
        let n_classes = (target.len() / rows.len()).max(1);
        if let Some(index) = target.iter().position(|value| !value.is_finite()) {
            let row = &rows[index / n_classes];
            return Err(PredictError::NotFinite {
                clip: row.clip_key.clone(),
                segment: row.segment,
            });
        }
        values.push(target);
    }
    Ok(values)
}
