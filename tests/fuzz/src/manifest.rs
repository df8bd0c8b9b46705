//! Fuzz test: documents of a store with a valid checksum, so that their content is read: the first line of the input is a
//! manifest, which is then opened by the loader and by SQL, and is parsed as each other kind of document.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use wavemill_schemas::canonical;
use wavemill_schemas::manifest::{
    CHECKSUM_KEY, Identity, Manifest, Partial, Receipt, from_sealed, sealed,
};
use wavemill_schemas::reject::{Reason, Reject, Stage};
use wavemill_schemas::input::InputSeen;
use wavemill_store::PlanRecord;

use crate::stores::{SmallStore, write};

thread_local! {
    static STORE: RefCell<SmallStore> = RefCell::new(SmallStore::new());
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    STORE.with_borrow(|store| {
        let json = fs::read_to_string(store.manifest_path()).expect("a manifest");
        let json = json.lines().next().expect("a line").to_owned();

        let file = store.manifest.files.last().expect("a shard").clone();
        let receipt = Receipt {
            key: file.blake3.clone(),
            clips_written: file.rows,
            file,
            rejects: vec![Reject::new(Stage::Decode, Reason::Empty, "no bytes")],
            features: "0".repeat(64),
            is_computed: true,
            partials: vec![Partial { sum: vec![0.5], sum_squares: vec![0.25], values: 2 }],
            class_counts: vec![vec![1, 2]],
        };
        let receipt = canonical::to_json(&receipt).expect("JSON");
        Receipt::from_json(sealed(&receipt).as_bytes()).expect("a valid receipt");

        let Manifest { identity, engine, .. } = store.manifest.clone();
        let plan = canonical::to_json(&PlanRecord { identity, engine }).expect("JSON");
        let seen = BTreeMap::from([("a.mp3", InputSeen::unreadable(None))]);
        let seen = canonical::to_json(&seen).expect("JSON");
        [json, receipt, plan, seen].map(String::into_bytes).to_vec()
    })
}

pub(crate) fn run(input: &[u8]) {
    // As it is, a document has no valid checksum.
    assert_ne!(canonical::is_unchanged(input), Some(true));
    let _ = Manifest::from_json(input);
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };

    let line = text.lines().next().unwrap_or_default();
    let bytes = sealed(line);
    let _ = Receipt::from_json(bytes.as_bytes());
    let _ = from_sealed::<PlanRecord>(bytes.as_bytes());
    let _ = from_sealed::<BTreeMap<String, InputSeen>>(bytes.as_bytes());
    let Some(json) = with_hashes(line) else {
        return;
    };
    let Ok(manifest) = Manifest::from_json(&json) else {
        return;
    };
    STORE.with_borrow(|store| {
        write(&store.manifest_path(), json.as_bytes());
        let _ = store.load();
        let _ = store.query(&manifest);
    });
}

/// Returns a manifest with the hashes that its content needs.
fn with_hashes(line: &str) -> Option<String> {
    let mut manifest: Value = serde_json::from_str(line).ok()?;
    for part in ["recipe", "engine"] {
        let hash = canonical::id(manifest.get(part)?).ok()?;
        *manifest.get_mut("identity")?.get_mut(part)? = hash.into();
    }
    let identity: Identity = serde_json::from_value(manifest.get("identity")?.clone()).ok()?;
    *manifest.get_mut("plan_id")? = identity.plan_id().ok()?.into();

    let keys = manifest.as_object_mut()?;
    keys.remove(CHECKSUM_KEY);
    let hash = canonical::id(keys).ok()?;
    keys.insert(CHECKSUM_KEY.to_owned(), hash.into());
    Some(canonical::to_json(&manifest).ok()? + "\n")
}
