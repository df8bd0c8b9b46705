//! Finds the pages of an Ogg file (RFC 3533 §6), over damage, in time linear in its bytes.
//!
//! A page is believed when its checksum is right. Every byte that is in no such page is counted, and where one begins
//! like a page, what its header says of time is kept: it tells how long a damaged last page was.

use memchr::memmem;

use super::crc;

const CAPTURE: &[u8; 4] = b"OggS";
/// The fixed part of a page's header; the lacing follows.
const HEADER_BYTES: usize = 27;
/// Where the checksum is in the header. It is taken with zeros in its place.
const CRC_AT: usize = 22;
/// Checksums of this many times the file's bytes may fail before the rest of the file is given up. A damaged page costs
/// at most its own length. Without a limit, a file made of headers inside one another would cost the square of its
/// length.
const FAILED_BYTES_FACTOR: usize = 4;
/// The same for small files: a few of the largest pages (65,307 bytes).
const FAILED_BYTES_MIN: usize = 1 << 20;

/// A whole page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page<'a> {
    /// Where it starts in the file.
    pub offset: usize,
    /// What lies between the page before and this one.
    pub skipped: SkippedBytes,
    /// What its header says.
    pub header: PageHeader,
    /// The first packet on it began on an earlier page.
    pub is_continued: bool,
    /// The first page of its stream.
    pub is_first: bool,
    /// The last page of its stream.
    pub is_last: bool,
    lacing: &'a [u8],
    body: &'a [u8],
}

/// Who and when a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageHeader {
    /// The stream that it belongs to.
    pub serial: u32,
    /// Its number in the stream.
    pub sequence: u32,
    /// The time at the end of the last packet that ends on it, in samples since the start of the stream; `None` where
    /// no packet ends, or where the number is no time.
    pub granule: Option<u64>,
}

/// Bytes that are in no whole page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SkippedBytes {
    /// How many.
    pub bytes: usize,
    /// The header of the last damaged page among them. Nothing proves it.
    pub claim: Option<PageHeader>,
}

/// A packet on a page, or the part of it that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    /// Its bytes on this page.
    pub bytes: &'a [u8],
    /// It ends on this page.
    pub is_end: bool,
}

impl<'a> Page<'a> {
    /// The packets on the page, in order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part<'a>> + use<'a> {
        let mut lacing = self.lacing;
        let mut body = self.body;
        std::iter::from_fn(move || {
            if lacing.is_empty() {
                return None;
            }

            // A value under 255 ends a packet.
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

    /// Where they begin in the file.
    pub(crate) fn body_offset(&self) -> usize {
        self.offset + HEADER_BYTES + self.lacing.len()
    }

    /// The bytes of the packets on it.
    pub(crate) fn body(&self) -> &'a [u8] {
        self.body
    }
}

/// What stands where a page begins.
enum PageCheck<'a> {
    /// A page with the right checksum, and its length.
    Whole(Page<'a>, usize),
    /// Something else: what it claims, and how many bytes it took to find out.
    Damaged(Option<PageHeader>, usize),
}

/// Iterator over the pages of a file.
#[derive(Clone, Debug)]
pub(crate) struct Pages<'a> {
    file: &'a [u8],
    at: usize,
    skipped: SkippedBytes,
    failed_bytes_left: usize,
}

impl<'a> Pages<'a> {
    /// Pages from `start` on, which is behind any tag.
    pub(crate) fn new(file: &'a [u8], start: usize) -> Self {
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

    /// What lies behind the last page; known once the iterator is at its end.
    pub(crate) fn tail(&self) -> SkippedBytes {
        self.skipped
    }

    /// Passes over bytes that are no page.
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
                    // A whole page may begin within a damaged one.
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

/// Bytes of the header that these begin with, whether the page is whole or not; `None` where they begin with none.
pub(crate) fn page_header_bytes(bytes: &[u8]) -> Option<usize> {
    let fixed = bytes
        .strip_prefix(CAPTURE)
        .and(bytes.first_chunk::<HEADER_BYTES>())?;
    let n_bytes = HEADER_BYTES + usize::from(fixed[HEADER_BYTES - 1]);
    (n_bytes <= bytes.len()).then_some(n_bytes)
}

/// Reads the page that begins at `offset`, where the capture pattern is.
fn read(file: &[u8], offset: usize) -> PageCheck<'_> {
    let rest = &file[offset..];
    let Some(fixed) = rest.first_chunk::<HEADER_BYTES>() else {
        return PageCheck::Damaged(None, 0);
    };

    // The only version, and three flags.
    let version = fixed[4];
    let flags = fixed[5];
    if version != 0 || flags & !7 != 0 {
        return PageCheck::Damaged(None, 0);
    }

    // From here on it may be a page of the stream that is damaged, so what its header says is kept.
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

    if checksum(fixed, &rest[HEADER_BYTES..end]) != word(fixed, CRC_AT) {
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
        // −1 says that no packet ends here. Other negative numbers are no times.
        granule: i64::try_from(granule).ok().map(|_| granule),
    }
}

fn word(fixed: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
}

fn checksum(fixed: &[u8; HEADER_BYTES], rest: &[u8]) -> u32 {
    let mut fixed = *fixed;
    fixed[CRC_AT..CRC_AT + 4].fill(0);
    crc::update(crc::update(0, &fixed), rest)
}
