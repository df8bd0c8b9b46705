//! The DataFusion session of the catalog, with one partition, one memory pool, and read-only queries.
//!
//! With a single partition, the order and result of a query do not depend on the number of threads. The tables are
//! small enough for this.

use std::future::{Future as _, poll_fn};
use std::io;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread;

use arrow::array::RecordBatch;
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use datafusion::common::utils::datafusion_strsim::levenshtein;
use datafusion::common::{DataFusionError, SchemaError};
use datafusion::datasource::MemTable;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use wavemill_runtime::progress::Progress;

use super::CatalogError;
use super::python_list;
use super::statements::{QUERY_STACK_BYTES, require_shallow_columns};

/// Number of rows per batch of a query.
const BATCH_ROWS: usize = 8192;

/// Maximum number of characters of an engine message to show.
const MESSAGE_CHARS_MAX: usize = 300;

/// Runs SQL queries over the catalog's tables in one DataFusion session.
pub(super) struct Engine {
    /// DataFusion session in which all tables and functions are registered.
    pub context: SessionContext,
    runtime: tokio::runtime::Runtime,
    /// Progress of the job, and whether the job was asked to stop.
    progress: Arc<Progress>,
}

impl Engine {
    /// Creates a session whose queries use at most `memory_bytes` for sorts, joins and groups, and end when `progress` is
    /// stopped.
    ///
    /// # Errors
    /// `Engine` if the session cannot be created.
    pub(super) fn new(memory_bytes: usize, progress: Arc<Progress>) -> Result<Self, CatalogError> {
        let config = SessionConfig::new()
            .with_target_partitions(1)
            .with_batch_size(BATCH_ROWS);
        // Operators that can spill get equal shares of the pool, and write the remainder to disk.
        let pool = Arc::new(FairSpillPool::new(memory_bytes));
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(pool)
            .build_arc()?;

        let context = SessionContext::new_with_config_rt(config, environment);
        for function in python_list::functions() {
            context.register_udf(function);
        }

        // A current-thread runtime is enough for one partition, and no scheduler influences the order of rows.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(DataFusionError::from)?;
        Ok(Self {
            context,
            runtime,
            progress,
        })
    }

    /// Registers `rows` as table `name`, replacing an earlier table of that name.
    ///
    /// # Errors
    /// `Engine` if DataFusion refuses the table.
    pub(super) fn set_table(&self, name: &str, rows: &RecordBatch) -> Result<(), CatalogError> {
        let n_rows = rows.num_rows();
        let starts = (0..n_rows).step_by(BATCH_ROWS);
        // A memory table returns its batches unchanged, so they are sliced to the batch size of queries.
        let slices = starts
            .map(|start| rows.slice(start, BATCH_ROWS.min(n_rows - start)))
            .collect();

        let table = MemTable::try_new(rows.schema(), vec![slices])?;
        // The earlier table is removed first, because registering a second table with the same name would fail.
        self.context.deregister_table(name)?;
        self.context.register_table(name, Arc::new(table))?;
        Ok(())
    }

    /// Returns the complete result of a query. A query that writes is refused.
    ///
    /// # Errors
    /// Any error of DataFusion, from planning to execution, or an execution error if the job was stopped.
    pub(super) fn query(&self, query: &Statement) -> Result<RecordBatch, DataFusionError> {
        with_query_stack(|| self.answer(query.clone()))?
    }

    fn answer(&self, query: Statement) -> Result<RecordBatch, DataFusionError> {
        let reading = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);

        let mut answer = pin!(async {
            let plan = self.context.state().statement_to_plan(query).await?;
            reading.verify_plan(&plan)?;
            require_readable(&plan)?;
            let frame = self.context.execute_logical_plan(plan).await?;
            let schema = Arc::new(frame.schema().as_arrow().clone());
            let batches = frame.collect().await?;
            let schema = batches.first().map_or(schema, RecordBatch::schema);
            Ok(text_views(&concat_batches(&schema, &batches)?)?)
        });

        // DataFusion's operators yield from time to time, even without output, so a stop is noticed during the query.
        // Dropping the query removes its spilled files.
        self.runtime.block_on(poll_fn(|context| {
            if self.progress.is_stopped() {
                return Poll::Ready(Err(DataFusionError::Execution("stopped".to_owned())));
            }
            answer.as_mut().poll(context)
        }))
    }

    /// Returns the progress of the job, and whether the job was asked to stop.
    pub(super) const fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Returns the first unknown table that a query reads, or `None` if all are known.
    pub(super) fn missing_table(&self, query: &Statement) -> Option<String> {
        with_query_stack(|| self.find_missing_table(query)).ok()?
    }

    fn find_missing_table(&self, query: &Statement) -> Option<String> {
        let tables = self.context.state().resolve_table_references(query).ok()?;
        let missing = tables
            .into_iter()
            .find(|table| !self.context.table_exist(table.clone()).unwrap_or(false))?;
        Some(missing.table().to_owned())
    }

    /// Returns the names of all registered tables.
    pub(super) fn tables(&self) -> Vec<String> {
        let mut tables = Vec::new();
        let catalogs = self.context.catalog_names().into_iter();
        for catalog in catalogs.filter_map(|name| self.context.catalog(&name)) {
            let schemas = catalog.schema_names().into_iter();
            for schema in schemas.filter_map(|name| catalog.schema(&name)) {
                tables.extend(schema.table_names());
            }
        }
        tables
    }
}

/// Refuses a result that a store cannot contain.
fn require_readable(plan: &LogicalPlan) -> Result<(), DataFusionError> {
    if plan.schema().fields().is_empty() {
        let problem = "the result has no columns: begin the query with SELECT";
        return Err(DataFusionError::Plan(problem.to_owned()));
    }
    require_shallow_columns(plan).map_err(|error| DataFusionError::Plan(error.to_string()))
}

/// Runs `task`, which plans a query, on a thread with enough stack for it.
///
/// # Errors
/// Fails if the thread cannot be started.
fn with_query_stack<T: Send>(task: impl FnOnce() -> T + Send) -> io::Result<T> {
    let worker = thread::Builder::new().stack_size(QUERY_STACK_BYTES);
    thread::scope(|scope| match worker.spawn_scoped(scope, task)?.join() {
        Ok(done) => Ok(done),
        Err(panic) => resume_unwind(panic),
    })
}

/// Casts all text columns to `Utf8View`, because functions and files produce any of arrow's three text types.
///
/// # Errors
/// Fails if an arrow cast fails.
pub(super) fn text_views(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut fields = rows.schema().fields().to_vec();
    let mut columns = rows.columns().to_vec();
    for (field, column) in fields.iter_mut().zip(&mut columns) {
        if matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8) {
            *column = cast(column, &DataType::Utf8View)?;
            *field = Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// Formats an error as one line. For an unknown column, the line contains the nearest known columns.
pub(super) fn one_line(error: &DataFusionError) -> String {
    if let DataFusionError::SchemaError(schema_error, _) = error.find_root()
        && let SchemaError::FieldNotFound {
            field,
            valid_fields,
        } = schema_error.as_ref()
    {
        let known: Vec<&str> = valid_fields
            .iter()
            .map(|column| column.name.as_str())
            .collect();
        let near = nearest(&field.name, &known);
        return format!(
            "no column `{}`; nearest: {near}; see the metadata's header for all columns (FMA's levels are joined by `_`)",
            field.name
        );
    }

    let message = match error.find_root() {
        // DataFusion's own message would contain this error twice, once in its debug format.
        DataFusionError::SQL(syntax, _) => syntax.to_string(),
        root => root.strip_backtrace(),
    };
    let words: Vec<&str> = message.split_whitespace().collect();
    words.join(" ").chars().take(MESSAGE_CHARS_MAX).collect()
}

/// Returns the three of the `known` names that are most similar to `name`.
pub(super) fn nearest(name: &str, known: &[&str]) -> String {
    let mut known = known.to_vec();
    // The second sort is stable, so names with equal distance stay in alphabetical order.
    known.sort_unstable();
    known.dedup();
    known.sort_by_key(|candidate| levenshtein(&name.to_lowercase(), &candidate.to_lowercase()));
    known.truncate(3);
    known.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::statements::parse_query;

    use super::*;

    #[test]
    fn long_chains_of_operators_do_not_overflow_the_stack() {
        let engine = Engine::new(1 << 20, Arc::default()).expect("an engine");
        let sql = format!("SELECT * FROM nothing WHERE a{}", " OR a".repeat(400));
        let query = parse_query(&sql).expect("a query");
        let failed = engine.query(&query).expect_err("no table");
        assert!(failed.to_string().contains("nothing"), "{failed}");
    }
}
