//! Tests of reading rows of one store version for a model that was trained on another version.

use std::path::Path;
use std::sync::Arc;

use wavemill_schemas::config::Data;

use crate::fixture::Fixture;
use crate::testing::{made, open};
use crate::*;

/// Returns a configuration with a target of each kind: one class per row, and several labels per row.
fn both() -> Data {
    Data {
        targets: ["genre", GENRES_ALL].map(str::to_owned).to_vec(),
        normalize: true,
        ..Data::default()
    }
}

/// Opens the latest version of a store for a model that was trained on the dataset `old`.
fn seen_by(old: &Dataset, root: &Path, data: &Data) -> Result<Arc<Dataset>, DatasetError> {
    let mut classes = Vec::new();
    for target in old.targets() {
        classes.push((target.name().to_owned(), target.classes().to_vec()));
    }
    let model = ModelSignature {
        input: old.input_spec(),
        classes: &classes,
    };
    Dataset::open_for(Store::open(root, None)?, data, Needs::All, model)
}

/// Returns the labels of all rows of each target.
fn labels(dataset: &Dataset) -> Vec<Vec<Vec<i64>>> {
    let mut all = Vec::new();
    for target in dataset.targets() {
        let rows = 0..dataset.rows().len() as u32;
        let labels = rows.map(|row| target.labels(dataset.rows(), row).collect());
        all.push(labels.collect());
    }
    all
}

#[test]
fn classes_are_found_by_their_names() {
    let (_folder, old) = made(&Fixture::default(), &both());
    let shifted = Fixture {
        in_front: 2,
        ..Fixture::default()
    };
    let (folder, own) = made(&shifted, &both());
    assert_ne!(own.rows().targets, old.rows().targets);
    assert_ne!(labels(&own), labels(&old));

    let seen = seen_by(&old, folder.path(), &both()).expect("rows");
    for (ours, theirs) in seen.targets().iter().zip(old.targets()) {
        assert_eq!(ours.classes(), theirs.classes());
        assert_eq!(ours.is_multi(), theirs.is_multi());
    }
    assert_eq!(labels(&seen), labels(&old));
    assert_eq!(seen.unknown_classes(Split::Test), Vec::<String>::new());
}

#[test]
fn unknown_class_is_unlabelled_with_a_warning() {
    let (_folder, old) = made(&Fixture::default(), &both());
    let grown = Fixture {
        in_front: 1,
        of_new: 5,
        ..Fixture::default()
    };
    let (folder, own) = made(&grown, &both());
    let seen = seen_by(&old, folder.path(), &both()).expect("rows");

    // The eight test clips are 11, 23 and so on. One of them, the 59th clip, has the new class.
    assert_eq!(
        seen.unknown_classes(Split::Test),
        [
            "1 of 8 test rows have a genre that the model does not know (new 0): they count as unlabelled",
            "1 of 8 test rows have labels of genres_all that the model does not know (New 0): these are left out",
        ]
    );
    assert_eq!(own.unknown_classes(Split::Test), Vec::<String>::new());

    let rows = seen.rows();
    for row in 0..rows.len() as u32 {
        let clip = rows.track_ids[row as usize];
        let was = old.targets()[0].label(old.rows(), row);
        let wanted = if clip % 5 == 4 { -1 } else { was };
        assert_eq!(seen.targets()[0].label(rows, row), wanted, "clip {clip}");
    }
}

#[test]
fn learned_statistics_are_kept_for_new_versions() {
    let (_folder, old) = made(&Fixture::default(), &both());
    // The new version has more rows, which changes means, artists and albums, and lacks the last class.
    let other = Fixture {
        clips: 150,
        classes: 2,
        artists: 15,
        ..Fixture::default()
    };
    let (folder, own) = made(&other, &both());
    assert_ne!(own.input_spec(), old.input_spec());

    let seen = seen_by(&old, folder.path(), &both()).expect("rows");
    assert_eq!(seen.input_spec(), old.input_spec());
    assert_eq!(seen.targets()[0].classes().len(), 3);
    assert_eq!(seen.rows_of(Split::Test), own.rows_of(Split::Test));
    let test = seen.rows_of(Split::Test);
    assert_ne!(seen.metadata_of(&test), own.metadata_of(&test));
}

/// Returns the error message of opening a store for a model with the inputs `input` and the target `target`.
fn error_for(root: &Path, input: &InputSpec, target: &str) -> String {
    let classes = [(target.to_owned(), vec!["class 0".to_owned()])];
    let model = ModelSignature {
        input,
        classes: &classes,
    };
    let store = Store::open(root, None).expect("a store");
    Dataset::<Vec<u8>>::open_for(store, &Data::default(), Needs::All, model)
        .expect_err("gone")
        .to_string()
}

#[test]
fn missing_target_or_column_is_named() {
    let (folder, _) = made(&Fixture::default(), &both());
    let (_other, old) = made(&Fixture::default(), &both());
    let mut input = old.input_spec().clone();

    assert_eq!(
        error_for(folder.path(), &input, "mood"),
        "data.targets = mood: the store has genre, genres_all: choose one of these, or extract a store whose recipe has mood"
    );

    input.metadata[1].name = "tonnetz_mean_01".to_owned();
    assert_eq!(
        error_for(folder.path(), &input, "genre"),
        "data.metadata = tonnetz_mean_01: the store has chroma_cens, mfcc: choose one of these"
    );

    assert!(open(folder.path(), &Data::default(), Needs::All).is_ok());
}
