//! The worker pool: readers take clips in plan order, workers decode them, compute features and encode row groups.
//!
//! Nothing here waits in a circle: workers wait for the writing thread, which waits for nobody (row groups go into a queue
//! without a count, bounded in bytes by the permits of their rows); clips wait for their permit in plan order, so the
//! oldest clip always has one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, never, select_biased, unbounded};
use fail::fail_point;
use rustix::time::{ClockId, clock_gettime};
use wavemill_schemas::reject::{Reason, Reject, Stage};

use crate::budget::{ByteBudget, Permit};
use crate::catalog::ClipRow;
use crate::decode::{Decode, Pcm};
use crate::event::Event;
use crate::features::{Extractor, FeatureError, FeaturePlan, NoRows};
use crate::run::RunError;
use crate::settings::{READ_AHEAD_CLIPS, READ_THREADS};
use crate::shards::{AudioFacts, FeatureRow, Format, Outcome, RowGroup, Todo};
use crate::source::{InputSeen, ReadFailure, Source};

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
}

/// A clip's compressed bytes on their way to a worker.
struct ClipBytes {
    seq: usize,
    todo: usize,
    row: usize,
    bytes: Vec<u8>,
    failure: Option<Reject>,
    permit: Permit,
}

/// The writing thread's ends of the queues.
pub struct Queues {
    /// What workers finished. Ends when all of them have.
    pub events: Receiver<Event>,
    /// Row groups to encode; sending never waits. Drop it when no more will come.
    pub groups: Sender<RowGroup>,
}

/// Starts readers and workers. They end when every clip is done and `groups` is dropped.
pub fn start<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    work: &'env Work<'env>,
    budget: &ByteBudget,
    threads: usize,
) -> Queues {
    let (clip_sender, clips) = bounded(threads * READ_AHEAD_CLIPS);
    let (spare_sender, spare) = bounded(threads * READ_AHEAD_CLIPS + READ_THREADS);
    let (event_sender, events) = bounded(threads * 2);
    let (groups, group_receiver) = unbounded();
    let turn = Arc::new(Mutex::new(Turn { todo: 0, member: 0, seq: 0, readers: READ_THREADS, budget: budget.clone() }));
    let spawn = |name: String, body: Box<dyn FnOnce() + Send + 'scope>| {
        if let Err(source) = std::thread::Builder::new().name(name).spawn_scoped(scope, body) {
            // The receiver is alive: it is in our hands.
            let _ = event_sender.try_send(Event::Failed(RunError::Threads { source }));
        }
    };
    for number in 0..READ_THREADS {
        let (turn, sender, spare, events) = (turn.clone(), clip_sender.clone(), spare.clone(), event_sender.clone());
        spawn(
            format!("{WORKER_NAME}-read-{number}"),
            Box::new(move || {
                let result = read_clips(work, &turn, &sender, &spare);
                let mut turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                turn.readers -= 1;
                // The receiver lives until every sender is gone.
                let _ = match result {
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
            events: event_sender.clone(),
        };
        spawn(format!("{WORKER_NAME}-{number}"), Box::new(move || Worker::new(work).run(&ends)));
    }
    Queues { events, groups }
}

/// Threads whose panics become rejects; the panic hook stays silent in them.
pub const WORKER_NAME: &str = "wavemill-worker";

/// Larger read buffers are not kept: one 500-MB clip would hold that much to the end.
const SPARE_BYTES_MAX: usize = 16 << 20;

/// Whose turn it is: clips are numbered, and take their permits, in plan order.
struct Turn {
    todo: usize,
    member: usize,
    seq: usize,
    readers: usize,
    budget: ByteBudget,
}

impl Turn {
    fn next(&mut self, work: &Work<'_>) -> Option<(usize, usize, usize, Permit)> {
        while self.member == work.todo.get(self.todo)?.shard.members.len() {
            (self.todo, self.member) = (self.todo + 1, 0);
        }
        let row = work.todo[self.todo].shard.members[self.member];
        let bytes = work.source.index().get(&work.clips[row].clip_key).map_or(0, |id| id.bytes);
        let permit = self.budget.take(work.plan.charge(bytes));
        let next = (self.seq, self.todo, row, permit);
        self.member += 1;
        self.seq += 1;
        Some(next)
    }
}

fn read_clips(
    work: &Work<'_>,
    turn: &Mutex<Turn>,
    sender: &Sender<ClipBytes>,
    spare: &Receiver<Vec<u8>>,
) -> Result<(), RunError> {
    while !work.stop.load(Ordering::Relaxed) {
        let next = turn.lock().unwrap_or_else(PoisonError::into_inner).next(work);
        let Some((seq, todo, row, permit)) = next else { break };
        let start = cpu_time();
        let clip_key = &work.clips[row].clip_key;
        let mut bytes = spare.try_recv().unwrap_or_default();
        let read = catch_unwind(AssertUnwindSafe(|| work.source.read(clip_key, &mut bytes)));
        let failure = match read.unwrap_or_else(|panic| Err(ReadFailure::Reject(panicked(Stage::Read, &*panic)))) {
            Ok(()) => None,
            Err(ReadFailure::Reject(reject)) => Some(reject),
            Err(ReadFailure::Io(source)) => return Err(RunError::Read { clip_key: clip_key.clone(), source }),
        };
        work.counters.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        add_time(&work.counters.times.read, start);
        if sender.send(ClipBytes { seq, todo, row, bytes, failure, permit }).is_err() {
            break;
        }
    }
    Ok(())
}

struct Ends {
    clips: Receiver<ClipBytes>,
    groups: Receiver<RowGroup>,
    spare: Sender<Vec<u8>>,
    events: Sender<Event>,
}

struct Worker<'a> {
    work: &'a Work<'a>,
    state: Option<State>,
    pcm: Pcm,
}

/// What a panic leaves in doubt; made anew after one.
struct State {
    decoder: Box<dyn Decode>,
    extractor: Extractor,
}

impl<'a> Worker<'a> {
    fn new(work: &'a Work<'a>) -> Self {
        Self { work, state: None, pcm: Pcm::default() }
    }

    fn run(mut self, ends: &Ends) {
        let (no_clips, no_groups) = (never(), never());
        let (mut clips, mut groups) = (&ends.clips, &ends.groups);
        let (mut clips_left, mut groups_left) = (true, true);
        while clips_left || groups_left {
            // Encoding first: it gives memory back.
            let event = select_biased! {
                recv(groups) -> group => match group {
                    Ok(group) => self.encode(group),
                    Err(_) => { (groups_left, groups) = (false, &no_groups); continue }
                },
                recv(clips) -> clip => match clip {
                    Ok(clip) => self.clip(clip, ends),
                    Err(_) => { (clips_left, clips) = (false, &no_clips); continue }
                },
            };
            if ends.events.send(event).is_err() {
                return;
            }
        }
    }

    fn encode(&self, group: RowGroup) -> Event {
        let start = cpu_time();
        let label = self.work.todo[group.shard].shard.label();
        let Work { formats, clips, counters, .. } = self.work;
        let encoded = catch_unwind(AssertUnwindSafe(|| group.encode(formats, clips, &label)));
        add_time(&counters.times.encode, start);
        match encoded {
            Ok(Ok(group)) => Event::Encoded(group),
            Ok(Err(source)) => Event::Failed(source.into()),
            Err(panic) => Event::Failed(RunError::Panic { shard: label, words: panic_words(&*panic) }),
        }
    }

    fn clip(&mut self, clip: ClipBytes, ends: &Ends) -> Event {
        let ClipBytes { seq, todo, row, bytes, failure, permit } = clip;
        let key = &self.work.clips[row].clip_key;
        let id = self.work.source.index().get(key).copied();
        let content = if failure.is_some() { String::new() } else { blake3::hash(&bytes).to_hex().to_string() };
        let outcome = match failure {
            Some(reject) => Err(Failure::from(reject)),
            None => catch_unwind(AssertUnwindSafe(|| self.rows(todo, row, &bytes, permit))).unwrap_or_else(|panic| {
                self.state = None;
                self.pcm = Pcm::default();
                Err(panicked(Stage::Decode, &*panic).into())
            }),
        };
        let outcome = match outcome {
            Ok(rows) => Outcome::Rows(rows),
            Err(Failure::Reject(reject)) => self.rejected(row, *reject),
            Err(Failure::Run(error)) => return Event::Failed(*error),
        };
        if bytes.capacity() <= SPARE_BYTES_MAX {
            let _ = ends.spare.try_send(bytes);
        }
        self.work.counters.clips.fetch_add(1, Ordering::Relaxed);
        let seen = InputSeen { id, content };
        Event::Clip { seq, outcome, seen }
    }

    fn rejected(&self, row: usize, mut reject: Reject) -> Outcome {
        self.work.counters.rejects.fetch_add(1, Ordering::Relaxed);
        let clip = &self.work.clips[row];
        reject.clip_key = Some(clip.clip_key.clone());
        reject.track_id = Some(clip.track_id);
        Outcome::Rejected(reject)
    }

    fn rows(&mut self, todo: usize, row: usize, bytes: &[u8], mut permit: Permit) -> Result<Vec<FeatureRow>, Failure> {
        let Work { clips, plan, counters, .. } = self.work;
        let key = &clips[row].clip_key;
        inject_panic(key);
        let state = match &mut self.state {
            Some(state) => state,
            none => none.insert(State { decoder: plan.decoder()?, extractor: plan.extractor()? }),
        };
        let start = cpu_time();
        let extension = Path::new(key).extension().and_then(|e| e.to_str()).unwrap_or_default();
        state.decoder.decode(extension, bytes, &mut self.pcm)?;
        let decoded = add_time(&counters.times.decode, start);
        let split = &self.work.todo[todo].shard.split;
        let segments = state.extractor.segments(self.pcm.samples.len(), key, split);
        let segments = segments.map_err(|none| none.of_clip(&self.pcm))?;
        permit.decoded(segments.iter().map(|s| plan.row_bytes(s.len)).sum());
        let audio = Arc::new(AudioFacts {
            duration_s: self.pcm.duration_s,
            lost_s: self.pcm.lost_s,
            audio_blake3: self.pcm.audio_blake3.clone(),
            permit: Some(permit),
        });
        let rows = state.extractor.rows((row, key), &mut self.pcm, &segments, &audio);
        let rows = rows.map_err(|none| none.of_clip(&self.pcm))?;
        add_time(&counters.times.features, decoded);
        Ok(rows)
    }
}

/// Why a clip gave no rows.
enum Failure {
    Reject(Box<Reject>),
    Run(Box<RunError>),
}

impl From<Reject> for Failure {
    fn from(reject: Reject) -> Self {
        Self::Reject(Box::new(reject))
    }
}

impl From<FeatureError> for Failure {
    fn from(error: FeatureError) -> Self {
        Self::Run(Box::new(error.into()))
    }
}

impl From<NoRows> for Failure {
    fn from(none: NoRows) -> Self {
        match none {
            NoRows::Reject(reject) => Self::Reject(reject),
            NoRows::Error(error) => error.into(),
        }
    }
}

/// The tests name a clip whose decoding is to panic.
fn inject_panic(clip_key: &str) {
    fail_point!("worker-panic", |clip: Option<String>| assert_ne!(clip.as_deref(), Some(clip_key), "injected"));
}

fn panicked(stage: Stage, panic: &(dyn std::any::Any + Send)) -> Reject {
    Reject::new(stage, Reason::WorkerPanic, format!("the worker panicked on this clip: {}", panic_words(panic)))
}

fn panic_words(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref().cloned());
    words.unwrap_or_else(|| "no message".to_owned())
}

/// CPU time of the calling thread.
#[must_use]
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

fn add_time(total: &AtomicU64, start: Duration) -> Duration {
    let now = cpu_time();
    total.fetch_add(now.saturating_sub(start).as_nanos() as u64, Ordering::Relaxed);
    now
}
