//! A server of S3 for tests: the objects of a bucket are the files of a folder. It can fail as networks do.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

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

use crate::lies::Lie;
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
    /// Time after the start within which all requests get the status 503.
    pub outage: Duration,
}

/// What the server does, and did.
struct State {
    faults: Faults,
    lie: Mutex<Option<Lie>>,
    started: Instant,
    requests: AtomicU64,
}

/// A running server with one bucket. It ends with the test process.
pub(crate) struct Bucket {
    root: PathBuf,
    prefix: &'static str,
    server: SocketAddr,
    has_keys: bool,
    state: Arc<State>,
}

impl Bucket {
    /// Starts a server whose objects have names below [`PREFIX`].
    pub(crate) fn start(name: &str, faults: Faults) -> Self {
        Self::start_at(PREFIX, name, faults)
    }

    /// Starts a server whose objects have names below `prefix`, which may be empty.
    pub(crate) fn start_at(prefix: &'static str, name: &str, faults: Faults) -> Self {
        Self::serving(prefix, name, faults, true)
    }

    /// Starts a server whose requests have no signatures, so that it can change them; see [`Bucket::lie`].
    pub(crate) fn without_keys(name: &str) -> Self {
        Self::serving(PREFIX, name, Faults::default(), false)
    }

    fn serving(prefix: &'static str, name: &str, faults: Faults, has_keys: bool) -> Self {
        let root = scratch(name);
        std::fs::create_dir_all(root.join(BUCKET).join(prefix)).unwrap();
        let mut service = S3ServiceBuilder::new(FileSystem::new(&root).unwrap());
        if has_keys {
            service.set_auth(SimpleAuth::from_single("key", "secret"));
        }
        let service = service.build();

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let state = Arc::new(State {
            faults,
            lie: Mutex::default(),
            started: Instant::now(),
            requests: AtomicU64::default(),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(serve(listener, service, shared));
        });
        Self {
            root: root.join(BUCKET),
            prefix,
            server,
            has_keys,
            state,
        }
    }

    /// Makes the server break a promise from now on, or keep all for `None`.
    pub(crate) fn lie(&self, lie: Option<Lie>) {
        *self.state.lie.lock().unwrap() = lie;
    }

    /// Returns the server's address.
    pub(crate) fn server(&self) -> String {
        format!("http://{}", self.server)
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

    /// Returns the address of the server.
    pub(crate) const fn endpoint(&self) -> SocketAddr {
        self.server
    }

    /// Returns the number of requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Makes a command use this server, with local copies in `cache`.
    pub(crate) fn used_by<'c>(&self, command: &'c mut Command, cache: &Path) -> &'c mut Command {
        command
            .env("AWS_ENDPOINT", self.server())
            .env("AWS_SKIP_SIGNATURE", (!self.has_keys).to_string())
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_ACCESS_KEY_ID", "key")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("AWS_REGION", "us-east-1")
            .env("WAVEMILL_CACHE", cache)
    }
}

async fn serve(listener: std::net::TcpListener, service: S3Service, state: Arc<State>) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let (service, state) = (service.clone(), Arc::clone(&state));
        let answer =
            service_fn(move |request| answer(service.clone(), request, Arc::clone(&state)));
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
    mut request: Request<Incoming>,
    state: Arc<State>,
) -> Result<Response<MaybeCut>, s3s::HttpError> {
    let number = state.requests.fetch_add(1, Ordering::Relaxed);
    let faults = state.faults;
    if is_hit(number, faults.late) {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let is_busy = is_hit(number, faults.busy) || state.started.elapsed() < faults.outage;
    let lie = *state.lie.lock().unwrap();
    let status = match is_busy {
        true => Some(StatusCode::SERVICE_UNAVAILABLE),
        false => lie.and_then(|lie| lie.apply(&mut request)),
    };
    if let Some(status) = status {
        let mut answer = Response::new(MaybeCut::whole(s3s::Body::empty()));
        *answer.status_mut() = status;
        return Ok(answer);
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
