//! Server for PostgreSQL's protocol: the tables of a store for psql, SQLAlchemy, DBeaver and similar programs.
//!
//! `datafusion-postgres` executes statements and knows PostgreSQL's types and system tables. This module owns what it
//! leaves open: [`connections`] accepts clients, with a limit of their number, of the time of a query, and an end in
//! order; [`access`] has passwords and TLS; [`statements`] refuses everything that does not only read; [`names`] replaces
//! the functions with which clients ask for the server's version and schema; [`errors`] has PostgreSQL's error codes.
//!
//! Each connection has a session of its own over the version that was the latest when the client connected.

mod access;
mod connections;
mod errors;
mod names;
mod statements;
mod streaming;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use wavemill_schemas::exit;
use wavemill_schemas::version_name::VersionName;
use wavemill_sql::{SharedEnvironment, SharedSession};
use wavemill_store::{Store, StoreError, StorePlace};

pub(crate) use access::Access;
pub(crate) use names::DATABASE;

use connections::RunningQueries;

/// A server of one store.
pub(crate) struct SqlServer {
    store: StorePlace,
    version: Option<VersionName>,
    environment: SharedEnvironment,
    access: Access,
    /// Maximum duration of a query, including the time in which the client reads its rows.
    query_timeout: Duration,
    n_connections: usize,
    /// Permits for clients, one per connection.
    places: Arc<Semaphore>,
    running: RunningQueries,
}

/// The reason why no session could be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sql(#[from] wavemill_sql::SqlError),
    #[error("PostgreSQL's system tables cannot be created: {0}")]
    SystemTables(#[from] Box<datafusion::common::DataFusionError>),
}

impl OpenError {
    /// Returns the exit code of a server that cannot start.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Store(error) => error.exit_code(),
            Self::Sql(error) => error.exit_code(),
            Self::SystemTables(_) => exit::FAILED,
        }
    }
}

/// Configuration of a server.
pub(crate) struct SqlServerSetup {
    pub store: StorePlace,
    /// Version that all connections read; `None` is the latest one when a client connects.
    pub version: Option<VersionName>,
    pub environment: SharedEnvironment,
    pub access: Access,
    pub query_timeout: Duration,
    pub n_connections: usize,
}

impl SqlServer {
    pub(crate) fn new(setup: SqlServerSetup) -> Self {
        Self {
            store: setup.store,
            version: setup.version,
            environment: setup.environment,
            access: setup.access,
            query_timeout: setup.query_timeout,
            n_connections: setup.n_connections,
            places: Arc::new(Semaphore::new(setup.n_connections)),
            running: RunningQueries::default(),
        }
    }

    /// Opens a session, as for each client.
    ///
    /// # Errors
    /// [`OpenError`] if the store has no such version, or it cannot be read.
    pub(crate) fn open(&self) -> Result<SharedSession, OpenError> {
        let store = Store::open(&self.store)?;
        let version = store.resolve(self.version.as_ref())?;
        let (_, manifest) = store.readable(version)?;
        let session = self.environment.open(&manifest)?;
        names::register(session.context())?;
        Ok(session)
    }
}

/// Serves clients until `stop` is set to true, and then ends their queries and connections.
pub(crate) async fn run(
    server: &Arc<SqlServer>,
    listener: TcpListener,
    stop: watch::Receiver<bool>,
) {
    connections::serve(server, listener, stop).await;
}
