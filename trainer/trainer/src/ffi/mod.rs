//! The unsafe code of this crate: ATen's settings, loading of libtorch_cuda, host buffers lent to tensors, NCCL, and
//! the differentiable sum over ranks. The interface to other modules is safe.
#![allow(unsafe_code)]

mod host;
mod nccl;
mod nccl_library;

use std::ffi::{CStr, c_char, c_int, c_void};

use tch::{Device, Tensor};

pub(crate) use host::{HostBuffer, on, send, slice_mut};
pub(crate) use nccl::{Communicator, NcclRank, gpu_uuid, nccl_id, nccl_version, version_text};

/// An error of the libraries that this module calls.
#[derive(Debug, thiserror::Error)]
pub enum FfiError {
    /// libtorch reported an error with this message.
    #[error("libtorch: {0}")]
    Torch(String),
    /// NCCL or CUDA is missing or too old, one of their calls failed, or the communicator was shut down before.
    #[error("{0}")]
    Nccl(String),
    /// The tensor is of a kind or on a device that the communicator cannot sum.
    #[error("NCCL sums contiguous f32 and f64 on {device:?} only, not {found}")]
    Tensor { device: Device, found: String },
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

fn checked(call: impl FnOnce(*mut c_char, usize) -> c_int) -> Result<(), FfiError> {
    let mut message = [0_u8; 512];
    if call(message.as_mut_ptr().cast(), message.len()) == 0 {
        return Ok(());
    }
    let text = CStr::from_bytes_until_nul(&message)
        .map(|m| m.to_string_lossy().into_owned())
        .unwrap_or_default();
    let line = text.lines().next().unwrap_or("no message");
    Err(FfiError::Torch(line.to_owned()))
}

/// Restricts libtorch to deterministic algorithms. An operation that has none then fails.
pub(crate) fn set_deterministic(on: bool) -> Result<(), FfiError> {
    // SAFETY: the error buffer is valid for `size` bytes; the shim does not keep the pointer.
    checked(|message, size| unsafe { wavemill_set_deterministic(on, message, size) })
}

/// Makes the C library keep freed memory for the next training step instead of returning it to the system.
pub(crate) fn keep_memory() {
    // SAFETY: the call only sets parameters of malloc, which is allowed at any time.
    unsafe { wavemill_keep_memory() }
}

/// Blocks SIGINT and SIGTERM in this thread and in the threads that it starts. The signals must be handled by a thread
/// that was started before. Processes that this thread starts would inherit the blocked signals.
///
/// oneDNN's recurrent kernels move the stack pointer into a buffer on the heap. A signal handler on such a thread would
/// write its frame there, and the process would crash with a corrupted heap instead of writing a checkpoint.
pub(crate) fn keep_signals_away() {
    // SAFETY: the call changes the signal mask of this thread; threads started later inherit it.
    unsafe { wavemill_block_stop_signals() }
}

/// Enables or disables TF32 in matrix products and convolutions on CUDA. If TF32 is disabled, they use f32.
pub(crate) fn set_tf32(on: bool) -> Result<(), FfiError> {
    // SAFETY: the error buffer is valid for `size` bytes; the shim does not keep the pointer.
    checked(|message, size| unsafe { wavemill_set_tf32(on, message, size) })
}

/// Enables or disables autocast to bf16 on `device` for this thread.
pub(crate) fn set_autocast_bf16(device: Device, on: bool) -> Result<(), FfiError> {
    let is_cuda = device.is_cuda();
    let own_loops = !is_cuda && !onednn_has_bf16();
    // SAFETY: the error buffer is valid for `size` bytes; the shim does not keep the pointer.
    checked(|message, size| unsafe {
        wavemill_set_autocast_bf16(is_cuda, own_loops, on, message, size)
    })
}

/// Reports whether oneDNN supports bf16 on this CPU, which needs AVX-512. libtorch checks for support in convolutions
/// and products, but not for an LSTM, which fails with "could not create a primitive descriptor".
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

/// A sum of tensors over all ranks, in place.
pub trait SumOverRanks: Sync {
    /// Sums the contiguous `tensor` over the ranks. Every rank makes the same calls with the same shapes, in the same
    /// order.
    ///
    /// # Errors
    /// A one-line message if the sum fails.
    fn sum_in_place(&self, tensor: &mut Tensor) -> Result<(), String>;
}

/// Reference to a group of ranks that is never freed, because the autograd graph may outlive any scope.
pub(crate) type Group = &'static (dyn SumOverRanks + 'static);

unsafe extern "C" fn sum_in_place(group: *const c_void, tensor: *mut AtTensor) -> c_int {
    // SAFETY: `group` is the pointer to a leaked `Group` that `sum_over_ranks` passed; `tensor` is valid for this call,
    // and `clone_from_ptr` creates a separate handle to the same storage.
    let group = unsafe { *group.cast::<Group>() };
    // SAFETY: `tensor` is valid for this call, and `clone_from_ptr` creates a separate handle to the same storage.
    let mut tensor = unsafe { Tensor::clone_from_ptr(tensor.cast()) };

    // A panic in Rust must not unwind into C++.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        group.sum_in_place(&mut tensor)
    })) {
        Ok(Ok(())) => 0,
        Ok(Err(_)) | Err(_) => 1,
    }
}

/// Sums `tensor` over the ranks. Differentiable: the backward pass sums the gradient over the ranks as well.
///
/// # Errors
/// [`FfiError::Torch`] if the sum over the ranks fails.
pub(crate) fn sum_over_ranks(tensor: &Tensor, group: &'static Group) -> Result<Tensor, FfiError> {
    let mut out = std::ptr::null_mut();
    let group: *const Group = group;
    checked(|message, size| {
        // SAFETY: tch's tensors are `at::Tensor`; `group` is 'static; the shim writes `out` only on success.
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
    // SAFETY: the shim allocated this tensor for the caller with `new`, like the tensors that tch owns.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

/// Loads libtorch_cuda in addition to the linked libtorch.
///
/// libtorch_cuda is not linked, so that one program runs with and without CUDA: it is loaded by name, once, before
/// devices are first queried.
///
/// # Errors
/// The reason why no CUDA device can be used, as text.
pub(crate) fn load_cuda() -> Result<(), String> {
    static LOADED: std::sync::OnceLock<Result<(), String>> = std::sync::OnceLock::new();
    LOADED
        .get_or_init(|| {
            open_for_good(c"libtorch_cuda.so")?;
            match tch::Cuda::is_available() {
                true => Ok(()),
                false => {
                    Err("libtorch found no usable CUDA device: is the driver running?".to_owned())
                }
            }
        })
        .clone()
}

/// Loads a shared library, which is never closed.
fn open_for_good(name: &CStr) -> Result<(), String> {
    // SAFETY: dlopen of a library whose initialisers only register kernels. dlerror returns null or a NUL-terminated
    // string that is valid until this thread's next call of the loader; the string is copied before that.
    let message = unsafe {
        if !libc_dlopen(name.as_ptr(), RTLD_NOW | RTLD_GLOBAL).is_null() {
            return Ok(());
        }
        let message = libc_dlerror();
        (!message.is_null()).then(|| CStr::from_ptr(message).to_string_lossy().into_owned())
    };
    let message = message.as_deref();
    let message = message.unwrap_or("the dynamic loader gave no reason");
    Err(format!("libtorch_cuda.so cannot be loaded: {message}"))
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
