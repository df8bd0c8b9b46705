//! The pieces that a FLAC file is read in: a native file is one piece, FLAC in Ogg is put together from its pages.

use super::chain::{Chain, ForeignStreams};
use super::header::MARKER;
use crate::mp3::behind_tags;

/// Some whole frames, and what damage left of others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub bytes: &'a [u8],
    /// The stream begins with it, or another one that was chained to it.
    pub is_start: bool,
    /// It is a file of its own: a tag may stand at its end.
    pub is_native: bool,
    parts: &'a [Part],
}

/// Bytes of a piece that lie together in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// Where they begin in the piece.
    pub at: usize,
    /// Where they begin in the file.
    pub file_offset: usize,
}

impl Piece<'_> {
    /// Where a byte of the piece stands in the file.
    pub(super) fn file_offset(&self, at: usize) -> usize {
        // Parts are in the order of the piece, since it grows at its end only.
        let n_begun = self.parts.partition_point(|part| part.at <= at);
        match self.parts[..n_begun].last() {
            Some(part) => part.file_offset + (at - part.at),
            None => at,
        }
    }
}

/// Goes through a file piece by piece.
pub(super) enum Pieces<'a> {
    Native(NativeStream<'a>),
    Ogg(Box<Chain<'a>>),
}

/// A stream that is a file of its own.
pub(super) struct NativeStream<'a> {
    /// Until it is given out.
    stream: Option<&'a [u8]>,
    part: Part,
}

impl<'a> Pieces<'a> {
    /// Begins behind the tags of a file that holds FLAC: as it is, or in Ogg.
    pub(super) fn new(file: &'a [u8]) -> Self {
        let start = behind_tags(file);
        let stream = &file[start..];
        if !stream.starts_with(MARKER) {
            return Self::Ogg(Box::new(Chain::new(file, start)));
        }
        Self::Native(NativeStream {
            stream: Some(stream),
            part: Part {
                at: 0,
                file_offset: start,
            },
        })
    }

    /// Streams of other codecs that were chained to the FLAC so far, and passed over.
    pub(super) fn foreign(&self) -> Option<&ForeignStreams> {
        match self {
            Self::Native(_) => None,
            Self::Ogg(chain) => Some(chain.foreign()).filter(|foreign| foreign.n_bytes > 0),
        }
    }

    /// The next piece, valid until the one behind it is asked for.
    pub(super) fn next(&mut self) -> Option<Piece<'_>> {
        match self {
            Self::Native(native) => {
                let bytes = native.stream.take()?;
                Some(Piece {
                    bytes,
                    is_start: true,
                    is_native: true,
                    parts: std::slice::from_ref(&native.part),
                })
            }
            Self::Ogg(chain) => {
                let is_start = chain.read_piece()?;
                Some(Piece {
                    bytes: chain.bytes(),
                    is_start,
                    is_native: false,
                    parts: chain.parts(),
                })
            }
        }
    }
}
