//! Iterates over the frames of an MPEG audio file and skips tags and damage, in time linear in the size of the file.
//!
//! symphonia's demuxer does not report what it skips; here every byte that is neither part of a frame nor of a tag is
//! counted. A frame is accepted if another frame, a tag or the end of the file follows it. A stream starts or changes
//! its format only where three headers agree: two agree by chance once in several megabytes of noise.

use memchr::memchr;

use super::free_format;
use super::header::{HEADER_BYTES, Header};
use super::info::Info;
use crate::layer3::FrameHeader;
use crate::tags;

/// A complete MPEG audio frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub header: Header,
    /// File offset of the frame.
    pub offset: usize,
    /// Bytes of the frame, including its header.
    pub bytes: &'a [u8],
    /// Number of bytes since the previous frame that belong neither to a frame nor to a tag. 0 for the first frame.
    pub skipped_bytes: usize,
}

impl<'a> Frame<'a> {
    /// Returns the frame's side info, without the checksum before it.
    pub(super) fn side_info(&self) -> &'a [u8] {
        let end = self.header.main_data_offset();
        &self.bytes[end - self.header.side_info_bytes()..end]
    }

    /// Returns the header for the layer III decoder. The frame must be of layer III.
    pub(super) fn layer3_header(&self) -> FrameHeader {
        let header = self.bytes.first_chunk();
        header
            .and_then(|&header| FrameHeader::parse(header))
            .expect("a valid header of layer III begins the frame")
    }
}

/// Iterator over the frames of an MPEG audio file.
#[derive(Clone, Debug)]
pub(crate) struct Frames<'a> {
    search: Search<'a>,
    next: Option<Candidate>,
    truncated_at: Option<usize>,
}

/// A header that was accepted as the start of a frame, which may be incomplete.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    offset: usize,
    header: Header,
    skipped_bytes: usize,
}

/// The data that follow a frame.
enum Successor {
    /// Another frame, directly or after tags.
    Frame(Candidate),
    /// The end of the audio.
    End,
    /// Bytes that belong neither to a frame nor to a tag.
    Junk,
}

impl<'a> Frames<'a> {
    /// Finds the first frame of the file, after any tags and foreign bytes. Searches for free format only if there are
    /// no other frames.
    pub(super) fn new(file: &'a [u8]) -> Self {
        let mut search = Search {
            file,
            free_bytes: None,
        };
        let mut first = search.first();
        if first.is_none() {
            search.free_bytes = free_format::frame_bytes(file);
            if search.free_bytes.is_some() {
                first = search.first();
            }
        }

        // Foreign bytes before the first frame do not count as lost audio.
        let first = first.map(|first| Candidate {
            skipped_bytes: 0,
            ..first
        });
        Self {
            search,
            next: first,
            truncated_at: None,
        }
    }

    /// Returns the frame size of a free-format file in bytes, without padding; `None` for files in other formats.
    pub(super) fn free_bytes(&self) -> Option<usize> {
        self.search.free_bytes
    }

    /// Returns the offset of the last frame if the file ends inside it. Known once the iterator is exhausted.
    pub(super) fn truncated_at(&self) -> Option<usize> {
        self.truncated_at
    }

    /// Reports whether the file ends with one to three bytes that could begin another header of the frame's stream,
    /// which means that the file was cut within the next frame.
    fn is_cut_header(&self, frame: &Candidate, end: usize) -> bool {
        let rest = &self.search.file[end..];
        if rest.is_empty() || rest.len() >= HEADER_BYTES {
            return false;
        }

        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&self.search.file[frame.offset..][..HEADER_BYTES]);
        header[..rest.len()].copy_from_slice(rest);

        let next = self.search.header(&header);
        next.is_some_and(|next| next.same_stream(&frame.header))
    }

    fn successor(&self, frame: &Candidate) -> Successor {
        let end = frame.offset + frame.header.bytes;
        let Some(rest) = self.search.file.get(end..) else {
            // Either the file ends within the frame or the frame's header is a false one; `resynchronise` distinguishes
            // the two cases.
            return Successor::Junk;
        };

        let next = self
            .search
            .header(rest)
            .filter(|next| next.same_stream(&frame.header));
        if let Some(header) = next {
            return Successor::Frame(Candidate {
                offset: end,
                header,
                skipped_bytes: 0,
            });
        }
        if rest.len() < HEADER_BYTES {
            return Successor::End;
        }

        let behind_tags = tags::skip(self.search.file, end);
        if behind_tags == end {
            return Successor::Junk;
        }

        // Foreign bytes after a tag are counted as part of the tag, not as lost audio.
        match self.search.find(behind_tags, Some(&frame.header)) {
            Some(next) => Successor::Frame(Candidate {
                skipped_bytes: 0,
                ..next
            }),
            None => Successor::End,
        }
    }

    /// Handles a frame that is followed by junk. Returns the frame to yield, if any, and the next candidate for one.
    fn resynchronise(&self, frame: Candidate) -> (Option<Candidate>, Option<Candidate>) {
        let end = frame.offset + frame.header.bytes;
        // Search from within the frame: if its header is false, the true frames may begin before its supposed end.
        let Some(next) = self.search.find(frame.offset + 1, Some(&frame.header)) else {
            let is_whole = end <= self.search.file.len();
            return (is_whole.then_some(frame), None);
        };

        // If the next frame is one frame length away, only the header in between is broken and this frame is complete.
        let hole = next.offset.checked_sub(end);
        if hole.is_some_and(|hole| hole == 0 || hole.abs_diff(frame.header.bytes) <= 1) {
            return (
                Some(frame),
                Some(Candidate {
                    skipped_bytes: next.offset - end,
                    ..next
                }),
            );
        }

        // Otherwise the frame is rejected, and its bytes are counted as skipped bytes before the next frame.
        let skipped_bytes = frame.skipped_bytes + next.offset - frame.offset;
        (
            None,
            Some(Candidate {
                skipped_bytes,
                ..next
            }),
        )
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        loop {
            let frame = self.next.take()?;
            // Skip candidates until one is a complete frame.
            let whole = match self.successor(&frame) {
                Successor::Frame(next) => {
                    self.next = Some(next);
                    Some(frame)
                }
                Successor::End => {
                    let end = frame.offset + frame.header.bytes;
                    self.truncated_at = self.is_cut_header(&frame, end).then_some(end);
                    Some(frame)
                }
                Successor::Junk => {
                    let (whole, next) = self.resynchronise(frame);
                    self.truncated_at = (whole.is_none() && next.is_none()).then_some(frame.offset);
                    self.next = next;
                    whole
                }
            };

            if let Some(Candidate {
                offset,
                header,
                skipped_bytes,
            }) = whole
            {
                return Some(Frame {
                    header,
                    offset,
                    bytes: &self.search.file[offset..offset + header.bytes],
                    skipped_bytes,
                });
            }
        }
    }
}

/// A file and the free-format frame size that is needed to find its frames.
#[derive(Clone, Copy, Debug)]
struct Search<'a> {
    file: &'a [u8],
    /// Frame size of a free-format file in bytes, without padding.
    free_bytes: Option<usize>,
}

impl Search<'_> {
    /// Parses the frame header at the start of `bytes`.
    fn header(&self, bytes: &[u8]) -> Option<Header> {
        Header::parse_with(bytes, self.free_bytes)
    }

    /// Finds the first MPEG audio frame of the file.
    fn first(&self) -> Option<Candidate> {
        let behind_tags = tags::skip(self.file, 0);
        self.find(behind_tags, None).or_else(|| {
            // Search the tags as well, because a tag with a wrong size may cover the audio.
            if behind_tags > HEADER_BYTES {
                self.find(HEADER_BYTES, None)
            } else {
                None
            }
        })
    }

    /// Finds the next position from `from` on at which frames start: two consecutive headers that match `stream`, or
    /// three that match each other.
    fn find(&self, from: usize, stream: Option<&Header>) -> Option<Candidate> {
        let mut at = from;
        while let Some(hop) = memchr(0xFF, self.file.get(at..)?) {
            at += hop;
            if let Some(header) = self.header(&self.file[at..]) {
                // If the stream is known, one further header is sufficient evidence.
                let is_expected = stream.is_some_and(|stream| header.same_stream(stream));
                if self.is_info(at, &header)
                    || self.is_followed(at, &header, if is_expected { 1 } else { 2 })
                {
                    return Some(Candidate {
                        offset: at,
                        header,
                        skipped_bytes: at - from,
                    });
                }
            }
            at += 1;
        }
        None
    }

    /// Reports whether an Info frame starts at `offset`. Its signature is sufficient evidence without following frames.
    fn is_info(&self, offset: usize, header: &Header) -> bool {
        let bytes = self.file.get(offset..offset + header.bytes);
        bytes.is_some_and(|bytes| {
            Info::parse(&Frame {
                header: *header,
                offset,
                bytes,
                skipped_bytes: 0,
            })
            .is_some()
        })
    }

    /// Reports whether the header at `at` is followed by `n_more` headers of the same stream, or by fewer and then a
    /// tag or the end of the file.
    fn is_followed(&self, at: usize, header: &Header, n_more: usize) -> bool {
        let mut end = at + header.bytes;
        for n_seen in 0..n_more {
            // The file ends within a frame: one further header after the first is sufficient evidence.
            let Some(rest) = self.file.get(end..) else {
                return n_seen > 0;
            };
            // The audio ends here. Files with only one or two frames are accepted as well.
            if rest.is_empty() || tags::skip(self.file, end) > end {
                return true;
            }
            match self.header(rest) {
                Some(next) if next.same_stream(header) => end += next.bytes,
                // The file may end within the next frame header.
                _ => return rest.len() < HEADER_BYTES && rest[0] == 0xFF,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frame header of 128 kbit/s stereo at 44.1 kHz.
    const FRAME_BYTES: usize = 417;

    fn frame() -> Vec<u8> {
        let mut frame = vec![0; FRAME_BYTES];
        frame[..HEADER_BYTES].copy_from_slice(&[0xFF, 0xFB, 0x90, 0x64]);
        frame
    }

    /// Returns the offset and number of skipped bytes of each frame, and the offset of a truncated frame.
    fn walk(file: &[u8]) -> (Vec<(usize, usize)>, Option<usize>) {
        let mut frames = Frames::new(file);
        let found = frames
            .by_ref()
            .map(|frame| (frame.offset, frame.skipped_bytes))
            .collect();
        (found, frames.truncated_at())
    }

    #[test]
    fn foreign_bytes_around_the_audio_are_not_lost_audio() {
        let file = [
            b"<html>\xFF\xFB\x90\x64".to_vec(),
            frame().repeat(3),
            b"</html>".to_vec(),
        ]
        .concat();
        assert_eq!(walk(&file), (vec![(10, 0), (427, 0), (844, 0)], None));
    }

    #[test]
    fn a_frame_that_runs_into_a_hole_is_dropped_with_it() {
        let mut file = frame().repeat(8);
        file.drain(2 * FRAME_BYTES + 100..3 * FRAME_BYTES + 200);
        let (frames, truncated_at) = walk(&file);
        let next = 4 * FRAME_BYTES - FRAME_BYTES - 100;
        assert_eq!(
            frames[..3],
            [(0, 0), (FRAME_BYTES, 0), (next, next - 2 * FRAME_BYTES)]
        );
        assert_eq!((frames.len(), truncated_at), (6, None));
    }

    #[test]
    fn one_broken_header_costs_one_frame() {
        let mut file = frame().repeat(6);
        file[3 * FRAME_BYTES] = 0;
        let (frames, _) = walk(&file);
        assert_eq!(frames.len(), 5);
        assert_eq!(frames[3], (4 * FRAME_BYTES, FRAME_BYTES));
    }

    #[test]
    fn truncated_frame_or_header_at_the_end_is_reported() {
        let file = frame().repeat(4);
        assert_eq!(walk(&file[..3 * FRAME_BYTES + 50]).1, Some(3 * FRAME_BYTES));
        assert_eq!(walk(&file[..3 * FRAME_BYTES + 2]).1, Some(3 * FRAME_BYTES));
        assert_eq!(walk(&file).1, None);
        assert_eq!(walk(&[]), (vec![], None));

        // A file may end with a truncated header whose checksum flag or bit rate differs. Bytes that cannot begin a
        // header of this stream are foreign.
        for cut in [
            &b"\xFF"[..],
            b"\xFF\xFB",
            b"\xFF\xFA",
            b"\xFF\xFB\x90",
            b"\xFF\xFB\xA0",
        ] {
            let (_, truncated_at) = walk(&[&file, cut].concat());
            assert_eq!(truncated_at, Some(file.len()), "{cut:x?}");
        }
        for foreign in [
            &b"\0"[..],
            b"\xFF\xFF",
            b"\xFF\xF3",
            b"\xFF\xFF\xFF",
            b"\xFF\xFB\x94",
        ] {
            let (_, truncated_at) = walk(&[&file, foreign].concat());
            assert_eq!(truncated_at, None, "{foreign:x?}");
        }
    }

    #[test]
    fn tag_between_frames_is_not_a_hole() {
        let tag = b"ID3\x04\0\0\0\0\0\x03abc";
        let mut other = vec![0; 384];
        other[..HEADER_BYTES].copy_from_slice(&[0xFF, 0xFB, 0x94, 0x64]);

        let file = [
            frame().repeat(3),
            tag.to_vec(),
            frame().repeat(2),
            other.repeat(3),
        ]
        .concat();

        let (frames, truncated_at) = walk(&file);
        assert_eq!((frames.len(), truncated_at), (8, None));
        assert!(frames.iter().all(|(_, skipped_bytes)| *skipped_bytes == 0));
        assert_eq!(Frames::new(&file).last().unwrap().header.rate_hz, 48_000);
    }
}
