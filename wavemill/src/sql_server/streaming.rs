//! Sends rows of prepared queries as they are computed. The library collects the rows of an execution first.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion_postgres::DfSessionService;
use datafusion_postgres::pgwire::api::portal::{Portal, PortalExecutionState};
use datafusion_postgres::pgwire::api::query::ExtendedQueryHandler;
use datafusion_postgres::pgwire::api::results::{Response, Tag};
use datafusion_postgres::pgwire::api::store::PortalStore;
use datafusion_postgres::pgwire::api::{ClientInfo, ClientPortalStore};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use futures::{Sink, SinkExt as _, StreamExt as _};

/// Maximum number of rows of an execution that the client limits. The rest follows in further executions.
pub(super) const ROWS_MAX: i32 = 1024;

/// The handler of prepared queries.
pub(super) struct Streaming(pub(super) Arc<DfSessionService>);

#[async_trait]
impl ExtendedQueryHandler for Streaming {
    type Statement = <DfSessionService as ExtendedQueryHandler>::Statement;
    type QueryParser = <DfSessionService as ExtendedQueryHandler>::QueryParser;

    fn query_parser(&self) -> Arc<Self::QueryParser> {
        self.0.query_parser()
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
