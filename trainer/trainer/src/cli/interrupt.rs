//! Stops a training run on a signal, with a checkpoint after the step in progress. A message states why the stop takes
//! time.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Result;
use wavemill_schemas::exit::Kind;
use wavemill_terminal::interrupt::{self, end, exit_now, lock};
use wavemill_terminal::output;

use super::jobs::PARENT;
use crate::run::{Phase, RunMonitor};

/// Time between a signal and the message about the unfinished step. Most steps take less.
const PATIENCE: Duration = Duration::from_millis(500);

/// Time in which two signals to a process with a starter are one: a service manager, for example, sends its signal to all
/// processes, and the starter passes its own on.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// Environment variable, set by a program that starts this process and keeps its stdin open: when stdin ends, that
/// program has ended, and this process ends as well.
pub(crate) const END_WITH_STDIN: &str = "WAVEMILL_END_WITH_STDIN";

/// True once the run has ended. The lock is held while printing, so that no message about waiting follows the last one.
static IS_OVER: Mutex<bool> = Mutex::new(false);

/// Makes every later signal end the process immediately. Only rank 0 prints the message `message`.
///
/// # Errors
/// The signal handler cannot be installed, or the handler's thread cannot be started.
pub(crate) fn at_once(message: &'static str) -> Result<()> {
    interrupt::at_once(if speaks() { message } else { "" })
}

/// Returns a run's monitor, which signals can stop. All share one stop flag, since trials of a sweep run in sequence.
pub(crate) fn monitor() -> Result<RunMonitor> {
    static STOP: Mutex<Option<Arc<AtomicBool>>> = Mutex::new(None);
    let stop = Arc::clone(lock(&STOP).get_or_insert_default());
    let monitor = RunMonitor {
        stop: Arc::clone(&stop),
        on_warning: Some(output::warn),
        ..RunMonitor::default()
    };
    let phase = Arc::clone(&monitor.phase);
    interrupt::call(move |_| stop_run(&stop, &phase))?;
    Ok(monitor)
}

/// If requested by the program that started this process, ends this process when that program ends. An abandoned run
/// would otherwise continue and block its folder for a restart, which can resume from the last checkpoint.
///
/// # Errors
/// The thread that waits for the end of stdin cannot be started.
pub(crate) fn end_with_starter() -> Result<()> {
    if std::env::var_os(END_WITH_STDIN).is_none() {
        return Ok(());
    }
    std::thread::Builder::new()
        .name("starter".to_owned())
        .spawn(|| {
            // The parent process sends no input, so the end of stdin means that the parent has ended. A read error may
            // mean the same, and ends this process too.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            exit_now(Kind::Interrupted.exit_code())
        })?;
    Ok(())
}

/// Records that the run has ended, so that no more messages about waiting are printed.
pub(crate) fn over() {
    *lock(&IS_OVER) = true;
}

/// Asks the run to stop after its step; on a second signal, ends the process.
fn stop_run(stop: &AtomicBool, phase: &Arc<Phase>) {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let first = FIRST.get_or_init(Instant::now);
    if stop.swap(true, Ordering::Relaxed) {
        if has_starter() && first.elapsed() < SAME_SIGNAL {
            return;
        }
        end(if speaks() {
            "stopped at once by a second signal; the last checkpoint is intact"
        } else {
            ""
        });
    }
    if speaks() {
        say_later(Arc::clone(phase));
    }
}

/// Prints what the process is waiting for, unless the run ends within [`PATIENCE`].
fn say_later(phase: Arc<Phase>) {
    // If the thread for the message cannot be started, no message is printed.
    let _ = std::thread::Builder::new().spawn(move || {
        std::thread::sleep(PATIENCE);
        let is_over = lock(&IS_OVER);
        if !*is_over {
            wavemill_terminal::say!(
                "stopping after {}; a second signal stops at once",
                phase.describe()
            );
        }
    });
}

/// True if a program started this process as one of several, and passes its signals on.
fn has_starter() -> bool {
    let variables = ["RANK", END_WITH_STDIN, PARENT];
    variables
        .iter()
        .any(|name| std::env::var_os(name).is_some())
}

/// Reports whether this process prints messages: only rank 0 does.
fn speaks() -> bool {
    std::env::var("RANK").map_or(true, |rank| rank == "0")
}
