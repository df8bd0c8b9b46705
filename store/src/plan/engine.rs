//! The engine's name: backend, level, decoder, target, C library, and the writers of files.

use parquet::file::properties::WriterProperties;
use wavemill_runtime::settings::Settings;
use wavemill_schemas::NUMERICS_REVISION;
use wavemill_schemas::manifest::Engine;

/// Separator between the level of a device and that of the CPU.
const DECODING: &str = "; decoding ";

/// Returns the engine of a run on this machine; `decoder` is the name of the decoder of the run's inputs.
pub fn current(settings: &Settings, decoder: &str) -> Engine {
    let backend = &settings.backend;
    let isa = settings.level;
    // Features are computed on the device from samples decoded on the CPU, so both determine the stored bytes.
    let level = if backend.batch_clips() > 1 {
        format!("{}{DECODING}{isa}", backend.level())
    } else {
        isa.to_string()
    };

    Engine {
        numerics: NUMERICS_REVISION,
        backend: backend.kind().to_owned(),
        level,
        decoder: decoder.to_owned(),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        libc: libc(),
        writer: writer(),
        models: None,
    }
}

/// Returns the flags that select the engine `was` again, if it differs from `now` in something that flags control;
/// otherwise an empty string.
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

/// Returns the CPU's instruction set, which is also used for decoding if a device computes features.
fn isa(engine: &Engine) -> &str {
    match engine.level.rsplit_once(DECODING) {
        Some((_device, isa)) => isa,
        None => &engine.level,
    }
}

/// Returns the names of the writers. Another version of Parquet's writer or of zstd encodes equal values as different
/// bytes.
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
