//! Decodes files whose sample rate or channels change, and compares them with their parts.

use wavemill_signal::Level;

use crate::testing::adts::aac_frames;
use crate::testing::bits::BitWriter;
use crate::testing::n_lost;
use crate::{Channels, Decode, DecodeArgs, FileDecoder, InputFacts, Pcm, longest_s};

/// The format of MP3 frames of 128 kbit/s.
#[derive(Clone, Copy)]
struct Mp3 {
    header: [u8; 4],
    frame_bytes: usize,
    rate_hz: u32,
}

const MONO_44100: Mp3 = Mp3 {
    header: [0xFF, 0xFB, 0x90, 0xC0],
    frame_bytes: 417,
    rate_hz: 44_100,
};
const STEREO_44100: Mp3 = Mp3 {
    header: [0xFF, 0xFB, 0x90, 0x00],
    ..MONO_44100
};
const STEREO_48000: Mp3 = Mp3 {
    header: [0xFF, 0xFB, 0x94, 0x00],
    frame_bytes: 384,
    rate_hz: 48_000,
};
const MONO_22050: Mp3 = Mp3 {
    header: [0xFF, 0xF3, 0xC0, 0xC0],
    frame_bytes: 417,
    rate_hz: 22_050,
};

impl Mp3 {
    fn is_mpeg1(self) -> bool {
        self.header[1] == 0xFB
    }

    fn n_samples(self) -> usize {
        if self.is_mpeg1() { 1_152 } else { 576 }
    }

    /// Returns a frame of noise, which is equal in both channels.
    fn frame(self, number: u32) -> Vec<u8> {
        let n_channels = if self.header[3] >> 6 == 3 { 1 } else { 2 };
        let n_granules = if self.is_mpeg1() { 2 } else { 1 };
        let mut bits = BitWriter::default();
        // The main data begin in the frame; private bits; no shared scale factors.
        match (self.is_mpeg1(), n_channels) {
            (true, 1) => bits.write(0, 9 + 5 + 4),
            (true, _) => bits.write(0, 9 + 3 + 8),
            (false, 1) => bits.write(0, 8 + 1),
            (false, _) => bits.write(0, 8 + 2),
        }
        for _ in 0..n_granules * n_channels {
            // Size in bits, number of line pairs, gain, scale factors of zero bits, long blocks.
            bits.write(600, 12);
            bits.write(80, 9);
            bits.write(180, 8);
            bits.write(0, if self.is_mpeg1() { 4 } else { 9 } + 1);
            // Huffman table 1, in which every bit sequence is valid, and the ends of the regions.
            bits.write(1, 5);
            bits.write(1, 5);
            bits.write(1, 5);
            bits.write(5, 4);
            bits.write(3, 3);
            bits.write(0, if self.is_mpeg1() { 3 } else { 2 });
        }

        for granule in 0..n_granules {
            for _ in 0..n_channels {
                let mut state = 2 * number + granule + 1;
                for _ in 0..600 / 4 {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    bits.write(state >> 28, 4);
                }
            }
        }
        let mut frame = [&self.header[..], &bits.bytes].concat();
        frame.resize(self.frame_bytes, 0);
        frame
    }

    fn frames(self, numbers: std::ops::Range<u32>) -> Vec<u8> {
        numbers.flat_map(|number| self.frame(number)).collect()
    }
}

fn args(sample_rate_hz: u32, duration_s: Option<f64>) -> DecodeArgs {
    DecodeArgs {
        sample_rate_hz,
        duration_s,
        min_duration_s: 0.0,
        keep_rate: false,
    }
}

fn decoder(args: DecodeArgs) -> FileDecoder {
    FileDecoder::new(args, Level::Scalar).unwrap()
}

/// Decodes a file. Checks that its length is that which is measured, and within the bound, and that its key is that which
/// is found without decoding.
fn decode(decoder: &mut FileDecoder, file: &[u8]) -> Pcm {
    let mut out = Pcm::default();
    let measured = decoder.measure("", file, &mut out).unwrap();
    decoder.decode("", file, &mut out).unwrap();
    assert!((measured - f64::from(out.duration_s)).abs() < 1e-4);
    assert!(longest_s(file) >= measured - 1e-4);
    assert_eq!(InputFacts::read(file).decode, out.decode_key);
    out
}

/// A file and its sample rate.
type Part<'a> = (&'a [u8], u32);

/// Checks that joined files decode to the samples of their parts, each of a rate of its own.
fn is_the_sum(parts: &[Part]) {
    let whole: Vec<u8> = parts.iter().flat_map(|(file, _)| file.to_vec()).collect();
    for rate_hz in [44_100, 22_050, 16_000] {
        let kept = decoder(DecodeArgs {
            keep_rate: true,
            ..args(rate_hz, None)
        });
        let plain = decoder(args(rate_hz, None));
        let by_band = decoder(args(rate_hz, None)).by_band();
        for (name, mut joined, mut alone) in [
            ("plain", plain, decoder(args(rate_hz, None))),
            ("kept", kept, decoder(args(rate_hz, None))),
            ("by band", by_band, decoder(args(rate_hz, None)).by_band()),
        ] {
            let got = decode(&mut joined, &whole);
            let mut want = Vec::new();
            let mut end_s = 0.0;
            for (part, own_hz) in parts {
                // Each part has whole samples, but the next one begins at the nearest sample.
                let n_exact = (end_s * f64::from(rate_hz)).round() as usize;
                assert!((0..=1).contains(&(want.len() - n_exact)), "{n_exact}");
                want.truncate(n_exact);

                want.extend_from_slice(&decode(&mut alone, part).samples);
                let n_own = decode(&mut decoder(args(*own_hz, None)), part).n_samples;
                end_s += n_own as f64 / f64::from(*own_hz);
            }

            let what = format!("{name}, {rate_hz} Hz");
            assert_eq!((got.rate_hz, got.lost_s), (rate_hz, 0.0), "{what}");
            assert_eq!(got.samples.len(), want.len(), "{what}");
            assert_eq!(got.n_samples, want.len(), "{what}");
            let differs = got
                .samples
                .iter()
                .zip(&want)
                .position(|(got, want)| got != want);
            assert_eq!(differs, None, "{what}");

            // A clip that is cut within a later part begins in the same way.
            let cut_s = 0.7 * f64::from(got.duration_s);
            let cut = decode(&mut decoder(args(rate_hz, Some(cut_s))), &whole);
            if name == "plain" {
                assert_eq!(cut.n_samples, (cut_s * f64::from(rate_hz)).round() as usize);
                assert!(cut.samples[..] == got.samples[..cut.n_samples], "{what}");
            }
        }
    }
}

#[test]
fn joined_mp3_files_of_several_rates_lose_nothing() {
    let formats = [MONO_44100, STEREO_48000, MONO_22050];
    let files = formats.map(|format| format.frames(0..40));
    for order in [[0, 1, 2], [1, 0, 1], [2, 1, 0], [0, 2, 0]] {
        is_the_sum(&order.map(|at| (&files[at][..], formats[at].rate_hz)));
    }
}

#[test]
fn joined_adts_and_ogg_files_of_several_rates_lose_nothing() {
    let aac: Part = (include_bytes!("../tests/data/tone_32000_mono.aac"), 32_000);
    let silence = aac_frames(0..60);
    is_the_sum(&[aac, (&silence, 44_100), aac]);
    is_the_sum(&[(&silence, 44_100), aac]);

    let vorbis: Part = (include_bytes!("../tests/data/tone_32000_mono.ogg"), 32_000);
    let opus: Part = (include_bytes!("../tests/data/tone_48000_mono.opus"), 48_000);
    is_the_sum(&[vorbis, opus]);
    is_the_sum(&[opus, vorbis]);
}

/// Both channels of the frames are equal, so that mono frames in their place make no difference, not even at the changes.
#[test]
fn mp3_frames_of_mono_and_stereo_follow_each_other() {
    let stereo = [STEREO_44100.frames(10..25), STEREO_44100.frames(60..64)];
    let mixed = [
        MONO_44100.frames(0..10),
        stereo[0].clone(),
        MONO_44100.frames(25..60),
        stereo[1].clone(),
    ];
    let want = decode(&mut decoder(args(44_100, None)), &MONO_44100.frames(0..64));
    let got = decode(&mut decoder(args(44_100, None)), &mixed.concat());
    assert_eq!((got.n_samples, got.lost_s), (64 * 1_152, 0.0));
    assert!(got.samples[..] == want.samples[..]);

    // Changes from frame to frame, which too few frames confirm at the end.
    let by_turns: Vec<u8> = (0..64)
        .flat_map(|number| [MONO_44100, STEREO_44100][number as usize % 2].frame(number))
        .collect();
    let got = decode(&mut decoder(args(44_100, None)), &by_turns);
    assert_eq!(
        (got.n_samples, n_lost(&got, 44_100)),
        (64 * 1_152, 4 * 1_152)
    );
    assert!(got.samples[..56 * 1_152] == want.samples[..56 * 1_152]);
}

#[test]
fn mp3_frame_with_a_damaged_channel_mode_is_lost() {
    let mut file = STEREO_44100.frames(0..30);
    file[12 * STEREO_44100.frame_bytes + 3] |= 0xC0;
    let out = decode(&mut decoder(args(44_100, None)), &file);
    assert_eq!((out.n_samples, n_lost(&out, 44_100)), (30 * 1_152, 1_152));
    assert!(
        out.samples[12 * 1_152..13 * 1_152]
            .iter()
            .all(|sample| *sample == 0.0)
    );
}

#[test]
fn channels_of_joined_files_have_one_rate() {
    let [first, second] = [STEREO_48000, MONO_44100];
    let file = [first.frames(0..40), second.frames(0..20)].concat();
    let channels = Channels::decode(&file, None).unwrap();
    assert_eq!((channels.rate_hz, channels.planes.len()), (48_000, 2));
    let n_second = (20 * second.n_samples()) as f64 * 48_000.0 / f64::from(second.rate_hz);
    let n_samples = 40 * first.n_samples() + n_second.ceil() as usize;
    let [left, right] = &channels.planes[..] else {
        panic!("two channels")
    };
    assert_eq!(left.len(), n_samples);
    assert_eq!(left, right);

    // The mean is converted in the same way.
    let mean = decode(&mut decoder(args(48_000, None)), &file);
    for (at, (left, mean)) in left.iter().zip(mean.samples.iter()).enumerate() {
        assert!((left - mean).abs() < 1e-5, "{at}: {left}, {mean}");
    }
    assert_eq!(Channels::inspect(&file).unwrap().rate_hz, 48_000);
}
