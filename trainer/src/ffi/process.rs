//! Two system calls that the standard library does not provide: sending a signal to a child process, and exiting
//! without clean-up.
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

/// Ends the process immediately with exit code `code`.
///
/// For use while another thread computes: `std::process::exit` would run libtorch's destructors during the computation,
/// which can crash or block for ever.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes no pointer and does not return.
    unsafe { libc_exit(code) }
}

/// Sends `signal` to a child process; does nothing if the child has ended.
///
/// # Errors
/// The error of the operating system.
pub(crate) fn signal_child(child: &mut Child, signal: i32) -> io::Result<()> {
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    // The id of a child that has not been waited for is not reused, so the signal cannot reach another process.
    // SAFETY: takes no pointer.
    match unsafe { libc_kill(child.id().cast_signed(), signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
