//! Calls of the C library: its version, and what its malloc keeps of memory that was given back.
//!
//! glibc keeps large blocks once some were freed, in one heap per thread: eight threads that each held a long clip keep
//! the memory of eight clips, though one was in work at a time. These calls live here and not where extraction does,
//! because this crate contains the `unsafe` that a call to C requires.

#![allow(unsafe_code)]

/// Blocks from this size on are the system's: taken for one use, and given back after it. A tensor of a 30-s clip is
/// smaller, so that usual clips cost no page faults.
const SYSTEM_BLOCK_BYTES: i32 = 1 << 20;
/// So much of a thread's heap stays when its end is free: a few tensors.
const HEAP_KEPT_BYTES: i32 = 4 << 20;

/// Makes malloc give large blocks back to the system when they are freed. For programs that promise a limit on memory;
/// to be called before there are other threads. Where the C library is not glibc, nothing happens.
pub fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // From glibc's malloc.h.
        const M_TRIM_THRESHOLD: i32 = -1;
        const M_MMAP_THRESHOLD: i32 = -3;
        unsafe extern "C" {
            fn mallopt(parameter: i32, value: i32) -> i32;
        }
        // SAFETY: mallopt takes two integers, checks them, and locks what it changes. It says 0 where it refuses, and
        // then malloc works as ever.
        unsafe {
            mallopt(M_MMAP_THRESHOLD, SYSTEM_BLOCK_BYTES);
            mallopt(M_TRIM_THRESHOLD, HEAP_KEPT_BYTES);
        }
    }
}

/// Returns the version of the C library that this process runs on, such as `2.36`; `None` if it is not glibc.
pub fn glibc_version() -> Option<String> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn gnu_get_libc_version() -> *const std::ffi::c_char;
        }
        // SAFETY: takes nothing and returns a NUL-terminated string in static memory.
        let version = unsafe { std::ffi::CStr::from_ptr(gnu_get_libc_version()) };
        Some(version.to_string_lossy().into_owned())
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
}
