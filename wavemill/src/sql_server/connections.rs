//! Accepts clients, and passes their messages to `datafusion-postgres` one after the other.
//!
//! The library's own loop can neither end a query that returns rows slowly nor tell a refused client the reason. This
//! loop handles each message beside everything that may end it: the time limit, the client's request to cancel, its
//! disappearance, and the end of the server.

use std::any::Any;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use datafusion_postgres::DfSessionService;
use datafusion_postgres::pgwire::api::cancel::CancelHandler;
use datafusion_postgres::pgwire::api::query::ExtendedQueryHandler;
use datafusion_postgres::pgwire::api::store::PortalStore as _;
use datafusion_postgres::pgwire::api::{
    ClientInfo as _, ClientPortalStore as _, NoopHandler, PgWireConnectionState,
};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireFrontendMessage;
use datafusion_postgres::pgwire::messages::cancel::CancelRequest;
use datafusion_postgres::pgwire::tokio::server::{
    MaybeTls, PgWireMessageServerCodec, negotiate_tls, process_error, process_message,
};
use futures::{FutureExt as _, StreamExt as _};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet, block_in_place, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_util::codec::Framed;
use wavemill_runtime::panics::{Panic, caught};
use wavemill_sql::{SharedSession, SqlError};
use wavemill_statements::n_postgres_statements;

use super::SqlServer;
use super::errors::{
    ADMIN_SHUTDOWN, INTERNAL, PROTOCOL_VIOLATION, QUERY_CANCELED, SYNTAX, TOO_COMPLEX,
    TOO_MANY_CONNECTIONS, error, explained, fatal,
};
use super::statements::{hooks, select_schema};
use super::streaming::Streaming;

/// A connection with the state of the protocol.
pub(super) type Socket = Framed<
    MaybeTls,
    PgWireMessageServerCodec<<DfSessionService as ExtendedQueryHandler>::Statement>,
>;

/// Maximum time from accepting a client to its first query: for TLS and the password.
const STARTUP: Duration = Duration::from_secs(10);
/// Maximum number of sockets in addition to `--connections`: clients that are refused, and requests to cancel.
const N_MORE_SOCKETS: usize = 32;
/// Delay before accepting again after an error, for example if the process has no free file descriptor.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Interval at which the server checks whether the client of a running query has disconnected.
const LOOK: Duration = Duration::from_secs(1);
/// Maximum length of a statement in bytes. Its expressions may be nested as deeply as it is long.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Maximum number of statements in a text.
const STATEMENTS_MAX: usize = 64;
/// Maximum number of bytes of a message before the password was checked, and of a later one, which may have parameters.
const STARTUP_BYTES_MAX: usize = 64 << 10;
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Time without a message after which the system asks whether the client's machine still exists, and then three times.
const IDLE: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_secs(20);
const N_ASKED: u32 = 3;
/// Maximum time from the first byte of a message to its last one.
const MESSAGE: Duration = Duration::from_secs(60);
/// Maximum time in which clients are told that the server ends.
const FAREWELL: Duration = Duration::from_secs(2);
/// Key under which the library stores the client's `statement_timeout`, in milliseconds.
pub(super) const STATEMENT_TIMEOUT: &str = "statement_timeout_ms";

/// Serves connections until `stop` is set to true, and then ends them.
pub(super) async fn serve(
    server: &Arc<SqlServer>,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
) {
    let sockets = Arc::new(Semaphore::new(server.n_connections + N_MORE_SOCKETS));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = Arc::clone(&sockets).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = stopped(&mut stop) => break,
        };

        // Remove the tasks of connections that have ended.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let (server, stop) = (Arc::clone(server), stop.clone());
                connections.spawn(async move {
                    // An error means that the client has disconnected.
                    let _ = connection(stream, &server, stop).await;
                    drop(place);
                });
            }
            // The client has disconnected or too many files are open. The server continues in both cases.
            Err(_) => sleep(ACCEPT_AGAIN).await,
        }
    }

    // Close the listening socket: the system then rejects new connections.
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(FAREWELL, all).await;
}

async fn connection(
    stream: TcpStream,
    server: &Arc<SqlServer>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    // The other handle of the socket shows whether the client has disconnected while a query runs.
    let stream = stream.into_std()?;
    // A machine that vanishes does not close its connections, which would hold places for ever.
    let keepalive = TcpKeepalive::new()
        .with_time(IDLE)
        .with_interval(ASK_AGAIN)
        .with_retries(N_ASKED);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    let probe = TcpStream::from_std(stream.try_clone()?)?;
    let stream = TcpStream::from_std(stream)?;

    let begun = tokio::select! {
        begun = timeout(STARTUP, begin(stream, server)) => begun,
        () = stopped(&mut stop) => return Ok(()),
    };
    let Ok(Some((mut socket, _place))) = begun.unwrap_or(Ok(None)) else {
        return Ok(());
    };

    let opener = Arc::clone(server);
    let session = match spawn_blocking(move || opener.open()).await {
        Ok(Ok(session)) => Arc::new(session),
        Ok(Err(cause)) => {
            return process_error(&mut socket, fatal(INTERNAL, cause.to_string()), true).await;
        }
        Err(lost) => return process_error(&mut socket, unfinished(lost), true).await,
    };

    let metadata = socket.metadata();
    let own = metadata.get("search_path").map(String::as_str);
    // The parameter `options` has settings in the form `-c search_path=a,b`.
    let options = metadata.get("options").map_or("", String::as_str);
    let in_options = options.split_once("search_path=").map(|(_, path)| path);
    let in_options = in_options.and_then(|path| path.split(' ').next());
    select_schema(session.context(), own.or(in_options).unwrap_or_default());

    let service = Arc::new(DfSessionService::new_with_hooks(
        Arc::new(session.context().clone()),
        hooks(&session),
    ));
    let connection = Connection {
        streaming: Arc::new(Streaming(Arc::clone(&service))),
        service,
        server: Arc::clone(server),
        session,
        probe,
        stop,
    };
    connection.answer_all(&mut socket).await
}

/// Negotiates TLS and the password. Returns `None` if the client was refused, or only wanted to cancel a query.
async fn begin(
    stream: TcpStream,
    server: &SqlServer,
) -> PgWireResult<Option<(Socket, OwnedSemaphorePermit)>> {
    let Some(mut socket): Option<Socket> = negotiate_tls(stream, server.access.tls()).await? else {
        return Ok(None);
    };
    let Some(first) = next_of_stranger(&mut socket).await? else {
        return Ok(None);
    };
    if let PgWireFrontendMessage::CancelRequest(request) = first {
        server.running.on_cancel_request(request).await;
        return Ok(None);
    }

    match start(&mut socket, server, first).await {
        Ok(place) => Ok(place.map(|place| (socket, place))),
        Err(refused) => {
            process_error(&mut socket, refused, true).await?;
            Ok(None)
        }
    }
}

async fn start(
    socket: &mut Socket,
    server: &SqlServer,
    first: PgWireFrontendMessage,
) -> PgWireResult<Option<OwnedSemaphorePermit>> {
    let Ok(place) = Arc::clone(&server.places).try_acquire_owned() else {
        let message = format!(
            "too many connections: this server permits {} (--connections)",
            server.n_connections
        );
        return Err(fatal(TOO_MANY_CONNECTIONS, message));
    };

    let startup = server.access.startup(socket)?;
    startup.handle(socket, first).await?;
    while !matches!(socket.state(), PgWireConnectionState::ReadyForQuery) {
        let Some(message) = next_of_stranger(socket).await? else {
            return Ok(None);
        };
        startup.handle(socket, message).await?;
    }
    Ok(Some(place))
}

/// Returns the next message of a client who has not given the password yet, or `None` if the client has disconnected.
async fn next_of_stranger(socket: &mut Socket) -> PgWireResult<Option<PgWireFrontendMessage>> {
    poll_fn(|context| poll_message(socket, STARTUP_BYTES_MAX, context)).await
}

/// Returns the next message, or `None` if the client has disconnected. There is no limit of the time until a message
/// begins, but of the time that its bytes take.
async fn next_message(socket: &mut Socket) -> PgWireResult<Option<PgWireFrontendMessage>> {
    let begun = poll_fn(
        |context| match poll_message(socket, MESSAGE_BYTES_MAX, context) {
            Poll::Pending if !socket.read_buffer().is_empty() => Poll::Ready(None),
            polled => polled.map(Some),
        },
    )
    .await;
    if let Some(whole) = begun {
        return whole;
    }

    let rest = poll_fn(|context| poll_message(socket, MESSAGE_BYTES_MAX, context));
    timeout(MESSAGE, rest).await.unwrap_or_else(|_| {
        let message = format!("a message that takes longer than {} s", MESSAGE.as_secs());
        Err(fatal(PROTOCOL_VIOLATION, message))
    })
}

/// Polls for the next message, of which the library keeps all bytes until the last one has arrived.
fn poll_message(
    socket: &mut Socket,
    bytes_max: usize,
    context: &mut Context<'_>,
) -> Poll<PgWireResult<Option<PgWireFrontendMessage>>> {
    // The library panics if a message is shorter than its type requires.
    let broken = match caught(|| socket.poll_next_unpin(context)) {
        Ok(Poll::Ready(message)) => return Poll::Ready(message.transpose()),
        Ok(Poll::Pending) if socket.read_buffer().len() <= bytes_max => return Poll::Pending,
        Ok(Poll::Pending) => "a message that is too long",
        Err(_) => "a message that cannot be read",
    };
    Poll::Ready(Err(fatal(PROTOCOL_VIOLATION, broken)))
}

/// Refuses a text that is too long, can be read in too many ways, or has too many statements: the library begins all of
/// them before it sends rows.
fn limited(message: PgWireFrontendMessage) -> Result<PgWireFrontendMessage, Stopped> {
    let refused = |message| Err(Stopped::Failed(error(TOO_COMPLEX, message)));
    let text = match &message {
        PgWireFrontendMessage::Query(query) => query.query.as_str(),
        PgWireFrontendMessage::Parse(parse) => parse.query.as_str(),
        _ => "",
    };
    if text.len() > TEXT_BYTES_MAX {
        return refused(format!("a statement of more than {TEXT_BYTES_MAX} bytes"));
    }

    let n_statements = match n_postgres_statements(text) {
        Ok(n_statements) => n_statements.unwrap_or(0),
        Err(too_complex) => return refused(too_complex.to_string()),
    };
    // The library would execute only the first statement of a prepared text.
    if n_statements > 1 && matches!(message, PgWireFrontendMessage::Parse(_)) {
        let words = "cannot insert multiple commands into a prepared statement";
        return Err(Stopped::Failed(error(SYNTAX, words)));
    }

    // A semicolon may also be a part of a text or of a comment.
    if text.matches(';').count() > STATEMENTS_MAX {
        return refused(format!(
            "more than {STATEMENTS_MAX} statements in a message"
        ));
    }
    Ok(message)
}

/// A client with its session.
struct Connection {
    server: Arc<SqlServer>,
    session: Arc<SharedSession>,
    service: Arc<DfSessionService>,
    streaming: Arc<Streaming>,
    probe: TcpStream,
    stop: watch::Receiver<bool>,
}

impl Connection {
    /// Answers messages until the client disconnects or the server ends.
    async fn answer_all(mut self, socket: &mut Socket) -> io::Result<()> {
        let server = Arc::clone(&self.server);
        let cancel = server.running.register(socket);
        loop {
            let message = tokio::select! {
                // In this order, so that no message is answered that arrives after the server was stopped.
                biased;
                () = stopped(&mut self.stop) => {
                    return process_error(socket, ending(), true).await;
                }
                message = next_message(socket) => message,
            };
            let message = match message {
                Ok(None | Some(PgWireFrontendMessage::Terminate(_))) => return Ok(()),
                Ok(Some(message)) => message,
                Err(broken) => return process_error(socket, broken, true).await,
            };

            let is_extended = message.is_extended_query();
            let limit = self.limit(socket);
            match self.answer(socket, message, &cancel.requested).await {
                Ok(()) => {}
                Err(Stopped::Disconnected) => return Ok(()),
                Err(Stopped::Failed(failed)) => {
                    // A cursor may have stopped in the middle of a batch.
                    socket.portal_store().clear_portals();
                    let failed = self.explained(failed, limit, &cancel.requested).await;
                    process_error(socket, failed, is_extended).await?;
                }
                Err(Stopped::Fatal(failed)) => return process_error(socket, failed, true).await,
            }
        }
    }

    /// Answers one message, unless something stops it. Dropping the answer ends the query.
    async fn answer(
        &mut self,
        socket: &mut Socket,
        message: PgWireFrontendMessage,
        cancel: &Notify,
    ) -> Result<(), Stopped> {
        let limit = self.limit(socket);
        let answered = AssertUnwindSafe(process_message(
            // Parsing may take seconds, in which other connections go on.
            block_in_place(|| limited(message))?,
            socket,
            Arc::new(NoopHandler),
            Arc::clone(&self.service),
            Arc::clone(&self.streaming),
            Arc::new(NoopHandler),
            Arc::new(NoopHandler),
        ))
        .catch_unwind();

        let too_long = || {
            let message = format!("the query took longer than {} s", limit.as_secs_f64());
            error(QUERY_CANCELED, message)
        };
        tokio::select! {
            answered = answered => match answered {
                Ok(answered) => answered.map_err(Stopped::Failed),
                // A damaged file may be the cause of a reader's panic, so it is explained like any other failure.
                Err(panic) => Err(Stopped::Failed(panicked(panic.as_ref()))),
            },
            () = sleep(limit) => Err(Stopped::Failed(too_long())),
            () = cancel.notified() => Err(Stopped::Failed(PgWireError::QueryCanceled)),
            () = disconnected(&self.probe) => Err(Stopped::Disconnected),
            () = stopped(&mut self.stop) => Err(Stopped::Fatal(ending())),
        }
    }

    /// Returns the time limit of the next message: the server's, or the client's own if it is shorter.
    fn limit(&self, socket: &Socket) -> Duration {
        let own = socket.metadata().get(STATEMENT_TIMEOUT);
        let own = own.and_then(|text| text.parse().ok());
        let own = own.map(Duration::from_millis);
        own.unwrap_or(Duration::MAX).min(self.server.query_timeout)
    }

    /// Finds the cause of a failure. This may read whole files, so that it ends in the same ways as a query.
    async fn explained(
        &mut self,
        failed: PgWireError,
        limit: Duration,
        cancel: &Notify,
    ) -> PgWireError {
        let session = Arc::clone(&self.session);
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let mut search = spawn_blocking(move || explained(failed, &session, &stopping));

        tokio::select! {
            found = &mut search => return found.unwrap_or_else(unfinished),
            () = sleep(limit) => {}
            () = cancel.notified() => {}
            () = disconnected(&self.probe) => {}
            () = stopped(&mut self.stop) => {}
        }

        stop.store(true, Ordering::Relaxed);
        search.await.unwrap_or_else(unfinished)
    }
}

/// The reason why a message was not answered.
enum Stopped {
    Disconnected,
    /// The connection continues with the next message.
    Failed(PgWireError),
    /// The error is the last message of the connection.
    Fatal(PgWireError),
}

/// Waits until the server is stopped.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody can stop the server any more.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Waits until the client has closed its side of the connection.
async fn disconnected(probe: &TcpStream) {
    loop {
        sleep(LOOK).await;
        match probe.ready(Interest::READABLE).now_or_never() {
            Some(Ok(ready)) if ready.is_read_closed() => return,
            Some(Err(_)) => return,
            _ => {}
        }
    }
}

fn ending() -> PgWireError {
    fatal(ADMIN_SHUTDOWN, "the server was stopped")
}

fn panicked(payload: &(dyn Any + Send)) -> PgWireError {
    PgWireError::ApiError(Box::new(SqlError::from(Panic::from_payload(payload))))
}

/// Returns the error of a task that panicked, or that was cancelled because the server ends.
fn unfinished(lost: JoinError) -> PgWireError {
    match lost.try_into_panic() {
        Ok(payload) => fatal(INTERNAL, Panic::from_payload(payload.as_ref()).to_string()),
        Err(_) => ending(),
    }
}

/// The connections whose queries can be cancelled, by the keys that their clients received.
#[derive(Default)]
pub(super) struct RunningQueries(Mutex<HashMap<CancelKey, Arc<Notify>>>);

/// Number and secret of a connection.
type CancelKey = (i32, Vec<u8>);

/// A connection in [`RunningQueries`], until it is dropped.
struct Cancellable<'a> {
    running: &'a RunningQueries,
    key: CancelKey,
    requested: Arc<Notify>,
}

impl RunningQueries {
    fn register(&self, socket: &Socket) -> Cancellable<'_> {
        let (pid, secret) = socket.pid_and_secret_key();
        let key = (pid, secret.to_bytes().to_vec());
        let requested = Arc::new(Notify::new());
        self.lock().insert(key.clone(), Arc::clone(&requested));
        Cancellable {
            running: self,
            key,
            requested,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CancelKey, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cancellable<'_> {
    fn drop(&mut self) {
        self.running.lock().remove(&self.key);
    }
}

#[async_trait]
impl CancelHandler for RunningQueries {
    async fn on_cancel_request(&self, request: CancelRequest) {
        let key = (request.pid, request.secret_key.to_bytes().to_vec());
        if let Some(requested) = self.lock().get(&key) {
            // Only a running query waits for this. A request that comes too late has no effect.
            requested.notify_waiters();
        }
    }
}
