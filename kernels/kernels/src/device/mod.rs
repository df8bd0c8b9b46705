//! The interface of a device that host code uses: memory, copies, launches and transforms, on one stream.
//!
//! Each operation's host side (`<op>/device.rs`) is generic over [`Device`]. Work is queued in order;
//! [`Device::synchronize`] waits for it. Host memory must not be changed until its copies have completed; dropping it
//! waits for its copies.

mod compile;
mod cuda;
#[cfg(test)]
mod cuda_tests;
mod cufft;
#[cfg(feature = "emulated")]
mod emulated;
mod libraries;
mod loans;
mod memory;
mod pinned;
mod plain;
mod record;
mod report;
mod rows;
mod source;
#[cfg(test)]
pub(crate) mod testing;
mod wait;

pub(crate) use compile::cubin;
pub(crate) use cuda::{CudaDevice, Gpu};
#[cfg(feature = "emulated")]
pub(crate) use emulated::{EmulatedDevice, Order, compiler_version};
pub use libraries::wheel_files;
pub(crate) use libraries::{Versions, open as open_libraries, refused};
pub(crate) use loans::{Loans, lending};
pub(crate) use memory::{DeviceMemory, HostMemory, RowWords, Table};
pub(crate) use pinned::page_locks;
pub(crate) use plain::Plain;
pub(crate) use plain::{bytes_of, plain};
pub(crate) use record::{Again, Record};
pub use report::{CudaReport, FoundDevice, FoundLibrary};
pub(crate) use rows::{RowEntry, RowTable, blocks};
pub(crate) use source::unit;

use crate::error::KernelError;

/// A grid of one-dimensional blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch {
    /// Blocks along x and y; if either is 0, nothing is launched.
    pub grid: [u32; 2],
    /// Threads per block: a multiple of 32, at most 1024.
    pub threads: u32,
    /// Dynamic shared memory per block in bytes.
    pub shared_bytes: u32,
}

/// Address in device memory.
pub(crate) type Address = u64;

/// One stream of one device, on which work is queued.
pub(crate) trait Device: Send {
    /// Device memory of a fixed size.
    type Buffer: Send;
    /// Host memory for copies at full speed.
    type Host: Send + AsRef<[u8]> + AsMut<[u8]>;
    /// A planned batch of transforms.
    type Fft: Send;

    /// Number of samples in one transform call; the last call of a batch is padded to this size.
    const FFT_SAMPLES: usize;

    /// Allocates device memory with undefined content; `bytes` may be 0.
    fn alloc(&self, bytes: usize) -> Result<Self::Buffer, KernelError>;

    /// Allocates host memory for copies.
    fn alloc_host(&self, bytes: usize) -> Result<Self::Host, KernelError>;

    /// Returns the start address of `buffer`, which is aligned to 256 bytes.
    fn address(&self, buffer: &Self::Buffer) -> Address;

    /// Queues a copy of the first `bytes` of `from` to the start of `to`.
    fn upload(
        &self,
        from: &Self::Host,
        bytes: usize,
        to: &mut Self::Buffer,
    ) -> Result<(), KernelError>;

    /// Queues a copy of `from` to byte `at` of `to`.
    ///
    /// # Safety
    /// `from` must be neither changed nor freed before the device has been synchronized; [`lending`] ensures this.
    #[allow(unsafe_code)] // the copy continues after the call
    unsafe fn upload_lent(
        &self,
        from: &[u8],
        to: &mut Self::Buffer,
        at: usize,
    ) -> Result<(), KernelError>;

    /// Queues a copy of the first `bytes` of `from` to the start of `to`.
    fn download(
        &self,
        from: &Self::Buffer,
        bytes: usize,
        to: &mut Self::Host,
    ) -> Result<(), KernelError>;

    /// Sets the first `bytes` of `buffer` to 0.
    fn zero(&self, buffer: &mut Self::Buffer, bytes: usize) -> Result<(), KernelError>;

    /// Launches a kernel by name; `params` is the struct that the kernel's source declares.
    fn launch<P: Plain>(
        &self,
        kernel: &'static str,
        launch: Launch,
        params: &P,
    ) -> Result<(), KernelError>;

    /// Plans `count` transforms of `n` real samples each: contiguous input `[count][n]` of [`sample_numbers`] each, and
    /// complex output `[count][spectrum_step]`; f64 if `wide` is set, otherwise f32.
    fn plan_fft(&self, n: usize, count: usize, wide: bool) -> Result<Self::Fft, KernelError>;

    /// Transforms the samples at the start of `input` and writes the spectra to the start of `output`.
    fn run_fft(
        &self,
        fft: &Self::Fft,
        input: &mut Self::Buffer,
        output: &mut Self::Buffer,
    ) -> Result<(), KernelError>;

    /// Waits for all queued work. Queued work never continues after this call, even if it returns an error. Errors of
    /// queued work are returned here at the latest.
    fn synchronize(&self) -> Result<(), KernelError>;
}

/// Returns the numbers of a sample in the input of a transform of `n` samples: 1, or 2 for a complex sample.
///
/// cuFFT combines neighbours of a batch in real transforms of odd length, so that their bits depend on each other. Complex
/// transforms do not.
pub(crate) const fn sample_numbers(n: usize) -> usize {
    if n.is_multiple_of(2) { 1 } else { 2 }
}

/// Returns the distance between spectra of `n` samples in complex values: n / 2 + 1, or `n` for a complex transform.
pub(crate) const fn spectrum_step(n: usize) -> usize {
    if n.is_multiple_of(2) { n / 2 + 1 } else { n }
}
