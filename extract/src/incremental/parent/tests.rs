use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringViewArray};
use serde_json::json;
use wavemill_catalog::ClipRow;
use wavemill_schemas::canonical;
use wavemill_schemas::manifest::{Counts, Engine, FileEntry, Identity, Manifest};
use wavemill_schemas::recipe::Recipe;
use wavemill_store::shards::{ShardError, write_table};

use super::*;

/// Creates a store whose only version has these tables and nothing else.
pub(super) fn store_with(
    root: &Path,
    format_version: u32,
    recipe: Recipe,
    tables: Vec<(&str, RecordBatch)>,
) -> Store {
    let engine: Engine = serde_json::from_value(json!({
        "numerics": 1, "backend": "cpu", "level": "scalar", "decoder": "none", "target": "test", "libc": "none",
    }))
    .expect("an engine");
    let identity = Identity {
        recipe: canonical::id(&recipe).expect("an id"),
        rows: String::new(),
        inputs: String::new(),
        engine: canonical::id(&engine).expect("an id"),
        limit: None,
        sides: None,
        parent: None,
    };
    let plan_id = identity.plan_id().expect("an id");

    let mut files = Vec::new();
    for (name, rows) in tables {
        let path = format!("data/{plan_id}/{name}/{name}.parquet");
        files.push(written(root, path, name, rows));
    }

    let manifest = Manifest {
        format_version,
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
    let batches = [Ok::<_, ShardError>(rows)];
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

/// Creates 700 clips, two thirds of them on the training side.
fn clips() -> Vec<ClipRow> {
    let clips = (0..700).map(|i| ClipRow {
        clip_key: format!("{i:03}.mp3"),
        track_id: i,
        targets: Vec::new(),
        genres_all: Vec::new(),
        artist_id: None,
        album_id: None,
        split: ["training", "test", "training"][i as usize % 3].to_owned(),
    });
    clips.collect()
}

#[test]
fn old_formats_keep_their_shard_counts() {
    let clips = clips();
    let rows = RecordBatch::try_from_iter([
        (
            "clip_key",
            texts(clips.iter().map(|clip| clip.clip_key.as_str())),
        ),
        (
            "split_artist",
            texts(clips.iter().map(|clip| clip.split.as_str())),
        ),
    ])
    .expect("a table");

    for extra in [
        "[split]\nrule='artist'\n[shards]\nclips=100",
        "[split]\nrule='segment'\n[audio]\nsegment_s=1.0\nduration_s=3.0\n[shards]\nclips=100",
    ] {
        let recipe = recipe(extra);
        let plan = plan::shards(&clips, &recipe, None, &BTreeMap::new());
        assert!(plan.counts.values().any(|count| *count > 1), "{extra}");

        for format in [1, 2] {
            let folder = tempfile::tempdir().expect("a folder");
            let tables = vec![("tracks", rows.clone())];
            let store = store_with(folder.path(), format, recipe.clone(), tables);
            let counts = shard_counts(&store, &latest(&store)).expect("counts");
            assert_eq!(counts, plan.counts, "format {format}, {extra}");
        }
    }
}

#[test]
fn old_formats_take_sides_from_the_tracks_table() {
    let rows = RecordBatch::try_from_iter([
        ("clip_key", texts(["a", "b", "c"].into_iter())),
        (
            "split_artist",
            texts(["test", "test", "training"].into_iter()),
        ),
        (
            "split_stratified",
            texts(["training", "validation", "test"].into_iter()),
        ),
        ("artist_id", texts(["7", "7", "nobody"].into_iter())),
    ])
    .expect("a table");
    let drawn = recipe("[split]\nrule='artist'\nseed=3");
    let folder = tempfile::tempdir().expect("a folder");
    let store = store_with(folder.path(), 2, drawn.clone(), vec![("tracks", rows)]);
    let parent = latest(&store);

    let kept = kept_sides(&store, &parent, &drawn).expect("readable tracks");
    let kept = kept.expect("sides");
    for (group, side) in [("track:a", 2), ("track:c", 0), ("artist:7", 2)] {
        assert_eq!(kept.artist.side(group), Some(side), "{group}");
    }
    for (group, side) in [("track:a", 0), ("track:b", 1), ("track:c", 2)] {
        assert_eq!(kept.stratified.side(group), Some(side), "{group}");
    }
    assert_eq!(kept.stratified.side("artist:7"), None);
    // An artist name is identified by its hash: three tracks and two artists.
    assert_eq!(kept.artist.iter().count(), 5);

    // A recipe that draws sides differently keeps none. The rule may be different.
    for other in [
        "rule='artist'\nseed=4",
        "rule='artist'\nseed=3\nfractions=[0.6, 0.2, 0.2]",
        "rule='artist'\nseed=3\ngroup_duplicates=true",
    ] {
        let recipe = recipe(&format!("[split]\n{other}"));
        let kept = kept_sides(&store, &parent, &recipe).expect("readable tracks");
        assert_eq!(kept, None, "{other}");
    }
    let stratified = recipe("[split]\nrule='stratified'\nseed=3");
    let same = kept_sides(&store, &parent, &stratified).expect("readable tracks");
    assert_eq!(same, Some(kept));
}

#[test]
fn damaged_required_table_is_named() {
    let rows = RecordBatch::try_from_iter([("clip_key", texts(["a.mp3"].into_iter()))]);
    let folder = tempfile::tempdir().expect("a folder");
    let tables = vec![("tracks", rows.expect("a table"))];
    let store = store_with(folder.path(), 2, recipe("[split]\nrule='artist'"), tables);
    let parent = latest(&store);

    let error = shard_counts(&store, &parent).expect_err("no column of sides");
    let column = "split_artist";
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    assert!(cause.is_some_and(|cause| cause.contains(column)), "{error}");

    let path = folder.path().join(&parent.manifest.files[0].path);
    let mut bytes = std::fs::read(&path).expect("the file");
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).expect("room");
    let error = shard_counts(&store, &parent).expect_err("another content");
    assert!(matches!(error, StoreError::Needed { .. }), "{error}");
    assert!(error.to_string().contains("tracks.parquet"), "{error}");
}
