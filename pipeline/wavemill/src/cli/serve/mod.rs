//! `wavemill serve`: a web page and an HTTP interface to trained models.

mod songs;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Bound::{Excluded, Included};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Error, Result};
use clap::Args;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::{mpsc, watch};
use wavemill_decode::{FILE_BYTES_MAX, OUTPUT_S_MAX};
use wavemill_runtime::panics::WORKER_NAME;
use wavemill_schemas::exit::{Kind, PlainError};
use wavemill_schemas::number::number;
use wavemill_schemas::size::parse_bytes;
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::interrupt::{SignalGuard, end};
use wavemill_terminal::output;

use self::songs::{Input, SongReader};
use super::exit::ChildFailure;
use super::program::beside;
use super::train::{TRAINER, code_of, name_among, trainer};
use crate::serve::{self, Gate, Limits, ModelSetup, Reader, ServeError, Server, Unreadable};

const EXAMPLES: &str = "\
Examples:
  wavemill serve --run runs/cnn2d-1f2e3d4c-1
  wavemill serve --run runs/plain --run runs/stretched --port 9000
  wavemill serve --run runs/plain --listen 0.0.0.0 --host music.example
  curl --data-binary @song.mp3 http://127.0.0.1:8080/api/predict

The page is at http://127.0.0.1:8080/, the description of the API at /api/openapi.json. Songs are kept only in memory, \
until the response is sent. There is no authentication: every client that can reach the port can send songs.

Exit code 130 after SIGINT or SIGTERM, when the songs in progress are finished. A second signal stops at once.";

/// Number of threads for network I/O; computations have threads of their own.
const HTTP_THREADS: usize = 2;
/// Number of classes requested per prediction: all, because the page shows more classes than a line of `predict`.
const TOP: &str = "65535";

/// Predict uploaded songs, by a web page and an HTTP interface
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ServeCommand {
    /// Folder that `wavemill train fit` wrote; may be repeated, for several models side by side
    #[arg(long = "run", value_name = "DIR", required = true)]
    runs: Vec<PathBuf>,
    /// Port; 0 selects a free one
    #[arg(long, value_name = "N", default_value_t = 8080, value_parser = number::<u16>(0..=u16::MAX))]
    port: u16,
    /// Address to listen on; the default accepts connections from this machine only
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// Host name that the server accepts in addition to localhost; may be repeated
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// Largest size of an uploaded file
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_upload)]
    max_upload: usize,
    /// Longest duration of a song, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 900.0, value_parser = number::<f64>((Excluded(0.0), Included(OUTPUT_S_MAX))))]
    max_duration: f64,
    /// Number of songs received, waiting or computed at the same time; further requests get status 503 and a
    /// Retry-After header
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = number::<u16>(1..=1024))]
    in_flight: u16,
    /// Time limit from the end of an upload to its response, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = number::<u64>(1..=3600))]
    timeout: u64,
    /// Number of songs decoded and computed at the same time [default: the number of processors]
    #[arg(long, value_name = "N", value_parser = number::<u16>(1..=1024))]
    threads: Option<u16>,
}

impl ServeCommand {
    /// Loads the models and serves HTTP requests until a signal arrives.
    ///
    /// # Errors
    /// Wrong usage; a model that cannot be loaded; [`Kind::Interrupted`] after a signal.
    pub fn run(&self) -> Result<u8> {
        let server = Arc::new(self.server()?);
        // The models' processes are started later: a missing trainer is reported now, with the way to get it.
        trainer()?;
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(HTTP_THREADS)
            // A panic in a thread with this name is reported to a client and does not end the process.
            .thread_name(WORKER_NAME)
            .enable_all()
            .build()
            .context("cannot start threads")?;

        let ended = runtime.block_on(self.answer(&server));
        // The shutdown does not wait for threads that are decoding a song whose client has disconnected.
        runtime.shutdown_background();
        ended.map(|()| 0)
    }

    fn server(&self) -> Result<Server> {
        let mut inputs: Vec<Input> = Vec::new();
        let mut models = Vec::new();
        for (place, run) in self.runs.iter().enumerate() {
            // Predictions of different models are distinguished by the names of their runs.
            if self.runs[..place].contains(run) {
                return Err(UsageError(format!("--run {}: given twice", run.display())).into());
            }
            let input = Input::from_run(run)?;
            // Models that read the same feature share the rows of that feature.
            let known = inputs
                .iter()
                .position(|known| known.feature_id() == input.feature_id());
            let greeting = input.stream("", Vec::new())?;
            let place = known.unwrap_or_else(|| {
                inputs.push(input);
                inputs.len() - 1
            });
            models.push(ModelSetup {
                run: name_among(&self.runs, run),
                input: place,
                command: Box::new({
                    let run = run.clone();
                    move || model_command(&run)
                }),
                greeting,
            });
        }

        let gate = Gate {
            address: self.listen,
            names: self.hosts.clone(),
        };
        let limits = self.limits();
        let inputs = Arc::new(inputs);
        let most_s = limits.song_s;
        let reader = move || -> Result<Box<dyn Reader>, Unreadable> {
            Ok(Box::new(SongReader::new(&inputs, most_s)?))
        };
        Ok(Server::new(gate, limits, Box::new(reader), models))
    }

    fn limits(&self) -> Limits {
        let defaults = Limits::default();
        Limits {
            upload_bytes: self.max_upload,
            song_s: self.max_duration,
            in_flight: usize::from(self.in_flight),
            answer: Duration::from_secs(self.timeout),
            threads: self.threads.map_or(defaults.threads, usize::from),
            ..defaults
        }
    }

    async fn answer(&self, server: &Arc<Server>) -> Result<()> {
        // Signals are received before models are loaded, so that no signal is lost.
        let (signal, mut signals) = mpsc::unbounded_channel();
        let _guard = SignalGuard::new(move || _ = signal.send(()));
        let address = SocketAddr::new(self.listen, self.port);
        let listener = TcpListener::bind(address).await.map_err(|error| {
            UsageError(format!(
                "cannot listen on {address}: {error}; choose another --port or --listen"
            ))
        })?;
        let address = listener.local_addr()?;

        tokio::select! {
            ready = server.make_ready() => ready.map_err(cannot_answer)?,
            _ = signals.recv() => {
                return Err(interrupted("interrupted while models were loaded"));
            }
        }
        output::report(&format!(
            "{} at http://{address}/; press Ctrl-C to stop\n",
            server.runs().join(" and ")
        ));

        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move {
            signals.recv().await;
            let _ = stop.send(true);
            wavemill_terminal::say!(
                "stopping after the songs in progress; a second signal stops at once"
            );
            // `None` means that the server has ended.
            if signals.recv().await.is_some() {
                // The models' processes end when the pipes from this process are closed.
                end("stopped at once by a second signal");
            }
        });
        serve::run(server, listener, stopped).await;
        Err(interrupted(
            "stopped by a signal; the songs in progress were finished",
        ))
    }
}

fn interrupted(message: &str) -> Error {
    PlainError::new(Kind::Interrupted, message).into()
}

/// Returns the command that starts the trainer as a process that predicts one song after another.
fn model_command(run: &Path) -> Command {
    let mut command = Command::new(beside(TRAINER));
    command
        .args(["predict", "--streams", "--top", TOP, "--run"])
        .arg(run)
        .arg("-")
        // A signal of the terminal reaches only this program, which lets the songs in progress finish.
        .process_group(0);
    command
}

/// Converts the error of a model that did not start to the model's own exit code if its process has reported the
/// reason.
fn cannot_answer(error: ServeError) -> Error {
    match error {
        ServeError::Ended {
            status: Some(status),
            ..
        } if status.code().is_some() => ChildFailure {
            code: code_of(status),
        }
        .into(),
        error => error.into(),
    }
}

fn parse_upload(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text)?;
    if bytes == 0 || bytes > FILE_BYTES_MAX {
        return Err(format!("must be from 1 to {FILE_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::cli::command_of;

    fn limits(line: &[&str]) -> Result<Limits> {
        let mut arguments: Vec<&OsStr> = vec!["--run".as_ref(), "r".as_ref()];
        arguments.extend(line.iter().map(OsStr::new));
        Ok(command_of::<ServeCommand>(&arguments)?.limits())
    }

    /// Each default value appears twice: in the flags, for the help text, and in the limits, with its reason.
    #[test]
    fn the_defaults_of_flags_are_those_of_the_limits() {
        let found = limits(&[]).expect("defaults");
        let want = Limits::default();
        assert_eq!(format!("{found:?}"), format!("{want:?}"));

        let found = limits(&["--max-upload", "1MiB", "--threads", "3"]).expect("values");
        assert_eq!((found.upload_bytes, found.threads), (1 << 20, 3));

        for wrong in [
            ["--max-upload", "0"],
            ["--max-upload", "9GiB"],
            ["--max-duration", "0"],
            ["--max-duration", "nan"],
            ["--in-flight", "0"],
            ["--threads", "0"],
            ["--timeout", "0"],
            ["--listen", "localhost"],
        ] {
            assert!(limits(&wrong).is_err(), "{wrong:?}");
        }
    }
}
