//! Tests of the interactive features: headings, commands, layouts, own files, parts and means of tensors.

use wavemill_schemas::exit::{Classified, Kind};

use super::testing::{Clip, LIMITS, TestStore, feature, session, session_within};
use super::{Console, Format, Limits, Session, SqlError};

fn answer(session: &Session, format: Format, text: &str) -> Result<String, SqlError> {
    let mut out = Vec::new();
    Console {
        format,
        expanded: false,
    }
    .answer(session, text, &mut out)?;
    Ok(String::from_utf8(out).expect("text"))
}

fn csv(session: &Session, sql: &str) -> String {
    answer(session, Format::Csv, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn assert_answers(session: &Session, sql: &str, answer: &str) {
    assert_eq!(csv(session, sql), answer, "{sql}");
}

fn assert_refused(session: &Session, sql: &str, said: &str) {
    let refusal = refusal(session, sql);
    assert!(refusal.contains(said), "{sql}: {refusal}");
}

fn refusal(session: &Session, sql: &str) -> String {
    let error = answer(session, Format::Csv, sql).expect_err(sql);
    assert_eq!(error.kind(), Kind::Usage, "{sql}: {error}");
    error.to_string()
}

#[test]
fn headings_are_what_was_written() {
    let store = TestStore::small();
    let session = session(&store);

    let cases = [
        (
            "SELECT avg(lost_s), count(*) FROM features_log_mel",
            "avg(lost_s),count(*)",
        ),
        ("SELECT 1, 'a' || 'b'", "1,'a' || 'b'"),
        (
            "SELECT genre, max(f.track_id) FROM features_log_mel f GROUP BY genre ORDER BY max(f.track_id)",
            "genre,max(f.track_id)",
        ),
        ("SELECT count(*) FROM tracks UNION ALL SELECT 2", "count(*)"),
        (
            "WITH a AS (SELECT count(*) AS n FROM tracks) SELECT n + 1 FROM a",
            "n + 1",
        ),
        (
            "SELECT tensor_mean(first_value(log_mel)) FROM features_log_mel",
            "tensor_mean(first_value(log_mel))",
        ),
        (
            "SELECT DISTINCT upper(track_title) FROM tracks ORDER BY 1",
            "upper(track_title)",
        ),
    ];

    for (sql, heading) in cases {
        assert_eq!(csv(&session, sql).lines().next(), Some(heading), "{sql}");
    }
}

#[test]
fn commands_answer_like_queries_and_between_them() {
    let store = TestStore::small();
    let session = session(&store);

    let tables = csv(&session, "\\d");
    assert!(
        tables.starts_with("table,rows\nclasses,\nfeatures_log_mel,9\n"),
        "{tables}"
    );
    assert!(tables.ends_with("raw.tracks,1\n"), "{tables}");

    // The rows of a file of the user are not counted.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("own.csv");
    std::fs::write(&file, "a\n1\n2\n").expect("a file");
    session.add_table("raw_tracks", &file).expect("CSV");
    let tables = csv(&session, "\\d");
    assert!(tables.contains("\nraw_tracks,\n"), "{tables}");

    let columns = csv(&session, "\\d features_log_mel;");
    assert!(
        columns.contains("log_mel,\"tensor f16[2,3]\"\n"),
        "{columns}"
    );

    assert_refused(&session, "\\d trcks", "did you mean tracks");
    assert_refused(&session, "\\dt", "no command \\dt");

    let text = "SELECT 1 AS a;\n\\x\nSELECT 2 AS bc, NULL AS d;\n\\x off\nSELECT 3 AS e";
    assert_eq!(
        answer(&session, Format::Table, text).expect("three answers"),
        " a\n---\n 1\n\n-- row 1 --\n bc | 2\n d  | NULL\n\n e\n---\n 3\n"
    );
}

#[test]
fn a_plan_is_shown_whole() {
    let store = TestStore::small();
    let sql = "EXPLAIN SELECT track_title FROM tracks WHERE track_title LIKE '%a%' AND track_title LIKE '%b%' AND \
               track_title LIKE '%c%' AND track_title LIKE '%d%' AND track_title LIKE '%e%'";
    let plan = answer(&session(&store), Format::Table, sql).expect("a plan");

    assert!(
        plan.starts_with("logical_plan:\n  ") && plan.contains("\nphysical_plan:\n  "),
        "{plan}"
    );
    assert!(
        !plan.contains('…') && plan.contains("%e%") && plan.contains("DataSourceExec"),
        "{plan}"
    );
}

#[test]
fn aggregates_of_numbers_do_not_take_tensors() {
    let store = TestStore::small();
    let session = session(&store);

    for function in ["avg", "sum"] {
        let sql = format!("SELECT {function}(log_mel) FROM features_log_mel");
        let said = format!("{function} does not take tensors");
        assert_refused(&session, &sql, &said);
    }
}

#[test]
fn own_files_are_tables_that_are_only_read() {
    let store = TestStore::small();
    let folder = tempfile::tempdir().expect("a folder");
    let [scores, lines, sheet, none] =
        ["scores.csv", "lines.jsonl", "x.xlsx", "none.csv"].map(|name| folder.path().join(name));
    std::fs::write(&scores, "track_id,Score\n1,0.5\n2,0.25\n").expect("a file");
    std::fs::write(&lines, "{\"a\":1}\n{\"a\":2}\n").expect("a file");
    let parquet = store
        .folder
        .path()
        .join(&store.manifest.files.last().expect("a file").path);

    let session = session(&store);
    session.add_table("mine", &scores).expect("CSV");
    session.add_table("lines", &lines).expect("JSON");
    session.add_table("html", &parquet).expect("Parquet");

    let joined =
        "SELECT t.track_title, m.\"Score\" FROM mine m JOIN tracks t USING (track_id) ORDER BY 1";
    assert_answers(
        &session,
        joined,
        "track_title,Score\ntitle 1,0.5\ntitle 2,0.25\n",
    );
    assert_answers(&session, "SELECT sum(a) AS s FROM lines", "s\n3\n");
    assert_answers(&session, "SELECT count(*) AS n FROM html", "n\n1\n");

    assert_refused(&session, "SELECT score FROM mine", "did you mean \"Score\"");
    assert_eq!(
        refusal(&session, "INSERT INTO mine VALUES (3, 1.0)"),
        "INSERT: mine is a file of yours, which SQL only reads"
    );

    std::fs::write(&sheet, "").expect("a file");
    for (name, file, message) in [
        (
            "tracks",
            scores.as_path(),
            "there is a table of this name: choose another one",
        ),
        ("Mine", &scores, "lower-case"),
        (
            "none",
            &none,
            "none.csv: cannot open it: No such file or directory (os error 2)",
        ),
        ("sheet", &sheet, ".parquet"),
        ("folder", folder.path(), "this is not a file"),
        (
            "mine",
            &lines,
            ": there is a table of this name: choose another one",
        ),
    ] {
        let refused = session.add_table(name, file).expect_err(name).to_string();
        assert!(refused.contains(message), "{name}: {refused}");
        assert!(name != "mine" || refused.ends_with(message), "{refused}");
    }
}

#[test]
fn own_files_have_any_name() {
    let store = TestStore::small();
    let session = session(&store);
    let folder = tempfile::tempdir().expect("a folder");

    // As a glob pattern, the first name would match the second file.
    for (n, name) in [
        "scores[1].csv",
        "scores1.csv",
        "what?*.csv",
        "100%41 #1.csv",
        "größe: ü.csv",
    ]
    .into_iter()
    .enumerate()
    {
        let file = folder.path().join(name);
        std::fs::write(&file, format!("a\n{n}\n")).expect("a file");
        session.add_table(&format!("t{n}"), &file).expect(name);
    }

    for n in 0..5 {
        let found = csv(&session, &format!("SELECT a FROM t{n}"));
        assert_eq!(found, format!("a\n{n}\n"));
    }
}

#[test]
fn values_of_large_own_files_may_have_several_lines() {
    let store = TestStore::small();
    let session = session(&store);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("lines.csv");

    // DataFusion reads parts of files of at least 1 MiB in parallel.
    let value = "one\ntwo,\n".repeat(1000);
    let rows: String = (0..200).map(|n| format!("{n},\"{value}\"\n")).collect();
    std::fs::write(&file, format!("a,b\n{rows}")).expect("a file");
    session.add_table("lines", &file).expect("CSV");

    let sql =
        "SELECT count(*) AS n, sum(a) AS s, min(length(b)) AS lo, max(length(b)) AS hi FROM lines";
    assert_answers(&session, sql, "n,s,lo,hi\n200,19900,9000,9000\n");
}

#[test]
fn user_files_are_not_modified_when_writing_is_allowed() {
    let store = TestStore::small();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("scores.csv");
    std::fs::write(&file, "a\n1\n").expect("a file");

    let limits = Limits {
        allow_write: true,
        ..LIMITS
    };
    let session = session_within(&store, limits);
    session.add_table("mine", &file).expect("CSV");

    assert!(answer(&session, Format::Csv, "INSERT INTO mine VALUES (2)").is_err());
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), "a\n1\n");
}

#[test]
fn a_mean_over_rows_is_a_tensor_again() {
    let store = TestStore::small();
    let session = session(&store);

    // Class 0 has clips 0, 3, 6. Clip i has the values i, i + 1, …, so the mean of the class equals clip 3.
    let sql = "SELECT genre, tensor(tensor_avg(log_mel)) AS t FROM features_log_mel GROUP BY genre ORDER BY genre LIMIT 1";
    assert_answers(&session, sql, "genre,t\n0,\"[3.0,4.0,5.0,6.0,7.0,8.0]\"\n");

    let sql = "SELECT tensor_avg(log_mel) AS m FROM features_log_mel";
    assert_eq!(
        answer(&session, Format::Table, sql).expect("a table"),
        " m\n----------\n f32[2,3]\n"
    );

    let sql =
        "SELECT tensor_at(m, 0, 1) AS a FROM (SELECT tensor_avg(quant) AS m FROM features_quant)";
    assert_answers(&session, sql, "a\n1.0\n");

    let ragged = answer(
        &session,
        Format::Csv,
        "SELECT tensor_mean(tensor_avg(ragged)) AS m FROM features_ragged",
    );
    assert!(
        ragged
            .expect_err("lengths differ")
            .to_string()
            .contains("rows of the same shape")
    );

    let sql =
        "SELECT tensor_shape(tensor_avg(tensor_mean(ragged, 'frame'))) AS s FROM features_ragged";
    assert_answers(&session, sql, "s\n[2]\n");

    let of_key = "SELECT tensor_avg(clip_key) FROM features_log_mel";
    assert_refused(&session, of_key, "'clip_key' is not one");
}

#[test]
fn parts_and_bands_of_tensors_are_tensors_again() {
    let store = TestStore::small();
    let session = session(&store);

    // The tensor of track 0 is [[0, 1, 2], [3, 4, 5]], with the dimensions mel × frame.
    for (expression, values) in [
        ("tensor_slice(log_mel, 'frame', 1, 3)", "[1.0,2.0,4.0,5.0]"),
        ("tensor_slice(log_mel, 1, -1)", "[2.0,5.0]"),
        ("tensor_slice(log_mel, 0, 1, 99)", "[3.0,4.0,5.0]"),
        (
            "tensor_slice(tensor_slice(log_mel, -1, 0, 2), 'mel', 0, 1)",
            "[0.0,1.0]",
        ),
        ("tensor_mean(log_mel, 'frame')", "[1.0,4.0]"),
        ("tensor_mean(log_mel, 'mel')", "[1.5,2.5,3.5]"),
        ("tensor_min(log_mel, 1)", "[0.0,3.0]"),
        ("tensor_max(log_mel, 0)", "[3.0,4.0,5.0]"),
    ] {
        let sql =
            format!("SELECT tensor({expression}) AS t FROM features_log_mel WHERE track_id = 0");
        let answer = csv(&session, &sql);
        let found = answer.lines().nth(1).map(|line| line.trim_matches('"'));
        assert_eq!(found, Some(values), "{expression}");
    }

    let sql = "SELECT tensor_shape(tensor_slice(ragged, 'frame', 0, 2)) AS s FROM features_ragged WHERE track_id < 3 \
               ORDER BY track_id";
    assert_answers(&session, sql, "s\n\"[2,1]\"\n\"[2,2]\"\n\"[2,2]\"\n");

    for (expression, message) in [
        (
            "tensor_slice(log_mel, 'bin', 0, 1)",
            "this tensor has axes 0 to 1, named mel, frame",
        ),
        ("tensor_slice(log_mel, 1, 3, 4)", "range 3 to 4 is empty"),
        ("tensor_slice(log_mel, 1, track_id, 4)", "as constants"),
        ("tensor_mean(log_mel, genre)", "needs a constant axis"),
    ] {
        let sql = format!("SELECT tensor({expression}) FROM features_log_mel");
        assert_refused(&session, &sql, message);
    }
}

/// The metadata of a user's own file may contain shapes without dimensions, or with a dimension of 0.
#[test]
fn tensors_without_dimensions_or_values_have_no_parts() {
    let mut store = TestStore::small();
    for (name, shape) in [("scalar", &[][..]), ("empty", &[Some(0), None])] {
        let clip = Clip {
            tensor: vec![0; if shape.is_empty() { 4 } else { 0 }],
            ..Clip::f16(0, &[])
        };
        store.write_feature(&feature(name, "f32", shape), "training", &[clip]);
    }

    let session = session(&store);
    for (expression, message) in [
        (
            "tensor_slice(scalar, 0, 0, 1)",
            "this tensor has no dimensions",
        ),
        ("tensor_mean(scalar, -1)", "this tensor has no dimensions"),
        ("tensor_max(scalar, 'mel')", "this tensor has no dimensions"),
        (
            "tensor_slice(empty, 'mel', 0, 1)",
            "this axis has no values",
        ),
        (
            "tensor_mean(empty, 2)",
            "this tensor has axes 0 to 1, named mel, frame",
        ),
    ] {
        let name = match expression.contains("scalar") {
            true => "scalar",
            false => "empty",
        };
        let sql = format!("SELECT {expression} FROM features_{name}");
        assert_refused(&session, &sql, message);
    }
}
