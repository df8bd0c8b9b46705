//! Errors of commands, messages of panics, and the exit code of each error.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::error::Error as StdError;

use anyhow::{Error, Result};
use wavemill_evaluation::report::ReportError;
use wavemill_schemas::exit::{DAMAGED, FAILED, INTERRUPTED, is_broken_pipe, of_machine};
use wavemill_schemas::text::{self, shown};
use wavemill_scores::records::RecordError;
use wavemill_terminal::exit;

use super::jobs::FatalTrial;
use super::run_list::SweepInterrupted;
use crate::checkpoint::CheckpointError;
use crate::dataset::DatasetError;
use crate::evaluate::EvaluateError;
use crate::export::ExportError;
use crate::learner::LearnError;
use crate::models::ModelError;
use crate::predict::PredictError;
use crate::run::RunError;
use crate::strategy::RankError;

/// Error for files that differ from their hashes in the store's manifest.
#[derive(Debug, thiserror::Error)]
#[error(
    "{files} damaged files: restore them from a copy, extract again, or skip them with --skip-damaged"
)]
pub(crate) struct DamagedFiles {
    /// Number of files that differ from their hashes.
    pub files: usize,
}

/// Runs `run`. A panic becomes an error.
pub(crate) fn caught<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    let ran = catch_unwind(AssertUnwindSafe(run));
    ran.unwrap_or_else(|panic| Err(Error::msg(panic_message(panic.as_ref()))))
}

/// Formats the message for a caught panic, with the first line of the panic's own text.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let message = text::panic_message(panic).unwrap_or("no message");
    let line = message.lines().next().unwrap_or_default();
    format!(
        "internal error in wavemill-train, please report it with the command: {}",
        shown(line)
    )
}

/// Returns the documented exit code for an error.
pub(crate) fn code(error: &Error) -> u8 {
    let own = match of_machine(error.as_ref()) {
        Some(_) => None,
        None => error.chain().find_map(known),
    };
    own.unwrap_or_else(|| exit::kind(error, &[]).exit_code())
}

/// True if the reader of the output has closed its pipe, which is no failure.
pub(crate) fn is_closed_output(error: &Error) -> bool {
    code(error) == FAILED && error.chain().any(is_broken_pipe)
}

/// Returns the exit code of an error type of this crate; `None` for other types.
fn known(cause: &(dyn StdError + 'static)) -> Option<u8> {
    code_of(cause, |_: &SweepInterrupted| INTERRUPTED)
        .or_else(|| code_of(cause, |_: &DamagedFiles| DAMAGED))
        .or_else(|| code_of(cause, |error: &FatalTrial| error.code))
        .or_else(|| code_of(cause, DatasetError::exit_code))
        .or_else(|| code_of(cause, CheckpointError::exit_code))
        .or_else(|| code_of(cause, RecordError::exit_code))
        .or_else(|| code_of(cause, ModelError::exit_code))
        .or_else(|| code_of(cause, LearnError::exit_code))
        .or_else(|| code_of(cause, RankError::exit_code))
        .or_else(|| code_of(cause, EvaluateError::exit_code))
        .or_else(|| code_of(cause, PredictError::exit_code))
        .or_else(|| code_of(cause, ExportError::exit_code))
        .or_else(|| code_of(cause, ReportError::exit_code))
        .or_else(|| code_of(cause, RunError::exit_code))
}

/// Returns the exit code that `code` computes for a cause of type `E`; `None` for a cause of another type.
fn code_of<E: StdError + 'static>(
    cause: &(dyn StdError + 'static),
    code: impl Fn(&E) -> u8,
) -> Option<u8> {
    cause.downcast_ref().map(code)
}

#[cfg(test)]
mod tests {
    use std::io;

    use wavemill_terminal::exit::{UsageError, finish};

    use super::*;

    fn damaged() -> DatasetError {
        DatasetError::Damaged {
            path: "a".into(),
            problem: String::new(),
            source: None,
        }
    }

    fn unknown() -> ModelError {
        ModelError::Unfit(String::new())
    }

    #[test]
    fn exit_code_is_found_inside_wrapped_errors() {
        let no_space = || io::Error::from(io::ErrorKind::StorageFull);
        let other = || PredictError::OtherFeature {
            found: String::new(),
            wanted: String::new(),
            recipe: "a".into(),
            feature: String::new(),
        };
        let flipped = || CheckpointError::Damaged {
            path: "a".into(),
            problem: "b".to_owned(),
        };
        let lost = || RankError::Lost {
            rank: 1,
            reason: String::new(),
        };

        let cases: [(Error, u8); 16] = [
            (UsageError(String::new()).into(), 2),
            (RunError::from(damaged()).into(), 3),
            (RunError::from(LearnError::from(damaged())).into(), 3),
            (RunError::from(LearnError::from(unknown())).into(), 2),
            (ExportError::from(unknown()).into(), 2),
            (other().into(), 4),
            (
                RunError::Stopped {
                    step: 1,
                    path: "a".into(),
                }
                .into(),
                130,
            ),
            (
                RunError::from(CheckpointError::Io {
                    path: "a".into(),
                    source: no_space(),
                })
                .into(),
                5,
            ),
            (RunError::from(flipped()).into(), 3),
            (RunError::from(LearnError::from(flipped())).into(), 3),
            (lost().into(), 6),
            (RunError::from(LearnError::from(lost())).into(), 6),
            (RunError::from(EvaluateError::from(lost())).into(), 6),
            (EvaluateError::from(lost()).into(), 6),
            (EvaluateError::from(damaged()).into(), 3),
            (Error::msg("what nobody knows"), 1),
        ];

        for (error, want) in cases {
            assert_eq!(code(&error), want, "{error:?}");
        }
    }

    #[test]
    fn error_messages_are_escaped_for_the_terminal() {
        assert_eq!(
            text::error_line(Error::msg("no class a\u{1b}[2Jb\n there").as_ref()),
            "no class a\\u{1b}[2Jb there"
        );
        assert!(panic_message(&"a\u{9b}2J".to_owned()).ends_with("a\\u{9b}2J"));
    }

    #[test]
    fn closed_stdout_is_not_an_error() {
        let closed = PredictError::Write {
            source: io::ErrorKind::BrokenPipe.into(),
        };
        assert_eq!(finish(Err(closed.into()), code), 0);
    }
}
