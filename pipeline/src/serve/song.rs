//! A song between its upload and the models: what reading it gives, and the readers, one a thread.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use tokio::sync::Semaphore;

use super::refusal::Refusal;
use super::upload::Upload;

/// What a file comes to.
#[derive(Debug, Default)]
pub(crate) struct Song {
    /// Seconds that were decoded.
    pub duration_s: f32,
    /// Seconds lost to damage.
    pub lost_s: f32,
    /// Lowest and highest samples of equal spans of it.
    pub waveform: Vec<(f32, f32)>,
    /// Of the first segment, if its feature has frames.
    pub spectrogram: Option<Spectrogram>,
    /// For each input, what its models read.
    pub streams: Vec<Vec<u8>>,
    pub decode_s: f64,
    pub features_s: f64,
}

/// A feature of a segment as a picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Spectrogram {
    /// The feature's name.
    pub name: String,
    /// Frames.
    pub columns: usize,
    /// Band by band, the lowest first.
    pub values: Vec<f32>,
    /// Seconds that it begins and ends at.
    pub from_s: f64,
    pub to_s: f64,
}

/// Why a file comes to nothing.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// The file's fault: reason and detail.
    Clip(String),
    /// Ours.
    Fault(String),
}

/// Turns files into what models read. It blocks.
pub(crate) trait Reader: Send {
    /// Reads one. The file is gone when this returns.
    fn read(&mut self, upload: Upload) -> Result<Song, Unreadable>;
}

/// Makes a reader for one more thread.
pub(crate) type MakeReader = Box<dyn Fn() -> Result<Box<dyn Reader>, Unreadable> + Send + Sync>;

fn fault(name: &str, words: &str) -> Refusal {
    Refusal::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("{name} could not be read, by a fault of this server: {words}."),
    )
}

/// All readers: as many as may work at once. Their tables and buffers are kept from song to song.
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

    /// Reads a song on a thread of its own, when it is its turn.
    ///
    /// # Errors
    /// 422 for a file that is no song, 500 for a fault of ours.
    pub(crate) async fn read(self: &Arc<Self>, upload: Upload) -> Result<Song, Refusal> {
        let name = upload.name.clone();
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let readers = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            // Given back when the thread is done, also if nobody waits for it any more.
            let _turn = turn;
            readers.read_here(upload)
        });

        match read.await {
            Ok(Ok(song)) => Ok(song),
            Ok(Err(Unreadable::Clip(words))) => Err(Refusal::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("{name} cannot be answered: {words}."),
            )),
            Ok(Err(Unreadable::Fault(words))) => Err(fault(&name, &words)),
            // The reader is gone with its thread; the next song gets a new one.
            Err(_) => Err(fault(&name, "its reader panicked")),
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

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Box<dyn Reader>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
