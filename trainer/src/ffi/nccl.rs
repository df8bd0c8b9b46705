//! NCCL by cudarc's raw calls, so that GPUs sum without the host. libcuda and libnccl are opened when first asked for:
//! where they are not, every function here answers with an error, and none panics.
//!
//! Knows one communicator over one GPU a process. How ranks meet, and what is summed, is not decided here.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};
use std::ptr;
use std::sync::{Mutex, PoisonError, RwLock, TryLockError};

use cudarc::driver::sys as cuda;
use cudarc::nccl::sys as nccl;
use tch::{Device, Kind, Tensor};

use super::nccl_library::{Nccl, nccl as library};

/// 2.13, the first with all calls of this file.
pub(super) const VERSION_MIN: c_int = 21_300;
/// Bytes of what [`nccl_id`] draws.
const ID_BYTES: usize = 128;

/// What CUDA or NCCL refused.
#[derive(Debug, thiserror::Error)]
pub enum NcclError {
    /// A library is not on the linker's paths.
    #[error("{library} is not found")]
    Absent {
        /// By the name under which it is searched.
        library: &'static str,
    },
    /// A library without one of the calls that are made.
    #[error("{library} has no {call}")]
    Lacks {
        /// By the name under which it is searched.
        library: &'static str,
        /// What it should have.
        call: &'static str,
    },
    #[error("NCCL {} is older than {}", version_text(*.found), version_text(VERSION_MIN))]
    Old {
        /// As `ncclGetVersion` counts.
        found: i32,
    },
    #[error("CUDA's {call}: {code}")]
    Cuda {
        call: &'static str,
        /// The driver's name of the error.
        code: String,
    },
    /// NCCL refused, or met an error after a call.
    #[error("NCCL's {call}: {words}")]
    Nccl {
        call: &'static str,
        /// The error, and what NCCL last logged.
        words: String,
    },
    /// What a rank got as an id is none.
    #[error("an NCCL id has 128 bytes, not {bytes}")]
    Id { bytes: usize },
    /// A tensor that the communicator cannot sum.
    #[error("NCCL sums contiguous f32 and f64 on {device:?} only, not {found}")]
    Tensor {
        /// The communicator's.
        device: Device,
        found: String,
    },
    /// A call after [`Communicator::end`].
    #[error("NCCL's work is over here")]
    Ended,
}

/// A version as NCCL counts it, for people.
pub(crate) fn version_text(version: i32) -> String {
    format!(
        "{}.{}.{}",
        version / 10_000,
        version / 100 % 100,
        version % 100
    )
}

fn check_cuda(call: &'static str, result: cuda::CUresult) -> Result<(), NcclError> {
    match result {
        cuda::CUresult::CUDA_SUCCESS => Ok(()),
        error => Err(NcclError::Cuda {
            call,
            code: format!("{error:?}"),
        }),
    }
}

/// To be called with NCCL's own answers only: for an error it asks the library for more.
fn check(call: &'static str, result: nccl::ncclResult_t) -> Result<(), NcclError> {
    use nccl::ncclResult_t::{ncclInProgress, ncclSuccess};
    if matches!(result, ncclSuccess | ncclInProgress) {
        return Ok(());
    }

    let log = match library() {
        // SAFETY: it takes no communicator into account, and its answer, if any, is text that NCCL keeps; it may be
        // overwritten by another thread, but ends with a zero for all that.
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
    Err(NcclError::Nccl {
        call,
        words: explain(result, &log),
    })
}

/// An error in words, with the last line that NCCL logged, if it did.
fn explain(result: nccl::ncclResult_t, log: &str) -> String {
    use nccl::ncclResult_t as R;
    let words = match result {
        R::ncclUnhandledCudaError => "a CUDA call failed",
        R::ncclSystemError => "a system call failed",
        R::ncclInternalError => "an internal error",
        R::ncclInvalidArgument => "an invalid argument",
        R::ncclInvalidUsage => "an invalid use",
        R::ncclRemoteError => "another rank has ended or cannot be reached",
        _ => "an unknown error",
    };
    match log.lines().map(str::trim).rfind(|line| !line.is_empty()) {
        Some(line) => format!("{words} ({line}); NCCL_DEBUG=WARN says more"),
        None => format!("{words}; NCCL_DEBUG=WARN says more"),
    }
}

fn need_cuda() -> Result<(), NcclError> {
    // SAFETY: opens and closes libraries of the driver's names, whose initialisers call nothing back.
    match unsafe { cuda::is_culib_present() } {
        true => Ok(()),
        false => Err(NcclError::Absent {
            library: "libcuda.so",
        }),
    }
}

/// The version of NCCL here, as `ncclGetVersion` counts: 22809 is 2.28.9.
///
/// # Errors
/// [`NcclError::Absent`] if it, or libcuda, is not there; [`NcclError::Old`].
pub(crate) fn nccl_version() -> Result<i32, NcclError> {
    need_cuda()?;
    library().map(|nccl| nccl.version)
}

/// What ranks share to find each other: bytes that one draws and all hand to [`Communicator::join`].
pub(crate) fn nccl_id() -> Result<Vec<u8>, NcclError> {
    need_cuda()?;
    let calls = library()?;
    let mut id = nccl::ncclUniqueId {
        internal: [0; ID_BYTES],
    };
    // SAFETY: fills `id`.
    check("ncclGetUniqueId", unsafe {
        (calls.get_unique_id)(&raw mut id)
    })?;
    Ok(id
        .internal
        .iter()
        .map(|&byte| byte.cast_unsigned())
        .collect())
}

fn cuda_device(index: usize) -> Result<cuda::CUdevice, NcclError> {
    need_cuda()?;
    let mut device = 0;
    // SAFETY: the library is there; the second call writes one number.
    unsafe {
        check_cuda("cuInit", cuda::cuInit(0))?;
        check_cuda(
            "cuDeviceGet",
            cuda::cuDeviceGet(&raw mut device, index as c_int),
        )?;
    }
    Ok(device)
}

/// The name that a GPU has alone in the world, in hexadecimal; `Device::Cuda(index)` may be another GPU in each process.
///
/// # Errors
/// [`NcclError`]: no libcuda, no such GPU.
pub(crate) fn gpu_uuid(index: usize) -> Result<String, NcclError> {
    let device = cuda_device(index)?;
    let mut uuid = cuda::CUuuid { bytes: [0; 16] };
    // SAFETY: `device` is one of the driver's; the call writes 16 bytes.
    check_cuda("cuDeviceGetUuid", unsafe {
        cuda::cuDeviceGetUuid_v2(&raw mut uuid, device)
    })?;
    Ok(uuid
        .bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// A GPU's primary context, which is libtorch's as well. Never given back: it is used until the process ends.
#[derive(Debug)]
struct Context(cuda::CUcontext);

// SAFETY: the driver lets a context be current in any number of threads.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

/// While it lives, a context is current in this thread.
struct CurrentContext;

impl Context {
    fn of(index: usize) -> Result<Self, NcclError> {
        let device = cuda_device(index)?;
        let mut context = ptr::null_mut();
        // SAFETY: `device` is one of the driver's; the call writes one pointer.
        check_cuda("cuDevicePrimaryCtxRetain", unsafe {
            cuda::cuDevicePrimaryCtxRetain(&raw mut context, device)
        })?;
        Ok(Self(context))
    }

    /// NCCL, like the runtime that it is built on, takes the current context's device for its own.
    fn enter(&self) -> Result<CurrentContext, NcclError> {
        // SAFETY: a context that `of` retained.
        check_cuda("cuCtxPushCurrent", unsafe {
            cuda::cuCtxPushCurrent_v2(self.0)
        })?;
        Ok(CurrentContext)
    }
}

impl Drop for CurrentContext {
    fn drop(&mut self) {
        let mut context = ptr::null_mut();
        // SAFETY: takes off what `enter` put there; NCCL leaves the stack as high as it was. Fails only with the driver.
        let _ = unsafe { cuda::cuCtxPopCurrent_v2(&raw mut context) };
    }
}

#[derive(Clone, Copy, Debug)]
struct Comm(nccl::ncclComm_t);

// SAFETY: NCCL binds a communicator to a device, not to a thread; `Communicator` makes one call at a time, but for the
// question for errors, which NCCL allows beside another call.
unsafe impl Send for Comm {}
// SAFETY: as above.
unsafe impl Sync for Comm {}

/// A rank and its GPU, for [`Communicator::join`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct NcclRank {
    /// From 0.
    pub rank: usize,
    /// Ranks in all.
    pub world_size: usize,
    /// The number of this rank's GPU here.
    pub device: usize,
}

/// This process's GPU among those of all ranks.
#[derive(Debug)]
pub(crate) struct Communicator {
    calls: &'static Nccl,
    device: Device,
    context: Context,
    /// `None` once it has ended. Locked for writing only to take it away.
    comm: RwLock<Option<Comm>>,
    one_at_a_time: Mutex<()>,
}

impl Communicator {
    /// Waits, without limit, until all ranks have come with the same `id`.
    pub(crate) fn join(id: &[u8], own: NcclRank) -> Result<Self, NcclError> {
        need_cuda()?;
        let calls = library()?;
        let bytes =
            <[u8; ID_BYTES]>::try_from(id).map_err(|_| NcclError::Id { bytes: id.len() })?;
        let id = nccl::ncclUniqueId {
            internal: bytes.map(|byte| byte as c_char),
        };

        let context = Context::of(own.device)?;
        let current = context.enter()?;
        let mut comm = ptr::null_mut();
        let world_size = own.world_size as c_int;
        let rank = own.rank as c_int;
        // SAFETY: writes one pointer, which is ours until `end`.
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

    /// Σ over ranks in place. Comes back before the GPU has done it: what libtorch does next to the tensor waits for it.
    ///
    /// # Errors
    /// [`NcclError`]; [`NcclError::Tensor`] before anything is done.
    pub(crate) fn sum(&self, tensor: &mut Tensor) -> Result<(), NcclError> {
        let kind = self.kind_of(tensor)?;
        if tensor.numel() == 0 {
            return Ok(());
        }

        let comm = self.comm.read().unwrap_or_else(PoisonError::into_inner);
        let Some(Comm(comm)) = *comm else {
            return Err(NcclError::Ended);
        };

        let _one = self
            .one_at_a_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let _current = self.context.enter()?;

        let data = tensor.data_ptr();
        // libtorch's stream is the device's default one, CUDA's null stream, until somebody sets another: nothing in
        // this crate does.
        let stream = ptr::null_mut();
        let sum = nccl::ncclRedOp_t::ncclSum;
        // SAFETY: `data` holds `numel` contiguous values of `kind` on the communicator's device, and `&mut` keeps others
        // from calling with it. libtorch gives freed memory only to later work of the same stream.
        check("ncclAllReduce", unsafe {
            (self.calls.all_reduce)(data, data, tensor.numel(), kind, sum, comm, stream)
        })
    }

    fn kind_of(&self, tensor: &Tensor) -> Result<nccl::ncclDataType_t, NcclError> {
        let fits = tensor.defined()
            && tensor.device() == self.device
            && !tensor.is_sparse()
            && tensor.is_contiguous();
        match fits.then(|| tensor.kind()) {
            Some(Kind::Float) => Ok(nccl::ncclDataType_t::ncclFloat32),
            Some(Kind::Double) => Ok(nccl::ncclDataType_t::ncclFloat64),
            _ => Err(NcclError::Tensor {
                device: self.device,
                found: format!("{tensor:?}"),
            }),
        }
    }

    /// What went wrong since, on the GPU or with another rank. Never waits: for a thread of its own.
    pub(crate) fn fault(&self) -> Option<NcclError> {
        let comm = match self.comm.try_read() {
            Ok(comm) => comm,
            Err(TryLockError::Poisoned(comm)) => comm.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };

        let Comm(comm) = (*comm)?;
        let mut state = nccl::ncclResult_t::ncclSuccess;
        // SAFETY: a communicator that is not taken away while the lock is held; the call writes one number.
        let asked = check("ncclCommGetAsyncError", unsafe {
            (self.calls.comm_get_async_error)(comm, &raw mut state)
        });
        asked.and_then(|()| check("sum over ranks", state)).err()
    }

    /// Waits until the GPU has done all, and ends NCCL's work; every rank calls it. Nothing if called again.
    pub(crate) fn end(&self) -> Result<(), NcclError> {
        let Some(Comm(comm)) = self
            .comm
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        else {
            return Ok(());
        };

        let _current = self.context.enter()?;
        // SAFETY: waits for the current context, which is this GPU's.
        check_cuda("cuCtxSynchronize", unsafe { cuda::cuCtxSynchronize() })?;
        // SAFETY: taken out of the lock just now, so that nobody else has it or will.
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
    fn what_is_absent_is_an_error_with_its_name_and_no_panic() {
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
                    cuda || error.to_string() == "libcuda.so is not found",
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
    fn errors_say_what_failed_and_what_nccl_logged_last() {
        let remote = explain(R::ncclRemoteError, "");
        assert_eq!(
            remote,
            "another rank has ended or cannot be reached; NCCL_DEBUG=WARN says more"
        );
        let system = explain(
            R::ncclSystemError,
            "first\n socketStartConnect: refused \n\n",
        );
        assert_eq!(
            system,
            "a system call failed (socketStartConnect: refused); NCCL_DEBUG=WARN says more"
        );
        let known = [
            R::ncclUnhandledCudaError,
            R::ncclInternalError,
            R::ncclInvalidArgument,
            R::ncclInvalidUsage,
        ];
        let words: std::collections::BTreeSet<_> = known
            .into_iter()
            .map(|result| explain(result, ""))
            .collect();
        assert_eq!(words.len(), known.len());
        let driver = check_cuda("cuInit", cuda::CUresult::CUDA_ERROR_NO_DEVICE)
            .expect_err("an error")
            .to_string();
        assert_eq!(driver, "CUDA's cuInit: CUDA_ERROR_NO_DEVICE");
        assert_eq!(
            NcclError::Old { found: 21_005 }.to_string(),
            "NCCL 2.10.5 is older than 2.13.0"
        );
    }

    /// Says what NCCL is here, in a process of its own: it is opened once a process.
    #[test]
    #[ignore = "started by another test"]
    fn say_what_nccl_is_here() {
        println!(
            "<<{:?}>>",
            nccl_version().map_err(|error| error.to_string())
        );
    }

    /// As in a torch wheel. The driver beside it is one in name only: a version needs none.
    #[test]
    fn nccl_is_found_by_the_only_name_that_a_wheel_has() {
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
            "ffi::nccl::tests::say_what_nccl_is_here",
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
        // What it cannot sum is refused, and nothing is wrong after that.
        let refused = one.sum(&mut Tensor::zeros([3], (Kind::Float, Device::Cpu)));
        assert!(
            matches!(refused, Err(NcclError::Tensor { .. })),
            "{refused:?}"
        );
        assert!(one.fault().is_none());

        one.end().expect("ended");
        one.end().expect("ended before");
        let late = one.sum(&mut Tensor::zeros([3], (Kind::Float, Device::Cuda(0))));
        assert!(matches!(late, Err(NcclError::Ended)), "{late:?}");
        assert!(one.fault().is_none());
    }
}
