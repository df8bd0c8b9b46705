//! Decodes Vorbis with symphonia's decoder and Opus with ropus, both in Ogg, and accounts for every lost sample.
//!
//! symphonia's demuxer is not used: it stops at the end of the first of several chained streams, silently skips missing
//! and damaged pages, trusts every granule, and panics on some granules. Instead, this module finds the pages one by
//! one ([`pages`]), assembles packets from them ([`packets`]) and compares these with their granules ([`granules`]).
//! Headers of Vorbis are read and checked completely before symphonia receives them ([`setup`]), because some make its codec
//! panic, and others make it allocate gigabytes.
//!
//! A hole is a page that is damaged, or missing according to its number. If the granule after the hole states its
//! length, and the file's bytes could hold that much audio, silence replaces the hole. Otherwise nothing does. In both
//! cases the audio counts as lost.

mod blocks;
mod books;
mod granules;
mod headers;
mod key;
mod packets;
mod pages;
mod run;
mod setup;
#[cfg(test)]
mod tests;
mod walk;

use wavemill_schemas::reject::Reject;

use self::headers::Head;
use self::run::OggDecoder;
use self::setup::Setup;
use self::walk::{AudioPage, Tail, Visitor, Walk};
use super::output::Output;
use super::{DecodeReport, InputFacts, Pcm};

/// Decodes an Ogg file into `out`, which is emptied first. `audio_blake3` covers all audio packets of all links.
///
/// # Errors
/// A [`Reject`] if the file contains neither Vorbis nor Opus, or its headers are broken or exceed a limit.
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
            // A refused header may have ended the walk early, but the decode key covers the whole file.
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
    let decoder = OggDecoder::new(file, output, out);
    let walked = Walk::new(decoder).run(file)?;
    let facts = walked.facts(file);
    let report = DecodeReport {
        loss: walked.visitor.finish()?,
        audio_blake3: walked.hasher.finalize(),
    };
    Ok((report, facts))
}

/// Returns the hashes of an Ogg file as decoding computes them, or none if the file contains no audio packet.
pub(super) fn facts(file: &[u8]) -> InputFacts {
    match Walk::new(HashOnly).run(file) {
        Ok(walked) => walked.facts(file),
        Err(_) => InputFacts::default(),
    }
}

/// Visitor that ignores the audio of an Ogg file, for callers that need only the hashes from the walk.
struct HashOnly;

impl Visitor for HashOnly {
    fn begin(&mut self, _: &Head) -> Result<(), Reject> {
        Ok(())
    }

    fn setup(&mut self, _: &[u8], _: Result<Setup, Reject>) -> Result<(), Reject> {
        Ok(())
    }

    fn audio(&mut self, _: &AudioPage) {}

    fn end(&mut self, _: &Tail) {}

    fn orphan(&mut self, _: usize, _: usize) {}
}
