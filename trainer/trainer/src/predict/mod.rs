//! Predictions of a trained model for feature rows that arrive as a stream: without a store or labels, and with only
//! sums kept in memory.
//!
//! Rows are processed in batches of a fixed size, so the same stream always gives the same output. Scores against
//! labels are computed by [`crate::evaluate`].

mod json_lines;
mod stream;
#[cfg(test)]
mod tests;

use std::io::{Read, Write};

use wavemill_schemas::exit::PlainError;

pub(crate) use json_lines::JsonLines;
pub(crate) use stream::{ExpectedFeature, Row, Rows};

use crate::TrainError;
use crate::dataset::{self, Needs};
use crate::models::registry;
use crate::trained::TrainedModel;

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
/// [`TrainError::Other`] if the model needs metadata or ids of artist and album.
pub(crate) fn check(trained: &TrainedModel) -> Result<(), TrainError> {
    let model = &trained.state.config.model.name;
    let architecture = registry::find(model)?;
    let what = match architecture.reads(&trained.state.input.feature) {
        Needs::Spectrogram => return Ok(()),
        Needs::Metadata => "columns of fma_features",
        Needs::All => "columns of fma_features, artist and album",
    };
    Err(PlainError::usage(format!(
        "{model} needs {what}, which a stream of features does not contain: evaluate it on a store with \
         `wavemill train eval`"
    ))
    .into())
}

/// Writes a JSON line per row and target after each batch, and at the end a line per target for each clip with several
/// rows. Returns the number of rows. If a row is an error, the rows before it are still processed.
pub(crate) fn answer(
    trained: &TrainedModel,
    rows: impl Iterator<Item = Result<Row, PlainError>>,
    options: AnswerOptions,
    out: &mut impl Write,
) -> Result<u64, TrainError> {
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
            Some(error) => return Err(error.into()),
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
) -> Result<(), TrainError> {
    while let Some(rows) = Rows::open_next(&mut input, wanted)? {
        answer(trained, rows, options, out)?;
        write(out, "\n")?;
    }
    Ok(())
}

/// Writes the lines and flushes `out`, so that a program that reads the lines receives them immediately.
fn write(out: &mut impl Write, lines: &str) -> Result<(), PlainError> {
    out.write_all(lines.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| PlainError::failed("cannot write the predictions").caused_by(error))
}

/// Returns the probabilities as one row-major array `[row][class]` per target.
fn probabilities(trained: &TrainedModel, rows: &[Row]) -> Result<Vec<Vec<f32>>, TrainError> {
    let spec = &trained.state.input;
    let forward = trained.forward;
    let bytes: Vec<&[u8]> = rows.iter().map(|row| &*row.bytes).collect();
    let inputs = dataset::inputs_of_rows(spec, &bytes, forward.device, forward.kind)?;

    let targets = trained.probabilities(&inputs)?;
    let mut values = Vec::with_capacity(targets.len());
    for target in targets {
        let target: Vec<f32> = Vec::try_from(target.f_contiguous()?.f_view(-1)?)?;
        let n_classes = (target.len() / rows.len()).max(1);
        if let Some(index) = target.iter().position(|value| !value.is_finite()) {
            let row = &rows[index / n_classes];
            let message = format!(
                "clip {}, segment {}: the model's output is not a number: use another checkpoint or, if only this clip \
                 is affected, leave it out",
                row.clip_key, row.segment
            );
            return Err(PlainError::failed(message).into());
        }
        values.push(target);
    }
    Ok(values)
}
