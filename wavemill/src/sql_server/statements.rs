//! Decides which statements run: queries, and the statements that clients send around them.
//!
//! This is a hook of `datafusion-postgres`, which calls it before its own ones. Statements that the hook does not answer
//! are answered by those: settings, transactions (without effect, because nothing is written) and CLOSE.

use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::ParamValues;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{
    Declare, Expr, FetchDirection, Query, Set, Statement, Value, ValueWithSpan, visit_expressions,
    visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion_postgres::QueryHook;
use datafusion_postgres::arrow_pg::datatypes::df;
use datafusion_postgres::hooks::HookClient;
use datafusion_postgres::hooks::cursor::CursorStatementHook;
use datafusion_postgres::hooks::set_show::SetShowHook;
use datafusion_postgres::hooks::transactions::TransactionStatementHook;
use datafusion_postgres::pgwire::api::ClientInfo;
use datafusion_postgres::pgwire::api::portal::{Format, Portal, PortalExecutionState};
use datafusion_postgres::pgwire::api::results::{QueryResponse, Response, Tag};
use datafusion_postgres::pgwire::api::stmt::StoredStatement;
use datafusion_postgres::pgwire::api::store::PortalStore;
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::response::TransactionStatus;
use datafusion_postgres::pgwire::types::format::FormatOptions;
use futures::{StreamExt as _, stream};
use wavemill_sql::{SharedSession, SqlError};
use wavemill_statements::require_shallow;

use super::connections::STATEMENT_TIMEOUT;
use super::errors::{self, error};
use super::names::ABSENT_FUNCTION;

/// The schema of the store's tables.
const STORE: &str = "store";

/// Returns the hooks of a connection, in the order in which they are asked.
pub(super) fn hooks(session: &Arc<SharedSession>) -> Vec<Arc<dyn QueryHook>> {
    vec![
        Arc::new(ReadOnly(Arc::clone(session))),
        Arc::new(CursorStatementHook),
        Arc::new(SetShowHook),
        Arc::new(TransactionStatementHook),
    ]
}

/// Answers queries, and refuses all statements that neither it nor the hooks after it know.
struct ReadOnly(Arc<SharedSession>);

impl ReadOnly {
    /// Plans a query, and refuses it if it would write.
    async fn plan(&self, statement: &Statement) -> PgWireResult<LogicalPlan> {
        let mut statement = statement.clone();
        rewrite(&mut statement);
        self.0.plan(statement).await.map_err(failed)
    }

    async fn query(
        &self,
        statement: &Statement,
        client: &dyn HookClient,
    ) -> PgWireResult<Response> {
        let plan = self.plan(statement).await?;
        Ok(Response::Query(self.rows(plan, client).await?))
    }

    async fn rows(
        &self,
        plan: LogicalPlan,
        client: &dyn HookClient,
    ) -> PgWireResult<QueryResponse> {
        let rows = self.0.context().execute_logical_plan(plan).await;
        let rows = rows.map_err(|error| failed(error.into()))?;
        let options = Arc::new(FormatOptions::from_client_metadata(client.metadata()));
        // Rows have this format if the statement was not prepared.
        df::encode_dataframe(rows, &Format::UnifiedText, Some(options)).await
    }

    /// Declares a cursor, whose rows [`fetch`] returns. The library's cursors lack a description of their columns, and
    /// psycopg crashes without it.
    async fn declare(&self, cursor: &Declare, client: &dyn HookClient) -> PgWireResult<Response> {
        let (Some(name), Some(query)) = (cursor.names.first(), &cursor.for_query) else {
            let message = "expected DECLARE name CURSOR FOR query";
            return Err(error(errors::SYNTAX, message));
        };
        let text = query.to_string();
        let query = Statement::Query(query.clone());
        let plan = self.plan(&query).await?;
        let rows = self.rows(plan.clone(), client).await?;

        let name = name.value.clone();
        let statement = (text, Some((query, plan)));
        let statement = Arc::new(StoredStatement::new(name.clone(), statement, Vec::new()));
        let portal = Portal::new_cursor(name, statement);
        // A later FETCH may ask for rows after the last one.
        let rows = QueryResponse::new(rows.row_schema(), rows.data_rows.fuse());
        portal.start(rows).await;
        client.portal_store().put_portal(Arc::new(portal));
        Ok(Response::Execution(Tag::new("DECLARE CURSOR")))
    }

    /// Answers a statement that DataFusion does not plan. Returns `None` if another hook may answer it.
    async fn answered(
        &self,
        statement: &Statement,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        match statement {
            // The hook for SET would execute it, and lift the memory limit or choose another temporary folder.
            Statement::Set(set) if is_of_datafusion(set) => Some(Err(error(
                errors::CANNOT_CHANGE,
                "DataFusion's settings cannot be changed: limits are options of wavemill sql-server",
            ))),
            // The library stores the path for SHOW, and tables would still be those of the schema `store`.
            Statement::Set(set) => {
                if let Some(path) = search_path(set) {
                    select_schema(self.0.context(), &path);
                }
                None
            }

            Statement::Declare { stmts } => match stmts.as_slice() {
                [cursor] => Some(self.declare(cursor, client).await),
                _ => None,
            },
            Statement::Fetch {
                name, direction, ..
            } => Some(fetch(&name.value, direction, client).await),

            // Like transactions, savepoints have no effect, but clients expect to continue after an error.
            Statement::Savepoint { .. } => Some(Ok(Response::Execution(Tag::new("SAVEPOINT")))),
            Statement::ReleaseSavepoint { .. } => {
                Some(Ok(Response::Execution(Tag::new("RELEASE"))))
            }

            // Clients that pool connections send these before the next use.
            Statement::Deallocate { name, .. } => {
                client.portal_store().rm_statement(&name.value);
                // PREPARE of SQL is DataFusion's. A name that it does not know is no error.
                let text = format!("DEALLOCATE {name}");
                let _ = self.0.context().sql(&text).await;
                Some(Ok(Response::Execution(Tag::new("DEALLOCATE"))))
            }
            Statement::Discard { .. } => {
                client.portal_store().clear_portals();
                client.metadata_mut().remove(STATEMENT_TIMEOUT);
                select_schema(self.0.context(), "");
                Some(Ok(Response::Execution(Tag::new("DISCARD ALL"))))
            }
            _ => None,
        }
    }
}

#[async_trait]
impl QueryHook for ReadOnly {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        _ctx: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        if let Err(refused) = require_shallow(statement) {
            return Some(Err(failed(refused.into())));
        }
        // The hook for transactions refuses all but ROLLBACK after an error.
        if !is_query(statement) || client.transaction_status() == TransactionStatus::Error {
            return self.answered(statement, client).await;
        }
        Some(self.query(statement, client).await)
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _ctx: &SessionContext,
        _client: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        if let Err(refused) = require_shallow(statement) {
            return Some(Err(failed(refused.into())));
        }
        if is_query(statement) {
            return Some(self.plan(statement).await);
        }

        // Any plan without parameters: executing the statement does not read it.
        let is_answered = matches!(
            statement,
            Statement::Savepoint { .. }
                | Statement::ReleaseSavepoint { .. }
                | Statement::Deallocate { .. }
                | Statement::Discard { .. }
        );
        is_answered.then(|| Ok(LogicalPlan::default()))
    }

    async fn handle_extended_query(
        &self,
        statement: &Statement,
        _plan: &LogicalPlan,
        _params: &ParamValues,
        _ctx: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        // A query is executed from its plan, which was checked when it was parsed.
        self.answered(statement, client).await
    }
}

/// Returns rows of a cursor one by one, as the client reads them.
async fn fetch(
    name: &str,
    direction: &FetchDirection,
    client: &dyn HookClient,
) -> PgWireResult<Response> {
    let rows_max = match direction {
        FetchDirection::Next | FetchDirection::Forward { limit: None } => Some(1),
        FetchDirection::ForwardAll | FetchDirection::All => Some(u64::MAX),
        FetchDirection::Forward { limit: Some(n) } | FetchDirection::Count { limit: n } => {
            n.to_string().parse().ok()
        }
        _ => None,
    };
    let rows_max =
        rows_max.ok_or_else(|| error(errors::UNSUPPORTED, "a cursor can only move forward"))?;
    let portal = client.portal_store().get_portal(name);
    let portal = portal.and_then(|entry| entry.value().cloned());
    let portal = portal.ok_or_else(|| {
        error(
            errors::NO_CURSOR,
            format!("cursor \"{name}\" does not exist"),
        )
    })?;

    let state = portal.state();
    let fields = match &*state.lock().await {
        PortalExecutionState::Suspended(rows) => rows.row_schema(),
        _ => Arc::default(),
    };
    let rows = stream::unfold((state, rows_max), |(state, left)| async move {
        let left = left.checked_sub(1)?;
        let row = match &mut *state.lock().await {
            PortalExecutionState::Suspended(rows) => rows.data_rows().next().await,
            _ => None,
        };
        Some((row?, (state, left)))
    });
    Ok(Response::Query(QueryResponse::new(fields, rows)))
}

/// Reports whether a statement is planned and executed by DataFusion. All others are answered by a hook.
pub(super) const fn is_query(statement: &Statement) -> bool {
    !matches!(
        statement,
        Statement::Set(_)
            | Statement::ShowVariable { .. }
            | Statement::ShowStatus { .. }
            | Statement::ShowCatalogs { .. }
            | Statement::StartTransaction { .. }
            | Statement::Commit { .. }
            | Statement::Rollback { .. }
            | Statement::Declare { .. }
            | Statement::Fetch { .. }
            | Statement::Close { .. }
            | Statement::Savepoint { .. }
            | Statement::ReleaseSavepoint { .. }
            | Statement::Deallocate { .. }
            | Statement::Discard { .. }
    )
}

/// Reports whether SET changes DataFusion's own settings, for example `datafusion.runtime.memory_limit`.
fn is_of_datafusion(set: &Set) -> bool {
    let changed = match set {
        Set::SingleAssignment { variable, .. } => variable.to_string(),
        other => other.to_string(),
    };
    changed.to_ascii_lowercase().contains("datafusion")
}

/// Returns the new `search_path`, with its schemas divided by commas, if SET changes it.
fn search_path(set: &Set) -> Option<String> {
    let Set::SingleAssignment {
        variable, values, ..
    } = set
    else {
        return None;
    };
    let is_path = variable.to_string().eq_ignore_ascii_case("search_path");
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    is_path.then(|| values.join(","))
}

/// Makes the first schema of `path` that exists, or else `store`, the one of names without a schema.
pub(super) fn select_schema(ctx: &SessionContext, path: &str) {
    let state = ctx.state_ref();
    let mut state = state.write();

    let names = &state.config_options().catalog;
    let catalog = state.catalog_list().catalog(&names.default_catalog);

    let quotes = ['\'', '"', ' '];
    let mut schemas = path
        .split(',')
        .map(|schema| schema.trim_matches(quotes).to_lowercase());

    // Each name is also searched in `pg_catalog`. DataFusion makes `information_schema` itself.
    let found = schemas.find(|schema| match schema.as_str() {
        "pg_catalog" => false,
        "information_schema" => true,
        other => catalog
            .as_ref()
            .is_some_and(|catalog| catalog.schema(other).is_some()),
    });
    let schema = found.unwrap_or_else(|| STORE.to_owned());
    state.config_mut().options_mut().catalog.default_schema = schema;
}

/// Facts of columns that a store's columns do not have. SQLAlchemy asks for them in correlated subqueries that DataFusion
/// cannot execute.
const ABSENT: [&str; 4] = [
    "FROM pg_catalog.pg_attrdef",
    "FROM pg_catalog.pg_sequence",
    "FROM pg_catalog.pg_collation",
    "SELECT pg_catalog.pg_type.typcollation",
];

/// Rewrites expressions of clients that DataFusion does not execute.
fn rewrite(statement: &mut Statement) {
    let _ = visit_expressions_mut(statement, |expression| {
        match expression {
            Expr::Like {
                pattern,
                escape_char,
                ..
            }
            | Expr::ILike {
                pattern,
                escape_char,
                ..
            } => {
                escape_by_backslash(pattern, escape_char);
            }

            Expr::Subquery(query) => {
                let text = query.to_string();
                if ABSENT.iter().any(|fact| text.contains(fact))
                    && let Some(null) = null_with_parameters(query)
                {
                    *expression = null;
                }
            }
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
}

/// Returns a null that has the parameters of `query`, because clients send values for all parameters.
fn null_with_parameters(query: &Query) -> Option<Expr> {
    let mut parameters = vec!["''".to_owned()];
    let _ = visit_expressions(query, |expression| {
        if let Expr::Value(value) = expression
            && let Value::Placeholder(name) = &value.value
        {
            parameters.push(format!("{name}::VARCHAR"));
        }
        ControlFlow::<()>::Continue(())
    });
    parsed(&format!("{ABSENT_FUNCTION}({})", parameters.join(", ")))
}

fn parsed(expression: &str) -> Option<Expr> {
    let parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(expression);
    parser.and_then(|mut parser| parser.parse_expr()).ok()
}

/// Stands for an escape character that escapes itself; a character that no standard defines.
const ESCAPED_ESCAPE: char = '\u{e000}';

/// Replaces an escape character that is not the backslash, because DataFusion knows no other one. SQLAlchemy uses a
/// slash.
fn escape_by_backslash(pattern: &mut Expr, escape: &mut Option<ValueWithSpan>) {
    let text = escape.as_ref().and_then(|escape| match &escape.value {
        Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text.clone()),
        _ => None,
    });
    let Some(text) = text.filter(|text| !text.is_empty() && text != r"\") else {
        return;
    };
    *escape = None;

    // After the replacement, a wildcard is one that was not escaped.
    let plain = match text.as_str() {
        "%" | "_" => format!(r"\{text}"),
        _ => text.clone(),
    };
    let [escape, plain] = [text, plain].map(|text| text.replace('\'', "''"));

    let mut rewritten = pattern.to_string();
    for (from, to) in [
        (r"\", r"\\"),
        (&*format!("{escape}{escape}"), &*ESCAPED_ESCAPE.to_string()),
        (&*escape, r"\"),
        (&*ESCAPED_ESCAPE.to_string(), &*plain),
    ] {
        rewritten = format!("replace({rewritten}, '{from}', '{to}')");
    }

    if let Some(rewritten) = parsed(&rewritten) {
        *pattern = rewritten;
    }
}

fn failed(cause: SqlError) -> PgWireError {
    PgWireError::ApiError(Box::new(cause))
}
