//! Reading ranges of a version's files, from local copies where these exist.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as ObjectPath;
use object_store::{
    Attributes, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult,
};
use wavemill_schemas::manifest::FileEntry;

use crate::remote::limits::Limits;
use crate::remote::traffic::{Unanswered, count_received};
use crate::remote::{Mirror, Remote, RemoteError, wait_until};

/// A file of a version that is read by ranges: from its local copy as soon as that is complete, else from the object
/// store.
#[derive(Debug)]
pub struct StreamedFile {
    remote: Remote,
    name: String,
    bytes: u64,
    copy: PathBuf,
}

impl Mirror {
    /// Returns a file of a version. No request is sent.
    pub fn streamed(&self, file: &FileEntry) -> StreamedFile {
        StreamedFile {
            remote: self.remote().clone(),
            name: file.path.clone(),
            bytes: file.bytes,
            copy: self.root().join(&file.path),
        }
    }

    /// Returns the store's objects for programs that send requests themselves. Ranges of files with a local copy are read
    /// from it.
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::new(MirroredObjects {
            objects: self.remote().objects(),
            root: self.root().to_owned(),
        })
    }
}

impl StreamedFile {
    /// Returns the size in bytes, according to the manifest.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads a range from the complete local copy; returns `None` if there is none, or it cannot be read. The copy is not
    /// kept open, because the number of open files is limited.
    fn copied(&self, range: &Range<u64>) -> Option<Bytes> {
        // A copy gets its name when it is complete, and has then been compared with its hash.
        let copy = File::open(&self.copy).ok()?;
        let is_whole = copy.metadata().ok()?.len() == self.bytes;
        is_whole.then(|| read_at(&copy, range).ok()).flatten()
    }

    /// Removes a local copy whose bytes have changed. Returns whether there was one.
    pub fn forget_copy(&self) -> bool {
        fs::remove_file(&self.copy).is_ok()
    }

    /// Reads a range within the file.
    ///
    /// # Errors
    /// [`RemoteError::Damaged`] if the object is missing or has another size; [`RemoteError::Request`].
    pub fn read(&self, range: Range<u64>) -> Result<Bytes, RemoteError> {
        let never = AtomicBool::new(false);
        let read = Self::read_all([(self, range)], &never)?;
        Ok(read.unwrap_or_default().pop().unwrap_or_default())
    }

    /// Reads ranges of files, those in object stores several at a time. Returns `None` if `stop` is set meanwhile.
    ///
    /// # Errors
    /// As [`StreamedFile::read`], for the first range that cannot be read.
    pub fn read_all<'f>(
        parts: impl IntoIterator<Item = (&'f Self, Range<u64>)>,
        stop: &AtomicBool,
    ) -> Result<Option<Vec<Bytes>>, RemoteError> {
        let mut read = Vec::new();
        let mut requests = Vec::new();
        for (place, (file, range)) in parts.into_iter().enumerate() {
            read.push(file.copied(&range));
            if read[place].is_none() {
                let (remote, name, bytes) = (file.remote.clone(), file.name.clone(), file.bytes);
                requests.push(async move {
                    let read = remote.read_committed(&name, range, bytes).await?;
                    Ok::<_, RemoteError>((place, read))
                });
            }
        }

        if !requests.is_empty() {
            let answers = stream::iter(requests).buffer_unordered(Limits::requests());
            let answers = answers.try_collect::<Vec<(usize, Bytes)>>();
            let Some(answers) = wait_until(answers, stop) else {
                return Ok(None);
            };
            for (place, answer) in answers? {
                read[place] = Some(answer);
            }
        }
        Ok(Some(read.into_iter().flatten().collect()))
    }
}

fn read_at(file: &File, range: &Range<u64>) -> io::Result<Bytes> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

/// The objects of a store, of which some have local copies.
#[derive(Debug)]
struct MirroredObjects {
    objects: Arc<dyn ObjectStore>,
    /// Folder of the local copies.
    root: PathBuf,
}

impl MirroredObjects {
    /// Reads a range from a complete local copy; returns `None` if there is none.
    fn copied(&self, location: &ObjectPath, range: &Range<u64>) -> Option<GetResult> {
        let copy = File::open(self.root.join(location.as_ref())).ok()?;
        let found = copy.metadata().ok()?;
        // A copy of another length is of another file. Damage within a copy is found by checksums.
        if range.start > range.end || range.end > found.len() {
            return None;
        }
        let meta = ObjectMeta {
            location: location.clone(),
            last_modified: found.modified().ok()?.into(),
            size: found.len(),
            e_tag: None,
            version: None,
        };
        Some(answer(meta, range.clone(), read_at(&copy, range).ok()?))
    }

    /// Requests an object. `PrefixStore` returns its path in the bucket instead of that below this folder.
    async fn request(
        &self,
        location: &ObjectPath,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        let mut got = self.objects.get_opts(location, options).await?;
        got.meta.location = location.clone();
        Ok(got)
    }
}

/// Returns the answer to a request for a range.
fn answer(meta: ObjectMeta, range: Range<u64>, bytes: Bytes) -> GetResult {
    GetResult {
        payload: GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed()),
        meta,
        range,
        attributes: Attributes::default(),
    }
}

impl fmt::Display for MirroredObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.objects.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for MirroredObjects {
    async fn get_opts(
        &self,
        location: &ObjectPath,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        let wanted = match &options.range {
            Some(GetRange::Bounded(range)) if !options.head => range.clone(),
            _ => return self.request(location, options).await,
        };
        if let Some(copied) = self.copied(location, &wanted) {
            return Ok(copied);
        }

        let _request = Unanswered::begin();
        let got = self.request(location, options).await?;
        let (meta, range) = (got.meta.clone(), got.range.clone());
        let bytes = got.bytes().await?;
        count_received(bytes.len());
        Ok(answer(meta, range, bytes))
    }

    fn list(
        &self,
        prefix: Option<&ObjectPath>,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(
        &self,
        prefix: Option<&ObjectPath>,
    ) -> object_store::Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn put_opts(
        &self,
        location: &ObjectPath,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.objects.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &ObjectPath,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<ObjectPath>>,
    ) -> BoxStream<'static, object_store::Result<ObjectPath>> {
        self.objects.delete_stream(locations)
    }

    async fn copy_opts(
        &self,
        from: &ObjectPath,
        to: &ObjectPath,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
