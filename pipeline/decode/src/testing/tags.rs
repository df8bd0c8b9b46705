//! Builders of tags before and after the audio of any format.

use super::text;

pub(crate) fn id3v1() -> Vec<u8> {
    [b"TAG".to_vec(), text(125)].concat()
}

pub(crate) fn id3v2(n_bytes: usize) -> Vec<u8> {
    // The size of an ID3v2 tag has seven bits per byte.
    let size = [21, 14, 7, 0].map(|shift| (n_bytes >> shift & 0x7F) as u8);
    [&b"ID3\x04\0\0"[..], &size, &text(n_bytes)].concat()
}

/// Returns an APE tag with header and footer.
pub(crate) fn ape(n_bytes: usize) -> Vec<u8> {
    [
        ape_end(n_bytes, 5 << 29),
        text(n_bytes),
        ape_end(n_bytes, 1 << 31),
    ]
    .concat()
}

/// Returns the header or the footer of an APE tag.
fn ape_end(n_bytes: usize, flags: u32) -> Vec<u8> {
    let numbers = [2_000, n_bytes as u32 + 32, 1, flags, 0, 0];
    let numbers: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    [b"APETAGEX".to_vec(), numbers].concat()
}
