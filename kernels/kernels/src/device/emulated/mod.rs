//! A device for tests without a GPU: runs the same kernels, compiled as C++ by this machine's compiler, with their
//! threads taking turns.
//!
//! It detects wrong indices, missing barriers and other races in the tested thread orders, divergent barriers and
//! shuffles, reads of uninitialised memory (as NaN), host memory used before its copies have completed, and errors in
//! the kernels' arithmetic; with sanitizers it also detects accesses that a GPU refuses because of their alignment. It
//! cannot detect errors in cuFFT, streams, code generation and a GPU's own functions.
#![allow(unsafe_code)] // calls compiled kernels with addresses of buffers

mod compile;
mod fft;
mod memory;
#[cfg(test)]
mod tests;

use std::cell::Cell;
#[cfg(test)]
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Arc;

use self::compile::Unit;
pub(crate) use self::compile::compiler_version;
use self::fft::EmulatedFft;
use self::memory::{EmulatedBuffer, EmulatedHost, Registry, Waits};
use super::{Address, Device, Launch, Plain, unit};
use crate::error::KernelError;

/// Size in bytes of the buffer for a launch's error message.
const REPORT_BYTES: usize = 512;

/// Order in which blocks run, and in which a block's threads run from one barrier to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "tests try all of them"))]
pub(crate) enum Order {
    /// By increasing index.
    Ascending,
    /// By decreasing index.
    Descending,
    /// Pseudo-random, different for each phase of each block; reproducible for the same seed.
    Random(u64),
}

/// `Launch` in block.h: sizes and thread order of a kernel launch.
#[repr(C)]
struct RawLaunch {
    seed: u64,
    grid: [u32; 2],
    threads: u32,
    shared_bytes: u32,
    order: u32,
    reserved: u32,
}

/// An exported launcher. Arguments: parameters and their size, launch, report buffer and its size. Returns 0 on
/// success.
type Launcher =
    unsafe extern "C" fn(*const c_void, u32, *const RawLaunch, *mut c_char, usize) -> c_int;

/// This machine as a device. All work is executed immediately on the calling thread.
pub(crate) struct EmulatedDevice {
    unit: Arc<Unit>,
    order: Order,
    launches: Cell<u64>,
    buffers: Arc<Registry>,
    waits: Waits,
    /// Statistics of copies to this device, for tests.
    #[cfg(test)]
    uploads: RefCell<Uploads>,
}

/// Statistics of copies from host memory to a device.
#[cfg(test)]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uploads {
    /// Bytes that were first copied to host memory for copies, and from there to the device.
    pub(crate) staged_bytes: usize,
    /// Address and length of each copy made directly from the caller's memory.
    pub(crate) lent: Vec<(usize, usize)>,
    /// Number of copies from the caller's memory that may be unfinished: those since the last synchronization.
    pub(crate) unfinished: usize,
}

#[cfg(test)]
impl Uploads {
    fn note_wait(&mut self) {
        self.unfinished = 0;
    }

    fn note_staged(&mut self, bytes: usize) {
        self.staged_bytes += bytes;
    }

    fn note_lent(&mut self, from: &[u8]) {
        self.lent.push((from.as_ptr().addr(), from.len()));
        self.unfinished += 1;
    }
}

impl EmulatedDevice {
    /// Compiles wavemill's kernels, or loads them from the cache.
    ///
    /// Errors: no C++ compiler, with the remedy; the compiler's messages.
    pub(crate) fn new(order: Order) -> Result<Self, KernelError> {
        Self::with_source(&unit(), &[], order)
    }

    /// Like [`Self::new`], for kernels whose `source` begins with device.cuh, with additional compiler `options`.
    fn with_source(
        source: &str,
        options: &[&'static str],
        order: Order,
    ) -> Result<Self, KernelError> {
        Ok(Self {
            unit: Unit::load(source, options)?,
            order,
            launches: Cell::new(0),
            buffers: Arc::default(),
            waits: Waits::default(),
            #[cfg(test)]
            uploads: RefCell::default(),
        })
    }

    /// Returns and resets the statistics of copies to the device.
    #[cfg(test)]
    pub(crate) fn take_uploads(&self) -> Uploads {
        self.uploads.take()
    }

    /// Returns the size in bytes of the memory on the device that is in use.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.buffers.held_bytes()
    }

    fn raw(&self, launch: Launch) -> RawLaunch {
        let (order, seed) = match self.order {
            Order::Ascending => (0, 0),
            Order::Descending => (1, 0),
            Order::Random(seed) => (2, seed),
        };

        // Every launch uses another seed, and therefore runs threads in another pseudo-random order.
        let n_before = self.launches.replace(self.launches.get() + 1);
        RawLaunch {
            seed: seed.wrapping_add(n_before),
            grid: launch.grid,
            threads: launch.threads,
            shared_bytes: launch.shared_bytes,
            order,
            reserved: 0,
        }
    }
}

impl Device for EmulatedDevice {
    type Buffer = EmulatedBuffer;
    type Host = EmulatedHost;
    type Fft = EmulatedFft;

    /// Small transform calls: batches of tests are small, and padding takes as much time as samples.
    const FFT_SAMPLES: usize = 1 << 15;

    fn alloc(&self, bytes: usize) -> Result<EmulatedBuffer, KernelError> {
        let buffer = EmulatedBuffer::new(bytes, &self.buffers)?;
        self.unit.poison(buffer.red_zones());
        Ok(buffer)
    }

    fn alloc_host(&self, bytes: usize) -> Result<EmulatedHost, KernelError> {
        Ok(EmulatedHost::new(bytes, &self.waits))
    }

    fn address(&self, buffer: &EmulatedBuffer) -> Address {
        buffer.address()
    }

    fn upload(
        &self,
        from: &EmulatedHost,
        bytes: usize,
        to: &mut EmulatedBuffer,
    ) -> Result<(), KernelError> {
        #[cfg(test)]
        self.uploads.borrow_mut().note_staged(bytes);
        to.write(from.sent(bytes)?)
    }

    unsafe fn upload_lent(
        &self,
        from: &[u8],
        to: &mut EmulatedBuffer,
        at: usize,
    ) -> Result<(), KernelError> {
        #[cfg(test)]
        self.uploads.borrow_mut().note_lent(from);
        to.write_at(at, from)
    }

    fn download(
        &self,
        from: &EmulatedBuffer,
        bytes: usize,
        to: &mut EmulatedHost,
    ) -> Result<(), KernelError> {
        from.read(to.received(bytes)?)
    }

    fn zero(&self, buffer: &mut EmulatedBuffer, bytes: usize) -> Result<(), KernelError> {
        buffer.write(&vec![0_u8; bytes])
    }

    fn launch<P: Plain>(
        &self,
        kernel: &'static str,
        launch: Launch,
        params: &P,
    ) -> Result<(), KernelError> {
        // cuda.h exports a launcher for each kernel under this name.
        let launcher = self.unit.symbol::<Launcher>(&format!("emulated_{kernel}"));
        let launcher =
            launcher.ok_or_else(|| refused("launch", format!("no kernel is named {kernel}")))?;

        let raw = self.raw(launch);
        let mut report = [0_u8; REPORT_BYTES];
        // SAFETY: the launcher has the signature that KERNEL in cuda.h declares; it copies the parameters if they have
        // the size of its struct, and terminates the report with a 0 within its size. Kernels are responsible for the
        // addresses that they write to; this device exists to detect wrong ones.
        let status = unsafe {
            launcher(
                (&raw const *params).cast(),
                size_of::<P>() as u32,
                &raw,
                report.as_mut_ptr().cast(),
                REPORT_BYTES,
            )
        };

        if status != 0 {
            let report = CStr::from_bytes_until_nul(&report).unwrap_or_default();
            return Err(refused("launch", report.to_string_lossy()));
        }
        if self.unit.is_sanitized() {
            return Ok(()); // red zones cannot be read; a write to them has already aborted the program
        }

        match self.buffers.damage() {
            Some(damage) => Err(refused("launch", format!("kernel {kernel}: {damage}"))),
            None => Ok(()),
        }
    }

    fn plan_fft(&self, n: usize, count: usize, wide: bool) -> Result<EmulatedFft, KernelError> {
        Ok(EmulatedFft::new(n, count, wide))
    }

    fn run_fft(
        &self,
        fft: &EmulatedFft,
        input: &mut EmulatedBuffer,
        output: &mut EmulatedBuffer,
    ) -> Result<(), KernelError> {
        fft.run(input, output)
    }

    fn synchronize(&self) -> Result<(), KernelError> {
        // All work is already done. Count the wait, so that host memory used before it is detected.
        self.waits.count();
        #[cfg(test)]
        self.uploads.borrow_mut().note_wait();
        Ok(())
    }
}

/// Creates a [`KernelError::Device`] with this device's name.
fn refused(action: &'static str, detail: impl ToString) -> KernelError {
    KernelError::device("emulated", action, detail)
}
