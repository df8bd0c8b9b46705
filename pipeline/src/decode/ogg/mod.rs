//! Ogg Vorbis → symphonia's Vorbis decoder, with every lost sample accounted for.
//!
//! symphonia's demuxer is not used: it stops at the end of the first of several chained streams, passes over missing and
//! damaged pages in silence, believes every granule, and some granules make it panic. Here the pages are found one by one
//! ([`pages`]), put together to packets ([`packets`]) and measured against their granules ([`granules`]). Headers are
//! read and checked whole before symphonia sees them ([`setup`]), since some make its codec panic, and others make it
//! take gigabytes.
//!
//! A page that is damaged, or missing by its number, is a hole. Where the granule behind it tells how long it was, and the
//! file's bytes could hold that, there is silence in its place; elsewhere it is closed. Both count as lost.

mod bits;
mod blocks;
mod books;
mod crc;
mod granules;
mod headers;
mod key;
mod packets;
mod pages;
mod run;
mod setup;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
mod walk;

use wavemill_schemas::reject::Reject;

use self::headers::{Ident, PacketKind};
pub(super) use self::pages::{Page, Pages, page_header_bytes};
use self::run::VorbisDecoder;
use self::setup::Setup;
use self::walk::{AudioPage, Tail, Visitor, Walk};
use super::output::Output;
use super::{DecodeReport, InputFacts, Pcm, mp3};

/// What the first packet of FLAC in Ogg begins with; version, number of headers and the native stream follow.
pub(super) const FLAC_MAPPING: &[u8] = b"\x7FFLAC";

/// Decodes a file; `out` is emptied first. `audio_blake3` is over the data of all audio packets of all links.
///
/// # Errors
/// A [`Reject`] where there is no Vorbis, or its headers are broken or over a limit.
pub(super) fn decode(
    file: &[u8],
    output: &mut Output,
    out: &mut Pcm,
) -> Result<DecodeReport, Reject> {
    match decode_links(file, output, out) {
        Ok((report, facts)) => {
            out.decode_key = facts.decode;
            Ok(report)
        }
        Err(fault) => {
            // Headers that are refused may have ended the walk, and the key is that of the whole file.
            out.decode_key = facts(file).decode;
            Err(fault)
        }
    }
}

fn decode_links(
    file: &[u8],
    output: &mut Output,
    out: &mut Pcm,
) -> Result<(DecodeReport, InputFacts), Reject> {
    let decoder = VorbisDecoder::new(file.len(), output, out);
    let walked = Walk::new(decoder).run(file)?;
    let facts = walked.facts(file);
    let report = DecodeReport {
        loss: walked.visitor.finish()?,
        audio_blake3: walked.hasher.finalize(),
    };
    Ok((report, facts))
}

/// The hashes of a file, as decoding gives them; none where there is no packet of audio.
pub(super) fn facts(file: &[u8]) -> InputFacts {
    match Walk::new(HashOnly).run(file) {
        Ok(walked) => walked.facts(file),
        Err(_) => InputFacts::default(),
    }
}

/// The file begins with FLAC in Ogg, and no Vorbis beside it.
pub(super) fn holds_flac(file: &[u8]) -> bool {
    let mut has_flac = false;
    for page in Pages::new(file, mp3::behind_tags(file)) {
        // First pages of all streams come before all other pages (RFC 3533 §4).
        if !page.is_first {
            break;
        }
        let packet = page.parts().next().map_or(&[][..], |part| part.bytes);
        if PacketKind::of(packet) == PacketKind::Ident {
            return false;
        }
        has_flac |= packet.starts_with(FLAC_MAPPING);
    }
    has_flac
}

/// Wants no audio, only the hashes of the walk.
struct HashOnly;

impl Visitor for HashOnly {
    fn begin(&mut self, _: &Ident) -> Result<(), Reject> {
        Ok(())
    }

    fn setup(&mut self, _: &[u8], _: Result<Setup, Reject>) -> Result<(), Reject> {
        Ok(())
    }

    fn audio(&mut self, _: &AudioPage) {}

    fn end(&mut self, _: &Tail) {}

    fn orphan(&mut self, _: usize, _: usize) {}
}
