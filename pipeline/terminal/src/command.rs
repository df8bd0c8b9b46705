//! The list of a program's subcommands, from which its command line is made.

use anyhow::{Context, Result};
use clap::{ArgMatches, Args, Command};

/// Runs a subcommand with parsed arguments, and returns its exit code.
type RunParsed = dyn Fn(&ArgMatches) -> Result<u8>;

/// A subcommand: its name and arguments, and the function that runs it.
pub struct Subcommand {
    definition: Command,
    interrupted: Option<&'static str>,
    run: Box<RunParsed>,
}

/// Creates a subcommand with the arguments and the help of `C`. `interrupted` is the last line of a process that a
/// signal ends while the command runs; `None` if the command handles signals itself. `run` returns the exit code.
pub fn subcommand<C: Args + 'static>(
    name: &'static str,
    interrupted: impl Into<Option<&'static str>>,
    run: fn(&C) -> Result<u8>,
) -> Subcommand {
    Subcommand {
        definition: C::augment_args(Command::new(name)),
        interrupted: interrupted.into(),
        run: Box::new(move |matches| run(&C::from_arg_matches(matches)?)),
    }
}

/// Adds `subcommands` to the definition of a command line, which requires one of them.
pub fn with_subcommands(program: Command, subcommands: Vec<Subcommand>) -> Command {
    program
        .subcommands(subcommands.into_iter().map(|one| one.definition))
        .subcommand_required(true)
        .arg_required_else_help(true)
}

/// Runs the one of `subcommands` that a command line names, after `at_once` has set its message for signals. Returns
/// the exit code.
///
/// # Errors
/// Errors of `at_once` and of the subcommand.
pub fn run(
    subcommands: &[Subcommand],
    matches: &ArgMatches,
    at_once: fn(&'static str) -> Result<()>,
) -> Result<u8> {
    let (name, arguments) = matches.subcommand().context("no command is given")?;
    let mut subcommands = subcommands.iter();
    let chosen = subcommands.find(|one| one.definition.get_name() == name);
    let chosen = chosen.with_context(|| format!("no command {name}"))?;
    if let Some(message) = chosen.interrupted {
        at_once(message)?;
    }
    (chosen.run)(arguments)
}
