use super::*;

/// Creates a small manifest whose identity hashes are valid.
fn manifest() -> Manifest {
    let recipe = "name = 'r'\n[catalog]\ndataset = 'fma'\n[split]\nrule = 'official'\n\
                  [[targets]]\nname = 'genre'\ncolumn = 'track_genre_top'\n\
                  [[features]]\nname = 'log_mel'\nop = 'mel'\n";
    let recipe = Recipe::parse(recipe, "r", &[]).expect("a recipe");

    let engine = Engine {
        numerics: 1,
        backend: "cpu".to_owned(),
        level: "scalar".to_owned(),
        decoder: "none".to_owned(),
        target: "test".to_owned(),
        libc: "none".to_owned(),
        writer: "none".to_owned(),
        models: None,
    };

    let identity = Identity {
        recipe: canonical::id(&recipe).expect("an id"),
        rows: "0a".to_owned(),
        inputs: "1b".to_owned(),
        engine: canonical::id(&engine).expect("an id"),
        limit: None,
        sides: None,
        models: None,
        parent: None,
    };

    let plan_id = identity.plan_id().expect("an id");
    let path = format!("data/{plan_id}/features/log_mel/split=training/00000.parquet");

    Manifest {
        format_version: FORMAT_VERSION,
        plan_id,
        identity,
        engine,
        recipe,
        targets: vec![TargetEntry {
            name: "genre".to_owned(),
            classes: vec!["Jazz".to_owned(), "Rock".to_owned()],
            counts: BTreeMap::from([("training".to_owned(), vec![3, 4])]),
        }],
        features: Vec::new(),
        files: vec![FileEntry {
            table: None,
            feature: Some("log_mel".to_owned()),
            split: Some("training".to_owned()),
            path,
            rows: 7,
            bytes: 1234,
            blake3: "0".repeat(64),
            row_groups: vec![4, 3],
            footer: None,
        }],
        shards: BTreeMap::from([("training".to_owned(), 2)]),
        counts: Counts {
            rows_read: 9,
            clips_written: 7,
            ..Counts::default()
        },
        stats: BTreeMap::from([(
            "log_mel".to_owned(),
            Stats {
                mean: vec![0.125, 1.0 / 3.0],
                std: vec![2.5, 1e-3],
                values: 70,
            },
        )]),
    }
}

/// Edits a manifest and writes a valid checksum for the edited content.
fn edited(manifest: &Manifest, edit: impl FnOnce(&mut Value)) -> String {
    let mut value = serde_json::to_value(manifest).expect("JSON");
    edit(&mut value);
    value[CHECKSUM_KEY] = Value::String(canonical::id(&value).expect("an id"));
    value.to_string() + "\n"
}

#[test]
fn a_manifest_is_read_as_it_was_written() {
    let json = manifest().to_json().expect("JSON");
    let read = Manifest::from_json(&json).expect("a manifest");
    assert_eq!(read, manifest());
    assert_eq!(read.to_json().expect("JSON"), json);
}

#[test]
fn checksum_covers_the_text_without_itself() {
    let json = manifest().to_json().expect("JSON");
    let value: Value = serde_json::from_str(&json).expect("JSON");
    let checksum = value[CHECKSUM_KEY].as_str().expect("a checksum");
    let rest = json
        .trim_end()
        .replace(&format!("\"{CHECKSUM_KEY}\":\"{checksum}\","), "");
    assert_eq!(blake3::hash(rest.as_bytes()).to_hex().as_str(), checksum);
}

#[test]
fn flipped_bits_of_a_manifest_are_detected() {
    let json = manifest().to_json().expect("JSON").into_bytes();
    for at in 0..json.len() {
        // Two bits of each byte are flipped. Over the whole file, every bit of digits and letters is flipped often.
        for bit in [at % 8, (at + 3) % 8] {
            let mut flipped = json.clone();
            flipped[at] ^= 1 << bit;

            let error = Manifest::from_json(&flipped).expect_err("damage");
            let is_other = matches!(error, ManifestError::OtherFormat { .. });
            assert!(!is_other, "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn changed_digits_of_a_manifest_are_detected() {
    let json = manifest().to_json().expect("JSON").into_bytes();
    for at in (0..json.len()).filter(|&at| json[at].is_ascii_digit()) {
        let mut changed = json.clone();
        changed[at] = b'0' + (changed[at] - b'0' + 1) % 10;
        assert!(Manifest::from_json(&changed).is_err(), "byte {at}");
    }
}

/// Numbers that would overflow sums, products and allocations of readers.
#[test]
fn numbers_that_no_store_has_are_damage() {
    let feature = serde_json::json!({"name": "log_mel", "feature_id": "f", "dtype": "f16", "scale": null,
        "shape": [40, null], "dim_names": ["mel", "frame"], "sample_rate_hz": 8000, "hop_length": 128, "preset": ""});
    let with = |key: &str, value: Value| {
        let json = edited(&manifest(), |m| {
            m["features"] = Value::Array(vec![feature.clone()]);
            m["files"][0]["footer"] = serde_json::json!({"offset": 1000, "blake3": ""});
            *m.pointer_mut(key).expect("a key") = value;
        });
        Manifest::from_json(json)
    };
    with("/files/0/rows", 7.into()).expect("a manifest");

    let half = 1_u64 << 63;
    for (key, value) in [
        ("/files/0/bytes", u64::MAX.into()),
        ("/files/0/bytes", (1_u64 << 53).into()),
        ("/files/0/rows", half.into()),
        ("/files/0/row_groups", vec![half, half].into()),
        ("/files/0/footer/offset", half.into()),
        ("/counts/rows_read", u64::MAX.into()),
        ("/counts/rejects", serde_json::json!({"empty": half})),
        (
            "/counts/rows_dropped",
            serde_json::json!([{"step": "x", "rows": half}]),
        ),
        ("/targets/0/counts/training", vec![half, half].into()),
        ("/targets/0/counts/training", vec![3].into()),
        ("/targets/0/classes", Value::Array(Vec::new())),
        ("/shards/training", half.into()),
        ("/stats/log_mel/values", half.into()),
        ("/features/0/shape", vec![1_u64 << 32, 1 << 32].into()),
        ("/features/0/shape", vec![0, 1_u64 << 40, 1 << 40].into()),
        ("/features/0/shape", vec![1_u64 << 31].into()),
        ("/features/0/hop_length", 0.into()),
        ("/features/0/hop_length", half.into()),
        ("/features/0/sample_rate_hz", 0.into()),
    ] {
        let error = with(key, value.clone()).expect_err(key);
        assert!(
            error.to_string().ends_with("no program has written it"),
            "{key} {value}: {error}"
        );
    }
    for (key, value) in [
        ("/files/0/rows", serde_json::json!(-1)),
        ("/files/0/rows", serde_json::json!(1e30)),
    ] {
        assert!(with(key, value).is_err(), "{key}");
    }
}

#[test]
fn a_manifest_without_a_checksum_is_damaged() {
    let mut value: Value =
        serde_json::from_str(&manifest().to_json().expect("JSON")).expect("JSON");
    value
        .as_object_mut()
        .expect("an object")
        .remove(CHECKSUM_KEY);
    let error = Manifest::from_json(value.to_string()).expect_err("no checksum");
    assert!(
        error
            .to_string()
            .ends_with("the content differs from what was committed"),
        "{error}"
    );
}

#[test]
fn changed_recipe_engine_or_identity_is_detected() {
    for (part, key, value) in [
        ("recipe", "/recipe/name", "other"),
        ("engine", "/engine/level", "x86-64-v3"),
        ("plan_id", "/identity/rows", "0b"),
        ("plan_id", "/plan_id", "0123456789abcdef"),
    ] {
        let json = edited(&manifest(), |m| {
            *m.pointer_mut(key).expect("a key") = value.into();
        });
        let error = Manifest::from_json(json).expect_err(part);
        assert_eq!(
            error.to_string(),
            format!("the {part} does not match its hash in the identity")
        );
    }
}

#[test]
fn another_format_is_not_damage() {
    fn with_format(format: u64) -> String {
        edited(&manifest(), |m| m["format_version"] = format.into())
    }

    for (json, found, remedy) in [
        (with_format(1), 1, "has to be rebuilt"),
        (with_format(2), 2, "has to be rebuilt"),
        (r#"{"format_version":2}"#.to_owned(), 2, "has to be rebuilt"),
        (
            r#"{"format_version":4,"shards":[]}"#.to_owned(),
            4,
            "needs a newer wavemill",
        ),
        (
            r#"{"format_version":4294967296,"manifest_blake3":7}"#.to_owned(),
            4_294_967_296,
            "needs a newer wavemill",
        ),
        (with_format(17), 17, "needs a newer wavemill"),
        ("[2]".to_owned(), 2, "has to be rebuilt"),
    ] {
        match Manifest::from_json(&json).expect_err("another format") {
            ManifestError::OtherFormat { found: is } => assert_eq!(is, found),
            other => panic!("format {found}: {other}"),
        }

        let message = remedy_of_format(found);
        assert!(message.starts_with(remedy), "format {found}: {message}");
    }
}

#[test]
fn invalid_utf8_is_damage() {
    let mut json = manifest().to_json().expect("JSON").into_bytes();
    json[20] = 0xff;
    let error = Manifest::from_json(&json).expect_err("not UTF-8");
    assert_eq!(error.to_string(), "not UTF-8 from byte 20 on");
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

    for path in paths {
        let json = edited(&manifest(), |m| m["files"][0]["path"] = path.into());
        let error = Manifest::from_json(json).expect_err(path);
        assert!(
            error.to_string().contains(&format!("{path:?}")),
            "{path}: {error}"
        );
    }

    for name in ["../x", "..", ".", "", "a/b"] {
        let json = edited(&manifest(), |m| m["files"][0]["feature"] = name.into());
        assert!(
            matches!(Manifest::from_json(json), Err(ManifestError::Name { .. })),
            "{name}"
        );
    }

    let json = edited(&manifest(), |m| m["files"][0]["table"] = "tracks".into());
    assert!(
        matches!(Manifest::from_json(json), Err(ManifestError::Name { .. })),
        "both"
    );

    let mut receipt = Receipt {
        key: "k".to_owned(),
        file: manifest().files.remove(0),
        rejects: Vec::new(),
        features: "f".to_owned(),
        is_computed: true,
        clips_written: 7,
        partials: Vec::new(),
        class_counts: Vec::new(),
    };
    let json = serde_json::to_vec(&receipt).expect("JSON");
    assert_eq!(Receipt::from_json(&json).expect("a receipt"), receipt);

    receipt.file.path = "../a".to_owned();
    let json = serde_json::to_vec(&receipt).expect("JSON");
    assert!(matches!(
        Receipt::from_json(&json),
        Err(ManifestError::Name { .. })
    ));
}
