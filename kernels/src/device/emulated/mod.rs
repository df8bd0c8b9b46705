//! A device for tests without a GPU: the same kernels, compiled as C++ by this machine, their threads taking turns.
//!
//! It shows wrong indices, missing barriers and other races under the orders that are tried, divergent barriers and
//! shuffles, reads of memory that nobody wrote (as NaN), host memory that is used before its copies were waited for, and the
//! kernels' arithmetic; the form that counts shows accesses that a device refuses for their alignment, too. It cannot
//! show what cuFFT, streams, code generation and a device's own functions do.
#![allow(unsafe_code)] // calls of compiled kernels, which get addresses of buffers

mod compile;
#[cfg(test)]
mod counts;
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
#[cfg(test)]
pub(crate) use self::counts::Counts;
use self::fft::EmulatedFft;
use self::memory::{EmulatedBuffer, EmulatedHost, Registry, Waits};
use super::{Address, Device, Launch, Plain, unit};
use crate::error::KernelError;

/// Room for what a launch has to say.
const REPORT_BYTES: usize = 512;

/// The order in which blocks run, and a block's threads from one barrier to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "tests try all of them"))]
pub(crate) enum Order {
    /// As they are numbered.
    Ascending,
    /// The last first.
    Descending,
    /// By chance, another for each phase of each block; the same for the same seed.
    Random(u64),
}

/// `Launch` in block.h.
#[repr(C)]
struct RawLaunch {
    seed: u64,
    grid: [u32; 2],
    threads: u32,
    shared_bytes: u32,
    order: u32,
    reserved: u32,
}

/// An exported launcher: parameters and their size, launch, room for a report and its size; 0: all well.
type Launcher =
    unsafe extern "C" fn(*const c_void, u32, *const RawLaunch, *mut c_char, usize) -> c_int;

/// This machine as a device. Whatever is asked for is done at once, on the calling thread.
pub(crate) struct EmulatedDevice {
    unit: Arc<Unit>,
    order: Order,
    launches: Cell<u64>,
    buffers: Arc<Registry>,
    waits: Waits,
    /// What was copied to it.
    #[cfg(test)]
    uploads: RefCell<Uploads>,
}

/// What host memory was copied to a device.
#[cfg(test)]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uploads {
    /// Bytes that the host had copied before, to memory of the device's own kind.
    pub(crate) staged_bytes: usize,
    /// Address and length of what was copied from where it lay.
    pub(crate) lent: Vec<(usize, usize)>,
    /// How many of these copies could still go on, because the device was not waited for since.
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
    /// Compiles wavemill's kernels, or finds what a run before left.
    ///
    /// Errors: no C++ compiler, with the remedy; its messages.
    pub(crate) fn new(order: Order) -> Result<Self, KernelError> {
        Self::of(&unit(), &[], order)
    }

    /// The same for other kernels, device.cuh's text before them, compiled with `options` too.
    fn of(source: &str, options: &[&'static str], order: Order) -> Result<Self, KernelError> {
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

    /// What was copied to it since the last call.
    #[cfg(test)]
    pub(crate) fn take_uploads(&self) -> Uploads {
        self.uploads.take()
    }

    fn raw(&self, launch: Launch) -> RawLaunch {
        let (order, seed) = match self.order {
            Order::Ascending => (0, 0),
            Order::Descending => (1, 0),
            Order::Random(seed) => (2, seed),
        };

        // Every launch gets another seed, so that each one tries another order.
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

    /// Little: tests have small batches, and the padding costs as much as samples.
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
            launcher.ok_or_else(|| refused("launch", format!("no kernel is called {kernel}")))?;

        let raw = self.raw(launch);
        let mut report = [0_u8; REPORT_BYTES];
        #[cfg(test)]
        let _zones = self.count_zones();
        // SAFETY: the launcher is what KERNEL in cuda.h declares; it copies the parameters if they have its struct's
        // size, and ends the report with a 0 within its size. Where kernels write is theirs to get right: a wrong
        // address is what this device is there to find.
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
            return Ok(()); // red zones cannot be read; what wrote to them has ended the program
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
        // All work is done already. The count shows host memory that is used before the device was waited for.
        self.waits.count();
        #[cfg(test)]
        self.uploads.borrow_mut().note_wait();
        Ok(())
    }
}

/// A [`KernelError::Device`] of this device.
fn refused(action: &'static str, detail: impl ToString) -> KernelError {
    KernelError::device("emulated", action, detail)
}
