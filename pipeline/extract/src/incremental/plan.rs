//! The plan of a run: everything that identifies the version to be created.

use std::collections::BTreeMap;

use wavemill_catalog as catalog;
use wavemill_catalog::Catalog;
use wavemill_schemas::canonical;
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::manifest::{Engine, Identity, TargetEntry};
use wavemill_schemas::recipe::Recipe;
use wavemill_store::VersionInputs;
use wavemill_store::plan::{self, ShardPlan};
use wavemill_store::shards::KeyInputs;

use super::input::Input;
use crate::engine::engine_of;
use crate::error::ExtractError;
use crate::features::FeaturePlan;
use crate::job::Job;
use crate::settings::Settings;
use crate::threads::Limits;

/// The plan of a run.
pub(crate) struct Plan<'a> {
    pub recipe: &'a Recipe,
    /// Assignment of clips to shards.
    pub shard_plan: ShardPlan,
    /// The features to compute for each clip.
    pub features: FeaturePlan,
    /// The targets with their classes, without numbers of clips, which come from the receipts.
    pub targets: Vec<TargetEntry>,
    /// The engine that computes the features.
    pub engine: Engine,
    /// Hashes that identify the plan, without the parent's hash, which the store fills in.
    pub identity: Identity,
    /// Number of rows that were dropped because their clip has no file.
    pub clips_absent: u64,
}

impl<'a> Plan<'a> {
    /// Plans a job. `catalog` contains the rows, which were made from `input`; `kept_counts` contains the number of
    /// shards of each split in the previous version.
    ///
    /// # Errors
    /// An error that names a feature; [`ExtractError::Catalog`] if the metadata files cannot be read again.
    pub(crate) fn new(
        job: &'a Job,
        settings: &Settings,
        input: &Input,
        catalog: &Catalog,
        kept_counts: &BTreeMap<String, u64>,
    ) -> Result<Self, ExtractError> {
        let shard_plan = plan::shards(&catalog.clips, &job.recipe, settings.limit, kept_counts);
        let features = FeaturePlan::new(&job.recipe, settings)?;
        let engine = engine_of(&job.recipe, settings);
        let mut identity = identity(job, settings.limit, input, catalog, &shard_plan, &engine)?;
        identity.models = features.models_id()?;

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

    /// Returns the run's limits of memory, threads and rejects.
    ///
    /// # Errors
    /// An error of the kind `Usage` if the memory limit is too small.
    pub(crate) fn limits(&self, settings: &Settings) -> Result<Limits, ExtractError> {
        let planned = self.shard_plan.planned.len() as u64;
        let row_group_rows = self.recipe.shards.row_group_rows;
        Limits::new(settings, planned, row_group_rows, &self.features)
    }

    /// Returns the inputs from which the keys of the files of `features` are computed.
    pub(crate) fn key_inputs<'c>(
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

    /// Returns an id of the set of all features of the plan.
    pub(crate) fn features_id(&self) -> Result<String, ExtractError> {
        Ok(canonical::id(&self.features.entries())?)
    }

    /// Returns the inputs that the store compares with the latest version to explain a refusal.
    pub(crate) fn version_inputs(&self, settings: &Settings) -> VersionInputs<'_> {
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
) -> Result<Identity, ExtractError> {
    let metadata = catalog::fingerprints(job.recipe.catalog.dataset, &job.metadata)?;

    // The hash covers the sizes of the files but no stamps: modification times differ between machines.
    let mut inputs = Vec::with_capacity(shard_plan.planned.len());
    for &row in &shard_plan.planned {
        let clip_key = &catalog.clips[row].clip_key;
        inputs.push((clip_key, input.audio_bytes(clip_key)));
    }

    // Class ids are not a column of the rows. If they are numbered as in a first version, they follow from the rows.
    let rows_hash = catalog.rows_hash()?;
    let is_first_numbering = catalog.classes == *input.cleaned.classes();
    // The metadata files are included because some tables, such as `raw_*`, contain data that the cleaned rows do not.
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
        sides: input.given_splits.as_ref().map(|given| given.id.clone()),
        models: None,
        parent: None,
    })
}
