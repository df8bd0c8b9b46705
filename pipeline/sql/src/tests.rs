//! Tests of queries over a small store: their results in every format, and their errors.

use std::fs::File;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float16Type};
use arrow::ipc::reader::StreamReader;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use wavemill_schemas::exit::{Classified, Kind};
use wavemill_schemas::tables::audio_files_schema;

use super::testing::{Clip, LIMITS, TestStore, feature, session, session_within};
use super::{Format, Limits, Session, SqlError, output};

fn writing_session(store: &TestStore) -> Session {
    let allowed = Limits {
        allow_write: true,
        ..LIMITS
    };
    session_within(store, allowed)
}

fn ask(session: &Session, format: Format, sql: &str) -> Result<Vec<u8>, SqlError> {
    let mut out = Vec::new();
    session.run(sql, output::sink(format, &mut out).as_mut())?;
    Ok(out)
}

fn csv(session: &Session, sql: &str) -> String {
    match ask(session, Format::Csv, sql) {
        Ok(out) => String::from_utf8(out).expect("CSV is text"),
        Err(error) => panic!("{sql}: {error}"),
    }
}

fn assert_answers(session: &Session, sql: &str, answer: &str) {
    assert_eq!(csv(session, sql), answer, "{sql}");
}

fn error(session: &Session, sql: &str) -> (String, Kind) {
    match ask(session, Format::Csv, sql) {
        Ok(out) => panic!("{sql} answered {}", String::from_utf8_lossy(&out)),
        Err(error) => (error.to_string(), error.kind()),
    }
}

/// Checks that a query is a mistake of the user, and that the error contains `said`.
fn assert_refused(session: &Session, sql: &str, said: &str) {
    let (text, kind) = error(session, sql);
    assert!(text.contains(said), "{sql}: {text}");
    assert_eq!(kind, Kind::Usage, "{sql}: {text}");
}

#[test]
fn excessive_types_are_refused() {
    let store = TestStore::small();
    let session = session(&store);
    let nested = |levels: usize| format!("SELECT NULL::int{} a", "[]".repeat(levels));
    let cast = |levels: usize| {
        let (open, close) = ("List(".repeat(levels), ")".repeat(levels));
        format!("SELECT arrow_cast(NULL, '{open}Int8{close}') IS NULL a FROM tracks")
    };

    let list = ask(&session, Format::Json, &nested(60)).expect("few levels");
    assert_eq!(String::from_utf8_lossy(&list).trim(), "{\"a\":null}");
    ask(&session, Format::Json, &cast(60)).expect("few levels");
    ask(
        &session,
        Format::Json,
        "SELECT NULL::int[128][2000] IS NULL",
    )
    .expect("few elements");

    let lists = (0..20).map(|i| format!(", l{} AS (SELECT [[[[x]]]] x FROM l{i})", i + 1));
    let lists: String = lists.collect();
    for sql in [
        nested(400),
        format!("SELECT a IS NULL FROM ({})", nested(400)),
        cast(100),
        cast(20_000),
        format!("WITH l0 AS (SELECT 1 x){lists} SELECT x IS NULL FROM l20"),
        "SELECT NULL::int[1000000][1000000] IS NULL".to_owned(),
        "SELECT arrow_cast(NULL, 'FixedSizeList(2147483647, Int64)') IS NULL".to_owned(),
        "SELECT arrow_cast(NULL, 'FixedSizeBinary(1000000000)') IS NULL".to_owned(),
        "CREATE TABLE x (a int[1000000][1000000])".to_owned(),
    ] {
        let (refused, kind) = error(&session, &sql);
        assert!(
            refused.contains("more than 61 levels, or 16777216 elements"),
            "{refused}"
        );
        assert_eq!(kind, Kind::Usage);
    }
}

#[test]
fn large_tensors_of_a_store_are_not_refused() {
    let mut store = TestStore::new();
    let samples = feature("samples", "f16", &[Some(10_000_000)]);
    let mut clip = Clip::f16(1, &[0.0]);
    clip.tensor = vec![0; 20_000_000];
    store.write_feature(&samples, "training", &[clip]);

    let session = session(&store);
    let sql = "SELECT count(samples) FROM features_samples";
    assert_eq!(csv(&session, sql).lines().last(), Some("1"));
}

#[test]
fn every_table_of_the_version_answers() {
    let store = TestStore::small();
    let session = session(&store);

    let own = [
        "classes",
        "features_log_mel",
        "features_quant",
        "features_ragged",
        "files",
        "genres",
        "rejects",
        "tracks",
        "tracks_all",
        "versions",
    ];

    assert_eq!(session.tables()[..own.len()], own);
    assert_eq!(session.tables()[own.len()..], ["raw.tracks"]);

    assert_answers(&session, "SELECT html FROM raw.tracks", "html\n<b>a</b>\n");
    assert_answers(
        &session,
        "SELECT * FROM classes ORDER BY class_id",
        "target,class_id,class\ngenre,0,Folk\ngenre,1,Jazz\ngenre,2,Rock\n",
    );

    let files =
        "SELECT table_name, sum(rows) AS n FROM files GROUP BY table_name ORDER BY table_name";
    assert_answers(
        &session,
        files,
        "table_name,n\nfeatures_log_mel,9\nfeatures_quant,9\nfeatures_ragged,9\ngenres,9\nraw.tracks,1\nrejects,1\n\
         tracks,9\ntracks_all,10\n",
    );

    assert_answers(
        &session,
        "SELECT reason, count(*) AS n FROM rejects GROUP BY reason",
        "reason,n\ndamaged,1\n",
    );
}

#[test]
fn files_names_tables_as_a_query_does() {
    let mut store = TestStore::small();
    let clip = Clip::f16(0, &[0.; 6]);
    let entry = feature("mel_raw_db", "f16", &[Some(2), Some(3)]);
    store.write_feature(&entry, "training", &[clip]);

    let named =
        "SELECT DISTINCT table_name AS t FROM files WHERE table_name LIKE '%raw%' ORDER BY t";
    assert_eq!(
        csv(&session(&store), named),
        "t\nfeatures_mel_raw_db\nraw.tracks\n"
    );
}

#[test]
fn only_files_of_the_manifest_are_read_and_the_split_comes_from_it() {
    let mut store = TestStore::small();
    let data = store
        .folder
        .path()
        .join("data")
        .join(&store.manifest.plan_id);
    let stray = data.join("features/log_mel/split=training/99999.parquet");
    std::fs::copy(
        store.folder.path().join(&store.manifest.files[0].path),
        stray,
    )
    .expect("a copy");

    store
        .manifest
        .files
        .iter_mut()
        .filter(|file| file.split.as_deref() == Some("none"))
        .for_each(|file| file.split = None);

    let per_split = "SELECT split, count(*) AS n, min(track_id) AS first FROM features_log_mel GROUP BY split ORDER BY split";
    assert_eq!(
        csv(&session(&store), per_split),
        "split,n,first\nnone,3,6\ntraining,3,0\nvalidation,3,3\n"
    );

    let one =
        "SELECT count(*) AS n FROM features_log_mel WHERE split = 'validation' AND track_id > 3";
    assert_eq!(csv(&session(&store), one), "n\n2\n");
}

#[test]
fn functions_read_every_stored_type() {
    let store = TestStore::small();
    let session = session(&store);

    let f16 = "SELECT tensor(log_mel) AS t, tensor_shape(log_mel) AS s, tensor_mean(log_mel) AS mean, tensor_min(log_mel) AS lo, \
               tensor_max(log_mel) AS hi, tensor_at(log_mel, 1, 0) AS a, tensor_at(log_mel, 2, 0) AS out FROM features_log_mel WHERE track_id = 4";
    assert_answers(
        &session,
        f16,
        "t,s,mean,lo,hi,a,out\n\"[4.0,5.0,6.0,7.0,8.0,9.0]\",\"[2,3]\",6.5,4.0,9.0,7.0,\n",
    );

    let ragged = "SELECT tensor_shape(ragged) AS s, ragged_shape AS stored, tensor_at(ragged, 1, 1) AS a FROM features_ragged WHERE track_id = 5";
    assert_answers(&session, ragged, "s,stored,a\n\"[2,3]\",\"[2,3]\",0.5\n");

    let quant =
        "SELECT tensor(quant) AS t, tensor_mean(quant) AS m FROM features_quant WHERE track_id = 8";
    assert_answers(&session, quant, "t,m\n\"[3.0,3.0,3.0,3.0]\",3.0\n");
}

#[test]
fn rows_are_ranked_by_their_similarity() {
    let store = TestStore::small();
    let session = session(&store);

    // The tensors are 0 to 5, 1 to 6, …; the cosine of the first two is 70 / √(55 · 91).
    let like_the_first = "SELECT b.track_id AS id, round(cosine_similarity(a.log_mel, b.log_mel), 4) AS s \
         FROM features_log_mel a JOIN features_log_mel b ON a.track_id = 0 ORDER BY s DESC, id LIMIT 3";
    assert_answers(
        &session,
        like_the_first,
        "id,s\n0,1.0\n1,0.9895\n2,0.9721\n",
    );

    // The values of clip 2 are zeros, which have no direction.
    let zeros = "SELECT cosine_similarity(quant, quant) AS s FROM features_quant WHERE track_id IN (2, 3) ORDER BY s";
    assert_answers(&session, zeros, "s\n1.0\n\"\"\n");

    assert_refused(
        &session,
        "SELECT cosine_similarity(log_mel, clip_key) FROM features_log_mel",
        "'clip_key' is not one",
    );
    assert_refused(
        &session,
        "SELECT cosine_similarity(log_mel) FROM features_log_mel",
        "takes two tensors",
    );
    let other_shapes = "SELECT cosine_similarity(a.log_mel, b.quant) FROM features_log_mel a JOIN features_quant b USING (clip_key)";
    let (text, _) = error(&session, other_shapes);
    assert!(text.contains("6 and 4 values"), "{text}");
}

#[test]
fn tensor_types_survive_joins_subqueries_sorts_and_unions() {
    let store = TestStore::small();
    let session = session(&store);

    for from in [
        "features_log_mel f JOIN tracks t USING (track_id) WHERE t.track_title = 'title 7'",
        "(SELECT log_mel, track_id FROM features_log_mel ORDER BY track_id DESC LIMIT 2) WHERE track_id = 7",
        "(SELECT * FROM features_log_mel WHERE split = 'none' UNION ALL SELECT * FROM features_log_mel WHERE false) WHERE track_id = 7",
        "(SELECT f.log_mel AS log_mel, q.quant FROM features_log_mel f LEFT JOIN features_quant q ON f.clip_key = q.clip_key WHERE f.track_id = 7)",
        "(SELECT DISTINCT ON (track_id) * FROM features_log_mel WHERE track_id = 7)",
    ] {
        assert_eq!(
            csv(
                &session,
                &format!("SELECT tensor_max(log_mel) AS m FROM {from}")
            ),
            "m\n12.0\n",
            "{from}"
        );
    }
}

#[test]
fn untyped_tensor_is_an_error() {
    let store = TestStore::small();
    let session = session(&store);

    for lost in [
        "arrow_cast(log_mel, 'Binary')",
        "CASE WHEN segment = 0 THEN log_mel END",
        "max(log_mel)",
        "NULL",
    ] {
        assert_refused(
            &session,
            &format!("SELECT tensor_mean({lost}) FROM features_log_mel"),
            "needs a tensor column",
        );
    }

    let kept =
        "SELECT tensor_mean(first_value(log_mel)) AS m FROM features_log_mel WHERE track_id = 0";
    assert_answers(&session, kept, "m\n2.5\n");

    assert_refused(
        &session,
        "SELECT tensor_mean(clip_key) FROM features_log_mel",
        "'clip_key' is not one",
    );

    assert_refused(
        &session,
        "SELECT tensor_at(log_mel, 1) FROM features_log_mel",
        "2 indices for this tensor of mel × frame, not 1",
    );
}

/// Returns the answer to `sql` as a table for people.
fn table(session: &Session, sql: &str) -> String {
    String::from_utf8(ask(session, Format::Table, sql).expect("an answer")).expect("text")
}

#[test]
fn tables_show_tensors_by_type_and_cut_long_values() {
    let store = TestStore::small();
    let session = session(&store);

    let want =
        " clip_key       | log_mel\n----------------+----------\n 000/000000.mp3 | f16[2,3]\n";
    assert_eq!(
        table(
            &session,
            "SELECT clip_key, log_mel FROM features_log_mel WHERE track_id = 0"
        ),
        want
    );
    assert_eq!(
        table(
            &session,
            "SELECT ragged FROM features_ragged WHERE track_id = 2"
        ),
        " ragged\n----------\n f32[2,3]\n"
    );

    let long = table(
        &session,
        "SELECT repeat('é\n', 100) AS x, NULL AS y, 1.5 AS z",
    );
    let row = long.lines().last().expect("a row");
    assert!(
        row.contains("é\\né\\n") && row.contains('…') && row.ends_with("| NULL | 1.5"),
        "{row}"
    );

    assert_eq!(table(&session, "SELECT 1 AS a WHERE false"), " a\n---\n");
}

#[test]
fn json_is_an_object_a_line_with_nulls() {
    let store = TestStore::small();
    let sql = "SELECT 1 AS a, NULL AS b, genres_all FROM features_log_mel WHERE track_id = 3; SELECT 'x' AS c";
    let json = ask(&session(&store), Format::Json, sql).expect("an answer");
    assert_eq!(
        String::from_utf8_lossy(&json),
        "{\"a\":1,\"b\":null,\"genres_all\":[3]}\n{\"c\":\"x\"}\n"
    );
}

#[test]
fn dates_without_a_text_are_errors() {
    let store = TestStore::small();
    let session = session(&store);

    // The year 275760.
    let date = "CAST(100000000 AS DATE)";
    for format in [Format::Csv, Format::Json] {
        for value in [date.to_owned(), format!("make_array({date})")] {
            let answer = ask(&session, format, &format!("SELECT {value} AS d"));
            let kind = answer.map_err(|error| error.kind());
            assert_eq!(kind, Err(Kind::Failed), "{format} {value}");
        }
    }

    let dates = "SELECT DATE '2024-01-31' AS d, make_array(DATE '2024-01-31') AS l, CAST(NULL AS DATE) AS n";
    assert_answers(
        &session,
        dates,
        "d,l,n\n2024-01-31,\"[\"\"2024-01-31\"\"]\",\n",
    );
}

#[test]
fn text_formats_reject_tensors_with_a_suggestion() {
    let store = TestStore::small();
    let (text, kind) = error(&session(&store), "SELECT * FROM features_log_mel");
    assert!(
        text.contains("select tensor(log_mel)") && text.contains("--format arrow"),
        "{text}"
    );
    assert_eq!(kind, Kind::Usage);
}

#[test]
fn arrow_streams_carry_fixed_shape_tensors() {
    let store = TestStore::small();
    let sql = "SELECT track_id, log_mel FROM features_log_mel ORDER BY track_id";
    let stream = ask(&session(&store), Format::Arrow, sql).expect("an answer");
    let reader = StreamReader::try_new(stream.as_slice(), None).expect("a stream");

    let schema = reader.schema();
    let field = schema.field(1);
    assert_eq!(
        field.metadata()["ARROW:extension:name"],
        "arrow.fixed_shape_tensor"
    );
    assert_eq!(
        field.metadata()["ARROW:extension:metadata"],
        r#"{"dim_names":["mel","frame"],"shape":[2,3]}"#
    );
    assert!(field.metadata()["wavemill.tensor"].contains("id-of-log_mel"));
    assert!(matches!(field.data_type(), DataType::FixedSizeList(_, 6)));

    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().expect("batches");
    let values: Vec<f32> = batches
        .iter()
        .flat_map(|b| {
            b.column(1)
                .as_fixed_size_list()
                .values()
                .as_primitive::<Float16Type>()
                .values()
                .to_vec()
        })
        .map(half::f16::to_f32)
        .collect();

    assert_eq!(values.len(), 54);
    assert_eq!(values[48..], [8.0, 9.0, 10.0, 11.0, 12.0, 13.0]);
}

#[test]
fn parquet_results_keep_tensors_as_the_store_has_them() {
    let store = TestStore::small();
    let sql =
        "SELECT clip_key, split, log_mel FROM features_log_mel WHERE genre = 1 ORDER BY clip_key";

    let path = store.folder.path().join("out.parquet");
    std::fs::write(
        &path,
        ask(&session(&store), Format::Parquet, sql).expect("an answer"),
    )
    .expect("a file");

    let file = File::open(&path).expect("the file just written");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .expect("a footer")
        .build()
        .expect("a reader");
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().expect("batches");

    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    assert_eq!(
        batches[0].schema().field(2).data_type(),
        &DataType::FixedSizeBinary(12)
    );
    assert!(
        batches[0]
            .schema()
            .field(2)
            .metadata()
            .contains_key("wavemill.tensor")
    );
    assert_eq!(batches[0].column(1).as_string::<i32>().value(0), "training");

    let twice = ask(
        &session(&store),
        Format::Parquet,
        "SELECT 1 AS a; SELECT 2 AS a",
    )
    .expect_err("two results");
    assert_eq!(
        twice.to_string(),
        "parquet can contain only one result: give a single query, or --format table, csv or json"
    );
}

#[test]
fn functions_are_not_unknown_tables() {
    let session = session(&TestStore::small());
    let found = csv(
        &session,
        "SELECT sum(value) AS s FROM generate_series(1, 3)",
    );
    assert_eq!(found, "s\n6\n");
}

/// Calls that need too much, after the name of the function in the error.
const TOO_MUCH: &str = "
array_repeat: SELECT array_repeat(0, 2147483647)
array_repeat: SELECT list_repeat('a', 2147483647)
array_resize: SELECT array_resize(make_array(1), 1000000000)
range: SELECT range(0, 3000000000)
generate_series: SELECT generate_series(TIMESTAMP '2000-01-01', TIMESTAMP '2020-01-01', INTERVAL '1 second')
repeat: SELECT length(repeat(track_title, 2000000)) FROM tracks
lpad: SELECT lpad('a', 100000000)
rpad: SELECT rpad('a', 100000000)
replace: SELECT replace(repeat('a', 100000), 'a', repeat('b', 100000))
regexp_replace: SELECT length(regexp_replace(repeat('a', 10000), 'a', repeat('b', 10000), 'g'))
regexp_replace: SELECT length(regexp_replace(repeat(track_title, 10000), '(.*)', repeat('\\1', 1000))) FROM tracks
regexp_match: SELECT regexp_match(repeat(track_title, 100000), repeat('(', 100) || '.*' || repeat(')', 100)) FROM tracks
arrays_zip: SELECT arrays_zip(range(100000), [1], [2], [3], [4], [5], [6], [7], [8], [track_id]) FROM tracks
array_to_string: SELECT length(array_to_string(range(100000), repeat('x', 1000000)))
array_to_string: SELECT array_to_string(array_repeat(CAST(NULL AS INT), 100000), '', repeat('x', 1000000))
array_repeat: SELECT list_join(array_repeat(arrow_cast(repeat('x', 100000), 'Utf8View'), 50000), '')
concat_ws: SELECT concat_ws(repeat('x', 1000000), 'a', 'b', 'c')
concat_ws: SELECT arrow_cast(concat_ws(arrow_cast(repeat('x', 1000000), 'Binary'), arrow_cast('a', 'Binary'), \
    arrow_cast('b', 'Binary'), arrow_cast('c', 'Binary')), 'Utf8')
";

#[test]
fn calls_that_need_too_much_are_refused() {
    let store = TestStore::small();
    let session = session(&store);

    for case in TOO_MUCH.trim().lines() {
        let (name, sql) = case.split_once(": ").expect("a name and a query");
        let (text, kind) = error(&session, sql);
        assert!(
            text.starts_with(name) && text.contains("but the limit is") && kind == Kind::Usage,
            "{sql}: {text}"
        );
    }

    let usual = "SELECT array_length(range(0, 1000)) AS n, lpad('7', 3, '0') AS p, list_repeat(1, 2) AS r, \
                 replace('aba', 'a', 'cc') AS q, levenshtein('kitten', 'sitting') AS d, \
                 array_to_string(make_array(1, NULL, 3), '-', '?') AS a, concat_ws('-', 'b', 1, NULL) AS c";
    assert_answers(
        &session,
        usual,
        "n,p,r,q,d,a,c\n1000,007,\"[1,1]\",ccbcc,3,1-?-3,b-1\n",
    );
    let hours = "SELECT array_length(generate_series(TIMESTAMP '2024-01-01', TIMESTAMP '2024-01-03', \
                 INTERVAL '1 day -1 hour')) AS n";
    assert_answers(&session, hours, "n\n3\n");
    // Lists in structs count only those of their row.
    let lists = "SELECT count(array_repeat(named_struct('l', range(0, value)), 2)) AS n FROM generate_series(1, 2000)";
    assert_answers(&session, lists, "n\n2000\n");
}

/// Returns the number of rows of a batch of a query with `memory_bytes` for it.
fn batch_rows(session: &Session, sql: &str, memory_bytes: usize) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let frame = runtime
        .expect("a runtime")
        .block_on(session.planner.ctx.sql(sql));
    let plan = frame.expect(sql).into_optimized_plan().expect(sql);
    LIMITS.batch_rows(&plan, memory_bytes).expect(sql)
}

#[test]
fn large_constants_make_batches_smaller() {
    let store = TestStore::small();
    let session = session(&store);
    let batch_rows = |sql: &str| batch_rows(&session, sql, 32 << 20);

    assert_eq!(batch_rows("SELECT track_id FROM tracks"), 8192);
    assert_eq!(batch_rows("SELECT range(0, 100) FROM tracks"), 1024);
    let large = batch_rows("SELECT range(0, 100000) FROM tracks");
    assert!(large < 50, "{large}");
}

/// A text of 20 MB.
const LONG: &str =
    "(SELECT string_agg(repeat('x', 1000 + value % 2), '') AS s FROM generate_series(1, 20000))";

/// Queries that copy the text of [`LONG`] too often, after the name of the operator in the error.
const COPIES: &str = "
CrossJoin: SELECT max(length(t)) FROM (SELECT s || value AS t FROM generate_series(1, 100000), {LONG})
NestedLoopJoin: SELECT max(s) FROM generate_series(1, 100000) JOIN {LONG} ON value % 7 < length(s)
HashJoin: SELECT max(s) FROM generate_series(1, 100000) JOIN (SELECT s, 1 AS n FROM {LONG}) ON value % 2 = n
Projection: SELECT upper(s) || {sums} AS t FROM {LONG}
Projection: SELECT {each} AS n FROM {LONG}
Aggregate: SELECT count(DISTINCT make_array({list})) FROM {LONG}
Unnest: SELECT max(s) FROM (SELECT s, unnest(range(0, 100000)) FROM {LONG})
WindowAgg: SELECT max(m) FROM (SELECT max(s) OVER () AS m FROM (SELECT s FROM {LONG} UNION ALL \
    SELECT track_title FROM tracks, generate_series(1, 1000)))
WindowAgg: SELECT count(s) FROM (SELECT string_agg('clip ' || value, ',') OVER () AS s FROM generate_series(1, 20000))
BoundedWindowAgg: SELECT count(s) FROM (SELECT string_agg(repeat('x', 1000), '') OVER (ORDER BY value) AS s \
    FROM generate_series(1, 9000))
Filter: WITH RECURSIVE r AS (SELECT max(track_title) AS s, 1 AS n FROM tracks UNION ALL \
    SELECT s || s, n + 1 FROM r WHERE n < 40) SELECT max(length(s)) FROM r
Filter: SELECT count(*) FROM {LONG} WHERE reverse(s) LIKE 'x%'
";

#[test]
fn operators_that_copy_long_texts_are_refused() {
    let store = TestStore::small();
    let session = session(&store);

    let sums = vec!["s"; 20].join(" || ");
    let each: Vec<String> = (0..20).map(|n| format!("length(s || 'a{n}')")).collect();
    for case in COPIES.trim().lines() {
        let (operator, sql) = case.split_once(": ").expect("a case");
        let sql = sql
            .replace("{LONG}", LONG)
            .replace("{sums}", &sums)
            .replace("{list}", &sums.replace(" ||", ","))
            .replace("{each}", &each.join(" + "));
        let (text, kind) = error(&session, &sql);
        assert!(
            text.starts_with(operator)
                && text.contains("longest value of column ")
                && kind == Kind::Usage,
            "{sql}: {text}"
        );
    }
}

#[test]
fn long_values_that_are_not_copied_are_permitted() {
    let store = TestStore::small();
    let session = session(&store);
    let lists = "(SELECT value % 9 AS k, array_agg('clip ' || value) AS l, string_agg(repeat('y', 100), ',') AS s \
                 FROM generate_series(1, 90000) GROUP BY k)";

    let joined = "FROM tracks a JOIN tracks b ON a.track_title <> b.track_title";
    let values = format!("FROM (SELECT unnest(l) AS v FROM {lists})");
    for (column, from, found) in [
        ("length(s)", format!("FROM {LONG}"), "20010000"),
        (
            "max(length(s))",
            format!("FROM {lists} WHERE s LIKE 'y%' AND k < 5"),
            "1009999",
        ),
        ("count(DISTINCT v)", values, "90000"),
        (
            "array_length(l)",
            format!("FROM {lists} ORDER BY s, k DESC LIMIT 1"),
            "10000",
        ),
        ("count(*)", joined.to_owned(), "72"),
    ] {
        let sql = format!("SELECT {column} AS n {from}");
        assert_answers(&session, &sql, &format!("n\n{found}\n"));
    }
}

#[test]
fn copies_of_long_values_of_subqueries_are_refused() {
    let store = TestStore::small();
    let session = session(&store);
    let with_subquery = |sql: &str| {
        let sql = sql.replace(
            "many",
            "(SELECT track_id, track_title FROM tracks, generate_series(1, 100))",
        );
        sql.replace('$', &format!("(SELECT s FROM {LONG})"))
    };

    for sql in [
        "SELECT $ || track_id AS t FROM tracks",
        "SELECT max(length($ || track_id)) FROM tracks",
        "SELECT upper($) AS t FROM many",
        "SELECT track_id FROM many WHERE reverse(track_title || $) LIKE 'x%'",
        "SELECT max($) FROM many",
        "SELECT max($) OVER () AS t FROM many",
        "SELECT count(DISTINCT make_array(track_title, $)) FROM many",
        "SELECT CASE WHEN track_id > 3 THEN $ ELSE track_title END AS t FROM many",
        "SELECT track_id FROM many ORDER BY $ || track_title LIMIT 1",
        "SELECT a.track_id FROM many a JOIN many b ON a.track_title || $ = b.track_title",
        "SELECT count(*) FROM many GROUP BY track_title || $",
        "SELECT strpos($, track_title) AS n FROM many",
        "SELECT 1 FROM tracks WHERE track_title = (SELECT max(track_title || $) FROM many)",
    ] {
        assert_refused(
            &session,
            &with_subquery(sql),
            "the value of a subquery has 19.083 MiB",
        );
    }

    for (sql, found) in [
        ("length($) AS n", "20010000"),
        ("max(length($) + track_id) AS n FROM tracks", "20010008"),
        ("count(*) AS n FROM tracks WHERE track_title <> $", "9"),
        ("count(*) AS n FROM tracks WHERE track_title LIKE $", "0"),
        ("max(length(upper($))) AS n FROM tracks", "20010000"),
    ] {
        let sql = with_subquery(&format!("SELECT {sql}"));
        assert_answers(&session, &sql, &format!("n\n{found}\n"));
    }
}

/// Results over windows, with the sum of the results of all tracks.
const WINDOWS: &str = "
count(*) OVER a; PARTITION BY name; 144000
count(bio) OVER a; PARTITION BY name; 144000
count(bio) OVER a; ; 576000000
ntile(4) OVER a; PARTITION BY name; 52000
rank() OVER a; ORDER BY bio; 287304059
length(min(title) OVER a); PARTITION BY name; 261630
length(first_value(name) OVER a); PARTITION BY name; 257340
length(max(bio) OVER a) + length(min(bio) OVER a); PARTITION BY name; 9693738
length(max(upper(bio)) OVER a); PARTITION BY name; 4905738
length(lag(bio) OVER a); PARTITION BY name ORDER BY id; 4009623
length(lead(bio, 1, 'none') OVER a); ORDER BY id; 4807627
length(string_agg(title, ',') OVER a); PARTITION BY name; 1637340
array_length(array_agg(id) OVER a); PARTITION BY name; 144000
array_length(array_agg(title) OVER a); ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW; 71997
# The longest text is not the result.
length(max(title || bio) OVER a); ; 408000
length(min(title || bio) OVER a); ; 168000
length(last_value(bio) OVER a); ORDER BY id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING; 0
# Results are made batch by batch.
length(max(bio) OVER a); ORDER BY id; 326765023
length(first_value(bio) OVER a); ORDER BY bio DESC; 480000000
";

#[test]
fn windows_and_unnest_over_ordinary_texts_are_permitted() {
    let store = TestStore::small();
    let limits = Limits {
        memory_bytes: 256 << 20,
        ..LIMITS
    };
    let session = session_within(&store, limits);
    // One of the tracks has a biography of 20 kB.
    let tracks = "(SELECT value AS id, 'Artist ' || (value % 4000) AS name, 'Track ' || value AS title, \
                  repeat('b', CASE WHEN value = 7777 THEN 20000 ELSE value % 4000 / 10 END) AS bio \
                  FROM generate_series(0, 23999))";

    for case in WINDOWS.trim().lines().filter(|line| !line.starts_with('#')) {
        let [result, window, found] = case.split("; ").collect::<Vec<_>>()[..] else {
            panic!("{case}");
        };
        let sql = format!(
            "SELECT sum(c) AS n FROM (SELECT {result} AS c FROM {tracks} WINDOW a AS ({window}))"
        );
        assert_eq!(csv(&session, &sql), format!("n\n{found}\n"), "{sql}");
    }

    // The longest list is neither in the widest row nor in the first batch.
    let lists = format!(
        "SELECT count(*) AS n FROM (SELECT bio, unnest(range(0, CASE id WHEN 20001 THEN 90000 ELSE 2 END)) FROM {tracks})"
    );
    assert_eq!(csv(&session, &lists), "n\n137998\n");
}

/// A file has the text of all rows once, in a dictionary.
#[test]
fn rows_that_share_a_long_text_are_read_one_by_one() {
    let mut store = TestStore::small();
    let text = "x".repeat(600_000);
    let texts = arrow::array::StringArray::from_iter_values((0..200).map(|_| &text));
    let ids = arrow::array::Int64Array::from_iter_values(0..200);
    let batch = RecordBatch::try_from_iter([
        ("id", std::sync::Arc::new(ids) as arrow::array::ArrayRef),
        ("s", std::sync::Arc::new(texts)),
    ]);
    store.write_table("long", &batch.expect("equal lengths"));
    let session = session(&store);

    let batch_rows = |sql: &str| batch_rows(&session, sql, 1 << 20);
    assert_eq!(batch_rows("SELECT s FROM long"), 1);
    assert_eq!(batch_rows("SELECT id FROM long"), 8192);
    let last = "SELECT id, length(s) AS n FROM long ORDER BY s, id DESC LIMIT 1";
    assert_answers(&session, last, "id,n\n199,600000\n");
}

#[test]
fn mistakes_are_one_line_with_the_nearest_name() {
    let store = TestStore::small();
    let session = session(&store);

    let cases = [
        (
            "SELECT titel FROM trcks",
            "no table 'trcks'; did you mean tracks?",
        ),
        (
            "SELECT track_titel FROM tracks",
            "no column 'track_titel'; did you mean track_title?",
        ),
        ("SELECT t.album FROM tracks t", "no column 't.album'"),
        (
            "SELECT * FROM raw.track",
            "no table 'raw.track'; did you mean raw.tracks?",
        ),
        ("SELEC 1", "SELEC"),
        (
            "SELECT tensor_men(log_mel) FROM features_log_mel",
            "Invalid function 'tensor_men'. Did you mean 'tensor_m",
        ),
        ("", "the query is empty"),
        ("-- nothing\n;", "the query is empty"),
    ];

    for (sql, want) in cases {
        let (text, kind) = error(&session, sql);
        assert!(text.contains(want) && !text.contains('\n'), "{sql}: {text}");
        assert_eq!(kind, Kind::Usage, "{sql}: {text}");
    }
}

/// Mistakes of a first hour, with the whole message.
#[test]
fn mistakes_have_the_remedy_that_was_meant() {
    const CAST: &str = "Cannot cast string 'title 0' to value of Int64 type: compare numbers with numbers, or convert \
                        texts with TRY_CAST(x AS INT)";
    const ID: &str = "'Rock' is not a number: genre is the id of a class, and genre_name its name, as in genre_name = \
                      'Rock'";
    const SUBSCRIPT: &str = "log_mel[…] is not possible, because log_mel is a tensor: tensor_at(log_mel, i, j) is one \
                             of its values, tensor_slice(log_mel, axis, start, end) a part";
    let store = TestStore::small();
    let session = session(&store);

    let features = "SELECT 1 FROM features_log_mel f WHERE";
    let tracks = "SELECT 1 FROM tracks WHERE";
    for (sql, want) in [
        (format!("{features} genre = 'Rock'"), ID),
        (format!("{features} 'Rock' <> f.genre"), ID),
        (format!("{features} genre IN (1, 'Rock')"), ID),
        (format!("{features} genre BETWEEN 'Rock' AND '2'"), ID),
        ("SELECT genre = 'Rock' FROM features_log_mel".to_owned(), ID),
        (
            format!("{features} EXISTS (SELECT 1 FROM features_quant WHERE genre = 'Rock')"),
            ID,
        ),
        (
            format!("{features} genre = Rock"),
            "no column 'rock'; texts take single quotes: genre is the id of a class, and genre_name its name, as in \
             genre_name = 'Rock'",
        ),
        (format!("{tracks} track_id = track_title"), CAST),
        (
            format!("{tracks} track_title = \"Toggle\""),
            "no column 'Toggle'; texts take single quotes: 'Toggle'",
        ),
        (
            format!("{tracks} track_title = Rock"),
            "no column 'rock'; texts take single quotes: 'Rock'",
        ),
        (
            format!("{tracks} track_title IN ('a', \"it's\")"),
            "no column 'it's'; texts take single quotes: 'it''s'",
        ),
        (
            format!("{tracks} track_title LIKE \"a%\""),
            "no column 'a%'; texts take single quotes: 'a%'",
        ),
        (
            format!("{tracks} track_title = track_titel"),
            "no column 'track_titel'; did you mean track_title?",
        ),
        (
            format!("{tracks} track_title = \"track_titel\""),
            "no column 'track_titel'; texts take single quotes: 'track_titel'",
        ),
        (
            "SELECT log_mel[0] FROM features_log_mel".to_owned(),
            SUBSCRIPT,
        ),
        (format!("{features} f.log_mel[0][1] > 2"), SUBSCRIPT),
        (
            "SELECT quant FROM features_log_mel".to_owned(),
            "no column 'quant'; it is a column of features_quant",
        ),
        (
            "SELECT audio_blake3 FROM tracks".to_owned(),
            "no column 'audio_blake3'; it is a column of features_log_mel, features_quant, features_ragged",
        ),
        (
            "SELECT c.class FROM features_log_mel f JOIN tracks USING (track_id)".to_owned(),
            "no column 'c.class'; the query has no table or alias 'c', only f, tracks",
        ),
        (
            "SELECT * FROM 'My scores-2.csv'".to_owned(),
            "no table 'My scores-2.csv'; to read a file, add --table my_scores_2=My scores-2.csv and select FROM \
             my_scores_2",
        ),
        (
            "SELECT * FROM \"/a/1.parquet\"".to_owned(),
            "no table '/a/1.parquet'; to read a file, add --table _1=/a/1.parquet and select FROM _1",
        ),
        (
            "SELECT * FROM x.csv".to_owned(),
            "no table 'x.csv'; to read a file, add --table x=x.csv and select FROM x",
        ),
        (
            "SELECT * FROM tracks WHERE".to_owned(),
            "the SQL is incomplete, after `SELECT * FROM tracks WHERE`: expected an expression",
        ),
        (
            "SELECT 1\nFRM tracks t".to_owned(),
            "SQL, line 2, column 5: expected end of statement, found tracks",
        ),
    ] {
        assert_eq!(
            error(&session, &sql),
            (want.to_owned(), Kind::Usage),
            "{sql}"
        );
    }
}

#[test]
fn rows_of_features_have_the_names_of_their_classes() {
    let mut store = TestStore::small();
    let unlabelled = Clip {
        genre: None,
        ..Clip::f16(20, &[0.; 6])
    };
    store.write_feature(
        &feature("log_mel", "f16", &[Some(2), Some(3)]),
        "test",
        &[unlabelled],
    );
    let session = session(&store);

    let names = "SELECT genre, genre_name, count(*) AS n FROM features_log_mel GROUP BY ALL ORDER BY genre NULLS LAST";
    assert_answers(
        &session,
        names,
        "genre,genre_name,n\n0,Folk,3\n1,Jazz,3\n2,Rock,3\n,,1\n",
    );
    assert_answers(
        &session,
        "SELECT f.track_id FROM features_log_mel f WHERE genre_name = 'Jazz' AND split = 'validation'",
        "track_id\n4\n",
    );
    assert_answers(
        &session,
        "SELECT count(*) AS n FROM features_log_mel WHERE genre = '1'",
        "n\n3\n",
    );

    // The name is the last column, and only queries that read it compute it.
    let columns = session.columns("features_log_mel").expect("a table");
    let last = columns.fields().last().map(|field| field.name().clone());
    assert_eq!(last.as_deref(), Some("genre_name"));
    let plan = csv(&session, "EXPLAIN SELECT genre FROM features_log_mel");
    assert!(!plan.contains("Folk"), "{plan}");
}

#[test]
fn comments_and_several_statements_are_fine() {
    let store = TestStore::small();
    let sql = "-- first\nSELECT 1 AS a; /* second; */ SELECT ';' AS b;";
    assert_eq!(csv(&session(&store), sql), "a\n1\nb\n;\n");
}

#[test]
fn writing_requires_permission() {
    let store = TestStore::small();
    let elsewhere = tempfile::tempdir().expect("a folder");
    let target = elsewhere.path().join("out.parquet");

    let copy = format!(
        "COPY (SELECT track_id FROM tracks) TO '{}' STORED AS PARQUET",
        target.display()
    );
    let statements = [
        copy.as_str(),
        "CREATE TABLE x AS SELECT 1",
        "CREATE VIEW x AS SELECT 1",
        "DROP VIEW x",
        "DROP TABLE IF EXISTS x",
        "EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1",
    ];

    for sql in statements {
        let verb = sql.trim_start_matches("EXPLAIN ANALYZE ").split(' ').next();
        let want = format!(
            "{}: `wavemill sql` is read-only: add --allow-write to permit it",
            verb.expect("a word")
        );
        assert_eq!(error(&session(&store), sql), (want, Kind::Usage));
    }
    assert!(!target.exists());

    let session = writing_session(&store);

    assert_eq!(csv(&session, &copy), "count\n9\n");
    assert!(target.exists());
    assert_answers(
        &session,
        "CREATE TABLE x AS SELECT 7 AS seven; SELECT seven FROM x",
        "seven\n7\n",
    );
}

#[test]
fn tables_of_the_store_never_change() {
    let store = TestStore::small();
    for session in [session(&store), writing_session(&store)] {
        for (sql, verb, table) in [
            ("DELETE FROM tracks", "DELETE", "tracks"),
            ("UPDATE tracks SET track_title = 'a'", "UPDATE", "tracks"),
            (
                "INSERT INTO tracks SELECT * FROM tracks",
                "INSERT",
                "tracks",
            ),
            ("DROP TABLE features_log_mel", "DROP", "features_log_mel"),
            ("DROP TABLE classes", "DROP", "classes"),
            ("DELETE FROM raw.tracks", "DELETE", "raw.tracks"),
            ("DELETE FROM versions", "DELETE", "versions"),
        ] {
            let want = format!(
                "{verb}: {table} is a table of the store, whose versions never change: to change or leave out rows, add \
                 a step to the recipe's catalog.clean and commit another version with `wavemill extract … --new-version`"
            );
            assert_eq!(error(&session, sql), (want, Kind::Usage), "{sql}");
        }
    }
    let nearly = "no table 'trcks'; did you mean tracks?";
    for sql in [
        "DELETE FROM trcks",
        "CREATE TABLE x AS SELECT * FROM store.trcks",
        "EXPLAIN SELECT * FROM wavemill.store.trcks",
    ] {
        let want = (nearly.to_owned(), Kind::Usage);
        assert_eq!(error(&session(&store), sql), want, "{sql}");
    }
}

/// Tests several notations of paths into the store. `{}` is replaced by the store's folder.
#[test]
fn files_of_the_store_are_never_written() {
    let store = TestStore::small();
    let root = store.folder.path();
    let elsewhere = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(root.join("data"), elsewhere.path().join("link")).expect("a link");
    std::os::unix::fs::symlink(root, elsewhere.path().join("fma [v2]")).expect("a link");

    let session = writing_session(&store);

    let plan_id = &store.manifest.plan_id;
    let tracks = root.join(format!("data/{plan_id}/tracks/00000.parquet"));
    let was = std::fs::read(&tracks).expect("a file");

    for at in [
        "{}/data/{plan}/tracks/00000.parquet",
        "{}/_wavemill/versions/00000001.json",
        "{}/new.csv",
        "{}/./data/../new.csv",
        "file://{}/new.csv",
        "store://wavemill/data/{plan}/tracks/00000.parquet",
        "{e}/link/new/x.csv",
        "{e}/no/../link/x.csv",
        "{e}/fma [v2]/data/{plan}/tracks/00000.parquet",
    ] {
        let place = at
            .replace("{}", root.to_str().expect("text"))
            .replace("{e}", elsewhere.path().to_str().expect("text"))
            .replace("{plan}", plan_id);
        for sql in [
            "COPY (SELECT 1 AS a) TO '{at}' STORED AS CSV",
            "EXPLAIN ANALYZE COPY (SELECT 1 AS a) TO '{at}' STORED AS CSV",
            "CREATE EXTERNAL TABLE own (a BIGINT) STORED AS CSV LOCATION '{at}'",
            "CREATE UNBOUNDED EXTERNAL TABLE own (a BIGINT) STORED AS CSV LOCATION '{at}'",
        ] {
            assert_refused(&session, &sql.replace("{at}", &place), "inside the store");
        }
    }

    let both = format!(
        "CREATE EXTERNAL TABLE two (a BIGINT) STORED AS CSV LOCATION ('{}/a.csv', '{}/')",
        elsewhere.path().display(),
        root.display()
    );
    assert!(error(&session, &both).0.contains("inside the store"));

    let beside = format!(
        "CREATE EXTERNAL TABLE x (a BIGINT) STORED AS CSV LOCATION '{}/'",
        elsewhere.path().display()
    );
    assert_eq!(
        csv(&session, &format!("{beside}; INSERT INTO x VALUES (7)")),
        "count\n1\n"
    );

    assert_eq!(std::fs::read(&tracks).expect("a file"), was);
    assert!(!root.join("new.csv").exists() && !root.join("_wavemill").exists());
}

#[test]
fn copy_to_a_pattern_writes_nothing() {
    let store = TestStore::small();
    let folder = tempfile::tempdir().expect("a folder");
    let session = writing_session(&store);
    let copy = |to: &str| format!("COPY (SELECT 1 AS a) TO '{to}' STORED AS CSV");
    let at = folder.path().display();

    for name in ["out[1].csv", "out?.csv", "*"] {
        assert_refused(
            &session,
            &copy(&format!("{at}/{name}")),
            "is a pattern for several files",
        );
        assert_eq!(n_files(folder.path()), 0, "{name}");
    }

    // A URL is no pattern.
    csv(&session, &copy(&format!("file://{at}/out%5B1%5D.csv")));
    assert!(folder.path().join("out[1].csv").exists());
}

#[test]
fn created_tables_count_as_memory() {
    let store = TestStore::small();
    let small = Limits {
        memory_bytes: 16 << 20,
        allow_write: true,
        ..LIMITS
    };
    let session = session_within(&store, small);
    let create = |n: usize| format!("CREATE TABLE x AS SELECT * FROM generate_series(1, {n})");

    let (text, kind) = error(&session, &create(2_000_000));
    assert!(
        text.contains("exceeds --memory-limit") && kind == Kind::Failed,
        "{text}"
    );

    // The memory is free again when the table is dropped or replaced.
    for _ in 0..3 {
        csv(&session, &create(500_000));
        let found = csv(&session, "SELECT count(*) AS n FROM x");
        assert_eq!(found, "n\n500000\n");
        let (text, _) = error(&session, &create(1));
        assert!(text.contains("already exists"), "{text}");
        csv(&session, "DROP TABLE x");
    }
}

#[test]
fn limits_of_the_command_line_hold() {
    let store = TestStore::small();
    let spill = store.folder.path().join("spill");
    let session = writing_session(&store);

    for sql in [
        &format!(
            "SET datafusion.runtime.temp_directory = '{}'",
            spill.display()
        ),
        "SET datafusion.runtime.memory_limit = '64G'",
        "RESET datafusion.runtime.memory_limit",
    ] {
        assert_refused(&session, sql, "--memory-limit");
    }
    assert!(!spill.exists());

    assert_answers(
        &session,
        "SET datafusion.execution.batch_size = 7; SELECT 1 AS a",
        "a\n1\n",
    );
}

#[test]
fn damage_error_names_the_file_and_other_tables_work() {
    let store = TestStore::small();
    let mut log_mel = store.manifest.files.clone();
    log_mel.retain(|file| file.feature.as_deref() == Some("log_mel"));
    let [first, second, third] = &log_mel[..] else {
        panic!("three splits")
    };
    let [first_path, second_path, third_path] =
        [first, second, third].map(|file| store.folder.path().join(&file.path));

    let mut bytes = std::fs::read(&first_path).expect("a file");
    bytes[4..60].fill(0xff);
    std::fs::write(&first_path, &bytes).expect("a file");

    let (text, kind) = error(&session(&store), "SELECT clip_key FROM features_log_mel");
    assert!(
        text.contains("damaged") && text.contains("wavemill verify") && kind == Kind::Damaged,
        "{text}"
    );
    assert_eq!(
        csv(
            &session(&store),
            "SELECT count(track_title) AS n FROM tracks"
        ),
        "n\n9\n"
    );

    bytes.pop();
    std::fs::write(&second_path, &bytes).expect("a file");
    let (text, kind) = error(&session(&store), "SELECT clip_key FROM features_log_mel");
    assert!(
        text.contains(&second.path) && text.contains("in the manifest") && kind == Kind::Damaged,
        "{text}"
    );

    std::fs::remove_file(&second_path).expect("removed");
    std::fs::remove_file(&third_path).expect("removed");
    assert_eq!(
        error(&session(&store), "SELECT clip_key FROM features_log_mel").1,
        Kind::Damaged
    );
    assert_eq!(
        csv(
            &session(&store),
            "SELECT count(quant) AS n FROM features_quant"
        ),
        "n\n9\n"
    );
}

#[test]
fn interrupted_query_returns_interrupted() {
    let store = TestStore::small();
    let session = session(&store);
    let interrupt = session.interrupt();
    assert!(!interrupt.stop());

    let stopper = std::thread::spawn(move || {
        while !interrupt.stop() {
            std::thread::yield_now();
        }
    });

    let endless = "SELECT count(*) FROM features_log_mel a, features_log_mel b, features_log_mel c, features_log_mel d, \
                   features_log_mel e, features_log_mel f, features_log_mel g, features_log_mel h WHERE a.clip_key < h.clip_key";
    let start = std::time::Instant::now();
    let stopped = ask(&session, Format::Csv, endless).expect_err("interrupted");
    stopper.join().expect("the stopper");

    assert!(start.elapsed().as_millis() < 1000, "{:?}", start.elapsed());
    assert_eq!(stopped.kind(), Kind::Interrupted);
    assert_answers(&session, "SELECT 1 AS a", "a\n1\n");
}

/// Returns the number of entries of a folder.
fn n_files(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("a folder").count()
}

#[test]
fn an_interrupted_statement_leaves_no_unfinished_file() {
    let store = TestStore::small();
    let folder = tempfile::tempdir().expect("a folder");
    let session = writing_session(&store);
    let at = folder.path().display();
    let external = format!("CREATE EXTERNAL TABLE own (a BIGINT) STORED AS CSV LOCATION '{at}/'");
    csv(&session, &external);

    let endless = "SELECT a.track_id AS a FROM tracks a, tracks b, tracks c, tracks d, tracks e, tracks f, tracks g, \
                   tracks h, tracks i, tracks j, tracks k, tracks l";
    for sql in [
        format!("COPY ({endless}) TO '{at}/x.csv'"),
        format!("EXPLAIN ANALYZE COPY ({endless}) TO '{at}/x.csv'"),
        format!("INSERT INTO own {endless}"),
        format!("EXPLAIN ANALYZE INSERT INTO own {endless}"),
    ] {
        let interrupt = session.interrupt();
        let (was_written, stopped) = std::thread::scope(|scope| {
            let stopper = scope.spawn(|| {
                let start = std::time::Instant::now();
                // Wait at most a minute, so that a statement that writes nothing fails the test instead of blocking it.
                while n_files(folder.path()) == 0 && start.elapsed().as_secs() < 60 {
                    std::thread::yield_now();
                }
                let was_written = n_files(folder.path()) > 0;
                interrupt.stop();
                was_written
            });

            let stopped = ask(&session, Format::Csv, &sql).map_err(|error| error.kind());
            (stopper.join().expect("the stopper"), stopped)
        });

        assert_eq!(
            (was_written, stopped),
            (true, Err(Kind::Interrupted)),
            "{sql}"
        );
        assert_eq!(n_files(folder.path()), 0, "{sql}");
    }
}

#[test]
fn closed_reader_is_a_broken_pipe() {
    struct Gone;
    impl std::io::Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
    }

    let store = TestStore::small();
    let session = session(&store);

    for format in [
        Format::Table,
        Format::Csv,
        Format::Json,
        Format::Arrow,
        Format::Parquet,
    ] {
        let gone = session.run(
            "SELECT track_id FROM tracks",
            output::sink(format, Gone).as_mut(),
        );
        assert!(
            gone.as_ref().is_err_and(SqlError::is_broken_pipe),
            "{format}: {gone:?}"
        );
    }
}

#[test]
fn documented_queries_succeed() {
    let mut store = TestStore::small();
    let no_files = RecordBatch::new_empty(audio_files_schema());
    store.write_table("audio_files", &no_files);
    let session = session(&store);

    let page = include_str!("../../../docs/sql.md");
    let queries: Vec<&str> = page
        .split("```sql\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert_eq!(queries.len(), 12);

    let answers: Vec<String> = queries
        .iter()
        .map(|sql| match ask(&session, Format::Table, sql) {
            Ok(answer) => String::from_utf8(answer).expect("text"),
            Err(error) => panic!("{sql}: {error}"),
        })
        .collect();

    assert!(
        answers[0].contains(" Folk  | none       |     1\n"),
        "{}",
        answers[0]
    );
    assert!(
        answers[1].contains("[000/000001.mp3, 000/000004.mp3]"),
        "{}",
        answers[1]
    );
    assert!(
        answers[4].contains(" NULL       |      9\n labelled   |      1\n"),
        "{}",
        answers[4]
    );
    assert!(
        answers[5].contains(" Jazz  |  3.5 |    1.0 |     6.0\n"),
        "{}",
        answers[5]
    );
    assert!(answers[6].contains(" Jazz  | [2.0, 5.0]"), "{}", answers[6]);
    assert!(
        answers[7]
            .lines()
            .nth(2)
            .is_some_and(|row| row.starts_with(" title 8")),
        "{}",
        answers[7]
    );
    assert!(
        answers[10].contains(" Genre 1 |     1\n"),
        "{}",
        answers[10]
    );
}
