//! NCCL through cudarc's raw bindings, so that GPUs sum tensors without host memory. libcuda and libnccl are loaded at
//! their first use; if one is missing, functions return an error instead of panicking.
//!
//! This module manages one communicator with one GPU per process. Other modules connect the ranks and choose the
//! tensors.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};
use std::ptr;
use std::sync::{Mutex, PoisonError, RwLock, TryLockError};

use cudarc::driver::sys as cuda;
use cudarc::nccl::sys as nccl;
use tch::{Device, Kind, Tensor};

use super::FfiError;
use super::nccl_library::{Nccl, nccl as library};

/// Minimum version of NCCL: 2.13, the first version with all functions that this file uses.
const VERSION_MIN: c_int = 21_300;
/// Length in bytes of the communicator id returned by [`nccl_id`].
const ID_BYTES: usize = 128;

/// Formats a version number of NCCL, such as 22809, as 2.28.9.
pub(crate) fn version_text(version: i32) -> String {
    format!(
        "{}.{}.{}",
        version / 10_000,
        version / 100 % 100,
        version % 100
    )
}

/// Returns an error if NCCL of this version is too old.
pub(super) fn check_version(found: c_int) -> Result<(), FfiError> {
    if found >= VERSION_MIN {
        return Ok(());
    }
    let [found, least] = [found, VERSION_MIN].map(version_text);
    Err(FfiError::Nccl(format!(
        "NCCL {found} is older than {least}"
    )))
}

fn check_cuda(call: &str, result: cuda::CUresult) -> Result<(), FfiError> {
    match result {
        cuda::CUresult::CUDA_SUCCESS => Ok(()),
        error => Err(FfiError::Nccl(format!("CUDA's {call}: {error:?}"))),
    }
}

/// Converts the result code of an NCCL call to a `Result`. After an error, queries NCCL for details.
fn check(call: &str, result: nccl::ncclResult_t) -> Result<(), FfiError> {
    use nccl::ncclResult_t::{ncclInProgress, ncclSuccess};
    if matches!(result, ncclSuccess | ncclInProgress) {
        return Ok(());
    }

    let log = match library() {
        // SAFETY: NCCL ignores the communicator argument, and the returned text, if any, belongs to NCCL. Another
        // thread may overwrite it, but it remains NUL-terminated.
        Ok(Nccl { get_last_error, .. }) => unsafe {
            let text = get_last_error(ptr::null_mut());
            if text.is_null() {
                String::new()
            } else {
                CStr::from_ptr(text).to_string_lossy().into_owned()
            }
        },
        Err(_) => String::new(),
    };
    let message = explain(result, &log);
    Err(FfiError::Nccl(format!("NCCL's {call}: {message}")))
}

/// Describes an error of NCCL, with the last line that NCCL logged, if any.
fn explain(result: nccl::ncclResult_t, log: &str) -> String {
    use nccl::ncclResult_t as R;
    let message = match result {
        R::ncclUnhandledCudaError => "a CUDA call failed",
        R::ncclSystemError => "a system call failed",
        R::ncclInternalError => "internal error",
        R::ncclInvalidArgument => "invalid argument",
        R::ncclInvalidUsage => "invalid usage",
        R::ncclRemoteError => "another rank has ended or cannot be reached",
        _ => "unknown error",
    };
    match log.lines().map(str::trim).rfind(|line| !line.is_empty()) {
        Some(line) => format!("{message} ({line}); set NCCL_DEBUG=WARN for details"),
        None => format!("{message}; set NCCL_DEBUG=WARN for details"),
    }
}

fn need_cuda() -> Result<(), FfiError> {
    // SAFETY: opens and closes libraries with the driver's names, whose initialisers make no callbacks.
    match unsafe { cuda::is_culib_present() } {
        true => Ok(()),
        false => Err(FfiError::Nccl("libcuda.so was not found".to_owned())),
    }
}

/// Returns the version of the installed NCCL, as returned by `ncclGetVersion`: 22809 is 2.28.9.
///
/// # Errors
/// [`FfiError::Nccl`] if NCCL or libcuda is missing, or if NCCL is too old.
pub(crate) fn nccl_version() -> Result<i32, FfiError> {
    need_cuda()?;
    library().map(|nccl| nccl.version)
}

/// Creates the id of a communicator: one rank creates it, and all ranks pass it to [`Communicator::join`].
pub(crate) fn nccl_id() -> Result<Vec<u8>, FfiError> {
    need_cuda()?;
    let calls = library()?;
    let mut id = nccl::ncclUniqueId {
        internal: [0; ID_BYTES],
    };
    // SAFETY: the call writes only to `id`.
    check("ncclGetUniqueId", unsafe {
        (calls.get_unique_id)(&raw mut id)
    })?;
    Ok(id
        .internal
        .iter()
        .map(|&byte| byte.cast_unsigned())
        .collect())
}

fn cuda_device(index: usize) -> Result<cuda::CUdevice, FfiError> {
    need_cuda()?;
    let mut device = 0;
    // SAFETY: libcuda is loaded; the second call writes one number.
    unsafe {
        check_cuda("cuInit", cuda::cuInit(0))?;
        check_cuda(
            "cuDeviceGet",
            cuda::cuDeviceGet(&raw mut device, index as c_int),
        )?;
    }
    Ok(device)
}

/// Returns the UUID of a GPU in hexadecimal, since the index in `Device::Cuda(index)` can differ between processes.
///
/// # Errors
/// [`FfiError`] if libcuda or the GPU is missing.
pub(crate) fn gpu_uuid(index: usize) -> Result<String, FfiError> {
    let device = cuda_device(index)?;
    let mut uuid = cuda::CUuuid { bytes: [0; 16] };
    // SAFETY: `device` comes from the driver; the call writes 16 bytes.
    check_cuda("cuDeviceGetUuid", unsafe {
        cuda::cuDeviceGetUuid_v2(&raw mut uuid, device)
    })?;
    Ok(uuid
        .bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// The CUDA context of a GPU that libtorch uses as well (primary context). It is never released.
#[derive(Debug)]
struct Context(cuda::CUcontext);

// SAFETY: the driver allows a CUDA context to be current in any number of threads.
unsafe impl Send for Context {}
// SAFETY: the driver allows a CUDA context to be current in any number of threads.
unsafe impl Sync for Context {}

/// Guard that keeps a CUDA context current in this thread until it is dropped.
struct CurrentContext;

impl Context {
    fn primary(index: usize) -> Result<Self, FfiError> {
        let device = cuda_device(index)?;
        let mut context = ptr::null_mut();
        // SAFETY: `device` comes from the driver; the call writes one pointer.
        check_cuda("cuDevicePrimaryCtxRetain", unsafe {
            cuda::cuDevicePrimaryCtxRetain(&raw mut context, device)
        })?;
        Ok(Self(context))
    }

    /// Makes the CUDA context current in this thread: NCCL uses the device of the current context, like the CUDA
    /// runtime.
    fn enter(&self) -> Result<CurrentContext, FfiError> {
        // SAFETY: the context was retained when `self` was created by `of`.
        check_cuda("cuCtxPushCurrent", unsafe {
            cuda::cuCtxPushCurrent_v2(self.0)
        })?;
        Ok(CurrentContext)
    }
}

impl Drop for CurrentContext {
    fn drop(&mut self) {
        let mut context = ptr::null_mut();
        // SAFETY: the call pops the context that `enter` pushed, since NCCL leaves the stack of contexts unchanged. It
        // fails only if the driver fails.
        let _ = unsafe { cuda::cuCtxPopCurrent_v2(&raw mut context) };
    }
}

#[derive(Clone, Copy, Debug)]
struct Comm(nccl::ncclComm_t);

// SAFETY: NCCL binds a communicator to a device, not to a thread. `Communicator` makes one call at a time; only the
// query for asynchronous errors may run during another call.
unsafe impl Send for Comm {}
// SAFETY: `Communicator` makes one call at a time, except for queries for errors, which NCCL allows.
unsafe impl Sync for Comm {}

/// A rank and its GPU, as passed to [`Communicator::join`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct NcclRank {
    /// Number of this rank, counted from 0.
    pub rank: usize,
    /// Total number of ranks.
    pub world_size: usize,
    /// Index of this rank's GPU in this process.
    pub device: usize,
}

/// The NCCL connection between this process's GPU and the GPUs of all ranks.
#[derive(Debug)]
pub(crate) struct Communicator {
    calls: &'static Nccl,
    device: Device,
    context: Context,
    /// NCCL's communicator; `None` after [`Communicator::end`], which locks it for writing.
    comm: RwLock<Option<Comm>>,
    one_at_a_time: Mutex<()>,
}

impl Communicator {
    /// Joins a communicator. Blocks, without a time limit, until all ranks have joined with the same `id`.
    pub(crate) fn join(id: &[u8], own: NcclRank) -> Result<Self, FfiError> {
        need_cuda()?;
        let calls = library()?;
        let bytes = <[u8; ID_BYTES]>::try_from(id).map_err(|_| {
            FfiError::Nccl(format!("an NCCL id has {ID_BYTES} bytes, not {}", id.len()))
        })?;
        let id = nccl::ncclUniqueId {
            internal: bytes.map(|byte| byte as c_char),
        };

        let context = Context::primary(own.device)?;
        let current = context.enter()?;
        let mut comm = ptr::null_mut();
        let world_size = own.world_size as c_int;
        let rank = own.rank as c_int;
        // SAFETY: the call writes one pointer, which this communicator owns until `end`.
        check("ncclCommInitRank", unsafe {
            (calls.comm_init_rank)(&raw mut comm, world_size, id, rank)
        })?;
        drop(current);

        Ok(Self {
            calls,
            device: Device::Cuda(own.device),
            context,
            comm: RwLock::new(Some(Comm(comm))),
            one_at_a_time: Mutex::default(),
        })
    }

    /// Sums a tensor over the ranks in place. Returns before the GPU has finished: libtorch's next operations on the
    /// tensor wait for the sum.
    ///
    /// # Errors
    /// [`FfiError::Tensor`] if the tensor cannot be summed, before any work is queued, and [`FfiError::Nccl`].
    pub(crate) fn sum(&self, tensor: &mut Tensor) -> Result<(), FfiError> {
        let kind = self.kind_of(tensor)?;
        if tensor.numel() == 0 {
            return Ok(());
        }

        let comm = self.comm.read().unwrap_or_else(PoisonError::into_inner);
        let Some(Comm(comm)) = *comm else {
            let message = "NCCL was already shut down on this rank";
            return Err(FfiError::Nccl(message.to_owned()));
        };

        let _one = self
            .one_at_a_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let _current = self.context.enter()?;

        let data = tensor.data_ptr();
        // libtorch uses CUDA's null stream, the default stream of the device, because this crate sets no other stream.
        let stream = ptr::null_mut();
        let sum = nccl::ncclRedOp_t::ncclSum;
        // SAFETY: `data` holds `numel` contiguous values of `kind` on the communicator's device, and `&mut` excludes
        // other uses of the tensor. libtorch reuses freed memory only for later work on the same stream.
        check("ncclAllReduce", unsafe {
            (self.calls.all_reduce)(data, data, tensor.numel(), kind, sum, comm, stream)
        })
    }

    fn kind_of(&self, tensor: &Tensor) -> Result<nccl::ncclDataType_t, FfiError> {
        let fits = tensor.defined()
            && tensor.device() == self.device
            && !tensor.is_sparse()
            && tensor.is_contiguous();
        match fits.then(|| tensor.kind()) {
            Some(Kind::Float) => Ok(nccl::ncclDataType_t::ncclFloat32),
            Some(Kind::Double) => Ok(nccl::ncclDataType_t::ncclFloat64),
            _ => Err(FfiError::Tensor {
                device: self.device,
                found: format!("{tensor:?}"),
            }),
        }
    }

    /// Returns an asynchronous error of this GPU or of another rank, if there is one. Does not block; may be called
    /// from another thread.
    pub(crate) fn fault(&self) -> Option<FfiError> {
        let comm = match self.comm.try_read() {
            Ok(comm) => comm,
            Err(TryLockError::Poisoned(comm)) => comm.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };

        let Comm(comm) = (*comm)?;
        let mut state = nccl::ncclResult_t::ncclSuccess;
        // SAFETY: the communicator is not destroyed while the lock is held; the call writes one number.
        let asked = check("ncclCommGetAsyncError", unsafe {
            (self.calls.comm_get_async_error)(comm, &raw mut state)
        });
        asked.and_then(|()| check("sum over ranks", state)).err()
    }

    /// Waits until the GPU has finished its work and destroys the communicator. Every rank must call `end`. Later calls
    /// do nothing.
    pub(crate) fn end(&self) -> Result<(), FfiError> {
        let Some(Comm(comm)) = self
            .comm
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        else {
            return Ok(());
        };

        let _current = self.context.enter()?;
        // SAFETY: the call waits for the current context, which belongs to this communicator's GPU.
        check_cuda("cuCtxSynchronize", unsafe { cuda::cuCtxSynchronize() })?;
        // SAFETY: the communicator was taken out of the lock, so no other thread can use it.
        check("ncclCommDestroy", unsafe {
            (self.calls.comm_destroy)(comm)
        })
    }
}

#[cfg(test)]
mod tests {
    use nccl::ncclResult_t as R;

    use super::*;

    #[test]
    fn missing_library_or_symbol_is_an_error_with_its_name() {
        let place = NcclRank {
            rank: 0,
            world_size: 2,
            device: 0,
        };

        let asked = [
            nccl_version().map(|version| version >= VERSION_MIN),
            nccl_id().map(|id| id.len() == ID_BYTES),
            gpu_uuid(0).map(|uuid| uuid.len() == 32),
        ];
        let cuda = need_cuda().is_ok();

        for answer in asked {
            match answer {
                Ok(right) => assert!(right && cuda),
                Err(error) => assert!(
                    cuda || error.to_string() == "libcuda.so was not found",
                    "{error}"
                ),
            }
        }

        assert!(
            Communicator::join(&[0; 3], place).is_err(),
            "no id, if there is an NCCL"
        );
        assert!(gpu_uuid(4000).is_err(), "no machine has as many");
    }

    #[test]
    fn errors_contain_the_call_and_last_nccl_log() {
        let remote = explain(R::ncclRemoteError, "");
        assert_eq!(
            remote,
            "another rank has ended or cannot be reached; set NCCL_DEBUG=WARN for details"
        );

        let system = explain(
            R::ncclSystemError,
            "first\n socketStartConnect: refused \n\n",
        );
        assert_eq!(
            system,
            "a system call failed (socketStartConnect: refused); set NCCL_DEBUG=WARN for details"
        );

        let known = [
            R::ncclUnhandledCudaError,
            R::ncclInternalError,
            R::ncclInvalidArgument,
            R::ncclInvalidUsage,
        ];
        let message: std::collections::BTreeSet<_> = known
            .into_iter()
            .map(|result| explain(result, ""))
            .collect();
        assert_eq!(message.len(), known.len());

        let driver = check_cuda("cuInit", cuda::CUresult::CUDA_ERROR_NO_DEVICE)
            .expect_err("an error")
            .to_string();
        assert_eq!(driver, "CUDA's cuInit: CUDA_ERROR_NO_DEVICE");

        assert_eq!(
            check_version(21_005).expect_err("too old").to_string(),
            "NCCL 2.10.5 is older than 2.13.0"
        );
    }

    /// Prints the version of NCCL. Other tests run this in a separate process, because NCCL is loaded only once per
    /// process.
    #[test]
    #[ignore = "started by another test"]
    fn report_nccl_version() {
        println!(
            "<<{:?}>>",
            nccl_version().map_err(|error| error.to_string())
        );
    }

    /// Tests with NCCL installed under the name used in torch wheels. The driver is a stub, since a version query needs
    /// none.
    #[test]
    fn nccl_is_found_by_its_wheel_name() {
        const CALLS: &str = "int ncclGetVersion(int *version) { return *version = 22809, 0; }
            void ncclGetLastError(void) {} void ncclGetUniqueId(void) {} void ncclCommInitRank(void) {}
            void ncclAllReduce(void) {} void ncclCommGetAsyncError(void) {} void ncclCommDestroy(void) {}";
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("nccl.c");
        std::fs::write(&source, CALLS).expect("written");
        for name in ["libnccl.so.2", "libcuda.so"] {
            let mut compiler = std::process::Command::new("cc");
            compiler
                .args(["-shared", "-fPIC"])
                .arg("-o")
                .arg(folder.path().join(name))
                .arg(&source);
            assert!(compiler.status().expect("a C compiler").success(), "{name}");
        }

        let mut searched = folder.path().as_os_str().to_owned();
        if let Some(others) = std::env::var_os("LD_LIBRARY_PATH") {
            searched.push(":");
            searched.push(others);
        }

        let mut asked = std::process::Command::new(std::env::current_exe().expect("this program"));
        asked.args([
            "--exact",
            "ffi::nccl::tests::report_nccl_version",
            "--ignored",
            "--nocapture",
        ]);
        let said = asked
            .env("LD_LIBRARY_PATH", searched)
            .output()
            .expect("started");

        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("<<Ok(2"), "{said}");
    }

    #[test]
    #[ignore = "needs a GPU and NCCL"]
    fn one_rank_sums_by_nccl() {
        assert!(crate::ffi::load_cuda().is_ok(), "libtorch sees no GPU");

        let place = NcclRank {
            rank: 0,
            world_size: 1,
            device: 0,
        };
        let one = Communicator::join(&nccl_id().expect("an id"), place).expect("joined");

        for kind in [Kind::Float, Kind::Double] {
            let values = Tensor::arange(100_003, (kind, Device::Cuda(0)));
            let mut summed = values.copy();
            one.sum(&mut summed).expect("summed");
            assert!(
                summed.equal(&values),
                "{kind:?}: a sum over one rank changes nothing"
            );
        }

        // A tensor of an unsupported kind is rejected, and the communicator remains usable.
        let refused = one.sum(&mut Tensor::zeros([3], (Kind::Float, Device::Cpu)));
        assert!(
            matches!(refused, Err(FfiError::Tensor { .. })),
            "{refused:?}"
        );
        assert!(one.fault().is_none());

        one.end().expect("ended");
        one.end().expect("ended before");
        let late = one.sum(&mut Tensor::zeros([3], (Kind::Float, Device::Cuda(0))));
        assert_eq!(
            late.expect_err("ended").to_string(),
            "NCCL was already shut down on this rank"
        );
        assert!(one.fault().is_none());
    }
}
