//! Compares a run with the store and decides whether there is nothing to do, or a new version has to be made, or an
//! unfinished plan is in the way. `pipeline/extract/src/incremental/reuse.rs` decides which files of an unfinished run
//! count as finished.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use wavemill_reader::{RemoteError, VERSION_MAX, hash_file};
use wavemill_schemas::durable::{folder_of, make_folder};
use wavemill_schemas::exit;
use wavemill_schemas::manifest::{Engine, FileEntry, Identity, Manifest, Receipt, TargetEntry};
use wavemill_schemas::recipe::{AUDIO_STEP, Recipe};

use super::diff::describe_recipes;
use super::durable;
use super::receipts::PlanRecord;
use super::{Parent, Store, StoreError};
use crate::plan::Shard;
use crate::plan::engine;

/// Number of threads that verify a version. The disk limits the speed.
const VERIFY_THREADS: usize = 2;

/// Result of comparing a run with the latest version: whether there is work to do.
#[derive(Debug)]
pub enum Decision {
    /// The latest version was made from the same inputs, recipe and engine.
    NothingToDo(u64, Box<Manifest>),
    /// There is work to do: a new version has to be made.
    Go {
        /// Hashes that identify the run's plan, with the parent's hash filled in.
        identity: Identity,
    },
}

/// The inputs of a version in readable form. Messages use them to describe the difference from an earlier version.
#[derive(Clone, Copy, Debug)]
pub struct VersionInputs<'a> {
    /// The recipe, including the changes made by `--set`.
    pub recipe: &'a Recipe,
    /// The engine that computes the features.
    pub engine: &'a Engine,
    /// Number of rows that were dropped because their clip has no file.
    pub clips_absent: u64,
    /// True if all clips are assigned to splits again (`--resplit`).
    pub resplit: bool,
    /// The targets with their classes.
    pub targets: &'a [TargetEntry],
}

impl Store {
    /// Compares this run with the latest version, `parent`, and fills in `identity.parent`. `what_differs` returns one
    /// sentence for each difference between the run's tracks and those of that version. `stale` returns the inputs of
    /// that version whose content changed although their sizes did not.
    ///
    /// # Errors
    /// [`StoreError::other_plan`] if there are differences and `new_version` is false.
    pub fn decide<E: From<StoreError>>(
        &self,
        parent: Option<&Parent>,
        identity: &Identity,
        inputs: VersionInputs<'_>,
        new_version: bool,
        what_differs: impl FnOnce(&Manifest) -> Vec<String>,
        stale: impl FnOnce(&Manifest) -> Result<Vec<String>, E>,
    ) -> Result<Decision, E> {
        let mut identity = identity.clone();
        let Some(Parent {
            version: latest,
            manifest,
            hash,
        }) = parent
        else {
            return Ok(Decision::Go { identity });
        };
        let latest = *latest;
        if latest >= VERSION_MAX {
            let problem =
                "no version can follow this one: remove the manifest, which no run has written";
            return Err(StoreError::damaged(self.manifest_path(latest), problem).into());
        }

        // With the parent of the latest version filled in, the identity hashes are equal unless this run does something
        // else.
        identity.parent.clone_from(&manifest.identity.parent);
        // Only the refusal needs the differences between tracks, and finding them requires reading tables.
        let tracks_differ = || match new_version {
            true => Vec::new(),
            false => what_differs(manifest),
        };
        let mut changed = changes(manifest, &identity, &inputs, tracks_differ);
        if changed.is_empty() {
            let clips = stale(manifest)?;
            // If the user asks for a new version of the same inputs, there is only work if the old version is damaged.
            let is_sound = if new_version {
                let verified = self.verify(latest, manifest, VERIFY_THREADS)?;
                verified.damage.is_empty()
            } else {
                true
            };
            if clips.is_empty() && is_sound {
                let problem = "lost or damaged: `wavemill verify` names every such file; --new-version computes them \
                               again";
                self.require_files(manifest, problem)?;
                return Ok(Decision::NothingToDo(latest, Box::new(manifest.clone())));
            }
            changed.push(format!("audio of {} changed", name_few(&clips)));
        }

        if !new_version {
            let problem = format!(
                "add --new-version to also commit version {}, or use another --store: version {latest} was made \
                 differently: {}",
                latest + 1,
                changed.join("; ")
            );
            return Err(StoreError::other_plan(self.place(), problem).into());
        }

        // The parent is part of the plan's id: the same work after another version is another plan in its own folder.
        identity.parent = Some(hash.clone());
        Ok(Decision::Go { identity })
    }

    /// Checks the length of every file, and reports `problem` of the first one that is wrong. This is less than
    /// `verify` does but enough not to call a damaged store complete.
    pub(super) fn require_files(
        &self,
        manifest: &Manifest,
        problem: &str,
    ) -> Result<(), StoreError> {
        self.list_sizes(&manifest.plan_id)?;
        for entry in &manifest.files {
            if !self.has_entry(entry)? {
                let path = self.place().join(&entry.path);
                return Err(StoreError::damaged(path, problem));
            }
        }
        Ok(())
    }

    /// Refuses to start if an unfinished plan differs from `plan` only in its engine. Drops the unfinished plan if
    /// `restart` is set.
    ///
    /// # Errors
    /// [`StoreError::other_plan`] if there is such an unfinished plan and `restart` is false.
    pub fn refuse_other_engine(&self, plan: &PlanRecord, restart: bool) -> Result<(), StoreError> {
        let mut committed = Vec::new();
        for version in self.versions()? {
            committed.push(self.manifest(Some(version))?.1.plan_id);
        }

        for (plan_id, other) in self.begun()? {
            // A plan without receipts has no finished work that could be lost.
            let has_receipts = !self.receipts(&plan_id)?.is_empty();
            let unfinished = !committed.contains(&plan_id) && has_receipts;
            let Some(other) = other.filter(|_| unfinished) else {
                continue;
            };

            // The other plan's identity with the engine of this run. It equals this run's if nothing else differs.
            let as_ours = Identity {
                engine: plan.identity.engine.clone(),
                ..other.identity.clone()
            };
            if as_ours != plan.identity || other.engine == plan.engine {
                continue;
            }

            if restart {
                self.drop_plan(&plan_id, false)?;
                continue;
            }
            let remedy = match engine::flags_back(&other.engine, &plan.engine) {
                flags if flags.is_empty() => "discard it with --restart".to_owned(),
                flags => format!("continue with `{flags}`, or discard it with --restart"),
            };
            let problem = format!(
                "an unfinished run used another engine ({}; now {}): {remedy}",
                describe(&other.engine),
                describe(&plan.engine)
            );
            return Err(StoreError::other_plan(self.place(), problem));
        }
        Ok(())
    }

    /// Refuses to work on a plan with another engine, which would write other bytes.
    ///
    /// # Errors
    /// [`StoreError::other_plan`] if the engine `plan` of the plan differs from the engine `now` of this process.
    pub fn require_engine(&self, plan: &Engine, now: &Engine) -> Result<(), StoreError> {
        if plan == now {
            return Ok(());
        }
        let remedy = match engine::flags_back(plan, now) {
            flags if flags.is_empty() => "use the wavemill and the machine of the plan".to_owned(),
            flags => format!("give `{flags}`"),
        };
        let problem = format!(
            "the plan is for another engine ({}; here {}): {remedy}, or plan again here",
            describe(plan),
            describe(now)
        );
        Err(StoreError::other_plan(self.place(), problem))
    }

    /// Refuses to work on a plan for models with other files. Both arguments are hashes of [`Identity::models`].
    ///
    /// # Errors
    /// [`StoreError::other_plan`] if the hash `plan` of the plan differs from the hash `now` of this process.
    pub fn require_models(&self, plan: Option<&str>, now: Option<&str>) -> Result<(), StoreError> {
        if plan == now {
            return Ok(());
        }
        let problem = "the file of a model (features.*.model) differs from that of the plan: use the same file, or plan \
                       again here";
        Err(StoreError::other_plan(self.place(), problem.to_owned()))
    }

    /// Reports whether the file of a receipt exists with the right length and blake3.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a link in the file's path leads out of the store.
    pub fn holds(&self, receipt: &Receipt) -> Result<bool, StoreError> {
        // An object store compares the contents itself.
        if let Some(is_there) = self.has_object(&receipt.file)? {
            return Ok(is_there);
        }
        Ok(self.sound_file(&receipt.file)?.is_some())
    }

    /// Reports whether a file exists with the right length, without reading it.
    pub(crate) fn has_entry(&self, entry: &FileEntry) -> Result<bool, StoreError> {
        if let Some(is_there) = self.has_object(entry)? {
            return Ok(is_there);
        }
        let path = self.locate(&entry.path)?;
        has_length(&path, entry.bytes)
    }

    /// Returns the path of a file if it has the right length and blake3, and `None` if it does not or may not be read.
    /// A file that was already verified is not read again. A damaged local copy of an object is replaced.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a link in the file's path leads out of the store, [`StoreError::Io`] if the machine
    /// fails to read the file.
    pub fn sound_file(&self, entry: &FileEntry) -> Result<Option<PathBuf>, StoreError> {
        let path = match self.file(entry) {
            Err(StoreError::Remote(RemoteError::Damaged { .. })) => return Ok(None),
            found => found?,
        };
        if !has_length(&path, entry.bytes)? {
            return Ok(None);
        }

        let known = || self.sound.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (entry.path.clone(), entry.blake3.clone());
        if known().contains(&name) {
            return Ok(Some(path));
        }
        let is_sound = has_content(&path, entry)?
            || match self.copy_again(entry) {
                Err(StoreError::Remote(RemoteError::Damaged { .. })) => false,
                is_copied => is_copied? && has_content(&path, entry)?,
            };
        if !is_sound {
            return Ok(None);
        }
        known().insert(name);
        Ok(Some(path))
    }

    /// Links the file of another plan's receipt into this plan as a file of `shard`, or copies it across file systems.
    /// A shard with the same clips may have another number in the other plan.
    pub fn link(
        &self,
        receipt: &Receipt,
        plan_id: &str,
        shard: &Shard,
    ) -> Result<Receipt, StoreError> {
        let mut receipt = receipt.clone();
        let from = self.locate(&receipt.file.path)?;
        let path = shard.file(plan_id, receipt.file.name());
        if !self.copy_object(&receipt.file.path, &path)? {
            let to = self.root().join(&path);
            link_file(&from, &to).map_err(StoreError::io_at(&to, "link"))?;
        }
        receipt.file.path = path;
        Ok(receipt)
    }
}

fn has_content(path: &Path, entry: &FileEntry) -> Result<bool, StoreError> {
    match hash_file(path) {
        Err(error) if exit::is_machine_fault(&error) => Err(StoreError::io_at(path, "read")(error)),
        hash => Ok(hash.is_ok_and(|hash| hash == entry.blake3)),
    }
}

/// Reports whether an error means that the disk does not return a file (`EIO`). The file then counts as lost: what it
/// contains can be computed again. After other faults of the machine, such as `EMFILE`, the file may be intact.
pub fn is_lost(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { source, .. } if is_disk_fault(source))
}

/// Reports whether an error is `EIO`.
pub(super) fn is_disk_fault(error: &io::Error) -> bool {
    /// `EIO` on Linux.
    const EIO: i32 = 5;
    error.raw_os_error() == Some(EIO)
}

fn has_length(path: &Path, bytes: u64) -> Result<bool, StoreError> {
    match fs::metadata(path) {
        Ok(file) => Ok(file.len() == bytes),
        Err(error) if exit::is_machine_fault(&error) => {
            Err(StoreError::io_at(path, "access")(error))
        }
        Err(_) => Ok(false),
    }
}

/// The link is created under a temporary name and renamed, to replace a file that a killed run may have left at `to`.
fn link_file(from: &Path, to: &Path) -> io::Result<()> {
    make_folder(folder_of(to))?;
    let temporary = durable::temporary_beside(to);
    if hard_link(from, &temporary).is_err() {
        // The bytes of a linked file are already on the disk; those of a copy are not.
        fs::copy(from, &*temporary)?;
        File::open(&*temporary)?.sync_all()?;
    }

    temporary.persist(to)
}

/// Creates a hard link to a file. If `from` is a symbolic link, links to its target: a second name of the symbolic link
/// itself would dangle after `gc` removes the version that owns the target.
pub(super) fn hard_link(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from.canonicalize()?, to)
}

/// Returns one sentence for each difference between a version and the plan of a run. `what_differs` returns the
/// differences between individual tracks.
fn changes(
    manifest: &Manifest,
    identity: &Identity,
    inputs: &VersionInputs<'_>,
    what_differs: impl FnOnce() -> Vec<String>,
) -> Vec<String> {
    let was = &manifest.identity;
    let mut changed = option_changes(manifest, identity, inputs);

    let has_other_rows = was.rows != identity.rows;
    if has_other_rows && was.recipe == identity.recipe {
        changed.push(row_change(manifest, inputs));
    }
    // The hash of planned inputs depends on everything above. Only if nothing else changed did the audio files change.
    if changed.is_empty() && was.inputs != identity.inputs {
        changed.push("audio files were added, removed or changed size".to_owned());
    }
    // With another recipe, other cleaning rules may explain the difference.
    let has_other_data = has_other_rows || was.inputs != identity.inputs;
    if has_other_data && was.recipe == identity.recipe && was.limit == identity.limit {
        changed.extend(what_differs());
    }

    if !manifest.engine.agrees_with(inputs.engine) {
        let was = describe(&manifest.engine);
        let now = describe(inputs.engine);
        changed.push(format!("engine {was} -> {now}"));
    }
    changed
}

/// Returns one sentence for each part of the recipe and each option that differs from those of a version.
fn option_changes(
    manifest: &Manifest,
    identity: &Identity,
    inputs: &VersionInputs<'_>,
) -> Vec<String> {
    let was = &manifest.identity;
    let mut changed = Vec::new();
    if was.recipe != identity.recipe {
        changed.push(describe_recipes(&manifest.recipe, inputs.recipe));
    }
    if was.limit != identity.limit {
        let from = format_limit(was.limit);
        let to = format_limit(identity.limit);
        changed.push(format!("--limit {from} -> {to}"));
    }
    // Without `--sides` the splits are those of the previous version.
    if identity.sides.is_some() && was.sides != identity.sides {
        changed.push("--sides gives other splits than those of the version".to_owned());
    }
    if was.models.is_some() && identity.models.is_some() && was.models != identity.models {
        changed.push("the file of a model".to_owned());
    }
    changed
}

/// Describes why the rows of a run differ from those of a version with the same recipe.
fn row_change(manifest: &Manifest, inputs: &VersionInputs<'_>) -> String {
    let mut dropped = manifest.counts.rows_dropped.iter();
    let without_audio = dropped.find(|dropped| dropped.step == AUDIO_STEP);
    let was_absent = without_audio.map_or(0, |step| step.rows);
    let is_absent = inputs.clips_absent;
    if was_absent != is_absent {
        return format!("rows without an audio file: {was_absent} -> {is_absent}");
    }

    // Splits are columns of the rows, and the hashes do not show which columns differ.
    let reason = if has_other_ids(&manifest.targets, inputs.targets) {
        ", or --renumber gave other class ids"
    } else if inputs.resplit {
        ", or --resplit drew other splits"
    } else {
        ""
    };
    format!("metadata changed{reason}")
}

/// Reports whether a class has another id than before, or no longer has an id.
fn has_other_ids(before: &[TargetEntry], now: &[TargetEntry]) -> bool {
    before.iter().zip(now).any(|(before, now)| {
        let mut kept = before.classes.iter().zip(&now.classes);
        kept.any(|(before, now)| before != now) || now.classes.len() < before.classes.len()
    })
}

fn format_limit(limit: Option<u64>) -> String {
    limit.map_or_else(|| "none".to_owned(), |n| n.to_string())
}

fn describe(engine: &Engine) -> String {
    let Engine {
        numerics,
        backend,
        level,
        decoder,
        target,
        libc,
        writer,
        models,
    } = engine;
    let models = models
        .as_ref()
        .map_or(String::new(), |models| format!(", {models}"));
    format!("{backend} {level}, numerics {numerics}, {decoder}, {target}, {libc}, {writer}{models}")
}

fn name_few(clips: &[String]) -> String {
    match clips {
        [one] => one.clone(),
        [first, ..] => format!("{first} and {} more", clips.len() - 1),
        [] => String::new(),
    }
}
