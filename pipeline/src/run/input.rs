//! What a run reads: the audio's index, and the cleaned rows. Nothing is written for it, and no store is looked at.

use std::sync::Arc;

use wavemill_schemas::recipe::Dataset;

use super::known::KnownInputs;
use super::{Job, RunError};
use crate::catalog::{self, AudioHashes, CatalogError, CleanedRows, FileAccount};
use crate::course::{Course, Phase};
use crate::extract::survey;
use crate::parent::{self, GivenSides};
use crate::settings::Settings;
use crate::source::{self, Media, Source};

/// What a run reads.
pub(super) struct Input {
    /// Where clips come from.
    pub source: Box<dyn Source>,
    /// Rows that have no sides yet: those follow from the store's latest version too.
    pub cleaned: CleanedRows,
    /// The fate of every file below the audio root.
    pub files: FileAccount,
    /// What tells one recording from another, with `split.group_duplicates`.
    pub hashes: AudioHashes,
    /// Sides to keep, in place of those of the version before.
    pub given_sides: Option<GivenSides>,
    /// What files hold, where they had to be read for that.
    pub known: KnownInputs,
}

impl Input {
    /// Lists the audio, cleans the metadata, and looks for duplicates where the recipe wants it.
    ///
    /// # Errors
    /// [`RunError::Stopped`] among those of its parts.
    pub(super) fn open(
        job: &Job,
        settings: &Settings,
        course: &Arc<Course>,
    ) -> Result<Self, RunError> {
        let given_sides = job.sides.as_deref().map(parent::read_sides).transpose()?;
        // The audio first, because cleaning may drop rows whose clip has no file.
        let media = match job.recipe.catalog.dataset {
            Dataset::Images => Media::Pictures,
            Dataset::Fma | Dataset::Folders | Dataset::Table => Media::Audio,
        };
        let mut source = source::open(&job.audio, media, settings.allow_outside)?;
        source.set_bytes_max(job.recipe.file_bytes_max());
        let mut cleaned = clean(job, settings, &*source, course)?;
        let files = cleaned.account_for(&*source, job.recipe.catalog.dataset);
        cleaned.warn_of(&files);

        let mut input = Self {
            source,
            cleaned,
            files,
            hashes: AudioHashes::new(),
            given_sides,
            known: KnownInputs::default(),
        };
        if job.recipe.split.group_duplicates {
            input.find_duplicates(settings, course)?;
        }
        Ok(input)
    }

    /// Hashes the audio of every cleaned clip before sides are given, so that no recording is on two of them. A clip that
    /// cannot be hashed is a recording of its own: the run counts it when it decodes it.
    fn find_duplicates(&mut self, settings: &Settings, course: &Course) -> Result<(), RunError> {
        let keys = self.cleaned.clip_keys();
        let contents = survey::read_files(keys, &*self.source, settings, course)?;
        // Stopped, that pass leaves clips out, and copies of a recording could fall on two sides without them.
        if course.is_stopped() {
            return Err(RunError::Stopped {
                phase: Phase::Hashing,
            });
        }

        for (clip_key, content) in &contents {
            if let Some(audio) = content.and_then(|file| file.facts.audio) {
                self.hashes.insert(clip_key.clone(), audio);
            }
        }
        self.known = KnownInputs::of(&contents, self.source.index());
        Ok(())
    }

    /// # Errors
    /// [`RunError::NoRows`], which names the step that dropped the last row.
    pub(super) fn require_rows(&self) -> Result<(), RunError> {
        if !self.cleaned.is_empty() {
            return Ok(());
        }

        let emptied = self.cleaned.steps().iter().find(|step| step.kept == 0);
        let step = match emptied {
            Some(step) => format!("cleaning step `{}`", step.step),
            None => "reading the metadata".to_owned(),
        };
        Err(RunError::NoRows { step })
    }

    /// The source alone. All rows that no catalog shares go.
    pub(super) fn into_source(self) -> Box<dyn Source> {
        self.source
    }

    /// Bytes of a clip's file; `None` where there is none.
    pub(super) fn audio_bytes(&self, clip_key: &str) -> Option<u64> {
        self.source.index().get(clip_key).map(|id| id.bytes)
    }
}

fn clean(
    job: &Job,
    settings: &Settings,
    source: &dyn Source,
    course: &Arc<Course>,
) -> Result<CleanedRows, RunError> {
    let cleaned = catalog::clean(
        &job.recipe,
        job.metadata.as_deref(),
        source.index(),
        settings.into(),
        course,
    );

    // The catalog knows that it was stopped, and the course in which of its phases.
    cleaned.map_err(|error| match error {
        CatalogError::Stopped => RunError::Stopped {
            phase: course.phase(),
        },
        CatalogError::NoAudio { rows, example, .. } => {
            let hint = catalog::hint_of_file(&example, source);
            CatalogError::NoAudio {
                rows,
                example,
                hint,
            }
            .into()
        }
        error => error.into(),
    })
}
