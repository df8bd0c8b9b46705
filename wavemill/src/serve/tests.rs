//! Tests of the server over real connections, with a fake reader and a shell script as the model.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;

use super::*;

/// Script that replies to each input line with the lines for a song of two segments. It exits at `die`.
const MODEL: &str = r#"while IFS= read -r line; do
    case "$line" in hello) echo; continue;; die*) exit 3;; esac
    cat "$0"; printf '\n\n'
done"#;

/// Reader whose behaviour is controlled by the text of the song.
struct FakeReader;

impl Reader for FakeReader {
    fn read(&mut self, upload: Upload) -> Result<Song, Unreadable> {
        let text = String::from_utf8_lossy(&upload.bytes).into_owned();

        match text.split_whitespace().next().unwrap_or_default() {
            "" => return Err(Unreadable::Clip("empty: the file has no bytes".to_owned())),
            "noise" => return Err(Unreadable::Clip("not_audio: it is noise".to_owned())),
            "fault" => return Err(Unreadable::Fault("a fault".to_owned())),
            "panic" => panic!("a reader with a fault"),
            "slow" => sleep(Duration::from_millis(700)),
            _ => {}
        }

        Ok(Song {
            duration_s: 6.0,
            streams: vec![format!("{}\n", text.replace('\n', " ")).into_bytes()],
            ..Song::default()
        })
    }
}

/// A server that runs on its own port.
struct Running {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    server: Arc<Server>,
    /// Directory with the output of the model.
    _lines: tempfile::TempDir,
}

impl Running {
    fn start(limits: Limits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let lines = folder.path().join("lines");
        std::fs::write(&lines, answer::tests::LINES).expect("disk space");

        let setup = ServerSetup {
            address: IpAddr::from([127, 0, 0, 1]),
            names: Vec::new(),
            limits,
            reader: Box::new(|| Ok(Box::new(FakeReader))),
            models: vec![ModelSetup {
                run: "one".to_owned(),
                input: 0,
                command: Box::new(move || {
                    let mut command = std::process::Command::new("sh");
                    command.args(["-c", MODEL]).arg(&lines);
                    command
                }),
                greeting: b"hello\n".to_vec(),
            }],
        };

        let server = Arc::new(Server::new(setup));
        let (stop, stopped) = watch::channel(false);
        let (tell, told) = std::sync::mpsc::channel();
        let own = Arc::clone(&server);

        let thread = spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime");

            runtime.block_on(async {
                own.make_ready().await.expect("a model");
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                tell.send(listener.local_addr().expect("bound"))
                    .expect("a test");
                run(&own, listener, stopped).await;
            });
        });

        Self {
            address: told.recv().expect("it starts"),
            stop,
            thread: Some(thread),
            server,
            _lines: folder,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        let limit = Some(Duration::from_secs(30));
        stream.set_read_timeout(limit).expect("a timeout");
        stream
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Response {
        let mut stream = self.connect();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{headers}\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("it reads");
        stream.write_all(body).expect("it reads");
        Response::read(stream)
    }

    fn get(&self, path: &str) -> Response {
        self.ask("GET", path, "", b"")
    }

    fn predict(&self, song: &str) -> Response {
        self.ask("POST", "/api/predict?name=a.mp3", "", song.as_bytes())
    }

    fn end(mut self) {
        let _ = self.stop.send(true);
        let thread = self.thread.take().expect("not ended yet");
        thread.join().expect("it ends in order");
    }
}

#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    fn read(mut stream: TcpStream) -> Self {
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));

        Self {
            status: head
                .split(' ')
                .nth(1)
                .and_then(|s| s.parse().ok())
                .unwrap_or(0),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the sentence of an error response.
    fn error(&self) -> String {
        let words = self.json()["error"]
            .as_str()
            .expect("a sentence")
            .to_owned();
        assert!(words.ends_with('.'), "{words}");
        words
    }
}

fn small() -> Limits {
    Limits {
        upload_bytes: 100_000,
        in_flight: 2,
        threads: 2,
        ..Limits::default()
    }
}

fn form(parts: &[(&str, &str)]) -> Vec<u8> {
    let mut body = String::new();
    for (disposition, text) in parts {
        body += &format!("--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{text}\r\n");
    }
    (body + "--b--\r\n").into_bytes()
}

const FORM: &str = "Content-Type: multipart/form-data; boundary=b\r\n";

#[test]
fn songs_are_accepted_as_body_or_form_part() {
    let running = Running::start(small());

    let said = running.predict("a song");
    assert_eq!(said.status, 200, "{said:?}");
    let json = said.json();
    assert_eq!(json["file"], "a.mp3");
    assert_eq!(json["answers"].as_array().map(Vec::len), Some(3));
    assert_eq!(json["answers"][2]["majority"], "Rock");
    assert_eq!(json.get("html"), None);

    let body = form(&[("name=\"file\"; filename=\"b.wav\"", "a song")]);
    let said = running.ask("POST", "/api/predict?html=true&top=1", FORM, &body);
    let json = said.json();
    assert_eq!((said.status, &json["file"]), (200, &Value::from("b.wav")));
    assert_eq!(json["answers"][0]["top"].as_array().map(Vec::len), Some(1));
    assert!(
        json["html"]
            .as_str()
            .is_some_and(|html| html.contains("<svg"))
    );

    assert!(running.metrics_say("wavemill_requests_total{path=\"/api/predict\",status=\"200\"} 2"));
    running.end();
}

impl Running {
    fn metrics_say(&self, line: &str) -> bool {
        let said = self.get("/metrics");
        said.status == 200 && said.body.lines().any(|found| found == line)
    }
}

#[test]
fn invalid_uploads_get_an_explanation() {
    let running = Running::start(small());

    for (song, status, words) in [
        (
            "noise",
            422,
            "a.mp3 cannot be processed: not_audio: it is noise.",
        ),
        (
            "",
            422,
            "a.mp3 cannot be processed: empty: the file has no bytes.",
        ),
        ("fault", 500, "because of an internal error: a fault."),
        ("panic", 500, "the reader panicked."),
    ] {
        let said = running.predict(song);
        assert_eq!(said.status, status, "{said:?}");
        assert!(said.error().contains(words), "{said:?}");
    }

    let file = "name=\"file\"; filename=\"b.wav\"";
    for (body, words) in [
        (form(&[]), "contains no file"),
        (form(&[(file, "a"), (file, "b")]), "one song per request"),
        (form(&[("name=\"x\"", "a")]), "a part that is not a file"),
        (b"--b\r\nContent".to_vec(), "damaged"),
    ] {
        let said = running.ask("POST", "/api/predict", FORM, &body);
        assert_eq!(said.status, 400, "{said:?}");
        assert!(said.error().contains(words), "{said:?}");
    }

    let no_boundary = "Content-Type: multipart/form-data\r\n";
    assert_eq!(
        running
            .ask("POST", "/api/predict", no_boundary, b"x")
            .status,
        400
    );
    for path in ["/api/predict?top=-1", "/api/predict?other=1"] {
        assert_eq!(running.ask("POST", path, "", b"x").status, 400, "{path}");
    }

    assert_eq!(running.get("/nothing").status, 404);
    assert_eq!(running.get("/api/predict").status, 405);

    // The server still works after all of these requests.
    assert_eq!(running.predict("a song").status, 200);
    running.end();
}

#[test]
fn oversized_upload_is_rejected_while_receiving() {
    let running = Running::start(small());
    let mut stream = running.connect();
    let head = format!(
        "POST /api/predict HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        running.address
    );
    stream.write_all(head.as_bytes()).expect("it reads");

    // A chunked body without an announced length is rejected when its size exceeds the limit.
    let chunk = [b"10000\r\n".as_slice(), &vec![b'x'; 0x10000], b"\r\n"].concat();
    for _ in 0..3 {
        stream.write_all(&chunk).expect("it reads");
    }

    let said = Response::read(stream);
    assert_eq!(said.status, 413, "{said:?}");
    assert!(said.error().contains("at most 97.7 KiB"), "{said:?}");

    // A body with an announced length is rejected before it is read, and the connection is not reset by the data still
    // sent.
    let said = running.predict(&"x".repeat(3_000_000));
    assert_eq!(said.status, 413, "{said:?}");
    let body = form(&[("name=\"file\"; filename=\"b.wav\"", &"x".repeat(120_000))]);
    assert_eq!(running.ask("POST", "/api/predict", FORM, &body).status, 413);
    assert_eq!(running.predict(&"x".repeat(100_000)).status, 200);
    running.end();
}

#[test]
fn slow_uploads_time_out() {
    let running = Running::start(Limits {
        head: Duration::from_millis(400),
        silence: Duration::from_millis(400),
        upload: Duration::from_millis(1500),
        ..small()
    });

    let begin = Instant::now();
    // Connections that send nothing, half a head, half a body, and a body in small pieces.
    let silent = running.connect();
    let mut half = running.connect();
    half.write_all(b"GET / HT").expect("it reads");

    let head = format!(
        "POST /api/predict HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000\r\n\r\nabc",
        running.address
    );
    let mut body = running.connect();
    body.write_all(head.as_bytes()).expect("it reads");

    let mut dripping = running.connect();
    dripping.write_all(head.as_bytes()).expect("it reads");
    let drops = dripping.try_clone().expect("a handle");
    let drip = spawn(move || {
        let mut drops = drops;
        while drops.write_all(b"x").is_ok() && begin.elapsed() < Duration::from_secs(8) {
            sleep(Duration::from_millis(100));
        }
    });

    for stream in [silent, half] {
        assert!(matches!(Response::read(stream).status, 0 | 408));
    }

    let said = Response::read(body);
    assert_eq!(said.status, 408, "{said:?}");
    assert!(said.error().contains("after 0.4 s"), "{said:?}");

    let said = Response::read(dripping);
    assert_eq!(said.status, 408, "{said:?}");
    assert!(begin.elapsed() < Duration::from_secs(8));

    drip.join().expect("it ends");
    assert_eq!(running.predict("a song").status, 200);
    running.end();
}

#[test]
fn requests_over_capacity_get_retry_after() {
    let running = Running::start(small());
    let answered = AtomicUsize::new(0);
    let refused = AtomicUsize::new(0);

    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let said = running.predict("slow song");
                    if said.status == 200 {
                        answered.fetch_add(1, Ordering::Relaxed);
                        return;
                    }

                    assert_eq!(said.status, 503, "{said:?}");
                    assert!(said.head.contains("retry-after: 1"), "{said:?}");
                    assert!(said.error().contains("2 songs are in progress"), "{said:?}");

                    refused.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(200));
                }
            });
        }
    });

    assert_eq!(answered.load(Ordering::Relaxed), 20);
    assert!(refused.load(Ordering::Relaxed) > 0);
    assert!(running.metrics_say("wavemill_in_flight 0"));
    running.end();
}

#[test]
fn disconnected_client_starts_no_prediction() {
    let running = Running::start(small());

    for _ in 0..4 {
        let mut stream = running.connect();
        let head = format!(
            "POST /api/predict HTTP/1.1\r\nHost: {}\r\nContent-Length: 4\r\n\r\nslow",
            running.address
        );

        stream.write_all(head.as_bytes()).expect("it reads");
        sleep(Duration::from_millis(100));
        drop(stream);
        sleep(Duration::from_millis(800));
    }

    assert_eq!(running.predict("a song").status, 200);
    assert!(running.metrics_say("wavemill_model_starts_total{run=\"one\"} 1"));
    running.end();
}

#[test]
fn ended_model_gives_bad_gateway_and_is_restarted() {
    let running = Running::start(small());

    let said = running.predict("die");
    assert_eq!(said.status, 502, "{said:?}");
    assert!(
        said.error()
            .contains("one ended (exit status: 3); the model is being restarted"),
        "{said:?}"
    );

    assert_eq!(running.predict("a song").status, 200);
    assert_eq!(running.get("/healthz").json()["status"], "ok");
    assert!(running.metrics_say("wavemill_model_starts_total{run=\"one\"} 2"));
    running.end();
}

#[test]
fn foreign_hosts_and_origins_are_rejected() {
    let running = Running::start(small());

    let ask = |headers: &str| {
        let mut stream = running.connect();
        let head = format!("POST /api/predict HTTP/1.1\r\n{headers}Content-Length: 1\r\n\r\nx");
        stream.write_all(head.as_bytes()).expect("it reads");
        Response::read(stream).status
    };

    let own = running.address;
    assert_eq!(ask(&format!("Host: {own}\r\n")), 200);
    assert_eq!(
        ask(&format!("Host: {own}\r\nOrigin: http://{own}\r\n")),
        200
    );
    assert_eq!(
        ask(&format!("Host: {own}\r\nOrigin: http://evil.example\r\n")),
        403
    );
    assert_eq!(ask(&format!("Host: {own}\r\nOrigin: null\r\n")), 403);

    assert_eq!(ask("Host: evil.example\r\n"), 421);
    assert_eq!(ask(""), 400);
    assert_eq!(ask(&format!("Host: {own}\r\nHost: evil.example\r\n")), 400);

    running.end();
}

#[test]
fn shutdown_waits_only_for_songs_in_progress() {
    let running = Running::start(small());
    let silent = running.connect();
    let address = running.address;
    let mut stream = running.connect();
    let head =
        format!("POST /api/predict HTTP/1.1\r\nHost: {address}\r\nContent-Length: 4\r\n\r\nslow");
    stream.write_all(head.as_bytes()).expect("it reads");
    sleep(Duration::from_millis(200));

    let begin = Instant::now();
    let waiting = spawn(move || Response::read(stream));
    let server = Arc::clone(&running.server);
    running.end();

    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(waiting.join().expect("an answer").status, 200);
    assert!(
        TcpStream::connect(address).is_err(),
        "the server still listens"
    );
    assert_eq!(server.not_ready(), ["one"]);
    drop(silent);
}

#[test]
fn the_document_names_every_route_and_the_router_has_every_path() {
    let running = Running::start(small());
    let document = running.get("/api/openapi.json").json();
    let paths = document["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), 7);

    for (path, methods) in paths {
        for (method, operation) in methods.as_object().expect("methods") {
            let said = running.ask(&method.to_uppercase(), path, "", b"song");
            let answers = operation["responses"].as_object().expect("answers");
            assert!(
                answers.contains_key(&said.status.to_string()),
                "{path}: {said:?}"
            );

            let kind = answers[&said.status.to_string()]["content"]
                .as_object()
                .expect("content");
            let kind = kind.keys().next().expect("a kind");
            assert!(
                said.head.contains(&format!("content-type: {kind}")),
                "{path}: {said:?}"
            );
        }
    }

    // The paths named by the page are served with the security headers.
    let page = running.get("/");
    assert!(page.head.contains("default-src 'none'") && page.head.contains("nosniff"));
    for name in ["/page.css", "/page.js", "/api/openapi.json"] {
        assert!(page.body.contains(&format!("\"{name}\"")), "{name}");
    }

    running.end();
}
