//! Wrong manifests: edited by hand, with flipped bits, of other formats, or with paths out of the store.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wavemill_schemas::canonical;
use wavemill_schemas::manifest::{CHECKSUM_KEY, Manifest, sealed};
use wavemill_tests::{Failed, Trial};

use crate::support::{
    Ran, copy_folder, fit, inputs, manifest, own_store, run, same, scratch, sql_number,
    to_old_format, trainer_trial, wavemill, whole,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test(
            "manifests::flipped_digits_are_found",
            flipped_digits_are_found,
        ),
        Trial::test(
            "manifests::false_format_1_manifests_are_detected_from_shards",
            false_format_1_manifests_are_detected_from_shards,
        ),
        Trial::test(
            "manifests::format_1_stays_readable",
            format_1_stays_readable,
        ),
        Trial::test(
            "manifests::paths_outside_the_store_are_not_read",
            paths_outside_the_store_are_not_read,
        ),
        Trial::test(
            "manifests::links_out_of_the_store_are_not_followed",
            links_out_of_the_store_are_not_followed,
        ),
        Trial::test(
            "manifests::receipts_cannot_name_paths_outside_the_store",
            receipts_cannot_name_paths_outside_the_store,
        ),
        Trial::test(
            "manifests::a_linked_store_is_a_store",
            a_linked_store_is_a_store,
        ),
        Trial::test(
            "manifests::newer_format_is_not_damage",
            newer_format_is_not_damage,
        ),
        Trial::test("manifests::invalid_utf8_is_damage", invalid_utf8_is_damage),
        trainer_trial(
            "manifests::trainer_performs_the_same_checks",
            trainer_performs_the_same_checks,
        ),
        trainer_trial(
            "manifests::missing_split_error_names_the_file",
            missing_split_error_names_the_file,
        ),
    ]
}

/// Runs a command on a store.
fn on(store: &Path, words: &[&str]) -> Ran {
    run(wavemill(words).arg("--store").arg(store))
}

fn manifest_path(store: &Path) -> PathBuf {
    store.join("_wavemill/versions/00000001.json")
}

/// Edits the JSON of version 1 and recomputes its checksum if it has one, as an attacker would.
fn edit(store: &Path, change: impl FnOnce(&mut Value)) -> Result<(), Failed> {
    let mut json: Value = serde_json::from_slice(&fs::read(manifest_path(store))?)?;
    let keys = json.as_object_mut().ok_or("no object")?;
    let had_checksum = keys.remove(CHECKSUM_KEY).is_some();
    change(&mut json);
    if had_checksum {
        json[CHECKSUM_KEY] = canonical::id(&json)?.into();
    }
    fs::write(manifest_path(store), json.to_string() + "\n")?;
    Ok(())
}

/// Rewrites version 1 in format 1, as the first wavemill wrote it.
fn to_format_1(store: &Path) -> Result<Manifest, Failed> {
    to_old_format(store, 1)
}

/// Returns the position of the first digit in the value of `key`.
fn digit_of(text: &str, key: &str) -> Result<usize, Failed> {
    let at = text
        .find(&format!("\"{key}\":"))
        .ok_or_else(|| format!("no {key}"))?;
    let digit = text[at..]
        .find(|c: char| c.is_ascii_digit())
        .ok_or("no digit")?;
    Ok(at + digit)
}

/// Changes a digit at 48 positions, spread over the manifest.
fn flipped_digits_are_found() -> Result<(), Failed> {
    let store = own_store("digits");
    let text = fs::read_to_string(manifest_path(&store))?;
    let whole: Value = serde_json::from_str(&text)?;
    let digits: Vec<usize> = text
        .bytes()
        .enumerate()
        .filter(|(_, b)| b.is_ascii_digit())
        .map(|(at, _)| at)
        .collect();

    for place in 0..48 {
        let at = digits[place * digits.len() / 48];
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;

        // Changing the last digits of a float may give the same number. A leading zero makes a number invalid.
        if serde_json::from_slice::<Value>(&bytes).is_ok_and(|is| is == whole) {
            continue;
        }

        fs::write(manifest_path(&store), &bytes)?;
        let found = on(&store, &["verify"]).exits(3)?;
        found.says(&["00000001.json", "damaged manifest"])?;
        // Queries on the damaged manifest fail as well, instead of returning wrong results.
        on(&store, &["sql", "SELECT count(*) FROM tracks"]).exits(3)?;
    }

    fs::write(manifest_path(&store), &text)?;
    on(&store, &["verify"]).exits(0)?;
    Ok(())
}

/// Name of an edit, the edit itself, and a part of the message that `verify` must print.
type FalseEdit = (&'static str, fn(&mut Value), &'static str);

/// Format 1 has no checksum, but its shards, tables and receipts contradict a wrong manifest. In later formats they
/// contradict a manifest whose checksum was recomputed after an edit.
fn false_format_1_manifests_are_detected_from_shards() -> Result<(), Failed> {
    let lies: [FalseEdit; 15] = [
        (
            "classes",
            |m| {
                m["targets"][0]["classes"]
                    .as_array_mut()
                    .unwrap()
                    .swap(0, 1)
            },
            "classes",
        ),
        (
            "class counts",
            |m| swap_digits(&mut m["targets"][0]["counts"]),
            "clips by split and class",
        ),
        (
            "clips_written",
            |m| add(&mut m["counts"]["clips_written"]),
            "clips_written",
        ),
        (
            "clips_rejected",
            |m| add(&mut m["counts"]["clips_rejected"]),
            "clips_rejected",
        ),
        (
            "rows_kept",
            |m| add(&mut m["counts"]["rows_kept"]),
            "rows_kept",
        ),
        (
            "feature_rows",
            |m| add(&mut m["counts"]["feature_rows"]),
            "feature_rows",
        ),
        (
            "feature_id",
            |m| m["features"][0]["feature_id"] = "0".repeat(64).into(),
            "feature_id",
        ),
        ("shape", |m| add(&mut m["features"][0]["shape"][0]), "shape"),
        (
            "hop_length",
            |m| add(&mut m["features"][1]["hop_length"]),
            "hop_length",
        ),
        (
            "row groups",
            |m| m["files"][9]["row_groups"] = vec![1].into(),
            "row groups",
        ),
        (
            "blake3",
            |m| m["files"][9]["blake3"] = "0".repeat(64).into(),
            "blake3",
        ),
        (
            "footer",
            |m| m["files"][9]["footer"] = json!({"offset": 4, "blake3": "0".repeat(64)}),
            "files.footer",
        ),
        (
            "place of the footer",
            |m| m["files"][9]["footer"] = json!({"offset": u64::MAX, "blake3": ""}),
            "files.footer",
        ),
        (
            "stats",
            |m| m["stats"]["log_mel"]["mean"][3] = 0.5.into(),
            "stats of log_mel",
        ),
        (
            "a file",
            |m| _ = m["files"].as_array_mut().unwrap().pop(),
            "not a file of this version",
        ),
    ];

    for format in [1, 3] {
        let store = own_store("lies");
        if format == 1 {
            to_format_1(&store)?;
        }
        let text = fs::read(manifest_path(&store))?;
        on(&store, &["verify"]).exits(0)?;

        for (name, lie, said) in &lies {
            edit(&store, lie)?;
            let found = on(&store, &["verify"]).exits(3)?;
            same(
                &format!("{name} in format {format}: {}", found.out),
                found.out.contains(said),
                true,
            )?;
            fs::write(manifest_path(&store), &text)?;
        }
    }

    // Earlier formats do not state the number of shards.
    let store = own_store("numbers");
    edit(&store, |m| {
        let n_shards = m["shards"]["training"].as_u64().unwrap();
        m["shards"]["training"] = (n_shards * 2).into();
    })?;
    let found = on(&store, &["verify"]).exits(3)?;
    same(&found.out, found.out.contains("shards.training"), true)?;

    let edited: [fn(&mut Value); 3] = [
        |m| m["recipe"]["audio"]["duration_s"] = 4.0.into(),
        |m| m["recipe"]["split"]["seed"] = 77.into(),
        |m| m["engine"]["numerics"] = 9.into(),
    ];
    for (format, edited) in [1, 3]
        .into_iter()
        .flat_map(|format| edited.map(|e| (format, e)))
    {
        let store = own_store("identity");
        if format == 1 {
            to_format_1(&store)?;
        }
        edit(&store, edited)?;
        on(&store, &["info"])
            .exits(3)?
            .says(&["damaged manifest", "identity"])?;
    }
    Ok(())
}

fn add(number: &mut Value) {
    *number = (number.as_u64().unwrap() + 1).into();
}

/// Moves one clip from the count of one class to that of another.
fn swap_digits(counts: &mut Value) {
    let training = counts["training"].as_array_mut().unwrap();
    let most = (0..training.len())
        .max_by_key(|&class| training[class].as_u64())
        .unwrap();
    training[most] = (training[most].as_u64().unwrap() - 1).into();
    let other = usize::from(most == 0);
    add(&mut training[other]);
}

/// Every command reads format 1, and a version of the new format can follow it.
fn format_1_stays_readable() -> Result<(), Failed> {
    let store = own_store("first-format");
    let first = to_format_1(&store)?;
    let text = fs::read(manifest_path(&store))?;
    same(
        "a checksum",
        text.windows(CHECKSUM_KEY.len())
            .any(|part| part == CHECKSUM_KEY.as_bytes()),
        false,
    )?;

    on(&store, &["verify"]).exits(0)?;
    same(
        "as stored",
        on(&store, &["info", "--json"]).exits(0)?.out.into_bytes(),
        text.clone(),
    )?;

    let rows = sql_number(&store, "SELECT count(*) FROM features_log_mel")?;
    same("rows", rows, first.counts.feature_rows)?;
    let again = run(&mut inputs().extract(&store)).exits(0)?;
    same("said", again.err.contains("nothing to do"), true)?;

    run(inputs()
        .extract(&store)
        .args(["--new-version", "--limit", "30"]))
    .exits(0)?;
    let second = manifest(&store, 2)?;
    same("format", second.format_version, 3)?;
    same(
        "parent",
        second.identity.parent,
        Some(blake3::hash(&text).to_hex().to_string()),
    )?;

    on(&store, &["diff", "1", "2"]).exits(0)?;
    let listed: Value =
        serde_json::from_str(&on(&store, &["info", "--versions", "--json"]).exits(0)?.out)?;
    same(
        "both listed",
        listed[0]["held"].is_object() && listed[1]["held"].is_object(),
        true,
    )?;

    on(&store, &["gc", "--keep", "1"]).exits(0)?;
    on(&store, &["verify"]).exits(0)?;
    same("the first manifest", fs::read(manifest_path(&store))?, text)
}

/// The path points to another store's file with the correct bytes.
fn paths_outside_the_store_are_not_read() -> Result<(), Failed> {
    for format in [1, 3] {
        let folder = scratch("places");
        let (store, other) = (folder.join("store"), folder.join("s2"));
        copy_folder(whole(), &store);
        copy_folder(whole(), &other);
        if format == 1 {
            to_format_1(&store)?;
        }

        let text = fs::read(manifest_path(&store))?;
        let path = manifest(&store, 1)?
            .files_of("log_mel")
            .next()
            .ok_or("no shard")?
            .path
            .clone();
        fs::remove_file(store.join(&path))?;
        let absolute = other.join(&path).to_str().unwrap().to_owned();
        for elsewhere in [
            absolute,
            format!("../s2/{path}"),
            format!("data/../../s2/{path}"),
        ] {
            edit(&store, |m| {
                let files = m["files"].as_array_mut().unwrap();
                let file = files
                    .iter_mut()
                    .find(|file| file["path"] == path.as_str())
                    .unwrap();
                file["path"] = elsewhere.as_str().into();
            })?;

            let words = [elsewhere.as_str(), "00000001.json"];
            for command in [
                &["verify"][..],
                &["info", "--files"],
                &["sql", "SELECT 1"],
                &["gc", "--keep", "1"],
            ] {
                on(&store, command).exits(3)?.says(&words)?;
            }
            run(&mut inputs().extract(&store)).exits(3)?.says(&words)?;
            fs::write(manifest_path(&store), &text)?;
        }
    }
    Ok(())
}

fn links_out_of_the_store_are_not_followed() -> Result<(), Failed> {
    let folder = scratch("links");
    let (store, other) = (folder.join("store"), folder.join("s2"));
    copy_folder(whole(), &store);
    copy_folder(whole(), &other);

    let manifest = manifest(&store, 1)?;
    let path = manifest
        .files_of("log_mel")
        .next()
        .ok_or("no shard")?
        .path
        .clone();
    let shards = Path::new(&path)
        .parent()
        .and_then(Path::parent)
        .ok_or("no folder")?;

    for linked in [Path::new(&path), shards] {
        let (own, theirs) = (store.join(linked), other.join(linked));
        let aside = folder.join("aside");
        fs::rename(&own, &aside)?;
        symlink(theirs, &own)?;

        for command in [
            &["verify"][..],
            &["info", "--files"],
            &["sql", "SELECT count(*) FROM features_log_mel"],
        ] {
            on(&store, command)
                .exits(3)?
                .says(&[&path, "leads out of it"])?;
        }
        run(&mut inputs().extract(&store))
            .exits(3)?
            .says(&[&path, "leads out of it"])?;

        fs::remove_file(&own)?;
        // The file's content may be stored elsewhere within the store.
        symlink(&aside, &own)?;
        fs::remove_file(&own)?;
        fs::rename(&aside, &own)?;
    }
    on(&store, &["verify"]).exits(0)?;

    // A run does not write to a place that readers refuse.
    let store = folder.join("new");
    fs::create_dir_all(store.join("_wavemill"))?;
    fs::create_dir(folder.join("elsewhere"))?;
    symlink("../elsewhere", store.join("data"))?;
    run(&mut inputs().extract(&store))
        .exits(3)?
        .says(&["data/", "leads out of it"])?;
    same(
        "written",
        fs::read_dir(folder.join("elsewhere"))?.count(),
        0,
    )
}

/// Tests receipts of this plan, and receipts of another plan whose shards would be linked.
fn receipts_cannot_name_paths_outside_the_store() -> Result<(), Failed> {
    let store = own_store("receipt");
    let receipts = store
        .join("_wavemill/receipts")
        .join(manifest(&store, 1)?.plan_id)
        .join("log_mel");

    let mut names: Vec<PathBuf> = fs::read_dir(&receipts)?
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();

    // Edits the receipt and recomputes its checksum.
    let text = fs::read_to_string(&names[0])?;
    let json = text.lines().next().ok_or("no receipt")?;
    let edited = json.replacen("\"path\":\"data/", "\"path\":\"../s2/data/", 1);
    fs::write(&names[0], sealed(&edited))?;

    let again = run(inputs()
        .extract(&store)
        .args(["--new-version", "--limit", "30"]))
    .exits(3)?;
    again.says(&["damaged receipt", names[0].to_str().unwrap(), "../s2/data/"])
}

fn a_linked_store_is_a_store() -> Result<(), Failed> {
    let store = own_store("behind");
    let link = scratch("link").join("store");
    symlink(&store, &link)?;

    on(&link, &["verify"]).exits(0)?;
    sql_number(&link, "SELECT count(*) FROM features_log_mel")?;
    let again = run(&mut inputs().extract(&link)).exits(0)?;
    same("said", again.err.contains("nothing to do"), true)?;

    run(inputs()
        .extract(&link)
        .args(["--new-version", "--limit", "30"]))
    .exits(0)?;
    on(&link, &["verify"]).exits(0)?;
    Ok(())
}

fn newer_format_is_not_damage() -> Result<(), Failed> {
    let store = own_store("newer");
    let said = [
        "needs a newer wavemill",
        "format version is 4",
        "up to 3",
        "00000001.json",
    ];

    for json in [
        r#"{"format_version":4,"everything":"else"}"#,
        r#"{"format_version":4,"manifest_blake3":[]}"#,
    ] {
        fs::write(manifest_path(&store), json)?;

        let commands = [
            &["verify"][..],
            &["info"],
            &["info", "--files"],
            &["sql", "SELECT 1"],
            &["gc", "--keep", "1"],
            &["diff", "1", "1"],
        ];

        for command in commands {
            let ran = on(&store, command).exits(2)?;
            ran.says(&said)?;
            same("called damaged", ran.err.contains("damaged"), false)?;
        }

        run(&mut inputs().extract(&store)).exits(2)?.says(&said)?;
        let listed = on(&store, &["info", "--versions"]).exits(0)?.out;
        same(
            &listed,
            listed.contains("needs a newer wavemill (format version 4)"),
            true,
        )?;
    }
    Ok(())
}

fn invalid_utf8_is_damage() -> Result<(), Failed> {
    let store = own_store("bytes");
    let mut bytes = fs::read(manifest_path(&store))?;
    bytes[100] = 0xff;
    fs::write(manifest_path(&store), &bytes)?;

    for command in [&["verify"][..], &["info"], &["sql", "SELECT 1"]] {
        on(&store, command)
            .exits(3)?
            .says(&["00000001.json", "damaged manifest", "not UTF-8"])?;
    }
    run(&mut inputs().extract(&store))
        .exits(3)?
        .says(&["not UTF-8"])
}

fn trainer_performs_the_same_checks() -> Result<(), Failed> {
    let folder = scratch("trainer-manifest");
    let (store, other, runs) = (folder.join("store"), folder.join("s2"), folder.join("runs"));
    copy_folder(whole(), &store);
    copy_folder(whole(), &other);
    let text = fs::read_to_string(manifest_path(&store))?;

    let refused = |code: i32, said: &[&str]| -> Result<(), Failed> {
        run(fit(&store, &runs).args(["--model", "mlp-1", "--epochs", "1"]))
            .exits(code)?
            .says(said)
    };

    fs::write(
        manifest_path(&store),
        r#"{"format_version":4,"everything":"else"}"#,
    )?;
    refused(
        2,
        &["needs a newer wavemill", "format version is 4", "up to 3"],
    )?;

    let mut bytes = text.clone().into_bytes();
    bytes[100] = 0xff;
    fs::write(manifest_path(&store), &bytes)?;
    refused(3, &["damaged manifest", "not UTF-8"])?;

    let at = digit_of(&text, "clips_written")?;
    let mut bytes = text.clone().into_bytes();
    bytes[at] ^= 1;
    fs::write(manifest_path(&store), &bytes)?;
    refused(3, &["damaged manifest", "manifest_blake3"])?;

    fs::write(manifest_path(&store), &text)?;
    let path = manifest(&store, 1)?
        .files_of("log_mel")
        .next()
        .ok_or("no shard")?
        .path
        .clone();

    edit(&store, |m| {
        let files = m["files"].as_array_mut().unwrap();
        let file = files
            .iter_mut()
            .find(|file| file["path"] == path.as_str())
            .unwrap();
        file["path"] = format!("../s2/{path}").into();
    })?;
    refused(3, &["damaged manifest", &format!("../s2/{path}")])?;

    fs::write(manifest_path(&store), &text)?;
    fs::remove_file(store.join(&path))?;
    symlink(other.join(&path), store.join(&path))?;
    refused(3, &[&path, "leads out of it"])
}

/// Every validation shard is truncated to half its length, as by an interrupted copy.
fn missing_split_error_names_the_file() -> Result<(), Failed> {
    let store = own_store("lost-split");
    let runs = scratch("lost-split-runs");

    let files = manifest(&store, 1)?.files;
    let of_validation = files.iter().filter(|file| {
        file.feature.as_deref() == Some("log_mel") && file.split.as_deref() == Some("validation")
    });
    let paths: Vec<&str> = of_validation.map(|file| file.path.as_str()).collect();

    for path in &paths {
        let bytes = fs::read(store.join(path))?;
        fs::write(store.join(path), &bytes[..bytes.len() / 2])?;
    }

    let refused =
        run(fit(&store, &runs).args(["--model", "lstm", "--epochs", "1", "--skip-damaged"]))
            .exits(3)?;
    refused.says(&["split validation", paths[0], "wavemill verify"])?;
    same(
        "asks for more clips",
        refused.err.contains("extract more clips"),
        false,
    )
}
