//! Limits of requests, which the environment can change.

use std::env;
use std::time::Duration;

use wavemill_schemas::number::number;

use crate::remote::error::{RETRY_SECONDS, RemoteError, TIMEOUT_SECONDS};

const REQUESTS: u64 = 16;
const RETRY_TIME: Duration = Duration::from_secs(60);

/// Limits of the requests of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Number of requests of one operation that are in flight at the same time (`WAVEMILL_REQUESTS`).
    pub requests: usize,
    /// Time after the first attempt at a request after which it is not repeated any more (`WAVEMILL_RETRY_SECONDS`).
    pub retry_time: Duration,
    /// Time without progress after which an attempt has failed (`WAVEMILL_TIMEOUT_SECONDS`); `None` for that of the
    /// provider's options.
    pub stall_time: Option<Duration>,
}

impl Limits {
    /// Reads the limits from the environment. Default: 16 requests, 60 seconds, and no stall time.
    ///
    /// # Errors
    /// [`RemoteError::Address`] with the name of a variable that is not a number, or out of range.
    pub(crate) fn read() -> Result<Self, RemoteError> {
        Ok(Self {
            requests: limit("WAVEMILL_REQUESTS", 256)?.unwrap_or(REQUESTS) as usize,
            retry_time: seconds(RETRY_SECONDS)?.unwrap_or(RETRY_TIME),
            stall_time: seconds(TIMEOUT_SECONDS)?,
        })
    }

    /// Returns the number of requests in flight; the default if the environment is wrong, which
    /// [`crate::remote::Remote::new`] reports.
    pub(crate) fn requests() -> usize {
        Self::read().map_or(REQUESTS as usize, |limits| limits.requests)
    }

    /// Returns the time for which requests are repeated; the default if the environment is wrong, as above.
    pub(crate) fn retry_time() -> Duration {
        Self::read().map_or(RETRY_TIME, |limits| limits.retry_time)
    }
}

fn seconds(name: &str) -> Result<Option<Duration>, RemoteError> {
    Ok(limit(name, 86_400)?.map(Duration::from_secs))
}

fn limit(name: &str, most: u64) -> Result<Option<u64>, RemoteError> {
    let Some(text) = env::var_os(name) else {
        return Ok(None);
    };
    let text = text.to_string_lossy();
    number(1..=most)(&text)
        .map(Some)
        .map_err(|problem| RemoteError::address(format!("{name}={text}"), problem))
}
