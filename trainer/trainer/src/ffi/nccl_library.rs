//! Loads libnccl at its first use, by one of its known names.
//!
//! A torch wheel contains only the name `libnccl.so.2`; a distribution's development package contains `libnccl.so` as
//! well. cudarc's loader does not try `libnccl.so.2`, so only cudarc's types are used here.
#![allow(unsafe_code)] // loads and calls foreign code

use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

use cudarc::nccl::sys::{
    cudaStream_t, ncclComm_t, ncclDataType_t, ncclRedOp_t, ncclResult_t, ncclUniqueId,
};
use libloading::Library;

use super::FfiError;
use super::nccl::check_version;

/// File names of NCCL. If libtorch was installed from a wheel, its NCCL is already loaded under the first name.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// Pointers to NCCL's functions, as declared in nccl.h. The library is never closed.
#[derive(Debug)]
pub(super) struct Nccl {
    /// Version of NCCL as returned by `ncclGetVersion`: 22809 is 2.28.9.
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

/// Parameters: source, destination, number of values, data type, operation, communicator, stream.
type AllReduce = unsafe extern "C" fn(
    *const c_void,
    *mut c_void,
    usize,
    ncclDataType_t,
    ncclRedOp_t,
    ncclComm_t,
    cudaStream_t,
) -> ncclResult_t;

/// Returns the NCCL library of this process. Fails if it is not found or too old; the next call then tries again.
pub(super) fn nccl() -> Result<&'static Nccl, FfiError> {
    static NCCL: OnceLock<Nccl> = OnceLock::new();
    if let Some(nccl) = NCCL.get() {
        return Ok(nccl);
    }
    let opened = Nccl::open()?;
    Ok(NCCL.get_or_init(|| opened))
}

impl Nccl {
    fn open() -> Result<Self, FfiError> {
        // SAFETY: loads NVIDIA's library, whose initialisers do not call back into this program.
        let opened = NAMES
            .into_iter()
            .find_map(|name| unsafe { Library::new(name) }.ok());
        let library: &'static Library =
            Box::leak(Box::new(opened.ok_or_else(|| {
                FfiError::Nccl(format!("{} was not found", NAMES[0]))
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
        check_version(version)?;

        // SAFETY: these signatures are those of nccl.h, and are the same in all versions since the minimum version.
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

/// Looks up a function of NCCL by its name.
///
/// # Safety
/// `F` must be the signature of the function.
unsafe fn look_up<F: Copy + 'static>(library: &'static Library, call: &str) -> Result<F, FfiError> {
    // SAFETY: the caller guarantees the signature; the library is never closed.

    let found = unsafe { library.get::<F>(call.as_bytes()) };
    found
        .map(|found| *found)
        .map_err(|_| FfiError::Nccl(format!("{} has no {call}", NAMES[0])))
}
