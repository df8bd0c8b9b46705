//! Access to metadata files by name, in a folder, in a zip, or as a single file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::Crc;
use wavemill_reader::remote::Object;
use wavemill_schemas::durable::if_there;
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::local_path::scheme;

use super::SourceError;
use super::archive::{Archive, Entry};
pub use super::content::CONTENT_BYTES_MAX;
use super::content::{copy_of, name_without_compression, path_of, readable, too_large};

/// Size in bytes of the block that is held in memory while a file's CRC is computed.
const CRC_BLOCK_BYTES: usize = 1 << 20;

/// The metadata files of a folder or zip, or a single metadata file.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    place: Container,
    /// Copy of a single file at an address.
    _copy: Option<File>,
}

#[derive(Debug)]
enum Container {
    /// The paths of a folder's metadata files, by file name without the extension of a compression.
    Folder(BTreeMap<String, PathBuf>),
    /// A zip and the numbers of its entries, by file name. If several entries have the same name, none of them is used.
    Zip(Archive, BTreeMap<String, Vec<usize>>),
}

impl Files {
    /// Opens a folder (the files in it, not those of its subfolders), a zip (all entries, without a leading folder that
    /// all names share), or any other file that is not named .zip (as a single metadata file under its own name).
    /// `path` may be the address of a zip or a file, or a pipe. Files compressed with gzip, zstd or bzip2 are read
    /// decompressed, under their name without the extension of the compression.
    ///
    /// # Errors
    /// [`SourceError`] if the path cannot be read or is a damaged zip.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        if scheme(path.as_os_str()).is_some() {
            return Self::open_object(path);
        }
        let content = readable(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => PlainError::usage(format!(
                "{}: there is no such file or folder; give --metadata a table such as tracks.csv, or its folder or zip",
                path.display()
            ))
            .into(),
            _ => SourceError::open_at(path)(error),
        })?;
        let found = std::fs::metadata(&content).map_err(SourceError::open_at(path))?;
        let place = if found.is_dir() {
            Container::Folder(folder_names(path)?)
        } else if super::is_zip(&content)? {
            let archive = Archive::open(&content)?;
            let names = entry_names(&archive);
            Container::Zip(archive, names)
        } else {
            if path.extension().is_some_and(|ending| ending == "zip") {
                let problem = format!("{}: not a zip: download or copy it again", path.display());
                return Err(PlainError::usage(problem).into());
            }
            // A single file is treated like a folder with only this file.
            let is_pipe = !std::fs::metadata(path).is_ok_and(|found| found.is_file());
            let name = match path.file_name() {
                // The name of a pipe says nothing about its content.
                _ if is_pipe && super::is_parquet(&content)? => "table.parquet".to_owned(),
                _ if is_pipe => "tracks.csv".to_owned(),
                name => name.unwrap_or_default().to_string_lossy().into_owned(),
            };
            let name = name_without_compression(&name).to_owned();
            Container::Folder(BTreeMap::from([(name, content)]))
        };

        Ok(Self {
            path: path.to_owned(),
            place,
            _copy: None,
        })
    }

    /// Opens a zip by its address, or copies a single file.
    fn open_object(path: &Path) -> Result<Self, SourceError> {
        let object = Object::find(&path.to_string_lossy())?;
        let object = object.ok_or_else(|| {
            let problem = "no such object; give a zip of the metadata, or a single file";
            SourceError::open_at(path)(io::Error::new(io::ErrorKind::NotFound, problem))
        })?;

        let mut copy = None;
        let place = if super::is_zip_object(path, &object)? {
            let archive = Archive::open_object(path, object)?;
            let names = entry_names(&archive);
            Container::Zip(archive, names)
        } else {
            let name = name_without_compression(object.name()).to_owned();
            let content = object.read_all().map_err(SourceError::open_at(path))?;
            let content = copy_of(io::Cursor::new(content)).map_err(SourceError::open_at(path))?;
            let files = BTreeMap::from([(name, path_of(&content))]);
            copy = Some(content);
            Container::Folder(files)
        };
        Ok(Self {
            path: path.to_owned(),
            place,
            _copy: copy,
        })
    }

    /// Returns the names of all metadata files, sorted and `/`-separated, such as `tracks.csv`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names: Box<dyn Iterator<Item = &String> + '_> = match &self.place {
            Container::Folder(files) => Box::new(files.keys()),
            Container::Zip(_, entries) => Box::new(entries.keys()),
        };
        names.map(String::as_str)
    }

    /// Returns the size in bytes of one of [`Files::names`] according to the file system or the zip's directory.
    ///
    /// # Errors
    /// [`SourceError::NoSuchFile`], or the error of the file system.
    pub fn bytes(&self, name: &str) -> Result<u64, SourceError> {
        match &self.place {
            Container::Folder(files) => {
                let path = self.content(files, name)?;
                let metadata = std::fs::metadata(&path).map_err(SourceError::open_at(&path))?;
                Ok(metadata.len())
            }
            Container::Zip(archive, names) => {
                let entries = names.get(name).ok_or_else(|| self.absent(name))?;
                let (_, bytes) = in_directory(archive, entries);
                Ok(bytes)
            }
        }
    }

    fn absent(&self, name: &str) -> SourceError {
        SourceError::NoSuchFile {
            path: self.path.clone(),
            name: name.to_owned(),
        }
    }

    /// Returns a path at which the content of one of [`Files::names`] can be read, or `None` if the metadata files are
    /// in a zip.
    ///
    /// # Errors
    /// [`SourceError::NoSuchFile`], or the error that occurred while decompressing the file.
    pub fn path(&self, name: &str) -> Result<Option<PathBuf>, SourceError> {
        match &self.place {
            Container::Folder(files) => self.content(files, name).map(Some),
            Container::Zip(..) => Ok(None),
        }
    }

    /// Returns the path of one of [`Files::names`] that is a file of its own: not in a zip, not compressed, and no
    /// pipe.
    pub fn plain_path(&self, name: &str) -> Option<&Path> {
        let Container::Folder(files) = &self.place else {
            return None;
        };
        // The contents of other files are in copies, or have an extension that is not part of their names.
        let path = files.get(name)?;
        (path.file_name()? == name).then_some(path)
    }

    /// Returns a path at which the content of a folder's file can be read.
    fn content(
        &self,
        files: &BTreeMap<String, PathBuf>,
        name: &str,
    ) -> Result<PathBuf, SourceError> {
        let path = files.get(name).ok_or_else(|| self.absent(name))?;
        readable(path).map_err(SourceError::open_at(path))
    }

    /// Returns the CRC-32 and the size in bytes of the content of one of [`Files::names`], to detect changes. A file in
    /// a folder and the same file in a zip have equal values. For a zip both are read from its directory.
    ///
    /// # Errors
    /// [`SourceError::NoSuchFile`], or the error that occurred while reading the file.
    pub fn fingerprint(&self, name: &str) -> Result<(u32, u64), SourceError> {
        if let Container::Zip(archive, names) = &self.place
            && let Some(entries) = names.get(name)
        {
            return Ok(in_directory(archive, entries));
        }

        // Folders and single files store no checksums, so compute the CRC-32 by reading the file.
        let mut file = self.read(name)?;
        let mut crc = Crc::new();
        let mut bytes = 0;
        let mut block = vec![0; CRC_BLOCK_BYTES];
        loop {
            match file.read(&mut block) {
                Ok(0) => return Ok((crc.sum(), bytes)),
                Ok(got) => {
                    crc.update(&block[..got]);
                    bytes += got as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SourceError::open_at(&self.path.join(name))(error)),
            }
        }
    }

    /// Opens one of [`Files::names`] for unbuffered reading. A damaged zip entry fails with `InvalidData` while it is
    /// read, at the latest at its end.
    ///
    /// # Errors
    /// [`SourceError::NoSuchFile`], [`SourceError::Duplicates`], [`SourceError::EncryptedFile`], or the error that
    /// occurred while opening the file; `FileTooLarge` if a zip entry has more than [`CONTENT_BYTES_MAX`].
    pub fn read(&self, name: &str) -> Result<Box<dyn Read + Send>, SourceError> {
        match &self.place {
            Container::Folder(files) => {
                let path = self.content(files, name)?;
                let file = File::open(&path).map_err(SourceError::open_at(&path))?;
                Ok(Box::new(file))
            }
            Container::Zip(archive, names) => {
                let entries = names.get(name).ok_or_else(|| self.absent(name))?;
                let entry = self.only_entry(archive, name, entries)?;

                // The reader of an entry fails if its content is longer than announced.
                let content = if entry.bytes > CONTENT_BYTES_MAX {
                    Err(too_large(CONTENT_BYTES_MAX))
                } else {
                    archive.stream(entry)
                };
                let content = content.map_err(SourceError::open_at(&self.path.join(name)))?;
                Ok(Box::new(content))
            }
        }
    }

    /// Returns the zip entry with this name if it is the only one and not encrypted.
    fn only_entry<'a>(
        &self,
        archive: &'a Archive,
        name: &str,
        entries: &[usize],
    ) -> Result<&'a Entry, SourceError> {
        let &[position] = entries else {
            return Err(SourceError::Duplicates {
                path: self.path.clone(),
                name: name.to_owned(),
                n: entries.len(),
            });
        };

        let entry = &archive.entries[position];
        if entry.encrypted {
            return Err(SourceError::EncryptedFile {
                path: self.path.clone(),
                name: name.to_owned(),
            });
        }
        Ok(entry)
    }
}

fn folder_names(folder: &Path) -> Result<BTreeMap<String, PathBuf>, SourceError> {
    let mut paths = Vec::new();
    for entry in folder.read_dir().map_err(SourceError::open_at(folder))? {
        paths.push(entry.map_err(SourceError::open_at(folder))?.path());
    }
    // If a file has several compressed forms, the first by name is read.
    paths.sort();

    let mut names = BTreeMap::new();
    for path in paths {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if is_regular_file(&path)? {
            let plain = name_without_compression(name);
            // If a folder has both forms of a file, the one that is not compressed is read.
            if plain == name || !names.contains_key(plain) {
                names.insert(plain.to_owned(), path);
            }
        }
    }
    Ok(names)
}

/// Reports whether a path is a regular file. Returns false for a link without an existing target. A link that cannot be
/// followed is an error, because otherwise its metadata would be missing silently.
fn is_regular_file(path: &Path) -> Result<bool, SourceError> {
    let found = if_there(std::fs::metadata(path)).map_err(SourceError::open_at(path))?;
    Ok(found.is_some_and(|found| found.is_file()))
}

/// Returns the CRC-32 and size of a zip entry. If several entries have the same name, none of them is read: returns the
/// CRC-32 of their checksums, and the number of entries.
fn in_directory(archive: &Archive, entries: &[usize]) -> (u32, u64) {
    let bytes = match *entries {
        [entry] => archive.entries[entry].bytes,
        _ => entries.len() as u64,
    };
    (archive.crc32(entries), bytes)
}

/// Returns the files of a zip, without the leading folder that all names share and without the entries that macOS
/// adds.
fn entry_names(archive: &Archive) -> BTreeMap<String, Vec<usize>> {
    let mut names = Vec::new();
    for (position, entry) in archive.entries.iter().enumerate() {
        let name = plain_name(&entry.name);
        if !name.starts_with("__MACOSX/") && !name.is_empty() {
            names.push((position, name));
        }
    }
    let Some((_, first)) = names.first() else {
        return BTreeMap::new();
    };

    // Remove the leading folder that all names share, so that a zip of a folder has the same names as the folder.
    let leading = first
        .split_once('/')
        .map_or(0, |(folder, _)| folder.len() + 1);
    let shared = names
        .iter()
        .all(|(_, name)| name.get(..leading) == first.get(..leading));
    let strip = if shared { leading } else { 0 };

    let mut positions: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (position, name) in &names {
        positions
            .entry(name[strip..].to_owned())
            .or_default()
            .push(*position);
    }
    positions
}

/// Normalizes the name of a zip entry: `./a//b.csv` becomes `a/b.csv`.
fn plain_name(raw: &[u8]) -> String {
    let name = String::from_utf8_lossy(raw);
    let parts: Vec<&str> = name
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use zip::write::SimpleFileOptions;

    use super::*;

    fn opened(path: &Path) -> Files {
        Files::open(path).unwrap()
    }

    /// Returns the path of a new zip, and its folder.
    fn new_zip(entries: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let zip = folder.path().join("m.zip");
        zip_of(&zip, entries);
        (folder, zip)
    }

    fn names(files: &Files) -> Vec<&str> {
        files.names().collect()
    }

    fn content(files: &Files, name: &str) -> String {
        let mut text = String::new();
        files.read(name).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    fn zip_of(path: &Path, entries: &[(&str, &str)]) {
        let mut zip = zip::ZipWriter::new(File::create(path).unwrap());
        for (name, text) in entries {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
    }

    /// Returns a text in each compressed form, with the extension of its files.
    fn compressed(text: &str) -> [(&'static str, Vec<u8>); 3] {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(text.as_bytes()).unwrap();
        let mut bz2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bz2.write_all(text.as_bytes()).unwrap();
        [
            ("gz", gz.finish().unwrap()),
            ("zst", zstd::encode_all(text.as_bytes(), 1).unwrap()),
            ("bz2", bz2.finish().unwrap()),
        ]
    }

    #[test]
    fn compressed_files_are_those_that_they_contain() {
        let folder = tempfile::tempdir().unwrap();
        let csv = folder.path().join("tracks.csv");
        let text = "track_id,genre\n".repeat(50_000);
        std::fs::write(&csv, &text).unwrap();
        let plain = opened(&csv).fingerprint("tracks.csv");

        for (extension, bytes) in compressed(&text) {
            let below = folder.path().join(extension);
            std::fs::create_dir(&below).unwrap();
            let file = below.join(format!("tracks.csv.{extension}"));
            // Two parts one after the other, as `cat` makes them.
            std::fs::write(&file, [&bytes[..], &compressed("7,Rock\n")[0].1].concat()).unwrap();
            if extension != "gz" {
                std::fs::write(&file, &bytes).unwrap();
            }

            for place in [&below, &file] {
                let files = Files::open(place).unwrap();
                assert!(files.names().eq(["tracks.csv"]), "{place:?}");
                let found = content(&files, "tracks.csv");
                if extension == "gz" {
                    assert_eq!(found, format!("{text}7,Rock\n"));
                } else {
                    assert_eq!(found, text);
                    let fingerprint = files.fingerprint("tracks.csv");
                    assert_eq!(fingerprint.unwrap(), *plain.as_ref().unwrap());
                }
            }

            // The file changes, and is damaged.
            std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
            let damaged = opened(&below).fingerprint("tracks.csv");
            assert!(
                matches!(damaged, Err(SourceError::Open { .. })),
                "{extension}"
            );
            std::fs::copy(&csv, below.join("tracks.csv")).unwrap();
            assert_eq!(content(&opened(&below), "tracks.csv"), text);
        }
    }

    #[test]
    fn pipes_are_read_once() {
        for written in ["a,b\n1,2\n".to_owned(), "x,y\n".repeat(100_000)] {
            let [_, (_, packed), _] = compressed(&written);
            for bytes in [written.clone().into_bytes(), packed] {
                let (reader, mut writer) = io::pipe().unwrap();
                let pipe = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
                let writing = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
                for _ in 0..3 {
                    let files = opened(&pipe);
                    let name = files.names().next().unwrap().to_owned();
                    assert_eq!(name, "tracks.csv");
                    assert_eq!(content(&files, &name), written);
                }
                writing.join().unwrap();
            }
        }
    }

    #[test]
    fn folder_zip_and_single_file_give_equal_names() {
        let folder = tempfile::tempdir().unwrap();
        let csv = folder.path().join("tracks.csv");
        let long = "track_id,genre\n".repeat(50_000);
        std::fs::write(&csv, &long).unwrap();

        let zip = folder.path().join("fma_metadata.zip");
        zip_of(
            &zip,
            &[
                ("fma_metadata/tracks.csv", &long),
                ("fma_metadata/genres.csv", "x"),
            ],
        );

        for path in [folder.path(), &csv, &zip] {
            let files = Files::open(path).unwrap();
            assert!(
                files.names().any(|name| name == "tracks.csv"),
                "{}",
                path.display()
            );
            assert_eq!(content(&files, "tracks.csv"), long);
            assert!(matches!(
                files.read("albums.csv"),
                Err(SourceError::NoSuchFile { .. })
            ));
        }
    }

    #[test]
    fn folder_and_zip_have_equal_fingerprints() {
        let folder = tempfile::tempdir().unwrap();

        // `long.csv` is longer than a block. `check.csv` contains the standard test input of CRC-32.
        let long = "0123456789".repeat(200_000);
        std::fs::write(folder.path().join("long.csv"), &long).unwrap();
        std::fs::write(folder.path().join("check.csv"), "123456789").unwrap();

        let zip = folder.path().join("m.zip");
        zip_of(&zip, &[("long.csv", &long), ("check.csv", "123456789")]);
        let (plain, zipped) = (opened(folder.path()), opened(&zip));

        assert_eq!(plain.fingerprint("check.csv").unwrap(), (0xcbf4_3926, 9));
        for name in ["long.csv", "check.csv"] {
            assert_eq!(
                plain.fingerprint(name).unwrap(),
                zipped.fingerprint(name).unwrap()
            );
        }

        assert!(matches!(
            zipped.fingerprint("absent.csv"),
            Err(SourceError::NoSuchFile { .. })
        ));
    }

    #[test]
    fn entries_of_several_folders_keep_their_names() {
        let (_folder, zip) = new_zip(&[("a/x.csv", "1"), ("b/x.csv", "2")]);
        let files = opened(&zip);
        assert_eq!(names(&files), ["a/x.csv", "b/x.csv"]);
        assert_eq!(content(&files, "b/x.csv"), "2");
    }

    #[test]
    fn duplicate_entries_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let zip = folder.path().join("m.zip");
        for second in ["m/./tracks.csv", "m//tracks.csv", "m/tracks.csX"] {
            zip_of(
                &zip,
                &[
                    ("m/tracks.csv", "first"),
                    (second, "second"),
                    ("m/genres.csv", "x"),
                ],
            );
            let bytes = std::fs::read(&zip).unwrap();
            // Rename an entry in the zip's bytes, because the zip crate cannot write the same name twice.
            let text = bytes.iter().map(|&b| if b == b'X' { b'v' } else { b });
            std::fs::write(&zip, text.collect::<Vec<u8>>()).unwrap();

            let files = opened(&zip);
            assert_eq!(names(&files), ["genres.csv", "tracks.csv"]);
            assert!(
                matches!(
                    files.read("tracks.csv"),
                    Err(SourceError::Duplicates { n: 2, .. })
                ),
                "{second}"
            );
            assert_ne!(
                files.fingerprint("tracks.csv").unwrap(),
                files.fingerprint("genres.csv").unwrap()
            );
            assert_eq!(content(&files, "genres.csv"), "x");
        }
    }

    #[test]
    fn macos_metadata_hides_no_file() {
        let hidden = "__MACOSX/fma_metadata/._tracks.csv";
        let (_folder, zip) = new_zip(&[("fma_metadata/tracks.csv", "1"), (hidden, "2")]);
        assert_eq!(names(&opened(&zip)), ["tracks.csv"]);
    }

    #[test]
    fn damaged_entry_fails_while_reading() {
        let folder = tempfile::tempdir().unwrap();
        let zip = folder.path().join("m.zip");

        let options =
            SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        let mut writer = zip::ZipWriter::new(File::create(&zip).unwrap());
        writer.start_file("tracks.csv", options).unwrap();
        writer.write_all(b"track_id").unwrap();
        writer.finish().unwrap();

        let mut bytes = std::fs::read(&zip).unwrap();
        let at = bytes
            .windows(8)
            .position(|window| window == b"track_id")
            .unwrap();
        bytes[at] ^= 1;
        std::fs::write(&zip, &bytes).unwrap();

        let error = Files::open(&zip)
            .unwrap()
            .read("tracks.csv")
            .unwrap()
            .read_to_end(&mut Vec::new())
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    }

    #[test]
    fn zip_entries_of_any_size_are_not_read() {
        let (_folder, zip) = new_zip(&[("tracks.csv", "1")]);
        let mut files = opened(&zip);
        let Container::Zip(archive, _) = &mut files.place else {
            panic!("not a zip");
        };
        archive.entries[0].bytes = CONTENT_BYTES_MAX + 1;

        let error = files.read("tracks.csv").err().unwrap();
        assert!(
            matches!(&error, SourceError::Open { path, source }
                if path.ends_with("m.zip/tracks.csv") && source.kind() == io::ErrorKind::FileTooLarge),
            "{error:?}"
        );
    }

    #[test]
    fn truncated_zip_names_file_and_remedy() {
        let (_folder, zip) = new_zip(&[("tracks.csv", "1")]);
        let bytes = std::fs::read(&zip).unwrap();
        std::fs::write(&zip, &bytes[..bytes.len() - 30]).unwrap();

        let error = Files::open(&zip).unwrap_err().to_string();
        assert!(
            error.contains("m.zip") && error.contains("download it again"),
            "{error}"
        );
    }
}
