//! Tests of joint stereo whose channels have different window shapes. Few encoders write such frames, so these tests
//! reinterpret plain stereo frames as joint stereo.

use std::fs;
use std::path::Path;

use wavemill_decode::layer3::{FrameHeader, Mode, Version};
use wavemill_tests::Failed;

use crate::stream::{self, Frame};
use crate::{MONO_MAX, PEER_MAX, beside_the_mean, files, show, stream as new_stream};

/// Number of frames at the start that are not compared: a file that was cut out of a stream begins with frames that
/// refer back to missing data, and decoders treat these differently.
const N_COLD: usize = 4;

/// Checks that a joint stereo frame without jointly coded bands decodes like plain stereo, even if the windows of its
/// channels differ.
pub(crate) fn may_be_left_and_right(data: &Path) -> Result<(), Failed> {
    let mut n_frames = 0;
    for path in files(data) {
        let file = fs::read(&path)?;
        let mut as_stereo = new_stream();
        let mut as_joint = new_stream();

        for frame in stream::frames(&file) {
            if frame.header.mode != Mode::Stereo {
                continue;
            }
            let mut joint = frame;
            joint.header.mode = Mode::Joint {
                mid_side: false,
                intensity: false,
            };
            n_frames += 1;
            if as_stereo.decode(&frame) != as_joint.decode(&joint) {
                return Err(format!("{}: frames differ", path.display()).into());
            }
        }
    }
    assert!(n_frames > 1_000, "{n_frames} frames");
    Ok(())
}

/// Checks middle and side with different windows, using left and right channels reinterpreted as middle and side. They
/// are mixed line by line, and then each channel is transformed with its own windows, as in nanomp3, whose arithmetic
/// is minimp3's. The mono decoder's result must be the mean of both channels.
pub(crate) fn middle_and_side_keep_their_windows(data: &Path) -> Result<(), Failed> {
    let mut n_unequal = 0;
    let mut most = 0.0_f32;
    for path in files(data) {
        let file = fs::read(&path)?;
        let stereo = stream::frames(&file);
        if stereo.iter().any(|frame| frame.header.mode != Mode::Stereo) {
            continue;
        }

        let joined: Vec<Vec<u8>> = stereo.iter().map(joined).collect();
        let frames: Vec<Frame> = stereo
            .iter()
            .zip(&joined)
            .map(|(frame, bytes)| Frame {
                header: FrameHeader::parse(*bytes.first_chunk().unwrap()).unwrap(),
                bytes,
                ..*frame
            })
            .collect();
        n_unequal += frames
            .iter()
            .filter(|frame| has_unequal_windows(frame))
            .count();

        most = most.max(beside_nanomp3(&frames)?);
        let mono = beside_the_mean(&frames)?;
        if mono > MONO_MAX {
            return Err(format!("{}: mono differs by {mono}", path.display()).into());
        }
    }

    show("middle and side with unequal windows", most);
    assert!(n_unequal > 100, "{n_unequal} frames");
    if most > PEER_MAX {
        return Err(format!("differs by {most}").into());
    }
    Ok(())
}

/// Returns the bytes of a stereo frame, with its header changed to middle/side.
fn joined(frame: &Frame) -> Vec<u8> {
    let mut bytes = frame.bytes.to_vec();
    bytes[3] = bytes[3] & 0x0F | 0b0110_0000;
    bytes
}

/// Decodes frames of two channels and returns the largest difference from nanomp3's samples.
fn beside_nanomp3(frames: &[Frame]) -> Result<f32, Failed> {
    let mut stream = new_stream();
    let mut peer = nanomp3::Decoder::new();
    let mut wanted = [0.0_f32; nanomp3::MAX_SAMPLES_PER_FRAME];
    let mut most = 0.0_f32;

    for (at, frame) in frames.iter().enumerate() {
        let (_, peers) = peer.decode(frame.bytes, &mut wanted);
        let planes = match (stream.decode(frame), peers) {
            (Ok(planes), Ok(_)) => planes,
            (got, peers) => {
                return Err(format!("frame {at}: {:?}, nanomp3: {peers:?}", got.err()).into());
            }
        };

        if at < N_COLD {
            continue;
        }

        for (channel, plane) in planes.iter().enumerate() {
            let wanted = wanted.iter().skip(channel).step_by(2);
            for (got, want) in plane.iter().zip(wanted) {
                most = most.max((got - want).abs() / want.abs().max(1.0));
            }
        }
    }
    Ok(most)
}

/// Reports whether the block types of left and right differ in any granule of a stereo frame.
fn has_unequal_windows(frame: &Frame) -> bool {
    let (side, _) = frame.side_and_main();
    let (first, n_bits) = if frame.header.version == Version::Mpeg1 {
        (20, 59)
    } else {
        (10, 63)
    };

    let granules = 0..frame.header.n_granules();
    granules
        .map(|granule| first + 2 * granule * n_bits)
        .any(|left| block_type(side, left, frame) != block_type(side, left + n_bits, frame))
}

/// Returns the block type of the channel whose side info begins at bit `start`; 0 is a long block.
fn block_type(side: &[u8], start: usize, frame: &Frame) -> u8 {
    let compress_bits = if frame.header.version == Version::Mpeg1 {
        4
    } else {
        9
    };
    let switching = start + 12 + 9 + 8 + compress_bits;
    let [is_switched, high, low] = [0, 1, 2].map(|at| bit(side, switching + at));
    is_switched * (2 * high + low)
}

fn bit(bytes: &[u8], at: usize) -> u8 {
    bytes[at / 8] >> (7 - at % 8) & 1
}
