//! A server in this process, with real clients. Signals and new versions by `extract` are tested in `tests/tests/`.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};
use wavemill_sql::testing::TestStore;
use wavemill_sql::{Limits, SharedEnvironment};
use wavemill_store::Store;

use super::{Access, SqlServer, SqlServerSetup, run};

/// Time in which everything that these tests wait for happens, on a busy machine.
const WAIT: Duration = Duration::from_secs(60);
/// Query that would run for years.
const ENDLESS: &str = "SELECT sum((a.track_id + b.track_id + c.track_id) % 7) FROM tracks a, tracks b, tracks c, \
    tracks d, tracks e, tracks f, tracks g, tracks h, tracks i, tracks j, tracks k, tracks l, tracks m, tracks n";

struct Running {
    store: TestStore,
    port: u16,
    stop: watch::Sender<bool>,
    /// Threads of queries, as in the program: a query must not block the threads that serve connections.
    queries: Option<Runtime>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // A runtime may not wait for its threads within another one.
        if let Some(queries) = self.queries.take() {
            queries.shutdown_background();
        }
    }
}

impl Running {
    async fn start() -> Self {
        Self::with(Access::new(None), Duration::from_secs(300)).await
    }

    async fn with(access: Access, query_timeout: Duration) -> Self {
        let store = TestStore::small();
        publish(&store, 1);
        let limits = Limits {
            memory_bytes: 256 << 20,
            threads: 1,
            allow_write: false,
        };
        let path = store.folder.path();
        let queries = Runtime::new().expect("threads");
        let environment =
            SharedEnvironment::new(&Store::at(path), limits, queries.handle().clone());
        let environment = environment.expect("an environment");
        let server = Arc::new(SqlServer::new(SqlServerSetup {
            store: path.to_owned().into_os_string().into(),
            version: None,
            environment,
            access,
            query_timeout,
            n_connections: 2,
        }));

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move { run(&server, listener, stopped).await });
        Self {
            store,
            port,
            stop,
            queries: Some(queries),
        }
    }

    fn config(&self) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port);
        config.user("anyone").dbname("wavemill");
        config
    }

    async fn connect(&self) -> Client {
        connect(&self.config()).await.expect("a connection")
    }
}

async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn publish(store: &TestStore, version: u64) {
    let folder = store.folder.path().join("_wavemill/versions");
    fs::create_dir_all(&folder).expect("a folder");
    let manifest = store.manifest.to_json().expect("JSON");
    fs::write(folder.join(format!("{version:08}.json")), manifest).expect("a manifest");
}

/// Returns the values of a query as text, separated by `|`, one row per line.
async fn text(client: &Client, sql: &str) -> Result<String, tokio_postgres::Error> {
    let mut rows = Vec::new();
    for message in client.simple_query(sql).await? {
        if let SimpleQueryMessage::Row(row) = message {
            let values = (0..row.len()).map(|i| row.get(i).unwrap_or("null"));
            rows.push(values.collect::<Vec<_>>().join("|"));
        }
    }
    Ok(rows.join("\n"))
}

/// Returns the code and the message of an error.
fn failure<T>(answered: Result<T, tokio_postgres::Error>) -> String {
    match answered {
        Ok(_) => "no error".to_owned(),
        Err(error) => match error.as_db_error() {
            Some(error) => format!("{} {}", error.code().code(), error.message()),
            None => error.to_string(),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_have_the_tables_and_functions_of_wavemill_sql() {
    let running = Running::start().await;
    let mut client = running.connect().await;
    for (sql, want) in [
        ("SELECT count(*) FROM tracks", "9"),
        ("SELECT count(*) FROM store.tracks", "9"),
        ("SELECT html FROM raw.tracks", "<b>a</b>"),
        (
            "SELECT tensor(log_mel), tensor_mean(log_mel) FROM features_log_mel WHERE clip_key LIKE '%1%'",
            "{1.0,2.0,3.0,4.0,5.0,6.0}|3.5",
        ),
        (
            "SELECT quant FROM features_quant ORDER BY clip_key LIMIT 2",
            "\\x00000000\n\\x01010101",
        ),
        (
            "SELECT row_groups FROM files WHERE table_name = 'tracks'",
            "{9}",
        ),
        (
            "SELECT class FROM classes ORDER BY class_id",
            "Folk\nJazz\nRock",
        ),
        (
            "SELECT current_schema(), current_database()",
            "store|wavemill",
        ),
        ("SELECT split_part(version(), ' ', 1)", "PostgreSQL"),
        (
            r"SELECT 'a_\' LIKE '%/_\' ESCAPE '/', 'ab' ILIKE 'A/_' ESCAPE '/', 'a_' LIKE 'a\_' ESCAPE '\',
                '0/1' LIKE '0//%' ESCAPE '/', '0_/' LIKE '0/_//' ESCAPE '/', '5%' LIKE '5%%' ESCAPE '%'",
            "t|f|t|t|t|t",
        ),
        (
            "PREPARE p AS SELECT 1; DEALLOCATE p; PREPARE p AS SELECT 2; EXECUTE p",
            "2",
        ),
        ("BEGIN; SELECT 1; COMMIT", "1"),
        ("BEGIN; SAVEPOINT a; SELECT 1; RELEASE a; COMMIT", "1"),
        (
            "SET statement_timeout = '5s'; SHOW statement_timeout",
            "5000ms",
        ),
        ("", ""),
    ] {
        assert_eq!(text(&client, sql).await.expect(sql), want, "{sql}");
    }

    // A prepared statement: parameters and results are binary.
    let sql = "SELECT track_id, track_title FROM tracks WHERE track_id = $1";
    let rows = client.query(sql, &[&3i64]).await.expect("a row");
    let found: Vec<(i64, &str)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(found, [(3, "title 3")]);
    let sql = "SELECT log_mel FROM features_log_mel ORDER BY clip_key LIMIT 1";
    let row = client.query_one(sql, &[]).await.expect("a row");
    assert_eq!(row.get::<_, &[u8]>(0).len(), 12);

    // A cursor, as psql uses with FETCH_COUNT.
    let sql = "BEGIN; DECLARE c CURSOR FOR SELECT track_id FROM tracks ORDER BY 1; FETCH FORWARD 2 FROM c; CLOSE c; COMMIT";
    assert_eq!(text(&client, sql).await.expect("a cursor"), "0\n1");

    // A prepared statement with a limit of rows, as JDBC sends for setMaxRows and setFetchSize.
    let transaction = client.transaction().await.expect("a transaction");
    let sql = "SELECT * FROM generate_series(1, 3000)";
    let portal = transaction.bind(sql, &[]).await.expect("a portal");
    for want in [2000, 1000, 0] {
        let rows = transaction.query_portal(&portal, 2000).await.expect("rows");
        assert_eq!(rows.len(), want);
    }
}

/// Statements that DBeaver, Metabase, psql and SQLAlchemy send before the first query of their user.
const OF_CLIENTS: &[&str] = &[
    "SET extra_float_digits = 3",
    "SET application_name = 'DBeaver 25.1.5 - Main <wavemill>'",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
    "SHOW TRANSACTION ISOLATION LEVEL",
    "SHOW search_path",
    "select pg_catalog.version()",
    "select current_schema()",
    "show standard_conforming_strings",
    "SELECT current_schema(),session_user",
    "SELECT n.oid,n.*,d.description FROM pg_catalog.pg_namespace n LEFT OUTER JOIN pg_catalog.pg_description d ON \
     d.objoid=n.oid AND d.objsubid=0 AND d.classoid='pg_namespace'::regclass ORDER BY nspname",
    "SELECT n.nspname = ANY(current_schemas(true)), n.nspname, t.typname FROM pg_catalog.pg_type t JOIN \
     pg_catalog.pg_namespace n ON t.typnamespace = n.oid WHERE t.oid = 1034",
    "SELECT db.oid,db.* FROM pg_catalog.pg_database db WHERE datname='wavemill'",
    "SELECT * FROM pg_catalog.pg_settings where name='standard_conforming_strings'",
    "SELECT t.oid,t.*,c.relkind,format_type(nullif(t.typbasetype, 0), t.typtypmod) as base_type_name, d.description FROM \
     pg_catalog.pg_type t LEFT OUTER JOIN pg_catalog.pg_type et ON et.oid=t.typelem LEFT OUTER JOIN pg_catalog.pg_class c \
     ON c.oid=t.typrelid LEFT OUTER JOIN pg_catalog.pg_description d ON t.oid=d.objoid WHERE t.typname IS NOT NULL AND \
     (c.relkind IS NULL OR c.relkind = 'c') AND (et.typcategory IS NULL OR et.typcategory <> 'C')",
    "SELECT c.oid,c.*,d.description,pg_catalog.pg_get_expr(c.relpartbound, c.oid) as partition_expr, \
     pg_catalog.pg_get_partkeydef(c.oid) as partition_key FROM pg_catalog.pg_class c LEFT OUTER JOIN \
     pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_class'::regclass WHERE \
     c.relnamespace=11 AND c.relkind not in ('i','I','c')",
    "SELECT nspname AS \"TABLE_SCHEM\", current_database() AS \"TABLE_CATALOG\" FROM pg_catalog.pg_namespace WHERE nspname \
     <> 'pg_toast' AND (nspname !~ '^pg_temp_' OR nspname = (pg_catalog.current_schemas(true))[1]) ORDER BY \"TABLE_SCHEM\"",
    "SELECT n.nspname as \"Schema\", c.relname as \"Name\", CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' END \
     as \"Type\", pg_catalog.pg_get_userbyid(c.relowner) as \"Owner\" FROM pg_catalog.pg_class c LEFT JOIN \
     pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r','p','v','m','S','f','') AND n.nspname <> \
     'pg_catalog' AND n.nspname !~ '^pg_toast' AND n.nspname <> 'information_schema' AND \
     pg_catalog.pg_table_is_visible(c.oid) ORDER BY 1,2",
    "DISCARD ALL",
];

#[tokio::test(flavor = "multi_thread")]
async fn clients_can_start() {
    let running = Running::start().await;
    let client = running.connect().await;
    for sql in OF_CLIENTS {
        if let Err(error) = text(&client, sql).await {
            panic!("{sql}: {}", failure::<()>(Err(error)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_and_no_other_file_is_read() {
    let running = Running::start().await;
    let client = running.connect().await;
    let out = running.store.folder.path().join("out.csv");
    let copy = format!("COPY tracks TO '{}'", out.display());
    let copy_query = format!("COPY (SELECT 1) TO '{}'", out.display());

    for (sql, code) in [
        (copy.as_str(), "42000"),
        (copy_query.as_str(), "42000"),
        ("CREATE TABLE t (a INT)", "25006"),
        ("CREATE TABLE t AS SELECT 1", "25006"),
        ("CREATE VIEW v AS SELECT 1", "25006"),
        ("CREATE SCHEMA s", "25006"),
        ("DROP TABLE tracks", "25006"),
        ("INSERT INTO tracks (track_id) VALUES (1)", "25006"),
        ("DELETE FROM tracks", "25006"),
        ("UPDATE tracks SET track_id = 1", "25006"),
        (
            "EXPLAIN ANALYZE INSERT INTO tracks (track_id) VALUES (1)",
            "25006",
        ),
        ("PREPARE p AS DELETE FROM tracks", "25006"),
        ("SET datafusion.runtime.memory_limit = '100G'", "55P02"),
        ("SET \"datafusion.execution.batch_size\" = 1000000", "55P02"),
        ("SET (datafusion.execution.batch_size) = (1000000)", ""),
        ("RESET datafusion.runtime.memory_limit", "42000"),
        ("SELECT * FROM '/etc/passwd'", "42P01"),
        ("SELECT * FROM read_csv('/etc/passwd')", ""),
        (
            "CREATE EXTERNAL TABLE p STORED AS CSV LOCATION '/etc/passwd'",
            "",
        ),
        ("COPY tracks FROM '/etc/passwd'", ""),
        ("LOAD 'x'", ""),
        ("DECLARE c CURSOR FOR SELECT * FROM nothing", "42P01"),
        (
            "SELECT * FROM track",
            "42P01 no table 'track'; did you mean tracks",
        ),
        ("SELECT titel FROM tracks", "42703"),
        ("SELEC 1", "42601"),
    ] {
        for found in [
            failure(client.simple_query(sql).await),
            failure(client.prepare(sql).await.map(drop).and(
                // Some statements are only refused when they are executed.
                client.query(sql, &[]).await.map(drop),
            )),
        ] {
            assert!(
                found.starts_with(code) && found != "no error",
                "{sql}: {found}"
            );
        }
    }
    assert!(!out.exists());
    assert_eq!(
        text(&client, "SELECT count(*) FROM tracks")
            .await
            .expect("rows"),
        "9"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_ends_a_transaction() {
    let running = Running::start().await;
    let client = running.connect().await;
    client.simple_query("BEGIN").await.expect("a transaction");
    let failed = failure(client.simple_query("SELECT titel FROM tracks").await);
    assert!(failed.starts_with("42703"), "{failed}");
    let refused = failure(client.simple_query("SELECT 1").await);
    assert!(refused.starts_with("25P0"), "{refused}");
    client.simple_query("ROLLBACK").await.expect("the end");
    assert_eq!(text(&client, "SELECT 1").await.expect("rows"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_password_opens_a_connection() {
    let access = Access::new(Some("pa ss-wörd"));
    let running = Running::with(access, WAIT).await;
    let mut config = running.config();
    assert!(connect(&config).await.is_err(), "without a password");
    for wrong in ["password", ""] {
        let found = failure(connect(config.password(wrong)).await);
        assert!(found.starts_with("28P01"), "{found}");
    }
    let client = connect(config.password("pa ss-wörd")).await;
    let client = client.expect("the password");
    assert_eq!(text(&client, "SELECT 1").await.expect("rows"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_required_if_it_is_configured() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path
    };
    let (certificate, key) = (file("cert", CERTIFICATE), file("key", KEY));
    let access = |certificate: &Path, key: &Path| Access::new(None).with_tls(certificate, key);

    let running = Running::with(access(&certificate, &key).expect("TLS"), WAIT).await;
    let refused = failure(connect(&running.config()).await);
    assert!(refused.starts_with("28000"), "{refused}");

    let empty = file("empty", "");
    for (certificate, key) in [
        (&empty, &key),
        (&certificate, &empty),
        (&certificate, &certificate),
    ] {
        let error = access(certificate, key).err().expect("an error");
        assert!(error.to_string().starts_with("--tls-"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_clients_than_permitted_are_told_the_reason() {
    let running = Running::start().await;
    let (first, second) = (running.connect().await, running.connect().await);
    let refused = failure(connect(&running.config()).await);
    assert_eq!(
        refused,
        "53300 too many connections: this server permits 2 (--connections)"
    );

    // A request to cancel needs no place. It has no effect before the query has begun, so it is repeated.
    let token = first.cancel_token();
    let has_ended = AtomicBool::new(false);
    let query = async {
        let ended = timeout(WAIT, first.simple_query(ENDLESS)).await;
        has_ended.store(true, Ordering::Relaxed);
        ended
    };
    let requests = async {
        while !has_ended.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(300)).await;
            token.cancel_query(NoTls).await.expect("a request");
        }
    };
    let (ended, ()) = tokio::join!(query, requests);
    let ended = failure(ended.expect("an end"));
    assert!(ended.starts_with("57014"), "{ended}");
    // The last request may arrive after the end of its query, and cancel the next one.
    let mut answer = text(&first, "SELECT 1").await;
    if answer.is_err() {
        answer = text(&first, "SELECT 1").await;
    }
    assert_eq!(answer.expect("rows"), "1");

    drop(second);
    timeout(WAIT, async {
        while connect(&running.config()).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("a place");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_end_after_their_time_and_connections_stay() {
    let running = Running::with(Access::new(None), Duration::from_millis(500)).await;
    let client = running.connect().await;
    let ended = failure(client.simple_query(ENDLESS).await);
    assert_eq!(ended, "57014 the query took longer than 0.5 s");
    let ended = failure(client.query(ENDLESS, &[]).await);
    assert_eq!(ended, "57014 the query took longer than 0.5 s");

    client
        .simple_query("SET statement_timeout = 100")
        .await
        .expect("a shorter time");
    let ended = failure(client.simple_query(ENDLESS).await);
    assert_eq!(ended, "57014 the query took longer than 0.1 s");
    assert_eq!(text(&client, "SELECT 1").await.expect("rows"), "1");

    // The next user of a pooled connection has the server's limit again.
    client.simple_query("DISCARD ALL").await.expect("an answer");
    let ended = failure(client.simple_query(ENDLESS).await);
    assert_eq!(ended, "57014 the query took longer than 0.5 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn search_path_selects_a_schema_and_a_second_prepared_statement_is_an_error() {
    let running = Running::start().await;
    let mut client = running.connect().await;
    let columns = "SELECT count(*) FROM columns";
    assert!(text(&client, columns).await.is_err());

    // The first schema that exists counts.
    for sql in [
        "SET search_path = information_schema",
        "SET search_path TO none, 'information_schema', store",
        "SET search_path = \"INFORMATION_SCHEMA\"",
    ] {
        client.simple_query(sql).await.expect(sql);
        assert!(text(&client, columns).await.is_ok(), "{sql}");
        client.simple_query("DISCARD ALL").await.expect("an answer");
        assert!(text(&client, columns).await.is_err());
    }
    for sql in [
        "SET search_path = ''",
        "SET search_path TO \"$user\", public",
        "SET search_path = STORE, information_schema",
    ] {
        client.simple_query(sql).await.expect(sql);
        let classes = text(&client, "SELECT count(*) FROM classes").await;
        assert_eq!(classes.expect(sql), "3");
    }

    let mut config = running.config();
    config.options("-c search_path=information_schema");
    client = connect(&config).await.expect("a connection");
    assert!(text(&client, columns).await.is_ok());

    let ended = failure(client.query("SELECT 1; SELECT 2", &[]).await);
    let want = "42601 cannot insert multiple commands into a prepared statement";
    assert_eq!(ended, want);
    assert!(client.query("SELECT ';';", &[]).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_keeps_its_version() {
    let mut running = Running::start().await;
    let sql = "SELECT count(*) FROM classes";
    let before = running.connect().await;
    assert_eq!(text(&before, sql).await.expect("rows"), "3");
    running.store.manifest.targets[0]
        .classes
        .push("Soul".to_owned());
    publish(&running.store, 2);

    let after = running.connect().await;
    assert_eq!(text(&before, sql).await.expect("rows"), "3");
    assert_eq!(text(&after, sql).await.expect("rows"), "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_names_the_file() {
    let running = Running::start().await;
    let files = running.store.manifest.files.iter();
    let entry = files.clone().find(|entry| entry.name() == "tracks");
    let path = &entry.expect("the table").path;
    let full = running.store.folder.path().join(path);
    let bytes = fs::read(&full).expect("a file");
    fs::write(&full, &bytes[1..]).expect("damage");

    let client = running.connect().await;
    let found = failure(client.simple_query("SELECT * FROM tracks").await);
    assert!(
        found.starts_with("XX001") && found.contains(path),
        "{found}"
    );
    let found = failure(client.query("SELECT * FROM tracks", &[]).await);
    assert!(
        found.starts_with("XX001") && found.contains(path),
        "{found}"
    );
    assert_eq!(
        text(&client, "SELECT count(*) FROM rejects")
            .await
            .expect("rows"),
        "1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_queries_and_idle_clients() {
    let running = Running::start().await;
    let (busy, idle) = (running.connect().await, running.connect().await);
    let begun = Instant::now();
    let (ended, ()) = tokio::join!(busy.simple_query(ENDLESS), async {
        sleep(Duration::from_millis(200)).await;
        running.stop.send(true).expect("a server");
    });
    assert_eq!(failure(ended), "57P01 the server was stopped");
    assert!(failure(idle.simple_query("SELECT 1").await) != "no error");
    assert!(begun.elapsed() < WAIT);
    assert!(connect(&running.config()).await.is_err());
}

/// Bytes that are not of the protocol end only their own connection.
#[tokio::test(flavor = "multi_thread")]
async fn other_protocols_are_harmless() {
    let running = Running::start().await;
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        &[0, 0, 0, 4],
        &[0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0],
        &[0x16, 3, 1, 0, 5],
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", running.port)).expect("a socket");
        stream.write_all(bytes).expect("bytes");
    }
    let client = running.connect().await;
    assert_eq!(text(&client, "SELECT 1").await.expect("rows"), "1");
}

/// Connects without a library, so that the test can send any bytes.
fn connect_by_hand(running: &Running) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", running.port)).expect("a socket");
    stream.set_read_timeout(Some(WAIT)).expect("a timeout");
    let startup = b"\0\x03\0\0user\0anyone\0database\0wavemill\0\0";
    let length = (4 + startup.len() as u32).to_be_bytes();
    stream.write_all(&length).expect("bytes");
    stream.write_all(startup).expect("bytes");

    let mut answer = Vec::new();
    while !answer.ends_with(b"Z\0\0\0\x05I") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the server is ready");
        answer.push(byte[0]);
    }
    stream
}

/// Messages that are too short for their type, or too long, end only their own connection.
#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_wrong_length_are_harmless() {
    let running = Running::start().await;
    let mut short = connect_by_hand(&running);
    short.write_all(b"P\0\0\0\x04").expect("bytes");
    let mut answer = Vec::new();
    short.read_to_end(&mut answer).expect("an end");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("08P01"), "{answer}");

    let mut long = connect_by_hand(&running);
    long.write_all(b"Q\x3f\xff\xff\xfd").expect("bytes");
    // The server may close the connection before all bytes were sent.
    let megabyte = vec![b' '; 1 << 20];
    let _ = (0..17).try_for_each(|_| long.write_all(&megabyte));
    let ended = long.read_to_end(&mut Vec::new());
    let is_waiting = |error: &std::io::Error| {
        matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
    };
    assert!(!ended.as_ref().is_err_and(is_waiting), "{ended:?}");

    let client = running.connect().await;
    assert_eq!(text(&client, "SELECT 1").await.expect("rows"), "1");
}

/// Calls with constants are computed while a query is planned, where nothing can end them.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_need_too_much_are_refused() {
    let running = Running::start().await;
    let client = running.connect().await;
    for sql in [
        "SELECT levenshtein(repeat('a', 10000000), repeat('b', 10000000))",
        "SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))",
        "SELECT range(0, 3000000000)",
        "SELECT length(repeat(track_title, 10000000)) FROM tracks",
    ] {
        let refused = timeout(WAIT, client.simple_query(sql)).await;
        let refused = failure(refused.expect("an answer"));
        assert!(refused.starts_with("54001"), "{sql}: {refused}");
    }
    assert_eq!(text(&client, "SELECT 1").await.expect("rows"), "1");
}

const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBfzCCASWgAwIBAgIUQ9QZ5c2va7e1+fuDSnbhXUxXxUMwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNjAxMzA1OFoYDzIxMjYxMTAy
MDEzMDU4WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAROXGVFImfTQuwzv5NLGuty4IFNom2qO4picKXYSThrGfEXsICDZcjh
hg0A2XrMuzNQtRCdgvNya1T8uJsQvySPo1MwUTAdBgNVHQ4EFgQU+vH7CK4EVF0A
+N/0rAiW/ez7q3kwHwYDVR0jBBgwFoAU+vH7CK4EVF0A+N/0rAiW/ez7q3kwDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEAwFS7A4Tso6Ts+/sQ0tto
Vvqt+h0gUA9t7baRxDmVyLkCIEQRdNs8OJ04ID1b3EYVIcWlMzJXc6MpPeIrn2ll
VDLC
-----END CERTIFICATE-----";
const KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQghNnmNf6zPfuH/ZIB
Fx7UQnYlkOuek+5q1mUpd3/7YrKhRANCAAROXGVFImfTQuwzv5NLGuty4IFNom2q
O4picKXYSThrGfEXsICDZcjhhg0A2XrMuzNQtRCdgvNya1T8uJsQvySP
-----END PRIVATE KEY-----";
