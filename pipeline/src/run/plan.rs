//! What a run is to make, and what identifies that: everything that a plan's id names.

use std::collections::BTreeMap;

use wavemill_schemas::canonical;
use wavemill_schemas::manifest::{Engine, Identity, TargetEntry};
use wavemill_schemas::recipe::Recipe;

use super::input::Input;
use super::{Job, RunError};
use crate::catalog::{self, Catalog, ClipRow};
use crate::extract::Limits;
use crate::features::FeaturePlan;
use crate::plan::{self, ShardPlan, engine};
use crate::settings::Settings;
use crate::shards::KeyInputs;
use crate::store::VersionInputs;

/// What a run is to make.
pub(super) struct Plan<'a> {
    pub recipe: &'a Recipe,
    /// Which clip lies in which shard.
    pub shard_plan: ShardPlan,
    /// What is computed of each clip.
    pub features: FeaturePlan,
    /// With classes; counts come with the receipts.
    pub targets: Vec<TargetEntry>,
    /// What computes.
    pub engine: Engine,
    /// Without its parent, which the store knows.
    pub identity: Identity,
    /// Rows that were dropped because their clip has no file.
    clips_absent: u64,
}

impl<'a> Plan<'a> {
    /// Plans a job: the rows of `catalog`, made of `input`. `kept_counts`: shards of each side in the version before.
    ///
    /// # Errors
    /// [`RunError::Feature`]; [`RunError::Catalog`] where the metadata files cannot be read again.
    pub(super) fn new(
        job: &'a Job,
        settings: &Settings,
        input: &Input,
        catalog: &Catalog,
        kept_counts: &BTreeMap<String, u64>,
    ) -> Result<Self, RunError> {
        let shard_plan = plan::shards(&catalog.clips, &job.recipe, settings.limit, kept_counts);
        let features = FeaturePlan::new(&job.recipe, settings)?;
        let engine = engine::current(settings, job.recipe.catalog.dataset);
        let identity = identity(job, settings.limit, input, catalog, &shard_plan, &engine)?;

        Ok(Self {
            recipe: &job.recipe,
            shard_plan,
            features,
            targets: targets(&job.recipe, catalog),
            engine,
            identity,
            clips_absent: catalog.clips_absent(),
        })
    }

    /// Bounds of the run.
    ///
    /// # Errors
    /// [`RunError::Extract`]: the memory limit holds too little.
    pub(super) fn limits(&self, settings: &Settings) -> Result<Limits, RunError> {
        let planned = self.shard_plan.planned.len() as u64;
        let row_group_rows = self.recipe.shards.row_group_rows;
        Ok(Limits::new(
            settings,
            planned,
            row_group_rows,
            &self.features,
        )?)
    }

    /// What the keys of the files of `features` are made of.
    pub(super) fn key_inputs<'c>(
        &'c self,
        clips: &'c [ClipRow],
        features: &'c FeaturePlan,
    ) -> KeyInputs<'c> {
        KeyInputs {
            clips,
            recipe: self.recipe,
            features: features.entries(),
            targets: &self.targets,
            engine: &self.engine,
        }
    }

    /// Names all features of the plan.
    ///
    /// # Errors
    /// None in practice.
    pub(super) fn features_id(&self) -> Result<String, RunError> {
        Ok(canonical::id(&self.features.entries())?)
    }

    /// What a store's refusal can name where its latest version differs.
    pub(super) fn version_inputs(&self, settings: &Settings) -> VersionInputs<'_> {
        VersionInputs {
            recipe: self.recipe,
            engine: &self.engine,
            clips_absent: self.clips_absent,
            resplit: settings.resplit,
            targets: &self.targets,
        }
    }
}

fn targets(recipe: &Recipe, catalog: &Catalog) -> Vec<TargetEntry> {
    let mut entries = Vec::with_capacity(recipe.targets.len());
    for target in &recipe.targets {
        let classes = catalog.classes.get(&target.name).cloned();
        entries.push(TargetEntry {
            name: target.name.clone(),
            classes: classes.unwrap_or_default(),
            counts: BTreeMap::new(),
        });
    }
    entries
}

fn identity(
    job: &Job,
    limit: Option<u64>,
    input: &Input,
    catalog: &Catalog,
    shard_plan: &ShardPlan,
    engine: &Engine,
) -> Result<Identity, RunError> {
    let metadata = catalog::fingerprints(job.recipe.catalog.dataset, job.metadata.as_deref())?;

    // Sizes and no stamps: a modification time differs on every machine.
    let mut inputs = Vec::with_capacity(shard_plan.planned.len());
    for &row in &shard_plan.planned {
        let clip_key = &catalog.clips[row].clip_key;
        inputs.push((clip_key, input.audio_bytes(clip_key)));
    }

    // Ids of classes are no column of the rows. Where they are those of a first version, they follow from the rows.
    let rows_hash = catalog.rows_hash()?;
    let is_first_numbering = catalog.classes == *input.cleaned.classes();
    // The metadata files count too: tables are made of them that the cleaned rows do not show, such as `raw_*`.
    Ok(Identity {
        recipe: canonical::id(&job.recipe)?,
        rows: if is_first_numbering {
            canonical::id(&(rows_hash, metadata))?
        } else {
            canonical::id(&(rows_hash, metadata, &catalog.classes))?
        },
        inputs: canonical::id(&inputs)?,
        engine: canonical::id(engine)?,
        limit,
        sides: input.given_sides.as_ref().map(|given| given.id.clone()),
        parent: None,
    })
}
