//! Writes output files that get their final name only when complete, and that never replace foreign files by mistake.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use wavemill_schemas::durable::{folder_of, if_there, settle_folder};
use wavemill_schemas::exit::{Kind, PlainError, of_machine};

use crate::exit::UsageError;
use crate::interrupt::PartialFile;

/// Number of bytes at the start of a file that are enough to recognize a file written by wavemill.
const HEAD_BYTES: u64 = 4096;

/// Maximum number of attempts to open and lock a temporary file or folder that other processes finish or remove
/// meanwhile.
pub const OPENINGS_MAX: usize = 10;

/// Writes `path`, the value of the option `flag`, under a temporary name first: a command that fails leaves no partial
/// file and does not change an existing one. A link remains a link; pipes and devices are written directly.
///
/// `write` must flush the writer: a buffer that is only dropped hides the error of a full disk.
///
/// # Errors
/// [`UsageError`] if `path` cannot be a file, for example because it is a folder; [`Kind::Busy`] if another process is
/// writing it; an I/O error; an error of `write`.
pub fn write_file<T>(
    flag: &str,
    path: &Path,
    write: impl FnOnce(BufWriter<File>) -> Result<T>,
) -> Result<T> {
    let (target, part) = part_of(path);
    match fs::metadata(&target) {
        Ok(found) if found.is_dir() => {
            let message = format!("{flag} {}: is a folder, not a file", path.display());
            return Err(UsageError(message).into());
        }
        // A pipe or a device cannot be replaced by a rename, so it is written directly.
        Ok(found) if !found.is_file() => {
            let device = File::options().write(true).open(&target);
            let device = device.map_err(|error| cannot_write(flag, path, error))?;
            return write(BufWriter::new(device));
        }
        _ => {}
    }

    // If the command is killed, its partial file remains, and the next command overwrites that file. `own` keeps the
    // lock until the file has its final name.
    let created = create_part(&part).and_then(|own| Ok((own.try_clone()?, own)));
    let (file, own) = created.map_err(|error| cannot_write(flag, path, error))?;
    let _removed = PartialFile::at(&part);
    let written = write(BufWriter::new(file)).and_then(|value| {
        // Without the sync, a power failure could leave an empty file in place of the one that the rename replaced.
        own.sync_all()
            .and_then(|()| require_own(&own, &part))
            .and_then(|()| fs::rename(&part, &target))
            .and_then(|()| settle_folder(folder_of(&target)))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(value)
    });

    if written.is_err() && require_own(&own, &part).is_ok() {
        // The partial file is useless after an error. The first error is reported instead of an error of this removal.
        let _ = fs::remove_file(&part);
    }
    written
}

/// Creates or empties the temporary file `part` and locks it.
fn create_part(part: &Path) -> io::Result<File> {
    for _ in 0..OPENINGS_MAX {
        // Truncated only after it was locked: another process may be writing the file.
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(part)?;
        if lock_part(&file, part)? {
            file.set_len(0)?;
            return Ok(file);
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// Locks the temporary file or folder that was opened at `part`, until it is closed. Returns false if another process
/// renamed or removed it before it was locked: then it must be opened again.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if another process has locked it; an I/O error if `part` cannot be inspected.
pub fn lock_part(opened: &File, part: &Path) -> io::Result<bool> {
    // Continue without a lock if the file system does not support locks.
    if let Err(TryLockError::WouldBlock) = opened.try_lock() {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    is_at(opened, part)
}

/// Checks that an opened temporary file or folder is still the one at `part`: a lock does not keep out every process.
///
/// # Errors
/// An I/O error if it is not, or if `part` cannot be inspected.
pub fn require_own(opened: &File, part: &Path) -> io::Result<()> {
    if is_at(opened, part)? {
        return Ok(());
    }
    Err(io::Error::other(
        "another process has removed or replaced its temporary file: try again",
    ))
}

/// Reports whether `opened` is the file or folder at `path`.
fn is_at(opened: &File, path: &Path) -> io::Result<bool> {
    let own = opened.metadata()?;
    let found = if_there(fs::metadata(path))?;
    Ok(found.is_some_and(|found| (found.dev(), found.ino()) == (own.dev(), own.ino())))
}

/// Writes `text` to a file in the same way as [`write_file`].
///
/// # Errors
/// [`UsageError`] if `path` cannot be a file; an I/O error if the text cannot be written.
pub fn write_text(flag: &str, path: &Path, text: &str) -> Result<()> {
    write_file(flag, path, |mut file| {
        file.write_all(text.as_bytes())
            .and_then(|()| file.flush())
            .with_context(|| format!("{flag} {}: cannot write it", path.display()))
    })
}

/// Returns the path of an output file, after following links, and the path of its temporary file in the same folder.
pub fn part_of(path: &Path) -> (PathBuf, PathBuf) {
    // A link to a file that does not exist yet cannot be canonicalized, but its target can be read.
    let target = fs::canonicalize(path)
        .or_else(|_| fs::read_link(path).map(|link| path.with_file_name(link)))
        .unwrap_or_else(|_| path.to_owned());

    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let part = target.with_file_name(format!(".{name}.part"));
    (target, part)
}

/// Returns the error for an output path that cannot be written: a path that cannot be a file is a usage error; a full
/// or read-only disk, and a temporary file that another process has locked, are not.
pub fn cannot_write(flag: &str, path: &Path, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        let message = format!(
            "{flag} {}: another process is writing it: try again when it has ended",
            path.display()
        );
        return PlainError::new(Kind::Busy, message).into();
    }
    let message = format!("{flag} {}: cannot write it", path.display());
    if of_machine(&error).is_some() {
        Error::new(error).context(message)
    } else {
        UsageError(format!("{message}: {error}")).into()
    }
}

/// Rejects an output path if it contains a file that wavemill did not write as a `what`, for example as a `page`.
///
/// # Errors
/// [`UsageError`] if the existing file must not be replaced or cannot be opened; an I/O error if it cannot be read.
pub fn require_replaceable(
    flag: &str,
    path: &Path,
    what: &str,
    is_ours: fn(&[u8]) -> bool,
) -> Result<()> {
    match fs::metadata(path) {
        // A missing file is accepted here; `write_file` reports an error if no file can be created at the path.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot_write(flag, path, error)),
        // Pipes and devices are written directly, and `write_file` reports an error for a folder. Opening a pipe for
        // reading would block.
        Ok(found) if !found.is_file() => return Ok(()),
        Ok(_) => {}
    }

    let file = File::open(path).map_err(|error| cannot_write(flag, path, error))?;
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head)?;
    if head.is_empty() || is_ours(&head) {
        return Ok(());
    }
    Err(UsageError(format!(
        "{flag} {}: a file that is not a {what} of wavemill: choose another name, or remove it",
        path.display()
    ))
    .into())
}

#[cfg(test)]
mod tests {
    use wavemill_schemas::text::error_line;

    use super::*;
    use crate::exit;

    #[test]
    fn links_are_kept_and_foreign_part_files_untouched() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        let foreign = folder.path().join("link.part");
        fs::write(&real, "old").unwrap();
        fs::write(&foreign, "mine").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();

        write_text("--out", &link, "new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        assert_eq!(fs::read_to_string(&foreign).unwrap(), "mine");

        let early = folder.path().join("early");
        std::os::unix::fs::symlink("not yet", &early).unwrap();
        write_text("--out", &early, "first").unwrap();
        let target = folder.path().join("not yet");
        assert_eq!(fs::read_to_string(target).unwrap(), "first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5);
    }

    #[test]
    fn output_to_a_pipe_does_not_replace_it() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );

        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read_to_string(pipe).unwrap()
        });

        write_text("--out", &pipe, "through").unwrap();
        assert_eq!(reader.join().unwrap(), "through");
        assert!(!fs::metadata(&pipe).unwrap().is_file());
    }

    #[test]
    fn an_output_has_one_writer_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let (path, part) = (folder.path().join("out"), folder.path().join(".out.part"));

        write_file("--out", &path, |mut file| {
            let error = write_text("--out", &path, "other").expect_err("it is being written");
            assert_eq!(exit::kind(&error, &[]), Kind::Busy, "{error}");
            assert!(error.to_string().contains("try again"), "{error}");
            file.write_all(b"own").and_then(|()| file.flush())?;
            Ok(())
        })
        .unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "own");

        fs::write(&part, "what a killed command leaves").unwrap();
        write_text("--out", &path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");

        let opened = File::create(&part).unwrap();
        assert!(lock_part(&opened, &part).unwrap());
        fs::rename(&part, &path).unwrap();
        for other in [false, true] {
            if other {
                fs::write(&part, "").unwrap();
            }
            assert!(!lock_part(&opened, &part).unwrap());
            require_own(&opened, &part).expect_err("not the same file");
        }
    }

    #[test]
    fn an_output_that_lost_its_part_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (path, part) = (folder.path().join("out"), folder.path().join(".out.part"));
        write_file("--out", &path, |_| {
            fs::remove_file(&part)?;
            fs::write(&part, "half of another")?;
            Ok(())
        })
        .expect_err("another file is there");
        assert!(!path.exists());
        assert_eq!(fs::read_to_string(&part).unwrap(), "half of another");
    }

    #[test]
    fn invalid_output_path_is_a_usage_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "old").expect("a file");

        for path in [
            folder.path().to_owned(),
            folder.path().join("no/x.csv"),
            file.join("x.csv"),
        ] {
            let error = write_file("--out", &path, |_| Ok(())).expect_err("no place for a file");
            assert_eq!(exit::kind(&error, &[]), Kind::Usage, "{error}");

            let message = error_line(error.as_ref());
            assert!(
                message.starts_with(&format!("--out {}: ", path.display()))
                    && !message.contains(".part"),
                "{message}"
            );
        }

        let full = cannot_write("--out", &file, io::ErrorKind::StorageFull.into());
        assert_eq!(exit::kind(&full, &[]), Kind::NoSpace);

        write_file("--out", &file, |_| -> Result<()> { anyhow::bail!("no") })
            .expect_err("what writes it fails");
        assert_eq!(fs::read_to_string(&file).expect("the old file"), "old");
    }

    #[test]
    fn only_generated_files_are_replaced() {
        fn is_ours(head: &[u8]) -> bool {
            head == b"ours"
        }

        let folder = tempfile::tempdir().unwrap();
        for (name, text, is_refused) in [
            ("page.html", Some("ours"), false),
            ("empty.html", Some(""), false),
            ("new.html", None, false),
            ("mine.html", Some("<!DOCTYPE html>"), true),
        ] {
            let path = folder.path().join(name);
            if let Some(text) = text {
                fs::write(&path, text).unwrap();
            }
            let checked = require_replaceable("--out", &path, "page", is_ours);
            let message = checked.err().map(|error| error.to_string());
            let refusal = format!(
                "--out {}: a file that is not a page of wavemill: choose another name, or remove it",
                path.display()
            );
            assert_eq!(message, is_refused.then_some(refusal));
        }
    }
}
