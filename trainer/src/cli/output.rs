//! Flags of every command for progress and reports. `wavemill` has the same flags.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::exit::UsageError;

/// Seconds between progress lines: short enough to show that a run is alive, and few lines in a log of a day.
const EVERY_S: f64 = 30.0;

/// Form of the progress output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// A bar on a terminal, plain lines elsewhere.
    #[default]
    Auto,
    /// A line every 30 s and at the end of each epoch.
    Plain,
    /// A bar, if stderr is a terminal.
    Bar,
    /// A line with a JSON object, as often as plain lines.
    Json,
    /// No progress output.
    None,
}

/// Heading that separates these options from a command's own in help texts.
const HEADING: &str = "Options of all commands";

/// Options that all commands have.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct OutputArgs {
    /// Form of the progress shown on stderr
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "HOW",
        default_value = "auto",
        hide_possible_values = true
    )]
    #[arg(help = "Form of the progress on stderr: auto, plain, bar, json or none", help_heading = HEADING)]
    pub progress: Progress,
    /// Show neither progress nor reports on stderr, only warnings and errors
    #[arg(long, short, global = true, help_heading = HEADING)]
    pub quiet: bool,
    /// Show more in reports: seconds by stage, and the files written
    #[arg(long, short, global = true, help_heading = HEADING, conflicts_with = "quiet")]
    pub verbose: bool,
}

static OUTPUT: OnceLock<OutputArgs> = OnceLock::new();

impl OutputArgs {
    /// Makes these the options of the process.
    pub(crate) fn set(self) {
        // Only the first call has an effect.
        let _ = OUTPUT.set(self);
    }

    /// Returns the options of the process.
    pub(crate) fn get() -> &'static Self {
        OUTPUT.get_or_init(Self::default)
    }

    /// Returns the form of progress output for this process's stderr.
    pub(crate) fn shown(&self) -> Progress {
        let is_terminal = std::io::stderr().is_terminal();
        match self.progress {
            _ if self.quiet => Progress::None,
            Progress::Auto | Progress::Bar if is_terminal => Progress::Bar,
            Progress::Auto => Progress::Plain,
            // Without a terminal, a bar would flood the log.
            Progress::Bar => Progress::None,
            other => other,
        }
    }
}

/// Prints a line of a report to stderr, unless `--quiet` was given.
pub(crate) fn report(line: &str) {
    if !OutputArgs::get().quiet {
        eprintln!("{line}");
    }
}

/// Returns the time between progress lines: 30 s, or `WAVEMILL_PROGRESS_S`.
///
/// # Errors
/// [`UsageError`] if that variable is not a number of seconds above 0.
pub(crate) fn interval() -> Result<Duration, UsageError> {
    let Some(text) = std::env::var_os("WAVEMILL_PROGRESS_S") else {
        return Ok(Duration::from_secs_f64(EVERY_S));
    };
    let seconds = text
        .to_str()
        .and_then(|text| text.parse().ok())
        .filter(|seconds| *seconds > 0.0);
    let interval = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    interval.ok_or_else(|| {
        UsageError(format!(
            "WAVEMILL_PROGRESS_S={}: must be a number of seconds above 0",
            text.to_string_lossy()
        ))
    })
}
