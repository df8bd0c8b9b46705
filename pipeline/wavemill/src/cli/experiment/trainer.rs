//! Starts the trainer's program for an experiment. The trainer ends with this process and receives its signals.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use wavemill_schemas::exit::Kind;
use wavemill_schemas::text::shown;
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::interrupt::{ChildGuard, ForwardedSignals};
use wavemill_terminal::output::report;

use crate::cli::exit::ChildFailure;
use crate::cli::interrupt::STOPPED_AT_ONCE;
use crate::cli::program::beside;
use crate::cli::train::{self, BUILD_TRAINER, CANNOT_START, TRAINER, code_of, output_args};

/// Checks that the trainer can be started and has this program's version, before hours of extraction.
///
/// # Errors
/// [`UsageError`] if the trainer is missing or has another version; the message names the command that builds it.
pub(super) fn check() -> Result<(), UsageError> {
    let answer = train::trainer()?
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    let said = answer.map_err(|error| UsageError(format!("{CANNOT_START}: {error}")))?;
    let said = String::from_utf8_lossy(&said.stdout);
    if said.split_whitespace().last() == Some(env!("CARGO_PKG_VERSION")) {
        return Ok(());
    }
    Err(UsageError(format!(
        "`{TRAINER} --version` reports `{}`, but this is {}: rebuild it with {BUILD_TRAINER}",
        shown(said.trim()),
        env!("CARGO_PKG_VERSION")
    )))
}

/// Returns a command that runs `subcommand` of the trainer; arguments can be added to it.
pub(super) fn command(subcommand: &str) -> Command {
    let mut command = Command::new(beside(TRAINER));
    command
        .args(output_args())
        .arg(subcommand)
        // The pipe stays open and is never written to: if this process is killed, the pipe closes and the trainer ends.
        .stdin(Stdio::piped())
        .env("WAVEMILL_END_WITH_STDIN", "1")
        .stdout(Stdio::piped())
        // A signal of the terminal reaches only this program, which passes it on.
        .process_group(0);
    command
}

/// Runs the trainer to its end and returns its standard output.
///
/// # Errors
/// [`ChildFailure`] with the trainer's exit code, which is 130 after a signal; an I/O error if it cannot be started.
pub(super) fn run(mut command: Command) -> Result<String> {
    let mut child = command.spawn().context(CANNOT_START)?;
    let mut stdout = child.stdout.take().expect("`command` made it a pipe");
    let child = ChildGuard::new(child);
    let passing = ForwardedSignals::to(&child, STOPPED_AT_ONCE);

    // Reads until the child closes its stdout, which happens when it ends.
    let mut said = String::new();
    let read = stdout.read_to_string(&mut said);
    let code = code_of(child.wait()?);
    if passing.was_interrupted() {
        report("wavemill: interrupted; run the same command again to continue\n");
        let code = Kind::Interrupted.exit_code();
        return Err(ChildFailure { code }.into());
    }
    if code != 0 {
        return Err(ChildFailure { code }.into());
    }
    read?;
    Ok(said)
}
