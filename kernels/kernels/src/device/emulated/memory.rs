//! Host memory that emulates device memory, with red zones that detect out-of-bounds writes of kernels.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::Address;
use super::refused;
use crate::error::KernelError;

/// Size of the red zones before and after a buffer in bytes; also the alignment of buffers.
const RED_ZONE: usize = 256;
/// Initial value of the bytes in red zones.
const RED: u8 = 0xa5;
/// Initial value of the bytes in new buffers: NaN as f32 and as f64.
const FRESH: u8 = 0xff;

/// Address range of a buffer, without its red zones.
#[derive(Clone, Copy)]
struct MemoryRange {
    start: usize,
    bytes: usize,
}

impl MemoryRange {
    /// Returns the offsets of all bytes of the red zones from the start of the buffer: the zone before it backwards,
    /// then the zone after it.
    fn red_zone_offsets(self) -> impl Iterator<Item = isize> {
        let zone = RED_ZONE as isize;
        let end = self.bytes as isize;
        (-zone..0).rev().chain(end..end + zone)
    }
}

/// Address ranges of a device's buffers, by buffer number.
#[derive(Default)]
pub(super) struct Registry {
    buffers: Mutex<Buffers>,
}

#[derive(Default)]
struct Buffers {
    last_number: u64,
    ranges: BTreeMap<u64, MemoryRange>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Buffers> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the size of all buffers in bytes.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.lock().ranges.values().map(|range| range.bytes).sum()
    }

    /// Returns a description of the first out-of-bounds write found in any buffer. Repairs the red zones, so that each
    /// write is reported once.
    pub(super) fn damage(&self) -> Option<String> {
        for (number, range) in &self.lock().ranges {
            let start = range.start as *mut u8;
            // SAFETY: a buffer is in the registry as long as its memory, including red zones, exists.
            let hit = range
                .red_zone_offsets()
                .find(|&offset| unsafe { start.offset(offset).read() } != RED);
            let Some(hit) = hit else {
                continue;
            };

            for offset in range.red_zone_offsets() {
                // SAFETY: as above, the buffer's memory and red zones exist.
                unsafe { start.offset(offset).write(RED) };
            }
            let bytes = range.bytes;
            return Some(format!(
                "wrote to byte {hit} of buffer {number}, which has {bytes}"
            ));
        }
        None
    }
}

/// Memory of a fixed size that emulates a buffer on a device.
pub(crate) struct EmulatedBuffer {
    start: NonNull<u8>,
    bytes: usize,
    number: u64,
    registry: Arc<Registry>,
}

// SAFETY: the buffer owns its memory, which is accessed only through it, or by kernels that its owner launches.
unsafe impl Send for EmulatedBuffer {}

impl EmulatedBuffer {
    pub(super) fn new(bytes: usize, registry: &Arc<Registry>) -> Result<Self, KernelError> {
        let too_large = || KernelError::TooLarge(format!("emulated: allocate: {bytes} bytes"));
        let layout = layout(bytes).ok_or_else(too_large)?;
        // SAFETY: the layout is not empty.
        let whole = NonNull::new(unsafe { alloc(layout) }).ok_or_else(too_large)?;
        // SAFETY: `whole` consists of a red zone, `bytes`, and a red zone.
        let start = unsafe {
            whole.write_bytes(RED, layout.size());
            whole.add(RED_ZONE).write_bytes(FRESH, bytes);
            whole.add(RED_ZONE)
        };

        let range = MemoryRange {
            start: start.as_ptr().expose_provenance(),
            bytes,
        };
        let mut buffers = registry.lock();
        buffers.last_number += 1;
        let number = buffers.last_number;
        buffers.ranges.insert(number, range);
        drop(buffers);

        Ok(Self {
            start,
            bytes,
            number,
            registry: registry.clone(),
        })
    }

    pub(super) fn address(&self) -> Address {
        self.start.as_ptr().expose_provenance() as Address
    }

    /// Returns address and length of both red zones of the buffer.
    pub(super) fn red_zones(&self) -> [(usize, usize); 2] {
        let start = self.start.addr().get();
        [(start - RED_ZONE, RED_ZONE), (start + self.bytes, RED_ZONE)]
    }

    /// Copies `from` to the start of the buffer.
    pub(super) fn write<T: Copy>(&mut self, from: &[T]) -> Result<(), KernelError> {
        self.write_at(0, from)
    }

    /// Copies `from` to the buffer, starting at byte `at`.
    pub(super) fn write_at<T: Copy>(&mut self, at: usize, from: &[T]) -> Result<(), KernelError> {
        let bytes = size_of_val(from);
        self.check(at.saturating_add(bytes), "write")?;
        // SAFETY: `from` fits, and cannot overlap the buffer, because no slice of the buffer is ever created.
        unsafe {
            self.start
                .add(at)
                .copy_from_nonoverlapping(NonNull::from(from).cast(), bytes)
        };
        Ok(())
    }

    /// Copies from the start of the buffer to `to`. `T` is a number type for which all bit patterns are valid.
    pub(super) fn read<T: super::Plain>(&self, to: &mut [T]) -> Result<(), KernelError> {
        self.check(size_of_val(to), "read")?;
        // SAFETY: the buffer has at least this many bytes, all initialised by `new`, and any bit pattern is a valid
        // `Plain`.
        unsafe {
            self.start
                .cast()
                .copy_to_nonoverlapping(NonNull::from(&mut *to).cast::<T>(), to.len())
        };
        Ok(())
    }

    fn check(&self, bytes: usize, action: &'static str) -> Result<(), KernelError> {
        if bytes > self.bytes {
            let detail = format!(
                "{bytes} bytes in buffer {}, which has {}",
                self.number, self.bytes
            );
            return Err(refused(action, detail));
        }
        Ok(())
    }
}

impl Drop for EmulatedBuffer {
    fn drop(&mut self) {
        // Remove the buffer before the memory is freed, because `damage` reads the red zones of all registered buffers.
        self.registry.lock().ranges.remove(&self.number);
        let layout = layout(self.bytes).expect("the layout that it was made with");
        // SAFETY: allocated by `alloc` with this layout, with a red zone before `start`.
        unsafe { dealloc(self.start.as_ptr().sub(RED_ZONE), layout) };
    }
}

/// Counts how often a device was synchronized.
#[derive(Clone, Default)]
pub(super) struct Waits(Arc<AtomicU64>);

impl Waits {
    pub(super) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn so_far(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Host memory for copies, which are executed immediately; using it before the device is synchronized panics.
pub(crate) struct EmulatedHost {
    bytes: Vec<u8>,
    waits: Waits,
    /// Number of synchronizations at the last copy from this memory, and at the last copy to it.
    sent: Cell<Option<u64>>,
    received: Option<u64>,
}

impl EmulatedHost {
    pub(super) fn new(bytes: usize, waits: &Waits) -> Self {
        Self {
            bytes: vec![FRESH; bytes],
            waits: waits.clone(),
            sent: Cell::new(None),
            received: None,
        }
    }

    /// Returns the first `bytes` bytes as the source of a copy.
    pub(super) fn sent(&self, bytes: usize) -> Result<&[u8], KernelError> {
        self.sent.set(Some(self.waits.so_far()));
        let size = self.bytes.len();
        self.bytes
            .get(..bytes)
            .ok_or_else(|| refused("upload", format!("{bytes} of {size} bytes")))
    }

    /// Returns the first `bytes` bytes as the destination of a copy.
    pub(super) fn received(&mut self, bytes: usize) -> Result<&mut [u8], KernelError> {
        self.received = Some(self.waits.so_far());
        let size = self.bytes.len();
        self.bytes
            .get_mut(..bytes)
            .ok_or_else(|| refused("download", format!("{bytes} bytes to {size}")))
    }
}

impl AsRef<[u8]> for EmulatedHost {
    fn as_ref(&self) -> &[u8] {
        assert_ne!(
            self.received,
            Some(self.waits.so_far()),
            "read without waiting for the copy"
        );
        &self.bytes
    }
}

impl AsMut<[u8]> for EmulatedHost {
    fn as_mut(&mut self) -> &mut [u8] {
        let now = Some(self.waits.so_far());
        assert!(
            self.sent.get() != now && self.received != now,
            "written without waiting for the copy"
        );
        &mut self.bytes
    }
}

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.checked_add(2 * RED_ZONE)?, RED_ZONE).ok()
}
