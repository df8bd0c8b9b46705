//! Handles SIGINT and SIGTERM: a command ends within a second, with exit code 130 and one line about the state it
//! leaves.
//!
//! Most work of the commands may be abandoned at any moment, because files get their final names only when they are
//! complete: in that case the process ends at once. Other commands have a function that is called on each signal.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
pub use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use wavemill_schemas::exit::Kind;

use crate::{exit, output};

/// Maximum number of attempts to remove a folder: another thread may still write into it.
const REMOVALS_MAX: usize = 20;

/// Interval at which a waiting thread checks whether a child process has ended.
const LOOK: Duration = Duration::from_millis(10);

/// The function that is called with the number of each signal. Without one, a signal has no effect.
type SignalAction = Option<Arc<dyn Fn(i32) + Send + Sync>>;

static ACTION: Mutex<SignalAction> = Mutex::new(None);
static CHILDREN: Mutex<Vec<Arc<Mutex<Child>>>> = Mutex::new(Vec::new());
static PARTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Locks a mutex, even if a thread panicked while it held the lock: the value is still valid.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes signals end the process with the message `message` from now on; see [`end`].
///
/// # Errors
/// The signal handlers, or the thread that receives signals, cannot be created.
pub fn at_once(message: &'static str) -> Result<()> {
    call(move |_| end(message)).context("cannot handle signals")
}

/// Makes each signal call `action` with its number from now on, on the thread that receives signals.
///
/// # Errors
/// The signal handlers, or the thread that receives signals, cannot be created.
pub fn call(action: impl Fn(i32) + Send + Sync + 'static) -> io::Result<()> {
    set(Some(Arc::new(action)));
    start()
}

/// Makes the numbers of signals wait in the returned channel from now on.
///
/// # Errors
/// The signal handlers, or the thread that receives signals, cannot be created.
pub fn receive() -> io::Result<Receiver<i32>> {
    let (sent, signals) = mpsc::channel();
    // Sending fails only if the command no longer waits for signals.
    call(move |signal| _ = sent.send(signal))?;
    Ok(signals)
}

/// Starts the thread that receives signals, unless it is running. An action must be set before, so that every signal
/// finds one.
fn start() -> io::Result<()> {
    static IS_STARTED: AtomicBool = AtomicBool::new(false);
    if IS_STARTED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }

    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || signals.forever().for_each(answer))?;
    Ok(())
}

fn set(action: SignalAction) -> SignalAction {
    std::mem::replace(&mut *lock(&ACTION), action)
}

/// Guard during whose lifetime each signal calls a function. Dropping the guard restores the previous action.
pub struct SignalGuard {
    before: SignalAction,
}

impl SignalGuard {
    /// Creates a guard that makes each signal call `action`.
    pub fn new(action: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            before: set(Some(Arc::new(move |_| action()))),
        }
    }
}

impl Drop for SignalGuard {
    fn drop(&mut self) {
        set(std::mem::take(&mut self.before));
    }
}

fn answer(signal: i32) {
    // The action is copied to release the lock: a job that ends meanwhile takes the lock to restore the previous
    // action.
    let action = lock(&ACTION).clone();
    if let Some(action) = action {
        action(signal);
    }
}

/// Ends the process without waiting for its threads, after killing the children and removing the partial files. Prints
/// `message` as the last line, unless it is empty or a last line was already printed.
pub fn end(message: &str) -> ! {
    // Children have process groups of their own and do not receive the signal, so that only one line is printed.
    for child in &*lock(&CHILDREN) {
        // An error means that the child has already ended.
        let _ = lock(child).kill();
    }
    remove_parts();

    output::clear_bar();
    if !message.is_empty() {
        exit::last_line(message);
    }
    exit_now(Kind::Interrupted.exit_code())
}

/// Ends the process at once with exit code `code`: `_exit` of C. No destructor and no exit handler runs, since a thread
/// may be stuck with a resource that they need, or may be computing with it.
pub fn exit_now(code: u8) -> ! {
    signal_hook::low_level::exit(code.into())
}

/// Removes the files and folders of all [`PartialFile`]s.
pub fn remove_parts() {
    for part in &*lock(&PARTS) {
        remove(part);
    }
}

/// Removes a file, or a folder with its contents.
fn remove(part: &Path) {
    for _ in 0..REMOVALS_MAX {
        let removed = std::fs::remove_file(part).or_else(|_| std::fs::remove_dir_all(part));
        if removed.is_ok() || !part.exists() {
            return;
        }
    }
}

/// Sends `signal` to a child; does nothing if the child has ended.
pub fn signal_child(child: &mut Child, signal: i32) {
    // A child that has ended needs no signal, and its process id may belong to another process by now.
    if let (Ok(None), Some(signal)) = (child.try_wait(), Signal::from_named_raw(signal)) {
        let _ = kill_process(Pid::from_child(child), signal);
    }
}

/// A child process that is killed if this process is interrupted. The child must have a process group of its own.
#[derive(Debug)]
pub struct ChildGuard(Arc<Mutex<Child>>);

impl ChildGuard {
    /// Registers a child process that was just started.
    pub fn new(child: Child) -> Self {
        let child = Arc::new(Mutex::new(child));
        lock(&CHILDREN).push(Arc::clone(&child));
        Self(child)
    }

    /// Waits until the child process has ended.
    ///
    /// # Errors
    /// An I/O error if the operating system cannot report the status of the child process.
    pub fn wait(&self) -> io::Result<ExitStatus> {
        loop {
            // The child is not locked while this thread waits, because an interruption needs the lock.
            if let Some(status) = lock(&self.0).try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Guard that passes the first signal on to a child process, which prints its own message, while this process waits for
/// the child. A second signal ends all processes at once. Dropping the guard restores the previous action.
pub struct ForwardedSignals {
    is_passed: Arc<AtomicBool>,
    _guard: SignalGuard,
}

impl ForwardedSignals {
    /// Passes signals on to `child`; `second` is the message that is printed after a second signal.
    pub fn to(child: &ChildGuard, second: &'static str) -> Self {
        let child = Arc::clone(&child.0);
        let is_passed = Arc::new(AtomicBool::new(false));
        let passed = Arc::clone(&is_passed);
        let guard = SignalGuard::new(move || {
            if passed.swap(true, Ordering::Relaxed) {
                end(second);
            }
            signal_child(&mut lock(&child), SIGTERM);
        });
        Self {
            is_passed,
            _guard: guard,
        }
    }

    /// Reports whether a signal has arrived since this guard was created.
    pub fn was_interrupted(&self) -> bool {
        self.is_passed.load(Ordering::Relaxed)
    }
}

/// Guard that has a file or folder removed if the process is interrupted before the guard is dropped.
#[derive(Debug)]
pub struct PartialFile<'a>(&'a Path);

impl<'a> PartialFile<'a> {
    /// Registers the file or folder at `path` for removal.
    pub fn at(path: &'a Path) -> Self {
        lock(&PARTS).push(path.to_owned());
        Self(path)
    }
}

impl Drop for PartialFile<'_> {
    fn drop(&mut self) {
        lock(&PARTS).retain(|path| path != self.0);
    }
}
