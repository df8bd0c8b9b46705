//! Builders of WAV and AIFF files for tests.

use super::{Part, audio, other, text};

/// Returns a RIFF chunk with its name and size.
pub(crate) fn chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).expect("a small chunk");
    let padding = vec![0; body.len() % 2];
    [&name[..], &size.to_le_bytes(), body, &padding].concat()
}

/// Returns a `fmt ` chunk for a sample rate of 44.1 kHz.
pub(crate) fn fmt(tag: u16, channels: u16, bits: u16) -> Vec<u8> {
    let block_bytes = channels.wrapping_mul(bits / 8);
    let mut body = Vec::new();
    body.extend(tag.to_le_bytes());
    body.extend(channels.to_le_bytes());
    body.extend(44_100_u32.to_le_bytes());
    body.extend((44_100 * u32::from(block_bytes)).to_le_bytes());
    body.extend(block_bytes.to_le_bytes());
    body.extend(bits.to_le_bytes());
    chunk(b"fmt ", &body)
}

/// Returns a complete WAV file of these chunks.
pub(crate) fn riff(chunks: &[Vec<u8>]) -> Vec<u8> {
    let body = [&b"WAVE"[..], &chunks.concat()].concat();
    chunk(b"RIFF", &body)
}

/// Returns a WAV file of these chunks whose header begins with another name, such as `RF64`.
pub(crate) fn riff_named(name: &[u8; 4], chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut file = riff(chunks);
    file[..4].copy_from_slice(name);
    file
}

/// Returns a chunk with another size in its header.
pub(crate) fn with_size(mut chunk: Vec<u8>, size: u32) -> Vec<u8> {
    chunk[4..8].copy_from_slice(&size.to_le_bytes());
    chunk
}

/// Returns a RIFX file with these samples, and with the numbers of a `fmt ` chunk before its size, of these widths.
pub(crate) fn rifx(numbers: &[(u64, usize)], data: &[u8]) -> Vec<u8> {
    let numbers = numbers.iter();
    let fmt: Vec<u8> = numbers
        .flat_map(|&(number, n_bytes)| number.to_be_bytes()[8 - n_bytes..].to_vec())
        .collect();
    let chunks = [big_chunk(b"fmt ", &fmt), big_chunk(b"data", data)];
    let mut file = riff_named(b"RIFX", &chunks);
    file[4..8].reverse();
    file
}

/// Returns an AIFF chunk with its name and size.
pub(crate) fn big_chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut chunk = chunk(name, body);
    chunk[4..8].reverse();
    chunk
}

/// Returns a `COMM` chunk of AIFF-C for a sample rate of 44.1 kHz.
pub(crate) fn comm(compression: &[u8; 4], channels: u16, bits: u16) -> Vec<u8> {
    let mut body = channels.to_be_bytes().to_vec();
    body.extend(0_u32.to_be_bytes());
    body.extend(bits.to_be_bytes());
    // 44,100 is 0xAC44 · 2^0; the number 1.0 has the exponent 16,383 and the mantissa 2^63.
    body.extend([0x40, 0x0E, 0xAC, 0x44, 0, 0, 0, 0, 0, 0]);
    body.extend(compression);
    body.extend([0, 0]);
    big_chunk(b"COMM", &body)
}

/// Returns a `SSND` chunk with these samples.
pub(crate) fn ssnd(data: &[u8]) -> Vec<u8> {
    big_chunk(b"SSND", &[&[0; 8], data].concat())
}

/// Returns a complete AIFF-C file of these chunks.
pub(crate) fn form(chunks: &[Vec<u8>]) -> Vec<u8> {
    let body = [&b"AIFC"[..], &chunks.concat()].concat();
    big_chunk(b"FORM", &body)
}

/// Returns 16-bit samples of a sawtooth.
pub(crate) fn saw(n_samples: usize) -> Vec<u8> {
    (0..n_samples)
        .flat_map(|at| ((at * 331 % 20_000) as i16 - 10_000).to_le_bytes())
        .collect()
}

pub(super) fn wav_parts(n_tag_bytes: usize) -> Vec<Part> {
    let list = [b"INFOINAM".to_vec(), text(n_tag_bytes)].concat();

    // The `data` chunk announces 500 samples more than it contains.
    let mut data = chunk(b"data", &saw(9_500));
    data[4..8].copy_from_slice(&20_000_u32.to_le_bytes());

    vec![
        audio(b"RIFF\0\0\0\0WAVE".to_vec()),
        other(chunk(b"bext", &text(n_tag_bytes))),
        other(fmt(1, 1, 16)),
        other(chunk(b"LIST", &list)),
        audio(data),
    ]
}

pub(super) fn aiff_parts(n_tag_bytes: usize) -> Vec<Part> {
    // The `SSND` chunk announces 500 samples more than it contains.
    let mut sound = ssnd(&saw(9_500));
    sound[4..8].copy_from_slice(&20_008_u32.to_be_bytes());

    vec![
        audio(b"FORM\0\0\0\0AIFC".to_vec()),
        other(big_chunk(b"NAME", &text(n_tag_bytes))),
        other(comm(b"twos", 1, 16)),
        other(big_chunk(b"ANNO", &text(n_tag_bytes))),
        audio(sound),
    ]
}
