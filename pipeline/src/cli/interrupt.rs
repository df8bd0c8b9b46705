//! SIGINT and SIGTERM: a command ends within a second, with exit code 130 and one line that says what is left.
//!
//! Most of what commands do may be left at any moment, since nothing is in its place before it is whole: then the
//! process ends at once. A job is asked to stop first, and has half a second to clean up after itself; only while it
//! extracts, or commits, it is waited for. `sql` has handlers of its own.

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

use super::{exit, output};
use crate::course::Course;

/// The documented exit code.
const EXIT_CODE: i32 = 130;

/// How long a job may take to end by itself in a phase that may be left at any moment.
const GRACE: Duration = Duration::from_millis(500);

/// How often the removal of a folder is tried: another thread may still write into it.
const REMOVALS_MAX: usize = 20;

/// Between two looks at a child.
const LOOK: Duration = Duration::from_millis(10);

/// What a signal does.
#[derive(Clone, Debug, Default)]
enum SignalAction {
    /// Nothing here: the command has handlers of its own.
    #[default]
    Others,
    /// Ends the process, with these words.
    AtOnce(&'static str),
    /// Asks a job to stop.
    Job(Arc<Course>),
    /// Asks a child to stop, which ends in order by itself.
    Child(Arc<PassedSignal>),
}

/// A child that signals are for.
#[derive(Debug)]
struct PassedSignal {
    child: Arc<Mutex<Child>>,
    /// Whether one has come.
    is_passed: AtomicBool,
}

static ACTION: Mutex<SignalAction> = Mutex::new(SignalAction::Others);
static CHILDREN: Mutex<Vec<Arc<Mutex<Child>>>> = Mutex::new(Vec::new());
static PARTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on a signal ends the process with `words`. The first call starts the thread that takes signals.
///
/// # Errors
/// No handler, or no thread for it.
pub fn at_once(words: &'static str) -> Result<()> {
    static IS_STARTED: AtomicBool = AtomicBool::new(false);
    // Before the handlers are set: a signal never finds nothing to do.
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

/// From now on signals are another's.
pub fn leave_to_others() {
    *lock(&ACTION) = SignalAction::Others;
}

/// A job that signals stop, until this is dropped; then they mean what they did before.
#[derive(Debug)]
pub struct StoppedBySignals {
    before: SignalAction,
}

impl StoppedBySignals {
    /// Of the job with this course.
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
    // A copy, so that the lock is free: a job that ends meanwhile takes it to put back what was before.
    let answer = lock(&ACTION).clone();
    match answer {
        SignalAction::Others => {}
        SignalAction::AtOnce(words) => end(words),
        SignalAction::Job(course) => stop(course),
        SignalAction::Child(passed) => pass(&passed),
    }
}

/// The first signal goes to the child, which has its own words for it; a second one ends all at once.
fn pass(passed: &PassedSignal) {
    if passed.is_passed.swap(true, Ordering::Relaxed) {
        end("stopped at once by a second signal; the same command goes on from what is complete");
    }
    let mut child = lock(&passed.child);
    // One that has ended needs no signal, and its number may be another process's by now.
    if let Ok(None) = child.try_wait() {
        let _ = kill_process(Pid::from_child(&child), Signal::TERM);
    }
}

fn stop(course: Arc<Course>) {
    if course.stop.swap(true, Ordering::Relaxed) {
        end("stopped at once by a second signal; the same command goes on from what is complete");
    }
    if course.phase().ends_in_order() {
        eprintln!("stopping after the clips in flight; once more to stop at once");
        return;
    }

    // A thread of its own: a second signal still ends the process at once.
    let last_resort = std::thread::Builder::new().spawn(move || end_late(&course));
    if last_resort.is_err() {
        end("interrupted");
    }
}

/// Ends the process if the job has not ended by itself in time, and is in no phase that it has to complete.
fn end_late(course: &Course) {
    std::thread::sleep(GRACE);
    // Looked at again: meanwhile the job may have begun to extract, and then it is waited for.
    let phase = course.phase();
    if !phase.ends_in_order() {
        end(&format!(
            "interrupted while {phase}; {}",
            phase.left_behind()
        ));
    }
}

/// Says the line, unless it is said, and ends the process without waiting for any of its threads.
fn end(words: &str) -> ! {
    // Children have a process group of their own, so that this one line is the only one.
    for child in &*lock(&CHILDREN) {
        // One that has ended needs no signal.
        let _ = lock(child).kill();
    }
    for part in &*lock(&PARTS) {
        remove(part);
    }

    output::clear_bar();
    exit::last_line(words);
    // `_exit` of C: no destructor and no exit handler runs, since a thread may be stuck with whatever they need.
    signal_hook::low_level::exit(EXIT_CODE)
}

/// Removes a file, or a folder with all that is in it.
fn remove(part: &Path) {
    for _ in 0..REMOVALS_MAX {
        let removed = std::fs::remove_file(part).or_else(|_| std::fs::remove_dir_all(part));
        if removed.is_ok() || !part.exists() {
            return;
        }
    }
}

/// A child that ends with this process when that is interrupted. It must be alone in its process group.
#[derive(Debug)]
pub struct ChildGuard(Arc<Mutex<Child>>);

impl ChildGuard {
    /// Keeps a child that was just started.
    pub fn new(child: Child) -> Self {
        let child = Arc::new(Mutex::new(child));
        lock(&CHILDREN).push(Arc::clone(&child));
        Self(child)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&self) -> io::Result<ExitStatus> {
        loop {
            // Not held while waiting: an interruption would wait for it.
            if let Some(status) = lock(&self.0).try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// While this is there, a signal is a child's, and this process waits for the child; then it means what it did before.
#[derive(Debug)]
pub struct PassedOn {
    passed: Arc<PassedSignal>,
    before: SignalAction,
}

impl PassedOn {
    /// To `child`.
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

    /// Whether a signal came.
    pub fn was_interrupted(&self) -> bool {
        self.passed.is_passed.load(Ordering::Relaxed)
    }
}

impl Drop for PassedOn {
    fn drop(&mut self) {
        *lock(&ACTION) = std::mem::take(&mut self.before);
    }
}

/// A file or folder that is removed when the process is interrupted, until this is dropped.
#[derive(Debug)]
pub struct PartialFile<'a>(&'a Path);

impl<'a> PartialFile<'a> {
    /// Of the file or folder at `path`.
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
