//! How long a packet is, from its first byte and the packet before it (Vorbis I §4.3.1).

use super::bits::ilog;
use super::headers::{Ident, PacketKind};
use super::setup::Modes;

/// What a packet adds to the audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PacketLength {
    /// So many samples.
    Samples(u64),
    /// None: it is the first one, or the first one behind a hole, and only the next one overlaps with it.
    First,
    /// It belongs to no audio.
    NoAudio,
    /// It should be audio and is not.
    Broken,
}

/// Follows the sizes of the blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    modes: Modes,
    short_samples: u64,
    long_samples: u64,
    before_samples: Option<u64>,
}

impl Blocks {
    pub(super) fn new(ident: &Ident, modes: Modes) -> Self {
        Self {
            modes,
            short_samples: 1 << ident.short_exponent,
            long_samples: 1 << ident.long_exponent,
            before_samples: None,
        }
    }

    /// The next packet adds no audio: nothing overlaps with it.
    pub(super) fn restart(&mut self) {
        self.before_samples = None;
    }

    /// The length of the next packet.
    pub(super) fn next(&mut self, packet: &[u8]) -> PacketLength {
        match (PacketKind::of(packet), self.block_samples(packet)) {
            (PacketKind::Audio, Some(samples)) => match self.before_samples.replace(samples) {
                // Vorbis I §4.3.8: a quarter of the block before, and a quarter of this one.
                Some(before) => PacketLength::Samples((before + samples) / 4),
                None => PacketLength::First,
            },
            (PacketKind::Audio | PacketKind::Other, _) if !packet.is_empty() => {
                self.restart();
                PacketLength::Broken
            }
            // A header, or a packet without a byte.
            _ => PacketLength::NoAudio,
        }
    }

    /// Samples that all of these packets add.
    pub(super) fn sum(mut self, packets: &[&[u8]]) -> u64 {
        let mut sum = 0;
        for packet in packets {
            if let PacketLength::Samples(samples) = self.next(packet) {
                sum += samples;
            }
        }
        sum
    }

    /// Size of the packet's block; its mode is in the first byte, behind one bit.
    fn block_samples(&self, packet: &[u8]) -> Option<u64> {
        // As many bits as the highest mode needs; none if there is one mode only.
        let n_bits = ilog(self.modes.n - 1);
        let mode = u32::from(packet.first()? >> 1) & ((1 << n_bits) - 1);
        if mode >= self.modes.n {
            return None;
        }
        Some(if self.modes.are_long >> mode & 1 == 1 {
            self.long_samples
        } else {
            self.short_samples
        })
    }
}
