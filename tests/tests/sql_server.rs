//! `wavemill sql-server`: clients read a store, keep their version while another one is published, and are told why they
//! are refused. Statements and limits are tested in `wavemill/src/sql_server/tests.rs`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_postgres::{Client, Config, NoTls};
use wavemill_tests::Failed;

use crate::peers::script;
use crate::signals::ends_soon;
use crate::support::{
    argv, asks_for_peers, contains, inputs, own_store, run, same, scratch, sql_number, wavemill,
    whole,
};

const PASSWORD: &str = "a password";

/// A server process, and the client's side of its connections.
struct Server {
    child: Child,
    port: u16,
    runtime: Runtime,
}

impl Server {
    fn start(store: &Path, words: &str) -> Result<Self, Failed> {
        let mut command = wavemill(argv("sql-server --listen 127.0.0.1:0 --threads 1 --store"));
        command.arg(store).args(argv(words));
        command.env("WAVEMILL_SQL_PASSWORD", PASSWORD);
        let mut child = command.stderr(Stdio::piped()).spawn()?;

        let stderr = child.stderr.take().ok_or("no stderr")?;
        let mut lines = BufReader::new(stderr);
        let mut first = String::new();
        lines.read_line(&mut first)?;
        child.stderr = Some(lines.into_inner());

        let port = first
            .split_once("; connect with: psql 'postgresql://wavemill@127.0.0.1:")
            .and_then(|(_, rest)| rest.split('/').next()?.parse().ok());
        Ok(Self {
            child,
            port: port.ok_or(format!("no address: {first}"))?,
            runtime: Runtime::new()?,
        })
    }

    fn connect(&self, password: &str) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port);
        config.user("wavemill").password(password);
        self.runtime.block_on(async {
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(connection);
            Ok(client)
        })
    }

    /// Returns the number that a query returns.
    fn number(&self, client: &Client, query: &str) -> Result<i64, tokio_postgres::Error> {
        let row = self.runtime.block_on(client.query_one(query, &[]))?;
        row.try_get(0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Needed only after a failed test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the code of an error that the server sent.
fn code<T>(answered: Result<T, tokio_postgres::Error>) -> String {
    match answered {
        Ok(_) => "no error".to_owned(),
        Err(error) => match error.code() {
            Some(code) => code.code().to_owned(),
            None => error.to_string(),
        },
    }
}

#[apply(trial)]
fn clients_keep_their_version() -> Result<(), Failed> {
    let store = own_store("server-versions");
    let mut server = Server::start(&store, "--connections 2")?;
    let before = server.connect(PASSWORD)?;

    let clips = "SELECT count(*) FROM features_log_mel";
    let bands = "SELECT tensor_shape(log_mel)[1]::bigint FROM features_log_mel LIMIT 1";
    let n_clips = sql_number(&store, clips)?;
    same("clips", server.number(&before, clips)?, n_clips as i64)?;
    let old_bands = server.number(&before, bands)?;

    let extract = argv("--set features.log_mel.n_mels=20 --new-version");
    run(inputs().extract(&store).args(extract)).exits(0)?;
    let after = server.connect(PASSWORD)?;
    same(
        "version of the first client",
        server.number(&before, bands)?,
        old_bands,
    )?;
    same(
        "version of the second client",
        server.number(&after, bands)?,
        20,
    )?;

    same(
        "a third client",
        code(server.connect(PASSWORD)),
        "53300".to_owned(),
    )?;
    let refused = server
        .runtime
        .block_on(after.simple_query("DROP TABLE tracks"));
    same("a statement that writes", code(refused), "25006".to_owned())?;

    // The server ends although clients are connected and a query runs.
    let endless = "SELECT sum((a.track_id + b.track_id) % 7)::bigint FROM tracks a, tracks b, tracks c, tracks d, tracks e, \
                   tracks f, tracks g, tracks h";
    let running = server
        .runtime
        .spawn(async move { code(after.query_one(endless, &[]).await) });
    std::thread::sleep(Duration::from_millis(500));
    let child = std::mem::replace(&mut server.child, Command::new("true").spawn()?);
    ends_soon(
        child,
        "TERM",
        "stopped by a signal; running queries were ended",
    )?;
    same(
        "the running query",
        server.runtime.block_on(running)?,
        "57P01".to_owned(),
    )
}

/// Statements that could take all stack or memory are refused, and the server continues.
#[apply(trial)]
fn excessive_statements_are_refused() -> Result<(), Failed> {
    let server = Server::start(whole(), "")?;
    let client = server.connect(PASSWORD)?;
    for statement in [
        format!("SELECT 1{}", "+1".repeat(30_000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(3_000)),
        format!("SELECT '{}'", "x".repeat(100_000)),
        format!("SELECT {}", "if(current_time(".repeat(40)),
        format!("SELECT NULL::int{}", "[]".repeat(5_000)),
    ] {
        let simple = server.runtime.block_on(client.simple_query(&statement));
        same("simple", code(simple), "54001".to_owned())?;
        let prepared = server.runtime.block_on(client.prepare(&statement));
        same("prepared", code(prepared), "54001".to_owned())?;
    }

    let all = "BEGIN; DECLARE c CURSOR FOR SELECT track_id FROM tracks; FETCH FORWARD 2147483647 FROM c; COMMIT";
    server.runtime.block_on(client.simple_query(all))?;
    let terms = format!("SELECT 1::bigint{}", "+1".repeat(400));
    same("a sum", server.number(&client, &terms)?, 401)
}

#[apply(trial)]
fn wrong_starts_are_explained() -> Result<(), Failed> {
    let mut server = Server::start(whole(), "")?;
    same(
        "a wrong password",
        code(server.connect("guess")),
        "28P01".to_owned(),
    )?;
    let child = std::mem::replace(&mut server.child, Command::new("true").spawn()?);
    ends_soon(child, "INT", "stopped by a signal")?;

    let nothing = scratch("no-store");
    for (words, code, said) in [
        ("--listen 0.0.0.0:0", 2, "a password is needed"),
        (
            "--password-file /dev/null",
            2,
            "expected the password on one line",
        ),
        (
            "--tls-cert /dev/null --tls-key /dev/null",
            2,
            "no certificate in PEM format",
        ),
        ("--version 7", 2, "7"),
    ] {
        let mut command = wavemill(argv("sql-server --store"));
        let ran = run(command.arg(whole()).args(argv(words))).exits(code)?;
        contains(ran.error()?, said)?;
    }
    let mut command = wavemill(argv("sql-server --store"));
    run(command.arg(nothing)).exits(2)?;
    Ok(())
}

/// SQLAlchemy and psycopg list the tables, and read rows and tensors.
#[apply(trial)]
#[needs(asks_for_peers)]
fn sqlalchemy_reads_a_store() -> Result<(), Failed> {
    let server = Server::start(whole(), "")?;
    let url = format!(
        "postgresql+psycopg://wavemill:{}@127.0.0.1:{}/wavemill",
        PASSWORD.replace(' ', "%20"),
        server.port
    );
    let python = std::env::var_os("WAVEMILL_PYTHON").ok_or("WAVEMILL_PYTHON is not set")?;
    let mut command = Command::new(python);
    let ran = run(command.arg(script("read_sql_server.py")).arg(url)).exits(0)?;
    let clips = sql_number(whole(), "SELECT count(*) FROM features_log_mel")?;
    same("rows", ran.out.trim(), clips.to_string().as_str())
}
