//! The [decode key](super::super::key) of Ogg Vorbis: what the walk hands to the decoder, and nothing else of the file.
//!
//! Comments are not handed on, and holes are told by numbers of pages, so that a longer comment, which moves all pages,
//! changes nothing. There is one exception: how much audio may be missing is bounded by what the file's bytes could
//! hold ([`LossBudget`](super::granules::LossBudget)), and these are all bytes, comments too. So where something may be
//! missing, the key sees the length of the file.

use super::super::InputFacts;
use super::super::key::KeyHasher;
use super::blocks::{Blocks, PacketLength};
use super::headers::{Ident, PacketKind};
use super::setup::Setup;
use super::walk::{AudioPage, Tail};

/// The key of a walk under way.
#[derive(Clone, Debug)]
pub(super) struct WalkKey {
    key: KeyHasher,
    /// Of the link under way.
    time: LinkTime,
    /// Decoding may ask how much the file's bytes could hold.
    may_lack: bool,
}

/// Whether the pages of a link follow one another in time with nothing missing.
#[derive(Clone, Debug, Default)]
struct LinkTime {
    /// Known with a good set-up header.
    blocks: Option<Blocks>,
    /// The sample behind the last page; `None` before the first one.
    end: Option<u64>,
}

impl WalkKey {
    pub(super) fn new() -> Self {
        Self {
            key: KeyHasher::of("vorbis"),
            time: LinkTime::default(),
            may_lack: false,
        }
    }

    /// A link begins.
    pub(super) fn begin(&mut self, ident: &Ident) {
        self.key.item("link", &[]);
        self.key.bytes(&ident.bytes);
        self.time = LinkTime::default();
    }

    /// Its set-up header is there; `setup` if it is a good one.
    pub(super) fn setup(&mut self, ident: &Ident, packet: &[u8], setup: Option<&Setup>) {
        self.key.item("setup", &[]);
        self.key.bytes(packet);
        self.time.blocks = setup.map(|setup| Blocks::new(ident, setup.modes));
    }

    /// A page with audio. The packets themselves are in the audio's hash, but for those that are none of Vorbis: of
    /// them decoding reads only how long they are.
    pub(super) fn audio(&mut self, page: &AudioPage) {
        self.key.item("page", &[u64::from(page.is_last)]);
        self.key.item("granule", page.granule.as_slice());
        if let Some(hole) = page.hole {
            let has_torn_packet = u64::from(hole.has_torn_packet);
            self.key
                .item("hole", &[hole.n_pages, hole.bytes as u64, has_torn_packet]);
        }
        for packet in page.packets {
            let is_audio = PacketKind::of(packet) == PacketKind::Audio;
            self.key
                .item("packet", &[packet.len() as u64, u64::from(is_audio)]);
        }

        self.may_lack |= !self.time.goes_on_with(page);
    }

    /// A link ends. Behind a page that its stream calls the last one, decoding looks at nothing.
    pub(super) fn end(&mut self, tail: &Tail) {
        if tail.is_ended {
            return;
        }
        self.key.item("tail", &[tail.bytes as u64]);
        self.key
            .item("claimed granule", tail.claimed_granule.as_slice());
        if let Some(packet) = tail.unfinished {
            self.key.item("unfinished", &[]);
            self.key.bytes(packet);
        }
        self.may_lack |= tail.bytes > 0 || tail.claimed_granule.is_some();
    }

    /// A page of no stream that is known. The hash of the audio has its bytes if it is of a `foreign` stream of audio.
    pub(super) fn orphan(&mut self, bytes: usize, is_foreign: bool) {
        self.key
            .item("orphan", &[bytes as u64, u64::from(is_foreign)]);
        self.may_lack = true;
    }

    /// The hashes of a file of so many bytes, as decoding gives them; none where there is no packet of audio.
    pub(super) fn finish(mut self, audio: &blake3::Hasher, file_bytes: usize) -> InputFacts {
        if audio.count() == 0 {
            return InputFacts::default();
        }
        if self.may_lack {
            self.key.item("file", &[file_bytes as u64]);
        }
        let audio_blake3 = audio.finalize();
        InputFacts::of_audio(audio_blake3, self.key.finish(&audio_blake3))
    }
}

impl LinkTime {
    /// Takes the next page: true if nothing is missing before it or on it, by all that decoding goes by. Behind the
    /// first page that this is false of, the answers mean nothing.
    fn goes_on_with(&mut self, page: &AudioPage) -> bool {
        let Some(blocks) = &mut self.blocks else {
            return false;
        };

        let mut samples = 0;
        for packet in page.packets {
            match blocks.next(packet) {
                PacketLength::Samples(n_samples) => samples += n_samples,
                PacketLength::First | PacketLength::NoAudio => {}
                PacketLength::Broken => return false,
            }
        }
        if page.hole.is_some() {
            return false;
        }

        // As `Granules::page` does it: time may begin anywhere, and a granule that says less than the packets is wrong,
        // or cuts the last block.
        let expected = self.end.map(|end| end.saturating_add(samples));
        let is_late = match (expected, page.granule) {
            (Some(expected), Some(granule)) => granule > expected,
            _ => false,
        };
        self.end = expected.or(page.granule);
        !is_late
    }
}
