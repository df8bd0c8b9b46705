//! Buffers for decoded samples, in memory that a backend's device can copy from directly.
//!
//! A decoder writes a clip to a buffer and the device reads it from there, without a copy in between unless the system
//! refuses to lock pages ([`SampleBuffer::lacks_lock`]). Ordinary memory needs a copy, because a GPU's copy engine
//! reads only page-locked memory, which the system never moves.

use std::ops::Deref;
use std::sync::Arc;

/// Memory that a device's driver has allocated and page-locked, for a fixed number of samples.
pub trait LockedMemory<T>: AsRef<[T]> + AsMut<[T]> + Send + Sync {}

impl<T, M: AsRef<[T]> + AsMut<[T]> + Send + Sync> LockedMemory<T> for M {}

/// Function of a device's driver that allocates page-locked memory for a number of samples; `None` if the system refuses.
pub type AllocateLocked<T> = Arc<dyn Fn(usize) -> Option<Box<dyn LockedMemory<T>>> + Send + Sync>;

/// A growable buffer of samples, similar to `Vec`. A backend of the kernels creates it in the memory that it needs;
/// `SampleBuffer::default()` uses ordinary memory.
///
/// Buffers should be reused for the next clip: locking pages takes the system about as long as copying them.
pub struct SampleBuffer<T = f32> {
    memory: Memory<T>,
    /// Allocates memory with locked pages; `None` for ordinary memory.
    locks: Option<AllocateLocked<T>>,
}

enum Memory<T> {
    Ordinary(Vec<T>),
    Locked(Locked<T>),
}

/// Page-locked memory, of which the first `len` samples are used.
struct Locked<T> {
    memory: Box<dyn LockedMemory<T>>,
    len: usize,
}

impl<T> Default for SampleBuffer<T> {
    fn default() -> Self {
        Self {
            memory: Memory::Ordinary(Vec::new()),
            locks: None,
        }
    }
}

impl<T: Copy> SampleBuffer<T> {
    /// Creates an empty buffer whose memory a device's driver allocates.
    pub fn page_locked(allocate: AllocateLocked<T>) -> Self {
        Self {
            locks: Some(allocate),
            ..Self::default()
        }
    }

    /// Removes all samples and reserves capacity for exactly `n` samples. A larger capacity is kept.
    pub fn clear_for(&mut self, n: usize) {
        self.clear();
        // Memory that could not be locked for one clip may be locked for the next one.
        if self.capacity() < n || self.lacks_lock() {
            // Free the old memory first, so that both are never allocated at once.
            self.memory = Memory::Ordinary(Vec::new());
            self.grow_to(n);
        }
    }

    /// Returns the number of samples that fit without reallocation.
    pub fn capacity(&self) -> usize {
        match &self.memory {
            Memory::Ordinary(samples) => samples.capacity(),
            Memory::Locked(locked) => locked.capacity(),
        }
    }

    /// Reports whether page-locked memory was requested but the system provided none. A device can still copy from the
    /// buffer, but more slowly.
    pub fn lacks_lock(&self) -> bool {
        match &self.memory {
            Memory::Ordinary(samples) => self.locks.is_some() && samples.capacity() > 0,
            Memory::Locked(_) => false,
        }
    }

    /// Removes all samples and keeps the capacity.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Keeps the first `len` samples, or all if there are fewer.
    pub fn truncate(&mut self, len: usize) {
        match &mut self.memory {
            Memory::Ordinary(samples) => samples.truncate(len),
            Memory::Locked(locked) => locked.len = locked.len.min(len),
        }
    }

    /// Appends one sample to the buffer.
    #[inline(always)]
    pub fn push(&mut self, sample: T) {
        self.extend_from_slice(&[sample]);
    }

    /// Appends a slice of samples to the buffer.
    #[inline(always)]
    pub fn extend_from_slice(&mut self, more: &[T]) {
        self.make_room(more.len());
        match &mut self.memory {
            Memory::Ordinary(samples) => samples.extend_from_slice(more),
            Memory::Locked(locked) => {
                locked.next(more.len()).copy_from_slice(more);
                locked.len += more.len();
            }
        }
    }

    /// Appends the samples of an iterator.
    #[inline(always)]
    pub fn extend(&mut self, more: impl ExactSizeIterator<Item = T>) {
        self.make_room(more.len());
        match &mut self.memory {
            Memory::Ordinary(samples) => samples.extend(more),
            Memory::Locked(locked) => {
                let places = locked.next(more.len()).iter_mut();
                let written = places.zip(more).map(|(place, sample)| *place = sample);
                locked.len += written.count();
            }
        }
    }

    /// Appends `sample` until the buffer contains `len` samples.
    pub fn pad_to(&mut self, len: usize, sample: T) {
        let missing = len.saturating_sub(self.len());
        if len > self.capacity() {
            // No more samples are expected, so reserve exactly this capacity.
            self.grow_to(len);
        }
        match &mut self.memory {
            Memory::Ordinary(samples) => samples.resize(samples.len() + missing, sample),
            Memory::Locked(locked) => {
                locked.next(missing).fill(sample);
                locked.len += missing;
            }
        }
    }

    /// Reserves capacity for `more` additional samples.
    #[inline(always)]
    fn make_room(&mut self, more: usize) {
        let needed = self.len() + more;
        if needed > self.capacity() {
            // Double the capacity, so that appending many small pieces does not copy the samples each time.
            self.grow_to(needed.max(2 * self.capacity()));
        }
    }

    /// Allocates memory for `n` samples and moves the existing samples to it.
    #[cold]
    fn grow_to(&mut self, n: usize) {
        if let Some(mut locked) = self.lock(n) {
            locked.next(self.len()).copy_from_slice(self);
            locked.len = self.len();
            self.memory = Memory::Locked(locked);
            return;
        }

        match &mut self.memory {
            Memory::Ordinary(samples) => samples.reserve_exact(n - samples.len()),
            Memory::Locked(locked) => {
                // The system locks no more pages for this process. Copies from ordinary memory work, only more slowly.
                let mut samples = Vec::with_capacity(n);
                samples.extend_from_slice(locked.samples());
                self.memory = Memory::Ordinary(samples);
            }
        }
    }

    /// Allocates page-locked memory for `n` samples; `None` if it was not requested or the system refuses.
    fn lock(&self, n: usize) -> Option<Locked<T>> {
        let allocate = self.locks.as_ref()?;
        let memory = allocate(n)?;
        Some(Locked { memory, len: 0 })
    }
}

impl<T: Copy> Locked<T> {
    fn capacity(&self) -> usize {
        (*self.memory).as_ref().len()
    }

    fn samples(&self) -> &[T] {
        &(*self.memory).as_ref()[..self.len]
    }

    /// Returns the next `more` unused elements, which the caller writes and then adds to `len`. The capacity must be
    /// sufficient.
    #[inline(always)]
    fn next(&mut self, more: usize) -> &mut [T] {
        &mut (*self.memory).as_mut()[self.len..][..more]
    }
}

impl<T: Copy> Deref for SampleBuffer<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        match &self.memory {
            Memory::Ordinary(samples) => samples,
            Memory::Locked(locked) => locked.samples(),
        }
    }
}

impl<T: Copy> std::fmt::Debug for SampleBuffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let memory = match &self.memory {
            Memory::Ordinary(_) => "ordinary",
            Memory::Locked(_) => "page-locked",
        };
        write!(f, "{} samples in {memory} memory", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that the buffer contains the same samples as a `Vec`, for any kind of memory.
    fn holds_what_a_vec_does(mut samples: SampleBuffer) {
        let mut wanted: Vec<f32> = Vec::new();
        samples.clear_for(10);
        assert_eq!(samples.capacity(), 10);

        for round in 0..40u16 {
            let piece: Vec<f32> = (0..round).map(|x| f32::from(x) + 0.5).collect();
            samples.extend_from_slice(&piece);
            samples.extend(piece.iter().map(|x| -x));
            samples.push(f32::from(round));

            wanted.extend_from_slice(&piece);
            wanted.extend(piece.iter().map(|x| -x));
            wanted.push(f32::from(round));

            assert_eq!(samples[..], wanted[..], "round {round}");
        }

        samples.pad_to(wanted.len() + 7, 0.25);
        wanted.resize(wanted.len() + 7, 0.25);
        samples.pad_to(3, 9.0);
        assert_eq!(samples[..], wanted[..], "padding only appends");

        samples.truncate(5);
        samples.truncate(100);
        assert_eq!(samples[..], wanted[..5]);

        let room = samples.capacity();
        samples.clear_for(room);
        assert!(samples.is_empty());
        assert_eq!(samples.capacity(), room, "room is kept");
        samples.pad_to(room, 1.0);
        assert!(samples.iter().all(|sample| *sample == 1.0));
    }

    #[test]
    fn ordinary_memory_holds_what_a_vec_does() {
        holds_what_a_vec_does(SampleBuffer::default());
    }

    /// Allocates like a driver that can lock pages for fewer than `limit` samples at once.
    fn locks_below(limit: usize) -> AllocateLocked<f32> {
        Arc::new(move |n| {
            if n >= limit {
                return None;
            }
            Some(Box::new(vec![0.0; n]))
        })
    }

    #[test]
    fn locked_memory_holds_what_a_vec_does() {
        holds_what_a_vec_does(SampleBuffer::page_locked(locks_below(usize::MAX)));

        let mut samples = SampleBuffer::page_locked(locks_below(usize::MAX));
        samples.clear_for(10);
        assert!(!samples.lacks_lock());
        assert!(format!("{samples:?}").contains("page-locked"));
    }

    #[test]
    fn memory_that_is_not_locked_holds_what_a_vec_does() {
        holds_what_a_vec_does(SampleBuffer::page_locked(locks_below(1_000)));

        let mut samples = SampleBuffer::page_locked(locks_below(1_000));
        samples.pad_to(2_000, 0.5);
        assert!(samples.lacks_lock());
        assert_eq!(samples[..], [0.5; 2_000]);
    }
}
