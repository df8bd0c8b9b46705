//! All ranks end when one does: a rank that is gone, or says that it fails, is known to every other within seconds.
//!
//! Each rank keeps its connection to rank 0, over which both sides say every second that they live; threads do, so that
//! a long computation is no silence. A closed connection, silence, or a message of failure reaches rank 0, which tells
//! the others. A rank that learns of a loss calls its [`OnLoss`], which ends the process: its main thread may be
//! waiting for numbers that never come. A good end is announced, and then nobody is missed.

use std::collections::BTreeSet;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::links::Peer;
use super::rendezvous::lost;
use super::{RankError, Ranks, wire};
use crate::ffi;

/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(1);
/// Silence that is taken for death.
const SILENCE: Duration = Duration::from_secs(5);
/// How long a broken ring waits to hear who was the cause.
const CAUSE_TIMEOUT: Duration = Duration::from_secs(3);

/// What a rank does when another is lost: called once, on a thread of the watchdog, with [`RankError::Lost`].
pub(crate) type OnLoss = Box<dyn Fn(&RankError) + Send + Sync>;

/// Asked every second; words say why this rank cannot go on. It does not wait for anything.
pub(super) type Check = Box<dyn Fn() -> Option<String> + Send>;

/// Exit code of a rank that ends because another was lost: what went wrong is that one's to say.
pub(crate) const LOST: u8 = 6;

/// Says so in one line on stderr and ends the process with code [`LOST`], whatever its other threads are doing.
pub(crate) fn exit_on_loss(ranks: &Ranks) -> OnLoss {
    let rank = ranks.rank;
    Box::new(move |loss| {
        let line = format!("wavemill-train: rank {rank} stops: {loss}");
        // stderr may be a pipe that nobody reads: the end does not wait for it.
        let (done, told) = crossbeam_channel::bounded(1);
        std::thread::spawn(move || {
            eprintln!("{line}");
            done.send(())
        });
        let _ = told.recv_timeout(BEAT);
        ffi::exit_now(LOST.into())
    })
}

/// What ranks say over the control connection.
#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// Alive.
    Beat,
    /// This rank has done all; from rank 0: every rank has.
    Finished,
    /// A rank is lost, or is about to end.
    Failed { rank: usize, reason: String },
}

#[derive(Debug, Default)]
struct State {
    /// Ranks that said that they have finished.
    finished: BTreeSet<usize>,
    /// The first loss was heard of, and is being told.
    losing: bool,
    /// The first loss, once [`OnLoss`] has returned: if it ends the process, nobody else gets to say anything.
    loss: Option<Loss>,
    /// All have finished, or this rank goes: nobody is missed from here on.
    over: bool,
}

#[derive(Clone, Debug)]
struct Loss {
    rank: usize,
    reason: String,
}

impl From<Loss> for RankError {
    fn from(Loss { rank, reason }: Loss) -> Self {
        Self::Lost { rank, reason }
    }
}

struct WatchdogInner {
    rank: usize,
    launcher: Option<u32>,
    /// Control connections, for writing.
    peers: Vec<Mutex<TcpStream>>,
    state: Mutex<State>,
    changed: Condvar,
    guarded: Mutex<Vec<TcpStream>>,
    checks: Mutex<Vec<Check>>,
    on_loss: OnLoss,
}

/// Watches from its start until the good end, or the first loss.
pub(super) struct Watchdog(Arc<WatchdogInner>);

impl std::fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watchdog")
            .field("rank", &self.0.rank)
            .field("peers", &self.0.peers)
            .finish_non_exhaustive()
    }
}

impl Watchdog {
    /// Over rank 0's connections to all others, or another rank's to rank 0.
    ///
    /// # Errors
    /// No thread, or no second handle of a connection.
    pub(super) fn start(ranks: &Ranks, control: Vec<Peer>, on_loss: OnLoss) -> io::Result<Self> {
        let mut readers = Vec::new();
        let mut peers = Vec::new();
        for peer in control {
            // Both sides speak every second: a longer wait is silence. And one that does not read must not hold up what is
            // said to the others.
            peer.stream.set_read_timeout(Some(SILENCE))?;
            peer.stream.set_write_timeout(Some(BEAT))?;
            readers.push(Peer {
                rank: peer.rank,
                stream: peer.stream.try_clone()?,
            });
            peers.push(Mutex::new(peer.stream));
        }

        let shared = Arc::new(WatchdogInner {
            rank: ranks.rank,
            launcher: ranks.launcher,
            peers,
            state: Mutex::default(),
            changed: Condvar::new(),
            guarded: Mutex::default(),
            checks: Mutex::default(),
            on_loss,
        });

        for reader in readers {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name(format!("watch-{}", reader.rank))
                .spawn(move || shared.listen(reader))?;
        }
        let beating = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("watch-beat".to_owned())
            .spawn(move || beating.beat())?;
        Ok(Self(shared))
    }

    /// Connections that are ended with a loss, so that no thread waits on them for ever.
    pub(super) fn guard(&self, streams: impl IntoIterator<Item = TcpStream>) {
        self.0
            .guarded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(streams);
    }

    /// A further way in which this rank may be lost.
    pub(super) fn also_ask(&self, check: Check) {
        self.0
            .checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(check);
    }

    /// The loss that explains a broken connection: known, or heard of soon.
    pub(super) fn known_loss(&self) -> Option<RankError> {
        let deadline = Instant::now() + CAUSE_TIMEOUT;
        let state = self
            .0
            .wait_until(deadline, |state| state.loss.is_some() || state.over);
        state.loss.clone().map(RankError::from)
    }

    /// The good end: waits until all ranks have come here, and misses nobody from then on.
    ///
    /// # Errors
    /// [`RankError::Lost`] if one is lost before.
    pub(super) fn finish(&self) -> Result<(), RankError> {
        let shared = &self.0;
        if shared.rank > 0 {
            shared.tell_all(&Message::Finished);
        }

        // Rank 0 waits for all others; they wait for its word.
        let mut state = shared.state();
        while state.loss.is_none()
            && !state.over
            && !(shared.rank == 0 && state.finished.len() == shared.peers.len())
        {
            state = shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(loss) = state.loss.clone() {
            return Err(loss.into());
        }

        // Rank 0 tells the others once, also where this is called again.
        let first = !std::mem::replace(&mut state.over, true);
        drop(state);

        shared.changed.notify_all();
        if shared.rank == 0 && first {
            shared.tell_all(&Message::Finished);
        }
        Ok(())
    }

    /// Tells the others why this rank ends; the watch is over here.
    pub(super) fn fail(&self, reason: &str) {
        if self.0.end_quietly() {
            self.0.tell_all(&Message::Failed {
                rank: self.0.rank,
                reason: reason.to_owned(),
            });
        }
    }
}

impl Drop for Watchdog {
    /// Without [`Self::finish`], the others see a closed connection: a loss.
    fn drop(&mut self) {
        self.0.end_quietly();
        for peer in &self.0.peers {
            let stream = peer.lock().unwrap_or_else(PoisonError::into_inner);
            // Fails where the other side was first.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl WatchdogInner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until(
        &self,
        deadline: Instant,
        done: impl Fn(&State) -> bool,
    ) -> MutexGuard<'_, State> {
        let patience = deadline.saturating_duration_since(Instant::now());
        let waited = self
            .changed
            .wait_timeout_while(self.state(), patience, |state| !done(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Ends the watch without calling anybody; whether it was on.
    fn end_quietly(&self) -> bool {
        let was_on = {
            let mut state = self.state();
            !std::mem::replace(&mut state.over, true) && !state.losing
        };
        self.changed.notify_all();
        was_on
    }

    /// Tells every peer that still hears; one that does not is found by its own reader.
    fn tell_all(&self, message: &Message) {
        for peer in &self.peers {
            let mut stream = peer.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = wire::send(&mut *stream, message);
        }
    }

    /// Says every second that this rank lives, sees whether its launcher does, and makes the checks.
    fn beat(&self) {
        loop {
            let state = self.wait_until(Instant::now() + BEAT, |state| state.over || state.losing);
            if state.over || state.losing {
                return;
            }
            drop(state);

            if let Some(reason) = self.own_end() {
                self.lose(self.rank, reason);
                return;
            }
            self.tell_all(&Message::Beat);
        }
    }

    /// Why this rank cannot go on, if so.
    fn own_end(&self) -> Option<String> {
        if self
            .launcher
            .is_some_and(|id| std::os::unix::process::parent_id() != id)
        {
            return Some("the process that started it is gone".to_owned());
        }
        self.checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .find_map(|check| check())
    }

    /// Hears one peer until the watch is over.
    fn listen(&self, mut peer: Peer) {
        loop {
            match wire::receive(&mut peer.stream) {
                Ok(Message::Beat) => {}
                Ok(Message::Finished) => {
                    let mut state = self.state();
                    state.finished.insert(peer.rank);
                    // Rank 0 says it once every rank has.
                    state.over |= peer.rank == 0;
                    drop(state);
                    self.changed.notify_all();
                }
                Ok(Message::Failed { rank, reason }) => return self.lose(rank, reason),

                // What one leaves open after its good end is nobody's concern.
                Err(_) if self.state().finished.contains(&peer.rank) => return,

                Err(error) => {
                    let RankError::Lost { rank, reason } = lost(peer.rank, &error) else {
                        return;
                    };
                    return self.lose(rank, reason);
                }
            }
        }
    }

    /// The first loss ends everything: the others hear of it from rank 0, or from the rank that fails.
    fn lose(&self, rank: usize, reason: String) {
        let mut state = self.state();
        if state.over || std::mem::replace(&mut state.losing, true) {
            return;
        }

        // Not under the lock: a peer that does not read holds up what is said to it for a beat.
        drop(state);
        if self.rank == 0 || self.rank == rank {
            self.tell_all(&Message::Failed {
                rank,
                reason: reason.clone(),
            });
        }

        (self.on_loss)(&RankError::Lost {
            rank,
            reason: reason.clone(),
        });

        // Only now: `known_loss` wakes the main thread, which would end the process before `on_loss` has said why.
        self.state().loss = Some(Loss { rank, reason });
        self.changed.notify_all();

        let mut guarded = self.guarded.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in guarded.drain(..) {
            // Fails where it is cut already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
