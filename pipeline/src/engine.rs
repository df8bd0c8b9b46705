//! The name of what computes: backend, level, decoder, target and C library.

use std::fs;

use memchr::memmem;
use wavemill_schemas::NUMERICS_REVISION;
use wavemill_schemas::manifest::Engine;

use crate::decode;
use crate::settings::Settings;

/// Between a device's level and the CPU's.
const DECODING: &str = "; decoding ";

/// The engine of a run on this machine.
#[must_use]
pub fn current(settings: &Settings) -> Engine {
    let (backend, level) = (&settings.backend, settings.level);
    Engine {
        numerics: NUMERICS_REVISION,
        backend: backend.kind().to_owned(),
        level: if backend.batch_clips() > 1 {
            format!("{}{DECODING}{level}", backend.level())
        } else {
            level.to_string()
        },
        decoder: decode::NAME.to_owned(),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        libc: libc(),
    }
}

/// The flags that make `was` the engine again, where it differs from `now` in what flags choose; else empty.
#[must_use]
pub fn flags_back(was: &Engine, now: &Engine) -> String {
    let isa = |engine: &Engine| engine.level.rsplit(DECODING).next().map(str::to_owned);
    let backend = (was.backend != now.backend).then(|| format!("--backend {}", was.backend));
    let isa = isa(was).filter(|level| Some(level) != isa(now).as_ref()).map(|level| format!("--isa {level}"));
    backend.into_iter().chain(isa).collect::<Vec<_>>().join(" ")
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
