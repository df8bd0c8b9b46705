//! Sessions of a server, one for each connection. They share memory and threads, and are read-only.
//!
//! The server hands statements to DataFusion on its own, in ways that this crate does not know: prepared with parameters,
//! or as cursors. The rules of a session are therefore part of its query planner, through which every execution passes:
//! nothing is written, batches are small, and queries run on the shared threads. Only statements that DataFusion executes
//! without a physical plan, such as SET and CREATE, have to be refused by [`SharedSession::plan`].

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session as PlanningSession;
use datafusion::common::config::ConfigNonZeroUsize;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream, execute_stream};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use tokio::runtime::Handle;
use wavemill_schemas::manifest::Manifest;
use wavemill_store::Store;

use super::session::{HELD_BATCH_BYTES, environment, open_with, refuse_writes};
use super::{Limits, Session, SqlError, copying, running, subqueries};

/// Number of batches that a query computes ahead of its client.
const BATCHES_AHEAD: usize = 1;

/// The parts that the sessions of a server share: the memory of `limits` for sorts, joins and aggregates, the cache of footers,
/// and the threads of their queries.
#[derive(Clone, Debug)]
pub struct SharedEnvironment {
    store: Store,
    limits: Limits,
    env: Arc<RuntimeEnv>,
    threads: Handle,
}

/// A read-only session over one version of a store.
pub struct SharedSession(Session);

impl SharedEnvironment {
    /// Creates the environment of sessions over `store`, whose queries run on `threads`.
    ///
    /// # Errors
    /// [`SqlError::NoStore`] if the folder is missing.
    pub fn new(store: &Store, limits: Limits, threads: Handle) -> Result<Self, SqlError> {
        Ok(Self {
            store: store.clone(),
            env: environment(store, &limits)?,
            limits: Limits {
                allow_write: false,
                ..limits
            },
            threads,
        })
    }

    /// Opens a session over the version that `manifest` describes.
    ///
    /// # Errors
    /// [`SqlError::Failed`] if DataFusion cannot be set up.
    pub fn open(&self, manifest: &Manifest) -> Result<SharedSession, SqlError> {
        let planner = SharedPlanner {
            threads: self.threads.clone(),
            limits: self.limits,
        };
        let state = SessionStateBuilder::new()
            .with_runtime_env(Arc::clone(&self.env))
            .with_query_planner(Arc::new(planner));
        open_with(&self.store, manifest, self.limits, state).map(SharedSession)
    }
}

impl SharedSession {
    /// Returns DataFusion's session, which executes plans.
    pub fn context(&self) -> &SessionContext {
        &self.0.planner().ctx
    }

    /// Plans a statement, with the names and the refusals of `wavemill sql`.
    ///
    /// # Errors
    /// [`SqlError`] of a wrong or refused statement.
    pub async fn plan(&self, statement: ast::Statement) -> Result<LogicalPlan, SqlError> {
        self.0.forget_opened();
        let statement = Statement::Statement(Box::new(statement));
        self.0.planner().permitted(statement).await
    }

    /// Returns the cause of a failed query: a damaged file that it opened, data that `gc` removed, or else `error`
    /// itself. May read and hash whole files, until `stop` is set.
    pub fn explain(&self, error: SqlError, stop: &AtomicBool) -> SqlError {
        self.0.explain(error, stop)
    }
}

/// Creates the physical plans of all queries of a session.
#[derive(Debug)]
struct SharedPlanner {
    threads: Handle,
    limits: Limits,
}

#[async_trait]
impl QueryPlanner for SharedPlanner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn PlanningSession,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        refuse_writes(plan).map_err(external)?;
        let batch_rows = self.limits.batch_rows(plan, HELD_BATCH_BYTES);
        let batch_rows = batch_rows.map_err(external)?;
        let plan = &subqueries::limited(plan.clone(), self.limits.memory_bytes)?;
        let planner = DefaultPhysicalPlanner::default();
        // Filters take the size of their batches from the state with which they are planned.
        let physical = match session.as_any().downcast_ref::<SessionState>() {
            Some(state) => {
                let mut state = state.clone();
                let execution = &mut state.config_mut().options_mut().execution;
                execution.batch_size = ConfigNonZeroUsize::try_new(batch_rows)?;
                planner.create_physical_plan(plan, &state).await?
            }
            None => planner.create_physical_plan(plan, session).await?,
        };
        let physical = copying::limited(physical, batch_rows, self.limits.memory_bytes)?;
        let physical = running::cooperative(physical)?;

        let schema = without_fixed_sizes(&physical.schema());
        let query = SharedQuery {
            plan: physical,
            schema: Arc::clone(&schema),
            batch_rows,
            threads: self.threads.clone(),
        };
        let streamed =
            StreamingTableExec::try_new(schema, vec![Arc::new(query)], None, [], false, None)?;
        Ok(Arc::new(streamed))
    }
}

/// A query that runs on the shared threads, so that it cannot block the threads that serve connections. Dropping its
/// stream ends it.
#[derive(Debug)]
struct SharedQuery {
    plan: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    batch_rows: usize,
    threads: Handle,
}

impl PartitionStream for SharedQuery {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let context = Arc::new(with_batch_rows(&context, self.batch_rows));
        let plan = Arc::clone(&self.plan);
        let schema = Arc::clone(&self.schema);

        let mut stream =
            RecordBatchReceiverStream::builder(Arc::clone(&self.schema), BATCHES_AHEAD);
        let batches = stream.tx();
        let query = async move {
            let mut computed = execute_stream(plan, context)?;
            while let Some(batch) = computed.next().await {
                let batch = batch.and_then(|batch| variable_sizes(batch, &schema));
                let is_last = batch.is_err();
                // A closed receiver means that the client has disconnected.
                if batches.send(batch).await.is_err() || is_last {
                    break;
                }
            }
            Ok(())
        };
        stream.spawn_on(query, &self.threads);
        stream.build()
    }
}

fn with_batch_rows(context: &TaskContext, rows: usize) -> TaskContext {
    TaskContext::new(
        context.task_id(),
        context.session_id(),
        context.session_config().clone().with_batch_size(rows),
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        context.runtime_env(),
    )
}

/// Returns `schema` with variable-size instead of fixed-size binary columns, the storage of tensors of equal shape, which
/// PostgreSQL's protocol cannot represent otherwise.
fn without_fixed_sizes(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let field = Field::clone(field);
        match field.data_type() {
            DataType::FixedSizeBinary(_) => field.with_data_type(DataType::Binary),
            _ => field,
        }
    });
    let fields: Vec<Field> = fields.collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Converts the columns of `batch` to the types of `schema`, which [`without_fixed_sizes`] made.
fn variable_sizes(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let has_fixed_sizes =
        |field: &Arc<Field>| matches!(field.data_type(), DataType::FixedSizeBinary(_));
    if !batch.schema_ref().fields().iter().any(has_fixed_sizes) {
        return Ok(batch);
    }
    let fields = schema.fields().iter();
    let columns = batch.columns().iter().zip(fields);
    let columns = columns.map(|(column, field)| cast(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn external(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
