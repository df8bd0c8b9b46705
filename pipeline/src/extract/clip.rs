//! A clip on its way through a run's threads: as bytes, as PCM, and as the event that ends it.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use wavemill_kernels::KernelError;
use wavemill_schemas::reject::{Reason, Reject, Stage};
use wavemill_schemas::text;

use super::event::Event;
use super::{ExtractError, Work};
use crate::budget::Permit;
use crate::decode::Pcm;
use crate::features::{FeatureError, NoRows, SegmentResults};
use crate::plan::segments::{Segment, end_of, plain};
use crate::shards::{AudioFacts, FeatureRow, Outcome};
use crate::source::InputSeen;

/// Which clip, and what was read of it.
pub(super) struct Ticket {
    /// Its place in plan order.
    pub seq: usize,
    /// Index into the shards to write.
    pub todo: usize,
    /// Index into the cleaned rows.
    pub row: usize,
    /// Of a file that could not be read, until it was read.
    pub seen: InputSeen,
}

/// Compressed bytes on their way to a worker.
pub(super) struct ClipBytes {
    /// Which clip.
    pub ticket: Ticket,
    /// The file.
    pub bytes: Vec<u8>,
    /// Seconds of audio that it has at most.
    pub longest_s: f64,
    /// Why there is no audio, where that is known already.
    pub failure: Option<Reject>,
    /// For all that the clip takes, at worst.
    pub permit: Permit,
}

/// PCM on its way to the kernels.
pub(super) struct DecodedClip {
    /// Which clip.
    pub ticket: Ticket,
    /// At the wanted rate, or at the file's for a device.
    pub pcm: Pcm,
    /// Its rows, in samples at the wanted rate.
    pub segments: Vec<Segment>,
    /// Charged at what is held now.
    pub permit: Permit,
}

impl Ticket {
    /// Counts the clip as done.
    pub(super) fn end(self, work: &Work<'_>, result: Result<Vec<FeatureRow>, Failure>) -> Event {
        let outcome = match result {
            Ok(rows) => Outcome::Rows(rows),
            Err(Failure::Reject(reject)) => {
                work.counters.rejects.fetch_add(1, Ordering::Relaxed);
                Outcome::Rejected(self.named(*reject, work))
            }
            // Not counted as done: a resumed run decodes the clip again.
            Err(Failure::Run(error)) => return Event::Failed(*error),
        };

        work.counters.clips.fetch_add(1, Ordering::Relaxed);
        Event::Clip {
            seq: self.seq,
            outcome,
            seen: self.seen,
        }
    }

    /// A reject of this clip.
    fn named(&self, mut reject: Reject, work: &Work<'_>) -> Reject {
        let clip = &work.clips[self.row];
        reject.clip_key = Some(clip.clip_key.clone());
        reject.track_id = Some(clip.track_id);
        reject
    }
}

impl DecodedClip {
    /// From the worst case to what it takes from here on: its samples, its rows, and the kernels' buffers.
    pub(super) fn hold(&mut self, work: &Work<'_>) {
        // The capacity, because a buffer that is used again may be longer than this clip.
        let end = end_of(plain(&self.segments));
        let n_pcm = self.pcm.samples.capacity().max(end);
        let n_out = self.pcm.n_samples;
        let bytes = work.features.computing_bytes(n_pcm, n_out, &self.segments);
        self.permit.holds(bytes);
    }

    /// Zeros up to the end of the last plain row, which spares the kernels a copy.
    pub(super) fn pad(&mut self) {
        let end = end_of(plain(&self.segments));
        self.pcm.samples.pad_to(end, 0.0);
    }

    /// Bytes of its samples.
    pub(super) fn pcm_bytes(&self) -> u64 {
        size_of_val(&self.pcm.samples[..]) as u64
    }

    /// Ends the clip with what kernels made of it, and gives its buffers back.
    pub(super) fn end(mut self, work: &Work<'_>, computed: SegmentResults) -> (Event, Pcm) {
        // From here on only the rows are held: the samples go back to the decoders.
        self.permit.holds(work.features.rows_bytes(&self.segments));
        let Self {
            ticket,
            pcm,
            segments,
            permit,
        } = self;

        // All rows of the clip share it, so that the last one of them gives the permit back.
        let audio = Arc::new(AudioFacts {
            duration_s: pcm.duration_s,
            lost_s: pcm.lost_s,
            audio_blake3: pcm.audio_blake3.clone(),
            permit: Some(permit),
        });
        let clip_key = &work.clips[ticket.row].clip_key;
        let rows = work
            .features
            .rows(ticket.row, clip_key, &segments, computed, &audio)
            .map_err(|none| none.of_clip(&pcm).into());
        (ticket.end(work, rows), pcm)
    }
}

/// Why a clip gave no rows.
pub(super) enum Failure {
    /// Its own fault.
    Reject(Box<Reject>),
    /// The recipe's, or the machine's.
    Run(Box<ExtractError>),
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

impl From<KernelError> for Failure {
    fn from(error: KernelError) -> Self {
        FeatureError::from(error).into()
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

/// The reject of a clip on which a thread panicked.
pub(super) fn panicked(stage: Stage, panic: &(dyn Any + Send)) -> Reject {
    let words = panic_words(panic);
    let detail = format!("the worker panicked on this clip: {words}");
    Reject::new(stage, Reason::WorkerPanic, detail)
}

/// What a panic said.
pub(super) fn panic_words(panic: &(dyn Any + Send)) -> String {
    text::panic_words(panic).unwrap_or("no message").to_owned()
}

/// What a clip's name says of its format.
pub(super) fn extension(clip_key: &str) -> &str {
    Path::new(clip_key)
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default()
}
