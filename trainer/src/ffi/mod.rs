//! All that is `unsafe` here: ATen's switches, libtorch_cuda's loading, host buffers lent to tensors, NCCL, and
//! the differentiable sum over ranks. Callers outside see safe functions only.
#![allow(unsafe_code)]

mod host;
mod nccl;
mod nccl_library;
mod process;

use std::ffi::{CStr, c_char, c_int, c_void};

use tch::{Device, Tensor};

pub(crate) use host::{HostBuffer, on, send, slice_mut};
pub(crate) use nccl::{
    Communicator, NcclError, NcclRank, gpu_uuid, nccl_id, nccl_version, version_text,
};
pub(crate) use process::{exit_now, signal_child};

/// What libtorch answered, in its own words.
#[derive(Debug, thiserror::Error)]
#[error("libtorch: {message}")]
pub struct TorchError {
    message: String,
}

#[repr(C)]
struct AtTensor {
    _private: [u8; 0],
}

type SumInPlace = unsafe extern "C" fn(group: *const c_void, tensor: *mut AtTensor) -> c_int;

unsafe extern "C" {
    fn wavemill_set_deterministic(on: bool, message: *mut c_char, size: usize) -> c_int;
    fn wavemill_keep_memory();
    fn wavemill_block_stop_signals();
    fn wavemill_set_tf32(on: bool, message: *mut c_char, size: usize) -> c_int;
    fn wavemill_set_autocast_bf16(
        cuda: bool,
        own_loops: bool,
        on: bool,
        message: *mut c_char,
        size: usize,
    ) -> c_int;
    fn wavemill_pinned(
        bytes: i64,
        out: *mut *mut AtTensor,
        message: *mut c_char,
        size: usize,
    ) -> c_int;
    fn wavemill_send(
        host: *const AtTensor,
        gpu: c_int,
        out: *mut *mut AtTensor,
        message: *mut c_char,
        size: usize,
    ) -> c_int;
    fn wavemill_sum_over_ranks(
        tensor: *const AtTensor,
        sum: SumInPlace,
        group: *const c_void,
        out: *mut *mut AtTensor,
        message: *mut c_char,
        size: usize,
    ) -> c_int;
}

fn checked(call: impl FnOnce(*mut c_char, usize) -> c_int) -> Result<(), TorchError> {
    let mut message = [0_u8; 512];
    if call(message.as_mut_ptr().cast(), message.len()) == 0 {
        return Ok(());
    }
    let text = CStr::from_bytes_until_nul(&message)
        .map(|m| m.to_string_lossy().into_owned())
        .unwrap_or_default();
    Err(TorchError {
        message: text.lines().next().unwrap_or("no message").to_owned(),
    })
}

/// Only algorithms whose result does not vary from run to run; an operation without one is then an error.
pub(crate) fn set_deterministic(on: bool) -> Result<(), TorchError> {
    // SAFETY: the buffer is valid for `size` bytes; nothing is kept.
    checked(|message, size| unsafe { wavemill_set_deterministic(on, message, size) })
}

/// Lets the C library keep freed memory for the next step instead of giving it back to the system.
pub(crate) fn keep_memory() {
    // SAFETY: sets parameters of malloc; callable at any time.
    unsafe { wavemill_keep_memory() }
}

/// Keeps SIGINT and SIGTERM away from this thread and from those that it starts; one that is there already takes them.
///
/// oneDNN's recurrent kernels move the stack pointer into a buffer of the heap; a handler on such a thread would write
/// its frame there, and the process would end by a damaged heap instead of with a checkpoint.
pub(crate) fn keep_signals_away() {
    // SAFETY: changes the mask of the calling thread, which later threads inherit.
    unsafe { wavemill_block_stop_signals() }
}

/// TF32 in matrix products and convolutions on CUDA; off is libtorch's f32.
pub(crate) fn set_tf32(on: bool) -> Result<(), TorchError> {
    // SAFETY: as above.
    checked(|message, size| unsafe { wavemill_set_tf32(on, message, size) })
}

/// Autocast to bf16 on `device` for this thread, until turned off.
pub(crate) fn set_autocast_bf16(device: Device, on: bool) -> Result<(), TorchError> {
    let is_cuda = device.is_cuda();
    let own_loops = !is_cuda && !onednn_has_bf16();
    // SAFETY: as above.
    checked(|message, size| unsafe {
        wavemill_set_autocast_bf16(is_cuda, own_loops, on, message, size)
    })
}

/// oneDNN computes in bf16 only with AVX-512. For convolutions and products libtorch asks that itself. For an LSTM it does
/// not, and fails: "could not create a primitive descriptor".
fn onednn_has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx512vl")
            && std::is_x86_feature_detected!("avx512dq")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        true
    }
}

/// Sums a tensor over all ranks in place.
pub trait SumOverRanks: Sync {
    /// `tensor` is contiguous; every rank calls with the same shape, in the same order.
    ///
    /// # Errors
    /// One line for people.
    fn sum_in_place(&self, tensor: &mut Tensor) -> Result<(), String>;
}

/// A group that lives as long as the process: the graph of autograd may outlast any scope.
pub(crate) type Group = &'static (dyn SumOverRanks + 'static);

unsafe extern "C" fn sum_in_place(group: *const c_void, tensor: *mut AtTensor) -> c_int {
    // SAFETY: `group` is the pointer to a leaked `Group` that `sum_over_ranks` passed; `tensor` is valid for this call
    // and `clone_from_ptr` makes a handle of its own to the same storage.
    let group = unsafe { *group.cast::<Group>() };
    // SAFETY: as above.
    let mut tensor = unsafe { Tensor::clone_from_ptr(tensor.cast()) };

    // A panic must not cross into C++.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        group.sum_in_place(&mut tensor)
    })) {
        Ok(Ok(())) => 0,
        Ok(Err(_)) | Err(_) => 1,
    }
}

/// Σ over ranks of `tensor`, through which gradients flow: backward sums the gradient over ranks too.
///
/// # Errors
/// [`TorchError`]: the group failed.
pub(crate) fn sum_over_ranks(tensor: &Tensor, group: &'static Group) -> Result<Tensor, TorchError> {
    let mut out = std::ptr::null_mut();
    let group: *const Group = group;
    checked(|message, size| {
        // SAFETY: tch's tensors are `at::Tensor`; `group` is 'static; `out` is written on success only.
        unsafe {
            wavemill_sum_over_ranks(
                tensor.as_ptr().cast(),
                sum_in_place,
                group.cast(),
                &raw mut out,
                message,
                size,
            )
        }
    })?;
    // SAFETY: a tensor that the shim allocated for us with `new`, which is how tch owns its own.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

/// Why no CUDA device can be used.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CudaError {
    /// The library cannot be loaded.
    #[error("libtorch_cuda.so cannot be loaded: {message}")]
    Library {
        /// The dynamic loader's reason.
        message: String,
    },
    /// The library is loaded and finds no device that it can use.
    #[error("libtorch finds no CUDA device that it can use: is the driver running?")]
    NoDevice,
}

/// Opens libtorch_cuda beside the libtorch that is linked.
///
/// Linkers drop a library of which no symbol is used, so that one program runs with and without CUDA; hence it is
/// opened by name, once, before the first question for a device.
///
/// # Errors
/// [`CudaError`] if no CUDA device can be used.
pub(crate) fn load_cuda() -> Result<(), CudaError> {
    static LOADED: std::sync::OnceLock<Result<(), CudaError>> = std::sync::OnceLock::new();
    LOADED
        .get_or_init(|| {
            open_for_good(c"libtorch_cuda.so")?;
            match tch::Cuda::is_available() {
                true => Ok(()),
                false => Err(CudaError::NoDevice),
            }
        })
        .clone()
}

/// Loads a library that is never closed.
fn open_for_good(name: &CStr) -> Result<(), CudaError> {
    // SAFETY: dlopen of a library whose initialisers only register kernels. dlerror returns null or a NUL-terminated
    // string that is valid until this thread's next call of the loader; it is copied at once.
    let message = unsafe {
        if !libc_dlopen(name.as_ptr(), RTLD_NOW | RTLD_GLOBAL).is_null() {
            return Ok(());
        }
        let message = libc_dlerror();
        (!message.is_null()).then(|| CStr::from_ptr(message).to_string_lossy().into_owned())
    };
    Err(CudaError::Library {
        message: message.unwrap_or_else(|| "the loader gives no reason".to_owned()),
    })
}

const RTLD_NOW: c_int = 2;
const RTLD_GLOBAL: c_int = 0x100;

unsafe extern "C" {
    #[link_name = "dlopen"]
    fn libc_dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    #[link_name = "dlerror"]
    fn libc_dlerror() -> *const c_char;
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::testing::two_equal_ranks;

    #[test]
    fn a_sum_over_two_equal_ranks_doubles_value_and_gradient() {
        let group = two_equal_ranks();
        let x = Tensor::from_slice(&[1.0_f64, -3.0]).set_requires_grad(true);
        let total = sum_over_ranks(&x, group).expect("two equal ranks");
        assert_eq!(Vec::<f64>::try_from(&total).expect("f64"), [2.0, -6.0]);
        total.sum(Kind::Double).backward();
        assert_eq!(Vec::<f64>::try_from(&x.grad()).expect("f64"), [2.0, 2.0]);
    }

    #[test]
    fn cublas_is_told_to_be_deterministic_before_it_is_opened() {
        let chosen = std::env::var("CUBLAS_WORKSPACE_CONFIG").expect("set before main");
        assert!([":4096:8", ":16:8"].contains(&chosen.as_str()), "{chosen}");
    }

    #[test]
    fn an_operation_without_deterministic_form_is_refused_when_asked() {
        set_deterministic(true).expect("a flag");
        set_deterministic(false).expect("a flag");
        set_tf32(false).expect("a flag");
    }

    #[test]
    fn a_library_that_cannot_be_loaded_is_named_with_the_reason_of_the_loader() {
        let error = open_for_good(c"libwavemill_absent.so").expect_err("no such library");
        assert!(
            error.to_string().contains("libwavemill_absent.so"),
            "{error}"
        );
    }
}
