//! Entry points for the fuzz tests in `tests/fuzz/`, which only their builds contain.

use std::net::SocketAddr;
use std::time::Duration;

use crate::serve::Limits;
use crate::serve::testing::Running;

/// Starts a server with a fake reader and a fake model, which runs until the program ends, and returns its address.
pub fn start_server() -> SocketAddr {
    let limits = Limits {
        upload_bytes: 10_000,
        upload: Duration::from_secs(1),
        ..Limits::default()
    };
    let running = Running::start(limits);
    let address = running.address;
    std::mem::forget(running);
    address
}
