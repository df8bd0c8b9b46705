//! Builds test files from parts: audio, and data that decoding skips.

use crate::flac::testing::{frame, head};
use crate::mp4::testing::{TestTrack, mp4_box};
use crate::ogg::testing::{self as pages, CONTINUED, FIRST, LAST, Page};
use crate::wav::testing::{big_chunk, chunk, comm, fmt, ssnd};

/// A part of a test file.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub bytes: Vec<u8>,
    /// True if the part contains audio. Tags, text, an encoder's announcements and junk are not audio.
    pub is_audio: bool,
}

/// A function that creates a test file whose tags have slightly more than the given number of bytes.
pub(crate) type MakeFile = fn(usize) -> Vec<Part>;

/// Names of the test files and functions that create them.
pub(crate) const FORMATS: [(&str, MakeFile); 9] = [
    ("MP3", mp3),
    ("WAV", wav),
    ("AIFF", aiff),
    ("FLAC", flac),
    ("MP4", mp4),
    ("ADTS", adts),
    ("Ogg Opus", opus),
    ("Ogg Vorbis", vorbis),
    ("two links of Ogg Vorbis", two_links),
];

fn audio(bytes: Vec<u8>) -> Part {
    Part {
        bytes,
        is_audio: true,
    }
}

fn other(bytes: Vec<u8>) -> Part {
    Part {
        bytes,
        is_audio: false,
    }
}

pub(crate) fn joined(parts: &[Part]) -> Vec<u8> {
    parts
        .iter()
        .flat_map(|part| part.bytes.iter().copied())
        .collect()
}

/// Returns bytes that do not begin an MP3 or FLAC frame or an Ogg page.
pub(crate) fn text(n_bytes: usize) -> Vec<u8> {
    (0..n_bytes).map(|at| (at * 7 % 251) as u8).collect()
}

pub(super) fn id3v1() -> Vec<u8> {
    [b"TAG".to_vec(), text(125)].concat()
}

pub(super) fn id3v2(n_bytes: usize) -> Vec<u8> {
    // The size of an ID3v2 tag has seven bits per byte.
    let size = [21, 14, 7, 0].map(|shift| (n_bytes >> shift & 0x7F) as u8);
    [&b"ID3\x04\0\0"[..], &size, &text(n_bytes)].concat()
}

/// Returns an APE tag with header and footer.
pub(super) fn ape(n_bytes: usize) -> Vec<u8> {
    [
        ape_end(n_bytes, 5 << 29),
        text(n_bytes),
        ape_end(n_bytes, 1 << 31),
    ]
    .concat()
}

/// Returns the header or the footer of an APE tag.
fn ape_end(n_bytes: usize, flags: u32) -> Vec<u8> {
    let numbers = [2_000, n_bytes as u32 + 32, 1, flags, 0, 0];
    let numbers: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    [b"APETAGEX".to_vec(), numbers].concat()
}

/// Size of the test MP3 frames in bytes: 64 kbit/s, mono, at 44.1 kHz.
pub(crate) const MP3_FRAME_BYTES: usize = 208;
/// Size of a test frame's header and side info in bytes.
const MP3_SIDE_BYTES: usize = 4 + 17;
const MP3_HEADER: [u8; 4] = [0xFF, 0xFB, 0x50, 0xC4];

/// Writes numbers bit by bit, most significant bit first.
#[derive(Default)]
pub(crate) struct BitWriter {
    pub bytes: Vec<u8>,
    n_bits: usize,
}

impl BitWriter {
    pub(crate) fn write(&mut self, value: u32, n_bits: u32) {
        for bit in (0..n_bits).rev() {
            if self.n_bits.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> bit & 1) as u8) << (7 - self.n_bits % 8);
            }
            self.n_bits += 1;
        }
    }
}

/// Returns an MP3 frame of noise. All frames except number 0 take 20 bytes of main data from the previous frame.
pub(super) fn mp3_frame(number: u8) -> Vec<u8> {
    let mut side = BitWriter::default();
    // Side info: distance to the start of the main data in bytes; private bits; no shared scale factors.
    side.write(if number == 0 { 0 } else { 20 }, 9);
    side.write(0, 5 + 4);

    for _ in 0..2 {
        // For each granule: size in bits, number of line pairs, gain, scale factors of zero bits, long blocks.
        side.write(600, 12);
        side.write(80, 9);
        side.write(180, 8);
        side.write(0, 4 + 1);

        // Huffman table 1, in which every bit sequence is valid, for three regions, and the ends of the regions.
        side.write(1, 5);
        side.write(1, 5);
        side.write(1, 5);
        side.write(5, 4);
        side.write(3, 3);
        side.write(0, 3);
    }

    let mut state = u32::from(number) + 1;
    let mut main_data = Vec::new();
    for _ in MP3_SIDE_BYTES..MP3_FRAME_BYTES {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Keep bytes below 0x80, so that none of them can begin a frame header.
        main_data.push((state >> 24) as u8 & 0x7F);
    }
    [&MP3_HEADER[..], &side.bytes, &main_data].concat()
}

pub(crate) fn mp3_frames(numbers: std::ops::Range<u8>) -> Vec<u8> {
    numbers.flat_map(mp3_frame).collect()
}

/// The data that LAME announces in an Info frame.
#[derive(Clone, Copy)]
pub(crate) struct Announced {
    pub n_frames: u32,
    pub n_bytes: u32,
    pub delay_samples: u16,
    pub padding_samples: u16,
}

impl Announced {
    /// Creates the data of an Info frame that announces `n_frames` test frames.
    pub(crate) fn with_frames(n_frames: u32) -> Self {
        Self {
            n_frames,
            n_bytes: n_frames * MP3_FRAME_BYTES as u32,
            delay_samples: 576,
            padding_samples: 1_000,
        }
    }

    pub(crate) fn frame(self) -> Vec<u8> {
        let mut frame = MP3_HEADER.to_vec();
        frame.resize(MP3_SIDE_BYTES, 0);

        // The flags of the Info frame: numbers of frames and bytes are present.
        frame.extend(b"Info\0\0\0\x03");
        frame.extend(self.n_frames.to_be_bytes());
        frame.extend(self.n_bytes.to_be_bytes());
        frame.extend(b"LAME3.100");
        frame.extend([0; 12]);

        // Delay and padding in samples, 12 bits each.
        let trim = u32::from(self.delay_samples) << 12 | u32::from(self.padding_samples);
        frame.extend(&trim.to_be_bytes()[1..]);

        frame.resize(MP3_FRAME_BYTES, 0);
        frame
    }
}

fn mp3(n_tag_bytes: usize) -> Vec<Part> {
    vec![
        other(id3v2(n_tag_bytes)),
        other(Announced::with_frames(25).frame()),
        audio(mp3_frames(0..10)),
        other(text(333)),
        audio(mp3_frames(11..22)),
        other(ape(n_tag_bytes)),
        other(id3v1()),
    ]
}

/// Returns 16-bit samples of a sawtooth.
pub(super) fn saw(n_samples: usize) -> Vec<u8> {
    (0..n_samples)
        .flat_map(|at| ((at * 331 % 20_000) as i16 - 10_000).to_le_bytes())
        .collect()
}

fn wav(n_tag_bytes: usize) -> Vec<Part> {
    let list = [b"INFOINAM".to_vec(), text(n_tag_bytes)].concat();

    // The `data` chunk announces 500 samples more than it contains.
    let mut data = chunk(b"data", &saw(9_500));
    data[4..8].copy_from_slice(&20_000_u32.to_le_bytes());

    vec![
        audio(b"RIFF\0\0\0\0WAVE".to_vec()),
        other(chunk(b"bext", &text(n_tag_bytes))),
        other(fmt(1, 1, 16)),
        other(chunk(b"LIST", &list)),
        audio(data),
    ]
}

fn aiff(n_tag_bytes: usize) -> Vec<Part> {
    // The `SSND` chunk announces 500 samples more than it contains.
    let mut sound = ssnd(&saw(9_500));
    sound[4..8].copy_from_slice(&20_008_u32.to_be_bytes());

    vec![
        audio(b"FORM\0\0\0\0AIFC".to_vec()),
        other(big_chunk(b"NAME", &text(n_tag_bytes))),
        other(comm(b"twos", 1, 16)),
        other(big_chunk(b"ANNO", &text(n_tag_bytes))),
        audio(sound),
    ]
}

fn mp4(n_tag_bytes: usize) -> Vec<Part> {
    let samples: Vec<i16> = (0..9_500)
        .map(|at| (at * 331 % 20_000 - 10_000) as i16)
        .collect();
    let [index, packets] = TestTrack::alac(&samples).parts();
    vec![
        other(id3v2(n_tag_bytes)),
        audio(index),
        audio(packets),
        other(mp4_box(b"free", &text(n_tag_bytes))),
        other(id3v1()),
    ]
}

/// Returns silent frames of AAC with different gains, at 44.1 kHz in mono.
pub(crate) fn aac_frames(numbers: std::ops::Range<u8>) -> Vec<u8> {
    let frame = |number: u8| {
        let mut bits = BitWriter::default();
        // One channel with a gain, without bands and tools; the end.
        bits.write(0, 3 + 4);
        bits.write(u32::from(number), 8);
        bits.write(0, 1 + 2 + 1 + 6 + 1 + 3);
        bits.write(7, 3);
        let header = [0xFF, 0xF1, 0x50, 0x40, 1, 0x7F, 0xFC];
        [&header[..], &bits.bytes].concat()
    };
    numbers.flat_map(frame).collect()
}

fn adts(n_tag_bytes: usize) -> Vec<Part> {
    vec![
        other(id3v2(n_tag_bytes)),
        audio(aac_frames(0..80)),
        other(text(333)),
        audio(aac_frames(81..160)),
        other(ape(n_tag_bytes)),
        other(id3v1()),
    ]
}

/// Returns pages of noise in Opus, with a comment of `n_tag_bytes` bytes.
fn opus(n_tag_bytes: usize) -> Vec<Part> {
    let head = b"OpusHead\x01\x01\x38\x01\x44\xAC\0\0\0\0\0";
    let tags = [b"OpusTags".to_vec(), text(n_tag_bytes)].concat();
    let mut pages = vec![
        pages::packet_page(FIRST, 0, 0, &[head]),
        pages::packet_page(0, 0, 1, &[b"OpusTags"]),
    ];
    // A long comment does not fit on one page.
    if tags.len() < 60_000 {
        pages[1].packets = vec![tags];
    }

    let mut state = 1_u32;
    for number in 0..10_u32 {
        let packets: Vec<Vec<u8>> = (0..3)
            .map(|_| {
                let mut packet = vec![0xF8];
                for _ in 0..60 {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    packet.push((state >> 24) as u8);
                }
                packet
            })
            .collect();
        let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
        let granule = i64::from(number + 1) * 3 * 960;
        let flags = if number == 9 { LAST } else { 0 };
        pages.push(pages::packet_page(flags, granule, number + 2, &packets));
    }
    let mut parts = vec![other(id3v2(n_tag_bytes))];
    parts.extend(parts_of(&pages));
    parts
}

/// Returns a FLAC metadata block.
pub(super) fn block(kind: u8, body: &[u8]) -> Vec<u8> {
    let size = (body.len() as u32).to_be_bytes();
    [&[kind][..], &size[1..], body].concat()
}

pub(crate) fn flac_frames(numbers: std::ops::Range<u8>) -> Vec<u8> {
    numbers.flat_map(frame).collect()
}

fn flac(n_tag_bytes: usize) -> Vec<Part> {
    let mut head = head(15_000);
    // Clear the flag that marks the first metadata block as the last one.
    head[4] = 0;
    let info = head.split_off(8);

    vec![
        other(id3v2(n_tag_bytes)),
        audio(head),
        other(info),
        other(block(4, &text(n_tag_bytes))),
        other(block(6, &text(2 * n_tag_bytes))),
        other(block(0x81, &vec![0; n_tag_bytes])),
        audio(flac_frames(0..8)),
        other(text(100)),
        audio(flac_frames(10..20)),
        other(id3v1()),
    ]
}

/// Splits Ogg pages into parts: the first page and the comment's pages are not audio, the others are. Adds junk between
/// audio pages.
fn parts_of(pages: &[Page]) -> Vec<Part> {
    let rest = pages[2..].iter();
    let n_headers = 2 + rest.take_while(|page| page.flags == CONTINUED).count();

    let mut parts = Vec::new();
    for (at, page) in pages.iter().enumerate() {
        let bytes = pages::page(page);
        if at < n_headers {
            parts.push(other(bytes));
        } else {
            parts.push(audio(bytes));
            parts.push(other(text(at % 2 * 20)));
        }
    }
    parts
}

/// Returns the pages of the test tone with a comment of `n_tag_bytes` bytes.
pub(crate) fn tone(n_tag_bytes: usize) -> Vec<Page> {
    pages::tone(&text(n_tag_bytes), 4)
}

fn vorbis(n_tag_bytes: usize) -> Vec<Part> {
    // The pages with the Vorbis set-up header count as audio here.
    let mut parts = vec![other(id3v2(n_tag_bytes))];
    parts.extend(parts_of(&tone(n_tag_bytes)));
    parts.push(other(id3v1()));
    parts
}

fn two_links(n_tag_bytes: usize) -> Vec<Part> {
    let mut first = tone(n_tag_bytes);
    // Adds a gap to the granules, although no page is missing.
    for page in first.iter_mut().rev().take(5) {
        page.granule += 4_000;
    }

    let mut second = tone(n_tag_bytes / 2);
    for page in &mut second {
        page.serial = 8;
    }

    if let Some(last) = second.last_mut() {
        // Truncate the stream: no page is marked as the stream's last.
        last.flags &= !LAST;
    }

    let mut parts = parts_of(&first);
    parts.extend(parts_of(&second));
    parts
}
