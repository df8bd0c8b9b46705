//! Lists of runs that one command trains, each in a process of its own: the trials of a sweep, or folds and seeds.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;
use wavemill_schemas::config::Config;
use wavemill_schemas::exit::{Kind, PlainError};
use wavemill_schemas::version_name::VersionName;

use super::MachineArgs;
use super::jobs::{self, JobPlan, Judge, Outcome};

/// A run before its training begins.
pub(super) struct PlannedRun {
    /// Name of the run in messages, such as `trial 0`.
    pub name: String,
    /// `--set` arguments by which the configuration differs from that of the other runs.
    pub set: Vec<String>,
    /// The fold that is the test split, from 1; `None` if there are no folds.
    pub fold: Option<usize>,
    pub config: Config,
}

/// What the processes of all runs have in common.
pub(super) struct RunList<'a> {
    pub planned: &'a [PlannedRun],
    /// Configuration shared by all runs.
    pub base: &'a Config,
    pub store: &'a Path,
    pub version: Option<VersionName>,
    /// Folder in which the folders of the runs are.
    pub runs: &'a Path,
    pub machine: &'a MachineArgs,
    /// Number of runs at the same time.
    pub jobs: usize,
}

impl RunList<'_> {
    /// Trains all runs. `add_args` adds the arguments and variables of the run with a given index to a command that has
    /// those of all runs; `ended` receives the outcomes in the order of the list.
    ///
    /// # Errors
    /// The error of [`interrupted`], [`TrainError::FatalTrial`](crate::TrainError::FatalTrial), or an error of `ended`.
    pub(super) fn train(
        &self,
        subcommand: &str,
        add_args: &dyn Fn(usize, &mut Command),
        judge: &mut dyn Judge,
        ended: impl FnMut(usize, Outcome) -> Result<()>,
    ) -> Result<()> {
        let shares = self.machine.shared_by(self.jobs)?;
        let program = std::env::current_exe()?;
        let config = toml_file(&toml::to_string(self.base)?)?;
        let keys: Vec<String> = self.planned.iter().map(|run| run.config.hash()).collect();
        let names: Vec<String> = self.planned.iter().map(|run| run.name.clone()).collect();

        let plan = JobPlan {
            jobs: self.jobs,
            keys: &keys,
            names: &names,
            command: &|index, slot| {
                let mut command = Command::new(&program);
                command.arg(subcommand).arg("--json");
                command.arg("--config").arg(config.path());
                command.arg("--store").arg(self.store);
                command.arg("--runs").arg(self.runs);
                if let Some(version) = &self.version {
                    command.args(["--version", &version.to_string()]);
                }
                add_args(index, &mut command);
                shares.add_args(&mut command, slot);
                command
            },
        };
        match jobs::run(&plan, judge, ended)? {
            Some(index) => bail!(interrupted(&names[index], self.runs)),
            None => Ok(()),
        }
    }
}

/// Returns the error for a list of runs that was stopped by SIGINT or SIGTERM.
pub(super) fn interrupted(trial: &str, runs: &Path) -> PlainError {
    PlainError::new(
        Kind::Interrupted,
        format!(
            "stopped in {trial}; run the same command to continue: completed ones are reused from {}",
            runs.display()
        ),
    )
}

/// Writes a temporary copy of a description that the processes of runs read: the files of the user may change meanwhile.
pub(super) fn toml_file(text: &str) -> Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile()?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// Parses the line that the process of a run printed.
///
/// # Errors
/// The line is not a result of this type.
pub(super) fn parsed<T: DeserializeOwned>(run: &PlannedRun, line: &str) -> Result<T> {
    serde_json::from_str(line)
        .with_context(|| format!("{} printed something other than its result", run.name))
}
