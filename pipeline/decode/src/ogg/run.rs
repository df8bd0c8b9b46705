//! Passes packets of Vorbis and Opus through their decoders to the sink and accounts for every lost sample.

use std::ops::Range;

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_VORBIS;
use wavemill_schemas::reject::{Reason, Reject};
use wavemill_signal::resample::{MAX_FROM_HZ, MIN_HZ};

use super::super::codec::Codec;
use super::super::loss::Loss;
use super::super::opus::OpusHead;
use super::super::output::{Output, Sink};
use super::super::{CHANNELS_MAX, Pcm, check_channels, reject};
use super::blocks::{Blocks, Lengths, PacketLength};
use super::granules::{Density, Gap, Granules, LossBudget, PageTime};
use super::headers::{Head, Ident};
use super::length::has_several_rates;
use super::packets::Hole;
use super::setup::Setup;
use super::walk::{AudioPage, Tail, Visitor};

/// Maximum total size of the code books created for one file, in bytes. A link that repeats the headers of the previous
/// link needs no new books, so the limit allows about a thousand changes of encoder. It bounds the time spent on a file
/// full of headers.
const FILE_BOOKS_BYTES_MAX: u64 = 4 << 30;
/// Size of the windows and transforms that symphonia's decoder has in addition to its code books, in bytes.
const CODEC_BYTES: u64 = 1 << 20;
/// Maximum number of samples that any Vorbis packet adds: half of the longest block.
const ORPHAN_PACKET_SAMPLES_MAX: u64 = 4_096;

/// Decoder of one Ogg file.
pub(super) struct OggDecoder<'a> {
    /// Whether links may have several sample rates.
    has_several_rates: bool,
    /// Output stage and buffer of the file, until the first link that can be decoded opens them.
    unopened: Option<(&'a mut Output, &'a mut Pcm)>,
    sink: Option<Sink<'a>>,
    codec: Option<LinkCodec>,
    link: Option<Link>,
    heard: Density,
    loss: Loss,
    room: LossBudget,
    books_bytes_left: u64,
    orphans: OrphanPages,
    early: EarlyLinks,
    /// The loss budget at the end of the requested duration. Decoding may continue after it, due to the resampler.
    room_at_end: Option<LossBudget>,
    /// Reason why the first link that could not be decoded was refused.
    fault: Option<Reject>,
}

/// Decoder of a link, and the headers from which it was created.
struct LinkCodec {
    headers: Vec<u8>,
    codec: Codec,
}

/// The current link of the Ogg file.
struct Link {
    head: Head,
    /// Lengths of the link's packets; `None` until the set-up header has been read.
    lengths: Option<Lengths>,
    /// Number of samples that still precede the recording.
    skip: u64,
    /// True if the link is decoded. If not, its audio counts as lost.
    is_heard: bool,
    granules: Granules,
    n_pages: u64,
    before: Option<MissingStart>,
    unmeasured: UnmeasuredLink,
}

/// Audio on pages that are missing before the first page with audio.
struct MissingStart {
    n_pages: u64,
    seconds: f64,
    offset: usize,
}

/// The data that show the length of a link whose set-up header is lost.
#[derive(Default)]
struct UnmeasuredLink {
    n_packets: u64,
    last_granule: u64,
}

/// Pages that belong to no known Ogg stream.
#[derive(Default)]
struct OrphanPages {
    bytes: usize,
    offset: Option<usize>,
}

/// Links without a set-up header before the first decoded link. At the end of the file it is decided how much of their
/// length is accepted.
#[derive(Default)]
struct EarlyLinks {
    samples: u64,
    seconds: f64,
    offset: Option<usize>,
}

impl Link {
    fn new(head: &Head) -> Self {
        Self {
            head: *head,
            lengths: None,
            skip: head.pre_skip(),
            is_heard: false,
            granules: Granules::new(head.packet_samples_max()),
            n_pages: 0,
            before: None,
            unmeasured: UnmeasuredLink::default(),
        }
    }

    /// Returns the sample rate of the link in Hz, clamped to the range that decoders support.
    fn credible_rate_hz(&self) -> u32 {
        self.head.rate_hz().clamp(MIN_HZ, MAX_FROM_HZ)
    }

    fn seconds(&self, samples: u64) -> f64 {
        samples as f64 / f64::from(self.credible_rate_hz())
    }
}

impl<'a> OggDecoder<'a> {
    pub(super) fn new(file: &[u8], output: &'a mut Output, out: &'a mut Pcm) -> Self {
        Self {
            has_several_rates: has_several_rates(file),
            unopened: Some((output, out)),
            sink: None,
            codec: None,
            link: None,
            heard: Density::default(),
            loss: Loss::default(),
            room: LossBudget::new(file.len()),
            books_bytes_left: FILE_BOOKS_BYTES_MAX,
            orphans: OrphanPages::default(),
            early: EarlyLinks::default(),
            room_at_end: None,
            fault: None,
        }
    }

    /// Ends the clip and returns the lost audio.
    ///
    /// # Errors
    /// A [`Reject`] if no link of the file could be decoded.
    pub(super) fn finish(mut self) -> Result<Loss, Reject> {
        let Some(sink) = self.sink.take() else {
            return Err(self.fault.unwrap_or_else(|| {
                reject(Reason::Damaged, "the set-up header of Vorbis is lost")
            }));
        };

        if let Some(room) = self.room_at_end {
            self.room = room;
        }
        // These early links only claim a length. Before any audio was decoded, it was unknown how much audio the file's
        // bytes could hold.
        if self.early.samples > 0 {
            let believed = self
                .room
                .take_most(self.early.samples, ORPHAN_PACKET_SAMPLES_MAX);
            // The links may differ in sample rate, so apply the accepted fraction of their samples to the seconds.
            let seconds = self.early.seconds * believed as f64 / self.early.samples as f64;
            // The early links come before all decoded audio, so at most the whole requested duration is lost.
            let whole_s = sink.requested_s();
            self.loss
                .add_missing(self.early.offset, seconds.min(whole_s));
        }

        // Assume that pages of unknown streams hold as much audio per byte as the decoded pages.
        let samples = self.heard.samples_in(self.orphans.bytes);
        if samples > 0 && !sink.is_full() {
            let samples = self.room.take_most(samples, ORPHAN_PACKET_SAMPLES_MAX);
            let seconds = sink.n_wanted(samples) as f64 / f64::from(sink.rate_hz());
            self.loss.add_missing(self.orphans.offset, seconds);
        }

        sink.finish();
        Ok(self.loss)
    }

    /// Returns how many seconds of the next `seconds` of audio come before the end of the requested duration.
    fn wanted_s(&self, seconds: f64) -> f64 {
        // Before the first decoded link there is no sink; `open` limits the loss when it creates the sink.
        let Some(sink) = &self.sink else {
            return seconds;
        };
        let n_left = sink.n_wanted(u64::MAX);
        seconds.min(n_left as f64 / f64::from(sink.rate_hz()))
    }

    /// Reports whether the sink has received all samples of the output.
    fn is_full(&self) -> bool {
        self.sink.as_ref().is_some_and(Sink::is_full)
    }

    /// Opens the sink at the sample rate of the first link that can be decoded. Each later one is a stretch of its rate.
    fn open(&mut self, rate_hz: u32) -> Result<(), Reject> {
        if let Some(sink) = &mut self.sink {
            sink.begin_stretch(rate_hz, 1);
        } else if let Some((output, out)) = self.unopened.take() {
            let sink = output.open_with(self.has_several_rates, rate_hz, 1, out)?;
            // Losses counted before the sink was opened were not yet limited to the requested duration.
            self.loss.lost_s = self.loss.lost_s.min(sink.requested_s());
            self.sink = Some(sink);
        }
        Ok(())
    }

    /// Prepares symphonia's decoder for a link. Keeps the existing decoder if its headers are the same.
    fn make_codec(&mut self, ident: &Ident, packet: &[u8], books_bytes: u64) -> Result<(), Reject> {
        let headers = [&ident.bytes, packet].concat();
        // A file of many links with the same headers creates only one decoder.
        if let Some(same) = self.codec.as_mut().filter(|codec| codec.headers == headers) {
            same.codec.reset();
            return Ok(());
        }

        let Some(left) = self.books_bytes_left.checked_sub(books_bytes + CODEC_BYTES) else {
            let detail = format!(
                "code books that take more than {} MiB in all",
                FILE_BOOKS_BYTES_MAX >> 20
            );
            return Err(reject(Reason::TooLarge, detail));
        };
        self.books_bytes_left = left;

        // Drop the old decoder first, so that only one decoder is in memory at a time.
        self.codec = None;
        let mut params = AudioCodecParameters::new();
        params
            .for_codec(CODEC_ID_VORBIS)
            .with_extra_data(headers.clone().into_boxed_slice());
        self.codec = Some(LinkCodec {
            headers,
            codec: Codec::new(params)?,
        });
        Ok(())
    }

    /// Decodes a page of a link that can be decoded.
    fn heard_page(&mut self, link: &mut Link, page: &AudioPage, mut lengths: Lengths) {
        // If page numbers jump but the granule continues without a jump, nothing is missing.
        let time_goes_on = link.granules.fits(page.granule, lengths.sum(page.packets));
        let hole = page
            .hole
            .filter(|hole| hole.has_torn_packet || !time_goes_on);
        if hole.is_some() {
            lengths.restart();
        }

        // Sum the samples again, because the first packet after a hole adds none.
        let samples = lengths.sum(page.packets);
        // Update the budget before judging the page: until some audio has been decoded, the budget accepts no loss.
        self.heard.add(samples, page.packets);
        self.room.measure(&self.heard);

        let time = PageTime {
            granule: page.granule,
            samples,
            hole,
            is_last: page.is_last,
        };
        let verdict = link.granules.page(&time, &mut self.room);

        self.gap(link, verdict.gap, hole, page.offset);
        // Reset the codec, so that the first packet does not overlap with a packet from before the hole.
        if hole.is_some() {
            self.restart_codec();
        }

        let mut samples_left = samples - verdict.trimmed_samples;
        for packet in page.packets {
            if self.is_full() {
                break;
            }
            match lengths.next(packet) {
                PacketLength::Samples(samples) => {
                    let n_kept = samples.min(samples_left);
                    samples_left -= n_kept;
                    let n_skipped = link.skip.min(n_kept);
                    link.skip -= n_skipped;
                    let kept = n_skipped as usize..n_kept as usize;
                    self.packet(link, packet, samples, kept, page.offset);
                }
                // The first packet adds no samples, but decode it nevertheless, because the next one overlaps with it.
                PacketLength::First => self.packet(link, packet, 0, 0..0, page.offset),
                PacketLength::NoAudio => {}
                PacketLength::Broken => self.broken_packet(link, verdict.gap, page.offset),
            }
        }

        // Store `lengths`, which is a copy, because the next page continues after its last block.
        link.lengths = Some(lengths);
    }

    /// Accounts for the audio that is missing before a page.
    fn gap(&mut self, link: &mut Link, gap: Gap, hole: Option<Hole>, offset: usize) {
        // Report damage at the file offset of the hole's start, not of the page after it.
        let offset = offset - hole.map_or(0, |hole| hole.bytes.min(offset));

        match gap {
            Gap::None => {}
            Gap::Silent(samples) => {
                // The first samples of a link may precede the recording.
                let n_skipped = link.skip.min(samples);
                link.skip -= n_skipped;
                let samples = samples - n_skipped;
                let seconds = self.wanted_s(link.seconds(samples));
                self.loss.add_silenced(Some(offset), seconds);
                self.silence(samples);
            }
            Gap::Before(samples) => {
                let n_pages = hole.map_or(0, |hole| hole.n_pages);
                link.before = Some(MissingStart {
                    n_pages,
                    seconds: self.wanted_s(link.seconds(samples)),
                    offset,
                });
            }
            Gap::Unknown => {
                let n_pages = hole.map_or(0, |hole| hole.n_pages);
                let bytes = hole.map_or(0, |hole| hole.bytes);
                self.estimate(link, bytes, n_pages, offset);
            }
        }
    }

    /// Accounts for a hole of unknown length, for which the output contains no silence. The loss is estimated from the
    /// hole's bytes or pages and is at least one packet.
    fn estimate(&mut self, link: &Link, bytes: usize, n_pages: u64, offset: usize) {
        let most = link.head.packet_samples_max();

        let by_length = self
            .heard
            .samples_in(bytes)
            .max(self.heard.samples_on(n_pages));
        let samples = by_length.max(self.heard.samples_per_packet(most));

        let samples = self.room.take_most(samples, most);
        self.missing(link, samples, offset);
    }

    /// Counts `samples` samples of a link as lost, for which nothing is in the output.
    fn missing(&mut self, link: &Link, samples: u64, offset: usize) {
        let seconds = self.wanted_s(link.seconds(samples));
        self.loss.add_missing(Some(offset), seconds);
    }

    /// Decodes a packet of `samples` samples and outputs those of the range `kept`.
    fn packet(
        &mut self,
        link: &Link,
        packet: &[u8],
        samples: u64,
        kept: Range<usize>,
        offset: usize,
    ) {
        let (Some(LinkCodec { codec, .. }), Some(sink)) = (&mut self.codec, &mut self.sink) else {
            return;
        };

        let n_wanted = sink.n_wanted(kept.len() as u64);
        let decoded = codec.decode(packet);
        let is_broken = decoded.is_none();
        let is_audio = match decoded {
            // If the number of samples differs from the packet's announcement, all later audio would be shifted in
            // time.
            Some(planes) if planes.iter().all(|plane| plane.len() as u64 == samples) => {
                sink.push(planes, kept)
            }
            _ => {
                sink.push_silence(kept.len());
                false
            }
        };

        // The part of the packet that would overlap with the next packet is lost, so the next packet adds no samples.
        if is_broken {
            self.restart_codec();
        }
        if !is_audio {
            self.loss.add_silenced(Some(offset), link.seconds(n_wanted));
        }
    }

    /// Resets the decoder, so that nothing overlaps with the next packet.
    fn restart_codec(&mut self) {
        if let Some(LinkCodec { codec, .. }) = &mut self.codec {
            codec.reset();
        }
    }

    /// Handles an invalid packet, whose length is unknown. If a gap was found before the page, the loss is already
    /// counted.
    fn broken_packet(&mut self, link: &Link, gap: Gap, offset: usize) {
        self.restart_codec();
        if gap == Gap::None {
            self.estimate(link, 0, 0, offset);
        }
    }

    /// Accounts for a page of a link that is not decoded because its rate is not supported or its headers are missing.
    fn lost_page(&mut self, link: &mut Link, page: &AudioPage) {
        let Some(lengths) = &mut link.lengths else {
            link.unmeasured.n_packets += page.packets.len() as u64;
            link.unmeasured.last_granule = page.granule.unwrap_or(link.unmeasured.last_granule);
            return;
        };

        // Track the time nevertheless, so that the silence in the output is as long as the audio was.
        let samples = lengths.sum(page.packets);
        for packet in page.packets {
            lengths.next(packet);
        }

        let time = PageTime {
            granule: page.granule,
            samples,
            hole: page.hole,
            is_last: page.is_last,
        };
        let verdict = link.granules.page(&time, &mut self.room);

        let missing = match verdict.gap {
            Gap::Silent(missing) => missing,
            Gap::None | Gap::Before(_) | Gap::Unknown => 0,
        };
        let samples = missing + samples - verdict.trimmed_samples;
        self.lose(link, samples, page.offset);
    }

    /// Outputs silence in place of `samples` samples of a link that is not decoded.
    fn lose(&mut self, link: &Link, samples: u64, offset: usize) {
        let seconds = self.wanted_s(link.seconds(samples));
        match &self.sink {
            Some(sink) => {
                // Convert the number to the sink's rate. The product of a claimed length and a rate may exceed 64 bits.
                let samples = samples as u128 * u128::from(sink.rate_hz())
                    / u128::from(link.credible_rate_hz());
                self.loss.add_silenced(Some(offset), seconds);
                self.silence(samples as u64);
            }
            // Before the first decoded link there is no sink that could receive silence.
            None => self.loss.add_missing(Some(offset), seconds),
        }
    }

    /// Pushes silence of `samples` samples at the sink's rate, until the sink is full.
    fn silence(&mut self, samples: u64) {
        if let Some(sink) = &mut self.sink {
            sink.push_silence(samples as usize);
        }
    }

    /// Accounts for audio that is missing at the end of a link.
    fn lost_tail(&mut self, link: &mut Link, tail: &Tail) {
        if tail.is_ended {
            return;
        }

        // The header of a damaged last page states the time. Without such a header, estimate the audio in the damaged
        // bytes; if there are none, count a packet that was begun and never ended.
        let claimed = tail
            .claimed_granule
            .and_then(|granule| link.granules.tail(granule, tail.bytes, &mut self.room));
        if let Some(samples) = claimed {
            self.missing(link, samples, tail.offset);
        } else if tail.bytes > 0 {
            self.estimate(link, tail.bytes, 0, tail.offset);
        } else if let Some(packet) = tail.unfinished
            && let Some(PacketLength::Samples(samples)) =
                link.lengths.as_mut().map(|lengths| lengths.next(packet))
        {
            self.missing(link, samples, tail.offset);
        }
    }

    /// Counts a link without a set-up header as lost. Its length is its last granule if its packets could be so long.
    fn lose_unmeasured(&mut self, link: &Link, offset: usize) {
        let UnmeasuredLink {
            n_packets,
            last_granule,
        } = link.unmeasured;
        let most = link.head.packet_samples_max();

        let is_held = last_granule <= n_packets.saturating_mul(most);
        let samples = if is_held {
            last_granule
        } else {
            self.heard.samples_per_packet(1).min(most) * n_packets
        };

        // The density of the file's audio is not known yet. `finish` decides how much of this length is accepted.
        if self.heard.is_empty() {
            self.early.samples = self.early.samples.saturating_add(samples);
            self.early.seconds += link.seconds(samples);
            self.early.offset = self.early.offset.or(Some(offset));
            return;
        }

        let samples = self.room.take_most(samples, most);
        self.lose(link, samples, offset);
    }

    /// Prepares a link of Vorbis for decoding according to its set-up header.
    fn set_up(
        &mut self,
        link: &mut Link,
        packet: &[u8],
        setup: Result<Setup, Reject>,
    ) -> Result<(), Reject> {
        let Head::Vorbis(ident) = link.head else {
            return Ok(());
        };
        let setup = match setup {
            Ok(setup) => setup,
            Err(fault) => return self.refuse(fault),
        };
        link.lengths = Some(Lengths::Vorbis(Blocks::new(&ident, setup.modes)));
        if self.has_unsupported_rate(link) {
            return Ok(());
        }

        if let Err(fault) = self.make_codec(&ident, packet, setup.books_bytes) {
            return self.refuse(fault);
        }
        self.open(ident.rate_hz)?;
        link.is_heard = true;
        Ok(())
    }

    /// Refuses a link with a broken header, which is lost. If its headers or the code books of all links exceed a limit,
    /// rejects the whole clip as `too_large`.
    fn refuse(&mut self, fault: Reject) -> Result<(), Reject> {
        if fault.reason == Reason::TooLarge {
            return Err(fault);
        }
        self.fault.get_or_insert(fault);
        Ok(())
    }

    /// Prepares a link of Opus for decoding, which needs no further header.
    fn set_up_opus(&mut self, link: &mut Link, head: &OpusHead) -> Result<(), Reject> {
        link.lengths = Some(Lengths::Opus);
        if self.has_unsupported_rate(link) {
            return Ok(());
        }
        // A file of many links with the same header creates only one decoder.
        match self.codec.as_mut() {
            Some(same) if same.headers == head.bytes() => same.codec.reset(),
            _ => {
                self.codec = Some(LinkCodec {
                    headers: head.bytes().to_vec(),
                    codec: Codec::opus(head.layout, head.gain),
                });
            }
        }
        self.open(link.head.rate_hz())?;
        link.is_heard = true;
        Ok(())
    }

    /// Reports whether a link after the first one has a rate that is not supported. Such a link is not decoded and counts
    /// as lost; the first one is refused with the whole clip.
    fn has_unsupported_rate(&self, link: &Link) -> bool {
        self.sink.is_some() && link.credible_rate_hz() != link.head.rate_hz()
    }

    fn audio_page(&mut self, link: &mut Link, page: &AudioPage) {
        // Count pages after the end of the output too: `end_link` compares the count with the number of pages missing
        // before the first one.
        link.n_pages += 1;
        if self.is_full() {
            return;
        }

        if self.wanted_s(1.0) <= 0.0 {
            self.room_at_end.get_or_insert(self.room);
        }

        match (link.is_heard, link.lengths) {
            (true, Some(lengths)) => self.heard_page(link, page, lengths),
            _ => self.lost_page(link, page),
        }
    }

    fn end_link(&mut self, link: &mut Link, tail: &Tail) {
        // If more pages are missing before the first page than follow it, the stream was cut from a longer one and has
        // lost nothing to damage.
        if let Some(before) = link.before.take()
            && before.n_pages <= link.n_pages
        {
            self.loss.add_missing(Some(before.offset), before.seconds);
        }
        if self.is_full() {
            return;
        }

        if link.is_heard || link.lengths.is_some() {
            self.lost_tail(link, tail);
        } else {
            self.lose_unmeasured(link, tail.offset);
        }
    }
}

// The methods above borrow the link and the decoder separately, so it is taken out of `link` while they run.
impl Visitor for OggDecoder<'_> {
    fn begin(&mut self, head: &Head) -> Result<(), Reject> {
        // Check the channels of every link, decoded or not, because the limit applies to the whole file.
        check_channels(usize::from(head.n_channels()), CHANNELS_MAX)?;
        let mut link = Link::new(head);
        if let Head::Opus(head) = head {
            self.set_up_opus(&mut link, head)?;
        }
        self.link = Some(link);
        Ok(())
    }

    fn setup(&mut self, packet: &[u8], setup: Result<Setup, Reject>) -> Result<(), Reject> {
        let Some(mut link) = self.link.take() else {
            return Ok(());
        };
        let prepared = self.set_up(&mut link, packet, setup);
        self.link = Some(link);
        prepared
    }

    fn audio(&mut self, page: &AudioPage) {
        if let Some(mut link) = self.link.take() {
            self.audio_page(&mut link, page);
            self.link = Some(link);
        }
    }

    fn end(&mut self, tail: &Tail) {
        if let Some(mut link) = self.link.take() {
            self.end_link(&mut link, tail);
            self.link = Some(link);
        }
    }

    fn orphan(&mut self, offset: usize, bytes: usize) {
        self.orphans.bytes += bytes;
        self.orphans.offset = self.orphans.offset.or(Some(offset));
    }
}

#[cfg(test)]
mod tests {
    use wavemill_signal::Level;

    use super::super::super::DecodeArgs;
    use super::super::walk::Walk;
    use super::*;
    use crate::testing::ogg::{self as testing, FIRST, Setup};

    const RATE_HZ: u32 = 44_100;
    /// A silent Vorbis packet with a long block.
    const LONG: &[u8] = &[2];

    /// Creates an Ogg link whose set-up header has `n_books` code books, with one page of silent packets.
    fn link(n_books: usize) -> Vec<u8> {
        let mut setup = Setup::default();
        setup.books.resize(n_books, testing::book(true));
        let comment = b"\x03vorbis\0\0\0\0\0\0\0\0\x01";
        testing::bytes(&[
            testing::packet_page(FIRST, 0, 0, &[&testing::ident(1, RATE_HZ)]),
            testing::packet_page(0, 0, 1, &[comment, &setup.bytes()]),
            testing::packet_page(testing::LAST, 9 * 1_024, 2, &[LONG; 10]),
        ])
    }

    /// Decodes an Ogg file with a limit that allows the code books of three links.
    fn decode(links: &[Vec<u8>]) -> Result<usize, Reject> {
        let args = DecodeArgs {
            sample_rate_hz: RATE_HZ,
            duration_s: None,
            min_duration_s: 0.0,
            keep_rate: false,
        };
        let mut output = Output::new(&args, Level::Scalar).expect("44.1 kHz");
        let mut out = Pcm::default();
        let file = links.concat();

        let mut decoder = OggDecoder::new(&file, &mut output, &mut out);
        decoder.books_bytes_left = 3 * CODEC_BYTES + CODEC_BYTES / 2;
        Walk::new(decoder).run(&file)?.visitor.finish()?;
        Ok(out.n_samples)
    }

    #[test]
    fn chained_headers_over_the_file_limit_are_too_large() {
        let two = link(2);
        let three = link(3);
        let some = [two.clone(), three.clone(), two.clone()];
        assert_eq!(decode(&some).map_err(|fault| fault.reason), Ok(27 * 1_024));

        let many = [two.clone(), three.clone(), two.clone(), three];
        assert_eq!(
            decode(&many).map_err(|fault| fault.reason),
            Err(Reason::TooLarge)
        );

        // Links with repeated headers need no new code books.
        let same = vec![two; 10];
        assert_eq!(decode(&same).map_err(|fault| fault.reason), Ok(90 * 1_024));
    }
}
