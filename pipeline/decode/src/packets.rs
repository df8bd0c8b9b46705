//! Decodes the packets of MP4 and ADTS files and accounts for every lost sample.
//!
//! Both formats consist of packets with a known number of samples. A packet that cannot be decoded becomes silence of
//! that length. So do packets whose number is known but whose bytes are missing, if other packets follow. Nothing
//! replaces a hole of unknown length. All three count as lost.

use std::fmt::Debug;

use symphonia::core::codecs::audio::well_known::CODEC_ID_AAC;
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters};
use wavemill_schemas::reject::{Reason, Reject};
use wavemill_signal::resample::{MAX_FROM_HZ, MIN_HZ};

use super::codec::Codec;
use super::format::{AudioFormat, DecoderParts};
use super::key::KeyHasher;
use super::loss::{Loss, is_credible};
use super::output::{Output, Sink};
use super::{CHANNELS_MAX, DecodeReport, DecodeResult, InputFacts, Pcm, check_channels, reject};

/// Maximum number of decoders that are created for one file, because each takes as long as many packets.
const RENEWALS_MAX: u32 = 100;

/// Returns the maximum number of channels of a codec. symphonia decodes AAC in mono and stereo only.
pub(super) fn channels_max(codec: AudioCodecId) -> usize {
    if codec == CODEC_ID_AAC {
        2
    } else {
        CHANNELS_MAX
    }
}

/// A format of files that consist of packets. `audio_blake3` is computed over all packets, without their headers, so it
/// is the same for equal packets in different formats.
pub(super) trait PacketFormat: Debug + Sync {
    /// Same as [`AudioFormat::matches`].
    fn matches(bytes: &[u8]) -> bool;

    /// Finds the packets of a file that matches.
    ///
    /// # Errors
    /// A [`Reject`] if the file has no audio that can be decoded.
    fn parse(file: &[u8])
    -> Result<(AudioTrack, impl Iterator<Item = Packet<'_>> + Clone), Reject>;
}

impl<F: PacketFormat> AudioFormat for F {
    fn matches(&self, bytes: &[u8]) -> bool {
        F::matches(bytes)
    }

    fn facts(&self, file: &[u8]) -> InputFacts {
        match F::parse(file) {
            Ok((track, packets)) => Survey::new(&track, packets).facts,
            Err(_) => InputFacts::default(),
        }
    }

    fn longest_s(&self, file: &[u8]) -> f64 {
        F::parse(file).map_or(0.0, |(track, packets)| longest_s(&track, packets))
    }

    fn decode(&self, file: &[u8], parts: &mut DecoderParts, out: &mut Pcm) -> DecodeResult {
        let (track, packets) = F::parse(file)?;
        decode(&track, packets, &mut parts.output, out)
    }
}

/// The format of a file's packets.
#[derive(Clone, Debug)]
pub(super) struct AudioTrack {
    /// symphonia's identifier of the codec.
    pub codec: AudioCodecId,
    /// Configuration that the codec requires: an AudioSpecificConfig for AAC, a magic cookie for ALAC.
    pub config: Vec<u8>,
    /// Number of channels, not validated.
    pub n_channels: usize,
    /// Sample rate, Hz; not validated.
    pub rate_hz: u32,
    /// Number of samples before the first sample of the recording, which the encoder added.
    pub start: u64,
    /// Number of samples up to the end of the recording, including those before `start`; `None` keeps all.
    pub end: Option<u64>,
}

/// A part of a file's audio.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    /// Offset in the file.
    pub offset: usize,
    /// Number of samples per channel. For a hole, the number of samples of one packet in its place.
    pub n_samples: u64,
    pub content: Content<'a>,
}

/// The bytes of a packet, or the reason why there are none.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    Bytes(&'a [u8]),
    /// One or more packets whose bytes are not in the file or cannot contain audio.
    Absent,
    /// A frame whose bytes are in the file, but which symphonia does not decode.
    Undecoded,
    /// This number of bytes that are not a packet, in place of an unknown number of packets.
    Hole(usize),
    /// No packet: the following packets have another format.
    Change(Format),
}

/// The part of a track's format that can change from packet to packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    /// Configuration of the codec.
    pub config: [u8; 2],
    /// Sample rate in Hz, which is supported.
    pub rate_hz: u32,
}

/// The results of a first pass over all packets.
struct Survey {
    facts: InputFacts,
    audio_blake3: blake3::Hash,
    n_packets: u64,
    n_bytes: u64,
    /// Number of samples of the packets in the file.
    n_samples: u64,
    /// Number of samples of the absent packets.
    n_absent: u64,
    has_undecoded: bool,
    has_several_rates: bool,
}

impl Survey {
    fn new<'a>(track: &AudioTrack, packets: impl Iterator<Item = Packet<'a>>) -> Self {
        let mut key = KeyHasher::new("packets");
        key.bytes(track.codec.to_string().as_bytes());
        key.bytes(&track.config);
        let format = [track.n_channels as u64, u64::from(track.rate_hz)];
        key.item("format", &format);
        key.item("start", &[track.start]);
        key.item("end", track.end.as_slice());

        let mut hasher = blake3::Hasher::new();
        let mut survey = Self {
            facts: InputFacts::default(),
            audio_blake3: hasher.finalize(),
            n_packets: 0,
            n_bytes: 0,
            n_samples: 0,
            n_absent: 0,
            has_undecoded: false,
            has_several_rates: false,
        };
        for packet in packets {
            match packet.content {
                Content::Bytes(data) => {
                    hasher.update(data);
                    key.item("packet", &[data.len() as u64, packet.n_samples]);
                    survey.n_packets += 1;
                    survey.n_bytes += data.len() as u64;
                    survey.n_samples += packet.n_samples;
                }
                Content::Absent => {
                    key.item("absent", &[packet.n_samples]);
                    survey.n_absent = survey.n_absent.saturating_add(packet.n_samples);
                }
                Content::Undecoded => {
                    key.item("undecoded", &[packet.n_samples]);
                    survey.has_undecoded = true;
                }
                Content::Hole(bytes) => key.item("hole", &[bytes as u64, packet.n_samples]),
                Content::Change(format) => {
                    key.bytes(&format.config);
                    survey.has_several_rates |= format.rate_hz != track.rate_hz;
                }
            }
        }

        survey.audio_blake3 = hasher.finalize();
        if survey.n_packets > 0 {
            let decode_key = key.finish(&survey.audio_blake3);
            survey.facts = InputFacts::from_audio(survey.audio_blake3, decode_key);
        }
        survey
    }

    /// Returns the number of samples that a hole could contain, at least those of one packet; 0 for other packets.
    fn hole_samples(&self, packet: &Packet) -> u64 {
        let Content::Hole(bytes) = packet.content else {
            return 0;
        };
        let mean_bytes = self.n_bytes as f64 / self.n_packets.max(1) as f64;
        let n_packets = (bytes as f64 / mean_bytes.max(1.0)).round().max(1.0);
        n_packets as u64 * packet.n_samples
    }

    /// Reports whether the absent packets count. A table of packets takes few bytes and may be wrong.
    fn are_absent_credible(&self) -> bool {
        is_credible(self.n_samples.saturating_add(self.n_absent), self.n_samples)
    }
}

/// Returns an upper bound on the duration of a file in seconds.
fn longest_s<'a>(track: &AudioTrack, packets: impl Iterator<Item = Packet<'a>>) -> f64 {
    let mut seconds = 0.0;
    let mut rate_hz = track.rate_hz.clamp(MIN_HZ, MAX_FROM_HZ);
    for packet in packets {
        match packet.content {
            // Nothing replaces a hole in the output.
            Content::Hole(_) => {}
            Content::Change(format) => rate_hz = format.rate_hz,
            _ => seconds += packet.n_samples as f64 / f64::from(rate_hz),
        }
    }
    seconds
}

/// Decodes the packets of a file into `out`.
fn decode<'a>(
    track: &AudioTrack,
    packets: impl Iterator<Item = Packet<'a>> + Clone,
    output: &mut Output,
    out: &mut Pcm,
) -> DecodeResult {
    let survey = Survey::new(track, packets.clone());
    out.decode_key = survey.facts.decode;
    if survey.n_packets == 0 && survey.has_undecoded {
        let detail = "AAC frames of several blocks are not decoded, and the file has no others";
        return Err(reject(Reason::UnsupportedCodec, detail));
    }
    if survey.n_packets == 0 {
        let detail = "the file ends before its first packet of audio";
        return Err(reject(Reason::Damaged, detail));
    }
    check_channels(track.n_channels, channels_max(track.codec))?;
    let codec = Codec::new(params(track))?;

    let most_s = output.most_s();
    let mut sink = output.open_with(survey.has_several_rates, track.rate_hz, 1, out)?;
    // The packets before the recording are decoded as well, but they do not fill the output.
    let start_s = track.start as f64 / f64::from(track.rate_hz);
    if start_s > most_s {
        let detail = format!("the recording begins after {start_s:.0} s, at most {most_s} s");
        return Err(reject(Reason::TooLarge, detail));
    }
    sink.trim(track.start, track.end);
    let mut decoder = PacketDecoder {
        track: track.clone(),
        survey: &survey,
        codec,
        sink,
        loss: Loss::default(),
        n_samples: 0,
        n_renewals: 0,
        absent: None,
    };
    for packet in packets {
        if decoder.is_done() {
            break;
        }
        decoder.packet(&packet);
    }

    Ok(DecodeReport {
        loss: decoder.finish(),
        audio_blake3: survey.audio_blake3,
    })
}

fn params(track: &AudioTrack) -> AudioCodecParameters {
    let mut params = AudioCodecParameters::new();
    params
        .for_codec(track.codec)
        .with_sample_rate(track.rate_hz)
        .with_extra_data(track.config.clone().into_boxed_slice());
    params
}

/// Reports whether a packet of AAC contains an element with audio. For a packet without one, symphonia's decoder repeats
/// the samples of the packet before.
fn has_element(packet: &[u8]) -> bool {
    const DATA: u8 = 4;
    const FILL: u8 = 6;
    const END: u8 = 7;

    let bits = |at: usize, n: usize| {
        let bit = |at: usize| packet.get(at / 8).map(|byte| byte >> (7 - at % 8) & 1);
        (at..at + n).try_fold(0_u8, |sum, at| Some(sum << 1 | bit(at)?))
    };
    let mut at = 0;
    loop {
        // symphonia reads an element only if more than the three bits of its kind are left.
        match bits(at, 4).map(|kind| kind >> 1) {
            None | Some(END) => return false,
            Some(DATA) => {
                // A tag of 4 bits; a flag; and the number of bytes, which has 8 bits, and 8 more after 255.
                let (Some(is_aligned), Some(short)) = (bits(at + 7, 1), bits(at + 8, 8)) else {
                    return false;
                };
                let (n_bytes, n_bits) = match (short, bits(at + 16, 8)) {
                    (255, Some(long)) => (255 + usize::from(long), 24),
                    _ => (usize::from(short), 16),
                };
                at += n_bits;
                if is_aligned == 1 {
                    at = at.next_multiple_of(8);
                }
                at += 8 * n_bytes;
            }
            Some(FILL) => {
                // The number of bytes has 4 bits, and 8 more after 15.
                let Some(short) = bits(at + 3, 4) else {
                    return false;
                };
                let (n_bytes, n_bits) = match (short, bits(at + 7, 8)) {
                    (15, Some(long)) => (14 + usize::from(long), 15),
                    _ => (usize::from(short), 7),
                };
                at += n_bits + 8 * n_bytes;
            }
            Some(_) => return true,
        }
    }
}

/// The state of decoding one file.
struct PacketDecoder<'a> {
    /// The track in its current format.
    track: AudioTrack,
    survey: &'a Survey,
    codec: Codec,
    sink: Sink<'a>,
    loss: Loss,
    /// Number of output samples so far, including silence and those that are trimmed.
    n_samples: u64,
    /// Number of decoders that were created after packets that could not be decoded.
    n_renewals: u32,
    /// Offset and number of samples of the absent packets since the last packet.
    absent: Option<(usize, u64)>,
}

impl PacketDecoder<'_> {
    /// Reports whether the output, or the recording, is complete.
    fn is_done(&self) -> bool {
        self.sink.is_full() || self.n_left() == 0
    }

    /// Returns the number of samples before the end of the recording.
    fn n_left(&self) -> u64 {
        let end = self.track.end.unwrap_or(u64::MAX);
        end.saturating_sub(self.n_samples)
    }

    fn packet(&mut self, packet: &Packet) {
        match packet.content {
            Content::Bytes(data) => {
                self.fill_absent();
                self.decode(packet, data);
            }

            Content::Undecoded => {
                self.fill_absent();
                self.silence(packet.offset, packet.n_samples);
                self.codec.reset();
            }

            Content::Absent => {
                if self.survey.are_absent_credible() {
                    let (_, n_samples) = self.absent.get_or_insert((packet.offset, 0));
                    *n_samples += packet.n_samples;
                }
            }
            Content::Hole(_) => {
                let n_samples = self.survey.hole_samples(packet);
                self.missing(packet.offset, n_samples);
                self.codec.reset();
            }
            Content::Change(format) => self.change(&format),
        }
    }

    /// Prepares decoding packets of another format.
    fn change(&mut self, format: &Format) {
        self.track.config = format.config.to_vec();
        self.track.rate_hz = format.rate_hz;
        // Creating the codec can only fail for other codecs than the track's.
        if let Ok(codec) = Codec::new(params(&self.track)) {
            self.codec = codec;
        }
        self.sink.begin_stretch(format.rate_hz, 1);
    }

    /// Outputs silence for the absent packets before another one, which shows that they had a place in time.
    fn fill_absent(&mut self) {
        if let Some((offset, n_samples)) = self.absent.take() {
            self.silence(offset, n_samples);
        }
    }

    fn decode(&mut self, packet: &Packet, data: &[u8]) {
        let has_audio = self.track.codec != CODEC_ID_AAC || has_element(data);
        let decoded = if has_audio {
            self.codec.decode(data)
        } else {
            None
        };
        let n_decoded = decoded.and_then(<[_]>::first).map_or(0, Vec::len) as u64;
        let n_wanted = self.sink.n_wanted(n_decoded);
        let is_audio = match decoded {
            // A packet with more samples than announced would exceed the expected duration.
            _ if n_decoded == 0 || n_decoded > packet.n_samples => None,
            Some(planes) => Some(self.sink.push(planes, 0..n_decoded as usize)),
            None => None,
        };

        match is_audio {
            Some(is_audio) => {
                self.n_samples += n_decoded;
                if !is_audio {
                    let seconds = self.seconds(n_wanted);
                    self.loss.add_silenced(Some(packet.offset), seconds);
                }
            }
            None => {
                // The next packet must not overlap with an earlier one. symphonia's decoder of AAC also expects the
                // elements of its first packet in all others, even if that packet was damaged.
                if self.n_renewals < RENEWALS_MAX {
                    self.n_renewals += 1;
                    self.codec.renew();
                } else {
                    self.codec.reset();
                }
                self.silence(packet.offset, packet.n_samples);
            }
        }
    }

    /// Counts `n_samples` samples as lost and outputs silence in their place.
    fn silence(&mut self, offset: usize, n_samples: u64) {
        let n_wanted = self.sink.n_wanted(n_samples.min(self.n_left()));
        self.loss.add_silenced(Some(offset), self.seconds(n_wanted));
        self.sink.push_silence(n_samples as usize);
        self.n_samples += n_samples;
    }

    /// Counts `n_samples` samples as lost, for which nothing is in the output.
    fn missing(&mut self, offset: usize, n_samples: u64) {
        let n_wanted = self.sink.n_wanted(n_samples.min(self.n_left()));
        self.loss.add_missing(Some(offset), self.seconds(n_wanted));
    }

    fn seconds(&self, n_samples: u64) -> f64 {
        n_samples as f64 / f64::from(self.track.rate_hz)
    }

    /// Counts the packets that are absent at the end, and ends the output.
    fn finish(mut self) -> Loss {
        if let Some((offset, n_samples)) = self.absent.take() {
            self.missing(offset, n_samples);
        }
        self.sink.finish();
        self.loss
    }
}

#[cfg(test)]
mod tests {
    use super::has_element;

    #[test]
    fn packets_of_aac_without_audio_are_recognised() {
        assert!(has_element(&[0b0000_0000]));
        assert!(has_element(&[0b0010_0000]));
        assert!(!has_element(&[]));
        assert!(!has_element(&[0xE0]));
        // A fill element of one byte before the end, one of 16 bytes before the end, and one before a channel.
        assert!(!has_element(&[0b1100_0010, 0b0000_0001, 0b1100_0000]));
        let mut long = vec![0b1101_1110, 0b0000_0100];
        long.extend([0; 15]);
        long.extend([0b0000_0001, 0b1100_0000]);
        assert!(!has_element(&long));
        assert!(has_element(&[0b1100_0010, 0, 0, 0]));
        long[17..].fill(0);
        assert!(has_element(&long));
        // The three bits after three empty fill elements are too few for another one.
        assert!(!has_element(&[0b1100_0001, 0b1000_0011, 0]));
    }

    #[test]
    fn data_stream_elements_are_not_audio() {
        // A data stream element of one byte before the end, and before a channel.
        assert!(!has_element(&[0b1000_0000, 1, 0, 0b1110_0000]));
        assert!(has_element(&[0b1000_0000, 1, 0, 0, 0]));
        assert!(!has_element(&[0b1000_0000, 9, 0, 0]));

        // An element of 256 bytes.
        let long = [&[0b1000_0000, 255, 1][..], &[0; 256], &[0b1110_0000]].concat();
        assert!(!has_element(&long));

        // An empty fill element, after which the data begin at the next byte.
        let aligned = [0b1100_0001, 0b0000_0010, 0b0000_0010, 0, 0b1110_0000];
        assert!(!has_element(&aligned));
    }
}
