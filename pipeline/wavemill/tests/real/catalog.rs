//! Runs the catalog on FMA's own metadata, and checks the published totals and every kind of broken row.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Command;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use wavemill_catalog::{Catalog, CatalogSettings, ClassLists, Recordings, clean, extra_tables};
use wavemill_schemas::input::{InputId, Stamp};
use wavemill_schemas::recipe::{
    CatalogSpec, CleanStep, Dataset, Recipe, SplitRule, SplitSpec, Subset, TargetSpec,
};
use wavemill_schemas::reject::Reason;
use wavemill_source::AudioIndex;
use wavemill_tests::{Failed, Trial, real};

/// Returns the tests of the catalog.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        real("catalog_real_slice", real_slice),
        real("catalog_windows_1252_row_is_one_reject", windows_1252),
        real("catalog_labels_as_table", labels_as_table),
        real("catalog_full_size_totals", full_size_totals),
        real("catalog_zip_equals_file", zip_equals_file),
        real("catalog_published_features", published_features),
    ]
}

fn recipe(dataset: Dataset, clean: Vec<CleanStep>) -> Recipe {
    Recipe {
        name: "trial".to_owned(),
        description: String::new(),
        catalog: CatalogSpec {
            dataset,
            subset: None,
            require_audio: false,
            clean,
            csv: Default::default(),
        },
        targets: Vec::new(),
        split: SplitSpec {
            rule: SplitRule::Official,
            ..SplitSpec::default()
        },
        audio: Default::default(),
        image: Default::default(),
        features: Vec::new(),
        shards: Default::default(),
    }
}

fn keep(step: &str, predicate: &str) -> CleanStep {
    CleanStep {
        step: step.to_owned(),
        predicate: Some(predicate.to_owned()),
        sql: None,
    }
}

fn query(step: &str, sql: &str) -> CleanStep {
    CleanStep {
        step: step.to_owned(),
        predicate: None,
        sql: Some(sql.to_owned()),
    }
}

fn genre() -> TargetSpec {
    TargetSpec {
        name: "genre".to_owned(),
        column: "track_genre_top".to_owned(),
        classes: None,
    }
}

fn catalog(recipe: &Recipe, path: &Path) -> Result<Catalog, Failed> {
    with_audio(recipe, path, &AudioIndex::new())
}

fn with_audio(recipe: &Recipe, path: &Path, audio: &AudioIndex) -> Result<Catalog, Failed> {
    let cleaned = clean(
        recipe,
        &path.into(),
        audio,
        CatalogSettings::default(),
        &std::sync::Arc::default(),
    )?;
    Ok(cleaned.split(recipe, &Recordings::default(), None, &ClassLists::new())?)
}

/// Creates an index of audio files with every clip of `tracks` whose track id satisfies `wanted`.
fn audio(tracks: &RecordBatch, wanted: impl Fn(i64) -> bool) -> AudioIndex {
    let ids = tracks["track_id"].as_primitive::<Int64Type>();
    let input = InputId {
        bytes: 1,
        stamp: Stamp::MtimeNs(0),
    };
    let keys = tracks["clip_key"].as_string_view();
    let pairs = ids.values().iter().zip(keys.iter().flatten());

    pairs
        .filter(|(id, _)| wanted(**id))
        .map(|(_, key)| (key.to_owned(), input))
        .collect()
}

fn counts<'a>(values: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, u64> {
    let mut counts = BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_default() += 1);
    counts
}

fn text_counts<'a>(rows: &'a RecordBatch, column: &str) -> BTreeMap<&'a str, u64> {
    counts(rows[column].as_string_view().iter().flatten())
}

fn n_present(rows: &RecordBatch, column: &str) -> usize {
    rows.num_rows() - rows[column].null_count()
}

fn real_slice(data: &Path) -> Result<(), Failed> {
    let path = data.join("fma_metadata/tracks_real_slice.csv");
    let all = catalog(&recipe(Dataset::Fma, Vec::new()), &path)?;
    assert_eq!(
        (all.rows_read, all.clips.len(), &all.rejects[..]),
        (682, 682, &[][..])
    );

    let tracks = &all.tables["tracks"];
    let splits = BTreeMap::from([("training", 563), ("validation", 48), ("test", 71)]);
    assert_eq!(text_counts(tracks, "split_official"), splits);
    assert_eq!(n_present(tracks, "track_genre_top"), 631);
    assert_eq!(all.clips[0].clip_key, "000/000002.mp3");
    assert_eq!(all.clips[0].genres_all, [21]);
    assert!(
        tracks["artist_bio"]
            .as_string_view()
            .value(0)
            .starts_with("<p>A Way Of Life")
    );

    let mut labelled = recipe(
        Dataset::Fma,
        vec![keep("labelled", "track_genre_top IS NOT NULL")],
    );
    labelled.targets = vec![genre()];
    labelled.catalog.subset = Some(Subset::Medium);
    labelled.catalog.require_audio = true;

    let files = audio(tracks, |id| id % 10 != 0);
    let cleaned = with_audio(&labelled, &path, &files)?;

    let steps: Vec<_> = cleaned
        .steps
        .iter()
        .map(|step| (step.step.as_str(), step.kept + step.dropped))
        .collect();
    assert_eq!(steps, [("subset", 682), ("labelled", 194), ("audio", 194)]);
    assert!(
        cleaned
            .clips
            .iter()
            .all(|clip| clip.targets[0].is_some() && clip.track_id % 10 != 0)
    );

    let dropped_by = text_counts(&cleaned.tables["tracks_all"], "dropped_by");
    assert_eq!(dropped_by["subset"], 488);
    assert_eq!(dropped_by["audio"], cleaned.steps[2].dropped);

    let again = with_audio(&labelled, &path, &files)?;
    assert_eq!(again.rows_hash().unwrap(), cleaned.rows_hash().unwrap());
    assert_eq!(again.clips, cleaned.clips);
    Ok(())
}

fn unpack(packed: &Path, path: &Path) -> Result<(), Failed> {
    let status = Command::new("zstd")
        .args(["-d", "-q", "-o"])
        .arg(path)
        .arg(packed)
        .status()?;

    if status.success() {
        Ok(())
    } else {
        Err(format!("zstd: {status}").into())
    }
}

fn windows_1252(data: &Path) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("raw_tracks.csv");
    unpack(
        &data.join("fma_metadata/raw_tracks_excerpt_cp1252.csv.zst"),
        &path,
    )?;

    let keys = query(
        "keys",
        "SELECT *, concat(track_id, '.mp3') AS clip_key FROM input",
    );
    let table = catalog(&recipe(Dataset::Table, vec![keys]), &path)?;

    let [reject] = &table.rejects[..] else {
        return Err(format!("{:?}", table.rejects).into());
    };

    assert_eq!((table.rows_read, table.clips.len()), (2000, 1999));
    assert_eq!(reject.reason, Reason::BadEncoding);
    assert!(
        reject.line.is_some_and(|line| line > 1) && reject.column.is_some(),
        "{reject:?}"
    );
    Ok(())
}

fn labels_as_table(data: &Path) -> Result<(), Failed> {
    let path = data.join("fma_metadata/labels_small_medium.csv");
    let sql = "SELECT track_id, genre_top AS track_genre_top, split AS set_split, python_ints(genres) AS genres_all,
                      concat('fma/', track_id, '.mp3') AS clip_key
               FROM input";

    let steps = vec![query("keys", sql), keep("rock", "track_genre_top = 'Rock'")];
    let mut table = recipe(Dataset::Table, steps);
    table.targets = vec![genre()];
    let rock = catalog(&table, &path)?;

    assert_eq!(rock.rows_read, 24_988);
    assert_eq!((rock.steps[0].dropped, rock.steps[0].kept), (0, 24_988));
    assert_eq!(rock.classes["genre"], ["Rock"]);
    assert_eq!(rock.clips.len() as u64, rock.steps[1].kept);
    assert!(rock.clips.iter().all(|clip| clip.targets == [Some(0)]));
    assert!(rock.clips.iter().any(|clip| clip.genres_all.len() > 1));
    Ok(())
}

fn full_size_totals(data: &Path) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("tracks.csv");
    let metadata = data.join("fma_metadata");

    let made = Command::new("python3")
        .arg(data.join("make_full_tracks.py"))
        .arg(&metadata)
        .arg(&path)
        .output()?;
    assert!(made.status.success(), "{made:?}");

    std::fs::copy(
        metadata.join("genres.csv"),
        folder.path().join("genres.csv"),
    )?;

    let official: serde_json::Value =
        serde_json::from_slice(&std::fs::read(metadata.join("official_counts.json"))?)?;

    let all = catalog(&recipe(Dataset::Fma, Vec::new()), folder.path())?;
    let tracks = &all.tables["tracks"];
    assert_eq!(
        (all.rows_read, tracks.num_rows(), all.rejects.len()),
        (106_574, 106_574, 0)
    );
    assert_eq!(all.tables["genres"].num_rows(), 163);

    assert_eq!(
        serde_json::to_value(text_counts(tracks, "set_split"))?,
        official["split_rows"]
    );
    assert_eq!(
        serde_json::to_value(text_counts(tracks, "set_subset"))?,
        official["subset_rows_exact"]
    );

    for (column, wanted) in official["non_null_or_positive"]["track"]
        .as_object()
        .ok_or("no track counts")?
    {
        let found = n_present_or_positive(tracks, &format!("track_{column}"));
        assert_eq!(Some(found as u64), wanted.as_u64(), "track_{column}");
    }

    assert_eq!(all.tables["artists"].num_rows(), 16_341);
    assert_eq!(all.tables["albums"].num_rows(), 14_853); // −1 means no album
    assert_eq!(tracks["album_id"].null_count(), 1025);

    let mut labelled = recipe(
        Dataset::Fma,
        vec![keep("labelled", "track_genre_top IS NOT NULL")],
    );
    labelled.targets = vec![genre()];
    let labelled = catalog(&labelled, folder.path())?;

    assert_eq!(
        (labelled.clips.len(), labelled.classes["genre"].len()),
        (49_598, 16)
    );
    Ok(())
}

fn zip_equals_file(data: &Path) -> Result<(), Failed> {
    let slice = data.join("fma_metadata/tracks_real_slice.csv");
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("fma_metadata.zip");

    let mut archive = zip::ZipWriter::new(File::create(&path)?);
    for (name, from) in [
        ("tracks.csv", &slice),
        ("genres.csv", &data.join("fma_metadata/genres.csv")),
    ] {
        archive.start_file(
            format!("fma_metadata/{name}"),
            zip::write::SimpleFileOptions::default(),
        )?;
        io::copy(&mut File::open(from)?, &mut archive)?;
    }
    archive.finish()?;

    let recipe = recipe(Dataset::Fma, Vec::new());
    let (zipped, plain) = (catalog(&recipe, &path)?, catalog(&recipe, &slice)?);

    assert_eq!(zipped.rows_hash().unwrap(), plain.rows_hash().unwrap());
    assert_eq!(zipped.clips, plain.clips);
    assert_eq!(zipped.tables["genres"].num_rows(), 163);
    Ok(())
}

fn published_features(data: &Path) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    unpack(
        &data.join("fma_metadata/features_mfcc_slice.csv.zst"),
        &folder.path().join("features.csv"),
    )?;

    let mut table = extra_tables(folder.path())?.pop().ok_or("no table")?;
    let batches = table.by_ref().collect::<Result<Vec<_>, _>>()?;
    let nulls: usize = batches
        .iter()
        .map(|rows| rows["mfcc_mean_01"].null_count())
        .sum();

    assert_eq!(
        batches.iter().map(RecordBatch::num_rows).sum::<usize>(),
        2000
    );
    assert_eq!((batches[0].num_columns(), nulls), (141, 10));
    assert_eq!(table.rejects(), []);
    Ok(())
}

/// Counts values as the published totals do: lists that are not empty, and numbers above 0, because 0 or −1 stands for
/// a missing value.
fn n_present_or_positive(rows: &RecordBatch, column: &str) -> usize {
    let array = &rows[column];
    let is_interest = column == "track_interest";

    if let Some(lists) = array.as_list_opt::<i32>() {
        return lists
            .iter()
            .flatten()
            .filter(|list| !list.is_empty())
            .count();
    }

    match array.as_primitive_opt::<Int64Type>() {
        Some(numbers) if !is_interest => numbers
            .iter()
            .flatten()
            .filter(|number| *number > 0)
            .count(),
        _ => n_present(rows, column),
    }
}
