//! A session over one version of a store. It executes SQL and returns record batches within a memory limit.
//!
//! Rows with tensors take hundreds of kilobytes, but DataFusion limits batches by rows. The batch size is therefore
//! derived from the widest row that a query reads, before the query is planned.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::SchemaRef;
use datafusion::catalog::CatalogProvider;
use datafusion::common::config::ConfigNonZeroUsize;
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::common::utils::memory::RecordBatchMemoryCounter;
use datafusion::common::{Column, DataFusionError, ResolvedTableReference, TableReference};
use datafusion::datasource::listing::{ListingTable, ListingTableUrl};
use datafusion::datasource::{MemTable, provider_as_source, source_as_provider};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryConsumer, MemoryReservation};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{
    self as logical, CreateMemoryTable, DdlStatement, Expr, LogicalPlan, LogicalPlanBuilder,
    TableScan,
};
use datafusion::object_store::ObjectStore;
use datafusion::object_store::local::LocalFileSystem;
use datafusion::physical_plan::{SendableRecordBatchStream, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use futures::StreamExt;
use wavemill_catalog::statements::{parse, require_shallow_columns};
use wavemill_runtime::panics::caught;
use wavemill_schemas::manifest::{Manifest, TargetEntry};
use wavemill_store::Store;

use super::catalog::{self, CATALOG, RAW, STORE, StoreSchema};
use super::damage::Version;
use super::error::nearest;
use super::mistakes::{TensorSubscripts, UnknownColumn};
use super::output::Sink;
use super::rows::{Origin, Rows};
use super::running::{self, Interrupt};
use super::table::StoreTable;
use super::tensor::TensorType;
use super::{
    SqlError, average, bounded, copying, functions, headings, own_tables, similarity, subqueries,
};

/// Maximum size in bytes of the tensors in one batch (8,192 rows of 330 KB were 5.4 GB resident, 64 were 0.4).
const BATCH_BYTES: usize = 32 << 20;
/// Maximum size of a batch if the plan holds rows back for sorting, joining or grouping. The reader allocates whole
/// batches, so with the normal size a few rows left by a filter would hold 32 MiB: `ORDER BY … LIMIT 100` then exceeded
/// 512 MB. With this size it takes 70 MB.
const HELD_BATCH_BYTES: usize = 1 << 20;
/// Maximum number of rows in a batch without tensors.
const BATCH_ROWS_MAX: usize = 8192;
/// Maximum number of rows in a batch with texts or lists, and the memory for which there is one row: a join can copy a
/// value of 256 KiB into each of them.
pub(super) const TEXT_BATCH_ROWS_MAX: usize = 1024;
const TEXT_ROW_BYTES: usize = 1 << 20;
/// Size in bytes from which a constant counts as a part of a row: an expression copies it into each row of a batch.
const CONSTANT_BYTES_MIN: usize = BATCH_BYTES / BATCH_ROWS_MAX;
/// Fraction of the memory limit that sorts, joins and aggregates may use. The rest is for readers and batches in
/// transit.
const POOL_FRACTION: f64 = 0.4;
/// Fraction of the pool that all sorts of a plan together keep free for merging. DataFusion reserves 10 MB for each
/// sort, but needs as much as 1.6 times the rows in memory if they consist of two numbers: such sorts failed.
const MERGE_FRACTION: f64 = 0.6;
/// Memory limit per worker thread: each worker keeps freed batches in its own heap. A sort of 3 GB of tensors under 1
/// GiB peaked at 563 MiB with two workers and at 1,069 MiB with eight.
const WORKER_BYTES: usize = 512 << 20;
/// Up to this size in bytes, a join collects one input. Partitioning both would copy the tensors of the other one.
const JOIN_COLLECT_BYTES: usize = 64 << 20;

/// Maximum number of tables that an error names.
const NAMED_MAX: usize = 3;

/// Scheme of the URL under which the store's files are registered in DataFusion.
const URL_SCHEME: &str = "store";

/// Resource limits and permissions of a session.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Memory limit of the whole process in bytes. Data beyond it is spilled to the temporary folder, or the query is
    /// refused.
    pub memory_bytes: usize,
    /// Number of threads, at least 1. Fewer are used if the memory limit is too small for them.
    pub threads: usize,
    /// True to permit DDL, DML and COPY.
    pub allow_write: bool,
}

impl Limits {
    /// Returns the number of threads on which a query runs.
    fn workers(&self) -> usize {
        self.threads.min(self.memory_bytes / WORKER_BYTES).max(1)
    }

    /// Returns the number of rows of a batch with at most `batch_bytes` of tensors, large constants and repeated texts.
    /// DataFusion limits a batch by rows, and one row may take 330 KB.
    ///
    /// # Errors
    /// If DataFusion cannot walk the plan, which does not occur in practice.
    pub(super) fn batch_rows(
        &self,
        plan: &LogicalPlan,
        batch_bytes: usize,
    ) -> Result<usize, SqlError> {
        let (row_bytes, has_texts) = widest_row(plan)?;
        let rows_max = match has_texts {
            true => (self.memory_bytes / TEXT_ROW_BYTES).min(TEXT_BATCH_ROWS_MAX),
            false => BATCH_ROWS_MAX,
        };
        Ok((batch_bytes / row_bytes.max(1)).min(rows_max).max(1))
    }

    /// Returns the memory that sorts, joins and aggregates may use.
    fn pool_bytes(&self) -> usize {
        (self.memory_bytes as f64 * POOL_FRACTION) as usize
    }
}

/// A SQL session over one version of a store.
pub struct Session {
    pub(super) planner: Planner,
    version: Version,
    interrupt: Interrupt,
}

/// Plans statements and starts their execution, on any thread.
#[derive(Clone)]
pub(super) struct Planner {
    store: Store,
    pub(super) ctx: SessionContext,
    limits: Limits,
    targets: Arc<[TargetEntry]>,
    interrupt: Interrupt,
    /// The memory of the tables that CREATE TABLE AS has made.
    created: Arc<Mutex<HashMap<ResolvedTableReference, MemoryReservation>>>,
}

/// Opens the version of `store` that `manifest` describes. Files of features in an object store are not copied: a query
/// reads the columns that it needs.
///
/// # Errors
/// [`SqlError::Usage`] if the folder is missing, and [`SqlError::Failed`] if DataFusion cannot be set up.
pub fn open(store: &Store, manifest: &Manifest, limits: Limits) -> Result<Session, SqlError> {
    let state = SessionStateBuilder::new()
        .with_runtime_env(environment(store, &limits)?)
        .with_config(config(&limits))
        // The default planners of expressions follow.
        .with_expr_planners(vec![Arc::new(TensorSubscripts)])
        .with_default_features()
        .build();
    let ctx = SessionContext::new_with_state(state);

    let version = Version::new(store.clone(), manifest);
    let catalog = catalog::build(store, &store_url()?, manifest, &version.opened)?;
    ctx.register_catalog(CATALOG, Arc::new(catalog));
    bounded::register(&ctx, limits.memory_bytes)?;
    functions::all().for_each(|function| ctx.register_udf(function));
    ctx.register_udf(similarity::cosine_similarity());
    ctx.register_udaf(average::tensor_avg());

    let interrupt = Interrupt::default();
    let planner = Planner {
        store: store.clone(),
        ctx,
        limits,
        targets: manifest.targets.as_slice().into(),
        interrupt: interrupt.clone(),
        created: Arc::default(),
    };

    Ok(Session {
        planner,
        version,
        interrupt,
    })
}

/// Creates the memory pool of a session over `store`, and registers its files.
///
/// # Errors
/// [`SqlError::Usage`] if the folder is missing.
fn environment(store: &Store, limits: &Limits) -> Result<Arc<RuntimeEnv>, SqlError> {
    // The manifest's paths are relative to the store's folder.
    let files: Arc<dyn ObjectStore> = match store.mirror() {
        Some(mirror) => mirror.objects(),
        None => {
            let files = LocalFileSystem::new_with_prefix(store.root());
            Arc::new(files.map_err(|_| {
                SqlError::Usage(format!(
                    "{} is not a wavemill store: it has no _wavemill/versions (make one with `wavemill extract --store …`)",
                    store.root().display()
                ))
            })?)
        }
    };

    let pool = FairSpillPool::new(limits.pool_bytes());
    let env = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .build_arc()?;
    env.register_object_store(store_url()?.as_ref(), files);
    Ok(env)
}

fn store_url() -> Result<ObjectStoreUrl, SqlError> {
    Ok(ObjectStoreUrl::parse(format!("{URL_SCHEME}://wavemill"))?)
}

fn config(limits: &Limits) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, STORE)
        // DataFusion would create an empty catalog with the same name.
        .with_create_default_catalog_and_schema(false)
        // SHOW TABLES and DESCRIBE read the information schema.
        .with_information_schema(true)
        .with_target_partitions(limits.workers());
    config
        .options_mut()
        .optimizer
        .hash_join_single_partition_threshold = JOIN_COLLECT_BYTES;
    config
}

impl Session {
    /// Runs all statements of `sql` and writes each result to `sink`.
    ///
    /// # Errors
    /// [`SqlError`]. The results of earlier statements have already been written.
    pub fn run(&self, sql: &str, sink: &mut dyn Sink) -> Result<(), SqlError> {
        // Parse all statements before the first one runs, so that a syntax error in the last one leaves none executed.
        statements(sql)?
            .into_iter()
            .try_for_each(|statement| self.run_statement(statement, sink))
    }

    /// Starts a single statement and returns its rows. The session's interrupt stops it.
    ///
    /// # Errors
    /// [`SqlError`], also if there are several statements.
    pub fn rows(self, sql: &str) -> Result<Rows, SqlError> {
        let mut statements = statements(sql)?;
        let (Some(statement), None) = (statements.pop_front(), statements.pop_front()) else {
            let problem = "several statements: give one at a time";
            return Err(SqlError::Usage(problem.to_owned()));
        };

        self.start(async move |planner| planner.stream(statement).await)
    }

    /// Starts reading these columns of the rows of a table that pass all filters, and returns them.
    pub(super) fn scan(
        self,
        table: &str,
        columns: Vec<String>,
        filters: Vec<Expr>,
        limit: Option<usize>,
    ) -> Result<Rows, SqlError> {
        let (schema, name) = qualified(table);
        let table = TableReference::partial(schema, name);

        self.start(async move |planner| {
            let mut rows = planner.ctx.table(table).await?;
            for filter in filters {
                rows = rows.filter(filter)?;
            }
            let columns = columns
                .into_iter()
                .map(|name| Expr::Column(Column::from_name(name)));
            let rows = rows.select(columns)?.limit(0, limit)?;
            planner.execute(rows.into_unoptimized_plan()).await
        })
    }

    fn start<Q>(self, query: impl FnOnce(Planner) -> Q) -> Result<Rows, SqlError>
    where
        Q: Future<Output = Result<SendableRecordBatchStream, SqlError>> + Send + 'static,
    {
        let workers = self.planner.limits.workers();
        let origin = Origin::new(self.version, self.interrupt);
        Rows::start(workers, query(self.planner), origin)
    }

    fn run_statement(&self, statement: Statement, sink: &mut dyn Sink) -> Result<(), SqlError> {
        // If the statement fails, only files that the statement itself opened can be the cause.
        self.version.opened.clear();
        let stop = self.interrupt.listen();
        // The query runs on its own threads, so it needs its own planner.
        let planner = self.planner.clone();
        let query = async move { planner.stream(statement).await };
        let workers = self.planner.limits.workers();

        // A reader's panic is explained below like any other failure, because a damaged page may be the cause.
        let answered = caught(|| running::answer(workers, &stop, query, sink))
            .unwrap_or_else(|panic| Err(panic.into()));

        // Remove the unfinished files of a failed COPY or INSERT.
        match &answered {
            Ok(()) => self.interrupt.partial().end(),
            Err(_) => self.interrupt.partial().remove(),
        }

        answered.map_err(|error| self.version.explain(error, || !stop.is_empty()))
    }

    /// Replaces the session's interrupt by `interrupt`, with which another thread can stop the queries.
    #[must_use]
    pub fn with_interrupt(mut self, interrupt: Interrupt) -> Self {
        self.planner.interrupt = interrupt.clone();
        self.interrupt = interrupt;
        self
    }

    /// Adds one of the user's files as a read-only table.
    ///
    /// # Errors
    /// [`SqlError::Usage`] if the name is invalid or taken, or if the file cannot be read.
    pub fn add_table(&self, name: &str, file: &Path) -> Result<(), SqlError> {
        own_tables::add(&self.planner.ctx, name, file)
    }

    /// Returns the number of rows of one of [`Session::tables`], or `None` if the manifest does not contain it.
    pub fn rows_of(&self, table: &str) -> Option<u64> {
        self.version.rows_of(table)
    }

    /// Returns a handle that stops the running query.
    pub fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// Returns the sorted names of all tables as written in a query: `albums …`, then `raw.<name> …`.
    pub fn tables(&self) -> Vec<String> {
        self.planner.tables()
    }

    /// Returns the columns of one of [`Session::tables`].
    ///
    /// # Errors
    /// [`SqlError::Usage`] if the table does not exist, or [`SqlError::Damaged`] if its file is damaged.
    pub fn columns(&self, table: &str) -> Result<SchemaRef, SqlError> {
        self.planner.columns(table)
    }

    /// Returns the names of all scalar and aggregate functions, unsorted.
    pub fn functions(&self) -> Vec<String> {
        let state = self.planner.ctx.state();
        state
            .scalar_functions()
            .keys()
            .chain(state.aggregate_functions().keys())
            .cloned()
            .collect()
    }
}

impl Planner {
    async fn stream(&self, statement: Statement) -> Result<SendableRecordBatchStream, SqlError> {
        let plan = self.permitted(statement).await?;

        // Existing files in the target's folder are the user's and must stay if the statement fails.
        self.note_target(&plan)?;
        self.execute(plan).await
    }

    /// Plans a statement, and refuses it before anything is executed if it may not run.
    ///
    /// # Errors
    /// [`SqlError`] of a wrong or refused statement.
    async fn permitted(&self, statement: Statement) -> Result<LogicalPlan, SqlError> {
        let plan = self.plan(statement).await?;

        self.refuse_changes(&plan)?;
        refuse_limits(&plan)?;
        require_shallow_columns(&plan)?;
        Ok(plan)
    }

    /// Starts a plan, with batches of as many rows as fit into memory.
    async fn execute(&self, plan: LogicalPlan) -> Result<SendableRecordBatchStream, SqlError> {
        let plan = match plan {
            LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) => {
                self.with_counted_rows(table).await?
            }
            other => other,
        };
        if let LogicalPlan::Ddl(DdlStatement::DropTable(table)) = &plan {
            self.created().remove(&resolved(&table.name));
        }

        // DDL is executed by this call. For a query, the call only creates a plan.
        let (state, plan) = self.ctx.execute_logical_plan(plan).await?.into_parts();
        self.start_query(state, &plan).await
    }

    /// Computes the rows of CREATE TABLE AS, which DataFusion would collect without regard to the memory limit. Returns
    /// the statement with these rows as its query.
    async fn with_counted_rows(
        &self,
        mut table: CreateMemoryTable,
    ) -> Result<LogicalPlan, SqlError> {
        // DataFusion computes no rows for a table that exists.
        if !table.or_replace && self.ctx.table_exist(table.name.clone())? {
            return Ok(LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)));
        }

        let mut rows = self.start_query(self.ctx.state(), &table.input).await?;
        let schema = rows.schema();
        // Refuse names that no table can have before any row is computed.
        let empty = provider_as_source(Arc::new(MemTable::try_new(
            Arc::clone(&schema),
            vec![Vec::new()],
        )?));
        LogicalPlanBuilder::scan(table.name.clone(), empty, None)?;

        let consumer = MemoryConsumer::new(format!("CREATE TABLE {}", table.name));
        let memory = consumer.register(&self.ctx.runtime_env().memory_pool);
        let mut counter = RecordBatchMemoryCounter::new();
        let mut batches = Vec::new();
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            memory.try_grow(counter.count_batch(&batch))?;
            batches.push(batch);
        }

        let batches = provider_as_source(Arc::new(MemTable::try_new(schema, vec![batches])?));
        let scan = LogicalPlanBuilder::scan(table.name.clone(), batches, None)?;
        table.input = Arc::new(scan.build()?);
        self.created().insert(resolved(&table.name), memory);
        Ok(LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)))
    }

    fn created(&self) -> MutexGuard<'_, HashMap<ResolvedTableReference, MemoryReservation>> {
        self.created.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn start_query(
        &self,
        mut state: SessionState,
        plan: &LogicalPlan,
    ) -> Result<SendableRecordBatchStream, SqlError> {
        // In the optimized plan a scan has only the columns that the query reads, which determine the width of its
        // rows.
        let plan = state.optimize(plan)?;

        let batch_bytes = if holds_rows(&plan)? {
            HELD_BATCH_BYTES
        } else {
            BATCH_BYTES
        };
        let batch_rows = self.limits.batch_rows(&plan, batch_bytes)?;
        let batch_rows = batch_rows.min(state.config().batch_size());
        let execution = &mut state.config_mut().options_mut().execution;
        execution.batch_size = ConfigNonZeroUsize::try_new(batch_rows)?;
        // A share is left for sorts that the planner adds.
        let merge_bytes = self.limits.pool_bytes() as f64 * MERGE_FRACTION;
        let n_sorts = (n_sorts(&plan)? + 1) * self.limits.workers();
        execution.sort_spill_reservation_bytes = (merge_bytes / n_sorts as f64) as usize;

        let plan = subqueries::limited(plan, self.limits.memory_bytes)?;
        let physical = state.create_physical_plan(&plan).await?;
        let physical = copying::limited(physical, batch_rows, self.limits.memory_bytes)?;
        let physical = running::cooperative(physical)?;
        Ok(execute_stream(physical, state.task_ctx())?)
    }

    /// Plans a statement with result names as the user wrote them. If that fails, because an expression cannot be named
    /// (one that expands to several columns), plans the statement unchanged.
    async fn plan(&self, statement: Statement) -> Result<LogicalPlan, SqlError> {
        let state = self.ctx.state();
        // Discard this error: the error of the unchanged statement refers to the text that the user wrote.
        if let Ok(plan) = state.statement_to_plan(headings::named(&statement)).await {
            return Ok(plan);
        }
        match state.statement_to_plan(statement.clone()).await {
            Ok(plan) => Ok(plan),
            Err(error) => Err(self.explained(error, &statement).await),
        }
    }

    /// Converts the error of planning a statement. The remedies for unknown tables and columns follow from the
    /// statement and from the tables that there are.
    async fn explained(&self, error: DataFusionError, statement: &Statement) -> SqlError {
        let message = error.find_root().message();
        let name = message.strip_prefix("table '");
        if let Some(name) = name.and_then(|name| name.strip_suffix("' not found")) {
            // DataFusion adds the catalog and the schema.
            let added =
                |name: &str, part| Some(name.strip_prefix(part)?.strip_prefix('.')?.to_owned());
            let name = added(name, CATALOG).unwrap_or_else(|| name.to_owned());
            return self.unknown_table(&added(&name, STORE).unwrap_or(name));
        }
        let Some(unknown) = UnknownColumn::of(&error) else {
            return error.into();
        };
        let near = unknown.near();
        let text = unknown.text(statement, near.is_some(), &self.targets);
        let remedy = match text.or(near) {
            Some(remedy) => Some(remedy),
            None => self.tables_with(&unknown.column.name).await,
        };
        unknown.error(remedy)
    }

    /// Returns the remedy for an unknown column that other tables have. Tables in an object store are not read for it.
    async fn tables_with(&self, column: &str) -> Option<String> {
        if self.store.mirror().is_some() {
            return None;
        }
        let mut found = Vec::new();
        for name in self.tables() {
            let (schema, table) = qualified(&name);
            let opened = self.schema_provider(schema)?.table(table).await;
            if let Ok(Some(opened)) = opened
                && opened.schema().column_with_name(column).is_some()
            {
                found.push(name);
            }
        }
        found.truncate(NAMED_MAX);
        (!found.is_empty()).then(|| format!("it is a column of {}", found.join(", ")))
    }

    /// Refuses statements that change anything which they may not change. The whole plan is searched, because EXPLAIN
    /// ANALYZE executes the statement inside it.
    fn refuse_changes(&self, plan: &LogicalPlan) -> Result<(), SqlError> {
        let mut refused = None;
        plan.apply_with_subqueries(|node| {
            refused = self.refusal(node)?;
            Ok(match refused {
                Some(_) => TreeNodeRecursion::Stop,
                None => TreeNodeRecursion::Continue,
            })
        })?;
        refused.map_or(Ok(()), |problem| Err(SqlError::Usage(problem)))
    }

    /// Returns the reason why a part of a plan may not run: it changes a table of the store, or writes without
    /// `--allow-write`; it writes into the store, or creates a table from its files, to which an INSERT could write; or
    /// it copies to a pattern, for which DataFusion would write to the folder before it.
    fn refusal(&self, node: &LogicalPlan) -> Result<Option<String>, DataFusionError> {
        let (statement, changed, paths) = match node {
            LogicalPlan::Ddl(DdlStatement::DropTable(drop)) => ("Drop", Some(&drop.name), &[][..]),
            LogicalPlan::Ddl(DdlStatement::CreateExternalTable(table)) => {
                ("Create", None, &table.locations[..])
            }
            LogicalPlan::Ddl(ddl) => (ddl.name(), None, &[][..]),
            LogicalPlan::Dml(dml) => (dml.op.name(), Some(&dml.table_name), &[][..]),
            LogicalPlan::Copy(copy) => ("Copy", None, std::slice::from_ref(&copy.output_url)),
            _ => return Ok(None),
        };
        let statement = verb(statement);

        let in_store = paths.iter().find(|path| self.is_in_store(path));
        Ok(Some(match (changed, in_store) {
            (Some(table), _) if self.is_stored(table) => format!(
                "{statement}: {table} is a table of the store, whose versions never change: to change or leave out rows, add \
                 a step to the recipe's catalog.clean and commit another version with `wavemill extract … --new-version`"
            ),
            (Some(table), _)
                if !self.limits.allow_write && self.ctx.table_exist(table.clone())? =>
            {
                format!("{statement}: {table} is a file of yours, which SQL only reads")
            }
            _ if !self.limits.allow_write => {
                format!("{statement}: `wavemill sql` is read-only: add --allow-write to permit it")
            }
            (_, Some(path)) => {
                format!("{path}: this path is inside the store: {statement} needs one outside it")
            }
            _ => match node {
                LogicalPlan::Copy(copy) if is_pattern(&copy.output_url) => format!(
                    "COPY … TO '{}': a path with *, ? or [ is a pattern for several files: choose another name",
                    copy.output_url
                ),
                _ => return Ok(None),
            },
        }))
    }

    /// Reports whether a table belongs to the store.
    fn is_stored(&self, table: &TableReference) -> bool {
        let table = resolved(table);
        let schema = self.schema_provider(&table.schema);
        let schema = schema
            .as_ref()
            .and_then(|schema| schema.downcast_ref::<StoreSchema>());
        schema.is_some_and(|schema| schema.is_stored(&table.table))
    }

    /// Records the target of a writing statement, so that unfinished files can be removed after a failure.
    fn note_target(&self, plan: &LogicalPlan) -> Result<(), SqlError> {
        // Search the whole plan: the statement may be inside an EXPLAIN ANALYZE.
        plan.apply_with_subqueries(|node| {
            let partial = self.interrupt.partial();
            match node {
                LogicalPlan::Copy(copy) => {
                    partial.begin_copy(&copy.output_url, !copy.partition_by.is_empty());
                }

                LogicalPlan::Dml(insert) => {
                    // Other kinds of tables write no files.
                    let table = source_as_provider(&insert.target)?;
                    if let Some(table) = table.downcast_ref::<ListingTable>() {
                        // If a table has several folders, DataFusion adds files to the first one.
                        partial.begin_insert(&table.table_paths()[0]);
                    }
                }

                _ => return Ok(TreeNodeRecursion::Continue),
            }
            Ok(TreeNodeRecursion::Stop)
        })?;
        Ok(())
    }

    /// Reports whether a path or URL, as interpreted by DataFusion, is inside the store.
    fn is_in_store(&self, path: &str) -> bool {
        // The location of an UNBOUNDED table is never a pattern, of which the URL has only the folder before it.
        if !path.contains("://") && self.store.encloses(Path::new(path)) {
            return true;
        }
        // A string that cannot be parsed as a URL fails later in DataFusion.
        let Ok(url) = ListingTableUrl::parse(path) else {
            return false;
        };
        url.scheme() == URL_SCHEME
            || url.scheme() == "file"
                && self
                    .store
                    .encloses(&Path::new("/").join(url.prefix().as_ref()))
    }

    fn unknown_table(&self, name: &str) -> SqlError {
        let tables = self.tables();
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        let remedy = match own_tables::name_for(name) {
            Some(own) => Some(format!(
                "to read a file, add --table {own}={name} and select FROM {own}"
            )),
            None => SqlError::did_you_mean(&nearest(name, &tables)),
        };
        SqlError::unknown("table", name, remedy)
    }

    fn schema_provider(
        &self,
        schema: &str,
    ) -> Option<Arc<dyn datafusion::catalog::SchemaProvider>> {
        self.ctx
            .catalog(CATALOG)
            .and_then(|catalog: Arc<dyn CatalogProvider>| catalog.schema(schema))
    }

    fn tables(&self) -> Vec<String> {
        let mut tables = self.table_names(STORE);
        let raw = self.table_names(RAW);
        tables.extend(raw.into_iter().map(|name| format!("{RAW}.{name}")));
        tables
    }

    fn table_names(&self, schema: &str) -> Vec<String> {
        self.schema_provider(schema)
            .map(|provider| provider.table_names())
            .unwrap_or_default()
    }

    fn columns(&self, table: &str) -> Result<SchemaRef, SqlError> {
        let (schema, name) = qualified(table);
        // `table` is only asynchronous because of its trait. It opens the file on this thread.
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let found = match self.schema_provider(schema) {
            Some(provider) => runtime.block_on(provider.table(name))?,
            None => None,
        };
        found
            .map(|provider| provider.schema())
            .ok_or_else(|| self.unknown_table(table))
    }
}

/// Parses the statements of a text, of which there must be at least one.
fn statements(sql: &str) -> Result<VecDeque<Statement>, SqlError> {
    let statements = parse(sql)?;
    if statements.is_empty() {
        let problem = "the query is empty: give SQL, such as \"SELECT count(*) FROM tracks\"";
        return Err(SqlError::Usage(problem.to_owned()));
    }
    Ok(statements)
}

fn resolved(table: &TableReference) -> ResolvedTableReference {
    table.clone().resolve(CATALOG, STORE)
}

/// Reports whether DataFusion interprets a path as a pattern for several files.
fn is_pattern(path: &str) -> bool {
    ListingTableUrl::parse(path).is_ok_and(|url| url.get_glob().is_some())
}

/// Returns the schema and the name of one of [`Session::tables`].
fn qualified(table: &str) -> (&str, &str) {
    table.split_once('.').unwrap_or((STORE, table))
}

/// Returns the first word of a statement that DataFusion calls `name`, such as `CreateView` or `Insert Into`.
fn verb(name: &str) -> String {
    let is_next = |c: char| c.is_uppercase() || c == ' ';
    let end = name.char_indices().skip(1).find(|(_, c)| is_next(*c));
    name[..end.map_or(name.len(), |(at, _)| at)].to_uppercase()
}

/// Refuses SET and RESET of runtime options that the command line sets: they could spill into the store or lift the
/// memory limit.
fn refuse_limits(plan: &LogicalPlan) -> Result<(), SqlError> {
    let name = match plan {
        LogicalPlan::Statement(logical::Statement::SetVariable(set)) => &set.variable,
        LogicalPlan::Statement(logical::Statement::ResetVariable(reset)) => &reset.variable,
        _ => return Ok(()),
    };
    if !name.to_ascii_lowercase().starts_with("datafusion.runtime") {
        return Ok(());
    }

    Err(SqlError::Usage(format!(
        "{name} cannot be changed by SQL: --memory-limit and TMPDIR control how much memory a query uses and where it spills"
    )))
}

/// Returns the number of bytes of tensors and repeated texts in the widest row of the plan's tables, together with the
/// large constants of all expressions, and whether the plan has columns of texts or lists.
fn widest_row(plan: &LogicalPlan) -> Result<(usize, bool), SqlError> {
    let mut widest = 0;
    let mut constants = 0;
    let mut has_texts = false;
    plan.apply_with_subqueries(|node| {
        let mut fields = node.schema().fields().iter();
        has_texts |= fields.any(|field| copying::is_text(field));

        if let LogicalPlan::TableScan(scan) = node {
            widest = widest.max(scanned_row_bytes(scan));
        }

        // The constants of VALUES are rows themselves.
        if !matches!(node, LogicalPlan::Values(_)) {
            node.apply_expressions(|expression| {
                expression.apply(|part| {
                    if let Expr::Literal(value, _) = part
                        && value.size() >= CONSTANT_BYTES_MIN
                    {
                        constants += value.size();
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok((widest + constants, has_texts))
}

/// Returns the number of bytes of tensors and repeated texts in a row of a table.
fn scanned_row_bytes(scan: &TableScan) -> usize {
    let fields = scan.projected_schema.fields().iter();
    let tensors = fields.filter_map(|field| TensorType::from_field(field));
    let bytes: usize = tensors.map(|tensor| tensor.usual_row_bytes()).sum();

    let table = source_as_provider(&scan.source).ok();
    let stored = table
        .as_deref()
        .and_then(|table| table.downcast_ref::<StoreTable>());
    bytes + stored.map_or(0, |table| table.repeated_bytes(scan.projection.as_ref()))
}

/// Reports whether an operator of the plan keeps rows while it reads more.
fn holds_rows(plan: &LogicalPlan) -> Result<bool, SqlError> {
    let mut holds = false;
    plan.apply_with_subqueries(|node| {
        use LogicalPlan::{Aggregate, Distinct, Join, Sort, Window};
        holds |= matches!(
            node,
            Aggregate(_) | Distinct(_) | Join(_) | Sort(_) | Window(_)
        );
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(holds)
}

/// Counts the operators of a plan that sort rows.
fn n_sorts(plan: &LogicalPlan) -> Result<usize, SqlError> {
    let mut n_sorts = 0;
    plan.apply_with_subqueries(|node| {
        n_sorts += usize::from(matches!(
            node,
            LogicalPlan::Sort(_) | LogicalPlan::Window(_)
        ));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(n_sorts)
}
