//! Determines the folder and the starting point of a run: a new folder, or the folder of a run to resume.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use wavemill_schemas::config::{Config, dotted};
use wavemill_schemas::run::{RunDir, run_stem};
use wavemill_schemas::version_name::VersionName;
use wavemill_scores::records::Log;
use wavemill_terminal::exit::UsageError;

use super::input;
use crate::checkpoint::{self, Checkpoints};
use crate::dataset::Dataset;
use crate::strategy::Collective;

/// Maximum number of differing configuration keys listed in an error message.
const KEYS_MAX: usize = 3;

/// Everything needed to start or resume a run.
#[derive(Debug)]
pub(crate) struct RunStart {
    /// Configuration of the run, from the command line or from the checkpoint.
    pub config: Config,
    /// Path and version of the store that the run was started on. A number instead of a tag, since tags can move.
    pub input: Option<(PathBuf, u64)>,
    /// Number of libtorch threads recorded in the checkpoint; `None` if there is none to reuse.
    pub threads: Option<u32>,
    /// Folder of the run; `None` if rank 0 chooses it after all ranks have joined.
    pub folder: Option<PathBuf>,
    /// Step of the checkpoint to resume from; `None` for a new run.
    pub from: Option<u64>,
}

impl RunStart {
    /// Creates the start of a new run. `folder` is `None` if a new folder is to be created.
    pub(crate) const fn new(config: Config, folder: Option<PathBuf>) -> Self {
        Self {
            config,
            input: None,
            threads: None,
            folder,
            from: None,
        }
    }

    /// Returns the requested store and version, or else the recorded ones. If the store is the one that the run was
    /// started on, the recorded version is used, even if other versions were committed or tagged since.
    ///
    /// # Errors
    /// [`UsageError`] if no store is requested or recorded.
    pub(crate) fn store(
        &self,
        asked: Option<&Path>,
        version: Option<&VersionName>,
    ) -> Result<(PathBuf, Option<VersionName>)> {
        let recorded = self.input.as_ref();
        let Some(asked) = asked else {
            let (store, recorded) = recorded.ok_or_else(|| {
                UsageError(
                    "--store DIR is required: the folder that `wavemill extract` wrote".to_owned(),
                )
            })?;
            return Ok((store.clone(), version_of(version, Some(*recorded))));
        };

        Ok((asked.to_owned(), version_in(asked, recorded, version)))
    }
}

/// Chooses the version of the store `asked`, given the store and version that a run has recorded.
pub(crate) fn version_in(
    asked: &Path,
    recorded: Option<&(PathBuf, u64)>,
    version: Option<&VersionName>,
) -> Option<VersionName> {
    // The recorded version number is meaningless in a store other than the recorded one.
    let recorded = recorded
        .filter(|(store, _)| input::absolute(asked) == *store)
        .map(|(_, version)| *version);
    version_of(version, recorded)
}

/// Chooses the version of the store. Only a version number overrides the recorded version; another version is then
/// rejected later. `latest` and a tag do not, since they may have moved since the run started, and repeating the same
/// command must resume the run.
fn version_of(asked: Option<&VersionName>, recorded: Option<u64>) -> Option<VersionName> {
    match (asked, recorded) {
        (Some(VersionName::Tag(_) | VersionName::Latest) | None, Some(recorded)) => {
            Some(VersionName::Number(recorded))
        }
        (asked, _) => asked.cloned(),
    }
}

/// Changes that `--epochs` and `--skip-damaged` make to a resumed run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changes {
    /// Total number of epochs; `None` keeps the run's number.
    pub epochs: Option<u64>,
    /// True to skip damaged files from now on, even if the run did not skip them before.
    pub skip_damaged: bool,
}

/// Reads the configuration and progress of the run in `folder` from its last checkpoint, and applies `changes`.
///
/// # Errors
/// The folder has no run or no checkpoint, or `changes` has fewer epochs than the run has begun.
pub(crate) fn resumed(folder: &Path, changes: Changes, world_size: usize) -> Result<RunStart> {
    let run = RunDir::open(folder)?;
    let checkpoints = Checkpoints::open(run.checkpoints(), 1)?;
    let state = checkpoint::read_state(&checkpoints.last()?)?;

    // An epoch in progress counts as begun.
    let begun = state.epoch + u64::from(state.batch > 0);
    if let Some(epochs) = changes.epochs.filter(|epochs| *epochs < begun) {
        bail!(UsageError(format!(
            "--epochs {epochs}: the run has already reached epoch {begun}"
        )));
    }

    let mut config = state.config;
    config.train.epochs = changes.epochs.unwrap_or(config.train.epochs);
    // `skip_damaged` is never switched off: a run that has skipped damaged files would fail at them.
    config.data.skip_damaged |= changes.skip_damaged;
    // Results with another number of ranks differ in their last bits anyway, so the recorded threads are not needed.
    let threads = state.threads.filter(|_| state.world_size == world_size);
    Ok(RunStart {
        config,
        input: input::recorded_store(&run),
        threads,
        folder: Some(folder.to_owned()),
        from: Some(state.step),
    })
}

/// Resumes the run in `folder` if it has a checkpoint with configuration `config`; otherwise starts a run in `folder`.
///
/// # Errors
/// The errors of [`resumed`]; a fixed key of the configuration differs; `folder` contains something other than a run.
pub(crate) fn resumed_or_started(
    folder: &Path,
    config: Config,
    world_size: usize,
) -> Result<RunStart> {
    if !has_checkpoint(folder)? {
        RunDir::may_begin(folder)?;
        return Ok(RunStart::new(config, Some(folder.to_owned())));
    }

    let changes = Changes {
        epochs: Some(config.train.epochs),
        skip_damaged: config.data.skip_damaged,
    };
    let begun = resumed(folder, changes, world_size)?;

    let mut asked = config;
    // Skipping damaged files is never switched off, so a difference in this key is no error.
    asked.data.skip_damaged = begun.config.data.skip_damaged;
    match differences(&begun.config, &asked)? {
        None => Ok(begun),
        Some(keys) => bail!(UsageError(format!(
            "{}: the run was started with {keys}: a run can only be resumed with its own configuration, except for \
             more epochs; choose another folder to start a new run",
            folder.display()
        ))),
    }
}

fn has_checkpoint(folder: &Path) -> Result<bool> {
    let checkpoints = folder.join("checkpoints");
    let exists = checkpoints
        .try_exists()
        .with_context(|| format!("cannot read {}", checkpoints.display()))?;
    if !exists {
        return Ok(false);
    }
    Ok(!Checkpoints::open(checkpoints, 1)?.is_empty()?)
}

/// Lists the keys whose values differ between two configurations, with both values; `None` if all are equal.
fn differences(begun: &Config, asked: &Config) -> Result<Option<String>> {
    let begun = values(begun)?;
    let asked = values(asked)?;
    let keys: BTreeSet<&String> = begun.keys().chain(asked.keys()).collect();
    let absent = "nothing".to_owned();

    let mut told = Vec::new();
    for key in keys {
        let was = begun.get(key).unwrap_or(&absent);
        let is = asked.get(key).unwrap_or(&absent);
        if was != is {
            told.push(format!("{key} = {was}, not {is}"));
        }
    }

    let more = told.len().saturating_sub(KEYS_MAX);
    told.truncate(KEYS_MAX);
    if more > 0 {
        told.push(format!("{more} more"));
    }
    Ok((!told.is_empty()).then(|| told.join("; ")))
}

/// Returns the values of a configuration by dotted key, such as `train.epochs`.
fn values(config: &Config) -> Result<BTreeMap<String, String>> {
    let table = toml::Table::try_from(config)?;
    let values = dotted(&table).into_iter();
    Ok(values
        .map(|(key, value)| (key, value.to_string()))
        .collect())
}

/// Returns the default path, in the folder `runs`, for a run with configuration `config`.
pub(crate) fn folder_of(runs: &Path, config: &Config) -> PathBuf {
    runs.join(format!(
        "{}-1",
        run_stem(&config.model.name, &config.hash())
    ))
}

/// Creates a new run's folder on rank 0 and sends the folder's path to the other ranks.
///
/// # Errors
/// The run's folder cannot be created.
pub(crate) fn new_folder(
    runs: &Path,
    config: &Config,
    group: &dyn Collective,
    store: &Path,
    data: &Dataset,
) -> Result<PathBuf> {
    let mut folder = PathBuf::new();
    // Only rank 0 looks for the next free number, because otherwise each rank would create a folder.
    if group.rank() == 0 {
        let run = RunDir::create_next(runs, &run_stem(&config.model.name, &config.hash()))?;
        describe(&run, config, store, data)?;
        folder = run.path().to_owned();
    }
    path_of_rank_0(&folder, group)
}

/// Returns the path that rank 0 passed. All ranks must call this.
///
/// # Errors
/// A rank is lost.
pub(crate) fn path_of_rank_0(own: &Path, group: &dyn Collective) -> Result<PathBuf> {
    let path = group.gather(own.as_os_str().as_bytes())?.swap_remove(0);
    Ok(OsString::from_vec(path).into())
}

/// Prepares `folder` for a new run on rank 0: creates it, or reuses that of a run without a checkpoint.
///
/// # Errors
/// Another process writes to the folder, or the folder cannot be created.
pub(crate) fn begin_in(
    folder: &Path,
    config: &Config,
    group: &dyn Collective,
    store: &Path,
    data: &Dataset,
) -> Result<()> {
    if group.rank() > 0 {
        return Ok(());
    }
    let run = RunDir::take(folder)?;
    // Check whether the log is locked before changing files: a process that writes this run holds the lock.
    drop(Log::open(&run.log())?);
    describe(&run, config, store, data)
}

fn describe(run: &RunDir, config: &Config, store: &Path, data: &Dataset) -> Result<()> {
    run.write_config(&toml::to_string(config)?)?;
    input::write(run, store, data)
}

/// Checks that all ranks found a checkpoint of the same step, or none. Call this before any rank writes to the folder.
///
/// # Errors
/// [`UsageError`] on every rank; the message names the first rank that differs from rank 0.
pub(crate) fn agree(from: Option<u64>, group: &dyn Collective) -> Result<()> {
    let own = from.map_or("no checkpoint".to_owned(), |step| {
        format!("a checkpoint of step {step}")
    });
    let all = group.gather(own.as_bytes())?;
    let Some(rank) = all.iter().position(|seen| *seen != all[0]) else {
        return Ok(());
    };

    let first = String::from_utf8_lossy(&all[0]);
    let other = String::from_utf8_lossy(&all[rank]);
    bail!(UsageError(format!(
        "rank {rank} sees {other}, but rank 0 {first}: all machines must use the same folder of runs on a shared disk; \
         restart when all of them see the same checkpoint"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::fixture::Fixture;
    use crate::testing::{self, config};

    #[test]
    fn a_run_goes_on_with_its_threads_on_as_many_ranks() {
        let alone = testing::alone();
        let made = testing::made(&Fixture::default(), &config(&[]), 0, &alone);
        let run = made.folder.path();
        std::fs::write(run.join("config.toml"), "").expect("room");

        for (ranks, threads) in [(1, Some(1)), (2, None)] {
            let resumed = resumed(run, Changes::default(), ranks).expect("a checkpoint");
            assert_eq!(resumed.threads, threads);
        }
    }

    #[test]
    fn checkpoints_that_cannot_be_inspected_are_an_error_with_their_path() {
        // The system does not look for an entry of a file.
        let file = tempfile::NamedTempFile::new().expect("room");
        let error = has_checkpoint(file.path()).expect_err("a file is no folder");
        assert_eq!(
            error.to_string(),
            format!("cannot read {}/checkpoints", file.path().display())
        );
    }

    #[test]
    fn a_run_with_a_checkpoint_goes_on_with_its_own_configuration_alone() {
        fn asked(run: &Path, sets: &[&str]) -> Result<RunStart, String> {
            resumed_or_started(run, config(sets), 1).map_err(|error| error.to_string())
        }

        let alone = testing::alone();
        let made = testing::made(&Fixture::default(), &config(&["train.epochs=5"]), 0, &alone);
        let run = made.folder.path();
        std::fs::write(run.join("config.toml"), "").expect("room");
        let begun = asked(run, &["train.epochs=5"]).expect("the same");
        assert_eq!((begun.from, begun.config.train.epochs), (Some(0), 5));
        let longer = asked(run, &["train.epochs=9", "data.skip_damaged=true"])
            .expect("what --resume takes too");
        assert_eq!(
            (longer.config.train.epochs, longer.config.data.skip_damaged),
            (9, true)
        );
        let said = asked(
            run,
            &["train.epochs=5", "optimizer.lr=0.5", "data.frames=7"],
        )
        .expect_err("another");
        assert!(
            said.contains(
                "started with data.frames = nothing, not 7; optimizer.lr = 0.001, not 0.5:"
            ),
            "{said}"
        );
    }

    #[test]
    fn a_folder_without_a_checkpoint_is_begun_in_unless_it_holds_something_else() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("runs/night");
        let from =
            |folder: &Path| resumed_or_started(folder, config(&[]), 1).map(|begun| begun.from);

        assert_eq!(from(&folder).expect("not there"), None);

        let run = RunDir::take(&folder).expect("a folder");
        assert_eq!(
            from(&folder).expect("killed before its configuration"),
            None
        );

        run.write_config("").expect("room");
        std::fs::write(run.log(), "").expect("room");
        std::fs::create_dir(run.checkpoints().join(".part-00000003")).expect("room");
        std::fs::write(run.training_list(), "").expect("room");
        std::fs::write(run.path().join("training.tmp"), "").expect("room");
        assert_eq!(
            from(&folder).expect("killed before its first checkpoint"),
            None
        );

        std::fs::write(run.result(), "{}").expect("room");
        let said = from(&folder).expect_err("a result").to_string();
        assert!(said.contains("has a result but no checkpoint"), "{said}");
        std::fs::write(root.path().join("thesis.tex"), "").expect("room");
        let said = from(root.path()).expect_err("no run").to_string();
        assert!(
            said.contains("thesis.tex") || said.contains("runs"),
            "{said}"
        );
    }

    #[test]
    fn the_version_of_the_store_that_a_run_was_begun_on_is_the_recorded_one() {
        let root = tempfile::tempdir().expect("a folder");
        let store = root.path().canonicalize().expect("a folder");
        let begun = RunStart {
            input: Some((store.clone(), 3)),
            ..RunStart::new(config(&[]), None)
        };
        let recorded = VersionName::Number(3);
        let other = VersionName::Number(4);
        // The tag may have been moved to another version since the run started.
        let tag: VersionName = "paper".parse().expect("a tag");
        let elsewhere = Path::new("/");

        for (asked, version, want) in [
            (None, None, Some(&recorded)),
            (Some(&*store), None, Some(&recorded)),
            (Some(&*store), Some(&other), Some(&other)),
            (Some(elsewhere), None, None),
            (Some(&*store), Some(&tag), Some(&recorded)),
            (None, Some(&tag), Some(&recorded)),
            (Some(elsewhere), Some(&tag), Some(&tag)),
        ] {
            let (_, found) = begun.store(asked, version).expect("a store");
            assert_eq!(found.as_ref(), want, "{asked:?} {version:?}");
        }
        assert!(RunStart::new(config(&[]), None).store(None, None).is_err());
    }
}
