//! Fuzz test: a Parquet file as a shard of a store, as the loader and SQL read it. Hashes of the manifest are not compared,
//! which would reject every changed byte before it is read.

use std::cell::RefCell;
use std::fs;

use crate::stores::{SmallStore, write};

thread_local! {
    static STORE: RefCell<SmallStore> = RefCell::new(SmallStore::new());
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    STORE.with_borrow(|store| {
        let paths = store.manifest.files.iter().map(|file| store.root().join(&file.path));
        paths.map(|path| fs::read(path).expect("a file of the store")).collect()
    })
}

pub(crate) fn run(file: &[u8]) {
    STORE.with_borrow(|store| {
        write(&store.root().join(store.shard()), file);
        // Errors are valid results.
        let _ = store.load();
        let _ = store.query(&store.manifest);
    });
}
