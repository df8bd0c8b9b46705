//! A plan for the store as it is at one moment: everything that follows from its latest version is decided here.
//!
//! A draft is made once without the store's lock, because most runs are refused or have nothing to do, and that must be
//! told by a store that is read-only too. Under the lock it is made again if another run committed in between. Equal
//! parents give equal drafts, so the first one is good where the parent is still the same.

use std::collections::BTreeMap;

use super::input::Input;
use super::plan::Plan;
use super::{Job, RunError};
use crate::catalog::split::KeptSides;
use crate::catalog::{Catalog, Laps};
use crate::course::{Course, Phase};
use crate::parent;
use crate::settings::Settings;
use crate::store::{Parent, Store, StoreError};

/// What every draft of a run is made of.
#[derive(Clone, Copy)]
pub(super) struct DraftInputs<'j, 'a> {
    pub job: &'j Job,
    pub settings: &'a Settings,
    pub input: &'a Input,
    pub store: &'a Store,
    pub course: &'a Course,
}

/// What a run would make after a given version.
pub(super) struct Draft<'j> {
    /// The latest version; `None` in a new store.
    pub parent: Option<Parent>,
    /// The cleaned rows, with their sides.
    pub catalog: Catalog,
    pub plan: Plan<'j>,
}

impl<'j> DraftInputs<'j, '_> {
    /// Drafts a version that follows `parent`.
    ///
    /// # Errors
    /// [`RunError::Catalog`], [`RunError::Feature`]; [`RunError::Store`] where a table of the parent is damaged.
    pub(super) fn draft(&self, parent: Option<Parent>) -> Result<Draft<'j>, RunError> {
        let Self {
            job,
            settings,
            input,
            ..
        } = *self;
        self.course.enter(Phase::Planning, 0);

        let kept_sides = self.kept_sides(parent.as_ref())?;
        let kept_counts = self.kept_counts(parent.as_ref())?;
        let mut catalog = input
            .cleaned
            .split(&job.recipe, &input.hashes, kept_sides.as_ref())?;

        let mut laps = Laps::start();
        let plan = Plan::new(job, settings, input, &catalog, &kept_counts)?;
        laps.end("plan");
        catalog.wall_s.append(&mut laps.wall_s);

        Ok(Draft {
            parent,
            catalog,
            plan,
        })
    }
}

impl DraftInputs<'_, '_> {
    fn kept_sides(&self, parent: Option<&Parent>) -> Result<Option<KeptSides>, StoreError> {
        match parent {
            Some(parent) if !self.settings.resplit => {
                parent::kept_sides(self.store, parent, &self.job.recipe)
            }
            _ => Ok(None),
        }
    }

    fn kept_counts(&self, parent: Option<&Parent>) -> Result<BTreeMap<String, u64>, StoreError> {
        let Some(parent) = parent else {
            return Ok(BTreeMap::new());
        };
        match parent::shard_counts(self.store, parent) {
            // Asked to draw sides anew, a run goes on without the table that they stood in. In an old format the same
            // table tells the number of shards.
            Err(StoreError::Needed { .. }) if self.settings.resplit => Ok(BTreeMap::new()),
            counts => counts,
        }
    }
}

impl<'j> Draft<'j> {
    /// Drafts anew, unless `parent` is the version that this draft was made for.
    ///
    /// # Errors
    /// As [`DraftInputs::draft`].
    pub(super) fn renew(
        &mut self,
        inputs: &DraftInputs<'j, '_>,
        parent: Option<Parent>,
    ) -> Result<(), RunError> {
        let drafted_for = self.parent.as_ref().map(|parent| &parent.hash);
        if drafted_for != parent.as_ref().map(|parent| &parent.hash) {
            *self = inputs.draft(parent)?;
        }
        Ok(())
    }

    /// The number of the version that it would become.
    pub(super) fn version(&self) -> u64 {
        self.parent.as_ref().map_or(1, |parent| parent.version + 1)
    }
}
