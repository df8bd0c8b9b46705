//! Reads a zip's directory, the list of its entries at the end of the file, as specified in PKWARE's APPNOTE.TXT
//! (4.3.12 to 4.3.16 and 4.5.3).
//!
//! The crate `zip` is not used. Its `ZipArchive` keeps only the last of several entries with the same name. Its
//! `ZipIterable` (9.2) ends at the first entry with a malformed extra field, so that one damaged entry costs all later
//! ones, and it reads as many entries as the end record states, so that a damaged or 16-bit count hides entries.

use std::io::{self, BufReader, Read};
use std::sync::Arc;

use super::archive::{Entry, LOCAL_HEADER_BYTES, LOCAL_HEADER_MAGIC, damaged};
use super::bytes_at::{BytesAt, Section, is_of_machine};
use super::names;
use super::split::ZipFiles;

/// Number of bytes of the directory that are read at once. It may be on another machine.
const BLOCK_BYTES: usize = 1 << 20;

/// Size in bytes of the end-of-directory record, without its comment.
const END_BYTES: u64 = 22;
const END_MAGIC: &[u8] = b"PK\x05\x06";
/// Maximum length of the zip's comment in bytes.
const COMMENT_BYTES_MAX: u64 = 0xffff;

/// Size in bytes of the locator, the record that contains the position of the 64-bit end record. It directly precedes
/// the end record.
const LOCATOR_BYTES: u64 = 20;
const LOCATOR_MAGIC: &[u8] = b"PK\x06\x07";
/// Minimum size in bytes of the 64-bit end-of-directory record.
const END_64_BYTES: u64 = 56;
const END_64_MAGIC: &[u8] = b"PK\x06\x06";

/// Size in bytes of a directory entry, without its name.
const ENTRY_BYTES: usize = 46;
const ENTRY_MAGIC: &[u8] = b"PK\x01\x02";

/// Number of directory entries that are checked. One must be at its stated position for the positions to be trusted.
const TRIED_ENTRIES: usize = 16;

/// Ids of a zip's extra fields: 64-bit sizes and position, and a UTF-8 name.
const EXTRA_ZIP64: u16 = 0x0001;
const EXTRA_UNICODE_NAME: u16 = 0x7075;

/// Placeholder for a 32-bit size or position whose value is in the 64-bit extra field.
const STORED_IN_EXTRA: u64 = 0xffff_ffff;
/// Placeholder for the number of a file whose value is in the 64-bit end record.
const STORED_IN_END_64: u16 = 0xffff;

/// Maximum size in bytes of the record after an entry's data that repeats its CRC-32 and sizes.
const DESCRIPTOR_BYTES_MAX: u64 = 24;

/// A zip's end-of-directory record: the position and size of the directory.
struct End {
    /// Position of the end record. The directory ends there or earlier.
    position: u64,
    /// Number of entries according to the end record.
    entries: u64,
    /// Size of the directory in bytes.
    bytes: u64,
    /// Position of the directory relative to the beginning of the zip.
    offset: u64,
    /// True if the end record has 64-bit counts. Otherwise they have 16 bits.
    is_64: bool,
}

/// Reads all entries of a zip's directory except folders, in the directory's order.
///
/// # Errors
/// `InvalidData` if the directory as a whole cannot be read or the files of a split zip do not fit together, and
/// otherwise the operating system's error.
pub(super) fn read(files: &Arc<ZipFiles>) -> io::Result<Vec<Entry>> {
    let end = find_end(files)?;
    let (start, prefix_bytes) = find_start(&**files, &end)?;
    if files.boundaries().len() > 0 && prefix_bytes > 0 {
        return Err(damaged("they have more bytes than its directory states"));
    }

    let section = Section {
        bytes: Arc::clone(files) as Arc<dyn BytesAt>,
        position: start,
        end: start + end.bytes,
    };
    let mut records = BufReader::with_capacity(BLOCK_BYTES, section);

    let mut entries = Vec::new();
    let mut n_records = 0_u64;
    // Read entries up to the directory's size in bytes. Compare their number with the stated count only afterwards,
    // because old programs cannot write a large count.
    let mut left = end.bytes;
    while left > 0 {
        let (entry, record_bytes) =
            read_entry(&mut records, files).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => damaged("an entry of the directory is truncated"),
                _ => error,
            })?;
        left = left
            .checked_sub(record_bytes)
            .ok_or_else(|| damaged("an entry of the directory is truncated"))?;
        n_records += 1;
        entries.push(entry);
    }

    // Programs without the 64-bit form write the number of entries modulo 65,536.
    let counted = if end.is_64 {
        n_records
    } else {
        n_records & 0xffff
    };
    if counted != end.entries {
        return Err(damaged(&format!(
            "the directory contains {n_records} entries, but its end record states {}",
            end.entries
        )));
    }

    separate_folders(&mut entries);
    check_boundaries(files, &entries, start)?;
    // Skip entries of folders, because they have no content.
    entries.retain(|entry| !entry.name.ends_with(b"/"));
    shift(&**files, &mut entries, prefix_bytes)?;
    Ok(entries)
}

/// Replaces `\` in all names of a zip without any `/`: a program on Windows has written it, whatever system it states.
fn separate_folders(entries: &mut [Entry]) {
    let has_slash = |entry: &Entry| entry.stored_name().contains(&b'/');
    if entries.iter().any(has_slash) {
        return;
    }
    for entry in entries {
        if entry.name.contains(&b'\\') {
            let stored_name = entry.name.clone();
            entry.header_name.get_or_insert(stored_name);
            names::replace_backslashes(&mut entry.name);
        }
    }
}

/// Checks that no file of a split zip is shorter or longer than when it was written: the last entry that begins before
/// the end of a file, whose data may continue in the next one, must end where the entry after it begins. Otherwise the
/// other entries would be a part of the zip that looks like the whole.
fn check_boundaries(files: &ZipFiles, entries: &[Entry], directory_start: u64) -> io::Result<()> {
    if files.boundaries().len() == 0 {
        return Ok(());
    }
    let mut places: Vec<(u64, u64)> = entries
        .iter()
        .map(|entry| (entry.header_start, entry.compressed_bytes))
        .collect();
    places.push((directory_start, 0));
    places.sort_unstable();

    for (n, boundary) in files.boundaries().enumerate() {
        let n_before = places.partition_point(|(start, _)| *start < boundary);
        let fits = match places.split_at(n_before) {
            ([.., (start, compressed_bytes)], [(next, _), ..]) => {
                let mut header = [0; LOCAL_HEADER_BYTES as usize];
                files.fill_at(&mut header, *start)?;
                let [name_bytes, extra_bytes] = [26, 28].map(|at| u64::from(u16_at(&header, at)));
                let data_start = start + LOCAL_HEADER_BYTES + name_bytes + extra_bytes;
                let end = data_start.saturating_add(*compressed_bytes);
                header.starts_with(LOCAL_HEADER_MAGIC)
                    && (end..=end.saturating_add(DESCRIPTOR_BYTES_MAX)).contains(next)
            }
            ([], _) => false,
            // The boundary is within the directory.
            (_, []) => true,
        };
        if !fits {
            let [one, other] = [n + 1, n + 2];
            let problem = format!("file {one} or {other} does not have the size that it had");
            return Err(damaged(&problem));
        }
    }
    Ok(())
}

/// Corrects the positions of all entries for data before the zip: adds the number of preceding bytes.
///
/// The number of preceding bytes is computed from two numbers of the end record. If it leads to none of the first
/// entries but the unshifted positions do, one of the two numbers is damaged, and shifting would lose every entry.
fn shift(file: &dyn BytesAt, entries: &mut [Entry], prefix_bytes: u64) -> io::Result<()> {
    if !leads_to_an_entry(file, entries, prefix_bytes)? && leads_to_an_entry(file, entries, 0)? {
        return Ok(());
    }
    for entry in entries {
        entry.header_start = entry.header_start.saturating_add(prefix_bytes);
    }
    Ok(())
}

/// Reports whether one of the first entries is at its stated position, if `prefix_bytes` bytes of other data precede
/// the zip.
fn leads_to_an_entry(file: &dyn BytesAt, entries: &[Entry], prefix_bytes: u64) -> io::Result<bool> {
    for entry in entries.iter().take(TRIED_ENTRIES) {
        let place = entry.header_start.saturating_add(prefix_bytes);
        if begins_with(file, place, LOCAL_HEADER_MAGIC)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reports whether there is a signature at a position, which may be past the end of the file.
fn begins_with(file: &dyn BytesAt, position: u64, magic: &[u8]) -> io::Result<bool> {
    let mut found = [0; 4];
    match file.fill_at(&mut found, position) {
        Ok(()) => Ok(found == *magic),
        Err(error) if is_of_machine(&error) => Err(error),
        Err(_) => Ok(false),
    }
}

/// Reports whether a file is a zip: it begins with a local header or with the end-of-directory record of an empty zip,
/// or it ends with an end-of-directory record, as the last file of a split zip does.
pub(super) fn is_zip(file: &dyn BytesAt, file_bytes: u64) -> io::Result<bool> {
    if begins_with(file, 0, LOCAL_HEADER_MAGIC)? || begins_with(file, 0, END_MAGIC)? {
        return Ok(true);
    }
    let end = read_end(file, file_bytes)?;
    Ok(end.is_some_and(|(position, record)| {
        position + END_BYTES + u64::from(u16_at(&record, 20)) == file_bytes
    }))
}

/// Returns the number of the file of a split zip that ends with an end-of-directory record, counted from 0. Returns 0
/// for an undivided zip, and `None` if there is no such record.
pub(super) fn file_number(file: &dyn BytesAt, file_bytes: u64) -> io::Result<Option<usize>> {
    let end = read_end(file, file_bytes)?;
    // The remainder is the number itself, and 0 for the placeholder.
    Ok(end.map(|(_, record)| usize::from(u16_at(&record, 4) % STORED_IN_END_64)))
}

/// Finds the end record of a zip: the last one whose comment ends exactly at the end of the file. If there is none,
/// data was appended to the file; then it is the last record whose comment fits. Returns its position and its bytes.
fn read_end(file: &dyn BytesAt, file_bytes: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    let tail_bytes = file_bytes.min(END_BYTES + COMMENT_BYTES_MAX);
    let tail_start = file_bytes - tail_bytes;
    let mut tail = vec![0; tail_bytes as usize];
    file.fill_at(&mut tail, tail_start)?;
    Ok(find_end_record(&tail).map(|at| (tail_start + at as u64, tail.split_off(at))))
}

/// Finds and parses the end record of a zip.
fn find_end(files: &ZipFiles) -> io::Result<End> {
    let end = read_end(files, files.bytes())?;
    let (position, record) = end.ok_or_else(|| damaged("no end record of a zip directory"))?;
    // The numbers of two files of a split archive: the last one, and the file in which the directory begins.
    let [last, first] = [4, 6].map(|at| u16_at(&record, at));
    if first > last {
        return Err(damaged("the directory begins in a file after the last one"));
    }

    let end = End {
        position,
        entries: u64::from(u16_at(&record, 10)),
        bytes: u64::from(u32_at(&record, 12)),
        offset: files.position(first.into(), u32_at(&record, 16).into()),
        is_64: false,
    };
    // The 64-bit end record takes precedence, because the short record may only refer to it.
    Ok(find_end_64(files, position)?.unwrap_or(end))
}

/// Returns the position of the end-of-directory record within the last bytes of the file.
fn find_end_record(tail: &[u8]) -> Option<usize> {
    let n_places = tail.len().saturating_sub(END_BYTES as usize - 1);
    let mut last_with_room = None;
    // Search backwards, because the content of entries may contain the signature as well.
    for at in (0..n_places).rev() {
        if !tail[at..].starts_with(END_MAGIC) {
            continue;
        }
        let behind_bytes = tail.len() - at - END_BYTES as usize;
        let comment_bytes = usize::from(u16_at(&tail[at..], 20));
        if comment_bytes == behind_bytes {
            return Some(at);
        }
        if comment_bytes < behind_bytes {
            last_with_room = last_with_room.or(Some(at));
        }
    }
    last_with_room
}

/// Finds the 64-bit end-of-directory record, if the zip has one.
fn find_end_64(file: &ZipFiles, end: u64) -> io::Result<Option<End>> {
    let Some(locator_at) = end.checked_sub(LOCATOR_BYTES) else {
        return Ok(None);
    };
    let mut locator = [0; LOCATOR_BYTES as usize];
    file.fill_at(&mut locator, locator_at)?;
    if !locator.starts_with(LOCATOR_MAGIC) {
        return Ok(None);
    }

    // If other data precede the zip, the position in the locator is too small. The 64-bit record is then directly
    // before the locator.
    let beside = locator_at.checked_sub(END_64_BYTES);
    let stated = file.position(u32_at(&locator, 4), u64_at(&locator, 8));
    for position in [Some(stated), beside].into_iter().flatten() {
        let mut record = [0; END_64_BYTES as usize];
        let is_inside = position
            .checked_add(END_64_BYTES)
            .is_some_and(|end| end <= locator_at);
        if !is_inside {
            continue;
        }

        file.fill_at(&mut record, position)?;
        if record.starts_with(END_64_MAGIC) {
            return Ok(Some(End {
                position,
                entries: u64_at(&record, 32),
                bytes: u64_at(&record, 40),
                offset: file.position(u32_at(&record, 20), u64_at(&record, 48)),
                is_64: true,
            }));
        }
    }
    Err(damaged(
        "the zip64 end record is not at the position stated by its locator",
    ))
}

/// Returns the position of the directory and the number of bytes before the beginning of the zip.
fn find_start(file: &dyn BytesAt, end: &End) -> io::Result<(u64, u64)> {
    // Usually the directory ends where the end record begins, but a digital signature may be in between.
    let before_end = end.position.checked_sub(end.bytes);
    for start in [before_end, Some(end.offset)].into_iter().flatten() {
        let Some(prefix_bytes) = start.checked_sub(end.offset) else {
            continue;
        };
        let is_inside = start
            .checked_add(end.bytes)
            .is_some_and(|after| after <= end.position);
        if !is_inside {
            continue;
        }

        let begins_with_entry = begins_with(file, start, ENTRY_MAGIC)?;
        // A zip without entries has no entry signature at the directory's position.
        if end.bytes == 0 || begins_with_entry {
            return Ok((start, prefix_bytes));
        }
    }
    Err(damaged("no directory at the position in the end record"))
}

/// Reads one entry of the directory and returns the entry and its length in bytes.
fn read_entry(records: &mut impl Read, files: &ZipFiles) -> io::Result<(Entry, u64)> {
    let mut head = [0; ENTRY_BYTES];
    records.read_exact(&mut head)?;
    if !head.starts_with(ENTRY_MAGIC) {
        return Err(damaged("no directory entry at the expected position"));
    }

    let [name_bytes, extra_bytes, comment_bytes] =
        [28, 30, 32].map(|at| usize::from(u16_at(&head, at)));
    // The lengths of name, extra field and comment have 16 bits, so this allocation is small even if they are wrong.
    let mut rest = vec![0; name_bytes + extra_bytes + comment_bytes];
    records.read_exact(&mut rest)?;
    let (name, behind_name) = rest.split_at(name_bytes);
    let extra = &behind_name[..extra_bytes];

    // The entry's uncompressed size, compressed size, and position.
    let mut wide = [24, 20, 42].map(|at| u64::from(u32_at(&head, at)));
    let mut shown_name = None;
    for (id, value) in extra_fields(extra) {
        match id {
            EXTRA_ZIP64 => fill_wide(&mut wide, value),
            EXTRA_UNICODE_NAME => shown_name = unicode_name(name, value),
            _ => {}
        }
    }

    // The system is the upper byte of the version, and bit 11 of the flags marks UTF-8.
    let is_utf8 = shown_name.is_some() || u16_at(&head, 8) & 1 << 11 != 0;
    let decoded = names::decode(shown_name.unwrap_or(name), head[5], is_utf8);

    let [bytes, compressed_bytes, offset] = wide;
    let entry = Entry {
        header_name: (*decoded != *name).then(|| name.into()),
        name: decoded,
        bytes,
        crc32: u32_at(&head, 16),
        // The lowest bit of the entry's flags means encrypted.
        encrypted: u16_at(&head, 8) & 1 == 1,
        method: u16_at(&head, 10),
        // The number of the file in which the entry begins.
        header_start: files.position(u16_at(&head, 34).into(), offset),
        compressed_bytes,
    };
    Ok((
        entry,
        (ENTRY_BYTES + name_bytes + extra_bytes + comment_bytes) as u64,
    ))
}

/// Returns the ids and values of a zip entry's extra fields. Stops at a truncated field.
fn extra_fields(mut extra: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        if extra.len() < 4 {
            return None;
        }
        let id = u16_at(extra, 0);
        let bytes = usize::from(u16_at(extra, 2));
        let value = extra.get(4..4 + bytes)?;
        extra = &extra[4 + bytes..];
        Some((id, value))
    })
}

/// Replaces the placeholders among an entry's uncompressed size, compressed size and position by the 64-bit numbers of
/// the extra field.
fn fill_wide(wide: &mut [u64; 3], value: &[u8]) {
    let mut given = value.chunks_exact(8);
    // The extra field contains only the numbers that do not fit into 32 bits, in this order (APPNOTE.TXT 4.5.3).
    for number in wide.iter_mut().filter(|number| **number == STORED_IN_EXTRA) {
        let Some(next) = given.next() else { return };
        *number = u64_at(next, 0);
    }
}

/// Returns the UTF-8 name in an extra field if that field was written for the current name of the entry.
fn unicode_name<'a>(name: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    // Version 1, followed by the CRC-32 of the original name. Compare the CRC: a program may have renamed the entry.
    let is_of_name = value.len() > 5 && value[0] == 1 && u32_at(value, 1) == crc32(name);
    is_of_name.then(|| &value[5..])
}

pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Reads a little-endian number of the zip format. The caller guarantees that `bytes` is long enough.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
