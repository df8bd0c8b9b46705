//! Fuzz test: a zip archive. Its clips are listed and read; a clip that cannot be read is a valid result.

use std::cell::RefCell;
use std::io::{Cursor, Write};

use tempfile::TempDir;
use wavemill_source::{Media, metadata};
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::stores::{in_memory, write};

/// Maximum number of bytes of a clip.
const CLIP_BYTES_MAX: u64 = 1 << 20;

thread_local! {
    static FOLDER: RefCell<TempDir> = RefCell::new(in_memory());
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let methods = [CompressionMethod::Stored, CompressionMethod::Deflated];
    methods.map(archive).to_vec()
}

fn archive(method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for name in ["fma/000/000002.mp3", "fma/000/a \u{e9}.wav", "fma_metadata/tracks.csv"] {
        zip.start_file(name, options).expect("a name");
        zip.write_all(&[7; 100]).expect("memory");
    }
    zip.finish().expect("memory").into_inner()
}

pub(crate) fn run(input: &[u8]) {
    FOLDER.with_borrow(|folder| {
        let path = folder.path().join("archive.zip");
        write(&path, input);

        if let Ok(mut source) = wavemill_source::open(&path, Media::Audio, false) {
            source.set_bytes_max(CLIP_BYTES_MAX);
            let mut buffer = Vec::new();
            for key in source.index().keys() {
                let announced = source.read_bytes(key);
                if source.read(key, &mut buffer).is_ok() {
                    assert!(buffer.len() as u64 <= announced.min(CLIP_BYTES_MAX));
                }
            }
        }
        if let Ok(files) = metadata::Files::open(&path) {
            let names: Vec<String> = files.names().map(str::to_owned).collect();
            for name in names {
                let _ = files.fingerprint(&name);
            }
        }
    });
}
