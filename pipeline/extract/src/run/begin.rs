//! Decides what to do with a draft: there is nothing to do, the store refuses the run, or the folders of the version
//! are created.

use std::time::Duration;

use fail::fail_point;
use wavemill_runtime::progress::{Phase, Progress};
use wavemill_schemas::manifest::{Identity, Manifest};
use wavemill_store::{Access, Decision, Lock, PlanRecord, Store, StoreError};

use crate::error::ExtractError;
use crate::incremental::changes::{DataChanges, State};
use crate::incremental::draft::{Draft, DraftInputs};
use crate::incremental::known::KnownInputs;
use crate::incremental::shrink;

/// The decision about a draft.
pub(super) enum Start {
    /// Nothing to do: the latest version was made from exactly the inputs of this run.
    NothingToDo(u64, Box<Manifest>),
    /// A new version is to be created, and its folders exist.
    Version(NewVersion),
}

/// The version that a run creates.
pub(super) struct NewVersion {
    /// Hashes that identify the plan, including the parent's hash.
    pub identity: Identity,
    pub plan_id: String,
    /// Exclusive lock of the store, held until the version is committed.
    pub lock: Lock,
}

/// Takes the store's lock and creates the plan's folders, if there is something to do. `draft` was made without the
/// lock, and is made again if the store has another latest version by then. Inputs that had to be read are added to
/// `known`.
///
/// # Errors
/// [`ExtractError::Store`]; errors from checking whether inputs changed, and from drafting.
pub(super) fn begin<'j>(
    inputs: &DraftInputs<'j, '_>,
    draft: &mut Draft<'j>,
    known: &mut KnownInputs,
) -> Result<Start, ExtractError> {
    let store = inputs.store;
    // Decide without the lock first: a store that is up to date may be read-only.
    if let Decision::NothingToDo(version, manifest) = decide(inputs, draft, known)? {
        // Cleaning up can fail, for example in a read-only store. This does not matter to a run that has nothing to do.
        let _ = store.clear_manifest_temporaries();
        store.settle_manifests()?;
        return Ok(Start::NothingToDo(version, manifest));
    }

    fail_point!("run-before-lock");
    let lock = take_lock(
        store,
        Access::Exclusive,
        inputs.settings.lock_wait,
        inputs.progress,
    )?;
    // Another run may have committed before this run got the lock. Everything that depends on the parent is then
    // decided again.
    draft.renew(inputs, store.latest()?, known)?;
    let identity = match decide(inputs, draft, known)? {
        Decision::NothingToDo(version, manifest) => {
            store.settle_manifests()?;
            return Ok(Start::NothingToDo(version, manifest));
        }
        Decision::Go { identity } => identity,
    };

    if let Some(vanished) = shrink::vanished(inputs, draft, known)? {
        vanished.require_at_most(inputs.settings.max_shrink)?;
    }

    // All refusals come before the plan's first file. The plan's record comes before its first shard, so that a run
    // with another engine can identify the unfinished plan.
    let plan_id = identity.plan_id()?;
    let plan_record = PlanRecord {
        identity,
        engine: draft.plan.engine.clone(),
    };
    store.refuse_other_engine(&plan_record, inputs.settings.restart)?;
    store.require_no_links(Some(&plan_id))?;
    store.begin(&plan_id, &plan_record)?;
    store.clear_temporaries(&plan_id)?;

    Ok(Start::Version(NewVersion {
        identity: plan_record.identity,
        plan_id,
        lock,
    }))
}

/// Takes the store's lock, and waits for it for up to `wait`. An object store is refused before anything is written
/// there if its server could lose a commit.
///
/// # Errors
/// An error of the kind `Interrupted` if the run was stopped while it waited; the errors of
/// [`Store::lock`](wavemill_store::Store::lock) and
/// [`Store::require_conditional_writes`](wavemill_store::Store::require_conditional_writes).
pub(super) fn take_lock(
    store: &Store,
    access: Access,
    wait: Duration,
    progress: &Progress,
) -> Result<Lock, ExtractError> {
    progress.enter(Phase::Waiting, 0);
    let locked = store.lock(access, wait, || progress.is_stopped());
    match locked {
        Err(StoreError::Locked { .. }) if progress.is_stopped() => {
            Err(ExtractError::stopped_while(Phase::Waiting))
        }
        locked => {
            let lock = locked?;
            store.require_conditional_writes()?;
            Ok(lock)
        }
    }
}

/// Compares a draft with the latest version, as [`Store::decide`](wavemill_store::Store::decide) does. Inputs of that
/// version whose stamps differ are read again, and their contents are added to `known`.
///
/// # Errors
/// [`ExtractError::Store`] if the run is refused; errors from reading inputs.
pub(super) fn decide(
    inputs: &DraftInputs<'_, '_>,
    draft: &Draft<'_>,
    known: &mut KnownInputs,
) -> Result<Decision, ExtractError> {
    inputs.store.decide(
        draft.parent.as_ref(),
        &draft.plan.identity,
        draft.plan.version_inputs(inputs.settings),
        inputs.settings.new_version,
        |manifest| what_differs(inputs, draft, manifest),
        |manifest| stale_inputs(inputs, manifest, known),
    )
}

/// Describes how the draft's tracks differ from the tracks of a version, one sentence per difference. Only the
/// version's tables are read: files with unknown contents are compared by size. If the comparison fails, the result is
/// empty, and the refusal is reported without details.
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
        (Some(before), Some(now)) => DataChanges::between(&before, &now).sentences(),
        _ => Vec::new(),
    }
}

/// Returns the clips of a version whose files changed. Files whose stamp differs are read again to compare their
/// contents, which finds changes that keep the size of a file.
///
/// # Errors
/// [`ExtractError`] if receipts cannot be listed or a clip cannot be read, or if the run was stopped.
fn stale_inputs(
    inputs: &DraftInputs<'_, '_>,
    manifest: &Manifest,
    known: &mut KnownInputs,
) -> Result<Vec<String>, ExtractError> {
    let recorded = inputs.store.seen(&manifest.plan_id)?;
    let source = &*inputs.input.source;
    let doubtful = known.recall(recorded.clone(), source.index());
    let doubtful = doubtful.iter().map(String::as_str);
    known.read(doubtful, source, inputs.settings, inputs.progress)?;

    // Every recorded clip is known now. A file that is gone has the content of an unreadable one, so it counts as changed.
    let mut stale = Vec::new();
    for (clip_key, before) in recorded {
        let now = known.get(&clip_key);
        if now.is_some_and(|now| now.content != before.content) {
            stale.push(clip_key);
        }
    }
    Ok(stale)
}
