//! Runs a model in a child process that is started once, receives one song after another, and is restarted when it
//! ends.
//!
//! The process is `wavemill-train predict --streams`, but this module does not depend on Arrow or libtorch: it writes
//! bytes to the process and reads lines up to an empty one.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::timeout;

/// Time to wait for the exit code of a process that has closed its output.
const END: Duration = Duration::from_secs(2);

/// Errors of a model.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModelError {
    /// The model's program does not exist, or the system cannot start it.
    #[error("cannot start the process of model {run}")]
    Start { run: String, source: io::Error },
    /// The model's process ended. It may have printed the reason to stderr.
    #[error("the process of model {run} ended ({how})", how = status.map_or("unknown".to_owned(), |s| s.to_string()))]
    Ended {
        run: String,
        status: Option<ExitStatus>,
    },
    /// The model's process took too long for one song, or hangs.
    #[error("model {run} did not respond within {seconds} s and was stopped")]
    Slow { run: String, seconds: u64 },
}

/// Function that creates the command of a model's process.
pub(crate) type MakeCommand = Box<dyn Fn() -> std::process::Command + Send + Sync>;

/// Configuration of a model and of its process.
pub(crate) struct ModelSetup {
    /// Name of the model in responses.
    pub run: String,
    /// Index of the model's input among the streams of a song.
    pub input: usize,
    pub command: MakeCommand,
    /// Stream without rows. The model replies to it with an empty line only, as soon as it is loaded.
    pub greeting: Vec<u8>,
}

/// A model and its process. It handles one song at a time, and other songs wait for their turn.
pub(crate) struct Model {
    setup: ModelSetup,
    /// The running process; `None` if it has to be started.
    process: Mutex<Option<Process>>,
    /// True if the model is loaded and its process has replied to every request so far.
    is_loaded: AtomicBool,
    /// True if the server ends: no process is started any more.
    ends: watch::Sender<bool>,
    /// Counter of how often the process was started.
    starts: IntCounter,
    load: Duration,
    answer: Duration,
}

/// Output of a model's process for one song.
#[derive(Debug)]
pub(crate) struct Answered {
    pub lines: Vec<String>,
    /// Elapsed time in seconds, without the time spent waiting for earlier songs.
    pub seconds: f64,
}

struct Process {
    /// The child process that runs the model; it is killed on drop.
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

/// The right to use a model's process, until it is dropped.
pub(crate) struct Turn<'a>(MutexGuard<'a, Option<Process>>);

impl Model {
    /// Creates a model without starting its process.
    pub(crate) fn new(
        setup: ModelSetup,
        starts: IntCounter,
        load: Duration,
        answer: Duration,
    ) -> Self {
        Self {
            setup,
            process: Mutex::new(None),
            is_loaded: AtomicBool::new(false),
            ends: watch::Sender::new(false),
            starts,
            load,
            answer,
        }
    }

    pub(crate) fn run(&self) -> &str {
        &self.setup.run
    }

    pub(crate) const fn input(&self) -> usize {
        self.setup.input
    }

    /// Reports whether the model can handle a request now. A busy model can; a model whose process ended while idle
    /// cannot.
    pub(crate) fn is_ready(&self) -> bool {
        // If the lock is held, its holder detects the end of the process.
        if let Ok(mut place) = self.process.try_lock() {
            let has_ended = place.as_mut().is_some_and(|process| !process.is_alive());
            if has_ended {
                self.is_loaded.store(false, Ordering::Relaxed);
            }
        }
        self.is_loaded.load(Ordering::Relaxed)
    }

    /// Starts the model's process unless it is running.
    ///
    /// # Errors
    /// [`ModelError`] if the process cannot be started, ends, or does not load the model in time.
    pub(crate) async fn make_ready(&self) -> Result<(), ModelError> {
        let mut place = self.process.lock().await;
        if !place.as_mut().is_some_and(Process::is_alive) {
            *place = None;
            *place = Some(self.begin().await?);
        }
        Ok(())
    }

    /// Waits until the model has no other song.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        Turn(self.process.lock().await)
    }

    /// Returns the model's output for one stream. Restarts the process first if it ended while idle.
    ///
    /// # Errors
    /// [`ModelError`]. The process is then discarded, and the next call starts a new one.
    pub(crate) async fn ask(&self, turn: Turn<'_>, stream: &[u8]) -> Result<Answered, ModelError> {
        let Turn(mut place) = turn;
        let begin = Instant::now();

        // Take the process out: if this future is dropped halfway, a process in the middle of a reply is not reused.
        let mut process = place.take();
        if !process.as_mut().is_some_and(Process::is_alive) {
            process = None;
        }
        let mut process = match process {
            Some(process) => process,
            None => self.begin().await?,
        };
        let lines = self.answered(&mut process, stream, self.answer).await?;

        *place = Some(process);
        Ok(Answered {
            lines,
            seconds: begin.elapsed().as_secs_f64(),
        })
    }

    /// Closes the input of the process and waits up to [`END`] for the process to exit. No other one is started.
    pub(crate) async fn end(&self) {
        self.ends.send_replace(true);
        let process = self.process.lock().await.take();
        self.is_loaded.store(false, Ordering::Relaxed);
        if let Some(Process { child, stdin, .. }) = process {
            drop(stdin);
            let mut child = child;
            let _ = timeout(END, child.wait()).await;
        }
    }

    async fn begin(&self) -> Result<Process, ModelError> {
        self.starts.inc();
        self.is_loaded.store(false, Ordering::Relaxed);

        let mut process =
            Process::start((self.setup.command)()).map_err(|source| ModelError::Start {
                run: self.setup.run.clone(),
                source,
            })?;

        let greeting = &self.setup.greeting;
        let mut ends = self.ends.subscribe();
        tokio::select! {
            loaded = self.answered(&mut process, greeting, self.load) => {
                loaded?;
            }
            // Loading takes up to minutes. Dropping the process ends it.
            () = async { _ = ends.wait_for(|ends| *ends).await } => {
                return Err(ModelError::Ended { run: self.setup.run.clone(), status: None });
            }
        }

        self.is_loaded.store(true, Ordering::Relaxed);
        Ok(process)
    }

    async fn answered(
        &self,
        process: &mut Process,
        stream: &[u8],
        limit: Duration,
    ) -> Result<Vec<String>, ModelError> {
        let run = self.setup.run.clone();
        let answered = timeout(limit, process.ask(stream)).await;

        // A process that failed will be replaced. Until then the model must not be reported as ready.
        if !matches!(answered, Ok(Ok(_))) {
            self.is_loaded.store(false, Ordering::Relaxed);
        }

        match answered {
            Ok(Ok(lines)) => Ok(lines),
            Ok(Err(_)) => {
                let status = timeout(END, process.child.wait()).await;
                Err(ModelError::Ended {
                    run,
                    status: status.ok().and_then(Result::ok),
                })
            }
            Err(_) => Err(ModelError::Slow {
                run,
                seconds: limit.as_secs(),
            }),
        }
    }
}

impl Process {
    fn start(command: std::process::Command) -> io::Result<Self> {
        let mut child = Command::from(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) =
            pipes.ok_or_else(|| io::Error::other("the child process has no pipes"))?;
        Ok(Self {
            child,
            stdin,
            lines: BufReader::new(stdout).lines(),
        })
    }

    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Writes the stream and reads the reply concurrently, because a full pipe would block both processes.
    async fn ask(&mut self, stream: &[u8]) -> io::Result<Vec<String>> {
        let Self { stdin, lines, .. } = self;
        let sent = async {
            stdin.write_all(stream).await?;
            stdin.flush().await
        };
        let said = async {
            let mut said = Vec::new();
            loop {
                match lines.next_line().await? {
                    Some(line) if line.is_empty() => return Ok(said),
                    Some(line) => said.push(line),
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
        };
        let ((), said) = tokio::try_join!(sent, said)?;
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Script that replies to each line with the same line and an empty line. It exits at `die` and hangs at `hang`.
    const ECHO: &str = r#"while IFS= read -r line; do
        case "$line" in die) exit 3;; hang) exec sleep 60;; hello) echo;; *) printf '%s\n\n' "$line";; esac
    done"#;

    fn model(script: &'static str, seconds: u64) -> Model {
        let setup = ModelSetup {
            run: "one".to_owned(),
            input: 0,
            command: Box::new(move || {
                let mut command = std::process::Command::new("sh");
                command.args(["-c", script]);
                command
            }),
            greeting: b"hello\n".to_vec(),
        };

        let starts = IntCounter::new("starts", "Starts.").expect("a name");
        Model::new(
            setup,
            starts,
            Duration::from_secs(30),
            Duration::from_secs(seconds),
        )
    }

    fn on_runtime<T>(body: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(body)
    }

    async fn asked(model: &Model, song: &[u8]) -> Result<Answered, ModelError> {
        model.ask(model.turn().await, song).await
    }

    #[test]
    fn one_process_predicts_several_songs() {
        on_runtime(async {
            let model = model(ECHO, 30);
            assert!(!model.is_ready());
            model.make_ready().await.expect("it starts");

            for song in ["a", "b", "c"] {
                let said = asked(&model, format!("{song}\n").as_bytes()).await;
                assert_eq!(said.expect("an answer").lines, [song]);
            }

            assert_eq!((model.starts.get(), model.is_ready()), (1, true));
            model.end().await;
            assert!(!model.is_ready());
        });
    }

    #[test]
    fn ended_model_is_reported_and_restarted() {
        on_runtime(async {
            let model = model(ECHO, 30);
            let error = asked(&model, b"die\n").await.expect_err("it ends");
            assert!(error.to_string().contains("exit status: 3"), "{error}");
            assert!(!model.is_ready());
            assert_eq!(asked(&model, b"a\n").await.expect("an answer").lines, ["a"]);
            assert_eq!(model.starts.get(), 2);

            // If a model's process ended while idle, it is restarted, and the next song does not fail.
            let pid = model
                .process
                .lock()
                .await
                .as_ref()
                .and_then(|p| p.child.id());
            let pid = pid.expect("it runs").to_string();

            let kill = std::process::Command::new("kill")
                .args(["-9", &pid])
                .status();
            assert!(kill.expect("kill").success());

            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(!model.is_ready());
            assert_eq!(asked(&model, b"b\n").await.expect("an answer").lines, ["b"]);
            assert!(model.is_ready());
        });
    }

    #[test]
    fn hung_model_is_killed() {
        on_runtime(async {
            let model = model(ECHO, 1);
            let error = asked(&model, b"hang\n").await.expect_err("it hangs");
            assert!(matches!(error, ModelError::Slow { .. }), "{error}");
            assert_eq!(asked(&model, b"a\n").await.expect("an answer").lines, ["a"]);
        });
    }

    #[test]
    fn model_start_failure_is_reported() {
        on_runtime(async {
            let error = model("exit 4", 30).make_ready().await.expect_err("it ends");
            let ModelError::Ended { status, .. } = error else {
                panic!("{error}")
            };
            assert_eq!(status.and_then(|status| status.code()), Some(4));
        });
    }
}
