//! The functions of cuFFT that transforms need, called by name.
//!
//! cudarc returns their results as an enum with the result codes of cuFFT 12. cuFFT 11, that of CUDA 12, has three codes
//! that the enum lacks, and such a value would be undefined behaviour. Results are therefore numbers here.
#![allow(unsafe_code)] // calls cuFFT

use std::ffi::{c_int, c_void};

use cudarc::cufft::sys;

/// cuFFT's handle of a plan.
pub(super) type Handle = c_int;

/// Names of cuFFT's result codes in both versions; the index is the code.
const RESULTS: [&str; 21] = [
    "CUFFT_SUCCESS",
    "CUFFT_INVALID_PLAN",
    "CUFFT_ALLOC_FAILED",
    "CUFFT_INVALID_TYPE",
    "CUFFT_INVALID_VALUE",
    "CUFFT_INTERNAL_ERROR",
    "CUFFT_EXEC_FAILED",
    "CUFFT_SETUP_FAILED",
    "CUFFT_INVALID_SIZE",
    "CUFFT_UNALIGNED_DATA",
    "CUFFT_INCOMPLETE_PARAMETER_LIST",
    "CUFFT_INVALID_DEVICE",
    "CUFFT_PARSE_ERROR",
    "CUFFT_NO_WORKSPACE",
    "CUFFT_NOT_IMPLEMENTED",
    "CUFFT_LICENSE_ERROR",
    "CUFFT_NOT_SUPPORTED",
    "CUFFT_MISSING_DEPENDENCY",
    "CUFFT_NVRTC_FAILURE",
    "CUFFT_NVJITLINK_FAILURE",
    "CUFFT_NVSHMEM_FAILURE",
];

/// Shape of a batch of contiguous transforms, in cuFFT's counts.
pub(super) struct Shape {
    /// Number of samples of a transform.
    pub(super) n: c_int,
    /// True for complex samples, false for real ones.
    pub(super) is_complex: bool,
    /// Number of complex values of a spectrum.
    pub(super) n_bins: c_int,
    /// Number of transforms.
    pub(super) count: c_int,
    /// True for numbers in f64, false for f32.
    pub(super) wide: bool,
}

/// Returns major, minor and patch of cuFFT's version.
pub(super) fn version() -> Result<[i32; 3], String> {
    type GetProperty = unsafe extern "C" fn(c_int, *mut c_int) -> u32;
    let mut version = [0; 3];
    for (property, part) in (0..).zip(&mut version) {
        // SAFETY: this is the function's type; it writes one number.
        check(unsafe { function::<GetProperty>("cufftGetProperty")?(property, part) })?;
    }
    Ok(version)
}

/// Plans transforms in the current CUDA context.
pub(super) fn plan(shape: &Shape) -> Result<Handle, String> {
    type PlanMany = unsafe extern "C" fn(
        *mut Handle,
        c_int,
        *mut c_int,
        *mut c_int,
        c_int,
        c_int,
        *mut c_int,
        c_int,
        c_int,
        c_int,
        c_int,
    ) -> u32;
    const C2C: c_int = 41;
    const R2C: c_int = 42;
    const Z2Z: c_int = 105;
    const D2Z: c_int = 106;

    let mut handle = 0;
    let mut n = shape.n;
    let none = std::ptr::null_mut();
    let kind = match (shape.is_complex, shape.wide) {
        (false, false) => R2C,
        (false, true) => D2Z,
        (true, false) => C2C,
        (true, true) => Z2Z,
    };
    // SAFETY: this is the function's type; it reads one dimension from `n` and writes one handle. Null embeddings mean
    // contiguous transforms.
    check(unsafe {
        let plan_many = function::<PlanMany>("cufftPlanMany")?;
        let (handle, n) = (&raw mut handle, &raw mut n);
        plan_many(
            handle,
            1,
            n,
            none,
            1,
            shape.n,
            none,
            1,
            shape.n_bins,
            kind,
            shape.count,
        )
    })?;
    Ok(handle)
}

/// Makes a plan queue its work on `stream`.
///
/// # Safety
/// The plan has not been freed, and the stream outlives it.
pub(super) unsafe fn set_stream(plan: Handle, stream: *mut c_void) -> Result<(), String> {
    type SetStream = unsafe extern "C" fn(Handle, *mut c_void) -> u32;
    // SAFETY: this is the function's type; the arguments are guaranteed by the caller.
    check(unsafe { function::<SetStream>("cufftSetStream")?(plan, stream) })
}

/// Queues the transforms of a plan for `is_complex` and `wide` of its shape.
///
/// # Safety
/// The plan has not been freed; `input` and `output` are device memory of the size that it requires.
pub(super) unsafe fn exec(
    plan: Handle,
    is_complex: bool,
    wide: bool,
    input: *mut c_void,
    output: *mut c_void,
) -> Result<(), String> {
    type Exec = unsafe extern "C" fn(Handle, *mut c_void, *mut c_void) -> u32;
    type ExecComplex = unsafe extern "C" fn(Handle, *mut c_void, *mut c_void, c_int) -> u32;
    const FORWARD: c_int = -1;

    if is_complex {
        let name = if wide { "cufftExecZ2Z" } else { "cufftExecC2C" };
        // SAFETY: this is the functions' type; the arguments are guaranteed by the caller.
        return check(unsafe { function::<ExecComplex>(name)?(plan, input, output, FORWARD) });
    }
    let name = if wide { "cufftExecD2Z" } else { "cufftExecR2C" };
    // SAFETY: as above.
    check(unsafe { function::<Exec>(name)?(plan, input, output) })
}

/// Frees a plan.
///
/// # Safety
/// The plan has not been freed, and none of its work is running.
pub(super) unsafe fn destroy(plan: Handle) -> Result<(), String> {
    type Destroy = unsafe extern "C" fn(Handle) -> u32;
    // SAFETY: this is the function's type; the argument is guaranteed by the caller.
    check(unsafe { function::<Destroy>("cufftDestroy")?(plan) })
}

/// Returns a function of cuFFT, which has been found by [`super::libraries`]. Errors: cuFFT lacks the function.
///
/// # Safety
/// `F` is the C type of the function.
unsafe fn function<F: Copy>(name: &str) -> Result<F, String> {
    // SAFETY: the library is loaded and is never closed, so the function can be called at any time.
    let found = unsafe { sys::culib().get::<F>(name.as_bytes()) };
    found
        .map(|function| *function)
        .map_err(|error| format!("cuFFT has no {name}: {error}"))
}

fn check(result: u32) -> Result<(), String> {
    match (result, RESULTS.get(result as usize)) {
        (0, _) => Ok(()),
        (_, Some(name)) => Err((*name).to_owned()),
        (_, None) => Err(format!("cuFFT's error {result}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_both_versions_are_named() {
        assert_eq!(check(0), Ok(()));
        // Codes of cuFFT 11 and 12 only.
        assert_eq!(check(15), Err("CUFFT_LICENSE_ERROR".to_owned()));
        assert_eq!(check(20), Err("CUFFT_NVSHMEM_FAILURE".to_owned()));
        assert_eq!(check(21), Err("cuFFT's error 21".to_owned()));
    }
}
