//! A reader thread: reads the bytes of clips and takes memory permits for all processing that follows.
//!
//! If the recipe limits the length of clips, the permit is taken before the file is read. Otherwise the file is read
//! first, because its headers give an upper bound on the length of the clip, for which the clip is then admitted. A
//! file that claims to be much longer than it is would take memory for nothing or even end the run. If a claim exceeds
//! a limit, the file is therefore decoded once without keeping samples, to find its true length or the reason to reject
//! it. A picture that exceeds the limits is rejected by its header and takes no memory for the size it claims.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender};
use wavemill_decode::{Decode, Pcm};
use wavemill_runtime::budget::{Permit, Refusal};
use wavemill_runtime::clock::cpu_time;
use wavemill_schemas::input::InputSeen;
use wavemill_schemas::reject::{Reject, Stage};
use wavemill_source::ReadFailure;
use wavemill_store::shards::TakenClip;

use super::clip::{ClipBytes, Ticket, extension, panicked};
use super::counters::add_time;
use super::event::Event;
use super::{Work, survey};
use crate::error::ExtractError;

/// The ends of the queues that a reader uses.
pub(super) struct ReaderQueues {
    /// Queue of clips for the workers.
    pub clips: Sender<ClipBytes>,
    /// Queue of empty file buffers that workers return.
    pub spare: Receiver<Vec<u8>>,
    /// Queue of events for the writing thread.
    pub events: Sender<Event>,
}

/// Reads clips until there are no more, or until the run is stopped. The last reader reports the number of clips.
pub(super) fn read_all(work: &Work<'_>, order: &Mutex<ReadOrder>, queues: &ReaderQueues) {
    let result = read_clips(work, order, queues);
    if result.is_err() {
        // Close the budget before locking `order`: the thread that holds the lock may be waiting for a permit.
        work.budget.close();
    }

    let mut order = lock(order);
    order.readers -= 1;
    let event = match result {
        // The thread that failed has already reported the error.
        Err(ExtractError::Elsewhere) => return,
        Err(error) => Event::Failed(error),
        Ok(()) if order.readers == 0 => Event::ReadDone { clips: order.seq },
        Ok(()) => return,
    };
    // Sending cannot fail: the receiver lives until all senders are dropped.
    let _ = queues.events.send(event);
}

fn read_clips(
    work: &Work<'_>,
    order: &Mutex<ReadOrder>,
    queues: &ReaderQueues,
) -> Result<(), ExtractError> {
    let mut reader = Reader::new(work);
    while !work.stop.load(Ordering::Relaxed) {
        // The lock is released before the clip is read.
        let next = lock(order).next(work)?;
        let Some((ticket, permit)) = next else { break };

        let buffer = queues.spare.try_recv().unwrap_or_default();
        let clip = reader.read(ticket, permit, buffer)?;
        // No worker is left to receive the clip, so the run has failed.
        if queues.clips.send(clip).is_err() {
            break;
        }
    }
    Ok(())
}

fn lock(order: &Mutex<ReadOrder>) -> MutexGuard<'_, ReadOrder> {
    order.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Determines which clip is read next. Clips are numbered and take their permits in plan order.
pub(super) struct ReadOrder {
    /// Index of the current shard among the shards to write.
    todo: usize,
    /// Index of the next clip among the members of that shard.
    member: usize,
    /// Number of clips handed out so far.
    seq: usize,
    /// Number of readers that are still running.
    readers: usize,
}

impl ReadOrder {
    /// Starts with the first clip, for the given number of readers.
    pub(super) const fn new(readers: usize) -> Self {
        Self {
            todo: 0,
            member: 0,
            seq: 0,
            readers,
        }
    }

    /// Returns the next clip with a permit. The permit covers all processing if the recipe limits the length of clips,
    /// otherwise only the file.
    fn next(&mut self, work: &Work<'_>) -> Result<Option<(Ticket, Permit)>, ExtractError> {
        let Some((todo, row)) = self.next_member(work) else {
            return Ok(None);
        };
        let clip_key = &work.clips[row].clip_key;
        let taken = work.taken.clips.get(&row);
        // If a clip's rows are copied from the parent, the clip's file is not read.
        let read_bytes = match taken {
            Some(_) => 0,
            None => work.source.read_bytes(clip_key),
        };

        // The caller holds the order's lock while this waits, so permits are taken in plan order.
        let permit = if work.features.is_closed() {
            let memory_bytes = match taken {
                Some(clip) => work.features.taken_memory_bytes(clip),
                None => work.features.closed_memory_bytes(read_bytes),
            };
            work.budget.enter(self.seq, memory_bytes)
        } else {
            work.budget.enter_file(self.seq, read_bytes)
        };
        let permit = permit.map_err(|refusal| {
            let media = work.source.media();
            ExtractError::refused(refusal, clip_key, read_bytes, media, work.limits.shares())
        })?;

        let ticket = Ticket {
            seq: self.seq,
            todo,
            row,
            seen: match taken {
                Some(clip) => clip.seen.clone(),
                None => InputSeen::unreadable(work.source.index().get(clip_key).copied()),
            },
        };
        self.member += 1;
        self.seq += 1;
        Ok(Some((ticket, permit)))
    }

    /// Returns the next shard with remaining members, and the row of its next member.
    fn next_member(&mut self, work: &Work<'_>) -> Option<(usize, usize)> {
        while self.member == work.todo.get(self.todo)?.shard.members.len() {
            self.todo += 1;
            self.member = 0;
        }
        Some((self.todo, work.todo[self.todo].shard.members[self.member]))
    }
}

/// The length of a clip, as far as it is known before decoding.
enum ClipLength {
    /// Upper bound on the length of the clip in seconds.
    AtMost(f64),
    Rejected(Reject),
}

/// State that a reader thread keeps from clip to clip.
struct Reader<'a> {
    work: &'a Work<'a>,
    /// Decoder for files that claim to be too large. It is dropped after a panic, which may leave it in an invalid
    /// state.
    decoder: Option<Box<dyn Decode>>,
}

impl<'a> Reader<'a> {
    const fn new(work: &'a Work<'a>) -> Self {
        Self {
            work,
            decoder: None,
        }
    }

    /// Reads a clip and waits until it is admitted.
    ///
    /// # Errors
    /// An error that names the clip, if its file cannot be read or does not fit into memory.
    fn read(
        &mut self,
        ticket: Ticket,
        permit: Permit,
        mut bytes: Vec<u8>,
    ) -> Result<ClipBytes, ExtractError> {
        if let Some(taken) = self.work.taken.clips.get(&ticket.row) {
            return self.let_in_taken(ticket, permit, taken);
        }

        let failure = self.read_file(&ticket, &mut bytes)?;
        let features = self.work.features;
        let mut clip = ClipBytes {
            ticket,
            bytes,
            longest_s: 0.0,
            failure,
            permit,
        };

        if features.is_closed() {
            // The decoder stops at `duration_s` anyway. Memory that is reserved but not used costs nothing, unless a
            // device's driver locks it, so only then is the claimed length needed.
            clip.longest_s = match features.is_batched() {
                true => claimed_s(&clip.bytes),
                false => f64::INFINITY,
            };
            return Ok(clip);
        }
        if clip.failure.is_none() && !features.is_of_images() {
            match self.longest_s(&mut clip.ticket, &clip.bytes)? {
                ClipLength::AtMost(longest_s) => clip.longest_s = longest_s,
                ClipLength::Rejected(reject) => clip.failure = Some(reject),
            }
        }
        self.let_in(clip)
    }

    /// Waits until there is memory for all processing of a clip whose file was read.
    fn let_in(&self, mut clip: ClipBytes) -> Result<ClipBytes, ExtractError> {
        let Work {
            source,
            clips,
            features,
            ..
        } = self.work;
        let clip_key = &clips[clip.ticket.row].clip_key;
        let seq = clip.ticket.seq;
        loop {
            // A clip without samples becomes a reject, and its file stays in memory until then.
            let file_bytes = clip.bytes.len() as u64;
            let wanted = match clip.failure {
                Some(_) => file_bytes,
                None if features.is_of_images() => features.picture_memory_bytes(&clip.bytes),
                None => features.memory_bytes(file_bytes, clip.longest_s),
            };
            let admitted = clip.permit.admit(seq, wanted);
            if admitted.map_err(|refusal| self.refused(refusal, clip_key, file_bytes))? {
                return Ok(clip);
            }

            // An earlier clip needs the memory of this file. The file is dropped, and read again once that clip is
            // admitted.
            clip.bytes = Vec::new();
            let read_bytes = source.read_bytes(clip_key);
            let taken = clip.permit.retake(seq, read_bytes);
            taken.map_err(|refusal| self.refused(refusal, clip_key, read_bytes))?;
            // The file of a clip that was rejected while it was measured is not read again.
            if clip.ticket.seen.content.is_empty() {
                clip.failure = self.read_file(&clip.ticket, &mut clip.bytes)?;
            }
        }
    }

    /// Waits until a clip whose rows are copied is admitted. Such a clip has no file in memory that could be dropped
    /// for an earlier clip.
    fn let_in_taken(
        &self,
        ticket: Ticket,
        mut permit: Permit,
        taken: &TakenClip,
    ) -> Result<ClipBytes, ExtractError> {
        let features = self.work.features;
        let clip_key = &self.work.clips[ticket.row].clip_key;
        let wanted = features.taken_memory_bytes(taken);
        // If the recipe limits the length of clips, the clip is already admitted.
        let mut is_in = features.is_closed();
        while !is_in {
            let admitted = permit.admit(ticket.seq, wanted);
            is_in = admitted.map_err(|refusal| self.refused(refusal, clip_key, 0))?;
            if !is_in {
                let retaken = permit.retake(ticket.seq, 0);
                retaken.map_err(|refusal| self.refused(refusal, clip_key, 0))?;
            }
        }

        Ok(ClipBytes {
            ticket,
            bytes: Vec::new(),
            longest_s: 0.0,
            failure: None,
            permit,
        })
    }

    fn refused(&self, refusal: Refusal, clip_key: &str, bytes: u64) -> ExtractError {
        let media = self.work.source.media();
        ExtractError::refused(refusal, clip_key, bytes, media, self.work.limits.shares())
    }

    /// Reads the clip's file. Returns a reject if the file cannot be read because of the clip itself.
    fn read_file(
        &self,
        ticket: &Ticket,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<Reject>, ExtractError> {
        let Work {
            source,
            clips,
            counters,
            ..
        } = self.work;
        let clip_key = &clips[ticket.row].clip_key;

        let start = cpu_time();
        // A panic while reading an entry of a zip file only rejects the clip.
        let read = catch_unwind(AssertUnwindSafe(|| source.read(clip_key, bytes)))
            .unwrap_or_else(|panic| Err(ReadFailure::Reject(panicked(Stage::Read, &*panic))));
        let failure = match read {
            Ok(()) => None,
            Err(ReadFailure::Reject(reject)) => Some(reject),
            Err(ReadFailure::Io(source)) => {
                return Err(ExtractError::not_read(clip_key, source));
            }
        };

        let n_bytes = bytes.len() as u64;
        counters.bytes.fetch_add(n_bytes, Ordering::Relaxed);
        add_time(&counters.times.read, start);
        Ok(failure)
    }

    /// Returns an upper bound on the clip's length in seconds. If the bound exceeds a limit, the clip is measured,
    /// which may reject it.
    fn longest_s(&mut self, ticket: &mut Ticket, bytes: &[u8]) -> Result<ClipLength, ExtractError> {
        let Work {
            features,
            limits,
            counters,
            ..
        } = self.work;
        let start = cpu_time();
        // The claimed length is infinite after a panic, so the clip is measured; if measuring panics too, the clip is
        // rejected.
        let claimed_s = claimed_s(bytes);
        let longest_s = features.clip_s(claimed_s);

        // The clip is too long for the recipe, or too large for memory, or its file claims a wrong length.
        let is_long = claimed_s > longest_s
            || features.memory_bytes(bytes.len() as u64, longest_s) > limits.in_flight_bytes;
        if !is_long {
            add_time(&counters.times.decode, start);
            return Ok(ClipLength::AtMost(longest_s));
        }

        let measured = self.measure(ticket, bytes)?;
        add_time(&counters.times.decode, start);
        if let ClipLength::Rejected(_) = measured {
            // The file was read completely, so its hashes are recorded together with the reject.
            let decode_key = survey::facts_of(bytes).decode;
            let content = blake3::hash(bytes);
            ticket.seen = InputSeen::read(ticket.seen.id, content, decode_key);
        }
        Ok(measured)
    }

    /// Decodes a clip without keeping samples and returns its length in seconds.
    fn measure(&mut self, ticket: &Ticket, bytes: &[u8]) -> Result<ClipLength, ExtractError> {
        let extension = extension(&self.work.clips[ticket.row].clip_key);
        let mut decoder = match self.decoder.take() {
            Some(decoder) => decoder,
            None => self.work.features.decoder()?,
        };

        let measured = catch_unwind(AssertUnwindSafe(|| {
            decoder.measure(extension, bytes, &mut Pcm::default())
        }));
        match measured {
            Ok(measured) => {
                self.decoder = Some(decoder);
                Ok(match measured {
                    Ok(seconds) => ClipLength::AtMost(seconds),
                    Err(reject) => ClipLength::Rejected(reject),
                })
            }
            Err(panic) => Ok(ClipLength::Rejected(panicked(Stage::Decode, &*panic))),
        }
    }
}

/// Returns the maximum length in seconds that the headers of a file allow, or infinity if reading them panics. Decoding
/// then reports the panic.
fn claimed_s(bytes: &[u8]) -> f64 {
    catch_unwind(AssertUnwindSafe(|| wavemill_decode::longest_s(bytes))).unwrap_or(f64::INFINITY)
}
