//! Lanes: threads of a GPU that collect decoded clips into batches, compute features and send rows to the writer.
//!
//! A lane is one stream of one device. With two lanes per device, one batch is prepared and the rows of another are
//! fetched while the device computes a third. A lane whose device fails hands its batch to the other lanes and ends; if
//! the last lane fails, the run ends. The result of a clip does not depend on its batch, so it does not matter which
//! lane computes it, or with which other clips. A clip that is too large for a device is computed on the CPU.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use fail::fail_point;
use wavemill_kernels::KernelError;
use wavemill_runtime::clock::cpu_time;
use wavemill_schemas::exit::PlainError;

use super::Work;
use super::clip::{DecodedClip, panic_message};
use super::counters::{add_time, add_wall};
use super::event::Event;
use super::pool::Spawner;
use super::spare_pcms::SparePcms;
use crate::error::ExtractError;
use crate::features::{Extractor, SegmentResults};
use crate::settings::{BATCH_SHARE, BATCH_WAIT_MS_MAX, SPARE_BYTES_MAX};

/// Starts one thread per lane. The threads end when all clones of the returned sender are dropped.
pub(super) fn start<'env>(
    spawner: &Spawner<'_, 'env>,
    work: &'env Work<'env>,
    events: &Sender<Event>,
    spare_pcms: &Arc<SparePcms>,
) -> Sender<DecodedClip> {
    let backend = work.features.backend();
    let lanes = backend.lanes();
    // The queue holds one clip per lane, in addition to the clips that lanes hold: a longer queue would be a batch that
    // no lane computes.
    let (clip_sender, clips) = bounded(lanes);
    // A lane hands over at most one batch to other lanes, so sending never waits for space.
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

/// State shared by all lanes of a run.
struct LaneGroup {
    /// Locked while a lane collects a batch, because one full batch is faster than two half-full ones.
    turn: Mutex<()>,
    /// Number of lanes that have not failed.
    working: AtomicUsize,
    batch_clips: usize,
    batch_bytes: u64,
}

/// Clips to compute together, and the sender that hands them to another lane. While a batch exists, lanes wait for
/// clips that may be handed over.
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
    /// Computes batches until no more clips can arrive. An error is sent as an event that ends the run; a panic is a
    /// bug in wavemill.
    fn run(self, hand: Sender<Batch>) {
        let computed = catch_unwind(AssertUnwindSafe(|| self.compute_all(hand)));
        let result = computed.unwrap_or_else(|panic| {
            let what = format!("computing features on lane {}", self.number);
            Err(ExtractError::panicked(&what, &panic_message(&*panic)))
        });
        if let Err(error) = result {
            // Sending an event cannot fail: the receiver lives until all senders are dropped.
            let _ = self.events.send(Event::Failed(error));
        }
    }

    /// # Errors
    /// The error of the last device, if no working lane is left.
    fn compute_all(&self, hand: Sender<Batch>) -> Result<(), ExtractError> {
        let start = Instant::now();
        let result = match self.work.features.extractor(self.number) {
            Ok(extractor) => self.compute_batches(extractor, hand),
            Err(error) => {
                // If kernels cannot be planned on a device, the device has failed before its lane received clips.
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

        // No more clips arrive, but another lane may still fail while computing its last batch.
        drop(hand);
        for batch in &self.handed {
            if let Err((batch, error)) = self.finish(&mut extractor, batch) {
                return self.retire(batch, error);
            }
        }
        Ok(())
    }

    /// Returns a batch of a failed lane, or a batch of the clips that arrive within the time limit; `None` if no more
    /// clips can arrive.
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

    /// Computes a batch and sends events for its clips; returns the batch if that fails.
    fn finish(&self, extractor: &mut Extractor, batch: Batch) -> Result<(), (Batch, KernelError)> {
        let computed = match self.compute(extractor, &batch.clips) {
            Ok(computed) => computed,
            Err(error) => return Err((batch, error)),
        };
        // Most clips need far less memory than a long one, whose memory is useful for other programs on the device.
        if batch
            .clips
            .iter()
            .any(|clip| clip.pcm_bytes() > SPARE_BYTES_MAX)
        {
            extractor.forget_scratch();
        }

        for (clip, computed) in batch.clips.into_iter().zip(computed) {
            let (event, pcm) = clip.end(self.work, computed);
            self.spare_pcms.give_back(pcm);
            // Sending an event cannot fail: the receiver lives until all senders are dropped.
            let _ = self.events.send(event);
        }
        Ok(())
    }

    /// Computes the features of clips as one batch, or in halves if they are too large for the device. A clip that is
    /// too large by itself is computed on the CPU.
    fn compute(
        &self,
        extractor: &mut Extractor,
        clips: &[DecodedClip],
    ) -> Result<Vec<SegmentResults>, KernelError> {
        match self.compute_whole(extractor, clips) {
            Err(KernelError::TooLarge(_)) => {
                // The memory that was allocated for all clips may be what their parts lack.
                extractor.forget_scratch();
                if let [clip] = clips {
                    return self.compute_on_cpu(clip);
                }
                let (first, second) = clips.split_at(clips.len() / 2);
                let mut computed = self.compute(extractor, first)?;
                computed.extend(self.compute(extractor, second)?);
                Ok(computed)
            }
            done => done,
        }
    }

    /// Computes a clip with kernels of its own: such clips are rare, and no memory is kept for them.
    fn compute_on_cpu(&self, clip: &DecodedClip) -> Result<Vec<SegmentResults>, KernelError> {
        let counters = &self.work.counters;
        let cpu_start = cpu_time();
        let mut extractor = self.work.features.extractor_on_cpu()?;
        let computed = extractor.run(&[(&clip.pcm, &clip.segments)])?;

        add_time(&counters.times.features, cpu_start);
        counters.lanes.cpu_clips.fetch_add(1, Ordering::Relaxed);
        Ok(computed)
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

    /// Ends this lane after its device failed, and hands its batch to the other lanes.
    ///
    /// # Errors
    /// The error of the device, if this was the last lane. An error that is not the device's, because it would occur on
    /// every lane.
    fn retire(&self, batch: Batch, source: KernelError) -> Result<(), ExtractError> {
        let is_of_device = matches!(
            source,
            KernelError::Device { .. } | KernelError::TooLarge(_)
        );
        if !is_of_device {
            return Err(source.into());
        }

        // Each lane decrements the counter once, so exactly one lane sees that it is the last.
        if self.shared.working.fetch_sub(1, Ordering::AcqRel) == 1 {
            let error = PlainError::failed(
                "all devices have failed; run the same command again to continue, optionally with other --devices",
            );
            return Err(error.caused_by(source).into());
        }

        let message = format!("a device failed, others went on: {source}");
        self.work.counters.lanes.fail(message);
        let Batch { clips, hand } = batch;
        if !clips.is_empty() {
            // Another lane is working, so the handed batch has a receiver, and the queue has space.
            let _ = hand.send(Batch {
                clips,
                hand: hand.clone(),
            });
        }
        Ok(())
    }
}

/// Lets tests limit the number of clips that fit on a device.
#[allow(unused_variables, reason = "without fail points the macro is empty")]
fn inject_full(clips: usize) -> Result<(), KernelError> {
    fail_point!("device-full", |most: Option<String>| {
        let most: Option<usize> = most.and_then(|most| most.parse().ok());
        if most.is_none_or(|most| clips <= most) {
            return Ok(());
        }
        Err(KernelError::TooLarge(format!(
            "injected: {clips} clips do not fit"
        )))
    });
    Ok(())
}

/// Lets tests name lanes whose device fails, such as `0,1`; without a name, all lanes fail.
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
