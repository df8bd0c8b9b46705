//! A worker thread: decodes one clip at a time, computes its features unless a device does, and encodes row groups.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, never, select_biased};
use fail::fail_point;
use wavemill_decode::{Decode, Pcm};
use wavemill_runtime::budget::Permit;
use wavemill_runtime::clock::cpu_time;
use wavemill_schemas::input::InputSeen;
use wavemill_schemas::reject::Stage;
use wavemill_store::plan::segments::Segment;
use wavemill_store::shards::{FeatureRow, RowGroup, RowReader, TakenClip, TakenRow};

use super::clip::{ClipBytes, DecodedClip, Ticket, extension, panic_message, panicked};
use super::counters::{add_time, add_wall};
use super::event::Event;
use super::spare_pcms::SparePcms;
use super::{Work, survey};
use crate::error::ExtractError;
use crate::features::{Extractor, NoRows, SegmentResults, StoredSources, encode_bytes};

/// The ends of the queues that a worker uses.
pub(super) struct WorkerQueues {
    /// Queue of clips to decode.
    pub clips: Receiver<ClipBytes>,
    /// Queue of row groups to encode.
    pub groups: Receiver<RowGroup>,
    /// Queue that returns empty file buffers to the readers.
    pub spare: Sender<Vec<u8>>,
    /// Free PCM buffers, shared by all threads.
    pub spare_pcms: Arc<SparePcms>,
    /// Queue of decoded clips for a device's lanes (threads), if there is a device.
    pub device: Option<Sender<DecodedClip>>,
    /// Queue of results for the writing thread.
    pub events: Sender<Event>,
}

/// State that a worker thread keeps from clip to clip.
pub(super) struct Worker<'a> {
    pub(super) work: &'a Work<'a>,
    // Decoder and extractor are dropped after a panic, which may leave them in an invalid state, and created again.
    decoder: Option<Box<dyn Decode>>,
    extractor: Option<Extractor>,
    /// Reads rows that are copied from the parent.
    rows: RowReader<'a>,
    /// Computes statistics from rows of the parent.
    sources: Option<StoredSources>,
}

impl<'a> Worker<'a> {
    /// Creates a worker without a decoder and kernels, which are created when they are first needed.
    pub(super) fn new(work: &'a Work<'a>) -> Self {
        Self {
            work,
            decoder: None,
            extractor: None,
            rows: RowReader::new(work.taken),
            sources: None,
        }
    }

    /// Processes clips and row groups until no more of them can arrive.
    pub(super) fn run(mut self, queues: &WorkerQueues) {
        let start = Instant::now();
        self.take_turns(queues);
        add_wall(&self.work.counters.workers.total, start);
    }

    fn take_turns(&mut self, queues: &WorkerQueues) {
        // A closed queue is replaced by a queue that never receives anything.
        let no_clips = never();
        let no_groups = never();
        let mut clips = Some(&queues.clips);
        let mut groups = Some(&queues.groups);

        let waiting = &self.work.counters.workers.waiting;
        while clips.is_some() || groups.is_some() {
            let start = Instant::now();
            // Encoding of row groups has priority over clips, because it frees memory.
            let event = select_biased! {
                recv(groups.unwrap_or(&no_groups)) -> group => {
                    add_wall(waiting, start);
                    match group {
                        Ok(group) => Some(self.encode(group)),
                        Err(_) => { groups = None; None }
                    }
                },
                recv(clips.unwrap_or(&no_clips)) -> clip => {
                    add_wall(waiting, start);
                    match clip {
                        Ok(clip) => self.clip(clip, queues),
                        Err(_) => { clips = None; None }
                    }
                },
            };

            // The writing thread has ended, so the run is over.
            if event.is_some_and(|event| queues.events.send(event).is_err()) {
                return;
            }
        }
    }

    fn encode(&self, group: RowGroup) -> Event {
        let Work {
            formats,
            clips,
            todo,
            counters,
            limits,
            encoding,
            features,
            ..
        } = self.work;

        // If rows are so large that only few can be encoded at a time, workers take turns.
        let tensors = group.rows.iter().flat_map(|row| &row.tensors);
        let largest = tensors.map(|tensor| tensor.bytes.len()).max();
        let wanted = encode_bytes(largest.unwrap_or(0) as u64);
        // Never more than the total, so the request is not refused. Memory for larger rows is included in the clip's
        // permit.
        let waiting_since = Instant::now();
        let _permit = encoding.take(wanted.min(limits.encode_bytes));
        add_wall(&counters.workers.waiting, waiting_since);

        let start = cpu_time();
        let label = todo[group.shard].shard.label();
        let give_back = |tensor| features.spare_tensors().give_back(tensor);
        let encoded = catch_unwind(AssertUnwindSafe(|| {
            group.encode(formats, clips, &label, &give_back)
        }));
        add_time(&counters.times.encode, start);
        match encoded {
            Ok(Ok(group)) => Event::Encoded(group),
            Ok(Err(source)) => Event::Failed(source.into()),
            Err(panic) => {
                let what = format!("shard {label}: encoding");
                Event::Failed(ExtractError::panicked(&what, &panic_message(&*panic)))
            }
        }
    }

    /// Decodes a clip and computes its features. Returns its event; `None` if a device computes the features.
    fn clip(&mut self, clip: ClipBytes, queues: &WorkerQueues) -> Option<Event> {
        if let Some(taken) = self.work.taken.clips.get(&clip.ticket.row) {
            return Some(self.take_over(clip.ticket, clip.permit, taken));
        }

        self.work
            .counters
            .clips_read
            .fetch_add(1, Ordering::Relaxed);
        if self.work.features.is_of_images() {
            return Some(self.picture(clip, queues));
        }
        let ClipBytes {
            mut ticket,
            bytes,
            longest_s,
            failure,
            permit,
        } = clip;

        let mut pcm = queues.spare_pcms.take(self.work.features.backend());
        let decoded = match failure {
            Some(reject) => Err(reject.into()),
            None => {
                let content = blake3::hash(&bytes);
                let decoded =
                    self.guarded(|worker| worker.decode(&ticket, &bytes, longest_s, &mut pcm));
                // The decode key of a rejected file must not depend on how much of it was decoded.
                let decode_key = match &decoded {
                    Ok(_) => pcm.decode_key,
                    Err(_) => survey::facts_of(&bytes).decode,
                };
                ticket.seen = InputSeen::read(ticket.seen.id, content, decode_key);
                decoded
            }
        };
        // The file's buffer is released before features are computed, unless a feature consists of the file: the permit
        // covers only one of the two.
        let originals = match &decoded {
            Ok(_) => self.originals(bytes, queues),
            Err(_) => {
                self.give_back(bytes, queues);
                Vec::new()
            }
        };

        let mut clip = match decoded {
            Ok(segments) => DecodedClip {
                ticket,
                pcm,
                segments,
                originals,
                permit,
            },
            Err(failure) => {
                queues.spare_pcms.give_back(pcm);
                return Some(ticket.end(self.work, Err(failure)));
            }
        };
        clip.hold(self.work);
        if let Some(device) = &queues.device {
            // Sending fails only if no lane is left. Then the run has already failed, and remaining clips are dropped.
            let waiting_since = Instant::now();
            let _ = device.send(clip);
            add_wall(&self.work.counters.workers.waiting, waiting_since);
            return None;
        }

        match self.guarded(|worker| worker.features(&mut clip)) {
            Ok(computed) => {
                self.forget_scratch(clip.pcm.n_samples, &clip.segments);
                let (event, pcm) = clip.end(self.work, computed);
                queues.spare_pcms.give_back(pcm);
                Some(event)
            }
            Err(failure) => {
                queues.spare_pcms.give_back(clip.pcm);
                Some(clip.ticket.end(self.work, Err(failure)))
            }
        }
    }

    /// Creates the event of a clip from its rows or its reject in an earlier version.
    fn take_over(&mut self, ticket: Ticket, permit: Permit, taken: &TakenClip) -> Event {
        let runs = match &taken.outcome {
            Ok(runs) => runs,
            Err(reject) => return ticket.end(self.work, Err(reject.clone().into())),
        };

        let start = cpu_time();
        let clip_key = &self.work.clips[ticket.row].clip_key;
        let read = catch_unwind(AssertUnwindSafe(|| {
            let mut rows = self.rows.rows(runs)?;
            self.derive(clip_key, &mut rows)?;
            Ok(rows)
        }));
        let rows = match read {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => return Event::Failed(error),
            Err(panic) => {
                let what = format!("{clip_key}: copying its rows");
                return Event::Failed(ExtractError::panicked(&what, &panic_message(&*panic)));
            }
        };
        let rows = self.of_today(&ticket, permit, taken, rows);
        add_time(&self.work.counters.times.take, start);
        ticket.end(self.work, Ok(rows))
    }

    /// Converts rows of an earlier version to rows of this one.
    fn of_today(
        &self,
        ticket: &Ticket,
        mut permit: Permit,
        taken: &TakenClip,
        rows: Vec<TakenRow>,
    ) -> Vec<FeatureRow> {
        let Work {
            clips,
            features,
            counters,
            todo,
            ..
        } = self.work;
        let (held_bytes, n_samples) = features.taken_bytes(taken);
        permit.holds(held_bytes);
        let clip_key = &clips[ticket.row].clip_key;
        let split = &todo[ticket.todo].shard.split;

        let permit = Arc::new(permit);
        let mut audio_blake3: Option<Arc<str>> = None;
        let mut wanted = Vec::with_capacity(rows.len());
        for TakenRow { mut facts, tensors } in rows {
            let Some(variant) = features.factor_of(facts.variant) else {
                continue;
            };
            if !features.is_row_of(clip_key, variant, facts.segment as usize, split) {
                continue;
            }
            // As after decoding, all rows of a clip share the hash of its audio.
            let shared = audio_blake3.get_or_insert(facts.audio_blake3);
            facts.audio_blake3 = Arc::clone(shared);
            wanted.push(FeatureRow {
                clip: ticket.row,
                facts,
                n_samples,
                permit: Some(Arc::clone(&permit)),
                tensors,
            });
        }

        let n_taken = wanted.len() * features.entries().len();
        counters
            .rows_taken
            .fetch_add(n_taken as u64, Ordering::Relaxed);
        wanted
    }

    /// Computes the statistics of which the parent stores the source, from the source's tensors in a clip's `rows`.
    fn derive(&mut self, clip_key: &str, rows: &mut [TakenRow]) -> Result<(), ExtractError> {
        let Work {
            features,
            taken,
            limits,
            ..
        } = self.work;
        if !features.derives_from(&taken.columns) {
            return Ok(());
        }

        let sources = match &mut self.sources {
            Some(sources) => sources,
            none => none.insert(StoredSources::new(features)?),
        };
        for row in rows {
            sources.derive(features, &taken.columns, clip_key, &mut row.tensors)?;
        }
        sources.forget_scratch_above(limits.kept_bytes);
        Ok(())
    }

    /// Returns a clip's file, once for each feature that consists of it. Without such a feature, the readers get the
    /// file's buffer.
    fn originals(&self, mut bytes: Vec<u8>, queues: &WorkerQueues) -> Vec<Vec<u8>> {
        let n_originals = self.work.features.n_originals();
        if n_originals == 0 {
            self.give_back(bytes, queues);
            return Vec::new();
        }

        // The permit covers the file's bytes, not the capacity of its buffer.
        bytes.shrink_to_fit();
        vec![bytes; n_originals]
    }

    /// Returns a file buffer to the readers for reuse.
    pub(super) fn give_back(&self, bytes: Vec<u8>, queues: &WorkerQueues) {
        if bytes.capacity() <= self.work.limits.kept_bytes {
            // If enough empty buffers are waiting, this one is dropped.
            let _ = queues.spare.try_send(bytes);
        }
    }

    /// Runs `body` and turns a panic into a reject of the clip, so that the run continues.
    pub(super) fn guarded<T>(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<T, NoRows>,
    ) -> Result<T, NoRows> {
        catch_unwind(AssertUnwindSafe(|| body(self))).unwrap_or_else(|panic| {
            self.decoder = None;
            self.extractor = None;
            Err(panicked(Stage::Decode, &*panic).into())
        })
    }

    fn decode(
        &mut self,
        ticket: &Ticket,
        bytes: &[u8],
        longest_s: f64,
        pcm: &mut Pcm,
    ) -> Result<Vec<Segment>, NoRows> {
        let Work {
            clips,
            features,
            counters,
            todo,
            ..
        } = self.work;
        let clip_key = &clips[ticket.row].clip_key;
        inject_panic(clip_key);

        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            none => none.insert(features.decoder()?),
        };
        let start = cpu_time();
        decoder.expect(longest_s);
        decoder.decode(extension(clip_key), bytes, pcm)?;
        add_time(&counters.times.decode, start);

        let split = &todo[ticket.todo].shard.split;
        features
            .segments(pcm.n_samples, clip_key, split)
            .map_err(|none| none.with_clip(pcm))
    }

    fn features(&mut self, clip: &mut DecodedClip) -> Result<SegmentResults, NoRows> {
        let Work {
            features, counters, ..
        } = self.work;
        let start = cpu_time();
        let extractor = match &mut self.extractor {
            Some(extractor) => extractor,
            none => none.insert(features.extractor(0)?),
        };

        clip.pad();
        let mut computed = extractor.run(&[(&clip.pcm, &clip.segments)])?;
        add_time(&counters.times.features, start);
        Ok(computed.pop().unwrap_or_default())
    }

    /// Frees buffers that grew with a long clip instead of keeping them for the next one.
    fn forget_scratch(&mut self, n_samples: usize, segments: &[Segment]) {
        let features = self.work.features;
        let longest = segments
            .iter()
            .map(|segment| segment.len)
            .max()
            .unwrap_or(0);
        let held_bytes =
            features.scratch_bytes(longest) + features.stretched_bytes(n_samples, segments);
        if held_bytes > self.work.limits.kept_bytes as u64
            && let Some(extractor) = &mut self.extractor
        {
            extractor.forget_scratch();
        }
    }
}

/// Lets tests name a clip whose decoding panics.
#[allow(unused_variables, reason = "without fail points the macro is empty")]
fn inject_panic(clip_key: &str) {
    fail_point!("worker-panic", |clip: Option<String>| assert_ne!(
        clip.as_deref(),
        Some(clip_key),
        "injected"
    ));
}
