//! Errors of commands, messages of panics, and the exit code of each error.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Error, Result};
use wavemill_evaluation::EvaluationError;
use wavemill_schemas::exit::{Kind, is_broken_pipe};
use wavemill_schemas::run::RunFilesError;
use wavemill_schemas::text::{self, shown};
use wavemill_terminal::exit::{self, KindOf, kind_as};

use crate::TrainError;
use crate::dataset::DatasetError;
use crate::models::ModelError;
use crate::strategy::RankError;

/// Error types of the crates that this program uses.
const ERROR_TYPES: &[KindOf] = &[
    kind_as::<DatasetError>,
    kind_as::<EvaluationError>,
    kind_as::<ModelError>,
    kind_as::<RankError>,
    kind_as::<RunFilesError>,
    kind_as::<TrainError>,
];

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
        "internal error in `wavemill train`, please report it with the command: {}",
        shown(line)
    )
}

/// Returns the documented exit code for an error.
pub(crate) fn code(error: &Error) -> u8 {
    match error.downcast_ref() {
        // A sweep ends with the exit code of the trial that ended it.
        Some(TrainError::FatalTrial { code, .. }) => *code,
        _ => exit::kind(error, ERROR_TYPES).exit_code(),
    }
}

/// True if the reader of the output has closed its pipe, which is no failure.
pub(crate) fn is_closed_output(error: &Error) -> bool {
    code(error) == Kind::Failed.exit_code() && error.chain().any(is_broken_pipe)
}

#[cfg(test)]
mod tests {
    use std::io;

    use wavemill_schemas::exit::PlainError;
    use wavemill_terminal::exit::{UsageError, finish};

    use super::*;

    fn damaged() -> DatasetError {
        DatasetError::Damaged {
            path: "a".into(),
            problem: String::new(),
            source: None,
        }
    }

    #[test]
    fn exit_code_is_found_inside_wrapped_errors() {
        let no_space = io::Error::from(io::ErrorKind::StorageFull);
        let lost = || RankError::Lost {
            rank: 1,
            reason: String::new(),
        };
        let unfit = || ModelError::unfit("");
        let fatal = TrainError::FatalTrial {
            trial: String::new(),
            code: 101,
        };

        let cases: [(Error, u8); 14] = [
            (UsageError(String::new()).into(), 2),
            (damaged().into(), 3),
            (TrainError::from(damaged()).into(), 3),
            (unfit().into(), 2),
            (TrainError::from(unfit()).into(), 2),
            (TrainError::from(unfit()).of_one_rank().into(), 2),
            (PlainError::new(Kind::OtherPlan, "").into(), 4),
            (
                TrainError::from(PlainError::new(Kind::Interrupted, "")).into(),
                130,
            ),
            (PlainError::failed("").caused_by(no_space).into(), 5),
            (lost().into(), 6),
            (TrainError::from(lost()).into(), 6),
            (Error::from(lost()).context("a run"), 6),
            (Error::from(fatal).context("a sweep"), 101),
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
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        let closed = TrainError::from(PlainError::failed("").caused_by(pipe));
        assert_eq!(finish(Err(closed.into()), code), 0);
    }
}
