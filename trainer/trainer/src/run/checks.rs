//! Checks before a run starts or resumes: errors that prevent the run, and warnings about effects on its scores.

use std::path::Path;

use wavemill_schemas::config::{Config, Metric, PosWeight, Train};
use wavemill_schemas::exit::{Kind, PlainError};
use wavemill_schemas::run::SUPPORTED_TRACKS_MIN;
use wavemill_schemas::text::counted;

use super::steps_total;
use crate::TrainError;
use crate::checkpoint::State;
use crate::dataset::{Dataset, RowKind, Split, Store, Target, n_batches};
use crate::learner::Learner;

/// Checks whether a run with this configuration is possible on a store, before any file is written.
///
/// # Errors
/// [`TrainError::Other`], and the errors of [`Learner::check`].
pub(crate) fn check(config: &Config, data: &Dataset, world_size: usize) -> Result<(), TrainError> {
    check_data(config, data)?;
    Learner::check(config, data, world_size)
}

/// Checks that the configuration and the store leave rows and labels to train on and to score.
fn check_data(config: &Config, data: &Dataset) -> Result<(), PlainError> {
    for split in Split::ALL {
        require_rows(data, split)?;
    }

    // Reject targets whose training labels are all equal, and targets without validation or test labels to score.
    if let Some((target, problem)) = data.unlearnable() {
        return Err(PlainError::usage(format!(
            "target {target}: {problem}: there is nothing to learn; choose another target (--target) or split \
             (--split), or extract clips of more classes"
        )));
    }
    if let Some((target, split)) = data.unscorable() {
        return Err(PlainError::usage(format!(
            "target {target}: no {} row has a label under rule {}: choose another target (--target) or split \
             (--split), or extract more clips",
            split.name(),
            data.split_name()
        )));
    }

    check_selected(&config.train, data)?;
    if config.loss.pos_weight != PosWeight::None && !data.targets().iter().any(Target::is_multi) {
        return Err(PlainError::usage(
            "loss.pos_weight: no target has several labels per row: use loss.class_weights",
        ));
    }
    if let (Some(plateau), Some(first)) = (&config.schedule.plateau, data.targets().first()) {
        check_metric("schedule.plateau.metric", plateau.metric, first, data)?;
    }

    let rows = data.rows_of(Split::Training).len();
    if n_batches(rows, config.data.batch_size, config.data.drop_last) == 0 {
        return Err(PlainError::usage(format!(
            "data.batch_size = {} with data.drop_last leaves no batch of {rows} training rows: use a smaller batch size",
            config.data.batch_size
        )));
    }
    Ok(())
}

/// Returns an error if `train.select` is no score of its target.
fn check_selected(train: &Train, data: &Dataset) -> Result<(), PlainError> {
    let targets = data.targets();
    let named = train.select_target.as_deref();
    let Some(target) = targets
        .iter()
        .find(|target| named.is_none_or(|name| target.name() == name))
    else {
        let names: Vec<&str> = targets.iter().map(|target| target.name()).collect();
        return Err(PlainError::usage(format!(
            "train.select_target = {:?} is no target of this run: choose one of {}",
            named.unwrap_or_default(),
            names.join(", ")
        )));
    };

    check_metric("train.select", train.select, target, data)
}

/// Returns an error if the metric that `key` sets is not a score of `target`, or is undefined for its validation rows.
fn check_metric(
    key: &str,
    metric: Metric,
    target: &Target,
    data: &Dataset,
) -> Result<(), PlainError> {
    let fits = |metric: &Metric| {
        metric.is_for(target.is_multi()) && (*metric != Metric::Top3 || target.classes().len() > 3)
    };
    if !fits(&metric) {
        let fitting = Metric::ALL.into_iter().filter(fits).map(Metric::name);
        return Err(PlainError::usage(format!(
            "{key} = {:?} is not a score of target {}: choose one of {}",
            metric.name(),
            target.name(),
            fitting.collect::<Vec<_>>().join(", ")
        )));
    }

    let is_supported = || {
        let tracks = data.tracks_of_classes(target, Split::Validation);
        tracks.into_iter().max() >= Some(SUPPORTED_TRACKS_MIN)
    };
    if metric == Metric::MacroF1Supported && !is_supported() {
        return Err(PlainError::usage(format!(
            "{key} = \"macro_f1_supported\" is undefined: no class of {} has {SUPPORTED_TRACKS_MIN} validation tracks; \
             use macro_f1",
            target.name()
        )));
    }
    Ok(())
}

/// Returns an error if a split (training, validation or test) has no rows.
///
/// # Errors
/// An error of kind [`Kind::Damaged`] if skipped damaged files are the likely cause, otherwise [`Kind::Usage`].
pub(crate) fn require_rows(data: &Dataset, split: Split) -> Result<(), PlainError> {
    if data.rows_of(split).is_empty() {
        Err(no_rows(data, split))
    } else {
        Ok(())
    }
}

/// Returns the error for a split without rows, which names skipped damaged files as the likely cause, if there are any.
fn no_rows(data: &Dataset, split: Split) -> PlainError {
    let rule = data.split_name();
    let mut lost = data.lost_paths();

    // If the split is by folder, only the files in a split's own folder can contain its rows.
    if data.is_split_by_folder() {
        lost.retain(|path| path.contains(&format!("/split={split}/")));
    }
    let lost = match &lost[..] {
        [] => {
            return PlainError::usage(format!(
                "no rows in split {split} under rule {rule}: choose another with --split, or extract more clips"
            ));
        }
        [one] => one.clone(),
        [first, more @ ..] => format!("{first} and {}", counted(more.len(), "more file")),
    };
    PlainError::new(
        Kind::Damaged,
        format!(
            "no rows in split {split} under rule {rule}: {lost} cannot be read: `wavemill verify` lists every such file, \
         `wavemill extract --new-version` computes them again"
        ),
    )
}

/// Returns warnings about influences on the scores: the data, rows left out, augmentation, batch norm over ranks.
pub(super) fn warnings(
    config: &Config,
    data: &Dataset,
    learner: &Learner,
    batch_norm_per_rank: bool,
) -> Vec<String> {
    let mut warnings = data.warnings();

    let rows = data.rows_of(Split::Training).len();
    let left_out = rows % config.data.batch_size;
    if config.data.drop_last && left_out > 0 {
        warnings.push(format!(
            "data.drop_last leaves out {} an epoch, others each time",
            counted(left_out, "training row")
        ));
    }

    let batches = n_batches(rows, config.data.batch_size, config.data.drop_last);
    let (warmup, steps) = (
        config.schedule.warmup(),
        steps_total(&config.train, batches),
    );
    if warmup >= steps {
        warnings.push(format!(
            "the warm-up has {warmup} steps and the run {steps}: the learning rate never reaches optimizer.lr"
        ));
    }

    let sees_spectrogram = data.needs().spectrogram() && data.form().kind == RowKind::Spectrogram;
    if config.augment.enabled && !sees_spectrogram {
        warnings.push(format!(
            "augment.enabled changes nothing: {} sees no spectrogram",
            config.model.name
        ));
    }

    if learner.optimizer().is_idle(config.train.epochs) {
        warnings.push(format!(
            "optimizer.groups trains nothing: every variable is frozen in all {} epochs, or has a learning rate of 0",
            config.train.epochs
        ));
    }

    if batch_norm_per_rank {
        warnings.push(
            "batch norm saw each rank's own rows: another number of ranks gives other figures; \
             model.sync_batch_norm=true takes all rows together"
                .to_owned(),
        );
    }
    warnings
}

/// Checks that a store version contains the feature that the model was trained on, because it cannot process others.
///
/// # Errors
/// An error of kind [`Kind::OtherPlan`] if the version has no such feature, or one with another id.
pub(crate) fn same_feature(state: &State, store: &Store, path: &Path) -> Result<(), PlainError> {
    let name = &state.input.feature.name;
    let features = &store.manifest().features;
    let found = features.iter().find(|feature| feature.name == *name);

    let ours = found.map(|feature| feature.feature_id.as_str());
    if ours == Some(&state.feature_id) {
        return Ok(());
    }
    Err(PlainError::new(
        Kind::OtherPlan,
        format!(
            "{} was trained on feature {name} with feature_id {}; version {} of the store has {}: a model cannot process \
         another feature; use a version whose {name} was computed with the options in the run's recipe.toml",
            path.display(),
            short(&state.feature_id),
            store.version(),
            ours.map_or("no such feature", short)
        ),
    ))
}

/// Checks that a resumed run reads the same feature and store version as before.
///
/// # Errors
/// An error of kind [`Kind::OtherPlan`] if the feature's id or the manifest's hash differs.
pub(super) fn same_store(state: &State, data: &Dataset, path: &Path) -> Result<(), PlainError> {
    let feature = data.feature().feature_id.as_str();
    let manifest = data.store().manifest_hash();
    for (what, theirs, ours) in [
        ("feature", &state.feature_id, feature),
        ("manifest", &state.manifest_hash, manifest),
    ] {
        if theirs != ours {
            return Err(PlainError::new(
                Kind::OtherPlan,
                format!(
                    "{} was trained on another {what} ({}); this store has {}: use the store that it was trained on",
                    path.display(),
                    short(theirs),
                    short(ours)
                ),
            ));
        }
    }
    Ok(())
}

/// Checks that a resumed run reads the same training files as before, if these determine the order of rows (within an
/// epoch), or change the classes, artists or albums that the model knows.
///
/// # Errors
/// An error of kind [`Kind::Damaged`] if such training files have become unreadable or readable since then.
pub(super) fn same_files(state: &State, data: &Dataset, run: &Path) -> Result<(), PlainError> {
    // Older checkpoints do not list skipped files and are not checked.
    let Some(then) = &state.lost else {
        return Ok(());
    };
    let now = data.lost_paths();

    // A file that became unreadable or readable since the checkpoint shifts the rows after it in the row order.
    let fresh = now.iter().filter(|path| !then.contains(path));
    let back = then.iter().filter(|path| !now.contains(path));
    let mut files: Vec<&str> = fresh.chain(back).map(String::as_str).collect();
    // If the split is by folder, files of other splits do not affect the order of training rows.
    if data.is_split_by_folder() {
        files.retain(|path| path.contains("/split=training/"));
    }
    if files.is_empty() {
        return Ok(());
    }

    // Means may change a little, but other classes, artists and albums have other numbers in the model.
    let (then, now) = (&state.input, data.input_spec());
    let has_vocabularies = then.artists == now.artists && then.albums == now.albums;
    if !has_vocabularies || state.classes != data.class_names() {
        return Err(PlainError::new(
            Kind::Damaged,
            format!(
                "{}: the set of readable files has changed ({}), and with it the classes, artists or albums that the model \
             knows: restore the earlier state of these files",
                run.display(),
                files.join(", ")
            ),
        ));
    }
    // A run resumed between epochs draws the next row order from the files readable now.
    if state.batch == 0 {
        return Ok(());
    }
    Err(PlainError::new(
        Kind::Damaged,
        format!(
            "{}: the checkpoint of step {} is from the middle of epoch {}, whose order of rows cannot be reproduced because \
         the set of readable files has changed ({}): restore their earlier state; or, if checkpoints/ contains one from \
         the end of an epoch, remove those after it, and --resume continues from there",
            run.display(),
            state.step,
            state.epoch + 1,
            files.join(", ")
        ),
    ))
}

/// Shortens a hash or id to 16 characters for display.
fn short(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use tch::Device;
    use wavemill_scores::schedule::Schedules;

    use super::*;
    use crate::dataset::Needs;
    use crate::dataset::fixture::Fixture;
    use crate::strategy::Solo;
    use crate::testing;

    /// Returns the warnings for a run of the architecture `model` on two ranks.
    fn warnings_of(model: &str, sets: &[&str]) -> String {
        let _alone = testing::alone();
        let folder = tempfile::tempdir().expect("a folder");
        let sets: Vec<String> = sets
            .iter()
            .map(|&set| set.to_owned())
            .chain([format!("model.name={model}")])
            .collect();

        let config = Config::parse("", "the test", &sets).expect("a configuration");
        let data = testing::opened(&small(), &config, &folder);

        let learner = Learner::new(&config, &data, &Solo, Device::Cpu).expect("a model");
        let per_rank = crate::run::normalizes_per_rank(&learner, &config, 2);
        warnings(&config, &data, &learner, per_rank).join("; ")
    }

    /// Returns the error that prevents a run on the store `fixture`, or else the warnings about the rows.
    fn checked(fixture: &Fixture, target: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let config = testing::config(&[&format!("data.targets=[\"{target}\"]")]);
        let data = testing::opened(fixture, &config, &folder);
        check(&config, &data, 1).map_err(|error| error.to_string())?;
        Ok(data.warnings().join("; "))
    }

    fn assert_says(said: &str, message: &str) {
        assert!(said.contains(message), "{said}");
    }

    /// Returns the smallest rows that the models accept.
    fn small() -> Fixture {
        Fixture {
            shape: [16, 24],
            ..Fixture::default()
        }
    }

    #[test]
    fn one_class_among_training_rows_is_an_error_before_the_first_step() {
        let one_class = Fixture {
            classes: 1,
            ..Fixture::default()
        };
        let said = checked(&one_class, "genre").expect_err("nothing to learn");
        assert!(
            said.starts_with(
                "target genre: all 80 training rows with a label are class 0: there is nothing"
            ),
            "{said}"
        );
        assert_says(&said, "--target");
        assert_says(&said, "--split");

        let unlabelled = Fixture {
            unlabelled: 1,
            ..Fixture::default()
        };
        let said = checked(&unlabelled, "genre").expect_err("nothing to learn");
        assert!(
            said.starts_with("target genre: no training row has a label"),
            "{said}"
        );

        // Even clips have a second label, which distinguishes them from the others.
        let said = checked(&one_class, "genres_all").expect("a label that some rows have");
        assert_says(
            &said,
            "all training rows of genres_all with a label have Genre 0: a model can",
        );

        let one_row = Fixture {
            clips: 3,
            artists: 3,
            ..Fixture::default()
        };
        let said = checked(&one_row, "genres_all").expect_err("nothing to learn");
        assert_says(
            &said,
            "all 1 training rows with labels have the same ones, Genre 0, Even",
        );
    }

    #[test]
    fn other_files_that_change_the_inputs_are_an_error_also_between_epochs() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = testing::config(&[]);
        let data = testing::opened(&Fixture::default(), &config, &folder);
        let first = Schedules::new(&config.schedule, config.optimizer.lr);
        let mut state = State::first(&config, &data, first.state().clone(), 1);
        let compared = |state: &State| {
            same_files(state, &data, Path::new("run")).map_err(|error| error.to_string())
        };

        // A file that was skipped before is readable now. This alone only matters within an epoch.
        state.lost = Some(vec!["log_mel/split=training/part-0.parquet".to_owned()]);
        assert_eq!(compared(&state), Ok(()));
        let batch = State {
            batch: 1,
            ..state.clone()
        };
        let told = compared(&batch).expect_err("another order");
        assert!(told.contains("whose order of rows"), "{told}");

        state.classes[0].1.pop();
        let told = compared(&state).expect_err("other classes");
        assert!(
            told.starts_with("run: the set of readable files has changed (log_mel/split=training/"),
            "{told}"
        );
    }

    #[test]
    fn a_split_without_any_label_is_an_error_before_the_first_step() {
        // The eleventh of the twelve clips is the only one in the validation split, and the only one without a label.
        let fixture = Fixture {
            clips: 12,
            unlabelled: 11,
            ..Fixture::default()
        };

        let said = checked(&fixture, "genre").expect_err("no score");
        assert!(
            said.starts_with("target genre: no validation row has a label under rule artist"),
            "{said}"
        );
    }

    #[test]
    fn a_split_that_lacks_classes_is_a_warning() {
        // With the split by artist, the validation split has only class 1 and the test split has only class 2.
        let said = checked(&Fixture::default(), "genre").expect("two classes");
        assert_says(
            &said,
            "all 8 validation rows of genre with a label are class 1: no score there",
        );
        assert_says(
            &said,
            "all 8 test rows of genre with a label are class 2: no score there",
        );

        // With ten artists and four classes, the validation split has only even classes, and the test split only odd.
        let some = Fixture {
            classes: 4,
            artists: 10,
            ..Fixture::default()
        };
        let said = checked(&some, "genre").expect("four classes");
        assert_says(
            &said,
            "no test row of genre is class 0, class 2: no score there says",
        );

        // The validation split has only even clips: all of them have the label Even, and none has Genre 1 or Genre 3.
        let said = checked(&some, "genres_all").expect("labels");
        assert!(!said.contains("all training rows"), "{said}");
        assert_says(
            &said,
            "all 9 validation rows of genres_all with a label have Even",
        );
        assert_says(&said, "no validation row of genres_all is Genre 1, Genre 3");
    }

    /// Returns the error for a store in which the only file of `split` is cut off in the middle.
    fn warnings_without(split: &str) -> String {
        let _alone = testing::alone();
        let folder = tempfile::tempdir().expect("a folder");
        let config = Config::parse("", "the test", &["data.skip_damaged=true".to_owned()])
            .expect("a configuration");
        let manifest = small().write(&folder.path().join("store"));
        for file in manifest
            .files
            .iter()
            .filter(|file| file.split.as_deref() == Some(split))
        {
            let path = folder.path().join("store").join(&file.path);
            let bytes = std::fs::read(&path).expect("a file");
            std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("room");
        }

        let store = Store::open(&folder.path().join("store"), None).expect("a store");
        let data = Dataset::open(store, &config.data, Needs::default()).expect("what can be read");
        match check(&config, &data, 1) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn damaged_split_error_names_the_file() {
        for split in ["validation", "training", "test"] {
            let message = warnings_without(split);
            let file = format!("split={split}/00000.parquet");
            assert!(
                message.contains(&file) && message.contains("wavemill verify"),
                "{split}: {message}"
            );
            assert!(!message.contains("extract more clips"), "{message}");
        }

        let of_whole = warnings_without("none");
        assert!(!of_whole.contains("no rows in split"), "{of_whole}");
    }

    #[test]
    fn ineffective_augmentation_is_warned_about() {
        let message = "augment.enabled changes nothing";
        assert!(warnings_of("mlp-1", &["augment.enabled=true"]).contains(message));
        assert!(!warnings_of("mlp-1", &[]).contains(message));
        assert!(!warnings_of("genregenie-cnn", &["augment.enabled=true"]).contains(message));
    }

    #[test]
    fn a_warm_up_as_long_as_the_run_is_warned_about() {
        let message = "the learning rate never reaches optimizer.lr";
        for name in ["schedule.warmup_steps", "schedule.cosine.warmup_steps"] {
            assert!(
                warnings_of("mlp-1", &[&format!("{name}=100"), "train.steps=100"])
                    .contains(message)
            );
            assert!(!warnings_of("mlp-1", &[&format!("{name}=1")]).contains(message));
        }
    }

    #[test]
    fn per_rank_batch_norm_is_warned_about_unless_frozen() {
        assert!(warnings_of("genregenie-cnn", &[]).contains("batch norm saw each rank's own rows"));
        let frozen = ["model.freeze=true", "model.init=weights"];
        assert!(!warnings_of("genregenie-cnn", &frozen).contains("batch norm"));
        assert!(!warnings_of("lstm", &[]).contains("batch norm"));
    }
}
