//! Two calls to the operating system that the standard library has not: a signal to a child, and an end without
//! clean-up.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::process::Child;

unsafe extern "C" {
    #[link_name = "kill"]
    fn libc_kill(pid: c_int, signal: c_int) -> c_int;
    #[link_name = "_exit"]
    fn libc_exit(code: c_int) -> !;
}

/// Ends the process at once with `code`.
///
/// For threads that end it while another computes: `std::process::exit` would run libtorch's destructors under it, which
/// can crash or wait for ever.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes no pointer and does not return.
    unsafe { libc_exit(code) }
}

/// Sends `signal` to a child; nothing if it has ended.
///
/// # Errors
/// As the system says.
pub(crate) fn signal_child(child: &mut Child, signal: i32) -> io::Result<()> {
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    // A child that was not waited for keeps its number, so that no other process can be meant.
    // SAFETY: takes no pointer.
    match unsafe { libc_kill(child.id().cast_signed(), signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
