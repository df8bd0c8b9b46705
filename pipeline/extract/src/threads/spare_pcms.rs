//! A pool of free PCM buffers.
//!
//! Buffers for a device are page-locked, and locking takes about as long as copying a clip, so buffers are reused. The
//! pool limits their total size and not the size of each: many workers with clips of half a minute need many buffers,
//! and a batch returns all of its buffers at once.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use wavemill_decode::Pcm;
use wavemill_kernels::Backend;

use crate::settings::SPARE_BYTES_MAX;

/// Pool of free PCM buffers of a run.
pub(super) struct SparePcms {
    give: Sender<Pcm>,
    take: Receiver<Pcm>,
    /// Total size in bytes of the buffers in the pool.
    bytes: AtomicU64,
    most_bytes: u64,
}

impl SparePcms {
    /// Creates a pool of at most `places` buffers with at most `most_bytes` in total.
    pub(super) fn new(places: usize, most_bytes: u64) -> Self {
        let (give, take) = bounded(places);
        Self {
            give,
            take,
            bytes: AtomicU64::new(0),
            most_bytes,
        }
    }

    /// Takes a buffer from the pool, or creates a buffer from which `backend` can copy samples.
    pub(super) fn take(&self, backend: &dyn Backend) -> Pcm {
        match self.take.try_recv() {
            Ok(pcm) => {
                self.bytes.fetch_sub(held_bytes(&pcm), Ordering::Relaxed);
                pcm
            }
            Err(_) => Pcm::with_samples(backend.sample_buffer()),
        }
    }

    /// Returns a buffer to the pool if there is space. A large buffer is dropped, because most clips need far less.
    pub(super) fn give_back(&self, pcm: Pcm) {
        let bytes = held_bytes(&pcm);
        if bytes > SPARE_BYTES_MAX {
            return;
        }

        // The size is added before the buffer is in the pool, so that the limit is never exceeded.
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let is_kept = before + bytes <= self.most_bytes && self.give.try_send(pcm).is_ok();
        if !is_kept {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

fn held_bytes(pcm: &Pcm) -> u64 {
    (pcm.samples.capacity() * size_of::<f32>()) as u64
}

#[cfg(test)]
mod tests {
    use wavemill_kernels::{Cpu, Level};

    use super::*;

    const CPU: Cpu = Cpu {
        level: Level::Scalar,
    };

    fn pcm_with_bytes(bytes: usize) -> Pcm {
        let mut pcm = Pcm::with_samples(CPU.sample_buffer());
        pcm.samples.clear_for(bytes / size_of::<f32>());
        pcm
    }

    #[test]
    fn spare_buffers_are_limited_in_total_bytes() {
        let spare = SparePcms::new(10, 1_000);
        for bytes in [400, 400, 400, 200, 4] {
            spare.give_back(pcm_with_bytes(bytes));
        }

        // The pool has no space for the third and the last buffer.
        let kept = [400, 400, 200, 0].map(|_| held_bytes(&spare.take(&CPU)));
        assert_eq!(kept, [400, 400, 200, 0]);
        assert_eq!(spare.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn spare_buffers_are_limited_in_number_and_size() {
        let spare = SparePcms::new(2, u64::MAX / 2);
        spare.give_back(pcm_with_bytes(SPARE_BYTES_MAX as usize + 4));
        for bytes in [100, 200, 300] {
            spare.give_back(pcm_with_bytes(bytes));
        }
        let kept = [100, 200, 0].map(|_| held_bytes(&spare.take(&CPU)));
        assert_eq!(kept, [100, 200, 0]);
        assert_eq!(spare.bytes.load(Ordering::Relaxed), 0);
    }
}
