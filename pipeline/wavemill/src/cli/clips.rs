//! Finds the clips that a user names: files, folders, and lists of both.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use wavemill_schemas::run::RunDir;
use wavemill_source::Media;
use wavemill_terminal::exit::UsageError;

/// Arguments that select clips.
#[derive(Clone, Debug, Args)]
pub struct ClipArgs {
    /// Audio files; folders, including subfolders; @FILE is the same as --list FILE
    #[arg(required_unless_present = "lists", value_name = "CLIP|DIR|@FILE")]
    pub clips: Vec<PathBuf>,
    /// List of files and folders, one per line (or separated by zero bytes), relative to the current folder; `-` is
    /// standard input
    #[arg(long = "list", value_name = "FILE")]
    pub lists: Vec<PathBuf>,
}

/// The clips that the arguments select.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ClipList {
    /// Clips in the order of the arguments; those of a folder are sorted by path.
    pub clips: Vec<PathBuf>,
    /// Paths below a folder that cannot be read, each with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
}

impl ClipArgs {
    /// Finds all clips that the arguments name.
    ///
    /// # Errors
    /// [`UsageError`] for `-`, a list that cannot be read, a folder without a clip, an empty list, or clips
    /// none of which exists.
    pub fn find(&self) -> Result<ClipList> {
        let mut found = ClipList::default();
        for clip in &self.clips {
            // The path is compared as bytes, since it need not be valid UTF-8. Within a list file, `@` has no meaning:
            // it begins a file name.
            match clip.as_os_str().as_bytes() {
                b"-" => {
                    let message = "-: audio is not read from standard input: give a file, or a list of files with --list -";
                    return Err(UsageError(message.to_owned()).into());
                }
                [b'@', list @ ..] => found.list(Path::new(OsStr::from_bytes(list)))?,
                _ => found.add(clip.clone())?,
            }
        }
        for list in &self.lists {
            found.list(list)?;
        }
        if found.clips.is_empty() && found.unreadable.is_empty() {
            return Err(UsageError("no clips: the list is empty".to_owned()).into());
        }
        // A mistyped name: otherwise a clip that does not exist is reported when it is read, and the others are used.
        let is_missing = |clip: &PathBuf| clip.try_exists().is_ok_and(|exists| !exists);
        if self.lists.is_empty()
            && found.unreadable.is_empty()
            && found.clips.iter().all(is_missing)
        {
            let message = format!(
                "{}: there is no such file; give audio files, or folders that contain some",
                found.clips[0].display()
            );
            return Err(UsageError(message).into());
        }
        Ok(found)
    }
}

impl ClipList {
    /// Adds a file, or the clips below a folder. A file that does not exist is added as well and is reported when it is
    /// read.
    fn add(&mut self, path: PathBuf) -> Result<()> {
        if !path.is_dir() {
            self.clips.push(path);
            return Ok(());
        }
        // Unreadable paths are counted, too: they are reported later, and the folder is not empty.
        let before = self.clips.len() + self.unreadable.len();
        self.folder(&path);

        if self.clips.len() + self.unreadable.len() == before {
            let problem = match RunDir::open(&path) {
                Ok(_) => "the folder is a run, not audio: `wavemill predict` takes runs as --run"
                    .to_owned(),
                Err(_) => format!(
                    "the folder contains no clips ({}): give another one, or files",
                    Media::Audio.extensions().join(", ")
                ),
            };
            return Err(UsageError(format!("{}: {problem}", path.display())).into());
        }
        Ok(())
    }

    fn list(&mut self, list: &Path) -> Result<()> {
        let read = if list == Path::new("-") {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
        } else {
            fs::read(list)
        };
        let bytes = read.map_err(|error| {
            UsageError(format!(
                "--list {}: cannot read it: {error}",
                list.display()
            ))
        })?;

        for path in paths(&bytes) {
            self.add(path)?;
        }
        Ok(())
    }

    /// Adds all clips below `folder`, sorted by path. Links to folders are not followed, because one could lead back to
    /// its own folder.
    fn folder(&mut self, folder: &Path) {
        let entries = match fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) => {
                self.unreadable.push((
                    folder.to_owned(),
                    format!("cannot read the folder: {error}"),
                ));
                return;
            }
        };
        // The entries are sorted, because a file system lists them in any order.
        let mut below: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
        below.sort();

        for path in below {
            let name = path.file_name().unwrap_or_default();
            // Skips hidden folders such as `.git`, and the copies that editors and macOS leave (like
            // `Media::is_clip_name`).
            if name.as_bytes().starts_with(b".") {
                continue;
            }
            // The metadata is that of a link itself: its target is examined only if the link has the name of a clip.
            let is_folder = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata.is_dir(),
                Err(error) => {
                    let message = format!("cannot read its metadata: {error}");
                    self.unreadable.push((path, message));
                    continue;
                }
            };
            if is_folder {
                self.folder(&path);
            } else if Media::Audio.is_clip_name(name) {
                match fs::metadata(&path) {
                    // Opening a pipe would block until another process writes to it.
                    Ok(metadata) if !metadata.is_file() => {
                        self.unreadable
                            .push((path, "cannot read it: not a regular file".to_owned()));
                    }
                    _ => self.clips.push(path),
                }
            }
        }
    }
}

/// Parses the paths of a list. Empty lines are skipped, and lines may end in CRLF.
fn paths(bytes: &[u8]) -> Vec<PathBuf> {
    // In the format of `find -print0`, a line break is part of a file name.
    let by_zero = bytes.contains(&0);
    let separator = if by_zero { 0 } else { b'\n' };

    let mut paths = Vec::new();
    for part in bytes.split(|&byte| byte == separator) {
        let name = match part.strip_suffix(b"\r") {
            Some(line) if !by_zero => line,
            _ => part,
        };
        if !name.is_empty() {
            paths.push(PathBuf::from(OsString::from_vec(name.to_vec())));
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn find(clips: &[&Path], lists: &[&Path]) -> Result<ClipList> {
        ClipArgs {
            clips: clips.iter().map(|path| path.to_path_buf()).collect(),
            lists: lists.iter().map(|path| path.to_path_buf()).collect(),
        }
        .find()
    }

    #[test]
    fn folders_give_their_clips_by_path_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in [
            "b/2.mp3",
            "b/10.MP3",
            "a/x.flac",
            "a/notes.txt",
            "a/.x.mp3",
            ".git/y.mp3",
            "z.wav",
        ] {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), "").unwrap();
        }
        symlink(folder.path(), root.join("a/round")).unwrap();
        symlink("nowhere", root.join("b/broken.ogg")).unwrap();
        fs::create_dir(root.join("empty")).unwrap();

        let found = find(&[folder.path()], &[]).unwrap();
        let wanted = ["a/x.flac", "b/10.MP3", "b/2.mp3", "b/broken.ogg", "z.wav"]
            .map(|name| root.join(name));
        assert_eq!(
            (found.clips.as_slice(), found.unreadable.len()),
            (wanted.as_slice(), 0)
        );
        let error = find(&[&root.join("z.wav"), &root.join("empty")], &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("empty: the folder contains no clips"),
            "{error}"
        );
    }

    #[test]
    fn a_list_names_files_and_folders_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/1.mp3"), "").unwrap();
        let lines = format!(
            "{}\r\n\n{}\n@x.mp3",
            root.join("missing.mp3").display(),
            root.join("d").display()
        );
        fs::write(root.join("list.txt"), lines).unwrap();

        let wanted = [
            root.join("missing.mp3"),
            root.join("d/1.mp3"),
            PathBuf::from("@x.mp3"),
        ];
        assert_eq!(find(&[], &[&root.join("list.txt")]).unwrap().clips, wanted);

        let typed = PathBuf::from(format!("@{}", root.join("list.txt").display()));
        assert_eq!(
            find(&[Path::new("first.mp3"), &typed], &[]).unwrap().clips[1..],
            wanted
        );

        fs::write(root.join("zeros"), b"a\nb.mp3\0c.mp3\0").unwrap();
        assert_eq!(
            find(&[], &[&root.join("zeros")]).unwrap().clips,
            ["a\nb.mp3", "c.mp3"].map(PathBuf::from)
        );
        fs::write(root.join("none.txt"), "\n\n").unwrap();
        assert!(
            find(&[], &[&root.join("none.txt")])
                .unwrap_err()
                .to_string()
                .contains("the list is empty")
        );
        let error = find(&[], &[&root.join("nosuch.txt")])
            .unwrap_err()
            .to_string();
        assert!(error.contains("nosuch.txt: cannot read it"), "{error}");
    }

    #[test]
    fn pipes_among_the_clips_are_rejected_without_blocking() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe.mp3");

        assert!(
            std::process::Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );

        let found = find(&[folder.path()], &[]).unwrap();
        assert_eq!(
            found.unreadable,
            [(pipe, "cannot read it: not a regular file".to_owned())]
        );
    }
}
