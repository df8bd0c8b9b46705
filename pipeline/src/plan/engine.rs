//! The name of what computes and writes: backend, level, decoder, target, C library, and the writers of files.

use std::fs;

use memchr::memmem;
use parquet::file::properties::WriterProperties;
use wavemill_schemas::NUMERICS_REVISION;
use wavemill_schemas::manifest::Engine;
use wavemill_schemas::recipe::Dataset;

use crate::decode;
use crate::pictures;
use crate::settings::Settings;

/// Between a device's level and the CPU's.
const DECODING: &str = "; decoding ";

/// The engine of a run of such a data set on this machine.
#[must_use]
pub(crate) fn current(settings: &Settings, dataset: Dataset) -> Engine {
    let backend = &settings.backend;
    let isa = settings.level;
    // A device computes, but the CPU decodes: both decide the bytes.
    let level = if backend.batch_clips() > 1 {
        format!("{}{DECODING}{isa}", backend.level())
    } else {
        isa.to_string()
    };

    Engine {
        numerics: NUMERICS_REVISION,
        backend: backend.kind().to_owned(),
        level,
        decoder: match dataset {
            Dataset::Images => pictures::NAME,
            Dataset::Fma | Dataset::Folders | Dataset::Table => decode::NAME,
        }
        .to_owned(),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        libc: libc(),
        writer: Some(writer()),
    }
}

/// Whether two engines are one as far as the older one says: before format 3 an engine named no writer.
#[must_use]
pub(crate) fn is_same(was: &Engine, now: &Engine) -> bool {
    let mut now = now.clone();
    if was.writer.is_none() {
        now.writer = None;
    }
    *was == now
}

/// The flags that make `was` the engine again, where it differs from `now` in what flags choose; else empty.
#[must_use]
pub(crate) fn flags_back(was: &Engine, now: &Engine) -> String {
    let mut flags = Vec::new();
    if was.backend != now.backend {
        flags.push(format!("--backend {}", was.backend));
    }
    if isa(was) != isa(now) {
        flags.push(format!("--isa {}", isa(was)));
    }
    flags.join(" ")
}

/// The CPU's instruction set, which decodes also where a device computes.
fn isa(engine: &Engine) -> &str {
    match engine.level.rsplit_once(DECODING) {
        Some((_device, isa)) => isa,
        None => &engine.level,
    }
}

/// What encodes the files. Equal values become other bytes under another Parquet writer, or another zstd.
fn writer() -> String {
    let properties = WriterProperties::default();
    let zstd = zstd::zstd_safe::version_string();
    format!("{}, zstd {zstd}", properties.created_by())
}

/// Name and version of the C library that this process uses: what it says of itself in its file.
fn libc() -> String {
    match glibc_version() {
        Some(version) => format!("glibc {version}"),
        None => format!("unknown ({})", std::env::consts::OS),
    }
}

fn glibc_version() -> Option<String> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        // `libc.so.6`, or `libc-2.31.so` as older releases call it.
        .find(|path| path.contains("/libc.so") || path.contains("/libc-"))?;

    // Asking the library itself takes a call to C, and so `unsafe`, which this crate denies. Its file holds the banner
    // `GNU C Library (…) stable release version 2.36.`, which ends with a full stop.
    let bytes = fs::read(path).ok()?;
    let marker = b"stable release version ";
    let start = memmem::find(&bytes, marker)? + marker.len();
    let rest = &bytes[start..];
    let end = rest
        .iter()
        .position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
    let version = String::from_utf8_lossy(&rest[..end]);
    Some(version.trim_end_matches('.').to_owned())
}
