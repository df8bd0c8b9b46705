//! Accepts connections with one request each, and closes connections that take too long.
//!
//! axum's accept loop has no timeout for the head of a request, so the server asks hyper directly. Each connection is
//! closed after its first request. A single timeout for the whole connection is therefore sufficient.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
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
    let places = Arc::new(Semaphore::new(limits.connections as usize));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            _ = stop.wait_for(|stop| *stop) => break,
        };

        match accepted {
            Ok((stream, _)) => {
                let whole = connection(stream, router.clone(), limits.head, stop.clone());
                let whole = timeout(limits.connection(), whole);
                tokio::spawn(async move {
                    let _ = whole.await;
                    drop(place);
                });
            }
            // The client has disconnected or too many files are open. The server continues in both cases.
            Err(_) => sleep(ACCEPT_AGAIN).await,
        }
    }

    // Close the listening socket: the system then rejects new connections.
    drop(listener);
    // All places are free when the last connection has ended.
    let _ = timeout(limits.connection(), places.acquire_many(limits.connections)).await;
}

async fn connection(
    stream: TcpStream,
    router: Router,
    head: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        _ = stop.wait_for(|stop| *stop) => {}
    }
    // Finish a request in progress. Close a connection that has not sent a request yet.
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}
