//! A trained model's answers to feature rows that come as a stream: no store, no labels, nothing kept but sums.
//!
//! Rows are answered in batches of a fixed number, so that the same stream always gets the same bytes. Scores against
//! labels are [`crate::evaluate`].

mod json_lines;
mod stream;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};
use std::path::PathBuf;

use arrow::error::ArrowError;

pub(crate) use json_lines::JsonLines;
pub(crate) use stream::{ExpectedFeature, Row, Rows};

use crate::dataset::{DatasetError, Needs, SpecTensors};
use crate::learner::LearnError;
use crate::models::ModelError;
use crate::models::registry;
use crate::trained::TrainedModel;

/// Why rows cannot be answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PredictError {
    /// The input's first bytes are not those of a stream.
    #[error(
        "the input is {found}, not an Arrow IPC stream: give it that of `wavemill features … --format arrow --out -`"
    )]
    NoStream {
        /// What it looks like.
        found: &'static str,
    },
    /// The stream breaks off, or is damaged.
    #[error("the stream is {problem} after {rows} rows: did the program that wrote it end early?")]
    Cut {
        /// `cut off` or `damaged`.
        problem: &'static str,
        /// Whole rows before.
        rows: u64,
        source: ArrowError,
    },
    /// A stream of something else.
    #[error(
        "no column of the stream holds a tensor (metadata wavemill.tensor): is it of `wavemill features`?"
    )]
    NoTensor,
    /// Rows of another feature, which are other numbers.
    #[error(
        "the stream holds {found}, the model was trained on {wanted}: use the recipe that it was trained with, \
         `wavemill features … --recipe {recipe} --feature {feature} --format arrow --out -`"
    )]
    OtherFeature {
        /// Names and identities in the stream.
        found: String,
        /// Name and identity.
        wanted: String,
        recipe: PathBuf,
        feature: String,
    },
    /// A column that is missing, or of another type.
    #[error("column {column} of the stream: {problem}")]
    Column { column: String, problem: String },
    /// A model that sees more than a stream of features holds.
    #[error(
        "{model} sees {what}, which no stream of features holds: `wavemill-train eval` scores it on a store"
    )]
    Needs {
        model: String,
        /// Such as columns of metadata.
        what: &'static str,
    },
    /// Rows that are none of their feature.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    #[error(transparent)]
    Learn(#[from] LearnError),
    #[error("libtorch: {0}")]
    Tch(#[from] tch::TchError),
    /// Reading the stream's first bytes.
    #[error("cannot read the stream")]
    Read { source: io::Error },
    #[error("cannot write the answers")]
    Write { source: io::Error },
}

/// How much is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnswerOptions {
    /// Likeliest classes that each line lists.
    pub top: usize,
    /// Rows that are answered at once; at least 1.
    pub batch_rows: usize,
}

/// Whether a stream holds all that a model sees.
///
/// # Errors
/// [`PredictError::Needs`].
pub(crate) fn check(trained: &TrainedModel) -> Result<(), PredictError> {
    let model = &trained.state().config.model.name;
    let architecture = registry::find(model).map_err(LearnError::from)?;
    let what = match architecture.reads(&trained.state().input.feature) {
        Needs::Spectrogram => return Ok(()),
        Needs::Metadata => "columns of fma_features",
        Needs::All => "columns of fma_features, artist and album",
    };
    Err(PredictError::Needs {
        model: model.clone(),
        what,
    })
}

/// Writes a JSON line for each row and target as batches fill, then one for each clip of several rows and target.
/// Returns the rows. What came before an error is answered.
pub(crate) fn answer(
    trained: &TrainedModel,
    rows: impl Iterator<Item = Result<Row, PredictError>>,
    options: AnswerOptions,
    out: &mut impl Write,
) -> Result<u64, PredictError> {
    check(trained)?;
    let mut answers = JsonLines::new(&trained.state().classes, options.top);
    // Asked once more after its end, for the batch that then stays empty.
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

        // Rows before a failure are answered before it is told.
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

/// Answers streams that follow one another, each as if it had come alone, and ends what it says of each by an empty line.
/// So a program that starts this one once can ask it song by song; a stream without rows asks whether the model is ready.
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

/// Flushed, so that a program which reads along has the lines.
fn write(out: &mut impl Write, lines: &str) -> Result<(), PredictError> {
    out.write_all(lines.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|source| PredictError::Write { source })
}

/// For each target `[row][class]`, one row after another.
fn probabilities(trained: &TrainedModel, rows: &[Row]) -> Result<Vec<Vec<f32>>, PredictError> {
    let spec = &trained.state().input;
    let forward = trained.forward();
    let bytes: Vec<&[u8]> = rows.iter().map(Row::bytes).collect();
    let inputs = spec.inputs(&bytes, forward.device, forward.kind)?;

    let targets = trained.probabilities(&inputs)?;
    let mut values = Vec::with_capacity(targets.len());
    for target in targets {
        values.push(Vec::try_from(target.f_contiguous()?.f_view(-1)?)?);
    }
    Ok(values)
}

impl From<ModelError> for PredictError {
    fn from(error: ModelError) -> Self {
        Self::Learn(error.into())
    }
}
