//! Limits the memory of clips in flight, in bytes. A clip holds a permit for all of its memory, from before its file is
//! read until its rows are on disk. A clip that does not fit is not admitted.
//!
//! Clips are admitted in plan order. An admitted clip never waits for memory again: it becomes rows, and rows go to the
//! writing thread, which does not wait for anything else. Memory is therefore released without intervention as long as
//! anything is *busy*: a clip on its way to the writing thread, or a row group on its way to disk. If nothing is busy,
//! memory is held only by rows that wait for the next clip to fill their row group, and by files that were read ahead.
//! Files give way: they are dropped and read again later. If the next clip then does not fit together with the rows, it
//! never will, and the run ends with an error that names the clip.

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A file is read ahead of its turn only if it takes at most this fraction of the free memory: the clips before it
/// still need memory for everything that they become.
const AHEAD_SHARE: u64 = 4;

/// A counting semaphore that limits memory in bytes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    ledger: Mutex<Ledger>,
    changed: Condvar,
    total: u64,
}

/// Current use of the memory budget.
#[derive(Debug, Default)]
struct Ledger {
    /// Bytes held by all permits.
    bytes: u64,
    /// Number of clips and row groups that will release memory without intervention.
    busy: usize,
    /// Number, in plan order, of the clip that is admitted next.
    next: usize,
    /// Number of clips whose file has been read and which are not admitted yet.
    files: usize,
    /// True if the clip that is admitted next needs the memory of files that were read ahead.
    give_way: bool,
    /// True if the run has failed, so that no further clip is admitted.
    closed: bool,
}

/// Reason for not admitting a clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The clip does not fit and never will: together with the rows that wait for it, it would exceed the budget.
    Full {
        /// Bytes that all permits would hold together with the clip.
        needed: u64,
        /// Bytes that are held by rows that wait for the clip.
        waiting: u64,
    },
    /// No clip is admitted because the run has failed elsewhere.
    Closed,
}

/// The right to use a number of bytes of the budget; they are released on drop.
#[derive(Debug)]
pub struct Permit {
    bytes: u64,
    busy: AtomicBool,
    is_file: bool,
    state: Arc<State>,
}

/// Marks work after which memory will be released without intervention, until the guard is dropped.
#[derive(Debug)]
pub struct BusyGuard {
    state: Arc<State>,
}

impl ByteBudget {
    /// Creates a budget of `bytes`.
    pub fn new(bytes: u64) -> Self {
        Self {
            state: Arc::new(State {
                ledger: Mutex::default(),
                changed: Condvar::new(),
                total: bytes,
            }),
        }
    }

    /// Waits until `bytes` are free and takes them, without an order among callers. Meant for work that holds nothing
    /// else while it waits.
    ///
    /// # Errors
    /// [`Refusal::Full`] if `bytes` exceeds the whole budget.
    pub fn take(&self, bytes: u64) -> Result<Permit, Refusal> {
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
        Ok(self.permit(bytes))
    }

    /// Admits clip number `seq` with all the memory that it needs. Must be called for one clip after the other, in plan
    /// order.
    ///
    /// # Errors
    /// [`Refusal`] if the clip never fits or the run has failed.
    pub fn enter(&self, seq: usize, bytes: u64) -> Result<Permit, Refusal> {
        let mut permit = self.enter_file(seq, bytes)?;
        let is_in = permit.admit(seq, bytes)?;
        debug_assert!(is_in, "the next clip in plan order is always admitted");
        Ok(permit)
    }

    /// Takes memory for the file of clip number `seq`. [`Permit::admit`] admits the clip once its memory use is known.
    /// Must be called for one clip after the other, in plan order.
    ///
    /// # Errors
    /// [`Refusal`] if the file never fits or the run has failed.
    pub fn enter_file(&self, seq: usize, bytes: u64) -> Result<Permit, Refusal> {
        let mut permit = self.permit(0);
        permit.take_file(seq, bytes, false)?;
        Ok(permit)
    }

    /// Returns a guard that marks work after which memory will be released.
    #[must_use]
    pub fn busy(&self) -> BusyGuard {
        self.state.lock().busy += 1;
        BusyGuard {
            state: Arc::clone(&self.state),
        }
    }

    /// Stops admitting clips, and refuses the clips that wait for memory.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.state.changed.notify_all();
    }

    fn permit(&self, bytes: u64) -> Permit {
        Permit {
            bytes,
            busy: AtomicBool::new(false),
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
    /// Admits clip number `seq` with `bytes` in place of the bytes of its file. Waits until all clips before it are
    /// admitted. Returns `false` if the file has to give way to an earlier clip: drop the file and call
    /// [`Permit::retake`].
    ///
    /// # Errors
    /// [`Refusal`] if the clip never fits or the run has failed.
    pub fn admit(&mut self, seq: usize, bytes: u64) -> Result<bool, Refusal> {
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
                // No memory will be released without intervention. Files that were read ahead can be dropped; if there
                // are only rows, the clip never fits.
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

    /// Takes memory for a file that gave way, once all clips before it are admitted.
    ///
    /// # Errors
    /// [`Refusal`] if the file never fits or the run has failed.
    pub fn retake(&mut self, seq: usize, bytes: u64) -> Result<(), Refusal> {
        self.take_file(seq, bytes, true)
    }

    /// Takes memory for the file of clip number `seq`. With `in_turn`, waits until all clips before it are admitted.
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

    /// Changes the number of bytes that the permit holds to `bytes`. An admitted clip may not grow.
    pub fn holds(&mut self, bytes: u64) {
        let mut ledger = self.state.lock();
        ledger.bytes = ledger.bytes + bytes - self.bytes;
        self.bytes = bytes;
        self.state.changed.notify_all();
    }

    /// Marks the clip's rows as received by the writing thread: they wait for a row group or for the disk, and for
    /// nothing else. Must not be called earlier: if the disk stalls, that thread receives nothing, and no further clip
    /// may be admitted.
    pub fn taken(&self) {
        if self.busy.swap(false, Ordering::Relaxed) {
            self.state.lock().busy -= 1;
            self.state.changed.notify_all();
        }
    }
}

impl Drop for Permit {
    /// Releases all bytes in one step. A waiting clip must not see that nothing is busy before it can see the released
    /// bytes: it would conclude that it never fits.
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
