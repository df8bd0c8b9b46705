//! Reads the inputs of a run: the index of the audio, and the cleaned rows. Nothing is written, and the store is not
//! read.

use std::path::Path;
use std::sync::Arc;

use wavemill_catalog as catalog;
use wavemill_catalog::{AudioHashes, CatalogError, CleanedRows, FileAccount};
use wavemill_runtime::course::{Course, Phase};
use wavemill_runtime::settings::Settings;
use wavemill_schemas::recipe::{Dataset, Recipe};
use wavemill_source as source;
use wavemill_source::{ListedClip, Media, Source};

use super::known::KnownInputs;
use crate::error::RunError;
use crate::incremental::parent::{self, GivenSides};
use crate::job::Job;
use crate::threads::survey;

/// The inputs of a run.
pub(crate) struct Input {
    /// Folder or zip from which the clips' files are read.
    pub source: Box<dyn Source>,
    /// Cleaned rows without splits, because splits also depend on the latest version in the store.
    pub cleaned: CleanedRows,
    /// Account of the files below the audio root: which ones are used, and why the others are not.
    pub files: FileAccount,
    /// Audio hashes by which duplicates are found, if `split.group_duplicates` is set.
    pub hashes: AudioHashes,
    /// Splits read from `--sides`, to keep instead of those of the previous version.
    pub given_sides: Option<GivenSides>,
    /// Known contents of files that had to be read to find duplicates.
    pub known: KnownInputs,
}

impl Input {
    /// Lists the audio, cleans the metadata, and finds duplicates if the recipe requires it.
    ///
    /// # Errors
    /// [`RunError::Stopped`], and the errors of listing, cleaning and hashing.
    pub(crate) fn open(
        job: &Job,
        settings: &Settings,
        course: &Arc<Course>,
    ) -> Result<Self, RunError> {
        let given_sides = job.sides.as_deref().map(parent::read_sides).transpose()?;
        // The audio is listed first, because cleaning may drop rows whose clip has no file.
        let source = open_source(&job.audio, &job.recipe, settings.allow_outside)?;
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

    /// Hashes the audio of every cleaned clip before clips are assigned to splits, so that all copies of a recording
    /// are in the same split. A clip that cannot be hashed is treated as a recording of its own; if it cannot be
    /// decoded either, the run counts it as a reject.
    fn find_duplicates(&mut self, settings: &Settings, course: &Course) -> Result<(), RunError> {
        let keys = self.cleaned.clip_keys();
        let contents = survey::read_files(keys, &*self.source, settings, course)?;
        // A stopped pass leaves out clips, so copies of a recording could be assigned to different splits.
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
        self.known = KnownInputs::from_contents(&contents, self.source.index());
        Ok(())
    }

    /// # Errors
    /// [`RunError::NoRows`], which names the step that dropped the last row.
    pub(crate) fn require_rows(&self) -> Result<(), RunError> {
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

    /// Returns the source of the clips' files. Drops rows that no catalog shares.
    pub(crate) fn into_source(self) -> Box<dyn Source> {
        self.source
    }

    /// Returns the size of a clip's file in bytes; `None` if there is no file.
    pub(crate) fn audio_bytes(&self, clip_key: &str) -> Option<u64> {
        self.source.index().get(clip_key).map(|id| id.bytes)
    }
}

/// Lists the clips of a recipe's data set in the folder or zip `audio`.
///
/// # Errors
/// [`RunError::Source`].
pub(crate) fn open_source(
    audio: &Path,
    recipe: &Recipe,
    allow_outside: bool,
) -> Result<Box<dyn Source>, RunError> {
    let mut source = source::open(audio, media_of(recipe), allow_outside)?;
    source.set_bytes_max(recipe.file_bytes_max());
    Ok(source)
}

/// Opens some of the clips that [`open_source`] listed. `root` is the path of the audio root in `audio`.
///
/// # Errors
/// [`RunError::Source`].
pub(crate) fn reopen_source(
    audio: &Path,
    recipe: &Recipe,
    root: &str,
    clips: Vec<ListedClip>,
) -> Result<Box<dyn Source>, RunError> {
    let mut source = source::reopen(audio, media_of(recipe), root, clips)?;
    source.set_bytes_max(recipe.file_bytes_max());
    Ok(source)
}

fn media_of(recipe: &Recipe) -> Media {
    match recipe.catalog.dataset {
        Dataset::Images => Media::Pictures,
        Dataset::Fma | Dataset::Folders | Dataset::Table => Media::Audio,
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
        &job.metadata,
        source.index(),
        settings.into(),
        course,
    );

    // The catalog's error does not contain the phase in which the job was stopped, so `course` supplies it.
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
