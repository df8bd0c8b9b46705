//! Rows of unchanged inputs are taken over: the tests check which clips are decoded, and that the files equal those
//! of a full computation.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use wavemill_tests::Failed;

use crate::support::{
    contains, copy_folder, damage, files_below, kill, manifest, receipts, run, same, same_versions,
    scratch, sql_number, start, wait_until, wavemill,
};
use crate::table::{MFCC, Table, key, noise};

/// Number of tracks in the tests' tables, which fill four shards of one split.
const TRACKS: u32 = 24;

/// Two stores with the same versions. Every run on the second store computes all rows.
struct Twins {
    table: Table,
    store: PathBuf,
    recomputed: PathBuf,
}

impl Twins {
    /// Commits the first version of both stores.
    fn new(table: Table, words: &[&str]) -> Result<Self, Failed> {
        let store = table.store();
        run(&mut table.extract(words)?).exits(0)?;
        let recomputed = store.with_file_name("recomputed");
        copy_folder(&store, &recomputed);
        Ok(Self {
            table,
            store,
            recomputed,
        })
    }

    /// Commits the next version of both stores, which must be equal in every byte. Returns the report of the first
    /// store.
    fn next(&self, words: &[&str]) -> Result<Value, Failed> {
        let ran = run(self.table.extract(words)?.args(["--new-version", "--json"])).exits(0)?;
        let mut twin = self.table.written()?.extract(&self.recomputed);
        let words = [words, &["--new-version", "--recompute", "--json"]].concat();
        let recomputed = run(twin.args(words)).exits(0)?;
        let computed: Value = serde_json::from_str(&recomputed.out)?;
        same(
            "taken over by the twin",
            &computed["rows_taken_over"],
            &0.into(),
        )?;

        same_versions(&self.store, &self.recomputed)?;
        run(wavemill(["verify", "--store"]).arg(&self.store)).exits(0)?;
        Ok(serde_json::from_str(&ran.out)?)
    }

    /// Commits the next version like [`Self::next`], and fails unless the given number of clips was decoded.
    fn decodes(&self, what: &str, words: &[&str], clips: u64) -> Result<Value, Failed> {
        let told = self.next(words)?;
        same(what, &told["clips_decoded"], &clips.into())?;
        Ok(told)
    }
}

/// Creates a table whose column `side` determines the splits. All tracks are in the training split unless a test
/// changes them.
fn by_column(name: &str, sections: &str, changes: &[(&str, &str)]) -> Table {
    let table = Table::new(name, TRACKS);
    set_recipe(&table, sections, changes);
    table
}

fn set_recipe(table: &Table, sections: &str, changes: &[(&str, &str)]) {
    let rule = ("rule = \"artist\"", "rule = \"column\"\ncolumn = \"side\"");
    table.set_recipe(sections, &[&[rule], changes].concat());
}

/// Changed audio tags change no row, and no table except the two that list the input files.
#[apply(trial)]
fn equal_files_become_links() -> Result<(), Failed> {
    let mut table = by_column("equal", MFCC, &[]);
    let store = table.store();
    run(&mut table.extract(&[])?).exits(0)?;
    for track in [5, 20] {
        table.row(track).tag = "an artist";
    }

    let words = ["--new-version", "--json"];
    let preview = run(&mut table.extract(&[&words[..], &["--dry-run"]].concat())?).exits(0)?;
    let preview: Value = serde_json::from_str(&preview.out)?;
    let report = run(&mut table.extract(&words)?).exits(0)?;
    let report: Value = serde_json::from_str(&report.out)?;

    same("rewritten", &report["files_rewritten"], &4.into())?;
    same(
        "written again",
        written_by(&store, 2)?,
        // Both tables contain the sizes of the audio files, which changed.
        ["audio_files/audio_files.parquet", "inputs/inputs.parquet"]
            .map(str::to_owned)
            .to_vec(),
    )?;

    let second = manifest(&store, 2)?;
    let tables = second
        .files
        .iter()
        .filter(|file| file.table.is_some())
        .count();
    same(
        "tables",
        &preview["work"]["tables_to_write"],
        &tables.into(),
    )?;
    same("equal", &report["files_equal"], &(4 + tables - 2).into())?;

    // A damaged table is written again instead of linked.
    let before = second.files.iter().find(|file| file.name() == "tracks_all");
    let damaged = store.join(&before.ok_or("no table")?.path);
    damage(&damaged)?;

    table.row(6).tag = "an artist";
    run(&mut table.extract(&words)?).exits(0)?;
    run(wavemill(["verify", "--store"]).arg(&store)).exits(0)?;
    let written = [
        "audio_files/audio_files.parquet",
        "inputs/inputs.parquet",
        "tracks_all/tracks_all.parquet",
    ];
    same(
        "written again",
        written_by(&store, 3)?,
        written.map(str::to_owned).to_vec(),
    )
}

/// Returns the files of a version that were not linked from the previous version, relative to the plan's folder.
fn written_by(store: &Path, version: u64) -> Result<Vec<String>, Failed> {
    let mut inodes = Vec::new();
    for file in manifest(store, version - 1)?.files {
        inodes.push(fs::metadata(store.join(&file.path))?.ino());
    }

    let mut written = Vec::new();
    for file in manifest(store, version)?.files {
        if !inodes.contains(&fs::metadata(store.join(&file.path))?.ino()) {
            written.push(
                file.path
                    .splitn(3, '/')
                    .last()
                    .unwrap_or_default()
                    .to_owned(),
            );
        }
    }

    written.sort();
    Ok(written)
}

#[apply(trial)]
fn only_new_files_are_decoded() -> Result<(), Failed> {
    let mut twins = Twins::new(by_column("new", MFCC, &[]), &[])?;

    twins.table.add(24);
    let told = twins.decodes("one clip more", &[], 1)?;
    same("new files", &told["files_new"], &0.into())?;
    same("rewritten files", &told["files_rewritten"], &2.into())?;

    twins.table.remove(3);
    twins.decodes("one clip less", &[], 0)?;
    twins.table.row(5).tag = "an artist";
    twins.decodes("new tags", &[], 0)?;
    twins.table.row(5).tag = "another name, which is longer";
    twins.decodes("other tags", &[], 0)?;
    twins.table.row(6).voice = 600;
    twins.decodes("another recording under the name", &[], 1)?;
    twins.table.row(7).genre = "Jazz";
    twins.decodes("a corrected label", &[], 0)?;
    twins.table.row(8).side = "test";
    twins.decodes("another side", &[], 0)?;

    // The new class sorts before all others, so that each of them gets another id.
    twins.table.row(9).genre = "Blues";
    twins.decodes("a class more", &[], 0)?;
    twins.decodes("another seed", &["--set", "split.seed=7"], 0)?;

    let told = twins.decodes(
        "another engine",
        &["--isa", "scalar", "--set", "split.seed=7"],
        24,
    )?;
    same("taken over", &told["rows_taken_over"], &0.into())
}

/// The split rule is `artist`, so a new artist could have changed the splits of all others.
#[apply(trial)]
fn one_file_more_among_3000_decodes_one_and_moves_none() -> Result<(), Failed> {
    const N: u32 = 3000;
    let mut table = Table::new("many", N);
    for track in 0..N {
        table.row(track).samples = 1000;
    }
    table.set_recipe(
        "",
        &[("clips = 8", "clips = 512"), ("rows = 4", "rows = 64")],
    );
    run(&mut table.extract(&[])?).exits(0)?;

    table.add(N).samples = 1000;
    let ran = run(&mut table.extract(&["--new-version", "--json"])?).exits(0)?;
    let told: Value = serde_json::from_str(&ran.out)?;
    same("decoded", &told["clips_decoded"], &1.into())?;
    same("rewritten", &told["files_rewritten"], &1.into())?;

    let sides = &told["sides"];
    let is = serde_json::json!([sides["new"], sides["gone"], sides["moved"]]);
    same("sides", is, serde_json::json!([1, 0, []]))?;
    run(wavemill(["verify", "--store"]).arg(table.store())).exits(0)?;
    Ok(())
}

#[apply(trial)]
fn features_are_extracted_alone() -> Result<(), Failed> {
    let twins = Twins::new(by_column("features", "", &[]), &[])?;

    set_recipe(&twins.table, MFCC, &[]);
    let told = twins.decodes("a feature more", &[], u64::from(TRACKS))?;
    same("linked", &told["shards_reused"], &4.into())?;
    same("new", &told["files_new"], &4.into())?;

    set_recipe(&twins.table, MFCC, &[("n_mfcc = 8", "n_mfcc = 9")]);
    let told = twins.decodes("a feature's option", &[], u64::from(TRACKS))?;
    same("linked", &told["shards_reused"], &4.into())?;
    same("rewritten", &told["files_rewritten"], &4.into())?;

    set_recipe(&twins.table, "", &[]);
    let told = twins.decodes("a feature less", &[], 0)?;
    same("linked", &told["shards_reused"], &4.into())?;

    // The feature has another name, but the same values.
    set_recipe(
        &twins.table,
        "",
        &[("name = \"log_mel\"", "name = \"spectrum\"")],
    );
    let told = twins.decodes("another name", &[], 0)?;
    same("new", &told["files_new"], &4.into())
}

/// Statistics of a feature whose values are stored as they are need no decoding, also if the source goes.
#[apply(trial)]
fn statistics_come_from_stored_rows() -> Result<(), Failed> {
    const OF_MFCC: &str =
        "\n[[features]]\nname = \"spread\"\nop = \"statistics\"\nsource = \"mfcc\"\n";
    let of_log_mel = OF_MFCC
        .replace("spread", "levels")
        .replace("\"mfcc\"", "\"log_mel\"");
    let scaled = ("op = \"mel\"", "op = \"mel\"\nnormalize = \"minmax\"");
    let open = [scaled, ("duration_s = 0.25\n", "")];

    for (name, changes) in [("statistics", &open[..1]), ("statistics-open", &open)] {
        let twins = Twins::new(by_column(name, MFCC, changes), &[])?;
        let with_statistics = format!("{MFCC}{OF_MFCC}");
        set_recipe(&twins.table, &with_statistics, changes);
        let preview = ["--new-version", "--json", "--dry-run"];
        let preview = run(&mut twins.table.extract(&preview)?).exits(0)?;
        let preview: Value = serde_json::from_str(&preview.out)?;
        same("to decode", &preview["work"]["clips_to_decode"], &0.into())?;
        let told = twins.decodes("statistics of f32", &[], 0)?;
        same("taken over", &told["rows_taken_over"], &TRACKS.into())?;

        // The values of log_mel are scaled and rounded to f16 in the store.
        let rounded = format!("{with_statistics}{of_log_mel}");
        set_recipe(&twins.table, &rounded, changes);
        twins.decodes("statistics of f16", &[], u64::from(TRACKS))?;
    }
    Ok(())
}

/// Rows can be taken over from files of any layout, and be written to files of any layout.
#[apply(trial)]
fn other_shards_are_other_files() -> Result<(), Failed> {
    // Without a fixed duration, the tensors of the rows have different shapes.
    let open = [("duration_s = 0.25\n", "")];
    let mut table = by_column("files", MFCC, &open);
    table.row(3).samples = 1500;
    table.row(4).samples = 3100;
    let mut twins = Twins::new(table, &[])?;

    for set in [
        "shards.row_group_rows=3",
        "shards.compression=none",
        "shards.layout=list",
        "shards.compression=lz4",
        "shards.clips=3",
        "shards.clips=100",
    ] {
        twins.decodes(set, &["--set", set], 0)?;
    }

    // Writes rows in the list layout, then takes these rows over into the binary layout.
    twins.decodes("a list", &["--set", "shards.layout=list"], 0)?;
    twins.table.add(24).samples = 2222;
    twins.decodes("from lists, and a clip more", &[], 1)?;
    Ok(())
}

#[apply(trial)]
fn touched_files_are_still_linked() -> Result<(), Failed> {
    let mut twins = Twins::new(by_column("touch", MFCC, &[]), &[])?;
    let audio = twins.table.written()?.audio;
    for name in files_below(&audio) {
        let file = File::options().write(true).open(audio.join(name))?;
        file.set_modified(SystemTime::now() + Duration::from_secs(60))?;
    }
    let again = run(&mut twins.table.extract(&["--new-version"])?).exits(0)?;
    contains(&again.err, "nothing to do")?;

    twins.table.row(7).genre = "Jazz";
    let told = twins.decodes("a label", &[], 0)?;
    same("linked", &told["shards_reused"], &6.into())?;
    same("rewritten", &told["files_rewritten"], &2.into())
}

#[apply(trial)]
fn rejects_are_taken_over() -> Result<(), Failed> {
    let mut table = by_column("rejects", MFCC, &[]);
    // The clip is shorter than `min_duration_s`, so it is rejected.
    table.row(5).samples = 100;
    let mut twins = Twins::new(table, &[])?;
    twins.table.row(7).genre = "Jazz";
    twins.table.row(5).genre = "Rock";
    twins.decodes("labels", &[], 0)?;
    twins.decodes("other shards", &["--set", "shards.clips=100"], 0)?;

    // The rejected clip gets rows when its file is longer.
    twins.table.row(5).samples = 2000;
    twins.decodes("a longer file", &[], 1)?;
    same(
        "rejects",
        manifest(&twins.store, 4)?.counts.clips_rejected,
        0,
    )
}

/// A clip that is rejected by one feature has no rows of the other features.
#[apply(trial)]
fn a_feature_that_rejects_a_clip_takes_its_rows() -> Result<(), Failed> {
    fn count(of_clip: &str, twins: &Twins) -> Result<u64, Failed> {
        sql_number(&twins.store, &format!("SELECT count(*) {of_clip}"))
    }

    let open = [("duration_s = 0.25\n", "")];
    let mut table = by_column("late", "", &open);
    table.row(5).samples = 1200;
    let twins = Twins::new(table, &[])?;

    same(
        "rejects",
        manifest(&twins.store, 1)?.counts.clips_rejected,
        0,
    )?;

    // The frames of the feature are longer than the clip, and the clip is not padded.
    let long = MFCC.replace("n_fft = 256", "n_fft = 1600\ncenter = false");
    set_recipe(&twins.table, &long, &open);
    twins.next(&[])?;
    same(
        "rejects",
        manifest(&twins.store, 2)?.counts.clips_rejected,
        1,
    )?;

    let of_clip = format!("FROM features_log_mel WHERE clip_key = '{}'", key(5));
    same("rows", count(&of_clip, &twins)?, 0)?;

    set_recipe(&twins.table, "", &open);
    twins.next(&[])?;
    same("rows", count(&of_clip, &twins)?, 1)
}

#[apply(trial)]
fn damaged_parent_is_decoded_again_with_a_warning() -> Result<(), Failed> {
    let mut twins = Twins::new(by_column("damaged", "", &[]), &[])?;
    let file = manifest(&twins.store, 1)?
        .files
        .into_iter()
        .find(|file| file.feature.is_some());
    let file = file.ok_or("no file")?;

    let path = twins.store.join(&file.path);
    damage(&path)?;

    // The changed genre causes a run that writes every shard again, including the damaged one.
    twins.table.row(7).genre = "Blues";
    let ran = run(&mut twins.table.extract(&["--new-version", "--json"])?).exits(0)?;
    ran_says(&ran.err, &[&file.path, "computed again"])?;
    let told: Value = serde_json::from_str(&ran.out)?;
    same("clips decoded", &told["clips_decoded"], &file.rows.into())?;

    let warnings = told["warnings"].as_array().ok_or("no list")?;
    let of_file = warnings
        .iter()
        .filter(|warning| warning.to_string().contains(&file.path));
    same("told", of_file.count(), 1)?;

    let first = twins.table.first("first", &[])?;
    let rows = "SELECT count(*) FROM features_log_mel";
    same(
        "rows",
        sql_number(&twins.store, rows)?,
        sql_number(&first, rows)?,
    )?;
    run(wavemill(["verify", "--version", "2", "--store"]).arg(&twins.store)).exits(0)?;

    // A missing file is treated like a damaged one.
    fs::remove_file(twins.store.join(&manifest(&twins.store, 2)?.files[0].path))?;
    let feature = manifest(&twins.store, 2)?
        .files
        .into_iter()
        .find(|f| f.feature.is_some());
    fs::remove_file(twins.store.join(feature.ok_or("no file")?.path))?;

    twins.table.row(8).genre = "Country";
    let ran = run(&mut twins.table.extract(&["--new-version"])?).exits(0)?;
    ran_says(&ran.err, &["lost or damaged", "computed again"])?;
    run(wavemill(["verify", "--version", "3", "--store"]).arg(&twins.store)).exits(0)?;
    Ok(())
}

/// A file with some segments is lost. The other segments of the same clips are in files that still exist.
#[apply(trial)]
fn lost_file_does_not_hide_segments() -> Result<(), Failed> {
    let table = Table::new("hidden", TRACKS);
    let segments = [
        ("rule = \"artist\"", "rule = \"segment\""),
        ("duration_s = 0.25", "duration_s = 0.25\nsegment_s = 0.05"),
    ];
    table.set_recipe(MFCC, &segments);
    let mut twins = Twins::new(table, &[])?;

    for store in [&twins.store, &twins.recomputed] {
        let files = manifest(store, 1)?.files;
        let lost = files
            .iter()
            .find(|file| file.split.as_deref() == Some("test"));
        fs::remove_file(store.join(&lost.ok_or("no file")?.path))?;
    }

    // The changed genre causes a run that writes every shard again.
    twins.table.row(3).genre = "Blues";
    twins.next(&[])?;
    Ok(())
}

/// The file of the first feature contains wrong keys. Rows of the second feature are taken over.
#[apply(trial)]
fn keys_from_a_damaged_file_are_ignored() -> Result<(), Failed> {
    let plain = ["--set", "shards.compression=none"];
    let mut twins = Twins::new(by_column("keys", MFCC, &[]), &plain)?;
    for store in [&twins.store, &twins.recomputed] {
        let files = manifest(store, 1)?.files;
        let file = files.iter().find(|file| file.feature.is_some());
        let path = store.join(&file.ok_or("no file")?.path);

        let mut bytes = fs::read(&path)?;
        let keys = bytes.windows(9).enumerate();
        let mut keys = keys.filter(|(_, name)| name.starts_with(b"a/0") && name.ends_with(b".wav"));
        let at = keys.next().ok_or("no key")?.0;
        bytes[at + 4] ^= 1;
        fs::write(path, bytes)?;
    }

    let only_mfcc = [(
        "name = \"log_mel\"\nop = \"mel\"",
        "name = \"mel\"\nop = \"mel\"\nfmin = 50.0",
    )];
    set_recipe(&twins.table, MFCC, &only_mfcc);
    twins.table.row(3).genre = "Blues";
    twins.next(&plain)?;
    Ok(())
}

fn ran_says(err: &str, words: &[&str]) -> Result<(), Failed> {
    for word in words {
        contains(err, word)?;
    }
    Ok(())
}

#[apply(trial)]
fn killed_between_the_receipts_of_a_shard() -> Result<(), Failed> {
    let mut twins = Twins::new(by_column("killed", MFCC, &[]), &[])?;
    twins.table.row(7).genre = "Blues";
    twins.table.add(24);

    // After an odd number of receipts, one feature of a shard has a receipt and the other does not.
    for more in [1, 3, 3] {
        let before = receipts(&twins.store);
        let passes = if more == 1 { "" } else { "2*off->" };
        let point = format!("receipt-written={passes}sleep(600000)");

        let mut extract = twins.table.extract(&["--new-version"])?;
        let mut child = start(extract.env("FAILPOINTS", point));
        wait_until(&mut child, "receipts", || {
            receipts(&twins.store) == before + more
        })?;
        kill(child)?;
    }

    twins.next(&[])?;
    same(
        "versions",
        manifest(&twins.store, 2)?.counts.clips_written,
        25,
    )
}

/// Segments of one clip are in several splits, and another seed assigns them again.
#[apply(trial)]
fn segments_are_taken_over() -> Result<(), Failed> {
    let table = Table::new("segments", TRACKS);
    let segments = [
        ("rule = \"artist\"", "rule = \"segment\""),
        ("duration_s = 0.25", "duration_s = 0.25\nsegment_s = 0.05"),
    ];
    table.set_recipe(MFCC, &segments);
    let mut twins = Twins::new(table, &[])?;
    twins.table.add(24);
    twins.next(&[])?;
    twins.decodes("another seed", &["--set", "split.seed=7"], 0)?;

    // Replaces the split rule by one that assigns whole clips.
    let segments = [("duration_s = 0.25", "duration_s = 0.25\nsegment_s = 0.05")];
    twins.table.set_recipe(MFCC, &segments);
    twins.decodes("by artist", &[], 0)?;
    Ok(())
}

/// A clip's rows are taken over only if all of its stretched copies exist. Copies that the recipe no longer requests
/// are not taken over.
#[apply(trial)]
fn stretched_copies_are_taken_over() -> Result<(), Failed> {
    const STRETCH: &str = "audio.stretch=[0.5, 2.0]";
    let table = by_column("stretched", MFCC, &[]);
    let mut twins = Twins::new(table, &[])?;
    let n_tracks = u64::from(TRACKS);

    twins.decodes(
        "the first copies",
        &["--set", "audio.stretch=[0.5]"],
        n_tracks,
    )?;
    twins.decodes("other copies", &["--set", STRETCH], n_tracks)?;
    twins.table.add(24);
    let told = twins.decodes("one track more", &["--set", STRETCH], 1)?;
    same(
        "some rows are taken over",
        told["rows_taken_over"].as_u64() > Some(0),
        true,
    )?;

    // Moving a clip out of the training split needs no decoding, and moving it back does.
    twins.table.row(3).side = "validation";
    twins.decodes("out of training", &["--set", STRETCH], 0)?;
    // Changes the genre as well, because otherwise the run would link the files of the version before last.
    twins.table.row(3).side = "training";
    twins.table.row(3).genre = "Rock";
    twins.decodes("into training", &["--set", STRETCH], 1)?;

    twins.table.row(5).genre = "Blues";
    twins.decodes("fewer copies", &["--set", "audio.stretch=[2.0]"], 0)?;
    twins.decodes("none", &[], 0)?;
    Ok(())
}

/// The store was copied without receipts, which belong to one machine.
#[apply(trial)]
fn without_receipts_rows_are_found() -> Result<(), Failed> {
    let mut table = by_column("copied", MFCC, &[]);
    let store = table.store();
    run(&mut table.extract(&[])?).exits(0)?;
    fs::remove_dir_all(store.join("_wavemill/receipts"))?;
    table.add(24);
    let ran = run(&mut table.extract(&["--new-version", "--json"])?).exits(0)?;
    let told: Value = serde_json::from_str(&ran.out)?;
    same("decoded", &told["clips_decoded"], &1.into())
}

/// Differences are reported by the refusal, by `--dry-run`, which predicts what the run then does, and by `diff`.
#[apply(trial)]
fn differences_are_shown_before_and_after() -> Result<(), Failed> {
    let mut table = by_column("told", MFCC, &[]);
    let store = table.store();
    run(&mut table.extract(&[])?).exits(0)?;

    table.add(24);
    table.remove(2);
    table.row(5).tag = "an artist";
    table.row(6).voice = 600;
    table.row(7).genre = "Jazz";
    table.row(8).side = "test";
    let row = table.rows.remove(&key(9)).unwrap();
    table.rows.insert(key(30), row);

    let refused = run(&mut table.extract(&[])?).exits(4)?;
    refused.says(&[
        "2 tracks added: a/024.wav, a/030.wav",
        "2 tracks removed: a/002.wav, a/009.wav",
        "1 label changed: a/007.wav genre: Rock -> Jazz",
        "1 track in another split: a/008.wav training -> test",
        "--new-version",
    ])?;

    let preview = run(&mut table.extract(&["--new-version", "--dry-run", "--json"])?).exits(0)?;
    let preview: Value = serde_json::from_str(&preview.out)?;
    let report = run(&mut table.extract(&["--new-version", "--json"])?).exits(0)?;
    let report: Value = serde_json::from_str(&report.out)?;

    let work = &preview["work"];
    same("decoded", &report["clips_decoded"], &2.into())?;
    same("to decode", &work["clips_to_decode"], &2.into())?;
    same(
        "to take over",
        &work["rows_to_take_over"],
        &report["rows_taken_over"],
    )?;
    for files in ["shards_reused", "files_rewritten", "files_new"] {
        same(files, &work[files], &report[files])?;
    }

    let store = store.to_str().ok_or("no text")?;
    let diff = ["diff", "--store", store, "1", "2"];
    let json = run(wavemill(diff).arg("--json")).exits(0)?;
    let json: Value = serde_json::from_str(&json.out)?;

    for told in [&preview["changes"], &json["data"]] {
        for (kind, n, first) in [
            ("added", 1, serde_json::json!("a/024.wav")),
            ("removed", 1, serde_json::json!("a/002.wav")),
            (
                "renamed",
                1,
                serde_json::json!({"from": "a/009.wav", "to": "a/030.wav"}),
            ),
            ("retagged", 1, serde_json::json!("a/005.wav")),
            ("replaced", 1, serde_json::json!("a/006.wav")),
        ] {
            same(kind, &told[kind]["count"], &n.into())?;
            same(kind, &told[kind]["rows"][0], &first)?;
        }
        same(
            "relabelled",
            &told["relabelled"]["rows"][0]["to"],
            &"Jazz".into(),
        )?;
        same("moved", &told["moved"]["rows"][0]["to"], &"test".into())?;
    }

    same(
        "a class",
        &json["data"]["classes"]["genre"]["Jazz"]["after"],
        &10.into(),
    )?;

    let rows = run(wavemill(diff).arg("--rows")).exits(0)?.out;
    ran_says(
        &rows,
        &[
            "renamed a/009.wav -> a/030.wav",
            "tags a/005.wav",
            "label a/007.wav",
        ],
    )
}

/// The clips' keys, track ids and classes change with the folder's name.
#[apply(trial)]
fn a_renamed_folder_is_the_same_clips() -> Result<(), Failed> {
    fn extract(folder: &Path, audio: &Path, store: &Path, words: &[&str]) -> Result<Value, Failed> {
        let mut command = wavemill(["extract", "--json", "--recipe"]);
        command
            .arg(folder.join("folders.toml"))
            .arg("--audio")
            .arg(audio);
        let ran = run(command.arg("--store").arg(store).args(words)).exits(0)?;
        Ok(serde_json::from_str(&ran.out)?)
    }

    let folder = scratch("renamed");
    let audio = folder.join("audio");
    let store = folder.join("store");
    for (genre, voices) in [("blues", 0..6), ("jazz", 6..12), ("rock", 12..18)] {
        fs::create_dir_all(audio.join(genre))?;
        for voice in voices {
            fs::write(audio.join(format!("{genre}/{voice:02}.wav")), noise(voice))?;
        }
    }
    fs::write(folder.join("folders.toml"), FOLDERS)?;

    extract(&folder, &audio, &store, &[])?;

    fs::rename(audio.join("jazz"), audio.join("swing"))?;
    let told = extract(&folder, &audio, &store, &["--new-version"])?;
    same("decoded", &told["clips_decoded"], &0.into())?;

    let unmoved = serde_json::json!([0, 0, []]);
    let sides = &told["sides"];
    same(
        "sides",
        serde_json::json!([sides["new"], sides["gone"], sides["moved"]]),
        unmoved,
    )?;
    same(
        "rows",
        sql_number(
            &store,
            "SELECT count(*) FROM features_log_mel WHERE clip_key LIKE 'swing/%'",
        )?,
        6,
    )?;

    let again = extract(&folder, &audio, &store, &[])?;
    same("nothing to do", &again["nothing_to_do"], &true.into())?;

    // A copy next to the original is a clip of its own. If there are two copies, the renamed clip cannot be
    // identified.
    fs::copy(audio.join("rock/12.wav"), audio.join("rock/99.wav"))?;
    same(
        "a copy",
        &extract(&folder, &audio, &store, &["--new-version"])?["clips_decoded"],
        &1.into(),
    )?;

    fs::create_dir(audio.join("metal"))?;
    fs::copy(audio.join("rock/13.wav"), audio.join("metal/1.wav"))?;
    fs::rename(audio.join("rock/13.wav"), audio.join("metal/2.wav"))?;
    same(
        "two copies",
        &extract(&folder, &audio, &store, &["--new-version"])?["clips_decoded"],
        &2.into(),
    )?;

    run(wavemill(["verify", "--store"]).arg(&store)).exits(0)?;
    Ok(())
}

const FOLDERS: &str = r#"
name = "folders"
[catalog]
dataset = "folders"
[[targets]]
name = "genre"
column = "genre"
[split]
rule = "stratified"
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
[shards]
clips = 8
row_group_rows = 4
"#;
