//! `wavemill catalog`: other engines read a version through its tables, and cannot remove the store's files.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use wavemill_tests::Failed;

use crate::peers::{packages, script};
use crate::support::{
    argv, asks_for_peers, contains, manifest, run, same, scratch, sql, wavemill, whole,
};

/// Questions that all readers answer with one kind of SQL, and with rows in the same order.
const QUESTIONS: [&str; 10] = [
    "SELECT count(*) AS n FROM features_log_mel",
    "SELECT split, count(*) AS n FROM features_log_mel GROUP BY split ORDER BY split",
    "SELECT clip_key FROM features_log_mel WHERE split = 'test' ORDER BY clip_key",
    "SELECT genre, count(*) AS n FROM features_log_mel GROUP BY genre ORDER BY genre",
    "SELECT min(CAST(duration_s AS DOUBLE)) AS a, max(CAST(duration_s AS DOUBLE)) AS b FROM features_mfcc WHERE split <> 'training'",
    "SELECT max(audio_blake3) AS x FROM features_log_mel WHERE NOT silent",
    "SELECT track_genre_top, count(*) AS n FROM tracks GROUP BY track_genre_top ORDER BY track_genre_top",
    "SELECT sum(track_listens) AS n FROM tracks WHERE track_bit_rate > 256000",
    "SELECT f.split, max(t.track_title) AS x FROM features_log_mel AS f JOIN tracks AS t ON f.track_id = t.track_id \
     GROUP BY f.split ORDER BY f.split",
    "SELECT side, count(*) AS n FROM sides GROUP BY side ORDER BY side",
];

/// DuckDB gives the answers of `wavemill sql` over the views that `info` prints.
#[apply(trial)]
#[needs(asks_for_peers)]
fn views_answer_alike() -> Result<(), Failed> {
    let mut info = wavemill(argv("info --views duckdb --store"));
    let views = scratch("views").join("views.sql");
    std::fs::write(&views, run(info.arg(whole())).exits(0)?.out)?;

    let questions: Vec<&str> = QUESTIONS
        .into_iter()
        .chain(["SELECT target, class_id, class FROM classes ORDER BY target, class_id"])
        .collect();
    let mut command = packages("catalogs")?;
    command.arg(script("read_views.py")).arg(&views);
    let read = run(command.args(&questions)).exits(0)?;

    let answers: Vec<Value> = serde_json::from_str(&read.out)?;
    for (question, found) in questions.iter().zip(answers) {
        let rows: Vec<Value> = sql(whole(), question)?;
        let expected: Vec<Value> = rows.iter().map(|row| values(question, row)).collect();
        same(question, found, Value::Array(expected))?;
    }
    Ok(())
}

fn catalog(format: &str, out: &Path) -> Command {
    let mut command = wavemill(argv("catalog --json --store"));
    command
        .arg(whole())
        .args(["--format", format, "--out"])
        .arg(out);
    command
}

/// DuckDB, pyiceberg and Polars give the answers of `wavemill sql` through both catalogues.
#[apply(trial)]
#[needs(asks_for_peers)]
fn engines_agree() -> Result<(), Failed> {
    let folder = scratch("catalogs");
    let [iceberg, ducklake] = ["iceberg", "ducklake"].map(|format| folder.join(format));
    run(&mut catalog("iceberg", &iceberg)).exits(0)?;
    run(&mut catalog("ducklake", &ducklake)).exits(0)?;

    let mut expected = Vec::new();
    for question in QUESTIONS {
        let rows: Vec<Value> = sql(whole(), question)?;
        let rows = rows.iter().map(|row| values(question, row));
        expected.push(Value::Array(rows.collect()));
    }

    let mut command = packages("catalogs")?;
    command
        .arg(script("read_catalogs.py"))
        .args([&iceberg, &ducklake]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut questions = child.stdin.take().ok_or("no stdin")?;
    questions.write_all(QUESTIONS.join("\n").as_bytes())?;
    drop(questions);
    let read = child.wait_with_output()?;
    same("exit code", read.status.code(), Some(0))?;

    let answers: Value = serde_json::from_slice(&read.stdout)?;
    let answers = answers.as_object().ok_or("no answers")?;
    same("readers", answers.len(), 4)?;
    for (reader, found) in answers {
        for (i, question) in QUESTIONS.iter().enumerate() {
            same(&format!("{reader}: {question}"), &found[i], &expected[i])?;
        }
    }
    Ok(())
}

/// Returns the values of a row in the order of the question's columns.
fn values(question: &str, row: &Value) -> Value {
    let columns = question
        .trim_start_matches("SELECT ")
        .split(" FROM ")
        .next()
        .unwrap_or_default();
    let names = columns.split(", ").map(|column| {
        let name = column.rsplit(" AS ").next().unwrap_or(column);
        name.rsplit('.').next().unwrap_or(name)
    });
    names.map(|name| row[name].clone()).collect()
}

#[apply(trial)]
fn catalogs_refer_to_every_file() -> Result<(), Failed> {
    let folder = scratch("catalog-files");
    let files = manifest(whole(), 1)?.files;

    let iceberg = folder.join("iceberg");
    let report: Value =
        serde_json::from_str(&run(&mut catalog("iceberg", &iceberg)).exits(0)?.out)?;
    same("left out", &report["left_out"], &json!([]))?;
    let n_files = |table: &Value| table["files"].as_u64().unwrap_or(0);
    let tables = report["tables"].as_array().ok_or("no tables")?;
    same(
        "files",
        tables.iter().map(n_files).sum::<u64>(),
        files.len() as u64,
    )?;
    let metadata = fs::read(iceberg.join("features_log_mel/metadata/v1.metadata.json"))?;
    let metadata: Value = serde_json::from_slice(&metadata)?;
    same(
        "gc",
        metadata["properties"]["gc.enabled"].as_str(),
        Some("false"),
    )?;
    // A DuckLake can remove its own names of the files, and the store keeps them.
    let ducklake = folder.join("ducklake");
    run(&mut catalog("ducklake", &ducklake)).exits(0)?;
    let commands = fs::read_to_string(ducklake.join("ducklake.sql"))?;
    for file in &files {
        let link = ducklake.join("data").join(&file.path);
        contains(&commands, &format!("'{}'", link.display()))?;
        let links =
            [link, whole().join(&file.path)].map(|path| fs::metadata(path).map(|file| file.ino()));
        let [link, stored] = links;
        same(&file.path, link?, stored?)?;
    }
    Ok(())
}

#[apply(trial)]
fn columns_without_a_type_are_named() -> Result<(), Failed> {
    let store = crate::support::own_store("catalog-types");
    let sets = argv("--set shards.layout=list --new-version");
    run(crate::support::inputs().extract(&store).args(sets)).exits(0)?;
    let out = scratch("catalog-lists").join("out");
    let mut command = wavemill(argv("catalog --format iceberg --store"));
    let ran = run(command.arg(&store).arg("--out").arg(&out)).exits(0)?;
    contains(&ran.err, "no such type: features_log_mel.log_mel: List(")?;

    // The output folder must be new, and outside the store.
    let refused: [(PathBuf, &str); 2] = [
        (out, "not empty"),
        (store.join("catalog"), "must be outside the store"),
    ];
    for (out, said) in refused {
        let mut command = wavemill(argv("catalog --format ducklake --store"));
        let ran = run(command.arg(&store).arg("--out").arg(out)).exits(2)?;
        contains(ran.error()?, said)?;
    }
    Ok(())
}
