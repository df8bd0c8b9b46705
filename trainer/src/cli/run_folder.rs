//! Where a run lies and what it begins with: a new folder, or one in which it goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use wavemill_schemas::config::Config;
use wavemill_schemas::version_name::VersionName;
use wavemill_scores::records::{Log, RunDir, run_stem};

use super::exit::UsageError;
use super::input;
use crate::checkpoint::{self, CheckpointError, Checkpoints};
use crate::dataset::Dataset;
use crate::strategy::Collective;

/// Keys that are named where two configurations differ.
const KEYS_MAX: usize = 3;

/// What a run begins with, or was begun with.
#[derive(Debug)]
pub(crate) struct RunStart {
    /// As asked for, or as in the checkpoint.
    pub config: Config,
    /// Store and version that it was begun on. A number, whatever named the version: a tag may be moved.
    pub input: Option<(PathBuf, u64)>,
    /// Of libtorch's operations.
    pub threads: Option<u32>,
    /// Its folder, where that is known before all ranks have met.
    pub folder: Option<PathBuf>,
    /// The step from which it goes on; `None` where it begins.
    pub from: Option<u64>,
}

impl RunStart {
    /// A new run, in a folder that is not made yet.
    pub(crate) const fn new(config: Config, folder: Option<PathBuf>) -> Self {
        Self {
            config,
            input: None,
            threads: None,
            folder,
            from: None,
        }
    }

    /// The store and version to read: as asked for, else as recorded. Of the store that it was begun on, the version is
    /// the recorded one, whatever was committed or tagged since.
    ///
    /// # Errors
    /// No store is known.
    pub(crate) fn store(
        &self,
        asked: Option<&Path>,
        version: Option<&VersionName>,
    ) -> Result<(PathBuf, Option<VersionName>)> {
        let recorded = self.input.as_ref();
        let Some(asked) = asked else {
            let (store, recorded) =
                recorded.ok_or_else(|| UsageError("--store DIR is needed".to_owned()))?;
            return Ok((store.clone(), version_of(version, Some(*recorded))));
        };

        // Another store has versions of its own.
        let recorded = recorded
            .filter(|(store, _)| asked.canonicalize().is_ok_and(|asked| asked == *store))
            .map(|(_, version)| *version);
        Ok((asked.to_owned(), version_of(version, recorded)))
    }
}

/// The version that a run reads, of what is asked for and what it has recorded. Only a number is asked for in spite of a
/// record, and is refused where it is another version's. A tag may have been moved since the run began, and the same
/// command, given again, is to go on.
fn version_of(asked: Option<&VersionName>, recorded: Option<u64>) -> Option<VersionName> {
    match (asked, recorded) {
        (Some(VersionName::Tag(_)) | None, Some(recorded)) => Some(VersionName::Number(recorded)),
        (asked, _) => asked.cloned(),
    }
}

/// What may change of a run that goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changes {
    /// Epochs in all, where they are given.
    pub epochs: Option<u64>,
    /// Whether damage is passed over from now on.
    pub skip_damaged: bool,
}

/// The run in `folder`, as its last checkpoint has it, with `changes`.
///
/// # Errors
/// No run, or no checkpoint; fewer epochs than were begun.
pub(crate) fn resumed(folder: &Path, changes: Changes, world_size: usize) -> Result<RunStart> {
    let run = RunDir::open(folder)?;
    let checkpoints = Checkpoints::open(run.checkpoints(), 1)?;
    let state = checkpoint::read_state(&checkpoints.last()?)?;

    // An epoch in progress has begun, too.
    let begun = state.epoch + u64::from(state.batch > 0);
    if let Some(epochs) = changes.epochs.filter(|epochs| *epochs < begun) {
        return Err(UsageError(format!(
            "--epochs {epochs}: the run is in or behind its epoch {begun} already"
        ))
        .into());
    }

    let mut config = state.config;
    config.train.epochs = changes.epochs.unwrap_or(config.train.epochs);
    // Only ever turned on: without it, a run that has passed over damage would end at it.
    config.data.skip_damaged |= changes.skip_damaged;
    // Other ranks have other cores, and give other bits in any case.
    let threads = state.threads.filter(|_| state.world_size == world_size);
    Ok(RunStart {
        config,
        input: input::of(&run),
        threads,
        folder: Some(folder.to_owned()),
        from: Some(state.step),
    })
}

/// The run in `folder` where it has a checkpoint, which must be of `config`; else a run of `config` that begins there.
///
/// # Errors
/// As [`resumed`]; a configuration that differs in more than a run may change; a folder of something else.
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
    // Damage that was once passed over stays so: that difference is no other configuration.
    asked.data.skip_damaged = begun.config.data.skip_damaged;
    match differences(&begun.config, &asked)? {
        None => Ok(begun),
        Some(keys) => Err(UsageError(format!(
            "{}: the run was begun with {keys}: a run goes on with its own configuration, but for more epochs; name \
             another folder to begin another",
            folder.display()
        ))
        .into()),
    }
}

fn has_checkpoint(folder: &Path) -> Result<bool> {
    let checkpoints = folder.join("checkpoints");
    if !checkpoints.try_exists()? {
        return Ok(false);
    }
    match Checkpoints::open(checkpoints, 1)?.last() {
        Ok(_) => Ok(true),
        Err(CheckpointError::None { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The keys in which two configurations differ, with both values; `None` where they are the same.
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

/// Every key of a configuration that has a value, by its path.
fn values(config: &Config) -> Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    put("", &toml::Table::try_from(config)?, &mut values);
    Ok(values)
}

fn put(section: &str, table: &toml::Table, into: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(table) => put(&format!("{section}{key}."), table, into),
            value => {
                into.insert(format!("{section}{key}"), value.to_string());
            }
        }
    }
}

/// The folder that a run of `config` has in `runs` where none is named.
pub(crate) fn folder_of(runs: &Path, config: &Config) -> PathBuf {
    runs.join(format!(
        "{}-1",
        run_stem(&config.model.name, &config.hash())
    ))
}

/// A new run's folder: rank 0 makes it and tells the others.
///
/// # Errors
/// The folder cannot be made.
pub(crate) fn new_folder(
    runs: &Path,
    config: &Config,
    group: &dyn Collective,
    store: &Path,
    data: &Dataset,
) -> Result<PathBuf> {
    let mut name = Vec::new();
    // Only one rank looks for the next free number, or each would make a folder.
    if group.rank() == 0 {
        let run = RunDir::create_next(runs, &run_stem(&config.model.name, &config.hash()))?;
        describe(&run, config, store, data)?;
        name = run.path().to_string_lossy().into_owned().into_bytes();
    }
    let names = group.gather(&name)?;
    Ok(PathBuf::from(String::from_utf8(names[0].clone())?))
}

/// Rank 0 makes `folder`, or takes one in which no run came to a checkpoint.
///
/// # Errors
/// Another process writes there; the folder cannot be made.
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
    // Before anything is changed: whoever writes this run has its log locked.
    drop(Log::open(&run.log())?);
    describe(&run, config, store, data)
}

fn describe(run: &RunDir, config: &Config, store: &Path, data: &Dataset) -> Result<()> {
    run.write_config(&toml::to_string(config)?)?;
    input::write(run, store, data)
}

/// Whether all ranks go on from one step, or all begin. Nobody has written by now.
///
/// # Errors
/// [`UsageError`] on every rank, naming the first that differs from rank 0.
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
    Err(UsageError(format!(
        "rank {rank} sees {other}, and rank 0 {first}: all machines need one folder of runs, on a disk that they share; \
         start again when they see the same"
    ))
    .into())
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
        let threads = |ranks| {
            resumed(run, Changes::default(), ranks)
                .expect("a checkpoint")
                .threads
        };
        assert_eq!((threads(1), threads(2)), (Some(1), None));
    }

    #[test]
    fn a_run_with_a_checkpoint_goes_on_with_its_own_configuration_alone() {
        let alone = testing::alone();
        let made = testing::made(&Fixture::default(), &config(&["train.epochs=5"]), 0, &alone);
        let run = made.folder.path();
        std::fs::write(run.join("config.toml"), "").expect("room");
        let asked = |sets: &[&str]| {
            resumed_or_started(run, config(sets), 1).map_err(|error| error.to_string())
        };

        let begun = asked(&["train.epochs=5"]).expect("the same");
        assert_eq!((begun.from, begun.config.train.epochs), (Some(0), 5));
        let longer =
            asked(&["train.epochs=9", "data.skip_damaged=true"]).expect("what --resume takes too");
        assert_eq!(
            (longer.config.train.epochs, longer.config.data.skip_damaged),
            (9, true)
        );
        let said =
            asked(&["train.epochs=5", "optimizer.lr=0.5", "data.frames=7"]).expect_err("another");
        assert!(
            said.contains(
                "begun with data.frames = nothing, not 7; optimizer.lr = 0.001, not 0.5:"
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
        assert!(said.contains("has a result and no checkpoint"), "{said}");
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
        let version = |asked: Option<&Path>, version: Option<&VersionName>| {
            begun.store(asked, version).expect("a store").1
        };
        let recorded = Some(VersionName::Number(3));
        assert_eq!(version(None, None), recorded);
        assert_eq!(version(Some(&store), None), recorded);

        let other = VersionName::Number(4);
        assert_eq!(version(Some(&store), Some(&other)), Some(other));
        assert_eq!(version(Some(Path::new("/")), None), None);

        // By now the tag may be another version's.
        let tag = "paper".parse().expect("a tag");
        assert_eq!(version(Some(&store), Some(&tag)), recorded);
        assert_eq!(version(None, Some(&tag)), recorded);
        assert_eq!(version(Some(Path::new("/")), Some(&tag)), Some(tag));
        assert!(RunStart::new(config(&[]), None).store(None, None).is_err());
    }
}
