//! The engine of a run: everything about this machine and this build that determines the stored bytes.

use wavemill_decode::pictures;
use wavemill_schemas::NUMERICS_REVISION;
use wavemill_schemas::manifest::Engine;
use wavemill_schemas::recipe::{Dataset, Op, Recipe};
use wavemill_store::plan::engine::{level_with_device, writer};

use crate::onnx;
use crate::settings::Settings;

/// Returns the engine that computes a recipe's features with these settings on this machine.
pub(crate) fn engine_of(recipe: &Recipe, settings: &Settings) -> Engine {
    let backend = &settings.backend;
    let isa = settings.level.name();
    let level = if backend.batch_clips() > 1 {
        level_with_device(&backend.level(), isa)
    } else {
        isa.to_owned()
    };

    let decoder = match recipe.catalog.dataset {
        Dataset::Images => pictures::NAME,
        Dataset::Fma | Dataset::Folders | Dataset::Table => wavemill_decode::NAME,
    };
    let has_models = recipe.features.iter().any(|spec| spec.op == Op::Onnx);

    Engine {
        numerics: NUMERICS_REVISION,
        backend: backend.kind().to_owned(),
        level,
        decoder: decoder.to_owned(),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        libc: libc(),
        writer: writer(),
        models: has_models.then(onnx::engine).flatten(),
    }
}

/// Returns the name and version of the C library, as the library itself reports them.
fn libc() -> String {
    match wavemill_kernels::glibc_version() {
        Some(version) => format!("glibc {version}"),
        None => format!("unknown ({})", std::env::consts::OS),
    }
}
