//! Compares joint stereo, whose channels may have different block types, with the reference: both channels, their mean, and
//! parts of its band.

use std::collections::BTreeMap;

use wavemill_signal::Level;

use super::{Band, MonoDecoder};
use crate::layer3::bands::Bands;
use crate::layer3::granules::{CodedFrame, GranuleReader, Spectrum};
use crate::layer3::header::{FrameHeader, Mode, Version};
use crate::layer3::reference::{self, Filter, Hybrid, Intensity};
use crate::layer3::scale_factors::ScaleFactors;
use crate::layer3::side_info::{Block, Granule, SideInfo};
use crate::layer3::tests::{Noise, NoiseFrame, TRANSFORM_REL_MAX, lanes};
use crate::layer3::{FrameDecoder, LINES, SUB_BANDS};

/// Maximum error relative to the loudest sample: that of three transforms, one of which is the hybrid's and one is the
/// synthesis, and of the sums and gains before them.
const JOINT_REL_MAX: f64 = 4.0 * TRANSFORM_REL_MAX;
/// Number of frames that are compared for each header.
const N_FRAMES: usize = 80;
/// Number of bytes of main data, which is more than a frame of noise needs.
const MAIN_BYTES: usize = 1_200;

/// Creates a frame of noise with random block types. Returns `None` if the random side info is not valid or does not decode.
fn joint_frame(noise: &mut Noise, head: [u8; 4]) -> Option<NoiseFrame> {
    let header = FrameHeader::parse(head).unwrap();
    let mut side = SideInfo::parse(&header, &noise.bytes(header.side_info_bytes())).ok()?;
    for granule in &mut side.granules {
        for (channel, coded) in granule.iter_mut().enumerate() {
            // Half of the blocks are short, and half of those mixed. Mixed blocks with long windows have long bands.
            let blocks = [Block::Long, Block::Start, Block::End];
            coded.block = *blocks
                .get(noise.next() as usize % 6)
                .unwrap_or(&Block::Short);
            coded.is_mixed = coded.block != Block::Long && noise.next().is_multiple_of(2);
            // Few values in the right channel leave bands for intensity stereo.
            let n_pairs = if channel == 0 { 260 } else { 60 };
            coded.n_big = 2 * (noise.next() % n_pairs) as usize;
            coded.n_bits = 100 + 4 * coded.n_big;
            // Limit the gain, because loud values would hide errors in the others.
            coded.global_gain = 170 + coded.global_gain % 16;
        }
    }

    let frame = NoiseFrame {
        header,
        side,
        bytes: noise.bytes(MAIN_BYTES),
        n_missing_bits: 0,
    };
    let mut decoder = FrameDecoder::new(Level::detect()).unwrap();
    let (decoded, _) = frame.decode(&mut decoder);
    decoded.ok().map(|_| frame)
}

/// Returns the scale factor bands of a channel with their stereo positions.
fn bands(bands: &Bands, factors: &ScaleFactors, version: Version) -> Vec<reference::Band> {
    let of_band = |band: usize| reference::Band {
        lines: bands.lines(band),
        window: (band >= bands.n_long).then(|| (band - bands.n_long) % 3),
        position: Some(factors.values[band]).filter(|&position| match version {
            Version::Mpeg1 => position < 7,
            _ => position != factors.illegal[band],
        }),
    };
    (0..bands.n).map(of_band).collect()
}

/// The reference for both channels, from the coded lines on.
struct Reference {
    hybrids: [Hybrid; 2],
}

impl Reference {
    /// Returns the sub-band samples of both channels of a frame, by time slot.
    fn decode(&mut self, frame: &NoiseFrame) -> [Vec<[f64; SUB_BANDS]>; 2] {
        let NoiseFrame { header, side, .. } = frame;
        let mut reader = GranuleReader::new(lanes());
        let mut coded = CodedFrame::new(header, side, frame.main());
        let mut slots = [Vec::new(), Vec::new()];

        for index in 0..header.n_granules() {
            let mut spectra = [Spectrum::SILENCE; 2];
            let factors = coded
                .read_both(&mut reader, index, [LINES; 2], spectra.each_mut())
                .unwrap();

            let mut lines = spectra.map(|spectrum| spectrum.lines.map(f64::from).to_vec());
            let channels = side.granules[index];
            let of_channels =
                channels.map(|channel| bands(coded.bands_of(&channel), &factors, header.version));
            let Mode::Joint {
                mid_side,
                intensity,
            } = header.mode
            else {
                panic!("{header:?}");
            };
            let rules = match header.version {
                Version::Mpeg1 => Intensity::Mpeg1,
                _ if channels[1].scalefac_compress % 2 == 1 => Intensity::Mpeg2(0.5_f64.sqrt()),
                _ => Intensity::Mpeg2(0.5_f64.sqrt().sqrt()),
            };
            let rules = intensity.then_some(rules);
            let [left, right] = &mut lines;
            reference::unjoin(&of_channels[1], mid_side, rules, [left, right]);

            for (at, channel) in channels.iter().enumerate() {
                let mut ordered = reference::reorder(&of_channels[at], &lines[at]);
                let n_borders = match kind(channel) {
                    'l' => 31,
                    'm' => 1,
                    _ => 0,
                };
                reference::antialias(&mut ordered, n_borders);
                slots[at].extend(self.hybrids[at].run(channel.block, channel.is_mixed, &ordered));
            }
        }
        slots
    }
}

/// Returns a letter for the bands of a granule: long, short or mixed.
fn kind(granule: &Granule) -> char {
    match granule.block {
        Block::Short if granule.is_mixed => 'm',
        Block::Short => 's',
        _ => 'l',
    }
}

/// Compares samples with every `step`-th sample of the reference's synthesis.
struct Comparison {
    filter: Filter,
    n_sub_bands: usize,
    step: usize,
    got: Vec<f32>,
    want: Vec<f64>,
}

impl Comparison {
    fn new(n_sub_bands: usize, step: usize) -> Self {
        Self {
            filter: Filter::new(),
            n_sub_bands,
            step,
            got: Vec::new(),
            want: Vec::new(),
        }
    }

    fn add(&mut self, got: &[f32], slots: impl Iterator<Item = [f64; SUB_BANDS]>) {
        self.got.extend_from_slice(got);
        for mut slot in slots {
            slot[self.n_sub_bands..].fill(0.0);
            let samples = self.filter.run(&slot);
            self.want.extend(samples.iter().step_by(self.step));
        }
    }

    fn check(&self, loudest: f64, what: &str) {
        assert_eq!(self.got.len(), self.want.len(), "{what}");
        for (at, (got, want)) in self.got.iter().zip(&self.want).enumerate() {
            let error = (f64::from(*got) - want).abs();
            assert!(
                error <= JOINT_REL_MAX * loudest,
                "{what}: {at} is {got}, not {want} of {loudest}"
            );
        }
    }
}

fn is_the_references(frames: &[NoiseFrame]) {
    let mut reference = Reference {
        hybrids: [Hybrid::new(), Hybrid::new()],
    };
    let mut full = FrameDecoder::new(Level::detect()).unwrap();
    let mut of_full = [(); 2].map(|()| Comparison::new(SUB_BANDS, 1));
    let half = Band::new(44_100, 22_000).unwrap();
    let third = Band::new(48_000, 16_000).unwrap();
    let quarter = Band::new(44_100, 11_025).unwrap();
    let mut means = [Band::WHOLE, half, third, quarter].map(|band| {
        let decoder = MonoDecoder::new(band, Level::detect()).unwrap();
        (decoder, Comparison::new(band.n_sub_bands, band.step()))
    });

    for frame in frames {
        let slots = reference.decode(frame);
        let (n, planes) = frame.decode(&mut full);
        let n = n.unwrap();
        for (at, comparison) in of_full.iter_mut().enumerate() {
            comparison.add(&planes[at][..n], slots[at].iter().copied());
        }

        for (decoder, comparison) in &mut means {
            let (n, out) = frame.decode_mean(decoder, 0);
            let pairs = slots[0].iter().zip(&slots[1]);
            let mean =
                pairs.map(|(left, right)| std::array::from_fn(|at| (left[at] + right[at]) * 0.5));
            comparison.add(&out[..n.unwrap()], mean);
        }
    }

    // The mean of two loud channels may be soft, but each has the errors of its channels.
    let samples = of_full.iter().flat_map(|comparison| &comparison.want);
    let loudest = samples.fold(0.0_f64, |most, sample| most.max(sample.abs()));
    assert!(loudest > 1e-3, "{loudest}");
    for (at, comparison) in of_full.iter().enumerate() {
        comparison.check(loudest, &format!("{:?}, channel {at}", frames[0].header));
    }
    for (decoder, comparison) in &means {
        let what = format!("{:?}, {:?}", frames[0].header, decoder.band());
        comparison.check(loudest, &what);
    }
}

#[test]
fn joint_stereo_of_any_block_types_matches_the_reference() {
    let mut noise = Noise(11);
    // Middle and side, intensity stereo, and both, at a rate of each version.
    for version in [0xFB, 0xF3, 0xE3] {
        for extension in [0x60, 0x50, 0x70] {
            let head = [0xFF, version, 0x90, extension];
            let mut frames = Vec::new();
            while frames.len() < N_FRAMES {
                frames.extend(joint_frame(&mut noise, head));
            }
            is_the_references(&frames);

            let mut n_of_kinds = BTreeMap::new();
            for frame in &frames {
                for [left, right] in &frame.side.granules[..frame.header.n_granules()] {
                    *n_of_kinds.entry([kind(left), kind(right)]).or_insert(0) += 1;
                }
            }
            assert_eq!(n_of_kinds.len(), 9, "{n_of_kinds:?}");
        }
    }
}
