//! Requests to a server, each with a limit of time.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::http::Response;
use ureq::{Agent, Body, RequestBuilder, Timeout};
use wavemill_schemas::text::shown;

use super::address::Address;
use super::{Ending, TrackingError};

/// Bytes of an answer. The longest that is read is one run with its tags.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Characters of a server's words that are told.
const MESSAGE_CHARS_MAX: usize = 300;

/// How artifacts' places begin that the server itself takes files for.
const PROXIED: &str = "mlflow-artifacts:";

/// How long who waits for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// The look before a run begins.
    pub(super) check: Duration,
    /// One request, from the look-up of the server's name to the last byte of the answer; and all requests of an epoch.
    pub(super) request: Duration,
    /// All requests at the end of a run, which waits for them.
    pub(super) end: Duration,
    /// Of these, what is kept back for the last one, which says how the run ended.
    pub(super) status: Duration,
    /// Between two tries at the end of a run.
    pub(super) retry: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            check: Duration::from_secs(30),
            // MLflow on a busy machine was seen to take more than 10 s.
            request: Duration::from_secs(20),
            end: Duration::from_secs(30),
            status: Duration::from_secs(10),
            retry: Duration::from_millis(500),
        }
    }
}

/// A server, and the experiment in which runs are made there.
#[derive(Debug)]
pub(crate) struct Server {
    address: Address,
    experiment: String,
    agent: Agent,
    pub(super) patience: Patience,
}

/// A run at a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RemoteRun {
    pub(super) id: String,
    pub(super) experiment_id: String,
    /// Where its files go, such as `mlflow-artifacts:/1/0a1b…/artifacts`.
    artifacts: String,
}

impl Server {
    /// The server at `uri`, with credentials from there or from the variables of MLflow's own client. Asks nothing yet.
    ///
    /// # Errors
    /// [`TrackingError::Uri`].
    pub(crate) fn new(uri: &str, experiment: &str) -> Result<Self, TrackingError> {
        // An empty variable is as good as none.
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let address = Address::parse(uri, variable)?;

        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Elsewhere credentials would be another's. What comes instead is told with its status.
            .max_redirects(0)
            .max_redirects_will_error(false)
            // Epochs take longer than servers keep a connection.
            .max_idle_connections(0)
            .user_agent(concat!("wavemill-train/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            address,
            experiment: experiment.to_owned(),
            agent: config.new_agent(),
            patience: Patience::default(),
        })
    }

    /// Its address, without credentials.
    pub(crate) fn address(&self) -> &str {
        &self.address.base
    }

    /// Name of the experiment.
    pub(super) fn experiment(&self) -> &str {
        &self.experiment
    }

    /// Whether it answers and lets us in; makes the experiment where it lacks.
    ///
    /// # Errors
    /// [`TrackingError`], after 30 s at most.
    pub(crate) fn check(&self) -> Result<(), TrackingError> {
        self.experiment_id(Instant::now() + self.patience.check)?;
        Ok(())
    }

    /// The experiment's id; made where it lacks.
    pub(super) fn experiment_id(&self, until: Instant) -> Result<String, TrackingError> {
        match self.named_experiment(until) {
            Err(error) if error.is_missing() => {}
            found => return found,
        }

        let path = "mlflow/experiments/create";
        let made = self.post(path, &json!({"name": self.experiment}), until);
        match made {
            Ok(made) => self.text(path, &made["experiment_id"]),
            // Another run made it in between, or it was deleted.
            Err(TrackingError::Refused { status: 400, .. }) => self.named_experiment(until),
            Err(error) => Err(error),
        }
    }

    fn named_experiment(&self, until: Instant) -> Result<String, TrackingError> {
        let path = "mlflow/experiments/get-by-name";
        let request = self
            .agent
            .get(self.url(path))
            .query("experiment_name", &self.experiment);
        let asked = self.signed(request, until).and_then(RequestBuilder::call);
        let answer = self.answer(path, asked)?;
        self.text(path, &answer["experiment"]["experiment_id"])
    }

    /// A new run.
    pub(super) fn create_run(
        &self,
        name: &str,
        tags: &[(String, String)],
        start_ms: u64,
        until: Instant,
    ) -> Result<RemoteRun, TrackingError> {
        let mut listed = Vec::new();
        for (key, value) in tags {
            listed.push(json!({"key": key, "value": value}));
        }
        let asked = json!({
            "experiment_id": self.experiment_id(until)?,
            "run_name": name,
            "start_time": start_ms,
            "tags": listed,
        });

        let path = "mlflow/runs/create";
        let answer = self.post(path, &asked, until)?;
        self.run(path, &answer["run"]["info"])
    }

    /// A run that was ended, or not, is in progress again.
    pub(super) fn go_on(&self, run_id: &str, until: Instant) -> Result<RemoteRun, TrackingError> {
        let path = "mlflow/runs/update";
        let asked = json!({"run_id": run_id, "status": "RUNNING"});
        let answer = self.post(path, &asked, until)?;
        self.run(path, &answer["run_info"])
    }

    /// A run has ended.
    pub(super) fn end(
        &self,
        run_id: &str,
        ending: Ending,
        end_ms: u64,
        until: Instant,
    ) -> Result<(), TrackingError> {
        let asked = json!({"run_id": run_id, "status": ending.word(), "end_time": end_ms});
        self.post("mlflow/runs/update", &asked, until)?;
        Ok(())
    }

    /// What one request takes of `kind`: `params` or `metrics`.
    pub(super) fn log_batch(
        &self,
        run_id: &str,
        kind: &str,
        batch: Vec<Value>,
        until: Instant,
    ) -> Result<(), TrackingError> {
        let mut asked = json!({"run_id": run_id});
        asked[kind] = Value::from(batch);
        self.post("mlflow/runs/log-batch", &asked, until)?;
        Ok(())
    }

    /// A file of a run. `name` is a path whose parts need no escape.
    pub(super) fn put_file(
        &self,
        run: &RemoteRun,
        name: &str,
        bytes: &[u8],
        until: Instant,
    ) -> Result<(), TrackingError> {
        let Some(place) = run.artifacts.strip_prefix(PROXIED) else {
            return Err(TrackingError::Elsewhere {
                server: self.address.base.clone(),
                place: told(&run.artifacts),
            });
        };

        // `mlflow-artifacts://HOST/…` names the server once more.
        let place = match place.strip_prefix("//") {
            Some(behind) => behind.split_once('/').map_or("", |(_, place)| place),
            None => place.trim_start_matches('/'),
        };
        let path = "mlflow-artifacts/artifacts";
        let url = format!("{}/{place}/{name}", self.url(path));
        let request = self.agent.put(url).content_type(content_type(name));
        let asked = self
            .signed(request, until)
            .and_then(|request| request.send(bytes));
        self.answer(path, asked)?;
        Ok(())
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/2.0/{path}", self.address.base)
    }

    fn post(
        &self,
        path: &'static str,
        asked: &Value,
        until: Instant,
    ) -> Result<Value, TrackingError> {
        let request = self
            .agent
            .post(self.url(path))
            .content_type("application/json");
        let body = asked.to_string();
        let asked = self
            .signed(request, until)
            .and_then(|request| request.send(body));
        self.answer(path, asked)
    }

    /// With credentials, and the time that is left for it.
    fn signed<B>(
        &self,
        mut request: RequestBuilder<B>,
        until: Instant,
    ) -> Result<RequestBuilder<B>, ureq::Error> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ureq::Error::Timeout(Timeout::Global));
        }
        if let Some(authorization) = &self.address.authorization {
            request = request.header("authorization", authorization);
        }
        let time_max = left.min(self.patience.request);
        Ok(request.config().timeout_global(Some(time_max)).build())
    }

    /// The JSON of an answer; null where it has none.
    fn answer(
        &self,
        path: &'static str,
        asked: Result<Response<Body>, ureq::Error>,
    ) -> Result<Value, TrackingError> {
        let server = self.address.base.clone();
        let read = asked.and_then(|mut response| {
            let body = response.body_mut().with_config();
            let text = body
                .limit(ANSWER_BYTES_MAX)
                .lossy_utf8(true)
                .read_to_string()?;
            Ok((response.status(), text))
        });
        let (status, text) = match read {
            Ok(read) => read,
            Err(source) => {
                let source = Box::new(source);
                return Err(TrackingError::NoAnswer { server, source });
            }
        };

        let json: Option<Value> = serde_json::from_str(&text).ok();
        if status.is_success() {
            // The answer to a file is an empty one.
            let is_empty = text.trim().is_empty();
            return match json {
                Some(json) => Ok(json),
                None if is_empty => Ok(Value::Null),
                None => Err(TrackingError::NotMlflow { server, path }),
            };
        }

        let status = status.as_u16();
        if matches!(status, 401 | 403) {
            return Err(TrackingError::NotAllowed { server, status });
        }
        let json = json.unwrap_or_default();
        let code = json["error_code"].as_str().unwrap_or_default().to_owned();
        if code.is_empty() && status < 500 {
            return Err(TrackingError::NotMlflow { server, path });
        }
        Err(TrackingError::Refused {
            server,
            path,
            status,
            code,
            message: told(json["message"].as_str().unwrap_or(&text)),
        })
    }

    fn run(&self, path: &'static str, info: &Value) -> Result<RemoteRun, TrackingError> {
        Ok(RemoteRun {
            id: self.text(path, &info["run_id"])?,
            experiment_id: self.text(path, &info["experiment_id"])?,
            artifacts: self.text(path, &info["artifact_uri"])?,
        })
    }

    fn text(&self, path: &'static str, value: &Value) -> Result<String, TrackingError> {
        let text = value.as_str().map(str::to_owned);
        text.ok_or_else(|| TrackingError::NotMlflow {
            server: self.address.base.clone(),
            path,
        })
    }
}

/// The first words of a server, on one line and fit for a terminal.
fn told(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line: String = words.join(" ").chars().take(MESSAGE_CHARS_MAX).collect();
    shown(&line).into_owned()
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.') {
        Some((_, "json")) => "application/json",
        Some((_, "png")) => "image/png",
        Some((_, "html")) => "text/html",
        _ => "text/plain",
    }
}
