use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringViewArray};
use serde_json::json;
use wavemill_catalog::split::KeptRule;
use wavemill_schemas::input::InputSeen;
use wavemill_schemas::manifest::{Counts, Engine, FileEntry, Identity, Manifest};
use wavemill_schemas::recipe::Recipe;
use wavemill_schemas::split::Split;
use wavemill_schemas::{FORMAT_VERSION, canonical};
use wavemill_store::shards::write_table;

use super::*;

/// Creates a store whose only version has the given tables and nothing else.
pub(super) fn store_with(root: &Path, recipe: Recipe, tables: Vec<(&str, RecordBatch)>) -> Store {
    let engine: Engine = serde_json::from_value(json!({
        "numerics": 1, "backend": "cpu", "level": "scalar", "decoder": "none", "target": "test", "libc": "none",
        "writer": "none",
    }))
    .expect("an engine");
    let identity = Identity {
        recipe: canonical::id(&recipe).expect("an id"),
        rows: String::new(),
        inputs: String::new(),
        engine: canonical::id(&engine).expect("an id"),
        limit: None,
        sides: None,
        models: None,
        parent: None,
    };
    let plan_id = identity.plan_id().expect("an id");

    let mut files = Vec::new();
    for (name, rows) in tables {
        let path = format!("data/{plan_id}/{name}/{name}.parquet");
        files.push(written(root, path, name, rows));
    }

    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        plan_id,
        identity,
        engine,
        recipe,
        targets: Vec::new(),
        features: Vec::new(),
        files,
        shards: BTreeMap::new(),
        counts: Counts::default(),
        stats: BTreeMap::new(),
    };
    let store = Store::at(root);
    store.commit(1, &manifest).expect("a version");
    store
}

fn written(root: &Path, path: String, name: &str, rows: RecordBatch) -> FileEntry {
    let schema = rows.schema();
    let batches = [Ok::<_, StoreError>(rows)];
    write_table(root, path, name, schema, batches).expect("a table")
}

pub(super) fn texts<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringViewArray::from_iter_values(values))
}

pub(super) fn recipe(extra: &str) -> Recipe {
    let text =
        format!("name='t'\n[catalog]\ndataset='fma'\n{extra}\n[[features]]\nname='m'\nop='mel'\n");
    Recipe::parse(&text, "test.toml", &[]).expect("a valid recipe")
}

pub(super) fn latest(store: &Store) -> Parent {
    let parent = store.latest().expect("a readable store");
    parent.expect("a version")
}

#[test]
fn splits_are_kept_by_a_recipe_that_draws_alike() {
    let rows = RecordBatch::try_from_iter([
        (
            "rule",
            texts(["artist", "artist", "stratified"].into_iter()),
        ),
        (
            "group",
            texts(["artist:7", "track:a", "track:a"].into_iter()),
        ),
        ("side", texts(["test", "test", "training"].into_iter())),
    ])
    .expect("a table");
    let drawn = recipe("[split]\nrule='artist'\nseed=3");
    let folder = tempfile::tempdir().expect("a folder");
    let store = store_with(folder.path(), drawn.clone(), vec![("sides", rows)]);
    let parent = latest(&store);

    let kept = kept_splits(&store, &parent, &drawn).expect("readable splits");
    let kept = kept.expect("sides");
    assert_eq!(
        kept.by(KeptRule::Artist).split("artist:7"),
        Some(Split::Test)
    );
    assert_eq!(
        kept.by(KeptRule::Artist).split("track:a"),
        Some(Split::Test)
    );
    assert_eq!(kept.by(KeptRule::Artist).iter().count(), 2);
    assert_eq!(
        kept.by(KeptRule::Stratified).split("track:a"),
        Some(Split::Training)
    );
    assert_eq!(kept.by(KeptRule::Stratified).split("artist:7"), None);

    // A recipe that draws splits differently keeps none of them. The split rule may be different.
    for other in [
        "rule='artist'\nseed=4",
        "rule='artist'\nseed=3\nfractions=[0.6, 0.2, 0.2]",
        "rule='artist'\nseed=3\ngroup_duplicates=true",
    ] {
        let recipe = recipe(&format!("[split]\n{other}"));
        let kept = kept_splits(&store, &parent, &recipe).expect("readable splits");
        assert_eq!(kept, None, "{other}");
    }
    let stratified = recipe("[split]\nrule='stratified'\nseed=3");
    let same = kept_splits(&store, &parent, &stratified).expect("readable splits");
    assert_eq!(same, Some(kept));
}

#[test]
fn damaged_required_table_is_named() {
    let rows = RecordBatch::try_from_iter([("clip_key", texts(["a.mp3"].into_iter()))]);
    let folder = tempfile::tempdir().expect("a folder");
    let tables = vec![("tracks", rows.expect("a table"))];
    let store = store_with(folder.path(), recipe("[split]\nrule='artist'"), tables);
    let parent = latest(&store);

    let error = splits_of_clips(&store, &parent.manifest).expect_err("no column of splits");
    let column = "split_artist";
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    assert!(cause.is_some_and(|cause| cause.contains(column)), "{error}");

    let path = folder.path().join(&parent.manifest.files[0].path);
    let mut bytes = std::fs::read(&path).expect("the file");
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).expect("room");
    let error = splits_of_clips(&store, &parent.manifest).expect_err("another content");
    assert!(matches!(error, StoreError::Needed { .. }), "{error}");
    assert!(error.to_string().contains("tracks.parquet"), "{error}");
}

/// An empty result would hide clips that vanished or were renamed.
#[test]
fn inputs_without_a_sound_table_come_from_the_records_or_are_an_error() {
    let rows = RecordBatch::try_from_iter([
        ("clip_key", texts(["a.mp3"].into_iter())),
        ("content_blake3", texts(["b"].into_iter())),
        ("decode_key", texts(["c"].into_iter())),
    ]);
    let folder = tempfile::tempdir().expect("a folder");
    let tables = vec![("inputs", rows.expect("a table"))];
    let store = store_with(folder.path(), recipe("[split]\nrule='artist'"), tables);
    let manifest = latest(&store).manifest;
    // A store compares the hash of a file only once.
    let read = || inputs(&Store::at(folder.path()), &manifest);
    assert_eq!(read().expect("a sound table")["a.mp3"].content, "b");

    let path = folder.path().join(&manifest.files[0].path);
    std::fs::write(&path, "other bytes").expect("room");
    let error = read().expect_err("neither a table nor records");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("inputs.parquet"), "{error}");
    assert!(input_keys(&store, &manifest).is_err());

    let seen = BTreeMap::from([("a.mp3".to_owned(), InputSeen::unreadable(None))]);
    store
        .write_seen(&manifest.plan_id, "training-00000", &seen)
        .expect("room");
    assert_eq!(read().expect("records").len(), 1);
    assert_eq!(input_keys(&store, &manifest).expect("records"), ["a.mp3"]);

    // A table that cannot be opened may be intact.
    std::fs::remove_file(&path).expect("the table");
    std::os::unix::fs::symlink("inputs.parquet", &path).expect("a link");
    let error = read().expect_err("a link to itself");
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
}
