//! What the inputs hold, as far as a run knows it before it extracts them: by what earlier runs saw of them, where the
//! stamp is still the same, else by reading them. A stamp saves reading a file, and decides nothing more.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::RunError;
use crate::course::{Course, Phase};
use crate::extract::survey::{self, FileContents};
use crate::settings::Settings;
use crate::source::{AudioIndex, InputSeen, Source};

/// Inputs by `clip_key`, each with the stamp that it has today.
#[derive(Debug, Default)]
pub(super) struct KnownInputs {
    by_clip: HashMap<String, InputSeen>,
}

impl KnownInputs {
    /// What a pass over all files found.
    pub(super) fn of(contents: &FileContents, audio: &AudioIndex) -> Self {
        let mut known = Self::default();
        known.learn(contents, audio);
        known
    }

    /// A clip's file; `None`: nobody has read it as it is today.
    pub(super) fn get(&self, clip_key: &str) -> Option<&InputSeen> {
        self.by_clip.get(clip_key)
    }

    /// Takes what is still true by its stamp. Returns the clips that were seen in another state: whether they hold
    /// something else now is told by reading them.
    pub(super) fn recall(
        &mut self,
        seen: BTreeMap<String, InputSeen>,
        audio: &AudioIndex,
    ) -> BTreeSet<String> {
        let mut doubtful = BTreeSet::new();
        for (clip_key, seen) in seen {
            if self.by_clip.contains_key(&clip_key) {
                continue;
            }

            // Earlier formats did not see the decode key.
            let id_today = audio.get(&clip_key).copied();
            if seen.id == id_today && seen.decode_key.is_some() {
                self.by_clip.insert(clip_key, seen);
            } else {
                doubtful.insert(clip_key);
            }
        }
        doubtful
    }

    /// Reads those of `clips` that are not known yet.
    ///
    /// # Errors
    /// [`RunError::Extract`], [`RunError::Stopped`].
    pub(super) fn read<'c>(
        &mut self,
        clips: impl IntoIterator<Item = &'c str>,
        source: &dyn Source,
        settings: &Settings,
        course: &Course,
    ) -> Result<(), RunError> {
        let clips = clips.into_iter();
        let unknown: Vec<&str> = clips.filter(|key| self.get(key).is_none()).collect();
        if unknown.is_empty() {
            return Ok(());
        }

        let phase = course.phase();
        let contents = survey::read_files(unknown.iter().copied(), source, settings, course)?;
        if course.is_stopped() {
            return Err(RunError::Stopped {
                phase: Phase::Hashing,
            });
        }
        course.enter(phase, 0);

        self.learn(&contents, source.index());
        // One that is gone is known to be gone.
        for key in unknown {
            self.by_clip
                .entry(key.to_owned())
                .or_insert_with(|| InputSeen::unreadable(None));
        }
        Ok(())
    }

    fn learn(&mut self, contents: &FileContents, audio: &AudioIndex) {
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
