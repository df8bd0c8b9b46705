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

/// Extension of the first piece of a zip that was cut.
const FIRST_PIECE: &str = "001";

/// A file and its size in bytes.
pub(super) type SizedFile = (Arc<dyn BytesAt>, u64);

/// All files of a zip.
#[derive(Debug)]
pub(super) struct ZipFiles {
    /// The bytes of all files, one after the other.
    pub whole: Arc<dyn BytesAt>,
    pub bytes: u64,
    /// Position of the first byte of each file.
    pub starts: Vec<u64>,
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

        let mut files = Vec::new();
        for earlier in 1..=number.unwrap_or(0) {
            let earlier = numbered(path, earlier);
            let file = open(&earlier)?.ok_or_else(|| SourceError::SplitZip {
                path: path.to_owned(),
                problem: format!("{} is missing", earlier.display()),
            })?;
            files.push(file);
        }
        files.push(named);
        // The number of pieces is stated nowhere. The directory is at the end of the last one.
        if number.is_none() && is_piece(path) {
            while let Some(piece) = open(&numbered(path, files.len() + 1))? {
                files.push(piece);
            }
        }
        let is_numbered = number.is_some() && files.len() > 1;
        Ok(Self::join(files, is_numbered))
    }

    fn join(mut files: Vec<SizedFile>, is_numbered: bool) -> Self {
        let mut starts = Vec::with_capacity(files.len());
        let mut bytes = 0;
        for (_, file_bytes) in &files {
            starts.push(bytes);
            bytes += file_bytes;
        }

        let whole = match files.pop() {
            Some((only, _)) if files.is_empty() => only,
            last => {
                files.extend(last);
                Arc::new(Joined {
                    files,
                    starts: starts.clone(),
                })
            }
        };
        Self {
            whole,
            bytes,
            starts,
            is_numbered,
        }
    }

    /// Returns the position in the whole zip of a position that the directory states, with the number of the file from
    /// 0. It is after the end if the file does not have so many bytes.
    pub(super) fn position(&self, file: u64, offset: u64) -> u64 {
        if !self.is_numbered {
            return offset;
        }
        let behind = usize::try_from(file)
            .ok()
            .and_then(|n| self.starts.get(n..));
        let (start, end) = match behind {
            Some([start, end, ..]) => (*start, *end),
            Some([start]) => (*start, self.bytes),
            _ => return u64::MAX,
        };
        let position = start.checked_add(offset).filter(|at| *at < end);
        position.unwrap_or(u64::MAX)
    }
}

/// Several files that are read as one.
#[derive(Debug)]
struct Joined {
    files: Vec<SizedFile>,
    starts: Vec<u64>,
}

impl Joined {
    /// Returns the file with the byte at a position, and the range of the file.
    fn file_at(&self, position: u64) -> Option<(&dyn BytesAt, Range<u64>)> {
        let n = self.starts.partition_point(|&start| start <= position);
        let (file, bytes) = self.files.get(n.checked_sub(1)?)?;
        let start = self.starts[n - 1];
        let range = start..start + bytes;
        range.contains(&position).then_some((&**file, range))
    }
}

impl BytesAt for Joined {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let Some((file, range)) = self.file_at(position) else {
            return Ok(0);
        };
        let left = usize::try_from(range.end - position).unwrap_or(usize::MAX);
        let n = buffer.len().min(left);
        file.read_at(&mut buffer[..n], position - range.start)
    }

    fn ahead(&self, range: Range<u64>) -> io::Result<Option<Bytes>> {
        // Another request reads what is in the next file: only one entry crosses the boundary of two files.
        match self.file_at(range.start) {
            Some((file, of_file)) => {
                let end = range.end.min(of_file.end);
                file.ahead(range.start - of_file.start..end - of_file.start)
            }
            None => Ok(None),
        }
    }

    fn is_remote(&self) -> bool {
        self.files.iter().any(|(file, _)| file.is_remote())
    }
}

/// Reports whether a path is that of the first piece of a zip that was cut.
pub(super) fn is_piece(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == FIRST_PIECE)
}

/// Reports whether a path is that of the last file of a split zip, whose end may be missing.
pub(super) fn is_last_file(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    extension.eq_ignore_ascii_case("zip") && numbered(path, 1).is_file()
}

/// Returns the path of another file of the zip at `path`. The files are counted from 1.
fn numbered(path: &Path, number: usize) -> PathBuf {
    let is_upper_case = |path: &Path| {
        let extension = path.extension().unwrap_or_default();
        extension.as_encoded_bytes().starts_with(b"Z")
    };
    let extension = match number {
        _ if is_piece(path) => format!("{number:03}"),
        _ if is_upper_case(path) => format!("Z{number:02}"),
        _ => format!("z{number:02}"),
    };
    path.with_extension(extension)
}

/// Returns the path to give instead of that of another file of a zip, or `None` if the name is not that of such a file.
pub(super) fn path_to_give(path: &Path) -> Option<PathBuf> {
    let extension = path.extension()?.to_str()?;
    let (letter, digits) = match extension.strip_prefix(['z', 'Z']) {
        Some(digits) => (&extension[..1], digits),
        None => ("", extension),
    };
    let is_number = digits.len() >= 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
    match letter {
        _ if !is_number || is_piece(path) => None,
        "z" => Some(path.with_extension("zip")),
        "Z" => Some(path.with_extension("ZIP")),
        _ => (digits.len() == 3).then(|| path.with_extension(FIRST_PIECE)),
    }
}

/// Returns the shell command that joins the files of a zip.
pub(super) fn join_command(path: &Path) -> String {
    let stem = path.with_extension("");
    let stem = stem.display();
    if is_piece(path) {
        return format!("cat '{stem}'.??? > '{stem}'");
    }
    format!("zip -s 0 '{}' --out '{stem}-joined.zip'", path.display())
}
