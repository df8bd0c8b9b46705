//! Every file below the audio root is accounted for as used, without a row, of an unsupported format, or hidden.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use wavemill_tests::Failed;

use crate::support::{
    Inputs, contains, files_below, run, same, same_versions, scratch, sql, sql_counts, sql_number,
    wavemill,
};
use crate::table::noise;

const FEATURE: &str = r#"
[audio]
sample_rate_hz = 8000
duration_s = 0.25
min_duration_s = 0.1
[[features]]
name = "log_mel"
op = "mel"
n_fft = 256
hop_length = 128
n_mels = 16
"#;

const TABLE: &str = r#"
name = "found"
[catalog]
dataset = "table"
[[catalog.clean]]
step = "labelled"
where = "genre IS NOT NULL"
[[targets]]
name = "genre"
column = "genre"
"#;

/// A name with an accented letter, precomposed (NFC) and as a letter with a combining mark (NFD).
const COMPOSED: &str = "a/bj\u{f6}rk.wav";
const DECOMPOSED: &str = "a/bjo\u{308}rk.wav";

/// File names of every kind, with the category that is expected for each.
const FILES: [(&str, &str); 14] = [
    ("a/one.wav", "used"),
    ("b/two.wav", "used"),
    ("a/unlabelled.wav", "dropped"),
    ("a/loose.wav", "no_row"),
    ("a/Near.wav", "near_row"),
    (DECOMPOSED, "near_row"),
    ("a/named.ape", "unsupported"),
    ("b/unnamed.WMA", "unsupported"),
    ("a/cover.jpg", "not_audio"),
    ("README", "not_audio"),
    ("a/._one.wav", "hidden"),
    (".trash/one.wav", "hidden"),
    (".trash/deep/notes.txt", "hidden"),
    ("b/.DS_Store", "hidden"),
];

const ROWS: [&str; 7] = [
    "a/one.wav,Rock",
    "b/two.wav,Jazz",
    "a/unlabelled.wav,",
    "a/near.wav,Rock",
    "a/absent.wav,Rock",
    "a/named.ape,Rock",
    "a/bj\u{f6}rk.wav,Jazz",
];

fn put(path: &Path, bytes: &[u8]) -> Result<(), Failed> {
    fs::create_dir_all(path.parent().ok_or("a folder")?)?;
    Ok(fs::write(path, bytes)?)
}

/// Creates all files of [`FILES`] and a metadata table with the given rows.
fn with_rows(folder: &Path, rows: &[&str]) -> Result<Inputs, Failed> {
    for (voice, (name, _)) in (0..).zip(FILES) {
        put(&folder.join("audio").join(name), &noise(voice))?;
    }

    let metadata = folder.join("rows.csv");
    fs::write(&metadata, format!("clip_key,genre\n{}\n", rows.join("\n")))?;
    let recipe = folder.join("found.toml");
    fs::write(&recipe, format!("{TABLE}{FEATURE}"))?;

    Ok(Inputs::new(metadata, folder.join("audio"), recipe))
}

fn zip_of(folder: &Path) -> Result<PathBuf, Failed> {
    const ZIP: &str = "
import sys, zipfile
archive, folder, *names = sys.argv[1:]
with zipfile.ZipFile(archive, 'w') as out:
    for name in names:
        out.write(folder + '/' + name, 'music/' + name)
";

    let archive = folder.with_file_name("music.zip");
    let mut python = Command::new("python3");
    python.args(["-c", ZIP]).arg(&archive).arg(folder);
    run(python.args(files_below(folder))).exits(0)?;
    Ok(archive)
}

#[apply(trial)]
fn a_folder_and_its_zip_are_accounted_for() -> Result<(), Failed> {
    let folder = scratch("found-files");
    let inputs = with_rows(&folder, &ROWS)?;
    let store = folder.join("store");
    let ran = run(&mut inputs.extract(&store)).exits(0)?;

    let sum = "files found 14 = used 2 + dropped 1 + near_row 2 + no_row 1 + unsupported 2 + not_audio 2 + hidden 4";
    for told in [
        sum,
        "2 files below the audio root (1 ape, 1 wma), such as a/named.ape: wavemill does not decode these formats",
        "1 file below the audio root (1 wav), such as a/loose.wav: no row names these files",
        "2 rows name a file whose name differs in case, in Unicode normalization or in a suffix",
        "a row names a/near.wav, the folder has a/Near.wav",
        &format!("a row names {COMPOSED}, the folder has {DECOMPOSED}"),
    ] {
        contains(&ran.err, told)?;
    }

    let found = sql_counts(
        &store,
        "SELECT fate AS name, CAST(sum(files) AS BIGINT) AS n FROM audio_files GROUP BY fate",
    )?;
    let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
    for (_, fate) in FILES {
        *wanted.entry(fate.to_owned()).or_default() += 1;
    }
    same("files by fate", found, wanted)?;

    let names = files_below(&inputs.audio);
    let bytes: u64 = names
        .iter()
        .map(|name| fs::metadata(inputs.audio.join(name)).map(|file| file.len()))
        .sum::<std::io::Result<u64>>()?;
    let all = sql_number(&store, "SELECT CAST(sum(files) AS BIGINT) FROM audio_files")?;
    same("files", all, names.len() as u64)?;
    let all = sql_number(&store, "SELECT CAST(sum(bytes) AS BIGINT) FROM audio_files")?;
    same("bytes", all, bytes)?;

    let near = sql(
        &store,
        "SELECT examples, near_rows FROM audio_files WHERE near_rows IS NOT NULL",
    )?;
    same(
        "near",
        &near,
        &vec![serde_json::json!({
            "examples": ["a/Near.wav", DECOMPOSED],
            "near_rows": ["a/near.wav", COMPOSED],
        })],
    )?;

    // The row is dropped because wavemill cannot decode its clip. A reject states this reason.
    let rejects = sql(&store, "SELECT clip_key, stage, reason FROM rejects")?;
    same(
        "rejects",
        &rejects,
        &vec![serde_json::json!({
            "clip_key": "a/named.ape", "stage": "catalog", "reason": "unsupported_codec",
        })],
    )?;
    run(wavemill(["verify", "--store"]).arg(&store)).exits(0)?;

    let page = folder.join("page.html");
    run(wavemill(["report", "--store"])
        .arg(&store)
        .arg("--out")
        .arg(&page))
    .exits(0)?;
    let html = fs::read_to_string(&page)?;
    for told in [
        "Each of the 14 files found",
        "<th scope=\"row\">no_row</th><td>wav</td><td class=\"number\">1</td>",
        "<td>a/Near.wav, ",
        "a/near.wav, ",
    ] {
        contains(&html, told)?;
    }

    let of_zip = inputs.with_audio(zip_of(&inputs.audio)?);
    let zipped = folder.join("zipped");
    let ran = run(of_zip.extract(&zipped).arg("--json")).exits(0)?;
    same_versions(&zipped, &store)?;

    let report: Value = serde_json::from_str(&ran.out)?;
    same("near", &report["files_found"]["rows_near"], &Value::from(2))?;
    let kinds = report["files_found"]["found"]
        .as_array()
        .ok_or("no kinds")?;
    let files: u64 = kinds.iter().filter_map(|kind| kind["files"].as_u64()).sum();
    same("files in the report", files, FILES.len() as u64)?;

    // The preview, and a run that has nothing to do, report the same counts.
    let preview = run(of_zip.extract(&folder.join("none")).arg("--dry-run")).exits(0)?;
    contains(&preview.out, sum)?;
    let again = run(of_zip.extract(&store).arg("--json")).exits(0)?;
    let again: Value = serde_json::from_str(&again.out)?;
    same("again", &again["files_found"], &report["files_found"])
}

#[apply(trial)]
fn other_formats_in_class_folders_are_rejects() -> Result<(), Failed> {
    let folder = scratch("found-folders");
    for (voice, name) in (0..).zip([
        "jazz/a.wav",
        "rock/a.wav",
        "rock/b.ape",
        "pop/c.mpc",
        "d.wma",
    ]) {
        put(&folder.join("audio").join(name), &noise(voice))?;
    }

    let recipe = folder.join("folders.toml");
    fs::write(
        &recipe,
        format!("name = \"found\"\n[catalog]\ndataset = \"folders\"\n{FEATURE}"),
    )?;
    let inputs = Inputs::without_metadata(folder.join("audio"), recipe);

    let store = folder.join("store");
    run(&mut inputs.extract(&store)).exits(0)?;
    let rejects = "SELECT clip_key AS name, CAST(count(*) AS BIGINT) AS n FROM rejects \
                   WHERE reason = 'unsupported_codec' GROUP BY 1";
    let wanted = [("pop/c.mpc".to_owned(), 1), ("rock/b.ape".to_owned(), 1)];
    same("rejects", sql_counts(&store, rejects)?, wanted.into())?;

    let unsupported =
        "SELECT CAST(sum(files) AS BIGINT) FROM audio_files WHERE fate = 'unsupported'";
    same("unsupported", sql_number(&store, unsupported)?, 3)?;
    run(wavemill(["verify", "--store"]).arg(&store)).exits(0)?;

    // A folder with unsupported files only contains no clip. The error lists the formats found.
    fs::remove_file(folder.join("audio/jazz/a.wav"))?;
    fs::remove_file(folder.join("audio/rock/a.wav"))?;
    run(&mut inputs.extract(&folder.join("none")))
        .exits(2)?
        .says(&["no clip", "it contains 1 ape, 1 mpc, 1 wma"])
}

#[apply(trial)]
fn rows_with_unsupported_formats_are_reported() -> Result<(), Failed> {
    let folder = scratch("found-rows");
    let inputs = with_rows(&folder, &["a/named.ape,Rock"])?;
    let store = folder.join("store");
    run(&mut inputs.extract(&store)).exits(2)?.says(&[
        "none of the 1 rows",
        "a/named.ape",
        "a/named.ape, which exists, but wavemill does not decode ape",
    ])?;

    let inputs = with_rows(&folder, &["a/ONE.wav,Rock"])?;
    run(&mut inputs.extract(&store))
        .exits(2)?
        .says(&["found a/one.wav, whose name differs in case"])?;

    // Rows without audio that the catalog keeps are rejected when the audio is read.
    let inputs = with_rows(&folder, &ROWS)?;
    let mut extract = inputs.extract(&store);
    run(extract.args(["--set", "catalog.require_audio=false"])).exits(0)?;

    let rejects = "SELECT reason AS name, CAST(count(*) AS BIGINT) AS n FROM rejects GROUP BY 1";
    let wanted = [
        ("missing_file".to_owned(), 3),
        ("unsupported_codec".to_owned(), 1),
    ];
    same("rejects", sql_counts(&store, rejects)?, wanted.into())?;
    let near = "SELECT CAST(sum(files) AS BIGINT) FROM audio_files WHERE fate = 'near_row'";
    same("near", sql_number(&store, near)?, 2)
}
