//! Decoded samples, in memory that a backend's device can copy from by itself.
//!
//! A decoder writes a clip here, and the device reads it from here: there is no copy in between, unless the system locks
//! no pages ([`SampleBuffer::lacks_lock`]). Ordinary memory needs one, because a GPU's copy engine reads only pages that
//! the system has promised to leave where they are (page-locked memory).

use std::ops::Deref;
use std::sync::Arc;

use cudarc::driver::CudaContext;

use crate::device::{PageLocked, Plain};

/// A growing list of samples, as `Vec` is one. [`crate::Backend::sample_buffer`] makes one that suits a backend;
/// `SampleBuffer::default()` is ordinary memory.
///
/// Buffers are meant to be used again for the next clip: locking pages takes the system about as long as copying them.
pub struct SampleBuffer<T = f32> {
    memory: Memory<T>,
    /// The driver that locks pages; `None`: ordinary memory is wanted.
    locks: Option<Arc<CudaContext>>,
}

enum Memory<T> {
    Ordinary(Vec<T>),
    Locked(Locked<T>),
}

/// The first `len` samples of page-locked memory.
struct Locked<T> {
    memory: PageLocked<T>,
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

impl<T: Plain> SampleBuffer<T> {
    /// One whose memory the driver locks.
    pub(crate) fn page_locked(context: Arc<CudaContext>) -> Self {
        Self {
            locks: Some(context),
            ..Self::default()
        }
    }

    /// Removes all samples, and makes room for exactly `n` of them. Room for more is kept.
    pub fn clear_for(&mut self, n: usize) {
        self.clear();
        // Memory that could not be locked for one clip may well be locked for the next.
        if self.capacity() < n || self.lacks_lock() {
            // The old memory goes first, so that both are never held at once.
            self.memory = Memory::Ordinary(Vec::new());
            self.grow_to(n);
        }
    }

    /// Samples for which there is room.
    pub fn capacity(&self) -> usize {
        match &self.memory {
            Memory::Ordinary(samples) => samples.capacity(),
            Memory::Locked(locked) => locked.capacity(),
        }
    }

    /// Page-locked memory was wanted, and the system gave none. A device copies from here all the same, only slower.
    pub fn lacks_lock(&self) -> bool {
        match &self.memory {
            Memory::Ordinary(samples) => self.locks.is_some() && samples.capacity() > 0,
            Memory::Locked(_) => false,
        }
    }

    /// Removes all samples; their room stays.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Keeps the first `len` samples; where there are fewer, all.
    pub fn truncate(&mut self, len: usize) {
        match &mut self.memory {
            Memory::Ordinary(samples) => samples.truncate(len),
            Memory::Locked(locked) => locked.len = locked.len.min(len),
        }
    }

    /// Appends one sample.
    #[inline(always)]
    pub fn push(&mut self, sample: T) {
        self.extend_from_slice(&[sample]);
    }

    /// Appends samples.
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

    /// Appends what `more` gives.
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

    /// Appends `sample` until there are `len` samples.
    pub fn pad_to(&mut self, len: usize, sample: T) {
        let missing = len.saturating_sub(self.len());
        if len > self.capacity() {
            // Nothing more is expected to follow, so room for just these.
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

    /// Sees to it that `more` samples fit behind those that are there.
    #[inline(always)]
    fn make_room(&mut self, more: usize) {
        let needed = self.len() + more;
        if needed > self.capacity() {
            // By doubling, so that many small pieces are not copied again and again.
            self.grow_to(needed.max(2 * self.capacity()));
        }
    }

    /// Gets memory for `n` samples, and takes along those that are there.
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
                // The system locks no more pages for this program. A copy from ordinary memory is slower, no more.
                let mut samples = Vec::with_capacity(n);
                samples.extend_from_slice(locked.samples());
                self.memory = Memory::Ordinary(samples);
            }
        }
    }

    /// Page-locked memory for `n` samples; `None` where none is wanted, or the system gives none.
    fn lock(&self, n: usize) -> Option<Locked<T>> {
        let context = self.locks.as_ref()?;
        // The first call may answer with an error that an earlier one left behind, and lock nothing.
        let memory = PageLocked::new(context, n).or_else(|_| PageLocked::new(context, n));
        Some(Locked {
            memory: memory.ok()?,
            len: 0,
        })
    }
}

impl<T: Plain> Locked<T> {
    fn capacity(&self) -> usize {
        self.memory.as_slice().len()
    }

    fn samples(&self) -> &[T] {
        &self.memory.as_slice()[..self.len]
    }

    /// The next `more` places, to be written and then counted in `len`. There is room for them.
    #[inline(always)]
    fn next(&mut self, more: usize) -> &mut [T] {
        &mut self.memory.as_mut_slice()[self.len..][..more]
    }
}

impl<T: Plain> Deref for SampleBuffer<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        match &self.memory {
            Memory::Ordinary(samples) => samples,
            Memory::Locked(locked) => locked.samples(),
        }
    }
}

impl<T: Plain> std::fmt::Debug for SampleBuffer<T> {
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
    use crate::backend::Cuda;

    /// Whatever the memory is, it holds what a `Vec` would.
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

    #[test]
    #[ignore = "needs a GPU"]
    fn cuda_memory_holds_what_a_vec_does() {
        let cuda = Cuda::open(&[]).unwrap_or_else(|error| panic!("a GPU is required: {error}"));
        holds_what_a_vec_does(cuda.sample_buffer_of());

        let mut samples = cuda.sample_buffer_of::<f32>();
        samples.clear_for(10);
        assert!(!samples.lacks_lock());
        assert!(format!("{:?}", cuda.sample_buffer_of::<i16>()).contains("page-locked"));
    }
}
