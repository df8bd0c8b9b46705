//! Fuzz test: safetensors files as weights of a model.

use std::cell::RefCell;

use tempfile::TempDir;

use crate::stores::{in_memory, write};

thread_local! {
    static FOLDER: RefCell<TempDir> = RefCell::new(in_memory());
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    FOLDER.with_borrow(|folder| {
        let path = folder.path().join("seed.safetensors");
        wavemill_trainer::fuzzing::write_weights(&path);
        vec![std::fs::read(path).expect("weights")]
    })
}

pub(crate) fn run(input: &[u8]) {
    FOLDER.with_borrow(|folder| {
        let path = folder.path().join("weights.safetensors");
        write(&path, input);
        wavemill_trainer::fuzzing::read_weights(&path);
    });
}
