//! Single objects that are inputs, such as a zip.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use crate::{Remote, RemoteError};

/// An object that is read by ranges.
#[derive(Clone, Debug)]
pub struct Object {
    folder: Remote,
    name: String,
    bytes: u64,
}

impl Object {
    /// Finds the object at `address`, such as `s3://bucket/music.zip`; returns `None` if there is none.
    ///
    /// # Errors
    /// [`RemoteError::Address`], [`RemoteError::Request`].
    pub fn find(address: &str) -> Result<Option<Self>, RemoteError> {
        let address = address.trim_end_matches('/');
        let (parent, name) = address.rsplit_once('/').unwrap_or((address, ""));
        // A bucket is not an object.
        if name.is_empty() || parent.ends_with("//") || parent.ends_with(":/") {
            return Ok(None);
        }
        let folder = Remote::input(parent).map_err(|error| match error {
            RemoteError::Address { problem, .. } => RemoteError::Address {
                address: address.to_owned(),
                problem,
            },
            error => error,
        })?;
        let bytes = folder.size(name)?;
        Ok(bytes.map(|bytes| Self {
            folder,
            name: name.to_owned(),
            bytes,
        }))
    }

    /// Returns the part of the address after the last slash.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the size in bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads a range, which must end within the object.
    ///
    /// # Errors
    /// An error with a [`RemoteError`]; `UnexpectedEof` if the server sends less.
    pub fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let wanted = range.end.saturating_sub(range.start);
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        let read = self.folder.read(&self.name, range);
        let read = read.map_err(io::Error::other)?;
        if read.len() as u64 != wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(read)
    }

    /// Reads the whole object.
    ///
    /// # Errors
    /// [`RemoteError::Request`], also if the object was removed.
    pub fn read_all(&self) -> Result<Bytes, RemoteError> {
        let address = self.folder.address();
        let gone = || RemoteError::Request {
            address: format!("{address}/{}", self.name),
            action: "read",
            problem: "removed after it was found".to_owned(),
        };
        self.folder.get(&self.name)?.ok_or_else(gone)
    }
}
