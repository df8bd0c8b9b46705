//! Sums over ranks with a ring all-reduce over TCP: each rank sends to the next rank and receives from the previous
//! one, and every rank gets the same bits. Source: Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for
//! clusters of workstations" (2009).
//!
//! A tensor is cut into one segment per rank. Each segment travels round the ring and is summed in n − 1 steps; the
//! sums are sent round in n − 1 more. The order of the additions in a segment depends only on the ring, not on timing.
//! A header is exchanged before the values, which detects ranks that call different operations.
//!
//! Tensors on GPUs are copied to host memory and summed there, on machines without NCCL.

use std::ops::{AddAssign, Range};
use std::sync::Mutex;

use arrow::datatypes::ArrowNativeType;
use tch::kind::Element;
use tch::{Device, Kind, Tensor};
use wavemill_terminal::interrupt::lock;

use super::links::{CHUNK_BYTES, Fault, Links};
use super::rendezvous::{self, Fingerprint};
use super::watchdog::{Check, OnLoss, Watchdog};
use super::{Collective, RankError, Ranks};
use crate::ffi;

/// Kinds of the operations in which all ranks take part. All ranks must call the same operation.
const SUM_F32: u64 = 1;
const SUM_F64: u64 = 2;
const GATHER: u64 = 3;

/// Formats the header of an operation (number, kind and length) for error messages.
fn describe([count, kind, values]: [u64; 3]) -> String {
    match kind {
        SUM_F32 => format!("operation {count}, a sum of {values} f32"),
        SUM_F64 => format!("operation {count}, a sum of {values} f64"),
        GATHER => format!("operation {count}, a gather of bytes"),
        _ => format!("operation {count}, unknown ({kind})"),
    }
}

/// Returns the range of values of segment `index` if `length` values are cut into `parts` segments.
fn segment(length: usize, parts: usize, index: usize) -> Range<usize> {
    length * index / parts..length * (index + 1) / parts
}

fn add<T: ArrowNativeType + AddAssign>(values: &mut [T], others: &[T]) {
    for (value, &other) in values.iter_mut().zip(others) {
        *value += other;
    }
}

/// State of one rank's ring.
#[derive(Debug)]
struct Ring {
    rank: usize,
    world_size: usize,
    links: Links,
    /// Number of operations completed so far.
    count: u64,
}

impl Ring {
    /// Sends the header of an operation (number, kind and length) to the next rank and compares it with the previous
    /// rank's header.
    fn begin(&mut self, kind: u64, n_values: usize) -> Result<(), Fault> {
        let header = [self.count, kind, n_values as u64];
        self.links.push(&header)?;
        let theirs = self.links.pull::<u64>(header.len())?;
        // If two ranks ran different operations, unrelated numbers would be summed.
        if theirs != header {
            return Err(Fault::OutOfStep {
                here: describe(header),
                there: describe([theirs[0], theirs[1], theirs[2]]),
            });
        }

        self.count += 1;
        Ok(())
    }

    /// Sends all segments but one to the next rank, beginning with segment `held`, and receives as many from the
    /// previous rank. `fold` adds or copies a received segment to the local one.
    ///
    /// For each chunk, a rank first passes its own chunk to the sending thread and then waits for a chunk from the
    /// previous rank. The slowest rank never waits for a buffer, and the chunk that it waits for has already been
    /// queued or sent, so that the ring cannot deadlock.
    fn pass<T: ArrowNativeType>(
        &mut self,
        values: &mut [T],
        bounds: impl Fn(usize) -> Range<usize>,
        held: usize,
        fold: impl Fn(&mut [T], &[T]) + Copy,
    ) -> Result<(), Fault> {
        let parts = self.world_size;
        for step in 0..parts - 1 {
            // Adding multiples of `parts` prevents the subtraction from underflowing.
            let out = bounds((held + parts - step) % parts);
            let into = bounds((held + 2 * parts - step - 1) % parts);
            self.exchange(values, out, into, fold)?;
        }
        Ok(())
    }

    fn exchange<T: ArrowNativeType>(
        &mut self,
        values: &mut [T],
        mut out: Range<usize>,
        mut into: Range<usize>,
        fold: impl Fn(&mut [T], &[T]),
    ) -> Result<(), Fault> {
        let chunk = CHUNK_BYTES / size_of::<T>();
        // The lengths of two segments may differ by one value in a sum, and by any number of bytes in a gather.
        while !out.is_empty() || !into.is_empty() {
            if !out.is_empty() {
                let part = out.start..out.end.min(out.start + chunk);
                out.start = part.end;
                self.links.push(&values[part])?;
            }

            if !into.is_empty() {
                let part = into.start..into.end.min(into.start + chunk);
                into.start = part.end;
                fold(&mut values[part.clone()], self.links.pull(part.len())?);
            }
        }

        Ok(())
    }

    fn sum<T: ArrowNativeType + AddAssign>(
        &mut self,
        values: &mut [T],
        kind: u64,
    ) -> Result<(), Fault> {
        self.begin(kind, values.len())?;

        // Reduce-scatter: every rank adds its values to the segments that it receives, until each rank has the complete
        // sum of one segment. Then the sums are sent round the ring.
        let length = values.len();
        let parts = self.world_size;
        self.pass(
            values,
            |index| segment(length, parts, index),
            self.rank,
            add,
        )?;

        // The segment received last contains the values of all ranks.
        let whole = (self.rank + 1) % parts;
        self.pass(
            values,
            |index| segment(length, parts, index),
            whole,
            <[T]>::copy_from_slice,
        )
    }

    fn gather(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Fault> {
        self.begin(GATHER, 0)?;

        // The lengths are exchanged before the bytes, so that each rank knows where the bytes of every other rank
        // begin.
        let mut lengths = vec![0; self.world_size];
        lengths[self.rank] = bytes.len() as u64;
        self.pass(
            &mut lengths,
            |index| index..index + 1,
            self.rank,
            <[_]>::copy_from_slice,
        )?;

        let mut starts = vec![0];
        let mut end = 0;
        for length in lengths {
            end += length as usize;
            starts.push(end);
        }
        // The received lengths determine the size of an allocation. They are trusted, since all ranks know the job's
        // token.
        let mut all = vec![0; end];
        all[starts[self.rank]..starts[self.rank + 1]].copy_from_slice(bytes);
        self.pass(
            &mut all,
            |index| starts[index]..starts[index + 1],
            self.rank,
            <[_]>::copy_from_slice,
        )?;

        Ok(starts
            .windows(2)
            .map(|bounds| all[bounds[0]..bounds[1]].to_vec())
            .collect())
    }
}

/// A group of ranks connected by a TCP ring.
#[derive(Debug)]
pub(crate) struct RingGroup {
    rank: usize,
    world_size: usize,
    ring: Mutex<Ring>,
    watchdog: Watchdog,
}

impl RingGroup {
    /// Connects to the other ranks. Blocks until every rank has connected and has the same `fingerprint` as rank 0.
    ///
    /// Afterwards, a watchdog monitors all ranks and calls `on_loss` when one of them is lost.
    ///
    /// # Errors
    /// [`RankError`] if a rank is missing or has other settings, with the same reason on every rank that connected.
    pub(crate) fn join(
        ranks: &Ranks,
        fingerprint: &Fingerprint,
        on_loss: OnLoss,
    ) -> Result<Self, RankError> {
        let rank = ranks.rank;
        let met = rendezvous::meet(ranks, fingerprint)?;
        // Start the watchdog before connecting the ring: a rank that is lost in the meantime is then reported by its
        // number.
        let watchdog = Watchdog::start(ranks, met.control, on_loss)
            .map_err(RankError::system(rank, "starting the watchdog"))?;

        let links = match rendezvous::connect_ring(ranks, &met.listener, &met.table) {
            Ok([next, previous]) => Links::new(next, previous)
                .map_err(RankError::system(rank, "starting the sender"))?,
            Err(error) => return Err(watchdog.known_loss().unwrap_or(error)),
        };
        let handles = links.handles().map_err(RankError::system(
            rank,
            "watching the connections of the ring",
        ))?;
        watchdog.guard(handles);

        let ring = Ring {
            rank: ranks.rank,
            world_size: ranks.world_size,
            links,
            count: 0,
        };
        Ok(Self {
            rank: ranks.rank,
            world_size: ranks.world_size,
            ring: Mutex::new(ring),
            watchdog,
        })
    }

    /// Registers a check that the watchdog calls every second. If it returns a message, this rank is reported as lost.
    pub(super) fn watch(&self, check: Check) {
        self.watchdog.also_ask(check);
    }

    /// Returns the loss of a rank that caused `error`, if one is reported within a short time, else `error`.
    pub(super) fn explain(&self, error: RankError) -> RankError {
        self.watchdog.known_loss().unwrap_or(error)
    }

    /// Runs one operation. After an error, closes the connections, since they may still contain unread data.
    fn run<R>(
        &self,
        operation: impl FnOnce(&mut Ring) -> Result<R, Fault>,
    ) -> Result<R, RankError> {
        let mut ring = lock(&self.ring);
        let fault = match operation(&mut ring) {
            Ok(result) => return Ok(result),
            Err(fault) => fault,
        };

        ring.links.cut();
        let rank = self.rank;
        let neighbour = ring.links.previous();
        match fault {
            Fault::OutOfStep { here, there } => Err(RankError::Other(format!(
                "rank {rank} is at {here}, rank {neighbour} at {there}: all ranks must call the same operations in the \
                 same order"
            ))),
            // The ring often notices first that a neighbour has ended. The watchdog soon receives the cause.
            Fault::Link { neighbour, source } => Err(self.explain(RankError::Neighbour {
                rank,
                neighbour,
                source,
            })),
        }
    }

    fn sum_values<T: ArrowNativeType + Element + AddAssign>(
        &self,
        tensor: &mut Tensor,
        kind: u64,
    ) -> Result<(), RankError> {
        match ffi::slice_mut::<T>(tensor) {
            Some(values) => self.run(|ring| ring.sum(values, kind)),
            None => Err(unfit(tensor)),
        }
    }
}

fn unfit(tensor: &Tensor) -> RankError {
    RankError::Tensor {
        device: "a CPU",
        found: format!("{tensor:?}"),
    }
}

/// Copies a GPU tensor to host memory, sums the copy over the ranks, and copies the sum back.
pub(super) fn through_host(
    rank: usize,
    tensor: &mut Tensor,
    sum: impl FnOnce(&mut Tensor) -> Result<(), RankError>,
) -> Result<(), RankError> {
    // The arguments force a copy (`copy`) and wait until it is complete (`non_blocking` is false).
    let mut copy = tensor
        .f_to_device_(Device::Cpu, tensor.kind(), false, true)
        .map_err(RankError::torch(rank))?;
    sum(&mut copy)?;
    tensor.f_copy_(&copy).map_err(RankError::torch(rank))
}

impl Collective for RingGroup {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn sum(&self, tensor: &mut Tensor) -> Result<(), RankError> {
        if !tensor.defined() {
            return Err(unfit(tensor));
        }
        if tensor.device() != Device::Cpu {
            return through_host(self.rank, tensor, |copy| self.sum(copy));
        }

        match tensor.kind() {
            Kind::Float => self.sum_values::<f32>(tensor, SUM_F32),
            Kind::Double => self.sum_values::<f64>(tensor, SUM_F64),
            _ => Err(unfit(tensor)),
        }
    }

    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, RankError> {
        self.run(|ring| ring.gather(bytes))
    }

    fn finish(&self) -> Result<(), RankError> {
        self.watchdog.finish()
    }

    fn fail(&self, reason: &str) {
        self.watchdog.fail(reason);
    }
}
