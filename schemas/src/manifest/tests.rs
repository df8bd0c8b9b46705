use super::*;

/// Creates a small manifest of the given format with a valid identity.
fn manifest(format_version: u32) -> Manifest {
    let recipe = "name = 'r'\n[catalog]\ndataset = 'fma'\n[split]\nrule = 'official'\n\
                  [[targets]]\nname = 'genre'\ncolumn = 'track_genre_top'\n\
                  [[features]]\nname = 'log_mel'\nop = 'mel'\n";
    let recipe = Recipe::parse(recipe, "r", &[]).expect("a recipe");

    let text = |words: &str| words.to_owned();
    let engine = Engine {
        numerics: 1,
        backend: text("cpu"),
        level: text("scalar"),
        decoder: text("none"),
        target: text("test"),
        libc: text("none"),
        writer: (format_version >= 3).then(|| text("none")),
    };

    let identity = Identity {
        recipe: canonical::id(&recipe).expect("an id"),
        rows: text("0a"),
        inputs: text("1b"),
        engine: canonical::id(&engine).expect("an id"),
        limit: None,
        sides: None,
        parent: None,
    };

    let plan_id = identity.plan_id().expect("an id");
    let path = format!("data/{plan_id}/features/log_mel/split=training/00000.parquet");

    Manifest {
        format_version,
        plan_id,
        identity,
        engine,
        recipe,
        targets: vec![TargetEntry {
            name: text("genre"),
            classes: vec![text("Jazz"), text("Rock")],
            counts: BTreeMap::from([(text("training"), vec![3, 4])]),
        }],
        features: Vec::new(),
        files: vec![FileEntry {
            table: None,
            feature: Some(text("log_mel")),
            split: Some(text("training")),
            path,
            rows: 7,
            bytes: 1234,
            blake3: "0".repeat(64),
            row_groups: vec![4, 3],
            footer: None,
        }],
        shards: match format_version {
            1 | 2 => BTreeMap::new(),
            _ => BTreeMap::from([(text("training"), 2)]),
        },
        counts: Counts {
            rows_read: 9,
            clips_written: 7,
            ..Counts::default()
        },
        stats: BTreeMap::from([(
            text("log_mel"),
            Stats {
                mean: vec![0.125, 1.0 / 3.0],
                std: vec![2.5, 1e-3],
                values: 70,
            },
        )]),
    }
}

/// Edits a manifest and, from format 2 on, writes a valid checksum for the edited content.
fn edited(manifest: &Manifest, edit: impl FnOnce(&mut Value)) -> String {
    let mut value = serde_json::to_value(manifest).expect("JSON");
    edit(&mut value);
    if manifest.format_version >= CHECKSUM_SINCE {
        value[CHECKSUM_KEY] = Value::String(canonical::id(&value).expect("an id"));
    }
    value.to_string()
}

#[test]
fn every_format_is_read_as_it_was_written() {
    for format in [1, 2, 3] {
        let json = manifest(format).to_json().expect("JSON");
        assert_eq!(json.contains(CHECKSUM_KEY), format >= 2);
        assert_eq!(json.contains("\"shards\":{\"training\":2}"), format >= 3);
        assert_eq!(json.contains("\"writer\":"), format >= 3);
        let read = Manifest::from_json(&json).expect("a manifest");
        assert_eq!(read, manifest(format));
        assert_eq!(read.to_json().expect("JSON"), json);
    }
}

#[test]
fn checksum_covers_the_text_without_itself() {
    let json = manifest(2).to_json().expect("JSON");
    let value: Value = serde_json::from_str(&json).expect("JSON");
    let checksum = value[CHECKSUM_KEY].as_str().expect("a checksum");
    let rest = json
        .trim_end()
        .replace(&format!("\"{CHECKSUM_KEY}\":\"{checksum}\","), "");
    assert_eq!(blake3::hash(rest.as_bytes()).to_hex().as_str(), checksum);
}

#[test]
fn flipped_bits_of_a_manifest_are_detected() {
    let good = manifest(2);
    let json = good.to_json().expect("JSON").into_bytes();

    let format = b"\"format_version\":";
    let digit = json
        .windows(format.len())
        .position(|part| part == format)
        .expect("the key")
        + format.len();

    for at in 0..json.len() {
        // Over the whole file, every bit of digits and letters is flipped many times.
        for bit in [at % 8, (at + 3) % 8] {
            let mut flipped = json.clone();
            flipped[at] ^= 1 << bit;

            match Manifest::from_json(&flipped) {
                // Changed white space after the end, or another notation of the same number.
                Ok(read) => assert_eq!(read, good, "byte {at}, bit {bit}"),
                Err(ManifestError::Newer { .. }) => assert_eq!(at, digit, "byte {at}, bit {bit}"),
                Err(_) => {}
            }
        }
    }
}

#[test]
fn changed_digits_of_a_manifest_are_detected() {
    let good = manifest(2);
    let json = good.to_json().expect("JSON").into_bytes();
    for at in (0..json.len()).filter(|&at| json[at].is_ascii_digit()) {
        let mut changed = json.clone();
        changed[at] = b'0' + (changed[at] - b'0' + 1) % 10;
        if let Ok(read) = Manifest::from_json(&changed) {
            assert_eq!(read, good, "byte {at}");
        }
    }
}

#[test]
fn format_2_without_a_checksum_is_damaged() {
    let mut value: Value =
        serde_json::from_str(&manifest(2).to_json().expect("JSON")).expect("JSON");
    value
        .as_object_mut()
        .expect("an object")
        .remove(CHECKSUM_KEY);
    let error = Manifest::from_json(value.to_string()).expect_err("no checksum");
    assert!(matches!(error, ManifestError::Checksum { .. }), "{error}");
}

#[test]
fn format_1_detects_changed_recipe_engine_or_identity() {
    let fails = |part: &str, change: &dyn Fn(&mut Value)| {
        let error = Manifest::from_json(edited(&manifest(1), change)).expect_err(part);
        assert!(
            matches!(error, ManifestError::Identity { part: found } if found == part),
            "{part}: {error}"
        );
    };

    fails("recipe", &|m| m["recipe"]["name"] = "other".into());
    fails("engine", &|m| m["engine"]["level"] = "x86-64-v3".into());
    fails("plan_id", &|m| m["identity"]["rows"] = "0b".into());
    fails("plan_id", &|m| m["plan_id"] = "0123456789abcdef".into());
}

#[test]
fn newer_format_is_not_damage() {
    for json in [
        r#"{"format_version":4,"shards":[]}"#.to_owned(),
        r#"{"format_version":4294967296,"manifest_blake3":7}"#.to_owned(),
        manifest(2)
            .to_json()
            .expect("JSON")
            .replace("\"format_version\":2", "\"format_version\":17"),
    ] {
        let error = Manifest::from_json(&json).expect_err("a later format");
        assert!(matches!(error, ManifestError::Newer { .. }), "{error}");
    }

    let none = Manifest::from_json(r#"{"format_version":0}"#).expect_err("no such format");
    assert!(
        matches!(none, ManifestError::NoSuchFormat { found: 0 }),
        "{none}"
    );
}

#[test]
fn invalid_utf8_is_damage() {
    let mut json = manifest(2).to_json().expect("JSON").into_bytes();
    json[20] = 0xff;
    let error = Manifest::from_json(&json).expect_err("not UTF-8");
    assert!(
        matches!(error, ManifestError::Encoding { at: 20 }),
        "{error}"
    );
}

#[test]
fn names_in_manifests_and_receipts_stay_inside_the_store() {
    let paths = [
        "/other/store/a.parquet",
        "../../s2/a.parquet",
        "data/../../a",
        "data//a",
        "./data/a",
        "",
        "a/..",
        "a\0b",
    ];

    for format in [1, 2] {
        for path in paths {
            let json = edited(&manifest(format), |m| m["files"][0]["path"] = path.into());
            let error = Manifest::from_json(json).expect_err(path);
            assert!(
                error.to_string().contains(&format!("{path:?}")),
                "{path}: {error}"
            );
        }

        for name in ["../x", "..", ".", "", "a/b"] {
            let json = edited(&manifest(format), |m| {
                m["files"][0]["feature"] = name.into()
            });
            assert!(
                matches!(Manifest::from_json(json), Err(ManifestError::Name { .. })),
                "{name}"
            );
        }

        let json = edited(&manifest(format), |m| {
            m["files"][0]["table"] = "tracks".into()
        });
        assert!(
            matches!(Manifest::from_json(json), Err(ManifestError::Name { .. })),
            "both"
        );
    }

    let mut receipt = Receipt {
        key: "k".to_owned(),
        file: manifest(2).files.remove(0),
        rejects: Vec::new(),
        features: "f".to_owned(),
        is_computed: true,
        clips_written: 7,
        partials: Vec::new(),
        class_counts: Vec::new(),
    };
    let json = |receipt: &Receipt| serde_json::to_vec(receipt).expect("JSON");
    assert_eq!(
        Receipt::from_json(&json(&receipt)).expect("a receipt"),
        receipt
    );
    receipt.file.path = "../a".to_owned();
    assert!(matches!(
        Receipt::from_json(&json(&receipt)),
        Err(ManifestError::Name { .. })
    ));

    let mut old = OldReceipt {
        files: manifest(2).files,
        inputs: BTreeMap::new(),
    };
    let json = |old: &OldReceipt| serde_json::to_vec(old).expect("JSON");
    assert_eq!(OldReceipt::from_json(&json(&old)).expect("a receipt"), old);
    old.files[0].path = "../a".to_owned();
    assert!(matches!(
        OldReceipt::from_json(&json(&old)),
        Err(ManifestError::Name { .. })
    ));
}
