//! The name of what computes: backend, level, decoder, target and C library.

use std::fs;

use memchr::memmem;
use wavemill_kernels::Level;
use wavemill_schemas::NUMERICS_REVISION;
use wavemill_schemas::manifest::Engine;

use crate::decode;

/// The engine of this process on this machine.
#[must_use]
pub fn current(level: Level) -> Engine {
    Engine {
        numerics: NUMERICS_REVISION,
        backend: "cpu".to_owned(),
        level: level.to_string(),
        decoder: decode::NAME.to_owned(),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        libc: libc(),
    }
}

/// Name and version of the C library that this process uses: what it says of itself in its file.
fn libc() -> String {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let path = maps
        .lines()
        .filter_map(|l| l.split_whitespace().last())
        .find(|p| p.contains("/libc.so") || p.contains("/libc-"));
    let version = path.and_then(|path| {
        let bytes = fs::read(path).ok()?;
        let marker = b"stable release version ";
        let start = memmem::find(&bytes, marker)? + marker.len();
        let rest = &bytes[start..];
        let end = rest.iter().position(|b| !b.is_ascii_digit() && *b != b'.')?;
        Some(String::from_utf8_lossy(&rest[..end]).trim_end_matches('.').to_owned())
    });
    version.map_or_else(|| format!("unknown ({})", std::env::consts::OS), |v| format!("glibc {v}"))
}
