//! A query that runs, on threads of its own, so that whoever asked can leave it at any time.
//!
//! DataFusion looks whether it should stop between two batches. A join can work for long before it has one, and a filter
//! that nothing passes never has one. So nobody waits for it: the answer is collected on the caller's thread, and threads
//! that do not end in time are left behind, to end at their next batch or with the process.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::StreamExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::partial::PartialOutput;
use super::{Sink, SqlError};
use crate::panics::Panic;

/// How long a query that was stopped may take to end. Beside it and a look at the signal, little of a second is left.
const LEAVE: Duration = Duration::from_millis(400);
/// Of each thread: plans of deep queries are walked by recursion.
const STACK_BYTES: usize = 8 << 20;

/// Stops the query that a session is running, from another thread.
#[derive(Clone, Default)]
pub(crate) struct Interrupt {
    running: Arc<Mutex<Option<Sender<()>>>>,
    partial: PartialOutput,
}

impl Interrupt {
    /// Stops the running query; false where none runs.
    pub(crate) fn stop(&self) -> bool {
        // Taken out: a query is stopped once, and a second signal finds that none runs.
        let running = self.slot().take();
        running.is_some_and(|query| query.send(()).is_ok())
    }

    /// Removes what a stopped COPY or INSERT has written so far, for a process that ends without waiting for it.
    pub(crate) fn clean(&self) {
        self.partial.remove();
    }

    /// What the running statement writes.
    pub(super) const fn partial(&self) -> &PartialOutput {
        &self.partial
    }

    /// From now on a query can be stopped, until what is returned is dropped.
    pub(super) fn arm(&self) -> StopGuard<'_> {
        // Room for the one signal, so that who sends it does not wait.
        let (sender, stop) = bounded(1);
        *self.slot() = Some(sender);
        StopGuard {
            interrupt: self,
            stop,
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Sender<()>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A query that can be stopped.
pub(super) struct StopGuard<'a> {
    interrupt: &'a Interrupt,
    stop: Receiver<()>,
}

impl StopGuard<'_> {
    /// Whether it was stopped since it could be.
    pub(super) fn is_stopped(&self) -> bool {
        !self.stop.is_empty()
    }
}

impl Drop for StopGuard<'_> {
    fn drop(&mut self) {
        self.interrupt.slot().take();
    }
}

/// What the threads of a query send.
enum Event {
    Columns(SchemaRef),
    Rows(RecordBatch),
    End(Result<(), SqlError>),
}

/// Runs `query` on `workers` threads, and writes its result to `sink` on this one.
///
/// # Errors
/// The query's, the sink's, [`SqlError::Interrupted`].
pub(super) fn answer<Q>(
    workers: usize,
    armed: &StopGuard<'_>,
    query: Q,
    sink: &mut dyn Sink,
) -> Result<(), SqlError>
where
    Q: Future<Output = Result<SendableRecordBatchStream, SqlError>> + Send + 'static,
{
    let threads = Threads::start(workers)?;
    // Without a bound, because `written` bounds it.
    let (sender, events) = unbounded();
    // The next batch is made when this one is written: one at a time is in memory.
    let written = Arc::new(Semaphore::new(0));
    let task = threads.spawn(send_all(query, sender, Arc::clone(&written)));

    loop {
        let event = select! {
            recv(events) -> event => event,
            recv(armed.stop) -> _ => return Err(SqlError::Interrupted),
        };
        match event {
            Ok(Event::Columns(schema)) => sink.begin(&schema)?,
            Ok(Event::Rows(batch)) => {
                sink.write(&batch)?;
                // Before the permit, which lets the next one be made.
                drop(batch);
                written.add_permits(1);
            }
            Ok(Event::End(ended)) => {
                ended?;
                return sink.finish();
            }
            // It has gone without an end.
            Err(_) => return Err(threads.panic_of(task)),
        }
    }
}

async fn send_all<Q>(query: Q, events: Sender<Event>, written: Arc<Semaphore>)
where
    Q: Future<Output = Result<SendableRecordBatchStream, SqlError>>,
{
    let ended = send_batches(query, &events, &written).await;
    // Nobody listens any more where the query was left.
    let _ = events.send(Event::End(ended));
}

async fn send_batches<Q>(
    query: Q,
    events: &Sender<Event>,
    written: &Semaphore,
) -> Result<(), SqlError>
where
    Q: Future<Output = Result<SendableRecordBatchStream, SqlError>>,
{
    let mut batches = query.await?;
    // A receiver that has gone wants no more; the runtime ends with it.
    let _ = events.send(Event::Columns(batches.schema()));

    while let Some(batch) = batches.next().await {
        let _ = events.send(Event::Rows(batch?));
        // A permit stands for one batch that was written, and is used up by it.
        if let Ok(permit) = written.acquire().await {
            permit.forget();
        }
    }
    Ok(())
}

/// The threads of one query; dropped, they end or are left behind.
struct Threads(Option<Runtime>);

impl Threads {
    fn start(workers: usize) -> Result<Self, SqlError> {
        // Without Tokio's I/O and timers: local files are read by calls that block, on threads of their own.
        let runtime = Builder::new_multi_thread()
            .worker_threads(workers)
            .thread_stack_size(STACK_BYTES)
            .build();
        runtime
            .map(|runtime| Self(Some(runtime)))
            .map_err(|error| SqlError::Failed {
                detail: error.to_string(),
            })
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Option<JoinHandle<()>> {
        self.0.as_ref().map(|runtime| runtime.spawn(task))
    }

    /// Why a task ended early.
    fn panic_of(&self, task: Option<JoinHandle<()>>) -> SqlError {
        // All senders are gone, so the task is at its end, and this does not wait for long.
        let ended = self
            .0
            .as_ref()
            .zip(task)
            .map(|(runtime, task)| runtime.block_on(task));

        match ended {
            Some(Err(error)) if error.is_panic() => Panic::of(error.into_panic().as_ref()).into(),
            _ => SqlError::Failed {
                detail: "its threads ended early".to_owned(),
            },
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Nobody waits for threads that do not end in time: they end at their next batch, or with the process.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(LEAVE);
        }
    }
}

/// `plan` with a look at whether it should stop behind every join. DataFusion looks where files are read, and a join of
/// few rows makes many.
///
/// # Errors
/// DataFusion's; none in practice.
pub(super) fn cooperative(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        // By name, because DataFusion has several kinds of join, and all of them have this word in theirs.
        let is_join = node.name().contains("Join");
        Ok(if is_join {
            Transformed::yes(Arc::new(CooperativeExec::new(node)))
        } else {
            Transformed::no(node)
        })
    })
    .data()
}
