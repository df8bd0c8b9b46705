//! What may be in flight, in bytes. A clip holds a permit for all that it takes, from before its file is read until its
//! rows are on disk; nothing is let in that does not fit.
//!
//! Clips are let in in plan order. One that is let in never waits for memory again: it becomes rows, and rows go to the
//! thread that writes, which waits for nobody. So memory comes back by itself as long as anything is *busy*: a clip on
//! its way to the writing thread, or a row group on its way to disk. Where nothing is busy, what is held are rows that
//! wait for the next clip to fill their row group, and files that were read ahead. Files give way: they are dropped and
//! read again later. If the next clip does not fit beside the rows then, it never will, and the run ends with its name.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A file is read ahead of its turn only if it takes no more than this part of what is free: the clips before it still
/// need memory for all that they become.
const AHEAD_SHARE: u64 = 4;

/// A counting semaphore in bytes. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ByteBudget {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    ledger: Mutex<Ledger>,
    changed: Condvar,
    total: u64,
}

/// Who holds what.
#[derive(Debug, Default)]
struct Ledger {
    /// Held by all permits.
    bytes: u64,
    /// Clips and row groups that will give memory back by themselves.
    busy: usize,
    /// The number, in plan order, of the clip that is let in next.
    next: usize,
    /// Files that were read and whose clips are not let in yet.
    files: usize,
    /// The next clip needs the memory of the files behind it.
    give_way: bool,
    /// The run has failed: nobody is let in any more.
    closed: bool,
}

/// Why a clip is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It does not fit, and never will: so many bytes would be held with it, of so many by rows that wait for it.
    Full {
        /// With the clip.
        needed: u64,
        /// Without it.
        waiting: u64,
    },
    /// The run has failed elsewhere.
    Closed,
}

/// Bytes held; given back on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    bytes: u64,
    busy: AtomicBool,
    is_file: bool,
    state: Arc<State>,
}

/// Something that will give memory back by itself, until it is dropped.
#[derive(Debug)]
pub(crate) struct BusyGuard {
    state: Arc<State>,
}

impl ByteBudget {
    /// A budget of `bytes`.
    pub(crate) fn new(bytes: u64) -> Self {
        Self {
            state: Arc::new(State {
                ledger: Mutex::default(),
                changed: Condvar::new(),
                total: bytes,
            }),
        }
    }

    /// Waits until `bytes` are free and takes them, in no order: for work that holds nothing else while it waits.
    ///
    /// # Errors
    /// [`Refusal::Full`] where they are more than there is.
    pub(crate) fn take(&self, bytes: u64) -> Result<Permit, Refusal> {
        let total = self.state.total;
        if bytes > total {
            return Err(Refusal::Full {
                needed: bytes,
                waiting: 0,
            });
        }

        let mut ledger = self.state.lock();
        while ledger.bytes + bytes > total {
            ledger = self.state.wait(ledger);
        }
        ledger.bytes += bytes;
        Ok(self.permit(bytes, false))
    }

    /// Lets clip number `seq` in with all that it takes. Clips come here one after the other, in plan order.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn enter(&self, seq: usize, bytes: u64) -> Result<Permit, Refusal> {
        let mut permit = self.enter_file(seq, bytes)?;
        let is_in = permit.admit(seq, bytes)?;
        debug_assert!(is_in, "whoever is next does not give way");
        Ok(permit)
    }

    /// Takes memory for the file of clip number `seq`, which [`Permit::admit`] lets in when it is known what it takes.
    /// Clips come here one after the other, in plan order.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn enter_file(&self, seq: usize, bytes: u64) -> Result<Permit, Refusal> {
        let mut permit = self.permit(0, false);
        permit.take_file(seq, bytes, false)?;
        Ok(permit)
    }

    /// Whoever holds this tells that memory will come back.
    #[must_use]
    pub(crate) fn busy(&self) -> BusyGuard {
        self.state.lock().busy += 1;
        BusyGuard {
            state: Arc::clone(&self.state),
        }
    }

    /// Lets nobody in any more: who waits is refused.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.state.changed.notify_all();
    }

    fn permit(&self, bytes: u64, busy: bool) -> Permit {
        Permit {
            bytes,
            busy: AtomicBool::new(busy),
            is_file: false,
            state: Arc::clone(&self.state),
        }
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, ledger: MutexGuard<'a, Ledger>) -> MutexGuard<'a, Ledger> {
        self.changed
            .wait(ledger)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Lets clip number `seq` in with `bytes` in place of its file's. Waits until all before it are in. False: the file
    /// has to give way to an earlier clip; drop it, and come back through [`Permit::retake`].
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn admit(&mut self, seq: usize, bytes: u64) -> Result<bool, Refusal> {
        let state = Arc::clone(&self.state);
        let mut ledger = state.lock();
        loop {
            let others = ledger.bytes - self.bytes;
            if ledger.closed {
                return Err(Refusal::Closed);
            }

            let is_next = ledger.next == seq;
            if is_next && others + bytes <= state.total {
                ledger.bytes = others + bytes;
                ledger.next += 1;
                ledger.give_way = false;
                ledger.busy += 1;
                self.leave_files(&mut ledger);
                self.bytes = bytes;
                self.busy = AtomicBool::new(true);
                state.changed.notify_all();
                return Ok(true);
            }

            if is_next && ledger.busy == 0 {
                // No memory comes back by itself. Files that were read ahead can be dropped; beside rows alone the clip
                // never fits.
                if ledger.files == 1 {
                    return Err(Refusal::Full {
                        needed: others + bytes,
                        waiting: others,
                    });
                }
                ledger.give_way = true;
                state.changed.notify_all();
            } else if ledger.next < seq && ledger.give_way {
                ledger.bytes = others;
                self.bytes = 0;
                self.leave_files(&mut ledger);
                state.changed.notify_all();
                return Ok(false);
            }
            ledger = state.wait(ledger);
        }
    }

    /// Takes memory for a file that gave way, once all clips before it are in.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn retake(&mut self, seq: usize, bytes: u64) -> Result<(), Refusal> {
        self.take_file(seq, bytes, true)
    }

    /// Takes memory for clip number `seq`'s file; `in_turn`: not before all clips before it are in.
    fn take_file(&mut self, seq: usize, bytes: u64, in_turn: bool) -> Result<(), Refusal> {
        let state = Arc::clone(&self.state);
        let mut ledger = state.lock();
        loop {
            if ledger.closed {
                return Err(Refusal::Closed);
            }

            let is_next = ledger.next == seq;
            let free = state.total.saturating_sub(ledger.bytes);
            // A large file that is read ahead would only have to give way.
            let most = if is_next { free } else { free / AHEAD_SHARE };
            if bytes <= most && !ledger.give_way && (is_next || !in_turn) {
                ledger.bytes += bytes;
                ledger.files += 1;
                self.bytes = bytes;
                self.is_file = true;
                return Ok(());
            }

            if is_next && ledger.busy == 0 && ledger.files == 0 {
                return Err(Refusal::Full {
                    needed: ledger.bytes + bytes,
                    waiting: ledger.bytes,
                });
            }
            ledger = state.wait(ledger);
        }
    }

    fn leave_files(&mut self, ledger: &mut Ledger) {
        ledger.files -= usize::from(std::mem::take(&mut self.is_file));
    }

    /// Holds `bytes` from here on; what is let in may not grow.
    pub(crate) fn holds(&mut self, bytes: u64) {
        let mut ledger = self.state.lock();
        ledger.bytes = ledger.bytes + bytes - self.bytes;
        self.bytes = bytes;
        self.state.changed.notify_all();
    }

    /// The writing thread has the clip's rows: they wait for a row group, or for the disk, and for no one else. Not
    /// before: where the disk stands still, that thread takes nothing, and no further clip may pass.
    pub(crate) fn taken(&self) {
        if self.busy.swap(false, Ordering::Relaxed) {
            self.state.lock().busy -= 1;
            self.state.changed.notify_all();
        }
    }
}

impl Drop for Permit {
    /// Gives all of it back in one step. A clip that waits must not see that nothing is busy any more before it can see
    /// the bytes that came back: it would take itself for one that never fits.
    fn drop(&mut self) {
        let state = Arc::clone(&self.state);
        let mut ledger = state.lock();
        ledger.bytes -= self.bytes;
        ledger.busy -= usize::from(self.busy.swap(false, Ordering::Relaxed));
        self.leave_files(&mut ledger);
        state.changed.notify_all();
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.state.lock().busy -= 1;
        self.state.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Clip `seq` of `bytes` cannot pass, and can after `then`.
    fn passes_only_after(budget: &ByteBudget, seq: usize, bytes: u64, then: impl FnOnce()) {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        std::thread::scope(|scope| {
            // The sender goes with the thread, so that one that panics ends the test.
            scope.spawn(move || {
                drop(budget.enter(seq, bytes).expect("it fits in the end"));
                sender.send(()).expect("the receiver is alive");
            });
            assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
            then();
            receiver.recv().expect("it passes now");
        });
    }

    #[test]
    fn a_clip_waits_until_enough_is_given_back() {
        let budget = ByteBudget::new(100);
        let mut first = budget.enter(0, 80).expect("it fits");
        passes_only_after(&budget, 1, 60, || first.holds(40));
    }

    #[test]
    fn a_clip_waits_for_a_row_group_that_is_being_written() {
        let budget = ByteBudget::new(100);
        let first = budget.enter(0, 80).expect("it fits");
        let group = budget.busy();
        first.taken();
        passes_only_after(&budget, 1, 60, || drop((first, group)));
    }

    #[test]
    fn a_clip_that_fits_beside_no_waiting_rows_is_refused_and_never_overdraws() {
        let budget = ByteBudget::new(100);
        let mut first = budget.enter(0, 80).expect("it fits");
        first.holds(60);
        first.taken();
        assert_eq!(
            budget.enter(1, 41).err(),
            Some(Refusal::Full {
                needed: 101,
                waiting: 60
            })
        );
        drop(budget.enter(1, 40).expect("it fits"));
        assert_eq!(
            budget.take(101).err(),
            Some(Refusal::Full {
                needed: 101,
                waiting: 0
            })
        );
    }

    #[test]
    fn rows_that_the_writing_thread_has_not_taken_stop_further_clips() {
        let budget = ByteBudget::new(100);
        let first = budget.enter(0, 80).expect("it fits");
        passes_only_after(&budget, 1, 50, || drop(first));
    }

    /// Whoever looks while a clip leaves sees all of it, or nothing.
    #[test]
    fn a_clip_that_leaves_gives_all_back_in_one_step() {
        for _ in 0..2_000 {
            let budget = ByteBudget::new(100);
            let first = budget.enter(0, 80).expect("it fits");
            let is_waiting = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                let second = scope.spawn(|| {
                    is_waiting.wait();
                    budget.enter(1, 50).map(drop)
                });
                is_waiting.wait();
                drop(first);
                assert_eq!(second.join().expect("no panic"), Ok(()));
            });
        }
    }

    /// The second file was read ahead. The first clip needs its memory: the file is dropped, and read again after it.
    #[test]
    fn files_that_were_read_ahead_give_way_to_the_clip_before_them() {
        let budget = ByteBudget::new(100);
        let mut first = budget.enter_file(0, 20).expect("it fits");
        let mut second = budget.enter_file(1, 20).expect("it fits");
        std::thread::scope(|scope| {
            let admitted = scope.spawn(move || first.admit(0, 90).map(|is_in| (is_in, first)));
            assert_eq!(second.admit(1, 60), Ok(false));
            let (is_in, first) = admitted.join().expect("no panic").expect("it fits");
            assert!(is_in);
            let again =
                scope.spawn(move || second.retake(1, 20).and_then(|()| second.admit(1, 60)));
            std::thread::sleep(Duration::from_millis(20));
            drop(first);
            assert_eq!(again.join().expect("no panic"), Ok(true));
        });
        assert_eq!(budget.state.lock().files, 0);
    }

    #[test]
    fn whoever_waits_is_let_go_when_the_run_has_failed() {
        let budget = ByteBudget::new(100);
        let mut second = budget.enter_file(1, 25).expect("it fits");
        std::thread::scope(|scope| {
            let waits = scope.spawn(move || second.admit(1, 60));
            budget.close();
            assert_eq!(waits.join().expect("no panic"), Err(Refusal::Closed));
        });
    }
}
