//! A stream of a GPU, implemented with cudarc's driver calls and cuFFT.
//!
//! Memory is allocated from a stream and used on that stream only: the work on it and its deallocation run in the order
//! in which they were queued, so no events between streams are needed.
#![allow(unsafe_code)] // driver and cuFFT calls; device memory is untyped

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{
    CUdevice_attribute_enum, CUevent_flags_enum, CUfunction_attribute_enum, CUresult,
};
use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr,
    DevicePtrMut, DeviceRepr, DriverError, LaunchConfig, PushKernelArg, result,
};
use cudarc::nvrtc::Ptx;

use super::pinned::PinnedMemory;
use super::record::{Piece, Record};
use super::{
    Address, Device, FoundDevice, Launch, Plain, cufft, sample_numbers, spectrum_step, wait,
};
use crate::error::KernelError;

/// Dynamic shared memory in bytes that a kernel may use unless a larger limit is set.
const SHARED_BYTES_DEFAULT: u32 = 48 << 10;
/// Blocks with less shared memory than this, in bytes, do not determine how a multiprocessor divides its memory. A
/// change of the division waits until the multiprocessor is idle.
const CARVED_BYTES_MIN: u32 = 8 << 10;

/// A GPU, with its primary CUDA context.
pub(crate) struct Gpu {
    context: Arc<CudaContext>,
    /// Name of the GPU in error messages, for example `cuda:0 (NVIDIA H200)`.
    label: Arc<str>,
    /// The vendor's name of the GPU.
    pub(crate) name: String,
    /// Major and minor version of the GPU's compute capability.
    pub(crate) capability: (i32, i32),
}

impl Gpu {
    /// Returns the number of GPUs that the driver shows to this process. Fails like the driver, also if there is no
    /// GPU.
    pub(crate) fn count() -> Result<usize, KernelError> {
        let none = "the driver sees no GPU (check nvidia-smi and CUDA_VISIBLE_DEVICES)";
        match CudaContext::device_count() {
            Ok(count @ 1..) => Ok(count.cast_unsigned() as usize),
            Ok(_) | Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => {
                Err(super::libraries::refused(none))
            }
            Err(error) => Err(super::libraries::refused(describe(error))),
        }
    }

    /// Lists the GPUs that the driver shows to this process, without opening them. Errors: the driver's, also if there
    /// is no GPU.
    pub(crate) fn all() -> Result<Vec<FoundDevice>, KernelError> {
        use CUdevice_attribute_enum::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };

        let mut found = Vec::new();
        for ordinal in 0..Self::count()? {
            let failed = driver_failure(format!("cuda:{ordinal}").into(), "ask");
            let device = result::device::get(ordinal as i32).map_err(&failed)?;

            // SAFETY: `device` is a handle of the driver, which `count` has initialised.
            let major = unsafe { result::device::get_attribute(device, MAJOR) }.map_err(&failed)?;
            // SAFETY: `device` is a handle of the initialised driver.
            let minor = unsafe { result::device::get_attribute(device, MINOR) }.map_err(&failed)?;
            // SAFETY: `device` is a handle of the initialised driver.
            let memory_bytes = unsafe { result::device::total_mem(device) }.map_err(&failed)?;

            found.push(FoundDevice {
                device: format!("cuda:{ordinal}"),
                name: result::device::get_name(device).map_err(&failed)?,
                architecture: format!("sm_{major}{minor}"),
                memory_bytes,
            });
        }
        Ok(found)
    }

    /// Opens a GPU by its number, which is less than [`Gpu::count`]. Errors: the driver's.
    pub(crate) fn open(ordinal: usize) -> Result<Self, KernelError> {
        let failed = driver_failure(format!("cuda:{ordinal}").into(), "open");
        let context = CudaContext::new(ordinal).map_err(&failed)?;
        // SAFETY: every buffer is used only on the stream that allocated it (see the module docs).
        unsafe { context.disable_event_tracking() };
        // A thread that waits for a GPU blocks instead of spinning, so that its core can decode.
        context.set_blocking_synchronize().map_err(&failed)?;

        let name = context.name().map_err(&failed)?;
        let capability = context.compute_capability().map_err(&failed)?;
        Ok(Self {
            context,
            label: format!("cuda:{ordinal} ({name})").into(),
            name,
            capability,
        })
    }

    /// Returns the CUDA context that owns page-locked host memory, from which this driver's GPUs copy directly.
    pub(crate) fn context(&self) -> Arc<CudaContext> {
        Arc::clone(&self.context)
    }

    /// Returns the bandwidth of the GPU's memory in bytes per second, from its clock and the width of its bus; `None`
    /// if the driver reports 0 for one of them. Errors: the driver's.
    pub(crate) fn memory_bytes_per_s(&self) -> Result<Option<f64>, KernelError> {
        use CUdevice_attribute_enum::{
            CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH as WIDTH_BITS,
            CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE as CLOCK_KHZ,
        };

        let failed = driver_failure(self.label.clone(), "query the memory");
        let clock_hz = 1e3 * f64::from(self.context.attribute(CLOCK_KHZ).map_err(&failed)?);
        let bytes = f64::from(self.context.attribute(WIDTH_BITS).map_err(&failed)?) / 8.0;
        // Memory transfers data twice per clock cycle.
        let bytes_per_s = 2.0 * clock_hz * bytes;
        Ok((bytes_per_s > 0.0).then_some(bytes_per_s))
    }

    /// Returns the GPU's architecture, for example `sm_90`.
    pub(crate) fn architecture(&self) -> String {
        format!("sm_{}{}", self.capability.0, self.capability.1)
    }

    /// Returns a description of the GPU, for example `cuda:0 (NVIDIA H200, sm_90)`.
    pub(crate) fn described(&self) -> String {
        format!(
            "cuda:{} ({}, {})",
            self.context.ordinal(),
            self.name,
            self.architecture()
        )
    }

    /// Returns the GPU's name for error messages, for example `cuda:0 (NVIDIA H200)`.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// Loads compiled kernels on the GPU. Errors: the driver's, for example for code of another architecture.
    pub(crate) fn load(&self, cubin: &[u8]) -> Result<Arc<CudaModule>, KernelError> {
        self.context
            .load_module(Ptx::from_binary(cubin.to_vec()))
            .map_err(driver_failure(self.label.clone(), "load kernels"))
    }
}

/// One stream of a GPU.
pub(crate) struct CudaDevice {
    label: Arc<str>,
    stream: Arc<CudaStream>,
    module: Arc<CudaModule>,
    kernels: RefCell<HashMap<&'static str, Kernel>>,
    /// Record of queued work and its durations; `None` unless work is measured.
    record: Option<Record>,
}

/// A kernel that has been looked up in the loaded module.
struct Kernel {
    function: CudaFunction,
    /// Current limit of the kernel's dynamic shared memory in bytes.
    shared_bytes: u32,
    /// Dynamic shared memory in bytes for which the division of the multiprocessors' memory has been set.
    carved_bytes: u32,
}

impl CudaDevice {
    /// Creates a new stream that launches the kernels of `module`, which is loaded on `gpu`.
    pub(crate) fn new(
        gpu: &Gpu,
        module: Arc<CudaModule>,
        record: Option<Record>,
    ) -> Result<Self, KernelError> {
        let stream = gpu
            .context
            .new_stream()
            .map_err(driver_failure(gpu.label.clone(), "create a stream"))?;
        Ok(Self {
            label: gpu.label.clone(),
            stream,
            module,
            kernels: RefCell::default(),
            record,
        })
    }

    /// Queues `work`; if this device has a record, records its name, bytes and duration.
    fn noted(
        &self,
        what: &'static str,
        bytes: usize,
        work: impl FnOnce() -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let Some(record) = &self.record else {
            return work();
        };

        let start = self.timed_event()?;
        work()?;
        let end = self.timed_event()?;
        record.push(Piece {
            what,
            bytes,
            start,
            end,
        });
        Ok(())
    }

    /// Queues an event after all queued work; the event stores the time at which the GPU reaches it.
    fn timed_event(&self) -> Result<CudaEvent, KernelError> {
        self.stream
            .record_event(Some(CUevent_flags_enum::CU_EVENT_DEFAULT))
            .map_err(self.failed("record an event"))
    }

    /// Like [`Self::noted`], but also records `work`, which owns all its data, so that it can be queued again.
    fn noted_again(
        &self,
        what: &'static str,
        bytes: usize,
        work: impl Fn() -> Result<(), KernelError> + Send + 'static,
    ) -> Result<(), KernelError> {
        self.noted(what, bytes, &work)?;
        if let Some(record) = &self.record {
            record.push_again(Box::new(work));
        }
        Ok(())
    }

    fn failed(&self, action: &'static str) -> impl Fn(DriverError) -> KernelError + Send + use<> {
        driver_failure(self.label.clone(), action)
    }

    /// Returns the error for memory that the driver does not allocate.
    fn not_allocated(&self, action: &'static str, bytes: usize, error: DriverError) -> KernelError {
        let detail = format!("{bytes} bytes: {}", describe(error));
        match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                KernelError::TooLarge(format!("{}: {action}: {detail}", self.label))
            }
            _ => KernelError::device(&self.label, action, detail),
        }
    }

    /// Makes the GPU current for the calling thread. Raw driver calls need this; cudarc does it only in its safe
    /// functions.
    fn bind(&self, action: &'static str) -> Result<(), KernelError> {
        self.stream
            .context()
            .bind_to_thread()
            .map_err(self.failed(action))
    }

    /// Returns an error if a copy or a transform of `bytes` bytes exceeds one of the buffer lengths `limits`.
    fn check(
        &self,
        action: &'static str,
        bytes: usize,
        limits: &[usize],
    ) -> Result<(), KernelError> {
        match limits.iter().find(|limit| bytes > **limit) {
            None => Ok(()),
            Some(limit) => Err(KernelError::device(
                &self.label,
                action,
                format!("{bytes} bytes in a buffer of {limit}"),
            )),
        }
    }

    /// Returns the kernel `name`, looked up once and permitted to use the dynamic shared memory of `launch`.
    fn function(&self, name: &'static str, launch: Launch) -> Result<CudaFunction, KernelError> {
        // A thread may use several GPUs, and freeing memory of another GPU makes that one current.
        self.bind("look up a kernel")?;
        let mut kernels = self.kernels.borrow_mut();
        let kernel = match kernels.entry(name) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let function = self.module.load_function(name).map_err(|error| {
                    KernelError::device(&self.label, "look up a kernel", named(name, error))
                })?;
                entry.insert(Kernel {
                    function,
                    shared_bytes: SHARED_BYTES_DEFAULT,
                    carved_bytes: CARVED_BYTES_MIN - 1,
                })
            }
        };

        let shared_bytes = launch.shared_bytes;
        // The driver refuses a launch with more dynamic shared memory than the kernel's current limit.
        if shared_bytes > kernel.shared_bytes {
            let most = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let set = kernel
                .function
                .set_attribute(most, shared_bytes.cast_signed());
            set.map_err(|error| self.no_shared(name, shared_bytes, error))?;
            kernel.shared_bytes = shared_bytes;
        }

        if shared_bytes > kernel.carved_bytes {
            // This is only a preference: without it, a kernel may be slower. The launch reports a failed device.
            let _ = self.prefer_carve_out(&kernel.function, launch);
            kernel.carved_bytes = shared_bytes;
        }

        Ok(kernel.function.clone())
    }

    /// Asks for so much shared memory that a multiprocessor holds as many blocks as its threads and registers permit.
    /// The rest of its memory remains a cache, from which kernels read their tables.
    ///
    /// The preference belongs to the loaded kernel, which all plans and lanes of a GPU share. It never decreases, so
    /// that a small launch does not take blocks from a larger one.
    fn prefer_carve_out(&self, function: &CudaFunction, launch: Launch) -> Result<(), DriverError> {
        use CUdevice_attribute_enum::{
            CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR as PER_MULTIPROCESSOR,
            CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK as RESERVED,
        };
        const PREFERENCE: CUfunction_attribute_enum =
            CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;

        // Another lane would read the temporary preference of 100 % as the old one, and keep it.
        static CHANGE: Mutex<()> = Mutex::new(());
        let _changing = CHANGE.lock().unwrap_or_else(PoisonError::into_inner);

        // The driver counts only the blocks that fit into the preferred division, so count them in the largest one.
        let old_percent = function.get_attribute(PREFERENCE)?;
        function.set_attribute(PREFERENCE, 100)?;
        let blocks = resident_blocks(function, launch)?;

        let context = self.stream.context();
        let block_bytes = launch.shared_bytes + context.attribute(RESERVED)?.cast_unsigned();
        let most_bytes = context.attribute(PER_MULTIPROCESSOR)?.cast_unsigned();
        let percent = carve_out_percent(blocks, block_bytes, most_bytes);
        // The old preference is −1 if none has been set.
        function.set_attribute(PREFERENCE, percent.max(old_percent))
    }

    fn no_shared(&self, name: &str, bytes: u32, error: DriverError) -> KernelError {
        let most = CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let most = self.stream.context().attribute(most).unwrap_or_default();
        let detail = format!(
            "{bytes} bytes, but a block can have at most {most}: {}",
            named(name, error)
        );
        KernelError::device(&self.label, "request shared memory", detail)
    }
}

impl Device for CudaDevice {
    type Buffer = CudaSlice<u8>;
    type Host = PinnedMemory;
    type Fft = CudaFft;

    /// 16 MiB in f32: enough to keep a GPU busy, and it fits, or nearly fits, into a large level-2 cache.
    const FFT_SAMPLES: usize = 1 << 22;

    fn alloc(&self, bytes: usize) -> Result<CudaSlice<u8>, KernelError> {
        // SAFETY: any content is valid for bytes, and `Device::alloc` promises no content. The driver refuses 0 bytes.
        unsafe { self.stream.alloc(bytes.max(1)) }
            .map_err(|error| self.not_allocated("allocate device memory", bytes, error))
    }

    fn alloc_host(&self, bytes: usize) -> Result<PinnedMemory, KernelError> {
        PinnedMemory::new(self.stream.context(), bytes)
            .map_err(|error| self.not_allocated("allocate pinned memory", bytes, error))
    }

    fn address(&self, buffer: &CudaSlice<u8>) -> Address {
        buffer.device_ptr(&self.stream).0
    }

    fn upload(
        &self,
        from: &PinnedMemory,
        bytes: usize,
        to: &mut CudaSlice<u8>,
    ) -> Result<(), KernelError> {
        let action = "copy to the device";
        self.check(action, bytes, &[from.len(), to.len()])?;
        if bytes == 0 {
            return Ok(());
        }
        self.bind(action)?;

        // The ignored second value would record an event when dropped, but `Gpu::open` has disabled such events.
        let (to, _) = to.device_ptr_mut(&self.stream);
        self.noted(action, bytes, || {
            // SAFETY: both buffers contain `bytes` bytes; `from` is neither written nor freed before the event recorded
            // by `queued` has completed.
            let copied = unsafe {
                result::memcpy_htod_async(to, from.bytes(bytes), self.stream.cu_stream())
            };
            copied
                .and_then(|()| from.queued(&self.stream))
                .map_err(self.failed(action))
        })
    }

    unsafe fn upload_lent(
        &self,
        from: &[u8],
        to: &mut CudaSlice<u8>,
        at: usize,
    ) -> Result<(), KernelError> {
        let action = "copy to the device";
        self.check(action, at.saturating_add(from.len()), &[to.len()])?;
        if from.is_empty() {
            return Ok(());
        }
        self.bind(action)?;

        let (to, _) = to.device_ptr_mut(&self.stream);
        self.noted(action, from.len(), || {
            // SAFETY: the destination holds the bytes after `at`; by this function's contract `from` stays unchanged.
            unsafe { result::memcpy_htod_async(to + at as Address, from, self.stream.cu_stream()) }
                .map_err(self.failed(action))
        })
    }

    fn download(
        &self,
        from: &CudaSlice<u8>,
        bytes: usize,
        to: &mut PinnedMemory,
    ) -> Result<(), KernelError> {
        let action = "copy from the device";
        self.check(action, bytes, &[from.len(), to.len()])?;
        if bytes == 0 {
            return Ok(());
        }
        self.bind(action)?;

        let (from, _) = from.device_ptr(&self.stream);
        self.noted(action, bytes, || {
            // SAFETY: both buffers are large enough, as in `upload`; `to` is not accessed before its event is complete.
            let copied = unsafe {
                result::memcpy_dtoh_async(to.bytes_mut(bytes), from, self.stream.cu_stream())
            };
            copied
                .and_then(|()| to.queued(&self.stream))
                .map_err(self.failed(action))
        })
    }

    fn zero(&self, buffer: &mut CudaSlice<u8>, bytes: usize) -> Result<(), KernelError> {
        let action = "clear device memory";
        self.check(action, bytes, &[buffer.len()])?;
        if bytes == 0 {
            return Ok(());
        }
        self.bind(action)?;

        let (start, _) = buffer.device_ptr_mut(&self.stream);
        // As in `launch`, the closure owns all its data.
        let failed = self.failed(action);
        let stream = self.stream.clone();
        self.noted_again(action, bytes, move || {
            // SAFETY: the buffer contains `bytes` bytes; it belongs to this stream and is freed in the stream's order.
            unsafe { result::memset_d8_async(start, 0, bytes, stream.cu_stream()) }.map_err(&failed)
        })
    }

    fn launch<P: Plain>(
        &self,
        kernel: &'static str,
        launch: Launch,
        params: &P,
    ) -> Result<(), KernelError> {
        let [x, y] = launch.grid;
        // The driver refuses an empty grid, and a batch may have no frames.
        if x == 0 || y == 0 {
            return Ok(());
        }

        let function = self.function(kernel, launch)?;
        if let Some(record) = &self.record {
            let blocks = resident_blocks(&function, launch);
            record.note_blocks(kernel, blocks.map_err(self.failed("query the occupancy"))?);
        }
        let config = LaunchConfig {
            grid_dim: (x, y, 1),
            block_dim: (launch.threads, 1, 1),
            shared_mem_bytes: launch.shared_bytes,
        };

        // A record may launch the kernel again later, so the closure owns all its data.
        let params = Parameter(*params);
        let stream = self.stream.clone();
        let label = self.label.clone();
        self.noted_again(kernel, 0, move || {
            // SAFETY: every kernel takes one struct, which is the type of `params` by the contract of `Device::launch`,
            // and the driver copies it before the call returns. Its addresses point into buffers of this stream, which
            // are freed in the stream's order, after the kernel.
            let launched = unsafe { stream.launch_builder(&function).arg(&params).launch(config) };
            launched.map(drop).map_err(|error| {
                let detail = format!("{launch:?}: {}", named(kernel, error));
                KernelError::device(&label, "launch", detail)
            })
        })
    }

    fn plan_fft(&self, n: usize, count: usize, wide: bool) -> Result<CudaFft, KernelError> {
        self.stream
            .context()
            .bind_to_thread()
            .map_err(describe)
            .and_then(|()| CudaFft::new(&self.stream, n, count, wide))
            .map_err(|detail| {
                let detail = format!("{count} of {n} samples: {detail}");
                KernelError::device(&self.label, "plan transforms", detail)
            })
    }

    fn run_fft(
        &self,
        fft: &CudaFft,
        input: &mut CudaSlice<u8>,
        output: &mut CudaSlice<u8>,
    ) -> Result<(), KernelError> {
        let action = "transform";
        self.check(action, fft.bytes_in, &[input.len()])?;
        self.check(action, fft.bytes_out, &[output.len()])?;
        self.bind(action)?;

        let (input, _) = input.device_ptr_mut(&self.stream);
        let (output, _) = output.device_ptr_mut(&self.stream);
        let label = self.label.clone();
        let transform = fft.transform();
        self.noted_again(action, 0, move || {
            // SAFETY: both buffers are as large as the plan requires and aligned to 256 bytes; they and the plan belong
            // to this stream and outlive the queued work.
            let queued = unsafe { transform.exec(input, output) };
            queued.map_err(|error| KernelError::device(&label, action, error))
        })
    }

    fn synchronize(&self) -> Result<(), KernelError> {
        wait::for_stream(&self.stream).map_err(self.failed("compute"))
    }
}

/// Returns the number of blocks of a launch that a multiprocessor can hold at once, according to the driver.
fn resident_blocks(function: &CudaFunction, launch: Launch) -> Result<u32, DriverError> {
    let shared_bytes = launch.shared_bytes as usize;
    function.occupancy_max_active_blocks_per_multiprocessor(launch.threads, shared_bytes, None)
}

/// Returns the share of `most_bytes` that `blocks` blocks need, in percent, rounded up.
fn carve_out_percent(blocks: u32, block_bytes: u32, most_bytes: u32) -> i32 {
    let wanted = 100 * u64::from(blocks) * u64::from(block_bytes);
    // The quotient is at most 100, so the conversion is exact.
    wanted.div_ceil(u64::from(most_bytes).max(1)).min(100) as i32
}

/// A kernel's parameter struct.
#[repr(transparent)]
struct Parameter<P>(P);

// SAFETY: `Plain` types are `repr(C)` numbers without padding, as declared in the kernel's source.
unsafe impl<P: Plain> DeviceRepr for Parameter<P> {}

/// A batch of real transforms, planned on a stream.
pub(crate) struct CudaFft {
    handle: cufft::Handle,
    stream: Arc<CudaStream>,
    is_complex: bool,
    wide: bool,
    bytes_in: usize,
    bytes_out: usize,
}

impl CudaFft {
    /// Plans `count` transforms of `n` samples. The CUDA context of `stream` must be current. Errors: cuFFT's.
    fn new(stream: &Arc<CudaStream>, n: usize, count: usize, wide: bool) -> Result<Self, String> {
        let n_bins = spectrum_step(n);
        let is_complex = sample_numbers(n) == 2;
        let shape = cufft::Shape {
            n: fft_count(n)?,
            is_complex,
            n_bins: fft_count(n_bins)?,
            count: fft_count(count)?,
            wide,
        };

        // From here on, `fft` owns the plan and frees it when dropped, also if the next call fails.
        let real_bytes = if wide { 8 } else { 4 };
        let fft = Self {
            handle: cufft::plan(&shape)?,
            stream: stream.clone(),
            is_complex,
            wide,
            bytes_in: count * n * sample_numbers(n) * real_bytes,
            bytes_out: count * n_bins * 2 * real_bytes,
        };

        // A cuFFT plan uses the default stream unless another one is set. SAFETY: the plan is new and keeps the stream
        // alive.
        unsafe { cufft::set_stream(fft.handle, stream.cu_stream().cast()) }?;
        Ok(fft)
    }

    fn transform(&self) -> Transform {
        Transform {
            handle: self.handle,
            is_complex: self.is_complex,
            wide: self.wide,
        }
    }
}

/// Copyable handle of a cuFFT plan. Must not be used after the plan has been freed.
#[derive(Clone, Copy)]
struct Transform {
    handle: cufft::Handle,
    is_complex: bool,
    wide: bool,
}

impl Transform {
    /// # Safety
    /// The plan must not have been freed; `input` and `output` are `bytes_in` and `bytes_out` bytes of device memory of
    /// its stream.
    unsafe fn exec(self, input: Address, output: Address) -> Result<(), String> {
        let (input, output) = (input as *mut _, output as *mut _);
        // SAFETY: guaranteed by the caller, see above.
        unsafe { cufft::exec(self.handle, self.is_complex, self.wide, input, output) }
    }
}

impl Drop for CudaFft {
    fn drop(&mut self) {
        // Freeing the plan frees memory that a running transform may still use.
        let _ = wait::for_stream(&self.stream);
        // SAFETY: the handle was created by `new` and is freed only here.
        let _ = unsafe { cufft::destroy(self.handle) };
    }
}

/// Converts a count to i32, as cuFFT requires.
fn fft_count(n: usize) -> Result<i32, String> {
    i32::try_from(n).map_err(|_| format!("{n} exceeds cuFFT's 32-bit counts"))
}

/// Returns a function that converts a driver error during `action` to a [`KernelError`].
fn driver_failure(
    device: Arc<str>,
    action: &'static str,
) -> impl Fn(DriverError) -> KernelError + Send + use<> {
    move |error| KernelError::device(&device, action, describe(error))
}

/// Returns the driver's message for an error, followed by the error's name.
pub(super) fn describe(error: DriverError) -> String {
    let name = format!("{:?}", error.0);
    error.error_string().map_or(name.clone(), |message| {
        format!("{} ({name})", message.to_string_lossy())
    })
}

fn named(kernel: &str, error: DriverError) -> String {
    format!("{kernel}: {}", describe(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carve_out_holds_all_blocks_and_no_more_than_there_is() {
        // `fused_mel_2048` with 128 bands: 39,436 bytes of a block and 1 KiB that a Hopper reserves, of 228 KiB.
        let percent = carve_out_percent(4, 39_436 + 1024, 228 << 10);
        assert_eq!(percent, 70);
        assert!((228 << 10) * percent >= 4 * (39_436 + 1024) * 100);

        assert_eq!(carve_out_percent(1, 48 << 10, 48 << 10), 100);
        assert_eq!(carve_out_percent(9, 40 << 10, 228 << 10), 100);
        assert_eq!(carve_out_percent(0, 40 << 10, 228 << 10), 0);
        assert_eq!(carve_out_percent(4, 40 << 10, 0), 100);
    }
}
