//! The first fields of a page's header, with the checksum that parquet-rs checks (feature `crc`) but does not write.
//!
//! Source: `PageHeader` of parquet-format's `parquet.thrift`, in Thrift's compact protocol. The fields are i32: type,
//! size before and after compression, checksum. The type determines the field after them.

/// Code of the type `DATA_PAGE` in Parquet's `PageType`.
pub const DATA_PAGE: i32 = 0;
/// Code of the type `DICTIONARY_PAGE` in Parquet's `PageType`.
pub const DICTIONARY_PAGE: i32 = 2;

/// Header of a field of type i32 whose number is one higher than that of the last field.
const NEXT_I32: u8 = 0x15;
/// Field headers store the difference between field numbers in the high four bits. This is a difference of one.
const ONE_FIELD: u8 = 0x10;

/// The first fields of a page's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHeader {
    /// Type of the page: [`DATA_PAGE`], [`DICTIONARY_PAGE`] or another one.
    pub kind: i32,
    /// Size of the payload in bytes before compression.
    pub uncompressed: i32,
    /// Size of the payload in bytes as stored.
    pub compressed: i32,
    /// The [`page_checksum`] of the payload as stored; `None` in files of earlier programs.
    pub checksum: Option<i32>,
    /// Number of bytes of the fields before the checksum.
    pub length: usize,
}

/// Returns the checksum of a page's payload: its CRC-32.
pub fn page_checksum(payload: &[u8]) -> i32 {
    crc32fast::hash(payload) as i32
}

impl PageHeader {
    /// Parses the header at the start of `page`. Returns `None` if there is no header.
    pub fn parse(page: &[u8]) -> Option<Self> {
        let mut at = 0;
        let [kind, uncompressed, compressed] = [
            next_i32(page, &mut at)?,
            next_i32(page, &mut at)?,
            next_i32(page, &mut at)?,
        ];
        let length = at;
        Some(Self {
            kind,
            uncompressed,
            compressed,
            checksum: next_i32(page, &mut at),
            length,
        })
    }

    /// Returns the payload of `page`, which has this header and ends with its payload. Returns `None` if the page is too
    /// short.
    pub fn payload<'p>(&self, page: &'p [u8]) -> Option<&'p [u8]> {
        // More fields, such as statistics, follow those that are parsed. The payload is therefore located from the end.
        let bytes = usize::try_from(self.compressed).ok()?;
        page.get(page.len().checked_sub(bytes)?..)
    }

    /// Returns a header with the checksum of a page. Returns `None` if `header` is not a header without a checksum.
    pub fn with_checksum(header: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
        let (first, rest) = header.split_at(Self::parse(header)?.length);
        let (&next, rest) = rest.split_first()?;
        if next < 2 * ONE_FIELD {
            return None;
        }

        let mut summed = Vec::with_capacity(header.len() + 6);
        summed.extend_from_slice(first);
        push_i32(&mut summed, page_checksum(payload));
        summed.push(next - ONE_FIELD);
        summed.extend_from_slice(rest);
        Some(summed)
    }
}

/// Parses the next field of the header, which must be an i32 with the next field number: a zigzag-encoded
/// variable-length integer.
fn next_i32(page: &[u8], at: &mut usize) -> Option<i32> {
    if *page.get(*at)? != NEXT_I32 {
        return None;
    }
    *at += 1;

    let mut value = 0_u64;
    // Five bytes with seven bits each are enough for 32 bits.
    for shift in (0..35).step_by(7) {
        let byte = *page.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            // The fifth byte may have more bits than the remaining four bits of an i32.
            let zigzag = u32::try_from(value).ok()?;
            return Some((zigzag >> 1) as i32 ^ -((zigzag & 1) as i32));
        }
    }
    None
}

/// Appends the next field of a header, an i32: zigzag-encoded, in groups of seven bits, the lowest first.
fn push_i32(header: &mut Vec<u8>, value: i32) {
    header.push(NEXT_I32);
    let mut rest = ((value << 1) ^ (value >> 31)) as u32;
    while rest >= 0x80 {
        header.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    header.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fields_of_a_page_header_are_read_and_others_refused() {
        // Expected header: type 0; 330,752 → zigzag 661,504; 250,000 → 500,000; then field 5.
        let bytes = [
            0x15, 0x00, 0x15, 0x80, 0xb0, 0x28, 0x15, 0xa0, 0xc2, 0x1e, 0x2c,
        ];
        let expected = PageHeader {
            kind: DATA_PAGE,
            uncompressed: 330_752,
            compressed: 250_000,
            checksum: None,
            length: 10,
        };
        assert_eq!(PageHeader::parse(&bytes), Some(expected));

        let invalid: [(&str, &[u8]); 3] = [
            ("cut", &bytes[..8]),
            ("a field is left out", &[0x15, 0, 0x25, 0, 0x15, 0]),
            (
                "too long a number",
                &[0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
        ];
        for (what, bytes) in invalid {
            assert_eq!(PageHeader::parse(bytes), None, "{what}");
        }
    }

    #[test]
    fn numbers_are_written_as_thrift_does_and_read_back() {
        for (value, expected) in [
            (0, &[0][..]),
            (-1, &[1]),
            (64, &[0x80, 0x01]),
            (i32::MAX, &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i32::MIN, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            let mut bytes = Vec::new();
            push_i32(&mut bytes, value);
            assert_eq!(bytes, [&[NEXT_I32], expected].concat(), "{value}");
            assert_eq!(next_i32(&bytes, &mut 0), Some(value));
        }
    }

    #[test]
    fn checksums_are_added_to_headers_without_one() {
        let payload = b"payload";
        let header = [0x15, 0, 0x15, 14, 0x15, 14, 0x2c, 0];
        let summed = PageHeader::with_checksum(&header, payload).expect("a header");
        let parsed = PageHeader::parse(&summed).expect("a header");
        assert_eq!(parsed.checksum, Some(page_checksum(payload)));
        let page = [&summed, &payload[..]].concat();
        assert_eq!(parsed.payload(&page), Some(&payload[..]));

        // Invalid headers: with a checksum already, cut short, and with another first field.
        for header in [&summed[..], &header[..6], &header[..3], &[0x25, 0], &[]] {
            let summed = PageHeader::with_checksum(header, payload);
            assert_eq!(summed, None, "{header:?}");
        }
    }
}
