//! A CSV file in blocks of whole records, so that several threads can parse it.
//!
//! Only quotes are followed here: a line break ends a record where it is not inside of them. Fields are for
//! [`csv_record`](super::csv_record), which starts each block as if it were a file.

use std::io::{self, Read};

use memchr::{memchr, memchr2_iter, memrchr};

/// Bytes of a block that holds no record longer than itself: enough that a block costs nothing, little enough that it
/// stays in a core's cache from being read to being parsed.
pub(super) const BLOCK_BYTES: usize = 1 << 20;

/// UTF-8's byte order mark; it may open a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Whole records, as they lie in the file.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// From 0, in the file's order.
    pub number: usize,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What is left of them.
    pub left: Position,
}

/// A place between two records.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Position {
    /// Bytes from the block's start.
    pub at: usize,
    /// Physical line of the file, from 1.
    pub line: u64,
}

impl Block {
    /// Whether every record was read.
    pub(super) const fn is_empty(&self) -> bool {
        self.left.at == self.bytes.len()
    }
}

/// Cuts a file into blocks. The cuts depend on its bytes alone.
pub(super) struct Blocks<R> {
    input: R,
    block_bytes: usize,
    /// Behind the last block: what was read of the next one.
    rest: Vec<u8>,
    /// Blocks so far.
    number: usize,
    /// Where the next one starts.
    line: u64,
}

impl<R: Read> Blocks<R> {
    /// Starts at the top of `input`, which needs no buffer; `block_bytes` is [`BLOCK_BYTES`] but in tests.
    pub(super) const fn new(input: R, block_bytes: usize) -> Self {
        Self {
            input,
            block_bytes,
            rest: Vec::new(),
            number: 0,
            line: 1,
        }
    }

    /// Fills `block`, whose memory is used again; false at the end of the file.
    ///
    /// # Errors
    /// The input's.
    pub(super) fn next_into(&mut self, block: &mut Block) -> io::Result<bool> {
        self.fill(block, usize::MAX)?;
        Ok(!block.bytes.is_empty())
    }

    /// Fills `block` with the first one, which holds the header; false where a record does not end in its first
    /// `bytes_max` bytes. Then the block is as much of it as was read, and there must be no next one.
    ///
    /// # Errors
    /// The input's.
    pub(super) fn first_into(&mut self, block: &mut Block, bytes_max: usize) -> io::Result<bool> {
        self.fill(block, bytes_max)
    }

    /// Whether the block ends where a record does.
    fn fill(&mut self, block: &mut Block, bytes_max: usize) -> io::Result<bool> {
        block.bytes.clear();
        // What was read behind the last block.
        block.bytes.append(&mut self.rest);

        let mut wanted = self.block_bytes;
        let (end, is_whole) = loop {
            let missing = wanted.saturating_sub(block.bytes.len());
            block.bytes.reserve(missing);
            let mut input = self.input.by_ref().take(missing as u64);
            // `read_to_end` goes on after a short read, so less than it was asked for is the end of the file.
            let at_end = input.read_to_end(&mut block.bytes)? < missing;
            // The mark is no part of the first column's name.
            if self.number == 0 && block.bytes.starts_with(BYTE_ORDER_MARK) {
                block.bytes.drain(..BYTE_ORDER_MARK.len());
            }

            // The last record of a file needs no line break.
            let end = if at_end {
                Some(block.bytes.len())
            } else {
                records_end(&block.bytes)
            };
            match end {
                Some(end) => break (end, true),
                None if wanted >= bytes_max => break (block.bytes.len(), false),
                // A record longer than a block.
                None => wanted *= 2,
            }
        };

        // The record that is not whole begins the next block.
        self.rest.extend_from_slice(&block.bytes[end..]);
        block.bytes.truncate(end);
        block.number = self.number;
        block.left = Position {
            at: 0,
            line: self.line,
        };

        self.number += 1;
        self.line += n_lines(&block.bytes);
        Ok(is_whole)
    }
}

/// Whether a line of the file ends with the line break at `at`: `\n`, or a `\r` of its own, as old Macs wrote it.
pub(super) fn ends_line(bytes: &[u8], at: usize) -> bool {
    bytes[at] == b'\n' || bytes.get(at + 1) != Some(&b'\n')
}

/// Lines that end in `bytes`. No two records begin on one line, which is what tells rows from one another.
pub(super) fn n_lines(bytes: &[u8]) -> u64 {
    memchr2_iter(b'\n', b'\r', bytes)
        .filter(|&at| ends_line(bytes, at))
        .count() as u64
}

/// Where the last whole record of `bytes` ends, behind its line break. `bytes` start with a record.
///
/// As in the parser, a quote opens at the start of a field alone; elsewhere it is a character like any other.
fn records_end(bytes: &[u8]) -> Option<usize> {
    // Parts outside quotes; the last line break is sought at the end, from behind.
    let mut plain = Vec::new();
    let mut at = 0;
    while let Some(open) = opening_quote(bytes, at) {
        plain.push((at, open));
        match quoted_end(bytes, open + 1) {
            // As the last byte it may be the first of two. No line break follows it here, so that changes no cut.
            (Some(quote), _) => at = quote + 1,
            (None, _) => return last_break(bytes, &plain),
        }
    }
    plain.push((at, bytes.len()));
    last_break(bytes, &plain)
}

fn last_break(bytes: &[u8], plain: &[(usize, usize)]) -> Option<usize> {
    plain
        .iter()
        .rev()
        // Never behind a lone `\r`: as the last byte, it may have its `\n` in what is not read yet.
        .find_map(|&(start, end)| Some(start + memrchr(b'\n', &bytes[start..end])? + 1))
}

/// The first quote from `at` on that starts a field.
fn opening_quote(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let quote = at + memchr(b'"', &bytes[at..])?;
        if quote == 0 || matches!(bytes[quote - 1], b',' | b'\n' | b'\r') {
            return Some(quote);
        }
        at = quote + 1;
    }
}

/// The quote that ends a field whose text starts at `at`, `None` where it stays open; and whether there are doubled ones
/// before it.
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
