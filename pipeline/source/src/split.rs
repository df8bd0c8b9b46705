//! Zips in several files, which are read as one file.
//!
//! `zip -s` and WinZip write `a.z01`, `a.z02`, …, `a.zip`. The directory is at the end of `a.zip`, and states the file
//! and the position in it of every entry (APPNOTE.TXT, section 8). `7z -v` and `split` cut a zip into `a.zip.001`,
//! `a.zip.002`, …, and the positions are those in the whole zip.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::bytes_at::BytesAt;
use super::{SourceError, directory};

/// A file and its size in bytes.
pub(super) type SizedFile = (Arc<dyn BytesAt>, u64);

/// All files of a zip, usually only one, which are read as one.
#[derive(Debug)]
pub(super) struct ZipFiles {
    /// The files with their ranges in the whole zip.
    files: Vec<(Range<u64>, Arc<dyn BytesAt>)>,
    /// Whether positions in the directory are those in one of the files, and not in the whole zip.
    is_numbered: bool,
}

impl ZipFiles {
    /// Opens the other files of a zip, if it has any. `named` is the file at `path`: the last one of `zip -s`, or the
    /// first piece. `open` returns `None` if there is no file.
    ///
    /// # Errors
    /// [`SourceError::SplitZip`] if a file is missing, and the error of `open`.
    pub(super) fn find(
        path: &Path,
        named: SizedFile,
        open: impl Fn(&Path) -> Result<Option<SizedFile>, SourceError>,
    ) -> Result<Self, SourceError> {
        let number = directory::file_number(&*named.0, named.1);
        let number = number.map_err(SourceError::open_at(path))?;
        let mut zip = Self {
            files: Vec::new(),
            is_numbered: number.is_some_and(|number| number > 0),
        };

        for earlier in 1..=number.unwrap_or(0) {
            let earlier = numbered(path, earlier);
            let file = open(&earlier)?.ok_or_else(|| SourceError::SplitZip {
                path: path.to_owned(),
                problem: format!("{} is missing", earlier.display()),
            })?;
            zip.push(file);
        }
        zip.push(named);
        // The number of pieces is stated nowhere. The directory is at the end of the last one.
        while number.is_none()
            && is_piece(path)
            && let Some(piece) = open(&numbered(path, zip.files.len() + 1))?
        {
            zip.push(piece);
        }
        Ok(zip)
    }

    fn push(&mut self, (file, bytes): SizedFile) {
        let start = self.bytes();
        self.files.push((start..start + bytes, file));
    }

    /// Returns the size of the whole zip in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.files.last().map_or(0, |(range, _)| range.end)
    }

    /// Returns the positions at which a file ends and the next one begins.
    pub(super) fn boundaries(&self) -> impl ExactSizeIterator<Item = u64> {
        self.files.iter().skip(1).map(|(range, _)| range.start)
    }

    /// Returns the position in the whole zip of a position that the directory states, with the number of the file from
    /// 0. It is after the end if the file does not have so many bytes.
    pub(super) fn position(&self, file: u32, offset: u64) -> u64 {
        match self.files.get(file as usize) {
            _ if !self.is_numbered => offset,
            Some((range, _)) if offset < range.end - range.start => range.start + offset,
            _ => u64::MAX,
        }
    }

    /// Returns the file with the byte at a position, and its range.
    fn file_at(&self, position: u64) -> Option<&(Range<u64>, Arc<dyn BytesAt>)> {
        let n = self
            .files
            .partition_point(|(range, _)| range.end <= position);
        self.files.get(n)
    }
}

impl BytesAt for ZipFiles {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let Some((range, file)) = self.file_at(position) else {
            return Ok(0);
        };
        let left = usize::try_from(range.end - position).unwrap_or(usize::MAX);
        let n = buffer.len().min(left);
        file.read_at(&mut buffer[..n], position - range.start)
    }

    fn ahead(&self, wanted: Range<u64>) -> io::Result<Option<Bytes>> {
        // Another request reads what is in the next file: only one entry crosses the boundary of two files.
        let Some((range, file)) = self.file_at(wanted.start) else {
            return Ok(None);
        };
        let end = wanted.end.min(range.end);
        file.ahead(wanted.start - range.start..end - range.start)
    }

    fn is_remote(&self) -> bool {
        self.files.iter().any(|(_, file)| file.is_remote())
    }
}

/// Reports whether a path is that of the first piece of a zip that was cut.
pub(super) fn is_piece(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "001")
}

/// Returns the path of another file of the zip at `path`. The files are counted from 1.
fn numbered(path: &Path, number: usize) -> PathBuf {
    let extension = path.extension().unwrap_or_default().as_encoded_bytes();
    path.with_extension(match extension.first() {
        _ if is_piece(path) => format!("{number:03}"),
        Some(b'Z') => format!("Z{number:02}"),
        _ => format!("z{number:02}"),
    })
}

/// Returns the shell command that joins the files of a zip in their folder.
pub(super) fn join_command(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().display();
    let stem = path.file_stem().unwrap_or_default().display();
    match is_piece(path) {
        true => format!("cat '{stem}'.??? > '{stem}'"),
        false => format!("zip -s 0 '{name}' --out '{stem}-joined.zip'"),
    }
}
