//! Iterates over the frames of a FLAC file and skips metadata, tags and damage, in time linear in the file size.
//!
//! symphonia's reader is not used: it loads all metadata, including pictures, into memory, and drops damaged data
//! silently. Here a frame is a slice of the file that begins with a header and ends where the checksum over the whole
//! frame is correct. A frame is therefore either exactly as written by its encoder, or not accepted.

use memchr::{memchr, memchr2};
use symphonia::core::checksum::Crc16Ansi;
use symphonia::core::io::Monitor;

use super::header::{self, Header, MARKER};
use crate::tags;

/// Maximum number of accidental headers within a FLAC frame; for each one, the bytes before it are read again. A
/// position matches by chance with a probability of about 2⁻²⁴, so one in 150 frames of 100 kB contains such a header,
/// and one in a million contains three.
const FALSE_HEADERS_MAX: usize = 3;
/// Minimum size in bytes of a FLAC frame after its header: a subframe header and the checksum.
const FRAME_BODY_BYTES_MIN: usize = 3;
/// Size of an ID3v1 tag in bytes.
const ID3V1_BYTES: usize = 128;

/// A complete FLAC frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub header: Header,
    /// Offset of the frame in the file.
    pub offset: usize,
    /// The bytes of the frame, including header and checksum.
    pub bytes: &'a [u8],
    /// Number of bytes between the previous frame, or the metadata, and this frame.
    pub skipped_bytes: usize,
}

/// Iterator over the frames of a FLAC file.
#[derive(Clone, Debug)]
pub(super) struct Frames<'a> {
    file: &'a [u8],
    /// Upper bound on the file offset at which the audio ends.
    end: usize,
    at: usize,
    broken: Option<(usize, Header)>,
}

impl<'a> Frames<'a> {
    /// Creates an iterator over the frames of a FLAC file. Skips any tags at the start of the file.
    pub(super) fn new(file: &'a [u8]) -> Self {
        let start = tags::skip(file, 0);
        // Exclude a tag after the audio, because the last frame's checksum must be correct exactly at the end of the
        // audio.
        let tag = file[start..].last_chunk::<ID3V1_BYTES>();
        let end = match tag {
            Some(tag) if tag.starts_with(b"TAG") => file.len() - ID3V1_BYTES,
            _ => file.len(),
        };

        let frames = Self {
            file,
            end,
            at: start,
            broken: None,
        };

        // A metadata block with too large a size may cover the first frames of the stream.
        let first = frames.clone().next();
        if first.is_some_and(|first| first.header.number.is_first()) {
            return frames;
        }

        let behind_metadata = header::skip_metadata(file, start);
        let behind_marker = Self {
            at: start + MARKER.len(),
            ..frames.clone()
        };

        // Search only within the metadata: a search to the end of the file would read the whole file once more.
        if behind_marker
            .find(behind_marker.at, behind_metadata)
            .is_some()
        {
            behind_marker
        } else {
            frames
        }
    }

    /// Returns the first header after the last complete frame, which belongs to a truncated or damaged frame. Known
    /// only once the iterator is exhausted.
    pub(super) fn broken(&self) -> Option<(usize, Header)> {
        self.broken
    }

    /// Finds the first frame header that starts at or after `from` and before `to`.
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

    /// Returns the start of the first complete FLAC frame at or after `from` and before `to`.
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

    /// Returns the end of the FLAC frame that starts at `start`; `None` if the checksum is wrong at every possible end.
    fn end_of(&self, start: usize, header: &Header) -> Option<usize> {
        let most = self.end.min(start + bytes_max(header));
        let mut crc = Crc16Ansi::new(0);
        let mut summed = start;
        let mut at = start + header.bytes;
        let mut n_false = 0;
        let mut first_false = most;

        // At each position where another frame may begin, check by the checksum whether this frame ends there.
        while let Some(hop) = self
            .file
            .get(at..most)
            .and_then(|rest| memchr2(0xFF, MARKER[0], rest))
        {
            at += hop;
            if self.may_follow(at) {
                crc.process_buf_bytes(&self.file[summed..at]);
                summed = at;
                // The checksum of a whole frame, including the stored checksum at the frame's end, is 0.
                if crc.crc() == 0 {
                    return Some(at);
                }
                // Either this header is accidental, or it belongs to the next frame and this frame is damaged.
                first_false = first_false.min(at);
                n_false += 1;
                if n_false > FALSE_HEADERS_MAX {
                    return self.unmarked_end(start, header, first_false);
                }
            }
            at += 1;
        }

        // No header follows the last frame of the file, so check whether the frame ends with the file.
        crc.process_buf_bytes(&self.file[summed..most]);
        if most == self.end && crc.crc() == 0 {
            return Some(most);
        }
        self.unmarked_end(start, header, first_false)
    }

    /// Returns the first end up to `most` at which the frame's checksum is correct although no header follows, because
    /// the next frame's header may be damaged. One position in 65,536 is correct by chance; the decoder then reports
    /// that the frame is too short.
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

    /// Reports whether another frame starts at `at`, or another FLAC stream that was concatenated to this one.
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

            // Keep only the first header of an incomplete frame. Later headers may be accidental ones within it.
            self.broken.get_or_insert((start, header));
            at = start + 1;
        }
    }
}

/// Returns an upper bound on the size of a FLAC frame in bytes: twice the size of the uncompressed samples, plus 1 KiB.
fn bytes_max(header: &Header) -> usize {
    let bits = usize::from(header.bits.unwrap_or(32)) + usize::from(header.has_side);
    let verbatim = header.n_samples as usize * usize::from(header.channels) * bits / 8;
    2 * verbatim + 1_024
}
