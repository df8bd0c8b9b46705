//! Compares the mono synthesis with the reference, compares mono and stereo decoder, and decodes damaged frames.

use wavemill_signal::resample::ResampleArgs;
use wavemill_signal::{Lanes, Level};

use super::decoder::n_coded;
use super::edge::{EDGE, EdgeFilters};
use super::half::HALF;
use super::{Band, MonoDecoder};
use crate::layer3::bands::RateBands;
use crate::layer3::header::FrameHeader;
use crate::layer3::reference::Filter;
use crate::layer3::reorder::reorder;
use crate::layer3::side_info::{Block, Granule, SideInfo};
use crate::layer3::synthesis::Synthesis;
use crate::layer3::tests::{Noise, NoiseFrame, TRANSFORM_REL_MAX};
use crate::layer3::{FRAME_SAMPLES, FrameDecoder, FrameError, LINES, MainData};

/// Maximum difference from the mean of the stereo decoder's channels, relative to their loudest sample. Each decoder
/// has two transforms for each of two channels, all of which are within `TRANSFORM_REL_MAX` of the reference.
const PATHS_REL_MAX: f32 = 8.0 * TRANSFORM_REL_MAX as f32;

/// Maximum error of the synthesis filter of half of the rate, relative to full scale or to the loudest sample.
const PART_REL_MAX: f64 = 1e-6;

/// Maximum power of the difference between noise in all sub-bands that the edge's filters resample and noise that the
/// resampler's filter does, relative to its power. The parts that are cut off make up -91 dB, and the integers of the
/// synthesis window most of the rest; -90.26 dB were measured.
const EDGE_POWER_MAX: f64 = 1e-9;

/// Returns the step, the number of sub-bands and the number of lines of the band for these sample rates.
fn step_and_sizes(from_hz: u32, to_hz: u32) -> Option<(usize, usize, usize)> {
    let band = Band::new(from_hz, to_hz)?;
    Some((band.step(), band.n_sub_bands, band.n_lines()))
}

#[test]
fn steps_and_sub_bands_follow_from_the_rates() {
    assert_eq!(step_and_sizes(44_100, 22_050), Some((2, 17, 314)));
    assert_eq!(step_and_sizes(48_000, 24_000), Some((2, 17, 314)));
    assert_eq!(step_and_sizes(44_100, 22_049), Some((2, 16, 296)));
    assert_eq!(step_and_sizes(44_100, 11_025), Some((2, 9, 170)));
    assert_eq!(step_and_sizes(48_000, 8_000), Some((2, 6, 116)));
    // 8 kHz is in sub-band 11, and the filter of sub-band 12 reaches down to 7.92 kHz.
    assert_eq!(step_and_sizes(44_100, 16_000), Some((2, 13, 242)));
    assert_eq!(step_and_sizes(48_000, 16_000), Some((2, 12, 224)));
    assert_eq!(step_and_sizes(48_000, 22_050), Some((2, 16, 296)));

    assert_eq!(step_and_sizes(44_100, 22_051), None);
    assert_eq!(step_and_sizes(32_000, 22_050), None);
    assert_eq!(step_and_sizes(22_050, 22_050), None);
    assert_eq!(step_and_sizes(44_101, 22_050), None);
    assert_eq!(step_and_sizes(48_000, u32::MAX), None);
    assert_eq!(step_and_sizes(48_000, 0), None);

    let whole = Band::WHOLE;
    assert_eq!((whole.step(), whole.n_lines()), (1, LINES));
}

/// Number of lines of the widest short band: at 48 kHz it has 66 lines in each of three windows.
const WIDEST_BAND_LINES: usize = 3 * 66;

/// Reordering interleaves the three windows of a short band, so a low line may be stored after lines of higher
/// frequencies.
#[test]
fn lines_read_cover_the_lowest_sub_bands() {
    let numbers = std::array::from_fn(|at| at as f32);
    let kinds = [
        (Block::Long, false),
        (Block::Short, false),
        (Block::Short, true),
    ];

    // Headers of three MPEG versions with three sample rates each.
    let headers = [0xFB, 0xF3, 0xE3]
        .into_iter()
        .flat_map(|version| [0x90, 0x94, 0x98].map(|rate| [0xFF, version, rate, 0]));

    for head in headers {
        let header = FrameHeader::parse(head).unwrap();
        for (block, is_mixed) in kinds {
            let bands = RateBands::from_header(&header).for_granule(&Granule {
                block,
                is_mixed,
                ..Granule::default()
            });

            let mut ordered = [0.0; LINES];
            if block == Block::Short {
                reorder(bands, LINES, &numbers, &mut ordered);
            } else {
                ordered = numbers;
            }

            for n_wanted in 1..=LINES {
                let highest = ordered[..n_wanted].iter().copied().fold(0.0, f32::max);
                let n_needed = highest as usize + 1;
                let n = n_coded(bands, n_wanted);
                let place = format!("{header:?}, {block:?}, {is_mixed}, {n_wanted} lines");
                assert!(
                    (n_needed..=LINES).contains(&n),
                    "{place}: {n} of {n_needed}"
                );
                assert!(n - n_wanted < WIDEST_BAND_LINES, "{place}: {n}");
                // If `n` is the end of a band, no line of the next band is read.
                assert_eq!(n_coded(bands, n), n, "{place}");
            }
        }
    }
}

/// Compares every second sample that the synthesis filter computes with the same samples of the reference, and returns
/// their bits. Samples of higher sub-bands must not matter.
fn synthesis_is_the_references(n_sub_bands: usize, level: Level) -> Vec<u32> {
    let lanes = Lanes::new(level).unwrap();
    let mut half = Synthesis::<HALF>::new(lanes, n_sub_bands);
    let mut noise = Noise(6);
    let mut bits = Vec::new();
    for phase in 0..2 {
        let mut filter = Filter::new();
        for n_slots in [18, 36, 18, 36, 36, 18] {
            let slots = noise.slots(n_slots);
            let mut got = vec![0.0; HALF * n_slots];
            lanes.run(|| half.run_half(phase, &slots, &mut got));
            bits.extend(got.iter().map(|sample| sample.to_bits()));

            let mut want: Vec<f64> = Vec::new();
            for slot in &slots {
                let mut slot = slot.map(f64::from);
                slot[n_sub_bands..].fill(0.0);
                want.extend(filter.run(&slot).iter().skip(phase).step_by(2));
            }
            let what = format!("phase {phase}, {n_sub_bands} sub-bands");
            let loudest = want.iter().fold(1.0_f64, |most, want| most.max(want.abs()));
            for (got, want) in got.into_iter().zip(want) {
                let error = (f64::from(got) - want).abs() / loudest;
                assert!(error <= PART_REL_MAX, "{what}: {got}, not {want}");
            }
        }
    }
    bits
}

#[test]
fn synthesis_is_every_second_sample_of_the_references() {
    for n_sub_bands in [16, 11, 1] {
        let [bits, scalar] = [Level::detect(), Level::Scalar]
            .map(|level| synthesis_is_the_references(n_sub_bands, level));
        assert!(bits == scalar, "{n_sub_bands} sub-bands");
    }
}

/// Noise in all sub-bands that is synthesised at half of the rate is the noise of the reference, resampled. Sub-bands
/// above the edge must not matter.
#[test]
fn edge_is_resampled() {
    let mut noise = Noise(11);
    let slots = noise.slots(20 * 36);
    let mut filter = Filter::new();
    let whole: Vec<f64> = slots
        .iter()
        .flat_map(|slot| filter.run(&slot.map(f64::from)))
        .collect();
    let taps = ResampleArgs {
        from_hz: 44_100,
        to_hz: 22_050,
    }
    .taps();

    for phase in 0..2 {
        let [got, scalar] = [Level::detect(), Level::Scalar].map(|level| {
            let lanes = Lanes::new(level).unwrap();
            let mut lower = Synthesis::<HALF>::new(lanes, EDGE.start);
            let mut edge = EdgeFilters::new();
            let mut out = vec![0.0; HALF * slots.len()];
            let mut at = 0;
            for n_slots in [18, 36].into_iter().cycle() {
                let Some(slots) = slots.get(at..at + n_slots) else {
                    break;
                };
                let out = &mut out[HALF * at..HALF * (at + n_slots)];
                lanes.run(|| {
                    lower.run_half(phase, slots, out);
                    edge.add(phase, slots, out);
                });
                at += n_slots;
            }
            out.truncate(HALF * at);
            out
        });
        assert!(
            got.iter()
                .map(|s| s.to_bits())
                .eq(scalar.iter().map(|s| s.to_bits()))
        );

        let resampled = |at: usize| -> f64 {
            let pairs = taps[1..].iter().enumerate();
            let sides = pairs.map(|(n, tap)| tap * (whole[at - 1 - n] + whole[at + 1 + n]));
            taps[0] * whole[at] + sides.sum::<f64>()
        };
        // The reference needs samples on both sides.
        let inner = taps.len()..got.len() - taps.len();
        let (mut difference, mut power) = (0.0, 0.0);
        for (at, got) in got.iter().enumerate().take(inner.end).skip(inner.start) {
            let want = resampled(2 * at + phase);
            difference += (f64::from(*got) - want).powi(2);
            power += want.powi(2);
        }
        let part = difference / power;
        assert!(part <= EDGE_POWER_MAX, "phase {phase}: {part:e}");
    }
}

/// Creates a frame of noise whose granules have so few values that the lines of each channel end below `n_lines`. Returns
/// `None` if the random side info is not valid.
fn low_frame(noise: &mut Noise, head: [u8; 4], n_lines: usize) -> Option<NoiseFrame> {
    let header = FrameHeader::parse(head)?;
    let mut side = SideInfo::parse(&header, &noise.bytes(header.side_info_bytes())).ok()?;

    for granule in side.granules.iter_mut().flatten() {
        // Usually enough bits for the scale factors. Four values take about five bits.
        granule.n_big = noise.next() as usize % (n_lines / 4) * 2;
        granule.n_bits = 60 + noise.next() as usize % n_lines;
        // Limit the gain, because loud values would hide errors in the others.
        granule.global_gain = 150 + granule.global_gain % 16;
    }

    Some(NoiseFrame {
        header,
        side,
        bytes: noise.bytes(1_000),
        n_missing_bits: 0,
    })
}

/// A frame without lines above the band's edge decodes to the mean of both channels, at every sample or every
/// second one, and for any phase.
#[test]
fn low_frequencies_are_the_mean_of_both_channels() {
    // Headers of stereo, joint stereo of each kind, and mono, for MPEG-1 and MPEG-2.
    let heads = [
        [0xFF, 0xFB, 0x90, 0x00],
        [0xFF, 0xFB, 0x90, 0x40],
        [0xFF, 0xFB, 0x90, 0x60],
        [0xFF, 0xFB, 0x90, 0x50],
        [0xFF, 0xFB, 0x90, 0x70],
        [0xFF, 0xFB, 0x90, 0xC0],
        [0xFF, 0xF3, 0x90, 0x00],
        [0xFF, 0xF3, 0x90, 0x70],
    ];

    let mut noise = Noise(7);
    for head in heads {
        let below_half = Band::new(44_100, 22_049).unwrap();
        for (band, n_lines) in [(Band::WHOLE, LINES), (Band::HALF, 216), (below_half, 252)] {
            let frames = low_frames(&mut noise, head, n_lines);
            for phase in 0..band.step() {
                part_is_of_the_whole(&frames, band, phase);
            }
        }
    }
}

/// The codes of a side channel that the mean does not need are skipped unless they may extend beyond the main data. Main
/// data that end at any byte around the last code must give the result of the stereo decoder, which reads all codes.
#[test]
fn damaged_end_of_a_side_channel_is_found() {
    let mut noise = Noise(10);
    let mut full = FrameDecoder::new(Level::detect()).unwrap();
    let mut mean = MonoDecoder::new(Band::WHOLE, Level::detect()).unwrap();
    let mut n_failed = 0;

    // Headers of middle and side, for two granules and for one.
    for head in [[0xFF, 0xFB, 0x90, 0x60], [0xFF, 0xF3, 0x90, 0x60]] {
        for mut frame in low_frames(&mut noise, head, LINES) {
            for granule in &mut frame.side.granules {
                granule[1].block = granule[0].block;
                granule[1].is_mixed = granule[0].is_mixed;
            }

            let n_bits: usize = frame.side.granule_bits().iter().sum();
            for n_bytes in n_bits / 8 - 2..n_bits / 8 + 8 {
                let main = MainData {
                    bytes: &frame.bytes[..n_bytes],
                    n_missing_bits: 0,
                };
                let mut planes = [[0.0; FRAME_SAMPLES]; 2];
                let [left, right] = &mut planes;
                let want = full.decode(&frame.header, &frame.side, main, [left, right]);
                let got = mean.decode(&frame.header, &frame.side, main, 0, left);
                assert_eq!(got, want, "{n_bits} bits in {n_bytes} bytes");
                n_failed += usize::from(n_bytes > n_bits / 8 && want.is_err());
            }
        }
    }
    assert!(
        n_failed > 20,
        "{n_failed} frames failed for their last code"
    );
}

/// Returns frames of noise that decode without error and have no nonzero lines from `n_lines` on.
fn low_frames(noise: &mut Noise, head: [u8; 4], n_lines: usize) -> Vec<NoiseFrame> {
    let mut frames = Vec::new();
    for _ in 0..20_000 {
        let frame = low_frame(noise, head, n_lines);
        frames.extend(frame.filter(|frame| is_low(frame, n_lines)));
        if frames.len() == 60 {
            return frames;
        }
    }
    panic!("{head:x?}: {} frames are low", frames.len());
}

fn part_is_of_the_whole(frames: &[NoiseFrame], band: Band, phase: usize) {
    let mut full = FrameDecoder::new(Level::detect()).unwrap();
    let mut part = MonoDecoder::new(band, Level::detect()).unwrap();
    let mut got = Vec::new();
    let mut want = Vec::new();
    // Take the loudest sample of both channels: the stereo decoder also rounds their difference, unlike the mean.
    let mut loudest = 0.0_f32;

    for frame in frames {
        let (n, [left, mut right]) = frame.decode(&mut full);
        let n = n.unwrap();

        if frame.header.n_channels() == 1 {
            right = left;
        }
        for (left, right) in left[..n].iter().zip(&right[..n]) {
            want.push((left + right) * 0.5);
            loudest = loudest.max(left.abs()).max(right.abs());
        }

        let (n_out, out) = frame.decode_mean(&mut part, phase);
        assert_eq!(n_out, Ok(n / band.step()));
        got.extend_from_slice(&out[..n / band.step()]);
    }

    let want = want.into_iter().skip(phase).step_by(band.step());
    for (at, (got, want)) in got.into_iter().zip(want).enumerate() {
        assert!(
            (got - want).abs() <= PATHS_REL_MAX * loudest,
            "{:?}, {band:?}, phase {phase}: {at} is {got}, not {want} of {loudest}",
            frames[0].header
        );
    }
}

/// Reports whether a frame decodes and all its spectral lines from `n_lines` on are zero.
fn is_low(frame: &NoiseFrame, n_lines: usize) -> bool {
    let mut decoder = FrameDecoder::new(Level::detect()).unwrap();
    let (decoded, _) = frame.decode(&mut decoder);
    let n_granules = frame.header.n_granules();

    decoded.is_ok()
        && decoder.spectra()[..n_granules]
            .iter()
            .flatten()
            .all(|spectrum| spectrum.lines[n_lines..LINES] == [0.0; LINES][n_lines..])
}

/// Decodes a frame and returns the bit patterns of its samples.
fn decoded_bits(decoder: &mut MonoDecoder, frame: &NoiseFrame) -> [u32; FRAME_SAMPLES] {
    let (decoded, out) = frame.decode_mean(decoder, 0);
    decoded.unwrap();
    out.map(f32::to_bits)
}

#[test]
fn reset_decoder_equals_a_new_one() {
    let mut noise = Noise(9);
    let frames = low_frames(&mut noise, [0xFF, 0xFB, 0x90, 0x60], LINES);
    for band in [Band::HALF, Band::WHOLE] {
        let mut used = MonoDecoder::new(band, Level::detect()).unwrap();
        for frame in &frames {
            let _ = decoded_bits(&mut used, frame);
            used.reset();
            let mut new = MonoDecoder::new(band, Level::detect()).unwrap();
            assert!(decoded_bits(&mut used, frame) == decoded_bits(&mut new, frame));
        }
    }
}

/// Decodes frames of noise in every format. The decoder must not panic, and all samples must be finite. For the whole
/// band the errors must be those of the stereo decoder, and a part of the band may fail only if the stereo decoder
/// does.
#[test]
fn noise_decodes_to_finite_samples_or_errors() {
    let mut noise = Noise(8);
    let quarter = Band::new(44_100, 11_025).unwrap();
    let third = Band::new(48_000, 16_000).unwrap();
    let bands = [Band::WHOLE, Band::HALF, quarter, third];

    let mut decoders = bands.map(|band| MonoDecoder::new(band, Level::detect()).unwrap());
    let mut scalar = bands.map(|band| MonoDecoder::new(band, Level::Scalar).unwrap());
    let mut full = FrameDecoder::new(Level::detect()).unwrap();

    let mut n_decoded = 0;
    for _ in 0..40_000 {
        let Some(frame) = noise.frame() else {
            continue;
        };

        let phase = noise.next() as usize;
        let (whole, _) = frame.decode(&mut full);

        for (decoder, scalar) in decoders.iter_mut().zip(&mut scalar) {
            let (decoded, out) = frame.decode_mean(decoder, phase);
            assert!(decoded.is_ok() || whole.is_err(), "{decoded:?}");
            if decoder.band() == Band::WHOLE {
                assert_eq!(decoded, whole);
            }
            assert!(decoded != Err(FrameError::BigValues));
            assert!(out.iter().all(|sample| sample.is_finite()));
            n_decoded += usize::from(decoded.is_ok());

            let (again, same) = frame.decode_mean(scalar, phase);
            assert_eq!(
                (again, same.map(f32::to_bits)),
                (decoded, out.map(f32::to_bits))
            );
        }
        if noise.next().is_multiple_of(50) {
            decoders.iter_mut().for_each(MonoDecoder::reset);
            scalar.iter_mut().for_each(MonoDecoder::reset);
        }
    }
    assert!(n_decoded > 1_000, "{n_decoded}");
}
