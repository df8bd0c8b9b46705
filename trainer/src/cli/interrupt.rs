//! Handles SIGINT and SIGTERM: the process exits with code 130 within a second, or reports the reason for the delay.
//!
//! Training ends after the step in progress, with a checkpoint. All other work can be interrupted at any time.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use wavemill_schemas::exit::INTERRUPTED;

use crate::ffi;
use crate::run::{Phase, RunMonitor};

/// The documented exit code.
const EXIT_CODE: i32 = INTERRUPTED as i32;

/// Time before a message reports what the process is waiting for. Most steps take less.
const PATIENCE: Duration = Duration::from_millis(500);

/// Set by a program that starts this process and keeps its stdin open. End of input then means that the other program
/// has ended or was killed.
const END_WITH_STDIN: &str = "WAVEMILL_END_WITH_STDIN";

/// The reaction to a signal.
#[derive(Clone, Debug)]
enum SignalAction {
    /// No reaction, because the launcher of ranks has its own handlers.
    Nothing,
    /// End the process with this message.
    EndProcess(&'static str),
    /// Ask the run to stop.
    StopRun {
        stop: Arc<AtomicBool>,
        phase: Arc<Phase>,
    },
}

static ACTION: Mutex<SignalAction> = Mutex::new(SignalAction::Nothing);

/// True once the run has ended. The lock is held while printing, so that no message follows the last line.
static IS_OVER: Mutex<bool> = Mutex::new(false);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes signals end the process with the message `words`. Call this once: it starts the thread that receives signals.
///
/// # Errors
/// The handler cannot be installed, or its thread cannot be started.
pub(crate) fn at_once(words: &'static str) -> Result<()> {
    *lock(&ACTION) = SignalAction::EndProcess(words);
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || signals.forever().for_each(|_| act()))?;
    Ok(())
}

/// Blocks signals in all threads that are started after this call; the existing thread receives them. Child processes
/// would inherit the block, so the launcher of ranks does not call this.
pub(crate) fn keep_away() {
    ffi::keep_signals_away();
}

/// Makes this module ignore signals from now on, because other handlers are responsible.
pub(crate) fn leave_to_others() {
    *lock(&ACTION) = SignalAction::Nothing;
}

/// Returns a monitor for a run that signals stop. All monitors share one flag, since trials of a sweep are sequential.
pub(crate) fn monitor() -> RunMonitor {
    static STOP: Mutex<Option<Arc<AtomicBool>>> = Mutex::new(None);
    let stop = Arc::clone(lock(&STOP).get_or_insert_default());
    let monitor = RunMonitor {
        stop,
        ..RunMonitor::default()
    };
    *lock(&ACTION) = SignalAction::StopRun {
        stop: Arc::clone(&monitor.stop),
        phase: Arc::clone(&monitor.phase),
    };
    monitor
}

/// Ends this process when the program that started it ends, if that program has requested so. Otherwise an abandoned
/// run would continue and block its folder for a restart, which can resume from the last checkpoint.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn end_with_starter() -> Result<()> {
    if std::env::var_os(END_WITH_STDIN).is_none() {
        return Ok(());
    }
    std::thread::Builder::new()
        .name("starter".to_owned())
        .spawn(|| {
            // The parent process never sends input, so the end of input means that it has ended. A read error may mean the
            // same, and ends this process too.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            ffi::exit_now(EXIT_CODE)
        })?;
    Ok(())
}

/// Records that the run has ended, so that no more messages about waiting are printed.
pub(crate) fn over() {
    *lock(&IS_OVER) = true;
}

fn act() {
    // Clone the action, to release the lock before waiting.
    let action = lock(&ACTION).clone();
    match action {
        SignalAction::Nothing => {}
        SignalAction::EndProcess(words) => end(words),
        SignalAction::StopRun { stop, phase } => {
            if stop.swap(true, Ordering::Relaxed) {
                end("stopped at once by a second signal; the last checkpoint is intact");
            }
            if speaks() {
                say_later(phase);
            }
        }
    }
}

/// Prints what the process is waiting for, unless the run ends first.
fn say_later(phase: Arc<Phase>) {
    // If the thread cannot be started, no message is printed.
    let _ = std::thread::Builder::new().spawn(move || {
        std::thread::sleep(PATIENCE);
        let is_over = lock(&IS_OVER);
        if !*is_over {
            eprintln!(
                "stopping after {}; a second signal stops at once",
                phase.describe()
            );
        }
    });
}

/// Reports whether this process prints messages: only rank 0 does.
fn speaks() -> bool {
    std::env::var("RANK").map_or(true, |rank| rank == "0")
}

fn end(words: &str) -> ! {
    if speaks() {
        eprintln!("wavemill-train: {words}");
    }
    ffi::exit_now(EXIT_CODE)
}
