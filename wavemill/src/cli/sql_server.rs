//! `wavemill sql-server`: a store's tables for programs that use PostgreSQL's protocol.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use wavemill_schemas::version_name::VersionName;
use wavemill_sql::SharedEnvironment;
use wavemill_store::{Store, StorePlace};
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::interrupt::{SignalGuard, end};
use wavemill_terminal::output;

use super::exit::Interrupted;
use super::sql::{limits, parse_limit};
use crate::sql_server::{self, Access, DATABASE, SqlServer, SqlServerSetup};

const EXAMPLES: &str = "\
Examples:
  wavemill sql-server --store store
  psql postgresql://wavemill@127.0.0.1:5432/wavemill
  wavemill sql-server --store store --version paper --listen 127.0.0.1:6432
  WAVEMILL_SQL_PASSWORD=… wavemill sql-server --store store \\
      --listen 0.0.0.0:5432 --tls-cert server.pem --tls-key server.key

Queries only read. Each connection reads the version that was the latest when it was opened, or --version. The password \
is in the file of --password-file or in the variable WAVEMILL_SQL_PASSWORD; without one, only addresses of this machine \
are permitted. Any user name is accepted.

Exit codes: 0 ok, 1 failed, 2 wrong usage, or no such store or version, 3 store damaged, 130 stopped by SIGINT or \
SIGTERM, which ends running queries.";

/// Variable with the password, if no file is given.
const PASSWORD_VARIABLE: &str = "WAVEMILL_SQL_PASSWORD";
/// Number of threads for connections: protocol, TLS and planning. Queries have threads of their own.
const CONNECTION_THREADS: usize = 4;
/// Stack size of each thread. Statements and plans are walked recursively, and the depth of a long statement is only
/// limited by its length. Memory is taken only when a stack grows.
const STACK_BYTES: usize = 256 << 20;
/// Time that running queries have to end after a signal, before their threads are abandoned.
const LEAVE: Duration = Duration::from_millis(300);
/// Time from a signal to the end of the process, even if a thread is stuck.
const END: Duration = Duration::from_millis(900);

/// Serve a store's tables to psql, SQLAlchemy, DBeaver and other programs for PostgreSQL
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SqlServerCommand {
    /// The store's folder, or its address such as s3://bucket/store
    #[arg(long, value_name = "DIR")]
    store: StorePlace,
    /// Version, by number or tag [default: the latest when a client connects]
    #[arg(long, value_name = "VERSION")]
    version: Option<VersionName>,
    /// Address and port; port 0 selects a free one; the default accepts connections from this machine only
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 5432)))]
    listen: SocketAddr,
    /// File with the password that clients need, on one line [default: the variable WAVEMILL_SQL_PASSWORD]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Certificate of the server and its chain (PEM); clients then need TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Memory limit of the process; data beyond it is spilled to the temporary folder
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_limit)]
    memory_limit: usize,
    /// Maximum number of threads for queries; each takes 512MiB of the memory limit [default: the number of processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Time limit of a query in seconds, including the time in which the client reads its rows
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    query_timeout: u64,
    /// Maximum number of connections at the same time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
}

impl SqlServerCommand {
    /// Serves clients until a signal arrives.
    ///
    /// # Errors
    /// Wrong usage; a store that cannot be read; [`Interrupted`] after a signal.
    pub fn run(&self) -> Result<()> {
        let access = self.access()?;
        let limits = limits(self.memory_limit, self.threads.map(usize::from), false);
        let queries = threads(limits.workers())?;
        let connections = threads(CONNECTION_THREADS)?;

        let environment =
            SharedEnvironment::new(&Store::open(&self.store)?, limits, queries.handle().clone())?;
        let server = Arc::new(SqlServer::new(SqlServerSetup {
            store: self.store.clone(),
            version: self.version.clone(),
            environment,
            access,
            query_timeout: Duration::from_secs(self.query_timeout),
            n_connections: usize::from(self.connections),
        }));
        // Report a store that cannot be read now, and not to the first client.
        server.open()?;

        let served = connections.block_on(self.serve(&server));
        // Queries remove their temporary files when they end.
        connections.shutdown_background();
        queries.shutdown_timeout(LEAVE);
        served
    }

    async fn serve(&self, server: &Arc<SqlServer>) -> Result<()> {
        let address = self.listen;
        let listener = TcpListener::bind(address).await.map_err(|error| {
            UsageError(format!(
                "cannot listen on {address}: {error}; choose another --listen"
            ))
        })?;
        let address = listener.local_addr()?;

        let (stop, stopped) = watch::channel(false);
        let is_stopping = AtomicBool::new(false);
        let _signals = SignalGuard::new(move || {
            if is_stopping.swap(true, Ordering::Relaxed) {
                end("stopped at once by a second signal");
            }
            let _ = stop.send(true);
            std::thread::spawn(|| {
                std::thread::sleep(END);
                end(STOPPED);
            });
        });

        let url = format!("postgresql://wavemill@{address}/{DATABASE}");
        output::report(&format!(
            "{} at {url}; connect with: psql '{url}'; press Ctrl-C to stop\n",
            self.store.display()
        ));
        sql_server::run(server, listener, stopped).await;
        Err(Interrupted(STOPPED.to_owned()).into())
    }

    fn access(&self) -> Result<Access> {
        let password = self.password()?;
        if password.is_none() && !self.listen.ip().is_loopback() {
            return Err(UsageError(format!(
                "--listen {}: other machines can reach this address, so a password is needed: give --password-file, or set {PASSWORD_VARIABLE}",
                self.listen
            ))
            .into());
        }

        let access = Access::new(password.as_deref());
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => access
                .with_tls(certificate, key)
                .map_err(|error| UsageError(error.to_string()).into()),
            _ => Ok(access),
        }
    }

    fn password(&self) -> Result<Option<String>> {
        if let Some(file) = &self.password_file {
            return read_password(file).map(Some);
        }
        match std::env::var(PASSWORD_VARIABLE) {
            Ok(password) if password.is_empty() => {
                Err(UsageError(format!("{PASSWORD_VARIABLE} is empty")).into())
            }
            Ok(password) => Ok(Some(password)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(error) => Err(UsageError(format!("{PASSWORD_VARIABLE}: {error}")).into()),
        }
    }
}

const STOPPED: &str = "stopped by a signal; running queries were ended";

fn read_password(file: &Path) -> Result<String> {
    let wrong = |reason: &str| UsageError(format!("--password-file {}: {reason}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(&error.to_string()))?;
    let mut lines = text.lines();
    match (lines.next(), lines.next()) {
        (Some(password), None) if !password.is_empty() => Ok(password.to_owned()),
        _ => Err(wrong("expected the password on one line").into()),
    }
}

fn threads(n: usize) -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(n)
        .thread_stack_size(STACK_BYTES)
        .thread_name("wavemill-sql")
        .enable_all()
        .build()
        .context("cannot start threads")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::cli::command_of;

    fn access(words: &[&str]) -> Result<Access> {
        let mut line: Vec<&OsStr> = vec!["--store".as_ref(), "s".as_ref()];
        line.extend(words.iter().map(OsStr::new));
        command_of::<SqlServerCommand>(&line)?.access()
    }

    #[test]
    fn other_machines_need_a_password_and_tls_needs_both_files() {
        access(&[]).expect("this machine without a password");
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("password");
        std::fs::write(&file, "secret\n").expect("file");
        let file = file.to_str().expect("path");

        let open = ["--listen", "0.0.0.0:5432"];
        let refused = access(&open).err().expect("no password").to_string();
        assert!(refused.contains("a password is needed"), "{refused}");
        access(&[&open[..], &["--password-file", file]].concat()).expect("with a password");

        for wrong in [
            &["--tls-cert", file][..],
            &["--tls-cert", file, "--tls-key", file],
            &["--password-file", "/dev/null"],
            &["--connections", "0"],
            &["--query-timeout", "0"],
            &["--listen", "localhost"],
        ] {
            assert!(access(wrong).is_err(), "{wrong:?}");
        }
    }
}
