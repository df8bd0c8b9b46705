//! Clips cut into segments: each segment is in exactly one split and counted, and no run blocks forever.

use std::fs;
use std::path::{Path, PathBuf};

use wavemill_tests::Failed;

use crate::support::{
    Inputs, RECIPE, finish, inputs, manifest, run, same, scratch, sql_number, start, versions,
    wait_until, wavemill, within,
};

/// Writes the tests' recipe with other `[audio]` and `[split]` settings.
fn recipe(folder: &Path, audio: &str, rule: &str) -> PathBuf {
    let path = folder.join("segments.toml");
    let text = RECIPE
        .replace("duration_s = 3.0\n", audio)
        .replace("\"official\"", &format!("\"{rule}\""));
    fs::write(&path, text).unwrap();
    path
}

/// 1.2 s contain three segments of 0.4 s, although 1.2 / 0.4 is less than 3 in floating point.
#[apply(trial)]
fn each_segment_lies_in_one_split() -> Result<(), Failed> {
    let folder = scratch("segment-rule");
    let store = folder.join("store");
    let audio = "duration_s = 1.2\nsegment_s = 0.4\n";
    run(&mut inputs()
        .with_recipe(recipe(&folder, audio, "segment"))
        .extract(&store))
    .exits(0)?;

    let counts = manifest(&store, 1)?.counts;
    same("rows", counts.feature_rows, 3 * counts.clips_written)?;

    let distinct = "SELECT count(*) FROM (SELECT DISTINCT clip_key, segment FROM features_log_mel)";
    same(
        "distinct segments",
        sql_number(&store, distinct)?,
        counts.feature_rows,
    )?;

    let sides = "SELECT count(DISTINCT split) FROM features_log_mel";
    same("sides", sql_number(&store, sides)?, 3)?;

    let rejects = "SELECT count(*) FROM rejects WHERE stage <> 'catalog'";
    same(
        "each rejected clip once",
        sql_number(&store, rejects)?,
        counts.clips_rejected,
    )?;
    same(
        "accounted for",
        counts.clips_written + counts.clips_rejected,
        counts.clips_planned,
    )
}

/// Extracts one clip with about thirty row groups on one thread. The queues hold fewer row groups.
#[apply(trial)]
fn more_row_groups_than_clips() -> Result<(), Failed> {
    let folder = scratch("many-groups");
    let store = folder.join("store");
    let path = recipe(&folder, "duration_s = 3.0\nsegment_s = 0.1\n", "official");
    let text = fs::read_to_string(&path)?.replace("row_group_rows = 4", "row_group_rows = 1");
    fs::write(&path, text)?;

    let mut command = inputs().with_recipe(path).extract(&store);
    let mut child = start(command.args(["--limit", "1", "--threads", "1"]));
    wait_until(&mut child, "the version is there", || {
        !versions(&store).is_empty()
    })?;
    finish(child).exits(0)?;

    let rows = manifest(&store, 1)?.counts.feature_rows;
    within("more row groups than the queues hold", rows, 21..)
}

/// Clips of 29.98 s keep their second window, which is padded.
#[apply(trial)]
fn fma_windows_gives_two_a_clip(data: &Path) -> Result<(), Failed> {
    let folder = data.join("audio/fma_real/000");
    let clips = fs::read_dir(&folder)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<Vec<_>, _>>()?;
    let clips: Vec<PathBuf> = clips
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "mp3"))
        .collect();

    let said =
        run(wavemill(["features", "--recipe", "fma-windows", "--format", "json"]).args(&clips))
            .exits(0)?;
    same("clips", clips.len(), 7)?;
    same("windows", said.out.lines().count(), 14)
}

#[apply(trial)]
fn gtzan_segments_of_real_clips(data: &Path) -> Result<(), Failed> {
    let store = scratch("gtzan").join("store");
    let audio = data.join("audio/librosa_examples");
    let inputs = Inputs::without_metadata(audio, "gtzan-segments");
    run(&mut inputs.extract(&store)).exits(0)?;

    let rows = manifest(&store, 1)?.counts.feature_rows;
    let most = "SELECT max(n) FROM (SELECT count(*) AS n FROM features_log_mel GROUP BY clip_key)";
    same(
        "at most ten a clip",
        sql_number(&store, most)? <= 10 && rows > 0,
        true,
    )?;
    run(wavemill(["verify", "--store"]).arg(&store)).exits(0)?;
    Ok(())
}
