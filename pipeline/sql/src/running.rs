//! Runs a query on its own threads, so that the caller can abandon it at any time.
//!
//! DataFusion only checks for cancellation between two batches. A join can work for a long time before its first batch,
//! and a filter that rejects every row never returns one. The caller therefore never waits for the query: results are
//! collected on the caller's thread, and threads that do not end in time are abandoned. They end at their next batch or
//! with the process.

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
use wavemill_catalog::statements::QUERY_STACK_BYTES;
use wavemill_runtime::panics::Panic;

use super::partial::PartialOutput;
use super::{Sink, SqlError};

/// Time that a stopped query has to end. Together with the signal handling this stays within a second.
const LEAVE: Duration = Duration::from_millis(400);

/// Stops the running query of a session from another thread.
#[derive(Clone, Default)]
pub struct Interrupt {
    running: Arc<Mutex<Option<Sender<()>>>>,
    partial: PartialOutput,
}

impl Interrupt {
    /// Stops the running query. Returns false if none is running.
    pub fn stop(&self) -> bool {
        // Remove the sender: a query is stopped only once, and a second signal finds no running query.
        let running = self.slot().take();
        running.is_some_and(|query| query.send(()).is_ok())
    }

    /// Removes the output of a stopped COPY or INSERT, for a process that exits without waiting for the statement.
    pub fn clean(&self) {
        self.partial.remove();
    }

    /// Returns the output files of the running statement.
    pub(super) const fn partial(&self) -> &PartialOutput {
        &self.partial
    }

    /// Lets [`Interrupt::stop`] stop a query, which receives a message then, until the receiver is dropped.
    pub(super) fn listen(&self) -> Receiver<()> {
        // Capacity for the only signal, so that sending it never blocks.
        let (sender, stop) = bounded(1);
        *self.slot() = Some(sender);
        stop
    }

    fn slot(&self) -> MutexGuard<'_, Option<Sender<()>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Messages from the threads of a query.
enum Event {
    Columns(SchemaRef),
    Rows(RecordBatch),
    End(Result<(), SqlError>),
}

/// Runs `query` on `workers` threads and writes its result to `sink` on the calling thread.
///
/// # Errors
/// The errors of the query and of the sink, and [`SqlError::Interrupted`] if the query was stopped.
pub(super) fn answer<Q>(
    workers: usize,
    stop: &Receiver<()>,
    query: Q,
    sink: &mut dyn Sink,
) -> Result<(), SqlError>
where
    Q: Future<Output = Result<SendableRecordBatchStream, SqlError>> + Send + 'static,
{
    let mut running = RunningQuery::start(workers, query)?;
    sink.begin(&running.columns(stop)?)?;
    while let Some(batch) = running.next(stop)? {
        // The batch is freed before the next one is requested.
        sink.write(&batch)?;
    }
    sink.finish()
}

/// A query on its own threads, whose batches are taken one after the other. The threads end when it is dropped.
pub(super) struct RunningQuery {
    threads: Threads,
    task: Option<JoinHandle<()>>,
    events: Receiver<Event>,
    /// Adds a permit for each batch after the first one, which is computed only then: one batch is in memory at a time.
    taken: Arc<Semaphore>,
    has_given: bool,
}

impl RunningQuery {
    /// Starts `query` on `workers` threads.
    ///
    /// # Errors
    /// The threads cannot be started.
    pub(super) fn start<Q>(workers: usize, query: Q) -> Result<Self, SqlError>
    where
        Q: Future<Output = Result<SendableRecordBatchStream, SqlError>> + Send + 'static,
    {
        let threads = Threads::start(workers)?;
        // Unbounded, because the semaphore `taken` already limits the number of batches.
        let (sender, events) = unbounded();
        let taken = Arc::new(Semaphore::new(0));
        let task = threads.spawn(send_all(query, sender, Arc::clone(&taken)));
        Ok(Self {
            threads,
            task,
            events,
            taken,
            has_given: false,
        })
    }

    /// Waits until the query is planned, and returns the columns of its result. Must be called once, before the first
    /// batch is taken.
    ///
    /// # Errors
    /// The errors of planning, and [`SqlError::Interrupted`] after a message to `stop`.
    pub(super) fn columns(&mut self, stop: &Receiver<()>) -> Result<SchemaRef, SqlError> {
        match self.event(stop)? {
            Event::Columns(schema) => Ok(schema),
            Event::End(Err(error)) => Err(error),
            Event::Rows(_) | Event::End(Ok(())) => {
                Err(SqlError::Failed("no columns before the rows".to_owned()))
            }
        }
    }

    /// Waits for the next batch; returns `None` after the last one.
    ///
    /// # Errors
    /// The errors of the query, and [`SqlError::Interrupted`] after a message to `stop`.
    pub(super) fn next(&mut self, stop: &Receiver<()>) -> Result<Option<RecordBatch>, SqlError> {
        if std::mem::replace(&mut self.has_given, true) {
            self.taken.add_permits(1);
        }
        match self.event(stop)? {
            Event::Rows(batch) => Ok(Some(batch)),
            Event::End(ended) => ended.map(|()| None),
            Event::Columns(_) => Err(SqlError::Failed("columns after the rows".to_owned())),
        }
    }

    fn event(&mut self, stop: &Receiver<()>) -> Result<Event, SqlError> {
        let event = select! {
            recv(self.events) -> event => event,
            recv(stop) -> _ => return Err(SqlError::Interrupted),
        };
        // All senders are dropped if the task has ended without an `End` event.
        event.map_err(|_| self.threads.panic_of(self.task.take()))
    }
}

async fn send_all<Q>(query: Q, events: Sender<Event>, taken: Arc<Semaphore>)
where
    Q: Future<Output = Result<SendableRecordBatchStream, SqlError>>,
{
    let ended = send_batches(query, &events, &taken).await;
    // Ignore a closed receiver: the caller has abandoned the query.
    let _ = events.send(Event::End(ended));
}

async fn send_batches<Q>(
    query: Q,
    events: &Sender<Event>,
    taken: &Semaphore,
) -> Result<(), SqlError>
where
    Q: Future<Output = Result<SendableRecordBatchStream, SqlError>>,
{
    let mut batches = query.await?;
    // Ignore a closed receiver: the batches are not needed then, and the runtime shuts down as well.
    let _ = events.send(Event::Columns(batches.schema()));

    while let Some(batch) = batches.next().await {
        let _ = events.send(Event::Rows(batch?));
        // Wait until the batch is no longer used. Each such batch adds one permit, which is used up here.
        if let Ok(permit) = taken.acquire().await {
            permit.forget();
        }
    }
    Ok(())
}

/// The threads of one query. On drop they end or are abandoned.
struct Threads(Option<Runtime>);

impl Threads {
    fn start(workers: usize) -> Result<Self, SqlError> {
        // Tokio's I/O and timers are not needed: local files are read by blocking calls on separate threads.
        let runtime = Builder::new_multi_thread()
            .worker_threads(workers)
            .thread_stack_size(QUERY_STACK_BYTES)
            // For requests to object stores, their pauses and their timeouts.
            .enable_all()
            .build();
        runtime
            .map(|runtime| Self(Some(runtime)))
            .map_err(|error| SqlError::Failed(error.to_string()))
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Option<JoinHandle<()>> {
        self.0.as_ref().map(|runtime| runtime.spawn(task))
    }

    /// Returns the reason why a task ended early.
    fn panic_of(&self, task: Option<JoinHandle<()>>) -> SqlError {
        // All senders are dropped, so the task is about to end and this does not block for long.
        let ended = self
            .0
            .as_ref()
            .zip(task)
            .map(|(runtime, task)| runtime.block_on(task));

        match ended {
            Some(Err(error)) if error.is_panic() => {
                Panic::from_payload(error.into_panic().as_ref()).into()
            }
            _ => SqlError::Failed("its threads stopped early".to_owned()),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Threads that do not end in time are abandoned. They end at their next batch or with the process.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(LEAVE);
        }
    }
}

/// Adds a cancellation check above every join of `plan`. DataFusion only checks where files are read, and a join of few
/// rows can return many.
///
/// # Errors
/// If DataFusion cannot rebuild the plan, which does not occur in practice.
pub(super) fn cooperative(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        // Match by name, because DataFusion has several kinds of join and all their names contain this word.
        let is_join = node.name().contains("Join");
        Ok(if is_join {
            Transformed::yes(Arc::new(CooperativeExec::new(node)))
        } else {
            Transformed::no(node)
        })
    })
    .data()
}
