//! Folders in object stores: listing, reading, and local copies of their files.
//!
//! All functions block the calling thread. Requests run on threads of their own, so that the functions may also be
//! called from asynchronous code.

mod address;
mod cache;
mod connection;
mod error;
mod limits;
mod listing;
mod object;
mod promises;
mod streamed;
mod traffic;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::buffered::BufWriter;
use object_store::client::HttpErrorKind;
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;

pub use cache::{Mirror, Purpose, REMOVING_SUFFIX};
use error::NOT_PERMITTED;
pub use error::RemoteError;
use limits::Limits;
pub use object::Object;
pub use streamed::StreamedFile;
pub use traffic::{Traffic, continue_in_background, traffic};
use traffic::{Unanswered, count_received};

/// Number of files of one process that are sent at the same time.
const CONCURRENT_UPLOADS: usize = 4;
/// Size of the parts in which a large file is sent, in bytes.
const PART_BYTES: usize = 8 << 20;
/// Number of parts of one file that are sent at the same time.
const PARTS: usize = 2;

/// Time after which a thread that waits for a request looks whether it has to stop.
const STOP_EVERY: Duration = Duration::from_millis(100);

/// Number of attempts at a request whose answer was cut.
const ATTEMPTS: u32 = 5;
/// Pause after the first attempt.
const PAUSE: Duration = Duration::from_millis(200);

/// Threads of all requests, and the process that started them; see [`of_process`].
static RUNTIME: [Mutex<Option<(u32, &'static Runtime)>>; 2] = [const { Mutex::new(None) }; 2];

/// Returns the value of the first process, or of its forks: in a fork, another thread of the parent may have held the
/// lock of the first value, and nothing would release it.
fn of_process<T>(values: &'static [T; 2]) -> &'static T {
    static FIRST: OnceLock<u32> = OnceLock::new();
    let is_first = *FIRST.get_or_init(std::process::id) == std::process::id();
    &values[usize::from(!is_first)]
}

/// Returns the threads of all requests of this process. A forked process has none of its parent's threads.
fn runtime() -> io::Result<&'static Runtime> {
    let process = std::process::id();
    let mut started = of_process(&RUNTIME)
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some((owner, runtime)) = *started
        && owner == process
    {
        return Ok(runtime);
    }

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("requests")
        .enable_all()
        .build()?;
    let runtime: &'static Runtime = Box::leak(Box::new(runtime));
    *started = Some((process, runtime));
    Ok(runtime)
}

/// A folder in an object store.
#[derive(Clone, Debug)]
pub struct Remote {
    objects: Arc<PrefixStore<Box<dyn ObjectStore>>>,
    /// The folder's address as the user wrote it, without a slash at the end.
    address: String,
}

/// An object to be copied to a file.
#[derive(Clone, Debug)]
pub struct Download {
    /// Name of the object relative to the [`Remote`] folder.
    pub name: String,
    /// Path of the file.
    pub to: PathBuf,
    /// Expected blake3 hash in lower-case hex; `None` if any content is expected.
    pub blake3: Option<String>,
}

/// An object below a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Name of the object relative to the [`Remote`] folder.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Time of the last modification.
    pub modified: SystemTime,
}

impl Remote {
    /// Creates the folder at `address`, such as `s3://bucket/store`. No request is sent.
    ///
    /// # Errors
    /// [`RemoteError::Address`] for an address that is not supported, or options in the environment that are not valid.
    pub fn new(address: &str) -> Result<Self, RemoteError> {
        Self::open(address, false)
    }

    /// Creates a folder that is only read, which may also be on a web server. No request is sent.
    pub fn input(address: &str) -> Result<Self, RemoteError> {
        Self::open(address, true)
    }

    fn open(address: &str, is_input: bool) -> Result<Self, RemoteError> {
        let (objects, prefix) = address::open(address, is_input)?;
        Ok(Self {
            objects: Arc::new(PrefixStore::new(objects, prefix)),
            address: address.trim_end_matches('/').to_owned(),
        })
    }

    /// Returns the folder's address as the user wrote it, without a slash at the end.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects) as _
    }

    /// Returns the objects directly or indirectly below `folder`, sorted by name.
    pub fn list(&self, folder: &str) -> Result<Vec<Found>, RemoteError> {
        let prefix = ObjectPath::from(folder);
        let below = prefix.clone();
        let objects = Arc::clone(&self.objects);
        let listed = wait(async move {
            repeated(|| objects.list(Some(&below)).try_collect::<Vec<_>>()).await
        });
        let listed = listed.map_err(self.failed("list", folder))?;

        let mut found = Vec::new();
        for object in listed {
            self.require_below(&prefix, &object.location)?;
            found.push(Found {
                name: object.location.to_string(),
                bytes: object.size,
                modified: object.last_modified.into(),
            });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Reports whether there is an object below this folder. A web server has no folders.
    pub fn has_objects(&self) -> Result<bool, RemoteError> {
        if self.address.starts_with("http") {
            return Ok(false);
        }
        let objects = Arc::clone(&self.objects);
        let first = wait(async move {
            repeated(|| async { objects.list(None).next().await.transpose() }).await
        });
        match first {
            Ok(first) => Ok(first.is_some()),
            Err(error) => match self.failed("list", "")(error) {
                // An object may be public although its bucket cannot be listed.
                RemoteError::Request { problem, .. } if problem.starts_with(NOT_PERMITTED) => {
                    Ok(false)
                }
                error => Err(error),
            },
        }
    }

    /// Reads `bytes` of an object that still has the size and the tag of `found`.
    ///
    /// # Errors
    /// [`RemoteError::Request`], also if the object has changed.
    pub(crate) fn read_unchanged(
        &self,
        found: &ObjectMeta,
        bytes: std::ops::Range<u64>,
    ) -> Result<Bytes, RemoteError> {
        let name = found.location.to_string();
        let objects = Arc::clone(&self.objects);
        let expected = found.clone();
        let wanted = bytes.end.saturating_sub(bytes.start);

        let read = wait(async move {
            repeated(|| async {
                let options = GetOptions {
                    range: Some(bytes.clone().into()),
                    ..GetOptions::default()
                };
                let got = objects.get_opts(&expected.location, options).await?;

                let is_same = got.meta.size == expected.size && got.meta.e_tag == expected.e_tag;
                Ok(match is_same {
                    true => Some(got.bytes().await?),
                    false => None,
                })
            })
            .await
        });

        match read.map_err(self.failed("read", &name))? {
            Some(read) if read.len() as u64 == wanted => {
                count_received(read.len());
                Ok(read)
            }
            _ => {
                let problem = "it was replaced after it was opened: run the command again";
                Err(self.refused("read", &name, problem.to_owned()))
            }
        }
    }

    /// Reads a range of a file that was committed with the size `bytes`.
    async fn read_committed(
        &self,
        name: &str,
        range: std::ops::Range<u64>,
        bytes: u64,
    ) -> Result<Bytes, RemoteError> {
        let started = Instant::now();
        let path = ObjectPath::from(name);
        let read = repeated(|| async {
            let options = GetOptions {
                range: Some(range.clone().into()),
                ..GetOptions::default()
            };
            let got = self.objects.get_opts(&path, options).await?;
            Ok((got.meta.size, got.bytes().await?))
        });

        let size = match read.await {
            Ok((size, read)) if size == bytes => {
                count_received(read.len());
                return Ok(read);
            }
            Ok((size, _)) => size,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(self.damaged(name, "missing".to_owned()));
            }
            Err(error) if started.elapsed() > Limits::retry_time() => {
                return Err(self.failed("read", name)(error));
            }
            // A range past the end of a truncated object is an error, too.
            Err(error) => match self.objects.head(&path).await {
                Ok(found) if found.size != bytes => found.size,
                _ => return Err(self.failed("read", name)(error)),
            },
        };
        Err(self.damaged(name, format!("{size} bytes, not {bytes}")))
    }

    /// Finds an object that other programs may have named; returns `None` if it does not exist.
    pub(crate) fn find(&self, name: &str) -> Result<Option<ObjectMeta>, RemoteError> {
        let location = input_path(name);
        let path = location.clone();
        let objects = Arc::clone(&self.objects);
        match wait(async move { repeated(|| objects.head(&path)).await }) {
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            // `PrefixStore` returns the path in the bucket, in which later requests would not find the object.
            Ok(found) => Ok(Some(ObjectMeta { location, ..found })),
            Err(error) => Err(self.failed("read", name)(error)),
        }
    }

    /// Returns the names of the folders directly below `folder`.
    pub fn folders(&self, folder: &str) -> Result<Vec<String>, RemoteError> {
        let prefix = ObjectPath::from(folder);
        let below = prefix.clone();
        let objects = Arc::clone(&self.objects);
        let listed =
            wait(async move { repeated(|| objects.list_with_delimiter(Some(&below))).await });
        let listed = listed.map_err(self.failed("list", folder))?;

        let mut names = Vec::new();
        for path in &listed.common_prefixes {
            self.require_below(&prefix, path)?;
            names.extend(path.filename().map(str::to_owned));
        }
        Ok(names)
    }

    /// Checks a name in the list of a folder: what is removed by the list of one folder may not be in another one.
    fn require_below(&self, folder: &ObjectPath, name: &ObjectPath) -> Result<(), RemoteError> {
        if name.prefix_matches(folder) {
            return Ok(());
        }
        let problem = format!(
            "the answer lists `{name}`, which is not in this folder: look for a proxy that changes requests"
        );
        Err(self.refused("list", folder.as_ref(), problem))
    }

    /// Reads a whole object; returns `None` if it does not exist.
    pub fn get(&self, name: &str) -> Result<Option<Bytes>, RemoteError> {
        let path = input_path(name);
        let objects = Arc::clone(&self.objects);
        let got =
            wait(
                async move { repeated(|| async { objects.get(&path).await?.bytes().await }).await },
            );
        match got {
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            got => {
                let got = got.map_err(self.failed("read", name))?;
                count_received(got.len());
                Ok(Some(got))
            }
        }
    }

    /// Copies objects to files, several at a time, and reports for each whether the object exists. Files appear under
    /// their names when they are complete and have the expected content.
    ///
    /// # Errors
    /// [`RemoteError::Request`], [`RemoteError::Copies`], [`RemoteError::Damaged`] for the first copy that fails.
    pub fn download(&self, copies: Vec<Download>) -> Result<Vec<bool>, RemoteError> {
        let this = self.clone();
        wait(async move {
            let copies = copies.into_iter().map(|copy| {
                let this = this.clone();
                async move { this.download_one(&copy).await }
            });
            futures::stream::iter(copies)
                .buffered(Limits::requests())
                .try_collect()
                .await
        })
    }

    async fn download_one(&self, wanted: &Download) -> Result<bool, RemoteError> {
        let Download { name, to, blake3 } = wanted;
        let path = ObjectPath::from(&**name);
        let mut copy = cache::NewFile::create(to)?;
        let mut hasher = blake3::Hasher::new();

        // A cut download continues after the received bytes, as long as the object is the same one.
        let mut received = 0;
        let mut version = None;
        let mut progress = Instant::now();
        loop {
            let options = GetOptions {
                range: (received > 0).then_some(GetRange::Offset(received)),
                if_match: version.clone(),
                ..GetOptions::default()
            };
            let object = match repeated(|| self.objects.get_opts(&path, options.clone())).await {
                Err(object_store::Error::NotFound { .. }) => return Ok(false),
                got => got.map_err(self.failed("read", name))?,
            };
            let bytes = object.meta.size;
            let modified = object.meta.last_modified.into();
            version.clone_from(&object.meta.e_tag);

            let before = received;
            let content = object.into_stream();
            let cut = receive(content, &mut copy, &mut hasher, &mut received).await?;
            let Some(error) = cut else {
                let hash = hasher.finalize().to_hex();
                let is_expected = blake3.as_deref().is_none_or(|blake3| blake3 == &*hash);
                if received != bytes || !is_expected {
                    let problem = "differs from the committed file (blake3 differs)";
                    return Err(self.damaged(name, problem.to_owned()));
                }
                copy.finish(modified)?;
                return Ok(true);
            };

            if received > before {
                progress = Instant::now();
            }
            if version.is_none() || progress.elapsed() > Limits::retry_time() {
                return Err(self.failed("read", name)(error));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn damaged(&self, name: &str, problem: String) -> RemoteError {
        RemoteError::Damaged {
            address: format!("{}/{name}", self.address),
            problem,
        }
    }

    /// Creates the error for a request whose answer cannot be used.
    fn refused(&self, action: &'static str, name: &str, problem: String) -> RemoteError {
        RemoteError::Request {
            address: format!("{}/{name}", self.address),
            action,
            problem,
        }
    }

    /// Returns the size of an object in bytes; `None` if it does not exist.
    pub fn size(&self, name: &str) -> Result<Option<u64>, RemoteError> {
        Ok(self.find(name)?.map(|found| found.size))
    }

    /// Checks that an object does not exist that a list lacks.
    ///
    /// # Errors
    /// [`RemoteError::Request`] if it does: the list was wrong.
    pub fn require_absent(&self, name: &str) -> Result<(), RemoteError> {
        match self.size(name)? {
            None => Ok(()),
            Some(_) => Err(RemoteError::Request {
                address: self.address.clone(),
                action: "list",
                problem: format!(
                    "the list lacks {name}, which is there: try again later, and look for a proxy that answers instead of \
                     the object store"
                ),
            }),
        }
    }

    /// Writes a small object, or replaces it.
    pub fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), RemoteError> {
        self.put_as(name, bytes.into(), PutMode::Overwrite)
            .map_err(self.failed("write", name))
    }

    /// Writes a small object unless it exists already. Returns true if it was written. It may return false although
    /// this call wrote the object, if the answer to the request was lost.
    pub fn put_absent(&self, name: &str, bytes: Vec<u8>) -> Result<bool, RemoteError> {
        let payload = PutPayload::from(bytes);
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.put_as(name, payload.clone(), PutMode::Create) {
                Ok(()) => return Ok(true),
                Err(exists @ object_store::Error::AlreadyExists { .. }) => {
                    if self.find(name)?.is_some() {
                        return Ok(false);
                    }
                    // The answer of S3 while another request for this object is in progress, which may fail.
                    if attempts == ATTEMPTS {
                        return Err(self.failed("write", name)(exists));
                    }
                    std::thread::sleep(PAUSE * attempts);
                }
                Err(error) => return Err(self.failed("write", name)(error)),
            }
        }
    }

    fn put_as(&self, name: &str, payload: PutPayload, mode: PutMode) -> object_store::Result<()> {
        let path = ObjectPath::from(name);
        let objects = Arc::clone(&self.objects);
        let put = wait(async move {
            repeated(|| objects.put_opts(&path, payload.clone(), mode.clone().into())).await
        });
        put.map(|_| ())
    }

    /// Writes files as objects, several at a time. Large files are sent in parts.
    ///
    /// # Errors
    /// [`RemoteError::Request`], [`RemoteError::Copies`] for the first file that fails.
    pub fn upload(&self, files: Vec<(PathBuf, String)>) -> Result<(), RemoteError> {
        let this = self.clone();
        wait(async move {
            let uploads = files.into_iter().map(|(from, name)| {
                let this = this.clone();
                async move { this.upload_one(&from, &name).await }
            });
            futures::stream::iter(uploads)
                .buffered(CONCURRENT_UPLOADS)
                .try_collect()
                .await
        })
    }

    async fn upload_one(&self, from: &Path, name: &str) -> Result<(), RemoteError> {
        let mut file = File::open(from).map_err(RemoteError::copy_at(from, "open"))?;
        let objects: Arc<dyn ObjectStore> = self.objects();
        let mut object = BufWriter::with_capacity(objects, ObjectPath::from(name), PART_BYTES)
            .with_max_concurrency(PARTS);
        let mut block = vec![0; PART_BYTES];
        loop {
            let n = file
                .read(&mut block)
                .map_err(RemoteError::copy_at(from, "read"))?;
            if n == 0 {
                break;
            }
            let written = object.write_all(&block[..n]).await;
            written.map_err(|error| self.not_written(name, error))?;
        }
        let ended = object.shutdown().await;
        ended.map_err(|error| self.not_written(name, error))
    }

    fn not_written(&self, name: &str, error: io::Error) -> RemoteError {
        match error.downcast() {
            Ok(error) => self.failed("write", name)(error),
            Err(error) => self.refused("write", name, error.to_string()),
        }
    }

    /// Copies an object within the object store.
    pub fn copy(&self, from: &str, to: &str) -> Result<(), RemoteError> {
        let (from_path, to_path) = (ObjectPath::from(from), ObjectPath::from(to));
        let objects = Arc::clone(&self.objects);
        let copied = wait(async move { repeated(|| objects.copy(&from_path, &to_path)).await });
        copied.map_err(self.failed("copy", from))
    }

    /// Removes objects, which need not exist.
    pub fn delete(&self, names: &[String]) -> Result<(), RemoteError> {
        let this = self.clone();
        let names = names.to_vec();
        wait(async move {
            let deletions = names.into_iter().map(|name| {
                let this = this.clone();
                async move {
                    let path = ObjectPath::from(&*name);
                    match repeated(|| this.objects.delete(&path)).await {
                        Err(object_store::Error::NotFound { .. }) => Ok(()),
                        deleted => deleted.map_err(this.failed("remove", &name)),
                    }
                }
            });
            futures::stream::iter(deletions)
                .buffer_unordered(Limits::requests())
                .try_collect()
                .await
        })
    }

    fn failed<'a>(
        &'a self,
        action: &'static str,
        name: &'a str,
    ) -> impl FnOnce(object_store::Error) -> RemoteError + 'a {
        move |error| RemoteError::of_request(action, format!("{}/{name}", self.address), error)
    }
}

/// Returns the path of an object that other programs may have named. Unlike names in a store, it may contain characters
/// that `ObjectPath::from` would replace.
fn input_path(name: &str) -> ObjectPath {
    ObjectPath::parse(name).unwrap_or_else(|_| ObjectPath::from(name))
}

/// Appends content to a copy and its hash, and counts its bytes. Returns the error that cut the content, if any.
async fn receive<B: AsRef<[u8]>>(
    mut content: impl Stream<Item = object_store::Result<B>> + Unpin,
    copy: &mut cache::NewFile,
    hasher: &mut blake3::Hasher,
    received: &mut u64,
) -> Result<Option<object_store::Error>, RemoteError> {
    while let Some(block) = content.next().await {
        let block = match block {
            Ok(block) => block,
            Err(error) => return Ok(Some(error)),
        };
        let block = block.as_ref();
        *received += block.len() as u64;
        count_received(block.len());
        hasher.update(block);
        copy.write(block)?;
    }
    Ok(None)
}

/// Repeats a request after errors that `object_store` does not repeat itself: an answer that ends in the middle, and a
/// lost connection while an object is created. It has repeated others already, but only while their signature was
/// valid.
async fn repeated<T, F>(request: impl Fn() -> F) -> object_store::Result<T>
where
    F: Future<Output = object_store::Result<T>>,
{
    let started = Instant::now();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let error = match request().await {
            Err(error @ object_store::Error::Generic { .. }) => error,
            result => return result,
        };

        let is_time = started.elapsed() < Limits::retry_time();
        let may_pass = match error::failure_of_connection(&error) {
            // An answer that was cut takes its time: over a slow link, perhaps all of it.
            Some(HttpErrorKind::Decode) => is_time || attempts < ATTEMPTS,
            // Perhaps the request itself is refused, or a redirect.
            Some(HttpErrorKind::Unknown) | None => {
                is_time && (attempts < ATTEMPTS || error::was_repeated(&error))
            }
            Some(_) => is_time,
        };
        if !may_pass {
            return Err(error);
        }
        tokio::time::sleep(PAUSE * attempts.min(ATTEMPTS)).await;
    }
}

/// Runs `request` on the threads of requests and waits for its result.
fn wait<T: Send + 'static>(request: impl Future<Output = T> + Send + 'static) -> T {
    wait_until(request, &AtomicBool::new(false)).expect("nothing sets the flag")
}

/// Runs `request` on the threads of requests and waits for its result, or until `stop` is set.
fn wait_until<T: Send + 'static>(
    request: impl Future<Output = T> + Send + 'static,
    stop: &AtomicBool,
) -> Option<T> {
    // Until this function returns, the time counts as waiting for the network.
    let _request = Unanswered::begin();
    let (send, receive) = mpsc::sync_channel(1);
    let runtime = runtime().expect("`address::open` has started it");
    runtime.spawn(async move {
        // After `stop` nobody receives the result, and it is dropped.
        let _ = send.send(request.await);
    });
    loop {
        match receive.recv_timeout(STOP_EVERY) {
            Ok(result) => return Some(result),
            Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => return None,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => panic!("a request does not panic"),
        }
    }
}
