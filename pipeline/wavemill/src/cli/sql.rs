//! `wavemill sql`: queries a store.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Error, Result};
use clap::Args;
use wavemill_schemas::exit::Kind;
use wavemill_schemas::local_path::require_local;
use wavemill_schemas::number::number;
use wavemill_schemas::size::parse_at_least;
use wavemill_sql as sql;
use wavemill_sql::{Console, Format, Interrupt, Limits, Prompt, SqlError};
use wavemill_store::Store;
use wavemill_terminal::exit::{UsageError, last_line};
use wavemill_terminal::files::write_file;
use wavemill_terminal::interrupt::{self, SIGINT, remove_parts};

use super::{VersionArgs, require_outside};

const EXAMPLES: &str = "\
Examples:
  wavemill sql --store store \\
      'SELECT genre, count(*) FROM features_log_mel GROUP BY genre'
  wavemill sql --store store --format csv 'SELECT * FROM rejects' > rejects.csv
  wavemill sql --store store '\\d tracks'
  wavemill sql --store store --table mine=scores.csv \\
      'SELECT score, silent FROM mine JOIN features_log_mel USING (clip_key)'
  wavemill sql --store store \\
      'SELECT count(*) FROM tracks JOIN tracks@1 USING (clip_key)'
  wavemill sql --store store                 # a prompt; \\d lists the tables";

/// Query a store with SQL
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SqlCommand {
    #[command(flatten)]
    read: VersionArgs,
    /// The query, or several separated by `;`, or \d or \d TABLE; if omitted, it is read from standard input, or at a
    /// prompt if that is a terminal
    pub query: Option<String>,
    /// table: columns for a person, long values cut; csv: with a header, lists as JSON; json: one object per line; arrow:
    /// an IPC stream, tensors as `arrow.fixed_shape_tensor`; parquet: tensors as in the store
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    pub format: Format,
    /// Output file; `-` is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub out: PathBuf,
    /// Memory limit of the process; data beyond it is spilled to the temporary folder
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = |text: &str| parse_at_least(text, MEMORY_LIMIT_BYTES_MIN))]
    pub memory_limit: usize,
    /// Maximum number of threads; each takes 512MiB of the memory limit [default: the number of processors]
    #[arg(long, value_name = "N", value_parser = number::<usize>(1..))]
    pub threads: Option<usize>,
    /// A file of your own, or all that match a pattern, as a read-only table: CSV, TSV, Parquet or JSON lines; may be
    /// repeated
    #[arg(long = "table", value_name = "NAME=FILE", value_parser = parse_table)]
    pub tables: Vec<(String, PathBuf)>,
    /// Print tables with one line per value, for wide rows; \x at the prompt
    #[arg(short = 'x', long)]
    pub expanded: bool,
    /// Permit COPY, CREATE, INSERT and similar statements
    #[arg(long)]
    pub allow_write: bool,
}

impl SqlCommand {
    /// Runs the query, or starts an interactive prompt.
    ///
    /// # Errors
    /// `SqlError` if the SQL fails, with the command's exit code; or an error of reading the query or writing the file.
    pub fn run(&self) -> Result<u8> {
        let at_prompt = self.query.is_none() && io::stdin().is_terminal();
        if at_prompt && self.out != Path::new("-") {
            let message =
                "--out: the prompt prints on the terminal; add the query to the command line";
            return Err(UsageError(message.to_owned()).into());
        }
        let interrupt = Interrupt::default();
        // The prompt's line editor also handles SIGINT, so this command's handlers have to be installed after it.
        if !at_prompt {
            self.stop_on_signals(interrupt.clone(), false)?;
        }

        let session = self.open()?.with_interrupt(interrupt);
        let answered = if at_prompt {
            self.prompt(&session)
        } else {
            self.answer(&session)
        };

        match answered {
            Err(error) if error.downcast_ref().is_some_and(SqlError::is_broken_pipe) => Ok(0),
            other => other.map(|()| 0),
        }
    }

    /// Opens the version and the tables of the user.
    pub(super) fn open(&self) -> Result<sql::Session> {
        let (store, _, manifest) = self.read.open()?;
        let limits = limits(self.memory_limit, self.threads, self.allow_write);
        let session = sql::open(&store, &manifest, limits)?;
        for (name, file) in &self.tables {
            session.add_table(name, file)?;
        }
        Ok(session)
    }

    fn console(&self) -> Console {
        Console {
            format: self.format,
            expanded: self.expanded,
        }
    }

    fn prompt(&self, session: &sql::Session) -> Result<()> {
        if self.format.is_binary() {
            return Err(self.binary_to_terminal().into());
        }
        let prompt = Prompt::open(session, |message| wavemill_terminal::say!("{message}"))?;
        self.stop_on_signals(session.interrupt(), true)?;
        Ok(prompt.run(session, self.console())?)
    }

    fn binary_to_terminal(&self) -> UsageError {
        UsageError(format!(
            "{} is a binary format: add --out FILE, or pipe it into a program",
            self.format
        ))
    }

    fn answer(&self, session: &sql::Session) -> Result<()> {
        let query = match &self.query {
            Some(query) => query.clone(),
            None => io::read_to_string(io::stdin())
                .context("cannot read the query from standard input")?,
        };

        if self.out == Path::new("-") {
            if self.format.is_binary() && io::stdout().is_terminal() {
                return Err(self.binary_to_terminal().into());
            }
            return Ok(self.console().show(session, &query)?);
        }

        // The result of a query must not be written into the store, as with COPY within a session.
        require_outside(&Store::at(&self.read.store), &self.out)?;

        write_file("--out", &self.out, |file| {
            let answered = self.console().answer(session, &query, file);
            answered.map_err(|error| {
                // Errors of the temporary folder and of the files of a COPY have texts of their own.
                let is_of_out =
                    matches!(&error, SqlError::Output(cause) if cause.get_ref().is_none());
                let error = Error::new(error);
                if is_of_out {
                    error.context(format!("--out {}", self.out.display()))
                } else {
                    error
                }
            })
        })
    }

    /// Makes SIGINT and SIGTERM stop the query, which then cleans up, and end the process; at a prompt SIGINT stops
    /// only the query. In every state, the process ends within a second.
    fn stop_on_signals(&self, query: Interrupt, at_prompt: bool) -> Result<()> {
        let handled = interrupt::call(move |signal| {
            let is_stopping = query.stop();
            if signal == SIGINT && at_prompt {
                return;
            }
            if is_stopping {
                // `STOP_WAIT` exceeds `running::LEAVE`, so the main thread can end the process in order first.
                std::thread::sleep(STOP_WAIT);
            }

            // The main thread may be stuck, so this one removes the unfinished output.
            query.clean();
            remove_parts();
            last_line(&SqlError::Interrupted.to_string());
            std::process::exit(Kind::Interrupted.exit_code().into());
        });
        handled.context("cannot handle signals")
    }
}

/// Time that a stopped query has to end in order.
const STOP_WAIT: Duration = Duration::from_millis(700);

/// Parses a table given as `NAME=FILE`.
pub(super) fn parse_table(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => {
            let file = require_local(file.into()).map_err(|error| error.to_string())?;
            Ok((name.to_owned(), file))
        }
        _ => Err("give a name and a file, such as mine=scores.csv".to_owned()),
    }
}

/// Returns the limits that the options state, and makes malloc return freed batches if the limit is small. `threads`
/// defaults to the number of processors.
fn limits(memory_bytes: usize, threads: Option<usize>, allow_write: bool) -> Limits {
    if memory_bytes < REUSED_MEMORY_BYTES_MIN {
        wavemill_kernels::return_batches();
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Limits {
        memory_bytes,
        threads: threads.unwrap_or(processors),
        allow_write,
    }
}

/// Minimum memory limit: with less, not even a few rows with tensors fit in addition to the process itself.
const MEMORY_LIMIT_BYTES_MIN: usize = 128 << 20;
/// Memory limit from which freed batches may stay in the heaps of the threads. A sort of two million rows with texts took
/// 27 MiB less under 128 MiB when they did not.
const REUSED_MEMORY_BYTES_MIN: usize = 256 << 20;
