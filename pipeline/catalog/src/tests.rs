//! Runs `clean` on small files, with broken rows, wrong SQL and missing audio.

mod columns;
mod forms;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use wavemill_schemas::exit::{Classified, Kind};
use wavemill_schemas::input::{InputId, Stamp};
use wavemill_schemas::recipe::{
    CatalogSpec, CleanStep, Dataset, Recipe, SplitRule, SplitSpec, TargetSpec,
};
use wavemill_schemas::reject::Reason;
use wavemill_schemas::text::error_line;
use wavemill_source::AudioIndex;

use super::*;

const HEADER: &str = "\u{feff},album,artist,set,set,track,track\n,id,id,split,subset,genre_top,genres_all\ntrack_id,,,,,,\n";

fn recipe(dataset: Dataset, clean: Vec<CleanStep>) -> Recipe {
    let targets = vec![TargetSpec {
        name: "genre".into(),
        column: "track_genre_top".into(),
        classes: None,
    }];

    Recipe {
        name: "test".into(),
        description: String::new(),
        catalog: CatalogSpec {
            dataset,
            subset: None,
            require_audio: false,
            clean,
            csv: Default::default(),
        },
        targets,
        split: SplitSpec::default(),
        audio: Default::default(),
        image: Default::default(),
        features: Vec::new(),
        shards: Default::default(),
    }
}

/// Returns the recipe with the labels in this column.
fn with_target(mut recipe: Recipe, column: &str) -> Recipe {
    recipe.targets[0].column = column.into();
    recipe
}

fn fma(clean: Vec<CleanStep>) -> Recipe {
    recipe(Dataset::Fma, clean)
}

/// Returns a recipe for tables with clips in column `file` and labels in column `label`.
fn table_recipe(mut clean: Vec<CleanStep>) -> Recipe {
    clean.push(query("keys", "SELECT file AS clip_key, * FROM input"));
    with_target(recipe(Dataset::Table, clean), "label")
}

fn keep(step: &str, predicate: &str) -> CleanStep {
    CleanStep {
        step: step.into(),
        predicate: Some(predicate.into()),
        sql: None,
    }
}

fn query(step: &str, sql: &str) -> CleanStep {
    CleanStep {
        step: step.into(),
        predicate: None,
        sql: Some(sql.into()),
    }
}

/// Writes a file to a new folder.
fn folder_with(name: &str, content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = put(&folder, name, content);
    (folder, path)
}

fn put(folder: &tempfile::TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn tracks_csv(rows: &[u8]) -> tempfile::TempDir {
    folder_with("tracks.csv", [HEADER.as_bytes(), rows].concat()).0
}

/// Writes tracks 1 to `n`, with artist i / 2 for track i. A third of the tracks have no genre.
fn some_tracks(n: usize) -> tempfile::TempDir {
    let mut rows = String::new();
    for i in 1..=n {
        let genre = ["", "Rock", "Jazz"][i % 3];
        writeln!(rows, "{i},-1,{},training,small,{genre},\"[1, 2]\"", i / 2).unwrap();
    }
    tracks_csv(rows.as_bytes())
}

fn run(recipe: &Recipe, metadata: &Path) -> Result<Catalog, CatalogError> {
    cleaned(recipe, Some(metadata), &AudioIndex::new())
}

fn cleaned(
    recipe: &Recipe,
    metadata: Option<&Path>,
    audio: &AudioIndex,
) -> Result<Catalog, CatalogError> {
    clean(
        recipe,
        &metadata.map(MetadataFiles::from).unwrap_or_default(),
        audio,
        CatalogSettings::default(),
        &Arc::default(),
    )?
    .split(recipe, &Recordings::default(), None, &ClassLists::new())
}

/// Returns the error of a step, which names the step.
fn step_error(step: CleanStep) -> String {
    let name = format!("`{}`", step.step);
    let error = run(&fma(vec![step]), some_tracks(6).path()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains(&name), "{error}");
    error
}

fn keys(catalog: &Catalog) -> Vec<&str> {
    let clips = catalog.clips.iter();
    clips.map(|clip| clip.clip_key.as_str()).collect()
}

fn index<'a>(keys: impl IntoIterator<Item = &'a str>) -> AudioIndex {
    let input = InputId {
        bytes: 1,
        stamp: Stamp::MtimeNs(0),
    };
    let keys = keys.into_iter();
    keys.map(|key| (key.to_owned(), input)).collect()
}

#[test]
fn every_kind_of_broken_row_is_a_reject_with_line_and_column() {
    let rows = b"1,5,1,training,small,Rock,[1]\n\
        2,5,1,training,small,\"two\nlines\",[1]\n\
        3,x,1,training,small,Rock,[1]\n\
        4,5,1,training,small,Rock\n\
        5,5,1,training,small,R\xf6ck,[1]\n\
        six,5,1,training,small,Rock,[1]\n\
        1,5,1,training,small,Rock,[1]\n\
        ,5,1,training,small,Rock,[1]\n\
        9,5,1,training,small,Rock,1;2\n\
        10,5,1,training,small,Rock,[1]\n\
        11,5,1,training,small,Rock,[1]\n\
        12,5,1,training,small,Rock,[1]\n\
        13,5,1,training,small,Rock,[1]\n";

    let catalog = run(&fma(vec![]), tracks_csv(rows).path()).unwrap();
    let found: Vec<_> = catalog
        .rejects
        .iter()
        .map(|r| (r.reason, r.line.unwrap(), r.column.as_deref().unwrap()))
        .collect();

    let wanted = [
        (Reason::BadRow, 7, "album_id"),
        (Reason::BadRow, 8, "track_genres_all"),
        (Reason::BadEncoding, 9, "track_genre_top"),
        (Reason::BadRow, 10, "track_id"),
        (Reason::BadRow, 11, "track_id"),
        (Reason::BadRow, 12, "track_id"),
        (Reason::BadRow, 13, "track_genres_all"),
    ];

    assert_eq!(found, wanted);
    assert_eq!((catalog.rows_read, catalog.clips.len()), (13, 6));
    assert_eq!(catalog.classes["genre"], ["Rock", "two\nlines"]);
}

#[test]
fn windows_line_ends_give_the_same_rows_and_lines() {
    let rows = "1,5,1,training,small,\"two\nlines\",[1]\n2,x,1,training,small,Rock,[1]\n\n3,5,1,training,small,Jazz,[1]\n";
    let catalogs = [
        rows.to_owned(),
        rows.replace('\n', "\r\n").replace("two\r\n", "two\n"),
    ]
    .map(|rows| run(&fma(vec![]), tracks_csv(rows.as_bytes()).path()).unwrap());

    assert_eq!(catalogs[0].rejects[0].line, Some(6));
    assert_eq!(catalogs[1].rejects, catalogs[0].rejects);
    assert_eq!(catalogs[1].tables, catalogs[0].tables);
}

#[test]
fn binary_header_is_an_error() {
    let folder = some_tracks(3);
    let path = folder.path().join("tracks.csv");
    std::fs::write(&path, b"track_id,na\xefve\n1,2\n").unwrap();
    let error = run(&fma(vec![]), &path).unwrap_err();
    assert_eq!(
        error.to_string(),
        "metadata file tracks.csv: its header is not UTF-8"
    );
}

#[test]
fn metadata_of_another_kind_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let genres = folder.path().join("genres.csv");
    std::fs::write(&genres, "genre_id,title\n1,Rock\n").unwrap();

    for (path, begins, ends) in [
        (
            &empty,
            "--metadata",
            "`tracks.csv` not found; found: no file; give the folder or zip with the metadata of the data set",
        ),
        (
            &genres,
            "metadata file genres.csv: no header line starts with `track_id`",
            "",
        ),
    ] {
        let error = run(&fma(vec![]), path).unwrap_err();
        let message = error.to_string();
        assert_eq!(error.kind(), Kind::Usage, "{message}");
        assert!(
            message.starts_with(begins) && message.ends_with(ends),
            "{message}"
        );
    }
}

#[test]
fn steps_count_rows_and_track_changes() {
    let steps = vec![
        keep("labelled", "track_genre_top IS NOT NULL -- a comment"),
        query(
            "first",
            "SELECT * FROM input WHERE track_id <= 4 ORDER BY track_id DESC",
        ),
    ];

    let tracks = some_tracks(9);
    let catalog = run(&fma(steps), tracks.path()).unwrap();

    let counts: Vec<_> = catalog
        .steps
        .iter()
        .map(|step| (step.step.as_str(), step.dropped, step.kept))
        .collect();
    assert_eq!(counts, [("labelled", 3, 6), ("first", 3, 3)]);

    let kept = ["000/000001.mp3", "000/000002.mp3", "000/000004.mp3"];
    assert_eq!(keys(&catalog), kept);
    assert_eq!(
        (catalog.clips[0].album_id, &catalog.clips[0].genres_all[..]),
        (None, &[1, 2][..])
    );

    let all = &catalog.tables["tracks_all"];
    assert_eq!((all.num_rows(), all["dropped_by"].null_count()), (9, 3));
}

#[test]
fn sql_that_writes_is_refused() {
    for sql in [
        "DROP TABLE input",
        "CREATE TABLE x AS SELECT * FROM input",
        "INSERT INTO input SELECT * FROM input",
        "COPY input TO '/tmp/wavemill-must-not-exist.csv'",
        "SET datafusion.execution.batch_size = 1",
    ] {
        let message = step_error(query("bad", sql));
        assert!(message.contains("only one query"), "{sql}: {message}");
    }
}

#[test]
fn misspelt_column_error_names_step_and_nearest_columns() {
    let message = step_error(keep("labelled", "track_genre_topp IS NOT NULL"));
    assert!(
        message.starts_with("cleaning step `labelled`: no column `track_genre_topp`"),
        "{message}"
    );
    assert!(
        message.contains("nearest: track_genre_top,") && !message.contains('\n'),
        "{message}"
    );

    let error = run(
        &fma(vec![keep("labelled", "track_genre_topp IS NOT NULL")]),
        some_tracks(1).path(),
    );
    let chain = error_line(&error.unwrap_err());
    assert!(
        !chain.contains("Valid fields") && chain.matches("track_genre_top").count() == 2,
        "{chain}"
    );
}

#[test]
fn missing_table_error_names_file_and_searched_paths() {
    let tracks = some_tracks(6);
    let genres = format!(
        "cleaning step `top`: no table `genres`: it comes from genres.csv, which is not in {}",
        tracks.path().display()
    );

    for (sql, wanted) in [
        (
            "SELECT * FROM input WHERE track_id IN (SELECT genre_id FROM genres)",
            genres.as_str(),
        ),
        (
            "WITH some AS (SELECT * FROM inputs) SELECT * FROM some",
            "cleaning step `top`: no table `inputs`: nearest: input; --table inputs=FILE adds a table",
        ),
    ] {
        let recipe = fma(vec![query("top", sql)]);
        let error = run(&recipe, tracks.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{error:?}");
        assert_eq!(error.to_string(), wanted);
    }
}

#[test]
fn queries_that_lose_or_repeat_keys_are_errors() {
    for (sql, wanted) in [
        ("SELECT csv_line, track_id FROM input", "no `clip_key`"),
        ("SELECT * FROM input UNION ALL SELECT * FROM input", "once"),
        ("SELECT * REPLACE ('a' AS clip_key) FROM input", "once"),
        (
            "SELECT * REPLACE (csv_line + 100 AS csv_line) FROM input",
            "unknown or repeated `csv_line`",
        ),
        (
            "SELECT input.*, t.album_id FROM input JOIN (SELECT track_id, album_id FROM input) AS t \
             ON input.track_id = t.track_id",
            "two columns `album_id`; list the columns",
        ),
    ] {
        let message = step_error(query("keys", sql));
        assert!(message.contains(wanted), "{sql}: {message}");
    }
}

#[test]
fn results_that_a_store_cannot_contain_are_errors() {
    let nested = |inner: &str, n: usize| "[".repeat(n) + inner + &"]".repeat(n);
    let deep = format!(
        "WITH a AS (SELECT *, {} AS x FROM input) SELECT * EXCEPT (x), {} AS y FROM a",
        nested("1", 31),
        nested("x", 30)
    );
    for (sql, wanted) in [
        ("FROM input", "begin the query with SELECT"),
        (&deep, "column y has more than 61 levels"),
    ] {
        let message = step_error(query("result", sql));
        assert!(message.contains(wanted), "{message}");
    }
}

#[test]
fn a_condition_that_ends_its_brackets_is_an_error() {
    for condition in ["true) OR (true", "true) LIMIT (5"] {
        let message = step_error(keep("five", condition));
        assert!(
            message.contains("`five`")
                && message.contains("expected end of the condition, found )"),
            "{message}"
        );
    }
}

#[test]
fn query_that_restores_dropped_rows_is_an_error() {
    let tracks = some_tracks(6);
    // The header has three lines, so the first track is on line 4. The queries return more rows than are left, or just
    // as many.
    for (from, to) in [(4, 6), (5, 5)] {
        let sql = format!(
            "SELECT i AS csv_line, 'k' || i AS clip_key FROM generate_series({from}, {to}) AS t(i)"
        );
        let steps = vec![keep("first", "track_id = 1"), query("back", &sql)];
        let error = run(&fma(steps), tracks.path());

        let message = error.unwrap_err().to_string();
        assert!(
            message.contains("unknown or repeated `csv_line`"),
            "{message}"
        );
    }
}

#[test]
fn rows_without_audio_are_dropped_in_the_last_step() {
    let tracks = some_tracks(6);
    let mut recipe = fma(vec![]);
    recipe.catalog.require_audio = true;

    let audio = index(["000/000001.mp3", "000/000003.mp3", "x.mp3"]);
    let some = cleaned(&recipe, Some(tracks.path()), &audio).unwrap();
    assert_eq!(
        some.steps,
        [StepCount {
            step: "audio".into(),
            dropped: 4,
            kept: 2
        }]
    );
    assert_eq!(
        some.warnings,
        ["4 of 6 rows have no file below the audio root"]
    );

    let none = cleaned(&recipe, Some(tracks.path()), &index(["1.mp3"]));
    let none = none.unwrap_err().to_string();
    assert!(
        none.contains("none of the 6 rows") && none.contains("000/000001.mp3"),
        "{none}"
    );
}

#[test]
fn genre_is_read_from_the_folder() {
    let audio = index(["jazz/a.mp3", "rock/b.mp3", "c.mp3"]);
    let mut recipe = with_target(recipe(Dataset::Folders, vec![]), "genre");
    recipe.split.rule = SplitRule::Stratified;

    let catalog = cleaned(&recipe, None, &audio).unwrap();
    assert_eq!(catalog.classes["genre"], ["jazz", "rock"]);

    let targets: Vec<_> = catalog
        .clips
        .iter()
        .map(|clip| (clip.clip_key.as_str(), clip.targets[0]))
        .collect();
    assert_eq!(
        targets,
        [
            ("c.mp3", None),
            ("jazz/a.mp3", Some(0)),
            ("rock/b.mp3", Some(1))
        ]
    );
}

/// Runs `clean` on three clips in folders, with a clip list in a file of the given name.
fn listed(
    name: &str,
    list: impl AsRef<[u8]>,
    change: impl FnOnce(&mut Recipe),
) -> Result<Catalog, String> {
    let (_folder, path) = folder_with(name, list);

    let audio = index(["jazz/a.mp3", "rock/b.mp3", "rock/c.mp3"]);
    let mut recipe = with_target(recipe(Dataset::Folders, vec![]), "genre");
    change(&mut recipe);

    cleaned(&recipe, Some(&path), &audio).map_err(|error| {
        assert_eq!(error.kind(), Kind::Usage, "{error}");
        error.to_string()
    })
}

fn by_column_side(recipe: &mut Recipe) {
    recipe.split.rule = SplitRule::Column;
    recipe.split.column = Some("side".into());
}

fn splits(catalog: &Catalog) -> Vec<&str> {
    let clips = catalog.clips.iter();
    clips.map(|clip| clip.split.as_str()).collect()
}

#[test]
fn list_provides_folders_splits_labels_and_artists() {
    let list = "clip_key,side,mood,artist,genre\n\
                rock/b.mp3,training,dark,Mia,rock\n\
                jazz/a.mp3,test,,Mia,jazz\n\
                rock/gone.mp3,test,light,Tom,pop\n";

    let catalog = listed("list.csv", list, |recipe| {
        by_column_side(recipe);
        recipe.targets[0].column = "mood".into();
    })
    .unwrap();

    assert_eq!(splits(&catalog), ["test", "training", "none"]);
    assert_eq!(catalog.classes["genre"], ["dark"]);
    let artists: Vec<_> = catalog.clips.iter().map(|clip| clip.artist_id).collect();
    assert!(artists[0].is_some() && artists[0] == artists[1] && artists[2].is_none());
    assert_eq!(
        catalog.warnings,
        [
            "metadata file list.csv: 1 of its 3 rows name no file below the audio root, such as rock/gone.mp3",
            "metadata file list.csv: 1 of 3 files have no row in it, such as rock/c.mp3: its columns are null there",
            "split.column: no clip is for validation: the values of `side`, with their clips, are `none` (1), `test` (1), \
             `training` (1); splits are named training, validation, test"
        ]
    );

    // There is one row per clip, regardless of the clip list.
    assert_eq!(catalog.rows_read, 3);

    // The condition of a cleaning step can use the list's columns.
    let some = listed("list.csv", list, |recipe| {
        recipe.catalog.clean = vec![keep("light", "mood IS NULL")];
    })
    .unwrap();
    assert_eq!(keys(&some), ["jazz/a.mp3", "rock/c.mp3"]);
}

/// Returns the error for a clip list that cannot be used.
fn refused(list: &str) -> String {
    listed("list.csv", list, by_column_side).unwrap_err()
}

#[test]
fn list_errors_name_the_line() {
    assert_eq!(
        refused("path,side\njazz/a.mp3,test\n"),
        "metadata file list.csv, line 1: no column `clip_key` with the path of each row's file below the audio root; \
         nearest: side, path"
    );
    assert_eq!(
        refused("clip_key,side\njazz/a.mp3,test\nrock/b.mp3,test\njazz/a.mp3,training\n"),
        "metadata file list.csv, line 4: `clip_key` jazz/a.mp3 is already on line 2"
    );
    assert_eq!(
        refused("clip_key,side\njazz/a.mp3,test\n,test\n"),
        "metadata file list.csv, line 3: no `clip_key`"
    );
    assert_eq!(
        refused("clip_key,side,genre\njazz/a.mp3,test,jazz\nrock/b.mp3,test,blues\n"),
        "metadata file list.csv, line 3: column `genre` has `blues`, but the file is in the folder `rock`, which determines \
         its genre: rename the column to keep both"
    );
    assert_eq!(
        refused("clip_key,side,track_id\njazz/a.mp3,test,1\n"),
        "metadata file list.csv, line 1: column `track_id` is derived from the folders: rename it"
    );
    assert_eq!(
        refused("clip_key,side\ngenres/rock/x.wav,test\ngenres/rock/b.wav,test\n"),
        "metadata file list.csv: none of its 2 rows names an existing file: it lists genres/rock/x.wav, but the \
         audio root contains jazz/a.mp3; each `clip_key` must be the path below the audio root, including the file extension"
    );

    // The error message shows an existing file that differs from the listed one only in its extension.
    let other = refused("clip_key,side\nrock/c.wav,test\n");
    assert!(
        other.contains("it lists rock/c.wav, but the audio root contains rock/c.mp3;"),
        "{other}"
    );

    assert_eq!(
        refused("clip_key,side\n"),
        "metadata file list.csv: it contains no rows"
    );
}

#[test]
fn broken_list_record_is_a_reject() {
    let list = "clip_key,side\njazz/a.mp3,test,more\nrock/b.mp3,training\nrock/c.mp3,test\n";
    let catalog = listed("list.csv", list, by_column_side).unwrap();
    assert_eq!(splits(&catalog), ["none", "training", "test"]);
    assert_eq!((catalog.rows_read, catalog.rejects.len()), (3, 0));
    assert_eq!(catalog.further_rejects[0].line, Some(2));
    assert_eq!(
        catalog.warnings[1],
        "metadata file list.csv: 1 of 3 records cannot be read; the table `rejects` has their lines"
    );
}

/// Returns a list of two files in `test` and `training`, as Parquet.
fn parquet_list(keys: [&str; 2]) -> Vec<u8> {
    let [keys, splits] = [keys, ["test", "training"]]
        .map(|values| -> ArrayRef { Arc::new(StringArray::from_iter_values(values)) });
    in_parquet([("clip_key", keys), ("side", splits)])
}

/// Returns the bytes of a Parquet file with these columns.
fn in_parquet<S: AsRef<str>>(columns: impl IntoIterator<Item = (S, ArrayRef)>) -> Vec<u8> {
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn parquet_list_equals_csv_list() {
    let of = |keys| listed("list.parquet", parquet_list(keys), by_column_side);
    let catalog = of(["rock/b.mp3", "jazz/a.mp3"]).unwrap();
    assert_eq!(splits(&catalog), ["training", "test", "none"]);
    assert_eq!(
        of(["rock/b.mp3", "rock/b.mp3"]).unwrap_err(),
        "metadata file list.parquet, row 2: `clip_key` rock/b.mp3 is already on row 1"
    );
}

#[test]
fn json_lines_equal_csv_list() {
    let lines = r#"{"clip_key": "rock/b.mp3", "side": "test", "bpm": 120}

{"side": "training", "clip_key": "jazz/a.mp3", "bpm": "slow", "tags": ["x"]}"#;
    let catalog = listed("list.jsonl", lines, by_column_side).unwrap();
    assert_eq!(splits(&catalog), ["training", "test", "none"]);
    assert_eq!(catalog.rows_read, 3);

    for (text, said) in [
        ("", "no line has an object with columns"),
        ("[1, 2]\n", "list.jsonl is damaged"),
        ("{\"clip_key\": \"rock/b.mp3\"\n", "list.jsonl is damaged"),
        (&lines.replace("side", "line"), "line"),
    ] {
        let error = listed("list.jsonl", text, by_column_side).unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn genres_that_are_no_ids_are_an_error() {
    let tracks = tracks_csv(b"1,5,1,training,small,Rock,[3000000000]\n");
    let error = run(&fma(vec![]), tracks.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage, "{error:?}");
    let message = error.to_string();
    assert!(
        message.contains("column `track_genres_all`") && message.contains("3000000000"),
        "{message}"
    );

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.jsonl");
    let line = r#"{"clip_key": "a.mp3", "track_genre_top": "Rock", "genres_all": ["Rock"]}"#;
    std::fs::write(&path, line).unwrap();
    let error = run(&recipe(Dataset::Table, vec![]), &path).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage, "{error:?}");
    let message = error.to_string();
    assert!(
        message.contains("column `genres_all`") && message.contains("'Rock'"),
        "{message}"
    );
}

#[test]
fn cleaning_steps_read_further_tables() {
    let (_folder, path) = folder_with("liked.csv", "genre,stars\njazz,5\nrock,\nrock\n");
    let audio = index(["jazz/a.mp3", "rock/b.mp3"]);
    let mut recipe = recipe(
        Dataset::Folders,
        vec![keep(
            "liked",
            "genre IN (SELECT genre FROM liked WHERE stars > 3)",
        )],
    );
    recipe.targets[0].column = "genre".into();
    let with_tables = |names: &[&str]| {
        let tables = names.iter().map(|&name| (name.to_owned(), path.clone()));
        let metadata = MetadataFiles {
            main: None,
            tables: tables.collect(),
        };
        let settings = CatalogSettings::default();
        clean(&recipe, &metadata, &audio, settings, &Arc::default())
    };

    let cleaned = with_tables(&["liked", "unread"]).unwrap();
    assert_eq!(cleaned.clip_keys().collect::<Vec<_>>(), ["jazz/a.mp3"]);
    let Catalog {
        warnings,
        further_rejects,
        ..
    } = &cleaned.catalog;
    assert_eq!(
        *warnings,
        ["--table unread: no cleaning step reads this table"]
    );
    // The last line has too few fields, in both tables.
    assert_eq!(further_rejects.len(), 2);

    for (names, said) in [
        (&[][..], "--table liked=FILE"),
        (&["liked", "liked"], "exists already"),
        (&["input"], "exists already"),
        (&["Liked"], "a to z"),
    ] {
        let error = with_tables(names).err().unwrap().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn damaged_parquet_file_is_an_input_error() {
    let whole = parquet_list(["jazz/a.mp3", "rock/b.mp3"]);
    let mut n_damaged = 0;
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0xff;
        for bytes in [whole[..at].to_vec(), flipped] {
            // A flipped byte in a value, or where no reader checks it, is not noticed.
            match load::parquet_table("list.parquet", bytes::Bytes::from(bytes)) {
                Ok(_) => {}
                Err(CatalogError::Damaged { .. }) => n_damaged += 1,
                Err(error) => assert_eq!(error.kind(), Kind::Usage, "byte {at}: {error:?}"),
            }
        }
    }
    assert!(n_damaged > whole.len(), "{n_damaged} of {}", whole.len());
}

#[test]
fn missing_artists_are_warned_about_once() {
    let audio = index(["jazz/a.mp3", "rock/b.mp3"]);
    let recipe = with_target(recipe(Dataset::Folders, vec![]), "genre");

    assert_eq!(recipe.split.rule, SplitRule::Artist);
    assert!(recipe.warnings().is_empty());
    assert_eq!(
        cleaned(&recipe, None, &audio).unwrap().warnings,
        [
            "split.rule = \"artist\": the metadata have no column artist_id, artist_name or artist, so clips of one artist \
             may be in several splits: add the artists to the metadata, or set split.rule = \"stratified\""
        ]
    );

    let list = "clip_key,artist\njazz/a.mp3,Mia\nrock/b.mp3,Tom\nrock/c.mp3,Tom\n";
    assert!(
        listed("list.csv", list, |_| ())
            .unwrap()
            .warnings
            .is_empty()
    );
}

#[test]
fn folders_that_are_no_genres_are_warned_about() {
    let mut recipe = with_target(recipe(Dataset::Folders, vec![]), "genre");
    recipe.split.rule = SplitRule::Stratified;
    let warnings = |keys: Vec<String>| {
        let mut warnings = cleaned(&recipe, None, &index(keys.iter().map(String::as_str)))
            .unwrap()
            .warnings;
        warnings.retain(|warning| warning.starts_with("target"));
        warnings
    };

    let of_fma = ["000/000002.mp3", "000/000005.mp3", "001/001010.mp3"];
    assert_eq!(
        warnings(of_fma.map(str::to_owned).to_vec()),
        [
            "target `genre`: 2 classes of 1.5 clips on average, such as 000: these folders look like numbers or artists, \
             not genres; use one folder per genre, or a recipe with --metadata, such as fma-small for FMA"
        ]
    );

    let clips = |folders: usize, each: usize| {
        let keys = (0..folders * each).map(|n| format!("name{}/{n}.mp3", n % folders));
        keys.collect()
    };
    let artists = warnings(clips(51, 2));
    assert!(artists[0].starts_with("target `genre`: 51 classes of 2.0 clips on average, such as"));
    assert_eq!(warnings(clips(51, 10)), [] as [&str; 0]);
    assert_eq!(warnings(clips(10, 2)), [] as [&str; 0]);
}

#[test]
fn tables_read_keys_and_splits_from_columns() {
    let (_folder, path) = folder_with(
        "gtzan.csv",
        "file,label,fold,code\na.wav,blues,train set,007\nb.wav,rock,,8\n",
    );

    let mut recipe = table_recipe(vec![]);
    recipe.split = SplitSpec {
        rule: SplitRule::Column,
        column: Some("fold".into()),
        ..SplitSpec::default()
    };

    let refused = run(&recipe, &path).unwrap_err().to_string();
    assert!(refused.contains("train set"), "{refused}");

    std::fs::write(
        &path,
        "file,label,fold,code\na.wav,blues,train,007\nb.wav,rock,,8\n",
    )
    .unwrap();
    let catalog = run(&recipe, &path).unwrap();

    assert_eq!(splits(&catalog), ["train", "none"]);

    assert_eq!(
        catalog.warnings,
        [
            "split.column: splits that no training reads, with their clips: `train` (1); it reads training, validation, \
             test",
            "split.column: no clip is for training, validation, test: the values of `fold`, with their clips, are \
             `none` (1), `train` (1); splits are named training, validation, test"
        ]
    );

    let tracks = &catalog.tables["tracks"];
    assert!(
        tracks
            .column_by_name("code")
            .is_some_and(|code| *code.data_type() == arrow::datatypes::DataType::Utf8View)
    );
}

/// Runs `clean` on a `table` data set with clips in column `file` and labels in column `label`.
fn table_of(csv: &str) -> Result<Catalog, CatalogError> {
    let (_folder, path) = folder_with("table.csv", csv);

    let mut recipe = table_recipe(vec![]);
    if csv.contains("split_official") {
        recipe.split.rule = SplitRule::Official;
    }

    run(&recipe, &path)
}

#[test]
fn official_rule_accepts_folders_as_splits() {
    let refused = table_of("file,label,split_official\na.wav,blues,Training Set\n").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "split column `split_official` has the value \"Training Set\": splits are folders, named by letters, digits, `_`, \
         `-`, `.`"
    );

    assert_eq!(
        table_of("file,label,split_official\na.wav,blues,training\n")
            .unwrap()
            .clips[0]
            .split,
        "training"
    );
}

#[test]
fn empty_splits_are_warned_about_under_every_rule() {
    let mut csv = "file,label\n".to_owned();
    for clip in 0..400 {
        csv += &format!("{clip}.wav,class {}\n", clip / 4);
    }
    let warned = |fractions| {
        let (_folder, path) = folder_with("table.csv", &csv);
        let mut recipe = table_recipe(vec![]);
        recipe.split.rule = SplitRule::Stratified;
        recipe.split.fractions = fractions;
        run(&recipe, &path).unwrap().warnings
    };

    // A tenth of four clips is less than one.
    assert_eq!(
        warned([0.8, 0.1, 0.1]),
        [
            "split.rule = \"stratified\": no clip is for test; splits with clips are `training` (300), `validation` (100): \
             raise its share in split.fractions, or choose another split.rule"
        ]
    );
    assert_eq!(warned([0.5, 0.25, 0.25]), [""; 0]);
    assert_eq!(warned([0.8, 0.2, 0.0]), [""; 0]);
}

#[test]
fn carriage_return_line_endings_are_accepted() {
    let csv = "file,label\na.wav,1\nb.wav,2\nc.wav,1\n";
    for text in [
        csv.to_owned(),
        csv.replace('\n', "\r"),
        csv.replace('\n', "\r\n"),
    ] {
        let (_folder, path) = folder_with("table.csv", text);

        let ones = vec![keep("ones", "label = 1")];
        let catalog = run(&table_recipe(ones), &path).unwrap();
        assert_eq!(keys(&catalog), ["a.wav", "c.wav"]);
    }
}

#[test]
fn integers_beyond_64_bits_keep_their_digits() {
    let csv = "file,label,artist_id\na.wav,x,92345678901234567000\nb.wav,x,92345678901234567001\n";
    let catalog = table_of(csv).unwrap();
    assert_ne!(catalog.clips[0].artist_id, catalog.clips[1].artist_id);

    // Unsigned ids have the same bits as in a Parquet file.
    let csv = format!(
        "file,label,artist_id,album_id\na.wav,x,{0},{0}\nb.wav,x,5,6\n",
        u64::MAX
    );
    let catalog = table_of(&csv).unwrap();
    let ids = catalog
        .clips
        .iter()
        .map(|clip| (clip.artist_id, clip.album_id));
    assert_eq!(
        ids.collect::<Vec<_>>(),
        [(Some(-1), Some(-1)), (Some(5), Some(6))]
    );
}

#[test]
fn reserved_columns_and_empty_files_are_rejected() {
    for column in ["csv_line", "dropped_by"] {
        let refused = table_of(&format!("file,label,{column}\na.wav,x,1\n"))
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains(column) && refused.contains("rename the column"),
            "{refused}"
        );
    }

    let empty = table_of("").unwrap_err().to_string();
    assert!(
        empty.ends_with("is empty: its first line must name the columns"),
        "{empty}"
    );
}

#[test]
fn table_names_cannot_leave_the_store() {
    for file in [
        "raw_a/../../../pwned.csv",
        "raw_../x.csv",
        "raw_a\\b.csv",
        "raw_a b.csv",
        "tracks.csv",
    ] {
        assert_eq!(extra::table_name(file), None, "{file}");
    }

    assert_eq!(
        extra::table_name("raw_tracks2.csv").as_deref(),
        Some("raw_tracks2")
    );
}

#[test]
fn feature_columns_are_named_by_level_with_type_f32() {
    let folder = some_tracks(3);
    let csv =
        "feature,mfcc,mfcc\nstatistics,mean,mean\nnumber,01,02\ntrack_id,,\n2,1.5,-2\n3,x,1\n";
    put(&folder, "features.csv", csv);

    let mut table = extra_tables(folder.path()).unwrap().pop().unwrap();
    assert_eq!(table.name(), "fma_features");

    let batch = table.next().unwrap().unwrap();
    let names: Vec<_> = batch
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    assert_eq!(names, ["track_id", "mfcc_mean_01", "mfcc_mean_02"]);
    assert_eq!((batch.num_rows(), batch.schema()), (1, table.schema()));
    assert_eq!(table.rejects()[0].column.as_deref(), Some("mfcc_mean_01"));

    let join = keep(
        "loud",
        "track_id IN (SELECT track_id FROM fma_features WHERE mfcc_mean_01 > 1)",
    );
    let catalog = run(&fma(vec![join]), folder.path()).unwrap();
    assert_eq!(catalog.clips.len(), 1);
}

#[test]
fn further_tables_of_which_most_rows_are_rejected_are_errors() {
    let folder = some_tracks(3);
    let csv = "artist_id,name\n1,a,b\n2,c,d\n3,e\n";
    put(&folder, "raw_artists.csv", csv);
    let problem = "metadata file raw_artists.csv: 2 of 3 rows are rejected, the first on line 2 (raw_artists.csv: 3 fields where \
                   the header has 2): correct these rows of the file, or allow the rejects by --max-reject-fraction 1";

    // As a run copies them.
    let mut table = extra_tables(folder.path()).unwrap().pop().unwrap();
    assert_eq!(
        table
            .by_ref()
            .map(|rows| rows.unwrap().num_rows())
            .sum::<usize>(),
        1
    );
    let error = table.refuse_rejects(0.5).unwrap_err();
    assert_eq!((error.kind(), &*error.to_string()), (Kind::Usage, problem));
    table.refuse_rejects(1.0).unwrap();

    // As a cleaning step reads them.
    let step = keep("known", "artist_id IN (SELECT 1 FROM raw_artists) OR true");
    let error = run(&fma(vec![step]), folder.path()).unwrap_err();
    assert_eq!(error.to_string(), problem);
}

#[test]
fn raw_dumps_with_one_or_several_header_lines_are_read() {
    let folder = some_tracks(3);
    let echonest = ",echonest,echonest\n,audio_features,audio_features\ntrack_id,energy,tempo\n2,0.5,120\n3,x,1\n";
    put(&folder, "raw_echonest.csv", echonest);
    put(&folder, "raw_tracks.csv", "track_id,title\n2,Two\n");
    put(&folder, "raw_albums.csv", "album_id,title\n1,One\n");

    let tables = extra_tables(folder.path()).unwrap().into_iter();
    let found: Vec<_> = tables
        .map(|mut table| {
            let rows = table.next().unwrap().unwrap().num_rows();
            let columns: Vec<_> = table
                .schema()
                .fields()
                .iter()
                .map(|field| field.name().clone())
                .collect();
            (table.name().to_owned(), columns.join(" "), rows)
        })
        .collect();

    let wanted = [
        ("raw_albums", "album_id title", 1),
        (
            "raw_echonest",
            "track_id echonest_audio_features_energy echonest_audio_features_tempo",
            2,
        ),
        ("raw_tracks", "track_id title", 1),
    ];
    assert_eq!(
        found,
        wanted.map(|(name, columns, rows)| (name.to_owned(), columns.to_owned(), rows))
    );

    assert!(
        run(&fma(vec![]), folder.path())
            .unwrap()
            .warnings
            .is_empty()
    );
}

#[test]
fn further_table_with_a_broken_header_is_a_warning_unless_a_step_names_it() {
    let folder = some_tracks(3);
    put(&folder, "raw_echonest.csv", ",echonest,echonest\n1,2,3\n");
    put(&folder, "echonest.csv", "no such header\n");

    let steps = vec![keep("step", "track_id > 0 -- raw_echonests")];
    let catalog = run(&fma(steps), folder.path()).unwrap();
    assert_eq!(catalog.warnings.len(), 2);
    assert!(
        catalog.warnings[0].starts_with("metadata file echonest.csv: no header line"),
        "{:?}",
        catalog.warnings
    );
    assert_eq!(
        catalog.warnings[1],
        "metadata file raw_echonest.csv: two columns are named `echonest`; table `raw_echonest` is left out"
    );
    assert!(extra_tables(folder.path()).unwrap().is_empty());

    let steps = vec![keep(
        "step",
        "track_id IN (SELECT track_id FROM RAW_ECHONEST)",
    )];
    let named = run(&fma(steps), folder.path()).unwrap_err();
    assert_eq!(
        named.to_string(),
        "metadata file raw_echonest.csv: two columns are named `echonest`"
    );
}

#[test]
fn fingerprint_covers_exactly_the_files_read() {
    let folder = some_tracks(3);
    let raw = folder.path().join("raw_tracks.csv");
    let table = folder.path().join("rejects.csv");

    std::fs::write(&raw, "track_id\n1\n").unwrap();
    let before = fingerprints(Dataset::Fma, &folder.path().into()).unwrap();
    assert_eq!(
        before
            .iter()
            .map(|(name, ..)| name.as_str())
            .collect::<Vec<_>>(),
        ["raw_tracks.csv", "tracks.csv"]
    );

    for (path, text, is_read) in [(&table, "mine", false), (&raw, "track_id\n2\n", true)] {
        std::fs::write(path, text).unwrap();
        let after = fingerprints(Dataset::Fma, &folder.path().into()).unwrap();
        assert_eq!(after != before, is_read, "{after:?}, before {before:?}");
    }

    let of_table = fingerprints(Dataset::Table, &table.as_path().into()).unwrap();
    assert_eq!(of_table.len(), 1);

    let renamed = folder.path().join("renamed.csv");
    std::fs::rename(&table, &renamed).unwrap();
    assert_eq!(
        fingerprints(Dataset::Table, &renamed.as_path().into()).unwrap(),
        of_table
    );
    assert_eq!(
        fingerprints(Dataset::Folders, &renamed.as_path().into()).unwrap(),
        of_table
    );

    assert!(
        fingerprints(Dataset::Folders, &MetadataFiles::default())
            .unwrap()
            .is_empty()
    );
    assert!(
        fingerprints(Dataset::Fma, &MetadataFiles::default())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn labels_outside_the_listed_classes_count_as_unlabelled() {
    let tracks = some_tracks(6);
    let mut recipe = fma(vec![]);
    recipe.targets[0].classes = Some(vec!["Rock".into()]);

    let catalog = run(&recipe, tracks.path()).unwrap();
    assert_eq!(
        catalog
            .clips
            .iter()
            .filter(|clip| clip.targets == [Some(0)])
            .count(),
        2
    );

    assert_eq!(catalog.warnings.len(), 1);
    assert!(
        catalog.warnings[0].contains("`genre`: 2 rows"),
        "{}",
        catalog.warnings[0]
    );
}

/// Returns the warnings for three tracks with the given artists under the split rule `artist`.
fn warned(artists: [&str; 3]) -> Vec<String> {
    let mut rows = String::new();
    for (id, artist) in (1..).zip(artists) {
        writeln!(rows, "{id},-1,{artist},training,small,Rock,[1]").unwrap();
    }

    let mut recipe = fma(vec![]);
    recipe.split.rule = SplitRule::Artist;
    run(&recipe, tracks_csv(rows.as_bytes()).path())
        .unwrap()
        .warnings
}

#[test]
fn clips_without_artist_are_warned_about_under_artist_rule() {
    assert!(warned(["1", "2", "2"]).is_empty());
    assert_eq!(
        warned(["1", "-1", "2"]),
        [
            "split.rule = \"artist\": the artist of 1 of 3 clips is unknown, so clips of one artist may be in several \
             splits: add the artists to the metadata, or set split.rule = \"stratified\""
        ]
    );
    assert!(
        warned(["-1", "-1", "-1"])[0].contains("the artist of 3 of 3 clips is unknown"),
        "{:?}",
        warned(["-1", "-1", "-1"])
    );
}
