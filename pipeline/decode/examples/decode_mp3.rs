//! Decodes MP3 files with symphonia or nanomp3 and discards the samples, to measure the time, or
//! with wavemill's own decoder to the mean of the channels, at full or half rate, or to both channels, to count
//! instructions (docs/decisions/decoding.md). A file that is given twice is decoded twice.
//!
//! usage: decode_mp3 symphonia|nanomp3|mean|half|both FILE.mp3…

#[path = "../tests/layer3/stream.rs"]
#[expect(dead_code, reason = "only the tests compare rates")]
mod stream;

use std::fs;
use std::hint::black_box;
use std::io::Cursor;

use anyhow::{Context, Result, bail, ensure};
use symphonia_bundle_mp3::{MpaDecoder, MpaReader};
use symphonia_core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia_core::formats::{FormatOptions, FormatReader};
use symphonia_core::io::MediaSourceStream;
use wavemill_decode::layer3::{Band, FRAME_SAMPLES, FrameDecoder, MonoDecoder};
use wavemill_signal::Level;

use stream::{Reservoir, Stream};

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

/// Decodes the frames of a file to the mean of their channels and returns the number of samples.
fn to_mean(file: &[u8], band: Band) -> Result<usize> {
    let mut decoder = MonoDecoder::new(band, Level::detect())?;
    let mut reservoir = Reservoir::default();
    let mut samples = [0.0; FRAME_SAMPLES];
    let mut n_samples = 0;
    for frame in &stream::frames(file) {
        let decoded = reservoir.feed(frame, |side, main| {
            decoder.decode(&frame.header, side, main, 0, &mut samples)
        });
        n_samples += decoded.unwrap_or(0);
        black_box(&samples);
    }
    Ok(n_samples)
}

fn to_half_rate(file: &[u8]) -> Result<usize> {
    to_mean(file, Band::HALF)
}

/// Decodes both channels of the frames of a file and returns the number of samples of all channels.
fn to_both(file: &[u8]) -> Result<usize> {
    let mut stream = Stream::new(FrameDecoder::new(Level::detect())?);
    let mut n_samples = 0;
    for frame in &stream::frames(file) {
        let planes = stream.decode(frame).unwrap_or_default();
        n_samples += planes.iter().map(|plane| plane.len()).sum::<usize>();
        black_box(&planes);
    }
    Ok(n_samples)
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let decoder = args.next().unwrap_or_default();
    let decode = match decoder.as_str() {
        "symphonia" => by_symphonia as fn(Vec<u8>) -> Result<usize>,
        "nanomp3" => by_nanomp3,
        "mean" => |file: Vec<u8>| to_mean(&file, Band::WHOLE),
        "half" => |file: Vec<u8>| to_half_rate(&file),
        "both" => |file: Vec<u8>| to_both(&file),
        _ => bail!("usage: decode_mp3 symphonia|nanomp3|mean|half|both FILE.mp3…"),
    };

    for path in args {
        let file = fs::read(&path).with_context(|| path.clone())?;
        let n_samples = decode(file).with_context(|| path.clone())?;
        ensure!(n_samples > 0, "{path}: no samples");
    }
    Ok(())
}
