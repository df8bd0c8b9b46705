//! Keeps the list of tracks that a run was trained on, because the test split of another version may contain some of
//! them.
//!
//! A run that starts from another run's weights includes that run's tracks as well. Rank 0 writes the list when the run
//! begins; a resumed run keeps the list and adds missing tracks.

use std::path::Path;

use serde::Deserialize;
use wavemill_evaluation::TrainingList;
use wavemill_schemas::config;
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::run::{Leaks, RunDir};
use wavemill_scores::metrics::compare_with_run;

use crate::TrainError;
use crate::dataset::{Dataset, Split};
use crate::evaluate;
use crate::export;
use crate::safetensors;

/// Writes the list of tracks in the training split of `data` and in `inherited`. A resumed run's entries are kept.
///
/// # Errors
/// The list cannot be written to the run's folder.
pub(super) fn keep(
    run: &RunDir,
    goes_on: bool,
    data: &Dataset,
    inherited: Option<TrainingList>,
) -> Result<(), TrainError> {
    let mut list = TrainingList::from_dataset(data);
    list.add(inherited.unwrap_or_default());

    // A run that starts over in its folder may have other rows than before. Only a resumed run keeps earlier entries.
    if goes_on {
        match TrainingList::read(run, &run.training_list()) {
            Ok(Some(kept)) if list.is_within(&kept) => return Ok(()),
            // The new list may have more tracks, if files that were skipped before have been restored since.
            Ok(Some(kept)) => list.add(kept),
            // The stored list is missing or damaged. The store is unchanged, so the list can be rebuilt from the store.
            Ok(None) | Err(_) => {}
        }
    }

    let bytes = list.to_parquet().map_err(|error| {
        PlainError::failed("cannot encode the list of the tracks that the run trains on")
            .caused_by(error)
    })?;
    Ok(run.write_training_list(&bytes)?)
}

/// Overlap between a split and the tracks that a run was trained on, in another version of the store.
pub(crate) struct KnownSplit {
    /// Overlap to store together with the scores.
    pub leaks: Leaks,
    /// Warning to print before the scores of the split.
    pub warning: Option<String>,
}

/// Compares the tracks of `split` with the training tracks of the run in `run`, called `name` in warnings.
pub(crate) fn known_split(run: &RunDir, name: &str, data: &Dataset, split: Split) -> KnownSplit {
    let test = evaluate::members(data, split);
    let leaks = evaluate::leaks(data, split);

    // Without a list, scores are still computed, with a warning that training tracks may be among the scored tracks.
    let problem = match TrainingList::read(run, &run.training_list()) {
        Ok(Some(list)) => {
            let leaks = compare_with_run(leaks, Some(&list.members()), test);
            let warning = leaks.warning(name);
            return KnownSplit { leaks, warning };
        }
        Ok(None) => format!("{name} keeps no list of the tracks that it trained on"),
        Err(problem) => problem,
    };
    KnownSplit {
        leaks: compare_with_run(leaks, None, test),
        warning: Some(format!(
            "{problem}; so the {split} tracks, which are of another version, cannot be compared with those"
        )),
    }
}

/// Training tracks of another run whose weights this run starts from, and the warnings that they cause.
pub(super) struct StartRun {
    /// Warnings about overlaps of those tracks with the validation and test splits.
    pub warnings: Vec<String>,
    /// Training tracks of the other run; `None` if unknown.
    pub list: Option<TrainingList>,
}

impl StartRun {
    /// Finds the run whose folder contains the file `weights`, unless that folder is `own`.
    pub(super) fn find(weights: &Path, own: &Path, data: &Dataset) -> Self {
        let card = ExportCard::read(weights);
        let mut start = Self {
            warnings: card.iter().filter_map(ExportCard::unscaled).collect(),
            list: None,
        };
        let Some(run) = run_around(weights) else {
            let elsewhere = card.and_then(|card| card.elsewhere(data));
            start.warnings.extend(elsewhere);
            return start;
        };
        if own.canonicalize().is_ok_and(|own| own == run.path()) {
            return start;
        }

        let name = format!("run {} (model.init)", run.id());
        // Only the file name is shown: warnings are stored in the result, which must not contain paths of this machine.
        let path = run.training_list();
        let file_name = Path::new(path.file_name().unwrap_or_default());
        let list = match TrainingList::read(&run, file_name) {
            Ok(Some(list)) => list,
            Ok(None) => {
                start.warnings.push(format!(
                    "{name} keeps no list of the tracks that it trained on; so validation and test tracks cannot be \
                     compared with those"
                ));
                return start;
            }
            Err(problem) => {
                start.warnings.push(format!(
                    "{name}: {problem}; so validation and test tracks cannot be compared with those that it trained on"
                ));
                return start;
            }
        };

        // Skip the comparison if this run trains on all listed tracks as well: its own leaks then include all overlaps.
        if !list.is_within(&TrainingList::from_dataset(data)) {
            let trained = list.members();
            for split in [Split::Test, Split::Validation] {
                let test = evaluate::members(data, split);
                let leaks = compare_with_run(evaluate::leaks(data, split), Some(&trained), test);
                start.warnings.extend(leaks.warning(&name));
            }
        }
        start.list = Some(list);
        start
    }
}

/// Returns the run whose folder contains `file`, directly or in a subfolder.
fn run_around(file: &Path) -> Option<RunDir> {
    let file = file.canonicalize().ok()?;
    let mut folders = file.ancestors().skip(1);
    folders.find_map(|folder| {
        RunDir::open(folder)
            .ok()
            .filter(|run| run.checkpoints().is_dir())
    })
}

/// The description in a file of weights that `export` wrote, as far as it affects a run that starts from the weights.
#[derive(Deserialize)]
struct ExportCard {
    #[serde(skip)]
    file_name: String,
    manifest_hash: String,
    model: config::Model,
}

impl ExportCard {
    /// Returns the description in `weights`; `None` if another program wrote the file.
    fn read(weights: &Path) -> Option<Self> {
        let contents = safetensors::metadata(weights, export::METADATA_KEY)?;
        let mut card: Self = serde_json::from_str(&contents).ok()?;
        let name = weights.file_name().unwrap_or_default();
        card.file_name = name.to_string_lossy().into_owned();
        Some(card)
    }

    /// Returns a warning if the weights belong to rows that were not scaled. With `model.init`, architectures with
    /// published weights scale rows like the pictures of these.
    fn unscaled(&self) -> Option<String> {
        let model = &self.model;
        let scales = matches!(&*model.name, "resnet50" | "xception");
        (scales && model.init.is_none()).then(|| {
            format!(
                "{} (model.init) comes from a run without model.init, whose rows were not scaled; those of this run \
                 are scaled as published weights of {} need it",
                self.file_name, model.name
            )
        })
    }

    /// Returns a warning if the run of the weights, whose folder is unknown, was trained on another store version.
    fn elsewhere(&self, data: &Dataset) -> Option<String> {
        (self.manifest_hash != data.store().manifest_hash()).then(|| {
            format!(
                "{} (model.init) comes from a run on another version, and lies in no run's folder; so validation and \
                 test tracks cannot be compared with those that the run trained on",
                self.file_name
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::sync::Arc;

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::dataset::fixture::Fixture;
    use crate::testing::{config, opened};

    fn run(folder: &TempDir, id: &str) -> RunDir {
        let run = RunDir::create(folder.path(), id).expect("a folder");
        run.write_config("").expect("room");
        run
    }

    fn data(clips: usize, sets: &[&str]) -> (TempDir, Arc<Dataset>) {
        let folder = tempfile::tempdir().expect("a folder");
        let fixture = Fixture {
            clips,
            segments: 2,
            stretched: true,
            ..Fixture::default()
        };
        let data = opened(&fixture, &config(sets), &folder);
        (folder, data)
    }

    fn read(run: &RunDir) -> Result<Option<TrainingList>, String> {
        TrainingList::read(run, &run.training_list())
    }

    #[test]
    fn tracks_are_listed_once_and_round_trip() {
        let (_store, data) = data(96, &[]);
        let list = TrainingList::from_dataset(&data);
        // Ten of the twelve artists are in the training split. A track has four rows: two segments and a copy of each.
        assert_eq!(data.rows_of(Split::Training).len(), 4 * 80);
        let members = list.members();
        assert_eq!(members.len(), 80);
        for member in &members {
            let has_artist = member.track_id % 7 != 6;
            assert_eq!(member.artist_id.is_some(), has_artist, "{member:?}");
            assert!(member.audio_blake3.is_some(), "{member:?}");
        }

        let folder = tempfile::tempdir().expect("a folder");
        let run = run(&folder, "a-1");
        assert_eq!(read(&run), Ok(None));
        keep(&run, false, &data, None).expect("room");
        assert_eq!(read(&run), Ok(Some(list)));
    }

    #[test]
    fn a_run_that_goes_on_keeps_its_list_and_one_that_begins_has_its_own() {
        fn inode(run: &RunDir) -> u64 {
            fs::metadata(run.training_list()).expect("a file").ino()
        }

        let folder = tempfile::tempdir().expect("a folder");
        let run = run(&folder, "a-1");
        let (_few, few) = data(48, &[]);
        let (_all, all) = data(96, &[]);
        let [list_of_few, list_of_all] = [&few, &all].map(|data| TrainingList::from_dataset(data));

        keep(&run, false, &few, None).expect("room");
        let first = inode(&run);
        keep(&run, true, &few, None).expect("room");
        assert_eq!(inode(&run), first, "it is not written again");

        // A file of the store that was skipped is restored, then lost again.
        keep(&run, true, &all, None).expect("room");
        assert_eq!(read(&run), Ok(Some(list_of_all.clone())));
        keep(&run, true, &few, None).expect("room");
        assert_eq!(read(&run), Ok(Some(list_of_all.clone())));

        // The run starts over, as if it had been killed before its first checkpoint.
        keep(&run, false, &few, None).expect("room");
        assert_eq!(read(&run), Ok(Some(list_of_few.clone())));
        fs::write(run.training_list(), "no list").expect("room");
        keep(&run, true, &few, None).expect("room");
        assert_eq!(read(&run), Ok(Some(list_of_few)));
        keep(&run, false, &few, Some(list_of_all.clone())).expect("room");
        assert_eq!(read(&run), Ok(Some(list_of_all)));

        let left = fs::read_dir(run.path()).expect("a folder").count();
        assert_eq!(left, 3, "checkpoints, configuration and list");
    }

    #[test]
    fn damaged_lists_are_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = run(&folder, "a-1");
        let (_store, data) = data(12, &[]);
        keep(&run, false, &data, None).expect("room");
        let whole = read(&run).expect("a list").expect("a list");
        let bytes = fs::read(run.training_list()).expect("a file");
        let name = run.training_list().display().to_string();

        let mut told = 0;
        let mut broken: Vec<Vec<u8>> = (0..bytes.len()).map(|end| bytes[..end].to_vec()).collect();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x55;
            broken.push(flipped);
        }

        for bytes in &broken {
            fs::write(run.training_list(), bytes).expect("room");
            match read(&run) {
                // The changed byte is in a part of the file that does not contain a track's values.
                Ok(list) => assert_eq!(list.as_ref(), Some(&whole)),
                Err(said) => {
                    assert!(said.contains(&name), "{said}");
                    assert!(said.contains("restore it from a copy"), "{said}");
                    told += 1;
                }
            }
        }

        assert!(told > bytes.len(), "{told} of {}", broken.len());

        let known = known_split(&run, "this run", &data, Split::Test);
        let said = known.warning.expect("a warning");
        assert!(said.contains("cannot be compared"), "{said}");
        assert!(known.leaks.shared.is_empty());
    }

    #[test]
    fn newer_format_is_not_damage() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = run(&folder, "a-1");
        let (_store, data) = data(12, &[]);

        let bytes = TrainingList::from_dataset(&data)
            .to_parquet()
            .expect("a list");
        let text = b"{\"format\":1,";
        let at = bytes.windows(text.len()).position(|window| window == text);
        let mut later = bytes.clone();
        later[at.expect("its metadata") + text.len() - 2] = b'2';
        run.write_training_list(&later).expect("room");

        let said = read(&run).expect_err("later");
        assert!(
            said.contains("format 2") && said.contains("newer"),
            "{said}"
        );
    }

    #[test]
    fn initial_weights_report_the_tracks_of_their_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = run(&folder, "b-1");
        let first = run(&folder, "a-1");
        let weights = first.path().join("exported.safetensors");
        fs::write(&weights, "").expect("room");

        let (_store, by_artist) = data(96, &[]);
        let (_other, stratified) = data(96, &["data.split=stratified"]);

        let said = StartRun::find(&weights, own.path(), &stratified).warnings;
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].starts_with("run a-1 (model.init) keeps no list")
                && said[0].contains("cannot be compared"),
            "{said:?}"
        );

        keep(&first, false, &by_artist, None).expect("room");
        let found = StartRun::find(&weights, own.path(), &stratified);
        let [test, validation] = &found.warnings[..] else {
            panic!("{:?}", found.warnings);
        };

        // The stratified split assigns every tenth clip to the test split. Two of the 12 artists are not in the
        // training split, and six clips in seven have an artist.
        assert!(
            test.ends_with("by artists that run a-1 (model.init) trained on"),
            "{test}"
        );
        assert!(test.starts_with("of 9 test tracks, "), "{test}");
        assert!(
            validation.starts_with("of 9 validation tracks, "),
            "{validation}"
        );

        assert_eq!(found.list, Some(TrainingList::from_dataset(&by_artist)));

        // The new run's training split contains all tracks that the other run was trained on.
        assert_eq!(
            StartRun::find(&weights, own.path(), &by_artist).warnings,
            Vec::<String>::new()
        );
        let within = StartRun::find(&weights, first.path(), &stratified);
        assert!(within.warnings.is_empty() && within.list.is_none());
        let elsewhere = folder.path().join("exported.safetensors");
        fs::write(&elsewhere, "").expect("room");
        let alone = StartRun::find(&elsewhere, own.path(), &stratified);
        assert!(alone.warnings.is_empty() && alone.list.is_none());

        // Initial weights in a file written by `export`, outside any run's folder.
        let warnings_of = |name: &str, init: Option<&str>, manifest_hash: &str| {
            let model = json!({ "name": name, "init": init });
            let card = json!({ "manifest_hash": manifest_hash, "model": model });
            let metadata = [(export::METADATA_KEY, card.to_string())];
            safetensors::write(&elsewhere, &[], &metadata).expect("room");
            StartRun::find(&elsewhere, own.path(), &stratified).warnings
        };
        let hashes = [stratified.store().manifest_hash(), "another"];
        let [same, said] = hashes.map(|manifest_hash| {
            warnings_of("resnet50", Some("published.safetensors"), manifest_hash)
        });
        assert!(same.is_empty(), "{same:?}");
        assert!(
            said[0].starts_with(
                "exported.safetensors (model.init) comes from a run on another version"
            ),
            "{said:?}"
        );

        // Weights of rows that were not scaled, although this run scales its rows.
        assert!(warnings_of("cnn2d", None, hashes[0]).is_empty());
        let said = warnings_of("xception", None, hashes[0]);
        assert!(said[0].contains("whose rows were not scaled"), "{said:?}");

        fs::write(first.training_list(), "no list").expect("room");
        let said = StartRun::find(&weights, own.path(), &stratified).warnings;
        assert!(
            said[0].starts_with("run a-1 (model.init): training.parquet is damaged")
                && !said[0].contains(&folder.path().display().to_string()),
            "{said:?}"
        );
    }
}
