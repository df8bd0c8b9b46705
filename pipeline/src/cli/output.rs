//! How much a command says besides its result: flags of every command, known to all of them.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::exit::UsageError;

/// Seconds between two lines of progress: often enough to see that a run is alive, seldom enough for a log of a day.
const EVERY_S: f64 = 30.0;

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// A bar on a terminal, plain lines elsewhere
    #[default]
    Auto,
    /// A line every 30 s
    Plain,
    /// A bar, where there is a terminal
    Bar,
    /// A JSON object a line, every 30 s
    Json,
    /// Nothing
    None,
}

/// In help texts these are apart from a command's own.
const HEADING: &str = "Options of all commands";

/// What all commands take.
#[derive(Clone, Debug, Default, Args)]
pub struct OutputArgs {
    /// How progress is shown on stderr
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "HOW",
        default_value = "auto",
        hide_possible_values = true
    )]
    #[arg(help = "How progress is shown on stderr: auto, plain, bar, json or none", help_heading = HEADING)]
    pub progress: Progress,
    /// Neither progress nor reports on stderr: warnings and errors alone
    #[arg(long, short, global = true, help_heading = HEADING)]
    pub quiet: bool,
    /// More in reports: seconds by stage, and the files written
    #[arg(long, short, global = true, help_heading = HEADING, conflicts_with = "quiet")]
    pub verbose: bool,
}

static OUTPUT: OnceLock<OutputArgs> = OnceLock::new();

impl OutputArgs {
    /// These are the process's.
    pub fn set(self) {
        // Only the first command line counts.
        let _ = OUTPUT.set(self);
    }

    /// The process's.
    pub fn get() -> &'static Self {
        OUTPUT.get_or_init(Self::default)
    }

    /// How progress is shown here.
    pub fn shown(&self) -> Progress {
        let is_terminal = std::io::stderr().is_terminal();
        match self.progress {
            _ if self.quiet => Progress::None,
            Progress::Auto | Progress::Bar if is_terminal => Progress::Bar,
            Progress::Auto => Progress::Plain,
            // A bar without a terminal would fill a log with itself.
            Progress::Bar => Progress::None,
            other => other,
        }
    }
}

/// Clears the line that a bar may stand in, so that the next words stand alone. The bar is drawn again soon.
pub fn clear_bar() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[2K");
    }
}

/// Prints a report to stderr, unless `--quiet`.
pub fn report(text: &str) {
    if !OutputArgs::get().quiet {
        eprint!("{text}");
    }
}

/// The time between two lines: 30 s, or `WAVEMILL_PROGRESS_S`.
///
/// # Errors
/// [`UsageError`] where that is no number of seconds above 0.
pub fn interval() -> Result<Duration, UsageError> {
    let Some(text) = std::env::var_os("WAVEMILL_PROGRESS_S") else {
        return Ok(Duration::from_secs_f64(EVERY_S));
    };

    let seconds = text
        .to_str()
        .and_then(|text| text.parse().ok())
        .filter(|seconds| *seconds > 0.0);
    // Not every number is a time: one that is too large or infinite is refused as well.
    let interval = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());

    interval.ok_or_else(|| {
        UsageError(format!(
            "WAVEMILL_PROGRESS_S={}: seconds, above 0",
            text.to_string_lossy()
        ))
    })
}
