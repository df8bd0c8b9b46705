//! Decodes MP3 files with symphonia or nanomp3 and discards the samples, to measure the time (scripts/peers/bench.py).
//!
//! usage: decode_mp3 symphonia|nanomp3 FILE.mp3…

use std::fs;
use std::hint::black_box;
use std::io::Cursor;

use anyhow::{Context, Result, bail, ensure};
use symphonia_bundle_mp3::{MpaDecoder, MpaReader};
use symphonia_core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia_core::formats::{FormatOptions, FormatReader};
use symphonia_core::io::MediaSourceStream;

/// Decodes a file with symphonia and returns the total number of samples of all channels.
fn by_symphonia(file: Vec<u8>) -> Result<usize> {
    let source = MediaSourceStream::new(Box::new(Cursor::new(file)), Default::default());
    let mut reader = MpaReader::try_new(source, FormatOptions::default())?;
    let params = reader.tracks()[0].codec_params.as_ref();
    let params = params.and_then(|params| params.audio());
    let params = params.context("no audio track")?;
    let mut decoder = MpaDecoder::try_new(params, &AudioDecoderOptions::default())?;

    let mut n_samples = 0;
    while let Some(packet) = reader.next_packet()? {
        let decoded = decoder.decode(&packet)?;
        n_samples += decoded.samples_interleaved();
        black_box(&decoded);
    }
    Ok(n_samples)
}

/// Decodes a file with nanomp3 and returns the total number of samples of all channels.
#[expect(clippy::unnecessary_wraps, reason = "as the other one")]
fn by_nanomp3(file: Vec<u8>) -> Result<usize> {
    let decoded = nanomp3::decode_all::<f32>(&file);
    Ok(black_box(&decoded.samples).len())
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let decoder = args.next().unwrap_or_default();
    let decode = match decoder.as_str() {
        "symphonia" => by_symphonia as fn(Vec<u8>) -> Result<usize>,
        "nanomp3" => by_nanomp3,
        _ => bail!("usage: decode_mp3 symphonia|nanomp3 FILE.mp3…"),
    };

    for path in args {
        let file = fs::read(&path).with_context(|| path.clone())?;
        let n_samples = decode(file).with_context(|| path.clone())?;
        ensure!(n_samples > 0, "{path}: no samples");
    }
    Ok(())
}
