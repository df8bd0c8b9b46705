//! SIGINT and SIGTERM: exit code 130 and one line, within a second, or a word of what is waited for.
//!
//! A run of training ends after the step in progress, with a checkpoint. All else may be left at any moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::ffi;
use crate::run::{Doing, Watch};

/// The documented exit code.
const EXIT_CODE: i32 = 130;

/// Before it is said what is waited for: most steps are over by then.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a signal does.
#[derive(Clone, Debug)]
enum Answer {
    /// Nothing here: the launcher of ranks has handlers of its own.
    Others,
    /// Ends the process, with these words.
    AtOnce(&'static str),
    /// Asks a run to stop.
    Run { stop: Arc<AtomicBool>, doing: Arc<Doing> },
}

static ANSWER: Mutex<Answer> = Mutex::new(Answer::Others);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on a signal ends the process with `words`. Starts the thread that takes signals: to be called once.
///
/// # Errors
/// No handler, or no thread for it.
pub fn at_once(words: &'static str) -> Result<()> {
    *lock(&ANSWER) = Answer::AtOnce(words);
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let listen = move || signals.forever().for_each(|_| answer());
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen)?;
    Ok(())
}

/// The thread that takes signals is there: threads that come after this call get none. Ranks started as children would
/// get none either, so their launcher does not call it.
pub fn keep_away() {
    ffi::keep_signals_away();
}

/// From now on signals are another's.
pub fn leave_to_others() {
    *lock(&ANSWER) = Answer::Others;
}

/// A watch of a run that signals stop: one flag for the process, since a sweep's trials follow each other.
pub fn watch() -> Watch {
    static STOP: Mutex<Option<Arc<AtomicBool>>> = Mutex::new(None);
    let stop = Arc::clone(lock(&STOP).get_or_insert_default());
    let watch = Watch { stop, ..Watch::default() };
    *lock(&ANSWER) = Answer::Run { stop: Arc::clone(&watch.stop), doing: Arc::clone(&watch.doing) };
    watch
}

fn answer() {
    let answer = lock(&ANSWER).clone();
    match answer {
        Answer::Others => {}
        Answer::AtOnce(words) => end(words),
        Answer::Run { stop, doing } => {
            if stop.swap(true, Ordering::Relaxed) {
                end("stopped at once by a second signal: the last checkpoint counts");
            }
            if speaks() {
                say_later(doing);
            }
        }
    }
}

/// Where the run has not ended by then.
fn say_later(doing: Arc<Doing>) {
    let say = move || {
        std::thread::sleep(PATIENCE);
        eprintln!("stopping after {}; once more to stop at once", doing.words());
    };
    // Without a thread nothing is said.
    let _ = std::thread::Builder::new().spawn(say);
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
