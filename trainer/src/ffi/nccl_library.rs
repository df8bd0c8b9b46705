//! Loads libnccl at its first use, by one of its known names.
//!
//! A torch wheel contains only the name `libnccl.so.2`; a distribution's development package contains `libnccl.so` as
//! well. cudarc tries many names but not the first of these, so only its types are used here, not its loader.
#![allow(unsafe_code)] // loads and calls foreign code

use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

use cudarc::nccl::sys::{
    cudaStream_t, ncclComm_t, ncclDataType_t, ncclRedOp_t, ncclResult_t, ncclUniqueId,
};
use libloading::Library;

use super::nccl::{NcclError, VERSION_MIN};

/// If libtorch was loaded from a wheel, its own NCCL is already loaded in the process under the first name.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// Functions of NCCL, as declared in its header. The library is never closed.
#[derive(Debug)]
pub(super) struct Nccl {
    /// Version as returned by `ncclGetVersion`: 22809 is 2.28.9.
    pub(super) version: c_int,
    pub(super) get_last_error: unsafe extern "C" fn(ncclComm_t) -> *const c_char,
    pub(super) get_unique_id: unsafe extern "C" fn(*mut ncclUniqueId) -> ncclResult_t,
    pub(super) comm_init_rank:
        unsafe extern "C" fn(*mut ncclComm_t, c_int, ncclUniqueId, c_int) -> ncclResult_t,
    pub(super) all_reduce: AllReduce,
    pub(super) comm_get_async_error:
        unsafe extern "C" fn(ncclComm_t, *mut ncclResult_t) -> ncclResult_t,
    pub(super) comm_destroy: unsafe extern "C" fn(ncclComm_t) -> ncclResult_t,
}

/// Source, destination, number of values, data type, operation, communicator and stream.
type AllReduce = unsafe extern "C" fn(
    *const c_void,
    *mut c_void,
    usize,
    ncclDataType_t,
    ncclRedOp_t,
    ncclComm_t,
    cudaStream_t,
) -> ncclResult_t;

/// Returns the NCCL of this process. Fails if none is found or it is too old; the next call then tries again.
pub(super) fn nccl() -> Result<&'static Nccl, NcclError> {
    static NCCL: OnceLock<Nccl> = OnceLock::new();
    if let Some(nccl) = NCCL.get() {
        return Ok(nccl);
    }
    let opened = Nccl::open()?;
    Ok(NCCL.get_or_init(|| opened))
}

impl Nccl {
    fn open() -> Result<Self, NcclError> {
        // SAFETY: loads NVIDIA's library, whose initialisers do not call back into this program.
        let opened = NAMES
            .into_iter()
            .find_map(|name| unsafe { Library::new(name) }.ok());
        let library: &'static Library =
            Box::leak(Box::new(opened.ok_or_else(|| {
                NcclError::Failed(format!("{} was not found", NAMES[0]))
            })?));

        // SAFETY: every version of NCCL has this function, with this signature; it writes one number.
        let version = unsafe {
            let get_version = look_up::<unsafe extern "C" fn(*mut c_int) -> ncclResult_t>(
                library,
                "ncclGetVersion",
            )?;
            let mut version = 0;
            get_version(&raw mut version);
            version
        };
        if version < VERSION_MIN {
            return Err(NcclError::Old { found: version });
        }

        // SAFETY: the signatures are those of nccl.h, which has not changed them since the minimum version.
        unsafe {
            Ok(Self {
                version,
                get_last_error: look_up(library, "ncclGetLastError")?,
                get_unique_id: look_up(library, "ncclGetUniqueId")?,
                comm_init_rank: look_up(library, "ncclCommInitRank")?,
                all_reduce: look_up(library, "ncclAllReduce")?,
                comm_get_async_error: look_up(library, "ncclCommGetAsyncError")?,
                comm_destroy: look_up(library, "ncclCommDestroy")?,
            })
        }
    }
}

/// Looks up a function by its name.
///
/// # Safety
/// `F` must be the function's signature.
unsafe fn look_up<F: Copy + 'static>(
    library: &'static Library,
    call: &str,
) -> Result<F, NcclError> {
    // SAFETY: guaranteed by the caller of this function; the library is never closed.

    let found = unsafe { library.get::<F>(call.as_bytes()) };
    found
        .map(|found| *found)
        .map_err(|_| NcclError::Failed(format!("{} has no {call}", NAMES[0])))
}
