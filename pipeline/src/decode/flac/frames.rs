//! Walks the frames of a FLAC file, over metadata, tags and damage, in time linear in its bytes.
//!
//! symphonia's reader is not used: it reads all metadata, pictures included, into memory, and drops what is damaged
//! without a word. Here a frame is a slice of the file that begins with a header and ends where the checksum over all of
//! it is right. So a frame is what its writer made, or it is none.

use memchr::{memchr, memchr2};
use symphonia::core::checksum::Crc16Ansi;
use symphonia::core::io::Monitor;

use super::header::{self, Header, MARKER};
use super::pieces::Piece;

/// Headers that may stand by chance within a frame; each costs that the bytes before it are read once more. A place is
/// one by chance of some 2⁻²⁴, so a frame of 100 kB in 150 has one, and one in a million has three.
const FALSE_HEADERS_MAX: usize = 3;
/// A subframe's header, and the checksum.
const FRAME_BODY_BYTES_MIN: usize = 3;
/// Bytes of an ID3v1 tag.
const ID3V1_BYTES: usize = 128;

/// A whole frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub header: Header,
    /// Where it starts in the file.
    pub offset: usize,
    /// Its bytes, header and checksum included.
    pub bytes: &'a [u8],
    /// Bytes since the previous frame, or since the metadata, that are neither frame nor metadata.
    pub skipped_bytes: usize,
}

/// Iterator over the frames of a file.
#[derive(Clone, Debug)]
pub(super) struct Frames<'a> {
    file: &'a [u8],
    /// Where audio ends at the latest.
    end: usize,
    at: usize,
    broken: Option<(usize, Header)>,
}

impl<'a> Frames<'a> {
    /// Begins with a piece: at its marker, or at a frame.
    pub(super) fn new(piece: &Piece<'a>) -> Self {
        let file = piece.bytes;
        // The last frame is known by the checksum up to the end of the audio, so the audio must end before a tag.
        let has_tag = piece.is_native
            && file.len() >= ID3V1_BYTES
            && file[file.len() - ID3V1_BYTES..].starts_with(b"TAG");
        let end = if has_tag {
            file.len() - ID3V1_BYTES
        } else {
            file.len()
        };

        let frames = Self {
            file,
            end,
            at: 0,
            broken: None,
        };

        // A block of metadata that claims too much may have swallowed the first frames.
        let first = frames.clone().next();
        if first.is_some_and(|first| first.header.number.is_first()) {
            return frames;
        }

        let behind_metadata = header::skip_metadata(file, 0);
        let behind_marker = Self {
            at: MARKER.len(),
            ..frames.clone()
        };

        // Within the metadata alone: up to the end of the file it would be one more walk over all of it.
        if behind_marker.find(MARKER.len(), behind_metadata).is_some() {
            behind_marker
        } else {
            frames
        }
    }

    /// The first header behind the last whole frame: that of a frame which is cut off or damaged. Known once the iterator
    /// is at its end.
    pub(super) fn broken(&self) -> Option<(usize, Header)> {
        self.broken
    }

    /// The first header from `from` on that starts before `to`.
    fn header(&self, from: usize, to: usize) -> Option<(usize, Header)> {
        let mut at = from;
        while let Some(hop) = memchr(0xFF, self.file.get(at..to.min(self.end))?) {
            at += hop;
            if let Some(header) = Header::parse(&self.file[at..self.end]) {
                return Some((at, header));
            }
            at += 1;
        }
        None
    }

    /// Where the first whole frame starts, from `from` on and before `to`.
    fn find(&self, from: usize, to: usize) -> Option<usize> {
        let mut at = from;
        while let Some((start, header)) = self.header(at, to) {
            if self.end_of(start, &header).is_some() {
                return Some(start);
            }
            at = start + 1;
        }
        None
    }

    /// Where the frame that starts at `start` ends; `None` where no end fits its checksum.
    fn end_of(&self, start: usize, header: &Header) -> Option<usize> {
        let most = self.end.min(start + bytes_max(header));
        let mut crc = Crc16Ansi::new(0);
        let mut summed = start;
        let mut at = start + header.bytes;
        let mut n_false = 0;
        let mut first_false = most;

        // Wherever another frame may begin, the checksum tells whether this one ends there.
        while let Some(hop) = self
            .file
            .get(at..most)
            .and_then(|rest| memchr2(0xFF, MARKER[0], rest))
        {
            at += hop;
            if self.may_follow(at) {
                crc.process_buf_bytes(&self.file[summed..at]);
                summed = at;
                // The checksum at the end of the frame makes that over all of it 0.
                if crc.crc() == 0 {
                    return Some(at);
                }
                // A header by chance; or the next frame's, and this frame is damaged.
                first_false = first_false.min(at);
                n_false += 1;
                if n_false > FALSE_HEADERS_MAX {
                    return self.unmarked_end(start, header, first_false);
                }
            }
            at += 1;
        }

        // No header follows the last frame of the file.
        crc.process_buf_bytes(&self.file[summed..most]);
        if most == self.end && crc.crc() == 0 {
            return Some(most);
        }
        self.unmarked_end(start, header, first_false)
    }

    /// The first place up to `most` at which the checksum is right, though no header stands there: the next frame's may be
    /// damaged. One place in 65,536 is right by chance. Then the decoder finds the frame too short.
    fn unmarked_end(&self, start: usize, header: &Header, most: usize) -> Option<usize> {
        let body = start + header.bytes;
        let mut crc = Crc16Ansi::new(0);
        crc.process_buf_bytes(&self.file[start..body]);

        for (at, byte) in self.file.get(body..most)?.iter().enumerate() {
            crc.process_byte(*byte);
            if crc.crc() == 0 && at >= FRAME_BODY_BYTES_MIN {
                return Some(body + at + 1);
            }
        }
        None
    }

    /// Whether another frame starts here, or another stream that was joined to this one.
    fn may_follow(&self, at: usize) -> bool {
        let rest = &self.file[at..self.end];
        Header::parse(rest).is_some() || rest.starts_with(MARKER)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        self.broken = None;
        let behind_metadata = header::skip_metadata(self.file, self.at).min(self.end);
        let mut at = behind_metadata;

        loop {
            let Some((start, header)) = self.header(at, self.end) else {
                self.at = self.end;
                return None;
            };
            if let Some(end) = self.end_of(start, &header) {
                self.at = end;
                self.broken = None;
                let bytes = &self.file[start..end];
                return Some(Frame {
                    header,
                    offset: start,
                    bytes,
                    skipped_bytes: start - behind_metadata,
                });
            }

            // Later headers may stand by chance within the first one's frame.
            self.broken.get_or_insert((start, header));
            at = start + 1;
        }
    }
}

/// More bytes than any encoder gives a frame: twice what its samples take as they are.
fn bytes_max(header: &Header) -> usize {
    let bits = usize::from(header.bits.unwrap_or(32)) + usize::from(header.has_side);
    let verbatim = header.n_samples as usize * usize::from(header.channels) * bits / 8;
    2 * verbatim + 1_024
}
