//! Data sets of pictures: which files become rows, which are rejected, and models that learn from them.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{ImageFormat, Rgb, RgbImage};
use serde_json::Value;
use wavemill_tests::Failed;

use crate::support::{
    Inputs, Ran, argv, contains, fit, has_trainer, lacks, manifest, run, same, same_versions,
    scratch, sql, sql_counts, sql_number, starts_with, wavemill,
};

const GENRES: [&str; 3] = ["blues", "jazz", "rock"];
/// Number of pictures of each genre; every fourth picture is a JPEG.
const PICTURES: u32 = 10;

/// Settings for small tensors of whole pictures.
const SMALL: &str = "--set features.picture_224.width=36 --set features.picture_224.height=33 \
     --set features.picture_299.width=36 --set features.picture_299.height=36";

/// Draws a picture of 48 × 40 pixels that depends on its number and genre.
fn picture(genre: u32, number: u32) -> RgbImage {
    RgbImage::from_fn(48, 40, |x, y| {
        let red = (x * (genre + 1) + number) % 256;
        Rgb([red as u8, (y * 5) as u8, (100 * genre) as u8])
    })
}

fn encoded(picture: &RgbImage, format: ImageFormat) -> Result<Vec<u8>, Failed> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, format)?;
    Ok(file.into_inner())
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), Failed> {
    fs::create_dir_all(path.parent().ok_or("a folder")?)?;
    Ok(fs::write(path, bytes)?)
}

/// Creates a folder of pictures with one subfolder per genre.
fn pictures(name: &str) -> Result<(PathBuf, Inputs), Failed> {
    let folder = scratch(name);
    let audio = folder.join("images_original");
    for (genre, genre_name) in (0..).zip(GENRES) {
        for number in 0..PICTURES {
            let (extension, format) = if number % 4 == 3 {
                ("jpg", ImageFormat::Jpeg)
            } else {
                ("png", ImageFormat::Png)
            };

            let file = encoded(&picture(genre, number), format)?;
            let name = format!("{genre_name}/{genre_name}{number:05}.{extension}");
            put(&audio.join(name), &file)?;
        }
    }

    let inputs = Inputs::without_metadata(audio, "gtzan-published-images");
    Ok((folder, inputs))
}

#[apply(trial)]
fn folders_become_a_store() -> Result<(), Failed> {
    let (folder, inputs) = pictures("images")?;
    let store = folder.join("store");
    let ran = run(inputs.strict_extract(&store).args(argv(SMALL))).exits(0)?;
    lacks(&ran.err, "leaky")?;
    let n_told = ran.err.matches("no column artist_id").count();
    same("told that no artist is known", n_told, 1)?;

    let version = manifest(&store, 1)?;
    same("rows", version.counts.feature_rows, 30)?;
    let feature = &version.features[0];
    same("type", feature.tensor_type(), "u8[3,33,36]".to_owned())?;
    same(
        "of audio",
        (feature.sample_rate_hz, feature.hop_length),
        (None, None),
    )?;

    let by_side = "SELECT split AS name, count(*) AS n FROM features_picture_224 GROUP BY 1";
    let sides = sql_counts(&store, by_side)?;
    same(
        "sides",
        sides.into_iter().collect::<Vec<_>>(),
        [("test", 3), ("training", 24), ("validation", 3)]
            .map(|(side, n)| (side.to_owned(), n))
            .to_vec(),
    )?;

    let of_audio = "SELECT count(duration_s) + count(lost_s) + count(silent) + count(audio_blake3) + count(offset_s) \
                    FROM features_picture_224";
    same("what is told of audio", sql_number(&store, of_audio)?, 0)?;

    // The third channel of each PNG has a constant value, which resizing does not change.
    let blue = "SELECT tensor_at(picture_224, 2, 20, 20) AS blue FROM features_picture_224 WHERE clip_key = 'rock/rock00000.png'";
    let blue = sql(&store, blue)?[0]["blue"].as_f64().unwrap_or_default();
    same("blue", (blue - 200.0 / 255.0).abs() < 1e-6, true)?;
    run(wavemill(["verify", "--store"]).arg(&store)).exits(0)?;

    let out = folder.join("arrays");
    let mut export = wavemill(["export", "--feature", "picture_224", "--format", "npy"]);
    run(export.arg("--store").arg(&store).arg("--out").arg(&out)).exits(0)?;
    let about: Value = serde_json::from_slice(&fs::read(out.join("export.json"))?)?;
    same("preset", about.get("preset"), None)?;

    let page = folder.join("page.html");
    let mut report = wavemill(["report", "--store"]);
    run(report.arg(&store).arg("--out").arg(&page)).exits(0)?;
    let page = fs::read_to_string(&page)?;
    for of_audio in [
        "audio lost",
        "identical recordings",
        "audio.sample_rate_hz",
        "preset</th>",
    ] {
        lacks(&page, of_audio)?;
    }

    let again = run(inputs.strict_extract(&store).args(argv(SMALL))).exits(0)?;
    contains(&again.err, "nothing to do")?;
    let alone = folder.join("alone");
    let mut command = inputs.strict_extract(&alone);
    command.args(argv(SMALL)).args(["--threads", "1"]);
    run(&mut command).exits(0)?;
    same_versions(&store, &alone)
}

/// Returns a complete PNG whose header states a size above the limit for decoding.
fn huge() -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    file.extend(100_000_u32.to_be_bytes());
    file.extend(100_000_u32.to_be_bytes());
    file.extend([8, 2, 0, 0, 0, 0, 0, 0, 0]);
    file
}

#[apply(trial)]
fn bad_files_are_rejects() -> Result<(), Failed> {
    let (folder, inputs) = pictures("bad-images")?;
    let audio = &inputs.audio;
    put(
        &audio.join("jazz/text.png"),
        b"a text that somebody called .png\n",
    )?;
    put(&audio.join("jazz/empty.jpg"), b"")?;
    put(&audio.join("jazz/huge.png"), &huge())?;
    for (format, name) in [
        (ImageFormat::Jpeg, "rock/cut.jpg"),
        (ImageFormat::Png, "rock/cut.png"),
    ] {
        let file = encoded(&picture(1, 1), format)?;
        put(&audio.join(name), &file[..file.len() * 2 / 3])?;
    }

    let small = RgbImage::new(8, 8);
    put(
        &audio.join("rock/small.png"),
        &encoded(&small, ImageFormat::Png)?,
    )?;

    let store = folder.join("store");
    let crop = ["--set", "features.picture_224.crop=[2, 2, 40, 30]"];
    let mut command = inputs.extract(&store);
    // The picture of 30 GB is rejected by its header, without decoding.
    command
        .args(argv(SMALL))
        .args(crop)
        .args(["--memory-limit", "256MiB"]);
    run(&mut command).exits(0)?;

    let reasons = sql(
        &store,
        "SELECT clip_key, reason, detail FROM rejects ORDER BY clip_key",
    )?;
    let found: Vec<[&str; 2]> = reasons
        .iter()
        .map(|row| ["clip_key", "reason"].map(|name| row[name].as_str().unwrap_or_default()))
        .collect();
    same(
        "rejects",
        found,
        vec![
            ["jazz/empty.jpg", "empty"],
            ["jazz/huge.png", "too_large"],
            ["jazz/text.png", "not_image"],
            ["rock/cut.jpg", "damaged"],
            ["rock/cut.png", "damaged"],
            ["rock/small.png", "too_short"],
        ],
    )?;
    let detail = reasons[1]["detail"].as_str().unwrap_or_default();
    starts_with(detail, "100000 x 100000 pixels")?;
    same("rows", manifest(&store, 1)?.counts.clips_written, 30)
}

/// A picture that does not fit the smallest memory limit ends a run, unless the recipe excludes such pictures.
#[apply(trial)]
fn limits_make_rejects_of_large_files() -> Result<(), Failed> {
    fn extract(inputs: &Inputs, folder: &Path, store: &str, set: &str) -> Ran {
        let mut command = inputs.extract(&folder.join(store));
        command
            .args(argv(SMALL))
            .args(["--memory-limit", "256MiB", "--set", set]);
        run(&mut command)
    }

    let (folder, inputs) = pictures("large-images")?;
    let large = RgbImage::new(6_000, 6_000);
    let file = encoded(&large, ImageFormat::Png)?;
    put(&inputs.audio.join("rock/large.png"), &file)?;

    extract(&inputs, &folder, "none", "shards.clips=512")
        .exits(1)?
        .says(&[
            "rock/large.png",
            "set a smaller image.max_pixels in the recipe",
        ])?;

    for (store, set) in [
        ("pixels", "image.max_pixels=1000000"),
        ("bytes", "image.max_file_bytes=50000"),
    ] {
        extract(&inputs, &folder, store, set).exits(0)?;
        let store = folder.join(store);
        let rejects = sql_counts(
            &store,
            "SELECT clip_key || ' ' || reason AS name, count(*) AS n FROM rejects GROUP BY 1",
        )?;
        let wanted = [("rock/large.png too_large".to_owned(), 1)];
        same(set, rejects, wanted.into())?;
        same("rows", manifest(&store, 1)?.counts.clips_written, 30)?;
    }

    // With a larger limit the picture becomes a row, although the previous version rejected it.
    let mut more = inputs.extract(&folder.join("pixels"));
    more.args(argv(SMALL)).arg("--new-version");
    run(&mut more).exits(0)?;
    same(
        "rows",
        manifest(&folder.join("pixels"), 2)?.counts.clips_written,
        31,
    )
}

#[apply(trial)]
fn invalid_picture_sources_are_rejected() -> Result<(), Failed> {
    let folder = scratch("no-images");
    let inputs = Inputs::without_metadata(folder.join("texts"), "gtzan-published-images");

    let store = folder.join("store");
    put(&inputs.audio.join("rock/a.txt"), b"a text")?;
    run(&mut inputs.strict_extract(&store))
        .exits(2)?
        .says(&["no clip (png, jpg, jpeg)"])?;

    // The number of rejects exceeds the default limit.
    for number in 0..40 {
        put(
            &inputs.audio.join(format!("rock/{number}.png")),
            b"a text called .png",
        )?;
    }
    let ran = run(&mut inputs.strict_extract(&store)).exits(1)?;
    ran.says(&["clips rejected", "not_image", "nothing was committed"])?;

    let mel = ["--set", "features.picture_224.op=mel"];
    run(inputs.strict_extract(&store).args(mel))
        .exits(2)?
        .says(&["features.picture_224"])?;

    let clip = inputs.audio.join("rock/0.png");
    run(wavemill(["features", "--recipe", "gtzan-published-images"]).arg(clip))
        .exits(2)?
        .says(&["pictures"])
}

/// Rows of unchanged pictures are taken over, and the store equals one whose rows are all computed.
#[apply(trial)]
fn new_picture_computes_only_itself() -> Result<(), Failed> {
    let (folder, inputs) = pictures("more-images")?;
    let grown = folder.join("grown");
    run(inputs.strict_extract(&grown).args(argv(SMALL))).exits(0)?;
    let anew = folder.join("anew");
    run(inputs.strict_extract(&anew).args(argv(SMALL))).exits(0)?;

    let file = encoded(&picture(2, 77), ImageFormat::Png)?;
    put(&inputs.audio.join("rock/rock00077.png"), &file)?;
    let more = ["--new-version", "--json"];
    let ran = run(inputs.strict_extract(&grown).args(argv(SMALL)).args(more)).exits(0)?;
    let report: Value = serde_json::from_str(&ran.out)?;
    same("decoded", report["clips_decoded"].as_u64(), Some(1))?;

    let more = ["--new-version", "--recompute"];
    run(inputs.strict_extract(&anew).args(argv(SMALL)).args(more)).exits(0)?;
    same_versions(&grown, &anew)?;

    // Replaces a picture by another one with the same file name.
    let file = encoded(&RgbImage::new(64, 64), ImageFormat::Png)?;
    put(&inputs.audio.join("rock/rock00077.png"), &file)?;
    let more = ["--new-version"];
    run(inputs.strict_extract(&grown).args(argv(SMALL)).args(more)).exits(0)?;
    let versions = run(wavemill(["info", "--versions", "--store"]).arg(&grown)).exits(0)?;
    let last = versions.out.lines().last().unwrap_or_default();
    same(last, last.ends_with("; changed: files"), true)
}

/// `--data` finds the folder of pictures by its published name.
#[apply(trial)]
#[needs(has_trainer)]
fn experiment_variant_uses_pictures() -> Result<(), Failed> {
    let (folder, _) = pictures("experiment-images")?;
    let out = folder.join("out");
    let mut command = wavemill(["experiment", "run", "gtzan-images", "--any-data", "--json"]);
    command.args(["--variant", "published", "--train", "resnet50"]);
    command.args(["--epochs", "1", "--threads", "1", "--device", "cpu"]);
    command.args(argv(SMALL)).arg("--data").arg(&folder);
    let ran = run(command.arg("--out").arg(&out)).exits(0)?;

    let result: Value = serde_json::from_str(&ran.out)?;
    // The experiment creates one store with its own split, and one with the recipe's split.
    let stores = result["stores"].as_array().ok_or("stores")?;
    let clips: Vec<Option<u64>> = stores.iter().map(|one| one["clips"].as_u64()).collect();
    same("clips", clips, vec![Some(30), Some(30)])
}

#[apply(trial)]
#[needs(has_trainer)]
fn documented_models_train_on_pictures() -> Result<(), Failed> {
    let (folder, inputs) = pictures("learn-images")?;
    let store = folder.join("store");
    run(inputs.strict_extract(&store).args(argv(SMALL))).exits(0)?;
    for (model, feature) in [("resnet50", "picture_224"), ("xception", "picture_299")] {
        let runs = folder.join(model);
        let mut command = fit(&store, &runs);
        command.args(argv(&format!(
            "--like gtzan-images --model {model} --feature {feature}"
        )));
        command.args(["--set", "train.steps=2", "--batch-size", "4"]);

        let said = run(&mut command).exits(0)?;
        contains(&said.out, "no artist is known")?;
        contains(&said.out, "unknown: recording")?;
    }
    Ok(())
}
