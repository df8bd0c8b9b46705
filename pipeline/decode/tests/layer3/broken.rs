//! Damages real MP3 frames and files and decodes them with all decoders. No decoder may panic, and each must return as
//! many samples as a frame has, all of them finite.
//!
//! The amount of work is bounded by the input: a frame is decoded once, has a fixed number of lines and samples, and
//! its main data is limited to its own bytes and those that it may refer back to. So frames and bytes are counted here
//! instead of measuring time.
//!
//! `WAVEMILL_MP3_MUTANTS` sets the number of damaged frames and files. Equal numbers result in the same damage in the
//! same order.

use std::ops::Range;

use wavemill_decode::layer3::{FrameError, FrameHeader, MainData};

use super::paths::{BANDS, Paths};
use super::stream::{Frame, HEADER_BYTES, Reservoir, frames};

/// Default number of damaged frames and files, which takes some seconds.
const MUTANTS: usize = 20_000;
/// Number of consecutive frames of a file that are damaged, so that each frame is decoded in the state that earlier
/// damaged frames left.
const RUN_FRAMES: usize = 24;
/// One in this number of runs damages a part of a file as a whole instead of single frames.
const RUNS_PER_FILE: usize = 2;
/// Maximum length in bytes of the part of a file that is damaged as a whole.
const FILE_BYTES: usize = 6_000;
/// Maximum number of bytes by which a frame's main data can begin before the frame.
const MAIN_DATA_BEGIN_MAX: usize = 511;

/// Damages frames and files until the requested number of mutants is reached.
pub(crate) fn do_no_harm(files: &[Vec<u8>]) {
    let asked = std::env::var("WAVEMILL_MP3_MUTANTS").ok();
    let n_wanted = asked.as_ref().map_or(MUTANTS, |number| {
        number.parse().expect("WAVEMILL_MP3_MUTANTS is a number")
    });
    let streams: Vec<Vec<Frame>> = files.iter().map(|file| frames(file)).collect();
    let mut random = Random(1);
    let mut decoders = Decoders::new();
    let mut tally = Tally::default();

    while tally.n_mutants < n_wanted {
        let at = random.below(files.len());
        if streams[at].is_empty() {
            continue;
        }

        decoders.restart(&mut random);
        if random.one_in(RUNS_PER_FILE) {
            let file = broken_file(&mut random, &files[at]);
            decoders.decode_file(&file, &mut tally);
        } else {
            let from = random.below(streams[at].len());
            let run = streams[at][from..].iter().take(RUN_FRAMES);
            run.for_each(|frame| decoders.decode_broken(&mut random, frame, &mut tally));
        }
    }

    if asked.is_some() {
        let Tally {
            n_mutants,
            n_decoded,
            n_refused,
        } = &tally;
        println!("{n_mutants} mutants: {n_decoded} frames decode, {n_refused} do not");
    }
    assert!(tally.n_decoded > n_wanted / 4, "{}", tally.n_decoded);
    assert!(tally.n_refused > n_wanted / 100, "{}", tally.n_refused);
}

/// Number of damaged inputs, and of frames that did and did not decode.
#[derive(Default)]
struct Tally {
    n_mutants: usize,
    n_decoded: usize,
    n_refused: usize,
}

impl Tally {
    fn count(&mut self, decoded: Result<(), FrameError>) {
        match decoded {
            Ok(()) => self.n_decoded += 1,
            Err(_) => self.n_refused += 1,
        }
    }
}

impl Drop for Tally {
    /// Prints the number of the damaged input if a test panics.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("at mutant {}", self.n_mutants);
        }
    }
}

/// A reproducible sequence of pseudo-random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }

    /// Returns a random part of `within` that has at most `n_max` items.
    fn part(&mut self, within: Range<usize>, n_max: usize) -> Range<usize> {
        if within.is_empty() {
            return within;
        }
        let start = within.start + self.below(within.len());
        let n = 1 + self.below(n_max);
        start..within.end.min(start + n)
    }
}

/// All MP3 decoders, and the state between frames. They share one reservoir, so that their results can be compared.
struct Decoders {
    paths: Paths,
    reservoir: Reservoir,
}

impl Decoders {
    fn new() -> Self {
        Self {
            paths: Paths::new(),
            reservoir: Reservoir::default(),
        }
    }

    fn restart(&mut self, random: &mut Random) {
        self.reservoir = Reservoir::default();
        self.paths.restart(random.below(BANDS), random.below(4));
    }

    /// Decodes the frames that are found in a damaged MP3 file.
    fn decode_file(&mut self, file: &[u8], tally: &mut Tally) {
        tally.n_mutants += 1;
        let frames = frames(file);
        let n_bytes: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
        assert!(n_bytes <= file.len(), "frames overlap");

        for frame in &frames {
            let decoded = self.decode(frame, None);
            tally.count(decoded);
        }
    }

    /// Damages an MP3 frame, and sometimes also its main data from the reservoir, and decodes the frame.
    fn decode_broken(&mut self, random: &mut Random, frame: &Frame, tally: &mut Tally) {
        tally.n_mutants += 1;
        let breaks_main = random.one_in(4);
        let mut bytes = frame.bytes.to_vec();
        for _ in 0..1 + random.below(3) {
            break_frame(random, &frame.header, &mut bytes);
        }

        let head = *bytes.first_chunk().expect("a frame has a header");
        let Some(header) = FrameHeader::parse(head) else {
            tally.n_refused += 1;
            return;
        };

        let frame = Frame {
            header,
            bytes: &bytes,
            ..*frame
        };
        let decoded = self.decode(&frame, breaks_main.then_some(random));
        tally.count(decoded);
    }

    /// Decodes a frame with two decoders. If `damage` is given, it damages the main data first.
    fn decode(&mut self, frame: &Frame, damage: Option<&mut Random>) -> Result<(), FrameError> {
        let paths = &mut self.paths;
        self.reservoir.feed(frame, |side, main| {
            assert!(main.bytes.len() <= MAIN_DATA_BEGIN_MAX + frame.bytes.len());
            let Some(random) = damage else {
                return paths.decode(&frame.header, side, main);
            };

            let mut bytes = main.bytes.to_vec();
            let n_missing_bits = break_main(random, &mut bytes, main.n_missing_bits);
            let main = MainData {
                bytes: &bytes,
                n_missing_bits,
            };
            paths.decode(&frame.header, side, main)
        })
    }
}

/// Damages the bytes of a frame that was valid with this header. Sync word and layer are not changed.
fn break_frame(random: &mut Random, header: &FrameHeader, bytes: &mut Vec<u8>) {
    let side_start = HEADER_BYTES + if bytes[1] & 1 == 0 { 2 } else { 0 };
    let side_end = bytes.len().min(side_start + header.side_info_bytes());

    match random.below(8) {
        0 => flip_bits(random, &mut bytes[HEADER_BYTES..]),
        // Change version and checksum flag; sample rate; mode and joint stereo flags.
        1 => {
            let (at, mask) = [(1, 0x19), (2, 0x0C), (3, 0xF0)][random.below(3)];
            bytes[at] ^= random.byte() & mask;
        }
        2 | 3 => set_field(random, &mut bytes[side_start..side_end]),
        4 => overwrite(random, &mut bytes[side_start..side_end]),
        5 => bytes.truncate(side_end + random.below(bytes.len() - side_end + 1)),
        6 => extend(random, bytes),
        _ => overwrite(random, &mut bytes[HEADER_BYTES..]),
    }
}

/// Damages main data and returns how many bits before the data to report as missing.
fn break_main(random: &mut Random, bytes: &mut Vec<u8>, n_missing_bits: usize) -> usize {
    match random.below(4) {
        0 => bytes.truncate(random.below(bytes.len() + 1)),
        1 => extend(random, bytes),
        2 => return random.below(4_096),
        _ => return 8 * random.below(MAIN_DATA_BEGIN_MAX + 1),
    }
    n_missing_bits
}

/// Returns a damaged part of a file. Half of these parts are from the start of the file.
fn broken_file(random: &mut Random, file: &[u8]) -> Vec<u8> {
    let start = if random.one_in(2) {
        0
    } else {
        random.below(file.len())
    };
    let end = file.len().min(start + FILE_BYTES);
    let mut bytes = file[start..end].to_vec();

    for _ in 0..1 + random.below(4) {
        let part = random.part(0..bytes.len(), 1_000);
        match random.below(6) {
            0 => flip_bits(random, &mut bytes),
            1 => overwrite(random, &mut bytes),
            2 => drop(bytes.drain(part)),
            3 => bytes.extend_from_within(part),
            // These bytes look like the start of a frame header, but are none.
            4 => bytes[part].fill(0xFF),
            _ => bytes.truncate(part.end),
        }
    }

    bytes
}

fn flip_bits(random: &mut Random, bytes: &mut [u8]) {
    if bytes.is_empty() {
        return;
    }
    for _ in 0..[1, 1, 2, 8, 40][random.below(5)] {
        bytes[random.below(bytes.len())] ^= 1 << random.below(8);
    }
}

/// Sets some adjacent bits to noise, zeros or ones.
fn set_field(random: &mut Random, bytes: &mut [u8]) {
    let kind = random.below(3);
    for bit in random.part(0..8 * bytes.len(), 12) {
        let is_one = match kind {
            0 => random.one_in(2),
            1 => false,
            _ => true,
        };

        let mask = 0x80 >> (bit % 8);
        bytes[bit / 8] = bytes[bit / 8] & !mask | if is_one { mask } else { 0 };
    }
}

/// Overwrites some bytes with noise, zeros or ones.
fn overwrite(random: &mut Random, bytes: &mut [u8]) {
    let part = random.part(0..bytes.len(), 200);
    let part = &mut bytes[part];
    match random.below(3) {
        0 => part.fill_with(|| random.byte()),
        1 => part.fill(0x00),
        _ => part.fill(0xFF),
    }
}

/// Appends random bytes.
fn extend(random: &mut Random, bytes: &mut Vec<u8>) {
    let n_bytes = random.below(1_000);
    bytes.extend((0..n_bytes).map(|_| random.byte()));
}
