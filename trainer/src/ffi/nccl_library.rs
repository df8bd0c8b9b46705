//! libnccl, opened when first asked for, by the names under which it comes.
//!
//! A torch wheel has `libnccl.so.2` and no other name, a distribution's package for developers `libnccl.so` as well.
//! cudarc tries many names, the first of the two not among them; so its types are used here, and not its loader.
#![allow(unsafe_code)] // foreign code is loaded and looked up

use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

use cudarc::nccl::sys::{
    cudaStream_t, ncclComm_t, ncclDataType_t, ncclRedOp_t, ncclResult_t, ncclUniqueId,
};
use libloading::Library;

use super::nccl::{NcclError, VERSION_MIN};

/// Where libtorch was loaded from a wheel, its own NCCL has this name in the process already.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// Calls of NCCL, as its header declares them. The library is never closed.
#[derive(Debug)]
pub(super) struct Nccl {
    /// As `ncclGetVersion` counts: 22809 is 2.28.9.
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

/// From, to, values, their kind, the operation, and the stream on which it happens.
type AllReduce = unsafe extern "C" fn(
    *const c_void,
    *mut c_void,
    usize,
    ncclDataType_t,
    ncclRedOp_t,
    ncclComm_t,
    cudaStream_t,
) -> ncclResult_t;

/// The one of this process. Errors: none is found, or it is too old; asked again, it is looked for again.
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
        // SAFETY: loads NVIDIA's library, whose initialisers call nothing back.
        let opened = NAMES
            .into_iter()
            .find_map(|name| unsafe { Library::new(name) }.ok());
        let library: &'static Library = Box::leak(Box::new(
            opened.ok_or(NcclError::Absent { library: NAMES[0] })?,
        ));

        // SAFETY: every NCCL has this call, with this signature; it writes one number.
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

        // SAFETY: the signatures are those of nccl.h, which has not changed them since this version.
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

/// A call by its name.
///
/// # Safety
/// `F` is its signature.
unsafe fn look_up<F: Copy + 'static>(
    library: &'static Library,
    call: &'static str,
) -> Result<F, NcclError> {
    // SAFETY: by this function's own contract; the library is never closed.

    let found = unsafe { library.get::<F>(call.as_bytes()) };
    found.map(|found| *found).map_err(|_| NcclError::Lacks {
        library: NAMES[0],
        call,
    })
}
