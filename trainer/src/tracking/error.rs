//! Why a server does not have what it should.

use std::path::PathBuf;

/// Why a server does not have what it should. No variant holds credentials.
#[derive(Debug, thiserror::Error)]
pub enum TrackingError {
    /// What was given is no address of a server.
    #[error("--mlflow: {0}")]
    Uri(&'static str),
    /// No connection, or no answer in time.
    #[error(
        "MLflow at {server} does not answer; start it with `mlflow server`, or train without --mlflow"
    )]
    NoAnswer {
        /// Its address.
        server: String,
        /// What the connection met.
        source: Box<ureq::Error>,
    },
    /// It asks who we are, or does not let us.
    #[error(
        "MLflow at {server} does not let us in (status {status}); give http://USER:PASSWORD@HOST, or set \
         MLFLOW_TRACKING_TOKEN"
    )]
    NotAllowed {
        /// Its address.
        server: String,
        /// Of HTTP: 401 or 403.
        status: u16,
    },
    /// It said no, in MLflow's way.
    #[error("MLflow at {server} answers {path} with status {status}: {message}")]
    Refused {
        /// Its address.
        server: String,
        /// What was asked.
        path: &'static str,
        /// Of HTTP.
        status: u16,
        /// MLflow's `error_code`, where it has one.
        code: String,
        /// The server's words.
        message: String,
    },
    /// An answer that MLflow would not give.
    #[error(
        "{server} does not answer {path} as MLflow does; is it the address of an MLflow server?"
    )]
    NotMlflow {
        /// Its address.
        server: String,
        /// What was asked.
        path: &'static str,
    },
    /// Files are elsewhere.
    #[error(
        "MLflow at {server} keeps files at {place}, where this program cannot put them; `mlflow server \
         --serve-artifacts` takes them itself"
    )]
    Elsewhere {
        /// Its address.
        server: String,
        /// The beginning of the run's `artifact_uri`.
        place: String,
    },
    /// The file of the run's folder.
    #[error(
        "{path}: not what a run writes there; remove it, and the next start makes a new run at MLflow"
    )]
    Memory {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// The run's folder.
    #[error(transparent)]
    Record(#[from] wavemill_scores::records::RecordError),
    /// The system has no thread left.
    #[error("no thread for MLflow")]
    Thread(#[source] std::io::Error),
}

impl TrackingError {
    /// Whether the same request will be refused again: it was understood, and is wrong.
    pub(super) fn is_for_good(&self) -> bool {
        matches!(self, Self::Refused { status: 400, .. })
    }

    /// Whether what was asked for is not there.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "RESOURCE_DOES_NOT_EXIST")
    }
}
