//! A pool of buffers for tensors, from the disk back to the kernels.
//!
//! The allocator returns large blocks to the system, which clears each page of a new one: for 64 rows of 330 KB, these
//! 5,000 page faults take up to ten times as long as the copies of the rows.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Buffers of tensors that are no longer needed, for later tensors of all plans and threads.
#[derive(Debug, Default)]
pub struct SpareTensors {
    buffers: Mutex<Buffers>,
    most_bytes: usize,
}

#[derive(Debug, Default)]
struct Buffers {
    /// The buffers, oldest first.
    buffers: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl SpareTensors {
    /// Creates a pool of at most `most_bytes` bytes. The default pool keeps no buffers.
    pub fn new(most_bytes: usize) -> Self {
        Self {
            buffers: Mutex::default(),
            most_bytes,
        }
    }

    /// Returns an empty buffer for a tensor of `bytes` bytes: a spare one of up to twice this size, or a new one.
    pub fn take(&self, bytes: usize) -> Vec<u8> {
        let mut spare = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let sizes = bytes..=bytes.saturating_mul(2);
        // The newest buffer that fits is the one that is most likely still in a cache.
        let found = spare
            .buffers
            .iter()
            .rposition(|buffer| sizes.contains(&buffer.capacity()));
        let Some(mut buffer) = found.and_then(|at| spare.buffers.remove(at)) else {
            return Vec::with_capacity(bytes);
        };

        spare.bytes -= buffer.capacity();
        buffer.clear();
        buffer
    }

    /// Returns a buffer to the pool. If there is too little space, the oldest buffers are freed.
    pub fn give_back(&self, buffer: Vec<u8>) {
        if buffer.capacity() > self.most_bytes {
            return;
        }

        let mut spare = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        spare.bytes += buffer.capacity();
        spare.buffers.push_back(buffer);
        while spare.bytes > self.most_bytes {
            let oldest = spare.buffers.pop_front();
            spare.bytes -= oldest.map_or(0, |buffer| buffer.capacity());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns pairs of the requested and the actual capacity.
    fn taken(spare: &SpareTensors, sizes: &[usize]) -> Vec<(usize, usize)> {
        let buffers: Vec<_> = sizes.iter().map(|&bytes| spare.take(bytes)).collect();
        assert!(buffers.iter().all(Vec::is_empty));
        let capacities = buffers.iter().map(Vec::capacity);
        sizes.iter().copied().zip(capacities).collect()
    }

    #[test]
    fn buffers_of_up_to_twice_the_size_are_used_again() {
        let spare = SpareTensors::new(1_000);
        spare.give_back(vec![1; 100]);
        spare.give_back(vec![2; 300]);
        let want = [(200, 300), (200, 200), (49, 49), (50, 100), (50, 50)];
        assert_eq!(taken(&spare, &want.map(|(bytes, _)| bytes)), want);
        assert_eq!(spare.buffers.lock().unwrap().bytes, 0);
    }

    #[test]
    fn the_oldest_buffers_make_room() {
        let spare = SpareTensors::new(1_000);
        for bytes in [400, 500, 600, 1_001, 100] {
            spare.give_back(vec![0; bytes]);
        }
        let want = [(100, 100), (350, 600), (450, 450), (1_001, 1_001)];
        assert_eq!(taken(&spare, &want.map(|(bytes, _)| bytes)), want);
    }

    #[test]
    fn a_pool_of_no_bytes_keeps_nothing() {
        let spare = SpareTensors::default();
        spare.give_back(vec![0; 10]);
        assert_eq!(taken(&spare, &[8]), [(8, 8)]);
    }
}
