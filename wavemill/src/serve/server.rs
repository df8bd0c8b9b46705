//! The state of the server, and the processing of a song.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::extract::Request;
use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::answer::Answer;
use super::gate::Gate;
use super::limits::{Limits, RETRY_AFTER_S};
use super::metrics::{Metrics, Part};
use super::model::{Model, ModelError, ModelSetup};
use super::readers::{MakeReader, Readers};
use super::refusal::Refusal;
use super::upload::{self, Upload};

/// Configuration of a server.
pub(crate) struct ServerSetup {
    /// Address on which the server listens.
    pub address: IpAddr,
    /// Host names that the server accepts in addition to `localhost`.
    pub names: Vec<String>,
    pub limits: Limits,
    pub reader: MakeReader,
    pub models: Vec<ModelSetup>,
}

/// State of a server, shared by all connections.
pub(crate) struct Server {
    pub gate: Gate,
    pub limits: Limits,
    pub metrics: Metrics,
    readers: Arc<Readers>,
    models: Vec<Model>,
    /// Permits for songs in progress, one per song.
    places: Arc<Semaphore>,
    /// True while models are restarted for a request that asked whether they are ready.
    is_restarting: AtomicBool,
}

impl Server {
    pub(crate) fn new(setup: ServerSetup) -> Self {
        let limits = setup.limits;
        let metrics = Metrics::new().expect("the names of the metrics are valid and unique");

        let mut models = Vec::new();
        for model in setup.models {
            let starts = metrics.model_starts(&model.run);
            models.push(Model::new(model, starts, limits.load, limits.answer));
        }

        Self {
            gate: Gate {
                address: setup.address,
                names: setup.names,
            },
            metrics,
            readers: Arc::new(Readers::new(setup.reader, limits.threads)),
            models,
            places: Arc::new(Semaphore::new(limits.in_flight)),
            is_restarting: AtomicBool::new(false),
            limits,
        }
    }

    /// Returns the names of the models.
    pub(crate) fn runs(&self) -> Vec<&str> {
        self.models.iter().map(Model::run).collect()
    }

    /// Starts the processes of all models that are not running.
    ///
    /// # Errors
    /// [`ModelError`] of the first model that cannot be started.
    pub(crate) async fn make_ready(&self) -> Result<(), ModelError> {
        for model in &self.models {
            model.make_ready().await?;
        }
        Ok(())
    }

    /// Starts the models in the background unless a call before does so: a model may need minutes to load.
    pub(crate) fn restart(self: &Arc<Self>) {
        if self.is_restarting.swap(true, Ordering::Relaxed) {
            return;
        }
        let server = Arc::clone(self);
        tokio::spawn(async move {
            // A model that cannot be started is reported as not ready.
            let _ = server.make_ready().await;
            server.is_restarting.store(false, Ordering::Relaxed);
        });
    }

    /// Ends the processes of the models.
    pub(crate) async fn end(&self) {
        for model in &self.models {
            model.end().await;
        }
    }

    /// Returns the names of the models that cannot handle a request now.
    pub(crate) fn not_ready(&self) -> Vec<&str> {
        let not_ready = self.models.iter().filter(|model| !model.is_ready());
        not_ready.map(Model::run).collect()
    }

    pub(crate) fn metrics_text(&self) -> String {
        let in_flight = self.limits.in_flight - self.places.available_permits();
        let models = self.models.iter();
        let models: Vec<_> = models
            .map(|model| (model.run(), model.is_ready()))
            .collect();
        self.metrics.text(in_flight, &models)
    }

    /// Receives an uploaded song and returns the predictions of all models for it.
    ///
    /// # Errors
    /// A [`Refusal`] with one of the statuses in the table of docs/serve.md.
    pub(crate) async fn predict(
        self: &Arc<Self>,
        request: Request,
        name: Option<String>,
    ) -> Result<Answer, Refusal> {
        // The permit is requested before the body is read, so that a rejected upload uses no memory.
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            upload::drain_aside(request.into_body());
            return Err(Refusal {
                retry_after_s: Some(RETRY_AFTER_S),
                ..Refusal::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!(
                        "{} songs are in progress, the maximum of this server; try again soon.",
                        self.limits.in_flight
                    ),
                )
            });
        };
        let upload = upload::receive(request, name, &self.limits).await?;
        self.metrics.uploaded(upload.bytes.len());

        let (tell, told) = oneshot::channel();
        // Use a separate task: if a client disconnects, no model is interrupted in the middle of a reply, and the
        // permit is held until the work is complete.
        tokio::spawn(Arc::clone(self).work(upload, place, tell));
        match timeout(self.limits.answer, told).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_)) => Err(Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Internal error: no prediction was returned.",
            )),
            Err(_) => Err(Refusal::new(
                StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "The prediction took longer than {} s and was given up.",
                    self.limits.answer.as_secs()
                ),
            )),
        }
    }

    async fn work(
        self: Arc<Self>,
        upload: Upload,
        place: OwnedSemaphorePermit,
        mut tell: oneshot::Sender<Result<Answer, Refusal>>,
    ) {
        let begin = Instant::now();
        let answered = self.answered(upload, &mut tell).await;
        if answered.is_ok() {
            let seconds = begin.elapsed().as_secs_f64();
            self.metrics.took(Part::Whole, seconds);
        }

        // Release the permit first, because the client may send the next song as soon as it gets the response.
        drop(place);
        let is_broken =
            matches!(&answered, Err(refusal) if refusal.status == StatusCode::BAD_GATEWAY);
        let _ = tell.send(answered);
        // Restart the model now, so that the next song need not wait for it. If the restart fails, the next song gets
        // the error.
        if is_broken {
            let _ = self.make_ready().await;
        }
    }

    async fn answered(
        &self,
        upload: Upload,
        tell: &mut oneshot::Sender<Result<Answer, Refusal>>,
    ) -> Result<Answer, Refusal> {
        let mut answer = Answer {
            file: upload.name.clone(),
            ..Answer::default()
        };
        let turn = unless_gone(tell, self.readers.turn()).await?;
        answer.song = self.readers.read(upload, turn).await?;
        self.metrics.took(Part::Decode, answer.song.decode_s);
        self.metrics.took(Part::Features, answer.song.features_s);

        let streams = std::mem::take(&mut answer.song.streams);
        for model in &self.models {
            let turn = unless_gone(tell, model.turn()).await?;
            let stream = streams.get(model.input()).map_or(&[][..], Vec::as_slice);
            let answered = model
                .ask(turn, stream)
                .await
                .map_err(|error| bad_gateway(&error))?;

            self.metrics.took(Part::Model, answered.seconds);
            answer
                .add(model.run(), answered.seconds, &answered.lines)
                .map_err(|_| {
                    let words = format!("Model {} did not return JSON lines.", model.run());
                    Refusal::new(StatusCode::BAD_GATEWAY, words)
                })?;
        }
        Ok(answer)
    }
}

/// Waits for `turn`, unless the client disconnects or its time is over: such songs leave the queue, so that a busy model
/// works for those who still wait.
async fn unless_gone<T>(
    tell: &mut oneshot::Sender<Result<Answer, Refusal>>,
    turn: impl Future<Output = T>,
) -> Result<T, Refusal> {
    tokio::select! {
        biased;
        () = tell.closed() => Err(Refusal::bad_request("The client has disconnected.")),
        turn = turn => Ok(turn),
    }
}

/// Returns an error response with status 502, the cause, and the information that the model is restarted.
fn bad_gateway(error: &ModelError) -> Refusal {
    let mut words = error.to_string();
    if let Some(cause) = std::error::Error::source(error) {
        words = format!("{words}: {cause}");
    }
    Refusal::new(
        StatusCode::BAD_GATEWAY,
        format!("No prediction: {words}; the model is being restarted."),
    )
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn a_song_leaves_the_queue_with_its_client() {
        let (mut tell, _told) = oneshot::channel();
        assert_eq!(unless_gone(&mut tell, ready(7)).await.ok(), Some(7));

        let (mut tell, told) = oneshot::channel();
        drop(told);
        let turn = unless_gone(&mut tell, pending::<()>()).await;
        assert!(turn.is_err());
    }
}
