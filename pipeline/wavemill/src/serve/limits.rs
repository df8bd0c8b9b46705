//! All limits of the server, with name, unit, default and reason.

use std::time::Duration;

/// Seconds after which a client may retry if too many songs are in progress or a model is not ready.
pub(crate) const RETRY_AFTER_S: u64 = 1;
/// Maximum length of a stored file name in characters.
pub(crate) const NAME_CHARS: usize = 200;
/// Maximum size of a form without the file, in bytes: boundaries and part headers.
pub(crate) const FORM_BYTES: usize = 64 << 10;
/// Seconds for which the rest of a request is read and discarded after a response. Without this, the connection would
/// be reset and the client would not receive a refusal.
pub(crate) const DRAIN_S: u64 = 2;

/// Limits of a server, each with its flag, if there is one, and the file that enforces it.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Maximum size of an upload: `--max-upload`, `upload.rs`.
    pub upload_bytes: usize,
    /// Maximum duration of a song: `--max-duration`, `cli/serve/songs.rs`. The samples of longer songs would take more
    /// memory than the uploads.
    pub song_s: f64,
    /// Maximum number of uploads that are being received, waiting or processed: `--in-flight`, `server.rs`. Each may
    /// take `upload_bytes`.
    pub in_flight: usize,
    /// Number of songs that are decoded and computed concurrently: `--threads`, `readers.rs`.
    pub threads: usize,
    /// Maximum time from the end of an upload to the response: `--timeout`, `server.rs`; also limits each reply of a
    /// model in `model.rs`.
    pub answer: Duration,
    /// Maximum time to receive an upload: `upload.rs`.
    pub upload: Duration,
    /// Maximum time without data during an upload: `upload.rs`.
    pub silence: Duration,
    /// Maximum time until the head of a request has been received: `connections.rs`.
    pub head: Duration,
    /// Maximum time until a client has read the response, which has a few hundred kilobytes at most: `connections.rs`,
    /// as a part of [`Limits::connection`].
    pub read: Duration,
    /// Maximum time to load one model: `model.rs`.
    pub load: Duration,
    /// Maximum number of concurrent connections: `connections.rs`. Further connections wait in the system's queue. An
    /// idle connection is closed after `head`.
    pub connections: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // 25 minutes of MP3 at 320 kbit/s, or 6 minutes of WAV.
            upload_bytes: 64 << 20,
            song_s: 900.0,
            in_flight: 8,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            answer: Duration::from_secs(120),
            upload: Duration::from_secs(60),
            silence: Duration::from_secs(10),
            head: Duration::from_secs(10),
            read: Duration::from_secs(30),
            load: Duration::from_secs(300),
            connections: 256,
        }
    }
}

impl Limits {
    /// Returns the maximum duration of a connection: it carries one request, and each phase of that request has a
    /// timeout.
    pub(crate) fn connection(&self) -> Duration {
        self.head + self.upload + self.answer + self.read
    }
}
