//! The trainer's program as an experiment starts it: it ends with this process, and gets its signals.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use wavemill_schemas::text::shown;

use crate::cli::exit::{ChildFailure, UsageError};
use crate::cli::interrupt::{ChildGuard, PassedOn};
use crate::cli::output::report;
use crate::cli::train::{BUILD_TRAINER, TRAINER, code_of, output_words};
use crate::cli::{beside, not_there};

/// The documented exit code after a signal.
const INTERRUPTED: u8 = 130;

/// Whether the program is there: asked before hours of extraction, and not after.
///
/// # Errors
/// [`UsageError`] with what builds it.
pub(super) fn check() -> Result<(), UsageError> {
    let answer = Command::new(beside(TRAINER))
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    match answer {
        Ok(said) if said.status.success() => {
            let said = String::from_utf8_lossy(&said.stdout);
            if said.split_whitespace().last() == Some(env!("CARGO_PKG_VERSION")) {
                return Ok(());
            }

            Err(UsageError(format!(
                "`{TRAINER} --version` says `{}`, and this is {}: {BUILD_TRAINER} builds it anew",
                shown(said.trim()),
                env!("CARGO_PKG_VERSION")
            )))
        }
        Ok(said) => Err(UsageError(format!(
            "{TRAINER} does not start ({}): `{TRAINER} --version` says why; {BUILD_TRAINER} builds it anew",
            said.status
        ))),
        Err(_) => Err(UsageError(not_there(TRAINER, BUILD_TRAINER))),
    }
}

/// The command `subcommand` of it, to which arguments can be added.
pub(super) fn command(subcommand: &str) -> Command {
    let mut command = Command::new(beside(TRAINER));
    command
        .args(output_words())
        .arg(subcommand)
        // Held open and never written to: where this process is killed, its end ends the trainer.
        .stdin(Stdio::piped())
        .env("WAVEMILL_END_WITH_STDIN", "1")
        .stdout(Stdio::piped())
        // A signal reaches this program alone, which passes it on.
        .process_group(0);
    command
}

/// Runs it to its end, and returns what it wrote to stdout.
///
/// # Errors
/// [`ChildFailure`] with its exit code, which is 130 after a signal; it cannot be started.
pub(super) fn run(mut command: Command) -> Result<String> {
    let mut child = command
        .spawn()
        .with_context(|| not_there(TRAINER, BUILD_TRAINER))?;
    let mut stdout = child.stdout.take().context("a piped child has a stdout")?;
    let child = ChildGuard::new(child);
    let passing = PassedOn::to(&child);

    // Until the child closes it, which is at its end.
    let mut said = String::new();
    let read = stdout.read_to_string(&mut said);
    let code = code_of(child.wait()?);
    if passing.was_interrupted() {
        report("wavemill: interrupted; the same command goes on from there\n");
        return Err(ChildFailure { code: INTERRUPTED }.into());
    }
    if code != 0 {
        return Err(ChildFailure { code }.into());
    }
    read?;
    Ok(said)
}
