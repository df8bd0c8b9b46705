//! `wavemill export`: exports contain the rows of the store, and an export that fails or is stopped leaves no
//! files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;
use wavemill_tests::Failed;

use crate::signals::ends_soon;
use crate::support::{
    argv, contains, damage, files_below, inputs, manifest, own_store, run, same, scratch, sql,
    start, wait_until, wavemill, whole, within,
};

/// Tolerance for sums of a few thousand f32 values computed by two programs.
const MEAN_ERROR_MAX: f64 = 1e-4;
/// Largest mean difference between the log-mel of an exported sound and the stored log-mel, in dB.
const SOUND_DB_MAX: f64 = 3.0;

/// Exports `feature` and returns the JSON report of the command.
fn export(store: &Path, feature: &str, format: &str, out: &Path) -> Result<Value, Failed> {
    let words = format!("export --feature {feature} --format {format} --json --store");
    let ran = run(wavemill(argv(&words)).arg(store).arg("--out").arg(out)).exits(0)?;
    Ok(serde_json::from_str(&ran.out)?)
}

/// Reads the header and the values of an npy file.
fn npy(path: &Path) -> Result<(String, Vec<u8>), Failed> {
    let bytes = fs::read(path)?;
    same("magic", &bytes[..8], b"\x93NUMPY\x01\0")?;
    let (head, values) = bytes.split_at(10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]])));
    Ok((
        String::from_utf8_lossy(&head[10..]).into_owned(),
        values.to_vec(),
    ))
}

fn means(values: &[u8], row_values: usize) -> Vec<f64> {
    let mut means = Vec::new();
    for row in values.chunks_exact(4 * row_values) {
        let floats = row.chunks_exact(4);
        let floats = floats.map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())));
        means.push(floats.sum::<f64>() / row_values as f64);
    }
    means
}

/// Compares every row of every split with SQL: its key, its class, and the mean of its values.
#[apply(trial)]
fn arrays_hold_the_rows_of_sql() -> Result<(), Failed> {
    let out = scratch("export").join("arrays");
    let report = export(whole(), "mfcc", "npy", &out)?;
    let shape = &manifest(whole(), 1)?.features[1].shape;
    let row_values: usize = shape.iter().flatten().product();

    let mut n_rows = 0;
    for side in report["sides"].as_array().ok_or("no sides")? {
        let split = side["split"].as_str().ok_or("no split")?;
        let query = format!(
            "SELECT clip_key, segment, class, tensor_mean(mfcc) AS mean FROM features_mfcc
             LEFT JOIN classes ON classes.target = 'genre' AND class_id = genre WHERE split = '{split}'"
        );
        let mut wanted = BTreeMap::new();
        for row in sql(whole(), &query)? {
            let key = format!("{},{}", row["clip_key"].as_str().unwrap(), row["segment"]);
            let class = row["class"].as_str().unwrap_or_default().to_owned();
            wanted.insert(key, (class, row["mean"].as_f64().unwrap()));
        }

        let (head, values) = npy(&out.join(format!("{split}.npy")))?;
        contains(&head, &format!("({}, ", wanted.len()))?;

        let table = fs::read_to_string(out.join(format!("{split}.csv")))?;
        let mut lines = table.lines();
        same(
            "heading",
            lines.next(),
            Some("clip_key,track_id,segment,offset_s,variant,genre,genre_id"),
        )?;

        let found = means(&values, row_values);
        same(
            "rows",
            (lines.clone().count(), found.len()),
            (wanted.len(), wanted.len()),
        )?;

        for (line, mean) in lines.zip(found) {
            let fields: Vec<&str> = line.split(',').collect();
            let key = format!("{},{}", fields[0], fields[2]);
            let (class, wanted_mean) = wanted.remove(&key).ok_or(key.clone())?;
            same(&key, fields[5], class.as_str())?;
            let differs = (mean - wanted_mean).abs() > MEAN_ERROR_MAX * wanted_mean.abs().max(1.0);
            same(&format!("{key}: {mean} and {wanted_mean}"), differs, false)?;
            n_rows += 1;
        }
        same("rows that are missing", wanted.len(), 0)?;
    }

    let exported: u64 = manifest(whole(), 1)?
        .files_of("mfcc")
        .filter(|file| file.split.as_deref() != Some("none"))
        .map(|file| file.rows)
        .sum();
    same("rows", n_rows, exported)
}

/// Exports rows of segments, of different lengths, of bytes and of lists: every format can represent them.
#[apply(trial)]
fn every_kind_of_store() -> Result<(), Failed> {
    let kinds: [(&str, &str); 3] = [
        (
            "u8",
            "--set features.log_mel.dtype=u8 --set audio.segment_s=1.0",
        ),
        (
            "lists",
            "--set shards.layout=list --set split.rule=segment --set audio.segment_s=1.0",
        ),
        ("ragged", "--set audio.duration_s=none"),
    ];

    for (name, sets) in kinds {
        let folder = scratch(&format!("export-{name}"));
        let store = folder.join("store");
        run(inputs().extract(&store).args(argv(sets))).exits(0)?;

        for format in ["npy", "png", "huggingface"] {
            let out = folder.join(format);
            let words = format!("export --feature log_mel --format {format} --store");
            let ran = run(wavemill(argv(&words)).arg(&store).arg("--out").arg(&out)).exits(0)?;
            contains(&ran.err, "log_mel (")?;
            let pictures = files_below(&out);
            let pictures = pictures
                .iter()
                .filter(|name| name.ends_with(".png"))
                .count() as u64;

            let manifest = manifest(&store, 1)?;
            let rows: u64 = manifest
                .files_of("log_mel")
                .filter(|file| file.split.as_deref() != Some("none"))
                .map(|file| file.rows)
                .sum();
            same("pictures", pictures, if format == "png" { rows } else { 0 })?;
        }
    }
    Ok(())
}

/// Each WAVE file is as long as its row, and its log-mel is close to the stored one. Equal rows give equal bytes.
#[apply(trial)]
fn sounds_have_the_bands_they_are_made_of() -> Result<(), Failed> {
    let folder = scratch("export-sounds");
    let store = folder.join("store");
    let plain = ["--set", "features.log_mel.normalize=none"];
    let mut extract = inputs().extract(&store);
    run(extract.args(plain).args(["--limit", "20"])).exits(0)?;

    let sounds = folder.join("sounds");
    let report = export(&store, "log_mel", "wav", &sounds)?;
    let notes = report["notes"].to_string();
    for word in ["approximation", "top_db", "level of a row is not stored"] {
        contains(&notes, word)?;
    }

    let about: Value = serde_json::from_slice(&fs::read(sounds.join("export.json"))?)?;
    let method = about["approximation"]["method"].as_str();
    same("method", method, Some("griffin_lim"))?;
    same("steps", about["approximation"]["n_iter"].as_u64(), Some(32))?;

    let arrays = folder.join("arrays");
    export(&store, "log_mel", "npy", &arrays)?;
    let mut differences = Vec::new();
    for side in report["sides"].as_array().ok_or("no sides")? {
        let split = side["split"].as_str().ok_or("no split")?;
        let (_, stored) = npy(&arrays.join(format!("{split}.npy")))?;
        let rows = halves(&stored);
        let rows = rows.chunks_exact(40 * FRAMES);

        let table = fs::read_to_string(sounds.join(format!("{split}.csv")))?;
        same("lines", table.lines().count(), 1 + rows.len())?;
        for (line, stored) in table.lines().skip(1).zip(rows) {
            let file = sounds.join(line.rsplit(',').next().ok_or("no file")?);
            let n_frames = sound_frames(&file)?;
            let found = bands_of(&file, &folder.join("found.npy"))?;
            differences.push(difference_db(stored, &found, n_frames));
        }
    }

    let mean = differences.iter().sum::<f64>() / differences.len() as f64;
    println!("{} sounds, {mean:.3} dB", differences.len());
    within(&format!("{differences:?}"), mean, ..=SOUND_DB_MAX)?;

    // Exports a single split: its sounds equal those of the complete export, so phases do not depend on other rows.
    let alone = folder.join("alone");
    let words = ["export", "--feature", "log_mel", "--format", "wav"];
    let mut command = wavemill(words);
    command
        .args(["--split", "validation", "--store"])
        .arg(&store);
    run(command.arg("--out").arg(&alone)).exits(0)?;
    for name in files_below(&alone.join("validation")) {
        let [one, other] = [&alone, &sounds].map(|root| root.join("validation").join(&name));
        same(&name, fs::read(one)? == fs::read(other)?, true)?;
    }

    // An export that fails halfway leaves no files.
    let mut command = wavemill(words);
    command.arg("--store").arg(&store);
    command.env("FAILPOINTS", "export-batch=2*off->return");
    let half = folder.join("half");
    run(command.arg("--out").arg(&half))
        .exits(5)?
        .says(&["cannot write"])?;
    same("what a failure leaves", half.exists(), false)
}

/// Frames of three seconds at 22,050 Hz.
const FRAMES: usize = 130;

/// Converts little-endian IEEE half-precision values to f32.
fn halves(bytes: &[u8]) -> Vec<f32> {
    let halves = bytes.chunks_exact(2);
    halves
        .map(|b| half_to_f32(u16::from_le_bytes([b[0], b[1]])))
        .collect()
}

fn half_to_f32(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from((bits >> 10) & 31);
    let fraction = f32::from(bits & 1023) / 1024.0;
    match exponent {
        0 => sign * fraction * 2f32.powi(-14),
        exponent => sign * (1.0 + fraction) * 2f32.powi(exponent - 15),
    }
}

/// Returns the number of frames of a file of mono f32 samples at 22,050 Hz, which contains exactly 512 samples per
/// frame.
fn sound_frames(file: &Path) -> Result<usize, Failed> {
    let bytes = fs::read(file)?;
    same("magic", &bytes[..4], b"RIFF")?;
    same("kind", &bytes[8..16], b"WAVEfmt ")?;
    same("float, mono", &bytes[20..24], &[3, 0, 1, 0])?;
    same("rate", &bytes[24..28], &22_050_u32.to_le_bytes())?;

    let n_samples = (bytes.len() - 58) / 4;
    same("part of a hop", n_samples % 512, 0)?;
    let n_frames = n_samples / 512;
    within("frames", n_frames, 1..=FRAMES)?;
    Ok(n_frames)
}

/// Extracts the log-mel of a sound file.
fn bands_of(file: &Path, out: &Path) -> Result<Vec<f32>, Failed> {
    let mut command = wavemill(["features", "--feature", "log_mel", "--format", "npy"]);
    command.args(["--set", "features.log_mel.normalize=none", "--recipe"]);
    command
        .arg(&inputs().recipe)
        .arg("--out")
        .arg(out)
        .arg(file);
    run(&mut command).exits(0)?;
    Ok(halves(&npy(out)?.1))
}

/// Returns the mean absolute difference in dB. Excludes the padding and the last frame, which the sound does not
/// fill.
fn difference_db(stored: &[f32], found: &[f32], n_frames: usize) -> f64 {
    let mut sum = 0.0;
    let mut n = 0_u32;
    let bands = stored.chunks_exact(FRAMES).zip(found.chunks_exact(FRAMES));
    for (stored, found) in bands {
        for (a, b) in stored.iter().zip(found).take(n_frames - 1) {
            sum += f64::from((a - b).abs());
            n += 1;
        }
    }
    sum / f64::from(n.max(1))
}

#[apply(trial)]
fn folders_are_new_or_empty() -> Result<(), Failed> {
    let folder = scratch("export-folders");
    for name in ["new", "empty"] {
        let out = folder.join(name);
        if name == "empty" {
            fs::create_dir(&out)?;
        }
        export(whole(), "mfcc", "npy", &out)?;
        same("files", files_below(&out).len(), 1 + 2 * sides()?)?;

        // The folder is not empty when the command runs again, so it is refused and its files stay unchanged.
        let before = fs::read(out.join("export.json"))?;
        let words = ["export", "--feature", "mfcc", "--format", "npy", "--store"];
        let again = run(wavemill(words).arg(whole()).arg("--out").arg(&out)).exits(2)?;
        again.says(&[
            out.to_str().unwrap(),
            "not empty: choose a new or empty folder",
        ])?;
        same("what was there", fs::read(out.join("export.json"))?, before)?;
    }
    same("folders", fs::read_dir(&folder)?.count(), 2)
}

fn sides() -> Result<usize, Failed> {
    let manifest = manifest(whole(), 1)?;
    let mut sides: Vec<_> = manifest
        .files_of("mfcc")
        .map(|file| file.split.clone())
        .collect();
    sides.dedup();
    sides.retain(|split| split.as_deref() != Some("none"));
    Ok(sides.len())
}

#[apply(trial)]
fn a_failure_leaves_nothing() -> Result<(), Failed> {
    for format in ["npy", "png", "huggingface", "webdataset"] {
        let folder = scratch("export-full");
        fs::create_dir(folder.join("empty"))?;
        for name in ["new", "empty"] {
            let words = ["export", "--feature", "mfcc", "--format", format, "--store"];
            let mut command = wavemill(words);
            command.arg(whole()).arg("--out").arg(folder.join(name));
            // The export fails in a later batch, when its first files already exist.
            command.env("FAILPOINTS", "export-batch=2*off->return");
            run(&mut command).exits(5)?.says(&["cannot write"])?;
        }

        same("files", files_below(&folder), Vec::new())?;
        same("folders", fs::read_dir(&folder)?.count(), 1)?;
        same(
            "in the folder",
            fs::read_dir(folder.join("empty"))?.count(),
            0,
        )?;
    }
    Ok(())
}

#[apply(trial)]
fn a_signal_leaves_nothing() -> Result<(), Failed> {
    for (signal, name) in [("INT", "new"), ("TERM", "empty")] {
        let folder = scratch("export-signal");
        fs::create_dir(folder.join("empty"))?;
        let words = ["export", "--feature", "mfcc", "--format", "png", "--store"];
        let mut command = wavemill(words);
        command.arg(whole()).arg("--out").arg(folder.join(name));
        command.env("FAILPOINTS", "export-batch=2*off->sleep(60000)");

        let mut child = start(&mut command);
        wait_until(&mut child, "a picture", || !files_below(&folder).is_empty())?;
        ends_soon(
            child,
            signal,
            "interrupted while exporting; nothing was written",
        )?;

        same("files", files_below(&folder), Vec::new())?;
        same("folders", fs::read_dir(&folder)?.count(), 1)?;
        same(
            "in the folder",
            fs::read_dir(folder.join("empty"))?.count(),
            0,
        )?;
    }
    Ok(())
}

#[apply(trial)]
fn damage_is_named() -> Result<(), Failed> {
    let store = own_store("export-damage");
    let path = manifest(&store, 1)?
        .files_of("mfcc")
        .next()
        .ok_or("no file")?
        .path
        .clone();
    damage(&store.join(&path))?;

    let out = scratch("export-damaged").join("out");
    let words = ["export", "--feature", "mfcc", "--format", "npy", "--store"];
    let ran = run(wavemill(words).arg(&store).arg("--out").arg(&out)).exits(3)?;
    ran.says(&[
        &path,
        "its content differs from the committed one",
        "wavemill verify",
    ])?;
    same("what it leaves", out.exists(), false)?;

    // The other feature can still be exported, because its files are undamaged.
    export(&store, "log_mel", "npy", &out)?;
    Ok(())
}
