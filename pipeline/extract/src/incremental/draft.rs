//! Plans a version for one state of the store: everything that depends on the latest version is decided here.
//!
//! The first draft is made without the store's lock, because most runs are refused or have nothing to do, and must
//! report this for a read-only store too. Once the lock is held, the draft is made again if another run has committed
//! in between. Equal parents give equal drafts, so the first draft is used if the parent is still the same.

use std::collections::{BTreeMap, HashMap};

use parquet::errors::ParquetError;
use wavemill_catalog::split::KeptSplits;
use wavemill_catalog::{Catalog, ClassLists, Timings};
use wavemill_runtime::progress::{Phase, Progress};
use wavemill_source::AudioIndex;
use wavemill_store::{Parent, Store, StoreError};

use super::input::Input;
use super::known::KnownInputs;
use super::plan::Plan;
use super::renames::{self, Renames};
use crate::error::ExtractError;
use crate::incremental::changes::State;
use crate::incremental::parent::{self, ParentInput};
use crate::job::Job;
use crate::settings::Settings;

/// The inputs of every draft of a run.
#[derive(Clone, Copy)]
pub(crate) struct DraftInputs<'j, 'a> {
    pub job: &'j Job,
    pub settings: &'a Settings,
    pub input: &'a Input,
    pub store: &'a Store,
    pub progress: &'a Progress,
}

/// The version that a run would create after a given parent.
pub(crate) struct Draft<'j> {
    /// The latest version; `None` in a new store.
    pub parent: Option<Parent>,
    /// Renamed clips: those that have another key in the parent version.
    pub renames: Renames,
    /// The cleaned rows, with their splits (training, validation or test).
    pub catalog: Catalog,
    pub plan: Plan<'j>,
}

impl<'j> DraftInputs<'j, '_> {
    /// Drafts a version that follows `parent`. Files that had to be read are added to `known`.
    ///
    /// # Errors
    /// [`ExtractError::Catalog`]; an error that names a feature; [`ExtractError::Store`] if a table of the parent is
    /// damaged; errors from reading files.
    pub(crate) fn draft(
        &self,
        parent: Option<Parent>,
        known: &mut KnownInputs,
    ) -> Result<Draft<'j>, ExtractError> {
        self.progress.enter(Phase::Planning, 0);
        let mut renames = match &parent {
            Some(parent) => renames::find(self, parent, known)?,
            None => Renames::new(),
        };

        let mut kept_splits = self.kept_splits(parent.as_ref())?;
        if let Some(kept) = &mut kept_splits {
            // A key that already has a split is taken for the same clip and keeps the split, even if the file changed.
            renames.retain(|now, _| !kept.has_placed(now));
            kept.rename(&renames);
        }
        self.draft_with(parent, renames, kept_splits.as_ref())
    }

    fn draft_with(
        &self,
        parent: Option<Parent>,
        renames: Renames,
        kept_splits: Option<&KeptSplits>,
    ) -> Result<Draft<'j>, ExtractError> {
        let Self {
            job,
            settings,
            input,
            ..
        } = *self;
        let kept_classes = match &parent {
            Some(parent) if !settings.renumber => parent::kept_classes(parent, &job.recipe),
            _ => ClassLists::new(),
        };
        let mut catalog = input.cleaned.split(
            &job.recipe,
            &input.copies.recordings,
            kept_splits,
            &kept_classes,
        )?;
        if let (Some(path), Some(given)) = (&job.sides, &input.given_splits)
            && !catalog.clips.is_empty()
            && !given.name_any_of(&catalog.clips, &input.copies.recordings)
        {
            let problem = "it names no track, artist or recording of this data: give the table `sides` of a store of the \
                           same data";
            return Err(parent::wrong_file(path, problem).into());
        }

        catalog.tables.extend(input.copies.tables.clone());

        let mut timings = Timings::start();
        let none = BTreeMap::new();
        let kept_counts = parent
            .as_ref()
            .map_or(&none, |parent| &parent.manifest.shards);
        let plan = Plan::new(job, settings, input, &catalog, kept_counts)?;
        timings.end("plan");
        catalog.wall_s.append(&mut timings.wall_s);

        Ok(Draft {
            parent,
            renames,
            catalog,
            plan,
        })
    }
}

impl DraftInputs<'_, '_> {
    fn kept_splits(&self, parent: Option<&Parent>) -> Result<Option<KeptSplits>, StoreError> {
        if let Some(given) = &self.input.given_splits {
            return Ok(Some(given.splits.clone()));
        }
        match parent {
            Some(parent) if !self.settings.resplit => {
                parent::kept_splits(self.store, parent, &self.job.recipe)
            }
            _ => Ok(None),
        }
    }
}

impl<'j> Draft<'j> {
    /// Makes the draft again, unless it was made for the version `parent`.
    pub(crate) fn renew(
        &mut self,
        inputs: &DraftInputs<'j, '_>,
        parent: Option<Parent>,
        known: &mut KnownInputs,
    ) -> Result<(), ExtractError> {
        let drafted_for = self.parent.as_ref().map(|parent| &parent.hash);
        if drafted_for != parent.as_ref().map(|parent| &parent.hash) {
            *self = inputs.draft(parent, known)?;
        }
        Ok(())
    }

    /// Returns the draft's tracks with the known contents of their files, for comparison with an existing version.
    pub(crate) fn state(
        &self,
        known: &KnownInputs,
        audio: &AudioIndex,
    ) -> Result<State, ParquetError> {
        let Some(tracks) = self.catalog.tables.get("tracks") else {
            return Ok(State::default());
        };

        let mut inputs = HashMap::new();
        for &row in &self.plan.shard_plan.planned {
            let clip_key = &self.catalog.clips[row].clip_key;
            let mut input = ParentInput {
                bytes: audio.get(clip_key).map(|id| id.bytes),
                ..ParentInput::default()
            };

            if let Some(seen) = known.get(clip_key) {
                input.content.clone_from(&seen.content);
                input.decode_key.clone_from(&seen.decode_key);
            }
            inputs.insert(clip_key.clone(), input);
        }

        State::from_plan(
            tracks,
            &self.plan.shard_plan.planned,
            inputs,
            self.plan.recipe,
            self.plan.features.entries(),
            &self.catalog.classes,
        )
    }

    /// Returns the number that the drafted version would get.
    pub(crate) fn version(&self) -> u64 {
        self.parent.as_ref().map_or(1, |parent| parent.version + 1)
    }
}
