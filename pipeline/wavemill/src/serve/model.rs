//! Runs a model in a child process that is started once, receives one song after another, and is restarted when it
//! ends.
//!
//! The process is `wavemill train predict --streams`, but this module does not depend on Arrow or libtorch: it writes
//! bytes to the process and reads lines up to an empty one.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use prometheus::IntCounter;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::readers::Permit;

/// Time to wait for the exit code of a process that has closed its output.
const END: Duration = Duration::from_secs(2);

/// Errors of a model.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
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
    pub setup: ModelSetup,
    /// The running process; `None` if it has to be started.
    process: Arc<Mutex<Option<Process>>>,
    /// True if the process whose lock is held is loaded and has replied to every request so far.
    is_loaded: AtomicBool,
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
            process: Arc::default(),
            is_loaded: AtomicBool::new(false),
            starts,
            load,
            answer,
        }
    }

    /// Reports whether the model can handle a request now. A busy model can; a model whose process ended while idle
    /// cannot.
    pub(crate) fn is_ready(&self) -> bool {
        match self.process.try_lock() {
            Ok(mut place) => {
                let is_alive = place.as_mut().is_some_and(Process::is_alive);
                self.is_loaded.store(is_alive, Ordering::Relaxed);
                is_alive
            }
            Err(_) => self.is_loaded.load(Ordering::Relaxed),
        }
    }

    /// Starts the model's process unless it is running.
    ///
    /// # Errors
    /// [`ServeError`] if the process cannot be started, ends, or does not load the model in time.
    pub(crate) async fn make_ready(&self) -> Result<(), ServeError> {
        let mut place = self.process.lock().await;
        *place = Some(self.running(&mut place).await?);
        Ok(())
    }

    /// Starts the model's process in the background. If the model is busy or being started, there is nothing to do.
    pub(crate) fn restart(self: &Arc<Self>) {
        let Ok(mut place) = Arc::clone(&self.process).try_lock_owned() else {
            return;
        };
        let model = Arc::clone(self);
        tokio::spawn(async move {
            // A model that cannot be started is reported as not ready.
            *place = model.running(&mut place).await.ok();
        });
    }

    /// Waits until the model has no other song, and returns its output for one stream. Restarts the process first if it
    /// ended while idle.
    ///
    /// The reply is read in a task: a client that disconnects does not interrupt the process in the middle of a reply.
    ///
    /// # Errors
    /// [`ServeError`]. The process is then discarded, and another one is started.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        stream: Bytes,
        song: Permit,
    ) -> Result<Answered, ServeError> {
        let mut place = Arc::clone(&self.process).lock_owned().await;
        let model = Arc::clone(self);
        let asked = tokio::spawn(async move {
            let _held = song;
            let begin = Instant::now();
            let lines = model.lines(&mut place, &stream).await;
            drop(place);
            // The process is restarted now, so that the next song need not wait for it.
            if lines.is_err() {
                model.restart();
            }
            lines.map(|lines| Answered {
                lines,
                seconds: begin.elapsed().as_secs_f64(),
            })
        });
        asked.await.unwrap_or_else(|_| Err(self.ended(None)))
    }

    /// Closes the input of the process and waits up to [`END`] for the process to exit. A process that is being started
    /// ends with this program, when its pipes are closed.
    pub(crate) async fn end(&self) {
        let Ok(mut place) = timeout(END, self.process.lock()).await else {
            return;
        };
        if let Some(Process {
            mut child, stdin, ..
        }) = place.take()
        {
            drop(stdin);
            let _ = timeout(END, child.wait()).await;
        }
    }

    fn ended(&self, status: Option<ExitStatus>) -> ServeError {
        ServeError::Ended {
            run: self.setup.run.clone(),
            status,
        }
    }

    async fn lines(
        &self,
        place: &mut Option<Process>,
        stream: &[u8],
    ) -> Result<Vec<String>, ServeError> {
        let mut process = self.running(place).await?;
        let lines = self.answered(&mut process, stream, self.answer).await;
        match lines {
            Ok(_) => *place = Some(process),
            // Until the process is replaced, the model must not be reported as ready.
            Err(_) => self.is_loaded.store(false, Ordering::Relaxed),
        }
        lines
    }

    /// Takes the running process out of `place`, or starts one.
    async fn running(&self, place: &mut Option<Process>) -> Result<Process, ServeError> {
        if let Some(mut process) = place.take()
            && process.is_alive()
        {
            return Ok(process);
        }
        self.is_loaded.store(false, Ordering::Relaxed);
        self.starts.inc();

        let started = Process::start((self.setup.command)());
        let mut process = started.map_err(|source| ServeError::Start {
            run: self.setup.run.clone(),
            source,
        })?;
        self.answered(&mut process, &self.setup.greeting, self.load)
            .await?;
        self.is_loaded.store(true, Ordering::Relaxed);
        Ok(process)
    }

    async fn answered(
        &self,
        process: &mut Process,
        stream: &[u8],
        limit: Duration,
    ) -> Result<Vec<String>, ServeError> {
        match timeout(limit, process.ask(stream)).await {
            Ok(Ok(lines)) => Ok(lines),
            Ok(Err(_)) => {
                let status = timeout(END, process.child.wait()).await;
                Err(self.ended(status.ok().and_then(Result::ok)))
            }
            Err(_) => Err(ServeError::Slow {
                run: self.setup.run.clone(),
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
        let stdout = child.stdout.take().expect("its stdout is a pipe");
        Ok(Self {
            stdin: child.stdin.take().expect("its stdin is a pipe"),
            lines: BufReader::new(stdout).lines(),
            child,
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
    use tokio::sync::Semaphore;

    use super::*;

    /// Script that replies to each line with the same line and an empty line. It exits at `die` and hangs at `hang`.
    const ECHO: &str = r#"while IFS= read -r line; do
        case "$line" in die) exit 3;; hang) exec sleep 60;; hello) echo;; *) printf '%s\n\n' "$line";; esac
    done"#;

    /// Script that takes a while to reply with the same line.
    const SLOW: &str = r#"while IFS= read -r line; do
        case "$line" in hello) echo;; *) sleep 0.3; printf '%s\n\n' "$line";; esac
    done"#;

    fn model(script: &'static str, seconds: u64) -> Arc<Model> {
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
        let load = Duration::from_secs(30);
        Arc::new(Model::new(
            setup,
            starts,
            load,
            Duration::from_secs(seconds),
        ))
    }

    fn on_runtime<T>(body: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(body)
    }

    async fn asked(model: &Arc<Model>, song: &[u8]) -> Result<Answered, ServeError> {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned();
        let place = Arc::new(place.expect("a place"));
        model.ask(Bytes::copy_from_slice(song), place).await
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
            assert!(matches!(error, ServeError::Slow { .. }), "{error}");
            assert_eq!(asked(&model, b"a\n").await.expect("an answer").lines, ["a"]);
        });
    }

    #[test]
    fn model_start_failure_is_reported() {
        on_runtime(async {
            let error = model("exit 4", 30).make_ready().await.expect_err("it ends");
            let ServeError::Ended { status, .. } = error else {
                panic!("{error}")
            };
            assert_eq!(status.and_then(|status| status.code()), Some(4));
        });
    }

    #[test]
    fn a_song_leaves_the_queue_with_its_client() {
        on_runtime(async {
            let model = model(ECHO, 30);
            model.make_ready().await.expect("it starts");

            // Another song has its turn. The waiting one would end the process.
            let turn = model.process.lock().await;
            let waiting = timeout(Duration::from_millis(50), asked(&model, b"die\n"));
            assert!(waiting.await.is_err());
            drop(turn);

            assert_eq!(asked(&model, b"a\n").await.expect("an answer").lines, ["a"]);
            assert_eq!(model.starts.get(), 1);
        });
    }

    #[test]
    fn a_prediction_that_has_begun_is_finished_without_its_client() {
        on_runtime(async {
            let model = model(SLOW, 30);
            model.make_ready().await.expect("it starts");

            let given_up = timeout(Duration::from_millis(50), asked(&model, b"a\n"));
            assert!(given_up.await.is_err());

            assert_eq!(asked(&model, b"b\n").await.expect("an answer").lines, ["b"]);
            assert_eq!(model.starts.get(), 1);
        });
    }
}
