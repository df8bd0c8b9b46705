//! From a draft to a version that is begun: there is nothing to do, the store refuses, or its folders are made.

use fail::fail_point;
use wavemill_schemas::manifest::{Identity, Manifest};

use super::RunError;
use super::draft::{Draft, DraftInputs};
use super::known::KnownInputs;
use super::shrink;
use crate::changes::{DataChanges, State};
use crate::course::Phase;
use crate::store::{Decision, Lock, PlanRecord, StoreError};

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
/// lock, and is made anew where the store has another latest version by now. What had to be read for it is added to
/// `known`.
///
/// # Errors
/// [`RunError::Store`]; those of looking whether inputs changed, and of drafting.
pub(super) fn begin<'j>(
    inputs: &DraftInputs<'j, '_>,
    draft: &mut Draft<'j>,
    known: &mut KnownInputs,
) -> Result<Start, RunError> {
    let store = inputs.store;
    // Without the lock first: a store that needs nothing may be read-only.
    if let Decision::NothingToDo(version, manifest) = decide(inputs, draft, known)? {
        // A failure to clean, as in a read-only store, does not matter to a run that has nothing to do.
        let _ = store.clear_manifest_temporaries();
        return Ok(Start::NothingToDo(version, manifest));
    }

    fail_point!("run-before-lock");
    let lock = take_lock(inputs)?;
    // Another run may have committed before the lock was ours. Then all that follows from the parent is decided anew.
    draft.renew(inputs, store.latest()?, known)?;
    let identity = match decide(inputs, draft, known)? {
        Decision::NothingToDo(version, manifest) => {
            return Ok(Start::NothingToDo(version, manifest));
        }
        Decision::Go { identity } => identity,
    };

    if let Some(vanished) = shrink::vanished(inputs, draft, known)? {
        vanished.require_at_most(inputs.settings.max_shrink)?;
    }

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

/// # Errors
/// [`RunError::Stopped`] if the run was stopped while it waited; those of [`Store::lock`](crate::store::Store::lock).
fn take_lock(inputs: &DraftInputs<'_, '_>) -> Result<Lock, RunError> {
    let DraftInputs {
        store,
        settings,
        course,
        ..
    } = *inputs;
    course.enter(Phase::Waiting, 0);
    let locked = store.lock(settings.lock_wait, || course.is_stopped());
    match locked {
        Err(StoreError::Locked { .. }) if course.is_stopped() => Err(RunError::Stopped {
            phase: Phase::Waiting,
        }),
        other => Ok(other?),
    }
}

/// Compares a draft with the latest version, as [`Store::decide`](crate::store::Store::decide) does. Inputs of that version
/// whose stamps differ are read again, and what they hold is added to `known`.
///
/// # Errors
/// [`RunError::Store`] if the run is refused; those of reading inputs.
pub(super) fn decide(
    inputs: &DraftInputs<'_, '_>,
    draft: &Draft<'_>,
    known: &mut KnownInputs,
) -> Result<Decision, RunError> {
    inputs.store.decide(
        draft.parent.as_ref(),
        &draft.plan.identity,
        draft.plan.version_inputs(inputs.settings),
        inputs.settings.new_version,
        |manifest| what_differs(inputs, draft, manifest),
        |manifest| stale_inputs(inputs, manifest, known),
    )
}

/// How the draft's tracks differ from those of a version, a sentence each. Nothing is read for it but the version's
/// tables: of files that are not known, size alone tells. Where that fails there is nothing to tell, and the refusal says
/// as much as it can without.
fn what_differs(
    inputs: &DraftInputs<'_, '_>,
    draft: &Draft<'_>,
    manifest: &Manifest,
) -> Vec<String> {
    let mut known = KnownInputs::default();
    if let Ok(seen) = inputs.store.seen(&manifest.plan_id) {
        known.recall(seen, inputs.input.source.index());
    }
    let before = State::of_version(inputs.store, manifest).ok();
    let now = draft.state(&known, inputs.input.source.index()).ok();
    match (before, now) {
        (Some(before), Some(now)) => DataChanges::between(&before, &now).words(),
        _ => Vec::new(),
    }
}

/// Clips of a version whose files changed although their sizes did not: those whose stamp differs are read again and
/// their content compared.
///
/// # Errors
/// [`RunError::Store`] when receipts cannot be listed, [`RunError::Extract`] when a clip cannot be read,
/// [`RunError::Stopped`].
fn stale_inputs(
    inputs: &DraftInputs<'_, '_>,
    manifest: &Manifest,
    known: &mut KnownInputs,
) -> Result<Vec<String>, RunError> {
    let was = inputs.store.seen(&manifest.plan_id)?;
    let source = &*inputs.input.source;
    let doubtful = known.recall(was.clone(), source.index());
    let doubtful = doubtful.iter().map(String::as_str);
    known.read(doubtful, source, inputs.settings, inputs.course)?;

    let mut stale = Vec::new();
    for (clip_key, was) in was {
        let is = known.get(&clip_key);
        if is.is_some_and(|is| is.content != was.content) {
            stale.push(clip_key);
        }
    }
    Ok(stale)
}
