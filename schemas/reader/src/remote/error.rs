//! The error type for folders in object stores.

use std::error::Error;
use std::io;
use std::path::Path;

use object_store::client::{HttpError, HttpErrorKind};
use wavemill_schemas::exit::{Classified, Kind, PlainError};

/// Variable with the time within which a request is repeated.
pub(crate) const RETRY_SECONDS: &str = "WAVEMILL_RETRY_SECONDS";
/// Variable with the time without progress after which an attempt has failed.
pub(crate) const TIMEOUT_SECONDS: &str = "WAVEMILL_TIMEOUT_SECONDS";

/// The error type for folders in object stores.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the fields
pub enum RemoteError {
    /// The address is not supported, or an option in the environment is not valid.
    #[error("{address}: {problem}")]
    Address { address: String, problem: String },
    /// A request failed, also after it was repeated.
    #[error("{address}: cannot {action}: {problem}")]
    Request {
        address: String,
        action: &'static str,
        problem: String,
    },
    /// An object differs from the file that was committed.
    #[error("{address}: {problem}")]
    Damaged { address: String, problem: String },
    /// Local copies cannot be written, or do not fit.
    #[error(transparent)]
    Copies(#[from] PlainError),
}

/// Beginning of the problem of a request that was refused.
pub(crate) const NOT_PERMITTED: &str = "not permitted";

impl Classified for RemoteError {
    fn kind(&self) -> Kind {
        match self {
            Self::Address { .. } => Kind::Usage,
            Self::Damaged { .. } => Kind::Damaged,
            Self::Request { .. } => Kind::Failed,
            Self::Copies(error) => error.kind(),
        }
    }
}

impl RemoteError {
    /// Creates the error for an address or a variable of the environment that is not valid.
    pub(crate) fn address(address: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Address {
            address: address.into(),
            problem: problem.into(),
        }
    }

    /// Creates the error for a failed request.
    pub(crate) fn of_request(
        action: &'static str,
        address: String,
        error: object_store::Error,
    ) -> Self {
        use object_store::Error as Failed;

        let causes = causes(&error);
        let is_refused = match &error {
            Failed::Unauthenticated { .. } | Failed::PermissionDenied { .. } => true,
            // A listing that is not permitted has no error of its own.
            _ => causes.contains("403 Forbidden") || causes.contains("401 Unauthorized"),
        };

        let problem = match &error {
            _ if is_refused && address.starts_with("http") => format!(
                "{NOT_PERMITTED}: requests to web servers have no credentials: download the file first, or give the \
                 address of a public file or of S3 (s3://) ({causes})"
            ),
            _ if is_refused => format!(
                "{NOT_PERMITTED}: check the credentials in the environment, such as AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY ({causes})"
            ),
            Failed::NotFound { .. } => {
                format!("not there: check the address, and the name of the bucket ({causes})")
            }
            _ => match failure_of_connection(&error) {
                Some(HttpErrorKind::Timeout) => format!(
                    "nothing was received in time: check the connection, or raise {TIMEOUT_SECONDS} ({causes})"
                ),
                _ if was_repeated(&error) => {
                    format!(
                        "failed each time: try again later, or raise {RETRY_SECONDS} ({causes})"
                    )
                }
                _ => causes,
            },
        };
        Self::Request {
            address,
            action,
            problem,
        }
    }

    /// Creates a function that adds the path and the failed operation to an I/O error.
    pub(crate) fn copy_at(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| {
            let message = format!(
                "{}: cannot {action}: choose a folder for local copies with WAVEMILL_CACHE",
                path.display()
            );
            PlainError::failed(message).caused_by(source).into()
        }
    }
}

/// Returns the kind of the connection's failure that an error is about; `None` for an answer of the server.
pub(crate) fn failure_of_connection(error: &object_store::Error) -> Option<HttpErrorKind> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(failure) = cause.downcast_ref::<HttpError>() {
            return Some(failure.kind());
        }
        next = cause.source();
    }
    None
}

/// Reports whether `object_store` has repeated the request that failed. Its error states this in no other way.
pub(crate) fn was_repeated(error: &object_store::Error) -> bool {
    causes(error).contains(" retries, ")
}

/// Returns the messages of an error and its causes in one line. A message that ends with that of its cause is not
/// repeated.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let message = cause.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        next = cause.source();
    }
    // The number of repetitions has no limit.
    let text = text.replace(&format!("max_retries: {}, ", usize::MAX), "");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedy_of_a_refused_request_depends_on_the_address() {
        let message = |address: &str| {
            let error = object_store::Error::Unauthenticated {
                path: "x.zip".to_owned(),
                source: "401".into(),
            };
            RemoteError::of_request("read", address.to_owned(), error).to_string()
        };

        let web = message("https://host/x.zip");
        assert!(web.contains("download the file first"), "{web}");
        assert!(!web.contains("AWS_ACCESS_KEY_ID"), "{web}");
        let bucket = message("s3://music/x.zip");
        assert!(bucket.contains("AWS_ACCESS_KEY_ID"), "{bucket}");
    }

    #[test]
    fn lost_answers_name_the_option_that_waits_longer() {
        let message = |kind: HttpErrorKind| {
            let lost = HttpError::new(kind, io::Error::other("lost"));
            let error = object_store::Error::Generic {
                store: "S3",
                source: Box::new(lost),
            };
            RemoteError::of_request("read", "s3://music/x.zip".to_owned(), error).to_string()
        };

        let timeout = message(HttpErrorKind::Timeout);
        assert!(
            timeout.contains("raise WAVEMILL_TIMEOUT_SECONDS"),
            "{timeout}"
        );
        let cut = message(HttpErrorKind::Decode);
        assert!(!cut.contains("WAVEMILL_"), "{cut}");
    }
}
