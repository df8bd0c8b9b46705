//! Sends rows of prepared queries as they are computed. The library collects the rows of an execution first.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion_postgres::DfSessionService;
use datafusion_postgres::pgwire::api::portal::{Portal, PortalExecutionState};
use datafusion_postgres::pgwire::api::query::{
    ExtendedQueryHandler, send_execution_response, send_partial_query_response,
};
use datafusion_postgres::pgwire::api::results::{Response, Tag};
use datafusion_postgres::pgwire::api::store::{Entry, PortalStore};
use datafusion_postgres::pgwire::api::{
    ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireConnectionState,
};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::extendedquery::Execute;
use futures::{Sink, SinkExt as _, StreamExt as _};

use super::errors::{UNSUPPORTED, error};
use super::statements::is_query;

/// The handler of prepared queries.
pub(super) struct Streaming(pub(super) Arc<DfSessionService>);

#[async_trait]
impl ExtendedQueryHandler for Streaming {
    type Statement = <DfSessionService as ExtendedQueryHandler>::Statement;
    type QueryParser = <DfSessionService as ExtendedQueryHandler>::QueryParser;

    fn query_parser(&self) -> Arc<Self::QueryParser> {
        self.0.query_parser()
    }

    /// Sends as many rows as the client asked for, each as soon as it is computed. The portal keeps the others.
    async fn on_execute<C>(&self, client: &mut C, mut message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let rows_max = usize::try_from(message.max_rows).unwrap_or(0);
        let portal = match client.portal_store().get_portal(name) {
            Some(Entry::Value(portal)) if rows_max > 0 && has_rows(&portal) => portal,
            _ => {
                message.max_rows = 0;
                return self._on_execute(client, message).await;
            }
        };
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        client.set_state(PgWireConnectionState::QueryInProgress);

        let state = portal.state();
        let is_new = matches!(*state.lock().await, PortalExecutionState::Initial);
        if is_new {
            match self.do_query(client, &portal, rows_max).await? {
                Response::Query(rows) => portal.start(rows).await,
                Response::Execution(tag) => send_execution_response(client, tag).await?,
                _ => return Err(error(UNSUPPORTED, "a limit of rows for this statement")),
            }
        }

        let mut state = state.lock().await;
        match &mut *state {
            PortalExecutionState::Suspended(rows) => {
                if !send_partial_query_response(client, rows, rows_max).await? {
                    *state = PortalExecutionState::Finished;
                }
            }
            PortalExecutionState::Finished => {
                send_execution_response(client, Tag::new("SELECT").with_rows(0)).await?;
            }
            PortalExecutionState::Initial => {}
        }
        client.set_state(PgWireConnectionState::ReadyForQuery);
        Ok(())
    }

    async fn do_query<C>(
        &self,
        client: &mut C,
        portal: &Portal<Self::Statement>,
        max_rows: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let answered = ExtendedQueryHandler::do_query(&*self.0, client, portal, max_rows).await?;
        let Response::Query(mut rows) = answered else {
            return Ok(answered);
        };
        if max_rows != 0 {
            return Ok(Response::Query(rows));
        }

        let mut n_rows = 0;
        while let Some(row) = rows.data_rows().next().await {
            client.feed(PgWireBackendMessage::DataRow(row?)).await?;
            n_rows += 1;
        }
        *portal.state().lock().await = PortalExecutionState::Finished;
        let tag = Tag::new(rows.command_tag()).with_rows(n_rows);
        Ok(Response::Execution(tag))
    }
}

/// Reports whether the statement of a portal is a query.
fn has_rows(portal: &Portal<<DfSessionService as ExtendedQueryHandler>::Statement>) -> bool {
    let parsed = portal.statement.statement.1.as_ref();
    parsed.is_some_and(|(statement, _)| is_query(statement))
}
