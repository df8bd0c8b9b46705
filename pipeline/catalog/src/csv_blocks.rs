//! Splits a CSV file into blocks of whole records, so that several threads can parse the file.
//!
//! This module only tracks quotes: a line break outside of quotes ends a record. Each block is split into fields by
//! [`csv_record`](super::csv_record), which treats a block like a file.

use std::io::{self, Read};

use memchr::{memchr, memchr_iter, memchr2, memchr2_iter, memrchr2};
use wavemill_schemas::recipe::CsvSpec;

/// Size of a block in bytes, unless a single record is longer. Large enough to make the overhead per block negligible,
/// and small enough that a block stays in a core's cache between reading and parsing.
pub(super) const BLOCK_BYTES: usize = 1 << 20;

/// Maximum size of a record in bytes. A quote that is never closed makes the rest of the file one record.
const RECORD_BYTES_MAX: usize = 64 << 20;

/// UTF-8 byte order mark, which may be at the start of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The marks by which a record is divided into fields.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dialect {
    /// Byte between two fields.
    pub delimiter: u8,
    /// True if spaces around a field are not part of it.
    pub trim: bool,
}

impl Dialect {
    /// Reports whether `byte` is not part of a field at whose start or end it is.
    pub(super) fn is_space(self, byte: u8) -> bool {
        self.trim && matches!(byte, b' ' | b'\t') && byte != self.delimiter
    }

    /// Returns the length of `text` without the spaces at its end that are not part of it.
    pub(super) fn trimmed(self, text: &[u8]) -> usize {
        let last = text.iter().rposition(|&byte| !self.is_space(byte));
        last.map_or(0, |last| last + 1)
    }
}

/// A block of whole records, unchanged from the file.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// Index of the block in the file, from 0.
    pub number: usize,
    pub dialect: Dialect,
    /// Bytes of the block's records, including line breaks.
    pub bytes: Vec<u8>,
    /// Position of the block's first record that the parser has not read yet.
    pub left: Position,
}

/// A position between two records of a block.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Position {
    /// Offset from the start of the block, in bytes.
    pub at: usize,
    /// Physical line of the file, from 1.
    pub line: u64,
}

impl Block {
    /// Reports whether all records of the block have been read.
    pub(super) const fn is_empty(&self) -> bool {
        self.left.at == self.bytes.len()
    }
}

/// Splits a CSV file into blocks. The block boundaries depend only on the file's bytes.
pub(super) struct Blocks<R> {
    input: R,
    block_bytes: usize,
    /// Bytes that were already read from the file after the end of the last block; they start the next block.
    rest: Vec<u8>,
    /// Marks of the file. The header determines the delimiter.
    dialect: Dialect,
    /// Number of lines before the header.
    skip_lines: u32,
    /// Number of blocks returned so far.
    number: usize,
    /// Line of the file on which the next block starts.
    line: u64,
}

impl<R: Read> Blocks<R> {
    /// Creates a splitter at the start of `input`, which needs no buffering. `block_bytes` is [`BLOCK_BYTES`] except in
    /// tests.
    pub(super) const fn new(input: R, block_bytes: usize, csv: CsvSpec) -> Self {
        Self {
            input,
            block_bytes,
            rest: Vec::new(),
            dialect: Dialect {
                delimiter: b',',
                trim: csv.trim,
            },
            skip_lines: csv.skip_lines,
            number: 0,
            line: 1,
        }
    }

    /// Fills `block` with the next block of the file, reusing its memory. Returns false at the end of the file.
    ///
    /// # Errors
    /// `InvalidData` for a record of more than [`RECORD_BYTES_MAX`], or any error of reading the input.
    pub(super) fn next_into(&mut self, block: &mut Block) -> io::Result<bool> {
        if !self.fill(block, RECORD_BYTES_MAX)? {
            let problem = format!(
                "the record on line {} has more than {RECORD_BYTES_MAX} bytes in {} lines: close the quote that opens one \
                 of its fields",
                block.left.line,
                n_lines(&block.bytes)
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        Ok(!block.bytes.is_empty())
    }

    /// Fills `block` with bytes of the file, of which the first block contains the header. Returns false if the first
    /// `bytes_max` bytes contain no end of a record. In that case, the block contains the bytes read so far, and no further
    /// block may be read.
    ///
    /// # Errors
    /// Any error of reading the input.
    pub(super) fn fill(&mut self, block: &mut Block, bytes_max: usize) -> io::Result<bool> {
        block.bytes.clear();
        // The block starts with the bytes that were read after the last block.
        block.bytes.append(&mut self.rest);

        let mut wanted = self.block_bytes;
        let mut start = Position {
            at: 0,
            line: self.line,
        };
        let (end, is_whole) = loop {
            let missing = wanted.saturating_sub(block.bytes.len());
            block.bytes.reserve(missing);
            let mut input = self.input.by_ref().take(missing as u64);
            // `read_to_end` continues after short reads, so fewer bytes than requested mean that the file has ended.
            let at_end = input.read_to_end(&mut block.bytes)? < missing;
            // The byte order mark is not part of the first column's name.
            if self.number == 0 && block.bytes.starts_with(BYTE_ORDER_MARK) {
                block.bytes.drain(..BYTE_ORDER_MARK.len());
            }
            // The first block contains all of the header when this loop ends.
            if self.number == 0 {
                start = after_lines(&block.bytes, self.skip_lines);
                self.dialect.delimiter = delimiter_of(&block.bytes[start.at..]);
            }

            // The last record of a file needs no line break.
            let end = if at_end {
                Some(block.bytes.len())
            } else {
                records_end(&block.bytes[start.at..], self.dialect).map(|end| start.at + end)
            };
            match end {
                Some(end) => break (end, true),
                None if wanted >= bytes_max => break (block.bytes.len(), false),
                // The record is longer than a block.
                None => wanted *= 2,
            }
        };

        // The incomplete record starts the next block.
        self.rest.extend_from_slice(&block.bytes[end..]);
        block.bytes.truncate(end);
        block.number = self.number;
        block.dialect = self.dialect;
        block.left = start;

        self.number += 1;
        self.line += n_lines(&block.bytes);
        Ok(is_whole)
    }
}

/// Returns the position after the first lines of a file; the end of `bytes` if there are not that many.
fn after_lines(bytes: &[u8], n_lines: u32) -> Position {
    let mut breaks = memchr2_iter(b'\n', b'\r', bytes).filter(|&at| ends_line(bytes, at));
    let at = match n_lines.checked_sub(1) {
        None => 0,
        Some(last) => breaks.nth(last as usize).map_or(bytes.len(), |at| at + 1),
    };
    let line = u64::from(n_lines) + 1;
    Position { at, line }
}

/// Returns the byte that separates the fields of a file: a comma, or if the header, with which `file` begins, has none
/// outside of quotes, the one of tab, semicolon and `|` that it has most often there.
pub(super) fn delimiter_of(file: &[u8]) -> u8 {
    let end = memchr2(b'\n', b'\r', file).unwrap_or(file.len());
    let plain = file[..end].split(|&byte| byte == b'"').step_by(2);
    let count = |byte: u8| -> usize {
        let plain = plain.clone();
        plain.map(|text| memchr_iter(byte, text).count()).sum()
    };
    if count(b',') > 0 {
        return b',';
    }
    let most = b"|;\t".iter().copied().max_by_key(|&byte| count(byte));
    most.filter(|&byte| count(byte) > 0).unwrap_or(b',')
}

/// Reports whether the line break at `at` ends a line of the file: it is `\n`, or `\r` without `\n` as in old Mac
/// files.
pub(super) fn ends_line(bytes: &[u8], at: usize) -> bool {
    bytes[at] == b'\n' || bytes.get(at + 1) != Some(&b'\n')
}

/// Counts the line ends in `bytes`. No two records start on the same line, so that lines identify rows.
pub(super) fn n_lines(bytes: &[u8]) -> u64 {
    memchr2_iter(b'\n', b'\r', bytes)
        .filter(|&at| ends_line(bytes, at))
        .count() as u64
}

/// Returns the end of the last whole record, after its line break. `bytes` must start with a record.
///
/// As in the parser, only a quote at the start of a field opens a quoted field. Other quotes are ordinary characters.
fn records_end(bytes: &[u8], dialect: Dialect) -> Option<usize> {
    // Ranges of bytes outside of quoted fields. They are searched backwards for the last line break afterwards.
    let mut plain = Vec::new();
    let mut at = 0;
    while let Some(open) = opening_quote(bytes, at, dialect) {
        plain.push((at, open));
        match quoted_end(bytes, open + 1) {
            // A quote that is the last byte may be the first of a doubled quote. No line break follows it, so the
            // result is the same.
            (Some(quote), _) => at = quote + 1,
            (None, _) => return last_break(bytes, &plain),
        }
    }
    plain.push((at, bytes.len()));
    last_break(bytes, &plain)
}

fn last_break(bytes: &[u8], plain: &[(usize, usize)]) -> Option<usize> {
    plain.iter().rev().find_map(|&(start, end)| {
        // A `\r` that is the last byte does not end a block: its `\n` may not have been read yet.
        let is_open = end == bytes.len() && bytes.ends_with(b"\r");
        let end = end - usize::from(is_open && end > start);
        Some(start + memrchr2(b'\n', b'\r', &bytes[start..end])? + 1)
    })
}

/// Returns the first quote at or after `at` that starts a field.
fn opening_quote(bytes: &[u8], mut at: usize, dialect: Dialect) -> Option<usize> {
    loop {
        let quote = at + memchr(b'"', &bytes[at..])?;
        if starts_field(bytes, quote, dialect) {
            return Some(quote);
        }
        at = quote + 1;
    }
}

/// Reports whether the quote at `at` is at the start of a field.
pub(super) fn starts_field(bytes: &[u8], at: usize, dialect: Dialect) -> bool {
    let before = bytes[..dialect.trimmed(&bytes[..at])].last();
    before.is_none_or(|&last| last == dialect.delimiter || matches!(last, b'\n' | b'\r'))
}

/// Returns the closing quote of a field whose text starts at `at`, or `None` if the field is not closed. The flag
/// reports whether the text contains doubled quotes.
pub(super) fn quoted_end(bytes: &[u8], mut at: usize) -> (Option<usize>, bool) {
    let mut are_doubled = false;
    while let Some(length) = memchr(b'"', &bytes[at..]) {
        let quote = at + length;
        if bytes.get(quote + 1) != Some(&b'"') {
            return (Some(quote), are_doubled);
        }
        are_doubled = true;
        at = quote + 2;
    }
    (None, are_doubled)
}
