//! Features that contain the sound of the clips: their samples (`op = "pcm"`) and their files (`op = "original"`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;
use wavemill_tests::Failed;

use crate::support::{
    Inputs, argv, contains, files_below, fit, has_trainer, lacks, manifest, run, same, scratch,
    sql, sql_number, wavemill, whole, with_features, within,
};
use crate::table::{Table, key, noise};

/// TOML of samples in both types and of files.
pub(crate) const SOUNDS: &str = r#"
[[features]]
name = "wave"
op = "pcm"
[[features]]
name = "short"
op = "pcm"
dtype = "s16"
[[features]]
name = "original"
op = "original"
"#;

/// Number of samples in a row of the demo's clips: 3 s at 22,050 Hz.
const ROW_SAMPLES: usize = 66_150;

/// Exports a feature to a new folder.
fn exported(store: &Path, feature: &str, format: &str, out: &Path) -> Result<(), Failed> {
    let words = format!("export --feature {feature} --format {format} --store");
    run(wavemill(argv(&words)).arg(store).arg("--out").arg(out)).exits(0)?;
    Ok(())
}

/// Returns the lines of a CSV file of keys as pairs of key and file.
fn keys(table: &Path) -> Result<Vec<(String, String)>, Failed> {
    let text = fs::read_to_string(table)?;
    let lines = text.lines().skip(1);
    let fields = lines.map(|line| line.split(',').collect::<Vec<_>>());
    Ok(fields
        .map(|fields| (fields[0].to_owned(), fields[fields.len() - 1].to_owned()))
        .collect())
}

/// Reads the values of an npy file after its header.
fn npy(path: &Path) -> Result<Vec<u8>, Failed> {
    let bytes = fs::read(path)?;
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    Ok(bytes[header..].to_vec())
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let each = bytes.chunks_exact(4);
    each.map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn shorts(bytes: &[u8]) -> Vec<i16> {
    let each = bytes.chunks_exact(2);
    each.map(|b| i16::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn text(value: &Value) -> Result<&str, &'static str> {
    value.as_str().ok_or("no text")
}

/// Compares the samples of all rows of two features, in f32 and s16, and of single clips with what is decoded again.
fn same_samples(store: &Path, inputs: &Inputs, folder: &Path) -> Result<(), Failed> {
    let [waves, shorts_] = ["wave", "short"].map(|name| folder.join(name));
    exported(store, "wave", "npy", &waves)?;
    exported(store, "short", "npy", &shorts_)?;

    for side in ["training", "validation", "test"] {
        let name = format!("{side}.npy");
        let wave = floats(&npy(&waves.join(&name))?);
        let short = shorts(&npy(&shorts_.join(&name))?);
        same("samples", wave.len(), short.len())?;
        for (wave, short) in wave.iter().zip(&short) {
            let steps = (wave * 32_768.0).clamp(-32_768.0, 32_767.0);
            let off = (f32::from(*short) - steps).abs();
            within(&format!("{wave} is stored as {short}"), off, ..=0.5)?;
        }

        // One clip of each split is decoded again, without a store.
        let (clip_key, _) = keys(&waves.join(format!("{side}.csv")))?.swap_remove(0);
        let out = folder.join(format!("{side}-alone.npy"));
        let mut command = wavemill(argv("features --feature wave --format npy --recipe"));
        command.arg(&inputs.recipe).arg(inputs.clip(&clip_key));
        run(command.arg("--out").arg(&out)).exits(0)?;
        let alone = floats(&npy(&out)?);
        same("samples of a row", alone.len(), ROW_SAMPLES)?;
        same(&clip_key, alone == wave[..ROW_SAMPLES], true)?;
        let is_silent = alone.iter().all(|x| *x == 0.0);
        same("it is silent", is_silent, false)?;
    }
    Ok(())
}

/// Compares every stored file with the clip's file, and fails unless each row has one.
fn same_files(store: &Path, version: u64, inputs: &Inputs, out: &Path) -> Result<(), Failed> {
    exported(store, "original", "npy", out)?;
    let tables = files_below(out);
    let mut n_files = 0;
    for table in tables.iter().filter(|name| name.ends_with(".csv")) {
        for (clip_key, file) in keys(&out.join(table))? {
            let wanted = fs::read(inputs.clip(&clip_key))?;
            same(&clip_key, npy(&out.join(&file))? == wanted, true)?;
            n_files += 1;
        }
    }
    let n_rows = manifest(store, version)?.counts.feature_rows;
    same("files", n_files, n_rows)
}

#[apply(trial)]
fn samples_and_files_are_stored_beside_features() -> Result<(), Failed> {
    let folder = scratch("sounds");
    let inputs = with_features(&folder, SOUNDS);
    let store = folder.join("store");
    run(&mut inputs.extract(&store)).exits(0)?;

    let manifest = manifest(&store, 1)?;
    let types: Vec<String> = manifest
        .features
        .iter()
        .map(|feature| format!("{} {}", feature.tensor_type(), feature.dim_names.join(",")))
        .collect();
    let wanted = [
        "f16[40,130] mel,frame",
        "f32[13,130] coefficient,frame",
        "f32[66150] sample",
        "s16[66150] sample",
        "u8[?] byte",
    ];
    same("types", types, wanted.map(str::to_owned).to_vec())?;

    // The other features are those of a store without samples and files, byte by byte.
    let plain = crate::support::manifest(whole(), 1)?;
    for (before, now) in plain.features.iter().zip(&manifest.features) {
        same(&before.name, now, before)?;
        let [before, now] = [&plain, &manifest].map(|manifest| {
            let files = manifest.files_of(&before.name);
            files.map(|file| file.blake3.clone()).collect::<Vec<_>>()
        });
        same("files", now, before)?;
    }

    // Samples are one band, and files have no statistics.
    let names: Vec<&str> = manifest.stats.keys().map(String::as_str).collect();
    same(
        "statistics",
        names,
        vec!["log_mel", "mfcc", "short", "wave"],
    )?;
    let [wave, short] = ["wave", "short"].map(|name| &manifest.stats[name]);
    same("bands", (wave.mean.len(), short.mean.len()), (1, 1))?;
    within("deviation", (wave.std[0] - short.std[0]).abs(), ..=1e-4)?;

    same_samples(&store, &inputs, &folder)?;
    same_files(&store, 1, &inputs, &folder.join("files"))?;

    run(wavemill(["verify", "--store"]).arg(&store)).exits(0)?;
    let page = folder.join("page.html");
    let mut command = wavemill(["report", "--store"]);
    run(command.arg(&store).arg("--out").arg(&page)).exits(0)?;
    let page = fs::read_to_string(page)?;
    contains(&page, "Values of log_mel by band")?;
    lacks(&page, "Values of wave by band")?;

    let again = run(&mut inputs.extract(&store)).exits(0)?;
    contains(&again.err, "nothing to do")
}

/// A feature of loudness has three named numbers per row. Silent rows have the level of the gate.
#[apply(trial)]
fn loudness_is_stored_with_names() -> Result<(), Failed> {
    let folder = scratch("sounds-loudness");
    let loudness = "[[features]]\nname = \"loudness\"\nop = \"loudness\"\n";
    let own = with_features(&folder, loudness);
    let store = folder.join("store");
    run(&mut own.extract(&store)).exits(0)?;
    run(wavemill(["verify", "--store"]).arg(&store)).exits(0)?;

    let features = manifest(&store, 1)?.features;
    let feature = features.iter().find(|feature| feature.name == "loudness");
    let feature = feature.ok_or("no feature")?;
    same("shape", &feature.shape, &vec![Some(3), Some(1)])?;
    let columns = ["integrated", "range", "true_peak"].map(|name| format!("loudness_{name}"));
    same("columns", &feature.columns, &Some(columns.to_vec()))?;

    // The demo's clips are louder than the gate, and their peaks are near full scale.
    let audible = "SELECT count(*) FROM features_loudness WHERE tensor_at(loudness, 0, 0) BETWEEN -40 AND 0 \
                   AND tensor_at(loudness, 2, 0) BETWEEN -30 AND 3 AND NOT silent";
    let all = "SELECT count(*) FROM features_loudness WHERE NOT silent";
    same(
        "audible",
        sql_number(&store, audible)?,
        sql_number(&store, all)?,
    )?;
    let silent =
        "SELECT count(*) FROM features_loudness WHERE silent AND tensor_at(loudness, 0, 0) <> -70";
    same("silent", sql_number(&store, silent)?, 0)
}

#[apply(trial)]
fn sql_reads_samples_and_files() -> Result<(), Failed> {
    let folder = scratch("sounds-sql");
    let inputs = with_features(&folder, SOUNDS);
    let store = folder.join("store");
    let sets = argv("--set audio.duration_s=none --set shards.layout=list");
    run(inputs.extract(&store).args(sets)).exits(0)?;
    run(wavemill(["verify", "--store"]).arg(&store)).exits(0)?;

    let manifest = manifest(&store, 1)?;
    let types = manifest.features.iter().skip(2);
    let types: Vec<String> = types.map(|feature| feature.tensor_type()).collect();
    let wanted = ["f32[?]", "s16[?]", "u8[?]"];
    same("types", types, wanted.map(str::to_owned).to_vec())?;

    // Every row has the samples of its clip, in both types.
    let query = "SELECT w.clip_key, w.duration_s, tensor_shape(wave)[1] AS n, w.wave_shape[1] AS stored, \
                 tensor_max(wave) AS high, tensor_max(short) AS short_high, \
                 tensor_mean(tensor_slice(wave, 'sample', 0, 100)) AS mean, \
                 tensor_at(wave, 50) AS x, tensor_at(short, 50) AS short_x \
                 FROM features_wave w JOIN features_short USING (clip_key)";
    let rows = sql(&store, query)?;
    same("rows", rows.len() as u64, manifest.counts.feature_rows)?;
    for row in &rows {
        let number = |key: &str| row[key].as_f64().ok_or(format!("{key}: {row}"));
        same("samples", number("n")?, number("stored")?)?;
        within(
            "length",
            (number("n")? / 22_050.0 - number("duration_s")?).abs(),
            ..=1e-4,
        )?;
        let high = number("high")?.min(32_767.0 / 32_768.0);
        within("maximum", (number("short_high")? - high).abs(), ..=2e-5)?;
        within(
            "sample 50",
            (number("short_x")? - number("x")?).abs(),
            ..=2e-5,
        )?;
        within("mean", number("mean")?.abs(), ..=1.0)?;
    }

    // The table `inputs` has the sizes of the files.
    let query = "SELECT count(*) FROM features_original JOIN inputs USING (clip_key) \
                 WHERE tensor_shape(original)[1] = bytes AND original_shape[1] = bytes";
    same(
        "files",
        sql_number(&store, query)?,
        manifest.counts.feature_rows,
    )?;

    // Rows of different lengths become one array each.
    let out = folder.join("arrays");
    exported(&store, "short", "npy", &out)?;
    let arrays = files_below(&out);
    let n_arrays = arrays.iter().filter(|name| name.ends_with(".npy")).count();
    same("arrays", n_arrays as u64, manifest.counts.feature_rows)?;
    exported(&store, "short", "huggingface", &folder.join("dataset"))?;
    exported(&store, "original", "huggingface", &folder.join("files"))?;

    for (feature, format, words) in [
        ("wave", "png", "f32[?] is not a picture"),
        ("original", "wav", "original is not a mel spectrogram"),
    ] {
        let line = format!("export --feature {feature} --format {format} --out");
        let mut command = wavemill(argv(&line));
        command.arg(folder.join("none")).arg("--store").arg(&store);
        run(&mut command).exits(2)?.says(&[words])?;
    }
    Ok(())
}

/// Samples of 16-bit files at the recipe's rate are stored as they are in the files, in each segment.
#[apply(trial)]
fn samples_of_wave_files_are_those_of_the_files() -> Result<(), Failed> {
    let table = Table::new("sounds-of-waves", 6);
    let (samples, _) = SOUNDS
        .split_once("[[features]]\nname = \"original\"")
        .unwrap();
    table.set_recipe(
        samples,
        &[("min_duration_s", "segment_s = 0.1\nmin_duration_s")],
    );
    let store = table.store();
    run(&mut table.extract(&[])?).exits(0)?;

    let sounds = table.store().with_file_name("wav");
    exported(&store, "short", "wav", &sounds)?;
    let query = "SELECT clip_key, segment, tensor(short) AS short, tensor(wave) AS wave \
                 FROM features_short JOIN features_wave USING (clip_key, segment)";
    let rows = sql(&store, query)?;
    same("two segments of each clip", rows.len(), 12)?;
    for row in &rows {
        let clip_key = text(&row["clip_key"])?;
        let track = (0..6).find(|track| key(*track) == clip_key);
        // The samples follow the header of 44 bytes.
        let file = shorts(&noise(track.ok_or("an unknown clip")?)[44..]);
        let segment = row["segment"].as_u64().ok_or("no segment")? as usize;
        let wanted: Vec<f32> = file[800 * segment..][..800]
            .iter()
            .map(|x| f32::from(*x) / 32_768.0)
            .collect();

        for name in ["short", "wave"] {
            // JSON has the fewest digits that identify a number of 32 bits.
            let values = row[name].as_array().into_iter().flatten();
            let values: Vec<f32> = values
                .filter_map(|value| value.as_f64().map(|value| value as f32))
                .collect();
            let what = format!("{name} of {clip_key}, segment {segment}");
            same(&what, values == wanted, true)?;
        }
    }

    let mut headers = BTreeMap::new();
    for name in files_below(&sounds) {
        if name.ends_with(".wav") {
            let file = fs::read(sounds.join(&name))?;
            let n_samples = floats(&file[58..]).len();
            *headers.entry((file[..4].to_vec(), n_samples)).or_insert(0) += 1;
        }
    }
    same(
        "sounds",
        headers,
        BTreeMap::from([((b"RIFF".to_vec(), 800), 12)]),
    )
}

#[apply(trial)]
#[needs(has_trainer)]
fn models_refuse_samples_and_files() -> Result<(), Failed> {
    let folder = scratch("sounds-fit");
    let store = folder.join("store");
    run(&mut with_features(&folder, SOUNDS).extract(&store)).exits(0)?;

    for (feature, words) in [
        ("short", &["cnn2d needs a spectrogram", "samples"][..]),
        ("original", &["data.feature: rows of original are files"]),
    ] {
        let mut command = fit(&store, &folder.join("runs"));
        let sets = format!("--set model.name=cnn2d --set data.feature={feature}");
        run(command.args(argv(&sets))).exits(2)?.says(words)?;
    }
    Ok(())
}

/// New tags in a file leave its samples as they are, but not the file itself.
#[apply(trial)]
fn files_with_new_tags_are_stored_again() -> Result<(), Failed> {
    let mut table = Table::new("sounds-tags", 6);
    let files = "[[features]]\nname = \"original\"\nop = \"original\"\n";
    table.set_recipe(files, &[]);
    let store = table.store();
    run(&mut table.extract(&[])?).exits(0)?;

    table.row(2).tag = "an artist";
    let mut command = table.extract(&["--new-version", "--dry-run", "--json"])?;
    let preview: Value = serde_json::from_str(&run(&mut command).exits(0)?.out)?;
    let ran = run(&mut table.extract(&["--new-version", "--json"])?).exits(0)?;
    let report: Value = serde_json::from_str(&ran.out)?;
    same("decoded", &report["clips_decoded"], &1.into())?;
    same("foreseen", &preview["work"]["clips_to_decode"], &1.into())?;

    let inputs = table.written()?;
    same_files(&store, 2, &inputs, &store.with_file_name("files"))?;
    run(wavemill(["verify", "--store"]).arg(&store)).exits(0)?;
    Ok(())
}
