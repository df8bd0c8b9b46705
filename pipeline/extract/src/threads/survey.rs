//! Reads files before the extraction, to find copies of recordings and changed files. Only fingerprints need decoding.
//!
//! The result depends only on the files, not on the number of threads.

use std::collections::HashMap;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wavemill_decode::InputFacts;
use wavemill_runtime::budget::{ByteBudget, Refusal};
use wavemill_runtime::panics::WORKER_NAME;
use wavemill_runtime::progress::{Phase, Progress};
use wavemill_source::{Media, ReadFailure, Source};

use super::fingerprint::FileFingerprinter;
use crate::error::ExtractError;
use crate::settings::Settings;

/// Fingerprints of earlier versions, by decode key.
pub type Fingerprints = HashMap<String, Arc<[u32]>>;

/// Hashes of a file, and its fingerprint.
#[derive(Clone, Debug)]
pub struct FileContent {
    /// blake3 of the whole file.
    pub content: blake3::Hash,
    /// Hashes of the audio in the file.
    pub facts: InputFacts,
    /// The items of the fingerprint; none if the pass makes no fingerprints, or if there is too little audio.
    pub fingerprint: Arc<[u32]>,
}

/// Files by `clip_key`; `None` for a file that could not be read, which the run counts when it processes the clip.
pub(crate) type FileContents = HashMap<String, Option<FileContent>>;

/// Reads and hashes the files of those clips of `keys` that have a file. If `known` is given, the files also get
/// fingerprints: from `known`, or by decoding the file.
///
/// If `progress` was stopped, the remaining clips are missing from the result, and the caller must check for this.
///
/// # Errors
/// An error that names a file that cannot be read or does not fit into memory; [`ExtractError::no_thread`].
pub fn read_files<'k>(
    keys: impl Iterator<Item = &'k str>,
    source: &dyn Source,
    settings: &Settings,
    progress: &Progress,
    known: Option<&Fingerprints>,
) -> Result<FileContents, ExtractError> {
    let clips: Vec<_> = keys
        .filter_map(|key| Some((key, source.index().get(key)?.bytes)))
        .collect();

    progress.enter(Phase::Hashing, clips.len() as u64);
    let pass = Pass {
        clips,
        next: AtomicUsize::new(0),
        source,
        budget: ByteBudget::new(settings.in_flight_bytes()),
        settings,
        progress,
        known,
    };

    pass.run(settings.threads.max(1))
}

/// One pass over the files of clips, shared by the threads of the pass.
struct Pass<'a> {
    /// Key and file size in bytes of each clip.
    clips: Vec<(&'a str, u64)>,
    /// Index of the next clip to read; threads end when the index is past the last clip.
    next: AtomicUsize,
    source: &'a dyn Source,
    budget: ByteBudget,
    settings: &'a Settings,
    progress: &'a Progress,
    /// Fingerprints that need not be made; `None` if the pass makes none.
    known: Option<&'a Fingerprints>,
}

impl Pass<'_> {
    fn run(&self, threads: usize) -> Result<FileContents, ExtractError> {
        std::thread::scope(|scope| {
            let mut spawned = Vec::with_capacity(threads);
            for number in 0..threads {
                // The panic hook ignores threads with this name, as in the worker pool.
                let name = format!("{WORKER_NAME}-hash-{number}");
                let thread = std::thread::Builder::new().name(name);
                let handle = thread.spawn_scoped(scope, || self.read_clips());
                spawned.push(handle.map_err(|source| self.fail(ExtractError::no_thread(source))));
            }

            let mut contents = FileContents::with_capacity(self.clips.len());
            for thread in spawned {
                let joined = thread?.join();
                // Panics while reading a file are caught below, so a panic here is a bug in wavemill.
                let found = joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                contents.extend(found?);
            }
            Ok(contents)
        })
    }

    fn read_clips(&self) -> Result<FileContents, ExtractError> {
        let mut fingerprinter = match self.known {
            Some(known) => Some((known, self.fingerprinter()?)),
            None => None,
        };
        let mut bytes = Vec::new();
        let mut contents = FileContents::new();
        while !self.progress.is_stopped() {
            // Any thread may take any clip: results are stored by key, so the order has no effect.
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(&(key, n_bytes)) = self.clips.get(next) else {
                break;
            };

            // For a compressed zip entry, the permit includes the compressed bytes.
            let permit = self
                .budget
                .take(self.source.read_bytes(key) + self.decode_bytes())
                .map_err(|refusal| self.refused(refusal, key, n_bytes))?;
            let content = match self.source.read(key, &mut bytes) {
                Ok(()) => {
                    let facts = match self.source.media() {
                        Media::Audio => facts_of(&bytes),
                        // For a picture, the hash of the whole file is enough.
                        Media::Pictures => InputFacts::default(),
                    };
                    let fingerprint = match (&mut fingerprinter, facts.decode) {
                        (Some((known, fingerprinter)), Some(decode_key)) => {
                            match known.get(decode_key.to_hex().as_str()) {
                                Some(items) => items.clone(),
                                None => fingerprinter
                                    .run(key, &bytes)
                                    .map_err(|error| self.fail(error))?,
                            }
                        }
                        _ => Arc::default(),
                    };
                    Some(FileContent {
                        content: blake3::hash(&bytes),
                        facts,
                        fingerprint,
                    })
                }
                Err(ReadFailure::Reject(_)) => None,
                Err(ReadFailure::Io(source)) => {
                    return Err(self.fail(ExtractError::not_read(key, source)));
                }
            };
            contents.insert(key.to_owned(), content);

            // A large buffer is freed before the permit for its memory is released.
            bytes.clear();
            bytes.shrink_to(self.settings.kept_bytes());
            drop(permit);
            self.progress.add(1);
        }
        Ok(contents)
    }

    fn fingerprinter(&self) -> Result<FileFingerprinter, ExtractError> {
        let made = FileFingerprinter::new(self.settings.level);
        made.map_err(|error| self.fail(error.into()))
    }

    /// Returns the bytes that a file needs in addition to its own, to be decoded.
    const fn decode_bytes(&self) -> u64 {
        match self.known {
            Some(_) => FileFingerprinter::BYTES,
            None => 0,
        }
    }

    /// Creates the error for a file that does not fit into memory.
    fn refused(&self, refusal: Refusal, clip_key: &str, file_bytes: u64) -> ExtractError {
        let shares = self.settings.shares();
        let media = self.source.media();
        self.fail(ExtractError::refused(
            refusal, clip_key, file_bytes, media, shares,
        ))
    }

    /// Makes the other threads stop, and returns the error.
    fn fail(&self, error: ExtractError) -> ExtractError {
        self.next.store(self.clips.len(), Ordering::Relaxed);
        error
    }
}

/// Computes the hashes of the audio in a file. Both are `None` if the parser panics on damaged bytes.
pub(super) fn facts_of(bytes: &[u8]) -> InputFacts {
    catch_unwind(|| InputFacts::read(bytes)).unwrap_or_default()
}
