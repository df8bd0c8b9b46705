//! Handles SIGINT and SIGTERM: a command ends within a second, with exit code 130 and one line about the state it
//! leaves.
//!
//! Most work of the commands may be abandoned at any moment, because files get their final names only when they are
//! complete: in that case the process ends at once. Other commands have a function that is called on each signal.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use wavemill_schemas::exit::INTERRUPTED;

use crate::{exit, output};

/// Maximum number of attempts to remove a folder: another thread may still write into it.
const REMOVALS_MAX: usize = 20;

/// Time between two checks whether a child has ended.
const LOOK: Duration = Duration::from_millis(10);

/// The effect of a signal.
#[derive(Clone, Default)]
enum SignalAction {
    /// No effect here: the command has handlers of its own.
    #[default]
    Others,
    /// Ends the process with this message.
    AtOnce(&'static str),
    /// Calls this function.
    Call(Arc<dyn Fn() + Send + Sync>),
}

static ACTION: Mutex<SignalAction> = Mutex::new(SignalAction::Others);
static CHILDREN: Mutex<Vec<Arc<Mutex<Child>>>> = Mutex::new(Vec::new());
static PARTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Locks a mutex whose value is valid even if a thread has panicked.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes signals end the process with the message `words` from now on; see [`end`]. The first call starts the thread
/// that receives signals.
///
/// # Errors
/// The handlers or their thread cannot be created.
pub fn at_once(words: &'static str) -> Result<()> {
    static IS_STARTED: AtomicBool = AtomicBool::new(false);
    // The action is set before the handlers, so that every signal finds one.
    set(SignalAction::AtOnce(words));
    if IS_STARTED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }

    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot handle signals")?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || signals.forever().for_each(|_| answer()))
        .context("cannot handle signals")?;
    Ok(())
}

/// Leaves signals to handlers outside of this module from now on.
pub fn leave_to_others() {
    set(SignalAction::Others);
}

/// Makes each signal call `action` from now on, on the thread that receives signals.
pub fn call(action: impl Fn() + Send + Sync + 'static) {
    set(SignalAction::Call(Arc::new(action)));
}

fn set(action: SignalAction) -> SignalAction {
    std::mem::replace(&mut *lock(&ACTION), action)
}

/// A guard: each signal calls a function until it is dropped; then the previous action is restored.
pub struct SignalGuard {
    before: SignalAction,
}

impl SignalGuard {
    /// Makes each signal call `action`.
    pub fn new(action: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            before: set(SignalAction::Call(Arc::new(action))),
        }
    }
}

impl Drop for SignalGuard {
    fn drop(&mut self) {
        set(std::mem::take(&mut self.before));
    }
}

fn answer() {
    // The action is copied to release the lock: a job that ends meanwhile takes the lock to restore the previous
    // action.
    let action = lock(&ACTION).clone();
    match action {
        SignalAction::Others => {}
        SignalAction::AtOnce(words) => end(words),
        SignalAction::Call(action) => action(),
    }
}

/// Prints the last line, unless one was printed or `words` is empty, and ends the process without waiting for its
/// threads. Kills the children and removes the partial files first.
pub fn end(words: &str) -> ! {
    // Children have process groups of their own and do not receive the signal, so that only one line is printed.
    for child in &*lock(&CHILDREN) {
        // An error means that the child has already ended.
        let _ = lock(child).kill();
    }
    for part in &*lock(&PARTS) {
        remove(part);
    }

    output::clear_bar();
    if !words.is_empty() {
        exit::last_line(words);
    }
    exit_now(INTERRUPTED)
}

/// Ends the process at once with exit code `code`: `_exit` of C. No destructor and no exit handler runs, since a thread
/// may be stuck with a resource that they need, or may be computing with it.
pub fn exit_now(code: u8) -> ! {
    signal_hook::low_level::exit(code.into())
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

/// A child that is killed when this process is interrupted. It must have a process group of its own.
#[derive(Debug)]
pub struct ChildGuard(Arc<Mutex<Child>>);

impl ChildGuard {
    /// Registers a child that was just started.
    pub fn new(child: Child) -> Self {
        let child = Arc::new(Mutex::new(child));
        lock(&CHILDREN).push(Arc::clone(&child));
        Self(child)
    }

    /// Waits until the child has ended.
    ///
    /// # Errors
    /// The error of the operating system.
    pub fn wait(&self) -> io::Result<ExitStatus> {
        loop {
            // The lock is not held while waiting, because an interruption needs it.
            if let Some(status) = lock(&self.0).try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// A guard: while it exists, signals go to a child, which reports the first one in its own words, and this process
/// waits for the child. A second signal ends all processes at once. Then the previous action is restored.
pub struct ForwardedSignals {
    is_passed: Arc<AtomicBool>,
    _guard: SignalGuard,
}

impl ForwardedSignals {
    /// Passes signals to `child`; `second` is the message after a second signal.
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

    /// Reports whether a signal arrived.
    pub fn was_interrupted(&self) -> bool {
        self.is_passed.load(Ordering::Relaxed)
    }
}

/// A guard: the file or folder is removed if the process is interrupted before the guard is dropped.
#[derive(Debug)]
pub struct PartialFile<'a>(&'a Path);

impl<'a> PartialFile<'a> {
    /// Registers the file or folder at `path`.
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
