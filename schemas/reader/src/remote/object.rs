//! Single objects that are inputs, such as a zip.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use object_store::ObjectMeta;
use percent_encoding::percent_decode_str;

use crate::remote::{Remote, RemoteError, address};

/// An object that is read by ranges, which must not change meanwhile.
#[derive(Clone, Debug)]
pub struct Object {
    folder: Remote,
    found: ObjectMeta,
}

impl Object {
    /// Finds the object at `address`, such as `s3://bucket/music.zip`; returns `None` if there is none.
    pub fn find(address: &str) -> Result<Option<Self>, RemoteError> {
        address::parsed(address, true)?;
        let (parent, name) = address
            .trim_end_matches('/')
            .rsplit_once('/')
            .unwrap_or((address, ""));
        // A bucket is not an object.
        if name.is_empty() || parent.ends_with("//") || parent.ends_with(":/") {
            return Ok(None);
        }
        // The address of a web server is encoded, like that of its folders.
        let name = match address.starts_with("http") {
            true => percent_decode_str(name).decode_utf8_lossy(),
            false => name.into(),
        };

        let folder = Remote::input(parent).map_err(|error| match error {
            RemoteError::Address { problem, .. } => RemoteError::address(address, problem),
            error => error,
        })?;
        let found = folder.find(&name)?;
        Ok(found.map(|found| Self { folder, found }))
    }

    /// Returns the part of the address after the last slash.
    pub fn name(&self) -> &str {
        self.found.location.filename().unwrap_or_default()
    }

    /// Returns the size in bytes.
    pub const fn bytes(&self) -> u64 {
        self.found.size
    }

    /// Reads a range, which must end within the object.
    ///
    /// # Errors
    /// An error with a [`RemoteError`].
    pub fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let read = self.folder.read_unchanged(&self.found, range);
        read.map_err(io::Error::other)
    }

    /// Reads the whole object.
    pub fn read_all(&self) -> io::Result<Bytes> {
        self.read(0..self.bytes())
    }
}
