//! Contents of the inputs that are known before extraction: from earlier runs if the stamp of the file is unchanged,
//! otherwise from reading the file. Stamps only save reads; they never affect results.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use wavemill_runtime::progress::{Phase, Progress};
use wavemill_schemas::input::InputSeen;
use wavemill_source::{AudioIndex, Source};

use crate::error::ExtractError;
use crate::settings::Settings;
use crate::threads::survey::{self, FileContents};

/// Known contents of input files by `clip_key`, each with the file's current stamp.
#[derive(Debug, Default)]
pub(crate) struct KnownInputs {
    by_clip: HashMap<String, InputSeen>,
}

impl KnownInputs {
    /// Returns the contents of a clip's file; `None` if the file's current state has not been read.
    pub(crate) fn get(&self, clip_key: &str) -> Option<&InputSeen> {
        self.by_clip.get(clip_key)
    }

    /// Adds inputs whose file has an unchanged stamp. Returns the clips whose stamp differs: their files must be read
    /// to find out whether the contents changed.
    pub(crate) fn recall(
        &mut self,
        seen: BTreeMap<String, InputSeen>,
        audio: &AudioIndex,
    ) -> BTreeSet<String> {
        let mut doubtful = BTreeSet::new();
        for (clip_key, seen) in seen {
            if self.by_clip.contains_key(&clip_key) {
                continue;
            }

            let id_today = audio.get(&clip_key).copied();
            if seen.id == id_today {
                self.by_clip.insert(clip_key, seen);
            } else {
                doubtful.insert(clip_key);
            }
        }
        doubtful
    }

    /// Reads the files of `clips` that are not known yet.
    ///
    /// # Errors
    /// An error that names a file that cannot be read; an error of the kind `Interrupted` if the run was stopped.
    pub(crate) fn read<'c>(
        &mut self,
        clips: impl IntoIterator<Item = &'c str>,
        source: &dyn Source,
        settings: &Settings,
        progress: &Progress,
    ) -> Result<(), ExtractError> {
        let clips = clips.into_iter();
        let unknown: Vec<&str> = clips.filter(|key| self.get(key).is_none()).collect();
        if unknown.is_empty() {
            return Ok(());
        }

        let phase = progress.phase();
        let contents =
            survey::read_files(unknown.iter().copied(), source, settings, progress, None)?;
        if progress.is_stopped() {
            return Err(ExtractError::stopped_while(Phase::Hashing));
        }
        progress.enter(phase, 0);

        self.learn(&contents, source.index());
        // A missing file is recorded as unreadable, so that the file is not looked up again.
        for key in unknown {
            self.by_clip
                .entry(key.to_owned())
                .or_insert_with(|| InputSeen::unreadable(None));
        }
        Ok(())
    }

    /// Adds the results of a pass over files.
    pub(crate) fn learn(&mut self, contents: &FileContents, audio: &AudioIndex) {
        for (clip_key, content) in contents {
            let id = audio.get(clip_key).copied();
            let seen = match content {
                Some(file) => InputSeen::read(id, file.content, file.facts.decode),
                None => InputSeen::unreadable(id),
            };
            self.by_clip.insert(clip_key.clone(), seen);
        }
    }
}
