//! Sums over ranks by a ring on TCP: each rank sends to the next and hears the one before, and every rank gets the same
//! bits. Source: Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations" (2009).
//!
//! A tensor is cut into as many segments as there are ranks. In n − 1 steps each segment goes round and is added up, in
//! n − 1 more the sums go round; a segment's order of additions is the ring's, whatever the timing. Ranks that make
//! different calls find out by a header before the numbers.
//!
//! Tensors of a GPU are summed as copies in host memory, for machines without NCCL.

use std::ops::{AddAssign, Range};
use std::sync::{Mutex, PoisonError};

use arrow::datatypes::ArrowNativeType;
use tch::kind::Element;
use tch::{Device, Kind, Tensor};

use super::links::{CHUNK_BYTES, LinkError, Links};
use super::rendezvous::{self, Fingerprint};
use super::watchdog::{Check, OnLoss, Watchdog};
use super::{Collective, RankError, Ranks};
use crate::ffi;

/// What ranks do together; the same on all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    SumF32 { values: u64 },
    SumF64 { values: u64 },
    Gather,
}

impl Operation {
    fn code(self) -> [u64; 2] {
        match self {
            Self::SumF32 { values } => [1, values],
            Self::SumF64 { values } => [2, values],
            Self::Gather => [3, 0],
        }
    }

    /// For people.
    fn describe([operation, values]: [u64; 2], count: u64) -> String {
        match operation {
            1 => format!("operation {count}, a sum of {values} f32"),
            2 => format!("operation {count}, a sum of {values} f64"),
            3 => format!("operation {count}, a gathering of bytes"),
            _ => format!("operation {count}, unknown ({operation})"),
        }
    }
}

/// Segment `index` of `length` values in `parts`.
fn segment(length: usize, parts: usize, index: usize) -> Range<usize> {
    length * index / parts..length * (index + 1) / parts
}

fn add<T: ArrowNativeType + AddAssign>(values: &mut [T], others: &[T]) {
    for (value, &other) in values.iter_mut().zip(others) {
        *value += other;
    }
}

/// Why an operation failed, before the watchdog was asked.
enum Fault {
    Link(LinkError),
    OutOfStep { here: String, there: String },
}

impl From<LinkError> for Fault {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

/// The ring as seen by one rank.
#[derive(Debug)]
struct Ring {
    rank: usize,
    world_size: usize,
    links: Links,
    /// Operations so far.
    count: u64,
}

impl Ring {
    /// Tells the next rank what begins here, and compares with the previous one.
    fn begin(&mut self, operation: Operation) -> Result<(), Fault> {
        let code = operation.code();
        let header = [self.count, code[0], code[1]];

        self.links.push(&header)?;
        let theirs = self.links.pull::<u64>(header.len())?;
        // Ranks at different operations would add up each other's numbers.
        if theirs != header {
            let here = Operation::describe(code, self.count);
            return Err(Fault::OutOfStep {
                here,
                there: Operation::describe([theirs[1], theirs[2]], theirs[0]),
            });
        }

        self.count += 1;
        Ok(())
    }

    /// Sends every segment but one round the ring, beginning with `held`; `fold` takes in what comes.
    ///
    /// At each chunk a rank first hands its own to the sending thread and then waits for the other's. The rank that is
    /// furthest behind therefore never waits for a buffer, and what it waits for has been handed over: no standstill.
    fn pass<T: ArrowNativeType>(
        &mut self,
        values: &mut [T],
        bounds: impl Fn(usize) -> Range<usize>,
        held: usize,
        fold: impl Fn(&mut [T], &[T]) + Copy,
    ) -> Result<(), LinkError> {
        let parts = self.world_size;
        for step in 0..parts - 1 {
            // The multiples of `parts` only keep the differences from going below 0.
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
    ) -> Result<(), LinkError> {
        let chunk = CHUNK_BYTES / size_of::<T>();
        // The two segments may differ in length by one value, or in a gathering by any number.
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
        operation: Operation,
    ) -> Result<(), Fault> {
        self.begin(operation)?;

        // Every rank adds its segments on the way; then each holds one whole sum, and the sums go round.
        let length = values.len();
        let parts = self.world_size;
        self.pass(
            values,
            |index| segment(length, parts, index),
            self.rank,
            add,
        )?;

        // The last segment that came in the first round: all ranks have added to it by now.
        let whole = (self.rank + 1) % parts;
        self.pass(
            values,
            |index| segment(length, parts, index),
            whole,
            <[T]>::copy_from_slice,
        )?;
        Ok(())
    }

    fn gather(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Fault> {
        self.begin(Operation::Gather)?;

        // Lengths go round first, so that each rank knows where the bytes of all others go.
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
        // Memory for what the others announce: they have proved the job's token, so their word is taken.
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

/// Ranks joined by TCP.
#[derive(Debug)]
pub(crate) struct RingGroup {
    rank: usize,
    world_size: usize,
    ring: Mutex<Ring>,
    watchdog: Watchdog,
}

impl RingGroup {
    /// Meets the other ranks; all wait until every one has come and agrees with rank 0 on `fingerprint`.
    ///
    /// From then on a thread watches over all ranks and calls `on_loss` when one is gone.
    ///
    /// # Errors
    /// [`RankError`] with the reason, on every rank that came.
    pub(crate) fn join(
        ranks: &Ranks,
        fingerprint: &Fingerprint,
        on_loss: OnLoss,
    ) -> Result<Self, RankError> {
        let rank = ranks.rank;
        let met = rendezvous::meet(ranks, fingerprint)?;
        // Before the ring is joined: a rank that dies meanwhile is named, and not only missed by its neighbours.
        let watchdog = Watchdog::start(ranks, met.control, on_loss)
            .map_err(RankError::system(rank, "starting to watch over ranks"))?;

        let links = match rendezvous::connect_ring(ranks, &met.listener, &met.table) {
            Ok([next, previous]) => {
                Links::new(next, previous).map_err(RankError::system(rank, "starting to send"))?
            }
            Err(error) => return Err(watchdog.known_loss().unwrap_or(error)),
        };
        let handles = links
            .handles()
            .map_err(RankError::system(rank, "watching over the ring"))?;
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

    /// Has the watchdog ask every second whether this rank still can go on; words mean that it cannot.
    pub(super) fn watch(&self, check: Check) {
        self.watchdog.also_ask(check);
    }

    /// The loss that is behind `error`, if one is known or heard of soon.
    pub(super) fn explain(&self, error: RankError) -> RankError {
        self.watchdog.known_loss().unwrap_or(error)
    }

    /// One operation; a fault ends the connections, since nobody knows what was still on its way.
    fn run<R>(
        &self,
        operation: impl FnOnce(&mut Ring) -> Result<R, Fault>,
    ) -> Result<R, RankError> {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = match operation(&mut ring) {
            Ok(result) => return Ok(result),
            Err(fault) => fault,
        };

        ring.links.cut();
        let rank = self.rank;
        let neighbour = ring.links.previous();
        match fault {
            Fault::OutOfStep { here, there } => Err(RankError::OutOfStep {
                rank,
                neighbour,
                here,
                there,
            }),
            // A neighbour's end is often seen here first; the watchdog knows, or hears soon, who was the cause.
            Fault::Link(LinkError { neighbour, source }) => {
                Err(self.explain(RankError::Neighbour {
                    rank,
                    neighbour,
                    source,
                }))
            }
        }
    }

    fn sum_values<T: ArrowNativeType + Element + AddAssign>(
        &self,
        tensor: &mut Tensor,
        operation: fn(u64) -> Operation,
    ) -> Result<(), RankError> {
        let operation = operation(tensor.numel() as u64);
        match ffi::slice_mut::<T>(tensor) {
            Some(values) => self.run(|ring| ring.sum(values, operation)),
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

/// What `sum` makes of a copy in host memory, copied back.
pub(super) fn through_host(
    rank: usize,
    tensor: &mut Tensor,
    sum: impl FnOnce(&mut Tensor) -> Result<(), RankError>,
) -> Result<(), RankError> {
    // Copied in any case and waited for (`copy`, not `non_blocking`): the numbers are read at once.
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
            Kind::Float => self.sum_values::<f32>(tensor, |values| Operation::SumF32 { values }),
            Kind::Double => self.sum_values::<f64>(tensor, |values| Operation::SumF64 { values }),
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
