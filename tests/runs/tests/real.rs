//! End-to-end runs on real clips: every file gives the expected features or the expected reject.

use std::collections::BTreeMap;
use std::path::Path;

use wavemill_tests::{Failed, real};

use crate::support::{Inputs, manifest, run, same, scratch, sql, sql_number, wavemill};
use crate::trial::Trials;

/// A folder of clips, with the expected result.
struct Folder {
    folder: &'static str,
    clips: u64,
    rejects: &'static [(&'static str, &'static str)],
}

const FOLDERS: [Folder; 6] = [
    Folder {
        folder: "audio/fma_real",
        clips: 7,
        rejects: &[],
    },
    Folder {
        folder: "audio/librosa_examples",
        clips: 8,
        rejects: &[],
    },
    Folder {
        folder: "fma_like",
        clips: 16,
        rejects: &[],
    },
    Folder {
        folder: "fma_like_bad",
        clips: 6,
        rejects: &[
            ("098/098567.mp3", "too_short"),
            ("099/099134.mp3", "no_audio"),
            ("108/108925.mp3", "no_audio"),
            ("133/133297.mp3", "no_audio"),
        ],
    },
    Folder {
        folder: "rate_variants",
        clips: 37,
        rejects: &[],
    },
    Folder {
        folder: "mp3_odd",
        clips: 12,
        rejects: &[
            ("bad-TYER-frame.mp3", "too_short"),
            ("emptyfile.mp3", "empty"),
            ("id3v22-test.mp3", "damaged"),
            ("lame.mp3", "too_short"),
            ("lame397v9short.mp3", "no_audio"),
            ("no-tags.mp3", "too_short"),
        ],
    },
];

inventory::submit!(Trials(|| {
    let mut trials = Vec::new();
    for case in &FOLDERS {
        let name = format!("real::folder_{}", case.folder.replace('/', "_"));
        trials.push(real(&name, |data| folder(case, data)));
    }
    trials
}));

fn folder(case: &Folder, data: &Path) -> Result<(), Failed> {
    let scratch = scratch("folders");
    let inputs = Inputs::of_folders(data.join(case.folder), &scratch);
    let store = scratch.join("store");
    run(&mut inputs.extract(&store)).exits(0)?;

    let counts = manifest(&store, 1)?.counts;
    same("planned", counts.clips_planned, case.clips)?;
    same(
        "written",
        counts.clips_written,
        case.clips - case.rejects.len() as u64,
    )?;

    let rows = sql(
        &store,
        "SELECT clip_key, reason FROM rejects WHERE clip_key IS NOT NULL ORDER BY clip_key",
    )?;
    let found = rows.iter().map(|row| {
        (
            row["clip_key"].as_str().unwrap(),
            row["reason"].as_str().unwrap(),
        )
    });
    same("rejects", found.collect::<Vec<_>>(), case.rejects.to_vec())?;

    same("values out of range", sql_number(&store, OUT_OF_RANGE)?, 0)?;
    run(wavemill(["verify", "--store"]).arg(&store)).exits(0)?;
    Ok(())
}

/// Zips with entries of unknown methods, with flipped bits, encrypted, beyond the end, too large, or with unusual
/// names. Every entry becomes a clip or a reject.
const HOSTILE_ZIPS: [Folder; 2] = [
    Folder {
        folder: "hostile/zip_method/flip.zip",
        clips: 9,
        rejects: &[("g/dbl.mp3", "damaged")],
    },
    Folder {
        folder: "hostile/zip_method/lzma.zip",
        clips: 10, // with one whose name is in code page 437
        rejects: &[
            ("g/bz.mp3", "damaged"),
            ("g/crc.mp3", "damaged"),
            ("g/defl.mp3", "damaged"),
            ("g/enc.mp3", "encrypted"),
            ("g/lzma.mp3", "unsupported_codec"),
            ("g/off.mp3", "damaged"),
            ("g/off2.mp3", "damaged"),
            ("g/sz.mp3", "too_large"),
        ],
    },
];

#[apply(trial)]
fn hostile_zips_cost_their_entries_alone(data: &Path) -> Result<(), Failed> {
    HOSTILE_ZIPS.iter().try_for_each(|case| folder(case, data))
}

/// Query that counts rows whose min-max normalization is wrong: values must range from 0 to 1, or be all 0 if the
/// clip is silent.
const OUT_OF_RANGE: &str = "SELECT count(*) FROM features_log_mel WHERE NOT (tensor_min(log_mel) = 0 AND \
    tensor_max(log_mel) = CASE WHEN silent THEN 0 ELSE 1 END)";

#[apply(trial)]
fn fma_clips_with_their_tracks(data: &Path) -> Result<(), Failed> {
    let folder = data.join("audio/fma_real");
    let store = scratch("fma").join("store");
    let inputs = Inputs::new(folder.clone(), folder, "fma-large");
    run(&mut inputs.extract(&store)).exits(0)?;

    let manifest = manifest(&store, 1)?;
    same("written", manifest.counts.clips_written, 7)?;
    let shape = sql(
        &store,
        "SELECT DISTINCT tensor_shape(log_mel) AS shape FROM features_log_mel",
    )?;
    same("shape", &shape[0]["shape"], &serde_json::json!([128, 1292]))?;

    let titles = "SELECT track_title FROM features_mfcc JOIN tracks USING (clip_key) WHERE features_mfcc.track_id = 2";
    same(
        "title of track 2",
        sql(&store, titles)?[0]["track_title"].as_str(),
        Some("Food"),
    )?;

    let whole = "SELECT count(*) FROM features_log_mel WHERE lost_s = 0 AND duration_s BETWEEN 29.9 AND 30.1";
    same("whole clips", sql_number(&store, whole)?, 7)
}

/// Rows without a label, and rows with genres that the recipe excludes, are dropped and counted.
#[apply(trial)]
fn fma_like_clips_with_their_tracks(data: &Path) -> Result<(), Failed> {
    let folder = data.join("fma_like");
    let store = scratch("like").join("store");
    let inputs = Inputs::new(folder.clone(), folder, "fma-large");
    run(&mut inputs.extract(&store)).exits(0)?;

    let counts = manifest(&store, 1)?.counts;
    same("read", counts.rows_read, 16)?;

    let dropped: BTreeMap<_, _> = counts
        .rows_dropped
        .into_iter()
        .map(|step| (step.step, step.rows))
        .collect();
    let wanted = [("subset", 0), ("labelled", 2), ("genres", 1), ("audio", 0)];
    same(
        "dropped",
        dropped,
        wanted.map(|(step, rows)| (step.to_owned(), rows)).into(),
    )?;
    same(
        "written",
        (counts.clips_written, counts.clips_rejected),
        (13, 0),
    )
}
