//! TensorBoard event files, written by hand: scalars only, in the few protobuf fields that they need.
//!
//! A file is a sequence of TFRecords: length (u64), its checksum, an `Event`, its checksum; checksums are CRC-32C, rotated
//! and shifted. Source: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto, framework/summary.proto.
//! A resumed run opens a file of its own, whose name sorts after the last; readers drop the steps it takes anew.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::RecordError;
use super::log::now;

const MASK: u32 = 0xA282_EAD8;

/// Appends events to a file of its own.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
}

impl EventWriter {
    /// A new `events.out.tfevents.<seconds>.<n>` in `folder`. `resumed_after`: the last step that still holds, if the
    /// run goes on from one; later ones in earlier files are dropped by readers.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn create(folder: &Path, resumed_after: Option<u64>) -> Result<Self, RecordError> {
        let (file, path) = new_file(folder)?;
        let mut writer = Self { file, path };
        let mut version = event(now(), 0);
        put_bytes(&mut version, 3, b"brain.Event:2");
        writer.put(&version)?;
        if let Some(step) = resumed_after {
            let mut start = event(now(), step + 1);
            // SessionLog { status: START }.
            put_bytes(&mut start, 7, &[0x08, 0x01]);
            writer.put(&start)?;
        }
        Ok(writer)
    }

    /// Figures of one step, by tag such as `validation/loss`. f32, as the format has it.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<(), RecordError> {
        let event = scalars(now(), step, values);
        self.put(&event)
    }

    fn put(&mut self, event: &[u8]) -> Result<(), RecordError> {
        self.file.write_all(&framed(event)).map_err(RecordError::io(&self.path, "write"))
    }
}

/// A file that sorts after all that are there, whatever the clock does.
fn new_file(folder: &Path) -> Result<(File, PathBuf), RecordError> {
    const PREFIX: &str = "events.out.tfevents.";
    let names = fs::read_dir(folder).map_err(RecordError::io(folder, "list"))?;
    let seconds = names.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_prefix(PREFIX)?.split('.').next()?.parse::<u64>().ok()
    });
    let seconds = seconds.max().unwrap_or(0).max(now() as u64);
    for n in 0..u32::MAX {
        let path = folder.join(format!("{PREFIX}{seconds:010}.{n:04}"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|file| (file, path.clone())).map_err(RecordError::io(&path, "make")),
        }
    }
    Err(RecordError::Exists { path: folder.to_owned() })
}

/// `Event { wall_time: double = 1, step: int64 = 2 }`, to which the caller adds what happened.
fn event(wall_time_s: f64, step: u64) -> Vec<u8> {
    let mut out = vec![1 << 3 | 1];
    out.extend(wall_time_s.to_le_bytes());
    out.push(2 << 3);
    put_varint(&mut out, step);
    out
}

/// `Event.summary = 5` of `Summary.value = 1` of `Value { tag: string = 1, simple_value: float = 2 }`.
fn scalars(wall_time_s: f64, step: u64, values: &[(&str, f64)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in values {
        let mut item = Vec::new();
        put_bytes(&mut item, 1, tag.as_bytes());
        item.push(2 << 3 | 5);
        item.extend((*value as f32).to_le_bytes());
        put_bytes(&mut summary, 1, &item);
    }
    let mut out = event(wall_time_s, step);
    put_bytes(&mut out, 5, &summary);
    out
}

/// A length-delimited protobuf field.
fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &checksum(&length), data, &checksum(data)].concat()
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(MASK).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an event says, read without the writer's help.
    #[derive(Debug, Default, PartialEq)]
    struct Read {
        step: u64,
        version: String,
        values: Vec<(String, f32)>,
        restarts: bool,
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (&byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(byte & 0x7F) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }

    fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
        let (head, rest) = bytes.split_at(n);
        *bytes = rest;
        head
    }

    /// Fields as (number, payload); fixed and varint payloads as little-endian bytes.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let payload = match key & 7 {
                0 => varint(&mut bytes).to_le_bytes().to_vec(),
                1 => take(&mut bytes, 8).to_vec(),
                5 => take(&mut bytes, 4).to_vec(),
                _ => {
                    let n = varint(&mut bytes) as usize;
                    take(&mut bytes, n).to_vec()
                }
            };
            out.push((key >> 3, payload));
        }
        out
    }

    /// CRC-32C bit by bit (polynomial 0x1EDC6F41, reflected), masked as TFRecord wants.
    fn slow_checksum(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in bytes {
            crc ^= u32::from(*byte);
            (0..8).for_each(|_| crc = crc >> 1 ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 });
        }
        (!crc).rotate_right(15).wrapping_add(0xA282_EAD8)
    }

    fn read(path: &Path) -> Vec<Read> {
        let text = fs::read(path).unwrap();
        let mut bytes = &text[..];
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let length = take(&mut bytes, 8);
            let check = |checked: &[u8], sum: &[u8]| assert_eq!(sum, slow_checksum(checked).to_le_bytes());
            check(length, take(&mut bytes, 4));
            let data = take(&mut bytes, u64::from_le_bytes(length.try_into().unwrap()) as usize);
            check(data, take(&mut bytes, 4));
            let mut event = Read::default();
            for (number, payload) in fields(data) {
                match number {
                    1 => assert!(f64::from_le_bytes(payload.try_into().unwrap()) > 1e9),
                    2 => event.step = u64::from_le_bytes(payload.try_into().unwrap()),
                    3 => event.version = String::from_utf8(payload).unwrap(),
                    5 => event.values.extend(fields(&payload).iter().map(|(_, value)| {
                        let parts = fields(value);
                        (
                            String::from_utf8(parts[0].1.clone()).unwrap(),
                            f32::from_le_bytes(parts[1].1[..].try_into().unwrap()),
                        )
                    })),
                    7 => event.restarts = fields(&payload) == [(1, 1_u64.to_le_bytes().to_vec())],
                    other => panic!("field {other}"),
                }
            }
            out.push(event);
        }
        out
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn an_own_reader_finds_what_was_written_and_right_checksums() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), None).unwrap();
        let long = "x".repeat(300);
        writer.scalars(1, &[("train/loss", 2.5), (&long, f64::NAN)]).unwrap();
        writer.scalars(5_000_000_000, &[("train/loss", -1e-3)]).unwrap();
        let events = read(&files(folder.path())[0]);
        assert_eq!(events[0], Read { version: "brain.Event:2".to_owned(), ..Read::default() });
        assert_eq!((events[1].step, &events[1].values[0]), (1, &("train/loss".to_owned(), 2.5)));
        assert!(events[1].values[1].0 == long && events[1].values[1].1.is_nan());
        assert_eq!((events[2].step, &events[2].values[0]), (5_000_000_000, &("train/loss".to_owned(), -1e-3)));
    }

    #[test]
    fn a_resumed_run_has_a_later_file_that_says_from_where() {
        let folder = tempfile::tempdir().unwrap();
        let first = EventWriter::create(folder.path(), None).unwrap();
        // As if the clock had been set back.
        fs::write(folder.path().join("events.out.tfevents.9000000000.0000"), "").unwrap();
        let second = EventWriter::create(folder.path(), Some(7)).unwrap();
        assert!(second.path > folder.path().join("events.out.tfevents.9000000000.0000") && second.path > first.path);
        let events = read(&second.path);
        assert_eq!((events[1].step, events[1].restarts), (8, true));
    }

    #[test]
    fn the_checksum_of_the_standard_example() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
    }
}
