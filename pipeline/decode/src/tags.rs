//! Skips ID3 and APE tags, which programs add to files of any format.
//!
//! Lyrics3 tags need no code: they follow the last frame of MP3, where foreign bytes do not count as loss.
//!
//! Sources: id3.org (2.4.0 structure §3), the APEv2 specification.

/// Size of an ID3v2 header or footer in bytes.
const ID3V2_HEADER_BYTES: usize = 10;
/// Size of an APEv2 header or footer in bytes.
const APE_HEADER_BYTES: usize = 32;

/// Returns the offset of the end of the tags that start at `at`, or `at` if there are none. If a tag's size reaches
/// beyond the end of the file, only the tag's header is skipped, so that a wrong size does not skip audio.
pub(super) fn skip(bytes: &[u8], mut at: usize) -> usize {
    while let Some(tag_bytes) = tag_bytes(&bytes[at..]) {
        at += tag_bytes;
    }
    at
}

/// Returns the size of the tag at the start of `bytes`; `None` if there is no tag.
pub(super) fn tag_bytes(bytes: &[u8]) -> Option<usize> {
    id3v2_bytes(bytes)
        .or_else(|| ape_bytes(bytes))
        .or_else(|| id3v1_bytes(bytes))
}

/// Returns the size of a tag at the start of `bytes`: the claimed size if it fits, otherwise that of its header.
fn believed(bytes: &[u8], claimed: usize, header: usize) -> usize {
    if claimed <= bytes.len() {
        claimed
    } else {
        header.min(bytes.len())
    }
}

/// Returns the size of the ID3v2 tag, or of an ID3v2 footer, at the start of `bytes`.
fn id3v2_bytes(bytes: &[u8]) -> Option<usize> {
    // `ID3` begins an ID3v2 tag, `3DI` a footer.
    let &[
        b'I' | b'3',
        b'D',
        b'3' | b'I',
        major,
        revision,
        flags,
        a,
        b,
        c,
        d,
    ] = bytes.first_chunk()?
    else {
        return None;
    };
    // The detection pattern from id3.org: no version byte is FF, and no size byte has its top bit set.
    if major == 0xFF || revision == 0xFF || (a | b | c | d) & 0x80 != 0 {
        return None;
    }
    // A footer without the rest of its tag counts as a tag of its own.
    if bytes[0] == b'3' {
        return Some(ID3V2_HEADER_BYTES);
    }

    // Each byte of the tag size has seven bits, so that no size looks like the start of a frame.
    let digits = [a, b, c, d];
    let size = digits
        .iter()
        .fold(0, |size, &byte| size << 7 | usize::from(byte));
    let has_footer = flags & 0x10 != 0;
    let footer = if has_footer { ID3V2_HEADER_BYTES } else { 0 };
    let claimed = ID3V2_HEADER_BYTES + size + footer;
    Some(believed(bytes, claimed, ID3V2_HEADER_BYTES))
}

/// Returns the size of an APE tag. The size in the tag's header covers the items and the footer; if the header is
/// missing, only the footer is skipped.
fn ape_bytes(bytes: &[u8]) -> Option<usize> {
    if !bytes.starts_with(b"APETAGEX") {
        return None;
    }
    let header = bytes.first_chunk::<APE_HEADER_BYTES>()?;
    let size = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
    let flags = u32::from_le_bytes([header[20], header[21], header[22], header[23]]);

    // Bit 29 of the flags is set in a header and clear in a footer.
    let is_header = flags & 1 << 29 != 0;
    let content = if is_header { size as usize } else { 0 };
    Some(believed(
        bytes,
        APE_HEADER_BYTES + content,
        APE_HEADER_BYTES,
    ))
}

/// Returns the size of an ID3v1 tag, or of the extended tag before an ID3v1 tag.
fn id3v1_bytes(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"TAG+") {
        Some(believed(bytes, 227, 4))
    } else if bytes.starts_with(b"TAG") {
        Some(believed(bytes, 128, 3))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_tags_are_skipped_and_oversized_tags_ignored() {
        let mut file = b"ID3\x04\0\x10\0\0\0\x05hello3DI\x04\0\x10\0\0\0\x05".to_vec();
        file.extend(b"TAG");
        file.extend([0; 125]);
        assert_eq!(skip(&file, 0), file.len());
        assert_eq!(skip(b"ID3\x03\0\0\x7f\x7f\x7f\x7fabc", 0), 10);
        assert_eq!(skip(b"TAGabc", 0), 3);
        assert_eq!(skip(b"", 0), 0);
    }
}
