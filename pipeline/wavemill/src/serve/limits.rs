//! All limits of the server, with name, unit, default and reason.

use std::time::Duration;

/// Maximum size of an upload in bytes: 25 minutes of MP3 at 320 kbit/s, or 6 minutes of WAV.
pub(crate) const UPLOAD_BYTES: usize = 64 << 20;
/// Maximum duration of a song in seconds. The samples of longer songs would take more memory than the uploads.
pub(crate) const SONG_S: f64 = 900.0;
/// Maximum number of uploads that are being received, waiting or processed. Each may take [`UPLOAD_BYTES`].
pub(crate) const IN_FLIGHT: usize = 8;
/// Maximum time from the end of an upload to the response, in seconds.
pub(crate) const ANSWER_S: u64 = 120;

/// Maximum time to receive an upload, in seconds.
const UPLOAD_S: u64 = 60;
/// Maximum time without data during an upload, in seconds.
const SILENCE_S: u64 = 10;
/// Maximum time until the head of a request has been received, in seconds.
const HEAD_S: u64 = 10;
/// Maximum time until a client has read the response, in seconds. A response has a few hundred kilobytes at most.
const READ_S: u64 = 30;
/// Maximum number of concurrent connections. Further connections wait in the system's queue. An idle connection is
/// closed after `HEAD_S`.
const CONNECTIONS: u32 = 256;
/// Maximum time to load one model, in seconds.
const LOAD_S: u64 = 300;
/// Seconds after which a client may retry if too many songs are in progress or a model is not ready.
pub(crate) const RETRY_AFTER_S: u64 = 1;
/// Maximum length of a stored file name in characters.
pub(crate) const NAME_CHARS: usize = 200;
/// Maximum size of a form without the file, in bytes: boundaries and part headers.
pub(crate) const FORM_BYTES: usize = 64 << 10;
/// Seconds for which the rest of a request is read and discarded after a response. Without this, the connection would be
/// reset and the client would not receive a refusal.
pub(crate) const DRAIN_S: u64 = 2;

/// Limits of a server, each with its flag, if there is one, and the file that enforces it.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// [`UPLOAD_BYTES`]: `--max-upload`, `upload.rs`.
    pub upload_bytes: usize,
    /// [`SONG_S`]: `--max-duration`, `cli/serve/songs.rs`.
    pub song_s: f64,
    /// [`IN_FLIGHT`]: `--in-flight`, `server.rs`.
    pub in_flight: usize,
    /// Number of songs that are decoded and computed concurrently: `--threads`, `readers.rs`.
    pub threads: usize,
    /// [`ANSWER_S`]: `--timeout`, `server.rs`; also limits each reply of a model in `model.rs`.
    pub answer: Duration,
    /// [`UPLOAD_S`]: `upload.rs`.
    pub upload: Duration,
    /// [`SILENCE_S`]: `upload.rs`.
    pub silence: Duration,
    /// [`HEAD_S`]: `connections.rs`.
    pub head: Duration,
    /// [`READ_S`]: `connections.rs`, as a part of [`Limits::connection`].
    pub read: Duration,
    /// [`LOAD_S`]: `model.rs`.
    pub load: Duration,
    /// [`CONNECTIONS`]: `connections.rs`.
    pub connections: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            upload_bytes: UPLOAD_BYTES,
            song_s: SONG_S,
            in_flight: IN_FLIGHT,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            answer: Duration::from_secs(ANSWER_S),
            upload: Duration::from_secs(UPLOAD_S),
            silence: Duration::from_secs(SILENCE_S),
            head: Duration::from_secs(HEAD_S),
            read: Duration::from_secs(READ_S),
            load: Duration::from_secs(LOAD_S),
            connections: CONNECTIONS,
        }
    }
}

impl Limits {
    /// Returns the maximum duration of a connection: it carries one request, and each phase of that request has a timeout.
    pub(crate) fn connection(&self) -> Duration {
        self.head + self.upload + self.answer + self.read
    }
}
