//! Fuzz tests, guided by coverage, of everything that reads bytes from outside: each input must give a result or an
//! error, but no panic, no hang and no memory without bound. `scripts/fuzz.sh` builds and runs them.
//!
//! environment:
//!   WAVEMILL_FUZZ        name of the target; required
//!   WAVEMILL_FUZZ_SEEDS  folder into which the seeds that the target makes by code are written, before anything else
//!   WAVEMILL_FUZZ_LAST   file that gets each input before it is tried: libFuzzer saves none if the stack overflows

#![no_main]

mod clip;
mod files;
mod http;
mod manifest;
mod mp3_frames;
mod recipe;
mod shard;
mod sql;
mod stores;
mod stream;
mod tables;
mod weights;
mod zip;

use std::ffi::OsString;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use libfuzzer_sys::fuzz_target;

/// A part of wavemill that reads bytes from outside.
struct Target {
    name: &'static str,
    run: fn(&[u8]),
    /// Returns inputs that begin the corpus. `scripts/fuzz.sh` adds music files.
    seeds: fn() -> Vec<Vec<u8>>,
}

const TARGETS: [Target; 12] = [
    target("clip", clip::run, wavemill_decode::fuzzing::seeds),
    target("files", files::run, wavemill_decode::fuzzing::seeds),
    target("http", http::run, http::seeds),
    target("manifest", manifest::run, manifest::seeds),
    target("mp3_frames", mp3_frames::run, Vec::new),
    target("recipe", recipe::run, recipe::seeds),
    target("shard", shard::run, shard::seeds),
    target("sql", sql::run, sql::seeds),
    target("stream", stream::run, stream::seeds),
    target("tables", tables::run, tables::seeds),
    target("weights", weights::run, weights::seeds),
    target("zip", zip::run, zip::seeds),
];

const fn target(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds }
}

/// Number of panics in libraries.
static LIBRARY_PANICS: AtomicU64 = AtomicU64::new(0);

static CHOSEN: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("WAVEMILL_FUZZ").unwrap_or_default();
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("WAVEMILL_FUZZ={name}: no such target"))
});

/// File that gets each input before it is tried.
static LAST: LazyLock<Option<OsString>> = LazyLock::new(|| std::env::var_os("WAVEMILL_FUZZ_LAST"));

fuzz_target!(
    init: {
        // Panics of libraries that wavemill catches are errors. libFuzzer's own hook ends the process at once. A panic
        // that nobody catches ends it too, by a second one, before which the first is shown.
        let end = std::panic::take_hook();
        let last = std::sync::Mutex::new(String::new());
        std::panic::set_hook(Box::new(move |info| {
            let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let is_library = info.location().is_some_and(|at| at.file().contains("/registry/src/"));
            if is_library {
                *last = info.to_string();
                LIBRARY_PANICS.fetch_add(1, Ordering::Relaxed);
            } else {
                eprintln!("last panic of a library: {last}");
                end(info);
            }
        }));
        if let Some(folder) = std::env::var_os("WAVEMILL_FUZZ_SEEDS") {
            for (i, seed) in (CHOSEN.seeds)().iter().enumerate() {
                let path = std::path::Path::new(&folder).join(format!("made-{i:03}"));
                std::fs::write(path, seed).expect("a folder with room");
            }
        }
    },
    |input: &[u8]| {
        if let Some(path) = &*LAST {
            stores::write(path.as_ref(), input);
        }
        (CHOSEN.run)(input)
    }
);
