//! Limits of requests, which the environment can change.

use std::env;
use std::time::Duration;

use crate::RemoteError;

/// Limits of the requests of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Number of requests of one operation that are in flight at the same time (`WAVEMILL_REQUESTS`).
    pub requests: usize,
    /// Time after the first attempt at a request after which it is not repeated any more (`WAVEMILL_RETRY_SECONDS`).
    pub retry_time: Duration,
}

impl Limits {
    /// Reads the limits from the environment. Default: 16 requests, 60 seconds.
    ///
    /// # Errors
    /// [`RemoteError::Address`] with the name of a variable that is not a number, or out of range.
    pub(crate) fn read() -> Result<Self, RemoteError> {
        Ok(Self {
            requests: number("WAVEMILL_REQUESTS", 16, 256)? as usize,
            retry_time: Duration::from_secs(number("WAVEMILL_RETRY_SECONDS", 60, 86_400)?),
        })
    }

    /// Returns the number of requests in flight; the default if the environment is wrong, which
    /// [`crate::Remote::new`] reports.
    pub(crate) fn requests() -> usize {
        Self::read().map_or(16, |limits| limits.requests)
    }
}

fn number(name: &str, default: u64, most: u64) -> Result<u64, RemoteError> {
    let Some(text) = env::var_os(name) else {
        return Ok(default);
    };
    let text = text.to_string_lossy();
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| RemoteError::Address {
        address: format!("{name}={text}"),
        problem: format!("must be a whole number from 1 to {most}"),
    })
}
