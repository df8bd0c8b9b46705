//! Checks the footer of a Parquet file before Parquet's reader reads it.
//!
//! The reader allocates memory for all row groups and columns that a footer announces, and calls itself once per level
//! of nested columns. A failed allocation and a full stack end the process, and cannot be caught like a panic. The reader
//! also takes the type of a field from the field's id, whatever type the footer states. So here the ids and the types of
//! all fields that the reader knows are checked.
//!
//! Source: `FileMetaData` of parquet.thrift, in Thrift's compact protocol.

use Kind::{Byte, Bytes, Double, Element, Flag, Int, List, Skipped, Struct};

/// Size of the end of a file in bytes: the length of the footer, and the magic number.
const END_BYTES: u64 = 8;

/// Maximum number of schema elements: columns, lists and structs, or 16 for each of the 10,000 columns that metadata may
/// have. A column takes some hundred bytes of the footer.
const ELEMENTS_MAX: u64 = 160_000;

/// Maximum number of lists and structs around a column, including the root.
const LEVELS_MAX: usize = 100;

/// Maximum number of bytes of all columns' names, each with the names of the structs around it, as the reader stores them.
const NAMES_BYTES_MAX: u64 = 256 << 20;

/// Maximum number of lists and structs of the footer around a value. The format has 8.
const DEPTH_MAX: usize = 32;

/// Expected type of a value.
enum Kind {
    Flag,
    Byte,
    Int,
    Double,
    Bytes,
    List(&'static Kind),
    /// The fields of a struct, by id from 1. The reader skips fields with other ids.
    Struct(&'static [Kind]),
    /// A struct with the fields [`ELEMENT`].
    Element,
    /// A value that the reader skips by its stated type.
    Skipped,
}

const EMPTY: Kind = Struct(&[]);
const TIME: Kind = Struct(&[Flag, Struct(&[EMPTY, EMPTY, EMPTY])]);
const LOGICAL_TYPE: Kind = Struct(&[
    EMPTY,
    EMPTY,
    EMPTY,
    EMPTY,
    Struct(&[Int, Int]),
    EMPTY,
    TIME,
    TIME,
    Skipped,
    Struct(&[Byte, Flag]),
    EMPTY,
    EMPTY,
    EMPTY,
    EMPTY,
    EMPTY,
    Struct(&[Byte]),
    Struct(&[Bytes]),
    Struct(&[Bytes, Int]),
]);
/// Type, length, repetition, name, number of children, converted type, scale, precision, id and logical type.
const ELEMENT: &[Kind] = &[Int, Int, Int, Bytes, Int, Int, Int, Int, Int, LOGICAL_TYPE];
const STATISTICS: Kind = Struct(&[Bytes, Bytes, Int, Int, Bytes, Bytes, Flag, Flag]);
const BOX: Kind = Struct(&[
    Double, Double, Double, Double, Double, Double, Double, Double,
]);
const COLUMN: Kind = Struct(&[
    Int,
    List(&Int),
    Skipped,
    Int,
    Int,
    Int,
    Int,
    Skipped,
    Int,
    Int,
    Int,
    STATISTICS,
    List(&Struct(&[Int, Int, Int])),
    Int,
    Int,
    Struct(&[Int, List(&Int), List(&Int)]),
    Struct(&[BOX, List(&Int)]),
]);
const CHUNK: Kind = Struct(&[Bytes, Int, COLUMN, Int, Int, Int, Int]);
const ROW_GROUP: Kind = Struct(&[
    List(&CHUNK),
    Int,
    Int,
    List(&Struct(&[Int, Flag, Flag])),
    Int,
    Int,
    Int,
]);
/// Version, schema, number of rows, row groups, pairs of keys and values, writer and orders of columns.
const FILE: &[Kind] = &[
    Int,
    List(&Element),
    Int,
    List(&ROW_GROUP),
    List(&Struct(&[Bytes, Bytes])),
    Bytes,
    List(&Struct(&[EMPTY])),
];

/// Reason why the footer of a file must not be given to Parquet's reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FooterError {
    /// The number of columns, lists and structs that the footer announces is too large.
    #[error("its footer announces {0} columns, lists and structs; the limit is {ELEMENTS_MAX}")]
    Columns(usize),
    /// The columns are nested too deeply.
    #[error("its columns are nested in more than {LEVELS_MAX} lists and structs")]
    Nested,
    /// The names of the columns are too long.
    #[error("the names of its columns take more than {} MiB", NAMES_BYTES_MAX >> 20)]
    Names,
    /// The bytes are not those of a footer.
    #[error("its footer is not in the form of the Parquet format")]
    Malformed,
}

/// Checks the footer of a file of `file_bytes` bytes. `read` returns bytes of the file, by position and number. A file
/// that `read` cannot read, or that does not end like a Parquet file, is left to Parquet's reader, which reports it.
///
/// # Errors
/// [`FooterError`] for a footer that could end the process.
pub fn check<B: AsRef<[u8]>>(
    file_bytes: u64,
    read: impl Fn(u64, usize) -> Option<B>,
) -> Result<(), FooterError> {
    let Some(footer) = footer(file_bytes, read) else {
        return Ok(());
    };
    let mut walk = Walk {
        left: footer.as_ref(),
        groups: vec![(1, 0)],
        names_bytes: 0,
    };
    walk.fields(FILE, DEPTH_MAX)
}

/// Returns the bytes of a file's footer.
fn footer<B: AsRef<[u8]>>(file_bytes: u64, read: impl Fn(u64, usize) -> Option<B>) -> Option<B> {
    let end = file_bytes.checked_sub(END_BYTES)?;
    let last = read(end, END_BYTES as usize)?;
    let (bytes, magic) = last.as_ref().split_first_chunk::<4>()?;
    if magic != b"PAR1" {
        return None;
    }
    let bytes = u32::from_le_bytes(*bytes);
    read(end.checked_sub(u64::from(bytes))?, bytes as usize)
}

/// A walk over the values of a footer.
struct Walk<'a> {
    /// The bytes after the last value.
    left: &'a [u8],
    /// The lists and structs around the next schema element: the number of children that each still lacks, and the length
    /// of its name, with those of the groups around it. The first is the place of the root.
    groups: Vec<(u64, u64)>,
    /// Length of the names of all columns so far.
    names_bytes: u64,
}

impl Walk<'_> {
    fn byte(&mut self) -> Result<u8, FooterError> {
        let (&byte, left) = self.left.split_first().ok_or(FooterError::Malformed)?;
        self.left = left;
        Ok(byte)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), FooterError> {
        let left = self.left.get(bytes as usize..);
        self.left = left.ok_or(FooterError::Malformed)?;
        Ok(())
    }

    /// Decodes a variable-length integer of 7 bits per byte, with the low bits first.
    fn int(&mut self) -> Result<u64, FooterError> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(FooterError::Malformed)
    }

    /// Moves past a value of the type `found`, a type code of Thrift's compact protocol, in at most `depth` levels. Returns
    /// the value of an integer or the length of bytes, and 0 for other types.
    fn value(&mut self, found: u8, kind: &Kind, depth: usize) -> Result<u64, FooterError> {
        let depth = depth.checked_sub(1).ok_or(FooterError::Malformed)?;
        match (kind, found) {
            // A field's type contains the value of the flag.
            (Flag | Skipped, 1 | 2) => {}
            (Byte | Skipped, 3) => self.skip(1)?,
            (Int | Skipped, 4..=6) => return self.int(),
            (Double | Skipped, 7) => self.skip(8)?,
            (Bytes | Skipped, 8) => {
                let bytes = self.int()?;
                self.skip(bytes)?;
                return Ok(bytes);
            }
            (List(item), 9) => self.list(item, depth)?,
            (Skipped, 9) => self.list(&Skipped, depth)?,
            (Struct(fields), 12) => self.fields(fields, depth)?,
            (Skipped, 12) => self.fields(&[], depth)?,
            (Element, 12) => self.element(depth)?,
            _ => return Err(FooterError::Malformed),
        }
        Ok(0)
    }

    /// Moves past the items of a list. Each takes a byte or more, so a list has no more items than the footer has bytes.
    fn list(&mut self, item: &Kind, depth: usize) -> Result<(), FooterError> {
        // The first byte has the type of the items, and their number if it is less than 15.
        let head = self.byte()?;
        let items = match head >> 4 {
            15 => self.int()?,
            items => u64::from(items),
        };
        if matches!(item, Element) && items > ELEMENTS_MAX + 1 {
            return Err(FooterError::Columns((items - 1) as usize));
        }
        for _ in 0..items {
            match head & 0xf {
                // The format has no list of flags, and readers differ in the size of its items.
                1 | 2 => return Err(FooterError::Malformed),
                found => self.value(found, item, depth)?,
            };
        }
        Ok(())
    }

    /// Moves past a struct.
    fn fields(&mut self, kinds: &[Kind], depth: usize) -> Result<(), FooterError> {
        let mut id = 0;
        while let Some(found) = self.next_field(&mut id)? {
            let kind = kinds.get(id as usize - 1).unwrap_or(&Skipped);
            self.value(found, kind, depth)?;
        }
        Ok(())
    }

    /// Returns the type of a struct's next field, and sets `id` to its id. `None` at the end of the struct.
    fn next_field(&mut self, id: &mut u64) -> Result<Option<u8>, FooterError> {
        let head = self.byte()?;
        if head & 0xf == 0 {
            return Ok(None);
        }
        // The difference to the last id, or 0 before the id itself, whose lowest bit is its sign.
        let next = match head >> 4 {
            0 => match self.int()? {
                positive if positive & 1 == 0 => positive >> 1,
                _ => return Err(FooterError::Malformed),
            },
            difference => *id + u64::from(difference),
        };
        // All writers write fields in the order of their ids. The reader would read a repeated field once more.
        if next <= *id || next > i16::MAX as u64 {
            return Err(FooterError::Malformed);
        }
        *id = next;
        Ok(Some(head & 0xf))
    }

    /// Moves past a schema element, and adds it below the innermost group that lacks children.
    fn element(&mut self, depth: usize) -> Result<(), FooterError> {
        let (mut id, mut name_bytes, mut children) = (0, 0, 0);
        while let Some(found) = self.next_field(&mut id)? {
            let kind = ELEMENT.get(id as usize - 1).unwrap_or(&Skipped);
            let value = self.value(found, kind, depth)?;
            match id {
                4 => name_bytes = value,
                5 => children = value,
                _ => {}
            }
        }
        // The lowest bit is the sign.
        if children & 1 == 1 || children >> 1 > ELEMENTS_MAX {
            return Err(FooterError::Malformed);
        }

        while self.groups.last().is_some_and(|(lacks, _)| *lacks == 0) {
            self.groups.pop();
        }
        let (lacks, names_bytes) = self.groups.last_mut().ok_or(FooterError::Malformed)?;
        *lacks -= 1;
        let names_bytes = *names_bytes + name_bytes;
        if children > 0 {
            self.groups.push((children >> 1, names_bytes));
        } else {
            self.names_bytes += names_bytes;
        }

        if self.groups.len() > LEVELS_MAX + 1 {
            return Err(FooterError::Nested);
        }
        if self.names_bytes > NAMES_BYTES_MAX {
            return Err(FooterError::Names);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with one child, and this child: a column of INT32.
    const ROOT: &[u8] = b"\x48\x01r\x15\x02\x00";
    const LEAF: &[u8] = b"\x15\x02\x25\x00\x18\x01c\x00";
    /// The number of rows, no row groups, and the end.
    const REST: &[u8] = b"\x16\x00\x19\x0c\x00";

    /// Checks a file whose footer consists of these parts.
    fn checked(parts: &[&[u8]]) -> Result<(), FooterError> {
        let footer = parts.concat();
        let bytes = footer.len() as u32;
        let file = [b"PAR1", &footer[..], &bytes.to_le_bytes(), b"PAR1"].concat();
        check(file.len() as u64, |start, bytes| {
            file.get(start as usize..)?.get(..bytes)
        })
    }

    #[test]
    fn footers_of_the_format_are_accepted() {
        let head = b"\x15\x04\x19\x2c";
        assert_eq!(checked(&[head, ROOT, LEAF, REST]), Ok(()));
        // A timestamp, whose logical type is a union of structs.
        let timestamp = b"\x15\x04\x25\x02\x18\x01t\x6c\x8c\x11\x1c\x2c\x00\x00\x00\x00\x00";
        assert_eq!(checked(&[head, ROOT, timestamp, REST]), Ok(()));
        // The id of the version after its type.
        assert_eq!(
            checked(&[b"\x05\x02\x04\x19\x2c", ROOT, LEAF, REST]),
            Ok(())
        );
        // Not a Parquet file.
        assert_eq!(check(3, |_, _| Some(b"abc")), Ok(()));
    }

    #[test]
    fn footers_that_end_the_reader_are_refused() {
        let head = b"\x15\x04\x19\x2c";
        let many = b"\xfc\xff\xff\xff\xff\x07";

        // 2³¹ - 1 row groups, also as a second list of them.
        let groups = checked(&[head, ROOT, LEAF, b"\x16\x00\x19", many]);
        assert_eq!(groups, Err(FooterError::Malformed));
        let twice = checked(&[head, ROOT, LEAF, b"\x16\x00\x19\x0c\x09\x08", many]);
        assert_eq!(twice, Err(FooterError::Malformed));

        // As many columns, also after the version in its long form, and as children of the root.
        let columns = Err(FooterError::Columns((1 << 31) - 2));
        assert_eq!(checked(&[b"\x15\x04\x19", many]), columns);
        assert_eq!(checked(&[b"\x05\x02\x02\x19", many]), columns);
        let children = b"\x48\x01r\x15\xfe\xff\xff\xff\x0f\x00";
        let children = checked(&[head, children, LEAF, REST]);
        assert_eq!(children, Err(FooterError::Malformed));

        // A number of children that is no number, and bytes that the reader would take for a number.
        let flag = checked(&[head, b"\x48\x01r\x11\x00", LEAF, REST]);
        assert_eq!(flag, Err(FooterError::Malformed));
        let bytes = checked(&[b"\x18\x01\x04\x19\x2c", ROOT, LEAF, REST]);
        assert_eq!(bytes, Err(FooterError::Malformed));
    }

    #[test]
    fn nested_columns_and_their_names_have_limits() {
        // 200 = 0x48 + (1 << 7) elements, and 101.
        let nested = |count: usize, size: &[u8]| {
            let groups = ROOT.repeat(count - 1);
            checked(&[b"\x15\x04\x19\xfc", size, &groups, LEAF, REST])
        };
        assert_eq!(nested(200, b"\xc8\x01"), Err(FooterError::Nested));
        assert_eq!(nested(101, b"\x65"), Ok(()));

        // 1,000 columns in a struct whose name has 1 MiB.
        let head = b"\x15\x04\x19\xfc\xe9\x07\x48\x80\x80\x40";
        let name = vec![b'n'; 1 << 20];
        let leaves = LEAF.repeat(1_000);
        let names = checked(&[head, &name, b"\x15\xd0\x0f\x00", &leaves, REST]);
        assert_eq!(names, Err(FooterError::Names));
    }
}
