//! Tests that export a small store and read the files back.

use std::fs::File;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use half::f16;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use wavemill_schemas::exit::Classified;
use wavemill_sql::testing::{Clip, TestStore, feature};

use super::*;

/// Formats for every feature.
const FORMATS: [Format; 4] = [
    Format::Npy,
    Format::Png,
    Format::Huggingface,
    Format::Webdataset,
];

/// An export of [`TestStore::small`], in a temporary folder.
#[derive(Debug)]
struct Exported {
    root: tempfile::TempDir,
    report: Report,
}

impl Exported {
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join("out").join(name)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn text(&self, name: &str) -> String {
        String::from_utf8(self.bytes(name)).expect("text")
    }

    fn assert_has(&self, name: &str, part: &str) {
        let text = self.text(name);
        assert!(text.contains(part), "{name}: {text}");
    }
}

fn try_export(
    store: &TestStore,
    feature: &str,
    format: Format,
    splits: &[&str],
) -> Result<Exported, ExportError> {
    let root = tempfile::tempdir().expect("a folder");
    let splits: Vec<String> = splits.iter().map(|&name| name.to_owned()).collect();

    let out = root.path().join("out");
    fs::create_dir(&out).expect("a new folder");
    let report = export_to(&out, store, feature, format, &splits, &Progress::default())?;
    Ok(Exported { root, report })
}

fn export_to(
    out: &Path,
    store: &TestStore,
    feature: &str,
    format: Format,
    splits: &[String],
    progress: &Progress,
) -> Result<Report, ExportError> {
    let opened = Store::at(store.folder.path());
    let job = Job {
        store: &opened,
        version: 1,
        manifest: &store.manifest,
        feature: Some(feature),
        target: None,
        splits,
        format,
    };
    run(&job, out, progress)
}

fn export(feature: &str, format: Format, splits: &[&str]) -> Exported {
    try_export(&TestStore::small(), feature, format, splits).expect("an export")
}

fn error(feature: &str, format: Format, splits: &[&str]) -> String {
    let exported = try_export(&TestStore::small(), feature, format, splits);
    exported.expect_err(feature).to_string()
}

/// Splits an npy file into header and values.
fn npy(bytes: &[u8]) -> (String, Vec<u8>) {
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (head, values) = bytes.split_at(10 + length);
    (
        String::from_utf8_lossy(&head[10..]).trim_end().to_owned(),
        values.to_vec(),
    )
}

#[test]
fn an_array_a_split_has_the_stored_bytes_in_order() {
    let exported = export("log_mel", Format::Npy, &[]);
    let (head, values) = npy(&exported.bytes("validation.npy"));
    assert!(
        head.contains("'<f2'") && head.contains("(3, 2, 3)"),
        "{head}"
    );
    let wanted: Vec<u8> = (3..6)
        .flat_map(|clip| (0..6).map(move |v| f16::from_f32((clip + v) as f32)))
        .flat_map(|value| value.to_le_bytes())
        .collect();
    assert_eq!(values, wanted);

    let lines = exported.text("validation.csv");
    assert_eq!(
        lines,
        "clip_key,track_id,segment,offset_s,variant,genre,genre_id\n\
         000/000003.mp3,3,0,0,1,Folk,0\n000/000004.mp3,4,0,0,1,Jazz,1\n000/000005.mp3,5,0,0,1,Rock,2\n"
    );
    assert_eq!(
        exported.report.left_out,
        BTreeMap::from([("none".to_owned(), 3)])
    );
    assert_eq!(exported.report.files, 5);
    exported.assert_has("export.json", "\"feature_id\": \"id-of-log_mel\"");
}

/// Returns the names and contents of the members of a tar file, in order.
fn members(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut members = Vec::new();
    for entry in tar::Archive::new(bytes).entries().expect("a tar file") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").display().to_string();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).expect("a content");
        members.push((name, content));
    }
    members
}

#[test]
fn a_webdataset_has_the_stored_values_keys_and_classes() {
    let exported = export("log_mel", Format::Webdataset, &["validation"]);
    let members = members(&exported.bytes("validation-000000.tar"));
    let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names[..4],
        [
            "validation-000000000.npy",
            "validation-000000000.cls",
            "validation-000000000.json",
            "validation-000000001.npy"
        ]
    );
    assert_eq!(members.len(), 9);

    let (head, values) = npy(&members[3].1);
    assert!(head.contains("'<f2'") && head.contains("(2, 3)"), "{head}");
    let wanted = (0..6).map(|v| f16::from_f32((4 + v) as f32));
    let wanted: Vec<u8> = wanted.flat_map(f16::to_le_bytes).collect();
    assert_eq!(values, wanted);
    assert_eq!(members[4].1, b"1");
    let about: serde_json::Value = serde_json::from_slice(&members[5].1).expect("JSON");
    assert_eq!(
        about,
        json!({"clip_key": "000/000004.mp3", "track_id": 4, "segment": 0, "offset_s": 0.0, "variant": 1.0,
            "genre": "Jazz", "genre_id": 1})
    );
    assert_eq!(exported.report.notes, ["cls is the class id of genre"]);
}

#[test]
fn samples_without_a_class_have_no_cls() {
    let mut store = TestStore::new();
    let labelled = Clip::f16(1, &[0.0]);
    let unlabelled = Clip {
        genre: None,
        ..Clip::f16(2, &[0.0])
    };
    store.write_feature(
        &feature("one", "f16", &[Some(1)]),
        "fold.1",
        &[unlabelled, labelled],
    );

    let exported = try_export(&store, "one", Format::Webdataset, &[]).expect("an export");
    let members = members(&exported.bytes("fold.1-000000.tar"));
    let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "fold_1-000000000.npy",
            "fold_1-000000000.json",
            "fold_1-000000001.npy",
            "fold_1-000000001.cls",
            "fold_1-000000001.json"
        ]
    );
    assert_eq!(
        exported.report.notes[1],
        "1 sample without a class, and so without cls"
    );
}

#[test]
fn rows_of_several_shapes_have_a_file_each() {
    let exported = export("ragged", Format::Npy, &["training"]);
    for clip in 0..3 {
        let name = format!("training/000__00000{clip}.mp3_0.npy");
        let (head, values) = npy(&exported.bytes(&name));
        assert!(head.contains(&format!("(2, {})", clip + 1)), "{head}");
        assert_eq!(values.len(), 2 * (clip + 1) * 4);

        exported.assert_has("training.csv", &format!(",{name}\n"));
    }

    assert_eq!(exported.report.left_out.len(), 2);
}

#[test]
fn pictures_lie_in_a_folder_a_class() {
    let exported = export("quant", Format::Png, &[]);
    assert_eq!(exported.report.files, 6 + 2 + 2);

    assert!(
        exported
            .bytes("training/Folk/000__000000.mp3_0.png")
            .starts_with(b"\x89PNG")
    );
    assert_eq!(
        exported.text("classes.csv"),
        "id,class,folder\n0,Folk,Folk\n1,Jazz,Jazz\n2,Rock,Rock\n"
    );

    let line = ",Jazz,1,training/Jazz/000__000001.mp3_0.png\n";
    exported.assert_has("training.csv", line);
}

/// Creates the small store with a recipe that defines `log_mel` with two bands; `more` adds keys to the feature.
fn store_of_bands(more: serde_json::Value) -> TestStore {
    let mut store = TestStore::small();
    let mut spec = serde_json::json!({
        "name": "log_mel", "op": "mel", "n_mels": 2, "n_fft": 2048, "hop_length": 512, "dtype": "f16",
        "db": { "ref": 1.0, "top_db": 80.0 },
    });

    for (key, value) in more.as_object().expect("keys") {
        spec[key] = value.clone();
    }

    let spec = serde_json::from_value(spec).expect("a feature");
    store.manifest.recipe.features.push(spec);
    store
}

#[test]
fn sounds_lie_in_a_folder_a_class() {
    let store = store_of_bands(serde_json::json!({}));
    let exported = try_export(&store, "log_mel", Format::Wav, &[]).expect("an export");
    assert_eq!(exported.report.files, 6 + 2 + 2);

    let wav = exported.bytes("training/Folk/000__000000.mp3_0.wav");
    assert!(wav.starts_with(b"RIFF"));
    // The row has three frames with a hop of 512 samples.
    assert_eq!(wav.len(), 58 + 3 * 512 * 4);

    exported.assert_has(
        "training.csv",
        ",Jazz,1,training/Jazz/000__000001.mp3_0.wav\n",
    );

    let about: serde_json::Value =
        serde_json::from_str(&exported.text("export.json")).expect("JSON");
    assert_eq!(about["approximation"]["top_db"], 80.0);
    assert_eq!(about["approximation"]["peak"], serde_json::Value::Null);
    assert!(
        exported
            .report
            .notes
            .iter()
            .any(|note| note.contains("an approximation"))
    );

    // An export of a single split has the same bytes, although no rows of other splits precede it.
    let alone = try_export(&store, "log_mel", Format::Wav, &["validation"]).expect("an export");
    let name = "validation/Rock/000__000005.mp3_0.wav";
    assert_eq!(alone.bytes(name), exported.bytes(name));
}

#[test]
fn features_that_cannot_become_sound_are_rejected() {
    fn refused(more: serde_json::Value) -> String {
        let exported = try_export(&store_of_bands(more), "log_mel", Format::Wav, &[]);
        exported.expect_err("refused").to_string()
    }

    let allowed = "only features with op = \"pcm\", or with op = \"mel\" and normalize = \"none\" can be exported";
    assert_eq!(
        refused(serde_json::json!({ "normalize": "minmax" })),
        format!(
            "--format wav: log_mel has normalize = \"minmax\", and the scale factors of normalized rows are not stored: {allowed}"
        )
    );
    assert_eq!(
        refused(serde_json::json!({ "op": "mfcc", "n_mfcc": 2, "db": null })),
        format!("--format wav: log_mel is not a mel spectrogram: {allowed}")
    );
    assert!(
        refused(serde_json::json!({ "hop_length": 4096 }))
            .contains("are further apart (hop_length 4096) than they are long (win_length 2048)")
    );

    assert_eq!(
        error("log_mel", Format::Wav, &[]),
        "--format wav: the manifest's recipe does not describe log_mel"
    );
}

#[test]
fn a_dataset_has_a_file_a_shard_and_names_its_splits() {
    let exported = export("log_mel", Format::Huggingface, &[]);
    let path = exported.path("data/train-00000-of-00001.parquet");
    let opened = ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("a file"));
    let opened = opened.expect("Parquet");

    let metadata = opened.metadata().file_metadata().key_value_metadata();
    let info = metadata
        .and_then(|pairs| pairs.iter().find(|pair| pair.key == "huggingface"))
        .and_then(|pair| pair.value.clone())
        .expect("metadata");

    assert!(
        info.contains(r#""genre": {"_type":"ClassLabel","names":["Folk","Jazz","Rock"]}"#),
        "{info}"
    );
    assert!(matches!(
        opened
            .schema()
            .field_with_name("log_mel")
            .expect("a column")
            .data_type(),
        DataType::List(_)
    ));

    let batches: Vec<_> = opened
        .build()
        .expect("a reader")
        .map(|batch| batch.expect("rows"))
        .collect();
    let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
    assert_eq!(rows, 3);
    let ids = batches[0].column_by_name("genre").expect("ids");
    assert_eq!(ids.as_primitive::<Int64Type>().values().to_vec(), [0, 1, 2]);

    let readme = exported.text("README.md");
    assert!(
        readme.starts_with("---\nconfigs:\n- config_name: default\n"),
        "{readme}"
    );
    assert!(
        readme.contains("  - split: \"train\"\n    path: \"data/train-*\"\n"),
        "{readme}"
    );
    assert!(readme.contains("| left out | `none` | 3 |"), "{readme}");
    assert_eq!(exported.report.notes, ["split training is split train"]);
}

#[test]
fn unsupported_exports_fail_before_writing() {
    assert_eq!(
        error("nosuch", Format::Npy, &[]),
        "--feature nosuch: this version has log_mel, ragged, quant"
    );
    assert_eq!(
        error("log_mel", Format::Npy, &["tset"]),
        "--split tset: this version has training, validation, none"
    );
}

#[test]
fn a_damaged_file_is_named_and_nothing_is_written() {
    let store = TestStore::small();
    let entry = store.manifest.files_of("log_mel").next().expect("a file");
    let path = store.folder.path().join(&entry.path);
    let mut bytes = fs::read(&path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).expect("a file");

    for format in FORMATS {
        let error = try_export(&store, "log_mel", format, &[]).expect_err("damage");
        assert_eq!(error.kind(), Kind::Damaged, "{error}");
        assert!(error.to_string().contains(&entry.path), "{error}");
    }
}

#[test]
fn equal_exports_have_equal_bytes() {
    for format in FORMATS {
        let [one, other] = [(); 2].map(|()| export("log_mel", format, &[]));

        let mut folders = vec![one.path("")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }

                let name = path.strip_prefix(one.path("")).expect("below it");
                let same = fs::read(&path).expect("a file")
                    == fs::read(other.path("").join(name)).expect("a file");
                assert!(same, "{}", name.display());
            }
        }
    }
}

#[test]
fn stopped_export_returns_stopped() {
    let store = TestStore::small();
    let root = tempfile::tempdir().expect("a folder");
    let progress = Progress::default();
    progress
        .stop
        .store(true, std::sync::atomic::Ordering::Relaxed);

    let stopped = export_to(root.path(), &store, "log_mel", Format::Npy, &[], &progress);
    let error = stopped.expect_err("stopped");
    assert_eq!(error.kind(), Kind::Interrupted, "{error}");
    assert_eq!(fs::read_dir(root.path()).expect("a folder").count(), 0);
}
