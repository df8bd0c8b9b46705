//! Writes TensorBoard event files with scalar values, without a protobuf library.
//!
//! A file is a sequence of TFRecords: length (u64), its checksum, an `Event`, its checksum; checksums are CRC-32C,
//! rotated and shifted. Source: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto,
//! framework/summary.proto. A resumed run writes the figures of its log to a new file, whose name sorts after all
//! others, and removes the earlier files: the log has no step twice.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::log::{EPOCH, Entry, STEP, now};
use wavemill_schemas::run::RunFilesError;

const MASK: u32 = 0xA282_EAD8;
const PREFIX: &str = "events.out.tfevents.";

/// Appends events to a new TensorBoard file.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
}

impl EventWriter {
    /// Creates a new `events.out.tfevents.<seconds>.<n>` in `folder`. For a resumed run, which has the log lines
    /// `resumed`, the file begins with their figures and replaces the earlier files.
    ///
    /// # Errors
    /// [`RunFilesError::Io`] if an event file cannot be written or removed.
    pub fn create(folder: &Path, resumed: Option<&[Entry]>) -> Result<Self, RunFilesError> {
        let earlier = own_files(folder)?;
        let (file, path) = new_file(folder, &earlier)?;
        let mut writer = Self { file, path };
        let mut version = event(now(), 0);
        put_bytes(&mut version, 3, b"brain.Event:2");
        writer.put(&framed(&version))?;

        if let Some(entries) = resumed {
            // When TensorBoard reads a start event, it drops all events from this step on that it has read before.
            let mut start = event(now(), 0);
            // Protobuf encoding of SessionLog { status: START }.
            put_bytes(&mut start, 7, &[0x08, 0x01]);
            writer.put(&framed(&start))?;
            writer.write(entries)?;

            for (path, _) in earlier {
                fs::remove_file(&path).map_err(RunFilesError::io(&path, "remove"))?;
            }
        }
        Ok(writer)
    }

    /// Writes the figures of the log lines of steps and epochs by tag, such as `validation/loss`, as f32.
    ///
    /// # Errors
    /// [`RunFilesError::Io`] if the file cannot be written.
    pub fn write(&mut self, entries: &[Entry]) -> Result<(), RunFilesError> {
        let events = entries.iter().filter_map(scalars);
        let records: Vec<u8> = events.flat_map(|event| framed(&event)).collect();
        self.put(&records)
    }

    fn put(&mut self, records: &[u8]) -> Result<(), RunFilesError> {
        self.file
            .write_all(records)
            .map_err(RunFilesError::io(&self.path, "write"))
    }
}

/// Returns the event files that this writer created, with the seconds in their names. Other programs append a host name
/// to the file name.
fn own_files(folder: &Path) -> Result<Vec<(PathBuf, u64)>, RunFilesError> {
    let entries = fs::read_dir(folder).map_err(RunFilesError::io(folder, "list"))?;
    let mut own = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        if let Some(seconds) = own_seconds(&path) {
            own.push((path, seconds));
        }
    }
    Ok(own)
}

/// Returns the seconds in the name of an event file of this writer; `None` for the name of any other file.
fn own_seconds(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let (seconds, number) = name.strip_prefix(PREFIX)?.split_once('.')?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    seconds.parse().ok()
}

/// Creates an event file whose name sorts after all existing ones, even if the clock was set back.
fn new_file(folder: &Path, earlier: &[(PathBuf, u64)]) -> Result<(File, PathBuf), RunFilesError> {
    // TensorBoard reads the files of a folder in the order of their names, so the new name must be the last one even if
    // the clock was set back.
    let latest = earlier.iter().map(|(_, seconds)| *seconds).max();
    let seconds = latest.unwrap_or(0).max(now() as u64);

    for n in 0..u32::MAX {
        // Pad the number to ten digits, so that names sort in numeric order.
        let path = folder.join(format!("{PREFIX}{seconds:010}.{n:04}"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            made => {
                return made
                    .map(|file| (file, path.clone()))
                    .map_err(RunFilesError::io(&path, "make"));
            }
        }
    }
    Err(RunFilesError::Exists {
        path: folder.to_owned(),
    })
}

/// Encodes `Event { wall_time: double = 1, step: int64 = 2 }`. The caller adds the fields with the content.
fn event(wall_time_s: f64, step: u64) -> Vec<u8> {
    let mut out = vec![1 << 3 | 1];
    out.extend(wall_time_s.to_le_bytes());
    out.push(2 << 3);
    put_varint(&mut out, step);
    out
}

/// Encodes the figures of a log line: `Event.summary = 5` of `Summary.value = 1` of `Value { tag: string = 1,
/// simple_value: float = 2 }`. Returns `None` for a line of another kind.
fn scalars(entry: &Entry) -> Option<Vec<u8>> {
    let prefix = match entry.kind.as_str() {
        STEP => "step/",
        EPOCH => "",
        _ => return None,
    };
    let mut summary = Vec::new();
    for (name, value) in &entry.values {
        let mut item = Vec::new();
        put_bytes(&mut item, 1, format!("{prefix}{name}").as_bytes());
        item.push(2 << 3 | 5);
        item.extend((*value as f32).to_le_bytes());
        put_bytes(&mut summary, 1, &item);
    }
    let mut out = event(entry.unix_s, entry.step);
    put_bytes(&mut out, 5, &summary);
    Some(out)
}

/// Writes a protobuf field with its length in front.
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
    // The length has its own checksum, because a reader uses it before the data are read.
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &checksum(&length), data, &checksum(data)].concat()
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(MASK)
        .to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content of an event, as decoded by code that is independent of the writer.
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

    /// Decodes protobuf fields as (number, payload). Payloads of fixed and varint fields are little-endian bytes.
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

    /// Computes CRC-32C bit by bit (polynomial 0x1EDC6F41, reflected), masked as TFRecord requires.
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
            let check =
                |checked: &[u8], sum: &[u8]| assert_eq!(sum, slow_checksum(checked).to_le_bytes());
            check(length, take(&mut bytes, 4));

            let data = take(
                &mut bytes,
                u64::from_le_bytes(length.try_into().unwrap()) as usize,
            );
            check(data, take(&mut bytes, 4));

            let mut event = Read::default();
            for (number, payload) in fields(data) {
                match number {
                    1 => assert!(f64::from_le_bytes(payload.try_into().unwrap()) > 1e9),
                    2 => event.step = u64::from_le_bytes(payload.try_into().unwrap()),
                    3 => event.version = String::from_utf8(payload).unwrap(),
                    5 => event
                        .values
                        .extend(fields(&payload).iter().map(|(_, value)| {
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
        let mut files: Vec<PathBuf> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
    }

    /// Returns the log lines that a run writes, each with the figures `loss` and `lr`, or `validation/loss`.
    fn logged(steps: std::ops::RangeInclusive<u64>, epoch_at: u64) -> Vec<Entry> {
        let folder = tempfile::tempdir().unwrap();
        let mut log = super::super::Log::open(&folder.path().join("log.jsonl")).unwrap();
        let mut entries = Vec::new();
        for step in steps {
            let values = [("loss", 1.0), ("lr", 0.1)];
            entries.push(log.append(STEP, 0, step, &values).unwrap());
            entries.push(log.append("profile", 0, step, &[("steps", 1.0)]).unwrap());
            if step == epoch_at {
                let values = [("validation/loss", 1.0)];
                entries.push(log.append(EPOCH, 0, step, &values).unwrap());
            }
        }
        entries
    }

    #[test]
    fn written_events_round_trip_with_valid_checksums() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), None).unwrap();

        let long = "x".repeat(300);
        let mut entries = logged(1..=2, 0);
        entries[0].values = [("loss".to_owned(), 2.5), (long.clone(), f64::NAN)].into();
        entries[2].step = 5_000_000_000;
        entries[2].values = [("loss".to_owned(), -1e-3)].into();
        writer.write(&entries).unwrap();

        let events = read(&files(folder.path())[0]);
        assert_eq!(
            events[0],
            Read {
                version: "brain.Event:2".to_owned(),
                ..Read::default()
            }
        );
        assert_eq!(
            (events[1].step, &events[1].values[0]),
            (1, &("step/loss".to_owned(), 2.5))
        );
        let (tag, value) = &events[1].values[1];
        assert!(*tag == format!("step/{long}") && value.is_nan());
        assert_eq!(
            (events[2].step, &events[2].values[..]),
            (5_000_000_000, &[("step/loss".to_owned(), -1e-3)][..])
        );
    }

    /// Returns the step and tag of every figure in all event files.
    fn figures(folder: &Path) -> Vec<(u64, String)> {
        let events = files(folder).into_iter().flat_map(|path| read(&path));
        events
            .flat_map(|event| {
                event
                    .values
                    .into_iter()
                    .map(move |(tag, _)| (event.step, tag))
            })
            .collect()
    }

    #[test]
    fn resumed_run_has_one_file_that_begins_anew_with_the_figures_of_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = EventWriter::create(folder.path(), None).unwrap();
        first.write(&logged(1..=300, 200)).unwrap();
        // The run was killed while writing an event, and the clock was set back since then.
        first.file.write_all(&[9; 30]).unwrap();
        let late = folder.path().join("events.out.tfevents.9000000000.0000");
        fs::rename(&first.path, &late).unwrap();

        let kept = logged(1..=200, 200);
        let mut second = EventWriter::create(folder.path(), Some(&kept)).unwrap();
        second.write(&logged(201..=250, 0)).unwrap();

        assert!(second.path > late, "{:?}", second.path);
        assert_eq!(files(folder.path()), [second.path.clone()]);
        let events = read(&second.path);
        assert_eq!((events[1].step, events[1].restarts), (0, true));

        let all = figures(folder.path());
        let steps = |wanted: &str| -> Vec<u64> {
            let found = all.iter().filter(|(_, tag)| tag == wanted);
            found.map(|(step, _)| *step).collect()
        };
        assert_eq!(steps("step/loss"), (1..=250).collect::<Vec<u64>>());
        assert_eq!(steps("step/lr"), (1..=250).collect::<Vec<u64>>());
        assert_eq!(steps("validation/loss"), [200]);
        assert_eq!(all.len(), 501);
    }

    #[test]
    fn files_of_other_programs_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder
            .path()
            .join("events.out.tfevents.1700000000.myhost.123.0");
        fs::write(&other, [7; 99]).unwrap();

        EventWriter::create(folder.path(), Some(&[])).unwrap();

        assert_eq!(fs::read(&other).unwrap(), [7; 99]);
    }

    #[test]
    fn checksum_matches_the_standard_example() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
    }
}
