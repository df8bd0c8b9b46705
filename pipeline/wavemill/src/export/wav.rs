//! Encodes WAVE files with one channel of 32-bit floats, which are not clipped at any level.
//!
//! Layout: IBM and Microsoft, Multimedia Programming Interface and Data Specifications 1.0 (1991); format 3 (IEEE
//! float) and its `fact` chunk: Microsoft, Multiple Channel Audio Data and WAVE Files.

/// The format code `WAVE_FORMAT_IEEE_FLOAT` of a WAVE file.
const FLOAT: u16 = 3;
/// Bytes per sample in the WAVE file.
const SAMPLE_BYTES: u32 = 4;
/// Size of the WAVE file in bytes without samples and its first eight bytes: `WAVE`, and the headers and contents of
/// three chunks.
const OTHER_BYTES: u32 = 4 + (8 + 18) + (8 + 4) + 8;

/// Encodes samples as a WAVE file; `None` if their number or rate exceeds the range of the format's 32-bit fields.
pub(super) fn encode(samples: &[f32], sample_rate_hz: u32) -> Option<Vec<u8>> {
    let n_samples = u32::try_from(samples.len()).ok()?;
    let sample_bytes = n_samples.checked_mul(SAMPLE_BYTES)?;
    let riff_bytes = sample_bytes.checked_add(OTHER_BYTES)?;
    let bytes_per_s = sample_rate_hz.checked_mul(SAMPLE_BYTES)?;

    let mut file = Vec::with_capacity(riff_bytes as usize + 8);
    file.extend(b"RIFF");
    file.extend(riff_bytes.to_le_bytes());
    file.extend(b"WAVE");

    file.extend(b"fmt ");
    file.extend(18_u32.to_le_bytes());
    file.extend(FLOAT.to_le_bytes());
    file.extend(1_u16.to_le_bytes()); // channels
    file.extend(sample_rate_hz.to_le_bytes());
    file.extend(bytes_per_s.to_le_bytes());
    file.extend((SAMPLE_BYTES as u16).to_le_bytes());
    file.extend((8 * SAMPLE_BYTES as u16).to_le_bytes());
    file.extend(0_u16.to_le_bytes()); // no extension

    file.extend(b"fact");
    file.extend(4_u32.to_le_bytes());
    file.extend(n_samples.to_le_bytes());

    file.extend(b"data");
    file.extend(sample_bytes.to_le_bytes());
    for sample in samples {
        file.extend(sample.to_le_bytes());
    }
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_it_holds() {
        let file = encode(&[0.5, -2.0], 22_050).expect("two samples");
        let wanted = [
            &b"RIFF\x3a\0\0\0WAVE"[..],
            b"fmt \x12\0\0\0\x03\0\x01\0\x22\x56\0\0\x88\x58\x01\0\x04\0\x20\0\0\0",
            b"fact\x04\0\0\0\x02\0\0\0",
            b"data\x08\0\0\0\0\0\0\x3f\0\0\0\xc0",
        ];

        assert_eq!(file, wanted.concat());
        assert_eq!(file.len(), 8 + 0x3a);

        assert_eq!(encode(&[], 8_000).expect("none").len(), 58);
        assert!(encode(&[], u32::MAX).is_none());
    }
}
