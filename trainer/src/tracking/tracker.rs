//! What a run tells of itself. Nothing here waits for the server, but for the end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Sender, bounded};
use wavemill_scores::records::{RunDir, read_log};

use super::client::RemoteRun;
use super::memory::Memory;
use super::worker::Worker;
use super::{Ending, Figures, Server, TrackingError};

/// Epochs that wait for a server which is away; of more, the oldest are left out. At some ten figures an epoch, 10 MB.
const EPOCHS_MAX: usize = 10_000;

/// The run in progress, for [`end_now`]. A process trains one at a time.
static CURRENT: Mutex<Option<Arc<Shared>>> = Mutex::new(None);

/// What a run is called, and what it is a run of.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunDescription {
    /// As its folder.
    pub name: String,
    /// The configuration, by dotted key.
    pub parameters: Vec<(String, String)>,
    /// What else there is to say, such as the store's version.
    pub tags: Vec<(String, String)>,
}

/// What the run and the thread that speaks to the server share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) server: Server,
    pub(super) folder: RunDir,
    pub(super) described: RunDescription,
    waiting: Mutex<Waiting>,
    /// MLflow's run, once it is known.
    pub(super) run: OnceLock<RemoteRun>,
}

/// What the thread has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) figures: EpochQueue,
    /// The last confusion matrix of each target, as a file.
    pub(super) pictures: BTreeMap<String, Vec<u8>>,
    /// How the run ended, and when it no longer waits for the server.
    pub(super) ending: Option<(Ending, Instant)>,
}

/// Figures in the order of epochs, with a bound.
#[derive(Debug, Default)]
pub(super) struct EpochQueue {
    pub(super) epochs: VecDeque<Figures>,
    /// Epochs for which there was no room.
    pub(super) left_out: u64,
}

impl EpochQueue {
    fn push(&mut self, figures: Figures) {
        if self.epochs.len() == EPOCHS_MAX {
            self.epochs.pop_front();
            self.left_out += 1;
        }
        self.epochs.push_back(figures);
    }

    /// Takes over what another one holds.
    pub(super) fn append(&mut self, other: Self) {
        self.left_out += other.left_out;
        for figures in other.epochs {
            self.push(figures);
        }
    }
}

impl Shared {
    pub(super) fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run at a server. Dropped before its end, it has failed.
#[derive(Debug)]
pub struct Tracker {
    shared: Arc<Shared>,
    /// Holds one: whoever is woken takes all that waits.
    wake: Sender<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The last step whose figures are at the server, or wait. A resumed run comes to some of them once more.
    last_step: Mutex<Option<u64>>,
}

impl Tracker {
    /// Begins, or goes on with, the run of `folder` at `server`. The epochs that its log has, and the server has not,
    /// are sent, too.
    ///
    /// # Errors
    /// [`TrackingError::Memory`], [`TrackingError::Record`], [`TrackingError::Thread`]. A server that is away is none.
    pub(crate) fn start(
        server: Server,
        folder: RunDir,
        described: RunDescription,
    ) -> Result<Self, TrackingError> {
        let memory = Memory::read(&folder)?.filter(|memory| {
            memory.server == server.address() && memory.experiment == server.experiment()
        });

        let logged_step = memory.as_ref().and_then(|memory| memory.logged_step);
        let figures = not_sent(&folder, logged_step)?;
        let last_step = figures.epochs.back().map(|last| last.step).or(logged_step);

        let shared = Arc::new(Shared {
            server,
            folder,
            described,
            waiting: Mutex::new(Waiting {
                figures,
                ..Waiting::default()
            }),
            run: OnceLock::new(),
        });

        let (wake, wakes) = bounded(1);
        let worker = Worker::new(Arc::clone(&shared), memory);
        let thread = std::thread::Builder::new()
            .name("mlflow".to_owned())
            .spawn(move || worker.work(&wakes))
            .map_err(TrackingError::Thread)?;
        *lock(&CURRENT) = Some(Arc::clone(&shared));

        let tracker = Self {
            shared,
            wake,
            thread: Mutex::new(Some(thread)),
            last_step: Mutex::new(last_step),
        };
        tracker.wake();
        Ok(tracker)
    }

    /// The figures of an epoch that ended after `step` steps.
    pub(crate) fn epoch(&self, step: u64, values: &[(&str, f64)]) {
        let mut last_step = lock(&self.last_step);
        if last_step.is_some_and(|last| step <= last) {
            return;
        }
        *last_step = Some(step);

        self.shared.waiting().figures.push(Figures {
            step,
            unix_ms: unix_ms(),
            values: owned(values),
        });
        self.wake();
    }

    /// A picture of `target`'s confusion, in place of that of the epoch before. Files go to the server at the end.
    pub(crate) fn picture(&self, target: &str, png: &[u8]) {
        let mut name = String::new();
        for c in target.chars() {
            name.push(if c.is_ascii_alphanumeric() { c } else { '_' });
        }
        self.shared
            .waiting()
            .pictures
            .insert(format!("confusion/{name}.png"), png.to_vec());
    }

    /// The run has ended, after `step` steps, with these scores. Returns once the server knows, or after 30 s.
    pub(crate) fn end(&self, ending: Ending, step: u64, scores: &[(&str, f64)]) {
        let Some(thread) = lock(&self.thread).take() else {
            return;
        };
        {
            let mut waiting = self.shared.waiting();
            if !scores.is_empty() {
                waiting.figures.push(Figures {
                    step,
                    unix_ms: unix_ms(),
                    values: owned(scores),
                });
            }
            waiting.ending = Some((ending, Instant::now() + self.shared.server.patience.end));
        }
        self.wake();

        // A panic there was told by nobody, and is no reason to end a run.
        let _ = thread.join();
        *lock(&CURRENT) = None;
    }

    /// The run in MLflow's pages, once it is there.
    pub(crate) fn page(&self) -> Option<String> {
        let run = self.shared.run.get()?;
        let server = self.shared.server.address();
        let experiment = &run.experiment_id;
        Some(format!(
            "{server}/#/experiments/{experiment}/runs/{}",
            run.id
        ))
    }

    fn wake(&self) {
        // Full: it is awake, and will see what waits.
        let _ = self.wake.try_send(());
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.end(Ending::Failed, 0, &[]);
    }
}

/// Tells the server how the run in progress ends, from any thread of a process that is about to end. Takes `time_max` at
/// most, and does nothing where no run is at a server.
pub(crate) fn end_now(ending: Ending, time_max: Duration) {
    let until = Instant::now() + time_max;
    let Some(shared) = lock(&CURRENT).take() else {
        return;
    };
    if let Some(run) = shared.run.get() {
        // There is no time left to say that it failed.
        let _ = shared.server.end(&run.id, ending, unix_ms(), until);
    }
}

/// Epochs of the run's log behind `logged_step`.
pub(super) fn not_sent(
    folder: &RunDir,
    logged_step: Option<u64>,
) -> Result<EpochQueue, TrackingError> {
    let mut queue = EpochQueue::default();
    if !folder.log().try_exists().unwrap_or(true) {
        return Ok(queue);
    }
    for entry in read_log(&folder.log())? {
        let is_sent = logged_step.is_some_and(|logged| entry.step <= logged);
        if entry.kind != "epoch" || is_sent {
            continue;
        }
        queue.push(Figures {
            step: entry.step,
            unix_ms: (entry.unix_s * 1e3) as u64,
            values: entry.values.into_iter().collect(),
        });
    }
    Ok(queue)
}

fn owned(values: &[(&str, f64)]) -> Vec<(String, f64)> {
    let mut owned = Vec::new();
    for (name, value) in values {
        owned.push(((*name).to_owned(), *value));
    }
    owned
}

/// Milliseconds since 1970.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
