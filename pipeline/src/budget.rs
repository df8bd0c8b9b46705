//! What may be in flight, in bytes: a clip takes its permit in plan order before it is read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// A counting semaphore in bytes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    held: Mutex<Held>,
    freed: Condvar,
    total: u64,
}

#[derive(Debug, Default)]
struct Held {
    bytes: u64,
    // Permits whose clip is on its way to the writing thread.
    working: usize,
}

/// Bytes held; given back on drop.
#[derive(Debug)]
pub struct Permit {
    bytes: u64,
    working: AtomicBool,
    state: Arc<State>,
}

impl ByteBudget {
    /// A budget of `bytes`.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self { state: Arc::new(State { held: Mutex::default(), freed: Condvar::new(), total: bytes }) }
    }

    /// Waits until `bytes` are free and takes them.
    ///
    /// When no other clip is on its way it never waits: what is held then are rows that wait for this very clip to fill
    /// their row group, and clips without a fixed length can be longer than was foreseen.
    #[must_use]
    pub fn take(&self, bytes: u64) -> Permit {
        let State { held, freed, total } = &*self.state;
        let held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |held: &mut Held| held.bytes + bytes > *total && held.working > 0;
        let mut held = freed.wait_while(held, full).unwrap_or_else(PoisonError::into_inner);
        held.bytes += bytes;
        held.working += 1;
        Permit { bytes, working: AtomicBool::new(true), state: Arc::clone(&self.state) }
    }
}

impl Permit {
    /// Holds `bytes` from here on.
    pub fn holds(&mut self, bytes: u64) {
        let mut held = self.state.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.bytes = held.bytes + bytes - self.bytes;
        self.bytes = bytes;
        self.state.freed.notify_all();
    }

    /// The writing thread has the clip's rows: they wait for a row group, or for the disk, and for no one else. Not
    /// before: where the disk stands still, that thread takes nothing, and no further clip may pass.
    pub fn taken(&self) {
        if self.working.swap(false, Ordering::Relaxed) {
            self.state.held.lock().unwrap_or_else(PoisonError::into_inner).working -= 1;
            self.state.freed.notify_all();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.taken();
        self.holds(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A clip of `bytes` cannot pass, and can after `then`.
    fn passes_only_after(budget: &ByteBudget, bytes: u64, then: impl FnOnce()) {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                drop(budget.take(bytes));
                sender.send(()).expect("the receiver is alive");
            });
            assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
            then();
            receiver.recv().expect("it passes now");
        });
    }

    #[test]
    fn a_taker_waits_until_enough_is_given_back() {
        let budget = ByteBudget::new(100);
        let mut first = budget.take(80);
        passes_only_after(&budget, 60, || first.holds(40));
    }

    #[test]
    fn rows_that_wait_for_the_next_clip_cannot_stop_it() {
        let budget = ByteBudget::new(100);
        let mut first = budget.take(80);
        first.holds(90);
        first.taken();
        drop(budget.take(50));
    }

    #[test]
    fn rows_that_the_writing_thread_has_not_taken_stop_further_clips() {
        let budget = ByteBudget::new(100);
        let mut first = budget.take(80);
        first.holds(90);
        passes_only_after(&budget, 50, || first.taken());
    }
}
