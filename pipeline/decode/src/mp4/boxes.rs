//! Iterates over the boxes of an MP4 file and reads the numbers in them.
//!
//! A box is a slice of the file. A box that claims more bytes than the file has ends with the file.
//!
//! Source: ISO/IEC 14496-12 §4.2.

/// A box of an MP4 file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mp4Box<'a> {
    pub kind: [u8; 4],
    pub body: &'a [u8],
}

/// Iterator over the boxes in some bytes.
#[derive(Clone, Debug)]
pub(super) struct Boxes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Boxes<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Returns the body of the first box of a kind, if there is one.
    pub(super) fn body(mut self, kind: &[u8; 4]) -> Option<&'a [u8]> {
        self.find(|found| found.kind == *kind)
            .map(|found| found.body)
    }
}

impl<'a> Iterator for Boxes<'a> {
    type Item = Mp4Box<'a>;

    fn next(&mut self) -> Option<Mp4Box<'a>> {
        let offset = self.at;
        let rest = self.bytes.get(offset..)?;
        let kind = *rest.get(4..)?.first_chunk()?;

        let (header_bytes, size) = match number(rest, 0, 4)? {
            // The box extends to the end of the file.
            0 => (8, rest.len() as u64),
            // The size has 64 bits.
            1 => (16, number(rest, 8, 8)?),
            size => (8, size),
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let body = rest.get(header_bytes..size.min(rest.len()))?;
        self.at = offset.saturating_add(size);
        Some(Mp4Box { kind, body })
    }
}

/// Returns the body of the box at the end of a path of kinds, if there is one.
pub(crate) fn find<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter()
        .try_fold(bytes, |bytes, kind| Boxes::new(bytes).body(kind))
}

/// Reads a big-endian number of `n_bytes` bytes, at most 8.
pub(crate) fn number(bytes: &[u8], at: usize, n_bytes: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.get(..n_bytes)?;
    Some(
        bytes
            .iter()
            .fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_end_with_the_file() {
        let bytes =
            b"\0\0\0\x0Afreeab\0\0\0\x01wide\0\0\0\0\0\0\0\x12cd\0\0\0\x09moovx\0\0\0\x00mdatyz";
        let found: Vec<_> = Boxes::new(bytes)
            .map(|found| (found.kind, found.body))
            .collect();
        assert_eq!(
            found,
            [
                (*b"free", &b"ab"[..]),
                (*b"wide", b"cd"),
                (*b"moov", b"x"),
                (*b"mdat", b"yz"),
            ]
        );

        // A size beyond the file, a size smaller than the header, and a header that is cut.
        assert_eq!(
            Boxes::new(b"\0\0\x01\0freeab").body(b"free"),
            Some(&b"ab"[..])
        );
        assert!(Boxes::new(b"\0\0\0\x07freeab").next().is_none());
        assert!(Boxes::new(b"\0\0\0\x08fre").next().is_none());
        assert_eq!(
            find(b"\0\0\0\x11moov\0\0\0\x09trakx", &[b"moov", b"trak"]),
            Some(&b"x"[..])
        );
    }
}
