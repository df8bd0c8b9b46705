//! Which shards of a plan are there already, and which are left to write.

use wavemill_schemas::manifest::Receipt;

use super::RunError;
use super::plan::Plan;
use crate::catalog::ClipRow;
use crate::course::Course;
use crate::extract::ExtractError;
use crate::plan::ShardPlan;
use crate::shards::{KeyInputs, ShardTask};
use crate::source::AudioIndex;
use crate::store::{Store, linked_key};

/// The key of every shard, in plan order.
///
/// # Errors
/// None in practice.
pub(super) fn shard_keys(
    plan: &Plan<'_>,
    clips: &[ClipRow],
    audio: &AudioIndex,
) -> Result<Vec<String>, RunError> {
    let inputs = KeyInputs {
        clips,
        audio,
        recipe: plan.recipe,
        features: plan.features.entries(),
        targets: &plan.targets,
        engine: &plan.engine,
    };

    let mut keys = Vec::with_capacity(plan.shard_plan.shards.len());
    for shard in &plan.shard_plan.shards {
        keys.push(inputs.key(shard)?);
    }
    Ok(keys)
}

/// Receipts of shards that need no work: finished by a killed run of this plan, or linked from another plan.
///
/// # Errors
/// [`RunError::Store`], [`ExtractError::Interrupted`].
pub(super) fn finished_shards(
    store: &Store,
    plan_id: &str,
    shard_plan: &ShardPlan,
    keys: &[String],
    course: &Course,
) -> Result<Vec<Option<Receipt>>, RunError> {
    let mut own = store.receipts(plan_id)?;
    let others = linked_key(store, plan_id)?;

    let mut receipts = Vec::with_capacity(shard_plan.shards.len());
    for (shard, key) in shard_plan.shards.iter().zip(keys) {
        // Before each shard, because the files of one are read to compare their hashes.
        if course.is_stopped() {
            return Err(ExtractError::Interrupted {
                done: receipts.iter().flatten().count(),
                total: shard_plan.shards.len(),
            }
            .into());
        }

        // A receipt is named by its shard, and the key tells whether that is still the same: clips may have changed.
        if let Some(receipt) = own
            .remove(&shard.label())
            .filter(|receipt| receipt.key == *key)
            && store.holds(&receipt)?
        {
            receipts.push(Some(receipt));
            continue;
        }

        let Some(theirs) = others.get(key) else {
            receipts.push(None);
            continue;
        };
        // Damaged or gone there: it is made anew here.
        if !store.holds(theirs)? {
            receipts.push(None);
            continue;
        }

        // As for a shard that was computed: the files first, then the receipt that vouches for them.
        let receipt = store.link(theirs, plan_id, shard)?;
        store.write_receipt(plan_id, &shard.label(), &receipt)?;
        receipts.push(Some(receipt));
    }
    Ok(receipts)
}

/// Shards that have no receipt yet, with their keys.
pub(super) fn left_to_do<'a>(
    shard_plan: &'a ShardPlan,
    keys: Vec<String>,
    receipts: &[Option<Receipt>],
) -> Vec<ShardTask<'a>> {
    let mut todo = Vec::new();
    for (place, (shard, key)) in shard_plan.shards.iter().zip(keys).enumerate() {
        if receipts[place].is_none() {
            todo.push(ShardTask { place, shard, key });
        }
    }
    todo
}
