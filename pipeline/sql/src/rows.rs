//! The result of a query as an iterator of batches, for programs that take them when they need them.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use crossbeam_channel::Receiver;
use datafusion::physical_plan::SendableRecordBatchStream;
use wavemill_runtime::panics::caught;

use super::SqlError;
use super::damage::Version;
use super::output::tensors::TensorStream;
use super::running::{Interrupt, RunningQuery};

/// The rows of a query, which are computed while they are taken: at most one batch ahead. Tensors of equal shape are
/// `arrow.fixed_shape_tensor`, as in an Arrow stream. Dropping the rows ends the query.
pub struct Rows {
    /// `None` after the last batch or an error.
    running: Option<RunningQuery>,
    tensors: TensorStream,
    origin: Origin,
}

/// The version and the state from which a failure of the query is explained.
pub(super) struct Origin {
    version: Version,
    interrupt: Interrupt,
    stop: Receiver<()>,
}

impl Rows {
    /// Starts `query` on `workers` threads and waits until it is planned.
    ///
    /// # Errors
    /// The errors of planning.
    pub(super) fn start<Q>(workers: usize, query: Q, origin: Origin) -> Result<Self, SqlError>
    where
        Q: Future<Output = Result<SendableRecordBatchStream, SqlError>> + Send + 'static,
    {
        let started = caught(|| {
            let mut running = RunningQuery::start(workers, query)?;
            let schema = running.columns(&origin.stop)?;
            Ok((running, schema))
        });
        match started.unwrap_or_else(|panic| Err(panic.into())) {
            Ok((running, schema)) => Ok(Self {
                running: Some(running),
                tensors: TensorStream::new(&schema),
                origin,
            }),
            Err(error) => Err(origin.failed(error)),
        }
    }

    /// Returns the columns of the rows.
    pub fn schema(&self) -> SchemaRef {
        self.tensors.schema().clone()
    }

    fn batch(&mut self) -> Result<Option<RecordBatch>, SqlError> {
        let Some(running) = &mut self.running else {
            return Ok(None);
        };
        let stop = &self.origin.stop;
        // The iterator may be used by a program in another language, through which a panic must not pass.
        let next = caught(|| running.next(stop));
        match next.unwrap_or_else(|panic| Err(panic.into()))? {
            Some(batch) => Ok(Some(self.tensors.convert(&batch)?)),
            None => Ok(None),
        }
    }
}

impl Iterator for Rows {
    type Item = Result<RecordBatch, SqlError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.batch() {
            Ok(Some(batch)) => Some(Ok(batch)),
            Ok(None) => {
                self.running = None;
                self.origin.interrupt.partial().end();
                None
            }
            Err(error) => {
                self.running = None;
                Some(Err(self.origin.failed(error)))
            }
        }
    }
}

impl Origin {
    /// Creates the origin of a query that reads `version` and is stopped by `interrupt`.
    pub(super) fn new(version: Version, interrupt: Interrupt) -> Self {
        let stop = interrupt.listen();
        Self {
            version,
            interrupt,
            stop,
        }
    }

    /// Removes unfinished files of a failed COPY or INSERT, and returns the cause of the failure.
    fn failed(&self, error: SqlError) -> SqlError {
        self.interrupt.partial().remove();
        self.version.explain(error, || !self.stop.is_empty())
    }
}
