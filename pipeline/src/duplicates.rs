//! `split.group_duplicates`: every clip's audio is hashed before sides are given, so that no recording is on two of them.
//!
//! Nothing is decoded. What was found depends on the files alone, not on the threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use wavemill_schemas::recipe::Recipe;

use crate::budget::{ByteBudget, Refused};
use crate::catalog::{AudioHashes, Cleaned};
use crate::course::{Course, Phase};
use crate::decode::AudioHasher;
use crate::pool::WORKER_NAME;
use crate::run::RunError;
use crate::settings::Settings;
use crate::source::{ReadFailure, Source};

/// Hashes of the cleaned clips that have a file with audio in it; none where the recipe does not group duplicates.
///
/// Clips that cannot be hashed are left out, and so are groups of one: the run counts them when it decodes them.
///
/// # Errors
/// [`RunError::Read`], [`RunError::Threads`], and [`RunError::Stopped`] when `course` was stopped.
pub fn audio_hashes(
    recipe: &Recipe,
    cleaned: &Cleaned,
    source: &dyn Source,
    settings: &Settings,
    course: &Course,
) -> Result<AudioHashes, RunError> {
    if !recipe.split.group_duplicates {
        return Ok(AudioHashes::new());
    }
    let clips: Vec<_> = cleaned.clip_keys().filter_map(|key| Some((key, source.index().get(key)?.bytes))).collect();
    course.enter(Phase::Hashing, clips.len() as u64);
    let budget = ByteBudget::new(settings.in_flight_bytes());
    let pass = Pass { clips, next: AtomicUsize::new(0), source, budget, settings, course };
    let hashes = pass.run(settings.threads.max(1))?;
    if course.is_stopped() { Err(RunError::Stopped { phase: Phase::Hashing }) } else { Ok(hashes) }
}

/// What the threads share.
struct Pass<'a> {
    /// Key and bytes.
    clips: Vec<(&'a str, u64)>,
    next: AtomicUsize,
    source: &'a dyn Source,
    budget: ByteBudget,
    settings: &'a Settings,
    course: &'a Course,
}

impl Pass<'_> {
    fn run(&self, threads: usize) -> Result<AudioHashes, RunError> {
        std::thread::scope(|scope| {
            let spawn = |number| {
                // By this name the panic hook stays silent, as in the worker pool.
                let named = std::thread::Builder::new().name(format!("{WORKER_NAME}-hash-{number}"));
                let spawned = named.spawn_scoped(scope, || self.hash_clips());
                spawned.map_err(|source| self.fail(RunError::Threads { source }))
            };
            let spawned: Vec<_> = (0..threads).map(spawn).collect();
            let mut hashes = AudioHashes::with_capacity(self.clips.len());
            for thread in spawned {
                let found = thread?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                hashes.extend(found?);
            }
            Ok(hashes)
        })
    }

    fn hash_clips(&self) -> Result<AudioHashes, RunError> {
        let (mut hasher, mut bytes, mut hashes) = (AudioHasher::default(), Vec::new(), AudioHashes::new());
        while !self.course.is_stopped() {
            let Some(&(key, n_bytes)) = self.clips.get(self.next.fetch_add(1, Ordering::Relaxed)) else { break };
            // What was read is held once more where a zip's entry is compressed.
            let wanted = self.source.read_bytes(key);
            let permit = self.budget.take(wanted).map_err(|refused| self.refused(refused, key, n_bytes))?;
            match self.source.read(key, &mut bytes) {
                // A parser that panics at damaged bytes leaves nothing behind: each file starts anew.
                Ok(()) => {
                    let hash = catch_unwind(AssertUnwindSafe(|| hasher.hash(&bytes)));
                    hashes.extend(hash.unwrap_or_default().map(|hash| (key.to_owned(), hash)));
                }
                Err(ReadFailure::Reject(_)) => {}
                Err(ReadFailure::Io(source)) => {
                    return Err(self.fail(RunError::Read { clip_key: key.to_owned(), source }));
                }
            }
            bytes.clear();
            bytes.shrink_to(self.settings.kept_bytes());
            drop(permit);
            self.course.add(1);
        }
        Ok(hashes)
    }

    /// A file that does not fit.
    fn refused(&self, refused: Refused, clip_key: &str, file_bytes: u64) -> RunError {
        self.fail(RunError::refused(refused, clip_key, file_bytes, self.settings.room()))
    }

    /// The other threads have no reason to go on.
    fn fail(&self, error: RunError) -> RunError {
        self.next.store(self.clips.len(), Ordering::Relaxed);
        error
    }
}
