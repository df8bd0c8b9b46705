//! Finds the pages of an Ogg file (RFC 3533 §6), even if the file is damaged, in time linear in its size.
//!
//! A page is accepted if its checksum is correct. All bytes outside of such pages are counted. If they look like the
//! beginning of a page, the time in that page's header is kept: it reveals how long a damaged last page was.

use memchr::memmem;
use symphonia::core::checksum::Crc32;
use symphonia::core::io::Monitor;

pub(super) const CAPTURE: &[u8; 4] = b"OggS";
/// Size in bytes of the fixed part of an Ogg page's header; the lacing values follow it.
const HEADER_BYTES: usize = 27;
/// Offset of the checksum in an Ogg page's header.
const CRC_AT: usize = 22;
/// The rest of a file is skipped once failed checksums have covered this many times the file's size. A damaged page
/// costs at most its own length. Without a limit, a file of nested headers would cost time quadratic in its length.
const FAILED_BYTES_FACTOR: usize = 4;
/// Lower bound on the limit of failed checksums for small files, in bytes: a few of the largest pages (65,307 bytes).
const FAILED_BYTES_MIN: usize = 1 << 20;

/// A complete Ogg page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page<'a> {
    /// Offset of the page in the file.
    pub offset: usize,
    /// Bytes between the previous page and this one that belong to no page.
    pub skipped: SkippedBytes,
    /// The page's header.
    pub header: PageHeader,
    /// Whether the first packet on the page began on an earlier page.
    pub is_continued: bool,
    /// Whether this is the first page of its stream.
    pub is_first: bool,
    /// Whether this is the last page of its stream.
    pub is_last: bool,
    lacing: &'a [u8],
    body: &'a [u8],
}

/// Serial number, page number and time of an Ogg page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageHeader {
    /// Serial number of the stream to which the page belongs.
    pub serial: u32,
    /// Number of the page in its stream.
    pub sequence: u32,
    /// Time at the end of the last packet that ends on the page, in samples since the start of the stream. `None` if no
    /// packet ends on the page, or if the number is not a time.
    pub granule: Option<u64>,
}

/// Bytes of an Ogg file that are not in any complete page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SkippedBytes {
    /// Number of skipped bytes.
    pub bytes: usize,
    /// Header of the last damaged page among the skipped bytes. No checksum confirms this header.
    pub claim: Option<PageHeader>,
}

/// A packet on an Ogg page, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// The packet's bytes on this page.
    pub bytes: &'a [u8],
    /// Whether the packet ends on this page.
    pub is_end: bool,
}

impl<'a> Page<'a> {
    /// Returns the packets on the page, in the order of the file.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part<'a>> + use<'a> {
        let mut lacing = self.lacing;
        let mut body = self.body;
        std::iter::from_fn(move || {
            if lacing.is_empty() {
                return None;
            }

            // A lacing value below 255 ends a packet.
            let end = lacing.iter().position(|&value| value < 255);
            let n_values = end.map_or(lacing.len(), |end| end + 1);
            let (values, rest) = lacing.split_at(n_values);
            lacing = rest;

            let (bytes, rest) = body.split_at(values.iter().map(|&value| usize::from(value)).sum());
            body = rest;
            Some(Part {
                bytes,
                is_end: end.is_some(),
            })
        })
    }

    /// Returns the bytes of the page's packets.
    pub(super) fn body(&self) -> &'a [u8] {
        self.body
    }
}

/// Result of checking the bytes at a capture pattern, which marks the start of an Ogg page.
enum PageCheck<'a> {
    /// A page with a correct checksum, and its length in bytes.
    Whole(Page<'a>, usize),
    /// No valid page: contains the page header as far as it looks valid, and the number of bytes that were checked.
    Damaged(Option<PageHeader>, usize),
}

/// Iterator over the pages of an Ogg file.
#[derive(Clone, Debug)]
pub(super) struct Pages<'a> {
    file: &'a [u8],
    at: usize,
    skipped: SkippedBytes,
    failed_bytes_left: usize,
}

impl<'a> Pages<'a> {
    /// Creates an iterator over the pages from offset `start`, which is the end of any tags.
    pub(super) fn new(file: &'a [u8], start: usize) -> Self {
        let failed_bytes_left = file
            .len()
            .saturating_mul(FAILED_BYTES_FACTOR)
            .max(FAILED_BYTES_MIN);
        Self {
            file,
            at: start,
            skipped: SkippedBytes::default(),
            failed_bytes_left,
        }
    }

    /// Returns the bytes after the last page. Meaningful only once the iterator has ended.
    pub(super) fn tail(&self) -> SkippedBytes {
        self.skipped
    }

    /// Skips bytes that are not part of an Ogg page.
    fn skip(&mut self, n_bytes: usize) {
        self.at += n_bytes;
        self.skipped.bytes += n_bytes;
    }
}

impl<'a> Iterator for Pages<'a> {
    type Item = Page<'a>;

    fn next(&mut self) -> Option<Page<'a>> {
        loop {
            let rest = &self.file[self.at..];
            let Some(hop) = memmem::find(rest, CAPTURE) else {
                self.skip(rest.len());
                return None;
            };
            self.skip(hop);

            match read(self.file, self.at) {
                PageCheck::Whole(page, n_bytes) => {
                    self.at += n_bytes;
                    let skipped = std::mem::take(&mut self.skipped);
                    return Some(Page { skipped, ..page });
                }
                PageCheck::Damaged(claim, n_bytes) => {
                    self.skipped.claim = claim.or(self.skipped.claim);
                    // A complete page may begin within a damaged one.
                    self.skip(CAPTURE.len());
                    match self.failed_bytes_left.checked_sub(n_bytes) {
                        Some(left) => self.failed_bytes_left = left,
                        None => {
                            self.skip(self.file.len() - self.at);
                            return None;
                        }
                    }
                }
            }
        }
    }
}

/// Checks the page at `offset`, where the capture pattern has been found.
fn read(file: &[u8], offset: usize) -> PageCheck<'_> {
    let rest = &file[offset..];
    let Some(fixed) = rest.first_chunk::<HEADER_BYTES>() else {
        return PageCheck::Damaged(None, 0);
    };

    // An Ogg page has version 0 and no flags other than the three that are defined.
    let version = fixed[4];
    let flags = fixed[5];
    if version != 0 || flags & !7 != 0 {
        return PageCheck::Damaged(None, 0);
    }

    // From here on the bytes may be a damaged page of the stream, so the header is kept.
    let header = header(fixed);

    let lacing_end = HEADER_BYTES + usize::from(fixed[26]);
    let Some(lacing) = rest.get(HEADER_BYTES..lacing_end) else {
        return PageCheck::Damaged(Some(header), 0);
    };
    let body_bytes: usize = lacing.iter().map(|&value| usize::from(value)).sum();
    let end = lacing_end + body_bytes;
    let Some(body) = rest.get(lacing_end..end) else {
        return PageCheck::Damaged(Some(header), 0);
    };

    if checksum(&rest[..end]) != word(fixed, CRC_AT) {
        return PageCheck::Damaged(Some(header), end);
    }

    let page = Page {
        offset,
        skipped: SkippedBytes::default(),
        header,
        is_continued: flags & 1 != 0,
        is_first: flags & 2 != 0,
        is_last: flags & 4 != 0,
        lacing,
        body,
    };
    PageCheck::Whole(page, end)
}

fn header(fixed: &[u8; HEADER_BYTES]) -> PageHeader {
    let granule = u64::from(word(fixed, 6)) | u64::from(word(fixed, 10)) << 32;
    PageHeader {
        serial: word(fixed, 14),
        sequence: word(fixed, 18),
        // −1 means that no packet ends on the page. Other negative numbers are not times.
        granule: i64::try_from(granule).ok().map(|_| granule),
    }
}

fn word(fixed: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
}

/// Returns the checksum of an Ogg page, which is computed with zeros in the checksum field.
pub(super) fn checksum(page: &[u8]) -> u32 {
    let mut crc = Crc32::new(0);
    crc.process_buf_bytes(&page[..CRC_AT]);
    crc.process_buf_bytes(&[0; 4]);
    crc.process_buf_bytes(&page[CRC_AT + 4..]);
    crc.crc()
}
