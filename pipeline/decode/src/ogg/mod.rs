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
mod length;
mod packets;
mod pages;
mod run;
mod setup;
#[cfg(test)]
mod tests;
mod walk;

use self::run::OggDecoder;
use self::walk::{Visitor, Walk};
use super::format::{AudioFormat, DecoderParts};
use super::{DecodeReport, DecodeResult, InputFacts, Pcm};

/// An Ogg container. `audio_blake3` covers all audio packets of all links.
#[derive(Debug)]
pub(super) struct Ogg;

impl AudioFormat for Ogg {
    fn matches(&self, bytes: &[u8]) -> bool {
        bytes.starts_with(pages::CAPTURE)
    }

    fn facts(&self, file: &[u8]) -> InputFacts {
        match Walk::new(HashOnly).run(file) {
            Ok(walked) => walked.facts(file),
            Err(_) => InputFacts::default(),
        }
    }

    fn longest_s(&self, file: &[u8]) -> f64 {
        length::longest_s(file)
    }

    fn decode(&self, file: &[u8], parts: &mut DecoderParts, out: &mut Pcm) -> DecodeResult {
        let links = OggDecoder::new(file, &mut parts.output, out);
        let decoded = Walk::new(links).run(file).and_then(|walked| {
            let facts = walked.facts(file);
            let report = DecodeReport {
                loss: walked.visitor.finish()?,
                audio_blake3: walked.hasher.finalize(),
            };
            Ok((report, facts))
        });

        // A refused header may have ended the walk early, but the decode key covers the whole file.
        let facts = decoded.as_ref().map(|(_, facts)| *facts);
        out.decode_key = facts.unwrap_or_else(|_| self.facts(file)).decode;
        decoded.map(|(report, _)| report)
    }
}

/// Visitor that ignores the audio of an Ogg file, for callers that need only the hashes from the walk.
struct HashOnly;

impl Visitor for HashOnly {}
