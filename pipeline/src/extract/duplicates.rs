//! `split.group_duplicates`: every clip's audio is hashed before sides are given, so that no recording is on two of them.
//!
//! Nothing is decoded. What was found depends on the files alone, not on the threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use wavemill_schemas::recipe::Recipe;

use super::ExtractError;
use crate::budget::{ByteBudget, Refusal};
use crate::catalog::{AudioHashes, CleanedRows};
use crate::course::{Course, Phase};
use crate::decode::AudioHasher;
use crate::panics::WORKER_NAME;
use crate::settings::Settings;
use crate::source::{ReadFailure, Source};

/// Hashes of the cleaned clips that have a file with audio in it; none where the recipe does not group duplicates.
///
/// Clips that cannot be hashed are left out, and so are groups of one: the run counts them when it decodes them.
///
/// Where `course` was stopped, clips that were not hashed yet are missing, and the caller has to look.
///
/// # Errors
/// [`ExtractError::Read`], [`ExtractError::Threads`], [`ExtractError::ClipMemory`].
pub(crate) fn audio_hashes(
    recipe: &Recipe,
    cleaned: &CleanedRows,
    source: &dyn Source,
    settings: &Settings,
    course: &Course,
) -> Result<AudioHashes, ExtractError> {
    if !recipe.split.group_duplicates {
        return Ok(AudioHashes::new());
    }

    let clips: Vec<_> = cleaned
        .clip_keys()
        .filter_map(|key| Some((key, source.index().get(key)?.bytes)))
        .collect();
    course.enter(Phase::Hashing, clips.len() as u64);
    let pass = HashPass {
        clips,
        next: AtomicUsize::new(0),
        source,
        budget: ByteBudget::new(settings.in_flight_bytes()),
        settings,
        course,
    };
    pass.run(settings.threads.max(1))
}

/// One pass over the clips: what its threads share.
struct HashPass<'a> {
    /// Key and bytes.
    clips: Vec<(&'a str, u64)>,
    /// The clip that is hashed next; behind the last one no thread goes on.
    next: AtomicUsize,
    source: &'a dyn Source,
    budget: ByteBudget,
    settings: &'a Settings,
    course: &'a Course,
}

impl HashPass<'_> {
    fn run(&self, threads: usize) -> Result<AudioHashes, ExtractError> {
        std::thread::scope(|scope| {
            let mut spawned = Vec::with_capacity(threads);
            for number in 0..threads {
                // By this name the panic hook stays silent, as in the worker pool.
                let name = format!("{WORKER_NAME}-hash-{number}");
                let thread = std::thread::Builder::new().name(name);
                let handle = thread.spawn_scoped(scope, || self.hash_clips());
                spawned.push(handle.map_err(|source| self.fail(ExtractError::Threads { source })));
            }

            let mut hashes = AudioHashes::with_capacity(self.clips.len());
            for thread in spawned {
                let joined = thread?.join();
                // Panics over a file's bytes are caught below: this one is a fault of wavemill.
                let found = joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                hashes.extend(found?);
            }
            Ok(hashes)
        })
    }

    fn hash_clips(&self) -> Result<AudioHashes, ExtractError> {
        let mut hasher = AudioHasher::default();
        let mut bytes = Vec::new();
        let mut hashes = AudioHashes::new();
        while !self.course.is_stopped() {
            // Any thread may take any clip: hashes are kept by key, so chance leaves no trace.
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(&(key, n_bytes)) = self.clips.get(next) else {
                break;
            };

            // What was read is held once more where a zip's entry is compressed.
            let permit = self
                .budget
                .take(self.source.read_bytes(key))
                .map_err(|refusal| self.refused(refusal, key, n_bytes))?;
            match self.source.read(key, &mut bytes) {
                Ok(()) => {
                    // A parser that panics at damaged bytes leaves nothing behind: each file starts anew.
                    let hash = catch_unwind(AssertUnwindSafe(|| hasher.hash(&bytes)));
                    if let Some(hash) = hash.unwrap_or_default() {
                        hashes.insert(key.to_owned(), hash);
                    }
                }
                // The run rejects it when it reads the clip.
                Err(ReadFailure::Reject(_)) => {}
                Err(ReadFailure::Io(source)) => {
                    return Err(self.fail(ExtractError::Read {
                        clip_key: key.to_owned(),
                        source,
                    }));
                }
            }

            // Before the permit goes back, because that covers what a large file took.
            bytes.clear();
            bytes.shrink_to(self.settings.kept_bytes());
            drop(permit);
            self.course.add(1);
        }
        Ok(hashes)
    }

    /// A file that does not fit.
    fn refused(&self, refusal: Refusal, clip_key: &str, file_bytes: u64) -> ExtractError {
        let shares = self.settings.shares();
        self.fail(ExtractError::refused(refusal, clip_key, file_bytes, shares))
    }

    /// The other threads have no reason to go on.
    fn fail(&self, error: ExtractError) -> ExtractError {
        self.next.store(self.clips.len(), Ordering::Relaxed);
        error
    }
}
