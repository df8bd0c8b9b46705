//! A server of S3 for tests: the objects of a bucket are the files of a folder. It can fail as networks do.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

use crate::support::scratch;

/// Name of the only bucket.
const BUCKET: &str = "music";
/// Folder of all objects of most tests: names in a bucket differ from those below an address.
pub(crate) const PREFIX: &str = "team 1/archives";

/// Frequencies of the failures of the server. Requests are counted, so that all tests fail in the same way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// One of this number of requests gets the status 503; 0 for none.
    pub busy: u64,
    /// One of this number of requests is answered late; 0 for none.
    pub late: u64,
    /// One of this number of answers ends in the middle; 0 for none.
    pub cut: u64,
}

/// A running server with one bucket. It ends with the test process.
pub(crate) struct Bucket {
    root: PathBuf,
    prefix: &'static str,
    server: SocketAddr,
    requests: Arc<AtomicU64>,
}

impl Bucket {
    /// Starts a server whose objects have names below [`PREFIX`].
    pub(crate) fn start(name: &str, faults: Faults) -> Self {
        Self::start_at(PREFIX, name, faults)
    }

    /// Starts a server whose objects have names below `prefix`, which may be empty.
    pub(crate) fn start_at(prefix: &'static str, name: &str, faults: Faults) -> Self {
        let root = scratch(name);
        std::fs::create_dir_all(root.join(BUCKET).join(prefix)).unwrap();
        let mut service = S3ServiceBuilder::new(FileSystem::new(&root).unwrap());
        service.set_auth(SimpleAuth::from_single("key", "secret"));
        let service = service.build();

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let requests = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&requests);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .unwrap()
                .block_on(serve(listener, service, faults, counted));
        });
        Self {
            root: root.join(BUCKET),
            prefix,
            server,
            requests,
        }
    }

    /// Returns the folder whose files are all objects of the bucket.
    pub(crate) fn root(&self) -> PathBuf {
        self.root.clone()
    }

    /// Returns the folder whose files are the objects of the test.
    pub(crate) fn folder(&self) -> PathBuf {
        self.root.join(self.prefix)
    }

    /// Returns the address of an object or folder of the test.
    pub(crate) fn address(&self, name: &str) -> String {
        match self.prefix {
            "" => format!("s3://{BUCKET}/{name}"),
            prefix => format!("s3://{BUCKET}/{prefix}/{name}"),
        }
    }

    /// Returns the number of requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Makes a command use this server, with local copies in `cache`.
    pub(crate) fn used_by<'c>(&self, command: &'c mut Command, cache: &Path) -> &'c mut Command {
        command
            .env("AWS_ENDPOINT", format!("http://{}", self.server))
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_ACCESS_KEY_ID", "key")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("AWS_REGION", "us-east-1")
            .env("WAVEMILL_CACHE", cache)
    }
}

async fn serve(
    listener: std::net::TcpListener,
    service: S3Service,
    faults: Faults,
    requests: Arc<AtomicU64>,
) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let (service, requests) = (service.clone(), Arc::clone(&requests));
        let answer = service_fn(move |request| {
            let number = requests.fetch_add(1, Ordering::Relaxed);
            answer(service.clone(), request, faults, number)
        });
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new();
            // A client that goes away, or an answer that is cut, ends the connection.
            let _ = connection
                .serve_connection(TokioIo::new(socket), answer)
                .await;
        });
    }
}

fn is_hit(number: u64, of: u64) -> bool {
    of > 0 && number % of == of - 1
}

async fn answer(
    service: S3Service,
    request: Request<Incoming>,
    faults: Faults,
    number: u64,
) -> Result<Response<MaybeCut>, s3s::HttpError> {
    if is_hit(number, faults.late) {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    if is_hit(number, faults.busy) {
        let mut busy = Response::new(MaybeCut::whole(s3s::Body::empty()));
        *busy.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return Ok(busy);
    }

    let answer = service.call(request.map(s3s::Body::from)).await?;
    Ok(answer.map(|body| match is_hit(number, faults.cut) {
        true => MaybeCut::cut(body),
        false => MaybeCut::whole(body),
    }))
}

/// The body of an answer, which may end after half of its bytes.
struct MaybeCut {
    body: s3s::Body,
    left: u64,
}

impl MaybeCut {
    fn whole(body: s3s::Body) -> Self {
        let left = u64::MAX;
        Self { body, left }
    }

    fn cut(body: s3s::Body) -> Self {
        let bytes = http_body::Body::size_hint(&body).lower();
        let left = bytes / 2;
        Self { body, left }
    }
}

impl http_body::Body for MaybeCut {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left == 0 {
            return Poll::Ready(Some(Err("cut".into())));
        }
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if self.left == u64::MAX {
            return frame;
        }
        frame.map_ok(|frame| {
            let Ok(mut data) = frame.into_data() else {
                return Frame::data(Bytes::new());
            };
            data.truncate(self.left as usize);
            self.left -= data.len() as u64;
            Frame::data(data)
        })
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.body)
    }

    fn is_end_stream(&self) -> bool {
        self.left == u64::MAX && http_body::Body::is_end_stream(&self.body)
    }
}
