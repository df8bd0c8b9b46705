//! Tests of all sample formats of WAV and AIFF, and of announced lengths.

use wavemill_kernels::Level;
use wavemill_schemas::reject::Reason;

use super::testing::{big_chunk, chunk, comm, fmt, form, riff, ssnd};
use crate::{Decode, DecodeArgs, FileDecoder, Pcm, testing};

fn decode(file: &[u8]) -> Pcm {
    let mut out = Pcm::default();
    testing::decode(file, 44_100, &mut out).unwrap();
    out
}

fn samples(tag: u16, channels: u16, bits: u16, data: &[u8]) -> Vec<f32> {
    let out = decode(&riff(&[fmt(tag, channels, bits), chunk(b"data", data)]));
    assert_eq!(out.lost_s, 0.0);
    out.samples.to_vec()
}

#[test]
fn all_sample_formats_are_converted() {
    assert_eq!(samples(1, 1, 8, &[0, 128, 255]), [-1.0, 0.0, 127.0 / 128.0]);
    assert_eq!(
        samples(1, 1, 16, &[0, 0x80, 0xFF, 0x7F]),
        [-1.0, 32_767.0 / 32_768.0]
    );
    assert_eq!(
        samples(1, 1, 24, &[0, 0, 0x80, 1, 0, 0]),
        [-1.0, 1.0 / 8_388_608.0]
    );
    assert_eq!(
        samples(1, 1, 32, &[0, 0, 0, 0x80, 0, 0, 0, 0x40]),
        [-1.0, 0.5]
    );

    assert_eq!(samples(3, 1, 32, &0.25_f32.to_le_bytes()), [0.25]);
    assert_eq!(samples(3, 1, 64, &(-1.5_f64).to_le_bytes()), [-1.5]);

    // G.711 codes: the smallest positive step of A-law, and the zero and the negative maximum of µ-law.
    assert_eq!(samples(6, 1, 8, &[0xD5]), [8.0 / 32_768.0]);
    assert_eq!(samples(7, 1, 8, &[0xFF, 0x00]), [0.0, -32_124.0 / 32_768.0]);

    // Two channels are averaged, and an incomplete last sample is omitted.
    assert_eq!(samples(1, 2, 16, &[0, 0x40, 0, 0x20, 0, 0x40]), [0.375]);
}

#[test]
fn all_sample_formats_of_aiff_are_converted() {
    let samples = |compression: &[u8; 4], channels, bits, data: &[u8]| {
        let out = decode(&form(&[comm(compression, channels, bits), ssnd(data)]));
        assert_eq!(out.lost_s, 0.0);
        out.samples.to_vec()
    };
    let ends = [-1.0, 32_767.0 / 32_768.0];

    assert_eq!(samples(b"NONE", 1, 8, &[0x80, 0, 64]), [-1.0, 0.0, 0.5]);
    assert_eq!(samples(b"NONE", 1, 16, &[0x80, 0, 0x7F, 0xFF]), ends);
    assert_eq!(samples(b"twos", 1, 12, &[0x80, 0, 0x40, 0]), [-1.0, 0.5]);
    assert_eq!(samples(b"sowt", 1, 16, &[0, 0x80, 0xFF, 0x7F]), ends);
    assert_eq!(
        samples(b"in24", 1, 24, &[0x80, 0, 0, 0, 0, 1]),
        [-1.0, 1.0 / 8_388_608.0]
    );
    assert_eq!(samples(b"NONE", 1, 32, &[0x40, 0, 0, 0]), [0.5]);
    assert_eq!(samples(b"raw ", 1, 8, &[0, 192]), [-1.0, 0.5]);

    assert_eq!(samples(b"fl32", 1, 32, &0.25_f32.to_be_bytes()), [0.25]);
    assert_eq!(samples(b"FL64", 1, 64, &(-1.5_f64).to_be_bytes()), [-1.5]);
    assert_eq!(samples(b"ulaw", 1, 8, &[0xFF]), [0.0]);
    assert_eq!(samples(b"alaw", 1, 8, &[0xD5]), [8.0 / 32_768.0]);
    assert_eq!(samples(b"NONE", 2, 16, &[0x40, 0, 0x20, 0, 0x40]), [0.375]);
}

#[test]
fn aiff_chunks_may_have_any_order_and_samples_an_offset() {
    // The samples begin 2 bytes after the numbers of their chunk.
    let mut sound = big_chunk(b"SSND", &[0, 0, 0, 2, 0, 0, 0, 0, 9, 9, 0x40, 0]);
    let common = comm(b"NONE", 1, 16);
    let out = decode(&form(&[sound.clone(), common.clone()]));
    assert_eq!((out.samples.to_vec(), out.lost_s), (vec![0.5], 0.0));

    // The file announces three samples and ends after the first one.
    sound[7] += 4;
    let out = decode(&form(&[common, sound]));
    assert!((out.lost_s - 2.0 / 44_100.0).abs() < 1e-9);
}

#[test]
fn broken_aiff_headers_are_rejects() {
    let reason = |chunks: &[Vec<u8>]| {
        let args = DecodeArgs {
            sample_rate_hz: 44_100,
            duration_s: None,
            min_duration_s: 0.0,
            keep_rate: false,
        };
        let mut decoder = FileDecoder::new(args, Level::Scalar).unwrap();
        let outcome = decoder.decode("", &form(chunks), &mut Pcm::default());
        outcome.unwrap_err().reason
    };
    let common = comm(b"NONE", 1, 16);
    let sound = ssnd(&[0; 8]);
    let mut no_rate = common.clone();
    no_rate[8 + 8..8 + 18].fill(0xFF);

    assert_eq!(reason(std::slice::from_ref(&sound)), Reason::NotAudio);
    assert_eq!(reason(std::slice::from_ref(&common)), Reason::NotAudio);
    assert_eq!(
        reason(&[common.clone(), big_chunk(b"SSND", &[0; 7])]),
        Reason::NotAudio
    );
    assert_eq!(
        reason(&[common.clone(), comm(b"NONE", 2, 16), sound.clone()]),
        Reason::NotAudio
    );
    assert_eq!(
        reason(&[comm(b"NONE", 9, 16), sound.clone()]),
        Reason::TooLarge
    );
    assert_eq!(
        reason(&[comm(b"ima4", 1, 16), sound.clone()]),
        Reason::UnsupportedCodec
    );
    assert_eq!(reason(&[no_rate, sound]), Reason::UnsupportedCodec);
    assert_eq!(reason(&[common, ssnd(&[])]), Reason::NoAudio);
}

#[test]
fn invalid_samples_silence_their_packet() {
    let mut data = 0.5_f32.to_le_bytes().repeat(3 * 1_152);
    data[4 * 1_200..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let out = decode(&riff(&[fmt(3, 1, 32), chunk(b"data", &data)]));
    assert_eq!(out.samples.len(), 3 * 1_152);
    assert_eq!(
        out.samples.iter().filter(|&&sample| sample == 0.5).count(),
        2 * 1_152
    );
    assert!((out.lost_s - 1_152.0 / 44_100.0).abs() < 1e-6);
}

#[test]
fn loudness_limit_applies_to_the_channel_mean() {
    for (left, right, want) in [
        (20.0_f32, 0.0_f32, (10.0, false)),
        (1_000.0, -1_000.0, (0.0, false)),
        (40.0, 0.0, (0.0, true)),
        (f32::INFINITY, f32::NEG_INFINITY, (0.0, true)),
    ] {
        let moment = [left.to_le_bytes(), right.to_le_bytes()].concat();
        let data = moment.repeat(1_152);
        let out = decode(&riff(&[fmt(3, 2, 32), chunk(b"data", &data)]));
        assert_eq!((out.samples[0], out.lost_s > 0.0), want, "{left}, {right}");
    }
}

/// Returns the lost seconds of a WAV file with 882 bytes of data, of which the header announces `n_announced`.
fn lost_s(n_announced: u32) -> f32 {
    let mut data = chunk(b"data", &[0; 882]);
    data[4..8].copy_from_slice(&n_announced.to_le_bytes());
    decode(&riff(&[fmt(1, 1, 16), data])).lost_s
}

#[test]
fn announced_length_is_limited_by_file_size() {
    assert_eq!(lost_s(882), 0.0);
    assert!((lost_s(8_820) - 0.09).abs() < 1e-6, "a file that broke off");
    assert_eq!(lost_s(8_822), 0.0);
    assert_eq!(lost_s(u32::MAX - 1), 0.0, "4 GB in a small file");
    assert_eq!(lost_s(u32::MAX), 0.0, "a writer that did not know");
}
