//! Connections: one request each, and an end to everything that takes too long.
//!
//! axum's own loop has no limit on how long a client may take to send the head of a request, so this one is ours. A
//! connection brings one request and is closed behind it. So one limit on its whole life ends whatever was forgotten,
//! and there are no idle connections to be ended at the end.

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

/// Bytes of a request's head, at most.
const HEAD_BYTES: usize = 64 << 10;
/// Between two tries to accept, where the process has no file descriptor left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until `stop` says so, and then until the requests in progress have ended.
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

        // The ended ones are forgotten.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, router.clone(), limits.clone(), stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            // The client has gone, or there are too many files open: neither is a reason to end.
            Err(_) => sleep(ACCEPT_AGAIN).await,
        }
    }

    // Nobody new: what still wants to connect is refused by the system.
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
        // A request in progress is answered; one that has not come yet does not come any more.
        if is_asked.load(Ordering::Relaxed) {
            let _ = connection.await;
        }
    };
    let _ = timeout(limits.connection(), whole).await;
}
