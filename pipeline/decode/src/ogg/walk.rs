//! Walks through an Ogg file link by link, and in each link through the pages of one stream of Vorbis or
//! Opus.
//!
//! A link is a group of Ogg streams that begin together. If it contains several streams of audio, the one with the lowest
//! serial number is used, and all other streams are skipped. The walk hashes the audio packets of all links, decoded or
//! not, and everything that it reports to its visitor. A file therefore has one hash and one key, no matter how much of
//! it is requested.

use wavemill_schemas::reject::{Reason, Reject};

use super::super::{InputFacts, reject, tags};
use super::headers::{Head, PacketKind};
use super::key::WalkKey;
use super::packets::{Hole, Packets};
use super::pages::{Page, PageHeader, Pages, SkippedBytes};
use super::setup::{self, Setup};

/// Receives the contents of an Ogg file during a walk, and ignores what it does not handle. Everything reported to a visitor
/// is also part of the decode key (`key.rs`).
pub(super) trait Visitor {
    /// Handles the start of a stream with its identification header.
    ///
    /// # Errors
    /// Returns a [`Reject`] to end the walk.
    fn begin(&mut self, _head: &Head) -> Result<(), Reject> {
        Ok(())
    }

    /// Handles the set-up header of a Vorbis stream, which is either valid or refused. Opus has no such header.
    ///
    /// # Errors
    /// Returns a [`Reject`] to end the walk.
    fn setup(&mut self, _packet: &[u8], _setup: Result<Setup, Reject>) -> Result<(), Reject> {
        Ok(())
    }

    /// Handles a page with packets other than headers.
    fn audio(&mut self, _page: &AudioPage) {}

    /// Handles the end of the stream.
    fn end(&mut self, _tail: &Tail) {}

    /// Handles the bytes of a page that belongs to no known stream because its first page is lost, or to a chained
    /// stream of another audio codec. Called only while no stream is active.
    fn orphan(&mut self, _offset: usize, _bytes: usize) {}
}

/// A page with audio packets of the stream.
#[derive(Debug)]
pub(super) struct AudioPage<'p> {
    /// Offset of the page in the file.
    pub offset: usize,
    pub granule: Option<u64>,
    pub hole: Option<Hole>,
    /// The packets that end on the page and are complete.
    pub packets: &'p [&'p [u8]],
    /// True if no page of the stream follows.
    pub is_last: bool,
}

/// Everything after the last page of a stream that should have continued.
#[derive(Debug)]
pub(super) struct Tail<'p> {
    /// File offset of the stream's last page.
    pub offset: usize,
    /// True if the last page is flagged as the end of the stream.
    pub is_ended: bool,
    /// Number of bytes after the last page that are in no valid page.
    pub bytes: usize,
    /// Granule in the header of a damaged page of this stream among the bytes after the last page.
    pub claimed_granule: Option<u64>,
    /// The available part of a packet that would continue after the last page.
    pub unfinished: Option<&'p [u8]>,
}

/// Kinds of Ogg streams seen so far, to explain why a file contains no audio that is decoded.
#[derive(Debug, Default)]
struct SeenStreams {
    /// Error for the first identification header that was refused.
    fault: Option<Reject>,
    /// True if a stream of a codec that is not decoded was found.
    has_other: bool,
    /// Name of the first audio codec that was found and is not decoded.
    other_audio: Option<&'static str>,
    /// True if a stream of Vorbis or Opus was found.
    has_audio: bool,
}

impl SeenStreams {
    fn no_audio(self) -> Reject {
        let (reason, detail) = match (self.other_audio, self.has_other) {
            (Some(name), _) => (
                Reason::UnsupportedCodec,
                format!("{name} in Ogg is not decoded"),
            ),
            (None, true) => (
                Reason::UnsupportedCodec,
                "no audio track of a known codec".to_owned(),
            ),
            (None, false) => (
                Reason::NotAudio,
                "no page of Ogg that begins a stream is whole".to_owned(),
            ),
        };
        self.fault.unwrap_or_else(|| reject(reason, detail))
    }
}

/// The stream that is being read.
struct Stream<'a> {
    serial: u32,
    head: Head,
    packets: Packets,
    has_setup: bool,
    /// A hole before a page that has no granule, because no audio packet ends on it.
    hole: Option<Hole>,
    /// The stream's newest page, which is held back until it is known whether another page follows.
    pending: Option<PendingPage<'a>>,
}

#[derive(Clone, Copy)]
struct PendingPage<'a> {
    page: Page<'a>,
    /// Number of bytes between the stream's previous page and this one that belong to no page.
    skipped_bytes: usize,
}

impl Stream<'_> {
    /// Reports whether the stream's newest page is flagged as the last one.
    fn is_over(&self) -> bool {
        self.pending.is_some_and(|pending| pending.page.is_last)
    }

    /// Reports whether `page` belongs to this stream. After the stream's last page, another stream may use the same
    /// serial number; a page of this stream is then recognized by its consecutive page number.
    fn goes_on_with(&self, page: &Page) -> bool {
        if page.header.serial != self.serial {
            return false;
        }
        let next_sequence = self
            .pending
            .map(|pending| pending.page.header.sequence.wrapping_add(1));
        !self.is_over() || next_sequence == Some(page.header.sequence)
    }
}

/// Audio codecs that are not decoded: the first bytes of a stream's first packet, and the codec's name.
const OTHER_CODECS: [(&[u8], &str); 2] = [(b"\x7FFLAC", "FLAC"), (b"Speex   ", "Speex")];

/// Returns the name of the audio codec of a stream that begins with `packet`, if that codec is not decoded.
fn other_audio(packet: &[u8]) -> Option<&'static str> {
    let mut codecs = OTHER_CODECS.iter();
    codecs
        .find(|(begin, _)| packet.starts_with(begin))
        .map(|(_, name)| *name)
}

/// Serial numbers of the streams in a link that are skipped.
#[derive(Debug, Default)]
struct OtherStreams {
    serials: Vec<u32>,
}

impl OtherStreams {
    /// Maximum number of stored serial numbers. Further streams are treated like streams without a first page.
    const N_MAX: usize = 64;

    fn add(&mut self, serial: u32) {
        if self.serials.len() < Self::N_MAX {
            self.serials.push(serial);
        }
    }
}

/// A walk through one Ogg file.
pub(super) struct Walk<'a, V> {
    visitor: V,
    hasher: blake3::Hasher,
    key: WalkKey,
    stream: Option<Stream<'a>>,
    /// Selected stream among the first pages of a link: serial number, identification header and page number.
    beginning: Option<(u32, Head, u32)>,
    is_beginning: bool,
    /// True if the current link contains only audio that is not decoded, and an earlier link contained other audio.
    is_foreign: bool,
    others: OtherStreams,
    /// Bytes since the stream's newest page that belong to no page.
    skipped: SkippedBytes,
    seen: SeenStreams,
}

/// The results of a completed walk.
pub(super) struct Walked<V> {
    pub visitor: V,
    /// Hasher over all audio packets of the file.
    pub hasher: blake3::Hasher,
    key: WalkKey,
}

impl<V> Walked<V> {
    /// Returns the hashes of the file, or none if the file contains no audio packet.
    pub(super) fn facts(&self, file: &[u8]) -> InputFacts {
        self.key.clone().finish(&self.hasher, file.len())
    }
}

impl<'a, V: Visitor> Walk<'a, V> {
    pub(super) fn new(visitor: V) -> Self {
        Self {
            visitor,
            hasher: blake3::Hasher::new(),
            key: WalkKey::new(),
            stream: None,
            beginning: None,
            is_beginning: false,
            is_foreign: false,
            others: OtherStreams::default(),
            skipped: SkippedBytes::default(),
            seen: SeenStreams::default(),
        }
    }

    /// Walks through the whole Ogg file.
    ///
    /// # Errors
    /// A [`Reject`] if the visitor returns one, or if the file contains neither Vorbis nor Opus.
    pub(super) fn run(mut self, file: &'a [u8]) -> Result<Walked<V>, Reject> {
        let mut pages = Pages::new(file, tags::skip(file, 0));
        for page in pages.by_ref() {
            self.page(page)?;
        }

        self.skip(pages.tail());
        // If the file ends with first pages of streams, the selected stream begins and ends here.
        self.begin_stream()?;
        self.end_stream()?;
        if self.seen.has_audio {
            Ok(Walked {
                visitor: self.visitor,
                hasher: self.hasher,
                key: self.key,
            })
        } else {
            Err(self.seen.no_audio())
        }
    }

    fn page(&mut self, page: Page<'a>) -> Result<(), Reject> {
        self.skip(page.skipped);
        if page.is_first {
            return self.first_page(&page);
        }
        // A page that is not the first of its stream ends the group of first pages.
        self.begin_stream()?;

        let is_of_stream = self
            .stream
            .as_ref()
            .is_some_and(|stream| stream.goes_on_with(&page));
        if is_of_stream {
            // Another page of the stream follows, so the pending page is not the last one.
            self.process_pending(false)?;
            let skipped_bytes = std::mem::take(&mut self.skipped).bytes;
            if let Some(stream) = &mut self.stream {
                stream.pending = Some(PendingPage {
                    page,
                    skipped_bytes,
                });
            }
        } else if self.is_foreign {
            // Audio of a codec that is not decoded, chained to other audio: it counts as lost, and a file without it has another
            // hash.
            self.hasher.update(page.body());
            self.key.orphan(page.body().len(), true);
            self.visitor.orphan(page.offset, page.body().len());
        } else if self.stream.as_ref().is_none_or(Stream::is_over)
            && !self.others.serials.contains(&page.header.serial)
        {
            // While a stream is active, a page with an unknown serial number is assumed to be of a stream multiplexed
            // with the active one. Here no stream is active.
            self.key.orphan(page.body().len(), false);
            self.visitor.orphan(page.offset, page.body().len());
        }
        Ok(())
    }

    /// Handles the first page of an Ogg stream. A group of such pages begins a link.
    fn first_page(&mut self, page: &Page<'a>) -> Result<(), Reject> {
        // The first page of a group begins a link, so the previous link is complete.
        if !self.is_beginning {
            self.end_stream()?;
            self.is_beginning = true;
            self.is_foreign = false;
            self.others.serials.clear();
        }

        let PageHeader {
            serial, sequence, ..
        } = page.header;
        let packet = page.parts().next().map_or(&[][..], |part| part.bytes);
        let Some(head) = Head::parse(packet) else {
            let other_audio = other_audio(packet);
            self.seen.has_other = true;
            self.seen.other_audio = self.seen.other_audio.or(other_audio);
            // Audio of other codecs counts as lost only after a stream that is decoded.
            self.is_foreign |= self.seen.has_audio && other_audio.is_some();
            self.others.add(serial);
            return Ok(());
        };

        match head {
            Ok(head) => {
                self.others.add(serial);
                // Select the stream with the lowest serial number, independently of the order of the streams.
                let is_lowest = self.beginning.is_none_or(|(lowest, ..)| serial < lowest);
                if is_lowest {
                    self.beginning = Some((serial, head, sequence));
                }
            }
            Err(fault) => self.seen.fault = self.seen.fault.take().or(Some(fault)),
        }
        Ok(())
    }

    /// Begins the selected stream after the group of first pages.
    fn begin_stream(&mut self) -> Result<(), Reject> {
        if !std::mem::take(&mut self.is_beginning) {
            return Ok(());
        }

        // The bytes skipped so far are before or among the headers and contain no audio, so do not count them.
        self.skipped = SkippedBytes::default();
        let Some((serial, head, sequence)) = self.beginning.take() else {
            return Ok(());
        };

        // The stream was skipped as one of several candidates. Do not skip its pages from now on.
        self.others.serials.retain(|&other| other != serial);
        // Other audio in the group is multiplexed with the selected stream, not chained after it.
        self.is_foreign = false;

        self.seen.has_audio = true;
        self.key.begin(&head);
        self.visitor.begin(&head)?;
        self.stream = Some(Stream {
            serial,
            head,
            packets: Packets::behind(sequence),
            has_setup: false,
            hole: None,
            pending: None,
        });
        Ok(())
    }

    /// Ends the active stream and passes its last page to the visitor.
    fn end_stream(&mut self) -> Result<(), Reject> {
        // The pending page is the stream's last one, the only one whose audio may end within a block of samples. It stays
        // set, because `tail` needs its place.
        self.process_pending(true)?;
        let skipped = std::mem::take(&mut self.skipped);

        let Some(stream) = self.stream.take() else {
            return Ok(());
        };

        // A damaged page of another stream reveals nothing about the end of this stream.
        let claim = skipped.claim.filter(|claim| claim.serial == stream.serial);
        let tail = Tail {
            offset: stream.pending.map_or(0, |pending| pending.page.offset),
            is_ended: stream.is_over(),
            bytes: skipped.bytes + stream.hole.map_or(0, |hole| hole.bytes),
            claimed_granule: claim.and_then(|claim| claim.granule),
            unfinished: stream.packets.unfinished(),
        };
        self.key.end(&tail);
        self.visitor.end(&tail);
        Ok(())
    }

    /// Passes the pending page to the visitor as audio, or as a header.
    fn process_pending(&mut self, is_last: bool) -> Result<(), Reject> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        let Some(PendingPage {
            page,
            skipped_bytes,
        }) = stream.pending
        else {
            return Ok(());
        };

        let entered = stream.packets.enter(&page, skipped_bytes);
        stream.hole = Hole::join(stream.hole, entered.hole);

        let mut audio = Vec::new();
        for packet in entered.packets {
            match (stream.head.kind(packet), &stream.head) {
                (PacketKind::Setup, Head::Vorbis(ident)) if !stream.has_setup => {
                    stream.has_setup = true;
                    // Pages missing among the headers contained no audio.
                    stream.hole = None;
                    let setup = setup::parse(packet, ident);
                    self.key.setup(ident, packet, setup.as_ref().ok());
                    self.visitor.setup(packet, setup)?;
                }
                (PacketKind::Ident | PacketKind::Comment | PacketKind::Setup, _) => {}
                (PacketKind::Audio, _) => {
                    self.hasher.update(packet);
                    audio.push(packet);
                }
                // Do not hash an invalid packet as audio. The visitor counts it as a packet that cannot be decoded.
                (PacketKind::Other, _) => audio.push(packet),
            }
        }

        if !audio.is_empty() {
            let found = AudioPage {
                offset: page.offset,
                granule: page.header.granule,
                hole: stream.hole.take(),
                packets: &audio,
                is_last: is_last || page.is_last,
            };
            self.key.audio(&found);
            self.visitor.audio(&found);
        }
        Ok(())
    }

    fn skip(&mut self, skipped: SkippedBytes) {
        self.skipped.bytes += skipped.bytes;
        // Keep the later of two damaged headers, which is closer to the end of the stream.
        self.skipped.claim = skipped.claim.or(self.skipped.claim);
    }
}
