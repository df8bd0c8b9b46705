//! `wavemill serve`: trained models that answer for songs, by a web page and by HTTP.

mod songs;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Error, Result};
use clap::Args;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use self::songs::{Input, SongReader};
use super::exit::{self, ChildFailure, Interrupted, UsageError};
use super::sql::parse_bytes;
use super::train::{BUILD_TRAINER, TRAINER, code_of, name_among};
use super::{beside, not_there, output};
use crate::decode::{FILE_BYTES_MAX, OUTPUT_S_MAX};
use crate::panics::WORKER_NAME;
use crate::serve::{self, Limits, ModelError, ModelSetup, Reader, Server, ServerSetup, Unreadable};

const EXAMPLES: &str = "\
Examples:
  wavemill serve --run runs/cnn2d-1f2e3d4c-1
  wavemill serve --run runs/plain --run runs/stretched --port 9000
  wavemill serve --run runs/plain --listen 0.0.0.0 --host music.example
  curl --data-binary @song.mp3 http://127.0.0.1:8080/api/predict

The page is at http://127.0.0.1:8080/, the interface is described at /api/openapi.json. Songs are kept in memory alone, \
until they are answered. There is no password: whoever reaches the port may ask.

Exit codes: 0 ok, 1 failed, 2 wrong usage, or no such run, 130 ended by SIGINT or SIGTERM, after the songs in progress \
(a second signal ends at once), else those of `wavemill-train predict`.";

/// Threads that move bytes; what computes has threads of its own.
const HTTP_THREADS: usize = 2;
/// All classes: the page shows more of them than a line of `predict` has.
const TOP: &str = "65535";

/// Answer for songs: a web page, and an HTTP interface, of trained models
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ServeCommand {
    /// The folder that `wavemill-train fit` wrote; may be given again, for several models side by side
    #[arg(long = "run", value_name = "DIR", required = true)]
    runs: Vec<PathBuf>,
    /// The port; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// The address to listen on; the default is reached from this machine alone
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// A name that the server answers to, beside localhost; may be repeated
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// The largest file
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_upload)]
    max_upload: usize,
    /// Seconds of the longest song
    #[arg(long, value_name = "SECONDS", default_value_t = 900.0, value_parser = parse_seconds)]
    max_duration: f64,
    /// Songs that are received, wait or are computed at once; who asks beyond them is told to ask again
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    in_flight: u16,
    /// Seconds from the end of an upload to its answer
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Songs that are decoded and computed at once [default: the processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl ServeCommand {
    /// Answers until a signal comes.
    ///
    /// # Errors
    /// Wrong usage, a model that cannot answer, and at last [`Interrupted`].
    pub fn run(&self) -> Result<()> {
        let server = Arc::new(Server::new(self.setup()?));
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(HTTP_THREADS)
            // By their name, a panic in one of them is known to be told to a client, and ends nothing.
            .thread_name(WORKER_NAME)
            .enable_all()
            .build()
            .context("cannot start threads")?;

        let ended = runtime.block_on(self.answer(&server));
        // A thread that still decodes a song which nobody waits for is not waited for either.
        runtime.shutdown_background();
        ended
    }

    fn setup(&self) -> Result<ServerSetup> {
        let mut inputs: Vec<Input> = Vec::new();
        let mut models = Vec::new();
        for (place, run) in self.runs.iter().enumerate() {
            // Answers are told apart by their runs' names.
            if self.runs[..place].contains(run) {
                return Err(UsageError(format!("--run {}: given twice", run.display())).into());
            }
            let input = Input::of_run(run)?;
            // Models that see the same feature share its rows.
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

        let limits = self.limits();
        let inputs = Arc::new(inputs);
        let most_s = limits.song_s;
        Ok(ServerSetup {
            address: self.listen,
            names: self.hosts.clone(),
            limits,
            reader: Box::new(move || -> Result<Box<dyn Reader>, Unreadable> {
                let reader = SongReader::new(&inputs, most_s)?;
                Ok(Box::new(reader))
            }),
            models,
        })
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
        // Before anything else, so that no signal finds nobody.
        let mut signals = Signals::new()?;
        let address = SocketAddr::new(self.listen, self.port);
        let listener = TcpListener::bind(address).await.map_err(|error| {
            UsageError(format!(
                "cannot listen on {address}: {error}; choose another --port or --listen"
            ))
        })?;
        let address = listener.local_addr()?;

        tokio::select! {
            ready = server.make_ready() => ready.map_err(cannot_answer)?,
            () = signals.next() => {
                return Err(Interrupted("interrupted while models were loaded".to_owned()).into());
            }
        }
        output::report(&format!(
            "{} at http://{address}/; Ctrl-C ends it\n",
            server.runs().join(" and ")
        ));

        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move {
            signals.next().await;
            let _ = stop.send(true);
            eprintln!("stopping after the songs in progress; once more to stop at once");
            signals.next().await;
            // The models' processes end with the pipes from this one.
            exit::last_line("stopped at once by a second signal");
            std::process::exit(130);
        });
        serve::run(server, listener, stopped).await;
        Err(Interrupted("ended by a signal; the songs in progress were answered".to_owned()).into())
    }
}

/// SIGINT and SIGTERM.
struct Signals {
    int: Signal,
    term: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self {
            int: signal(SignalKind::interrupt()).context("cannot handle signals")?,
            term: signal(SignalKind::terminate()).context("cannot handle signals")?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
        }
    }
}

/// The trainer's program as a process that answers song after song.
fn model_command(run: &Path) -> Command {
    let mut command = Command::new(beside(TRAINER));
    command
        .args(["predict", "--streams", "--top", TOP, "--run"])
        .arg(run)
        .arg("-")
        // A signal of the terminal reaches this program alone, which lets songs in progress end.
        .process_group(0);
    command
}

/// Of a model that did not even begin: its own exit code, where it has said why.
fn cannot_answer(error: ModelError) -> Error {
    match error {
        ModelError::Ended {
            status: Some(status),
            ..
        } if status.code().is_some() => ChildFailure {
            code: code_of(status),
        }
        .into(),
        error @ ModelError::Start { .. } => {
            Error::new(error).context(not_there(TRAINER, BUILD_TRAINER))
        }
        error => error.into(),
    }
}

fn parse_upload(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text)?;
    if bytes == 0 || bytes > FILE_BYTES_MAX {
        return Err(format!("from 1 to {FILE_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "give seconds".to_owned())?;
    if seconds > 0.0 && seconds <= OUTPUT_S_MAX {
        Ok(seconds)
    } else {
        Err(format!("above 0, and at most {OUTPUT_S_MAX}"))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::cli::command_of;

    fn limits(line: &[&str]) -> Result<Limits> {
        let mut words: Vec<&OsStr> = vec!["--run".as_ref(), "r".as_ref()];
        words.extend(line.iter().map(OsStr::new));
        Ok(command_of::<ServeCommand>(&words)?.limits())
    }

    /// A default stands in the flags, for the help, and in the limits, with its reason.
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
