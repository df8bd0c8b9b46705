//! Compares the layer III decoder with the reference output of the conformance test vectors, and with symphonia's
//! decoder on all available MP3 files. `WAVEMILL_SHOW_PARITY=1` prints the largest differences.

#![allow(missing_docs, clippy::unwrap_used)] // test code

mod broken;
mod joint;
mod mixes;
mod paths;
mod peer;
mod stream;

use std::fs;
use std::path::{Path, PathBuf};

use peer::Peer;
use stream::{Frame, Reservoir, Stream};
use wavemill_decode::layer3::{Band, FRAME_SAMPLES, FrameDecoder, MonoDecoder};
use wavemill_signal::Level;
use wavemill_tests::{Arguments, Failed, Trial};

/// Maximum difference from a reference: it is rounded to 16 bits, with an error of half a step, or of one step where it
/// is clipped at full scale.
const VECTOR_ABS_MAX: f32 = 1.02 / 32_768.0;
/// Maximum difference from symphonia's samples, relative for samples louder than full scale. Both decoders round in
/// f32, but in different orders.
const PEER_MAX: f32 = 1e-5;

/// Maximum difference between the mean of channels mixed before the transforms and the mean of channels mixed after.
const MONO_MAX: f32 = 2e-6;

/// Conformance vectors with a reference that begins with their first frame and ends at most one frame early. Not
/// included: vectors of sine waves, whose references begin elsewhere, and streams that are broken on purpose.
const VECTORS: [&str; 16] = [
    "M2L3_bitrate_16_all",
    "M2L3_bitrate_22_all",
    "M2L3_bitrate_24_all",
    "M2L3_compl24",
    "M2L3_noise",
    "l3-compl",
    "l3-he_32khz",
    "l3-he_44khz",
    "l3-he_48khz",
    "l3-he_mode",
    "l3-hecommon",
    "l3-si",
    "l3-si_block",
    "l3-si_huff",
    "l3-test45",
    "l3-test46",
];

/// Files for which symphonia 0.6.1 differs from the reference: mixed blocks, intensity stereo of MPEG-2, joint stereo whose
/// channels have different block types.
const NOT_AS_PEER: [&str; 4] = [
    "l3-si_block.bit",
    "l3-test45.bit",
    "l3-test46.bit",
    "m1_ms_short_long.mp3",
];

fn main() {
    let args = Arguments::from_args();

    let mut trials = Vec::new();
    for vector in VECTORS {
        let name = format!("mp3::vectors::{vector}");
        trials.push(wavemill_tests::real(&name, move |data| {
            is_the_reference(data, vector)
        }));
    }

    trials.push(wavemill_tests::real(
        "mp3::samples_are_symphonias",
        all_are_symphonias,
    ));
    trials.push(wavemill_tests::real("mp3::mono_is_the_mean", all_are_means));
    trials.push(wavemill_tests::real(
        "mp3::joint_stereo_may_be_left_and_right",
        joint::may_be_left_and_right,
    ));
    trials.push(wavemill_tests::real(
        "mp3::middle_and_side_keep_their_windows",
        joint::middle_and_side_keep_their_windows,
    ));
    trials.push(Trial::test(
        "mp3::joint_stereo_of_all_mixed_blocks_is_that_of_ffmpeg",
        mixes::have_the_samples_of_ffmpeg,
    ));
    trials.push(wavemill_tests::real(
        "mp3::broken_frames_and_files_do_no_harm",
        are_broken,
    ));

    wavemill_tests::run(&args, trials).exit();
}

fn stream() -> Stream {
    Stream::new(FrameDecoder::new(Level::detect()).unwrap())
}

fn is_the_reference(data: &Path, vector: &str) -> Result<(), Failed> {
    let folder = data.join("mp3_conformance/layer3");
    let file = fs::read(folder.join(format!("{vector}.bit")))?;
    let reference = fs::read(folder.join(format!("{vector}.pcm.zst")))?;
    let reference = zstd::decode_all(&reference[..])?;
    let mut reference = reference
        .as_chunks::<2>()
        .0
        .iter()
        .map(|bytes| f32::from(i16::from_le_bytes(*bytes)) / 32_768.0);

    let mut stream = stream();
    let mut most = 0.0_f32;
    let mut n_compared = 0;
    for frame in stream::frames(&file) {
        let planes = stream.decode(&frame)?;
        for at in 0..planes[0].len() {
            for plane in &planes {
                // The references of some vectors are one frame shorter than the decoded output.
                let Some(want) = reference.next() else {
                    continue;
                };

                // 16-bit samples only go up to one step below full scale.
                let got = plane[at].clamp(-1.0, 32_767.0 / 32_768.0);
                most = most.max((got - want).abs());
                n_compared += 1;
            }
        }
    }

    show(vector, most);
    if n_compared < 1_000 || reference.next().is_some() {
        return Err(format!("{n_compared} samples compared").into());
    }
    if most > VECTOR_ABS_MAX {
        return Err(format!("differs by {most}").into());
    }
    Ok(())
}

fn all_are_symphonias(data: &Path) -> Result<(), Failed> {
    let mut n_frames = 0;
    let mut faults = Vec::new();
    for path in files(data) {
        let file = fs::read(&path)?;
        let frames = stream::frames(&file);
        n_frames += frames.len();

        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if NOT_AS_PEER.contains(&&*name) {
            continue;
        }

        let most = beside_symphonia(&frames)?;
        show(&name, most);
        if most > PEER_MAX {
            faults.push(format!("{}: differs by {most}", path.display()));
        }
    }

    assert!(n_frames > 10_000, "{n_frames} frames");
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("\n").into())
    }
}

fn all_are_means(data: &Path) -> Result<(), Failed> {
    let mut most_of_all = 0.0_f32;
    for path in files(data) {
        let file = fs::read(&path)?;
        let most = beside_the_mean(&stream::frames(&file))?;
        if most > MONO_MAX {
            return Err(format!("{}: differs by {most}", path.display()).into());
        }
        most_of_all = most_of_all.max(most);
    }

    show("mono", most_of_all);
    // If no sample differed, nothing was compared: mono and stereo decoder cannot round identically everywhere.
    assert!(most_of_all > 0.0);
    Ok(())
}

/// Returns the largest difference between the mono decoder's samples and the mean of both channels, relative for
/// samples louder than full scale. Fails if only one of the decoders fails.
fn beside_the_mean(frames: &[Frame]) -> Result<f32, Failed> {
    let mut stream = stream();
    let mut decoder = MonoDecoder::new(Band::WHOLE, Level::detect())?;
    let mut reservoir = Reservoir::default();
    let mut mono = [0.0; FRAME_SAMPLES];
    let mut most = 0.0_f32;

    for (at, frame) in frames.iter().enumerate() {
        // Skip the frame: with one decoder per channel, a channel that disappears and returns keeps its old overlap.
        if frame.header.n_channels() != frames[0].header.n_channels() {
            continue;
        }

        let got = reservoir.feed(frame, |side, main| {
            decoder.decode(&frame.header, side, main, 0, &mut mono)
        });
        match (got, stream.decode(frame)) {
            (Ok(n), Ok(want)) => {
                let left = want[0];
                let right = want.get(1).unwrap_or(&left);
                assert_eq!(n, left.len());
                for (got, (left, right)) in mono.iter().zip(left.iter().zip(*right)) {
                    let loudest = left.abs().max(right.abs()).max(1.0);
                    most = most.max((got - (left + right) * 0.5).abs() / loudest);
                }
            }
            (Err(got), Err(want)) => assert_eq!(got, want),
            (got, want) => return Err(format!("frame {at}: {got:?}, not {:?}", want.err()).into()),
        }
    }

    Ok(most)
}

/// Returns the largest difference from symphonia's samples. Fails if only one of the decoders fails.
fn beside_symphonia(frames: &[Frame]) -> Result<f32, Failed> {
    let Some(first) = frames.first() else {
        return Ok(0.0);
    };

    let mut stream = stream();
    let mut peer = Peer::new();
    let mut most = 0.0_f32;

    for (at, frame) in frames.iter().enumerate() {
        // Skip the frame: symphonia keeps the rate and the channels of the first frame.
        if frame.rate_hz != first.rate_hz || frame.header.n_channels() != first.header.n_channels()
        {
            continue;
        }

        match (stream.decode(frame), peer.decode(frame.bytes)) {
            (Ok(got), Some(want)) => {
                for (got, want) in got.iter().zip(&want) {
                    assert_eq!(got.len(), want.len());
                    for (got, want) in got.iter().zip(want) {
                        most = most.max((got - want).abs() / want.abs().max(1.0));
                    }
                }
            }
            (Err(_), None) => {}
            (got, want) => {
                let peer = want.is_some();
                return Err(
                    format!("frame {at}: {:?}, symphonia decodes: {peer}", got.err()).into(),
                );
            }
        }
    }

    Ok(most)
}

fn are_broken(data: &Path) -> Result<(), Failed> {
    let mut bytes = Vec::new();
    for path in files(data) {
        bytes.push(fs::read(&path)?);
    }
    broken::do_no_harm(&bytes);
    Ok(())
}

fn show(name: &str, most: f32) {
    if std::env::var_os("WAVEMILL_SHOW_PARITY").is_some() {
        println!("{name}: {most:.1e}");
    }
}

/// Returns the paths of all MP3 files in the test data folder, sorted.
fn files(data: &Path) -> Vec<PathBuf> {
    let mut folders = vec![data.to_owned()];
    let mut files = Vec::new();

    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|end| end == "mp3" || end == "bit")
            {
                files.push(path);
            }
        }
    }

    files.sort();
    files
}
