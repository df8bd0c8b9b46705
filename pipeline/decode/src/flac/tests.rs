//! Tests with generated FLAC streams: verbatim frames with 16 bits, mono, 44.1 kHz.

use wavemill_schemas::reject::{Reason, Reject};

use super::header::MARKER;
use crate::testing::flac::{FRAME_SAMPLES, RATE_HZ, frame, head, head_of, sealed};
use crate::{Channels, Pcm, testing};

fn decode(file: &[u8]) -> Result<Pcm, Reject> {
    let mut out = Pcm::default();
    testing::decode(file, RATE_HZ, &mut out)?;
    Ok(out)
}

/// Decodes a FLAC file of constant frames. Returns the source frame's number for each frame length of the output (-1
/// for silence), and the number of lost frames.
fn heard(file: &[u8]) -> (Vec<i64>, f32) {
    let out = decode(file).unwrap();
    let frames = out.samples.chunks(FRAME_SAMPLES);
    let numbers = frames
        .map(|frame| (frame[0] * 32_768.0 / 100.0).round() as i64 - 1)
        .collect();
    (numbers, out.lost_s * RATE_HZ as f32 / FRAME_SAMPLES as f32)
}

fn assert_heard(file: &[u8], numbers: &[i64], n_lost: f32) {
    let (heard, lost) = heard(file);
    assert_eq!(heard, numbers);
    assert!(
        (lost - n_lost).abs() < 1e-3,
        "{lost} frames lost, not {n_lost}"
    );
}

fn stream(n_samples: u64, numbers: &[u8]) -> Vec<u8> {
    let frames: Vec<u8> = numbers.iter().flat_map(|&number| frame(number)).collect();
    [head(n_samples), frames].concat()
}

#[test]
fn damaged_frames_keep_their_length() {
    let whole = stream(0, &[0, 1, 2, 3, 4]);
    assert_heard(&whole, &[0, 1, 2, 3, 4], 0.0);

    let frame_bytes = frame(0).len();
    let mut damaged = whole;
    let third = head(0).len() + 2 * frame_bytes;
    damaged[third + 100] ^= 1;
    assert_heard(&damaged, &[0, 1, -1, 3, 4], 1.0);
    damaged[third] = 0;
    assert_heard(&damaged, &[0, 1, -1, 3, 4], 1.0);
    // Also damage the first frame, whose remaining bytes still show that there was a frame.
    damaged[head(0).len() + 50] ^= 1;
    assert_heard(&damaged, &[-1, 1, -1, 3, 4], 2.0);
}

#[test]
fn missing_frames_become_silence_of_their_numbered_length() {
    assert_heard(&stream(0, &[0, 1, 4, 5]), &[0, 1, -1, -1, 4, 5], 2.0);
    assert_heard(
        &stream(6 * FRAME_SAMPLES as u64, &[0, 1, 4]),
        &[0, 1, -1, -1, 4],
        3.0,
    );
    // The frame numbers of a clip that was cut out of a longer FLAC stream do not start at 0.
    assert_heard(&stream(0, &[7, 8, 9]), &[7, 8, 9], 0.0);
}

#[test]
fn holes_of_unknown_length_are_closed() {
    let mut joined = stream(0, &[3, 4]);
    joined.extend(vec![0; frame(0).len() * 2]);
    joined.extend(frame(0));
    assert_heard(&joined, &[3, 4, 0], 2.0);

    // Duplicated frames and joined streams do not count as lost audio.
    assert_heard(&stream(0, &[0, 1, 1, 2]), &[0, 1, 1, 2], 0.0);
    assert_heard(
        &[stream(0, &[0, 1]), stream(0, &[0])].concat(),
        &[0, 1, 0],
        0.0,
    );

    // Foreign bytes between frames with consecutive numbers do not count as lost audio either.
    let inserted = [stream(0, &[0]), vec![0; 5_000], frame(1)].concat();
    assert_heard(&inserted, &[0, 1], 0.0);
}

#[test]
fn announced_length_is_limited_by_file_size() {
    let samples = FRAME_SAMPLES as u64;
    assert_heard(&stream(10 * samples, &[0]), &[0], 9.0);
    assert_heard(&stream(11 * samples, &[0]), &[0], 0.0);
    assert_heard(&stream((1 << 36) - 1, &[0, 1]), &[0, 1], 0.0);
    assert_heard(&stream(samples, &[0, 1]), &[0, 1], 0.0);

    // Frame numbers must be credible as well; a jump that is not credible is a gap of unknown length.
    assert_heard(
        &stream(0, &[0, 10]),
        &[0, -1, -1, -1, -1, -1, -1, -1, -1, -1, 10],
        9.0,
    );
    assert_heard(&stream(0, &[0, 100]), &[0, 100], 1.0);
}

#[test]
fn truncated_last_frame_is_lost() {
    let whole = stream(0, &[0, 1, 2]);
    assert_heard(&whole[..whole.len() - 300], &[0, 1], 1.0);
    assert_heard(
        &stream(3 * FRAME_SAMPLES as u64, &[0, 1, 2])[..whole.len() - 300],
        &[0, 1],
        1.0,
    );
    let tagged = [&whole[..], b"TAG", &[0; 125]].concat();
    assert_heard(&tagged, &[0, 1, 2], 0.0);
}

#[test]
fn metadata_is_skipped_regardless_of_claimed_size() {
    let picture = [&[6, 0x10, 0, 0][..], &vec![0xFF; 1 << 20]].concat();
    let mut file = head(0);
    file[4] = 0;
    file.extend(picture);
    file.extend([0x81, 0, 0, 2, 0, 0]);
    let n_head = file.len();

    file.extend([frame(0), frame(1), frame(2)].concat());
    assert_heard(&file, &[0, 1, 2], 0.0);

    // A metadata block whose size reaches beyond the end of the file, and one whose size covers the first frames.
    file[n_head - 5] = 0xFF;
    assert_heard(&file, &[0, 1, 2], 0.0);
    file[n_head - 5..n_head - 2].copy_from_slice(&[0, 4, 0]);
    assert_heard(&file, &[0, 1, 2], 0.0);

    // A STREAMINFO block with invalid rate, size and bits is ignored if the frames state these values.
    let mut nonsense = stream(0, &[0, 1]);
    nonsense[8..26].fill(0);
    assert_heard(&nonsense, &[0, 1], 0.0);

    assert_heard(
        &[b"ID3\x04\0\0\0\0\0\x03abc".to_vec(), stream(0, &[0, 1])].concat(),
        &[0, 1],
        0.0,
    );
}

#[test]
fn frames_of_another_format_become_silence_and_count_as_lost() {
    // A frame at 88.2 kHz, which lasts half as long as the other frames.
    let other = sealed(
        &[0xFF, 0xF8, 0x21, 0x08, 2],
        &[&[0x02][..], &[1; 2 * FRAME_SAMPLES]].concat(),
    );

    let out = decode(&[stream(0, &[0, 1]), other, frame(3)].concat()).unwrap();
    assert_eq!(out.samples.len(), 3 * FRAME_SAMPLES + FRAME_SAMPLES / 2);
    assert_eq!(
        out.samples[2 * FRAME_SAMPLES..][..FRAME_SAMPLES / 2],
        [0.0; FRAME_SAMPLES / 2]
    );
    assert!((out.lost_s * RATE_HZ as f32 - FRAME_SAMPLES as f32 / 2.0).abs() < 1e-2);
}

#[test]
fn overflowing_samples_affect_only_their_frame() {
    // A linear predictor that multiplies each sample by 16,383: precision 15, shift 0, residual 0.
    let mut bits = "0111111111111111".to_owned()
        + "1110"
        + "00000"
        + "011111111111111"
        + "00"
        + "0000"
        + "0000";
    bits += &"1".repeat(FRAME_SAMPLES - 1);
    bits += &"0".repeat(7 - (bits.len() + 7) % 8);
    let bytes = bits
        .as_bytes()
        .chunks(8)
        .map(|byte| byte.iter().fold(0, |value, bit| value << 1 | (bit - b'0')));
    let subframe = [0x20 << 1].into_iter().chain(bytes).collect::<Vec<u8>>();

    let wild = sealed(&[0xFF, 0xF8, 0x29, 0x08, 1], &subframe);
    let out = decode(&[stream(0, &[0]), wild, frame(2)].concat()).unwrap();
    assert_eq!(out.samples.len(), 3 * FRAME_SAMPLES);
    assert!(out.samples.iter().all(|sample| sample.is_finite()));
}

#[test]
fn a_header_without_frames_is_not_audio() {
    for file in [
        head(0),
        head(1_000),
        MARKER.to_vec(),
        [head(0), vec![0xFF; 10_000]].concat(),
    ] {
        assert_eq!(decode(&file).unwrap_err().reason, Reason::NotAudio);
    }
}

/// Frames of up to eight channels at rates of all codes: 44.1, 176.4 and 192 kHz in the header, 384 kHz in STREAMINFO.
#[test]
fn all_channels_and_rates_are_decoded_to_the_mean() {
    for (code, rate_hz) in [(9, RATE_HZ), (2, 176_400), (3, 192_000), (0, 384_000)] {
        for n_channels in [3_u8, 6, 8] {
            let frame = |number: u8| {
                let channel = |at: u8| {
                    let sample = (i16::from(at) * 100 + 1).to_be_bytes();
                    [&[0x02][..], &sample.repeat(FRAME_SAMPLES)].concat()
                };
                let body: Vec<u8> = (0..n_channels).flat_map(channel).collect();
                let layout = (n_channels - 1) << 4 | 0x08;
                sealed(&[0xFF, 0xF8, 0x20 | code, layout, number], &body)
            };
            let frames: Vec<u8> = (0..100).flat_map(frame).collect();
            let file = [head_of(rate_hz, 16, 0), frames].concat();

            let channels = Channels::decode(&file, None).unwrap();
            assert_eq!(channels.rate_hz, rate_hz);
            let firsts: Vec<f32> = channels.planes.iter().map(|plane| plane[0]).collect();
            let wanted = (0..n_channels).map(|at| (f32::from(at) * 100.0 + 1.0) / 32_768.0);
            assert_eq!(firsts, wanted.collect::<Vec<f32>>());

            // The filter of the resampler extends over the ends of the clip.
            let out = decode(&file).unwrap();
            let n_wanted = (100.0 * FRAME_SAMPLES as f64 / f64::from(rate_hz) * 44_100.0).ceil();
            assert_eq!((out.samples.len(), out.lost_s), (n_wanted as usize, 0.0));
            let mean = (f32::from(n_channels - 1) * 50.0 + 1.0) / 32_768.0;
            let middle = out.samples[out.samples.len() / 2];
            assert!((middle - mean).abs() < 1e-6, "{middle}, not {mean}");
        }
    }
}

/// Returns a FLAC frame of 65,535 zero samples whose header contains the given rate in Hz.
fn constant_frame_of(rate_hz: u16) -> Vec<u8> {
    let [high, low] = rate_hz.to_be_bytes();
    sealed(
        &[0xFF, 0xF8, 0x7D, 0x08, 2, 0xFF, 0xFE, high, low],
        &[0, 0, 0],
    )
}

#[test]
fn frame_with_unsupported_rate_adds_no_long_silence() {
    let file = [stream(0, &[0, 1]), constant_frame_of(1), frame(3)].concat();
    let out = decode(&file).unwrap();

    // A frame of 65,535 samples at 8 kHz, the lowest supported rate.
    assert!(
        (out.lost_s - 65_535.0 / 8_000.0).abs() < 1e-3,
        "{} s lost",
        out.lost_s
    );
    assert!(out.duration_s < 8.3, "{} s", out.duration_s);
    assert!(crate::longest_s(&file) >= f64::from(out.duration_s));
}

#[test]
fn longest_s_is_at_least_the_decoded_duration() {
    // A FLAC file with many gaps, and with a wrong rate in the STREAMINFO block.
    let numbers: Vec<u8> = [0, 9].repeat(20);
    let mut file = stream(0, &numbers);
    let out = decode(&file).unwrap();
    assert!(out.lost_s > 1.0);
    assert!((crate::longest_s(&file) - f64::from(out.duration_s)).abs() < 1e-3);

    file[18..20].fill(0xFF);
    assert!((crate::longest_s(&file) - f64::from(out.duration_s)).abs() < 1e-3);
}
