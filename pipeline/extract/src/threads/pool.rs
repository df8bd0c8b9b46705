//! The threads of a run: readers read clips in plan order; workers decode them, compute features and encode row groups.
//! If a device computes features, workers only decode and encode, and the device's lanes ([`super::lanes`]) follow
//! them.
//!
//! Threads never wait in a cycle: workers wait for lanes, no thread waits for the writing thread, and the writing
//! thread waits for no other thread. Rows and row groups on their way to the writing thread and back are limited in
//! bytes by the rows' permits, not in number. Workers therefore continue while the writing thread syncs a file, which
//! can take as long as several clips. Clips are admitted in plan order ([`wavemill_runtime::budget`]), so the oldest
//! clip is always admitted. A batch waits for more clips only for a limited time, so its memory cannot block the clips
//! that follow.

use std::sync::{Arc, Mutex};
use std::thread::Scope;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use wavemill_runtime::panics::WORKER_NAME;
use wavemill_store::shards::RowGroup;

use super::event::Event;
use super::reader::{ReadOrder, ReaderQueues, read_all};
use super::spare_pcms::SparePcms;
use super::worker::{Worker, WorkerQueues};
use super::{Work, lanes};
use crate::error::ExtractError;
use crate::settings::{READ_AHEAD_CLIPS, READ_THREADS, REMOTE_READ_THREADS, SPARE_PCMS};

/// The ends of the queues that the writing thread uses.
pub(super) struct Queues {
    /// Results of the other threads. This queue is closed when all these threads have ended.
    pub events: Receiver<Event>,
    /// Row groups to encode; sending never waits. Must be dropped when no more row groups will be sent.
    pub groups: Sender<RowGroup>,
}

/// Starts the threads of one extraction.
pub(super) struct Spawner<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    events: Sender<Event>,
}

impl<'scope> Spawner<'scope, '_> {
    /// Starts a thread. If this fails, an event is sent that ends the run.
    pub(super) fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'scope) {
        let thread = std::thread::Builder::new().name(format!("{WORKER_NAME}-{name}"));
        if let Err(source) = thread.spawn_scoped(self.scope, body) {
            // The receiver still exists, because the thread that starts the others owns it.
            let failed = Event::Failed(ExtractError::no_thread(source));
            let _ = self.events.try_send(failed);
        }
    }
}

/// Starts readers, workers and lanes. These threads end when all clips are done and `groups` is dropped.
pub(super) fn start<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    work: &'env Work<'env>,
) -> Queues {
    let threads = work.limits.threads;
    let readers = if work.source.is_remote() {
        REMOTE_READ_THREADS
    } else {
        READ_THREADS
    };
    let (clip_sender, clips) = bounded(threads * READ_AHEAD_CLIPS);
    let (spare_sender, spare) = bounded(threads * READ_AHEAD_CLIPS + READ_THREADS);
    // These queues are not limited in number, because the permits of the rows limit both queues in bytes.
    let (event_sender, events) = unbounded();
    let (groups, group_receiver) = unbounded();

    let spawner = Spawner {
        scope,
        events: event_sender.clone(),
    };
    let in_batches = if work.features.is_batched() {
        let backend = work.features.backend();
        backend.lanes() * backend.batch_clips()
    } else {
        0
    };
    let spare_pcms = Arc::new(SparePcms::new(
        threads * SPARE_PCMS + in_batches,
        work.limits.spare_pcm_bytes,
    ));
    let device = work
        .features
        .is_batched()
        .then(|| lanes::start(&spawner, work, &event_sender, &spare_pcms));

    let order = Arc::new(Mutex::new(ReadOrder::new(readers)));
    for number in 0..readers {
        let order = Arc::clone(&order);
        let queues = ReaderQueues {
            clips: clip_sender.clone(),
            spare: spare.clone(),
            events: event_sender.clone(),
        };
        spawner.spawn(&format!("read-{number}"), move || {
            read_all(work, &order, &queues);
        });
    }

    for number in 0..threads {
        let queues = WorkerQueues {
            clips: clips.clone(),
            groups: group_receiver.clone(),
            spare: spare_sender.clone(),
            spare_pcms: Arc::clone(&spare_pcms),
            device: device.clone(),
            events: event_sender.clone(),
        };
        spawner.spawn(&number.to_string(), move || {
            Worker::new(work).run(&queues);
        });
    }
    // The senders that were cloned above are dropped here, so each queue ends when the threads that send to it end.
    Queues { events, groups }
}
