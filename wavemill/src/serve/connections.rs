//! Accepts connections with one request each, and closes connections that take too long.
//!
//! axum's accept loop has no timeout for the head of a request, so the server uses its own loop. Each connection is
//! closed after its first request. A single timeout for the whole connection is therefore sufficient, and no idle
//! connections have to be closed at shutdown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::limits::Limits;

/// Maximum size of a request's head in bytes.
const HEAD_BYTES: usize = 64 << 10;
/// Delay before accepting again after an error, for example if the process has no free file descriptor.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves connections until `stop` is set to true, and then waits until the requests in progress have ended.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &Limits,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let next = async {
            let place = place.await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            _ = stop.wait_for(|stop| *stop) => break,
        };

        // Remove the tasks of connections that have ended.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, router.clone(), limits.clone(), stop.clone());
                connections.spawn(async move {
                    connection.await;
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
    let _ = timeout(limits.connection(), all).await;
}

async fn connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    let is_asked = Arc::new(AtomicBool::new(false));
    let inner = TowerToHyperService::new(router);
    let service = service_fn({
        let is_asked = Arc::clone(&is_asked);
        move |request| {
            is_asked.store(true, Ordering::Relaxed);
            inner.call(request)
        }
    });

    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let whole = async {
        tokio::pin!(connection);
        tokio::select! {
            _ = &mut connection => return,
            _ = stop.wait_for(|stop| *stop) => {}
        }
        // Finish a request in progress. Close a connection that has not sent a request yet.
        if is_asked.load(Ordering::Relaxed) {
            let _ = connection.await;
        }
    };
    let _ = timeout(limits.connection(), whole).await;
}
