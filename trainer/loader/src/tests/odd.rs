//! Tests of unusual layouts, of configurations that the store cannot satisfy, and of warnings.

use std::fs;

use wavemill_schemas::config::Data;
use wavemill_schemas::recipe::{Compression, Dtype, Layout};
use wavemill_schemas::text::error_line;

use crate::fixture::{FEATURE, Fixture, RowId};
use crate::testing::{input_spec, load, made, open, training};
use crate::*;

const ALL: Needs = Needs::All;

#[test]
fn error_for_unknown_prefix_lists_columns() {
    let (folder, _dataset) = made(&Fixture::default(), &Data::default());
    for (metadata, want) in [
        (
            &["mfcc", "tonnetz"][..],
            "data.metadata = tonnetz: the store has chroma_cens, mfcc: choose one of these",
        ),
        (
            &[],
            "data.metadata: the model needs columns of fma_features: name some, such as [\"mfcc\"]",
        ),
    ] {
        let data = Data {
            metadata: metadata.iter().map(|&p| p.to_owned()).collect(),
            ..Data::default()
        };
        let error = open(folder.path(), &data, ALL).expect_err("no columns");
        assert_eq!(error.to_string(), want);
    }
}

#[test]
fn rows_of_differing_length_need_a_number_of_frames() {
    let (folder, _dataset) = made(
        &Fixture {
            ragged: true,
            ..Fixture::default()
        },
        &Data {
            frames: Some(8),
            ..Data::default()
        },
    );

    let error = open(folder.path(), &Data::default(), Needs::default())
        .expect_err("no frames")
        .to_string();
    assert_eq!(
        error,
        "data.frames: rows of log_mel differ in length: set data.frames to the number of frames of every row"
    );
}

/// Arrow panics on types that it does not know.
#[test]
fn damaged_schema_of_a_shard_is_named() {
    const KEY: &[u8] = b"ARROW:schema";
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = Fixture::default().write(folder.path());
    let entry = manifest.files_of(FEATURE).next().expect("a file");
    let path = folder.path().join(&entry.path);
    let clean = fs::read(&path).expect("a file");
    let key = clean.windows(KEY.len()).position(|part| part == KEY);
    let from = key.expect("a schema") + KEY.len();
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    let length = clean[from + 4..]
        .iter()
        .take_while(|byte| is_base64(byte))
        .count();

    let mut errors = Vec::new();
    for at in (from + 4..from + 4 + length).filter(|&at| clean[at] != b'/') {
        let mut bytes = clean.clone();
        bytes[at] = b'/';
        fs::write(&path, bytes).expect("room");
        let opened = open(folder.path(), &Data::default(), Needs::default());
        errors.extend(opened.err().map(|error| error.to_string()));
    }
    let said = format!("{}: its schema cannot be read", path.display());
    assert!(
        errors.iter().any(|error| error.starts_with(&said)),
        "{errors:?}"
    );
}

/// Parquet's reader panics on a page that needs a dictionary if its column has none.
#[test]
fn page_without_its_dictionary_is_named() {
    // In Thrift's compact form: the start of a number, and the encodings PLAIN and RLE_DICTIONARY.
    const NUMBER: u8 = 0x15;
    const PLAIN: u8 = 0;
    const DICTIONARY: u8 = 0x10;
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = Fixture::default().write(folder.path());
    let entry = manifest.files_of(FEATURE).next().expect("a file");
    let path = folder.path().join(&entry.path);
    let clean = fs::read(&path).expect("a file");

    let mut errors = Vec::new();
    for at in (1..clean.len()).filter(|&at| clean[at - 1..=at] == [NUMBER, PLAIN]) {
        let mut bytes = clean.clone();
        bytes[at] = DICTIONARY;
        fs::write(&path, bytes).expect("room");
        let store = Store::open(folder.path(), None).expect("a store");
        let opened =
            Dataset::<Vec<u8>>::open(store.without_shard_checks(), &Data::default(), Needs::All);
        errors.extend(opened.err().map(|error| error_line(&error)));
    }
    let is_named = |error: &String| {
        error.starts_with(&path.display().to_string()) && error.contains("Decoder for dict")
    };
    assert!(errors.iter().any(is_named), "{errors:?}");
}

#[test]
fn damaged_page_of_unusual_layout_is_named() {
    let fixture = Fixture {
        compression: Compression::Lz4,
        layout: Layout::List,
        shape: [16, 64],
        ..Fixture::default()
    };
    let folder = tempfile::tempdir().expect("a folder");
    fixture.write(folder.path());

    // Do not compare the hashes of files, so that damaged pages are read.
    let store = Store::open(folder.path(), None).expect("a store");
    let data = Data {
        skip_damaged: true,
        ..Data::default()
    };
    let dataset = Dataset::<Vec<u8>>::open(store.without_shard_checks(), &data, Needs::All);
    let dataset = dataset.expect("a dataset");

    let entry = dataset
        .store()
        .manifest()
        .files_of(FEATURE)
        .next()
        .expect("a file");
    let path = dataset.store().path(entry).expect("a path");

    let mut bytes = fs::read(&path).expect("a file");
    let clean = bytes.clone();
    // Tensors make up most of the file, so these bytes are part of tensors.
    let (from, to) = (bytes.len() / 8, bytes.len() / 4);
    bytes[from..to].fill(0xff);
    fs::write(&path, &bytes).expect("room");

    let strict = open(folder.path(), &Data::default(), Needs::default());
    let error = strict.and_then(|d| {
        Loader::start(&d, LoaderPlan::default())?
            .find_map(Result::err)
            .map_or(Ok(()), Err)
    });
    let error = error.expect_err("damage is seen");
    assert!(
        error.is_damage() && error.to_string().contains(&path.display().to_string()),
        "{error}"
    );

    fs::write(&path, &clean[..clean.len() / 2]).expect("room");
    let batch = Loader::start(
        &dataset,
        LoaderPlan {
            batch_size: 80,
            ..LoaderPlan::default()
        },
    );
    let batch = batch
        .expect("threads")
        .next()
        .expect("a batch")
        .expect("counted, not fatal");

    assert!(!batch.damaged.is_empty() && batch.rows.len() + batch.damaged.len() == 80);
    assert!(
        batch.damaged[0]
            .to_string()
            .contains("the file ends within it"),
        "{}",
        batch.damaged[0]
    );
}

#[test]
fn unusual_rows_are_described_in_warnings() {
    // There are enough artists for every split to have all classes.
    let varied = Fixture {
        artists: 11,
        ..Fixture::default()
    };
    let (folder, plain) = made(&varied, &Data::default());

    // The only warning is that the metadata columns were not computed by wavemill.
    let told = plain.warnings();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].starts_with("fma_features are columns"), "{told:#?}");

    let data = Data {
        split: Some("stratified".to_owned()),
        normalize: true,
        ..Data::default()
    };
    let other = open(folder.path(), &data, ALL).expect("a dataset");
    let told = other.warnings();
    assert_eq!(told.len(), 2, "{told:#?}");
    let rule = "the store's rule, artist; under data.split = stratified";
    assert!(told[0].contains(rule), "{told:#?}");

    let fixture = Fixture {
        unlabelled: 5,
        published: 90,
        stretched: true,
        clips: 96,
        ..Fixture::default()
    };
    let data = Data {
        split: Some("stratified".to_owned()),
        skip_damaged: true,
        ..Data::default()
    };

    let (folder, dataset) = made(&fixture, &data);
    let entry = dataset
        .store()
        .manifest()
        .files_of(FEATURE)
        .nth(1)
        .expect("a file")
        .clone();
    fs::remove_file(folder.path().join(&entry.path)).expect("a file");

    let warnings = open(folder.path(), &data, ALL)
        .expect("the rest")
        .warnings();

    let begins = [
        "40 rows passed over: ",
        "12 of 136 rows are in no split under stratified",
    ];
    assert_eq!(warnings.len(), 5, "{warnings:#?}");
    assert!(
        warnings
            .iter()
            .zip(begins)
            .all(|(warning, begin)| warning.starts_with(begin)),
        "{warnings:#?}"
    );
    assert_eq!(
        warnings[2],
        "14 of 110 training, 7 of 7 test rows have no genre: they add to no loss and no score"
    );
    assert!(
        warnings[3].starts_with("10 of 124 rows have no track in fma_features"),
        "{warnings:#?}"
    );
    assert!(
        warnings[4].starts_with("fma_features are columns as FMA published them"),
        "{warnings:#?}"
    );

    // Every third clip has the last class and no label, so the class has no labelled rows.
    let (_folder, dataset) = made(
        &Fixture {
            unlabelled: 3,
            ..varied
        },
        &Data::default(),
    );
    assert_eq!(
        dataset.warnings()[1..2],
        ["no training row of genre is class 2"]
    );
}

/// Samples are read in both types, with one or several lengths: as stored, or cut and padded by zeros.
#[test]
fn samples_are_read_as_stored_or_in_the_model_s_length() {
    for dtype in [Dtype::F32, Dtype::S16] {
        for (ragged, layout, frames) in [
            (false, Layout::Binary, None),
            (false, Layout::List, Some(5)),
            (true, Layout::Binary, Some(9)),
            (true, Layout::List, Some(7)),
        ] {
            let fixture = Fixture {
                samples: true,
                shape: [1, 10],
                dtype,
                ragged,
                layout,
                ..Fixture::default()
            };
            let data = Data {
                frames,
                ..Data::default()
            };
            let (_folder, dataset) = made(&fixture, &data);
            let form = dataset.form();
            let wanted = (RowKind::Samples, 1, frames.unwrap_or(10));
            assert_eq!((form.kind, form.bands, form.frames), wanted);

            for batch in load(&dataset, training()) {
                let rows = batch.memory().expect("samples").chunks(form.row_bytes());
                for (&row, bytes) in batch.rows.iter().zip(rows) {
                    let clip = dataset.rows().track_ids[row as usize] as usize;
                    let mut stored = fixture.stored(RowId {
                        clip,
                        segment: 0,
                        variant: 1.0,
                    });
                    stored.resize(form.row_bytes(), 0);
                    assert_eq!(bytes, stored, "{dtype}, clip {clip} of {fixture:?}");
                }
            }
        }
    }
}

#[test]
fn features_without_values_are_refused() {
    let spec = |dim_name: &str, frames| {
        let mut feature = input_spec([Some(2), None], ["mel", "frame"], 2).feature;
        feature.shape = vec![None];
        feature.dim_names = vec![dim_name.to_owned()];
        let data = Data {
            frames,
            ..Data::default()
        };
        InputSpec::new(&feature, &data, None).map_err(|error| error.to_string())
    };

    assert_eq!(
        spec("byte", Some(9)).expect_err("files"),
        "data.feature: rows of mel are files, which have to be decoded: set data.feature to another feature, such as \
         one with op = \"pcm\""
    );
    assert_eq!(
        spec("sample", None).expect_err("no length"),
        "data.frames: rows of mel differ in length: set data.frames to the number of samples of every row"
    );
    assert_eq!(spec("sample", Some(9)).map(|spec| spec.frames), Ok(9));

    for shape in [[2, 0], [usize::MAX, 2]] {
        let mut feature = input_spec([Some(2), Some(4)], ["mel", "frame"], 2).feature;
        feature.shape = shape.map(Some).to_vec();
        let refused = InputSpec::new(&feature, &Data::default(), None).expect_err("no values");
        let want = format!("data.feature: rows of mel cannot be u8{shape:?}").replace(", ", ",");
        assert_eq!(refused.to_string(), want);
        assert!(Form::new(&InputSpec::stored(&feature)).is_err());
    }
}
