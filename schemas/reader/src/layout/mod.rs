//! Row groups and pages of a feature's files: the rules that the writer follows and that readers rely on.
//!
//! - **Row groups.** Rows are in plan order. A row group has `shards.row_group_rows` rows, and only the last one of a
//!   file has fewer ([`next_group`]). The manifest states the number of rows of each; a file with others is damaged.
//! - **Pages.** The tensors of a row group are written row by row, and a page ends with the row that reaches the
//!   column's size limit ([`properties`]). With compression, a page has one row, so that a reader decompresses only the
//!   rows that it needs. Without it, a page has four.
//! - **Bytes of a page.** Columns have no dictionaries, and tensors no statistics and no nulls. So the payload of a page
//!   of tensors of one length consists of the bytes of its rows, one after another ([`PageForm`]). Only Parquet's own
//!   reader reads other pages: of lists, of rows that differ in length, and with lz4.
//! - **Places of rows.** Each file has an offset index, with the place and the first row of every page ([`pages`]).
//! - **Checksums.** The header of each page contains the CRC-32 of its payload ([`PageHeader`]). The manifest contains
//!   the hash of what follows the pages. Versions of earlier programs have neither.
//!
//! A change of a rule also raises `FORMAT_VERSION`, and changes docs/store-format.md and `check_pages` in
//! `scripts/check_store.py`.

mod header;

use std::collections::HashMap;
use std::ops::Range;

use parquet::basic::{Compression as Codec, Encoding, Type, ZstdLevel};
use parquet::file::metadata::{ColumnChunkMetaData, KeyValue};
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use wavemill_schemas::manifest::FeatureEntry;
use wavemill_schemas::recipe::{Compression, Dtype, Layout, ShardSpec};

pub use header::{DATA_PAGE, DICTIONARY_PAGE, PageHeader, page_checksum};

/// Level 1 compresses f16 log-mel 1.33 times at 1.2 GB/s; higher levels take several times as long for 2 % more.
const ZSTD_LEVEL: i32 = 1;

/// Rows per page without compression. Readers need not skip pages then, and several rows per page need fewer headers.
const ROWS_A_PAGE_PLAIN: usize = 4;

/// Returns the number of rows of the next row group of a file, for which `n_rows` rows wait. Returns `None` if they are
/// too few and, unless `is_last`, more rows follow.
pub fn next_group(n_rows: usize, row_group_rows: usize, is_last: bool) -> Option<usize> {
    let is_complete = n_rows >= row_group_rows || (is_last && n_rows > 0);
    is_complete.then(|| n_rows.min(row_group_rows))
}

/// Returns the Parquet properties of a feature's files. `metadata` is that of their schema.
pub fn properties(
    feature: &FeatureEntry,
    dtype: Dtype,
    spec: &ShardSpec,
    metadata: &HashMap<String, String>,
) -> WriterProperties {
    let codec = match spec.compression {
        Compression::Zstd => {
            Codec::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).expect("1 is a zstd level"))
        }
        Compression::Lz4 => Codec::LZ4_RAW,
        Compression::None => Codec::UNCOMPRESSED,
    };

    let row_bytes = feature
        .shape
        .iter()
        .map(|dim| dim.unwrap_or(1))
        .product::<usize>()
        * dtype.bytes();
    // A page ends with the write that reaches its size limit, and rows are written one by one.
    let page_bytes = if spec.compression == Compression::None {
        row_bytes * ROWS_A_PAGE_PLAIN
    } else {
        1
    };

    let tensor = match spec.layout {
        Layout::Binary => ColumnPath::from(feature.name.as_str()),
        Layout::List => ColumnPath::new(vec![
            feature.name.clone(),
            "list".to_owned(),
            "item".to_owned(),
        ]),
    };
    let metadata = metadata.iter();
    let metadata = metadata.map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    WriterProperties::builder()
        .set_compression(codec)
        // Tensors do not repeat, and the minimum and maximum of their bytes are of no use.
        .set_dictionary_enabled(false)
        .set_column_statistics_enabled(tensor.clone(), EnabledStatistics::None)
        .set_column_data_page_size_limit(tensor, page_bytes.max(1))
        // Row groups have no maximum size here, because the code that writes them determines where they end.
        .set_max_row_group_row_count(None)
        .set_key_value_metadata(Some(metadata.collect()))
        .build()
}

/// How tensors of one length are stored in the pages of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageForm {
    /// A page ends with the bytes of its rows.
    Plain,
    /// A page ends with the bytes of its rows, compressed with zstd.
    Zstd,
    /// Only Parquet's own reader reads the pages.
    Other,
}

impl PageForm {
    /// Returns the form of all pages of a file's tensor column, from the column's metadata in each row group. A row has
    /// `row_bytes` bytes.
    pub fn of(chunks: &[&ColumnChunkMetaData], row_bytes: usize) -> Self {
        let is_direct = chunks.iter().all(|chunk| is_plain_fixed(chunk, row_bytes));
        let mut codecs = chunks.iter().map(|chunk| chunk.compression());

        if is_direct && codecs.clone().all(|codec| codec == Codec::UNCOMPRESSED) {
            Self::Plain
        } else if is_direct && codecs.all(|codec| matches!(codec, Codec::ZSTD(_))) {
            Self::Zstd
        } else {
            Self::Other
        }
    }
}

/// Reports whether the pages of a column chunk contain the bytes of one row after another, without levels or a
/// dictionary.
fn is_plain_fixed(chunk: &ColumnChunkMetaData, row_bytes: usize) -> bool {
    let column = chunk.column_descr();
    let is_fixed = column.physical_type() == Type::FIXED_LEN_BYTE_ARRAY
        && column.type_length() == row_bytes as i32;
    // A column with nulls or lists has levels (Parquet's encoding of structure) between the page's header and its
    // values.
    let is_required = column.max_def_level() == 0 && column.max_rep_level() == 0;
    // The parquet crate always lists RLE, for the levels, even if a column has none (`column/writer/mod.rs`).
    // Dictionary-encoded values would be listed as `RLE_DICTIONARY`.
    let is_plain = chunk.dictionary_page_offset().is_none()
        && chunk
            .encodings()
            .all(|encoding| matches!(encoding, Encoding::PLAIN | Encoding::RLE));
    is_fixed && is_required && is_plain
}

/// A page of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Offset of the page in the file.
    pub offset: u64,
    /// Length of the page in bytes, with its header.
    pub bytes: u32,
    /// Rows of the page, as indices within its row group.
    pub rows: Range<u32>,
}

/// Returns the pages of a column in a row group of `n_rows` rows, from the offset index. Together they contain every row
/// once, within a file of `file_bytes`.
///
/// # Errors
/// A description of the problem with the offset index.
pub fn pages(index: &[PageLocation], n_rows: i64, file_bytes: u64) -> Result<Vec<Page>, String> {
    let mut pages = Vec::with_capacity(index.len());
    for (number, page) in index.iter().enumerate() {
        // The offset index contains only the first row of each page. The last page ends with the row group.
        let end = index
            .get(number + 1)
            .map_or(n_rows, |next| next.first_row_index);
        let rows = rows_within(page.first_row_index, end, n_rows)
            .ok_or("its offset index is out of order")?;

        // The size includes the page's header (parquet-format, `parquet.thrift`).
        let (offset, bytes) = (page.offset as u64, page.compressed_page_size as u32);
        if page.offset < 0
            || page.compressed_page_size <= 0
            || offset + u64::from(bytes) > file_bytes
        {
            return Err("its offset index points outside the file".to_owned());
        }
        pages.push(Page {
            offset,
            bytes,
            rows,
        });
    }

    // The pages are contiguous, so only rows before the first page can be missing.
    let n_located = index
        .first()
        .map_or(0, |first| n_rows - first.first_row_index);
    if n_located == n_rows {
        Ok(pages)
    } else {
        Err(format!("its offset index has {n_located} of {n_rows} rows"))
    }
}

/// Returns the range of rows from `first` up to `end`, or `None` if it is not within the row group's `n_rows` rows. All
/// three numbers come from the file: without this check, a damaged file could create entries for billions of rows.
fn rows_within(first: i64, end: i64, n_rows: i64) -> Option<Range<u32>> {
    if first > end || end > n_rows {
        return None;
    }
    Some(u32::try_from(first).ok()?..u32::try_from(end).ok()?)
}
