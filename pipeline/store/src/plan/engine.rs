//! The parts of an engine's name that the store determines or reads: the level, and the writers of files.

use parquet::file::properties::WriterProperties;
use wavemill_schemas::manifest::Engine;

/// Separator between the level of a device and that of the CPU.
const DECODING: &str = "; decoding ";

/// Returns the level of an engine that computes features on a device from samples that the CPU decoded: both determine
/// the stored bytes.
pub fn level_with_device(device: &str, isa: &str) -> String {
    format!("{device}{DECODING}{isa}")
}

/// Returns the names of the writers. Another version of Parquet's writer or of zstd encodes equal values as different
/// bytes.
pub fn writer() -> String {
    let properties = WriterProperties::default();
    let zstd = zstd::zstd_safe::version_string();
    format!("{}, zstd {zstd}, page crc", properties.created_by())
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
