//! Fuzz test: a Parquet file in place of a shard or table of a store, as the loader and SQL read it. The first byte of the
//! input selects the file. The manifest states the length and the hash of the changed file: otherwise nearly every input
//! would be rejected before it is read.

use std::cell::RefCell;
use std::fs;

use crate::stores::{SmallStore, write};

thread_local! {
    static STORE: RefCell<SmallStore> = RefCell::new(SmallStore::new());
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    STORE.with_borrow(|store| {
        let paths = store.manifest.files.iter().map(|file| store.root().join(&file.path));
        let files = paths.map(|path| fs::read(path).expect("a file of the store"));
        files.zip(0_u8..).map(|(file, choice)| [&[choice], &file[..]].concat()).collect()
    })
}

pub(crate) fn run(input: &[u8]) {
    let Some((&choice, file)) = input.split_first() else {
        return;
    };
    STORE.with_borrow(|store| {
        let mut manifest = store.manifest.clone();
        let entry = usize::from(choice) % manifest.files.len();
        let entry = &mut manifest.files[entry];
        entry.bytes = file.len() as u64;
        entry.blake3 = blake3::hash(file).to_hex().to_string();
        entry.footer = None;

        let path = store.root().join(&entry.path);
        let original = fs::read(&path).expect("a file of the store");
        write(&path, file);
        write(&store.manifest_path(), manifest.to_json().expect("JSON").as_bytes());

        // Errors are valid results.
        let _ = store.load();
        let _ = store.query(&manifest);
        write(&path, &original);
    });
}
