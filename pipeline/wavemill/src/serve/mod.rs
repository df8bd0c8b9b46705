//! HTTP server with a web page that predicts the classes of uploaded songs.
//!
//! [`upload`] receives a song. [`readers`] passes it to a [`Reader`], which decodes it and computes feature rows; the
//! implementation is in `cli/serve/songs.rs`. The trainer's program computes the predictions, in one process per model
//! ([`model`]). [`answer`] makes the body of the response, for the routes in [`api`]. Uploads are never written to
//! disk. [`limits`] names for each limit the module that enforces it; that module creates the error response, and
//! [`refusal`] only formats it.
//!
//! This module does not know which program computes the predictions or how a file is decoded. The command line passes
//! both functions.

mod answer;
mod api;
mod connections;
mod gate;
mod limits;
mod metrics;
mod model;
mod page;
mod readers;
mod refusal;
mod server;
#[cfg(any(test, fuzzing))]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod upload;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;

pub(crate) use answer::text;
pub(crate) use gate::Gate;
pub(crate) use limits::Limits;
pub(crate) use model::{ModelSetup, ServeError};
pub(crate) use readers::{Reader, Song, Spectrogram, Unreadable};
pub(crate) use server::Server;
pub(crate) use upload::Upload;

/// Serves requests until `stop` is set to true, and then finishes the requests in progress and ends the models.
pub(crate) async fn run(server: &Arc<Server>, listener: TcpListener, stop: watch::Receiver<bool>) {
    let router = api::router(server);
    connections::serve(listener, router, &server.limits, stop).await;
    server.end().await;
}
