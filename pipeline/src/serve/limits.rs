//! Every limit of the server: name, unit, default, why.

use std::time::Duration;

/// An upload, bytes: 25 minutes of MP3 at 320 kbit/s, 6 minutes of WAV.
pub(crate) const UPLOAD_BYTES: usize = 64 << 20;
/// A song, seconds: samples of longer ones would take more memory than uploads do.
pub(crate) const SONG_S: f64 = 900.0;
/// Uploads that are received, wait, or are computed at once. Each may hold [`UPLOAD_BYTES`].
pub(crate) const IN_FLIGHT: usize = 8;
/// Seconds from the end of an upload to its answer.
pub(crate) const ANSWER_S: u64 = 120;

/// Seconds that an upload may take.
const UPLOAD_S: u64 = 60;
/// Seconds that a sender may be silent within an upload.
const SILENCE_S: u64 = 10;
/// Seconds until a connection must have said what it wants.
const HEAD_S: u64 = 10;
/// Seconds that a reader may take for an answer, which is some hundred kilobytes at most.
const READ_S: u64 = 30;
/// Connections at once; further ones wait in the system's queue. A connection that does nothing is ended after
/// `HEAD_S`.
const CONNECTIONS: usize = 256;
/// Seconds that a model may take to be loaded.
const LOAD_S: u64 = 300;
/// Seconds after which a client that found no place may ask again.
pub(crate) const RETRY_AFTER_S: u64 = 1;
/// Characters of a file's name that are kept.
pub(crate) const NAME_CHARS: usize = 200;
/// Bytes beside the file in a form: its boundaries, and headers of its parts.
pub(crate) const FORM_BYTES: usize = 64 << 10;
/// Seconds for which what is still sent is read and thrown away, behind a refusal. Else the client would find its
/// connection reset, and not see the refusal.
pub(crate) const DRAIN_S: u64 = 2;

/// Limits of one server.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub upload_bytes: usize,
    pub song_s: f64,
    pub in_flight: usize,
    /// Songs that are decoded and computed at once.
    pub threads: usize,
    pub answer: Duration,
    pub upload: Duration,
    pub silence: Duration,
    pub head: Duration,
    pub read: Duration,
    pub load: Duration,
    pub connections: usize,
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
    /// No connection lives longer: it brings one request, and every part of that has a limit.
    pub(crate) fn connection(&self) -> Duration {
        self.head + self.upload + self.answer + self.read
    }
}
