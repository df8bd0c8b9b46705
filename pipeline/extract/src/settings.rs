//! Limits and options of a run: name, unit, default and reason. Command-line flags set them. Resource limits do not
//! change any stored byte; `level` and `backend` do.

use std::sync::Arc;
use std::time::Duration;

use wavemill_catalog::CatalogSettings;
use wavemill_kernels::{Backend, Cpu, Level};

/// Number of reading threads. Two keep a disk busy while one of them waits for its permit; decoding is the expensive
/// part.
pub const READ_THREADS: usize = 2;
/// Number of reading threads if each clip takes a request to another machine: 16 clips of 1 MB in 50 ms feed 18 cores.
pub const REMOTE_READ_THREADS: usize = 16;

/// Compressed clips that wait for a worker, per worker: enough to avoid waiting for a disk seek.
pub const READ_AHEAD_CLIPS: usize = 2;

/// Number of empty PCM buffers to keep per worker. If a device computes features, a batch returns many buffers at once,
/// and as many are kept as the device's threads can hold.
pub const SPARE_PCMS: usize = 2;

/// `memory_limit_bytes` divided by this is the limit for all empty PCM buffers together. With two lanes (threads of a
/// device) it equals the limit of one batch.
pub const SPARE_PCM_SHARE: u64 = 16;

/// `memory_limit_bytes` divided by this is the limit for the buffers of tensors that are on disk: the rows of two batches
/// by default. They belong to the memory that malloc would retain otherwise.
pub const SPARE_TENSOR_SHARE: u64 = 64;

/// Maximum size of a buffer that is kept for the next clip, in bytes, even with plenty of memory: most clips need far
/// less.
pub const SPARE_BYTES_MAX: u64 = 64 << 20;

/// Maximum time that a batch waits for its next clip, in milliseconds from its first clip. This is long compared with a
/// clip's time on a device, and short compared with its time in a decoder, which is the bottleneck of a run: if
/// decoding cannot fill a batch sooner, waiting longer would only delay the end. The limit also releases a batch that
/// waits for memory that it holds itself.
pub const BATCH_WAIT_MS_MAX: u64 = 20;

/// `in_flight_bytes` divided by this is the memory limit for the PCM in all batches together: decoding continues in
/// parallel.
pub const BATCH_SHARE: u64 = 4;

/// Default of `--max-reject-fraction`.
pub const MAX_REJECT_FRACTION: f64 = 0.05;

/// With fewer planned clips than this, `--max-reject-fraction` defaults to 1, because one bad clip would already exceed
/// the usual default.
pub const FEW_CLIPS: u64 = 20;

/// Default of `--max-shrink`: an archive loses a track now and then, but not a tenth of its tracks.
pub const MAX_SHRINK: f64 = 0.1;

/// Default of `--memory-limit`.
pub const MEMORY_LIMIT_BYTES: u64 = 4 << 30;

/// Minimum of `--memory-limit`: below it the catalog does not fit even without clips.
pub const MEMORY_LIMIT_BYTES_MIN: u64 = 256 << 20;

/// Maximum number of threads, more than any machine has. Each thread allocates memory before it starts to work.
pub const THREADS_MAX: usize = 1024;

/// Limits and options of one run.
#[derive(Clone)]
pub struct Settings {
    /// Number of worker threads; each decodes one clip at a time. Default: the number of processors.
    pub threads: usize,
    /// Memory limit of the process, in bytes; the methods below divide it.
    pub memory_limit_bytes: u64,
    /// Maximum fraction of planned clips that may be rejected; if more are, nothing is committed.
    pub max_reject_fraction: Option<f64>,
    /// Maximum fraction of the previous version's clips whose files may be missing; if more are, nothing is written.
    pub max_shrink: f64,
    /// Keep only the first N clips in hash order.
    pub limit: Option<u64>,
    /// Instruction set of the CPU kernels; part of the engine's name.
    pub level: Level,
    /// Backend that computes the features; part of the engine's name. Default: the CPU at `level`.
    pub backend: Arc<dyn Backend>,
    /// Commit a further version if the plan differs from that of the latest version, instead of failing.
    pub new_version: bool,
    /// Assign all clips to splits again, and keep no split of the previous version.
    pub resplit: bool,
    /// Number all classes again, and keep no class id of the previous version.
    pub renumber: bool,
    /// Compute every row instead of linking files or copying rows. The stored bytes are the same.
    pub recompute: bool,
    /// Drop an unfinished plan of another engine, instead of failing.
    pub restart: bool,
    /// Follow symbolic links to targets outside of the audio root.
    pub allow_outside: bool,
    /// Maximum time that a run waits for the store's lock while another process holds it.
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

impl From<&Settings> for CatalogSettings {
    /// Derives the limits from a run's settings: the catalog uses as many threads as the decoding stage. A fraction of
    /// clips that may be rejected also permits as many rejected rows.
    fn from(settings: &Settings) -> Self {
        let of_clips = settings.max_reject_fraction.unwrap_or_default();
        Self {
            memory_bytes: settings.catalog_bytes(),
            threads: settings.threads,
            reject_fraction: of_clips.max(Self::default().reject_fraction),
        }
    }
}

impl Settings {
    /// Returns the size in bytes of DataFusion's memory pool, a quarter of the limit. Larger queries use the disk.
    pub const fn catalog_bytes(&self) -> usize {
        (self.memory_limit_bytes / 4) as usize
    }

    /// Returns the memory for clips between reading and the disk: half of the limit. An eighth is for row groups being
    /// encoded, an eighth for buffers that are kept, and a quarter for the process itself and for memory that malloc
    /// retains.
    pub const fn in_flight_bytes(&self) -> u64 {
        self.memory_limit_bytes / 2
    }

    /// Returns the memory shares of clips, with nothing subtracted for workers' tables.
    pub const fn shares(&self) -> MemoryShares {
        MemoryShares {
            limit_bytes: self.memory_limit_bytes,
            clips_bytes: self.in_flight_bytes(),
        }
    }

    /// Returns the memory in bytes for row groups being encoded, an eighth of the limit.
    pub const fn encode_bytes(&self) -> u64 {
        self.memory_limit_bytes / 8
    }

    /// Returns the memory limit in bytes for all empty PCM buffers together, a sixteenth of the limit of the process.
    pub const fn spare_pcm_bytes(&self) -> u64 {
        self.memory_limit_bytes / SPARE_PCM_SHARE
    }

    /// Returns the memory limit in bytes for the buffers of tensors that are on disk.
    pub const fn spare_tensor_bytes(&self) -> usize {
        (self.memory_limit_bytes / SPARE_TENSOR_SHARE) as usize
    }

    /// Returns the maximum size of a buffer that is kept from clip to clip for files and workers' scratch. All of these
    /// together take another sixteenth of the limit.
    pub const fn kept_bytes(&self) -> usize {
        let buffers = self.threads * (READ_AHEAD_CLIPS + 1) + READ_THREADS;
        let each = self.memory_limit_bytes / 16 / buffers as u64;
        if each < SPARE_BYTES_MAX {
            each as usize
        } else {
            SPARE_BYTES_MAX as usize
        }
    }

    /// Returns the maximum fraction of planned clips that may be rejected.
    pub fn reject_fraction(&self, planned: u64) -> f64 {
        let default = if planned < FEW_CLIPS {
            1.0
        } else {
            MAX_REJECT_FRACTION
        };
        self.max_reject_fraction.unwrap_or(default)
    }
}

/// Memory limit of the process and the share of it for clips.
#[derive(Clone, Copy, Debug)]
pub struct MemoryShares {
    /// Value of `--memory-limit`, in bytes.
    pub limit_bytes: u64,
    /// Part of the limit for clips in flight, in bytes.
    pub clips_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_metadata_may_be_rejected_or_as_much_as_of_the_clips() {
        let fraction = |max_reject_fraction| {
            let settings = Settings {
                max_reject_fraction,
                ..Settings::default()
            };
            CatalogSettings::from(&settings).reject_fraction
        };
        assert_eq!([None, Some(0.0), Some(1.0)].map(fraction), [0.5, 0.5, 1.0]);
    }
}
