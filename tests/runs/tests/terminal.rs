//! Runs a program on a pseudo-terminal (`terminal.py`), types keys, and reads the screen.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wavemill_tests::Failed;

use crate::support::same;

const ROWS: usize = 24;
const COLUMNS: usize = 80;
/// Timeout for events that take a moment, on a busy machine.
pub(crate) const TERMINAL_TIMEOUT: Duration = Duration::from_secs(60);
/// Polling interval of a waiting test.
const LOOK: Duration = Duration::from_millis(10);

/// A program on a pseudo-terminal, with its input and output.
pub(crate) struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: Arc<Mutex<Vec<u8>>>,
    /// Number of output bytes that were already read by the test.
    seen: usize,
}

impl Terminal {
    /// Starts `program` with its arguments and environment.
    pub(crate) fn start(program: &Command) -> Result<Self, Failed> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/terminal.py");
        let mut command = Command::new("python3");
        command
            .arg(script)
            .arg(ROWS.to_string())
            .arg(COLUMNS.to_string());
        command.arg(program.get_program()).args(program.get_args());

        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("TERM", "xterm");

        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let keyboard = child.stdin.take().ok_or("no keyboard")?;
        let mut output = child.stdout.take().ok_or("no screen")?;
        let screen = Arc::new(Mutex::new(Vec::new()));

        // Reads continuously, because the program would block when the pipe is full. The thread ends with the
        // program.
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                shown
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend_from_slice(&bytes[..n]);
            }
        });

        Ok(Self {
            child,
            keyboard,
            screen,
            seen: 0,
        })
    }

    /// Returns the output since the last read, and the position of its end.
    fn look(&self) -> (String, usize) {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        (
            String::from_utf8_lossy(&screen[self.seen..]).replace("\r\n", "\n"),
            screen.len(),
        )
    }

    /// Returns the output since the last read without marking it as read.
    pub(crate) fn news(&self) -> String {
        self.look().0
    }

    /// Waits until the output contains `text`, and returns all output since the last read.
    pub(crate) fn wait_for(&mut self, text: &str, limit: Duration) -> Result<String, Failed> {
        let start = Instant::now();
        loop {
            // Checks for the end before reading, so that the last output is not missed.
            let has_ended = self.child.try_wait()?.is_some();
            let (news, end) = self.look();
            if news.contains(text) {
                self.seen = end;
                return Ok(news);
            }

            if start.elapsed() > limit || has_ended {
                return Err(format!(
                    "no {text:?} after {:.1} s: {news:?}",
                    start.elapsed().as_secs_f64()
                )
                .into());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Sends bytes as a keyboard does.
    pub(crate) fn press(&mut self, keys: &str) -> Result<(), Failed> {
        self.keyboard.write_all(keys.as_bytes())?;
        Ok(self.keyboard.flush()?)
    }

    /// Waits for the end of the program and checks its exit code.
    pub(crate) fn ends(mut self, code: i32) -> Result<(), Failed> {
        let start = Instant::now();
        while start.elapsed() < TERMINAL_TIMEOUT {
            if let Some(status) = self.child.try_wait()? {
                return same(
                    &format!("exit code after {:?}", self.news()),
                    status.code(),
                    Some(code),
                );
            }
            std::thread::sleep(LOOK);
        }
        Err(format!("it does not end: {:?}", self.news()).into())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Needed only after a failed test. The program ends when its terminal is closed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
