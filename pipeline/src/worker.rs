//! One worker: decodes a clip at a time, computes its features where no device does, and encodes row groups.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crossbeam_channel::{Receiver, Sender, never, select_biased};
use fail::fail_point;
use wavemill_schemas::reject::Stage;

use crate::budget::Permit;
use crate::clip::{ClipBytes, DecodedClip, Failure, Ticket, panic_words, panicked};
use crate::decode::{Decode, Pcm};
use crate::event::Event;
use crate::features::{Computed, Extractor};
use crate::pool::{Work, add_time, cpu_time};
use crate::run::RunError;
use crate::segments::Segment;
use crate::shards::RowGroup;

/// A worker's ends of the queues.
pub struct Ends {
    /// What to decode.
    pub clips: Receiver<ClipBytes>,
    /// What to encode.
    pub groups: Receiver<RowGroup>,
    /// Where read buffers go back.
    pub spare: Sender<Vec<u8>>,
    /// Where PCM buffers go back and come from.
    pub pcms: (Sender<Pcm>, Receiver<Pcm>),
    /// To a device's lanes, where there is one.
    pub device: Option<Sender<DecodedClip>>,
    /// What is done.
    pub events: Sender<Event>,
}

/// What a thread keeps from clip to clip.
pub struct Worker<'a> {
    work: &'a Work<'a>,
    // A panic leaves both in doubt; they are made anew after one.
    decoder: Option<Box<dyn Decode>>,
    extractor: Option<Extractor>,
}

impl<'a> Worker<'a> {
    /// A worker that has planned nothing yet.
    #[must_use]
    pub const fn new(work: &'a Work<'a>) -> Self {
        Self { work, decoder: None, extractor: None }
    }

    /// Works until neither clips nor row groups can come.
    pub fn run(mut self, ends: &Ends) {
        let (no_clips, no_groups) = (never(), never());
        let (mut clips, mut groups) = (&ends.clips, &ends.groups);
        let (mut clips_left, mut groups_left) = (true, true);
        while clips_left || groups_left {
            // Encoding first: it gives memory back.
            let event = select_biased! {
                recv(groups) -> group => match group {
                    Ok(group) => Some(self.encode(group)),
                    Err(_) => { (groups_left, groups) = (false, &no_groups); None }
                },
                recv(clips) -> clip => match clip {
                    Ok(clip) => self.clip(clip, ends),
                    Err(_) => { (clips_left, clips) = (false, &no_clips); None }
                },
            };
            if event.is_some_and(|event| ends.events.send(event).is_err()) {
                return;
            }
        }
    }

    fn encode(&self, group: RowGroup) -> Event {
        // Where rows are so large that few can be encoded at a time, workers take turns.
        let Work { plan, encoding, limits, .. } = self.work;
        let wanted = group.rows.iter().map(|row| plan.encode_bytes(row.n_samples)).max().unwrap_or(0);
        let _permit = encoding.take(wanted.min(limits.encode_bytes));
        let start = cpu_time();
        let label = self.work.todo[group.shard].shard.label();
        let Work { formats, clips, counters, .. } = self.work;
        let encoded = catch_unwind(AssertUnwindSafe(|| group.encode(formats, clips, &label)));
        add_time(&counters.times.encode, start);
        match encoded {
            Ok(Ok(group)) => Event::Encoded(group),
            Ok(Err(source)) => Event::Failed(source.into()),
            Err(panic) => {
                Event::Failed(RunError::Panic { what: format!("shard {label}: encoding"), words: panic_words(&*panic) })
            }
        }
    }

    /// What became of a clip; `None` where a device goes on with it.
    fn clip(&mut self, clip: ClipBytes, ends: &Ends) -> Option<Event> {
        let ClipBytes { mut ticket, bytes, longest_s, failure, permit } = clip;
        let decoded = match failure {
            Some(reject) => Err(reject.into()),
            None => {
                ticket.seen.content = blake3::hash(&bytes).to_hex().to_string();
                let pcm = ends.pcms.1.try_recv().unwrap_or_default();
                self.guarded(|worker| worker.decode(&ticket, (&bytes, longest_s), (pcm, permit)))
            }
        };
        let kept_bytes = self.work.limits.kept_bytes;
        if bytes.capacity() <= kept_bytes {
            let _ = ends.spare.try_send(bytes);
        } else {
            drop(bytes);
        }
        let mut clip = match decoded {
            Ok((pcm, segments, permit)) => DecodedClip { ticket, pcm, segments, permit },
            Err(failure) => return Some(ticket.end(self.work, Err(failure))),
        };
        clip.hold(self.work);
        if let Some(device) = &ends.device {
            // Where no lane is left the run has failed already, and clips are only drained.
            let _ = device.send(clip);
            return None;
        }
        Some(match self.guarded(|worker| worker.features(&mut clip)) {
            Ok(computed) => {
                self.forget_scratch(&clip.segments);
                let (event, pcm) = clip.end(self.work, computed);
                give_back(&ends.pcms.0, pcm, kept_bytes);
                event
            }
            Err(failure) => clip.ticket.end(self.work, Err(failure)),
        })
    }

    /// A panic costs its clip, not the run.
    fn guarded<T>(&mut self, body: impl FnOnce(&mut Self) -> Result<T, Failure>) -> Result<T, Failure> {
        catch_unwind(AssertUnwindSafe(|| body(self))).unwrap_or_else(|panic| {
            (self.decoder, self.extractor) = (None, None);
            Err(panicked(Stage::Decode, &*panic).into())
        })
    }

    fn decode(
        &mut self,
        ticket: &Ticket,
        (bytes, longest_s): (&[u8], f64),
        (mut pcm, permit): (Pcm, Permit),
    ) -> Result<(Pcm, Vec<Segment>, Permit), Failure> {
        let Work { clips, plan, counters, todo, .. } = self.work;
        let key = &clips[ticket.row].clip_key;
        inject_panic(key);
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            none => none.insert(plan.decoder()?),
        };
        let start = cpu_time();
        let extension = Path::new(key).extension().and_then(|e| e.to_str()).unwrap_or_default();
        decoder.expect(longest_s);
        decoder.decode(extension, bytes, &mut pcm)?;
        add_time(&counters.times.decode, start);
        let segments = plan.segments(pcm.n_samples, key, &todo[ticket.todo].shard.split);
        let segments = segments.map_err(|none| none.of_clip(&pcm))?;
        Ok((pcm, segments, permit))
    }

    fn features(&mut self, clip: &mut DecodedClip) -> Result<Computed, Failure> {
        let Work { plan, counters, .. } = self.work;
        let start = cpu_time();
        let extractor = match &mut self.extractor {
            Some(extractor) => extractor,
            none => none.insert(plan.extractor(0)?),
        };
        clip.pad();
        let computed = extractor.run(&[(&clip.pcm, &clip.segments)])?.pop().unwrap_or_default();
        add_time(&counters.times.features, start);
        Ok(computed)
    }

    /// Buffers that grew with a long clip are not kept for the next one.
    fn forget_scratch(&mut self, segments: &[Segment]) {
        let longest = segments.iter().map(|segment| segment.len).max().unwrap_or(0);
        if self.work.plan.scratch_bytes(longest) > self.work.limits.kept_bytes as u64
            && let Some(extractor) = &mut self.extractor
        {
            extractor.forget_scratch();
        }
    }
}

/// Keeps a buffer for the next clip, where there is room.
pub fn give_back(pcms: &Sender<Pcm>, pcm: Pcm, kept_bytes: usize) {
    if pcm.samples.capacity() * size_of::<f32>() <= kept_bytes {
        let _ = pcms.try_send(pcm);
    }
}

/// The tests name a clip whose decoding is to panic.
fn inject_panic(clip_key: &str) {
    fail_point!("worker-panic", |clip: Option<String>| assert_ne!(clip.as_deref(), Some(clip_key), "injected"));
}
