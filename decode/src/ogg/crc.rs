//! Checksum of Ogg pages: CRC-32 with polynomial 0x04C11DB7, most significant bit first, initial value 0, not inverted.

const POLYNOMIAL: u32 = 0x04C1_1DB7;

/// `TABLES[k][byte]` is the contribution of `byte` if `k` more bytes follow it. Eight tables allow eight bytes per
/// step.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    // The contribution of the last byte is the remainder of its eight bits.
    while byte < 256 {
        let mut crc = (byte as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000_0000 != 0 {
                crc << 1 ^ POLYNOMIAL
            } else {
                crc << 1
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }

    let mut k = 1;
    // Each further byte shifts the contribution by one byte.
    while k < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[k - 1][byte];
            tables[k][byte] = before << 8 ^ tables[0][(before >> 24) as usize];
            byte += 1;
        }
        k += 1;
    }
    tables
}

/// Extends the checksum `crc` by `bytes`.
pub(super) fn update(mut crc: u32, bytes: &[u8]) -> u32 {
    let (eights, rest) = bytes.as_chunks::<8>();

    for &[a, b, c, d, e, f, g, h] in eights {
        // The current checksum has four bytes, which are combined with the first four. Each byte then contributes its
        // entry in the table for the number of bytes after it.
        let [a, b, c, d] = (crc ^ u32::from_be_bytes([a, b, c, d]))
            .to_be_bytes()
            .map(usize::from);
        let [e, f, g, h] = [e, f, g, h].map(usize::from);
        crc = TABLES[7][a] ^ TABLES[6][b] ^ TABLES[5][c] ^ TABLES[4][d];
        crc ^= TABLES[3][e] ^ TABLES[2][f] ^ TABLES[1][g] ^ TABLES[0][h];
    }

    for &byte in rest {
        crc = crc << 8 ^ TABLES[0][usize::from((crc >> 24) as u8 ^ byte)];
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_matches_the_definition() {
        let bytes: Vec<u8> = (0..100_u32).map(|i| (i * i + 7) as u8).collect();

        for n in 0..bytes.len() {
            let mut want = 0_u32;
            for &byte in &bytes[..n] {
                want ^= u32::from(byte) << 24;
                for _ in 0..8 {
                    want = want << 1 ^ if want >> 31 == 1 { POLYNOMIAL } else { 0 };
                }
            }

            assert_eq!(update(0, &bytes[..n]), want, "{n} bytes");
            assert_eq!(
                update(update(0, &bytes[..n / 3]), &bytes[n / 3..n]),
                want,
                "{n} bytes in two parts"
            );
        }
    }
}
