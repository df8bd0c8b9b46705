//! Flags of all commands that control progress and reports on stderr, and standard output.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::ops::Bound::{Excluded, Included};
use std::sync::OnceLock;
use std::time::Duration;

use clap::{Args, ValueEnum};
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::number::number;
use wavemill_schemas::text::shown;

use super::exit::UsageError;

/// Seconds between two lines of progress: short enough to see that a run is alive, long enough for the log of a day.
const EVERY_S: f64 = 30.0;

/// Longest time between two lines of progress: a day.
const SECONDS_MAX: f64 = 86_400.0;

/// The form in which progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressFormat {
    /// A bar on a terminal, plain lines elsewhere
    #[default]
    Auto,
    /// A line every 30 s
    Plain,
    /// A bar, if stderr is a terminal
    Bar,
    /// One JSON object per line, every 30 s
    Json,
    /// No progress
    None,
}

/// Arguments of all commands.
#[derive(Clone, Debug, Default, Args)]
pub struct OutputArgs {
    /// How to show progress on stderr: auto (a bar on a terminal, lines elsewhere), plain, bar, json or none
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "HOW",
        default_value = "auto",
        hide_possible_values = true
    )]
    pub progress: ProgressFormat,
    /// Show neither progress nor reports on stderr, only warnings and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Show more in reports: seconds by stage, and the files written
    #[arg(long, short, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
}

static OUTPUT: OnceLock<OutputArgs> = OnceLock::new();

impl OutputArgs {
    /// Stores these arguments as the output settings of the process.
    pub fn set(self) {
        // Only the first call has an effect.
        let _ = OUTPUT.set(self);
    }

    /// Returns the output settings of the process, or the defaults if none were set.
    pub fn get() -> &'static Self {
        OUTPUT.get_or_init(Self::default)
    }

    /// Returns the form of progress to show, which depends on whether stderr is a terminal.
    pub fn shown(&self) -> ProgressFormat {
        let is_terminal = std::io::stderr().is_terminal();
        match self.progress {
            _ if self.quiet => ProgressFormat::None,
            ProgressFormat::Auto | ProgressFormat::Bar if is_terminal => ProgressFormat::Bar,
            ProgressFormat::Auto => ProgressFormat::Plain,
            // Without a terminal, every update of the bar would be appended to the log.
            ProgressFormat::Bar => ProgressFormat::None,
            other => other,
        }
    }
}

/// Prints a line on stderr. In contrast to `eprintln!`, a reader that has closed its pipe is no panic.
#[macro_export]
macro_rules! say {
    ($($message:tt)*) => {
        $crate::output::write_stderr(format_args!("{}\n", format_args!($($message)*)))
    };
}

/// Prints a warning on stderr, without control characters.
pub fn warn(warning: &str) {
    say!("warning: {}", shown(warning));
}

/// Writes to stderr. An error is ignored, because there is no other place to report it.
pub fn write_stderr(message: fmt::Arguments<'_>) {
    let _ = io::stderr().write_fmt(message);
}

/// Clears the terminal line that contains a progress bar, so that a message fits there. The bar is drawn again soon.
pub fn clear_bar() {
    if std::io::stderr().is_terminal() {
        write_stderr(format_args!("\r\x1b[2K"));
    }
}

/// Prints a report to stderr, unless `--quiet` is given.
pub fn report(text: &str) {
    if !OutputArgs::get().quiet {
        write_stderr(format_args!("{text}"));
    }
}

/// Returns the time between two lines of progress: 30 s, or `WAVEMILL_PROGRESS_S`.
///
/// # Errors
/// [`UsageError`] if the variable is not a number of seconds above 0.
pub fn interval() -> Result<Duration, UsageError> {
    let Some(text) = std::env::var_os("WAVEMILL_PROGRESS_S") else {
        return Ok(Duration::from_secs_f64(EVERY_S));
    };

    let text = text.to_string_lossy();
    let seconds = number((Excluded(0.0), Included(SECONDS_MAX)))(&text);
    let wrong = |problem| UsageError(format!("WAVEMILL_PROGRESS_S={text}: {problem}"));
    seconds.map(Duration::from_secs_f64).map_err(wrong)
}

/// Standard output, whose errors say that it is standard output.
#[derive(Debug)]
pub struct Stdout(io::Stdout);

/// Returns standard output.
pub fn stdout() -> Stdout {
    Stdout(io::stdout())
}

fn of_stdout(error: io::Error) -> io::Error {
    let kind = error.kind();
    io::Error::new(
        kind,
        PlainError::failed("cannot write to stdout").caused_by(error),
    )
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(of_stdout)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(of_stdout)
    }
}
