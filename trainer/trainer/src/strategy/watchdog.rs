//! Ends all ranks when one of them ends: every rank learns within seconds that another rank failed or was lost.
//!
//! Each rank keeps its connection to rank 0, over which both sides send a heartbeat every second. Separate threads send
//! them, so that a long computation does not look like silence. Rank 0 detects a closed connection, silence or a
//! failure message, and informs the other ranks. A rank that learns of a loss calls its [`OnLoss`], which ends the
//! process, because its main thread may be waiting for data that never arrives. A successful end is announced first;
//! ranks that exit afterwards are not reported as lost.

use std::collections::BTreeSet;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wavemill_schemas::exit::Kind;
use wavemill_terminal::interrupt::{exit_now, lock};

use super::links::Peer;
use super::rendezvous::lost;
use super::{RankError, Ranks, wire};

/// Time between two heartbeats.
const BEAT: Duration = Duration::from_secs(1);
/// Time without a message from a rank after which the rank counts as lost.
const SILENCE: Duration = Duration::from_secs(5);
/// Time for which a rank waits for the cause of a broken connection in the ring.
const CAUSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Function that a rank calls when another rank is lost. It is called once, on a watchdog thread, with
/// [`RankError::Lost`].
pub(crate) type OnLoss = Box<dyn Fn(&RankError) + Send + Sync>;

/// Check that the watchdog calls every second. It must not block, and returns a message if this rank cannot continue.
pub(super) type Check = Box<dyn Fn() -> Option<String> + Send>;

/// Returns a function that passes to `say`, in one line, which rank was lost, and then exits the process with the code
/// of [`Kind::LostRank`]. The lost rank reports the cause.
pub(crate) fn exit_on_loss(ranks: &Ranks, say: fn(&str)) -> OnLoss {
    let rank = ranks.rank;
    Box::new(move |loss| {
        let line = format!("rank {rank} stops: {loss}");
        // If stderr is a pipe that is not being read, printing blocks. The exit therefore waits for it only for a
        // limited time.
        let (done, told) = crossbeam_channel::bounded(1);
        std::thread::spawn(move || {
            say(&line);
            done.send(())
        });
        let _ = told.recv_timeout(BEAT);
        exit_now(Kind::LostRank.exit_code())
    })
}

/// Messages between a rank and rank 0.
#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// Heartbeat.
    Beat,
    /// From a rank: it has finished its work. From rank 0: every rank has finished.
    Finished,
    /// The named rank is lost or is about to end.
    Failed { rank: usize, reason: String },
}

#[derive(Debug, Default)]
struct State {
    /// Ranks that have reported their successful end.
    finished: BTreeSet<usize>,
    /// True if a rank is lost and the loss is being reported to the other ranks.
    losing: bool,
    /// The first lost rank and the reason, set after [`OnLoss`] has returned. If `OnLoss` ends the process, no other
    /// thread can report the loss.
    loss: Option<(usize, String)>,
    /// True if all ranks have finished or this rank is ending. From then on, no losses are reported.
    over: bool,
}

struct WatchdogInner {
    rank: usize,
    launcher: Option<u32>,
    /// Connections to rank 0 or, on rank 0, to all other ranks; used for writing.
    peers: Vec<Mutex<TcpStream>>,
    state: Mutex<State>,
    changed: Condvar,
    guarded: Mutex<Vec<TcpStream>>,
    checks: Mutex<Vec<Check>>,
    on_loss: OnLoss,
}

/// Monitors all ranks until they have finished successfully or one of them is lost.
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
    /// Starts monitoring. `control` contains the connections from rank 0 to all other ranks, or from another rank to
    /// rank 0.
    ///
    /// # Errors
    /// I/O errors if a watchdog thread cannot be started or a connection cannot be cloned.
    pub(super) fn start(ranks: &Ranks, control: Vec<Peer>, on_loss: OnLoss) -> io::Result<Self> {
        let mut readers = Vec::new();
        let mut peers = Vec::new();
        for peer in control {
            // A peer sends a heartbeat every second, so a read that takes longer than the timeout counts as silence.
            // The write timeout limits how long a peer that does not read can delay messages to the others.
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

    /// Registers connections to close when a rank is lost, so that no thread waits for their data forever.
    pub(super) fn guard(&self, streams: impl IntoIterator<Item = TcpStream>) {
        lock(&self.0.guarded).extend(streams);
    }

    /// Registers an additional check whether this rank can continue.
    pub(super) fn also_ask(&self, check: Check) {
        lock(&self.0.checks).push(check);
    }

    /// Returns the lost rank that explains a broken connection, if one is reported within [`CAUSE_TIMEOUT`].
    pub(super) fn known_loss(&self) -> Option<RankError> {
        let deadline = Instant::now() + CAUSE_TIMEOUT;
        let state = self
            .0
            .wait_until(deadline, |state| state.loss.is_some() || state.over);
        let (rank, reason) = state.loss.clone()?;
        Some(RankError::Lost { rank, reason })
    }

    /// Ends the job successfully: blocks until all ranks have called `finish`. Afterwards, no losses are reported.
    ///
    /// # Errors
    /// [`RankError::Lost`] if a rank is lost before all ranks have called `finish`.
    pub(super) fn finish(&self) -> Result<(), RankError> {
        let shared = &self.0;
        if shared.rank > 0 {
            shared.send_to_all(&Message::Finished);
        }

        // Rank 0 waits for the message `Finished` of all other ranks, and they wait for that of rank 0.
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
        if let Some((rank, reason)) = state.loss.clone() {
            return Err(RankError::Lost { rank, reason });
        }

        // Rank 0 sends `Finished` once, even if this function is called again.
        let first = !std::mem::replace(&mut state.over, true);
        drop(state);

        shared.changed.notify_all();
        if shared.rank == 0 && first {
            shared.send_to_all(&Message::Finished);
        }
        Ok(())
    }

    /// Reports to the other ranks why this rank ends, and stops monitoring.
    pub(super) fn fail(&self, reason: &str) {
        if self.0.end_quietly() {
            self.0.send_to_all(&Message::Failed {
                rank: self.0.rank,
                reason: reason.to_owned(),
            });
        }
    }
}

impl Drop for Watchdog {
    /// Closes the connections. Without a previous call of [`Self::finish`], the other ranks treat this as a loss.
    fn drop(&mut self) {
        self.0.end_quietly();
        for peer in &self.0.peers {
            let stream = lock(peer);
            // Fails if the peer has already closed the connection.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl WatchdogInner {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
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

    /// Stops monitoring without notifying the other ranks. Returns whether monitoring was active.
    fn end_quietly(&self) -> bool {
        let was_on = {
            let mut state = self.state();
            !std::mem::replace(&mut state.over, true) && !state.losing
        };
        self.changed.notify_all();
        was_on
    }

    /// Sends a message to every connected rank. Errors are ignored: the thread that reads the broken connection reports
    /// them.
    fn send_to_all(&self, message: &Message) {
        for peer in &self.peers {
            let mut stream = lock(peer);
            let _ = wire::send(&mut *stream, message);
        }
    }

    /// Every second, checks that the launcher is alive, runs the registered checks, and sends a heartbeat.
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
            self.send_to_all(&Message::Beat);
        }
    }

    /// Returns the reason why this rank cannot continue: the launcher has ended, or a registered check failed.
    fn own_end(&self) -> Option<String> {
        if self
            .launcher
            .is_some_and(|id| std::os::unix::process::parent_id() != id)
        {
            return Some("the process that started it has ended".to_owned());
        }
        lock(&self.checks).iter().find_map(|check| check())
    }

    /// Reads messages from one connected rank until monitoring stops.
    fn listen(&self, mut peer: Peer) {
        loop {
            match wire::receive(&mut peer.stream) {
                Ok(Message::Beat) => {}
                Ok(Message::Finished) => {
                    let mut state = self.state();
                    state.finished.insert(peer.rank);
                    // Rank 0 sends `Finished` after every rank has finished.
                    state.over |= peer.rank == 0;
                    drop(state);
                    self.changed.notify_all();
                }
                Ok(Message::Failed { rank, reason }) => return self.lose(rank, reason),

                // Errors on the connection of a rank that has already finished are ignored.
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

    /// Handles the first loss of a rank. Rank 0 and the lost rank report it to the others.
    fn lose(&self, rank: usize, reason: String) {
        let mut state = self.state();
        if state.over || std::mem::replace(&mut state.losing, true) {
            return;
        }

        // Release the lock before sending: a peer that does not read can block the write until its timeout.
        drop(state);
        if self.rank == 0 || self.rank == rank {
            self.send_to_all(&Message::Failed {
                rank,
                reason: reason.clone(),
            });
        }

        (self.on_loss)(&RankError::Lost {
            rank,
            reason: reason.clone(),
        });

        // Set the loss only after `on_loss` has printed the reason: it wakes the main thread, which would end the
        // process.
        self.state().loss = Some((rank, reason));
        self.changed.notify_all();

        let mut guarded = lock(&self.guarded);
        for stream in guarded.drain(..) {
            // Fails if the connection is already closed.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
