//! The way through an Ogg file: links, which follow one another, and in each the pages of one Vorbis stream.
//!
//! A link is a group of streams that begin together. Of its Vorbis streams the one with the lowest serial number is
//! taken, and all other streams are passed over. The walk hashes the audio packets of all links, whether they are
//! decoded or not, and all that it tells its visitor. So a file has one hash and one key however much of it is wanted.

use wavemill_schemas::reject::{Reason, Reject};

use super::super::{InputFacts, mp3, reject};
use super::FLAC_MAPPING;
use super::headers::{Ident, PacketKind};
use super::key::WalkKey;
use super::packets::{Hole, Packets};
use super::pages::{Page, PageHeader, Pages, SkippedBytes};
use super::setup::{self, Setup};

/// Learns what the walk finds. What is told here is in the decode key too (`key.rs`).
pub(super) trait Visitor {
    /// A Vorbis stream begins.
    ///
    /// # Errors
    /// A [`Reject`] ends the walk.
    fn begin(&mut self, ident: &Ident) -> Result<(), Reject>;

    /// Its set-up header is there, and is good or refused.
    ///
    /// # Errors
    /// A [`Reject`] ends the walk.
    fn setup(&mut self, packet: &[u8], setup: Result<Setup, Reject>) -> Result<(), Reject>;

    /// A page with packets that are no headers.
    fn audio(&mut self, page: &AudioPage);

    /// The stream ends.
    fn end(&mut self, tail: &Tail);

    /// Bytes of pages that belong to no stream that is known, while no stream is under way: their first page is lost.
    fn orphan(&mut self, offset: usize, bytes: usize);
}

/// A page of the stream.
#[derive(Debug)]
pub(super) struct AudioPage<'p> {
    /// Where it is in the file.
    pub offset: usize,
    pub granule: Option<u64>,
    pub hole: Option<Hole>,
    /// Whole packets that end on it.
    pub packets: &'p [&'p [u8]],
    /// No page of the stream comes after it.
    pub is_last: bool,
}

/// What is behind the last page of a stream that should have gone on.
#[derive(Debug)]
pub(super) struct Tail<'p> {
    /// Where the last page was.
    pub offset: usize,
    /// The stream said that this page was its last.
    pub is_ended: bool,
    /// Bytes behind it that are in no whole page.
    pub bytes: usize,
    /// What a damaged page of this stream among them says of its time.
    pub claimed_granule: Option<u64>,
    /// What is there of a packet that goes on behind the last page.
    pub unfinished: Option<&'p [u8]>,
}

/// Why a file has no Vorbis in it.
#[derive(Debug, Default)]
struct SeenStreams {
    /// The first identification header that was refused.
    fault: Option<Reject>,
    /// A stream of another codec began.
    has_other: bool,
    /// A Vorbis stream began.
    has_vorbis: bool,
}

impl SeenStreams {
    fn no_vorbis(self) -> Reject {
        self.fault.unwrap_or_else(|| match self.has_other {
            true => reject(Reason::UnsupportedCodec, "no audio track of a known codec"),
            false => reject(
                Reason::NotAudio,
                "no page of Ogg that begins a stream is whole",
            ),
        })
    }
}

/// A stream under way.
struct Stream<'a> {
    serial: u32,
    ident: Ident,
    packets: Packets,
    has_setup: bool,
    /// A hole before a page that tells no time, since no packet of audio ends on it.
    hole: Option<Hole>,
    /// The newest page, which waits until it is known whether another one follows.
    pending: Option<PendingPage<'a>>,
}

#[derive(Clone, Copy)]
struct PendingPage<'a> {
    page: Page<'a>,
    /// Bytes before it that are in no page, since the stream's page before.
    skipped_bytes: usize,
}

impl Stream<'_> {
    /// Its newest page says that it is the last one.
    fn is_over(&self) -> bool {
        self.pending.is_some_and(|pending| pending.page.is_last)
    }

    /// The page is of this stream. Behind its last page, another stream may have the same number, but a stream that
    /// goes on counts on.
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

/// A stream of another audio codec begins with this packet.
fn is_audio(packet: &[u8]) -> bool {
    let begins: [&[u8]; 3] = [FLAC_MAPPING, b"OpusHead", b"Speex   "];
    begins.iter().any(|begin| packet.starts_with(begin))
}

/// The streams of a link that are not listened to.
#[derive(Debug, Default)]
struct OtherStreams {
    serials: Vec<u32>,
}

impl OtherStreams {
    /// More than this many are not told apart from streams that have no first page.
    const N_MAX: usize = 64;

    fn add(&mut self, serial: u32) {
        if self.serials.len() < Self::N_MAX {
            self.serials.push(serial);
        }
    }
}

/// A walk over one file.
pub(super) struct Walk<'a, V> {
    visitor: V,
    hasher: blake3::Hasher,
    key: WalkKey,
    stream: Option<Stream<'a>>,
    /// Of the group that is just beginning: serial number, identification header and page number of the stream to take.
    beginning: Option<(u32, Ident, u32)>,
    is_beginning: bool,
    /// The group has audio, and none of it is Vorbis, which came before.
    is_foreign: bool,
    others: OtherStreams,
    /// Bytes in no page since the stream's newest page.
    skipped: SkippedBytes,
    seen: SeenStreams,
}

/// A walk that is over.
pub(super) struct Walked<V> {
    pub visitor: V,
    /// Over all audio packets.
    pub hasher: blake3::Hasher,
    key: WalkKey,
}

impl<V> Walked<V> {
    /// The hashes of the file; none where there is no packet of audio.
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

    /// Goes over the whole file.
    ///
    /// # Errors
    /// A [`Reject`] of the visitor, or where there is no Vorbis in the file.
    pub(super) fn run(mut self, file: &'a [u8]) -> Result<Walked<V>, Reject> {
        let mut pages = Pages::new(file, mp3::behind_tags(file));
        for page in pages.by_ref() {
            self.page(page)?;
        }

        self.skip(pages.tail());
        // A file can end with first pages: their stream begins and ends here.
        self.begin_stream()?;
        self.end_stream()?;
        if self.seen.has_vorbis {
            Ok(Walked {
                visitor: self.visitor,
                hasher: self.hasher,
                key: self.key,
            })
        } else {
            Err(self.seen.no_vorbis())
        }
    }

    fn page(&mut self, page: Page<'a>) -> Result<(), Reject> {
        self.skip(page.skipped);
        if page.is_first {
            return self.first_page(&page);
        }
        // Any other page ends the group of first pages.
        self.begin_stream()?;

        let is_of_stream = self
            .stream
            .as_ref()
            .is_some_and(|stream| stream.goes_on_with(&page));
        if is_of_stream {
            // With this page it is known that the one that waited is not the last.
            self.process_pending(false)?;
            let skipped_bytes = std::mem::take(&mut self.skipped).bytes;
            if let Some(stream) = &mut self.stream {
                stream.pending = Some(PendingPage {
                    page,
                    skipped_bytes,
                });
            }
        } else if self.is_foreign {
            // Audio of another codec, chained to the Vorbis: it is lost, and the file is not the same without it.
            self.hasher.update(page.body());
            self.key.orphan(page.body().len(), true);
            self.visitor.orphan(page.offset, page.body().len());
        } else if self.stream.as_ref().is_none_or(Stream::is_over)
            && !self.others.serials.contains(&page.header.serial)
        {
            // While a stream is under way, an unknown page is taken to be of a stream beside it. Now none is.
            self.key.orphan(page.body().len(), false);
            self.visitor.orphan(page.offset, page.body().len());
        }
        Ok(())
    }

    /// The first page of a stream. A group of them begins a link.
    fn first_page(&mut self, page: &Page<'a>) -> Result<(), Reject> {
        // The first one of a group: a link begins, so the one before it is over.
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
        if PacketKind::of(packet) != PacketKind::Ident {
            self.seen.has_other = true;
            // Audio of other codecs counts as lost behind Vorbis alone.
            self.is_foreign |= self.seen.has_vorbis && is_audio(packet);
            self.others.add(serial);
            return Ok(());
        }

        match Ident::parse(packet) {
            Ok(ident) => {
                self.others.add(serial);
                // Of several Vorbis streams, in whatever order they begin.
                let is_lowest = self.beginning.is_none_or(|(lowest, ..)| serial < lowest);
                if is_lowest {
                    self.beginning = Some((serial, ident, sequence));
                }
            }
            Err(fault) => self.seen.fault = self.seen.fault.take().or(Some(fault)),
        }
        Ok(())
    }

    /// The group of first pages is over: its stream begins.
    fn begin_stream(&mut self) -> Result<(), Reject> {
        if !std::mem::take(&mut self.is_beginning) {
            return Ok(());
        }

        // What was skipped so far lies before the headers or among them, and is no audio.
        self.skipped = SkippedBytes::default();
        let Some((serial, ident, sequence)) = self.beginning.take() else {
            return Ok(());
        };

        // It was put there while it was one of several. Now its pages are wanted.
        self.others.serials.retain(|&other| other != serial);
        // The group has Vorbis, so other audio in it lies beside the Vorbis and not behind it.
        self.is_foreign = false;

        self.seen.has_vorbis = true;
        self.key.begin(&ident);
        self.visitor.begin(&ident)?;
        self.stream = Some(Stream {
            serial,
            ident,
            packets: Packets::behind(sequence),
            has_setup: false,
            hole: None,
            pending: None,
        });
        Ok(())
    }

    /// Nothing more of the stream comes.
    fn end_stream(&mut self) -> Result<(), Reject> {
        // Now the page that waited is known to be the last one, which alone may end within a block.
        self.process_pending(true)?;
        let skipped = std::mem::take(&mut self.skipped);

        let Some(stream) = self.stream.take() else {
            return Ok(());
        };

        // A damaged page of another stream says nothing of this one's end.
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

    /// Hands on the page that was waiting.
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
            match PacketKind::of(packet) {
                PacketKind::Setup if !stream.has_setup => {
                    stream.has_setup = true;
                    // What is missing among the headers is no audio.
                    stream.hole = None;
                    let setup = setup::parse(packet, &stream.ident);
                    self.key.setup(&stream.ident, packet, setup.as_ref().ok());
                    self.visitor.setup(packet, setup)?;
                }
                PacketKind::Ident | PacketKind::Comment | PacketKind::Setup => {}
                PacketKind::Audio => {
                    self.hasher.update(packet);
                    audio.push(packet);
                }
                // Not hashed as audio, but counted by the visitor as a packet that does not decode.
                PacketKind::Other => audio.push(packet),
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
        // The later one is nearer to the end of the stream.
        self.skipped.claim = skipped.claim.or(self.skipped.claim);
    }
}
