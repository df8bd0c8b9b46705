//! The states of a clip on its way through the threads of a run: file bytes, PCM samples, and a final event.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use wavemill_decode::Pcm;
use wavemill_runtime::budget::Permit;
use wavemill_schemas::input::InputSeen;
use wavemill_schemas::reject::{Reason, Reject, Stage};
use wavemill_schemas::text;
use wavemill_store::plan::segments::{Segment, end_of, plain};
use wavemill_store::shards::{FeatureRow, Outcome};

use super::Work;
use super::event::Event;
use crate::features::{NoRows, SegmentResults};

/// Identifies a clip among the threads of a run, and contains the hashes of its file.
pub(super) struct Ticket {
    /// Position of the clip in plan order.
    pub seq: usize,
    /// Index of the clip's shard among the shards to write.
    pub todo: usize,
    /// Index of the clip in the cleaned rows.
    pub row: usize,
    /// Hashes of the clip's file; marked as unreadable until the file was read.
    pub seen: InputSeen,
}

/// A clip whose file was read, on its way to a worker.
pub(super) struct ClipBytes {
    /// Identifies the clip.
    pub ticket: Ticket,
    /// Contents of the clip's file.
    pub bytes: Vec<u8>,
    /// Upper bound on the length of the clip in seconds.
    pub longest_s: f64,
    /// The reject, if the clip is already known to have no audio.
    pub failure: Option<Reject>,
    /// Permit for the largest amount of memory that the clip can need.
    pub permit: Permit,
}

/// A decoded clip on its way to the kernels.
pub(super) struct DecodedClip {
    /// Identifies the clip.
    pub ticket: Ticket,
    /// Samples of the clip at the recipe's rate, or at the file's rate for a device.
    pub pcm: Pcm,
    /// Segments that become the clip's rows, in samples at the recipe's rate.
    pub segments: Vec<Segment>,
    /// The clip's file, once for each feature that consists of it.
    pub originals: Vec<Vec<u8>>,
    /// Permit for the memory that the clip currently holds.
    pub permit: Permit,
}

impl Ticket {
    /// Counts the clip as done and creates its event for the writing thread.
    pub(super) fn end(self, work: &Work<'_>, result: Result<Vec<FeatureRow>, NoRows>) -> Event {
        let outcome = match result {
            Ok(rows) => Outcome::Rows(rows),
            Err(NoRows::Reject(reject)) => {
                work.counters.rejects.fetch_add(1, Ordering::Relaxed);
                Outcome::Rejected(self.named(*reject, work))
            }
            // The clip is not counted as done, because a resumed run decodes it again.
            Err(NoRows::Error(error)) => return Event::Failed(error),
        };

        work.counters.clips.fetch_add(1, Ordering::Relaxed);
        Event::Clip {
            seq: self.seq,
            outcome,
            seen: self.seen,
        }
    }

    /// Adds the key and track id of this clip to a reject.
    fn named(&self, mut reject: Reject, work: &Work<'_>) -> Reject {
        let clip = &work.clips[self.row];
        reject.clip_key = Some(clip.clip_key.clone());
        reject.track_id = Some(clip.track_id);
        reject
    }
}

impl DecodedClip {
    /// Reduces the permit from the worst case to the memory that is needed from here on: samples, rows, and the
    /// kernels' buffers.
    pub(super) fn hold(&mut self, work: &Work<'_>) {
        // The buffer's capacity is used, because a reused buffer may be longer than this clip.
        let end = end_of(plain(&self.segments));
        let n_pcm = self.pcm.samples.capacity().max(end);
        let n_out = self.pcm.n_samples;
        let features = work.features;
        let bytes = features.computing_bytes(n_pcm, n_out, &self.segments, self.file_bytes());
        self.permit.holds(bytes);
    }

    /// Appends zeros up to the end of the last plain row, which saves the kernels a copy.
    pub(super) fn pad(&mut self) {
        let end = end_of(plain(&self.segments));
        self.pcm.samples.pad_to(end, 0.0);
    }

    /// Returns the size of the clip's file, if a feature consists of it; otherwise 0.
    fn file_bytes(&self) -> u64 {
        self.originals.first().map_or(0, Vec::len) as u64
    }

    /// Returns the size of the samples in bytes.
    pub(super) fn pcm_bytes(&self) -> u64 {
        size_of_val(&self.pcm.samples[..]) as u64
    }

    /// Completes the clip with the results of the kernels. Returns the clip's event and its PCM buffer.
    pub(super) fn end(mut self, work: &Work<'_>, computed: SegmentResults) -> (Event, Pcm) {
        // From here on the permit only covers the rows, because the samples are returned to the decoders.
        let features = work.features;
        let rows_bytes = features.rows_bytes(&self.segments, self.file_bytes());
        self.permit.holds(rows_bytes);
        let Self {
            ticket,
            pcm,
            segments,
            originals,
            permit,
        } = self;

        // All rows of the clip share the permit, so that it is released with the last of them.
        let permit = Arc::new(permit);
        let clip_key = &work.clips[ticket.row].clip_key;
        let split = &work.todo[ticket.todo].shard.split;
        let rows = features
            .rows(ticket.row, clip_key, &segments, computed, originals, &pcm)
            .map(|mut rows| {
                // The other segments were computed only because each of them may reject the clip.
                let mut segments = segments.iter();
                rows.retain(|_| {
                    let segment = segments.next();
                    segment.is_none_or(|s| features.is_row_of(clip_key, s.variant, s.number, split))
                });
                for row in &mut rows {
                    row.permit = Some(Arc::clone(&permit));
                }
                rows
            })
            .map_err(|none| none.with_clip(&pcm));
        (ticket.end(work, rows), pcm)
    }
}

/// Creates the reject of a clip on which a thread panicked.
pub(super) fn panicked(stage: Stage, panic: &(dyn Any + Send)) -> Reject {
    let message = panic_message(panic);
    let detail = format!("the worker panicked on this clip: {message}");
    Reject::new(stage, Reason::WorkerPanic, detail)
}

/// Returns the message of a panic.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    text::panic_message(panic)
        .unwrap_or("no message")
        .to_owned()
}

/// Returns the file extension of a clip's key, or an empty string.
pub(super) fn extension(clip_key: &str) -> &str {
    Path::new(clip_key)
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default()
}
