//! The state of the server, and the processing of a song.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::http::StatusCode;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::answer::Answer;
use super::gate::Gate;
use super::limits::Limits;
use super::metrics::Metrics;
use super::model::{Model, ModelSetup, ServeError};
use super::readers::{MakeReader, Permit, Readers};
use super::refusal::Refusal;
use super::upload::{self, Upload};

/// State of a server, shared by all connections.
pub(crate) struct Server {
    pub gate: Gate,
    pub limits: Limits,
    pub metrics: Metrics,
    readers: Arc<Readers>,
    models: Vec<Arc<Model>>,
    /// Permits for songs in progress, one per song.
    places: Arc<Semaphore>,
}

impl Server {
    pub(crate) fn new(
        gate: Gate,
        limits: Limits,
        reader: MakeReader,
        models: Vec<ModelSetup>,
    ) -> Self {
        let metrics = Metrics::new().expect("the names of the metrics are valid and unique");
        let models = models.into_iter().map(|model| {
            let starts = metrics.model_starts.with_label_values(&[&model.run]);
            Arc::new(Model::new(model, starts, limits.load, limits.answer))
        });

        Self {
            gate,
            readers: Arc::new(Readers::new(reader, limits.threads)),
            models: models.collect(),
            places: Arc::new(Semaphore::new(limits.in_flight)),
            metrics,
            limits,
        }
    }

    /// Returns the names of the models.
    pub(crate) fn runs(&self) -> Vec<&str> {
        self.models.iter().map(|model| &*model.setup.run).collect()
    }

    /// Starts the processes of all models that are not running.
    ///
    /// # Errors
    /// [`ServeError`] of the first model that cannot be started.
    pub(crate) async fn make_ready(&self) -> Result<(), ServeError> {
        for model in &self.models {
            model.make_ready().await?;
        }
        Ok(())
    }

    /// Ends the processes of the models.
    pub(crate) async fn end(&self) {
        for model in &self.models {
            model.end().await;
        }
    }

    /// Returns the names of the models that cannot handle a request now, and starts them in the background. Otherwise
    /// only the next song would start them, and a proxy might not send it before they are ready.
    pub(crate) fn restart_ended(&self) -> Vec<&str> {
        let ended = self.models.iter().filter(|model| !model.is_ready());
        ended
            .inspect(|model| model.restart())
            .map(|model| &*model.setup.run)
            .collect()
    }

    pub(crate) fn metrics_text(&self) -> String {
        let in_flight = self.limits.in_flight - self.places.available_permits();
        let models = self.models.iter();
        let models = models.map(|model| (&*model.setup.run, model.is_ready()));
        self.metrics.text(in_flight, models)
    }

    /// Receives an uploaded song and returns the predictions of all models for it.
    ///
    /// # Errors
    /// A [`Refusal`] with one of the statuses in the table of docs/serve.md.
    pub(crate) async fn predict(
        &self,
        request: Request,
        name: Option<String>,
    ) -> Result<Answer, Refusal> {
        // The permit is requested before the body is read, so that a rejected upload uses no memory.
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "{} songs are in progress, the maximum of this server; try again soon.",
                    self.limits.in_flight
                ),
            ));
        };
        let upload = upload::receive(request, name, &self.limits).await?;
        self.metrics.upload_bytes.inc_by(upload.bytes.len() as u64);

        let begin = Instant::now();
        let answer = timeout(self.limits.answer, self.answer(upload, Arc::new(place)));
        let answer = answer.await.unwrap_or_else(|_| {
            Err(Refusal::new(
                StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "The prediction took longer than {} s and was given up.",
                    self.limits.answer.as_secs()
                ),
            ))
        })?;
        self.metrics.took("whole", begin.elapsed().as_secs_f64());
        Ok(answer)
    }

    /// Returns the predictions of all models for a song.
    ///
    /// If the client disconnects or its time is over, this future is dropped. A song that waits for a reader or a model
    /// then leaves the queue. Work that has begun continues in a task, which holds `place` until it is complete.
    async fn answer(&self, upload: Upload, place: Permit) -> Result<Answer, Refusal> {
        let mut answer = Answer {
            file: upload.name.clone(),
            song: self.readers.read(upload, Arc::clone(&place)).await?,
            ..Answer::default()
        };
        self.metrics.took("decode", answer.song.decode_s);
        self.metrics.took("features", answer.song.features_s);

        let streams = std::mem::take(&mut answer.song.streams);
        for model in &self.models {
            let run = &model.setup.run;
            let stream = streams.get(model.setup.input).cloned().unwrap_or_default();
            let answered = model.ask(stream, Arc::clone(&place)).await;
            let answered = answered.map_err(|error| bad_gateway(&error))?;

            self.metrics.took("model", answered.seconds);
            answer
                .add(run, answered.seconds, &answered.lines)
                .map_err(|_| {
                    let message = format!("Model {run} did not return JSON lines.");
                    Refusal::new(StatusCode::BAD_GATEWAY, message)
                })?;
        }
        Ok(answer)
    }
}

/// Returns an error response with status 502, the cause, and the information that the model is restarted.
fn bad_gateway(error: &ServeError) -> Refusal {
    let mut message = error.to_string();
    if let Some(cause) = std::error::Error::source(error) {
        message = format!("{message}: {cause}");
    }
    Refusal::new(
        StatusCode::BAD_GATEWAY,
        format!("No prediction: {message}; the model is being restarted."),
    )
}
