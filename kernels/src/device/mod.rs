//! What host code needs of a device: memory, copies, launches and transforms, on one stream.
//!
//! Each operation's host side (`<op>/device.rs`) is written once against [`Device`]. Work is queued in order;
//! [`Device::synchronize`] waits for it. Host memory that was handed to a copy stays untouched until then; when it is
//! dropped, it waits for its copies itself.

mod compile;
mod cuda;
#[cfg(test)]
mod cuda_tests;
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
#[cfg(test)]
pub(crate) use emulated::Counts;
#[cfg(feature = "emulated")]
pub(crate) use emulated::{EmulatedDevice, Order, compiler_version};
pub(crate) use libraries::{Versions, open as open_libraries, refused};
pub(crate) use loans::{Loans, lending};
pub(crate) use memory::{DeviceMemory, HostMemory, RowWords, Table};
pub(crate) use pinned::PageLocked;
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
    /// Blocks along x and y; none of either: nothing is launched.
    pub grid: [u32; 2],
    /// Threads of a block: a multiple of 32, at most 1024.
    pub threads: u32,
    /// Dynamic shared memory of a block, bytes.
    pub shared_bytes: u32,
}

/// Where something lies in device memory.
pub(crate) type Address = u64;

/// One stream of one device.
pub(crate) trait Device: Send {
    /// Device memory of a fixed size.
    type Buffer: Send;
    /// Host memory that copies run from and to at full speed.
    type Host: Send + AsRef<[u8]> + AsMut<[u8]>;
    /// A planned batch of real transforms.
    type Fft: Send;

    /// Samples that one transform call takes; the last call of a batch is padded to as many.
    const FFT_SAMPLES: usize;

    /// Fresh device memory of no particular content; `bytes` may be 0.
    fn alloc(&self, bytes: usize) -> Result<Self::Buffer, KernelError>;

    /// Fresh host memory.
    fn alloc_host(&self, bytes: usize) -> Result<Self::Host, KernelError>;

    /// Where `buffer` begins; aligned to 256 bytes.
    fn address(&self, buffer: &Self::Buffer) -> Address;

    /// Copies the first `bytes` of `from` to the start of `to`.
    fn upload(
        &self,
        from: &Self::Host,
        bytes: usize,
        to: &mut Self::Buffer,
    ) -> Result<(), KernelError>;

    /// Copies `from` to byte `at` of `to`.
    ///
    /// # Safety
    /// `from` is neither changed nor freed before the device was waited for; [`lending`] sees to that.
    #[allow(unsafe_code)] // the copy goes on after the call
    unsafe fn upload_lent(
        &self,
        from: &[u8],
        to: &mut Self::Buffer,
        at: usize,
    ) -> Result<(), KernelError>;

    /// Copies the first `bytes` of `from` to the start of `to`.
    fn download(
        &self,
        from: &Self::Buffer,
        bytes: usize,
        to: &mut Self::Host,
    ) -> Result<(), KernelError>;

    /// Sets the first `bytes` of `buffer` to 0.
    fn zero(&self, buffer: &mut Self::Buffer, bytes: usize) -> Result<(), KernelError>;

    /// Runs a kernel by name; `params` is the struct that its source declares.
    fn launch<P: Plain>(
        &self,
        kernel: &'static str,
        launch: Launch,
        params: &P,
    ) -> Result<(), KernelError>;

    /// Plans `count` real transforms of `n` samples each: contiguous `[count][n]` in, `[count][n / 2 + 1]` complex out;
    /// f64 if `wide`, else f32.
    fn plan_fft(&self, n: usize, count: usize, wide: bool) -> Result<Self::Fft, KernelError>;

    /// Transforms what lies at the start of `input` to the start of `output`.
    fn run_fft(
        &self,
        fft: &Self::Fft,
        input: &mut Self::Buffer,
        output: &mut Self::Buffer,
    ) -> Result<(), KernelError>;

    /// Waits for all that was queued, and answers with nothing but what became of it: after an error too, nothing that was
    /// queued goes on. Errors that happened on the way show here at the latest.
    fn synchronize(&self) -> Result<(), KernelError>;
}
