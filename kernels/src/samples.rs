//! Decoded samples, in memory that a backend's device can copy from by itself.
//!
//! A decoder writes a clip here, and the device reads it from here: there is no copy in between. Ordinary memory would
//! need one, because a GPU's copy engine reads only pages that the system has promised to leave where they are
//! (page-locked memory).

use std::ops::Deref;
use std::sync::Arc;

use cudarc::driver::CudaContext;

use crate::device::{PageLocked, Plain};

/// A growing list of samples, as `Vec` is one. [`crate::Backend::sample_buffer`] makes one that suits a backend;
/// `SampleBuffer::default()` is ordinary memory.
///
/// Buffers are meant to be used again for the next clip: locking pages takes the system about as long as copying them.
pub struct SampleBuffer<T = f32>(Memory<T>);

enum Memory<T> {
    Ordinary(Vec<T>),
    Locked(Locked<T>),
}

/// The first `len` samples of page-locked memory; none before the first sample.
struct Locked<T> {
    context: Arc<CudaContext>,
    memory: Option<PageLocked<T>>,
    len: usize,
}

impl<T> Default for SampleBuffer<T> {
    fn default() -> Self {
        Self(Memory::Ordinary(Vec::new()))
    }
}

impl<T: Plain> SampleBuffer<T> {
    /// One whose memory the driver locks.
    pub(crate) fn page_locked(context: Arc<CudaContext>) -> Self {
        Self(Memory::Locked(Locked {
            context,
            memory: None,
            len: 0,
        }))
    }

    /// Removes all samples, and makes room for exactly `n` of them. Room for more is kept.
    pub fn clear_for(&mut self, n: usize) {
        self.clear();
        if self.capacity() < n {
            // The old memory goes first, so that both are never held at once.
            match &mut self.0 {
                Memory::Ordinary(samples) => *samples = Vec::new(),
                Memory::Locked(locked) => locked.memory = None,
            }
            self.grow_to(n);
        }
    }

    /// Samples for which there is room.
    #[must_use]
    pub fn capacity(&self) -> usize {
        match &self.0 {
            Memory::Ordinary(samples) => samples.capacity(),
            Memory::Locked(locked) => locked.capacity(),
        }
    }

    /// Removes all samples; their room stays.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Keeps the first `len` samples; where there are fewer, all.
    pub fn truncate(&mut self, len: usize) {
        match &mut self.0 {
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
        match &mut self.0 {
            Memory::Ordinary(samples) => samples.extend_from_slice(more),
            Memory::Locked(locked) => locked.next(more.len()).copy_from_slice(more),
        }
    }

    /// Appends what `more` gives.
    #[inline(always)]
    pub fn extend(&mut self, more: impl ExactSizeIterator<Item = T>) {
        self.make_room(more.len());
        match &mut self.0 {
            Memory::Ordinary(samples) => samples.extend(more),
            Memory::Locked(locked) => {
                let places = locked.next(more.len()).iter_mut();
                places.zip(more).for_each(|(place, sample)| *place = sample);
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
        match &mut self.0 {
            Memory::Ordinary(samples) => samples.resize(samples.len() + missing, sample),
            Memory::Locked(locked) => locked.next(missing).fill(sample),
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
        match &mut self.0 {
            Memory::Ordinary(samples) => samples.reserve_exact(n - samples.len()),
            Memory::Locked(locked) => {
                if !locked.grow_to(n) {
                    // The system locks no more pages for this program. A copy from ordinary memory is slower, no more.
                    let mut samples = Vec::with_capacity(n);
                    samples.extend_from_slice(locked.samples());
                    self.0 = Memory::Ordinary(samples);
                }
            }
        }
    }
}

impl<T: Plain> Locked<T> {
    fn capacity(&self) -> usize {
        self.memory
            .as_ref()
            .map_or(0, |memory| memory.as_slice().len())
    }

    fn samples(&self) -> &[T] {
        self.memory
            .as_ref()
            .map_or(&[], |memory| &memory.as_slice()[..self.len])
    }

    /// The next `more` places, which count as samples from now on. There is room for them.
    #[inline(always)]
    fn next(&mut self, more: usize) -> &mut [T] {
        let start = self.len;
        self.len += more;
        match &mut self.memory {
            Some(memory) => &mut memory.as_mut_slice()[start..self.len],
            // `more` is 0: without memory there is no room.
            None => &mut [],
        }
    }

    /// False: there is no such memory.
    fn grow_to(&mut self, n: usize) -> bool {
        let Ok(mut memory) = PageLocked::new(&self.context, n) else {
            return false;
        };
        memory.as_mut_slice()[..self.len].copy_from_slice(self.samples());
        self.memory = Some(memory);
        true
    }
}

impl<T: Plain> Deref for SampleBuffer<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        match &self.0 {
            Memory::Ordinary(samples) => samples,
            Memory::Locked(locked) => locked.samples(),
        }
    }
}

impl<T: Plain> std::fmt::Debug for SampleBuffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let memory = match &self.0 {
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
        assert!(format!("{:?}", cuda.sample_buffer_of::<i16>()).contains("page-locked"));
    }
}
