//! A trained model's answers to feature rows that come as a stream: no store, no labels, nothing kept but sums.
//!
//! Rows are answered in batches of a fixed number, so that the same stream always gets the same bytes. Scores against
//! labels are [`crate::evaluate`].

mod answers;
mod stream;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::PathBuf;

use arrow::error::ArrowError;

pub use answers::Answers;
pub use stream::{Row, Rows, Wanted};

use crate::dataset::DatasetError;
use crate::learner::LearnError;
use crate::models::registry::{self, Needs};
use crate::models::{Inputs, ModelError};
use crate::trained::Trained;

/// Why rows cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum PredictError {
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
        /// The reader's words.
        source: ArrowError,
    },
    /// A stream of something else.
    #[error("no column of the stream holds a tensor (metadata wavemill.tensor): is it of `wavemill features`?")]
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
        /// The run's recipe.
        recipe: PathBuf,
        /// Name of the feature.
        feature: String,
    },
    /// A column that is missing, or of another type.
    #[error("column {column} of the stream: {problem}")]
    Column {
        /// Which.
        column: String,
        /// What is wrong.
        problem: String,
    },
    /// A model that sees more than a stream of features holds.
    #[error("{model} sees {what}, which no stream of features holds: `wavemill-train eval` scores it on a store")]
    Needs {
        /// Architecture.
        model: String,
        /// Such as columns of metadata.
        what: &'static str,
    },
    /// Rows that are none of their feature.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The model.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// libtorch.
    #[error("libtorch: {0}")]
    Tch(#[from] tch::TchError),
    /// Reading the stream's first bytes.
    #[error("cannot read the stream")]
    Read {
        /// The system's reason.
        source: io::Error,
    },
    /// Writing the answers.
    #[error("cannot write the answers")]
    Write {
        /// The system's reason.
        source: io::Error,
    },
}

/// How much is answered.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Likeliest classes that each line lists.
    pub top: usize,
    /// Rows that are answered at once; at least 1.
    pub batch_rows: usize,
}

/// Whether a stream holds all that a model sees.
///
/// # Errors
/// [`PredictError::Needs`].
pub fn check(trained: &Trained) -> Result<(), PredictError> {
    let model = &trained.state().config.model.name;
    let needs = registry::find(model).map_err(LearnError::from)?.needs;
    let what = match needs {
        Needs::Spectrogram => return Ok(()),
        Needs::Metadata => "columns of fma_features",
        Needs::All => "columns of fma_features, artist and album",
    };
    Err(PredictError::Needs { model: model.clone(), what })
}

/// Writes a JSON line for each row and target as batches fill, then one for each clip of several rows and target.
/// Returns the rows. What came before an error is answered.
///
/// # Errors
/// [`PredictError`].
pub fn answer(
    trained: &Trained,
    rows: impl Iterator<Item = Result<Row, PredictError>>,
    amount: Amount,
    out: &mut impl Write,
) -> Result<u64, PredictError> {
    check(trained)?;
    let mut answers = Answers::new(&trained.state().classes, amount.top);
    let mut rows = rows.fuse();
    let mut answered = 0;
    loop {
        let mut broken = None;
        let sound = rows.by_ref().map_while(|row| row.map_err(|error| broken = Some(error)).ok());
        let batch: Vec<Row> = sound.take(amount.batch_rows.max(1)).collect();
        if !batch.is_empty() {
            let lines = answers.rows(&batch, &probabilities(trained, &batch)?);
            out.write_all(lines.as_bytes())
                .and_then(|()| out.flush())
                .map_err(|source| PredictError::Write { source })?;
            answered += batch.len() as u64;
        }
        match broken {
            Some(error) => return Err(error),
            None if batch.is_empty() => break,
            None => {}
        }
    }
    let lines = answers.clips();
    out.write_all(lines.as_bytes()).and_then(|()| out.flush()).map_err(|source| PredictError::Write { source })?;
    Ok(answered)
}

/// For each target `[row][class]`, one row after another.
fn probabilities(trained: &Trained, rows: &[Row]) -> Result<Vec<Vec<f32>>, PredictError> {
    let (spec, numbers) = (&trained.state().input, trained.numbers());
    let bytes: Vec<&[u8]> = rows.iter().map(Row::bytes).collect();
    let spectrogram = spec.spectrogram(&bytes, numbers.device, numbers.kind)?;
    let targets = trained.probabilities(&Inputs { spectrogram, metadata: None, ids: None })?;
    targets.into_iter().map(|t| Ok(Vec::try_from(t.f_contiguous()?.f_view(-1)?)?)).collect()
}

impl From<ModelError> for PredictError {
    fn from(error: ModelError) -> Self {
        Self::Learn(error.into())
    }
}
