//! Parses AIFF and AIFF-C files: the format in the `COMM` chunk and the samples in the `SSND` chunk.
//!
//! Sources: Audio Interchange File Format 1.3 (Apple, 1989); draft of AIFF-C (Apple, 1991); CoreAudioTypes.h of Apple's
//! SDK for the compression types of later programs; QuickTime File Format Specification (Apple) for the `wave` chunk.

use symphonia::core::codecs::audio::AudioCodecId;
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_PCM_ALAW, CODEC_ID_PCM_F32BE, CODEC_ID_PCM_F64BE, CODEC_ID_PCM_MULAW, CODEC_ID_PCM_S8,
    CODEC_ID_PCM_S16BE, CODEC_ID_PCM_S24BE, CODEC_ID_PCM_S32BE, CODEC_ID_PCM_U8,
};
use wavemill_schemas::reject::{Reason, Reject};

use super::chunks::{Chunks, Format, Wave, at, broken, check_channels, in_order};
use crate::mp4::boxes;
use crate::reject;

/// Size in bytes of the part of a `COMM` chunk before the compression type, which only AIFF-C has.
const COMM_BYTES: usize = 18;
/// Size in bytes of the two numbers before the samples of a `SSND` chunk: an offset and a block size.
const SSND_HEADER_BYTES: usize = 8;

/// Reports whether a file begins with the header of AIFF or AIFF-C.
pub(super) fn is_aiff(file: &[u8]) -> bool {
    file.starts_with(b"FORM") && matches!(file.get(8..12), Some(b"AIFF" | b"AIFC"))
}

/// Finds the format and the samples of an AIFF file, whose chunks may have any order.
///
/// # Errors
/// Same as [`Wave::parse`].
pub(super) fn parse(file: &[u8]) -> Result<Wave<'_>, Reject> {
    let mut format = None;
    let mut sound = None;
    let mut is_little_endian = false;

    for chunk in Chunks::new(file) {
        match &chunk.name {
            b"COMM" => {
                let found = parse_comm(chunk.body).map_err(|reject| at(reject, &chunk))?;
                // If two formats differ, there is no way to know which one is right.
                if format.is_some_and(|format| format != found) {
                    return Err(at(broken("it has two COMM chunks that differ"), &chunk));
                }
                format = Some(found);
            }
            b"SSND" => {
                sound.get_or_insert(chunk);
            }
            // QuickTime describes samples by boxes as in its own files. `enda` states whether they are little-endian.
            b"wave" => {
                let order = boxes::find(chunk.body, &[b"enda"]);
                is_little_endian = order.and_then(|order| boxes::number(order, 0, 2)) == Some(1);
            }
            _ => {}
        }
    }

    let mut format = format.ok_or_else(|| broken("it has no COMM chunk"))?;
    let sound = sound.ok_or_else(|| broken("it has no SSND chunk"))?;
    if is_little_endian {
        format.codec = in_order(format.codec, false);
    }

    // The samples begin after as many bytes as the first number states.
    let (numbers_and_samples, _) = sound.samples(0);
    let Some(header) = numbers_and_samples.first_chunk::<SSND_HEADER_BYTES>() else {
        return Err(at(broken("its SSND chunk is too short"), &sound));
    };
    let offset = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
    let before = SSND_HEADER_BYTES.saturating_add(offset as usize);
    Ok(Wave::new(format, sound.samples(before)))
}

/// Parses the body of a `COMM` chunk. The number of samples in it is not used, because the size of the `SSND` chunk
/// determines it.
fn parse_comm(body: &[u8]) -> Result<Format, Reject> {
    let Some(comm) = body.first_chunk::<COMM_BYTES>() else {
        return Err(broken("its COMM chunk is too short"));
    };
    let channels = usize::from(u16::from_be_bytes([comm[0], comm[1]]));
    check_channels(channels)?;
    let bits = u16::from_be_bytes([comm[6], comm[7]]);

    let mut rate = [0; 10];
    rate.copy_from_slice(&comm[8..]);

    let compression = match body.get(COMM_BYTES..COMM_BYTES + 4) {
        Some(&[a, b, c, d]) => [a, b, c, d],
        _ => *b"NONE",
    };
    let (codec, sample_bytes) = codec(compression, bits).ok_or_else(|| {
        let name = compression.escape_ascii();
        let detail = format!("AIFF of type {name} with {bits} bits a sample is not decoded");
        reject(Reason::UnsupportedCodec, detail)
    })?;

    Ok(Format {
        codec,
        channels,
        rate_hz: rate_hz(rate),
        sample_bytes,
    })
}

/// Returns symphonia's identifier of a sample format and its size in bytes. A type that is spelled backwards, such as
/// `sowt` or `23ni`, is the same format in little-endian order.
fn codec(mut compression: [u8; 4], bits: u16) -> Option<(AudioCodecId, usize)> {
    if let Some(known) = big_endian_codec(compression, bits) {
        return Some(known);
    }
    compression.reverse();
    let (codec, sample_bytes) = big_endian_codec(compression, bits)?;
    Some((in_order(codec, false), sample_bytes))
}

/// Like [`codec`], for types that are not spelled backwards. A sample of, for example, 12 bits is stored in the upper
/// bits of two bytes.
fn big_endian_codec(compression: [u8; 4], bits: u16) -> Option<(AudioCodecId, usize)> {
    let codec = match (&compression, bits) {
        (b"NONE" | b"twos", 1..=8) => (CODEC_ID_PCM_S8, 1),
        (b"NONE" | b"twos", 9..=16) => (CODEC_ID_PCM_S16BE, 2),
        // libsndfile spells `in24` backwards as `42n1`.
        (b"NONE" | b"twos" | b"in24" | b"1n24", 17..=24) => (CODEC_ID_PCM_S24BE, 3),
        (b"NONE" | b"twos" | b"in32", 25..=32) => (CODEC_ID_PCM_S32BE, 4),
        (b"raw ", 1..=8) => (CODEC_ID_PCM_U8, 1),
        (b"fl32" | b"FL32", _) => (CODEC_ID_PCM_F32BE, 4),
        (b"fl64" | b"FL64", _) => (CODEC_ID_PCM_F64BE, 8),
        (b"alaw" | b"ALAW", _) => (CODEC_ID_PCM_ALAW, 1),
        (b"ulaw" | b"ULAW", _) => (CODEC_ID_PCM_MULAW, 1),
        _ => return None,
    };
    Some(codec)
}

/// Returns the sample rate in Hz, without a fraction, from an 80-bit floating-point number; 0 if it has no 32-bit
/// value.
fn rate_hz(extended: [u8; 10]) -> u32 {
    let [sign_and_exponent @ .., _, _, _, _, _, _, _, _] = extended;
    let [_, _, mantissa @ ..] = extended;
    // The bias of the exponent is 16,383, and the mantissa is an integer of 64 bits with the value 2^63 for 1.0.
    let shift = 16_383 + 63 - i32::from(u16::from_be_bytes(sign_and_exponent));
    let shift = u32::try_from(shift).unwrap_or(u32::MAX);
    let rate = u64::from_be_bytes(mantissa).checked_shr(shift);
    rate.and_then(|rate| u32::try_from(rate).ok()).unwrap_or(0)
}
