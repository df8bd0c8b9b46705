//! Computes the [decode key](super::super::key) of an Ogg file from the data that the walk passes to the decoder.
//!
//! Comments are not passed to the decoder, and holes are described by numbers of pages, so a longer comment, which
//! moves all pages, does not change the key. There is one exception: the amount of audio that may be missing is limited
//! by what the file's bytes could hold ([`LossBudget`](super::granules::LossBudget)), and this includes the bytes of
//! comments. If audio may be missing, the key therefore covers the length of the file.

use super::super::InputFacts;
use super::super::key::KeyHasher;
use super::blocks::{Blocks, Lengths, PacketLength};
use super::headers::{Head, Ident, PacketKind};
use super::setup::Setup;
use super::walk::{AudioPage, Tail};

/// Decode key of a walk through an Ogg file in progress.
#[derive(Clone, Debug)]
pub(super) struct WalkKey {
    key: KeyHasher,
    /// Time within the current link of the Ogg file.
    time: LinkTime,
    /// Whether decoding may depend on how much audio the file's bytes could hold.
    may_lack: bool,
}

/// Checks that the pages of an Ogg link follow one another in time without gaps.
#[derive(Clone, Debug, Default)]
struct LinkTime {
    head: Option<Head>,
    /// Lengths of the link's packets; `None` until a valid set-up header has been read.
    lengths: Option<Lengths>,
    /// Number of the sample after the link's last page; `None` before the first page.
    end: Option<u64>,
}

impl WalkKey {
    pub(super) fn new() -> Self {
        Self {
            key: KeyHasher::new("vorbis"),
            time: LinkTime::default(),
            may_lack: false,
        }
    }

    /// Starts a link of the Ogg file.
    pub(super) fn begin(&mut self, head: &Head) {
        self.key.item("link", &[]);
        self.key.bytes(head.bytes());
        self.time = LinkTime {
            head: Some(*head),
            lengths: matches!(head, Head::Opus(_)).then_some(Lengths::Opus),
            end: None,
        };
    }

    /// Adds the set-up header of a link to the key. `setup` is `None` if the header is not valid.
    pub(super) fn setup(&mut self, ident: &Ident, packet: &[u8], setup: Option<&Setup>) {
        self.key.item("setup", &[]);
        self.key.bytes(packet);
        self.time.lengths = setup.map(|setup| Lengths::Vorbis(Blocks::new(ident, setup.modes)));
    }

    /// Adds a page with audio to the key. The audio's hash covers the packets themselves, except packets that are not
    /// valid: decoding only uses the length of these.
    pub(super) fn audio(&mut self, page: &AudioPage) {
        self.key.item("page", &[u64::from(page.is_last)]);
        self.key.item("granule", page.granule.as_slice());
        if let Some(hole) = page.hole {
            let has_torn_packet = u64::from(hole.has_torn_packet);
            self.key
                .item("hole", &[hole.n_pages, hole.bytes as u64, has_torn_packet]);
        }
        for packet in page.packets {
            let kind = self.time.head.map(|head| head.kind(packet));
            let is_audio = kind == Some(PacketKind::Audio);
            self.key
                .item("packet", &[packet.len() as u64, u64::from(is_audio)]);
        }

        self.may_lack |= !self.time.goes_on_with(page);
    }

    /// Ends a link of the file. Decoding ignores everything after a page that is flagged as the last of its stream.
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

    /// Adds a page of an unknown stream to the key. The audio's hash covers pages of a `foreign` audio stream.
    pub(super) fn orphan(&mut self, bytes: usize, is_foreign: bool) {
        self.key
            .item("orphan", &[bytes as u64, u64::from(is_foreign)]);
        self.may_lack = true;
    }

    /// Returns the hashes of a file of `file_bytes` bytes as decoding computes them, or none if the file contains no
    /// audio packet.
    pub(super) fn finish(mut self, audio: &blake3::Hasher, file_bytes: usize) -> InputFacts {
        if audio.count() == 0 {
            return InputFacts::default();
        }
        if self.may_lack {
            self.key.item("file", &[file_bytes as u64]);
        }
        let audio_blake3 = audio.finalize();
        InputFacts::from_audio(audio_blake3, self.key.finish(&audio_blake3))
    }
}

impl LinkTime {
    /// Adds the next page of a link. Returns `true` if no audio is missing before or on the page, by the criteria that
    /// decoding uses. After the first `false`, further results are meaningless.
    fn goes_on_with(&mut self, page: &AudioPage) -> bool {
        let Some(lengths) = &mut self.lengths else {
            return false;
        };

        let mut samples = 0;
        for packet in page.packets {
            match lengths.next(packet) {
                PacketLength::Samples(n_samples) => samples += n_samples,
                PacketLength::First | PacketLength::NoAudio => {}
                PacketLength::Broken => return false,
            }
        }
        if page.hole.is_some() {
            return false;
        }

        // Same rules as in `Granules::page`: time may begin anywhere, and a granule below the end of the packets is
        // wrong or trims the last block.
        let expected = self.end.map(|end| end.saturating_add(samples));
        let is_late = match (expected, page.granule) {
            (Some(expected), Some(granule)) => granule > expected,
            _ => false,
        };
        self.end = expected.or(page.granule);
        !is_late
    }
}
