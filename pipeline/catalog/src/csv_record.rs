//! Splits the records of a block into fields in the same way as the `csv` crate; the tests compare the two.
//!
//! Fields are positions in the block, without copies. This module does not know columns, types or text encodings.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memchr3};

use super::csv_blocks::{Block, Dialect, Position, ends_line, n_lines, quoted_end, starts_field};

/// Position of a field in the block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    start: usize,
    end: usize,
    /// True if the field contains quotes that are not part of its value.
    quotes: bool,
}

/// Iterates over the records of a block.
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    dialect: Dialect,
    /// Position of the next record, or of blank lines before it.
    left: Position,
    /// Position at which the current record starts.
    start: usize,
    fields: Vec<Field>,
    record_line: u64,
    /// True if quotes of the current record join lines.
    pub is_joined: bool,
    /// True if a quote of the current record joins lines because it is not closed, or closed by the opening quote of a field
    /// on a later line.
    pub is_unbalanced: bool,
}

impl<'a> Records<'a> {
    /// Creates an iterator before the first unread record of `block`.
    pub(super) const fn new(block: &'a Block) -> Self {
        Self {
            bytes: block.bytes.as_slice(),
            dialect: block.dialect,
            left: block.left,
            start: 0,
            fields: Vec::new(),
            record_line: 0,
            is_joined: false,
            is_unbalanced: false,
        }
    }

    /// Returns the position in the block after the current record.
    pub(super) const fn left(&self) -> Position {
        self.left
    }

    /// Advances to the next record, skipping blank lines. Returns false at the end of the block.
    pub(super) fn advance(&mut self) -> bool {
        // Skipping also covers the second byte of the line break that ended the previous record.
        while let Some(b'\n' | b'\r') = self.bytes.get(self.left.at) {
            self.left.line += u64::from(ends_line(self.bytes, self.left.at));
            self.left.at += 1;
        }

        self.fields.clear();
        self.is_joined = false;
        self.is_unbalanced = false;
        self.start = self.left.at;
        self.record_line = self.left.line;
        if self.left.at == self.bytes.len() {
            return false;
        }

        loop {
            let end = self.field();
            self.left.at = (end + 1).min(self.bytes.len());
            match self.bytes.get(end) {
                // A delimiter means that another field follows. At the end of the block, that field is empty.
                Some(&delimiter) if delimiter == self.dialect.delimiter => {}
                last => {
                    self.left.line += u64::from(last.is_some() && ends_line(self.bytes, end));
                    return true;
                }
            }
        }
    }

    /// Adds the field at `self.left.at`. Returns the position of its end: a delimiter, a line break or the end of the
    /// block.
    fn field(&mut self) -> usize {
        let rest = self.bytes[self.left.at..].iter();
        let n_spaces = rest
            .take_while(|&&byte| self.dialect.is_space(byte))
            .count();
        let start = self.left.at + n_spaces;
        if self.bytes.get(start) != Some(&b'"') {
            let end = self.field_end(start);
            self.fields.push(Field {
                start,
                end: start + self.dialect.trimmed(&self.bytes[start..end]),
                quotes: false,
            });
            return end;
        }

        let start = start + 1;
        let (closing, are_doubled) = quoted_end(self.bytes, start);
        // A field whose quote is never closed extends to the end of the file.
        let quote = closing.unwrap_or(self.bytes.len());

        // Text between the closing quote and the next delimiter also belongs to the field.
        let end = self.field_end((quote + 1).min(self.bytes.len()));
        let text_end = start + self.dialect.trimmed(&self.bytes[start..end]);
        // Without text after the closing quote, the field is the text between the quotes.
        let field = if text_end <= quote + 1 {
            Field {
                start,
                end: quote,
                quotes: are_doubled,
            }
        } else {
            Field {
                start,
                end: text_end,
                quotes: true,
            }
        };

        // Line breaks within quotes are counted, because `line` is a physical line of the file.
        let n_breaks = n_lines(&self.bytes[start..quote]);
        self.left.line += n_breaks;
        self.is_joined |= n_breaks > 0;
        self.is_unbalanced |= n_breaks > 0 && (closing.is_none() || self.is_opening(quote, end));
        self.fields.push(field);
        end
    }

    /// Reports whether the quote that closes a field, which ends at `end`, is probably the opening quote of a later field: it
    /// is at the start of a field, and a closing quote follows. Other text after a closing quote is part of the value.
    fn is_opening(&self, quote: usize, end: usize) -> bool {
        let spaced = Dialect {
            trim: true,
            ..self.dialect
        };
        starts_field(self.bytes, quote, spaced) && self.bytes[quote + 1..end].contains(&b'"')
    }

    fn field_end(&self, at: usize) -> usize {
        match self.bytes.get(at) {
            None | Some(b'\n' | b'\r') => at,
            _ => memchr3(self.dialect.delimiter, b'\n', b'\r', &self.bytes[at..])
                .map_or(self.bytes.len(), |length| at + length),
        }
    }

    /// Returns the physical line of the file on which the current record starts, from 1.
    pub(super) const fn line(&self) -> u64 {
        self.record_line
    }

    /// Returns the fields of the current record.
    pub(super) fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Returns the byte that separates fields.
    pub(super) const fn delimiter(&self) -> u8 {
        self.dialect.delimiter
    }

    /// Returns the offset of the current record in the block, and the record's bytes.
    pub(super) fn raw(&self) -> (usize, &'a [u8]) {
        (self.start, &self.bytes[self.start..self.left.at])
    }

    /// Returns the value of a field of the current record, without its quotes.
    pub(super) fn value(&self, field: Field) -> Cow<'a, [u8]> {
        let raw = &self.bytes[field.start..field.end];
        if !field.quotes {
            return Cow::Borrowed(raw);
        }

        let mut value = Vec::with_capacity(raw.len());
        for part in parts(raw) {
            value.extend_from_slice(&raw[part]);
        }
        Cow::Owned(value)
    }
}

impl Field {
    /// Returns the value of the field as a slice of its record's `text`, which starts at offset `base` of the block. If
    /// quotes must be removed, the value is written to `unquoted` instead. `None` if `text` ends before the field does.
    pub(super) fn text<'a>(
        self,
        base: usize,
        text: &'a str,
        unquoted: &'a mut String,
    ) -> Option<&'a str> {
        let raw = text.get(self.start - base..self.end - base)?;
        if !self.quotes {
            return Some(raw);
        }

        unquoted.clear();
        for part in parts(raw.as_bytes()) {
            unquoted.push_str(&raw[part]);
        }
        Some(unquoted)
    }
}

/// Returns the parts of a quoted text that form its value: one of each pair of quotes, not the closing quote, and
/// everything after it.
fn parts(raw: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut next = Some(0);
    let mut is_closed = false;
    std::iter::from_fn(move || {
        let start = next?;
        let quote = if is_closed {
            None
        } else {
            memchr(b'"', &raw[start..]).map(|length| start + length)
        };
        let Some(quote) = quote else {
            next = None;
            return Some(start..raw.len());
        };

        is_closed = raw.get(quote + 1) != Some(&b'"');
        if is_closed {
            next = Some(quote + 1);
            return Some(start..quote);
        }
        // Of two quotes in a row, the first one is part of the field's value.
        next = Some(quote + 2);
        Some(start..quote + 1)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use wavemill_schemas::recipe::CsvSpec;

    use super::super::csv_blocks::{Blocks, delimiter_of};
    use super::*;

    type Rows = Vec<(u64, Vec<Vec<u8>>)>;

    /// Reader that returns one byte per call, as a slow source may.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = buffer.len().min(1);
            self.0.read(&mut buffer[..n])
        }
    }

    fn ours(input: impl Read, block_bytes: usize) -> Rows {
        read(input, block_bytes, CsvSpec::default())
    }

    fn read(input: impl Read, block_bytes: usize, csv: CsvSpec) -> Rows {
        let (mut blocks, mut block, mut rows) = (
            Blocks::new(input, block_bytes, csv),
            Block::default(),
            Vec::new(),
        );

        while blocks.next_into(&mut block).unwrap() {
            let mut records = Records::new(&block);
            while records.advance() {
                let values = records
                    .fields()
                    .iter()
                    .map(|&field| records.value(field).into_owned());
                rows.push((records.line(), values.collect()));
            }
        }

        rows
    }

    fn theirs(text: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter_of(text))
            .from_reader(text);
        let rows = reader
            .into_byte_records()
            .map(|row| row.unwrap().iter().map(<[u8]>::to_vec).collect());
        rows.collect()
    }

    fn values(rows: &Rows) -> Vec<Vec<Vec<u8>>> {
        rows.iter().map(|(_, values)| values.clone()).collect()
    }

    proptest! {
        #[test]
        fn records_are_those_of_the_csv_crate_wherever_blocks_are_cut(
            text in proptest::collection::vec(proptest::sample::select(b"ab\",;\n\r\n\"\",\xc3\xa9".to_vec()), 0..200),
            block_bytes in 1_usize..64,
        ) {
            let whole = ours(&text[..], 1 << 20);
            prop_assert_eq!(values(&whole), theirs(&text));
            prop_assert!(whole.is_sorted_by(|record, next| record.0 < next.0), "two records on one line");
            prop_assert_eq!(&ours(&text[..], block_bytes), &whole);
            prop_assert_eq!(&ours(Drops(&text), block_bytes), &whole);
        }

        #[test]
        fn options_give_the_same_records_wherever_blocks_are_cut(
            text in proptest::collection::vec(proptest::sample::select(b"ab \t\",;\n\r\n\"\"".to_vec()), 0..200),
            block_bytes in 1_usize..64,
            skip_lines in 0_u32..4,
        ) {
            let csv = CsvSpec { skip_lines, trim: true, ragged: false };
            let whole = read(&text[..], 1 << 20, csv);
            prop_assert_eq!(&read(&text[..], block_bytes, csv), &whole);
            prop_assert!(whole.iter().all(|(line, _)| *line > u64::from(skip_lines)));
        }
    }

    #[test]
    fn first_line_determines_the_delimiter() {
        for (text, expected) in [
            (&b"file;artist;title\n"[..], b';'),
            (b"file\tartist, name\n", b','),
            (b"file\t\"artist, name\"|x\ty\n", b'\t'),
            (b"\"a;b\nc\",1\n", b','),
            (b"file\r\na;b\n", b','),
            (b"", b','),
        ] {
            assert_eq!(
                char::from(delimiter_of(text)),
                char::from(expected),
                "{text:?}"
            );
        }
        let rows = ours(&b"\xef\xbb\xbfa;b\n\"x;\ny\";1,5\n"[..], 4);
        assert_eq!(rows[0].1, [b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(rows[1].1, [b"x;\ny".to_vec(), b"1,5".to_vec()]);
    }

    #[test]
    fn records_report_their_first_line() {
        let text = b"\xef\xbb\xbf\"a\nb\",1\r\n\r\n\nc,2\r\nd,\"\n\n\"x\ne,5\"\nf,\"\"";

        for block_bytes in [4, 1 << 20] {
            let rows = ours(&text[..], block_bytes);
            let lines: Vec<u64> = rows.iter().map(|(line, _)| *line).collect();
            assert_eq!(lines, [1, 5, 6, 9, 10]);
            assert_eq!(rows[0].1, [b"a\nb".to_vec(), b"1".to_vec()]);
            assert_eq!(rows[2].1[1], b"\n\nx");
            assert_eq!(
                (&rows[3].1[1][..], &rows[4].1[1][..]),
                (&b"5\""[..], &b""[..])
            );
        }
    }
}
