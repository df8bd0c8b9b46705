//! Parses the chunks of a RIFF WAVE file and the contents of its `fmt ` chunk. AIFF and RIFX consist of the same chunks
//! with big-endian numbers. RF64 and BW64 are RIFF with sizes of 64 bits in one more chunk.
//!
//! symphonia's reader is not used: it overflows on absurd channel counts and masks, and keeps the text of `LIST` chunks
//! in memory. Here a chunk is a slice of the file. A chunk that claims more bytes than the file has ends with the file,
//! and no header field determines the size of an allocation.
//!
//! Sources: Multimedia Programming Interface and Data Specifications 1.0 (IBM, Microsoft, 1991); mmreg.h and ksmedia.h
//! of the Windows SDK for format tags and GUIDs; ITU-R BS.2088 for BW64, which contains RF64 (EBU Tech 3306).

use symphonia::core::codecs::audio::AudioCodecId;
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_PCM_ALAW, CODEC_ID_PCM_F32BE, CODEC_ID_PCM_F32LE, CODEC_ID_PCM_F64BE,
    CODEC_ID_PCM_F64LE, CODEC_ID_PCM_MULAW, CODEC_ID_PCM_S16BE, CODEC_ID_PCM_S16LE,
    CODEC_ID_PCM_S24BE, CODEC_ID_PCM_S24LE, CODEC_ID_PCM_S32BE, CODEC_ID_PCM_S32LE,
    CODEC_ID_PCM_U8,
};
use wavemill_schemas::reject::{Reason, Reject};

use super::aiff;
use crate::{CHANNELS_MAX, reject, tags};

/// Size in bytes of a file's start: `RIFF` or `FORM`, the file size, and the kind of file, such as `WAVE`.
const FILE_HEADER_BYTES: usize = 12;
/// Size in bytes of a chunk's name and size fields.
const CHUNK_HEADER_BYTES: usize = 8;
/// Size in bytes of the part that every `fmt ` chunk has.
const FMT_BYTES: usize = 16;
/// Sizes that programs write before they know the size of the audio, and leave if they cannot seek back to replace
/// them: sox (in AIFF and in WAV), arecord, ffmpeg.
const PLACEHOLDERS: [u64; 4] = [0x7F00_0000, 0x7FFF_F000, 0x8000_0000, 0xFFFF_FFFF];
/// Maximum difference from a placeholder in bytes. Programs round a placeholder to whole samples, and add or subtract
/// the size of their header.
const PLACEHOLDER_ROUNDING: u64 = 256;
/// Size field of a chunk of RF64 whose size is in the chunk `ds64`.
const SIZE_IN_DS64: u64 = u32::MAX as u64;

const TAG_PCM: u16 = 1;
const TAG_FLOAT: u16 = 3;
const TAG_ALAW: u16 = 6;
const TAG_MULAW: u16 = 7;
const TAG_MP3: u16 = 0x55;
const TAG_EXTENSIBLE: u16 = 0xFFFE;
/// Offset of the format in an extensible `fmt ` chunk. The format is a GUID that begins with the format tag.
const GUID_AT: usize = 24;
/// Last 14 bytes of the GUIDs for plain audio and for audio in Ambisonic B-format.
const GUID_ENDS: [[u8; 14]; 2] = [
    [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71],
    [
        0, 0, 0x21, 0x07, 0xD3, 0x11, 0x86, 0x44, 0xC8, 0xC1, 0xCA, 0, 0, 0,
    ],
];

/// Numbers of a `fmt ` chunk by their sizes in bytes: tag, channels, rate, byte rate, block size, bits; then those of an
/// extensible chunk: size, valid bits, speakers, and the tag with which the GUID begins. In RIFX by sox, the only program
/// known to write extensible chunks there, the rest of the GUID is as in RIFF.
const FMT_NUMBERS: [usize; 10] = [2, 2, 4, 4, 2, 2, 2, 2, 4, 2];
/// Sample formats that consist of several bytes, little-endian and big-endian.
const BYTE_ORDERS: [[AudioCodecId; 2]; 5] = [
    [CODEC_ID_PCM_S16LE, CODEC_ID_PCM_S16BE],
    [CODEC_ID_PCM_S24LE, CODEC_ID_PCM_S24BE],
    [CODEC_ID_PCM_S32LE, CODEC_ID_PCM_S32BE],
    [CODEC_ID_PCM_F32LE, CODEC_ID_PCM_F32BE],
    [CODEC_ID_PCM_F64LE, CODEC_ID_PCM_F64BE],
];

#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk<'a> {
    pub name: [u8; 4],
    /// Size of the chunk as stated in its header or in `ds64`; `body` may be shorter.
    size: u64,
    pub body: &'a [u8],
    /// The file from the beginning of the body.
    rest: &'a [u8],
    offset: usize,
    is_big_endian: bool,
}

impl<'a> Chunk<'a> {
    /// Returns the samples in this chunk, which begin after `before` bytes, and their announced size in bytes. If the
    /// program that wrote the file did not know the size, the samples extend to the end of the file and the size is
    /// `None`.
    pub(super) fn samples(&self, before: usize) -> (&'a [u8], Option<u64>) {
        // A recorder that was cut off leaves the size of a chunk without samples.
        let is_empty = self.size <= before as u64;
        let behind = self.rest.get(self.body.len()..).unwrap_or_default();
        let mut chunks_behind = Chunks::at(behind, 0, self.is_big_endian);
        let is_cut_off = is_empty && !chunks_behind.all(|chunk| chunk.is_whole());
        let mut known = PLACEHOLDERS.iter();
        let is_placeholder = known.any(|size| size.abs_diff(self.size) < PLACEHOLDER_ROUNDING);

        if is_cut_off || is_placeholder {
            return (self.rest.get(before..).unwrap_or_default(), None);
        }
        let samples = self.body.get(before..).unwrap_or_default();
        (samples, Some(self.size.saturating_sub(before as u64)))
    }

    /// Returns the offset of the end of the body in the file.
    const fn end(&self) -> usize {
        self.offset + CHUNK_HEADER_BYTES + self.body.len()
    }

    /// Reports whether the chunk has a name of printable characters and is completely in the file.
    fn is_whole(&self) -> bool {
        let is_name = self.name.iter().all(|byte| (b' '..=b'~').contains(byte));
        is_name && self.body.len() as u64 == self.size
    }
}

/// Iterator over the chunks of a RIFF WAVE or AIFF file.
pub(super) struct Chunks<'a> {
    file: &'a [u8],
    at: usize,
    is_big_endian: bool,
    /// Size of the `data` chunk as stated in the chunk `ds64`.
    data_bytes: Option<u64>,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(file: &'a [u8]) -> Self {
        let is_big_endian = file.starts_with(b"FORM") || file.starts_with(b"RIFX");
        Self::at(file, FILE_HEADER_BYTES, is_big_endian)
    }

    /// Creates an iterator over the chunks from an offset in the file.
    const fn at(file: &'a [u8], at: usize, is_big_endian: bool) -> Self {
        Self {
            file,
            at,
            is_big_endian,
            data_bytes: None,
        }
    }

    /// Returns the first chunk of odd size that another chunk follows without a padding byte between them. All chunks
    /// behind it are one byte before the place where they are expected.
    fn unpadded(mut self) -> Option<Chunk<'a>> {
        let (file, is_big_endian) = (self.file, self.is_big_endian);
        let is_chunk = |at: usize| {
            let chunk = Self::at(file, at, is_big_endian).next();
            // Samples may be cut off.
            chunk.is_some_and(|chunk| chunk.is_whole() || matches!(&chunk.name, b"data" | b"SSND"))
        };
        self.find(|chunk| {
            let end = chunk.end();
            chunk.size % 2 == 1 && is_chunk(end) && !is_chunk(end + 1)
        })
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        let offset = self.at;
        let &[a, b, c, d, size @ ..] = self
            .file
            .get(offset..)?
            .first_chunk::<CHUNK_HEADER_BYTES>()?;
        let name = [a, b, c, d];
        let mut size = u64::from(if self.is_big_endian {
            u32::from_be_bytes(size)
        } else {
            u32::from_le_bytes(size)
        });
        if name == *b"data" && size == SIZE_IN_DS64 {
            size = self.data_bytes.unwrap_or(size);
        }

        // `rest` is within the file, since the chunk's header is complete.
        let rest = &self.file[offset + CHUNK_HEADER_BYTES..];
        let n_bytes = usize::try_from(size).unwrap_or(usize::MAX);
        let body = &rest[..n_bytes.min(rest.len())];
        // The size of the data follows the size of the file.
        if name == *b"ds64" {
            let number = body.get(8..).and_then(<[u8]>::first_chunk);
            self.data_bytes = number.map(|&bytes| u64::from_le_bytes(bytes));
        }

        // A chunk of odd size is followed by a padding byte.
        let end = (offset + CHUNK_HEADER_BYTES).saturating_add(n_bytes);
        self.at = end.saturating_add(n_bytes % 2);
        Some(Chunk {
            name,
            size,
            body,
            rest,
            offset,
            is_big_endian: self.is_big_endian,
        })
    }
}

/// The format of the samples in a WAV or AIFF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    /// symphonia's identifier of the sample format.
    pub codec: AudioCodecId,
    /// Number of channels, 1 to [`CHANNELS_MAX`].
    pub channels: usize,
    /// Sample rate, Hz; not validated.
    pub rate_hz: u32,
    /// Size of one sample of one channel in bytes, 1 to 8.
    pub sample_bytes: usize,
}

impl Format {
    /// Returns the size of one sample over all channels in bytes, 1 to 64.
    pub(super) fn frame_bytes(&self) -> usize {
        self.sample_bytes * self.channels
    }

    /// Parses a WAV file's `fmt ` chunk.
    fn parse(chunk: &Chunk) -> Result<Self, Reject> {
        let body = &little_endian_fmt(chunk)[..];
        if body.len() < FMT_BYTES {
            return Err(broken("its fmt chunk is too short"));
        }
        let channels = usize::from(word(body, 2));
        let rate_hz = u32::from(word(body, 4)) | u32::from(word(body, 6)) << 16;
        let bits = word(body, 14);
        check_channels(channels)?;

        let tag = tag(body)?;
        let (codec, sample_bytes) = match (tag, bits) {
            (TAG_PCM, 8) => (CODEC_ID_PCM_U8, 1),
            (TAG_PCM, 16) => (CODEC_ID_PCM_S16LE, 2),
            (TAG_PCM, 24) => (CODEC_ID_PCM_S24LE, 3),
            (TAG_PCM, 32) => (CODEC_ID_PCM_S32LE, 4),
            (TAG_FLOAT, 32) => (CODEC_ID_PCM_F32LE, 4),
            (TAG_FLOAT, 64) => (CODEC_ID_PCM_F64LE, 8),
            // A-law and µ-law have one byte per sample, regardless of the number of bits in the chunk.
            (TAG_ALAW, _) => (CODEC_ID_PCM_ALAW, 1),
            (TAG_MULAW, _) => (CODEC_ID_PCM_MULAW, 1),
            _ => {
                let detail =
                    format!("WAV of format {tag:#06x} with {bits} bits a sample is not decoded");
                return Err(reject(Reason::UnsupportedCodec, detail));
            }
        };
        let format = Self {
            codec: in_order(codec, chunk.is_big_endian),
            channels,
            rate_hz,
            sample_bytes,
        };
        if matches!(tag, TAG_PCM | TAG_FLOAT) {
            format.check_blocks(body)?;
        }
        Ok(format)
    }

    /// Checks that the samples fill their blocks. For example, samples of 24 bits may be stored in four bytes each.
    fn check_blocks(&self, body: &[u8]) -> Result<(), Reject> {
        let byte_rate = u64::from(word(body, 8)) | u64::from(word(body, 10)) << 16;
        let block_bytes = usize::from(word(body, 12));
        // Some programs write any block size. It is ignored unless the byte rate confirms it.
        let is_confirmed = byte_rate == u64::from(self.rate_hz) * block_bytes as u64;

        let frame_bytes = self.frame_bytes();
        let is_padded = block_bytes > frame_bytes && block_bytes.is_multiple_of(self.channels);
        if is_padded && is_confirmed {
            let detail = format!(
                "WAV with samples of {frame_bytes} bytes in blocks of {block_bytes} bytes is not decoded"
            );
            return Err(reject(Reason::UnsupportedCodec, detail));
        }
        Ok(())
    }
}

/// Checks the channel count of a header.
pub(super) fn check_channels(channels: usize) -> Result<(), Reject> {
    if channels == 0 {
        return Err(broken("it announces no channel"));
    }
    crate::check_channels(channels, CHANNELS_MAX)
}

/// Returns the format tag of a `fmt ` chunk, or the format tag in its GUID. The speaker mask next to the GUID is
/// ignored: the channels are averaged, regardless of their speakers.
fn tag(body: &[u8]) -> Result<u16, Reject> {
    let tag = word(body, 0);
    if tag != TAG_EXTENSIBLE {
        return Ok(tag);
    }

    let guid = body
        .get(GUID_AT..GUID_AT + 16)
        .ok_or_else(|| broken("its fmt chunk is too short"))?;
    if !GUID_ENDS.iter().any(|end| guid[2..] == *end) {
        return Err(reject(
            Reason::UnsupportedCodec,
            "WAV of an unknown format GUID is not decoded",
        ));
    }
    Ok(word(guid, 0))
}

/// The audio of a WAV or AIFF file.
#[derive(Debug)]
pub(super) struct Wave<'a> {
    /// Format of the samples.
    pub format: Format,
    /// Bytes of the complete samples in the file. A sample here comprises all channels.
    pub data: &'a [u8],
    /// Number of samples announced by the header; `None` if the program that wrote the file did not know the number.
    pub n_announced: Option<u64>,
}

impl<'a> Wave<'a> {
    /// Finds the format and the samples of a file that begins with the header of RIFF WAVE or AIFF, after any tags.
    ///
    /// # Errors
    /// A [`Reject`] if format or samples are missing, if two formats differ, or if the format is not supported.
    pub(super) fn parse(file: &'a [u8]) -> Result<Self, Reject> {
        let file = &file[tags::skip(file, 0)..];
        let parsed = if file.starts_with(b"FORM") {
            aiff::parse(file)
        } else {
            Self::parse_riff(file)
        };
        parsed.map_err(|reject| match Chunks::new(file).unpadded() {
            Some(chunk) if reject.reason == Reason::NotAudio => no_padding(&chunk),
            _ => reject,
        })
    }

    fn parse_riff(file: &'a [u8]) -> Result<Self, Reject> {
        let mut format = None;

        for chunk in Chunks::new(file) {
            match &chunk.name {
                b"fmt " => {
                    let found = Format::parse(&chunk).map_err(|reject| at(reject, &chunk))?;
                    // Two equal `fmt ` chunks are harmless. If they differ, there is no way to know which one is right.
                    if format.is_some_and(|format| format != found) {
                        return Err(at(broken("it has two fmt chunks that differ"), &chunk));
                    }
                    format = Some(found);
                }
                b"data" => {
                    let format = format
                        .ok_or_else(|| at(broken("its data come before a fmt chunk"), &chunk))?;
                    return Ok(Self::new(format, chunk.samples(0)));
                }
                _ => {}
            }
        }

        Err(broken("it has no data chunk"))
    }

    /// Creates the audio from the bytes of the samples and their announced size, if it is known.
    pub(super) fn new(format: Format, (samples, size): (&'a [u8], Option<u64>)) -> Self {
        let frame_bytes = format.frame_bytes();
        // Omit an incomplete last sample of a truncated file, because the sample lacks some channels.
        let data = &samples[..samples.len() / frame_bytes * frame_bytes];
        Self {
            format,
            data,
            n_announced: size.map(|size| size / frame_bytes as u64),
        }
    }
}

/// Reports whether a file begins with the header of RIFF WAVE, or of RIFX, RF64 or BW64 instead of RIFF.
pub(super) fn is_wave(file: &[u8]) -> bool {
    let is_known = matches!(file.get(..4), Some(b"RIFF" | b"RIFX" | b"RF64" | b"BW64"));
    is_known && file.get(8..12) == Some(b"WAVE")
}

/// Reports whether a file is WAVE whose first `fmt ` chunk announces MP3, so that it is a container of MPEG frames.
pub(crate) fn holds_mp3(file: &[u8]) -> bool {
    if !is_wave(file) {
        return false;
    }
    let fmt = Chunks::new(file).find(|chunk| &chunk.name == b"fmt ");
    fmt.is_some_and(|fmt| fmt.body.len() >= 2 && word(&little_endian_fmt(&fmt), 0) == TAG_MP3)
}

/// Returns the body of a `fmt ` chunk with little-endian numbers, of at most the bytes that are read.
fn little_endian_fmt(chunk: &Chunk) -> Vec<u8> {
    let mut body = chunk.body[..chunk.body.len().min(GUID_AT + 16)].to_vec();
    if chunk.is_big_endian {
        let mut at = 0;
        for n_bytes in FMT_NUMBERS {
            let number = body.get_mut(at..at + n_bytes).unwrap_or_default();
            number.reverse();
            at += n_bytes;
        }
    }
    body
}

/// Returns the sample format with this byte order; formats of single bytes have none.
pub(super) fn in_order(codec: AudioCodecId, is_big_endian: bool) -> AudioCodecId {
    let orders = BYTE_ORDERS.iter().find(|orders| orders.contains(&codec));
    orders.map_or(codec, |orders| orders[usize::from(is_big_endian)])
}

/// Reads a two-byte little-endian number. The caller guarantees that the bytes exist.
fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn broken(what: &str) -> Reject {
    reject(
        Reason::NotAudio,
        format!("a broken header of WAV or AIFF: {what}"),
    )
}

/// Returns the reject for a file whose chunks are displaced by one byte after `chunk`.
fn no_padding(chunk: &Chunk) -> Reject {
    let what = format!(
        "its chunk {} at byte {} has {} bytes, and the padding byte after this odd number is missing: \
         insert a byte 0 at byte {}",
        chunk.name.escape_ascii(),
        chunk.offset,
        chunk.size,
        chunk.end()
    );
    at(broken(&what), chunk)
}

/// Adds the offset of a chunk to a reject.
pub(super) fn at(reject: Reject, chunk: &Chunk) -> Reject {
    Reject {
        byte_offset: Some(chunk.offset as u64),
        ..reject
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wav::{chunk, fmt, riff, with_size};

    fn outcome(chunks: &[Vec<u8>]) -> Result<(u64, usize), (Reason, String)> {
        let file = riff(chunks);
        let wave = Wave::parse(&file).map_err(|reject| (reject.reason, reject.detail))?;
        Ok((wave.n_announced.unwrap_or(u64::MAX), wave.data.len()))
    }

    fn refused(chunks: &[Vec<u8>], reason: Reason, message: &str) {
        let (got, detail) = outcome(chunks).unwrap_err();
        assert_eq!(got, reason, "{detail}");
        assert!(detail.contains(message), "{detail}");
    }

    #[test]
    fn excessive_channel_counts_are_too_large_in_any_chunk_order() {
        let data = chunk(b"data", &[0; 8]);
        let late = chunk(b"JUNK", &[0; 5_000]);
        let many = fmt(1, 65_535, 16);

        for chunks in [
            vec![many.clone(), data.clone()],
            vec![late, many.clone(), data.clone()],
            vec![fmt(1, 1, 16), many, data.clone()],
        ] {
            refused(&chunks, Reason::TooLarge, "65535 channels");
        }
        refused(&[fmt(1, 0, 16), data], Reason::NotAudio, "no channel");
    }

    #[test]
    fn contradictory_headers_are_described() {
        let data = chunk(b"data", &[0; 8]);

        let [mono, stereo] = [1, 2].map(|n_channels| fmt(1, n_channels, 16));
        let short = chunk(b"fmt ", &[1, 0, 1, 0]);
        for (chunks, message) in [
            (vec![mono.clone(), stereo, data.clone()], "two fmt chunks"),
            (vec![data.clone(), mono.clone()], "before a fmt chunk"),
            (vec![short, data.clone()], "too short"),
            (vec![fmt(0xFFFE, 1, 16), data.clone()], "too short"),
            (vec![mono], "no data chunk"),
            (vec![], "no data chunk"),
        ] {
            refused(&chunks, Reason::NotAudio, message);
        }
        for (header, message) in [(fmt(1, 1, 12), "12 bits"), (fmt(2, 1, 4), "0x0002")] {
            let chunks = [header, data.clone()];
            refused(&chunks, Reason::UnsupportedCodec, message);
        }

        assert_eq!(
            outcome(&[fmt(1, 1, 16), fmt(1, 1, 16), data]),
            Ok((4, 8)),
            "the same said twice is no contradiction"
        );
    }

    /// Returns a `fmt ` chunk with another block size, and with the byte rate that belongs to it.
    fn with_blocks(mut fmt: Vec<u8>, block_bytes: u16) -> Vec<u8> {
        let byte_rate = 44_100 * u32::from(block_bytes);
        fmt[16..20].copy_from_slice(&byte_rate.to_le_bytes());
        fmt[20..22].copy_from_slice(&block_bytes.to_le_bytes());
        fmt
    }

    #[test]
    fn samples_in_larger_blocks_are_not_decoded() {
        let data = chunk(b"data", &[0; 24]);
        let message = "samples of 6 bytes in blocks of 8 bytes";
        let padded = with_blocks(fmt(1, 2, 24), 8);
        let chunks = [padded.clone(), data.clone()];
        refused(&chunks, Reason::UnsupportedCodec, message);

        // Block sizes that no container has are ignored, and so is one that the byte rate contradicts.
        let mut contradicted = padded;
        contradicted[16..20].copy_from_slice(&(44_100 * 6_u32).to_le_bytes());
        for header in [
            with_blocks(fmt(1, 2, 24), 0),
            with_blocks(fmt(1, 2, 24), 3),
            with_blocks(fmt(1, 2, 24), 7),
            contradicted,
        ] {
            assert_eq!(outcome(&[header, data.clone()]), Ok((4, 24)));
        }

        // A-law has one byte per sample.
        let a_law = with_blocks(fmt(6, 1, 8), 2);
        assert_eq!(outcome(&[a_law, data]), Ok((24, 24)));
    }

    #[test]
    fn chunk_sizes_are_limited_by_the_file() {
        let most = with_size(chunk(b"data", &[0; 8]), u32::MAX - 1_001);
        assert_eq!(
            outcome(&[fmt(1, 1, 16), most]),
            Ok((u64::from(u32::MAX / 2) - 500, 8))
        );

        let mut list = chunk(b"LIST", b"INFOINAM\xFF\xFF\xFF\x7F");
        assert_eq!(
            outcome(&[list.clone(), fmt(1, 2, 16), chunk(b"data", &[0; 9])]),
            Ok((2, 8)),
            "text is not read"
        );
        list[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        let chunks = [list, fmt(1, 2, 16), chunk(b"data", &[0; 8])];
        refused(&chunks, Reason::NotAudio, "no data chunk");
    }

    #[test]
    fn sizes_near_placeholders_are_unknown_and_others_are_not() {
        let announced = |size| {
            let data = with_size(chunk(b"data", &[0; 8]), size);
            outcome(&[fmt(1, 2, 16), data]).map(|(n_announced, _)| n_announced)
        };
        for unknown in [
            0,
            0x7F00_0008,
            0x7FFF_EFFC,
            0x7FFF_F000,
            0x7FFF_FFFF,
            0x8000_0024,
            0xFFFF_FFDB,
        ] {
            assert_eq!(announced(unknown), Ok(u64::MAX), "{unknown:#x}");
        }
        for known in [4, 0x7F10_0000, 0x7FFF_E000, 0x8001_0000, 0xFFFF_0000] {
            assert_eq!(announced(known), Ok(u64::from(known) / 4), "{known:#x}");
        }

        // Chunks behind a chunk of size 0 are not audio.
        let list = chunk(b"LIST", b"INFOISFT\x02\0\0\0me");
        let empty = [fmt(1, 2, 16), chunk(b"data", &[]), list];
        assert_eq!(outcome(&empty), Ok((0, 0)));
    }

    #[test]
    fn missing_padding_byte_is_described_with_its_chunk() {
        let mut list = chunk(b"LIST", b"INFOISFT\x01\0\0\0x");
        let data = chunk(b"data", &[0; 8]);
        let padded = [fmt(1, 1, 16), list.clone(), data.clone()];
        assert_eq!(outcome(&padded), Ok((4, 8)));

        // The chunk begins after the header of 12 bytes and a chunk of 24 bytes.
        list.pop();
        let message = "chunk LIST at byte 36 has 13 bytes, and the padding byte after this odd number is missing: \
                     insert a byte 0 at byte 57";
        let unpadded = [fmt(1, 1, 16), list, data];
        refused(&unpadded, Reason::NotAudio, message);
    }

    /// Returns an extensible `fmt ` chunk for two channels, followed by a `data` chunk.
    fn extensible(bits: u16, mask: u32, guid_tag: u8, guid_end: &[u8]) -> [Vec<u8>; 2] {
        let mut body = fmt(0xFFFE, 2, bits)[8..].to_vec();
        body.extend([22, 0, bits as u8, 0]);
        body.extend(mask.to_le_bytes());
        body.extend([guid_tag, 0]);
        body.extend(guid_end);
        [chunk(b"fmt ", &body), chunk(b"data", &[0; 24])]
    }

    #[test]
    fn extensible_format_is_read_from_the_guid() {
        for mask in [0, 3, u32::MAX, 0x8000_0000] {
            assert_eq!(
                outcome(&extensible(24, mask, 1, &GUID_ENDS[0])),
                Ok((4, 24)),
                "{mask:#x}"
            );
        }

        assert_eq!(outcome(&extensible(32, 3, 3, &GUID_ENDS[1])), Ok((3, 24)));
        for (chunks, message) in [
            (extensible(24, 3, 1, &[7; 14]), "GUID"),
            (extensible(40, 3, 1, &GUID_ENDS[0]), "40 bits"),
        ] {
            refused(&chunks, Reason::UnsupportedCodec, message);
        }
    }

    #[test]
    fn mp3_in_wave_is_detected_by_the_first_fmt_chunk() {
        assert!(holds_mp3(&riff(&[
            chunk(b"LIST", b"INFOfmt \x01\0"),
            fmt(0x55, 2, 0)
        ])));
        assert!(!holds_mp3(&riff(&[fmt(1, 2, 16), fmt(0x55, 2, 0)])));
        assert!(!holds_mp3(&riff(&[])));
        assert!(!holds_mp3(b"RIFF"));
    }
}
