//! Reads one data page of a fixed-size column without a Parquet reader: the bytes of the page are the bytes of the
//! rows.
//!
//! Supports only the pages that wavemill writes: data pages V1 of a required column in plain encoding, which have
//! neither levels nor a dictionary (see [`wavemill_reader::layout`]). Other pages are read differently.

use std::collections::HashMap;

use bytes::Bytes;
use wavemill_reader::layout::{DATA_PAGE, PageHeader, page_checksum};
use zstd::bulk::Decompressor;

/// The position of a row in its Parquet page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowInPage {
    /// Index of the row in the page, starting at 0.
    pub within: usize,
    /// Number of rows in the page.
    pub page_rows: usize,
}

/// Compares the bytes after a page's header with the CRC-32 in the header.
///
/// # Errors
/// A description of the problem with the page.
pub(crate) fn check_page(page: &[u8]) -> Result<(), &'static str> {
    const NO_HEADER: &str = "its page header is none";
    let header = PageHeader::parse(page).ok_or(NO_HEADER)?;
    // Pages without a checksum are not written by wavemill.
    let checksum = header.checksum.ok_or("its page has no checksum")?;
    let payload = header.payload(page).ok_or(NO_HEADER)?;
    match page_checksum(payload) == checksum {
        true => Ok(()),
        false => Err("its page has another checksum"),
    }
}

/// A page that was read ahead, by the number of its file and its offset.
pub(crate) type PagesAhead = HashMap<(u32, u64), Bytes>;

/// State of a reader thread: buffers that it reuses for each row.
pub(crate) struct Scratch {
    /// The Parquet page as stored in the file.
    pub page: Vec<u8>,
    /// A row of which a part is used.
    pub row: Vec<u8>,
    /// Pages from an object store, of rows that are read next.
    pub ahead: PagesAhead,
    /// True if the thread's last batch still waits for the consumer, so that the thread lets others run first.
    pub gives_way: bool,
    rows: Vec<u8>,
    decompressor: Decompressor<'static>,
}

impl Scratch {
    /// Creates empty buffers for a reader thread.
    ///
    /// # Errors
    /// An I/O error if zstd cannot allocate memory.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            page: Vec::new(),
            row: Vec::new(),
            ahead: PagesAhead::new(),
            gives_way: false,
            rows: Vec::new(),
            decompressor: Decompressor::new()?,
        })
    }

    /// Decompresses one row of the zstd page in `self.page` into `slot`, whose length must be that of a row.
    ///
    /// # Errors
    /// A description of the problem with the page.
    pub(crate) fn decompress(&mut self, row: RowInPage, slot: &mut [u8]) -> Result<(), String> {
        let header = PageHeader::parse(&self.page).ok_or("its page header is none")?;
        if header.kind != DATA_PAGE {
            return Err(format!("a page of type {}", header.kind));
        }
        // `header.length` ends after the fields that `PageHeader` reads. At least one more byte of the header follows, so a
        // payload that begins there is damage.
        let payload = header
            .payload(&self.page)
            .filter(|payload| payload.len() + header.length < self.page.len())
            .ok_or("its page header gives another length")?;
        // Check the size before allocating memory: a damaged header can claim gigabytes. The slice at the end also
        // relies on this check.
        let rows_bytes = usize::try_from(header.uncompressed).unwrap_or(0);
        if row.page_rows.checked_mul(slot.len()) != Some(rows_bytes) {
            return Err(format!("its page header gives {rows_bytes} bytes of rows"));
        }

        // Most pages have one row, which is decompressed into `slot` without a copy.
        let is_one_row = row.page_rows == 1;
        let written = if is_one_row {
            self.decompressor.decompress_to_buffer(payload, slot)
        } else {
            self.rows.resize(rows_bytes, 0);
            self.decompressor
                .decompress_to_buffer(payload, &mut self.rows[..])
        };
        match written {
            Err(e) => return Err(format!("zstd: {e}")),
            Ok(n) if n != rows_bytes => return Err(format!("zstd: {n} bytes, not {rows_bytes}")),
            Ok(_) => {}
        }

        if !is_one_row {
            slot.copy_from_slice(&self.rows[row.within * slot.len()..][..slot.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Header of a field of type i32 whose number is one higher than that of the last field.
    const NEXT_I32: u8 = 0x15;

    /// Returns a zstd page of `rows` whose header contains `claimed_bytes` as the uncompressed size.
    fn page(rows: &[u8], claimed_bytes: i32) -> Vec<u8> {
        let payload = zstd::bulk::compress(rows, 1).expect("memory");

        let mut page = Vec::new();
        for field in [DATA_PAGE, claimed_bytes, payload.len() as i32] {
            page.push(NEXT_I32);
            let mut zigzag = (field << 1 ^ field >> 31) as u32;
            while zigzag >= 0x80 {
                page.push(zigzag as u8 | 0x80);
                zigzag >>= 7;
            }
            page.push(zigzag as u8);
        }

        // Byte that ends the header's fields.
        page.push(0);
        page.extend(payload);
        page
    }

    #[test]
    fn oversized_page_claims_allocate_nothing() {
        let mut scratch = Scratch::new().expect("memory");
        let mut slot = [0; 4];
        let row = RowInPage {
            within: 1,
            page_rows: 3,
        };
        let claims = [2_147_483_644, 16, 8, 0, -12];

        for claimed_bytes in claims {
            scratch.page = page(b"rows of data", claimed_bytes);
            let said = scratch
                .decompress(row, &mut slot)
                .expect_err("not its rows");
            let bytes = claimed_bytes.max(0);
            assert_eq!(said, format!("its page header gives {bytes} bytes of rows"));
        }

        assert_eq!(scratch.rows.capacity(), 0);

        scratch.page = page(b"rows of data", 12);
        scratch.decompress(row, &mut slot).expect("whole");
        assert_eq!(&slot, b" of ");
    }
}
