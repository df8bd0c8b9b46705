//! The threads of a run: readers take clips in plan order, workers decode them, compute features and encode row groups.
//! Where a device computes, workers only decode and encode, and the device's lanes ([`crate::batch`]) come after them.
//!
//! Nothing here waits in a circle: workers wait for lanes, and nobody for the writing thread nor it for anybody. What goes
//! to it and comes back, rows and row groups, is bounded in bytes by the permits of the rows and not in number: while it
//! syncs a file, which can take as long as several clips, workers go on. Clips are let in in plan order ([`crate::budget`]),
//! so the oldest clip always is; the batch that it is in waits for others no longer than a set time, so what it holds
//! cannot keep back those that come.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rustix::time::{ClockId, clock_gettime};

use crate::batch::{self, LaneTimes};
use crate::budget::{ByteBudget, Permit};
use crate::catalog::ClipRow;
use crate::clip::{ClipBytes, Ticket};
use crate::event::Event;
use crate::features::FeaturePlan;
use crate::reader::Reader;
use crate::run::RunError;
use crate::settings::{Limits, READ_AHEAD_CLIPS, READ_THREADS, SPARE_PCMS};
use crate::shards::{Format, RowGroup, Todo};
use crate::source::{InputSeen, Source};
use crate::worker::{Ends, Worker};

/// CPU nanoseconds by stage, over all threads.
#[derive(Debug, Default)]
pub struct StageTimes {
    /// Reading compressed bytes.
    pub read: AtomicU64,
    /// Decoding and resampling.
    pub decode: AtomicU64,
    /// STFT to packed tensors.
    pub features: AtomicU64,
    /// Parquet encoding and compression.
    pub encode: AtomicU64,
}

/// Live counters, for progress.
#[derive(Debug, Default)]
pub struct Counters {
    /// Clips with an outcome.
    pub clips: AtomicU64,
    /// Rejects among them.
    pub rejects: AtomicU64,
    /// Compressed bytes read.
    pub bytes: AtomicU64,
    /// Where CPU time went.
    pub times: StageTimes,
    /// What a device's lanes did.
    pub lanes: LaneTimes,
}

/// What readers and workers share.
pub struct Work<'a> {
    /// Cleaned rows.
    pub clips: &'a [ClipRow],
    /// Shards to write.
    pub todo: &'a [Todo<'a>],
    /// Where bytes come from.
    pub source: &'a dyn Source,
    /// What to compute.
    pub plan: &'a FeaturePlan,
    /// Classes of each target.
    pub class_sizes: &'a [usize],
    /// How to encode it.
    pub formats: &'a [Format],
    /// Set: no further clip is read.
    pub stop: &'a AtomicBool,
    /// For progress.
    pub counters: &'a Counters,
    /// Bounds of the run.
    pub limits: &'a Limits,
    /// What clips may hold.
    pub budget: ByteBudget,
    /// What row groups may hold while they are encoded, beside their rows.
    pub encoding: ByteBudget,
}

/// The writing thread's ends of the queues.
pub struct Queues {
    /// What workers finished. Ends when all of them have.
    pub events: Receiver<Event>,
    /// Row groups to encode; sending never waits. Drop it when no more will come.
    pub groups: Sender<RowGroup>,
}

/// Starts a thread by its name.
pub type Spawn<'a, 'scope> = &'a dyn Fn(String, Box<dyn FnOnce() + Send + 'scope>);

/// Starts readers, workers and lanes. They end when every clip is done and `groups` is dropped.
pub fn start<'scope, 'env>(scope: &'scope Scope<'scope, 'env>, work: &'env Work<'env>) -> Queues {
    let limits = work.limits;
    let threads = limits.threads;
    let (clip_sender, clips) = bounded(threads * READ_AHEAD_CLIPS);
    let (spare_sender, spare) = bounded(threads * READ_AHEAD_CLIPS + READ_THREADS);
    let (pcm_sender, pcms) = bounded(threads * SPARE_PCMS);
    let (event_sender, events) = unbounded();
    let (groups, group_receiver) = unbounded();
    let turn = Arc::new(Mutex::new(Turn { todo: 0, member: 0, seq: 0, readers: READ_THREADS }));
    let spawn = |name: String, body: Box<dyn FnOnce() + Send + 'scope>| {
        let name = format!("{WORKER_NAME}-{name}");
        if let Err(source) = std::thread::Builder::new().name(name).spawn_scoped(scope, body) {
            // The receiver is alive: it is in our hands.
            let _ = event_sender.try_send(Event::Failed(RunError::Threads { source }));
        }
    };
    let device =
        work.plan.is_batched().then(|| batch::start(&spawn, work, limits, (event_sender.clone(), pcm_sender.clone())));
    for number in 0..READ_THREADS {
        let (turn, sender, spare, events) = (turn.clone(), clip_sender.clone(), spare.clone(), event_sender.clone());
        spawn(
            format!("read-{number}"),
            Box::new(move || {
                let result = read_clips(work, &turn, &sender, &spare);
                if result.is_err() {
                    // Nobody waits for a clip that will not come. Before the turn is taken: who has it may be waiting.
                    work.budget.close();
                }
                let mut turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                turn.readers -= 1;
                // The receiver lives until every sender is gone.
                let _ = match result {
                    // Whoever failed has told why.
                    Err(RunError::Elsewhere) => Ok(()),
                    Err(error) => events.send(Event::Failed(error)),
                    Ok(()) if turn.readers == 0 => events.send(Event::ReadDone { clips: turn.seq }),
                    Ok(()) => Ok(()),
                };
            }),
        );
    }
    for number in 0..threads {
        let ends = Ends {
            clips: clips.clone(),
            groups: group_receiver.clone(),
            spare: spare_sender.clone(),
            pcms: (pcm_sender.clone(), pcms.clone()),
            device: device.clone(),
            events: event_sender.clone(),
        };
        spawn(number.to_string(), Box::new(move || Worker::new(work).run(&ends)));
    }
    Queues { events, groups }
}

/// Threads whose panics become rejects; the panic hook stays silent in them.
pub const WORKER_NAME: &str = "wavemill-worker";

/// Whose turn it is: clips are numbered, and take their permits, in plan order.
struct Turn {
    todo: usize,
    member: usize,
    seq: usize,
    readers: usize,
}

impl Turn {
    /// The next clip, with memory for its file: and for all that follows, where the recipe tells how much that is.
    fn next(&mut self, work: &Work<'_>) -> Result<Option<(Ticket, Permit)>, RunError> {
        let Some((todo, row)) = self.member(work) else { return Ok(None) };
        let clip_key = &work.clips[row].clip_key;
        let read_bytes = work.source.read_bytes(clip_key);

        let permit = match work.plan.is_closed() {
            true => work.budget.enter(self.seq, work.plan.closed_charge(read_bytes)),
            false => work.budget.enter_file(self.seq, read_bytes),
        };
        let permit = permit.map_err(|refused| RunError::refused(refused, clip_key, read_bytes, work.limits.room()))?;

        let seen = InputSeen { id: work.source.index().get(clip_key).copied(), content: String::new() };
        let ticket = Ticket { seq: self.seq, todo, row, seen };
        self.member += 1;
        self.seq += 1;
        Ok(Some((ticket, permit)))
    }

    /// The next shard that has members left, and the next of them.
    fn member(&mut self, work: &Work<'_>) -> Option<(usize, usize)> {
        while self.member == work.todo.get(self.todo)?.shard.members.len() {
            (self.todo, self.member) = (self.todo + 1, 0);
        }
        Some((self.todo, work.todo[self.todo].shard.members[self.member]))
    }
}

fn read_clips(
    work: &Work<'_>,
    turn: &Mutex<Turn>,
    sender: &Sender<ClipBytes>,
    spare: &Receiver<Vec<u8>>,
) -> Result<(), RunError> {
    let mut reader = Reader::new(work);
    while !work.stop.load(Ordering::Relaxed) {
        let next = turn.lock().unwrap_or_else(PoisonError::into_inner).next(work)?;
        let Some((ticket, permit)) = next else { break };
        let clip = reader.read(ticket, permit, spare.try_recv().unwrap_or_default())?;
        if sender.send(clip).is_err() {
            break;
        }
    }
    Ok(())
}

/// CPU time of the calling thread.
#[must_use]
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Adds the calling thread's CPU time since `start`; returns the time now.
pub fn add_time(total: &AtomicU64, start: Duration) -> Duration {
    let now = cpu_time();
    total.fetch_add(now.saturating_sub(start).as_nanos() as u64, Ordering::Relaxed);
    now
}
