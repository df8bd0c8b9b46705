//! What this process reads from object stores, and how long it waits for them.

use std::cell::Cell;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What this process has read from object stores so far.
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

/// Returns what this process has read from object stores so far.
pub fn traffic() -> Traffic {
    counters().total
}

static COUNTERS: Mutex<Counters> = Mutex::new(Counters {
    total: Traffic {
        bytes: 0,
        waited: Duration::ZERO,
    },
    unanswered: 0,
    since: None,
});

struct Counters {
    total: Traffic,
    unanswered: u32,
    /// Time since which there are unanswered requests.
    since: Option<Instant>,
}

fn counters() -> MutexGuard<'static, Counters> {
    COUNTERS.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn count_received(bytes: usize) {
    counters().total.bytes += bytes as u64;
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
            let mut counters = counters();
            counters.unanswered += 1;
            counters.since.get_or_insert_with(Instant::now);
        }
        Self { is_background }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if self.is_background {
            return;
        }
        let mut counters = counters();
        counters.unanswered -= 1;
        if counters.unanswered == 0
            && let Some(since) = counters.since.take()
        {
            counters.total.waited += since.elapsed();
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
