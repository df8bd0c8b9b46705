//! One reader: a clip's bytes, and a permit for all that will be made of them.
//!
//! Where the recipe bounds the length of clips, the permit was taken before. Where it does not, the file is read first:
//! it tells how long the clip can be at most, and with that the clip is let in. A file that claims far more than it
//! holds would take memory for nothing, or end the run; so where a claim is over a limit, the file is decoded once into
//! nothing, which tells its true length or that it is a reject.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;

use wavemill_schemas::reject::{Reject, Stage};

use crate::budget::Permit;
use crate::clip::{ClipBytes, Ticket, panicked};
use crate::decode::{Decode, Pcm};
use crate::pool::{Work, add_time, cpu_time};
use crate::run::RunError;
use crate::source::ReadFailure;

/// What a reading thread keeps from clip to clip.
pub struct Reader<'a> {
    work: &'a Work<'a>,
    /// For files whose claims are too large; a panic leaves it in doubt, and it is made anew.
    decoder: Option<Box<dyn Decode>>,
}

impl<'a> Reader<'a> {
    /// A reader that has planned nothing yet.
    #[must_use]
    pub const fn new(work: &'a Work<'a>) -> Self {
        Self { work, decoder: None }
    }

    /// Reads a clip and has it let in.
    ///
    /// # Errors
    /// [`RunError::Read`] where the machine fails, [`RunError::ClipMemory`] where the clip does not fit into memory.
    pub fn read(&mut self, mut ticket: Ticket, mut permit: Permit, bytes: Vec<u8>) -> Result<ClipBytes, RunError> {
        let mut bytes = bytes;
        let mut failure = self.bytes(&ticket, &mut bytes)?;
        if self.work.plan.is_closed() {
            return Ok(ClipBytes { ticket, bytes, longest_s: f64::INFINITY, failure, permit });
        }

        let mut longest_s = 0.0;
        if failure.is_none() {
            longest_s = self.longest_s(&mut ticket, &bytes, &mut failure)?;
        }
        let clip_key = &self.work.clips[ticket.row].clip_key;
        let refused = |refused, bytes| RunError::refused(refused, clip_key, bytes, self.work.limits.room());
        loop {
            // A clip without samples goes on to be a reject, and holds its file until then.
            let charge = self.work.plan.charge(bytes.len() as u64, longest_s);
            let wanted = if failure.is_some() { bytes.len() as u64 } else { charge };
            let is_in = permit.admit(ticket.seq, wanted).map_err(|full| refused(full, bytes.len() as u64))?;
            if is_in {
                return Ok(ClipBytes { ticket, bytes, longest_s, failure, permit });
            }

            // An earlier clip needs the memory of this file: it is dropped, and read again after that clip is in.
            bytes = Vec::new();
            let read_bytes = self.work.source.read_bytes(clip_key);
            permit.retake(ticket.seq, read_bytes).map_err(|full| refused(full, read_bytes))?;
            if ticket.seen.content.is_empty() {
                failure = self.bytes(&ticket, &mut bytes)?;
            }
        }
    }

    /// The clip's file; what is wrong with it, if it cannot be had.
    fn bytes(&self, ticket: &Ticket, bytes: &mut Vec<u8>) -> Result<Option<Reject>, RunError> {
        let Work { source, clips, counters, .. } = self.work;
        let start = cpu_time();
        let clip_key = &clips[ticket.row].clip_key;
        let read = catch_unwind(AssertUnwindSafe(|| source.read(clip_key, bytes)));
        let failure = match read.unwrap_or_else(|panic| Err(ReadFailure::Reject(panicked(Stage::Read, &*panic)))) {
            Ok(()) => None,
            Err(ReadFailure::Reject(reject)) => Some(reject),
            Err(ReadFailure::Io(source)) => return Err(RunError::Read { clip_key: clip_key.clone(), source }),
        };
        counters.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        add_time(&counters.times.read, start);
        Ok(failure)
    }

    /// Seconds that the clip has at most. Where that is over a limit, it is measured, and may turn out to be a reject.
    fn longest_s(&mut self, ticket: &mut Ticket, bytes: &[u8], failure: &mut Option<Reject>) -> Result<f64, RunError> {
        let Work { plan, limits, counters, clips, .. } = self.work;
        let start = cpu_time();
        let claimed = catch_unwind(AssertUnwindSafe(|| crate::decode::longest_s(bytes))).unwrap_or(f64::INFINITY);
        let longest_s = plan.clip_s(claimed);
        let is_long = claimed > longest_s || plan.charge(bytes.len() as u64, longest_s) > limits.in_flight_bytes;
        if !is_long {
            add_time(&counters.times.decode, start);
            return Ok(longest_s);
        }

        let extension = Path::new(&clips[ticket.row].clip_key).extension().and_then(|e| e.to_str()).unwrap_or_default();
        let mut decoder = match self.decoder.take() {
            Some(decoder) => decoder,
            None => plan.decoder()?,
        };
        let measured = catch_unwind(AssertUnwindSafe(|| {
            let measured = decoder.measure(extension, bytes, &mut Pcm::default());
            (measured, decoder)
        }));
        add_time(&counters.times.decode, start);
        let reject = match measured {
            Ok((measured, decoder)) => {
                self.decoder = Some(decoder);
                match measured {
                    Ok(seconds) => return Ok(seconds),
                    Err(reject) => reject,
                }
            }
            Err(panic) => panicked(Stage::Decode, &*panic),
        };
        // It was read and judged: the receipt says what it was.
        ticket.seen.content = blake3::hash(bytes).to_hex().to_string();
        *failure = Some(reject);
        Ok(0.0)
    }
}
