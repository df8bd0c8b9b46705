//! The name of what computes and writes: backend, level, decoder, target, C library, and the writers of files.

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
pub(crate) fn is_same(was: &Engine, now: &Engine) -> bool {
    let mut now = now.clone();
    if was.writer.is_none() {
        now.writer = None;
    }
    *was == now
}

/// The flags that make `was` the engine again, where it differs from `now` in what flags choose; else empty.
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
    format!("{}, zstd {zstd}, page crc", properties.created_by())
}

/// Returns the name and version of the C library, as the library itself reports them.
fn libc() -> String {
    match wavemill_kernels::glibc_version() {
        Some(version) => format!("glibc {version}"),
        None => format!("unknown ({})", std::env::consts::OS),
    }
}
