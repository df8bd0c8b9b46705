//! WAVE files with one channel.
//!
//! Layout: IBM and Microsoft, Multimedia Programming Interface and Data Specifications 1.0 (1991); format 3 (IEEE
//! float) and its `fact` chunk: Microsoft, Multiple Channel Audio Data and WAVE Files.

/// The format code `WAVE_FORMAT_PCM` of a WAVE file.
const PCM: u16 = 1;
/// The format code `WAVE_FORMAT_IEEE_FLOAT` of a WAVE file.
const FLOAT: u16 = 3;

/// Encodes samples as 32-bit floats, which are not clipped at any level; `None` if their number or rate exceeds the
/// range of the format's 32-bit fields.
pub fn wave_of_floats(samples: &[f32], sample_rate_hz: u32) -> Option<Vec<u8>> {
    let samples = samples.iter().map(|sample| sample.to_le_bytes());
    encode(FLOAT, sample_rate_hz, samples)
}

/// Encodes samples as 16-bit integers, which every browser can play. Samples beyond full scale are clipped.
pub(crate) fn wave_of_integers(samples: &[f32], sample_rate_hz: u32) -> Option<Vec<u8>> {
    let samples = samples.iter().map(|sample| {
        // The cast converts NaN to 0.
        let value = (sample.clamp(-1.0, 1.0) * f32::from(i16::MAX)).round() as i16;
        value.to_le_bytes()
    });
    encode(PCM, sample_rate_hz, samples)
}

fn encode<const SAMPLE_BYTES: usize>(
    format: u16,
    sample_rate_hz: u32,
    samples: impl ExactSizeIterator<Item = [u8; SAMPLE_BYTES]>,
) -> Option<Vec<u8>> {
    let n_samples = u32::try_from(samples.len()).ok()?;
    let all_bytes = n_samples.checked_mul(SAMPLE_BYTES as u32)?;
    let bytes_per_s = sample_rate_hz.checked_mul(SAMPLE_BYTES as u32)?;

    let mut head = b"WAVEfmt ".to_vec();
    head.extend(if format == FLOAT { 18_u32 } else { 16 }.to_le_bytes());
    head.extend(format.to_le_bytes());
    head.extend(1_u16.to_le_bytes()); // channels
    head.extend(sample_rate_hz.to_le_bytes());
    head.extend(bytes_per_s.to_le_bytes());
    head.extend((SAMPLE_BYTES as u16).to_le_bytes());
    head.extend((8 * SAMPLE_BYTES as u16).to_le_bytes());
    if format == FLOAT {
        head.extend(0_u16.to_le_bytes()); // no extension
        head.extend(b"fact\x04\0\0\0");
        head.extend(n_samples.to_le_bytes());
    }
    head.extend(b"data");
    head.extend(all_bytes.to_le_bytes());

    let riff_bytes = all_bytes.checked_add(head.len() as u32)?;
    let mut file = Vec::with_capacity(riff_bytes as usize + 8);
    file.extend(b"RIFF");
    file.extend(riff_bytes.to_le_bytes());
    file.extend(head);
    file.extend(samples.flatten());
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_floats_says_what_it_holds() {
        let file = wave_of_floats(&[0.5, -2.0], 22_050).expect("two samples");
        let wanted = [
            &b"RIFF\x3a\0\0\0WAVE"[..],
            b"fmt \x12\0\0\0\x03\0\x01\0\x22\x56\0\0\x88\x58\x01\0\x04\0\x20\0\0\0",
            b"fact\x04\0\0\0\x02\0\0\0",
            b"data\x08\0\0\0\0\0\0\x3f\0\0\0\xc0",
        ];

        assert_eq!(file, wanted.concat());
        assert_eq!(file.len(), 8 + 0x3a);

        assert_eq!(wave_of_floats(&[], 8_000).expect("none").len(), 58);
        assert!(wave_of_floats(&[], u32::MAX).is_none());
    }

    #[test]
    fn a_file_of_integers_says_what_it_holds() {
        let wanted = [
            &b"RIFF\x2a\0\0\0WAVE"[..],
            b"fmt \x10\0\0\0\x01\0\x01\0\x22\x56\0\0\x44\xac\0\0\x02\0\x10\0",
            b"data\x06\0\0\0\xff\x7f\x01\x80\0\0",
        ];
        // Samples beyond full scale are clipped, and NaN is silence.
        let file = wave_of_integers(&[2.0, -1.0, f32::NAN], 22_050);
        assert_eq!(file, Some(wanted.concat()));
    }
}
