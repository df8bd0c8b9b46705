//! The trait of the readers that convert uploads to inputs of the models, and a pool with one reader per thread.
//! `cli/serve/songs.rs` implements the trait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refusal::Refusal;
use super::upload::Upload;

/// Contents of a decoded song.
#[derive(Debug, Default)]
pub(crate) struct Song {
    /// Duration of the decoded audio in seconds.
    pub duration_s: f32,
    /// Duration of audio lost to damage in the file, in seconds.
    pub lost_s: f32,
    /// Minimum and maximum sample in each of several time spans of equal length.
    pub waveform: Vec<(f32, f32)>,
    /// Spectrogram of the first segment. `None` if its feature has no frames.
    pub spectrogram: Option<Spectrogram>,
    /// Stream of feature rows for each input of the models.
    pub streams: Vec<Bytes>,
    pub decode_s: f64,
    pub features_s: f64,
}

/// Feature values of one segment, for display.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Spectrogram {
    /// Name of the shown feature.
    pub name: String,
    /// Number of frames of the segment.
    pub columns: usize,
    /// Feature values band by band, the lowest band first.
    pub values: Vec<f32>,
    /// Start and end of the segment in seconds.
    pub from_s: f64,
    pub to_s: f64,
}

/// Errors of reading an uploaded file.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// The file is not valid. Contains the reason and details.
    Clip(String),
    /// The server failed for another reason than the file.
    Fault(String),
}

/// Converts files to model inputs. Readers block the calling thread.
pub(crate) trait Reader: Send {
    /// Decodes one file, computes the inputs of the models, and drops the bytes of the file.
    fn read(&mut self, upload: Upload) -> Result<Song, Unreadable>;
}

/// Function that creates a [`Reader`] for another thread.
pub(crate) type MakeReader = Box<dyn Fn() -> Result<Box<dyn Reader>, Unreadable> + Send + Sync>;

fn fault(name: &str, message: &str) -> Refusal {
    Refusal::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("{name} could not be read because of an internal error: {message}."),
    )
}

/// The permit of a song in progress. Every task that works on the song holds a reference.
pub(crate) type Permit = Arc<OwnedSemaphorePermit>;

/// Pool of readers. Its size limits the number of concurrent reads. Tables and buffers of a reader are reused.
pub(crate) struct Readers {
    make: MakeReader,
    idle: Mutex<Vec<Box<dyn Reader>>>,
    turns: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn new(make: MakeReader, threads: usize) -> Self {
        Self {
            make,
            idle: Mutex::new(Vec::new()),
            turns: Arc::new(Semaphore::new(threads)),
        }
    }

    /// Waits for a free reader, and reads a song on a blocking thread.
    ///
    /// # Errors
    /// Status 422 if the file is not a valid song, 500 after an internal error.
    pub(crate) async fn read(
        self: &Arc<Self>,
        upload: Upload,
        place: Permit,
    ) -> Result<Song, Refusal> {
        // An error means that the semaphore was closed, which never happens.
        let turn = Arc::clone(&self.turns).acquire_owned().await;

        let name = upload.name.clone();
        let readers = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            // The permits are released when the thread has read the song, even if the client has disconnected.
            let _held = (turn, place);
            readers.read_here(upload)
        });

        match read.await {
            Ok(Ok(song)) => Ok(song),
            Ok(Err(Unreadable::Clip(message))) => Err(Refusal::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("{name} cannot be processed: {message}."),
            )),
            Ok(Err(Unreadable::Fault(message))) => Err(fault(&name, &message)),
            // A reader that panicked is lost. The next song gets a new reader.
            Err(_) => Err(fault(&name, "the reader panicked")),
        }
    }

    fn read_here(&self, upload: Upload) -> Result<Song, Unreadable> {
        let idle = self.idle().pop();
        let mut reader = match idle {
            Some(reader) => reader,
            None => (self.make)()?,
        };
        let song = reader.read(upload);
        self.idle().push(reader);
        song
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Box<dyn Reader>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
