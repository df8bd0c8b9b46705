//! Data sets that are folders of audio, with and without the lists that others publish for them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use wavemill_tests::Failed;

use crate::support::{
    Inputs, Ran, contains, lacks, manifest, run, same, scratch, sql, sql_counts, sql_number, within,
};
use crate::table::noise_of;

/// Without metadata, each audio file is a row. A renamed folder is not reported as a loss of clips.
#[apply(trial)]
fn vanished_folder_is_rejected() -> Result<(), Failed> {
    let folder = scratch("vanished-folder");
    let store = folder.join("store");
    let mut inputs = with_list(&folder, "clip_key,mood\n")?;
    inputs.metadata = None;
    // With two copies of a recording, neither can be identified as the renamed one, but both exist.
    fs::copy(inputs.clip("rock/a.wav"), inputs.clip("rock/b.wav"))?;
    let by_genre = ["--set", "targets.mood.column=genre", "--new-version"];
    run(inputs.extract(&store).args(by_genre)).exits(0)?;

    let rock = inputs.audio.join("rock");
    fs::rename(&rock, folder.join("unmounted"))?;
    run(inputs.extract(&store).args(by_genre))
        .exits(4)?
        .says(&[
            "2 of the 4 clips",
            "(rock/a.wav, rock/b.wav)",
            "--max-shrink 0.5",
        ])?;

    fs::rename(folder.join("unmounted"), inputs.audio.join("metal"))?;
    run(inputs.extract(&store).args(by_genre)).exits(0)?;
    Ok(())
}

/// The files of a store in the audio folder would be inputs of the next run.
#[apply(trial)]
fn store_inside_the_audio_folder_is_refused() -> Result<(), Failed> {
    let inputs = with_list(&scratch("store-inside"), "clip_key,mood\n")?;
    let store = inputs.audio.join("../audio/store");
    for dry_run in [&[][..], &["--dry-run"]] {
        let refused = run(inputs.extract(&store).args(dry_run)).exits(2)?;
        let wanted = format!(
            "wavemill: --store {}: is inside the audio folder, where the next run would count its files as audio: choose \
             a folder outside {}\n",
            store.display(),
            inputs.audio.display()
        );
        same("refusal", refused.err, wanted)?;
    }
    same("no store", store.exists(), false)
}

const BY_COLUMN: [&str; 4] = ["--set", "split.rule=column", "--set", "split.column=split"];

/// Sample rate of the generated sounds.
const RATE_HZ: u32 = 8_000;

/// Creates four clips of one second in two folders, and a list of them.
fn with_list(folder: &Path, list: &str) -> Result<Inputs, Failed> {
    for (voice, key) in (0..).zip(["jazz/a.wav", "jazz/b.wav", "rock/a.wav", "rock/b.wav"]) {
        put(&folder.join("audio").join(key), &noise_of(voice, RATE_HZ))?;
    }
    let metadata = folder.join("list.csv");
    fs::write(&metadata, list)?;

    let recipe = folder.join("folders.toml");
    fs::write(
        &recipe,
        "name = \"folders\"\n[catalog]\ndataset = \"folders\"\n\
         [[targets]]\nname = \"mood\"\ncolumn = \"mood\"\n\
         [audio]\nsample_rate_hz = 8000\nduration_s = 1.0\nmin_duration_s = 0.1\n\
         [[features]]\nname = \"log_mel\"\nop = \"mel\"\nn_fft = 256\nhop_length = 128\nn_mels = 16\n",
    )?;
    Ok(Inputs::new(metadata, folder.join("audio"), recipe))
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), Failed> {
    fs::create_dir_all(path.parent().ok_or("a folder")?)?;
    Ok(fs::write(path, bytes)?)
}

#[apply(trial)]
fn list_provides_labels_and_splits() -> Result<(), Failed> {
    let folder = scratch("listed");
    let store = folder.join("store");
    let list = "clip_key,split,mood\nrock/a.wav,training,dark\njazz/a.wav,test,light\n\
                jazz/b.wav,training,\nrock/z.wav,training,dark\n";
    let inputs = with_list(&folder, list)?;
    let ran = run(inputs.extract(&store).args(BY_COLUMN)).exits(0)?;

    for told in [
        "list.csv: 1 of its 4 rows name no file below the audio root, such as rock/z.wav",
        "list.csv: 1 of 4 files have no row in it, such as rock/b.wav: its columns are null there",
    ] {
        contains(&ran.err, told)?;
    }
    lacks(&ran.err, "leaky")?;

    let rows = sql(
        &store,
        "SELECT clip_key, genre, mood, split FROM tracks JOIN \
         (SELECT clip_key, split AS side FROM features_log_mel) USING (clip_key) WHERE side = coalesce(split, 'none') \
         ORDER BY 1",
    )?;
    let told: Vec<String> = rows.iter().map(Value::to_string).collect();
    same(
        "rows",
        told,
        [
            r#"{"clip_key":"jazz/a.wav","genre":"jazz","mood":"light","split":"test"}"#,
            r#"{"clip_key":"jazz/b.wav","genre":"jazz","mood":null,"split":"training"}"#,
            r#"{"clip_key":"rock/a.wav","genre":"rock","mood":"dark","split":"training"}"#,
            r#"{"clip_key":"rock/b.wav","genre":"rock","mood":null,"split":null}"#,
        ]
        .map(str::to_owned)
        .to_vec(),
    )?;
    same(
        "classes",
        &manifest(&store, 1)?.targets[0].classes,
        &vec!["dark".to_owned(), "light".to_owned()],
    )?;

    // The list of clips is part of the version's identity, so a changed list needs a new version.
    let again = run(inputs.extract(&store).args(BY_COLUMN)).exits(0)?;
    contains(&again.err, "nothing to do")?;
    fs::write(folder.join("list.csv"), list.replace("dark", "dusk"))?;
    run(inputs.extract(&store).args(BY_COLUMN))
        .exits(4)?
        .says(&["--new-version"])
}

#[apply(trial)]
fn list_with_other_names_is_rejected() -> Result<(), Failed> {
    let folder = scratch("other-names");
    let store = folder.join("store");

    for (list, said) in [
        (
            "clip_key,split,mood\nrock/b.au,test,dark\n",
            &[
                "list.csv",
                "rock/b.au",
                "rock/b.wav",
                "including the file extension",
            ][..],
        ),
        (
            "clip_key,split,mood\nrock/b.wav,test,dark\nrock/b.wav,test,dark\n",
            &["list.csv, line 3", "already on line 2"],
        ),
        (
            "file,split,mood\n",
            &["list.csv, line 1", "no column `clip_key`"],
        ),
        (
            "clip_key,split,mood,genre\nrock/b.wav,test,dark,jazz\n",
            &["list.csv, line 2", "`genre`", "folder `rock`"],
        ),
    ] {
        let inputs = with_list(&folder, list)?;
        let ran = run(inputs.extract(&store).args(BY_COLUMN)).exits(2)?;
        ran.says(said)?;
        same("the store exists", store.exists(), false)?;
    }
    Ok(())
}

/// Creates files with all 1,000 names of GTZAN, each with the same three seconds of sound. Only the split of each
/// file matters here.
#[apply(trial)]
fn gtzan_by_its_fault_filtered_list(data: &Path) -> Result<(), Failed> {
    fn extract(inputs: &Inputs, folder: &Path, arguments: &[&str]) -> Ran {
        let mut command = inputs.extract(Path::new("store"));
        run(command.current_dir(folder).args(BY_COLUMN).args(arguments))
    }

    let folder = scratch("gtzan-list");
    let audio = folder.join("Data/genres_original");
    let sound = folder.join("sound.wav");
    fs::write(&sound, noise_of(1, 3 * RATE_HZ))?;
    for genre in [
        "blues",
        "classical",
        "country",
        "disco",
        "hiphop",
        "jazz",
        "metal",
        "pop",
        "reggae",
        "rock",
    ] {
        fs::create_dir_all(audio.join(genre))?;
        for number in 0..100 {
            let name = format!("{genre}/{genre}.{number:05}.wav");
            fs::hard_link(&sound, audio.join(name))?;
        }
    }

    let inputs = Inputs::new(
        data.join("gtzan_splits/fault_filtered.csv"),
        PathBuf::from("Data/genres_original"),
        "gtzan-segments",
    );
    let preview = extract(&inputs, &folder, &["--dry-run", "--json"])
        .exits(0)?
        .out;
    let preview: Value = serde_json::from_str(&preview)?;
    same(
        "sides",
        &preview["splits"],
        &serde_json::json!({"training": 443, "validation": 197, "test": 290, "none": 70}),
    )?;
    same(
        "warnings",
        &preview["warnings"],
        &serde_json::json!([
            "metadata file fault_filtered.csv: 70 of 1000 files have no row in it, such as classical/classical.00042.wav: its \
             columns are null there"
        ]),
    )?;

    let ran = extract(&inputs, &folder, &["--limit", "50"]).exits(0)?;
    lacks(&ran.err, "leaky")?;
    let store = folder.join("store");
    same("rows", manifest(&store, 1)?.counts.feature_rows, 50)?;

    let elsewhere = "SELECT count(*) FROM features_log_mel f JOIN tracks t USING (clip_key) \
                     WHERE f.split <> coalesce(t.split, 'none')";
    same("in another split", sql_number(&store, elsewhere)?, 0)?;
    let sides = sql_counts(
        &store,
        "SELECT split AS name, count(*) AS n FROM features_log_mel GROUP BY 1",
    )?;
    within("sides", sides.len(), 3..)
}
