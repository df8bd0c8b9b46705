//! Compares the decoder with ffmpeg, mpg123 and libsndfile on the same files, including the ISO vectors.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use wavemill_decode::{Channels, Decode, DecodeArgs, FileDecoder, InputFacts, Pcm};
use wavemill_kernels::Level;
use wavemill_schemas::reject::{Reason, Reject};
use wavemill_tests::{Failed, Trial, real};

/// Index of the first compared sample, after four MPEG-1 frames. The decoders differ before it, because the bit
/// reservoir is missing.
const COMPARED_FROM: usize = 4_608;
/// Number of samples of a frame of MPEG-1.
const FRAME_SAMPLES: usize = 1_152;
/// Maximum absolute difference between the samples of two decoders. ffmpeg and mpg123 differ by up to 3.9e-6 on these
/// clips, also after two channels are averaged.
const VALUE_ABS_MAX: f32 = 1e-5;

/// Expected outcome for a file on which the three reference decoders differ, or wavemill differs from them on purpose.
pub(crate) enum Outcome {
    /// Number of samples at the file's own rate, and seconds lost.
    Row(usize, f32),
    /// The reason why the file is rejected.
    Reject(Reason),
}

use Outcome::{Reject as No, Row};
use Reason::{Empty, NoAudio, NotAudio, UnsupportedCodec};

const INFO_ONLY: &str = "an Info frame, no audio";
const LAYER: &str = "layer I or II";
const FREE: &str = "free format, which ffmpeg does not find";
const BROKEN_SIDE: &str = "side info broken on purpose: frames without their bits are silent";
const ONE_FRAME: &str =
    "one frame at 48 kHz (1,152 samples, here at 44.1), which the others leave out";
const CUT_FRAME: &str = "the last frame is cut: lost, where ffmpeg decodes what is there";

/// Expected outcomes that differ from the common sample count of all three reference decoders.
#[rustfmt::skip]
const OWN_OUTCOMES: [(&str, Outcome, &str); 45] = [
    ("fma_like_bad/099/099134.mp3", No(NoAudio), INFO_ONLY),
    ("fma_like_bad/108/108925.mp3", No(NoAudio), INFO_ONLY),
    ("fma_like_bad/133/133297.mp3", No(NoAudio), INFO_ONLY),
    ("mp3_conformance/layer3/l3-compl-cut.mp3", Row(1_059, 0.0), ONE_FRAME),
    ("mp3_conformance/layer3/l3-compl.bit", Row(248_832, 0.024), CUT_FRAME),
    ("mp3_conformance/layer3/l3-he_free.bit", Row(14_211, 0.0), FREE),
    ("mp3_conformance/layer3/l3-he_mode.bit", Row(147_456, 0.0), "mono and stereo mixed, where libsndfile stops"),
    ("mp3_conformance/layer3/l3-nonstandard-apetag.bit", Row(1_059, 0.0), ONE_FRAME),
    ("mp3_conformance/layer3/l3-nonstandard-big-iscf.bit", Row(4_234, 0.144), "a broken stream in free format"),
    ("mp3_conformance/layer3/l3-nonstandard-compl-sideinfo-bigvalues.bit", Row(248_832, 0.12), BROKEN_SIDE),
    ("mp3_conformance/layer3/l3-nonstandard-compl-sideinfo-blocktype.bit", Row(248_832, 0.12), BROKEN_SIDE),
    ("mp3_conformance/layer3/l3-nonstandard-compl-sideinfo-size.bit", Row(248_832, 0.108), BROKEN_SIDE),
    ("mp3_conformance/layer3/l3-nonstandard-he_44_48khz.bit", Row(631_080, 0.0), "44.1 and 48 kHz joined, here resampled to 44.1 kHz"),
    ("mp3_conformance/layer3/l3-nonstandard-id3v1-apetag.bit", Row(1_059, 0.0), ONE_FRAME),
    ("mp3_conformance/layer3/l3-nonstandard-id3v1.bit", Row(1_059, 0.0), ONE_FRAME),
    ("mp3_conformance/layer3/l3-nonstandard-id3v2-only.bit", No(NoAudio), "a tag, no audio"),
    ("mp3_conformance/layer3/l3-nonstandard-id3v2.bit", Row(192, 0.0), ONE_FRAME),
    ("mp3_conformance/layer3/l3-nonstandard-sideinfo-size.bit", No(UnsupportedCodec), FREE),
    ("mp3_conformance/layer3/l3-nonstandard-small.bit", No(NotAudio), "five bytes"),
    ("mp3_conformance/layer3/l3-nonstandard-vbrtag-corrupted.bit", No(NoAudio), INFO_ONLY),
    ("mp3_conformance/layer3/l3-nonstandard-vbrtag-empty.bit", No(NoAudio), INFO_ONLY),
    ("mp3_conformance/layer3/l3-nonstandard-vbrtag-noframes.bit", No(NoAudio), INFO_ONLY),
    ("mp3_conformance/layer3/l3-nonstandard-vbrtag-only.bit", No(NoAudio), INFO_ONLY),
    ("mp3_conformance/layer3/l3-nonstandard-vbrtag-oob-read.bit", No(NoAudio), INFO_ONLY),
    ("mp3_conformance/layer3/l3-sin1k0db.bit", Row(365_184, 0.0261), CUT_FRAME),
    ("mp3_conformance/layer3/l3-test45.bit", Row(473_472, 0.0), "libsndfile stops early"),
    ("mp3_conformance/other_layers/ILL2_layer1.bit", No(UnsupportedCodec), LAYER),
    ("mp3_conformance/other_layers/ILL2_mono.bit", No(UnsupportedCodec), LAYER),
    ("mp3_conformance/other_layers/ILL2_wrongcrc.bit", No(UnsupportedCodec), LAYER),
    ("mp3_conformance/other_layers/ILL4_sync.bit", No(UnsupportedCodec), LAYER),
    ("mp3_conformance/other_layers/ILL4_wrong_length1.bit", No(UnsupportedCodec), LAYER),
    ("mp3_conformance/other_layers/l1-fl1.bit", No(UnsupportedCodec), LAYER),
    ("mp3_conformance/other_layers/l1-fl7.bit", No(UnsupportedCodec), LAYER),
    ("mp3_conformance/other_layers/l2-fl10.bit", No(UnsupportedCodec), LAYER),
    ("mp3_conformance/other_layers/l2-fl13.bit", No(UnsupportedCodec), LAYER),
    ("mp3_conformance/other_layers/l2-nonstandard-free_format.bit", No(UnsupportedCodec), LAYER),
    ("mp3_conformance/other_layers/l2-test32.bit", No(UnsupportedCodec), LAYER),
    ("mp3_odd/apev2-lyricsv2.mp3", Row(85_295, 0.0261), "8,076 frames announced, 75 there: not believed; the last frame is cut"),
    ("mp3_odd/audacious-trailing-id32-apev2.mp3", Row(16_111, 0.0), "ffmpeg leaves a part of the padding"),
    ("mp3_odd/emptyfile.mp3", No(Empty), "no bytes"),
    ("mp3_odd/id3v22-test.mp3", Row(5_760, 0.0261), CUT_FRAME),
    ("mp3_odd/lame397v9short.mp3", No(NoAudio), "delay and padding are longer than the audio"),
    ("mp3_odd/xing.mp3", Row(89_856, 0.0261), CUT_FRAME),
    ("rate_variants/m1_44100_freeformat_200k.mp3", Row(352_800, 0.0), FREE),
    ("rate_variants/m1_44100_freeformat_400k.mp3", Row(352_800, 0.0), FREE),
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        real(
            "decode::sample_counts_are_those_of_ffmpeg_mpg123_and_libsndfile",
            sample_counts,
        ),
        real("decode::values_are_those_of_ffmpeg", values),
        real("decode::levels_of_odd_files_are_those_of_ffmpeg", levels),
        real("decode::folders_give_rows_or_explained_rejects", folders),
        real("decode::early_stop_keeps_hash_and_prefix", early_stop),
        real("decode::wav_is_exact", wav),
        real("decode::mutated_files_neither_panic_nor_give_nan", mutated),
        Trial::test("decode::tones_of_all_formats", tones),
        Trial::test("decode::channels_are_those_of_the_downmix", channels),
    ]
}

pub(crate) fn decoder(
    sample_rate_hz: u32,
    duration_s: Option<f64>,
    min_duration_s: f64,
) -> FileDecoder {
    FileDecoder::new(
        DecodeArgs {
            sample_rate_hz,
            duration_s,
            min_duration_s,
            keep_rate: false,
        },
        Level::detect(),
    )
    .unwrap()
}

/// Decodes a file, and checks that hashing without decoding gives the same hashes.
pub(crate) fn decode(decoder: &mut FileDecoder, path: &Path) -> Result<Pcm, Reject> {
    let bytes = fs::read(path).unwrap();
    let mut out = Pcm::default();
    let decoded = decoder.decode("mp3", &bytes, &mut out);
    let facts = InputFacts::read(&bytes);
    assert_eq!(facts.decode, out.decode_key, "{}", path.display());
    decoded?;
    let hash = facts.audio.map(|hash| hash.to_hex().to_string());
    assert_eq!(hash.as_ref(), Some(&out.audio_blake3), "{}", path.display());
    Ok(out)
}

fn expected(data: &Path) -> BTreeMap<String, Value> {
    serde_json::from_str(&fs::read_to_string(data.join("expected_decode.json")).unwrap()).unwrap()
}

fn sample_counts(data: &Path) -> Result<(), Failed> {
    let mut faults = Vec::new();
    for (name, reference) in expected(data) {
        let rate_hz = reference["sample_rate"]
            .as_u64()
            .filter(|&rate| rate > 0)
            .unwrap_or(44_100) as u32;
        let got = decode(&mut decoder(rate_hz, None, 0.0), &data.join(&name));

        let agreed = ["ffmpeg_frames", "mpg123_frames", "libsndfile_frames"]
            .map(|key| reference[key].as_u64());
        let want = match OWN_OUTCOMES.iter().find(|(own, ..)| *own == name) {
            Some((_, outcome, _)) => outcome,
            None if agreed[0] == agreed[1] && agreed[1] == agreed[2] => {
                &Row(agreed[0].unwrap() as usize, 0.0)
            }
            None => {
                return Err(
                    format!("{name}: the references differ and the table has no row").into(),
                );
            }
        };

        faults.extend(mismatch(&name, want, &got));
    }

    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("\n").into())
    }
}

pub(crate) fn mismatch(name: &str, want: &Outcome, got: &Result<Pcm, Reject>) -> Option<String> {
    let is_equal = match (want, got) {
        (Row(n_samples, lost_s), Ok(pcm)) => {
            pcm.samples.len() == *n_samples && (pcm.lost_s - lost_s).abs() < 1e-3
        }
        (No(reason), Err(reject)) => reject.reason == *reason,
        _ => false,
    };

    let got = match got {
        Ok(pcm) => format!(
            "row of {} samples, {:.4} s lost",
            pcm.samples.len(),
            pcm.lost_s
        ),
        Err(reject) => format!("{}: {}", reject.reason.name(), reject.detail),
    };

    (!is_equal).then(|| format!("{name}: {got}"))
}

fn values(data: &Path) -> Result<(), Failed> {
    let references = [
        ("000002", "audio/fma_real/000/000002.mp3", 44_100, 2),
        ("000005", "audio/fma_real/000/000005.mp3", 44_100, 2),
        ("200013", "fma_like/200/200013.mp3", 44_100, 2),
        ("299998", "fma_like/299/299998.mp3", 22_050, 2),
        (
            "mpeg1_48000_mono_64k",
            "rate_variants/mpeg1_48000_mono_64k.mp3",
            48_000,
            1,
        ),
    ];

    for (name, clip, rate_hz, n_channels) in references {
        let interleaved: Vec<f32> = fs::read(data.join(format!("decode_ref/{name}.f32le")))?
            .chunks_exact(4)
            .map(|sample| f32::from_le_bytes([sample[0], sample[1], sample[2], sample[3]]))
            .collect();
        let mono = interleaved
            .chunks_exact(n_channels)
            .map(|sample| sample.iter().sum::<f32>() / n_channels as f32);

        let got = decode(&mut decoder(rate_hz, Some(3.0), 1.0), &data.join(clip))
            .unwrap()
            .samples;
        assert_eq!(got.len(), 3 * rate_hz as usize, "{name}");

        for (at, (got, want)) in got.iter().zip(mono).enumerate().skip(COMPARED_FROM) {
            assert!(
                (got - want).abs() <= VALUE_ABS_MAX,
                "{name}, sample {at}: {got}, ffmpeg {want}"
            );
        }
    }
    Ok(())
}

/// Maximum error of a root mean square that is given with six digits.
const RMS_ABS_MAX: f64 = 1e-6;

/// Compares the root mean squares of eight parts of a file with those of ffmpeg 5.1, whose channels were mixed to their mean.
fn levels(data: &Path) -> Result<(), Failed> {
    let [mono, stereo] = [0.022098, 0.015626];
    let files = [
        // Middle and side with different block types.
        ("m1_ms_short_long.mp3", 200, [0.011049; 8]),
        (
            "m2_mono_then_stereo.mp3",
            320,
            [mono, mono, mono, stereo, stereo, stereo, stereo, stereo],
        ),
    ];

    for (name, n_frames, want) in files {
        let path = data.join("met").join(name);
        let pcm = decode(&mut decoder(44_100, None, 0.0), &path).unwrap();
        let n_samples = n_frames * FRAME_SAMPLES;
        assert_eq!((pcm.samples.len(), pcm.lost_s), (n_samples, 0.0), "{name}");

        let parts = pcm.samples.chunks(n_samples / want.len());
        for (at, (part, want)) in parts.zip(want).enumerate() {
            // The first frame has the overlap with the frames before it, which ffmpeg does not mix.
            let part = &part[FRAME_SAMPLES..];
            let squares = part.iter().map(|sample| f64::from(*sample).powi(2));
            let rms = (squares.sum::<f64>() / part.len() as f64).sqrt();
            assert!(
                (rms - want).abs() < RMS_ABS_MAX,
                "{name}: part {at} has {rms}, not {want}"
            );
        }
    }
    Ok(())
}

/// Decodes every clip of the test folders with a sample rate of 22,050 Hz and a minimum length of one second.
fn folders(data: &Path) -> Result<(), Failed> {
    let rejects: BTreeMap<&str, Reason> = FOLDER_REJECTS.into_iter().collect();
    let mut n_rejects = 0;
    let mut decoder = decoder(22_050, Some(30.0), 1.0);

    for path in [
        "audio",
        "fma_like",
        "fma_like_bad",
        "rate_variants",
        "mp3_odd",
    ]
    .iter()
    .flat_map(|f| mp3s(&data.join(f)))
    {
        let name = path.file_stem().unwrap().to_string_lossy();
        match (decode(&mut decoder, &path), rejects.get(name.as_ref())) {
            (Ok(pcm), None) => {
                assert_eq!(
                    pcm.samples.iter().all(|&x| x == 0.0),
                    name == "m1_44100_silence_128k",
                    "{name}"
                );
                assert!(
                    pcm.samples.len() <= 661_500 && pcm.audio_blake3.len() == 64,
                    "{name}"
                );
            }
            (Err(reject), Some(reason)) => {
                assert_eq!(reject.reason, *reason, "{name}: {}", reject.detail);
                n_rejects += 1;
            }
            (Ok(_), Some(reason)) => {
                return Err(format!("{name}: a row, not {}", reason.name()).into());
            }
            (Err(reject), None) => {
                return Err(format!("{name}: {}: {}", reject.reason.name(), reject.detail).into());
            }
        }
    }

    assert_eq!(n_rejects, rejects.len());
    Ok(())
}

/// Expected rejects of the test folders, each with its reason; all other files give rows.
const FOLDER_REJECTS: [(&str, Reason); 10] = [
    ("098567", Reason::TooShort),
    ("099134", Reason::NoAudio),
    ("108925", Reason::NoAudio),
    ("133297", Reason::NoAudio),
    ("bad-TYER-frame", Reason::TooShort),
    ("emptyfile", Reason::Empty),
    ("id3v22-test", Reason::Damaged),
    ("lame", Reason::TooShort),
    ("lame397v9short", Reason::NoAudio),
    ("no-tags", Reason::TooShort),
];

pub(crate) fn mp3s(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());

    let mut clips: Vec<_> = files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "mp3"))
        .collect();
    clips.extend(folders.iter().flat_map(|folder| mp3s(folder)));
    clips.sort();
    clips
}

fn early_stop(data: &Path) -> Result<(), Failed> {
    let clip = data.join("audio/fma_real/000/000182.mp3");
    let whole = decode(&mut decoder(22_050, None, 1.0), &clip).unwrap();
    let short = decode(&mut decoder(22_050, Some(2.5), 1.0), &clip).unwrap();

    assert_eq!(short.samples[..], whole.samples[..55_125]);
    assert_eq!(
        (short.audio_blake3, short.lost_s),
        (whole.audio_blake3, 0.0)
    );

    announced_loss(&clip);
    Ok(())
}

/// Removes 50,000 bytes after a fifth of a clip whose Info frame states its length. The loss must be detected even if
/// decoding stops early.
fn announced_loss(clip: &Path) {
    let mut bytes = fs::read(clip).unwrap();
    bytes.drain(200_000..250_000);

    let mut out = Pcm::default();
    decoder(44_100, None, 1.0)
        .decode("mp3", &bytes, &mut out)
        .unwrap();

    let n_missing = 1_323_119 - out.samples.len();
    assert!(
        (out.lost_s - n_missing as f32 / 44_100.0).abs() < 0.08,
        "{} s lost, {n_missing} samples",
        out.lost_s
    );

    decoder(44_100, Some(10.0), 1.0)
        .decode("mp3", &bytes, &mut out)
        .unwrap();
    assert!(out.lost_s > 0.0 && out.samples.len() == 441_000);

    bytes.truncate(400_000);
    decoder(44_100, None, 1.0)
        .decode("mp3", &bytes, &mut out)
        .unwrap();
    assert!(
        (f64::from(out.lost_s) + out.samples.len() as f64 / 44_100.0 - 30.0).abs() < 0.1,
        "{} s lost",
        out.lost_s
    );
}

fn wav(data: &Path) -> Result<(), Failed> {
    let path = data.join("librosa_ref/fma000002/input_22k_mono.wav");
    let bytes = fs::read(&path)?;
    let got = decode(&mut decoder(22_050, None, 1.0), &path).unwrap();

    let pcm = &bytes[bytes.len() - 2 * got.samples.len()..];
    for (got, want) in got.samples.iter().zip(pcm.chunks_exact(2)) {
        assert_eq!(
            *got,
            f32::from(i16::from_le_bytes([want[0], want[1]])) / 32_768.0
        );
    }

    let mut out = Pcm::default();
    decoder(22_050, None, 1.0)
        .decode("wav", &bytes[..200_000], &mut out)
        .unwrap();
    assert!(out.lost_s > 1.0, "a WAV cut short has lost audio");
    Ok(())
}

/// Files in `pipeline/decode/tests/data`, the number of samples that their encoder added at the start and at the end, and the
/// tolerance of the RMS of their errors. They contain tones of 440 Hz from ffmpeg's `sine`, 1.5 s at 32 kHz (Opus: at
/// 48 kHz), whose amplitude is 1/8 by ffmpeg's manual. AAC with ADTS headers does not state its delay.
const TONES: [(&str, [usize; 2], f64); 6] = [
    ("tone_32000_stereo.flac", [0, 0], 1e-4),
    ("tone_32000_mono.ogg", [0, 0], 0.003),
    ("tone_32000_alac.m4a", [0, 0], 1e-4),
    ("tone_32000_mono.m4a", [0, 0], 0.005),
    ("tone_32000_mono.aac", [1_024, 128], 0.005),
    ("tone_48000_mono.opus", [0, 0], 0.002),
];

fn tones() -> Result<(), Failed> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../decode/tests/data");

    for (name, [n_before, n_behind], tolerance) in TONES {
        let got = decode(&mut decoder(32_000, None, 1.0), &folder.join(name)).unwrap();
        let n_samples = n_before + 48_000 + n_behind;
        assert_eq!((got.samples.len(), got.lost_s), (n_samples, 0.0), "{name}");

        let tone = &got.samples[n_before..n_before + 48_000];
        let mut squares = 0.0;
        for (at, got) in tone.iter().enumerate() {
            let want = 0.125 * (std::f64::consts::TAU * 440.0 * at as f64 / 32_000.0).sin();
            squares += (f64::from(*got) - want).powi(2);
        }
        let rms = (squares / tone.len() as f64).sqrt();
        assert!(rms < tolerance, "{name}: RMS of the error {rms}");
    }
    Ok(())
}

fn channels() -> Result<(), Failed> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../decode/tests/data");

    for (name, n_channels) in [("tone_32000_stereo.flac", 2), ("tone_32000_mono.ogg", 1)] {
        let got = Channels::decode(&fs::read(folder.join(name))?, None).unwrap();
        let layout = (got.rate_hz, got.planes.len());
        assert_eq!(layout, (32_000, n_channels), "{name}");

        let mono = decode(&mut decoder(32_000, None, 1.0), &folder.join(name))
            .unwrap()
            .samples;
        let right = got.planes.last().unwrap();
        let pairs = got.planes[0].iter().zip(right);
        let mean: Vec<f32> = pairs.map(|(left, right)| (left + right) * 0.5).collect();
        assert!(mean == *mono, "{name}");
    }
    Ok(())
}

/// A deterministic pseudo-random number generator.
struct RandomNumbers(u64);

impl RandomNumbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % n.max(1)
    }
}

/// Applies seeded damage of every kind to the first 20 kB of real files. Each must be decoded to finite samples or
/// rejected.
fn mutated(data: &Path) -> Result<(), Failed> {
    let mut files: Vec<Vec<u8>> = mp3s(&data.join("rate_variants"))
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect();

    let tones = Path::new(env!("CARGO_MANIFEST_DIR")).join("../decode/tests/data");
    files.extend(TONES.map(|(name, ..)| fs::read(tones.join(name)).unwrap()));
    files.push(fs::read(
        data.join("librosa_ref/fma000002/input_22k_mono.wav"),
    )?);

    let mut random = RandomNumbers(0x2017);

    let mut decoders = [
        decoder(16_000, None, 0.0),
        decoder(16_000, None, 0.0).by_band(),
    ];
    let mut out = Pcm::default();

    for round in 0..2_000 {
        let mut bytes = files[random.below(files.len())].clone();
        bytes.truncate(20_000);

        for _ in 0..random.below(60) {
            let range = if random.below(4) == 0 {
                100
            } else {
                bytes.len()
            };
            let at = random.below(range);
            bytes[at] = random.below(256) as u8;
        }

        if random.below(3) == 0 {
            let from = random.below(bytes.len());
            let to = (from + random.below(3_000)).min(bytes.len());
            bytes.drain(from..to);
        }

        if random.below(3) == 0 {
            bytes.truncate(random.below(bytes.len()));
        }

        let facts = InputFacts::read(&bytes);
        for decoder in &mut decoders {
            let decoded = decoder.decode("", &bytes, &mut out);
            assert_eq!(facts.decode, out.decode_key, "round {round}");
            if decoded.is_ok() {
                assert!(
                    out.samples.iter().all(|sample| sample.is_finite()),
                    "round {round}"
                );
            }
        }
    }
    Ok(())
}
