//! Builders of WAV files for tests.

/// Returns a RIFF chunk with its name and size.
pub(crate) fn chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).unwrap();
    let padding = vec![0; body.len() % 2];
    [&name[..], &size.to_le_bytes(), body, &padding].concat()
}

/// Returns a `fmt ` chunk for a sample rate of 44.1 kHz.
pub(crate) fn fmt(tag: u16, channels: u16, bits: u16) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(tag.to_le_bytes());
    body.extend(channels.to_le_bytes());
    body.extend(44_100_u32.to_le_bytes());
    body.extend(88_200_u32.to_le_bytes());
    body.extend(2_u16.to_le_bytes());
    body.extend(bits.to_le_bytes());
    chunk(b"fmt ", &body)
}

/// Returns a complete WAV file of these chunks.
pub(crate) fn riff(chunks: &[Vec<u8>]) -> Vec<u8> {
    let body = [&b"WAVE"[..], &chunks.concat()].concat();
    chunk(b"RIFF", &body)
}
