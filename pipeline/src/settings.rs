//! Every limit of a run: name, unit, default, why. Flags set them; nothing here changes a stored byte except `level` and
//! `backend`.

use std::sync::Arc;
use std::time::Duration;

use wavemill_kernels::{Backend, Cpu, Level};

/// Threads that read. Two keep a disk busy while one waits for its permit; decoding is what costs.
pub const READ_THREADS: usize = 2;

/// Compressed clips that wait for a worker, per worker: enough that none waits for a disk seek.
pub const READ_AHEAD_CLIPS: usize = 2;

/// Empty PCM buffers that are kept, per worker. Where a device computes, a batch gives back many at once, and as many are
/// kept as lanes can hold.
pub const SPARE_PCMS: usize = 2;

/// `memory_limit_bytes` divided by this is what empty PCM buffers take together. On two lanes it is what one batch holds.
pub const SPARE_PCM_SHARE: u64 = 16;

/// Larger buffers are not kept for the next clip, however much memory there is: most clips need far less.
pub const SPARE_BYTES_MAX: u64 = 16 << 20;

/// How long a batch waits for its next clip, milliseconds, counted from its first one. Long beside a clip's time on a
/// device, short beside its time in a decoder, which is what bounds a run: a batch that decoding cannot fill sooner
/// would only add its wait to the end. It also lets a batch go that waits for memory that it holds itself.
pub const BATCH_WAIT_MS_MAX: u64 = 20;

/// `in_flight_bytes` divided by this is what batches may hold as PCM, over all lanes: decoding
/// goes on beside them.
pub const BATCH_SHARE: u64 = 4;

/// `--max-reject-fraction` when it is not given …
pub const MAX_REJECT_FRACTION: f64 = 0.05;

/// … and when fewer clips than this are planned, where one bad clip would already be too many.
pub const FEW_CLIPS: u64 = 20;

/// `--max-shrink` when it is not given: an archive loses a track now and then, and not a tenth of them.
pub const MAX_SHRINK: f64 = 0.1;

/// `--memory-limit` when it is not given.
pub const MEMORY_LIMIT_BYTES: u64 = 4 << 30;

/// Below this the catalog alone does not fit.
pub const MEMORY_LIMIT_BYTES_MIN: u64 = 256 << 20;

/// More threads than any machine has; each takes memory before it does anything.
pub const THREADS_MAX: usize = 1024;

/// Limits of one run.
#[derive(Clone)]
pub struct Settings {
    /// Worker threads, each decoding one clip at a time. Default: the processors of the machine.
    pub threads: usize,
    /// Bound of the process; the methods below divide it.
    pub memory_limit_bytes: u64,
    /// More rejects than this part of the planned clips: nothing is committed.
    pub max_reject_fraction: Option<f64>,
    /// Nothing is written if files of more than this part of the parent's clips are not found.
    pub max_shrink: f64,
    /// Keep the first N clips by hash order.
    pub limit: Option<u64>,
    /// Instruction set of the kernels; part of the engine's name.
    pub level: Level,
    /// What computes the features; part of the engine's name. Default: the CPU at `level`.
    pub backend: Arc<dyn Backend>,
    /// Commit a further version where the last one was made otherwise.
    pub new_version: bool,
    /// Draw all sides anew, and keep none of the version before.
    pub resplit: bool,
    /// Number all classes anew, and keep no id of the version before.
    pub renumber: bool,
    /// Compute every row: link no file and take no row over. No stored byte differs.
    pub recompute: bool,
    /// Drop an unfinished plan of another engine.
    pub restart: bool,
    /// Follow links that leave the audio root.
    pub allow_outside: bool,
    /// The time that a run waits for the store's lock while another process holds it.
    pub lock_wait: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let level = Level::detect();
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory_limit_bytes: MEMORY_LIMIT_BYTES,
            max_reject_fraction: None,
            max_shrink: MAX_SHRINK,
            limit: None,
            level,
            backend: Arc::new(Cpu { level }),
            new_version: false,
            resplit: false,
            renumber: false,
            recompute: false,
            restart: false,
            allow_outside: false,
            lock_wait: Duration::ZERO,
        }
    }
}

impl Settings {
    /// DataFusion's pool: a quarter; spilling starts there.
    pub const fn catalog_bytes(&self) -> usize {
        (self.memory_limit_bytes / 4) as usize
    }

    /// Clips between read and disk: half. Of the other half an eighth of the limit each is for row groups being encoded
    /// and for buffers that are kept; the last quarter for the process itself and for what malloc keeps.
    pub const fn in_flight_bytes(&self) -> u64 {
        self.memory_limit_bytes / 2
    }

    /// What there is for clips, beside workers' tables.
    pub const fn shares(&self) -> MemoryShares {
        MemoryShares {
            limit_bytes: self.memory_limit_bytes,
            clips_bytes: self.in_flight_bytes(),
        }
    }

    /// Row groups being encoded: an eighth.
    pub const fn encode_bytes(&self) -> u64 {
        self.memory_limit_bytes / 8
    }

    /// What empty PCM buffers may take together: a sixteenth of the limit.
    pub const fn spare_pcm_bytes(&self) -> u64 {
        self.memory_limit_bytes / SPARE_PCM_SHARE
    }

    /// The largest buffer that is kept from clip to clip, of those for files and of workers' scratch: together they take a
    /// sixteenth of the limit as well.
    pub const fn kept_bytes(&self) -> usize {
        let buffers = self.threads * (READ_AHEAD_CLIPS + 1) + READ_THREADS;
        let each = self.memory_limit_bytes / 16 / buffers as u64;
        if each < SPARE_BYTES_MAX {
            each as usize
        } else {
            SPARE_BYTES_MAX as usize
        }
    }

    /// The part of planned clips that may be rejected.
    pub fn reject_fraction(&self, planned: u64) -> f64 {
        let default = if planned < FEW_CLIPS {
            1.0
        } else {
            MAX_REJECT_FRACTION
        };
        self.max_reject_fraction.unwrap_or(default)
    }
}

/// What there is for clips.
#[derive(Clone, Copy, Debug)]
pub struct MemoryShares {
    /// `--memory-limit`.
    pub limit_bytes: u64,
    /// The part of it for clips in flight.
    pub clips_bytes: u64,
}
