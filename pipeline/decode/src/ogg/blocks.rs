//! Computes the number of samples of a packet. In Vorbis it follows from the packet's first byte and the preceding
//! packet (Vorbis I §4.3.1), in Opus from the packet alone.

use super::super::opus;
use super::headers::{Ident, PacketKind};
use super::setup::{Modes, ilog};

/// Contribution of a packet to the audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PacketLength {
    /// The packet adds this number of samples.
    Samples(u64),
    /// The packet adds no samples because it is the first one of Vorbis, or the first one after a hole. Only the next
    /// packet overlaps with it.
    First,
    /// The packet does not contain audio.
    NoAudio,
    /// The packet should contain audio, but is not valid.
    Broken,
}

/// Computes the lengths of consecutive packets of one stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lengths {
    Vorbis(Blocks),
    Opus,
}

impl Lengths {
    /// Starts again after a hole.
    pub(super) fn restart(&mut self) {
        if let Self::Vorbis(blocks) = self {
            blocks.restart();
        }
    }

    /// Returns the contribution of the next packet to the audio.
    pub(super) fn next(&mut self, packet: &[u8]) -> PacketLength {
        match self {
            Self::Vorbis(blocks) => blocks.next(packet),
            Self::Opus if packet.is_empty() => PacketLength::NoAudio,
            Self::Opus => {
                opus::packet_samples(packet).map_or(PacketLength::Broken, PacketLength::Samples)
            }
        }
    }

    /// Returns the number of samples that all `packets` together add to the audio.
    pub(super) fn sum(mut self, packets: &[&[u8]]) -> u64 {
        let mut sum = 0;
        for packet in packets {
            if let PacketLength::Samples(samples) = self.next(packet) {
                sum += samples;
            }
        }
        sum
    }
}

/// Tracks the block sizes of a sequence of Vorbis packets.
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

    /// Starts again: the next Vorbis packet has nothing to overlap with and adds no samples.
    fn restart(&mut self) {
        self.before_samples = None;
    }

    /// Returns the contribution of the next Vorbis packet to the audio.
    fn next(&mut self, packet: &[u8]) -> PacketLength {
        match (PacketKind::from_bytes(packet), self.block_samples(packet)) {
            (PacketKind::Audio, Some(samples)) => match self.before_samples.replace(samples) {
                // The number of samples is a quarter of the previous block and a quarter of this one (Vorbis I §4.3.8).
                Some(before) => PacketLength::Samples((before + samples) / 4),
                None => PacketLength::First,
            },
            (PacketKind::Audio | PacketKind::Other, _) if !packet.is_empty() => {
                self.restart();
                PacketLength::Broken
            }
            // The packet is a header or empty.
            _ => PacketLength::NoAudio,
        }
    }

    /// Returns the block size of a Vorbis packet. The packet's mode is in its first byte, after one bit.
    fn block_samples(&self, packet: &[u8]) -> Option<u64> {
        // The mode's number has as many bits as the highest mode needs, and none if there is only one mode.
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
