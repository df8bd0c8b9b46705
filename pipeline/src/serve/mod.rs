//! A web page, and an HTTP interface, that answers for a song.
//!
//! A song comes in ([`upload`]), is decoded and becomes feature rows ([`song`], by the same code as `wavemill
//! features`), and is answered by the trainer's program, one process a model ([`model`]). Nothing of an upload touches
//! a disk. What takes too long or too much is refused in a sentence ([`refusal`], [`limits`]).
//!
//! Nothing here knows which program answers, or how a file is read: the command line gives both.

mod answer;
mod api;
mod connections;
mod gate;
mod limits;
mod metrics;
mod model;
mod page;
mod refusal;
mod server;
mod song;
#[cfg(test)]
mod tests;
mod upload;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;

pub(crate) use limits::Limits;
pub(crate) use model::{ModelError, ModelSetup};
pub(crate) use server::{Server, ServerSetup};
pub(crate) use song::{Reader, Song, Spectrogram, Unreadable};
pub(crate) use upload::Upload;

/// Answers until `stop` says so, and then ends the requests in progress, and the models.
pub(crate) async fn run(server: &Arc<Server>, listener: TcpListener, stop: watch::Receiver<bool>) {
    let router = api::router(server);
    connections::serve(listener, router, &server.limits, stop).await;
    server.end().await;
}
