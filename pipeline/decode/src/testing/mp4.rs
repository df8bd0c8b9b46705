//! Builders of MP4 files and of packets of ALAC for tests.

use super::bits::BitWriter;
use super::tags::{id3v1, id3v2};
use super::{Part, audio, other, text};

/// Sample rate of the test tracks in Hz.
pub(crate) const RATE_HZ: u32 = 44_100;
/// Number of samples of a packet of the test tracks.
pub(crate) const PACKET_SAMPLES: usize = 576;

/// Returns a box.
pub(crate) fn mp4_box(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(8 + body.len()).expect("a small box");
    [&size.to_be_bytes()[..], kind, body].concat()
}

/// Returns the concatenation of some numbers of 32 bits.
pub(crate) fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_be_bytes()).collect()
}

/// Returns a packet of ALAC that contains these samples without compression.
pub(crate) fn alac_packet(samples: &[i16]) -> Vec<u8> {
    alac_channels_packet(&[samples.to_vec()])
}

/// Like [`alac_packet`], for several channels.
pub(crate) fn alac_channels_packet(channels: &[Vec<i16>]) -> Vec<u8> {
    let mut bits = BitWriter::default();
    for samples in channels {
        // An element of one channel, with its number of samples, and without compression.
        bits.write(0, 3 + 4 + 12);
        bits.write(1, 1);
        bits.write(0, 2);
        bits.write(1, 1);
        bits.write(samples.len() as u32, 32);
        for &sample in samples {
            bits.write(u32::from(sample as u16), 16);
        }
    }
    // The end of the packet.
    bits.write(7, 3);
    bits.bytes
}

/// Returns the entry of a mono track of ALAC in a `stsd` box.
pub(crate) fn alac_entry() -> Vec<u8> {
    // Version; samples per packet; compatible version, bits, three parameters, channels; longest run; sizes; rate.
    let cookie = [
        &numbers(&[0, PACKET_SAMPLES as u32])[..],
        &[0, 16, 40, 10, 14, 1, 0, 255],
        &numbers(&[0, 0, RATE_HZ]),
    ]
    .concat();
    mp4_box(
        b"alac",
        &[&[0; 28][..], &mp4_box(b"alac", &cookie)].concat(),
    )
}

/// A track of audio, of which tests change single fields.
#[derive(Clone)]
pub(crate) struct TestTrack {
    pub entry: Vec<u8>,
    pub packets: Vec<Vec<u8>>,
    /// Entries of an edit list: duration in milliseconds, and time in samples.
    pub edits: Vec<[u32; 2]>,
    /// Number of samples according to the durations of the packets.
    pub n_samples: u32,
    /// Bytes at the end of the index.
    pub tags: Vec<u8>,
}

impl TestTrack {
    /// Creates a track of ALAC with these samples.
    pub(crate) fn alac(samples: &[i16]) -> Self {
        let packets = samples.chunks(PACKET_SAMPLES).map(alac_packet);
        Self {
            entry: alac_entry(),
            packets: packets.collect(),
            edits: Vec::new(),
            n_samples: samples.len() as u32,
            tags: Vec::new(),
        }
    }

    /// Returns the boxes of the file before the packets, and the box with the packets. The packets are in chunks of
    /// two.
    pub(crate) fn parts(&self) -> [Vec<u8>; 2] {
        let ftyp = mp4_box(b"ftyp", b"M4A \0\0\0\0");
        // The size of the index does not depend on the positions in it.
        let index_bytes = self.moov(0).len();
        let moov = self.moov((ftyp.len() + index_bytes + 8) as u32);
        let mdat = mp4_box(b"mdat", &self.packets.concat());
        [[ftyp, moov].concat(), mdat]
    }

    pub(crate) fn file(&self) -> Vec<u8> {
        self.parts().concat()
    }

    fn moov(&self, first_offset: u32) -> Vec<u8> {
        let mut offset = first_offset;
        let mut offsets = Vec::new();
        for chunk in self.packets.chunks(2) {
            offsets.push(offset);
            offset += chunk.iter().map(|packet| packet.len() as u32).sum::<u32>();
        }
        self.index(&offsets)
    }

    /// Returns the index with these offsets of the chunks.
    pub(crate) fn index(&self, offsets: &[u32]) -> Vec<u8> {
        let n = self.packets.len() as u32;
        let sizes: Vec<u32> = self
            .packets
            .iter()
            .map(|packet| packet.len() as u32)
            .collect();
        let mut stco = vec![0, offsets.len() as u32];
        stco.extend(offsets);

        let stbl = [
            mp4_box(b"stsd", &[&numbers(&[0, 1])[..], &self.entry].concat()),
            mp4_box(b"stts", &numbers(&[0, 1, 1, self.n_samples])),
            mp4_box(b"stsc", &numbers(&[0, 1, 1, 2, 1])),
            mp4_box(b"stsz", &[numbers(&[0, 0, n]), numbers(&sizes)].concat()),
            mp4_box(b"stco", &numbers(&stco)),
        ];
        let hdlr = [&numbers(&[0, 0])[..], b"soun", &[0; 13]].concat();
        let mdia = [
            mp4_box(b"mdhd", &numbers(&[0, 0, 0, RATE_HZ, self.n_samples, 0])),
            mp4_box(b"hdlr", &hdlr),
            mp4_box(b"minf", &mp4_box(b"stbl", &stbl.concat())),
        ];
        let mut elst = numbers(&[0, self.edits.len() as u32]);
        for [duration, time] in &self.edits {
            elst.extend(numbers(&[*duration, *time, 1 << 16]));
        }
        let trak = [
            mp4_box(b"tkhd", &numbers(&[0, 0, 0, 1, 0])),
            mp4_box(b"edts", &mp4_box(b"elst", &elst)),
            mp4_box(b"mdia", &mdia.concat()),
        ];
        let moov = [
            mp4_box(b"mvhd", &numbers(&[0, 0, 0, 1_000, 0])),
            mp4_box(b"trak", &trak.concat()),
            self.tags.clone(),
        ];
        mp4_box(b"moov", &moov.concat())
    }
}

pub(super) fn parts(n_tag_bytes: usize) -> Vec<Part> {
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
