//! SIGINT and SIGTERM: exit code 130 and one line, within a second, or a word of what is waited for.
//!
//! A run of training ends after the step in progress, with a checkpoint. All else may be left at any moment.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::ffi;
use crate::run::{Phase, RunMonitor};

/// The documented exit code.
const EXIT_CODE: i32 = 130;

/// Before it is said what is waited for: most steps are over by then.
const PATIENCE: Duration = Duration::from_millis(500);

/// Set by a program that starts this one and keeps its standard input open: the end of that input is the other
/// program's, also when it is killed.
const END_WITH_STDIN: &str = "WAVEMILL_END_WITH_STDIN";

/// What a signal does.
#[derive(Clone, Debug)]
enum SignalAction {
    /// Nothing here: the launcher of ranks has handlers of its own.
    Nothing,
    /// Ends the process, with these words.
    EndProcess(&'static str),
    /// Asks a run to stop.
    StopRun {
        stop: Arc<AtomicBool>,
        phase: Arc<Phase>,
    },
}

static ACTION: Mutex<SignalAction> = Mutex::new(SignalAction::Nothing);

/// True once the run has ended by itself. Held while something is said, so that it is not said after the last line.
static IS_OVER: Mutex<bool> = Mutex::new(false);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on a signal ends the process with `words`. Starts the thread that takes signals: to be called once.
///
/// # Errors
/// No handler, or no thread for it.
pub(crate) fn at_once(words: &'static str) -> Result<()> {
    *lock(&ACTION) = SignalAction::EndProcess(words);
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || signals.forever().for_each(|_| act()))?;
    Ok(())
}

/// The thread that takes signals is there: threads that come after this call get none. Ranks started as children would
/// get none either, so their launcher does not call it.
pub(crate) fn keep_away() {
    ffi::keep_signals_away();
}

/// From now on signals are another's.
pub(crate) fn leave_to_others() {
    *lock(&ACTION) = SignalAction::Nothing;
}

/// A monitor of a run that signals stop: one flag for the process, since a sweep's trials follow each other.
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

/// Ends this process with the one that started it, where that asks for it: else a run would go on that nobody waits for,
/// and keep its folder from whoever starts it anew. The last checkpoint counts.
///
/// # Errors
/// No thread for it.
pub(crate) fn end_with_starter() -> Result<()> {
    if std::env::var_os(END_WITH_STDIN).is_none() {
        return Ok(());
    }
    std::thread::Builder::new()
        .name("starter".to_owned())
        .spawn(|| {
            // Nothing is ever sent. An error ends it too: whatever it is, nobody is known to be there.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            ffi::exit_now(EXIT_CODE)
        })?;
    Ok(())
}

/// The run has ended by itself: from now on nobody is told what is waited for.
pub(crate) fn over() {
    *lock(&IS_OVER) = true;
}

fn act() {
    // A copy, so that the lock is free while this waits.
    let action = lock(&ACTION).clone();
    match action {
        SignalAction::Nothing => {}
        SignalAction::EndProcess(words) => end(words),
        SignalAction::StopRun { stop, phase } => {
            if stop.swap(true, Ordering::Relaxed) {
                end("stopped at once by a second signal: the last checkpoint counts");
            }
            if speaks() {
                say_later(phase);
            }
        }
    }
}

/// Where the run has not ended by then.
fn say_later(phase: Arc<Phase>) {
    // Without a thread nothing is said.
    let _ = std::thread::Builder::new().spawn(move || {
        std::thread::sleep(PATIENCE);
        let is_over = lock(&IS_OVER);
        if !*is_over {
            eprintln!(
                "stopping after {}; once more to stop at once",
                phase.words()
            );
        }
    });
}

/// Of ranks, the first one speaks.
fn speaks() -> bool {
    std::env::var("RANK").map_or(true, |rank| rank == "0")
}

fn end(words: &str) -> ! {
    if speaks() {
        eprintln!("wavemill-train: {words}");
    }
    ffi::exit_now(EXIT_CODE)
}
