//! Counts the bytes that this process reads from object stores, and the time for which it waits.
//!
//! There are no locks: a process that is forked while another thread holds one could never take it.

use std::cell::Cell;
use std::fmt;
use std::process;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Amount of data that this process has read from object stores so far, and the time for which it has waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Number of received bytes.
    pub bytes: u64,
    /// Wall time in which at least one request was not answered yet, apart from those in the background.
    pub waited: Duration,
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, waited) = (self.bytes as f64, self.waited.as_secs_f64());
        write!(
            f,
            "object store: {:.1} MB read, {waited:.1} s waited",
            bytes / 1e6
        )
    }
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
static BYTES: AtomicU64 = AtomicU64::new(0);
static WAITED_NS: AtomicU64 = AtomicU64::new(0);
/// Number of unanswered requests of the process `OWNER`.
static UNANSWERED: AtomicU32 = AtomicU32::new(0);
static OWNER: AtomicU32 = AtomicU32::new(0);
/// Time since which there are unanswered requests.
static SINCE_NS: AtomicU64 = AtomicU64::new(0);

/// Returns the counters of this process.
pub fn traffic() -> Traffic {
    Traffic {
        bytes: BYTES.load(Relaxed),
        waited: Duration::from_nanos(WAITED_NS.load(Relaxed)),
    }
}

pub(crate) fn count_received(bytes: usize) {
    BYTES.fetch_add(bytes as u64, Relaxed);
}

fn now_ns() -> u64 {
    START.elapsed().as_nanos() as u64
}

thread_local! {
    static IS_BACKGROUND: Cell<bool> = const { Cell::new(false) };
}

/// Marks the requests of this thread as those for which nothing waits.
pub fn continue_in_background() {
    IS_BACKGROUND.set(true);
}

/// A request that is not answered yet.
pub(crate) struct Unanswered {
    is_background: bool,
}

impl Unanswered {
    pub(crate) fn begin() -> Self {
        let is_background = IS_BACKGROUND.get();
        if !is_background {
            // The requests of a parent process are not those of this one.
            let process = process::id();
            if OWNER.swap(process, Relaxed) != process {
                UNANSWERED.store(0, Relaxed);
            }
            if UNANSWERED.fetch_add(1, Relaxed) == 0 {
                SINCE_NS.store(now_ns(), Relaxed);
            }
        }
        Self { is_background }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if !self.is_background && UNANSWERED.fetch_sub(1, Relaxed) == 1 {
            // A request that begins at this moment may set another time: the sum is then less by less than one request.
            let waited = now_ns().saturating_sub(SINCE_NS.load(Relaxed));
            WAITED_NS.fetch_add(waited, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_at_the_same_time_are_waited_for_once() {
        let start = Instant::now();
        let pause = Duration::from_millis(30);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let _request = Unanswered::begin();
                    std::thread::sleep(pause);
                });
            }
            scope.spawn(|| {
                continue_in_background();
                let _request = Unanswered::begin();
                std::thread::sleep(10 * pause);
            });
        });
        let waited = traffic().waited;
        assert!(
            waited >= pause && waited < start.elapsed() - 5 * pause,
            "{waited:?}"
        );
    }
}
