//! Files that are read and not decoded: what they hold, to find audio that is there twice, and files that changed.
//!
//! What is found depends on the files alone, not on the threads.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::ExtractError;
use crate::budget::{ByteBudget, Refusal};
use crate::course::{Course, Phase};
use crate::decode::{InputFacts, InputHasher};
use crate::panics::WORKER_NAME;
use crate::settings::Settings;
use crate::source::{Media, ReadFailure, Source};

/// What a file holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileContent {
    /// blake3 of the whole file.
    pub content: blake3::Hash,
    /// Of the audio in it.
    pub facts: InputFacts,
}

/// Files by `clip_key`; `None` is one that could not be read, which the run counts when it comes to it.
pub(crate) type FileContents = HashMap<String, Option<FileContent>>;

/// Reads the clips of `keys` that have a file.
///
/// Where `course` was stopped, clips that were not read yet are missing, and the caller has to look.
///
/// # Errors
/// [`ExtractError::Read`], [`ExtractError::Threads`], [`ExtractError::ClipMemory`].
pub(crate) fn read_files<'k>(
    keys: impl Iterator<Item = &'k str>,
    source: &dyn Source,
    settings: &Settings,
    course: &Course,
) -> Result<FileContents, ExtractError> {
    let clips: Vec<_> = keys
        .filter_map(|key| Some((key, source.index().get(key)?.bytes)))
        .collect();

    course.enter(Phase::Hashing, clips.len() as u64);
    let pass = Pass {
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
struct Pass<'a> {
    /// Key and bytes.
    clips: Vec<(&'a str, u64)>,
    /// The clip that is read next; behind the last one no thread goes on.
    next: AtomicUsize,
    source: &'a dyn Source,
    budget: ByteBudget,
    settings: &'a Settings,
    course: &'a Course,
}

impl Pass<'_> {
    fn run(&self, threads: usize) -> Result<FileContents, ExtractError> {
        std::thread::scope(|scope| {
            let mut spawned = Vec::with_capacity(threads);
            for number in 0..threads {
                // By this name the panic hook stays silent, as in the worker pool.
                let name = format!("{WORKER_NAME}-hash-{number}");
                let thread = std::thread::Builder::new().name(name);
                let handle = thread.spawn_scoped(scope, || self.read_clips());
                spawned.push(handle.map_err(|source| self.fail(ExtractError::Threads { source })));
            }

            let mut contents = FileContents::with_capacity(self.clips.len());
            for thread in spawned {
                let joined = thread?.join();
                // Panics over a file's bytes are caught below: this one is a fault of wavemill.
                let found = joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                contents.extend(found?);
            }
            Ok(contents)
        })
    }

    fn read_clips(&self) -> Result<FileContents, ExtractError> {
        let mut hasher = InputHasher::default();
        let mut bytes = Vec::new();
        let mut contents = FileContents::new();
        while !self.course.is_stopped() {
            // Any thread may take any clip: contents are kept by key, so chance leaves no trace.
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(&(key, n_bytes)) = self.clips.get(next) else {
                break;
            };

            // What was read is held once more where a zip's entry is compressed.
            let permit = self
                .budget
                .take(self.source.read_bytes(key))
                .map_err(|refusal| self.refused(refusal, key, n_bytes))?;
            let content = match self.source.read(key, &mut bytes) {
                Ok(()) => Some(FileContent {
                    content: blake3::hash(&bytes),
                    facts: match self.source.media() {
                        Media::Audio => facts_of(&mut hasher, &bytes),
                        // Of a picture all bytes count, and those are its content.
                        Media::Pictures => InputFacts::default(),
                    },
                }),
                Err(ReadFailure::Reject(_)) => None,
                Err(ReadFailure::Io(source)) => {
                    return Err(self.fail(ExtractError::Read {
                        clip_key: key.to_owned(),
                        source,
                    }));
                }
            };
            contents.insert(key.to_owned(), content);

            // Before the permit goes back, because that covers what a large file took.
            bytes.clear();
            bytes.shrink_to(self.settings.kept_bytes());
            drop(permit);
            self.course.add(1);
        }
        Ok(contents)
    }

    /// A file that does not fit.
    fn refused(&self, refusal: Refusal, clip_key: &str, file_bytes: u64) -> ExtractError {
        let shares = self.settings.shares();
        let media = self.source.media();
        self.fail(ExtractError::refused(
            refusal, clip_key, file_bytes, media, shares,
        ))
    }

    /// The other threads have no reason to go on.
    fn fail(&self, error: ExtractError) -> ExtractError {
        self.next.store(self.clips.len(), Ordering::Relaxed);
        error
    }
}

/// What of a file is audio. A parser that panics at damaged bytes finds none, and leaves nothing behind: each file starts
/// anew.
pub(super) fn facts_of(hasher: &mut InputHasher, bytes: &[u8]) -> InputFacts {
    catch_unwind(AssertUnwindSafe(|| hasher.read(bytes))).unwrap_or_default()
}
