//! From a draft to a version that is begun: there is nothing to do, the store refuses, or its folders are made.

use std::collections::BTreeMap;

use fail::fail_point;
use wavemill_schemas::manifest::{Identity, Manifest};

use super::RunError;
use super::draft::{Draft, DraftInputs};
use crate::course::Course;
use crate::extract::ExtractError;
use crate::source::{InputSeen, ReadFailure, Source};
use crate::store::{Decision, Lock, PlanRecord, Store};

/// What is to be done with the store.
pub(super) enum Start {
    /// The latest version was made of just this.
    NothingToDo(u64, Box<Manifest>),
    /// A version is to be made, and its folders are there.
    Version(NewVersion),
}

/// The version that a run makes.
pub(super) struct NewVersion {
    /// With the parent's hash.
    pub identity: Identity,
    pub plan_id: String,
    /// Held until the version is committed.
    _lock: Lock,
}

/// Takes the store's lock and makes the plan's folders, where there is something to do. `draft` was made without the
/// lock, and is made anew where the store has another latest version by now.
///
/// # Errors
/// [`RunError::Store`]; those of looking whether inputs changed, and of drafting.
pub(super) fn begin<'j>(
    inputs: &DraftInputs<'j, '_>,
    draft: &mut Draft<'j>,
) -> Result<Start, RunError> {
    let store = inputs.store;
    // Without the lock first: a store that needs nothing may be read-only.
    if let Decision::NothingToDo(version, manifest) = decide(inputs, draft)? {
        return Ok(Start::NothingToDo(version, manifest));
    }

    fail_point!("run-before-lock");
    let lock = store.lock()?;
    // Another run may have committed before the lock was ours. Then all that follows from the parent is decided anew.
    draft.renew(inputs, store.latest()?)?;
    let identity = match decide(inputs, draft)? {
        Decision::NothingToDo(version, manifest) => {
            return Ok(Start::NothingToDo(version, manifest));
        }
        Decision::Go { identity } => identity,
    };

    // Refusals come before the plan's first file. Its record comes before its first shard, so that a run with another
    // engine finds out whose work lies here.
    let plan_id = identity.plan_id()?;
    let plan_record = PlanRecord {
        identity,
        engine: draft.plan.engine.clone(),
    };
    store.refuse_other_engine(&plan_record, inputs.settings.restart)?;
    store.require_own_folders(&plan_id)?;
    store.begin(&plan_id, &plan_record)?;
    store.clear_temporaries(&plan_id)?;

    Ok(Start::Version(NewVersion {
        identity: plan_record.identity,
        plan_id,
        _lock: lock,
    }))
}

fn decide(inputs: &DraftInputs<'_, '_>, draft: &Draft<'_>) -> Result<Decision, RunError> {
    let DraftInputs {
        input,
        store,
        course,
        ..
    } = *inputs;
    store.decide(
        draft.parent.as_ref(),
        &draft.plan.identity,
        draft.plan.version_inputs(inputs.settings),
        inputs.settings.new_version,
        |manifest| stale_inputs(store, manifest, &*input.source, course),
    )
}

/// Clips of a version whose files changed although their sizes did not: those whose stamp differs are read again and
/// their content compared.
///
/// # Errors
/// [`RunError::Store`] when receipts cannot be listed, [`ExtractError::Read`] when a clip cannot be read,
/// [`RunError::Stopped`].
fn stale_inputs(
    store: &Store,
    manifest: &Manifest,
    source: &dyn Source,
    course: &Course,
) -> Result<Vec<String>, RunError> {
    // Under the rule `segment` several receipts name a clip.
    let inputs: BTreeMap<_, _> = store
        .receipts(&manifest.plan_id)?
        .into_values()
        .flat_map(|receipt| receipt.inputs)
        .collect();

    let mut stale = Vec::new();
    let mut bytes = Vec::new();
    for (clip_key, seen) in inputs {
        // Receipts help to notice a change, and no version depends on them: one that is not understood tells nothing.
        let Ok(seen) = serde_json::from_value::<InputSeen>(seen) else {
            continue;
        };
        if source.index().get(&clip_key).copied() == seen.id {
            continue;
        }
        if course.is_stopped() {
            return Err(RunError::Stopped {
                phase: course.phase(),
            });
        }

        // As in receipts: no hash for a clip that cannot be read.
        let content = match source.read(&clip_key, &mut bytes) {
            Ok(()) => blake3::hash(&bytes).to_hex().to_string(),
            Err(ReadFailure::Reject(_)) => String::new(),
            Err(ReadFailure::Io(source)) => {
                return Err(ExtractError::Read { clip_key, source }.into());
            }
        };
        if content != seen.content {
            stale.push(clip_key);
        }
    }
    Ok(stale)
}
