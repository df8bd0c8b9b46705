//! Handles SIGINT and SIGTERM: a command ends within a second, with exit code 130 and one line about the state it
//! leaves.
//!
//! Most work of the commands may be abandoned at any moment, because files get their final names only when they are
//! complete: in that case the process ends at once. A job is asked to stop first and has half a second to clean up;
//! only while it extracts or commits does the process wait for it. `sql` has handlers of its own.

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
use wavemill_runtime::course::Course;

use super::{exit, output};

/// The documented exit code after a signal.
const EXIT_CODE: i32 = 130;

/// Time for a job to end in order, in a phase that may be abandoned at any moment.
const GRACE: Duration = Duration::from_millis(500);

/// Maximum number of attempts to remove a folder: another thread may still write into it.
const REMOVALS_MAX: usize = 20;

/// Time between two checks whether a child has ended.
const LOOK: Duration = Duration::from_millis(10);

/// The effect of a signal.
#[derive(Clone, Debug, Default)]
enum SignalAction {
    /// No effect here: the command has handlers of its own.
    #[default]
    Others,
    /// Ends the process with this message.
    AtOnce(&'static str),
    /// Asks a job to stop.
    Job(Arc<Course>),
    /// Passes the signal to a child, which ends in order.
    Child(Arc<PassedSignal>),
}

/// A child to which signals are passed.
#[derive(Debug)]
struct PassedSignal {
    child: Arc<Mutex<Child>>,
    /// True if a signal was passed.
    is_passed: AtomicBool,
}

static ACTION: Mutex<SignalAction> = Mutex::new(SignalAction::Others);
static CHILDREN: Mutex<Vec<Arc<Mutex<Child>>>> = Mutex::new(Vec::new());
static PARTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes signals end the process with the message `words` from now on. The first call starts the thread that receives
/// signals.
///
/// # Errors
/// The handlers or their thread cannot be created.
pub fn at_once(words: &'static str) -> Result<()> {
    static IS_STARTED: AtomicBool = AtomicBool::new(false);
    // The action is set before the handlers, so that every signal finds one.
    *lock(&ACTION) = SignalAction::AtOnce(words);
    if IS_STARTED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }

    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot handle signals")?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                answer();
            }
        })
        .context("cannot handle signals")?;
    Ok(())
}

/// Leaves signals to handlers outside of this module from now on.
pub fn leave_to_others() {
    *lock(&ACTION) = SignalAction::Others;
}

/// A guard: signals stop a job until it is dropped; then the previous action is restored.
#[derive(Debug)]
pub struct StoppedBySignals {
    before: SignalAction,
}

impl StoppedBySignals {
    /// Makes signals stop the job with this course.
    pub fn job(course: &Arc<Course>) -> Self {
        let job = SignalAction::Job(Arc::clone(course));
        Self {
            before: std::mem::replace(&mut *lock(&ACTION), job),
        }
    }
}

impl Drop for StoppedBySignals {
    fn drop(&mut self) {
        *lock(&ACTION) = std::mem::take(&mut self.before);
    }
}

fn answer() {
    // The action is copied to release the lock: a job that ends meanwhile takes the lock to restore the previous
    // action.
    let answer = lock(&ACTION).clone();
    match answer {
        SignalAction::Others => {}
        SignalAction::AtOnce(words) => end(words),
        SignalAction::Job(course) => stop(course),
        SignalAction::Child(passed) => pass(&passed),
    }
}

/// Passes the first signal to the child, which reports it in its own words. A second signal ends all processes at once.
fn pass(passed: &PassedSignal) {
    if passed.is_passed.swap(true, Ordering::Relaxed) {
        end("stopped at once by a second signal; run the same command again to continue");
    }
    let mut child = lock(&passed.child);
    // A child that has ended needs no signal, and its process id may belong to another process by now.
    if let Ok(None) = child.try_wait() {
        let _ = kill_process(Pid::from_child(&child), Signal::TERM);
    }
}

fn stop(course: Arc<Course>) {
    if course.stop.swap(true, Ordering::Relaxed) {
        end("stopped at once by a second signal; run the same command again to continue");
    }
    if course.phase().ends_in_order() {
        eprintln!("stopping after the clips in flight; a second signal stops at once");
        return;
    }

    // A separate thread is used, so that a second signal still ends the process at once.
    let last_resort = std::thread::Builder::new().spawn(move || end_late(&course));
    if last_resort.is_err() {
        end("interrupted");
    }
}

/// Ends the process if the job has not ended in time, unless it is in a phase that it has to complete.
fn end_late(course: &Course) {
    std::thread::sleep(GRACE);
    // The phase is read again: the job may have begun to extract meanwhile, and then the process waits for it.
    let phase = course.phase();
    if !phase.ends_in_order() {
        end(&format!(
            "interrupted while {phase}; {}",
            phase.left_behind()
        ));
    }
}

/// Prints the last line unless one was printed, and ends the process without waiting for its threads.
fn end(words: &str) -> ! {
    // Children have process groups of their own and do not receive the signal, so that only one line is printed.
    for child in &*lock(&CHILDREN) {
        // An error means that the child has already ended.
        let _ = lock(child).kill();
    }
    for part in &*lock(&PARTS) {
        remove(part);
    }

    output::clear_bar();
    exit::last_line(words);
    // This is `_exit` of C: no destructor and no exit handler runs, since a thread may be stuck with a resource that
    // they need.
    signal_hook::low_level::exit(EXIT_CODE)
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

/// A guard: while it exists, signals go to a child, and this process waits for the child. Then the previous action is
/// restored.
#[derive(Debug)]
pub struct ForwardedSignals {
    passed: Arc<PassedSignal>,
    before: SignalAction,
}

impl ForwardedSignals {
    /// Passes signals to `child`.
    pub fn to(child: &ChildGuard) -> Self {
        let passed = Arc::new(PassedSignal {
            child: Arc::clone(&child.0),
            is_passed: AtomicBool::new(false),
        });
        let action = SignalAction::Child(Arc::clone(&passed));
        Self {
            before: std::mem::replace(&mut *lock(&ACTION), action),
            passed,
        }
    }

    /// Reports whether a signal arrived.
    pub fn was_interrupted(&self) -> bool {
        self.passed.is_passed.load(Ordering::Relaxed)
    }
}

impl Drop for ForwardedSignals {
    fn drop(&mut self) {
        *lock(&ACTION) = std::mem::take(&mut self.before);
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
