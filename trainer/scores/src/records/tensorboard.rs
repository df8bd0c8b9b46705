//! Writes TensorBoard event files with scalar values, without a protobuf library.
//!
//! A file is a sequence of TFRecords: length (u64), its checksum, an `Event`, its checksum; checksums are CRC-32C,
//! rotated and shifted. Source: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto,
//! framework/summary.proto. A resumed run opens a new file, whose name sorts after all others. The events of steps that
//! the run repeats are cut off from the earlier files. The new file also marks its first step, for readers that have
//! already read those events.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::log::now;
use wavemill_schemas::run::RunFilesError;

const MASK: u32 = 0xA282_EAD8;
const PREFIX: &str = "events.out.tfevents.";
/// Prefix of the tags that are written only at the end of an epoch, and not after each step.
const EPOCH_PREFIX: &str = "validation/";
/// Number of bytes before a record's data (length and checksum) and after it (checksum).
const HEAD_BYTES: usize = 12;
const TAIL_BYTES: usize = 4;
/// Maximum length of a record's data in bytes. Events of this writer are smaller, so a longer record is invalid.
const EVENT_BYTES_MAX: u64 = 1 << 20;

/// The step after which a run is resumed.
#[derive(Clone, Copy, Debug)]
pub struct ResumePoint {
    /// The last optimiser step whose events remain valid.
    pub step: u64,
    /// Whether the epoch of that step has ended. Otherwise the events of the epoch's end are repeated.
    pub epoch_ended: bool,
}

/// Appends events to a new TensorBoard file.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
}

impl EventWriter {
    /// Creates a new `events.out.tfevents.<seconds>.<n>` in `folder`. If the run is `resumed`, the events of the steps
    /// that it repeats are cut off from earlier files.
    ///
    /// # Errors
    /// [`RunFilesError::Io`] if an event file cannot be read or written.
    pub fn create(folder: &Path, resumed: Option<ResumePoint>) -> Result<Self, RunFilesError> {
        if let Some(resumed) = resumed {
            // Leave event files of other programs unchanged: `holds` understands only events of this writer.
            own_files(folder)?
                .iter()
                .try_for_each(|(path, _)| undo(path, resumed))?;
        }

        let (file, path) = new_file(folder)?;
        let mut writer = Self { file, path };
        let mut version = event(now(), 0);
        put_bytes(&mut version, 3, b"brain.Event:2");
        writer.put(&version)?;

        if let Some(ResumePoint { step, .. }) = resumed {
            // When TensorBoard reads a start event, it drops all events from this step on that it has read before.
            let mut start = event(now(), step + 1);
            // Protobuf encoding of SessionLog { status: START }.
            put_bytes(&mut start, 7, &[0x08, 0x01]);
            writer.put(&start)?;
        }
        Ok(writer)
    }

    /// Writes the figures of one step by tag, such as `validation/loss`, as f32.
    ///
    /// # Errors
    /// [`RunFilesError::Io`] if the file cannot be written.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<(), RunFilesError> {
        let event = scalars(now(), step, values);
        self.put(&event)
    }

    fn put(&mut self, event: &[u8]) -> Result<(), RunFilesError> {
        self.file
            .write_all(&framed(event))
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

/// Truncates an event file before the first event that the resumed run repeats, or that a killed run left incomplete.
/// Steps increase within a file, so no valid event follows.
fn undo(path: &Path, resumed: ResumePoint) -> Result<(), RunFilesError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(RunFilesError::io(path, "open"))?;
    let mut reader = BufReader::new(&file);

    let mut kept = 0;
    while let Some(data) = next_event(&mut reader).map_err(RunFilesError::io(path, "read"))? {
        if !holds(&data, resumed) {
            break;
        }
        kept += (HEAD_BYTES + data.len() + TAIL_BYTES) as u64;
    }

    let metadata = file.metadata().map_err(RunFilesError::io(path, "read"))?;
    if metadata.len() > kept {
        file.set_len(kept).map_err(RunFilesError::io(path, "cut"))?;
    }
    Ok(())
}

/// Returns the data of the next record; `None` at the end of the file or if the rest is not a record.
fn next_event(reader: &mut impl Read) -> Result<Option<Vec<u8>>, std::io::Error> {
    let mut length = [0; 8];
    let mut rest = Vec::new();
    match reader.read_exact(&mut length) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u64::from_le_bytes(length);
    // An incomplete record of a killed process may have any length. The check also limits the size of the read below.
    if length > EVENT_BYTES_MAX {
        return Ok(None);
    }

    let checksums = HEAD_BYTES - 8 + TAIL_BYTES;
    let wanted = length as usize + checksums;
    reader.take(wanted as u64).read_to_end(&mut rest)?;
    let is_whole = rest.len() == wanted;
    Ok(is_whole.then(|| rest[HEAD_BYTES - 8..wanted - TAIL_BYTES].to_vec()))
}

/// Reports whether an event of this writer remains valid when a run is resumed.
fn holds(event: &[u8], resumed: ResumePoint) -> bool {
    // `event` writes a key and eight bytes of time, then a key and the step.
    let Some(step) = event.get(10..).and_then(varint) else {
        return false;
    };
    // Tags are plain bytes within an event, so they are found without a protobuf parser.
    let is_of_epoch = event
        .windows(EPOCH_PREFIX.len())
        .any(|bytes| bytes == EPOCH_PREFIX.as_bytes());
    let comes_anew = is_of_epoch && !resumed.epoch_ended;
    step < resumed.step || step == resumed.step && !comes_anew
}

fn varint(bytes: &[u8]) -> Option<u64> {
    let mut value = 0;
    for (place, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7F) << (7 * place as u32);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Creates an event file whose name sorts after all existing ones, even if the clock was set back.
fn new_file(folder: &Path) -> Result<(File, PathBuf), RunFilesError> {
    // TensorBoard reads the files of a folder in the order of their names, so the new name must be the last one even if
    // the clock was set back.
    let latest = own_files(folder)?.iter().map(|(_, seconds)| *seconds).max();
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

/// Encodes one scalar: `Event.summary = 5` of `Summary.value = 1` of `Value { tag: string = 1, simple_value: float = 2
/// }`.
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

    #[test]
    fn written_events_round_trip_with_valid_checksums() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), None).unwrap();

        let long = "x".repeat(300);
        writer
            .scalars(1, &[("train/loss", 2.5), (&long, f64::NAN)])
            .unwrap();
        writer
            .scalars(5_000_000_000, &[("train/loss", -1e-3)])
            .unwrap();

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
            (1, &("train/loss".to_owned(), 2.5))
        );
        assert!(events[1].values[1].0 == long && events[1].values[1].1.is_nan());
        assert_eq!(
            (events[2].step, &events[2].values[0]),
            (5_000_000_000, &("train/loss".to_owned(), -1e-3))
        );
    }

    #[test]
    fn resumed_run_writes_a_new_file_with_its_start_step() {
        let folder = tempfile::tempdir().unwrap();
        let first = EventWriter::create(folder.path(), None).unwrap();

        // The clock is set back between two runs.
        fs::write(
            folder.path().join("events.out.tfevents.9000000000.0000"),
            "",
        )
        .unwrap();

        let second = EventWriter::create(
            folder.path(),
            Some(ResumePoint {
                step: 7,
                epoch_ended: true,
            }),
        )
        .unwrap();
        assert!(
            second.path > folder.path().join("events.out.tfevents.9000000000.0000")
                && second.path > first.path
        );

        let events = read(&second.path);
        assert_eq!((events[1].step, events[1].restarts), (8, true));
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
    fn events_continued_after_a_kill_have_no_duplicate_steps() {
        fn write(
            folder: &Path,
            resumed: Option<ResumePoint>,
            steps: std::ops::RangeInclusive<u64>,
            epoch_at: u64,
        ) -> PathBuf {
            let mut writer = EventWriter::create(folder, resumed).unwrap();
            for step in steps {
                writer
                    .scalars(step, &[("step/loss", 1.0), ("step/lr", 0.1)])
                    .unwrap();
                if step == epoch_at {
                    writer.scalars(step, &[("validation/loss", 1.0)]).unwrap();
                }
            }
            writer.path
        }

        let folder = tempfile::tempdir().unwrap();
        let first = write(folder.path(), None, 1..=300, 200);
        // The run was killed while writing an event.
        OpenOptions::new()
            .append(true)
            .open(first)
            .unwrap()
            .write_all(&[9; 30])
            .unwrap();

        // Resume within an epoch, then at an epoch's last step but before the epoch's end, then after the epoch's end.
        write(
            folder.path(),
            Some(ResumePoint {
                step: 199,
                epoch_ended: false,
            }),
            200..=250,
            200,
        );
        write(
            folder.path(),
            Some(ResumePoint {
                step: 200,
                epoch_ended: true,
            }),
            201..=260,
            0,
        );

        let mut last = EventWriter::create(
            folder.path(),
            Some(ResumePoint {
                step: 200,
                epoch_ended: false,
            }),
        )
        .unwrap();
        last.scalars(200, &[("validation/loss", 1.0)]).unwrap();

        let all = figures(folder.path());
        let steps: Vec<u64> = all
            .iter()
            .filter(|(_, tag)| tag == "step/loss")
            .map(|(step, _)| *step)
            .collect();
        assert_eq!(steps, (1..=200).collect::<Vec<u64>>());
        assert_eq!(
            all.iter()
                .filter(|(_, tag)| tag == "validation/loss")
                .count(),
            1
        );
    }

    #[test]
    fn files_of_other_programs_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder
            .path()
            .join("events.out.tfevents.1700000000.myhost.123.0");
        fs::write(&other, [7; 99]).unwrap();

        EventWriter::create(
            folder.path(),
            Some(ResumePoint {
                step: 1,
                epoch_ended: true,
            }),
        )
        .unwrap();

        assert_eq!(fs::read(&other).unwrap(), [7; 99]);
    }

    #[test]
    fn checksum_matches_the_standard_example() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
    }
}
