//! The parallel part of a run: read, decode, compute, encode and append, until every shard has its receipt.
//!
//! `pool` starts the threads. `reader` admits and reads clips, and `worker` decodes them. Features are computed
//! there or, with a device, in `lanes`. `writer` is the calling thread, which writes the results to files.

mod clip;
mod counters;
mod event;
mod fingerprint;
mod lanes;
mod limits;
mod picture;
mod pool;
mod reader;
mod refusal;
mod reject_tally;
mod spare_pcms;
pub mod survey;
mod work;
mod worker;
mod writer;

pub(crate) use self::counters::{Counters, LaneTimes, WorkerTimes};
pub use self::limits::Limits;
pub(crate) use self::reject_tally::RejectTally;
pub use self::work::Work;
pub(crate) use self::writer::write_shards;
