//! A stream of a GPU, by cudarc's driver calls and cuFFT.
//!
//! Memory comes from a stream and is used on that stream alone: work on it, and freeing it, happen in the order in
//! which they were queued, so no events between streams are needed.
#![allow(unsafe_code)] // calls of the driver and of cuFFT; device memory has no types

use std::cell::RefCell;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cufft;
use cudarc::driver::sys::{
    CUdevice_attribute_enum, CUevent_flags, CUevent_flags_enum, CUfunction_attribute_enum, CUresult,
};
use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr,
    DriverError, LaunchConfig, PinnedHostSlice, PushKernelArg, result,
};
use cudarc::nvrtc::Ptx;

use super::{Address, Device, Launch, Plain};
use crate::error::KernelError;

/// Dynamic shared memory that any kernel may use; more must be asked for.
const SHARED_BYTES_DEFAULT: u32 = 48 << 10;

/// A GPU's primary context.
pub(crate) struct Gpu {
    context: Arc<CudaContext>,
    /// `cuda:0 (NVIDIA H200)`.
    label: Arc<str>,
    /// What its maker calls it.
    pub(crate) name: String,
    /// Major and minor compute capability.
    pub(crate) capability: (i32, i32),
}

impl Gpu {
    /// How many the driver lets this process see. Errors: the driver's; none is one of them.
    pub(crate) fn count() -> Result<usize, KernelError> {
        let none = "the driver sees no GPU (nvidia-smi lists them, CUDA_VISIBLE_DEVICES may hide them)";
        match CudaContext::device_count() {
            Ok(count @ 1..) => Ok(count.cast_unsigned() as usize),
            Ok(_) | Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => Err(super::libraries::refused(none)),
            Err(error) => Err(super::libraries::refused(describe(error))),
        }
    }

    /// Opens the GPU of a number below [`Gpu::count`]. Errors: the driver's.
    pub(crate) fn open(ordinal: usize) -> Result<Self, KernelError> {
        let failed = |error| KernelError::device(format!("cuda:{ordinal}"), "open", describe(error));
        let context = CudaContext::new(ordinal).map_err(failed)?;
        // SAFETY: every buffer is used on the one stream that it was made on (see the module's text).
        unsafe { context.disable_event_tracking() };
        // A thread that waits for a GPU leaves its core to decoding.
        context.set_blocking_synchronize().map_err(failed)?;
        let name = context.name().map_err(failed)?;
        let capability = context.compute_capability().map_err(failed)?;
        Ok(Self { context, label: format!("cuda:{ordinal} ({name})").into(), name, capability })
    }

    /// `sm_90` and its like.
    pub(crate) fn architecture(&self) -> String {
        format!("sm_{}{}", self.capability.0, self.capability.1)
    }

    /// `cuda:0 (NVIDIA H200, sm_90)`.
    pub(crate) fn described(&self) -> String {
        format!("cuda:{} ({}, {})", self.context.ordinal(), self.name, self.architecture())
    }

    /// `cuda:0 (NVIDIA H200)`.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// Loads compiled kernels. Errors: the driver's, of another architecture's code say.
    pub(crate) fn load(&self, cubin: &[u8]) -> Result<Arc<CudaModule>, KernelError> {
        let failed = |error| KernelError::device(&self.label, "load kernels", describe(error));
        self.context.load_module(Ptx::from_binary(cubin.to_vec())).map_err(failed)
    }
}

/// One stream of a GPU.
pub(crate) struct CudaDevice {
    label: Arc<str>,
    stream: Arc<CudaStream>,
    module: Arc<CudaModule>,
    kernels: RefCell<HashMap<&'static str, Kernel>>,
    /// Where work is noted with its time; only where that is measured.
    record: Option<Record>,
}

/// Work on a stream, in order.
pub(crate) type Record = Arc<Mutex<Vec<Piece>>>;

/// A piece of work between two events.
pub(crate) struct Piece {
    /// A kernel's name, or what else was done.
    pub(crate) what: &'static str,
    /// Bytes of a copy.
    pub(crate) bytes: usize,
    start: CudaEvent,
    end: CudaEvent,
}

impl Piece {
    /// How long it took, once the stream was waited for. Errors: the driver's.
    pub(crate) fn ms(&self) -> Result<f64, KernelError> {
        let failed = |error| KernelError::device("cuda", "measure", describe(error));
        self.start.elapsed_ms(&self.end).map(f64::from).map_err(failed)
    }
}

/// A kernel that was looked up.
struct Kernel {
    function: CudaFunction,
    /// Dynamic shared memory that it may use.
    shared_bytes: u32,
}

impl CudaDevice {
    /// A stream of its own, for the kernels that were loaded on `gpu`.
    pub(crate) fn new(gpu: &Gpu, module: Arc<CudaModule>, record: Option<Record>) -> Result<Self, KernelError> {
        let failed = |error| KernelError::device(&gpu.label, "make a stream", describe(error));
        let stream = gpu.context.new_stream().map_err(failed)?;
        Ok(Self { label: gpu.label.clone(), stream, module, kernels: RefCell::default(), record })
    }

    /// Queues `work`, and notes it where that was asked for.
    fn noted(
        &self,
        what: &'static str,
        bytes: usize,
        work: impl FnOnce() -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let Some(record) = &self.record else { return work() };
        let event = || {
            let timed = CUevent_flags_enum::CU_EVENT_DEFAULT;
            self.stream.record_event(Some(timed)).map_err(self.failed("note the time"))
        };
        let start = event()?;
        work()?;
        let piece = Piece { what, bytes, start, end: event()? };
        record.lock().unwrap_or_else(PoisonError::into_inner).push(piece);
        Ok(())
    }

    fn failed(&self, action: &'static str) -> impl Fn(DriverError) -> KernelError {
        let label = self.label.clone();
        move |error| KernelError::device(&label, action, describe(error))
    }

    /// Errors where a copy, or a transform, would leave its memory.
    fn check(&self, action: &'static str, bytes: usize, limits: &[usize]) -> Result<(), KernelError> {
        match limits.iter().find(|limit| bytes > **limit) {
            None => Ok(()),
            Some(limit) => Err(KernelError::device(&self.label, action, format!("{bytes} bytes of {limit}"))),
        }
    }

    fn function(&self, name: &'static str, shared_bytes: u32) -> Result<CudaFunction, KernelError> {
        let mut kernels = self.kernels.borrow_mut();
        let kernel = match kernels.entry(name) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let failed = |error| KernelError::device(&self.label, "look up a kernel", named(name, error));
                let function = self.module.load_function(name).map_err(failed)?;
                entry.insert(Kernel { function, shared_bytes: SHARED_BYTES_DEFAULT })
            }
        };
        if shared_bytes > kernel.shared_bytes {
            let most = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let set = kernel.function.set_attribute(most, shared_bytes.cast_signed());
            set.map_err(|error| self.no_shared(name, shared_bytes, error))?;
            kernel.shared_bytes = shared_bytes;
        }
        Ok(kernel.function.clone())
    }

    fn no_shared(&self, name: &str, bytes: u32, error: DriverError) -> KernelError {
        let most = CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let most = self.stream.context().attribute(most).unwrap_or_default();
        let detail = format!("{bytes} bytes, a block can have {most}: {}", named(name, error));
        KernelError::device(&self.label, "ask for shared memory", detail)
    }
}

impl Device for CudaDevice {
    type Buffer = CudaSlice<u8>;
    type Host = Pinned;
    type Fft = CudaFft;

    /// 16 MiB in f32: enough to fill a GPU, and it stays in a large level-2 cache, or nearly.
    const FFT_SAMPLES: usize = 1 << 22;

    fn alloc(&self, bytes: usize) -> Result<CudaSlice<u8>, KernelError> {
        // SAFETY: bytes need no particular content, and `Device::alloc` promises none. The driver refuses 0 bytes.
        unsafe { self.stream.alloc(bytes.max(1)) }.map_err(|error| {
            KernelError::device(&self.label, "allocate device memory", format!("{bytes} bytes: {}", describe(error)))
        })
    }

    fn alloc_host(&self, bytes: usize) -> Result<Pinned, KernelError> {
        Pinned::new(self.stream.context(), bytes).map_err(|error| {
            KernelError::device(&self.label, "allocate pinned memory", format!("{bytes} bytes: {}", describe(error)))
        })
    }

    fn address(&self, buffer: &CudaSlice<u8>) -> Address {
        buffer.device_ptr(&self.stream).0
    }

    fn upload(&self, from: &Pinned, bytes: usize, to: &mut CudaSlice<u8>) -> Result<(), KernelError> {
        let action = "copy to the device";
        self.check(action, bytes, &[from.bytes, to.len()])?;
        if bytes == 0 {
            return Ok(());
        }
        self.stream.context().bind_to_thread().map_err(self.failed(action))?;
        let (to, _) = to.device_ptr_mut(&self.stream);
        let copy = || {
            // SAFETY: both sides hold `bytes`; `from` is neither written nor freed before `queued` is over.
            let copied = unsafe { result::memcpy_htod_async(to, from.bytes(bytes), self.stream.cu_stream()) };
            copied.and_then(|()| from.queued(&self.stream)).map_err(self.failed(action))
        };
        self.noted(action, bytes, copy)
    }

    fn download(&self, from: &CudaSlice<u8>, bytes: usize, to: &mut Pinned) -> Result<(), KernelError> {
        let action = "copy from the device";
        self.check(action, bytes, &[from.len(), to.bytes])?;
        if bytes == 0 {
            return Ok(());
        }
        self.stream.context().bind_to_thread().map_err(self.failed(action))?;
        let (from, _) = from.device_ptr(&self.stream);
        let copy = || {
            // SAFETY: as in `upload`; nothing reads `to` before that either.
            let copied = unsafe { result::memcpy_dtoh_async(to.bytes_mut(bytes), from, self.stream.cu_stream()) };
            copied.and_then(|()| to.queued(&self.stream)).map_err(self.failed(action))
        };
        self.noted(action, bytes, copy)
    }

    fn zero(&self, buffer: &mut CudaSlice<u8>, bytes: usize) -> Result<(), KernelError> {
        let action = "clear device memory";
        self.check(action, bytes, &[buffer.len()])?;
        if bytes == 0 {
            return Ok(());
        }
        let mut part = buffer.slice_mut(..bytes);
        self.noted(action, bytes, || self.stream.memset_zeros(&mut part).map_err(self.failed(action)))
    }

    fn launch<P: Plain>(&self, kernel: &'static str, launch: Launch, params: &P) -> Result<(), KernelError> {
        let [x, y] = launch.grid;
        if x == 0 || y == 0 {
            return Ok(());
        }
        let function = self.function(kernel, launch.shared_bytes)?;
        let config = LaunchConfig {
            grid_dim: (x, y, 1),
            block_dim: (launch.threads, 1, 1),
            shared_mem_bytes: launch.shared_bytes,
        };
        let params = Parameter(*params);
        // SAFETY: every kernel takes one struct, which `params` is by the contract of `Device::launch`, and the driver
        // copies it before the call returns. What its addresses point to lives in buffers of this stream, which are
        // freed in the stream's order, after the kernel.
        let queue = || unsafe { self.stream.launch_builder(&function).arg(&params).launch(config) };
        let failed =
            |error| KernelError::device(&self.label, "launch", format!("{launch:?}: {}", named(kernel, error)));
        self.noted(kernel, 0, || queue().map(drop).map_err(failed))
    }

    fn plan_fft(&self, n: usize, count: usize, wide: bool) -> Result<CudaFft, KernelError> {
        let failed = |detail: String| {
            KernelError::device(&self.label, "plan transforms", format!("{count} of {n} samples: {detail}"))
        };
        self.stream.context().bind_to_thread().map_err(|error| failed(describe(error)))?;
        CudaFft::new(&self.stream, n, count, wide).map_err(failed)
    }

    fn run_fft(&self, fft: &CudaFft, input: &mut CudaSlice<u8>, output: &mut CudaSlice<u8>) -> Result<(), KernelError> {
        let action = "transform";
        self.check(action, fft.bytes_in, &[input.len()])?;
        self.check(action, fft.bytes_out, &[output.len()])?;
        self.stream.context().bind_to_thread().map_err(self.failed(action))?;
        let (input, output) = (input.device_ptr_mut(&self.stream).0, output.device_ptr_mut(&self.stream).0);
        // SAFETY: both buffers are as large as the plan wants, and aligned to 256 bytes; they and the plan are of this
        // stream.
        let exec = || unsafe { fft.exec(input, output) };
        let failed =
            |error: cufft::result::CufftError| KernelError::device(&self.label, action, format!("{:?}", error.0));
        self.noted(action, 0, || exec().map_err(failed))
    }

    fn synchronize(&self) -> Result<(), KernelError> {
        self.stream.synchronize().map_err(self.failed("compute"))
    }
}

/// A kernel's parameter.
#[repr(transparent)]
struct Parameter<P>(P);

// SAFETY: `Plain` is `repr(C)` numbers without padding, as the kernel's source declares them.
unsafe impl<P: Plain> DeviceRepr for Parameter<P> {}

/// Page-locked memory, cached for the host's reads as for its writes. Its bytes are handed out, and freed, once the copy
/// that was queued for it last is over. (cudarc's type has an event for that, and leaves it unrecorded where events between
/// streams are switched off.)
pub(crate) struct Pinned {
    /// Frees it.
    _memory: PinnedHostSlice<u8>,
    start: NonNull<u8>,
    bytes: usize,
    /// Behind the last copy.
    copied: CudaEvent,
}

// SAFETY: owns what `start` points to, as `_memory` does, which is Send.
unsafe impl Send for Pinned {}

impl Pinned {
    fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, DriverError> {
        // A thread that waits leaves its core to decoding.
        let copied = context.new_event(Some(CUevent_flags::CU_EVENT_BLOCKING_SYNC))?;
        // SAFETY: the bytes are written below, before anything reads them. No flags: write-combined memory, cudarc's
        // default, is slow to read. The driver refuses 0 bytes.
        let mut memory = unsafe { context.alloc_pinned_with_flags::<u8>(bytes.max(1), 0) }?;
        let start = NonNull::new(memory.as_mut_ptr()?).ok_or(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY))?;
        // SAFETY: just allocated, `bytes` of them.
        unsafe { start.write_bytes(0, bytes) };
        Ok(Self { _memory: memory, start, bytes, copied })
    }

    /// # Safety
    /// At most `self.bytes`; nothing is read while a copy to them is under way.
    unsafe fn bytes(&self, bytes: usize) -> &[u8] {
        // SAFETY: allocated and written with more.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), bytes) }
    }

    /// # Safety
    /// As `bytes`; nothing is read or written while any copy is under way.
    unsafe fn bytes_mut(&mut self, bytes: usize) -> &mut [u8] {
        // SAFETY: as above, and borrowed uniquely.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), bytes) }
    }

    /// Remembers a copy that was queued on `stream` just now; where that cannot be, waits for it.
    fn queued(&self, stream: &CudaStream) -> Result<(), DriverError> {
        let recorded = self.copied.record(stream);
        if recorded.is_err() {
            insist(|| stream.synchronize());
        }
        recorded
    }

    /// Waits for the last copy.
    fn wait(&self) {
        insist(|| self.copied.synchronize());
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.wait();
    }
}

/// Waits. cudarc answers once with an error of something freed before, without waiting; a second error is of a device
/// that failed for good and copies no more: its next call tells.
fn insist(wait: impl Fn() -> Result<(), DriverError>) {
    let _ = wait().or_else(|_| wait());
}

impl AsRef<[u8]> for Pinned {
    fn as_ref(&self) -> &[u8] {
        self.wait();
        // SAFETY: no copy is under way.
        unsafe { self.bytes(self.bytes) }
    }
}

impl AsMut<[u8]> for Pinned {
    fn as_mut(&mut self) -> &mut [u8] {
        self.wait();
        // SAFETY: no copy is under way.
        unsafe { self.bytes_mut(self.bytes) }
    }
}

/// A batch of real transforms, planned on a stream. (cudarc's own type panics where freeing the plan fails, as it does
/// once a device has failed.)
pub(crate) struct CudaFft {
    handle: cufft::sys::cufftHandle,
    stream: Arc<CudaStream>,
    wide: bool,
    bytes_in: usize,
    bytes_out: usize,
}

impl CudaFft {
    /// Errors: cuFFT's. The stream's context is current.
    fn new(stream: &Arc<CudaStream>, n: usize, count: usize, wide: bool) -> Result<Self, String> {
        use cufft::sys::cufftType_t::{CUFFT_D2Z, CUFFT_R2C};
        let number = |x: usize| i32::try_from(x).map_err(|_| format!("{x} is more than cuFFT counts"));
        let (mut length, bins, batch) = (number(n)?, number(n / 2 + 1)?, number(count)?);
        let kind = if wide { CUFFT_D2Z } else { CUFFT_R2C };
        let failed = |error: cufft::result::CufftError| format!("{:?}", error.0);
        let none = std::ptr::null_mut();
        // SAFETY: one dimension, read from `length`; no embedding, which means contiguous transforms.
        let handle = unsafe { cufft::result::plan_many(1, &mut length, none, 1, length, none, 1, bins, kind, batch) };
        let real = if wide { 8 } else { 4 };
        let (bytes_in, bytes_out) = (count * n * real, count * (n / 2 + 1) * 2 * real);
        let fft = Self { handle: handle.map_err(failed)?, stream: stream.clone(), wide, bytes_in, bytes_out };
        // SAFETY: the plan is new, and keeps the stream alive.
        unsafe { cufft::result::set_stream(fft.handle, stream.cu_stream().cast()) }.map_err(failed)?;
        Ok(fft)
    }

    /// # Safety
    /// `input` and `output` are `bytes_in` and `bytes_out` bytes of device memory of the plan's stream.
    unsafe fn exec(&self, input: Address, output: Address) -> Result<(), cufft::result::CufftError> {
        // SAFETY: by this function's own contract.
        unsafe {
            if self.wide {
                cufft::result::exec_d2z(self.handle, input as *mut _, output as *mut _)
            } else {
                cufft::result::exec_r2c(self.handle, input as *mut _, output as *mut _)
            }
        }
    }
}

impl Drop for CudaFft {
    fn drop(&mut self) {
        // Freeing the plan frees memory that a transform may still work in.
        insist(|| self.stream.synchronize());
        // SAFETY: planned by `new`, freed once.
        let _ = unsafe { cufft::result::destroy(self.handle) };
    }
}

/// The driver's words and its name for them.
fn describe(error: DriverError) -> String {
    let name = format!("{:?}", error.0);
    error.error_string().map_or(name.clone(), |words| format!("{} ({name})", words.to_string_lossy()))
}

fn named(kernel: &str, error: DriverError) -> String {
    format!("{kernel}: {}", describe(error))
}
