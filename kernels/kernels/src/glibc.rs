//! Calls of the C library: its version, and settings of the memory that its malloc retains after it was freed.
//!
//! glibc retains large blocks after some have been freed, in one heap per thread: eight threads that each held a long
//! clip retain the memory of eight clips, although only one was processed at a time. These calls are in this crate and
//! not in `extract`, because this crate may contain the `unsafe` code that a call to C requires.

#![allow(unsafe_code)]

/// Blocks of at least this many bytes are allocated from the system and returned to it when freed. A tensor of a 30-s
/// clip is smaller, so that usual clips cause no page faults.
const SYSTEM_BLOCK_BYTES: i32 = 1 << 20;
/// Number of free bytes that are retained at the end of a thread's heap: a few tensors.
const HEAP_KEPT_BYTES: i32 = 4 << 20;

/// The same for queries within a small limit. A column of 8,192 texts with 64 characters takes as much.
const BATCH_BLOCK_BYTES: i32 = 512 << 10;
const BATCH_HEAP_KEPT_BYTES: i32 = 128 << 10;

/// Makes malloc return large blocks to the system when they are freed. For programs that guarantee a memory limit; must
/// be called before other threads exist. Has no effect if the C library is not glibc.
pub fn return_large_blocks() {
    retain_less(SYSTEM_BLOCK_BYTES, HEAP_KEPT_BYTES);
}

/// Does what [`return_large_blocks`] does also for the batches of a query, which takes twice as long if they contain
/// tensors.
pub fn return_batches() {
    retain_less(BATCH_BLOCK_BYTES, BATCH_HEAP_KEPT_BYTES);
}

fn retain_less(block_bytes: i32, heap_kept_bytes: i32) {
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = (block_bytes, heap_kept_bytes);
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // Parameter numbers from glibc's malloc.h.
        const M_TRIM_THRESHOLD: i32 = -1;
        const M_MMAP_THRESHOLD: i32 = -3;
        unsafe extern "C" {
            fn mallopt(parameter: i32, value: i32) -> i32;
        }
        // SAFETY: mallopt takes two integers, checks them, and locks the data that it changes. It returns 0 if it
        // refuses, and then malloc works as before.
        unsafe {
            mallopt(M_MMAP_THRESHOLD, block_bytes);
            mallopt(M_TRIM_THRESHOLD, heap_kept_bytes);
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
        // SAFETY: takes no arguments and returns a NUL-terminated string in static memory.
        let version = unsafe { std::ffi::CStr::from_ptr(gnu_get_libc_version()) };
        Some(version.to_string_lossy().into_owned())
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
}
