//! Converts errors to an error line and an exit code.

use std::any::Any;

use anyhow::Error;
use wavemill_schemas::config::ConfigError;
use wavemill_schemas::exit;
use wavemill_schemas::text::{self, shown};
use wavemill_scores::records::RecordError;

use super::{jobs, sweep};
use crate::checkpoint::CheckpointError;
use crate::dataset::DatasetError;
use crate::evaluate::EvaluateError;
use crate::export::ExportError;
use crate::learner::LearnError;
use crate::models::ModelError;
use crate::predict::PredictError;
use crate::report::ReportError;
use crate::run::RunError;
use crate::strategy::{self, RankError};

/// An error in the command's arguments.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub String);

/// Error for files that differ from their hashes in the store's manifest.
#[derive(Debug, thiserror::Error)]
#[error(
    "{files} damaged files: restore them from a copy, extract again, or skip them with --skip-damaged"
)]
pub(crate) struct DamagedFiles {
    /// Number of damaged files.
    pub files: usize,
}

/// Formats the first line of a panic message, such as of an exception of libtorch.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let words = text::panic_message(panic).unwrap_or("no message");
    let line = words.lines().next().unwrap_or_default();
    format!(
        "internal error in wavemill-train, please report it with the command: {}",
        shown(line)
    )
}

/// Reports whether the panic was raised by `println!` because the reader of stdout has closed the pipe.
pub(crate) fn is_lost_reader(panic: &(dyn Any + Send)) -> bool {
    text::panic_message(panic)
        .is_some_and(|words| words.starts_with("failed printing to stdout: Broken pipe"))
}

/// Returns the documented exit code of an error.
pub(crate) fn code(error: &Error) -> u8 {
    // A full disk takes precedence over every other error in the chain.
    if error.chain().any(exit::is_no_space) {
        return exit::NO_SPACE;
    }

    // The outermost error with a code determines the result, because it has the most context.
    error.chain().find_map(known).unwrap_or(exit::FAILED)
}

fn known(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if cause.is::<UsageError>() || cause.is::<ConfigError>() {
        return Some(exit::USAGE);
    }
    if cause.is::<sweep::SweepInterrupted>() {
        return Some(exit::INTERRUPTED);
    }
    if cause.is::<DamagedFiles>() {
        return Some(exit::DAMAGED);
    }
    if let Some(ended) = cause.downcast_ref::<jobs::FatalTrial>() {
        return Some(ended.code);
    }

    // Errors of the library's modules.
    if let Some(error) = cause.downcast_ref::<DatasetError>() {
        return Some(error.exit_code());
    }
    if let Some(error) = cause.downcast_ref::<CheckpointError>() {
        return checkpoint(error);
    }
    if let Some(error) = cause.downcast_ref::<RecordError>() {
        return record(error);
    }
    if let Some(error) = cause.downcast_ref::<ModelError>() {
        return model(error);
    }
    if let Some(error) = cause.downcast_ref::<LearnError>() {
        return learn(error);
    }
    if let Some(error) = cause.downcast_ref::<RankError>() {
        return rank(error);
    }
    if let Some(error) = cause.downcast_ref::<PredictError>() {
        return predict(error);
    }
    if let Some(error) = cause.downcast_ref::<ExportError>() {
        return export(error);
    }
    if let Some(error) = cause.downcast_ref::<ReportError>() {
        return report(error);
    }
    run(cause.downcast_ref()?)
}

// Errors wrapped with `#[error(transparent)]` are not in the chain of causes, so these functions look inside them.

fn run(error: &RunError) -> Option<u8> {
    match error {
        RunError::Unfit(_) => Some(exit::USAGE),
        RunError::OtherStore(_) => Some(exit::OTHER_PLAN),
        RunError::DamagedFiles(_) => Some(exit::DAMAGED),
        RunError::Stopped { .. } => Some(exit::INTERRUPTED),
        RunError::Dataset(error) | RunError::Evaluate(EvaluateError::Dataset(error)) => {
            Some(error.exit_code())
        }
        RunError::Learn(error) | RunError::Evaluate(EvaluateError::Learn(error)) => learn(error),
        RunError::Checkpoint(error) => checkpoint(error),
        RunError::Record(error) => record(error),
        RunError::Evaluate(EvaluateError::Rank(error)) => rank(error),
        RunError::Evaluate(_) | RunError::TrainingList(_) => None,
    }
}

fn learn(error: &LearnError) -> Option<u8> {
    match error {
        LearnError::Model(error) => model(error),
        LearnError::Dataset(error) => Some(error.exit_code()),
        LearnError::Checkpoint(error) => checkpoint(error),
        LearnError::Rank(error) => rank(error),
        LearnError::SyncBatchNorm(_) => Some(exit::USAGE),
        _ => None,
    }
}

fn rank(error: &RankError) -> Option<u8> {
    match error {
        RankError::Lost { .. } | RankError::Neighbour { .. } => Some(strategy::LOST),
        _ => None,
    }
}

fn model(error: &ModelError) -> Option<u8> {
    match error {
        ModelError::Torch(_) | ModelError::Ffi(_) => None,
        _ => Some(exit::USAGE),
    }
}

fn checkpoint(error: &CheckpointError) -> Option<u8> {
    match error {
        CheckpointError::Damaged { .. } => Some(exit::DAMAGED),
        CheckpointError::Mismatch { .. } => Some(exit::OTHER_PLAN),
        CheckpointError::None { .. } => Some(exit::USAGE),
        _ => None,
    }
}

fn export(error: &ExportError) -> Option<u8> {
    match error {
        ExportError::Learn(error) => learn(error),
        _ => None,
    }
}

fn predict(error: &PredictError) -> Option<u8> {
    match error {
        PredictError::OtherFeature { .. } => Some(exit::OTHER_PLAN),
        PredictError::Unfit(_) => Some(exit::USAGE),
        PredictError::Learn(error) => learn(error),
        _ => None,
    }
}

fn report(error: &ReportError) -> Option<u8> {
    match error {
        ReportError::Record(error) => record(error),
        ReportError::Damaged { .. } => Some(exit::DAMAGED),
        ReportError::Newer { .. } => Some(exit::USAGE),
        ReportError::Read { .. } => None,
    }
}

fn record(error: &RecordError) -> Option<u8> {
    match error {
        RecordError::Missing { .. } | RecordError::Id { .. } => Some(exit::USAGE),
        RecordError::Taken { .. } => Some(exit::USAGE),
        RecordError::Json { .. } => Some(exit::DAMAGED),
        _ => None,
    }
}

/// Reports whether the reader of stdout has closed the pipe (as `| head` does), in which case the program ends quietly.
pub(crate) fn is_broken_pipe(error: &Error) -> bool {
    error.chain().any(exit::is_broken_pipe)
}

#[cfg(test)]
mod tests {
    use std::io;

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

        let cases: [(Error, u8); 14] = [
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
        assert!(is_broken_pipe(
            &PredictError::Write {
                source: io::ErrorKind::BrokenPipe.into()
            }
            .into()
        ));

        let text = |text: &str| Box::new(text.to_owned()) as Box<dyn Any + Send>;
        assert!(is_lost_reader(
            text("failed printing to stdout: Broken pipe (os error 32)").as_ref()
        ));
        assert!(!is_lost_reader(
            text("failed printing to stdout: No space left on device").as_ref()
        ));
    }
}
