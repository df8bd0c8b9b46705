//! Metadata files of a folder, or the one file that was named.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The files below a path.
pub struct Files {
    root: PathBuf,
    names: Vec<String>,
}

impl Files {
    /// Lists `path`: a folder's files, or the file itself.
    ///
    /// # Errors
    /// When the path cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        if !fs::metadata(path)?.is_dir() {
            let root = path.parent().unwrap_or(Path::new("")).to_owned();
            return Ok(Self { root, names: name(path).into_iter().collect() });
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.extend(name(&entry?.path()));
        }
        names.sort_unstable();
        Ok(Self { root: path.to_owned(), names })
    }

    /// Names, sorted.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Opens one file for reading.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(self.root.join(name))?))
    }
}
