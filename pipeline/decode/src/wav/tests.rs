//! Tests of all sample formats of WAV and AIFF, and of announced lengths.

use wavemill_schemas::reject::Reason;
use wavemill_signal::Level;

use crate::testing::wav::{
    big_chunk, chunk, comm, fmt, form, riff, riff_named, rifx, ssnd, with_size,
};
use crate::{Channels, Decode, DecodeArgs, FileDecoder, Pcm, testing};

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

/// QuickTime's `wave` chunk states the byte order. Its boxes are those of the file `a2_fl32_little.aifc` of the tests.
#[test]
fn little_endian_aiff_is_not_noise() {
    let wave = |is_little: u8, compression: &[u8; 4]| {
        let boxes = [
            &[0, 0, 0, 12][..],
            b"frma",
            compression,
            &[0, 0, 0, 10],
            b"enda",
            &[0, is_little],
            &[0, 0, 0, 8, 0, 0, 0, 0],
        ];
        big_chunk(b"wave", &boxes.concat())
    };
    // Samples of 0.25 in big-endian order.
    let formats = [
        (b"twos", b"sowt", 16, 0x2000_i16.to_be_bytes().to_vec()),
        (b"in24", b"42ni", 24, vec![0x20, 0, 0]),
        // As libsndfile spells it.
        (b"in24", b"42n1", 24, vec![0x20, 0, 0]),
        (b"in32", b"23ni", 32, vec![0x20, 0, 0, 0]),
        (b"fl32", b"23lf", 32, 0.25_f32.to_be_bytes().to_vec()),
        (b"fl64", b"46lf", 64, 0.25_f64.to_be_bytes().to_vec()),
    ];
    for (forwards, backwards, bits, big) in formats {
        let little: Vec<u8> = big.iter().rev().copied().collect();
        let cases = [
            (forwards, None, &big),
            (forwards, Some(0), &big),
            (forwards, Some(1), &little),
            (backwards, None, &little),
            (backwards, Some(1), &little),
        ];
        for (compression, order, data) in cases {
            let order = order.map(|order| wave(order, compression));
            let chunks = [
                order.unwrap_or_default(),
                ssnd(&data.repeat(3)),
                comm(compression, 1, bits),
            ];
            let out = decode(&form(&chunks));
            let name = compression.escape_ascii();
            assert_eq!(
                (&out.samples[..], out.lost_s),
                (&[0.25; 3][..], 0.0),
                "{name}"
            );
        }
    }
}

#[test]
fn big_endian_wave_is_decoded() {
    let plain = |tag, n_channels: u64, bits: u64| {
        let block_bytes = n_channels * bits / 8;
        let rate_hz = 44_100;
        vec![
            (tag, 2),
            (n_channels, 2),
            (rate_hz, 4),
            (rate_hz * block_bytes, 4),
            (block_bytes, 2),
            (bits, 2),
        ]
    };
    let samples = |numbers: &[(u64, usize)], data: &[u8]| {
        let out = decode(&rifx(numbers, data));
        assert_eq!(out.lost_s, 0.0);
        out.samples.to_vec()
    };

    assert_eq!(samples(&plain(1, 1, 8), &[0, 192]), [-1.0, 0.5]);
    assert_eq!(samples(&plain(1, 2, 16), &[0x40, 0, 0x20, 0]), [0.375]);
    assert_eq!(samples(&plain(1, 1, 24), &[0x40, 0, 0]), [0.5]);
    assert_eq!(samples(&plain(1, 1, 32), &[0x40, 0, 0, 0]), [0.5]);
    assert_eq!(samples(&plain(3, 1, 32), &0.25_f32.to_be_bytes()), [0.25]);
    assert_eq!(samples(&plain(3, 1, 64), &0.25_f64.to_be_bytes()), [0.25]);
    assert_eq!(samples(&plain(7, 1, 8), &[0xFF]), [0.0]);

    // An extensible chunk as sox writes it.
    let mut extensible = plain(0xFFFE, 1, 24);
    extensible.extend([(22, 2), (24, 2), (3, 4), (1, 2)]);
    extensible.extend([(0, 4), (0x1000_8000, 4), (0x00AA_0038, 4), (0x9B71, 2)]);
    assert_eq!(samples(&extensible, &[0x40, 0, 0]), [0.5]);
}

#[test]
fn sizes_of_64_bits_are_read() {
    let ds64 = |data_bytes: u64| {
        let numbers = [0, data_bytes, 0].map(u64::to_le_bytes);
        chunk(b"ds64", &[&numbers.concat()[..], &[0; 4]].concat())
    };
    let data = with_size(chunk(b"data", &[0; 882]), u32::MAX);
    let lost_s = |name, data_bytes| {
        let chunks = [ds64(data_bytes), fmt(1, 1, 16), data.clone()];
        let out = decode(&riff_named(name, &chunks));
        assert_eq!(out.samples.len(), 441);
        out.lost_s
    };
    for name in [b"RF64", b"BW64"] {
        assert_eq!(lost_s(name, 882), 0.0);
        assert!(
            (lost_s(name, 8_820) - 0.09).abs() < 1e-6,
            "a file that broke off"
        );
        for unknown in [0, u64::from(u32::MAX), i64::MAX as u64, u64::MAX] {
            assert_eq!(lost_s(name, unknown), 0.0, "{unknown}");
        }
    }
}

#[test]
fn audio_after_an_unknown_size_is_decoded() {
    for size in [0, 0x7FFF_F000, 0x7FFF_EFFC, 0x8000_0024, u32::MAX] {
        let data = with_size(chunk(b"data", &[0; 882]), size);
        let out = decode(&riff(&[fmt(1, 1, 16), data]));
        assert_eq!((out.samples.len(), out.lost_s), (441, 0.0), "{size:#x}");
    }
    // As ffmpeg and sox write AIFF to a pipe; the header of the samples takes eight bytes.
    for size in [0_u32, 8, 0x7F00_0004, 0x7F00_0008] {
        let mut sound = ssnd(&[0; 882]);
        sound[4..8].copy_from_slice(&size.to_be_bytes());
        let out = decode(&form(&[comm(b"NONE", 1, 16), sound]));
        assert_eq!((out.samples.len(), out.lost_s), (441, 0.0), "{size:#x}");
    }
}

#[test]
fn all_channels_and_rates_are_decoded_to_the_mean() {
    // Samples of 0.5, except in the last channel.
    for n_channels in [3_u16, 5, 6, 8] {
        let mut moment = [0, 0x40].repeat(usize::from(n_channels));
        moment[2 * usize::from(n_channels) - 1] = 0;
        let part = f32::from(n_channels - 1) / f32::from(n_channels);
        let sounds = [
            riff(&[fmt(1, n_channels, 16), chunk(b"data", &moment.repeat(3))]),
            form(&[comm(b"sowt", n_channels, 16), ssnd(&moment.repeat(3))]),
        ];
        for file in sounds {
            assert_eq!(decode(&file).samples[..], [0.5 * part; 3]);
            let channels = Channels::decode(&file, None).unwrap();
            assert_eq!(channels.planes.len(), usize::from(n_channels));
            assert_eq!(channels.planes[0], [0.5; 3]);
        }
    }

    for rate_hz in [176_400_u32, 192_000, 352_800, 384_000] {
        let mut fmt = fmt(1, 1, 16);
        fmt[12..16].copy_from_slice(&rate_hz.to_le_bytes());
        fmt[16..20].copy_from_slice(&(2 * rate_hz).to_le_bytes());
        let data = [0, 0x40].repeat(rate_hz as usize);
        let file = riff(&[fmt, chunk(b"data", &data)]);
        let out = decode(&file);
        assert_eq!(
            (out.samples.len(), out.lost_s),
            (44_100, 0.0),
            "{rate_hz} Hz"
        );
        assert!((out.samples[22_050] - 0.5).abs() < 1e-6);

        // A device converts no such rate, so that its memory does not depend on the rate.
        let args = DecodeArgs {
            sample_rate_hz: 44_100,
            duration_s: None,
            min_duration_s: 0.0,
            keep_rate: true,
        };
        let mut kept = Pcm::default();
        let mut decoder = FileDecoder::new(args, Level::Scalar).unwrap();
        decoder.decode("", &file, &mut kept).unwrap();
        assert_eq!(kept.rate_hz, 44_100);
        assert!(kept.samples[..] == out.samples[..]);
    }
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
        let outcome = testing::decode(&form(chunks), 44_100, &mut Pcm::default());
        outcome.unwrap_err().reason
    };
    let common = comm(b"NONE", 1, 16);
    let sound = ssnd(&[0; 8]);
    let mut no_rate = common.clone();
    no_rate[8 + 8..8 + 18].fill(0xFF);

    assert_eq!(reason(std::slice::from_ref(&sound)), Reason::NotAudio);
    assert_eq!(reason(std::slice::from_ref(&common)), Reason::NotAudio);
    let short = big_chunk(b"SSND", &[0; 7]);
    assert_eq!(reason(&[common.clone(), short]), Reason::NotAudio);
    let other = comm(b"NONE", 2, 16);
    let twice = [common.clone(), other, sound.clone()];
    assert_eq!(reason(&twice), Reason::NotAudio);
    for (header, wanted) in [
        (comm(b"NONE", 9, 16), Reason::TooLarge),
        (comm(b"ima4", 1, 16), Reason::UnsupportedCodec),
        (no_rate, Reason::UnsupportedCodec),
    ] {
        assert_eq!(reason(&[header, sound.clone()]), wanted);
    }
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
    let data = with_size(chunk(b"data", &[0; 882]), n_announced);
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
