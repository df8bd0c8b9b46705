//! A device's lanes: each is a thread that collects decoded clips into batches, computes them and ends them.
//!
//! A lane is one stream of one device. Two lanes a device make one batch ready and fetch the rows of another while the
//! device computes a third. A lane whose device fails hands its batch to the others and ends; with the last one the run
//! ends. What a clip gives does not depend on its batch, so who computes it, and beside what, changes no byte.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use fail::fail_point;
use wavemill_kernels::KernelError;

use super::clip::{DecodedClip, panic_words};
use super::counters::{add_time, add_wall, cpu_time};
use super::event::Event;
use super::pool::Spawner;
use super::spare_pcms::SparePcms;
use super::{ExtractError, Work};
use crate::features::{Extractor, SegmentResults};
use crate::settings::{BATCH_SHARE, BATCH_WAIT_MS_MAX};

/// Starts a thread a lane. They end when every sender of what is returned is dropped.
pub(super) fn start<'env>(
    spawner: &Spawner<'_, 'env>,
    work: &'env Work<'env>,
    events: &Sender<Event>,
    spare_pcms: &Arc<SparePcms>,
) -> Sender<DecodedClip> {
    let backend = work.features.backend();
    let lanes = backend.lanes();
    // Beside what lanes hold, one clip a lane: a longer queue would be a batch that nobody computes.
    let (clip_sender, clips) = bounded(lanes);
    // A lane hands on one batch in its life, so none waits for room.
    let (hand, handed) = bounded(lanes);
    let shared = Arc::new(LaneGroup {
        turn: Mutex::new(()),
        working: AtomicUsize::new(lanes),
        batch_clips: backend.batch_clips(),
        batch_bytes: work.limits.in_flight_bytes / BATCH_SHARE / lanes.max(1) as u64,
    });

    for number in 0..lanes {
        let lane = Lane {
            number,
            work,
            shared: Arc::clone(&shared),
            clips: clips.clone(),
            handed: handed.clone(),
            spare_pcms: Arc::clone(spare_pcms),
            events: events.clone(),
        };
        let hand = hand.clone();
        spawner.spawn(&format!("lane-{number}"), move || lane.run(hand));
    }
    clip_sender
}

/// What lanes have in common.
struct LaneGroup {
    /// Held while a batch is collected: one full batch goes sooner than two half ones.
    turn: Mutex<()>,
    /// Lanes that have not failed.
    working: AtomicUsize,
    batch_clips: usize,
    batch_bytes: u64,
}

/// Some clips, and the way to another lane. As long as one exists, lanes wait for what may come from it.
struct Batch {
    clips: Vec<DecodedClip>,
    hand: Sender<Batch>,
}

struct Lane<'a> {
    number: usize,
    work: &'a Work<'a>,
    shared: Arc<LaneGroup>,
    clips: Receiver<DecodedClip>,
    handed: Receiver<Batch>,
    spare_pcms: Arc<SparePcms>,
    events: Sender<Event>,
}

impl Lane<'_> {
    /// Computes batches until no clip can come any more. What ends the run is an event; a panic is a fault of wavemill.
    fn run(self, hand: Sender<Batch>) {
        let computed = catch_unwind(AssertUnwindSafe(|| self.compute_all(hand)));
        let result = computed.unwrap_or_else(|panic| {
            Err(ExtractError::Panic {
                what: format!("computing features on lane {}", self.number),
                words: panic_words(&*panic),
            })
        });
        if let Err(error) = result {
            // The receiver lives until every sender is gone.
            let _ = self.events.send(Event::Failed(error));
        }
    }

    /// Errors: no lane is left that works.
    fn compute_all(&self, hand: Sender<Batch>) -> Result<(), ExtractError> {
        let start = Instant::now();
        let result = match self.work.features.extractor(self.number) {
            Ok(extractor) => self.compute_batches(extractor, hand),
            Err(error) => {
                // A device that refuses to be planned for has failed, with no clip in hand.
                let clips = Vec::new();
                self.retire(Batch { clips, hand }, error)
            }
        };
        add_wall(&self.work.counters.lanes.total, start);
        result
    }

    fn compute_batches(
        &self,
        mut extractor: Extractor,
        hand: Sender<Batch>,
    ) -> Result<(), ExtractError> {
        while let Some(batch) = self.collect(&hand) {
            if let Err((batch, error)) = self.finish(&mut extractor, batch) {
                return self.retire(batch, error);
            }
        }

        // No clip comes any more, but another lane may still fail at its last batch.
        drop(hand);
        for batch in &self.handed {
            if let Err((batch, error)) = self.finish(&mut extractor, batch) {
                return self.retire(batch, error);
            }
        }
        Ok(())
    }

    /// A batch of another lane, or of what comes within the time limit; `None` when no clip can come any more.
    fn collect(&self, hand: &Sender<Batch>) -> Option<Batch> {
        let LaneGroup {
            turn,
            batch_clips,
            batch_bytes,
            ..
        } = &*self.shared;
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let first = select! {
            recv(self.handed) -> batch => return batch.ok(),
            recv(self.clips) -> clip => clip.ok()?,
        };
        let deadline = Instant::now() + Duration::from_millis(BATCH_WAIT_MS_MAX);

        let mut pcm_bytes = first.pcm_bytes();
        let mut clips = vec![first];
        while clips.len() < *batch_clips && pcm_bytes < *batch_bytes {
            let Ok(clip) = self.clips.recv_deadline(deadline) else {
                break;
            };
            pcm_bytes += clip.pcm_bytes();
            clips.push(clip);
        }
        Some(Batch {
            clips,
            hand: hand.clone(),
        })
    }

    /// Computes a batch and ends its clips; gives the batch back where the device fails.
    fn finish(&self, extractor: &mut Extractor, batch: Batch) -> Result<(), (Batch, KernelError)> {
        let computed = match self.compute(extractor, &batch.clips) {
            Ok(computed) => computed,
            Err(error) => return Err((batch, error)),
        };
        for (clip, computed) in batch.clips.into_iter().zip(computed) {
            let (event, pcm) = clip.end(self.work, computed);
            self.spare_pcms.give_back(pcm);
            // The receiver lives until every sender is gone.
            let _ = self.events.send(event);
        }
        Ok(())
    }

    /// By halves where that fails: what does not fit on a device in one batch may fit in two. A device that is gone fails
    /// at the first clip.
    fn compute(
        &self,
        extractor: &mut Extractor,
        clips: &[DecodedClip],
    ) -> Result<Vec<SegmentResults>, KernelError> {
        match self.compute_whole(extractor, clips) {
            Err(_) if clips.len() > 1 => {
                let (first, second) = clips.split_at(clips.len() / 2);
                let mut computed = self.compute(extractor, first)?;
                computed.extend(self.compute(extractor, second)?);
                Ok(computed)
            }
            done => done,
        }
    }

    fn compute_whole(
        &self,
        extractor: &mut Extractor,
        clips: &[DecodedClip],
    ) -> Result<Vec<SegmentResults>, KernelError> {
        inject_failure(self.number)?;
        inject_full(clips.len())?;
        let counters = &self.work.counters;
        let lanes = &counters.lanes;

        let start = Instant::now();
        let cpu_start = cpu_time();
        let wanted: Vec<_> = clips
            .iter()
            .map(|clip| (&clip.pcm, clip.segments.as_slice()))
            .collect();
        let computed = extractor.run(&wanted)?;

        add_time(&counters.times.features, cpu_start);
        add_wall(&lanes.busy, start);
        lanes.batches.fetch_add(1, Ordering::Relaxed);
        lanes.clips.fetch_add(clips.len() as u64, Ordering::Relaxed);
        let n_slow = clips.iter().filter(|clip| clip.pcm.samples.lacks_lock());
        lanes
            .slow_clips
            .fetch_add(n_slow.count() as u64, Ordering::Relaxed);
        Ok(computed)
    }

    /// Ends this lane: its device failed. Others go on with its batch.
    ///
    /// Errors: there are none.
    fn retire(&self, batch: Batch, source: KernelError) -> Result<(), ExtractError> {
        // Each lane counts down once, so one lane alone finds that it is the last.
        if self.shared.working.fetch_sub(1, Ordering::AcqRel) == 1 {
            return Err(ExtractError::Device { source });
        }

        let words = format!("a device failed, others went on: {source}");
        self.work.counters.lanes.fail(words);
        let Batch { clips, hand } = batch;
        if !clips.is_empty() {
            // Another lane works, so there is a receiver; and there is room.
            let _ = hand.send(Batch {
                clips,
                hand: hand.clone(),
            });
        }
        Ok(())
    }
}

/// The tests say how many clips a device is to hold.
#[allow(unused_variables, reason = "without fail points the macro is empty")]
fn inject_full(clips: usize) -> Result<(), KernelError> {
    fail_point!("device-full", |most: Option<String>| {
        let most: Option<usize> = most.and_then(|most| most.parse().ok());
        if most.is_none_or(|most| clips <= most) {
            return Ok(());
        }
        Err(KernelError::Device {
            device: "injected".to_owned(),
            action: "allocate",
            detail: format!("{clips} clips do not fit"),
        })
    });
    Ok(())
}

/// The tests name lanes whose device is to fail, such as `0,1`; without a name it is all of them.
#[allow(unused_variables, reason = "without fail points the macro is empty")]
fn inject_failure(lane: usize) -> Result<(), KernelError> {
    fail_point!("device-fails", |lanes: Option<String>| {
        let is_meant = match lanes {
            Some(lanes) => lanes.split(',').any(|name| name.parse() == Ok(lane)),
            None => true,
        };
        if !is_meant {
            return Ok(());
        }
        Err(KernelError::Device {
            device: format!("lane {lane}"),
            action: "compute",
            detail: "injected".to_owned(),
        })
    });
    Ok(())
}
