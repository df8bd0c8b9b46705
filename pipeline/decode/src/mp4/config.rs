//! Parses the description of an audio track's codec.
//!
//! Sources: ISO/IEC 14496-12 §12.2 (sample entries), 14496-1 §7.2.6 (descriptors), 14496-3 §1.6.2 (AAC); the QuickTime
//! File Format Specification (Apple) for version 1 and 2 of sample entries; ALACMagicCookieDescription.txt (Apple).

use symphonia::core::codecs::audio::AudioCodecId;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_AAC, CODEC_ID_ALAC};
use wavemill_schemas::reject::{Reason, Reject};

use super::boxes::{Boxes, find, number};
use crate::adts::RATES_HZ;
use crate::output::PACKET_SAMPLES_MAX;
use crate::reject;

/// Size in bytes of a sample entry of version 0 before its boxes.
const ENTRY_BYTES: usize = 28;
/// Number of samples of a packet of AAC-LC.
const AAC_PACKET_SAMPLES: u64 = 1_024;
/// Object types of AAC in a decoder's configuration: MPEG-4, and the low complexity of MPEG-2.
const OBJECT_TYPES_AAC: [u8; 2] = [0x40, 0x67];
/// Size of the configurations of AAC that are read, in bytes. Those of low complexity have five at most.
const CONFIG_BYTES_MAX: usize = 64;
/// Size of ALAC's magic cookie without a channel layout, in bytes.
const COOKIE_BYTES: usize = 24;

/// The configuration of a codec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub codec: AudioCodecId,
    /// Configuration that symphonia's decoder requires.
    pub bytes: Vec<u8>,
    pub n_channels: usize,
    pub rate_hz: u32,
    /// Number of samples of a packet, except of the last one of ALAC, which has fewer.
    pub packet_samples: u64,
}

impl Config {
    /// Parses the first entry in the body of a `stsd` box.
    ///
    /// # Errors
    /// A [`Reject`] if the description is broken or the codec is not decoded.
    pub(super) fn parse(stsd: &[u8]) -> Result<Self, Reject> {
        // The entries follow the version and their number.
        let entry = stsd.get(8..).and_then(|bytes| Boxes::new(bytes).next());
        let entry = entry.ok_or_else(|| broken("the track has no description"))?;
        // Versions 1 and 2 have more fields before the boxes.
        let more_bytes = match number(entry.body, 8, 2) {
            Some(1) => 16,
            Some(2) => 36,
            _ => 0,
        };
        let boxes = entry.body.get(ENTRY_BYTES + more_bytes..);
        let boxes = boxes.unwrap_or_default();

        match &entry.kind {
            b"mp4a" => {
                // QuickTime puts the descriptors into one more box.
                let esds = find(boxes, &[b"esds"]).or_else(|| find(boxes, &[b"wave", b"esds"]));
                aac(esds.unwrap_or_default())
            }
            b"alac" => {
                let cookie = find(boxes, &[b"alac"]).or_else(|| find(boxes, &[b"wave", b"alac"]));
                alac(cookie.unwrap_or_default())
            }
            b"enca" | b"drms" => Err(unsupported("encrypted audio in MP4 is not decoded")),
            kind => {
                let name = kind.escape_ascii();
                Err(unsupported(&format!("{name} in MP4 is not decoded")))
            }
        }
    }
}

/// Parses the body of an `esds` box.
fn aac(esds: &[u8]) -> Result<Config, Reject> {
    let cut = || broken("the configuration of AAC is cut short");
    // A version of four bytes; then descriptors within descriptors.
    let es = descriptor(esds.get(4..).unwrap_or_default(), 3).ok_or_else(cut)?;
    let flags = *es.get(2).ok_or_else(cut)?;
    // The flags announce an identifier, a text and another identifier.
    let text_bytes = if flags & 0x40 != 0 {
        1 + es.get(3).copied().map_or(0, usize::from)
    } else {
        0
    };
    let skipped = usize::from(flags >> 7) * 2 + text_bytes + usize::from(flags >> 5 & 1) * 2;
    let decoder = descriptor(es.get(3 + skipped..).unwrap_or_default(), 4).ok_or_else(cut)?;

    let object_type = *decoder.first().ok_or_else(cut)?;
    if !OBJECT_TYPES_AAC.contains(&object_type) {
        let detail = format!("audio of object type {object_type:#04x} in MP4 is not decoded");
        return Err(unsupported(&detail));
    }
    let bytes = descriptor(decoder.get(13..).unwrap_or_default(), 5).ok_or_else(cut)?;
    audio_specific_config(bytes)
}

/// Parses an AudioSpecificConfig.
fn audio_specific_config(bytes: &[u8]) -> Result<Config, Reject> {
    let cut = || broken("the configuration of AAC is cut short");
    let bits = number(bytes, 0, 2).ok_or_else(cut)?;
    let object_type = bits >> 11;
    let name = match object_type {
        2 => None,
        5 | 29 => Some("HE-AAC".to_owned()),
        // The number of an object type over 31 follows in the next 6 bits.
        31 if bits >> 5 & 63 == 10 => Some("xHE-AAC (USAC)".to_owned()),
        31 => Some(format!("AAC of object type {}", 32 + (bits >> 5 & 63))),
        _ => Some(format!("AAC of object type {object_type}")),
    };
    if let Some(name) = name {
        return Err(unsupported(&format!(
            "{name} is not decoded, only AAC of low complexity"
        )));
    }

    // An extension after the configuration announces the upper band (ISO/IEC 14496-3 §1.6.6).
    if matches!(bytes.get(2..5), Some([0x56, 0xE5, flag]) if flag >> 7 == 1) {
        return Err(unsupported(
            "HE-AAC is not decoded, only AAC of low complexity",
        ));
    }

    // Index 15 of the sample rate means that the rate follows in 24 bits.
    let rate = bits >> 7 & 15;
    let (rate_hz, channels) = if rate == 15 {
        let long = number(bytes, 0, 5).ok_or_else(cut)?;
        ((long >> 7) as u32 & 0x00FF_FFFF, long >> 3 & 15)
    } else {
        let rate_hz = RATES_HZ.get(rate as usize).copied().unwrap_or(0);
        (rate_hz, bits >> 3 & 15)
    };
    Ok(Config {
        codec: CODEC_ID_AAC,
        bytes: bytes[..bytes.len().min(CONFIG_BYTES_MAX)].to_vec(),
        n_channels: channels as usize,
        rate_hz,
        packet_samples: AAC_PACKET_SAMPLES,
    })
}

/// Parses the body of an `alac` box, which is a magic cookie after a version of four bytes.
fn alac(body: &[u8]) -> Result<Config, Reject> {
    let cookie = body.get(4..).unwrap_or_default();
    let (Some(packet_samples), Some(&n_channels), Some(rate_hz)) =
        (number(cookie, 0, 4), cookie.get(9), number(cookie, 20, 4))
    else {
        return Err(broken("the configuration of ALAC is cut short"));
    };
    if packet_samples == 0 || packet_samples > PACKET_SAMPLES_MAX as u64 {
        let detail = format!("ALAC with {packet_samples} samples a packet is not decoded");
        return Err(unsupported(&detail));
    }
    Ok(Config {
        codec: CODEC_ID_ALAC,
        // A channel layout after the cookie only names the speakers.
        bytes: cookie[..COOKIE_BYTES].to_vec(),
        n_channels: usize::from(n_channels),
        rate_hz: rate_hz as u32,
        packet_samples,
    })
}

/// Returns the body of the first descriptor with this tag.
fn descriptor(mut bytes: &[u8], tag: u8) -> Option<&[u8]> {
    loop {
        let (&found, mut rest) = bytes.split_first()?;
        // The size has 7 bits per byte, in at most four bytes.
        let mut size = 0;
        for _ in 0..4 {
            let (&byte, behind) = rest.split_first()?;
            rest = behind;
            size = size << 7 | usize::from(byte & 0x7F);
            if byte & 0x80 == 0 {
                break;
            }
        }

        let body = &rest[..size.min(rest.len())];
        if found == tag {
            return Some(body);
        }
        bytes = &rest[body.len()..];
    }
}

fn broken(what: &str) -> Reject {
    reject(Reason::Damaged, format!("a broken header of MP4: {what}"))
}

fn unsupported(detail: &str) -> Reject {
    reject(Reason::UnsupportedCodec, detail)
}
